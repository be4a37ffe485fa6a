/* SPDX-License-Identifier: Apache-2.0 */
/* Writing journal files; see journal_write.h for the rules and their reasons. */
#include "daemon/journal_write.h"

#include "daemon/io.h"
#include "libshmq/fault.h"
#include "libshmq/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define TMP_SUFFIX ".tmp"

/* The last error of the device shows up here or nowhere. */
static int sync_data(int fd)
{
    if (FAULT("journal.sync.failed"))
        return EIO;
    return io_sync(fd);
}

static int sync_directory(int dir_fd)
{
    if (FAULT("journal.syncdir.failed"))
        return EIO;
    return io_sync_dir(dir_fd);
}

static int report(const struct journal_writer *writer, int error_number, const char *doing,
                  struct error_buffer *why)
{
    return error_set_errno(why, error_number, "journal %.200s/%s: %s at offset %llu",
                           writer->place.dir, writer->name, doing, (unsigned long long)writer->end);
}

/* Zeros up to `file_bytes` or more, so that appends find blocks and length in place, and a chain ends
 * in zeros. A failure leaves at most more zeros. */
static int fill_ahead(struct journal_writer *writer, uint64_t file_bytes)
{
    static const unsigned char ZEROS[JOURNAL_FILL_BYTES];

    while (writer->file_bytes < file_bytes) {
        int error;

        if (FAULT("journal.fill.nospace"))
            return ENOSPC;
        error = io_write(writer->fd, ZEROS, sizeof(ZEROS), writer->file_bytes);
        if (error)
            return error;
        writer->file_bytes += sizeof(ZEROS);
    }
    return 0;
}

int journal_write_header(int fd, const struct journal_place *place,
                         const struct journal_start *start, uint64_t salt)
{
    struct journal_header header;

    memset(&header, 0, sizeof(header));
    header.base = start->base;
    header.salt = salt;
    header.previous_end = start->previous_end;
    header.durable = start->durable;
    header.max_timestamp_ns = start->max_timestamp_ns;
    header.messages = start->messages;
    header.topic = place->topic;
    header.partition = place->partition;
    journal_seal_header(&header);
    return io_write(fd, &header, sizeof(header), 0);
}

static int make_file(struct journal_writer *writer, const struct journal_start *start)
{
    int error = io_unlink(writer->place.dir_fd, writer->name);

    if (error && error != ENOENT)
        return error;
    if (FAULT("journal.create.nospace"))
        return ENOSPC;
    error = io_open(writer->place.dir_fd, writer->name, O_RDWR | O_CREAT | O_EXCL, &writer->fd);
    if (error)
        return error;
    error = journal_write_header(writer->fd, &writer->place, start, writer->salt);
    writer->file_bytes = JOURNAL_HEADER_BYTES;
    FAULT("journal.create.header");
    return error ? error : fill_ahead(writer, JOURNAL_HEADER_BYTES + JOURNAL_FILL_BYTES);
}

int journal_writer_create(struct journal_writer *writer, const struct journal_place *place,
                          const struct journal_start *start, struct error_buffer *why)
{
    int error;

    memset(writer, 0, sizeof(*writer));
    writer->place = *place;
    writer->fd = -1;
    writer->base = writer->end = writer->durable = start->base;
    writer->messages = start->messages;
    writer->max_timestamp_ns = start->max_timestamp_ns;
    journal_format_name(start->base, writer->name);
    memcpy(strrchr(writer->name, '.'), TMP_SUFFIX, sizeof(TMP_SUFFIX));
    if (start->base >= JOURNAL_OFFSET_MAX || start->base % RECORD_UNIT)
        return error_set(why, SHMQ_EINVAL, "journal %.200s: no file can begin at offset %llu",
                         place->dir, (unsigned long long)start->base);
    if (getrandom(&writer->salt, sizeof(writer->salt), 0) != sizeof(writer->salt))
        return error_set_errno(why, errno, "journal %.200s: random salt", place->dir);
    writer->salt &= ~(uint64_t)(RECORD_UNIT - 1);
    error = make_file(writer, start);
    if (error) {
        int rc = report(writer, error, "creating it", why);

        journal_writer_close(writer);
        return rc;
    }
    return 0;
}

/* The record as it will stand in the file, zeros up to the next unit included. NULL: no memory. */
static const unsigned char *build_record(struct journal_writer *writer, uint8_t type,
                                         const void *body, uint32_t length, uint64_t timestamp_ns)
{
    size_t bytes = (size_t)record_size(length);
    struct record *record;

    if (bytes > writer->buffer_bytes) {
        unsigned char *larger = realloc(writer->buffer, bytes);

        if (!larger)
            return NULL;
        writer->buffer = larger;
        writer->buffer_bytes = bytes;
    }
    memset(writer->buffer, 0, bytes);
    record = (struct record *)(void *)writer->buffer;
    atomic_init(&record->commit, record_stamp(writer->salt, writer->end, RECORD_COMMITTED));
    record->length = length;
    record->timestamp_ns = timestamp_ns;
    record->type = type;
    if (length)
        memcpy(record->payload, body, length);
    record->crc32c = journal_record_crc(writer->buffer, RECORD_COMMITTED);
    return writer->buffer;
}

/* In two halves where faults are compiled in: a death between them is what a torn write looks like. */
static int write_record(struct journal_writer *writer, const unsigned char *record, size_t bytes)
{
    uint64_t position = JOURNAL_HEADER_BYTES + (writer->end - writer->base);
    size_t first = 0;
    int error = 0;

    if (FAULT("journal.append.failed"))
        return EIO;
#ifdef SHMQ_FAULTS
    first = bytes / 2;
    error = io_write(writer->fd, record, first, position);
    if (FAULT("journal.append.torn"))
        return EIO;
#endif
    if (!error)
        error = io_write(writer->fd, record + first, bytes - first, position + first);
    return error;
}

int journal_writer_append(struct journal_writer *writer, uint8_t type, const void *body,
                          uint32_t length, uint64_t timestamp_ns, uint64_t *ret_offset,
                          struct error_buffer *why)
{
    size_t bytes = (size_t)record_size(length);
    const unsigned char *record;
    int error;

    if (writer->failed)
        return report(writer, EIO, "appending after a failure", why);
    if (length > JOURNAL_APPEND_MAX || bytes >= JOURNAL_OFFSET_MAX - writer->end)
        return error_set(why, SHMQ_ETOOBIG, "journal %.200s: a record of %u bytes at offset %llu",
                         writer->place.dir, length, (unsigned long long)writer->end);
    record = build_record(writer, type, body, length, timestamp_ns);
    if (!record)
        return report(writer, ENOMEM, "appending", why);
    error = fill_ahead(writer, JOURNAL_HEADER_BYTES + (writer->end - writer->base) + bytes);
    if (error == 0)
        error = write_record(writer, record, bytes);
    if (error) {
        /* No room is a state that passes, and what was half written there is overwritten by the next
         * try. Anything else says that this file is not to be relied on. */
        writer->failed = error != ENOSPC && error != EDQUOT;
        return report(writer, error, "appending", why);
    }
    FAULT("journal.append.written");
    if (ret_offset)
        *ret_offset = writer->end;
    writer->end += bytes;
    writer->messages++;
    writer->max_timestamp_ns = max_u64(writer->max_timestamp_ns, timestamp_ns);
    return 0;
}

int journal_writer_sync(struct journal_writer *writer, struct error_buffer *why)
{
    int error = writer->failed ? EIO : sync_data(writer->fd);

    if (error) {
        writer->failed = true;
        return report(writer, error, "syncing", why);
    }
    writer->durable = writer->end;
    FAULT("journal.sync.done");
    return 0;
}

int journal_writer_publish(struct journal_writer *writer, struct error_buffer *why)
{
    char name[JOURNAL_NAME_BYTES];
    int error;
    int rc = journal_writer_sync(writer, why);

    if (rc < 0)
        return rc;
    journal_format_name(writer->base, name);
    if (FAULT("journal.publish.failed"))
        return report(writer, EIO, "publishing", why);
    error = io_rename(writer->place.dir_fd, writer->name, name);
    if (error)
        return report(writer, error, "publishing", why);
    FAULT("journal.publish.renamed");
    memcpy(writer->name, name, sizeof(name));
    writer->published = true;
    error = sync_directory(writer->place.dir_fd);
    if (error) {
        writer->failed = true;
        return report(writer, error, "syncing the directory", why);
    }
    FAULT("journal.publish.done");
    return 0;
}

uint64_t journal_writer_next_base(const struct journal_writer *writer)
{
    uint64_t filled = writer->base + align_up_u64(writer->file_bytes, RECORD_UNIT);

    return max_u64(filled, writer->end);
}

int journal_writer_roll(struct journal_writer *writer, struct error_buffer *why)
{
    struct journal_writer next;
    struct journal_start start = {.base = journal_writer_next_base(writer)};
    int rc = journal_writer_sync(writer, why);

    if (rc < 0)
        return rc;
    start.previous_end = start.durable = writer->end;
    start.messages = writer->messages;
    start.max_timestamp_ns = writer->max_timestamp_ns;
    rc = journal_writer_create(&next, &writer->place, &start, why);
    if (rc < 0)
        return rc;
    rc = journal_writer_publish(&next, why);
    if (rc < 0 && !next.published) {
        journal_writer_close(&next);
        return rc;
    }
    /* Published but failed: the old file may have a successor on disk, and must not grow any more. */
    journal_writer_close(writer);
    *writer = next;
    return rc;
}

void journal_writer_close(struct journal_writer *writer)
{
    if (writer->fd >= 0) {
        (void)close(writer->fd);
        if (!writer->published)
            (void)io_unlink(writer->place.dir_fd, writer->name);
    }
    writer->fd = -1;
    free(writer->buffer);
    writer->buffer = NULL;
    writer->buffer_bytes = 0;
}

static bool is_tmp_name(const char *name)
{
    char log_name[JOURNAL_NAME_BYTES];
    uint64_t base;
    const char *suffix = strrchr(name, '.');

    if (!suffix || strcmp(suffix, TMP_SUFFIX) != 0 || strlen(name) >= sizeof(log_name))
        return false;
    memcpy(log_name, name, strlen(name) + 1);
    memcpy(strrchr(log_name, '.'), ".log", sizeof(".log"));
    return journal_parse_name(log_name, &base);
}

int journal_remove_below(const struct journal_place *place, uint64_t base, struct error_buffer *why)
{
    int fd = openat(place->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int error = 0;

    if (!dir) {
        error = errno;
        cleanup_close(&fd);
        return error_set_errno(why, error, "journal %.200s: listing it", place->dir);
    }
    while ((entry = readdir(dir))) {
        uint64_t found;
        int failed;

        if (!is_tmp_name(entry->d_name) &&
            (!journal_parse_name(entry->d_name, &found) || found >= base))
            continue;
        FAULT("journal.remove.one");
        failed = io_unlink(place->dir_fd, entry->d_name);
        if (failed && failed != ENOENT && error == 0)
            error = failed;
    }
    (void)closedir(dir);
    if (error == 0)
        error = sync_directory(place->dir_fd);
    return error ? error_set_errno(why, error, "journal %.200s: removing old files", place->dir)
                 : 0;
}
