/* SPDX-License-Identifier: Apache-2.0 */
/* test_consumer_seek.c: moving about in the history of durable topics, by offset and by time; and what was purged. */
#include "libshmq/consumer.h"
#include "test/support/history.h"

#include <signal.h>

/* ---- seeking --------------------------------------------------------------------------------- */

#define SOUGHT 30000u

static void check_seeking(uint32_t overflow)
{
    struct shmq_topic_options options = history_topic(overflow);
    static uint64_t offsets[SOUGHT];
    struct test_random random;
    struct history_bench bench = history_begin(&options);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);
    uint64_t seen = 0;

    test_random_init(&random, test_seed());
    for (uint64_t i = 0; i < SOUGHT; i++) {
        offsets[i] =
            history_publish(bench.producer, i, 8 + (uint32_t)test_random_below(&random, 200));
        for (; overflow == SHMQ_BLOCK && i - seen > 200; seen++)
            CHECK_EQ(history_poll(consumer, NULL), seen);
    }
    for (int round = 0; round < 60 && test_failures() == 0; round++) {
        uint64_t to = test_random_below(&random, SOUGHT - 1);

        CHECK_OK(shmq_seek(consumer, 0, offsets[to]));
        CHECK_EQ(history_position(consumer).position, offsets[to]);
        for (uint64_t i = to; i < to + 40 && i < SOUGHT; i++)
            CHECK_EQ(history_poll(consumer, NULL), i);
        /* Between two messages: the next one. */
        CHECK_OK(shmq_seek(consumer, SHMQ_ALL_PARTITIONS, offsets[to] + 1));
        CHECK_EQ(history_poll(consumer, NULL), to + 1);
    }
    CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_EARLIEST));
    CHECK_EQ(history_position(consumer).position, offsets[0]);
    for (uint64_t i = 0; i < SOUGHT && test_failures() == 0; i++)
        CHECK_EQ(history_poll(consumer, NULL), i);
    CHECK_OK(shmq_seek(consumer, 0, 0));
    CHECK_EQ(history_poll(consumer, NULL), 0);
    CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_LATEST));
    CHECK_EQ(history_position(consumer).position, history_position(consumer).tail);
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX);
    CHECK_OK(fixture_publish_number(bench.producer, 77));
    CHECK_EQ(fixture_poll_number(consumer, 1000), 77);
    CHECK_EQ(history_position(consumer).lost_bytes, 0);
    history_end(&bench);
}

TEST(any_offset_of_a_block_topics_history_can_be_sought)
{
    check_seeking(SHMQ_BLOCK);
}

TEST(any_offset_of_a_spill_topics_history_can_be_sought)
{
    check_seeking(SHMQ_SPILL);
}

/* Nothing becomes durable while shmqd is stopped: the ring is the only place that has the messages, and its oldest eighth, which
 * readers of an overwriting ring keep away from, is as good as the rest. */
TEST(what_is_not_durable_yet_is_sought_in_all_of_the_ring)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct history_bench bench = history_begin(&options);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);
    uint64_t first = history_publish(bench.producer, 0, 8);

    CHECK_EQ(history_poll(consumer, NULL), 0);
    history_await_durable(&bench);
    REQUIRE(kill(bench.daemon, SIGSTOP) == 0);
    for (uint64_t i = 1; i <= 1000; i++)
        (void)history_publish(bench.producer, i, 8);
    CHECK_OK(shmq_seek(consumer, 0, first + 64));
    for (uint64_t i = 1; i <= 1000 && test_failures() == 0; i++)
        CHECK_EQ(history_poll(consumer, NULL), i);
    CHECK_EQ(history_position(consumer).lost_bytes, 0);
    REQUIRE(kill(bench.daemon, SIGCONT) == 0);
    history_end(&bench);
}

/* The supervisor takes an offset in history as it is given: it may lie in the middle of a message. */
TEST(a_group_that_begins_in_the_middle_of_a_message_begins_behind_it)
{
    struct shmq_topic_options options = history_topic(SHMQ_BLOCK);
    struct shmq_consumer_options from = SHMQ_CONSUMER_OPTIONS_INIT;
    struct history_bench bench = history_begin(&options);
    static uint64_t offsets[5000];

    for (uint64_t i = 0; i < 5000; i++)
        offsets[i] = history_publish(bench.producer, i, 300);
    from.from = SHMQ_FROM_OFFSET;
    for (uint64_t ahead = 0; ahead < 384; ahead += 64) {
        uint32_t flags = 1;

        from.group = "g";
        from.from_offset = offsets[1000] + ahead;
        shmq_consumer *consumer = fixture_consumer_with(&bench.client, "t", &from);

        test_context("%u bytes ahead ", (unsigned)ahead);
        CHECK_EQ(history_poll(consumer, &flags), ahead == 0 ? 1000 : 1001);
        CHECK_EQ(flags & SHMQ_MESSAGE_AFTER_LOSS, 0);
        CHECK_EQ(history_position(consumer).lost_bytes, 0);
        shmq_consumer_close(consumer);
        CHECK_OK(shmq_group_delete(bench.client.connection, "t", "g"));
    }
    test_context(NULL);
    history_end(&bench);
}

/* Views become invalid, but the seek itself lets producers go on, and nothing is delivered twice to whoever follows. */
TEST(a_group_that_seeks_back_into_history_holds_nobody_up)
{
    struct shmq_topic_options options = history_topic(SHMQ_BLOCK);
    struct history_bench bench = history_begin(&options);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    for (uint64_t i = 0; i < 5000; i += 100) {
        fixture_publish_range(bench.producer, i, i + 100);
        fixture_expect_range(consumer, i, i + 100);
    }
    CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_EARLIEST));
    fixture_publish_range(bench.producer, 5000, 8000);
    fixture_expect_range(consumer, 0, 8000);
    CHECK(!consumer->partitions[0].behind);
    history_end(&bench);
}

TEST(purged_messages_do_not_come_back_from_the_journal)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct history_bench bench = history_begin(&options);

    fixture_publish_range(bench.producer, 0, 5000);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    fixture_expect_range(consumer, 0, 10);
    CHECK_OK(shmq_topic_purge(bench.client.connection, "t"));
    fixture_publish_range(bench.producer, 5000, 9000);
    /* What the last poll found is behind it; the purge is noticed at the next look. */
    uint64_t number = fixture_poll_number(consumer, 1000);

    CHECK(number == 10 || number == 5000);
    while (number < 5000 && number != UINT64_MAX)
        number = fixture_poll_number(consumer, 1000);
    CHECK_EQ(number, 5000);
    fixture_expect_range(consumer, 5001, 9000);
    CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_EARLIEST));
    fixture_expect_range(consumer, 5000, 5010);
    shmq_consumer *other = fixture_consumer(&bench.client, "t", "other");

    fixture_expect_range(other, 5000, 9000);
    CHECK_EQ(history_position(consumer).lost_bytes, 0);
    CHECK_EQ(history_position(other).lost_bytes, 0);
    history_end(&bench);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void check_times(uint32_t overflow, uint32_t durability)
{
    struct shmq_topic_options options = fixture_small_topic(overflow, 1);
    struct shmq_consumer_options from = SHMQ_CONSUMER_OPTIONS_INIT;
    uint64_t count = durability ? 20000 : 800;
    uint64_t times[4];
    uint64_t first[4];

    options.durability = durability;
    options.timestamps = SHMQ_TIMESTAMPS_PRECISE;
    struct history_bench bench = history_begin(&options);

    for (uint32_t k = 0; k < 4; k++) {
        test_sleep_ms(2);
        first[k] = k * count / 4;
        times[k] = clock_realtime_ns();
        fixture_publish_range(bench.producer, first[k], first[k] + count / 4);
    }
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    for (uint32_t k = 0; k < 4; k++) {
        test_context("time %u ", k);
        CHECK_OK(shmq_seek_time(consumer, 0, times[k]));
        fixture_expect_range(consumer, first[k], first[k] + 100);
        from.group = k == 0 ? "g0" : k == 1 ? "g1" : k == 2 ? "g2" : "g3";
        from.from = SHMQ_FROM_TIME;
        from.from_time_ns = times[k];
        shmq_consumer *other = fixture_consumer_with(&bench.client, "t", &from);

        fixture_expect_range(other, first[k], first[k] + 100);
        shmq_consumer_close(other);
        /* The group is there by now: it goes on where it was. */
        other = fixture_consumer_with(&bench.client, "t", &from);
        fixture_expect_range(other, first[k] + 100, first[k] + 110);
        CHECK_EQ(history_position(other).lost_bytes, 0);
        shmq_consumer_close(other);
    }
    test_context(NULL);
    CHECK_OK(shmq_seek_time(consumer, SHMQ_ALL_PARTITIONS, 0));
    fixture_expect_range(consumer, 0, 10);
    CHECK_OK(shmq_seek_time(consumer, 0, clock_realtime_ns()));
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX);
    CHECK_EQ(history_position(consumer).position, history_position(consumer).tail);
    fixture_publish_range(bench.producer, count, count + 10);
    fixture_expect_range(consumer, count, count + 10);
    CHECK_ERR(shmq_seek_time(consumer, 1, 0), SHMQ_EINVAL);
    CHECK_ERR(shmq_seek_time(NULL, 1, 0), SHMQ_EINVAL);
    shmq_consumer *standby = fixture_consumer(&bench.client, "t", NULL);

    CHECK_ERR(shmq_seek_time(standby, 0, 0), SHMQ_EFENCED);
    history_end(&bench);
}

TEST(times_are_found_in_a_block_topic)
{
    check_times(SHMQ_BLOCK, SHMQ_DURABLE_OS);
}

TEST(times_are_found_in_a_spill_topic)
{
    check_times(SHMQ_SPILL, SHMQ_DURABLE_INTERVAL);
}

TEST(times_are_found_in_a_ring_without_a_journal)
{
    check_times(SHMQ_BLOCK, SHMQ_DURABLE_NONE);
}

TEST(times_are_found_in_a_drop_old_ring_without_a_journal)
{
    check_times(SHMQ_DROP_OLD, SHMQ_DURABLE_NONE);
}

TEST_MAIN("consumer_seek", T(any_offset_of_a_block_topics_history_can_be_sought),
          T(any_offset_of_a_spill_topics_history_can_be_sought),
          T(what_is_not_durable_yet_is_sought_in_all_of_the_ring),
          T(a_group_that_begins_in_the_middle_of_a_message_begins_behind_it),
          T(a_group_that_seeks_back_into_history_holds_nobody_up),
          T(purged_messages_do_not_come_back_from_the_journal), T(times_are_found_in_a_block_topic),
          T(times_are_found_in_a_spill_topic), T(times_are_found_in_a_ring_without_a_journal),
          T(times_are_found_in_a_drop_old_ring_without_a_journal))
