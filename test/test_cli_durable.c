/* SPDX-License-Identifier: Apache-2.0 */
/* Durable topics as the user of the command line meets them: options, confirms, history by time, a disk that is
 * full. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "test/support/cli.h"
#include "tools/moment.h"

/* ---- Options ---------------------------------------------------------------------------------------- */

TEST(what_was_asked_for_is_shown)
{
    pid_t bus = cli_start_persistent_bus(NULL);
    struct test_output out;

    cli_run_expect(0, "topic create ev --durable interval --sync-interval 50ms --overflow spill "
                      "--retain-bytes 8M -p 2");
    cli_run_expect(0, "topic create memory");
    CHECK_INT_EQ(cli_run(&out, "topic describe ev"), 0);
    CHECK_CONTAINS(out.out, "durable       interval, synced every 50ms");
    CHECK_CONTAINS(out.out, "retention     8M each");
    CHECK_CONTAINS(out.out, "overflow      spill");
    CHECK_CONTAINS(out.out, "JOURNAL  DURABLE  NOT YET  OLDEST");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "topic describe memory"), 0);
    CHECK(strstr(out.out, "JOURNAL") == NULL && strstr(out.out, "retention") == NULL);
    test_output_free(&out);
    cli_run_expect(0, "topic alter ev --retain-bytes 0 --retain-time 7d --sync-interval 1s");
    CHECK_INT_EQ(cli_run(&out, "--json topic describe ev"), 0);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out,
                   "\"sync_interval_ms\":1000,\"retain_bytes\":null,\"retain_ms\":604800000");
    CHECK_CONTAINS(out.out, "\"journal\":{\"durable_offset\":0,\"first_offset\":0,");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json status"), 0);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out, "\"journals\":{\"partitions\":2,");
    CHECK_CONTAINS(out.out, "\"failing\":[]");
    test_output_free(&out);
    cli_run_expect(0, "doctor");
    cli_stop_persistent_bus(bus);
}

static void check_refused(int code, const char *words, const char *expected)
{
    struct test_output out;

    test_context("'%s': ", words);
    CHECK_INT_EQ(cli_run(&out, words), code);
    CHECK_CONTAINS(out.err, expected);
    test_output_free(&out);
    test_context(NULL);
}

TEST(contradictions_are_wrong_usage)
{
    pid_t bus = cli_start_bus();

    check_refused(2, "topic create a --overflow spill",
                  "--overflow spill needs --durable os, interval or always");
    check_refused(2, "topic create a --durable always --sync-interval 5ms",
                  "--durable interval alone");
    check_refused(2, "topic create a --durable interval --sync-interval 2h", "from 1 ms to 1 h");
    check_refused(2, "topic create a --retain-time 1d", "this topic has none");
    check_refused(2, "topic create a --durable os --retain-bytes 64K", "1M or more");
    check_refused(1, "topic create a --durable os", "ephemeral");
    cli_run_expect(0, "topic create a");
    check_refused(2, "topic alter a --retain-time 1d", "this topic has none");
    check_refused(1, "pub a -m x --confirm durable", "not durable");
    cli_stop_bus(bus);
}

/* ---- Confirms --------------------------------------------------------------------------------------- */

TEST(confirmed_lines_are_there_when_everything_else_is_gone)
{
    enum { COUNT = 30000 };
    static char input[COUNT * 8];
    pid_t bus = cli_start_persistent_bus(NULL);
    struct test_output out;
    size_t length = 0;

    for (unsigned i = 0; i < COUNT; i++)
        length += (size_t)sprintf(input + length, "%u\n", i);
    cli_run_expect(0, "topic create lines --durable os --ring 64K");
    CHECK_INT_EQ(
        cli_run_input(&out, input, length, "--json pub lines -l --confirm durable", (char *)NULL),
        0);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out, "\"messages\":30000,\"confirmed\":30000");
    test_output_free(&out);
    test_kill(bus, SIGKILL);
    CHECK(test_remove_leftovers() > 0);
    bus = cli_start_persistent_bus(NULL);
    CHECK_INT_EQ(cli_run(&out, "sub lines -n 30000 -t 20s"), 0);
    CHECK(out.out_length == length && memcmp(out.out, input, length) == 0);
    test_output_free(&out);
    /* What was read is read for good, and the log goes on. */
    cli_run_expect(0, "pub lines -m more --confirm durable");
    CHECK_INT_EQ(cli_run(&out, "sub lines -n 1 -t 20s"), 0);
    CHECK_STR_EQ(out.out, "more\n");
    test_output_free(&out);
    cli_stop_persistent_bus(bus);
}

TEST(every_partition_is_confirmed)
{
    pid_t bus = cli_start_persistent_bus(NULL);
    struct test_output out;

    cli_run_expect(0, "topic create wide --durable always -p 7 --ring 64K");
    CHECK_INT_EQ(cli_run(&out, "--json pub wide -n 25000 --size 20 --confirm durable"), 0);
    CHECK_CONTAINS(out.out, "\"messages\":25000,\"confirmed\":25000");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "sub wide -n 25000 -t 20s --read durable -q"), 0);
    test_output_free(&out);
    cli_stop_persistent_bus(bus);
}

/* ---- A full disk --------------------------------------------------------------------------------------- */

TEST(a_full_disk_is_named_everywhere)
{
    pid_t bus = cli_start_persistent_bus("allocate:1:ENOSPC+");
    struct test_output out;

    cli_run_expect(0, "topic create lines --durable os --ring 64K");
    CHECK_INT_EQ(cli_run(&out, "pub lines -n 3 --confirm durable --timeout 500ms"), 3);
    CHECK_CONTAINS(out.err, "3 messages were published, 3 of them are not confirmed");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "topic describe lines"), 0);
    CHECK_CONTAINS(out.out, "No space left on device");
    CHECK_CONTAINS(out.out, "Nothing more becomes durable");
    CHECK_CONTAINS(out.out, getenv("SHMQ_STATE_DIR")); /* where to free some */
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "status"), 0);
    CHECK_CONTAINS(out.out, "lines/0: No space left on device: free some space in ");
    CHECK_CONTAINS(out.out, "journal fails");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json status"), 0);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out,
                   "\"failing\":[{\"partition\":\"lines/0\",\"error\":\"No space left on device\"");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "doctor"), 1);
    CHECK_CONTAINS(out.out, "lines/0: nothing more becomes durable");
    CHECK_CONTAINS(out.out, "shmq topic alter lines --retain-bytes");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json doctor"), 1);
    CHECK_CONTAINS(out.out, "\"kind\":\"journal\"");
    test_output_free(&out);
    /* A full ring, and who holds it. */
    CHECK_INT_EQ(cli_run(&out, "pub lines -n 1000 --size 1000 --timeout 300ms"), 3);
    CHECK_CONTAINS(out.err, "journal");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "topic describe lines"), 0);
    CHECK_CONTAINS(out.out, "journal at ");
    test_output_free(&out);
    test_kill(bus, SIGKILL);
    /* Nobody is there to write it down; and a clean-up does not take it away. */
    CHECK_INT_EQ(cli_run(&out, "status"), 0);
    CHECK_CONTAINS(out.out, "nothing becomes durable without a supervisor");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "doctor --clean"), 1);
    CHECK_CONTAINS(out.out, "or it is not all on disk");
    test_output_free(&out);
    bus = cli_start_persistent_bus(NULL); /* with room: it heals */
    cli_run_expect(0, "pub lines -m last --confirm durable");
    cli_run_expect(0, "doctor");
    cli_stop_persistent_bus(bus);
}

/* ---- History by time ------------------------------------------------------------------------------------ */

TEST(a_group_begins_at_a_time)
{
    pid_t bus = cli_start_persistent_bus(NULL);
    struct test_output out;
    char words[128];
    char from[64];
    struct timespec now;
    struct tm broken;

    cli_run_expect(0, "topic create log --durable os --ring 64K --timestamps precise");
    cli_run_expect(0, "pub log -m early --confirm durable");
    test_sleep_ms(20);
    REQUIRE(clock_gettime(CLOCK_REALTIME, &now) == 0);
    test_sleep_ms(20);
    cli_run_expect(0, "pub log -m late --confirm durable");
    cli_run_expect(0, "pub log -n 5000 --size 50 --confirm durable"); /* far out of the ring */
    snprintf(words, sizeof(words), "sub log -g seconds -n 1 -t 10s --from @%lld.%09ld",
             (long long)now.tv_sec, now.tv_nsec);
    CHECK_INT_EQ(cli_run(&out, words), 0);
    CHECK_STR_EQ(out.out, "late\n");
    test_output_free(&out);
    REQUIRE(gmtime_r(&now.tv_sec, &broken) != NULL);
    strftime(from, sizeof(from), "%Y-%m-%dT%H:%M:%S", &broken);
    snprintf(words, sizeof(words), "sub log -g iso -n 1 -t 10s --from %s.%09ldZ", from,
             now.tv_nsec);
    CHECK_INT_EQ(cli_run(&out, words), 0);
    CHECK_STR_EQ(out.out, "late\n");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "sub log -g age -n 2 -t 10s --from -1h"), 0);
    CHECK_STR_EQ(out.out, "early\nlate\n");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "sub log -g future -n 1 -t 300ms --from 2100-01-01"), 3);
    CHECK_STR_EQ(out.out, "");
    test_output_free(&out);
    cli_stop_persistent_bus(bus);
}

TEST(moments_are_read_as_people_write_them)
{
    static const struct {
        const char *text;
        uint64_t ns; /* UINT64_MAX: none */
    } CASES[] = {
        {"2026-11-25T10:00:00Z", UINT64_C(1795600800) * NS_PER_S},
        {"2026-11-25T10:00:00+00:00", UINT64_C(1795600800) * NS_PER_S},
        {"2026-11-25T10:00:00+01:30", UINT64_C(1795595400) * NS_PER_S},
        {"2026-11-25T10:00:00-0130", UINT64_C(1795606200) * NS_PER_S},
        {"2026-11-25T10:00:00+01", UINT64_C(1795597200) * NS_PER_S},
        {"2026-11-25t10:00z", UINT64_C(1795600800) * NS_PER_S},
        {"2026-11-25 10:00:00.25Z", UINT64_C(1795600800) * NS_PER_S + 250000000},
        {"2026-11-25T10:00:00", UINT64_C(1795597200) * NS_PER_S}, /* local: CET */
        {"2026-11-25", UINT64_C(1795561200) * NS_PER_S},
        {"2024-02-29T00:00Z", UINT64_C(1709164800) * NS_PER_S},
        {"@0", 0},
        {"@1795600800", UINT64_C(1795600800) * NS_PER_S},
        {"@1.000000001", NS_PER_S + 1},
        {"-0", 1000 * NS_PER_S},
        {"-5m", 700 * NS_PER_S},
        {"-1h", 0}, /* before 1970 is 1970 */
        {"2025-02-29", UINT64_MAX},
        {"2026-11-31", UINT64_MAX},
        {"2026-00-01", UINT64_MAX},
        {"1969-12-31", UINT64_MAX},
        {"2026-11-25T24:00Z", UINT64_MAX},
        {"2026-11-25T10:60Z", UINT64_MAX},
        {"2026-11-25T10", UINT64_MAX},
        {"2026-11-25T10:00:00+1", UINT64_MAX},
        {"2026-11-25T10:00:00Zx", UINT64_MAX},
        {"2026-11-25x", UINT64_MAX},
        {"26-11-25", UINT64_MAX},
        {"@", UINT64_MAX},
        {"@1.", UINT64_MAX},
        {"@1x", UINT64_MAX},
        {"@99999999999999999999", UINT64_MAX},
        {"-5", UINT64_MAX},
        {"-", UINT64_MAX},
        {"", UINT64_MAX},
        {"noon", UINT64_MAX},
    };

    setenv("TZ", "CET-1", 1);
    tzset();
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        uint64_t ns = UINT64_MAX;

        test_context("'%s': ", CASES[i].text);
        CHECK(moment_parse(CASES[i].text, 1000 * NS_PER_S, &ns) == (CASES[i].ns != UINT64_MAX));
        CHECK_EQ(ns, CASES[i].ns);
    }
    test_context(NULL);
}

TEST_MAIN("cli_durable", T(what_was_asked_for_is_shown), T(contradictions_are_wrong_usage),
          T_TIMEOUT(confirmed_lines_are_there_when_everything_else_is_gone, 60),
          T(every_partition_is_confirmed), T(a_full_disk_is_named_everywhere),
          T(a_group_begins_at_a_time), T(moments_are_read_as_people_write_them))
