/* SPDX-License-Identifier: Apache-2.0 */
/* The command line as its user meets it: help, usage, exit codes, topics, groups, clients, JSON. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "test/support/cli.h"
#include "tools/json.h"

TEST(json_checker_refuses_what_is_not_json)
{
    CHECK(cli_is_json("[1, {\"a\": \"\\u00e9\\n\"}, true, null]", 1));
    CHECK(!cli_is_json("[1,]", 1));
    CHECK(!cli_is_json("{\"a\" 1}", 1));
    CHECK(!cli_is_json("\"a\nb\"", 1));
    CHECK(!cli_is_json("{} {}", 1));
    CHECK(!cli_is_json("01", 1));
    CHECK(cli_is_json("[-1.5e-07, 0.25, 1e+30, 0]", 1));
    CHECK(!cli_is_json("1.", 1));
    CHECK(!cli_is_json(".5", 1));
    CHECK(!cli_is_json("1e", 1));
    CHECK(!cli_is_json("-", 1));
    CHECK(!cli_is_json("nan", 1));
}

TEST(json_values_are_found_by_path)
{
    const char *text = "{\"a\": [1, {\"bb\": 2, \"b\": \"x\"}], \"c\": null}";

    CHECK(strncmp(cli_json_at(text, "a/0"), "1,", 2) == 0);
    CHECK(strncmp(cli_json_at(text, "a/1/b"), "\"x\"", 3) == 0);
    CHECK(strncmp(cli_json_at(text, "c"), "null", 4) == 0);
    CHECK(!cli_json_at(text, "a/2"));
    CHECK(!cli_json_at(text, "a/1/bbb"));
    CHECK(!cli_json_at(text, "c/0"));
}

/* ---- Without a bus -------------------------------------------------------------------------------- */

static const char *const COMMANDS[] = {
    "topic create", "topic list",   "topic describe",  "topic alter",
    "topic delete", "topic purge",  "group list",      "group describe",
    "group delete", "client list",  "client describe", "pub",
    "sub",          "status",       "doctor",          "journal verify",
    "journal dump", "journal stat", "journal repair",
};

#define EACH_COMMAND(i) (size_t i = 0; (i) < sizeof(COMMANDS) / sizeof(COMMANDS[0]); (i)++)

TEST(help_texts_exit_with_0_and_have_examples)
{
    struct test_output out;

    cli_need_tool();
    CHECK_INT_EQ(cli_run(&out, "--help"), 0);
    for
        EACH_COMMAND(i)
    CHECK_CONTAINS(out.out, COMMANDS[i]);
    CHECK_STR_EQ(out.err, "");
    test_output_free(&out);
    for
        EACH_COMMAND(i)
        {
            char words[128];

            test_context("%s: ", COMMANDS[i]);
            snprintf(words, sizeof(words), "%s --help", COMMANDS[i]);
            CHECK_INT_EQ(cli_run(&out, words), 0);
            CHECK_CONTAINS(out.out, "Usage: shmq ");
            CHECK_CONTAINS(out.out, "Examples");
            test_output_free(&out);
            snprintf(words, sizeof(words), "help %s", COMMANDS[i]);
            CHECK_INT_EQ(cli_run(&out, words), 0);
            CHECK_CONTAINS(out.out, COMMANDS[i]);
            test_output_free(&out);
        }
    test_context(NULL);
    cli_run_expect(0, "topic --help");
    cli_run_expect(0, "--version");
    cli_run_expect(0, "--json --version");
}

/* What to give for the option's placeholder in the help. */
static const char *sample_value(const char *option, const char *placeholder)
{
    static const char *const words[][2] = {
        {"--overflow", "reject"}, {"--producers", "single"},  {"--durable", "none"},
        {"--timestamps", "none"}, {"--confirm", "published"}, {"--from", "latest"},
        {"--format", "%b\\n"},    {"--header", "a=b"},        {"--read", "durable"},
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(words[i][0], option) == 0)
            return words[i][1];
    }
    if (strcmp(placeholder, "SIZE") == 0 || strcmp(placeholder, "BYTES") == 0)
        return "64K";
    if (strcmp(placeholder, "DUR") == 0)
        return "5s";
    return "7";
}

/* Every option that the help names, given in its long form, is taken. */
TEST(every_documented_option_parses)
{
    unsigned tried = 0;

    cli_need_tool();
    for
        EACH_COMMAND(i)
        {
            struct test_output help;
            char words[256];
            char *rest = NULL;

            snprintf(words, sizeof(words), "%s --help", COMMANDS[i]);
            REQUIRE(cli_run(&help, words) == 0);
            for (char *line = strtok_r(help.out, "\n", &rest); line;
                 line = strtok_r(NULL, "\n", &rest)) {
                char option[64] = "";
                char placeholder[32] = "";
                struct test_output out;
                const char *at = strstr(line, "--");

                if (strncmp(line, "  ", 2) != 0 || !at || at > line + 8 ||
                    sscanf(at, "%63[a-z-] %31[A-Z=]", option, placeholder) < 1)
                    continue;
                tried++;
                test_context("%s %s: ", COMMANDS[i], option);
                snprintf(words, sizeof(words), "%s %s", COMMANDS[i], option);
                if (*placeholder && at[strlen(option)] == ' ' && at[strlen(option) + 1] != ' ')
                    CHECK_INT_EQ(cli_run(&out, words, sample_value(option, placeholder), "--help"),
                                 0);
                else
                    CHECK_INT_EQ(cli_run(&out, words, "--help"), 0);
                CHECK_STR_EQ(out.err, "");
                test_output_free(&out);
            }
            test_output_free(&help);
        }
    test_context(NULL);
    CHECK(tried > 100); /* 15 commands with 7 common options each, and their own */
}

static void check_usage(const char *words, const char *expected)
{
    struct test_output out;

    test_context("'%s': ", words);
    CHECK_INT_EQ(cli_run(&out, words), 2);
    CHECK_CONTAINS(out.err, expected);
    CHECK(strncmp(out.err, "shmq: ", 6) == 0);
    CHECK(strchr(out.err, '\n') == out.err + out.err_length - 1); /* one line */
    CHECK_STR_EQ(out.out, "");
    test_output_free(&out);
    test_context(NULL);
}

TEST(wrong_usage_is_2_and_names_the_nearest)
{
    cli_need_tool();
    check_usage("", "a command is missing");
    check_usage("topik list", "did you mean 'topic'?");
    check_usage("nothing-like-it", "unknown");
    check_usage("topic", "a verb is missing");
    check_usage("topic lsit", "did you mean 'list'?");
    check_usage("topic create", "needs NAME");
    check_usage("topic create a b", "'b' is one argument too many");
    check_usage("topic create a --partition 3", "did you mean '--partitions'?");
    check_usage("topic create a -p 0", "'0' is not a number from 1 to 1024");
    check_usage("topic create a -p", "needs a value");
    check_usage("topic create a --ring 64Q", "'64Q' is not a size");
    check_usage("topic create a --overflow wait", "'wait' is none of");
    check_usage("topic create a --group-linger soon", "is not a duration");
    check_usage("topic list --json=yes", "takes no value");
    check_usage("pub a -m x -f y", "exclude each other");
    check_usage("pub a -n 5 -l", "-n does not go with -l");
    check_usage("pub a -m x --size 10", "--size is for generated");
    check_usage("pub a -m x -H novalue", "NAME=VALUE");
    check_usage("sub a --raw -0", "exclude each other");
    check_usage("sub a --format %q", "'%q' is unknown");
    check_usage("sub a --from yesterday", "'yesterday'");
    check_usage("sub a --from 2026-13-01", "a time (2026-11-25T10:00:00Z");
    check_usage("sub a --read all", "'all' is none of any|durable");
    check_usage("topic create a --sync-interval 0", "from 1ms to 1h");
    check_usage("topic create a --retain-bytes much", "'much' is not a size");
    check_usage("topic alter a", "nothing to change");
    check_usage("client describe me", "no client's number");
    check_usage("doctor --force", "--clean");
    check_usage("-b ..bad topic list", "bus");
    check_usage("-Z", "option '-Z' is unknown");
}

TEST(no_bus_is_5_and_says_how_to_start_one)
{
    static const char *const words[] = {"topic list", "pub a -m x", "sub a -n 1", "client list",
                                        "status"};
    struct test_output out;

    cli_need_tool();
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        test_context("%s: ", words[i]);
        CHECK_INT_EQ(cli_run(&out, words[i]), 5);
        CHECK_CONTAINS(out.err, "start it with: shmqd");
        test_output_free(&out);
    }
    CHECK_INT_EQ(cli_run(&out, "doctor"), 1);
    CHECK_CONTAINS(out.out, "no supervisor runs");
    test_output_free(&out);
}

/* ---- Topics, groups, clients ----------------------------------------------------------------------- */

TEST(topics_live_and_die)
{
    pid_t bus = cli_start_bus();
    struct test_output out;

    cli_run_expect(0, "topic create orders -p 3 --ring 64K --overflow reject");
    CHECK_INT_EQ(cli_run(&out, "topic create orders"), 1);
    CHECK_CONTAINS(out.err, "orders");
    test_output_free(&out);
    cli_run_expect(0, "topic create orders --if-not-exists");
    CHECK_INT_EQ(cli_run(&out, "-q topic list"), 0);
    CHECK_STR_EQ(out.out, "orders\n");
    test_output_free(&out);
    cli_run_expect(0, "topic alter orders -p 4");
    CHECK_INT_EQ(cli_run(&out, "topic describe orders"), 0);
    CHECK_CONTAINS(out.out, "partitions    4");
    CHECK_CONTAINS(out.out, "reject");
    test_output_free(&out);
    cli_run_expect(1, "topic describe nobody");
    cli_run_expect(2, "topic create bad/name");
    CHECK_INT_EQ(cli_run(&out, "topic create disk --durable always"), 1);
    CHECK_CONTAINS(out.err, "durab");
    test_output_free(&out);
    cli_run_expect(0, "topic purge orders");
    cli_run_expect(0, "topic delete orders");
    cli_run_expect(1, "topic delete orders");
    cli_run_expect(0, "topic delete orders --if-exists");
    cli_stop_bus(bus);
}

TEST(lists_are_valid_json)
{
    static const char *const words[] = {
        "--json topic list",
        "--json topic describe orders",
        "--json group list",
        "--json group list orders",
        "--json group describe orders default",
        "--json client list",
        "--json status",
        "--json topic create more",
        "--json topic alter more -p 2",
        "--json topic purge more",
        "--json topic delete more",
        "--json pub orders -m x",
        "--json group delete orders default",
        "--json doctor",
    };
    pid_t bus = cli_start_bus();
    struct test_output out;

    CHECK_INT_EQ(cli_run(&out, "--json topic list"), 0);
    CHECK(cli_is_json(out.out, 1));
    test_output_free(&out);
    cli_run_expect(0, "topic create orders -p 2");
    cli_run_expect(0, "pub orders -m x");
    cli_run_expect(0, "sub orders -n 1 -t 10s");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        test_context("%s: ", words[i]);
        CHECK_INT_EQ(cli_run(&out, words[i]), 0);
        CHECK(cli_is_json(out.out, 1));
        test_output_free(&out);
    }
    cli_stop_bus(bus);
}

TEST(clients_are_listed_with_what_they_do)
{
    pid_t bus = cli_start_bus();
    struct test_output out;
    char id[32] = "";
    pid_t sub;
    bool seen = false;

    cli_run_expect(0, "topic create orders");
    sub = cli_start_shell("exec \"$SHMQ\" sub orders -g readers >/dev/null");
    for (unsigned i = 0; i < 200 && !seen; i++) {
        CHECK_INT_EQ(cli_run(&out, "client list"), 0);
        seen = strstr(out.out, "consumer") != NULL;
        test_output_free(&out);
        test_sleep_ms(10);
    }
    CHECK(seen);
    CHECK_INT_EQ(cli_run(&out, "-q client list"), 0);
    sscanf(out.out, "%31[0-9]", id);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "client describe", id), 0);
    CHECK_CONTAINS(out.out, "orders/0 for group readers");
    test_output_free(&out);
    cli_run_expect(1, "client describe 999999");
    CHECK_INT_EQ(cli_run(&out, "group list orders"), 0);
    CHECK_CONTAINS(out.out, "readers");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "group delete orders readers"), 1); /* it has a member */
    test_output_free(&out);
    test_kill(sub, SIGINT);
    CHECK_INT_EQ(test_wait_exit(sub, CLI_WAIT_MS), 0);
    CHECK_INT_EQ(cli_run(&out, "group describe orders readers"), 0);
    CHECK_CONTAINS(out.out, "nobody"); /* ^C has left the group */
    test_output_free(&out);
    cli_run_expect(0, "group delete orders readers");
    cli_stop_bus(bus);
}

/* ---- Parts ------------------------------------------------------------------------------------------- */

TEST(json_escapes_and_tells_text_from_bytes)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_bytes(&json, "a", "q\"b\\n\n\t\x01", 8);
    json_bytes(&json, "b", "\xff\xfe", 2);
    json_bytes(&json, "c", "\xed\xa0\x80", 3);     /* a surrogate */
    json_bytes(&json, "d", "\xc0\xaf", 2);         /* overlong */
    json_bytes(&json, "e", "\xf0\x9f\x98\x80", 4); /* fine */
    json_bytes(&json, "f", "\0", 1);
    json_string(&json, "g", "caf\xe9");
    json_array_begin(&json, "h");
    json_array_end(&json);
    json_object_end(&json);
    outbuf_byte(&out, '\0');
    CHECK_STR_EQ(out.data, "{\"a\":\"q\\\"b\\\\n\\n\\t\\u0001\",\"b_base64\":\"//4=\","
                           "\"c_base64\":\"7aCA\",\"d_base64\":\"wK8=\",\"e\":\"\xf0\x9f\x98\x80\","
                           "\"f\":\"\\u0000\",\"g\":\"caf\\ufffd\",\"h\":[]}\n");
    CHECK(cli_is_json(out.data, 1));
    outbuf_free(&out);
}

TEST(completion_knows_nouns_verbs_and_topics)
{
    static const char script[] =
        "command -v bash >/dev/null || exit 77; exec bash -c '"
        ". tools/shmq.bash; "
        "complete_words() { COMP_WORDS=(\"$@\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
        "COMPREPLY=(); _shmq; echo \"${COMPREPLY[*]}\"; }; "
        "complete_words \"$SHMQ\" to; "
        "complete_words \"$SHMQ\" topic de; "
        "complete_words \"$SHMQ\" sub ord; "
        "complete_words \"$SHMQ\" topic create x --overf; "
        "complete_words \"$SHMQ\" topic create x --overflow re; '";
    pid_t bus = cli_start_bus();
    struct test_output out;
    int status;

    if (access("tools/shmq.bash", R_OK) != 0) {
        cli_stop_bus(bus);
        SKIP("not run from the top of the tree");
    }
    cli_run_expect(0, "topic create orders");
    status = cli_run_shell(&out, script);
    if (status != 77) {
        CHECK_INT_EQ(status, 0);
        CHECK_STR_EQ(out.out, "topic\ndescribe delete\norders\n--overflow\nreject\n");
    }
    test_output_free(&out);
    cli_stop_bus(bus);
}

TEST_MAIN("cli", T(json_checker_refuses_what_is_not_json), T(json_values_are_found_by_path),
          T(help_texts_exit_with_0_and_have_examples),
          T_TIMEOUT(every_documented_option_parses, 60), T(wrong_usage_is_2_and_names_the_nearest),
          T(no_bus_is_5_and_says_how_to_start_one), T(topics_live_and_die), T(lists_are_valid_json),
          T(clients_are_listed_with_what_they_do), T(json_escapes_and_tells_text_from_bytes),
          T(completion_knows_nouns_verbs_and_topics))
