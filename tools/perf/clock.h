/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.h: what trials are timed with: the processor's own counter where it counts at one
 * rate in all power states and on all cores (x86-64: invariant TSC; arm64: the virtual counter), else
 * CLOCK_MONOTONIC.
 *
 * Set up once, before processes are forked; read by all of them. Nothing blocks but the calibration,
 * 20 ms.
 */
#ifndef SHMQ_TOOLS_PERF_CLOCK_H
#define SHMQ_TOOLS_PERF_CLOCK_H

#include <stdbool.h>

#include "libshmq/clock.h"

struct perf_clock {
    double ns_per_tick;
    double quantum; /* ticks from one value of the counter to the next, 1 or more */
    bool counter;   /* false: ticks are nanoseconds of CLOCK_MONOTONIC */
};

extern struct perf_clock perf_clock;

/* Does nothing if it was called before. */
void perf_clock_init(void);

/* "TSC, 2.596 GHz, invariant": for people. */
void perf_clock_describe(char *ret_text, size_t text_bytes);

/* Between two round trips. Not fenced: what it follows is the end of a wait, which no core passes
 * before it knows the value, and a fence would add itself to each round trip. */
static ALWAYS_INLINE uint64_t perf_ticks(void)
{
#if defined(__x86_64__)
    if (LIKELY(perf_clock.counter))
        return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    if (LIKELY(perf_clock.counter)) {
        uint64_t ticks;

        __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(ticks)::"memory");
        return ticks;
    }
#endif
    return clock_monotonic_ns();
}

/* At the ends of a trial: everything before it is done, nothing behind it has begun. */
static ALWAYS_INLINE uint64_t perf_ticks_fenced(void)
{
#if defined(__x86_64__)
    uint64_t ticks;

    __builtin_ia32_mfence();
    __builtin_ia32_lfence();
    ticks = perf_ticks();
    __builtin_ia32_lfence();
    return ticks;
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
    return perf_ticks();
#else
    return perf_ticks();
#endif
}

static inline double perf_ns_of_ticks(uint64_t ticks)
{
    return (double)ticks * perf_clock.ns_per_tick;
}

#endif
