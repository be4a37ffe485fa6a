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
#include "libshmq/consumer_take.h"

/* ---- views: policies block and reject -------------------------------------------------------- */

void consumer_pass_padding(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t start)
{
    assignment_hold(cp, cp->reader.position);
    if (c->auto_commit || cp->committed == start)
        (void)assignment_commit(c, cp);
}

enum found { FOUND_RECORD, FOUND_NOTHING, FOUND_SCRIBBLE };

/* No record is committed at the reader's position: passes what padding there is. */
static enum found pass_to_record(struct ring_reader *reader) COLD;

static enum found pass_to_record(struct ring_reader *reader)
{
    uint32_t length;

    if (ring_peek(reader, &length))
        return FOUND_RECORD;
    return length == 0 ? FOUND_NOTHING : FOUND_SCRIBBLE;
}

/* Up to `max` records from the reader's position on. */
static ALWAYS_INLINE uint32_t take_views(struct shmq_consumer *c, struct consumer_partition *cp,
                                         struct shmq_message *messages, uint32_t max)
{
    struct ring_reader *reader = &cp->reader;
    const unsigned char *data = reader->data;
    uint64_t mask = reader->mask;
    uint64_t committed = record_stamp(reader->salt, 0, RECORD_COMMITTED);
    uint64_t start = reader->position;
    uint64_t position = start;
    uint64_t length_max = reader->length_max;
    uint64_t partition = cp->index;
    uint32_t taken = 0;

    while (taken < max) {
        const struct record *record = ring_record_const(data, mask, position);
        /* ORDER publish -> poll: acquire; see ring_peek(), whose common case this is. */
        uint64_t commit = atomic_load_explicit(&record->commit, memory_order_acquire);

        if (UNLIKELY(commit != (position ^ committed))) {
            reader->position = position;
            enum found found = pass_to_record(reader);

            position = reader->position;
            if (found == FOUND_RECORD)
                continue;
            if (found == FOUND_SCRIBBLE)
                mark_corrupt(c, cp);
            break;
        }
        uint32_t length = load_length(record);

        if (UNLIKELY(length > length_max) ||
            UNLIKELY(!fill_message(messages, record->payload, length, load_lengths(record)))) {
            mark_corrupt(c, cp);
            break;
        }
        place_message(messages, position, record->timestamp_ns, partition);
        position += record_size(length);
        messages++;
        taken++;
    }
    reader->position = position;
    if (LIKELY(taken > 0)) {
        mark_loss(cp, messages - taken);
        count_messages(cp, taken);
    } else if (UNLIKELY(position != start)) {
        consumer_pass_padding(c, cp, start);
    }
    return taken;
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

/* The common case: one partition, and views. */
static ALWAYS_INLINE uint32_t take_sole(struct shmq_consumer *c, struct consumer_partition *cp,
                                        struct shmq_message *messages, uint32_t max)
{
    give_up_views(c, cp);
    if (UNLIKELY(c->stopped)) /* fenced just now, or closed */
        return 0;
    return take_views(c, cp, messages, min_u32(max, c->prefetch));
}

static __attribute__((noinline)) uint32_t take_all(struct shmq_consumer *c,
                                                   struct shmq_message *messages, uint32_t max)
{
    uint32_t count = c->owned_count;
    uint32_t at = c->next;
    uint32_t taken = 0;

    c->arena_used = 0;
    for (uint32_t i = 0; i < count && taken < max; i++) {
        struct consumer_partition *cp = c->owned[at];
        uint32_t most = min_u32(max - taken, c->prefetch);
        bool full = false;

        if (UNLIKELY(cp->behind))
            consumer_give_up_history(c, cp);
        else
            give_up_views(c, cp);
        if (UNLIKELY(c->stopped)) /* what was taken stays valid */
            break;
        if (UNLIKELY(cp->journaled))
            taken += consumer_take_journaled(c, cp, messages + taken, most, &full);
        else if (cp->copies)
            taken += consumer_take_copies(c, cp, messages + taken, most, &full);
        else
            taken += take_views(c, cp, messages + taken, most);
        if (UNLIKELY(full))
            break; /* the next poll begins with this one */
        at = at + 1 == count ? 0 : at + 1;
    }
    c->next = at < c->owned_count ? at : 0;
    return taken;
}

uint32_t consumer_take(struct shmq_consumer *c, struct shmq_message *messages, uint32_t max)
{
    return c->sole ? take_sole(c, c->sole, messages, max) : take_all(c, messages, max);
}

void consumer_commit_all(struct shmq_consumer *c)
{
    for (uint32_t i = 0; i < c->owned_count; i++) {
        struct consumer_partition *cp = c->owned[i];

        if (!cp->copies && !cp->behind)
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

/* ---- a brief look before anything that costs time -------------------------------------------- */

/* About a microsecond where a pause takes 25 ns. Without it a reader is not faster but slower: its look
 * comes back as soon as its copy of the line was invalidated, and takes the line away from a producer
 * that has not got to the stamp. */
#define QUICK_LOOKS 40u
/* In all partitions together: of a thousand one look alone takes microseconds. */
#define QUICK_RECORDS (256u * QUICK_LOOKS)
/* Several times in a row at least so many messages came between two times that the log had ended: it may
 * be a stream. It is one if so many are there after a lag, and still more are coming; the lag doubles as long
 * as that is so: 200 ns to 3 µs. */
#define STREAM_RUN       4u
#define STREAM_AHEAD     8u
#define LAG_PAUSES_FIRST 8u
#define LAG_DOUBLINGS    4u

/* Is there something at some reader's position? A hint: whoever follows it looks again. */
static ALWAYS_INLINE bool is_ready(const struct shmq_consumer *c)
{
    for (uint32_t i = 0; i < c->owned_count; i++) {
        const struct ring_reader *reader = &c->owned[i]->reader;
        const struct record *record =
            ring_record_const(reader->data, reader->mask, reader->position);
        uint64_t commit = atomic_load_explicit(&record->commit, memory_order_relaxed);

        if (record_state(commit, reader->salt, reader->position) != 0)
            return true;
    }
    return false;
}

/* Do so many records stand before the reader? One by one: a single long one is no stream. A hint: what was
 * scribbled there is bounded, no more. */
static bool is_behind(const struct ring_reader *reader)
{
    uint64_t position = reader->position;

    for (uint32_t i = 0; i < STREAM_AHEAD; i++) {
        const struct record *record = ring_record_const(reader->data, reader->mask, position);
        /* Acquire: the length is that of this stamp. */
        uint64_t commit = atomic_load_explicit(&record->commit, memory_order_acquire);

        if (record_state(commit, reader->salt, position) == 0)
            return false;
        position += record_size(min_u32(load_length(record), reader->length_max));
    }
    return true;
}

static void relax(uint32_t pauses)
{
    while (pauses-- > 0)
        cpu_relax();
}

/* A reader as fast as its producer stands on the very line that is being written, and each message
 * costs both of them a transfer of that line. One that lets the producer get ahead finds the next
 * messages all at once. If it does not, there is no stream. Nor is there one if the log stood still in the
 * second half of the lag: then the producer waits for an answer, which each further lag would delay. */
static __attribute__((noinline)) void lag_behind_stream(struct shmq_consumer *c)
{
    uint32_t half = LAG_PAUSES_FIRST / 2 << (c->streak - STREAM_STREAK);
    const struct ring_reader *reader;
    uint64_t tail;

    if (c->owned_count != 1) { /* since the streak was counted */
        c->streak = 0;
        return;
    }
    if (is_ready(c))
        return;
    reader = &c->owned[0]->reader;
    relax(half);
    tail = ring_tail(reader->ring);
    relax(half);
    c->streak = ring_tail(reader->ring) != tail && is_behind(reader)
                    ? min_u32(c->streak + 1, STREAM_STREAK + LAG_DOUBLINGS)
                    : 0;
}

/* A poll that found nothing and may wait. */
static __attribute__((noinline)) int poll_empty(struct shmq_consumer *c,
                                                struct shmq_message *messages, uint32_t max,
                                                int timeout_ms)
{
    uint32_t looks = 0;
    bool ready;

    if (timeout_ms == 0 || c->wait == SHMQ_WAIT_BLOCK || c->owned_count == 0 || c->stopped)
        return poll_cold(c, messages, max, timeout_ms);
    do { /* the take that found nothing was the first look */
        looks++;
        cpu_relax();
        ready = is_ready(c);
    } while (!ready && looks < QUICK_LOOKS && looks * c->owned_count < QUICK_RECORDS);
    bool long_run = c->run >= STREAM_RUN;

    /* Who reads several partitions takes so long to look at all of them that it lags anyway. */
    c->streak =
        long_run && c->owned_count == 1 ? min_u32(c->streak + 1, STREAM_STREAK + LAG_DOUBLINGS) : 0;
    c->run = 0;
    if (ready) {
        /* Who had to wait waited for one message: to look for a second now would fetch the line that its
         * producer writes next, and make both wait for it. (Views were given up before the first look.) */
        uint32_t most = long_run ? min_u32(max, c->prefetch) : 1;
        uint32_t taken =
            c->sole ? take_views(c, c->sole, messages, most) : take_all(c, messages, most);

        c->run = taken;
        if (LIKELY(taken > 0))
            return (int)taken;
    }
    return poll_cold(c, messages, max, timeout_ms);
}

int shmq_poll(shmq_consumer *c, struct shmq_message *messages, uint32_t max, int timeout_ms)
{
    uint32_t taken;

    if (UNLIKELY(!c || !messages || max == 0 || (uint32_t)timeout_ms > SHMQ_TIMEOUT_MAX))
        return handles_usage_error(c ? c->connection->serial : 0,
                                   "poll: consumer or messages is NULL, max is 0, or the timeout "
                                   "is not 0 to 24 hours");
    if (handles_forked(c->fork_count))
        return handles_fork_error(c->connection->serial);
    max = min_u32(max, INT32_MAX);
    if (consumer_is_called(c) || UNLIKELY(c->stopped))
        return poll_cold(c, messages, max, timeout_ms);
    if (UNLIKELY(c->streak >= STREAM_STREAK) && timeout_ms > 0)
        lag_behind_stream(c);
    taken = LIKELY(c->sole) ? take_sole(c, c->sole, messages, max) : take_all(c, messages, max);
    c->run += taken;
    if (LIKELY(taken > 0))
        return (int)taken;
    return poll_empty(c, messages, max, timeout_ms);
}
