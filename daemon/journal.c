/* SPDX-License-Identifier: Apache-2.0 */
/* A journal's directory: opening it, looking things up; see journal.h. */
#include "daemon/journal_internal.h"

#include "daemon/io.h"
#include "daemon/log.h"
#include "libshmq/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- The list ----------------------------------------------------------------------------------- */

bool journal_reserve_entry(struct journal *journal)
{
    size_t room = journal->room ? journal->room * 2 : 8;
    struct journal_entry *larger;

    /* One more for the entry that journal_retain() took out, and may put back. */
    if (journal->count + 1 < journal->room)
        return true;
    larger = realloc(journal->entries, room * sizeof(*larger));
    if (!larger)
        return false;
    journal->entries = larger;
    journal->room = room;
    return true;
}

void journal_cut_list(struct journal *journal, size_t from)
{
    if (from < journal->count)
        journal->count = from;
}

static int compare_entries(const void *a, const void *b)
{
    const struct journal_entry *first = a;
    const struct journal_entry *second = b;

    return first->base < second->base ? -1 : first->base > second->base;
}

/* ---- Opening ------------------------------------------------------------------------------------ */

/* The directory that `path` stands in, with the length of its name. */
static size_t parent_length(const char *path, size_t length)
{
    while (length > 0 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    while (length > 1 && path[length - 1] == '/')
        length--;
    return length;
}

/* Syncs the directory that path[0..length) stands in. Returns 0 or an errno. */
static int sync_parent(const char *path, size_t length)
{
    char name[PATH_MAX];
    CLEANUP_CLOSE int fd = -1;
    int parent = (int)parent_length(path, length);
    /* With a dot behind it: it may be a link, which io_open() does not follow. */
    int made = snprintf(name, sizeof(name), "%.*s/.", parent ? parent : 1, parent ? path : ".");
    int error = made < (int)sizeof(name) ? 0 : ENAMETOOLONG;

    if (error == 0)
        error = io_open(AT_FDCWD, name, O_RDONLY | O_DIRECTORY, &fd);
    return error ? error : io_sync_dir(fd);
}

static bool exists(const char *path, size_t length)
{
    char name[PATH_MAX];
    int made = snprintf(name, sizeof(name), "%.*s", (int)length, path);

    return made < (int)sizeof(name) && access(name, F_OK) == 0;
}

/* Makes path[0..length) and what is missing above it. What is above is on disk before, the new name behind it:
 * so a directory that has something in it is on disk with all above it, whoever died when. 0 or an errno. */
static int make_directory(const char *path, size_t length)
{
    char name[PATH_MAX];
    size_t parent = parent_length(path, length);
    int error = 0;

    if (length >= sizeof(name))
        return ENAMETOOLONG;
    memcpy(name, path, length);
    name[length] = '\0';
    if (parent > 1)
        error = exists(path, parent) ? sync_parent(path, parent) : make_directory(path, parent);
    if (error == 0)
        error = io_make_dir(AT_FDCWD, name);
    FAULT("journal.open.made");
    return error && error != EEXIST ? error : sync_parent(path, length);
}

/* *ret_made: it was not there before. */
static int open_directory(const char *dir, bool *ret_made, int *ret_fd)
{
    int error = io_open(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, ret_fd);

    *ret_made = error == ENOENT;
    if (error == ENOENT)
        error = make_directory(dir, strlen(dir));
    if (error == 0 && *ret_fd < 0)
        error = io_open(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, ret_fd);
    return error;
}

/* True: the file is whole, and of a shmq with another format. A flipped bit in the version is neither. */
static bool is_foreign(const struct journal_header *header)
{
    return header->version != LAYOUT_VERSION && header->crc32c == journal_header_crc(header);
}

/* Says nothing of the file. */
static bool is_passing(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOENT;
}

/* Reads one file's header. What is wrong with the file itself makes it damaged; errors of the system come back. */
static int read_entry(struct journal *journal, const char *name, struct journal_entry *entry,
                      struct error_buffer *why)
{
    const struct journal_place *place = &journal->place;
    CLEANUP_CLOSE int fd = -1;
    struct journal_header header;
    struct stat status;
    size_t got = 0;
    int rc;
    int error = io_open(place->dir_fd, name, O_RDONLY | O_NONBLOCK, &fd);

    if (error) {
        rc = error_set_errno(why, error, "opening it");
        return is_passing(error) ? rc : 1;
    }
    if (fstat(fd, &status) < 0)
        return error_set_errno(why, errno, "its size");
    entry->bytes = (uint64_t)status.st_size;
    if (!S_ISREG(status.st_mode) || entry->bytes > JOURNAL_FILE_BYTES_MAX)
        return error_set(why, 1, "damaged: not a file, or larger than any; move it away");
    error = io_read(fd, &header, sizeof(header), 0, &got);
    if (error) {
        rc = error_set_errno(why, error, "reading its header");
        return is_passing(error) ? rc : 1;
    }
    rc = journal_check_header(&header, min_size(got, (size_t)entry->bytes), entry->base, &header,
                              why);
    if (rc == SHMQ_EVERSION && is_foreign(&header))
        return rc;
    if (rc < 0) {
        if (got == sizeof(header) && header.crc32c == journal_header_crc(&header) &&
            header.base < JOURNAL_OFFSET_MAX)
            journal->bound = max_u64(journal->bound, header.base + JOURNAL_FILE_BYTES_MAX);
        return 1;
    }
    if (header.topic != place->topic || header.partition != place->partition)
        return error_set(why, 1,
                         "damaged: of topic %" PRIu64 "/%u and not %" PRIu64
                         "/%u; move it to where it belongs",
                         header.topic, header.partition, place->topic, place->partition);
    entry->previous_end = header.previous_end;
    entry->durable = header.durable;
    entry->salt = header.salt;
    entry->messages = header.messages;
    entry->max_timestamp_ns = header.max_timestamp_ns;
    return 0;
}

/* Above every offset that can be in a file. One that is shorter than it was, or has lost its header, counts as
 * large as files are. */
static uint64_t bound_of(const struct journal_entry *entry)
{
    return entry->base + align_up_u64(max_u64(entry->bytes, JOURNAL_FILE_MOST), RECORD_UNIT);
}

static int add_file(struct journal *journal, const char *name, uint64_t base,
                    struct error_buffer *why)
{
    struct journal_entry entry = {.base = base};
    int rc = read_entry(journal, name, &entry, why);

    if (rc < 0)
        return error_prefix(why, rc, "%s", name);
    if (rc > 0) {
        log_warning("journal %s/%s: %s", journal->place.dir, name, why->text);
        entry.damaged = true;
        entry.bytes = min_u64(entry.bytes, JOURNAL_FILE_BYTES_MAX);
    }
    if (!journal_reserve_entry(journal))
        return error_set_errno(why, ENOMEM, "listing it");
    journal->entries[journal->count++] = entry;
    journal->bound = max_u64(journal->bound, bound_of(&entry));
    return 0;
}

static int list_files(struct journal *journal, struct error_buffer *why)
{
    int fd = openat(journal->place.dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *found;
    int rc = 0;

    if (!dir) {
        rc = error_set_errno(why, errno, "listing it");
        cleanup_close(&fd);
        return rc;
    }
    errno = 0;
    while (rc == 0 && (found = readdir(dir))) {
        uint64_t base;

        if (journal_parse_name(found->d_name, &base)) {
            if (base < JOURNAL_OFFSET_MAX && base % RECORD_UNIT == 0)
                rc = add_file(journal, found->d_name, base, why);
            else
                log_warning("journal %s/%s: no offset; left alone", journal->place.dir,
                            found->d_name);
        }
        errno = 0;
    }
    if (rc == 0 && errno)
        rc = error_set_errno(why, errno, "listing it");
    (void)closedir(dir);
    if (journal->count)
        qsort(journal->entries, journal->count, sizeof(journal->entries[0]), compare_entries);
    return rc;
}

static int open_files(struct journal *journal, struct error_buffer *why)
{
    bool made;
    int error = open_directory(journal->place.dir, &made, &journal->place.dir_fd);
    int rc;

    if (error)
        return error_set_errno(why, error, "opening it");
    /* Left by a process that died; who makes one anew removes it, should it not work now. */
    (void)io_unlink(journal->place.dir_fd, JOURNAL_SPARE_NAME);
    (void)io_unlink(journal->place.dir_fd, JOURNAL_BEGIN_NAME);
    rc = list_files(journal, why);
    if (rc == 0 && journal->count == 0 && !made) {
        /* Whoever made it may have died before its name was on disk. */
        error = sync_parent(journal->place.dir, strlen(journal->place.dir));
        if (error && error != EROFS)
            rc = error_set_errno(why, error, "syncing the directory above");
    }
    return rc;
}

int journal_open(struct journal *journal, const char *dir, uint64_t topic, uint32_t partition,
                 struct error_buffer *why)
{
    struct error_buffer reason;
    int rc;

    memset(journal, 0, sizeof(*journal));
    journal->place.dir = strdup(dir);
    journal->place.dir_fd = -1;
    journal->place.topic = topic;
    journal->place.partition = partition;
    journal->file_first = JOURNAL_FILE_FIRST;
    journal->file_most = JOURNAL_FILE_MOST;
    journal->spare_fd = -1;
    journal->fd = -1;
    if (!journal->place.dir)
        return error_set(why, SHMQ_ENOMEM, "journal %.200s: out of memory; free some", dir);
    (void)pthread_mutex_init(&journal->lock, NULL);
    rc = open_files(journal, &reason);
    if (rc < 0) {
        journal_close(journal);
        if (why)
            *why = reason;
        return error_prefix(why, rc, "journal %.200s", dir);
    }
    return 0;
}

void journal_close(struct journal *journal)
{
    if (!journal->place.dir)
        return;
    journal_abandon(journal);
    if (journal->spare_fd >= 0) {
        cleanup_close(&journal->spare_fd);
        (void)io_unlink(journal->place.dir_fd, JOURNAL_SPARE_NAME);
    }
    cleanup_close(&journal->place.dir_fd);
    (void)pthread_mutex_destroy(&journal->lock);
    free(journal->entries);
    free((void *)(uintptr_t)journal->place.dir);
    memset(journal, 0, sizeof(*journal));
    journal->place.dir_fd = journal->spare_fd = journal->fd = -1;
}

/* ---- Looking things up -------------------------------------------------------------------------- */

/* entries[index] and what is behind it, as the caller wants them. With the lock held. */
static bool give_entry(const struct journal *journal, size_t index, struct journal_entry *ret_entry,
                       struct journal_entry *ret_next)
{
    static const struct journal_entry NONE = {.base = UINT64_MAX};

    if (index >= journal->count)
        return false;
    *ret_entry = journal->entries[index];
    *ret_next = index + 1 < journal->count ? journal->entries[index + 1] : NONE;
    return true;
}

bool journal_find(struct journal *journal, uint64_t offset, struct journal_entry *ret_entry,
                  struct journal_entry *ret_next)
{
    size_t below = 0; /* so many have a base at or below `offset` */
    size_t above;
    bool found;

    (void)pthread_mutex_lock(&journal->lock);
    above = journal->count;
    while (below < above) {
        size_t middle = below + (above - below) / 2;

        if (journal->entries[middle].base <= offset)
            below = middle + 1;
        else
            above = middle;
    }
    found = give_entry(journal, below ? below - 1 : 0, ret_entry, ret_next);
    (void)pthread_mutex_unlock(&journal->lock);
    return found;
}

bool journal_find_time(struct journal *journal, uint64_t time_ns, struct journal_entry *ret_entry,
                       struct journal_entry *ret_next)
{
    size_t first = 0; /* the candidate */
    bool found;

    (void)pthread_mutex_lock(&journal->lock);
    /* A header speaks of all files before it; one that is damaged says nothing, and the next one says it. */
    for (size_t i = 1; i < journal->count; i++) {
        if (journal->entries[i].damaged)
            continue;
        if (journal->entries[i].max_timestamp_ns >= time_ns)
            break;
        first = i;
    }
    found = give_entry(journal, first, ret_entry, ret_next);
    (void)pthread_mutex_unlock(&journal->lock);
    return found;
}

void journal_measure(struct journal *journal, size_t *ret_files, uint64_t *ret_bytes,
                     uint64_t *ret_first)
{
    uint64_t bytes = 0;

    (void)pthread_mutex_lock(&journal->lock);
    for (size_t i = 0; i < journal->count; i++)
        bytes += journal->entries[i].bytes;
    *ret_files = journal->count;
    *ret_bytes = bytes;
    *ret_first = journal->count ? journal->entries[0].base : 0;
    (void)pthread_mutex_unlock(&journal->lock);
}

/* Retention has taken it out of the list before it unlinked it: one that is listed and not there was removed by hand.
 * Readers go on behind it, and are told of the loss. */
static void forget_entry(struct journal *journal, uint64_t base)
{
    bool listed = false;

    (void)pthread_mutex_lock(&journal->lock);
    for (size_t i = 0; i + 1 < journal->count && !listed; i++) {
        listed = journal->entries[i].base == base;
        if (listed)
            memmove(&journal->entries[i], &journal->entries[i + 1],
                    (--journal->count - i) * sizeof(journal->entries[0]));
    }
    (void)pthread_mutex_unlock(&journal->lock);
    if (listed)
        log_error("journal %s: the file that begins at offset %" PRIu64
                  " was removed; what was in it is lost",
                  journal->place.dir, base);
}

int journal_open_file(struct journal *journal, uint64_t base, int *ret_fd, struct error_buffer *why)
{
    char name[JOURNAL_NAME_BYTES];
    CLEANUP_CLOSE int fd = -1;
    struct stat status;
    int error;

    journal_format_name(base, name);
    error = io_open(journal->place.dir_fd, name, O_RDONLY | O_NONBLOCK, &fd);
    if (error == 0 && fstat(fd, &status) < 0)
        error = errno;
    if (error == ENOENT) {
        forget_entry(journal, base);
        return error_set(why, SHMQ_EAGAIN, "journal %.200s/%s: is gone; look for it again",
                         journal->place.dir, name);
    }
    if (error)
        return error_set_errno(why, error, "journal %.200s/%s", journal->place.dir, name);
    if (!S_ISREG(status.st_mode))
        return error_set(why, SHMQ_ECORRUPT, "journal %.200s/%s: not a file; move it away",
                         journal->place.dir, name);
    *ret_fd = steal_fd(&fd);
    return 0;
}
