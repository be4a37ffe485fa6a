/* SPDX-License-Identifier: Apache-2.0 */
/* test_consumer_wait.c: a poll that finds nothing; the descriptor for epoll. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

#include "libshmq/consumer.h"
#include "libshmq/wait.h"
#include "test/support/fixture.h"

/* ---- waiting --------------------------------------------------------------------------------- */

struct late_publisher {
    shmq_producer *producer;
    unsigned delay_ms;
};

static void *publish_late(void *arg)
{
    struct late_publisher *late = arg;

    test_sleep_ms(late->delay_ms);
    CHECK_OK(fixture_publish_number(late->producer, 77));
    return NULL;
}

TEST(every_wait_mode_wakes)
{
    static const uint32_t modes[] = {SHMQ_WAIT_HYBRID, SHMQ_WAIT_SPIN, SHMQ_WAIT_BLOCK};
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();

    for (uint32_t i = 0; i < 3; i++) {
        struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
        struct late_publisher late = {.delay_ms = 50};
        pthread_t thread;
        char name[8];

        (void)snprintf(name, sizeof(name), "t%u", i);
        fixture_topic(&client, name, NULL);
        options.wait = modes[i];
        shmq_consumer *consumer = fixture_consumer_with(&client, name, &options);

        late.producer = fixture_producer(&other, name, 1000);
        REQUIRE(pthread_create(&thread, NULL, publish_late, &late) == 0);
        uint64_t before_ns = test_now_ns();

        CHECK_EQ(fixture_poll_number(consumer, 10000), 77);
        CHECK(test_now_ns() - before_ns < 5000000000);
        REQUIRE(pthread_join(thread, NULL) == 0);
        /* And comes back in time when nothing happens. */
        before_ns = test_now_ns();
        struct shmq_message got;

        CHECK_EQ(shmq_poll(consumer, &got, 1, 120), 0);
        uint64_t waited_ns = test_now_ns() - before_ns;

        CHECK(waited_ns >= 119000000 && waited_ns < 5000000000);
    }
    fixture_close(&other);
    fixture_close(&client);
    fixture_stop(supervisor);
}

static void check_many_partitions(uint32_t partitions)
{
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, partitions);
    struct late_publisher late = {.delay_ms = 20};
    pthread_t thread;

    fixture_topic(&client, "t", &options);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    late.producer = fixture_producer(&other, "t", 1000);
    for (int i = 0; i < 5; i++) {
        struct shmq_message message = {
            .body = "12345678", .body_length = 8, .flags = SHMQ_MESSAGE_PARTITION};
        struct shmq_message got;

        REQUIRE(pthread_create(&thread, NULL, publish_late, &late) == 0);
        CHECK_EQ(fixture_poll_number(consumer, 10000), 77);
        REQUIRE(pthread_join(thread, NULL) == 0);
        message.partition = partitions - 1;
        CHECK_OK(shmq_publish(late.producer, &message));
        if (CHECK_EQ(shmq_poll(consumer, &got, 1, 1000), 1))
            CHECK_EQ(got.partition, partitions - 1);
    }
    fixture_close(&other);
    fixture_close(&client);
}

TEST(more_partitions_than_one_sleep_takes)
{
    shmq_supervisor *supervisor = fixture_start();

    check_many_partitions(140);
    fixture_stop(supervisor);
}

TEST(kernel_without_waitv)
{
    shmq_supervisor *supervisor = fixture_start();

    wait_force_single_word(true);
    check_many_partitions(4);
    wait_force_single_word(false);
    fixture_stop(supervisor);
}

static void on_alarm(int signal)
{
    (void)signal;
}

TEST(signal_ends_a_poll)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval timer = {.it_value = {.tv_usec = 100000}};
    struct shmq_message got;

    fixture_topic(&client, "t", NULL);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    REQUIRE(sigaction(SIGALRM, &action, NULL) == 0);
    REQUIRE(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    uint64_t before_ns = test_now_ns();

    /* The supervisor's threads block no signal of the program's: it may take a few rounds. */
    CHECK_EQ(shmq_poll(consumer, &got, 1, 15000), 0);
    CHECK(test_now_ns() - before_ns < 14000000000);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(fair_to_all_partitions)
{
    enum { PARTITIONS = 4, EACH = 200 };
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_BLOCK, PARTITIONS);
    struct shmq_consumer_options prefetch = SHMQ_CONSUMER_OPTIONS_INIT;
    uint32_t seen[PARTITIONS] = {0};
    struct shmq_message got[20];

    prefetch.prefetch = 5;
    fixture_topic(&client, "t", &options);
    shmq_consumer *consumer = fixture_consumer_with(&client, "t", &prefetch);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    fixture_publish_range(producer, 0, (uint64_t)PARTITIONS * EACH);
    for (uint32_t round = 1; round <= EACH / 5; round++) {
        CHECK_EQ(shmq_poll(consumer, got, 20, 1000), 20);
        for (int i = 0; i < 20; i++)
            seen[got[i].partition]++;
        for (int i = 0; i < PARTITIONS; i++)
            CHECK_EQ(seen[i], round * 5);
    }
    /* Also when polls take one message. */
    fixture_publish_range(producer, 0, PARTITIONS);
    for (uint32_t i = 0; i < PARTITIONS; i++) {
        CHECK_EQ(shmq_poll(consumer, got, 1, 1000), 1);
        seen[got[0].partition]++;
    }
    for (int i = 0; i < PARTITIONS; i++)
        CHECK_EQ(seen[i], EACH + 1);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- streams --------------------------------------------------------------------------------- */

struct answerer {
    shmq_consumer *questions;
    shmq_producer *answers;
    uint32_t count;
    uint32_t bytes;
};

static void *answer(void *arg)
{
    static const char body[1024];
    struct answerer *a = arg;
    struct shmq_message got;

    for (uint32_t i = 0; i < a->count; i++) {
        struct shmq_message message = {.body = body, .body_length = a->bytes};

        if (!CHECK_EQ(shmq_poll(a->questions, &got, 1, 10000), 1) ||
            !CHECK_OK(shmq_publish(a->answers, &message)))
            break;
    }
    return NULL;
}

/* Who waits for an answer of a kilobyte takes it for no stream, whatever it thought before: it would let each
 * answer lie for microseconds from then on. */
TEST(no_answer_is_taken_for_a_stream)
{
    enum { ROUNDS = 5000, BEFORE = STREAM_STREAK + 1 };
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct shmq_message got;
    pthread_t thread;
    uint32_t streams = 0;

    fixture_topic(&client, "q", NULL);
    fixture_topic(&client, "a", NULL);
    shmq_producer *questions = fixture_producer(&client, "q", 1000);
    shmq_consumer *answers = fixture_consumer(&client, "a", NULL);
    struct answerer answerer = {
        .questions = fixture_consumer(&other, "q", NULL),
        .answers = fixture_producer(&other, "a", 1000),
        .count = ROUNDS,
        .bytes = 1024,
    };

    (void)shmq_poll(answers, &got, 1, 0);
    REQUIRE(pthread_create(&thread, NULL, answer, &answerer) == 0);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (!CHECK_OK(fixture_publish_number(questions, i)))
            break;
        answers->streak = BEFORE;
        answers->run = 0;
        if (!CHECK_EQ(shmq_poll(answers, &got, 1, 10000), 1))
            break;
        streams += answers->streak > BEFORE;
    }
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_EQ(streams, 0);
    fixture_close(&other);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- the descriptor -------------------------------------------------------------------------- */

TEST(descriptor_tells_epoll_of_messages)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    fixture_topic(&client, "t", NULL);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    int fd = shmq_consumer_fd(consumer);
    uint64_t next = 0;

    REQUIRE(fd >= 0);
    CHECK_INT_EQ(shmq_consumer_fd(consumer), fd);
    REQUIRE(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0);
    shmq_producer *producer = fixture_producer(&other, "t", 1000);

    while (fixture_poll_number(consumer, 0) != UINT64_MAX)
        ;
    for (int round = 0; round < 50; round++) {
        fixture_publish_range(producer, next, next + 3);
        if (!CHECK_INT_EQ(epoll_wait(epoll_fd, &event, 1, 5000), 1))
            break;
        for (;;) {
            uint64_t number = fixture_poll_number(consumer, 0);

            if (number == UINT64_MAX)
                break;
            CHECK_EQ(number, next++);
        }
    }
    CHECK_EQ(next, 150);
    CHECK_INT_EQ(epoll_wait(epoll_fd, &event, 1, 50), 0); /* nothing: not readable */
    (void)close(epoll_fd);
    fixture_close(&other);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(descriptor_tells_standby_of_its_turn)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *owner = fixture_consumer(&client, "t", NULL);
    shmq_consumer *standby = fixture_consumer(&client, "t", NULL);

    fixture_publish_range(producer, 0, 1);
    event.events = EPOLLIN;
    REQUIRE(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, shmq_consumer_fd(standby), &event) == 0);
    while (fixture_poll_number(standby, 0) != UINT64_MAX)
        ;
    shmq_consumer_close(owner);
    uint64_t number = UINT64_MAX;

    for (int i = 0; i < 20 && number == UINT64_MAX; i++) {
        CHECK_INT_EQ(epoll_wait(epoll_fd, &event, 1, 5000), 1);
        number = fixture_poll_number(standby, 0);
    }
    CHECK_EQ(number, 0);
    (void)close(epoll_fd);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST_MAIN("consumer_wait", T(every_wait_mode_wakes), T(more_partitions_than_one_sleep_takes),
          T(kernel_without_waitv), T(signal_ends_a_poll), T(fair_to_all_partitions),
          T(no_answer_is_taken_for_a_stream), T(descriptor_tells_epoll_of_messages),
          T(descriptor_tells_standby_of_its_turn))
