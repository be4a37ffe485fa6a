/* SPDX-License-Identifier: Apache-2.0 */
/* test_consumer_hostile.c: quarantined partitions, and records that no library writes. */
#include <stdio.h>
#include <stdlib.h>

#include "libshmq/producer.h"
#include "test/support/fixture.h"

/* ---- scribbles ------------------------------------------------------------------------------- */

static int ignore_partition(const struct shmq_partition_info *info, void *context)
{
    (void)info;
    (void)context;
    return 0;
}

TEST(quarantined_partition_is_told_once_and_the_others_go_on)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 2);
    struct shmq_message explicit_one = {.flags = SHMQ_MESSAGE_PARTITION, .partition = 1};
    struct shmq_message got[8];

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 500);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    fixture_publish_range(producer, 0, 2);
    CHECK_EQ(shmq_poll(consumer, got, 8, 1000), 2);
    /* A member goes mad; shmqd sees it at the next look. */
    atomic_store(&producer->partitions[1].attachment->ring.producers->tail, 12345);
    (void)shmq_partition_list(client.connection, "t", ignore_partition, NULL);
    CHECK_ERR(shmq_poll(consumer, got, 8, 3000), SHMQ_ECORRUPT);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "t/1");
    CHECK_ERR(shmq_publish(producer, &explicit_one), SHMQ_ECORRUPT);
    fixture_publish_range(producer, 10, 20); /* round robin passes it over */
    uint32_t taken = 0;

    while (taken < 10) {
        int n = shmq_poll(consumer, got, 8, 1000);

        if (!CHECK(n > 0))
            break;
        taken += (uint32_t)n;
    }
    CHECK_EQ(shmq_poll(consumer, got, 8, 0), 0);
    /* Whoever comes now is told as well. */
    shmq_consumer_close(consumer);
    shmq_producer_close(producer);
    producer = fixture_producer(&client, "t", 500);
    consumer = fixture_consumer(&client, "t", NULL);
    CHECK_ERR(shmq_publish(producer, &explicit_one), SHMQ_ECORRUPT);
    fixture_publish_range(producer, 20, 24);
    CHECK_ERR(shmq_poll(consumer, got, 8, 1000), SHMQ_ECORRUPT);
    fixture_expect_range(consumer, 20, 24);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(nobody_waits_for_a_topic_that_is_all_quarantined)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_message got;
    shmq_consumer *second = NULL;

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 500);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    atomic_store(&producer->partitions[0].attachment->ring.producers->tail, 12345);
    (void)shmq_partition_list(client.connection, "t", ignore_partition, NULL);
    for (int i = 0; i < 3; i++) {
        CHECK_ERR(shmq_poll(consumer, &got, 1, 10000), SHMQ_ECORRUPT);
        CHECK_ERR(fixture_publish_number(producer, 1), SHMQ_ECORRUPT);
    }
    CHECK_ERR(shmq_consumer_open(client.channel, "t", NULL, &second), SHMQ_ECORRUPT);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* Headers that no library writes, with an honest stamp. */
TEST(record_with_impossible_lengths_is_not_handed_out)
{
    static const uint32_t policies[] = {SHMQ_BLOCK, SHMQ_DROP_OLD};
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();

    for (uint32_t i = 0; i < 4; i++) {
        struct shmq_topic_options options = fixture_small_topic(policies[i % 2], 1);
        struct shmq_message got[4];
        uint64_t offset = 0;
        char name[8];

        (void)snprintf(name, sizeof(name), "t%u", i);
        fixture_topic(&client, name, &options);
        shmq_producer *producer = fixture_producer(&client, name, 500);
        shmq_consumer *consumer = fixture_consumer(&client, name, NULL);

        CHECK_OK(fixture_publish_number(producer, 7));
        struct ring_producer *ring = &producer->partitions[0].ring;

        REQUIRE(ring_claim(ring, 128, &offset) == RING_OK);
        if (i < 2) /* key and headers longer than the whole */
            (void)ring_begin_record(ring, offset, 50, 0, 40, 11, RECORD_TYPE_DATA);
        else /* longer than a claim can be */
            (void)ring_begin_record(ring, offset, FIXTURE_SMALL_RING / 8, 0, 0, 0,
                                    RECORD_TYPE_DATA);
        ring_commit(ring, offset, 128);
        CHECK_OK(fixture_publish_number(producer, 8));
        CHECK_EQ(shmq_poll(consumer, got, 4, 1000), 1);
        CHECK_EQ(fixture_number(&got[0]), 7);
        CHECK_ERR(shmq_poll(consumer, got, 4, 5000), SHMQ_ECORRUPT);
        CHECK_CONTAINS(shmq_errmsg(client.connection), name);
    }
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST_MAIN("consumer_hostile", T(quarantined_partition_is_told_once_and_the_others_go_on),
          T(nobody_waits_for_a_topic_that_is_all_quarantined),
          T(record_with_impossible_lengths_is_not_handed_out))
