/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that fail: what was promised stays, what was not is written again, in order. A data file whose sync fails is spoiled above what was durable (test/support/flush_rig.c). */
#include "daemon/log.h"
#include "libshmq/clock.h"
#include "libshmq/record.h"
#include "test/support/flush_rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BASE       UINT64_C(4096)
#define SMALL_FILE (UINT64_C(4096) + 8192)

static struct rig rig;
static struct rig_file files[RIG_FILES_MAX];

static struct rig_options options_of(enum durable_mode durability)
{
    return (struct rig_options){.durability = durability,
                                .base = BASE,
                                .sync_interval_ns = 2 * NS_PER_MS,
                                .file_first = SMALL_FILE,
                                .file_most = SMALL_FILE};
}

static struct rig_log *add(enum durable_mode durability)
{
    struct rig_options options = options_of(durability);

    return rig_add(&rig, &options);
}

/* ---- each call of a run ---------------------------------------------------------------------- */

/* So many calls of a kind are made by a run, or a few more. */
static const struct {
    enum io_kind kind;
    uint32_t calls;
    int error;
} RUN[] = {
    {IO_OPEN, 8, EMFILE},     {IO_OPEN, 3, EIO},     {IO_WRITE, 24, EIO},  {IO_WRITE, 8, ENOSPC},
    {IO_WRITE, 6, IO_SHORT},  {IO_SYNC, 14, EIO},    {IO_SYNC, 3, ENOSPC}, {IO_SYNC_DIR, 7, EIO},
    {IO_ALLOCATE, 6, ENOSPC}, {IO_RENAME, 6, EROFS}, {IO_UNLINK, 6, EIO},
};

/* One log for each call that can fail; so all the waiting until the next attempt is at the same time. */
static void fail_each_call(enum durable_mode durability)
{
    uint32_t struck = 0;

    rig_init(&rig);
    for (size_t i = 0; i < COUNT_OF(RUN); i++) {
        for (uint32_t n = 1; n <= RUN[i].calls; n++)
            rig_fail(add(durability), RUN[i].kind, n, RUN[i].error, false);
    }
    for (int wave = 0; wave < 6; wave++) {
        for (uint32_t i = 0; i < rig.count; i++)
            rig_publish(rig.logs[i], 7, 900);
        test_sleep_ms(3);
    }
    for (uint32_t i = 0; i < rig.count; i++) {
        struct rig_log *log = rig.logs[i];

        if (!rig_wait_all(log) || !rig_wait_error(log, 0))
            FAIL("log %u: stands at %llu of %llu, error %d", i,
                 (unsigned long long)rig_durable(log), (unsigned long long)rig_tail(log),
                 rig_status(log).error);
        CHECK(rig_check(log, files) >= 5);
        CHECK_EQ(atomic_load(&rig_state(log)->journal_error), 0);
        struck += rig_struck(log);
    }
    test_note("%u of %u failures struck", struck, rig.count);
    CHECK(struck > rig.count * 3 / 5);
    rig_deinit(&rig);
}

TEST(always_bears_the_failure_of_each_call)
{
    fail_each_call(DURABLE_ALWAYS);
}

TEST(interval_bears_the_failure_of_each_call)
{
    fail_each_call(DURABLE_INTERVAL);
}

TEST(os_bears_the_failure_of_each_call)
{
    fail_each_call(DURABLE_OS);
}

/* ---- for as long as it lasts ----------------------------------------------------------------- */

static const struct {
    enum io_kind kind;
    int error;
    int told;
} LASTING[] = {
    {IO_WRITE, ENOSPC, ENOSPC}, {IO_WRITE, EIO, EIO},          {IO_SYNC, EIO, EIO},
    {IO_SYNC, ENOSPC, ENOSPC},  {IO_ALLOCATE, ENOSPC, ENOSPC}, {IO_ALLOCATE, EDQUOT, ENOSPC},
    {IO_OPEN, EMFILE, EMFILE},  {IO_RENAME, EROFS, EROFS},     {IO_SYNC_DIR, EIO, EIO},
};

static _Atomic uint32_t recoveries;

static void count_recoveries(void *context, enum log_level level, const char *line)
{
    (void)context, (void)level;
    recoveries += strstr(line, "gets on again") != NULL;
}

/* As long as it fails producers wait, it is told, and it is tried now and then. */
static void check_failing(struct rig_log *log, enum io_kind kind, int told)
{
    uint64_t durable;

    /* Policy os promises the page cache: a sync that fails behind it is in the log, and holds nobody up. */
    if (log->options.durability == DURABLE_OS && (kind == IO_SYNC || kind == IO_SYNC_DIR)) {
        CHECK(rig_wait_all(log));
        CHECK(rig_wait_error(log, 0));
        return;
    }
    CHECK(rig_wait_error(log, told));
    CHECK_EQ(atomic_load(&rig_state(log)->journal_error), (unsigned)told);
    while (rig_publish_as(log, 900, RIG_GOOD) == RING_OK)
        ;
    durable = rig_durable(log);
    CHECK(durable < rig_tail(log));
    CHECK(rig_tail(log) - durable > log->options.capacity * 3 / 4);
    CHECK(rig_calls(log, kind) < 60);
}

static void fail_for_a_while(enum durable_mode durability)
{
    rig_init(&rig);
    log_set_sink(count_recoveries, NULL);
    for (size_t i = 0; i < COUNT_OF(LASTING); i++) {
        struct rig_log *log = add(durability);

        rig_publish(log, 5, 900);
        CHECK(rig_wait_all(log));
        rig_fail(log, LASTING[i].kind, 1, LASTING[i].error, true);
        rig_publish(log, 40, 900);
    }
    test_sleep_ms(300);
    for (size_t i = 0; i < COUNT_OF(LASTING); i++) {
        test_context("case %zu ", i);
        check_failing(rig.logs[i], LASTING[i].kind, LASTING[i].told);
    }
    /* Nor is it taken back, but where a file that was being made ahead is ready by the second attempt. */
    CHECK(recoveries <= 3);
    for (size_t i = 0; i < COUNT_OF(LASTING); i++)
        rig_fail(rig.logs[i], LASTING[i].kind, 0, 0, false);
    for (size_t i = 0; i < COUNT_OF(LASTING); i++) {
        test_context("case %zu ", i);
        CHECK(rig_wait_all(rig.logs[i]));
        rig_publish(rig.logs[i], 20, 900);
        CHECK(rig_wait_all(rig.logs[i]));
        CHECK(rig_wait_error(rig.logs[i], 0));
        CHECK_EQ(atomic_load(&rig_state(rig.logs[i])->journal_error), 0);
        (void)rig_check(rig.logs[i], files);
    }
    CHECK(recoveries >= COUNT_OF(LASTING) - (durability == DURABLE_OS ? 3 : 0));
    rig_deinit(&rig);
}

TEST(always_waits_until_the_disk_is_well_again)
{
    fail_for_a_while(DURABLE_ALWAYS);
}

TEST(interval_waits_until_the_disk_is_well_again)
{
    fail_for_a_while(DURABLE_INTERVAL);
}

TEST(os_waits_until_the_disk_is_well_again)
{
    fail_for_a_while(DURABLE_OS);
}

/* A full disk costs no file: there may be no room for one. */
TEST(the_same_write_is_tried_again_when_the_disk_was_full)
{
    struct rig_options options = {.durability = DURABLE_ALWAYS, .base = BASE};
    struct rig_log *log;

    rig_init(&rig);
    log = rig_add(&rig, &options);
    rig_publish(log, 5, 300);
    CHECK(rig_wait_all(log));
    rig_fail(log, IO_WRITE, 2, ENOSPC, false);
    rig_publish(log, 5, 300);
    CHECK(rig_wait_all(log));
    CHECK(rig_struck(log));
    CHECK_EQ(rig_check(log, files), 1);
    rig_deinit(&rig);
}

TEST(a_stop_does_not_wait_for_a_disk_that_fails)
{
    static const struct {
        enum io_kind kind;
        int error;
    } CASES[] = {{IO_SYNC, EIO}, {IO_WRITE, EIO}, {IO_WRITE, ENOSPC}, {IO_OPEN, EMFILE}};
    uint64_t begun_ns;

    rig_init(&rig);
    for (size_t i = 0; i < 3 * COUNT_OF(CASES); i++) {
        struct rig_log *log = add(DURABLE_OS + (enum durable_mode)(i % 3));

        rig_fail(log, CASES[i / 3].kind, 1, CASES[i / 3].error, true);
        rig_publish(log, 40, 900);
    }
    test_sleep_ms(50);
    begun_ns = test_now_ns();
    rig_stop(&rig, true);
    CHECK(test_now_ns() - begun_ns < (uint64_t)test_scaled_ms(3000) * NS_PER_MS);
    for (uint32_t i = 0; i < rig.count; i++) {
        CHECK(rig_durable(rig.logs[i]) < rig_tail(rig.logs[i]));
        rig_fail(rig.logs[i], CASES[i / 3].kind, 0, 0, false);
        REQUIRE_OK(rig_flush(rig.logs[i])); /* the next supervisor has a better disk */
    }
    for (uint32_t i = 0; i < rig.count; i++) {
        CHECK(rig_wait_all(rig.logs[i]));
        CHECK_EQ(atomic_load(&rig_state(rig.logs[i])->journal_error), 0);
        (void)rig_check(rig.logs[i], files);
    }
    rig_deinit(&rig);
}

/* ---- two things at once ---------------------------------------------------------------------- */

TEST(a_write_that_fails_during_a_sync_goes_back_to_where_the_sync_came)
{
    struct rig_log *log;
    uint64_t synced;

    rig_init(&rig);
    log = add(DURABLE_INTERVAL);
    rig_hold(&rig, IO_SYNC, true);
    rig_publish(log, 3, 300);
    REQUIRE(rig_wait_held(&rig, 1));
    synced = rig_tail(log);
    rig_fail(log, IO_WRITE, 2, EIO, false); /* writes come in two halves: the second one */
    rig_publish(log, 2, 300);
    while (!rig_struck(log))
        test_sleep_ms(1);
    CHECK_EQ(rig_durable(log), BASE);
    rig_release(&rig);
    CHECK(rig_wait_all(log));
    CHECK_EQ(rig_check(log, files), 2);
    CHECK_EQ(files[1].header.base, synced);
    CHECK_EQ(files[1].header.messages, 3);
    rig_deinit(&rig);
}

TEST(a_sync_that_fails_takes_with_it_what_was_written_meanwhile)
{
    struct rig_options options = options_of(DURABLE_INTERVAL);
    struct rig_log *log;
    uint64_t safe;

    options.file_first = 1 << 20; /* so that nothing else is synced */
    options.file_most = 1 << 20;
    rig_init(&rig);
    log = rig_add(&rig, &options);
    rig_publish(log, 2, 300);
    CHECK(rig_wait_all(log));
    safe = rig_tail(log);
    rig_hold(&rig, IO_SYNC, true);
    rig_publish(log, 3, 300);
    REQUIRE(rig_wait_held(&rig, 1));
    rig_fail(log, IO_SYNC, 1, EIO, false);
    rig_publish(log, 6, 300);
    test_sleep_ms(5);
    rig_release(&rig);
    CHECK(rig_wait_all(log));
    CHECK_EQ(rig_check(log, files), 2);
    CHECK_EQ(files[1].header.base, safe);
    rig_deinit(&rig);
}

static void *publish_much(void *context)
{
    rig_publish(context, 300, 992);
    return NULL;
}

/* Policy os: files wait for the disk in the background, but not any number of them. */
TEST(a_slow_disk_behind_os_slows_the_writer_in_the_end)
{
    struct rig_log *log;
    pthread_t thread;

    rig_init(&rig);
    log = add(DURABLE_OS);
    rig_hold(&rig, IO_SYNC, true);
    REQUIRE(pthread_create(&thread, NULL, publish_much, log) == 0);
    REQUIRE(rig_wait_held(&rig, 2)); /* the preparer and, nine files later, the writer */
    CHECK(rig_durable(log) - BASE >= 8 * UINT64_C(8192));
    rig_release(&rig);
    (void)pthread_join(thread, NULL);
    CHECK(rig_wait_all(log));
    CHECK(rig_check(log, files) > 30);
    rig_deinit(&rig);
}

/* ---- all at once ----------------------------------------------------------------------------- */

static _Atomic bool over;

static void *publish_until_over(void *context)
{
    struct rig_log *log = context;
    struct test_random random;

    test_random_init(&random, test_seed() + log->index);
    while (!over) {
        rig_publish(log, 1 + (uint32_t)test_random_below(&random, 30),
                    16 + (uint32_t)test_random_below(&random, 1500));
        if (test_random_below(&random, 4) == 0)
            test_sleep_ms((unsigned)test_random_below(&random, 8));
    }
    return NULL;
}

static void disturb(struct rig_log *log, struct test_random *random)
{
    static const int ERRORS[] = {EIO, ENOSPC, EMFILE};
    struct flush_options options = {.sync_interval_ns =
                                        (1 + test_random_below(random, 20)) * NS_PER_MS};

    switch (test_random_below(random, 12)) {
    case 0:
        rig_remove(log);
        REQUIRE(rig_wait_gone(&rig));
        REQUIRE_OK(rig_flush(log));
        break;
    case 1:
        rig_stop(&rig, test_random_below(random, 2) == 0);
        for (uint32_t i = 0; i < rig.count; i++)
            REQUIRE_OK(rig_flush(rig.logs[i]));
        break;
    case 2:
        flush_set_options(log->log, &options);
        break;
    case 3:
        rig_hold(&rig, IO_SYNC, false);
        test_sleep_ms((unsigned)test_random_below(random, 10));
        rig_release(&rig);
        break;
    case 4:
        test_sleep_ms((unsigned)test_random_below(random, 30));
        break;
    default:
        rig_fail(log, (enum io_kind)test_random_below(random, IO_MAKE_DIR),
                 1 + (uint32_t)test_random_below(random, 6), ERRORS[test_random_below(random, 3)],
                 test_random_below(random, 8) == 0);
    }
}

TEST(nothing_is_lost_in_any_disorder)
{
    pthread_t threads[9];
    struct test_random random;
    uint64_t until_ns;

    test_random_init(&random, test_seed());
    rig_init(&rig);
    for (uint32_t i = 0; i < COUNT_OF(threads); i++) {
        struct rig_options options = options_of(DURABLE_OS + (enum durable_mode)(i % 3));

        options.file_first = 65536;
        options.file_most = 1 << 20;
        (void)rig_add(&rig, &options);
    }
    for (uint32_t i = 0; i < COUNT_OF(threads); i++)
        REQUIRE(pthread_create(&threads[i], NULL, publish_until_over, rig.logs[i]) == 0);
    until_ns = deadline_after_ms(1500);
    while (!deadline_passed(until_ns)) {
        disturb(rig.logs[test_random_below(&random, rig.count)], &random);
        test_sleep_ms(1);
    }
    over = true;
    for (uint32_t i = 0; i < COUNT_OF(threads); i++) {
        rig_fail(rig.logs[i], IO_OPEN, 0, 0, false);
        (void)pthread_join(threads[i], NULL);
        CHECK(rig_wait_all(rig.logs[i]));
        (void)rig_check(rig.logs[i], files);
    }
    rig_deinit(&rig);
}

TEST_MAIN("flush_faults", T(always_bears_the_failure_of_each_call),
          T(interval_bears_the_failure_of_each_call), T(os_bears_the_failure_of_each_call),
          T(always_waits_until_the_disk_is_well_again),
          T(interval_waits_until_the_disk_is_well_again), T(os_waits_until_the_disk_is_well_again),
          T(the_same_write_is_tried_again_when_the_disk_was_full),
          T(a_stop_does_not_wait_for_a_disk_that_fails),
          T(a_write_that_fails_during_a_sync_goes_back_to_where_the_sync_came),
          T(a_sync_that_fails_takes_with_it_what_was_written_meanwhile),
          T(a_slow_disk_behind_os_slows_the_writer_in_the_end), T(nothing_is_lost_in_any_disorder))
