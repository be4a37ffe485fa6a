/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry: name → topic and id → topic.
 *
 * Two liburcu hash tables over entries that are embedded in their owners. The control thread alone
 * adds and removes; any thread that is registered with liburcu (urcu-memb) may find and walk inside
 * rcu_read_lock() … rcu_read_unlock(), and what it finds stays readable until it unlocks. A removed
 * entry is freed by `free` after a grace period, in liburcu's thread, or at registry_deinit().
 *
 *                   | registry_add/remove | registry_find_* , _collect
 *   add/remove      |   control thread    |   yes
 *   find, collect   |   yes               |   yes
 *
 * Lookups never block; registry_deinit() waits for the grace periods of what was removed. Private
 * memory: nothing here outlives the process.
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
    void (*free)(struct registry_entry *entry); /* any thread */
    struct cds_lfht_node by_name;
    struct cds_lfht_node by_id;
    struct rcu_head rcu;
};

struct registry {
    struct cds_lfht *names; /* NULL: not initialised */
    struct cds_lfht *ids;
    struct call_rcu_data *worker; /* frees; its own, so that it ends with this supervisor */
    uint32_t count;
};

/* By the control thread, which registers with liburcu first. 0 or SHMQ_ENOMEM. */
int registry_init(struct registry *registry, struct error_buffer *why);

/* Removes and frees all entries. By the control thread; a zeroed registry is fine. */
void registry_deinit(struct registry *registry);

/* 0; SHMQ_EEXIST: an entry of this name or id is in already. */
int registry_add(struct registry *registry, struct registry_entry *entry);

/* Out of both tables at once for later lookups; freed when no reader can have it any more. */
void registry_remove(struct registry *registry, struct registry_entry *entry);

/* NULL if there is none. Inside rcu_read_lock(), or in the control thread. */
struct registry_entry *registry_find_name(const struct registry *registry, const char *name);
struct registry_entry *registry_find_id(const struct registry *registry, uint64_t id);

/* All entries in the order of their names: an array for free(), NULL when there is no memory for
 * it. Where found: as above. */
struct registry_entry **registry_collect(const struct registry *registry, uint32_t *ret_count);

#endif
