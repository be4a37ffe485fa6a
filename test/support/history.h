/* SPDX-License-Identifier: Apache-2.0 */
/*
 * history.h: a durable topic "t" on a bus of its own, for tests of what is read back of it: a supervisor that can be killed, one
 * producer, and the journal's files. What cannot be done ends the test. The thread of the test only.
 */
#ifndef SHMQ_TEST_SUPPORT_HISTORY_H
#define SHMQ_TEST_SUPPORT_HISTORY_H

#include "test/support/fixture.h"

struct history_bench {
    pid_t daemon;
    struct fixture_client client;
    shmq_producer *producer;
};

/* The ring has 1024 records of 64 bytes; durability os. */
struct shmq_topic_options history_topic(uint32_t overflow);

struct history_bench history_begin(const struct shmq_topic_options *options);
void history_end(struct history_bench *bench);

/* A body of `bytes`, at least 8, that begins with the number. Returns where it stands. */
uint64_t history_publish(shmq_producer *producer, uint64_t number, uint32_t bytes);

/* The number of the next message, which must be whole; UINT64_MAX: there is none. `ret_flags` may be NULL. */
uint64_t history_poll(shmq_consumer *consumer, uint32_t *ret_flags);

/* In partition 0. */
struct shmq_position history_position(shmq_consumer *consumer);

/* All that was published is in the journal. */
void history_await_durable(struct history_bench *bench);

/* The journal file in which `offset` lies: the one with the highest base up to it; the path is "" if there is none. */
extern struct history_file {
    uint64_t offset;
    char path[600];
    uint64_t base;
    unsigned count; /* of all files */
} history_file;
void history_find_file(uint64_t offset);

/* Changes one bit, `ahead` bytes behind where the record at `offset` begins. */
void history_flip_byte(uint64_t offset, uint64_t ahead);

#endif
