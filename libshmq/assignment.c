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

    /* A member of the group can write anything there: it spoils its own group's reading, no more. A journal
     * goes back before the memory that there is now. */
    return max_u64(min_u64(offset, tail), ring->durable ? 0 : ring->state->base);
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

static uint64_t load_head(const struct ring *ring)
{
    return atomic_load_explicit(&ring->producers->head, memory_order_acquire);
}

/* The ring has lost what stands at `offset`, or nobody keeps it from doing so. The hold is there, if it has one. */
static bool is_behind(const struct consumer_partition *cp, uint64_t offset)
{
    const struct ring *ring = consumer_ring(cp);

    if (offset < ring->state->base || ring_tail(ring) - offset > ring->capacity)
        return true;
    /* A hold alone keeps it if producers have not announced to overwrite it before they could see the hold: the
     * fence in hold_and_confirm() stands between; see assignment_join_ring(). A cursor that gates stands above
     * head anyway, but for one whose owner died in the middle of cursor_commit_gating(). */
    return ring->durable && !cp->copies && load_head(ring) > offset;
}

/* What the group has not seen is not in the ring any more: nobody held producers back for it meanwhile. 0, or
 * SHMQ_EFENCED. */
static int take_behind(struct consumer_partition *cp, uint64_t *offset, bool held)
{
    uint64_t to;

    if (consumer_is_durable(cp)) {
        cp->behind = true;
        if (!cp->copies && !held) {
            assignment_hold(cp, HOLD_NONE);
            (void)wait_wake(cp->wait, ATTENTION_ROOM, cp->fence_mode);
        }
        return cursor_gates(cp->cursor_word)
                   ? cursor_move(cp->group, &cp->cursor_word, cp->committed, false)
                   : 0;
    }
    to = ring_resynchronise(consumer_ring(cp), *offset);
    consumer_note_loss(cp, to - *offset);
    *offset = to;
    return 0;
}

/* Begins to read where the group stands. False: the hand-over goes on; another event will come. */
static bool take_partition(struct consumer_partition *cp, uint64_t assign)
{
    uint32_t generation = assign_generation(assign);
    uint64_t word = atomic_load_explicit(&cp->group->cursor, memory_order_acquire);
    /* A purge hands a partition over to its own owner, who goes on behind what it has read. */
    bool still = cp->owned && cursor_generation_after(assign_generation(cp->assign)) == generation;
    bool held = atomic_load_explicit(&cp->me->hold, memory_order_relaxed) != HOLD_NONE;
    uint64_t offset = read_cursor_offset(cp, word);

    if (cursor_generation(word) != generation || !hold_and_confirm(cp, assign, word, offset))
        return false;
    cp->cursor_word = word;
    cp->committed = offset;
    if (still && cp->reader.position > offset &&
        cp->reader.position <= ring_tail(consumer_ring(cp))) {
        offset = cp->reader.position;
    } else {
        cp->exact = false;
        cp->sought = false;
    }
    cp->behind = false;
    cp->fresh = true;
    if (is_behind(cp, offset) && take_behind(cp, &offset, held) < 0)
        return false;
    cp->reader.position = offset;
    cp->assign = assign;
    cp->owned = true;
    cp->fenced = false;
    cp->stuck_ns = 0;
    return true;
}

bool assignment_join_ring(struct consumer_partition *cp, uint64_t offset)
{
    assignment_hold(cp, offset);
    /* ORDER attach -> refresh: the hold before the look at head: a producer that computes its room without seeing
     * the hold has raised head before we look, and its limit goes by what it raised it to. Whoever sees it stops
     * there. Pairs with the fence in ring_refresh_limit(). */
    atomic_thread_fence(memory_order_seq_cst);
    if (load_head(consumer_ring(cp)) <= offset)
        return true;
    assignment_hold(cp, HOLD_NONE);
    (void)wait_wake(cp->wait, ATTENTION_ROOM, cp->fence_mode);
    return false;
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
        if (cp->history && !(cp->owned && cp->behind))
            consumer_free_history(cp, false);
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
        take_partition(cp, assign)) {
        assignment_list_owned(c); /* it may be read elsewhere now */
        return true;
    }
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
    return cp->owned && !cp->fenced && !cp->dead && !cp->pending_time;
}

static bool is_journaled(const struct consumer_partition *cp)
{
    return cp->behind || cp->durable_only || (cp->copies && consumer_is_durable(cp));
}

static uint32_t choose_wait_bit(const struct consumer_partition *cp)
{
    return cp->behind || cp->durable_only ? ATTENTION_DURABLE : ATTENTION_DATA;
}

static bool list_is_right(const struct shmq_consumer *c)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < c->partition_count; i++) {
        if (!is_read(&c->partitions[i]))
            continue;
        if (count == c->owned_count || c->owned[count] != &c->partitions[i] ||
            c->partitions[i].journaled != is_journaled(&c->partitions[i]) ||
            c->partitions[i].wait_bit != choose_wait_bit(&c->partitions[i]))
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
    c->paths++;
    c->owned_count = 0;
    for (uint32_t i = 0; i < c->partition_count; i++) {
        struct consumer_partition *cp = &c->partitions[i];

        if (!is_read(cp))
            continue;
        cp->journaled = is_journaled(cp);
        cp->wait_bit = choose_wait_bit(cp);
        c->owned[c->owned_count++] = cp;
    }
    c->sole =
        c->owned_count == 1 && !c->owned[0]->copies && !c->owned[0]->journaled ? c->owned[0] : NULL;
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
    /* One that was behind, and is in the ring again, holds producers back from here on. */
    rc = !cp->copies && !cp->behind && !cursor_gates(cp->cursor_word)
             ? cursor_commit_gating(consumer_ring(cp), cp->group, &cp->cursor_word,
                                    cp->reader.position)
             : cursor_commit(cp->group, &cp->cursor_word, cp->reader.position);
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
