/* SPDX-License-Identifier: Apache-2.0 */
/* durable_internal.h: between durable.c (the judge) and durable_lane.c (the processes). */
#ifndef SHMQ_TEST_SUPPORT_DURABLE_INTERNAL_H
#define SHMQ_TEST_SUPPORT_DURABLE_INTERNAL_H

#include "test/support/durable.h"

#include <stdatomic.h>

#define DURABLE_WINDOW_MOST 512u
#define DURABLE_BATCH_MOST  8u
#define DURABLE_CONFIRM_MS  300

struct durable_lane {
    _Atomic uint32_t ready;
    _Atomic int error; /* the first one, negative; or 1: what came was wrong */
    char why[300];
    pid_t pid; /* 0: does not run; the judge's */
    bool told; /* the judge's */
    uint32_t window;
    unsigned kind;
    _Atomic uint64_t refused, unknown, timeouts, longest_ns;
    struct oracle_view *view; /* of a consumer */
};

struct durable {
    struct durable_options options;
    char topic[64];
    struct oracle *oracle;
    _Atomic uint32_t
        stop; /* 1 producers end as they are, 2 once they have confirmed what they published */
    _Atomic uint32_t finish; /* consumers end at the end of the log */
    struct durable_lane producers[ORACLE_LANES];
    struct durable_lane consumers[DURABLE_CONSUMERS];
};

struct durable_start {
    struct durable *durable;
    unsigned lane;
};
void durable_run_producer(void *start);
void durable_run_consumer(void *start);

/* All partitions are read up to where the log ended at the time of the call. */
bool durable_is_at_end(shmq_consumer *consumer, uint32_t partitions);

#endif
