/* SPDX-License-Identifier: Apache-2.0 */
/* Figures in words, as shmq-perf's tables and plots have them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "test/support/test.h"
#include "tools/perf/perf.h"

TEST(values_have_three_digits_and_a_unit_that_fits)
{
    static const struct {
        double value;
        enum perf_unit unit;
        const char *text;
    } CASES[] = {
        {0, PERF_NS, "0 ns"},
        {1.234, PERF_NS, "1.23 ns"},
        {45, PERF_NS, "45.0 ns"},
        {183.4, PERF_NS, "183 ns"},
        {999.4, PERF_NS, "999 ns"},
        {999.6, PERF_NS, "1.00 µs"}, /* not "1000 ns" */
        {1240, PERF_NS, "1.24 µs"},
        {9996, PERF_NS, "10.0 µs"}, /* not "10.00 µs" */
        {99960, PERF_NS, "100 µs"},
        {3.5e6, PERF_NS, "3.50 ms"},
        {68e9, PERF_NS, "68.0 s"},
        {512, PERF_MESSAGES_PER_S, "512/s"},
        {58.3e6, PERF_MESSAGES_PER_S, "58.3 M/s"},
        {1e12, PERF_OPERATIONS_PER_S, "1000 G/s"},
        {1e300, PERF_NS, "1.00e+291 s"},
        {3.73e9, PERF_BYTES_PER_S, "3.73 GB/s"},
        {57, PERF_COUNT, "57"},
        {57.25, PERF_COUNT, "57.2"},
        {0.5, PERF_COUNT, "0.50"},
        {1234567, PERF_COUNT, "1.23 M"},
        {64, PERF_BYTES, "64 B"},
        {1536, PERF_BYTES, "1.50 KiB"},
        {4194304, PERF_BYTES, "4.00 MiB"},
        {-1, PERF_NS, "-"},
        {NAN, PERF_NS, "-"},
        {INFINITY, PERF_BYTES, "-"},
    };
    char text[PERF_TEXT_BYTES];

    for (size_t i = 0; i < COUNT_OF(CASES); i++)
        CHECK_STR_EQ(perf_text_value(CASES[i].value, CASES[i].unit, text), CASES[i].text);
}

TEST(ranges_ratios_sizes_and_ticks)
{
    char text[PERF_TEXT_BYTES];

    CHECK_STR_EQ(perf_text_range(57.11e6, 59e6, PERF_MESSAGES_PER_S, text), "57.1–59.0 M/s");
    CHECK_STR_EQ(perf_text_range(181, 190, PERF_NS, text), "181–190 ns");
    CHECK_STR_EQ(perf_text_range(300, 1500, PERF_NS, text), "300 ns–1.50 µs");
    CHECK_STR_EQ(perf_text_range(NAN, 1500, PERF_NS, text), "-");
    CHECK_STR_EQ(perf_text_range(1e299, 1e300, PERF_NS, text), "1.00e+290 s–1.00e+291 s");
    CHECK_STR_EQ(perf_text_ratio(2.306, text), "2.31");
    CHECK_STR_EQ(perf_text_ratio(0.4, text), "0.40");
    CHECK_STR_EQ(perf_text_ratio(12.34, text), "12.3");
    CHECK_STR_EQ(perf_text_ratio(123.4, text), "123");
    CHECK_STR_EQ(perf_text_ratio(0.0512, text), "0.051");
    CHECK_STR_EQ(perf_text_ratio(0.00512, text), "0.0051");
    CHECK_STR_EQ(perf_text_ratio(1.5e7, text), "1.5e+07");
    CHECK_STR_EQ(perf_text_ratio(0, text), "0");
    CHECK_STR_EQ(perf_text_ratio(NAN, text), "-");
    CHECK_STR_EQ(perf_text_size(0, text), "");
    CHECK_STR_EQ(perf_text_size(64, text), "64 B");
    CHECK_STR_EQ(perf_text_size(1023, text), "1023 B");
    CHECK_STR_EQ(perf_text_size(4096, text), "4 KiB");
    CHECK_STR_EQ(perf_text_size(1500, text), "1.465 KiB");
    CHECK_STR_EQ(perf_text_size(UINT64_C(1) << 30, text), "1 GiB");
    CHECK_STR_EQ(perf_text_round(1000, PERF_NS, text), "1 µs");
    CHECK_STR_EQ(perf_text_round(2e6, PERF_MESSAGES_PER_S, text), "2 M/s");
    CHECK_STR_EQ(perf_text_percentile(99.99, text), "99.99");
    CHECK_STR_EQ(perf_text_percentile(99.99999, text), "99.99999");
}

TEST(comparisons_say_size_and_distance_once)
{
    struct perf_comparison comparison = {.what = "latency", .distance = "near", .size = 64};
    char text[PERF_WHAT_BYTES];

    CHECK_STR_EQ(perf_text_comparison(&comparison, text), "latency, 64 B, near");
    strcpy(comparison.what, "latency near, p99");
    CHECK_STR_EQ(perf_text_comparison(&comparison, text), "latency near, p99, 64 B");
    strcpy(comparison.what, "throughput near 64 B, copying out");
    CHECK_STR_EQ(perf_text_comparison(&comparison, text), comparison.what);
    comparison = (struct perf_comparison){.what = "instructions"};
    CHECK_STR_EQ(perf_text_comparison(&comparison, text), "instructions");
}

TEST_MAIN("perf_text", T(values_have_three_digits_and_a_unit_that_fits),
          T(ranges_ratios_sizes_and_ticks), T(comparisons_say_size_and_distance_once))
