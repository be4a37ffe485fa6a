/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of flush say to each other; see flush.h.
 *
 *   flush.c           adding, removing, describing
 *   flush_write.c     ring → page cache, one log
 *   flush_thread.c    the writer: passes over its logs, naps, sleeps
 *   flush_sync.c      page cache → disk, raising `durable`; the syncer
 *   flush_prepare.c   the preparer
 */
#ifndef SHMQ_DAEMON_FLUSH_INTERNAL_H
#define SHMQ_DAEMON_FLUSH_INTERNAL_H

#include "daemon/flush.h"
#include "daemon/guard.h"
#include "daemon/io.h"
#include "libshmq/segment.h"
#include "libshmq/topic_options.h"
#include "libshmq/wait.h"

#include <pthread.h>

#define FLUSH_BUFFER_BYTES \
    ((size_t)256 * 1024) /* copied, checked and written at once: stays in a core's cache */
#define FLUSH_UNSYNCED_FILES \
    8u /* policy os: so many files may wait for the disk; then the writer does */

/* Those that wait, as many that the preparer is at, the newest, and the one that is being begun. */
static_assert(2 * FLUSH_UNSYNCED_FILES + 2 <= FLUSH_UNKNOWN_FILES, "files that may be unknown");

struct flush_shard;

struct flush_log {
    /* Constant. */
    struct flush_shard *shard;
    struct segment segments[4]; /* S P W D */
    struct guard_range ranges[4];
    struct state_segment *state;
    const struct producers_segment *producers;
    struct wait_segment *wait;
    const unsigned char *data;
    uint64_t capacity;
    uint64_t salt;
    uint32_t length_max;
    uint32_t durability;
    bool fence_mode;
    char label[NAME_BYTES + 32];

    /* Any thread looks at them, relaxed: each is a figure or a wish by itself. */
    _Atomic uint64_t durable; /* as in S */
    _Atomic uint64_t syncs;
    _Atomic uint64_t damaged;
    _Atomic int error;
    _Atomic bool suspended;
    _Atomic bool corrupt;
    _Atomic uint64_t sync_interval_ns;
    _Atomic uint64_t retain_bytes;
    _Atomic uint64_t retain_ns;
    _Atomic uint64_t first;

    /* The writer's, but for what journal.h says. */
    struct journal journal;
    uint64_t position; /* written below */
    uint64_t messages; /* below position */
    uint64_t max_timestamp_ns;
    uint64_t from;         /* where flushing began */
    uint64_t previous_end; /* for a file that is begun there */
    bool asked_for_spare;  /* since this file was begun */
    uint64_t drain_to;     /* at the end: what stands below is to be safe */
    uint64_t failed_at;    /* what was written at the last failure */
    uint64_t retry_ns;     /* not before; 0: at once */
    uint64_t retry_pause_ns;

    /* Under the shard's lock. */
    uint64_t written; /* a sync that begins now covers what is below, */
    uint64_t written_messages;
    uint64_t durable_messages;
    uint64_t sync_due_ns; /* the syncer is to sync it then; 0: it need not */
    bool syncing;
    int broken; /* a write or sync failed so: begin a new file at `durable`; 0: none did */
    struct error_buffer broken_why;
    bool leaving;
    bool preparing;
    bool wants_spare;
    bool wants_retention;
    uint32_t unsynced_count; /* policy os: earlier files, to be synced in the background */
    int unsynced[FLUSH_UNSYNCED_FILES];
};

struct flush_shard {
    struct flusher *flusher;
    struct flush_shard *next;
    pthread_mutex_t lock;
    pthread_cond_t sync_wanted;
    pthread_cond_t settled; /* a sync or a preparation has ended */
    pthread_t writer;
    pthread_t syncer;
    bool syncer_runs;
    uint32_t count;
    struct flush_log *logs[FLUSH_LOGS_MAX]; /* changed by control (adding) and writer (removing) */
    _Atomic uint32_t event;                 /* futex word, bumped to have the writer look */

    /* The writer's. */
    unsigned char *buffer;
    size_t buffer_bytes;
    struct flush_log *passing[FLUSH_LOGS_MAX]; /* the logs of this pass */
    uint32_t passing_count;
};

struct flush_removal {
    struct flush_removal *next;
    char dir[]; /* of a topic */
};

struct flusher {
    struct loop *loop;
    struct flush_shard *shards;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work;
    pthread_t preparer;
    bool preparer_runs;
    bool work_waits;
    struct flush_removal *removals;
    _Atomic uint32_t leaving; /* logs that were removed and are not gone yet: who unlinks waits */
    _Atomic bool stopping;
    _Atomic bool draining;
    bool stopped; /* the threads are gone */
};

static inline uint64_t flush_durable(const struct flush_log *log)
{
    return atomic_load_explicit(&log->durable, memory_order_relaxed);
}

static inline bool flush_is_out(const struct flush_log *log)
{
    return atomic_load_explicit(&log->suspended, memory_order_relaxed) ||
           atomic_load_explicit(&log->corrupt, memory_order_relaxed);
}

static inline bool flush_is_stopping(const struct flusher *flusher)
{
    return atomic_load_explicit(&flusher->stopping, memory_order_relaxed);
}

/* Runs `fn` over the log's segments; a cut one makes it corrupt. */
int flush_guard(struct flush_log *log, guard_fn *fn, void *context);
void flush_free(struct flush_log *log); /* nobody looks at it any more */
void flush_set_corrupt(struct flush_log *log, const char *reason);
void flush_wake_writer(struct flush_shard *shard);

/* flush_write.c: one round of one log. Returns the bytes that went on to the page cache; 0: there is nothing, or it does not get
 * on. */
size_t flush_write(struct flush_log *log);

/* A write or sync failed: nothing more goes into this file. The first failure is the one that is told. */
void flush_break(struct flush_log *log, int code, const struct error_buffer *why);
void flush_break_locked(struct flush_log *log, int code, const struct error_buffer *why);

/* flush_thread.c */
void *flush_writer_main(void *context); /* a shard */

/* flush_sync.c. All with the lock held; sync gives it up meanwhile. */
void flush_sync_locked(struct flush_log *log);
void flush_settle_locked(struct flush_log *log); /* waits until no sync runs */
int flush_start_syncer_locked(struct flush_shard *shard);
void *flush_syncer_main(void *context); /* a shard */
void flush_raise(struct flush_log *log, uint64_t durable, uint64_t messages);
bool flush_wants_sync(const struct flush_log *log);
void flush_schedule_locked(struct flush_log *log, uint64_t now_ns);
/* A sync that waits for the clock waits until then at most. */
void flush_hurry_locked(struct flush_log *log, uint64_t due_ns);
/* What is not safe fills half of the ring: it waits no longer. */
void flush_press_locked(struct flush_log *log, uint64_t now_ns);

/* flush_prepare.c */
void *flush_preparer_main(void *context); /* the flusher */
void flush_want_work(struct flusher *flusher);

#endif
