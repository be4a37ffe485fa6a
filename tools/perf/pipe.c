/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pipe.c: pipes: one for each group, or one there and one back.
 *
 * A message is one write; a reader takes what there is, up to 64 KiB at once, and finds the messages in
 * it, as who reads a stream of records does. Made before the fork; the ends are in lane->fds, read end
 * and write end of each channel. As large as the kernel lets them be, up to shmq's ring.
 */
#include <fcntl.h>

#include "tools/perf/kernel.h"

#define READ_BYTES   65536u
#define WANTED_BYTES (UINT64_C(1) << 20)
#define ATOMIC_BYTES 4096u /* PIPE_BUF: several writers do not mix below it */

struct pipe_end {
    int in[PERF_GROUPS_MAX], out[PERF_GROUPS_MAX];
    uint32_t outs;
    struct {
        char *bytes;
        size_t used, at;
    } buffers[PERF_GROUPS_MAX];
    size_t buffer_bytes;
};

static int check(const struct perf_setup *setup, struct error_buffer *why)
{
    if (setup->producers > 1 && setup->size > ATOMIC_BYTES)
        return error_set(why, SHMQ_EINVAL,
                         "pipe: %u bytes of several producers would mix: %u at most; take smaller "
                         "bodies or one producer",
                         setup->size, ATOMIC_BYTES);
    return 0;
}

static int prepare(struct perf_lane *lane, struct error_buffer *why)
{
    int flags = O_CLOEXEC | (lane->setup.wait == PERF_BLOCK ? 0 : O_NONBLOCK);
    uint64_t wanted = lane->setup.ring_bytes ? lane->setup.ring_bytes : WANTED_BYTES;

    for (uint32_t i = 0; i < perf_kernel_channels(&lane->setup); i++) {
        if (pipe2(&lane->fds[2 * i], flags) < 0)
            return error_set_errno(why, errno, "pipe");
        /* The largest that is allowed (fs.pipe-max-size). */
        for (uint64_t bytes = wanted; bytes > READ_BYTES; bytes /= 2) {
            if (fcntl(lane->fds[2 * i + 1], F_SETPIPE_SZ, (int)min_u64(bytes, 1 << 30)) >= 0)
                break;
        }
    }
    lane->setup.ring_bytes = wanted;
    return 0;
}

static int open_end(struct perf_seat *seat, struct error_buffer *why)
{
    struct pipe_end *end = perf_alloc_pages(sizeof(*end));
    const int *fds = seat->lane->fds;
    uint32_t channels = perf_kernel_channels(&seat->lane->setup);

    (void)why;
    end->buffer_bytes = max_u64(READ_BYTES, seat->lane->setup.size);
    for (uint32_t i = 0; i < channels; i++) {
        end->in[i] = fds[2 * i];
        end->out[i] = fds[2 * i + 1];
        if (seat->role == PERF_PONG || seat->role == PERF_PING || seat->role == PERF_CONSUME)
            end->buffers[i].bytes = perf_alloc_pages(end->buffer_bytes);
    }
    end->outs = channels;
    if (seat->lane->setup.kind == PERF_LATENCY) {
        bool answers = seat->role == PERF_PONG;

        end->in[0] = fds[answers ? 0 : 2];
        end->out[0] = fds[answers ? 3 : 1];
        end->outs = 1;
    }
    seat->end = end;
    return 0;
}

static void close_end(struct perf_seat *seat)
{
    struct pipe_end *end = seat->end;

    for (uint32_t i = 0; end && i < PERF_GROUPS_MAX; i++)
        free(end->buffers[i].bytes);
    free(end);
    seat->end = NULL;
}

static ALWAYS_INLINE bool send_to(struct perf_seat *seat, struct perf_trial *trial, int fd,
                                  const char *body, size_t size)
{
    uint32_t tries = 0;

    while (size > 0) {
        ssize_t n = write(fd, body, size);

        if (n > 0) {
            body += n;
            size -= (size_t)n;
        } else if (!perf_kernel_wait(seat, trial, fd, POLLOUT, &tries, "write")) {
            return false;
        }
    }
    return true;
}

static ALWAYS_INLINE bool send_all(struct perf_seat *seat, struct perf_trial *trial,
                                   const void *body, uint32_t size)
{
    struct pipe_end *end = seat->end;

    for (uint32_t i = 0; i < end->outs; i++) {
        if (!send_to(seat, trial, end->out[i], body, size))
            return false;
    }
    return true;
}

/* Until a whole message is there. */
static bool fill(struct perf_seat *seat, struct perf_trial *trial, uint32_t group, uint32_t size,
                 bool wait)
{
    struct pipe_end *end = seat->end;
    size_t rest = end->buffers[group].used - end->buffers[group].at;
    char *bytes = end->buffers[group].bytes;
    uint32_t tries = 0;

    memmove(bytes, bytes + end->buffers[group].at, rest);
    end->buffers[group].at = 0;
    end->buffers[group].used = rest;
    while (end->buffers[group].used < size) {
        ssize_t n = read(end->in[group], bytes + end->buffers[group].used,
                         end->buffer_bytes - end->buffers[group].used);

        if (n > 0)
            end->buffers[group].used += (size_t)n;
        else if (n == 0)
            return perf_trial_fail(trial, "read: the pipe's other end was closed");
        else if (!wait && errno == EAGAIN)
            return false;
        else if (!perf_kernel_wait(seat, trial, end->in[group], POLLIN, &tries, "read"))
            return false;
    }
    return true;
}

static ALWAYS_INLINE const void *receive(struct perf_seat *seat, struct perf_trial *trial,
                                         uint32_t group, uint32_t size, bool wait)
{
    struct pipe_end *end = seat->end;

    if (end->buffers[group].used - end->buffers[group].at < size &&
        !fill(seat, trial, group, size, wait))
        return NULL;
    return end->buffers[group].bytes + end->buffers[group].at;
}

static ALWAYS_INLINE void release(struct perf_seat *seat, uint32_t group)
{
    ((struct pipe_end *)seat->end)->buffers[group].at += seat->lane->setup.size;
}

static void run(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_all, NULL, receive, release);
}

const struct perf_way perf_way_pipe = {
    .name = "pipe",
    .summary = "pipe(2), a write a message, read as they come",
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
