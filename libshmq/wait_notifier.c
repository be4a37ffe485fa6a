/* SPDX-License-Identifier: Apache-2.0 */
/* wait_notifier.c: the thread behind shmq_consumer_fd; the protocol stands in wait_notifier.h. */
#include "libshmq/wait_notifier.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "libshmq/wait_crew.h"

struct wait_notifier {
    pid_t pid; /* whose thread it is: not a forked child's */
    int fd;
    bool fence_mode;
    wait_notifier_check_fn *check;
    void *context;
    struct wait_crew *crew; /* owned, in the crew's sense, by T */
    pthread_t thread;
    struct wait_word *words; /* T's alone: what it sleeps on, outside the lock */

    pthread_mutex_t lock; /* of all below; `armed` is also read without */
    _Atomic bool armed;
    bool paused;
    bool stopping;
    uint32_t event_seen; /* written by C under the lock, and read by C without */
    uint64_t blocked_since_ns;
    const _Atomic uint32_t *event;
    struct wait_point *points;
    uint32_t point_count;
    struct wait_word *fresh_words; /* a buffer for the present set, for T to take over */
};

/* ---- T --------------------------------------------------------------------------------------- */

/* Under the lock, so that whoever sees armed = 0 and then has the lock finds the eventfd written.
 * Disarmed first: the write wakes a consumer that often runs at once, and has to see it. */
static void notify(struct wait_notifier *notifier)
{
    const uint64_t one = 1;
    ssize_t written;

    notifier->blocked_since_ns = 0;
    /* Relaxed: a hint to take the lock, which orders the rest. */
    atomic_store_explicit(&notifier->armed, false, memory_order_relaxed);
    do {
        written = write(notifier->fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    /* EAGAIN, the only other failure, means that it is readable many times over. */
}

/* Under the lock: announces T on every point. Returns the number of words. */
static uint32_t prepare_words(struct wait_notifier *notifier)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < notifier->point_count; i++)
        notifier->words[count++] = wait_prepare(notifier->points[i].wait, notifier->points[i].bit);
    if (notifier->event)
        notifier->words[count++] = (struct wait_word){notifier->event, notifier->event_seen};
    return count;
}

/* Under the lock. Returns how long to sleep; 0: the consumer has been notified, look again. */
static uint64_t look(struct wait_notifier *notifier, uint32_t *ret_count)
{
    uint64_t now_ns;

    *ret_count = prepare_words(notifier);
    wait_barrier(notifier->fence_mode);
    /* Acquire: what the event announces is visible to the consumer that is about to poll. */
    if (notifier->event &&
        atomic_load_explicit(notifier->event, memory_order_acquire) != notifier->event_seen) {
        notify(notifier);
        return 0;
    }
    switch (notifier->check(notifier->context)) {
    case WAIT_NOTIFIER_READY:
        notify(notifier);
        return 0;
    case WAIT_NOTIFIER_BLOCKED:
        now_ns = clock_monotonic_ns();
        if (notifier->blocked_since_ns == 0)
            notifier->blocked_since_ns = now_ns;
        if (now_ns - notifier->blocked_since_ns < WAIT_BLOCKED_NS)
            return notifier->blocked_since_ns + WAIT_BLOCKED_NS - now_ns;
        notify(notifier);
        return 0;
    case WAIT_NOTIFIER_NOTHING:
        break;
    }
    notifier->blocked_since_ns = 0;
    return WAIT_SLEEP_MAX_NS;
}

static void *run_notifier(void *argument)
{
    struct wait_notifier *notifier = argument;

    for (;;) {
        uint32_t begun = wait_crew_begin(notifier->crew);
        uint64_t timeout_ns = WAIT_SLEEP_MAX_NS;
        uint32_t count = 0;

        (void)pthread_mutex_lock(&notifier->lock);
        if (notifier->stopping) {
            (void)pthread_mutex_unlock(&notifier->lock);
            return NULL;
        }
        if (notifier->fresh_words) {
            free(notifier->words);
            notifier->words = notifier->fresh_words;
            notifier->fresh_words = NULL;
        }
        /* Relaxed: it is set under the lock. */
        if (!notifier->paused && atomic_load_explicit(&notifier->armed, memory_order_relaxed))
            timeout_ns = look(notifier, &count);
        (void)pthread_mutex_unlock(&notifier->lock);
        if (timeout_ns > 0)
            (void)wait_crew_sleep(notifier->crew, begun, notifier->words, count, timeout_ns);
    }
}

/* ---- C --------------------------------------------------------------------------------------- */

int wait_notifier_open(wait_notifier_check_fn *check, void *context, bool fence_mode,
                       struct wait_notifier **ret_notifier, struct error_buffer *why)
{
    struct wait_notifier *notifier = calloc(1, sizeof(*notifier));
    int result;

    if (!notifier)
        return error_set(why, SHMQ_ENOMEM, "consumer descriptor: out of memory; free some memory");
    *notifier = (struct wait_notifier){
        .pid = getpid(),
        .fence_mode = fence_mode,
        .check = check,
        .context = context,
        .paused = true,
    };
    notifier->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (notifier->fd < 0) {
        result = error_set_errno(why, errno, "consumer descriptor: eventfd");
        goto fail_memory;
    }
    result = wait_crew_new(&notifier->crew);
    if (result < 0) {
        (void)error_set(why, result, "consumer descriptor: out of memory; free some memory");
        goto fail_fd;
    }
    if (pthread_mutex_init(&notifier->lock, NULL) != 0) {
        result = error_set(why, SHMQ_ENOMEM, "consumer descriptor: no lock; free some memory");
        goto fail_crew;
    }
    result = wait_crew_start_thread(&notifier->thread, run_notifier, notifier);
    if (result != 0) {
        result = error_set(why, SHMQ_ELIMIT,
                           "consumer descriptor: no thread to be had; raise the limit on "
                           "processes (ulimit -u)");
        goto fail_lock;
    }
    *ret_notifier = notifier;
    return 0;

fail_lock:
    (void)pthread_mutex_destroy(&notifier->lock);
fail_crew:
    notifier->crew = wait_crew_free(notifier->crew);
fail_fd:
    (void)close(notifier->fd);
fail_memory:
    free(notifier);
    return result;
}

struct wait_notifier *wait_notifier_close(struct wait_notifier *notifier)
{
    if (!notifier)
        return NULL;
    /* In a forked child T does not exist, and may have held the lock. */
    if (notifier->pid == getpid()) {
        (void)pthread_mutex_lock(&notifier->lock);
        notifier->stopping = true;
        (void)pthread_mutex_unlock(&notifier->lock);
        wait_crew_wake(notifier->crew);
        (void)pthread_join(notifier->thread, NULL);
        (void)pthread_mutex_destroy(&notifier->lock);
    }
    (void)wait_crew_free(notifier->crew);
    (void)close(notifier->fd);
    free(notifier->words);
    free(notifier->fresh_words);
    free(notifier->points);
    free(notifier);
    return NULL;
}

int wait_notifier_fd(const struct wait_notifier *notifier)
{
    return notifier->fd;
}

void wait_notifier_pause(struct wait_notifier *notifier)
{
    /* T looks only under the lock; what it may still sleep on, it does not touch (wait_crew.h). */
    (void)pthread_mutex_lock(&notifier->lock);
    notifier->paused = true;
    (void)pthread_mutex_unlock(&notifier->lock);
}

int wait_notifier_watch(struct wait_notifier *notifier, const struct wait_point *points,
                        uint32_t point_count, const _Atomic uint32_t *event)
{
    struct wait_point *copy = calloc((size_t)point_count + 1, sizeof(*copy));
    struct wait_word *words = calloc((size_t)point_count + 1, sizeof(*words));

    if (!copy || !words) {
        free(copy);
        free(words);
        wait_notifier_pause(notifier);
        return SHMQ_ENOMEM;
    }
    if (point_count > 0)
        memcpy(copy, points, point_count * sizeof(*points));
    (void)pthread_mutex_lock(&notifier->lock);
    free(notifier->points);
    free(notifier->fresh_words);
    notifier->points = copy;
    notifier->point_count = point_count;
    notifier->event = event;
    notifier->fresh_words = words;
    notifier->paused = false;
    (void)pthread_mutex_unlock(&notifier->lock);
    wait_crew_wake(notifier->crew);
    return 0;
}

void wait_notifier_rearm(struct wait_notifier *notifier, uint32_t event_seen)
{
    uint64_t drained;

    /* Relaxed: armed means that T has yet to look for the last time before it notifies, and that it
     * has not written; a stale value is one that T is about to change and to write after. */
    if (atomic_load_explicit(&notifier->armed, memory_order_relaxed) &&
        notifier->event_seen == event_seen)
        return;
    (void)pthread_mutex_lock(&notifier->lock);
    while (read(notifier->fd, &drained, sizeof(drained)) < 0 && errno == EINTR)
        continue;
    notifier->event_seen = event_seen;
    atomic_store_explicit(&notifier->armed, true, memory_order_relaxed);
    (void)pthread_mutex_unlock(&notifier->lock);
    wait_crew_wake(notifier->crew);
}
