/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What shmq-perf's engine is made of: where trials are filed, what is paired with what, how long trials are,
 * bodies, and who is refused. No process is started.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test/support/test.h"
#include "tools/perf/transport.h"

static const struct perf_thresholds THRESHOLDS = {PERF_NEAR_BELOW_NS, PERF_FARTHER_ABOVE_NS};

/* ---- Filing ---------------------------------------------------------------------------------- */

TEST(classes_are_by_threshold)
{
    CHECK_EQ(perf_class_of(0, THRESHOLDS), PERF_NEAR);
    CHECK_EQ(perf_class_of(89.9, THRESHOLDS), PERF_NEAR);
    CHECK_EQ(perf_class_of(90, THRESHOLDS), PERF_FAR);
    CHECK_EQ(perf_class_of(PERF_FARTHER_ABOVE_NS, THRESHOLDS), PERF_FAR);
    CHECK_EQ(perf_class_of(PERF_FARTHER_ABOVE_NS + 1, THRESHOLDS), PERF_FARTHER);
    CHECK_STR_EQ(perf_class_name(PERF_NEAR), "near");
    CHECK_STR_EQ(perf_class_name(PERF_FARTHER), "farther");
    CHECK_STR_EQ(perf_class_name(PERF_ANY_CLASS), "");
}

static struct perf_ledger *new_ledger(void)
{
    return calloc(1, sizeof(struct perf_ledger));
}

static void add(struct perf_ledger *ledger, uint32_t round, enum perf_class distance, double value)
{
    struct perf_sample sample = {
        .round = round, .distance = distance, .figures = {value, value * 2}};

    CHECK(perf_ledger_add(ledger, &sample));
}

static bool is_about(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

TEST(ratios_are_of_one_round_and_one_class)
{
    struct perf_ledger *s = new_ledger();
    struct perf_ledger *b = new_ledger();
    struct perf_spread ratio;

    add(s, 0, PERF_NEAR, 10); /* ÷ 5 */
    add(b, 0, PERF_NEAR, 5);
    add(s, 1, PERF_NEAR, 10); /* its rival was dropped */
    add(s, 2, PERF_NEAR, 10); /* its rival was far */
    add(b, 2, PERF_FAR, 1);
    add(b, 3, PERF_NEAR, 7); /* it was dropped */
    add(s, 4, PERF_FAR, 12); /* ÷ 4, far */
    add(b, 4, PERF_FAR, 4);
    add(s, 5, PERF_NEAR, 40); /* ÷ 10 */
    add(b, 5, PERF_NEAR, 10);
    ratio = perf_ledger_ratio(s, b, PERF_NEAR, PERF_MAIN);
    CHECK_EQ(ratio.count, 2);
    CHECK(is_about(ratio.median, 3));
    CHECK(is_about(ratio.min, 2));
    CHECK(is_about(ratio.max, 4));
    ratio = perf_ledger_ratio(s, b, PERF_FAR, PERF_P99);
    CHECK_EQ(ratio.count, 1);
    CHECK(is_about(ratio.median, 3));
    CHECK_EQ(perf_ledger_ratio(s, b, PERF_FARTHER, PERF_MAIN).count, 0);
    CHECK_EQ(perf_ledger_ratio(s, b, PERF_ANY_CLASS, PERF_MAIN).count, 3);
    CHECK_EQ(perf_ledger_spread(s, PERF_NEAR, PERF_MAIN).count, 4);
    CHECK_EQ(perf_ledger_spread(s, PERF_ANY_CLASS, PERF_MAIN).count, 5);
    free(s);
    free(b);
}

TEST(a_baseline_of_zero_makes_no_ratio)
{
    struct perf_ledger *s = new_ledger();
    struct perf_ledger *b = new_ledger();

    add(s, 0, PERF_NEAR, 10);
    add(b, 0, PERF_NEAR, 0);
    CHECK_EQ(perf_ledger_ratio(s, b, PERF_NEAR, PERF_MAIN).count, 0);
    free(s);
    free(b);
}

TEST(a_full_ledger_says_so)
{
    struct perf_ledger *ledger = new_ledger();
    struct perf_sample sample = {0};

    for (uint32_t i = 0; i < PERF_SAMPLES_MAX; i++)
        add(ledger, i, PERF_NEAR, 1);
    CHECK(!perf_ledger_add(ledger, &sample));
    CHECK_EQ(ledger->kept, PERF_SAMPLES_MAX);
    free(ledger);
}

TEST(enough_is_enough_in_every_class_that_showed_up)
{
    struct perf_ledger *two = calloc(2, sizeof(*two));

    CHECK(!perf_ledger_enough(two, 2, 1)); /* none showed up */
    for (uint32_t round = 0; round < 3; round++) {
        add(&two[0], round, PERF_NEAR, 1);
        add(&two[1], round, PERF_NEAR, 1);
    }
    CHECK(perf_ledger_enough(two, 2, 3));
    CHECK(!perf_ledger_enough(two, 2, 4));
    add(&two[0], 3, PERF_FAR, 1);
    CHECK(!perf_ledger_enough(two, 2, 3));
    for (uint32_t round = 4; round < 7; round++) {
        add(&two[0], round, PERF_FAR, 1);
        add(&two[1], round, PERF_FAR, 1);
    }
    CHECK(perf_ledger_enough(two, 2, 3));
    free(two);
}

/* ---- Lengths and quantiles ------------------------------------------------------------------- */

TEST(the_next_trial_is_as_long_as_it_should_be)
{
    CHECK_EQ(perf_next_count(1000, 1e6, 7e6, 16, 1000000), 7000);
    CHECK_EQ(perf_next_count(1000, 14e6, 7e6, 16, 1000000), 500);
    CHECK_EQ(perf_next_count(1000, 1, 7e6, 16, 1000000), 8000); /* not at once by 7 million */
    CHECK_EQ(perf_next_count(1000, 0, 7e6, 16, 1000000), 8000);
    CHECK_EQ(perf_next_count(1000, 1e12, 7e6, 16, 1000000), 16);
    CHECK_EQ(perf_next_count(1000000, 1e6, 7e6, 16, 1000000), 1000000);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

TEST(selecting_is_as_sorting)
{
    struct test_random random;
    uint32_t sorted[200], values[200];

    test_random_init(&random, test_seed());
    for (uint32_t run = 0; run < 500; run++) {
        uint32_t count = 1 + (uint32_t)test_random_below(&random, COUNT_OF(values));
        uint32_t range = 1 + (uint32_t)test_random_below(&random, run % 2 ? 5 : 1000000);
        uint32_t rank = (uint32_t)test_random_below(&random, count);

        for (uint32_t i = 0; i < count; i++)
            sorted[i] = values[i] = (uint32_t)test_random_below(&random, range);
        qsort(sorted, count, sizeof(sorted[0]), compare_u32);
        CHECK_EQ(perf_select(values, count, rank), sorted[rank]);
        qsort(values, count, sizeof(values[0]), compare_u32);
        CHECK(memcmp(values, sorted, count * sizeof(values[0])) == 0);
    }
}

/* A clock of steps of 26 ticks that measures times spread around 400: what no single reading can tell,
 * many can. */
TEST(quantiles_are_finer_than_the_clock)
{
    struct test_random random;
    static uint32_t coarse[100000];
    double median;

    test_random_init(&random, test_seed());
    for (uint32_t i = 0; i < COUNT_OF(coarse); i++) {
        uint64_t begin = test_random_below(&random, 26 * 1000);
        uint64_t end = begin + 390 + test_random_below(&random, 21);

        coarse[i] = (uint32_t)(end / 26 * 26 - begin / 26 * 26);
    }
    median = perf_quantile(coarse, COUNT_OF(coarse), 0.5, 26);
    CHECK(median > 396 && median < 404);
}

TEST(quantiles_of_few_values)
{
    uint32_t one[] = {7};
    uint32_t some[] = {3, 1, 2};

    CHECK(is_about(perf_quantile(one, 1, 0.99, 1), 7));
    CHECK(is_about(perf_quantile(some, 3, 0.5, 1), 2));
    CHECK(is_about(perf_quantile(some, 3, 1.0, 1), 3));
}

/* ---- Bodies ---------------------------------------------------------------------------------- */

static void check_source(uint32_t size, uint32_t batch)
{
    struct perf_setup setup = {.size = size, .batch = batch};
    struct perf_source source;
    const void *bodies[256];

    perf_source_init(&source, &setup, 3);
    for (uint64_t first = 0; first < 1000; first += batch) {
        for (uint32_t i = 0; i < batch; i++)
            bodies[i] = perf_source_next(&source);
        /* All of a batch stay as they are until it is sent. */
        for (uint32_t i = 0; i < batch; i++)
            CHECK_EQ(perf_body_word(bodies[i]), (UINT64_C(3) << PERF_TAG_SHIFT) + first + i);
    }
    perf_source_deinit(&source);
}

TEST(bodies_have_their_number_in_them)
{
    check_source(8, 1);
    check_source(64, 1);
    check_source(64, 32);
    check_source(100, 256);
    check_source(65536, 1);
    check_source(65536, 8);
}

TEST(touching_reads_every_byte)
{
    unsigned char body[101];

    for (uint32_t size = 8; size <= sizeof(body); size++) {
        memset(body, 0, sizeof(body));
        for (uint32_t i = 0; i < size; i++) {
            body[i] = 1;
            CHECK(perf_touch(body, size) != 0);
            body[i] = 0;
        }
        body[sizeof(body) - 1] = 1; /* and no more */
        CHECK(size == sizeof(body) || perf_touch(body, size) == 0);
    }
}

/* ---- Who may do what ------------------------------------------------------------------------- */

static void check_refused(const char *way, struct perf_setup setup, const char *part)
{
    struct perf_contender contender = {.way = perf_way_find(way), .setup = setup};
    struct error_buffer why = {.text = ""};

    REQUIRE(contender.way);
    CHECK(perf_contender_check(&contender, &why) < 0);
    CHECK_CONTAINS(why.text, part);
}

TEST(what_cannot_be_is_refused_with_a_reason)
{
    check_refused("pipe", (struct perf_setup){.kind = PERF_LATENCY, .size = 7}, "7 bytes");
    check_refused("pipe", (struct perf_setup){.kind = PERF_FREE, .size = 64}, "producers alone");
    check_refused("ideal", (struct perf_setup){.wait = PERF_BLOCK, .size = 64}, "wait");
    check_refused("ideal",
                  (struct perf_setup){.kind = PERF_THROUGHPUT, .wait = PERF_SPIN, .producers = 2},
                  "1 producer");
    check_refused("ideal-chase",
                  (struct perf_setup){.kind = PERF_THROUGHPUT, .wait = PERF_SPIN, .consumers = 2},
                  "1 group");
    check_refused(
        "pipe", (struct perf_setup){.kind = PERF_THROUGHPUT, .size = 8192, .producers = 2}, "mix");
    check_refused("mqueue", (struct perf_setup){.size = 1u << 30}, "msgsize_max");
    check_refused("unix", (struct perf_setup){.size = 1u << 30}, "wmem_max");
    check_refused("shmq", (struct perf_setup){.size = 65536, .ring_bytes = 65536}, "--ring");
    CHECK(!perf_way_find("carrier-pigeon"));
}

TEST_MAIN("perf_filing", T(classes_are_by_threshold), T(ratios_are_of_one_round_and_one_class),
          T(a_baseline_of_zero_makes_no_ratio), T(a_full_ledger_says_so),
          T(enough_is_enough_in_every_class_that_showed_up),
          T(the_next_trial_is_as_long_as_it_should_be), T(selecting_is_as_sorting),
          T(quantiles_are_finer_than_the_clock), T(quantiles_of_few_values),
          T(bodies_have_their_number_in_them), T(touching_reads_every_byte),
          T(what_cannot_be_is_refused_with_a_reason))
