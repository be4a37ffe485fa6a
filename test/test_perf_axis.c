/* SPDX-License-Identifier: Apache-2.0 */
/* What shmq-perf's plots stand on: axes and their ticks, labels that make room, text that is cut. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/support/test.h"
#include "tools/perf/plot.h"

static bool is_near(double a, double b)
{
    return fabs(a - b) < 0.25;
}

/* ---- Axes ------------------------------------------------------------------------------------ */

static void check_axis(const struct axis *axis, uint32_t most)
{
    double ticks[AXIS_TICKS_MAX];
    uint32_t count = axis_ticks(axis, most, ticks);

    CHECK(axis->low < axis->high && isfinite(axis->low) && isfinite(axis->high));
    CHECK(count <= most);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(ticks[i] >= axis->low * (1 - 1e-6) && ticks[i] <= axis->high * (1 + 1e-6));
        CHECK(i == 0 || ticks[i] > ticks[i - 1]);
    }
}

TEST(every_range_makes_an_axis_with_ticks)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 3000; round++) {
        double low = pow(10, (double)test_random_below(&random, 1800) / 100 - 12);
        double high = low * pow(10, (double)test_random_below(&random, 1200) / 100);
        struct axis axis;
        double ticks[AXIS_TICKS_MAX];

        axis_begin_log(&axis);
        axis_include(&axis, high);
        axis_include(&axis, low);
        axis_end(&axis, 1.5);
        test_context("%g to %g: ", low, high);
        check_axis(&axis, 5 + round % 10);
        CHECK(axis.low < low && axis.high > high); /* nothing lies on the frame */
        CHECK(axis_ticks(&axis, 8, ticks) >= 2);
        axis_make_linear(&axis, high);
        check_axis(&axis, 5 + round % 10);
        CHECK(axis.high >= high * (1 - 1e-6) && axis.high <= high * 1.5);
    }
}

TEST(ticks_are_numbers_that_people_like)
{
    struct axis axis = {.low = 90, .high = 1100, .is_log = true};
    double ticks[AXIS_TICKS_MAX];

    CHECK_EQ(axis_ticks(&axis, 5, ticks), 4);
    CHECK(is_near(ticks[0], 100) && is_near(ticks[1], 200) && is_near(ticks[2], 500) &&
          is_near(ticks[3], 1000));
    axis_make_linear(&axis, 61e6);
    CHECK(axis.high == 70e6);
    CHECK_EQ(axis_ticks(&axis, 5, ticks), 4);
    CHECK(ticks[1] == 20e6);
}

TEST(values_without_a_place_stand_at_an_end)
{
    struct axis axis = {.low = 1, .high = 100, .from_px = 10, .to_px = 30, .is_log = true};

    CHECK(is_near(axis_place(&axis, 10), 20));
    CHECK(axis_place(&axis, 0) == 10 && axis_place(&axis, -5) == 10 &&
          axis_place(&axis, NAN) == 10);
    CHECK(axis_place(&axis, 1000) == 30 && axis_place(&axis, INFINITY) == 30);
    axis_begin_log(&axis);
    axis_include(&axis, 5e-324);
    axis_include(&axis, 1e300);
    axis_end(&axis, 4);
    check_axis(&axis, 8);
    CHECK(isfinite(axis.high / axis.low));
    axis_begin_log(&axis);
    axis_end(&axis, 4);
    CHECK(axis.low < 1 && axis.high > 1); /* nothing was included */
}

TEST(labels_keep_their_distance_and_order)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 200; round++) {
        struct plot_label labels[20];
        uint32_t count = 1 + (uint32_t)test_random_below(&random, 20);

        for (uint32_t i = 0; i < count; i++)
            labels[i] = (struct plot_label){
                .wanted = 100 + (double)test_random_below(&random, 1 + round), .index = i};
        plot_spread_labels(labels, count, 100, 420, 16);
        for (uint32_t i = 0; i < count; i++) {
            CHECK(labels[i].y >= 100 - 1e-6 && labels[i].y <= 420 + 1e-6);
            if (i > 0)
                CHECK(labels[i].y - labels[i - 1].y >= 16 - 1e-6 &&
                      labels[i].wanted >= labels[i - 1].wanted);
        }
        if (count == 1)
            CHECK(labels[0].y == labels[0].wanted);
    }
    {
        struct plot_label two[] = {{.wanted = 200, .index = 0}, {.wanted = 200, .index = 1}};

        plot_spread_labels(two, 2, 100, 420, 16);
        CHECK(is_near(two[0].y, 192) && is_near(two[1].y, 208)); /* both give way */
    }
}

TEST(coordinates_that_are_none_are_drawn_all_the_same)
{
    struct svg svg = {0};
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);

    REQUIRE(file != NULL);
    svg_line(&svg, NAN, INFINITY, -INFINITY, 1e300, "a");
    svg_rect(&svg, 1, 2, -5, NAN, 2, "b");
    svg_finish(&svg, "t", NAN, file);
    fclose(file);
    CHECK_CONTAINS(text, "<line x1=\"0.0\" y1=\"0.0\" x2=\"0.0\" y2=\"100000.0\" class=\"a\"/>");
    CHECK_CONTAINS(text, "<rect x=\"1.0\" y=\"2.0\" width=\"0.0\" height=\"0.0\"");
    CHECK(!svg.out.data); /* it is written, and gone */
    free(text);
}

TEST(texts_are_cut_and_broken_between_letters)
{
    char fitted[SVG_TEXT_BYTES];

    CHECK_STR_EQ(svg_fit("short", 100, 10, fitted), "short");
    CHECK_STR_EQ(svg_fit("µµµµµµµµµµ", 30, 10, fitted), "µµµµ…");
    CHECK_STR_EQ(svg_fit("long", 1, 10, fitted), "…");
    CHECK_EQ(svg_break("one two three", 48, 10), 7);
    CHECK_EQ(svg_break("one two", 480, 10), 7);
    CHECK_EQ(svg_break("unbreakable", 12, 10), 11);
    CHECK_EQ(svg_break("", 12, 10), 0);
}

TEST_MAIN("perf_axis", T(every_range_makes_an_axis_with_ticks),
          T(ticks_are_numbers_that_people_like), T(values_without_a_place_stand_at_an_end),
          T(labels_keep_their_distance_and_order),
          T(coordinates_that_are_none_are_drawn_all_the_same),
          T(texts_are_cut_and_broken_between_letters))
