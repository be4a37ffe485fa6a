/* SPDX-License-Identifier: Apache-2.0 */
/* loop_disk.c: see loop_disk.h. */
#include "test/support/loop_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number, and so are their flags; no header has both. */
#define SHUT_DOWN          _IOR('X', 125, uint32_t)
#define WITHOUT_LOG_FLUSH  2u
#define ATTACH_TRIES       20
#define UNMOUNT_TRY_PAUSES 200

/* ---- the image ------------------------------------------------------------------------------- */

static void enter_namespace(void)
{
    static bool entered;

    if (entered)
        return;
    if (geteuid() != 0)
        SKIP("mounting a file system needs root");
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        SKIP("mounting is not permitted here: %s", strerror(errno));
    entered = true;
}

static const char *find_program(const char *name, char *path, size_t size)
{
    static const char *const FOLDERS[] = {"/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"};

    for (size_t i = 0; i < sizeof(FOLDERS) / sizeof(FOLDERS[0]); i++) {
        snprintf(path, size, "%s/%s", FOLDERS[i], name);
        if (access(path, X_OK) == 0)
            return path;
    }
    return NULL;
}

static void make_image(const struct loop_disk *disk, uint64_t bytes)
{
    char name[32], path[64], quiet[] = "-q", keep[] = "-K";
    char *plain[] = {path, quiet, (char *)(uintptr_t)disk->image, NULL};
    char *thin[] = {path, quiet, keep, (char *)(uintptr_t)disk->image, NULL};
    char **argv = disk->backing[0] ? thin : plain;
    struct test_output output;
    int fd = open(disk->image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    REQUIRE(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    close(fd);
    snprintf(name, sizeof(name), "mkfs.%s", disk->type);
    if (!find_program(name, path, sizeof(path)))
        SKIP("there is no %s", name);
    if (test_run(argv, &output, 20000) != 0) {
        FAIL("%s: %s", name, output.err);
        test_abort();
    }
    test_output_free(&output);
}

/* ---- the device ------------------------------------------------------------------------------ */

/* A loop device on the image, which goes when the file system is unmounted and *ret_fd closed. */
static bool attach(const struct loop_disk *disk, char device[LOOP_DISK_DEVICE], int *ret_fd)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int image = open(disk->image, O_RDWR | O_CLOEXEC);
    bool attached = false;

    /* Others take devices at the same time. */
    for (int i = 0; control >= 0 && image >= 0 && i < ATTACH_TRIES && !attached; i++) {
        struct loop_config config = {.fd = (uint32_t)image,
                                     .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
        int number = ioctl(control, LOOP_CTL_GET_FREE);

        snprintf(device, LOOP_DISK_DEVICE, "/dev/loop%d", number);
        *ret_fd = number < 0 ? -1 : open(device, O_RDWR | O_CLOEXEC);
        attached = *ret_fd >= 0 && ioctl(*ret_fd, LOOP_CONFIGURE, &config) == 0;
        if (!attached && *ret_fd >= 0)
            close(*ret_fd);
        if (!attached && errno != EBUSY)
            break;
    }
    int error = errno;

    if (control >= 0)
        close(control);
    if (image >= 0)
        close(image);
    errno = error;
    return attached;
}

/* The loop driver takes a short write for a whole one (Linux 6.18), and says nothing of what found no room. Requests of a page
 * are written as a whole or not at all. The limit outlives the image: 0 is what the driver likes. */
static void limit_requests(const char *device, const char *kib)
{
    char path[96];
    int fd;

    snprintf(path, sizeof(path), "/sys/block/%s/queue/max_sectors_kb", strrchr(device, '/') + 1);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if ((fd < 0 || write(fd, kib, strlen(kib)) < 0) && strcmp(kib, "0") != 0)
        SKIP("%s cannot be set: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void loop_disk_mount(struct loop_disk *disk, bool read_only)
{
    unsigned long flags = MS_NOATIME | MS_NODEV | MS_NOSUID | (read_only ? MS_RDONLY : 0);
    int fd = -1;
    int rc;

    if (disk->image[0] == '\0') {
        rc = mount("tmpfs", disk->mount, "tmpfs", flags, NULL);
    } else {
        if (!attach(disk, disk->device, &fd))
            SKIP("no loop device is to be had: %s", strerror(errno));
        limit_requests(disk->device, disk->backing[0] ? "4" : "0");
        rc = mount(disk->device, disk->mount, disk->type, flags,
                   strcmp(disk->type, "ext4") == 0 ? "errors=remount-ro" : NULL);
    }
    if (rc != 0 && (errno == ENODEV || errno == EPERM))
        SKIP("%s cannot be mounted here: %s", disk->type, strerror(errno));
    if (rc != 0) {
        FAIL("%s: mount: %s", disk->type, strerror(errno));
        test_abort();
    }
    if (fd >= 0)
        close(fd);
    disk->mounted = true;
}

static void begin_disk(struct loop_disk *disk, const char *type)
{
    *disk = (struct loop_disk){.type = type};
    enter_namespace();
    snprintf(disk->mount, sizeof(disk->mount), "%s/disk", test_tmpdir());
    REQUIRE(mkdir(disk->mount, 0700) == 0 || errno == EEXIST);
}

static void mount_tmpfs(const char *path, uint64_t bytes)
{
    char size[64];

    snprintf(size, sizeof(size), "size=%llu", (unsigned long long)bytes);
    if (mount("tmpfs", path, "tmpfs", MS_NODEV | MS_NOSUID, size) != 0)
        SKIP("tmpfs cannot be mounted here: %s", strerror(errno));
}

void loop_disk_make(struct loop_disk *disk, const char *type, uint64_t bytes)
{
    begin_disk(disk, type);
    if (strcmp(type, "tmpfs") == 0) {
        mount_tmpfs(disk->mount, bytes);
        disk->mounted = true;
        return;
    }
    snprintf(disk->image, sizeof(disk->image), "%s/disk.image", test_tmpdir());
    make_image(disk, bytes);
    loop_disk_mount(disk, false);
}

void loop_disk_make_thin(struct loop_disk *disk, uint64_t bytes, uint64_t real_bytes)
{
    begin_disk(disk, "xfs");
    snprintf(disk->backing, sizeof(disk->backing), "%s/thin", test_tmpdir());
    REQUIRE(mkdir(disk->backing, 0700) == 0);
    mount_tmpfs(disk->backing, real_bytes);
    snprintf(disk->image, sizeof(disk->image), "%.180s/disk.image", disk->backing);
    make_image(disk, bytes);
    loop_disk_mount(disk, false);
}

void loop_disk_unmount(struct loop_disk *disk)
{
    int rc = -1;

    /* A process that was killed may still hold a file for a moment. */
    for (int i = 0; i < UNMOUNT_TRY_PAUSES && (rc = umount(disk->mount)) != 0 && errno == EBUSY;
         i++)
        test_sleep_ms(5);
    if (rc != 0) {
        FAIL("%s: unmounting: %s", disk->type, strerror(errno));
        test_abort();
    }
    if (disk->backing[0])
        limit_requests(disk->device, "0");
    disk->mounted = false;
}

/* ---- what happens to it ---------------------------------------------------------------------- */

void loop_disk_cut(struct loop_disk *disk)
{
    uint32_t flags = WITHOUT_LOG_FLUSH;
    int fd = open(disk->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    REQUIRE(fd >= 0);
    /* Not ioctl(), whose second parameter is an int with musl. */
    REQUIRE(syscall(SYS_ioctl, fd, SHUT_DOWN, &flags) == 0);
    close(fd);
}

/* A file in /sys that makes ext4 believe in an error. */
static void find_switch(const struct loop_disk *disk, char path[128])
{
    snprintf(path, 128, "/sys/fs/ext4/%s/trigger_fs_error", strrchr(disk->device, '/') + 1);
}

void loop_disk_need_forbid(const struct loop_disk *disk)
{
    char path[128];

    find_switch(disk, path);
    if (access(path, W_OK) != 0)
        SKIP("%s: %s", path, strerror(errno));
}

void loop_disk_forbid(struct loop_disk *disk)
{
    char path[128];
    int fd;

    find_switch(disk, path);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && write(fd, "test", 4) == 4);
    close(fd);
}

/* Each file below; `random` NULL: all of it. */
typedef void visit_fn(int fd, off_t bytes, struct test_random *random);

static void walk(const char *dir, visit_fn *visit, struct test_random *random)
{
    DIR *directory = opendir(dir);
    const struct dirent *entry;

    while (directory && (entry = readdir(directory)) != NULL) {
        char path[600];
        struct stat info;
        int fd;

        snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            walk(path, visit, random);
        fd = entry->d_type == DT_REG ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (fd >= 0 && fstat(fd, &info) == 0 && info.st_size > 0)
            visit(fd, info.st_size, random);
        if (fd >= 0)
            close(fd);
    }
    if (directory)
        closedir(directory);
}

static void write_some_back(int fd, off_t bytes, struct test_random *random)
{
    for (int i = 0; i < 4; i++) {
        off_t from = (off_t)test_random_below(random, (uint64_t)bytes) & ~(off_t)4095;
        off_t length = (off_t)(1 + test_random_below(random, 16)) * 4096;

        (void)sync_file_range(fd, from, length, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    }
}

void loop_disk_write_back(const char *dir, struct test_random *random)
{
    walk(dir, write_some_back, random);
}

static void drop(int fd, off_t bytes, struct test_random *random)
{
    (void)random;
    (void)posix_fadvise(fd, 0, bytes, POSIX_FADV_DONTNEED);
}

void loop_disk_drop_cache(const char *dir)
{
    walk(dir, drop, NULL);
}

/* ---- room ------------------------------------------------------------------------------------ */

static void name_ballast(const struct loop_disk *disk, char path[220])
{
    snprintf(path, 220, "%s/ballast", disk->backing[0] ? disk->backing : disk->mount);
}

static uint64_t free_bytes(const struct loop_disk *disk)
{
    struct statvfs info;

    REQUIRE(statvfs(disk->backing[0] ? disk->backing : disk->mount, &info) == 0);
    return (uint64_t)info.f_bavail * info.f_bsize;
}

/* In pieces, since others write as well. */
void loop_disk_fill(const struct loop_disk *disk, uint64_t left)
{
    const off_t piece = 1 << 18;
    char path[220];
    off_t bytes = 0;
    int fd;

    name_ballast(disk, path);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    while (free_bytes(disk) > left + (uint64_t)piece && posix_fallocate(fd, bytes, piece) == 0)
        bytes += piece;
    close(fd);
}

void loop_disk_make_room(const struct loop_disk *disk)
{
    char path[220];

    name_ballast(disk, path);
    CHECK(unlink(path) == 0);
}
