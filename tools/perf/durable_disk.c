/* SPDX-License-Identifier: Apache-2.0 */
/* Which folder, and what disk it is on; see durable.h. In the caller, but for durable_evict(). */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "tools/perf/durable.h"
#include "tools/perf/facts.h"

#define MOUNTINFO_MOST ((size_t)4 << 20)
#define FIELDS         5u                             /* up to the mount point */
#define PARENT_MOST    (PERF_PATH_BYTES - (size_t)96) /* names of journals come behind it */

/* ---- mounts ---------------------------------------------------------------------------------- */

/* A field of mountinfo, which has blanks and the like as \040. */
static void copy_field(const char *from, size_t length, char *to, size_t bytes)
{
    size_t used = 0;

    for (size_t i = 0; i < length && used + 1 < bytes; i++) {
        const char *at = from + i;
        bool octal = *at == '\\' && length - i >= 4 && at[1] >= '0' && at[1] <= '3' &&
                     at[2] >= '0' && at[2] <= '7' && at[3] >= '0' && at[3] <= '7';

        to[used++] = octal ? (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + (at[3] - '0')) : *at;
        i += octal ? 3 : 0;
    }
    to[used] = '\0';
}

/* The next field of a line, and where it ends. */
static const char *next_field(const char **at, size_t *ret_length)
{
    const char *field = *at + strspn(*at, " ");

    *ret_length = strcspn(field, " \n");
    *at = field + *ret_length;
    return field;
}

static bool parse_line(const char *line, struct durable_mount *ret_mount)
{
    const char *end = line + strcspn(line, "\n");
    const char *dash = strstr(line, " - ");
    const char *at = line;
    const char *field = line;
    size_t length = 0;

    for (unsigned i = 0; i < FIELDS; i++)
        field = next_field(&at, &length);
    if (!dash || dash >= end || length == 0 || *field != '/')
        return false;
    copy_field(field, length, ret_mount->point, sizeof(ret_mount->point));
    at = dash + strlen(" - ");
    field = next_field(&at, &length);
    copy_field(field, length, ret_mount->type, sizeof(ret_mount->type));
    field = next_field(&at, &length);
    copy_field(field, length, ret_mount->source, sizeof(ret_mount->source));
    return true;
}

static bool is_below(const char *path, const char *point)
{
    size_t length = strlen(point);

    if (strcmp(point, "/") == 0)
        return *path == '/';
    return strncmp(path, point, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

bool durable_mount_find(const char *mountinfo, const char *path, struct durable_mount *ret_mount)
{
    struct durable_mount mount;
    size_t longest = 0;

    /* Of several on one point the last one is on top. */
    for (const char *line = mountinfo; *line;) {
        if (parse_line(line, &mount) && is_below(path, mount.point) &&
            strlen(mount.point) >= longest) {
            longest = strlen(mount.point);
            *ret_mount = mount;
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return longest > 0;
}

bool durable_is_memory(const char *path)
{
    struct statfs disk;

    return statfs(path, &disk) == 0 && (disk.f_type == TMPFS_MAGIC || disk.f_type == RAMFS_MAGIC);
}

uint64_t durable_disk_free(const char *folder)
{
    struct statvfs disk;

    return statvfs(folder, &disk) == 0 ? (uint64_t)disk.f_bavail * disk.f_frsize : 0;
}

void durable_disk_describe(const char *folder, char *ret_text, size_t bytes)
{
    size_t length;
    char *mountinfo = perf_read_file("/proc/self/mountinfo", MOUNTINFO_MOST, &length);
    struct durable_mount mount;
    char room[PERF_TEXT_BYTES];

    (void)perf_text_value((double)durable_disk_free(folder), PERF_BYTES, room);
    if (mountinfo && durable_mount_find(mountinfo, folder, &mount))
        (void)snprintf(ret_text, bytes, "%s on %s, mounted on %s: %s, %s free%s", mount.type,
                       mount.source, mount.point, folder, room,
                       durable_is_memory(folder) ? "; in memory, where syncing is free" : "");
    else
        (void)snprintf(ret_text, bytes, "%s, %s free", folder, room);
    free(mountinfo);
}

/* ---- folders --------------------------------------------------------------------------------- */

static bool make_below(const char *parent, char ret_folder[static PERF_PATH_BYTES])
{
    static const char name[] = "/shmq-perf.XXXXXX";
    char real[PATH_MAX];

    if (!realpath(parent, real))
        return false;
    if (strlen(real) > PARENT_MOST) {
        errno = ENAMETOOLONG;
        return false;
    }
    (void)snprintf(ret_folder, PERF_PATH_BYTES, "%.*s%s", (int)PARENT_MOST,
                   strcmp(real, "/") == 0 ? "" : real, name);
    return mkdtemp(ret_folder) != NULL;
}

int durable_disk_folder(const char *given, char ret_folder[static PERF_PATH_BYTES],
                        struct error_buffer *why)
{
    const char *candidates[] = {getenv("TMPDIR"), "/var/tmp", "."};
    char text[128];

    if (given)
        return make_below(given, ret_folder)
                   ? 0
                   : error_set(why, SHMQ_ESYS,
                               "state directory: %.200s: %s; name a folder that can be written",
                               given, error_errno_text(errno, text, sizeof(text)));
    for (int memory = 0; memory < 2; memory++) {
        for (size_t i = 0; i < COUNT_OF(candidates); i++) {
            if (candidates[i] && durable_is_memory(candidates[i]) == (memory != 0) &&
                make_below(candidates[i], ret_folder))
                return 0;
        }
    }
    return error_set(why, SHMQ_ESYS,
                     "state directory: neither $TMPDIR nor /var/tmp can be written; name a folder "
                     "with --state-dir");
}

/* ---- files ----------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *status UNUSED, int type UNUSED,
                      struct FTW *walk UNUSED)
{
    (void)remove(path);
    return 0;
}

bool durable_remove(const char *folder)
{
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return access(folder, F_OK) < 0;
}

/* nftw() hands nothing on. One thread. */
static struct {
    durable_walk_fn *fn;
    void *context;
} walk;

static int show_one(const char *path, const struct stat *status UNUSED, int type, struct FTW *where)
{
    if (type == FTW_F)
        walk.fn(path, path + where->base, walk.context);
    return 0;
}

void durable_walk(const char *folder, durable_walk_fn *fn, void *context)
{
    walk.fn = fn;
    walk.context = context;
    (void)nftw(folder, show_one, 16, FTW_PHYS);
}

static void evict_one(const char *path, const char *name UNUSED, void *context UNUSED)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)fdatasync(fd); /* dirty pages stay */
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)close(fd);
}

void durable_evict(const char *folder)
{
    durable_walk(folder, evict_one, NULL);
}
