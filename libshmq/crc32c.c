/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C four ways: eight tables (portable), the SSE4.2 instruction, carry-less multiplication beside it, the
 * ARMv8 instruction.
 *
 * Which one this machine has is asked once, by the first call, and kept in a function pointer: ifunc
 * does the same without the load, but not on musl, and a constructor would run in every program that
 * links us whether it checks sums or not. The tables are built at the same moment.
 *
 * Inside this file a sum is `raw`: without the inversion that the public functions put before and
 * after.
 */
#include "libshmq/crc32c.h"

#include "libshmq/base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define POLYNOMIAL UINT32_C(0x82f63b78) /* bits reversed, as the whole algorithm */

typedef uint32_t crc_function(uint32_t raw, const unsigned char *at, size_t length);
typedef uint32_t crc_word_function(uint32_t raw, uint32_t word, const unsigned char *at,
                                   size_t length);

typedef uint32_t crc_record_function(uint32_t raw, uint32_t word, const uint64_t head[2],
                                     const unsigned char *at, size_t length);

struct crc_way {
    crc_function *bytes;
    crc_word_function *word; /* four bytes, then others: the head of a record */
    crc_record_function *record;
};

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

static uint32_t word_portable(uint32_t raw, uint32_t word, const unsigned char *at, size_t length)
{
    return raw_portable(raw_portable(raw, (const unsigned char *)&word, sizeof(word)), at, length);
}

static uint32_t record_portable(uint32_t raw, uint32_t word, const uint64_t head[2],
                                const unsigned char *at, size_t length)
{
    raw = word_portable(raw, word, (const unsigned char *)head, 2 * sizeof(head[0]));
    return raw_portable(raw, at, length);
}

#if defined(__x86_64__)

#define WITH_CRC __attribute__((target("sse4.2,pclmul")))

/* The instruction takes three cycles but starts every cycle, so three lanes side by side run at three
 * times the speed of one. Afterwards a lane is moved over the bytes behind it: multiplied by x^(8n)
 * modulo the polynomial, which is one carry-less multiplication by a constant, reduced by the crc
 * instruction itself. The constants are x^(8n - 33), the 33 being what product and reduction add. Lanes of
 * three lengths: long ones for speed, short ones for messages of a hundred bytes. */
#define LONG_LANE   256
#define MIDDLE_LANE 64
#define SHORT_LANE  32
#define OVER_32     UINT64_C(0xba4fc28e)
#define OVER_64     UINT64_C(0x9e4addf8)
#define OVER_128    UINT64_C(0x0d3b6092)
#define OVER_256    UINT64_C(0xb9e02b86)
#define OVER_512    UINT64_C(0xdd7e3b0c)

WITH_CRC static ALWAYS_INLINE uint64_t move_lane(uint64_t raw, uint64_t over)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)raw),
                                           _mm_cvtsi64_si128((long long)over), 0);

    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* Three lanes of `lane` bytes, a constant. */
WITH_CRC static ALWAYS_INLINE uint64_t three_lanes(uint64_t a, const unsigned char *at, size_t lane,
                                                   uint64_t over_one, uint64_t over_two)
{
    uint64_t b = 0;
    uint64_t c = 0;

    for (size_t i = 0; i < lane; i += 8) {
        a = _mm_crc32_u64(a, load_u64(at + i));
        b = _mm_crc32_u64(b, load_u64(at + lane + i));
        c = _mm_crc32_u64(c, load_u64(at + 2 * lane + i));
    }
    return move_lane(a, over_two) ^ move_lane(b, over_one) ^ c;
}

WITH_CRC static ALWAYS_INLINE uint32_t raw_inline(uint32_t raw, const unsigned char *at,
                                                  size_t length)
{
    uint64_t a = raw;

    for (; length >= 3 * LONG_LANE; at += 3 * LONG_LANE, length -= 3 * LONG_LANE)
        a = three_lanes(a, at, LONG_LANE, OVER_256, OVER_512);
    for (; length >= 3 * MIDDLE_LANE; at += 3 * MIDDLE_LANE, length -= 3 * MIDDLE_LANE)
        a = three_lanes(a, at, MIDDLE_LANE, OVER_64, OVER_128);
    if (length >= 3 * SHORT_LANE) {
        a = three_lanes(a, at, SHORT_LANE, OVER_32, OVER_64);
        at += 3 * SHORT_LANE;
        length -= 3 * SHORT_LANE;
    }
    for (; length >= 8; at += 8, length -= 8)
        a = _mm_crc32_u64(a, load_u64(at));
    if (length & 4) {
        uint32_t word;

        memcpy(&word, at, sizeof(word));
        a = _mm_crc32_u32((uint32_t)a, word);
        at += 4;
    }
    if (length & 2) {
        uint16_t word;

        memcpy(&word, at, sizeof(word));
        a = _mm_crc32_u16((uint32_t)a, word);
        at += 2;
    }
    if (length & 1)
        a = _mm_crc32_u8((uint32_t)a, *at);
    return (uint32_t)a;
}

WITH_CRC static uint32_t raw_accelerated(uint32_t raw, const unsigned char *at, size_t length)
{
    return raw_inline(raw, at, length);
}

WITH_CRC static uint32_t word_accelerated(uint32_t raw, uint32_t word, const unsigned char *at,
                                          size_t length)
{
    return raw_inline(_mm_crc32_u32(raw, word), at, length);
}

WITH_CRC static ALWAYS_INLINE uint32_t head_inline(uint32_t raw, uint32_t word,
                                                   const uint64_t head[2])
{
    return (uint32_t)_mm_crc32_u64(_mm_crc32_u64(_mm_crc32_u32(raw, word), head[0]), head[1]);
}

WITH_CRC static uint32_t record_accelerated(uint32_t raw, uint32_t word, const uint64_t head[2],
                                            const unsigned char *at, size_t length)
{
    return raw_inline(head_inline(raw, word, head), at, length);
}

/* Long runs by carry-less multiplication (V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using
 * PCLMULQDQ", Intel 2009, in its reflected form): 256 bytes in four registers are moved over the 256 that follow, and
 * added to them; what is left is moved together into 16 bytes, whose crc the instruction computes. More than twice the speed
 * of three lanes; half as wide registers gain nothing over these. A pair of constants for a distance of d bits is
 * x^(d - 32) and x^(d + 32) modulo the polynomial, reflected and shifted by one. */
#define WITH_WIDE  __attribute__((target("sse4.2,pclmul,avx512f,avx512vl,avx512dq,vpclmulqdq")))
#define WIDE_BYTES ((size_t)256)

#define OVER_128_BITS  0x14cd00bd6, 0x0f20c0dfe
#define OVER_256_BITS  0x0ba4fc28e, 0x1384aa63a
#define OVER_384_BITS  0x1d82c63da, 0x01c291d04
#define OVER_512_BITS  0x09e4addf8, 0x0740eef02
#define OVER_2048_BITS 0x0b9e02b86, 0x0dcb17aa4

/* Moves the four halves of `sum` over the distance of `over`. */
WITH_WIDE static ALWAYS_INLINE __m512i fold(__m512i sum, __m512i over, __m512i next)
{
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(sum, over, 0x00),
                                     _mm512_clmulepi64_epi128(sum, over, 0x11), next,
                                     0x96 /* the exclusive or of three */);
}

WITH_WIDE static ALWAYS_INLINE __m512i load_wide(const unsigned char *at)
{
    return _mm512_loadu_si512((const void *)at);
}

/* 64 bytes to 16, and those to a crc. */
WITH_WIDE static ALWAYS_INLINE uint32_t crc_of_sum(__m512i sum)
{
    const __m512i over = _mm512_set_epi64(0, 0, OVER_128_BITS, OVER_256_BITS, OVER_384_BITS);
    __m512i moved = fold(sum, over, _mm512_setzero_si512());
    __m128i rest = _mm_xor_si128(
        _mm_xor_si128(_mm512_castsi512_si128(moved), _mm512_extracti64x2_epi64(moved, 1)),
        _mm_xor_si128(_mm512_extracti64x2_epi64(moved, 2), _mm512_extracti64x2_epi64(sum, 3)));
    uint64_t raw = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(rest));

    return (uint32_t)_mm_crc32_u64(raw, (uint64_t)_mm_extract_epi64(rest, 1));
}

WITH_WIDE static ALWAYS_INLINE uint32_t wide_inline(uint32_t raw, const unsigned char *at,
                                                    size_t length)
{
    const __m512i over_2048 = _mm512_broadcast_i64x2(_mm_set_epi64x(OVER_2048_BITS));
    const __m512i over_512 = _mm512_broadcast_i64x2(_mm_set_epi64x(OVER_512_BITS));
    __m512i a, b, c, d;

    if (length < WIDE_BYTES)
        return raw_inline(raw, at, length);
    a = _mm512_xor_si512(load_wide(at), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)raw)));
    b = load_wide(at + 64);
    c = load_wide(at + 128);
    d = load_wide(at + 192);
    for (at += 256, length -= 256; length >= 256; at += 256, length -= 256) {
        a = fold(a, over_2048, load_wide(at));
        b = fold(b, over_2048, load_wide(at + 64));
        c = fold(c, over_2048, load_wide(at + 128));
        d = fold(d, over_2048, load_wide(at + 192));
    }
    d = fold(fold(fold(a, over_512, b), over_512, c), over_512, d);
    for (; length >= 64; at += 64, length -= 64)
        d = fold(d, over_512, load_wide(at));
    return raw_inline(crc_of_sum(d), at, length);
}

WITH_WIDE static uint32_t raw_wide(uint32_t raw, const unsigned char *at, size_t length)
{
    return wide_inline(raw, at, length);
}

WITH_WIDE static uint32_t word_wide(uint32_t raw, uint32_t word, const unsigned char *at,
                                    size_t length)
{
    return wide_inline(_mm_crc32_u32(raw, word), at, length);
}

WITH_WIDE static uint32_t record_wide(uint32_t raw, uint32_t word, const uint64_t head[2],
                                      const unsigned char *at, size_t length)
{
    return wide_inline(head_inline(raw, word, head), at, length);
}

static int machine_is_wide(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("vpclmulqdq") &&
           __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
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
#define CRC_U32(raw, word) __builtin_arm_crc32cw(raw, word)
#define CRC_U8(raw, byte)  __builtin_arm_crc32cb(raw, byte)
#else
#define WITH_CRC           __attribute__((target("+crc")))
#define CRC_U64(raw, word) __builtin_aarch64_crc32cx(raw, word)
#define CRC_U32(raw, word) __builtin_aarch64_crc32cw(raw, word)
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

WITH_CRC static uint32_t word_accelerated(uint32_t raw, uint32_t word, const unsigned char *at,
                                          size_t length)
{
    return raw_accelerated(CRC_U32(raw, word), at, length);
}

WITH_CRC static uint32_t record_accelerated(uint32_t raw, uint32_t word, const uint64_t head[2],
                                            const unsigned char *at, size_t length)
{
    raw = CRC_U64(CRC_U64(CRC_U32(raw, word), head[0]), head[1]);
    return raw_accelerated(raw, at, length);
}

static int machine_has_crc(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_CRC32_BIT) != 0;
}

#else

#define raw_accelerated    raw_portable
#define word_accelerated   word_portable
#define record_accelerated record_portable

static int machine_has_crc(void)
{
    return 0;
}

#endif

static const struct crc_way PORTABLE = {raw_portable, word_portable, record_portable};
static const struct crc_way ACCELERATED = {raw_accelerated, word_accelerated, record_accelerated};
#if defined(__x86_64__)
static const struct crc_way WIDE = {raw_wide, word_wide, record_wide};
#endif

static _Atomic(const struct crc_way *) chosen;

static COLD const struct crc_way *choose(void)
{
    const struct crc_way *way = machine_has_crc() ? &ACCELERATED : &PORTABLE;

#if defined(__x86_64__)
    if (machine_is_wide())
        way = &WIDE;
#endif
    (void)pthread_once(&tables_once, build_tables);
    /* ORDER crc-tables -> crc-use: the tables before the pointer that leads to them; pairs with the
     * acquire in way_here(). Threads that race here store the same value. */
    atomic_store_explicit(&chosen, way, memory_order_release);
    return way;
}

static ALWAYS_INLINE const struct crc_way *way_here(void)
{
    /* ORDER crc-tables -> crc-use: see choose(). */
    const struct crc_way *way = atomic_load_explicit(&chosen, memory_order_acquire);

    return LIKELY(way != NULL) ? way : choose();
}

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
    return ~way_here()->bytes(~crc, data, length);
}

uint32_t crc32c_word(uint32_t word, const void *data, size_t length)
{
    return ~way_here()->word(UINT32_MAX, word, data, length);
}

uint32_t crc32c_record(uint32_t word, const uint64_t head[2], const void *data, size_t length)
{
    return ~way_here()->record(UINT32_MAX, word, head, data, length);
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t length)
{
    (void)pthread_once(&tables_once, build_tables);
    return ~raw_portable(~crc, data, length);
}

#ifdef SHMQ_FAULTS
uint32_t crc32c_by_instruction(uint32_t crc, const void *data, size_t length)
{
    (void)choose();
    return machine_has_crc() ? ~raw_accelerated(~crc, data, length)
                             : crc32c_portable(crc, data, length);
}
#endif

int crc32c_is_accelerated(void)
{
    return machine_has_crc();
}
