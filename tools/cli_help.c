/* SPDX-License-Identifier: Apache-2.0 */
/* Help, made from the tables of cli.h so that it cannot lag behind them. To stdout, exit code 0. */
#include <string.h>

#include "tools/cli.h"

#define HELP_COLUMN 28
#define HELP_WIDTH  96

static const struct cli_program SHMQ = {
    .name = "shmq",
    .summary = "a message bus in shared memory, for the processes of one host",
    .usage = "[-b BUS] [-V VHOST] [--json] [-q] COMMAND [options]",
    .epilogue = "shmqd --ephemeral &\n"
                "  shmq topic create hello\n"
                "  shmq sub hello -n 1 &\n"
                "  shmq pub hello -m 'Hello, world'\n"
                "\nMore: shmq COMMAND --help, shmq(1), shmqd(8)\n",
};

const struct cli_program *cli_program = &SHMQ;

/* Wraps `text` at words; lines after the first, and lines behind a newline, begin at `column`. */
static void print_wrapped(const char *text, int column)
{
    int at = column;

    while (*text) {
        size_t length = strcspn(text, " \n");

        if (at > column && at + 1 + (int)length > HELP_WIDTH) {
            printf("\n%*s", column, "");
            at = column;
        } else if (at > column && length > 0) {
            putchar(' ');
            at++;
        }
        printf("%.*s", (int)length, text);
        at += (int)length;
        text += length;
        if (*text == '\n') {
            printf("\n%*s", column, "");
            at = column;
        }
        text += *text != '\0';
    }
    putchar('\n');
}

static const char *help_of(const struct cli_option *option)
{
    const struct cli_wording *w = cli_program->wording;

    for (; w && w->option; w++) {
        if (strcmp(w->option, option->name) == 0)
            return w->help;
    }
    return option->help;
}

static void print_option(const struct cli_option *option)
{
    char left[128];
    int length =
        snprintf(left, sizeof(left), "  %c%c%s --%s%s%s", option->letter ? '-' : ' ',
                 option->letter ? option->letter : ' ', option->letter ? "," : " ", option->name,
                 option->value ? " " : "", option->value ? option->value : "");

    if (length < HELP_COLUMN)
        printf("%-*s", HELP_COLUMN, left);
    else
        printf("%s\n%*s", left, HELP_COLUMN, "");
    print_wrapped(help_of(option), HELP_COLUMN);
}

static void print_heading(const struct cli *cli, const char *text)
{
    printf("\n%s%s%s\n", cli_bold(cli), text, cli_plain(cli));
}

static void print_options(const struct cli *cli, const char *heading,
                          const struct cli_option *options)
{
    if (!options || !options->name)
        return;
    print_heading(cli, heading);
    for (; options->name; options++)
        print_option(options);
}

static void print_summary(const struct cli_command *c)
{
    char left[128];
    int length = snprintf(left, sizeof(left), "  %s%s%s%s%s", c->noun, c->verb ? " " : "",
                          c->verb ? c->verb : "", *c->operands ? " " : "", c->operands);

    if (length < HELP_COLUMN)
        printf("%-*s", HELP_COLUMN, left);
    else
        printf("%s\n%*s", left, HELP_COLUMN, "");
    print_wrapped(c->summary, HELP_COLUMN);
}

static void print_command(const struct cli *cli)
{
    const struct cli_command *c = cli->command;

    printf("Usage: %s %s%s%s%s%s%s\n\n", cli_program->name, c->noun, c->verb ? " " : "",
           c->verb ? c->verb : "", *c->operands ? " " : "", c->operands,
           c->options ? " [options]" : "");
    print_wrapped(c->summary, 0);
    if (c->details) {
        putchar('\n');
        print_wrapped(c->details, 0);
    }
    print_options(cli, "Options", c->options);
    print_options(cli, "Common options", CLI_COMMON);
    if (c->examples) {
        print_heading(cli, "Examples");
        printf("%s", c->examples);
    }
}

static void print_noun(const struct cli *cli)
{
    printf("Usage: %s %s VERB [options]\n", cli_program->name, cli->table->noun);
    print_heading(cli, "Commands");
    for (const struct cli_command *c = cli->table; c->noun; c++)
        print_summary(c);
    printf("\nMore: %s %s VERB --help\n", cli_program->name, cli->table->noun);
}

static void print_tool(const struct cli *cli, const struct cli_command *const *nouns)
{
    printf("%s: %s\n\nUsage: %s %s\n", cli_program->name, cli_program->summary, cli_program->name,
           cli_program->usage);
    print_heading(cli, "Commands");
    for (; *nouns; nouns++) {
        for (const struct cli_command *c = *nouns; c->noun; c++) {
            print_summary(c);
            if (!c->verb)
                break;
        }
    }
    print_options(cli, "Common options", CLI_COMMON);
    print_heading(cli, "Units");
    printf("  Sizes take K, M, G (powers of 1024), durations ms, s, m, h, d: 64K, 500ms, 5m.\n");
    print_heading(cli, "Exit codes");
    printf("  0 done; 1 failed; 2 wrong usage; 3 timed out; 4 not permitted; 5 no bus\n");
    print_heading(cli, "A first minute");
    printf("  %s", cli_program->epilogue);
}

void cli_print_help(const struct cli *cli, const struct cli_command *const *nouns)
{
    if (cli->command)
        print_command(cli);
    else if (cli->table)
        print_noun(cli);
    else
        print_tool(cli, nouns);
}
