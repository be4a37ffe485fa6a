/* SPDX-License-Identifier: Apache-2.0 */
/* Journals that were cut, flipped, overwritten, lost in part, mixed up or made up: recovery keeps exactly what is
 * whole, says what is not, never gives an offset out again, and neither crashes nor hangs. */
#include "daemon/io.h"
#include "daemon/log.h"
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
static struct bench_files
    files; /* of `bench`, in memory: what is damaged here is stored by check() */
static struct error_buffer why;
static unsigned warnings;

static void count_warnings(void *context, enum log_level level, const char *line)
{
    (void)context;
    (void)line;
    warnings += level == LOG_LEVEL_WARNING;
}

/* A log over so many files, all of it confirmed, with a dozen records in the newest. */
static void make_log(size_t count)
{
    log_set_sink(count_warnings, NULL);
    bench_init(&bench, "log");
    bench.length_max = 300;
    disk_quiet();
    bench_open(&bench);
    while (bench.journal.count < count) {
        bench_publish(&bench, 3);
        REQUIRE_OK(bench_flush(&bench));
    }
    bench_publish(&bench, 12);
    bench_publish_one(&bench, 133, false);
    REQUIRE_OK(bench_flush(&bench));
    bench_close(&bench);
    bench_load(bench.dir, &files);
    REQUIRE(files.count == count);
}

static void end_log(void)
{
    bench_unload(&files);
    bench_free(&bench);
    log_set_sink(NULL, NULL);
}

static struct bench_file *newest(void)
{
    return &files.files[files.count - 1];
}

static size_t position_of(const struct bench_file *file, uint64_t offset)
{
    return JOURNAL_HEADER_BYTES + (size_t)(offset - file->base);
}

static uint64_t end_of(size_t message)
{
    return bench.messages[message].offset + record_size(bench.messages[message].length);
}

/* The bytes that the checksum covers are in the file as they were written. */
static bool is_whole(const struct bench_file *file, size_t message)
{
    static _Alignas(RECORD_UNIT) unsigned char built[1024];
    size_t at = position_of(file, bench.messages[message].offset);
    uint32_t length = bench.messages[message].length;

    bench_build(&bench, message, built);
    return at + RECORD_HEADER + length <= file->length &&
           memcmp(file->bytes + at, built,
                  RECORD_HEADER + (bench.messages[message].padding ? 0 : length)) == 0;
}

/* By the bytes of the newest file alone, whose header is whole: what recovery must say. */
static struct journal_history expect(void)
{
    struct journal_history expected = {.end = newest()->base, .damaged_at = UINT64_MAX};

    for (size_t i = 0; i < bench.count; i++) {
        uint64_t offset = bench.messages[i].offset;

        if (offset < newest()->base || !is_whole(newest(), i))
            continue;
        if (offset > expected.end) {
            expected.damaged_bytes += offset - expected.end;
            expected.damaged_at = min_u64(expected.damaged_at, expected.end);
        }
        expected.end = end_of(i);
    }
    return expected;
}

static struct journal_history recover(void)
{
    struct journal_history history = {.end = 0};
    struct journal journal;

    REQUIRE_OK(journal_open(&journal, bench.dir, BENCH_TOPIC, BENCH_PARTITION, &why));
    if (!CHECK_OK(journal_recover(&journal, false, &history, &why)))
        FAIL("%s", why.text);
    journal_close(&journal);
    CHECK(history.next_base >= bench.written);
    CHECK(history.next_base >= history.end);
    return history;
}

/* With the newest file as it is in memory now. */
static struct journal_history check_newest(void)
{
    struct journal_history expected = expect();
    struct journal_history history;

    bench_store_file(bench.dir, newest());
    history = recover();
    CHECK_EQ(history.end, expected.end);
    CHECK_EQ(history.damaged_bytes, expected.damaged_bytes);
    CHECK_EQ(history.damaged_at, expected.damaged_at);
    return history;
}

/* ---- Cut ----------------------------------------------------------------------------------------------- */

TEST(a_journal_cut_at_every_byte_of_its_last_records)
{
    size_t whole;
    size_t from;

    make_log(3);
    whole = newest()->length;
    from = position_of(newest(), bench.messages[bench.count - 5].offset);
    for (size_t length = from; length <= position_of(newest(), bench.tail) + 64; length++) {
        struct journal_history history;

        test_context("length %zu ", length);
        newest()->length = length;
        history = check_newest();
        CHECK_EQ(history.damaged_bytes, 0);
        CHECK(history.end <= bench.tail);
        CHECK((history.end == bench.tail) == is_whole(newest(), bench.count - 1));
    }
    newest()->length = whole;
    end_log();
}

TEST(a_journal_cut_anywhere_and_down_to_nothing)
{
    size_t whole;

    make_log(3);
    whole = newest()->length;
    for (size_t length = 0; length <= whole; length += length < 32 ? 1 : 61) {
        test_context("length %zu ", length);
        newest()->length = length;
        if (length >= JOURNAL_HEADER_BYTES) {
            (void)check_newest();
        } else {
            struct journal_history history;

            bench_store_file(bench.dir, newest());
            history =
                recover(); /* without its header nothing in it can be read, and the others go on */
            CHECK(history.end >= newest()->base);
            CHECK(history.next_base >= newest()->base + JOURNAL_FILE_MOST);
        }
    }
    newest()->length = whole;
    end_log();
}

/* ---- Flipped ------------------------------------------------------------------------------------------- */

/* In the file itself: so many files are slow to write. */
static void flip(const struct bench_file *file, size_t bit)
{
    char path[400];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", bench.dir, file->name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    file->bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    REQUIRE(fd >= 0 && pwrite(fd, &file->bytes[bit / 8], 1, (off_t)(bit / 8)) == 1);
    (void)close(fd);
}

TEST(every_bit_of_the_newest_header_flipped)
{
    make_log(2);
    for (size_t bit = 0; bit < JOURNAL_HEADER_BYTES * 8; bit++) {
        struct journal_history history;

        flip(newest(), bit);
        warnings = 0;
        history = recover();
        flip(newest(), bit);
        /* All of the file counts as damage, and the log goes on behind it. */
        if (history.damaged_at != newest()->base ||
            history.end != newest()->base + newest()->length - JOURNAL_HEADER_BYTES ||
            (warnings != 1 && bit < LOG_BURST))
            FAIL("bit %zu of byte %zu", bit % 8, bit / 8);
    }
    CHECK_EQ(recover().damaged_bytes, 0);
    CHECK_EQ(recover().end, bench.tail);
    end_log();
}

/* Files behind a damaged one are read, and it is not in anybody's way. */
TEST(every_bit_of_an_older_header_flipped)
{
    make_log(3);
    for (size_t bit = 0; bit < JOURNAL_HEADER_BYTES * 8; bit += bit < 80 * 8 ? 1 : 7) {
        struct journal_history history;

        flip(&files.files[1], bit);
        warnings = 0;
        history = recover();
        flip(&files.files[1], bit);
        if (history.end != bench.tail || (warnings != 1 && bit < LOG_BURST))
            FAIL("bit %zu of byte %zu", bit % 8, bit / 8);
    }
    end_log();
}

TEST(every_bit_of_a_record_flipped)
{
    size_t inner;

    make_log(2);
    inner = bench.count - 3;
    while (bench.messages[inner].padding)
        inner--;
    for (size_t message = inner; message < bench.count; message += bench.count - 1 - inner) {
        size_t from = position_of(newest(), bench.messages[message].offset);
        size_t to = from + RECORD_HEADER + bench.messages[message].length;

        for (size_t bit = from * 8; bit < to * 8; bit++) {
            struct journal_history history;

            flip(newest(), bit);
            history = recover();
            flip(newest(), bit);
            test_context("message %zu, bit %zu ", message, bit - from * 8);
            if (message == inner) { /* a record behind it holds */
                CHECK_EQ(history.end, bench.tail);
                CHECK_EQ(history.damaged_at, bench.messages[inner].offset);
                CHECK_EQ(history.damaged_bytes, record_size(bench.messages[inner].length));
            } else {
                CHECK_EQ(history.end, bench.messages[message].offset);
                CHECK_EQ(history.torn_at, bench.messages[message].offset);
            }
        }
    }
    test_context(NULL);
    CHECK_EQ(recover().torn_at, UINT64_MAX);
    end_log();
}

/* ---- Tails --------------------------------------------------------------------------------------------- */

/* What stands behind the last record; `length` bytes from its end on. */
static unsigned char *tail_of(size_t *ret_length)
{
    size_t at = position_of(newest(), bench.tail);

    *ret_length = newest()->length - at;
    return newest()->bytes + at;
}

static void check_tail(bool is_torn)
{
    struct journal_history history = check_newest();

    CHECK_EQ(history.end, bench.tail);
    CHECK_EQ(history.damaged_bytes, 0);
    CHECK_EQ(history.torn_at, is_torn ? bench.tail : UINT64_MAX);
}

TEST(tails_of_zeros_of_garbage_and_of_old_data)
{
    unsigned char *tail;
    size_t length;
    size_t used;

    make_log(2);
    tail = tail_of(&length);
    used = (size_t)(bench.tail - newest()->base);
    REQUIRE(length > used && used > 1000);
    check_tail(false); /* zeros */
    for (int i = 0; i < 200; i++) {
        test_context("garbage %d ", i);
        test_random_fill(&bench.random, tail, length);
        tail[0] |= 1;
        check_tail(true);
        memset(tail, 0, length);
    }
    test_context("records of another place ");
    memcpy(tail, newest()->bytes + JOURNAL_HEADER_BYTES, used);
    check_tail(true);
    test_context("records of the file before ");
    memcpy(tail, files.files[0].bytes + JOURNAL_HEADER_BYTES,
           min_size(length, files.files[0].length - JOURNAL_HEADER_BYTES));
    check_tail(true);
    memset(tail, 0, length);
    for (unsigned lap = 1; lap < 4; lap++) {
        uint64_t tail_before = bench.tail;
        uint64_t salt = bench.salt;

        /* The right offsets under another salt; the right salt, a lap of the ring before. */
        test_context("lap %u ", lap);
        if (lap == 1)
            bench.salt ^= 0x1000;
        else
            bench.tail -= BENCH_CAPACITY * (lap - 1);
        bench_publish_one(&bench, 100, false);
        bench_build(&bench, bench.count - 1, tail);
        bench.count--;
        bench.salt = salt;
        bench.tail = tail_before;
        check_tail(true);
    }
    end_log();
}

/* Something unreadable, and behind it a record that holds: it was written, and so was what is unreadable. */
TEST(a_gap_with_a_record_behind_it_is_damage)
{
    uint64_t from;

    make_log(2);
    for (size_t first = bench.count - 8; first < bench.count - 1; first++) {
        struct journal_history history;

        test_context("from message %zu ", first);
        from = bench.messages[first].offset;
        memset(newest()->bytes + position_of(newest(), from), 0,
               bench.messages[bench.count - 1].offset - from);
        history = check_newest();
        CHECK_EQ(history.end, bench.tail);
        CHECK_EQ(history.damaged_at, from);
        CHECK_EQ(history.damaged_bytes, bench.messages[bench.count - 1].offset - from);
        bench_unload(&files);
        bench_clear_dir(bench.dir);
        bench_free(&bench);
        make_log(2);
    }
    end_log();
}

/* ---- Files -------------------------------------------------------------------------------------------- */

static uint64_t messages_in(const struct bench_file *file, uint64_t limit)
{
    uint64_t messages = 0;

    for (size_t i = 0; i < bench.count; i++)
        messages += !bench.messages[i].padding && bench.messages[i].offset >= file->base &&
                    bench.messages[i].offset < limit;
    return messages;
}

TEST(a_missing_file_is_a_gap_and_no_more)
{
    make_log(4);
    for (size_t gone = 0; gone < 4; gone++) {
        struct bench_file file = files.files[gone];
        uint64_t limit = gone < 3 ? files.files[gone + 1].base : UINT64_MAX;
        struct bench_reading reading;
        struct journal_history history;
        char path[400];

        test_context("file %zu ", gone);
        (void)snprintf(path, sizeof(path), "%s/%s", bench.dir, file.name);
        REQUIRE(unlink(path) == 0);
        history = recover();
        CHECK_EQ(history.end, gone < 3 ? bench.tail : file.base);
        CHECK(!history.empty);
        reading = bench_read(&bench, bench.dir);
        CHECK_EQ(reading.missing, messages_in(&file, limit));
        bench_store_file(bench.dir, &file);
    }
    bench_clear_dir(bench.dir);
    REQUIRE_OK(journal_open(&bench.journal, bench.dir, BENCH_TOPIC, BENCH_PARTITION, &why));
    {
        struct journal_history history;

        CHECK_OK(journal_recover(&bench.journal, true, &history, &why));
        CHECK(history.empty);
        CHECK_EQ(history.end, 0);
    }
    end_log();
}

/* Names that are not the base: nothing is read under a wrong offset, and no offset is given out again. */
TEST(renamed_and_doubled_files_are_not_believed)
{
    make_log(3);
    for (size_t i = 0; i < files.count; i++) {
        for (int64_t shift = -64; shift <= 1 << 20; shift += shift < 64 ? 128 : 1 << 20) {
            for (int doubled = 0; doubled < 2; doubled++) {
                struct bench_file copy = files.files[i];
                struct journal_history history;
                struct bench_reading reading;

                test_context("file %zu by %lld%s ", i, (long long)shift, doubled ? ", twice" : "");
                bench_store(bench.dir, &files);
                copy.base = (uint64_t)((int64_t)copy.base + shift);
                journal_format_name(copy.base, copy.name);
                bench_store_file(bench.dir, &copy);
                if (!doubled) {
                    char path[400];

                    (void)snprintf(path, sizeof(path), "%s/%s", bench.dir, files.files[i].name);
                    REQUIRE(unlink(path) == 0);
                }
                warnings = 0;
                history = recover();
                CHECK_EQ(warnings, 1);
                CHECK(history.end >= bench.tail || i == 2);
                reading = bench_read(&bench, bench.dir);
                CHECK(reading.missing == 0 || !doubled || copy.base <= bench.tail);
            }
        }
    }
    end_log();
}

TEST(a_file_of_another_topic_is_not_read)
{
    struct journal_header header;

    make_log(2);
    memcpy(&header, newest()->bytes, sizeof(header));
    for (int field = 0; field < 2; field++) {
        struct journal_header foreign = header;

        foreign.topic += field == 0;
        foreign.partition += field == 1;
        journal_seal_header(&foreign);
        memcpy(newest()->bytes, &foreign, sizeof(foreign));
        bench_store_file(bench.dir, newest());
        warnings = 0;
        CHECK_EQ(recover().damaged_at, newest()->base);
        CHECK_EQ(warnings, 1);
    }
    end_log();
}

/* What another shmq wrote is not damage: it is left for that one. */
TEST(a_file_of_another_version_stops_the_start)
{
    struct journal_header header;
    struct journal journal;

    make_log(2);
    memcpy(&header, newest()->bytes, sizeof(header));
    header.version = LAYOUT_VERSION + 1;
    header.crc32c = journal_header_crc(&header);
    memcpy(newest()->bytes, &header, sizeof(header));
    bench_store_file(bench.dir, newest());
    CHECK_ERR(journal_open(&journal, bench.dir, BENCH_TOPIC, BENCH_PARTITION, &why), SHMQ_EVERSION);
    CHECK_CONTAINS(why.text, newest()->name);
    journal_close(&journal);
    CHECK_EQ(bench_count_names(bench.dir, ".log"), 2);
    end_log();
}

/* Directories, links, sockets, pipes, files without end: with names of files of the journal. */
TEST(what_is_no_file_is_reported_and_left_alone)
{
    char path[400];
    char name[JOURNAL_NAME_BYTES];

    make_log(2);
    for (int kind = 0; kind < 4; kind++) {
        for (int above = 0; above < 2; above++) {
            uint64_t base = above ? align_up_u64(bench.tail, 4096) : 64;
            struct journal_history history;
            int fd;

            test_context("kind %d, %s ", kind, above ? "above" : "below");
            journal_format_name(base, name);
            (void)snprintf(path, sizeof(path), "%s/%s", bench.dir, name);
            if (kind == 0)
                REQUIRE(mkdir(path, 0700) == 0);
            if (kind == 1)
                REQUIRE(symlink("/dev/zero", path) == 0);
            if (kind == 2)
                REQUIRE(mkfifo(path, 0600) == 0);
            if (kind == 3) {
                fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                REQUIRE(fd >= 0);
                REQUIRE(ftruncate(fd, INT64_C(1) << 40) == 0);
                (void)close(fd);
            }
            warnings = 0;
            history = recover();
            CHECK_EQ(warnings, 1);
            CHECK(above ? history.end >= base : history.end == bench.tail);
            CHECK(history.next_base > base);
            REQUIRE(unlink(path) == 0 || rmdir(path) == 0);
        }
    }
    end_log();
}

/* The header of the newest file is lost, the log goes on behind it, and later somebody repairs it. */
TEST(a_damaged_file_can_be_repaired_later)
{
    struct bench_file damaged;
    struct bench_reading reading;
    uint64_t missing;

    make_log(2);
    damaged = *newest();
    missing = messages_in(&damaged, UINT64_MAX);
    flip(&damaged, 13);
    REQUIRE_OK(journal_open(&bench.journal, bench.dir, BENCH_TOPIC, BENCH_PARTITION, &why));
    {
        struct journal_history history;
        struct journal_start start = {.previous_end = 0};

        REQUIRE_OK(journal_recover(&bench.journal, false, &history, &why));
        start.previous_end = history.end;
        start.base = start.durable = history.next_base + BENCH_CAPACITY;
        start.messages = history.messages;
        REQUIRE_OK(journal_begin(&bench.journal, &start, bench.salt, 64, &why));
        bench.tail = bench.position = bench.durable = start.base;
    }
    bench.needs_begin = false;
    bench_publish(&bench, 5);
    REQUIRE_OK(bench_flush(&bench));
    CHECK_EQ(bench_count_names(bench.dir, ".log"), 3);
    reading = bench_read(&bench, bench.dir);
    CHECK_EQ(reading.missing, missing);
    flip(&damaged, 13);
    bench_check(&bench, bench.dir);
    end_log();
}

/* ---- A disk that cannot read ------------------------------------------------------------------------------ */

static uint64_t bad_from; /* bytes of the newest file that cannot be read */
static uint64_t bad_to;

static int fail_reads(void *context, const struct io_event *event)
{
    (void)context;
    return event->kind == IO_READ && event->position < bad_to &&
                   event->position + event->length > bad_from
               ? EIO
               : 0;
}

/* Bad sectors: what is in them is damage, also at the end, where nothing behind it says so. */
TEST(pages_that_cannot_be_read_are_damage)
{
    struct journal journal;
    struct journal_history history;
    size_t used;

    make_log(2);
    used = position_of(newest(), bench.tail);
    for (uint64_t page = 1; page * 4096 < newest()->length; page++) {
        uint64_t from = newest()->base + page * 4096 - JOURNAL_HEADER_BYTES;

        test_context("page %llu ", (unsigned long long)page);
        bad_from = page * 4096;
        bad_to = bad_from + 4096;
        REQUIRE_OK(journal_open(&journal, bench.dir, BENCH_TOPIC, BENCH_PARTITION, &why));
        REQUIRE_OK(fault_arm("journal.file.read+", "error", NULL));
        io_watch(fail_reads, NULL);
        CHECK_OK(journal_recover(&journal, false, &history, &why));
        io_watch(NULL, NULL);
        fault_disarm();
        journal_close(&journal);
        CHECK(history.damaged_bytes > 0);
        CHECK(history.damaged_at <= max_u64(from, bench.tail));
        CHECK(history.end >= bench.tail &&
              history.end >= from + 4096 - (page * 4096 < used ? 4096 : 0));
    }
    end_log();
}

/* ---- Made up ------------------------------------------------------------------------------------------------ */

/* A client knows the salt, and puts records into the body of its message, each of which claims all the bytes behind it.
 * Something breaks before it: the search must not check them all. */
TEST(records_that_overlap_do_not_hold_recovery_up)
{
    const size_t LENGTH = (size_t)24 << 20;
    struct bench_file file = {.length = LENGTH};
    struct journal_header header;
    uint64_t start_ns;

    make_log(2);
    memcpy(&header, newest()->bytes, sizeof(header));
    file.base = newest()->base;
    memcpy(file.name, newest()->name, sizeof(file.name));
    file.bytes = calloc(1, LENGTH);
    REQUIRE(file.bytes != NULL);
    memcpy(file.bytes, newest()->bytes, position_of(newest(), bench.tail));
    for (size_t at = position_of(newest(), bench.tail) + 64; at < LENGTH; at += RECORD_UNIT) {
        uint64_t stamp = record_stamp(header.salt, file.base + at - JOURNAL_HEADER_BYTES, 1);
        uint32_t length = (uint32_t)(LENGTH - at - RECORD_HEADER);

        memcpy(file.bytes + at, &stamp, sizeof(stamp));
        memcpy(file.bytes + at + 8, &length, sizeof(length));
    }
    bench_store_file(bench.dir, &file);
    start_ns = test_now_ns();
    CHECK_EQ(recover().end, bench.tail);
    CHECK(test_now_ns() - start_ns < (uint64_t)test_scaled_ms(3000) * 1000000);
    test_note("%.0f ms", (double)(test_now_ns() - start_ns) / 1e6);
    free(file.bytes);
    end_log();
}

/* Headers and records with fields drawn at random and right checksums, names and sizes too. */
TEST(whatever_the_files_say_recovery_ends)
{
    static unsigned char bytes[3 * 4096];

    log_set_sink(count_warnings, NULL);
    bench_init(&bench, "log");
    for (int round = 0; round < 3000; round++) {
        struct test_random *random = &bench.random;
        struct journal_history history;
        struct journal journal;
        unsigned count = 1 + (unsigned)test_random_below(random, 4);
        int rc;

        test_context("round %d ", round);
        bench_clear_dir(bench.dir);
        for (unsigned i = 0; i < count; i++) {
            struct bench_file file = {.bytes = bytes,
                                      .length = test_random_below(random, sizeof(bytes))};
            struct journal_header *header = (struct journal_header *)(void *)bytes;
            uint64_t bits = test_random_below(random, 65);

            test_random_fill(random, bytes, sizeof(bytes));
            memset(header, 0, sizeof(*header));
            header->base = bits ? test_random_next(random) >> (64 - bits) & ~UINT64_C(63) : 0;
            header->salt = test_random_next(random) & ~UINT64_C(63);
            header->previous_end = test_random_below(random, 2)
                                       ? header->base
                                       : test_random_next(random) >> test_random_below(random, 64);
            header->durable = test_random_next(random) >> test_random_below(random, 64);
            header->messages = test_random_next(random);
            header->max_timestamp_ns = test_random_next(random);
            header->topic = BENCH_TOPIC;
            header->partition = BENCH_PARTITION;
            journal_seal_header(header);
            file.base = header->base;
            for (size_t at = 4096; at + 64 < sizeof(bytes);
                 at += 64 * (1 + test_random_below(random, 3))) {
                uint64_t offset = header->base + at - 4096;
                uint64_t state = 1 + test_random_below(random, 2);
                uint64_t stamp = record_stamp(header->salt, offset, state);
                uint32_t length =
                    (uint32_t)(test_random_next(random) >> (32 + test_random_below(random, 32)));
                uint32_t crc;

                memcpy(bytes + at, &stamp, sizeof(stamp));
                memcpy(bytes + at + 8, &length, sizeof(length));
                if (length < sizeof(bytes) - at - 32) {
                    memset(bytes + at + 26, 0, 4);
                    crc = journal_record_crc(bytes + at, state);
                    memcpy(bytes + at + 12, &crc, sizeof(crc));
                }
            }
            if (test_random_below(random, 8) == 0)
                file.base ^= UINT64_C(1) << test_random_below(random, 64);
            if (test_random_below(random, 8) == 0)
                bytes[test_random_below(random, sizeof(bytes))] ^= 1;
            journal_format_name(file.base, file.name);
            bench_store_file(bench.dir, &file);
        }
        rc = journal_open(&journal, bench.dir, BENCH_TOPIC, BENCH_PARTITION, &why);
        if (!CHECK_OK(rc))
            continue;
        for (size_t i = 1; i < journal.count; i++)
            CHECK(journal.entries[i].base > journal.entries[i - 1].base);
        CHECK_OK(journal_recover(&journal, round % 2, &history, &why));
        CHECK(history.end <= history.next_base);
        CHECK(history.empty || history.next_base > journal.entries[journal.count - 1].base);
        journal_close(&journal);
    }
    end_log();
}

TEST_MAIN("journal_damage", T_TIMEOUT(a_journal_cut_at_every_byte_of_its_last_records, 60),
          T_TIMEOUT(a_journal_cut_anywhere_and_down_to_nothing, 60),
          T_TIMEOUT(every_bit_of_the_newest_header_flipped, 60),
          T_TIMEOUT(every_bit_of_an_older_header_flipped, 60),
          T_TIMEOUT(every_bit_of_a_record_flipped, 60),
          T(tails_of_zeros_of_garbage_and_of_old_data), T(a_gap_with_a_record_behind_it_is_damage),
          T(a_missing_file_is_a_gap_and_no_more), T(renamed_and_doubled_files_are_not_believed),
          T(a_file_of_another_topic_is_not_read), T(a_file_of_another_version_stops_the_start),
          T(what_is_no_file_is_reported_and_left_alone), T(a_damaged_file_can_be_repaired_later),
          T(pages_that_cannot_be_read_are_damage),
          T_TIMEOUT(records_that_overlap_do_not_hold_recovery_up, 60),
          T_TIMEOUT(whatever_the_files_say_recovery_ends, 60))
