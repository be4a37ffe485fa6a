/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flush.h: rings of durable topics to journals (design §4). The ring stays the hot path; what a group has in the
 * page cache or on disk follows it.
 *
 *     producers ─▶ ring ─ writer ─▶ page cache ─ syncer ─▶ disk        preparer: files ahead of use, retention
 *                          │ copy, check, write      │ fdatasync
 *                          └─ os: durable            └─ interval, always: durable; who waits is woken
 *
 * A *shard* is a writer thread for up to FLUSH_LOGS_MAX partitions, as many as one futex_waitv watches, and
 * a syncer thread beside it once it is needed: while the disk is busy with one batch, the next is copied, checked and
 * written (group commit: a sync takes whatever was written until it began). A batch that comes alone is synced by
 * the writer itself, which saves the hand-over. One *preparer* for all.
 *
 * Invariants:
 * - Records are copied into a private buffer, checked there (chain, stamp, checksum) and written from there: nothing
 *   that a client can still change reaches the disk. A bad record becomes padding, is counted and logged.
 * - `durable` (I8) is raised only after the write (os) or the sync (interval, always) that covers it returned 0, and
 *   never falls. It gates the ring, so what is not safe stands in the ring.
 * - Every start of flushing (a new supervisor, any failed write or sync) begins a new file at `durable` and
 *   writes again from the ring: a failed fdatasync is never tried again on the same pages.
 * - Policy os promises the page cache, so nothing there waits for the disk: files are synced, and their names, when they are full and
 *   in the background, at most FLUSH_UNSYNCED_FILES at a time; the writer waits when it is further ahead than that.
 * - A full disk changes nothing: the same write is tried again, at most once a second, until there is room.
 *
 * The bell. Eventfds, as one would think of first, die with the supervisor that made them, cost each side a descriptor
 * a partition, and can be drained by any client; so the bell is a futex word in W (bell_seq). A writer that has
 * just worked naps for a millisecond at most (bit NAP: rung by who waits for `durable` or for room, so publishers pay
 * nothing); one that was idle for a while sleeps (bit DOORBELL: rung by the next publish).
 *
 * Threads: all functions here belong to the control thread, but for flush_journal()'s look-ups (journal.h). The
 * threads touch shared memory only under guard_run(). If the process dies here: `durable` in S is what was promised;
 * the next supervisor begins a new file there.
 */
#ifndef SHMQ_DAEMON_FLUSH_H
#define SHMQ_DAEMON_FLUSH_H

#include "daemon/journal.h"
#include "daemon/loop.h"

#define FLUSH_LOGS_MAX 126u /* a shard: with the writer's own word what one futex_waitv takes */

/* Policy os: so many of the last files may be unknown to the disk. Their offsets are used all the same. */
#define FLUSH_UNKNOWN_FILES 18u

struct flusher;   /* all threads of one supervisor */
struct flush_log; /* one partition */

struct flush_options {
    uint64_t sync_interval_ns;
    uint64_t retain_bytes; /* 0: no bound */
    uint64_t retain_ns;
    uint64_t first; /* purged below */
};

struct flush_start {
    const char *prefix; /* of segment names */
    const char *label;  /* "topic NAME/INDEX" */
    uint64_t topic;
    uint32_t partition;
    uint32_t durability; /* enum durable_mode, not NONE */
    uint64_t salt;
    uint64_t capacity;
    uint64_t from;         /* what is below is durable */
    uint64_t previous_end; /* where the log ended; below `from` if memory was lost in between */
    uint64_t messages;     /* below `from` */
    uint64_t max_timestamp_ns;
    struct flush_options options;
};

struct flush_status {
    uint64_t durable;
    uint64_t syncs;
    uint64_t damaged; /* records that were not journaled: their checksum was wrong */
    int error;        /* errno for which it does not get on; 0 */
};

/* No threads yet. `loop` is woken when flush_take_corrupt() has something. */
int flusher_new(struct loop *loop, struct flusher **ret_flusher, struct error_buffer *why);

/* Writes and syncs what is there (`drain`; at most 10 s), then ends the threads. Logs stay until they are removed. */
void flusher_stop(struct flusher *flusher, bool drain);
void flusher_free(struct flusher *flusher); /* without logs; NULL is fine */

/* Begins to flush a partition. `journal` is taken over, in any case. 0 or a negative error. */
int flush_add(struct flusher *flusher, const struct flush_start *start, struct journal *journal,
              struct flush_log **ret_log, struct error_buffer *why);

/* Ends it; `log` is gone for the caller at once. Its files stay. NULL is fine. */
void flush_remove(struct flush_log *log);

/* Unlinks a topic's directory of journals in the background; what is no journal stays, and is warned of. */
void flusher_remove_directory(struct flusher *flusher, const char *dir);

void flush_set_options(struct flush_log *log, const struct flush_options *options);

/* The partition is quarantined: nothing more is read of it. */
void flush_suspend(struct flush_log *log);

void flush_describe(const struct flush_log *log, struct flush_status *ret_status);
struct journal *flush_journal(struct flush_log *log);

/* True once when its memory turned out to be scribbled on: quarantine it. */
bool flush_take_corrupt(struct flush_log *log);

#endif
