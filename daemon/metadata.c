/* SPDX-License-Identifier: Apache-2.0 */
/* metadata.c: see metadata.h. */
#include "daemon/metadata.h"

#include "daemon/group.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <inttypes.h>

#define MARKS_EVERY_NS (3600 * NS_PER_S)

struct replay {
    struct realm *realm;
    struct error_buffer *why;
};

static int replay_topic(void *context, const struct store_topic *stored)
{
    struct replay *replay = context;

    return topic_load(replay->realm, stored, replay->why);
}

static int replay_delete_topic(void *context, uint64_t id)
{
    struct replay *replay = context;
    struct topic *topic = topic_find_id(replay->realm, id);

    if (topic)
        topic_unload(topic);
    return 0;
}

static int replay_group(void *context, const struct store_group *stored)
{
    struct replay *replay = context;
    struct topic *topic = topic_find_id(replay->realm, stored->topic);

    replay->realm->next_id = max_u64(replay->realm->next_id, stored->id + 1);
    return topic ? group_load(topic, stored, replay->why) : 0;
}

static int replay_delete_group(void *context, uint64_t topic_id, uint64_t id)
{
    struct replay *replay = context;
    struct topic *topic = topic_find_id(replay->realm, topic_id);
    struct group *group = topic ? group_find_id(topic, id) : NULL;

    if (group)
        group_free(group);
    return 0;
}

static int replay_mark(void *context, const struct store_mark *mark)
{
    struct replay *replay = context;
    struct topic *topic = topic_find_id(replay->realm, mark->topic);

    if (topic && mark->partition < topic->partition_count)
        topic->partitions[mark->partition].mark =
            max_u64(topic->partitions[mark->partition].mark, mark->offset);
    return 0;
}

/* Of what is gone by now: nothing. */
static int replay_cursor(void *context, const struct store_cursor *cursor)
{
    struct replay *replay = context;
    struct topic *topic = topic_find_id(replay->realm, cursor->topic);
    struct group *group;

    if (!topic || cursor->partition >= topic->partition_count)
        return 0;
    if (cursor->group == 0) {
        topic->partitions[cursor->partition].saved_first = cursor->offset;
        return 0;
    }
    group = group_find_id(topic, cursor->group);
    if (group)
        group->saved[cursor->partition] = cursor->offset;
    return 0;
}

static int replay_counter(void *context, uint64_t next_id)
{
    struct replay *replay = context;

    replay->realm->next_id = max_u64(replay->realm->next_id, next_id);
    return 0;
}

static void warn(void *context UNUSED, const char *text)
{
    log_warning("%s", text);
}

/* ---- snapshot -------------------------------------------------------------------------------- */

static int put_cursor(struct store *store, const struct topic *topic, uint64_t group,
                      uint32_t partition, uint64_t offset, struct error_buffer *why)
{
    struct store_cursor cursor = {
        .topic = topic->id, .group = group, .partition = partition, .offset = offset};

    return store_put_cursors(store, &cursor, 1, why);
}

static int put_cursors(struct store *store, const struct topic *topic, struct error_buffer *why)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < topic->partition_count; i++) {
        if (topic->partitions[i].saved_first > 0)
            rc = put_cursor(store, topic, 0, i, topic->partitions[i].saved_first, why);
        for (uint32_t gate = 0; rc == 0 && gate < GATES_MAX; gate++) {
            const struct group *group = topic->groups[gate];

            if (group && group->saved[i] != CURSOR_UNSAVED)
                rc = put_cursor(store, topic, group->id, i, group->saved[i], why);
        }
    }
    return rc;
}

static int put_topic(struct store *store, struct topic *topic, struct error_buffer *why)
{
    struct store_topic stored;
    int rc;

    topic_to_store(topic, &stored);
    rc = store_put_topic(store, &stored, why);
    for (uint32_t gate = 0; rc == 0 && gate < GATES_MAX; gate++) {
        struct store_group group;

        if (!topic->groups[gate])
            continue;
        group_to_store(topic->groups[gate], &group);
        rc = store_put_group(store, &group, why);
    }
    for (uint32_t i = 0; rc == 0 && i < topic->partition_count; i++) {
        struct store_mark mark = {
            .topic = topic->id,
            .partition = i,
            .offset = max_u64(topic->partitions[i].mark, topic->partitions[i].tail_seen),
        };

        topic->partitions[i].mark = mark.offset;
        rc = store_put_mark(store, &mark, why);
    }
    if (rc == 0)
        rc = put_cursors(store, topic, why);
    FAULT("snapshot.topic");
    return rc;
}

static int snapshot(void *context, struct store *store, struct error_buffer *why)
{
    struct replay *replay = context;
    struct realm *realm = replay->realm;
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);
    int rc;

    if (!entries)
        return error_set(why, SHMQ_ENOMEM, "metadata: out of memory for a snapshot");
    rc = store_put_counter(store, max_u64(realm->next_id, realm->ids_set_aside), why);
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = put_topic(store, CONTAINER_OF(entries[i], struct topic, entry), why);
    free(entries);
    return rc;
}

int metadata_open(struct realm *realm, struct error_buffer *why)
{
    static const struct store_callbacks CALLBACKS = {
        .put_topic = replay_topic,
        .delete_topic = replay_delete_topic,
        .put_group = replay_group,
        .delete_group = replay_delete_group,
        .put_mark = replay_mark,
        .put_cursor = replay_cursor,
        .put_counter = replay_counter,
        .warn = warn,
        .snapshot = snapshot,
    };
    struct replay *replay = calloc(1, sizeof(*replay));
    int rc;

    if (!replay)
        return error_set(why, SHMQ_ENOMEM, "metadata: out of memory");
    replay->realm = realm;
    replay->why = why;
    realm->replay = replay; /* the store keeps it for snapshots */
    rc = store_open(realm->config.ephemeral ? NULL : realm->paths.meta_dir, &CALLBACKS, replay,
                    &realm->store, why);
    replay->why = NULL;
    /* An ephemeral bus forgets its ids with its process, but clients of that boot remember them. */
    if (realm->config.ephemeral)
        realm->next_id = max_u64(realm->next_id, realm->bus.incarnation << 32);
    realm->next_id = max_u64(realm->next_id, 1);
    realm->ids_set_aside = realm->next_id;
    return rc;
}

int metadata_snapshot(struct realm *realm, struct error_buffer *why)
{
    int rc;

    FAULT("snapshot.before");
    rc = store_snapshot(realm->store, why);
    FAULT("snapshot.after");
    return rc;
}

static void on_snapshot(struct loop_defer *defer UNUSED, void *context)
{
    struct realm *realm = context;
    struct error_buffer why;

    if (metadata_snapshot(realm, &why) < 0)
        log_warning("metadata: no snapshot: %s; the history goes on growing", why.text);
}

void metadata_snapshot_later(struct realm *realm)
{
    if (store_wants_snapshot(realm->store))
        loop_defer_call(&realm->loop, &realm->snapshot, on_snapshot, realm);
}

/* Reads all tails; the longest way that a log has come since its mark. */
static uint64_t read_tails(struct realm *realm)
{
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);
    uint64_t tail, furthest = 0;

    for (uint32_t i = 0; entries && i < count; i++) {
        struct topic *topic = CONTAINER_OF(entries[i], struct topic, entry);

        for (uint32_t p = 0; p < topic->partition_count; p++) {
            struct partition *partition = &topic->partitions[p];

            if (partition_read_tail(partition, &tail) == 0 && tail > partition->mark)
                furthest = max_u64(furthest, tail - partition->mark);
        }
    }
    free(entries);
    return furthest;
}

static void on_marks(struct loop_timer *timer UNUSED, void *context)
{
    struct realm *realm = context;

    if (read_tails(realm) > PARTITION_JUMP_BYTES / 8)
        metadata_save_marks(realm);
    metadata_watch_marks(realm);
}

void metadata_watch_marks(struct realm *realm)
{
    if (!realm->config.ephemeral)
        loop_timer_set(&realm->loop, &realm->marks, clock_monotonic_ns() + MARKS_EVERY_NS, on_marks,
                       realm);
}

void metadata_save_marks(struct realm *realm)
{
    struct error_buffer why;
    uint32_t saved;

    (void)read_tails(realm);
    (void)metadata_save_cursors(realm, NULL, &saved,
                                &why); /* else the snapshot has the last ones */
    if (metadata_snapshot(realm, &why) < 0)
        log_warning("metadata: no snapshot: %s", why.text);
}
