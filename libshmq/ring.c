/* ring.c: the ring's cold half: setting up, copying readers, finding a place to start.
 *
 * Called by clients and by shmqd on their own mappings. Nothing blocks; nothing here writes
 * shared memory.
 */
#include "libshmq/ring.h"

#include <unistd.h>

#include "libshmq/topic_options.h"

static bool state_is_sane(const struct state_segment *s, const struct segment segments[4])
{
    uint64_t capacity = s->capacity;

    return capacity >= RING_MIN_BYTES && capacity <= RING_MAX_BYTES &&
           (capacity & (capacity - 1)) == 0 && s->slot_count >= 1 && s->slot_count <= SLOTS_MAX &&
           s->policy <= OVERFLOW_SPILL && s->durability <= DURABLE_ALWAYS &&
           s->base % RECORD_UNIT == 0 && s->header.salt % RECORD_UNIT == 0 &&
           (s->wait_mode == WAIT_MODE_MEMBARRIER || s->wait_mode == WAIT_MODE_FENCE) &&
           segments[1].bytes >= segment_producers_bytes(s->slot_count) &&
           segments[3].bytes == 2 * capacity;
}

int ring_init(struct ring *ring, const struct segment segments[4], int producers_fd,
              const struct ring_ops *ops, void *ops_context, struct error_buffer *why)
{
    const struct state_segment *state = segments[0].address;

    if (!state_is_sane(state, segments))
        return error_set(
            why, SHMQ_ECORRUPT,
            "partition %u of topic %.200s: its state segment contradicts itself; run shmq doctor",
            state->header.partition, state->name);
    memset(ring, 0, sizeof(*ring));
    memcpy(ring->segments, segments, sizeof(ring->segments));
    ring->state = state;
    ring->producers = segments[1].address;
    ring->wait = segments[2].address;
    ring->data = segments[3].address;
    ring->capacity = state->capacity;
    ring->mask = ring->capacity - 1;
    ring->salt = state->header.salt;
    ring->slot_count = state->slot_count;
    ring->gated = state->policy == OVERFLOW_BLOCK || state->policy == OVERFLOW_REJECT;
    ring->durable = state->durability != DURABLE_NONE;
    ring->fence_mode = state->wait_mode == WAIT_MODE_FENCE;
    ring->producers_fd = producers_fd;
    ring->ops = ops;
    ring->ops_context = ops_context;
    return 0;
}

void ring_deinit(struct ring *ring)
{
    for (uint32_t i = 0; i < GATES_MAX; i++)
        segment_unmap(&ring->gates[i].segment);
    for (uint32_t i = 0; i < 4; i++)
        segment_unmap(&ring->segments[i]);
    if (ring->producers_fd >= 0)
        close(ring->producers_fd);
    ring->producers_fd = -1;
}

void ring_producer_init(struct ring_producer *p, struct ring *ring, uint32_t slot_index)
{
    memset(p, 0, sizeof(*p));
    p->data = ring->data;
    p->mask = ring->mask;
    p->salt = ring->salt;
    p->tail = &ring->producers->tail;
    p->slot = &ring->producers->slots[slot_index];
    p->ring = ring;
    p->slot_index = (uint16_t)slot_index;
    p->multi = ring->state->producers == PRODUCERS_MULTI;
    /* In policies block and reject only a resolver looks for laps, and its membarrier makes up for
     * the missing fence; without membarrier it has to stand here. */
    p->overwrites = !ring->gated || ring->fence_mode;
    p->durable = ring->durable;
    p->limit = 0; /* the first claim refreshes */
}

void ring_reader_init(struct ring_reader *r, struct ring *ring, uint64_t position)
{
    r->data = ring->data;
    r->mask = ring->mask;
    r->salt = ring->salt;
    r->position = position;
    r->length_max = ring_max_message(ring->capacity);
    r->ring = ring;
}

/* Word by word, relaxed: the producer may be overwriting it (a seqlock's read side). `from` is
 * 8-byte aligned and its mapping continues for the rounded-up last word: records are padded to
 * RECORD_UNIT. */
static void copy_relaxed(unsigned char *to, const unsigned char *from, size_t bytes)
{
    const _Atomic uint64_t *words = (const _Atomic uint64_t *)(const void *)from;
    size_t whole = bytes / 8;

    for (size_t i = 0; i < whole; i++) {
        uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);

        memcpy(to + i * 8, &word, 8);
    }
    if (bytes % 8) {
        uint64_t word = atomic_load_explicit(&words[whole], memory_order_relaxed);

        memcpy(to + whole * 8, &word, bytes % 8);
    }
}

uint32_t ring_copy(struct ring_reader *r, void *to, size_t room)
{
    uint64_t lap_end = r->position + r->mask; /* as in ring_peek() */

    for (;;) {
        if (r->position > lap_end)
            return 0;
        const struct record *shared = ring_record_const(r->data, r->mask, r->position);
        /* ORDER publish -> poll: as in ring_peek(). */
        uint64_t commit = atomic_load_explicit(&shared->commit, memory_order_acquire);
        uint64_t state = record_state(commit, r->salt, r->position);
        _Alignas(8) unsigned char header[RECORD_HEADER];
        uint32_t length;

        if (state == 0)
            return 0;
        copy_relaxed(header, (const unsigned char *)shared, RECORD_HEADER);
        memcpy(&length, header + offsetof(struct record, length), sizeof(length));
        if (length > r->length_max)
            return RING_TOO_LONG; /* torn, or scribbled: ring_copy_valid() tells which */
        if (state == RECORD_PADDING) {
            /* A torn length must not lead us astray: padding is stepped over only while it is
             * known to be whole. */
            if (!ring_copy_valid(r, r->position))
                return RING_TOO_LONG;
            r->position += record_size(length);
            continue;
        }
        if (RECORD_HEADER + (size_t)length > room)
            return RING_TOO_LONG;
        memcpy(to, header, RECORD_HEADER);
        copy_relaxed((unsigned char *)to + RECORD_HEADER, shared->payload, length);
        return RECORD_HEADER + length;
    }
}

bool ring_copy_valid(const struct ring_reader *r, uint64_t offset)
{
    /* ORDER overwrite -> validate: the copy before tail; pairs with the release fence in
     * ring_claim_as(): who saw a byte of the new lap sees the tail that announced it. */
    atomic_thread_fence(memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&r->ring->producers->tail, memory_order_relaxed);

    return tail - offset <= r->ring->capacity;
}

uint64_t ring_oldest(const struct ring *ring)
{
    uint64_t tail = ring_tail(ring);
    uint64_t oldest = ring->state->base;
    uint64_t first = atomic_load_explicit(&ring->state->first, memory_order_relaxed);

    oldest = max_u64(oldest, first);
    if (tail > ring->capacity)
        oldest = max_u64(oldest, tail - ring->capacity);
    return oldest;
}

RACY_BY_DESIGN bool ring_is_stamped(const struct ring *ring, uint64_t offset)
{
    const struct record *record = ring_record_const(ring->data, ring->mask, offset);
    /* ORDER publish -> resolve: acquire, so that slots are looked at after the stamp; pairs with
     * ring_stamp(). */
    uint64_t commit = atomic_load_explicit(&record->commit, memory_order_acquire);

    if (record_state(commit, ring->salt, offset) == 0)
        return false;
    TSAN_ACQUIRE(&record->commit);
    return true;
}

/* An owner has claimed [at, end) around y, and its first record is not stamped: what stands at y is
 * not published. Who only wishes to own it has stamped nothing inside, and who was lapped owns
 * nothing any more. */
static bool inside_unfinished_claim(const struct ring *ring, uint64_t y)
{
    for (uint32_t i = 0; i < ring->slot_count; i++) {
        const struct producer_slot *slot = &ring->producers->slots[i];
        uint64_t word = atomic_load_explicit(&slot->at, memory_order_acquire);
        uint64_t end = atomic_load_explicit(&slot->end, memory_order_acquire);
        uint64_t at = word & ~SLOT_BITS;

        if ((word & SLOT_OWNER) && y >= at && y < end && ring_tail(ring) - at <= ring->capacity &&
            !ring_is_stamped(ring, at))
            return true;
    }
    return false;
}

/* A record begins at y, and it is nobody's unfinished business.
 *
 * ORDER publish -> resynchronise: the stamp, then the slots, then the stamp again. Its writer
 * announced its claim before it stamped, and clears `at` after the claim's first stamp; with the
 * slots first, a claim could begin between the two looks. The second look at the stamp is for the
 * claim of a dead producer that was padded between the first two: its slot no longer says
 * "unfinished", and what stood inside it has been wiped (test/model/resync.pml, NO_SECOND_LOOK). */
static bool begins_record(const struct ring *ring, uint64_t y)
{
    return ring_is_stamped(ring, y) && !inside_unfinished_claim(ring, y) &&
           ring_is_stamped(ring, y);
}

uint64_t ring_resynchronise(const struct ring *ring, uint64_t from)
{
    /* Tail, then the slots, then the stamps (test/model/resync.pml, JOIN): a claim below this tail
     * that is not in a slot any more is stamped, and is found. */
    uint64_t tail = ring_tail(ring);
    /* What is not durable yet stays as well, whoever gates: it may begin in the oldest eighth, and is nowhere else.
     * Without a journal `durable` is above all. */
    bool stays =
        ring->gated || from >= atomic_load_explicit(&ring->state->durable, memory_order_acquire);
    uint64_t reach = stays ? ring->capacity : ring->capacity - ring->capacity / 8;
    uint64_t y = max_u64(from, ring->state->base);

    if (y >= tail)
        return tail;
    if (tail > reach)
        y = max_u64(y, tail - reach);
    y = align_up_u64(y, RECORD_UNIT);
    /* Where nothing may be skipped a claim in progress counts: its message will be there. */
    uint64_t claim = stays ? ring_lowest_unstamped(ring, y, tail) : UINT64_MAX;
    uint64_t end = min_u64(claim, tail);

    for (uint64_t units = reach / RECORD_UNIT; units > 0 && y < end; units--, y += RECORD_UNIT) {
        if (begins_record(ring, y))
            return y;
    }
    return end;
}
