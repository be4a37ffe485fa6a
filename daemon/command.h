/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: one function a type, from a checked request to a reply and its descriptors.
 *
 * Handlers get a request of exactly its type's size (protocol_check_request() has passed) and fill
 * the reply behind its header, or fail with a negative error and a sentence. They decide nothing
 * about memory or descriptors of the connection: command_run() frames what they answer, and peer.c
 * sends and closes.
 *
 * Exclusion: the control thread alone. What a handler blocks on is what the nouns block on: making
 * memory, syncing metadata.
 */
#ifndef SHMQ_DAEMON_COMMAND_H
#define SHMQ_DAEMON_COMMAND_H

#include "daemon/realm.h"
#include "libshmq/protocol.h"

struct peer;
struct topic;
struct partition;

struct command {
    struct realm *realm;
    struct peer *peer;
    const void *request;       /* aligned to 8 */
    void *reply;               /* PROTOCOL_BYTES_MAX, begins with a protocol_header */
    uint32_t reply_bytes;      /* out: all of it; set by the handler */
    uint32_t reply_count;      /* out: elements behind the body */
    int fds[PROTOCOL_FDS_MAX]; /* out: closed after sending */
    unsigned fd_count;
    bool goodbye; /* out: the peer goes when the reply is sent */
};

typedef int command_fn(struct command *command, struct error_buffer *why);

/* Runs the request in command->request. The reply is complete in any case: a failure's is its
 * sentence. Returns 0 or the failure; the caller sends and closes `fds`. */
int command_run(struct command *command);

/* The one place that says who may do what. `topic` may be NULL. Now: who owns the bus, root, and
 * whom the socket's mode and group let in. Permissions of vhosts come here. */
enum permission_verb {
    PERMISSION_CONNECT,
    PERMISSION_READ,
    PERMISSION_WRITE,
    PERMISSION_CONFIGURE
};
int permission_check(const struct realm *realm, const struct peer *peer, enum permission_verb verb,
                     const struct topic *topic, struct error_buffer *why);

/* Body of `bytes` for the reply, zeroed. */
void *command_begin(struct command *command, size_t bytes);

/* Handlers: command_session.c, command_topic.c, command_group.c, command_list.c, command_journal.c */
command_fn command_hello, command_goodbye, command_status;
command_fn command_topic_create, command_topic_describe, command_topic_alter, command_topic_delete,
    command_topic_purge;
command_fn command_partition_open, command_slot_close, command_resolve;
command_fn command_group_join, command_group_leave, command_group_segment, command_group_delete;
command_fn command_topic_list, command_partition_list, command_group_list, command_group_describe,
    command_client_list;
command_fn command_journal_open;

/* What a status says of all journals. */
void command_fill_journals(const struct realm *realm, struct protocol_status_reply *reply);

/* The topic that a request names; SHMQ_EINVAL, SHMQ_ENOTOPIC. */
int command_find_topic(const struct command *command, const char *vhost, const char *name,
                       struct topic **ret_topic, struct error_buffer *why);
int command_find_topic_id(const struct command *command, uint64_t id, struct topic **ret_topic,
                          struct error_buffer *why);

/* One of its partitions; SHMQ_ENOTOPIC, SHMQ_EINVAL, SHMQ_ECORRUPT (quarantined). */
int command_find_partition(const struct command *command, uint64_t topic_id, uint32_t index,
                           struct partition **ret_partition, struct error_buffer *why);

#endif
