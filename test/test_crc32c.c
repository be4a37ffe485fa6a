/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C: published vectors, the instruction against the tables, every way to cut. */
#include "libshmq/crc32c.h"
#include "test/support/test.h"

#include <pthread.h>
#include <string.h>

#define DATA_BYTES 8192

struct vector {
    const char *name;
    unsigned char bytes[48];
    size_t length;
    uint32_t crc;
};

/* RFC 3720, appendix B.4, and the catalogue's check value. */
static void make_vectors(struct vector vectors[6])
{
    static const unsigned char ISCSI_READ[48] = {
        0x01, 0xc0, 0, 0, 0, 0, 0,    0, 0,    0, 0, 0,    0, 0, 0, 0,
        0x14, 0,    0, 0, 0, 0, 0x04, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
        0x28, 0,    0, 0, 0, 0, 0,    0, 0x02, 0, 0, 0,    0, 0, 0, 0};

    memset(vectors, 0, 6 * sizeof(vectors[0]));
    vectors[0] = (struct vector){.name = "check", .length = 9, .crc = 0xe3069283};
    memcpy(vectors[0].bytes, "123456789", 9);
    vectors[1] = (struct vector){.name = "zeros", .length = 32, .crc = 0x8a9136aa};
    vectors[2] = (struct vector){.name = "ones", .length = 32, .crc = 0x62a8ab43};
    memset(vectors[2].bytes, 0xff, 32);
    vectors[3] = (struct vector){.name = "ascending", .length = 32, .crc = 0x46dd794e};
    vectors[4] = (struct vector){.name = "descending", .length = 32, .crc = 0x113fdb5c};
    for (size_t i = 0; i < 32; i++) {
        vectors[3].bytes[i] = (unsigned char)i;
        vectors[4].bytes[i] = (unsigned char)(31 - i);
    }
    vectors[5] = (struct vector){.name = "iscsi", .length = 48, .crc = 0xd9963a56};
    memcpy(vectors[5].bytes, ISCSI_READ, 48);
}

/* The definition, bit by bit: shares nothing with the code under test. */
static uint32_t crc_by_definition(const unsigned char *data, size_t length)
{
    uint32_t raw = 0xffffffff;

    for (size_t i = 0; i < length; i++) {
        raw ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            raw = (raw >> 1) ^ ((raw & 1) ? 0x82f63b78 : 0);
    }
    return ~raw;
}

static unsigned char *random_data(void)
{
    static unsigned char data[DATA_BYTES + 64];
    struct test_random random;

    test_random_init(&random, test_seed());
    test_random_fill(&random, data, sizeof(data));
    return data;
}

TEST(published_vectors_hold_for_both_ways)
{
    struct vector vectors[6];

    make_vectors(vectors);
    for (size_t i = 0; i < 6; i++) {
        test_context("%s ", vectors[i].name);
        CHECK_EQ(crc32c(0, vectors[i].bytes, vectors[i].length), vectors[i].crc);
        CHECK_EQ(crc32c_portable(0, vectors[i].bytes, vectors[i].length), vectors[i].crc);
    }
}

TEST(nothing_added_changes_nothing)
{
    CHECK_EQ(crc32c(0, NULL, 0), 0);
    CHECK_EQ(crc32c(0x12345678, NULL, 0), 0x12345678);
    CHECK_EQ(crc32c_portable(0x12345678, NULL, 0), 0x12345678);
}

/* All lengths through the first two rounds of three lanes, and all alignments of a word. */
TEST(every_length_and_alignment_agrees_with_the_definition)
{
    const unsigned char *data = random_data();

    for (size_t length = 0; length <= 1600; length++) {
        const unsigned char *at = data + length % 8;
        uint32_t expected = crc_by_definition(at, length);

        test_context("length %zu ", length);
        REQUIRE(crc32c(0, at, length) == expected);
        REQUIRE(crc32c_portable(0, at, length) == expected);
        REQUIRE(crc32c_by_instruction(0, at, length) == expected);
        /* A record's head: a word, then the rest, which lies elsewhere. */
        if (length >= 4) {
            uint32_t word;

            memcpy(&word, at, sizeof(word));
            REQUIRE(crc32c_word(word, at + 4, length - 4) == expected);
            if (length >= 20) {
                uint64_t head[2];

                memcpy(head, at + 4, sizeof(head));
                REQUIRE(crc32c_record(word, head, at + 20, length - 20) == expected);
            }
        }
    }
    CHECK_EQ(crc32c(0, data, DATA_BYTES), crc_by_definition(data, DATA_BYTES));
    CHECK_EQ(crc32c_by_instruction(0, data, DATA_BYTES), crc_by_definition(data, DATA_BYTES));
}

TEST(a_sum_taken_in_two_parts_equals_the_whole)
{
    const unsigned char *data = random_data();
    uint32_t whole = crc_by_definition(data, 3000);

    for (size_t cut = 0; cut <= 3000; cut += 7) {
        test_context("cut %zu ", cut);
        REQUIRE(crc32c(crc32c(0, data, cut), data + cut, 3000 - cut) == whole);
        REQUIRE(crc32c_portable(crc32c(0, data, cut), data + cut, 3000 - cut) == whole);
    }
}

TEST(one_flipped_bit_anywhere_is_seen)
{
    unsigned char *data = random_data();
    uint32_t before = crc32c(0, data, 1024);

    for (size_t bit = 0; bit < 1024 * 8; bit += 5) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        REQUIRE(crc32c(0, data, 1024) != before);
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    CHECK_EQ(crc32c(0, data, 1024), before);
}

struct race {
    pthread_barrier_t start;
    uint32_t results[4];
};

struct racer {
    struct race *race;
    size_t index;
};

static void *sum_at_once(void *argument)
{
    struct racer *racer = argument;

    (void)pthread_barrier_wait(&racer->race->start);
    racer->race->results[racer->index] = crc32c(0, "123456789", 9);
    return NULL;
}

/* Each test is a process of its own, so this one's first call is a first call. */
TEST(first_calls_of_several_threads_agree)
{
    struct race race;
    struct racer racers[4];
    pthread_t threads[4];

    REQUIRE(pthread_barrier_init(&race.start, NULL, 4) == 0);
    for (size_t i = 0; i < 4; i++) {
        racers[i] = (struct racer){.race = &race, .index = i};
        REQUIRE(pthread_create(&threads[i], NULL, sum_at_once, &racers[i]) == 0);
    }
    for (size_t i = 0; i < 4; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        CHECK_EQ(race.results[i], 0xe3069283);
    }
    (void)pthread_barrier_destroy(&race.start);
    test_note("instruction: %s", crc32c_is_accelerated() ? "used" : "none on this machine");
}

TEST_MAIN("crc32c", T(published_vectors_hold_for_both_ways), T(nothing_added_changes_nothing),
          T(every_length_and_alignment_agrees_with_the_definition),
          T(a_sum_taken_in_two_parts_equals_the_whole), T(one_flipped_bit_anywhere_is_seen),
          T(first_calls_of_several_threads_agree));
