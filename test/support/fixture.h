/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fixture.h: a bus for a test: an embedded supervisor, or one in a child process that can be
 * killed; and the few client calls that every test makes.
 *
 * All of it on the test's own bus (SHMQ_BUS and directories in the environment). Functions that
 * cannot do what they say end the test. The thread of the test only.
 */
#ifndef SHMQ_TEST_SUPPORT_FIXTURE_H
#define SHMQ_TEST_SUPPORT_FIXTURE_H

#include "daemon/shmqd.h"
#include "libshmq/shmq.h"
#include "test/support/test.h"

/* In this process; ephemeral. Its log goes to stderr. */
shmq_supervisor *fixture_start(void);
void fixture_stop(shmq_supervisor *supervisor);

/* In a child process, persistent, so that a kill leaves the bus to the next one. It is up on
 * return. */
pid_t fixture_spawn(void);
/* SIGTERM, waited for. */
void fixture_end(pid_t supervisor);

/* The smallest ring there is: 1024 records of 64 bytes. */
#define FIXTURE_SMALL_RING 65536u
struct shmq_topic_options fixture_small_topic(uint32_t overflow, uint32_t partitions);

/* A connection with a channel. */
struct fixture_client {
    shmq_connection *connection;
    shmq_channel *channel;
};
struct fixture_client fixture_connect(void);
void fixture_close(struct fixture_client *client);

/* A topic; zero fields of `options` are defaults. */
void fixture_topic(struct fixture_client *client, const char *topic,
                   const struct shmq_topic_options *options);

shmq_producer *fixture_producer(struct fixture_client *client, const char *topic, int timeout_ms);
/* `group` NULL: the default group. From the earliest message. */
shmq_consumer *fixture_consumer(struct fixture_client *client, const char *topic,
                                const char *group);

shmq_consumer *fixture_consumer_with(struct fixture_client *client, const char *topic,
                                     const struct shmq_consumer_options *options);

/* Publishes a body of 8 bytes, the number. Returns what shmq_publish() does. */
int fixture_publish_number(shmq_producer *producer, uint64_t number);
/* Polls until a message comes or the time is over; its number, or UINT64_MAX. */
uint64_t fixture_poll_number(shmq_consumer *consumer, int timeout_ms);
/* The numbers [from, to), one by one; both stop at the first surprise. */
void fixture_publish_range(shmq_producer *producer, uint64_t from, uint64_t to);
void fixture_expect_range(shmq_consumer *consumer, uint64_t from, uint64_t to);
/* The number in a message's body. */
uint64_t fixture_number(const struct shmq_message *message);

#endif
