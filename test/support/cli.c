/* SPDX-License-Identifier: Apache-2.0 */
/* Running the built programs; see cli.h. */
#include "test/support/cli.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char tool[512];
static char daemon_path[512];

/* ---- Programs ----------------------------------------------------------------------------------- */

static bool find_in_path(const char *name, char *ret_path, size_t size)
{
    const char *path = getenv("PATH");
    char copy[4096];
    char *rest = NULL;

    snprintf(copy, sizeof(copy), "%s", path ? path : "");
    for (char *dir = strtok_r(copy, ":", &rest); dir; dir = strtok_r(NULL, ":", &rest)) {
        snprintf(ret_path, size, "%s/%s", dir, name);
        if (access(ret_path, X_OK) == 0)
            return true;
    }
    return false;
}

static void cli_find_program(const char *name, char *ret_path, size_t size)
{
    const char *directory = getenv("SHMQ_BIN_DIR");

    if (directory && *directory)
        snprintf(ret_path, size, "%s/%s", directory, name);
    else if (!find_in_path(name, ret_path, size))
        snprintf(ret_path, size, "build/%s", name);
}

void cli_need_tool(void)
{
    cli_find_program("shmq", tool, sizeof(tool));
    if (access(tool, X_OK) != 0 || !test_can_exec())
        SKIP("there is no %s to run", tool);
}

int cli_run_input(struct test_output *out, const void *input, size_t length, const char *words, ...)
{
    char copy[1024];
    char *argv[40] = {tool};
    char *rest = NULL;
    size_t count = 1;
    va_list more;

    snprintf(copy, sizeof(copy), "%s", words);
    for (char *word = strtok_r(copy, " ", &rest); word && count < 30;
         word = strtok_r(NULL, " ", &rest))
        argv[count++] = word;
    va_start(more, words);
    while (count < 39 && (argv[count] = va_arg(more, char *)) != NULL)
        count++;
    va_end(more);
    argv[count] = NULL;
    return test_run_input(argv, input, length, out, CLI_WAIT_MS);
}

/* Or has ended: then there is no use in waiting. */
static bool bus_answers(void *pid)
{
    struct test_output out;
    int status = cli_run(&out, "-q topic list");

    test_output_free(&out);
    return status == 0 || test_wait_exit(*(pid_t *)pid, 0) != TEST_TIMED_OUT;
}

static pid_t start_bus(char **argv)
{
    pid_t pid;

    cli_need_tool();
    cli_find_program("shmqd", daemon_path, sizeof(daemon_path));
    if (access(daemon_path, X_OK) != 0)
        SKIP("there is no %s to run", daemon_path);
    pid = test_start(argv);
    REQUIRE(pid > 0);
    REQUIRE(test_eventually(bus_answers, &pid, CLI_WAIT_MS));
    REQUIRE(kill(pid, 0) == 0);
    return pid;
}

pid_t cli_start_bus(void)
{
    char *argv[] = {daemon_path, "--ephemeral", "--log-level", "warning", NULL};

    return start_bus(argv);
}

pid_t cli_start_persistent_bus(const char *io_fault)
{
    char *argv[] = {daemon_path, "--log-level", "warning", NULL};
    pid_t pid;

    if (io_fault)
        setenv("SHMQ_IO_FAULT", io_fault, 1);
    pid = start_bus(argv);
    unsetenv("SHMQ_IO_FAULT");
    return pid;
}

void cli_stop_bus(pid_t pid)
{
    test_kill(pid, SIGTERM);
    CHECK_INT_EQ(test_wait_exit(pid, CLI_WAIT_MS), 0);
}

void cli_stop_persistent_bus(pid_t pid)
{
    cli_stop_bus(pid);
    (void)test_remove_leftovers();
}

pid_t cli_start_shell(const char *command)
{
    char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)command, NULL};

    setenv("SHMQ", tool, 1);
    return test_start(argv);
}

int cli_run_shell(struct test_output *out, const char *command)
{
    char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)command, NULL};

    setenv("SHMQ", tool, 1);
    return test_run(argv, out, CLI_WAIT_MS);
}

const char *cli_temporary(const char *name, char path[512])
{
    snprintf(path, 512, "%s/%s", test_tmpdir(), name);
    return path;
}

char *cli_read_whole(const char *path, size_t *ret_length)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t length = 0;

    if (file) {
        fseek(file, 0, SEEK_END);
        length = (size_t)ftell(file);
        rewind(file);
        text = calloc(1, length + 1);
        REQUIRE(text != NULL);
        length = fread(text, 1, length, file);
        fclose(file);
    } else {
        text = calloc(1, 1);
        REQUIRE(text != NULL);
    }
    *ret_length = length;
    return text;
}

/* ---- A checker of JSON, strict, so that json.c is not its own judge ------------------------------ */

static const char *skip_value(const char *at);

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \n\t\r");
}

static const char *skip_string(const char *at)
{
    if (!at || *at != '"')
        return NULL;
    for (at++; *at != '"'; at++) {
        if ((unsigned char)*at < 0x20)
            return NULL;
        if (*at != '\\')
            continue;
        at++;
        if (*at == 'u') {
            if (strspn(at + 1, "0123456789abcdefABCDEF") < 4)
                return NULL;
            at += 4;
        } else if (!*at || !strchr("\"\\/bfnrt", *at)) {
            return NULL;
        }
    }
    return at + 1;
}

static const char *skip_members(const char *at, char close)
{
    at = skip_space(at);
    if (*at == close)
        return at + 1;
    for (;;) {
        if (close == '}') {
            at = skip_string(skip_space(at));
            if (!at || *(at = skip_space(at)) != ':')
                return NULL;
            at++;
        }
        at = skip_value(skip_space(at));
        if (!at)
            return NULL;
        at = skip_space(at);
        if (*at == close)
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

static const char *skip_digits(const char *at)
{
    size_t digits = strspn(at, "0123456789");

    return digits > 0 ? at + digits : NULL;
}

static const char *skip_number(const char *at)
{
    at += *at == '-';
    at = *at == '0' ? at + 1 : skip_digits(at);
    if (at && *at == '.')
        at = skip_digits(at + 1);
    if (at && (*at | 0x20) == 'e')
        at = skip_digits(at + 1 + (at[1] == '-' || at[1] == '+'));
    return at;
}

static const char *skip_value(const char *at)
{
    if (*at == '{')
        return skip_members(at + 1, '}');
    if (*at == '[')
        return skip_members(at + 1, ']');
    if (*at == '"')
        return skip_string(at);
    if (strncmp(at, "true", 4) == 0 || strncmp(at, "null", 4) == 0)
        return at + 4;
    if (strncmp(at, "false", 5) == 0)
        return at + 5;
    return skip_number(at);
}

bool cli_is_json(const char *text, unsigned count)
{
    for (; count > 0; count--) {
        text = skip_value(skip_space(text));
        if (!text)
            return false;
    }
    return *skip_space(text) == '\0';
}

/* The value of the member `name`, or the element of that number, of the object or array at `at`. */
static const char *find_member(const char *at, const char *name, size_t length)
{
    bool is_object = *at == '{';
    unsigned long wanted = strtoul(name, NULL, 10);

    if (*at != '{' && *at != '[')
        return NULL;
    at = skip_space(at + 1);
    for (unsigned long i = 0; *at != '}' && *at != ']'; i++) {
        bool found = !is_object && i == wanted;

        if (is_object) {
            const char *end = skip_string(at);

            found = (size_t)(end - at) == length + 2 && strncmp(at + 1, name, length) == 0;
            at = skip_space(skip_space(end) + 1);
        }
        if (found)
            return at;
        at = skip_space(skip_value(at));
        at = skip_space(at + (*at == ','));
    }
    return NULL;
}

const char *cli_json_at(const char *text, const char *path)
{
    const char *at = skip_space(text);

    while (at && *path) {
        size_t length = strcspn(path, "/");

        at = find_member(at, path, length);
        path += length + (path[length] == '/');
    }
    return at;
}
