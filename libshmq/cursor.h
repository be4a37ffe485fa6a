/* cursor.h: a group's progress on a partition, and the room that it leaves to producers (design
 * §2.5, §5; protocols.md §2).
 *
 * The cursor word: generation 15 | gates 1 | offset / 64 modulo 2^48. Offsets are expanded to the
 * value nearest a known one (tail). It is moved by compare-and-swap only, so that a commit from
 * an earlier generation fails (I9).
 *
 *   attach (a joiner, or a seek back)          refresh (a producer out of room)
 *     cursor = x | gates                         m = min(tail, cursors, holds, what is needed); head = max(head, m)
 *     seq_cst fence                              seq_cst fence
 *     head > x ? x = head, again                 new gates? map them; m = min(m, cursors, holds); limit = m + capacity
 *
 * ORDER attach -> refresh: one of the two fences comes first: either the producer's second scan
 * sees the cursor, or the group sees the raised head (I5: a group reads everything from x on).
 * `head` is only an announcement.
 */
#ifndef SHMQ_CURSOR_H
#define SHMQ_CURSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "libshmq/layout.h"
#include "libshmq/ring.h"

#define CURSOR_GATES            (UINT64_C(1) << 48)
#define CURSOR_UNITS_MASK       (CURSOR_GATES - 1)
#define CURSOR_GENERATION_SHIFT 49
#define CURSOR_GENERATION_MASK  UINT32_C(0x7fff)

static inline uint64_t cursor_make(uint32_t generation, bool gates, uint64_t offset)
{
    return ((uint64_t)(generation & CURSOR_GENERATION_MASK) << CURSOR_GENERATION_SHIFT) |
           (gates ? CURSOR_GATES : 0) | ((offset / RECORD_UNIT) & CURSOR_UNITS_MASK);
}

static inline uint32_t cursor_generation(uint64_t word)
{
    return (uint32_t)(word >> CURSOR_GENERATION_SHIFT);
}

/* 0 is that of a group whose partition was never assigned: a start takes it for one that was not
 * finished, so the count goes round without it. */
static inline uint32_t cursor_generation_after(uint32_t generation)
{
    return generation == CURSOR_GENERATION_MASK ? 1 : generation + 1;
}

static inline bool cursor_gates(uint64_t word)
{
    return (word & CURSOR_GATES) != 0;
}

/* The offset nearest `near` that the word can mean. */
static inline uint64_t cursor_offset(uint64_t word, uint64_t near)
{
    uint64_t difference = ((word & CURSOR_UNITS_MASK) - near / RECORD_UNIT) & CURSOR_UNITS_MASK;
    /* Sign-extend 48 bits: a cursor may stand below or above `near`. */
    int64_t units = (int64_t)(difference << 16) >> 16;

    return (near / RECORD_UNIT + (uint64_t)units) * RECORD_UNIT;
}

/* The assign word of a gate: generation << 32 | member + 1. */
#define ASSIGN_NOBODY UINT32_MAX

static inline uint64_t assign_make(uint32_t generation, uint32_t member)
{
    return (uint64_t)(generation & CURSOR_GENERATION_MASK) << 32 | (uint32_t)(member + 1);
}

static inline uint32_t assign_generation(uint64_t word)
{
    return (uint32_t)(word >> 32) & CURSOR_GENERATION_MASK;
}

static inline uint32_t assign_member(uint64_t word)
{
    return (uint32_t)word - 1;
}

/* Places the group's cursor at x or, where producers have announced to overwrite that, at the
 * first offset they have not; with `gates` it holds producers back from here on. Keeps the
 * generation. Returns where it stands: everything from there on will be read. A returned offset
 * above x is not yet a record's: ring_resynchronise() from it. In *ret_error 0, SHMQ_EFENCED
 * (the generation changed meanwhile) or SHMQ_ECORRUPT (head runs away: scribbled). */
uint64_t cursor_attach(const struct ring *ring, struct group_segment *group, uint32_t generation,
                       uint64_t x, bool gates, int *ret_error);

/* Moves the cursor of `generation` from *word to offset `to`. 0, or SHMQ_EFENCED: another owner
 * took over, or somebody moved it (purge, seek): re-read the assignment. *word is the caller's
 * copy of the cursor. */
int cursor_commit(struct group_segment *group, uint64_t *word, uint64_t to);

/* The same, and says whether the group holds producers back from here on. */
int cursor_move(struct group_segment *group, uint64_t *word, uint64_t to, bool gates);

/* Moves a cursor that does not gate (its group was behind the ring of a durable topic) to `to`, and has it gate
 * there if no producer has announced to overwrite that: else it does not gate yet, the next commit tries
 * again. The member's hold is at `to` or below until this returns. As cursor_commit(). */
int cursor_commit_gating(const struct ring *ring, struct group_segment *group, uint64_t *word,
                         uint64_t to);

/* Step 1 of a hand-over, by shmqd: from now on commits of the earlier generation fail. Returns
 * the new generation. */
uint32_t cursor_fence(struct group_segment *group);

/* Computes p->limit anew so that `need` bytes fit behind tail, if they may. RING_OK,
 * RING_NO_ROOM, or negative from ops->map_group (a group joined and could not be mapped before
 * deadline_ns). p's slot names nothing. */
int ring_refresh_limit(struct ring_producer *p, uint64_t need, uint64_t deadline_ns);

/* Who holds the ring back, as of now: for resolving, for EFULL's message and for doctor. */
enum room_holder { ROOM_FREE, ROOM_CURSOR, ROOM_HOLD, ROOM_CLAIM, ROOM_DURABLE };

struct room_blocker {
    enum room_holder holder;
    uint64_t offset; /* the lowest that must not be overwritten */
    uint32_t gate;   /* index, for CURSOR and HOLD */
    uint32_t member; /* for HOLD */
    uint64_t client; /* for HOLD: its owner */
};

void ring_find_blocker(const struct ring *ring, struct room_blocker *ret_blocker);

#endif
