/* SPDX-License-Identifier: Apache-2.0 */
/* shmq-perf's histogram against sorted arrays, its .hgrm against HdrHistogram's own output, and spreads. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/support/test.h"
#include "tools/perf/perf.h"

#define VALUES_MAX 4000

/* ---- An oracle ------------------------------------------------------------------------------- */

struct values {
    uint64_t sorted[VALUES_MAX];
    uint32_t count;
};

static int compare_u64(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

/* Times of several kinds: even, over all magnitudes, two heaps far apart, all the same, borders. */
static uint64_t make_value(struct test_random *random, unsigned kind)
{
    static const uint64_t BORDERS[] = {
        0, 1, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 1000000000000, PERF_HISTOGRAM_MAX_NS};

    switch (kind) {
    case 0:
        return test_random_below(random, 5000);
    case 1:
        return test_random_next(random) >> (28 + test_random_below(random, 36));
    case 2:
        return test_random_below(random, 2) ? 180 + test_random_below(random, 5)
                                            : 3000000 + test_random_below(random, 100000);
    case 3:
        return 777777;
    default:
        return BORDERS[test_random_below(random, COUNT_OF(BORDERS))];
    }
}

static void make_values(struct values *values, struct perf_histogram *histogram,
                        struct test_random *random, unsigned kind)
{
    values->count = 1 + (uint32_t)test_random_below(random, VALUES_MAX);
    (void)perf_histogram_init(histogram);
    for (uint32_t i = 0; i < values->count; i++) {
        uint64_t value = make_value(random, kind);

        perf_histogram_record(histogram, value);
        values->sorted[i] = min_u64(value, PERF_HISTOGRAM_MAX_NS);
    }
    qsort(values->sorted, values->count, sizeof(values->sorted[0]), compare_u64);
}

/* Values of 11 bits are told apart; of longer ones the lowest bits are not. */
static uint64_t width_at(uint64_t value)
{
    uint64_t width = 1;

    while (value / width >= 2048)
        width *= 2;
    return width;
}

static uint64_t highest_like(uint64_t value)
{
    return value - value % width_at(value) + width_at(value) - 1;
}

/* Of a percentile in thousandths, so that the rank is a matter of whole numbers. */
static uint64_t expected_at(const struct values *values, uint64_t thousandths)
{
    uint64_t rank = (thousandths * values->count + 99999) / 100000;

    if (thousandths == 0)
        return values->sorted[0] - values->sorted[0] % width_at(values->sorted[0]);
    return highest_like(values->sorted[max_u64(rank, 1) - 1]);
}

/* ---- Recording ------------------------------------------------------------------------------- */

TEST(a_value_comes_back_within_a_thousandth)
{
    struct perf_histogram *histogram = perf_histogram_new();
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 400; i++) {
        uint64_t value = i < 36 ? (UINT64_C(1) << i) - (i & 1) : make_value(&random, i % 5);
        uint64_t low, high;

        value = min_u64(value, PERF_HISTOGRAM_MAX_NS);
        test_context("value %" PRIu64 ": ", value);
        (void)perf_histogram_init(histogram);
        perf_histogram_record(histogram, value);
        low = perf_histogram_at(histogram, 0);
        high = perf_histogram_at(histogram, 100);
        CHECK(low <= value && value <= high);
        CHECK((high - low) * 1000 <= value);
        CHECK_EQ(high, highest_like(value));
        CHECK_EQ(perf_histogram_max(histogram), high);
        CHECK_EQ(perf_histogram_count(histogram), 1);
    }
    perf_histogram_free(histogram);
}

TEST(percentiles_are_those_of_the_sorted_values)
{
    static const uint64_t THOUSANDTHS[] = {0,     1,     1000,  25000, 50000, 75000,
                                           90000, 99000, 99900, 99990, 99999, 100000};
    struct perf_histogram *histogram = perf_histogram_new();
    CLEANUP_FREE struct values *values = malloc(sizeof(*values));
    double percentiles[COUNT_OF(THOUSANDTHS)];
    uint64_t each[COUNT_OF(THOUSANDTHS)];
    struct test_random random;

    REQUIRE(values != NULL);
    test_random_init(&random, test_seed());
    for (size_t i = 0; i < COUNT_OF(THOUSANDTHS); i++)
        percentiles[i] = (double)THOUSANDTHS[i] / 1000;
    for (unsigned round = 0; round < 60; round++) {
        make_values(values, histogram, &random, round % 5);
        perf_histogram_at_each(histogram, percentiles, COUNT_OF(percentiles), each);
        for (size_t i = 0; i < COUNT_OF(THOUSANDTHS); i++) {
            test_context("kind %u, %" PRIu32 " values, p%g: ", round % 5, values->count,
                         percentiles[i]);
            CHECK_EQ(perf_histogram_at(histogram, percentiles[i]),
                     expected_at(values, THOUSANDTHS[i]));
            CHECK_EQ(each[i], expected_at(values, THOUSANDTHS[i]));
        }
    }
    perf_histogram_free(histogram);
}

/* 99.9 of 1,000 is the 999th: percentiles that are no binary numbers must not slip to the next rank. */
TEST(a_percentile_of_whole_rank_is_that_rank)
{
    struct perf_histogram *histogram = perf_histogram_new();

    for (uint64_t i = 1; i <= 1000; i++)
        perf_histogram_record(histogram, i);
    for (uint64_t i = 1; i <= 1000; i++) {
        test_context("p%g: ", (double)i / 10);
        CHECK_EQ(perf_histogram_at(histogram, (double)i / 10), i);
    }
    perf_histogram_free(histogram);
}

static bool is_near(double got, double expected, double tolerance)
{
    return fabs(got - expected) <= tolerance;
}

TEST(count_mean_deviation_and_maximum_agree)
{
    struct perf_histogram *histogram = perf_histogram_new();
    CLEANUP_FREE struct values *values = malloc(sizeof(*values));
    struct test_random random;

    REQUIRE(values != NULL);
    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 50; round++) {
        double sum = 0, squares = 0, mean;

        make_values(values, histogram, &random, round % 5);
        for (uint32_t i = 0; i < values->count; i++)
            sum += (double)values->sorted[i];
        mean = sum / values->count;
        for (uint32_t i = 0; i < values->count; i++)
            squares += ((double)values->sorted[i] - mean) * ((double)values->sorted[i] - mean);
        test_context("kind %u: ", round % 5);
        CHECK_EQ(perf_histogram_count(histogram), values->count);
        CHECK_EQ(perf_histogram_max(histogram), highest_like(values->sorted[values->count - 1]));
        CHECK(is_near(perf_histogram_mean(histogram), mean, mean * 0.001));
        CHECK(is_near(perf_histogram_deviation(histogram), sqrt(squares / values->count),
                      (double)values->sorted[values->count - 1] * 0.001));
    }
    perf_histogram_free(histogram);
}

TEST(what_is_too_long_is_clamped_and_counted)
{
    struct perf_histogram *histogram = perf_histogram_new();

    perf_histogram_record(histogram, PERF_HISTOGRAM_MAX_NS);
    CHECK_EQ(histogram->clamped, 0);
    perf_histogram_record(histogram, PERF_HISTOGRAM_MAX_NS + 1);
    perf_histogram_record(histogram, UINT64_MAX);
    CHECK_EQ(histogram->clamped, 2);
    CHECK_EQ(perf_histogram_count(histogram), 3);
    CHECK_EQ(perf_histogram_max(histogram), PERF_HISTOGRAM_MAX_NS);
    CHECK_EQ(perf_histogram_at(histogram, 0), PERF_HISTOGRAM_MAX_NS - (1u << 25) + 1);
    (void)perf_histogram_init(histogram);
    CHECK_EQ(histogram->clamped, 0);
    CHECK_EQ(perf_histogram_count(histogram), 0);
    perf_histogram_free(histogram);
}

TEST(a_sum_of_histograms_is_the_histogram_of_all)
{
    struct perf_histogram *parts[2] = {perf_histogram_new(), perf_histogram_new()};
    struct perf_histogram *whole = perf_histogram_new();
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 5000; i++) {
        uint64_t value = i % 100 == 7 ? UINT64_MAX : make_value(&random, i % 5);

        perf_histogram_record(parts[i & 1], value);
        perf_histogram_record(whole, value);
    }
    perf_histogram_add(parts[0], parts[1]);
    CHECK(memcmp(parts[0], whole, perf_histogram_bytes()) == 0);
    CHECK_EQ(perf_histogram_count(parts[0]), 5000);
    perf_histogram_free(parts[0]);
    perf_histogram_free(parts[1]);
    perf_histogram_free(whole);
}

TEST(an_empty_one_is_all_zero)
{
    struct perf_histogram *histogram = perf_histogram_new();
    const double percentiles[] = {0, 50, 100};
    uint64_t values[] = {7, 7, 7};

    CHECK_EQ(perf_histogram_count(histogram), 0);
    CHECK_EQ(perf_histogram_max(histogram), 0);
    CHECK(perf_histogram_mean(histogram) == 0);
    CHECK(perf_histogram_deviation(histogram) == 0);
    perf_histogram_at_each(histogram, percentiles, 3, values);
    for (size_t i = 0; i < COUNT_OF(values); i++)
        CHECK_EQ(values[i], 0);
    perf_histogram_free(histogram);
}

static void record_elsewhere(void *memory)
{
    for (uint64_t i = 1; i <= 100; i++)
        perf_histogram_record(memory, i * 1000);
}

TEST(another_process_may_record)
{
    void *memory = test_shared(perf_histogram_bytes());
    struct perf_histogram *histogram;

    memset(memory, 0x55, perf_histogram_bytes());
    histogram = perf_histogram_init(memory);
    CHECK(histogram == memory);
    CHECK_INT_EQ(test_wait_exit(test_spawn(record_elsewhere, memory), 5000), 0);
    CHECK_EQ(perf_histogram_count(histogram), 100);
    CHECK_EQ(perf_histogram_at(histogram, 50), highest_like(50000));
}

/* ---- .hgrm ----------------------------------------------------------------------------------- */

/* The caller frees it. */
static void write_hgrm(const struct perf_histogram *histogram, char **ret_text)
{
    size_t length = 0;
    FILE *file = open_memstream(ret_text, &length);

    REQUIRE(file != NULL);
    perf_histogram_write_hgrm(histogram, file);
    fclose(file);
}

/* By HdrHistogram 2.1 (Java), new Histogram(1, 2^36 - 1, 3), outputPercentileDistribution(out, 5, 1000.0). */
static const char REFERENCE[] = "       Value     Percentile TotalCount 1/(1-Percentile)\n"
                                "\n"
                                "       0.100 0.000000000000          1           1.00\n"
                                "       0.180 0.100000000000         92           1.11\n"
                                "       0.180 0.200000000000         92           1.25\n"
                                "       0.180 0.300000000000         92           1.43\n"
                                "       0.180 0.400000000000         92           1.67\n"
                                "       0.180 0.500000000000         92           2.00\n"
                                "       0.180 0.550000000000         92           2.22\n"
                                "       0.180 0.600000000000         92           2.50\n"
                                "       0.180 0.650000000000         92           2.86\n"
                                "       0.180 0.700000000000         92           3.33\n"
                                "       0.180 0.750000000000         92           4.00\n"
                                "       0.180 0.775000000000         92           4.44\n"
                                "       0.180 0.800000000000         92           5.00\n"
                                "       0.180 0.825000000000         92           5.71\n"
                                "       0.180 0.850000000000         92           6.67\n"
                                "       0.180 0.875000000000         92           8.00\n"
                                "       0.180 0.887500000000         92           8.89\n"
                                "       0.180 0.900000000000         92          10.00\n"
                                "       0.200 0.912500000000         93          11.43\n"
                                "       0.250 0.925000000000         94          13.33\n"
                                "       0.300 0.937500000000         95          16.00\n"
                                "       0.350 0.943750000000         96          17.78\n"
                                "       0.350 0.950000000000         96          20.00\n"
                                "       0.400 0.956250000000         97          22.86\n"
                                "       0.450 0.962500000000         98          26.67\n"
                                "       0.450 0.968750000000         98          32.00\n"
                                "       0.500 0.971875000000         99          35.56\n"
                                "       0.500 0.975000000000         99          40.00\n"
                                "       0.500 0.978125000000         99          45.71\n"
                                "       5.003 0.981250000000        100          53.33\n"
                                "       5.003 0.984375000000        100          64.00\n"
                                "       5.003 0.985937500000        100          71.11\n"
                                "       5.003 0.987500000000        100          80.00\n"
                                "       5.003 0.989062500000        100          91.43\n"
                                "    3000.319 0.990625000000        101         106.67\n"
                                "    3000.319 1.000000000000        101\n"
                                "#[Mean    =       29.933, StdDeviation   =      296.937]\n"
                                "#[Max     =     3000.319, Total count    =          101]\n"
                                "#[Buckets =           26, SubBuckets     =         2048]\n";

TEST(hgrm_is_what_hdrhistogram_writes)
{
    static const uint64_t VALUES[] = {100, 150, 200, 250, 300, 350, 400, 450, 500, 5000, 3000000};
    struct perf_histogram *histogram = perf_histogram_new();
    char *text;

    for (size_t i = 0; i < COUNT_OF(VALUES); i++)
        perf_histogram_record(histogram, VALUES[i]);
    for (unsigned i = 0; i < 90; i++)
        perf_histogram_record(histogram, 180);
    write_hgrm(histogram, &text);
    CHECK_STR_EQ(text, REFERENCE);
    free(text);
    perf_histogram_free(histogram);
}

TEST(hgrm_of_nothing_has_head_and_foot)
{
    struct perf_histogram *histogram = perf_histogram_new();
    char *text;

    write_hgrm(histogram, &text);
    CHECK_STR_EQ(text, "       Value     Percentile TotalCount 1/(1-Percentile)\n\n"
                       "#[Mean    =        0.000, StdDeviation   =        0.000]\n"
                       "#[Max     =        0.000, Total count    =            0]\n"
                       "#[Buckets =           26, SubBuckets     =         2048]\n");
    free(text);
    perf_histogram_free(histogram);
}

static uint32_t count_up_to(const struct values *values, uint64_t limit)
{
    uint32_t count = 0;

    while (count < values->count && values->sorted[count] <= limit)
        count++;
    return count;
}

/* Each line says: so many values are at most this one, and they are at least that share of all. */
static void check_lines(const char *text, const struct values *values)
{
    double last_share = -1;
    double last_value = 0;
    const char *line = strstr(text, "\n\n") + 2;

    for (; *line != '#'; line = strchr(line, '\n') + 1) {
        double value, share, inverse = 0;
        uint64_t count;
        int fields = sscanf(line, "%lf %lf %" SCNu64 "%*[ ]%lf", &value, &share, &count, &inverse);
        uint64_t value_ns = (uint64_t)llround(value * 1000);

        CHECK_INT_EQ(fields, share < 1 ? 4 : 3);
        CHECK(share > last_share);
        CHECK(value >= last_value);
        CHECK_EQ(count, count_up_to(values, value_ns));
        CHECK((double)count / values->count >= share - 1e-11);
        /* The one before it would not do. */
        CHECK(value_ns == highest_like(values->sorted[0]) ||
              count_up_to(values, value_ns - width_at(value_ns)) < ceil(share * values->count));
        if (fields == 4)
            CHECK(is_near(inverse, 1 / (1 - share), 0.0051 + 1e-9 * inverse * inverse));
        last_share = share;
        last_value = value;
    }
    CHECK(last_share == 1);
    CHECK_EQ((uint64_t)llround(last_value * 1000), highest_like(values->sorted[values->count - 1]));
}

TEST(lines_of_hgrm_say_what_they_mean)
{
    struct perf_histogram *histogram = perf_histogram_new();
    CLEANUP_FREE struct values *values = malloc(sizeof(*values));
    struct test_random random;

    REQUIRE(values != NULL);
    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 25; round++) {
        char *text;

        make_values(values, histogram, &random, round % 5);
        write_hgrm(histogram, &text);
        test_context("kind %u, %" PRIu32 " values: ", round % 5, values->count);
        check_lines(text, values);
        free(text);
    }
    perf_histogram_free(histogram);
}

/* ---- Spreads --------------------------------------------------------------------------------- */

TEST(quartiles_are_of_type_7)
{
    const double four[] = {4, 1, 3, 2};
    const double seven[] = {70, 10, 60, 20, 50, 30, 40};
    struct perf_spread spread = perf_spread_of(four, 4);

    CHECK(spread.low == 1.75 && spread.median == 2.5 && spread.high == 3.25);
    CHECK(spread.min == 1 && spread.max == 4);
    CHECK_EQ(spread.count, 4);
    CHECK(four[0] == 4); /* they stay in their order */
    spread = perf_spread_of(seven, 7);
    CHECK(spread.low == 25 && spread.median == 40 && spread.high == 55);
}

TEST(spreads_of_one_and_of_none)
{
    const double values[] = {42, NAN, INFINITY, -INFINITY};
    struct perf_spread spread = perf_spread_of(values, 1);

    CHECK(spread.min == 42 && spread.low == 42 && spread.median == 42 && spread.high == 42 &&
          spread.max == 42);
    CHECK_EQ(perf_spread_of(NULL, 0).count, 0);
    CHECK_EQ(perf_spread_of(values + 1, 3).count, 0);
    spread = perf_spread_of(values, 4); /* what is not finite does not count */
    CHECK_EQ(spread.count, 1);
    CHECK(spread.median == 42);
}

TEST_MAIN("perf_histogram", T(a_value_comes_back_within_a_thousandth),
          T(percentiles_are_those_of_the_sorted_values), T(a_percentile_of_whole_rank_is_that_rank),
          T(count_mean_deviation_and_maximum_agree), T(what_is_too_long_is_clamped_and_counted),
          T(a_sum_of_histograms_is_the_histogram_of_all), T(an_empty_one_is_all_zero),
          T(another_process_may_record), T(hgrm_is_what_hdrhistogram_writes),
          T(hgrm_of_nothing_has_head_and_foot), T(lines_of_hgrm_say_what_they_mean),
          T(quartiles_are_of_type_7), T(spreads_of_one_and_of_none))
