/* SPDX-License-Identifier: Apache-2.0 */
/* liveness.c: OFD locks, pidfds and /proc; what they mean stands in liveness.h. */
#include "libshmq/liveness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "libshmq/base.h"
#include "libshmq/error.h"
#include "libshmq/layout.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* the same on every architecture */
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#define MEMBARRIER_GLOBAL 1

/* ---- locks ----------------------------------------------------------------------------------- */

static struct flock one_byte(short type, uint64_t byte)
{
    return (struct flock){
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = (off_t)byte,
        .l_len = 1,
        .l_pid = 0, /* OFD locks demand it */
    };
}

static int set_lock(int fd, short type, uint64_t byte)
{
    struct flock lock = one_byte(type, byte);

    if (byte > INT64_MAX - 1)
        return SHMQ_EINVAL;
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? SHMQ_EBUSY : SHMQ_ESYS;
}

int liveness_lock(int bus_fd, uint64_t client)
{
    return client == CLIENT_NONE ? SHMQ_EINVAL : set_lock(bus_fd, F_RDLCK, client);
}

int liveness_lock_exclusive(int bus_fd, uint64_t client)
{
    return client == CLIENT_NONE ? SHMQ_EINVAL : set_lock(bus_fd, F_WRLCK, client);
}

bool liveness_is_dead(int bus_fd, uint64_t client)
{
    /* Asks whether an exclusive lock would meet anything; no permission to write is needed.
     * ORDER death -> resolve: the kernel drops a client's lock after its last instruction, and
     * takes locks of its own for that and for this question: what the dead have stored stands
     * before the answer. */
    struct flock lock = one_byte(F_WRLCK, client);

    if (client > INT64_MAX - 1)
        return false;
    return fcntl(bus_fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

int liveness_trylock_recovery(int producers_fd)
{
    return set_lock(producers_fd, F_WRLCK, (uint64_t)PRODUCERS_RECOVERY_BYTE);
}

void liveness_unlock_recovery(int producers_fd)
{
    (void)set_lock(producers_fd, F_UNLCK, (uint64_t)PRODUCERS_RECOVERY_BYTE);
}

/* ---- pidfds ---------------------------------------------------------------------------------- */

static int error_of_pidfd(int error_number)
{
    switch (error_number) {
    case ESRCH:
    case ENODATA:
        return SHMQ_ECLOSED;
    default:
        return error_from_errno(error_number);
    }
}

int liveness_open_pidfd(pid_t pid, int *ret_pidfd)
{
    long fd;

    if (pid <= 0)
        return SHMQ_ECLOSED;
    fd = syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return error_of_pidfd(errno);
    *ret_pidfd = (int)fd;
    return 0;
}

int liveness_peer_pidfd(int socket_fd, int *ret_pidfd)
{
    struct ucred peer = {0};
    socklen_t length = sizeof(int);
    int fd = -1;

    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &length) == 0 && fd >= 0) {
        *ret_pidfd = fd;
        return 0;
    }
    /* EINVAL is said of a peer that was reaped before anybody asked, by some kernels: the pid then
     * says the same. A recycled pid cannot be told apart here; the client's lock in B can. */
    length = sizeof(peer);
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return error_from_errno(errno);
    return liveness_open_pidfd(peer.pid, ret_pidfd);
}

/* ---- /proc ----------------------------------------------------------------------------------- */

/* Reads /proc/PID/`file`, up to bytes - 1, into a string. Returns its length or a negative
 * error. */
static ssize_t read_proc(pid_t pid, const char *file, char *buffer, size_t bytes)
{
    char path[64];
    size_t length = 0;
    ssize_t got;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%ld/%s", (long)pid, file);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ESRCH ? SHMQ_ECLOSED : SHMQ_ESYS;
    for (;;) {
        got = read(fd, buffer + length, bytes - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
        if (length == bytes - 1)
            break;
    }
    (void)close(fd);
    if (got < 0)
        return errno == ESRCH ? SHMQ_ECLOSED : SHMQ_ESYS;
    buffer[length] = '\0';
    return (ssize_t)length;
}

static bool is_dumping_core(pid_t pid)
{
    char status[16384]; /* 1 KiB as a rule; but supplementary groups stand before the line */

    /* The name in the first line has its newlines escaped: nobody can fake a line. */
    return pid > 0 && read_proc(pid, "status", status, sizeof(status)) > 0 &&
           strstr(status, "\nCoreDumping:\t1\n") != NULL;
}

/* The kernel shows CoreDumping a moment before it has marked the process's other threads for death,
 * and one of them may be running on another CPU. It marks them with interrupts off: after one RCU
 * grace period all are marked, after another each CPU has met an interrupt or a switch since, on
 * whose way back a marked thread ends. membarrier(GLOBAL) is such a period. */
static void await_other_threads(void)
{
    const struct timespec long_enough = {.tv_nsec = 10 * 1000 * 1000};

    for (int i = 0; i < 2; i++) {
        if (syscall(SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) != 0)
            (void)nanosleep(&long_enough, NULL); /* refused with nohz_full, or by a filter */
    }
}

bool liveness_process_is_gone(int pidfd, pid_t pid)
{
    struct pollfd ask = {.fd = pidfd, .events = POLLIN};
    int result;

    do {
        result = poll(&ask, 1, 0);
    } while (result < 0 && errno == EINTR);
    if (result > 0 && (ask.revents & POLLIN))
        return true;
    /* Not ended, so the pid is still its own. A dump may take minutes, and nobody comes back from
     * it. */
    if (result != 0 || !is_dumping_core(pid))
        return false;
    await_other_threads();
    return true;
}

int liveness_start_time(pid_t pid, uint64_t *ret_start_time)
{
    char stat[1024];
    char *at, *end;
    unsigned long long value;
    ssize_t length = pid <= 0 ? SHMQ_ECLOSED : read_proc(pid, "stat", stat, sizeof(stat));

    if (length < 0)
        return (int)length;
    /* The command (field 2) may hold blanks and brackets: the last bracket ends it. */
    at = strrchr(stat, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return SHMQ_ESYS;
    errno = 0;
    value = strtoull(at + 1, &end, 10);
    if (errno != 0 || end == at + 1)
        return SHMQ_ESYS;
    *ret_start_time = value;
    return 0;
}

void liveness_command(pid_t pid, char ret_command[16])
{
    char command[32];
    size_t length = 0;

    if (pid > 0 && read_proc(pid, "comm", command, sizeof(command)) > 0) {
        while (length < 15 && command[length] != '\0' && command[length] != '\n') {
            unsigned char byte = (unsigned char)command[length];

            ret_command[length++] = byte < 0x20 || byte == 0x7f ? '?' : (char)byte;
        }
    }
    if (length == 0)
        ret_command[length++] = '?';
    memset(ret_command + length, 0, 16 - length);
}
