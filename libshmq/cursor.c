/* cursor.c: moving a group's cursor, and computing what producers may overwrite. See cursor.h for
 * the protocol.
 *
 * Called by a group's members (attach, commit), by shmqd (attach, fence) and by producers
 * (refresh). If the process dies here: a half-attached cursor holds producers back until shmqd,
 * which enters and removes groups, cleans it up; a raised head is only an announcement.
 */
#include "libshmq/cursor.h"

/* An honest head rises by an eighth of the ring at a time; who raises it faster than we can look has
 * scribbled. */
#define ATTACH_ROUNDS_MAX 1000

uint64_t cursor_attach(const struct ring *ring, struct group_segment *group, uint32_t generation,
                       uint64_t x, bool gates, int *ret_error)
{
    for (int round = 0; round < ATTACH_ROUNDS_MAX; round++) {
        uint64_t old = atomic_load_explicit(&group->cursor, memory_order_acquire);

        if (cursor_generation(old) != generation) {
            *ret_error = SHMQ_EFENCED;
            return x;
        }
        if (!atomic_compare_exchange_strong_explicit(&group->cursor, &old,
                                                     cursor_make(generation, gates, x),
                                                     memory_order_acq_rel, memory_order_relaxed))
            continue; /* only a fence moves it beside us: seen at the next look */
        /* ORDER attach -> refresh: the cursor before the look at head; pairs with the fence in
         * ring_refresh_limit(). */
        atomic_thread_fence(memory_order_seq_cst);
        uint64_t head = atomic_load_explicit(&ring->producers->head, memory_order_acquire);

        if (!gates || head <= x) {
            *ret_error = 0;
            return x;
        }
        if (head > ring_tail(ring))
            break; /* announced is what is claimed at most */
        x = align_up_u64(head, RECORD_UNIT);
    }
    *ret_error = SHMQ_ECORRUPT;
    return x;
}

int cursor_move(struct group_segment *group, uint64_t *word, uint64_t to, bool gates)
{
    uint64_t expected = *word;
    uint64_t wanted = cursor_make(cursor_generation(expected), gates, to);

    /* ORDER commit -> refresh: release, so that our reads of what the cursor leaves behind, and
     * the hold that we set before, are done first; pairs with the acquire loads of producers. */
    if (!atomic_compare_exchange_strong_explicit(&group->cursor, &expected, wanted,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return SHMQ_EFENCED;
    *word = wanted;
    return 0;
}

int cursor_commit(struct group_segment *group, uint64_t *word, uint64_t to)
{
    return cursor_move(group, word, to, cursor_gates(*word));
}

int cursor_commit_gating(const struct ring *ring, struct group_segment *group, uint64_t *word,
                         uint64_t to)
{
    int rc = cursor_move(group, word, to, true);

    if (rc < 0)
        return rc;
    /* ORDER attach -> refresh: the cursor before the look at head, and both before the hold moves up: a producer
     * that read the old cursor, and will read the new hold, has raised head before we look. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&ring->producers->head, memory_order_acquire) <= to)
        return 0;
    return cursor_move(group, word, to, false);
}

uint32_t cursor_fence(struct group_segment *group)
{
    uint64_t old = atomic_load_explicit(&group->cursor, memory_order_acquire);
    uint64_t fenced;

    do {
        uint32_t generation = cursor_generation_after(cursor_generation(old));

        fenced = (old & (CURSOR_GATES | CURSOR_UNITS_MASK)) | (uint64_t)generation
                                                                  << CURSOR_GENERATION_SHIFT;
    } while (!atomic_compare_exchange_weak_explicit(&group->cursor, &old, fenced,
                                                    memory_order_acq_rel, memory_order_acquire));
    return cursor_generation(fenced);
}

static bool gate_is_open(const struct gate *gate, uint64_t group)
{
    return atomic_load_explicit(&gate->state, memory_order_acquire) == GATE_OPEN &&
           atomic_load_explicit(&gate->group, memory_order_acquire) == group;
}

/* Maps groups that joined since the last look, and forgets those that left. Afterwards
 * ring->gates[i] is mapped for every open gate. */
static int map_new_gates(struct ring *ring, uint64_t deadline_ns)
{
    /* ORDER enter -> refresh: acquire, so that the entries of this epoch are seen; pairs with
     * shmqd's release. */
    uint64_t epoch = atomic_load_explicit(&ring->state->gate_epoch, memory_order_acquire);

    if (epoch == ring->gate_epoch)
        return 0;
    uint32_t count =
        min_u32(atomic_load_explicit(&ring->state->gate_count, memory_order_acquire), GATES_MAX);

    for (uint32_t i = 0; i < count; i++) {
        const struct gate *gate = &ring->state->gates[i];
        struct ring_gate *mine = &ring->gates[i];
        uint32_t state = atomic_load_explicit(&gate->state, memory_order_acquire);
        uint64_t group = atomic_load_explicit(&gate->group, memory_order_acquire);

        if (mine->group != CLIENT_NONE && mine->group != group) {
            segment_unmap(&mine->segment);
            mine->group = CLIENT_NONE;
        }
        if (state != GATE_OPEN || group == CLIENT_NONE || mine->group == group)
            continue;
        int rc =
            ring->ops->map_group(ring->ops_context, ring, i, group, deadline_ns, &mine->segment);

        if (rc == SHMQ_ENOGROUP && !gate_is_open(gate, group))
            continue; /* it left while we asked */
        if (rc < 0)
            return rc; /* this epoch stays unseen: the next refresh asks again */
        mine->group = group;
    }
    ring->gate_epoch = epoch;
    return 0;
}

/* The lowest hold of a member in [floor, below). A hold counts while its owner lives: shmqd clears
 * the dead's, and without it producers look for themselves. Below the ring nothing can be looked at
 * any more: a scribble, or the dead of long ago. */
static uint64_t lowest_hold(const struct ring *ring, const struct group_segment *group,
                            uint64_t floor, uint64_t below, uint32_t *ret_member,
                            bool test_liveness)
{
    uint64_t lowest = UINT64_MAX;

    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        const struct group_member *member = &group->members[m];
        /* ORDER hold -> refresh: acquire: whoever overwrites below this hold does so after the
         * member's last look there; pairs with assignment_hold(). */
        uint64_t hold = atomic_load_explicit(&member->hold, memory_order_acquire);

        if (hold < floor || hold >= below || hold >= lowest)
            continue; /* HOLD_NONE is above all */
        uint64_t client = atomic_load_explicit(&member->client, memory_order_relaxed);

        if (client == CLIENT_NONE)
            continue;
        if (test_liveness && ring->ops->client_is_dead(ring->ops_context, client))
            continue;
        lowest = hold;
        *ret_member = m;
    }
    return lowest;
}

/* Lowers `m` to the lowest offset that a gating group may still read. `tail` as read before. */
static uint64_t scan_gates(const struct ring *ring, uint64_t tail, uint64_t m, bool test_liveness,
                           struct room_blocker *blocker)
{
    uint32_t count =
        min_u32(atomic_load_explicit(&ring->state->gate_count, memory_order_acquire), GATES_MAX);
    uint64_t floor = tail > ring->capacity ? tail - ring->capacity : 0;
    bool open[GATES_MAX] = {false};

    /* All cursors before all holds: a member raises its hold before its cursor leaves what it
     * looks at. */
    for (uint32_t i = 0; i < count; i++) {
        const struct gate *gate = &ring->state->gates[i];
        const struct ring_gate *mine = &ring->gates[i];

        if (mine->group == CLIENT_NONE ||
            atomic_load_explicit(&gate->state, memory_order_acquire) != GATE_OPEN ||
            atomic_load_explicit(&gate->group, memory_order_acquire) != mine->group)
            continue;
        const struct group_segment *group = mine->segment.address;
        /* ORDER commit -> refresh: acquire; pairs with cursor_commit(). */
        uint64_t word = atomic_load_explicit(&group->cursor, memory_order_acquire);

        open[i] = true;
        if (!cursor_gates(word))
            continue;
        uint64_t at = cursor_offset(word, tail);

        if (at < m) {
            m = at;
            if (blocker)
                *blocker = (struct room_blocker){.holder = ROOM_CURSOR, .offset = at, .gate = i};
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t member = 0;

        if (!open[i])
            continue;
        const struct group_segment *group = ring->gates[i].segment.address;
        uint64_t hold = lowest_hold(ring, group, floor, m, &member, test_liveness);

        if (hold < m) {
            m = hold;
            if (blocker)
                *blocker = (struct room_blocker){
                    .holder = ROOM_HOLD,
                    .offset = hold,
                    .gate = i,
                    .member = member,
                    .client =
                        atomic_load_explicit(&group->members[member].client, memory_order_relaxed),
                };
        }
    }
    return m;
}

static void raise_head(struct ring *ring, uint64_t m)
{
    _Atomic uint64_t *head = &ring->producers->head;
    uint64_t h = atomic_load_explicit(head, memory_order_acquire);

    /* CAS-max: a plain store could take head back below what another producer has announced. */
    while (h < m && !atomic_compare_exchange_weak_explicit(head, &h, m, memory_order_acq_rel,
                                                           memory_order_acquire))
        ;
}

/* Policies block and reject: lowers *m to what groups leave, and announces it. */
static int refresh_gated(struct ring *ring, uint64_t tail, uint64_t need, uint64_t deadline_ns,
                         uint64_t *m)
{
    int rc = map_new_gates(ring, deadline_ns);
    bool test = false;

    if (rc < 0)
        return rc;
    uint64_t scanned = scan_gates(ring, tail, *m, test, NULL);

    if (scanned + ring->capacity < tail + need) {
        test = true; /* no room: only now is it worth asking the kernel who is dead */
        scanned = scan_gates(ring, tail, *m, test, NULL);
    }
    /* Unstamped claims hold back as well, even where groups gate: a group that joined at the log's
     * end stands above claims that were outstanding then, and nobody may lap these. */
    *m = min_u64(scanned, ring_lowest_unstamped(ring, 0, tail));
    /* head rises no further than this claim and some slack need: an announcement costs joiners
     * what it covers. */
    uint64_t wanted = tail + need + ring->capacity / 8;
    uint64_t head = atomic_load_explicit(&ring->producers->head, memory_order_acquire);

    *m = min_u64(*m, max_u64(head, wanted > ring->capacity ? wanted - ring->capacity : 0));
    raise_head(ring, *m);
    /* ORDER attach -> refresh: head before the second scan; pairs with the fence in
     * cursor_attach(). */
    atomic_thread_fence(memory_order_seq_cst);
    rc = map_new_gates(ring, deadline_ns); /* who entered meanwhile is seen before it is lapped */
    if (rc < 0)
        return rc;
    *m = scan_gates(ring, tail, *m, test, NULL);
    return 0;
}

int ring_refresh_limit(struct ring_producer *p, uint64_t need, uint64_t deadline_ns)
{
    struct ring *ring = p->ring;
    uint64_t tail = ring_tail(ring);
    uint64_t m = min_u64(tail, atomic_load_explicit(&ring->state->durable, memory_order_acquire));

    if (ring->gated) {
        int rc = refresh_gated(ring, tail, need, deadline_ns, &m);

        if (rc < 0)
            return rc;
    } else {
        /* I6: nothing that a consumer writes, not even its group's segment, is looked at. */
        m = min_u64(m, ring_lowest_unstamped(ring, 0, tail));
    }
    p->limit = m + ring->capacity;
    return tail + need <= p->limit ? RING_OK : RING_NO_ROOM;
}

void ring_find_blocker(const struct ring *ring, struct room_blocker *ret_blocker)
{
    uint64_t tail = ring_tail(ring);
    uint64_t durable = atomic_load_explicit(&ring->state->durable, memory_order_acquire);
    struct room_blocker blocker = {.holder = ROOM_FREE, .offset = tail};

    if (durable < tail)
        blocker = (struct room_blocker){.holder = ROOM_DURABLE, .offset = durable};
    if (ring->gated)
        scan_gates(ring, tail, blocker.offset, true, &blocker);
    uint64_t claim = ring_lowest_unstamped(ring, 0, tail);

    /* A cursor that stands at an unstamped claim waits for it: the claim is the cause. */
    if (claim < tail && claim <= blocker.offset)
        blocker = (struct room_blocker){.holder = ROOM_CLAIM, .offset = claim};
    *ret_blocker = blocker;
}
