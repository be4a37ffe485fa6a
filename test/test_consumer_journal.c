/* SPDX-License-Identifier: Apache-2.0 */
/* test_consumer_journal.c: what a journal may hold, and what it may not any more: records of all kinds, files that are
 * retained no longer, damage, memory that was lost, and nobody there to ask for a file. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "libshmq/consumer.h"
#include "libshmq/fault.h"
#include "test/support/history.h"

/* ---- records of all kinds -------------------------------------------------------------------- */

TEST(long_messages_and_aborted_claims_are_read_from_the_journal)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct test_random random;
    struct shmq_claim claim;

    options.ring_bytes = 8u << 20;
    struct history_bench bench = history_begin(&options);

    test_random_init(&random, test_seed());
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t most = i % 10 == 0 ? 1000000 : i % 3 == 0 ? 100000 : 500;

        (void)history_publish(bench.producer, i, 8 + (uint32_t)test_random_below(&random, most));
        if (i % 7 == 0) {
            REQUIRE_OK(shmq_claim(bench.producer, NULL, 0, 300000, &claim));
            CHECK_OK(shmq_abort(&claim));
        }
    }
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    CHECK_EQ(history_poll(consumer, NULL), 0);
    CHECK(consumer->partitions[0].behind);
    for (uint64_t i = 1; i < 200; i++)
        CHECK_EQ(history_poll(consumer, NULL), i);
    CHECK_EQ(history_position(consumer).lost_bytes, 0);
    history_end(&bench);
}

TEST(keys_headers_and_times_come_back_as_they_were)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct history_bench bench = history_begin(&options);
    char headers[200];
    size_t length = 0;
    struct shmq_message message = {
        .body = "body", .body_length = 4, .key = "key", .key_length = 3, .headers = headers};
    struct shmq_message got[3];

    REQUIRE_OK(shmq_headers_add(headers, sizeof(headers), &length, "name", "value", 5));
    message.headers_length = (uint16_t)length;
    CHECK_OK(shmq_publish(bench.producer, &message));
    fixture_publish_range(bench.producer, 0, 5000);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    CHECK_EQ(shmq_poll(consumer, got, 3, 1000), 3);
    CHECK(consumer->partitions[0].behind);
    CHECK_EQ(got[0].key_length, 3);
    CHECK(memcmp(got[0].key, "key", 3) == 0);
    CHECK_EQ(got[0].headers_length, length);
    CHECK(memcmp(got[0].headers, headers, length) == 0);
    CHECK_EQ(got[0].body_length, 4);
    CHECK(memcmp(got[0].body, "body", 4) == 0);
    CHECK_EQ(got[0].offset, message.offset);
    CHECK_EQ(got[0].timestamp_ns, message.timestamp_ns);
    CHECK_EQ(fixture_number(&got[2]), 1);
    history_end(&bench);
}

/* ---- gaps ------------------------------------------------------------------------------------ */

TEST(damage_costs_the_damaged_record_and_is_told)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct history_bench bench = history_begin(&options);
    static uint64_t offsets[20000];
    uint64_t lost = 0;
    uint32_t flags;

    for (uint64_t i = 0; i < 20000; i++)
        offsets[i] = history_publish(bench.producer, i, 8 + (uint32_t)(i % 150));
    history_await_durable(&bench);
    for (uint64_t i = 1000; i < 16000; i += 1000)
        history_flip_byte(offsets[i], i % 2000 == 0 ? 3 : 36); /* its stamp, or its body */
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    for (uint64_t i = 0; i < 20000 && test_failures() == 0; i++) {
        bool damaged = i % 1000 == 0 && i >= 1000 && i < 16000;

        if (damaged) {
            lost += offsets[i + 1] - offsets[i];
            continue;
        }
        CHECK_EQ(history_poll(consumer, &flags), i);
        CHECK_EQ(flags & SHMQ_MESSAGE_AFTER_LOSS,
                 i % 1000 == 1 && i > 1000 && i < 16000 ? SHMQ_MESSAGE_AFTER_LOSS : 0);
    }
    CHECK_EQ(history_position(consumer).lost_bytes, lost);
    /* A seek that lands on one goes on behind it; nothing was lost by that. */
    CHECK_OK(shmq_seek(consumer, 0, offsets[5000]));
    CHECK_EQ(history_poll(consumer, &flags), 5001);
    CHECK_EQ(flags & SHMQ_MESSAGE_AFTER_LOSS, 0);
    CHECK_EQ(history_position(consumer).lost_bytes, lost);
    history_end(&bench);
}

TEST(a_file_whose_header_is_damaged_costs_its_records)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct history_bench bench = history_begin(&options);
    uint64_t offsets[3000];
    uint32_t flags;

    for (uint64_t i = 0; i < 3000; i++)
        offsets[i] = history_publish(bench.producer, i, 2000);
    history_await_durable(&bench);
    history_find_file(offsets[2000]);
    uint64_t base = history_file.base;

    REQUIRE(base > offsets[10] && base < offsets[2000]);
    history_flip_byte(base, (uint64_t)0 - JOURNAL_HEADER_BYTES + 40);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);
    uint64_t next = 0;

    for (;;) {
        uint64_t number = history_poll(consumer, &flags);

        if (number != next || test_failures() > 0) {
            CHECK(number > next);
            CHECK_EQ(offsets[next], base);
            CHECK(flags & SHMQ_MESSAGE_AFTER_LOSS);
            CHECK_EQ(history_position(consumer).lost_bytes, offsets[number] - base);
            next = number + 1;
            break;
        }
        next++;
    }
    for (; next < 3000; next++)
        CHECK_EQ(history_poll(consumer, NULL), next);
    history_end(&bench);
}

/* Nothing behind it holds, nor is there another file: what the ring still has is read there. */
static void check_damage_up_to_the_end(uint32_t overflow, bool whole_file)
{
    static unsigned char zeros[64 * 1500];
    struct shmq_topic_options options = history_topic(overflow);
    struct history_bench bench = history_begin(&options);
    uint64_t offsets[4000];
    uint64_t damaged = whole_file ? 0 : 2500;
    uint32_t flags;

    for (uint64_t i = 0; i < 4000; i++)
        offsets[i] = history_publish(bench.producer, i, 8);
    history_await_durable(&bench);
    history_find_file(offsets[damaged]);
    if (whole_file) {
        history_flip_byte(history_file.base, (uint64_t)0 - JOURNAL_HEADER_BYTES + 40);
    } else {
        int fd = open(history_file.path, O_RDWR | O_CLOEXEC);

        REQUIRE(pwrite(fd, zeros, sizeof(zeros),
                       (off_t)(JOURNAL_HEADER_BYTES + offsets[damaged] - history_file.base)) ==
                (ssize_t)sizeof(zeros));
        close(fd);
    }
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    for (uint64_t i = 0; i < damaged; i++)
        CHECK_EQ(history_poll(consumer, NULL), i);
    uint64_t number = history_poll(consumer, &flags);

    /* Of 1024 records in the ring some are about to be overwritten, or may be. */
    CHECK(number >= 4000 - 1024 && number <= 4000 - 768);
    CHECK(flags & SHMQ_MESSAGE_AFTER_LOSS);
    CHECK_EQ(history_position(consumer).lost_bytes, offsets[number] - offsets[damaged]);
    for (uint64_t i = number + 1; i < 4000; i++)
        CHECK_EQ(history_poll(consumer, NULL), i);
    CHECK(!consumer->partitions[0].behind);
    (void)history_publish(bench.producer, 4000, 8);
    CHECK_EQ(history_poll(consumer, NULL), 4000);
    history_end(&bench);
}

TEST(what_is_damaged_up_to_the_end_is_read_in_the_ring)
{
    check_damage_up_to_the_end(SHMQ_SPILL, false);
    check_damage_up_to_the_end(SHMQ_BLOCK, false);
    check_damage_up_to_the_end(SHMQ_DROP_OLD, false);
}

TEST(what_is_damaged_and_still_in_the_ring_is_not_lost)
{
    static const uint32_t policies[] = {SHMQ_SPILL, SHMQ_BLOCK, SHMQ_DROP_OLD};

    for (uint32_t k = 0; k < COUNT_OF(policies); k++) {
        struct shmq_topic_options options = history_topic(policies[k]);
        struct history_bench bench = history_begin(&options);
        uint64_t offsets[3000];

        test_context("policy %u ", policies[k]);
        for (uint64_t i = 0; i < 3000; i++)
            offsets[i] = history_publish(bench.producer, i, 8);
        history_await_durable(&bench);
        history_flip_byte(offsets[2300], 3);
        shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

        for (uint64_t i = 0; i < 3000; i++)
            CHECK_EQ(history_poll(consumer, NULL), i);
        CHECK_EQ(history_position(consumer).lost_bytes, 0);
        history_end(&bench);
    }
    test_context(NULL);
}

TEST(a_journal_without_a_header_leaves_the_ring)
{
    check_damage_up_to_the_end(SHMQ_SPILL, true);
    check_damage_up_to_the_end(SHMQ_BLOCK, true);
}

static bool is_retained_away(void *context)
{
    uint64_t *offset = context;

    history_find_file(*offset);
    return history_file.count > 0 && history_file.path[0] == '\0';
}

TEST(what_is_retained_no_longer_is_counted_to_the_byte)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    uint32_t flags;

    options.retain_bytes = 3u << 20;
    struct history_bench bench = history_begin(&options);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    for (uint64_t i = 0; i < 10; i++)
        (void)history_publish(bench.producer, i, 2000);
    for (uint64_t i = 0; i < 5; i++)
        CHECK_EQ(history_poll(consumer, NULL), i);
    uint64_t position = history_position(consumer).position;

    for (uint64_t i = 10; i < 8000; i++)
        (void)history_publish(bench.producer, i, 2000);
    CHECK(test_eventually(is_retained_away, &position, 10000));
    uint64_t next = 5, lost = 0;

    while (next < 8000 && test_failures() == 0) { /* more of it may go while we read */
        uint64_t number = history_poll(consumer, &flags);

        CHECK(number >= next && number < 8000);
        CHECK_EQ((flags & SHMQ_MESSAGE_AFTER_LOSS) != 0, number > next);
        lost += (number - next) * 2048;
        next = number + 1;
    }
    CHECK(lost > 0);
    CHECK_EQ(history_position(consumer).lost_bytes, lost);
    /* Who comes anew, or seeks to the beginning, has lost nothing. */
    CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_EARLIEST));
    CHECK_EQ(history_position(consumer).lost_bytes, lost);
    shmq_consumer *other = fixture_consumer(&bench.client, "t", "other");
    uint64_t first = history_poll(other, &flags);

    CHECK_EQ(flags & SHMQ_MESSAGE_AFTER_LOSS, 0);
    CHECK_EQ(history_poll(consumer, &flags), first);
    CHECK_EQ(flags & SHMQ_MESSAGE_AFTER_LOSS, 0);
    CHECK_EQ(history_position(other).lost_bytes, 0);
    history_end(&bench);
}

/* ---- nobody to ask --------------------------------------------------------------------------- */

TEST(without_a_supervisor_history_waits_for_the_next_one)
{
    struct shmq_topic_options options = history_topic(SHMQ_BLOCK);
    struct history_bench bench = history_begin(&options);
    struct shmq_message got[100];
    uint64_t next = 0;

    fixture_publish_range(bench.producer, 0, 40000); /* several files */
    history_await_durable(&bench);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    CHECK_EQ(fixture_poll_number(consumer, 1000), next++);
    test_kill(bench.daemon, SIGKILL);
    (void)test_wait_exit(bench.daemon, 5000);
    for (;;) { /* to the end of the file that is open */
        int n = shmq_poll(consumer, got, 100, 0);

        if (!CHECK(n >= 0) || n == 0)
            break;
        for (int i = 0; i < n; i++)
            CHECK_EQ(fixture_number(&got[i]), next++);
    }
    CHECK(next > 10000 && next < 20000);
    uint64_t position = history_position(consumer).position;
    uint64_t before_ns = test_now_ns();

    CHECK_EQ(shmq_poll(consumer, got, 100, 300), 0);
    CHECK(test_now_ns() - before_ns >= 290000000);
    bench.client.connection->timeout_ms = 200;
    CHECK_ERR(shmq_seek_time(consumer, 0, 1), SHMQ_ENOBUS);
    CHECK_EQ(history_position(consumer).position, position); /* nothing was moved */
    bench.client.connection->timeout_ms = 10000;
    bench.daemon = fixture_spawn();
    fixture_expect_range(consumer, next, 40000);
    CHECK_EQ(history_position(consumer).lost_bytes, 0);
    history_end(&bench);
}

static uint64_t cpu_ns(void)
{
    return clock_read_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* Neither a poll nor an epoll loop burns the processor meanwhile. */
TEST(waiting_for_a_supervisor_costs_next_to_nothing)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct history_bench bench = history_begin(&options);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    struct shmq_message got;
    unsigned wakes = 0;

    fixture_publish_range(bench.producer, 0, 5000);
    history_await_durable(&bench);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    REQUIRE(epoll_fd >= 0 &&
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, shmq_consumer_fd(consumer), &event) == 0);
    test_kill(bench.daemon, SIGKILL);
    (void)test_wait_exit(bench.daemon, 5000);
    uint64_t before_ns = cpu_ns();

    CHECK_EQ(shmq_poll(consumer, &got, 1, 500), 0);
    CHECK(consumer->partitions[0].behind);
    for (uint64_t until_ns = test_now_ns() + 500000000; test_now_ns() < until_ns; wakes++) {
        if (epoll_wait(epoll_fd, &event, 1, 100) == 1)
            CHECK_EQ(shmq_poll(consumer, &got, 1, 0), 0);
    }
    CHECK(wakes < 60);
    if (!TEST_SANITIZED)
        CHECK(cpu_ns() - before_ns < 200000000);
    bench.daemon = fixture_spawn();
    CHECK_EQ(epoll_wait(epoll_fd, &event, 1, test_scaled_ms(3000)), 1);
    fixture_expect_range(consumer, 0, 5000);
    close(epoll_fd);
    history_end(&bench);
}

static void close_in_child(void *context)
{
    shmq_consumer *consumer = context;
    struct shmq_message got;

    CHECK_ERR(shmq_poll(consumer, &got, 1, 0), SHMQ_EFORK);
    shmq_consumer_close(consumer);
}

TEST(a_forked_child_leaves_the_file_to_its_parent)
{
    struct shmq_topic_options options = history_topic(SHMQ_BLOCK);
    struct history_bench bench = history_begin(&options);

    fixture_publish_range(bench.producer, 0, 5000);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    fixture_expect_range(consumer, 0, 100);
    CHECK(consumer->partitions[0].history != NULL);
    CHECK_INT_EQ(test_wait_exit(test_spawn(close_in_child, consumer), 10000), 0);
    fixture_expect_range(consumer, 100, 5000);
    history_end(&bench);
}

/* An offset is taken as it is until somebody answers. */
TEST(a_seek_without_a_supervisor_is_completed_by_the_next_one)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct history_bench bench = history_begin(&options);
    uint64_t offset = 0;

    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t at = history_publish(bench.producer, i, 200);

        offset = i == 10000 ? at + 64 : offset;
    }
    history_await_durable(&bench);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    CHECK_EQ(history_poll(consumer, NULL), 0); /* of a file in which the place sought is not */
    test_kill(bench.daemon, SIGKILL);
    (void)test_wait_exit(bench.daemon, 5000);
    CHECK_OK(shmq_seek(consumer, 0, offset));
    CHECK_EQ(fixture_poll_number(consumer, 50), UINT64_MAX);
    CHECK_EQ(history_position(consumer).position, offset);
    bench.daemon = fixture_spawn();
    for (uint64_t i = 10001; i < 20000 && test_failures() == 0; i++)
        CHECK_EQ(history_poll(consumer, NULL), i);
    CHECK_EQ(history_position(consumer).lost_bytes, 0);
    history_end(&bench);
}

TEST(a_disk_that_cannot_be_read_is_told_and_forgiven)
{
    struct shmq_topic_options options = history_topic(SHMQ_SPILL);
    struct history_bench bench = history_begin(&options);
    struct shmq_message got;
    int rc = 0;

    fixture_publish_range(bench.producer, 0, 5000);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    REQUIRE_OK(fault_arm("journal.file.read+", "error", NULL));
    CHECK_ERR(shmq_poll(consumer, &got, 1, 60000), SHMQ_EIO);
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "t/0");
    for (int i = 0; i < 1000 && rc == 0; i++) { /* and to who never waits */
        rc = shmq_poll(consumer, &got, 1, 0);
        test_sleep_ms(10);
    }
    CHECK_INT_EQ(rc, SHMQ_EIO);
    fault_disarm();
    fixture_expect_range(consumer, 0, 5000);
    history_end(&bench);
}

/* ---- the memory is lost ---------------------------------------------------------------------- */

static void crash_the_host(struct history_bench *bench)
{
    fixture_close(&bench->client);
    test_kill(bench->daemon, SIGKILL);
    (void)test_wait_exit(bench->daemon, 5000);
    (void)test_remove_leftovers();
    bench->daemon = fixture_spawn();
    bench->client = fixture_connect();
    bench->producer = fixture_producer(&bench->client, "t", 5000);
}

static void check_host_crash(uint32_t overflow)
{
    struct shmq_topic_options options = history_topic(overflow);
    struct history_bench bench = history_begin(&options);
    uint64_t sent = 3000;

    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    for (uint64_t i = 0; i < sent; i += 100) {
        fixture_publish_range(bench.producer, i, i + 100);
        fixture_expect_range(consumer, i, i + 100);
    }
    for (int crash = 0; crash < 3; crash++) {
        test_context("crash %d ", crash);
        history_await_durable(&bench);
        crash_the_host(&bench);
        if (crash % 2 == 0) { /* or nothing is published before it is read */
            fixture_publish_range(bench.producer, sent, sent + 2000);
            sent += 2000;
        }
        shmq_consumer *other = fixture_consumer(&bench.client, "t", "other");

        fixture_expect_range(other, 0, sent);
        CHECK_EQ(history_position(other).lost_bytes, 0);
        /* The group that was there goes on where it is known to have been, or before. */
        consumer = fixture_consumer(&bench.client, "t", NULL);
        uint64_t number = fixture_poll_number(consumer, 1000);

        if (number != UINT64_MAX)
            fixture_expect_range(consumer, number + 1, sent);
        CHECK_EQ(history_position(consumer).lost_bytes, 0);
        fixture_publish_range(bench.producer, sent, sent + 10);
        fixture_expect_range(consumer, sent, sent + 10);
        fixture_expect_range(other, sent, sent + 10);
        sent += 10;
        CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_EARLIEST));
        fixture_expect_range(consumer, 0, sent);
        CHECK_EQ(history_position(consumer).lost_bytes, 0);
        shmq_consumer_close(other);
        CHECK_OK(shmq_group_delete(bench.client.connection, "t", "other"));
    }
    test_context(NULL);
    history_end(&bench);
}

TEST(after_a_host_crash_a_block_topic_goes_on_behind_its_journal)
{
    check_host_crash(SHMQ_BLOCK);
}

TEST(after_a_host_crash_a_spill_topic_goes_on_behind_its_journal)
{
    check_host_crash(SHMQ_SPILL);
}

TEST_MAIN("consumer_journal",

          T(long_messages_and_aborted_claims_are_read_from_the_journal),
          T(keys_headers_and_times_come_back_as_they_were),
          T(damage_costs_the_damaged_record_and_is_told),
          T(a_file_whose_header_is_damaged_costs_its_records),
          T(what_is_damaged_up_to_the_end_is_read_in_the_ring),
          T(what_is_damaged_and_still_in_the_ring_is_not_lost),
          T(a_journal_without_a_header_leaves_the_ring),
          T(what_is_retained_no_longer_is_counted_to_the_byte),
          T(without_a_supervisor_history_waits_for_the_next_one),
          T(waiting_for_a_supervisor_costs_next_to_nothing),
          T(a_forked_child_leaves_the_file_to_its_parent),
          T(a_seek_without_a_supervisor_is_completed_by_the_next_one),
          T(a_disk_that_cannot_be_read_is_told_and_forgiven),
          T(after_a_host_crash_a_block_topic_goes_on_behind_its_journal),
          T(after_a_host_crash_a_spill_topic_goes_on_behind_its_journal))
