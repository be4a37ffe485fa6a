/*
 * test_internal.h: what the parts of the harness share; suites include test.h only.
 *
 * struct test_state lies in MAP_SHARED memory that the runner maps once: checks of every process
 * of a test add to it, and the runner reads it when the test's child is gone. The runner resets it
 * between tests, after it has reaped every process that could write to it.
 */
#ifndef SHMQ_TEST_SUPPORT_TEST_INTERNAL_H
#define SHMQ_TEST_SUPPORT_TEST_INTERNAL_H

#include "test/support/test.h"

#define TEST_EXIT_SKIP     77
#define TEST_FAILURES_KEPT 16 /* texts kept for the summary; the count is not limited */

struct test_failure {
    char file[96];
    int line;
    char text[400];
};

struct test_state {
    _Atomic uint64_t checks;
    _Atomic uint64_t failures;
    _Atomic uint32_t finished; /* the body returned, or said that it skips */
    _Atomic uint32_t failures_stored;
    struct test_failure failure[TEST_FAILURES_KEPT];
    char skip_reason[200];
};

/* What the running test is; set in the runner before the fork, inherited by all its processes. */
struct test_environment {
    struct test_state *state;
    char name[200];
    char bus[40];
    char directory[128];
    uint64_t seed;
    int note_fd; /* the runner's stdout */
};
extern struct test_environment test_env;

/* test.c */
uint64_t test_local_failures(void); /* of this process alone */
void test_forget_local_failures(void);
uint64_t test_hash(const char *text);

/* test_process.c */
bool test_wait_child(pid_t pid, int timeout_ms, int *ret_status); /* unscaled; false: it lives */
void test_exit_helper(void) __attribute__((noreturn));
pid_t test_fork_bound(void); /* fork(); the child dies with this thread */

/* test_leak.c */
struct test_descriptors;
struct test_descriptors *test_descriptors_new(void);
/* Reports each descriptor that is open now and was not then, then frees the list. */
void test_descriptors_check(struct test_descriptors *before);
void test_children_check(void); /* in a test's child, at its end */
/* In the runner, after the test's child is gone: reports, unless `quiet`, and ends all that lives. */
void test_descendants_end(bool quiet);
void test_descendants_print(void);
unsigned test_segments_remove(const char *bus, bool report);
unsigned test_sockets_remove(const char *directory, bool report);
bool test_directory_create(char *ret_path, size_t size);
void test_directory_remove(const char *path);

#endif
