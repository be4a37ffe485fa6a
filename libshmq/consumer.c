/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer.c: poll, as long as there is something to read. See consumer.h.
 *
 * Called by the channel's thread. Per partition and poll: one store of the hold on this member's
 * own line, one relaxed load of the attention word, and the records themselves; a cursor moves
 * every sixteenth of a ring. No system call, no lock, no allocation, no division. Waiting is in
 * consumer_wait.c. If the process dies here, the next owner begins at the cursor: what was not
 * committed is delivered again.
 */
#include "libshmq/consumer.h"

#include "libshmq/record.h"

_Static_assert(offsetof(struct record, producer) == 24 &&
                   offsetof(struct record, key_length) == 26 &&
                   offsetof(struct record, headers_length) == 28,
               "lengths in the word at 24");

/* The lengths as one load: a hostile producer changes them between two looks, but not within one.
 */
static ALWAYS_INLINE void load_lengths(const struct record *record, uint16_t *ret_key,
                                       uint16_t *ret_headers)
{
    const _Atomic uint64_t *word = (const _Atomic uint64_t *)(const void *)&record->producer;
    /* Relaxed: ordered by the acquire of the stamp. */
    uint64_t lengths = atomic_load_explicit(word, memory_order_relaxed);

    *ret_key = (uint16_t)(lengths >> 16);
    *ret_headers = (uint16_t)(lengths >> 32);
}

/* False: key and headers are longer than the whole, which no honest producer writes. */
static ALWAYS_INLINE bool fill_message(struct shmq_message *message, const unsigned char *payload,
                                       uint32_t length, uint16_t key_length,
                                       uint16_t headers_length)
{
    uint32_t before = (uint32_t)key_length + headers_length;

    if (UNLIKELY(before > length))
        return false;
    message->key = payload;
    message->headers = payload + key_length;
    message->body = payload + before;
    message->body_length = length - before;
    message->key_length = key_length;
    message->headers_length = headers_length;
    message->flags = 0;
    return true;
}

static void mark_corrupt(struct shmq_consumer *c, struct consumer_partition *cp) COLD;

static void mark_corrupt(struct shmq_consumer *c, struct consumer_partition *cp)
{
    cp->dead = SHMQ_ECORRUPT;
    c->stopped = true; /* told by the next consumer_attend() */
}

static ALWAYS_INLINE void mark_loss(struct consumer_partition *cp, struct shmq_message *message)
{
    if (UNLIKELY(cp->after_loss)) {
        message->flags |= SHMQ_MESSAGE_AFTER_LOSS;
        cp->after_loss = false;
    }
}

/* Statistics on this member's own line; relaxed: nobody orders by them. */
static ALWAYS_INLINE void count_messages(struct consumer_partition *cp, uint32_t records,
                                         uint64_t bytes)
{
    struct group_member *me = cp->me;

    atomic_store_explicit(&me->records,
                          atomic_load_explicit(&me->records, memory_order_relaxed) + records,
                          memory_order_relaxed);
    atomic_store_explicit(&me->bytes,
                          atomic_load_explicit(&me->bytes, memory_order_relaxed) + bytes,
                          memory_order_relaxed);
    atomic_store_explicit(&me->position, cp->reader.position, memory_order_relaxed);
}

/* ---- views: policies block and reject -------------------------------------------------------- */

static void pass_padding(struct shmq_consumer *c, struct consumer_partition *cp,
                         uint64_t start) COLD;

/* Nothing but padding from `start` on: no message comes of it that the program could commit, so it would hold
 * producers back until one does, or, with manual commit, for ever. What was returned before it goes first. */
static void pass_padding(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t start)
{
    assignment_hold(cp, cp->reader.position);
    if (c->auto_commit || cp->committed == start)
        (void)assignment_commit(c, cp);
}

static ALWAYS_INLINE uint32_t take_views(struct shmq_consumer *c, struct consumer_partition *cp,
                                         struct shmq_message *messages, uint32_t max)
{
    struct ring_reader *reader = &cp->reader;
    uint64_t start = reader->position;
    uint32_t taken = 0;
    uint64_t bytes = 0;

    while (taken < max) {
        struct shmq_message *message = &messages[taken];
        uint16_t key_length, headers_length;
        uint32_t length;
        const struct record *record = ring_peek(reader, &length);

        if (!record) {
            if (UNLIKELY(length != 0))
                mark_corrupt(c, cp);
            break;
        }
        load_lengths(record, &key_length, &headers_length);
        if (!fill_message(message, record->payload, length, key_length, headers_length)) {
            mark_corrupt(c, cp);
            break;
        }
        message->offset = reader->position;
        message->timestamp_ns = record->timestamp_ns;
        message->partition = cp->index;
        mark_loss(cp, message);
        reader->position += record_size(length);
        bytes += length;
        taken++;
    }
    if (taken > 0)
        count_messages(cp, taken, bytes);
    else if (UNLIKELY(reader->position != start))
        pass_padding(c, cp, start);
    return taken;
}

/* ---- copies: policy drop-old ----------------------------------------------------------------- */

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
    cp->lost_bytes += to - from;
    cp->after_loss = true;
    atomic_store_explicit(&cp->me->lost_bytes, cp->lost_bytes, memory_order_relaxed);
}

/* The record at the reader's position does not fit into an empty arena. True: it does now. */
static bool grow_arena(struct shmq_consumer *c, struct consumer_partition *cp)
{
    const struct ring_reader *reader = &cp->reader;
    const struct record *record = ring_record_const(reader->data, reader->mask, reader->position);
    const _Atomic uint32_t *word = (const _Atomic uint32_t *)(const void *)&record->length;
    uint32_t length = atomic_load_explicit(word, memory_order_relaxed);
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
    uint64_t start = reader->position;
    uint32_t taken = 0;

    *ret_end = COPY_DONE;
    while (taken < max && reader->position - start < most) {
        unsigned char *to = c->arena + c->arena_used;
        uint32_t bytes = ring_copy(reader, to, c->arena_bytes - c->arena_used);
        uint16_t key_length, headers_length;
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
        load_lengths(copy, &key_length, &headers_length);
        if (!fill_message(&messages[taken], to + RECORD_HEADER, bytes - RECORD_HEADER, key_length,
                          headers_length)) {
            if (ring_copy_valid(reader, reader->position))
                mark_corrupt(c, cp); /* not torn: written so */
            else if (taken == 0)
                *ret_end = COPY_LAPPED;
            break;
        }
        messages[taken].offset = reader->position;
        messages[taken].timestamp_ns = copy->timestamp_ns;
        messages[taken].partition = cp->index;
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

static uint32_t take_copies(struct shmq_consumer *c, struct consumer_partition *cp,
                            struct shmq_message *messages, uint32_t max, bool *ret_full)
{
    for (int round = 0; round < COPY_ROUNDS; round++) {
        uint64_t start = cp->reader.position;
        size_t arena_before = c->arena_used;
        enum copy_end end;
        uint32_t taken = copy_batch(c, cp, messages, max, &end);
        uint32_t torn = count_torn(cp, messages, taken);
        uint64_t bytes = 0;

        *ret_full = end == COPY_FULL;
        if (taken == 0 && end != COPY_LAPPED)
            return 0;
        if (torn == taken) {
            c->arena_used = arena_before;
            skip_lost(cp, start);
            continue;
        }
        if (torn > 0) {
            cp->lost_bytes += messages[torn].offset - start;
            cp->after_loss = true;
            atomic_store_explicit(&cp->me->lost_bytes, cp->lost_bytes, memory_order_relaxed);
            taken -= torn;
            memmove(messages, messages + torn, taken * sizeof(*messages));
        }
        mark_loss(cp, &messages[0]);
        for (uint32_t i = 0; i < taken; i++)
            bytes += (uint64_t)messages[i].key_length + messages[i].headers_length +
                     messages[i].body_length;
        count_messages(cp, taken, bytes);
        return taken;
    }
    return 0;
}

/* ---- all partitions -------------------------------------------------------------------------- */

/* What the poll before returned is given up here: hold and cursor move on. */
static ALWAYS_INLINE void give_up_views(struct shmq_consumer *c, struct consumer_partition *cp)
{
    uint64_t position = cp->reader.position;
    /* Relaxed: who sleeps for room sleeps briefly, and is seen by the next poll. */
    uint32_t attention = atomic_load_explicit(&cp->wait->attention, memory_order_relaxed);

    if (UNLIKELY(attention & ATTENTION_CLOSED))
        c->stopped = c->stopped || attachment_is_over(cp->attachment);
    if (!cp->copies && atomic_load_explicit(&cp->me->hold, memory_order_relaxed) != position)
        assignment_hold(cp, position);
    if (c->auto_commit && position != cp->committed &&
        UNLIKELY(position - cp->committed >= cp->batch || (attention & ATTENTION_ROOM)))
        (void)assignment_commit(c, cp);
    else if (UNLIKELY(attention & ATTENTION_ROOM))
        (void)wait_wake(cp->wait, ATTENTION_ROOM, cp->fence_mode); /* the hold was in its way */
}

uint32_t consumer_take(struct shmq_consumer *c, struct shmq_message *messages, uint32_t max)
{
    uint32_t count = c->owned_count;
    uint32_t at = c->next;
    uint32_t taken = 0;

    c->arena_used = 0;
    for (uint32_t i = 0; i < count && taken < max; i++) {
        struct consumer_partition *cp = c->owned[at];
        uint32_t most = min_u32(max - taken, c->prefetch);
        bool full = false;

        give_up_views(c, cp);
        if (UNLIKELY(c->stopped)) /* fenced just now, or closed: what was taken stays valid */
            break;
        if (cp->copies)
            taken += take_copies(c, cp, messages + taken, most, &full);
        else
            taken += take_views(c, cp, messages + taken, most);
        if (UNLIKELY(full))
            break; /* the next poll begins with this one */
        at = at + 1 == count ? 0 : at + 1;
    }
    c->next = at < c->owned_count ? at : 0;
    return taken;
}

void consumer_commit_all(struct shmq_consumer *c)
{
    for (uint32_t i = 0; i < c->owned_count; i++) {
        struct consumer_partition *cp = c->owned[i];

        if (!cp->copies)
            assignment_hold(cp, cp->reader.position);
        if (cp->reader.position != cp->committed)
            (void)assignment_commit(c, cp);
    }
}

static int poll_cold(struct shmq_consumer *c, struct shmq_message *messages, uint32_t max,
                     int timeout_ms) COLD;

static int poll_cold(struct shmq_consumer *c, struct shmq_message *messages, uint32_t max,
                     int timeout_ms)
{
    uint64_t deadline_ns = deadline_after_ms(timeout_ms);

    if (consumer_is_called(c) || c->stopped) {
        int rc = consumer_attend(c, deadline_ns, handles_error(c->connection->serial));
        uint32_t taken;

        if (rc < 0)
            return rc;
        taken = consumer_take(c, messages, max);
        if (taken > 0)
            return (int)taken;
    }
    return consumer_wait(c, messages, max, deadline_ns);
}

int shmq_poll(shmq_consumer *c, struct shmq_message *messages, uint32_t max, int timeout_ms)
{
    uint32_t taken;

    if (UNLIKELY(!c || !messages || max == 0 || timeout_ms < 0 || timeout_ms > SHMQ_TIMEOUT_MAX))
        return handles_usage_error(c ? c->connection->serial : 0,
                                   "poll: consumer or messages is NULL, max is 0, or the timeout "
                                   "is not 0 to 24 hours");
    if (handles_forked(c->fork_count))
        return handles_fork_error(c->connection->serial);
    max = min_u32(max, INT32_MAX);
    if (consumer_is_called(c) || UNLIKELY(c->stopped))
        return poll_cold(c, messages, max, timeout_ms);
    taken = consumer_take(c, messages, max);
    if (LIKELY(taken > 0))
        return (int)taken;
    return poll_cold(c, messages, max, timeout_ms);
}
