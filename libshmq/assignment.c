/* SPDX-License-Identifier: Apache-2.0 */
/*
 * assignment.c: owning a partition: taking it over, moving its cursor, losing it (design §5,
 * protocols.md §5).
 *
 *   shmqd                                   member
 *     1 fence: cursor generation g → g + 1    a = assign: mine, generation g + 1
 *     2 assign = {member, g + 1}, release     hold = the cursor's offset; fence; look at both again
 *     3 event word + 1, wake                  read from there on; commit by compare-and-swap
 *
 * Between 1 and 2 nobody owns it. Step 2 is what a member waits for; a cursor whose generation is
 * behind the assignment's cannot be, one that is ahead says that a further hand-over is on its way.
 * A commit of an earlier generation fails (I9): whoever lost a partition without knowing cannot
 * move its cursor.
 *
 * Losing an assignment takes no memory: the hold stays until the views of the last poll are given
 * up. Called by the consumer's thread; nothing blocks. If the process dies here: shmqd clears the
 * hold, which at any instruction is at or below what could be looked at.
 */
#include "libshmq/consumer.h"

/* Where the cursor says that the group stands, bounded by what can be. */
static uint64_t read_cursor_offset(const struct consumer_partition *cp, uint64_t word)
{
    const struct ring *ring = consumer_ring(cp);
    uint64_t tail = ring_tail(ring);
    uint64_t offset = cursor_offset(word, tail);

    /* A member of the group can write anything there: it spoils its own group's reading, no more.
     */
    return max_u64(min_u64(offset, tail), ring->state->base);
}

/* Sets the hold at or below `offset` and says whether the assignment still stands. */
static bool hold_and_confirm(struct consumer_partition *cp, uint64_t assign, uint64_t word,
                             uint64_t offset)
{
    /* Views that are still out keep a lower one. */
    if (!cp->copies && atomic_load_explicit(&cp->me->hold, memory_order_relaxed) > offset)
        assignment_hold(cp, offset);
    /* ORDER hold -> refresh: the hold before the second look at the cursor. The cursor gated at
     * `offset` until now, and only I may move it from here on: whoever computes room sees one of
     * the two. */
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&cp->gate->assign, memory_order_acquire) == assign &&
           atomic_load_explicit(&cp->group->cursor, memory_order_acquire) == word;
}

/* Begins to read where the group stands. False: the hand-over goes on; another event will come. */
static bool take_partition(struct consumer_partition *cp, uint64_t assign)
{
    uint32_t generation = assign_generation(assign);
    uint64_t word = atomic_load_explicit(&cp->group->cursor, memory_order_acquire);
    uint64_t tail = ring_tail(consumer_ring(cp));
    /* A purge hands a partition over to its own owner, who goes on behind what it has read. */
    bool still = cp->owned && cursor_generation_after(assign_generation(cp->assign)) == generation;
    uint64_t offset = read_cursor_offset(cp, word);

    if (cursor_generation(word) != generation || !hold_and_confirm(cp, assign, word, offset))
        return false;
    cp->cursor_word = word;
    cp->committed = offset;
    if (still && cp->reader.position > offset && cp->reader.position <= tail)
        offset = cp->reader.position;
    if (tail - offset > consumer_ring(cp)->capacity) {
        /* Nobody held producers back for this group meanwhile. */
        uint64_t to = ring_resynchronise(consumer_ring(cp), offset);

        cp->lost_bytes += to - offset;
        cp->after_loss = true;
        atomic_store_explicit(&cp->me->lost_bytes, cp->lost_bytes, memory_order_relaxed);
        offset = to;
    }
    cp->reader.position = offset;
    cp->assign = assign;
    cp->owned = true;
    cp->fenced = false;
    cp->stuck_ns = 0;
    return true;
}

static void drop_partition(struct consumer_partition *cp)
{
    cp->owned = false;
    cp->view_hold = true; /* released with the views, or right away if there are none */
}

static void release_hold(struct consumer_partition *cp)
{
    cp->view_hold = false;
    if (!cp->copies) {
        assignment_hold(cp, HOLD_NONE);
        (void)wait_wake(cp->wait, ATTENTION_ROOM, cp->fence_mode);
    }
}

void assignment_release_views(struct shmq_consumer *c)
{
    for (uint32_t i = 0; i < c->partition_count; i++) {
        struct consumer_partition *cp = &c->partitions[i];

        if (cp->view_hold && !cp->owned && cp->attachment)
            release_hold(cp);
        cp->view_hold = false;
    }
}

/* Asked to let go: what was returned is processed by now (a poll gives its views up before it
 * looks). */
static void answer_revoke(struct shmq_consumer *c, struct consumer_partition *cp)
{
    uint64_t generation = assign_generation(cp->assign);
    uint64_t revoke = atomic_load_explicit(&cp->gate->revoke, memory_order_acquire);

    if (revoke == 0 || revoke != generation)
        return;
    if (c->auto_commit && cp->reader.position != cp->committed)
        (void)assignment_commit(c, cp);
    drop_partition(cp);
    /* Release: the commit before it. shmqd of this version asks nobody to let go; its look will be
     * an acquire. */
    atomic_store_explicit(&cp->me->released, generation, memory_order_release);
}

static void refresh_partition(struct shmq_consumer *c, struct consumer_partition *cp)
{
    /* ORDER assign -> take: acquire: the fenced cursor is seen; pairs with shmqd's release. */
    uint64_t assign = atomic_load_explicit(&cp->gate->assign, memory_order_acquire);
    bool mine = assign != 0 && assign_member(assign) == c->member;

    if (cp->owned && !mine)
        drop_partition(cp);
    else if (cp->dead)
        return;
    /* Fenced, and the cursor not ahead of the assignment after all: it was moved, and is followed.
     */
    else if (mine && (!cp->owned || cp->fenced || assign != cp->assign) &&
             !take_partition(cp, assign) && cp->owned && assign != cp->assign)
        drop_partition(cp);
    if (cp->owned)
        answer_revoke(c, cp);
}

bool assignment_recheck(struct shmq_consumer *c, struct consumer_partition *cp)
{
    uint64_t assign = atomic_load_explicit(&cp->gate->assign, memory_order_acquire);

    if (assign != cp->assign && assign != 0 && assign_member(assign) == c->member &&
        take_partition(cp, assign))
        return true;
    drop_partition(cp);
    assignment_list_owned(c);
    c->stopped = true; /* the next poll gives the views up, and the hold with them */
    return false;
}

static bool group_is_deleted(const struct shmq_consumer *c, const struct consumer_partition *cp)
{
    return atomic_load_explicit(&cp->gate->state, memory_order_acquire) == GATE_DELETED ||
           atomic_load_explicit(&cp->gate->group, memory_order_acquire) != c->group_id;
}

static bool is_read(const struct consumer_partition *cp)
{
    return cp->owned && !cp->fenced && !cp->dead;
}

static bool list_is_right(const struct shmq_consumer *c)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < c->partition_count; i++) {
        if (!is_read(&c->partitions[i]))
            continue;
        if (count == c->owned_count || c->owned[count] != &c->partitions[i])
            return false;
        count++;
    }
    return count == c->owned_count;
}

void assignment_list_owned(struct shmq_consumer *c)
{
    if (list_is_right(c))
        return; /* the notifier's thread need not be stopped for it */
    consumer_pause_watch(c);
    c->owned_count = 0;
    for (uint32_t i = 0; i < c->partition_count; i++) {
        if (is_read(&c->partitions[i]))
            c->owned[c->owned_count++] = &c->partitions[i];
    }
    c->sole = c->owned_count == 1 && !c->owned[0]->copies ? c->owned[0] : NULL;
    if (c->next >= c->owned_count)
        c->next = 0;
    consumer_resume_watch(c);
}

int assignment_refresh(struct shmq_consumer *c, struct error_buffer *why)
{
    if (group_is_deleted(c, consumer_any(c))) {
        c->failed = SHMQ_ENOGROUP;
        assignment_drop_all(c);
        return error_set(why, SHMQ_ENOGROUP,
                         "group %s of topic %s: was deleted; close this consumer and open another",
                         c->group, c->name);
    }
    for (uint32_t i = 0; i < c->partition_count; i++) {
        if (c->partitions[i].attachment)
            refresh_partition(c, &c->partitions[i]);
    }
    assignment_list_owned(c);
    return 0;
}

void assignment_drop_all(struct shmq_consumer *c)
{
    for (uint32_t i = 0; i < c->partition_count; i++) {
        drop_partition(&c->partitions[i]);
        if (c->partitions[i].attachment)
            release_hold(&c->partitions[i]);
    }
    assignment_list_owned(c);
}

int assignment_commit(struct shmq_consumer *c, struct consumer_partition *cp)
{
    int rc;

    if (cp->fenced)
        return SHMQ_EFENCED;
    rc = cursor_commit(cp->group, &cp->cursor_word, cp->reader.position);
    if (rc == 0) {
        cp->committed = cp->reader.position;
        (void)wait_wake(cp->wait, ATTENTION_ROOM, cp->fence_mode);
        return 0;
    }
    /* Taken over, or handed over to myself (a purge): the assignment tells when it changes, which
     * is announced; if shmqd has died before, by its successor. Until then nothing is read here:
     * the next look takes it out of the list. */
    cp->fenced = true;
    c->stopped = true;
    return rc;
}
