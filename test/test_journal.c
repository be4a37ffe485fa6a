/* SPDX-License-Identifier: Apache-2.0 */
/* Reading journal images: what holds, where a chain ends, and that no byte may be wrong unnoticed. The
 * images are made by hand here, from the format's description, and not by the writer. */
#include "libshmq/crc32c.h"
#include "libshmq/journal_read.h"
#include "libshmq/record.h"
#include "test/support/test.h"

#include <string.h>

#define BASE       UINT64_C(0x7000)
#define SALT       UINT64_C(0xfeedfacecafe0040)
#define IMAGE_ROOM (JOURNAL_HEADER_BYTES + 8192)

struct image {
    unsigned char bytes[IMAGE_ROOM];
    size_t length;
    uint64_t end; /* offset behind the last record */
};

static void begin_image(struct image *image)
{
    struct journal_header header = {.base = BASE, .salt = SALT, .previous_end = 0x6fc0};

    memset(image, 0, sizeof(*image));
    journal_seal_header(&header);
    memcpy(image->bytes, &header, sizeof(header));
    image->length = sizeof(image->bytes);
    image->end = BASE;
}

static void put(unsigned char *at, const void *value, size_t length)
{
    memcpy(at, value, length);
}

/* Appends a record whose payload bytes are all `fill`. */
static void add_record(struct image *image, uint32_t length, unsigned char fill, uint64_t state)
{
    unsigned char *at = image->bytes + JOURNAL_HEADER_BYTES + (image->end - BASE);
    uint64_t stamp = (image->end ^ SALT) | state;
    uint64_t timestamp = 1000 + fill;
    uint32_t crc;

    memset(at + 32, fill, length);
    put(at, &stamp, 8);
    put(at + 8, &length, 4);
    put(at + 16, &timestamp, 8);
    crc = crc32c(0, at + 8, 4);
    crc = crc32c(crc, at + 16, state == RECORD_COMMITTED ? 16 + length : 16);
    put(at + 12, &crc, 4);
    image->end += (32 + length + 63) / 64 * 64;
}

struct seen {
    struct journal_record records[16];
    size_t count;
    size_t stop_at; /* the callback returns 5 at this one; 0: never */
};

static int see_record(void *context, const struct journal_record *record)
{
    struct seen *seen = context;

    REQUIRE(seen->count < COUNT_OF(seen->records));
    seen->records[seen->count++] = *record;
    return seen->count == seen->stop_at ? 5 : 0;
}

static struct journal_scan scan_image(const unsigned char *bytes, size_t length, uint64_t limit,
                                      struct seen *seen)
{
    struct journal_header header;
    struct journal_scan scan = {.end = 0};
    size_t stop_at = seen->stop_at;
    int rc;

    memset(seen, 0, sizeof(*seen));
    seen->stop_at = stop_at;
    REQUIRE_OK(journal_check_header(bytes, length, BASE, &header, NULL));
    rc = journal_scan(bytes, length, &header, BASE, limit, see_record, seen, &scan);
    CHECK_INT_EQ(rc, stop_at && seen->count == stop_at ? 5 : 0);
    return scan;
}

static struct image image;
static struct seen seen;

static void make_usual(void)
{
    begin_image(&image);
    add_record(&image, 0, 1, RECORD_COMMITTED);
    add_record(&image, 32, 2, RECORD_COMMITTED);
    add_record(&image, 100, 3, RECORD_PADDING);
    add_record(&image, 33, 4, RECORD_COMMITTED);
}

TEST(records_chain_and_padding_is_skipped)
{
    struct journal_scan scan;

    make_usual();
    scan = scan_image(image.bytes, image.length, UINT64_MAX, &seen);
    CHECK_EQ(seen.count, 3);
    CHECK_EQ(scan.records, 3);
    CHECK_EQ(scan.end, image.end);
    CHECK_EQ(scan.stop, JOURNAL_STOP_ZERO);
    CHECK_EQ(scan.max_timestamp_ns, 1004);
    CHECK_EQ(seen.records[0].offset, BASE);
    CHECK_EQ(seen.records[1].offset, BASE + 64);
    CHECK_EQ(seen.records[2].offset, BASE + 64 + 64 + 192);
    CHECK_EQ(seen.records[2].length, 33);
    for (int i = 0; i < 33; i++)
        CHECK_EQ(seen.records[2].payload[i], 4);
}

TEST(a_callback_ends_the_scan_and_a_limit_too)
{
    struct journal_scan scan;

    make_usual();
    seen.stop_at = 2;
    scan = scan_image(image.bytes, image.length, UINT64_MAX, &seen);
    CHECK_EQ(seen.count, 2);
    CHECK_EQ(scan.end, BASE + 64); /* the refused record is not counted */
    seen.stop_at = 0;
    scan = scan_image(image.bytes, image.length, BASE + 128, &seen);
    CHECK_EQ(scan.stop, JOURNAL_STOP_LIMIT);
    CHECK_EQ(seen.count, 2);
    scan = scan_image(image.bytes, image.length, BASE + 192, &seen); /* inside the padding */
    CHECK_EQ(scan.stop, JOURNAL_STOP_LENGTH);
    CHECK_EQ(scan.end, BASE + 128);
}

/* Every bit of the header, whatever it means, and of the zeros behind it. */
TEST(each_flipped_bit_of_the_header_is_noticed)
{
    struct journal_header header;

    make_usual();
    for (size_t bit = 0; bit < JOURNAL_HEADER_BYTES * 8; bit++) {
        int rc;

        image.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        rc = journal_check_header(image.bytes, image.length, BASE, &header, NULL);
        if (rc != SHMQ_ECORRUPT && rc != SHMQ_EVERSION)
            FAIL("bit %zu: %d", bit, rc);
        image.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    CHECK_OK(journal_check_header(image.bytes, image.length, BASE, &header, NULL));
    CHECK_ERR(journal_check_header(image.bytes, image.length, BASE + 64, &header, NULL),
              SHMQ_ECORRUPT);
    for (size_t length = 0; length < JOURNAL_HEADER_BYTES; length++)
        CHECK_ERR(journal_check_header(image.bytes, length, BASE, &header, NULL), SHMQ_ECORRUPT);
}

TEST(another_version_is_named)
{
    struct error_buffer why;
    struct journal_header header;
    uint32_t version = 7;

    make_usual();
    memcpy(image.bytes + offsetof(struct journal_header, version), &version, sizeof(version));
    CHECK_ERR(journal_check_header(image.bytes, image.length, BASE, &header, &why), SHMQ_EVERSION);
    CHECK_CONTAINS(why.text, "version 7");
    CHECK_CONTAINS(why.text, "version 1");
}

/* The last record: 33 bytes of payload and a header; what lies behind up to the unit is not covered. */
TEST(each_flipped_bit_of_a_record_ends_the_chain_there)
{
    size_t start;

    make_usual();
    start = JOURNAL_HEADER_BYTES + (BASE + 64 + 64 + 192 - BASE);
    for (size_t bit = 0; bit < (32 + 33) * 8; bit++) {
        struct journal_scan scan;

        image.bytes[start + bit / 8] ^= (unsigned char)(1u << bit % 8);
        scan = scan_image(image.bytes, image.length, UINT64_MAX, &seen);
        test_context("bit %zu ", bit);
        CHECK_EQ(seen.count, 2);
        CHECK_EQ(scan.end, BASE + 64 + 64 + 192);
        CHECK(scan.stop != JOURNAL_STOP_LIMIT && scan.stop != JOURNAL_STOP_ZERO);
        image.bytes[start + bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

/* On the heap and of exactly that length, so that AddressSanitizer sees one byte too much. */
TEST(an_image_cut_at_every_byte_gives_a_prefix)
{
    size_t whole = JOURNAL_HEADER_BYTES;

    make_usual();
    whole += image.end - BASE;
    for (size_t length = JOURNAL_HEADER_BYTES; length <= whole; length++) {
        unsigned char *cut = malloc(length);
        size_t left = length - JOURNAL_HEADER_BYTES;
        struct journal_scan scan;

        REQUIRE(cut != NULL);
        memcpy(cut, image.bytes, length);
        scan = scan_image(cut, length, UINT64_MAX, &seen);
        test_context("length %zu ", length);
        /* Each holds once its payload is there: its last unit need not be. */
        CHECK_EQ(seen.count, (left >= 32) + (left >= 64 + 64) + (left >= 64 + 64 + 192 + 32 + 33));
        CHECK(scan.stop == JOURNAL_STOP_END || scan.stop == JOURNAL_STOP_LENGTH);
        free(cut);
    }
}

TEST(lengths_that_lie_do_not_lead_outside)
{
    static const uint32_t LENGTHS[] = {UINT32_MAX, UINT32_MAX - 31, UINT32_MAX - 63, 1u << 31,
                                       IMAGE_ROOM, 8192 - 31,       8192 - 32};

    for (size_t i = 0; i < COUNT_OF(LENGTHS); i++) {
        struct journal_scan scan;

        begin_image(&image);
        add_record(&image, 8, 1, RECORD_COMMITTED);
        memcpy(image.bytes + JOURNAL_HEADER_BYTES + 8, &LENGTHS[i], 4);
        scan = scan_image(image.bytes, image.length, UINT64_MAX, &seen);
        CHECK_EQ(seen.count, 0);
        CHECK_EQ(scan.stop, LENGTHS[i] <= 8192 - 32 ? JOURNAL_STOP_CRC : JOURNAL_STOP_LENGTH);
    }
}

TEST(a_record_of_another_place_or_salt_does_not_count)
{
    struct journal_scan scan;

    make_usual();
    /* A whole, valid record, one unit further on than it was written for. */
    memmove(image.bytes + JOURNAL_HEADER_BYTES + 64, image.bytes + JOURNAL_HEADER_BYTES, 64);
    scan = scan_image(image.bytes, image.length, UINT64_MAX, &seen);
    CHECK_EQ(seen.count, 1);
    CHECK_EQ(scan.stop, JOURNAL_STOP_STAMP);
}

TEST(the_next_record_behind_damage_is_found)
{
    struct journal_header header;
    struct journal_record found;

    make_usual();
    REQUIRE_OK(journal_check_header(image.bytes, image.length, BASE, &header, NULL));
    image.bytes[JOURNAL_HEADER_BYTES + 64 + 40] ^= 1;
    CHECK(journal_find_record(image.bytes, image.length, &header, BASE, &found));
    CHECK_EQ(found.offset, BASE);
    CHECK(journal_find_record(image.bytes, image.length, &header, BASE + 64, &found));
    CHECK(found.padding);
    CHECK_EQ(found.offset, BASE + 128);
    CHECK(journal_find_record(image.bytes, image.length, &header, BASE + 192, &found));
    CHECK_EQ(found.offset, BASE + 320);
    CHECK(!journal_find_record(image.bytes, image.length, &header, BASE + 384, &found));
    CHECK(!journal_find_record(image.bytes, image.length, &header, BASE - 64, &found));
    CHECK(!journal_find_record(image.bytes, image.length, &header, BASE + 1, &found));
    CHECK(!journal_find_record(image.bytes, image.length, &header, UINT64_MAX - 63, &found));
}

TEST(names_are_exactly_twenty_digits)
{
    static const char *const BAD[] = {"",
                                      "1.log",
                                      "0000000000000000004096.log",
                                      "00000000000000004096.tmp",
                                      "00000000000000004096.log~",
                                      "00000000000000004096",
                                      "0000000000000000409x.log",
                                      "99999999999999999999.log",
                                      "-0000000000000004096.log"};
    char name[JOURNAL_NAME_BYTES];
    uint64_t base = 0;

    journal_format_name(4096, name);
    CHECK_STR_EQ(name, "00000000000000004096.log");
    CHECK(journal_parse_name(name, &base));
    CHECK_EQ(base, 4096);
    journal_format_name(UINT64_MAX, name);
    CHECK(journal_parse_name(name, &base));
    CHECK_EQ(base, UINT64_MAX);
    for (size_t i = 0; i < COUNT_OF(BAD); i++)
        CHECK(!journal_parse_name(BAD[i], &base));
    CHECK_EQ(base, UINT64_MAX);
}

TEST_MAIN("journal", T(records_chain_and_padding_is_skipped),
          T(a_callback_ends_the_scan_and_a_limit_too), T(each_flipped_bit_of_the_header_is_noticed),
          T(another_version_is_named), T(each_flipped_bit_of_a_record_ends_the_chain_there),
          T(an_image_cut_at_every_byte_gives_a_prefix), T(lengths_that_lie_do_not_lead_outside),
          T(a_record_of_another_place_or_salt_does_not_count),
          T(the_next_record_behind_damage_is_found), T(names_are_exactly_twenty_digits))
