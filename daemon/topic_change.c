/* SPDX-License-Identifier: Apache-2.0 */
/* topic_change.c: alter, purge, delete; see topic.h. */
#include "daemon/topic.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/log.h"
#include "daemon/metadata.h"
#include "daemon/realm.h"
#include "libshmq/cursor.h"
#include "libshmq/fault.h"

#include <inttypes.h>
#include <string.h>

/* ---- altering -------------------------------------------------------------------------------- */

static int resize_groups(struct topic *topic, uint32_t count)
{
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        struct group *group = topic->groups[gate];

        if (group && group->segment_count < count && group_resize(group, count) < 0)
            return SHMQ_ENOMEM;
    }
    return 0;
}

static void count_partitions(struct topic *topic, int64_t more)
{
    topic->realm->partition_count += (uint32_t)more;
    topic_count_bytes(topic, more * (int64_t)(topic_partition_bytes(&topic->options) +
                                              segment_group_bytes(0) * topic->group_count));
}

int topic_resize(struct topic *topic, uint32_t count, struct error_buffer *why)
{
    uint32_t old = topic->partition_count;
    struct partition *partitions;

    if (resize_groups(topic, count) < 0)
        return error_set(why, SHMQ_ENOMEM, "topic %s: out of memory", topic->options.name);
    partitions = realloc(topic->partitions, count * sizeof(partitions[0]));
    if (!partitions)
        return error_set(why, SHMQ_ENOMEM, "topic %s: out of memory", topic->options.name);
    topic->partitions = partitions;
    for (uint32_t i = old; i < count; i++)
        partitions[i] = (struct partition){.topic = topic, .index = i, .mark = topic->base};
    topic->partition_count = count;
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        if (topic->groups[gate])
            topic->groups[gate]->segment_count = count;
    }
    count_partitions(topic, (int64_t)count - old);
    return 0;
}

static void shrink(struct topic *topic, uint32_t count)
{
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        struct group *group = topic->groups[gate];
        char name[SEGMENT_NAME_BYTES];

        for (uint32_t i = count; group && i < topic->partition_count; i++) {
            if (group->segments[i].address)
                topic->realm->mapping_count--;
            segment_unmap(&group->segments[i]);
            (void)segment_name(name, topic->realm->prefix, SEGMENT_GROUP, topic->id, i, gate);
            (void)segment_unlink(name);
        }
        if (group)
            group->segment_count = count;
    }
    count_partitions(topic, (int64_t)count - topic->partition_count);
    topic->partition_count = count;
}

/* A group reads a new partition from its first message on. */
static int enter_groups(struct topic *topic, struct partition *partition, struct error_buffer *why)
{
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        struct group *group = topic->groups[gate];
        struct group_place place = {.from = FROM_EARLIEST};
        int rc = 0;

        if (!group)
            continue;
        rc = group_make_segment(group, partition, why);
        if (rc == 0)
            rc = group_enter_gate(group, partition);
        if (rc == 0)
            rc = group_attach_cursor(group, partition, &place, why);
        if (rc == 0 && group->state == GATE_IDLE)
            group_set_gate_state(group, partition, GATE_IDLE);
        if (rc < 0)
            return rc;
        group_enter_members(group, partition->index);
        FAULT("topic.alter.group");
    }
    return 0;
}

static int grow(struct topic *topic, uint32_t count, struct error_buffer *why)
{
    uint32_t old = topic->partition_count;
    int rc = topic_check_partitions(topic->realm, topic->options.name, count - old,
                                    topic->group_count, why);

    if (rc == 0)
        rc = topic_check_quota(
            topic->realm, topic->owner,
            (topic_partition_bytes(&topic->options) + segment_group_bytes(0) * topic->group_count) *
                (count - old),
            topic->options.name, why);
    if (rc == 0)
        rc = topic_resize(topic, count, why);
    if (rc < 0)
        return rc;
    topic->options.partitions = count;
    rc = topic_create_partitions(topic, old, why);
    if (rc < 0) {
        shrink(topic, old);
        topic->options.partitions = old;
        return rc;
    }
    for (uint32_t i = old; rc == 0 && i < count; i++)
        rc = enter_groups(topic, &topic->partitions[i], why);
    FAULT("topic.alter.entered");
    /* Before the metadata: a group without an assignment anywhere would pass for one half made. */
    for (uint32_t gate = 0; rc == 0 && gate < GATES_MAX; gate++) {
        if (topic->groups[gate])
            group_assign(topic->groups[gate]);
    }
    FAULT("topic.alter.segments");
    return rc;
}

static void undo_grow(struct topic *topic, uint32_t old)
{
    if (topic->partition_count == old)
        return;
    topic_unlink_partitions(topic, old);
    for (uint32_t i = old; i < topic->partition_count; i++) {
        partition_stop_flushing(&topic->partitions[i]);
        partition_unmap(&topic->partitions[i]);
        topic->realm->mapping_count -= 3;
    }
    shrink(topic, old);
}

struct publish_work {
    struct partition *partition;
    const struct topic_options *options;
};

static int publish_options(void *context)
{
    struct publish_work *work = context;
    struct state_segment *state = partition_state(work->partition);

    atomic_store_explicit(&state->max_message, work->options->max_message, memory_order_relaxed);
    /* Release: a partition that is counted is there. */
    atomic_store_explicit(&state->partition_count, work->options->partitions, memory_order_release);
    return 0;
}

/* Tells the flusher of each partition what it is to keep, and how often to sync. */
static void apply_journal_options(struct topic *topic)
{
    for (uint32_t i = 0; i < topic->partition_count; i++)
        partition_set_flush_options(&topic->partitions[i]);
}

static int check_alter(const struct topic *topic, const struct topic_options *wanted, uint32_t mask,
                       struct error_buffer *why)
{
    const struct topic_options *now = &topic->options;

    if ((mask & ALTER_PARTITIONS) && wanted->partitions < now->partitions)
        return error_set(why, SHMQ_EINVAL,
                         "topic %s: it has %" PRIu32
                         " partitions; they can be added, not taken away: make a new topic",
                         now->name, now->partitions);
    if ((mask & ALTER_PARTITIONS) && wanted->partitions > PARTITIONS_MAX)
        return error_set(why, SHMQ_EINVAL, "topic %s: %" PRIu32 " partitions: at most %u",
                         now->name, wanted->partitions, PARTITIONS_MAX);
    if ((mask & ALTER_MAX_MESSAGE) &&
        (wanted->max_message == 0 || wanted->max_message > ring_max_message(now->ring_bytes)))
        return error_set(why, SHMQ_EINVAL,
                         "topic %s: max message of %" PRIu32 " bytes: its ring takes 1 to %" PRIu32,
                         now->name, wanted->max_message, ring_max_message(now->ring_bytes));
    return 0;
}

/* All but the partitions, which are made. */
static int take_options(struct topic_options *options, const struct topic_options *wanted,
                        uint32_t mask, struct error_buffer *why)
{
    if (mask & ALTER_LINGER)
        options->linger_ns = wanted->linger_ns;
    if (mask & ALTER_MAX_MESSAGE)
        options->max_message = wanted->max_message;
    if (mask & ALTER_RETAIN_BYTES)
        options->retain_bytes = wanted->retain_bytes;
    if (mask & ALTER_RETAIN_TIME)
        options->retain_ns = wanted->retain_ns;
    if (mask & ALTER_SYNC_INTERVAL)
        options->sync_interval_ns = wanted->sync_interval_ns;
    return topic_options_check_journal(options, why);
}

int topic_alter(struct topic *topic, const struct topic_options *wanted, uint32_t mask,
                struct error_buffer *why)
{
    struct topic_options before = topic->options;
    struct topic_options after = topic->options;
    int rc = check_alter(topic, wanted, mask, why);

    if (rc == 0)
        rc = take_options(&after, wanted, mask, why);
    if (rc < 0)
        return rc;
    if ((mask & ALTER_PARTITIONS) && wanted->partitions > before.partitions)
        rc = grow(topic, wanted->partitions, why);
    after.partitions = topic->options.partitions;
    topic->options = after;
    if (rc == 0)
        rc = topic_save(topic, why);
    if (rc < 0) {
        undo_grow(topic, before.partitions);
        topic->options = before;
        return rc;
    }
    FAULT("topic.alter.saved");
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        struct publish_work work = {.partition = &topic->partitions[i], .options = &topic->options};

        (void)partition_run(&topic->partitions[i], NULL, publish_options, &work);
        FAULT("topic.alter.published");
    }
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        if (topic->groups[gate])
            group_set_linger(topic->groups[gate]);
    }
    apply_journal_options(topic);
    clients_wake_active(topic->realm);
    log_info("topic %s: altered: %" PRIu32 " partitions, max message %" PRIu32, before.name,
             topic->options.partitions, topic->options.max_message);
    return 0;
}

/* ---- purging, deleting ----------------------------------------------------------------------- */

struct purge_work {
    struct partition *partition;
    const struct ring *ring;
    uint64_t tail;
    uint64_t end;
    struct gate *gate;
    uint32_t owner;
};

/* To the end, or to the first claim in progress: it is committed after the purge. */
static int find_end(void *context)
{
    struct purge_work *work = context;
    const struct state_segment *state = partition_state(work->partition);
    uint64_t first = atomic_load_explicit(&state->first, memory_order_relaxed);

    work->end = min_u64(work->tail, ring_lowest_unstamped(work->ring, first, work->tail));
    work->end = max_u64(work->end, first);
    return 0;
}

static int raise_first(void *context)
{
    struct purge_work *work = context;

    /* Nobody else moves it. */
    atomic_store_explicit(&partition_state(work->partition)->first, work->end,
                          memory_order_release);
    return 0;
}

static int read_owner(void *context)
{
    struct purge_work *work = context;

    work->owner = assign_member(atomic_load_explicit(&work->gate->assign, memory_order_acquire));
    return 0;
}

/* Where each partition is purged to. UINT64_MAX: not at all, it is quarantined and holds nothing that could be
 * read. */
static int find_ends(struct topic *topic, uint64_t *ends, struct error_buffer *why)
{
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        struct partition_view view;
        struct purge_work work = {.partition = &topic->partitions[i], .ring = &view.ring};
        int rc = partition_read_tail(work.partition, &work.tail);

        if (rc == 0)
            rc = partition_view_open(work.partition, &view, why);
        if (rc == 0) {
            rc = partition_view_run(&view, find_end, &work);
            partition_view_close(&view);
        }
        if (rc < 0 && rc != SHMQ_ECORRUPT)
            return rc;
        ends[i] = rc == 0 ? work.end : UINT64_MAX;
    }
    return 0;
}

/* On disk before anybody acts by it: what was purged must not come back with the journal. */
static int save_ends(struct topic *topic, const uint64_t *ends, struct error_buffer *why)
{
    struct store_cursor *cursors = calloc(topic->partition_count, sizeof(cursors[0]));
    size_t count = 0;
    int rc;

    if (!cursors)
        return error_set(why, SHMQ_ENOMEM, "topic %s: out of memory", topic->options.name);
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        if (ends[i] != UINT64_MAX)
            cursors[count++] =
                (struct store_cursor){.topic = topic->id, .partition = i, .offset = ends[i]};
    }
    rc = store_put_cursors(topic->realm->store, cursors, count, why);
    for (size_t i = 0; rc == 0 && i < count; i++)
        topic->partitions[cursors[i].partition].saved_first = cursors[i].offset;
    free(cursors);
    FAULT("topic.purge.saved");
    return rc;
}

static void purge_partition(struct topic *topic, struct partition *partition, uint64_t end)
{
    struct purge_work work = {.partition = partition, .end = end};

    if (partition_run(partition, NULL, raise_first, &work) < 0)
        return;
    FAULT("topic.purge.first");
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        if (!topic->groups[gate])
            continue;
        work.gate = &partition_state(partition)->gates[gate];
        if (partition_run(partition, NULL, read_owner, &work) == 0)
            (void)group_hand_over(topic->groups[gate], partition, work.owner, &work.end);
        FAULT("topic.purge.group");
    }
    partition_wake(partition);
}

int topic_purge(struct topic *topic, struct error_buffer *why)
{
    uint64_t *ends = calloc(topic->partition_count, sizeof(ends[0]));
    int rc = ends ? find_ends(topic, ends, why)
                  : error_set(why, SHMQ_ENOMEM, "topic %s: out of memory", topic->options.name);

    if (rc == 0 && topic_is_durable(topic))
        rc = save_ends(topic, ends, why);
    for (uint32_t i = 0; rc == 0 && i < topic->partition_count; i++) {
        if (ends[i] != UINT64_MAX)
            purge_partition(topic, &topic->partitions[i], ends[i]);
    }
    free(ends);
    if (rc < 0)
        return rc;
    apply_journal_options(topic); /* files below go */
    metadata_snapshot_later(topic->realm);
    log_info("topic %s: purged", topic->options.name);
    return 0;
}

int topic_delete(struct topic *topic, struct error_buffer *why)
{
    struct realm *realm = topic->realm;
    int rc;

    topic_condemn_journals(topic);
    rc = store_delete_topic(realm->store, topic->id, why);
    if (rc < 0) {
        topic_pardon_journals(topic);
        return rc;
    }
    FAULT("topic.delete.saved");
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        struct partition *partition = &topic->partitions[i];

        partition_close(partition, PARTITION_DELETED);
        FAULT("topic.delete.closed");
        if (partition->quarantined)
            realm->quarantined--;
    }
    clients_wake_active(realm);
    for (uint32_t i = 0; i < topic->partition_count; i++)
        partition_forget_slots(&topic->partitions[i]);
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        if (topic->groups[gate]) {
            group_forget_members(topic->groups[gate]);
            group_unlink(topic->groups[gate]);
        }
    }
    topic_remove_journals(topic);
    topic_unlink_partitions(topic, 0);
    FAULT("topic.delete.unlinked");
    log_info("topic %s: deleted", topic->options.name);
    topic_unload(topic);
    return 0;
}
