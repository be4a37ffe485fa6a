/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock of a state directory: two supervisors with one journal would interleave their records. An
 * OFD lock on a file that is never unlinked (or a third could lock a new file of that name). The
 * kernel drops it when the last descriptor of the description is closed, by whatever death.
 */
#include "daemon/store.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>

#define LOCK_NAME "lock"

/* Advice for the message alone: the pid may have ended a moment ago. 0: unreadable. */
static long read_holder(int fd)
{
    char text[32] = "";
    ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
    char *end;
    long pid = length > 0 ? strtol(text, &end, 10) : 0;

    return pid > 0 && *end == '\n' ? pid : 0;
}

static void write_holder(int fd)
{
    char text[32];
    int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

    /* Nobody depends on it: a full disk must not keep shmqd from starting. */
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) < 0)
        return;
}

static int refuse_busy(const char *dir, int fd, struct error_buffer *why)
{
    long pid = read_holder(fd);
    char holder[48] = "another process";

    if (pid)
        (void)snprintf(holder, sizeof(holder), "the shmqd with pid %ld", pid);
    return error_set(why, SHMQ_EBUSY,
                     "state directory %.200s: in use by %s; stop that one, wait for it with "
                     "--standby, or choose another --bus or --state-dir",
                     dir, holder);
}

static int open_lock(const char *dir, struct error_buffer *why)
{
    CLEANUP_CLOSE int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = -1;

    if (dir_fd >= 0)
        fd = openat(dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set_errno(why, errno, "state directory %.200s: its lock", dir);
    return fd;
}

/* 0; 1: somebody else has it; or a negative error. */
static int try_lock(const char *dir, int fd, struct error_buffer *why)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_OFD_SETLK, &whole) == 0) {
        FAULT("store.lock.taken");
        write_holder(fd);
        return 0;
    }
    if (errno == EAGAIN || errno == EACCES)
        return 1;
    return error_set_errno(why, errno, "state directory %.200s: its lock", dir);
}

int store_lock(const char *dir, int *ret_fd, struct error_buffer *why)
{
    CLEANUP_CLOSE int fd = open_lock(dir, why);
    int rc = fd < 0 ? fd : try_lock(dir, fd, why);

    if (rc == 1)
        return refuse_busy(dir, fd, why);
    if (rc == 0)
        *ret_fd = steal_fd(&fd);
    return rc;
}

/* Not F_OFD_SETLKW: a signal that comes just before it would be slept through. Returns 1 if a signal
 * handler ran, else 0. *gone: the holder has ended, yet the lock is held (by a child that inherited it,
 * or the pid is out of date), so that its pidfd would no longer let us sleep. */
static int sleep_until_gone(int fd, const sigset_t *mask, bool *gone)
{
    long pid = *gone ? 0 : read_holder(fd);
    CLEANUP_CLOSE int pid_fd = pid ? (int)syscall(SYS_pidfd_open, (pid_t)pid, 0) : -1;
    struct pollfd holder = {.fd = pid_fd, .events = POLLIN};
    struct timespec limit = timespec_from_ns(pid_fd >= 0 ? NS_PER_S : NS_PER_S / 10);
    int ready = ppoll(&holder, 1, &limit, mask);

    if (ready < 0)
        return errno == EINTR;
    *gone = ready > 0;
    return 0;
}

int store_lock_wait(const char *dir, const sigset_t *mask, int *ret_fd, struct error_buffer *why)
{
    CLEANUP_CLOSE int fd = open_lock(dir, why);
    int rc = fd < 0 ? fd : 1;
    bool gone = false;

    while (rc == 1) {
        rc = try_lock(dir, fd, why);
        if (rc == 1 && sleep_until_gone(fd, mask, &gone))
            return 1;
    }
    if (rc == 0)
        *ret_fd = steal_fd(&fd);
    return rc;
}
