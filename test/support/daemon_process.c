/* SPDX-License-Identifier: Apache-2.0 */
/* daemon_process.c: see daemon_process.h. */
#include "test/support/daemon_process.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/support/fixture.h"
#include "test/support/wire.h"

#define ARGUMENTS_MAX 16
#define START_MS      10000

/* Beside the suite that runs: of the same build, with the same layout and its fault points. */
static const char *program(void)
{
    static char path[600];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 32);
    char *slash;

    REQUIRE(length > 0);
    path[length] = '\0';
    for (int up = 0; up < 2; up++) {
        slash = strrchr(path, '/');
        REQUIRE(slash != NULL);
        *slash = '\0';
    }
    strcat(path, "/bin/shmqd");
    if (access(path, X_OK) != 0)
        SKIP("there is no %s to run", path);
    return path;
}

static void build_arguments(const char *words, char *copy, size_t size, char **ret_argv)
{
    static char level[] = "--log-level", warning[] = "warning";
    char *rest = NULL;
    size_t count = 0;

    ret_argv[count++] = (char *)(uintptr_t)program();
    ret_argv[count++] = level;
    ret_argv[count++] = warning;
    snprintf(copy, size, "%s", words ? words : "");
    for (char *word = strtok_r(copy, " ", &rest); word && count < ARGUMENTS_MAX - 1;
         word = strtok_r(NULL, " ", &rest))
        ret_argv[count++] = word;
    ret_argv[count] = NULL;
}

static void put_environment(const char *name, const char *value)
{
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

pid_t daemon_start(const struct daemon_options *options)
{
    static const struct daemon_options none = {NULL, NULL, NULL, NULL};
    char *argv[ARGUMENTS_MAX], copy[512];
    pid_t pid;

    if (!options)
        options = &none;
    build_arguments(options->words, copy, sizeof(copy), argv);
    put_environment("SHMQ_FAULT", options->fault);
    put_environment("SHMQ_FAULT_LOG", options->fault_log);
    put_environment("SHMQ_IO_FAULT", options->io_fault);
    pid = test_start(argv);
    /* The client library has points as well: nobody else is to read these. */
    put_environment("SHMQ_FAULT", NULL);
    put_environment("SHMQ_FAULT_LOG", NULL);
    put_environment("SHMQ_IO_FAULT", NULL);
    return pid;
}

bool daemon_await(pid_t pid, int *ret_status)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(START_MS) * 1000000;
    struct wire wire;

    for (;;) {
        if (wire_connect(&wire) == 0) {
            wire_close(&wire);
            return true;
        }
        *ret_status = test_wait_exit(pid, 3);
        if (*ret_status != TEST_TIMED_OUT)
            return false;
        if (test_now_ns() > deadline_ns) {
            FAIL("shmqd takes no connections");
            test_abort();
        }
    }
}

pid_t daemon_run(const struct daemon_options *options)
{
    pid_t pid = daemon_start(options);
    int status = 0;

    if (!daemon_await(pid, &status)) {
        FAIL("shmqd ended at its start with status %d", status);
        test_abort();
    }
    return pid;
}

int daemon_terminate(pid_t pid)
{
    test_kill(pid, SIGTERM);
    return test_wait_exit(pid, START_MS);
}

void daemon_stop(pid_t pid)
{
    CHECK_INT_EQ(daemon_terminate(pid), 0);
}

int daemon_refused(const char *words, struct test_output *ret_output)
{
    char *argv[ARGUMENTS_MAX], copy[512];

    build_arguments(words, copy, sizeof(copy), argv);
    return test_run(argv, ret_output, START_MS);
}

static bool is_ours(const char *name)
{
    const char *bus = test_bus_name();
    const char *at = strstr(name, bus);

    return strncmp(name, "shmq.", 5) == 0 && at && at[strlen(bus)] == '.';
}

unsigned daemon_count_segments(void)
{
    DIR *directory = opendir("/dev/shm");
    const struct dirent *entry;
    unsigned count = 0;

    while (directory && (entry = readdir(directory)) != NULL)
        count += is_ours(entry->d_name);
    if (directory)
        closedir(directory);
    return count;
}

bool daemon_lives(pid_t pid)
{
    return test_wait_exit(pid, 0) == TEST_TIMED_OUT;
}

static void count_point(struct daemon_points *points, const char *name)
{
    unsigned i = 0;

    while (i < points->count && strcmp(points->at[i].name, name) != 0)
        i++;
    if (i == points->count) {
        REQUIRE(points->count < sizeof(points->at) / sizeof(points->at[0]));
        snprintf(points->at[i].name, sizeof(points->at[i].name), "%s", name);
        points->at[i].passes = 0;
        points->count++;
    }
    points->at[i].passes++;
}

void daemon_read_points(const char *path, struct daemon_points *ret_points)
{
    FILE *file = fopen(path, "re");
    char line[80];

    ret_points->count = 0;
    REQUIRE(file != NULL);
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        count_point(ret_points, line);
    }
    fclose(file);
}

void daemon_forget_bus(void)
{
    char command[800];

    (void)test_remove_leftovers();
    snprintf(command, sizeof(command), "rm -rf '%s' '%s'", getenv("SHMQ_STATE_DIR"),
             getenv("SHMQ_RUNTIME_DIR"));
    CHECK_INT_EQ(system(command), 0);
}
