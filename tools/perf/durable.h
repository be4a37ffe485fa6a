/* SPDX-License-Identifier: Apache-2.0 */
/*
 * durable.h: what the parts of `shmq-perf durable` share: what it costs to keep messages on a disk, each figure
 * beside what the disk itself does in the same folder, in the same minute.
 *
 *     caller ── starts ── shmqd: a real one, its state in a folder of ours on a disk; on any of the CPUs
 *       │
 *       └──── forks ──── measurer, pinned to the first CPU: rounds of trials, shmq and floor in turn
 *                          └─ further producers, consumers: processes as well
 *
 * A *scenario* has a shmqd and a state directory of its own, which are gone before the next one begins: what one
 * has left in the page cache and in the disk's queue is synced or dropped before the next trial, not timed. A
 * *series* is one thing measured once in each round; a row of the report is the ratio of two series, round by
 * round.
 *
 *   durable.c           the verb: scenarios, --only, rows, the report
 *   durable_client.c    the measurer's ends of shmq: topics, publishing, what the flusher has done
 *   durable_floor.c     the same without shmq: files of three kinds, append, sync
 *   durable_disk.c      which folder, which file system
 *   durable_confirm.c   policy always: window, one outstanding, several producers
 *   durable_stream.c    policies os and interval; what publish itself takes
 *   durable_history.c   catch-up
 *   durable_recovery.c  a start after everything was lost but the files
 *   durable_spill.c     consumers that stop
 *
 * Everything waits with a deadline. If a measurer dies, its scenario's rows are not observed, and say why; if the
 * caller is killed by SIGKILL, measurers and shmqd die with it, and the two folders stay.
 */
#ifndef SHMQ_PERF_DURABLE_H
#define SHMQ_PERF_DURABLE_H

#include "libshmq/shmq.h"
#include "tools/perf/place.h"
#include "tools/perf/plan.h"
#include "tools/perf/transport.h"

#define DURABLE_ROUNDS_LEAST 5u
#define DURABLE_SERIES_MAX   16u
#define DURABLE_TIMES_MAX    3u
#define DURABLE_TEAM_MAX     8u
#define DURABLE_NOTE_BYTES   320
#define DURABLE_STEP_MS      10000 /* no single call waits longer */
#define DURABLE_RING         (UINT64_C(4) << 20)

/* In memory that the processes share. Written by one at a time, but for what is atomic. */
struct durable_talk {
    /* What measurers are told. */
    char bus[32];
    char runtime_dir[PERF_PATH_BYTES];
    char state_dir[PERF_PATH_BYTES];
    char floor_dir[PERF_PATH_BYTES];
    int cpus[PERF_CPUS_MAX];
    uint32_t cpu_count;
    uint32_t rounds;
    uint64_t trial_ns;
    uint64_t stream_bytes;      /* at most, of one trial that streams */
    uint64_t history_bytes;     /* catch-up */
    uint64_t recovery_messages; /* of 100 bytes */
    uint64_t long_bytes;        /* recovery: history to write now; 0: recovery_messages */
    uint64_t ring_bytes;
    uint64_t stop_ns; /* spill: how long consumers stop */

    /* What they found. */
    double values[DURABLE_SERIES_MAX][PERF_DURABLE_ROUNDS_MAX]; /* NAN: not measured */
    struct perf_histogram times[DURABLE_TIMES_MAX];
    char note[DURABLE_NOTE_BYTES];
    char failure[DURABLE_NOTE_BYTES]; /* the first one counts */

    /* Of several processes at once. */
    _Atomic uint32_t ready;
    _Atomic uint64_t start_ns; /* 0: not yet */
    _Atomic uint32_t stop;
    uint64_t counts[DURABLE_TEAM_MAX];
    double rates[DURABLE_TEAM_MAX];
};

/* The caller's. */
struct durable_run {
    const struct perf_plan *plan;
    struct durable_talk *talk;
    struct perf_collection collection;
    struct perf_place place;
    char disk[PERF_PATH_BYTES]; /* a folder of ours, on a disk */
    char program[PERF_PATH_BYTES];
};

struct durable_scenario {
    const char *name;  /* as --only takes it */
    const char *title; /* what goes on, for who waits */
    /* In the caller; false: nothing more can be done, with the reason in talk->failure. NULL: a shmqd and
     * `measure` in a measurer. */
    bool (*run)(struct durable_run *run);
    int (*measure)(void *talk);              /* 0, or 1 with the reason */
    void (*report)(struct durable_run *run); /* adds its rows, also if nothing was measured */
};

extern const struct durable_scenario durable_scenario_window, durable_scenario_confirm,
    durable_scenario_producers, durable_scenario_os, durable_scenario_interval,
    durable_scenario_publish, durable_scenario_catch_up, durable_scenario_recovery,
    durable_scenario_spill;

/* ---- the caller's (durable.c) ---------------------------------------------------------------- */

/* The scenarios that `list` ("confirm,os"; NULL: all) names, in the order of the report; their number, or -1 with
 * the sentence. */
int durable_choose(const char *list, const struct durable_scenario **ret_chosen, uint32_t max,
                   struct error_buffer *why);

struct durable_row {
    const char *what;
    uint32_t size; /* of bodies; 0: the words say it */
    enum perf_unit unit;
    uint32_t subject; /* series */
    const char *subject_name;
    uint32_t baseline;         /* series */
    const char *baseline_name; /* NULL: the figure stands alone */
    bool at_most;
    double target;  /* 0: none */
    uint32_t least; /* samples; 0: DURABLE_ROUNDS_LEAST */
};

/* Adds it to the report; returned for whoever wants its verdict otherwise, good until the next one. */
struct perf_comparison *durable_report(struct durable_run *run, const struct durable_row *row);
/* A series by itself, in a table of its own. `measure` and `name` are static. */
void durable_report_value(struct durable_run *run, const char *measure, const char *name,
                          uint32_t series, enum perf_unit unit);
/* All times of a series, whose values were their medians. */
void durable_report_times(struct durable_run *run, const char *name, uint32_t series,
                          uint32_t times);

/* False with talk->failure set. The state directory is `name` in the run's folder. */
bool durable_start_shmqd(struct durable_run *run, const char *name, struct perf_daemon *ret_daemon);
bool durable_restart_shmqd(struct durable_run *run, struct perf_daemon *ret_daemon);
void durable_stop_shmqd(struct durable_run *run,
                        struct perf_daemon *daemon); /* its state goes, too */
/* Runs body(talk) in a process of its own. False with talk->failure set. */
bool durable_measure(struct durable_run *run, int (*body)(void *talk));
/* Forgets what was found. */
void durable_clear(struct durable_talk *talk);
bool durable_set_failure(struct durable_talk *talk, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- a measurer's (durable_client.c) --------------------------------------------------------- */

struct durable_client {
    struct durable_talk *talk;
    shmq_connection *connection;
    shmq_channel *channel;
    shmq_producer *producer;
    shmq_consumer *consumer;
    struct perf_source source; /* of bodies */
    uint32_t size;
};

/* All of these return 0, or 1 with the first reason in talk->failure: what a measurer's process ends with. */
int durable_fail(struct durable_talk *talk, const char *format, ...) PRINTF_LIKE(2, 3) COLD;
int durable_fail_library(struct durable_talk *talk, const char *call) COLD;
/* Pins this process to one of the CPUs. */
int durable_pin(struct durable_talk *talk, uint32_t index);
int durable_connect(struct durable_client *client, struct durable_talk *talk);
void durable_close(struct durable_client *client); /* one that was not connected is fine */
int durable_create(struct durable_client *client, const char *topic,
                   const struct shmq_topic_options *options);
/* Bodies have a number in their first eight bytes, from 0 on. */
int durable_produce(struct durable_client *client, const char *topic, uint32_t size);
int durable_consume(struct durable_client *client, const char *topic, const char *group);

static ALWAYS_INLINE int durable_publish(struct durable_client *client,
                                         struct shmq_message *message)
{
    message->body = perf_source_next(&client->source);
    message->body_length = client->size;
    return LIKELY(shmq_publish(client->producer, message) == 0)
               ? 0
               : durable_fail_library(client->talk, "publish");
}

static ALWAYS_INLINE int durable_confirm(struct durable_client *client,
                                         const struct shmq_message *message)
{
    return LIKELY(shmq_confirm(client->producer, message, SHMQ_DURABLE, DURABLE_STEP_MS) == 0)
               ? 0
               : durable_fail_library(client->talk, "confirm");
}

/* Publishes so many, and waits until they are durable. */
int durable_fill(struct durable_client *client, uint64_t messages);

struct durable_journal {
    uint64_t first, durable, tail; /* offsets */
    uint64_t syncs;                /* that the flusher has made */
    uint64_t bytes;                /* of files */
};
/* Of partition 0. */
int durable_look(struct durable_client *client, const char *topic,
                 struct durable_journal *ret_journal);

/* Bytes that a message of `size` takes in ring and journal. */
uint64_t durable_record_bytes(uint32_t size);
void durable_value(struct durable_talk *talk, uint32_t series, uint32_t round, double value);
/* Which of `count` comes at `turn` in this round: each is first once. */
static inline uint32_t durable_turn(uint32_t round, uint32_t turn, uint32_t count)
{
    return (round + turn) % count;
}

/* ---- floors (durable_floor.c) ---------------------------------------------------------------- */

enum durable_file_kind {
    DURABLE_GROWING,   /* empty: each append makes it longer */
    DURABLE_ALLOCATED, /* its size and blocks are there; what has not been written reads as zeros */
    DURABLE_ZEROED,    /* zeros were written and synced */
};

struct durable_file {
    int fd;
    enum durable_file_kind kind;
    uint64_t bytes; /* appending begins again at the front behind them; growing: never */
    uint64_t at;
    char *data; /* what is written from, DURABLE_DATA_BYTES of it */
};

#define DURABLE_DATA_BYTES (UINT64_C(1) << 20)

/* Its name is gone when this returns. 0; 1 with the reason in talk->failure; -1: this file system cannot. */
int durable_file_open(struct durable_talk *talk, enum durable_file_kind kind, uint64_t bytes,
                      struct durable_file *ret_file);
void durable_file_close(struct durable_file *file);
/* 0, or 1 with the reason. */
int durable_file_append(struct durable_talk *talk, struct durable_file *file, uint64_t bytes);
int durable_file_sync(struct durable_talk *talk, struct durable_file *file);
/* Until the file system has nothing more to write. */
int durable_settle(struct durable_talk *talk);

/* ---- the disk (durable_disk.c) --------------------------------------------------------------- */

struct durable_mount {
    char point[PERF_PATH_BYTES];
    char type[32];
    char source[96];
};

/* The mount that `path`, absolute and without links, is in; `mountinfo` as in /proc/self/mountinfo. */
bool durable_mount_find(const char *mountinfo, const char *path, struct durable_mount *ret_mount);
/* In memory, where syncing is free. */
bool durable_is_memory(const char *path);
/* A new folder below `given`, else below $TMPDIR or /var/tmp, the first that is on a disk, else the first that can be
 * written. 0 or an error. */
int durable_disk_folder(const char *given, char ret_folder[static PERF_PATH_BYTES],
                        struct error_buffer *why);
/* "ext4 on /dev/vda, mounted on /: /var/tmp/…, 82 GiB free". */
void durable_disk_describe(const char *folder, char *ret_text, size_t bytes);
uint64_t durable_disk_free(const char *folder);
/* Shows each file below `folder`. */
typedef void durable_walk_fn(const char *path, const char *name, void *context);
void durable_walk(const char *folder, durable_walk_fn *fn, void *context);
/* Drops the cached pages of all files below `folder`, after syncing them. */
void durable_evict(const char *folder);
bool durable_remove(const char *folder);

/* ---- the log (durable_recovery.c) ------------------------------------------------------------ */

/* What the last recovery said of itself; false: there was none. */
bool durable_parse_recovery(const char *log, uint64_t *ret_messages, uint64_t *ret_scanned);

#endif
