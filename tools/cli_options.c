/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options from tables; see cli.h. Common options may stand anywhere, those of a command behind it;
 * "--" ends options; "--name=value", "-nvalue" and clustered flags work as everywhere. Long names are
 * not abbreviated: a script that did it would break when a release adds an option.
 */
#include <string.h>

#include "libshmq/units.h"
#include "tools/cli.h"
#include "tools/outbuf.h"

/* The targets of CLI_COMMON; copied to struct cli when all is parsed. */
static struct {
    const char *bus, *vhost, *runtime_dir;
    bool json, quiet, help, version;
} common;

const struct cli_option CLI_COMMON[] = {
    {'b', "bus", "BUS", "which bus ($SHMQ_BUS, else default)", CLI_TEXT, &common.bus, NULL, 0, 0},
    {'V', "vhost", "VHOST", "namespace of topics (default)", CLI_TEXT, &common.vhost, NULL, 0, 0},
    {0, "runtime-dir", "DIR",
     "where the bus has its socket ($SHMQ_RUNTIME_DIR, else your own bus, else the system's)",
     CLI_TEXT, &common.runtime_dir, NULL, 0, 0},
    {0, "json", NULL, "JSON instead of text", CLI_FLAG, &common.json, NULL, 0, 0},
    {'q', "quiet", NULL, "names only in lists; no remarks, no progress", CLI_FLAG, &common.quiet,
     NULL, 0, 0},
    {'h', "help", NULL, "this help", CLI_FLAG, &common.help, NULL, 0, 0},
    {0, "version", NULL, "version of this program", CLI_FLAG, &common.version, NULL, 0, 0},
    {0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0},
};

/* ---- Suggestions ------------------------------------------------------------------------------ */

#define WORD_MAX 32

/* Levenshtein, with two rows. Words are short: options and verbs. */
static unsigned measure_distance(const char *a, const char *b)
{
    unsigned rows[2][WORD_MAX + 1];
    size_t a_length = strlen(a);
    size_t b_length = strlen(b);

    if (a_length > WORD_MAX || b_length > WORD_MAX)
        return WORD_MAX;
    for (unsigned j = 0; j <= b_length; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a_length; i++) {
        unsigned *now = rows[i & 1];
        const unsigned *before = rows[(i & 1) ^ 1];

        now[0] = i;
        for (unsigned j = 1; j <= b_length; j++) {
            unsigned best = before[j - 1] + (a[i - 1] != b[j - 1]);

            best = best < before[j] + 1 ? best : before[j] + 1;
            now[j] = best < now[j - 1] + 1 ? best : now[j - 1] + 1;
        }
    }
    return rows[a_length & 1][b_length];
}

const char *cli_nearest(const char *word, const char *const *words)
{
    const char *found = NULL;
    unsigned least = (unsigned)strlen(word) / 3 + 2; /* farther off it is another word */

    for (; *words; words++) {
        unsigned distance = measure_distance(word, *words);
        size_t length = strlen(word);

        /* A beginning is as good as a slip of one letter. */
        if (length >= 2 && strncmp(word, *words, length) == 0)
            distance = 1;
        if (distance < least && distance < strlen(*words)) {
            least = distance;
            found = *words;
        }
    }
    return found;
}

static int fail_unknown(const struct cli *cli, const char *what, const char *word,
                        const char *dashes, const char *const *words)
{
    const char *nearest = cli_nearest(word, words);

    if (nearest)
        return cli_usage(cli, "%s '%s%.60s' is unknown; did you mean '%s%s'?", what, dashes, word,
                         dashes, nearest);
    return cli_usage(cli, "%s '%s%.60s' is unknown", what, dashes, word);
}

static int fail_unknown_option(const struct cli *cli, const char *name)
{
    const char *words[64];
    unsigned count = 0;
    const struct cli_option *tables[2] = {cli->command ? cli->command->options : NULL, CLI_COMMON};

    for (unsigned i = 0; i < 2; i++) {
        for (const struct cli_option *o = tables[i]; o && o->name && count < 63; o++)
            words[count++] = o->name;
    }
    words[count] = NULL;
    return fail_unknown(cli, "option", name, "--", words);
}

/* ---- Values ----------------------------------------------------------------------------------- */

static const char *option_text(const struct cli_option *option, char text[WORD_MAX + 8])
{
    (void)snprintf(text, WORD_MAX + 8, "--%s", option->name);
    return text;
}

static bool find_choice(const char *choices, const char *word, uint64_t *ret_index)
{
    size_t length = strlen(word);

    for (uint64_t index = 0; *choices; index++) {
        size_t part = strcspn(choices, "|");

        if (part == length && strncmp(choices, word, length) == 0) {
            *ret_index = index;
            return true;
        }
        choices += part + (choices[part] == '|');
    }
    return false;
}

static void add_to_list(struct cli_list *list, const char *value)
{
    list->items = tool_realloc(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = value;
}

static int set_value(const struct cli *cli, const struct cli_option *option, const char *value)
{
    struct error_buffer why = {.text = ""};
    char name[WORD_MAX + 8];
    int rc = 0;

    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)option->target = true;
        return CLI_OK;
    case CLI_TEXT:
        *(const char **)option->target = value;
        return CLI_OK;
    case CLI_LIST:
        add_to_list(option->target, value);
        return CLI_OK;
    case CLI_CHOICE:
        if (find_choice(option->choices, value, option->target))
            return CLI_OK;
        return cli_usage(cli, "%s: '%.40s' is none of %s", option_text(option, name), value,
                         option->choices);
    case CLI_SIZE:
        rc = units_parse_size(value, option->target, &why);
        break;
    case CLI_DURATION:
        rc = units_parse_duration(value, option->target, &why);
        break;
    case CLI_LINGER:
        rc = units_parse_linger(value, option->target, &why);
        break;
    case CLI_COUNT:
        rc = units_parse_count(value, option->min, option->max, option->target, &why);
        break;
    }
    if (rc < 0)
        return cli_usage(cli, "%s: %s", option_text(option, name), why.text);
    return CLI_OK;
}

/* ---- The walk over argv ----------------------------------------------------------------------- */

struct walk {
    struct cli *cli;
    char **argv;
    int argc;
    int at; /* next argument */
};

static const struct cli_option *find_option(const struct cli *cli, const char *name,
                                            size_t name_length, char letter)
{
    const struct cli_option *tables[2] = {cli->command ? cli->command->options : NULL, CLI_COMMON};

    for (unsigned i = 0; i < 2; i++) {
        for (const struct cli_option *o = tables[i]; o && o->name; o++) {
            if (name ? strlen(o->name) == name_length && strncmp(o->name, name, name_length) == 0
                     : o->letter == letter)
                return o;
        }
    }
    return NULL;
}

static int parse_long(struct walk *walk, const char *text)
{
    size_t length = strcspn(text, "=");
    const struct cli_option *option = find_option(walk->cli, text, length, 0);
    char name[WORD_MAX * 2];

    if (!option) {
        (void)snprintf(name, sizeof(name), "%.*s", (int)min_size(length, sizeof(name) - 1), text);
        return fail_unknown_option(walk->cli, name);
    }
    if (option->kind == CLI_FLAG) {
        if (text[length] == '=')
            return cli_usage(walk->cli, "--%s takes no value", option->name);
        return set_value(walk->cli, option, NULL);
    }
    if (text[length] == '=')
        return set_value(walk->cli, option, text + length + 1);
    if (walk->at >= walk->argc)
        return cli_usage(walk->cli, "--%s needs a value: --%s %s", option->name, option->name,
                         option->value);
    return set_value(walk->cli, option, walk->argv[walk->at++]);
}

static int parse_short(struct walk *walk, const char *text)
{
    for (; *text; text++) {
        const struct cli_option *option = find_option(walk->cli, NULL, 0, *text);
        const char *value;
        int rc;

        if (!option)
            return cli_usage(walk->cli, "option '-%c' is unknown",
                             *text > 0x20 && *text < 0x7f ? *text : '?');
        if (option->kind == CLI_FLAG) {
            rc = set_value(walk->cli, option, NULL);
            if (rc != CLI_OK)
                return rc;
            continue;
        }
        value = text + 1;
        if (!*value) {
            if (walk->at >= walk->argc)
                return cli_usage(walk->cli, "-%c needs a value: -%c %s", *text, *text,
                                 option->value);
            value = walk->argv[walk->at++];
        }
        return set_value(walk->cli, option, value);
    }
    return CLI_OK;
}

static int fail_noun(const struct cli *cli, const struct cli_command *const *nouns,
                     const char *word)
{
    const char *words[64];
    unsigned count = 0;

    for (; *nouns && count < COUNT_OF(words) - 1; nouns++)
        words[count++] = (*nouns)->noun;
    words[count] = NULL;
    return fail_unknown(cli, "command", word, "", words);
}

/* `verb` is not one of the noun's, or NULL: there was none. */
static int fail_verb(const struct cli *cli, const char *verb)
{
    const char *words[64];
    char all[256] = "";
    const char *nearest;
    unsigned count = 0;

    for (const struct cli_command *c = cli->table; c->noun && count < COUNT_OF(words) - 1; c++) {
        size_t used = strlen(all);

        words[count++] = c->verb;
        (void)snprintf(all + used, sizeof(all) - used, "%s%s", used ? ", " : "", c->verb);
    }
    words[count] = NULL;
    if (!verb)
        return cli_usage(cli, "a verb is missing; there are %s", all);
    nearest = cli_nearest(verb, words);
    if (nearest)
        return cli_usage(cli, "'%.60s' is unknown; did you mean '%s'?", verb, nearest);
    return cli_usage(cli, "'%.60s' is unknown; there are %s", verb, all);
}

static const struct cli_command *find_noun(const struct cli_command *const *nouns, const char *word)
{
    for (; *nouns; nouns++) {
        if (strcmp((*nouns)->noun, word) == 0)
            return *nouns;
    }
    return NULL;
}

/* A word that is not an option: noun, verb or operand. */
static int take_word(struct cli *cli, const struct cli_command *const *nouns, const char *word)
{
    if (!cli->table) {
        if (strcmp(word, "help") == 0 && !common.help) {
            common.help = true;
            return CLI_OK;
        }
        cli->table = find_noun(nouns, word);
        if (!cli->table)
            return fail_noun(cli, nouns, word);
        if (!cli->table->verb)
            cli->command = cli->table;
        return CLI_OK;
    }
    if (!cli->command) {
        for (const struct cli_command *c = cli->table; c->noun; c++) {
            if (strcmp(c->verb, word) == 0) {
                cli->command = c;
                return CLI_OK;
            }
        }
        return fail_verb(cli, word);
    }
    if (cli->operand_count >= cli->command->operands_max)
        return cli_usage(cli, "'%.60s' is one argument too many", word);
    cli->operands[cli->operand_count++] = word;
    return CLI_OK;
}

static int check_operands(const struct cli *cli)
{
    if (!cli->table)
        return cli_fail(CLI_USAGE, "a command is missing; try '%s --help'", cli_program->name);
    if (!cli->command)
        return fail_verb(cli, NULL);
    if (cli->operand_count < cli->command->operands_min)
        return cli_usage(cli, "needs %s", cli->command->operands);
    for (unsigned i = 0; i < cli->operand_count; i++) {
        if (!*cli->operands[i])
            return cli_usage(cli, "an argument is empty");
    }
    return CLI_OK;
}

int cli_parse(struct cli *cli, const struct cli_command *const *nouns, int argc, char **argv)
{
    struct walk walk = {.cli = cli, .argv = argv, .argc = argc, .at = 1};
    bool options_end = false;
    int rc = CLI_OK;

    while (rc == CLI_OK && walk.at < argc) {
        const char *word = argv[walk.at++];

        if (options_end || word[0] != '-' || !word[1])
            rc = take_word(cli, nouns, word);
        else if (strcmp(word, "--") == 0)
            options_end = true;
        else if (word[1] == '-')
            rc = parse_long(&walk, word + 2);
        else
            rc = parse_short(&walk, word + 1);
    }
    cli->bus = common.bus;
    cli->vhost = common.vhost;
    cli->runtime_dir = common.runtime_dir;
    cli->json = common.json;
    cli->quiet = common.quiet;
    cli->help = common.help;
    cli->version = common.version;
    if (rc != CLI_OK || cli->help || cli->version)
        return rc;
    return check_operands(cli);
}
