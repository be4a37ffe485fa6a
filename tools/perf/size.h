/* SPDX-License-Identifier: Apache-2.0 */
/*
 * size.h: what shmq costs when it does nothing: memory, text, start-up, opening, creating.
 *
 * Starts the shmqd beside this program, or the one on PATH, several times, each on a bus, runtime and state
 * directory of its own (place.h). One thread; takes some ten seconds, and ends early at a signal.
 */
#ifndef SHMQ_PERF_SIZE_H
#define SHMQ_PERF_SIZE_H

#include "tools/perf/perf.h"

#define PERF_SIZE_ROWS 14

/* Fills in up to `max` rows and returns their number. What cannot be measured is PERF_NOT_OBSERVED, and
 * its note says why. Texts of the rows are static. */
int perf_size_measure(struct perf_comparison *rows, uint32_t max);

#endif
