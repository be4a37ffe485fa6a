/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ideal.c: bare rings: one producer, one consumer, slots of one size, no header, no death, no wake-up.
 * What they cost is what moving the bytes costs on this machine.
 *
 *   ideal-chase   a slot begins with its number; the consumer looks at the next slot until the number
 *                 is there. A body of up to 56 bytes comes in the same line: one line a message, and a
 *                 round trip takes no longer than that of a bare line.
 *   ideal         producer's and consumer's index on lines of their own, each side with a copy of the
 *                 other's; the consumer gives slots back when it has read all that it had seen, and
 *                 looks for more at once. As fast as its producer, it finds a message or two, and each
 *                 look is a transfer of the index.
 *   ideal-lag     the same ring; but a consumer that has read all lets its producer get ahead before it
 *                 looks again. Dozens of messages a transfer of an index, none read from a line that is
 *                 being written: the most that goes through a ring, at the cost of a microsecond.
 *
 * All copy bodies in as shmq does, and hand them out in place. Slots are reused: capacity is what fits
 * into setup.ring_bytes, 512 KiB by default. A slot is whole lines; without a number small bodies share
 * one, four of 16 bytes. With several groups each has an index of its own.
 *
 * Loads and stores of numbers and indices are acquire and release: the body lies between. Nothing waits
 * but by spinning, with a `pause` between two looks: without it a core has dozens of them under way when
 * the line is written, and takes half as long again to notice.
 */
#include "tools/perf/transport.h"

#define DEFAULT_BYTES (UINT64_C(512) * 1024)
#define SLOTS_LEAST   4u
#define LAG_PAUSES    128u
#define LAG_SLOTS     64u /* a ring of fewer has no room for it */

struct line_index {
    _Alignas(PERF_LINE_BYTES) _Atomic uint64_t value;
};

/* A ring's beginning; slots follow. */
struct ideal_ring {
    struct line_index produced;
    struct line_index consumed[PERF_GROUPS_MAX];
};

struct ideal_producer {
    struct ideal_ring *ring;
    char *slots;
    uint64_t next;  /* number of the next message */
    uint64_t limit; /* there is room below it */
    uint64_t at;    /* bytes from slots */
};

struct ideal_consumer {
    struct ideal_ring *ring;
    char *slots;
    uint64_t next;
    uint64_t seen; /* messages below it are there (ideal) */
    uint64_t told; /* slots below it were given back */
    uint64_t at;
};

struct ideal_end {
    struct ideal_producer out;
    struct ideal_consumer in[PERF_GROUPS_MAX];
    uint64_t slot_bytes, ring_bytes, capacity;
    uint64_t give_back; /* chase: slots that are given back at once */
    uint32_t groups;
    uint32_t lag_pauses;
};

struct ideal_shape {
    uint64_t slot_bytes, capacity, bytes; /* of one ring, its beginning included */
};

static uint64_t slot_bytes_of(uint64_t size, bool numbered)
{
    uint64_t bytes = 16;

    if (numbered || size > 32)
        return align_up_u64(size + (numbered ? 8 : 0), 64);
    while (bytes < size)
        bytes *= 2;
    return bytes;
}

static struct ideal_shape shape_of(const struct perf_setup *setup, bool numbered)
{
    struct ideal_shape shape;
    uint64_t ring_bytes = setup->ring_bytes ? setup->ring_bytes : DEFAULT_BYTES;

    shape.slot_bytes = slot_bytes_of(setup->size, numbered);
    shape.capacity = max_u64(ring_bytes / shape.slot_bytes, SLOTS_LEAST);
    shape.bytes = sizeof(struct ideal_ring) + shape.capacity * shape.slot_bytes;
    shape.bytes = align_up_u64(shape.bytes, 4096);
    return shape;
}

static uint32_t ring_count(const struct perf_setup *setup)
{
    return setup->kind == PERF_LATENCY ? 2 : 1;
}

static size_t bytes_indexed(const struct perf_setup *setup)
{
    return shape_of(setup, false).bytes * ring_count(setup);
}

static size_t bytes_numbered(const struct perf_setup *setup)
{
    return shape_of(setup, true).bytes * ring_count(setup);
}

static int prepare(struct perf_lane *lane, struct error_buffer *why)
{
    (void)why;
    if (lane->setup.ring_bytes == 0)
        lane->setup.ring_bytes = DEFAULT_BYTES;
    return 0;
}

static int open_end(struct perf_seat *seat, bool numbered)
{
    const struct perf_setup *setup = &seat->lane->setup;
    struct ideal_shape shape = shape_of(setup, numbered);
    struct ideal_end *end = perf_alloc_pages(sizeof(*end));
    bool answers = seat->role == PERF_PONG;
    char *there = seat->lane->shared;
    char *back = there + (setup->kind == PERF_LATENCY ? shape.bytes : 0);

    end->slot_bytes = shape.slot_bytes;
    end->capacity = shape.capacity;
    end->ring_bytes = shape.capacity * shape.slot_bytes;
    end->give_back = max_u64(shape.capacity / 4, 1);
    end->groups = setup->kind == PERF_LATENCY ? 1 : setup->groups;
    end->lag_pauses = shape.capacity >= LAG_SLOTS ? LAG_PAUSES : 0;
    end->out.ring = (void *)(answers ? back : there);
    end->out.slots = (char *)(end->out.ring + 1);
    end->out.limit = shape.capacity;
    for (uint32_t g = 0; g < end->groups; g++) {
        end->in[g].ring = (void *)(answers ? there : back);
        end->in[g].slots = (char *)(end->in[g].ring + 1);
    }
    seat->end = end;
    return 0;
}

static int open_indexed(struct perf_seat *seat, struct error_buffer *why)
{
    (void)why;
    return open_end(seat, false);
}

static int open_numbered(struct perf_seat *seat, struct error_buffer *why)
{
    (void)why;
    return open_end(seat, true);
}

static void close_end(struct perf_seat *seat)
{
    free(seat->end);
    seat->end = NULL;
}

/* ---- common ---------------------------------------------------------------------------------- */

typedef char vector16 __attribute__((vector_size(16), aligned(1), may_alias));

/* Short bodies without a call: their size never changes, so each branch is foreseen. */
static ALWAYS_INLINE void copy_in(char *to, const char *from, uint32_t size)
{
    if (size > 512) {
        memcpy(to, from, size);
        return;
    }
    for (; size >= 16; size -= 16, to += 16, from += 16)
        *(vector16 *)(void *)to = *(const vector16 *)(const void *)from;
    if (size & 8) {
        memcpy(to, from, 8);
        to += 8;
        from += 8;
    }
    for (size &= 7; size > 0; size--)
        *to++ = *from++;
}

static ALWAYS_INLINE uint64_t advance(uint64_t at, const struct ideal_end *end)
{
    at += end->slot_bytes;
    return at == end->ring_bytes ? 0 : at;
}

/* Until the slowest group has given a slot back. */
static ALWAYS_INLINE bool wait_for_room(struct ideal_end *end, struct perf_trial *trial)
{
    struct ideal_producer *out = &end->out;

    for (;;) {
        uint64_t least = UINT64_MAX;

        for (uint32_t g = 0; g < end->groups; g++)
            least = min_u64(
                least, atomic_load_explicit(&out->ring->consumed[g].value, memory_order_acquire));
        out->limit = least + end->capacity;
        if (LIKELY(out->next < out->limit))
            return true;
        cpu_relax();
        if (!perf_wait_on(trial))
            return false;
    }
}

static ALWAYS_INLINE void give_back(struct ideal_consumer *in, uint32_t group)
{
    in->told = in->next;
    atomic_store_explicit(&in->ring->consumed[group].value, in->next, memory_order_release);
}

/* ---- indices --------------------------------------------------------------------------------- */

static ALWAYS_INLINE bool send_indexed(struct perf_seat *seat, struct perf_trial *trial,
                                       const void *body, uint32_t size)
{
    struct ideal_end *end = seat->end;
    struct ideal_producer *out = &end->out;

    if (UNLIKELY(out->next == out->limit) && !wait_for_room(end, trial))
        return false;
    copy_in(out->slots + out->at, body, size);
    out->at = advance(out->at, end);
    atomic_store_explicit(&out->ring->produced.value, ++out->next, memory_order_release);
    return true;
}

static ALWAYS_INLINE const void *next_indexed(struct perf_seat *seat, struct perf_trial *trial,
                                              uint32_t group, bool wait, bool lag)
{
    struct ideal_end *end = seat->end;
    struct ideal_consumer *in = &end->in[group];

    if (UNLIKELY(in->next == in->seen)) {
        if (in->told != in->next)
            give_back(in, group);
        for (uint32_t i = 0; lag && i < end->lag_pauses; i++)
            cpu_relax();
        for (;;) {
            in->seen = atomic_load_explicit(&in->ring->produced.value, memory_order_acquire);
            if (LIKELY(in->next != in->seen))
                break;
            cpu_relax();
            if (!wait || !perf_wait_on(trial))
                return NULL;
        }
    }
    return in->slots + in->at;
}

static ALWAYS_INLINE const void *receive_indexed(struct perf_seat *seat, struct perf_trial *trial,
                                                 uint32_t group, uint32_t size, bool wait)
{
    (void)size;
    return next_indexed(seat, trial, group, wait, false);
}

static ALWAYS_INLINE const void *receive_lagging(struct perf_seat *seat, struct perf_trial *trial,
                                                 uint32_t group, uint32_t size, bool wait)
{
    (void)size;
    return next_indexed(seat, trial, group, wait, true);
}

static ALWAYS_INLINE void release_indexed(struct perf_seat *seat, uint32_t group)
{
    struct ideal_end *end = seat->end;
    struct ideal_consumer *in = &end->in[group];

    in->next++;
    in->at = advance(in->at, end);
}

static void run_indexed(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_indexed, NULL, receive_indexed, release_indexed);
}

static void run_lagging(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_indexed, NULL, receive_lagging, release_indexed);
}

/* ---- numbers in slots ------------------------------------------------------------------------ */

static ALWAYS_INLINE bool send_numbered(struct perf_seat *seat, struct perf_trial *trial,
                                        const void *body, uint32_t size)
{
    struct ideal_end *end = seat->end;
    struct ideal_producer *out = &end->out;
    char *slot = out->slots + out->at;

    if (UNLIKELY(out->next == out->limit) && !wait_for_room(end, trial))
        return false;
    copy_in(slot + 8, body, size);
    atomic_store_explicit((_Atomic uint64_t *)(void *)slot, ++out->next, memory_order_release);
    out->at = advance(out->at, end);
    return true;
}

static ALWAYS_INLINE const void *receive_numbered(struct perf_seat *seat, struct perf_trial *trial,
                                                  uint32_t group, uint32_t size, bool wait)
{
    struct ideal_end *end = seat->end;
    struct ideal_consumer *in = &end->in[group];
    char *slot = in->slots + in->at;

    (void)size;
    while (UNLIKELY(atomic_load_explicit((_Atomic uint64_t *)(void *)slot, memory_order_acquire) !=
                    in->next + 1)) {
        cpu_relax();
        if (!wait || !perf_wait_on(trial))
            return NULL;
    }
    return slot + 8;
}

static ALWAYS_INLINE void release_numbered(struct perf_seat *seat, uint32_t group)
{
    struct ideal_end *end = seat->end;
    struct ideal_consumer *in = &end->in[group];

    in->next++;
    in->at = advance(in->at, end);
    if (UNLIKELY(in->next - in->told == end->give_back))
        give_back(in, group);
}

static void run_numbered(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_numbered, NULL, receive_numbered, release_numbered);
}

/* ---- ways ------------------------------------------------------------------------------------ */

#define INDEXED \
    .waits = 1u << PERF_SPIN, .producers_max = 1, .groups_max = PERF_GROUPS_MAX, \
    .shared_bytes = bytes_indexed, .prepare = prepare, .open = open_indexed, .close = close_end

const struct perf_way perf_way_ideal = {
    .name = "ideal",
    .summary = "bare ring of slots with cached indices, read as soon as there is something",
    .kinds = 1u << PERF_LATENCY | 1u << PERF_THROUGHPUT,
    .run = run_indexed,
    INDEXED,
};

const struct perf_way perf_way_ideal_lag = {
    .name = "ideal-lag",
    .summary = "the same, read when the writer has got ahead: the floor of throughput",
    .kinds = 1u << PERF_THROUGHPUT,
    .run = run_lagging,
    INDEXED,
};

const struct perf_way perf_way_ideal_chase = {
    .name = "ideal-chase",
    .summary = "bare ring of slots with their number inside: the floor of latency",
    .kinds = 1u << PERF_LATENCY | 1u << PERF_THROUGHPUT,
    .waits = 1u << PERF_SPIN,
    .producers_max = 1,
    .groups_max = 1,
    .shared_bytes = bytes_numbered,
    .prepare = prepare,
    .open = open_numbered,
    .run = run_numbered,
    .close = close_end,
};
