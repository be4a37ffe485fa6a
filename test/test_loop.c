/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: removal in the middle of a batch, timers against a model, wakes from elsewhere. */
#include "daemon/loop.h"
#include "libshmq/clock.h"
#include "test/support/test.h"

#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>

static struct loop loop;

static void start_loop(void)
{
    REQUIRE_OK(loop_init(&loop, NULL));
}

static void run_rounds(int count)
{
    for (int i = 0; i < count; i++)
        REQUIRE_OK(loop_run_once(&loop, 0, NULL));
}

/* ---- Descriptors -------------------------------------------------------------------------------- */

#define SOURCES 8

struct watched {
    struct loop_source *source; /* on the heap, so that AddressSanitizer sees a late use */
    int fd;
    unsigned calls;
    unsigned removes; /* whom its callback removes and frees; SOURCES: nobody */
};

static struct watched watched[SOURCES];

static void drop_source(unsigned index)
{
    if (!watched[index].source)
        return;
    loop_remove(watched[index].source);
    memset(watched[index].source, 0xff, sizeof(struct loop_source));
    free(watched[index].source);
    watched[index].source = NULL;
}

static void on_watched(struct loop_source *source, uint32_t events, void *context)
{
    struct watched *here = context;

    CHECK(here->source == source);
    CHECK(events & EPOLLIN);
    here->calls++;
    if (here->removes < SOURCES)
        drop_source(here->removes);
}

static void watch_all(void)
{
    for (unsigned i = 0; i < SOURCES; i++) {
        watched[i].fd = eventfd(1, EFD_CLOEXEC);
        watched[i].source = calloc(1, sizeof(struct loop_source));
        watched[i].calls = 0;
        watched[i].removes = SOURCES;
        REQUIRE(watched[i].fd >= 0 && watched[i].source);
        REQUIRE_OK(loop_add(&loop, watched[i].source, watched[i].fd, EPOLLIN, on_watched,
                            &watched[i], NULL));
    }
}

static void unwatch_all(void)
{
    for (unsigned i = 0; i < SOURCES; i++) {
        drop_source(i);
        (void)close(watched[i].fd);
    }
}

TEST(a_source_removed_in_the_batch_is_not_called)
{
    start_loop();
    watch_all();
    /* Each removes its right neighbour: one of the two is never called, whichever comes first. */
    for (unsigned i = 0; i < SOURCES; i++)
        watched[i].removes = (i + 1) % SOURCES;
    run_rounds(1);
    for (unsigned i = 0; i < SOURCES; i++)
        CHECK_EQ(watched[i].calls, watched[i].source || watched[i].calls ? 1 : 0);
    for (unsigned i = 0; i < SOURCES; i++)
        CHECK(watched[i].calls + watched[(i + 1) % SOURCES].calls >= 1);
    unwatch_all();
    loop_deinit(&loop);
}

TEST(a_source_may_remove_itself_and_all_others)
{
    start_loop();
    for (unsigned who = 0; who < SOURCES; who++) {
        unsigned calls = 0;

        watch_all();
        for (unsigned i = 0; i < SOURCES; i++)
            watched[i].removes = i;
        run_rounds(3);
        for (unsigned i = 0; i < SOURCES; i++)
            calls += watched[i].calls;
        CHECK_EQ(calls, SOURCES); /* once each: level-triggered, but gone */
        unwatch_all();
    }
    loop_deinit(&loop);
}

TEST(events_can_be_changed_and_bad_descriptors_are_refused)
{
    struct loop_source source = {.loop = NULL};
    struct error_buffer why;

    start_loop();
    watch_all();
    REQUIRE_OK(loop_modify(watched[0].source, 0, NULL));
    run_rounds(2);
    CHECK_EQ(watched[0].calls, 0);
    CHECK_EQ(watched[1].calls, 2);
    REQUIRE_OK(loop_modify(watched[0].source, EPOLLIN, NULL));
    run_rounds(1);
    CHECK_EQ(watched[0].calls, 1);
    CHECK(loop_add(&loop, &source, -1, EPOLLIN, on_watched, NULL, &why) < 0);
    CHECK_CONTAINS(why.text, "descriptor -1");
    loop_remove(&source); /* was never added: nothing happens */
    unwatch_all();
    loop_deinit(&loop);
}

TEST(no_room_for_descriptors_is_an_error_and_leaks_none)
{
    struct rlimit old;
    struct rlimit low;
    struct error_buffer why;
    int next = dup(0);

    REQUIRE(next >= 0 && getrlimit(RLIMIT_NOFILE, &old) == 0);
    (void)close(next);
    for (int room = 0; room < 3; room++) {
        low = old;
        low.rlim_cur = (rlim_t)(next + room);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
        CHECK_ERR(loop_init(&loop, &why), SHMQ_ELIMIT);
    }
    REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
    CHECK_INT_EQ(dup(0), next);
    (void)close(next);
}

/* ---- Timers ------------------------------------------------------------------------------------- */

#define TIMERS 300

struct timed {
    struct loop_timer timer;
    uint64_t deadline_ns; /* by the model; 0: not set */
    uint64_t set_at;      /* order of setting */
};

static struct timed timed[TIMERS];
static struct timed *last_called;
static unsigned timer_calls;
static uint64_t set_counter;

static void on_timed(struct loop_timer *timer, void *context)
{
    struct timed *here = context;

    CHECK(timer == &here->timer);
    CHECK(!loop_timer_is_set(timer));
    CHECK(here->deadline_ns != 0 && here->deadline_ns <= loop_now_ns(&loop));
    if (last_called)
        CHECK(
            last_called->deadline_ns < here->deadline_ns ||
            (last_called->deadline_ns == here->deadline_ns && last_called->set_at < here->set_at));
    last_called = here;
    timer_calls++;
}

static void set_timed(unsigned index, uint64_t deadline_ns)
{
    loop_timer_set(&loop, &timed[index].timer, deadline_ns, on_timed, &timed[index]);
    timed[index].deadline_ns = max_u64(deadline_ns, loop_now_ns(&loop));
    timed[index].set_at = ++set_counter;
}

/* Random sets, moves and stops in a time that stands still; then time comes, in steps. */
TEST(timers_go_off_in_order_like_a_sorted_list)
{
    struct test_random random;

    start_loop();
    test_random_init(&random, test_seed());
    for (int round = 0; round < 40; round++) {
        uint64_t begin = loop_now_ns(&loop);
        unsigned due = 0;

        for (int i = 0; i < 2000; i++) {
            unsigned index = (unsigned)test_random_below(&random, TIMERS);

            if (test_random_below(&random, 4) == 0) {
                loop_timer_stop(&timed[index].timer);
                timed[index].deadline_ns = 0;
            } else {
                set_timed(index, begin + test_random_below(&random, 50) * 20 * NS_PER_US);
            }
        }
        while (loop.timers) {
            last_called = NULL;
            timer_calls = 0;
            REQUIRE_OK(loop_run_once(&loop, 1000, NULL));
            due = 0;
            for (unsigned i = 0; i < TIMERS; i++) {
                bool called = timed[i].deadline_ns && !loop_timer_is_set(&timed[i].timer);

                CHECK(called || !timed[i].deadline_ns || timed[i].deadline_ns > loop_now_ns(&loop));
                due += called;
                if (called)
                    timed[i].deadline_ns = 0;
            }
            CHECK_EQ(due, timer_calls);
        }
    }
    loop_deinit(&loop);
}

static unsigned self_calls;

static void on_self(struct loop_timer *timer, void *context)
{
    self_calls++;
    loop_timer_set(&loop, timer, 0, on_self, context);
}

TEST(a_timer_that_sets_itself_into_the_past_starves_nobody)
{
    struct loop_timer itself = {.loop = NULL};

    start_loop();
    watch_all();
    loop_timer_set(&loop, &itself, 0, on_self, NULL);
    set_timed(0, loop_now_ns(&loop) + 1);
    run_rounds(1); /* the timer descriptor may be late by a round */
    for (int i = 0; i < 100; i++) {
        unsigned before = self_calls;

        REQUIRE_OK(loop_run_once(&loop, -1, NULL));
        CHECK_EQ(self_calls, before + 1);
    }
    CHECK_EQ(watched[3].calls, 101);
    CHECK(!loop_timer_is_set(&timed[0].timer));
    loop_timer_stop(&itself);
    unwatch_all();
    loop_deinit(&loop);
}

static void on_stop_other(struct loop_timer *timer, void *context)
{
    (void)timer;
    loop_timer_stop(context);
    timer_calls++;
}

TEST(a_timer_may_stop_another_that_is_due)
{
    struct loop_timer first = {.loop = NULL};
    struct loop_timer second = {.loop = NULL};

    start_loop();
    loop_timer_set(&loop, &first, 1, on_stop_other, &second);
    loop_timer_set(&loop, &second, 1, on_stop_other, &first);
    while (timer_calls == 0)
        REQUIRE_OK(loop_run_once(&loop, 1000, NULL));
    run_rounds(3);
    CHECK_EQ(timer_calls, 1);
    CHECK(!loop_timer_is_set(&second));
    loop_deinit(&loop);
}

TEST(a_timer_ends_the_wait_and_not_too_early)
{
    uint64_t deadline_ns;

    start_loop();
    deadline_ns = clock_monotonic_ns() + 30 * NS_PER_MS;
    set_timed(0, deadline_ns);
    set_timed(1, UINT64_MAX); /* never, and no overflow on the way there */
    while (loop_timer_is_set(&timed[0].timer)) {
        REQUIRE_OK(loop_run_once(&loop, -1, NULL));
        CHECK(!loop_timer_is_set(&timed[0].timer) || clock_monotonic_ns() < deadline_ns + NS_PER_S);
    }
    CHECK(clock_monotonic_ns() >= deadline_ns);
    CHECK(loop_timer_is_set(&timed[1].timer));
    loop_deinit(&loop);
}

/* Context switches that the thread asked for: an idle loop sleeps once. */
TEST(an_idle_loop_does_not_wake_up)
{
    struct rusage before;
    struct rusage after;

    start_loop();
    set_timed(0, clock_monotonic_ns() + 3600 * NS_PER_S);
    loop_timer_stop(&timed[0].timer);
    run_rounds(2);
    REQUIRE(getrusage(RUSAGE_THREAD, &before) == 0);
    REQUIRE_OK(loop_run_once(&loop, 300, NULL));
    REQUIRE(getrusage(RUSAGE_THREAD, &after) == 0);
    CHECK(after.ru_nvcsw - before.ru_nvcsw <= 2);
    loop_deinit(&loop);
}

/* ---- Deferred calls ------------------------------------------------------------------------------ */

static struct loop_defer defers[4];
static char defer_order[16];

static void on_defer(struct loop_defer *defer, void *context)
{
    const char *letter = context;

    strncat(defer_order, letter, 1);
    if (*letter == 'a') {
        loop_defer_stop(&defers[2]);                               /* waits in this round */
        loop_defer_call(&loop, &defers[3], on_defer, (void *)"d"); /* goes into the next one */
        loop_defer_call(&loop, defer, on_defer, (void *)"e");
    }
}

TEST(deferred_calls_come_in_order_and_new_ones_a_round_later)
{
    start_loop();
    loop_defer_call(&loop, &defers[0], on_defer, (void *)"a");
    loop_defer_call(&loop, &defers[1], on_defer, (void *)"b");
    loop_defer_call(&loop, &defers[2], on_defer, (void *)"c");
    loop_defer_call(&loop, &defers[1], on_defer, (void *)"x"); /* waits already: nothing changes */
    REQUIRE_OK(loop_run_once(&loop, -1, NULL));                /* does not sleep */
    CHECK_STR_EQ(defer_order, "ab");
    REQUIRE_OK(loop_run_once(&loop, -1, NULL));
    CHECK_STR_EQ(defer_order, "abde");
    run_rounds(2);
    CHECK_STR_EQ(defer_order, "abde");
    loop_defer_stop(&defers[0]);
    loop_deinit(&loop);
}

/* ---- Wake, stop, signals -------------------------------------------------------------------------- */

static _Atomic unsigned wakes;

static void on_wake(void *context)
{
    (void)context;
    atomic_fetch_add_explicit(&wakes, 1, memory_order_relaxed);
}

static void *wake_and_stop(void *context)
{
    (void)context;
    for (unsigned seen = 0; seen < 100; seen++) {
        loop_wake(&loop);
        while (atomic_load_explicit(&wakes, memory_order_relaxed) <= seen)
            test_sleep_ms(0);
    }
    loop_stop(&loop);
    return NULL;
}

TEST(other_threads_wake_and_stop_it)
{
    pthread_t thread;

    start_loop();
    loop_on_wake(&loop, on_wake, NULL);
    REQUIRE(pthread_create(&thread, NULL, wake_and_stop, NULL) == 0);
    CHECK_OK(loop_run(&loop, NULL));
    (void)pthread_join(thread, NULL);
    CHECK(atomic_load(&wakes) >= 100);
    loop_stop(&loop); /* before it runs: counts as well */
    CHECK_OK(loop_run(&loop, NULL));
    loop_deinit(&loop);
}

static unsigned signals_seen;
static struct loop_signals signals;

static void on_signal(const struct signalfd_siginfo *info, void *context)
{
    CHECK(context == &signals);
    CHECK_EQ(info->ssi_signo, SIGUSR1);
    signals_seen++;
    loop_signals_remove(&signals); /* from inside its own callback */
}

TEST(signals_come_as_calls_and_the_mask_is_restored)
{
    sigset_t set;
    sigset_t mask;

    start_loop();
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR1);
    REQUIRE_OK(loop_signals_add(&loop, &signals, &set, on_signal, &signals, NULL));
    REQUIRE(raise(SIGUSR1) == 0); /* blocked: would end the process */
    run_rounds(2);
    CHECK_EQ(signals_seen, 1);
    REQUIRE(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
    CHECK_INT_EQ(sigismember(&mask, SIGUSR1), 0);
    loop_signals_remove(&signals);
    loop_deinit(&loop);
}

TEST_MAIN("loop", T(a_source_removed_in_the_batch_is_not_called),
          T(a_source_may_remove_itself_and_all_others),
          T(events_can_be_changed_and_bad_descriptors_are_refused),
          T(no_room_for_descriptors_is_an_error_and_leaks_none),
          T(timers_go_off_in_order_like_a_sorted_list),
          T(a_timer_that_sets_itself_into_the_past_starves_nobody),
          T(a_timer_may_stop_another_that_is_due), T(a_timer_ends_the_wait_and_not_too_early),
          T(an_idle_loop_does_not_wake_up),
          T(deferred_calls_come_in_order_and_new_ones_a_round_later),
          T(other_threads_wake_and_stop_it), T(signals_come_as_calls_and_the_mask_is_restored))
