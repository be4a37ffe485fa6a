/* SPDX-License-Identifier: Apache-2.0 */
/*
 * perf.h: reports of made-up figures, for the suites of shmq-perf's outputs.
 *
 * A made report owns its histograms; perf_made_free() frees them. One thread.
 */
#ifndef SHMQ_TEST_SUPPORT_PERF_H
#define SHMQ_TEST_SUPPORT_PERF_H

#include "tools/perf/perf.h"

#define PERF_MADE_MAX 64

struct perf_made {
    struct perf_report report;
    struct perf_result results[PERF_MADE_MAX];
    struct perf_comparison comparisons[PERF_MADE_MAX];
};

/* Empty, but for the machine. */
void perf_made_init(struct perf_made *made, const char *title);
void perf_made_free(struct perf_made *made);

struct perf_spread perf_made_spread(double median); /* nine trials, quartiles 2 % away */
/* Adds a result with this median (0: not observed); returned for whoever wants it otherwise. */
struct perf_result *perf_made_result(struct perf_made *made, const char *measure,
                                     const char *transport, uint32_t size, enum perf_unit unit,
                                     double median);
/* The same with a histogram of 1,000 times from `from_ns` up, evenly to `to_ns`. */
struct perf_result *perf_made_latency(struct perf_made *made, const char *transport, uint32_t size,
                                      uint64_t from_ns, uint64_t to_ns);
/* `target` 0: none. The ratio is subject ÷ baseline; baseline "": a figure alone. */
struct perf_comparison *perf_made_comparison(struct perf_made *made, const char *what,
                                             const char *baseline, double subject_value,
                                             double baseline_value, double target,
                                             enum perf_verdict verdict);

/* What perf_report_print() writes, NUL-terminated. The caller frees it. */
char *perf_made_print(const struct perf_made *made, enum perf_format format);

#endif
