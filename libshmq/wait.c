/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait.c: the system calls under wait.h: futex, futex_waitv, membarrier.
 *
 * Owns nothing but two process-wide facts about the kernel, found out once. Kernel constants are
 * spelled out here, because neither musl's headers nor those of a 5.10 system have them all; every
 * call has a fallback, because old kernels, seccomp filters and qemu-user refuse some of them.
 */
#include "libshmq/wait.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "libshmq/clock.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449 /* the same on every architecture */
#endif

#define KERNEL_FUTEX_WAIT                0
#define KERNEL_FUTEX_WAKE                1
#define KERNEL_FUTEX_32                  2u
#define KERNEL_MEMBARRIER_QUERY          0
#define KERNEL_MEMBARRIER_GLOBAL         1
#define KERNEL_MEMBARRIER_GLOBAL_EXPED   2
#define KERNEL_MEMBARRIER_REGISTER_EXPED 4

/* struct futex_waitv of the kernel. */
struct kernel_waitv {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};
_Static_assert(sizeof(struct kernel_waitv) == 24, "struct futex_waitv");

/* An error that is no hint (EFAULT, ENOMEM) must not turn its caller's loop into a hot one. */
#define ERROR_PAUSE_NS NS_PER_MS

enum waitv_state { WAITV_UNKNOWN = 0, WAITV_PRESENT = 1, WAITV_ABSENT = 2 };

/* Relaxed throughout: each is a fact by itself, and whoever asks twice gets the same answer. */
static _Atomic int known_waitv;
static _Atomic bool forced_single;

static void futex_wake_all(const _Atomic uint32_t *word)
{
    /* Fails only for a word that is not mapped, on which nobody can sleep. */
    (void)syscall(SYS_futex, word, KERNEL_FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void wait_wake_word(_Atomic uint32_t *word)
{
    /* ORDER announce -> attend: seq_cst, as modelled: what made me wake is visible to whoever reads
     * the new value; pairs with the acquire loads of sequence and event words. */
    (void)atomic_fetch_add_explicit(word, 1, memory_order_seq_cst);
    futex_wake_all(word);
}

void wait_rouse(const _Atomic uint32_t *word)
{
    futex_wake_all(word);
}

void wait_wake_slow(struct wait_segment *wait, uint32_t bits)
{
    /* ORDER wake -> sleep: cleared before it is bumped. A sleeper that sets its bit after the clear
     * keeps it for the next publisher; one that set it before reads the old sequence. */
    (void)atomic_fetch_and_explicit(&wait->attention, ~bits, memory_order_seq_cst);
    if (bits & ATTENTION_DATA)
        wait_wake_word(&wait->data_seq);
    if (bits & ATTENTION_ROOM)
        wait_wake_word(&wait->room_seq);
    if (bits & ATTENTION_DURABLE)
        wait_wake_word(&wait->durable_seq);
    if (bits & (ATTENTION_DOORBELL | ATTENTION_NAP))
        wait_wake_word(&wait->bell_seq);
}

void wait_wake_everyone(struct wait_segment *wait)
{
    /* The bits stay: they belong to sleepers that may come back, and a needless one costs
     * little. */
    wait_wake_word(&wait->data_seq);
    wait_wake_word(&wait->room_seq);
    wait_wake_word(&wait->durable_seq);
    wait_wake_word(&wait->bell_seq);
}

static const _Atomic uint32_t *word_of(const struct wait_segment *wait, uint32_t bits)
{
    if (bits & ATTENTION_DATA)
        return &wait->data_seq;
    if (bits & ATTENTION_ROOM)
        return &wait->room_seq;
    return bits & ATTENTION_DURABLE ? &wait->durable_seq : &wait->bell_seq;
}

struct wait_word wait_prepare(struct wait_segment *wait, uint32_t bits)
{
    struct wait_word word;

    word.address = word_of(wait, bits);
    /* Acquire: the sequence is read before the bit is set. The other way round, a publisher that
     * cleared the bit and bumped in between would leave me asleep on the new value. */
    word.value = atomic_load_explicit(word.address, memory_order_acquire);
    /* ORDER sleep -> wake: the bit, then (after wait_barrier) the re-check; pairs with
     * wait_wake(). */
    (void)atomic_fetch_or_explicit(&wait->attention, bits, memory_order_seq_cst);
    return word;
}

static long membarrier_call(int command)
{
    return syscall(SYS_membarrier, command, 0, 0);
}

void wait_barrier(bool fence_mode)
{
    if (fence_mode) {
        /* ORDER sleep -> wake: pairs with the fence in wait_wake(). */
        atomic_thread_fence(memory_order_seq_cst);
        return;
    }
    atomic_signal_fence(memory_order_seq_cst);
    if (membarrier_call(KERNEL_MEMBARRIER_GLOBAL_EXPED) == 0)
        return;
    /* It worked when the bus was made; a filter installed since may refuse it. The slow one waits
     * for a scheduler pass on every CPU; if that is refused as well, the bound on sleeps is
     * left. */
    (void)membarrier_call(KERNEL_MEMBARRIER_GLOBAL);
    atomic_thread_fence(memory_order_seq_cst);
}

bool wait_register_process(void)
{
    const long needed = KERNEL_MEMBARRIER_GLOBAL_EXPED | KERNEL_MEMBARRIER_REGISTER_EXPED;
    long known = membarrier_call(KERNEL_MEMBARRIER_QUERY);

    if (known < 0 || (known & needed) != needed)
        return false;
    /* Registration alone is not enough: a filter may let it through and not the barrier itself. */
    return membarrier_call(KERNEL_MEMBARRIER_REGISTER_EXPED) == 0 &&
           membarrier_call(KERNEL_MEMBARRIER_GLOBAL_EXPED) == 0;
}

void wait_force_single_word(bool force)
{
    atomic_store_explicit(&forced_single, force, memory_order_relaxed);
}

uint32_t wait_words_per_sleep(void)
{
    int known = atomic_load_explicit(&known_waitv, memory_order_relaxed);

    if (UNLIKELY(known == WAITV_UNKNOWN)) {
        /* No words at all is EINVAL where the call exists; ENOSYS or a filter's EPERM elsewhere. */
        long result = syscall(SYS_futex_waitv, NULL, 0, 0, NULL, CLOCK_MONOTONIC);

        known = result < 0 && errno == EINVAL ? WAITV_PRESENT : WAITV_ABSENT;
        atomic_store_explicit(&known_waitv, known, memory_order_relaxed);
    }
    if (known != WAITV_PRESENT || atomic_load_explicit(&forced_single, memory_order_relaxed))
        return 1;
    return WAIT_WORDS_MAX;
}

static long sleep_on_one(const struct wait_word *word, uint64_t timeout_ns)
{
    struct timespec relative = timespec_from_ns(timeout_ns); /* FUTEX_WAIT: relative, monotonic */

    return syscall(SYS_futex, word->address, KERNEL_FUTEX_WAIT, word->value, &relative, NULL, 0);
}

static long sleep_on_several(const struct wait_word *words, uint32_t count, uint64_t timeout_ns)
{
    struct timespec until = timespec_from_ns(clock_monotonic_ns() + timeout_ns);
    struct kernel_waitv vector[WAIT_WORDS_MAX];

    for (uint32_t i = 0; i < count; i++) {
        vector[i] = (struct kernel_waitv){
            .value = words[i].value,
            .address = (uint64_t)(uintptr_t)words[i].address,
            .flags = KERNEL_FUTEX_32,
        };
    }
    return syscall(SYS_futex_waitv, vector, count, 0, &until, CLOCK_MONOTONIC);
}

static void pause_for(uint64_t ns)
{
    struct timespec relative = timespec_from_ns(ns);

    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &relative, NULL);
}

bool wait_sleep(const struct wait_word *words, uint32_t count, uint64_t timeout_ns)
{
    uint32_t most = wait_words_per_sleep();
    long result;

    timeout_ns = min_u64(timeout_ns, WAIT_SLEEP_MAX_NS);
    if (UNLIKELY(count > most)) {
        count = most;
        timeout_ns = min_u64(timeout_ns, WAIT_BLOCKED_NS);
    }
    if (timeout_ns == 0)
        return false;
    if (count == 0) {
        pause_for(timeout_ns);
        return false;
    }
    result =
        count == 1 ? sleep_on_one(words, timeout_ns) : sleep_on_several(words, count, timeout_ns);
    if (result >= 0 || errno == EAGAIN)
        return true;
    if (errno != EINTR && errno != ETIMEDOUT) {
        pause_for(min_u64(timeout_ns, ERROR_PAUSE_NS));
        return true; /* not a matter of time: the caller looks again, and meets the error itself */
    }
    return false;
}
