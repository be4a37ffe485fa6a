/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli.h: running the built `shmq` and `shmqd` in tests of the command line.
 *
 * The programs are those in $SHMQ_BIN_DIR, else those in PATH (the runner of `make check` puts the
 * build's own first), else build/. Where there is none to run, the test is skipped. Each test has a bus
 * of its own, ephemeral, which is gone at the end. One thread.
 */
#ifndef SHMQ_TEST_SUPPORT_CLI_H
#define SHMQ_TEST_SUPPORT_CLI_H

#include "test/support/test.h"

#define CLI_WAIT_MS 15000

/* Skips the test if there is no shmq to run. cli_start_bus() and the shells include it. */
void cli_need_tool(void);

/* `words` are split at blanks; further arguments, which may hold blanks, follow up to NULL. Returns the
 * exit status. The caller frees the output. */
int cli_run_input(struct test_output *out, const void *input, size_t length, const char *words, ...)
    __attribute__((sentinel));
#define cli_run(out, ...) cli_run_input(out, NULL, 0, __VA_ARGS__, (char *)NULL)

/* Runs, checks the exit code and drops the output. */
#define cli_run_expect(code, ...) \
    do { \
        struct test_output expect_output; \
        if (!CHECK_INT_EQ(cli_run(&expect_output, __VA_ARGS__), code)) \
            printf("stderr: %s\n", expect_output.err); \
        test_output_free(&expect_output); \
    } while (0)

/* An ephemeral shmqd that answers. Stopping checks that it ends well. */
pid_t cli_start_bus(void);
void cli_stop_bus(pid_t pid);

/* The same, but it keeps its state, for durable topics. `io_fault`: SHMQ_IO_FAULT, see daemon/io.h; NULL for none.
 * The second one also removes the memory that a supervisor leaves to the next. */
pid_t cli_start_persistent_bus(const char *io_fault);
void cli_stop_persistent_bus(pid_t pid);

/* Through a shell, for redirections; $SHMQ is the tool. With `exec` in front the pid is the tool's. */
pid_t cli_start_shell(const char *command);
int cli_run_shell(struct test_output *out, const char *command);

const char *cli_temporary(const char *name, char path[512]);

/* NUL-terminated; empty if there is no such file. The caller frees it. */
char *cli_read_whole(const char *path, size_t *ret_length);

/* `text` is `count` documents of JSON, one behind the other: strict, and not by tools/json.c. */
bool cli_is_json(const char *text, unsigned count);

/* The value at "results/0/value/median" of a document that cli_is_json() has found good; NULL if there
 * is none. It stands in the text: whatever follows, follows. */
const char *cli_json_at(const char *text, const char *path);

#endif
