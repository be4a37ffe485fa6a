/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of shmq-perf: sessions, also with ways of moving messages that fail, lie, die and hang. What
 * figures come out is no question here.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "test/support/test.h"
#include "tools/perf/transport.h"

/* ---- Sessions -------------------------------------------------------------------------------- */

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
        contender_of("ideal-lag", PERF_THROUGHPUT, PERF_SPIN),
        contender_of("ideal", PERF_THROUGHPUT, PERF_SPIN),
        contender_of("cas", PERF_FREE, PERF_SPIN),
        contender_of("pipe", PERF_THROUGHPUT, PERF_HYBRID),
        contender_of("futex", PERF_LATENCY, PERF_BLOCK),
    };
    struct perf_session *session;
    struct error_buffer why = {.text = ""};

    need_two_cpus();
    contenders[3].setup.size = 13; /* several in a line */
    contenders[4].setup.size = 24;
    contenders[5].setup.producers = 2;
    contenders[6].setup.copy_out = true;
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

/* Whoever comes at a rate comes also when something else has the CPU. */
TEST(at_a_rate_preempted_trials_count)
{
    struct perf_contender contender = contender_of("pipe", PERF_LATENCY, PERF_SPIN);
    const struct perf_ledger *ledger;
    struct perf_session *session;
    struct error_buffer why = {.text = ""};
    cpu_set_t set;
    pid_t rival;

    need_two_cpus();
    contender.setup.rate = 1000;
    rival = fork();
    if (rival == 0) {
        CPU_ZERO(&set);
        CPU_SET((size_t)cpus[0], &set);
        (void)sched_setaffinity(0, sizeof(set), &set);
        for (;;)
            __asm__ __volatile__("" ::: "memory");
    }
    if (CHECK_OK(open_with(&contender, 1, &session, &why))) {
        CHECK_OK(perf_session_run(session, &SHORT, &why));
        ledger = perf_session_ledger(session, 0);
        CHECK(ledger->kept > 0);
        CHECK_EQ(ledger->preempted, 0);
        CHECK_EQ(perf_histogram_count(perf_session_histogram(session, 0, PERF_NEAR)),
                 ledger->messages);
        perf_session_close(session);
    }
    (void)kill(rival, SIGKILL);
    (void)waitpid(rival, NULL, 0);
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

/* ---- Ways that are not as they should be ----------------------------------------------------- */

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
    const struct perf_budget until_then = {.duration_ns = 30 * NS_PER_S};
    struct perf_session *session = NULL;
    struct error_buffer why = {.text = ""};
    int rc;

    need_two_cpus();
    rc = open_with(&contender, 1, &session, &why);
    if (rc == 0) { /* on a busy machine the first trials have few messages */
        rc = perf_session_run(session, &until_then, &why);
        perf_session_close(session);
        session = NULL;
    }
    CHECK(rc < 0);
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

TEST_MAIN("perf_engine", T_TIMEOUT(a_session_files_every_trial, 60),
          T_TIMEOUT(groups_and_producers_share_a_ring, 60),
          T_TIMEOUT(at_a_rate_preempted_trials_count, 60),
          T_TIMEOUT(one_cpu_is_for_those_who_sleep, 60),
          T_TIMEOUT(a_member_that_dies_ends_the_session, 60),
          T_TIMEOUT(a_member_that_fails_says_why, 60),
          T_TIMEOUT(a_member_that_cannot_open_says_why, 60),
          T_TIMEOUT(a_wrong_number_fails_loudly, 60),
          T_TIMEOUT(a_driver_asleep_does_not_hold_up_the_end, 60),
          T_TIMEOUT(being_interrupted_ends_the_session, 60))
