/* SPDX-License-Identifier: Apache-2.0 */
/* shmqd's settings: where they come from, what is refused and how, what a reload may change. */
#include "daemon/config.h"
#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "test/support/test.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *file_path(void)
{
    static char path[PATHS_DIR_BYTES];

    (void)snprintf(path, sizeof(path), "%s/shmqd.conf", test_tmpdir());
    return path;
}

static void write_bytes(const char *text, size_t length)
{
    FILE *file = fopen(file_path(), "we");

    REQUIRE(file && fwrite(text, 1, length, file) == length);
    REQUIRE(fclose(file) == 0);
}

static void write_file(const char *text)
{
    write_bytes(text, strlen(text));
}

/* The runner puts every test on a bus of its own by these; here they are the subject. */
static void forget_environment(void)
{
    REQUIRE(unsetenv("SHMQ_BUS") == 0 && unsetenv("SHMQ_RUNTIME_DIR") == 0 &&
            unsetenv("SHMQ_STATE_DIR") == 0);
}

/* `--config FILE` first, so that the file of this machine has no say. */
static int load(char **arguments, struct config *config, struct error_buffer *why)
{
    char *argv[16] = {(char *)"shmqd", (char *)"--config", (char *)(uintptr_t)file_path()};
    int argc = 3;

    while (*arguments && argc < 15)
        argv[argc++] = *arguments++;
    return config_load(argc, argv, config, why);
}

#define ARGUMENTS(...) \
    (char *[]) \
    { \
        (char *)__VA_ARGS__, NULL \
    }
#define NO_ARGUMENTS ((char *[]){NULL})

static struct config read_good(const char *text)
{
    struct config config;
    struct error_buffer why = {""};

    config_init(&config);
    write_file(text);
    if (!CHECK_OK(config_read_file(&config, file_path(), &why)))
        FAIL("%s", why.text);
    return config;
}

/* What comes behind the file's name. */
static const char *read_bad(const char *text, int code)
{
    static struct error_buffer why;
    struct config config;

    why.text[0] = '\0';
    config_init(&config);
    write_file(text);
    CHECK_ERR(config_read_file(&config, file_path(), &why), code);
    if (!CHECK(strncmp(why.text, file_path(), strlen(file_path())) == 0))
        return why.text;
    return why.text + strlen(file_path());
}

TEST(every_key_is_read)
{
    struct config config = read_good("; a comment\n"
                                     "# another\n"
                                     "[bus]\n"
                                     "name = orders\n"
                                     "runtime_dir=/r\n"
                                     "   state_dir = /s   \n"
                                     "standby = yes\n"
                                     "ephemeral = off\n"
                                     "socket_mode = 0666\n"
                                     "socket_group = staff ; inline comment\n"
                                     "wait_mode: fence\n"
                                     "[limits]\r\n"
                                     "clients = 1\r\n"
                                     "topics = 2\n"
                                     "partitions = 3\n"
                                     "groups_per_topic = 4\n"
                                     "connections_per_user = 5\n"
                                     "bytes_per_user = 6M\n"
                                     "slots_per_user = 7\n"
                                     "[defaults]\n"
                                     "ring = 128K\n"
                                     "group_linger = forever\n"
                                     "[log]\n"
                                     "level = debug"); /* and no newline at the end */

    CHECK_STR_EQ(config.bus, "orders");
    CHECK_STR_EQ(config.runtime_dir, "/r");
    CHECK_STR_EQ(config.state_dir, "/s");
    CHECK(config.standby && !config.ephemeral);
    CHECK_EQ(config.socket_mode, 0666);
    CHECK_STR_EQ(config.socket_group, "staff");
    CHECK_EQ(config.wait_mode, CONFIG_WAIT_FENCE);
    CHECK_EQ(config.clients, 1);
    CHECK_EQ(config.topics, 2);
    CHECK_EQ(config.partitions, 3);
    CHECK_EQ(config.groups_per_topic, 4);
    CHECK_EQ(config.connections_per_user, 5);
    CHECK_EQ(config.bytes_per_user, 6u << 20);
    CHECK_EQ(config.slots_per_user, 7);
    CHECK_EQ(config.ring_bytes, 128u << 10);
    CHECK_EQ(config.group_linger_ns, LINGER_FOREVER);
    CHECK_EQ(config.log_level, LOG_LEVEL_DEBUG);
}

TEST(errors_name_file_line_key_and_remedy)
{
    CHECK_STR_EQ(read_bad("[limits]\n\nclients = many\n", SHMQ_EINVAL),
                 ":3: limits.clients: 'many' is not a number from 1 to 1000000; give one");
    CHECK_STR_EQ(read_bad("[limits]\nclients = 0\n", SHMQ_EINVAL),
                 ":2: limits.clients: '0' is not a number from 1 to 1000000; give one");
    CHECK_CONTAINS(read_bad("[limits]\nbytes_per_user = 5 apples\n", SHMQ_EINVAL),
                   ":2: limits.bytes_per_user: '5 apples' is not a size; give");
    CHECK_CONTAINS(
        read_bad("[defaults]\nring = 100K\n", SHMQ_EINVAL),
        ":2: defaults.ring: '100K' is out of bounds; give a power of two from 64K to 16G");
    CHECK_CONTAINS(read_bad("[defaults]\nring = 32K\n", SHMQ_EINVAL), "from 64K");
    CHECK_CONTAINS(read_bad("[defaults]\ngroup_linger = 5\n", SHMQ_EINVAL),
                   ":2: defaults.group_linger: '5' is not a duration; give");
    CHECK_CONTAINS(read_bad("[bus]\nsocket_mode = 0488\n", SHMQ_EINVAL),
                   ":2: bus.socket_mode: '0488'");
    CHECK_CONTAINS(read_bad("[bus]\nsocket_mode = 0400\n", SHMQ_EINVAL), "let the owner in");
    CHECK_CONTAINS(read_bad("[bus]\nsocket_mode = 07777777777777777777777\n", SHMQ_EINVAL), "mode");
    CHECK_CONTAINS(read_bad("[bus]\nstandby = perhaps\n", SHMQ_EINVAL),
                   "'perhaps' is neither yes nor no");
    CHECK_CONTAINS(read_bad("[bus]\nwait_mode = spin\n", SHMQ_EINVAL),
                   "give one of auto, membarrier, fence");
    CHECK_CONTAINS(read_bad("[bus]\nname = a/b\n", SHMQ_EINVAL),
                   ":2: bus.name: 'a/b' is not a name");
    CHECK_CONTAINS(read_bad("[bus]\nname =\n", SHMQ_EINVAL), ":2: bus.name: '' is not a name");
}

TEST(strange_files_are_errors)
{
    struct config config;
    struct error_buffer why;
    char text[600];

    CHECK_STR_EQ(read_bad("\n[limits]\nclient = 5\n", SHMQ_EINVAL),
                 ":3: limits.client: unknown key; [limits] has clients, topics, partitions, "
                 "groups_per_topic, connections_per_user, bytes_per_user, slots_per_user");
    CHECK_CONTAINS(read_bad("[limit]\nclients = 5\n", SHMQ_EINVAL),
                   ":2: limit.clients: unknown section");
    CHECK_CONTAINS(read_bad("clients = 5\n", SHMQ_EINVAL), ":1: clients: stands in no section");
    CHECK_CONTAINS(read_bad("[limits]\nclients\n[log]\nlevel = x\n", SHMQ_EINVAL), ":2: neither");
    CHECK_CONTAINS(read_bad("[limits\nclients = 5\n", SHMQ_EINVAL), ":1: neither");
    CHECK_CONTAINS(read_bad("[limits]\nclients = 5\n\nclients = 6\n", SHMQ_EINVAL),
                   ":4: limits.clients: stands in line 2 already");
    /* Indented: not more of the value above, as some INI parsers have it. */
    CHECK_CONTAINS(read_bad("[limits]\nclients = 5\n  topics = none\n", SHMQ_EINVAL),
                   ":3: limits.topics: 'none'");
    memset(text, 'x', sizeof(text));
    memcpy(text, "[bus]\nruntime_dir = ", 20);
    text[sizeof(text) - 1] = '\0';
    CHECK_CONTAINS(read_bad(text, SHMQ_EINVAL), ":2: longer than");
    config_init(&config);
    write_bytes("[log]\nlevel = in\0fo\n", 20);
    CHECK_ERR(config_read_file(&config, file_path(), &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, ":2: a NUL byte");
    REQUIRE(unlink(file_path()) == 0);
    CHECK(config_read_file(&config, file_path(), &why) < 0);
    CHECK_CONTAINS(why.text, file_path());
    REQUIRE(mkdir(file_path(), 0700) == 0);
    CHECK(config_read_file(&config, file_path(), &why) < 0);
    CHECK_CONTAINS(why.text, file_path());
}

TEST(the_command_line_wins_over_environment_over_file)
{
    struct config config;

    write_file(
        "[bus]\nname = file\nruntime_dir = /file\nstate_dir = /file\n[limits]\nclients = 5\n");
    forget_environment();
    REQUIRE_OK(load(NO_ARGUMENTS, &config, NULL));
    CHECK_STR_EQ(config.bus, "file");
    REQUIRE(setenv("SHMQ_BUS", "env", 1) == 0 && setenv("SHMQ_STATE_DIR", "/env", 1) == 0);
    REQUIRE(setenv("SHMQ_RUNTIME_DIR", "", 1) == 0); /* empty: not set */
    REQUIRE_OK(load(NO_ARGUMENTS, &config, NULL));
    CHECK_STR_EQ(config.bus, "env");
    CHECK_STR_EQ(config.state_dir, "/env");
    CHECK_STR_EQ(config.runtime_dir, "/file");
    REQUIRE_OK(load(ARGUMENTS("-b", "arg", "--state-dir=/arg", "--set", "limits.clients=6"),
                    &config, NULL));
    CHECK_STR_EQ(config.bus, "arg");
    CHECK_STR_EQ(config.state_dir, "/arg");
    CHECK_EQ(config.clients, 6);
    CHECK_STR_EQ(config_paths_options(&config).bus, "arg");
}

TEST(options_do_what_they_say)
{
    struct config config;

    forget_environment();
    write_file("");
    REQUIRE_OK(load(NO_ARGUMENTS, &config, NULL));
    CHECK_STR_EQ(config.bus, "");
    CHECK(!config.standby && !config.ephemeral);
    CHECK_EQ(config.socket_mode, 0600);
    REQUIRE_OK(
        load(ARGUMENTS("--bus", "b", "--runtime-dir", "/r", "--standby", "--log-level=debug"),
             &config, NULL));
    CHECK_STR_EQ(config.bus, "b");
    CHECK_STR_EQ(config.runtime_dir, "/r");
    CHECK(config.standby);
    CHECK_EQ(config.log_level, LOG_LEVEL_DEBUG);
    REQUIRE_OK(load(ARGUMENTS("--ephemeral", "--set=bus.socket_group=staff"), &config, NULL));
    CHECK(config.ephemeral);
    CHECK_EQ(config.socket_mode, 0660); /* a group that may not connect makes no sense */
    REQUIRE_OK(load(ARGUMENTS("--set=bus.socket_group=staff", "--set=bus.socket_mode=0600"),
                    &config, NULL));
    CHECK_EQ(config.socket_mode, 0600);
    CHECK_INT_EQ(load(ARGUMENTS("--help", "--nonsense"), &config, NULL), CONFIG_HELP);
    CHECK_INT_EQ(load(ARGUMENTS("-V"), &config, NULL), CONFIG_VERSION);
}

static void check_usage(char **arguments, const char *part)
{
    struct config config = {.clients = 77};
    struct error_buffer why = {""};

    CHECK_ERR(load(arguments, &config, &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, part);
    CHECK_EQ(config.clients, 77);
}

TEST(wrong_usage_is_told)
{
    struct config config;
    struct error_buffer why;

    forget_environment();
    write_file("");
    check_usage(ARGUMENTS("--nonsense"), "--nonsense: unknown option");
    check_usage(ARGUMENTS("-x"), "-x: unknown option");
    check_usage(ARGUMENTS("--bus"), "--bus: needs an argument");
    check_usage(ARGUMENTS("-b"), "-b: needs an argument");
    check_usage(ARGUMENTS("--standby=yes"), "--standby=yes");
    check_usage(ARGUMENTS("-b", "a b"), "--bus: 'a b' is not a name");
    check_usage(ARGUMENTS("orders"), "'orders': shmqd takes options only");
    check_usage(ARGUMENTS("--set", "clients=5"), "--set clients=5: not SECTION.KEY=VALUE");
    check_usage(ARGUMENTS("--set", "limits.client=5"), "--set: limits.client: unknown key");
    check_usage(ARGUMENTS("--set", "limits.clients=x"), "limits.clients=x: 'x' is not a number");
    check_usage(ARGUMENTS("--log-level", "loud"), "--log-level: 'loud' is unknown");
    check_usage(ARGUMENTS("--standby", "--ephemeral"), "--standby and --ephemeral");
    CHECK_ERR(load(ARGUMENTS("--config", "/nonexistent/file"), &config, &why), SHMQ_ESYS);
    CHECK_CONTAINS(why.text, "config file /nonexistent/file: No such file");
    REQUIRE(setenv("SHMQ_BUS", "a b", 1) == 0);
    check_usage(NO_ARGUMENTS, "$SHMQ_BUS");
}

TEST(a_reload_takes_what_can_change_and_names_the_rest)
{
    char *argv[] = {(char *)"shmqd", (char *)"--config", (char *)(uintptr_t)file_path(),
                    (char *)"--set=limits.topics=9", NULL};
    struct config config;
    struct error_buffer why;
    char ignored[128];

    forget_environment();
    write_file("[limits]\nclients = 5\n[bus]\nname = one\n");
    REQUIRE_OK(config_load(4, argv, &config, &why));
    REQUIRE_OK(config_reload(4, argv, &config, ignored, sizeof(ignored), &why));
    CHECK_STR_EQ(ignored, "");
    write_file("[limits]\nclients = 6\ntopics = 10\n[bus]\nname = two\nsocket_mode = 0666\n"
               "[log]\nlevel = error\n");
    REQUIRE_OK(config_reload(4, argv, &config, ignored, sizeof(ignored), &why));
    CHECK_EQ(config.clients, 6);
    CHECK_EQ(config.topics, 9); /* the command line still weighs more */
    CHECK_EQ(config.log_level, LOG_LEVEL_ERROR);
    CHECK_STR_EQ(config.bus, "one");
    CHECK_EQ(config.socket_mode, 0600);
    CHECK_STR_EQ(ignored, "bus.name, bus.socket_mode");
    REQUIRE_OK(config_reload(4, argv, &config, ignored, 5, &why)); /* cut, not overrun */
    CHECK_STR_EQ(ignored, "bus.");
    write_file("[limits]\nclients = 7\ntopics = nine\n");
    CHECK_ERR(config_reload(4, argv, &config, ignored, sizeof(ignored), &why), SHMQ_EINVAL);
    CHECK_EQ(config.clients, 6); /* all or nothing */
}

/* Uncomments the sample: each key must be known, and its value the default. */
TEST(the_sample_says_the_truth)
{
    FILE *sample = fopen("daemon/shmqd.conf", "re");
    struct config config;
    struct config defaults;
    char line[256];
    char section[32] = "";
    unsigned keys = 0;

    if (!sample)
        SKIP("not run from the top of the sources");
    config_init(&defaults);
    config_init(&config);
    config.clients = config.topics = config.partitions = config.groups_per_topic = 1;
    config.connections_per_user = config.bytes_per_user = config.slots_per_user = 1;
    config.ring_bytes = config.group_linger_ns = 1;
    config.log_level = LOG_LEVEL_DEBUG;
    config.socket_mode = 0777;
    config.wait_mode = CONFIG_WAIT_FENCE;
    config.standby = config.ephemeral = true;
    strcpy(config.socket_group, "x");
    while (fgets(line, sizeof(line), sample)) {
        struct error_buffer why = {""};
        char name[64];
        char key[64];
        char value[64] = "";

        (void)sscanf(line, "[%31[a-z]]", section);
        if (line[0] != '#' || !islower((unsigned char)line[1]) ||
            sscanf(line + 1, "%63[a-z_] = %63s", key, value) < 1)
            continue;
        (void)snprintf(name, sizeof(name), "%.30s.%.30s", section, key);
        keys++;
        if (!CHECK_OK(config_set(&config, name, value, &why)))
            FAIL("%s", why.text);
    }
    (void)fclose(sample);
    CHECK_EQ(keys, 18);
    CHECK_STR_EQ(config.bus, PATHS_BUS_DEFAULT);
    CHECK_STR_EQ(config.runtime_dir, PATHS_RUNTIME_SYSTEM);
    CHECK_STR_EQ(config.state_dir, PATHS_STATE_SYSTEM);
    memset(config.bus, 0, sizeof(config.bus));
    memset(config.runtime_dir, 0, sizeof(config.runtime_dir));
    memset(config.state_dir, 0, sizeof(config.state_dir));
    CHECK(config.standby == defaults.standby && config.ephemeral == defaults.ephemeral);
    CHECK_STR_EQ(config.socket_group, "");
    CHECK_EQ(config.socket_mode, defaults.socket_mode);
    CHECK_EQ(config.wait_mode, defaults.wait_mode);
    CHECK(memcmp(&config.clients, &defaults.clients,
                 sizeof(config) - offsetof(struct config, clients)) == 0);
}

TEST(help_names_every_option_of_the_interface)
{
    static const char *const OPTIONS[] = {
        "--config",  "--bus",  "--runtime-dir", "--state-dir", "--standby", "--ephemeral",
        "--version", "--help", "--log-level",   "--set",       "-b",        "SIGHUP"};
    char text[8192] = "";
    FILE *out = fmemopen(text, sizeof(text) - 1, "w");

    REQUIRE(out != NULL);
    config_print_help(out);
    config_print_version(out);
    REQUIRE(fclose(out) == 0);
    for (size_t i = 0; i < COUNT_OF(OPTIONS); i++)
        CHECK_CONTAINS(text, OPTIONS[i]);
    CHECK_CONTAINS(text, "shmqd (shmq) ");
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        CHECK(strlen(line) <= 95);
}

TEST_MAIN("config", T(every_key_is_read), T(errors_name_file_line_key_and_remedy),
          T(strange_files_are_errors), T(the_command_line_wins_over_environment_over_file),
          T(options_do_what_they_say), T(wrong_usage_is_told),
          T(a_reload_takes_what_can_change_and_names_the_rest), T(the_sample_says_the_truth),
          T(help_names_every_option_of_the_interface))
