/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_connect.c: finding the supervisor's socket, saying hello, beginning or resuming a
 * session.
 *
 * Runs in the caller's turn on the connection (control.c). Blocks for the supervisor's answer,
 * until the deadline. A hello that fails leaves no socket and no descriptor; the session that was
 * stays.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "libshmq/clock.h"
#include "libshmq/control_internal.h"
#include "libshmq/liveness.h"
#include "libshmq/wait.h"

/* ---- sessions -------------------------------------------------------------------------------- */

struct session *session_reference(struct session *session)
{
    /* Relaxed: whoever adds a reference has one already, or the connection's lock. */
    (void)atomic_fetch_add_explicit(&session->references, 1, memory_order_relaxed);
    return session;
}

void session_release(struct session *session)
{
    /* acq_rel: what the other holders did with it comes before the last one takes it apart. */
    if (!session || atomic_fetch_sub_explicit(&session->references, 1, memory_order_acq_rel) != 1)
        return;
    handles_close_fd(&session->bus_fd);
    segment_unmap(&session->segment);
    free(session);
}

struct session *control_session(struct shmq_connection *c)
{
    struct session *session;

    (void)pthread_mutex_lock(&c->lock);
    session = c->session ? session_reference(c->session) : NULL;
    (void)pthread_mutex_unlock(&c->lock);
    return session;
}

bool session_find_client(const struct session *session, uint64_t client, uint32_t *ret_pid,
                         char ret_command[16])
{
    const struct bus_segment *bus = session->bus;

    for (uint32_t i = 0; client != CLIENT_NONE && i < bus->client_count; i++) {
        const struct bus_client *entry = &bus->clients[i];

        /* Acquire: stored last, so the fields are this client's; and asked once more after them. */
        if (atomic_load_explicit(&entry->id, memory_order_acquire) != client)
            continue;
        *ret_pid = entry->pid;
        memcpy(ret_command, entry->command, 16);
        ret_command[15] = '\0';
        atomic_thread_fence(memory_order_acquire);
        return atomic_load_explicit(&entry->id, memory_order_relaxed) == client;
    }
    return false;
}

/* ---- the socket ------------------------------------------------------------------------------ */

int control_nobody_answers(const struct shmq_connection *c, struct error_buffer *why)
{
    return error_set(why, SHMQ_ENOBUS, "bus %s: no supervisor answers on %s; start it with: %s",
                     c->candidates.bus, c->candidates.list[0].socket, c->remedy);
}

static int connect_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int error = errno;

    (void)close(fd);
    return -error;
}

/* SHMQ_ENOBUS if nobody listens at this place. */
static int open_candidate(struct shmq_connection *c, const struct paths_candidate *candidate,
                          struct error_buffer *why)
{
    if (candidate->fallback) {
        int rc = paths_check_fallback(candidate->runtime_dir, geteuid(), why);

        if (rc != 0)
            return rc < 0 ? rc : SHMQ_ENOBUS;
    }
    int fd = connect_socket(candidate->socket);

    if (fd >= 0) {
        handles_track(&c->socket, fd);
        return 0;
    }
    switch (-fd) {
    case EAGAIN: /* its backlog is full: it lives, and is busy */
        return SHMQ_EAGAIN;
    case ENOENT:
    case ENOTDIR:
    case ECONNREFUSED:
    case EPROTOTYPE:
        return SHMQ_ENOBUS;
    case EACCES:
    case EPERM:
        return error_set(
            why, SHMQ_EPERM,
            "bus %s: no permission to connect to %s; ask its owner to let you (shmqd's "
            "socket mode), or run a bus of your own: %s",
            c->candidates.bus, candidate->socket, c->remedy);
    default:
        return error_set_errno(why, -fd, "bus %s: connecting to %s", c->candidates.bus,
                               candidate->socket);
    }
}

static int open_socket(struct shmq_connection *c, struct error_buffer *why)
{
    int rc = SHMQ_ENOBUS;

    for (unsigned i = 0; i < c->candidates.count && rc == SHMQ_ENOBUS; i++) {
        rc = open_candidate(c, &c->candidates.list[i], why);
        if (rc == 0 && !c->chosen) {
            /* From here on this is the bus: a new one elsewhere is not its successor. */
            if (i > 0)
                c->candidates.list[0] = c->candidates.list[i];
            c->candidates.count = 1;
            c->chosen = true;
        }
    }
    return rc == SHMQ_ENOBUS ? control_nobody_answers(c, why) : rc;
}

/* A full backlog empties, or its owner is stopped: until the deadline. */
static int open_socket_until(struct shmq_connection *c, uint64_t deadline_ns,
                             struct error_buffer *why)
{
    const struct timespec pause = {.tv_nsec = (long)(2 * NS_PER_MS)};

    for (;;) {
        int rc = open_socket(c, why);

        if (rc != SHMQ_EAGAIN)
            return rc;
        if (deadline_passed(deadline_ns))
            return error_set(why, SHMQ_ETIMEOUT,
                             "bus %s: its supervisor does not take connections; look what it does",
                             c->candidates.bus);
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

/* ---- hello ----------------------------------------------------------------------------------- */

static int check_bus(const struct shmq_connection *c, const struct session *session,
                     const struct protocol_welcome *welcome, bool registered,
                     struct error_buffer *why)
{
    const struct bus_segment *bus = session->segment.address;
    struct segment_identity identity = {.kind = SEGMENT_BUS};
    int rc = segment_check(&session->segment, &identity, why);

    if (rc < 0)
        return error_prefix(why, rc, "bus %s", c->candidates.bus);
    if (welcome->entry >= bus->client_count ||
        session->segment.bytes < segment_bus_bytes(bus->client_count) ||
        memcmp(bus->boot_id, welcome->boot_id, sizeof(bus->boot_id)) != 0)
        return error_set(why, SHMQ_EPROTO,
                         "bus %s: its segment and its supervisor contradict each other",
                         c->candidates.bus);
    if (atomic_load_explicit(&bus->closed, memory_order_acquire))
        return control_nobody_answers(c, why); /* it is just stopping */
    if (bus->wait_mode == WAIT_MODE_MEMBARRIER && !registered)
        return error_set(why, SHMQ_ENOTSUP,
                         "bus %s: it wakes by membarrier, which this process may not use; allow "
                         "the system call membarrier, or set wait_mode = fence in shmqd's "
                         "configuration and make the bus anew",
                         c->candidates.bus);
    return 0;
}

/* Maps B and makes the session that is to replace the present one. */
static int begin_session(struct shmq_connection *c, const struct protocol_welcome *welcome,
                         struct tracked_fd *bus_fd, bool registered, struct error_buffer *why)
{
    struct session *session = calloc(1, sizeof(*session));
    int rc;

    if (!session)
        return error_set(why, SHMQ_ENOMEM, "bus %s: no memory for a session", c->candidates.bus);
    session->references = 1;
    session->bus_fd.fd = -1;
    rc = segment_map(bus_fd->fd, false, sizeof(struct bus_segment), &session->segment, why);
    if (rc == 0)
        rc = check_bus(c, session, welcome, registered, why);
    if (rc < 0) {
        session_release(session);
        return rc;
    }
    session->bus = session->segment.address;
    session->client = welcome->client;
    session->incarnation = welcome->incarnation;
    session->event = &session->bus->clients[welcome->entry].event;
    session->fence_mode = session->bus->wait_mode == WAIT_MODE_FENCE;
    session->generation = atomic_load_explicit(&c->generation, memory_order_relaxed) + 1;
    handles_move_fd(&session->bus_fd, bus_fd);

    (void)pthread_mutex_lock(&c->lock);
    struct session *old = c->session;

    c->session = session;
    (void)pthread_mutex_unlock(&c->lock);
    /* Release: who sees the number finds the session; a hint, taken up at the next slow path. */
    atomic_store_explicit(&c->generation, session->generation, memory_order_release);
    session_release(old);
    return 0;
}

static int take_welcome(struct shmq_connection *c, struct control_call *call, bool registered,
                        struct error_buffer *why)
{
    struct protocol_welcome welcome;

    memcpy(&welcome, c->buffer, sizeof(welcome));
    if (welcome.resumed && c->session && welcome.client == c->session->client) {
        atomic_store_explicit(&c->session->incarnation, welcome.incarnation, memory_order_relaxed);
        return 0;
    }
    if (welcome.resumed || call->fd_count != 1 || welcome.client == CLIENT_NONE)
        return error_set(why, SHMQ_EPROTO,
                         "bus %s: the supervisor's welcome contradicts itself; is it another "
                         "version?",
                         c->candidates.bus);
    return begin_session(c, &welcome, &call->fds[0], registered, why);
}

/* One hello on a fresh socket. SHMQ_ECLOSED: the identity is not known any more. */
static int greet(struct shmq_connection *c, bool resume, bool registered, uint64_t deadline_ns,
                 struct error_buffer *why)
{
    struct control_call call = {.deadline_ns = deadline_ns};
    struct protocol_hello hello = {
        .fingerprint = LAYOUT_FINGERPRINT,
        .flags = registered ? HELLO_MEMBARRIER : 0,
    };
    int rc;

    for (unsigned i = 0; i < PROTOCOL_FDS_MAX; i++)
        call.fds[i].fd = -1;
    protocol_begin(&hello.header, PROTOCOL_HELLO, sizeof(hello));
    hello.header.id = ++c->next_id;
    if (resume) {
        hello.resume_client = c->session->client;
        memcpy(hello.boot_id, c->session->bus->boot_id, sizeof(hello.boot_id));
    }
    rc = control_send(c, &hello.header, deadline_ns, why);
    if (rc != 0)
        return rc;
    rc = control_receive(c, &call, why);
    if (rc < 0 || rc == CONTROL_LOST)
        return rc;
    rc = protocol_check_reply(c->buffer, (size_t)rc, &hello.header, sizeof(struct protocol_welcome),
                              0, why);
    if (rc == 0)
        rc = call.fds_lost ? control_refuse_lost_fds(c, why)
                           : take_welcome(c, &call, registered, why);
    control_drop_fds(&call);
    return rc;
}

int control_hello(struct shmq_connection *c, uint64_t deadline_ns, struct error_buffer *why)
{
    bool registered = wait_register_process(); /* lost at exec, so at every hello */
    bool resume =
        c->session && !atomic_load_explicit(&c->session->bus->closed, memory_order_acquire);

    for (;;) {
        int rc = open_socket_until(c, deadline_ns, why);

        if (rc < 0)
            return rc;
        rc = greet(c, resume, registered, deadline_ns, why);
        if (rc == 0)
            return 0;
        handles_close_fd(&c->socket);
        if (rc != SHMQ_ECLOSED || !resume)
            return rc;
        resume = false; /* start over, as somebody new */
    }
}
