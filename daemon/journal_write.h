/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer's side of a journal (its format: libshmq/journal_read.h). A journal_writer is one file of
 * one journal directory; one thread owns it, and everything here may block on the disk.
 *
 * A file's life:
 *     create    `NAME.tmp`: header, salt of its own, filled with zeros ahead of use
 *     append    into the tmp file too, which is how a snapshot is made in one step
 *     publish   fdatasync, rename to `NAME.log`, fsync of the directory: from here on it counts
 *     append + sync, again and again; roll: sync, then publish the next file
 *
 * Invariants:
 * - What stands below `durable` is on disk; only a successful sync moves it. Nothing is confirmed in a
 *   file before the file, its predecessor and the directory are synced, so that a file whose name ends
 *   in `.log` always has a whole header, and a snapshot in it is whole.
 * - A failed write or fdatasync is final for this file (`failed`): the kernel may have dropped the pages
 *   and marked them clean, so a second sync would lie. The owner goes on in a new file.
 * - SHMQ_ENOSPC while filling ahead changes nothing: the same append may be tried again later.
 *
 * If the process dies here: a tmp file is left, which the next start removes; or a record whose crc or
 * stamp is wrong, behind all that is confirmed; or the older files of a snapshot that counts already.
 */
#ifndef SHMQ_DAEMON_JOURNAL_WRITE_H
#define SHMQ_DAEMON_JOURNAL_WRITE_H

#include "libshmq/error.h"
#include "libshmq/journal_read.h"

#include <stdbool.h>

#define JOURNAL_FILL_BYTES 65536u     /* zeros written at once, ahead of use */
#define JOURNAL_APPEND_MAX (1u << 24) /* bytes of one record's payload */

struct journal_place {
    const char *dir; /* for messages; borrowed, like the descriptor */
    int dir_fd;
    uint64_t topic; /* 0: metadata */
    uint32_t partition;
};

struct journal_writer {
    struct journal_place place;
    int fd;                        /* -1: not open */
    char name[JOURNAL_NAME_BYTES]; /* without directory, as it is now: .tmp or .log */
    bool published;
    bool failed;
    uint64_t base;
    uint64_t end;     /* offset of the next record */
    uint64_t durable; /* end of what is synced */
    uint64_t salt;
    uint64_t file_bytes; /* header and zeros included */
    uint64_t messages;   /* in the whole journal */
    uint64_t max_timestamp_ns;
    unsigned char *buffer; /* one record at a time */
    size_t buffer_bytes;
};

/* What a new file's header says of the journal so far. */
struct journal_start {
    uint64_t base;
    uint64_t previous_end;
    uint64_t durable;
    uint64_t messages;
    uint64_t max_timestamp_ns;
    bool unsynced; /* journal_begin(): the disk is promised nothing yet, see there */
};

/* The header of a file that is being made. Returns 0 or an errno. */
int journal_write_header(int fd, const struct journal_place *place,
                         const struct journal_start *start, uint64_t salt);

/* Creates the tmp file; one that an earlier process left is removed first. 0 or a negative error, and
 * then nothing is left. On success, journal_writer_close() in the end. */
int journal_writer_create(struct journal_writer *writer, const struct journal_place *place,
                          const struct journal_start *start, struct error_buffer *why);

/* One record: its whole body, RECORD_TYPE_META or _DATA. *ret_offset may be NULL. 0 or a negative
 * error. Not confirmed before journal_writer_sync() or _publish(). */
int journal_writer_append(struct journal_writer *writer, uint8_t type, const void *body,
                          uint32_t length, uint64_t timestamp_ns, uint64_t *ret_offset,
                          struct error_buffer *why);

/* Everything appended is on disk when it returns 0. */
int journal_writer_sync(struct journal_writer *writer, struct error_buffer *why);

/* The tmp file becomes the journal's newest. A failure before the rename leaves it as it was; behind
 * it, `failed` and `published` are set: on disk it may count or not, so the journal must go on in a
 * file beyond this one. */
int journal_writer_publish(struct journal_writer *writer, struct error_buffer *why);

/* Goes on in a new file: syncs this one, publishes the next, and is that one on success. */
int journal_writer_roll(struct journal_writer *writer, struct error_buffer *why);

/* Closes without syncing; removes a file that was not published. Legal where fd is -1. */
void journal_writer_close(struct journal_writer *writer);

/* First offset that no record of this file can have, now or after more filling up to now. */
uint64_t journal_writer_next_base(const struct journal_writer *writer);

/* Removes files below `base` (all that holds nothing any more) and all tmp files, then syncs the
 * directory. Returns 0 or the first error; the rest is done all the same. */
int journal_remove_below(const struct journal_place *place, uint64_t base,
                         struct error_buffer *why);

#endif
