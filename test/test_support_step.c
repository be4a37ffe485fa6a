/*
 * test_support_step.c: proves that the stepping engine stops a process at every instruction: each
 * intermediate state of shared memory is seen, in order, and a stopped process goes on as if
 * nothing had been.
 *
 * What is stepped here writes only to test_shared() memory. Blocks for a few seconds at most.
 */
#include "test/support/step.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WORDS       24u
#define PATCH_BYTES 8192u

struct stage {
    _Atomic uint64_t words[WORDS]; /* written in order, word i becomes i + 1 */
    _Atomic uint64_t set_up;
    _Atomic uint64_t finished;
    _Atomic uint64_t helper_beats;
    uint64_t seen[WORDS + 1]; /* this process only: how often a death left that many words */
    uint64_t last_count;
    unsigned char patch[PATCH_BYTES];
    struct step_range range;
};

static struct stage *new_stage(void)
{
    struct stage *stage = test_shared(sizeof *stage);

    stage->range = (struct step_range){stage->words, sizeof stage->words};
    return stage;
}

static void clear_stage(void *arg)
{
    struct stage *stage = arg;

    for (unsigned i = 0; i < WORDS; i++)
        atomic_store(&stage->words[i], 0);
    atomic_store(&stage->set_up, 0);
    atomic_store(&stage->finished, 0);
    memset(stage->patch, 0, sizeof stage->patch);
}

static void note_setup(void *arg)
{
    struct stage *stage = arg;

    atomic_store(&stage->set_up, 1);
}

static void note_finish(void *arg)
{
    struct stage *stage = arg;

    atomic_store(&stage->finished, 1);
}

static void write_words(void *arg)
{
    struct stage *stage = arg;

    for (unsigned i = 0; i < WORDS; i++)
        atomic_store_explicit(&stage->words[i], i + 1, memory_order_relaxed);
}

/* Words written so far; they have to be a prefix. */
static unsigned count_words(struct stage *stage)
{
    unsigned count = 0;

    while (count < WORDS && atomic_load(&stage->words[count]) == count + 1)
        count++;
    for (unsigned i = count; i < WORDS; i++)
        CHECK_EQ(atomic_load(&stage->words[i]), 0);
    return count;
}

static struct step_plan plan_for(struct stage *stage, const char *name, void (*operation)(void *))
{
    return (struct step_plan){.name = name,
                              .prepare = clear_stage,
                              .setup = note_setup,
                              .operation = operation,
                              .finish = note_finish,
                              .arg = stage,
                              .ranges = &stage->range,
                              .range_count = 1};
}

static void verify_killed(void *arg, struct step_child *child)
{
    struct stage *stage = arg;
    unsigned count = count_words(stage);

    CHECK(!child->alive && kill(child->pid, 0) != 0 && errno == ESRCH);
    CHECK_EQ(atomic_load(&stage->set_up), 1);
    CHECK_EQ(atomic_load(&stage->finished), 0);
    CHECK(count >= stage->last_count); /* k grows from point to point */
    CHECK(count <= stage->last_count + 1);
    stage->last_count = count;
    stage->seen[count]++;
}

TEST(kill_at_every_step_sees_every_state)
{
    struct stage *stage = new_stage();
    struct step_plan plan = plan_for(stage, "write_words", write_words);
    struct step_points points;

    step_require();
    REQUIRE_OK(step_list_all(&plan, &points));
    CHECK_EQ(points.count, points.total + 1);
    CHECK_INT_EQ(step_count(&plan), points.total);
    CHECK(step_walk(&plan, &points, STEP_KILL, verify_killed));
    for (unsigned count = 0; count <= WORDS; count++)
        CHECK(stage->seen[count] > 0);
    step_report(&plan, &points, WORDS + 2);
    CHECK_EQ(points.walked, points.count);
    CHECK_EQ(points.strayed, 0);
    step_points_free(&points);
}

struct comparison {
    struct stage *stage;
    unsigned *counts; /* words left by each death, in the order of the points */
    size_t at;
    bool second;
};

static void clear_compared(void *arg)
{
    const struct comparison *comparison = arg;

    clear_stage(comparison->stage);
}

static void write_compared(void *arg)
{
    const struct comparison *comparison = arg;

    write_words(comparison->stage);
}

static void verify_same(void *arg, struct step_child *child)
{
    struct comparison *comparison = arg;
    unsigned count = count_words(comparison->stage);

    (void)child;
    if (comparison->second)
        CHECK_EQ(count, comparison->counts[comparison->at]);
    comparison->counts[comparison->at++] = count;
}

TEST(jumping_and_stepping_reach_the_same_states)
{
    struct comparison comparison = {.stage = new_stage()};
    struct step_plan plan = {.name = "compare",
                             .prepare = clear_compared,
                             .operation = write_compared,
                             .arg = &comparison};
    struct step_points points;
    uint64_t stops;

    step_require();
    REQUIRE_OK(step_list_all(&plan, &points));
    comparison.counts = calloc(points.count, sizeof *comparison.counts);
    REQUIRE(comparison.counts != NULL);
    CHECK(step_walk(&plan, &points, STEP_KILL, verify_same));
    stops = points.steps;
    comparison.second = true;
    comparison.at = 0;
    setenv("STEP_SLOW", "1", 1);
    CHECK(step_walk(&plan, &points, STEP_KILL, verify_same));
    CHECK_EQ(comparison.at, points.count);
    CHECK_EQ(points.strayed, 0);
    CHECK(points.steps - stops >= stops - points.total); /* the jumps cost no more than steps */
    free(comparison.counts);
    step_points_free(&points);
}

static void verify_stopped(void *arg, struct step_child *child)
{
    struct stage *stage = arg;
    unsigned count = count_words(stage);

    CHECK(child->alive && kill(child->pid, 0) == 0);
    CHECK_EQ(atomic_load(&stage->finished), 0);
    stage->seen[count]++;
    test_sleep_ms(1);
    CHECK_EQ(count_words(stage), count); /* it does stand still */
    CHECK_INT_EQ(step_continue(child, 5000), 0);
    CHECK_EQ(count_words(stage), WORDS);
    CHECK_EQ(atomic_load(&stage->finished), 1);
}

TEST(stopped_process_continues_to_its_end)
{
    struct stage *stage = new_stage();
    struct step_plan plan = plan_for(stage, "write_words", write_words);
    struct step_points points;

    step_require();
    REQUIRE_OK(step_record(&plan, &points));
    CHECK(step_walk(&plan, &points, STEP_STOP, verify_stopped));
    for (unsigned count = 0; count <= WORDS; count++)
        CHECK(stage->seen[count] > 0);
    step_report(&plan, &points, WORDS + 1);
    step_points_free(&points);
}

static void write_around_syscalls(void *arg)
{
    struct stage *stage = arg;

    atomic_store_explicit(&stage->words[0], 1, memory_order_relaxed);
    syscall(SYS_getppid);
    for (unsigned round = 0; round < 50; round++)
        atomic_store_explicit(&stage->helper_beats, round, memory_order_relaxed);
    syscall(SYS_getppid);
    atomic_store_explicit(&stage->words[1], 2, memory_order_relaxed);
}

TEST(recording_keeps_changes_and_system_calls)
{
    struct stage *stage = new_stage();
    struct step_plan plan = plan_for(stage, "syscalls", write_around_syscalls);
    struct step_points points;

    step_require();
    REQUIRE_OK(step_record(&plan, &points));
    CHECK_EQ(points.changes, 2);
    CHECK_EQ(points.syscalls, 2);
    CHECK_EQ(points.count, 8); /* begin, 2 changes, before and after 2 calls, end */
    CHECK(points.total > 50);  /* most of them are not points */
    CHECK_EQ(points.at[0].k, 0);
    CHECK_EQ(points.at[7].k, points.total);
    CHECK_EQ(points.at[3].k, points.at[2].k + 1);
    step_points_free(&points);
}

static void fill_patch(void *arg)
{
    struct stage *stage = arg;
#if defined(__x86_64__)
    unsigned char *to = stage->patch;
    uint64_t count = PATCH_BYTES;

    __asm__ __volatile__("rep stosb" : "+D"(to), "+c"(count) : "a"(7) : "memory");
#else
    memset(stage->patch, 7, PATCH_BYTES);
#endif
}

static size_t count_filled(const struct stage *stage)
{
    size_t count = 0;

    while (count < PATCH_BYTES && stage->patch[count] == 7)
        count++;
    return count;
}

static void verify_filled_prefix(void *arg, struct step_child *child)
{
    struct stage *stage = arg;
    size_t count = count_filled(stage);

    (void)child;
    CHECK(count >= stage->last_count);
    for (size_t i = count; i < PATCH_BYTES; i++)
        if (stage->patch[i] != 0)
            FAIL("a byte is set behind the filled ones");
    if (count > stage->last_count)
        stage->seen[count <= 8 ? 0 : count + 8 > PATCH_BYTES ? 1 : 2]++;
    stage->last_count = count;
}

TEST(repeated_instruction_is_cut_to_its_ends)
{
    struct stage *stage = new_stage();
    struct step_plan plan = plan_for(stage, "fill", fill_patch);
    struct step_points points;

    step_require();
    REQUIRE_OK(step_list_all(&plan, &points));
    CHECK(points.total < 500);
    CHECK_EQ(count_filled(stage), PATCH_BYTES);
    CHECK(step_walk(&plan, &points, STEP_KILL, verify_filled_prefix));
    CHECK_EQ(stage->last_count, PATCH_BYTES);
#if defined(__x86_64__)
    CHECK(stage->seen[0] >= STEP_REP_EDGE);
    CHECK(stage->seen[1] >= STEP_REP_EDGE - 1);
    step_points_free(&points);
    plan.rep_each = true;
    REQUIRE_OK(step_list_all(&plan, &points));
    CHECK(points.total >= PATCH_BYTES);
#endif
    step_points_free(&points);
}

static void on_signal(int sig)
{
    (void)sig;
}

static void raise_signal(void *arg)
{
    signal(SIGUSR1, on_signal);
    syscall(SYS_kill, getpid(), SIGUSR1);
    write_words(arg);
}

TEST(signals_reach_the_stepped_process)
{
    struct stage *stage = new_stage();
    struct step_plan plan = plan_for(stage, "signal", raise_signal);

    step_require();
    CHECK(step_count(&plan) > (int64_t)WORDS);
    CHECK_EQ(count_words(stage), WORDS);
    CHECK_EQ(atomic_load(&stage->finished), 1);
}

static void *beat(void *arg)
{
    struct stage *stage = arg;

    for (;;) {
        atomic_fetch_add(&stage->helper_beats, 1);
        test_sleep_ms(1);
    }
    return NULL;
}

static void start_beating(void *arg)
{
    struct stage *stage = arg;
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, beat, stage) == 0);
    while (atomic_load(&stage->helper_beats) == 0)
        test_sleep_ms(1);
}

static bool beats_again(void *arg)
{
    struct stage *stage = arg;

    return atomic_load(&stage->helper_beats) > stage->last_count;
}

TEST(stop_holds_the_other_threads_too)
{
    struct stage *stage = new_stage();
    struct step_plan plan = plan_for(stage, "threads", write_words);
    struct step_child child;

    step_require();
    plan.setup = start_beating;
    REQUIRE(step_run_until(&plan, 5, STEP_STOP, &child) == STEP_REACHED);
    test_sleep_ms(20); /* until the signal has reached the other thread */
    stage->last_count = atomic_load(&stage->helper_beats);
    test_sleep_ms(30);
    CHECK(!beats_again(stage));
    CHECK_INT_EQ(step_continue(&child, 5000), 0);
    CHECK_EQ(count_words(stage), WORDS);
}

TEST(two_stopped_processes_exist_at_a_time)
{
    struct stage *stage = new_stage();
    struct step_plan plan = plan_for(stage, "pair", write_words);
    struct step_child first;
    struct step_child second;

    step_require();
    REQUIRE(step_run_until(&plan, 3, STEP_STOP, &first) == STEP_REACHED);
    REQUIRE(step_run_until(&plan, 9, STEP_STOP, &second) == STEP_REACHED);
    CHECK(first.pid != second.pid);
    step_kill(&first);
    CHECK_INT_EQ(step_continue(&second, 5000), 0);
    CHECK_EQ(count_words(stage), WORDS);
}

TEST(short_operation_ends_before_k)
{
    struct stage *stage = new_stage();
    struct step_plan plan = plan_for(stage, "short", write_words);
    struct step_child child;
    int64_t total;

    step_require();
    total = step_count(&plan);
    REQUIRE(step_run_until(&plan, (uint64_t)total + 1, STEP_KILL, &child) == STEP_ENDED);
    CHECK_EQ(child.steps, total);
    REQUIRE(step_run_until(&plan, (uint64_t)total, STEP_KILL, &child) == STEP_REACHED);
    CHECK_EQ(count_words(stage), WORDS);
    CHECK_EQ(atomic_load(&stage->finished), 0);
}

TEST(sample_keeps_ends_order_and_number)
{
    struct step_points points = {0};
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 100; round++) {
        points.at = calloc(500, sizeof *points.at);
        REQUIRE(points.at != NULL);
        points.count = 500;
        for (size_t i = 0; i < 500; i++)
            points.at[i].k = i;
        step_points_sample(&points, 40, &random);
        CHECK_EQ(points.count, 40);
        CHECK_EQ(points.at[0].k, 0);
        CHECK_EQ(points.at[39].k, 499);
        for (size_t i = 1; i < 40; i++)
            CHECK(points.at[i].k > points.at[i - 1].k);
        step_points_free(&points);
    }
}

TEST_MAIN("support_step", T_TIMEOUT(kill_at_every_step_sees_every_state, 60),
          T_TIMEOUT(jumping_and_stepping_reach_the_same_states, 60),
          T(stopped_process_continues_to_its_end), T(recording_keeps_changes_and_system_calls),
          T_TIMEOUT(repeated_instruction_is_cut_to_its_ends, 60),
          T(signals_reach_the_stepped_process), T(stop_holds_the_other_threads_too),
          T(two_stopped_processes_exist_at_a_time), T(short_operation_ends_before_k),
          T(sample_keeps_ends_order_and_number))
