/* SPDX-License-Identifier: Apache-2.0 */
/*
 * filing.h: where the figures of trials go: distance classes, one ledger a contender, pairs
 * of the same round, how long the next trial should be, when there are enough.
 *
 * Pure: memory in, figures out. A ledger lies in memory that the driver and the process that asks
 * share; the driver alone writes it, and nobody reads before the driver has said that it is done.
 */
#ifndef SHMQ_TOOLS_PERF_FILING_H
#define SHMQ_TOOLS_PERF_FILING_H

#include "tools/perf/perf.h"

/* How far apart two cores are now, by the time that a line takes from one to the other. */
enum perf_class {
    PERF_NEAR,
    PERF_FAR,
    PERF_FARTHER,
    PERF_SAME_CPU, /* both processes on one: there is no distance */
    PERF_CLASSES,
    PERF_ANY_CLASS = PERF_CLASSES, /* of spreads and ratios: all of them together */
};

#define PERF_NEAR_BELOW_NS    90
#define PERF_FARTHER_ABOVE_NS 250

struct perf_thresholds {
    double near_below_ns, farther_above_ns;
};

const char *perf_class_name(enum perf_class distance);
enum perf_class perf_class_of(double one_way_ns, struct perf_thresholds thresholds);

/* What one trial says. */
enum perf_figure {
    PERF_MAIN, /* messages or operations a second; latency: the median round trip, ns; idle: wake-ups a second */
    PERF_P99,  /* latency, ns */
    PERF_MEAN, /* latency, ns */
    PERF_FIGURES,
};

struct perf_sample {
    uint32_t round;
    uint32_t distance; /* enum perf_class */
    double figures[PERF_FIGURES];
};

#define PERF_SAMPLES_MAX 4096u

struct perf_ledger {
    uint32_t count;
    uint32_t kept, mixed, preempted; /* trials */
    uint64_t messages;               /* of those that were kept */
    struct perf_sample samples[PERF_SAMPLES_MAX];
};

/* False when the ledger is full. */
bool perf_ledger_add(struct perf_ledger *ledger, const struct perf_sample *sample);

/* Trials of one class. */
uint32_t perf_ledger_count(const struct perf_ledger *ledger, enum perf_class distance);
struct perf_spread perf_ledger_spread(const struct perf_ledger *ledger, enum perf_class distance,
                                      enum perf_figure figure);

/* subject ÷ baseline, of the rounds in which both were kept, in the same class. */
struct perf_spread perf_ledger_ratio(const struct perf_ledger *subject,
                                     const struct perf_ledger *baseline, enum perf_class distance,
                                     enum perf_figure figure);

/* Every class that showed up has `rounds` trials of every contender, and one class did show up. */
bool perf_ledger_enough(const struct perf_ledger *ledgers, uint32_t count, uint32_t rounds);

/* So many messages should the next trial have, to last `target_ns`, when `count` took `elapsed_ns`:
 * never more than eight times as many, because the first ones are slow, and within the bounds. */
uint64_t perf_next_count(uint64_t count, double elapsed_ns, double target_ns, uint64_t least,
                         uint64_t most);

/* The value with `rank` (from 0) in order of size; rearranges them. `count` is not 0. */
uint32_t perf_select(uint32_t *values, uint32_t count, uint32_t rank);

/* The quantile (0.5: median) of values that a clock with steps of `quantum` measured. Of many values
 * on one step, those around the rank lie, evenly spread, in the step around it: so it is found more
 * finely than the clock can tell two moments apart. Rearranges them; `count` is not 0. */
double perf_quantile(uint32_t *values, uint32_t count, double fraction, double quantum);

#endif
