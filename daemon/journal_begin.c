/* SPDX-License-Identifier: Apache-2.0 */
/* A journal's files: made ahead of use, begun, written; see journal.h. */
#include "daemon/io.h"
#include "daemon/journal_internal.h"
#include "libshmq/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define ZEROS_BYTES ((size_t)1 << 20) /* written at once */
#define ZEROS_SYNC_BYTES \
    (UINT64_C(8) << 20) /* ... and synced, so that no other sync waits for 64 MiB of them */

/* A file on its way to its name. */
struct made_file {
    const char *name;
    uint64_t bytes;
    int fd;
};

static int report(const struct journal *journal, int error, const char *doing, uint64_t offset,
                  struct error_buffer *why)
{
    return error_set_errno(why, error, "journal %.200s: %s at offset %" PRIu64, journal->place.dir,
                           doing, offset);
}

/* ---- Making ------------------------------------------------------------------------------------- */

/* The size of a file behind the newest, in which the log has come to `end`. */
static uint64_t size_behind(struct journal *journal, uint64_t end)
{
    uint64_t bytes = journal->file_first;
    uint64_t most = journal->file_most;

    (void)pthread_mutex_lock(&journal->lock);
    if (journal->retain_bytes)
        most = min_u64(most, journal->retain_bytes / 4);
    if (journal->count) {
        const struct journal_entry *newest = &journal->entries[journal->count - 1];

        bytes = newest->bytes;
        /* One that begins anew because of an error, or a restart, need not be larger. */
        if (end > newest->base && end - newest->base > newest->bytes / 2)
            bytes *= 2;
    }
    (void)pthread_mutex_unlock(&journal->lock);
    return align_up_u64(max_u64(min_u64(bytes, most), journal->file_first), RECORD_UNIT);
}

static void discard(const struct journal *journal, struct made_file *file)
{
    cleanup_close(&file->fd);
    file->fd = -1;
    (void)io_unlink(journal->place.dir_fd, file->name);
}

/* An empty file with blocks for `bytes`. 0 or an errno, and then there is none. */
static int make_file(const struct journal *journal, const char *name, uint64_t bytes,
                     struct made_file *ret_file)
{
    struct made_file file = {.name = name, .bytes = bytes, .fd = -1};
    int error = io_unlink(journal->place.dir_fd, name);

    if (error && error != ENOENT)
        return error;
    error = io_open(journal->place.dir_fd, name, O_RDWR | O_CREAT | O_EXCL, &file.fd);
    if (error)
        return error;
    error = io_allocate(file.fd, bytes);
    if (error) {
        discard(journal, &file);
        return error;
    }
    *ret_file = file;
    return 0;
}

static int fill_with_zeros(const struct made_file *file)
{
    unsigned char *zeros = calloc(1, ZEROS_BYTES);
    uint64_t synced = 0;
    int error = zeros ? 0 : ENOMEM;

    for (uint64_t at = 0; error == 0 && at < file->bytes; at += ZEROS_BYTES) {
        uint64_t length = min_u64(ZEROS_BYTES, file->bytes - at);

        error = io_write(file->fd, zeros, length, at);
        io_write_back(file->fd, at, length);
        if (error == 0 &&
            (at + length - synced >= ZEROS_SYNC_BYTES || at + length == file->bytes)) {
            error = io_sync(file->fd);
            synced = at + length;
        }
    }
    free(zeros);
    return error;
}

/* True: it is the caller's to make the spare, or to give it its name; others keep away from next.tmp. */
static bool seize_spare(struct journal *journal, bool there)
{
    bool seized;

    (void)pthread_mutex_lock(&journal->lock);
    seized = !journal->spare_busy && (journal->spare_fd >= 0) == there;
    if (seized)
        journal->spare_busy = true;
    (void)pthread_mutex_unlock(&journal->lock);
    return seized;
}

static void release_spare(struct journal *journal, int fd, uint64_t bytes)
{
    (void)pthread_mutex_lock(&journal->lock);
    journal->spare_fd = fd;
    journal->spare_bytes = bytes;
    journal->spare_busy = false;
    (void)pthread_mutex_unlock(&journal->lock);
}

int journal_prepare(struct journal *journal, bool zeros, struct error_buffer *why)
{
    struct made_file file = {.fd = -1};
    uint64_t bytes = size_behind(journal, UINT64_MAX); /* by then it will be full */
    int error;

    if (!seize_spare(journal, false))
        return 0;
    error = make_file(journal, JOURNAL_SPARE_NAME, bytes, &file);
    FAULT("journal.prepare.made");
    if (error == 0 && zeros) {
        error = fill_with_zeros(&file);
        if (error)
            discard(journal, &file);
    }
    FAULT("journal.prepare.filled");
    release_spare(journal, error ? -1 : file.fd, file.bytes);
    return error ? error_set_errno(why, error,
                                   "journal %.200s: making the next file of %" PRIu64 " bytes",
                                   journal->place.dir, bytes)
                 : 0;
}

/* ---- Beginning ---------------------------------------------------------------------------------- */

/* The spare, if it is there and large enough; one that is not goes. */
static bool take_spare(struct journal *journal, uint64_t need, struct made_file *ret_file)
{
    struct made_file file = {.name = JOURNAL_SPARE_NAME};

    if (!seize_spare(journal, true))
        return false;
    file.fd = journal->spare_fd; /* nobody else has it */
    file.bytes = journal->spare_bytes;
    if (file.bytes < need) {
        discard(journal, &file);
        release_spare(journal, -1, 0);
        return false;
    }
    *ret_file = file;
    return true;
}

/* Some file with room for `need` bytes in all. On a full disk a small one is better than none. */
static int take_file(struct journal *journal, const struct journal_start *start, uint64_t need,
                     struct made_file *ret_file)
{
    uint64_t least = max_u64(need, journal->file_first);
    uint64_t bytes = max_u64(need, size_behind(journal, start->previous_end));
    int error;

    if (take_spare(journal, need, ret_file))
        return 0;
    error = make_file(journal, JOURNAL_BEGIN_NAME, bytes, ret_file);
    if ((error == ENOSPC || error == EDQUOT) && least < bytes)
        error = make_file(journal, JOURNAL_BEGIN_NAME, least, ret_file);
    return error;
}

/* The newest of the list, if it lies above `base`. */
static bool find_above(struct journal *journal, uint64_t base, uint64_t *ret_base)
{
    bool above;

    (void)pthread_mutex_lock(&journal->lock);
    above = journal->count && journal->entries[journal->count - 1].base > base;
    if (above)
        *ret_base = journal->entries[journal->count - 1].base;
    (void)pthread_mutex_unlock(&journal->lock);
    return above;
}

/* Unlinks what lies above `base`, the newest first: it holds nothing that was confirmed. */
static int drop_above(struct journal *journal, uint64_t base)
{
    bool dropped = false;
    uint64_t newest;

    while (find_above(journal, base, &newest)) {
        char name[JOURNAL_NAME_BYTES];
        int error;

        journal_format_name(newest, name);
        error = io_unlink(journal->place.dir_fd, name);
        if (error && error != ENOENT)
            return error;
        (void)pthread_mutex_lock(&journal->lock);
        journal_cut_list(journal, journal->count - 1);
        (void)pthread_mutex_unlock(&journal->lock);
        dropped = true;
        FAULT("journal.begin.dropped");
    }
    /* Else a power cut may leave them above the new file. */
    return dropped ? io_sync_dir(journal->place.dir_fd) : 0;
}

/* The file gets its header and its name. *ret_renamed: it has the name, whatever else failed. */
static int name_file(struct journal *journal, const struct made_file *file,
                     const struct journal_start *start, uint64_t salt, bool *ret_renamed)
{
    char name[JOURNAL_NAME_BYTES];
    int error = journal_write_header(file->fd, &journal->place, start, salt);

    FAULT("journal.begin.header");
    if (error == 0 && !start->unsynced)
        error = io_sync(file->fd);
    journal_format_name(start->base, name);
    if (error == 0)
        error = io_rename(journal->place.dir_fd, file->name, name);
    *ret_renamed = error == 0;
    FAULT("journal.begin.renamed");
    if (error == 0 && !start->unsynced)
        error = io_sync_dir(journal->place.dir_fd);
    return error;
}

/* Enters the new file, `bytes` long, in the place of one with the same base; 0: only that one is gone. */
static void enter_file(struct journal *journal, const struct journal_start *start, uint64_t salt,
                       uint64_t bytes)
{
    struct journal_entry entry = {
        .base = start->base,
        .previous_end = start->previous_end,
        .durable = start->durable,
        .salt = salt,
        .messages = start->messages,
        .max_timestamp_ns = start->max_timestamp_ns,
        .bytes = bytes,
    };

    (void)pthread_mutex_lock(&journal->lock);
    if (journal->count && journal->entries[journal->count - 1].base == start->base)
        journal_cut_list(journal, journal->count - 1);
    if (bytes)
        journal->entries[journal->count++] = entry;
    (void)pthread_mutex_unlock(&journal->lock);
}

static int begin_file(struct journal *journal, const struct journal_start *start, uint64_t salt,
                      uint64_t need)
{
    struct made_file file = {.fd = -1};
    bool renamed = false;
    bool reserved;
    int error = drop_above(journal, start->base);

    (void)pthread_mutex_lock(&journal->lock);
    reserved = journal_reserve_entry(journal);
    (void)pthread_mutex_unlock(&journal->lock);
    if (error == 0 && !reserved)
        error = ENOMEM;
    if (error == 0)
        error = take_file(journal, start, need, &file);
    if (error)
        return error;
    FAULT("journal.begin.made");
    error = name_file(journal, &file, start, salt, &renamed);
    if (error) {
        /* With a name it may be on disk or not; it is empty, and the next try takes its place. */
        if (renamed)
            enter_file(journal, start, salt, 0);
        else
            (void)io_unlink(journal->place.dir_fd, file.name);
        cleanup_close(&file.fd);
    } else {
        enter_file(journal, start, salt, file.bytes);
        journal->fd = file.fd;
        journal->bytes = file.bytes;
    }
    if (strcmp(file.name, JOURNAL_SPARE_NAME) == 0)
        release_spare(journal, -1, 0);
    return error;
}

int journal_begin(struct journal *journal, const struct journal_start *start, uint64_t salt,
                  uint64_t least, struct error_buffer *why)
{
    int error;

    journal_abandon(journal);
    if (start->base >= JOURNAL_OFFSET_MAX || start->base % RECORD_UNIT || salt % RECORD_UNIT ||
        start->previous_end > start->base || least > JOURNAL_FILE_BYTES_MAX - JOURNAL_HEADER_BYTES)
        return error_set(why, SHMQ_EINVAL, "journal %.200s: no file can begin at offset %" PRIu64,
                         journal->place.dir, start->base);
    error =
        begin_file(journal, start, salt, JOURNAL_HEADER_BYTES + align_up_u64(least, RECORD_UNIT));
    if (error)
        return report(journal, error, "beginning a file", start->base, why);
    journal->base = journal->end = start->base;
    journal->messages = start->messages;
    journal->max_timestamp_ns = start->max_timestamp_ns;
    FAULT("journal.begin.done");
    return 0;
}

void journal_abandon(struct journal *journal)
{
    cleanup_close(&journal->fd);
    journal->fd = -1;
}

/* ---- Writing ------------------------------------------------------------------------------------ */

uint64_t journal_room(const struct journal *journal)
{
    uint64_t used = JOURNAL_HEADER_BYTES + (journal->end - journal->base);

    return journal->fd < 0 || used > journal->bytes
               ? 0
               : (journal->bytes - used) & ~(uint64_t)(RECORD_UNIT - 1);
}

int journal_write(struct journal *journal, const void *run, size_t bytes, uint64_t messages,
                  uint64_t max_timestamp_ns, struct error_buffer *why)
{
    uint64_t position = JOURNAL_HEADER_BYTES + (journal->end - journal->base);
    size_t first = 0;
    int error = 0;

    if (bytes > journal_room(journal) || bytes % RECORD_UNIT)
        return error_set(why, SHMQ_EINVAL,
                         "journal %.200s: %zu bytes do not fit at offset %" PRIu64,
                         journal->place.dir, bytes, journal->end);
#ifdef SHMQ_FAULTS
    /* In two halves: a death between them is what a torn write looks like. */
    first = bytes / 2;
    error = io_write(journal->fd, run, first, position);
    if (FAULT("journal.write.torn"))
        error = EIO;
#endif
    if (error == 0)
        error = io_write(journal->fd, (const char *)run + first, bytes - first, position + first);
    if (error)
        return report(journal, error, "writing", journal->end, why);
    journal->end += bytes;
    journal->messages += messages;
    journal->max_timestamp_ns = max_u64(journal->max_timestamp_ns, max_timestamp_ns);
    FAULT("journal.write.done");
    return 0;
}
