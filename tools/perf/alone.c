/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alone.c: what a process pays for by itself: copying, clocks, a membarrier. Each is a way
 * whose one process does it again and again, so that it is timed and filed like everything else.
 */
#include <sys/syscall.h>

#include "tools/perf/transport.h"

#define MEMBARRIER_GLOBAL_EXPEDITED          2
#define MEMBARRIER_REGISTER_GLOBAL_EXPEDITED 4

/* ---- copying --------------------------------------------------------------------------------- */

static int open_copy(struct perf_seat *seat, struct error_buffer *why)
{
    (void)why;
    seat->end = perf_alloc_pages(seat->lane->setup.size);
    return 0;
}

static void close_copy(struct perf_seat *seat)
{
    free(seat->end);
    seat->end = NULL;
}

static void run_copy(struct perf_seat *seat, struct perf_trial *trial)
{
    uint32_t size = seat->lane->setup.size;

    for (uint64_t i = 0; i < trial->count; i++) {
        memcpy(seat->end, seat->scratch, size);
        __asm__ __volatile__("" ::"r"(seat->end), "r"(seat->scratch) : "memory");
    }
    trial->done = trial->count;
}

/* ---- clocks ---------------------------------------------------------------------------------- */

static void run_coarse(struct perf_seat *seat, struct perf_trial *trial)
{
    for (uint64_t i = 0; i < trial->count; i++)
        seat->sum += clock_realtime_coarse_ns();
    trial->done = trial->count;
}

static void run_precise(struct perf_seat *seat, struct perf_trial *trial)
{
    for (uint64_t i = 0; i < trial->count; i++)
        seat->sum += clock_realtime_ns();
    trial->done = trial->count;
}

static void run_ticks(struct perf_seat *seat, struct perf_trial *trial)
{
    for (uint64_t i = 0; i < trial->count; i++)
        seat->sum += perf_ticks();
    trial->done = trial->count;
}

/* ---- membarrier ------------------------------------------------------------------------------ */

static int open_membarrier(struct perf_seat *seat, struct error_buffer *why)
{
    (void)seat;
    if (syscall(SYS_membarrier, MEMBARRIER_REGISTER_GLOBAL_EXPEDITED, 0, 0) < 0)
        return error_set(why, SHMQ_ENOTSUP, "membarrier: not in this kernel");
    return 0;
}

static void run_membarrier(struct perf_seat *seat, struct perf_trial *trial)
{
    for (uint64_t i = 0; i < trial->count; i++) {
        if (syscall(SYS_membarrier, MEMBARRIER_GLOBAL_EXPEDITED, 0, 0) < 0) {
            (void)perf_trial_fail(trial, "membarrier: refused");
            return;
        }
    }
    seat->sum += trial->count;
    trial->done = trial->count;
}

static int check_membarrier(const struct perf_setup *setup, struct error_buffer *why)
{
    (void)setup;
    if (syscall(SYS_membarrier, MEMBARRIER_REGISTER_GLOBAL_EXPEDITED, 0, 0) < 0)
        return error_set(why, SHMQ_ENOTSUP, "membarrier: not in this kernel");
    return 0;
}

#define ALONE \
    .kinds = 1u << PERF_FREE, .waits = 1u << PERF_SPIN, .producers_max = 1, .groups_max = 1

const struct perf_way perf_way_memcpy = {
    .name = "memcpy",
    .summary = "memcpy() of memory that was just used",
    ALONE,
    .open = open_copy,
    .run = run_copy,
    .close = close_copy,
};

const struct perf_way perf_way_coarse = {
    .name = "clock, coarse",
    .summary = "clock_gettime(CLOCK_REALTIME_COARSE)",
    ALONE,
    .run = run_coarse,
};

const struct perf_way perf_way_precise = {
    .name = "clock, precise",
    .summary = "clock_gettime(CLOCK_REALTIME)",
    ALONE,
    .run = run_precise,
};

const struct perf_way perf_way_ticks = {
    .name = "time stamp",
    .summary = "reading the counter that times trials",
    ALONE,
    .run = run_ticks,
};

const struct perf_way perf_way_membarrier = {
    .name = "membarrier",
    .summary = "membarrier(GLOBAL_EXPEDITED)",
    ALONE,
    .check = check_membarrier,
    .open = open_membarrier,
    .run = run_membarrier,
};
