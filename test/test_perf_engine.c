/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of shmq-perf: where trials are filed, what is paired with what, how long trials are; and
 * sessions with ways of moving messages that fail, lie, die and hang. What figures come out is no question here.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "test/support/test.h"
#include "tools/perf/transport.h"

static const struct perf_thresholds THRESHOLDS = {PERF_NEAR_BELOW_NS, PERF_FARTHER_ABOVE_NS};

/* ---- Filing -------------------------------------------------------------------------------------- */

TEST(classes_are_by_threshold)
{
    CHECK_EQ(perf_class_of(0, THRESHOLDS), PERF_NEAR);
    CHECK_EQ(perf_class_of(89.9, THRESHOLDS), PERF_NEAR);
    CHECK_EQ(perf_class_of(90, THRESHOLDS), PERF_FAR);
    CHECK_EQ(perf_class_of(PERF_FARTHER_ABOVE_NS, THRESHOLDS), PERF_FAR);
    CHECK_EQ(perf_class_of(PERF_FARTHER_ABOVE_NS + 1, THRESHOLDS), PERF_FARTHER);
    CHECK_STR_EQ(perf_class_name(PERF_NEAR), "near");
    CHECK_STR_EQ(perf_class_name(PERF_FARTHER), "farther");
    CHECK_STR_EQ(perf_class_name(PERF_ANY_CLASS), "");
}

static struct perf_ledger *new_ledger(void)
{
    return calloc(1, sizeof(struct perf_ledger));
}

static void add(struct perf_ledger *ledger, uint32_t round, enum perf_class distance, double value)
{
    struct perf_sample sample = {
        .round = round, .distance = distance, .figures = {value, value * 2}};

    CHECK(perf_ledger_add(ledger, &sample));
}

static bool is_about(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

TEST(ratios_are_of_one_round_and_one_class)
{
    struct perf_ledger *s = new_ledger();
    struct perf_ledger *b = new_ledger();
    struct perf_spread ratio;

    add(s, 0, PERF_NEAR, 10); /* ÷ 5 */
    add(b, 0, PERF_NEAR, 5);
    add(s, 1, PERF_NEAR, 10); /* its rival was dropped */
    add(s, 2, PERF_NEAR, 10); /* its rival was far */
    add(b, 2, PERF_FAR, 1);
    add(b, 3, PERF_NEAR, 7); /* it was dropped */
    add(s, 4, PERF_FAR, 12); /* ÷ 4, far */
    add(b, 4, PERF_FAR, 4);
    add(s, 5, PERF_NEAR, 40); /* ÷ 10 */
    add(b, 5, PERF_NEAR, 10);
    ratio = perf_ledger_ratio(s, b, PERF_NEAR, PERF_MAIN);
    CHECK_EQ(ratio.count, 2);
    CHECK(is_about(ratio.median, 3));
    CHECK(is_about(ratio.min, 2));
    CHECK(is_about(ratio.max, 4));
    ratio = perf_ledger_ratio(s, b, PERF_FAR, PERF_P99);
    CHECK_EQ(ratio.count, 1);
    CHECK(is_about(ratio.median, 3));
    CHECK_EQ(perf_ledger_ratio(s, b, PERF_FARTHER, PERF_MAIN).count, 0);
    CHECK_EQ(perf_ledger_ratio(s, b, PERF_ANY_CLASS, PERF_MAIN).count, 3);
    CHECK_EQ(perf_ledger_spread(s, PERF_NEAR, PERF_MAIN).count, 4);
    CHECK_EQ(perf_ledger_spread(s, PERF_ANY_CLASS, PERF_MAIN).count, 5);
    free(s);
    free(b);
}

TEST(a_baseline_of_zero_makes_no_ratio)
{
    struct perf_ledger *s = new_ledger();
    struct perf_ledger *b = new_ledger();

    add(s, 0, PERF_NEAR, 10);
    add(b, 0, PERF_NEAR, 0);
    CHECK_EQ(perf_ledger_ratio(s, b, PERF_NEAR, PERF_MAIN).count, 0);
    free(s);
    free(b);
}

TEST(a_full_ledger_says_so)
{
    struct perf_ledger *ledger = new_ledger();
    struct perf_sample sample = {0};

    for (uint32_t i = 0; i < PERF_SAMPLES_MAX; i++)
        add(ledger, i, PERF_NEAR, 1);
    CHECK(!perf_ledger_add(ledger, &sample));
    CHECK_EQ(ledger->kept, PERF_SAMPLES_MAX);
    free(ledger);
}

TEST(enough_is_enough_in_every_class_that_showed_up)
{
    struct perf_ledger *two = calloc(2, sizeof(*two));

    CHECK(!perf_ledger_enough(two, 2, 1)); /* none showed up */
    for (uint32_t round = 0; round < 3; round++) {
        add(&two[0], round, PERF_NEAR, 1);
        add(&two[1], round, PERF_NEAR, 1);
    }
    CHECK(perf_ledger_enough(two, 2, 3));
    CHECK(!perf_ledger_enough(two, 2, 4));
    add(&two[0], 3, PERF_FAR, 1);
    CHECK(!perf_ledger_enough(two, 2, 3));
    for (uint32_t round = 4; round < 7; round++) {
        add(&two[0], round, PERF_FAR, 1);
        add(&two[1], round, PERF_FAR, 1);
    }
    CHECK(perf_ledger_enough(two, 2, 3));
    free(two);
}

/* ---- Lengths and quantiles ----------------------------------------------------------------------- */

TEST(the_next_trial_is_as_long_as_it_should_be)
{
    CHECK_EQ(perf_next_count(1000, 1e6, 7e6, 16, 1000000), 7000);
    CHECK_EQ(perf_next_count(1000, 14e6, 7e6, 16, 1000000), 500);
    CHECK_EQ(perf_next_count(1000, 1, 7e6, 16, 1000000), 8000); /* not at once by 7 million */
    CHECK_EQ(perf_next_count(1000, 0, 7e6, 16, 1000000), 8000);
    CHECK_EQ(perf_next_count(1000, 1e12, 7e6, 16, 1000000), 16);
    CHECK_EQ(perf_next_count(1000000, 1e6, 7e6, 16, 1000000), 1000000);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

TEST(selecting_is_as_sorting)
{
    struct test_random random;
    uint32_t sorted[200], values[200];

    test_random_init(&random, test_seed());
    for (uint32_t run = 0; run < 500; run++) {
        uint32_t count = 1 + (uint32_t)test_random_below(&random, COUNT_OF(values));
        uint32_t range = 1 + (uint32_t)test_random_below(&random, run % 2 ? 5 : 1000000);
        uint32_t rank = (uint32_t)test_random_below(&random, count);

        for (uint32_t i = 0; i < count; i++)
            sorted[i] = values[i] = (uint32_t)test_random_below(&random, range);
        qsort(sorted, count, sizeof(sorted[0]), compare_u32);
        CHECK_EQ(perf_select(values, count, rank), sorted[rank]);
        qsort(values, count, sizeof(values[0]), compare_u32);
        CHECK(memcmp(values, sorted, count * sizeof(values[0])) == 0);
    }
}

/* A clock of steps of 26 ticks that measures times spread around 400: what no single reading can tell,
 * many can. */
TEST(quantiles_are_finer_than_the_clock)
{
    struct test_random random;
    static uint32_t coarse[100000];
    double median;

    test_random_init(&random, test_seed());
    for (uint32_t i = 0; i < COUNT_OF(coarse); i++) {
        uint64_t begin = test_random_below(&random, 26 * 1000);
        uint64_t end = begin + 390 + test_random_below(&random, 21);

        coarse[i] = (uint32_t)(end / 26 * 26 - begin / 26 * 26);
    }
    median = perf_quantile(coarse, COUNT_OF(coarse), 0.5, 26);
    CHECK(median > 396 && median < 404);
}

TEST(quantiles_of_few_values)
{
    uint32_t one[] = {7};
    uint32_t some[] = {3, 1, 2};

    CHECK(is_about(perf_quantile(one, 1, 0.99, 1), 7));
    CHECK(is_about(perf_quantile(some, 3, 0.5, 1), 2));
    CHECK(is_about(perf_quantile(some, 3, 1.0, 1), 3));
}

/* ---- Bodies -------------------------------------------------------------------------------------- */

static void check_source(uint32_t size, uint32_t batch, bool fresh)
{
    struct perf_setup setup = {.size = size, .batch = batch, .fresh = fresh};
    struct perf_source source;
    const void *bodies[256];

    perf_source_init(&source, &setup, 3);
    for (uint64_t first = 0; first < 1000; first += batch) {
        for (uint32_t i = 0; i < batch; i++)
            bodies[i] = perf_source_next(&source);
        /* All of a batch stay as they are until it is sent. */
        for (uint32_t i = 0; i < batch; i++)
            CHECK_EQ(perf_body_word(bodies[i]), (UINT64_C(3) << PERF_TAG_SHIFT) + first + i);
    }
    perf_source_deinit(&source);
}

TEST(bodies_have_their_number_in_them)
{
    check_source(8, 1, false);
    check_source(64, 1, false);
    check_source(64, 1, true);
    check_source(64, 32, false);
    check_source(100, 256, false);
    check_source(65536, 1, false);
    check_source(65536, 8, false);
}

TEST(touching_reads_every_byte)
{
    unsigned char body[101];

    for (uint32_t size = 8; size <= sizeof(body); size++) {
        memset(body, 0, sizeof(body));
        for (uint32_t i = 0; i < size; i++) {
            body[i] = 1;
            CHECK(perf_touch(body, size) != 0);
            body[i] = 0;
        }
        body[sizeof(body) - 1] = 1; /* and no more */
        CHECK(size == sizeof(body) || perf_touch(body, size) == 0);
    }
}

/* ---- Who may do what ----------------------------------------------------------------------------- */

static void check_refused(const char *way, struct perf_setup setup, const char *part)
{
    struct perf_contender contender = {.way = perf_way_find(way), .setup = setup};
    struct error_buffer why = {.text = ""};

    REQUIRE(contender.way);
    CHECK(perf_contender_check(&contender, &why) < 0);
    CHECK_CONTAINS(why.text, part);
}

TEST(what_cannot_be_is_refused_with_a_reason)
{
    check_refused("pipe", (struct perf_setup){.kind = PERF_LATENCY, .size = 7}, "7 bytes");
    check_refused("pipe", (struct perf_setup){.kind = PERF_FREE, .size = 64}, "producers alone");
    check_refused("ideal", (struct perf_setup){.wait = PERF_BLOCK, .size = 64}, "wait");
    check_refused("ideal",
                  (struct perf_setup){.kind = PERF_THROUGHPUT, .wait = PERF_SPIN, .producers = 2},
                  "1 producer");
    check_refused("ideal-chase",
                  (struct perf_setup){.kind = PERF_THROUGHPUT, .wait = PERF_SPIN, .consumers = 2},
                  "1 group");
    check_refused(
        "pipe", (struct perf_setup){.kind = PERF_THROUGHPUT, .size = 8192, .producers = 2}, "mix");
    check_refused("mqueue", (struct perf_setup){.size = 1u << 30}, "msgsize_max");
    check_refused("unix", (struct perf_setup){.size = 1u << 30}, "wmem_max");
    check_refused("shmq", (struct perf_setup){.size = 65536, .ring_bytes = 65536}, "--ring");
    CHECK(!perf_way_find("carrier-pigeon"));
}

/* ---- Sessions ------------------------------------------------------------------------------------ */

static int cpus[64];
static uint32_t cpu_count;

static void need_two_cpus(void)
{
    cpu_count = perf_cpus_available(cpus, COUNT_OF(cpus));
    if (cpu_count < 2)
        SKIP("one CPU: processes that spin would wait for each other");
}

static int open_with(const struct perf_contender *contenders, uint32_t count,
                     struct perf_session **ret_session, struct error_buffer *why)
{
    struct perf_team_options options = {
        .cpus = cpus,
        .cpu_count = cpu_count,
        /* All in one class: the cores of a busy machine are here and there. */
        .thresholds = {.near_below_ns = 1e12, .farther_above_ns = 2e12},
        .trial_ns = 2e5,
    };

    return perf_session_open(contenders, count, &options, ret_session, why);
}

static const struct perf_budget SHORT = {.rounds = 2, .duration_ns = 300 * NS_PER_MS};

static struct perf_contender contender_of(const char *way, enum perf_kind kind, enum perf_wait wait)
{
    return (struct perf_contender){
        .way = perf_way_find(way),
        .setup = {.kind = kind, .wait = wait, .size = 64, .ring_bytes = 65536}};
}

static void check_no_child(void)
{
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

TEST(a_session_files_every_trial)
{
    struct perf_contender contenders[] = {
        contender_of("ideal", PERF_LATENCY, PERF_SPIN),
        contender_of("ideal", PERF_THROUGHPUT, PERF_SPIN),
        contender_of("ideal-chase", PERF_THROUGHPUT, PERF_SPIN),
        contender_of("cas", PERF_FREE, PERF_SPIN),
        contender_of("pipe", PERF_THROUGHPUT, PERF_HYBRID),
        contender_of("futex", PERF_LATENCY, PERF_BLOCK),
    };
    struct perf_session *session;
    struct error_buffer why = {.text = ""};

    need_two_cpus();
    contenders[3].setup.producers = 2;
    contenders[4].setup.copy_out = true;
    if (!CHECK_OK(open_with(contenders, COUNT_OF(contenders), &session, &why)))
        FAIL("%s", why.text);
    /* Twice: what was found before is kept. */
    CHECK_OK(perf_session_run(session, &SHORT, &why));
    uint32_t before = perf_session_tally(session).kept;

    CHECK_OK(perf_session_run(session, &SHORT, &why));
    CHECK(perf_session_tally(session).kept >= before);
    for (uint32_t i = 0; i < COUNT_OF(contenders); i++) {
        const struct perf_ledger *ledger = perf_session_ledger(session, i);
        const struct perf_histogram *histogram = perf_session_histogram(session, i, PERF_NEAR);

        CHECK(ledger->kept + ledger->mixed + ledger->preempted >= 2);
        CHECK_EQ(ledger->count, ledger->kept);
        CHECK((histogram != NULL) == (contenders[i].setup.kind == PERF_LATENCY));
        if (histogram)
            CHECK_EQ(perf_histogram_count(histogram), ledger->messages);
        for (uint32_t k = 0; k < ledger->count; k++)
            CHECK(ledger->samples[k].figures[PERF_MAIN] > 0);
    }
    perf_session_close(session);
    perf_release_signals();
    check_no_child();
}

TEST(groups_and_producers_share_a_ring)
{
    struct perf_contender contenders[] = {
        contender_of("ideal", PERF_THROUGHPUT, PERF_SPIN),
        contender_of("pipe", PERF_THROUGHPUT, PERF_BLOCK),
        contender_of("unix", PERF_THROUGHPUT, PERF_HYBRID),
    };
    struct perf_session *session;
    struct error_buffer why = {.text = ""};

    need_two_cpus();
    contenders[0].setup.groups = 3;
    contenders[1].setup.producers = 2;
    contenders[2].setup.groups = 4;
    contenders[2].setup.copy_out = true;
    if (!CHECK_OK(open_with(contenders, COUNT_OF(contenders), &session, &why)))
        FAIL("%s", why.text);
    CHECK(perf_session_crowded(session) == (cpu_count < 3));
    CHECK_OK(perf_session_run(session, &SHORT, &why));
    for (uint32_t i = 0; i < COUNT_OF(contenders); i++)
        CHECK(perf_session_ledger(session, i)->kept + perf_session_ledger(session, i)->preempted >
              0);
    perf_session_close(session);
    perf_release_signals();
    check_no_child();
}

TEST(one_cpu_is_for_those_who_sleep)
{
    struct perf_contender spins = contender_of("pipe", PERF_LATENCY, PERF_SPIN);
    struct perf_contender sleeps = contender_of("pipe", PERF_LATENCY, PERF_BLOCK);
    struct perf_session *session = NULL;
    struct error_buffer why = {.text = ""};

    CHECK(perf_cpus_available(cpus, COUNT_OF(cpus)) > 0);
    cpu_count = 1;
    CHECK_ERR(open_with(&spins, 1, &session, &why), SHMQ_ENOTSUP);
    CHECK_CONTAINS(why.text, "--wait block");
    CHECK_OK(open_with(&sleeps, 1, &session, &why));
    CHECK_OK(perf_session_run(session, &SHORT, &why));
    CHECK(perf_session_spread(session, 0, PERF_SAME_CPU, PERF_MAIN).count > 0);
    perf_session_close(session);
    perf_release_signals();
    check_no_child();
}

/* ---- Ways that are not as they should be --------------------------------------------------------- */

#define EVIL_MESSAGES 100

static void die_in_trial(struct perf_seat *seat, struct perf_trial *trial)
{
    if (seat->role == PERF_CONSUME && trial->count >= EVIL_MESSAGES)
        (void)raise(SIGKILL);
    while (trial->count >= EVIL_MESSAGES && perf_wait_on(trial))
        ;
    trial->done = trial->count;
}

static void fail_in_trial(struct perf_seat *seat, struct perf_trial *trial)
{
    if (seat->role == PERF_CONSUME && trial->count >= EVIL_MESSAGES)
        (void)perf_trial_fail(trial, "the cat sat on it");
    while (trial->count >= EVIL_MESSAGES && perf_wait_on(trial))
        ;
    trial->done = trial->count;
}

/* In a call that nobody but a signal ends: the driver itself. */
static void sleep_in_trial(struct perf_seat *seat, struct perf_trial *trial)
{
    if (seat->role == PERF_CONSUME && trial->count >= EVIL_MESSAGES)
        (void)perf_trial_fail(trial, "the other one fell asleep");
    while (seat->role == PERF_PRODUCE && trial->count >= EVIL_MESSAGES)
        (void)pause();
    trial->done = trial->count;
}

static bool send_wrong(struct perf_seat *seat, struct perf_trial *trial, const void *body,
                       uint32_t size)
{
    _Atomic uint64_t *word = seat->lane->shared;

    (void)size;
    while (atomic_load(word) != 0) {
        if (!perf_wait_on(trial))
            return false;
    }
    atomic_store(word, perf_body_word(body) + 1 + (seat->source.next == EVIL_MESSAGES));
    return true;
}

static const void *receive_wrong(struct perf_seat *seat, struct perf_trial *trial, uint32_t group,
                                 uint32_t size, bool wait)
{
    _Atomic uint64_t *word = seat->lane->shared;
    uint64_t number;

    (void)group;
    (void)size;
    (void)wait;
    while ((number = atomic_load(word)) == 0) {
        if (!perf_wait_on(trial))
            return NULL;
    }
    number--;
    memcpy(seat->scratch, &number, sizeof(number));
    return seat->scratch;
}

static void release_wrong(struct perf_seat *seat, uint32_t group)
{
    (void)group;
    atomic_store((_Atomic uint64_t *)seat->lane->shared, 0);
}

static void lie_in_trial(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_wrong, NULL, receive_wrong, release_wrong);
}

static size_t one_page(const struct perf_setup *setup)
{
    (void)setup;
    return 4096;
}

static int refuse_to_open(struct perf_seat *seat, struct error_buffer *why)
{
    if (seat->role != PERF_CONSUME)
        return 0;
    return error_set(why, SHMQ_ENOSPC, "evil: no room for the likes of you");
}

/* Opens and runs a session with this way; it must end with this sentence, and leave nobody. */
static void check_ends(void (*run)(struct perf_seat *, struct perf_trial *),
                       int (*open)(struct perf_seat *, struct error_buffer *), const char *part)
{
    struct perf_way way = {
        .name = "evil",
        .kinds = 1u << PERF_THROUGHPUT,
        .waits = 1u << PERF_SPIN,
        .producers_max = 1,
        .groups_max = 1,
        .shared_bytes = one_page,
        .open = open,
        .run = run,
    };
    struct perf_contender contender = {
        .way = &way, .setup = {.kind = PERF_THROUGHPUT, .wait = PERF_SPIN, .size = 64}};
    struct perf_session *session = NULL;
    struct error_buffer why = {.text = ""};

    need_two_cpus();
    CHECK(open_with(&contender, 1, &session, &why) < 0);
    CHECK_CONTAINS(why.text, part);
    CHECK(session == NULL);
    perf_release_signals();
    check_no_child();
}

TEST(a_member_that_dies_ends_the_session)
{
    check_ends(die_in_trial, NULL, "signal 9");
}

TEST(a_member_that_fails_says_why)
{
    check_ends(fail_in_trial, NULL, "evil: the cat sat on it");
}

TEST(a_member_that_cannot_open_says_why)
{
    check_ends(lie_in_trial, refuse_to_open, "no room");
}

TEST(a_wrong_number_fails_loudly)
{
    check_ends(lie_in_trial, NULL, "number 100 where 99 was due");
}

TEST(a_driver_asleep_does_not_hold_up_the_end)
{
    check_ends(sleep_in_trial, NULL, "fell asleep");
}

TEST(being_interrupted_ends_the_session)
{
    struct perf_contender contender = contender_of("pipe", PERF_LATENCY, PERF_BLOCK);
    struct perf_budget endless = {.duration_ns = 60 * NS_PER_S};
    struct perf_session *session;
    struct error_buffer why = {.text = ""};

    need_two_cpus();
    CHECK_OK(open_with(&contender, 1, &session, &why));
    (void)kill(getpid(), SIGTERM); /* held back until the session looks */
    CHECK(perf_session_run(session, &endless, &why) < 0);
    CHECK_CONTAINS(why.text, "interrupted");
    CHECK(perf_session_run(session, &endless, &why) < 0); /* it can only be closed */
    perf_session_close(session);
    CHECK_INT_EQ(perf_interrupted(), SIGTERM);
    CHECK_INT_EQ(perf_interrupted(), 0);
    perf_release_signals();
    check_no_child();
}

TEST_MAIN(
    "perf_engine", T(classes_are_by_threshold), T(ratios_are_of_one_round_and_one_class),
    T(a_baseline_of_zero_makes_no_ratio), T(a_full_ledger_says_so),
    T(enough_is_enough_in_every_class_that_showed_up), T(the_next_trial_is_as_long_as_it_should_be),
    T(selecting_is_as_sorting), T(quantiles_are_finer_than_the_clock), T(quantiles_of_few_values),
    T(bodies_have_their_number_in_them), T(touching_reads_every_byte),
    T(what_cannot_be_is_refused_with_a_reason), T_TIMEOUT(a_session_files_every_trial, 60),
    T_TIMEOUT(groups_and_producers_share_a_ring, 60), T_TIMEOUT(one_cpu_is_for_those_who_sleep, 60),
    T_TIMEOUT(a_member_that_dies_ends_the_session, 60), T_TIMEOUT(a_member_that_fails_says_why, 60),
    T_TIMEOUT(a_member_that_cannot_open_says_why, 60), T_TIMEOUT(a_wrong_number_fails_loudly, 60),
    T_TIMEOUT(a_driver_asleep_does_not_hold_up_the_end, 60),
    T_TIMEOUT(being_interrupted_ends_the_session, 60))
