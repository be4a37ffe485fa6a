/* SPDX-License-Identifier: Apache-2.0 */
/*
 * producer.c: publish, claim, commit, abort: the hot path of a producer. See producer.h.
 *
 * Called by the channel's thread. In steady state it blocks on nothing; without room it waits in
 * producer_room.c. If the process dies between claim and stamp, whoever is held up by it pads the
 * claim (ring_resolve); after the stamp the message counts.
 */
#include "libshmq/producer.h"

/* ---- publish --------------------------------------------------------------------------------- */

static int refuse_busy(struct shmq_producer *p) COLD;
static int refuse_size(struct shmq_producer *p, uint64_t length, struct error_buffer *why) COLD;
static int refuse_partition(struct shmq_producer *p, uint32_t partition,
                            struct error_buffer *why) COLD;
static int publish_cold(struct shmq_producer *p, struct shmq_message *message) COLD;
static int publish_without_room(struct shmq_producer *p, struct shmq_message *message,
                                uint32_t partition) COLD;

static int refuse_busy(struct shmq_producer *p)
{
    return error_set(handles_error(p->connection->serial), SHMQ_EBUSY,
                     "topic %s: a claim of this producer is outstanding; commit or abort it first",
                     p->name);
}

static int refuse_size(struct shmq_producer *p, uint64_t length, struct error_buffer *why)
{
    return error_set(why, SHMQ_ETOOBIG,
                     "topic %s: message of %llu bytes: the topic takes %u at most; split it, or "
                     "create the topic with a larger --max-message",
                     p->name, (unsigned long long)length, p->max_message);
}

static int refuse_partition(struct shmq_producer *p, uint32_t partition, struct error_buffer *why)
{
    return error_set(why, SHMQ_EINVAL, "topic %s: partition %u: there are %u, from 0 on", p->name,
                     partition, p->partition_count);
}

/* The message is stamped, and somebody has asked to be told. */
static int publish_noticed(struct shmq_producer *p, struct shmq_message *message,
                           struct producer_partition *pp, uint32_t attention) COLD;

static int publish_noticed(struct shmq_producer *p, struct shmq_message *message,
                           struct producer_partition *pp, uint32_t attention)
{
    int rc = 0;

    if (attention & (ATTENTION_DATA | ATTENTION_DOORBELL))
        wait_wake_slow(pp->wait, attention & (ATTENTION_DATA | ATTENTION_DOORBELL));
    if (attention & ATTENTION_CLOSED) {
        rc = producer_after_closed(p, pp->index, handles_error(p->connection->serial));
        if (rc == 1) /* it went to a bus that is gone: once more */
            rc = publish_cold(p, message);
    }
    return rc;
}

/* Stamps the record at its claimed offset, and says so. Returns the attention word, on which the
 * caller acts. */
static ALWAYS_INLINE uint32_t finish_one(struct producer_partition *pp, struct record *record,
                                         uint64_t offset, uint64_t timestamp_ns,
                                         struct shmq_message *message, bool fence_mode)
{
    ring_stamp_record(record, pp->ring.salt, offset, RECORD_COMMITTED);
    ring_release_claim(pp->ring.slot, 1);
    uint32_t attention = wait_look(pp->wait, fence_mode);

    message->offset = offset;
    message->timestamp_ns = timestamp_ns;
    message->partition = pp->index;
    return attention;
}

#define ATTENTION_OF_PUBLISH (ATTENTION_DATA | ATTENTION_DOORBELL | ATTENTION_CLOSED)

/* Small records come so fast that each would wait for its lines to come back from the reader, who had
 * them a lap ago. So those of a successor are fetched, all of them: half of a pair of lines is worse than
 * none. The distances are measured (docs/performance.md); the second mapping lies behind the first, so they
 * are addresses of the ring's. Larger records do not gain by it, nor do several producers, who wait for `tail`. */
static ALWAYS_INLINE void prefetch_successor(const char *record, uint64_t length)
{
    if (length <= BESIDE_HEADER) {
        prefetch_to_write(record + 3 * RECORD_UNIT);
    } else if (length <= BESIDE_HEADER + RECORD_UNIT) {
        prefetch_to_write(record + 4 * RECORD_UNIT);
        prefetch_to_write(record + 5 * RECORD_UNIT);
    } else if (length <= BESIDE_HEADER + 2 * RECORD_UNIT) {
        prefetch_to_write(record + 6 * RECORD_UNIT);
        prefetch_to_write(record + 7 * RECORD_UNIT);
        prefetch_to_write(record + 8 * RECORD_UNIT);
    }
}

/* A body and nothing else, to a partition that is gated and needs no fence. `multi`, `small` and `durable` are
 * constants: each caller gets code of its own. */
static ALWAYS_INLINE int publish_plain(struct shmq_producer *p, struct producer_partition *pp,
                                       struct shmq_message *message, uint64_t length,
                                       uint64_t timestamp_ns, bool multi, bool small, bool durable)
{
    uint64_t offset;

    p->turn = pp->following;
    if (UNLIKELY(ring_claim_as(&pp->ring, record_size(length), multi, false, &offset) != RING_OK))
        return publish_without_room(p, message, pp->index);
    struct record *record = ring_record(pp->ring.data, pp->ring.mask, offset);

    if (!multi)
        prefetch_successor((const char *)record, length);
    /* The stamp's line last, and all of it at once: a reader that waits looks at that line all the time,
     * and takes it away from us after whatever we store there first. */
    if (small)
        copy_small(record->payload, message->body, length);
    else
        copy_body(record->payload, message->body, length);
    if (durable)
        ring_fill_sealed_header(record, pp->ring.slot_index, (uint32_t)length, timestamp_ns,
                                message->body);
    else
        ring_fill_header(record, pp->ring.slot_index, (uint32_t)length, timestamp_ns, 0, 0,
                         RECORD_TYPE_DATA);
    uint32_t attention = finish_one(pp, record, offset, timestamp_ns, message, false);

    return UNLIKELY(attention & ATTENTION_OF_PUBLISH) ? publish_noticed(p, message, pp, attention)
                                                      : 0;
}

/* Goes by round robin, and nothing has to be looked at before? */
static ALWAYS_INLINE bool is_plain(const struct shmq_producer *p,
                                   const struct shmq_message *message, uint64_t lengths_bound)
{
    return LIKELY(message_lengths(message) < lengths_bound) && LIKELY(message->body != NULL) &&
           LIKELY(!(message->flags & SHMQ_MESSAGE_PARTITION)) && !producer_is_called(p);
}

/* Any message, on any path, into a ring that has room; else the cold path. */
static int publish_any(struct shmq_producer *p, struct shmq_message *message, uint64_t timestamp_ns)
{
    uint64_t length = message_length(message);
    uint64_t offset;

    if (message_has_holes(message))
        return handles_usage_error(p->connection->serial, "publish: a part of the message is NULL");
    if (UNLIKELY(p->claimed))
        return refuse_busy(p);
    if (producer_is_called(p) || UNLIKELY(length > p->max_message))
        return publish_cold(p, message);
    uint32_t partition = producer_choose(p, message);

    if (UNLIKELY(partition >= p->partition_count))
        return publish_cold(p, message);
    struct producer_partition *pp = &p->partitions[partition];
    struct ring_producer *ring = &pp->ring;

    if (UNLIKELY(ring_claim_as(ring, record_size(length), ring->multi, ring->overwrites, &offset) !=
                 RING_OK))
        return publish_without_room(p, message, partition);
    struct record *record = ring_record(ring->data, ring->mask, offset);

    producer_write(record, ring->slot_index, (uint32_t)length, timestamp_ns, message,
                   ring->durable);
    uint32_t attention = finish_one(pp, record, offset, timestamp_ns, message, pp->fence_mode);

    return UNLIKELY(attention & ATTENTION_OF_PUBLISH) ? publish_noticed(p, message, pp, attention)
                                                      : 0;
}

/* Plain, but not small, or to a durable topic. */
static __attribute__((noinline)) int publish_larger(struct shmq_producer *p,
                                                    struct shmq_message *message,
                                                    uint64_t timestamp_ns)
{
    struct producer_partition *pp = p->turn;
    uint64_t length = message->body_length;

    switch ((enum publish_path)pp->path) {
    case PUBLISH_SINGLE:
        return publish_plain(p, pp, message, length, timestamp_ns, false, false, false);
    case PUBLISH_MULTI:
        return publish_plain(p, pp, message, length, timestamp_ns, true, false, false);
    case PUBLISH_SINGLE_DURABLE:
        return publish_plain(p, pp, message, length, timestamp_ns, false, false, true);
    case PUBLISH_MULTI_DURABLE:
        return publish_plain(p, pp, message, length, timestamp_ns, true, false, true);
    case PUBLISH_ANY:
        break;
    }
    return publish_any(p, message, timestamp_ns);
}

NO_CANARY int shmq_publish(shmq_producer *p, struct shmq_message *message)
{
    if (UNLIKELY(!p || !message))
        return handles_usage_error(p ? p->connection->serial : 0,
                                   "publish: producer or message is NULL");
    if (handles_forked(p->fork_count))
        return handles_fork_error(p->connection->serial);
    /* The clock before the claim, which should be short, and before all that would have to be kept across
     * its call. */
    uint64_t timestamp_ns = producer_timestamp(p);

    if (!is_plain(p, message, p->small_bound))
        return is_plain(p, message, p->lengths_bound) ? publish_larger(p, message, timestamp_ns)
                                                      : publish_any(p, message, timestamp_ns);
    struct producer_partition *pp = p->turn;
    uint64_t length = message->body_length;

    if (LIKELY(pp->path == PUBLISH_SINGLE))
        return publish_plain(p, pp, message, length, timestamp_ns, false, true, false);
    if (LIKELY(pp->path == PUBLISH_MULTI))
        return publish_plain(p, pp, message, length, timestamp_ns, true, true, false);
    return publish_larger(p, message, timestamp_ns);
}

/* One attempt after attending. 0, an error, or 1: the partitions changed, or the bus; again. */
static int publish_attempt(struct shmq_producer *p, struct shmq_message *message,
                           uint32_t partition, uint64_t deadline_ns, struct error_buffer *why)
{
    uint64_t length = message_length(message);
    uint64_t size = record_size(length);
    bool moved = false;
    uint64_t offset;

    for (;;) {
        struct ring_producer *ring = &p->partitions[partition].ring;

        if (ring_claim_as(ring, size, ring->multi, ring->overwrites, &offset) == RING_OK)
            break;
        int rc = producer_make_room(p, partition, size, deadline_ns, &moved, why);

        if (rc < 0)
            return rc;
        if (moved)
            return 1;
    }
    struct producer_partition *pp = &p->partitions[partition];
    struct record *record = ring_record(pp->ring.data, pp->ring.mask, offset);
    uint64_t timestamp_ns = producer_timestamp(p);

    producer_write(record, pp->ring.slot_index, (uint32_t)length, timestamp_ns, message,
                   pp->ring.durable);
    uint32_t attention = finish_one(pp, record, offset, timestamp_ns, message, pp->fence_mode);

    if (attention & (ATTENTION_DATA | ATTENTION_DOORBELL))
        wait_wake_slow(pp->wait, attention & (ATTENTION_DATA | ATTENTION_DOORBELL));
    return attention & ATTENTION_CLOSED ? producer_after_closed(p, partition, why) : 0;
}

static int publish_until(struct shmq_producer *p, struct shmq_message *message,
                         uint64_t deadline_ns, struct error_buffer *why)
{
    for (;;) {
        int rc = producer_attend(p, deadline_ns, why);
        uint64_t length = message_length(message);

        if (rc < 0)
            return rc;
        if (length > p->max_message)
            return refuse_size(p, length, why);
        uint32_t partition = producer_choose(p, message);

        if (partition >= p->partition_count)
            return refuse_partition(p, partition, why);
        if (!message->key_length && !(message->flags & SHMQ_MESSAGE_PARTITION))
            partition = producer_pass_dead(p, partition);
        rc = publish_attempt(p, message, partition, deadline_ns, why);
        if (rc <= 0)
            return rc;
    }
}

static int publish_cold(struct shmq_producer *p, struct shmq_message *message)
{
    return publish_until(p, message, producer_deadline(p), handles_error(p->connection->serial));
}

static int publish_without_room(struct shmq_producer *p, struct shmq_message *message,
                                uint32_t partition)
{
    struct error_buffer *why = handles_error(p->connection->serial);
    uint64_t deadline_ns = producer_deadline(p);
    int rc;

    if (p->partitions[partition].dead && !message->key_length &&
        !(message->flags & SHMQ_MESSAGE_PARTITION))
        partition = producer_pass_dead(p, partition);
    rc = publish_attempt(p, message, partition, deadline_ns, why);
    return rc == 1 ? publish_until(p, message, deadline_ns, why) : rc;
}

/* ---- claim, commit, abort -------------------------------------------------------------------- */

static int claim_cold(struct shmq_producer *p, uint32_t partition, bool anywhere, uint64_t length,
                      const struct shmq_message *key, uint64_t *ret_offset,
                      uint32_t *ret_partition) COLD;

static int claim_cold(struct shmq_producer *p, uint32_t partition, bool anywhere, uint64_t length,
                      const struct shmq_message *key, uint64_t *ret_offset, uint32_t *ret_partition)
{
    struct error_buffer *why = handles_error(p->connection->serial);
    uint64_t deadline_ns = producer_deadline(p);
    bool moved = true;
    int rc = 0;

    for (;;) {
        rc = producer_attend(p, deadline_ns, why);
        if (rc < 0)
            return rc;
        if (length > p->max_message)
            return refuse_size(p, length, why);
        if (moved || partition >= p->partition_count)
            partition = producer_choose(p, key);
        moved = false;
        if (anywhere)
            partition = producer_pass_dead(p, partition);
        if (ring_claim(&p->partitions[partition].ring, record_size(length), ret_offset) == RING_OK)
            break;
        rc = producer_make_room(p, partition, record_size(length), deadline_ns, &moved, why);
        if (rc < 0)
            return rc;
    }
    *ret_partition = partition;
    return 0;
}

int shmq_claim(shmq_producer *p, const void *key, uint16_t key_length, uint32_t body_size,
               struct shmq_claim *ret_claim)
{
    struct shmq_message choice = {.key = key, .key_length = key_length};
    uint64_t length = (uint64_t)key_length + body_size;
    uint64_t offset = 0;
    uint32_t partition;

    if (UNLIKELY(!p || !ret_claim || (!key && key_length)))
        return handles_usage_error(p ? p->connection->serial : 0,
                                   "claim: producer, key or result is NULL");
    if (handles_forked(p->fork_count))
        return handles_fork_error(p->connection->serial);
    if (UNLIKELY(p->claimed))
        return refuse_busy(p);
    partition = producer_choose(p, &choice);
    if (producer_is_called(p) || UNLIKELY(length > p->max_message) ||
        UNLIKELY(ring_claim(&p->partitions[partition].ring, record_size(length), &offset) !=
                 RING_OK)) {
        int rc = claim_cold(p, partition, key_length == 0, length, &choice, &offset, &partition);

        if (rc < 0)
            return rc;
    }
    /* Its timestamp is that of the commit. The key stands now: the caller's need not live on. */
    struct record *record = ring_begin_record(&p->partitions[partition].ring, offset,
                                              (uint32_t)length, 0, key_length, 0, RECORD_TYPE_DATA);

    copy_bytes(record->payload, key, key_length);
    p->claim = (struct shmq_claim){
        .body = record->payload + key_length,
        .body_size = body_size,
        .partition = partition,
        .offset = offset,
        .producer = p,
    };
    p->claim_key_length = key_length;
    p->claimed = true;
    producer_bound_lengths(p);
    *ret_claim = p->claim;
    return 0;
}

/* The producer of an outstanding claim that looks as it was given out; else NULL and *ret_error. */
static struct shmq_producer *find_claim(const struct shmq_claim *claim, int *ret_error)
{
    struct shmq_producer *p = claim ? claim->producer : NULL;

    if (!p) {
        *ret_error = handles_usage_error(0, "claim: NULL, or finished already");
        return NULL;
    }
    if (handles_forked(p->fork_count)) {
        *ret_error = handles_fork_error(p->connection->serial);
        return NULL;
    }
    if (!p->claimed || claim->offset != p->claim.offset || claim->partition != p->claim.partition ||
        claim->body != p->claim.body || claim->body_size > p->claim.body_size) {
        *ret_error = handles_usage_error(p->connection->serial,
                                         "claim: not the outstanding one, or its body_size has "
                                         "grown");
        return NULL;
    }
    return p;
}

int shmq_commit(struct shmq_claim *claim)
{
    int rc = 0;
    struct shmq_producer *p = find_claim(claim, &rc);

    if (UNLIKELY(!p))
        return rc;
    struct producer_partition *pp = &p->partitions[claim->partition];
    uint32_t length = p->claim_key_length + claim->body_size;

    ring_begin_record(&pp->ring, claim->offset, length, producer_timestamp(p), p->claim_key_length,
                      0, RECORD_TYPE_DATA);
    ring_commit(&pp->ring, claim->offset, record_size(length));
    uint32_t attention = wait_wake(pp->wait, ATTENTION_DATA | ATTENTION_DOORBELL, pp->fence_mode);

    p->claimed = false;
    producer_bound_lengths(p);
    claim->producer = NULL;
    if (UNLIKELY(attention & ATTENTION_CLOSED)) {
        rc = producer_after_closed(p, claim->partition, handles_error(p->connection->serial));
        if (rc == 1) /* the body lies in memory that is gone: only the caller can write it again */
            rc = error_set(handles_error(p->connection->serial), SHMQ_ECLOSED,
                           "topic %s: the bus was closed between claim and commit; publish again",
                           p->name);
    }
    return rc;
}

int shmq_abort(struct shmq_claim *claim)
{
    int rc = 0;
    struct shmq_producer *p = find_claim(claim, &rc);

    if (!p)
        return rc;
    struct producer_partition *pp = &p->partitions[claim->partition];

    ring_abort(&pp->ring, claim->offset);
    (void)wait_wake(pp->wait, ATTENTION_DATA | ATTENTION_DOORBELL,
                    pp->fence_mode); /* readers behind it may go on */
    p->claimed = false;
    producer_bound_lengths(p);
    claim->producer = NULL;
    return 0;
}

uint32_t shmq_producer_partitions(const shmq_producer *p)
{
    return p && !handles_forked(p->fork_count) ? p->partition_count : 0;
}
