/* SPDX-License-Identifier: Apache-2.0 */
/* listener.c: see listener.h. */
#include "daemon/listener.h"

#include "daemon/log.h"
#include "libshmq/fault.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024 /* thousands come at once when a supervisor restarts; the kernel caps it */

static void fill_address(const struct paths *paths, struct sockaddr_un *address)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, paths->socket, strnlen(paths->socket, sizeof(address->sun_path) - 1));
}

static int make_socket(struct error_buffer *why)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0 ? fd : error_set_errno(why, errno, "control socket");
}

/* Whether somebody listens there. A full backlog is somebody. */
static bool is_answered(const struct sockaddr_un *address)
{
    struct error_buffer why;
    int fd = make_socket(&why);
    bool answered;

    if (fd < 0)
        return true;
    answered = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
               errno == EAGAIN || errno == EACCES || errno == EPERM;
    (void)close(fd);
    return answered;
}

bool listener_is_answered(const struct paths *paths)
{
    struct sockaddr_un address;

    fill_address(paths, &address);
    return is_answered(&address);
}

static int bind_socket(int fd, const struct paths *paths, struct error_buffer *why)
{
    struct sockaddr_un address;

    fill_address(paths, &address);
    for (int attempt = 0; attempt < 3; attempt++) {
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
            return 0;
        if (errno != EADDRINUSE)
            return error_set_errno(why, errno, "control socket %s", paths->socket);
        if (is_answered(&address))
            break;
        if (unlink(paths->socket) == 0)
            log_info("control socket %s: left by a supervisor that died; removed", paths->socket);
    }
    return error_set(
        why, SHMQ_EBUSY,
        "control socket %s: another supervisor answers on it; stop that one, or choose "
        "another --bus or --runtime-dir",
        paths->socket);
}

static int find_group(const char *name, gid_t *ret_gid, struct error_buffer *why)
{
    struct group group, *found = NULL;
    char buffer[4096];
    char *end;
    unsigned long number;

    errno = 0;
    number = strtoul(name, &end, 10);
    if (errno == 0 && *end == '\0' && end != name) {
        *ret_gid = (gid_t)number;
        return 0;
    }
    if (getgrnam_r(name, &group, buffer, sizeof(buffer), &found) != 0 || !found)
        return error_set(
            why, SHMQ_EINVAL,
            "[bus] socket_group = %s: there is no such group; create it, or give a number", name);
    *ret_gid = found->gr_gid;
    return 0;
}

static int set_access(const struct paths *paths, const struct config *config,
                      struct error_buffer *why)
{
    gid_t gid;
    int rc;

    if (config->socket_group[0] != '\0') {
        rc = find_group(config->socket_group, &gid, why);
        if (rc < 0)
            return rc;
        if (lchown(paths->socket, (uid_t)-1, gid) != 0)
            return error_set_errno(why, errno, "control socket %s: group %s", paths->socket,
                                   config->socket_group);
    }
    if (chmod(paths->socket, (mode_t)config->socket_mode) != 0)
        return error_set_errno(why, errno, "control socket %s: mode", paths->socket);
    return 0;
}

int listener_open(const struct paths *paths, const struct config *config, int *ret_fd,
                  struct error_buffer *why)
{
    int fd = make_socket(why);
    int rc;

    if (fd < 0)
        return fd;
    rc = bind_socket(fd, paths, why);
    if (rc < 0) {
        (void)close(fd);
        return rc;
    }
    FAULT("start.socket.bound");
    rc = set_access(paths, config, why);
    if (rc == 0 && listen(fd, BACKLOG) != 0)
        rc = error_set_errno(why, errno, "control socket %s", paths->socket);
    if (rc < 0) {
        (void)unlink(paths->socket);
        (void)close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

void listener_unlink(const struct paths *paths, int fd)
{
    struct sockaddr_un address, bound;
    socklen_t length = sizeof(bound);

    /* Nobody else binds this name while we live: the lock on B sees to it. */
    fill_address(paths, &address);
    if (getsockname(fd, (struct sockaddr *)&bound, &length) == 0 &&
        strcmp(bound.sun_path, address.sun_path) == 0)
        (void)unlink(paths->socket);
}
