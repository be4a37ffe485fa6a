/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: the listening socket, and one peer for each connection that was accepted.
 *
 * SOCK_SEQPACKET, one request one reply. Nobody is waited for: a reply that cannot be sent at once,
 * because its reader does not read, ends the connection, and so does garbage, a foreign version, or
 * silence instead of HELLO. Each peer gets one request a round of the loop, so that who floods
 * slows only himself. Who a peer is says the kernel (SO_PEERCRED). The end of a connection is not
 * the end of a client: see client.h.
 *
 * Exclusion: the control thread alone. Nothing blocks.
 */
#ifndef SHMQ_DAEMON_PEER_H
#define SHMQ_DAEMON_PEER_H

#include "daemon/loop.h"
#include "libshmq/error.h"
#include "libshmq/protocol.h"

#include <stdbool.h>
#include <sys/types.h>

struct realm;
struct client;
struct user;

struct peer {
    struct peers *peers;
    struct peer *next;
    struct peer *previous;
    struct client *client; /* NULL before HELLO */
    struct user *user;
    int fd;
    pid_t pid;
    uint32_t uid;
    struct loop_source source;
    struct loop_timer hello_timer;
};

struct peers {
    struct realm *realm;
    int listen_fd; /* -1: not listening */
    bool named;    /* we bound the socket, and unlink it */
    struct loop_source source;
    struct loop_timer pause; /* running: out of descriptors, not accepting */
    struct peer *first;
    uint32_t count;
    uint32_t limit;
    _Alignas(8) unsigned char request[PROTOCOL_BYTES_MAX];
    _Alignas(8) unsigned char reply[PROTOCOL_BYTES_MAX];
};

/* Listens on the realm's socket, or on `inherited_fd` if that is not -1 (taken over in any case). A
 * socket of a supervisor that died is removed; if somebody answers on it: SHMQ_EBUSY. */
int peers_open(struct peers *peers, struct realm *realm, int inherited_fd,
               struct error_buffer *why);

/* Ends all connections, without a word to the clients' entries. A zeroed one with listen_fd -1 is
 * fine. */
void peers_close(struct peers *peers);

/* Ends one connection. */
void peer_drop(struct peer *peer);

#endif
