/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io.h: the system calls by which journals reach the disk, and nothing else does.
 *
 * One thin layer, so that a test can see every call in order, fail the n-th of a kind, or make it short, below
 * everything that has to bear it. Interruptions and short writes end here: a write is all or an error. Any
 * thread; all of it may block on the disk. Returns 0 or a positive errno, where nothing else is said.
 */
#ifndef SHMQ_DAEMON_IO_H
#define SHMQ_DAEMON_IO_H

#include <stddef.h>
#include <stdint.h>

/* O_CLOEXEC | O_NOFOLLOW are added; mode 0600. Stores a descriptor in *ret_fd. */
int io_open(int dir_fd, const char *name, int flags, int *ret_fd);

/* All of it. A device that takes nothing is full: ENOSPC. */
int io_write(int fd, const void *data, size_t length, uint64_t position);

/* As much as there is, in *ret_read: less than `length` only at the end of the file. */
int io_read(int fd, void *data, size_t length, uint64_t position, size_t *ret_read);

/* fdatasync. An error that it returns is not returned again: the file is not to be relied on any more. */
int io_sync(int fd);

/* fsync of a directory: what was created, renamed, unlinked in it. */
int io_sync_dir(int dir_fd);

/* Blocks for `bytes` from the start on, the size with them; zeros are not written. Where the file system
 * cannot, only the size is set. */
int io_allocate(int fd, uint64_t bytes);

/* Starts writing dirty pages back and does not wait: a hint, errors are found by io_sync(). */
void io_write_back(int fd, uint64_t position, uint64_t length);

int io_rename(int dir_fd, const char *from, const char *to);
int io_unlink(int dir_fd, const char *name);   /* absent is ENOENT */
int io_make_dir(int dir_fd, const char *name); /* mode 0700; EEXIST if there is something */

/* ---- for tests: built with SHMQ_FAULTS ------------------------------------------------------- */

enum io_kind {
    IO_OPEN,
    IO_WRITE,
    IO_SYNC,
    IO_SYNC_DIR,
    IO_ALLOCATE,
    IO_RENAME,
    IO_UNLINK,
    IO_MAKE_DIR,
    IO_READ,
    IO_KINDS,
};

/* A call about to be made. A watcher returns 0 to let it happen, an errno to fail it before anything is
 * done, IO_SHORT (writes): half of it happens, then the rest is tried, as after a short write; or IO_DONE (syncs):
 * it is taken as done, for tests that keep their disk in memory. */
#define IO_SHORT (-1)
#define IO_DONE  (-2)

struct io_event {
    enum io_kind kind;
    int fd;           /* of the file, or of the directory */
    int flags;        /* open */
    const char *name; /* open, rename (old), unlink, make_dir */
    const char *to;   /* rename (new) */
    const void *data; /* write */
    size_t length;    /* write, read, allocate */
    uint64_t position;
};

/* NULL: nobody. Not while other threads are in io_*(). Without a watcher the environment counts, read at the
 * first call: SHMQ_IO_FAULT=KIND:NTH:ERROR[+[MORE]], say "write:17:EIO", "sync:3:EIO+20" (that one and the
 * twenty after it) or "sync:3:ENOSPC+" (and all after it); KIND is open, write, sync, sync_dir, allocate, rename,
 * unlink, make_dir or read; ERROR is EIO, ENOSPC,
 * EDQUOT, EROFS, EACCES, EMFILE, ENOMEM, SHORT or a number. */
typedef int io_watch_fn(void *context, const struct io_event *event);
#ifdef SHMQ_FAULTS
void io_watch(io_watch_fn *watch, void *context);

/* The name in SHMQ_IO_FAULT, for messages of tests. */
const char *io_kind_name(enum io_kind kind);

#endif

#endif
