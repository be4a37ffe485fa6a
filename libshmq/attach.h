/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach.h: one partition of a topic, mapped for one producer or consumer: descriptors from shmqd,
 * checked segments, and what the ring asks of the outside world (ring_ops).
 *
 * An attachment belongs to the thread of its channel, and holds a reference to the session under
 * which shmqd granted it. attachment_open() and the giving back of a slot are control calls, and
 * block until their deadline; the rest does not block. If the process dies, shmqd takes the slot
 * back, after the claim that it names.
 */
#ifndef SHMQ_ATTACH_H
#define SHMQ_ATTACH_H

#include "libshmq/control.h"
#include "libshmq/ring.h"

struct attachment {
    struct ring ring;
    struct shmq_connection *connection;
    struct session *session;
    /* Producers: what ring.producers_fd names; closed by us, not by the ring. */
    struct tracked_fd producers_fd;
    uint64_t topic;
    uint32_t partition;
    uint32_t slot; /* producers: of the partition's slots */
    enum partition_role role;
};

/* Opens partition `partition` of topic id `topic`. 0; SHMQ_ECLOSED (the session is over),
 * SHMQ_ENOTOPIC, SHMQ_EBUSY, SHMQ_ELIMIT, SHMQ_ECORRUPT, SHMQ_EVERSION, SHMQ_ENOMEM, and those of
 * control_run(). */
int attachment_open(struct shmq_connection *connection, struct session *session, uint64_t topic,
                    uint32_t partition, enum partition_role role, uint64_t deadline_ns,
                    struct attachment **ret_attachment, struct error_buffer *why);

/* Unmaps and frees. A producer's slot is given back if `deadline_ns` is not 0: its claim is
 * committed or aborted; with 0 the session's end gives it back. In a forked child: frees only. NULL
 * is fine. */
void attachment_close(struct attachment *attachment, uint64_t deadline_ns);

/* Maps the G segment of `group` in gate `gate`. */
int attachment_map_group(struct attachment *attachment, uint32_t gate, uint64_t group,
                         bool writable, uint64_t deadline_ns, unsigned flags,
                         struct segment *ret_segment, struct error_buffer *why);

/* Asks shmqd for a file of the partition's journal: the one in which `offset` lies, else the oldest above it; with
 * `time_ns` not 0 the first in which something of that time or later may be. *ret_fd gets its descriptor if
 * ret_opened->present. 0, and those of control_run(); what the reply says does not contradict itself. `flags` are
 * control_call's. */
int attachment_open_journal(struct attachment *attachment, uint64_t offset, uint64_t time_ns,
                            uint64_t deadline_ns, unsigned flags,
                            struct protocol_journal_opened *ret_opened, struct tracked_fd *ret_fd,
                            struct error_buffer *why);

/* `status` in S as an error: 0, SHMQ_ENOTOPIC (deleted), SHMQ_ECORRUPT (quarantined), with a
 * sentence. */
int attachment_check_status(const struct attachment *attachment, struct error_buffer *why);

static inline uint32_t attachment_status(const struct attachment *attachment)
{
    /* ORDER close -> notice: acquire: what shmqd did before it said so is seen; pairs with
     * store_status() in daemon/partition.c. */
    return atomic_load_explicit(&attachment->ring.state->status, memory_order_acquire);
}

/* Deleted or quarantined: nothing is read or written any more. */
static inline bool attachment_is_over(const struct attachment *attachment)
{
    uint32_t status = attachment_status(attachment);

    return status == PARTITION_DELETED || status == PARTITION_QUARANTINED;
}

/* Everything below is in the journal as the topic's durability promises; UINT64_MAX: it has none. */
static inline uint64_t attachment_durable(const struct attachment *attachment)
{
    /* ORDER durable -> confirm: acquire: what is below can be read in a file, and has been synced; pairs with
     * raise_durable() in daemon/flush_sync.c. */
    return atomic_load_explicit(&attachment->ring.state->durable, memory_order_acquire);
}

/* Before sleeping for `durable` or for room that it gives: a flusher that naps gets up. No system call unless it
 * does. */
static inline void attachment_ring_flusher(const struct attachment *attachment)
{
    const struct ring *ring = &attachment->ring;

    if (ring->durable)
        (void)wait_wake(ring->wait, ATTENTION_NAP, ring->fence_mode);
}

/* Who holds the ring back, as a sentence without the topic: "group 'g' stands 4096 bytes behind
 * (pid 7, cat); …". */
void attachment_describe_blocker(const struct attachment *attachment, char *text,
                                 size_t text_bytes);

/* What the journal waits for, in the same way: "the journal is 4096 bytes behind: No space left on device; …". */
void attachment_describe_journal(const struct attachment *attachment, char *text,
                                 size_t text_bytes);

/* Asks shmqd to resolve the claim at `offset`: for those who may not write P and D. */
int attachment_ask_resolve(struct attachment *attachment, uint64_t offset, uint64_t deadline_ns);

#endif
