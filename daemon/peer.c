/* SPDX-License-Identifier: Apache-2.0 */
/* peer.c: connections, one request at a time; see peer.h. */
#include "daemon/peer.h"

#include "daemon/cleanup.h"
#include "daemon/client.h"
#include "daemon/command.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "daemon/metadata.h"
#include "daemon/realm.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define HELLO_WITHIN_NS (5 * NS_PER_S)
#define PAUSE_NS        (100 * NS_PER_MS)
#define ACCEPT_BATCH    64
#define SEND_BYTES      (2 * (int)PROTOCOL_BYTES_MAX) /* unread replies that a peer may pile up */
#define OWN_DESCRIPTORS 128u /* of the supervisor and the program around it */
#define GREETINGS_MAX   16u  /* of a user beyond their limit: to be told why, or to resume */

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

/* ---- ending ---------------------------------------------------------------------------------- */

void peer_drop(struct peer *peer)
{
    struct peers *peers = peer->peers;

    loop_timer_stop(&peer->hello_timer);
    loop_remove(&peer->source);
    (void)close(peer->fd);
    if (peer->next)
        peer->next->previous = peer->previous;
    if (peer->previous)
        peer->previous->next = peer->next;
    else
        peers->first = peer->next;
    peers->count--;
    peer->user->connections--;
    if (peer->client)
        client_set_peer(peer->client, NULL);
    free(peer);
}

/* The connection has ended, by whichever side; that prompts the question whether its client has. */
static void end(struct peer *peer, const char *reason)
{
    struct client *client = peer->client;

    peer_drop(peer);
    if (client && client_is_dead(client))
        cleanup_client(client, reason);
}

static void on_hello_timer(struct loop_timer *timer UNUSED, void *context)
{
    struct peer *peer = context;

    log_warning("connection of pid %ld, user %u: no hello within 5 s; dropped", (long)peer->pid,
                peer->uid);
    end(peer, "silence");
}

/* ---- requests -------------------------------------------------------------------------------- */

static void close_fds(struct command *command)
{
    for (unsigned i = 0; i < command->fd_count; i++)
        (void)close(command->fds[i]);
    command->fd_count = 0;
}

static int send_reply(struct peer *peer, struct command *command)
{
    int rc = protocol_send(peer->fd, command->reply, command->reply_bytes, command->fds,
                           command->fd_count);

    close_fds(command);
    if (rc == SHMQ_EAGAIN)
        log_warning("client of pid %ld, user %u: does not read its replies; dropped",
                    (long)peer->pid, peer->uid);
    return rc;
}

/* Whatever is wrong with what it said, it is told once, and its connection ends. */
static void refuse(struct peer *peer, int code, const struct error_buffer *why)
{
    struct protocol_failure failure;

    memset(&failure, 0, sizeof(failure));
    protocol_begin(&failure.header, PROTOCOL_HELLO, sizeof(failure));
    if (((struct protocol_header *)(void *)peer->peers->request)->magic == PROTOCOL_MAGIC) {
        failure.header.type = ((struct protocol_header *)(void *)peer->peers->request)->type;
        failure.header.id = ((struct protocol_header *)(void *)peer->peers->request)->id;
    }
    failure.header.status = code;
    memcpy(failure.text, why->text, sizeof(failure.text));
    log_warning("connection of pid %ld, user %u: %s; dropped", (long)peer->pid, peer->uid,
                why->text);
    (void)protocol_send(peer->fd, &failure, sizeof(failure), NULL, 0);
    end(peer, "it broke the protocol");
}

/* One reply may be unread, and then no request is due: descriptors in flight are counted to us. */
static bool owes_reading(const struct peer *peer)
{
    int unread = 0;

    return ioctl(peer->fd, SIOCOUTQ, &unread) == 0 && unread > 0;
}

static void serve(struct peer *peer)
{
    struct peers *peers = peer->peers;
    struct realm *realm = peers->realm;
    struct command command = {
        .realm = realm,
        .peer = peer,
        .request = peers->request,
        .reply = peers->reply,
    };
    bool greeted = peer->client != NULL;
    int rc = command_run(&command);
    struct client *client = peer->client;

    FAULT("command.before_reply");
    if (send_reply(peer, &command) < 0 || (rc < 0 && !greeted)) {
        end(peer, "its connection broke");
    } else if (command.goodbye && client) {
        client->gone = true; /* it has promised to write no more: its claims are a dead one's */
        cleanup_client(client, "it said good-bye");
    } else if (!greeted) {
        loop_timer_stop(&peer->hello_timer);
    }
    FAULT("command.after_reply");
    registry_reap(&realm->registry);
    metadata_snapshot_later(realm);
}

static void on_readable(struct loop_source *source UNUSED, uint32_t events UNUSED, void *context)
{
    struct peer *peer = context;
    struct peers *peers = peer->peers;
    struct error_buffer why;
    int got;

    memset(peers->request, 0, sizeof(struct protocol_header));
    got = protocol_receive(peer->fd, peers->request, sizeof(peers->request), NULL, NULL);
    if (got == SHMQ_EAGAIN)
        return;
    if (got == SHMQ_EPROTO) {
        (void)error_set(&why, SHMQ_EPROTO,
                        "control message: too long, or with descriptors; neither is spoken here");
        refuse(peer, SHMQ_EPROTO, &why);
    } else if (got <= 0) {
        end(peer, "its connection ended");
    } else {
        int rc = protocol_check_request(peers->request, (size_t)got, &why);

        if (rc < 0) {
            refuse(peer, rc, &why);
        } else if (owes_reading(peer)) {
            log_warning("client of pid %ld, user %u: asks again before it has read its reply; "
                        "dropped",
                        (long)peer->pid, peer->uid);
            end(peer, "it does not read its replies");
        } else {
            serve(peer);
        }
    }
}

/* ---- accepting ------------------------------------------------------------------------------- */

static void add_peer(struct peers *peers, int fd)
{
    struct realm *realm = peers->realm;
    struct ucred cred;
    socklen_t length = sizeof(cred);
    const int bytes = SEND_BYTES;
    struct peer *peer = calloc(1, sizeof(*peer));
    struct error_buffer why;

    if (!peer || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0 ||
        (peer->user = user_get(realm, cred.uid)) == NULL ||
        peer->user->connections >= realm->config.connections_per_user + GREETINGS_MAX) {
        (void)close(fd);
        free(peer);
        return;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    peer->peers = peers;
    peer->fd = fd;
    peer->pid = cred.pid;
    peer->uid = cred.uid;
    peer->user->connections++;
    peer->next = peers->first;
    if (peers->first)
        peers->first->previous = peer;
    peers->first = peer;
    peers->count++;
    if (loop_add(&realm->loop, &peer->source, fd, EPOLLIN, on_readable, peer, &why) < 0) {
        log_warning("connection of pid %ld: %s", (long)peer->pid, why.text);
        peer_drop(peer);
        return;
    }
    loop_timer_set(&realm->loop, &peer->hello_timer, clock_monotonic_ns() + HELLO_WITHIN_NS,
                   on_hello_timer, peer);
}

static void on_connection(struct loop_source *source, uint32_t events, void *context);

static void on_pause(struct loop_timer *timer UNUSED, void *context)
{
    struct peers *peers = context;
    struct error_buffer why;

    if (loop_add(&peers->realm->loop, &peers->source, peers->listen_fd, EPOLLIN, on_connection,
                 peers, &why) < 0)
        log_error("the control socket cannot be watched: %s; restart shmqd", why.text);
}

/* The backlog keeps who comes meanwhile. Level-triggered, it would be told again and again. */
static void pause_accepting(struct peers *peers)
{
    loop_remove(&peers->source);
    loop_timer_set(&peers->realm->loop, &peers->pause, clock_monotonic_ns() + PAUSE_NS, on_pause,
                   peers);
}

static void on_connection(struct loop_source *source UNUSED, uint32_t events UNUSED, void *context)
{
    struct peers *peers = context;

    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd;

        if (peers->count >= peers->limit) {
            log_warning(
                "%u connections, as many as there are descriptors for; new ones wait; raise "
                "LimitNOFILE",
                peers->count);
            pause_accepting(peers);
            return;
        }
        fd = accept4(peers->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            add_peer(peers, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN) {
            log_warning("accept: %m; new connections wait; raise LimitNOFILE or free memory");
            pause_accepting(peers);
        }
        return;
    }
}

/* A socket and a pidfd each. */
static uint32_t find_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 256;
    if (limit.rlim_cur < 2 * OWN_DESCRIPTORS)
        return OWN_DESCRIPTORS / 4;
    return (uint32_t)(min_u64(limit.rlim_cur - OWN_DESCRIPTORS, 2000000) / 2);
}

int peers_open(struct peers *peers, struct realm *realm, int inherited_fd, struct error_buffer *why)
{
    int rc = 0;

    memset(peers, 0, offsetof(struct peers, request));
    peers->realm = realm;
    peers->limit = find_limit();
    peers->listen_fd = inherited_fd;
    if (inherited_fd >= 0) {
        int flags = fcntl(inherited_fd, F_GETFL);

        /* Accepting goes on until nobody is left: that must not wait for the next one. */
        if (flags < 0 || fcntl(inherited_fd, F_SETFL, flags | O_NONBLOCK) < 0)
            rc = error_set_errno(why, errno, "the socket that was handed down");
    } else {
        rc = listener_open(&realm->paths, &realm->config, &peers->listen_fd, why);
        peers->named = rc == 0;
    }
    /* Inherited by what it accepts. Descriptors sent to us would be closed by us, and closing may
     * take its time; kernels that cannot refuse them leave it at that. */
    if (rc == 0)
        (void)setsockopt(peers->listen_fd, SOL_SOCKET, SO_PASSRIGHTS, &(int){0}, sizeof(int));
    if (rc == 0)
        rc = loop_add(&realm->loop, &peers->source, peers->listen_fd, EPOLLIN, on_connection, peers,
                      why);
    if (rc < 0)
        peers_close(peers);
    return rc;
}

void peers_close(struct peers *peers)
{
    struct peer *next;

    if (peers->listen_fd < 0)
        return;
    for (struct peer *peer = peers->first; peer; peer = next) {
        next = peer->next;
        if (peer->client)
            peer->client->leaving = true; /* we are going ourselves: no tests of the absent */
        peer_drop(peer);
    }
    loop_timer_stop(&peers->pause);
    loop_remove(&peers->source);
    if (peers->named)
        listener_unlink(&peers->realm->paths, peers->listen_fd);
    (void)close(steal_fd(&peers->listen_fd));
}
