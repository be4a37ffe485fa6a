/* SPDX-License-Identifier: Apache-2.0 */
/* journal_file.c: the window over one journal file; see journal_file.h. What comes out of the file is hostile: every
 * length is compared with what the file and the limit leave before it is used. */
#include "libshmq/journal_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libshmq/fault.h"

/* Large enough that a read costs little beside the checksums, small enough for a second-level cache. */
#define WINDOW_BYTES ((size_t)256 * 1024)

/* Records that do not hold overlap only where somebody made them up, which a client can inside a message: each place
 * claims all that is behind it, and checking them all would take hours. So once more bytes than real damage can
 * cost were checked in vain, only short records still count. */
#define WASTED_MAX(bytes) (4 * (bytes) + (UINT64_C(64) << 20))
#define SHORT_MAX         4096u

/* As much as there is; less only at the end of the file. */
static int read_at(int fd, unsigned char *to, size_t bytes, uint64_t position, size_t *ret_read,
                   struct error_buffer *why)
{
    size_t done = 0;

    if (FAULT("journal.file.read"))
        return error_set_errno(why, EIO, "journal: read");
    while (done < bytes) {
        ssize_t n = pread(fd, to + done, bytes - done, (off_t)(position + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(why, errno, "journal: read");
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *ret_read = done;
    return 0;
}

static int measure(int fd, uint64_t *ret_bytes, struct error_buffer *why)
{
    struct stat facts;

    if (fstat(fd, &facts) < 0)
        return error_set_errno(why, errno, "journal: fstat");
    *ret_bytes = facts.st_size > 0 ? (uint64_t)facts.st_size : 0;
    return 0;
}

int journal_file_open_as(struct journal_file *file, int fd, const struct journal_header *header,
                         uint32_t length_max, struct error_buffer *why)
{
    struct journal_file opened = {.header = *header, .fd = fd, .length_max = length_max};
    int rc = measure(fd, &opened.bytes, why);

    if (rc < 0)
        return rc;
    if (opened.bytes >= JOURNAL_OFFSET_MAX || header->base >= JOURNAL_OFFSET_MAX ||
        header->base % RECORD_UNIT)
        return error_set(why, SHMQ_ECORRUPT,
                         "damaged: the header contradicts itself; restore it from a backup");
    *file = opened;
    return 0;
}

int journal_file_open(struct journal_file *file, int fd, uint64_t base, uint32_t length_max,
                      struct error_buffer *why)
{
    struct journal_header image, header;
    uint64_t bytes = 0;
    size_t got = 0;
    int rc = measure(fd, &bytes, why);

    if (rc == 0)
        rc = read_at(fd, (unsigned char *)&image, sizeof(image), 0, &got, why);
    if (rc == 0)
        rc = journal_check_header(&image, got < sizeof(image) ? got : bytes, base, &header, why);
    return rc == 0 ? journal_file_open_as(file, fd, &header, length_max, why) : rc;
}

void journal_file_close(struct journal_file *file)
{
    free(file->window);
    *file = (struct journal_file){.fd = -1};
}

/* ---- the window ------------------------------------------------------------------------------ */

/* How many bytes of records stand at `offset`, up to `limit` and the end of the file. */
static uint64_t bytes_left(const struct journal_file *file, uint64_t offset, uint64_t limit)
{
    uint64_t in_file = file->bytes > JOURNAL_HEADER_BYTES ? file->bytes - JOURNAL_HEADER_BYTES : 0;
    uint64_t end = min_u64(file->header.base + in_file, limit);

    return end > offset ? end - offset : 0;
}

static int make_room(struct journal_file *file, size_t room, struct error_buffer *why)
{
    unsigned char *window;

    if (room <= file->room)
        return 0;
    /* Payloads lie in it as they do in a ring. */
    window = aligned_alloc(RECORD_UNIT, align_up_u64(room, RECORD_UNIT));
    if (!window)
        return error_set(why, SHMQ_ENOMEM, "journal: no memory for a record of %zu bytes", room);
    free(file->window);
    file->window = window;
    file->room = room;
    file->filled = 0;
    return 0;
}

/* Moves the window to `offset`, with at least `need` bytes in it unless the file ends before. */
static int fill(struct journal_file *file, uint64_t offset, uint64_t limit, size_t need,
                struct error_buffer *why)
{
    uint64_t left = bytes_left(file, offset, limit);
    size_t room = need > WINDOW_BYTES ? need : WINDOW_BYTES;
    size_t filled = 0;
    int rc = make_room(file, room, why);

    if (rc < 0)
        return rc;
    file->filled = 0;
    rc = read_at(file->fd, file->window, min_u64(left, room),
                 JOURNAL_HEADER_BYTES + (offset - file->header.base), &filled, why);
    if (rc < 0)
        return rc;
    file->from = offset;
    file->filled = filled;
    return 0;
}

/* What stands at `offset` is in the window, at least so many bytes of it. */
static bool holds(const struct journal_file *file, uint64_t offset, uint64_t bytes)
{
    return file->window && offset >= file->from && offset - file->from <= file->filled &&
           file->filled - (offset - file->from) >= bytes;
}

/* Of a record whose header is in the window. */
static uint32_t length_at(const struct journal_file *file, uint64_t offset)
{
    uint32_t length;

    memcpy(&length, file->window + (offset - file->from) + offsetof(struct record, length),
           sizeof(length));
    return length;
}

static enum journal_stop look_in_window(const struct journal_file *file, uint64_t offset,
                                        struct journal_record *ret_record)
{
    return journal_look_at(file->window, file->filled, offset - file->from, file->header.salt,
                           offset, ret_record);
}

static int say_none(struct journal_file *file, enum journal_stop stop)
{
    file->stop = stop;
    return JOURNAL_LOOK_NONE;
}

/* Brings the record at `offset`, or the first bytes of one, into the window. JOURNAL_LOOK_RECORD: look. */
static int bring(struct journal_file *file, uint64_t offset, uint64_t limit, uint64_t need,
                 unsigned flags, struct error_buffer *why)
{
    int rc;

    if (holds(file, offset, need))
        return JOURNAL_LOOK_RECORD;
    if (flags & JOURNAL_LOOK_STAY)
        return JOURNAL_LOOK_LATER;
    rc = fill(file, offset, limit, (size_t)need, why);
    if (rc < 0)
        return rc;
    /* Else the file is shorter than it was. */
    return holds(file, offset, need) ? JOURNAL_LOOK_RECORD : say_none(file, JOURNAL_STOP_END);
}

int journal_file_look(struct journal_file *file, uint64_t offset, uint64_t limit, unsigned flags,
                      struct journal_record *ret_record, struct error_buffer *why)
{
    uint64_t left = bytes_left(file, offset, limit);
    enum journal_stop stop;
    uint32_t length;
    int rc;

    if (offset < file->header.base || offset % RECORD_UNIT)
        return say_none(file, JOURNAL_STOP_END);
    if (left < RECORD_HEADER)
        return say_none(file, offset >= limit ? JOURNAL_STOP_LIMIT : JOURNAL_STOP_END);
    rc = bring(file, offset, limit, RECORD_HEADER, flags, why);
    if (rc != JOURNAL_LOOK_RECORD)
        return rc;
    length = length_at(file, offset);
    if (length > SHORT_MAX && file->wasted > WASTED_MAX(file->bytes))
        return say_none(file, JOURNAL_STOP_LENGTH);
    stop = look_in_window(file, offset, ret_record);
    if (stop == JOURNAL_STOP_LENGTH && length <= file->length_max &&
        RECORD_HEADER + (uint64_t)length <= left) {
        rc = bring(file, offset, limit, RECORD_HEADER + (uint64_t)length, flags, why);
        if (rc != JOURNAL_LOOK_RECORD)
            return rc;
        stop = look_in_window(file, offset, ret_record);
    }
    if (stop == JOURNAL_STOP_CRC)
        file->wasted += length;
    if (stop == JOURNAL_STOP_LIMIT &&
        (length > file->length_max || record_size(length) > limit - offset))
        stop = JOURNAL_STOP_LENGTH;
    return stop == JOURNAL_STOP_LIMIT ? JOURNAL_LOOK_RECORD : say_none(file, stop);
}

/* ---- finding --------------------------------------------------------------------------------- */

int journal_file_find(struct journal_file *file, uint64_t from, uint64_t limit,
                      struct journal_record *ret_record, struct error_buffer *why)
{
    uint64_t offset = align_up_u64(max_u64(from, file->header.base), RECORD_UNIT);

    for (;; offset += RECORD_UNIT) {
        int rc = journal_file_look(file, offset, limit, 0, ret_record, why);

        if (rc != JOURNAL_LOOK_NONE || file->stop == JOURNAL_STOP_END ||
            file->stop == JOURNAL_STOP_LIMIT)
            return rc;
    }
}
