/* SPDX-License-Identifier: Apache-2.0 */
/* The flusher's threads: who wakes them, how little they do at rest, how many there are, and that partitions come and go
 * under them. */
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "test/support/flush_rig.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BASE  UINT64_C(8192)
#define BELLS (ATTENTION_NAP | ATTENTION_DOORBELL)
/* Longer means that a wake-up was lost, and the bound on sleeps (1 s) has helped. */
#define LOST_NS ((uint64_t)test_scaled_ms(700) * NS_PER_MS)
/* What it takes on a machine that has nothing else to do; of several times the best counts. */
#define SOON_NS ((uint64_t)test_scaled_ms(20) * NS_PER_MS)
#define HOUR_NS (3600 * NS_PER_S)

static struct rig rig;

/* ---- waking ---------------------------------------------------------------------------------- */

typedef void wake_fn(struct rig_log *log);

static void publish(struct rig_log *log)
{
    rig_publish(log, 1, 100);
}

/* As who waits for a message that somebody else has published: that one died before it rang. */
static void publish_and_ask(struct rig_log *log)
{
    REQUIRE(rig_publish_quietly(log, 100) == RING_OK);
    (void)wait_wake(log->ring.wait, ATTENTION_NAP, log->ring.fence_mode);
}

/* Returns the best of some times until a flusher in its deep sleep has done it. */
static uint64_t measure_waking(struct rig_log *log, wake_fn *wake)
{
    uint64_t best_ns = UINT64_MAX;

    for (int i = 0; i < 4; i++) {
        uint64_t begun_ns;

        REQUIRE(rig_wait_attention(log, BELLS, BELLS));
        test_sleep_ms(5);
        begun_ns = test_now_ns();
        wake(log);
        CHECK(rig_wait_all(log));
        begun_ns = test_now_ns() - begun_ns;
        CHECK(begun_ns < LOST_NS);
        best_ns = min_u64(best_ns, begun_ns);
    }
    return best_ns;
}

static void check_waking(enum wait_mode mode, enum durable_mode durability, wake_fn *wake)
{
    struct rig_options options = {.durability = durability, .base = BASE, .wait_mode = mode};
    struct rig_log *log;

    rig_init(&rig);
    log = rig_add(&rig, &options);
    CHECK(measure_waking(log, wake) < SOON_NS);
    (void)rig_check(log, NULL);
    rig_deinit(&rig);
}

TEST(a_publish_wakes_it_from_its_deep_sleep)
{
    if (!wait_register_process())
        SKIP("no membarrier");
    check_waking(WAIT_MODE_MEMBARRIER, DURABLE_OS, publish);
}

TEST(a_publish_wakes_it_where_there_is_no_membarrier)
{
    check_waking(WAIT_MODE_FENCE, DURABLE_ALWAYS, publish);
}

TEST(who_waits_for_durable_wakes_it_too)
{
    check_waking(WAIT_MODE_FENCE, DURABLE_OS, publish_and_ask);
}

TEST(who_waits_for_durable_or_for_room_is_woken)
{
    static const enum durable_mode MODES[] = {DURABLE_OS, DURABLE_INTERVAL, DURABLE_ALWAYS};
    struct rig_options options = {.base = BASE, .sync_interval_ns = NS_PER_MS};

    rig_init(&rig);
    for (size_t i = 0; i < COUNT_OF(MODES); i++) {
        struct wait_word durable, room;
        struct rig_log *log;

        options.durability = MODES[i];
        options.wait_mode = i % 2 ? WAIT_MODE_FENCE : 0;
        log = rig_add(&rig, &options);
        durable = wait_prepare(log->ring.wait, ATTENTION_DURABLE);
        room = wait_prepare(log->ring.wait, ATTENTION_ROOM);
        wait_barrier(log->ring.fence_mode);
        rig_publish(log, 1, 100);
        CHECK(rig_wait_all(log));
        REQUIRE(rig_wait_attention(log, 0, ATTENTION_DURABLE | ATTENTION_ROOM));
        /* The bits are cleared first. */
        for (int ms = 0; ms < 1000 && atomic_load(durable.address) == durable.value; ms++)
            test_sleep_ms(1);
        CHECK(atomic_load(durable.address) != durable.value);
        CHECK(atomic_load(room.address) != room.value);
    }
    rig_deinit(&rig);
}

/* One word a sleep: of the others it learns by the clock, every 20 ms. */
TEST(without_futex_waitv_nothing_is_lost)
{
    struct rig_options options = {.durability = DURABLE_OS, .base = BASE};
    struct rig_log *logs[5];

    wait_force_single_word(true);
    rig_init(&rig);
    for (size_t i = 0; i < COUNT_OF(logs); i++)
        logs[i] = rig_add(&rig, &options);
    for (size_t i = 0; i < COUNT_OF(logs); i++) {
        REQUIRE(rig_wait_attention(logs[i], BELLS, BELLS));
        uint64_t begun_ns = test_now_ns();

        rig_publish(logs[i], 1, 100);
        CHECK(rig_wait_all(logs[i]));
        CHECK(test_now_ns() - begun_ns < LOST_NS);
    }
    rig_deinit(&rig);
    wait_force_single_word(false);
}

/* Whoever waits leaves bits and wake-ups behind that mean nothing. */
TEST(false_alarms_cost_nothing_but_time)
{
    struct rig_options options = {.durability = DURABLE_ALWAYS, .base = BASE};
    struct wait_segment *wait;
    struct rig_log *log;

    rig_init(&rig);
    log = rig_add(&rig, &options);
    wait = log->ring.wait;
    for (uint32_t i = 0; i < 200; i++) {
        atomic_store(&wait->bell_seq, i * 0x9e3779b9u);
        atomic_store(&wait->attention, i * 0x85ebca6bu);
        wait_wake_everyone(wait);
        if (i % 50 == 0)
            rig_publish(log, 3, 100);
    }
    CHECK(rig_wait_all(log));
    (void)rig_check(log, NULL);
    rig_deinit(&rig);
}

/* ---- at rest --------------------------------------------------------------------------------- */

/* Threads of that name; *ret_switches: how often they have gone to sleep, together. */
static uint32_t count_threads(const char *name, uint64_t *ret_switches)
{
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    uint32_t count = 0;

    REQUIRE(dir != NULL);
    *ret_switches = 0;
    while ((entry = readdir(dir))) {
        char path[300], line[128];
        bool ours = false;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
        file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        while (file && fgets(line, sizeof(line), file)) {
            unsigned long long switches;

            line[strcspn(line, "\n")] = '\0';
            if (strncmp(line, "Name:\t", 6) == 0)
                ours = strcmp(line + 6, name) == 0;
            else if (ours && sscanf(line, "voluntary_ctxt_switches: %llu", &switches) == 1)
                *ret_switches += switches;
        }
        count += ours;
        if (file)
            (void)fclose(file);
    }
    (void)closedir(dir);
    return count;
}

TEST(at_rest_it_wakes_up_once_a_second)
{
    struct rig_options options = {
        .durability = DURABLE_INTERVAL, .base = BASE, .sync_interval_ns = NS_PER_MS};
    uint64_t before[3], after[3];
    struct rig_log *log;

    rig_init(&rig);
    log = rig_add(&rig, &options);
    rig_publish(log, 10, 100);
    CHECK(rig_wait_all(log));
    REQUIRE(rig_wait_attention(log, BELLS, BELLS));
    CHECK_EQ(count_threads("shmqd-flush", &before[0]), 1);
    CHECK_EQ(count_threads("shmqd-sync", &before[1]), 1);
    CHECK_EQ(count_threads("shmqd-files", &before[2]), 1);
    test_sleep_ms(2200);
    (void)count_threads("shmqd-flush", &after[0]);
    (void)count_threads("shmqd-sync", &after[1]);
    (void)count_threads("shmqd-files", &after[2]);
    CHECK(after[0] - before[0] <= 4);
    CHECK_EQ(after[1] - before[1], 0);
    CHECK_EQ(after[2] - before[2], 0);
    rig_deinit(&rig);
}

/* ---- many ------------------------------------------------------------------------------------ */

TEST(more_than_one_sleep_can_watch_make_a_second_shard)
{
    enum { MANY = 130 };
    static const enum durable_mode MODES[] = {DURABLE_OS, DURABLE_INTERVAL, DURABLE_ALWAYS};
    struct rig_options options = {
        .base = BASE, .sync_interval_ns = 2 * NS_PER_MS, .file_first = 16384, .file_most = 16384};
    uint64_t ignored;

    rig_init(&rig);
    for (uint32_t i = 0; i < MANY; i++) {
        options.durability = MODES[i % 3];
        (void)rig_add(&rig, &options);
    }
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < MANY; i++)
            rig_publish(rig.logs[i], 20, 300);
    }
    for (uint32_t i = 0; i < MANY; i++)
        CHECK(rig_wait_all(rig.logs[i]));
    CHECK_EQ(count_threads("shmqd-flush", &ignored), 2);
    /* The last one leaves, the first one, and their places are taken again. */
    rig_remove(rig.logs[0]);
    rig_remove(rig.logs[MANY - 1]);
    CHECK(rig_wait_gone(&rig));
    REQUIRE_OK(rig_flush(rig.logs[MANY - 1]));
    REQUIRE_OK(rig_flush(rig.logs[0]));
    CHECK_EQ(count_threads("shmqd-flush", &ignored), 2);
    for (uint32_t i = 0; i < MANY; i += 43)
        rig_publish(rig.logs[i], 20, 300);
    rig_stop(&rig, true);
    for (uint32_t i = 0; i < MANY; i++) {
        CHECK_EQ(rig_durable(rig.logs[i]), rig_tail(rig.logs[i]));
        (void)rig_check(rig.logs[i], NULL);
    }
    rig_deinit(&rig);
}

/* ---- coming and going ------------------------------------------------------------------------ */

static void *publish_many(void *context)
{
    rig_publish(context, 4000, 200);
    return NULL;
}

TEST(partitions_come_and_go_while_others_are_flushed)
{
    static const enum durable_mode MODES[] = {DURABLE_OS, DURABLE_INTERVAL, DURABLE_ALWAYS};
    struct rig_options options = {
        .base = BASE, .sync_interval_ns = NS_PER_MS, .file_first = 65536, .file_most = 65536};
    struct rig_log *logs[COUNT_OF(MODES)];
    pthread_t threads[COUNT_OF(MODES)];

    rig_init(&rig);
    for (size_t i = 0; i < COUNT_OF(MODES); i++) {
        options.durability = MODES[i];
        logs[i] = rig_add(&rig, &options);
        REQUIRE(pthread_create(&threads[i], NULL, publish_many, logs[i]) == 0);
    }
    for (size_t round = 0; round < 30; round++) {
        struct rig_log *log = logs[round % COUNT_OF(MODES)];

        rig_remove(log);
        REQUIRE(rig_wait_gone(&rig));
        REQUIRE_OK(rig_flush(log));
        test_sleep_ms(3);
    }
    for (size_t i = 0; i < COUNT_OF(MODES); i++) {
        (void)pthread_join(threads[i], NULL);
        CHECK(rig_wait_all(logs[i]));
        CHECK(rig_check(logs[i], NULL) > 4);
    }
    rig_deinit(&rig);
}

/* One that leaves while the disk is busy with it does not hold the others up. */
TEST(a_log_that_leaves_during_a_sync_holds_nobody_up)
{
    struct rig_options options = {
        .durability = DURABLE_INTERVAL, .base = BASE, .sync_interval_ns = NS_PER_MS};
    struct rig_log *leaver, *other;

    rig_init(&rig);
    leaver = rig_add(&rig, &options);
    options.durability = DURABLE_OS;
    other = rig_add(&rig, &options);
    rig_hold(&rig, IO_SYNC, true);
    rig_publish(leaver, 1, 100);
    REQUIRE(rig_wait_held(&rig, 1));
    rig_remove(leaver);
    rig_publish(other, 10, 100);
    CHECK(rig_wait_all(other));
    CHECK_EQ(atomic_load(&rig.flusher->leaving), 1);
    rig_release(&rig);
    CHECK(rig_wait_gone(&rig));
    CHECK_EQ(rig_durable(leaver), BASE); /* nothing more is told of it */
    rig_deinit(&rig);
}

/* A directory is unlinked when nobody makes files in it any more. */
TEST(a_topic_is_unlinked_after_its_logs_have_left)
{
    struct rig_options options = {.durability = DURABLE_ALWAYS, .base = BASE};
    uint64_t deadline_ns;
    struct rig_log *log;
    char deleted[300];

    rig_init(&rig);
    log = rig_add(&rig, &options);
    rig_hold(&rig, IO_SYNC, false); /* of the header, with begin.tmp there and no name yet */
    rig_publish(log, 1, 100);
    REQUIRE(rig_wait_held(&rig, 1));
    rig_remove(log);
    (void)snprintf(deleted, sizeof(deleted), "%s.deleted", log->topic_dir);
    REQUIRE(rename(log->topic_dir, deleted) == 0);
    flusher_remove_directory(rig.flusher, deleted);
    test_sleep_ms(30);
    CHECK(access(deleted, F_OK) == 0);
    rig_release(&rig);
    deadline_ns = deadline_after_ms(test_scaled_ms(RIG_WAIT_MS));
    while (access(deleted, F_OK) == 0 && test_now_ns() < deadline_ns)
        test_sleep_ms(1);
    CHECK(access(deleted, F_OK) < 0);
    rig_deinit(&rig);
}

TEST(a_stop_writes_and_syncs_what_is_there)
{
    static const enum durable_mode MODES[] = {DURABLE_OS, DURABLE_INTERVAL, DURABLE_ALWAYS};
    struct rig_options options = {.base = BASE, .sync_interval_ns = HOUR_NS};

    rig_init(&rig);
    for (size_t i = 0; i < COUNT_OF(MODES); i++) {
        options.durability = MODES[i];
        (void)rig_add(&rig, &options);
    }
    for (int life = 0; life < 5; life++) {
        struct rig_file files[RIG_FILES_MAX];

        for (size_t i = 0; i < COUNT_OF(MODES); i++)
            rig_publish(rig.logs[i], 50, 300);
        rig_stop(&rig, true);
        for (size_t i = 0; i < COUNT_OF(MODES); i++) {
            CHECK_EQ(rig_durable(rig.logs[i]), rig_tail(rig.logs[i]));
            CHECK_EQ(rig_check(rig.logs[i], files), (unsigned)life + 1); /* each life begins one */
            REQUIRE_OK(rig_flush(rig.logs[i]));
        }
    }
    rig_deinit(&rig);
}

/* As when the supervisor is killed: what was not safe stands in the ring, and is written again. */
TEST(the_next_one_goes_on_where_it_was_durable)
{
    static const enum durable_mode MODES[] = {DURABLE_OS, DURABLE_INTERVAL, DURABLE_ALWAYS};
    struct rig_options options = {.base = BASE, .sync_interval_ns = 3 * NS_PER_MS};

    rig_init(&rig);
    for (size_t i = 0; i < COUNT_OF(MODES); i++) {
        options.durability = MODES[i];
        (void)rig_add(&rig, &options);
    }
    for (int life = 0; life < 8; life++) {
        for (size_t i = 0; i < COUNT_OF(MODES); i++)
            rig_publish(rig.logs[i], 150, 300);
        rig_stop(&rig, false);
        for (size_t i = 0; i < COUNT_OF(MODES); i++) {
            (void)rig_check(rig.logs[i], NULL);
            REQUIRE_OK(rig_flush(rig.logs[i]));
        }
    }
    for (size_t i = 0; i < COUNT_OF(MODES); i++) {
        CHECK(rig_wait_all(rig.logs[i]));
        (void)rig_check(rig.logs[i], NULL);
    }
    rig_deinit(&rig);
}

/* ---- no threads ------------------------------------------------------------------------------ */

TEST(where_no_thread_can_be_made_it_says_so_or_does_without)
{
    struct rig_options options = {
        .durability = DURABLE_INTERVAL, .base = BASE, .sync_interval_ns = NS_PER_MS};
    struct rig_log *log;

    rig_init(&rig);
    log = rig_make(&rig, &options);
    REQUIRE_OK(fault_arm("flush.thread:1+", "error", NULL));
    CHECK(rig_flush(log) < 0); /* no preparer */
    REQUIRE_OK(fault_arm("flush.thread:2+", "error", NULL));
    CHECK(rig_flush(log) < 0); /* no writer */
    REQUIRE_OK(fault_arm("flush.thread:2+", "error", NULL));
    REQUIRE_OK(rig_flush(log)); /* no syncer: the writer does it */
    rig_publish(log, 100, 100);
    CHECK(rig_wait_all(log));
    (void)rig_check(log, NULL);
    rig_deinit(&rig);
    fault_disarm();
}

TEST_MAIN("flush_threads", T(a_publish_wakes_it_from_its_deep_sleep),
          T(a_publish_wakes_it_where_there_is_no_membarrier), T(who_waits_for_durable_wakes_it_too),
          T(who_waits_for_durable_or_for_room_is_woken), T(without_futex_waitv_nothing_is_lost),
          T(false_alarms_cost_nothing_but_time), T(at_rest_it_wakes_up_once_a_second),
          T(more_than_one_sleep_can_watch_make_a_second_shard),
          T(partitions_come_and_go_while_others_are_flushed),
          T(a_log_that_leaves_during_a_sync_holds_nobody_up),
          T(a_topic_is_unlinked_after_its_logs_have_left), T(a_stop_writes_and_syncs_what_is_there),
          T(the_next_one_goes_on_where_it_was_durable),
          T(where_no_thread_can_be_made_it_says_so_or_does_without))
