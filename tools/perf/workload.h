/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workload.h: the operations whose instructions are counted, on a bus that is there.
 *
 * One producer and one consumer of one thread, rings of 1 MiB, warmed up over two laps; so every count is
 * of a steady state with room, in which nobody sleeps. Two ways to count:
 *
 *   stepped   the processor stops after each instruction of a call (trap flag, SIGTRAP): what a program
 *             executes, the clock in the vDSO included. The median of the calls: what is rare drops out.
 *   profiled  under callgrind, which sees no vDSO: the clock is a system call there, and the kernel's
 *             instructions are not counted. The mean over PERF_WORKLOAD_MESSAGES, so with what is rare: a look at
 *             the groups' cursors every eighth of a ring, a commit every sixteenth. This side only marks where one
 *             operation ends and the next begins.
 *
 * Called by one thread. No call waits longer than a second.
 */
#ifndef SHMQ_PERF_WORKLOAD_H
#define SHMQ_PERF_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

/* In the order in which they are run. */
enum perf_operation {
    PERF_PUBLISH_SINGLE,
    PERF_POLL,
    PERF_BATCH,
    PERF_POLL_ONE,
    PERF_PUBLISH_MULTI,
    PERF_OPERATIONS
};

#define PERF_WORKLOAD_MESSAGES 4096u /* profiled, of each operation */
#define PERF_WORKLOAD_STEPPED  256u

/* Called after each topic's warming up and after each operation. callgrind writes a part whenever it
 * enters this function, from 1 on: see perf_workload_part(). */
void perf_workload_mark(void);
/* Which part is an operation's. */
static inline uint32_t perf_workload_part(enum perf_operation operation)
{
    return 2 + (uint32_t)operation +
           (operation == PERF_PUBLISH_MULTI); /* its own warming up before it */
}

/* Runs them all in a session of its own. False: a call failed, said on stderr. */
bool perf_workload_profile(const char *bus, const char *runtime_dir);
/* Instructions a message. */
struct perf_steps {
    double all; /* 0: not to be had on this machine (no x86-64, or a sandbox that keeps traps) */
    double
        clock; /* of them in the vDSO: the kernel's code, which differs from release to release */
};
bool perf_workload_step(const char *bus, const char *runtime_dir,
                        struct perf_steps ret_steps[static PERF_OPERATIONS]);

#endif
