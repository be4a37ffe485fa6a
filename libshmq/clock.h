/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks and deadlines. Time inside shmq is a uint64_t of nanoseconds; a wait carries a deadline on
 * the monotonic clock, not a timeout, so that retries do not lengthen it. All of these read the
 * vDSO: no system call, nothing blocks, any thread or signal handler.
 */
#ifndef SHMQ_CLOCK_H
#define SHMQ_CLOCK_H

#include "libshmq/base.h"

#include <limits.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

#define DEADLINE_INVALID UINT64_C(0) /* what a negative timeout gives; lies in the past as well */
#define DEADLINE_NEVER   UINT64_MAX  /* for threads of our own; public calls always have an end */

static inline uint64_t clock_read_ns(clockid_t id)
{
    struct timespec now;

    (void)clock_gettime(id, &now); /* fails only for a clock that this kernel does not have */
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Goes forward only, and is the same clock in every process: for deadlines and ages. */
static inline uint64_t clock_monotonic_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

/* Since the epoch, exact; may step. For `--timestamps precise`. */
static inline uint64_t clock_realtime_ns(void)
{
    return clock_read_ns(CLOCK_REALTIME);
}

/* Since the epoch, as of the kernel's last tick (1 to 10 ms old), at a fraction of the cost: the
 * default stamp of a message. */
static inline uint64_t clock_realtime_coarse_ns(void)
{
    return clock_read_ns(CLOCK_REALTIME_COARSE);
}

/* When a timeout that starts now is over. 0 ms: at once, for one attempt without waiting. Negative:
 * DEADLINE_INVALID, which the public call turns into SHMQ_EINVAL. Too far ahead: DEADLINE_NEVER. */
static inline uint64_t deadline_after_ms(int64_t timeout_ms)
{
    uint64_t now_ns;

    if (timeout_ms < 0)
        return DEADLINE_INVALID;
    now_ns = clock_monotonic_ns();
    if ((uint64_t)timeout_ms > (UINT64_MAX - now_ns) / NS_PER_MS)
        return DEADLINE_NEVER;
    return now_ns + (uint64_t)timeout_ms * NS_PER_MS;
}

/* Nanoseconds until then, 0 once it has passed. */
static inline uint64_t deadline_left_ns(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_monotonic_ns();

    return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

static inline int deadline_passed(uint64_t deadline_ns)
{
    return deadline_left_ns(deadline_ns) == 0;
}

/* For poll(2) and epoll: rounded up, or a caller would spin through the last millisecond. */
static inline int deadline_left_ms(uint64_t deadline_ns)
{
    uint64_t left_ns = deadline_left_ns(deadline_ns);
    uint64_t left_ms = left_ns / NS_PER_MS + (left_ns % NS_PER_MS != 0);

    return left_ms > INT_MAX ? INT_MAX : (int)left_ms;
}

static inline struct timespec timespec_from_ns(uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

    return time;
}

#endif
