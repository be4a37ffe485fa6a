/* SPDX-License-Identifier: Apache-2.0 */
/* test_consumer.c: groups, commits, views, stand-by, ends. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "test/support/fixture.h"

/* ---- groups ---------------------------------------------------------------------------------- */

TEST(each_group_gets_everything)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();

    fixture_topic(&client, "t", NULL);
    shmq_consumer *a = fixture_consumer(&client, "t", "a");
    shmq_consumer *b = fixture_consumer(&client, "t", "b");
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    fixture_publish_range(producer, 0, 100);
    fixture_expect_range(a, 0, 100);
    fixture_expect_range(b, 0, 100);
    CHECK_EQ(fixture_poll_number(a, 0), UINT64_MAX);
    CHECK_EQ(fixture_poll_number(b, 0), UINT64_MAX);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(group_starts_where_it_is_told)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    struct shmq_message message = {.body = "12345678", .body_length = 8};

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    fixture_publish_range(producer, 0, 10);
    CHECK_OK(shmq_publish(producer, &message));
    fixture_publish_range(producer, 11, 20);

    options.group = "earliest";
    options.from = SHMQ_FROM_EARLIEST;
    fixture_expect_range(fixture_consumer_with(&client, "t", &options), 0, 10);
    options.group = "offset";
    options.from = SHMQ_FROM_OFFSET;
    options.from_offset = message.offset + 64;
    fixture_expect_range(fixture_consumer_with(&client, "t", &options), 11, 20);
    options.group = "latest";
    options.from = SHMQ_FROM_LATEST;
    shmq_consumer *latest = fixture_consumer_with(&client, "t", &options);

    CHECK_EQ(fixture_poll_number(latest, 0), UINT64_MAX);
    fixture_publish_range(producer, 20, 22);
    fixture_expect_range(latest, 20, 22);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(closed_group_goes_on_where_it_left_off)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    fixture_publish_range(producer, 0, 20);
    fixture_expect_range(consumer, 0, 10);
    shmq_consumer_close(consumer); /* commits what the last poll returned */
    consumer = fixture_consumer(&client, "t", NULL);
    fixture_expect_range(consumer, 10, 20);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(manual_commit_delivers_again_what_was_not_committed)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    struct shmq_position position;

    options.commit = SHMQ_COMMIT_MANUAL;
    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer_with(&client, "t", &options);

    fixture_publish_range(producer, 0, 20);
    fixture_expect_range(consumer, 0, 10);
    CHECK_OK(shmq_commit_offsets(consumer));
    fixture_expect_range(consumer, 10, 15);
    CHECK_OK(shmq_consumer_position(consumer, 0, &position));
    CHECK_EQ(position.position - position.committed, 5 * 64);
    CHECK_EQ(position.tail - position.position, 5 * 64);
    CHECK_EQ(position.owned, 1);
    shmq_consumer_close(consumer);
    consumer = fixture_consumer_with(&client, "t", &options);
    fixture_expect_range(consumer, 10, 20);
    CHECK_ERR(shmq_consumer_position(consumer, 1, &position), SHMQ_EINVAL);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(shared_mode_is_refused_in_words)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    shmq_consumer *consumer = NULL;

    fixture_topic(&client, "t", NULL);
    options.mode = SHMQ_MODE_SHARED;
    CHECK_ERR(shmq_consumer_open(client.channel, "t", &options, &consumer), SHMQ_ENOTSUP);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "stream");
    options.mode = SHMQ_MODE_STREAM;
    options.group = "no/slashes";
    CHECK_ERR(shmq_consumer_open(client.channel, "t", &options, &consumer), SHMQ_EINVAL);
    options.group = "g";
    CHECK_ERR(shmq_consumer_open(client.channel, "absent", &options, &consumer), SHMQ_ENOTOPIC);
    CHECK(consumer == NULL);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- views ----------------------------------------------------------------------------------- */

TEST(views_stay_until_the_next_poll)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_REJECT, 1);
    struct shmq_message got[300];

    fixture_topic(&client, "t", &options);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", -1);

    for (int lap = 0; lap < 5; lap++) {
        uint64_t sent = 0;

        while (fixture_publish_number(producer, sent) == 0)
            sent++;
        CHECK(sent > 0);
        CHECK_EQ(shmq_poll(consumer, got, 20, 1000), 20);
        int n = shmq_poll(consumer, got, 300, 1000);

        if (!CHECK(n == 300))
            break;
        uint64_t first = fixture_number(&got[0]);

        CHECK_OK(shmq_commit_offsets(consumer)); /* the cursor passes them, the hold does not */
        while (fixture_publish_number(producer, 999999) == 0)
            ;
        for (int i = 0; i < n; i++)
            CHECK_EQ(fixture_number(&got[i]), first + (uint64_t)i);
        /* The rest, and what the flood added before it was refused. */
        while (shmq_poll(consumer, got, 300, 0) > 0)
            ;
    }
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- standing by ----------------------------------------------------------------------------- */

static void consume_and_wait(void *arg)
{
    struct fixture_client client = fixture_connect();
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    fixture_expect_range(consumer, 0, 100);
    (void)test_barrier_wait(arg, 5000);
    for (;;)
        (void)pause();
}

TEST(standby_takes_over_at_the_owners_death)
{
    struct test_barrier *read = test_shared(sizeof(*read));
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_consumer_info info;

    fixture_topic(&client, "t", NULL);
    test_barrier_init(read, 2);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    fixture_publish_range(producer, 0, 200);
    pid_t pid = test_spawn(consume_and_wait, read);

    REQUIRE(test_barrier_wait(read, 5000));
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_EQ(fixture_poll_number(consumer, 100), UINT64_MAX);
    CHECK_OK(shmq_consumer_describe(consumer, &info));
    CHECK_EQ(info.owned, 0);
    CHECK_EQ(info.owner_pid, pid);
    test_kill(pid, SIGKILL);
    /* Nothing lost, order kept; what was not committed comes again, from a point at or before 100.
     */
    uint64_t first = fixture_poll_number(consumer, 3000);

    CHECK(first <= 100);
    fixture_expect_range(consumer, first + 1, 200);
    CHECK_OK(shmq_consumer_describe(consumer, &info));
    CHECK_EQ(info.owned, 1);
    CHECK_EQ(info.owner, shmq_connection_id(client.connection));
    CHECK_EQ(info.owner_pid, getpid());
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(standby_takes_over_when_the_owner_closes)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 3);

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *owner = fixture_consumer(&client, "t", NULL);
    shmq_consumer *standby = fixture_consumer(&client, "t", NULL);
    struct shmq_message got[64];

    fixture_publish_range(producer, 0, 30);
    CHECK_EQ(shmq_poll(standby, got, 64, 50), 0);
    CHECK_EQ(shmq_poll(owner, got, 64, 1000), 30);
    shmq_consumer_close(owner);
    fixture_publish_range(producer, 30, 60);
    uint32_t taken = 0;

    while (taken < 30) {
        int n = shmq_poll(standby, got, 64, 2000);

        if (!CHECK(n > 0))
            break;
        for (int i = 0; i < n; i++)
            CHECK(fixture_number(&got[i]) >= 30);
        taken += (uint32_t)n;
    }
    CHECK_EQ(taken, 30);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(fenced_owner_cannot_commit)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_message got[16];

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    /* A purge is a hand-over to oneself: it moves the cursor under the owner. */
    fixture_publish_range(producer, 0, 10);
    CHECK_EQ(shmq_poll(consumer, got, 4, 1000), 4);
    CHECK_OK(shmq_topic_purge(client.connection, "t"));
    for (uint64_t i = 0; i < 4; i++)
        CHECK_EQ(fixture_number(&got[i]), i); /* views are not recalled */
    CHECK_OK(shmq_commit_offsets(consumer));
    fixture_publish_range(producer, 10, 20);
    fixture_expect_range(consumer, 10, 20);
    /* The same when only polls follow. */
    fixture_publish_range(producer, 20, 30);
    CHECK_EQ(shmq_poll(consumer, got, 4, 1000), 4);
    CHECK_OK(shmq_topic_purge(client.connection, "t"));
    fixture_publish_range(producer, 30, 40);
    fixture_expect_range(consumer, 30, 40);
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void *delete_later(void *arg)
{
    struct fixture_client client = fixture_connect();

    (void)arg;
    test_sleep_ms(50);
    CHECK_OK(shmq_topic_delete(client.connection, "t"));
    fixture_close(&client);
    return NULL;
}

TEST(deleted_topic_ends_a_poll)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_message got;
    pthread_t thread;

    fixture_topic(&client, "t", NULL);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    REQUIRE(pthread_create(&thread, NULL, delete_later, NULL) == 0);
    uint64_t before_ns = test_now_ns();

    CHECK_ERR(shmq_poll(consumer, &got, 1, 20000), SHMQ_ENOTOPIC);
    CHECK(test_now_ns() - before_ns < 10000000000);
    CHECK_ERR(shmq_poll(consumer, &got, 1, 0), SHMQ_ENOTOPIC);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "deleted");
    REQUIRE(pthread_join(thread, NULL) == 0);
    fixture_close(&client);
    fixture_stop(supervisor);
}

struct sleeper {
    shmq_consumer *consumer;
    struct shmq_message message;
    int result;
};

static void *poll_once(void *argument)
{
    struct sleeper *sleeper = argument;

    sleeper->result = shmq_poll(sleeper->consumer, &sleeper->message, 1, test_scaled_ms(20000));
    return NULL;
}

/* Four rings of padding, which the poll sleeps through: there is nothing to return, and so, with manual
 * commit, nothing that the program could commit. */
static void sleep_through_padding(uint32_t commit)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct shmq_topic_options topic = fixture_small_topic(SHMQ_BLOCK, 1);
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    struct sleeper sleeper = {.result = -1};
    pthread_t thread;

    options.commit = commit;
    fixture_topic(&client, "t", &topic);
    sleeper.consumer = fixture_consumer_with(&other, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", test_scaled_ms(500));

    REQUIRE(pthread_create(&thread, NULL, poll_once, &sleeper) == 0);
    for (int i = 0; i < 32; i++) {
        struct shmq_claim claim;

        if (!CHECK_OK(shmq_claim(producer, NULL, 0, 8000, &claim)))
            break;
        CHECK_OK(shmq_abort(&claim));
    }
    fixture_publish_range(producer, 7, 8);
    REQUIRE(pthread_join(thread, NULL) == 0);
    if (CHECK_INT_EQ(sleeper.result, 1))
        CHECK_EQ(fixture_number(&sleeper.message), 7);
    fixture_close(&other);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(padding_holds_nobody_back)
{
    sleep_through_padding(SHMQ_COMMIT_AUTO);
    sleep_through_padding(SHMQ_COMMIT_MANUAL);
}

TEST(lingering_group_stops_holding_producers)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, 1);

    options.group_linger_ms = 300;
    fixture_topic(&client, "t", &options);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", test_scaled_ms(5000));

    shmq_consumer_close(consumer);
    fixture_publish_range(producer, 0, 3000); /* blocks for a while, then runs free */
    /* Back again: it gates, and is told what it lost. */
    struct shmq_message got[64];
    struct shmq_position position;

    consumer = fixture_consumer(&client, "t", NULL);
    int n = shmq_poll(consumer, got, 64, 1000);

    if (CHECK(n > 0)) {
        CHECK(got[0].flags & SHMQ_MESSAGE_AFTER_LOSS);
        CHECK_OK(shmq_consumer_position(consumer, 0, &position));
        CHECK_EQ(position.lost_bytes, fixture_number(&got[0]) * 64);
        fixture_expect_range(consumer, fixture_number(&got[n - 1]) + 1, 3000);
    }
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST_MAIN("consumer", T(each_group_gets_everything), T(group_starts_where_it_is_told),
          T(closed_group_goes_on_where_it_left_off),
          T(manual_commit_delivers_again_what_was_not_committed),
          T(shared_mode_is_refused_in_words), T(views_stay_until_the_next_poll),
          T(standby_takes_over_at_the_owners_death), T(standby_takes_over_when_the_owner_closes),
          T(fenced_owner_cannot_commit), T(deleted_topic_ends_a_poll), T(padding_holds_nobody_back),
          T(lingering_group_stops_holding_producers))
