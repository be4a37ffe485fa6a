/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_file.h: one journal file, read record by record through a private window.
 *
 * The file is read with pread into a buffer of this process, never mapped: a file that is unlinked, cut short
 * or written on meanwhile can fail a read, but never the process. The format stands in journal_read.h; this
 * adds the window, so that a file of 64 MiB costs 256 KiB of memory (more only for a record that is longer).
 * For consumers that read history and for tools; needs no connection, no directory and no supervisor.
 *
 *     journal_file_open(&file, fd, base, UINT32_MAX, why)
 *     for (uint64_t at = base;;) {
 *         rc = journal_file_look(&file, at, limit, 0, &record, why)
 *         rc == JOURNAL_LOOK_RECORD:  use it; at = journal_record_end(&record); goes on
 *         rc == JOURNAL_LOOK_NONE:    file.stop says why: LIMIT, END and ZERO end it;
 *                                     else damage: journal_file_find() goes on behind it
 *         rc < 0:                     an error of the system
 *     }
 *     journal_file_close(&file)
 *
 * The bound. A file is valid up to the next file's base, and the newest one up to `durable` (or, with nobody
 * writing, as far as its records chain). Pass that as `limit`: nothing at or above it is even read, so that no
 * byte that is still being written gets into the window, and a limit that has grown is read afresh.
 *
 * One thread at a time. Blocks on the disk. If the process dies here nothing is owed: nothing is written.
 */
#ifndef SHMQ_JOURNAL_FILE_H
#define SHMQ_JOURNAL_FILE_H

#include "libshmq/error.h"
#include "libshmq/journal_read.h"
#include "libshmq/record.h"

struct journal_file {
    struct journal_header header;
    uint64_t bytes;         /* of the whole file, when it was opened */
    enum journal_stop stop; /* after JOURNAL_LOOK_NONE: why */

    unsigned char *window; /* the bytes of offsets [from, from + filled) */
    size_t room;
    size_t filled;
    uint64_t from;
    uint64_t wasted; /* bytes that were checked in vain */
    uint32_t length_max;
    int fd; /* the caller's */
};

enum journal_look {
    JOURNAL_LOOK_RECORD = 0, /* one holds, and is in *ret_record */
    JOURNAL_LOOK_NONE = 1,   /* none does; journal_file.stop says why */
    JOURNAL_LOOK_LATER =
        2, /* JOURNAL_LOOK_STAY: it is not wholly in the window; look again without */
};

/* Leaves the window where it is: records that were returned since the last look without this flag stay valid. */
#define JOURNAL_LOOK_STAY 1u

/* Reads and checks the header. `fd` stays the caller's: open until journal_file_close(), and closed by it. `base`
 * is the one in the file's name. Records with more than `length_max` bytes behind their header count as damaged
 * (UINT32_MAX: only what does not fit into the file): a bound on memory. 0; SHMQ_ECORRUPT, SHMQ_EVERSION (see
 * journal_check_header()), or an error of the system; then there is nothing to close. */
int journal_file_open(struct journal_file *file, int fd, uint64_t base, uint32_t length_max,
                      struct error_buffer *why);

/* The same with a header that is known otherwise, for a file whose own is damaged: base and salt count. */
int journal_file_open_as(struct journal_file *file, int fd, const struct journal_header *header,
                         uint32_t length_max, struct error_buffer *why);

/* Frees the window; every record becomes invalid. A zeroed file is fine, and so is calling it twice. */
void journal_file_close(struct journal_file *file);

/* Looks at `offset` (a multiple of RECORD_UNIT, not below the base): stamp, length, crc. Padding is returned as
 * well (record.padding). The record's payload points into the window: valid until the next look that may move it.
 * An enum journal_look; or SHMQ_ENOMEM, SHMQ_EIO or another error of the system: records are invalid, look again. */
int journal_file_look(struct journal_file *file, uint64_t offset, uint64_t limit, unsigned flags,
                      struct journal_record *ret_record, struct error_buffer *why);

/* The first record at or above `from` that holds, chained or not; padding too. JOURNAL_LOOK_RECORD,
 * JOURNAL_LOOK_NONE (up to the limit or the end of the file there is none), or an error. May read the whole
 * file. */
int journal_file_find(struct journal_file *file, uint64_t from, uint64_t limit,
                      struct journal_record *ret_record, struct error_buffer *why);

/* Where the next record stands. */
static inline uint64_t journal_record_end(const struct journal_record *record)
{
    return record->offset + record_size(record->length);
}

#endif
