/* SPDX-License-Identifier: Apache-2.0 */
/* partition_view.c: a partition with all of it mapped, for resolving and looking; see partition.h.
 * */
#include "daemon/partition.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/realm.h"
#include "daemon/topic.h"
#include "libshmq/cursor.h"

#include <inttypes.h>
#include <string.h>

static bool client_is_dead_op(void *context, uint64_t client)
{
    return client_id_is_dead(context, client);
}

/* shmqd never waits for room: partition_view_open() has mapped all groups that there are. */
static int map_group_op(void *context UNUSED, struct ring *ring UNUSED, uint32_t index UNUSED,
                        uint64_t group UNUSED, uint64_t deadline_ns UNUSED,
                        struct segment *ret_segment UNUSED)
{
    return SHMQ_ENOGROUP;
}

static const struct ring_ops OPS = {.client_is_dead = client_is_dead_op, .map_group = map_group_op};

static int open_segment(struct partition *partition, enum segment_kind kind, int *ret_fd,
                        struct error_buffer *why)
{
    char name[SEGMENT_NAME_BYTES];

    (void)segment_name(name, partition->topic->realm->prefix, kind, partition->topic->id,
                       partition->index, 0);
    return segment_open(name, true, ret_fd, why);
}

struct init_work {
    struct partition_view *view;
    struct segment segments[4];
    int producers_fd;
};

static int init_ring(void *context)
{
    struct init_work *work = context;

    return ring_init(&work->view->ring, work->segments, work->producers_fd, &OPS,
                     work->view->partition->topic->realm, NULL);
}

static void add_groups(struct partition_view *view)
{
    const struct partition *partition = view->partition;

    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        const struct group *group = partition->topic->groups[gate];

        if (!group || partition->index >= group->segment_count ||
            !group->segments[partition->index].address)
            continue;
        view->ring.gates[gate] = (struct ring_gate){
            .group = group->id,
            .segment = group->segments[partition->index],
        };
        view->ranges[view->range_count++] = (struct guard_range){
            group->segments[partition->index].address, group->segments[partition->index].bytes};
    }
}

/* With D mapped and P opened anew: its description carries the recovery byte. */
static int build_view(struct partition_view *view, struct init_work *work)
{
    int rc;

    for (uint32_t i = 0; i < COUNT_OF(work->segments); i++)
        view->ranges[i] = (struct guard_range){work->segments[i].address, work->segments[i].bytes};
    view->range_count = COUNT_OF(work->segments);
    rc = guard_run(view->ranges, view->range_count, init_ring, work, NULL);
    if (rc < 0) {
        partition_quarantine(view->partition, "its state segment contradicts itself");
        return SHMQ_ECORRUPT;
    }
    add_groups(view);
    return 0;
}

int partition_view_open(struct partition *partition, struct partition_view *view,
                        struct error_buffer *why)
{
    struct init_work work = {
        .view = view,
        .segments = {partition->state, partition->producers, partition->wait, {NULL, 0}},
        .producers_fd = -1,
    };
    int data_fd = -1;
    int rc;

    view->partition = partition;
    if (partition->quarantined)
        return error_set(why, SHMQ_ECORRUPT, "topic %s/%" PRIu32 ": it is quarantined",
                         partition->topic->options.name, partition->index);
    rc = open_segment(partition, SEGMENT_PRODUCERS, &work.producers_fd, why);
    if (rc == 0)
        rc = open_segment(partition, SEGMENT_DATA, &data_fd, why);
    if (rc == 0)
        rc = segment_map_twice(data_fd, true, partition->topic->options.ring_bytes,
                               &work.segments[3], why);
    cleanup_close(&data_fd);
    if (rc == SHMQ_ENOTOPIC || rc == SHMQ_ECORRUPT) {
        partition_quarantine(partition, "its memory was removed or truncated");
        rc = SHMQ_ECORRUPT;
    }
    if (rc == 0)
        rc = build_view(view, &work);
    if (rc < 0) {
        segment_unmap(&work.segments[3]);
        cleanup_close(&work.producers_fd);
    }
    return rc;
}

void partition_view_close(struct partition_view *view)
{
    /* The other mappings stay: they were lent. */
    segment_unmap(&view->ring.segments[3]);
    cleanup_close(&view->ring.producers_fd);
    view->ring.producers_fd = -1;
}

int partition_view_run(struct partition_view *view, guard_fn *fn, void *context)
{
    int rc;

    if (view->partition->quarantined)
        return SHMQ_ECORRUPT;
    rc = guard_run(view->ranges, view->range_count, fn, context, NULL);
    if (rc == SHMQ_ECORRUPT)
        partition_quarantine(view->partition, "a segment was truncated or contradicts itself");
    return rc;
}

/* ---- resolving ------------------------------------------------------------------------------- */

struct resolve_work {
    struct ring *ring;
    uint64_t offset;
    enum resolve_result result;
};

static int resolve(void *context)
{
    struct resolve_work *work = context;

    work->result = ring_resolve(work->ring, work->offset);
    return 0;
}

int partition_resolve(struct partition *partition, uint64_t offset, enum resolve_result *ret_result,
                      struct error_buffer *why)
{
    struct partition_view view;
    struct resolve_work work = {.ring = &view.ring, .offset = offset};
    uint64_t tail;
    int rc = partition_read_tail(partition, &tail);

    if (rc == 0)
        rc = partition_view_open(partition, &view, why);
    if (rc == SHMQ_ECORRUPT)
        return error_set(why, rc, "topic %s/%" PRIu32 ": it is quarantined; run `shmq doctor`",
                         partition->topic->options.name, partition->index);
    if (rc != 0)
        return rc;
    rc = partition_view_run(&view, resolve, &work);
    partition_view_close(&view);
    if (rc < 0)
        return error_set(why, rc, "topic %s/%" PRIu32 ": it is quarantined; run `shmq doctor`",
                         partition->topic->options.name, partition->index);
    if (work.result == RESOLVE_CORRUPT)
        partition_quarantine(partition, "the claim at %" PRIu64 " has no end that can be found",
                             offset);
    else if (work.result == RESOLVE_PADDED)
        partition_wake(partition);
    *ret_result = work.result;
    return 0;
}

/* ---- describing ------------------------------------------------------------------------------ */

struct describe_work {
    struct partition_view *view;
    struct protocol_partition_info info;
};

static int describe(void *context)
{
    struct describe_work *work = context;
    struct ring *ring = &work->view->ring;
    struct protocol_partition_info *info = &work->info;
    struct room_blocker blocker;

    info->first = atomic_load_explicit(&ring->state->first, memory_order_relaxed);
    info->head = atomic_load_explicit(&ring->producers->head, memory_order_relaxed);
    info->durable = atomic_load_explicit(&ring->state->durable, memory_order_relaxed);
    info->journal_error = atomic_load_explicit(&ring->state->journal_error, memory_order_relaxed);
    info->records = work->view->partition->records_before;
    for (uint32_t i = 0; i < ring->slot_count; i++) {
        info->records +=
            atomic_load_explicit(&ring->producers->slots[i].records, memory_order_relaxed);
        info->producer_count +=
            atomic_load_explicit(&ring->state->slot_client[i], memory_order_relaxed) != CLIENT_NONE;
    }
    ring_find_blocker(ring, &blocker);
    /* Room for the largest claim is room. */
    if (blocker.holder != ROOM_FREE &&
        info->tail + (ring->capacity >> RING_CLAIM_SHIFT) > blocker.offset + ring->capacity) {
        info->blocker = (uint32_t)blocker.holder;
        info->blocker_offset = blocker.offset;
        info->blocker_client = blocker.client;
        info->blocker_gate = blocker.gate;
    }
    return 0;
}

struct owner_work {
    struct partition *partition;
    struct protocol_partition_info *info;
};

static int find_claim_owner(void *context)
{
    struct owner_work *work = context;
    const struct state_segment *state = partition_state(work->partition);
    const struct producers_segment *producers = work->partition->producers.address;
    uint32_t count = min_u32(state->slot_count, SLOTS_MAX);

    if (work->partition->producers.bytes < segment_producers_bytes(count))
        return SHMQ_ECORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = atomic_load_explicit(&producers->slots[i].at, memory_order_acquire);

        if (at != 0 && (at & ~SLOT_BITS) == work->info->blocker_offset && (at & SLOT_OWNER))
            work->info->blocker_client =
                atomic_load_explicit(&state->slot_client[i], memory_order_relaxed);
    }
    return 0;
}

/* A cursor blocks by the hand of whoever owns the partition; a claim by that of its slot's owner.
 * */
static void name_blocker(struct partition *partition, struct protocol_partition_info *info)
{
    struct owner_work work = {.partition = partition, .info = info};
    struct protocol_group_partition owner = {0};
    struct group *group;

    if (info->blocker == ROOM_CLAIM)
        (void)partition_run(partition, NULL, find_claim_owner, &work);
    if (info->blocker != ROOM_CURSOR || info->blocker_gate >= GATES_MAX)
        return;
    group = partition->topic->groups[info->blocker_gate];
    if (group && group_describe_partition(group, partition, &owner) == 0)
        info->blocker_client = owner.owner;
}

int partition_describe(struct partition *partition, struct protocol_partition_info *ret_info,
                       struct error_buffer *why)
{
    struct partition_view view;
    struct describe_work work = {
        .view = &view,
        .info = {.partition = partition->index, .base = partition->base},
    };
    int rc = partition_read_tail(partition, &work.info.tail);

    if (rc == 0)
        rc = partition_view_open(partition, &view, why);
    if (rc == 0) {
        rc = partition_view_run(&view, describe, &work);
        partition_view_close(&view);
    }
    if (rc == SHMQ_ECORRUPT) {
        work.info.status = PARTITION_QUARANTINED;
        work.info.tail = partition->tail_seen;
        rc = 0;
    } else if (rc == 0) {
        name_blocker(partition, &work.info);
    }
    partition_describe_journal(partition, &work.info);
    if (rc == 0)
        *ret_info = work.info;
    return rc;
}
