/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spread.c: the figures of several trials as one: median, quartiles, extremes.
 *
 * Medians and quartiles, not means and deviations: a trial that something disturbed is far off, and must
 * not move the rest. Pure but for memory; one thread.
 */
#include <math.h>

#include "tools/outbuf.h"
#include "tools/perf/perf.h"

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;

    return (a > b) - (a < b);
}

/* `share` of the way from the first to the last of the sorted values, between two of them by weight. */
static double value_at(const double *sorted, uint32_t count, double share)
{
    double place = share * (count - 1);
    uint32_t below = (uint32_t)place;
    uint32_t above = min_u32(below + 1, count - 1);

    return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

struct perf_spread perf_spread_of(const double *values, uint32_t count)
{
    CLEANUP_FREE double *sorted = tool_alloc(count * sizeof(*sorted));
    struct perf_spread spread = {0};

    for (uint32_t i = 0; i < count; i++) {
        if (isfinite(values[i]))
            sorted[spread.count++] = values[i];
    }
    if (spread.count == 0)
        return spread;
    qsort(sorted, spread.count, sizeof(*sorted), compare_doubles);
    spread.min = sorted[0];
    spread.low = value_at(sorted, spread.count, 0.25);
    spread.median = value_at(sorted, spread.count, 0.5);
    spread.high = value_at(sorted, spread.count, 0.75);
    spread.max = sorted[spread.count - 1];
    return spread;
}
