/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping on many words: wait_crew.h and wait_notifier.h, with threads as wakers.
 *
 * Each is tried with futex_waitv and as on a kernel without. A lost wake-up shows as a sleep of a
 * full second; the limit below it is a hang detector, no measure of speed.
 */
#include "libshmq/wait_crew.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "libshmq/wait_notifier.h"
#include "test/support/test.h"

/* What a wake-up may take at most on a busy machine, below the bound that hides a lost one. */
#define HANG_MS 900

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

static void spin_for(uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++)
        cpu_relax();
}

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

/* ---- crew ------------------------------------------------------------------------------------ */

/* Sleeps as a consumer would, with a waker of each target; checks that each sleep ended by a
 * wake. */
static void crew_wakes_for(struct wait_crew *crew, struct wait_segment *segments, uint32_t count,
                           const uint32_t *targets, size_t target_count)
{
    struct wait_word *words = calloc(count, sizeof(*words));

    REQUIRE(words != NULL);
    for (size_t i = 0; i < target_count; i++) {
        struct wait_segment *target = &segments[targets[i]];
        uint64_t start_ns = test_now_ns();
        uint32_t begun, before = target->data_seq;
        struct later later;
        pthread_t thread;

        test_context("word %u of %u ", targets[i], count);
        thread = start_later(&later, target);
        do {
            begun = wait_crew_begin(crew);
            prepare_all(segments, count, words);
            if (words[targets[i]].value != before)
                break;
            (void)wait_crew_sleep(crew, begun, words, count, WAIT_SLEEP_MAX_NS);
        } while (target->data_seq == before);
        CHECK(elapsed_ms(start_ns) < HANG_MS);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    test_context(NULL);
    free(words);
}

TEST(crew_needs_no_thread_for_what_one_call_takes)
{
    static const uint32_t targets[] = {0, 60, 125};
    struct wait_segment *segments = new_words(126);
    struct wait_crew *crew;

    if (wait_words_per_sleep() == 1)
        SKIP("this kernel has no futex_waitv");
    REQUIRE_OK(wait_crew_new(&crew));
    crew_wakes_for(crew, segments, 126, targets, COUNT_OF(targets));
    CHECK_EQ(wait_crew_thread_count(crew), 0);
    CHECK(wait_crew_free(crew) == NULL);
    CHECK(wait_crew_free(NULL) == NULL);
}

TEST(crew_wakes_for_each_of_300_words)
{
    static const uint32_t targets[] = {0, 125, 126, 127, 251, 252, 253, 299, 299, 0, 130, 260};
    struct wait_segment *segments = new_words(300);
    struct wait_crew *crew;

    if (wait_words_per_sleep() == 1)
        SKIP("this kernel has no futex_waitv");
    REQUIRE_OK(wait_crew_new(&crew));
    crew_wakes_for(crew, segments, 300, targets, COUNT_OF(targets));
    CHECK_EQ(wait_crew_thread_count(crew), 2);
    /* The set shrinks and grows: assignments change. */
    crew_wakes_for(crew, segments + 100, 10, targets, 1);
    crew_wakes_for(crew, segments + 20, 280, targets + 1, 6);
    (void)wait_crew_free(crew);
}

TEST(crew_works_with_one_word_a_call)
{
    static const uint32_t targets[] = {0, 1, 2, 3, 4, 4, 0, 3};
    struct wait_segment *segments = new_words(20);
    struct wait_crew *crew;
    uint64_t start_ns;

    wait_force_single_word(true);
    REQUIRE_OK(wait_crew_new(&crew));
    crew_wakes_for(crew, segments, 5, targets, COUNT_OF(targets));
    CHECK_EQ(wait_crew_thread_count(crew), 5);
    /* Every helper gets another word while it sleeps on the old one. */
    crew_wakes_for(crew, segments + 5, 5, targets, COUNT_OF(targets));
    crew_wakes_for(crew, segments + 7, 3, targets, 3);
    crew_wakes_for(crew, segments + 3, 12, targets, COUNT_OF(targets));
    start_ns = test_now_ns();
    (void)wait_crew_free(crew);
    CHECK(elapsed_ms(start_ns) < HANG_MS); /* though no helper sleeps on a word of ours */
}

TEST(crew_with_more_words_than_helpers_polls_the_rest)
{
    static const uint32_t targets[] = {0, WAIT_CREW_THREADS_MAX - 1, WAIT_CREW_THREADS_MAX,
                                       WAIT_CREW_THREADS_MAX + 9};
    struct wait_segment *segments = new_words(WAIT_CREW_THREADS_MAX + 10);
    struct wait_crew *crew;

    wait_force_single_word(true);
    REQUIRE_OK(wait_crew_new(&crew));
    crew_wakes_for(crew, segments, WAIT_CREW_THREADS_MAX + 10, targets, COUNT_OF(targets));
    CHECK_EQ(wait_crew_thread_count(crew), WAIT_CREW_THREADS_MAX);
    (void)wait_crew_free(crew);
}

/* The owner sleeps with values that were read before a wake: the helper must not wait for the
 * next. */
static void crew_sees_stale_values(uint32_t count)
{
    struct wait_segment *segments = new_words(count);
    struct wait_word *words = calloc(count, sizeof(*words));
    struct wait_crew *crew;

    REQUIRE(words != NULL);
    REQUIRE_OK(wait_crew_new(&crew));
    for (int i = 0; i < 20; i++) {
        uint32_t begun = wait_crew_begin(crew);
        uint64_t start_ns = test_now_ns();

        prepare_all(segments, count, words);
        (void)wait_wake(&segments[count - 1], ATTENTION_DATA, true);
        while (!wait_crew_sleep(crew, begun, words, count, WAIT_SLEEP_MAX_NS) &&
               elapsed_ms(start_ns) < HANG_MS)
            continue;
        CHECK(elapsed_ms(start_ns) < HANG_MS);
    }
    (void)wait_crew_free(crew);
    free(words);
}

TEST(crew_notices_words_that_moved_before_the_sleep)
{
    if (wait_words_per_sleep() > 1)
        crew_sees_stale_values(300);
    wait_force_single_word(true);
    crew_sees_stale_values(5);
}

/* Wakes without a new value (another process's kick) must not leave a helper parked. */
static void crew_survives_needless_wakes(uint32_t count)
{
    struct wait_segment *segments = new_words(count);
    struct wait_word *words = calloc(count, sizeof(*words));
    uint32_t last = count - 1, begun;
    struct wait_crew *crew;
    uint64_t start_ns;

    REQUIRE(words != NULL);
    REQUIRE_OK(wait_crew_new(&crew));
    prepare_all(segments, count, words);
    (void)wait_crew_sleep(crew, wait_crew_begin(crew), words, count, 30 * NS_PER_MS);
    for (int i = 0; i < 5; i++) {
        wait_rouse(&segments[last].data_seq);
        test_sleep_ms(10);
    }
    begun = wait_crew_begin(crew); /* after the needless report */
    start_ns = test_now_ns();
    (void)wait_crew_sleep(crew, begun, words, count, 30 * NS_PER_MS);
    begun = wait_crew_begin(crew);
    (void)wait_wake(&segments[last], ATTENTION_DATA, true);
    CHECK(wait_crew_sleep(crew, begun, words, count, WAIT_SLEEP_MAX_NS));
    CHECK(elapsed_ms(start_ns) < HANG_MS);
    (void)wait_crew_free(crew);
    free(words);
}

TEST(crew_survives_wakes_that_change_nothing)
{
    if (wait_words_per_sleep() > 1)
        crew_survives_needless_wakes(300);
    wait_force_single_word(true);
    crew_survives_needless_wakes(5);
}

/* As many words as before with the same values, but all of them others. */
static void crew_follows_others(uint32_t count)
{
    struct wait_segment *segments = new_words(2 * count);
    struct wait_word *words = calloc(count, sizeof(*words));
    uint32_t target = count - 1;
    struct wait_crew *crew;

    REQUIRE(words != NULL);
    REQUIRE_OK(wait_crew_new(&crew));
    prepare_all(segments, count, words);
    (void)wait_crew_sleep(crew, wait_crew_begin(crew), words, count, 30 * NS_PER_MS);
    crew_wakes_for(crew, segments + count, count, &target, 1);
    (void)wait_crew_free(crew);
    free(words);
}

TEST(crew_follows_when_all_words_become_others)
{
    if (wait_words_per_sleep() > 1)
        crew_follows_others(300);
    wait_force_single_word(true);
    crew_follows_others(5);
}

static void *wake_crew_later(void *argument)
{
    test_sleep_ms(20);
    wait_crew_wake(argument);
    return NULL;
}

TEST(crew_is_woken_by_a_call_before_or_in_the_sleep)
{
    struct wait_segment *segments = new_words(200);
    struct wait_word words[200];
    struct wait_crew *crew;
    pthread_t thread;
    uint32_t begun, count = wait_words_per_sleep() > 1 ? 200 : 8; /* more than the owner's own */

    REQUIRE_OK(wait_crew_new(&crew));
    prepare_all(segments, count, words);
    begun = wait_crew_begin(crew);
    wait_crew_wake(crew);
    CHECK(wait_crew_sleep(crew, begun, words, count, WAIT_SLEEP_MAX_NS));
    begun = wait_crew_begin(crew);
    REQUIRE(pthread_create(&thread, NULL, wake_crew_later, crew) == 0);
    CHECK(wait_crew_sleep(crew, begun, words, count, WAIT_SLEEP_MAX_NS));
    CHECK(pthread_join(thread, NULL) == 0);
    begun = wait_crew_begin(crew);
    CHECK(!wait_crew_sleep(crew, begun, words, count, 5 * NS_PER_MS));
    CHECK(!wait_crew_sleep(crew, begun, NULL, 0, 5 * NS_PER_MS));
    (void)wait_crew_free(crew);
}

/* Sum of voluntary context switches of all threads but this one, and whether they block SIGTERM. */
static uint64_t other_threads_switches(bool *ret_blocked)
{
    char command[128], line[256];
    uint64_t sum = 0;
    unsigned long mask;
    FILE *pipe;

    *ret_blocked = true;
    (void)snprintf(command, sizeof(command), "cd /proc/%d/task && ls | grep -vx %d", (int)getpid(),
                   (int)getpid());
    pipe = popen(command, "r");
    REQUIRE(pipe != NULL);
    while (fgets(line, sizeof(line), pipe)) {
        char path[64], status[256];
        unsigned long switches = 0;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/self/task/%d/status", atoi(line));
        file = fopen(path, "r");
        if (!file)
            continue;
        while (fgets(status, sizeof(status), file)) {
            (void)sscanf(status, "voluntary_ctxt_switches: %lu", &switches);
            if (sscanf(status, "SigBlk: %lx", &mask) == 1 && !(mask & (1ul << (SIGTERM - 1))))
                *ret_blocked = false;
        }
        sum += switches;
        (void)fclose(file);
    }
    (void)pclose(pipe);
    return sum;
}

static void crew_idles(uint32_t count, uint32_t threads)
{
    struct wait_segment *segments = new_words(count);
    struct wait_word *words = calloc(count, sizeof(*words));
    struct wait_crew *crew;
    uint64_t before, start_ns, seconds;
    bool blocked;

    REQUIRE(words != NULL);
    REQUIRE_OK(wait_crew_new(&crew));
    prepare_all(segments, count, words);
    /* Thrice, that the helpers have come to rest. */
    for (int i = 0; i < 3; i++)
        (void)wait_crew_sleep(crew, wait_crew_begin(crew), words, count, 30 * NS_PER_MS);
    CHECK_EQ(wait_crew_thread_count(crew), threads);
    before = other_threads_switches(&blocked);
    start_ns = test_now_ns();
    for (int i = 0; i < 20; i++) {
        prepare_all(segments, count, words);
        CHECK(!wait_crew_sleep(crew, wait_crew_begin(crew), words, count, 100 * NS_PER_MS));
    }
    seconds = elapsed_ms(start_ns) / 1000 + 1;
    CHECK(other_threads_switches(&blocked) - before <= threads * (seconds + 1));
    CHECK(blocked);
    (void)wait_crew_free(crew);
    free(words);
}

TEST(idle_helpers_wake_once_a_second_and_take_no_signals)
{
    if (TEST_SANITIZED)
        SKIP("sanitizers switch threads on their own");
    if (wait_words_per_sleep() > 1)
        crew_idles(300, 2);
    wait_force_single_word(true);
    crew_idles(4, 4);
}

static void free_in_child(void *argument)
{
    CHECK(wait_crew_free(argument) == NULL);
}

TEST(crew_of_the_parent_is_only_memory_in_a_child)
{
    struct wait_segment *segments = new_words(300);
    struct wait_word words[300];
    struct wait_crew *crew;
    uint64_t start_ns;
    pid_t pid;

    REQUIRE_OK(wait_crew_new(&crew));
    prepare_all(segments, 300, words);
    (void)wait_crew_sleep(crew, wait_crew_begin(crew), words, 300, NS_PER_MS);
    CHECK(wait_crew_thread_count(crew) > 0);
    pid = test_spawn(free_in_child, crew);
    CHECK_INT_EQ(test_wait_exit(pid, 5000), 0);
    start_ns = test_now_ns();
    (void)wait_crew_free(crew);
    CHECK(elapsed_ms(start_ns) < HANG_MS);
}

struct publishers {
    struct wait_segment *segments;
    _Atomic uint64_t *commits;
    _Atomic uint64_t *seen;
    uint32_t count;
    uint32_t rounds;
    uint64_t seed;
    _Atomic bool stop;
};

static void *publish_anywhere(void *argument)
{
    struct publishers *publishers = argument;
    struct test_random random;
    uint64_t total = 0;

    test_random_init(&random, publishers->seed);
    for (uint32_t i = 0; i < publishers->rounds && !atomic_load(&publishers->stop); i++) {
        uint64_t at = test_random_below(&random, publishers->count);

        spin_for(test_random_below(&random, 2000));
        (void)atomic_fetch_add_explicit(&publishers->commits[at], 1, memory_order_release);
        (void)wait_wake(&publishers->segments[at], ATTENTION_DATA, true);
        total++;
        while (atomic_load(publishers->seen) < total && !atomic_load(&publishers->stop))
            sched_yield();
    }
    return NULL;
}

static uint64_t sum_commits(struct publishers *publishers)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < publishers->count; i++)
        sum += atomic_load_explicit(&publishers->commits[i], memory_order_acquire);
    return sum;
}

/* Record by record through a crew, at random words: a lost wake-up is a sleep of a second. */
static void crew_stress(uint32_t count, uint32_t rounds)
{
    struct publishers publishers = {
        .segments = new_words(count),
        .commits = test_shared(count * sizeof(_Atomic uint64_t)),
        .seen = test_shared(sizeof(_Atomic uint64_t)),
        .count = count,
        .rounds = rounds,
        .seed = test_seed(),
    };
    struct wait_word *words = calloc(count, sizeof(*words));
    uint64_t slow = 0, sum = 0, sleeps = 0;
    struct wait_crew *crew;
    pthread_t thread;

    REQUIRE(words != NULL);
    REQUIRE_OK(wait_crew_new(&crew));
    REQUIRE(pthread_create(&thread, NULL, publish_anywhere, &publishers) == 0);
    while (sum < rounds && slow < 3) {
        uint32_t begun = wait_crew_begin(crew);

        prepare_all(publishers.segments, count, words);
        if (sum_commits(&publishers) == sum) {
            uint64_t start_ns = test_now_ns();

            sleeps++;
            (void)wait_crew_sleep(crew, begun, words, count, WAIT_SLEEP_MAX_NS);
            if (elapsed_ms(start_ns) > HANG_MS)
                slow++;
        }
        sum = sum_commits(&publishers);
        atomic_store(publishers.seen, sum);
    }
    test_note("%u words: %llu sleeps, seed %llu", count, (unsigned long long)sleeps,
              (unsigned long long)publishers.seed);
    CHECK(slow == 0);
    CHECK(sleeps > rounds / 20);
    atomic_store(&publishers.stop, true);
    CHECK(pthread_join(thread, NULL) == 0);
    (void)wait_crew_free(crew);
    free(words);
}

TEST(crew_loses_no_wake)
{
    if (wait_words_per_sleep() > 1)
        crew_stress(300, 2000);
    wait_force_single_word(true);
    crew_stress(6, 2000);
}

/* ---- notifier -------------------------------------------------------------------------------- */

/* A consumer of `count` partitions, each a counter, as the notifier sees one. */
struct toy {
    struct wait_segment *segments;
    _Atomic uint64_t *commits;
    _Atomic uint64_t taken; /* sum of what was consumed */
    _Atomic uint32_t *event;
    _Atomic bool blocked;
    _Atomic uint32_t checks;
    uint32_t count;
};

static enum wait_notifier_state toy_check(void *context)
{
    struct toy *toy = context;
    uint64_t sum = 0;

    (void)atomic_fetch_add(&toy->checks, 1);
    for (uint32_t i = 0; i < toy->count; i++)
        sum += atomic_load_explicit(&toy->commits[i], memory_order_acquire);
    if (sum > atomic_load(&toy->taken))
        return WAIT_NOTIFIER_READY;
    return atomic_load(&toy->blocked) ? WAIT_NOTIFIER_BLOCKED : WAIT_NOTIFIER_NOTHING;
}

static void toy_init(struct toy *toy, uint32_t count)
{
    *toy = (struct toy){
        .segments = new_words(count),
        .commits = test_shared(count * sizeof(_Atomic uint64_t)),
        .event = test_shared(sizeof(_Atomic uint32_t)),
        .count = count,
    };
}

static void toy_watch(struct toy *toy, struct wait_notifier *notifier)
{
    struct wait_point *points = calloc(toy->count, sizeof(*points));

    REQUIRE(points != NULL);
    for (uint32_t i = 0; i < toy->count; i++)
        points[i] = (struct wait_point){&toy->segments[i], ATTENTION_DATA};
    REQUIRE_OK(wait_notifier_watch(notifier, points, toy->count, toy->event));
    free(points);
}

static void toy_publish(struct toy *toy, uint32_t at)
{
    (void)atomic_fetch_add_explicit(&toy->commits[at], 1, memory_order_release);
    (void)wait_wake(&toy->segments[at], ATTENTION_DATA, true);
}

/* What shmq_poll does: takes all, or finds nothing and rearms. Returns how many. */
static uint64_t toy_poll(struct toy *toy, struct wait_notifier *notifier)
{
    uint64_t sum = 0, before = atomic_load(&toy->taken);

    for (uint32_t i = 0; i < toy->count; i++)
        sum += atomic_load_explicit(&toy->commits[i], memory_order_acquire);
    if (sum > before)
        atomic_store(&toy->taken, sum);
    else
        wait_notifier_rearm(notifier, atomic_load(toy->event));
    return sum - before;
}

static bool readable(struct wait_notifier *notifier, int timeout_ms)
{
    struct pollfd ask = {.fd = wait_notifier_fd(notifier), .events = POLLIN};

    return poll(&ask, 1, timeout_ms) == 1;
}

static void notifier_round_trip(uint32_t count, uint32_t target)
{
    struct wait_notifier *notifier;
    struct toy toy;
    uint64_t start_ns;

    toy_init(&toy, count);
    REQUIRE_OK(wait_notifier_open(toy_check, &toy, true, &notifier, NULL));
    CHECK(!readable(notifier, 20));
    toy_watch(&toy, notifier);
    CHECK_EQ(toy_poll(&toy, notifier), 0);
    CHECK(!readable(notifier, 50));
    toy_publish(&toy, target);
    CHECK(readable(notifier, test_scaled_ms(HANG_MS)));
    CHECK(readable(notifier, 0)); /* level: until a poll finds nothing */
    toy_publish(&toy, 0);
    CHECK_EQ(toy_poll(&toy, notifier), 2);
    CHECK_EQ(toy_poll(&toy, notifier), 0);
    CHECK(!readable(notifier, 50));
    /* Published while disarmed and before the rearm: found by the check after arming. */
    toy_publish(&toy, target);
    CHECK(readable(notifier, test_scaled_ms(HANG_MS)));
    start_ns = test_now_ns();
    CHECK(wait_notifier_close(notifier) == NULL);
    CHECK(elapsed_ms(start_ns) < HANG_MS);
}

TEST(notifier_makes_its_descriptor_readable)
{
    notifier_round_trip(1, 0);
    notifier_round_trip(300, 299);
    wait_force_single_word(true);
    notifier_round_trip(4, 3);
}

TEST(notifier_tells_of_events_and_of_blocked_claims)
{
    struct wait_notifier *notifier;
    struct toy toy;

    toy_init(&toy, 3);
    REQUIRE_OK(wait_notifier_open(toy_check, &toy, true, &notifier, NULL));
    toy_watch(&toy, notifier);
    (void)toy_poll(&toy, notifier);
    CHECK(!readable(notifier, 30));
    wait_wake_word(toy.event);
    CHECK(readable(notifier, test_scaled_ms(HANG_MS)));
    (void)toy_poll(&toy, notifier);
    CHECK(!readable(notifier, 30));
    /* Nobody wakes us for a claim that is never stamped: time does, when something woke us. */
    atomic_store(&toy.blocked, true);
    wait_wake_everyone(&toy.segments[1]);
    CHECK(readable(notifier, test_scaled_ms(HANG_MS)));
    (void)toy_poll(&toy, notifier);
    CHECK(readable(notifier, test_scaled_ms(HANG_MS)));
    atomic_store(&toy.blocked, false);
    (void)toy_poll(&toy, notifier);
    (void)wait_notifier_close(notifier);
}

TEST(notifier_checks_nothing_while_paused)
{
    struct wait_notifier *notifier;
    struct toy toy;
    uint32_t checks;

    toy_init(&toy, 2);
    REQUIRE_OK(wait_notifier_open(toy_check, &toy, true, &notifier, NULL));
    toy_watch(&toy, notifier);
    (void)toy_poll(&toy, notifier);
    CHECK(!readable(notifier, 30));
    wait_notifier_pause(notifier);
    checks = atomic_load(&toy.checks);
    CHECK(checks > 0);
    toy_publish(&toy, 1);
    CHECK(!readable(notifier, 50));
    CHECK_EQ(atomic_load(&toy.checks), checks);
    toy_watch(&toy, notifier);
    CHECK(readable(notifier, test_scaled_ms(HANG_MS)));
    (void)wait_notifier_close(notifier);
}

static void close_in_child(void *argument)
{
    CHECK(wait_notifier_close(argument) == NULL);
}

TEST(notifier_of_the_parent_is_only_memory_in_a_child)
{
    struct wait_notifier *notifier;
    struct toy toy;
    pid_t pid;

    toy_init(&toy, 2);
    REQUIRE_OK(wait_notifier_open(toy_check, &toy, true, &notifier, NULL));
    toy_watch(&toy, notifier);
    (void)toy_poll(&toy, notifier);
    pid = test_spawn(close_in_child, notifier);
    CHECK_INT_EQ(test_wait_exit(pid, 5000), 0);
    toy_publish(&toy, 0);
    CHECK(readable(notifier, test_scaled_ms(HANG_MS)));
    (void)wait_notifier_close(notifier);
}

static void *publish_to_toy(void *argument)
{
    struct toy *toy = argument;
    struct test_random random;

    test_random_init(&random, test_seed());
    for (uint64_t i = 1; i <= 3000; i++) {
        spin_for(test_random_below(&random, 1500));
        toy_publish(toy, (uint32_t)test_random_below(&random, toy->count));
        if (i % 8 == 0) { /* let the consumer catch up, rearm and sleep */
            while (atomic_load(&toy->taken) < i)
                sched_yield();
        }
    }
    return NULL;
}

/* An epoll loop as a program has it: wait for the descriptor, poll once. */
TEST(notifier_loses_no_record_and_never_stays_readable_in_vain)
{
    struct wait_notifier *notifier;
    uint64_t taken = 0, waits = 0, in_vain = 0;
    pthread_t thread;
    struct toy toy;

    toy_init(&toy, 3);
    REQUIRE_OK(wait_notifier_open(toy_check, &toy, true, &notifier, NULL));
    toy_watch(&toy, notifier);
    REQUIRE(pthread_create(&thread, NULL, publish_to_toy, &toy) == 0);
    wait_notifier_rearm(notifier, 0);
    while (taken < 3000) {
        uint64_t got;

        if (!CHECK(readable(notifier, test_scaled_ms(HANG_MS))))
            break;
        waits++;
        got = toy_poll(&toy, notifier);
        taken += got;
        in_vain += got == 0;
    }
    CHECK_EQ(taken, 3000);
    /* One that drains for each one with data, and the records before the first. */
    CHECK(in_vain <= waits - in_vain + 1);
    CHECK(pthread_join(thread, NULL) == 0);
    (void)wait_notifier_close(notifier);
}

TEST_MAIN("wait_crew", T(crew_needs_no_thread_for_what_one_call_takes),
          T(crew_wakes_for_each_of_300_words), T(crew_works_with_one_word_a_call),
          T(crew_with_more_words_than_helpers_polls_the_rest),
          T(crew_notices_words_that_moved_before_the_sleep),
          T(crew_survives_wakes_that_change_nothing), T(crew_follows_when_all_words_become_others),
          T(crew_is_woken_by_a_call_before_or_in_the_sleep),
          T(idle_helpers_wake_once_a_second_and_take_no_signals),
          T(crew_of_the_parent_is_only_memory_in_a_child), T_TIMEOUT(crew_loses_no_wake, 60),
          T(notifier_makes_its_descriptor_readable),
          T(notifier_tells_of_events_and_of_blocked_claims),
          T(notifier_checks_nothing_while_paused),
          T(notifier_of_the_parent_is_only_memory_in_a_child),
          T_TIMEOUT(notifier_loses_no_record_and_never_stays_readable_in_vain, 60));
