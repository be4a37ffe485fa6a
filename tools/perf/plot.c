/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plot.c: a report as a picture: the heading with the machine, then a panel for the
 * comparisons and one for each measure; and what the panels have in common.
 *
 * Everything is drawn into memory, then written at once: a plot is whole or not there. Any report makes
 * a valid document, an empty one as well. One thread; blocks on the file only.
 */
#include "tools/perf/plot.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tools/cli.h"

/* ---- Looks that panels share ----------------------------------------------------------------- */

/* How many different texts stand before the first `text`, empty ones not counted; `offset` is the
 * field's in a result. */
static unsigned ordinal(const struct plot *plot, size_t offset, const char *text)
{
    const struct perf_report *report = plot->report;
    unsigned before = 0;

    for (uint32_t i = 0; i < report->result_count; i++) {
        const char *field = (const char *)&report->results[i] + offset;
        bool seen = !*field;

        if (strcmp(field, text) == 0)
            return before;
        for (uint32_t k = 0; k < i && !seen; k++)
            seen = strcmp((const char *)&report->results[k] + offset, field) == 0;
        before += !seen;
    }
    return before;
}

unsigned plot_color(const struct plot *plot, const char *transport)
{
    return ordinal(plot, offsetof(struct perf_result, transport), transport) % SVG_COLORS;
}

/* A distance has one kind of dashes; where colours come round again, so do other dashes. */
static unsigned dash_of(const struct plot *plot, const struct perf_result *result)
{
    unsigned lap =
        ordinal(plot, offsetof(struct perf_result, transport), result->transport) / SVG_COLORS;
    unsigned distance = 0;

    if (*result->distance)
        distance = ordinal(plot, offsetof(struct perf_result, distance), result->distance);
    return (distance + 2 * lap) % SVG_DASHES;
}

const char *plot_line_style(const struct plot *plot, const struct perf_result *result,
                            char ret_style[32])
{
    (void)snprintf(ret_style, 32, "line l%u d%u", plot_color(plot, result->transport),
                   dash_of(plot, result));
    return ret_style;
}

static void append_part(char label[SVG_TEXT_BYTES], const char *part)
{
    size_t length = strlen(label);

    if (*part)
        (void)snprintf(label + length, SVG_TEXT_BYTES - length, "%s%s", length > 0 ? ", " : "",
                       part);
}

const char *plot_label(const struct plot_group *group, const struct perf_result *result,
                       char ret_label[SVG_TEXT_BYTES])
{
    char size[PERF_TEXT_BYTES];

    ret_label[0] = '\0';
    if (!group->same_transport)
        append_part(ret_label, result->transport);
    if (!group->same_size)
        append_part(ret_label, perf_text_size(result->size, size));
    if (!group->same_distance)
        append_part(ret_label, result->distance);
    if (!*ret_label) /* they share everything, or there is but one */
        append_part(ret_label, result->transport);
    return ret_label;
}

const char *plot_unit_name(enum perf_unit unit)
{
    static const char *const NAMES[] = {
        [PERF_NS] = "time",
        [PERF_MESSAGES_PER_S] = "messages a second",
        [PERF_BYTES_PER_S] = "bytes a second",
        [PERF_OPERATIONS_PER_S] = "operations a second",
        [PERF_COUNT] = "number",
        [PERF_BYTES] = "memory",
    };

    return (size_t)unit < COUNT_OF(NAMES) ? NAMES[unit] : "";
}

static bool lower_is_better(enum perf_unit unit)
{
    return unit == PERF_NS || unit == PERF_COUNT || unit == PERF_BYTES;
}

void plot_head(struct plot *plot, const struct plot_group *group, const char *explanation)
{
    const struct perf_result *first = group->results[0];
    char head[SVG_TEXT_BYTES] = "";
    char size[PERF_TEXT_BYTES];

    append_part(head, first->measure);
    if (group->same_transport && group->count > 1)
        append_part(head, first->transport);
    if (group->same_size)
        append_part(head, perf_text_size(first->size, size));
    if (group->same_distance)
        append_part(head, first->distance);
    svg_text(&plot->svg, PLOT_MARGIN, plot->y + 14, SVG_START, "head", "%s", head);
    svg_text(&plot->svg, PLOT_MARGIN, plot->y + 32, SVG_START, "mute", "%s%s; %s is better",
             plot_unit_name(first->unit), explanation,
             lower_is_better(first->unit) ? "lower" : "higher");
    plot->y += 48;
}

static int compare_labels(const void *left, const void *right)
{
    const struct plot_label *a = left;
    const struct plot_label *b = right;

    if (a->wanted != b->wanted)
        return a->wanted < b->wanted ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

/* Those that would overlap form a block, which stands centred on what its members want. */
void plot_spread_labels(struct plot_label *labels, uint32_t count, double top, double bottom,
                        double distance)
{
    qsort(labels, count, sizeof(*labels), compare_labels);
    for (uint32_t i = 0; i < count; i++)
        labels[i].y = labels[i].wanted;
    for (uint32_t round = 0; round < 200; round++) {
        bool moved = false;

        for (uint32_t i = 0; i + 1 < count; i++) {
            double missing = distance - (labels[i + 1].y - labels[i].y);

            if (missing <= 0.01)
                continue;
            labels[i].y -= missing / 2;
            labels[i + 1].y += missing / 2;
            moved = true;
        }
        if (!moved)
            break;
    }
    /* The bounds last, from below and then from above: the top one holds if there is not room for all. */
    for (uint32_t i = count; i > 0; i--)
        labels[i - 1].y = fmin(labels[i - 1].y, i == count ? bottom : labels[i].y - distance);
    for (uint32_t i = 0; i < count; i++)
        labels[i].y = fmax(labels[i].y, i == 0 ? top : labels[i - 1].y + distance);
}

/* ---- The heading ----------------------------------------------------------------------------- */

/* Facts in a row, with dots between them; a new line where the next one would not fit. */
struct facts {
    struct plot *plot;
    char line[SVG_TEXT_BYTES];
};

static void end_line(struct facts *facts)
{
    if (!*facts->line)
        return;
    svg_text(&facts->plot->svg, PLOT_MARGIN, facts->plot->y + 12, SVG_START, "mute", "%s",
             facts->line);
    facts->plot->y += 18;
    facts->line[0] = '\0';
}

static void add_fact(struct facts *facts, const char *fact)
{
    char longer[SVG_TEXT_BYTES];

    if (!*fact)
        return;
    (void)snprintf(longer, sizeof(longer), "%.120s%s%.120s", facts->line,
                   *facts->line ? "  ·  " : "", fact);
    if (svg_text_width(longer, 12) > PLOT_RIGHT - PLOT_MARGIN) {
        end_line(facts);
        (void)snprintf(longer, sizeof(longer), "%.120s", fact);
    }
    (void)snprintf(facts->line, sizeof(facts->line), "%s", longer);
}

static void add_trials(struct facts *facts)
{
    const struct perf_report *report = facts->plot->report;
    uint32_t dropped = report->trials_mixed + report->trials_preempted;
    char text[64];

    if (report->trials_kept + dropped == 0)
        return;
    (void)snprintf(text, sizeof(text), "%" PRIu32 " trials, %" PRIu32 " dropped",
                   report->trials_kept + dropped, dropped);
    add_fact(facts, text);
}

/* On as many lines as it takes. */
static void draw_title(struct plot *plot)
{
    const char *rest = plot->report->title;

    while (*rest) {
        size_t length = svg_break(rest, PLOT_RIGHT - PLOT_MARGIN, 20);

        svg_text(&plot->svg, PLOT_MARGIN, plot->y + 18, SVG_START, "title", "%.*s", (int)length,
                 rest);
        rest += length;
        rest += strspn(rest, " ");
        plot->y += 26;
    }
    plot->y += 6;
}

static void draw_heading(struct plot *plot)
{
    const struct perf_machine *machine = &plot->report->machine;
    struct facts facts = {.plot = plot};
    char text[SVG_TEXT_BYTES];

    draw_title(plot);
    add_fact(&facts, machine->cpu);
    if (machine->cpus[0] >= 0 && machine->cpus[1] >= 0) {
        (void)snprintf(text, sizeof(text), "CPUs %d and %d of %" PRIu32, machine->cpus[0],
                       machine->cpus[1], machine->cpu_count);
        add_fact(&facts, text);
    }
    add_fact(&facts, machine->hypervisor);
    add_fact(&facts, machine->kernel);
    add_fact(&facts, machine->clock);
    add_trials(&facts);
    add_fact(&facts, machine->date);
    end_line(&facts);
    plot->y += 22;
}

/* ---- Panels ---------------------------------------------------------------------------------- */

static bool belongs(const struct perf_result *result, const struct perf_result *first)
{
    return strcmp(result->measure, first->measure) == 0 && result->unit == first->unit &&
           !result->histogram == !first->histogram;
}

/* One line a transport makes sense if at least one of them was measured with several sizes. */
static bool has_lines(const struct plot_group *group)
{
    for (uint32_t i = 0; i < group->count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            const struct perf_result *a = group->results[i];
            const struct perf_result *b = group->results[k];

            if (a->size > 0 && b->size > 0 && a->size != b->size &&
                strcmp(a->transport, b->transport) == 0 && strcmp(a->distance, b->distance) == 0)
                return true;
        }
    }
    return false;
}

static void draw_group(struct plot *plot, const struct plot_group *group)
{
    if (group->results[0]->histogram)
        plot_percentiles(plot, group);
    else if (has_lines(group))
        plot_rates(plot, group);
    else
        plot_bars(plot, group);
}

/* The group that result `first` begins; nothing if it belongs to an earlier one. */
static void draw_group_of(struct plot *plot, uint32_t first)
{
    const struct perf_report *report = plot->report;
    CLEANUP_FREE const struct perf_result **members =
        tool_alloc(report->result_count * sizeof(*members));
    struct plot_group group = {members, 0, true, true, true};

    for (uint32_t i = 0; i < report->result_count; i++) {
        const struct perf_result *result = &report->results[i];

        if (!belongs(result, &report->results[first]))
            continue;
        if (i < first)
            return;
        members[group.count++] = result;
        group.same_transport &= strcmp(result->transport, members[0]->transport) == 0;
        group.same_distance &= strcmp(result->distance, members[0]->distance) == 0;
        group.same_size &= result->size == members[0]->size;
    }
    draw_group(plot, &group);
}

int perf_plot_write(const struct perf_report *report, const char *path)
{
    struct plot plot = {.report = report, .y = 24};
    FILE *file = fopen(path, "we");
    int failed = 0;

    if (file) {
        draw_heading(&plot);
        plot_comparisons(&plot);
        for (uint32_t i = 0; i < report->result_count; i++)
            draw_group_of(&plot, i);
        if (report->result_count + report->comparison_count == 0) {
            svg_text(&plot.svg, PLOT_MARGIN, plot.y + 12, SVG_START, "mute",
                     "nothing was measured");
            plot.y += 32;
        }
        svg_finish(&plot.svg, report->title, plot.y, file);
        failed = ferror(file);
        failed |= fclose(file);
    }
    if (file && !failed)
        return 0;
    return cli_fail(-1, "plot: %s: %s; name a file that can be written", path, strerror(errno));
}
