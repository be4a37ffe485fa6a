/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_journaled.c: polls of a durable topic's partition that cannot be read the plain way: in one of two places
 * (see consumer.h), or only what is durable.
 *
 * Called by the channel's thread, within a poll. In the ring nothing blocks; see consumer_history.c for the journal. If
 * the process dies here: as in either place.
 */
#include "libshmq/consumer_take.h"

/* In the ring, up to what is durable: views as in consumer.c, without its haste. */
static uint32_t take_durable(struct shmq_consumer *c, struct consumer_partition *cp,
                             struct shmq_message *messages, uint32_t max)
{
    uint64_t limit = cp->durable_only ? attachment_durable(cp->attachment) : UINT64_MAX;
    uint64_t start = cp->reader.position;
    uint32_t taken = 0;

    while (taken < max && cp->reader.position < limit) {
        uint32_t length;
        const struct record *record = ring_peek(&cp->reader, &length);

        if (!record || cp->reader.position >= limit) {
            if (!record && length != 0)
                mark_corrupt(c, cp);
            break;
        }
        if (!fill_message(&messages[taken], record->payload, length, load_lengths(record))) {
            mark_corrupt(c, cp);
            break;
        }
        place_message(&messages[taken], cp->reader.position, record->timestamp_ns, cp->index);
        cp->reader.position += record_size(length);
        taken++;
    }
    if (taken > 0) {
        mark_loss(cp, &messages[0]);
        count_messages(cp, taken);
    } else if (cp->reader.position != start) {
        consumer_pass_padding(c, cp, start);
    }
    return taken;
}

uint32_t consumer_take_journaled(struct shmq_consumer *c, struct consumer_partition *cp,
                                 struct shmq_message *messages, uint32_t max, bool *ret_full)
{
    /* Once more where it was found on the way that it is to be read in the other place. */
    for (int round = 0; round < 2; round++) {
        bool behind = cp->behind;
        uint32_t taken = behind       ? consumer_take_history(c, cp, messages, max)
                         : cp->copies ? consumer_take_copies(c, cp, messages, max, ret_full)
                                      : take_durable(c, cp, messages, max);

        if (taken > 0 || cp->behind == behind)
            return taken;
    }
    return 0;
}

/* ---- from one to the other ------------------------------------------------------------------- */

void consumer_give_up_history(struct shmq_consumer *c, struct consumer_partition *cp)
{
    uint64_t position = cp->reader.position;

    /* Relaxed, as in give_up_views(). */
    if (atomic_load_explicit(&cp->wait->attention, memory_order_relaxed) & ATTENTION_CLOSED)
        c->stopped = c->stopped || attachment_is_over(cp->attachment);
    if (!cp->copies && atomic_load_explicit(&cp->me->hold, memory_order_relaxed) != HOLD_NONE) {
        assignment_hold(cp, HOLD_NONE);
        (void)wait_wake(cp->wait, ATTENTION_ROOM, cp->fence_mode);
    }
    if (c->auto_commit && position != cp->committed && position - cp->committed >= cp->batch)
        (void)assignment_commit(c, cp);
}

bool consumer_fall_behind(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t position)
{
    const struct state_segment *state = consumer_ring(cp)->state;

    if (!consumer_is_durable(cp) || (state->policy == OVERFLOW_DROP_OLD && !cp->fresh))
        return false;
    cp->reader.position = position;
    cp->behind = true;
    assignment_list_owned(c);
    return true;
}

void consumer_skip_older(struct consumer_partition *cp)
{
    struct ring_reader *reader = &cp->reader;
    uint64_t tail = ring_tail(reader->ring);

    while (reader->position < tail) {
        const struct record *record =
            ring_record_const(reader->data, reader->mask, reader->position);
        /* ORDER publish -> poll: as in ring_peek(). */
        uint64_t commit = atomic_load_explicit(&record->commit, memory_order_acquire);
        uint64_t state = record_state(commit, reader->salt, reader->position);
        uint64_t timestamp_ns = atomic_load_explicit(
            (const _Atomic uint64_t *)(const void *)&record->timestamp_ns, memory_order_relaxed);
        uint32_t length = load_length(record);

        if (cp->copies && !ring_copy_valid(reader, reader->position))
            return; /* lapped: from a journal, if there is one, in the same way */
        if (state == 0 || (state == RECORD_COMMITTED && timestamp_ns >= cp->skip_before_ns) ||
            length > reader->length_max)
            break;
        reader->position += record_size(length);
    }
    cp->skip_before_ns = 0;
}
