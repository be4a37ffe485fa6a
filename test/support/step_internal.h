/*
 * step_internal.h: what the stepping engine asks of the machine (step_machine.c).
 *
 * All functions act on a child that is in a ptrace stop and belong to the thread that traces it.
 */
#ifndef SHMQ_TEST_SUPPORT_STEP_INTERNAL_H
#define SHMQ_TEST_SUPPORT_STEP_INTERNAL_H

#include "test/support/step.h"

/*
 * Calls operation(arg) between two marks: a breakpoint trap right before the call, at which the
 * tracer takes over, and the address step_mark_end right after it, which is only compared.
 */
void step_call_marked(void (*operation)(void *), void *arg);
extern const char step_mark_begin[];
extern const char step_mark_end[];

bool step_machine_supported(void);
bool step_get_pc(pid_t pid, uintptr_t *ret_pc);
/* At the stop for the trap: moves behind it where the machine has not done so itself. */
bool step_pass_trap(pid_t pid);
/* Is the next instruction a system call? */
bool step_at_syscall(pid_t pid, uintptr_t pc);
/*
 * At a repeated string instruction with more than 64 iterations to go: performs all but the last
 * STEP_REP_EDGE at full speed. Returns 1 if it did, 0 if there is nothing to do, −1 if the child
 * died or stopped for another reason (*ret_status is its wait status).
 */
int step_skip_repeats(pid_t pid, uintptr_t pc, int *ret_status);
/*
 * Lets the child run until it is about to execute the instruction at `pc` for the `visit`th time,
 * or the one at `other`; signals are passed on. 1: it stands there; 0: this machine cannot do that,
 * nothing has happened; -1: the child is gone (*ret_status) or cannot be traced.
 */
int step_run_to(pid_t pid, uintptr_t pc, uint64_t visit, uintptr_t other, int *ret_status);
pid_t step_wait(pid_t pid, int *ret_status);
bool step_is_stop_signal(int sig); /* such are dropped: a traced child is stopped by us alone */

/* step.c: as step_run_until(), but by the point's jump. */
enum step_outcome step_run_to_point(const struct step_plan *plan, const struct step_point *point,
                                    enum step_action action, struct step_child *ret_child);
/* Calls look(arg, pid, k, pc) at each stop, 0 and the end included; false from it ends the run. */
typedef bool step_look(void *arg, pid_t pid, uint64_t k, uintptr_t pc);
int64_t step_run_through(const struct step_plan *plan, step_look *look, void *arg,
                         uint64_t *ret_took_ns);

#endif
