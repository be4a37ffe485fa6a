/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mqueue.c: POSIX message queues: one for each group, or one there and one back. As deep as
 * the kernel lets a user have them (fs.mqueue.msg_max, 10 by default). Opened before the fork and
 * unlinked at once, so that nothing can be left behind.
 */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tools/perf/kernel.h"

#define LIMITS "/proc/sys/fs/mqueue/"

struct mqueue_end {
    mqd_t in[PERF_GROUPS_MAX], out[PERF_GROUPS_MAX];
    uint32_t outs;
    size_t buffer_bytes;
};

static uint64_t read_limit(const char *path, uint64_t otherwise)
{
    unsigned long long limit = otherwise;
    FILE *file = fopen(path, "re");

    if (file && fscanf(file, "%llu", &limit) != 1)
        limit = otherwise;
    if (file)
        (void)fclose(file);
    return limit;
}

static int check(const struct perf_setup *setup, struct error_buffer *why)
{
    uint64_t most = read_limit(LIMITS "msgsize_max", 8192);

    if (setup->size > most)
        return error_set(why, SHMQ_EINVAL,
                         "mqueue: %u bytes: a message has %llu at most here; raise "
                         "fs.mqueue.msgsize_max, or take smaller bodies",
                         setup->size, (unsigned long long)most);
    return 0;
}

static int open_queue(struct perf_lane *lane, uint32_t i, struct error_buffer *why)
{
    struct mq_attr attributes = {
        .mq_maxmsg = (long)read_limit(LIMITS "msg_max", 10),
        .mq_msgsize = (long)lane->setup.size,
    };
    int flags =
        O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | (lane->setup.wait == PERF_BLOCK ? 0 : O_NONBLOCK);
    char name[64];

    (void)snprintf(name, sizeof(name), "/shmq-perf.%d.%u.%u", (int)getpid(), lane->serial, i);
    /* A user's queues have a limit of bytes in all (ulimit -q): shallower ones may still fit. */
    for (;; attributes.mq_maxmsg /= 2) {
        lane->fds[i] = (int)mq_open(name, flags, S_IRUSR | S_IWUSR, &attributes);
        if (lane->fds[i] >= 0)
            break;
        if (errno == ENOSYS || errno == ENOENT)
            return error_set(why, SHMQ_ENOTSUP,
                             "mqueue: this kernel has no POSIX message queues; "
                             "leave it out");
        if (errno != EMFILE && errno != ENOMEM && errno != EINVAL)
            return error_set_errno(why, errno, "mqueue: mq_open");
        if (attributes.mq_maxmsg < 2)
            return error_set(why, SHMQ_ELIMIT,
                             "mqueue: no queue fits into the limit of this user; "
                             "raise it with 'ulimit -q', or leave mqueue out");
    }
    (void)mq_unlink(name);
    return 0;
}

static int prepare(struct perf_lane *lane, struct error_buffer *why)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < perf_kernel_channels(&lane->setup); i++)
        rc = open_queue(lane, i, why);
    return rc;
}

static int open_end(struct perf_seat *seat, struct error_buffer *why)
{
    struct mqueue_end *end = perf_alloc_pages(sizeof(*end));
    const struct perf_lane *lane = seat->lane;

    (void)why;
    end->outs = lane->setup.kind == PERF_LATENCY ? 1 : lane->setup.groups;
    for (uint32_t i = 0; i < end->outs; i++)
        end->in[i] = end->out[i] = lane->fds[i];
    if (seat->role == PERF_PING)
        end->in[0] = lane->fds[1];
    if (seat->role == PERF_PONG)
        end->out[0] = lane->fds[1];
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
    struct mqueue_end *end = seat->end;
    uint32_t tries = 0;

    for (uint32_t i = 0; i < end->outs; i++) {
        while (mq_send(end->out[i], body, size, 0) < 0) {
            if (!perf_kernel_wait(seat, trial, end->out[i], POLLOUT, &tries, "mq_send"))
                return false;
        }
    }
    return true;
}

static ALWAYS_INLINE const void *receive(struct perf_seat *seat, struct perf_trial *trial,
                                         uint32_t group, uint32_t size, bool wait)
{
    struct mqueue_end *end = seat->end;
    uint32_t tries = 0;

    for (;;) {
        ssize_t n = mq_receive(end->in[group], seat->scratch, size, NULL);

        if (LIKELY(n == (ssize_t)size))
            return seat->scratch;
        if (n >= 0) {
            (void)perf_trial_fail(trial, "mq_receive: %zd bytes came, of %u that were sent", n,
                                  size);
            return NULL;
        }
        if ((!wait && errno == EAGAIN) ||
            !perf_kernel_wait(seat, trial, end->in[group], POLLIN, &tries, "mq_receive"))
            return NULL;
    }
}

static void run(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_all, NULL, receive, perf_kernel_release);
}

const struct perf_way perf_way_mqueue = {
    .name = "mqueue",
    .summary = "POSIX message queue (mq_send)",
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
