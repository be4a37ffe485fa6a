/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault points: named places where a test makes the process die, stop or fail. In a release FAULT()
 * is the constant 0 and its branch is gone; test builds define SHMQ_FAULTS.
 *
 *     FAULT("journal.append.torn");                        a place to die or stop at
 *     if (FAULT("segment.create.nospace")) return ...;     the same, and a failure to inject
 *
 * Environment, read at the first point that a process passes:
 *     SHMQ_FAULT=NAME[:NTH][+]    strike when NAME is passed for the NTH time (default 1; from 1 on);
 *                                 with + at the end every time from then on
 *     SHMQ_FAULT_ACTION=kill      SIGKILL to the own process, the default
 *                       stop      SIGSTOP to the own process; goes on as if nothing had been at SIGCONT
 *                       error     FAULT() returns 1
 *     SHMQ_FAULT_LOG=FILE         append the name of each point passed, one a line, so that a crash suite
 *                                 learns what there is to strike
 *
 * Names are module.verb.what. Any thread may pass a point. fault_arm() and fault_disarm() are for tests that
 * strike inside a forked child without exec.
 */
#ifndef SHMQ_FAULT_H
#define SHMQ_FAULT_H

#ifdef SHMQ_FAULTS

#define FAULT(name) fault_pass(name)

/* Counts, logs, strikes. Returns 1 where the caller is to fail, else 0. */
int fault_pass(const char *name);

/* Replaces what the environment said; counting begins again. NULL for `action` means kill, for
 * `log_path` no log. Returns 0, or SHMQ_EINVAL for a bad spec or action. Not while other threads of
 * this process may pass a point. */
int fault_arm(const char *spec, const char *action, const char *log_path);

/* No strike and no log from here on; the environment is not read again. */
void fault_disarm(void);

#else

static inline int fault_none(void)
{
    return 0;
}

#define FAULT(name) fault_none()

#endif

#endif
