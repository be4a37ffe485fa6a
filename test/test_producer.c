/* SPDX-License-Identifier: Apache-2.0 */
/* test_producer.c: publishing, partitions, batches, claims. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libshmq/hash.h"
#include "test/support/fixture.h"

/* ---- what is published arrives --------------------------------------------------------------- */

static void fill_pattern(unsigned char *to, size_t bytes, uint32_t seed)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (unsigned char)(seed * 31 + i * 7);
}

static void check_size(shmq_producer *producer, shmq_consumer *consumer, uint32_t body,
                       uint16_t key, uint16_t headers)
{
    static unsigned char bytes[3][FIXTURE_SMALL_RING];
    struct shmq_message sent = {.body = bytes[0],
                                .body_length = body,
                                .key = bytes[1],
                                .key_length = key,
                                .headers = bytes[2],
                                .headers_length = headers};
    struct shmq_message got;

    for (uint32_t i = 0; i < 3; i++)
        fill_pattern(bytes[i], sizeof(bytes[i]), body + i);
    test_context("body %u key %u headers %u: ", body, key, headers);
    if (!CHECK_OK(shmq_publish(producer, &sent)) ||
        !CHECK_EQ(shmq_poll(consumer, &got, 1, 2000), 1))
        return;
    CHECK_EQ(got.body_length, body);
    CHECK_EQ(got.key_length, key);
    CHECK_EQ(got.headers_length, headers);
    CHECK_EQ(got.offset, sent.offset);
    CHECK_EQ(got.timestamp_ns, sent.timestamp_ns);
    CHECK(memcmp(got.body, bytes[0], body) == 0);
    CHECK(memcmp(got.key, bytes[1], key) == 0);
    CHECK(memcmp(got.headers, bytes[2], headers) == 0);
}

TEST(every_size_arrives_whole)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    const uint32_t most = FIXTURE_SMALL_RING / 8 - 32;

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    for (uint32_t body = 0; body <= 200; body++)
        check_size(producer, consumer, body, (uint16_t)(body % 40), (uint16_t)(body % 50));
    for (uint32_t body = most - 70; body <= most; body++)
        check_size(producer, consumer, body, 0, 0);
    check_size(producer, consumer, 0, (uint16_t)most, 0);
    check_size(producer, consumer, 1, 100, (uint16_t)(most - 101));
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(too_big_is_refused_with_the_limit)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    static unsigned char body[FIXTURE_SMALL_RING];
    struct shmq_message message = {.body = body, .body_length = FIXTURE_SMALL_RING / 8 - 31};
    struct shmq_claim claim;

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    CHECK_ERR(shmq_publish(producer, &message), SHMQ_ETOOBIG);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "8160");
    CHECK_ERR(shmq_claim(producer, NULL, 0, FIXTURE_SMALL_RING, &claim), SHMQ_ETOOBIG);
    message.body_length = 10;
    message.body = NULL;
    CHECK_ERR(shmq_publish(producer, &message), SHMQ_EINVAL);
    message.body = body;
    CHECK_OK(shmq_publish(producer, &message));
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(timestamps_follow_the_topic)
{
    static const uint32_t modes[] = {SHMQ_TIMESTAMPS_COARSE, SHMQ_TIMESTAMPS_NONE,
                                     SHMQ_TIMESTAMPS_PRECISE};
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();

    for (uint32_t i = 0; i < 3; i++) {
        struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
        struct shmq_message message = {.body = "x", .body_length = 1};
        char name[8];

        (void)snprintf(name, sizeof(name), "t%u", i);
        options.timestamps = modes[i];
        fixture_topic(&client, name, &options);
        shmq_producer *producer = fixture_producer(&client, name, 1000);

        CHECK_OK(shmq_publish(producer, &message));
        uint64_t now_s = (uint64_t)time(NULL);

        if (modes[i] == SHMQ_TIMESTAMPS_NONE)
            CHECK_EQ(message.timestamp_ns, 0);
        else
            CHECK(message.timestamp_ns / 1000000000 + 5 > now_s &&
                  message.timestamp_ns / 1000000000 < now_s + 5);
    }
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- partitions ------------------------------------------------------------------------------ */

TEST(keys_choose_partitions_like_kafka)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 7);
    struct fastmod seven = fastmod_init(7);
    struct shmq_message got;
    char key[32];

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_EQ(shmq_producer_partitions(producer), 7);
    for (int i = 0; i < 100; i++) {
        int length = snprintf(key, sizeof(key), "key-%d", i);
        struct shmq_message message = {.key = key, .key_length = (uint16_t)length};

        CHECK_OK(shmq_publish(producer, &message));
        CHECK_EQ(message.partition, hash_choose_partition(&seven, key, (size_t)length));
        if (CHECK_EQ(shmq_poll(consumer, &got, 1, 1000), 1))
            CHECK_EQ(got.partition, message.partition);
    }
    /* Kafka's own numbers: murmur2("21") & 0x7fffffff = 1173551340 (test_hash has more of them). */
    struct shmq_message message = {.key = "21", .key_length = 2};

    CHECK_OK(shmq_publish(producer, &message));
    CHECK_EQ(message.partition, (uint32_t)(-973932308 & 0x7fffffff) % 7);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(keyless_messages_go_round_and_explicit_ones_where_told)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 3);
    uint32_t seen[3] = {0, 0, 0};

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    for (int i = 0; i < 30; i++) {
        struct shmq_message message = {.body = "x", .body_length = 1};

        CHECK_OK(shmq_publish(producer, &message));
        seen[message.partition]++;
    }
    CHECK_EQ(seen[0], 10);
    CHECK_EQ(seen[1], 10);
    CHECK_EQ(seen[2], 10);
    struct shmq_message message = {.flags = SHMQ_MESSAGE_PARTITION, .partition = 2};

    CHECK_OK(shmq_publish(producer, &message));
    CHECK_EQ(message.partition, 2);
    message.partition = 3;
    CHECK_ERR(shmq_publish(producer, &message), SHMQ_EINVAL);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "there are 3");
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(added_partitions_are_taken_up_while_running)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    struct shmq_topic_options more = SHMQ_TOPIC_OPTIONS_INIT;
    bool seen[5] = {false};

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_OK(fixture_publish_number(producer, 0));
    CHECK_EQ(fixture_poll_number(consumer, 1000), 0);
    more.partitions = 5;
    CHECK_OK(shmq_topic_alter(client.connection, "t", &more));
    for (uint64_t i = 1; i <= 20; i++) {
        struct shmq_message message = {.body = &i, .body_length = sizeof(i)};

        CHECK_OK(shmq_publish(producer, &message));
        seen[message.partition] = true;
        CHECK_EQ(fixture_poll_number(consumer, 2000), i);
    }
    CHECK_EQ(shmq_producer_partitions(producer), 5);
    for (int i = 0; i < 5; i++)
        CHECK(seen[i]);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(deleted_topic_ends_publishing)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    CHECK_OK(fixture_publish_number(producer, 1));
    CHECK_OK(shmq_topic_delete(other.connection, "t"));
    CHECK_ERR(fixture_publish_number(producer, 2), SHMQ_ENOTOPIC);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "deleted");
    CHECK_ERR(fixture_publish_number(producer, 3), SHMQ_ENOTOPIC);
    /* One of the same name is another topic: the handle is done, a new one works. */
    fixture_topic(&client, "t", NULL);
    shmq_producer_close(producer);
    producer = fixture_producer(&client, "t", 1000);
    CHECK_OK(fixture_publish_number(producer, 4));
    fixture_close(&other);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- batches --------------------------------------------------------------------------------- */

TEST(batch_keeps_order_and_content)
{
    enum { COUNT = 500 };
    static struct shmq_message messages[COUNT], got[COUNT];
    static uint64_t numbers[COUNT];
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    uint32_t taken = 0;

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    for (uint32_t i = 0; i < COUNT; i++) {
        numbers[i] = i;
        messages[i] = (struct shmq_message){.body = &numbers[i], .body_length = sizeof(numbers[i])};
    }
    /* 500 records of 64 bytes: several claims of an eighth of the ring each. */
    CHECK_INT_EQ(shmq_publish_batch(producer, messages, COUNT), COUNT);
    while (taken < COUNT) {
        int n = shmq_poll(consumer, got + taken, COUNT - taken, 1000);

        if (!CHECK(n > 0))
            break;
        for (int i = 0; i < n; i++) {
            CHECK_EQ(fixture_number(&got[taken + (uint32_t)i]), taken + (uint32_t)i);
            CHECK_EQ(got[taken + (uint32_t)i].offset, messages[taken + (uint32_t)i].offset);
        }
        taken += (uint32_t)n;
    }
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(batch_splits_by_partition_and_keeps_the_order_of_keys)
{
    enum { COUNT = 60 };
    static struct shmq_message messages[COUNT], got[COUNT];
    static uint64_t numbers[COUNT];
    static const char *const keys[] = {"a", "b", "c", "d"};
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 4);
    uint64_t last[4] = {0};
    uint32_t taken = 0;

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    for (uint32_t i = 0; i < COUNT; i++) {
        numbers[i] = i + 1;
        messages[i] = (struct shmq_message){.body = &numbers[i], .body_length = 8};
        if (i % 5 < 4) { /* every fifth has no key */
            messages[i].key = keys[i % 5];
            messages[i].key_length = 1;
        }
    }
    CHECK_INT_EQ(shmq_publish_batch(producer, messages, COUNT), COUNT);
    while (taken < COUNT) {
        int n = shmq_poll(consumer, got, COUNT, 1000);

        if (!CHECK(n > 0))
            break;
        for (int i = 0; i < n; i++) {
            uint64_t number = fixture_number(&got[i]);

            if (got[i].key_length != 1)
                continue;
            uint32_t key = (uint32_t)(*(const char *)got[i].key - 'a');

            CHECK(number > last[key]);
            last[key] = number;
        }
        taken += (uint32_t)n;
    }
    CHECK_EQ(taken, COUNT);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(batch_says_how_far_it_came)
{
    static unsigned char big[FIXTURE_SMALL_RING];
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_REJECT, 1);
    struct shmq_message messages[4] = {
        {.body = "a", .body_length = 1},
        {.body = "b", .body_length = 1},
        {.body = big, .body_length = sizeof(big)},
        {.body = "d", .body_length = 1},
    };
    static struct shmq_message flood[2000];

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_INT_EQ(shmq_publish_batch(producer, messages, 4), 2);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "65536 bytes");
    CHECK_ERR(shmq_publish_batch(producer, messages + 2, 2), SHMQ_ETOOBIG);
    /* A full ring: all that fit, then EFULL. 1024 records of 64 bytes are one ring. */
    for (uint32_t i = 0; i < 2000; i++)
        flood[i] = (struct shmq_message){.body = "x", .body_length = 1};
    CHECK_INT_EQ(shmq_publish_batch(producer, flood, 2000), 1022);
    CHECK_ERR(shmq_publish_batch(producer, flood, 2000), SHMQ_EFULL);
    CHECK_EQ(shmq_poll(consumer, flood, 2000, 0), 1024);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- claims ---------------------------------------------------------------------------------- */

TEST(claim_is_written_in_place)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_claim claim, copy;
    struct shmq_message got;

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    /* Whole. */
    CHECK_OK(shmq_claim(producer, "key", 3, 1000, &claim));
    CHECK_EQ(claim.body_size, 1000);
    memset(claim.body, 'w', 1000);
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX); /* not visible yet */
    CHECK_OK(shmq_commit(&claim));
    if (CHECK_EQ(shmq_poll(consumer, &got, 1, 1000), 1)) {
        CHECK_EQ(got.body_length, 1000);
        CHECK_EQ(got.key_length, 3);
        CHECK(memcmp(got.key, "key", 3) == 0 && ((const char *)got.body)[999] == 'w');
        CHECK(got.timestamp_ns > 0);
    }
    CHECK_ERR(shmq_commit(&claim), SHMQ_EINVAL); /* twice */
    /* Short: the rest is padding that nobody sees. */
    CHECK_OK(shmq_claim(producer, NULL, 0, 1000, &claim));
    memset(claim.body, 's', 1000);
    claim.body_size = 5;
    CHECK_OK(shmq_commit(&claim));
    CHECK_OK(fixture_publish_number(producer, 1));
    if (CHECK_EQ(shmq_poll(consumer, &got, 1, 1000), 1))
        CHECK_EQ(got.body_length, 5);
    CHECK_EQ(fixture_poll_number(consumer, 1000), 1);
    /* Aborted. */
    CHECK_OK(shmq_claim(producer, NULL, 0, 100, &claim));
    copy = claim;
    CHECK_OK(shmq_abort(&claim));
    CHECK_ERR(shmq_abort(&copy), SHMQ_EINVAL);
    CHECK_OK(fixture_publish_number(producer, 2));
    CHECK_EQ(fixture_poll_number(consumer, 1000), 2);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(one_claim_at_a_time)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_message message = {.body = "x", .body_length = 1};
    struct shmq_claim claim, second;

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    CHECK_OK(shmq_claim(producer, NULL, 0, 100, &claim));
    CHECK_ERR(shmq_claim(producer, NULL, 0, 100, &second), SHMQ_EBUSY);
    CHECK_ERR(shmq_publish(producer, &message), SHMQ_EBUSY);
    CHECK_ERR(shmq_publish_batch(producer, &message, 1), SHMQ_EBUSY);
    claim.body_size = 101;
    CHECK_ERR(shmq_commit(&claim), SHMQ_EINVAL);
    claim.body_size = 100;
    claim.offset += 64;
    CHECK_ERR(shmq_commit(&claim), SHMQ_EINVAL);
    claim.offset -= 64;
    CHECK_OK(shmq_commit(&claim));
    CHECK_OK(shmq_publish(producer, &message));
    /* Closing aborts: the reader behind it goes on. */
    CHECK_OK(shmq_claim(producer, NULL, 0, 100, &claim));
    shmq_producer_close(producer);
    producer = fixture_producer(&client, "t", 1000);
    CHECK_OK(fixture_publish_number(producer, 5));
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    struct shmq_message got[8];

    CHECK_EQ(shmq_poll(consumer, got, 8, 1000), 3);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST_MAIN("producer", T(every_size_arrives_whole), T(too_big_is_refused_with_the_limit),
          T(timestamps_follow_the_topic), T(keys_choose_partitions_like_kafka),
          T(keyless_messages_go_round_and_explicit_ones_where_told),
          T(added_partitions_are_taken_up_while_running), T(deleted_topic_ends_publishing),
          T(batch_keeps_order_and_content),
          T(batch_splits_by_partition_and_keeps_the_order_of_keys), T(batch_says_how_far_it_came),
          T(claim_is_written_in_place), T(one_claim_at_a_time))
