/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop of the control thread: descriptors, timers, deferred calls, signals.
 *
 * Everything that is watched is embedded in its owner (struct loop_source and so on): the loop
 * allocates nothing, so that nothing here can fail for want of memory while it runs. An owner may
 * remove, free and add anything from inside any callback, itself included: nothing that was removed
 * is called again, not even if its event was already fetched.
 *
 * Exclusion: one thread, the one that runs the loop, makes every call, but for loop_wake() and
 * loop_stop(), which any thread and any signal handler may make between loop_init() and loop_deinit().
 * Blocks only in loop_run(), and there for ever if nothing happens: an idle loop has no wake-ups.
 * Callbacks must not block. Nothing here outlives the process.
 */
#ifndef SHMQ_DAEMON_LOOP_H
#define SHMQ_DAEMON_LOOP_H

#include "libshmq/base.h"
#include "libshmq/error.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#define LOOP_BATCH \
    64 /* events fetched at once: the longest that a timer can be late by callbacks */

struct loop;
struct loop_source;
struct loop_timer;
struct loop_defer;

/* `events` are those of epoll(7) that are there: EPOLLIN, EPOLLOUT, EPOLLHUP, ... */
typedef void loop_source_fn(struct loop_source *source, uint32_t events, void *context);
typedef void loop_timer_fn(struct loop_timer *timer, void *context);
typedef void loop_defer_fn(struct loop_defer *defer, void *context);
typedef void loop_signal_fn(const struct signalfd_siginfo *info, void *context);

/* Zeroed structs of these kinds are "not added": removing or stopping one is legal and does nothing. */
struct loop_source {
    struct loop *loop; /* NULL: not added */
    int fd;
    uint32_t events;
    loop_source_fn *callback;
    void *context;
};

/* A node of a pairing heap. */
struct loop_timer {
    struct loop *loop; /* NULL: not running */
    uint64_t deadline_ns;
    uint64_t sequence; /* equal deadlines go off in the order in which they were set */
    loop_timer_fn *callback;
    void *context;
    struct loop_timer *child; /* first of a list that hangs together by `next` */
    struct loop_timer *next;
    struct loop_timer *previous; /* left sibling, or the parent of a first child */
};

struct loop_defer {
    struct loop *loop; /* NULL: not waiting */
    loop_defer_fn *callback;
    void *context;
    struct loop_defer *next;
    struct loop_defer *previous;
};

struct loop_signals {
    struct loop_source source;
    sigset_t previous; /* mask of the thread before */
    loop_signal_fn *callback;
    void *context;
};

struct loop {
    int epoll_fd;
    int timer_fd;
    struct loop_source wake_source; /* an eventfd */
    struct loop_source timer_source;
    void (*wake_callback)(void *context);
    void *wake_context;

    struct loop_timer *timers; /* root: the earliest */
    uint64_t timer_sequence;
    uint64_t armed_ns; /* what timer_fd is set to; 0: not */
    uint64_t now_ns;   /* monotonic; read once a round */

    struct loop_defer *defer_first;
    struct loop_defer *defer_last;
    struct loop_defer defer_marker;

    struct epoll_event batch[LOOP_BATCH]; /* those not yet called; a removed source is NULL here */
    int batch_count;
    int batch_next;

    _Atomic bool stopping;
};

/* 0 or a negative error; then there is nothing to deinit. */
int loop_init(struct loop *loop, struct error_buffer *why);

/* Whatever is still added is forgotten, not closed. */
void loop_deinit(struct loop *loop);

/* Until loop_stop(), which counts also if it comes first. 0, or the negative error of epoll. */
int loop_run(struct loop *loop, struct error_buffer *why);

/* One round: waits at most `timeout_ms` (-1: for ever) for something to do, and does it. For tests,
 * and for programs with a loop of their own. */
int loop_run_once(struct loop *loop, int timeout_ms, struct error_buffer *why);

/* Any thread, any signal handler. The round that is running is finished. */
void loop_stop(struct loop *loop);

/* Any thread, any signal handler: has the wake callback called in the loop's thread, once for any
 * number of calls before it. */
void loop_wake(struct loop *loop);
void loop_on_wake(struct loop *loop, void (*callback)(void *context), void *context);

/* Time of this round, monotonic ns. */
static inline uint64_t loop_now_ns(const struct loop *loop)
{
    return loop->now_ns;
}

/* Level-triggered. The descriptor stays the caller's: remove it from here before it is closed. 0 or a
 * negative error, and then it is not added. */
int loop_add(struct loop *loop, struct loop_source *source, int fd, uint32_t events,
             loop_source_fn *callback, void *context, struct error_buffer *why);
int loop_modify(struct loop_source *source, uint32_t events, struct error_buffer *why);
void loop_remove(struct loop_source *source);

/* One shot: called once at or after the deadline (monotonic, ns), and then not running. Setting one
 * that runs moves it. What is set from a timer's callback goes off in the next round at the earliest,
 * so that a timer which sets itself cannot starve the descriptors. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns,
                    loop_timer_fn *callback, void *context);
void loop_timer_stop(struct loop_timer *timer);
static inline bool loop_timer_is_set(const struct loop_timer *timer)
{
    return timer->loop != NULL;
}

/* Called once when this round's callbacks are done, in order; what is deferred from there goes into
 * the next round. Deferring what waits already changes nothing. */
void loop_defer_call(struct loop *loop, struct loop_defer *defer, loop_defer_fn *callback,
                     void *context);
void loop_defer_stop(struct loop_defer *defer);

/* Blocks the signals in this thread (threads that it makes later inherit that; other threads must
 * block them too) and has them called here. 0 or a negative error. */
int loop_signals_add(struct loop *loop, struct loop_signals *signals, const sigset_t *set,
                     loop_signal_fn *callback, void *context, struct error_buffer *why);

/* Restores the thread's mask. */
void loop_signals_remove(struct loop_signals *signals);

#endif
