/* SPDX-License-Identifier: Apache-2.0 */
/* test_consumer_history.c: consumers of durable topics that read what the ring does not have any more. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "libshmq/consumer.h"
#include "libshmq/producer.h"
#include "test/support/history.h"

/* The ring has 1024 records of 64 bytes, the first journal file 16,320. */
#define MANY UINT64_C(20000)

static struct shmq_topic_options durable_topic(uint32_t overflow, uint32_t durability)
{
    struct shmq_topic_options options = history_topic(overflow);

    options.durability = durability;
    return options;
}

static shmq_consumer *open_with(struct history_bench *bench, struct shmq_consumer_options options)
{
    return fixture_consumer_with(&bench->client, "t", &options);
}

static bool is_behind(const shmq_consumer *consumer)
{
    return consumer->partitions[0].behind;
}

static uint64_t lost(shmq_consumer *consumer)
{
    return history_position(consumer).lost_bytes;
}

/* The numbers [from, to), in polls of many, with nothing lost; stops at the first surprise. */
static void expect_many(shmq_consumer *consumer, uint64_t from, uint64_t to)
{
    static struct shmq_message got[700];
    uint64_t next = from;

    while (next < to) {
        uint32_t most = (uint32_t)(to - next < 700 ? to - next : 700);
        int n = shmq_poll(consumer, got, most, test_scaled_ms(5000));

        if (!CHECK(n > 0)) {
            FAIL("poll at %llu: %d: %s", (unsigned long long)next, n, shmq_errmsg(NULL));
            return;
        }
        for (int i = 0; i < n; i++) {
            if (!CHECK_EQ(fixture_number(&got[i]), next) ||
                !CHECK((got[i].flags & SHMQ_MESSAGE_AFTER_LOSS) == 0))
                return;
            next++;
        }
    }
}

/* ---- from the beginning ---------------------------------------------------------------------- */

static void check_from_the_beginning(uint32_t overflow, uint32_t durability)
{
    struct shmq_topic_options options = durable_topic(overflow, durability);
    struct history_bench bench = history_begin(&options);

    fixture_publish_range(bench.producer, 0, MANY); /* nobody reads: nobody waits */
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    expect_many(consumer, 0, 1);
    CHECK(is_behind(consumer));
    expect_many(consumer, 1, MANY);
    CHECK(!is_behind(consumer));
    CHECK(consumer->partitions[0].history == NULL);
    CHECK((consumer->sole != NULL) == (overflow == SHMQ_BLOCK));
    for (uint64_t i = MANY; i < MANY + 3000; i += 100) { /* live */
        fixture_publish_range(bench.producer, i, i + 100);
        expect_many(consumer, i, i + 100);
    }
    CHECK(!is_behind(consumer));
    CHECK_EQ(lost(consumer), 0);
    history_end(&bench);
}

TEST(a_new_group_reads_all_of_a_block_topic)
{
    check_from_the_beginning(SHMQ_BLOCK, SHMQ_DURABLE_OS);
}

TEST(a_new_group_reads_all_of_a_spill_topic)
{
    check_from_the_beginning(SHMQ_SPILL, SHMQ_DURABLE_OS);
}

TEST(a_new_group_reads_all_of_a_drop_old_topic)
{
    check_from_the_beginning(SHMQ_DROP_OLD, SHMQ_DURABLE_INTERVAL);
}

/* Each partition goes its own way into the ring. */
TEST(partitions_are_read_in_order_wherever_each_of_them_is)
{
    struct shmq_topic_options options = durable_topic(SHMQ_BLOCK, SHMQ_DURABLE_OS);
    struct shmq_message got[100];
    uint64_t next[4] = {0, 1, 2, 3};
    uint64_t seen = 0;

    options.partitions = 4;
    struct history_bench bench = history_begin(&options);

    for (uint64_t i = 0; i < 4 * 6000; i++) {
        struct shmq_message message = {.body = &i,
                                       .body_length = 8,
                                       .flags = SHMQ_MESSAGE_PARTITION,
                                       .partition = (uint32_t)(i % 4)};

        if (message.partition != 3 || i < 4 * 100) /* one of them has all in its ring */
            CHECK_OK(shmq_publish(bench.producer, &message));
    }
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    while (seen < 3 * 6000 + 100 && test_failures() == 0) {
        int n = shmq_poll(consumer, got, 100, test_scaled_ms(3000));

        CHECK(n > 0);
        for (int i = 0; i < n; i++, seen++) {
            CHECK_EQ(fixture_number(&got[i]), next[got[i].partition]);
            next[got[i].partition] += 4;
        }
    }
    for (uint32_t i = 0; i < 4; i++)
        CHECK(!consumer->partitions[i].behind);
    history_end(&bench);
}

/* ---- falling behind -------------------------------------------------------------------------- */

TEST(a_slow_reader_of_a_spill_topic_loses_nothing_and_holds_nobody_up)
{
    struct shmq_topic_options options = durable_topic(SHMQ_SPILL, SHMQ_DURABLE_OS);
    struct history_bench bench = history_begin(&options);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);
    uint64_t sent = 0, seen = 0;

    for (int round = 0; round < 12; round++) {
        fixture_publish_range(bench.producer, sent, sent + 700 * (uint64_t)round);
        sent += 700 * (uint64_t)round;
        expect_many(consumer, seen,
                    seen + (sent - seen) / 2); /* lapped, in the middle of what it reads */
        seen += (sent - seen) / 2;
    }
    expect_many(consumer, seen, sent);
    CHECK_EQ(lost(consumer), 0);
    fixture_publish_range(bench.producer, sent, sent + 10);
    expect_many(consumer, sent, sent + 10);
    CHECK(!is_behind(consumer));
    history_end(&bench);
}

struct flood {
    uint64_t count;
    _Atomic bool failed;
};

static void *flood_topic(void *context)
{
    struct flood *flood = context;
    struct fixture_client client = fixture_connect();
    shmq_producer *producer = fixture_producer(&client, "t", 10000);

    for (uint64_t i = 0; i < flood->count; i++) {
        if (fixture_publish_number(producer, i) != 0)
            flood->failed = true;
        if (i % 4096 == 0)
            test_sleep_ms(1);
    }
    fixture_close(&client);
    return NULL;
}

/* In and out of the ring again and again, at full speed: in order, once each. */
static void check_under_load(uint32_t overflow)
{
    struct shmq_topic_options options = durable_topic(overflow, SHMQ_DURABLE_OS);
    struct history_bench bench = history_begin(&options);
    struct flood flood = {.count = TEST_SANITIZED ? 50000 : 200000};
    struct test_random random;
    pthread_t thread;
    uint64_t next = 0;

    test_random_init(&random, test_seed());
    fixture_publish_range(bench.producer, 0, 0);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    REQUIRE(pthread_create(&thread, NULL, flood_topic, &flood) == 0);
    while (next < flood.count) {
        uint64_t some = 1 + test_random_below(&random, 2000);

        expect_many(consumer, next, next + some < flood.count ? next + some : flood.count);
        next += some;
        if (test_failures() > 0)
            break;
        if (test_random_below(&random, 16) == 0)
            test_sleep_ms(2);
    }
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK(!flood.failed);
    CHECK_EQ(lost(consumer), 0);
    history_end(&bench);
}

TEST(a_spill_topic_under_load)
{
    check_under_load(SHMQ_SPILL);
}

TEST(a_block_topic_under_load)
{
    check_under_load(SHMQ_BLOCK);
}

/* Joins far behind producers that do not stop: it catches up, and then holds them back. */
TEST(a_block_topic_is_joined_while_producers_run)
{
    struct shmq_topic_options options = durable_topic(SHMQ_BLOCK, SHMQ_DURABLE_OS);
    struct history_bench bench = history_begin(&options);
    struct flood flood = {.count = TEST_SANITIZED ? 50000 : 300000};
    struct test_random random;
    pthread_t thread;
    uint64_t next = 0;
    bool joined = false;

    test_random_init(&random, test_seed());
    REQUIRE(pthread_create(&thread, NULL, flood_topic, &flood) == 0);
    test_sleep_ms(20);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    while (next < flood.count && test_failures() == 0) {
        uint64_t some = 1 + test_random_below(&random, 1000);

        expect_many(consumer, next, next + some < flood.count ? next + some : flood.count);
        next += some;
        joined |= !is_behind(consumer);
        CHECK(!joined || !is_behind(consumer)); /* once it holds producers back it is not lapped */
    }
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX); /* at the latest now */
    CHECK(!is_behind(consumer));
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK(!flood.failed);
    CHECK_EQ(lost(consumer), 0);
    history_end(&bench);
}

TEST(who_skips_in_the_ring_of_a_drop_old_topic_finds_it_in_the_journal)
{
    struct shmq_topic_options options = durable_topic(SHMQ_DROP_OLD, SHMQ_DURABLE_OS);
    struct history_bench bench = history_begin(&options);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    fixture_publish_range(bench.producer, 0, 10);
    expect_many(consumer, 0, 10);
    fixture_publish_range(bench.producer, 10, 5000);
    uint64_t number = fixture_poll_number(consumer, 1000);

    CHECK(number > 10);
    CHECK_EQ(lost(consumer), (number - 10) * 64);
    CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_EARLIEST));
    expect_many(consumer, 0, 5000);
    CHECK_EQ(lost(consumer), (number - 10) * 64);
    history_end(&bench);
}

/* ---- holding producers back ------------------------------------------------------------------ */

TEST(a_group_that_has_caught_up_holds_producers_back_again)
{
    struct shmq_topic_options options = durable_topic(SHMQ_REJECT, SHMQ_DURABLE_OS);
    struct shmq_consumer_options manual = SHMQ_CONSUMER_OPTIONS_INIT;
    struct history_bench bench = history_begin(&options);
    uint64_t sent = 5000;

    for (uint64_t i = 0; i < sent; i++) { /* reject: the journal may be a moment behind */
        while (fixture_publish_number(bench.producer, i) == SHMQ_EFULL)
            test_sleep_ms(1);
    }
    manual.commit = SHMQ_COMMIT_MANUAL;
    shmq_consumer *consumer = open_with(&bench, manual);

    expect_many(consumer, 0, sent);
    CHECK(!is_behind(consumer));
    CHECK(!cursor_gates(consumer->partitions[0].cursor_word)); /* it stands at the beginning */
    CHECK_OK(shmq_commit_offsets(consumer));
    CHECK(cursor_gates(consumer->partitions[0].cursor_word));
    history_await_durable(&bench);
    uint64_t from = sent;

    while (fixture_publish_number(bench.producer, sent) == 0) {
        sent++;
        if (sent % 100 == 0)
            history_await_durable(&bench); /* it is not the journal that is waited for */
    }
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "group 'default'");
    CHECK(sent - from <= 1024 && sent - from > 800);
    expect_many(consumer, from, sent);
    CHECK_OK(shmq_commit_offsets(consumer));
    CHECK_OK(fixture_publish_number(bench.producer, sent));
    history_end(&bench);
}

/* Its hold protects what it reads before its cursor does: views stay as they are. */
TEST(views_in_the_ring_stay_put_before_the_first_commit)
{
    struct shmq_topic_options options = durable_topic(SHMQ_BLOCK, SHMQ_DURABLE_OS);
    struct shmq_consumer_options manual = SHMQ_CONSUMER_OPTIONS_INIT;
    struct history_bench bench = history_begin(&options);
    struct shmq_message got[64];

    fixture_publish_range(bench.producer, 0, 5000);
    manual.commit = SHMQ_COMMIT_MANUAL;
    shmq_consumer *consumer = open_with(&bench, manual);

    expect_many(consumer, 0, 4900);
    CHECK(!is_behind(consumer));
    CHECK_EQ(shmq_poll(consumer, got, 64, 1000), 64);
    shmq_producer_close(bench.producer);
    bench.producer = fixture_producer(&bench.client, "t", 50);
    uint64_t sent = 5000;

    while (fixture_publish_number(bench.producer, sent) == 0)
        sent++;
    CHECK_CONTAINS(shmq_errmsg(bench.client.connection), "still looks at a message");
    for (uint64_t i = 0; i < 64; i++)
        CHECK_EQ(fixture_number(&got[i]), 4900 + i);
    expect_many(consumer, 4964, sent);
    history_end(&bench);
}

/* ---- coming back ----------------------------------------------------------------------------- */

TEST(a_group_that_was_away_for_long_loses_nothing)
{
    static const uint32_t policies[] = {SHMQ_BLOCK, SHMQ_SPILL, SHMQ_DROP_OLD};

    for (uint32_t i = 0; i < COUNT_OF(policies); i++) {
        struct shmq_topic_options options = durable_topic(policies[i], SHMQ_DURABLE_OS);

        options.group_linger_ms = 1;
        struct history_bench bench = history_begin(&options);
        shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

        test_context("policy %u ", policies[i]);
        fixture_publish_range(bench.producer, 0, 500);
        expect_many(consumer, 0, 300);
        shmq_consumer_close(consumer);
        fixture_publish_range(bench.producer, 500, 9000);
        consumer = fixture_consumer(&bench.client, "t", NULL);
        expect_many(consumer, 300, 9000);
        CHECK_EQ(lost(consumer), 0);
        history_end(&bench);
    }
    test_context(NULL);
}

static void read_and_die(void *context)
{
    uint64_t *committed = context;
    struct fixture_client client = fixture_connect();
    struct shmq_consumer_options manual = SHMQ_CONSUMER_OPTIONS_INIT;

    manual.commit = SHMQ_COMMIT_MANUAL;
    shmq_consumer *consumer = fixture_consumer_with(&client, "t", &manual);

    expect_many(consumer, 0, 3000);
    CHECK_OK(shmq_commit_offsets(consumer));
    expect_many(consumer, 3000, 3500);
    *committed = 3000;
    test_sleep_ms(600000);
}

static bool has_committed(void *context)
{
    return *(volatile uint64_t *)context != 0;
}

TEST(a_successor_goes_on_in_the_journal_where_the_dead_has_committed)
{
    struct shmq_topic_options options = durable_topic(SHMQ_BLOCK, SHMQ_DURABLE_OS);
    struct history_bench bench = history_begin(&options);
    uint64_t *committed = test_shared(sizeof(*committed));

    fixture_publish_range(bench.producer, 0, 6000);
    pid_t victim = test_spawn(read_and_die, committed);

    CHECK(test_eventually(has_committed, committed, 10000));
    test_kill(victim, SIGKILL);
    (void)test_wait_exit(victim, 5000);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);

    expect_many(consumer, 3000, 6000);
    CHECK_EQ(lost(consumer), 0);
    history_end(&bench);
}

/* ---- waiting --------------------------------------------------------------------------------- */

TEST(the_descriptor_tells_of_history_and_of_what_comes_behind_it)
{
    struct shmq_topic_options options = durable_topic(SHMQ_SPILL, SHMQ_DURABLE_OS);
    struct history_bench bench = history_begin(&options);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    uint64_t next = 0;

    fixture_publish_range(bench.producer, 0, 4000);
    shmq_consumer *consumer = fixture_consumer(&bench.client, "t", NULL);
    int fd = shmq_consumer_fd(consumer);

    REQUIRE(epoll_fd >= 0 && fd >= 0);
    REQUIRE(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0);
    for (uint64_t sent = 4000; sent <= 9000; sent += 1000) {
        while (next < sent && CHECK_EQ(epoll_wait(epoll_fd, &event, 1, test_scaled_ms(5000)), 1)) {
            struct shmq_message got[100];
            int n;

            while ((n = shmq_poll(consumer, got, 100, 0)) > 0) {
                for (int i = 0; i < n; i++)
                    CHECK_EQ(fixture_number(&got[i]), next++);
            }
            CHECK_INT_EQ(n, 0);
        }
        CHECK_EQ(next, sent);
        CHECK_EQ(epoll_wait(epoll_fd, &event, 1, 30), 0); /* and is quiet then */
        if (sent < 9000)
            fixture_publish_range(bench.producer, sent, sent + 1000);
    }
    close(epoll_fd);
    history_end(&bench);
}

/* ---- only what is durable -------------------------------------------------------------------- */

static void check_durable_only(uint32_t overflow)
{
    struct shmq_topic_options options = durable_topic(overflow, SHMQ_DURABLE_INTERVAL);
    struct shmq_consumer_options careful = SHMQ_CONSUMER_OPTIONS_INIT;
    struct shmq_message got[100];
    uint64_t next = 0;

    options.sync_interval_ms = 200;
    struct history_bench bench = history_begin(&options);
    const struct ring *ring = bench.producer->partitions[0].ring.ring;

    fixture_publish_range(bench.producer, 0, 3000); /* part of it is history */
    careful.group = "careful";
    careful.read = SHMQ_READ_DURABLE;
    shmq_consumer *consumer = open_with(&bench, careful);
    shmq_consumer *other = fixture_consumer(&bench.client, "t", NULL);

    for (int round = 0; round < 20; round++) {
        uint64_t sent = 3000 + (uint64_t)round * 10;

        fixture_publish_range(bench.producer, sent, sent + 10);
        for (int i = 0; i < 20 && next < sent + 10; i++) {
            int n = shmq_poll(consumer, got, 100, round % 5 == 4 ? 1000 : 0);

            for (int k = 0; k < n; k++) {
                CHECK_EQ(fixture_number(&got[k]), next++);
                CHECK(got[k].offset + 64 <= atomic_load(&ring->state->durable));
            }
        }
    }
    CHECK(!is_behind(consumer));
    CHECK(consumer->sole == NULL);
    expect_many(consumer, next, 3200);
    expect_many(other, 0, 3200);
    /* Whoever reads anything has it at once; who waits for the disk is woken by it. */
    CHECK_OK(fixture_publish_number(bench.producer, 3200));
    CHECK_EQ(fixture_poll_number(other, 100), 3200);
    CHECK_EQ(shmq_poll(consumer, got, 1, 0), 0);
    uint64_t before_ns = test_now_ns();

    CHECK_EQ(fixture_poll_number(consumer, 3000), 3200);
    if (!TEST_SANITIZED)
        CHECK(test_now_ns() - before_ns < UINT64_C(800000000));
    history_end(&bench);
}

TEST(only_what_is_durable_is_read_of_a_block_topic)
{
    check_durable_only(SHMQ_BLOCK);
}

TEST(only_what_is_durable_is_read_of_a_spill_topic)
{
    check_durable_only(SHMQ_SPILL);
}

TEST(without_a_journal_everything_is_durable_enough)
{
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);
    struct shmq_consumer_options careful = SHMQ_CONSUMER_OPTIONS_INIT;
    struct history_bench bench = history_begin(&options);

    careful.read = SHMQ_READ_DURABLE;
    shmq_consumer *consumer = open_with(&bench, careful);

    fixture_publish_range(bench.producer, 0, 10);
    expect_many(consumer, 0, 10);
    CHECK(consumer->sole != NULL);
    careful.read = 2;
    CHECK_ERR(shmq_consumer_open(bench.client.channel, "t", &careful, &consumer), SHMQ_EINVAL);
    history_end(&bench);
}

TEST_MAIN("consumer_history", T(a_new_group_reads_all_of_a_block_topic),
          T(a_new_group_reads_all_of_a_spill_topic), T(a_new_group_reads_all_of_a_drop_old_topic),
          T(partitions_are_read_in_order_wherever_each_of_them_is),
          T(a_slow_reader_of_a_spill_topic_loses_nothing_and_holds_nobody_up),
          T(a_spill_topic_under_load), T(a_block_topic_under_load),
          T(a_block_topic_is_joined_while_producers_run),
          T(who_skips_in_the_ring_of_a_drop_old_topic_finds_it_in_the_journal),
          T(a_group_that_has_caught_up_holds_producers_back_again),
          T(views_in_the_ring_stay_put_before_the_first_commit),
          T(a_group_that_was_away_for_long_loses_nothing),
          T(a_successor_goes_on_in_the_journal_where_the_dead_has_committed),
          T(the_descriptor_tells_of_history_and_of_what_comes_behind_it),
          T(only_what_is_durable_is_read_of_a_block_topic),
          T(only_what_is_durable_is_read_of_a_spill_topic),
          T(without_a_journal_everything_is_durable_enough))
