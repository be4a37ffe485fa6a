/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash that sends a key to its partition, the same as in Kafka's Java client, so that both put one
 * key into the partition of the same number; and a modulo without a division, since publish does one
 * for every keyed message. Pure, any thread.
 */
#ifndef SHMQ_HASH_H
#define SHMQ_HASH_H

#include "libshmq/base.h"

/* MurmurHash2, 32 bits, Kafka's seed. Kafka reads the result as signed; the bits are the same. */
uint32_t hash_murmur2(const void *data, size_t length);

/* Kafka's toPositive: drops the sign bit (not the absolute value, which has none for INT_MIN). */
static inline uint32_t hash_to_positive(uint32_t hash)
{
    return hash & UINT32_C(0x7fffffff);
}

/* n % d for a d that stays (Lemire, Kaser, Kurz: "Faster remainder by direct computation"): exact for
 * all 32-bit n and d > 0. c = ceil(2^64 / d); its low bits times n are the fraction of n / d. */
struct fastmod {
    uint64_t c;
    uint32_t d;
};

static inline struct fastmod fastmod_init(uint32_t d)
{
    struct fastmod made = {.c = UINT64_MAX / d + 1, .d = d};

    return made;
}

static ALWAYS_INLINE uint32_t fastmod_apply(const struct fastmod *fastmod, uint32_t n)
{
    uint64_t fraction = fastmod->c * n;

    return (uint32_t)(((unsigned __int128)fraction * fastmod->d) >> 64);
}

/* The partition of a key, as Kafka's default partitioner says. */
static inline uint32_t hash_choose_partition(const struct fastmod *partitions, const void *key,
                                             size_t key_length)
{
    return fastmod_apply(partitions, hash_to_positive(hash_murmur2(key, key_length)));
}

#endif
