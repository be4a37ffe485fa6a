/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plot_ratio.c: the panels of comparisons. A row each: what it is and the two values in words,
 * a bar from 1 (as good as the other) to the ratio on a logarithmic axis, its quartiles as a whisker, a
 * tick at the target, the verdict to the right and as the bar's colour.
 *
 * Figures that have a target but nothing beside them (instructions, memory) come in a panel of their
 * own, as shares of what they may be, from zero. Rows whose names are equal up to a comma or colon stand
 * together, with that as their heading, in the order in which they came.
 */
#include <math.h>
#include <string.h>

#include "tools/perf/plot.h"

#define ROW          36.0
#define HEADING      28.0
#define BAR          12.0
#define LINE         15.0 /* more for each further line of a name */
#define NAMES_MAX    360.0
#define VALUE_SPACE  44.0 /* beyond both ends of the axis: the value beside a bar's end */
#define TARGET_SPACE 84.0
#define RIGHT_SPACE  170.0
#define LIMITS_MAX   3.0 /* of the axis of figures; what is beyond is cut, its value says more */

/* What is drawn of a comparison: a ratio and its target, or a figure in units of its limit. */
struct row {
    const struct perf_comparison *comparison;
    bool has_value, has_target;
    double low, median, high, target;
};

struct panel {
    bool paired; /* ratios; else figures beside their limits */
    struct row *rows;
    uint32_t count;
    bool has_groups; /* what names have in common are headings */
    bool has_targets;
    double names; /* width of their column */
    double left, right, top, bottom;
    struct axis axis;
};

static bool is_of(const struct panel *panel, const struct perf_comparison *comparison)
{
    return panel->paired == (*comparison->baseline != '\0');
}

static struct row make_row(const struct panel *panel, const struct perf_comparison *comparison)
{
    const struct perf_spread *spread =
        panel->paired ? &comparison->ratio : &comparison->subject_value;
    double unit = panel->paired || !(comparison->target > 0) ? 1 : comparison->target;

    return (struct row){
        .comparison = comparison,
        .has_value = spread->count > 0 && (panel->paired || comparison->has_target),
        .has_target = comparison->has_target,
        .low = spread->low / unit,
        .median = spread->median / unit,
        .high = spread->high / unit,
        .target = comparison->target / unit,
    };
}

/* ---- Rows and groups ------------------------------------------------------------------------- */

/* How much of a name is its group's. */
static size_t group_of(const char *what)
{
    return strcspn(what, ",:");
}

static bool same_group(const struct perf_comparison *a, const struct perf_comparison *b)
{
    size_t length = group_of(a->what);

    return length == group_of(b->what) && strncmp(a->what, b->what, length) == 0;
}

static bool is_new_group(const struct panel *panel, const struct perf_comparison *comparison)
{
    for (uint32_t i = 0; i < panel->count; i++) {
        if (same_group(panel->rows[i].comparison, comparison))
            return false;
    }
    return true;
}

/* All of one group, or of all groups if there is none. */
static void add_rows(struct panel *panel, const struct perf_report *report,
                     const struct perf_comparison *group)
{
    for (uint32_t i = 0; i < report->comparison_count; i++) {
        const struct perf_comparison *comparison = &report->comparisons[i];

        if (!is_of(panel, comparison) || (group && !same_group(comparison, group)))
            continue;
        panel->rows[panel->count++] = make_row(panel, comparison);
        panel->has_targets |= comparison->has_target || comparison->verdict != PERF_NO_TARGET;
    }
}

/* Headings help where they gather rows: half of them at least must not begin a group. */
static void collect_rows(struct panel *panel, const struct perf_report *report)
{
    uint32_t groups = 0;

    for (uint32_t i = 0; i < report->comparison_count; i++) {
        const struct perf_comparison *comparison = &report->comparisons[i];

        if (!is_of(panel, comparison) || !is_new_group(panel, comparison))
            continue;
        groups++;
        add_rows(panel, report, comparison);
    }
    panel->has_groups = panel->count >= 2 * groups;
    if (panel->has_groups)
        return;
    panel->count = 0;
    add_rows(panel, report, NULL);
}

static bool begins_group(const struct panel *panel, uint32_t index)
{
    return panel->has_groups && (index == 0 || !same_group(panel->rows[index - 1].comparison,
                                                           panel->rows[index].comparison));
}

/* Without what stands above it. */
static const char *name_of(const struct panel *panel, const struct perf_comparison *comparison,
                           char text[PERF_WHAT_BYTES])
{
    const char *rest = perf_text_comparison(comparison, text) + group_of(comparison->what);

    rest += strspn(rest, " ,:");
    return panel->has_groups && *rest ? rest : text;
}

/* The second line of a row: "shmq 58.3 M/s ÷ ideal, cached 25.2 M/s". */
static void say_values(const struct perf_comparison *c, char ret_text[SVG_TEXT_BYTES])
{
    char subject[PERF_TEXT_BYTES] = "", baseline[PERF_TEXT_BYTES] = "";

    if (c->subject_value.count > 0)
        (void)perf_text_value(c->subject_value.median, c->unit, subject);
    if (c->baseline_value.count > 0)
        (void)perf_text_value(c->baseline_value.median, c->unit, baseline);
    if (*c->baseline)
        (void)snprintf(ret_text, SVG_TEXT_BYTES, "%s %.40s ÷ %s %.40s", c->subject, subject,
                       c->baseline, baseline);
    else
        (void)snprintf(ret_text, SVG_TEXT_BYTES, "%s %.40s", c->subject, subject);
}

/* ---- The frame ------------------------------------------------------------------------------- */

static void include_row(struct panel *panel, const struct row *row)
{
    if (row->has_value) {
        axis_include(&panel->axis, row->low);
        axis_include(&panel->axis, row->median);
        axis_include(&panel->axis, row->high);
    }
    if (row->has_target)
        axis_include(&panel->axis, row->target);
}

static double height_of(const struct panel *panel, const struct perf_comparison *comparison)
{
    char name[PERF_WHAT_BYTES];
    double height = ROW;
    const char *rest = name_of(panel, comparison, name);

    for (rest += svg_break(rest, panel->names, 12); *rest;
         rest += svg_break(rest, panel->names, 12)) {
        rest += strspn(rest, " ");
        height += LINE;
    }
    return height;
}

/* The columns and the axis; rows are as high as their names are long. */
static void make_panel(struct panel *panel, double top)
{
    double widest = 0;

    axis_begin_log(&panel->axis);
    axis_include(&panel->axis, 1);
    for (uint32_t i = 0; i < panel->count; i++) {
        const struct perf_comparison *comparison = panel->rows[i].comparison;
        char values[SVG_TEXT_BYTES], name[PERF_WHAT_BYTES];

        include_row(panel, &panel->rows[i]);
        say_values(comparison, values);
        widest = fmax(widest, svg_text_width(name_of(panel, comparison, name), 12));
        widest = fmax(widest, svg_text_width(values, 11));
    }
    if (panel->paired)
        axis_end(&panel->axis, 3);
    else
        axis_make_linear(&panel->axis, fmin(panel->axis.high, LIMITS_MAX));
    panel->names = fmin(widest + 1, NAMES_MAX);
    panel->left = PLOT_MARGIN + panel->names + 15;
    panel->right = PLOT_RIGHT - (panel->has_targets ? RIGHT_SPACE : 0);
    panel->axis.from_px = panel->left + (panel->paired ? VALUE_SPACE : 0);
    panel->axis.to_px = panel->right - VALUE_SPACE;
    panel->top = panel->bottom = top;
    for (uint32_t i = 0; i < panel->count; i++)
        panel->bottom +=
            height_of(panel, panel->rows[i].comparison) + (begins_group(panel, i) ? HEADING : 0);
}

/* Ticks above and below: panels are higher than a screen. */
static void draw_axis(struct svg *svg, const struct panel *panel)
{
    double ticks[AXIS_TICKS_MAX];
    uint32_t most = (uint32_t)((panel->axis.to_px - panel->axis.from_px) / 46);
    uint32_t count = axis_ticks(&panel->axis, most, ticks);
    double start = axis_place(&panel->axis, panel->paired ? 1 : 0);

    for (uint32_t i = 0; i < count; i++) {
        double x = axis_place(&panel->axis, ticks[i]);
        char text[32];

        if (panel->paired)
            (void)snprintf(text, sizeof(text), "%.4g×", ticks[i]);
        else
            (void)snprintf(text, sizeof(text), "%.0f %%", ticks[i] * 100);
        svg_line(svg, x, panel->top, x, panel->bottom, "grid");
        svg_text(svg, x, panel->top - 7, SVG_MIDDLE, "mute small", "%s", text);
        svg_text(svg, x, panel->bottom + 16, SVG_MIDDLE, "mute small", "%s", text);
    }
    svg_line(svg, start, panel->top, start, panel->bottom, "axis");
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static const char *color_of(enum perf_verdict verdict)
{
    switch (verdict) {
    case PERF_MET:
        return "met";
    case PERF_MISSED:
        return "missed";
    case PERF_NOT_OBSERVED:
        return "absent";
    case PERF_NO_TARGET:
        break;
    }
    return "plain";
}

static void draw_bar(struct svg *svg, const struct panel *panel, const struct row *row, double y)
{
    const struct perf_comparison *comparison = row->comparison;
    double one = axis_place(&panel->axis, panel->paired ? 1 : 0);
    double end = axis_place(&panel->axis, row->median);
    double low = axis_place(&panel->axis, row->low);
    double high = axis_place(&panel->axis, row->high);
    double target = row->has_target ? axis_place(&panel->axis, row->target) : end;
    char text[PERF_TEXT_BYTES];

    svg_rect(svg, fmin(one, end), y - BAR / 2, fmax(fabs(end - one), 2), BAR, 2,
             color_of(comparison->verdict));
    if (high - low >= 2) {
        svg_line(svg, low, y, high, y, "spread");
        svg_line(svg, low, y - 3, low, y + 3, "spread");
        svg_line(svg, high, y - 3, high, y + 3, "spread");
    }
    if (panel->paired)
        (void)perf_text_ratio(row->median, text);
    else
        (void)perf_text_value(comparison->subject_value.median, comparison->unit, text);
    /* Beside the end, and beyond the target's tick if that is just there. */
    if (end >= one) {
        double x = fmax(fmax(end, high), one);

        if (target >= x - 2 && target < x + 8 + svg_text_width(text, 12))
            x = target;
        svg_text(svg, x + 7, y + 4, SVG_START, "bold", "%s%s", text, panel->paired ? "×" : "");
    } else {
        double x = fmin(end, low);

        if (target <= x + 2 && target > x - 8 - svg_text_width(text, 12))
            x = target;
        svg_text(svg, x - 7, y + 4, SVG_END, "bold", "%s%s", text, panel->paired ? "×" : "");
    }
}

static void draw_verdict(struct svg *svg, const struct panel *panel, const struct row *row,
                         double y)
{
    const struct perf_comparison *comparison = row->comparison;
    char text[PERF_TEXT_BYTES];

    if (row->has_target)
        svg_text(svg, panel->right + TARGET_SPACE, y + 4, SVG_END, "mute", "%s %s",
                 comparison->target_is_most ? "≤" : "≥",
                 panel->paired ? perf_text_ratio(comparison->target, text)
                               : perf_text_value(comparison->target, comparison->unit, text));
    if (comparison->verdict == PERF_MET)
        svg_text(svg, PLOT_RIGHT, y + 4, SVG_END, "bold metx", "met");
    else if (comparison->verdict == PERF_MISSED)
        svg_text(svg, PLOT_RIGHT, y + 4, SVG_END, "bold missedx", "missed");
    else if (comparison->verdict == PERF_NOT_OBSERVED)
        svg_text(svg, PLOT_RIGHT, y + 4, SVG_END, "mute small", "not observed");
}

static void draw_names(struct svg *svg, const struct panel *panel, const struct row *row,
                       const char *values, double y)
{
    char name[PERF_WHAT_BYTES], fitted[SVG_TEXT_BYTES];
    const char *rest = name_of(panel, row->comparison, name);

    for (; *rest; y += LINE) {
        size_t length = svg_break(rest, panel->names, 12);

        svg_text(svg, PLOT_MARGIN, y, SVG_START, "", "%.*s", (int)length, rest);
        rest += length;
        rest += strspn(rest, " ");
    }
    svg_text(svg, PLOT_MARGIN, y, SVG_START, "mute small", "%s",
             svg_fit(values, panel->names, 11, fitted));
}

static void draw_row(struct plot *plot, const struct panel *panel, const struct row *row,
                     double top)
{
    double bottom = top + height_of(panel, row->comparison);
    double middle = (top + bottom) / 2;
    char values[SVG_TEXT_BYTES], title[2 * SVG_TEXT_BYTES];
    const char *note = row->comparison->note;
    struct svg *svg = &plot->svg;

    say_values(row->comparison, values);
    (void)snprintf(title, sizeof(title), "%s: %s%s%s", row->comparison->what, values,
                   note ? "; " : "", note ? note : "");
    svg_group_begin(svg, title);
    svg_line(svg, PLOT_MARGIN, bottom, PLOT_RIGHT, bottom, "faint");
    draw_names(svg, panel, row, values, top + 15);
    if (row->has_target) {
        double x = axis_place(&panel->axis, row->target);

        svg_line(svg, x, middle - 11, x, middle + 11, "mark");
    }
    if (row->has_value)
        draw_bar(svg, panel, row, middle);
    draw_verdict(svg, panel, row, middle);
    svg_group_end(svg);
}

static void draw_rows(struct plot *plot, const struct panel *panel)
{
    double y = panel->top;

    for (uint32_t i = 0; i < panel->count; i++) {
        const char *what = panel->rows[i].comparison->what;

        if (begins_group(panel, i)) {
            svg_text(&plot->svg, PLOT_MARGIN, y + 19, SVG_START, "bold", "%.*s",
                     (int)group_of(what), what);
            y += HEADING;
        }
        draw_row(plot, panel, &panel->rows[i], y);
        y += height_of(panel, panel->rows[i].comparison);
    }
}

static void draw_panel(struct plot *plot, bool paired)
{
    CLEANUP_FREE struct row *rows = tool_alloc(plot->report->comparison_count * sizeof(*rows));
    struct panel panel = {.paired = paired, .rows = rows};

    collect_rows(&panel, plot->report);
    if (panel.count == 0)
        return;
    svg_text(&plot->svg, PLOT_MARGIN, plot->y + 14, SVG_START, "head", "%s",
             paired ? "ratios" : "figures beside their limits");
    svg_text(&plot->svg, PLOT_MARGIN, plot->y + 32, SVG_START, "mute", "%s%s",
             paired ? "of trials in pairs: median and quartiles, logarithmic axis"
                    : "as shares of what they may be",
             paired && panel.has_targets ? ", a tick at the target" : "");
    make_panel(&panel, plot->y + 70);
    draw_axis(&plot->svg, &panel);
    draw_rows(plot, &panel);
    plot->y = panel.bottom + 52;
}

void plot_comparisons(struct plot *plot)
{
    draw_panel(plot, true);
    draw_panel(plot, false);
}
