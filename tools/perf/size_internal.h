/* SPDX-License-Identifier: Apache-2.0 */
/* size_internal.h: what a measurement and its clients, in processes of their own, say to each other. */
#ifndef SHMQ_PERF_SIZE_INTERNAL_H
#define SHMQ_PERF_SIZE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#define SIZE_TOPICS     1000u
#define SIZE_PARTITIONS 200u
#define SIZE_RING_BYTES UINT64_C(65536)
#define SIZE_STEP_NS    UINT64_C(30000000000) /* the longest that a client may take for all it does */

/* In memory that the processes share. */
struct size_talk {
    char bus[32];
    char runtime_dir[256];
    uint32_t try;
    double value; /* what the client found */
    bool ready;   /* stored last, with release: the client is there, and stays */
};

/* Each is the body of a process; its argument is a struct size_talk. 0, or 1 after having said why. */
int size_client_connects(void *argument);
int size_client_creates_one(void *argument);    /* topic "one" */
int size_client_creates_topics(void *argument); /* value: nanoseconds for all of them */
/* A producer (even tries) or a consumer in a group that is new (odd ones) of topic "one"; value:
 * nanoseconds, connecting included. */
int size_client_opens(void *argument);
/* Makes SIZE_PARTITIONS topics of one partition each, the dearest way, opens a producer and a
 * consumer on each, and stays; value: bytes of private memory that it took. */
int size_client_holds(void *argument);
/* Stays, asleep in a poll of topic "topic-TRY". */
int size_client_sleeps(void *argument);

#endif
