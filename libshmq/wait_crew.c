/* SPDX-License-Identifier: Apache-2.0 */
/* wait_crew.c: helper threads that share a sleep; the protocol stands in wait_crew.h. */
#include "libshmq/wait_crew.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "libshmq/shmq_errors.h"

/* A helper needs a vector of words and the system call; sanitizers want more. Only what is touched
 * is ever backed by memory. */
#define THREAD_STACK_BYTES ((size_t)256 * 1024)

struct crew_thread {
    pthread_t id;
    struct wait_crew *crew;
    uint32_t index;
    const _Atomic uint32_t *alone_on; /* lock: the word of its one-word sleep, or NULL */
    _Atomic uint32_t followed;        /* the round whose share it has taken */
    _Atomic uint32_t ended;           /* futex word */
};

struct wait_crew {
    pid_t pid;               /* whose threads these are: not a forked child's */
    _Atomic uint32_t woken;  /* futex word of the owner */
    _Atomic uint32_t round;  /* futex word of the helpers; changes under the lock */
    pthread_mutex_t lock;    /* of all below, held for copying only */
    struct wait_word *words; /* what the helpers share */
    uint32_t capacity;
    uint32_t count;
    uint32_t share; /* words a helper */
    bool reported;  /* a helper has left its share in this round */
    bool stopping;
    uint32_t thread_count;
    struct crew_thread *threads[WAIT_CREW_THREADS_MAX];
};

int wait_crew_start_thread(pthread_t *ret_thread, void *(*run)(void *), void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int result = pthread_attr_init(&attributes);

    if (result != 0)
        return result;
    (void)pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
    /* Blocked before it exists: a new thread inherits the mask, and no signal slips in between. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    result = pthread_create(ret_thread, &attributes, run, argument);
    if (result == EINVAL) /* a program with much static TLS: the stack is too small for it */
        result = pthread_create(ret_thread, NULL, run, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    return result;
}

int wait_crew_new(struct wait_crew **ret_crew)
{
    struct wait_crew *crew = calloc(1, sizeof(*crew));

    if (!crew)
        return SHMQ_ENOMEM;
    if (pthread_mutex_init(&crew->lock, NULL) != 0) {
        free(crew);
        return SHMQ_ENOMEM;
    }
    crew->pid = getpid();
    *ret_crew = crew;
    return 0;
}

/* ---- helpers --------------------------------------------------------------------------------- */

/* What a helper took from the crew for one round. */
struct helper_share {
    struct wait_word words[WAIT_WORDS_MAX];
    uint32_t count;
    uint32_t round;
};

/* False: the crew is being taken down. */
static bool take_share(struct crew_thread *thread, struct helper_share *share)
{
    struct wait_crew *crew = thread->crew;
    bool going_on;

    (void)pthread_mutex_lock(&crew->lock);
    going_on = !crew->stopping;
    uint32_t first = min_u32(thread->index * crew->share, crew->count);

    share->round = atomic_load_explicit(&crew->round, memory_order_relaxed); /* under the lock */
    share->count = min_u32(crew->share, crew->count - first);
    if (share->count > 0)
        memcpy(share->words, crew->words + first, share->count * sizeof(share->words[0]));
    thread->alone_on = NULL;
    if (crew->share > 1)
        share->words[share->count++] = (struct wait_word){&crew->round, share->round};
    else if (share->count == 1)
        thread->alone_on = share->words[0].address;
    (void)pthread_mutex_unlock(&crew->lock);
    /* Release: who sees this round here also sees alone_on, if it looks under the lock. */
    atomic_store_explicit(&thread->followed, share->round, memory_order_release);
    return going_on;
}

/* Tells the owner, unless the round is over and the news with it. */
static void report(struct wait_crew *crew, uint32_t round)
{
    bool current;

    (void)pthread_mutex_lock(&crew->lock);
    current = atomic_load_explicit(&crew->round, memory_order_relaxed) == round;
    if (current)
        crew->reported = true; /* before woken: who misses this has not read that either */
    (void)pthread_mutex_unlock(&crew->lock);
    if (current)
        wait_crew_wake(crew);
}

static void await_next_round(struct wait_crew *crew, uint32_t round)
{
    struct wait_word word = {&crew->round, round};

    /* Acquire is not needed: the share is taken under the lock. */
    while (atomic_load_explicit(&crew->round, memory_order_relaxed) == round)
        (void)wait_sleep(&word, 1, WAIT_SLEEP_MAX_NS);
}

static void *run_helper(void *argument)
{
    struct crew_thread *thread = argument;
    struct wait_crew *crew = thread->crew;
    struct helper_share share;

    while (take_share(thread, &share)) {
        if (share.count > 0) {
            if (!wait_sleep(share.words, share.count, WAIT_SLEEP_MAX_NS))
                continue;
            report(crew, share.round);
        }
        await_next_round(crew, share.round);
    }
    wait_wake_word(&thread->ended);
    return NULL;
}

/* ---- the owner ------------------------------------------------------------------------------- */

/* Under the lock. Returns false if there are fewer helpers than wanted. */
static bool start_helpers(struct wait_crew *crew, uint32_t wanted)
{
    while (crew->thread_count < min_u32(wanted, WAIT_CREW_THREADS_MAX)) {
        struct crew_thread *thread = calloc(1, sizeof(*thread));

        if (!thread)
            return false;
        thread->crew = crew;
        thread->index = crew->thread_count;
        /* It has followed no round yet, and its first one must not look followed. */
        thread->followed = atomic_load_explicit(&crew->round, memory_order_relaxed) - 1;
        if (wait_crew_start_thread(&thread->id, run_helper, thread) != 0) {
            free(thread);
            return false;
        }
        crew->threads[crew->thread_count++] = thread;
    }
    return crew->thread_count >= wanted;
}

static bool same_words(const struct wait_crew *crew, const struct wait_word *words, uint32_t count)
{
    if (count != crew->count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (words[i].address != crew->words[i].address || words[i].value != crew->words[i].value)
            return false;
    }
    return true;
}

/* Under the lock. False: no memory, and the old words stay. */
static bool begin_round(struct wait_crew *crew, const struct wait_word *words, uint32_t count,
                        uint32_t share)
{
    if (count > crew->capacity) {
        struct wait_word *grown = realloc(crew->words, count * sizeof(*grown));

        if (!grown)
            return false;
        crew->words = grown;
        crew->capacity = count;
    }
    if (count > 0)
        memcpy(crew->words, words, count * sizeof(*words));
    crew->count = count;
    crew->share = share;
    crew->reported = false;
    /* Release: pairs with nothing but habit; helpers read the words under the lock. */
    (void)atomic_fetch_add_explicit(&crew->round, 1, memory_order_release);
    return true;
}

/* Under the lock. Rouses helpers that sleep alone on a word that is not theirs any more; false if
 * there are such. */
static bool helpers_are_placed(struct wait_crew *crew)
{
    uint32_t round = atomic_load_explicit(&crew->round, memory_order_relaxed);
    bool placed = true;

    for (uint32_t i = 0; i < crew->thread_count; i++) {
        struct crew_thread *thread = crew->threads[i];
        uint64_t first = (uint64_t)i * crew->share;

        if (atomic_load_explicit(&thread->followed, memory_order_acquire) == round ||
            !thread->alone_on || first >= crew->count)
            continue; /* placed, about to look at the round, or idle and not needed */
        if (crew->share == 1 && crew->words[first].address == thread->alone_on)
            continue; /* whatever gave its word another value wakes it */
        wait_rouse(thread->alone_on);
        placed = false;
    }
    return placed;
}

/* Hands the words out; false if not every word has somebody who surely watches it. */
static bool deal_words(struct wait_crew *crew, const struct wait_word *words, uint32_t count,
                       uint32_t share)
{
    uint32_t wanted = count / share + (count % share != 0);
    bool fresh = false;
    bool covered = true;

    (void)pthread_mutex_lock(&crew->lock);
    if (crew->reported || share != crew->share || !same_words(crew, words, count)) {
        fresh = begin_round(crew, words, count, share);
        covered = fresh;
    }
    covered = covered && start_helpers(crew, wanted);
    covered = helpers_are_placed(crew) && covered;
    (void)pthread_mutex_unlock(&crew->lock);
    if (fresh)
        wait_rouse(&crew->round);
    return covered;
}

uint32_t wait_crew_begin(struct wait_crew *crew)
{
    /* Acquire: what was done before the wake that made this value is seen by the check to come. */
    return atomic_load_explicit(&crew->woken, memory_order_acquire);
}

void wait_crew_wake(struct wait_crew *crew)
{
    wait_wake_word(&crew->woken);
}

bool wait_crew_sleep(struct wait_crew *crew, uint32_t begun, const struct wait_word *words,
                     uint32_t count, uint64_t timeout_ns)
{
    uint32_t per_sleep = wait_words_per_sleep();
    uint32_t own_count = min_u32(per_sleep - 1, count);
    uint32_t share = per_sleep > 1 ? per_sleep - 1 : 1;
    struct wait_word own[WAIT_WORDS_MAX];

    /* With helpers about, they are told even of an empty share: they let go of old words. */
    if (count > own_count || crew->thread_count > 0) {
        const struct wait_word *rest = count > own_count ? words + own_count : NULL;

        if (!deal_words(crew, rest, count - own_count, share))
            timeout_ns = min_u64(timeout_ns, WAIT_BLOCKED_NS);
    }
    if (own_count > 0)
        memcpy(own, words, own_count * sizeof(*words));
    own[own_count] = (struct wait_word){&crew->woken, begun};
    return wait_sleep(own, own_count + 1, timeout_ns);
}

uint32_t wait_crew_thread_count(struct wait_crew *crew)
{
    uint32_t count;

    (void)pthread_mutex_lock(&crew->lock);
    count = crew->thread_count;
    (void)pthread_mutex_unlock(&crew->lock);
    return count;
}

static void join_helper(struct wait_crew *crew, struct crew_thread *thread)
{
    struct wait_word ended = {&thread->ended, 0};

    /* One that sleeps alone on its word cannot sleep on `round` too. It may have looked at the
     * round before we raised it and be on its way into the sleep: hence again and again. */
    while (atomic_load_explicit(&thread->ended, memory_order_acquire) == 0) {
        const _Atomic uint32_t *alone_on;

        (void)pthread_mutex_lock(&crew->lock);
        alone_on = thread->alone_on;
        (void)pthread_mutex_unlock(&crew->lock);
        if (alone_on)
            wait_rouse(alone_on);
        (void)wait_sleep(&ended, 1, NS_PER_MS);
    }
    (void)pthread_join(thread->id, NULL);
}

struct wait_crew *wait_crew_free(struct wait_crew *crew)
{
    if (!crew)
        return NULL;
    /* In a forked child the threads do not exist, and the lock may be held by one of them. */
    bool own = crew->pid == getpid();

    if (own) {
        (void)pthread_mutex_lock(&crew->lock);
        crew->stopping = true;
        (void)atomic_fetch_add_explicit(&crew->round, 1, memory_order_release);
        (void)pthread_mutex_unlock(&crew->lock);
        wait_rouse(&crew->round);
    }
    for (uint32_t i = 0; i < crew->thread_count; i++) {
        if (own)
            join_helper(crew, crew->threads[i]);
        free(crew->threads[i]);
    }
    if (own)
        (void)pthread_mutex_destroy(&crew->lock);
    free(crew->words);
    free(crew);
    return NULL;
}
