/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C three ways: eight tables (portable), the SSE4.2 instruction, the ARMv8 instruction.
 *
 * Which one this machine has is asked once, by the first call, and kept in a function pointer: ifunc
 * does the same without the load, but not on musl, and a constructor would run in every program that
 * links us whether it checks sums or not. The tables are built at the same moment.
 *
 * Inside this file a sum is `raw`: without the inversion that the public functions put before and
 * after.
 */
#include "libshmq/crc32c.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define POLYNOMIAL UINT32_C(0x82f63b78) /* bits reversed, as the whole algorithm */

typedef uint32_t (*crc_function)(uint32_t raw, const unsigned char *at, size_t length);

static uint32_t tables[8][256]; /* tables[k][b]: byte b, then k zero bytes */
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void build_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t raw = byte;

        for (int bit = 0; bit < 8; bit++)
            raw = (raw >> 1) ^ (raw & 1 ? POLYNOMIAL : 0);
        tables[0][byte] = raw;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int k = 1; k < 8; k++)
            tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xff];
}

static inline uint64_t load_u64(const unsigned char *at)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    return word;
}

static uint32_t raw_portable(uint32_t raw, const unsigned char *at, size_t length)
{
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word = load_u64(at) ^ raw;

        raw = tables[7][word & 0xff] ^ tables[6][(word >> 8) & 0xff] ^
              tables[5][(word >> 16) & 0xff] ^ tables[4][(word >> 24) & 0xff] ^
              tables[3][(word >> 32) & 0xff] ^ tables[2][(word >> 40) & 0xff] ^
              tables[1][(word >> 48) & 0xff] ^ tables[0][word >> 56];
    }
    for (; length > 0; at++, length--)
        raw = (raw >> 8) ^ tables[0][(raw ^ *at) & 0xff];
    return raw;
}

#if defined(__x86_64__)

#define WITH_CRC __attribute__((target("sse4.2,pclmul")))

/* The instruction takes three cycles but starts every cycle, so three lanes side by side run at three
 * times the speed of one. Afterwards a lane is moved over the bytes behind it: multiplied by x^(8n)
 * modulo the polynomial, which is one carry-less multiplication by a constant, reduced by the crc
 * instruction itself. The constants are x^(8n - 33), the 33 being what product and reduction add. */
#define LANE_BYTES 256
#define OVER_ONE   UINT64_C(0xb9e02b86) /* n = LANE_BYTES */
#define OVER_TWO   UINT64_C(0xdd7e3b0c) /* n = 2 * LANE_BYTES */

WITH_CRC static uint64_t move_lane(uint64_t raw, uint64_t over)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)raw),
                                           _mm_cvtsi64_si128((long long)over), 0);

    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

WITH_CRC static uint32_t raw_accelerated(uint32_t raw, const unsigned char *at, size_t length)
{
    uint64_t a = raw;

    for (; length >= 3 * LANE_BYTES; at += 3 * LANE_BYTES, length -= 3 * LANE_BYTES) {
        uint64_t b = 0;
        uint64_t c = 0;

        for (size_t i = 0; i < LANE_BYTES; i += 8) {
            a = _mm_crc32_u64(a, load_u64(at + i));
            b = _mm_crc32_u64(b, load_u64(at + LANE_BYTES + i));
            c = _mm_crc32_u64(c, load_u64(at + 2 * LANE_BYTES + i));
        }
        a = move_lane(a, OVER_TWO) ^ move_lane(b, OVER_ONE) ^ c;
    }
    for (; length >= 8; at += 8, length -= 8)
        a = _mm_crc32_u64(a, load_u64(at));
    for (; length > 0; at++, length--)
        a = _mm_crc32_u8((uint32_t)a, *at);
    return (uint32_t)a;
}

static int machine_has_crc(void)
{
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

#elif defined(__aarch64__)

/* The two compilers differ in the names, of the feature as well. */
#if defined(__clang__)
#define WITH_CRC           __attribute__((target("crc")))
#define CRC_U64(raw, word) __builtin_arm_crc32cd(raw, word)
#define CRC_U8(raw, byte)  __builtin_arm_crc32cb(raw, byte)
#else
#define WITH_CRC           __attribute__((target("+crc")))
#define CRC_U64(raw, word) __builtin_aarch64_crc32cx(raw, word)
#define CRC_U8(raw, byte)  __builtin_aarch64_crc32cb(raw, byte)
#endif

#define HWCAP_CRC32_BIT (1ul << 7) /* of AT_HWCAP: fixed by the kernel's ABI */

WITH_CRC static uint32_t raw_accelerated(uint32_t raw, const unsigned char *at, size_t length)
{
    for (; length >= 8; at += 8, length -= 8)
        raw = CRC_U64(raw, load_u64(at));
    for (; length > 0; at++, length--)
        raw = CRC_U8(raw, *at);
    return raw;
}

static int machine_has_crc(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_CRC32_BIT) != 0;
}

#else

#define raw_accelerated raw_portable

static int machine_has_crc(void)
{
    return 0;
}

#endif

static uint32_t raw_choose(uint32_t raw, const unsigned char *at, size_t length);

static _Atomic(crc_function) chosen = raw_choose;

static crc_function choose(void)
{
    crc_function function = machine_has_crc() ? raw_accelerated : raw_portable;

    (void)pthread_once(&tables_once, build_tables);
    /* ORDER crc-tables -> crc-use: the tables before the pointer that leads to them; pairs with the
     * acquire in crc32c(). Threads that race here store the same value. */
    atomic_store_explicit(&chosen, function, memory_order_release);
    return function;
}

static uint32_t raw_choose(uint32_t raw, const unsigned char *at, size_t length)
{
    return choose()(raw, at, length);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
    /* ORDER crc-tables -> crc-use: see choose(). */
    crc_function function = atomic_load_explicit(&chosen, memory_order_acquire);

    return ~function(~crc, data, length);
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t length)
{
    (void)pthread_once(&tables_once, build_tables);
    return ~raw_portable(~crc, data, length);
}

int crc32c_is_accelerated(void)
{
    return machine_has_crc();
}
