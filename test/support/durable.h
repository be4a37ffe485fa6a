/* SPDX-License-Identifier: Apache-2.0 */
/*
 * durable.h: a durable topic in use, on a bus to which terrible things happen: producers that publish, confirm and
 * tell the oracle, consumers that read on through everything, and a reader that compares in the end.
 *
 * As traffic.h is for the hot path; here what counts is what is confirmed. Each producer and consumer is a process of
 * its own with a connection of its own, and may be killed at any time. What may happen to them: room that does not
 * come (SHMQ_EFULL, the attempt is entered as refused), confirms that do not come in time (asked for again), and
 * memory that was lost (SHMQ_ECLOSED; from confirm: what was outstanding stays unknown, and the next messages go on).
 * Any other error is a failure, and so is a call that takes longer than it was given. The test's process starts and
 * judges.
 */
#ifndef SHMQ_TEST_SUPPORT_DURABLE_H
#define SHMQ_TEST_SUPPORT_DURABLE_H

#include "test/support/fixture.h"
#include "test/support/oracle.h"

#define DURABLE_CONSUMERS 4u

struct durable;

struct durable_options {
    const char *topic; /* made by durable_new() */
    uint32_t durability;
    uint32_t overflow;
    uint32_t partitions;    /* 0: 2 */
    uint64_t ring_bytes;    /* 0: 64 KiB */
    uint64_t sync_interval; /* ms; 0: 20 */
    uint64_t retain_bytes;
    uint64_t messages; /* of the oracle */
    uint32_t largest;
    uint32_t burst;     /* messages between two pauses of a millisecond; 0: 8 */
    int32_t timeout_ms; /* of publish; 0: 300 */
};

/* A supervisor has to run. */
struct durable *durable_new(const struct durable_options *options);
void durable_free(struct durable *durable);
struct oracle *durable_oracle(const struct durable *durable);

/* Publishes `window` messages, then confirms the last one of each partition, and so on. Does not wait until it
 * has its handles: there may be no supervisor. A lane that was killed may be started again. */
void durable_start_producer(struct durable *durable, unsigned lane, uint32_t window);

#define DURABLE_READ_DURABLE 1u /* only what is durable; what it reads is witnessed */
#define DURABLE_SLOW         2u /* sleeps now and then, so that it falls behind the ring */
/* In a group of its own, named by the lane; its view demands what oracle_check() is told at the end. */
void durable_start_consumer(struct durable *durable, unsigned lane, unsigned kind);
/* Its group is there, and everything that is published from now on is for it as well. */
void durable_await_consumer(struct durable *durable, unsigned lane);

/* SIGKILL, to all of them, or the one. */
void durable_kill_all(struct durable *durable);
void durable_kill_producer(struct durable *durable, unsigned lane);
void durable_kill_consumer(struct durable *durable, unsigned lane);
pid_t durable_consumer_pid(const struct durable *durable, unsigned lane);

/* Every producer that runs confirms `count` more within the time. A failure names who does not. */
bool durable_progresses(struct durable *durable, uint64_t count, int timeout_ms);
/* No error so far. Failures are told once. */
bool durable_check(struct durable *durable);

struct durable_counts {
    uint64_t published, confirmed, refused, unknown, timeouts;
    uint64_t longest_ns; /* what a publish or confirm took beyond the time that it was given */
};
struct durable_counts durable_count(const struct durable *durable);

/* Producers end, and what they published is confirmed, if `settle` says so. */
void durable_stop_producers(struct durable *durable, bool settle);
/* Consumers read to the end, and are judged. */
void durable_stop_consumers(struct durable *durable, enum oracle_demand demand);

/* Reads the topic from the earliest message to its end, in a new group, which goes again. */
void durable_read(struct durable *durable, struct oracle_view *view);
/* durable_read() and oracle_check(); `what` for messages. */
bool durable_compare(struct durable *durable, enum oracle_demand demand, const char *what,
                     struct oracle_verdict *ret_verdict);
/* The same, and settles: the host has crashed. */
bool durable_compare_and_settle(struct durable *durable, enum oracle_demand demand,
                                const char *what);

/* journal_error of its partitions: the first that is not 0. Asks the supervisor. */
int durable_journal_error(struct durable *durable);

/* The sum of its partitions' durable offsets, on which every confirm goes by. Asks the supervisor. */
uint64_t durable_journal_end(struct durable *durable);

/* A connection with a channel, where a supervisor may just be coming up: connecting, unlike all later calls, does not wait
 * for one. */
struct fixture_client durable_connect(void);

#endif
