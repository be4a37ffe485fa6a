/* SPDX-License-Identifier: Apache-2.0 */
/* metadata_cursors.c: where groups of durable topics stand, written down as they read on; see metadata.h. */
#include "daemon/metadata.h"

#include "daemon/group.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#define EVERY_NS  NS_PER_S
#define SOON_NS   (100 * NS_PER_MS)
#define BATCH_MAX 1024u /* of one sync */

/* Those that moved, until they are put; and where it is noted that they were. */
struct moved {
    struct store_cursor cursors[BATCH_MAX];
    uint64_t *saved[BATCH_MAX];
    size_t count;
    uint32_t put;
};

static int put_moved(struct store *store, struct moved *moved, struct error_buffer *why)
{
    int rc = store_put_cursors(store, moved->cursors, moved->count, why);

    for (size_t i = 0; rc == 0 && i < moved->count; i++)
        *moved->saved[i] = moved->cursors[i].offset;
    moved->put += rc == 0 ? (uint32_t)moved->count : 0;
    moved->count = 0;
    FAULT("metadata.cursors.saved");
    return rc;
}

static int look_at_group(struct store *store, struct moved *moved, struct group *group,
                         struct error_buffer *why)
{
    struct topic *topic = group->topic;
    uint64_t offset;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < group->segment_count; i++) {
        if (!group_read_cursor(group, &topic->partitions[i], &offset) || offset == group->saved[i])
            continue;
        moved->cursors[moved->count] = (struct store_cursor){
            .topic = topic->id, .group = group->id, .partition = i, .offset = offset};
        moved->saved[moved->count++] = &group->saved[i];
        if (moved->count == BATCH_MAX)
            rc = put_moved(store, moved, why);
    }
    return rc;
}

static int look_at_all(struct realm *realm, struct moved *moved, struct error_buffer *why)
{
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);
    int rc = entries ? 0 : error_set(why, SHMQ_ENOMEM, "metadata: out of memory for cursors");

    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        struct topic *topic = CONTAINER_OF(entries[i], struct topic, entry);

        for (uint32_t gate = 0; rc == 0 && gate < GATES_MAX && topic_is_durable(topic); gate++) {
            if (topic->groups[gate])
                rc = look_at_group(realm->store, moved, topic->groups[gate], why);
        }
    }
    free(entries);
    return rc;
}

int metadata_save_cursors(struct realm *realm, struct group *group, uint32_t *ret_saved,
                          struct error_buffer *why)
{
    struct moved *moved = calloc(1, sizeof(*moved)); /* 40 KiB */
    int rc;

    *ret_saved = 0;
    if (!moved)
        return error_set(why, SHMQ_ENOMEM, "metadata: out of memory for cursors");
    rc = group ? look_at_group(realm->store, moved, group, why) : look_at_all(realm, moved, why);
    if (rc == 0 && moved->count > 0)
        rc = put_moved(realm->store, moved, why);
    *ret_saved = moved->put;
    free(moved);
    metadata_snapshot_later(realm);
    return rc;
}

static bool has_durable_members(const struct realm *realm)
{
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);
    bool found = !entries; /* out of memory: go on */

    for (uint32_t i = 0; entries && !found && i < count; i++) {
        const struct topic *topic = CONTAINER_OF(entries[i], struct topic, entry);

        for (uint32_t gate = 0; !found && gate < GATES_MAX && topic_is_durable(topic); gate++)
            found = topic->groups[gate] && topic->groups[gate]->member_count > 0;
    }
    free(entries);
    return found;
}

static void on_cursors(struct loop_timer *timer, void *context);

static void look_after(struct realm *realm, uint64_t delay_ns)
{
    uint64_t deadline_ns = clock_monotonic_ns() + delay_ns;

    if (!loop_timer_is_set(&realm->cursors) || realm->cursors.deadline_ns > deadline_ns)
        loop_timer_set(&realm->loop, &realm->cursors, deadline_ns, on_cursors, realm);
}

static void on_cursors(struct loop_timer *timer UNUSED, void *context)
{
    struct realm *realm = context;
    uint64_t begun_ns = clock_monotonic_ns();
    struct error_buffer why;
    uint32_t saved;
    int rc = metadata_save_cursors(realm, NULL, &saved, &why);

    if (rc < 0 && !realm->cursors_failed)
        log_warning(
            "metadata: where groups stand is not saved: %s; tried again every second; after a "
            "crash of the host they would read again what came since",
            why.text);
    else if (rc == 0 && realm->cursors_failed)
        log_info("metadata: where groups stand is saved again");
    realm->cursors_failed = rc < 0;
    /* Once more after the last change: a commit may have come between a look and a leave. On a disk that is
     * busy with something else syncs take long, and requests wait for them: at most a tenth of the time. */
    if (rc < 0 || saved > 0 || has_durable_members(realm))
        look_after(realm, max_u64(EVERY_NS, 10 * (clock_monotonic_ns() - begun_ns)));
}

void metadata_watch_cursors(struct realm *realm, bool soon)
{
    if (!realm->config.ephemeral)
        look_after(realm, soon ? SOON_NS : EVERY_NS);
}
