/* SPDX-License-Identifier: Apache-2.0 */
/* shmqd's command line and what it says about itself; see config.h. getopt: one thread only. */
#include "daemon/config_internal.h"

#include <getopt.h>
#include <string.h>

#ifndef SHMQ_VERSION_TEXT
#define SHMQ_VERSION_TEXT "(unversioned build)"
#endif

enum { OPTION_CONFIG = 256, OPTION_SET, OPTION_HELP, OPTION_VERSION, OPTION_SETTING };

/* Options that are settings under a shorter name; the value of those without an argument is "yes". */
static const struct {
    const char *option;
    const char *section;
    const char *key;
    int argument;
} SHORTCUTS[] = {
    {"--bus", "bus", "name", required_argument},
    {"--runtime-dir", "bus", "runtime_dir", required_argument},
    {"--state-dir", "bus", "state_dir", required_argument},
    {"--standby", "bus", "standby", no_argument},
    {"--ephemeral", "bus", "ephemeral", no_argument},
    {"--log-level", "log", "level", required_argument},
};

#define OPTION_COUNT (COUNT_OF(SHORTCUTS) + 5)

static void fill_options(struct option *options)
{
    static const struct option OTHERS[] = {
        {"config", required_argument, NULL, OPTION_CONFIG},
        {"set", required_argument, NULL, OPTION_SET},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };

    for (size_t i = 0; i < COUNT_OF(SHORTCUTS); i++) {
        struct option option = {SHORTCUTS[i].option + 2, SHORTCUTS[i].argument, NULL,
                                OPTION_SETTING + (int)i};

        options[i] = option;
    }
    memcpy(options + COUNT_OF(SHORTCUTS), OTHERS, sizeof(OTHERS));
}

static int add_setting(struct command_line *command, const struct setting *setting,
                       const char *option, const char *value, struct error_buffer *why)
{
    struct command_setting given = {setting, option, value};

    if (command->count == COUNT_OF(command->settings))
        return error_set(why, SHMQ_EINVAL, "%s: too many options; use a config file", option);
    command->settings[command->count++] = given;
    return 0;
}

static int add_shortcut(struct command_line *command, size_t index, struct error_buffer *why)
{
    const struct setting *setting = config_find_setting(
        SHORTCUTS[index].section, strlen(SHORTCUTS[index].section), SHORTCUTS[index].key);

    return add_setting(command, setting, SHORTCUTS[index].option, optarg ? optarg : "yes", why);
}

/* SECTION.KEY=VALUE */
static int add_assignment(struct command_line *command, const char *text, struct error_buffer *why)
{
    const char *equals = strchr(text, '=');
    const char *dot = strchr(text, '.');
    const struct setting *setting;
    char section[64] = "";
    char key[64];
    int rc;

    if (!equals || !dot || dot > equals)
        return error_set(why, SHMQ_EINVAL,
                         "--set %.80s: not SECTION.KEY=VALUE; write for example "
                         "`--set limits.clients=100`",
                         text);
    (void)snprintf(section, sizeof(section), "%.*s", (int)min_size((size_t)(dot - text), 60), text);
    (void)snprintf(key, sizeof(key), "%.*s", (int)min_size((size_t)(equals - dot - 1), 60),
                   dot + 1);
    setting = config_find_setting(section, strlen(section), key);
    if (!setting) {
        rc = config_refuse_key(section, key, why);
        return error_prefix(why, rc, "--set");
    }
    return add_setting(command, setting, text, equals + 1, why);
}

static int refuse_option(int result, char **argv, int index, struct error_buffer *why)
{
    if (result == ':')
        return error_set(why, SHMQ_EINVAL, "%.80s: needs an argument; see `shmqd --help`",
                         argv[index]);
    if (optopt && optopt < 256)
        return error_set(why, SHMQ_EINVAL, "-%c: unknown option; see `shmqd --help`", optopt);
    return error_set(why, SHMQ_EINVAL, "%.80s: unknown option or use; see `shmqd --help`",
                     argv[index]);
}

int config_parse_command(int argc, char **argv, struct command_line *ret_command,
                         struct error_buffer *why)
{
    struct option options[OPTION_COUNT];
    struct command_line command = {.count = 0};
    int rc = 0;

    fill_options(options);
    optind = 0; /* glibc: start afresh, which reload needs */
    opterr = 0;
    while (rc == 0) {
        int result = getopt_long(argc, argv, ":b:hV", options, NULL);

        if (result == -1)
            break;
        if (result == 'h' || result == OPTION_HELP)
            return CONFIG_HELP;
        if (result == 'V' || result == OPTION_VERSION)
            return CONFIG_VERSION;
        if (result == OPTION_CONFIG)
            command.config_path = optarg;
        else if (result == OPTION_SET)
            rc = add_assignment(&command, optarg, why);
        else if (result == 'b')
            rc = add_shortcut(&command, 0, why);
        else if (result >= OPTION_SETTING)
            rc = add_shortcut(&command, (size_t)(result - OPTION_SETTING), why);
        else
            rc = refuse_option(result, argv, optind - 1, why);
    }
    if (rc == 0 && optind < argc)
        rc = error_set(why, SHMQ_EINVAL, "'%.80s': shmqd takes options only; see `shmqd --help`",
                       argv[optind]);
    if (rc == 0)
        *ret_command = command;
    return rc;
}

void config_print_version(FILE *out)
{
    (void)fprintf(out, "shmqd (shmq) %s\n", SHMQ_VERSION_TEXT);
}

void config_print_help(FILE *out)
{
    static const char HELP[] =
        "Usage: shmqd [OPTION]...\n"
        "The supervisor of a shmq bus: creates topics, hands out shared memory, cleans up after the\n"
        "dead. Runs in the foreground and logs one line per event to stderr.\n"
        "\n"
        "  -b, --bus NAME          name of the bus            [$SHMQ_BUS, else default]\n"
        "      --runtime-dir DIR   where the socket is made   [$SHMQ_RUNTIME_DIR, else /run/shmq for\n"
        "                          root, $XDG_RUNTIME_DIR/shmq or /tmp/shmq-UID for others]\n"
        "      --state-dir DIR     where metadata is kept     [$SHMQ_STATE_DIR, else /var/lib/shmq\n"
        "                          for root, $XDG_STATE_HOME/shmq or ~/.local/state/shmq for others]\n"
        "      --standby           wait until the bus's shmqd ends, then take over\n"
        "      --ephemeral         keep nothing on disk, and remove all at the end\n"
        "      --config FILE       settings                   [/etc/shmq/shmqd.conf for root]\n"
        "      --set SEC.KEY=VAL   one setting of the config file, e.g. limits.clients=100\n"
        "      --log-level LEVEL   error, warning, info or debug                        [info]\n"
        "  -h, --help              this text\n"
        "  -V, --version           the version\n"
        "\n"
        "What weighs more: the command line, then the environment, then the config file.\n"
        "Signals: SIGTERM and SIGINT stop it cleanly (segments with unread messages stay for the next\n"
        "shmqd); SIGHUP reads again what can change: limits, defaults and the log level.\n"
        "Exit status: 0 stopped cleanly, 1 failed, 2 wrong usage or settings.\n"
        "\n"
        "Try it:   shmqd -b test --ephemeral &    shmq -b test topic create hello\n"
        "          shmq -b test sub hello &       shmq -b test pub hello -m world\n";

    (void)fputs(HELP, out);
}
