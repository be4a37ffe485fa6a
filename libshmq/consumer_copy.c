/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_copy.c: reading where producers wait for nobody (policies drop-old and spill): copy, then validate; skip
 * what was overwritten, and count it, or go on in the journal. See consumer.h.
 *
 * Called by the channel's thread, within a poll. Nothing blocks; memory grows only for a message that is
 * larger than any before. If the process dies here nothing is owed: these readers hold nothing.
 */
#include <stdlib.h>

#include "libshmq/consumer_take.h"

enum copy_end {
    COPY_DONE,   /* all there is, or all that was asked for */
    COPY_FULL,   /* the arena is full */
    COPY_LAPPED, /* nothing at the reader's position any more */
};

/* The reader was overtaken: on to what is still there; the gap is lost, to the byte. */
static void skip_lost(struct consumer_partition *cp, uint64_t from)
{
    uint64_t to = ring_resynchronise(consumer_ring(cp), from);

    cp->reader.position = to;
    consumer_note_loss(cp, to - from);
}

/* The record at the reader's position does not fit into an empty arena. True: it does now. */
static bool grow_arena(struct shmq_consumer *c, struct consumer_partition *cp)
{
    const struct ring_reader *reader = &cp->reader;
    const struct record *record = ring_record_const(reader->data, reader->mask, reader->position);
    uint32_t length = load_length(record);
    unsigned char *grown;
    size_t bytes;

    if (length > reader->length_max || !ring_copy_valid(reader, reader->position)) {
        if (ring_copy_valid(reader, reader->position))
            mark_corrupt(c, cp);
        return false;
    }
    bytes = align_up_u64(RECORD_HEADER + (uint64_t)length, RECORD_UNIT);
    if (bytes <= c->arena_bytes)
        return false;
    grown = realloc(c->arena, bytes);
    if (!grown)
        return false; /* it stays where it is; the next poll tries again */
    c->arena = grown;
    c->arena_bytes = bytes;
    return true;
}

/* Copies up to `max` records behind each other into the arena. Nothing of it is validated yet. */
static uint32_t copy_batch(struct shmq_consumer *c, struct consumer_partition *cp,
                           struct shmq_message *messages, uint32_t max, enum copy_end *ret_end)
{
    struct ring_reader *reader = &cp->reader;
    uint64_t most = consumer_ring(cp)->capacity / 16; /* less to lose to a lapping producer */
    uint64_t limit = cp->durable_only ? attachment_durable(cp->attachment) : UINT64_MAX;
    uint64_t start = reader->position;
    uint32_t taken = 0;

    *ret_end = COPY_DONE;
    while (taken < max && reader->position - start < most && reader->position < limit) {
        unsigned char *to = c->arena + c->arena_used;
        uint32_t bytes = ring_copy(reader, to, c->arena_bytes - c->arena_used);
        struct record *copy = (struct record *)(void *)to;

        if (bytes == 0) {
            if (taken == 0 &&
                ring_tail(consumer_ring(cp)) - reader->position > consumer_ring(cp)->capacity)
                *ret_end = COPY_LAPPED;
            break;
        }
        if (bytes == RING_TOO_LONG) {
            if (taken == 0 && c->arena_used == 0 && grow_arena(c, cp))
                continue;
            *ret_end =
                taken > 0 || ring_copy_valid(reader, reader->position) ? COPY_FULL : COPY_LAPPED;
            break;
        }
        if (reader->position >= limit) /* behind padding that reached to it */
            break;
        if (!fill_message(&messages[taken], to + RECORD_HEADER, bytes - RECORD_HEADER,
                          load_lengths(copy))) {
            if (ring_copy_valid(reader, reader->position))
                mark_corrupt(c, cp); /* not torn: written so */
            else if (taken == 0)
                *ret_end = COPY_LAPPED;
            break;
        }
        place_message(&messages[taken], reader->position, copy->timestamp_ns, cp->index);
        taken++;
        reader->position += record_size(bytes - RECORD_HEADER);
        c->arena_used += align_up_u64(bytes, 8);
    }
    return taken;
}

/* How many of the first copies may be torn. What lies above a valid offset is valid, and has a
 * stamp that nobody forges: it is a record, even if the length that led to it was torn. */
static uint32_t count_torn(const struct consumer_partition *cp, const struct shmq_message *messages,
                           uint32_t taken)
{
    uint32_t torn = 0;

    while (torn < taken && !ring_copy_valid(&cp->reader, messages[torn].offset))
        torn++;
    return torn;
}

/* A few rounds: a reader that is lapped again and again comes back with the next poll. */
#define COPY_ROUNDS 4

uint32_t consumer_take_copies(struct shmq_consumer *c, struct consumer_partition *cp,
                              struct shmq_message *messages, uint32_t max, bool *ret_full)
{
    for (int round = 0; round < COPY_ROUNDS; round++) {
        uint64_t start = cp->reader.position;
        size_t arena_before = c->arena_used;
        enum copy_end end;
        uint32_t taken = copy_batch(c, cp, messages, max, &end);
        uint32_t torn = count_torn(cp, messages, taken);

        *ret_full = end == COPY_FULL;
        if (taken == 0 && end != COPY_LAPPED)
            return 0;
        if ((torn > 0 || taken == 0) && consumer_fall_behind(c, cp, start)) {
            c->arena_used = arena_before;
            return 0;
        }
        if (torn == taken) {
            c->arena_used = arena_before;
            skip_lost(cp, start);
            continue;
        }
        if (torn > 0) {
            consumer_note_loss(cp, messages[torn].offset - start);
            taken -= torn;
            memmove(messages, messages + torn, taken * sizeof(*messages));
        }
        cp->fresh = false;
        cp->exact = true;
        mark_loss(cp, &messages[0]);
        count_messages(cp, taken);
        return taken;
    }
    return 0;
}
