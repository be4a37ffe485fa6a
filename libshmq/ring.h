/* ring.h: the hot path: claim, commit and peek, on one partition's ring, inlined into whoever
 * publishes or polls.
 *
 * How it works (design §2.3, protocols.md §1). A producer owns a slot of two words on a line of
 * its own. It announces the extent that it wants (`end`, then `at` = offset | CLAIMING), moves
 * `tail` over it (compare-and-swap, or a plain store in single-producer mode), marks itself
 * owner, writes, and stamps: the first record of a claim last. So at every instruction the extent
 * and owner of a dead producer's claim can be found (I3), and a claim appears whole or not at all
 * (I1). Readers look only at the stamp of the record at their position. Claims follow the
 * Disruptor and Aeron; the recoverable announcement is ours.
 *
 * In steady state publish and poll touch the record's own lines and lines that only their own
 * thread writes; several producers share `tail` besides. No system call, lock, allocation,
 * division; one fence in drop-old and spill alone.
 *
 *                  | ring_claim | ring_commit | ring_peek | ring_resolve | slot_*   | cursor_attach
 *   ring_claim     | other slot | other slot  |    yes    |     yes      | other    |     yes
 *   ring_commit    |            | other slot  |    yes    |     yes      | other    |     yes
 *   ring_resolve   |            |             |    yes    | recovery byte| recovery byte | yes
 * One ring_producer belongs to one thread at a time, and so does one ring_reader.
 *
 * If the process dies here: between `at` and the stamp, ring_resolve() pads the claim; elsewhere
 * nothing is owed.
 */
#ifndef SHMQ_RING_H
#define SHMQ_RING_H

#include <stdbool.h>
#include <string.h>

#include "libshmq/base.h"
#include "libshmq/crc32c.h"
#include "libshmq/error.h"
#include "libshmq/journal_read.h"
#include "libshmq/layout.h"
#include "libshmq/record.h"
#include "libshmq/segment.h"
#include "libshmq/wait.h"

struct ring;

/* What a ring needs to know of the world outside shared memory. The client asks shmqd; shmqd asks
 * itself; tests know. */
struct ring_ops {
    /* Kernel fact: no process of this client can execute another instruction. */
    bool (*client_is_dead)(void *context, uint64_t client);
    /* Maps the G segment of gate `index` (group id `group`). May block, until `deadline_ns` at
     * most (a control call). */
    int (*map_group)(void *context, struct ring *ring, uint32_t index, uint64_t group,
                     uint64_t deadline_ns, struct segment *ret_segment);
};

struct ring_gate {
    uint64_t group; /* whose segment it is; CLIENT_NONE: none mapped */
    struct segment segment;
};

/* One mapping of one partition by one owner (a producer, a consumer, shmqd). The descriptor of P
 * is an open file description of this mapping alone, so that its recovery byte excludes other
 * mappings, in this process too. */
struct ring {
    unsigned char *data;
    const struct state_segment *state;
    struct producers_segment *producers;
    struct wait_segment *wait;
    uint64_t capacity;
    uint64_t mask;
    uint64_t salt;
    uint32_t slot_count;
    bool gated;      /* policy block or reject: groups hold producers back */
    bool durable;    /* it has a journal: records carry their checksum */
    bool fence_mode; /* WAIT_MODE_FENCE */
    int producers_fd;
    const struct ring_ops *ops;
    void *ops_context;
    uint64_t gate_epoch; /* as of the last look at the gate table */
    struct ring_gate gates[GATES_MAX];
    struct segment segments[4]; /* S P W D, owned */
};

/* Outcomes: positive, handled by the caller. */
enum ring_outcome {
    RING_OK = 0,
    RING_NO_ROOM = 1, /* refresh the limit, else wait, reject or give up */
};

struct ring_producer {
    unsigned char *data;
    uint64_t mask;
    uint64_t salt;
    uint64_t limit; /* a claim may end here: computed by ring_refresh_limit(), cached */
    struct producer_slot *slot;
    _Atomic uint64_t *tail;
    struct ring *ring;
    uint64_t claimed; /* size of the outstanding claim of ring_claim(), 0 = none */
    uint16_t slot_index;
    bool multi;
    bool overwrites; /* drop-old, spill, fence mode: tail must be visible before payload */
    bool durable;
};

struct ring_reader {
    const unsigned char *data;
    uint64_t mask;
    uint64_t salt;
    uint64_t position; /* the next record */
    uint32_t length_max;
    struct ring *ring;
};

static inline struct record *ring_record(unsigned char *data, uint64_t mask, uint64_t offset)
{
    return (struct record *)(void *)(data + (offset & mask));
}

static inline const struct record *ring_record_const(const unsigned char *data, uint64_t mask,
                                                     uint64_t offset)
{
    return (const struct record *)(const void *)(data + (offset & mask));
}

/* ---- producing ------------------------------------------------------------------------------- */

/* Claims `size` bytes (a multiple of RECORD_UNIT, ≤ capacity / 8) at *ret_offset. RING_OK or
 * RING_NO_ROOM. No claim may be outstanding. `multi` and `overwrites` are the producer's own, passed
 * on so that a caller that knows them gets code without the branches. */
static ALWAYS_INLINE int ring_claim_as(struct ring_producer *p, uint64_t size, bool multi,
                                       bool overwrites, uint64_t *ret_offset)
{
    struct producer_slot *slot = p->slot;
    _Atomic uint64_t *tail = p->tail;
    uint64_t t;

    if (multi) {
        /* ORDER claim -> claim: acquire, so that what its last mover did before is seen; pairs with the
         * CAS. */
        t = atomic_load_explicit(tail, memory_order_acquire);
        for (;;) {
            if (UNLIKELY(t + size > p->limit))
                return RING_NO_ROOM; /* slot->at is 0 here: who waits never names an offset */
            /* ORDER claim -> resolve: release on both: nobody pairs an old `at` with a new `end`,
             * and both stand before tail moves; pairs with the acquire loads in ring_recover.c. */
            atomic_store_explicit(&slot->end, t + size, memory_order_release);
            atomic_store_explicit(&slot->at, t | SLOT_CLAIMING, memory_order_release);
            uint64_t seen = t;
            /* ORDER claim -> claim: release: the slot's words, and what the limit was computed from,
             * before tail moves; pairs with the acquire above. A failure acquires as well: what was
             * seen is what the next round claims, at once, as long as the line is here. */
            if (LIKELY(atomic_compare_exchange_strong_explicit(
                    tail, &seen, t + size, memory_order_acq_rel, memory_order_acquire)))
                break;
            /* Lost. Before anything else, waits and returns included: a loser that waits while it
             * names `t` would be taken for the living owner of somebody else's dead claim. */
            atomic_store_explicit(&slot->at, 0, memory_order_release);
            t = seen;
        }
        /* Relaxed: the stamps that follow are releases; without the bit nothing inside is stamped
         * yet. */
        atomic_store_explicit(&slot->at, t | SLOT_CLAIMING | SLOT_OWNER, memory_order_relaxed);
    } else {
        /* Relaxed: nobody else moves it, and a predecessor's claim was resolved before the slot was
         * given out. */
        t = atomic_load_explicit(tail, memory_order_relaxed);
        if (UNLIKELY(t + size > p->limit))
            return RING_NO_ROOM;
        atomic_store_explicit(&slot->end, t + size, memory_order_release);
        atomic_store_explicit(&slot->at, t | SLOT_CLAIMING | SLOT_OWNER, memory_order_release);
        /* ORDER claim -> resolve: the slot before tail (release). */
        atomic_store_explicit(tail, t + size, memory_order_release);
    }
    if (overwrites) {
        /* ORDER overwrite -> validate: tail before the first byte of the new lap; pairs with the
         * acquire fence in ring_copy_valid(). A release store alone does not order later stores
         * (ARM). ORDER overwrite -> resolve: and for who looks whether a claim was lapped; in
         * policies block and reject the resolver's membarrier stands in for this fence. */
        atomic_thread_fence(memory_order_release);
    }
    *ret_offset = t;
    return RING_OK;
}

/* The same for a claim that is committed or aborted later: its size is remembered. */
static ALWAYS_INLINE int ring_claim(struct ring_producer *p, uint64_t size, uint64_t *ret_offset)
{
    int outcome = ring_claim_as(p, size, p->multi, p->overwrites, ret_offset);

    if (LIKELY(outcome == RING_OK))
        p->claimed = size;
    return outcome;
}

_Static_assert(offsetof(struct record, crc32c) == 12 && offsetof(struct record, producer) == 24 &&
                   offsetof(struct record, key_length) == 26 &&
                   offsetof(struct record, headers_length) == 28 &&
                   offsetof(struct record, type) == 30 && offsetof(struct record, flags) == 31,
               "the header is written as three words");

/* Fills the header of a record, all but its stamp: three stores. */
static ALWAYS_INLINE void ring_fill_header(struct record *record, uint16_t slot_index,
                                           uint32_t length, uint64_t timestamp_ns,
                                           uint16_t key_length, uint16_t headers_length,
                                           uint8_t type)
{
    uint64_t length_and_crc = length;
    uint64_t rest = (uint64_t)type << 48 | (uint64_t)headers_length << 32 |
                    (uint64_t)key_length << 16 | slot_index;

    memcpy(&record->length, &length_and_crc, sizeof(length_and_crc));
    record->timestamp_ns = timestamp_ns;
    memcpy(&record->producer, &rest, sizeof(rest));
}

/* The same for the record at `offset` of this producer. */
static ALWAYS_INLINE struct record *ring_begin_record(struct ring_producer *p, uint64_t offset,
                                                      uint32_t length, uint64_t timestamp_ns,
                                                      uint16_t key_length, uint16_t headers_length,
                                                      uint8_t type)
{
    struct record *record = ring_record(p->data, p->mask, offset);

    ring_fill_header(record, p->slot_index, length, timestamp_ns, key_length, headers_length, type);
    return record;
}

/* Makes one record visible. The first record of a claim is stamped last. */
static ALWAYS_INLINE void ring_stamp_record(struct record *record, uint64_t salt, uint64_t offset,
                                            uint64_t state)
{
    /* ORDER publish -> poll: header and payload before the stamp; pairs with the acquire in
     * ring_peek().
     * ORDER publish -> resolve: so is the slot that announced the claim; pairs with the acquire in
     * ring_is_stamped().
     * ORDER publish -> resynchronise: the same pair, with slots read after the stamp.
     * ORDER publish -> flush: the same pair, in shmqd's flusher. */
    atomic_store_explicit(&record->commit, record_stamp(salt, offset, state), memory_order_release);
}

/* The checksum of a durable topic's record, whole but for it and the stamp. Padding has none: the flusher writes
 * that anew. */
static ALWAYS_INLINE void ring_seal_record(struct record *record)
{
    record->crc32c = journal_record_crc(record, RECORD_COMMITTED);
}

/* The same for a record that is a body alone, before its header is filled: of what was copied there, and not of the copy,
 * whose bytes are still on their way to the cache in other pieces than they would be read in. */
static ALWAYS_INLINE void ring_fill_sealed_header(struct record *record, uint16_t slot_index,
                                                  uint32_t length, uint64_t timestamp_ns,
                                                  const void *body)
{
    const uint64_t head[2] = {timestamp_ns, slot_index};
    uint64_t length_and_crc = (uint64_t)crc32c_record(length, head, body, length) << 32 | length;

    memcpy(&record->length, &length_and_crc, sizeof(length_and_crc));
    record->timestamp_ns = timestamp_ns;
    memcpy(&record->producer, &head[1], sizeof(head[1]));
}

static ALWAYS_INLINE void ring_stamp(struct ring_producer *p, uint64_t offset, uint64_t state)
{
    ring_stamp_record(ring_record(p->data, p->mask, offset), p->salt, offset, state);
}

/* Gives the claim back after its first record was stamped, and counts what it was. The count is a
 * statistic on the slot's own line, read by shmqd and tools: relaxed, nobody orders by it. */
static ALWAYS_INLINE void ring_release_claim(struct producer_slot *slot, uint64_t records)
{
    /* ORDER claim -> resolve: the stamp before the clear (release): a claim that nobody names is
     * stamped. */
    atomic_store_explicit(&slot->at, 0, memory_order_release);
    if (records > 0)
        atomic_store_explicit(&slot->records,
                              atomic_load_explicit(&slot->records, memory_order_relaxed) + records,
                              memory_order_relaxed);
}

/* Pads [offset, offset + size) of an own claim: its header, then its stamp. */
static inline void ring_pad(struct ring_producer *p, uint64_t offset, uint64_t size)
{
    ring_begin_record(p, offset, (uint32_t)(size - RECORD_HEADER), 0, 0, 0, RECORD_TYPE_DATA);
    ring_stamp(p, offset, RECORD_PADDING);
}

/* Commits a claim that holds one record of `size` bytes: a claim that was longer gets its rest
 * padded first. */
static inline void ring_commit(struct ring_producer *p, uint64_t offset, uint64_t size)
{
    if (UNLIKELY(size < p->claimed))
        ring_pad(p, offset + size, p->claimed - size);
    if (p->durable)
        ring_seal_record(ring_record(p->data, p->mask, offset));
    ring_stamp(p, offset, RECORD_COMMITTED);
    ring_release_claim(p->slot, 1);
    p->claimed = 0;
}

/* Turns the whole claim into padding. */
static inline void ring_abort(struct ring_producer *p, uint64_t offset)
{
    ring_pad(p, offset, p->claimed);
    ring_release_claim(p->slot, 0);
    p->claimed = 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* The committed record at the reader's position, its length (checked) in *ret_length: the caller
 * uses this, never the shared word again. Padding is skipped. NULL: none yet (or lapped), or,
 * with *ret_length = UINT32_MAX, a length that no honest producer writes: the partition is
 * scribbled. */
static ALWAYS_INLINE const struct record *ring_peek(struct ring_reader *r, uint32_t *ret_length)
{
    /* A hostile producer could stamp padding before us for ever: one lap of it is enough. */
    uint64_t lap_end = r->position + r->mask;

    for (;;) {
        const struct record *record = ring_record_const(r->data, r->mask, r->position);
        /* ORDER publish -> poll: acquire, so that header and payload are those of this stamp;
         * pairs with ring_stamp().
         * ORDER resolve -> poll: the same for padding; pairs with pad_dead_claim(). */
        uint64_t commit = atomic_load_explicit(&record->commit, memory_order_acquire);
        uint64_t state = record_state(commit, r->salt, r->position);

        *ret_length = 0;
        if (state == 0)
            return NULL;
        uint32_t length = record->length;

        if (UNLIKELY(length > r->length_max)) {
            *ret_length = UINT32_MAX;
            return NULL;
        }
        if (LIKELY(state == RECORD_COMMITTED)) {
            *ret_length = length;
            return record;
        }
        r->position += record_size(length);
        *ret_length = 0;
        if (UNLIKELY(r->position > lap_end))
            return NULL; /* the next call goes on */
    }
}

static inline uint64_t ring_tail(const struct ring *ring)
{
    /* Acquire: whoever sees a tail sees the slot that announced the claim below it. */
    return atomic_load_explicit(&ring->producers->tail, memory_order_acquire);
}

/* ---- ring.c ---------------------------------------------------------------------------------- */

/* Takes over four mapped and checked segments (S, P, W, D in this order) and the descriptor of P.
 * 0 or SHMQ_ECORRUPT when S contradicts itself or the sizes; then nothing was taken. */
int ring_init(struct ring *ring, const struct segment segments[4], int producers_fd,
              const struct ring_ops *ops, void *ops_context, struct error_buffer *why);
void ring_deinit(struct ring *ring); /* unmaps all, closes P */

/* The producer of slot `slot_index`, assigned by shmqd. */
void ring_producer_init(struct ring_producer *p, struct ring *ring, uint32_t slot_index);
void ring_reader_init(struct ring_reader *r, struct ring *ring, uint64_t position);

/* Copying readers (drop-old, spill). ring_copy() copies the record at the reader's position,
 * header included, into `to` (room for `room` bytes) with relaxed loads and returns its bytes
 * (RECORD_HEADER + length), 0 when there is none at this position, or RING_TOO_LONG when it does
 * not fit. What it copied may be torn until ring_copy_valid() says that nothing at or above
 * `offset` was overwritten: one fence for a whole batch. */
#define RING_TOO_LONG UINT32_MAX
uint32_t ring_copy(struct ring_reader *r, void *to, size_t room);
bool ring_copy_valid(const struct ring_reader *r, uint64_t offset);

/* Does a stamp for `offset` stand there? Asked of records that the asker may have no claim to:
 * when they were lapped meanwhile the word is a stranger's payload, and reads as "no" (with
 * probability 1 - 2^-58). Such a look races with plain stores by design; whoever goes on to read
 * the record looks again with ring_peek(). */
bool ring_is_stamped(const struct ring *ring, uint64_t offset);

/* The lowest offset that has not been overwritten when this was called, as far as `tail` says. */
uint64_t ring_oldest(const struct ring *ring);

/* Where a reader that was lapped, or that starts somewhere, finds the first record at or above
 * `from`; tail if there is none. In policies block and reject the caller has a gating cursor at
 * `from` or below: everything from there on is kept, and a claim in progress counts, since its
 * message will be published there. So it is where `from` is not durable yet: `durable` gates too. Else only what
 * lies above tail − 7/8 capacity, and inside no unfinished claim, is worth starting at. */
uint64_t ring_resynchronise(const struct ring *ring, uint64_t from);

/* ---- ring_recover.c -------------------------------------------------------------------------- */

enum resolve_result {
    RESOLVE_DONE = 0,    /* nothing (more) to do at t: look again */
    RESOLVE_PADDED = 1,  /* a dead producer's claim was padded */
    RESOLVE_WAIT = 2,    /* its owner lives, or somebody else is at it: later */
    RESOLVE_CORRUPT = 3, /* no extent can be found: shmqd quarantines */
};

/* A claim at `t` that has stayed unstamped: pads it if its owner is dead. Needs write access to P
 * and D. Takes the recovery byte (try, never wait). */
enum resolve_result ring_resolve(struct ring *ring, uint64_t t);

/* Slots, by shmqd alone. Frees slot `index` of a dead or departed client, resolving its claim
 * first; RESOLVE_DONE when it is free for reuse (state.slot_client is the caller's to clear
 * *after* this). */
enum resolve_result ring_clear_slot(struct ring *ring, uint32_t index);

/* The lowest offset in [from, tail) that a slot names and that is not stamped: somebody's claim in
 * progress, which nobody may lap; UINT64_MAX if there is none. `tail` was read before. */
uint64_t ring_lowest_unstamped(const struct ring *ring, uint64_t from, uint64_t tail);

#endif
