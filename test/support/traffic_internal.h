/* SPDX-License-Identifier: Apache-2.0 */
/* traffic_internal.h: the ledger, between traffic.c (the judge) and traffic_lane.c (the processes). */
#ifndef SHMQ_TEST_SUPPORT_TRAFFIC_INTERNAL_H
#define SHMQ_TEST_SUPPORT_TRAFFIC_INTERNAL_H

#include "test/support/traffic.h"

#include <stdatomic.h>

#define TRAFFIC_WHY 300

enum { MESSAGE_NONE = 0, MESSAGE_ATTEMPTED = 1, MESSAGE_CONFIRMED = 2 };

struct traffic_lane {
    _Atomic uint64_t count; /* confirmed, or received */
    _Atomic uint32_t ready;
    _Atomic uint32_t leave; /* told to end */
    _Atomic int error;      /* the first one, negative; or 1: what came was wrong */
    char why[TRAFFIC_WHY];
    pid_t pid; /* 0: does not run; the judge's */
    bool told; /* its error was reported; the judge's */
    unsigned group;
};

struct traffic {
    struct traffic_options options;
    char topic[64];
    _Atomic uint32_t stop; /* producers end; then consumers, when they have all */
    struct traffic_lane producers[TRAFFIC_PRODUCERS];
    struct traffic_lane consumers[TRAFFIC_CONSUMERS];
    _Atomic uint64_t group_count[TRAFFIC_GROUPS]; /* received by the group, duplicates too */
    _Atomic uint64_t next[TRAFFIC_PRODUCERS];     /* first number that was never attempted */
    bool group_used[TRAFFIC_GROUPS];
    bool consumer_killed;
    _Atomic uint8_t *state[TRAFFIC_PRODUCERS];                /* MESSAGE_ of each number */
    _Atomic uint8_t *seen[TRAFFIC_GROUPS][TRAFFIC_PRODUCERS]; /* how often, up to 255 */
};

struct traffic_start {
    struct traffic *traffic;
    unsigned lane;
};
void traffic_run_producer(void *start);
void traffic_run_consumer(void *start);

#endif
