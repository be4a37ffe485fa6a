/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cas.c: the floor of several producers, and of moving lines: no messages, but what messages
 * cannot do without.
 *
 *   cas       each process adds to one word by compare-and-swap, as often as it can
 *   stream    one process writes whole lines, one after the other, into 64 MiB; the other reads them,
 *             64 lines behind an index: what a line a message costs when neither waits for the other
 *
 * Nothing to hang on: processes stop when the driver has done its share, or look at the time.
 */
#include "tools/perf/transport.h"

#define LINE         64u
#define STREAM_BYTES (UINT64_C(64) << 20)
#define STREAM_LINES (STREAM_BYTES / LINE)
#define STREAM_GROUP 64u /* lines an index is told for at once */

/* ---- compare and swap ------------------------------------------------------------------------ */

static size_t word_bytes(const struct perf_setup *setup)
{
    (void)setup;
    return 4096;
}

static void run_cas(struct perf_seat *seat, struct perf_trial *trial)
{
    _Atomic uint64_t *word = seat->lane->shared;
    uint64_t most = seat->index == 0 ? trial->count : UINT64_MAX;
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);

    for (uint64_t i = 0; i < most; i++) {
        /* Acquire and release, as a claim would. */
        while (!atomic_compare_exchange_weak_explicit(word, &seen, seen + 1, memory_order_acq_rel,
                                                      memory_order_relaxed))
            ;
        seen++;
        if (i % 64 == 0 && seat->index > 0 &&
            (atomic_load_explicit(trial->stop, memory_order_relaxed) || !perf_wait_on(trial))) {
            trial->done = i;
            return;
        }
    }
    trial->done = most;
}

/* ---- lines ----------------------------------------------------------------------------------- */

struct stream {
    _Alignas(PERF_LINE_BYTES) _Atomic uint64_t written;
    _Alignas(PERF_LINE_BYTES) _Atomic uint64_t read;
    _Alignas(4096) char lines[STREAM_BYTES];
};

struct stream_end {
    uint64_t next;
};

static size_t stream_bytes(const struct perf_setup *setup)
{
    (void)setup;
    return sizeof(struct stream);
}

static int prepare_stream(struct perf_lane *lane, struct error_buffer *why)
{
    (void)why;
    lane->setup.size = LINE;
    lane->setup.ring_bytes = STREAM_BYTES;
    return 0;
}

static int open_stream(struct perf_seat *seat, struct error_buffer *why)
{
    (void)why;
    seat->end = perf_alloc_pages(sizeof(struct stream_end));
    return 0;
}

static void close_stream(struct perf_seat *seat)
{
    free(seat->end);
    seat->end = NULL;
}

typedef uint64_t vector16 __attribute__((vector_size(16)));

static void write_lines(struct perf_seat *seat, struct perf_trial *trial)
{
    struct stream *stream = seat->lane->shared;
    uint64_t *next = &((struct stream_end *)seat->end)->next;

    for (uint64_t i = 0; i < trial->count; i++, ++*next) {
        vector16 *line = (void *)(stream->lines + (*next % STREAM_LINES) * LINE);

        if (*next % STREAM_GROUP == 0) {
            atomic_store_explicit(&stream->written, *next, memory_order_release);
            while (*next + STREAM_GROUP -
                       atomic_load_explicit(&stream->read, memory_order_acquire) >
                   STREAM_LINES) {
                cpu_relax();
                if (!perf_wait_on(trial))
                    return;
            }
        }
        line[0] = line[1] = line[2] = line[3] = (vector16){*next, *next};
    }
    atomic_store_explicit(&stream->written, *next, memory_order_release);
    trial->done = trial->count;
}

static void read_lines(struct perf_seat *seat, struct perf_trial *trial)
{
    struct stream *stream = seat->lane->shared;
    uint64_t *next = &((struct stream_end *)seat->end)->next;
    uint64_t end = *next + trial->count;
    uint64_t sum = 0;

    while (*next < end) {
        uint64_t written = atomic_load_explicit(&stream->written, memory_order_acquire);

        if (written == *next) {
            cpu_relax();
            if (!perf_wait_on(trial))
                return;
        }
        for (; *next < written; ++*next) {
            const char *line = stream->lines + (*next % STREAM_LINES) * LINE;

            if (UNLIKELY(perf_body_word(line) != *next)) {
                (void)perf_fail_order(trial, perf_body_word(line), *next);
                return;
            }
            sum += perf_touch(line, LINE);
        }
        atomic_store_explicit(&stream->read, *next, memory_order_release);
    }
    seat->sum += sum;
    trial->done = trial->count;
}

static void run_stream(struct perf_seat *seat, struct perf_trial *trial)
{
    if (seat->role == PERF_PRODUCE)
        write_lines(seat, trial);
    else
        read_lines(seat, trial);
}

const struct perf_way perf_way_cas = {
    .name = "cas",
    .summary = "compare-and-swap of one word: the floor of several producers",
    .kinds = 1u << PERF_FREE,
    .waits = 1u << PERF_SPIN,
    .producers_max = PERF_MEMBERS_MAX,
    .groups_max = 1,
    .shared_bytes = word_bytes,
    .run = run_cas,
};

const struct perf_way perf_way_stream = {
    .name = "stream",
    .summary = "whole lines through 64 MiB: the floor of a line a message",
    .kinds = 1u << PERF_THROUGHPUT,
    .waits = 1u << PERF_SPIN,
    .producers_max = 1,
    .groups_max = 1,
    .shared_bytes = stream_bytes,
    .prepare = prepare_stream,
    .open = open_stream,
    .run = run_stream,
    .close = close_stream,
};
