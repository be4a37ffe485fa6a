/* SPDX-License-Identifier: Apache-2.0 */
/* ways.c: all ways there are; a new one gets its line here. Pure. */
#include "tools/perf/transport.h"

extern const struct perf_way perf_way_shmq, perf_way_shmq_multi, perf_way_ideal, perf_way_ideal_lag,
    perf_way_ideal_chase, perf_way_pipe, perf_way_unix, perf_way_mqueue, perf_way_zmq, perf_way_nng,
    perf_way_futex;
extern const struct perf_way perf_way_cas, perf_way_stream, perf_way_memcpy, perf_way_coarse,
    perf_way_precise, perf_way_ticks, perf_way_membarrier;

const struct perf_way *const PERF_WAYS[] = {
    &perf_way_shmq,      &perf_way_shmq_multi,  &perf_way_pipe,  &perf_way_unix,
    &perf_way_mqueue,    &perf_way_zmq,         &perf_way_nng,   &perf_way_ideal,
    &perf_way_ideal_lag, &perf_way_ideal_chase, &perf_way_futex, NULL,
};

/* They move no messages of anybody's. */
static const struct perf_way *const LIMITS[] = {
    &perf_way_cas,     &perf_way_stream, &perf_way_memcpy,     &perf_way_coarse,
    &perf_way_precise, &perf_way_ticks,  &perf_way_membarrier, NULL,
};

static const struct perf_way *find_among(const struct perf_way *const *ways, const char *name)
{
    for (; *ways; ways++) {
        if (strcmp((*ways)->name, name) == 0)
            return *ways;
    }
    return NULL;
}

const struct perf_way *perf_way_find(const char *name)
{
    const struct perf_way *way = find_among(PERF_WAYS, name);

    return way ? way : find_among(LIMITS, name);
}
