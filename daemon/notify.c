/* SPDX-License-Identifier: Apache-2.0 */
/* sd_notify and LISTEN_FDS without libsystemd; see notify.h. */
#include "daemon/notify.h"

#include "libshmq/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LISTEN_FDS_START 3

int notify_send(const char *state, struct error_buffer *why)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = path ? strlen(path) : 0;
    CLEANUP_CLOSE int fd = -1;

    if (length == 0)
        return 0;
    if ((path[0] != '/' && path[0] != '@') || length >= sizeof(address.sun_path))
        return error_set(why, SHMQ_ENOTSUP,
                         "$NOTIFY_SOCKET '%.120s': neither a path nor an abstract socket; the "
                         "service manager was not told",
                         path);
    memcpy(address.sun_path, path, length + 1);
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* abstract: the length says where the name ends, not a NUL */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set_errno(why, errno, "service manager: socket");
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
        return error_set_errno(why, errno, "service manager: $NOTIFY_SOCKET %.120s", path);
    return 1;
}

int notify_ready(struct error_buffer *why)
{
    return notify_send("READY=1\n", why);
}

int notify_stopping(struct error_buffer *why)
{
    return notify_send("STOPPING=1\n", why);
}

int notify_reloading(struct error_buffer *why)
{
    char state[96];

    (void)snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu\n",
                   (unsigned long long)(clock_monotonic_ns() / NS_PER_US));
    return notify_send(state, why);
}

int notify_status(struct error_buffer *why, const char *format, ...)
{
    char state[256] = "STATUS=";
    size_t prefix = strlen(state);
    va_list arguments;

    va_start(arguments, format);
    if (vsnprintf(state + prefix, sizeof(state) - prefix - 1, format, arguments) < 0)
        state[prefix] = '\0';
    va_end(arguments);
    for (char *at = state; *at; at++) {
        if (*at == '\n')
            *at = ' ';
    }
    memcpy(state + strlen(state), "\n", 2);
    return notify_send(state, why);
}

/* The variables are for this process if LISTEN_PID says so. Returns the number of sockets. */
static int read_listen_count(void)
{
    const char *pid = getenv("LISTEN_PID");
    const char *fds = getenv("LISTEN_FDS");
    char *end;
    long count;

    if (!pid || !fds || strtol(pid, &end, 10) != (long)getpid() || *end)
        return 0;
    count = strtol(fds, &end, 10);
    return *fds && !*end && count > 0 && count < 1024 ? (int)count : 0;
}

static int get_option(int fd, int option)
{
    int value = -1;
    socklen_t length = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &length) < 0 ? -1 : value;
}

static const char *check_socket(int fd)
{
    if (get_option(fd, SO_DOMAIN) != AF_UNIX || get_option(fd, SO_TYPE) != SOCK_SEQPACKET)
        return "it is not a sequential-packet Unix socket; use ListenSequentialPacket=";
    if (get_option(fd, SO_ACCEPTCONN) != 1)
        return "it does not listen; leave out Accept=yes";
    return NULL;
}

int notify_take_socket(int *ret_fd, struct error_buffer *why)
{
    int count = read_listen_count();
    const char *reason;

    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    if (count == 0)
        return 0;
    for (int fd = LISTEN_FDS_START; fd < LISTEN_FDS_START + count; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (count > 1)
        return error_set(
            why, SHMQ_EINVAL,
            "socket unit: hands over %d sockets, but shmqd has one; keep one Listen line", count);
    reason = check_socket(LISTEN_FDS_START);
    if (reason)
        return error_set(why, SHMQ_EINVAL, "socket unit: the socket is of no use: %s", reason);
    *ret_fd = LISTEN_FDS_START;
    return 1;
}
