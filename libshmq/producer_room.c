/* SPDX-License-Identifier: Apache-2.0 */
/*
 * producer_room.c: a producer off the hot path: waiting for room, resolving who is dead in its way,
 * finding out what a changed event word or a closed partition means. See producer.h.
 *
 * Called by the channel's thread. Blocks until the caller's deadline; sleeps never exceed
 * WAIT_BLOCKED_NS, since whoever should wake it may die. The slot names nothing while it waits
 * (ring_claim sees to that), so if the process dies here nothing is owed.
 */
#include "libshmq/producer.h"

#include <inttypes.h>

#include "libshmq/cursor.h"

/* A consumer that is at work makes room within microseconds. */
#define SPIN_NS UINT64_C(10000)
/* A supervisor whose successor has made the bus anew announces nothing in the old memory: rarely, but for as long as
 * there is traffic, the connection is looked at when room is computed. */
#define LOOK_NS NS_PER_S

uint64_t producer_deadline(const struct shmq_producer *p)
{
    return clock_monotonic_ns() + (uint64_t)p->timeout_ms * NS_PER_MS;
}

uint32_t producer_pass_dead(const struct shmq_producer *p, uint32_t partition)
{
    for (uint32_t i = 0; i < p->partition_count; i++) {
        uint32_t candidate =
            partition + i < p->partition_count ? partition + i : partition + i - p->partition_count;

        if (!p->partitions[candidate].dead)
            return candidate;
    }
    return partition;
}

/* ---- what has changed ------------------------------------------------------------------------ */

static void mark_dead(struct producer_partition *pp, int code)
{
    pp->dead = code;
    pp->ring.limit = 0; /* so that each claim fails, and meets the reason */
}

/* Deleted topics end the producer, quarantined partitions end themselves. */
static int look_at_status(struct shmq_producer *p, uint32_t partition, struct error_buffer *why)
{
    struct producer_partition *pp = &p->partitions[partition];
    int rc = pp->attachment ? attachment_check_status(pp->attachment, why) : 0;

    if (rc == 0)
        return 0;
    if (rc == SHMQ_ENOTOPIC) {
        p->failed = rc;
        for (uint32_t i = 0; i < p->partition_count; i++)
            mark_dead(&p->partitions[i], rc);
    } else {
        mark_dead(pp, rc);
    }
    return rc;
}

/* There is no telling who waits longer: the supervisor's successor, or the publisher for it. Once,
 * briefly. */
static void greet_new_supervisor(struct shmq_producer *p)
{
    struct error_buffer ignored;

    if (session_has_new_supervisor(p->session) || control_is_needed(p->connection))
        (void)control_connect(p->connection, clock_monotonic_ns() + CONTROL_GRACE_NS, CONTROL_ONCE,
                              &ignored);
}

void producer_look_at_groups(struct shmq_producer *p)
{
    for (uint32_t i = 0; i < p->partition_count; i++) {
        struct producer_partition *pp = &p->partitions[i];
        const struct ring *ring = pp->ring.ring;

        if (pp->dead || atomic_load_explicit(&ring->state->gate_epoch, memory_order_relaxed) ==
                            ring->gate_epoch)
            continue;
        if (ring_refresh_limit(&pp->ring, RECORD_UNIT, clock_monotonic_ns()) < 0)
            return; /* nobody answers: when room runs out it has to be tried again, and waited for
                     */
    }
}

int producer_attend(struct shmq_producer *p, uint64_t deadline_ns, struct error_buffer *why)
{
    const struct state_segment *state;
    uint32_t count;

    if (!session_is_over(p->session, p->connection)) {
        /* ORDER announce -> attend: acquire, and before all that it announces is read; pairs with
         * shmqd's bump after its stores. */
        p->event_seen = atomic_load_explicit(p->event, memory_order_acquire);
        greet_new_supervisor(p);
    }
    p->look_ns = clock_monotonic_ns() + LOOK_NS;
    if (session_is_over(p->session, p->connection))
        return producer_reopen(p, deadline_ns, why);
    for (uint32_t i = 0; i < p->partition_count; i++) {
        int rc = look_at_status(p, i, why);

        if (rc == SHMQ_ENOTOPIC)
            return rc;
    }
    state = producer_any(p)->ring.state;
    p->max_message = min_u32(atomic_load_explicit(&state->max_message, memory_order_acquire),
                             ring_max_message(state->capacity));
    producer_bound_lengths(p);
    count = min_u32(atomic_load_explicit(&state->partition_count, memory_order_acquire),
                    PARTITIONS_MAX);
    if (count > p->partition_count) {
        struct error_buffer ignored;
        uint64_t grace_ns = clock_monotonic_ns() + CONTROL_GRACE_NS;

        /* Without them it goes on as it is, and tries again at the next event. */
        (void)producer_grow(p, count, max_u64(deadline_ns, grace_ns), &ignored);
    }
    producer_look_at_groups(p);
    return 0;
}

int producer_after_closed(struct shmq_producer *p, uint32_t partition, struct error_buffer *why)
{
    if (session_is_over(p->session, p->connection))
        return 1;
    return look_at_status(p, partition, why); /* CLOSED is but a hint */
}

/* ---- room ------------------------------------------------------------------------------------ */

static int refuse_full(struct shmq_producer *p, uint32_t partition, struct error_buffer *why)
{
    static const char *const policies[] = {"block", "reject", "drop-old", "spill"};
    char blocker[400];

    /* Who does not sleep for room still wants it: the consumer's next poll commits what it can. */
    (void)wait_prepare(p->partitions[partition].wait, ATTENTION_ROOM);
    attachment_describe_blocker(p->partitions[partition].attachment, blocker, sizeof(blocker));
    return error_set(why, SHMQ_EFULL, "topic %s/%u: its ring is full (policy %s): %s", p->name,
                     partition, policies[min_u32(p->policy, OVERFLOW_SPILL)], blocker);
}

/* A claim that nobody stamps for WAIT_BLOCKED_NS is resolved if its owner is dead. Liveness is a
 * kernel fact; the delay only keeps the system calls away from claims that are being written. True:
 * look again at once. */
static bool resolve_stuck(struct producer_partition *pp)
{
    struct ring *ring = &pp->attachment->ring;
    uint64_t offset = ring_lowest_unstamped(ring, 0, ring_tail(ring));
    uint64_t now_ns = clock_monotonic_ns();

    if (offset == UINT64_MAX) {
        pp->stuck_ns = 0;
        return false;
    }
    if (pp->stuck_ns == 0 || pp->stuck_offset != offset) {
        pp->stuck_offset = offset;
        pp->stuck_ns = now_ns;
        return false;
    }
    if (now_ns - pp->stuck_ns < WAIT_BLOCKED_NS)
        return false;
    pp->stuck_ns = now_ns;
    switch (ring_resolve(ring, offset)) {
    case RESOLVE_PADDED:
        pp->stuck_ns = 0;
        return true;
    case RESOLVE_CORRUPT: /* only shmqd may say so to everybody */
        (void)attachment_ask_resolve(pp->attachment, offset, now_ns + CONTROL_GRACE_NS);
        return false;
    case RESOLVE_DONE:
    case RESOLVE_WAIT:
    default:
        return false;
    }
}

static int refuse_unmapped(struct shmq_producer *p, uint32_t partition, struct error_buffer *why)
{
    return error_prefix(why, SHMQ_EFULL,
                        "topic %s/%u: its ring is full, and a group has joined whose cursor only "
                        "the supervisor can show",
                        p->name, partition);
}

/* Sleeps for ROOM, for an event, or for WAIT_BLOCKED_NS. RING_OK: there was room at the last look.
 */
static int sleep_for_room(struct shmq_producer *p, struct producer_partition *pp, uint64_t size,
                          uint64_t deadline_ns)
{
    struct wait_word words[2];
    int rc;

    words[0] = wait_prepare(pp->wait, ATTENTION_ROOM);
    words[1] = (struct wait_word){p->event, p->event_seen};
    wait_barrier(pp->fence_mode);
    rc = ring_refresh_limit(&pp->ring, size, deadline_ns);
    /* The journal gates as well, and its flusher may be napping. */
    if (rc == RING_NO_ROOM)
        attachment_ring_flusher(pp->attachment);
    if (rc == RING_NO_ROOM)
        (void)wait_sleep(words, 2, min_u64(WAIT_BLOCKED_NS, deadline_left_ns(deadline_ns)));
    return rc;
}

static int spin_for_room(struct producer_partition *pp, uint64_t size, uint64_t deadline_ns)
{
    uint64_t until_ns = min_u64(clock_monotonic_ns() + SPIN_NS, deadline_ns);
    int rc;

    attachment_ring_flusher(pp->attachment);
    do {
        rc = ring_refresh_limit(&pp->ring, size, deadline_ns);
        for (int i = 0; rc == RING_NO_ROOM && i < 32; i++)
            cpu_relax();
    } while (rc == RING_NO_ROOM && clock_monotonic_ns() < until_ns);
    return rc;
}

int producer_look_around(struct shmq_producer *p, uint32_t partition, uint64_t deadline_ns,
                         struct error_buffer *why)
{
    int rc = 0;

    if (producer_is_called(p) || session_is_over(p->session, p->connection) ||
        clock_monotonic_ns() >= p->look_ns)
        rc = producer_attend(p, deadline_ns, why);
    /* It may be the only one that is dead, which ends no producer, but whoever waits for it. */
    return rc == 0 && partition < p->partition_count ? look_at_status(p, partition, why) : rc;
}

int producer_make_room(struct shmq_producer *p, uint32_t partition, uint64_t size,
                       uint64_t deadline_ns, bool *ret_moved, struct error_buffer *why)
{
    struct producer_partition *pp = &p->partitions[partition];
    uint32_t layout = p->layout;
    int rc;

    *ret_moved = false;
    if (clock_monotonic_ns() >= p->look_ns)
        rc = producer_attend(p, deadline_ns, why);
    else
        rc = look_at_status(p, partition, why);
    if (rc < 0)
        return rc;
    if (p->layout != layout) {
        *ret_moved = true;
        return 0;
    }
    if (rc == 0 && pp->dead)
        rc = error_set(why, pp->dead,
                       "topic %s/%u: was scribbled on and is quarantined; publish to its other "
                       "partitions, and run shmq doctor",
                       p->name, partition);
    if (rc < 0)
        return rc;
    if (p->policy == OVERFLOW_REJECT)
        deadline_ns = clock_monotonic_ns();
    rc = spin_for_room(pp, size, deadline_ns);
    while (rc != RING_OK) {
        int seen = producer_look_around(p, partition, deadline_ns, why);

        if (seen < 0)
            return seen;
        if (p->layout != layout) {
            *ret_moved = true;
            return 0;
        }
        pp = &p->partitions[partition];
        if (rc < 0)
            return refuse_unmapped(p, partition, why);
        bool again = resolve_stuck(pp);

        if (!again && deadline_passed(deadline_ns))
            return refuse_full(p, partition, why);
        rc = again ? ring_refresh_limit(&pp->ring, size, deadline_ns)
                   : sleep_for_room(p, pp, size, deadline_ns);
    }
    return 0;
}
