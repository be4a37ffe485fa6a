/* SPDX-License-Identifier: Apache-2.0 */
/* group_partition.c: one group in one partition: G, the gate, the cursor, the assignment; see
 * group.h. */
#include "daemon/group.h"

#include "daemon/client.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "libshmq/cursor.h"
#include "libshmq/fault.h"

#include <inttypes.h>
#include <string.h>

struct group_work {
    struct group *group;
    struct partition *partition;
    struct partition_view *view;
    struct gate *gate;            /* in S */
    struct group_segment *shared; /* G */
    struct group_place *place;
    uint64_t journal_first; /* UINT64_MAX: nothing is in a journal */
    uint64_t history_end;
    uint64_t tail;
    uint32_t member;
    uint32_t state;
    const uint64_t *purge_to;
    bool fenced;
    uint64_t previous; /* assign word of before */
};

static struct group_work work_of(struct group *group, struct partition *partition)
{
    return (struct group_work){
        .group = group,
        .partition = partition,
        .gate = &partition_state(partition)->gates[group->gate],
        .shared = group->segments[partition->index].address,
    };
}

static int run(struct group_work *work, guard_fn *fn)
{
    return partition_run(work->partition, &work->group->segments[work->partition->index], fn, work);
}

/* ---- G --------------------------------------------------------------------------------------- */

static void name_segment(const struct group *group, uint32_t partition,
                         char name[SEGMENT_NAME_BYTES])
{
    (void)segment_name(name, group->topic->realm->prefix, SEGMENT_GROUP, group->topic->id,
                       partition, group->gate);
}

static void fill_segment(const struct group *group, const struct partition *partition)
{
    struct group_segment *shared = group->segments[partition->index].address;

    shared->kind = group->kind;
    shared->member_count = MEMBERS_MAX;
    memcpy(shared->name, group->name, sizeof(group->name));
    /* Generation 0, and not gating yet: never assigned. Relaxed: nobody sees it before `ready`. */
    atomic_store_explicit(&shared->cursor, cursor_make(0, false, partition->base),
                          memory_order_relaxed);
    for (uint32_t m = 0; m < MEMBERS_MAX; m++)
        atomic_store_explicit(&shared->members[m].hold, HOLD_NONE, memory_order_relaxed);
}

int group_make_segment(struct group *group, struct partition *partition, struct error_buffer *why)
{
    struct segment *segment = &group->segments[partition->index];
    struct segment_identity identity = {
        .kind = SEGMENT_GROUP,
        .topic = group->topic->id,
        .partition = partition->index,
        .salt = partition->salt,
        .group = group->id,
    };
    size_t bytes = segment_group_bytes(0);
    char name[SEGMENT_NAME_BYTES];
    int fd;
    int rc;

    name_segment(group, partition->index, name);
    rc = segment_create(name, bytes, &fd, why);
    if (rc == SHMQ_EEXIST) { /* of a group that had this gate before */
        (void)segment_unlink(name);
        rc = segment_create(name, bytes, &fd, why);
    }
    if (rc < 0)
        return rc;
    rc = segment_map(fd, true, bytes, segment, why);
    (void)close(fd);
    if (rc < 0) {
        (void)segment_unlink(name);
        return rc;
    }
    group->topic->realm->mapping_count++;
    fill_segment(group, partition);
    segment_init_header(segment->address, &identity, bytes);
    FAULT("group.create.segment");
    return 0;
}

/* ---- the gate in S --------------------------------------------------------------------------- */

static void raise_epoch(struct state_segment *state)
{
    /* ORDER enter -> refresh: release: who sees the epoch sees the entry. */
    (void)atomic_fetch_add_explicit(&state->gate_epoch, 1, memory_order_release);
}

static int enter_gate(void *context)
{
    struct group_work *work = context;
    struct state_segment *state = partition_state(work->partition);
    struct gate *gate = work->gate;
    uint32_t count = atomic_load_explicit(&state->gate_count, memory_order_relaxed);

    /* A gate that is used again is DELETED until the very end: nobody takes the old one for the
     * new. */
    gate->kind = work->group->kind;
    atomic_store_explicit(&gate->assign, 0, memory_order_relaxed);
    atomic_store_explicit(&gate->revoke, 0, memory_order_relaxed);
    atomic_store_explicit(&gate->group, work->group->id, memory_order_release);
    atomic_store_explicit(&gate->state, GATE_OPEN, memory_order_release);
    if (count <= work->group->gate)
        atomic_store_explicit(&state->gate_count, work->group->gate + 1, memory_order_release);
    raise_epoch(state);
    return 0;
}

int group_enter_gate(struct group *group, struct partition *partition)
{
    struct group_work work = work_of(group, partition);
    int rc = run(&work, enter_gate);

    FAULT("group.enter.gate");
    return rc;
}

static int set_gate_state(void *context)
{
    struct group_work *work = context;

    atomic_store_explicit(&work->gate->state, work->state, memory_order_release);
    raise_epoch(partition_state(work->partition));
    return 0;
}

void group_set_gate_state(struct group *group, struct partition *partition, uint32_t state)
{
    struct group_work work = work_of(group, partition);

    work.state = state;
    (void)run(&work, set_gate_state);
}

/* ---- the cursor ------------------------------------------------------------------------------ */

/* Where a group that asks for `offset` can start. The memory that was lost once left a gap in the log; nothing
 * is in there. */
static uint64_t place_offset(const struct group_work *work, uint64_t offset, uint64_t tail)
{
    const struct partition *partition = work->partition;

    if (work->journal_first != UINT64_MAX && offset > work->history_end && offset < partition->base)
        offset = partition->base;
    return align_up_u64(min_u64(offset, tail), RECORD_UNIT);
}

/* Where the group is to start; *ret_exact: a record begins there, else only bytes do. */
static uint64_t find_start(const struct group_work *work, bool *ret_exact)
{
    const struct ring *ring = &work->view->ring;
    uint64_t oldest = min_u64(ring_oldest(ring), work->journal_first);
    uint64_t first = atomic_load_explicit(&ring->state->first, memory_order_relaxed);
    uint64_t word = atomic_load_explicit(&work->shared->cursor, memory_order_acquire);
    uint64_t tail = ring_tail(ring);
    uint64_t from = oldest;

    *ret_exact = true;
    if (work->place->from == FROM_LATEST) /* what is claimed by now is committed after us */
        return min_u64(tail, ring_lowest_unstamped(ring, first, tail));
    /* Of generation 0 it was never placed: a group that was not finished. */
    if (work->place->from == FROM_COMMITTED && cursor_generation(word) != 0)
        return cursor_offset(word, tail);
    if (work->place->from == FROM_OFFSET)
        from = place_offset(work, work->place->offset, tail);
    if (!work->place->exact)
        from = max_u64(from, oldest);
    if (from <= first) /* a boundary by nature */
        return first;
    *ret_exact = work->place->exact || from == tail || from == work->journal_first ||
                 from == work->partition->base;
    return from;
}

/* Below what the ring still has: there the group reads the journal, and holds nobody back. `kept`: what producers
 * have not announced to overwrite begins here. False where the journal begins later than that. */
static bool place_in_history(const struct group_work *work, uint64_t kept, uint64_t *wanted)
{
    const struct group_place *place = work->place;

    if (*wanted >= kept || work->journal_first >= kept)
        return false;
    /* A group that stood there is to be told its loss; others want what there is. */
    if (place->from != FROM_COMMITTED && !place->exact)
        *wanted = max_u64(*wanted, work->journal_first);
    return true;
}

static int attach(void *context)
{
    struct group_work *work = context;
    const struct ring *ring = &work->view->ring;
    uint64_t word = atomic_load_explicit(&work->shared->cursor, memory_order_acquire);
    uint32_t generation = cursor_generation(word);
    bool exact;
    uint64_t wanted = find_start(work, &exact);
    bool history = place_in_history(work, ring_oldest(ring), &wanted);
    int rc = 0;
    uint64_t got =
        cursor_attach(ring, work->shared, generation, wanted, ring->gated && !history, &rc);

    if (rc == 0 && place_in_history(work, got, &wanted)) {
        /* Its producers have just announced that they overwrite it: what they may is safe on disk. */
        history = true;
        got = cursor_attach(ring, work->shared, generation, wanted, false, &rc);
    }
    if (rc < 0)
        return rc;
    if (!history && (got > wanted || !exact)) {
        /* Somewhere inside a record. A gating cursor holds producers back by now: what is found
         * stays. */
        word = cursor_make(generation, ring->gated, got);
        got = ring_resynchronise(ring, got);
        rc = cursor_commit(work->shared, &word, got);
    }
    work->place->ret_lost = exact ? got - wanted : 0;
    return rc;
}

int group_attach_cursor(struct group *group, struct partition *partition, struct group_place *place,
                        struct error_buffer *why)
{
    struct partition_view view;
    struct group_work work = work_of(group, partition);
    char label[NAME_BYTES + 32];
    int rc = partition_read_tail(partition, &work.tail);

    if (rc == 0)
        rc = partition_view_open(partition, &view, why);
    if (rc != 0)
        return rc;
    work.view = &view;
    work.place = place;
    work.journal_first = partition_journal_first(partition);
    work.history_end = partition_history_end(partition);
    place->ret_lost = 0;
    rc = partition_view_run(&view, attach, &work);
    partition_view_close(&view);
    FAULT("group.attach.cursor");
    if (rc == SHMQ_EFENCED) /* nobody is assigned: nobody may fence */
        partition_quarantine(partition, "the cursor of group %s is moved by strangers",
                             group->name);
    return rc < 0 ? error_set(why, SHMQ_ECORRUPT, "%s: it is quarantined; run `shmq doctor`",
                              partition_label(partition, label))
                  : 0;
}

/* ---- assignment ------------------------------------------------------------------------------ */

static int hand_over(void *context)
{
    struct group_work *work = context;
    uint32_t generation;
    uint64_t word, at;

    work->previous = atomic_load_explicit(&work->gate->assign, memory_order_acquire);
    generation = cursor_fence(work->shared);
    FAULT("group.handover.fenced");
    if (work->purge_to) {
        word = atomic_load_explicit(&work->shared->cursor, memory_order_acquire);
        at = cursor_offset(word, work->tail);
        if ((at < *work->purge_to || at > work->tail) &&
            cursor_commit(work->shared, &word, *work->purge_to) < 0)
            return SHMQ_ECORRUPT; /* only its owner moves it, and that one was just fenced */
    }
    /* ORDER assign -> take: release: the new owner finds the fenced cursor. */
    atomic_store_explicit(&work->gate->assign, assign_make(generation, work->member),
                          memory_order_release);
    return 0;
}

static void wake_member(const struct group *group, uint32_t member)
{
    if (member < MEMBERS_MAX)
        client_wake(group->topic->realm, group->members[member].client);
}

int group_hand_over(struct group *group, struct partition *partition, uint32_t member,
                    const uint64_t *purge_to)
{
    struct group_work work = work_of(group, partition);
    int rc = partition_read_tail(partition, &work.tail);

    work.member = member;
    work.purge_to = purge_to;
    if (rc == 0)
        rc = run(&work, hand_over);
    if (rc < 0)
        return rc;
    FAULT("group.handover.assigned");
    wake_member(group, assign_member(work.previous));
    if (assign_member(work.previous) != member)
        wake_member(group, member);
    partition_wake(partition);
    return 0;
}

/* ---- at a start ------------------------------------------------------------------------------ */

static int check_alive(void *context)
{
    struct group_work *work = context;
    uint64_t word = atomic_load_explicit(&work->shared->cursor, memory_order_acquire);
    uint64_t assign = atomic_load_explicit(&work->gate->assign, memory_order_acquire);

    work->state = atomic_load_explicit(&work->gate->state, memory_order_acquire);
    work->fenced = cursor_generation(word) != 0 || assign != 0;
    if (atomic_load_explicit(&work->gate->group, memory_order_acquire) != work->group->id)
        work->state = GATE_FREE;
    if (work->shared->member_count != MEMBERS_MAX)
        return SHMQ_ECORRUPT;
    return 0;
}

/* Where the metadata says that it stood; what was read meanwhile comes again. */
static int begin_anew(struct group *group, struct partition *partition, struct error_buffer *why)
{
    uint64_t saved = group->saved[partition->index];
    struct group_place place = {.from = FROM_EARLIEST};
    int rc = group_make_segment(group, partition, why);

    if (topic_is_durable(group->topic) && saved != CURSOR_UNSAVED)
        place = (struct group_place){.from = FROM_OFFSET, .exact = true, .offset = saved};
    if (rc == 0)
        rc = group_enter_gate(group, partition);
    if (rc == 0)
        rc = group_attach_cursor(group, partition, &place, why);
    return rc == SHMQ_ECORRUPT ? 0 : rc; /* quarantined: said elsewhere */
}

static int open_segment(struct group *group, struct partition *partition, struct error_buffer *why)
{
    struct segment *segment = &group->segments[partition->index];
    struct segment_identity identity = {
        .kind = SEGMENT_GROUP,
        .topic = group->topic->id,
        .partition = partition->index,
        .salt = partition->salt,
        .group = group->id,
    };
    char name[SEGMENT_NAME_BYTES];
    int fd;
    int rc;

    name_segment(group, partition->index, name);
    rc = segment_open(name, true, &fd, why);
    if (rc < 0)
        return rc;
    rc = segment_map(fd, true, segment_group_bytes(0), segment, why);
    (void)close(fd);
    if (rc == 0)
        rc = guard_check_segment(segment, &identity, why);
    if (rc == SHMQ_EVERSION) /* its members write it, and S is of ours: a scribble */
        rc = SHMQ_ECORRUPT;
    if (rc == 0)
        group->topic->realm->mapping_count++;
    else
        segment_unmap(segment);
    return rc;
}

int group_reattach(struct group *group, struct partition *partition, bool fresh,
                   struct error_buffer *why)
{
    char label[NAME_BYTES + 32];
    struct group_work work;
    int rc;

    rc = fresh ? 0 : open_segment(group, partition, why);
    /* Today the system refuses something: nothing that progress is to be thrown away for. */
    if (rc < 0 && rc != SHMQ_ENOTOPIC && rc != SHMQ_ECORRUPT)
        return error_prefix(why, rc, "%s, group %s", partition_label(partition, label),
                            group->name);
    if (rc < 0) {
        log_warning("%s: the memory of group %s is lost (%s); it begins %s",
                    partition_label(partition, label), group->name, why->text,
                    topic_is_durable(group->topic) ? "where it stood a moment ago, on disk"
                                                   : "at the oldest message");
        fresh = true;
    }
    if (fresh) {
        rc = partition->quarantined ? 0 : begin_anew(group, partition, why);
        return rc < 0 ? rc : GROUP_FOUND_LOST;
    }
    work = work_of(group, partition);
    if (run(&work, check_alive) < 0)
        return GROUP_FOUND_OPEN; /* quarantined: nothing will be done here */
    if ((work.state != GATE_OPEN && work.state != GATE_IDLE) || !work.fenced)
        return GROUP_FOUND_UNBORN;
    return work.state == GATE_IDLE ? GROUP_FOUND_IDLE : GROUP_FOUND_OPEN;
}
