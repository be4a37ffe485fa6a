/* SPDX-License-Identifier: Apache-2.0 */
/* group_describe.c: how far a group has come in a partition, and who reads it there; see group.h. */
#include "daemon/group.h"

#include "daemon/client.h"
#include "daemon/realm.h"
#include "libshmq/cursor.h"

#include <string.h>

struct look {
    const struct group_segment *shared; /* G */
    const struct gate *gate;            /* in S */
    const struct producers_segment *producers;
    uint64_t word;
    uint64_t tail;
    uint64_t assign;
    uint64_t records;
    uint64_t lost_bytes;
};

/* SHMQ_ECORRUPT where there is nothing to look at. */
static int run(struct group *group, struct partition *partition, guard_fn *fn, struct look *look)
{
    const struct segment *segment = &group->segments[partition->index];

    if (partition->quarantined || !segment->address)
        return SHMQ_ECORRUPT;
    look->shared = segment->address;
    look->gate = &partition_state(partition)->gates[group->gate];
    look->producers = partition->producers.address;
    return partition_run(partition, segment, fn, look);
}

static int look_at_cursor(void *context)
{
    struct look *look = context;

    /* In this order: the cursor cannot pass the tail then. */
    look->word = atomic_load_explicit(&look->shared->cursor, memory_order_acquire);
    look->tail = atomic_load_explicit(&look->producers->tail, memory_order_acquire);
    return 0;
}

bool group_read_cursor(struct group *group, struct partition *partition, uint64_t *ret_offset)
{
    struct look look;
    uint64_t offset;

    if (run(group, partition, look_at_cursor, &look) < 0)
        return false;
    offset = cursor_offset(look.word, look.tail);
    if (offset > look.tail) /* scribbled: whoever describes the group quarantines */
        return false;
    *ret_offset = offset;
    return true;
}

static int look_at_all(void *context)
{
    struct look *look = context;
    uint32_t member;

    /* The cursor before tail, which partition_read_tail() reads next: it cannot pass it then. */
    (void)look_at_cursor(look);
    look->assign = atomic_load_explicit(&look->gate->assign, memory_order_acquire);
    member = assign_member(look->assign);
    if (member < MEMBERS_MAX) {
        look->records =
            atomic_load_explicit(&look->shared->members[member].records, memory_order_relaxed);
        look->lost_bytes =
            atomic_load_explicit(&look->shared->members[member].lost_bytes, memory_order_relaxed);
    }
    return 0;
}

static void name_owner(const struct group *group, uint32_t member,
                       struct protocol_group_partition *info)
{
    const struct client *client;

    if (member >= MEMBERS_MAX)
        return;
    info->owner = group->members[member].client;
    client = client_find(group->topic->realm, info->owner);
    if (client) {
        info->owner_pid = client->facts.pid;
        memcpy(info->owner_command, client->facts.command, sizeof(info->owner_command));
    }
}

int group_describe_partition(struct group *group, struct partition *partition,
                             struct protocol_group_partition *ret_info)
{
    struct protocol_group_partition info = {.partition = partition->index};
    struct look look = {.records = 0, .lost_bytes = 0};
    uint64_t tail = 0;
    int rc = run(group, partition, look_at_all, &look);

    if (rc == 0)
        rc = partition_read_tail(partition, &tail);
    if (rc < 0)
        return rc;
    info.cursor = cursor_offset(look.word, tail);
    /* History goes back before the memory that there is now. */
    if (info.cursor > tail || (info.cursor < partition->base && !topic_is_durable(group->topic))) {
        partition_quarantine(partition, "the cursor of group %s stands outside the log",
                             group->name);
        return SHMQ_ECORRUPT;
    }
    info.generation = cursor_generation(look.word);
    info.lag_bytes = tail - info.cursor - partition_jumped(partition, info.cursor);
    info.records = look.records;
    info.lost_bytes = look.lost_bytes;
    name_owner(group, assign_member(look.assign), &info);
    *ret_info = info;
    return 0;
}
