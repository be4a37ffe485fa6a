/* SPDX-License-Identifier: Apache-2.0 */
/* Errors, exit codes, the connection; see cli.h. */
#include "tools/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include "tools/outbuf.h"

static void print_line(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));

/* One write for the line: several processes share a terminal. Control bytes from names and commands
 * must not reach it. */
static void print_line(const char *format, va_list arguments)
{
    char text[2048];
    int length = vsnprintf(text, sizeof(text), format, arguments);

    if (length >= (int)sizeof(text))
        memcpy(text + sizeof(text) - 4, "...", 4);
    text_make_printable(text);
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s: %s\n", cli_program->name, text);
}

int cli_fail(int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
    return code;
}

int cli_usage(const struct cli *cli, const char *format, ...)
{
    char text[1024];
    const struct cli_command *command = cli->command;
    const char *noun = command ? command->noun : cli->table ? cli->table->noun : "";
    const char *verb = command && command->verb ? command->verb : "";
    const char *gap = *verb ? " " : "";
    const char *join;
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    join = *text && text[strlen(text) - 1] == '?' ? " Try" : "; try";
    if (!*noun)
        return cli_fail(CLI_USAGE, "%s%s '%s --help'", text, join, cli_program->name);
    return cli_fail(CLI_USAGE, "%s%s%s: %s%s '%s %s%s%s --help'", noun, gap, verb, text, join,
                    cli_program->name, noun, gap, verb);
}

int cli_exit_code(int error)
{
    switch (error) {
    case SHMQ_ETIMEOUT:
        return CLI_TIMED_OUT;
    case SHMQ_ENOBUS:
        return CLI_NO_BUS;
    case SHMQ_EPERM:
        return CLI_NOT_PERMITTED;
    case SHMQ_EINVAL:
        return CLI_USAGE;
    default:
        return error < 0 ? CLI_FAILED : CLI_OK;
    }
}

int cli_fail_library(const struct cli *cli, int error)
{
    return cli_fail(cli_exit_code(error), "%s", shmq_errmsg(cli->connection));
}

void cli_note(const struct cli *cli, const char *format, ...)
{
    va_list arguments;

    if (cli->quiet)
        return;
    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
}

int cli_try_connect(struct cli *cli, int32_t timeout_ms)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;

    options.timeout_ms = timeout_ms;
    options.bus = cli->bus;
    options.runtime_dir = cli->runtime_dir;
    options.vhost = cli->vhost;
    return shmq_connect(&options, &cli->connection);
}

int cli_connect(struct cli *cli)
{
    int rc = cli_try_connect(cli, 0);

    return rc < 0 ? cli_fail_library(cli, rc) : CLI_OK;
}

/* Written by the handler, read by loops. Relaxed: nobody orders by it. */
static atomic_bool stop_requested;

static void request_stop(int signal_number)
{
    (void)signal_number;
    atomic_store_explicit(&stop_requested, true, memory_order_relaxed);
}

const atomic_bool *cli_catch_signals(void)
{
    /* No SA_RESTART: a blocked read or poll returns. Reset: who presses ^C twice means it. */
    struct sigaction action = {.sa_handler = request_stop, .sa_flags = (int)SA_RESETHAND};

    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    return &stop_requested;
}

int cli_finish(struct cli *cli, int code)
{
    shmq_close(cli->connection);
    cli->connection = NULL;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    /* `shmq topic list | head`: the reader has what it wanted, and knows it. */
    if (errno == EPIPE)
        return code == CLI_OK ? CLI_FAILED : code;
    return cli_fail(CLI_FAILED, "output: %s; see where stdout goes", strerror(errno));
}

const char *cli_bold(const struct cli *cli)
{
    return cli->color_out ? "\033[1m" : "";
}

const char *cli_red(const struct cli *cli)
{
    return cli->color_out ? "\033[1;31m" : "";
}

const char *cli_green(const struct cli *cli)
{
    return cli->color_out ? "\033[32m" : "";
}

const char *cli_plain(const struct cli *cli)
{
    return cli->color_out ? "\033[0m" : "";
}

const char *cli_plural(uint64_t n, const char *one, const char *many)
{
    return n == 1 ? one : many;
}
