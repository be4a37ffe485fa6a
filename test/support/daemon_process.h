/* SPDX-License-Identifier: Apache-2.0 */
/*
 * daemon_process.h: the real shmqd, of this build and with its fault points, as a child process of a test: started,
 * struck, killed and started again, on the test's own bus.
 *
 * One thread of one process of a test. What cannot be done ends the test; where there is no shmqd to run it is
 * skipped.
 */
#ifndef SHMQ_TEST_SUPPORT_DAEMON_PROCESS_H
#define SHMQ_TEST_SUPPORT_DAEMON_PROCESS_H

#include "test/support/test.h"

struct daemon_options {
    const char *fault;     /* SHMQ_FAULT; NULL: none */
    const char *fault_log; /* SHMQ_FAULT_LOG */
    const char *io_fault;  /* SHMQ_IO_FAULT */
    const char *words;     /* further arguments, split at blanks */
};

/* Starts one; `options` may be NULL. Does not wait for it. */
pid_t daemon_start(const struct daemon_options *options);
/* Waits until its socket takes connections: true. False: it has ended, and is reaped; how, in *ret_status. */
bool daemon_await(pid_t pid, int *ret_status);
/* Both, for one that has to come up. */
pid_t daemon_run(const struct daemon_options *options);
/* SIGTERM, and how it ended. */
int daemon_terminate(pid_t pid);
/* daemon_terminate(), and it must have ended well. */
void daemon_stop(pid_t pid);

/* Runs shmqd to its end, with its output: for one that has to refuse. Returns the exit code. */
int daemon_refused(const char *words, struct test_output *ret_output);

/* Segments of this test's bus that stand in /dev/shm now. */
unsigned daemon_count_segments(void);
/* Whether `pid` runs, and has not ended as a zombie. */
bool daemon_lives(pid_t pid);

/* Points of a fault log, each once. */
struct daemon_points {
    unsigned count;
    struct {
        char name[80];
        unsigned passes;
    } at[200];
};
void daemon_read_points(const char *path, struct daemon_points *ret_points);

/* For a new bus of the same name: what a killed supervisor left goes, metadata and all. */
void daemon_forget_bus(void);

#endif
