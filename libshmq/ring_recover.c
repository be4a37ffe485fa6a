/* ring_recover.c: what happens to a claim whose producer died between claim and commit (design
 * §2.4, protocols.md §1).
 *
 * Producers and shmqd run the same code, under the partition's recovery byte (try, never wait);
 * consumers, who may not write P and D, ask shmqd. The order of the looks is the proof, and each
 * look is here because a model checker found the counterexample to leaving it out
 * (test/model/claim-*.pml): tail; all slots; liveness of the candidates; stamps; the stamp at t
 * once more; the lap check once more.
 *
 * If the resolver dies here: before the padding's stamp nothing has happened (an unstamped header
 * and zeroed interior stamps of a claim that never was are invisible); the kernel drops the
 * recovery byte; the next one does it again.
 */
#include "libshmq/ring.h"

#include "libshmq/fault.h"
#include "libshmq/liveness.h"

/* One slot as read once; `names` false when there was nothing in it, or when it changed while we
 * looked. */
struct claim_view {
    uint64_t at;
    uint64_t end;
    bool names;
};

struct claims {
    struct claim_view slots[SLOTS_MAX];
    uint32_t count;
};

static uint64_t slot_word(const struct ring *ring, uint32_t i)
{
    return atomic_load_explicit(&ring->producers->slots[i].at, memory_order_acquire);
}

/* ORDER claim -> resolve: at, end, at again, all acquire: an `end` belongs to the `at` that
 * stands on both sides of it. A slot that changed meanwhile belongs to somebody who ran just now:
 * tail had passed t before, so either it lost t, or it has stamped it, which the last look at t
 * will see. */
static struct claim_view view_slot(const struct ring *ring, uint32_t i)
{
    const struct producer_slot *slot = &ring->producers->slots[i];
    uint64_t first = slot_word(ring, i);
    uint64_t end = atomic_load_explicit(&slot->end, memory_order_acquire);
    uint64_t again = slot_word(ring, i);
    struct claim_view view = {.at = first & ~SLOT_BITS, .end = end};

    view.names = first != 0 && again != 0 && (again & ~SLOT_BITS) == view.at;
    return view;
}

static void view_slots(const struct ring *ring, struct claims *claims)
{
    claims->count = ring->slot_count;
    for (uint32_t i = 0; i < claims->count; i++)
        claims->slots[i] = view_slot(ring, i);
}

static bool is_candidate(const struct claims *claims, uint32_t i, uint64_t t)
{
    return claims->slots[i].names && claims->slots[i].at == t && claims->slots[i].end > t;
}

static bool owner_is_dead(const struct ring *ring, uint32_t i)
{
    uint64_t client = atomic_load_explicit(&ring->state->slot_client[i], memory_order_acquire);

    /* A slot that nobody has been given cannot be written by the living. */
    return client == CLIENT_NONE || ring->ops->client_is_dead(ring->ops_context, client);
}

static bool any_candidate_lives(const struct ring *ring, const struct claims *claims, uint64_t t)
{
    for (uint32_t i = 0; i < claims->count; i++) {
        if (is_candidate(claims, i, t) && !owner_is_dead(ring, i))
            return true;
    }
    return false;
}

/* The dead's last words are in memory once they are dead; a candidate may have moved on between
 * our look and its death. */
static bool candidates_changed(const struct ring *ring, const struct claims *claims, uint64_t t)
{
    for (uint32_t i = 0; i < claims->count; i++) {
        if (!is_candidate(claims, i, t))
            continue;
        struct claim_view now = view_slot(ring, i);

        if (!now.names || now.at != claims->slots[i].at || now.end != claims->slots[i].end)
            return true;
    }
    return false;
}

/* Somebody's claim begins at e, or has: then the dead one's can have ended there. */
static bool is_boundary(const struct ring *ring, const struct claims *claims, uint64_t e,
                        uint64_t tail)
{
    if (e == tail)
        return true;
    for (uint32_t i = 0; i < claims->count; i++) {
        if (claims->slots[i].names && claims->slots[i].at == e)
            return true;
    }
    return ring_is_stamped(ring, e);
}

static bool extent_is_sane(const struct ring *ring, uint64_t t, uint64_t e, uint64_t tail)
{
    return e > t && e <= tail && e - t <= ring->capacity >> RING_CLAIM_SHIFT &&
           e % RECORD_UNIT == 0;
}

/* Where the dead claim at t ends: the winner's word for it, or, when it died before it could say
 * that it won, and so before it stamped anything inside, the smallest candidate end that is a
 * boundary. 0: none. */
static uint64_t find_extent(const struct ring *ring, const struct claims *claims, uint64_t t,
                            uint64_t tail)
{
    uint64_t smallest = 0;

    for (uint32_t i = 0; i < claims->count; i++) {
        if (!is_candidate(claims, i, t))
            continue;
        uint64_t e = claims->slots[i].end;

        if (!extent_is_sane(ring, t, e, tail))
            continue;
        if (slot_word(ring, i) & SLOT_OWNER)
            return e;
        if (is_boundary(ring, claims, e, tail) && (smallest == 0 || e < smallest))
            smallest = e;
    }
    return smallest;
}

/* Is t a place where a record must begin? Asked before a partition is condemned: offsets come
 * from members. */
static bool is_record_start(const struct ring *ring, const struct claims *claims, uint64_t t)
{
    uint64_t reach = ring->capacity >> RING_CLAIM_SHIFT;

    for (uint32_t i = 0; i < claims->count; i++) {
        if (claims->slots[i].names && claims->slots[i].at < t && t < claims->slots[i].end)
            return false; /* inside a claim, finished or not */
    }
    if (t == ring->state->base)
        return true;
    for (uint64_t y = t - RECORD_UNIT; y + reach >= t && y >= ring->state->base && y < t;
         y -= RECORD_UNIT) {
        if (ring_is_stamped(ring, y))
            return y + record_size(ring_record_const(ring->data, ring->mask, y)->length) == t;
    }
    return false;
}

static void pad_dead_claim(struct ring *ring, uint64_t t, uint64_t e)
{
    /* ORDER overwrite -> validate: the dead one's tail, which we have seen, before our bytes, as in ring_claim_as(). */
    atomic_thread_fence(memory_order_release);
    /* A batch stamps records 2…k first. It never was: a seek or a resynchronising reader must not
     * find these. */
    for (uint64_t y = t + RECORD_UNIT; y < e; y += RECORD_UNIT)
        atomic_store_explicit(&ring_record(ring->data, ring->mask, y)->commit, 0,
                              memory_order_relaxed);
    struct record *record = ring_record(ring->data, ring->mask, t);

    record->length = (uint32_t)(e - t - RECORD_HEADER);
    record->crc32c = 0;
    record->timestamp_ns = 0;
    record->producer = UINT16_MAX;
    record->key_length = 0;
    record->headers_length = 0;
    record->type = RECORD_TYPE_DATA;
    record->flags = 0;
    FAULT("resolve.before_stamp");
    /* ORDER resolve -> poll: all of it before the stamp; pairs with the acquire in ring_peek(). */
    atomic_store_explicit(&record->commit, record_stamp(ring->salt, t, RECORD_PADDING),
                          memory_order_release);
    wait_wake(ring->wait, ATTENTION_DATA | ATTENTION_ROOM | ATTENTION_DOORBELL, ring->fence_mode);
}

/* The dead change nothing; words that change all the same are being scribbled on. */
#define RESOLVE_ROUNDS_MAX 16

/* Under the recovery byte. */
static enum resolve_result resolve_locked(struct ring *ring, uint64_t t)
{
    struct claims claims;
    uint64_t tail;
    int rounds = 0;

    do {
        if (rounds++ == RESOLVE_ROUNDS_MAX)
            return RESOLVE_WAIT;
        tail = ring_tail(ring);
        if (t >= tail || tail > t + ring->capacity)
            return RESOLVE_DONE;
        view_slots(ring, &claims);
        if (any_candidate_lives(ring, &claims, t))
            return RESOLVE_WAIT;
    } while (candidates_changed(ring, &claims, t));
    /* ORDER death -> resolve: all that the dead have written, before the stamps that we look at
     * now. */
    atomic_thread_fence(memory_order_acquire);
    uint64_t e = find_extent(ring, &claims, t, tail);

    if (ring_is_stamped(ring, t)) /* again, now that all of them are known to be dead */
        return RESOLVE_DONE;
    /* ORDER overwrite -> resolve: in gated policies no fence stands between a claim's tail and its first bytes. A look at
     * t that met a byte of the next lap must be followed by one at tail that sees that claim (ARM). */
    wait_barrier(ring->fence_mode);
    if (ring_tail(ring) >
        t + ring->capacity) /* after it: not lapped, so what stands at t is this lap's */
        return RESOLVE_DONE;
    if (e == 0)
        return is_record_start(ring, &claims, t) ? RESOLVE_CORRUPT : RESOLVE_DONE;
    pad_dead_claim(ring, t, e);
    return RESOLVE_PADDED;
}

enum resolve_result ring_resolve(struct ring *ring, uint64_t t)
{
    if (t % RECORD_UNIT || t < ring->state->base)
        return RESOLVE_DONE;
    if (liveness_trylock_recovery(ring->producers_fd) < 0)
        return RESOLVE_WAIT;
    enum resolve_result result = resolve_locked(ring, t);

    liveness_unlock_recovery(ring->producers_fd);
    return result;
}

static enum resolve_result clear_slot_locked(struct ring *ring, uint32_t index)
{
    struct producer_slot *slot = &ring->producers->slots[index];
    uint64_t word = slot_word(ring, index);
    uint64_t at = word & ~SLOT_BITS;

    if (word != 0) {
        uint64_t tail = ring_tail(ring);

        /* Never claimed, long lapped, or stamped: nothing is owed. Else its claim is resolved
         * first. */
        if (tail > at && tail <= at + ring->capacity && !ring_is_stamped(ring, at)) {
            enum resolve_result result = resolve_locked(ring, at);

            if (result == RESOLVE_WAIT || result == RESOLVE_CORRUPT)
                return result;
            /* The stamp, then the lap check: a record that is lapped in between is no reason. */
            if (!ring_is_stamped(ring, at)) {
                wait_barrier(ring->fence_mode); /* as in resolve_locked() */
                if (ring_tail(ring) <= at + ring->capacity)
                    return RESOLVE_CORRUPT; /* it names a claim that cannot be */
            }
        }
        FAULT("slot.before_clear");
    }
    /* ORDER clear -> claim: released to the slot's next owner with state.slot_client, which shmqd
     * stores after this. */
    atomic_store_explicit(&slot->at, 0, memory_order_release);
    atomic_store_explicit(&slot->end, 0, memory_order_release);
    return RESOLVE_DONE;
}

enum resolve_result ring_clear_slot(struct ring *ring, uint32_t index)
{
    if (liveness_trylock_recovery(ring->producers_fd) < 0)
        return RESOLVE_WAIT;
    enum resolve_result result = clear_slot_locked(ring, index);

    liveness_unlock_recovery(ring->producers_fd);
    return result;
}

uint64_t ring_lowest_unstamped(const struct ring *ring, uint64_t from, uint64_t tail)
{
    uint64_t lowest = UINT64_MAX;

    for (uint32_t i = 0; i < ring->slot_count; i++) {
        uint64_t word = slot_word(ring, i);
        uint64_t at = word & ~SLOT_BITS;

        /* Announced but not claimed below `tail`, or lapped long ago by its dead owner: holds
         * nobody back. */
        if (word == 0 || at < from || at >= tail || tail > at + ring->capacity || at >= lowest)
            continue;
        if (!ring_is_stamped(ring, at))
            lowest = at;
    }
    return lowest;
}
