/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk without shmq: files, appending, syncing; see durable.h. As plain as can be: one descriptor, pwrite from a
 * buffer that is in the cache, fdatasync; no checksum, no copy, nobody to be told.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/outbuf.h"
#include "tools/perf/durable.h"

#define ZERO_BYTES (UINT64_C(1) << 20) /* written at once */

static int fail_errno(struct durable_talk *talk, const char *call)
{
    char text[128];

    return durable_fail(talk, "floor: %s: %s", call, error_errno_text(errno, text, sizeof(text)));
}

static int write_all(struct durable_talk *talk, int fd, const char *data, uint64_t bytes,
                     uint64_t at)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, data, bytes, (off_t)at);

        if (n < 0 && errno != EINTR)
            return fail_errno(talk, "pwrite");
        data += n > 0 ? n : 0;
        at += n > 0 ? (uint64_t)n : 0;
        bytes -= n > 0 ? (uint64_t)n : 0;
    }
    return 0;
}

/* ---- making ---------------------------------------------------------------------------------- */

static int fill_with_zeros(struct durable_talk *talk, int fd, uint64_t bytes)
{
    char *zeros = perf_alloc_pages(ZERO_BYTES);
    int rc = 0;

    for (uint64_t at = 0; rc == 0 && at < bytes; at += ZERO_BYTES)
        rc = write_all(talk, fd, zeros, min_u64(ZERO_BYTES, bytes - at), at);
    free(zeros);
    if (rc == 0 && fsync(fd) < 0)
        rc = fail_errno(talk, "fsync");
    return rc;
}

/* As bodies are: not all equal, or a file system that compresses would have an easy time. */
static char *make_data(void)
{
    char *data = perf_alloc_pages(DURABLE_DATA_BYTES);
    uint64_t state = 0x9e3779b97f4a7c15u;

    for (uint64_t i = 0; i < DURABLE_DATA_BYTES; i += sizeof(state)) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        memcpy(data + i, &state, sizeof(state));
    }
    return data;
}

/* posix_fallocate would write, where the file system cannot. */
static int prepare(struct durable_talk *talk, const struct durable_file *file)
{
    if (file->kind == DURABLE_GROWING)
        return 0;
    if (fallocate(file->fd, 0, 0, (off_t)file->bytes) < 0) {
        if (errno != EOPNOTSUPP)
            return fail_errno(talk, "fallocate");
        if (file->kind == DURABLE_ALLOCATED)
            return -1;
    }
    return file->kind == DURABLE_ZEROED ? fill_with_zeros(talk, file->fd, file->bytes) : 0;
}

int durable_file_open(struct durable_talk *talk, enum durable_file_kind kind, uint64_t bytes,
                      struct durable_file *ret_file)
{
    char path[PERF_PATH_BYTES + 16];
    int rc;

    *ret_file = (struct durable_file){.fd = -1, .kind = kind, .bytes = bytes};
    (void)snprintf(path, sizeof(path), "%s/floor", talk->floor_dir);
    ret_file->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (ret_file->fd < 0)
        return fail_errno(talk, path);
    /* It goes with its descriptor, whatever happens to this process. */
    (void)unlink(path);
    rc = prepare(talk, ret_file);
    if (rc == 0)
        ret_file->data = make_data();
    else
        durable_file_close(ret_file);
    return rc;
}

void durable_file_close(struct durable_file *file)
{
    if (file->fd >= 0)
        (void)close(file->fd);
    free(file->data);
    *file = (struct durable_file){.fd = -1};
}

/* ---- writing --------------------------------------------------------------------------------- */

int durable_file_append(struct durable_talk *talk, struct durable_file *file, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t piece = min_u64(bytes, DURABLE_DATA_BYTES);
        int rc;

        if (file->kind != DURABLE_GROWING && file->at + piece > file->bytes)
            file->at = 0;
        rc = write_all(talk, file->fd, file->data, piece, file->at);
        if (rc)
            return rc;
        file->at += piece;
        bytes -= piece;
    }
    return 0;
}

int durable_file_sync(struct durable_talk *talk, struct durable_file *file)
{
    return fdatasync(file->fd) < 0 ? fail_errno(talk, "fdatasync") : 0;
}

int durable_settle(struct durable_talk *talk)
{
    int fd = open(talk->floor_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || syncfs(fd) < 0 ? fail_errno(talk, "syncfs") : 0;

    if (fd >= 0)
        (void)close(fd);
    return rc;
}
