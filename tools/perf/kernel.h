/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h: what pipes, sockets and message queues have in common: how they wait.
 *
 *   spin     non-blocking calls, again and again
 *   hybrid   the same for some 20 us, then poll(2)
 *   block    blocking calls; whoever is late is killed by the session's owner
 */
#ifndef SHMQ_TOOLS_PERF_KERNEL_H
#define SHMQ_TOOLS_PERF_KERNEL_H

#include <errno.h>
#include <poll.h>

#include "tools/perf/transport.h"

#define PERF_KERNEL_TRIES  64   /* of some 300 ns each */
#define PERF_KERNEL_NAP_MS 1000 /* a longer sleep looks around in between */
#define PERF_KERNEL_WAITS  (1u << PERF_SPIN | 1u << PERF_HYBRID | 1u << PERF_BLOCK)

static inline bool perf_fail_errno(struct perf_trial *trial, const char *call)
{
    char text[128];

    return perf_trial_fail(trial, "%s: %s", call, error_errno_text(errno, text, sizeof(text)));
}

/* After a call that failed: should it be tried again? *tries starts at 0 and counts. */
static ALWAYS_INLINE bool perf_kernel_wait(struct perf_seat *seat, struct perf_trial *trial, int fd,
                                           short events, uint32_t *tries, const char *call)
{
    struct pollfd polled = {.fd = fd, .events = events};

    if (errno == EINTR)
        return perf_wait_on(trial);
    if (UNLIKELY(errno != EAGAIN))
        return perf_fail_errno(trial, call);
    if (seat->lane->setup.wait != PERF_HYBRID || ++*tries < PERF_KERNEL_TRIES)
        return perf_wait_on(trial);
    (void)poll(&polled, 1, PERF_KERNEL_NAP_MS);
    *tries = 0;
    return perf_trial_look(trial);
}

/* A message that was received is the receiver's own copy: nothing to give back. */
static ALWAYS_INLINE void perf_kernel_release(struct perf_seat *seat, uint32_t group)
{
    (void)seat;
    (void)group;
}

/* Which descriptor of lane->fds[] leads to a group, and back from it (round trips only). */
static inline uint32_t perf_kernel_channels(const struct perf_setup *setup)
{
    return setup->kind == PERF_LATENCY ? 2 : setup->groups;
}

#endif
