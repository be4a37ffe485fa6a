/* SPDX-License-Identifier: Apache-2.0 */
/*
 * producer_confirm.c: is a message durable, and waiting until it is (design §4, I8).
 *
 * A confirm compares two integers: the message's end with `durable`, a word that only shmqd can write and that never
 * passes what the topic's durability promises to keep. So there is nothing to be remembered for each message, any
 * number of them may be under way, and the last one of a partition confirms all before it. Where the memory was lost
 * in between that is not so, and is told first, whatever is asked for (producer_partition.doubtful).
 *
 * Called by the channel's thread. Blocks until the deadline, in sleeps of at most a second: the flusher wakes who
 * sleeps for `durable`, and a new supervisor wakes all. If the process dies here nothing is owed.
 */
#include "libshmq/producer.h"

#include <inttypes.h>

/* A flusher that is awake on another core takes 2 µs to the page cache, a sleep and a wake-up 8 µs. More would only keep
 * it from working where it shares this core (13 µs, and 35 µs with a spin of 20); a sync takes fifty times as long. */
#define SPIN_NS UINT64_C(5000)

static uint64_t end_of(const struct shmq_message *message)
{
    return message->offset + record_size(message_length(message));
}

/* Told for the partition, once: of what was published to it before nothing more is known. */
static int refuse_session(struct shmq_producer *p, const struct shmq_message *message,
                          struct error_buffer *why)
{
    if (message->partition < p->partition_count) /* it was made again with fewer */
        p->partitions[message->partition].doubtful = false;
    return error_set(why, SHMQ_ECLOSED,
                     "topic %s/%u: the bus has lost its memory since offset %" PRIu64
                     ", or one before it that was not confirmed, was published: whether they were "
                     "kept is not known; publish them again",
                     p->name, message->partition, message->offset);
}

static int refuse_timeout(const struct shmq_producer *p, const struct producer_partition *pp,
                          const struct shmq_message *message, struct error_buffer *why)
{
    char journal[256];

    attachment_describe_journal(pp->attachment, journal, sizeof(journal));
    return error_set(why, SHMQ_ETIMEOUT,
                     "topic %s/%u: offset %" PRIu64 " is published, but not durable yet: %s",
                     p->name, message->partition, message->offset, journal);
}

/* 0: it is; 1: not yet; or why it never will be, as far as the partition's memory says. */
static int judge(struct shmq_producer *p, const struct producer_partition *pp,
                 const struct shmq_message *message, struct error_buffer *why)
{
    const struct ring *ring = &pp->attachment->ring;

    if (!ring->durable)
        return error_set(why, SHMQ_ENOTSUP,
                         "topic %s: it has no journal; create it with a durability, or confirm "
                         "with SHMQ_PUBLISHED",
                         p->name);
    if (pp->doubtful || message->offset < ring->state->base)
        return refuse_session(p, message, why);
    if (end_of(message) <= attachment_durable(pp->attachment))
        return 0;
    if (message->offset % RECORD_UNIT || end_of(message) > ring_tail(ring))
        return error_set(why, SHMQ_EINVAL,
                         "topic %s/%u: nothing was published at offset %" PRIu64
                         " with these lengths; confirm a message as shmq_publish() filled it in",
                         p->name, message->partition, message->offset);
    return 1;
}

/* What may have happened meanwhile. With a claim outstanding nothing may be opened anew: only what the partition's own
 * memory says. */
static int look_around(struct shmq_producer *p, uint32_t partition, uint64_t deadline_ns,
                       struct error_buffer *why)
{
    if (!p->claimed)
        return producer_look_around(p, partition, deadline_ns, why);
    return attachment_check_status(p->partitions[partition].attachment, why);
}

static void sleep_for_durable(const struct shmq_producer *p, const struct producer_partition *pp,
                              uint64_t end, uint64_t deadline_ns)
{
    struct wait_word words[2];

    words[0] = wait_prepare(pp->wait, ATTENTION_DURABLE);
    words[1] = (struct wait_word){p->event, p->event_seen};
    wait_barrier(pp->fence_mode);
    if (attachment_durable(pp->attachment) >= end)
        return;
    attachment_ring_flusher(pp->attachment);
    (void)wait_sleep(words, 2, min_u64(WAIT_SLEEP_MAX_NS, deadline_left_ns(deadline_ns)));
}

static void spin_for_durable(const struct producer_partition *pp, uint64_t end,
                             uint64_t deadline_ns)
{
    uint64_t until_ns = min_u64(clock_monotonic_ns() + SPIN_NS, deadline_ns);

    attachment_ring_flusher(pp->attachment);
    if (pp->attachment->ring.state->durability != DURABLE_OS)
        return;
    while (attachment_durable(pp->attachment) < end && clock_monotonic_ns() < until_ns)
        for (int i = 0; i < 16; i++)
            cpu_relax();
}

/* It was not durable at the first look. */
static int wait_for_durable(struct shmq_producer *p, const struct shmq_message *message,
                            uint64_t deadline_ns, struct error_buffer *why)
{
    uint32_t generation = p->session->generation;
    bool spun = false;

    for (;;) {
        struct producer_partition *pp;
        int rc = look_around(p, message->partition, deadline_ns, why);

        /* A session that was begun under way has other memory. */
        if (p->session->generation != generation || session_is_over(p->session, p->connection))
            return refuse_session(p, message, why);
        if (rc < 0)
            return rc;
        pp = &p->partitions[message->partition];
        rc = judge(p, pp, message, why);
        if (rc <= 0)
            return rc;
        if (deadline_passed(deadline_ns))
            return refuse_timeout(p, pp, message, why);
        if (!spun)
            spin_for_durable(pp, end_of(message), deadline_ns);
        else
            sleep_for_durable(p, pp, end_of(message), deadline_ns);
        spun = true;
    }
}

int shmq_confirm(shmq_producer *p, const struct shmq_message *message,
                 enum shmq_confirm_level level, int timeout_ms)
{
    const struct producer_partition *pp;
    struct error_buffer *why;
    int rc;

    if (!p || !message || (unsigned)level > SHMQ_DURABLE || (uint32_t)timeout_ms > SHMQ_TIMEOUT_MAX)
        return handles_usage_error(p ? p->connection->serial : 0,
                                   "confirm: producer or message is NULL, the level is unknown, or "
                                   "the timeout is not 0 to 24 hours");
    if (handles_forked(p->fork_count))
        return handles_fork_error(p->connection->serial);
    if (level == SHMQ_PUBLISHED)
        return 0;
    why = handles_error(p->connection->serial);
    if (message->partition >= p->partition_count)
        return error_set(why, SHMQ_EINVAL, "topic %s: partition %u: there are %u, from 0 on",
                         p->name, message->partition, p->partition_count);
    pp = &p->partitions[message->partition];
    if (!pp->attachment)
        return error_set(why, SHMQ_ECORRUPT, "topic %s/%u: is quarantined; run shmq doctor",
                         p->name, message->partition);
    rc = judge(p, pp, message, why);
    if (rc <= 0)
        return rc;
    if (session_is_over(p->session, p->connection))
        return refuse_session(p, message, why);
    /* Who only looks, again and again, has to learn as well that the memory is another one by now. */
    if (timeout_ms == 0 && clock_monotonic_ns() < p->look_ns) {
        rc = attachment_check_status(pp->attachment, why);
        return rc < 0 ? rc : refuse_timeout(p, pp, message, why);
    }
    return wait_for_durable(p, message, deadline_after_ms(timeout_ms), why);
}
