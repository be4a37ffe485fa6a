/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping and waking, wait.h: between processes, and between threads for ThreadSanitizer.
 *
 * A lost wake-up shows as a sleep that ended by its bound of 1 s though the waker had finished long
 * before; that is told from a slow machine by the waker's own time stamp, not by speed.
 */
#include "libshmq/wait.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "libshmq/segment.h"
#include "test/support/step.h"
#include "test/support/test.h"

/* What a wake-up may take at most on a busy machine, below the bound that hides a lost one. */
#define HANG_MS 900

/* Turns that both sides of a race dawdle at most: about as long as a store is on its way. Without
 * either barrier, the races below lose wake-ups within seconds. */
#define RACE_SPINS 8

static struct wait_segment *new_words(uint32_t count)
{
    return test_shared(count * sizeof(struct wait_segment));
}

static uint64_t elapsed_ms(uint64_t since_ns)
{
    return (test_now_ns() - since_ns) / NS_PER_MS;
}

/* Prepares all, runs the barrier, and leaves the words in `ret`. */
static void prepare_all(struct wait_segment *segments, uint32_t count, struct wait_word *ret)
{
    for (uint32_t i = 0; i < count; i++)
        ret[i] = wait_prepare(&segments[i], ATTENTION_DATA);
    wait_barrier(true);
}

/* ---- single calls ---------------------------------------------------------------------------- */

TEST(a_wake_without_sleepers_touches_nothing)
{
    struct wait_segment *wait = new_words(1);

    CHECK_EQ(wait_wake(wait, ATTENTION_DATA, true), 0);
    CHECK_EQ(wait->data_seq, 0);
    wait->attention = ATTENTION_DOORBELL | ATTENTION_CLOSED;
    CHECK_EQ(wait_wake(wait, ATTENTION_DATA | ATTENTION_ROOM, true),
             ATTENTION_DOORBELL | ATTENTION_CLOSED);
    CHECK_EQ(wait->attention, ATTENTION_DOORBELL | ATTENTION_CLOSED);
    CHECK_EQ(wait->data_seq, 0);
    CHECK_EQ(wait->room_seq, 0);
}

TEST(a_wake_clears_and_bumps_only_what_it_is_for)
{
    struct wait_segment *wait = new_words(1);
    struct wait_word data = wait_prepare(wait, ATTENTION_DATA);
    struct wait_word room = wait_prepare(wait, ATTENTION_ROOM);

    CHECK(data.address == &wait->data_seq && data.value == 0);
    CHECK(room.address == &wait->room_seq && room.value == 0);
    wait->attention |= ATTENTION_CLOSED;
    CHECK_EQ(wait_wake(wait, ATTENTION_ROOM, false),
             ATTENTION_DATA | ATTENTION_ROOM | ATTENTION_CLOSED);
    CHECK_EQ(wait->attention, ATTENTION_DATA | ATTENTION_CLOSED);
    CHECK_EQ(wait->data_seq, 0);
    CHECK_EQ(wait->room_seq, 1);
    /* Whoever was about to sleep for room goes on; whoever waits for data sleeps. */
    CHECK(wait_sleep(&room, 1, NS_PER_MS));
    CHECK(!wait_sleep(&data, 1, NS_PER_MS));
    wait_wake_everyone(wait);
    CHECK_EQ(wait->data_seq, 1);
    CHECK_EQ(wait->room_seq, 2);
    CHECK(wait_sleep(&data, 1, NS_PER_MS));
}

TEST(a_sleep_ends_by_its_timeout_and_never_lasts_longer_than_a_second)
{
    struct wait_segment *wait = new_words(2);
    struct wait_word words[2];
    uint64_t start_ns = test_now_ns();

    prepare_all(wait, 2, words);
    CHECK(!wait_sleep(words, 1, 0));
    CHECK(!wait_sleep(words, 0, NS_PER_MS));
    CHECK(!wait_sleep(words, 1, 5 * NS_PER_MS));
    CHECK(test_now_ns() - start_ns >= 6 * NS_PER_MS);
    for (uint32_t count = 1; count <= 2; count++) {
        start_ns = test_now_ns();
        CHECK(!wait_sleep(words, count, UINT64_MAX));
        if (count == 1 || wait_words_per_sleep() > 1)
            CHECK(elapsed_ms(start_ns) >= 999);
        CHECK(elapsed_ms(start_ns) < 4000);
    }
}

static void on_signal(int number)
{
    (void)number;
}

TEST(a_signal_ends_a_sleep)
{
    struct wait_segment *wait = new_words(1);
    struct wait_word word = wait_prepare(wait, ATTENTION_DATA);
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    uint64_t start_ns = test_now_ns();

    REQUIRE(sigaction(SIGALRM, &action, NULL) == 0);
    (void)ualarm(50000, 0);
    CHECK(!wait_sleep(&word, 1, WAIT_SLEEP_MAX_NS));
    CHECK(elapsed_ms(start_ns) < HANG_MS);
}

TEST(a_word_that_cannot_be_read_is_no_hot_loop)
{
    struct wait_word words[2] = {{(void *)64, 0}, {(void *)128, 0}};

    for (uint32_t count = 1; count <= 2; count++) {
        uint64_t start_ns = test_now_ns();

        (void)wait_sleep(words, count, WAIT_SLEEP_MAX_NS);
        CHECK(test_now_ns() - start_ns >= NS_PER_MS);
    }
}

static void sleep_readonly(void *argument)
{
    struct segment *segment = argument;
    struct bus_segment *bus = segment->address;
    struct wait_word word = {&bus->clients[3].event, 7};

    CHECK(wait_sleep(&word, 1, WAIT_SLEEP_MAX_NS));
    CHECK(wait_sleep(&word, 1, WAIT_SLEEP_MAX_NS)); /* it has another value now */
}

/* A client maps B read-only, under another address than shmqd's, and sleeps on its event word
 * there. */
TEST(event_word_wakes_through_a_readonly_mapping)
{
    char name[SEGMENT_NAME_BYTES], prefix[100];
    struct segment writable = {0}, readonly = {0};
    struct bus_segment *bus;
    pid_t pid;
    int fd;

    (void)snprintf(prefix, sizeof(prefix), "shmq.%s.0", test_bus_name());
    REQUIRE_OK(segment_name(name, prefix, SEGMENT_BUS, 0, 0, 0));
    REQUIRE_OK(segment_create(name, segment_bus_bytes(8), &fd, NULL));
    CHECK_OK(segment_unlink(name));
    REQUIRE_OK(segment_map(fd, true, 1, &writable, NULL));
    REQUIRE_OK(segment_map(fd, false, 1, &readonly, NULL));
    (void)close(fd);
    CHECK(readonly.address != writable.address);
    bus = writable.address;
    bus->clients[3].event = 7;
    /* MADV_DONTFORK: undone here, for the sleeper is a forked child. */
    REQUIRE(madvise(readonly.address, readonly.bytes, MADV_DOFORK) == 0);
    pid = test_spawn(sleep_readonly, &readonly);
    test_sleep_ms(100);
    wait_wake_word(&bus->clients[3].event);
    CHECK_INT_EQ(test_wait_exit(pid, HANG_MS * 4), 0);
    segment_unmap(&writable);
    segment_unmap(&readonly);
}

/* ---- lost wake-ups --------------------------------------------------------------------------- */

struct stress {
    struct wait_segment wait;
    _Alignas(128) _Atomic uint64_t commit;  /* the publisher's latest record */
    _Alignas(128) _Atomic uint64_t woken;   /* wait_wake() for this record has returned ... */
    _Atomic uint64_t woken_ns;              /* ... at this time */
    _Alignas(128) _Atomic uint64_t seen[4]; /* each sleeper's latest record */
    _Atomic uint64_t sleeps;
    _Atomic uint64_t lost;
    uint64_t rounds;
    uint32_t sleepers;
    bool fence_mode;
    uint64_t seed;
};

struct stress_sleeper {
    struct stress *stress;
    uint32_t index;
};

static void stress_sleep_round(struct stress *stress, uint64_t round)
{
    while (atomic_load_explicit(&stress->commit, memory_order_acquire) < round) {
        struct wait_word word = wait_prepare(&stress->wait, ATTENTION_DATA);

        wait_barrier(stress->fence_mode);
        if (atomic_load_explicit(&stress->commit, memory_order_acquire) >= round)
            break;
        (void)atomic_fetch_add(&stress->sleeps, 1);
        if (wait_sleep(&word, 1, WAIT_SLEEP_MAX_NS))
            continue;
        /* Its full second, and the publisher had done its part half a second before the end. */
        if (atomic_load(&stress->woken) >= round &&
            test_now_ns() - atomic_load(&stress->woken_ns) > 500 * NS_PER_MS)
            (void)atomic_fetch_add(&stress->lost, 1);
    }
}

static void spin_for(uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++)
        cpu_relax();
}

static void stress_sleep(void *argument)
{
    struct stress_sleeper *me = argument;
    struct stress *stress = me->stress;
    struct test_random random;

    test_random_init(&random, stress->seed + 1 + me->index);
    if (!stress->fence_mode)
        CHECK(wait_register_process());
    for (uint64_t round = 1; round <= stress->rounds && atomic_load(&stress->lost) < 3; round++) {
        stress_sleep_round(stress, round);
        atomic_store(&stress->seen[me->index], round);
        spin_for(test_random_below(&random, RACE_SPINS));
    }
}

static bool all_have_seen(struct stress *stress, uint64_t round)
{
    for (uint32_t i = 0; i < stress->sleepers; i++) {
        if (atomic_load(&stress->seen[i]) < round)
            return false;
    }
    return true;
}

static void stress_publish(void *argument)
{
    struct stress *stress = argument;
    struct test_random random;

    test_random_init(&random, stress->seed);
    if (!stress->fence_mode)
        CHECK(wait_register_process());
    for (uint64_t round = 1; round <= stress->rounds; round++) {
        /* The sleeper is between "seen" and its sleep: strike somewhere in there, or well after. */
        spin_for(test_random_below(&random, round % 16 == 0 ? 4096 : RACE_SPINS));
        atomic_store_explicit(&stress->commit, round, memory_order_release);
        (void)wait_wake(&stress->wait, ATTENTION_DATA, stress->fence_mode);
        atomic_store(&stress->woken_ns, test_now_ns());
        atomic_store(&stress->woken, round);
        for (uint32_t spins = 0; !all_have_seen(stress, round); spins++) {
            if (atomic_load(&stress->lost) >= 3)
                return;
            if (spins > 200)
                sched_yield();
            cpu_relax();
        }
    }
}

static struct stress *stress_new(bool fence_mode, uint32_t sleepers, uint64_t rounds)
{
    struct stress *stress = test_shared(sizeof(*stress));

    if (!fence_mode && !wait_register_process())
        SKIP("this kernel has no membarrier(GLOBAL_EXPEDITED)");
    stress->fence_mode = fence_mode;
    stress->rounds = rounds;
    stress->sleepers = sleepers;
    stress->seed = test_seed();
    return stress;
}

static void stress_judge(const struct stress *stress)
{
    test_note("%llu rounds, %llu sleeps, seed %llu", (unsigned long long)stress->rounds,
              (unsigned long long)stress->sleeps, (unsigned long long)stress->seed);
    CHECK_EQ(stress->lost, 0);
    CHECK(stress->sleeps > 20); /* else it has raced nothing */
    for (uint32_t i = 0; i < stress->sleepers; i++)
        CHECK_EQ(stress->seen[i], stress->rounds);
}

/* One sleeper and one publisher race best where there are two cores; more sleepers share the
 * bit. */
static void stress_processes(bool fence_mode, uint32_t count, uint64_t rounds)
{
    struct stress *stress = stress_new(fence_mode, count, rounds);
    struct stress_sleeper sleepers[3] = {{stress, 0}, {stress, 1}, {stress, 2}};
    pid_t publisher, pids[3];

    for (uint32_t i = 0; i < count; i++)
        pids[i] = test_spawn(stress_sleep, &sleepers[i]);
    publisher = test_spawn(stress_publish, stress);
    CHECK_INT_EQ(test_wait_exit(publisher, 40000), 0);
    for (uint32_t i = 0; i < count; i++)
        CHECK_INT_EQ(test_wait_exit(pids[i], 5000), 0);
    stress_judge(stress);
}

TEST(no_wake_is_lost_between_processes_with_membarrier)
{
    stress_processes(false, 1, 40000);
    stress_processes(false, 3, 5000);
}

TEST(no_wake_is_lost_between_processes_with_fences)
{
    stress_processes(true, 1, 40000);
    stress_processes(true, 3, 5000);
}

static void *stress_sleep_thread(void *argument)
{
    stress_sleep(argument);
    return NULL;
}

/* The one that ThreadSanitizer sees. */
static void stress_threads(bool fence_mode)
{
    struct stress *stress = stress_new(fence_mode, 2, 5000);
    struct stress_sleeper sleepers[2] = {{stress, 0}, {stress, 1}};
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&threads[i], NULL, stress_sleep_thread, &sleepers[i]) == 0);
    stress_publish(stress);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    stress_judge(stress);
}

TEST(no_wake_is_lost_between_threads_with_membarrier)
{
    stress_threads(false);
}

TEST(no_wake_is_lost_between_threads_with_fences)
{
    stress_threads(true);
}

/* ---- one side stopped at every instruction of its part --------------------------------------- */

/* Waits for record 2 while record 1 comes at a bad moment. */
struct duel {
    struct wait_segment wait;
    _Alignas(128) _Atomic uint64_t commit;
    struct wait_word word; /* of the sleep to come */
    uint64_t seen;
    bool fence_mode;
    bool alone; /* nobody publishes: the engine counts the steps */
};

static void duel_prepare(void *argument)
{
    struct duel *duel = argument;
    struct duel fresh = {.fence_mode = duel->fence_mode, .alone = duel->alone};

    *duel = fresh;
    duel->commit = duel->alone ? 2 : 0;
    duel->wait.attention = ATTENTION_DATA; /* somebody else's, who died */
}

static void duel_register(void *argument)
{
    struct duel *duel = argument;

    CHECK(duel->fence_mode || wait_register_process());
}

static void duel_look(void *argument)
{
    struct duel *duel = argument;

    duel->word = wait_prepare(&duel->wait, ATTENTION_DATA);
    wait_barrier(duel->fence_mode);
    duel->seen = atomic_load_explicit(&duel->commit, memory_order_acquire);
}

static void duel_sleep(void *argument)
{
    struct duel *duel = argument;

    while (duel->seen < 2) {
        uint64_t start_ns = test_now_ns();

        (void)wait_sleep(&duel->word, 1, WAIT_SLEEP_MAX_NS);
        if (!CHECK(elapsed_ms(start_ns) < HANG_MS))
            break;
        duel_look(duel);
    }
}

static void duel_publish(struct duel *duel, uint64_t record)
{
    atomic_store_explicit(&duel->commit, record, memory_order_release);
    (void)wait_wake(&duel->wait, ATTENTION_DATA, duel->fence_mode);
}

static void duel_publish_both(void *argument)
{
    duel_publish(argument, 1);
    duel_publish(argument, 2);
}

static void duel_resume(struct step_child *child)
{
    step_resume(child);
    child->alive = false; /* we wait for it ourselves, after more has happened */
}

/* The sleeper stands at any instruction: record 1 comes now, record 2 when it sleeps. */
static void publish_around_sleeper(void *argument, struct step_child *child)
{
    struct duel *duel = argument;

    duel_publish(duel, 1);
    duel_resume(child);
    test_sleep_ms(3);
    duel_publish(duel, 2);
    CHECK_INT_EQ(test_wait_exit(child->pid, 5000), 0);
}

/* The publisher stands at any instruction of its two records: somebody goes to sleep now. */
static void sleep_around_publisher(void *argument, struct step_child *child)
{
    struct duel *duel = argument;

    duel_look(duel);
    duel_resume(child);
    duel_sleep(duel);
    CHECK_INT_EQ(test_wait_exit(child->pid, 5000), 0);
}

static void duel_everywhere(struct step_plan *plan, bool fence_mode, uint64_t floor,
                            void (*verify)(void *, struct step_child *))
{
    struct duel *duel = test_shared(sizeof(*duel));
    struct step_points points = {0};

    step_require();
    if (!fence_mode && !wait_register_process())
        SKIP("this kernel has no membarrier(GLOBAL_EXPEDITED)");
    duel->fence_mode = fence_mode;
    plan->arg = duel;
    plan->prepare = duel_prepare;
    plan->setup = duel_register;
    duel->alone = true;
    REQUIRE(step_list_all(plan, &points) == 0);
    duel->alone = false;
    (void)step_walk(plan, &points, STEP_STOP, verify);
    (void)step_report(plan, &points, floor);
    step_points_free(&points);
}

TEST(sleeper_stopped_anywhere_misses_no_record)
{
    struct step_plan plan = {.name = "sleep", .operation = duel_look, .finish = duel_sleep};

    duel_everywhere(&plan, true, 20, publish_around_sleeper);
    duel_everywhere(&plan, false, 20, publish_around_sleeper);
}

TEST(publisher_stopped_anywhere_wakes_whoever_sleeps_meanwhile)
{
    struct step_plan plan = {.name = "wake", .operation = duel_publish_both};

    duel_everywhere(&plan, true, 20, sleep_around_publisher);
    duel_everywhere(&plan, false, 20, sleep_around_publisher);
}

/* ---- all, and death -------------------------------------------------------------------------- */

#define CROWD 6

struct crowd {
    struct wait_segment wait;
    struct test_barrier ready;
    _Atomic uint32_t commit;
};

static void crowd_sleep(void *argument)
{
    struct crowd *crowd = argument;
    struct wait_word word = wait_prepare(&crowd->wait, ATTENTION_DATA);

    wait_barrier(true);
    CHECK(test_barrier_wait(&crowd->ready, 10000));
    CHECK(wait_sleep(&word, 1, WAIT_SLEEP_MAX_NS));
    CHECK_EQ(atomic_load(&crowd->commit), 1);
}

TEST(one_wake_wakes_all)
{
    struct crowd *crowd = test_shared(sizeof(*crowd));
    pid_t pids[CROWD];

    test_barrier_init(&crowd->ready, CROWD + 1);
    for (int i = 0; i < CROWD; i++)
        pids[i] = test_spawn(crowd_sleep, crowd);
    CHECK(test_barrier_wait(&crowd->ready, 10000));
    test_sleep_ms(200); /* so that they do sleep: without, they would find the word changed */
    atomic_store(&crowd->commit, 1);
    CHECK_EQ(wait_wake(&crowd->wait, ATTENTION_DATA, true), ATTENTION_DATA);
    for (int i = 0; i < CROWD; i++)
        CHECK_INT_EQ(test_wait_exit(pids[i], 5000), 0);
    CHECK_EQ(crowd->wait.attention, 0);
}

static void publish_and_die(void *argument)
{
    struct crowd *crowd = argument;

    CHECK(test_barrier_wait(&crowd->ready, 10000));
    atomic_store(&crowd->commit, 1);
    (void)raise(SIGKILL); /* between the stamp and the load of attention */
}

static void clear_and_die(void *argument)
{
    struct crowd *crowd = argument;

    CHECK(test_barrier_wait(&crowd->ready, 10000));
    atomic_store(&crowd->commit, 1);
    (void)atomic_fetch_and(&crowd->wait.attention, ~ATTENTION_DATA);
    (void)raise(SIGKILL); /* between the clear and the bump */
}

static void bump_and_die(void *argument)
{
    struct crowd *crowd = argument;

    CHECK(test_barrier_wait(&crowd->ready, 10000));
    atomic_store(&crowd->commit, 1);
    (void)atomic_fetch_and(&crowd->wait.attention, ~ATTENTION_DATA);
    (void)atomic_fetch_add(&crowd->wait.data_seq, 1);
    (void)raise(SIGKILL); /* between the bump and the system call */
}

TEST(a_waker_that_dies_delays_by_a_second_at_most)
{
    static void (*const deaths[])(void *) = {publish_and_die, clear_and_die, bump_and_die};

    for (size_t i = 0; i < COUNT_OF(deaths); i++) {
        struct crowd *crowd = test_shared(sizeof(*crowd));
        struct wait_word word;
        uint64_t start_ns;
        pid_t pid;

        test_context("death %zu ", i);
        test_barrier_init(&crowd->ready, 2);
        pid = test_spawn(deaths[i], crowd);
        word = wait_prepare(&crowd->wait, ATTENTION_DATA);
        wait_barrier(true);
        CHECK_EQ(atomic_load(&crowd->commit), 0);
        CHECK(test_barrier_wait(&crowd->ready, 10000));
        start_ns = test_now_ns();
        (void)wait_sleep(&word, 1, UINT64_MAX);
        CHECK(elapsed_ms(start_ns) < 4000);
        CHECK_EQ(atomic_load(&crowd->commit), 1);
        CHECK_INT_EQ(test_wait_exit(pid, 5000), -SIGKILL);
    }
    test_context(NULL);
}

static void keep_watch(void *argument)
{
    struct crowd *crowd = argument;

    CHECK(test_barrier_wait(&crowd->ready, 10000));
    test_sleep_ms(50);
    wait_wake_everyone(&crowd->wait);
}

/* What the supervisor does at a death: no bit need be set for it. */
TEST(wake_everyone_needs_no_attention_bit)
{
    struct crowd *crowd = test_shared(sizeof(*crowd));
    struct wait_word words[2];
    pid_t pid;

    test_barrier_init(&crowd->ready, 2);
    pid = test_spawn(keep_watch, crowd);
    words[0] = wait_prepare(&crowd->wait, ATTENTION_ROOM);
    atomic_store(&crowd->wait.attention, 0);
    CHECK(test_barrier_wait(&crowd->ready, 10000));
    CHECK(wait_sleep(words, 1, WAIT_SLEEP_MAX_NS));
    CHECK_INT_EQ(test_wait_exit(pid, 5000), 0);
}

/* ---- several words --------------------------------------------------------------------------- */

struct later {
    struct wait_segment *wait;
    uint32_t after_ms;
};

static void *wake_later(void *argument)
{
    struct later *later = argument;

    test_sleep_ms(later->after_ms);
    (void)wait_wake(later->wait, ATTENTION_DATA, true);
    return NULL;
}

static pthread_t start_later(struct later *later, struct wait_segment *wait)
{
    pthread_t thread;

    *later = (struct later){wait, 20};
    REQUIRE(pthread_create(&thread, NULL, wake_later, later) == 0);
    return thread;
}

TEST(one_call_takes_127_words)
{
    struct wait_segment *segments = new_words(WAIT_WORDS_MAX);
    static const uint32_t targets[] = {0, 1, 63, 64, 125, 126};

    if (wait_words_per_sleep() == 1)
        SKIP("this kernel has no futex_waitv");
    CHECK_EQ(wait_words_per_sleep(), WAIT_WORDS_MAX);
    for (size_t i = 0; i < COUNT_OF(targets); i++) {
        struct wait_word words[WAIT_WORDS_MAX];
        struct later later;
        pthread_t thread;

        test_context("word %u ", targets[i]);
        prepare_all(segments, WAIT_WORDS_MAX, words);
        thread = start_later(&later, &segments[targets[i]]);
        CHECK(wait_sleep(words, WAIT_WORDS_MAX, WAIT_SLEEP_MAX_NS));
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK_EQ(segments[targets[i]].data_seq, words[targets[i]].value + 1);
    }
    test_context(NULL);
}

TEST(words_beyond_one_call_are_late_but_not_lost)
{
    struct wait_segment *segments = new_words(3);
    struct wait_word words[3];
    uint64_t start_ns;

    wait_force_single_word(true);
    CHECK_EQ(wait_words_per_sleep(), 1);
    prepare_all(segments, 3, words);
    start_ns = test_now_ns();
    CHECK(!wait_sleep(words, 3, WAIT_SLEEP_MAX_NS));
    CHECK(elapsed_ms(start_ns) < HANG_MS);
    (void)wait_wake(&segments[0], ATTENTION_DATA, true);
    CHECK(wait_sleep(words, 3, WAIT_SLEEP_MAX_NS));
}

TEST_MAIN("wait", T(a_wake_without_sleepers_touches_nothing),
          T(a_wake_clears_and_bumps_only_what_it_is_for),
          T(a_sleep_ends_by_its_timeout_and_never_lasts_longer_than_a_second),
          T(a_signal_ends_a_sleep), T(a_word_that_cannot_be_read_is_no_hot_loop),
          T(event_word_wakes_through_a_readonly_mapping),
          T_TIMEOUT(no_wake_is_lost_between_processes_with_membarrier, 60),
          T_TIMEOUT(no_wake_is_lost_between_processes_with_fences, 60),
          T_TIMEOUT(no_wake_is_lost_between_threads_with_membarrier, 60),
          T_TIMEOUT(no_wake_is_lost_between_threads_with_fences, 60),
          T_TIMEOUT(sleeper_stopped_anywhere_misses_no_record, 60),
          T_TIMEOUT(publisher_stopped_anywhere_wakes_whoever_sleeps_meanwhile, 60),
          T(one_wake_wakes_all), T(a_waker_that_dies_delays_by_a_second_at_most),
          T(wake_everyone_needs_no_attention_bit), T(one_call_takes_127_words),
          T(words_beyond_one_call_are_late_but_not_lost));
