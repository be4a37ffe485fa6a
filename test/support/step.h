/*
 * step.h: stop or kill a process at any instruction of an operation.
 *
 * A plan says what a forked child does: setup (runs freely), operation (single-stepped by this
 * process with ptrace), finish (runs freely). "Step k" is the state after k stops of the operation:
 * k = 0 before its first instruction, k = total after its last. One instruction is one step, a
 * system call too; of an x86 string instruction with a long repeat count only the first and the
 * last STEP_REP_EDGE iterations are (see rep_each).
 *
 *     struct step_plan plan = {.name = "publish", .prepare = fresh_ring, .setup = attach,
 *                              .operation = publish_one, .finish = leave, .arg = &fixture};
 *     step_require();
 *     step_list_all(&plan, &points);              short operations: every k
 *     step_record(&plan, &points);                long ones: where plan.ranges changed, and
 *                                                 before and after each system call
 *     step_walk(&plan, &points, STEP_KILL, verify_others_go_on);
 *     step_report(&plan, &points, 250);           prints the number, fails below the floor
 *     step_points_free(&points);
 *
 * Deaths with equal bytes and no system call between them are one death: that is what makes
 * step_record() as thorough as all k, if the ranges hold all that others can see.
 *
 * Called by one thread of a test. The stepped thread and the caller share one core meanwhile (a
 * stop then costs a switch, not a wake-up on another core). If the caller dies, the child is killed
 * (PTRACE_O_EXITKILL). Not followed: threads and children of the child; they run freely. An
 * operation that waits for others blocks the engine as well: let helpers answer it, or the test's
 * timeout ends both. Link with -Wl,-z,now: else the first call of each library function steps
 * through the dynamic linker.
 */
#ifndef SHMQ_TEST_SUPPORT_STEP_H
#define SHMQ_TEST_SUPPORT_STEP_H

#include "test/support/test.h"

#define STEP_REP_EDGE    4
#define STEP_MAX_DEFAULT 5000000u

/* MAP_SHARED memory, mapped at `base` in this process too. */
struct step_range {
    const void *base;
    size_t length;
};

struct step_plan {
    const char *name;
    void (*prepare)(void *arg);   /* in this process, before each fork: fresh shared memory */
    void (*setup)(void *arg);     /* in the child */
    void (*operation)(void *arg); /* in the child, stepped */
    void (*finish)(void *arg);    /* in the child, if it lives to see it */
    void *arg;
    const struct step_range *ranges; /* for step_record(); read after prepare() */
    size_t range_count;
    bool rep_each;      /* every iteration of a repeated string instruction is a step */
    uint64_t steps_max; /* 0: STEP_MAX_DEFAULT; more is a failure */
};

struct step_point {
    uint64_t k;
    uintptr_t pc; /* where the process stood then */
    /* The cheapest way there: run to the `jump_visit`th visit of jump_pc (0: do not), step on. */
    uint64_t jump_k;
    uintptr_t jump_pc;
    uint64_t jump_visit;
};

struct step_points {
    struct step_point *at;
    size_t count;
    size_t capacity;
    uint64_t total;   /* steps of the whole operation */
    uint64_t changes; /* steps that changed a range */
    uint64_t syscalls;
    uint64_t walked;  /* points of the last walk that were reached and verified */
    uint64_t strayed; /* those where the process stood elsewhere than when the list was made */
    uint64_t steps;   /* all stops made so far for these points, and the time that they took */
    uint64_t stepping_ns;
};

enum step_action {
    STEP_KILL, /* SIGKILL, and reaped */
    STEP_STOP, /* stopped as by SIGSTOP, all its threads; see step_continue() */
};

enum step_outcome {
    STEP_REACHED = 0,
    STEP_ENDED = 1,   /* the operation took fewer than k steps; the action was taken at its end */
    STEP_BROKEN = -1, /* the child died or could not be traced; reported as a failure */
};

struct step_child {
    pid_t pid;
    uint64_t steps; /* where in the operation it stands */
    uint64_t stops; /* what it took to get there */
    uintptr_t pc;
    bool alive; /* stopped and not reaped: the caller's to continue or to kill */
    uint64_t stepping_ns;
};

/* False where this cannot be done: emulation, a forbidding sandbox, ThreadSanitizer. */
bool step_available(void);
/* Skips the test there. */
void step_require(void);

/* Steps of the whole operation; the child runs to its end. -1: broken. */
int64_t step_count(const struct step_plan *plan);

/*
 * Runs a fresh child k steps into the operation and takes the action there. Several stopped
 * children may exist at a time.
 */
enum step_outcome step_run_until(const struct step_plan *plan, uint64_t k, enum step_action action,
                                 struct step_child *ret_child);
/* Lets a stopped child run on, untraced. */
void step_resume(struct step_child *child);
/* Resumes and waits for its exit: 0, or as test_wait_exit(); a timeout kills it. */
int step_continue(struct step_child *child, int timeout_ms);
/* Kills a stopped child, and reaps it. */
void step_kill(struct step_child *child);

/* Both fill *ret_points, which is not read and has to be freed. They return 0 or -1. */
int step_list_all(const struct step_plan *plan, struct step_points *ret_points);
int step_record(const struct step_plan *plan, struct step_points *ret_points);
/* Keeps `count` of them, chosen at random, the first and the last among them. */
void step_points_sample(struct step_points *points, size_t count, struct test_random *random);
void step_points_free(struct step_points *points);

/*
 * For each point: step_run_until(), then verify(arg, child). After STEP_STOP, verify may continue
 * or kill the child; if it does neither the child is continued and has to exit with 0. Failures
 * name k and the program counter. Gives up after the third point that failed. True: none did.
 *
 * Does not step from 0 to each k: the child runs at full speed to an instruction before k (a
 * hardware breakpoint, counting visits), and is stepped from there. Where that is not to be had, or
 * the environment has STEP_SLOW=1, every step is made.
 * An operation whose path differs from run to run is killed at other instructions than listed:
 * `strayed` counts that, and step_report() prints it.
 */
bool step_walk(const struct step_plan *plan, struct step_points *points, enum step_action action,
               void (*verify)(void *arg, struct step_child *child));
/* Prints "NAME: N points (floor M) ..." and checks walked ≥ floor. */
bool step_report(const struct step_plan *plan, const struct step_points *points, uint64_t floor);

#endif
