/* SPDX-License-Identifier: Apache-2.0 */
/*
 * axis.h: from values to pixels, with ticks at numbers that people like: 1, 2, 5, 10.
 *
 * Any range makes an axis: one value, none, all equal, or nine decades. Pure; any thread.
 */
#ifndef SHMQ_PERF_AXIS_H
#define SHMQ_PERF_AXIS_H

#include <stdbool.h>
#include <stdint.h>

#define AXIS_TICKS_MAX 64

struct axis {
    double low, high; /* values at its ends */
    double from_px, to_px;
    bool is_log;
};

/* Logarithmic, from the smallest to the largest of the values that are given, and a little beyond;
 * what cannot stand on one (zero, negative, not finite) is passed over. Pixels are set by the caller. */
void axis_begin_log(struct axis *axis);
void axis_include(struct axis *axis, double value);
/* `least_span`: how many times the low end the high end is at least. */
void axis_end(struct axis *axis, double least_span);

/* Linear, from 0 to a round number above `high`. */
void axis_make_linear(struct axis *axis, double high);

/* Of a value beyond an end, or one without a place: that end. */
double axis_place(const struct axis *axis, double value);

/* Ascending, at most `most` (up to AXIS_TICKS_MAX); returns how many. */
uint32_t axis_ticks(const struct axis *axis, uint32_t most, double ret_ticks[AXIS_TICKS_MAX]);

#endif
