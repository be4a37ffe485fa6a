/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unix.c: AF_UNIX sockets that keep messages apart (SOCK_SEQPACKET): a pair for each group,
 * or one for both ways of a round trip. Made before the fork; lane->fds has both sides of each pair.
 * A message is one send and one recv, into a buffer of the receiver's.
 */
#include <stdio.h>
#include <sys/socket.h>

#include "tools/perf/kernel.h"

#define WANTED_BYTES  (1 << 20)
#define LIMIT_FILE    "/proc/sys/net/core/wmem_max"
#define LIMIT_DEFAULT 212992u
#define KEPT_BYTES    4096u /* of the buffer, for the kernel's own */

struct unix_end {
    int fds[PERF_GROUPS_MAX];
    uint32_t outs;
};

/* The kernel doubles what is asked for, and puts a message into it whole. */
static uint64_t size_most(void)
{
    unsigned long long limit = LIMIT_DEFAULT;
    FILE *file = fopen(LIMIT_FILE, "re");

    if (file && fscanf(file, "%llu", &limit) != 1)
        limit = LIMIT_DEFAULT;
    if (file)
        (void)fclose(file);
    return 2 * min_u64(limit, WANTED_BYTES) - KEPT_BYTES;
}

static int check(const struct perf_setup *setup, struct error_buffer *why)
{
    uint64_t most = size_most();

    if (setup->size > most)
        return error_set(why, SHMQ_EINVAL,
                         "unix: %u bytes: a message has %llu at most here; raise "
                         "net.core.wmem_max, or take smaller bodies",
                         setup->size, (unsigned long long)most);
    return 0;
}

static int prepare(struct perf_lane *lane, struct error_buffer *why)
{
    int type = SOCK_SEQPACKET | SOCK_CLOEXEC | (lane->setup.wait == PERF_BLOCK ? 0 : SOCK_NONBLOCK);
    uint32_t pairs = lane->setup.kind == PERF_LATENCY ? 1 : lane->setup.groups;
    int bytes = WANTED_BYTES; /* cut to the limit by the kernel */

    for (uint32_t i = 0; i < pairs; i++) {
        if (socketpair(AF_UNIX, type, 0, &lane->fds[2 * i]) < 0)
            return error_set_errno(why, errno, "unix: socketpair");
        for (uint32_t side = 0; side < 2; side++) {
            (void)setsockopt(lane->fds[2 * i + side], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
            (void)setsockopt(lane->fds[2 * i + side], SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
        }
    }
    return 0;
}

static int open_end(struct perf_seat *seat, struct error_buffer *why)
{
    struct unix_end *end = perf_alloc_pages(sizeof(*end));
    bool sends_first = seat->role == PERF_PING || seat->role == PERF_PRODUCE;

    (void)why;
    end->outs = seat->lane->setup.kind == PERF_LATENCY ? 1 : seat->lane->setup.groups;
    for (uint32_t i = 0; i < end->outs; i++)
        end->fds[i] = seat->lane->fds[2 * i + (sends_first ? 0 : 1)];
    seat->end = end;
    return 0;
}

static void close_end(struct perf_seat *seat)
{
    free(seat->end);
    seat->end = NULL;
}

static ALWAYS_INLINE bool send_all(struct perf_seat *seat, struct perf_trial *trial,
                                   const void *body, uint32_t size)
{
    struct unix_end *end = seat->end;
    uint32_t tries = 0;

    for (uint32_t i = 0; i < end->outs; i++) {
        while (send(end->fds[i], body, size, MSG_NOSIGNAL) != (ssize_t)size) {
            if (!perf_kernel_wait(seat, trial, end->fds[i], POLLOUT, &tries, "send"))
                return false;
        }
    }
    return true;
}

static ALWAYS_INLINE const void *receive(struct perf_seat *seat, struct perf_trial *trial,
                                         uint32_t group, uint32_t size, bool wait)
{
    struct unix_end *end = seat->end;
    uint32_t tries = 0;

    for (;;) {
        ssize_t n = recv(end->fds[group], seat->scratch, size, 0);

        if (LIKELY(n == (ssize_t)size))
            return seat->scratch;
        if (n >= 0) {
            (void)perf_trial_fail(trial, "recv: %zd bytes came, of %u that were sent", n, size);
            return NULL;
        }
        if ((!wait && errno == EAGAIN) ||
            !perf_kernel_wait(seat, trial, end->fds[group], POLLIN, &tries, "recv"))
            return NULL;
    }
}

static void run(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_all, NULL, receive, perf_kernel_release);
}

const struct perf_way perf_way_unix = {
    .name = "unix",
    .summary = "AF_UNIX socket pair, SOCK_SEQPACKET",
    .kinds = 1u << PERF_LATENCY | 1u << PERF_THROUGHPUT,
    .waits = PERF_KERNEL_WAITS,
    .producers_max = PERF_MEMBERS_MAX - 1,
    .groups_max = PERF_GROUPS_MAX,
    .is_kernel = true,
    .check = check,
    .prepare = prepare,
    .open = open_end,
    .run = run,
    .close = close_end,
};
