/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plot_latency.c: the panel of percentile curves. To the right each step is a tenth of what is
 * left to 100 %, as HdrHistogram's plots have it: the tail is where messaging systems differ, and on a
 * linear axis it is one pixel wide.
 *
 * A curve ends at the largest value that was recorded; its label stands beside it.
 */
#include <math.h>
#include <string.h>

#include "tools/perf/plot.h"

#define POINTS     320 /* of a curve, at most */
#define NINES_MAX  7.0 /* the axis ends at 99.99999 % */
#define LABEL_STEP 16.0

struct frame {
    double left, right, top, bottom;
    double nines; /* at the right end: log10(1 / (1 - p)) */
    struct axis times;
};

/* As many nines as there are values to show them. */
static double nines_of(const struct perf_histogram *histogram)
{
    uint64_t count = perf_histogram_count(histogram);

    return fmin(log10((double)max_u64(count, 1)), NINES_MAX);
}

static double place_nines(const struct frame *frame, double nines)
{
    return frame->left + nines / frame->nines * (frame->right - frame->left);
}

static void make_frame(struct frame *frame, const struct plot *plot, const struct plot_group *group)
{
    double widest = 0;

    frame->nines = 2;
    axis_begin_log(&frame->times);
    for (uint32_t i = 0; i < group->count; i++) {
        const struct perf_histogram *histogram = group->results[i]->histogram;
        char label[SVG_TEXT_BYTES];

        frame->nines = fmax(frame->nines, nines_of(histogram));
        if (perf_histogram_count(histogram) > 0) {
            axis_include(&frame->times, fmax((double)perf_histogram_at(histogram, 0), 1));
            axis_include(&frame->times, fmax((double)perf_histogram_max(histogram), 1));
        }
        widest = fmax(widest, svg_text_width(plot_label(group, group->results[i], label), 12));
    }
    axis_end(&frame->times, 4);
    frame->left = PLOT_MARGIN + 52;
    frame->right = PLOT_RIGHT - fmin(widest * 1.07 + 140, 420);
    frame->top = plot->y + 4;
    frame->bottom = frame->top + fmax(320, LABEL_STEP * group->count);
    frame->times.from_px = frame->bottom;
    frame->times.to_px = frame->top;
}

static void draw_axes(struct svg *svg, const struct frame *frame)
{
    static const double PERCENTILES[] = {0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999, 99.99999};
    uint32_t most = (uint32_t)((frame->bottom - frame->top) / 34);
    double ticks[AXIS_TICKS_MAX];
    uint32_t count = axis_ticks(&frame->times, most, ticks);
    char text[PERF_TEXT_BYTES];

    for (uint32_t i = 0; i < count; i++) {
        double y = axis_place(&frame->times, ticks[i]);

        svg_line(svg, frame->left, y, frame->right, y, "grid");
        svg_text(svg, frame->left - 8, y + 4, SVG_END, "mute small", "%s",
                 perf_text_round(ticks[i], PERF_NS, text));
    }
    for (size_t i = 0; i < COUNT_OF(PERCENTILES); i++) {
        double nines = i == 0 ? 0 : i == 1 ? log10(2) : (double)i - 1;
        double x = place_nines(frame, nines);

        if (nines > frame->nines + 1e-9)
            break;
        svg_line(svg, x, frame->top, x, frame->bottom, "grid");
        svg_text(svg, x, frame->bottom + 17, SVG_MIDDLE, "mute small", "%s%%",
                 perf_text_percentile(PERCENTILES[i], text));
    }
    svg_line(svg, frame->left, frame->bottom, frame->right, frame->bottom, "axis");
}

/* Returns the height at which the curve ends. Points of one height but for its ends are left out. */
static double draw_curve(struct plot *plot, const struct frame *frame,
                         const struct perf_result *result, double opacity)
{
    double levels[POINTS];
    uint64_t values[POINTS];
    double last_nines = nines_of(result->histogram);
    uint32_t count = (uint32_t)(POINTS * fmax(last_nines / frame->nines, 0.01));
    double y = 0;
    char style[32];

    count = min_u32(count < 2 ? 2 : count, POINTS);
    for (uint32_t i = 0; i < count; i++)
        levels[i] = 100 * (1 - pow(10, -last_nines * i / (count - 1)));
    levels[count - 1] = 100;
    perf_histogram_at_each(result->histogram, levels, count, values);
    svg_path_begin(&plot->svg);
    for (uint32_t i = 0; i < count; i++) {
        bool needed =
            i == 0 || i + 1 == count || values[i] != values[i - 1] || values[i] != values[i + 1];

        y = axis_place(&frame->times, (double)values[i]);
        if (needed)
            svg_path_to(&plot->svg, place_nines(frame, last_nines * i / (count - 1)), y);
    }
    svg_path_end(&plot->svg, plot_line_style(plot, result, style), opacity);
    return y;
}

/* Sizes of one transport are told apart by strength: the first one is the strongest. */
static double opacity_of(const struct plot_group *group, uint32_t index)
{
    const struct perf_result *result = group->results[index];
    double opacity = 1;

    for (uint32_t i = 0; i < index; i++) {
        if (strcmp(group->results[i]->transport, result->transport) == 0 &&
            strcmp(group->results[i]->distance, result->distance) == 0)
            opacity -= 0.18;
    }
    return fmax(opacity, 0.4);
}

static void draw_label(struct plot *plot, const struct plot_group *group, const struct frame *frame,
                       const struct plot_label *label)
{
    const struct perf_result *result = group->results[label->index];
    double end = place_nines(frame, nines_of(result->histogram));
    double left = frame->right + 22;
    char name[SVG_TEXT_BYTES], fitted[SVG_TEXT_BYTES], median[PERF_TEXT_BYTES], style[32];

    (void)plot_label(group, result, name);
    (void)svg_fit(name, PLOT_RIGHT - 112 - left, 12, fitted);
    (void)snprintf(style, sizeof(style), "f%u bold", plot_color(plot, result->transport));
    if (end < frame->right - 1)
        svg_line(&plot->svg, end + 4, label->wanted, frame->right, label->wanted, "lead");
    svg_line(&plot->svg, frame->right + 3, label->wanted, left - 5, label->y, "lead");
    svg_group_begin(&plot->svg, name);
    svg_text(&plot->svg, left, label->y + 4, SVG_START, style, "%s", fitted);
    svg_text(&plot->svg, PLOT_RIGHT, label->y + 4, SVG_END, "mute small", "median %s",
             perf_text_value((double)perf_histogram_at(result->histogram, 50), PERF_NS, median));
    svg_group_end(&plot->svg);
}

void plot_percentiles(struct plot *plot, const struct plot_group *group)
{
    CLEANUP_FREE struct plot_label *labels = tool_alloc(group->count * sizeof(*labels));
    struct frame frame;
    uint32_t count = 0;

    plot_head(plot, group, " by percentile, both axes logarithmic");
    make_frame(&frame, plot, group);
    draw_axes(&plot->svg, &frame);
    for (uint32_t i = group->count; i > 0; i--) { /* the first one, most often shmq's, on top */
        const struct perf_result *result = group->results[i - 1];

        if (perf_histogram_count(result->histogram) == 0)
            continue;
        labels[count].wanted = draw_curve(plot, &frame, result, opacity_of(group, i - 1));
        labels[count++].index = i - 1;
    }
    plot_spread_labels(labels, count, frame.top + 6, frame.bottom - 2, LABEL_STEP);
    for (uint32_t i = 0; i < count; i++)
        draw_label(plot, group, &frame, &labels[i]);
    plot->y = frame.bottom + 52;
}
