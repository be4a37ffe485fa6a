/* SPDX-License-Identifier: Apache-2.0 */
/*
 * producer_batch.c: publish_batch: one claim for each run of messages that go to the same
 * partition. See producer.h.
 *
 * A claim appears at once: records 2…k are stamped first and the first record last (I1), so that a
 * death in between leaves the record at the named offset unstamped, and the whole claim is padded.
 * Messages without key and partition stay together: round robin moves on with each claim, not with
 * each message. Called by the channel's thread; waits for room like publish.
 */
#include "libshmq/producer.h"

/* Messages [0, count) that go to `partition` in one claim of `size` bytes. */
struct run {
    uint32_t partition;
    uint32_t count;
    uint64_t size;
};

static bool goes_anywhere(const struct shmq_message *message)
{
    return !message->key_length && !(message->flags & SHMQ_MESSAGE_PARTITION);
}

/* 0, or why this message cannot be published at all. */
static int check_message(const struct shmq_producer *p, const struct shmq_message *message,
                         struct error_buffer *why)
{
    if (message_has_holes(message))
        return error_set(why, SHMQ_EINVAL, "publish: a part of a message is NULL");
    if ((message->flags & SHMQ_MESSAGE_PARTITION) && message->partition >= p->partition_count)
        return error_set(why, SHMQ_EINVAL, "topic %s: partition %u: there are %u, from 0 on",
                         p->name, message->partition, p->partition_count);
    if (message_length(message) > p->max_message)
        return error_set(why, SHMQ_ETOOBIG,
                         "topic %s: message of %llu bytes: the topic takes %u at most; split it, "
                         "or create the topic with a larger --max-message",
                         p->name, (unsigned long long)message_length(message), p->max_message);
    return 0;
}

/* How many messages from messages[0] on have but a body, may go anywhere, and fit into `most` bytes
 * together; what they take in *size. The common case, and a tight loop. */
static uint32_t measure_plain(const struct shmq_producer *p, const struct shmq_message *messages,
                              uint32_t count, uint64_t most, uint64_t *size)
{
    uint64_t bound = p->lengths_bound;
    uint64_t sum = *size;
    uint32_t i;

    for (i = 0; i < count; i++) {
        const struct shmq_message *message = &messages[i];
        uint64_t lengths = message_lengths(message);

        if (UNLIKELY(lengths >= bound) || UNLIKELY(!message->body) ||
            UNLIKELY(message->flags & SHMQ_MESSAGE_PARTITION) ||
            UNLIKELY(sum + record_size(lengths) > most))
            break;
        sum += record_size(lengths);
    }
    *size = sum;
    return i;
}

/* Does it belong into a run to `partition`, of messages that go anywhere or of chosen ones? */
static bool belongs(struct shmq_producer *p, const struct shmq_message *message, uint32_t partition,
                    bool anywhere)
{
    if (message_has_holes(message) || message_length(message) > p->max_message)
        return false;
    return goes_anywhere(message) ? anywhere
                                  : !anywhere && producer_choose(p, message) == partition;
}

/* The longest run from messages[0] on, at least one message long. It was checked; the others are,
 * here. */
static struct run measure_run(struct shmq_producer *p, const struct shmq_message *messages,
                              uint32_t count)
{
    struct run run = {
        .partition = producer_choose(p, &messages[0]),
        .count = 1,
        .size = record_size(message_length(&messages[0])),
    };
    bool anywhere = goes_anywhere(&messages[0]);
    uint64_t most = producer_any(p)->ring.capacity >> RING_CLAIM_SHIFT;

    if (anywhere) {
        run.partition = producer_pass_dead(p, run.partition);
        run.count += measure_plain(p, messages + 1, count - 1, most, &run.size);
    }
    for (; run.count < count; run.count++) {
        const struct shmq_message *message = &messages[run.count];
        uint64_t size = record_size(message_length(message));

        if (!belongs(p, message, run.partition, anywhere) || run.size + size > most)
            break;
        run.size += size;
    }
    return run;
}

/* Writes one record at `record`, all but its stamp, and says where it went. Returns its size. */
static ALWAYS_INLINE uint64_t write_one(const struct producer_partition *pp, struct record *record,
                                        uint64_t offset, uint64_t timestamp_ns, uint32_t partition,
                                        uint64_t small, struct shmq_message *message)
{
    uint64_t length = message_lengths(message);

    if (LIKELY(length < small)) { /* a body and nothing else, and no checksum */
        copy_small(record->payload, message->body, length);
        ring_fill_header(record, pp->ring.slot_index, (uint32_t)length, timestamp_ns, 0, 0,
                         RECORD_TYPE_DATA);
    } else {
        length = message_length(message);
        producer_write(record, pp->ring.slot_index, (uint32_t)length, timestamp_ns, message,
                       pp->ring.durable);
    }
    message->offset = offset;
    message->timestamp_ns = timestamp_ns;
    message->partition = partition;
    return record_size(length);
}

/* Writes the claim at `offset`; returns the attention word. A claim lies in one piece: the ring is
 * mapped twice. */
static uint32_t write_run(struct shmq_producer *p, struct shmq_message *messages,
                          const struct run *run, uint64_t offset)
{
    struct producer_partition *pp = &p->partitions[run->partition];
    struct record *first = ring_record(pp->ring.data, pp->ring.mask, offset);
    uint64_t timestamp_ns = producer_timestamp(p);
    uint32_t partition = run->partition;
    uint64_t salt = pp->ring.salt;
    uint64_t small = pp->ring.durable ? 0 : PUBLISH_SMALL + 1;
    uint64_t size = record_size(message_length(&messages[0]));
    unsigned char *to = (unsigned char *)first + size;
    uint64_t at = offset + size;

    for (uint32_t i = 1; i < run->count; i++) {
        struct record *record = (struct record *)(void *)to;

        size = write_one(pp, record, at, timestamp_ns, partition, small, &messages[i]);
        ring_stamp_record(record, salt, at, RECORD_COMMITTED);
        at += size;
        to += size;
    }
    /* The first one last, at whose line a reader that waits is looking: now all of them are there. */
    (void)write_one(pp, first, offset, timestamp_ns, partition, small, &messages[0]);
    ring_stamp_record(first, salt, offset, RECORD_COMMITTED);
    ring_release_claim(pp->ring.slot, run->count);
    return wait_wake(pp->wait, ATTENTION_DATA | ATTENTION_DOORBELL, pp->fence_mode);
}

/* 0, an error, or 1: choose again. A long run that has no room now shrinks to its first message,
 * which waits. */
static int claim_run(struct shmq_producer *p, const struct shmq_message *messages, struct run *run,
                     uint64_t deadline_ns, uint64_t *ret_offset, struct error_buffer *why)
{
    struct ring_producer *ring = &p->partitions[run->partition].ring;
    bool moved = false;

    while (ring_claim_as(ring, run->size, ring->multi, ring->overwrites, ret_offset) != RING_OK) {
        uint64_t until_ns = run->count > 1 ? clock_monotonic_ns() : deadline_ns;
        int rc = producer_make_room(p, run->partition, run->size, until_ns, &moved, why);

        if (rc == SHMQ_EFULL && run->count > 1) {
            run->count = 1;
            run->size = record_size(message_length(&messages[0]));
            continue;
        }
        if (rc < 0)
            return rc;
        if (moved)
            return 1;
    }
    return 0;
}

int shmq_publish_batch(shmq_producer *p, struct shmq_message *messages, uint32_t count)
{
    uint64_t deadline_ns = 0;
    uint32_t done = 0;
    int rc = 0;

    if (UNLIKELY(!p || !messages || count == 0 || count > INT32_MAX))
        return handles_usage_error(p ? p->connection->serial : 0,
                                   "publish batch: producer or messages NULL, or their number "
                                   "0 or above 2^31");
    if (handles_forked(p->fork_count))
        return handles_fork_error(p->connection->serial);
    struct error_buffer *why = handles_error(p->connection->serial);

    if (p->claimed)
        return error_set(why, SHMQ_EBUSY,
                         "topic %s: a claim of this producer is outstanding; commit or abort it "
                         "first",
                         p->name);
    deadline_ns = producer_deadline(p);
    while (done < count) {
        uint64_t offset = 0;
        struct run run;

        if (producer_is_called(p))
            rc = producer_attend(p, deadline_ns, why);
        if (rc == 0)
            rc = check_message(p, &messages[done], why);
        if (rc < 0)
            break;
        run = measure_run(p, messages + done, count - done);
        rc = claim_run(p, messages + done, &run, deadline_ns, &offset, why);
        if (rc < 0)
            break;
        if (rc == 1) {
            rc = 0;
            continue;
        }
        if (write_run(p, messages + done, &run, offset) & ATTENTION_CLOSED)
            rc = producer_after_closed(p, run.partition, why);
        if (rc == 1)
            rc = producer_attend(p, deadline_ns, why); /* into the successor's memory, again */
        else if (rc == 0)
            done += run.count;
        if (rc < 0)
            break;
    }
    return done > 0 ? (int)done : rc;
}
