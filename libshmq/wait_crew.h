/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait_crew.h: sleeping on any number of words (design §2.6).
 *
 * One system call takes WAIT_WORDS_MAX words, or one on a kernel before 5.16. A crew is that call
 * for more: wait_crew_sleep() is wait_sleep() without the limit. Its owner sleeps on the first
 * words itself; helper threads, started when they are first needed, share the rest. A consumer
 * whose words fit into one call never gets a thread, and so pays nothing for using a crew always.
 *
 * Protocol. All of it is inside one process; shared words are only ever looked at by the kernel, in
 * the futex calls, so a helper that is late cannot touch memory that has been unmapped.
 *
 *   owner                                         helper
 *     begun = woken            (wait_crew_begin)    take my share and the round, under the lock
 *     wait_prepare() …, wait_barrier(), re-check    sleep on the share, and on `round` where a
 *     deal: same words as last time, and no           call takes several words
 *       helper has reported: the round goes on      nothing happened within 1 s: the same again
 *       else copy them, round++, wake helpers       `round` moved on: take my new share
 *     sleep on my own words and on (woken, begun)   else report: woken++, wake the owner; wait for
 *                                                     the next round
 *
 * No wake-up is lost: a helper sleeps with the *owner's* values, read before the owner's last
 * check, so a word that has moved on since ends its sleep at once, however late it comes; and
 * `woken` is read before all of that. A round that goes on costs no system call and wakes nobody.
 *
 * Where a call takes one word, a helper cannot sleep on `round` as well. If its word stays the
 * same, it need not: a new value means that the word was bumped, which wakes it. If its word
 * becomes another one, the owner rouses the sleepers of the old one; a helper that was not yet
 * asleep misses that, so until all have followed, the owner sleeps no longer than WAIT_BLOCKED_NS
 * and tries again. The same short sleeps stand in for threads that cannot be started, or for more
 * words than WAIT_CREW_THREADS_MAX helpers take: such a wake-up is late, never lost.
 *
 *                    | begin, sleep | wake | free
 *   begin, sleep     |      no      | yes  |  no       one owner at a time
 *   wake             |     yes      | yes  |  no       any thread
 *
 * Idle: each helper and the owner wake once a second. Helpers block all signals, so the program's
 * handlers never run in them, and have small stacks. After fork() the child has none of them:
 * there, wait_crew_free() only gives the memory back. If the process dies, all of it is gone with
 * it.
 */
#ifndef SHMQ_WAIT_CREW_H
#define SHMQ_WAIT_CREW_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "libshmq/wait.h"

#define WAIT_CREW_THREADS_MAX 64u

struct wait_crew;

/* No threads yet. Returns 0 or SHMQ_ENOMEM. */
int wait_crew_new(struct wait_crew **ret_crew);

/* Ends and joins the helpers: at once where a call takes several words, else within 1 s at the
 * worst, when the words were unmapped before (free first, then unmap). NULL is fine. Returns
 * NULL. */
struct wait_crew *wait_crew_free(struct wait_crew *crew);

/* Before the owner's last check. A wait_crew_wake() after it ends the sleep that follows. */
uint32_t wait_crew_begin(struct wait_crew *crew);

/* As wait_sleep(), for any number of words (0 too), and woken by wait_crew_wake() as well. `begun`
 * comes from wait_crew_begin(). Never fails: without memory or threads it sleeps shorter. */
bool wait_crew_sleep(struct wait_crew *crew, uint32_t begun, const struct wait_word *words,
                     uint32_t count, uint64_t timeout_ns);

void wait_crew_wake(struct wait_crew *crew);

/* Helpers running now: for status and tests. */
uint32_t wait_crew_thread_count(struct wait_crew *crew);

/* Starts a thread of the library: all signals blocked, a small stack. Returns 0 or an errno. Also
 * for the notifier. */
int wait_crew_start_thread(pthread_t *ret_thread, void *(*run)(void *), void *argument);

#endif
