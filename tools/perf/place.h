/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.h: a place of its own for what shmq-perf starts beside itself: a folder, programs in
 * it, and a shmqd on a bus that nobody else has.
 *
 * A place is taken and left by one thread, and nothing that was started there outlives it: every wait
 * has a deadline, whoever does not end in time is killed, the folder and the bus's segments are removed.
 * SIGINT, SIGTERM and SIGHUP are held back in between (perf_place_interrupted() says that one came), so
 * that ^C cleans up as well; whoever works in a place asks between two steps. Programs started here get
 * the signals as they were, and end when this process dies. If it is killed by SIGKILL its folder stays.
 */
#ifndef SHMQ_PERF_PLACE_H
#define SHMQ_PERF_PLACE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PERF_PATH_BYTES   256 /* a folder of ours and a name in it */
#define PERF_FOLDER_BYTES 64  /* short: the path of a bus's socket below it has to fit into 107 */

struct perf_place {
    char dir[PERF_FOLDER_BYTES];
    char bus[32]; /* "perf-PID-N": names its segments, too */
    char state
        [PERF_PATH_BYTES]; /* of shmqd: "DIR/state", unless it is changed before shmqd starts */
    sigset_t signals;      /* as they were */
};

/* `PERF_PLACE_DISK`: rather on a disk than in memory, as state is. */
enum perf_place_kind { PERF_PLACE_ANY, PERF_PLACE_DISK };

/* A new folder in $TMPDIR, or where else one can be made. False: nowhere. */
bool perf_place_folder(enum perf_place_kind kind, char ret_folder[static PERF_FOLDER_BYTES]);
/* Removes it with all that is in it, and the segments of a bus. */
void perf_place_clear(const char *folder, const char *bus);

/* False, and nothing to leave, where no folder can be made. */
bool perf_place_take(struct perf_place *place, enum perf_place_kind kind);
void perf_place_leave(struct perf_place *place);
bool perf_place_interrupted(void);
/* "DIR/NAME". Static, good until the fourth call after it. */
const char *perf_place_path(const struct perf_place *place, const char *name);

/* This program, and its folder; "" where /proc is missing. Static. */
const char *perf_own_path(void);
const char *perf_own_folder(void);
/* The last line of a log; "it said nothing". */
void perf_read_last_line(const char *path, char *ret_line, size_t bytes);
/* NAME beside this program, else on PATH. False: nowhere. */
bool perf_find_program(const char *name, char ret_path[static PERF_PATH_BYTES]);

/* ---- processes ------------------------------------------------------------------------------- */

struct perf_child {
    pid_t pid;  /* 0: none */
    int status; /* of waitpid(), once it has ended */
};

/* Runs a program; `variable` ("NAME=VALUE", NULL: none) is added to its environment; its output goes to
 * the file `output`. False: no process. */
bool perf_child_execute(struct perf_child *child, const char *const *arguments,
                        const char *variable, const char *output);
/* Runs body(argument) in a fork of this process, which ends with what it returns. */
bool perf_child_call(struct perf_child *child, int (*body)(void *argument), void *argument);
/* The same, for one that stays: returns when it has stored `*ready`, in memory that both share, with
 * release. False: it has ended, or the deadline has come; there is no process then. */
bool perf_child_call_ready(struct perf_child *child, int (*body)(void *argument), void *argument,
                           bool *ready, uint64_t deadline_ns);
/* True: it has ended, and is reaped. */
bool perf_child_wait(struct perf_child *child, uint64_t deadline_ns);
/* True: it has ended by itself, with 0, before the deadline; else it is killed. */
bool perf_child_succeeds(struct perf_child *child, uint64_t deadline_ns);
/* SIGTERM, two seconds, SIGKILL. */
void perf_child_end(struct perf_child *child);

/* ---- a supervisor ---------------------------------------------------------------------------- */

struct perf_daemon {
    const struct perf_place *place;
    struct perf_child child;
    uint64_t ready_ns; /* from before the fork to READY=1 */
};

/* Starts `program` (shmqd) on the place's bus, sockets and log in the place, its state where the place says; returns
 * when it says that it is ready. A fresh start takes a state directory that is empty or not there yet. False: it does
 * not run, and `ret_why` has its last line. */
bool perf_daemon_start(struct perf_daemon *daemon, const struct perf_place *place,
                       const char *program, char *ret_why, size_t why_bytes);
void perf_daemon_stop(struct perf_daemon *daemon);
/* As a crash of the host: killed, and its segments are gone. */
void perf_daemon_crash(struct perf_daemon *daemon);

#endif
