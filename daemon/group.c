/* SPDX-License-Identifier: Apache-2.0 */
/* group.c: a consumer group's coming and going; see group.h. */
#include "daemon/group.h"

#include "daemon/client.h"
#include "daemon/log.h"
#include "daemon/metadata.h"
#include "daemon/realm.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <inttypes.h>
#include <string.h>

struct group *group_find(const struct topic *topic, const char *name)
{
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        if (topic->groups[gate] && strcmp(topic->groups[gate]->name, name) == 0)
            return topic->groups[gate];
    }
    return NULL;
}

struct group *group_find_id(const struct topic *topic, uint64_t id)
{
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        if (topic->groups[gate] && topic->groups[gate]->id == id)
            return topic->groups[gate];
    }
    return NULL;
}

/* ---- memory ---------------------------------------------------------------------------------- */

int group_resize(struct group *group, uint32_t count)
{
    struct segment *segments = realloc(group->segments, count * sizeof(segments[0]));
    uint64_t *saved = segments ? realloc(group->saved, count * sizeof(saved[0])) : NULL;

    if (segments)
        group->segments = segments;
    if (!saved)
        return SHMQ_ENOMEM;
    group->saved = saved;
    for (uint32_t i = group->segment_count; i < count; i++) {
        segments[i] = (struct segment){NULL, 0};
        saved[i] = CURSOR_UNSAVED;
    }
    return 0;
}

/* At gate `gate`, which is free, for as many partitions as the topic has now. */
static struct group *group_new(struct topic *topic, const char *name, uint64_t id, uint32_t kind,
                               uint32_t gate)
{
    struct group *group = calloc(1, sizeof(*group));

    if (group && group_resize(group, topic->partition_count) < 0) {
        free(group->segments);
        free(group);
        group = NULL;
    }
    if (!group)
        return NULL;
    group->topic = topic;
    group->id = id;
    group->kind = kind;
    group->gate = gate;
    group->segment_count = topic->partition_count;
    (void)strncpy(group->name, name, sizeof(group->name) - 1);
    topic->groups[gate] = group;
    topic->group_count++;
    topic->realm->group_count++;
    topic_count_bytes(topic, (int64_t)(segment_group_bytes(0) * group->segment_count));
    return group;
}

void group_free(struct group *group)
{
    struct topic *topic = group->topic;

    loop_timer_stop(&group->linger);
    for (uint32_t i = 0; i < group->segment_count; i++) {
        if (group->segments[i].address)
            topic->realm->mapping_count--;
        segment_unmap(&group->segments[i]);
    }
    topic_count_bytes(topic, -(int64_t)(segment_group_bytes(0) * group->segment_count));
    topic->groups[group->gate] = NULL;
    topic->group_count--;
    topic->realm->group_count--;
    free(group->segments);
    free(group->saved);
    free(group);
}

void group_unlink(struct group *group)
{
    char name[SEGMENT_NAME_BYTES];

    for (uint32_t i = 0; i < group->segment_count; i++) {
        (void)segment_name(name, group->topic->realm->prefix, SEGMENT_GROUP, group->topic->id, i,
                           group->gate);
        (void)segment_unlink(name);
    }
}

/* ---- metadata -------------------------------------------------------------------------------- */

void group_to_store(const struct group *group, struct store_group *ret_stored)
{
    memset(ret_stored, 0, sizeof(*ret_stored));
    memcpy(ret_stored->name, group->name, sizeof(ret_stored->name));
    ret_stored->topic = group->topic->id;
    ret_stored->id = group->id;
    ret_stored->linger_ns = group->topic->options.linger_ns;
    ret_stored->kind = group->kind;
    ret_stored->gate = group->gate;
}

int group_load(struct topic *topic, const struct store_group *stored, struct error_buffer *why)
{
    struct group *group;

    if (stored->gate >= GATES_MAX)
        return error_set(why, SHMQ_ECORRUPT, "metadata: group %.64s has gate %" PRIu32,
                         stored->name, stored->gate);
    group = topic->groups[stored->gate];
    if (group && group->id != stored->id)
        return error_set(why, SHMQ_ECORRUPT, "metadata: groups %.64s and %.64s share gate %" PRIu32,
                         group->name, stored->name, stored->gate);
    if (!group)
        group = group_new(topic, stored->name, stored->id, stored->kind, stored->gate);
    return group ? 0 : error_set(why, SHMQ_ENOMEM, "shmqd: out of memory for the groups");
}

/* ---- linger ---------------------------------------------------------------------------------- */

static void on_linger(struct loop_timer *timer UNUSED, void *context)
{
    struct group *group = context;

    for (uint32_t i = 0; i < group->segment_count; i++) {
        if (group->topic->partitions[i].quarantined)
            continue;
        group_set_gate_state(group, &group->topic->partitions[i], GATE_IDLE);
        FAULT("group.linger.idle");
        partition_wake(&group->topic->partitions[i]); /* producers that waited for it */
    }
    group->state = GATE_IDLE;
    log_info("group %s of topic %s: no members for its linger; it no longer holds producers back",
             group->name, group->topic->options.name);
}

void group_set_linger(struct group *group)
{
    uint64_t linger_ns = group->topic->options.linger_ns;
    uint64_t now_ns = clock_monotonic_ns();

    /* What the clock never reaches is for ever, too. */
    if (group->member_count > 0 || group->state != GATE_OPEN || linger_ns == LINGER_FOREVER ||
        linger_ns > UINT64_MAX - now_ns) {
        loop_timer_stop(&group->linger);
        return;
    }
    loop_timer_set(&group->topic->realm->loop, &group->linger, now_ns + linger_ns, on_linger,
                   group);
}

/* ---- creating -------------------------------------------------------------------------------- */

static int check_limits(const struct topic *topic, const struct group_join *join,
                        struct error_buffer *why)
{
    const struct realm *realm = topic->realm;
    uint64_t limit = min_u64(realm->config.groups_per_topic, GATES_MAX);

    if (join->kind != GROUP_STREAM)
        return error_set(why, SHMQ_ENOTSUP,
                         "group %s: this build has no shared groups; join it with --mode stream",
                         join->name);
    if (topic->group_count >= limit)
        return error_set(why, SHMQ_ELIMIT,
                         "topic %s: it has %" PRIu32
                         " groups, its limit; delete one with `shmq group "
                         "delete`",
                         topic->options.name, topic->group_count);
    if (realm->mapping_count + topic->partition_count > REALM_MAPPINGS_MAX)
        return error_set(
            why, SHMQ_ELIMIT,
            "bus %s: %u segments are mapped, the most that one shmqd looks after; delete "
            "groups or topics",
            realm->paths.bus, realm->mapping_count);
    return topic_check_quota(realm, topic->owner, segment_group_bytes(0) * topic->partition_count,
                             join->name, why);
}

/* Before anything is made: an offset that cannot be is the caller's mistake. */
static int check_offset(struct topic *topic, const struct group_join *join,
                        struct error_buffer *why)
{
    uint64_t tail;

    if (join->from != FROM_OFFSET)
        return 0;
    if (join->offset % RECORD_UNIT)
        return error_set(why, SHMQ_EINVAL,
                         "group %s: offset %" PRIu64 " is not one: offsets are multiples of %u",
                         join->name, join->offset, RECORD_UNIT);
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        if (partition_read_tail(&topic->partitions[i], &tail) == 0 && join->offset > tail)
            return error_set(why, SHMQ_EINVAL,
                             "group %s: offset %" PRIu64
                             " lies behind the end of partition %" PRIu32 ", which is %" PRIu64,
                             join->name, join->offset, i, tail);
    }
    return 0;
}

static uint32_t find_gate(const struct topic *topic)
{
    uint32_t gate = 0;

    while (topic->groups[gate])
        gate++;
    return gate;
}

static int make_segments(struct group *group, struct error_buffer *why)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < group->segment_count; i++) {
        if (!group->topic->partitions[i].quarantined)
            rc = group_make_segment(group, &group->topic->partitions[i], why);
    }
    return rc;
}

static int save(struct group *group, struct error_buffer *why)
{
    struct store_group stored;

    group_to_store(group, &stored);
    return store_put_group(group->topic->realm->store, &stored, why);
}

static int open_gates(struct group *group, const struct group_join *join, struct error_buffer *why)
{
    for (uint32_t i = 0; i < group->segment_count; i++) {
        struct partition *partition = &group->topic->partitions[i];
        struct group_place place = {
            .from = join->from == FROM_COMMITTED ? FROM_EARLIEST : join->from,
            .offset = join->offset,
        };
        int rc = 0;

        if (!partition->quarantined)
            rc = group_enter_gate(group, partition);
        if (rc == 0 && !partition->quarantined)
            rc = group_attach_cursor(group, partition, &place, why);
        if (rc < 0 && rc != SHMQ_ECORRUPT) /* a quarantined one does not take the others down */
            return rc;
    }
    return 0;
}

int group_create(struct topic *topic, const struct group_join *join, struct group **ret_group,
                 struct error_buffer *why)
{
    struct group *group;
    uint64_t id = 0;
    uint32_t saved;
    int rc = check_limits(topic, join, why);

    if (rc == 0)
        rc = check_offset(topic, join, why);
    if (rc == 0)
        rc = topic_next_id(topic->realm, &id, why);
    if (rc < 0)
        return rc;
    group = group_new(topic, join->name, id, join->kind, find_gate(topic));
    if (!group)
        return error_set(why, SHMQ_ENOMEM, "group %s: out of memory", join->name);
    rc = make_segments(group, why);
    FAULT("group.create.segments");
    if (rc == 0)
        rc = save(group, why);
    FAULT("group.create.saved");
    if (rc < 0) {
        group_unlink(group);
        group_free(group);
        return rc;
    }
    group->state = GATE_OPEN;
    rc = open_gates(group, join, why);
    /* A group that wanted the latest must not get all there is after a crash of the host. */
    if (rc == 0 && topic_is_durable(topic))
        rc = metadata_save_cursors(topic->realm, group, &saved, why);
    if (rc < 0) {
        (void)group_delete(group, NULL);
        return rc;
    }
    FAULT("group.create.placed");
    log_info("group %s of topic %s: created", group->name, topic->options.name);
    clients_wake_active(topic->realm); /* producers map its cursor now, while they can ask for it */
    *ret_group = group;
    return 0;
}

/* ---- deleting -------------------------------------------------------------------------------- */

void group_forget_members(struct group *group)
{
    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        struct client *client = client_find(group->topic->realm, group->members[m].client);

        if (client && client->memberships > 0)
            client->memberships--;
        if (client)
            client_wake(group->topic->realm, client->facts.id);
    }
}

int group_delete(struct group *group, struct error_buffer *why)
{
    struct topic *topic = group->topic;
    int rc = store_delete_group(topic->realm->store, topic->id, group->id, why);

    if (rc < 0)
        return rc;
    FAULT("group.delete.saved");
    for (uint32_t i = 0; i < group->segment_count; i++) {
        if (topic->partitions[i].quarantined || !group->segments[i].address)
            continue;
        group_set_gate_state(group, &topic->partitions[i], GATE_DELETED);
        FAULT("group.delete.state");
        partition_wake(&topic->partitions[i]); /* producers that waited for it go on at once */
    }
    group_forget_members(group);
    log_info("group %s of topic %s: deleted", group->name, topic->options.name);
    group_unlink(group);
    FAULT("group.delete.unlinked");
    group_free(group);
    return 0;
}
