/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topics: N partitions and up to GATES_MAX groups under a name.
 *
 * Orders that crashes depend on. Create: segments, metadata synced, reply. Delete: metadata synced,
 * status and CLOSED, everybody woken, unlink. Alter: the new partitions with every group's cursor
 * in them, metadata synced, then S.partition_count, from which clients learn of them. At a start
 * the metadata wins. A step that failed undoes those before it.
 *
 * Exclusion: the control thread changes; others may read what the registry gives them, under
 * liburcu. Blocks while the kernel clears new memory and while the metadata is synced.
 */
#ifndef SHMQ_DAEMON_TOPIC_H
#define SHMQ_DAEMON_TOPIC_H

#include "daemon/partition.h"
#include "daemon/registry.h"
#include "daemon/store.h"
#include "libshmq/protocol.h"

struct realm;
struct user;
struct group;

struct topic {
    struct registry_entry entry; /* by options.name and id */
    struct realm *realm;
    struct topic_options options; /* .partitions as in the metadata */
    uint64_t id;
    uint64_t base; /* of partitions that are made */
    uint64_t created_ns;
    struct user *owner;
    uint64_t bytes; /* shared memory, groups included; counted to the owner */
    struct partition *partitions;
    uint32_t partition_count;
    uint32_t group_count;
    struct group *groups[GATES_MAX]; /* by gate */
};

static inline bool topic_is_durable(const struct topic *topic)
{
    return topic->options.durability != DURABLE_NONE;
}

/* 0; SHMQ_EEXIST, SHMQ_ELIMIT, SHMQ_ENOSPC, … with the sentence; then nothing is left. `options`
 * are complete and checked. */
int topic_create(struct realm *realm, const struct topic_options *options, uint32_t uid,
                 struct topic **ret_topic, struct error_buffer *why);
int topic_delete(struct topic *topic, struct error_buffer *why);

/* Every group goes on at the present end, or at the first claim that is not committed yet. */
int topic_purge(struct topic *topic, struct error_buffer *why);

/* `mask`: ALTER_* of protocol.h. */
int topic_alter(struct topic *topic, const struct topic_options *wanted, uint32_t mask,
                struct error_buffer *why);

void topic_fill_info(struct topic *topic, struct protocol_topic_info *ret_info);

struct topic *topic_find(const struct realm *realm, const char *name);
struct topic *topic_find_id(const struct realm *realm, uint64_t id);

/* The next id of a topic or group, synced before it is given out. */
int topic_next_id(struct realm *realm, uint64_t *ret_id, struct error_buffer *why);

/* Counts bytes to the topic, its owner and the bus. Negative takes away. */
void topic_count_bytes(struct topic *topic, int64_t bytes);

/* SHMQ_ELIMIT when the owner would exceed its quota. */
int topic_check_quota(const struct realm *realm, const struct user *user, uint64_t bytes,
                      const char *what, struct error_buffer *why);

/* ---- topic_start.c: at the supervisor's start and stop --------------------------------------- */

/* Enters a topic of the metadata, without touching segments. */
int topic_load(struct realm *realm, const struct store_topic *stored, struct error_buffer *why);

/* Takes it out again, without touching segments. */
void topic_unload(struct topic *topic);

/* Opens its segments, or begins anew where they are gone. */
int topic_start(struct topic *topic, struct error_buffer *why);

/* How it stands in the metadata. */
void topic_to_store(const struct topic *topic, struct store_topic *ret_stored);

/* registry_entry.free: unmaps and frees. */
void topic_free(struct registry_entry *entry);

/* ---- between the files of this module -------------------------------------------------------- */

/* Memory alone: not in the registry, nothing made. NULL: out of memory. */
struct topic *topic_new(struct realm *realm, const struct store_topic *stored);

/* Into the registry and the counters. */
void topic_enter(struct topic *topic);
int topic_save(const struct topic *topic, struct error_buffer *why);

/* Bytes of one partition, groups not counted. */
uint64_t topic_partition_bytes(const struct topic_options *options);

/* SHMQ_ELIMIT when `more` partitions with `groups` groups each are too many. */
int topic_check_partitions(const struct realm *realm, const char *name, uint32_t more,
                           uint32_t groups, struct error_buffer *why);

/* Makes the partitions from `first` on; on failure takes back those that it made. */
int topic_create_partitions(struct topic *topic, uint32_t first, struct error_buffer *why);
void topic_unlink_partitions(struct topic *topic, uint32_t first);

/* Room for `count` partitions in the topic and its groups; nothing is made. */
int topic_resize(struct topic *topic, uint32_t count, struct error_buffer *why);

#endif
