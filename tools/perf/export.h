/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.h: a report as JSON and as CSV, and what these have in common with the table. For
 * report.c; the rest of the program calls perf_report_print().
 */
#ifndef SHMQ_PERF_EXPORT_H
#define SHMQ_PERF_EXPORT_H

#include "tools/perf/perf.h"

#define PERF_PERCENTILE_COUNT 5

/* Those of latencies that every report has: 50 to 99.99. */
extern const double PERF_PERCENTILES[PERF_PERCENTILE_COUNT];

/* "" without a target, "met", "missed", "not observed". */
const char *perf_verdict_name(enum perf_verdict verdict);

/* One document with everything; numbers are numbers, what is not known is null. */
void perf_export_json(const struct perf_report *report, FILE *file);

/* RFC 4180: a header, then a line for each result and each comparison; what does not apply is empty. */
void perf_export_csv(const struct perf_report *report, FILE *file);

#endif
