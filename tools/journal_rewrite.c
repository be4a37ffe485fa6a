/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What repair does on the disk. Whoever is killed here at any point leaves each file either as it was or as it
 * should be, under its name, and beside it at most a NAME.tmp, which the next repair makes anew:
 *
 *     copy to NAME.tmp, header, padding; sync     the old one is not touched
 *     link NAME.log.damaged to the old one; sync the directory
 *     rename NAME.tmp to NAME.log; sync the directory
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "libshmq/fault.h"
#include "tools/journal.h"

#define COPY_BYTES ((size_t)1 << 20)
#define KEPT_MAX   99u
/* The largest claim in the smallest ring: padding that no reader takes for damage by its length. */
#define PADDING_BYTES (RING_MIN_BYTES >> RING_CLAIM_SHIFT)

static int fail(int error, const char *name, const char *doing, struct error_buffer *why)
{
    return error_set_errno(why, error, "%.200s: %s", name, doing);
}

/* 0 or an errno. */
static int write_all(int fd, const void *data, size_t length, uint64_t position)
{
    const char *bytes = data;

    while (length > 0) {
        ssize_t written = pwrite(fd, bytes, length, (off_t)position);

        if (written < 0 && errno != EINTR)
            return errno;
        if (written == 0)
            return ENOSPC;
        if (written > 0) {
            bytes += written;
            position += (uint64_t)written;
            length -= (size_t)written;
        }
    }
    return 0;
}

static int sync_fd(int fd)
{
    while (fsync(fd) < 0) {
        if (errno != EINTR)
            return errno;
    }
    return 0;
}

/* Zeros are written too: the blocks are to be there, as in the old one. */
static int copy_all(int from, int to, uint64_t bytes)
{
    CLEANUP_FREE unsigned char *chunk = tool_alloc(COPY_BYTES);
    uint64_t position = 0;

    while (position < bytes) {
        ssize_t got =
            pread(from, chunk, min_size(COPY_BYTES, (size_t)(bytes - position)), (off_t)position);
        int error;

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : EIO;
        error = write_all(to, chunk, (size_t)got, position);
        if (error)
            return error;
        position += (uint64_t)got;
    }
    return 0;
}

/* In pieces: what no reader could have published is no padding to it either. */
static int write_padding(int fd, const struct journal_header *header,
                         const struct rewrite_stretch *stretch)
{
    _Alignas(struct record) unsigned char piece[PADDING_BYTES];
    uint64_t offset = stretch->offset;
    uint64_t left = stretch->length;

    while (left > 0) {
        struct record *record = (struct record *)(void *)piece;
        uint64_t bytes = min_u64(left, PADDING_BYTES);
        int error;

        memset(piece, 0, sizeof(piece));
        atomic_init(&record->commit, record_stamp(header->salt, offset, RECORD_PADDING));
        record->length = (uint32_t)bytes - RECORD_HEADER;
        record->crc32c = journal_record_crc(piece, RECORD_PADDING);
        error = write_all(fd, piece, bytes, JOURNAL_HEADER_BYTES + (offset - header->base));
        if (error)
            return error;
        offset += bytes;
        left -= bytes;
    }
    return 0;
}

/* The new one, whole and synced, as `tmp`. Its owner and mode are the old one's, whoever repairs. 0 or an errno. */
static int make_new(int dir_fd, int old_fd, const char *tmp, const struct journal_header *header,
                    const struct rewrite_stretch *stretches, size_t count)
{
    CLEANUP_CLOSE int fd = -1;
    struct journal_header sealed = *header;
    struct stat status;
    int error;

    if (fstat(old_fd, &status) < 0 || (unlinkat(dir_fd, tmp, 0) < 0 && errno != ENOENT))
        return errno;
    fd = openat(dir_fd, tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fchmod(fd, status.st_mode & 0777) < 0 ||
        (status.st_uid != geteuid() && fchown(fd, status.st_uid, status.st_gid) < 0))
        return errno;
    FAULT("journal.repair.made");
    error = copy_all(old_fd, fd, (uint64_t)status.st_size);
    FAULT("journal.repair.copied");
    journal_seal_header(&sealed);
    if (error == 0)
        error = write_all(fd, &sealed, sizeof(sealed), 0);
    for (size_t i = 0; i < count && error == 0; i++)
        error = write_padding(fd, header, &stretches[i]);
    FAULT("journal.repair.padded");
    return error ? error : sync_fd(fd);
}

/* A second name for the old one, unless an earlier repair that was killed has given it one. 0 or an errno. */
static int keep_old(int dir_fd, int old_fd, const char *name, char ret_kept[REWRITE_NAME_BYTES])
{
    struct stat old;
    struct stat there;

    if (fstat(old_fd, &old) < 0)
        return errno;
    for (unsigned i = 1; i <= KEPT_MAX; i++) {
        char suffix[8] = "";

        if (i > 1)
            (void)snprintf(suffix, sizeof(suffix), ".%u", i);
        (void)snprintf(ret_kept, REWRITE_NAME_BYTES, "%.*s.damaged%s", JOURNAL_NAME_BYTES, name,
                       suffix);
        if (linkat(dir_fd, name, dir_fd, ret_kept, 0) == 0)
            return 0;
        if (errno != EEXIST)
            return errno;
        if (fstatat(dir_fd, ret_kept, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
            there.st_ino == old.st_ino)
            return 0;
    }
    return EEXIST;
}

int rewrite_file(const struct history *history, size_t index, const struct journal_header *header,
                 const struct rewrite_stretch *stretches, size_t count,
                 char ret_kept[REWRITE_NAME_BYTES], struct error_buffer *why)
{
    const char *name = history->files[index].name;
    char tmp[JOURNAL_NAME_BYTES];
    CLEANUP_CLOSE int old_fd = history_open_file(history, index, why);
    int error;

    if (old_fd < 0)
        return old_fd;
    journal_format_name(header->base, tmp);
    memcpy(strrchr(tmp, '.'), ".tmp", sizeof(".tmp"));
    error = make_new(history->fd, old_fd, tmp, header, stretches, count);
    FAULT("journal.repair.synced");
    if (error == 0)
        error = keep_old(history->fd, old_fd, name, ret_kept);
    FAULT("journal.repair.kept");
    if (error == 0)
        error = sync_fd(history->fd);
    if (error == 0 && renameat(history->fd, tmp, history->fd, name) < 0)
        error = errno;
    FAULT("journal.repair.renamed");
    if (error == 0)
        error = sync_fd(history->fd);
    if (error) {
        (void)unlinkat(history->fd, tmp, 0);
        return fail(error, name, "making it anew", why);
    }
    return 0;
}

bool rewrite_is_taken(const struct history *history, const char *from, const char *to)
{
    struct stat old;
    struct stat there;

    return fstatat(history->fd, to, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           (fstatat(history->fd, from, &old, AT_SYMLINK_NOFOLLOW) < 0 ||
            there.st_ino != old.st_ino);
}

/* A link and then an unlink: rename() would replace what has the name. Killed in between, it has both. */
int rewrite_rename(const struct history *history, const char *from, const char *to,
                   struct error_buffer *why)
{
    int error = 0;

    if (linkat(history->fd, from, history->fd, to, 0) < 0) {
        if (errno != EEXIST)
            return fail(errno, from, "giving it its name", why);
        if (rewrite_is_taken(history, from, to))
            return 1;
    }
    FAULT("journal.repair.linked");
    error = sync_fd(history->fd);
    if (error == 0 && unlinkat(history->fd, from, 0) < 0)
        error = errno;
    FAULT("journal.repair.unlinked");
    if (error == 0)
        error = sync_fd(history->fd);
    return error ? fail(error, from, "giving it its name", why) : 0;
}

int rewrite_remove(const struct history *history, const char *name, struct error_buffer *why)
{
    int error = unlinkat(history->fd, name, 0) < 0 && errno != ENOENT ? errno : 0;

    FAULT("journal.repair.removed");
    if (error == 0)
        error = sync_fd(history->fd);
    return error ? fail(error, name, "removing it", why) : 0;
}
