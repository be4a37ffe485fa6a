/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handles.h: what all handles of the client library have in common: noticing a fork, descriptors
 * that a child must not keep, and the sentence of the last error.
 *
 * Fork. Handles remember the process-wide count of forks that made this process; a child's is one
 * higher, so every call with a parent's handle sees it with one relaxed load and returns
 * SHMQ_EFORK. The child must never touch the mappings: they are not there (MADV_DONTFORK), and
 * something else may be by now. It must not keep the descriptors either: some carry locks that say
 * "this client lives", and a child that kept them would keep its dead parent alive. So they are
 * tracked in a list, and the handler that runs in the child closes them before fork() returns
 * there. The list's lock is held across fork(); nobody holds it while blocking, and descriptors
 * that arrive over the socket are received and tracked under it.
 *
 * Threads: everything here may be called from any thread.
 */
#ifndef SHMQ_HANDLES_H
#define SHMQ_HANDLES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libshmq/base.h"
#include "libshmq/error.h"

struct shmq_connection;

/* Changed by the fork handler alone, when the process has one thread. Hidden: read without a detour by the
 * table of symbols. */
extern _Atomic uint32_t handles_fork_count __attribute__((visibility("hidden")));

/* Remembered by every handle at its birth. */
static ALWAYS_INLINE uint32_t handles_fork_now(void)
{
    return atomic_load_explicit(&handles_fork_count, memory_order_relaxed);
}

/* Relaxed: a child sees its own handler's store, and no other thread ever changes it. */
static ALWAYS_INLINE bool handles_forked(uint32_t fork_count)
{
    return UNLIKELY(handles_fork_now() != fork_count);
}

/* Registers the fork handlers, once a process. 0 or SHMQ_ENOMEM. */
int handles_init(void);

/* An open descriptor in the list; stands in its owner. {.fd = -1} is an empty one. */
struct tracked_fd {
    struct tracked_fd *next;
    struct tracked_fd **link; /* what points to this one; NULL: not in the list */
    int fd;
};

void handles_lock(void);
void handles_unlock(void);

/* Under the lock. The descriptor belongs to `tracked` from here on. */
void handles_track_locked(struct tracked_fd *tracked, int fd);
void handles_track(struct tracked_fd *tracked, int fd);

/* Takes it out of the list and returns it, still open; the caller closes it. -1 if empty. */
int handles_untrack(struct tracked_fd *tracked);

/* Closes it; an empty one is fine. Not with a parent's handle: it is closed there already. */
void handles_close_fd(struct tracked_fd *tracked);

/* `to` is empty; afterwards `from` is. */
void handles_move_fd(struct tracked_fd *to, struct tracked_fd *from);

/* This thread's buffer, emptied, for an error of a call on the connection numbered `serial` (0: of
 * a call that has none). Public calls take it when they begin to fail, or on their way into what
 * may. */
struct error_buffer *handles_error(uint64_t serial);

/* The sentence; "" if this thread's last error was another connection's. Serial 0: whatever it was.
 */
const char *handles_error_text(uint64_t serial);

/* Zeroed memory for `count` things of `bytes` each on cache lines of its own: two threads' producers and
 * consumers, which each of them writes all the time, must not lie side by side. free() gives it back.
 * NULL: there is none. */
void *handles_alloc(size_t count, size_t bytes);

/* A number that no other connection of this process has. */
uint64_t handles_next_serial(void);

/* SHMQ_EFORK, with its sentence. */
int handles_fork_error(uint64_t serial) COLD;

/* SHMQ_EINVAL, with `what: why`. */
int handles_usage_error(uint64_t serial, const char *sentence) COLD;

#endif
