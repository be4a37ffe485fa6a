/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One partition's journal: a directory of files (their format: libshmq/journal_read.h, docs/journal-format.md),
 * of which the newest is written.
 *
 *     file valid for [base, base of the next file); the newest as far as its records chain
 *
 * A file is never cut or changed behind what was written; files are only made and unlinked. What stands in a
 * file at and above the next one's base does not count: flushing that begins anew (a restart, a disk error)
 * goes on in a new file at `durable` and writes again what was not safe.
 *
 * Files are made ahead of use by another thread (journal_prepare): `next.tmp`, filled with zeros and synced
 * where fdatasync is in somebody's way (policies interval and always), so that a sync finds blocks and size in
 * place; only allocated where it is not (os). journal_begin() gives it its header and its name. If none is
 * there in time, a file is allocated on the spot: nobody waits for zeros. Sizes grow from JOURNAL_FILE_FIRST to
 * JOURNAL_FILE_MOST by doubling, so that a topic with ten messages has no 64 MiB file.
 *
 * Invariants:
 * - A name that ends in .log has a whole header and all of its size. Both are on disk before a record in it is
 *   confirmed (always, interval): header, size and directory are synced, so the newest file on disk bounds every
 *   offset that was ever durable. With os they follow when the file is full; a host that crashes may lose the
 *   last files altogether, at most FLUSH_UNKNOWN_FILES, and recovery leaves room for their offsets.
 * - Before a file's successor is begun, the file itself is synced by the caller (always, interval), or will be soon
 *   (os: then more files than the newest may lose pages when the host crashes).
 * - A failed write or sync is final for the file: the caller begins another at `durable`.
 *
 * - Nothing is unlinked but what retention lets go, oldest first and each on disk before the next, and what stands
 *   above the base of a file that is begun, newest first and on disk before it has its name. So at every
 *   instant the files on disk are a run without gaps.
 *
 * Threads: the *writer* (one at a time) calls begin, write, abandon; the *preparer* calls prepare and retain; any
 * thread looks things up; open, recover and close come before and after all of them. `lock` guards what they
 * share: the list of files and the spare; it is never held over a write or sync. If the process dies here:
 * next.tmp or begin.tmp is left, which journal_open() removes.
 */
#ifndef SHMQ_DAEMON_JOURNAL_H
#define SHMQ_DAEMON_JOURNAL_H

#include "daemon/journal_write.h"
#include "libshmq/error.h"
#include "libshmq/journal_read.h"
#include "libshmq/journal_retention.h" /* journal_entry, journal_judge() */

#include <pthread.h>
#include <stdbool.h>

#define JOURNAL_FILE_FIRST (UINT64_C(1) << 20) /* of the whole file, header included */
#define JOURNAL_FILE_MOST  (UINT64_C(64) << 20)

struct journal {
    struct journal_place place; /* dir and dir_fd are owned */
    uint64_t file_first;        /* JOURNAL_FILE_FIRST and _MOST; tests lower them */
    uint64_t file_most;
    uint64_t bound; /* journal_history.next_base, as journal_open() found it */

    pthread_mutex_t lock;
    struct journal_entry *entries; /* ascending by base */
    size_t count;
    size_t room;
    uint64_t retain_bytes; /* at the last journal_retain(): little is kept in small files */
    uint64_t spare_bytes;
    int spare_fd;    /* -1: none is prepared; else that of next.tmp */
    bool spare_busy; /* somebody makes next.tmp, or gives it its name */

    /* The writer's. */
    int fd; /* of the newest file; -1: nothing was begun since journal_open(), or it was abandoned */
    uint64_t base;
    uint64_t end;      /* offset behind what is written */
    uint64_t bytes;    /* of the file */
    uint64_t messages; /* in the whole journal */
    uint64_t max_timestamp_ns;
};

/* What recovery found. */
struct journal_history {
    bool empty; /* there is no file */
    uint64_t
        end; /* where the log ended: behind the last record that holds, and behind all damage */
    uint64_t
        next_base; /* above every offset that can be in a file; at least newest base + size of that file */
    uint64_t messages;
    uint64_t max_timestamp_ns;
    uint64_t scanned_bytes;
    uint64_t
        damaged_bytes; /* that cannot be read, though something stood there: a record that holds, or the next
                             * file, says so; or the disk gives an error; or a header is damaged */
    uint64_t damaged_at; /* the first of them; UINT64_MAX: none */
    uint64_t
        torn_at; /* what was not wholly written, or was damaged at the very end: UINT64_MAX: no such thing */
};

/* Opens the directory (and makes it and those above it, mode 0700) and reads the headers of its files. One whose
 * header is damaged, whose name is not its base, or which belongs to another topic, is kept as `damaged`,
 * warned of in the log, and does not stop the others; what no journal can contain is left alone. 0;
 * SHMQ_EVERSION: another shmq wrote it; or an error of the system. On success journal_close() in the end; on
 * failure that is fine too. */
int journal_open(struct journal *journal, const char *dir, uint64_t topic, uint32_t partition,
                 struct error_buffer *why);

/* Closes descriptors and frees; syncs nothing, removes next.tmp. One that is zeroed is fine. */
void journal_close(struct journal *journal);

/* The only scan there is: the newest file (with policy os, whose files may be lost in any order when the host
 * crashes, the one before it as well), by length, checksum and chain. Behind a break it goes on at the next record
 * that holds: what can be read is kept, what cannot is counted as damage when a record behind it holds, and
 * is a torn tail otherwise. Memory and time are bounded by the files read, whatever is in them. Before
 * anything was begun. */
int journal_recover(struct journal *journal, bool two_files, struct journal_history *ret_history,
                    struct error_buffer *why);

/* Begins a file at `base` with stamps under `salt`; a file with that base, which holds nothing confirmed, is
 * replaced, and whatever lies above is unlinked first. `start`: what its header says of the log before.
 * `least`: bytes of records that it must take. The file before is closed. 0 or a negative error: then nothing that
 * was confirmed has changed, and `fd` is -1: try again. With start->unsynced (policy os) neither header nor name are
 * synced, so that the writer does not wait for a disk that is writing the file before: a host that crashes may have
 * lost the last files altogether, and who goes on then has to leave room for their offsets. */
int journal_begin(struct journal *journal, const struct journal_start *start, uint64_t salt,
                  uint64_t least, struct error_buffer *why);

/* Nothing more is written to the newest file: a write or sync in it has failed. */
void journal_abandon(struct journal *journal);

/* Bytes of records that the newest file still takes. 0 with none begun. */
uint64_t journal_room(const struct journal *journal);

/* Writes whole records behind each other at `end`, at most journal_room() bytes. On failure nothing counts: the same
 * may be tried again (no room) or the file is abandoned (all else). */
int journal_write(struct journal *journal, const void *run, size_t bytes, uint64_t messages,
                  uint64_t max_timestamp_ns, struct error_buffer *why);

/* Makes the spare if there is none: the preparer. `zeros`: filled with them and synced. Call it when the newest file
 * is half full: a topic at rest needs no spare. */
int journal_prepare(struct journal *journal, bool zeros, struct error_buffer *why);

/* Unlinks what retention lets go, see journal_judge(): the preparer. 0 or the first error, which ends it. */
int journal_retain(struct journal *journal, const struct journal_retention *retention,
                   struct error_buffer *why);

/* The entry in whose valid range `offset` lies, else the first above it; *ret_next is the one behind it (base
 * UINT64_MAX: it is the newest). False: there is none. Any thread. */
bool journal_find(struct journal *journal, uint64_t offset, struct journal_entry *ret_entry,
                  struct journal_entry *ret_next);

/* The first file in which something of `time_ns` or later may stand; false: none. */
bool journal_find_time(struct journal *journal, uint64_t time_ns, struct journal_entry *ret_entry,
                       struct journal_entry *ret_next);

/* Files, their bytes together, and the oldest base (0 of each when there is none). Any thread. */
void journal_measure(struct journal *journal, size_t *ret_files, uint64_t *ret_bytes,
                     uint64_t *ret_first);

/* Read-only, for a client. 0; SHMQ_EAGAIN: retention was faster, find again; or another
 * negative error. */
int journal_open_file(struct journal *journal, uint64_t base, int *ret_fd,
                      struct error_buffer *why);

/* Unlinks the journal's files and the directory; where there are files of strangers, they and the directory stay,
 * and the log says so. 0, also if there is none; or a negative error. */
int journal_remove_directory(const char *dir, struct error_buffer *why);

#endif
