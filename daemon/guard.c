/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.c: one SIGBUS handler for the process, one stack of guarded calls per thread.
 *
 * The handler runs with SA_NODEFER and an empty mask, so that the thread's mask is the same inside
 * it as outside: a jump out of it has nothing to restore, and sigsetjmp() need not ask the kernel.
 */
#include "daemon/guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <ucontext.h>

#include "libshmq/base.h"
#include "libshmq/shmq_errors.h"

struct guard_frame {
    sigjmp_buf back;
    const struct guard_range *ranges;
    uint32_t count;
    uint32_t hit;
    struct guard_frame *outer;
};

/* Initial-exec: the other models may allocate at a thread's first access, which would be in the
 * handler. */
#define THREAD_STATE static _Thread_local __attribute__((tls_model("initial-exec")))
THREAD_STATE struct guard_frame *innermost;
THREAD_STATE bool unblocked;

static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned install_count;
static bool buried; /* still there, below somebody else's handler, though nobody needs it */
/* Whom to chain to. Written before our handler is put above it, and then not again until it is
 * gone: the handler reads it without a lock. */
static struct sigaction previous;

static bool find_range(const struct guard_frame *frame, uintptr_t address, uint32_t *ret_index)
{
    for (uint32_t i = 0; i < frame->count; i++) {
        /* One subtraction: a range that ends at the top of memory does not overflow. */
        if (address - (uintptr_t)frame->ranges[i].address < frame->ranges[i].bytes) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

static void jump_back_if_guarded(const siginfo_t *info, const ucontext_t *machine)
{
    /* Only a fault of this very instruction: kill() has a code ≤ 0 and no address, and
     * BUS_MCEERR_AO tells of a page that this thread has not touched. */
    if (info->si_code <= 0 || info->si_code == BUS_MCEERR_AO)
        return;
    for (struct guard_frame *frame = innermost; frame; frame = frame->outer) {
        if (!find_range(frame, (uintptr_t)info->si_addr, &frame->hit))
            continue;
        innermost = frame->outer; /* the inner ones end with it */
        /* The mask is the interrupted code's already, unless somebody stands between the kernel and
         * us (a sanitizer's run-time) and has blocked signals. */
        (void)pthread_sigmask(SIG_SETMASK, &machine->uc_sigmask, NULL);
        siglongjmp(frame->back, 1);
    }
}

static void die_by_default(int signal_number, const siginfo_t *info)
{
    const struct sigaction by_default = {.sa_handler = SIG_DFL};

    (void)sigaction(signal_number, &by_default, NULL);
    /* A fault comes again when the instruction is repeated, with its address for the core dump;
     * a signal that was sent has to be sent again. */
    if (info->si_code <= 0)
        (void)raise(signal_number);
}

static void call_previous(int signal_number, siginfo_t *info, void *machine)
{
    sigset_t mask = previous.sa_mask, before;

    /* As the kernel would have called it. */
    if (!(previous.sa_flags & SA_NODEFER))
        (void)sigaddset(&mask, signal_number);
    (void)pthread_sigmask(SIG_BLOCK, &mask, &before);
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(signal_number, info, machine);
    else
        previous.sa_handler(signal_number);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void on_sigbus(int signal_number, siginfo_t *info, void *machine)
{
    jump_back_if_guarded(info, machine);
    if (!(previous.sa_flags & SA_SIGINFO)) {
        if (previous.sa_handler == SIG_IGN && info->si_code <= 0)
            return; /* sent, and ignored; a fault cannot be */
        if (previous.sa_handler == SIG_IGN || previous.sa_handler == SIG_DFL) {
            die_by_default(signal_number, info);
            return;
        }
    }
    call_previous(signal_number, info, machine);
}

static bool is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_sigbus;
}

static bool is_handler(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) ||
           (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
}

/* Under the lock. */
static int put_handler(void)
{
    struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    struct sigaction present;

    if (sigaction(SIGBUS, NULL, &present) != 0)
        return SHMQ_ESYS;
    /* Left behind under somebody's handler at the last uninstall: it is assumed to call ours. To go
     * above it as well would chain in a circle. */
    if (is_ours(&present) || (buried && is_handler(&present)))
        return 0;
    previous = present;
    ours.sa_sigaction = on_sigbus;
    (void)sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, &ours, NULL) == 0 ? 0 : SHMQ_ESYS;
}

int guard_install(void)
{
    int result = 0;

    (void)pthread_mutex_lock(&install_lock);
    if (install_count == 0)
        result = put_handler();
    if (result == 0) {
        install_count++;
        buried = false;
    }
    (void)pthread_mutex_unlock(&install_lock);
    return result;
}

void guard_uninstall(void)
{
    struct sigaction present;

    (void)pthread_mutex_lock(&install_lock);
    if (install_count > 0 && --install_count == 0 && sigaction(SIGBUS, NULL, &present) == 0) {
        if (is_ours(&present))
            (void)sigaction(SIGBUS, &previous, NULL);
        else
            buried = true;
    }
    (void)pthread_mutex_unlock(&install_lock);
}

/* Once a thread: threads of a daemon are commonly made with all signals blocked, and the kernel
 * kills a process that faults with SIGBUS blocked. */
static void unblock_sigbus(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGBUS);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    unblocked = true;
}

/* Apart from guard_run(), and not inlined: no local of the function that calls sigsetjmp() is
 * changed between it and the jump. The signal fences keep the compiler from moving the frame's
 * fields, or the guarded accesses, past the points where the handler sees them. */
static __attribute__((noinline)) int run_in_frame(struct guard_frame *frame, guard_fn *fn,
                                                  void *context)
{
    int result;

    if (sigsetjmp(frame->back, 0) != 0)
        return SHMQ_ECORRUPT; /* the handler has popped the frame */
    innermost = frame;
    atomic_signal_fence(memory_order_seq_cst);
    result = fn(context);
    atomic_signal_fence(memory_order_seq_cst);
    innermost = frame->outer;
    return result;
}

int guard_run(const struct guard_range *ranges, uint32_t count, guard_fn *fn, void *context,
              uint32_t *ret_hit)
{
    struct guard_frame frame = {.hit = UINT32_MAX};
    int result;

    frame.ranges = ranges;
    frame.count = count;
    frame.outer = innermost;
    if (UNLIKELY(!unblocked))
        unblock_sigbus();
    result = run_in_frame(&frame, fn, context);
    if (ret_hit && frame.hit != UINT32_MAX)
        *ret_hit = frame.hit;
    return result;
}

struct check_work {
    const struct segment *segment;
    const struct segment_identity *identity;
    struct error_buffer why;
};

static int check_segment(void *context)
{
    struct check_work *work = context;

    return segment_check(work->segment, work->identity, &work->why);
}

int guard_check_segment(const struct segment *segment, const struct segment_identity *identity,
                        struct error_buffer *why)
{
    /* The sentence is for a cut one; what the check itself finds says it anew. */
    struct check_work work = {
        .segment = segment,
        .identity = identity,
        .why = {.text = "a segment was truncated"},
    };
    struct guard_range range = {segment->address, segment->bytes};
    int rc = guard_run(&range, 1, check_segment, &work, NULL);

    if (rc < 0)
        *why = work.why;
    return rc;
}
