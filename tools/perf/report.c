/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.c: what was measured, as tables for people: the machine and the trials first, then
 * a table for each measure, then the comparisons with their verdicts and notes.
 *
 * Figures have three digits and a unit each (text.c); whoever computes with them takes JSON or
 * CSV (export.c). Escape sequences only where `file` is a terminal. One thread.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "tools/perf/export.h"
#include "tools/perf/perf.h"
#include "tools/table.h"

const double PERF_PERCENTILES[PERF_PERCENTILE_COUNT] = {50, 90, 99, 99.9, 99.99};

static const char *paint_verdict(const char *cell)
{
    if (strcmp(cell, "met") == 0 || strncmp(cell, "met (", 5) == 0)
        return "\033[32m";
    return strncmp(cell, "missed", 6) == 0 ? "\033[1;31m" : "";
}

static struct table_style style_of(FILE *file)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    if ((no_color && *no_color) || !term || !*term || !isatty(fileno(file)))
        return (struct table_style){.head = "", .plain = ""};
    return (struct table_style){.head = "\033[1m", .plain = "\033[0m", .paint = paint_verdict};
}

/* ---- Heading --------------------------------------------------------------------------------- */

static void print_fact(FILE *file, const char *name, const char *text)
{
    if (*text)
        fprintf(file, "  %-10s %s\n", name, text);
}

static void print_machine(const struct perf_report *report, FILE *file)
{
    const struct perf_machine *machine = &report->machine;
    char line[256];
    char pinned[64] = "not pinned";

    if (report->threads)
        (void)snprintf(pinned, sizeof(pinned), "see threads");
    else if (machine->cpus[0] >= 0 && machine->cpus[1] >= 0)
        (void)snprintf(pinned, sizeof(pinned), "pinned to %d and %d", machine->cpus[0],
                       machine->cpus[1]);
    (void)snprintf(line, sizeof(line), "%s; %" PRIu32 " CPUs, %s", machine->cpu, machine->cpu_count,
                   pinned);
    print_fact(file, "cpu", line);
    print_fact(file, "caches", machine->caches);
    print_fact(file, "hypervisor", *machine->hypervisor ? machine->hypervisor : "none");
    print_fact(file, "kernel", machine->kernel);
    if (*machine->huge_pages) {
        (void)snprintf(line, sizeof(line), "%s, for shared memory", machine->huge_pages);
        print_fact(file, "huge pages", line);
    }
    print_fact(file, "clock", machine->clock);
    print_fact(file, "compiler", machine->compiler);
    print_fact(file, "date", machine->date);
}

static void print_command(const struct perf_report *report, FILE *file)
{
    char line[320];

    (void)snprintf(line, sizeof(line), "%s, of shmq %s", report->command ? report->command : "",
                   shmq_version());
    print_fact(file, "command", report->command ? line : "");
}

static void print_trials(const struct perf_report *report, FILE *file)
{
    char line[256];
    int length = snprintf(line, sizeof(line), "%" PRIu32 " kept", report->trials_kept);

    if (report->trials_mixed > 0)
        length += snprintf(line + length, sizeof(line) - (size_t)length,
                           "; %" PRIu32 " dropped, the distance between the cores changed",
                           report->trials_mixed);
    if (report->trials_preempted > 0)
        (void)snprintf(line + length, sizeof(line) - (size_t)length,
                       "; %" PRIu32 " dropped, somebody else had a core", report->trials_preempted);
    if (report->trials_kept + report->trials_mixed + report->trials_preempted > 0)
        print_fact(file, "trials", line);
}

/* ---- Results --------------------------------------------------------------------------------- */

/* The columns that all tables of results begin with. */
static void add_identity(struct table *table, const struct perf_result *result)
{
    char text[PERF_TEXT_BYTES];

    table_cell(table, "%s", result->transport);
    table_cell(table, "%s", perf_text_size(result->size, text));
    table_cell(table, "%s", result->distance);
    table_cell(table, "%" PRIu32, result->value.count);
}

static void add_spread(struct table *table, const struct perf_spread *spread, enum perf_unit unit)
{
    char text[PERF_TEXT_BYTES];

    if (spread->count == 0)
        table_cell(table, "-");
    else
        table_cell(table, "%s", perf_text_range(spread->low, spread->high, unit, text));
}

static void add_value(struct table *table, const struct perf_spread *spread, enum perf_unit unit)
{
    char text[PERF_TEXT_BYTES];

    table_cell(table, "%s", spread->count == 0 ? "-" : perf_text_value(spread->median, unit, text));
}

static void add_times(struct table *table, const struct perf_result *result)
{
    uint64_t values[PERF_PERCENTILE_COUNT];
    char text[PERF_TEXT_BYTES];

    add_identity(table, result);
    add_spread(table, &result->value, result->unit);
    perf_histogram_at_each(result->histogram, PERF_PERCENTILES, PERF_PERCENTILE_COUNT, values);
    for (size_t i = 0; i < PERF_PERCENTILE_COUNT; i++)
        table_cell(table, "%s", perf_text_value((double)values[i], PERF_NS, text));
    table_cell(table, "%s",
               perf_text_value((double)perf_histogram_max(result->histogram), PERF_NS, text));
}

static bool has_bandwidth(const struct perf_result *result)
{
    return result->unit == PERF_MESSAGES_PER_S && result->size > 0 && result->value.count > 0;
}

/* What the rate is in bytes; "" where that says nothing. */
static void add_bandwidth(struct table *table, const struct perf_result *result)
{
    char text[PERF_TEXT_BYTES];
    double bandwidth = result->value.median * result->size;

    table_cell(table, "%s",
               has_bandwidth(result) ? perf_text_value(bandwidth, PERF_BYTES_PER_S, text) : "");
}

/* Results of one measure with a histogram, or those without: their tables have different columns. */
static bool belongs(const struct perf_result *result, const struct perf_result *first)
{
    return strcmp(result->measure, first->measure) == 0 && !result->histogram == !first->histogram;
}

static bool came_before(const struct perf_report *report, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++) {
        if (belongs(&report->results[i], &report->results[index]))
            return true;
    }
    return false;
}

static bool have_bandwidth(const struct perf_report *report, const struct perf_result *first)
{
    for (uint32_t i = 0; i < report->result_count; i++) {
        if (belongs(&report->results[i], first) && has_bandwidth(&report->results[i]))
            return true;
    }
    return false;
}

static void add_result(struct table *table, const struct perf_result *result, bool bandwidth)
{
    if (result->histogram) {
        add_times(table, result);
        return;
    }
    add_identity(table, result);
    add_value(table, &result->value, result->unit);
    add_spread(table, &result->value, result->unit);
    if (bandwidth)
        add_bandwidth(table, result);
}

static void print_measure(const struct perf_report *report, const struct perf_result *first,
                          FILE *file, const struct table_style *style)
{
    static const char *const TIMES[] = {"transport",      ">size",   "distance", ">trials",
                                        ">p50 of trials", ">p50",    ">p90",     ">p99",
                                        ">p99.9",         ">p99.99", ">max",     NULL};
    static const char *const RATES[] = {"transport", ">size",      "distance",   ">trials",
                                        ">median",   ">quartiles", ">bandwidth", NULL};
    static const char *const VALUES[] = {"transport", ">size",      "distance", ">trials",
                                         ">median",   ">quartiles", NULL};
    bool bandwidth = have_bandwidth(report, first);
    struct table table;

    table_init(&table, first->histogram ? TIMES : bandwidth ? RATES : VALUES);
    for (uint32_t i = 0; i < report->result_count; i++) {
        if (belongs(&report->results[i], first))
            add_result(&table, &report->results[i], bandwidth);
    }
    fprintf(file, "\n%s%s%s\n", style->head, first->measure, style->plain);
    table_write(&table, file, style, 2);
    table_free(&table);
}

/* ---- Comparisons ----------------------------------------------------------------------------- */

const char *perf_verdict_name(enum perf_verdict verdict)
{
    static const char *const NAMES[] = {"", "met", "missed", "not observed"};

    return (size_t)verdict < COUNT_OF(NAMES) ? NAMES[verdict] : "";
}

/* The number under which a note stands below the table: equal notes share one. 0: there is none. */
static uint32_t number_of_note(const struct perf_report *report, uint32_t index)
{
    const struct perf_comparison *all = report->comparisons;
    uint32_t number = 0;

    if (!all[index].note || !*all[index].note)
        return 0;
    for (uint32_t i = 0; i <= index; i++) {
        bool is_new = all[i].note && *all[i].note;

        for (uint32_t k = 0; is_new && k < i; k++)
            is_new = !all[k].note || strcmp(all[k].note, all[i].note) != 0;
        number += is_new;
        if (all[i].note && strcmp(all[i].note, all[index].note) == 0)
            return number;
    }
    return number;
}

static void add_target(struct table *table, const struct perf_comparison *comparison)
{
    const char *sign = comparison->target_is_most ? "≤" : "≥";
    char text[PERF_TEXT_BYTES];

    if (!comparison->has_target)
        table_cell(table, "%s", "");
    else if (*comparison->baseline)
        table_cell(table, "%s %s", sign, perf_text_ratio(comparison->target, text));
    else
        table_cell(table, "%s %s", sign,
                   perf_text_value(comparison->target, comparison->unit, text));
}

static void add_ratio(struct table *table, const struct perf_spread *ratio)
{
    char text[PERF_TEXT_BYTES];
    char high[PERF_TEXT_BYTES];

    table_cell(table, "%s", ratio->count == 0 ? "" : perf_text_ratio(ratio->median, text));
    if (ratio->count == 0)
        table_cell(table, "%s", "");
    else
        table_cell(table, "%s–%s", perf_text_ratio(ratio->low, text),
                   perf_text_ratio(ratio->high, high));
}

static void add_comparison(struct table *table, const struct perf_report *report, uint32_t index,
                           bool has_verdicts)
{
    const struct perf_comparison *comparison = &report->comparisons[index];
    uint32_t note = number_of_note(report, index);
    char what[PERF_WHAT_BYTES];

    table_cell(table, "%s", perf_text_comparison(comparison, what));
    table_cell(table, "%s", comparison->subject);
    add_value(table, &comparison->subject_value, comparison->unit);
    table_cell(table, "%s", comparison->baseline);
    if (*comparison->baseline)
        add_value(table, &comparison->baseline_value, comparison->unit);
    else
        table_cell(table, "%s", "");
    if (*comparison->baseline)
        table_cell(table, "%" PRIu32, comparison->ratio.count);
    else
        table_cell(table, "%s", "");
    add_ratio(table, &comparison->ratio);
    if (!has_verdicts)
        return;
    add_target(table, comparison);
    if (note > 0)
        table_cell(table, "%s (%" PRIu32 ")", perf_verdict_name(comparison->verdict), note);
    else
        table_cell(table, "%s", perf_verdict_name(comparison->verdict));
}

static void print_notes(const struct perf_report *report, FILE *file)
{
    uint32_t said = 0;

    for (uint32_t i = 0; i < report->comparison_count; i++) {
        uint32_t number = number_of_note(report, i);

        if (number <= said)
            continue;
        fprintf(file, "%s  (%" PRIu32 ") %s\n", said == 0 ? "\n" : "", number,
                report->comparisons[i].note);
        said = number;
    }
}

static void print_summary(const struct perf_report *report, FILE *file)
{
    uint32_t counts[4] = {0};

    for (uint32_t i = 0; i < report->comparison_count; i++)
        counts[report->comparisons[i].verdict & 3]++;
    if (counts[PERF_MET] + counts[PERF_MISSED] + counts[PERF_NOT_OBSERVED] == 0)
        return;
    fprintf(file, "\n  %" PRIu32 " met, %" PRIu32 " missed, %" PRIu32 " not observed\n",
            counts[PERF_MET], counts[PERF_MISSED], counts[PERF_NOT_OBSERVED]);
}

/* Without any target or note their columns are left out. */
static bool find_verdicts(const struct perf_report *report)
{
    for (uint32_t i = 0; i < report->comparison_count; i++) {
        const struct perf_comparison *comparison = &report->comparisons[i];

        if (comparison->has_target || comparison->verdict != PERF_NO_TARGET || comparison->note)
            return true;
    }
    return false;
}

static void print_comparisons(const struct perf_report *report, FILE *file,
                              const struct table_style *style)
{
    static const char *const BOTH[] = {"what",    "subject", ">value", "beside",
                                       ">value",  ">pairs",  ">ratio", ">quartiles",
                                       ">target", "verdict", NULL};
    static const char *const RATIOS[] = {"what",   "subject", ">value",     "beside", ">value",
                                         ">pairs", ">ratio",  ">quartiles", NULL};
    bool has_verdicts = find_verdicts(report);
    struct table table;

    if (report->comparison_count == 0)
        return;
    table_init(&table, has_verdicts ? BOTH : RATIOS);
    for (uint32_t i = 0; i < report->comparison_count; i++)
        add_comparison(&table, report, i, has_verdicts);
    fprintf(file, "\n%scomparisons%s\n", style->head, style->plain);
    table_write(&table, file, style, 2);
    print_notes(report, file);
    print_summary(report, file);
    table_free(&table);
}

/* ---- All of it ------------------------------------------------------------------------------- */

static void print_table(const struct perf_report *report, FILE *file)
{
    struct table_style style = style_of(file);

    fprintf(file, "%s%s%s\n", style.head, report->title, style.plain);
    print_machine(report, file);
    print_fact(file, "disk", report->disk ? report->disk : "");
    print_fact(file, "threads", report->threads ? report->threads : "");
    print_command(report, file);
    print_trials(report, file);
    for (uint32_t i = 0; i < report->result_count; i++) {
        if (!came_before(report, i))
            print_measure(report, &report->results[i], file, &style);
    }
    print_comparisons(report, file, &style);
}

void perf_report_print(const struct perf_report *report, enum perf_format format, FILE *file)
{
    switch (format) {
    case PERF_TABLE:
        print_table(report, file);
        break;
    case PERF_JSON:
        perf_export_json(report, file);
        break;
    case PERF_CSV:
        perf_export_csv(report, file);
        break;
    }
}
