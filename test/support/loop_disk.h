/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_disk.h: a small file system of a test's own, that can be filled, and whose power can be cut.
 *
 * Mounted in a mount namespace that the test's process and its children alone are in: whatever happens to the test, the
 * kernel takes mount and loop device away with its last process. Needs root, and for ext4 and xfs a loop device and
 * mkfs; where it is not to be had the test is skipped, and says why. One thread, one disk at a time.
 */
#ifndef SHMQ_TEST_SUPPORT_LOOP_DISK_H
#define SHMQ_TEST_SUPPORT_LOOP_DISK_H

#include "test/support/test.h"

#define LOOP_DISK_DEVICE 32

struct loop_disk {
    const char *type;
    char image[200]; /* empty: tmpfs */
    char mount[200];
    char backing[200]; /* where a thin disk's image lies; else empty */
    char device[LOOP_DISK_DEVICE];
    bool mounted;
};

/* "ext4", "xfs" or "tmpfs", made and mounted; xfs takes 300 MiB at least, none of which it uses. */
void loop_disk_make(struct loop_disk *disk, const char *type, uint64_t bytes);
/* A disk that has less room than it says: when that is used up, writes of blocks that were never written fail with EIO,
 * and the page cache forgets what it could not write. xfs, which tries its metadata again, where ext4 gives up. Filled
 * and freed by the functions below. 80 MiB and more of real ones go to the file system's own log. */
void loop_disk_make_thin(struct loop_disk *disk, uint64_t bytes, uint64_t real_bytes);
/* Nobody has a file open there. tmpfs is empty then. */
void loop_disk_unmount(struct loop_disk *disk);
void loop_disk_mount(struct loop_disk *disk, bool read_only);

/* From now on nothing reaches the disk: not what is in the page cache, and not the file system's own log. */
void loop_disk_cut(struct loop_disk *disk);

/* From now on it is read-only, as after an error of the disk: files that are open for writing, too. ext4. */
void loop_disk_forbid(struct loop_disk *disk);
/* Before anything else is begun: skips the test where that cannot be done. */
void loop_disk_need_forbid(const struct loop_disk *disk);

/* Of what is written to the files below `dir`, some pages go to the disk on their own account, by chance. */
void loop_disk_write_back(const char *dir, struct test_random *random);
/* What the page cache has of them and need not write is read from the disk the next time. */
void loop_disk_drop_cache(const char *dir);

/* A file takes all but `left` bytes, or what others leave of them; it goes again. Of a thin disk: of the real ones. */
void loop_disk_fill(const struct loop_disk *disk, uint64_t left);
void loop_disk_make_room(const struct loop_disk *disk);

#endif
