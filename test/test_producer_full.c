/* SPDX-License-Identifier: Apache-2.0 */
/* test_producer_full.c: full rings: who holds them, who dies in the way; single producers. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "test/support/fixture.h"

/* ---- full rings ------------------------------------------------------------------------------ */

static uint64_t fill_ring(shmq_producer *producer, int *ret_error)
{
    uint64_t count = 0;

    while ((*ret_error = fixture_publish_number(producer, count)) == 0)
        count++;
    return count;
}

TEST(full_ring_names_who_holds_it)
{
    static const uint32_t policies[] = {SHMQ_BLOCK, SHMQ_REJECT};
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    char pid[32];

    (void)snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
    for (uint32_t i = 0; i < 2; i++) {
        struct shmq_topic_options options = fixture_small_topic(policies[i], 1);
        struct shmq_message got[8];
        char name[8];
        int error = 0;

        (void)snprintf(name, sizeof(name), "t%u", i);
        fixture_topic(&client, name, &options);
        shmq_consumer *consumer = fixture_consumer(&client, name, "slowpokes");
        shmq_producer *producer = fixture_producer(&client, name, 50);
        uint64_t before_ns = test_now_ns();

        CHECK_EQ(fill_ring(producer, &error), FIXTURE_SMALL_RING / 64);
        CHECK_INT_EQ(error, SHMQ_EFULL);
        if (policies[i] == SHMQ_BLOCK)
            CHECK(test_now_ns() - before_ns >= 50000000);
        CHECK_CONTAINS(shmq_errmsg(client.connection), "slowpokes");
        CHECK_CONTAINS(shmq_errmsg(client.connection), pid);
        CHECK_CONTAINS(shmq_errmsg(client.connection), name);
        /* Read and looked at, but not yet given up. */
        CHECK_EQ(shmq_poll(consumer, got, 8, 1000), 8);
        CHECK_OK(shmq_commit_offsets(consumer));
        CHECK_ERR(fixture_publish_number(producer, 0), SHMQ_EFULL);
        CHECK_CONTAINS(shmq_errmsg(client.connection), "still looks at");
        CHECK_CONTAINS(shmq_errmsg(client.connection), pid);
        for (uint64_t k = 0; k < 8; k++)
            CHECK_EQ(fixture_number(&got[k]), k);
        CHECK_EQ(shmq_poll(consumer, got, 1, 1000), 1);
        CHECK_OK(fixture_publish_number(producer, 0));
    }
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* Nobody sleeps for room there, and still the reader commits what it has, not only each sixteenth of a
 * ring. */
TEST(refused_publish_hastens_the_commit)
{
    static const uint32_t policies[] = {SHMQ_BLOCK, SHMQ_REJECT};
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();

    for (uint32_t i = 0; i < 2; i++) {
        struct shmq_topic_options options = fixture_small_topic(policies[i], 1);
        char name[8];
        int error = 0, polls = 0;

        (void)snprintf(name, sizeof(name), "h%u", i);
        fixture_topic(&client, name, &options);
        shmq_consumer *consumer = fixture_consumer(&client, name, NULL);
        shmq_producer *producer = fixture_producer(&client, name, -1);

        CHECK_EQ(fill_ring(producer, &error), FIXTURE_SMALL_RING / 64);
        CHECK_INT_EQ(error, SHMQ_EFULL);
        do
            CHECK_EQ(fixture_poll_number(consumer, 1000), (uint64_t)polls++);
        while (fixture_publish_number(producer, 0) == SHMQ_EFULL && polls < 64);
        CHECK_INT_EQ(polls, 2); /* the second gives up what the first has returned */
    }
    fixture_close(&client);
    fixture_stop(supervisor);
}

struct slow_reader {
    shmq_consumer *consumer;
    uint64_t expected;
    uint64_t wrong;
};

static void *read_slowly(void *arg)
{
    struct slow_reader *reader = arg;
    struct shmq_message got[16];

    test_sleep_ms(100);
    for (uint64_t next = 0; next < reader->expected;) {
        int n = shmq_poll(reader->consumer, got, 16, 5000);

        if (n <= 0) {
            reader->wrong++;
            break;
        }
        for (int i = 0; i < n; i++)
            reader->wrong += fixture_number(&got[i]) != next++;
    }
    return NULL;
}

TEST(blocked_publisher_goes_on_when_there_is_room)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    struct slow_reader reader = {.expected = 5000};
    pthread_t thread;

    fixture_topic(&client, "t", &options);
    reader.consumer = fixture_consumer(&other, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", test_scaled_ms(5000));

    REQUIRE(pthread_create(&thread, NULL, read_slowly, &reader) == 0);
    for (uint64_t i = 0; i < reader.expected; i++) {
        if (!CHECK_OK(fixture_publish_number(producer, i)))
            break;
    }
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_EQ(reader.wrong, 0);
    fixture_close(&other);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(group_that_joins_a_running_topic_is_not_lapped)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_REJECT, 1);
    struct shmq_message got[256];
    int error = 0;

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 50);

    /* No group: runs free. */
    for (uint64_t i = 0; i < 3000; i++)
        CHECK_OK(fixture_publish_number(producer, i));
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    uint64_t count = fill_ring(producer, &error);

    CHECK_INT_EQ(error, SHMQ_EFULL);
    CHECK(count <= 1024);
    int n = shmq_poll(consumer, got, 256, 1000);
    uint64_t first = n > 0 ? fixture_number(&got[0]) : 0;

    CHECK(n == 256 && first < 3000 && first >= 3000 - 1024);
    for (int i = 0; i < n; i++)
        CHECK_EQ(fixture_number(&got[i]), first + (uint64_t)i);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- single producer ------------------------------------------------------------------------- */

TEST(single_producer_topic_has_one)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 2);
    shmq_producer *second = NULL;

    options.producers = SHMQ_PRODUCERS_SINGLE;
    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_ERR(shmq_producer_open(client.channel, "t", NULL, &second), SHMQ_EBUSY);
    CHECK(second == NULL);
    for (uint64_t i = 0; i < 100; i++) {
        CHECK_OK(fixture_publish_number(producer, i));
        CHECK_EQ(fixture_poll_number(consumer, 1000), i);
    }
    shmq_producer_close(producer);
    producer = fixture_producer(&client, "t", 1000);
    CHECK_OK(fixture_publish_number(producer, 100));
    CHECK_EQ(fixture_poll_number(consumer, 1000), 100);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- deaths ---------------------------------------------------------------------------------- */

static void die_between_claim_and_commit(void *arg)
{
    struct fixture_client client = fixture_connect();
    shmq_producer *producer = fixture_producer(&client, arg, 1000);
    struct shmq_claim claim;

    CHECK_OK(fixture_publish_number(producer, 0));
    CHECK_OK(shmq_claim(producer, NULL, 0, 500, &claim));
    (void)raise(SIGKILL);
}

TEST(consumer_passes_the_claim_of_a_dead_producer)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();

    fixture_topic(&client, "t", NULL);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    pid_t pid = test_spawn(die_between_claim_and_commit, (void *)(uintptr_t) "t");

    CHECK_INT_EQ(test_wait_exit(pid, 5000), -SIGKILL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    CHECK_OK(fixture_publish_number(producer, 1));
    CHECK_EQ(fixture_poll_number(consumer, 2000), 0);
    CHECK_EQ(fixture_poll_number(consumer, 2000), 1);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* Tells when it has claimed, and waits to be killed. */
static void wait_between_claim_and_commit(void *arg)
{
    struct fixture_client client = fixture_connect();
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    struct shmq_claim claim;

    CHECK_OK(fixture_publish_number(producer, 0));
    CHECK_OK(shmq_claim(producer, NULL, 0, 500, &claim));
    (void)test_barrier_wait(arg, 5000);
    for (;;)
        (void)pause();
}

TEST(producers_resolve_without_a_supervisor)
{
    struct test_barrier *claimed = test_shared(sizeof(*claimed));
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    int error = 0;

    fixture_topic(&client, "t", &options);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 500);

    /* Both die; nobody is left but this producer, whom the claim stops when the ring is full. */
    test_barrier_init(claimed, 2);
    pid_t pid = test_spawn(wait_between_claim_and_commit, claimed);

    CHECK(test_barrier_wait(claimed, 5000));
    test_kill(supervisor, SIGKILL);
    test_kill(pid, SIGKILL);
    CHECK_EQ(fixture_poll_number(consumer, 2000), 0);
    CHECK_EQ(fixture_poll_number(consumer, 100), UINT64_MAX); /* behind the claim is nothing yet */
    uint64_t sent = fill_ring(producer, &error);

    /* It has waited for room, and padded the claim meanwhile: now the reader can go on. */
    CHECK_INT_EQ(error, SHMQ_EFULL);
    CHECK(sent > 1000);
    for (uint64_t next = 0; next < sent; next++) {
        if (!CHECK_EQ(fixture_poll_number(consumer, 2000), next))
            break;
    }
    CHECK_OK(fixture_publish_number(producer, sent));
    CHECK_EQ(fixture_poll_number(consumer, 2000), sent);
    fixture_close(&client);
    (void)test_remove_leftovers();
}

TEST_MAIN("producer_full", T(refused_publish_hastens_the_commit), T(full_ring_names_who_holds_it),
          T(blocked_publisher_goes_on_when_there_is_room),
          T(group_that_joins_a_running_topic_is_not_lapped), T(single_producer_topic_has_one),
          T(consumer_passes_the_claim_of_a_dead_producer),
          T(producers_resolve_without_a_supervisor))
