/* SPDX-License-Identifier: Apache-2.0 */
/*
 * futex.c: the floor of sleeping and waking: the ring of ideal-chase, whose reader sleeps on a
 * futex when nothing is there, and whose writer wakes it only when it does. Round trips only: the
 * rings are never full.
 *
 * Store and look on both sides, with a fence in between: either the writer sees that the reader sleeps,
 * or the reader sees the message. `hybrid` spins for 20 us before it sleeps, as shmq does.
 */
#include "tools/perf/team_internal.h"

#define SLOTS   64u
#define SPIN_NS (20 * NS_PER_US)

struct futex_ring {
    _Alignas(PERF_LINE_BYTES) _Atomic uint32_t sleeps;
    _Alignas(PERF_LINE_BYTES) char slots[];
};

struct futex_end {
    struct futex_ring *in, *out;
    uint64_t next_in, next_out;
    uint64_t slot_bytes;
};

static uint64_t slot_bytes(const struct perf_setup *setup)
{
    return align_up_u64((uint64_t)setup->size + 8, 64);
}

static uint64_t ring_bytes(const struct perf_setup *setup)
{
    return align_up_u64(sizeof(struct futex_ring) + SLOTS * slot_bytes(setup), 4096);
}

static size_t shared_bytes(const struct perf_setup *setup)
{
    return 2 * ring_bytes(setup);
}

static int open_end(struct perf_seat *seat, struct error_buffer *why)
{
    struct futex_end *end = perf_alloc_pages(sizeof(*end));
    char *there = seat->lane->shared;
    char *back = there + ring_bytes(&seat->lane->setup);
    bool receives_first = seat->role == PERF_PONG || seat->role == PERF_CONSUME;

    (void)why;
    end->slot_bytes = slot_bytes(&seat->lane->setup);
    end->out = (void *)(receives_first ? back : there);
    end->in = (void *)(receives_first ? there : back);
    seat->end = end;
    return 0;
}

static void close_end(struct perf_seat *seat)
{
    free(seat->end);
    seat->end = NULL;
}

static ALWAYS_INLINE char *slot_at(struct futex_ring *ring, const struct futex_end *end,
                                   uint64_t number)
{
    return ring->slots + (number % SLOTS) * end->slot_bytes;
}

static ALWAYS_INLINE bool send_one(struct perf_seat *seat, struct perf_trial *trial,
                                   const void *body, uint32_t size)
{
    struct futex_end *end = seat->end;
    char *slot = slot_at(end->out, end, end->next_out);

    (void)trial;
    memcpy(slot + 8, body, size);
    atomic_store_explicit((_Atomic uint64_t *)(void *)slot, ++end->next_out, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&end->out->sleeps, memory_order_relaxed)) {
        atomic_store_explicit(&end->out->sleeps, 0, memory_order_relaxed);
        perf_futex_wake(&end->out->sleeps);
    }
    return true;
}

static ALWAYS_INLINE bool is_there(const char *slot, uint64_t number)
{
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)slot,
                                memory_order_acquire) == number + 1;
}

static ALWAYS_INLINE const void *receive(struct perf_seat *seat, struct perf_trial *trial,
                                         uint32_t group, uint32_t size, bool wait)
{
    struct futex_end *end = seat->end;
    struct futex_ring *in = end->in;
    const char *slot = slot_at(in, end, end->next_in);

    (void)size;
    (void)group;
    (void)wait;
    if (seat->lane->setup.wait == PERF_HYBRID) {
        uint64_t begin = perf_ticks();

        while (!is_there(slot, end->next_in) && perf_ns_of_ticks(perf_ticks() - begin) < SPIN_NS)
            cpu_relax();
    }
    while (!is_there(slot, end->next_in)) {
        atomic_store_explicit(&in->sleeps, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        if (is_there(slot, end->next_in))
            break;
        (void)perf_futex_wait(&in->sleeps, 1, UINT64_MAX);
        if (!perf_wait_on(trial))
            return NULL;
    }
    return slot + 8;
}

static ALWAYS_INLINE void release(struct perf_seat *seat, uint32_t group)
{
    (void)group;
    ((struct futex_end *)seat->end)->next_in++;
}

static void run(struct perf_seat *seat, struct perf_trial *trial)
{
    perf_run_role(seat, trial, send_one, NULL, receive, release);
}

const struct perf_way perf_way_futex = {
    .name = "futex",
    .summary = "bare ring with a futex to sleep on: the floor of waking",
    .kinds = 1u << PERF_LATENCY | 1u << PERF_IDLE,
    .waits = 1u << PERF_HYBRID | 1u << PERF_BLOCK,
    .producers_max = 1,
    .groups_max = 1,
    .shared_bytes = shared_bytes,
    .open = open_end,
    .run = run,
    .close = close_end,
};
