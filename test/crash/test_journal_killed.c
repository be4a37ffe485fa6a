/* SPDX-License-Identifier: Apache-2.0 */
/* test_journal_killed.c: shmqd dies at every point of what it does with journals, again and again, while producers in other
 * processes publish to durable topics of each policy and confirm, and consumers read on.
 *
 * Twice: with the memory of the bus left to the next supervisor, and with it gone from /dev/shm, which is what a crash
 * of the host looks like but for the page cache. In both cases everything that was confirmed must be there, whatever
 * the policy: `os` promises the page cache, and that has survived. With the memory left, nothing at all may be missing.
 * The oracle compares (test/support/oracle.h); the power is cut in test_power_loss.c.
 */
#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/support/daemon_process.h"
#include "test/support/durable.h"

#define PROGRESS_MS 4000
#define STRIKE_MS   250 /* a point that is not passed by then is passed by stopping, or not at all */
#define TOPICS      4u

static const struct durable_options OPTIONS[TOPICS] = {
    {.topic = "os", .durability = SHMQ_DURABLE_OS, .burst = 6},
    {.topic = "interval",
     .durability = SHMQ_DURABLE_INTERVAL,
     .burst = 6,
     .overflow = SHMQ_SPILL,
     .sync_interval = 4},
    {.topic = "always", .durability = SHMQ_DURABLE_ALWAYS, .burst = 6},
    /* Files go all the time: large messages, and the smallest bound that there is. */
    {.topic = "short",
     .durability = SHMQ_DURABLE_OS,
     .partitions = 1,
     .largest = 7000,
     .messages = 1u << 20,
     .burst = 12,
     .overflow = SHMQ_DROP_OLD,
     .retain_bytes = 1u << 20},
};

struct world {
    pid_t daemon;
    bool memory_is_lost; /* between supervisors */
    bool clients_die;    /* with it, but for consumers */
    struct durable *topics[TOPICS];
    struct churn *churn;
    pid_t churn_pid;
    unsigned deaths;
};

/* ---- topics that come and go ------------------------------------------------------------------------------------------- */

static void publish_some(struct fixture_client *client)
{
    shmq_producer *producer = NULL;
    struct shmq_message message = {.body = "x", .body_length = 1};
    int rc = shmq_producer_open(client->channel, "churn", NULL, &producer);

    if (rc < 0) {
        FAIL("churn: producer: %d: %s", rc, shmq_errmsg(client->connection));
        return;
    }
    for (int i = 0; i < 20 && rc == 0; i++)
        rc = shmq_publish(producer, &message);
    if (rc == 0)
        rc = shmq_confirm(producer, &message, SHMQ_DURABLE, test_scaled_ms(10000));
    if (rc != 0 && rc != SHMQ_ECLOSED)
        FAIL("churn: %d: %s", rc, shmq_errmsg(client->connection));
    shmq_producer_close(producer);
}

struct churn { /* in test_shared() memory */
    _Atomic uint32_t stop, rounds;
};

static void churn_once(struct fixture_client *client, uint32_t durability)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    int rc;

    options.ring_bytes = 65536;
    options.if_not_exists = 1;
    options.durability = durability;
    if (!CHECK_OK(shmq_topic_create(client->connection, "churn", &options)))
        return;
    publish_some(client);
    options.partitions = 2;
    options.ring_bytes = 0;
    options.durability = 0;
    CHECK_OK(shmq_topic_alter(client->connection, "churn", &options));
    publish_some(client);
    CHECK_OK(shmq_topic_purge(client->connection, "churn"));
    rc = shmq_topic_delete(client->connection, "churn");
    CHECK(rc == 0 || rc == SHMQ_ENOTOPIC);
}

/* The calls are patient, and find whoever is supervisor. A new connection each time, since an old one notices only after
 * a second that its memory is gone. */
static void run_churn(void *argument)
{
    struct churn *churn = argument;

    while (atomic_load(&churn->stop) == 0 && test_failures() == 0) {
        struct fixture_client client = durable_connect();

        churn_once(&client, SHMQ_DURABLE_OS + atomic_fetch_add(&churn->rounds, 1) % 3);
        fixture_close(&client);
    }
}

/* ---- the world ------------------------------------------------------------------------------------------------------------ */

static enum oracle_demand demand_of(const struct world *world, unsigned topic)
{
    if (OPTIONS[topic].retain_bytes)
        return ORACLE_RETAINED;
    return world->memory_is_lost ? ORACLE_NO_LOSS : ORACLE_NO_LOSS_AT_ALL;
}

/* Topics that come and go, and what goes on all the time. */
static void start_clients(struct world *world)
{
    for (unsigned i = 0; i < TOPICS; i++) {
        durable_start_producer(world->topics[i], 0, 40);
        if (OPTIONS[i].retain_bytes == 0)
            durable_start_producer(world->topics[i], 1, 1);
    }
    world->churn_pid = test_spawn(run_churn, world->churn);
}

static void kill_clients(struct world *world)
{
    test_kill(world->churn_pid, SIGKILL);
    for (unsigned i = 0; i < TOPICS; i++) {
        durable_kill_producer(world->topics[i], 0);
        durable_kill_producer(world->topics[i], 1);
    }
}

static void take_memory(const struct world *world)
{
    if (world->memory_is_lost)
        (void)test_remove_leftovers();
}

static void begin(struct world *world, bool memory_is_lost)
{
    memset(world, 0, sizeof(*world));
    world->memory_is_lost = memory_is_lost;
    world->daemon = daemon_run(NULL);
    for (unsigned i = 0; i < TOPICS; i++) {
        world->topics[i] = durable_new(&OPTIONS[i]);
        if (OPTIONS[i].retain_bytes == 0) {
            durable_start_consumer(world->topics[i], 0, 0);
            durable_start_consumer(world->topics[i], 1, DURABLE_READ_DURABLE);
            durable_await_consumer(world->topics[i], 0);
            durable_await_consumer(world->topics[i], 1);
        }
    }
    world->churn = test_shared(sizeof(*world->churn));
    start_clients(world);
}

static void check_progress(struct world *world)
{
    for (unsigned i = 0; i < TOPICS; i++)
        CHECK(durable_progresses(world->topics[i], 5, PROGRESS_MS));
}

/* Nothing but the topics, and none that keeps a partition from going on. */
static int note_topic(const struct shmq_topic_info *info, void *context)
{
    unsigned *count = context;

    ++*count;
    CHECK_EQ(info->quarantined, 0);
    return 0;
}

static void end_churn(struct world *world)
{
    atomic_store(&world->churn->stop, 1);
    CHECK_INT_EQ(test_wait_exit(world->churn_pid, 30000), 0);
    CHECK(atomic_load(&world->churn->rounds) > 0);
}

/* Of deleted topics, and of those that never came to be, no directory is left. */
static bool only_topics_are_left(void *unused)
{
    char path[300];
    unsigned count = 0;
    const struct dirent *entry;
    DIR *directory;

    (void)unused;
    snprintf(path, sizeof(path), "%s/%s/journal", getenv("SHMQ_STATE_DIR"), test_bus_name());
    directory = opendir(path);
    REQUIRE(directory != NULL);
    while ((entry = readdir(directory)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count == TOPICS;
}

/* A supervisor runs. */
static void finish(struct world *world)
{
    struct fixture_client client;
    struct durable_counts all = {0, 0, 0, 0, 0, 0};
    unsigned count = 0;

    end_churn(world);
    for (unsigned i = 0; i < TOPICS; i++)
        durable_stop_producers(world->topics[i], true);
    client = fixture_connect();
    CHECK_OK(shmq_topic_list(client.connection, note_topic, &count));
    CHECK_EQ(count, TOPICS);
    fixture_close(&client);
    CHECK(test_eventually(only_topics_are_left, NULL, 3000));
    for (unsigned i = 0; i < TOPICS; i++) {
        struct durable_counts counts = durable_count(world->topics[i]);

        durable_stop_consumers(world->topics[i], demand_of(world, i));
        (void)durable_compare(world->topics[i], demand_of(world, i), OPTIONS[i].topic, NULL);
        all.published += counts.published;
        all.confirmed += counts.confirmed;
        all.unknown += counts.unknown;
        if (counts.longest_ns > all.longest_ns)
            all.longest_ns = counts.longest_ns;
        durable_free(world->topics[i]);
    }
    test_note(
        "%u deaths; %llu published, %llu confirmed, %llu unknown; a call took %llu ms too long",
        world->deaths, (unsigned long long)all.published, (unsigned long long)all.confirmed,
        (unsigned long long)all.unknown, (unsigned long long)all.longest_ns / 1000000);
    daemon_stop(world->daemon);
    daemon_forget_bus();
}

/* ---- points -------------------------------------------------------------------------------------------------------------- */

/* Those of the metadata are struck by test_supervisor_killed.c, where memory is left; here they are on the way of a recovery. */
static bool is_of_interest(const char *point, bool memory_is_lost)
{
    static const char *const PREFIXES[] = {
        "flush.", "journal.", "start.partition.", "start.topics", "topic.",          "metadata.",
        "stop.",  "store.",   "snapshot.",        "partition.",   "segment.create.",
    };
    const size_t of_both = 7;
    size_t count = memory_is_lost ? sizeof(PREFIXES) / sizeof(PREFIXES[0]) : of_both;

    for (size_t i = 0; i < count; i++) {
        if (strncmp(point, PREFIXES[i], strlen(PREFIXES[i])) == 0)
            return true;
    }
    return false;
}

static void end_daemon(struct world *world)
{
    if (world->daemon != 0)
        test_kill(world->daemon, SIGKILL);
    world->daemon = 0;
}

/* A new one, after the last was killed, or has ended. */
static void succeed(struct world *world, const struct daemon_options *options)
{
    end_daemon(world);
    if (world->clients_die)
        kill_clients(world);
    take_memory(world);
    world->daemon = daemon_start(options);
    if (world->clients_die)
        start_clients(world);
}

static void recover(struct world *world)
{
    int status = 0;

    succeed(world, NULL);
    if (!daemon_await(world->daemon, &status)) {
        FAIL("shmqd does not come up: it ended with %d", status);
        test_abort();
    }
    check_progress(world);
}

/* Runs through a start, some work and a stop with a log. */
static void find_points(struct world *world, struct daemon_points *ret_points)
{
    char log[300];

    snprintf(log, sizeof(log), "%s/points", test_tmpdir());
    succeed(world, &(struct daemon_options){.fault_log = log});
    check_progress(world);
    test_sleep_ms(400);
    daemon_stop(world->daemon);
    world->daemon = 0;
    daemon_read_points(log, ret_points);
    recover(world);
}

/* The next supervisor dies at `fault`, or else is stopped. Returns whether it was struck. */
static bool strike(struct world *world, const char *fault)
{
    int status;

    succeed(world, &(struct daemon_options){.fault = fault});
    status = test_wait_exit(world->daemon, STRIKE_MS);
    if (status == TEST_TIMED_OUT)
        status = daemon_terminate(world->daemon);
    world->daemon = 0;
    CHECK(status == 0 || status == -SIGKILL);
    world->deaths += status == -SIGKILL;
    return status == -SIGKILL;
}

/* Each point at its first pass, and half of them at a later one. One supervisor in five is let work: so recoveries are cut short
 * several times in a row. */
static void walk(bool memory_is_lost)
{
    struct daemon_points *points = test_shared(sizeof(*points));
    struct test_random random;
    struct world world;
    unsigned walked = 0, struck = 0;
    /* Without the memory it is the recovery that counts, and what is passed often is no part of it. */
    unsigned most = memory_is_lost ? 6 : UINT_MAX;

    test_random_init(&random, test_seed());
    begin(&world, memory_is_lost);
    /* Those that live on need a second to notice, as at_random_moments… shows: too long for each point. */
    world.clients_die = memory_is_lost;
    find_points(&world, points);
    for (unsigned i = 0; i < 2 * points->count && test_failures() == 0; i++) {
        const char *name = points->at[i / 2].name;
        unsigned passes = points->at[i / 2].passes;
        char fault[100];

        if (!is_of_interest(name, memory_is_lost) || (i % 2 == 1 && (passes < 2 || passes > most)))
            continue;
        if (i % 2 == 1 && test_random_below(&random, 2) == 0)
            continue; /* another seed, another half of the later passes */
        passes = passes < 30 ? passes : 30;
        snprintf(fault, sizeof(fault), "%s:%u", name,
                 i % 2 == 0 ? 1 : 2 + (unsigned)test_random_below(&random, passes - 1));
        test_context("%s: ", fault);
        struck += strike(&world, fault);
        if (++walked % 4 == 0)
            recover(&world);
    }
    test_context(NULL);
    recover(&world);
    test_note("%u points (floor 40), %u struck", walked, struck);
    CHECK(walked >= 40);
    CHECK(struck >= walked / 2);
    finish(&world);
}

TEST(at_each_point)
{
    walk(false);
}

TEST(at_each_point_and_the_memory_is_lost)
{
    walk(true);
}

/* No point: any instruction. */
static void kill_at_random(bool memory_is_lost)
{
    uint64_t end_ns = test_now_ns() + UINT64_C(2000000000);
    struct test_random random;
    struct world world;

    test_random_init(&random, test_seed());
    begin(&world, memory_is_lost);
    while (test_now_ns() < end_ns && test_failures() == 0) {
        if (test_random_below(&random, 4) == 0)
            check_progress(&world);
        test_sleep_ms((unsigned)test_random_below(&random, 120));
        succeed(&world, NULL);
        world.deaths++;
    }
    recover(&world);
    finish(&world);
}

TEST(at_random_moments)
{
    kill_at_random(false);
}

TEST(at_random_moments_and_the_memory_is_lost)
{
    kill_at_random(true);
}

/* ---- what a confirm may not say ---------------------------------------------------------------------------------------- */

static void publish_large(shmq_producer *producer, struct shmq_message *ret_message)
{
    static const char body[4000]; /* so that it has to look for room soon */

    *ret_message = (struct shmq_message){.body = body, .body_length = sizeof(body)};
    CHECK_OK(shmq_publish(producer, ret_message));
}

/* Until the memory is another one, of which the first message's offset knows nothing. */
static void publish_until_anew(shmq_producer *producer, uint64_t old, struct shmq_message *message)
{
    for (int i = 0; i < 200; i++) {
        publish_large(producer, message);
        if (message->offset >= old + 65536)
            return;
        test_sleep_ms(20);
    }
    FAIL("the producer goes on in memory that nobody has any more");
}

/* Confirming a message confirms all before it. So one that was published after the memory was lost must not, as long as the
 * producer has not been told that the others may be lost. */
TEST(a_confirm_does_not_hide_what_the_memory_took_along)
{
    struct shmq_topic_options topic = SHMQ_TOPIC_OPTIONS_INIT;
    pid_t daemon = daemon_run(NULL);
    struct fixture_client client = fixture_connect();
    struct shmq_message first, last;
    shmq_producer *producer;

    topic.durability = SHMQ_DURABLE_ALWAYS;
    topic.ring_bytes = 65536;
    fixture_topic(&client, "t", &topic);
    producer = fixture_producer(&client, "t", 1000);
    publish_large(producer, &first);
    CHECK_OK(shmq_confirm(producer, &first, SHMQ_DURABLE, 2000));
    test_kill(daemon, SIGKILL);
    publish_large(producer, &first); /* nobody writes this one to the disk */
    (void)test_remove_leftovers();
    daemon = daemon_run(NULL);
    publish_until_anew(producer, first.offset, &last);
    CHECK_ERR(shmq_confirm(producer, &last, SHMQ_DURABLE, 2000), SHMQ_ECLOSED);
    CHECK_ERR(shmq_confirm(producer, &first, SHMQ_DURABLE, 2000), SHMQ_ECLOSED);
    /* Told once: what is published again is confirmed. */
    publish_large(producer, &last);
    CHECK_OK(shmq_confirm(producer, &last, SHMQ_DURABLE, 2000));
    fixture_close(&client);
    daemon_stop(daemon);
    daemon_forget_bus();
}

/* Who only looks learns of it as well. */
TEST(a_confirm_that_only_looks_learns_that_the_memory_is_lost)
{
    struct shmq_topic_options topic = SHMQ_TOPIC_OPTIONS_INIT;
    pid_t daemon = daemon_run(NULL);
    struct fixture_client client = fixture_connect();
    struct shmq_message message;
    shmq_producer *producer;
    int rc = SHMQ_ETIMEOUT;

    topic.durability = SHMQ_DURABLE_OS;
    topic.ring_bytes = 65536;
    fixture_topic(&client, "t", &topic);
    producer = fixture_producer(&client, "t", 1000);
    test_kill(daemon, SIGKILL);
    publish_large(producer, &message);
    (void)test_remove_leftovers();
    daemon = daemon_run(NULL);
    for (int i = 0; i < 400 && rc == SHMQ_ETIMEOUT; i++) {
        rc = shmq_confirm(producer, &message, SHMQ_DURABLE, 0);
        test_sleep_ms(10);
    }
    CHECK_INT_EQ(rc, SHMQ_ECLOSED);
    publish_large(producer, &message);
    CHECK_OK(shmq_confirm(producer, &message, SHMQ_DURABLE, 2000));
    fixture_close(&client);
    daemon_stop(daemon);
    daemon_forget_bus();
}

TEST_MAIN("journal_killed", T_TIMEOUT(at_each_point, 120),
          T_TIMEOUT(at_each_point_and_the_memory_is_lost, 120), T_TIMEOUT(at_random_moments, 60),
          T_TIMEOUT(at_random_moments_and_the_memory_is_lost, 60),
          T(a_confirm_does_not_hide_what_the_memory_took_along),
          T(a_confirm_that_only_looks_learns_that_the_memory_is_lost))
