/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq-perf durable: what it reads (mounts, a log, its own options), its floors, its rows, and the whole of it with next
 * to no time; and that nothing is left of it. Whether a target is met is no question here: it would be a measurement.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test/support/cli.h"
#include "test/support/test.h"
#include "tools/perf/durable.h"

#define WAIT_MS   100000
#define SCENARIOS 9u

/* ---- what it reads --------------------------------------------------------------------------- */

static const char MOUNTS[] =
    "22 27 0:20 / /proc rw,nosuid - proc proc rw\n"
    "27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "30 27 0:30 / /tmp rw - tmpfs tmpfs rw\n"
    "31 27 8:2 /sub /data rw,noatime shared:5 master:1 - xfs /dev/sda2 rw\n"
    "this is no line\n"
    "32 27 8:3 / /with\\040blank rw - btrfs /dev/disk\\040name rw\n"
    "33 31 8:4 / /data rw - ext4 /dev/on-top rw\n"
    "34 27 8:5 / /dat rw - ext4 /dev/other rw";

static void check_mount(const char *path, const char *point, const char *type, const char *source)
{
    struct durable_mount mount;

    test_context("%s: ", path);
    if (CHECK(durable_mount_find(MOUNTS, path, &mount))) {
        CHECK_STR_EQ(mount.point, point);
        CHECK_STR_EQ(mount.type, type);
        CHECK_STR_EQ(mount.source, source);
    }
    test_context(NULL);
}

TEST(the_mount_of_a_folder_is_the_longest_and_last_one)
{
    struct durable_mount mount;

    check_mount("/", "/", "ext4", "/dev/sda1");
    check_mount("/home/x", "/", "ext4", "/dev/sda1");
    check_mount("/tmp", "/tmp", "tmpfs", "tmpfs");
    check_mount("/tmpfile/x", "/", "ext4", "/dev/sda1"); /* not below /tmp */
    check_mount("/data/x", "/data", "ext4", "/dev/on-top");
    check_mount("/dat/x", "/dat", "ext4", "/dev/other");
    check_mount("/with blank/x", "/with blank", "btrfs", "/dev/disk name");
    CHECK(!durable_mount_find("", "/", &mount));
    CHECK(!durable_mount_find("nothing\nof a mount - at all\n", "/", &mount));
}

TEST(only_names_scenarios_and_keeps_their_order)
{
    const struct durable_scenario *chosen[SCENARIOS];
    struct error_buffer why = {.text = ""};

    CHECK_INT_EQ(durable_choose(NULL, chosen, SCENARIOS, &why), SCENARIOS);
    CHECK_STR_EQ(chosen[0]->name, "window");
    CHECK_INT_EQ(durable_choose("spill,os,catch-up", chosen, SCENARIOS, &why), 3);
    CHECK_STR_EQ(chosen[0]->name, "os");
    CHECK_STR_EQ(chosen[1]->name, "catch-up");
    CHECK_STR_EQ(chosen[2]->name, "spill");
    CHECK_INT_EQ(durable_choose("os,os", chosen, SCENARIOS, &why), 1);
    CHECK_INT_EQ(durable_choose("confirn", chosen, SCENARIOS, &why), -1);
    CHECK_CONTAINS(why.text, "did you mean 'confirm'");
    CHECK_INT_EQ(durable_choose("os,everything-else", chosen, SCENARIOS, &why), -1);
    CHECK_CONTAINS(why.text, "there are window, ");
    CHECK_INT_EQ(durable_choose("", chosen, SCENARIOS, &why), -1);
    CHECK_CONTAINS(why.text, "empty");
}

TEST(the_last_recovery_of_a_log_counts)
{
    uint64_t messages = 0, scanned = 0;

    CHECK(!durable_parse_recovery("", &messages, &scanned));
    CHECK(!durable_parse_recovery("recovered from its journal: 5 messages", &messages, &scanned));
    CHECK(!durable_parse_recovery("recovered from its journal: x (y bytes scanned", &messages,
                                  &scanned));
    CHECK(durable_parse_recovery(
        "a\ntopic t/0: recovered from its journal: 1 messages up to offset 9 (64 bytes scanned in 0 ms)\n"
        "topic t/0: recovered from its journal: 1000000 messages up to offset 192000000 (67108864 bytes "
        "scanned in 31 ms); goes on at offset 300000000\nready\n",
        &messages, &scanned));
    CHECK_EQ(messages, 1000000);
    CHECK_EQ(scanned, 67108864);
}

/* ---- floors ---------------------------------------------------------------------------------- */

static struct durable_talk *new_talk(void)
{
    struct durable_talk *talk = test_shared(sizeof(*talk));

    (void)snprintf(talk->floor_dir, sizeof(talk->floor_dir), "%s", test_tmpdir());
    talk->rounds = DURABLE_ROUNDS_LEAST;
    durable_clear(talk);
    return talk;
}

static uint64_t length_of(const struct durable_file *file)
{
    struct stat status;

    return fstat(file->fd, &status) == 0 ? (uint64_t)status.st_size : UINT64_MAX;
}

TEST(files_grow_or_are_written_round_and_round)
{
    static const enum durable_file_kind kinds[] = {DURABLE_GROWING, DURABLE_ALLOCATED,
                                                   DURABLE_ZEROED};
    struct durable_talk *talk = new_talk();

    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        bool grows = kinds[i] == DURABLE_GROWING;
        struct durable_file file;
        char path[512], byte = 0;
        int rc = durable_file_open(talk, kinds[i], 3 * DURABLE_DATA_BYTES, &file);

        test_context("kind %zu: ", i);
        if (rc < 0)
            continue; /* this file system has no such files */
        REQUIRE_OK(rc);
        (void)snprintf(path, sizeof(path), "%s/floor", test_tmpdir());
        CHECK(access(path, F_OK) < 0);
        CHECK_EQ(length_of(&file), grows ? 0 : 3 * DURABLE_DATA_BYTES);
        CHECK_INT_EQ(durable_file_append(talk, &file, 2 * DURABLE_DATA_BYTES + 512), 0);
        CHECK_EQ(file.at, 2 * DURABLE_DATA_BYTES + 512);
        CHECK(pread(file.fd, &byte, 1, 1) == 1 && byte == file.data[1]);
        CHECK_INT_EQ(durable_file_append(talk, &file, DURABLE_DATA_BYTES), 0);
        CHECK_EQ(file.at, grows ? 3 * DURABLE_DATA_BYTES + 512 : DURABLE_DATA_BYTES);
        CHECK_INT_EQ(durable_file_sync(talk, &file), 0);
        CHECK_EQ(length_of(&file), 3 * DURABLE_DATA_BYTES + (grows ? 512 : 0));
        durable_file_close(&file);
        CHECK_INT_EQ(file.fd, -1);
    }
    CHECK_INT_EQ(durable_settle(talk), 0);
    CHECK_STR_EQ(talk->failure, "");
    test_context(NULL);
}

TEST(a_floor_that_cannot_be_written_says_why)
{
    struct durable_talk *talk = new_talk();
    struct durable_file file;

    (void)snprintf(talk->floor_dir, sizeof(talk->floor_dir), "/nowhere");
    CHECK_INT_EQ(durable_file_open(talk, DURABLE_GROWING, 0, &file), 1);
    CHECK_CONTAINS(talk->failure, "/nowhere");
    CHECK_INT_EQ(durable_fail(talk, "the second one"), 1);
    CHECK_CONTAINS(talk->failure, "/nowhere"); /* the first reason stays */
    durable_file_close(&file);
}

TEST(folders_are_made_where_they_are_asked_for)
{
    struct error_buffer why = {.text = ""};
    char folder[PERF_PATH_BYTES], text[2 * PERF_PATH_BYTES], file[PERF_PATH_BYTES + 16];
    int fd;

    REQUIRE_OK(durable_disk_folder(test_tmpdir(), folder, &why));
    CHECK_CONTAINS(folder, "shmq-perf.");
    durable_disk_describe(folder, text, sizeof(text));
    CHECK_CONTAINS(text, folder);
    CHECK_CONTAINS(text, " free");
    CHECK(durable_disk_free(folder) > 0);
    (void)snprintf(file, sizeof(file), "%s/file", folder);
    fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1);
    (void)close(fd);
    durable_evict(folder);
    CHECK(durable_remove(folder));
    CHECK(durable_disk_folder("/nowhere", folder, &why) < 0);
    CHECK_CONTAINS(why.text, "/nowhere");
    CHECK_CONTAINS(why.text, "can be written");
    CHECK(!durable_is_memory("/proc"));
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void set_values(struct durable_talk *talk, uint32_t series, uint32_t count, double value)
{
    for (uint32_t i = 0; i < count; i++)
        durable_value(talk, series, i, value * (1 + i));
}

TEST(rows_are_ratios_round_by_round)
{
    struct durable_run run = {.talk = new_talk()};
    struct durable_row row = {.what = "a row",
                              .size = 100,
                              .unit = PERF_MESSAGES_PER_S,
                              .subject = 0,
                              .subject_name = "shmq",
                              .baseline = 1,
                              .baseline_name = "floor",
                              .target = 0.5};
    const struct perf_comparison *made;

    set_values(run.talk, 0, 5, 30);
    set_values(run.talk, 1, 6, 40); /* one round more: it has no partner */
    made = durable_report(&run, &row);
    CHECK_EQ(made->ratio.count, 5);
    CHECK(made->ratio.median == 0.75 && made->ratio.min == 0.75 && made->ratio.max == 0.75);
    CHECK(made->subject_value.median == 90);
    CHECK_INT_EQ(made->verdict, PERF_MET);
    CHECK(made->note == NULL);
    row.at_most = true;
    CHECK_INT_EQ(durable_report(&run, &row)->verdict, PERF_MISSED);
    row.target = 0;
    CHECK_INT_EQ(durable_report(&run, &row)->verdict, PERF_NO_TARGET);
    row.target = 1;
    row.subject = 2; /* nobody measured it */
    CHECK_INT_EQ(durable_report(&run, &row)->verdict, PERF_NOT_OBSERVED);
    set_values(run.talk, 2, 4, 30);
    CHECK_INT_EQ(durable_report(&run, &row)->verdict, PERF_NOT_OBSERVED); /* four are too few */
    row.least = 4;
    CHECK_INT_EQ(durable_report(&run, &row)->verdict, PERF_MET);
    row.baseline_name = NULL;
    row.target = 100;
    CHECK_INT_EQ(durable_report(&run, &row)->verdict, PERF_MET); /* the figure itself: 75 */
    perf_collection_free(&run.collection);
}

TEST(what_failed_is_not_observed_and_says_why)
{
    const struct durable_scenario *chosen[SCENARIOS];
    static struct perf_plan plan = {.durable.history_bytes = 1 << 30};
    struct durable_run run = {.talk = new_talk(), .plan = &plan};
    struct error_buffer why;
    int count = durable_choose(NULL, chosen, SCENARIOS, &why);

    (void)durable_set_failure(run.talk, "the disk is on %s", "fire");
    for (int i = 0; i < count; i++) {
        uint32_t before = run.collection.comparison_count;

        test_context("%s: ", chosen[i]->name);
        chosen[i]->report(&run);
        CHECK(run.collection.comparison_count > before);
        for (uint32_t k = before; k < run.collection.comparison_count; k++) {
            const struct perf_comparison *row = &run.collection.comparisons[k];

            CHECK_INT_EQ(row->verdict, row->has_target ? PERF_NOT_OBSERVED : PERF_NO_TARGET);
            CHECK(row->note != NULL);
            CHECK_CONTAINS(row->note ? row->note : "", "the disk is on fire");
        }
    }
    test_context(NULL);
    CHECK_EQ(run.collection.result_count, 0);
    perf_collection_free(&run.collection);
}

/* At 100 bytes either so much of the floor is asked for, or so many messages. */
TEST(one_of_two_targets_is_enough_for_small_messages)
{
    static const struct {
        double bytes_per_s;
        enum perf_verdict verdict;
    } CASES[] = {
        {800e6, PERF_MET},   /* 0.8 of the floor, 4.2 million a second */
        {500e6, PERF_MET},   /* half of it, 2.6 million */
        {200e6, PERF_MISSED} /* neither */
    };
    static struct perf_plan plan;

    for (size_t i = 0; i < COUNT_OF(CASES); i++) {
        struct durable_run run = {.talk = new_talk(), .plan = &plan};

        /* Series: shmq at four sizes, three floors, messages of 100 bytes. */
        for (uint32_t round = 0; round < DURABLE_ROUNDS_LEAST; round++) {
            durable_value(run.talk, 0, round, CASES[i].bytes_per_s);
            durable_value(run.talk, 4, round, 1e9);
            durable_value(run.talk, 5, round, 1e9);
            durable_value(run.talk, 7, round,
                          CASES[i].bytes_per_s / (double)durable_record_bytes(100));
        }
        durable_scenario_os.report(&run);
        test_context("case %zu: ", i);
        CHECK_INT_EQ(run.collection.comparisons[0].verdict, CASES[i].verdict);
        CHECK_INT_EQ(run.collection.comparisons[1].verdict, CASES[i].verdict);
        CHECK_INT_EQ(run.collection.comparisons[2].verdict, CASES[i].verdict);
        perf_collection_free(&run.collection);
    }
    test_context(NULL);
}

/* ---- the program ----------------------------------------------------------------------------- */

static int run_program(struct test_output *out, const char *const *words)
{
    char *argv[32] = {(char *)(uintptr_t) "shmq-perf", (char *)(uintptr_t) "durable"};
    unsigned count = 2;

    for (; *words && count < COUNT_OF(argv) - 1; words++)
        argv[count++] = (char *)(uintptr_t)*words;
    argv[count] = NULL;
    return test_run(argv, out, test_scaled_ms(WAIT_MS));
}

#define RUN(out, ...) run_program(out, (const char *const[]){__VA_ARGS__, NULL})
#define QUICK         "--quick", "--rounds", "1", "--state-dir", test_tmpdir()

static void need_program(void)
{
    struct test_output out;

    if (!test_can_exec())
        SKIP("no program can be run here");
    (void)setenv("TMPDIR", test_tmpdir(), 1);
    if (RUN(&out, "--help") == 127)
        SKIP("there is no shmq-perf in PATH");
    CHECK_CONTAINS(out.out, "--state-dir");
    test_output_free(&out);
}

static unsigned count_traces(const char *path, const char *prefix)
{
    DIR *directory = opendir(path);
    unsigned count = 0;
    const struct dirent *entry;

    while (directory && (entry = readdir(directory)) != NULL)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (directory)
        (void)closedir(directory);
    return count;
}

/* Segments of buses whose shmq-perf does not live any more; others' runs have theirs. */
static unsigned count_orphans(void)
{
    DIR *directory = opendir("/dev/shm");
    unsigned count = 0;
    const struct dirent *entry;
    int pid;

    while (directory && (entry = readdir(directory)) != NULL) {
        if (sscanf(entry->d_name, "shmq.perf-%d-", &pid) == 1)
            count += kill(pid, 0) < 0 && errno == ESRCH;
    }
    if (directory)
        (void)closedir(directory);
    return count;
}

static bool nothing_is_left(void *unused)
{
    (void)unused;
    return count_traces(test_tmpdir(), "shmq-perf.") == 0 && count_orphans() == 0;
}

TEST(wrong_usage_is_2_and_says_what_to_do)
{
    static const struct {
        const char *words[4];
        const char *part;
    } CASES[] = {
        {{"--only", "confrim"}, "did you mean 'confirm'"},
        {{"--only", ""}, "empty"},
        {{"--rounds", "65"}, "--rounds"},
        {{"--rounds", "0"}, "--rounds"},
        {{"-b", "some"}, "--bus"},
        {{"--cpus", "4095"}, "CPU 4095"},
        {{"--size", "100"}, "--size"},
        {{"--history", "much"}, "--history"},
    };
    struct test_output out;

    need_program();
    for (size_t i = 0; i < COUNT_OF(CASES); i++) {
        test_context("case %zu ", i);
        CHECK_INT_EQ(run_program(&out, CASES[i].words), 2);
        CHECK_CONTAINS(out.err, CASES[i].part);
        CHECK_STR_EQ(out.out, "");
        test_output_free(&out);
    }
    CHECK_INT_EQ(RUN(&out, "--only", "confirm", "--state-dir", "/nowhere"), 1);
    CHECK_CONTAINS(out.err, "/nowhere");
    CHECK_STR_EQ(out.out, "");
    test_output_free(&out);
    CHECK(nothing_is_left(NULL));
}

/* The notes of what was not observed: too few rounds are no failure. */
static void check_report(const char *json, uint32_t least)
{
    char path[64];
    uint32_t count = 0;

    REQUIRE(cli_is_json(json, 1));
    for (;; count++) {
        const char *median;

        (void)snprintf(path, sizeof(path), "comparisons/%u/subject_value/median", count);
        median = cli_json_at(json, path);
        if (!median)
            break;
        test_context("row %u: ", count);
        CHECK(strncmp(median, "null", 4) != 0);
    }
    test_context(NULL);
    CHECK(count >= least);
    CHECK(cli_json_at(json, "disk") != NULL);
    CHECK(cli_json_at(json, "threads") != NULL);
}

static void check_run(const char *only, uint32_t least)
{
    struct test_output out;

    test_context("%s: ", only);
    if (!CHECK_INT_EQ(RUN(&out, QUICK, "--format", "json", "--only", only), 0))
        FAIL("%s", out.err);
    check_report(out.out, least);
    CHECK(nothing_is_left(NULL));
    test_output_free(&out);
}

TEST(every_row_is_measured)
{
    need_program();
    check_run("window,producers", 3);
    check_run("os,interval", 10);
    check_run("publish,catch-up", 5);
    check_run("spill", 1);
}

TEST(recovery_is_measured_behind_a_history_too)
{
    struct test_output out;
    char *row;

    need_program();
    CHECK_INT_EQ(RUN(&out, QUICK, "--only", "recovery", "--history", "20M"), 0);
    CHECK_CONTAINS(out.out, "  disk ");
    row = strstr(out.out, "20 MiB of history, cold, scanned");
    REQUIRE(row != NULL);
    row[strcspn(row, "\n")] =
        '\0'; /* one start is enough here, and what it reads is no measurement */
    CHECK_CONTAINS(row, "the newest file");
    CHECK_CONTAINS(row, " met");
    CHECK(nothing_is_left(NULL));
    test_output_free(&out);
}

TEST(confirm_writes_its_times)
{
    char path[512];
    size_t length;
    struct test_output out;
    char *text;

    need_program();
    (void)snprintf(path, sizeof(path), "%s/times.hgrm", test_tmpdir());
    CHECK_INT_EQ(RUN(&out, QUICK, "--only", "confirm", "--hgrm", path, "--format", "csv"), 0);
    CHECK_CONTAINS(out.out, "one outstanding");
    test_output_free(&out);
    text = cli_read_whole(path, &length);
    CHECK_CONTAINS(text, "Percentile");
    free(text);
    CHECK_EQ(count_traces(test_tmpdir(), "times"), 3); /* shmq and two floors */
    CHECK(nothing_is_left(NULL));
}

static void end_by(int signal_number, unsigned after_ms)
{
    char *argv[] = {(char *)(uintptr_t) "shmq-perf",  (char *)(uintptr_t) "durable",
                    (char *)(uintptr_t) "--quick",    (char *)(uintptr_t) "--duration",
                    (char *)(uintptr_t) "2s",         (char *)(uintptr_t) "--state-dir",
                    (char *)(uintptr_t)test_tmpdir(), NULL};
    pid_t pid = test_start(argv);

    for (unsigned i = 0; i < 500 && nothing_is_left(NULL); i++)
        test_sleep_ms(10);
    test_sleep_ms(after_ms);
    (void)kill(pid, signal_number);
    CHECK_INT_EQ(test_wait_exit(pid, test_scaled_ms(15000)), -signal_number);
    CHECK(test_eventually(nothing_is_left, NULL, 5000));
}

TEST(signals_leave_nothing_behind)
{
    need_program();
    end_by(SIGINT, 0);
    end_by(SIGTERM, 100);
    end_by(SIGHUP, 600);
    end_by(SIGINT, 1500);
}

TEST_MAIN("perf_durable", T(the_mount_of_a_folder_is_the_longest_and_last_one),
          T(only_names_scenarios_and_keeps_their_order), T(the_last_recovery_of_a_log_counts),
          T(files_grow_or_are_written_round_and_round), T(a_floor_that_cannot_be_written_says_why),
          T(folders_are_made_where_they_are_asked_for), T(rows_are_ratios_round_by_round),
          T(what_failed_is_not_observed_and_says_why),
          T(one_of_two_targets_is_enough_for_small_messages),
          T_TIMEOUT(wrong_usage_is_2_and_says_what_to_do, 60),
          T_TIMEOUT(every_row_is_measured, 200),
          T_TIMEOUT(recovery_is_measured_behind_a_history_too, 60),
          T_TIMEOUT(confirm_writes_its_times, 60), T_TIMEOUT(signals_leave_nothing_behind, 100))
