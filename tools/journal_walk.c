/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in a file, in the order of the log; see journal.h.
 *
 * Where the log ended in a file is what the next one's header says (previous_end); without a next one it ended
 * where the last record that holds ends. What does not hold below that end belongs to the log and is lost; what
 * stands above it does not count.
 */
#include "tools/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "libshmq/clock.h"

#define CHUNK_BYTES    ((size_t)1 << 18)
#define SETTLE_NS      (20 * NS_PER_MS)
#define UNSETTLED_NONE UINT64_MAX

struct walk {
    const struct history *history;
    const struct history_file *item;
    size_t index;
    history_event_fn *fn;
    void *context;
    struct error_buffer *why;
    struct journal_file file;
    int fd;
    uint64_t at;
    uint64_t limit;     /* where the log ended in this file; UINT64_MAX: it is the newest */
    uint64_t next_base; /* UINT64_MAX: it is the newest */
    uint64_t room_end;  /* offset at the end of the file */
    bool end_known;     /* there is a next file, and its header holds */
    uint64_t settled;   /* looked at again: offset of a break in the newest file */
};

static int emit(struct walk *walk, enum history_event_kind kind, uint64_t offset, uint64_t length,
                enum journal_stop stop)
{
    struct history_event event = {
        .kind = kind, .index = walk->index, .offset = offset, .length = length, .stop = stop};

    return length > 0 ? walk->fn(walk->context, &event) : 0;
}

static int emit_record(struct walk *walk, const struct journal_record *record)
{
    struct history_event event = {.kind = HISTORY_RECORD,
                                  .index = walk->index,
                                  .offset = record->offset,
                                  .length = record_size(record->length),
                                  .record = record};

    return walk->fn(walk->context, &event);
}

static int open_walk(struct walk *walk)
{
    struct journal_header header = history_header(walk->item);

    return journal_file_open_as(&walk->file, walk->fd, &header, UINT32_MAX, walk->why);
}

static bool is_zero(const unsigned char *bytes, size_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* Offset behind the last byte of the file that is not zero, rounded up; `from` if all are. */
static int find_last_byte(struct walk *walk, uint64_t from, uint64_t *ret_end)
{
    CLEANUP_FREE unsigned char *chunk = tool_alloc(CHUNK_BYTES);
    uint64_t offset = from;

    *ret_end = from;
    while (offset < walk->room_end) {
        ssize_t got = pread(walk->fd, chunk, CHUNK_BYTES,
                            (off_t)(JOURNAL_HEADER_BYTES + offset - walk->item->entry.base));

        if (got < 0)
            return error_set_errno(walk->why, errno, "%s: reading it", walk->item->name);
        if (got == 0)
            break;
        if (!is_zero(chunk, (size_t)got)) {
            size_t last = (size_t)got;

            while (chunk[last - 1] == 0)
                last--;
            *ret_end = offset + align_up_u64(last, RECORD_UNIT);
        }
        offset += (uint64_t)got;
    }
    return 0;
}

/* Behind the newest file's last record: zeros, or what was being written. */
static int end_newest(struct walk *walk, enum journal_stop stop)
{
    uint64_t end;
    int rc = find_last_byte(walk, walk->at, &end);

    return rc < 0 ? rc : emit(walk, HISTORY_TORN, walk->at, end - walk->at, stop);
}

/* Nothing holds any more up to where the log ended. */
static int end_short(struct walk *walk, enum journal_stop stop)
{
    enum history_event_kind kind = HISTORY_LOST;
    uint64_t from = walk->at;

    if (!walk->end_known)
        kind = HISTORY_UNCLEAR;
    else if (walk->limit > walk->room_end)
        kind = HISTORY_MISSING;
    walk->at = walk->limit;
    return emit(walk, kind, from, walk->limit - from, stop);
}

/* A writer may be just there: the first look may have met a page before it was written, and the second the next
 * one after. What is damaged stays so. */
static int settle(struct walk *walk)
{
    const struct timespec pause = timespec_from_ns(SETTLE_NS);

    walk->settled = walk->at;
    (void)nanosleep(&pause, NULL);
    journal_file_close(&walk->file);
    return open_walk(walk);
}

/* No record holds at walk->at. *ret_done: none behind it either. */
static int pass_break(struct walk *walk, bool *ret_done)
{
    enum journal_stop stop = walk->file.stop;
    struct journal_record found;
    uint64_t from = walk->at;
    int rc = journal_file_find(&walk->file, walk->at + RECORD_UNIT, walk->limit, &found, walk->why);

    if (rc < 0)
        return rc;
    if (rc == JOURNAL_LOOK_RECORD) {
        if (walk->next_base == UINT64_MAX && walk->settled != walk->at)
            return settle(walk);
        walk->at = found.offset;
        return emit(walk, HISTORY_LOST, from, found.offset - from, stop);
    }
    *ret_done = true;
    return walk->next_base == UINT64_MAX ? end_newest(walk, stop) : end_short(walk, stop);
}

static int walk_log(struct walk *walk)
{
    bool done = false;
    int rc = 0;

    while (rc == 0 && !done && walk->at < walk->limit) {
        struct journal_record record;

        rc = journal_file_look(&walk->file, walk->at, walk->limit, 0, &record, walk->why);
        if (rc == JOURNAL_LOOK_RECORD) {
            rc = emit_record(walk, &record);
            walk->at = journal_record_end(&record);
        } else if (rc == JOURNAL_LOOK_NONE) {
            rc = pass_break(walk, &done);
        }
    }
    return rc;
}

/* What stands above the log's end in a file that has a successor. */
static int walk_rest(struct walk *walk)
{
    uint64_t end = walk->limit;
    struct journal_record record;
    int rc = 0;

    if (!walk->end_known)
        return 0;
    if (walk->limit < walk->next_base) {
        if (walk->limit < walk->room_end)
            rc = find_last_byte(walk, walk->limit, &end);
        if (rc == 0)
            rc = emit(walk, HISTORY_TORN, walk->limit, end - walk->limit, JOURNAL_STOP_STAMP);
        if (rc == 0)
            rc = emit(walk, HISTORY_JUMP, walk->limit, walk->next_base - walk->limit,
                      JOURNAL_STOP_LIMIT);
        return rc;
    }
    while ((rc = journal_file_look(&walk->file, end, UINT64_MAX, 0, &record, walk->why)) ==
           JOURNAL_LOOK_RECORD)
        end = journal_record_end(&record);
    return rc < 0 ? rc
                  : emit(walk, HISTORY_OVERLAP, walk->limit, end - walk->limit, JOURNAL_STOP_LIMIT);
}

static void bound_walk(struct walk *walk)
{
    const struct history *history = walk->history;
    uint64_t base = walk->item->entry.base;
    uint64_t bytes = walk->item->entry.bytes;
    size_t next = history_next(history, walk->index);

    walk->limit = walk->next_base = UINT64_MAX;
    walk->room_end = base + (bytes > JOURNAL_HEADER_BYTES ? bytes - JOURNAL_HEADER_BYTES : 0) /
                                RECORD_UNIT * RECORD_UNIT;
    if (next == history->count)
        return;
    walk->limit = walk->next_base = history->files[next].entry.base;
    walk->end_known = !history->files[next].entry.damaged;
    if (walk->end_known)
        walk->limit = max_u64(base, history->files[next].entry.previous_end);
}

/* Starts at the first record at or above `from`. */
static int skip_to(struct walk *walk, uint64_t from)
{
    struct journal_record record;
    int rc;

    walk->at = walk->item->entry.base;
    if (from <= walk->at)
        return 0;
    from = align_up_u64(min_u64(from, JOURNAL_OFFSET_MAX), RECORD_UNIT);
    rc = journal_file_find(&walk->file, from, walk->limit, &record, walk->why);
    if (rc < 0)
        return rc;
    walk->at = rc == JOURNAL_LOOK_RECORD ? record.offset : walk->limit;
    return 0;
}

static bool is_gone(const struct history *history, const char *name)
{
    struct stat status;

    return fstatat(history->fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

int history_walk(const struct history *history, size_t index, uint64_t from, history_event_fn *fn,
                 void *context, struct error_buffer *why)
{
    struct walk walk = {
        .history = history,
        .item = &history->files[index],
        .index = index,
        .fn = fn,
        .context = context,
        .why = why,
        .settled = UNSETTLED_NONE,
    };
    struct history_event gone = {.kind = HISTORY_GONE, .index = index};
    int rc;

    bound_walk(&walk);
    walk.at = walk.item->entry.base;
    if (!walk.item->readable)
        return emit(&walk, HISTORY_UNCLEAR, walk.at, min_u64(walk.limit, walk.room_end) - walk.at,
                    JOURNAL_STOP_STAMP);
    walk.fd = history_open_file(history, index, why);
    if (walk.fd < 0)
        return is_gone(history, walk.item->name) ? fn(context, &gone) : walk.fd;
    rc = open_walk(&walk);
    if (rc == 0)
        rc = skip_to(&walk, from);
    if (rc == 0)
        rc = walk_log(&walk);
    if (rc == 0 && walk.next_base != UINT64_MAX)
        rc = walk_rest(&walk);
    journal_file_close(&walk.file);
    (void)close(walk.fd);
    return rc;
}

const char *history_stop_text(enum journal_stop stop)
{
    switch (stop) {
    case JOURNAL_STOP_ZERO:
        return "zeros where a record should stand";
    case JOURNAL_STOP_END:
        return "the file ends where a record should stand";
    case JOURNAL_STOP_STAMP:
        return "no stamp of this offset";
    case JOURNAL_STOP_LENGTH:
        return "a record whose length does not fit";
    case JOURNAL_STOP_CRC:
        return "a record whose checksum is wrong";
    case JOURNAL_STOP_LIMIT:
        break;
    }
    return "nothing wrong";
}

/* ---- sums --------------------------------------------------------------------------------------- */

static int add_to_sum(void *context, const struct history_event *event)
{
    struct history_sum *sum = context;
    const struct journal_record *record = event->record;

    if (event->kind == HISTORY_LOST || event->kind == HISTORY_MISSING)
        sum->lost_bytes += event->length;
    if (event->kind != HISTORY_RECORD)
        return 0;
    sum->end = event->offset + event->length;
    if (record->padding) {
        sum->padding++;
        return 0;
    }
    sum->messages++;
    if (sum->first_timestamp_ns == 0)
        sum->first_timestamp_ns = record->timestamp_ns;
    sum->max_timestamp_ns = max_u64(sum->max_timestamp_ns, record->timestamp_ns);
    return 0;
}

int history_sum(const struct history *history, size_t index, struct history_sum *ret_sum,
                struct error_buffer *why)
{
    *ret_sum = (struct history_sum){.end = history->files[index].entry.base};
    return history_walk(history, index, 0, add_to_sum, ret_sum, why);
}
