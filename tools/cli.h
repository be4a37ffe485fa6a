/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h: what all nouns of the tool have in common: options from tables, help made from the same
 * tables, one form of error, exit codes, the connection.
 *
 * A command is a row of a table (one table a noun, listed in shmq.c); its options name the variables
 * that they fill, which are static: one process runs one command. So help, completion and parsing
 * cannot disagree. One thread.
 */
#ifndef SHMQ_TOOLS_CLI_H
#define SHMQ_TOOLS_CLI_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "libshmq/base.h"
#include "libshmq/error.h"
#include "libshmq/shmq.h"

/* Fixed: scripts depend on them. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_TIMED_OUT = 3,
    CLI_NOT_PERMITTED = 4,
    CLI_NO_BUS = 5,
};

#define CLI_UNSET        (UINT64_MAX - 1) /* a number that nobody gave; UINT64_MAX is `forever` */
#define CLI_OPERANDS_MAX 4

enum cli_kind {
    CLI_FLAG,     /* bool * */
    CLI_TEXT,     /* const char ** */
    CLI_SIZE,     /* uint64_t *, bytes */
    CLI_DURATION, /* uint64_t *, ns */
    CLI_LINGER,   /* uint64_t *, ns or UINT64_MAX */
    CLI_COUNT,    /* uint64_t *, from min to max */
    CLI_CHOICE,   /* uint64_t *, index of the word in `choices` */
    CLI_LIST,     /* struct cli_list *, may be repeated */
};

struct cli_list {
    const char **items;
    unsigned count;
};

struct cli_option {
    char letter;       /* 0: none */
    const char *name;  /* without the dashes */
    const char *value; /* what the help calls it; NULL for flags */
    const char *help;
    enum cli_kind kind;
    void *target;
    const char *choices; /* CLI_CHOICE: "block|reject|drop-old" */
    uint64_t min, max;   /* CLI_COUNT */
};

struct cli;

struct cli_wording {
    const char *option, *help; /* of CLI_COMMON, said otherwise */
};

/* What differs between the programs that are made of this. */
struct cli_program {
    const char *name;
    const char *summary;               /* behind the name, on the help's first line */
    const char *usage;                 /* "[-b BUS] COMMAND [options]" */
    const char *epilogue;              /* ends the help of the whole program */
    const struct cli_wording *wording; /* ends with .option NULL; may be NULL */
};

/* The shmq tool, unless main() says otherwise before anything else. */
extern const struct cli_program *cli_program;

struct cli_command {
    const char *noun;
    const char *verb;     /* NULL: the noun is the command */
    const char *operands; /* as the usage line shows them; "" for none */
    unsigned operands_min, operands_max;
    const char *summary;              /* one line, for lists of commands */
    const char *details;              /* paragraphs of the help; may be NULL */
    const char *examples;             /* lines; may be NULL */
    const struct cli_option *options; /* ends with .name NULL; may be NULL */
    int (*run)(struct cli *cli);      /* returns an enum cli_exit */
};

struct cli {
    const char *bus; /* NULL: as the library finds it */
    const char *vhost;
    const char *runtime_dir;
    bool json, quiet, help, version;
    bool color_out, color_err;
    const struct cli_command *table;   /* the noun's; NULL until it is known */
    const struct cli_command *command; /* the row of it */
    const char *operands[CLI_OPERANDS_MAX];
    unsigned operand_count;
    shmq_connection *connection;
};

/* ---- cli_options.c ---- */

/* Options that every command takes. */
extern const struct cli_option CLI_COMMON[];

/* Parses all of argv: common options anywhere, noun and verb, the command's own options behind them.
 * CLI_OK with cli->command set, or with cli->help or cli->version; else CLI_USAGE, said on stderr. */
int cli_parse(struct cli *cli, const struct cli_command *const *nouns, int argc, char **argv);

/* Of the words (NULL-terminated), the nearest to `word`; NULL if none is near. */
const char *cli_nearest(const char *word, const char *const *words);

/* ---- cli_help.c ---- */

/* Of cli->command; if that is NULL of the noun; if there is none, of the whole tool. To stdout. */
void cli_print_help(const struct cli *cli, const struct cli_command *const *nouns);

/* ---- cli.c ---- */

/* "shmq: <text>" on stderr, with the program's name; returns `code`. */
int cli_fail(int code, const char *format, ...) PRINTF_LIKE(2, 3);

/* "shmq: topic create: <text>; try 'shmq topic create --help'" on stderr; CLI_USAGE. */
int cli_usage(const struct cli *cli, const char *format, ...) PRINTF_LIKE(2, 3);

/* The library's sentence for a failed call, and the exit code for its kind. */
int cli_fail_library(const struct cli *cli, int error);
int cli_exit_code(int error);

/* "shmq: <text>" on stderr, unless -q. */
void cli_note(const struct cli *cli, const char *format, ...) PRINTF_LIKE(2, 3);

/* Makes cli->connection. CLI_OK, or an exit code after having said why. */
int cli_connect(struct cli *cli);

/* Raw result of the same for those who can do without a bus; nothing is printed. 0 ms: the default. */
int cli_try_connect(struct cli *cli, int32_t timeout_ms);

/* From now on SIGINT and SIGTERM set the flag that is returned, once; the second one kills. */
const atomic_bool *cli_catch_signals(void);

/* Flushes stdout; CLI_FAILED with a sentence if it could not be written, else `code`. */
int cli_finish(struct cli *cli, int code);

/* Escape sequences, "" where they are not wanted. */
const char *cli_bold(const struct cli *cli);
const char *cli_red(const struct cli *cli);
const char *cli_green(const struct cli *cli);
const char *cli_plain(const struct cli *cli);

/* "a b c" → the plural where n is not 1: cli_plural(2, "topic", "topics"). */
const char *cli_plural(uint64_t n, const char *one, const char *many);

#endif
