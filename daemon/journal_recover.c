/* SPDX-License-Identifier: Apache-2.0 */
/* The scan after a host crash: where did the log end, and what of it cannot be read? See journal.h. */
#include "daemon/io.h"
#include "daemon/journal_internal.h"
#include "libshmq/fault.h"
#include "libshmq/journal_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define PAGE_BYTES UINT64_C(4096) /* what a disk fails to read at least */

/* What one file holds. */
struct file_scan {
    uint64_t end; /* behind the last record that holds; the file's base if there is none */
    uint64_t messages;
    uint64_t max_timestamp_ns;
    bool torn; /* something that is no record stands at `end` */
};

static void note_damage(struct journal_history *history, uint64_t from, uint64_t to)
{
    if (to <= from)
        return;
    history->damaged_bytes += to - from;
    history->damaged_at = min_u64(history->damaged_at, from);
}

/* Follows the chain from the file's base up to `limit`, over gaps. */
static int scan_records(struct journal_file *file, uint64_t limit, struct file_scan *scan,
                        struct journal_history *history, struct error_buffer *why)
{
    for (;;) {
        struct journal_record record;
        int rc = journal_file_look(file, scan->end, limit, 0, &record, why);

        if (rc == JOURNAL_LOOK_NONE) {
            if (file->stop == JOURNAL_STOP_LIMIT || file->stop == JOURNAL_STOP_END)
                return 0;
            scan->torn = file->stop != JOURNAL_STOP_ZERO;
            rc = journal_file_find(file, scan->end + RECORD_UNIT, limit, &record, why);
            if (rc == JOURNAL_LOOK_NONE)
                return 0;
        }
        if (rc < 0)
            return rc;
        note_damage(history, scan->end, record.offset);
        scan->torn = false;
        scan->end = journal_record_end(&record);
        scan->messages += !record.padding;
        scan->max_timestamp_ns = max_u64(scan->max_timestamp_ns, record.timestamp_ns);
    }
}

/* ---- A disk that cannot read all of it ------------------------------------------------------------- */

/* The file as far as the disk gives it, zeros where it does not. *ret_lost: behind the last page that is lost; 0:
 * none is. 0 or an errno. */
static int read_pages(int fd, unsigned char *image, uint64_t bytes, uint64_t *ret_lost)
{
    for (uint64_t at = 0; at < bytes; at += PAGE_BYTES) {
        size_t length = (size_t)min_u64(PAGE_BYTES, bytes - at);
        size_t got = 0;
        int error = io_read(fd, image + at, length, at, &got);

        if (error && error != EIO)
            return error;
        if (error == EIO || got < length) {
            memset(image + at, 0, length);
            *ret_lost = at + length;
        }
    }
    return 0;
}

/* A journal_record_fn. */
static int count_record(void *context, const struct journal_record *record)
{
    struct file_scan *scan = context;

    scan->messages++;
    scan->max_timestamp_ns = max_u64(scan->max_timestamp_ns, record->timestamp_ns);
    return 0;
}

/* scan_records() over an image in memory. What is lost at the end was something, and the log ends behind it. */
static void scan_image(const unsigned char *image, uint64_t bytes, uint64_t lost,
                       const struct journal_header *header, uint64_t limit, struct file_scan *scan,
                       struct journal_history *history)
{
    struct journal_record found = {.offset = scan->end};
    uint64_t behind_lost;
    bool more = true;

    while (more && found.offset < limit) {
        struct journal_scan part;

        note_damage(history, scan->end, found.offset);
        (void)journal_scan(image, bytes, header, found.offset, limit, count_record, scan, &part);
        scan->end = part.end;
        more = part.stop != JOURNAL_STOP_LIMIT && part.stop != JOURNAL_STOP_END &&
               journal_find_record(image, bytes, header, scan->end + RECORD_UNIT, &found);
    }
    behind_lost = header->base + align_up_u64(max_u64(lost, JOURNAL_HEADER_BYTES), RECORD_UNIT) -
                  JOURNAL_HEADER_BYTES;
    behind_lost = min_u64(behind_lost, limit);
    if (lost && behind_lost > scan->end) {
        note_damage(history, scan->end, behind_lost);
        scan->end = behind_lost;
    }
}

/* The whole file in memory, page by page: slow, and rare. */
static int scan_pages(int fd, const struct journal_entry *entry, uint64_t limit,
                      struct file_scan *scan, struct journal_history *history,
                      struct error_buffer *why)
{
    unsigned char *image = malloc(entry->bytes + 1);
    struct journal_header header = {.base = entry->base, .salt = entry->salt};
    uint64_t lost = 0;
    int error = image ? read_pages(fd, image, entry->bytes, &lost) : ENOMEM;

    if (error == 0)
        scan_image(image, entry->bytes, lost, &header, limit, scan, history);
    free(image);
    return error ? error_set_errno(why, error, "reading it page by page") : 0;
}

/* ---- Files ------------------------------------------------------------------------------------------ */

/* entries[index], whose header is whole. `limit`: where its successor says that it ended. */
static int scan_file(struct journal *journal, size_t index, uint64_t limit,
                     struct file_scan *ret_scan, struct journal_history *history,
                     struct error_buffer *why)
{
    const struct journal_entry *entry = &journal->entries[index];
    struct journal_header header = {.base = entry->base, .salt = entry->salt};
    struct journal_history before = *history;
    struct journal_file file = {.fd = -1};
    CLEANUP_CLOSE int fd = -1;
    int rc = journal_open_file(journal, entry->base, &fd, why);

    *ret_scan = (struct file_scan){.end = entry->base};
    if (rc < 0)
        return rc;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    rc = journal_file_open_as(&file, fd, &header, UINT32_MAX, why);
    if (rc == 0)
        rc = scan_records(&file, limit, ret_scan, history, why);
    journal_file_close(&file);
    if (rc == SHMQ_EIO) {
        *history = before;
        *ret_scan = (struct file_scan){.end = entry->base};
        rc = scan_pages(fd, entry, limit, ret_scan, history, why);
    }
    history->scanned_bytes += entry->bytes;
    FAULT("journal.recover.scanned");
    return rc < 0 ? error_prefix(why, rc, "journal %.200s: file of offset %" PRIu64,
                                 journal->place.dir, entry->base)
                  : 0;
}

/* Where the records of a file can end at the latest. */
static uint64_t room_end(const struct journal_entry *entry)
{
    uint64_t bytes = max_u64(entry->bytes, JOURNAL_HEADER_BYTES) - JOURNAL_HEADER_BYTES;

    return entry->base + align_up_u64(bytes, RECORD_UNIT);
}

/* The file before the newest: all of it is expected, up to where the newest says that it ended. */
static int scan_before(struct journal *journal, size_t index, struct journal_history *history,
                       struct error_buffer *why)
{
    uint64_t limit =
        max_u64(journal->entries[index + 1].previous_end, journal->entries[index].base);
    struct file_scan scan;
    int rc = scan_file(journal, index, limit, &scan, history, why);

    if (rc == 0)
        note_damage(history, scan.end, limit);
    return rc;
}

/* The newest whose header is whole; `count` if there is none. */
static size_t find_whole(const struct journal *journal)
{
    for (size_t i = journal->count; i-- > 0;) {
        if (!journal->entries[i].damaged)
            return i;
    }
    return journal->count;
}

static int scan_newest(struct journal *journal, size_t index, struct journal_history *history,
                       struct error_buffer *why)
{
    const struct journal_entry *entry = &journal->entries[index];
    bool newest = index + 1 == journal->count;
    struct file_scan scan;
    int rc = scan_file(journal, index, newest ? UINT64_MAX : entry[1].base, &scan, history, why);

    if (rc < 0)
        return rc;
    history->messages = entry->messages + scan.messages;
    history->max_timestamp_ns = max_u64(entry->max_timestamp_ns, scan.max_timestamp_ns);
    history->end = scan.end;
    if (newest && scan.torn)
        history->torn_at = scan.end;
    return 0;
}

int journal_recover(struct journal *journal, bool two_files, struct journal_history *ret_history,
                    struct error_buffer *why)
{
    struct journal_history history = {
        .empty = journal->count == 0,
        .next_base = journal->bound,
        .damaged_at = UINT64_MAX,
        .torn_at = UINT64_MAX,
    };
    size_t whole = find_whole(journal);
    int rc = 0;

    if (two_files && whole > 0 && whole + 1 == journal->count &&
        !journal->entries[whole - 1].damaged)
        rc = scan_before(journal, whole - 1, &history, why);
    if (rc == 0 && whole < journal->count)
        rc = scan_newest(journal, whole, &history, why);
    if (rc < 0)
        return rc;
    /* Of those above nobody knows how far they went: all of them counts, until they are repaired. */
    for (size_t i = whole < journal->count ? whole + 1 : 0; i < journal->count; i++) {
        uint64_t end = room_end(&journal->entries[i]);

        if (i + 1 < journal->count)
            end = min_u64(end, journal->entries[i + 1].base);
        note_damage(&history, journal->entries[i].base, end);
        history.end = max_u64(history.end, end);
    }
    history.next_base = max_u64(history.next_base, align_up_u64(history.end, RECORD_UNIT));
    *ret_history = history;
    return 0;
}
