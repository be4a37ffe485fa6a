/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nng.c: nng, pair0 over ipc, between the two processes of a lane; only where it was built in
 * (make NNG=yes). Its name is in the abstract namespace, so nothing is left in a directory.
 *
 * nng does not survive a fork: it is first touched in the members. Bodies are copied in (nng_send) and
 * looked at in the message that came. Calls that wait give up after a second to look around.
 */
#include "tools/perf/transport.h"

#ifdef PERF_NNG

#if !__has_include(<nng/nng.h>)
#error \
    "NNG=yes needs nng/nng.h; where it is missing, 'make deps NNG=yes' installs Debian's libnng-dev"
#endif

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <stdio.h>

#define WAITING 1024 /* messages in each of its buffers */
#define NAP_MS  1000
#define TRIES   256 /* hybrid: looks before it sleeps */

struct nng_end {
    nng_socket socket;
    nng_msg *message;
    bool is_open;
};

static int open_socket(struct nng_end *end)
{
    int rc = nng_pair0_open(&end->socket);

    if (rc != 0)
        return rc;
    end->is_open = true;
    rc = nng_socket_set_int(end->socket, NNG_OPT_SENDBUF, WAITING);
    if (rc == 0)
        rc = nng_socket_set_int(end->socket, NNG_OPT_RECVBUF, WAITING);
    if (rc == 0)
        rc = nng_socket_set_ms(end->socket, NNG_OPT_SENDTIMEO, NAP_MS);
    if (rc == 0)
        rc = nng_socket_set_ms(end->socket, NNG_OPT_RECVTIMEO, NAP_MS);
    return rc == 0 ? nng_socket_set_size(end->socket, NNG_OPT_RECVMAXSZ, 0) : rc;
}

static int open_end(struct perf_seat *seat, struct error_buffer *why)
{
    struct nng_end *end = perf_alloc_pages(sizeof(*end));
    bool listens = seat->role == PERF_PING || seat->role == PERF_PRODUCE;
    char name[64];
    int rc;

    seat->end = end;
    (void)snprintf(name, sizeof(name), "abstract://shmq-perf.%d.%u", (int)getppid(),
                   seat->lane->serial);
    rc = open_socket(end);
    if (rc == 0)
        rc = listens ? nng_listen(end->socket, name, NULL, 0)
                     : nng_dial(end->socket, name, NULL, NNG_FLAG_NONBLOCK);
    return rc == 0 ? 0 : error_set(why, SHMQ_ESYS, "nng: open: %s", nng_strerror(rc));
}

static void close_end(struct perf_seat *seat)
{
    struct nng_end *end = seat->end;

    if (!end)
        return;
    if (end->message)
        nng_msg_free(end->message);
    if (end->is_open)
        (void)nng_close(end->socket);
    free(end);
    seat->end = NULL;
}

static ALWAYS_INLINE bool wait_on(struct perf_trial *trial, int error, uint32_t *tries,
                                  const char *call)
{
    ++*tries;
    if (LIKELY(error == NNG_EAGAIN || error == NNG_ETIMEDOUT))
        return perf_wait_on(trial);
    return perf_trial_fail(trial, "%s: %s", call, nng_strerror(error));
}

static ALWAYS_INLINE int flags_of(const struct perf_seat *seat, uint32_t tries)
{
    enum perf_wait wait = seat->lane->setup.wait;

    return wait == PERF_SPIN || (wait == PERF_HYBRID && tries < TRIES) ? NNG_FLAG_NONBLOCK : 0;
}

static ALWAYS_INLINE bool send_one(struct perf_seat *seat, struct perf_trial *trial,
                                   const void *body, uint32_t size)
{
    struct nng_end *end = seat->end;
    uint32_t tries = 0;
    int rc;

    /* It does not write to the body. */
    while ((rc = nng_send(end->socket, (void *)(uintptr_t)body, size, flags_of(seat, tries))) !=
           0) {
        if (!wait_on(trial, rc, &tries, "send"))
            return false;
    }
    return true;
}

static ALWAYS_INLINE const void *receive(struct perf_seat *seat, struct perf_trial *trial,
                                         uint32_t group, uint32_t size, bool wait)
{
    struct nng_end *end = seat->end;
    uint32_t tries = 0;
    int rc;

    (void)group;
    (void)wait;
    while ((rc = nng_recvmsg(end->socket, &end->message, flags_of(seat, tries))) != 0) {
        end->message = NULL;
        if (!wait_on(trial, rc, &tries, "receive"))
            return NULL;
    }
    if (UNLIKELY(nng_msg_len(end->message) != size)) {
        (void)perf_trial_fail(trial, "a body of %zu bytes came, of %u was sent",
                              nng_msg_len(end->message), size);
        return NULL;
    }
    return nng_msg_body(end->message);
}

static ALWAYS_INLINE void release(struct perf_seat *seat, uint32_t group)
{
    struct nng_end *end = seat->end;

    (void)group;
    nng_msg_free(end->message);
    end->message = NULL;
}

static void run(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_one, NULL, receive, release);
}

const struct perf_way perf_way_nng = {
    .name = "nng",
    .summary = "nng, pair0 over ipc",
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

const struct perf_way perf_way_nng = {
    .name = "nng",
    .summary = "nng, pair0 over ipc",
    .missing = "NNG=yes",
};

#endif
