/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry: name → topic and id → topic.
 *
 * Two liburcu hash tables over entries that are embedded in their owners. The control thread alone
 * adds and removes; any thread that is registered with liburcu (urcu-memb) may find and walk inside
 * rcu_read_lock() … rcu_read_unlock(), and what it finds stays readable until it unlocks. Removed
 * entries are retired, and freed together after a grace period by registry_reap(). Not call_rcu():
 * the thread that it makes cannot be ended without a leak in liburcu 0.13, and embedded supervisors
 * come and go; grace periods are short, since readers do not block.
 *
 *                       | registry_add/remove/reap | registry_find_* , _collect
 *   add/remove/reap     |   control thread         |   yes
 *   find, collect       |   yes                    |   yes
 *
 * Lookups never block; registry_reap() waits for readers that were at it before. Private memory:
 * nothing here outlives the process.
 */
#ifndef SHMQ_DAEMON_REGISTRY_H
#define SHMQ_DAEMON_REGISTRY_H

#include "libshmq/base.h"
#include "libshmq/error.h"

#define RCU_MEMBARRIER
#include <urcu.h>

#include <urcu/rculfhash.h>

#include <stdbool.h>

struct registry_entry {
    const char *name; /* the owner's, constant while the entry is in */
    uint64_t id;
    void (*free)(struct registry_entry *entry);
    struct cds_lfht_node by_name;
    struct cds_lfht_node by_id;
    struct registry_entry *retired_next;
};

struct registry {
    struct cds_lfht *names; /* NULL: not initialised */
    struct cds_lfht *ids;
    struct registry_entry *retired;
    uint32_t count;
};

/* By the control thread, which registers with liburcu first. 0 or SHMQ_ENOMEM. */
int registry_init(struct registry *registry, struct error_buffer *why);

/* Removes and frees all entries. By the control thread; a zeroed registry is fine. */
void registry_deinit(struct registry *registry);

/* 0; SHMQ_EEXIST: an entry of this name or id is in already. */
int registry_add(struct registry *registry, struct registry_entry *entry);

/* Out of both tables at once for later lookups; retired. */
void registry_remove(struct registry *registry, struct registry_entry *entry);

/* Frees what was retired, when no reader can have it any more. Nothing to do costs nothing. */
void registry_reap(struct registry *registry);

/* NULL if there is none. Inside rcu_read_lock(), or in the control thread. */
struct registry_entry *registry_find_name(const struct registry *registry, const char *name);
struct registry_entry *registry_find_id(const struct registry *registry, uint64_t id);

/* All entries in the order of their names: an array for free(), NULL when there is no memory for
 * it. Where found: as above. */
struct registry_entry **registry_collect(const struct registry *registry, uint32_t *ret_count);

#endif
