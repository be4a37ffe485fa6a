/* SPDX-License-Identifier: Apache-2.0 */
/*
 * producer.h: a producer: its partitions, and the hot half of publishing, inlined into publish,
 * commit and batch.
 *
 * One thread at a time. Publishing makes no system call, takes no lock, allocates nothing and
 * divides nothing while there is room; everything unusual leaves the hot path for the cold one
 * (producer_room.c), which finds out what it is: a changed event word, a ring without room, a
 * partition that is closed. Trick: a partition that must not be written any more has limit 0, so
 * its claims fail for want of room and the cold path meets the reason (`dead`); the hot path needs
 * no branch for it.
 *
 *   producer.c         publish, claim, commit, abort: the hot path
 *   producer_batch.c   publish_batch
 *   producer_room.c    waiting for room, who holds the ring, closed partitions
 *   producer_open.c    open, close, new partitions, opening anew in another session
 */
#ifndef SHMQ_PRODUCER_H
#define SHMQ_PRODUCER_H

#include <string.h>

#include "libshmq/attach.h"
#include "libshmq/channel.h"
#include "libshmq/clock.h"
#include "libshmq/hash.h"
#include "libshmq/ring.h"
#include "libshmq/shmq.h"
#include "libshmq/wait.h"

struct producer_partition {
    struct ring_producer ring;
    struct wait_segment *wait;
    bool fence_mode;
    int dead; /* 0, or why nothing is written any more: limit is 0 then */
    struct attachment *attachment;
    uint64_t stuck_offset; /* the claim that was last found in the way, */
    uint64_t stuck_ns;     /* and since when */
};

struct shmq_producer {
    /* Read by every publish. */
    uint32_t fork_count;
    uint32_t event_seen;
    const _Atomic uint32_t *event;
    struct producer_partition *partitions;
    uint32_t partition_count;
    uint32_t next; /* round robin */
    uint32_t max_message;
    uint32_t timestamps; /* enum timestamp_mode */
    struct fastmod modulo;
    bool claimed; /* a public claim is outstanding */

    /* The rest is cold. */
    int failed;              /* the whole topic: SHMQ_ENOTOPIC… */
    int32_t timeout_ms;      /* for room */
    uint32_t policy;         /* enum overflow_policy */
    uint64_t look_ns;        /* when to look next at what no event may have announced */
    uint32_t layout;         /* +1 when `partitions` is another array */
    struct shmq_claim claim; /* as given out */
    uint16_t claim_key_length;
    uint64_t topic;
    struct session *session;
    struct shmq_connection *connection;
    struct shmq_channel *channel;
    struct shmq_producer *next_in_channel;
    struct shmq_producer **link;
    char name[NAME_BYTES];
};

/* ---- producer_room.c: cold ------------------------------------------------------------------- */

/* Looks at what the event word may have announced: new partitions, another session, a changed
 * max_message. 0 or an error that ends publishing. Blocks until the deadline at most, or
 * CONTROL_GRACE_NS. */
int producer_attend(struct shmq_producer *producer, uint64_t deadline_ns,
                    struct error_buffer *why) COLD;

/* Maps the groups that have joined, as long as there is a supervisor to ask: one that dies later
 * must not leave a producer that cannot tell whether there is room. */
void producer_look_at_groups(struct shmq_producer *producer) COLD;

/* Waits until a claim of `size` bytes may succeed. 0, SHMQ_EFULL…; `*ret_moved`: the partitions are
 * others now, choose again. A deadline that has passed: does not wait. */
int producer_make_room(struct shmq_producer *producer, uint32_t partition, uint64_t size,
                       uint64_t deadline_ns, bool *ret_moved, struct error_buffer *why) COLD;

/* After a stamp on a partition whose attention says CLOSED. 0: it counts. 1: it went to a bus that
 * is gone: publish again. Negative: it does not count. */
int producer_after_closed(struct shmq_producer *producer, uint32_t partition,
                          struct error_buffer *why) COLD;

/* Finds a partition that lives, beginning with `partition`; for messages that may go anywhere. */
uint32_t producer_pass_dead(const struct shmq_producer *producer, uint32_t partition);

uint64_t producer_deadline(const struct shmq_producer *producer);

/* ---- producer_open.c: cold ------------------------------------------------------------------- */

/* Some partition that is open: what is the same in all of them is read there. There always is one.
 */
const struct attachment *producer_any(const struct shmq_producer *producer);

/* Opens everything anew in the connection's present session, by name; aborts nothing: no claim is
 * outstanding. */
int producer_reopen(struct shmq_producer *producer, uint64_t deadline_ns,
                    struct error_buffer *why) COLD;

/* Opens the partitions that were added, up to `partition_count`; keeps what it has on failure. */
int producer_grow(struct shmq_producer *producer, uint32_t partition_count, uint64_t deadline_ns,
                  struct error_buffer *why) COLD;

/* ---- hot ------------------------------------------------------------------------------------- */

static ALWAYS_INLINE uint64_t producer_timestamp(const struct shmq_producer *producer)
{
    if (LIKELY(producer->timestamps == TIMESTAMP_COARSE))
        return clock_realtime_coarse_ns();
    return producer->timestamps == TIMESTAMP_PRECISE ? clock_realtime_ns() : 0;
}

/* Up to 32 bytes, the common size, without a call: two loads and stores that may overlap. */
static ALWAYS_INLINE void copy_bytes(unsigned char *to, const void *from, size_t bytes)
{
    const unsigned char *source = from;

    if (bytes > 32) {
        memcpy(to, source, bytes);
    } else if (bytes >= 16) {
        unsigned char low[16], high[16];

        memcpy(low, source, 16);
        memcpy(high, source + bytes - 16, 16);
        memcpy(to, low, 16);
        memcpy(to + bytes - 16, high, 16);
    } else if (bytes >= 8) {
        uint64_t low, high;

        memcpy(&low, source, 8);
        memcpy(&high, source + bytes - 8, 8);
        memcpy(to, &low, 8);
        memcpy(to + bytes - 8, &high, 8);
    } else {
        for (size_t i = 0; i < bytes; i++)
            to[i] = source[i];
    }
}

static ALWAYS_INLINE uint64_t message_length(const struct shmq_message *message)
{
    return (uint64_t)message->key_length + message->headers_length + message->body_length;
}

static ALWAYS_INLINE bool message_has_holes(const struct shmq_message *message)
{
    return UNLIKELY((!message->body && message->body_length) ||
                    (!message->key && message->key_length) ||
                    (!message->headers && message->headers_length));
}

/* Header and payload of a claimed record, all but its stamp. */
static ALWAYS_INLINE void producer_write(struct producer_partition *pp, uint64_t offset,
                                         uint32_t length, uint64_t timestamp_ns,
                                         const struct shmq_message *message)
{
    struct record *record =
        ring_begin_record(&pp->ring, offset, length, timestamp_ns, message->key_length,
                          message->headers_length, RECORD_TYPE_DATA);
    unsigned char *to = record->payload;

    if (message->key_length) {
        copy_bytes(to, message->key, message->key_length);
        to += message->key_length;
    }
    if (message->headers_length) {
        copy_bytes(to, message->headers, message->headers_length);
        to += message->headers_length;
    }
    copy_bytes(to, message->body, message->body_length);
}

/* Which partition; it may not exist (explicit ones). */
static ALWAYS_INLINE uint32_t producer_choose(struct shmq_producer *producer,
                                              const struct shmq_message *message)
{
    uint32_t partition;

    if (message->flags & SHMQ_MESSAGE_PARTITION)
        return message->partition;
    if (message->key_length)
        return producer->partition_count == 1
                   ? 0
                   : hash_choose_partition(&producer->modulo, message->key, message->key_length);
    partition = producer->next;
    producer->next = partition + 1 == producer->partition_count ? 0 : partition + 1;
    return partition;
}

/* Something is to be looked at before anything is published. */
static ALWAYS_INLINE bool producer_is_called(const struct shmq_producer *producer)
{
    /* Relaxed: a hint; who follows it reads what it announces with acquire. */
    return UNLIKELY(atomic_load_explicit(producer->event, memory_order_relaxed) !=
                    producer->event_seen);
}

#endif
