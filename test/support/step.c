/*
 * step.c: the engine that stops a forked child at each instruction of an operation.
 *
 * Runs in the thread of the test, as tracer; every child is a fork of it, so that code and shared
 * memory lie at the same addresses in both. A child is in one of three places: running freely
 * (setup, finish), in a ptrace stop (here), or reaped. Blocks in waitpid() while the child executes
 * one instruction. If the tracer dies the kernel kills every child that is still traced
 * (PTRACE_O_EXITKILL), and those that were resumed by their parent-death signal.
 */
#include "test/support/step_internal.h"
#include "test/support/test_internal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_NO_PTRACE    121
#define FINISH_TIMEOUT_MS 10000

struct stepper {
    const struct step_plan *plan;
    pid_t pid;
    uintptr_t pc;
    uint64_t steps;
    unsigned repeats; /* stops in a row at this pc */
    int status;       /* of the last wait */
    cpu_set_t cpus;   /* where we could run before we pinned both */
    bool pinned;
    uint64_t began_ns;
};

/* ---- A child, from fork to the operation's first instruction ---- */

_Noreturn static void run_traced(const struct step_plan *plan)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(EXIT_NO_PTRACE);
    raise(SIGSTOP); /* lets the tracer set its options */
    if (plan->setup != NULL)
        plan->setup(plan->arg);
    step_call_marked(plan->operation, plan->arg);
    if (plan->finish != NULL)
        plan->finish(plan->arg);
    test_exit_helper();
}

static bool report_broken(struct stepper *stepper, const char *when)
{
    const char *name = stepper->plan->name;
    int status = stepper->status;
    unsigned long long k = stepper->steps;

    if (WIFEXITED(status))
        FAIL("%s: child exited with %d %s, k=%llu", name, WEXITSTATUS(status), when, k);
    else if (WIFSIGNALED(status))
        FAIL("%s: child died of signal %d %s, k=%llu", name, WTERMSIG(status), when, k);
    else
        FAIL("%s: child cannot be traced %s, k=%llu: %s", name, when, k, strerror(errno));
    if (!WIFEXITED(status) && !WIFSIGNALED(status))
        test_kill(stepper->pid, SIGKILL);
    return false;
}

/* Runs the child freely up to the trap before the operation; signals are passed on. */
static bool run_to_trap(struct stepper *stepper)
{
    int sig = 0;

    for (;;) {
        if (ptrace(PTRACE_CONT, stepper->pid, NULL, (void *)(intptr_t)sig) != 0 ||
            step_wait(stepper->pid, &stepper->status) != stepper->pid ||
            !WIFSTOPPED(stepper->status))
            return false;
        sig = WSTOPSIG(stepper->status);
        if (sig == SIGTRAP)
            break;
        if (step_is_stop_signal(sig))
            sig = 0;
    }
    return step_pass_trap(stepper->pid) && step_get_pc(stepper->pid, &stepper->pc) &&
           stepper->pc == (uintptr_t)step_mark_begin;
}

static void pin(struct stepper *stepper)
{
    cpu_set_t one;
    int cpu = sched_getcpu();

    CPU_ZERO(&one);
    CPU_SET((size_t)(cpu < 0 ? 0 : cpu), &one);
    /* Only for speed: where it is not permitted the engine works all the same. */
    if (sched_getaffinity(0, sizeof stepper->cpus, &stepper->cpus) == 0 &&
        sched_setaffinity(0, sizeof one, &one) == 0) {
        sched_setaffinity(stepper->pid, sizeof one, &one);
        stepper->pinned = true;
    }
    stepper->began_ns = test_now_ns();
}

/* Returns how long the stepping took. The child may be gone. */
static uint64_t unpin(struct stepper *stepper)
{
    uint64_t took_ns = test_now_ns() - stepper->began_ns;

    if (stepper->pinned) {
        sched_setaffinity(0, sizeof stepper->cpus, &stepper->cpus);
        sched_setaffinity(stepper->pid, sizeof stepper->cpus, &stepper->cpus);
    }
    stepper->pinned = false;
    return took_ns;
}

static bool start_child(const struct step_plan *plan, struct stepper *ret_stepper)
{
    struct stepper stepper = {.plan = plan};

    if (plan->prepare != NULL)
        plan->prepare(plan->arg);
    stepper.pid = test_fork_bound();
    if (stepper.pid == 0)
        run_traced(plan);
    if (stepper.pid < 0)
        return FAIL("%s: fork: %s", plan->name, strerror(errno));
    if (step_wait(stepper.pid, &stepper.status) != stepper.pid || !WIFSTOPPED(stepper.status) ||
        ptrace(PTRACE_SETOPTIONS, stepper.pid, NULL, (void *)PTRACE_O_EXITKILL) != 0 ||
        !run_to_trap(&stepper))
        return report_broken(&stepper, "before the operation");
    pin(&stepper);
    *ret_stepper = stepper;
    return true;
}

/* ---- One step ---- */

static bool at_end(const struct stepper *stepper)
{
    return stepper->pc == (uintptr_t)step_mark_end;
}

static bool step_once(struct stepper *stepper)
{
    uintptr_t before = stepper->pc;
    int sig = 0;

    if (stepper->repeats >= STEP_REP_EDGE && !stepper->plan->rep_each &&
        step_skip_repeats(stepper->pid, stepper->pc, &stepper->status) < 0) {
        if (!WIFSTOPPED(stepper->status))
            return false;
        sig = WSTOPSIG(stepper->status);
    }
    for (;;) {
        if (step_is_stop_signal(sig) || sig == SIGTRAP)
            sig = 0;
        if (ptrace(PTRACE_SINGLESTEP, stepper->pid, NULL, (void *)(intptr_t)sig) != 0 ||
            step_wait(stepper->pid, &stepper->status) != stepper->pid ||
            !WIFSTOPPED(stepper->status))
            return false;
        sig = WSTOPSIG(stepper->status);
        if (sig == SIGTRAP)
            break; /* any other stop is a signal on its way: no instruction was executed */
    }
    if (!step_get_pc(stepper->pid, &stepper->pc))
        return false;
    stepper->repeats = stepper->pc == before ? stepper->repeats + 1 : 0;
    stepper->steps++;
    return true;
}

static bool is_too_long(const struct stepper *stepper)
{
    uint64_t limit = stepper->plan->steps_max == 0 ? STEP_MAX_DEFAULT : stepper->plan->steps_max;

    if (stepper->steps < limit)
        return false;
    FAIL("%s: no end after %llu steps", stepper->plan->name, (unsigned long long)limit);
    test_kill(stepper->pid, SIGKILL);
    return true;
}

/* ---- Runs ---- */

/* Steps until k or the end. False: the child is gone, and that has been reported. */
static bool step_up_to(struct stepper *stepper, uint64_t k)
{
    while (stepper->steps < k && !at_end(stepper)) {
        if (!step_once(stepper)) {
            unpin(stepper);
            return report_broken(stepper, "during the operation");
        }
        if (is_too_long(stepper)) {
            unpin(stepper);
            return false;
        }
    }
    return true;
}

static _Atomic bool cannot_jump; /* learned in this process, for the rest of the test */

static bool may_jump(void)
{
    const char *slow = getenv("STEP_SLOW");

    return !atomic_load_explicit(&cannot_jump, memory_order_relaxed) &&
           (slow == NULL || slow[0] == '\0' || strcmp(slow, "0") == 0);
}

static void forbid_jumps(void)
{
    atomic_store_explicit(&cannot_jump, true, memory_order_relaxed);
}

/* Returns the number of stops that it took, 0 if no jump was made, -1 if the child is gone. */
static int64_t jump(struct stepper *stepper, const struct step_point *point)
{
    uintptr_t end = (uintptr_t)step_mark_end;
    int result;

    if (point->jump_visit == 0 || !may_jump())
        return 0;
    result = step_run_to(stepper->pid, point->jump_pc, point->jump_visit, end, &stepper->status);
    if (result == 0)
        forbid_jumps();
    if (result <= 0)
        return result;
    if (!step_get_pc(stepper->pid, &stepper->pc))
        return -1;
    /* At the end before the jump: this run was shorter, by an unknown number of steps. */
    stepper->steps = at_end(stepper) && point->jump_pc != end ? 0 : point->jump_k;
    return (int64_t)point->jump_visit;
}

enum step_outcome step_run_to_point(const struct step_plan *plan, const struct step_point *point,
                                    enum step_action action, struct step_child *ret_child)
{
    struct stepper stepper;
    uint64_t took_ns;
    int64_t stops;
    uint64_t jumped;

    if (!start_child(plan, &stepper))
        return STEP_BROKEN;
    stops = jump(&stepper, point);
    jumped = stepper.steps;
    if (stops < 0 && WIFEXITED(stepper.status) && WEXITSTATUS(stepper.status) == 0) {
        /* It ran through: the machine takes breakpoints and ignores them. */
        unpin(&stepper);
        forbid_jumps();
        return step_run_to_point(plan, point, action, ret_child);
    }
    if (stops < 0) {
        unpin(&stepper);
        report_broken(&stepper, "during the operation");
        return STEP_BROKEN;
    }
    if (!step_up_to(&stepper, point->k))
        return STEP_BROKEN;
    took_ns = unpin(&stepper);
    if (action == STEP_KILL)
        test_kill(stepper.pid, SIGKILL);
    else
        kill(stepper.pid, SIGSTOP); /* the traced thread stands already; this is for its others */
    *ret_child = (struct step_child){.pid = stepper.pid,
                                     .steps = stepper.steps,
                                     .stops = (uint64_t)stops + stepper.steps - jumped,
                                     .pc = stepper.pc,
                                     .alive = action != STEP_KILL,
                                     .stepping_ns = took_ns};
    return stepper.steps < point->k ? STEP_ENDED : STEP_REACHED;
}

enum step_outcome step_run_until(const struct step_plan *plan, uint64_t k, enum step_action action,
                                 struct step_child *ret_child)
{
    struct step_point point = {.k = k};

    return step_run_to_point(plan, &point, action, ret_child);
}

void step_resume(struct step_child *child)
{
    if (!child->alive)
        return;
    /* First the end of the group stop: else the thread would enter it when it is let go. */
    kill(child->pid, SIGCONT);
    CHECK(ptrace(PTRACE_DETACH, child->pid, NULL, NULL) == 0);
}

int step_continue(struct step_child *child, int timeout_ms)
{
    int result;

    if (!child->alive) {
        FAIL("step_continue: process %d is gone", (int)child->pid);
        return TEST_TIMED_OUT;
    }
    step_resume(child);
    result = test_wait_exit(child->pid, timeout_ms);
    if (result == TEST_TIMED_OUT)
        test_kill(child->pid, SIGKILL);
    child->alive = false;
    return result;
}

void step_kill(struct step_child *child)
{
    if (child->alive)
        test_kill(child->pid, SIGKILL);
    child->alive = false;
}

int64_t step_run_through(const struct step_plan *plan, step_look *look, void *arg,
                         uint64_t *ret_took_ns)
{
    struct stepper stepper;
    struct step_child child;
    bool good;

    if (!start_child(plan, &stepper))
        return -1;
    for (;;) {
        good = look == NULL || look(arg, stepper.pid, stepper.steps, stepper.pc);
        if (!good || at_end(&stepper))
            break;
        if (!step_up_to(&stepper, stepper.steps + 1))
            return -1;
    }
    *ret_took_ns = unpin(&stepper);
    child = (struct step_child){.pid = stepper.pid, .alive = true};
    if (!good) {
        step_kill(&child);
        FAIL("%s: no memory for the points", plan->name);
        return -1;
    }
    return CHECK_INT_EQ(step_continue(&child, FINISH_TIMEOUT_MS), 0) ? (int64_t)stepper.steps : -1;
}

int64_t step_count(const struct step_plan *plan)
{
    uint64_t took_ns;

    return step_run_through(plan, NULL, NULL, &took_ns);
}

bool step_available(void)
{
    int status = 0;
    bool able;
    pid_t pid;

    /* TSan's runtime does not take the same path twice; "k" would mean nothing. */
    if (!step_machine_supported() || TEST_THREAD_SANITIZED)
        return false;
    pid = test_fork_bound();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(EXIT_NO_PTRACE);
        raise(SIGSTOP);
        _exit(0);
    }
    if (pid < 0 || step_wait(pid, &status) != pid || !WIFSTOPPED(status))
        return false;
    able = ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0 && step_wait(pid, &status) == pid &&
           WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
    test_kill(pid, SIGKILL);
    return able;
}

void step_require(void)
{
    if (!step_available())
        SKIP("processes cannot be single-stepped here");
}
