/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_seek.c: moving to another place: an offset, or a time. See consumer.h.
 *
 * Called by the channel's thread. Of a topic without a journal nothing blocks and nothing asks the supervisor. Of one
 * with a journal a place that the ring does not have is looked up there at once, so that the position is that of a
 * message; where nobody answers, the polls that follow do it. A time is looked up or the seek fails. If the process
 * dies here, the next owner begins at the cursor, which moves in one step.
 */
#include "libshmq/consumer.h"

/* ---- in the ring ----------------------------------------------------------------------------- */

/* From here on in the ring, to the first record. */
static void find_in_ring(struct consumer_partition *cp, uint64_t from)
{
    cp->reader.position = ring_resynchronise(consumer_ring(cp), from);
    if (cp->skip_before_ns != 0)
        consumer_skip_older(cp);
}

/* With the cursor gating at `from` or above, everything from there on stays. */
static int seek_gated(struct consumer_partition *cp, uint64_t from)
{
    uint32_t generation = cursor_generation(cp->cursor_word);
    bool gates = cursor_gates(cp->cursor_word);
    uint64_t place;
    int rc = 0;

    /* ORDER hold -> refresh: down before the cursor moves down; up only after it is known where to.
     */
    if (from < atomic_load_explicit(&cp->me->hold, memory_order_relaxed))
        assignment_hold(cp, from);
    place = cursor_attach(consumer_ring(cp), cp->group, generation, from, gates, &rc);
    if (rc < 0)
        return rc;
    cp->cursor_word = cursor_make(generation, gates, place);
    cp->committed = place;
    find_in_ring(cp, place);
    if (cp->reader.position != place) {
        rc = cursor_commit(cp->group, &cp->cursor_word, cp->reader.position);
        if (rc == 0)
            cp->committed = cp->reader.position;
    }
    assignment_hold(cp, cp->reader.position);
    return rc;
}

static int seek_copying(struct consumer_partition *cp, uint64_t from)
{
    int rc;

    find_in_ring(cp, from);
    rc = cursor_commit(cp->group, &cp->cursor_word, cp->reader.position);
    if (rc == 0)
        cp->committed = cp->reader.position;
    return rc;
}

/* ---- with a journal -------------------------------------------------------------------------- */

/* What is above `durable` is nowhere else; what producers wait for, a hold keeps. */
static bool is_kept_in_ring(struct consumer_partition *cp, uint64_t from)
{
    if (from < consumer_ring(cp)->state->base)
        return false;
    return cp->copies ? from >= attachment_durable(cp->attachment) : assignment_join_ring(cp, from);
}

/* Why the journal could not be read yet is *ret_unread, with a sentence in `why`. */
static int seek_durable(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t from,
                        uint64_t tail, int *ret_unread, struct error_buffer *why)
{
    int rc;

    cp->behind = !is_kept_in_ring(cp, from);
    cp->fresh = true;
    cp->exact = !cp->behind;
    cp->sought = true;
    cp->reader.position = from;
    if (cp->behind)
        *ret_unread = consumer_settle(c, cp, why);
    else if (from != tail) /* that is where a record will begin */
        find_in_ring(cp, from);
    assignment_list_owned(c);
    if (!cp->copies && !cp->behind) {
        assignment_hold(cp, cp->reader.position);
        rc = cursor_commit_gating(consumer_ring(cp), cp->group, &cp->cursor_word,
                                  cp->reader.position);
    } else {
        rc = cursor_move(cp->group, &cp->cursor_word, cp->reader.position, false);
    }
    if (rc == 0)
        cp->committed = cp->reader.position;
    return rc;
}

/* ---- both ------------------------------------------------------------------------------------ */

static int seek_once(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t offset,
                     uint64_t time_ns, int *ret_unread, struct error_buffer *why)
{
    const struct ring *ring = consumer_ring(cp);
    uint64_t tail = ring_tail(ring);
    uint64_t oldest = ring->durable ? consumer_first(cp) : ring_oldest(ring);
    uint64_t from = align_up_u64(min_u64(max_u64(offset, oldest), tail), RECORD_UNIT);

    cp->skip_before_ns = time_ns;
    if (ring->durable)
        return seek_durable(c, cp, from, tail, ret_unread, why);
    return cp->copies ? seek_copying(cp, from) : seek_gated(cp, from);
}

/* To the first message at or above `offset`, and not older than time_ns. */
static int seek_partition(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t offset,
                          uint64_t time_ns, int *ret_unread, struct error_buffer *why)
{
    int rc;

    if (!cp->owned)
        return consumer_refuse_fenced(c, cp->index, why);
    cp->pending_time = false;
    rc = seek_once(c, cp, offset, time_ns, ret_unread, why);
    if (rc == SHMQ_EFENCED && assignment_recheck(c, cp))
        rc = seek_once(c, cp, offset, time_ns, ret_unread, why);
    if (rc < 0)
        return consumer_refuse_fenced(c, cp->index, why);
    cp->after_loss = false;
    cp->stuck_ns = 0;
    (void)wait_wake(cp->wait, ATTENTION_ROOM, cp->fence_mode);
    return 0;
}

static int seek_partition_time(struct shmq_consumer *c, struct consumer_partition *cp,
                               uint64_t time_ns, uint64_t deadline_ns, struct error_buffer *why)
{
    struct protocol_journal_opened opened;
    struct tracked_fd fd = {.fd = -1};
    uint64_t offset = 0;
    int unread = 0;
    int rc;

    if (!cp->owned)
        return consumer_refuse_fenced(c, cp->index, why);
    if (consumer_is_durable(cp)) {
        rc = attachment_open_journal(cp->attachment, consumer_first(cp), time_ns, deadline_ns, 0,
                                     &opened, &fd, why);
        if (rc < 0)
            return error_prefix(why, rc, "topic %s/%u", c->name, cp->index);
        handles_close_fd(&fd); /* opened again by the seek, like any other */
        offset = opened.present ? opened.base : attachment_durable(cp->attachment);
    }
    rc = seek_partition(c, cp, offset, time_ns, &unread, why);
    return rc < 0 ? rc : unread;
}

static bool is_chosen(const struct consumer_partition *cp, uint32_t partition)
{
    return partition == SHMQ_ALL_PARTITIONS || partition == cp->index;
}

static int check_partition(const struct shmq_consumer *c, uint32_t partition,
                           struct error_buffer *why)
{
    if (partition == SHMQ_ALL_PARTITIONS || partition < c->partition_count)
        return 0;
    return error_set(why, SHMQ_EINVAL, "topic %s: partition %u: there are %u, from 0 on", c->name,
                     partition, c->partition_count);
}

static int refuse_quarantined(const struct shmq_consumer *c, uint32_t partition,
                              struct error_buffer *why)
{
    return error_set(why, SHMQ_ECORRUPT, "topic %s/%u: is quarantined", c->name, partition);
}

int shmq_seek(shmq_consumer *c, uint32_t partition, uint64_t offset)
{
    int result = consumer_check_handle(c, "seek: consumer is NULL");
    struct error_buffer *why;

    if (result < 0)
        return result;
    why = handles_error(c->connection->serial);
    result = check_partition(c, partition, why);
    if (offset == SHMQ_SEEK_EARLIEST)
        offset = 0;
    for (uint32_t i = 0; result != SHMQ_EINVAL && i < c->partition_count; i++) {
        struct consumer_partition *cp = &c->partitions[i];
        struct error_buffer ignored;
        int unread, rc;

        if (!is_chosen(cp, partition))
            continue;
        rc = cp->attachment ? seek_partition(c, cp, offset, 0, &unread, &ignored)
                            : refuse_quarantined(c, i, &ignored);
        if (rc < 0) {
            *why = ignored;
            result = rc;
        }
    }
    return result;
}

int shmq_seek_time(shmq_consumer *c, uint32_t partition, uint64_t time_ns)
{
    int result = consumer_check_handle(c, "seek: consumer is NULL");
    struct error_buffer *why;
    uint64_t deadline_ns;

    if (result < 0)
        return result;
    why = handles_error(c->connection->serial);
    result = check_partition(c, partition, why);
    deadline_ns = deadline_after_ms(c->connection->timeout_ms);
    for (uint32_t i = 0; result == 0 && i < c->partition_count; i++) {
        struct consumer_partition *cp = &c->partitions[i];

        if (is_chosen(cp, partition))
            result = cp->attachment ? seek_partition_time(c, cp, time_ns, deadline_ns, why)
                                    : refuse_quarantined(c, i, why);
    }
    return result;
}

int consumer_seek_pending(struct shmq_consumer *c, uint64_t deadline_ns, struct error_buffer *why)
{
    for (uint32_t i = 0; i < c->partition_count; i++) {
        struct consumer_partition *cp = &c->partitions[i];
        int rc;

        if (!cp->pending_time || !cp->owned || !cp->attachment)
            continue;
        rc = seek_partition_time(c, cp, c->from_time_ns, deadline_ns, why);
        cp->pending_time = rc < 0 && rc != SHMQ_EFENCED;
        assignment_list_owned(c);
        if (cp->pending_time)
            return rc;
    }
    return 0;
}
