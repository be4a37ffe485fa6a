/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_take.h: from a record to a message: what taking views (consumer.c) and taking copies
 * (consumer_copy.c) have in common. Inlined into both. See consumer.h for threads and deaths; all that
 * is read here was written by others and is hostile.
 */
#ifndef SHMQ_CONSUMER_TAKE_H
#define SHMQ_CONSUMER_TAKE_H

#include <string.h>

#include "libshmq/consumer.h"
#include "libshmq/record.h"

/* A load of its own: what is checked and what is used must be the same, whatever is stored meanwhile. */
static ALWAYS_INLINE uint32_t load_length(const struct record *record)
{
    const _Atomic uint32_t *word = (const _Atomic uint32_t *)(const void *)&record->length;

    /* Relaxed: ordered by the acquire of the stamp. */
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* The lengths as one load: a hostile producer changes them between two looks, but not within one.
 * Key in the low half of the result, headers above it: as they stand in a message. */
static ALWAYS_INLINE uint32_t load_lengths(const struct record *record)
{
    const _Atomic uint64_t *word = (const _Atomic uint64_t *)(const void *)&record->producer;

    /* Relaxed: ordered by the acquire of the stamp. */
    return (uint32_t)(atomic_load_explicit(word, memory_order_relaxed) >> 16);
}

/* What points into the record. False: key and headers are longer than the whole, which no honest
 * producer writes. */
static ALWAYS_INLINE bool fill_message(struct shmq_message *message, const unsigned char *payload,
                                       uint32_t length, uint32_t lengths)
{
    uint64_t all = length; /* body, key << 32, headers << 48: as they stand in a message */

    message->body = payload;
    message->key = payload;
    message->headers = payload;
    if (UNLIKELY(lengths != 0)) {
        uint32_t before = (lengths & UINT16_MAX) + (lengths >> 16);

        if (before > length)
            return false;
        message->headers = payload + (lengths & UINT16_MAX);
        message->body = payload + before;
        all = (uint64_t)lengths << 32 | (length - before);
    }
    memcpy(&message->body_length, &all, sizeof(all));
    return true;
}

_Static_assert(offsetof(struct shmq_message, flags) ==
                   offsetof(struct shmq_message, partition) + sizeof(uint32_t),
               "partition and flags are written as one word");

/* Where it stands; no flags. */
static ALWAYS_INLINE void place_message(struct shmq_message *message, uint64_t offset,
                                        uint64_t timestamp_ns, uint64_t partition)
{
    message->offset = offset;
    message->timestamp_ns = timestamp_ns;
    memcpy(&message->partition, &partition, sizeof(partition));
}

/* Somebody has scribbled on it. */
static inline void mark_corrupt(struct shmq_consumer *c, struct consumer_partition *cp)
{
    cp->dead = SHMQ_ECORRUPT;
    c->stopped = true; /* told by the next consumer_attend() */
}

static ALWAYS_INLINE void mark_loss(struct consumer_partition *cp, struct shmq_message *message)
{
    if (UNLIKELY(cp->after_loss)) {
        message->flags |= SHMQ_MESSAGE_AFTER_LOSS;
        cp->after_loss = false;
    }
}

/* Statistics on this member's own line; relaxed: nobody orders by them. */
static ALWAYS_INLINE void count_messages(struct consumer_partition *cp, uint32_t records)
{
    struct group_member *me = cp->me;

    atomic_store_explicit(&me->records,
                          atomic_load_explicit(&me->records, memory_order_relaxed) + records,
                          memory_order_relaxed);
    atomic_store_explicit(&me->position, cp->reader.position, memory_order_relaxed);
}

#endif
