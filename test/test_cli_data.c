/* SPDX-License-Identifier: Apache-2.0 */
/* What goes into `shmq pub` comes out of `shmq sub`: all sizes and bytes, also when one is killed. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/support/cli.h"

/* ---- Data ------------------------------------------------------------------------------------------- */

TEST(lines_come_out_as_they_went_in)
{
    static char input[200000];
    pid_t bus = cli_start_bus();
    struct test_output out;
    size_t length = 0;
    unsigned lines = 0;

    while (length + 200 < sizeof(input)) {
        length +=
            (size_t)sprintf(input + length, "%u %.*s\n", lines, (int)(lines % 150),
                            "the quick brown fox jumps over the lazy dog; the quick brown fox "
                            "jumps over the lazy dog; the quick brown fox jumps over the lazy "
                            "dog; the quick brown fox");
        lines++;
    }
    cli_run_expect(0, "topic create text --ring 1M");
    CHECK_INT_EQ(cli_run_input(&out, input, length, "pub text", (char *)NULL), 0);
    CHECK_STR_EQ(out.err, "");
    test_output_free(&out);
    {
        char count[32];

        snprintf(count, sizeof(count), "%u", lines);
        CHECK_INT_EQ(cli_run(&out, "sub text -t 20s -n", count), 0);
    }
    CHECK_EQ(out.out_length, length);
    CHECK(out.out_length == length && memcmp(out.out, input, length) == 0);
    test_output_free(&out);
    /* Empty lines are messages; a last line needs no newline. */
    CHECK_INT_EQ(cli_run_input(&out, "a\n\nb", 4, "pub text", (char *)NULL), 0);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "sub text -n 3 -t 20s"), 0);
    CHECK_STR_EQ(out.out, "a\n\nb\n");
    test_output_free(&out);
    cli_stop_bus(bus);
}

TEST(binary_data_comes_out_as_it_went_in)
{
    static unsigned char blob[100000];
    struct test_random random;
    pid_t bus = cli_start_bus();
    struct test_output out;
    char path[512];
    FILE *file;

    test_random_init(&random, test_seed());
    test_random_fill(&random, blob, sizeof(blob));
    memcpy(blob + 500, "\n\0\0\n", 4);
    file = fopen(cli_temporary("blob", path), "w");
    REQUIRE(file && fwrite(blob, 1, sizeof(blob), file) == sizeof(blob));
    fclose(file);
    cli_run_expect(0, "topic create blobs --max-message 128K");
    cli_run_expect(0, "pub blobs -f", path);
    CHECK_INT_EQ(cli_run(&out, "sub blobs -n 1 -t 20s --raw"), 0);
    CHECK_EQ(out.out_length, sizeof(blob));
    CHECK(out.out_length == sizeof(blob) && memcmp(out.out, blob, sizeof(blob)) == 0);
    test_output_free(&out);
    /* The same from stdin, and as JSON: not UTF-8. */
    CHECK_INT_EQ(cli_run_input(&out, blob, sizeof(blob), "pub blobs -f -", (char *)NULL), 0);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "sub blobs -n 1 -t 20s --json"), 0);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out, "\"body_base64\":\"");
    test_output_free(&out);
    /* NUL-separated: newlines inside bodies. */
    CHECK_INT_EQ(cli_run_input(&out, "a\nb\0c\0", 6, "pub blobs -0", (char *)NULL), 0);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "sub blobs -n 2 -t 20s -0"), 0);
    CHECK(out.out_length == 6 && memcmp(out.out, "a\nb\0c\0", 6) == 0);
    test_output_free(&out);
    cli_stop_bus(bus);
}

TEST(keys_headers_and_templates)
{
    pid_t bus = cli_start_bus();
    struct test_output out;

    cli_run_expect(0, "topic create keyed -p 4");
    CHECK_INT_EQ(cli_run_input(&out, "k1:one\nk2:two:2\n", 16,
                               "pub keyed --key-separator : -H a=1 -H", "b=x y", (char *)NULL),
                 0);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "sub keyed -n 2 -t 20s --format", "%k|%b|%h|%%\\n"), 0);
    CHECK_CONTAINS(out.out, "k1|one|a=1,b=x y|%\n");
    CHECK_CONTAINS(out.out, "k2|two:2|a=1,b=x y|%\n");
    test_output_free(&out);
    cli_run_expect(0, "pub keyed -k \xc3\xa9 -m \"quoted\" --partition 2");
    CHECK_INT_EQ(cli_run(&out, "sub keyed -n 1 -t 20s --json"), 0);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out, "\"partition\":2");
    CHECK_CONTAINS(out.out, "\"key\":\"\xc3\xa9\"");
    CHECK_CONTAINS(out.out, "\"body\":\"\\\"quoted\\\"\"");
    test_output_free(&out);
    CHECK_INT_EQ(
        cli_run_input(&out, "k1:one\nnokey\n", 13, "pub keyed --key-separator :", (char *)NULL), 1);
    CHECK_CONTAINS(out.err, "line 2: there is no key");
    CHECK_CONTAINS(out.err, "1 message was published");
    test_output_free(&out);
    cli_run_expect(2, "pub keyed -m x --partition 4");
    cli_stop_bus(bus);
}

TEST(too_long_a_line_is_an_error_and_says_what_was_published)
{
    static char input[70000];
    pid_t bus = cli_start_bus();
    struct test_output out;

    memset(input, 'x', sizeof(input));
    memcpy(input, "short\n", 6);
    input[sizeof(input) - 1] = '\n';
    cli_run_expect(0, "topic create small --ring 64K");
    CHECK_INT_EQ(cli_run_input(&out, input, sizeof(input), "pub small", (char *)NULL), 1);
    CHECK_CONTAINS(out.err, "line 2: longer than");
    CHECK_CONTAINS(out.err, "1 message was published");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "sub small -n 1 -t 20s"), 0);
    CHECK_STR_EQ(out.out, "short\n");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "pub small -n 1 --size 60000"), 1);
    CHECK_CONTAINS(out.err, "at most");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "pub small -f /nonexistent"), 1);
    CHECK_CONTAINS(out.err, "No such file");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "pub small -m x --confirm durable"), 1);
    CHECK_CONTAINS(out.err, "not durable");
    test_output_free(&out);
    cli_stop_bus(bus);
}

TEST(timeouts_are_3)
{
    pid_t bus = cli_start_bus();
    struct test_output out;
    uint64_t start_ns;

    cli_run_expect(0, "topic create quiet --ring 64K");
    CHECK_INT_EQ(cli_run(&out, "sub quiet -n 2 -t 200ms"), 3);
    CHECK_STR_EQ(out.out, "");
    test_output_free(&out);
    cli_run_expect(0, "pub quiet -m x");
    CHECK_INT_EQ(cli_run(&out, "sub quiet -n 2 -t 200ms"), 3);
    CHECK_STR_EQ(out.out, "x\n"); /* what came is not kept back */
    test_output_free(&out);
    /* The group above holds the ring back: block waits, then names it. */
    start_ns = test_now_ns();
    CHECK_INT_EQ(cli_run(&out, "pub quiet -n 1000 --size 1000 --timeout 300ms"), 3);
    CHECK(test_now_ns() - start_ns >= UINT64_C(300000000));
    CHECK_CONTAINS(out.err, "published)");
    CHECK_CONTAINS(out.err, "default");
    test_output_free(&out);
    cli_run_expect(0, "topic create strict --ring 64K --overflow reject");
    cli_run_expect(3, "sub strict -t 0");
    CHECK_INT_EQ(cli_run(&out, "pub strict -n 1000 --size 1000"), 1);
    CHECK_CONTAINS(out.err, "published)");
    test_output_free(&out);
    cli_stop_bus(bus);
}

TEST(a_rate_is_kept)
{
    pid_t bus = cli_start_bus();
    uint64_t start_ns;

    cli_run_expect(0, "topic create slow");
    start_ns = test_now_ns();
    cli_run_expect(0, "pub slow -n 31 --rate 100");
    CHECK(test_now_ns() - start_ns >= UINT64_C(300000000)); /* 30 gaps of 10 ms */
    cli_stop_bus(bus);
}

/* ---- Death and trouble ------------------------------------------------------------------------------ */

/* Every number from 0 on stands in the text, none before its predecessor was seen. Returns how
 * many there are. */
static uint64_t check_sequence(const char *text, size_t length)
{
    uint64_t next = 0;

    for (const char *line = text; line < text + length;) {
        const char *end = memchr(line, '\n', (size_t)(text + length - line));
        uint64_t number;

        if (!end)
            break;
        number = strtoull(line, NULL, 10);
        if (number > next) {
            FAIL("number %llu follows %llu", (unsigned long long)number, (unsigned long long)next);
            return next;
        }
        next = number == next ? next + 1 : next;
        line = end + 1;
    }
    return next;
}

TEST(sub_killed_loses_nothing)
{
    enum { COUNT = 100000 };
    static char input[COUNT * 8];
    pid_t bus = cli_start_bus();
    struct test_random random;
    struct test_output out;
    char path[512];
    char command[1024];
    size_t length = 0;
    uint64_t got = 0;
    unsigned kills = 0;
    FILE *file;

    for (unsigned i = 0; i < COUNT; i++)
        length += (size_t)sprintf(input + length, "%u\n", i);
    cli_run_expect(0, "topic create numbers --ring 8M");
    cli_run_expect(3, "sub numbers -t 0 -q"); /* the group: from now on everything is kept */
    CHECK_INT_EQ(cli_run_input(&out, input, length, "pub numbers", (char *)NULL), 0);
    test_output_free(&out);
    test_random_init(&random, test_seed());
    snprintf(command, sizeof(command), "exec \"$SHMQ\" sub numbers >> '%s'",
             cli_temporary("out", path));
    file = fopen(path, "w"); /* the first kill may come before the shell has made it */
    REQUIRE(file != NULL);
    fclose(file);
    while (got < COUNT && kills < 400) {
        pid_t sub = cli_start_shell(command);
        char *text;

        /* Longer each time, so that a slow machine gets there too. */
        usleep((useconds_t)test_random_below(&random, 2000 + 500 * (uint64_t)kills));
        test_kill(sub, SIGKILL);
        kills++;
        text = cli_read_whole(path, &length);
        got = check_sequence(text, length);
        /* A torn line of this run would stick to the first of the next: it comes again whole. */
        while (length > 0 && text[length - 1] != '\n')
            length--;
        CHECK_INT_EQ(truncate(path, (off_t)length), 0);
        free(text);
        if (test_failures() > 0)
            break;
    }
    CHECK_EQ(got, COUNT);
    CHECK(kills > 1);
    cli_stop_bus(bus);
}

TEST(a_reader_that_goes_away_leaves_the_rest_to_the_group)
{
    pid_t bus = cli_start_bus();
    struct test_output out;

    cli_run_expect(0, "topic create lines");
    cli_run_expect(0, "pub lines -n 5000 --size 100");
    CHECK_INT_EQ(cli_run_shell(&out, "\"$SHMQ\" sub lines -n 5000 | head -n 1"), 0);
    CHECK(strncmp(out.out, "1 ", 2) == 0);
    CHECK_CONTAINS(out.err, "its reader has gone");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json group describe lines default"), 0);
    CHECK(strstr(out.out, "\"lag_bytes\":0,\"lost") == NULL); /* the end was not committed */
    test_output_free(&out);
    CHECK_INT_EQ(cli_run_shell(&out, "\"$SHMQ\" -q sub lines -t 500ms | tail -n 1"), 0);
    CHECK(strncmp(out.out, "5000 ", 5) == 0);
    test_output_free(&out);
    cli_stop_bus(bus);
}

TEST(a_second_member_stands_by_and_takes_over)
{
    pid_t bus = cli_start_bus();
    struct test_output out;
    char path[512];
    char command[1024];
    char *text;
    size_t length;
    pid_t first;
    pid_t second;
    bool said = false;

    cli_run_expect(0, "topic create work");
    first = cli_start_shell("exec \"$SHMQ\" sub work >/dev/null");
    snprintf(command, sizeof(command), "exec \"$SHMQ\" sub work -n 1 >/dev/null 2>'%s'",
             cli_temporary("err", path));
    for (unsigned i = 0; i < 500 && !said; i++) {
        CHECK_INT_EQ(cli_run(&out, "--json group list work"), 0);
        said = strstr(out.out, "\"members\":1") != NULL;
        test_output_free(&out);
        test_sleep_ms(10);
    }
    CHECK(said);
    second = cli_start_shell(command);
    said = false;
    for (unsigned i = 0; i < 500 && !said; i++) {
        text = cli_read_whole(path, &length);
        said = strstr(text, "standing by: group default of work is served by client") != NULL;
        free(text);
        test_sleep_ms(10);
    }
    CHECK(said);
    test_kill(first, SIGKILL);
    cli_run_expect(0, "pub work -m go");
    CHECK_INT_EQ(test_wait_exit(second, CLI_WAIT_MS), 0);
    cli_stop_bus(bus);
}

TEST(losses_are_said_with_their_bytes)
{
    pid_t bus = cli_start_bus();
    char path[512];
    char command[1024];
    pid_t sub;
    char *text;
    size_t length = 0;

    cli_run_expect(0, "topic create latest --ring 64K --overflow drop-old");
    cli_run_expect(0, "pub latest -m first");
    snprintf(command, sizeof(command), "exec \"$SHMQ\" sub latest >'%s' 2>'%s.err'",
             cli_temporary("out", path), path);
    sub = cli_start_shell(command);
    for (unsigned i = 0; i < 500 && length == 0; i++) {
        text = cli_read_whole(path, &length);
        free(text);
        test_sleep_ms(10);
    }
    test_kill(sub, SIGSTOP);
    CHECK(test_wait_stopped(sub, CLI_WAIT_MS));
    cli_run_expect(0, "pub latest -n 2000 --size 500"); /* nobody holds it up */
    test_kill(sub, SIGCONT);
    test_sleep_ms(300);
    test_kill(sub, SIGTERM);
    CHECK_INT_EQ(test_wait_exit(sub, CLI_WAIT_MS), 0);
    snprintf(command, sizeof(command), "%s.err", path);
    text = cli_read_whole(command, &length);
    CHECK_CONTAINS(text, "latest/0: ");
    CHECK_CONTAINS(text, "bytes were overwritten before they were read");
    free(text);
    cli_stop_bus(bus);
}

TEST(pub_stops_cleanly_at_a_signal)
{
    pid_t bus = cli_start_bus();
    char path[512];
    char command[1024];
    char *text;
    size_t length;
    pid_t pub;

    cli_run_expect(0, "topic create steady");
    snprintf(command, sizeof(command), "exec \"$SHMQ\" pub steady -n 100000 --rate 100 2>'%s'",
             cli_temporary("err", path));
    pub = cli_start_shell(command);
    test_sleep_ms(300);
    test_kill(pub, SIGINT);
    CHECK_INT_EQ(test_wait_exit(pub, CLI_WAIT_MS), 1);
    text = cli_read_whole(path, &length);
    CHECK_CONTAINS(text, "interrupted: ");
    CHECK_CONTAINS(text, "published");
    free(text);
    cli_stop_bus(bus);
}

TEST_MAIN("cli_data", T(lines_come_out_as_they_went_in), T(binary_data_comes_out_as_it_went_in),
          T(keys_headers_and_templates), T(too_long_a_line_is_an_error_and_says_what_was_published),
          T(timeouts_are_3), T(a_rate_is_kept), T_TIMEOUT(sub_killed_loses_nothing, 60),
          T(a_reader_that_goes_away_leaves_the_rest_to_the_group),
          T(a_second_member_stands_by_and_takes_over), T(losses_are_said_with_their_bytes),
          T(pub_stops_cleanly_at_a_signal))
