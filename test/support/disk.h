/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that loses power. It watches the io calls on one directory (daemon/io.h) and keeps two images of each
 * file in it: what the page cache has, and what is surely on disk; the same for the directory's names. At any call
 * a test asks for the directory "as it would be after a power cut here" and gets one of the many it could be.
 *
 * What may happen, and no file system in use is worse: of the pages written since a file's last sync any may be on
 * disk, in whole or in sectors, in any order, and a size set since then too; a sync brings the file's bytes and
 * size, and no name; of names made, renamed and unlinked since the directory's last sync any may be, in any order;
 * a rename is whole. Pages may go to the disk by themselves at any time. A sync that fails drops the pages: some are on
 * disk, the others are clean and old for ever, and no later sync brings them. Real syncs are not done, so that
 * thousands of cuts take seconds.
 *
 * One disk at a time, one thread.
 */
#ifndef SHMQ_TEST_SUPPORT_DISK_H
#define SHMQ_TEST_SUPPORT_DISK_H

#include "daemon/io.h"
#include "test/support/test.h"

#define DISK_PAGE 4096u

struct disk;

/* Called before each call on the directory, once the disk has taken note of all before it. */
typedef void disk_before_fn(void *context, struct disk *disk, const struct io_event *event);

/* Which call fails: the nth of a kind from now on. */
struct disk_fault {
    enum io_kind kind; /* IO_KINDS: of any kind */
    uint64_t nth;      /* from 1 on; 0: none */
    int error;         /* an errno, or IO_SHORT */
    bool repeated;     /* and all after it */
};

/* What of the things that are not synced is on disk. */
enum disk_luck {
    DISK_NONE,   /* nothing */
    DISK_ALL,    /* everything, but for pages that a failed sync dropped */
    DISK_PREFIX, /* names: in the order in which it was done; pages: as ANY */
    DISK_ANY,    /* each by chance */
    DISK_MASK,   /* pages by the bits of `mask`, in the order of disk_pending(); names: all */
};

struct disk_cut {
    enum disk_luck pages;
    enum disk_luck names;
    uint64_t mask;
    unsigned unit; /* of what is written at once: DISK_PAGE if 0; 512 tears pages */
};

/* What is in `dir` counts as on disk. Watches from now on. */
struct disk *disk_new(const char *dir, uint64_t seed);
void disk_free(struct disk *disk);

void disk_before(struct disk *disk, disk_before_fn *before, void *context);
void disk_fail(struct disk *disk, const struct disk_fault *fault);
bool disk_failed(const struct disk *disk); /* the fault has struck */
/* Chance in 256, before each call, that some pages go to the disk by themselves. */
void disk_write_back(struct disk *disk, unsigned chance);

uint64_t disk_calls(const struct disk *disk, enum io_kind kind);

/* Pages (of DISK_PAGE) written and not synced, in all files. */
unsigned disk_pending(const struct disk *disk);

/* Makes `dir` what the disk would be. What was in it goes. The watching pauses meanwhile, and may for what the
 * test does with it: see disk_pause(). */
void disk_after_cut(struct disk *disk, const struct disk_cut *cut, const char *dir);

/* Nobody watches: for checks in the middle of a run. */
void disk_pause(struct disk *disk);
void disk_resume(struct disk *disk);

/* No disk, and no syncs either: for tests that care for neither. io_watch() ends it. */
void disk_quiet(void);

#endif
