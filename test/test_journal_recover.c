/* SPDX-License-Identifier: Apache-2.0 */
/* Journals and hosts that lose power, at every call and with every luck; and disks whose nth call fails, for every n.
 * Confirmed and lost: none; read back and never published: none; order kept. */
#include "libshmq/fault.h"
#include "libshmq/record.h"
#include "test/support/disk.h"
#include "test/support/journal_bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct bench bench;
static struct error_buffer why;

static const char *dir_of(const char *name)
{
    static char dir[300];

    (void)snprintf(dir, sizeof(dir), "%s/%s", test_tmpdir(), name);
    return dir;
}

/* ---- A life in which everything happens --------------------------------------------------------------- */

/* Begins, writes, syncs, prepares, rolls over, retains, fails, restarts: in this order, whatever any of it
 * says. Calls go on after errors as the flusher's do. */
static void live(void)
{
    for (int round = 0; round < 2; round++) {
        bench_publish(&bench, 10);
        (void)bench_write(&bench, 5);
        (void)bench_write(&bench, 3);
        (void)bench_sync(&bench);
        (void)bench_flush(&bench);
        (void)journal_prepare(&bench.journal, round == 0, &why);
        bench_publish(&bench, 60); /* over the end of the file */
        (void)bench_flush(&bench);
        bench_publish(&bench, 15);
        (void)bench_write(&bench, 10);
        bench.needs_begin = true; /* as after a failure: what was written is written again */
        bench.position = bench.durable;
        (void)bench_flush(&bench);
    }
    (void)bench_retain(&bench, 3 * BENCH_FILE);
    (void)bench_retain(&bench, BENCH_FILE);
    bench_publish(&bench, 20);
    (void)bench_write(&bench, 20);
}

/* ---- Power cuts --------------------------------------------------------------------------------------- */

static const struct disk_cut CUTS[] = {
    {.pages = DISK_NONE, .names = DISK_NONE},
    {.pages = DISK_ALL, .names = DISK_ALL},
    {.pages = DISK_NONE, .names = DISK_ALL},
    {.pages = DISK_ALL, .names = DISK_NONE},
    {.pages = DISK_ANY, .names = DISK_PREFIX},
    {.pages = DISK_ANY, .names = DISK_ANY},
    {.pages = DISK_ANY, .names = DISK_ANY, .unit = 512},
    {.pages = DISK_ANY, .names = DISK_ANY, .unit = RECORD_UNIT},
};

/* The log goes on after this cut, in a life of its own. */
static void check_cut(struct disk *disk, const struct disk_cut *cut)
{
    const char *dir = dir_of("cut");
    struct bench other;

    disk_after_cut(disk, cut, dir);
    disk_pause(disk);
    bench_clone(&bench, &other);
    if (CHECK_OK(bench_recover(&other, dir))) {
        bench_publish(&other, 4);
        disk_quiet();
        CHECK_OK(bench_flush(&other));
        bench_check(&other, dir);
    }
    bench_free(&other);
    disk_resume(disk);
}

static unsigned cuts;

static void cut_here(void *context, struct disk *disk, const struct io_event *event)
{
    (void)context;
    for (size_t i = 0; i < COUNT_OF(CUTS); i++) {
        test_context("before call %u (%s), cut %zu ", cuts, io_kind_name(event->kind), i);
        check_cut(disk, &CUTS[i]);
    }
    test_context(NULL);
    cuts++;
}

/* Roll-over, preparation, retention and new beginnings included. */
TEST(a_power_cut_before_any_call_loses_nothing_confirmed)
{
    struct disk *disk;

    bench_init(&bench, "log");
    disk = disk_new(bench.dir, test_seed());
    disk_before(disk, cut_here, NULL);
    disk_write_back(disk, 32);
    bench_open(&bench);
    live();
    for (enum io_kind kind = 0; kind < IO_READ; kind++)
        CHECK(kind == IO_MAKE_DIR || disk_calls(disk, kind) > 2);
    test_note("%u cuts", cuts * (unsigned)COUNT_OF(CUTS));
    bench_free(&bench);
    disk_free(disk);
}

/* What stands in the page cache outlives the process, and the next one goes on at `durable`. */
static void kill_here(void *context, struct disk *disk, const struct io_event *event)
{
    const struct disk_cut cut = {.pages = DISK_ALL, .names = DISK_ALL};
    const char *dir = dir_of("cut");
    struct bench other;

    (void)context;
    test_context("before call %u (%s) ", cuts++, io_kind_name(event->kind));
    disk_after_cut(disk, &cut, dir);
    disk_pause(disk);
    bench_clone(&bench, &other);
    (void)snprintf(other.dir, sizeof(other.dir), "%s", dir);
    bench_check(&other, dir);
    disk_quiet();
    bench_open(&other);
    bench_publish(&other, 4);
    CHECK_OK(bench_flush(&other));
    bench_check(&other, dir);
    bench_free(&other);
    disk_resume(disk);
    test_context(NULL);
}

TEST(policy_os_outlives_the_process_at_any_call)
{
    struct disk *disk;

    bench_init(&bench, "log");
    bench.lazy = true;
    disk = disk_new(bench.dir, test_seed());
    disk_before(disk, kill_here, NULL);
    bench_open(&bench);
    live();
    CHECK(cuts > 60);
    bench_free(&bench);
    disk_free(disk);
}

/* Then nothing is promised but order, and that no offset is used twice: the oracle's other half. */
TEST(policy_os_and_a_host_that_dies_invent_nothing)
{
    struct disk *disk;

    bench_init(&bench, "log");
    bench.lazy = true;
    disk = disk_new(bench.dir, test_seed());
    disk_before(disk, cut_here, NULL);
    disk_write_back(disk, 32);
    bench_open(&bench);
    live();
    CHECK(cuts > 60);
    bench_free(&bench);
    disk_free(disk);
}

/* Once it has struck, nothing more reaches the disk, and the log that counts is the one of that instant. */
struct strike {
    uint64_t at;
    uint64_t calls;
    struct bench *survivor;
    const char *dir;
    bool struck;
};

static void strike_here(void *context, struct disk *disk, const struct io_event *event)
{
    static const struct disk_fault DEAD = {
        .kind = IO_KINDS, .nth = 1, .error = EMFILE, .repeated = true};
    struct strike *strike = context;
    struct disk_cut cut = {.pages = DISK_ANY, .names = DISK_ANY, .unit = 512};

    (void)event;
    if (strike->struck || ++strike->calls < strike->at)
        return;
    strike->struck = true;
    disk_after_cut(disk, &cut, strike->dir);
    bench_clone(&bench, strike->survivor);
    disk_fail(disk, &DEAD);
}

/* In recovery, in the first file behind the jump, at work: one host that dies again and again. */
TEST(a_host_that_dies_again_and_again_loses_nothing_confirmed)
{
    const int DEATHS = 250;
    struct test_random random;
    int deaths = 0;

    test_random_init(&random, test_seed());
    bench_init(&bench, "life0");
    for (int life = 0; life < DEATHS; life++) {
        struct bench survivor = {.count = 0};
        char dir[300];
        char next[300];
        struct disk *disk;
        /* Half of them die early. */
        struct strike strike = {.at = 1 + test_random_below(&random, life % 2 ? 12 : 100),
                                .survivor = &survivor,
                                .dir = next};

        (void)snprintf(dir, sizeof(dir), "%s/life%d", test_tmpdir(), life % 2);
        (void)snprintf(next, sizeof(next), "%s/life%d", test_tmpdir(), (life + 1) % 2);
        test_context("life %d ", life);
        disk = disk_new(dir, test_random_next(&random));
        disk_before(disk, strike_here, &strike);
        disk_write_back(disk, 32);
        if (bench_recover(&bench, dir) == 0) {
            bench_publish(&bench, (unsigned)test_random_below(&random, 30));
            (void)bench_flush(&bench);
            if (!strike.struck && life % 8 == 0)
                (void)bench_retain(&bench, 64 * BENCH_FILE);
            if (!strike.struck)
                live();
        } else {
            CHECK(strike.struck);
        }
        if (!strike.struck) {
            struct disk_cut none = {.pages = DISK_NONE};

            disk_after_cut(disk, &none, next);
            bench_clone(&bench, &survivor);
        }
        disk_free(disk);
        deaths += strike.struck;
        bench_free(&bench);
        bench = survivor;
    }
    test_note("%d deaths, %zu messages", deaths, bench.count);
    CHECK(deaths > DEATHS / 2);
    bench_free(&bench);
}

/* A disk without order may have any of the last pages and not the others: 2^9 of them. What is whole is kept, and
 * recovery finds exactly that. */
TEST(pages_of_the_last_writes_missing_in_every_combination)
{
    struct disk *disk;
    unsigned pages;

    bench_init(&bench, "log");
    bench.length_max = 2500;
    disk = disk_new(bench.dir, test_seed());
    bench_open(&bench);
    bench.journal.file_first = bench.journal.file_most = 1 << 20;
    bench_publish(&bench, 7);
    REQUIRE_OK(bench_flush(&bench));
    while (disk_pending(disk) < 9) {
        bench_publish_one(&bench, (uint32_t)test_random_below(&bench.random, 2500), false);
        REQUIRE_OK(bench_write(&bench, 1));
    }
    pages = disk_pending(disk);
    CHECK(pages < 12);
    for (uint64_t mask = 0; mask < UINT64_C(1) << pages; mask++) {
        struct disk_cut cut = {.pages = DISK_MASK, .names = DISK_ALL, .mask = mask};
        const char *dir = dir_of("cut");
        struct journal_history history;
        struct bench_files files;
        struct bench other;
        uint64_t end = bench.durable;
        uint64_t gap = 0;

        test_context("pages %llx ", (unsigned long long)mask);
        disk_after_cut(disk, &cut, dir);
        disk_pause(disk);
        bench_load(dir, &files);
        /* By the bytes: which of the unsynced messages are whole? */
        for (size_t i = 0; i < bench.count; i++) {
            static _Alignas(RECORD_UNIT) unsigned char built[4096];
            const struct bench_message *message = &bench.messages[i];
            size_t at = JOURNAL_HEADER_BYTES + (message->offset - files.files[0].base);

            bench_build(&bench, i, built);
            if (message->offset < bench.durable ||
                memcmp(files.files[0].bytes + at, built, RECORD_HEADER + message->length) != 0)
                continue;
            gap += message->offset - end;
            end = message->offset + record_size(message->length);
        }
        bench_unload(&files);
        bench_clone(&bench, &other);
        (void)snprintf(other.dir, sizeof(other.dir), "%s", dir);
        bench_open(&other);
        REQUIRE_OK(journal_recover(&other.journal, false, &history, &why));
        CHECK_EQ(history.end, end);
        CHECK_EQ(history.damaged_bytes, gap);
        CHECK_EQ(bench_read(&other, dir).end, end);
        CHECK_OK(bench_recover(&other, dir));
        bench_free(&other);
        disk_resume(disk);
    }
    test_context(NULL);
    bench_free(&bench);
    disk_free(disk);
}

/* By the bytes: from the first record in `file` that lost something to behind the last. Padding has a header only. */
static void whole_damage(const struct bench_file *file, uint64_t next, uint64_t *ret_from,
                         uint64_t *ret_to)
{
    static _Alignas(RECORD_UNIT) unsigned char built[4096];

    *ret_from = *ret_to = 0;
    for (size_t i = 0; i < bench.count; i++) {
        const struct bench_message *message = &bench.messages[i];
        size_t bytes = RECORD_HEADER + (message->padding ? 0 : message->length);

        if (message->offset < file->base || message->offset >= next)
            continue;
        bench_build(&bench, i, built);
        if (memcmp(file->bytes + JOURNAL_HEADER_BYTES + (message->offset - file->base), built,
                   bytes) == 0)
            continue;
        if (*ret_to == 0)
            *ret_from = message->offset;
        *ret_to = message->offset + record_size(message->length);
    }
}

/* With policy os nobody syncs: the file before the newest may have lost pages as well, and recovery says so. */
TEST(two_files_are_read_where_neither_was_synced)
{
    struct journal_history history;
    struct bench_files files;
    uint64_t offset;
    uint64_t from;
    uint64_t to;

    bench_init(&bench, "log");
    bench_open(&bench);
    while (bench.journal.count < 3) {
        bench_publish(&bench, 5);
        REQUIRE_OK(bench_flush(&bench));
    }
    bench_load(bench.dir, &files);
    offset = files.files[1].base + (files.files[2].base - files.files[1].base) / 2;
    offset -= offset % DISK_PAGE;
    memset(files.files[1].bytes + JOURNAL_HEADER_BYTES + (offset - files.files[1].base), 0,
           DISK_PAGE);
    bench_store(bench.dir, &files);
    bench_open(&bench);
    REQUIRE_OK(journal_recover(&bench.journal, false, &history, &why));
    CHECK_EQ(history.damaged_bytes, 0); /* it was not read */
    CHECK_EQ(history.scanned_bytes, files.files[2].length);
    REQUIRE_OK(journal_recover(&bench.journal, true, &history, &why));
    whole_damage(&files.files[1], files.files[2].base, &from, &to);
    CHECK(from < offset + DISK_PAGE && to >= offset + DISK_PAGE);
    CHECK_EQ(history.damaged_at, from);
    CHECK_EQ(history.damaged_bytes, to - from);
    CHECK_EQ(history.scanned_bytes, files.files[1].length + files.files[2].length);
    CHECK_EQ(history.end, bench.tail);
    /* And its end, which the next one says that it reached. */
    memset(files.files[1].bytes + JOURNAL_HEADER_BYTES + (offset - files.files[1].base), 0,
           files.files[2].base - offset);
    bench_store(bench.dir, &files);
    bench_open(&bench);
    REQUIRE_OK(journal_recover(&bench.journal, true, &history, &why));
    CHECK_EQ(history.damaged_at + history.damaged_bytes, files.files[2].base);
    bench_unload(&files);
    bench_free(&bench);
}

/* ---- The nth call fails --------------------------------------------------------------------------------- */

/* The whole life with one fault, or with one from there on that heals in the end. */
static bool live_with(const struct disk_fault *fault, const char *name)
{
    static const struct disk_fault NONE = {.kind = IO_KINDS};
    struct disk_cut cut = {.pages = DISK_NONE, .names = DISK_NONE};
    struct disk *disk;
    bool struck;

    bench_init(&bench, name);
    bench_clear_dir(bench.dir);
    disk = disk_new(bench.dir, test_seed());
    bench_open(&bench);
    disk_fail(disk, fault);
    live();
    struck = disk_failed(disk);
    check_cut(disk, &cut); /* what was confirmed meanwhile is on disk */
    disk_fail(disk, &NONE);
    CHECK_OK(bench_flush(&bench)); /* heals by itself */
    CHECK_EQ(bench.durable, bench.tail);
    CHECK_OK(journal_prepare(&bench.journal, true, &why));
    CHECK_OK(bench_retain(&bench, 4 * BENCH_FILE));
    bench_publish(&bench, 40);
    CHECK_OK(bench_flush(&bench));
    check_cut(disk, &cut);
    disk_pause(disk);
    bench_check(&bench, bench.dir);
    bench_open(&bench);
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    disk_free(disk);
    bench_free(&bench);
    return struck;
}

static void fail_each(enum io_kind kind, int error, bool repeated)
{
    struct disk_fault fault = {.kind = kind, .error = error, .repeated = repeated};

    do {
        fault.nth++;
        test_context("%s %llu: %d%s ", io_kind_name(kind), (unsigned long long)fault.nth, error,
                     repeated ? "+" : "");
    } while (live_with(&fault, "failing"));
    test_context(NULL);
    CHECK(fault.nth > 3);
}

TEST(the_nth_write_fails)
{
    fail_each(IO_WRITE, EIO, false);
    fail_each(IO_WRITE, ENOSPC, false);
    fail_each(IO_WRITE, IO_SHORT, false);
    fail_each(IO_WRITE, ENOSPC, true);
    fail_each(IO_WRITE, IO_SHORT, true);
}

TEST(the_nth_sync_fails)
{
    fail_each(IO_SYNC, EIO, false);
    fail_each(IO_SYNC, ENOSPC, false);
    fail_each(IO_SYNC, EIO, true);
    fail_each(IO_SYNC_DIR, EIO, false);
    fail_each(IO_SYNC_DIR, EIO, true);
}

TEST(the_nth_file_cannot_be_made)
{
    fail_each(IO_OPEN, EMFILE, false);
    fail_each(IO_OPEN, EROFS, true);
    fail_each(IO_ALLOCATE, ENOSPC, false);
    fail_each(IO_ALLOCATE, ENOSPC, true);
    fail_each(IO_RENAME, EIO, false);
    fail_each(IO_RENAME, EROFS, true);
}

TEST(the_nth_unlink_fails)
{
    fail_each(IO_UNLINK, EIO, false);
    fail_each(IO_UNLINK, EROFS, true);
}

/* Opening and recovery themselves. */
TEST(a_start_whose_nth_call_fails_says_so_or_does_not_mind)
{
    struct disk *disk;
    bool struck = true;

    bench_init(&bench, "log");
    disk = disk_new(bench.dir, test_seed());
    bench_open(&bench);
    live();
    REQUIRE_OK(bench_flush(&bench));
    bench_close(&bench);
    for (uint64_t nth = 1; struck; nth++) {
        struct disk_fault fault = {.kind = IO_KINDS, .error = EMFILE};
        struct journal journal;
        struct journal_history history;
        int rc;

        test_context("call %llu ", (unsigned long long)nth);
        fault.nth = nth;
        disk_fail(disk, &fault);
        rc = journal_open(&journal, bench.dir, BENCH_TOPIC, BENCH_PARTITION, &why);
        if (rc == 0)
            rc = journal_recover(&journal, false, &history, &why);
        struck = disk_failed(disk);
        if (rc < 0) {
            CHECK_ERR(rc, SHMQ_ELIMIT);
            CHECK_CONTAINS(why.text, bench.dir);
            CHECK(struck);
        } else {
            CHECK(history.end == bench.durable || history.damaged_bytes > 0);
            CHECK(history.next_base >= bench.written);
        }
        journal_close(&journal);
    }
    bench_free(&bench);
    disk_free(disk);
}

/* ---- How long it takes ---------------------------------------------------------------------------------- */

/* A million messages of 100 bytes: 184 MiB, of which the newest 64 are read. */
TEST(recovery_reads_the_newest_file_alone)
{
    const uint64_t MESSAGES = 1000000;
    const uint64_t FILES[] = {1, 2, 4, 8, 16, 32, 64, 64};
    struct journal_history history = {.end = 0};
    uint64_t best_ns = UINT64_MAX;
    uint64_t bytes;

    bench_init(&bench, "log");
    bench_open(&bench);
    bench.journal.file_first = JOURNAL_FILE_FIRST;
    bench.journal.file_most = JOURNAL_FILE_MOST;
    disk_quiet();
    for (uint64_t i = 0; i < MESSAGES; i++)
        bench_publish_one(&bench, 100, false);
    while (bench.position < bench.tail)
        REQUIRE_OK(bench_write(&bench, 2000));
    bench.durable = bench.position;
    CHECK_EQ(bench.journal.count, COUNT_OF(FILES));
    bytes = bench.journal.bytes;
    for (int i = 0; i < 3; i++) {
        uint64_t start_ns = test_now_ns();

        bench_open(&bench);
        REQUIRE_OK(journal_recover(&bench.journal, false, &history, &why));
        best_ns = min_u64(best_ns, test_now_ns() - start_ns);
    }
    CHECK_EQ(history.messages, MESSAGES);
    CHECK_EQ(history.end, bench.tail);
    CHECK_EQ(history.damaged_bytes, 0);
    CHECK(history.scanned_bytes <= bytes);
    test_note("recovered in %.1f ms", (double)best_ns / 1e6);
    CHECK(best_ns < (uint64_t)test_scaled_ms(200) * 1000000);
    bench_clear_dir(bench.dir);
    bench_free(&bench);
}

TEST_MAIN("journal_recover", T_TIMEOUT(a_power_cut_before_any_call_loses_nothing_confirmed, 60),
          T_TIMEOUT(policy_os_outlives_the_process_at_any_call, 60),
          T_TIMEOUT(policy_os_and_a_host_that_dies_invent_nothing, 60),
          T_TIMEOUT(a_host_that_dies_again_and_again_loses_nothing_confirmed, 60),
          T_TIMEOUT(pages_of_the_last_writes_missing_in_every_combination, 60),
          T(two_files_are_read_where_neither_was_synced), T_TIMEOUT(the_nth_write_fails, 60),
          T_TIMEOUT(the_nth_sync_fails, 60), T_TIMEOUT(the_nth_file_cannot_be_made, 60),
          T_TIMEOUT(the_nth_unlink_fails, 60),
          T(a_start_whose_nth_call_fails_says_so_or_does_not_mind),
          T_TIMEOUT(recovery_reads_the_newest_file_alone, 60))
