/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clients of size.c: each is the whole life of a process, forked for it, so that it pays for
 * its cold caches and page faults as a program does that has just begun. What they find goes back through shared
 * memory; whoever waits for them has a deadline, and kills those that stay.
 */
#include "tools/perf/size_internal.h"

#include <malloc.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "libshmq/shmq.h"
#include "tools/perf/facts.h"

#define TIMEOUT_MS 5000

static int connect_here(const struct size_talk *talk, shmq_connection **ret_connection,
                        shmq_channel **ret_channel)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    int rc;

    options.bus = talk->bus;
    options.runtime_dir = talk->runtime_dir;
    options.timeout_ms = TIMEOUT_MS;
    rc = shmq_connect(&options, ret_connection);
    if (rc == 0)
        rc = shmq_channel_open(*ret_connection, ret_channel);
    return rc;
}

static int create_topic(shmq_connection *connection, const char *name)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;

    options.ring_bytes = SIZE_RING_BYTES;
    return shmq_topic_create(connection, name, &options);
}

/* What a client's process is told; 0 or not is all that its parent asks. */
static int say(const char *what)
{
    (void)fprintf(stderr, "shmq-perf: %s: %s\n", what, shmq_errmsg(NULL));
    return 1;
}

int size_client_connects(void *argument)
{
    shmq_connection *connection = NULL;
    shmq_channel *channel = NULL;

    if (connect_here(argument, &connection, &channel) < 0)
        return say("connect");
    shmq_close(connection);
    return 0;
}

int size_client_creates_topics(void *argument)
{
    struct size_talk *talk = argument;
    shmq_connection *connection = NULL;
    shmq_channel *channel = NULL;
    uint64_t start_ns;

    if (connect_here(talk, &connection, &channel) < 0)
        return say("connect");
    start_ns = clock_monotonic_ns();
    for (uint32_t i = 0; i < SIZE_TOPICS; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "topic-%u", i);
        if (create_topic(connection, name) < 0)
            return say(name);
    }
    talk->value = (double)(clock_monotonic_ns() - start_ns);
    shmq_close(connection);
    return 0;
}

int size_client_creates_one(void *argument)
{
    shmq_connection *connection = NULL;
    shmq_channel *channel = NULL;

    if (connect_here(argument, &connection, &channel) < 0)
        return say("connect");
    if (create_topic(connection, "one") < 0)
        return say("topic one");
    shmq_close(connection);
    return 0;
}

/* A new group each time: it is made and written down before the reply. */
int size_client_opens(void *argument)
{
    struct size_talk *talk = argument;
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    char group[32];
    uint64_t start_ns = clock_monotonic_ns();
    shmq_connection *connection = NULL;
    shmq_channel *channel = NULL;
    shmq_producer *producer = NULL;
    shmq_consumer *consumer = NULL;
    int rc = connect_here(talk, &connection, &channel);

    if (rc < 0)
        return say("connect");
    (void)snprintf(group, sizeof(group), "group-%u", talk->try);
    options.group = group;
    if (talk->try % 2 == 0)
        rc = shmq_producer_open(channel, "one", NULL, &producer);
    else
        rc = shmq_consumer_open(channel, "one", &options, &consumer);
    if (rc < 0)
        return say("open");
    talk->value = (double)(clock_monotonic_ns() - start_ns);
    shmq_close(connection);
    return 0;
}

static int open_one_of_many(shmq_connection *connection, shmq_channel *channel, uint32_t index)
{
    char name[32];
    shmq_producer *producer = NULL;
    shmq_consumer *consumer = NULL;

    (void)snprintf(name, sizeof(name), "many-%u", index);
    if (create_topic(connection, name) < 0 ||
        shmq_producer_open(channel, name, NULL, &producer) < 0 ||
        shmq_consumer_open(channel, name, NULL, &consumer) < 0)
        return say(name);
    return 0;
}

int size_client_holds(void *argument)
{
    struct size_talk *talk = argument;
    const struct timespec long_time = {.tv_sec = SIZE_STEP_NS / NS_PER_S};
    struct perf_process before, behind;
    shmq_connection *connection = NULL;
    shmq_channel *channel = NULL;

    /* Else what this program has freed would be used again, unseen. */
    (void)malloc_trim(0);
    if (connect_here(talk, &connection, &channel) < 0)
        return say("connect");
    if (!perf_read_process(getpid(), &before))
        return 1;
    for (uint32_t i = 0; i < SIZE_PARTITIONS; i++) {
        if (open_one_of_many(connection, channel, i) != 0)
            return 1;
    }
    if (!perf_read_process(getpid(), &behind))
        return 1;
    talk->value = (double)(behind.private_bytes - before.private_bytes);
    __atomic_store_n(&talk->ready, true, __ATOMIC_RELEASE);
    (void)nanosleep(&long_time, NULL);
    return 0;
}

int size_client_sleeps(void *argument)
{
    struct size_talk *talk = argument;
    struct shmq_message message;
    char name[32];
    shmq_connection *connection = NULL;
    shmq_channel *channel = NULL;
    shmq_consumer *consumer = NULL;

    (void)snprintf(name, sizeof(name), "topic-%u", talk->try);
    if (connect_here(talk, &connection, &channel) < 0 || create_topic(connection, name) < 0 ||
        shmq_consumer_open(channel, name, NULL, &consumer) < 0)
        return say("sleeper");
    __atomic_store_n(&talk->ready, true, __ATOMIC_RELEASE);
    (void)shmq_poll(consumer, &message, 1, (int)(SIZE_STEP_NS / NS_PER_MS));
    return 0;
}
