/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq-perf as its user meets it: help, wrong usage, each verb with next to no time, JSON, CSV, files, the end by a
 * signal; and that nothing is left in /dev/shm and /tmp. What figures come out is no question here.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/support/cli.h"
#include "test/support/test.h"
#include "tools/perf/team.h"

#define WAIT_MS 60000
/* All distances are one class: a trial is never dropped because the cores moved. */
#define SHORT "--duration", "100ms", "--rounds", "1", "--classes", "100000,100000"

static bool has_two_cpus(void)
{
    int cpus[64];

    return perf_cpus_available(cpus, COUNT_OF(cpus)) >= 2;
}

/* Runs shmq-perf with these words, up to NULL. */
static int run(struct test_output *out, const char *const *words)
{
    char *argv[32] = {(char *)(uintptr_t) "shmq-perf"};
    unsigned count = 1;

    for (; *words && count < COUNT_OF(argv) - 1; words++)
        argv[count++] = (char *)(uintptr_t)*words;
    argv[count] = NULL;
    return test_run(argv, out, test_scaled_ms(WAIT_MS));
}

#define RUN(out, ...) run(out, (const char *const[]){__VA_ARGS__, NULL})

static void need_program(void)
{
    struct test_output out;

    if (!test_can_exec())
        SKIP("no program can be run here");
    (void)setenv("TMPDIR", test_tmpdir(), 1);
    if (RUN(&out, "--version") == 127)
        SKIP("there is no shmq-perf in PATH");
    test_output_free(&out);
}

/* Names in a directory that a private bus or a queue would have. */
static unsigned count_traces(const char *path, const char *prefix)
{
    DIR *directory = opendir(path);
    unsigned count = 0;
    struct dirent *entry;

    while (directory && (entry = readdir(directory)))
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (directory)
        (void)closedir(directory);
    return count;
}

/* Segments of a private bus have this test's bus in their name. */
static unsigned count_segments(void)
{
    char prefix[256];

    (void)snprintf(prefix, sizeof(prefix), "shmq.%.40s", test_bus_name());
    return count_traces("/dev/shm", prefix);
}

static bool nothing_is_left(void *unused)
{
    (void)unused;
    return count_segments() == 0 && count_traces(test_tmpdir(), "shmq-perf.") == 0 &&
           count_traces("/dev/mqueue", "shmq-perf.") == 0;
}

/* ---- Without measuring ----------------------------------------------------------------------- */

TEST(help_says_what_there_is)
{
    static const char *const verbs[] = {"latency", "throughput", "fanout", "wake",
                                        "compare", "floor",      "durable"};
    struct test_output out;

    need_program();
    CHECK_INT_EQ(RUN(&out, "--help"), 0);
    for (size_t i = 0; i < COUNT_OF(verbs); i++)
        CHECK_CONTAINS(out.out, verbs[i]);
    CHECK_STR_EQ(out.err, "");
    test_output_free(&out);
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        CHECK_INT_EQ(RUN(&out, verbs[i], "--help"), 0);
        CHECK_CONTAINS(out.out, "Usage: shmq-perf ");
        CHECK_CONTAINS(out.out, "--cpus");
        CHECK_CONTAINS(out.out, "Examples");
        test_output_free(&out);
    }
    CHECK_INT_EQ(RUN(&out, "transports"), 0);
    CHECK_CONTAINS(out.out, "ideal-chase");
    CHECK_CONTAINS(out.out, "mqueue");
    test_output_free(&out);
    CHECK_INT_EQ(RUN(&out, "transports", "--json"), 0);
    CHECK(cli_is_json(out.out, 1));
    test_output_free(&out);
}

TEST(wrong_usage_is_2_and_says_what_to_do)
{
    static const struct {
        const char *words[6];
        const char *part;
    } CASES[] = {
        {{NULL}, "a command is missing"},
        {{"latncy"}, "did you mean 'latency'"},
        {{"latency", "--sise", "64"}, "did you mean '--size'"},
        {{"latency", "--size", "7"}, "8 bytes"},
        {{"latency", "--size", "64,x"}, "--size"},
        {{"latency", "--size", "2G"}, "1G"},
        {{"latency", "--transport", "shmk"}, "did you mean 'shmq'"},
        {{"latency", "--transport", "carrier-pigeon"}, "there are shmq"},
        {{"latency", "--transport", "cas"}, "cannot do round trips"},
        {{"latency", "--producers", "2"}, "throughput"},
        {{"latency", "--wait", "pray"}, "spin|hybrid|block"},
        {{"latency", "--cpus", "a"}, "no list of CPUs"},
        {{"latency", "--cpus", "4095"}, "CPU 4095"},
        {{"latency", "--classes", "5"}, "--classes"},
        {{"latency", "--consumers", "0"}, "--consumers"},
        {{"latency", "--vhost", "v"}, "--bus"},
        {{"throughput", "--rate", "5"}, "--rate"},
        {{"throughput", "--hgrm", "x"}, "--hgrm"},
        {{"throughput", "--ring", "1000000G"}, "memory"},
        {{"latency", "-t", "shmq", "--ring", "100"}, "--ring"},
        {{"latency", "extra"}, "one argument too many"},
    };
    struct test_output out;

    need_program();
    for (size_t i = 0; i < COUNT_OF(CASES); i++) {
        test_context("case %zu ", i);
        CHECK_INT_EQ(run(&out, CASES[i].words), 2);
        CHECK_CONTAINS(out.err, CASES[i].part);
        CHECK(strncmp(out.err, "shmq-perf: ", 11) == 0);
        CHECK(strchr(out.err, '\n') == strrchr(out.err, '\n')); /* one line */
        CHECK_STR_EQ(out.out, "");
        test_output_free(&out);
    }
}

TEST(what_was_not_built_in_names_the_variable)
{
    static const char *const names[] = {"zmq", "nng"};
    struct test_output out;

    need_program();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const struct perf_contender peer = {.way = perf_way_find(names[i]),
                                            .setup = {.wait = PERF_BLOCK, .size = 64}};
        struct error_buffer why = {.text = ""};

        if (perf_contender_check(&peer, &why) == 0)
            continue; /* this build has it */
        CHECK_CONTAINS(why.text, "=yes");
        CHECK_INT_EQ(RUN(&out, "latency", "-t", names[i]), 2);
        CHECK_CONTAINS(out.err, "make ");
        CHECK_CONTAINS(out.err, "=yes");
        test_output_free(&out);
    }
}

TEST(a_bus_that_is_not_there_is_5)
{
    struct test_output out;

    need_program();
    CHECK_INT_EQ(RUN(&out, "latency", "-b", "nobody", "-t", "shmq", "--wait", "block", SHORT), 5);
    CHECK_CONTAINS(out.err, "shmqd");
    test_output_free(&out);
}

TEST(completion_knows_commands_options_and_transports)
{
    static const char script[] =
        "command -v bash >/dev/null || exit 77; exec bash -c '"
        ". tools/shmq-perf.bash; "
        "complete_words() { COMP_WORDS=(\"$@\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
        "_shmq_perf; echo \"${COMPREPLY[*]}\"; }; "
        "complete_words \"$PERF\" th; "
        "complete_words \"$PERF\" latency --rou; "
        "complete_words \"$PERF\" latency --wait b; "
        "complete_words \"$PERF\" latency --transport pip; "
        "complete_words \"$PERF\" latency --transport shmq,pip; "
        "complete_words \"$PERF\" durable --only window,catc; "
        "complete_words \"$PERF\" latency th; '";
    const char *build = getenv("BUILD");
    char program[512];
    struct test_output out;
    int status;

    snprintf(program, sizeof(program), "%s/test/bin/shmq-perf", build ? build : "build");
    if (access(program, X_OK) != 0)
        snprintf(program, sizeof(program), "%s/shmq-perf", build ? build : "build");
    if (access(program, X_OK) != 0 || access("tools/shmq-perf.bash", R_OK) != 0 || !test_can_exec())
        SKIP("there is no %s to ask", program);
    setenv("PERF", program, 1);
    status = cli_run_shell(&out, script);
    if (status != 77) {
        CHECK_INT_EQ(status, 0);
        CHECK_STR_EQ(out.out, "throughput\n--rounds\nblock\npipe\nshmq,pipe\nwindow,catch-up\n\n");
    }
    test_output_free(&out);
}

/* ---- With next to no time -------------------------------------------------------------------- */

/* 0, or 1 with one reason: all CPUs had other things to do, and no trial counted. Output is JSON in any case. */
static void check_json(const char *const *words)
{
    struct test_output out;
    int rc = run(&out, words);

    test_context("%s ", words[0]);
    if (rc == 1)
        CHECK_CONTAINS(out.err, "no trial counted");
    else if (!CHECK_INT_EQ(rc, 0))
        FAIL("%s", out.err);
    CHECK(cli_is_json(out.out, 1));
    CHECK(nothing_is_left(NULL));
    test_output_free(&out);
}

#define JSON(...) check_json((const char *const[]){__VA_ARGS__, "--format", "json", NULL})

TEST(every_verb_measures)
{
    need_program();
    if (!has_two_cpus())
        SKIP("one CPU");
    JSON("latency", SHORT);
    JSON("latency", SHORT, "-t", "shmq,shmq-multi,ideal,ideal-chase", "--size", "8,100", "--copy");
    JSON("throughput", SHORT, "--batch", "8", "--ring", "64K");
    JSON("fanout", SHORT);
    JSON("compare", SHORT, "--size", "64");
    JSON("floor", SHORT);
}

TEST(sleepers_measure_on_any_number_of_cpus)
{
    need_program();
    JSON("latency", SHORT, "--wait", "block");
    JSON("latency", SHORT, "--wait", "block", "--rate", "2000", "-t", "shmq,pipe");
    JSON("latency", SHORT, "--wait", "block", "--rate", "1", "-t", "pipe");
    JSON("throughput", SHORT, "--wait", "block", "--producers", "2", "--partitions", "3", "-t",
         "shmq,pipe");
}

TEST(waking_is_measured_and_idling)
{
    struct test_output out;

    need_program();
    CHECK_INT_EQ(RUN(&out, "wake", "--wait", "block", "-t", "shmq,futex", SHORT, "--format", "csv"),
                 0);
    CHECK_CONTAINS(out.out, "shmq block");
    CHECK_CONTAINS(out.out, "idle");
    test_output_free(&out);
}

TEST(nobody_needs_to_read)
{
    need_program();
    if (!has_two_cpus())
        SKIP("one CPU");
    JSON("throughput", SHORT, "--consumers", "0", "--producers", "2", "-t", "shmq,cas");
}

TEST(what_a_transport_cannot_carry_is_left_out)
{
    struct test_output out;

    need_program();
    CHECK_INT_EQ(
        RUN(&out, "latency", "--wait", "block", "-t", "pipe,mqueue", "--size", "1M", SHORT), 0);
    CHECK_CONTAINS(out.err, "left out: mqueue");
    CHECK_CONTAINS(out.out, "pipe");
    test_output_free(&out);
}

TEST(files_are_written)
{
    char plot[512], hgrm[512];
    struct test_output out;
    size_t length;
    char *text;

    need_program();
    (void)snprintf(plot, sizeof(plot), "%s/plot.svg", test_tmpdir());
    (void)snprintf(hgrm, sizeof(hgrm), "%s/trips.hgrm", test_tmpdir());
    CHECK_INT_EQ(RUN(&out, "latency", "--wait", "block", "-t", "pipe", SHORT, "--plot", plot,
                     "--hgrm", hgrm),
                 0);
    test_output_free(&out);
    text = cli_read_whole(plot, &length);
    CHECK_CONTAINS(text, "<svg");
    free(text);
    CHECK(count_traces(test_tmpdir(), "trips") > 0);
    CHECK_INT_EQ(
        RUN(&out, "latency", "--wait", "block", "-t", "pipe", SHORT, "--plot", "/nowhere/p.svg"),
        1);
    CHECK_CONTAINS(out.err, "/nowhere/p.svg");
    CHECK_STR_EQ(out.out, ""); /* said before anything was measured */
    test_output_free(&out);
}

TEST(who_cannot_keep_up_is_named)
{
    struct test_output out;

    need_program();
    CHECK_INT_EQ(RUN(&out, "latency", "--wait", "block", "-t", "pipe", "--rate", "10000000", SHORT),
                 0);
    CHECK_CONTAINS(out.err, "pipe: cannot keep up");
    test_output_free(&out);
}

TEST(topics_on_a_running_bus_are_deleted_again)
{
    struct test_output out;
    pid_t bus;

    need_program();
    bus = cli_start_bus();
    CHECK_INT_EQ(
        RUN(&out, "latency", "-b", test_bus_name(), "-t", "shmq", "--wait", "block", SHORT), 0);
    CHECK_CONTAINS(out.out, "shmq");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "topic list -q"), 0);
    CHECK_STR_EQ(out.out, "");
    test_output_free(&out);
    cli_stop_bus(bus);
}

/* `whole_group`: as a terminal does it, to all processes. */
static void end_by(int signal_number, bool whole_group)
{
    char *argv[] = {(char *)(uintptr_t) "setsid", /* a group of its own */
                    (char *)(uintptr_t) "shmq-perf",
                    (char *)(uintptr_t) "latency",
                    (char *)(uintptr_t) "--wait",
                    (char *)(uintptr_t) "block",
                    (char *)(uintptr_t) "-t",
                    (char *)(uintptr_t) "shmq,mqueue",
                    (char *)(uintptr_t) "--rounds",
                    (char *)(uintptr_t) "4000",
                    (char *)(uintptr_t) "--duration",
                    (char *)(uintptr_t) "60s",
                    NULL};
    pid_t pid = test_start(whole_group ? argv : argv + 1);

    /* Whenever it comes: before the bus, while it starts, in the middle. */
    for (unsigned i = 0; i < 100 && count_segments() == 0; i++)
        test_sleep_ms(10);
    test_sleep_ms(100);
    (void)kill(whole_group ? -pid : pid, signal_number);
    CHECK_INT_EQ(test_wait_exit(pid, test_scaled_ms(10000)), -signal_number);
    CHECK(test_eventually(nothing_is_left, NULL, 5000));
}

TEST(signals_leave_nothing_behind)
{
    need_program();
    end_by(SIGINT, true);
    end_by(SIGTERM, false);
    end_by(SIGTERM, true);
    end_by(SIGHUP, true);   /* its private bus ends by itself */
    end_by(SIGKILL, false); /* the same */
}

TEST_MAIN("perf", T(help_says_what_there_is), T_TIMEOUT(wrong_usage_is_2_and_says_what_to_do, 60),
          T(what_was_not_built_in_names_the_variable),
          T(completion_knows_commands_options_and_transports), T(a_bus_that_is_not_there_is_5),
          T_TIMEOUT(every_verb_measures, 120),
          T_TIMEOUT(sleepers_measure_on_any_number_of_cpus, 60),
          T_TIMEOUT(waking_is_measured_and_idling, 60), T_TIMEOUT(nobody_needs_to_read, 60),
          T_TIMEOUT(what_a_transport_cannot_carry_is_left_out, 60),
          T_TIMEOUT(files_are_written, 60), T_TIMEOUT(who_cannot_keep_up_is_named, 60),
          T_TIMEOUT(topics_on_a_running_bus_are_deleted_again, 60),
          T_TIMEOUT(signals_leave_nothing_behind, 60))
