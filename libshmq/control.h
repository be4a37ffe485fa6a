/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h: a connection's dealings with shmqd: one request at a time, one reply each, and getting
 * a new socket when the supervisor has died (protocol.h has the messages).
 *
 * A *session* is an identity that shmqd gave this connection: a client id, its entry in B, and the
 * descriptor of B that carries the liveness lock. When a supervisor dies, its successor knows the
 * identity from B, and the connection resumes it: nothing that is open notices. Only when that is
 * refused (another boot of the bus, B gone) the connection begins a new session; what was opened
 * under the old one keeps it, reference-counted, sees at its next slow path that
 * connection.generation has moved on, and opens itself anew by name.
 *
 * Any number of threads may call control_run(); they take turns, each with its own deadline. Blocks
 * until the deadline at most, and some microseconds in steady state. If the process dies here,
 * shmqd sees its pidfd and cleans up after it; if shmqd dies between request and reply, the request
 * is sent again to its successor with the same id, by which that one finds what had been granted
 * already.
 */
#ifndef SHMQ_CONTROL_H
#define SHMQ_CONTROL_H

#include <pthread.h>

#include "libshmq/handles.h"
#include "libshmq/layout.h"
#include "libshmq/paths.h"
#include "libshmq/protocol.h"
#include "libshmq/segment.h"

/* How long a call that had no time left (a poll with timeout 0) may wait for an answer without
 * which it cannot go on: new partitions, a new group's segment. */
#define CONTROL_GRACE_NS UINT64_C(100000000)

struct session {
    _Atomic uint32_t references;
    uint32_t generation;
    struct segment segment;
    const struct bus_segment *bus;
    struct tracked_fd bus_fd; /* keeps the lock on byte [client] */
    uint64_t client;
    const _Atomic uint32_t *event; /* this client's event word */
    _Atomic uint64_t incarnation;  /* of the supervisor that we last spoke with */
    bool fence_mode;
};

/* A request whose reply nobody waited for any more: what it granted is given back later. Room for
 * any. */
union control_grant {
    struct protocol_header header;
    struct protocol_partition_open open;
    struct protocol_group_join join;
    struct protocol_topic_put put;
    struct protocol_list_request list;
    struct protocol_group_request group;
};

struct control_debt;

struct shmq_connection {
    uint32_t fork_count;
    int32_t timeout_ms;
    uint64_t serial;
    char vhost[NAME_BYTES];
    struct paths_candidates candidates;
    char remedy[PATHS_DIR_BYTES + NAME_BYTES + 64]; /* the command that starts the bus */

    /* The turn: `busy` under `lock`. What follows belongs to whose turn it is. */
    pthread_mutex_t lock;
    pthread_cond_t idle;
    bool busy;
    bool chosen; /* candidates.list[0] is the one that answered */
    bool stale;  /* a reply to `grant` is still to come */
    uint32_t next_id;
    struct tracked_fd socket;
    union control_grant grant;
    unsigned char *buffer; /* PROTOCOL_BYTES_MAX */

    /* What could not be given back yet, the oldest first. Added to under `lock`, by whoever gives
     * up; taken in one's turn. */
    struct control_debt *debts;

    struct session *session;     /* changes under `lock` in one's turn */
    _Atomic uint32_t generation; /* session->generation, to be looked at without a lock */

    pthread_mutex_t channels_lock; /* of the list: channel.h */
    struct shmq_channel *channels;
};

/* Not more than one attempt to connect, no waiting for a successor. */
#define CONTROL_ONCE 1u
/* Gives back what shmqd had granted: where it is not answered, it is said again before the next
 * request, or when the connection is looked at next. */
#define CONTROL_OWED 2u

struct control_call {
    /* in */
    struct protocol_header *request;
    const struct session *session; /* not in another session: SHMQ_ECLOSED. NULL: in any */
    void *reply;                   /* begins with a protocol_header */
    size_t reply_bytes;            /* fixed part of the reply */
    size_t room_bytes;             /* room at `reply`; 0: reply_bytes */
    size_t element_bytes;          /* of the array behind; 0: none */
    uint64_t deadline_ns;
    unsigned flags;
    /* out */
    struct tracked_fd fds[PROTOCOL_FDS_MAX];
    unsigned fd_count;
    bool fds_lost; /* with the last reply: this process may not open more descriptors */
    bool answered; /* the request itself, with whatever result */
    bool repeated; /* an earlier attempt may have been granted without our knowing */
};

/* Sends the request and waits for its reply, connecting anew where needed. 0, or the supervisor's
 * error, or SHMQ_ENOBUS, SHMQ_ETIMEOUT, SHMQ_ECLOSED, SHMQ_EPROTO… with a sentence. The descriptors
 * that came belong to the caller, who takes or drops them; after an error there are none. */
int control_run(struct shmq_connection *connection, struct control_call *call,
                struct error_buffer *why);
void control_drop_fds(struct control_call *call);

/* Says hello to the supervisor if there is no session or no socket, and gives back what is owed;
 * for connecting, and for those whom control_is_needed() told to. */
int control_connect(struct shmq_connection *connection, uint64_t deadline_ns, unsigned flags,
                    struct error_buffer *why);

/* Of a connection that nobody uses any more. */
void control_free_debts(struct shmq_connection *connection);

/* Says goodbye, waits for the answer until the deadline, closes the socket. */
void control_disconnect(struct shmq_connection *connection, uint64_t deadline_ns);

/* The present session, referenced; NULL if there never was one. */
struct session *control_session(struct shmq_connection *connection);
struct session *session_reference(struct session *session);
void session_release(struct session *session); /* NULL is fine; unmaps B at the last one */

/* What was opened in this session is to be opened anew. Relaxed loads: a hint that is looked at
 * again and again. */
static inline bool session_is_over(const struct session *session,
                                   const struct shmq_connection *connection)
{
    return atomic_load_explicit(&connection->generation, memory_order_relaxed) !=
               session->generation ||
           atomic_load_explicit(&session->bus->closed, memory_order_relaxed) != 0;
}

/* The socket's other end is gone, or something is owed to it, which a connection that asks for
 * nothing more would keep for ever. At most one system call; false while another thread has its
 * turn, who will see to it. */
bool control_is_needed(struct shmq_connection *connection);

/* There is a supervisor that we have not spoken with. */
static inline bool session_has_new_supervisor(const struct session *session)
{
    return atomic_load_explicit(&session->bus->incarnation, memory_order_relaxed) !=
           atomic_load_explicit(&session->incarnation, memory_order_relaxed);
}

/* Looks a client up in B: true and its pid and command (terminated), or false. */
bool session_find_client(const struct session *session, uint64_t client, uint32_t *ret_pid,
                         char ret_command[16]);

#endif
