/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plot_rate.c: the panel of rates by size of the message, a line for each transport and
 * distance, quartiles as bars through its points. Rates of messages have dotted diagonals as well: equal
 * bandwidth, so that one sees where a transport stops being limited by messages and begins to be limited
 * by bytes.
 */
#include <math.h>
#include <string.h>

#include "tools/perf/plot.h"

#define LABEL_STEP 16.0

struct frame {
    double left, right, top, bottom;
    struct axis sizes, rates;
};

static bool is_drawn(const struct perf_result *result)
{
    return result->size > 0 && result->value.count > 0;
}

static bool same_line(const struct perf_result *a, const struct perf_result *b)
{
    return strcmp(a->transport, b->transport) == 0 && strcmp(a->distance, b->distance) == 0;
}

/* Each line is drawn once, for the first of its points. */
static bool begins_line(const struct plot_group *group, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++) {
        if (is_drawn(group->results[i]) && same_line(group->results[i], group->results[index]))
            return false;
    }
    return is_drawn(group->results[index]);
}

/* The label of a line: its size is on the axis. */
static const char *label_line(const struct plot_group *group, const struct perf_result *result,
                              char ret_label[SVG_TEXT_BYTES])
{
    struct plot_group sizeless = *group;

    sizeless.same_size = true;
    return plot_label(&sizeless, result, ret_label);
}

static void make_frame(struct frame *frame, const struct plot *plot, const struct plot_group *group)
{
    double widest = 0;
    uint32_t lines = 0;

    axis_begin_log(&frame->sizes);
    axis_begin_log(&frame->rates);
    for (uint32_t i = 0; i < group->count; i++) {
        const struct perf_result *result = group->results[i];
        char label[SVG_TEXT_BYTES];

        if (!is_drawn(result))
            continue;
        axis_include(&frame->sizes, result->size);
        axis_include(&frame->rates, result->value.median);
        axis_include(&frame->rates, result->value.low);
        axis_include(&frame->rates, result->value.high);
        widest = fmax(widest, svg_text_width(label_line(group, result, label), 12));
        lines += begins_line(group, i);
    }
    axis_end(&frame->sizes, 2);
    axis_end(&frame->rates, 4);
    frame->left = PLOT_MARGIN + 52;
    frame->right = PLOT_RIGHT - fmin(widest * 1.07 + 30, 340);
    frame->top = plot->y + 4;
    frame->bottom = frame->top + fmax(fmin(260 + 40 * lines, 420), LABEL_STEP * lines);
    frame->sizes.from_px = frame->left;
    frame->sizes.to_px = frame->right;
    frame->rates.from_px = frame->bottom;
    frame->rates.to_px = frame->top;
}

/* ---- Axes ------------------------------------------------------------------------------------ */

static void draw_rate_axis(struct svg *svg, const struct frame *frame, enum perf_unit unit)
{
    double ticks[AXIS_TICKS_MAX];
    uint32_t most = (uint32_t)((frame->bottom - frame->top) / 34);
    uint32_t count = axis_ticks(&frame->rates, most, ticks);
    char text[PERF_TEXT_BYTES];

    for (uint32_t i = 0; i < count; i++) {
        double y = axis_place(&frame->rates, ticks[i]);

        svg_line(svg, frame->left, y, frame->right, y, "grid");
        svg_text(svg, frame->left - 8, y + 4, SVG_END, "mute small", "%s",
                 perf_text_round(ticks[i], unit, text));
    }
}

/* A tick at each size that was measured, unless its text would touch the one before. */
static void draw_size_axis(struct svg *svg, const struct frame *frame,
                           const struct plot_group *group)
{
    double free_from = 0;
    double size = 0;

    for (;;) {
        double next = INFINITY;
        char text[PERF_TEXT_BYTES];
        double x, half;

        for (uint32_t i = 0; i < group->count; i++) {
            if (is_drawn(group->results[i]) && group->results[i]->size > size)
                next = fmin(next, group->results[i]->size);
        }
        if (!isfinite(next))
            break;
        size = next;
        x = axis_place(&frame->sizes, size);
        half = svg_text_width(perf_text_size((uint64_t)size, text), 11) / 2;
        svg_line(svg, x, frame->top, x, frame->bottom, "grid");
        if (x - half < free_from)
            continue;
        svg_text(svg, x, frame->bottom + 17, SVG_MIDDLE, "mute small", "%s", text);
        free_from = x + half + 6;
    }
    svg_line(svg, frame->left, frame->bottom, frame->right, frame->bottom, "axis");
}

/* Where rate × size is `bandwidth`: a straight line, as both axes are logarithmic. */
static void draw_diagonal(struct svg *svg, const struct frame *frame, double bandwidth)
{
    double from = fmax(frame->sizes.low, bandwidth / frame->rates.high);
    double to = fmin(frame->sizes.high, bandwidth / frame->rates.low);
    double x, y;
    char text[PERF_TEXT_BYTES];

    if (from >= to)
        return;
    x = axis_place(&frame->sizes, from);
    y = axis_place(&frame->rates, bandwidth / from);
    svg_line(svg, x, y, axis_place(&frame->sizes, to), axis_place(&frame->rates, bandwidth / to),
             "diag");
    if (x > frame->left + 4) /* begins at the top: its name stands above the frame */
        svg_text(svg, x, frame->top - 5, SVG_MIDDLE, "mute small", "%s",
                 perf_text_round(bandwidth, PERF_BYTES_PER_S, text));
}

static void draw_diagonals(struct svg *svg, const struct frame *frame)
{
    int first = (int)ceil(log10(frame->sizes.low * frame->rates.low));
    int last = (int)floor(log10(frame->sizes.high * frame->rates.high));

    for (int power = first; power <= last; power++)
        draw_diagonal(svg, frame, pow(10, power));
}

/* ---- Lines ----------------------------------------------------------------------------------- */

static int compare_sizes(const void *left, const void *right)
{
    const struct perf_result *a = *(const struct perf_result *const *)left;
    const struct perf_result *b = *(const struct perf_result *const *)right;

    return (a->size > b->size) - (a->size < b->size);
}

static void draw_point(struct plot *plot, const struct frame *frame,
                       const struct perf_result *result)
{
    double x = axis_place(&frame->sizes, result->size);
    char style[32], title[SVG_TEXT_BYTES], value[PERF_TEXT_BYTES], size[PERF_TEXT_BYTES];

    (void)snprintf(title, sizeof(title), "%s %s, %s: %s", result->transport, result->distance,
                   perf_text_size(result->size, size),
                   perf_text_value(result->value.median, result->unit, value));
    svg_group_begin(&plot->svg, title);
    (void)snprintf(style, sizeof(style), "line l%u", plot_color(plot, result->transport));
    svg_line(&plot->svg, x, axis_place(&frame->rates, result->value.low), x,
             axis_place(&frame->rates, result->value.high), style);
    (void)snprintf(style, sizeof(style), "f%u", plot_color(plot, result->transport));
    svg_circle(&plot->svg, x, axis_place(&frame->rates, result->value.median), 3.5, style);
    svg_group_end(&plot->svg);
}

/* All points of the line that `first` is of; returns the last one. */
static const struct perf_result *draw_line(struct plot *plot, const struct plot_group *group,
                                           const struct frame *frame,
                                           const struct perf_result *first)
{
    CLEANUP_FREE const struct perf_result **points = tool_alloc(group->count * sizeof(*points));
    uint32_t count = 0;
    char style[32];

    for (uint32_t i = 0; i < group->count; i++) {
        if (is_drawn(group->results[i]) && same_line(group->results[i], first))
            points[count++] = group->results[i];
    }
    qsort(points, count, sizeof(*points), compare_sizes);
    svg_path_begin(&plot->svg);
    for (uint32_t i = 0; i < count; i++)
        svg_path_to(&plot->svg, axis_place(&frame->sizes, points[i]->size),
                    axis_place(&frame->rates, points[i]->value.median));
    svg_path_end(&plot->svg, plot_line_style(plot, first, style), 1);
    for (uint32_t i = 0; i < count; i++)
        draw_point(plot, frame, points[i]);
    return points[count - 1];
}

static void draw_label(struct plot *plot, const struct plot_group *group, const struct frame *frame,
                       const struct plot_label *label, const struct perf_result *last)
{
    double x = axis_place(&frame->sizes, last->size);
    double left = frame->right + 18;
    char name[SVG_TEXT_BYTES], fitted[SVG_TEXT_BYTES], style[32];

    (void)snprintf(style, sizeof(style), "f%u bold", plot_color(plot, last->transport));
    if (x < frame->right - 40) /* a line that ends early is led to its label */
        svg_line(&plot->svg, x + 6, label->wanted, frame->right, label->wanted, "lead");
    svg_line(&plot->svg, fmax(x + 6, frame->right), label->wanted, left - 5, label->y, "lead");
    svg_text(&plot->svg, left, label->y + 4, SVG_START, style, "%s",
             svg_fit(label_line(group, last, name), PLOT_RIGHT - left, 12, fitted));
}

void plot_rates(struct plot *plot, const struct plot_group *group)
{
    CLEANUP_FREE struct plot_label *labels = tool_alloc(group->count * sizeof(*labels));
    CLEANUP_FREE const struct perf_result **ends = tool_alloc(group->count * sizeof(*ends));
    enum perf_unit unit = group->results[0]->unit;
    struct frame frame;
    uint32_t count = 0;

    plot_head(plot, group,
              unit == PERF_MESSAGES_PER_S
                  ? " by size, both axes logarithmic, dotted where bandwidth is equal"
                  : " by size, both axes logarithmic");
    plot->y += unit == PERF_MESSAGES_PER_S ? 12 : 0;
    make_frame(&frame, plot, group);
    if (unit == PERF_MESSAGES_PER_S)
        draw_diagonals(&plot->svg, &frame);
    draw_rate_axis(&plot->svg, &frame, unit);
    draw_size_axis(&plot->svg, &frame, group);
    for (uint32_t i = group->count; i > 0; i--) {
        const struct perf_result *result = group->results[i - 1];

        if (!begins_line(group, i - 1))
            continue;
        ends[count] = draw_line(plot, group, &frame, result);
        labels[count].wanted = axis_place(&frame.rates, ends[count]->value.median);
        labels[count].index = count;
        count++;
    }
    plot_spread_labels(labels, count, frame.top + 6, frame.bottom - 2, LABEL_STEP);
    for (uint32_t i = 0; i < count; i++)
        draw_label(plot, group, &frame, &labels[i], ends[labels[i].index]);
    plot->y = frame.bottom + 52;
}
