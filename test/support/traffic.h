/* SPDX-License-Identifier: Apache-2.0 */
/*
 * traffic.h: processes that publish to a topic and poll it all the time, and a ledger of what they did, in shared
 * memory: whatever is killed meanwhile, at the end nothing that was confirmed is missing, nothing came that nobody
 * sent, in order per partition, whole.
 *
 * The test's process starts and judges; each producer and consumer is a process of its own, with a connection of its
 * own, that makes no control call between its start and its end. All errors of publish and poll are failures,
 * recorded in the ledger and told by traffic_check(). A lane whose process was killed may be started again.
 */
#ifndef SHMQ_TEST_SUPPORT_TRAFFIC_H
#define SHMQ_TEST_SUPPORT_TRAFFIC_H

#include "test/support/test.h"

#define TRAFFIC_PRODUCERS  4
#define TRAFFIC_GROUPS     2
#define TRAFFIC_CONSUMERS  4 /* of all groups together */
#define TRAFFIC_PARTITIONS 8

struct traffic;

struct traffic_options {
    const char *topic; /* made already */
    uint64_t messages; /* of each producer, at most; 0: 2^18 */
    uint32_t largest;  /* bytes of a body; 0: 400 */
    uint32_t burst;    /* messages between two pauses of a millisecond; 0: 8 */
    uint32_t batch;    /* 1: by shmq_publish_batch() now and then, and claim and commit */
};

struct traffic *traffic_new(const struct traffic_options *options);
void traffic_free(struct traffic *traffic);

/* Lane 0 … TRAFFIC_PRODUCERS - 1, TRAFFIC_CONSUMERS - 1. Returns when it has its handles. */
void traffic_start_producer(struct traffic *traffic, unsigned lane);
void traffic_start_consumer(struct traffic *traffic, unsigned lane, unsigned group);
/* As these, but do not wait: where there may be no supervisor. */
void traffic_launch_producer(struct traffic *traffic, unsigned lane);
void traffic_launch_consumer(struct traffic *traffic, unsigned lane, unsigned group);
/* SIGKILL, at whatever it is doing. Returns false if the lane was not running. */
bool traffic_kill_producer(struct traffic *traffic, unsigned lane);
bool traffic_kill_consumer(struct traffic *traffic, unsigned lane);
/* The process ends by itself, closing what it has. */
void traffic_leave_consumer(struct traffic *traffic, unsigned lane);

pid_t traffic_producer_pid(const struct traffic *traffic, unsigned lane);
pid_t traffic_consumer_pid(const struct traffic *traffic, unsigned lane);

/* Within `timeout_ms` every producer that runs publishes `count` more, and every group with a consumer receives
 * `count` more. A failure names who does not. */
bool traffic_progresses(struct traffic *traffic, uint64_t count, int timeout_ms);

/* No error so far. Failures are told once. */
bool traffic_check(struct traffic *traffic);

/* Producers end, consumers read to the end and end too, and the ledger is judged. Every group that ever had a
 * consumer needs one that runs now. Duplicates are allowed where a consumer was killed. */
void traffic_finish(struct traffic *traffic);

struct traffic_counts {
    uint64_t confirmed, unconfirmed, received, duplicates;
};
struct traffic_counts traffic_count(const struct traffic *traffic);

#endif
