/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors, deferred calls, signals and the rounds themselves; see loop.h. Timers: loop_timer.c. */
#include "daemon/loop.h"

#include "daemon/loop_internal.h"
#include "libshmq/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

static void drain_counter(int fd)
{
    uint64_t count;
    ssize_t got;

    do
        got = read(fd, &count, sizeof(count));
    while (got < 0 && errno == EINTR);
}

static void on_wake(struct loop_source *source, uint32_t events, void *context)
{
    struct loop *loop = context;

    (void)events;
    drain_counter(source->fd); /* before the callback: a wake during it must not get lost */
    if (loop->wake_callback)
        loop->wake_callback(loop->wake_context);
}

static void on_timer_fd(struct loop_source *source, uint32_t events, void *context)
{
    struct loop *loop = context;

    (void)events;
    drain_counter(source->fd);
    loop->armed_ns = 0; /* it is one-shot; the due timers are called at the end of the round */
}

int loop_init(struct loop *loop, struct error_buffer *why)
{
    int wake_fd = -1;
    int rc;

    memset(loop, 0, sizeof(*loop));
    atomic_init(&loop->stopping, false);
    loop->now_ns = clock_monotonic_ns();
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->timer_fd < 0 || wake_fd < 0)
        rc = error_set_errno(why, errno, "event loop");
    else
        rc = loop_add(loop, &loop->wake_source, wake_fd, EPOLLIN, on_wake, loop, why);
    if (rc == 0)
        rc = loop_add(loop, &loop->timer_source, loop->timer_fd, EPOLLIN, on_timer_fd, loop, why);
    if (rc == 0)
        return 0;
    cleanup_close(&wake_fd);
    cleanup_close(&loop->timer_fd);
    cleanup_close(&loop->epoll_fd);
    return rc;
}

void loop_deinit(struct loop *loop)
{
    (void)close(loop->wake_source.fd);
    (void)close(loop->timer_fd);
    (void)close(loop->epoll_fd);
}

void loop_stop(struct loop *loop)
{
    /* ORDER loop_stop -> loop_run: what was done before the stop is seen by whoever goes on after
     * loop_run(); pairs with the acquire there. */
    atomic_store_explicit(&loop->stopping, true, memory_order_release);
    loop_wake(loop);
}

void loop_wake(struct loop *loop)
{
    uint64_t one = 1;
    int saved_errno = errno; /* of the code that a signal handler interrupted */
    ssize_t written = write(loop->wake_source.fd, &one, sizeof(one));

    (void)
        written; /* fails only if 2^64 - 2 wakes are pending, and then one more says nothing new */
    errno = saved_errno;
}

void loop_on_wake(struct loop *loop, void (*callback)(void *context), void *context)
{
    loop->wake_callback = callback;
    loop->wake_context = context;
}

int loop_add(struct loop *loop, struct loop_source *source, int fd, uint32_t events,
             loop_source_fn *callback, void *context, struct error_buffer *why)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return error_set_errno(why, errno, "event loop: adding descriptor %d", fd);
    source->loop = loop;
    source->fd = fd;
    source->events = events;
    source->callback = callback;
    source->context = context;
    return 0;
}

int loop_modify(struct loop_source *source, uint32_t events, struct error_buffer *why)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (source->events == events)
        return 0;
    if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
        return error_set_errno(why, errno, "event loop: changing descriptor %d", source->fd);
    source->events = events;
    return 0;
}

void loop_remove(struct loop_source *source)
{
    struct loop *loop = source->loop;

    if (!loop)
        return;
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    /* Its event may have been fetched with this batch, and the owner is about to free it. */
    for (int i = loop->batch_next; i < loop->batch_count; i++) {
        if (loop->batch[i].data.ptr == source)
            loop->batch[i].data.ptr = NULL;
    }
    source->loop = NULL;
}

void loop_defer_call(struct loop *loop, struct loop_defer *defer, loop_defer_fn *callback,
                     void *context)
{
    if (defer->loop)
        return;
    defer->loop = loop;
    defer->callback = callback;
    defer->context = context;
    defer->next = NULL;
    defer->previous = loop->defer_last;
    if (loop->defer_last)
        loop->defer_last->next = defer;
    else
        loop->defer_first = defer;
    loop->defer_last = defer;
}

void loop_defer_stop(struct loop_defer *defer)
{
    struct loop *loop = defer->loop;

    if (!loop)
        return;
    if (defer->previous)
        defer->previous->next = defer->next;
    else
        loop->defer_first = defer->next;
    if (defer->next)
        defer->next->previous = defer->previous;
    else
        loop->defer_last = defer->previous;
    defer->loop = NULL;
}

/* A marker ends the round: it waits in the same list, behind all that is there now. */
static void run_deferred(struct loop *loop)
{
    struct loop_defer *marker = &loop->defer_marker;

    if (!loop->defer_first)
        return;
    loop_defer_call(loop, marker, NULL, NULL);
    while (loop->defer_first != marker) {
        struct loop_defer *defer = loop->defer_first;

        loop_defer_stop(defer);
        defer->callback(defer, defer->context);
    }
    loop_defer_stop(marker);
}

static void run_batch(struct loop *loop, int count)
{
    loop->batch_count = count;
    for (loop->batch_next = 0; loop->batch_next < loop->batch_count;) {
        struct epoll_event event = loop->batch[loop->batch_next++];
        struct loop_source *source = event.data.ptr;

        if (source)
            source->callback(source, event.events, source->context);
    }
    loop->batch_count = 0;
    loop->batch_next = 0;
}

int loop_run_once(struct loop *loop, int timeout_ms, struct error_buffer *why)
{
    int count;
    int rc = loop_timers_arm(loop, why);

    if (rc < 0)
        return rc;
    count = epoll_wait(loop->epoll_fd, loop->batch, LOOP_BATCH, loop->defer_first ? 0 : timeout_ms);
    if (count < 0 && errno != EINTR)
        return error_set_errno(why, errno, "event loop");
    loop->now_ns = clock_monotonic_ns();
    run_batch(loop, count > 0 ? count : 0);
    loop_timers_run(loop);
    run_deferred(loop);
    return 0;
}

int loop_run(struct loop *loop, struct error_buffer *why)
{
    int rc = 0;

    /* ORDER loop_stop -> loop_run: pairs with the release in loop_stop(). */
    while (rc == 0 && !atomic_load_explicit(&loop->stopping, memory_order_acquire))
        rc = loop_run_once(loop, -1, why);
    /* Relaxed: only this thread runs the loop again, and it has seen the stop. */
    atomic_store_explicit(&loop->stopping, false, memory_order_relaxed);
    return rc;
}

static void on_signal_fd(struct loop_source *source, uint32_t events, void *context)
{
    struct loop_signals *signals = context;
    struct signalfd_siginfo info;

    (void)events;
    /* One a call: the callback may take the signals away again, and with them the descriptor. */
    if (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        signals->callback(&info, signals->context);
}

int loop_signals_add(struct loop *loop, struct loop_signals *signals, const sigset_t *set,
                     loop_signal_fn *callback, void *context, struct error_buffer *why)
{
    CLEANUP_CLOSE int fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    int rc;

    if (fd < 0)
        return error_set_errno(why, errno, "signals");
    signals->callback = callback;
    signals->context = context;
    rc = loop_add(loop, &signals->source, fd, EPOLLIN, on_signal_fd, signals, why);
    if (rc < 0)
        return rc;
    (void)pthread_sigmask(SIG_BLOCK, set, &signals->previous);
    (void)steal_fd(&fd);
    return 0;
}

void loop_signals_remove(struct loop_signals *signals)
{
    if (!signals->source.loop)
        return;
    loop_remove(&signals->source);
    (void)close(signals->source.fd);
    (void)pthread_sigmask(SIG_SETMASK, &signals->previous, NULL);
}
