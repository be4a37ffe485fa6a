/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.c: requests and replies over a connection's socket; taking turns, losing and finding the
 * supervisor. See control.h. Connecting itself is in control_connect.c.
 */
#include "libshmq/control.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/control_internal.h"

#define RETRY_FIRST_NS (UINT64_C(10) * NS_PER_MS)
#define RETRY_MOST_NS  (UINT64_C(50) * NS_PER_MS)

/* ---- turns ----------------------------------------------------------------------------------- */

static int take_turn(struct shmq_connection *c, uint64_t deadline_ns, struct error_buffer *why)
{
    struct timespec until = timespec_from_ns(deadline_ns);
    int rc = 0;

    (void)pthread_mutex_lock(&c->lock);
    while (c->busy && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&c->idle, &c->lock, &until); /* CLOCK_MONOTONIC: connection.c */
    if (!c->busy) {
        c->busy = true;
        rc = 0;
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (rc != 0)
        return error_set(why, SHMQ_ETIMEOUT,
                         "bus %s: another thread's request on this connection took all the time; "
                         "call again",
                         c->candidates.bus);
    return 0;
}

static void end_turn(struct shmq_connection *c)
{
    (void)pthread_mutex_lock(&c->lock);
    c->busy = false;
    (void)pthread_cond_signal(&c->idle);
    (void)pthread_mutex_unlock(&c->lock);
}

/* ---- one packet ------------------------------------------------------------------------------ */

void control_drop_fds(struct control_call *call)
{
    for (unsigned i = 0; i < call->fd_count; i++)
        handles_close_fd(&call->fds[i]);
    call->fd_count = 0;
}

static int await_socket(struct shmq_connection *c, short events, uint64_t deadline_ns,
                        struct error_buffer *why)
{
    struct pollfd ask = {.fd = c->socket.fd, .events = events};

    for (;;) {
        int result = poll(&ask, 1, deadline_left_ms(deadline_ns));

        if (result > 0)
            return 0;
        if (result < 0 && errno != EINTR)
            return error_set_errno(why, errno, "bus %s: waiting for the supervisor",
                                   c->candidates.bus);
        if (deadline_passed(deadline_ns))
            return error_set(why, SHMQ_ETIMEOUT,
                             "bus %s: the supervisor does not answer in time; if that lasts, look "
                             "what it does: shmq status",
                             c->candidates.bus);
    }
}

int control_send(struct shmq_connection *c, const struct protocol_header *message,
                 uint64_t deadline_ns, struct error_buffer *why)
{
    for (;;) {
        int rc = protocol_send(c->socket.fd, message, message->length, NULL, 0);

        if (rc >= 0)
            return 0;
        if (rc == SHMQ_ECLOSED)
            return CONTROL_LOST;
        if (rc != SHMQ_EAGAIN)
            return error_set(why, rc, "bus %s: sending a request: %s", c->candidates.bus,
                             error_text(rc));
        rc = await_socket(c, POLLOUT, deadline_ns, why);
        if (rc < 0)
            return rc;
    }
}

int control_receive(struct shmq_connection *c, struct control_call *call, struct error_buffer *why)
{
    for (;;) {
        int fds[PROTOCOL_FDS_MAX];
        unsigned fd_count = 0;

        /* Received and tracked in one go, so that no fork() gives a child a copy that nobody
         * closes. */
        handles_lock();
        int rc = protocol_receive(c->socket.fd, c->buffer, PROTOCOL_BYTES_MAX, fds, &fd_count);

        bool lost = fd_count == PROTOCOL_FDS_LOST;

        fd_count = lost ? 0 : fd_count;
        for (unsigned i = 0; rc > 0 && i < fd_count; i++)
            handles_track_locked(&call->fds[i], fds[i]);
        handles_unlock();
        if (rc > 0) {
            call->fd_count = fd_count;
            call->fds_lost = lost;
            return rc;
        }
        if (rc == 0)
            return CONTROL_LOST;
        if (rc != SHMQ_EAGAIN)
            return error_set(why, rc, "bus %s: the supervisor's reply is malformed",
                             c->candidates.bus);
        rc = await_socket(c, POLLIN, call->deadline_ns, why);
        if (rc < 0)
            return rc;
    }
}

/* ---- replies that nobody waited for ---------------------------------------------------------- */

/* The call gave up, but shmqd may still grant it. */
static void leave_stale(struct shmq_connection *c, const struct protocol_header *request)
{
    c->stale = true;
    memcpy(&c->grant, request, min_size(request->length, sizeof(c->grant)));
}

/* With the same id, at any later time: it finds what it got, and that is given back. */
static bool can_be_repeated(const struct protocol_header *request)
{
    return request->type == PROTOCOL_PARTITION_OPEN || request->type == PROTOCOL_GROUP_JOIN;
}

/* Fills the request that gives the grant in `reply` back; false if there is nothing to give back.
 */
static bool make_refund(const struct protocol_header *request, const void *reply, size_t bytes,
                        union control_refund *refund)
{
    const struct protocol_header *header = reply;

    if (bytes < sizeof(*header) || header->status != 0)
        return false;
    if (request->type == PROTOCOL_PARTITION_OPEN &&
        bytes >= sizeof(struct protocol_partition_opened)) {
        const struct protocol_partition_open *open = (const void *)request;
        const struct protocol_partition_opened *opened = reply;

        if (open->role != ROLE_PRODUCER)
            return false;
        protocol_begin(&refund->header, PROTOCOL_SLOT_CLOSE, sizeof(refund->slot));
        refund->slot.topic = open->topic;
        refund->slot.partition = open->partition;
        refund->slot.slot = opened->slot;
        return true;
    }
    if (request->type == PROTOCOL_GROUP_JOIN && bytes >= sizeof(struct protocol_group_joined)) {
        const struct protocol_group_joined *joined = reply;

        protocol_begin(&refund->header, PROTOCOL_GROUP_LEAVE, sizeof(refund->group));
        refund->group.topic = joined->topic.id;
        refund->group.group = joined->group;
        refund->group.member = joined->member;
        return true;
    }
    return false;
}

/* ---- what is owed ---------------------------------------------------------------------------- */

/* Without memory it is forgotten, and goes with the session. */
static void add_debt(struct shmq_connection *c, const struct session *session,
                     const struct protocol_header *request)
{
    struct control_debt *debt = calloc(1, sizeof(*debt));
    struct control_debt **end = &c->debts;

    if (!debt)
        return;
    memcpy(&debt->refund, request, min_size(request->length, sizeof(debt->refund)));
    debt->generation = session->generation;
    (void)pthread_mutex_lock(&c->lock);
    while (*end)
        end = &(*end)->next;
    *end = debt;
    (void)pthread_mutex_unlock(&c->lock);
}

static struct control_debt *first_debt(struct shmq_connection *c)
{
    struct control_debt *debt;

    (void)pthread_mutex_lock(&c->lock);
    debt = c->debts;
    (void)pthread_mutex_unlock(&c->lock);
    return debt;
}

static void pop_debt(struct shmq_connection *c)
{
    struct control_debt *debt;

    (void)pthread_mutex_lock(&c->lock);
    debt = c->debts;
    c->debts = debt->next;
    (void)pthread_mutex_unlock(&c->lock);
    free(debt);
}

void control_free_debts(struct shmq_connection *c)
{
    while (c->debts)
        pop_debt(c);
}

/* What the reply in c->buffer grants is of no use to anybody. */
static void owe_grant(struct shmq_connection *c, const struct protocol_header *request,
                      size_t bytes)
{
    union control_refund refund = {.bytes = {0}};

    if (make_refund(request, c->buffer, bytes, &refund))
        add_debt(c, c->session, &refund.header);
}

/* Before a new request: the reply to the one that was given up, so that there is never more than
 * one unread, and what it granted is not leaked. */
static int settle_stale(struct shmq_connection *c, struct control_call *call,
                        struct error_buffer *why)
{
    int rc;

    if (!c->stale)
        return 0;
    rc = control_receive(c, call, why);
    if (rc < 0 || rc == CONTROL_LOST)
        return rc;
    control_drop_fds(call);
    c->stale = false;
    owe_grant(c, &c->grant.header, (size_t)rc);
    return 0;
}

/* Before a new request, which might be granted the very thing that is given back. One that was paid
 * already, without our knowing, is refused: that is as good. */
static int settle_debts(struct shmq_connection *c, struct control_call *call,
                        struct error_buffer *why)
{
    struct control_debt *debt;

    while ((debt = first_debt(c)) != NULL) {
        struct protocol_header *refund = &debt->refund.header;

        if (debt->generation == c->session->generation) {
            refund->id = ++c->next_id;
            int rc = control_send(c, refund, call->deadline_ns, why);

            if (rc != 0)
                return rc;
            leave_stale(c, refund);
            rc = settle_stale(c, call, why);
            if (rc != 0)
                return rc;
        }
        pop_debt(c);
    }
    return 0;
}

/* ---- requests -------------------------------------------------------------------------------- */

int control_refuse_lost_fds(const struct shmq_connection *c, struct error_buffer *why)
{
    return error_set(why, SHMQ_ELIMIT,
                     "bus %s: this process may not open as many descriptors as it is given; raise "
                     "its limit (ulimit -n), or close some",
                     c->candidates.bus);
}

/* What came for nothing is given back at once, or with the next request. */
static int refuse_grant(struct shmq_connection *c, struct control_call *call, size_t bytes,
                        struct error_buffer *why)
{
    struct error_buffer ignored;

    owe_grant(c, call->request, bytes);
    (void)settle_debts(c, call, &ignored);
    return control_refuse_lost_fds(c, why);
}

static int exchange(struct shmq_connection *c, struct control_call *call, bool *ret_sent,
                    struct error_buffer *why)
{
    const struct protocol_header *request = call->request;
    size_t room = call->room_bytes ? call->room_bytes : call->reply_bytes;
    int rc;

    rc = control_send(c, request, call->deadline_ns, why);
    if (rc != 0)
        return rc;
    *ret_sent = true;
    rc = control_receive(c, call, why);
    if (rc == SHMQ_ETIMEOUT)
        leave_stale(c, request);
    if (rc < 0 || rc == CONTROL_LOST)
        return rc;
    size_t bytes = (size_t)rc;

    call->answered = true;
    rc = protocol_check_reply(c->buffer, bytes, request, call->reply_bytes, call->element_bytes,
                              why);
    if (rc == 0 && call->fds_lost)
        rc = refuse_grant(c, call, bytes, why);
    if (rc == 0 && call->reply)
        memcpy(call->reply, c->buffer, min_size(bytes, room));
    if (rc == 0 && call->element_bytes > 0 && bytes > room)
        rc = error_set(why, SHMQ_EPROTO, "bus %s: the supervisor's reply is too long",
                       c->candidates.bus);
    if (rc < 0)
        control_drop_fds(call);
    return rc;
}

/* A request that is sent again may meet its own first effect. */
static int judge_repeated(const struct protocol_header *request, int rc)
{
    if (rc == SHMQ_ENOTOPIC && request->type == PROTOCOL_TOPIC_DELETE)
        return 0;
    if (rc == SHMQ_ENOGROUP && request->type == PROTOCOL_GROUP_DELETE)
        return 0;
    return rc;
}

static void prepare_repetition(struct control_call *call)
{
    call->repeated = true;
    if (call->request->type == PROTOCOL_TOPIC_CREATE) {
        struct protocol_topic_put *put = (struct protocol_topic_put *)(void *)call->request;

        put->flags |= TOPIC_IF_NOT_EXISTS;
    }
}

static void pause_before_retry(uint64_t *pause_ns, uint64_t deadline_ns)
{
    struct timespec time = timespec_from_ns(min_u64(*pause_ns, deadline_left_ns(deadline_ns)));

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    *pause_ns = min_u64(*pause_ns * 2, RETRY_MOST_NS);
}

/* One attempt on a socket that works, or is made to work. CONTROL_LOST: it is lost. */
static int attempt(struct shmq_connection *c, struct control_call *call, struct error_buffer *why)
{
    bool sent = false;
    int rc = 0;

    /* What is closed for good says so in B, perhaps before its socket does. */
    if (c->session && atomic_load_explicit(&c->session->bus->closed, memory_order_acquire))
        handles_close_fd(&c->socket);
    if (c->socket.fd < 0) {
        const struct session *before = c->session;

        rc = control_hello(c, call->deadline_ns, why);
        c->stale = c->stale && c->session == before && can_be_repeated(&c->grant.header);
        if (rc == 0 && c->stale) /* its answer went down with the supervisor */
            rc = control_send(c, &c->grant.header, call->deadline_ns, why);
    }
    if (rc != 0)
        return rc;
    if (call->session && call->session != c->session)
        return error_set(why, SHMQ_ECLOSED,
                         "bus %s: its memory was made anew; what was open is opened again by name",
                         c->candidates.bus);
    rc = settle_stale(c, call, why);
    if (rc == 0)
        rc = settle_debts(c, call, why);
    if (rc == 0 && call->request)
        rc = exchange(c, call, &sent, why);
    if (rc == CONTROL_LOST && sent)
        prepare_repetition(call);
    return rc;
}

/* Nobody answers: worth another try while there is time, for a successor may be starting. */
static bool may_retry(const struct control_call *call, int rc, unsigned lost)
{
    if (rc != CONTROL_LOST && rc != SHMQ_ENOBUS)
        return false;
    if (call->flags & CONTROL_ONCE)
        return rc == CONTROL_LOST && lost < 2; /* the old socket was dead: one new one */
    return !deadline_passed(call->deadline_ns);
}

/* A call was given up. What it may have been granted by a supervisor that died before it answered is
 * asked for and given back on the next socket; what it was to give back stays owed. */
static void remember(struct shmq_connection *c, const struct control_call *call)
{
    if (!call->request || call->answered)
        return;
    if (call->flags & CONTROL_OWED)
        add_debt(c, call->session, call->request);
    else if (c->session && c->socket.fd < 0 && call->repeated && can_be_repeated(call->request))
        leave_stale(c, call->request);
}

static int run_in_turn(struct shmq_connection *c, struct control_call *call,
                       struct error_buffer *why)
{
    uint64_t pause_ns = RETRY_FIRST_NS;
    unsigned lost = 0;

    for (;;) {
        int rc = attempt(c, call, why);

        if (rc == CONTROL_LOST || rc == SHMQ_EPROTO || rc == SHMQ_EVERSION)
            handles_close_fd(&c->socket);
        if (rc == CONTROL_LOST)
            lost++;
        if (!may_retry(call, rc, lost)) {
            if (rc == CONTROL_LOST)
                rc = control_nobody_answers(c, why);
            if (rc < 0)
                remember(c, call);
            return call->repeated && call->request ? judge_repeated(call->request, rc) : rc;
        }
        if (rc == SHMQ_ENOBUS || lost > 1)
            pause_before_retry(&pause_ns, call->deadline_ns);
    }
}

int control_run(struct shmq_connection *c, struct control_call *call, struct error_buffer *why)
{
    int rc;

    for (unsigned i = 0; i < PROTOCOL_FDS_MAX; i++)
        call->fds[i] = (struct tracked_fd){.fd = -1};
    call->fd_count = 0;
    call->fds_lost = false;
    call->answered = false;
    call->repeated = false;
    rc = take_turn(c, call->deadline_ns, why);
    if (rc < 0) {
        if (call->flags & CONTROL_OWED)
            add_debt(c, call->session, call->request);
        return rc;
    }
    call->request->id = ++c->next_id; /* the same in all repetitions */
    rc = run_in_turn(c, call, why);
    end_turn(c);
    return rc;
}

static bool socket_is_dead(int fd)
{
    struct pollfd ask = {.fd = fd, .events = POLLRDHUP};

    return fd >= 0 && poll(&ask, 1, 0) > 0 && (ask.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

bool control_is_needed(struct shmq_connection *c)
{
    bool needed;

    (void)pthread_mutex_lock(&c->lock);
    needed = !c->busy && (c->debts || (c->stale && can_be_repeated(&c->grant.header)) ||
                          c->socket.fd < 0 || socket_is_dead(c->socket.fd));
    (void)pthread_mutex_unlock(&c->lock);
    return needed;
}

int control_connect(struct shmq_connection *c, uint64_t deadline_ns, unsigned flags,
                    struct error_buffer *why)
{
    struct control_call call = {.deadline_ns = deadline_ns, .flags = flags};
    int rc = take_turn(c, deadline_ns, why);

    if (rc < 0)
        return rc;
    /* Its death is read from the socket here, since there is no request that would find it out. */
    if (socket_is_dead(c->socket.fd))
        handles_close_fd(&c->socket);
    rc = run_in_turn(c, &call, why);
    end_turn(c);
    return rc;
}

void control_disconnect(struct shmq_connection *c, uint64_t deadline_ns)
{
    struct protocol_header goodbye, answer;
    struct control_call call = {
        .request = &goodbye,
        .reply = &answer,
        .reply_bytes = sizeof(answer),
        .deadline_ns = deadline_ns,
    };
    struct error_buffer ignored;
    bool sent;

    protocol_begin(&goodbye, PROTOCOL_GOODBYE, sizeof(goodbye));
    if (take_turn(c, deadline_ns, &ignored) < 0)
        return;
    for (unsigned i = 0; i < PROTOCOL_FDS_MAX; i++)
        call.fds[i] = (struct tracked_fd){.fd = -1};
    goodbye.id = ++c->next_id;
    /* Without a socket there is nobody to say it to: shmqd will see that this client is dead. */
    if (c->socket.fd >= 0 && settle_stale(c, &call, &ignored) == 0)
        (void)exchange(c, &call, &sent, &ignored);
    control_drop_fds(&call);
    handles_close_fd(&c->socket);
    end_turn(c);
}
