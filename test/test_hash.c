/* SPDX-License-Identifier: Apache-2.0 */
/* murmur2 against the vectors of Kafka's own tests, and the modulo without a division. */
#include "libshmq/hash.h"
#include "test/support/test.h"

#include <string.h>

TEST(murmur2_says_what_kafka_says)
{
    static const struct {
        const char *key;
        int32_t hash;
    } VECTORS[] = {
        {"21", -973932308},
        {"foobar", -790332482},
        {"a-little-bit-long-string", -985981536},
        {"a-little-bit-longer-string", -1486304829},
        {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
        {"abc", 479470107},
    };

    for (size_t i = 0; i < COUNT_OF(VECTORS); i++) {
        test_context("%s ", VECTORS[i].key);
        CHECK_INT_EQ((int32_t)hash_murmur2(VECTORS[i].key, strlen(VECTORS[i].key)),
                     VECTORS[i].hash);
    }
}

TEST(murmur2_reads_only_the_key_wherever_it_lies)
{
    char buffer[64];

    for (size_t length = 0; length <= 9; length++) {
        uint32_t expected = hash_murmur2("aligned!!", length);

        for (size_t shift = 0; shift < 8; shift++) {
            memset(buffer, 0x5a, sizeof(buffer));
            memcpy(buffer + shift, "aligned!!", length);
            CHECK_EQ(hash_murmur2(buffer + shift, length), expected);
        }
    }
}

/* Bytes above 0x7f are unsigned in Kafka's tail (it masks with 0xff): -1 must not spread. */
TEST(murmur2_takes_bytes_as_unsigned)
{
    static const unsigned char HIGH[] = {0xff, 0xfe, 0xfd};
    uint32_t hash = UINT32_C(0x9747b28c) ^ 3;

    hash ^= UINT32_C(0xfd) << 16;
    hash ^= UINT32_C(0xfe) << 8;
    hash ^= UINT32_C(0xff);
    hash *= UINT32_C(0x5bd1e995);
    hash ^= hash >> 13;
    hash *= UINT32_C(0x5bd1e995);
    hash ^= hash >> 15;
    CHECK_EQ(hash_murmur2(HIGH, sizeof(HIGH)), hash);
}

TEST(to_positive_drops_the_sign_bit_only)
{
    CHECK_EQ(hash_to_positive(0), 0);
    CHECK_EQ(hash_to_positive(0x7fffffff), 0x7fffffff);
    CHECK_EQ(hash_to_positive(0x80000000), 0);
    CHECK_EQ(hash_to_positive(0xffffffff), 0x7fffffff);
    CHECK_EQ(hash_to_positive((uint32_t)-973932308), (uint32_t)(-973932308 & 0x7fffffff));
}

static void check_modulo(uint32_t n, uint32_t d)
{
    struct fastmod fastmod = fastmod_init(d);

    if (fastmod_apply(&fastmod, n) != n % d)
        FAIL("fastmod of %u by %u is %u, not %u", n, d, fastmod_apply(&fastmod, n), n % d);
}

TEST(fastmod_equals_the_division)
{
    struct test_random random;

    for (uint32_t d = 1; d <= 300; d++) {
        for (uint32_t n = 0; n <= 700; n++)
            check_modulo(n, d);
        for (uint32_t k = 0; k < 200; k++) {
            check_modulo(UINT32_MAX - k, d);
            check_modulo(UINT32_MAX / d * d - k, d); /* around a multiple */
        }
    }
    test_random_init(&random, test_seed());
    for (int i = 0; i < 1000000; i++) {
        uint32_t d = (uint32_t)test_random_next(&random) >> test_random_below(&random, 32);

        check_modulo((uint32_t)test_random_next(&random), d ? d : 1);
    }
    check_modulo(UINT32_MAX, UINT32_MAX);
    check_modulo(0, UINT32_MAX);
    CHECK_EQ(test_failures(), 0);
}

TEST(keys_go_to_kafkas_partitions)
{
    struct fastmod partitions = fastmod_init(6);

    /* (murmur2 & 0x7fffffff) % 6 of the vectors above. */
    CHECK_EQ(hash_choose_partition(&partitions, "21", 2), (-973932308 & 0x7fffffff) % 6);
    CHECK_EQ(hash_choose_partition(&partitions, "foobar", 6), (-790332482 & 0x7fffffff) % 6);
    CHECK_EQ(hash_choose_partition(&partitions, "abc", 3), 479470107 % 6);
}

TEST_MAIN("hash", T(murmur2_says_what_kafka_says), T(murmur2_reads_only_the_key_wherever_it_lies),
          T(murmur2_takes_bytes_as_unsigned), T(to_positive_drops_the_sign_bit_only),
          T(fastmod_equals_the_division), T(keys_go_to_kafkas_partitions));
