/* SPDX-License-Identifier: Apache-2.0 */
/* shmq-perf's plots: well-formed whatever is in a report, nothing outside the page, and drawn to scale. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/support/cli.h"
#include "test/support/perf.h"
#include "test/support/picture.h"
#include "test/support/test.h"
#include "tools/perf/plot.h"

static struct picture draw(const struct perf_made *made)
{
    struct picture picture;
    char path[512];

    REQUIRE_OK(perf_plot_write(&made->report, cli_temporary("plot.svg", path)));
    picture_read(&picture, path);
    CHECK(picture.width == SVG_WIDTH);
    return picture;
}

static bool is_near(double a, double b)
{
    return fabs(a - b) < 0.25;
}

/* ---- The document ---------------------------------------------------------------------------- */

TEST(the_heading_names_the_machine)
{
    struct perf_made made;
    struct picture picture;

    perf_made_init(&made, "A title");
    picture = draw(&made);
    CHECK(picture_find_text(&picture, "A title", 0) != NULL);
    CHECK_CONTAINS(picture.text, "Test CPU, family 1 model 2");
    CHECK_CONTAINS(picture.text, "CPUs 2 and 3 of 4");
    CHECK_CONTAINS(picture.text, "Linux 6.1 x86_64");
    CHECK_CONTAINS(picture.text, "TSC, 2.000 GHz");
    CHECK_CONTAINS(picture.text, "2026-01-31T12:00:00Z");
    CHECK_CONTAINS(picture.text, "100 trials, 10 dropped");
    CHECK(picture_find_text(&picture, "nothing was measured", 0) != NULL);
    CHECK(picture_find(&picture, "rect", "page", 0) != NULL); /* a background of its own */
    CHECK_CONTAINS(picture.text, "prefers-color-scheme:dark");
    CHECK(!strstr(picture.text, "<script"));
    CHECK(!strstr(picture.text, "url("));
    picture_free(&picture);
}

TEST(any_text_makes_a_document)
{
    struct perf_made made;
    struct picture picture;

    perf_made_init(&made, "<b>&\"'\001\377 \033[31m</b>");
    strcpy(made.report.machine.cpu, "]]></svg><script>");
    perf_made_result(&made, "a<b", "x&y\002", 64, PERF_MESSAGES_PER_S, 1e6);
    perf_made_latency(&made, "\303", 64, 100, 200); /* half a letter */
    strcpy(made.results[1].distance, "<\">");
    perf_made_comparison(&made, "<what> \"&\"", "<&>", 1, 2, 3, PERF_MISSED)->note =
        "note <&>\n\003";
    picture = draw(&made);
    CHECK_CONTAINS(picture.text, "x&amp;y?");
    CHECK(!strstr(picture.text, "<script"));
    picture_free(&picture);
    perf_made_free(&made);
}

TEST(long_titles_and_names_are_not_cut_off)
{
    struct perf_made made;
    struct picture picture;
    char title[160];

    memset(title, 0, sizeof(title));
    for (unsigned i = 0; i < 15; i++)
        strcat(title, "syllables ");
    strcat(title, "end");
    perf_made_init(&made, title);
    perf_made_comparison(&made,
                         "ratios of a thing whose name is much longer than a column of it can be",
                         "baseline", 1, 2, 3, PERF_MISSED);
    picture = draw(&made);
    CHECK(picture_count(&picture, "text", "title") >= 2);
    CHECK_CONTAINS(strstr(picture.text, "class=\"title\""), "end</text>");
    CHECK_CONTAINS(picture.text, "can be</text>");
    picture_free(&picture);
}

/* ---- Bars ------------------------------------------------------------------------------------ */

TEST(bars_are_as_long_as_their_values)
{
    struct perf_made made;
    struct picture picture;
    const struct element *bars[3];

    perf_made_init(&made, "t");
    perf_made_result(&made, "throughput", "one", 64, PERF_MESSAGES_PER_S, 10e6);
    perf_made_result(&made, "throughput", "two", 64, PERF_MESSAGES_PER_S, 20e6);
    perf_made_result(&made, "throughput", "three", 64, PERF_MESSAGES_PER_S, 30e6);
    perf_made_result(&made, "throughput", "none", 64, PERF_MESSAGES_PER_S, 0);
    picture = draw(&made);
    for (unsigned i = 0; i < 3; i++) {
        char style[8];

        snprintf(style, sizeof(style), "f%u", i);
        bars[i] = picture_find(&picture, "rect", style, 0);
        REQUIRE(bars[i] != NULL);
    }
    CHECK(bars[0]->width > 50);
    CHECK(is_near(bars[1]->width, 2 * bars[0]->width));
    CHECK(is_near(bars[2]->width, 3 * bars[0]->width));
    CHECK(bars[0]->y < bars[1]->y && bars[1]->y < bars[2]->y); /* in their order */
    CHECK(picture_find(&picture, "rect", "f3", 0) == NULL);
    CHECK(picture_find_text(&picture, "not observed", 0) != NULL);
    CHECK(picture_find_text(&picture, "throughput, 64 B, near", 0) != NULL); /* what all share */
    CHECK(picture_find_text(&picture, "two", 0) != NULL);
    CHECK(picture_find_text(&picture, "20.0 M/s", 0) != NULL);
    CHECK(picture_find_text(&picture, "1.28 GB/s", 0) != NULL);
    /* The tick at 20 M/s is where that bar ends. */
    CHECK(is_near(picture_find_text(&picture, "20 M/s", 0)->x, bars[1]->x + bars[1]->width));
    picture_free(&picture);
}

TEST(bars_far_apart_have_a_logarithmic_axis)
{
    struct perf_made made;
    struct picture picture;
    const struct element *bars[3];

    perf_made_init(&made, "t");
    perf_made_result(&made, "floor", "a", 0, PERF_NS, 10);
    perf_made_result(&made, "floor", "b", 0, PERF_NS, 1000);
    perf_made_result(&made, "floor", "c", 0, PERF_NS, 100000);
    picture = draw(&made);
    bars[0] = picture_find(&picture, "rect", "f0", 0);
    bars[1] = picture_find(&picture, "rect", "f1", 0);
    bars[2] = picture_find(&picture, "rect", "f2", 0);
    REQUIRE(bars[0] && bars[1] && bars[2]);
    CHECK(bars[0]->width > 10);
    CHECK(is_near(bars[1]->width - bars[0]->width, bars[2]->width - bars[1]->width));
    CHECK_CONTAINS(picture.text, "logarithmic axis; lower is better");
    picture_free(&picture);
}

/* ---- Rates by size --------------------------------------------------------------------------- */

TEST(rates_of_several_sizes_are_lines)
{
    struct perf_made made;
    struct picture picture;
    const struct element *line, *other;
    const uint32_t sizes[] = {64, 1024, 16}; /* in no order */

    perf_made_init(&made, "t");
    for (unsigned i = 0; i < 3; i++) {
        perf_made_result(&made, "throughput", "shmq", sizes[i], PERF_MESSAGES_PER_S,
                         64e7 / sizes[i]);
        perf_made_result(&made, "throughput", "pipe", sizes[i], PERF_MESSAGES_PER_S, 1e6);
    }
    perf_made_result(&made, "throughput", "pipe", 4096, PERF_MESSAGES_PER_S, 0); /* not observed */
    picture = draw(&made);
    line = picture_find(&picture, "path", "line l0 d0", 0);
    other = picture_find(&picture, "path", "line l1 d0", 0);
    REQUIRE(line && other);
    CHECK_EQ(picture_count(&picture, "path", "line l0 d0"), 1);
    CHECK_EQ(line->points, 3);
    CHECK_EQ(other->points, 3);
    CHECK(line->path_max_y == line->end_y); /* larger is slower, which is below */
    CHECK(is_near(other->path_max_y, other->path_min_y));
    CHECK_EQ(picture_count(&picture, "circle", "f0"), 3);
    /* 64 and 1 KiB are as far apart as 16 and 256. */
    CHECK(is_near(
        (picture_find_text(&picture, "1 KiB", 0)->x - picture_find_text(&picture, "64 B", 0)->x) /
            2,
        picture_find_text(&picture, "64 B", 0)->x - picture_find_text(&picture, "16 B", 0)->x));
    CHECK(picture_find_text(&picture, "shmq", 0) != NULL);
    CHECK(picture_find(&picture, "line", "diag", 0) != NULL);
    for (unsigned i = 0; i < picture_count(&picture, "line", "diag"); i++) {
        const struct element *diagonal = picture_find(&picture, "line", "diag", i);

        CHECK(diagonal->end_x > diagonal->x + 1 && diagonal->end_y > diagonal->y + 1);
    }
    CHECK(picture_find_text(&picture, "throughput, near", 0) !=
          NULL); /* the sizes are on the axis */
    CHECK(is_near(picture_find_text(&picture, "1 M/s", 0)->y - 4, other->end_y));
    picture_free(&picture);
}

/* ---- Percentiles ----------------------------------------------------------------------------- */

TEST(curves_go_from_minimum_to_maximum)
{
    struct perf_made made;
    struct picture picture;
    const struct element *slow, *fast;

    perf_made_init(&made, "t");
    perf_made_latency(&made, "shmq", 64, 100, 1000);
    perf_made_latency(&made, "pipe", 64, 10000, 100000);
    made.results[1].value.count = 1;
    picture = draw(&made);
    fast = picture_find(&picture, "path", "line l0 d0", 0);
    slow = picture_find(&picture, "path", "line l1 d0", 0);
    REQUIRE(slow && fast);
    CHECK(fast->end_y == fast->path_min_y); /* it rises */
    /* A decade is as high everywhere, and where the ticks say it is. */
    CHECK(is_near(fast->path_max_y - fast->path_min_y, slow->path_max_y - slow->path_min_y));
    CHECK(is_near(picture_find_text(&picture, "1 µs", 0)->y - 4, fast->path_min_y));
    CHECK(is_near(picture_find_text(&picture, "100 ns", 0)->y - 4, fast->path_max_y));
    CHECK(is_near(picture_find_text(&picture, "10 µs", 0)->y - 4, slow->path_max_y));
    /* 1,000 values: the curve ends at 99.9 %, and 90 to 99 is as far as 99 to 99.9. */
    CHECK(is_near(picture_find_text(&picture, "99.9%", 0)->x, fast->end_x));
    CHECK(is_near(
        picture_find_text(&picture, "99.9%", 0)->x - picture_find_text(&picture, "99%", 0)->x,
        picture_find_text(&picture, "99%", 0)->x - picture_find_text(&picture, "90%", 0)->x));
    CHECK(picture_find_text(&picture, "99.99%", 0) == NULL);
    CHECK(
        is_near(picture_find_text(&picture, "50%", 0)->x - picture_find_text(&picture, "0%", 0)->x,
                log10(2) * (picture_find_text(&picture, "90%", 0)->x -
                            picture_find_text(&picture, "0%", 0)->x)));
    CHECK(picture_find_text(&picture, "shmq", 0) && picture_find_text(&picture, "pipe", 0));
    CHECK(picture_find_text(&picture, "median 549 ns", 0) != NULL);
    picture_free(&picture);
    perf_made_free(&made);
}

TEST(a_curve_ends_at_its_maximum)
{
    struct perf_made made;
    struct picture picture;
    const struct element *curve;

    perf_made_init(&made, "t");
    perf_made_latency(&made, "shmq", 64, 100, 1000);
    perf_histogram_record((struct perf_histogram *)(uintptr_t)made.results[0].histogram, 1000000);
    picture = draw(&made);
    curve = picture_find(&picture, "path", "line l0 d0", 0);
    REQUIRE(curve != NULL);
    CHECK(curve->end_y == curve->path_min_y);
    CHECK(is_near(picture_find_text(&picture, "1 ms", 0)->y - 4, curve->end_y));
    picture_free(&picture);
    perf_made_free(&made);
}

TEST(curves_are_told_apart)
{
    struct perf_made made;
    struct picture picture;

    perf_made_init(&made, "t");
    perf_made_result(&made, "floor", "alone", 0, PERF_NS, 10)->distance[0] = '\0';
    perf_made_latency(&made, "way 0", 64, 100, 1000);
    strcpy(perf_made_latency(&made, "way 0", 64, 200, 1000)->distance, "far");
    for (unsigned i = 1; i < 9; i++) {
        char name[16];

        snprintf(name, sizeof(name), "way %u", i);
        perf_made_latency(&made, name, 64, 100, 1000);
    }
    picture = draw(&made);
    CHECK_EQ(picture_count(&picture, "path", "line l1 d0"), 1);
    CHECK_EQ(picture_count(&picture, "path", "line l1 d1"), 1); /* far */
    CHECK_EQ(picture_count(&picture, "path", "line l7 d0"), 1);
    CHECK_EQ(picture_count(&picture, "path", "line l0 d2"), 1); /* colours come round again */
    CHECK_EQ(picture_count(&picture, "path", "line l1 d2"), 1);
    picture_free(&picture);
    perf_made_free(&made);
}

TEST(labels_of_many_curves_do_not_overlap)
{
    struct perf_made made;
    struct picture picture;
    double heights[48];
    unsigned count = 0;

    perf_made_init(&made, "t");
    for (uint32_t i = 0; i < 40; i++) {
        char name[16];

        snprintf(name, sizeof(name), "way %u", i / 5);
        perf_made_latency(&made, name, 16u << (i % 5), 200 + i, 1000 + i);
    }
    picture = draw(&made);
    for (unsigned i = 0; i < picture.count; i++) {
        const struct element *e = &picture.elements[i];

        if (strcmp(e->name, "text") == 0 && strstr(e->style, " bold")) {
            REQUIRE(count < COUNT_OF(heights));
            heights[count++] = e->y;
        }
    }
    CHECK_EQ(count, 40);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < i; k++)
            CHECK(fabs(heights[i] - heights[k]) > 14);
    }
    picture_free(&picture);
    perf_made_free(&made);
}

/* ---- Comparisons ----------------------------------------------------------------------------- */

TEST(ratios_are_bars_from_one)
{
    struct perf_made made;
    struct picture picture;
    const struct element *twice, *half, *absent;
    double one;

    perf_made_init(&made, "t");
    perf_made_comparison(&made, "throughput, a", "ideal", 20e6, 10e6, 4, PERF_MISSED);
    perf_made_comparison(&made, "throughput, b", "ideal", 5e6, 10e6, 0.25, PERF_MET);
    perf_made_comparison(&made, "throughput, c", "ideal", 0, 0, 2, PERF_NOT_OBSERVED);
    picture = draw(&made);
    twice = picture_find(&picture, "rect", "missed", 0);
    half = picture_find(&picture, "rect", "met", 0);
    absent = picture_find(&picture, "rect", "absent", 0);
    REQUIRE(twice && half);
    CHECK(!absent);
    one = picture_find_text(&picture, "1×", 0)->x;
    CHECK(is_near(twice->x, one));
    CHECK(is_near(half->x + half->width, one));
    CHECK(is_near(twice->width, half->width)); /* logarithmic */
    CHECK(is_near(picture_find_text(&picture, "2×", 0)->x, twice->x + twice->width));
    /* Ticks at the targets: 4, 0.25 and 2. */
    CHECK(is_near(picture_find(&picture, "line", "mark", 0)->x, one + 2 * twice->width));
    CHECK(is_near(picture_find(&picture, "line", "mark", 1)->x, one - 2 * half->width));
    CHECK(is_near(picture_find(&picture, "line", "mark", 2)->x, one + twice->width));
    CHECK(picture_find_text(&picture, "2.00×", 0) && picture_find_text(&picture, "0.50×", 0));
    CHECK(picture_find_text(&picture, "met", 0) && picture_find_text(&picture, "missed", 0) &&
          picture_find_text(&picture, "not observed", 0));
    CHECK(picture_find_text(&picture, "≥ 4.00", 0) != NULL);
    CHECK(picture_find_text(&picture, "throughput", 0) !=
          NULL); /* the group's heading; rows are without */
    CHECK(picture_find_text(&picture, "a", 0) != NULL);
    CHECK(picture_find_text(&picture, "shmq 20.0 M/s ÷ ideal 10.0 M/s", 0) != NULL);
    picture_free(&picture);
}

TEST(rows_of_one_kind_stand_together)
{
    static const char *const NAMES[] = {"round trip, a", "throughput: b", "round trip, c",
                                        "throughput: d"};
    struct perf_made made;
    struct picture picture;
    double y[4];

    perf_made_init(&made, "t");
    for (unsigned i = 0; i < 4; i++)
        perf_made_comparison(&made, NAMES[i], "pipe", 2 + i, 1, 0, PERF_NO_TARGET);
    picture = draw(&made);
    for (unsigned i = 0; i < 4; i++) {
        const struct element *text =
            picture_find_text(&picture, NAMES[i] + strlen(NAMES[i]) - 1, 0);

        REQUIRE(text != NULL);
        y[i] = text->y;
    }
    CHECK(y[0] < y[2] && y[2] < y[1] && y[1] < y[3]);
    CHECK(picture_find_text(&picture, "round trip", 0) &&
          !picture_find_text(&picture, "round trip", 1));
    picture_free(&picture);
    made.report.comparison_count =
        3; /* now too few to gather: their order stays, and their names */
    picture = draw(&made);
    CHECK(picture_find_text(&picture, "round trip, a", 0)->y <
          picture_find_text(&picture, "throughput: b", 0)->y);
    CHECK(picture_find_text(&picture, "throughput: b", 0)->y <
          picture_find_text(&picture, "round trip, c", 0)->y);
    picture_free(&picture);
}

TEST(figures_alone_are_shares_of_their_limits)
{
    struct perf_made made;
    struct picture picture;
    const struct element *met, *missed, *beyond;

    perf_made_init(&made, "t");
    perf_made_comparison(&made, "publish", "", 30, 0, 60, PERF_MET);
    perf_made_comparison(&made, "poll", "", 60, 0, 40, PERF_MISSED);
    perf_made_comparison(&made, "all", "", 9000, 0, 40, PERF_MISSED);
    perf_made_comparison(&made, "free", "", 5, 0, 0, PERF_NO_TARGET);
    picture = draw(&made);
    met = picture_find(&picture, "rect", "met", 0);
    missed = picture_find(&picture, "rect", "missed", 0);
    beyond = picture_find(&picture, "rect", "missed", 1);
    REQUIRE(met && missed && beyond);
    CHECK(is_near(met->width * 3, missed->width)); /* 50 % and 150 % */
    CHECK(is_near(picture_find_text(&picture, "100 %", 0)->x, met->x + 2 * met->width));
    CHECK(is_near(picture_find(&picture, "line", "mark", 0)->x, met->x + 2 * met->width));
    CHECK(beyond->width > missed->width); /* cut at the axis' end, which check_places() saw */
    CHECK(picture_find_text(&picture, "9.00 k", 0) && picture_find_text(&picture, "≤ 60", 0));
    CHECK(picture_find_text(&picture, "shmq 5", 0) != NULL); /* no bar, but the value */
    picture_free(&picture);
}

TEST(without_targets_nothing_speaks_of_them)
{
    struct perf_made made;
    struct picture picture;

    perf_made_init(&made, "t");
    perf_made_comparison(&made, "latency", "pipe", 20, 10, 0, PERF_NO_TARGET);
    picture = draw(&made);
    CHECK(picture_find(&picture, "rect", "plain", 0) != NULL);
    CHECK(!picture_find(&picture, "line", "mark", 0));
    CHECK(!strstr(picture.text, "target"));
    picture_free(&picture);
}

/* ---- Whatever comes -------------------------------------------------------------------------- */

static double strange_value(struct test_random *random)
{
    static const double VALUES[] = {0,      1,      1,   -1,       1e-9,      1e9, 1e18, 1e300,
                                    1e-300, 5e-324, NAN, INFINITY, -INFINITY, 183, 183};

    return VALUES[test_random_below(random, COUNT_OF(VALUES))];
}

static struct perf_spread strange_spread(struct test_random *random)
{
    return (struct perf_spread){
        .median = strange_value(random),
        .low = strange_value(random),
        .high = strange_value(random),
        .min = strange_value(random),
        .max = strange_value(random),
        .count = (uint32_t)test_random_below(random, 3),
    };
}

static void add_strange_result(struct perf_made *made, struct test_random *random)
{
    static const char *const MEASURES[] = {"latency", "throughput", "floor"};
    static const char *const NAMES[] = {"shmq", "pipe", "",
                                        "a name of thirty-nine letters, and then"};
    struct perf_result *result = perf_made_result(
        made, MEASURES[test_random_below(random, 3)], NAMES[test_random_below(random, 4)],
        (uint32_t)(test_random_next(random) >> (32 + test_random_below(random, 33) % 32)),
        (enum perf_unit)test_random_below(random, 6), 0);

    result->value = strange_spread(random);
    if (test_random_below(random, 2)) {
        struct perf_histogram *histogram = perf_histogram_new();

        for (uint64_t i = test_random_below(random, 4) * 500; i > 0; i--)
            perf_histogram_record(histogram,
                                  test_random_next(random) >> test_random_below(random, 64));
        result->histogram = histogram;
    }
}

TEST(strange_figures_make_a_sound_picture)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < 60; round++) {
        struct perf_made made;
        struct picture picture;

        perf_made_init(&made, "strange");
        for (uint64_t i = test_random_below(&random, 8); i > 0; i--)
            add_strange_result(&made, &random);
        for (uint64_t i = test_random_below(&random, 8); i > 0; i--) {
            struct perf_comparison *c = perf_made_comparison(
                &made, i & 1 ? "word, a" : "another, word", i % 3 ? "base" : "", 1, 1,
                strange_value(&random), (enum perf_verdict)test_random_below(&random, 4));

            c->subject_value = strange_spread(&random);
            c->baseline_value = strange_spread(&random);
            c->ratio = strange_spread(&random);
            c->unit = (enum perf_unit)test_random_below(&random, 6);
        }
        picture = draw(&made);
        free(perf_made_print(&made, PERF_TABLE));
        picture_free(&picture);
        perf_made_free(&made);
    }
}

TEST_MAIN("perf_plot", T(the_heading_names_the_machine), T(any_text_makes_a_document),
          T(long_titles_and_names_are_not_cut_off), T(bars_are_as_long_as_their_values),
          T(bars_far_apart_have_a_logarithmic_axis), T(rates_of_several_sizes_are_lines),
          T(curves_go_from_minimum_to_maximum), T(a_curve_ends_at_its_maximum),
          T(curves_are_told_apart), T(labels_of_many_curves_do_not_overlap),
          T(ratios_are_bars_from_one), T(rows_of_one_kind_stand_together),
          T(figures_alone_are_shares_of_their_limits), T(without_targets_nothing_speaks_of_them),
          T(strange_figures_make_a_sound_picture))
