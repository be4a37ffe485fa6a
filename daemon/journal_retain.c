/* SPDX-License-Identifier: Apache-2.0 */
/* A journal's files go: by retention, or with their topic; see journal.h. */
#include "daemon/io.h"
#include "daemon/journal_internal.h"
#include "daemon/log.h"
#include "libshmq/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

/* 0 or an errno. */
static int unlink_entry(const struct journal_place *place, uint64_t base)
{
    char name[JOURNAL_NAME_BYTES];
    int error;

    journal_format_name(base, name);
    error = io_unlink(place->dir_fd, name);
    return error == ENOENT ? 0 : error;
}

/* Takes the oldest out of the list, if it may go: before it is unlinked, so that who finds a listed file gone knows
 * that it was not us. */
static bool take_gone(struct journal *journal, const struct journal_retention *retention,
                      struct journal_entry *ret_entry)
{
    bool gone;

    (void)pthread_mutex_lock(&journal->lock);
    journal->retain_bytes = retention->retain_bytes;
    gone = journal->count > 0 &&
           journal_judge(journal->entries, journal->count, 0, retention) == JOURNAL_GONE;
    if (gone) {
        *ret_entry = journal->entries[0];
        memmove(journal->entries, journal->entries + 1,
                --journal->count * sizeof(journal->entries[0]));
    }
    (void)pthread_mutex_unlock(&journal->lock);
    return gone;
}

/* It could not be unlinked: it is still there, and read. */
static void put_back(struct journal *journal, const struct journal_entry *entry)
{
    (void)pthread_mutex_lock(&journal->lock);
    if (journal_reserve_entry(journal)) {
        memmove(journal->entries + 1, journal->entries,
                journal->count++ * sizeof(journal->entries[0]));
        journal->entries[0] = *entry;
    }
    (void)pthread_mutex_unlock(&journal->lock);
}

int journal_retain(struct journal *journal, const struct journal_retention *retention,
                   struct error_buffer *why)
{
    struct journal_entry entry;

    while (take_gone(journal, retention, &entry)) {
        int error = unlink_entry(&journal->place, entry.base);

        if (error) {
            put_back(journal, &entry);
            return error_set_errno(why, error,
                                   "journal %.200s: removing the file of offset %" PRIu64,
                                   journal->place.dir, entry.base);
        }
        FAULT("journal.retain.unlinked");
        /* Before the next one: else a power cut may leave that one gone and this one there. */
        error = io_sync_dir(journal->place.dir_fd);
        if (error)
            return error_set_errno(why, error, "journal %.200s: syncing the directory",
                                   journal->place.dir);
        FAULT("journal.retain.done");
    }
    return 0;
}

/* NAME.log.damaged, NAME.log.damaged.2, NAME.tmp: what `shmq journal repair` keeps of a file, or left. */
static bool is_repairs(const char *name)
{
    size_t digits = strspn(name, "0123456789");

    return digits == 20 &&
           (strncmp(name + digits, ".log.damaged", 12) == 0 || strcmp(name + digits, ".tmp") == 0);
}

/* ---- With the topic ------------------------------------------------------------------------------ */

static int remove_files(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *found;
    int error = dir ? 0 : errno;

    while (dir && (found = readdir(dir))) {
        uint64_t base;
        int failed = 0;

        if (journal_parse_name(found->d_name, &base) || is_repairs(found->d_name) ||
            strcmp(found->d_name, JOURNAL_SPARE_NAME) == 0 ||
            strcmp(found->d_name, JOURNAL_BEGIN_NAME) == 0)
            failed = io_unlink(dir_fd, found->d_name);
        if (failed && failed != ENOENT && error == 0)
            error = failed;
    }
    if (dir)
        (void)closedir(dir);
    else
        cleanup_close(&fd);
    return error;
}

int journal_remove_directory(const char *dir, struct error_buffer *why)
{
    CLEANUP_CLOSE int dir_fd = -1;
    int error = io_open(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, &dir_fd);

    if (error == ENOENT)
        return 0;
    if (error == 0)
        error = remove_files(dir_fd);
    if (error == 0 && rmdir(dir) < 0 && errno != ENOENT)
        error = errno;
    if (error == ENOTEMPTY || error == EEXIST) {
        log_warning("journal %s: there is something else in it; it stays", dir);
        return 0;
    }
    return error ? error_set_errno(why, error, "journal %.200s: removing it", dir) : 0;
}
