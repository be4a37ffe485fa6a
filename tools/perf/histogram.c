/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histogram.c: what becomes of recorded times: percentiles, mean, maximum, the .hgrm text.
 *
 * Definitions are HdrHistogram's, to the letter, so that files and figures can be laid beside those of
 * other benchmarks: a value stands for its part of a bucket; a percentile is the highest value of the
 * part in which that share of all counts is reached; the mean takes the middle of each part.
 * Recording is in perf.h, inline. A histogram is plain memory without pointers: it may stand in
 * shared memory, where one process writes and another one reads after the trial. One thread at a time;
 * nothing blocks.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tools/outbuf.h"
#include "tools/perf/perf.h"

#define PART_COUNT (UINT64_C(1) << PERF_HISTOGRAM_PART_BITS)

struct perf_histogram *perf_histogram_new(void)
{
    return tool_alloc(sizeof(struct perf_histogram));
}

void perf_histogram_free(struct perf_histogram *histogram)
{
    free(histogram);
}

size_t perf_histogram_bytes(void)
{
    return sizeof(struct perf_histogram);
}

struct perf_histogram *perf_histogram_init(void *memory)
{
    return memset(memory, 0, sizeof(struct perf_histogram));
}

void perf_histogram_add(struct perf_histogram *to, const struct perf_histogram *from)
{
    to->clamped += from->clamped;
    for (uint32_t i = 0; i < PERF_HISTOGRAM_PARTS; i++)
        to->counts[i] += from->counts[i];
}

/* ---- Parts and the values that they stand for ------------------------------------------------ */

static unsigned shift_of(uint32_t part)
{
    uint32_t bucket = part >> PERF_HISTOGRAM_PART_BITS;

    return bucket > 0 ? bucket - 1 : 0;
}

static uint64_t lowest_of(uint32_t part)
{
    unsigned shift = shift_of(part);

    return (part - ((uint64_t)shift << PERF_HISTOGRAM_PART_BITS)) << shift;
}

static uint64_t highest_of(uint32_t part)
{
    return lowest_of(part) + (UINT64_C(1) << shift_of(part)) - 1;
}

static uint64_t middle_of(uint32_t part)
{
    return lowest_of(part) + (UINT64_C(1) << shift_of(part) >> 1);
}

uint64_t perf_histogram_count(const struct perf_histogram *histogram)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < PERF_HISTOGRAM_PARTS; i++)
        total += histogram->counts[i];
    return total;
}

uint64_t perf_histogram_max(const struct perf_histogram *histogram)
{
    for (uint32_t i = PERF_HISTOGRAM_PARTS; i > 0; i--) {
        if (histogram->counts[i - 1] > 0)
            return highest_of(i - 1);
    }
    return 0;
}

double perf_histogram_mean(const struct perf_histogram *histogram)
{
    double sum = 0;
    uint64_t total = 0;

    for (uint32_t i = 0; i < PERF_HISTOGRAM_PARTS; i++) {
        sum += (double)histogram->counts[i] * (double)middle_of(i);
        total += histogram->counts[i];
    }
    return total > 0 ? sum / (double)total : 0;
}

double perf_histogram_deviation(const struct perf_histogram *histogram)
{
    double mean = perf_histogram_mean(histogram);
    double squares = 0;
    uint64_t total = 0;

    for (uint32_t i = 0; i < PERF_HISTOGRAM_PARTS; i++) {
        double away = (double)middle_of(i) - mean;

        squares += (double)histogram->counts[i] * away * away;
        total += histogram->counts[i];
    }
    return total > 0 ? sqrt(squares / (double)total) : 0;
}

/* ---- Percentiles ----------------------------------------------------------------------------- */

/* How many of `total` must be passed. A hair less than asked for: 99.9 is not a binary number, and of
 * 1,000 values its 999th is meant, not the last. */
static uint64_t rank_of(double percentile, uint64_t total)
{
    double asked = fmin(fmax(nextafter(percentile, -INFINITY), 0), 100);

    return max_u64((uint64_t)ceil(asked * (double)total / 100), 1);
}

void perf_histogram_at_each(const struct perf_histogram *histogram, const double *percentiles,
                            uint32_t count, uint64_t *ret_values)
{
    uint64_t total = perf_histogram_count(histogram);
    uint64_t passed = 0;
    uint32_t next = 0;

    for (uint32_t i = 0; i < PERF_HISTOGRAM_PARTS && next < count; i++) {
        passed += histogram->counts[i];
        while (next < count && passed > 0 &&
               passed >= min_u64(rank_of(percentiles[next], total), total)) {
            ret_values[next] = percentiles[next] <= 0 ? lowest_of(i) : highest_of(i);
            next++;
        }
    }
    for (; next < count; next++) /* it is empty */
        ret_values[next] = 0;
}

uint64_t perf_histogram_at(const struct perf_histogram *histogram, double percentile)
{
    uint64_t value;

    perf_histogram_at_each(histogram, &percentile, 1, &value);
    return value;
}

/* ---- The text format of outputPercentileDistribution ----------------------------------------- */

#define TICKS_PER_HALF 5 /* lines until the distance to 100 % has halved */
#define NS_PER_UNIT    1000.0

/* The next level to report: ticks are of one size within each half of what is left to 100 %. */
static double next_level(double level)
{
    double halvings = floor(log2(100 / (100 - level))) + 1;

    return level + 100 / (TICKS_PER_HALF * exp2(halvings));
}

static void write_line(FILE *file, uint32_t part, double level, uint64_t passed)
{
    fprintf(file, "%12.3f %2.12f %10" PRIu64, (double)highest_of(part) / NS_PER_UNIT, level / 100,
            passed);
    if (level < 100)
        fprintf(file, " %14.2f", 1 / (1 - level / 100));
    fputc('\n', file);
}

/* A line for each level, with the part where it is reached; one for 100 % ends the list. */
static void write_levels(const struct perf_histogram *histogram, uint64_t total, FILE *file)
{
    double level = 0;
    uint64_t passed = 0;

    for (uint32_t i = 0; passed < total; i++) {
        if (histogram->counts[i] == 0)
            continue;
        passed += histogram->counts[i];
        while (level < 100 && 100 * (double)passed / (double)total >= level) {
            write_line(file, i, level, passed);
            level = passed == total ? 100 : next_level(level);
        }
        if (passed == total)
            write_line(file, i, 100, passed);
    }
}

void perf_histogram_write_hgrm(const struct perf_histogram *histogram, FILE *file)
{
    uint64_t total = perf_histogram_count(histogram);

    fprintf(file, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount",
            "1/(1-Percentile)");
    write_levels(histogram, total, file);
    fprintf(file, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n",
            perf_histogram_mean(histogram) / NS_PER_UNIT,
            perf_histogram_deviation(histogram) / NS_PER_UNIT);
    fprintf(file, "#[Max     = %12.3f, Total count    = %12" PRIu64 "]\n",
            (double)perf_histogram_max(histogram) / NS_PER_UNIT, total);
    fprintf(file, "#[Buckets = %12d, SubBuckets     = %12" PRIu64 "]\n",
            PERF_HISTOGRAM_BITS - PERF_HISTOGRAM_PART_BITS, 2 * PART_COUNT);
}
