/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_client_owed.c: what shmqd has granted to a connection goes back when nobody uses it any more: places in
 * groups, slots, descriptors; also when shmqd cannot be told in time, and when the connection asks for nothing more.
 *
 * Who owes something only polls; another connection looks, and must not be the one that pays.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "libshmq/fault.h"
#include "test/support/fixture.h"

/* ---- looking --------------------------------------------------------------------------------- */

struct watch {
    struct fixture_client *watcher;
    uint64_t id; /* of the connection that is looked at */
    uint32_t slots;
    uint32_t groups;
    shmq_consumer *polled; /* by the one that is looked at; NULL: it does nothing */
};

static int find_client(const struct shmq_client_info *info, void *context)
{
    struct watch *watch = context;

    if (info->id == watch->id) {
        watch->slots = info->producers;
        watch->groups = info->groups;
    }
    return 0;
}

static void look(struct watch *watch)
{
    watch->slots = UINT32_MAX;
    CHECK_OK(shmq_client_list(watch->watcher->connection, find_client, watch));
}

static bool nothing_is_left_but_polled(void *context)
{
    struct watch *watch = context;
    struct shmq_message got;

    if (watch->polled)
        CHECK_INT_EQ(shmq_poll(watch->polled, &got, 1, 10), 0);
    look(watch);
    return watch->slots == 0 && watch->groups == (watch->polled ? 1 : 0);
}

static unsigned count_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    REQUIRE(dir != NULL);
    while (readdir(dir))
        count++;
    (void)closedir(dir);
    return count;
}

/* From now on `count` more can be opened. */
static void leave_descriptors(rlim_t count)
{
    int made[16];
    struct rlimit limit;

    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (rlim_t i = 0; i <= count; i++) {
        made[i] = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the lowest that is free */
        REQUIRE(made[i] >= 0);
    }
    for (rlim_t i = 0; i <= count; i++)
        (void)close(made[i]);
    limit.rlim_cur = (rlim_t)made[count];
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void stop(pid_t supervisor)
{
    test_kill(supervisor, SIGSTOP);
    REQUIRE(test_wait_stopped(supervisor, 5000));
}

/* ---- closing while nobody answers ------------------------------------------------------------ */

TEST(what_is_closed_without_supervisor_is_given_back_by_polls)
{
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    struct watch watch = {.watcher = &other, .id = shmq_connection_id(client.connection)};

    fixture_topic(&client, "t", &options);
    fixture_topic(&client, "polled", &options);
    options.producers = SHMQ_PRODUCERS_SINGLE;
    fixture_topic(&client, "single", &options);
    shmq_consumer *owner = fixture_consumer(&client, "t", NULL);
    shmq_consumer *standby = fixture_consumer(&other, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "single", 1000);

    watch.polled = fixture_consumer(&client, "polled", NULL);
    test_kill(supervisor, SIGKILL);
    shmq_consumer_close(owner);
    shmq_producer_close(producer);
    supervisor = fixture_spawn();
    CHECK(test_eventually(nothing_is_left_but_polled, &watch, 10000));
    producer = fixture_producer(&other, "single", 1000);
    shmq_producer_close(producer);
    producer = fixture_producer(&other, "t", 1000);
    CHECK_OK(fixture_publish_number(producer, 5));
    CHECK_EQ(fixture_poll_number(standby, 5000), 5);
    fixture_close(&client);
    fixture_close(&other);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

TEST(what_is_closed_while_the_supervisor_hangs_is_given_back_by_polls)
{
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 8);
    struct watch watch = {.watcher = &other, .id = shmq_connection_id(client.connection)};

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", "closed");

    watch.polled = fixture_consumer(&client, "t", NULL);
    look(&watch);
    CHECK_EQ(watch.slots, 8);
    CHECK_EQ(watch.groups, 2);
    stop(supervisor);
    shmq_producer_close(producer);
    shmq_consumer_close(consumer);
    test_kill(supervisor, SIGCONT);
    CHECK(test_eventually(nothing_is_left_but_polled, &watch, 10000));
    fixture_close(&client);
    fixture_close(&other);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

/* ---- opening that does not get through ------------------------------------------------------- */

#define MANY 1000u

struct stopper {
    struct watch *watch;
    pid_t supervisor;
};

static void *stop_in_the_middle(void *arg)
{
    struct stopper *stopper = arg;

    do
        look(stopper->watch);
    while (stopper->watch->slots == 0);
    stop(stopper->supervisor);
    return NULL;
}

TEST(producer_that_is_opened_in_part_leaves_nothing)
{
    pid_t supervisor = fixture_spawn();
    struct fixture_client other = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, MANY);
    struct shmq_connect_options patience = SHMQ_CONNECT_OPTIONS_INIT;
    struct fixture_client client;
    struct watch watch = {.watcher = &other};
    struct stopper stopper = {&watch, supervisor};
    struct rlimit fds;
    int rc = 0;

    REQUIRE(getrlimit(RLIMIT_NOFILE, &fds) == 0);
    fds.rlim_cur = fds.rlim_max;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &fds) == 0);
    if (fds.rlim_cur < MANY + 200)
        SKIP("a thousand descriptors are not allowed");
    patience.timeout_ms = 500;
    REQUIRE_OK(shmq_connect(&patience, &client.connection));
    REQUIRE_OK(shmq_channel_open(client.connection, &client.channel));
    fixture_topic(&other, "t", &options);
    watch.id = shmq_connection_id(client.connection);
    /* Where it is stopped too late, once more. */
    for (int i = 0; i < 20 && rc == 0; i++) {
        shmq_producer *producer = NULL;
        pthread_t thread;

        REQUIRE(pthread_create(&thread, NULL, stop_in_the_middle, &stopper) == 0);
        rc = shmq_producer_open(client.channel, "t", NULL, &producer);
        REQUIRE(pthread_join(thread, NULL) == 0);
        test_kill(supervisor, SIGCONT);
        shmq_producer_close(producer);
    }
    CHECK_ERR(rc, SHMQ_ETIMEOUT);
    look(&watch);
    CHECK(watch.slots > 0); /* nobody could be told; the next request does */
    CHECK_OK(shmq_topic_purge(client.connection, "t"));
    CHECK(nothing_is_left_but_polled(&watch));
    fixture_close(&client);
    fixture_close(&other);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

TEST(producer_without_descriptors_says_so_and_leaves_nothing)
{
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 20);
    struct watch watch = {.watcher = &other, .id = shmq_connection_id(client.connection)};
    struct rlimit before;
    shmq_producer *producer;
    shmq_consumer *consumer;

    fixture_topic(&other, "t", &options);
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    /* From none at all to enough for some partitions. */
    for (rlim_t more = 0; more < 12; more++) {
        leave_descriptors(more);
        CHECK_ERR(shmq_producer_open(client.channel, "t", NULL, &producer), SHMQ_ELIMIT);
        CHECK_CONTAINS(shmq_errmsg(client.connection), "ulimit -n");
        if (more < 4) {
            CHECK_ERR(shmq_consumer_open(client.channel, "t", NULL, &consumer), SHMQ_ELIMIT);
            CHECK_CONTAINS(shmq_errmsg(client.connection), "ulimit -n");
        }
        REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
        CHECK(nothing_is_left_but_polled(&watch));
    }
    producer = fixture_producer(&client, "t", 1000);
    shmq_producer_close(producer);
    fixture_close(&client);
    fixture_close(&other);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

TEST(consumer_keeps_no_descriptor_of_its_partitions)
{
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 50);
    unsigned before;

    fixture_topic(&client, "t", &options);
    before = count_open_fds();
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_EQ(count_open_fds(), before);
    shmq_consumer_close(consumer);
    fixture_close(&client);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

/* ---- a hand-over that stands still ----------------------------------------------------------- */

static uint64_t thread_cpu_ns(void)
{
    struct timespec time;

    REQUIRE(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static pid_t spawn_with_fault(const char *fault)
{
#ifdef SHMQ_FAULTS
    REQUIRE_OK(fault_arm(fault, NULL, NULL));
    pid_t supervisor = fixture_spawn();

    fault_disarm();
    return supervisor;
#else
    SKIP("built without fault points, such as %s", fault);
#endif
}

TEST(owner_that_is_fenced_and_not_yet_assigned_sleeps)
{
    /* The first hand-over is that of joining. */
    pid_t supervisor = spawn_with_fault("group.handover.fenced:2");
    struct shmq_connect_options patience = SHMQ_CONNECT_OPTIONS_INIT;
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    shmq_connection *purger = NULL;
    struct shmq_message got[64];
    uint64_t seen = 0;
    int taken;

    patience.timeout_ms = 300;
    REQUIRE_OK(shmq_connect(&patience, &purger));
    fixture_topic(&client, "t", &options);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    fixture_publish_range(producer, 0, 3);
    fixture_expect_range(consumer, 0, 3);
    /* It dies at the purge, between fence and assign. */
    CHECK_ERR(shmq_topic_purge(purger, "t"), SHMQ_ENOBUS);
    REQUIRE(test_wait_exit(supervisor, 10000) == -SIGKILL);
    fixture_publish_range(producer, 3, 203); /* more than one batch of commits */
    do
        taken = shmq_poll(consumer, got, 64, 0);
    while (taken > 0);
    CHECK_INT_EQ(taken, 0);
    uint64_t before_ns = thread_cpu_ns();

    CHECK_INT_EQ(shmq_poll(consumer, got, 64, 1000), 0);
    /* Spinning, it took a third of that second, or all of it. */
    CHECK(thread_cpu_ns() - before_ns < 100000000);
    /* Its successor finishes what it had begun, and the owner goes on. */
    supervisor = fixture_spawn();
    CHECK_OK(fixture_publish_number(producer, 203));
    while (seen != 203) {
        seen = fixture_poll_number(consumer, 5000);
        if (!CHECK(seen != UINT64_MAX))
            break;
    }
    fixture_publish_range(producer, 204, 1200);
    fixture_expect_range(consumer, 204, 1200);
    CHECK_OK(shmq_commit_offsets(consumer));
    shmq_close(purger);
    fixture_close(&client);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

TEST_MAIN("client_owed", T(what_is_closed_without_supervisor_is_given_back_by_polls),
          T(what_is_closed_while_the_supervisor_hangs_is_given_back_by_polls),
          T(producer_that_is_opened_in_part_leaves_nothing),
          T(producer_without_descriptors_says_so_and_leaves_nothing),
          T(consumer_keeps_no_descriptor_of_its_partitions),
          T(owner_that_is_fenced_and_not_yet_assigned_sleeps))
