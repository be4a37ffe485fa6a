/* SPDX-License-Identifier: Apache-2.0 */
/* registry.c: see registry.h. */
#include "daemon/registry.h"

#include "libshmq/hash.h"

#include <string.h>

#define BUCKETS_FIRST UINT32_C(64)

static unsigned long hash_of_name(const char *name)
{
    return hash_murmur2(name, strlen(name));
}

static unsigned long hash_of_id(uint64_t id)
{
    return hash_murmur2(&id, sizeof(id));
}

static int match_name(struct cds_lfht_node *node, const void *key)
{
    return strcmp(caa_container_of(node, struct registry_entry, by_name)->name, key) == 0;
}

static int match_id(struct cds_lfht_node *node, const void *key)
{
    return caa_container_of(node, struct registry_entry, by_id)->id == *(const uint64_t *)key;
}

int registry_init(struct registry *registry, struct error_buffer *why)
{
    memset(registry, 0, sizeof(*registry));
    /* No automatic resizing: liburcu would start a thread for it that never ends. */
    registry->names = cds_lfht_new(BUCKETS_FIRST, 1, 0, 0, NULL);
    registry->ids = cds_lfht_new(BUCKETS_FIRST, 1, 0, 0, NULL);
    if (!registry->names || !registry->ids) {
        registry_deinit(registry);
        return error_set(why, SHMQ_ENOMEM, "registry: out of memory");
    }
    return 0;
}

void registry_deinit(struct registry *registry)
{
    struct registry_entry **entries;
    uint32_t count;

    if (registry->names && registry->ids) {
        while (registry->count > 0) {
            entries = registry_collect(registry, &count);
            for (uint32_t i = 0; entries && i < count; i++)
                registry_remove(registry, entries[i]);
            free(entries);
        }
    }
    registry_reap(registry);
    if (registry->names)
        (void)cds_lfht_destroy(registry->names, NULL);
    if (registry->ids)
        (void)cds_lfht_destroy(registry->ids, NULL);
    memset(registry, 0, sizeof(*registry));
}

/* Powers of two, with about one entry a bucket. */
static void grow(struct registry *registry)
{
    if (registry->count >= BUCKETS_FIRST && is_power_of_two_u64(registry->count)) {
        cds_lfht_resize(registry->names, 2 * (unsigned long)registry->count);
        cds_lfht_resize(registry->ids, 2 * (unsigned long)registry->count);
    }
}

int registry_add(struct registry *registry, struct registry_entry *entry)
{
    struct cds_lfht_node *node;

    cds_lfht_node_init(&entry->by_name);
    cds_lfht_node_init(&entry->by_id);
    rcu_read_lock();
    /* The id first: whoever finds the name may look for the id. */
    node = cds_lfht_add_unique(registry->ids, hash_of_id(entry->id), match_id, &entry->id,
                               &entry->by_id);
    if (node == &entry->by_id) {
        node = cds_lfht_add_unique(registry->names, hash_of_name(entry->name), match_name,
                                   entry->name, &entry->by_name);
        if (node != &entry->by_name)
            (void)cds_lfht_del(registry->ids, &entry->by_id);
    } else {
        node = NULL;
    }
    rcu_read_unlock();
    if (node != &entry->by_name)
        return SHMQ_EEXIST;
    registry->count++;
    grow(registry);
    return 0;
}

void registry_remove(struct registry *registry, struct registry_entry *entry)
{
    rcu_read_lock();
    (void)cds_lfht_del(registry->names, &entry->by_name);
    (void)cds_lfht_del(registry->ids, &entry->by_id);
    rcu_read_unlock();
    registry->count--;
    entry->retired_next = registry->retired;
    registry->retired = entry;
}

void registry_reap(struct registry *registry)
{
    struct registry_entry *entry = registry->retired;

    if (!entry)
        return;
    registry->retired = NULL;
    synchronize_rcu();
    while (entry) {
        struct registry_entry *next = entry->retired_next;

        entry->free(entry);
        entry = next;
    }
}

struct registry_entry *registry_find_name(const struct registry *registry, const char *name)
{
    struct cds_lfht_iter iter;
    struct cds_lfht_node *node;

    rcu_read_lock();
    cds_lfht_lookup(registry->names, hash_of_name(name), match_name, name, &iter);
    node = cds_lfht_iter_get_node(&iter);
    rcu_read_unlock();
    return node ? caa_container_of(node, struct registry_entry, by_name) : NULL;
}

struct registry_entry *registry_find_id(const struct registry *registry, uint64_t id)
{
    struct cds_lfht_iter iter;
    struct cds_lfht_node *node;

    rcu_read_lock();
    cds_lfht_lookup(registry->ids, hash_of_id(id), match_id, &id, &iter);
    node = cds_lfht_iter_get_node(&iter);
    rcu_read_unlock();
    return node ? caa_container_of(node, struct registry_entry, by_id) : NULL;
}

static int compare_names(const void *a, const void *b)
{
    const struct registry_entry *const *left = a, *const *right = b;

    return strcmp((*left)->name, (*right)->name);
}

struct registry_entry **registry_collect(const struct registry *registry, uint32_t *ret_count)
{
    uint32_t room = registry->count + 1; /* as of now; a reader beside a change gets what fits */
    struct registry_entry **entries = calloc(room, sizeof(void *));
    struct cds_lfht_node *node;
    struct cds_lfht_iter iter;
    uint32_t count = 0;

    if (!entries)
        return NULL;
    rcu_read_lock();
    /* Not cds_lfht_for_each_entry(): it computes an entry from the NULL that ends the walk. */
    for (cds_lfht_first(registry->ids, &iter); (node = cds_lfht_iter_get_node(&iter)) != NULL;
         cds_lfht_next(registry->ids, &iter)) {
        if (count < room)
            entries[count++] = caa_container_of(node, struct registry_entry, by_id);
    }
    rcu_read_unlock();
    qsort(entries, count, sizeof(void *), compare_names);
    *ret_count = count;
    return entries;
}
