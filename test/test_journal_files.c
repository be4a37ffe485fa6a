/* SPDX-License-Identifier: Apache-2.0 */
/* A journal's files in good health: begun, written, rolled over, found again, made ahead, let go, removed. Recovery
 * is in test_journal_recover.c, damage in test_journal_damage.c. */
#include "daemon/io.h"
#include "libshmq/fault.h"
#include "libshmq/record.h"
#include "test/support/disk.h"
#include "test/support/journal_bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct bench bench;
static struct error_buffer why;

static unsigned calls[IO_KINDS];

/* Nothing here needs a disk that keeps it. */
static int count_calls(void *context, const struct io_event *event)
{
    (void)context;
    calls[event->kind]++;
    return event->kind == IO_SYNC || event->kind == IO_SYNC_DIR ? IO_DONE : 0;
}

static void begin(const char *name)
{
    bench_init(&bench, name);
    io_watch(count_calls, NULL);
}

static void count_anew(void)
{
    memset(calls, 0, sizeof(calls));
}

static const struct journal_entry *newest(void)
{
    REQUIRE(bench.journal.count > 0);
    return &bench.journal.entries[bench.journal.count - 1];
}

/* Publishes and flushes until there are so many files. */
static void make_files(size_t files)
{
    while (bench.journal.count < files) {
        bench_publish(&bench, 5);
        REQUIRE_OK(bench_flush(&bench));
    }
}

static uint64_t size_of_file(uint64_t base)
{
    char name[JOURNAL_NAME_BYTES];
    char path[400];
    struct stat status;

    journal_format_name(base, name);
    (void)snprintf(path, sizeof(path), "%s/%s", bench.dir, name);
    return stat(path, &status) < 0 ? 0 : (uint64_t)status.st_size;
}

/* ---- Writing ------------------------------------------------------------------------------------- */

TEST(what_is_written_is_read_back_over_files_and_restarts)
{
    begin("log");
    for (int life = 0; life < 6; life++) {
        bench_open(&bench);
        CHECK_EQ(journal_room(&bench.journal), 0);
        for (int i = 0; i < 40; i++) {
            bench_publish(&bench, 1 + (unsigned)test_random_below(&bench.random, 8));
            CHECK_OK(bench_flush(&bench));
        }
        bench_check(&bench, bench.dir);
    }
    CHECK(bench.journal.count >= 6);
    CHECK_EQ(bench_count_names(bench.dir, ".log"), bench.journal.count);
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    bench_free(&bench);
}

TEST(headers_say_what_was_before)
{
    begin("log");
    bench_open(&bench);
    make_files(4);
    bench_open(&bench);
    CHECK_EQ(bench.journal.entries[0].previous_end, 0x10000);
    CHECK_EQ(bench.journal.entries[0].messages, 0);
    for (size_t i = 1; i < bench.journal.count; i++) {
        const struct journal_entry *entry = &bench.journal.entries[i];

        CHECK_EQ(entry->previous_end, entry->base);
        CHECK_EQ(entry->durable, entry->base);
        CHECK_EQ(entry->salt, bench.salt);
        CHECK(entry->messages > entry[-1].messages);
        CHECK_EQ(entry->bytes, size_of_file(entry->base));
        CHECK(!entry->damaged);
    }
    bench_free(&bench);
}

TEST(files_grow_with_the_log_and_not_with_restarts)
{
    begin("log");
    bench_open(&bench);
    make_files(5);
    CHECK_EQ(bench.journal.entries[0].bytes, BENCH_FILE);
    CHECK_EQ(bench.journal.entries[1].bytes, 2 * BENCH_FILE);
    CHECK_EQ(bench.journal.entries[2].bytes, 4 * BENCH_FILE);
    CHECK_EQ(bench.journal.entries[4].bytes, 4 * BENCH_FILE);
    bench_free(&bench);

    begin("rarely");
    for (int i = 0; i < 10; i++) {
        bench_open(&bench);
        bench_publish(&bench, 1);
        REQUIRE_OK(bench_flush(&bench));
    }
    CHECK_EQ(bench.journal.count, 10);
    CHECK_EQ(newest()->bytes, BENCH_FILE);
    bench_free(&bench);
}

TEST(a_long_record_gets_a_file_that_takes_it)
{
    begin("log");
    bench_open(&bench);
    bench_publish_one(&bench, 10, false);
    bench_publish_one(&bench, 300000, false);
    bench_publish_one(&bench, 20, false);
    REQUIRE_OK(bench_flush(&bench));
    bench_check(&bench, bench.dir);
    CHECK_EQ(bench.journal.count, 3);
    CHECK(bench.journal.entries[1].bytes >= 300000 + JOURNAL_HEADER_BYTES);
    bench_free(&bench);
}

TEST(nothing_is_written_beyond_the_room)
{
    static unsigned char run[BENCH_FILE];
    struct journal_start start = {.base = 128, .previous_end = 128, .durable = 128};
    uint64_t room;

    begin("log");
    bench_open(&bench);
    CHECK_ERR(journal_write(&bench.journal, run, 64, 1, 1, &why), SHMQ_EINVAL); /* none begun */
    REQUIRE_OK(journal_begin(&bench.journal, &start, 64, 0, &why));
    room = journal_room(&bench.journal);
    CHECK_EQ(room, BENCH_FILE - JOURNAL_HEADER_BYTES);
    CHECK_ERR(journal_write(&bench.journal, run, room + 64, 1, 1, &why), SHMQ_EINVAL);
    CHECK_OK(journal_write(&bench.journal, run, room, 1, 1, &why));
    CHECK_EQ(journal_room(&bench.journal), 0);
    CHECK_EQ(size_of_file(128), BENCH_FILE);
    start.base = 100;
    CHECK_ERR(journal_begin(&bench.journal, &start, 64, 0, &why), SHMQ_EINVAL);
    start.base = JOURNAL_OFFSET_MAX;
    CHECK_ERR(journal_begin(&bench.journal, &start, 64, 0, &why), SHMQ_EINVAL);
    start.base = 64;
    CHECK_ERR(journal_begin(&bench.journal, &start, 64, 0, &why), SHMQ_EINVAL); /* ended above */
    start.base = 128;
    CHECK_ERR(journal_begin(&bench.journal, &start, 1, 0, &why), SHMQ_EINVAL);
    CHECK_ERR(journal_begin(&bench.journal, &start, 64, UINT64_MAX, &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, bench.dir);
    CHECK_EQ(journal_room(&bench.journal), 0);
    bench_free(&bench);
}

/* The start of flushing after a failure or a restart: at `durable`, over what was written and not safe. */
TEST(a_file_takes_the_place_of_what_is_above_its_base)
{
    uint64_t base;

    begin("log");
    bench_open(&bench);
    make_files(2);
    base = newest()->base;
    REQUIRE_OK(bench_flush(&bench));
    /* Two files more, of which nothing is confirmed. */
    for (int i = 0; i < 2; i++) {
        struct journal_start start = {.base = bench.tail + 64u * (unsigned)i,
                                      .previous_end = bench.tail};

        REQUIRE_OK(journal_begin(&bench.journal, &start, 64, 0, &why));
    }
    CHECK_EQ(bench.journal.count, 4);
    bench_publish(&bench, 3);
    bench.needs_begin = true;
    count_anew();
    REQUIRE_OK(bench_write(&bench, 3));
    CHECK_EQ(calls[IO_SYNC_DIR], 2); /* what is unlinked is gone before the new file is there */
    REQUIRE_OK(bench_flush(&bench));
    CHECK_EQ(bench.journal.count, 3);
    CHECK_EQ(bench.journal.entries[1].base, base);
    CHECK_EQ(bench_count_names(bench.dir, ".log"), 3);
    bench_check(&bench, bench.dir);
    bench_free(&bench);
}

static int fail_sync_dir(void *context, const struct io_event *event)
{
    return event->kind == IO_SYNC_DIR ? EIO : count_calls(context, event);
}

/* It may be on disk or not, and it is not what the list said of the one before. */
TEST(a_file_whose_name_could_not_be_synced_is_not_listed)
{
    struct journal_start start = {.base = 640, .previous_end = 640};

    begin("log");
    bench_open(&bench);
    REQUIRE_OK(journal_begin(&bench.journal, &start, 64, 0, &why));
    io_watch(fail_sync_dir, NULL);
    CHECK_ERR(journal_begin(&bench.journal, &start, 128, 0, &why), SHMQ_EIO);
    io_watch(count_calls, NULL);
    CHECK_EQ(bench.journal.count, 0);
    CHECK_EQ(journal_room(&bench.journal), 0);
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    REQUIRE_OK(journal_begin(&bench.journal, &start, 192, 0, &why));
    CHECK_EQ(bench.journal.count, 1);
    CHECK_EQ(newest()->salt, 192);
    CHECK_EQ(bench_count_names(bench.dir, ".log"), 1);
    bench_free(&bench);
}

/* ---- Made ahead ---------------------------------------------------------------------------------- */

TEST(the_spare_is_used_and_saves_the_writer_the_making)
{
    begin("log");
    bench_open(&bench);
    make_files(1);
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    REQUIRE_OK(journal_prepare(&bench.journal, true, &why));
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 1);
    REQUIRE_OK(journal_prepare(&bench.journal, true, &why)); /* once is enough */
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 1);
    count_anew();
    make_files(2);
    CHECK_EQ(calls[IO_ALLOCATE], 0);
    CHECK_EQ(calls[IO_OPEN], 0);
    CHECK_EQ(calls[IO_RENAME], 1);
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    CHECK_EQ(newest()->bytes, 2 * BENCH_FILE);
    make_files(3);
    bench_check(&bench, bench.dir);
    bench_free(&bench);
}

TEST(zeros_are_written_where_they_are_wanted)
{
    struct stat status;
    char path[400];

    begin("log");
    bench_open(&bench);
    bench.journal.file_first = bench.journal.file_most = UINT64_C(20) << 20;
    (void)snprintf(path, sizeof(path), "%s/next.tmp", bench.dir);
    count_anew();
    REQUIRE_OK(journal_prepare(&bench.journal, true, &why));
    CHECK_EQ(calls[IO_WRITE], 20);
    CHECK_EQ(calls[IO_SYNC], 3); /* in pieces, so that nobody waits long behind it */
    REQUIRE(stat(path, &status) == 0);
    CHECK_EQ(status.st_size, 20 << 20);
    CHECK(status.st_blocks >= (20 << 20) / 512);
    bench_close(&bench);
    CHECK(stat(path, &status) < 0); /* closing removes it */
    bench_open(&bench);
    count_anew();
    REQUIRE_OK(journal_prepare(&bench.journal, false, &why));
    CHECK_EQ(calls[IO_WRITE] + calls[IO_SYNC], 0);
    CHECK_EQ(calls[IO_ALLOCATE], 1);
    bench_free(&bench);
}

TEST(a_spare_that_is_too_small_is_replaced)
{
    begin("log");
    bench_open(&bench);
    REQUIRE_OK(journal_prepare(&bench.journal, true, &why));
    bench_publish_one(&bench, 200000, false);
    REQUIRE_OK(bench_flush(&bench));
    CHECK(newest()->bytes > 200000);
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    bench_check(&bench, bench.dir);
    bench_free(&bench);
}

/* Allocations above a limit fail. */
static int small_disk(void *context, const struct io_event *event)
{
    if (event->kind == IO_ALLOCATE && event->length > *(const size_t *)context)
        return ENOSPC;
    return count_calls(NULL, event);
}

TEST(on_a_full_disk_a_small_file_is_better_than_none)
{
    size_t most = BENCH_FILE;

    begin("log");
    bench_open(&bench);
    io_watch(small_disk, &most);
    make_files(4);
    CHECK_EQ(newest()->bytes, BENCH_FILE);
    most = BENCH_FILE - 1;
    bench_publish(&bench, 500);
    CHECK_ERR(bench_flush(&bench), SHMQ_ENOSPC);
    CHECK_ERR(bench_flush(&bench), SHMQ_ENOSPC);
    CHECK_ERR(journal_prepare(&bench.journal, true, &why), SHMQ_ENOSPC);
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    io_watch(count_calls, NULL);
    CHECK_OK(bench_flush(&bench)); /* there is room again */
    bench_check(&bench, bench.dir);
    bench_free(&bench);
}

/* ---- Looking things up ----------------------------------------------------------------------------- */

TEST(an_offset_is_found_in_its_file)
{
    struct journal_entry entry;
    struct journal_entry next;
    uint64_t bases[5];

    begin("log");
    bench_open(&bench);
    CHECK(!journal_find(&bench.journal, 0, &entry, &next));
    CHECK(!journal_find_time(&bench.journal, 0, &entry, &next));
    make_files(5);
    for (size_t i = 0; i < 5; i++)
        bases[i] = bench.journal.entries[i].base;
    CHECK(journal_find(&bench.journal, 0, &entry, &next)); /* the first above */
    CHECK_EQ(entry.base, bases[0]);
    for (size_t i = 0; i < 5; i++) {
        uint64_t end = i < 4 ? bases[i + 1] : UINT64_MAX;

        CHECK(journal_find(&bench.journal, bases[i], &entry, &next));
        CHECK_EQ(entry.base, bases[i]);
        CHECK_EQ(next.base, end);
        CHECK(journal_find(&bench.journal, end - 1, &entry, &next));
        CHECK_EQ(entry.base, bases[i]);
    }
    bench_free(&bench);
}

/* The bench's timestamps are offsets plus one. */
TEST(a_time_is_found_in_the_first_file_that_may_have_it)
{
    struct journal_entry entry;
    struct journal_entry next;

    begin("log");
    bench_open(&bench);
    make_files(5);
    for (size_t i = 0; i < bench.count; i++) {
        uint64_t time_ns = bench.messages[i].offset + 1;

        if (bench.messages[i].padding)
            continue;
        CHECK(journal_find_time(&bench.journal, time_ns, &entry, &next));
        CHECK(entry.base <= bench.messages[i].offset && bench.messages[i].offset < next.base);
    }
    CHECK(journal_find_time(&bench.journal, 0, &entry, &next));
    CHECK_EQ(entry.base, bench.journal.entries[0].base);
    CHECK(journal_find_time(&bench.journal, UINT64_MAX, &entry, &next));
    CHECK_EQ(entry.base, newest()->base);
    CHECK_EQ(next.base, UINT64_MAX);
    bench_free(&bench);
}

TEST(files_are_counted_and_handed_out_to_be_read)
{
    struct journal_header header;
    uint64_t bytes;
    uint64_t first;
    size_t files;
    int fd = -1;

    begin("log");
    bench_open(&bench);
    journal_measure(&bench.journal, &files, &bytes, &first);
    CHECK(files == 0 && bytes == 0 && first == 0);
    make_files(3);
    journal_measure(&bench.journal, &files, &bytes, &first);
    CHECK_EQ(files, 3);
    CHECK_EQ(bytes, 7 * BENCH_FILE);
    CHECK_EQ(first, 0x10000);
    REQUIRE_OK(journal_open_file(&bench.journal, first, &fd, &why));
    CHECK_EQ(pread(fd, &header, sizeof(header), 0), sizeof(header));
    CHECK_EQ(header.base, first);
    CHECK(write(fd, "x", 1) < 0);
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    (void)close(fd);
    CHECK_ERR(journal_open_file(&bench.journal, first + 64, &fd, &why), SHMQ_EAGAIN);
    bench_free(&bench);
}

/* ---- Retention ------------------------------------------------------------------------------------- */

TEST(retention_lets_the_oldest_go)
{
    uint64_t bytes;
    uint64_t first;
    size_t files;

    begin("log");
    bench_open(&bench);
    make_files(8);
    CHECK_OK(bench_retain(&bench, 0));
    CHECK_EQ(bench.journal.count, 8);
    CHECK_OK(bench_retain(&bench, 12 * BENCH_FILE));
    journal_measure(&bench.journal, &files, &bytes, &first);
    CHECK(bytes <= 12 * BENCH_FILE && bytes > 8 * BENCH_FILE);
    CHECK_EQ(bench_count_names(bench.dir, ".log"), files);
    CHECK_EQ(first, bench.first);
    bench_check(&bench, bench.dir);
    CHECK_OK(bench_retain(&bench, 1));
    CHECK_EQ(bench.journal.count, 1); /* the newest stays, whatever it takes */
    bench_check(&bench, bench.dir);
    make_files(3); /* what may keep little has small files */
    CHECK_EQ(newest()->bytes, BENCH_FILE);
    bench_free(&bench);
}

/* Whatever the bounds say. */
TEST(what_is_not_safe_or_needed_stays)
{
    struct journal_retention retention = {.retain_bytes = 1, .needed = UINT64_MAX};

    begin("log");
    bench_open(&bench);
    make_files(5);
    retention.durable = bench.journal.entries[2].base - 64;
    CHECK_OK(journal_retain(&bench.journal, &retention, &why));
    CHECK_EQ(bench.journal.count, 4); /* the second file reaches above */
    retention.durable = bench.durable;
    retention.needed = bench.journal.entries[1].base;
    CHECK_OK(journal_retain(&bench.journal, &retention, &why));
    CHECK_EQ(bench.journal.count, 3);
    retention.needed = UINT64_MAX;
    retention.retain_bytes = 0;
    retention.first = bench.journal.entries[1].base; /* purged */
    CHECK_OK(journal_retain(&bench.journal, &retention, &why));
    CHECK_EQ(bench.journal.count, 2);
    retention.retain_ns = 1000; /* the bench's times are offsets */
    retention.now_ns = bench.journal.entries[1].base + 1000;
    CHECK_OK(journal_retain(&bench.journal, &retention, &why));
    CHECK_EQ(bench.journal.count, 2);
    retention.now_ns++;
    CHECK_OK(journal_retain(&bench.journal, &retention, &why));
    CHECK_EQ(bench.journal.count, 1);
    bench_free(&bench);
}

/* By hand, while it was running. */
TEST(a_file_that_was_removed_behind_our_back_is_forgotten)
{
    struct journal_entry entry;
    struct journal_entry next;
    char path[400];
    char name[JOURNAL_NAME_BYTES];
    uint64_t base;
    int fd = -1;

    begin("log");
    bench_open(&bench);
    make_files(4);
    base = bench.journal.entries[1].base;
    journal_format_name(base, name);
    (void)snprintf(path, sizeof(path), "%s/%s", bench.dir, name);
    REQUIRE(unlink(path) == 0);
    CHECK(journal_find(&bench.journal, base, &entry, &next));
    CHECK_ERR(journal_open_file(&bench.journal, entry.base, &fd, &why), SHMQ_EAGAIN);
    CHECK_EQ(bench.journal.count, 3);
    CHECK(journal_find(&bench.journal, next.base, &entry, &next));
    REQUIRE_OK(journal_open_file(&bench.journal, entry.base, &fd, &why));
    (void)close(fd);
    bench_free(&bench);
}

static int fail_unlink(void *context, const struct io_event *event)
{
    return event->kind == IO_UNLINK ? EIO : count_calls(context, event);
}

TEST(a_file_that_cannot_be_unlinked_stays_in_the_list)
{
    begin("log");
    bench_open(&bench);
    make_files(8); /* as many as there is room for in the list */
    io_watch(fail_unlink, NULL);
    CHECK_ERR(bench_retain(&bench, 1), SHMQ_EIO);
    io_watch(count_calls, NULL);
    CHECK_EQ(bench.journal.count, 8);
    CHECK_EQ(bench.journal.entries[0].base, 0x10000);
    CHECK_OK(bench_retain(&bench, 1));
    CHECK_EQ(bench.journal.count, 1);
    bench_free(&bench);
}

TEST(each_unlink_of_retention_is_on_disk_before_the_next)
{
    begin("log");
    bench_open(&bench);
    make_files(6);
    count_anew();
    CHECK_OK(bench_retain(&bench, 1));
    CHECK_EQ(calls[IO_UNLINK], 5);
    CHECK_EQ(calls[IO_SYNC_DIR], 5);
    bench_free(&bench);
}

/* ---- Threads ------------------------------------------------------------------------------------------ */

static _Atomic bool is_over;

static void *prepare_and_retain(void *arg)
{
    struct error_buffer reason;

    (void)arg;
    while (!is_over) {
        struct journal_retention retention = {.retain_bytes = 10 * BENCH_FILE,
                                              .needed = UINT64_MAX};
        size_t files;
        uint64_t bytes;
        uint64_t first;

        journal_measure(&bench.journal, &files, &bytes, &first);
        retention.durable =
            first + 4 * BENCH_FILE; /* surely written by now, if there is that much */
        CHECK_OK(journal_prepare(&bench.journal, files % 2, &reason));
        if (bytes > 16 * BENCH_FILE)
            CHECK_OK(journal_retain(&bench.journal, &retention, &reason));
    }
    return NULL;
}

static void *look_things_up(void *arg)
{
    (void)arg;
    while (!is_over) {
        struct journal_entry entry = {.base = 0};
        struct journal_entry next = {.base = 0};
        struct error_buffer reason;
        size_t files;
        uint64_t bytes;
        uint64_t first;
        int fd = -1;
        int rc;

        journal_measure(&bench.journal, &files, &bytes, &first);
        if (!journal_find(&bench.journal, first + bytes / 2, &entry, &next))
            continue;
        CHECK(entry.base < next.base && entry.base % RECORD_UNIT == 0 && entry.bytes >= BENCH_FILE);
        CHECK(journal_find_time(&bench.journal, first + bytes / 2, &entry, &next));
        rc = journal_open_file(&bench.journal, entry.base, &fd, &reason);
        CHECK(rc == 0 || rc == SHMQ_EAGAIN);
        if (rc == 0)
            (void)close(fd);
    }
    return NULL;
}

/* The writer, the preparer, and whoever asks: for ThreadSanitizer, too. */
TEST(three_threads_share_a_journal)
{
    pthread_t threads[2];

    begin("log");
    bench_open(&bench);
    make_files(1);
    io_watch(NULL, NULL);
    disk_quiet();
    REQUIRE(pthread_create(&threads[0], NULL, prepare_and_retain, NULL) == 0);
    REQUIRE(pthread_create(&threads[1], NULL, look_things_up, NULL) == 0);
    for (int i = 0; i < 400; i++) {
        bench_publish(&bench, 20);
        CHECK_OK(bench_flush(&bench));
        if (i % 50 == 49) /* a failure: begin anew at what is durable */
            bench.needs_begin = true;
    }
    is_over = true;
    for (int i = 0; i < 2; i++)
        (void)pthread_join(threads[i], NULL);
    bench.first = bench.journal.entries[0].base;
    CHECK(bench.first > 0x10000);
    bench_check(&bench, bench.dir);
    bench_free(&bench);
}

/* ---- Directories ------------------------------------------------------------------------------------ */

TEST(the_directory_is_made_with_all_above_it)
{
    struct journal journal;
    struct stat status;
    char dir[500];

    begin("bus");
    (void)snprintf(dir, sizeof(dir), "%s/journal/orders.7/3", bench.dir);
    count_anew();
    REQUIRE_OK(journal_open(&journal, dir, 7, 3, &why));
    /* Each name is in a directory that is synced, and so is the one that was there. */
    CHECK_EQ(calls[IO_MAKE_DIR], 3);
    CHECK_EQ(calls[IO_SYNC_DIR], 4);
    REQUIRE(stat(dir, &status) == 0);
    CHECK_EQ(status.st_mode & 07777, 0700);
    journal_close(&journal);
    journal_close(&journal); /* harmless */
    count_anew();
    REQUIRE_OK(journal_open(&journal, dir, 7, 3, &why));
    CHECK_EQ(calls[IO_SYNC_DIR], 1); /* who made it may have died before */
    journal_close(&journal);
    CHECK_OK(journal_remove_directory(dir, &why));
    CHECK(stat(dir, &status) < 0);
    CHECK_OK(journal_remove_directory(dir, &why));
    (void)snprintf(dir, sizeof(dir), "%s/journal/orders.7", bench.dir);
    CHECK_INT_EQ(rmdir(dir), 0);
}

/* STATE may be one, and what stands above a name is synced through it. */
TEST(directories_above_may_be_links)
{
    struct journal journal;
    char link[400];
    char dir[500];

    begin("real");
    (void)snprintf(link, sizeof(link), "%s/link", test_tmpdir());
    REQUIRE(symlink(bench.dir, link) == 0);
    (void)snprintf(dir, sizeof(dir), "%s/a/b", link);
    CHECK_OK(journal_open(&journal, dir, 7, 3, &why));
    journal_close(&journal);
    (void)snprintf(dir, sizeof(dir), "%s/c//", link);
    CHECK_OK(journal_open(&journal, dir, 7, 3, &why));
    journal_close(&journal);
    REQUIRE(symlink(bench.dir, strcat(link, "2")) == 0);
    CHECK(journal_open(&journal, link, 7, 3, &why) < 0); /* the journal itself may not */
    CHECK_CONTAINS(why.text, link);
}

TEST(removing_takes_the_journal_and_leaves_strangers)
{
    struct bench_file stranger = {.name = "notes.txt", .length = 0};
    struct stat status;

    begin("log");
    bench_open(&bench);
    make_files(3);
    REQUIRE_OK(journal_prepare(&bench.journal, false, &why));
    bench_store_file(bench.dir, &stranger);
    CHECK_OK(journal_remove_directory(bench.dir, &why));
    CHECK_EQ(bench_count_names(bench.dir, ".log"), 0);
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    CHECK_EQ(bench_count_names(bench.dir, ".txt"), 1);
    bench_clear_dir(bench.dir);
    CHECK_OK(journal_remove_directory(bench.dir, &why));
    CHECK(stat(bench.dir, &status) < 0);
    bench_free(&bench);
}

TEST(what_a_dead_process_left_is_removed_and_strangers_stay)
{
    struct bench_file files[] = {{.name = "next.tmp", .length = 100},
                                 {.name = "begin.tmp", .length = 0},
                                 {.name = "readme.txt", .length = 0},
                                 {.name = "1.log", .length = 10},
                                 {.name = "00000000000000000001.log", .length = 10},
                                 {.name = "18446744073709551615.log", .length = 10}};

    begin("log");
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        files[i].bytes = calloc(1, 100);
        bench_store_file(bench.dir, &files[i]);
        free(files[i].bytes);
    }
    bench_open(&bench);
    CHECK_EQ(bench.journal.count, 0); /* those are no offsets of records */
    CHECK_EQ(bench_count_names(bench.dir, ".tmp"), 0);
    bench_publish(&bench, 5);
    CHECK_OK(bench_flush(&bench));
    bench_check(&bench, bench.dir);
    CHECK_EQ(bench_count_names(bench.dir, ".log"), 4);
    CHECK_EQ(bench_count_names(bench.dir, ".txt"), 1);
    bench_free(&bench);
}

TEST_MAIN("journal_files", T(what_is_written_is_read_back_over_files_and_restarts),
          T(headers_say_what_was_before), T(files_grow_with_the_log_and_not_with_restarts),
          T(a_long_record_gets_a_file_that_takes_it), T(nothing_is_written_beyond_the_room),
          T(a_file_takes_the_place_of_what_is_above_its_base),
          T(a_file_whose_name_could_not_be_synced_is_not_listed),
          T(the_spare_is_used_and_saves_the_writer_the_making),
          T(zeros_are_written_where_they_are_wanted), T(a_spare_that_is_too_small_is_replaced),
          T(on_a_full_disk_a_small_file_is_better_than_none), T(an_offset_is_found_in_its_file),
          T(a_time_is_found_in_the_first_file_that_may_have_it),
          T(files_are_counted_and_handed_out_to_be_read), T(retention_lets_the_oldest_go),
          T(each_unlink_of_retention_is_on_disk_before_the_next),
          T(what_is_not_safe_or_needed_stays),
          T(a_file_that_was_removed_behind_our_back_is_forgotten),
          T(a_file_that_cannot_be_unlinked_stays_in_the_list), T(three_threads_share_a_journal),
          T(the_directory_is_made_with_all_above_it), T(directories_above_may_be_links),
          T(removing_takes_the_journal_and_leaves_strangers),
          T(what_a_dead_process_left_is_removed_and_strangers_stay))
