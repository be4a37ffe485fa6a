/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.c: a report for programs: JSON, CSV, and HdrHistogram's .hgrm files.
 *
 * Base units only: nanoseconds, bytes, per second. A figure that was not observed has count 0 and no
 * values (null in JSON, empty in CSV), so that nobody averages zeros. One thread; blocks on the file only.
 */
#include "tools/perf/export.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/json.h"

static const char *name_of_unit(enum perf_unit unit)
{
    static const char *const NAMES[] = {
        [PERF_NS] = "ns",
        [PERF_MESSAGES_PER_S] = "messages/s",
        [PERF_BYTES_PER_S] = "bytes/s",
        [PERF_OPERATIONS_PER_S] = "operations/s",
        [PERF_COUNT] = "count",
        [PERF_BYTES] = "bytes",
    };

    return (size_t)unit < COUNT_OF(NAMES) ? NAMES[unit] : "";
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_figure(struct json *json, const char *key, const struct perf_spread *spread,
                       double value)
{
    json_real(json, key, spread->count > 0 ? value : NAN);
}

static void put_spread(struct json *json, const char *key, const struct perf_spread *spread)
{
    json_object_begin(json, key);
    put_figure(json, "median", spread, spread->median);
    put_figure(json, "low_quartile", spread, spread->low);
    put_figure(json, "high_quartile", spread, spread->high);
    put_figure(json, "min", spread, spread->min);
    put_figure(json, "max", spread, spread->max);
    json_number(json, "count", spread->count);
    json_object_end(json);
}

static void put_histogram(struct json *json, const struct perf_histogram *histogram)
{
    uint64_t values[PERF_PERCENTILE_COUNT];
    char key[PERF_TEXT_BYTES];

    if (!histogram) {
        json_null(json, "histogram");
        return;
    }
    perf_histogram_at_each(histogram, PERF_PERCENTILES, PERF_PERCENTILE_COUNT, values);
    json_object_begin(json, "histogram");
    json_number(json, "count", perf_histogram_count(histogram));
    json_real(json, "mean_ns", perf_histogram_mean(histogram));
    json_real(json, "deviation_ns", perf_histogram_deviation(histogram));
    json_number(json, "max_ns", perf_histogram_max(histogram));
    json_number(json, "clamped", histogram->clamped);
    json_object_begin(json, "percentiles_ns");
    for (size_t i = 0; i < PERF_PERCENTILE_COUNT; i++)
        json_number(json, perf_text_percentile(PERF_PERCENTILES[i], key), values[i]);
    json_object_end(json);
    json_object_end(json);
}

static void put_machine(struct json *json, const struct perf_machine *machine)
{
    json_object_begin(json, "machine");
    json_string(json, "cpu", machine->cpu);
    json_number(json, "cpu_count", machine->cpu_count);
    json_array_begin(json, "cpus");
    for (size_t i = 0; i < COUNT_OF(machine->cpus); i++) {
        if (machine->cpus[i] >= 0)
            json_number(json, NULL, (uint64_t)machine->cpus[i]);
    }
    json_array_end(json);
    json_string(json, "hypervisor", machine->hypervisor);
    json_string(json, "kernel", machine->kernel);
    json_string(json, "clock", machine->clock);
    json_string(json, "caches", machine->caches);
    json_string(json, "huge_pages", machine->huge_pages);
    json_string(json, "compiler", machine->compiler);
    json_string(json, "date", machine->date);
    json_object_end(json);
}

/* Left out where it does not apply. */
static void put_fact(struct json *json, const char *key, const char *text)
{
    if (text)
        json_string(json, key, text);
}

static void put_result(struct json *json, const struct perf_result *result)
{
    json_object_begin(json, NULL);
    json_string(json, "measure", result->measure);
    json_string(json, "transport", result->transport);
    json_string(json, "distance", result->distance);
    json_number(json, "size", result->size);
    json_string(json, "unit", name_of_unit(result->unit));
    put_spread(json, "value", &result->value);
    put_histogram(json, result->histogram);
    json_object_end(json);
}

static void put_comparison(struct json *json, const struct perf_comparison *comparison)
{
    json_object_begin(json, NULL);
    json_string(json, "what", comparison->what);
    json_string(json, "subject", comparison->subject);
    json_string(json, "baseline", comparison->baseline);
    json_string(json, "distance", comparison->distance);
    json_number(json, "size", comparison->size);
    json_string(json, "unit", name_of_unit(comparison->unit));
    put_spread(json, "subject_value", &comparison->subject_value);
    put_spread(json, "baseline_value", &comparison->baseline_value);
    put_spread(json, "ratio", &comparison->ratio);
    json_real(json, "target", comparison->has_target ? comparison->target : NAN);
    if (comparison->has_target)
        json_string(json, "target_is", comparison->target_is_most ? "most" : "least");
    else
        json_null(json, "target_is");
    if (comparison->verdict == PERF_NO_TARGET)
        json_null(json, "verdict");
    else
        json_string(json, "verdict", perf_verdict_name(comparison->verdict));
    if (comparison->note)
        json_string(json, "note", comparison->note);
    else
        json_null(json, "note");
    json_object_end(json);
}

void perf_export_json(const struct perf_report *report, FILE *file)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_string(&json, "title", report->title);
    json_string(&json, "version", shmq_version());
    if (report->command)
        json_string(&json, "command", report->command);
    else
        json_null(&json, "command");
    put_machine(&json, &report->machine);
    put_fact(&json, "disk", report->disk);
    put_fact(&json, "threads", report->threads);
    json_object_begin(&json, "trials");
    json_number(&json, "kept", report->trials_kept);
    json_number(&json, "mixed", report->trials_mixed);
    json_number(&json, "preempted", report->trials_preempted);
    json_object_end(&json);
    json_array_begin(&json, "results");
    for (uint32_t i = 0; i < report->result_count; i++)
        put_result(&json, &report->results[i]);
    json_array_end(&json);
    json_array_begin(&json, "comparisons");
    for (uint32_t i = 0; i < report->comparison_count; i++)
        put_comparison(&json, &report->comparisons[i]);
    json_array_end(&json);
    json_object_end(&json);
    (void)fwrite(out.data, 1, out.length, file);
    outbuf_free(&out);
}

/* ---- CSV ------------------------------------------------------------------------------------- */

/* Fields are quoted where RFC 4180 wants it. `first`: no comma in front. */
static void put_text(FILE *file, const char *text, bool first)
{
    if (!first)
        fputc(',', file);
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, file);
        return;
    }
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

static void put_real(FILE *file, double value, bool is_known)
{
    fputc(',', file);
    if (is_known && isfinite(value))
        fprintf(file, "%.15g", value);
}

static void put_count(FILE *file, uint64_t count, bool is_known)
{
    fputc(',', file);
    if (is_known)
        fprintf(file, "%" PRIu64, count);
}

static void put_csv_spread(FILE *file, const struct perf_spread *spread)
{
    bool known = spread && spread->count > 0;

    put_real(file, known ? spread->median : 0, known);
    put_real(file, known ? spread->low : 0, known);
    put_real(file, known ? spread->high : 0, known);
    put_real(file, known ? spread->min : 0, known);
    put_real(file, known ? spread->max : 0, known);
    put_count(file, spread ? spread->count : 0, spread != NULL);
}

static void put_csv_times(FILE *file, const struct perf_histogram *histogram)
{
    uint64_t values[PERF_PERCENTILE_COUNT] = {0};

    if (histogram)
        perf_histogram_at_each(histogram, PERF_PERCENTILES, PERF_PERCENTILE_COUNT, values);
    put_count(file, histogram ? perf_histogram_count(histogram) : 0, histogram != NULL);
    put_real(file, histogram ? perf_histogram_mean(histogram) : 0, histogram != NULL);
    for (size_t i = 0; i < PERF_PERCENTILE_COUNT; i++)
        put_count(file, values[i], histogram != NULL);
    put_count(file, histogram ? perf_histogram_max(histogram) : 0, histogram != NULL);
}

static void put_csv_head(FILE *file)
{
    static const char *const SPREADS[] = {"value", "baseline", "ratio"};
    static const char *const FIGURES[] = {"median", "low_quartile", "high_quartile",
                                          "min",    "max",          "count"};
    char percentile[PERF_TEXT_BYTES];

    fputs("kind,what,transport,baseline,distance,size,unit", file);
    for (size_t i = 0; i < COUNT_OF(SPREADS); i++) {
        for (size_t k = 0; k < COUNT_OF(FIGURES); k++)
            fprintf(file, ",%s_%s", SPREADS[i], FIGURES[k]);
    }
    fputs(",messages,mean_ns", file);
    for (size_t i = 0; i < PERF_PERCENTILE_COUNT; i++)
        fprintf(file, ",p%s_ns", perf_text_percentile(PERF_PERCENTILES[i], percentile));
    fputs(",max_ns,target,target_is,verdict,note,cpu,hypervisor,kernel,clock,date,command\r\n",
          file);
}

static void put_csv_machine(FILE *file, const struct perf_report *report)
{
    const struct perf_machine *machine = &report->machine;

    put_text(file, machine->cpu, false);
    put_text(file, machine->hypervisor, false);
    put_text(file, machine->kernel, false);
    put_text(file, machine->clock, false);
    put_text(file, machine->date, false);
    put_text(file, report->command ? report->command : "", false);
    fputs("\r\n", file);
}

static void put_csv_result(FILE *file, const struct perf_result *result)
{
    put_text(file, "result", true);
    put_text(file, result->measure, false);
    put_text(file, result->transport, false);
    put_text(file, "", false);
    put_text(file, result->distance, false);
    put_count(file, result->size, result->size > 0);
    put_text(file, name_of_unit(result->unit), false);
    put_csv_spread(file, &result->value);
    put_csv_spread(file, NULL);
    put_csv_spread(file, NULL);
    put_csv_times(file, result->histogram);
    fputs(",,,,", file); /* target and what belongs to it */
}

static void put_csv_comparison(FILE *file, const struct perf_comparison *comparison)
{
    bool paired = *comparison->baseline != '\0';

    put_text(file, "comparison", true);
    put_text(file, comparison->what, false);
    put_text(file, comparison->subject, false);
    put_text(file, comparison->baseline, false);
    put_text(file, comparison->distance, false);
    put_count(file, comparison->size, comparison->size > 0);
    put_text(file, name_of_unit(comparison->unit), false);
    put_csv_spread(file, &comparison->subject_value);
    put_csv_spread(file, paired ? &comparison->baseline_value : NULL);
    put_csv_spread(file, paired ? &comparison->ratio : NULL);
    put_csv_times(file, NULL);
    put_real(file, comparison->target, comparison->has_target);
    put_text(file,
             !comparison->has_target      ? ""
             : comparison->target_is_most ? "most"
                                          : "least",
             false);
    put_text(file, perf_verdict_name(comparison->verdict), false);
    put_text(file, comparison->note ? comparison->note : "", false);
}

void perf_export_csv(const struct perf_report *report, FILE *file)
{
    put_csv_head(file);
    for (uint32_t i = 0; i < report->result_count; i++) {
        put_csv_result(file, &report->results[i]);
        put_csv_machine(file, report);
    }
    for (uint32_t i = 0; i < report->comparison_count; i++) {
        put_csv_comparison(file, &report->comparisons[i]);
        put_csv_machine(file, report);
    }
}

/* ---- .hgrm ----------------------------------------------------------------------------------- */

#define PATH_BYTES 1024

/* A result as part of a file's name: "-ideal-chase-64-near". */
static void name_result(const struct perf_result *result, char ret_name[96])
{
    char size[16] = "";

    if (result->size > 0)
        (void)snprintf(size, sizeof(size), "-%" PRIu32, result->size);
    (void)snprintf(ret_name, 96, "-%s%s%s%s", result->transport, size, *result->distance ? "-" : "",
                   result->distance);
    for (char *at = ret_name; *at; at++) {
        bool plain = (*at >= '0' && *at <= '9') || ((*at | 0x20) >= 'a' && (*at | 0x20) <= 'z') ||
                     *at == '.' || *at == '_';

        if (!plain)
            *at = '-';
    }
}

/* `nth` of the same name (0: the only one so far) is told apart by a number. */
static void insert_name(const char *path, const char *name, uint32_t nth, char ret_path[PATH_BYTES])
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    char number[16] = "";

    if (!dot || dot == base) /* ".hgrm" is a name, not an extension */
        dot = path + strlen(path);
    if (nth > 0)
        (void)snprintf(number, sizeof(number), "-%" PRIu32, nth + 1);
    (void)snprintf(ret_path, PATH_BYTES, "%.*s%s%s%s", (int)(dot - path), path, name, number, dot);
}

static void name_file(const struct perf_report *report, uint32_t index, const char *path,
                      char ret_path[PATH_BYTES])
{
    char name[96];
    char other[96];
    uint32_t nth = 0;

    name_result(&report->results[index], name);
    for (uint32_t i = 0; i < index; i++) {
        if (!report->results[i].histogram)
            continue;
        name_result(&report->results[i], other);
        nth += strcmp(name, other) == 0;
    }
    insert_name(path, name, nth, ret_path);
}

static int write_file(const struct perf_histogram *histogram, const char *path)
{
    FILE *file = fopen(path, "we");
    int failed = 0;

    if (file) {
        perf_histogram_write_hgrm(histogram, file);
        failed = ferror(file);
        failed |= fclose(file);
    }
    if (file && !failed)
        return 0;
    return cli_fail(-1, "histogram: %s: %s; name a file that can be written", path,
                    strerror(errno));
}

int perf_hgrm_write(const struct perf_report *report, const char *path)
{
    char other[PATH_BYTES];
    bool first = true;

    if (strlen(path) > PATH_BYTES - 128)
        return cli_fail(-1, "histogram: the name of the file is too long; give a shorter one");
    for (uint32_t i = 0; i < report->result_count; i++) {
        if (!report->results[i].histogram)
            continue;
        name_file(report, i, path, other);
        if (write_file(report->results[i].histogram, first ? path : other) < 0)
            return -1;
        first = false;
    }
    if (first)
        return cli_fail(-1, "histogram: nothing here has one; use it with latency or wake");
    return 0;
}
