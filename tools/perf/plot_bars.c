/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plot_bars.c: the panel of figures that have no size to be drawn by: a horizontal bar for each,
 * from zero, with its quartiles and its value in words. Where the largest is more than 60 times the
 * smallest the axis is logarithmic, and says so.
 */
#include <math.h>
#include <string.h>

#include "tools/perf/plot.h"

#define ROW          24.0
#define BAR          12.0
#define VALUE_SPACE  210.0
#define LINEAR_UP_TO 60.0

struct frame {
    double left, right, top, bottom;
    struct axis axis;
};

static bool is_observed(const struct perf_result *result)
{
    return result->value.count > 0;
}

/* The axis for all values and quartiles. */
static void make_axis(struct axis *axis, const struct plot_group *group)
{
    double high;

    axis_begin_log(axis);
    for (uint32_t i = 0; i < group->count; i++) {
        const struct perf_spread *value = &group->results[i]->value;

        if (value->count == 0)
            continue;
        axis_include(axis, value->median);
        axis_include(axis, value->high);
    }
    high = axis->high;
    if (high > axis->low * LINEAR_UP_TO) {
        axis_include(axis, axis->low / 3); /* so that the shortest is a bar, too */
        axis_end(axis, 10);
    } else {
        axis_make_linear(axis, high);
    }
}

static void make_frame(struct frame *frame, const struct plot *plot, const struct plot_group *group)
{
    double widest = 0;

    for (uint32_t i = 0; i < group->count; i++) {
        char label[SVG_TEXT_BYTES];

        widest = fmax(widest, svg_text_width(plot_label(group, group->results[i], label), 12));
    }
    frame->left = PLOT_MARGIN + fmin(widest + 12, 300);
    frame->right = PLOT_RIGHT - VALUE_SPACE;
    frame->top = plot->y;
    frame->bottom = frame->top + ROW * group->count + 6;
    make_axis(&frame->axis, group);
    frame->axis.from_px = frame->left;
    frame->axis.to_px = frame->right;
}

static void draw_axis(struct svg *svg, const struct frame *frame, enum perf_unit unit)
{
    double ticks[AXIS_TICKS_MAX];
    uint32_t most = (uint32_t)((frame->right - frame->left) / 70);
    uint32_t count = axis_ticks(&frame->axis, most, ticks);
    char text[PERF_TEXT_BYTES];

    for (uint32_t i = 0; i < count; i++) {
        double x = axis_place(&frame->axis, ticks[i]);

        svg_line(svg, x, frame->top, x, frame->bottom, "grid");
        svg_text(svg, x, frame->bottom + 16, SVG_MIDDLE, "mute small", "%s",
                 ticks[i] > 0 ? perf_text_round(ticks[i], unit, text) : "0");
    }
    svg_line(svg, frame->left, frame->top, frame->left, frame->bottom, "axis");
}

/* "57.1–59.0 M/s, 3.73 GB/s". */
static void draw_value(struct svg *svg, const struct perf_result *result, double x, double y)
{
    char value[PERF_TEXT_BYTES], more[PERF_TEXT_BYTES];
    const struct perf_spread *spread = &result->value;

    (void)perf_text_value(spread->median, result->unit, value);
    svg_text(svg, x, y, SVG_START, "bold", "%s", value);
    x += svg_text_width(value, 12) + 10;
    if (result->unit == PERF_MESSAGES_PER_S && result->size > 0)
        svg_text(svg, x, y, SVG_START, "mute small", "%s",
                 perf_text_value(spread->median * result->size, PERF_BYTES_PER_S, more));
    else if (spread->count > 1)
        svg_text(svg, x, y, SVG_START, "mute small", "%s",
                 perf_text_range(spread->low, spread->high, result->unit, more));
}

static void draw_bar(struct plot *plot, const struct frame *frame, const struct perf_result *result,
                     double y)
{
    double end = axis_place(&frame->axis, result->value.median);
    double low = axis_place(&frame->axis, result->value.low);
    double high = axis_place(&frame->axis, result->value.high);
    char style[8];

    (void)snprintf(style, sizeof(style), "f%u", plot_color(plot, result->transport));
    svg_rect(&plot->svg, frame->left, y - BAR / 2, fmax(end - frame->left, 1), BAR, 2, style);
    if (high - low >= 2) {
        svg_line(&plot->svg, low, y, high, y, "spread");
        svg_line(&plot->svg, low, y - 3, low, y + 3, "spread");
        svg_line(&plot->svg, high, y - 3, high, y + 3, "spread");
    }
    draw_value(&plot->svg, result, fmax(end, high) + 8, y + 4);
}

void plot_bars(struct plot *plot, const struct plot_group *group)
{
    enum perf_unit unit = group->results[0]->unit;
    struct frame frame;

    make_frame(&frame, plot, group);
    plot_head(plot, group,
              frame.axis.is_log ? ", median and quartiles of trials, logarithmic axis"
                                : ", median and quartiles of trials");
    make_frame(&frame, plot, group); /* below the heading */
    draw_axis(&plot->svg, &frame, unit);
    for (uint32_t i = 0; i < group->count; i++) {
        const struct perf_result *result = group->results[i];
        double y = frame.top + ROW * i + ROW / 2 + 3;
        char label[SVG_TEXT_BYTES], fitted[SVG_TEXT_BYTES];

        svg_group_begin(&plot->svg, plot_label(group, result, label));
        svg_text(&plot->svg, frame.left - 10, y + 4, SVG_END, "", "%s",
                 svg_fit(label, frame.left - PLOT_MARGIN - 10, 12, fitted));
        if (is_observed(result))
            draw_bar(plot, &frame, result, y);
        else
            svg_text(&plot->svg, frame.left + 8, y + 4, SVG_START, "mute small", "not observed");
        svg_group_end(&plot->svg);
    }
    plot->y = frame.bottom + 52;
}
