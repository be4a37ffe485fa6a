/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait.h: how a member sleeps until a publisher, a commit or the supervisor wakes it (design §2.6,
 * protocols.md §3).
 *
 * Asymmetric by intent: a publisher pays one relaxed load of a line that nobody writes in steady
 * state; the sleeper pays for the barrier, with membarrier(GLOBAL_EXPEDITED), or both pay a fence
 * where that is not to be had (one mode a bus).
 *
 *   publisher                                     sleeper
 *     store commit, release                         s = seq                      (wait_prepare)
 *     barrier (compiler / fence)                    attention |= bit
 *     attention & bit? clear it, seq++, wake all    barrier (membarrier / fence) (wait_barrier)
 *                                                   re-check; FUTEX_WAIT(seq, s) (wait_sleep)
 *
 * ORDER wake -> sleep: the stamp before the load of attention; ORDER sleep -> wake: the bit before
 * the re-check. One of the two sees the other's store, so no wake-up is lost. A waker may die
 * between stamp and wake, or between clearing the bit and bumping seq: no sleep exceeds 1 s, and
 * whoever notices a death calls wait_wake_everyone(). A sleeper may die at any point: it leaves a
 * bit set, which costs the next publisher one needless wake.
 *
 *                   | wait_wake | wait_prepare | wait_sleep
 *   wait_wake       |    yes    |     yes      |    yes    (any number of threads)
 *   wait_prepare    |    yes    |     yes      |    yes
 *
 * Called from: every process that maps W; any thread. Only wait_sleep() blocks. Futexes are never
 * PRIVATE: the same word has other addresses in other processes.
 */
#ifndef SHMQ_WAIT_H
#define SHMQ_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "libshmq/base.h"
#include "libshmq/layout.h"

/* No sleep is longer: wakers die between stamp and wake. */
#define WAIT_SLEEP_MAX_NS UINT64_C(1000000000)
/* ... nor than this while somebody's claim or room is awaited. */
#define WAIT_BLOCKED_NS UINT64_C(20000000)
/* Words that one futex_waitv takes: the kernel's limit is 128, of which a crew wants one. */
#define WAIT_WORDS_MAX 127

/* One futex word to sleep on. */
struct wait_word {
    const _Atomic uint32_t *address; /* may be mapped read-only */
    uint32_t value;                  /* as read before the last check */
};

/* Clears the bits first, then bumps the sequence words concerned, then wakes all: bumping before
 * clearing loses the wake-up of a sleeper that comes in between (protocols.md §3, model BADFLAG).
 */
void wait_wake_slow(struct wait_segment *wait, uint32_t bits) COLD;

/* After the store that others may wait for: who wants to be told? Hot: one load. For callers that
 * look at several bits at once and then leave for wait_wake_slow(). */
static ALWAYS_INLINE uint32_t wait_look(const struct wait_segment *wait, bool fence_mode)
{
    /* ORDER wake -> sleep: the store before this call, then the load of attention; pairs with
     * wait_prepare() and wait_barrier(). */
    if (fence_mode)
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst); /* the sleeper's membarrier is the other half */
    /* Relaxed: the barrier above orders it, and what it guards is re-read by the sleeper. */
    return atomic_load_explicit(&wait->attention, memory_order_relaxed);
}

/* The same, and wakes who sleeps for `bits`. Returns the attention word as seen, so that the caller
 * can act on CLOSED, a bit that nobody clears. */
static ALWAYS_INLINE uint32_t wait_wake(struct wait_segment *wait, uint32_t bits, bool fence_mode)
{
    uint32_t attention = wait_look(wait, fence_mode);

    if (UNLIKELY(attention & bits))
        wait_wake_slow(wait, attention & bits);
    return attention;
}

/* Bumps all sequence words and wakes everybody: at a death, at the supervisor's start, when a
 * status changed. */
void wait_wake_everyone(struct wait_segment *wait) COLD;

/* Bumps one word that lies alone (a client's event word in B) and wakes all who sleep on it. */
void wait_wake_word(_Atomic uint32_t *word) COLD;

/* Announces a sleeper for `bits` (one of DATA, ROOM, DURABLE; or NAP, with or without DOORBELL) and
 * returns the sequence word that they share with its present value. After the last wait_prepare() of a sleep: one wait_barrier(), then re-check, then
 * wait_sleep(). A word without attention bits (event) is simply read, with acquire, before that
 * re-check. */
struct wait_word wait_prepare(struct wait_segment *wait, uint32_t bits);

/* The sleeper's half of the barrier: membarrier(GLOBAL_EXPEDITED), or a seq_cst fence in fence
 * mode. */
void wait_barrier(bool fence_mode);

/* Sleeps until one of the words differs from its value, a wake, a signal, or until `timeout_ns`
 * (capped to 1 s) passed. True when a word changed or a wake came; false for time and signals.
 * Either is only a hint: re-check. Up to WAIT_WORDS_MAX words by one futex_waitv; one word by
 * FUTEX_WAIT. With more words than wait_words_per_sleep() it watches the first ones and sleeps no
 * longer than WAIT_BLOCKED_NS, so that nothing is lost, only late: use a wait_crew instead. */
bool wait_sleep(const struct wait_word *words, uint32_t count, uint64_t timeout_ns);

/* How many words one wait_sleep() takes on this kernel: WAIT_WORDS_MAX, or 1 before futex_waitv
 * (5.16). */
uint32_t wait_words_per_sleep(void);

/* Wakes who sleeps on the word without changing it: only to get a thread of one's own out of its
 * sleep. The word may be mapped read-only, or not at all any more. */
void wait_rouse(const _Atomic uint32_t *word);

/* Registers this process for GLOBAL_EXPEDITED; at every connect, for exec loses it. False where
 * the kernel has none (then the bus needs fence mode). Idempotent and cheap. */
bool wait_register_process(void);

/* For tests: as on a kernel without futex_waitv. For sleeps that begin after the call. */
void wait_force_single_word(bool force);

#endif
