/* SPDX-License-Identifier: Apache-2.0 */
/* What shmq-perf prints: the table, JSON and CSV read back, names of .hgrm files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "test/support/cli.h"
#include "test/support/perf.h"
#include "test/support/test.h"
#include "tools/json.h"

/* ---- Table ----------------------------------------------------------------------------------- */

/* A bit of everything. */
static void make_report(struct perf_made *made)
{
    perf_made_init(made, "a \"title\", <with> everything");
    perf_made_latency(made, "shmq", 64, 101, 1100);
    perf_made_latency(made, "pipe", 64, 5000, 50000);
    perf_made_result(made, "throughput", "shmq", 64, PERF_MESSAGES_PER_S, 50e6);
    perf_made_result(made, "throughput", "pipe", 64, PERF_MESSAGES_PER_S, 0);
    perf_made_comparison(made, "throughput near 64 B", "pipe, \"named\"", 50e6, 20e6, 2.2,
                         PERF_MET);
    perf_made_comparison(made, "throughput near 1 KiB", "ideal", 10e6, 20e6, 1, PERF_MISSED)->note =
        "the first note";
    perf_made_comparison(made, "throughput far 64 B", "ideal", 0, 0, 7, PERF_NOT_OBSERVED)->note =
        "the second note";
    perf_made_comparison(made, "instructions publish", "", 57, 0, 60, PERF_MET)->note =
        "the first note";
    perf_made_comparison(made, "instructions poll", "", 35, 0, 0, PERF_NO_TARGET);
}

TEST(the_table_begins_with_machine_and_trials)
{
    struct perf_made made;
    char *text;

    make_report(&made);
    text = perf_made_print(&made, PERF_TABLE);
    CHECK(strncmp(text, made.report.title, strlen(made.report.title)) == 0);
    CHECK_CONTAINS(text, "Test CPU, family 1 model 2; 4 CPUs, pinned to 2 and 3\n");
    CHECK_CONTAINS(text, "KVM");
    CHECK_CONTAINS(text, "Linux 6.1 x86_64");
    CHECK_CONTAINS(text, "TSC, 2.000 GHz");
    CHECK_CONTAINS(text, "2026-01-31T12:00:00Z");
    CHECK_CONTAINS(text, "shmq-perf made --up, with \"quotes\", of shmq ");
    CHECK_CONTAINS(text, "90 kept; 8 dropped, the distance between the cores changed; 2 dropped, "
                         "somebody else had a core\n");
    CHECK(!strchr(text, '\033')); /* this is no terminal */
    free(text);
    made.report.machine.cpus[0] = made.report.machine.cpus[1] = -1;
    made.report.machine.hypervisor[0] = '\0';
    text = perf_made_print(&made, PERF_TABLE);
    CHECK_CONTAINS(text, "not pinned");
    CHECK_CONTAINS(text, "hypervisor none");
    free(text);
    perf_made_free(&made);
}

/* The line of the table that has these words, with runs of blanks as one. */
static const char *find_row(const char *text, const char *words, char row[512])
{
    char *to = row;
    const char *from = strstr(text, words);

    if (!CHECK(from != NULL))
        return strcpy(row, "");
    while (from > text && from[-1] != '\n')
        from--;
    for (; *from != '\n' && to < row + 510; from++) {
        if (*from != ' ' || (to > row && to[-1] != ' '))
            *to++ = *from;
    }
    *to = '\0';
    return row;
}

TEST(rows_have_the_figures)
{
    struct perf_made made;
    char row[512];
    char *text;

    make_report(&made);
    text = perf_made_print(&made, PERF_TABLE);
    /* 1,000 times from 101 to 1,100 ns: each percentile is known. */
    CHECK_STR_EQ(find_row(text, "  shmq       64 B", row),
                 "shmq 64 B near 9 588–613 ns 600 ns 1.00 µs 1.09 µs 1.10 µs 1.10 µs 1.10 µs");
    CHECK_STR_EQ(find_row(strstr(text, "\nthroughput\n"), "shmq", row),
                 "shmq 64 B near 9 50.0 M/s 49.0–51.0 M/s 3.20 GB/s");
    CHECK_STR_EQ(find_row(strstr(text, "\nthroughput\n"), "pipe", row), "pipe 64 B near 0 - - ");
    CHECK_STR_EQ(find_row(text, "throughput near 64 B", row),
                 "throughput near 64 B shmq 50.0 M/s pipe, \"named\" 20.0 M/s 9 2.50 2.45–2.55 "
                 "≥ 2.20 met");
    CHECK_STR_EQ(find_row(text, "throughput near 1 KiB", row),
                 "throughput near 1 KiB shmq 10.0 M/s ideal 20.0 M/s 9 0.50 0.49–0.51 ≥ 1.00 "
                 "missed (1)");
    CHECK_STR_EQ(find_row(text, "throughput far 64 B", row),
                 "throughput far 64 B shmq - ideal - 0 ≥ 7.00 not observed (2)");
    CHECK_STR_EQ(find_row(text, "instructions publish", row),
                 "instructions publish shmq 57 ≤ 60 met (1)"); /* an equal note has one number */
    CHECK_CONTAINS(text, "\n  (1) the first note\n  (2) the second note\n");
    CHECK_CONTAINS(text, "\n  2 met, 1 missed, 1 not observed\n");
    free(text);
    perf_made_free(&made);
}

/* Places on the screen up to `at`, in its line. */
static unsigned column_of(const char *text, const char *at)
{
    unsigned column = 0;

    while (at > text && at[-1] != '\n')
        at--, column += ((unsigned char)*at & 0xc0) != 0x80;
    return column;
}

TEST(columns_are_aligned_although_signs_have_several_bytes)
{
    struct perf_made made;
    char *text;
    const char *head;

    make_report(&made);
    text = perf_made_print(&made, PERF_TABLE);
    head = strstr(text, "p90");
    REQUIRE(head != NULL);
    /* Right-aligned: the ends are below each other. */
    CHECK_EQ(column_of(text, head + 3), column_of(text, strstr(text, "1.00 µs ") + 8));
    CHECK_EQ(column_of(text, head + 3), column_of(text, strstr(text, "45.5 µs ") + 8));
    CHECK_EQ(column_of(text, strstr(text, "verdict")), column_of(text, strstr(text, "missed (1)")));
    free(text);
    perf_made_free(&made);
}

TEST(columns_without_a_cell_are_left_out)
{
    struct perf_made made;
    char *text;

    perf_made_init(&made, "t");
    perf_made_comparison(&made, "latency", "pipe", 1, 2, 0, PERF_NO_TARGET);
    text = perf_made_print(&made, PERF_TABLE);
    CHECK_CONTAINS(text, "quartiles\n");
    CHECK(!strstr(text, "verdict"));
    CHECK(!strstr(text, "not observed"));
    free(text);
    perf_made_init(&made, "t");
    perf_made_result(&made, "floor", "a clock", 0, PERF_NS, 20);
    text = perf_made_print(&made, PERF_TABLE);
    CHECK_CONTAINS(text, "quartiles\n");
    CHECK(!strstr(text, "bandwidth"));
    free(text);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static double number_at(const char *json, const char *path)
{
    const char *at = cli_json_at(json, path);
    char *end;
    double number;

    test_context("%s: ", path);
    if (!CHECK(at != NULL))
        return NAN;
    number = strtod(at, &end);
    CHECK(end > at);
    test_context(NULL);
    return number;
}

static void check_text_at(const char *json, const char *path, const char *expected)
{
    const char *at = cli_json_at(json, path);

    test_context("%s: ", path);
    if (CHECK(at != NULL) && !CHECK(strncmp(at, expected, strlen(expected)) == 0))
        printf("%.60s\n", at);
    test_context(NULL);
}

TEST(json_has_everything_and_numbers_are_numbers)
{
    struct perf_made made;
    char *text;

    make_report(&made);
    text = perf_made_print(&made, PERF_JSON);
    REQUIRE(cli_is_json(text, 1));
    check_text_at(text, "title", "\"a \\\"title\\\", <with> everything\"");
    check_text_at(text, "command", "\"shmq-perf made --up, with \\\"quotes\\\"\"");
    check_text_at(text, "machine/kernel", "\"Linux 6.1 x86_64\"");
    CHECK(number_at(text, "machine/cpus/1") == 3);
    CHECK(number_at(text, "machine/cpu_count") == 4);
    CHECK(number_at(text, "trials/kept") == 90 && number_at(text, "trials/mixed") == 8 &&
          number_at(text, "trials/preempted") == 2);
    check_text_at(text, "results/0/measure", "\"latency\"");
    check_text_at(text, "results/0/unit", "\"ns\"");
    check_text_at(text, "results/2/histogram", "null");
    CHECK(number_at(text, "results/0/histogram/count") == 1000);
    CHECK(number_at(text, "results/0/histogram/percentiles_ns/50") == 600);
    CHECK(number_at(text, "results/0/histogram/percentiles_ns/99.9") == 1099);
    CHECK(number_at(text, "results/0/histogram/percentiles_ns/99.99") == 1100);
    CHECK(number_at(text, "results/0/histogram/max_ns") == 1100);
    CHECK(fabs(number_at(text, "results/0/histogram/mean_ns") - 600.5) < 1e-9);
    CHECK(number_at(text, "results/2/value/median") == 50e6);
    CHECK(number_at(text, "results/2/value/low_quartile") == 49e6);
    CHECK(number_at(text, "results/2/value/count") == 9);
    check_text_at(text, "comparisons/0/baseline", "\"pipe, \\\"named\\\"\"");
    CHECK(number_at(text, "comparisons/0/ratio/median") == 2.5);
    CHECK(number_at(text, "comparisons/0/target") == 2.2);
    check_text_at(text, "comparisons/0/target_is", "\"least\"");
    check_text_at(text, "comparisons/0/note", "null");
    check_text_at(text, "comparisons/1/verdict", "\"missed\"");
    check_text_at(text, "comparisons/3/target_is", "\"most\"");
    perf_made_free(&made);
    free(text);
}

TEST(json_has_null_for_what_was_not_observed)
{
    struct perf_made made;
    char *text;

    make_report(&made);
    made.results[2].value.high = NAN;
    made.results[2].value.max = INFINITY;
    text = perf_made_print(&made, PERF_JSON);
    REQUIRE(cli_is_json(text, 1));
    check_text_at(text, "results/2/value/high_quartile", "null");
    check_text_at(text, "results/2/value/max", "null");
    check_text_at(text, "results/3/value/median", "null");
    CHECK(number_at(text, "results/3/value/count") == 0);
    check_text_at(text, "comparisons/2/ratio/median", "null");
    check_text_at(text, "comparisons/2/verdict", "\"not observed\"");
    check_text_at(text, "comparisons/3/ratio/median", "null");
    check_text_at(text, "comparisons/4/target", "null");
    check_text_at(text, "comparisons/4/target_is", "null");
    check_text_at(text, "comparisons/4/verdict", "null");
    perf_made_free(&made);
    free(text);
}

TEST(an_empty_report_is_a_document_in_every_format)
{
    struct perf_made made;
    char *text;

    perf_made_init(&made, "nothing");
    text = perf_made_print(&made, PERF_JSON);
    CHECK(cli_is_json(text, 1));
    check_text_at(text, "results", "[]");
    free(text);
    text = perf_made_print(&made, PERF_CSV);
    CHECK(strncmp(text, "kind,", 5) == 0);
    CHECK(strchr(text, '\n') == text + strlen(text) - 1);
    free(text);
    text = perf_made_print(&made, PERF_TABLE);
    CHECK(!strstr(text, "comparisons"));
    free(text);
}

static const char *say_real(double number, char text[64])
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_real(&json, NULL, number);
    snprintf(text, 64, "%.*s", (int)out.length, out.data);
    outbuf_free(&out);
    return text;
}

TEST(json_real_makes_the_same_number_again)
{
    struct test_random random;
    char text[64];

    CHECK_STR_EQ(say_real(0.1, text), "0.1");
    CHECK_STR_EQ(say_real(50, text), "50");
    CHECK_STR_EQ(say_real(-2.5, text), "-2.5");
    CHECK_STR_EQ(say_real(1e300, text), "1e+300");
    CHECK_STR_EQ(say_real(NAN, text), "null");
    CHECK_STR_EQ(say_real(INFINITY, text), "null");
    CHECK_STR_EQ(say_real(-INFINITY, text), "null");
    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t bits = test_random_next(&random);
        double number;

        memcpy(&number, &bits, sizeof(number));
        if (!isfinite(number))
            continue;
        (void)say_real(number, text);
        test_context("%s: ", text);
        CHECK(strtod(text, NULL) == number);
        CHECK(cli_is_json(text, 1));
    }
}

/* ---- CSV ------------------------------------------------------------------------------------- */

#define FIELDS_MAX 64

struct csv {
    char *rows[16][FIELDS_MAX];
    unsigned row_count;
    unsigned field_counts[16];
};

/* One field by RFC 4180, unquoted in place; returns what ended it. */
static char take_field(char **at, char **ret_field)
{
    char *from = *at;
    char *to = *at;
    bool quoted = *from == '"';
    char end;

    *ret_field = to;
    from += quoted;
    while (*from) {
        if (quoted && *from == '"' && from[1] == '"')
            from++;
        else if (quoted ? *from == '"' : *from == ',' || *from == '\r')
            break;
        else if (!quoted)
            CHECK(*from != '"' && *from != '\n');
        *to++ = *from++;
    }
    from += quoted;
    end = *from;
    if (end == '\r')
        CHECK(*++from == '\n');
    *at = *from ? from + 1 : from;
    *to = '\0';
    return end;
}

static void parse_csv(char *text, struct csv *csv)
{
    *csv = (struct csv){0};
    while (*text) {
        unsigned *count = &csv->field_counts[csv->row_count];
        char end;

        REQUIRE(csv->row_count < COUNT_OF(csv->rows));
        do {
            REQUIRE(*count < FIELDS_MAX);
            end = take_field(&text, &csv->rows[csv->row_count][(*count)++]);
            CHECK(end == ',' || end == '\r');
        } while (end == ',');
        csv->row_count++;
    }
}

static const char *field(const struct csv *csv, unsigned row, const char *name)
{
    for (unsigned i = 0; i < csv->field_counts[0]; i++) {
        if (strcmp(csv->rows[0][i], name) == 0)
            return csv->rows[row][i];
    }
    FAIL("no column %s", name);
    return "";
}

TEST(csv_reads_back)
{
    struct perf_made made;
    struct csv csv;
    char *text;

    make_report(&made);
    made.comparisons[0].note = "two\nlines, and \"quotes\"";
    text = perf_made_print(&made, PERF_CSV);
    parse_csv(text, &csv);
    CHECK_EQ(csv.row_count, 1 + 4 + 5);
    for (unsigned i = 1; i < csv.row_count; i++)
        CHECK_EQ(csv.field_counts[i], csv.field_counts[0]);
    CHECK_STR_EQ(field(&csv, 1, "kind"), "result");
    CHECK_STR_EQ(field(&csv, 1, "what"), "latency");
    CHECK_STR_EQ(field(&csv, 1, "transport"), "shmq");
    CHECK_STR_EQ(field(&csv, 1, "size"), "64");
    CHECK_STR_EQ(field(&csv, 1, "unit"), "ns");
    CHECK_STR_EQ(field(&csv, 1, "messages"), "1000");
    CHECK_STR_EQ(field(&csv, 1, "p50_ns"), "600");
    CHECK_STR_EQ(field(&csv, 1, "p99.9_ns"), "1099");
    CHECK_STR_EQ(field(&csv, 1, "max_ns"), "1100");
    CHECK_STR_EQ(field(&csv, 1, "verdict"), "");
    CHECK_STR_EQ(field(&csv, 1, "cpu"), "Test CPU, family 1 model 2");
    CHECK_STR_EQ(field(&csv, 3, "value_median"), "50000000");
    CHECK_STR_EQ(field(&csv, 3, "p50_ns"), "");
    CHECK_STR_EQ(field(&csv, 4, "value_median"), ""); /* not observed */
    CHECK_STR_EQ(field(&csv, 4, "value_count"), "0");
    CHECK_STR_EQ(field(&csv, 5, "kind"), "comparison");
    CHECK_STR_EQ(field(&csv, 5, "baseline"), "pipe, \"named\"");
    CHECK_STR_EQ(field(&csv, 5, "ratio_median"), "2.5");
    CHECK_STR_EQ(field(&csv, 5, "target"), "2.2");
    CHECK_STR_EQ(field(&csv, 5, "target_is"), "least");
    CHECK_STR_EQ(field(&csv, 5, "note"), "two\nlines, and \"quotes\"");
    CHECK_STR_EQ(field(&csv, 8, "ratio_count"), ""); /* a figure alone */
    CHECK_STR_EQ(field(&csv, 8, "verdict"), "met");
    CHECK_STR_EQ(field(&csv, 9, "date"), "2026-01-31T12:00:00Z");
    CHECK_STR_EQ(field(&csv, 9, "command"), "shmq-perf made --up, with \"quotes\"");
    free(text);
    perf_made_free(&made);
}

/* ---- .hgrm files ----------------------------------------------------------------------------- */

static bool is_hgrm(const char *name, const char *value)
{
    char path[512];
    size_t length;
    char *text = cli_read_whole(cli_temporary(name, path), &length);
    bool found = strstr(text, value) && strstr(text, "#[Buckets =");

    free(text);
    return found;
}

TEST(each_histogram_has_a_file_of_its_own)
{
    struct perf_made made;
    char path[512];

    perf_made_init(&made, "t");
    perf_made_result(&made, "throughput", "shmq", 64, PERF_MESSAGES_PER_S, 1);
    perf_made_latency(&made, "shmq", 64, 1000, 1000);
    perf_made_latency(&made, "pipe", 64, 2000, 2000);
    perf_made_latency(&made, "a/b c", 0, 1500, 1500)->distance[0] = '\0';
    perf_made_latency(&made, "pipe", 64, 500, 500);
    CHECK_OK(perf_hgrm_write(&made.report, cli_temporary("out.x.hgrm", path)));
    CHECK(is_hgrm("out.x.hgrm", " 1.000 1.0"));
    CHECK(is_hgrm("out.x-pipe-64-near.hgrm", " 2.000 1.0"));
    CHECK(is_hgrm("out.x-a-b-c.hgrm", " 1.500 1.0"));
    CHECK(is_hgrm("out.x-pipe-64-near-2.hgrm", " 0.500 1.0"));
    CHECK_OK(perf_hgrm_write(&made.report, cli_temporary("plain", path)));
    CHECK(is_hgrm("plain", " 1.000 1.0"));
    CHECK(is_hgrm("plain-pipe-64-near", " 2.000 1.0"));
    CHECK_OK(perf_hgrm_write(&made.report, cli_temporary(".hgrm", path))); /* no extension */
    CHECK(is_hgrm(".hgrm-pipe-64-near", " 2.000 1.0"));
    perf_made_free(&made);
}

TEST(files_that_cannot_be_written_are_an_error)
{
    struct perf_made made;
    char path[512];
    struct stat status;

    perf_made_init(&made, "t");
    CHECK(perf_hgrm_write(&made.report, cli_temporary("none", path)) < 0); /* no histogram */
    CHECK(stat(path, &status) < 0);
    perf_made_latency(&made, "shmq", 64, 1000, 1000);
    CHECK(perf_hgrm_write(&made.report, "/nonexistent/x.hgrm") < 0);
    CHECK(perf_hgrm_write(&made.report, "/dev/full") < 0);
    CHECK(perf_plot_write(&made.report, "/nonexistent/x.svg") < 0);
    CHECK(perf_plot_write(&made.report, "/dev/full") < 0);
    perf_made_free(&made);
}

TEST_MAIN("perf_report", T(the_table_begins_with_machine_and_trials), T(rows_have_the_figures),
          T(columns_are_aligned_although_signs_have_several_bytes),
          T(columns_without_a_cell_are_left_out), T(json_has_everything_and_numbers_are_numbers),
          T(json_has_null_for_what_was_not_observed),
          T(an_empty_report_is_a_document_in_every_format),
          T(json_real_makes_the_same_number_again), T(csv_reads_back),
          T(each_histogram_has_a_file_of_its_own), T(files_that_cannot_be_written_are_an_error))
