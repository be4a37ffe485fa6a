/* SPDX-License-Identifier: Apache-2.0 */
/*
 * producer.h: a producer: its partitions, and the hot half of publishing, inlined into publish,
 * commit and batch.
 *
 * One thread at a time. Publishing makes no system call, takes no lock, allocates nothing and
 * divides nothing while there is room; everything unusual leaves the hot path for the cold one
 * (producer_room.c), which finds out what it is: a changed event word, a ring without room, a
 * partition that is closed. Two tricks spare the hot path its branches. A partition that must not be
 * written any more has limit 0, so its claims fail for want of room and the cold path meets the
 * reason (`dead`). And a message's three lengths are compared as one word with `lengths_bound`, so
 * that a key, headers, a body that is too long and an outstanding claim are one branch.
 *
 *   producer.c         publish, claim, commit, abort: the hot path
 *   producer_batch.c   publish_batch
 *   producer_room.c    waiting for room, who holds the ring, closed partitions
 *   producer_confirm.c confirm: waiting until a message is durable
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

/* Bodies up to here are copied in place, with at most four loads and stores and no call. */
#define PUBLISH_SMALL 64u
/* So much of a body lies in its header's line. */
#define BESIDE_HEADER (RECORD_UNIT - RECORD_HEADER)

/* Which code publishes to a partition: decided when it is opened. */
enum publish_path {
    PUBLISH_SINGLE = 0,         /* one producer, gated, membarrier mode */
    PUBLISH_MULTI = 1,          /* several producers, the same */
    PUBLISH_SINGLE_DURABLE = 2, /* one producer, gated, membarrier mode, with a journal */
    PUBLISH_MULTI_DURABLE = 3,
    PUBLISH_ANY = 4, /* drop-old, spill, fence mode */
};

struct producer_partition {
    struct ring_producer ring;
    struct wait_segment *wait;
    struct producer_partition *following; /* round robin: the next one's turn */
    uint32_t index;
    uint8_t path; /* enum publish_path */
    bool fence_mode;
    bool doubtful; /* other memory took along what was not durable, and nobody has been told */
    int dead;      /* 0, or why nothing is written any more: limit is 0 then */
    struct attachment *attachment;
    uint64_t stuck_offset; /* the claim that was last found in the way, */
    uint64_t stuck_ns;     /* and since when */
};

struct shmq_producer {
    /* Read by every publish. */
    uint64_t small_bound; /* producer_bound_lengths() */
    const _Atomic uint32_t *event;
    uint32_t event_seen;
    uint32_t fork_count;
    struct producer_partition *turn; /* round robin */
    uint32_t timestamps;             /* enum timestamp_mode */
    uint32_t partition_count;
    struct producer_partition *partitions;
    struct fastmod modulo;
    uint64_t lengths_bound;
    uint32_t max_message;
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

/* What may have happened to the partition while something was waited for. 0, or an error that ends that; the partitions
 * may be others afterwards (`layout`). No claim is outstanding. */
int producer_look_around(struct shmq_producer *producer, uint32_t partition, uint64_t deadline_ns,
                         struct error_buffer *why) COLD;

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

/* Sixteen bytes as one register: an array would bring a stack canary into the hot path. */
typedef struct {
    uint64_t low, high;
} copy_unit;

/* Up to PUBLISH_SMALL bytes: loads and stores that overlap in the middle, the end first. */
static ALWAYS_INLINE void copy_small(unsigned char *to, const unsigned char *from, size_t bytes)
{
    if (LIKELY(bytes >= 16)) {
        copy_unit first, last;

        memcpy(&first, from, 16);
        memcpy(&last, from + bytes - 16, 16);
        if (bytes > 32) {
            copy_unit second, third;

            memcpy(&second, from + 16, 16);
            memcpy(&third, from + bytes - 32, 16);
            memcpy(to + bytes - 32, &third, 16);
            memcpy(to + bytes - 16, &last, 16);
            memcpy(to + 16, &second, 16);
            memcpy(to, &first, 16);
        } else {
            memcpy(to + bytes - 16, &last, 16);
            memcpy(to, &first, 16);
        }
    } else if (bytes >= 8) {
        uint64_t low, high;

        memcpy(&low, from, 8);
        memcpy(&high, from + bytes - 8, 8);
        memcpy(to, &low, 8);
        memcpy(to + bytes - 8, &high, 8);
    } else if (bytes >= 4) {
        uint32_t low, high;

        memcpy(&low, from, 4);
        memcpy(&high, from + bytes - 4, 4);
        memcpy(to, &low, 4);
        memcpy(to + bytes - 4, &high, 4);
    } else if (bytes > 0) {
        to[0] = from[0];
        to[bytes - 1] = from[bytes - 1];
        to[bytes / 2] = from[bytes / 2];
    }
}

static ALWAYS_INLINE void copy_bytes(unsigned char *to, const void *from, size_t bytes)
{
    if (bytes > PUBLISH_SMALL)
        memcpy(to, from, bytes);
    else
        copy_small(to, from, bytes);
}

/* A body that stands alone in its record: what lies in further lines first, which also is aligned
 * there; then what shares the header's line. See publish_plain(). */
static ALWAYS_INLINE void copy_body(unsigned char *to, const unsigned char *from, size_t bytes)
{
    if (bytes > PUBLISH_SMALL) {
        memcpy(to + BESIDE_HEADER, from + BESIDE_HEADER, bytes - BESIDE_HEADER);
        copy_small(to, from, BESIDE_HEADER);
    } else {
        copy_small(to, from, bytes);
    }
}

_Static_assert(offsetof(struct shmq_message, body_length) == 24 &&
                   offsetof(struct shmq_message, key_length) == 28 &&
                   offsetof(struct shmq_message, headers_length) == 30,
               "lengths in the word at 24");

/* Body, key << 32, headers << 48: a word below 2^32 is of a message that has but a body. */
static ALWAYS_INLINE uint64_t message_lengths(const struct shmq_message *message)
{
    uint64_t lengths;

    memcpy(&lengths, &message->body_length, sizeof(lengths));
    return lengths;
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

/* After max_message or `claimed` changed: messages whose lengths are below the bounds have but a body
 * (a small one), and it may be published now. */
static inline void producer_bound_lengths(struct shmq_producer *producer)
{
    producer->lengths_bound = producer->claimed ? 0 : (uint64_t)producer->max_message + 1;
    producer->small_bound = min_u64(producer->lengths_bound, PUBLISH_SMALL + 1);
}

/* Header and payload of a claimed record, all but its stamp. */
static ALWAYS_INLINE void producer_write(struct record *record, uint16_t slot_index,
                                         uint32_t length, uint64_t timestamp_ns,
                                         const struct shmq_message *message, bool durable)
{
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
    ring_fill_header(record, slot_index, length, timestamp_ns, message->key_length,
                     message->headers_length, RECORD_TYPE_DATA);
    if (durable)
        ring_seal_record(record);
}

static ALWAYS_INLINE struct producer_partition *producer_take_turn(struct shmq_producer *producer)
{
    struct producer_partition *pp = producer->turn;

    producer->turn = pp->following;
    return pp;
}

/* Which partition; it may not exist (explicit ones). */
static ALWAYS_INLINE uint32_t producer_choose(struct shmq_producer *producer,
                                              const struct shmq_message *message)
{
    if (message->flags & SHMQ_MESSAGE_PARTITION)
        return message->partition;
    if (message->key_length)
        return producer->partition_count == 1
                   ? 0
                   : hash_choose_partition(&producer->modulo, message->key, message->key_length);
    return producer_take_turn(producer)->index;
}

/* Something is to be looked at before anything is published. */
static ALWAYS_INLINE bool producer_is_called(const struct shmq_producer *producer)
{
    /* Relaxed: a hint; who follows it reads what it announces with acquire. */
    return UNLIKELY(atomic_load_explicit(producer->event, memory_order_relaxed) !=
                    producer->event_seen);
}

#endif
