/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervisor_killed.c: shmqd dies, at every fault point and at random moments, while a producer and a consumer in
 * other processes publish and poll all the time, and a third one asks for everything that can be asked.
 *
 * The wire's view of the same deaths is test_supervisor_faults.c; here are the programs that people run: shmqd itself
 * and clients through shmq.h. They must not notice: no call on the hot path fails or stands still, nothing that was
 * confirmed is lost, comes twice or out of order, control calls find the successor, and what was under way is there
 * wholly or not at all. At the end nothing is left.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "test/support/daemon_process.h"
#include "test/support/fixture.h"
#include "test/support/session.h"
#include "test/support/traffic.h"

#define PROGRESS_MS 2000

/* ---- small things -------------------------------------------------------------------------------------------------- */

static struct traffic *start_traffic(unsigned producers, unsigned groups)
{
    struct traffic_options options = {.topic = "live", .messages = 1u << 17, .batch = 1};
    struct shmq_topic_options topic = SHMQ_TOPIC_OPTIONS_INIT;
    struct fixture_client client = fixture_connect();
    struct traffic *traffic = traffic_new(&options);

    topic.partitions = 2;
    topic.ring_bytes = 65536;
    fixture_topic(&client, "live", &topic);
    for (unsigned i = 0; i < groups; i++)
        traffic_start_consumer(traffic, i, i);
    for (unsigned i = 0; i < producers; i++)
        traffic_start_producer(traffic, i);
    fixture_close(&client);
    return traffic;
}

struct names {
    unsigned count, live;
};

static int note_name(const struct shmq_topic_info *info, void *context)
{
    struct names *names = context;

    names->count++;
    names->live +=
        strcmp(info->name, "live") == 0 && info->partitions == 2 && info->quarantined == 0;
    return 0;
}

/* Of all that came and went there is one topic left, and nobody but the traffic holds any of it. */
static void check_metadata(uint32_t producers, uint32_t groups)
{
    struct fixture_client client = fixture_connect();
    struct names names = {0, 0};
    struct shmq_topic_info info;

    CHECK_OK(shmq_topic_list(client.connection, note_name, &names));
    CHECK_EQ(names.count, 1);
    CHECK_EQ(names.live, 1);
    CHECK_OK(shmq_topic_describe(client.connection, "live", &info));
    CHECK_EQ(info.producer_count, 2 * producers);
    CHECK_EQ(info.consumer_count, groups);
    CHECK_EQ(info.group_count, groups);
    fixture_close(&client);
}

/* Deletes what there is: B alone may be left. Now and then an ephemeral supervisor turns out the light, and nothing is. */
static void clear_bus(pid_t daemon)
{
    static unsigned rounds;
    struct fixture_client client = fixture_connect();

    CHECK_OK(shmq_topic_delete(client.connection, "live"));
    fixture_close(&client);
    CHECK_EQ(daemon_count_segments(), 1);
    daemon_stop(daemon);
    if (rounds++ % 8 == 0) {
        daemon_stop(daemon_run(&(struct daemon_options){.words = "--ephemeral"}));
        CHECK_EQ(daemon_count_segments(), 0);
    }
    daemon_forget_bus();
}

/* ---- at every fault point ------------------------------------------------------------------------------------------- */

struct round {
    const char *fault; /* NULL: none, but a log */
    const char *log;
    bool impatient;
    pid_t daemon;
    unsigned deaths;
    struct traffic *traffic;
    struct session_shared *session;
    pid_t session_pid;
};

/* It has died; the traffic must go on without; then the next one. */
static void succeed(struct round *round, int status)
{
    uint32_t given_up = atomic_load(&round->session->given_up);

    CHECK_INT_EQ(status, -SIGKILL);
    round->deaths++;
    CHECK(traffic_progresses(round->traffic, 20, PROGRESS_MS));
    for (int i = 0; round->impatient && i < 60; i++) {
        if (atomic_load(&round->session->given_up) != given_up)
            break;
        test_sleep_ms(5);
    }
    round->daemon = daemon_run(NULL);
}

/* The one that is to be struck takes over from one that was killed: its start has its points, too. */
static void start_struck(struct round *round)
{
    struct daemon_options options = {.fault = round->fault, .fault_log = round->log};
    int status = 0;

    test_kill(round->daemon, SIGKILL);
    round->daemon = daemon_start(&options);
    if (!daemon_await(round->daemon, &status))
        succeed(round, status);
}

static void run_session(struct round *round)
{
    int status;

    memset(round->session, 0, sizeof(*round->session));
    round->session->impatient = round->impatient;
    round->session_pid = test_spawn(session_run, round->session);
    for (;;) {
        if (!daemon_lives(round->daemon))
            succeed(round, -SIGKILL);
        status = test_wait_exit(round->session_pid, 3);
        if (status != TEST_TIMED_OUT)
            break;
    }
    CHECK_INT_EQ(status, 0);
    CHECK_EQ(atomic_load(&round->session->done), 1);
}

/* An orderly end, or at one of its points a disorderly one. */
static void end_struck(struct round *round)
{
    int status = daemon_terminate(round->daemon);

    CHECK(status == 0 || status == -SIGKILL);
    round->deaths += status == -SIGKILL;
    CHECK(traffic_progresses(round->traffic, 20, PROGRESS_MS));
    round->daemon = daemon_run(NULL);
}

static unsigned strike(const char *fault, const char *log, bool impatient)
{
    struct round round = {.fault = fault, .log = log, .impatient = impatient};

    round.session = test_shared(sizeof(*round.session));
    round.daemon = daemon_run(NULL);
    round.traffic = start_traffic(1, 1);
    start_struck(&round);
    run_session(&round);
    end_struck(&round);
    check_metadata(1, 1);
    traffic_finish(round.traffic);
    traffic_free(round.traffic);
    clear_bus(round.daemon);
    return round.deaths;
}

static void find_points(struct daemon_points *ret_points)
{
    char log[300];

    snprintf(log, sizeof(log), "%s/points", test_tmpdir());
    CHECK_EQ(strike(NULL, log, false), 0);
    daemon_read_points(log, ret_points);
}

TEST(at_each_point)
{
    struct daemon_points *points = test_shared(sizeof(*points));
    unsigned deaths = 0, i;

    find_points(points);
    for (i = 0; i < points->count && test_failures() == 0; i++) {
        test_context("%s: ", points->at[i].name);
        deaths += strike(points->at[i].name, NULL, false);
    }
    test_context(NULL);
    test_note("%u points (floor 70), %u deaths of the supervisor under traffic", i, deaths);
    CHECK(i >= 70);
    CHECK_EQ(deaths, i); /* each was struck */
}

/* Sampled: later passes of points that are passed more than once; every second time the session does not wait. */
TEST(at_later_passes)
{
    struct daemon_points *points = test_shared(sizeof(*points));
    struct test_random random;
    unsigned deaths = 0, walked = 0;
    char fault[100];

    test_random_init(&random, test_seed());
    find_points(points);
    for (unsigned tries = 0; tries < 200 && walked < 24 && test_failures() == 0; tries++) {
        unsigned i = (unsigned)test_random_below(&random, points->count);
        bool impatient = walked % 2 == 0;

        if (points->at[i].passes < 2)
            continue;
        /* The number of passes differs a little from run to run: the last ones may not come. */
        snprintf(fault, sizeof(fault), "%s:%llu", points->at[i].name,
                 (unsigned long long)(2 + test_random_below(&random, points->at[i].passes - 1)));
        test_context("%s%s: ", fault, impatient ? ", impatient" : "");
        deaths += strike(fault, NULL, impatient);
        walked++;
    }
    test_context(NULL);
    test_note("%u points (floor 20), %u deaths of the supervisor under traffic", walked, deaths);
    CHECK(walked >= 20);
    CHECK(deaths >= walked * 3 / 4);
}

/* ---- again and again, and at any moment -------------------------------------------------------------------------------- */

static bool is_of_start(const char *point)
{
    static const char *const PREFIXES[] = {"start.", "bus.",     "snapshot.", "store.",
                                           "sweep.", "journal.", "group.",    "hello."};

    for (size_t i = 0; i < sizeof(PREFIXES) / sizeof(PREFIXES[0]); i++) {
        if (strncmp(point, PREFIXES[i], strlen(PREFIXES[i])) == 0)
            return true;
    }
    return false;
}

/* Each recovery is cut short at another point, three in a row; then one succeeds, and all is as it was. */
TEST(again_while_it_recovers)
{
    struct daemon_points *points = test_shared(sizeof(*points));
    struct daemon_options options = {.fault_log = NULL};
    char log[300], fault[100];
    pid_t daemon = daemon_run(NULL);
    struct traffic *traffic = start_traffic(2, 2);
    unsigned deaths = 0, in_a_row = 0;
    int status = 0;

    snprintf(log, sizeof(log), "%s/points", test_tmpdir());
    options.fault_log = log;
    test_kill(daemon, SIGKILL);
    daemon = daemon_run(&options);
    test_kill(daemon, SIGKILL);
    daemon_read_points(log, points);
    for (unsigned i = 0; i < points->count && test_failures() == 0; i++) {
        if (!is_of_start(points->at[i].name))
            continue;
        snprintf(fault, sizeof(fault), "%s:%u", points->at[i].name, points->at[i].passes);
        test_context("%s: ", fault);
        options = (struct daemon_options){.fault = fault};
        daemon = daemon_start(&options);
        if (daemon_await(daemon, &status))
            test_kill(daemon, SIGKILL); /* its last step: it listened already */
        else
            CHECK_INT_EQ(status, -SIGKILL);
        deaths++;
        if (++in_a_row % 3 != 0)
            continue;
        daemon = daemon_run(NULL);
        check_metadata(2, 2);
        CHECK(traffic_progresses(traffic, 20, PROGRESS_MS));
        test_kill(daemon, SIGKILL);
    }
    test_context(NULL);
    test_note("%u recoveries cut short (floor 12)", deaths);
    CHECK(deaths >= 12);
    daemon = daemon_run(NULL);
    check_metadata(2, 2);
    traffic_finish(traffic);
    traffic_free(traffic);
    clear_bus(daemon);
}

/* A client that goes through the script without end, until it is told to stop. */
struct churn {
    struct session_shared session;
    _Atomic uint32_t stop;
    _Atomic uint32_t rounds;
};

static void run_churn(void *argument)
{
    struct churn *churn = argument;

    while (!atomic_load(&churn->stop) && test_failures() == 0) {
        session_run(&churn->session);
        atomic_fetch_add(&churn->rounds, 1);
    }
}

TEST(at_random_moments)
{
    struct test_random random;
    struct churn *churn = test_shared(sizeof(*churn));
    pid_t daemon = daemon_run(NULL);
    struct traffic *traffic = start_traffic(3, 2);
    unsigned deaths = 0;

    test_random_init(&random, test_seed());
    pid_t churner = test_spawn(run_churn, churn);

    for (; deaths < 40 && test_failures() == 0; deaths++) {
        struct timespec pause = {.tv_nsec = (long)test_random_below(&random, 60000000)};
        int status = 0;

        nanosleep(&pause, NULL);
        test_kill(daemon, SIGKILL);
        daemon = daemon_start(NULL);
        /* Some die as soon as they have begun. */
        if (test_random_below(&random, 3) > 0)
            CHECK(daemon_await(daemon, &status));
    }
    test_kill(daemon, SIGKILL);
    CHECK(traffic_progresses(traffic, 50, PROGRESS_MS)); /* by themselves */
    daemon = daemon_run(NULL);
    atomic_store(&churn->stop, 1);
    CHECK_INT_EQ(test_wait_exit(churner, 30000), 0);
    test_note("%u deaths, %u sessions, %llu messages", deaths + 1, atomic_load(&churn->rounds),
              (unsigned long long)traffic_count(traffic).confirmed);
    CHECK(atomic_load(&churn->rounds) > 0);
    check_metadata(3, 2);
    traffic_finish(traffic);
    traffic_free(traffic);
    clear_bus(daemon);
}

/* ---- what is given up while there is nobody to tell ---------------------------------------------------------------------- */

static int count_client(const struct shmq_client_info *info, void *context)
{
    (void)info;
    ++*(uint32_t *)context;
    return 0;
}

static bool only_one_client(void *connection)
{
    uint32_t count = 0;

    return shmq_client_list(connection, count_client, &count) == 0 && count == 1;
}

TEST(what_is_closed_without_it_is_given_back)
{
    pid_t daemon = daemon_run(NULL);
    struct fixture_client stays = fixture_connect(), goes = fixture_connect();
    struct shmq_topic_info info;

    fixture_topic(&stays, "live", NULL);
    shmq_producer *producer = fixture_producer(&stays, "live", 1000);
    shmq_consumer *consumer = fixture_consumer(&stays, "live", NULL);

    (void)fixture_producer(&goes, "live", 1000);
    (void)fixture_consumer(&goes, "live", "other");
    test_kill(daemon, SIGKILL);
    /* Nobody answers for longer than a close waits; and both connections' process lives on. */
    shmq_producer_close(producer);
    shmq_consumer_close(consumer);
    fixture_close(&goes);
    daemon = daemon_run(NULL);
    CHECK(test_eventually(only_one_client, stays.connection, PROGRESS_MS));
    CHECK_OK(shmq_topic_describe(stays.connection, "live", &info));
    CHECK_EQ(info.producer_count, 0);
    CHECK_EQ(info.consumer_count, 0);
    CHECK_EQ(info.group_count, 2);
    fixture_close(&stays);
    clear_bus(daemon);
}

/* ---- two at a time ---------------------------------------------------------------------------------------------------------- */

static void change_of_guard(pid_t *first, bool kill_it)
{
    pid_t second = daemon_start(&(struct daemon_options){.words = "--standby"});
    struct fixture_client client = fixture_connect();
    struct shmq_bus_info info;

    test_sleep_ms(100);
    CHECK(daemon_lives(second));
    CHECK_OK(shmq_bus_describe(client.connection, &info));
    CHECK_EQ(info.pid, *first);
    uint64_t before_ns = test_now_ns();

    if (kill_it)
        test_kill(*first, SIGKILL);
    else
        daemon_stop(*first);
    CHECK_OK(shmq_bus_describe(client.connection, &info));
    CHECK_EQ(info.pid, second);
    CHECK(test_now_ns() - before_ns < (uint64_t)test_scaled_ms(PROGRESS_MS) * 1000000);
    *first = second;
    fixture_close(&client);
}

TEST(a_standby_takes_over)
{
    pid_t daemon = daemon_run(NULL);
    struct traffic *traffic = start_traffic(1, 1);

    for (int i = 0; i < 4; i++)
        change_of_guard(&daemon, i % 2 == 0);
    CHECK(traffic_progresses(traffic, 20, PROGRESS_MS));
    /* Who only ever stood by goes when it is told to. */
    pid_t idle = daemon_start(&(struct daemon_options){.words = "--standby"});

    test_sleep_ms(100);
    CHECK_INT_EQ(daemon_terminate(idle), 0);
    check_metadata(1, 1);
    traffic_finish(traffic);
    traffic_free(traffic);
    clear_bus(daemon);
}

static void check_refusal(const char *words, pid_t first)
{
    struct test_output output;
    char pid[32];

    snprintf(pid, sizeof(pid), "pid %d", (int)first);
    CHECK_INT_EQ(daemon_refused(words, &output), 1);
    CHECK_CONTAINS(output.err, pid);
    CHECK_CONTAINS(output.err, "stop that one");
    CHECK_CONTAINS(output.err, "--standby");
    test_output_free(&output);
}

TEST(a_second_one_says_who_is_first)
{
    pid_t daemon = daemon_run(NULL);
    struct traffic *traffic = start_traffic(1, 1);
    char words[300];

    check_refusal("", daemon);
    check_refusal("--ephemeral", daemon); /* another state, the same bus */
    snprintf(words, sizeof(words), "--state-dir %s/other", test_tmpdir());
    check_refusal(words, daemon);
    CHECK(traffic_progresses(traffic, 20, PROGRESS_MS));
    check_metadata(1, 1);
    traffic_finish(traffic);
    traffic_free(traffic);
    clear_bus(daemon);
}

TEST_MAIN("supervisor_killed", T_TIMEOUT(at_each_point, 120), T_TIMEOUT(at_later_passes, 120),
          T_TIMEOUT(again_while_it_recovers, 60), T_TIMEOUT(at_random_moments, 90),
          T(what_is_closed_without_it_is_given_back), T(a_standby_takes_over),
          T(a_second_one_says_who_is_first))
