/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients and users: who is on the bus, whether they live, how much they may have.
 *
 * A client is one connection's identity: an entry in B, and a lock that the kernel drops at its
 * death. It outlives its socket: one that lost it (this supervisor's predecessor died) is *absent*
 * until it resumes, and is tested until then. "Dead" is a kernel fact: the pidfd is readable, or
 * nobody holds the lock (liveness.h). Users are counted by uid.
 *
 * Exclusion: the control thread alone. Nothing blocks. Private memory, but for what bus.h writes.
 */
#ifndef SHMQ_DAEMON_CLIENT_H
#define SHMQ_DAEMON_CLIENT_H

#include "daemon/bus.h"
#include "daemon/loop.h"

#include <stdbool.h>
#include <sys/types.h>

struct realm;
struct peer;

struct user {
    struct user *next;
    uint32_t uid;
    uint32_t connections; /* sockets, before HELLO too */
    uint32_t clients;     /* those that lost their socket too */
    uint64_t bytes;       /* of the topics that this uid created */
    uint32_t slots;
};

struct client {
    struct realm *realm;
    struct bus_client facts; /* id, pid, uid, start time, … as in B */
    uint32_t entry;          /* in B */
    struct user *user;
    struct peer *peer; /* NULL: absent */
    int pidfd;         /* -1: none */
    struct loop_source pidfd_source;
    uint32_t slots;       /* producer slots it owns */
    uint32_t memberships; /* groups */
    bool gone;            /* the kernel said so once, or itself, with good-bye: stays so */
    bool leaving;         /* being cleaned up */
    uint64_t retry_at_ns; /* while leaving: what could not be cleaned up at once */
    uint64_t retry_wait_ns;
    struct client *hash_next;
    struct client *next; /* all, the youngest first */
    struct client *previous;
};

#define CLIENT_BUCKETS 512u

struct clients {
    struct client *buckets[CLIENT_BUCKETS]; /* by id */
    struct client *first;
    uint32_t count;
    uint32_t absent;
    uint64_t absent_wait_ns; /* between two tests of the absent; grows */
    uint64_t absent_due_ns;  /* of the next one; 0: none */
    struct loop_timer absent_timer;
    struct loop_timer retry_timer; /* the next of those that are leaving */
    struct user *users;
};

/* The user of this uid, entered if it is new. NULL: out of memory. Users stay until the end. */
struct user *user_get(struct realm *realm, uint32_t uid);

/* A process that said HELLO: enters it into B. `pidfd` is taken over on success. 0, SHMQ_ELIMIT,
 * SHMQ_ENOMEM, … */
int client_new(struct realm *realm, const struct bus_client *facts, int pidfd,
               struct client **ret_client, struct error_buffer *why);

/* Takes over the clients that stand in B at start: all absent, until they come back or are found
 * dead. */
void clients_adopt(struct realm *realm);

/* Frees all of them, without a word to B. */
void clients_deinit(struct realm *realm);

/* When no client, peer or topic is left. */
void users_free(struct realm *realm);

/* Out of B and of memory; its slots and memberships have been cleared. */
void client_free(struct client *client);

struct client *client_find(const struct realm *realm, uint64_t id); /* NULL: none */

/* Its connection has ended, or begins again with `peer`. */
void client_set_peer(struct client *client, struct peer *peer);

/* Kernel facts only; a system call or two, never blocks. Safe inside guard_run(). */
bool client_is_dead(struct client *client);
bool client_id_is_dead(const struct realm *realm, uint64_t id);

/* Tells it that its assignments or partitions changed. Unknown ids are fine. */
void client_wake(struct realm *realm, uint64_t id);

/* All that publish or consume anything: a topic changed. Needless wake-ups are harmless. */
void clients_wake_active(struct realm *realm);

#endif
