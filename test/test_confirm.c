/* SPDX-License-Identifier: Apache-2.0 */
/* test_confirm.c: shmq_confirm(), and what it says when it cannot. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libshmq/producer.h"
#include "test/support/fixture.h"

struct bench {
    pid_t daemon;
    struct fixture_client client;
    shmq_producer *producer;
};

static struct bench begin(const struct shmq_topic_options *options)
{
    struct bench bench = {.daemon = fixture_spawn()};

    bench.client = fixture_connect();
    fixture_topic(&bench.client, "t", options);
    bench.producer = fixture_producer(&bench.client, "t", 300);
    return bench;
}

static void end(struct bench *bench)
{
    (void)shmq_topic_delete(bench->client.connection, "t");
    fixture_close(&bench->client);
    fixture_end(bench->daemon);
    (void)test_remove_leftovers();
}

static struct shmq_topic_options durable_topic(uint32_t durability)
{
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);

    options.durability = durability;
    return options;
}

static struct shmq_message publish(shmq_producer *producer)
{
    struct shmq_message message = {.body = "message", .body_length = 7};

    CHECK_OK(shmq_publish(producer, &message));
    return message;
}

static int confirm(struct bench *bench, const struct shmq_message *message, int timeout_ms)
{
    return shmq_confirm(bench->producer, message, SHMQ_DURABLE, timeout_ms);
}

static uint64_t durable_of(const struct bench *bench, uint32_t partition)
{
    return atomic_load(&bench->producer->partitions[partition].ring.ring->state->durable);
}

/* ---- when it is ------------------------------------------------------------------------------ */

static void check_policy(uint32_t durability)
{
    struct shmq_topic_options options = durable_topic(durability);

    options.sync_interval_ms = durability == SHMQ_DURABLE_INTERVAL ? 5 : 0;
    struct bench bench = begin(&options);

    for (int i = 0; i < 50; i++) {
        struct shmq_message message = publish(bench.producer);

        CHECK_OK(confirm(&bench, &message, 5000));
        CHECK(durable_of(&bench, 0) >= message.offset + 64);
        CHECK_OK(confirm(&bench, &message, 0)); /* and again, at once */
        if (i % 16 == 0)
            test_sleep_ms(120); /* the flusher has gone to sleep */
    }
    end(&bench);
}

TEST(a_message_is_confirmed_when_it_is_in_the_page_cache)
{
    check_policy(SHMQ_DURABLE_OS);
}

TEST(a_message_is_confirmed_when_the_interval_is_over)
{
    check_policy(SHMQ_DURABLE_INTERVAL);
}

TEST(a_message_is_confirmed_when_it_is_synced)
{
    check_policy(SHMQ_DURABLE_ALWAYS);
}

TEST(the_last_message_of_each_partition_confirms_all_before_it)
{
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 3);
    static struct shmq_message messages[900];

    options.durability = SHMQ_DURABLE_ALWAYS;
    struct bench bench = begin(&options);

    for (uint32_t i = 0; i < 900; i++)
        messages[i] = (struct shmq_message){
            .body = "x", .body_length = 1, .flags = SHMQ_MESSAGE_PARTITION, .partition = i % 3};
    for (uint32_t i = 0; i < 900;) {
        int n = shmq_publish_batch(bench.producer, messages + i, 900 - i);

        REQUIRE(n > 0);
        i += (uint32_t)n;
    }
    for (uint32_t k = 0; k < 3; k++)
        CHECK_OK(confirm(&bench, &messages[897 + k], 5000));
    for (uint32_t i = 0; i < 900; i++)
        CHECK_OK(confirm(&bench, &messages[i], 0));
    end(&bench);
}

TEST(what_is_not_durable_yet_is_said_and_waited_for)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_INTERVAL);

    options.sync_interval_ms = 300;
    struct bench bench = begin(&options);
    struct shmq_message message = publish(bench.producer);

    CHECK_ERR(confirm(&bench, &message, 0), SHMQ_ETIMEOUT);
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "the journal is 64 bytes behind");
    uint64_t before_ns = test_now_ns();

    CHECK_ERR(confirm(&bench, &message, 20), SHMQ_ETIMEOUT);
    CHECK(test_now_ns() - before_ns >= 20000000);
    CHECK_OK(confirm(&bench, &message, 5000));
    if (!TEST_SANITIZED)
        CHECK(test_now_ns() - before_ns < 800000000);
    end(&bench);
}

/* ---- when it never will be ------------------------------------------------------------------- */

TEST(without_a_journal_there_is_nothing_to_wait_for)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_NONE);
    struct bench bench = begin(&options);
    struct shmq_message message = publish(bench.producer);

    CHECK_OK(shmq_confirm(bench.producer, &message, SHMQ_PUBLISHED, 0));
    CHECK_ERR(confirm(&bench, &message, 1000), SHMQ_ENOTSUP);
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "topic t: it has no journal");
    end(&bench);
}

TEST(what_was_not_published_is_refused)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_OS);
    struct bench bench = begin(&options);
    struct shmq_message message = publish(bench.producer);
    struct shmq_message wrong = message;

    CHECK_OK(confirm(&bench, &message, 5000));
    wrong.offset += 64;
    CHECK_ERR(confirm(&bench, &wrong, 1000), SHMQ_EINVAL);
    wrong = message;
    wrong.body_length = 1000;
    CHECK_ERR(confirm(&bench, &wrong, 1000), SHMQ_EINVAL);
    wrong = message;
    wrong.partition = 1;
    CHECK_ERR(confirm(&bench, &wrong, 1000), SHMQ_EINVAL);
    CHECK_ERR(confirm(&bench, &message, -1), SHMQ_EINVAL);
    CHECK_ERR(confirm(&bench, &message, SHMQ_TIMEOUT_MAX + 1), SHMQ_EINVAL);
    CHECK_ERR(confirm(&bench, NULL, 0), SHMQ_EINVAL);
    CHECK_ERR(shmq_confirm(NULL, &message, SHMQ_DURABLE, 0), SHMQ_EINVAL);
    CHECK_ERR(shmq_confirm(bench.producer, &message, (enum shmq_confirm_level)2, 0), SHMQ_EINVAL);
    end(&bench);
}

static void confirm_in_child(void *context)
{
    struct bench *bench = context;
    struct shmq_message message = {.offset = 0};

    CHECK_ERR(confirm(bench, &message, 1000), SHMQ_EFORK);
}

TEST(a_forked_child_confirms_nothing)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_OS);
    struct bench bench = begin(&options);

    CHECK_INT_EQ(test_wait_exit(test_spawn(confirm_in_child, &bench), 10000), 0);
    end(&bench);
}

static void *delete_topic(void *context)
{
    struct fixture_client client = fixture_connect();

    (void)context;
    test_sleep_ms(50);
    CHECK_OK(shmq_topic_delete(client.connection, "t"));
    fixture_close(&client);
    return NULL;
}

/* In policy interval, an hour: who waits learns of it at once. */
TEST(a_deleted_topic_ends_the_waiting)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_INTERVAL);
    pthread_t thread;

    options.sync_interval_ms = 3600000;
    struct bench bench = begin(&options);
    struct shmq_message message = publish(bench.producer);

    REQUIRE(pthread_create(&thread, NULL, delete_topic, NULL) == 0);
    CHECK_ERR(confirm(&bench, &message, 60000), SHMQ_ENOTOPIC);
    REQUIRE(pthread_join(thread, NULL) == 0);
    end(&bench);
}

static int ignore_partition(const struct shmq_partition_info *info, void *context)
{
    (void)info;
    (void)context;
    return 0;
}

TEST(a_quarantined_partition_is_told)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_INTERVAL);

    options.sync_interval_ms = 3600000;
    struct bench bench = begin(&options);
    struct shmq_message message = publish(bench.producer);
    struct ring *ring = bench.producer->partitions[0].ring.ring;

    test_sleep_ms(20);
    atomic_store(&ring->producers->tail, ring_tail(ring) + (UINT64_C(1) << 30));
    (void)shmq_partition_list(bench.client.connection, "t", ignore_partition, NULL);
    CHECK_ERR(confirm(&bench, &message, 60000), SHMQ_ECORRUPT);
    CHECK_ERR(confirm(&bench, &message, 0), SHMQ_ECORRUPT);
    end(&bench);
}

/* ---- the journal does not get on ------------------------------------------------------------- */

TEST(a_full_disk_is_named_by_confirm_and_by_a_full_ring)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_OS);

    setenv("SHMQ_IO_FAULT", "write:40:ENOSPC+", 1);
    struct bench bench = begin(&options);

    unsetenv("SHMQ_IO_FAULT");
    struct shmq_message message = publish(bench.producer);
    int rc = 0;

    for (int i = 0; i < 100 && rc == 0; i++) { /* until the disk is full */
        message = publish(bench.producer);
        rc = confirm(&bench, &message, 300);
    }
    CHECK_INT_EQ(rc, SHMQ_ETIMEOUT);
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "No space left on device");
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "free some room");
    do {
        rc = shmq_publish(bench.producer, &message);
    } while (rc == 0);
    CHECK_INT_EQ(rc, SHMQ_EFULL);
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "the journal is 65536 bytes behind");
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "No space left on device");
    end(&bench);
}

TEST(without_a_supervisor_a_confirm_waits_for_the_next_one)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_ALWAYS);
    struct bench bench = begin(&options);

    test_kill(bench.daemon, SIGKILL);
    (void)test_wait_exit(bench.daemon, 5000);
    struct shmq_message message = publish(bench.producer);
    uint64_t before_ns = test_now_ns();

    CHECK_ERR(confirm(&bench, &message, 200), SHMQ_ETIMEOUT);
    CHECK(test_now_ns() - before_ns >= 200000000);
    CHECK(test_now_ns() - before_ns < (uint64_t)test_scaled_ms(2000) * 1000000);
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "no supervisor is running");
    bench.daemon = fixture_spawn();
    CHECK_OK(confirm(&bench, &message, 5000));
    end(&bench);
}

TEST(a_stopped_supervisor_does_not_outlast_the_timeout)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_ALWAYS);
    struct bench bench = begin(&options);

    test_kill(bench.daemon, SIGSTOP);
    REQUIRE(test_wait_stopped(bench.daemon, 5000));
    struct shmq_message message = publish(bench.producer);
    uint64_t before_ns = test_now_ns();

    CHECK_ERR(confirm(&bench, &message, 200), SHMQ_ETIMEOUT);
    CHECK(test_now_ns() - before_ns < (uint64_t)test_scaled_ms(2000) * 1000000);
    test_kill(bench.daemon, SIGCONT);
    CHECK_OK(confirm(&bench, &message, 5000));
    end(&bench);
}

/* A claim that is being written is no reason to open anything anew. */
TEST(a_claim_may_be_outstanding)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_INTERVAL);
    struct shmq_claim claim;

    options.sync_interval_ms = 50;
    struct bench bench = begin(&options);
    struct shmq_message message = publish(bench.producer);

    REQUIRE_OK(shmq_claim(bench.producer, NULL, 0, 8, &claim));
    options = (struct shmq_topic_options)SHMQ_TOPIC_OPTIONS_INIT;
    options.partitions = 2;
    CHECK_OK(shmq_topic_alter(bench.client.connection, "t", &options));
    CHECK_OK(confirm(&bench, &message, 5000));
    memcpy(claim.body, "12345678", 8);
    CHECK_OK(shmq_commit(&claim));
    end(&bench);
}

TEST(what_was_published_before_the_memory_was_lost_is_not_known)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DURABLE_INTERVAL);

    options.sync_interval_ms = 3600000;
    struct bench bench = begin(&options);
    struct shmq_message lost = publish(bench.producer);

    test_kill(bench.daemon, SIGKILL);
    (void)test_wait_exit(bench.daemon, 5000);
    CHECK_ERR(confirm(&bench, &lost, 50), SHMQ_ETIMEOUT);
    (void)test_remove_leftovers();
    bench.daemon = fixture_spawn();
    CHECK_ERR(confirm(&bench, &lost, 5000), SHMQ_ECLOSED);
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "publish them again");
    struct shmq_message message = publish(bench.producer);

    CHECK(message.offset > lost.offset);
    CHECK_ERR(confirm(&bench, &lost, 5000), SHMQ_ECLOSED); /* in the new memory as well */
    CHECK_ERR(confirm(&bench, &lost, 0), SHMQ_ECLOSED);
    end(&bench);
}

TEST_MAIN("confirm", T(a_message_is_confirmed_when_it_is_in_the_page_cache),
          T(a_message_is_confirmed_when_the_interval_is_over),
          T(a_message_is_confirmed_when_it_is_synced),
          T(the_last_message_of_each_partition_confirms_all_before_it),
          T(what_is_not_durable_yet_is_said_and_waited_for),
          T(without_a_journal_there_is_nothing_to_wait_for), T(what_was_not_published_is_refused),
          T(a_forked_child_confirms_nothing), T(a_deleted_topic_ends_the_waiting),
          T(a_quarantined_partition_is_told), T(a_full_disk_is_named_by_confirm_and_by_a_full_ring),
          T(without_a_supervisor_a_confirm_waits_for_the_next_one),
          T(a_stopped_supervisor_does_not_outlast_the_timeout), T(a_claim_may_be_outstanding),
          T(what_was_published_before_the_memory_was_lost_is_not_known))
