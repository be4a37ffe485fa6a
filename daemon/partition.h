/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One partition as the supervisor has it: its segments S, P and W mapped for good, D only while it
 * is worked on; and the work itself: slots, tail, quarantine.
 *
 * What is read from P, D, W and G is a stranger's (I7): it is copied, checked and then used, under
 * guard_run(), since whoever may write a segment may also cut it. Whatever does not add up, or is
 * gone, quarantines this partition and nothing else: S.status says so, everybody on it is woken,
 * and every further call returns SHMQ_ECORRUPT.
 *
 * Exclusion: the control thread alone; against producers and resolvers the recovery byte of P, by a
 * description of our own. Nothing waits but the making of segments (the kernel clears memory). If
 * the process dies here: a slot stays its client's until the next supervisor has cleared it;
 * segments that no metadata names are unlinked at its start.
 */
#ifndef SHMQ_DAEMON_PARTITION_H
#define SHMQ_DAEMON_PARTITION_H

#include "daemon/guard.h"
#include "libshmq/error.h"
#include "libshmq/protocol.h"
#include "libshmq/ring.h"
#include "libshmq/segment.h"

#include <stdbool.h>

/* How far a log jumps that has lost its memory: beyond all offsets that were given out since its
 * end was last written down. */
#define PARTITION_JUMP_BYTES (UINT64_C(1) << 50)

struct topic;
struct realm;
struct flush_log;

struct partition {
    struct topic *topic;
    uint32_t index;
    bool quarantined;
    uint64_t salt;
    uint64_t base;
    uint64_t mark; /* what the metadata knows of its end */
    uint64_t
        history_end; /* durable topics: where the log ended before its memory was lost, to go on
                                at `base`; equal to that otherwise */
    uint64_t saved_first;    /* durable topics: purged below, as the metadata knows it */
    uint64_t tail_seen;      /* tail only grows */
    uint64_t records_before; /* published by slots that were given back; a statistic */
    struct segment state; /* S, writable; all three unmapped: the partition could not be opened */
    struct segment producers;
    struct segment wait;
    struct flush_log *log; /* durable topics, while it is flushed; else NULL */
};

static inline struct state_segment *partition_state(const struct partition *partition)
{
    return partition->state.address;
}

static inline struct wait_segment *partition_wait(const struct partition *partition)
{
    return partition->wait.address;
}

/* ---- partition.c: making, opening, ending ---------------------------------------------------- */

/* Makes S, P, W and D, the log beginning at `base`. topic and index are set. On failure nothing is
 * left. */
int partition_create(struct partition *partition, uint64_t base, struct error_buffer *why);

/* Maps those that a supervisor before has made. 0; 1: they are not all there, or contradict
 * themselves or the metadata, said in `why`: the partition has to begin anew. Negative: they are of
 * another layout version, or cannot be opened for want of something; nothing was changed. */
int partition_attach(struct partition *partition, struct error_buffer *why);

void partition_unmap(struct partition *partition);
void partition_unlink(struct partition *partition); /* all names; absent ones are fine */

/* Bytes of all segments of one partition with these options, groups not counted. */
uint64_t partition_bytes(uint64_t ring_bytes, uint32_t slot_count);

/* ---- partition.c: work ----------------------------------------------------------------------- */

/* Runs `fn` guarded over S, P, W and, if it is not NULL, one group's segment. SHMQ_ECORRUPT from
 * the guard or from `fn` quarantines the partition. */
int partition_run(struct partition *partition, const struct segment *group, guard_fn *fn,
                  void *context);

/* Takes it out of use: S.status, everybody woken, one line in the log. Idempotent. */
void partition_quarantine(struct partition *partition, const char *format, ...) PRINTF_LIKE(2, 3);

/* The log's end, checked against all that is known of it, slots and head included. 0 or
 * SHMQ_ECORRUPT. */
int partition_read_tail(struct partition *partition, uint64_t *ret_tail);

/* Wakes all who sleep on the partition's words. */
void partition_wake(struct partition *partition);

/* Says in S and W that it is over, and wakes everybody. */
void partition_close(struct partition *partition, enum partition_status status);

/* `what` for messages: "topic NAME/INDEX". */
const char *partition_label(const struct partition *partition, char buffer[NAME_BYTES + 32]);

/* ---- partition_slot.c ------------------------------------------------------------------------ */

/* Opens S, P, W, D for a client: four new descriptions in `ret_fds`, the caller's. */
int partition_open_fds(struct partition *partition, bool producer, int ret_fds[4],
                       struct error_buffer *why);

/* Gives a free producer slot to the client, or the one that the same request (`token`) got before.
 * producers_fd: a writable description of P. SHMQ_EBUSY (single: names the owner), SHMQ_ELIMIT,
 * SHMQ_EAGAIN (somebody holds the recovery byte: a moment), SHMQ_ECORRUPT. */
int partition_assign_slot(struct partition *partition, uint64_t client, uint64_t token,
                          int producers_fd, uint32_t *ret_slot, struct error_buffer *why);

/* Clears all slots of `client` (or only `only_slot`, if it is below SLOTS_MAX), resolving what they
 * claim. *ret_cleared is how many were. 0; SHMQ_EAGAIN: some have to be tried again soon;
 * SHMQ_ECORRUPT. */
int partition_clear_slots(struct partition *partition, uint64_t client, uint32_t only_slot,
                          uint32_t *ret_cleared);

/* At a start: takes gates out of S whose groups the metadata does not know: a deletion that was not
 * finished. */
void partition_close_gates(struct partition *partition);

/* At a start: counts the slots of clients that are known to them, clears those of strangers. */
void partition_adopt_slots(struct partition *partition);

/* The partition goes: its slots no longer count to their clients. */
void partition_forget_slots(struct partition *partition);

/* Slots in use; and how many of them are the client's (CLIENT_NONE: none). */
uint32_t partition_count_slots(struct partition *partition, uint64_t client, uint32_t *ret_its);

/* ---- partition_view.c ------------------------------------------------------------------------ */

/* A partition with its D and the segments of its groups, for one piece of work. Large: on the stack
 * of one function. */
struct partition_view {
    struct partition *partition;
    struct ring ring;
    struct guard_range ranges[4 + GATES_MAX];
    uint32_t range_count;
};

/* 0; SHMQ_ECORRUPT (quarantined now), or an error of the system. */
int partition_view_open(struct partition *partition, struct partition_view *view,
                        struct error_buffer *why);
void partition_view_close(struct partition_view *view);

/* Like partition_run(), over all that the view has mapped. */
int partition_view_run(struct partition_view *view, guard_fn *fn, void *context);

/* Pads the claim at `offset` if its owner is dead; wakes the readers. Quarantines what is corrupt.
 * */
int partition_resolve(struct partition *partition, uint64_t offset, enum resolve_result *ret_result,
                      struct error_buffer *why);

/* What `shmq doctor` and EFULL name. */
int partition_describe(struct partition *partition, struct protocol_partition_info *ret_info,
                       struct error_buffer *why);

/* ---- partition_flush.c: durable topics; the others: nothing ----------------------------------- */

/* Mappings that the flusher has of one partition. */
#define PARTITION_FLUSH_MAPPINGS 5u

/* Of a partition that was just made: its directory, and it is flushed from now on. */
int partition_flush_new(struct partition *partition, struct error_buffer *why);

/* At a start, of one that was attached: flushing goes on where it was durable. Quarantines it if journal and memory are
 * not of the same log. */
int partition_flush_on(struct partition *partition, struct error_buffer *why);

/* At a start, of one whose memory is gone, with or without the host: scans the end of its journal, makes new memory
 * behind every offset ever used, and flushes it. */
int partition_recover(struct partition *partition, struct error_buffer *why);

/* After the topic's options, or saved_first, have changed. */
void partition_set_flush_options(struct partition *partition);

/* The files stay. */
void partition_stop_flushing(struct partition *partition);

/* Before the metadata say that the topic is deleted its directory does (NAME.ID.deleted), so that a start finds one or
 * the other: a topic's, which gets its name back, or nobody's, which goes. Pardon: it is not deleted after all. */
void topic_condemn_journals(struct topic *topic);
void topic_pardon_journals(struct topic *topic);

/* The topic is deleted: its files go, in the background. */
void topic_remove_journals(struct topic *topic);

/* At a start: finishes removals, and warns of journals that belong to no topic. */
void journals_sweep(struct realm *realm);

/* ---- partition_journal.c: durable topics ------------------------------------------------------ */

/* NULL: it has none. */
struct journal *partition_journal(const struct partition *partition);

/* The oldest offset in the journal, where a record begins; UINT64_MAX: nothing is in it. Not under a guard: it
 * takes a lock. */
uint64_t partition_journal_first(const struct partition *partition);

/* Where the log ended before it lost its memory and went on at `base`; `base` if it never did. Not under a guard. */
uint64_t partition_history_end(const struct partition *partition);

/* Of the offsets from `from` to the log's end those that never were in it: it goes on behind them whenever it
 * has lost its memory. */
uint64_t partition_jumped(const struct partition *partition, uint64_t from);

/* The journal's part of partition_describe(). */
void partition_describe_journal(const struct partition *partition,
                                struct protocol_partition_info *info);

#endif
