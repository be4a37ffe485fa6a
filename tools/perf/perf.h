/* SPDX-License-Identifier: Apache-2.0 */
/*
 * perf.h: what the parts of shmq-perf share: the machine, figures and their spread, results and
 * comparisons. The measuring itself is in team.h (processes, trials, classes) and transport.h (ways to
 * move messages).
 *
 * A figure alone means nothing on a machine whose cores move about under a hypervisor. So every trial
 * is short, stands between two looks at how far apart the two cores are now (the canary), is filed under
 * that distance class, and counts only in a ratio with the trial of its rival beside it.
 *
 *   main.c          the verbs and their help
 *   plan.c          options, and what they ask for; collect.c: what came out of it
 *   verbs.c         latency, throughput, fanout, wake; compare.c, floor.c, bench.c (`make bench`)
 *   durable*.c      what a disk takes, with shmq and without; durable.h says what is where
 *   machine.c       CPU, hypervisor, kernel, caches
 *   histogram.c     HDR-style histogram, percentiles; spread.c: median, quartiles
 *   report.c        table; export.c: JSON, CSV, .hgrm; text.c: figures with their units
 *   plot.c          SVG: the document; plot_*.c: its panels; axis.c, svg.c
 *   team.c          a session as its owner sees it; session.c: what it has found
 *   driver.c        rounds, and how long trials are; trial.c: the canary, one trial
 *   member.c        a process of a session; process.c: signals, CPUs; bus.c: its private bus
 *   filing.c        classes, ledgers, pairs; clock.c: what trials are timed with
 *   ways.c          all ways to move messages; transport.h: the loops that they share
 *   shmq.c, pipe.c, unix.c, mqueue.c, zmq.c, nng.c, and the floors: ideal.c, futex.c, cas.c, alone.c
 *   size.c          memory, start-up, idle; size_client.c: the clients
 *   instructions.c  instructions an operation; workload.c: the operations
 *   place.c         a folder, programs and a shmqd of one's own; facts.c: ELF, /proc
 */
#ifndef SHMQ_PERF_H
#define SHMQ_PERF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "libshmq/base.h"

/* ---- the machine ----------------------------------------------------------------------------- */

struct perf_machine {
    char cpu[96];        /* "AMD EPYC, family 26 model 2" */
    char hypervisor[32]; /* "" on bare metal */
    char kernel[96];
    char clock[64];      /* what times trials, and its resolution: "TSC, 2.596 GHz, invariant" */
    char caches[96];     /* "L1d 48 KiB, L2 1 MiB, L3 32 MiB" */
    char huge_pages[64]; /* for shared memory: "advise" */
    char compiler[64];   /* that built this program */
    char date[32];
    uint32_t cpu_count;
    int cpus[2]; /* driver and first peer are pinned to; negative: they are not */
};

/* Fills in all but `clock` and `cpus`, which it leaves alone. What cannot be found out is "". */
void perf_machine_read(struct perf_machine *ret_machine);
/* The same with files below `root` in place of /proc and /sys; tests have some there. */
void perf_machine_read_below(const char *root, struct perf_machine *ret_machine);

/* ---- histogram (histogram.c) ----------------------------------------------------------------- */

/* As HdrHistogram with three digits: buckets twice as wide as the ones before, each of 1,024 parts. So
 * a part is at most 0.1 % wide, and one that begins below 2,048 ns is 1 ns wide. */
#define PERF_HISTOGRAM_PART_BITS 10
#define PERF_HISTOGRAM_BITS      36 /* values are below 2^36 ns, 69 s */
#define PERF_HISTOGRAM_MAX_NS    ((UINT64_C(1) << PERF_HISTOGRAM_BITS) - 1)
#define PERF_HISTOGRAM_PARTS \
    ((PERF_HISTOGRAM_BITS - PERF_HISTOGRAM_PART_BITS + 1) << PERF_HISTOGRAM_PART_BITS)

/* Only what recording needs: count, mean and maximum are found when somebody asks. Zeroed is empty. */
struct perf_histogram {
    uint64_t
        clamped; /* were longer than could be said, and are counted as the longest that could */
    uint64_t counts[PERF_HISTOGRAM_PARTS];
};

static ALWAYS_INLINE void perf_histogram_record(struct perf_histogram *histogram, uint64_t value_ns)
{
    unsigned shift; /* of the bucket: its parts are 2^shift ns wide */

    if (UNLIKELY(value_ns > PERF_HISTOGRAM_MAX_NS)) {
        value_ns = PERF_HISTOGRAM_MAX_NS;
        histogram->clamped++;
    }
    /* Values without their highest bit share the first bucket's parts with those of the second. */
    shift = 63u - PERF_HISTOGRAM_PART_BITS -
            (unsigned)__builtin_clzll(value_ns | UINT64_C(1) << PERF_HISTOGRAM_PART_BITS);
    histogram->counts[((uint64_t)shift << PERF_HISTOGRAM_PART_BITS) + (value_ns >> shift)]++;
}

struct perf_histogram *perf_histogram_new(void); /* ends the program when there is no memory */
void perf_histogram_free(struct perf_histogram *histogram);
void perf_histogram_add(struct perf_histogram *to, const struct perf_histogram *from);
/* All of these walk the buckets, about 10 us: not within a trial. 0 if empty. */
uint64_t perf_histogram_count(const struct perf_histogram *histogram);
/* `percentile` in 0..100; the highest value equivalent, as HdrHistogram reports it (of 0: the lowest). */
uint64_t perf_histogram_at(const struct perf_histogram *histogram, double percentile);
/* The same for several, in ascending order, in one walk. */
void perf_histogram_at_each(const struct perf_histogram *histogram, const double *percentiles,
                            uint32_t count, uint64_t *ret_values);
uint64_t perf_histogram_max(const struct perf_histogram *histogram);
double perf_histogram_mean(const struct perf_histogram *histogram);
double perf_histogram_deviation(const struct perf_histogram *histogram); /* standard, of all */
/* The percentile distribution in HdrHistogram's text format, values in microseconds. */
void perf_histogram_write_hgrm(const struct perf_histogram *histogram, FILE *file);
size_t perf_histogram_bytes(void); /* for placing one in shared memory with perf_histogram_init */
struct perf_histogram *perf_histogram_init(void *memory);

/* ---- figures (spread.c) ---------------------------------------------------------------------- */

/* Of several trials of one kind. */
struct perf_spread {
    double median, low, high, min, max; /* low and high: the quartiles */
    uint32_t count;                     /* 0: not observed */
};
/* Quartiles lie between values where need be (type 7, as R and numpy do). Values that are not finite
 * are left out. */
struct perf_spread perf_spread_of(const double *values, uint32_t count);

/* ---- results --------------------------------------------------------------------------------- */

enum perf_unit {
    PERF_NS,             /* lower is better */
    PERF_MESSAGES_PER_S, /* higher is better; bytes a second = × size */
    PERF_BYTES_PER_S,
    PERF_OPERATIONS_PER_S,
    PERF_COUNT, /* instructions, wake-ups, … : lower is better */
    PERF_BYTES, /* lower is better */
};

/* ---- figures as people read them (text.c) ---------------------------------------------------- */

#define PERF_TEXT_BYTES 48

/* Three digits and the unit that fits: "183 ns", "1.24 µs", "58.3 M/s", "3.73 GB/s", "57", "1.50 MiB".
 * All of these return `text`; "-" for what is negative or not finite. */
const char *perf_text_value(double value, enum perf_unit unit, char text[PERF_TEXT_BYTES]);
const char *perf_text_range(double low, double high, enum perf_unit unit,
                            char text[PERF_TEXT_BYTES]);               /* "57.1–59.0 M/s" */
const char *perf_text_ratio(double ratio, char text[PERF_TEXT_BYTES]); /* "0.84", "2.31", "12.4" */
const char *perf_text_size(uint64_t bytes,
                           char text[PERF_TEXT_BYTES]); /* "64 B", "1.5 KiB"; 0: "" */
const char *perf_text_round(double value, enum perf_unit unit,
                            char text[PERF_TEXT_BYTES]); /* for ticks: "1 µs", not "1.00 µs" */
const char *perf_text_percentile(double percentile, char text[PERF_TEXT_BYTES]); /* "99.9" */

#define PERF_NAME_BYTES 40

/* One way of moving messages of one size, in one distance class. */
struct perf_result {
    const char *measure;             /* "latency", "throughput", "fanout", "wake", "floor" */
    char transport[PERF_NAME_BYTES]; /* "shmq", "ideal-chase", "pipe" */
    char distance[16];               /* "near", "far", …; "" where it does not matter */
    uint32_t size;                   /* bytes of body; 0: does not apply */
    enum perf_unit unit;
    struct perf_spread value; /* of the trials; latency: of their median round trips */
    const struct perf_histogram
        *histogram; /* latency and wake: all round trips of all trials; else NULL */
};

enum perf_verdict { PERF_NO_TARGET, PERF_MET, PERF_MISSED, PERF_NOT_OBSERVED };

/* The same trials in pairs: subject ÷ baseline of one round each. Single figures (size, instructions)
 * have no baseline: `ratio` is empty then, and the target is for the subject's value. */
struct perf_comparison {
    char what[80];                  /* "throughput near 64 B, reading in place" */
    char subject[PERF_NAME_BYTES];  /* "shmq single" */
    char baseline[PERF_NAME_BYTES]; /* "ideal, cached"; "": none */
    char distance[16];
    uint32_t size;
    enum perf_unit unit;
    struct perf_spread subject_value, baseline_value, ratio;
    bool has_target, target_is_most; /* most: ≤ target, else ≥ */
    double target;                   /* of the ratio, or of the value */
    enum perf_verdict verdict;
    const char *note; /* said below the table; NULL */
};

#define PERF_WHAT_BYTES 160
/* Its name, with size and distance unless `what` says them already: "latency, 64 B, near". In plots
 * what stands before the first comma or colon is a heading above those that share it. (text.c) */
const char *perf_text_comparison(const struct perf_comparison *comparison,
                                 char text[PERF_WHAT_BYTES]);

struct perf_report {
    struct perf_machine machine;
    char title[160];     /* "round trips, 64 B, …" */
    const char *command; /* "shmq-perf latency --size 64"; NULL: not known */
    const char
        *disk; /* what was written to: "ext4 on /dev/vda, mounted on /: /var/tmp"; NULL: nothing */
    const char *threads; /* who ran on which CPUs, where it is not two that are pinned; NULL */
    const struct perf_result *results;
    uint32_t result_count;
    const struct perf_comparison *comparisons;
    uint32_t comparison_count;
    uint32_t trials_kept, trials_mixed, trials_preempted; /* how much was dropped, and why */
};

enum perf_format { PERF_TABLE, PERF_JSON, PERF_CSV };

void perf_report_print(const struct perf_report *report, enum perf_format format, FILE *file);
/* Latency: percentile curves. Others: by size where there are several, else bars; comparisons: bars of
 * ratios with their spread and a tick at the target. 0, or negative after having said why. */
int perf_plot_write(const struct perf_report *report, const char *path);
int perf_hgrm_write(const struct perf_report *report,
                    const char *path); /* one file a result with a histogram */

#endif
