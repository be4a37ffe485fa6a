/* SPDX-License-Identifier: Apache-2.0 */
/* MurmurHash2 by Austin Appleby (public domain), with the seed of Kafka's partitioner; see hash.h. */
#include "libshmq/hash.h"

#include <string.h>

#define SEED       UINT32_C(0x9747b28c)
#define MULTIPLIER UINT32_C(0x5bd1e995)

uint32_t hash_murmur2(const void *data, size_t length)
{
    const unsigned char *at = data;
    uint32_t hash = SEED ^ (uint32_t)length;

    for (; length >= 4; at += 4, length -= 4) {
        uint32_t word;

        memcpy(&word, at, sizeof(word));
        word *= MULTIPLIER;
        word ^= word >> 24;
        word *= MULTIPLIER;
        hash = hash * MULTIPLIER ^ word;
    }
    if (length > 0) {
        for (size_t i = length; i-- > 0;)
            hash ^= (uint32_t)at[i] << (8 * i);
        hash *= MULTIPLIER;
    }
    hash ^= hash >> 13;
    hash *= MULTIPLIER;
    return hash ^ hash >> 15;
}
