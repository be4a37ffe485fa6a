/* SPDX-License-Identifier: Apache-2.0 */
/* The part of paths.h that touches the file system: canonical names, checks, new directories.
 * If the process dies here, some of the directories exist; the next start makes the others. */
#include "libshmq/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Takes the last part off `path`, "." and double slashes included. Returns it, or NULL at the root. */
static char *cut_last_part(char *path)
{
    size_t length = strlen(path);

    for (;;) {
        char *slash;

        while (length > 1 && path[length - 1] == '/')
            path[--length] = '\0';
        slash = strrchr(path, '/');
        if (!slash || !slash[1])
            return NULL;
        if (strcmp(slash + 1, ".") != 0) {
            *slash = '\0'; /* "/a" leaves "": the caller puts the root's slash back */
            return slash + 1;
        }
        length = (size_t)(slash - path);
        path[length ? length : 1] = '\0';
        length = strlen(path);
    }
}

/* realpath() of the part that exists, then the rest. Recursion is as deep as the path has parts. */
static int canonicalize_part(char *path, char ret_path[PATH_MAX])
{
    char *last;
    size_t length;
    int rc;

    if (realpath(*path ? path : "/", ret_path))
        return 0;
    if (errno != ENOENT)
        return -errno;
    last = cut_last_part(path);
    if (!last)
        return -ENOENT;
    if (strcmp(last, "..") == 0)
        return -ENOENT; /* the parent of what does not exist: nothing good comes of guessing */
    rc = canonicalize_part(path, ret_path);
    if (rc < 0)
        return rc;
    length = strlen(ret_path);
    if (length + strlen(last) + 2 > PATH_MAX)
        return -ENAMETOOLONG;
    if (length > 1)
        ret_path[length++] = '/';
    memcpy(ret_path + length, last, strlen(last) + 1);
    return 0;
}

int paths_canonicalize(const char *directory, char ret_directory[PATHS_DIR_BYTES],
                       struct error_buffer *why)
{
    char path[PATH_MAX];
    char made[PATH_MAX];
    size_t length = 0;
    int rc;

    if (directory[0] != '/') {
        if (!getcwd(path, sizeof(path)))
            return error_set_errno(why, errno, "directory '%.200s': the working directory",
                                   directory);
        length = strlen(path);
        path[length++] = '/'; /* what it overwrites, the NUL, comes with `directory` */
    }
    if (length + strlen(directory) >= sizeof(path))
        return error_set(why, SHMQ_EINVAL, "path '%.300s...': too long; choose a shorter directory",
                         directory);
    memcpy(path + length, directory, strlen(directory) + 1);
    rc = canonicalize_part(path, made);
    if (rc < 0)
        return error_set_errno(why, -rc, "directory '%.300s'", directory);
    if (strlen(made) >= PATHS_DIR_BYTES)
        return error_set(why, SHMQ_EINVAL, "path '%.300s...': too long; choose a shorter directory",
                         made);
    memcpy(ret_directory, made, strlen(made) + 1);
    return 0;
}

int paths_check_fallback(const char *directory, uid_t uid, struct error_buffer *why)
{
    struct stat status;
    const char *reason = NULL;

    /* lstat: a link into somebody else's directory is the attack, not a convenience. /tmp is sticky,
     * so that what was checked here cannot be swapped by others afterwards. */
    if (lstat(directory, &status) < 0) {
        if (errno == ENOENT)
            return 1;
        return error_set_errno(why, errno, "directory %.200s", directory);
    }
    if (S_ISLNK(status.st_mode))
        reason = "it is a symbolic link";
    else if (!S_ISDIR(status.st_mode))
        reason = "it is not a directory";
    else if (status.st_uid != uid)
        reason = "it belongs to another user";
    else if (status.st_mode & 077)
        reason = "other users may enter it";
    if (!reason)
        return 0;
    return error_set(
        why, SHMQ_EPERM,
        "directory %.200s: not to be trusted: %s; remove it, or set $XDG_RUNTIME_DIR or "
        "$SHMQ_RUNTIME_DIR to a directory of your own",
        directory, reason);
}

/* Makes the directory and its parents. The mode is set by hand on what was made here, so that the
 * umask has no say; parents take it too, or nobody could get through them. */
static int make_directories(const char *directory, mode_t mode, struct error_buffer *why)
{
    char path[PATHS_DIR_BYTES];
    size_t length = strlen(directory);

    if (length >= sizeof(path))
        return error_set(why, SHMQ_EINVAL, "path '%.300s...': too long", directory);
    memcpy(path, directory, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        path[i] = '\0';
        if (mkdir(path, mode) == 0) {
            if (chmod(path, mode) < 0)
                return error_set_errno(why, errno, "directory %.200s: setting its mode", path);
        } else {
            int error = errno;

            /* A parent that exists may answer EROFS or EACCES instead of EEXIST. */
            if (error != EEXIST && (i == length || access(path, F_OK) < 0))
                return error_set_errno(why, error, "directory %.200s", path);
        }
        path[i] = i < length ? '/' : '\0';
    }
    return 0;
}

/* What only this user may change: who else could, might put his own socket or journal there. */
static int check_own(const char *directory, struct error_buffer *why)
{
    struct stat status;

    if (stat(directory, &status) < 0)
        return error_set_errno(why, errno, "directory %.200s", directory);
    if (!S_ISDIR(status.st_mode))
        return error_set(why, SHMQ_EPERM, "%.200s: not a directory; remove it or choose another",
                         directory);
    if (status.st_uid != geteuid() && status.st_uid != 0)
        return error_set(why, SHMQ_EPERM,
                         "directory %.200s: belongs to user %lu; remove it or choose another",
                         directory, (unsigned long)status.st_uid);
    if (status.st_mode & 022)
        return error_set(why, SHMQ_EPERM,
                         "directory %.200s: others may write it; run `chmod go-w %.200s`",
                         directory, directory);
    return 0;
}

int paths_create_runtime(const struct paths *paths, bool shared, struct error_buffer *why)
{
    mode_t mode = !paths->fallback && (shared || geteuid() == 0) ? 0755 : 0700;
    int rc = make_directories(paths->runtime_dir, mode, why);

    if (rc == 0 && paths->fallback) {
        rc = paths_check_fallback(paths->runtime_dir, geteuid(), why);
        if (rc > 0)
            rc = error_set(why, SHMQ_EPERM,
                           "directory %.200s: removed by somebody just now; start again",
                           paths->runtime_dir);
    }
    if (rc == 0)
        rc = make_directories(paths->runtime_bus_dir, mode, why);
    return rc == 0 ? check_own(paths->runtime_bus_dir, why) : rc;
}

int paths_create_state(const struct paths *paths, struct error_buffer *why)
{
    int rc;

    if (!paths->state_dir[0])
        return 0;
    rc = make_directories(paths->meta_dir, 0700, why);
    if (rc == 0)
        rc = check_own(paths->state_bus_dir, why);
    return rc == 0 ? check_own(paths->meta_dir, why) : rc;
}
