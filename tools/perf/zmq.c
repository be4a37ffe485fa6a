/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zmq.c: ZeroMQ, PAIR over ipc://, between the two processes of a lane; only where it was
 * built in (make ZMQ=yes). Its name is in the abstract namespace, so nothing is left in a directory.
 *
 * Each member has a context of its own, made after the fork, with its I/O thread. Bodies are copied in
 * (zmq_send) and looked at where ZeroMQ has them (zmq_msg_data). High-water marks of 1 MiB, at least
 * ZeroMQ's own 1,000 messages. Blocking calls give up after a second to look around.
 */
#include "tools/perf/transport.h"

#ifdef PERF_ZMQ

#if !__has_include(<zmq.h>)
#error "ZMQ=yes needs zmq.h; where it is missing, 'make deps ZMQ=yes' installs Debian's libzmq3-dev"
#endif

#include <errno.h>
#include <stdio.h>
#include <zmq.h>

#define WAITING_BYTES (UINT64_C(1) << 20)
#define NAP_MS        1000
#define TRIES         256 /* hybrid: looks before it sleeps */

struct zmq_end {
    void *context, *socket;
    zmq_msg_t message;
    bool has_message;
};

static int fail(struct error_buffer *why, const char *call)
{
    return error_set(why, SHMQ_ESYS, "zmq: %s: %s", call, zmq_strerror(zmq_errno()));
}

static int set_options(struct zmq_end *end, const struct perf_setup *setup)
{
    uint64_t bytes = setup->ring_bytes ? setup->ring_bytes : WAITING_BYTES;
    int marks = (int)max_u64(min_u64(bytes / setup->size, 1 << 20), 1000);
    int nap_ms = NAP_MS;
    int linger_ms = 0;

    return zmq_setsockopt(end->socket, ZMQ_SNDHWM, &marks, sizeof(marks)) < 0 ||
           zmq_setsockopt(end->socket, ZMQ_RCVHWM, &marks, sizeof(marks)) < 0 ||
           zmq_setsockopt(end->socket, ZMQ_SNDTIMEO, &nap_ms, sizeof(nap_ms)) < 0 ||
           zmq_setsockopt(end->socket, ZMQ_RCVTIMEO, &nap_ms, sizeof(nap_ms)) < 0 ||
           zmq_setsockopt(end->socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)) < 0;
}

static int open_end(struct perf_seat *seat, struct error_buffer *why)
{
    struct zmq_end *end = perf_alloc_pages(sizeof(*end));
    bool binds = seat->role == PERF_PING || seat->role == PERF_PRODUCE;
    char name[64];

    seat->end = end;
    (void)snprintf(name, sizeof(name), "ipc://@shmq-perf.%d.%u", (int)getppid(),
                   seat->lane->serial);
    end->context = zmq_ctx_new();
    end->socket = end->context ? zmq_socket(end->context, ZMQ_PAIR) : NULL;
    if (!end->socket || set_options(end, &seat->lane->setup))
        return fail(why, "socket");
    if ((binds ? zmq_bind(end->socket, name) : zmq_connect(end->socket, name)) < 0)
        return fail(why, binds ? "bind" : "connect");
    return 0;
}

static void close_end(struct perf_seat *seat)
{
    struct zmq_end *end = seat->end;

    if (!end)
        return;
    if (end->has_message)
        (void)zmq_msg_close(&end->message);
    if (end->socket)
        (void)zmq_close(end->socket);
    if (end->context)
        (void)zmq_ctx_term(end->context);
    free(end);
    seat->end = NULL;
}

/* After a call that failed: again? Without ZMQ_DONTWAIT it has slept. */
static ALWAYS_INLINE bool wait_on(struct perf_trial *trial, uint32_t *tries, const char *call)
{
    int error = zmq_errno();

    ++*tries;
    if (LIKELY(error == EAGAIN || error == EINTR))
        return perf_wait_on(trial);
    return perf_trial_fail(trial, "%s: %s", call, zmq_strerror(error));
}

static ALWAYS_INLINE int flags_of(const struct perf_seat *seat, uint32_t tries)
{
    enum perf_wait wait = seat->lane->setup.wait;

    return wait == PERF_SPIN || (wait == PERF_HYBRID && tries < TRIES) ? ZMQ_DONTWAIT : 0;
}

static ALWAYS_INLINE bool send_one(struct perf_seat *seat, struct perf_trial *trial,
                                   const void *body, uint32_t size)
{
    struct zmq_end *end = seat->end;
    uint32_t tries = 0;

    while (UNLIKELY(zmq_send(end->socket, body, size, flags_of(seat, tries)) < 0)) {
        if (!wait_on(trial, &tries, "send"))
            return false;
    }
    return true;
}

static ALWAYS_INLINE const void *receive(struct perf_seat *seat, struct perf_trial *trial,
                                         uint32_t group, uint32_t size, bool wait)
{
    struct zmq_end *end = seat->end;
    uint32_t tries = 0;

    (void)group;
    (void)wait;
    (void)zmq_msg_init(&end->message);
    end->has_message = true;
    while (zmq_msg_recv(&end->message, end->socket, flags_of(seat, tries)) < 0) {
        if (!wait_on(trial, &tries, "receive"))
            return NULL;
    }
    if (UNLIKELY(zmq_msg_size(&end->message) != size)) {
        (void)perf_trial_fail(trial, "a body of %zu bytes came, of %u was sent",
                              zmq_msg_size(&end->message), size);
        return NULL;
    }
    return zmq_msg_data(&end->message);
}

static ALWAYS_INLINE void release(struct perf_seat *seat, uint32_t group)
{
    struct zmq_end *end = seat->end;

    (void)group;
    (void)zmq_msg_close(&end->message);
    end->has_message = false;
}

static void run(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_one, NULL, receive, release);
}

const struct perf_way perf_way_zmq = {
    .name = "zmq",
    .summary = "ZeroMQ, PAIR over ipc://",
    .kinds = 1u << PERF_LATENCY | 1u << PERF_THROUGHPUT,
    .waits = 1u << PERF_SPIN | 1u << PERF_HYBRID | 1u << PERF_BLOCK,
    .producers_max = 1,
    .groups_max = 1,
    .has_threads = true,
    .open = open_end,
    .run = run,
    .close = close_end,
};

#else

const struct perf_way perf_way_zmq = {
    .name = "zmq",
    .summary = "ZeroMQ, PAIR over ipc://",
    .missing = "ZMQ=yes",
};

#endif
