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
    uint64_t most;

    if (anywhere)
        run.partition = producer_pass_dead(p, run.partition);
    most = producer_any(p)->ring.capacity >> RING_CLAIM_SHIFT;
    for (; run.count < count; run.count++) {
        const struct shmq_message *message = &messages[run.count];

        if (message_has_holes(message) || message_length(message) > p->max_message ||
            run.size + record_size(message_length(message)) > most)
            break;
        if (goes_anywhere(message) ? !anywhere
                                   : anywhere || producer_choose(p, message) != run.partition)
            break;
        run.size += record_size(message_length(message));
    }
    return run;
}

/* Writes the claim at `offset`; returns the attention word. */
static uint32_t write_run(struct shmq_producer *p, struct shmq_message *messages,
                          const struct run *run, uint64_t offset)
{
    struct producer_partition *pp = &p->partitions[run->partition];
    uint64_t timestamp_ns = producer_timestamp(p);
    uint64_t at = offset;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < run->count; i++) {
        uint64_t length = message_length(&messages[i]);

        producer_write(pp, at, (uint32_t)length, timestamp_ns, &messages[i]);
        if (i > 0)
            ring_stamp(&pp->ring, at, RECORD_COMMITTED);
        messages[i].offset = at;
        messages[i].timestamp_ns = timestamp_ns;
        messages[i].partition = run->partition;
        at += record_size(length);
        bytes += length;
    }
    ring_stamp(&pp->ring, offset, RECORD_COMMITTED); /* last: now all of them are there */
    ring_release_claim(&pp->ring);
    uint32_t attention = wait_wake(pp->wait, ATTENTION_DATA, pp->fence_mode);

    ring_count(&pp->ring, run->count, bytes);
    return attention;
}

/* 0, an error, or 1: choose again. A long run that has no room now shrinks to its first message,
 * which waits. */
static int claim_run(struct shmq_producer *p, const struct shmq_message *messages, struct run *run,
                     uint64_t deadline_ns, uint64_t *ret_offset, struct error_buffer *why)
{
    struct ring_producer *ring = &p->partitions[run->partition].ring;
    bool moved = false;

    while (ring_claim(ring, run->size, ret_offset) != RING_OK) {
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
