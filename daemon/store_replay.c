/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a metadata journal at start: which files count, where each ends, what they say.
 *
 * Replay begins with the newest file that begins with a snapshot, or with the first file of all. Every
 * file but the newest must chain right up to where its successor says that it ended. The newest ends
 * where its chain breaks off: a torn tail if nothing behind it claims otherwise, damage if a record
 * further on says that more than that was confirmed. A snapshot without its end is damage too: a file
 * gets its name only when it is whole. Blocks on the disk; the control thread, at start, and tools.
 */
#include "daemon/store_internal.h"
#include "libshmq/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX (UINT64_C(1) << 31) /* metadata is read whole; more is not metadata */

struct store_file {
    uint64_t base;
    char name[JOURNAL_NAME_BYTES];
    unsigned char *image; /* NULL: not loaded */
    size_t bytes;
    struct journal_header header;
};

struct file_list {
    struct store_file *files; /* ascending by base */
    size_t count;
};

struct replay {
    const struct store_callbacks *callbacks;
    void *context;
    struct error_buffer *why;
    uint64_t records; /* since the snapshot began */
    bool in_snapshot; /* between its beginning and its end */
    bool first;       /* the next record is the file's first */
};

static int play_value(const struct replay *replay, const struct store_record *record)
{
    const struct store_callbacks *call = replay->callbacks;
    const union store_value *value = &record->value;

    switch (record->kind) {
    case STORE_PUT_TOPIC:
        return call->put_topic ? call->put_topic(replay->context, &value->topic) : 0;
    case STORE_DELETE_TOPIC:
        return call->delete_topic ? call->delete_topic(replay->context, value->ids.topic) : 0;
    case STORE_PUT_GROUP:
        return call->put_group ? call->put_group(replay->context, &value->group) : 0;
    case STORE_DELETE_GROUP:
        return call->delete_group
                   ? call->delete_group(replay->context, value->ids.topic, value->ids.group)
                   : 0;
    case STORE_PUT_MARK:
        return call->put_mark ? call->put_mark(replay->context, &value->mark) : 0;
    case STORE_PUT_CURSOR:
        return call->put_cursor ? call->put_cursor(replay->context, &value->cursor) : 0;
    case STORE_PUT_COUNTER:
        return call->put_counter ? call->put_counter(replay->context, value->ids.count) : 0;
    case STORE_SNAPSHOT_BEGIN:
    case STORE_SNAPSHOT_END:
        break;
    }
    return 0;
}

static int decode_record(const struct journal_record *record, struct store_record *ret_record,
                         struct error_buffer *why)
{
    if (record->type != RECORD_TYPE_META || record->key_length || record->headers_length)
        return error_set(
            why, SHMQ_EVERSION,
            "a record of type %u is no metadata of this shmqd; use the one that wrote it",
            record->type);
    return store_decode(record->payload, record->length, ret_record, why);
}

/* A journal_record_fn. */
static int play_record(void *context, const struct journal_record *journal_record)
{
    struct replay *replay = context;
    struct store_record record = {.confirmed = 0};
    bool first = replay->first;
    int rc = decode_record(journal_record, &record, replay->why);

    replay->first = false;
    if (rc < 0)
        return error_prefix(replay->why, rc, "offset %" PRIu64, journal_record->offset);
    if (record.kind == STORE_SNAPSHOT_BEGIN && !first)
        return error_set(replay->why, SHMQ_ECORRUPT,
                         "offset %" PRIu64 ": a snapshot in the middle of a file",
                         journal_record->offset);
    if (record.kind == STORE_SNAPSHOT_BEGIN) {
        replay->in_snapshot = true;
        replay->records = 0;
        return 0;
    }
    if (record.kind == STORE_SNAPSHOT_END) {
        if (!replay->in_snapshot || record.value.ids.count != replay->records)
            return error_set(replay->why, SHMQ_ECORRUPT,
                             "offset %" PRIu64 ": the end of a snapshot of %" PRIu64
                             " records, but there are %" PRIu64,
                             journal_record->offset, record.value.ids.count, replay->records);
        replay->in_snapshot = false;
        return 0;
    }
    replay->records++;
    return play_value(replay, &record);
}

static int refuse_gap(uint64_t end, const struct error_buffer *reason, struct error_buffer *why)
{
    return error_set(why, SHMQ_ECORRUPT,
                     "damaged at offset %" PRIu64 ": %s; restore the state directory from a backup",
                     end, reason->text);
}

/* The chain of the newest file broke off at `end`. Is that where the log ended? Every record behind it
 * is a witness: it was written when `confirmed` was safe. */
static int check_tail(const struct store_file *file, const struct journal_scan *scan,
                      struct replay *replay)
{
    uint64_t from = scan->end + RECORD_UNIT;
    struct error_buffer reason;
    char text[256];

    for (;;) {
        struct journal_record found;
        struct store_record record = {.confirmed = 0};

        if (!journal_find_record(file->image, file->bytes, &file->header, from, &found))
            break;
        if (found.padding || decode_record(&found, &record, NULL) < 0 ||
            record.confirmed > scan->end) {
            (void)error_set(&reason, 0, "the record at %" PRIu64 " behind it is whole",
                            found.offset);
            return refuse_gap(scan->end, &reason, replay->why);
        }
        from = found.offset + record_size(found.length);
    }
    if (replay->in_snapshot) {
        (void)error_set(&reason, 0, "the snapshot has no end");
        return refuse_gap(scan->end, &reason, replay->why);
    }
    if (scan->stop != JOURNAL_STOP_ZERO && scan->stop != JOURNAL_STOP_END &&
        replay->callbacks->warn) {
        (void)snprintf(text, sizeof(text),
                       "metadata %s: a torn record at offset %" PRIu64
                       " was dropped: it had not been confirmed",
                       file->name, scan->end);
        replay->callbacks->warn(replay->context, text);
    }
    return 0;
}

/* `limit`: where the next file says that this one ended; UINT64_MAX for the newest. */
static int play_file(const struct store_file *file, uint64_t limit, struct replay *replay,
                     struct journal_scan *ret_scan)
{
    struct error_buffer reason;
    int rc;

    replay->first = true;
    rc = journal_scan(file->image, file->bytes, &file->header, file->base, limit, play_record,
                      replay, ret_scan);
    if (rc != 0)
        return rc;
    if (limit == UINT64_MAX)
        return check_tail(file, ret_scan, replay);
    if (ret_scan->end != limit || replay->in_snapshot) {
        (void)error_set(&reason, 0, "it should go on to %" PRIu64, limit);
        return refuse_gap(ret_scan->end, &reason, replay->why);
    }
    return 0;
}

int store_replay_image(const void *image, size_t bytes, uint64_t base,
                       const struct store_callbacks *callbacks, void *context,
                       struct error_buffer *why)
{
    struct store_file file = {.base = base, .bytes = bytes};
    struct replay replay = {.callbacks = callbacks, .context = context, .why = why};
    struct journal_scan scan;
    int rc = journal_check_header(image, bytes, base, &file.header, why);

    if (rc < 0)
        return rc;
    journal_format_name(base, file.name);
    file.image = (unsigned char *)(uintptr_t)image; /* only read; the list's images are its own */
    return play_file(&file, UINT64_MAX, &replay, &scan);
}

/* ---- Files -------------------------------------------------------------------------------------- */

static int compare_files(const void *a, const void *b)
{
    const struct store_file *first = a;
    const struct store_file *second = b;

    return first->base < second->base ? -1 : first->base > second->base;
}

static void free_list(struct file_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->files[i].image);
    free(list->files);
}

static int add_file(struct file_list *list, const char *name, uint64_t base)
{
    struct store_file file = {.base = base};
    struct store_file *larger = realloc(list->files, (list->count + 1) * sizeof(file));

    if (!larger)
        return ENOMEM;
    memcpy(file.name, name, strlen(name) + 1);
    list->files = larger;
    list->files[list->count++] = file;
    return 0;
}

static int list_files(const struct journal_place *place, struct file_list *list,
                      struct error_buffer *why)
{
    int fd = openat(place->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int error = dir ? 0 : errno;

    while (dir && error == 0) {
        uint64_t base;

        errno = 0;
        entry = readdir(dir);
        if (!entry) {
            error = errno;
            break;
        }
        if (journal_parse_name(entry->d_name, &base))
            error = add_file(list, entry->d_name, base);
    }
    if (dir)
        (void)closedir(dir);
    else
        cleanup_close(&fd);
    if (error)
        return error_set_errno(why, error, "listing it");
    if (list->count)
        qsort(list->files, list->count, sizeof(list->files[0]), compare_files);
    return 0;
}

/* Returns 0 or an errno. Shorter than fstat() said is an error of the disk. */
static int read_image(int fd, struct store_file *file)
{
    size_t done = 0;

    file->image = malloc(file->bytes ? file->bytes : 1);
    if (!file->image)
        return ENOMEM;
    while (done < file->bytes) {
        ssize_t got = pread(fd, file->image + done, file->bytes - done, (off_t)done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : EIO;
        done += (size_t)got;
    }
    return 0;
}

static int load_file(const struct journal_place *place, struct store_file *file,
                     struct error_buffer *why)
{
    CLEANUP_CLOSE int fd =
        openat(place->dir_fd, file->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat status;
    int error = 0;

    if (fd < 0 || fstat(fd, &status) < 0)
        return error_set_errno(why, errno, "opening it");
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > FILE_BYTES_MAX)
        return error_set(why, SHMQ_ECORRUPT,
                         "not a metadata file: no regular file, or larger than 2G; move it away");
    file->bytes = (size_t)status.st_size;
    error = read_image(fd, file);
    if (error)
        return error_set_errno(why, error, "reading it");
    return journal_check_header(file->image, file->bytes, file->base, &file->header, why);
}

static bool begins_with_snapshot(const struct store_file *file)
{
    struct journal_record found;
    struct store_record record = {.confirmed = 0};

    return journal_find_record(file->image, file->bytes, &file->header, file->base, &found) &&
           found.offset == file->base && decode_record(&found, &record, NULL) == 0 &&
           record.kind == STORE_SNAPSHOT_BEGIN;
}

static int refuse_missing(const struct store_file *after, struct error_buffer *why)
{
    return error_set(why, SHMQ_ECORRUPT,
                     "%s: the file before it, up to offset %" PRIu64
                     ", is missing; restore the state directory from a backup",
                     after->name, after->header.previous_end);
}

/* Could the log have ended there, and `after` have begun then? */
static bool is_predecessor(const struct store_file *file, const struct store_file *after)
{
    uint64_t end = after->header.previous_end;

    return end >= file->base &&
           end - file->base <= file->bytes - JOURNAL_HEADER_BYTES + RECORD_UNIT;
}

/* Loads from the newest back to where replay begins. */
static int load_chain(const struct journal_place *place, struct file_list *list, size_t *ret_first,
                      struct error_buffer *why)
{
    for (size_t i = list->count; i-- > 0;) {
        struct store_file *file = &list->files[i];
        int rc = load_file(place, file, why);

        if (rc < 0)
            return error_prefix(why, rc, "%s", file->name);
        if (i + 1 < list->count && !is_predecessor(file, file + 1))
            return refuse_missing(file + 1, why);
        *ret_first = i;
        if (begins_with_snapshot(file) || (i == 0 && file->base == 0))
            return 0;
        if (i == 0)
            return refuse_missing(file, why);
    }
    return 0;
}

/* Beyond what is written and what was only filled. */
static uint64_t base_behind(const struct store_file *file, uint64_t end)
{
    return max_u64(end, file->base + align_up_u64(file->bytes, RECORD_UNIT));
}

static int play_chain(const struct file_list *list, size_t first, struct replay *replay,
                      struct store_history *history)
{
    for (size_t i = first; i < list->count; i++) {
        const struct store_file *file = &list->files[i];
        bool newest = i + 1 == list->count;
        struct journal_scan scan;
        int rc = play_file(file, newest ? UINT64_MAX : list->files[i + 1].header.previous_end,
                           replay, &scan);

        if (rc != 0)
            return rc < 0 ? error_prefix(replay->why, rc, "%s", file->name) : rc;
        history->end = scan.end;
        history->next_base = base_behind(file, scan.end);
        history->messages = file->header.messages + scan.records;
        history->max_timestamp_ns = max_u64(file->header.max_timestamp_ns, scan.max_timestamp_ns);
        history->bytes += scan.end - file->base;
    }
    return 0;
}

int store_replay(const struct journal_place *place, const struct store_callbacks *callbacks,
                 void *context, struct store_history *ret_history, struct error_buffer *why)
{
    struct replay replay = {.callbacks = callbacks, .context = context, .why = why};
    struct store_history history = {.end = 0};
    struct file_list list = {.count = 0};
    size_t first = 0;
    int rc = list_files(place, &list, why);

    if (rc == 0)
        rc = load_chain(place, &list, &first, why);
    if (rc == 0)
        rc = play_chain(&list, first, &replay, &history);
    free_list(&list);
    if (rc < 0)
        return error_prefix(why, rc, "metadata %.200s", place->dir);
    if (rc == 0)
        *ret_history = history;
    return rc;
}
