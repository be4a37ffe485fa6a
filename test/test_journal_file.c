/* SPDX-License-Identifier: Apache-2.0 */
/* test_journal_file.c: one journal file through a window: what it returns is what journal_scan() finds in the whole
 * image, wherever the window's edges fall; limits, damage, and files that get shorter. */
#include "libshmq/journal_file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "libshmq/fault.h"
#include "test/support/test.h"

#define BASE  (UINT64_C(1) << 30)
#define SALT  UINT64_C(0x5ca1ab1edeadbe40)
#define BYTES (UINT64_C(3) << 20) /* of the file: a dozen windows */

static unsigned char image[BYTES];
static uint64_t end; /* behind the last record */
static uint32_t count;
static int fd = -1;

static unsigned char *at(uint64_t offset)
{
    return image + JOURNAL_HEADER_BYTES + (offset - BASE);
}

static void add_record(uint32_t length, uint64_t state, uint64_t timestamp_ns)
{
    struct record *record = (struct record *)(void *)at(end);

    memset(record, 0, RECORD_HEADER);
    record->length = length;
    record->timestamp_ns = timestamp_ns;
    if (state == RECORD_COMMITTED) {
        record->key_length = (uint16_t)(length >= 3 ? 3 : 0);
        for (uint32_t i = 0; i < length; i++)
            record->payload[i] = (unsigned char)(count * 7 + i);
    }
    record->crc32c = journal_record_crc(record, state);
    atomic_store(&record->commit, record_stamp(SALT, end, state));
    end += record_size(length);
    count++;
}

static void begin_image(void)
{
    struct journal_header header = {.base = BASE, .salt = SALT, .previous_end = BASE - 64};

    memset(image, 0, sizeof(image));
    journal_seal_header(&header);
    memcpy(image, &header, sizeof(header));
    end = BASE;
    count = 0;
}

/* Sizes of all kinds, up to more than a window; the time of record i is 1000 + i. */
static void fill_image(void)
{
    struct test_random random;

    begin_image();
    test_random_init(&random, test_seed());
    while (BASE + BYTES - JOURNAL_HEADER_BYTES - end > (UINT64_C(1) << 20)) {
        uint64_t kind = test_random_below(&random, 100);
        uint64_t most = kind < 90 ? 200 : kind < 99 ? 20000 : 400000;

        add_record((uint32_t)test_random_below(&random, most),
                   test_random_below(&random, 10) == 0 ? RECORD_PADDING : RECORD_COMMITTED,
                   1000 + count);
    }
}

static void write_file(size_t bytes)
{
    if (fd >= 0)
        close(fd);
    fd = memfd_create("journal", MFD_CLOEXEC);
    REQUIRE(fd >= 0);
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(fd, image + done, bytes - done, (off_t)done);

        REQUIRE(n > 0);
        done += (size_t)n;
    }
}

static void forget_file(void)
{
    close(fd);
    fd = -1;
}

static struct journal_file open_file(void)
{
    struct journal_file file;

    REQUIRE_OK(journal_file_open(&file, fd, BASE, UINT32_MAX, NULL));
    return file;
}

/* Walks the file as far as its records chain, and compares every byte with the image. */
static uint64_t walk(struct journal_file *file, uint64_t from, uint64_t limit, unsigned flags)
{
    struct journal_record record;
    uint64_t offset = from;

    for (;;) {
        int rc = journal_file_look(file, offset, limit, flags, &record, NULL);
        bool moved = rc == JOURNAL_LOOK_LATER;

        if (moved)
            rc = journal_file_look(file, offset, limit, 0, &record, NULL);
        if (rc != JOURNAL_LOOK_RECORD) {
            CHECK_INT_EQ(rc, JOURNAL_LOOK_NONE);
            return offset;
        }
        CHECK_EQ(record.offset, offset);
        CHECK(record.padding ||
              memcmp(record.payload, at(offset) + RECORD_HEADER, record.length) == 0);
        offset = journal_record_end(&record);
    }
}

TEST(every_record_is_returned_whole_wherever_the_windows_edge_falls)
{
    fill_image();
    write_file(BYTES);
    for (int round = 0; round < 3; round++) {
        struct journal_file file = open_file();

        CHECK_EQ(walk(&file, BASE, UINT64_MAX, round == 1 ? JOURNAL_LOOK_STAY : 0), end);
        CHECK_EQ(file.stop, JOURNAL_STOP_ZERO);
        /* Backwards, and again. */
        CHECK_EQ(walk(&file, BASE, end, 0), end);
        CHECK_EQ(file.stop, JOURNAL_STOP_LIMIT);
        journal_file_close(&file);
        journal_file_close(&file);
    }
    forget_file();
}

TEST(records_stay_valid_while_the_window_stays)
{
    struct journal_record records[4096];
    struct journal_file file;
    uint64_t offset = BASE;
    uint32_t kept = 0;

    begin_image();
    for (int i = 0; i < 6000; i++)
        add_record(60, RECORD_COMMITTED, 1);
    write_file(BYTES);
    file = open_file();
    while (kept < COUNT_OF(records) &&
           journal_file_look(&file, offset, UINT64_MAX, kept ? JOURNAL_LOOK_STAY : 0,
                             &records[kept], NULL) == JOURNAL_LOOK_RECORD)
        offset = journal_record_end(&records[kept++]);
    CHECK_EQ(kept, 256 * 1024 / 128);
    for (uint32_t i = 0; i < kept; i++)
        CHECK(memcmp(records[i].payload, at(records[i].offset) + RECORD_HEADER, 60) == 0);
    CHECK_INT_EQ(journal_file_look(&file, offset, UINT64_MAX, JOURNAL_LOOK_STAY, &records[0], NULL),
                 JOURNAL_LOOK_LATER);
    journal_file_close(&file);
    forget_file();
}

/* What is above the limit may change: it is not even read, and read afresh when the limit has moved. */
TEST(nothing_above_the_limit_gets_into_the_window)
{
    struct journal_record record;
    struct journal_file file;
    uint64_t limit;

    begin_image();
    add_record(100, RECORD_COMMITTED, 1);
    limit = end;
    write_file(BYTES);
    file = open_file();
    CHECK_EQ(walk(&file, BASE, limit, 0), limit);
    CHECK_EQ(file.stop, JOURNAL_STOP_LIMIT);
    add_record(5000, RECORD_COMMITTED, 2);
    REQUIRE(pwrite(fd, image, BYTES, 0) == (ssize_t)BYTES);
    CHECK_EQ(walk(&file, limit, end, 0), end);
    /* A record that passes the limit is none. */
    CHECK_INT_EQ(journal_file_look(&file, limit, end - 64, 0, &record, NULL), JOURNAL_LOOK_NONE);
    CHECK_EQ(file.stop, JOURNAL_STOP_LENGTH);
    CHECK_INT_EQ(journal_file_look(&file, limit, limit + 64, 0, &record, NULL), JOURNAL_LOOK_NONE);
    CHECK_EQ(file.stop, JOURNAL_STOP_LENGTH);
    CHECK_INT_EQ(journal_file_look(&file, limit, limit, 0, &record, NULL), JOURNAL_LOOK_NONE);
    CHECK_EQ(file.stop, JOURNAL_STOP_LIMIT);
    CHECK_INT_EQ(journal_file_look(&file, BASE - 64, end, 0, &record, NULL), JOURNAL_LOOK_NONE);
    CHECK_INT_EQ(journal_file_look(&file, BASE + 8, end, 0, &record, NULL), JOURNAL_LOOK_NONE);
    journal_file_close(&file);
    forget_file();
}

static uint64_t offset_of(uint32_t number)
{
    uint64_t offset = BASE;

    for (uint32_t i = 0; i < number; i++)
        offset += record_size(((struct record *)(void *)at(offset))->length);
    return offset;
}

TEST(damage_is_stepped_over_to_the_next_record_that_holds)
{
    struct journal_record record;
    struct journal_file file;
    uint64_t damaged, next;

    fill_image();
    for (uint32_t number = 1; number < count - 1; number += 1 + count / 40) {
        unsigned char saved;

        damaged = offset_of(number);
        next = offset_of(number + 1);
        saved = at(damaged)[16];
        at(damaged)[16] ^= 0x40; /* its time: neither stamp nor length */
        write_file(BYTES);
        file = open_file();
        test_context("record %u ", number);
        CHECK_EQ(walk(&file, BASE, UINT64_MAX, 0), damaged);
        CHECK_EQ(file.stop, JOURNAL_STOP_CRC);
        CHECK_INT_EQ(journal_file_find(&file, damaged, UINT64_MAX, &record, NULL),
                     JOURNAL_LOOK_RECORD);
        CHECK_EQ(record.offset, next);
        CHECK_INT_EQ(journal_file_find(&file, damaged + 1, UINT64_MAX, &record, NULL),
                     JOURNAL_LOOK_RECORD);
        CHECK_EQ(record.offset, next);
        CHECK_EQ(walk(&file, next, UINT64_MAX, 0), end);
        CHECK_INT_EQ(journal_file_find(&file, damaged, next, &record, NULL), JOURNAL_LOOK_NONE);
        at(damaged)[16] = saved;
        journal_file_close(&file);
    }
    test_context(NULL);
    write_file(BYTES);
    file = open_file();
    CHECK_INT_EQ(journal_file_find(&file, 0, UINT64_MAX, &record, NULL), JOURNAL_LOOK_RECORD);
    CHECK_EQ(record.offset, BASE);
    CHECK_INT_EQ(journal_file_find(&file, end, UINT64_MAX, &record, NULL), JOURNAL_LOOK_NONE);
    CHECK_EQ(file.stop, JOURNAL_STOP_END);
    journal_file_close(&file);
    forget_file();
}

/* A length that cannot be is damage, and costs no memory. */
TEST(absurd_lengths_are_neither_believed_nor_read)
{
    static const uint32_t lengths[] = {UINT32_MAX, UINT32_MAX - 31, BYTES, BYTES - 4096 - 31};
    struct journal_record record;
    struct journal_file file;

    begin_image();
    add_record(100, RECORD_COMMITTED, 1);
    add_record(100, RECORD_COMMITTED, 1);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        memcpy(at(BASE) + 8, &lengths[i], 4);
        write_file(BYTES);
        REQUIRE_OK(journal_file_open(&file, fd, BASE, 1000, NULL));
        CHECK_INT_EQ(journal_file_look(&file, BASE, UINT64_MAX, 0, &record, NULL),
                     JOURNAL_LOOK_NONE);
        CHECK_EQ(file.stop, JOURNAL_STOP_LENGTH);
        CHECK_EQ(file.room, 256 * 1024);
        CHECK_INT_EQ(journal_file_find(&file, BASE, UINT64_MAX, &record, NULL),
                     JOURNAL_LOOK_RECORD);
        CHECK_EQ(record.offset, BASE + 192);
        journal_file_close(&file);
    }
    /* An honest one that is longer than the caller takes. */
    begin_image();
    add_record(1001, RECORD_COMMITTED, 1);
    write_file(BYTES);
    REQUIRE_OK(journal_file_open(&file, fd, BASE, 1000, NULL));
    CHECK_INT_EQ(journal_file_look(&file, BASE, UINT64_MAX, 0, &record, NULL), JOURNAL_LOOK_NONE);
    CHECK_EQ(file.stop, JOURNAL_STOP_LENGTH);
    journal_file_close(&file);
    forget_file();
}

TEST(a_file_cut_anywhere_gives_what_is_left)
{
    struct journal_file file;

    begin_image();
    for (int i = 0; i < 5; i++)
        add_record(90, RECORD_COMMITTED, 1);
    for (size_t bytes = JOURNAL_HEADER_BYTES; bytes <= JOURNAL_HEADER_BYTES + 700; bytes++) {
        uint64_t left = bytes - JOURNAL_HEADER_BYTES;
        /* A record takes 128 bytes, of which the last six are not its own. */
        uint64_t whole = left < 122 ? 0 : (left - 122) / 128 + 1;

        write_file(bytes);
        file = open_file();
        test_context("%zu bytes ", bytes);
        CHECK_EQ(walk(&file, BASE, UINT64_MAX, 0), BASE + 128 * (whole < 5 ? whole : 5));
        journal_file_close(&file);
    }
    test_context(NULL);
    for (size_t bytes = 0; bytes < JOURNAL_HEADER_BYTES; bytes += 511) {
        write_file(bytes);
        CHECK_ERR(journal_file_open(&file, fd, BASE, UINT32_MAX, NULL), SHMQ_ECORRUPT);
    }
    forget_file();
}

TEST(a_file_that_gets_shorter_under_the_reader_ends_there)
{
    struct journal_record record;
    struct journal_file file;

    fill_image();
    write_file(BYTES);
    file = open_file();
    CHECK_INT_EQ(journal_file_look(&file, BASE, UINT64_MAX, 0, &record, NULL), JOURNAL_LOOK_RECORD);
    REQUIRE(ftruncate(fd, JOURNAL_HEADER_BYTES + 300000) == 0);
    CHECK(walk(&file, BASE, UINT64_MAX, 0) <= BASE + 300000);
    REQUIRE(ftruncate(fd, 0) == 0);
    CHECK_INT_EQ(journal_file_look(&file, offset_of(count - 1), UINT64_MAX, 0, &record, NULL),
                 JOURNAL_LOOK_NONE);
    CHECK_EQ(file.stop, JOURNAL_STOP_END);
    journal_file_close(&file);
    forget_file();
}

TEST(wrong_headers_are_refused_and_a_known_one_can_be_given)
{
    struct error_buffer why;
    struct journal_file file;

    begin_image();
    add_record(10, RECORD_COMMITTED, 1000);
    write_file(BYTES);
    CHECK_ERR(journal_file_open(&file, fd, BASE + 64, UINT32_MAX, &why), SHMQ_ECORRUPT);
    image[100] ^= 1;
    write_file(BYTES);
    CHECK_ERR(journal_file_open(&file, fd, BASE, UINT32_MAX, &why), SHMQ_ECORRUPT);
    CHECK_CONTAINS(why.text, "checksum");
    struct journal_header known = {.base = BASE, .salt = SALT};

    REQUIRE_OK(journal_file_open_as(&file, fd, &known, UINT32_MAX, &why));
    CHECK_EQ(walk(&file, BASE, UINT64_MAX, 0), end);
    journal_file_close(&file);
    known.base = UINT64_MAX - 63;
    CHECK_ERR(journal_file_open_as(&file, fd, &known, UINT32_MAX, &why), SHMQ_ECORRUPT);
    CHECK_ERR(journal_file_open(&file, -1, BASE, UINT32_MAX, &why), SHMQ_ESYS);
    /* Written only: it opens nothing, and says why. */
    int write_only = open("/dev/null", O_WRONLY | O_CLOEXEC);

    CHECK(journal_file_open(&file, write_only, BASE, UINT32_MAX, &why) < 0);
    CHECK(why.text[0] != '\0');
    close(write_only);
    forget_file();
}

TEST(an_error_of_the_disk_is_an_error_and_passes)
{
    struct journal_record record;
    struct error_buffer why;
    struct journal_file file;

    begin_image();
    add_record(10, RECORD_COMMITTED, 1000);
    write_file(BYTES);
    file = open_file();
    REQUIRE_OK(fault_arm("journal.file.read", "error", NULL));
    CHECK_ERR(journal_file_look(&file, BASE, UINT64_MAX, 0, &record, &why), SHMQ_EIO);
    CHECK(why.text[0] != '\0');
    fault_disarm();
    CHECK_INT_EQ(journal_file_look(&file, BASE, UINT64_MAX, 0, &record, &why), JOURNAL_LOOK_RECORD);
    journal_file_close(&file);
    forget_file();
}

/* Any byte of a file may be wrong: whatever is returned holds, and nothing outside is touched. */
TEST(random_damage_returns_nothing_that_does_not_hold)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    begin_image();
    while (count < 200)
        add_record((uint32_t)test_random_below(&random, 300), RECORD_COMMITTED, count);
    static unsigned char whole[BYTES];

    memcpy(whole, image, sizeof(whole));
    for (int round = 0; round < 200; round++) {
        struct journal_record record;
        uint64_t offset = BASE;

        memcpy(image, whole, sizeof(image));
        for (int i = 0; i < 8; i++)
            at(BASE)[test_random_below(&random, end - BASE)] =
                (unsigned char)test_random_next(&random);
        write_file(JOURNAL_HEADER_BYTES + (end - BASE));
        struct journal_file file = open_file();

        while (journal_file_find(&file, offset, UINT64_MAX, &record, NULL) == JOURNAL_LOOK_RECORD) {
            CHECK_EQ(journal_record_crc(at(record.offset), RECORD_COMMITTED),
                     ((struct record *)(void *)at(record.offset))->crc32c);
            CHECK(record.offset >= offset);
            offset = journal_record_end(&record);
        }
        journal_file_close(&file);
    }
    forget_file();
}

TEST_MAIN("journal_file", T(every_record_is_returned_whole_wherever_the_windows_edge_falls),
          T(records_stay_valid_while_the_window_stays),
          T(nothing_above_the_limit_gets_into_the_window),
          T(damage_is_stepped_over_to_the_next_record_that_holds),
          T(absurd_lengths_are_neither_believed_nor_read),
          T(a_file_cut_anywhere_gives_what_is_left),
          T(a_file_that_gets_shorter_under_the_reader_ends_there),
          T(wrong_headers_are_refused_and_a_known_one_can_be_given),
          T(an_error_of_the_disk_is_an_error_and_passes),
          T(random_damage_returns_nothing_that_does_not_hold))
