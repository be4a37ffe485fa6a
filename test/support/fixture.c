/* SPDX-License-Identifier: Apache-2.0 */
/* fixture.c: see fixture.h. */
#include "test/support/fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static shmq_supervisor *start(uint32_t persistent)
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor = NULL;
    char why[512] = "";

    options.persistent = persistent;
    int rc = shmq_supervisor_start(&options, &supervisor, why, sizeof(why));

    if (rc != 0) {
        FAIL("supervisor: %d: %s", rc, why);
        test_abort();
    }
    return supervisor;
}

shmq_supervisor *fixture_start(void)
{
    return start(0);
}

void fixture_stop(shmq_supervisor *supervisor)
{
    shmq_supervisor_stop(supervisor);
}

static volatile sig_atomic_t told_to_stop;

static void on_term(int signal)
{
    (void)signal;
    told_to_stop = 1;
}

static void run_supervisor(void *arg)
{
    int ready_fd = *(int *)arg;
    sigset_t term, before;

    (void)signal(SIGTERM, on_term);
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &term, &before);
    shmq_supervisor *supervisor = start(1);

    (void)!write(ready_fd, "r", 1);
    (void)close(ready_fd);
    while (!told_to_stop)
        (void)sigsuspend(&before);
    shmq_supervisor_stop(supervisor);
}

pid_t fixture_spawn(void)
{
    int ready[2];
    char answer;

    REQUIRE(pipe(ready) == 0);
    pid_t pid = test_spawn(run_supervisor, &ready[1]);

    (void)close(ready[1]);
    REQUIRE(read(ready[0], &answer, 1) == 1);
    (void)close(ready[0]);
    return pid;
}

void fixture_end(pid_t supervisor)
{
    test_kill(supervisor, SIGTERM);
    CHECK_INT_EQ(test_wait_exit(supervisor, 10000), 0);
}

struct fixture_client fixture_connect(void)
{
    struct fixture_client client = {NULL, NULL};
    int rc = shmq_connect(NULL, &client.connection);

    if (rc != 0) {
        FAIL("connect: %d: %s", rc, shmq_errmsg(NULL));
        test_abort();
    }
    REQUIRE_OK(shmq_channel_open(client.connection, &client.channel));
    return client;
}

void fixture_close(struct fixture_client *client)
{
    shmq_close(client->connection);
    client->connection = NULL;
    client->channel = NULL;
}

void fixture_topic(struct fixture_client *client, const char *topic,
                   const struct shmq_topic_options *options)
{
    int rc = shmq_topic_create(client->connection, topic, options);

    if (rc != 0) {
        FAIL("topic %s: %d: %s", topic, rc, shmq_errmsg(client->connection));
        test_abort();
    }
}

shmq_producer *fixture_producer(struct fixture_client *client, const char *topic, int timeout_ms)
{
    struct shmq_producer_options options = SHMQ_PRODUCER_OPTIONS_INIT;
    shmq_producer *producer = NULL;

    options.timeout_ms = timeout_ms;
    int rc = shmq_producer_open(client->channel, topic, &options, &producer);

    if (rc != 0) {
        FAIL("producer of %s: %d: %s", topic, rc, shmq_errmsg(client->connection));
        test_abort();
    }
    return producer;
}

shmq_consumer *fixture_consumer_with(struct fixture_client *client, const char *topic,
                                     const struct shmq_consumer_options *options)
{
    shmq_consumer *consumer = NULL;
    int rc = shmq_consumer_open(client->channel, topic, options, &consumer);

    if (rc != 0) {
        FAIL("consumer of %s: %d: %s", topic, rc, shmq_errmsg(client->connection));
        test_abort();
    }
    return consumer;
}

shmq_consumer *fixture_consumer(struct fixture_client *client, const char *topic, const char *group)
{
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;

    options.group = group;
    return fixture_consumer_with(client, topic, &options);
}

struct shmq_topic_options fixture_small_topic(uint32_t overflow, uint32_t partitions)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;

    options.ring_bytes = FIXTURE_SMALL_RING;
    options.overflow = overflow;
    options.partitions = partitions;
    return options;
}

void fixture_publish_range(shmq_producer *producer, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        if (!CHECK_OK(fixture_publish_number(producer, i)))
            break;
    }
}

void fixture_expect_range(shmq_consumer *consumer, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        if (!CHECK_EQ(fixture_poll_number(consumer, 3000), i))
            break;
    }
}

int fixture_publish_number(shmq_producer *producer, uint64_t number)
{
    struct shmq_message message = {.body = &number, .body_length = sizeof(number)};

    return shmq_publish(producer, &message);
}

uint64_t fixture_number(const struct shmq_message *message)
{
    uint64_t number = UINT64_MAX;

    if (CHECK_EQ(message->body_length, sizeof(number)))
        memcpy(&number, message->body, sizeof(number));
    return number;
}

uint64_t fixture_poll_number(shmq_consumer *consumer, int timeout_ms)
{
    struct shmq_message message;
    int rc = shmq_poll(consumer, &message, 1, test_scaled_ms(timeout_ms));

    if (rc < 0)
        FAIL("poll: %d: %s", rc, shmq_errmsg(NULL));
    return rc == 1 ? fixture_number(&message) : UINT64_MAX;
}
