/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait_notifier.h: a descriptor that becomes readable when a poll would find something
 * (shmq_consumer_fd, design §2.6): an eventfd fed by one library thread.
 *
 * The thread sleeps on the words of a set of partitions, and on one event word, by a wait_crew (so
 * helpers join it where one call does not take them all). Protocol, thread T and consumer C:
 *
 *   C  poll found nothing: wait_notifier_rearm() → drains the eventfd, armed = 1, wakes T
 *   T  armed: wait_prepare() on every point, wait_barrier(), check()
 *        READY, or the event word moved: armed = 0, writes the eventfd; waits for the next rearm
 *        BLOCKED for 20 ms: the same, so that C polls and has the dead claim resolved
 *        NOTHING: sleeps ≤ 1 s (BLOCKED: 20 ms), and once more
 *
 * The check comes after the arming and after the attention bits, so nothing that is published
 * between C's last look and T's sleep is missed. T disarms and writes under the lock: who sees
 * armed = 0 and takes the lock finds the eventfd written, and empties it, so the descriptor never
 * stays readable over an empty partition; and a descriptor that is readable means armed = 0.
 * Readable is a hint: C polls, and rearms when it finds nothing. As long as it does find something,
 * nobody need touch the descriptor (with EPOLLET: poll until nothing is found).
 *
 * Lock: T holds it while it looks at points and in check(). Pause, change what they look at, watch.
 *
 *                          | open..close, pause, watch, rearm | T: check()
 *   pause, watch, rearm    |   no: the consumer's thread      | yes (waits for it)
 *
 * After fork() the child has no T: wait_notifier_close() there gives back memory and descriptor.
 */
#ifndef SHMQ_WAIT_NOTIFIER_H
#define SHMQ_WAIT_NOTIFIER_H

#include <stdbool.h>
#include <stdint.h>

#include "libshmq/error.h"
#include "libshmq/wait.h"

enum wait_notifier_state {
    WAIT_NOTIFIER_NOTHING = 0,
    WAIT_NOTIFIER_READY = 1,   /* a poll would return something */
    WAIT_NOTIFIER_BLOCKED = 2, /* tail is past my position, but the record there is not stamped */
};

/* Runs in T: reads shared words and atomics only, neither blocks nor calls the notifier. */
typedef enum wait_notifier_state wait_notifier_check_fn(void *context);

/* One partition to sleep on. */
struct wait_point {
    struct wait_segment *wait;
    uint32_t bit; /* ATTENTION_DATA or ATTENTION_ROOM */
};

struct wait_notifier;

/* Starts paused and disarmed: after the first wait_notifier_watch(), rearm once; T then looks at
 * once. 0, SHMQ_ENOMEM, SHMQ_ELIMIT (descriptors, threads), SHMQ_ESYS. */
int wait_notifier_open(wait_notifier_check_fn *check, void *context, bool fence_mode,
                       struct wait_notifier **ret_notifier, struct error_buffer *why);

/* Ends and joins T (within milliseconds), closes the descriptor. NULL is fine. Returns NULL. */
struct wait_notifier *wait_notifier_close(struct wait_notifier *notifier);

/* For poll, select, epoll. Owned by the notifier; nobody else reads or writes it. */
int wait_notifier_fd(const struct wait_notifier *notifier);

/* When it returns, T neither looks at any point nor is in check(), until wait_notifier_watch(). */
void wait_notifier_pause(struct wait_notifier *notifier);

/* The set from now on (copied); `event` may be NULL. Ends a pause. 0 or SHMQ_ENOMEM (stays
 * paused). */
int wait_notifier_watch(struct wait_notifier *notifier, const struct wait_point *points,
                        uint32_t point_count, const _Atomic uint32_t *event);

/* After a poll that found nothing; `event_seen` is the event word as the consumer last acted on
 * it. Without a system call when it is armed already. */
void wait_notifier_rearm(struct wait_notifier *notifier, uint32_t event_seen);

#endif
