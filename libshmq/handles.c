/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handles.c: fork handlers, tracked descriptors, errors a thread; see handles.h.
 *
 * If the process dies here nothing is owed: all of it is private memory.
 */
#include "libshmq/handles.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libshmq/layout.h"

_Atomic uint32_t handles_fork_count;

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct tracked_fd *list; /* under list_lock */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_result;
static _Atomic uint64_t last_serial;

/* One a thread, not one a handle: threads share connections, and each asks about its own call. */
static _Thread_local struct error_buffer thread_error;
static _Thread_local uint64_t thread_error_serial;

/* ---- fork ------------------------------------------------------------------------------------ */

static void before_fork(void)
{
    (void)pthread_mutex_lock(&list_lock);
}

static void after_fork_in_parent(void)
{
    (void)pthread_mutex_unlock(&list_lock);
}

/* Async-signal-safe: other threads of the parent may have held any lock but ours. */
static void after_fork_in_child(void)
{
    for (struct tracked_fd *t = list; t; t = t->next) {
        (void)close(t->fd);
        t->fd = -1;
    }
    list = NULL;
    (void)atomic_fetch_add_explicit(&handles_fork_count, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&list_lock);
}

static void register_handlers(void)
{
    once_result = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int handles_init(void)
{
    (void)pthread_once(&once, register_handlers);
    return once_result == 0 ? 0 : SHMQ_ENOMEM;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

void handles_lock(void)
{
    (void)pthread_mutex_lock(&list_lock);
}

void handles_unlock(void)
{
    (void)pthread_mutex_unlock(&list_lock);
}

void handles_track_locked(struct tracked_fd *tracked, int fd)
{
    tracked->fd = fd;
    tracked->next = list;
    tracked->link = &list;
    if (list)
        list->link = &tracked->next;
    list = tracked;
}

void handles_track(struct tracked_fd *tracked, int fd)
{
    handles_lock();
    handles_track_locked(tracked, fd);
    handles_unlock();
}

static int untrack_locked(struct tracked_fd *tracked)
{
    int fd = tracked->fd;

    if (fd >= 0) {
        *tracked->link = tracked->next;
        if (tracked->next)
            tracked->next->link = tracked->link;
    }
    *tracked = (struct tracked_fd){.fd = -1};
    return fd;
}

int handles_untrack(struct tracked_fd *tracked)
{
    int fd;

    handles_lock();
    fd = untrack_locked(tracked);
    handles_unlock();
    return fd;
}

void handles_close_fd(struct tracked_fd *tracked)
{
    /* Closed under the lock: a fork in between would give the child an untracked copy. */
    handles_lock();
    int fd = untrack_locked(tracked);

    if (fd >= 0)
        (void)close(fd);
    handles_unlock();
}

void handles_move_fd(struct tracked_fd *to, struct tracked_fd *from)
{
    handles_lock();
    int fd = untrack_locked(from);

    *to = (struct tracked_fd){.fd = -1};
    if (fd >= 0)
        handles_track_locked(to, fd);
    handles_unlock();
}

/* ---- memory ---------------------------------------------------------------------------------- */

void *handles_alloc(size_t count, size_t bytes)
{
    size_t all;
    void *memory;

    if (__builtin_mul_overflow(count, bytes, &all) || all > SIZE_MAX - LAYOUT_SPACING)
        return NULL;
    all = align_up_u64(all, LAYOUT_SPACING);
    memory = aligned_alloc(LAYOUT_SPACING, all);
    return memory ? memset(memory, 0, all) : NULL;
}

/* ---- errors ---------------------------------------------------------------------------------- */

struct error_buffer *handles_error(uint64_t serial)
{
    thread_error.text[0] = '\0';
    thread_error_serial = serial;
    return &thread_error;
}

const char *handles_error_text(uint64_t serial)
{
    return serial == 0 || serial == thread_error_serial ? thread_error.text : "";
}

uint64_t handles_next_serial(void)
{
    return atomic_fetch_add_explicit(&last_serial, 1, memory_order_relaxed) + 1;
}

int handles_fork_error(uint64_t serial)
{
    return error_set(handles_error(serial), SHMQ_EFORK,
                     "handle of the parent process: it cannot be used in a forked child; connect "
                     "again in the child");
}

int handles_usage_error(uint64_t serial, const char *sentence)
{
    return error_set(handles_error(serial), SHMQ_EINVAL, "%s", sentence);
}
