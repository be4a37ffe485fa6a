/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq: the command line tool. main() finds the command in the nouns' tables and runs it.
 *
 * Files: cli* parse and report; topic, group, client, pub, sub, status, doctor, journal* are the nouns;
 * inspect reads a bus's memory without a supervisor; outbuf, json, table, progress write. All but inspect
 * and journal use shmq.h alone.
 */
#include <signal.h>
#include <stdlib.h>

#include "tools/cli.h"
#include "tools/nouns.h"

static const struct cli_command *const NOUNS[] = {
    TOOL_TOPIC,  TOOL_GROUP,  TOOL_CLIENT,  TOOL_PUB, TOOL_SUB,
    TOOL_STATUS, TOOL_DOCTOR, TOOL_JOURNAL, NULL,
};

static bool wants_color(int fd)
{
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    return !(no_color && *no_color) && term && *term && isatty(fd);
}

static int print_version(const struct cli *cli)
{
    if (cli->json)
        printf("{\"version\":\"%s\"}\n", shmq_version());
    else
        printf("shmq %s\n", shmq_version());
    return CLI_OK;
}

int main(int argc, char **argv)
{
    struct cli cli = {.color_out = wants_color(1), .color_err = wants_color(2)};
    int rc;

    /* Not SIGPIPE: a subscriber whose reader is gone must leave its group and say what it wrote. */
    (void)signal(SIGPIPE, SIG_IGN);
    rc = cli_parse(&cli, NOUNS, argc, argv);
    if (rc != CLI_OK)
        return rc;
    if (cli.help)
        cli_print_help(&cli, NOUNS);
    else if (cli.version)
        rc = print_version(&cli);
    else
        rc = cli.command->run(&cli);
    return cli_finish(&cli, rc);
}
