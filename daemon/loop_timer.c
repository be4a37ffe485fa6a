/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers of the loop: a pairing heap whose nodes lie in the timers themselves, in front of one
 * timerfd. Setting is O(1), stopping and going off O(log n) amortised, and there is nothing to
 * allocate or resize. `previous` is the left sibling, or the parent of a first child, so that any
 * node can be cut out in O(1). Same thread as loop.c; nothing blocks.
 */
#include "daemon/loop_internal.h"
#include "libshmq/clock.h"

#include <errno.h>
#include <sys/timerfd.h>

static bool is_earlier(const struct loop_timer *a, const struct loop_timer *b)
{
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns;
    return a->sequence < b->sequence;
}

/* Two roots into one: the later becomes the first child of the earlier. Either may be NULL. */
static struct loop_timer *meld(struct loop_timer *a, struct loop_timer *b)
{
    struct loop_timer *root = a;
    struct loop_timer *below = b;

    if (!a || !b)
        return a ? a : b;
    if (is_earlier(b, a)) {
        root = b;
        below = a;
    }
    below->next = root->child;
    if (below->next)
        below->next->previous = below;
    below->previous = root;
    root->child = below;
    return root;
}

/* A list of siblings into one root. Pairs from left to right, then all from right to left: this order
 * is what makes the heap amortise. A loop, not a recursion: the list may hold every timer there is. */
static struct loop_timer *meld_siblings(struct loop_timer *first)
{
    struct loop_timer *pairs = NULL; /* linked by `next`, the last pair first */
    struct loop_timer *root = NULL;

    while (first) {
        struct loop_timer *a = first;
        struct loop_timer *b = a->next;
        struct loop_timer *pair;

        first = b ? b->next : NULL;
        a->next = a->previous = NULL;
        if (b)
            b->next = b->previous = NULL;
        pair = meld(a, b);
        pair->next = pairs;
        pairs = pair;
    }
    while (pairs) {
        struct loop_timer *pair = pairs;

        pairs = pair->next;
        pair->next = NULL;
        root = meld(root, pair);
    }
    return root;
}

static void insert_timer(struct loop *loop, struct loop_timer *timer)
{
    timer->child = timer->next = timer->previous = NULL;
    timer->loop = loop;
    loop->timers = meld(loop->timers, timer);
}

static void cut_timer(struct loop_timer *timer)
{
    struct loop *loop = timer->loop;
    struct loop_timer *children = meld_siblings(timer->child);

    if (timer == loop->timers) {
        loop->timers = children;
    } else {
        if (timer->previous->child == timer)
            timer->previous->child = timer->next;
        else
            timer->previous->next = timer->next;
        if (timer->next)
            timer->next->previous = timer->previous;
        loop->timers = meld(loop->timers, children);
    }
    timer->child = timer->next = timer->previous = NULL;
    timer->loop = NULL;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns,
                    loop_timer_fn *callback, void *context)
{
    loop_timer_stop(timer);
    /* Not before now: one that sets itself into the past must not get in front of those that are due. */
    timer->deadline_ns = max_u64(deadline_ns, loop->now_ns);
    timer->sequence = ++loop->timer_sequence;
    timer->callback = callback;
    timer->context = context;
    insert_timer(loop, timer);
}

void loop_timer_stop(struct loop_timer *timer)
{
    if (timer->loop)
        cut_timer(timer);
}

int loop_timers_arm(struct loop *loop, struct error_buffer *why)
{
    uint64_t deadline_ns = loop->timers ? loop->timers->deadline_ns : 0;
    struct itimerspec when = {.it_interval = {0, 0}};

    /* Clamped: what lies beyond what the kernel can say is never reached either. */
    deadline_ns = min_u64(deadline_ns, INT64_MAX);
    if (loop->timers && deadline_ns == 0)
        deadline_ns = 1; /* zero disarms */
    if (deadline_ns == loop->armed_ns)
        return 0;
    when.it_value = timespec_from_ns(deadline_ns);
    if (timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
        return error_set_errno(why, errno, "event loop: timer");
    loop->armed_ns = deadline_ns;
    return 0;
}

void loop_timers_run(struct loop *loop)
{
    uint64_t last = loop->timer_sequence; /* what is set from here on waits for the next round */
    uint64_t now_ns = loop->now_ns;

    while (loop->timers && loop->timers->deadline_ns <= now_ns && loop->timers->sequence <= last) {
        struct loop_timer *timer = loop->timers;

        cut_timer(timer);
        timer->callback(timer, timer->context);
    }
}
