/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer.h: a consumer: a member of a group on all partitions of a topic.
 *
 *   consumer.c          poll: reading what is there (hot)
 *   consumer_copy.c     the same where producers may overwrite it: copies
 *   consumer_wait.c     poll: spinning, sleeping, claims that stay unstamped; the descriptor
 *   consumer_open.c     open, close, new partitions, opening anew in another session
 *   consumer_journaled.c the same of durable topics, where it is not as plain as that
 *   consumer_history.c  the same where the ring no longer has it: from the journal
 *   consumer_offsets.c  commit, position, describe
 *   consumer_seek.c     moving to another offset, or to a time
 *   assignment.c        owning partitions: taking, keeping and losing them; holds and cursors
 *
 * In the order of a partition: committed ≤ first view ≤ position. The group's cursor stands at
 * `committed`; this member's hold at or below the first view that the program may look at; the
 * reader at `position`, behind the last view. A poll gives up the views of the poll before: it
 * moves the hold to position, commits (auto), and hands out what follows.
 *
 * A durable topic's partition is read in one of two places. *Behind*: from journal files, because the ring no
 * longer has the reader's position, or may lose it at any moment; its group holds nobody back then. In the ring:
 * as ever. Which of the two is decided when the partition is taken, at a seek, when a reader was lapped
 * (consumer_fall_behind()), and when one that was behind has come close enough to the end (catch_up()). Both go by
 * the same positions, so nothing is read twice or left out.
 *
 * One thread at a time, but for the notifier's thread, which reads `watched` and shared words only,
 * and for which assignment and unmapping stop (consumer_pause_watch). Whatever is read from P, D
 * and G is hostile: lengths are read once and bounded. If the process dies here: shmqd clears the
 * hold, and the next owner begins at the cursor.
 */
#ifndef SHMQ_CONSUMER_H
#define SHMQ_CONSUMER_H

#include "libshmq/attach.h"
#include "libshmq/channel.h"
#include "libshmq/clock.h"
#include "libshmq/cursor.h"
#include "libshmq/ring.h"
#include "libshmq/shmq.h"
#include "libshmq/wait.h"
#include "libshmq/wait_crew.h"
#include "libshmq/wait_notifier.h"

struct consumer_history;

struct consumer_partition {
    struct ring_reader reader;
    struct group_segment *group;
    struct group_member *me; /* this member's line in G */
    struct wait_segment *wait;
    uint64_t cursor_word; /* the group's cursor as this owner last set or saw it */
    uint64_t committed;   /* what it means */
    uint64_t batch;       /* auto commit: bytes after which the cursor moves */
    bool owned;
    bool fenced; /* commits fail under this assignment: another is on its way */
    bool copies; /* drop-old: validated copies instead of views; no holds */
    bool fence_mode;
    bool after_loss; /* the next message follows a gap */
    bool
        journaled; /* not the plain way: behind, only what is durable, or copies of a durable topic */
    int dead; /* 0, or why nothing is read here any more; told once. Without attachment: since it
                 was opened */
    bool told;

    /* Cold from here on. */
    uint32_t index;
    bool view_hold;  /* the hold is set although the partition was lost: until the next poll */
    uint64_t assign; /* the assign word under which it is, or last was, owned */
    uint64_t lost_bytes;
    uint64_t
        stuck_position; /* where an unstamped record was found, since when, and when to ask next */
    uint64_t stuck_ns;
    uint64_t ask_ns;
    uint64_t ask_pause_ns;
    bool behind;       /* read from the journal */
    bool durable_only; /* nothing above `durable` is handed out */
    bool exact;        /* a record begins at position: it was come to by reading */
    bool sought;       /* what is missing behind it was not lost: it was never asked for */
    bool fresh; /* copies: came into the ring from the journal, and has read nothing there yet */
    bool pending_time; /* not read before it has been moved to consumer.from_time_ns */
    uint32_t wait_bit; /* what is slept for: ATTENTION_DATA, or ATTENTION_DURABLE */
    uint64_t
        skip_before_ns; /* messages of an earlier time are passed over, up to the first later one */
    struct consumer_history
        *history;             /* open file and window; may outlive `behind` until the next poll */
    _Atomic uint64_t watched; /* position, for the notifier's thread */
    _Atomic bool watched_pauses; /* the journal cannot be read right now */
    const struct gate *gate;
    struct segment group_mapping;
    struct attachment *attachment;
};

#define STREAM_STREAK 4u /* so many long runs in a row may be a stream */

struct shmq_consumer {
    /* Read by every poll. */
    uint32_t fork_count;
    uint32_t event_seen;
    const _Atomic uint32_t *event;
    struct consumer_partition **owned; /* those that are read */
    uint32_t owned_count;
    struct consumer_partition *sole; /* the one that is read, if it is the only one and has views */
    uint32_t next;                   /* where the next poll begins among them */
    uint32_t run;                    /* messages since a poll found nothing */
    uint32_t streak;                 /* so many runs in a row were long: a stream */
    uint32_t prefetch;               /* messages of one partition in one poll */
    uint32_t wait;                   /* enum shmq_wait */
    bool auto_commit;
    bool stopped; /* something has to be said or done before anything is read: consumer_attend() */

    /* Copies of drop-old messages, valid until the next poll. */
    unsigned char *arena;
    size_t arena_bytes;
    size_t arena_used;

    /* Cold. */
    uint32_t paths; /* +1 whenever `owned`, or how one of them is read, has changed */
    int failed;     /* the whole topic or group: SHMQ_ENOTOPIC, SHMQ_ENOGROUP */
    uint64_t spin_ns;
    struct consumer_partition *partitions;
    uint32_t partition_count;
    uint32_t member;
    uint32_t gate;
    uint64_t group_id;
    uint64_t topic;
    uint64_t look_ns;     /* when to look next at what no event may have announced */
    uint64_t silent_ns;   /* the supervisor does not answer: no journal is asked for until then */
    uint64_t lost_before; /* lost in an earlier session */
    struct wait_word *words;        /* partition_count + 1 of them */
    struct wait_crew *crew;         /* NULL until more words are needed than one sleep takes */
    struct wait_notifier *notifier; /* NULL until shmq_consumer_fd() */
    struct session *session;
    struct shmq_connection *connection;
    struct shmq_channel *channel;
    struct shmq_consumer *next_in_channel;
    struct shmq_consumer **link;
    uint64_t from_offset;
    uint64_t from_time_ns;
    uint32_t from; /* enum group_from */
    bool from_time;
    bool durable_only;
    char name[NAME_BYTES];
    char group[NAME_BYTES];
};

/* ---- assignment.c ---------------------------------------------------------------------------- */

/* Looks at who owns each partition, takes what is this member's, drops what is not any more, makes
 * `owned` anew. 0; SHMQ_ENOGROUP: the group was deleted. */
int assignment_refresh(struct shmq_consumer *consumer, struct error_buffer *why) COLD;

/* The views of the last poll are given up: holds of partitions that were lost meanwhile are
 * released. */
void assignment_release_views(struct shmq_consumer *consumer) COLD;

/* Moves the cursor to the reader's position and wakes producers that wait for room. 0, or
 * SHMQ_EFENCED: another owner took over, and the partition is not owned any more. */
int assignment_commit(struct shmq_consumer *consumer, struct consumer_partition *cp) COLD;

/* After EFENCED, with views still out: true if the partition was handed over to this very member (a
 * purge), and is read from where the cursor stands now. Else it is dropped. */
bool assignment_recheck(struct shmq_consumer *consumer, struct consumer_partition *cp) COLD;

/* Makes the list of partitions that are read, and chooses how each of them is. To be called whenever something
 * changes that this depends on. */
void assignment_list_owned(struct shmq_consumer *consumer);

/* From now on nobody overwrites what stands at or above `offset`, though the group's cursor does not say so:
 * true, and the member's hold is there. False: somebody may be at it, and no hold is set. Policies block and
 * reject; views have been given up. */
bool assignment_join_ring(struct consumer_partition *cp, uint64_t offset);

/* Lets go of everything: holds NONE, nothing owned. */
void assignment_drop_all(struct shmq_consumer *consumer);

/* The lowest offset that may be looked at from here on. Plain release stores, never NONE in
 * between, so that a producer sees either bound, and both are below what is looked at. */
static ALWAYS_INLINE void assignment_hold(struct consumer_partition *cp, uint64_t offset)
{
    /* ORDER hold -> refresh: release: what was looked at below has been read; pairs with the
     * acquire loads of holds in cursor.c. */
    atomic_store_explicit(&cp->me->hold, offset, memory_order_release);
}

/* ---- consumer.c ------------------------------------------------------------------------------ */

/* Takes what is there, from all owned partitions, without waiting. Returns how many. A partition
 * that turns out to be dead sets `stopped`. */
uint32_t consumer_take(struct shmq_consumer *consumer, struct shmq_message *messages, uint32_t max);

/* Nothing but padding from `start` to the reader's position: no message comes of it that the program could commit, so
 * it would hold producers back until one does, or, with manual commit, for ever. What was returned before it goes
 * first. */
void consumer_pass_padding(struct shmq_consumer *consumer, struct consumer_partition *cp,
                           uint64_t start) COLD;

/* Auto commit of all that earlier polls returned, however little. */
void consumer_commit_all(struct shmq_consumer *consumer) COLD;

/* ---- consumer_copy.c ------------------------------------------------------------------------- */

/* Takes copies into the arena. *ret_full: the arena has no room for more; the next poll goes on here. */
uint32_t consumer_take_copies(struct shmq_consumer *consumer, struct consumer_partition *cp,
                              struct shmq_message *messages, uint32_t max, bool *ret_full);

/* ---- consumer_journaled.c -------------------------------------------------------------------- */

/* Takes from a `journaled` partition, wherever it is read. *ret_full as above. */
uint32_t consumer_take_journaled(struct shmq_consumer *consumer, struct consumer_partition *cp,
                                 struct shmq_message *messages, uint32_t max, bool *ret_full);

/* What the poll before returned from the journal is given up: nothing is held there; auto commit. */
void consumer_give_up_history(struct shmq_consumer *consumer, struct consumer_partition *cp);

/* The reader was lapped at `position`. True: it is read from the journal from there on, and nothing is lost.
 * False: it is no durable topic, or its readers skip (drop-old). */
bool consumer_fall_behind(struct shmq_consumer *consumer, struct consumer_partition *cp,
                          uint64_t position);

/* In the ring, at a record's beginning: passes what is older than skip_before_ns. */
void consumer_skip_older(struct consumer_partition *cp);

/* ---- consumer_history.c ---------------------------------------------------------------------- */

/* Takes from one that is behind. 0: nothing now, or it is in the ring from here on. */
uint32_t consumer_take_history(struct shmq_consumer *consumer, struct consumer_partition *cp,
                               struct shmq_message *messages, uint32_t max);

/* Of one that is behind: goes on to the next message, or into the ring, as far as that is possible now; takes
 * nothing. 0, or why the journal cannot be read, with a sentence; then it stays where it is. */
int consumer_settle(struct shmq_consumer *consumer, struct consumer_partition *cp,
                    struct error_buffer *why);

/* An error of a partition that is behind, for shmq_poll() to return: one that has stayed for a while. Not that no
 * supervisor answers, which is waited for. 0: none. */
int consumer_tell_history(struct shmq_consumer *consumer);

/* When the journal is to be asked for again; 0: nothing is waited for. */
uint64_t consumer_history_retry_ns(const struct consumer_partition *cp);

/* Closes the file and frees. `forked`: the descriptor is not this process's. */
void consumer_free_history(struct consumer_partition *cp, bool forked);

/* ---- consumer_seek.c ------------------------------------------------------------------------- */

/* Moves partitions with `pending_time`; an error leaves them so. */
int consumer_seek_pending(struct shmq_consumer *consumer, uint64_t deadline_ns,
                          struct error_buffer *why) COLD;

/* ---- consumer_offsets.c ---------------------------------------------------------------------- */

int consumer_refuse_fenced(const struct shmq_consumer *consumer, uint32_t partition,
                           struct error_buffer *why);

/* 0 or the error of using a handle that is not this process's. */
int consumer_check_handle(const struct shmq_consumer *consumer, const char *sentence);

/* ---- consumer_wait.c ------------------------------------------------------------------------- */

int consumer_wait(struct shmq_consumer *consumer, struct shmq_message *messages, uint32_t max,
                  uint64_t deadline_ns) COLD;

/* What the event word, or time, may have brought: new partitions, assignments, another session,
 * deletion. */
int consumer_attend(struct shmq_consumer *consumer, uint64_t deadline_ns,
                    struct error_buffer *why) COLD;

/* Around changes of what the notifier's thread looks at. Without a notifier nothing. */
void consumer_pause_watch(struct shmq_consumer *consumer);
void consumer_resume_watch(struct shmq_consumer *consumer);

/* ---- consumer_open.c ------------------------------------------------------------------------- */

/* Some partition that is open (quarantined ones are not): what is the same in all of them is read
 * there. */
const struct consumer_partition *consumer_any(const struct shmq_consumer *consumer);

int consumer_reopen(struct shmq_consumer *consumer, uint64_t deadline_ns,
                    struct error_buffer *why) COLD;
int consumer_grow(struct shmq_consumer *consumer, uint32_t partition_count, uint64_t deadline_ns,
                  struct error_buffer *why) COLD;

/* Relaxed: a hint; who follows it reads what it announces with acquire. */
static ALWAYS_INLINE bool consumer_is_called(const struct shmq_consumer *consumer)
{
    return UNLIKELY(atomic_load_explicit(consumer->event, memory_order_relaxed) !=
                    consumer->event_seen);
}

static inline bool consumer_is_durable(const struct consumer_partition *cp)
{
    return cp->reader.ring->durable;
}

/* Of a durable topic: what was purged below, in whatever memory. */
static inline uint64_t consumer_first(const struct consumer_partition *cp)
{
    return atomic_load_explicit(&cp->reader.ring->state->first, memory_order_acquire);
}

/* So many bytes before the next message will never be read. */
static inline void consumer_note_loss(struct consumer_partition *cp, uint64_t bytes)
{
    cp->lost_bytes += bytes;
    cp->after_loss = true;
    /* Relaxed: a statistic. */
    atomic_store_explicit(&cp->me->lost_bytes, cp->lost_bytes, memory_order_relaxed);
}

static inline struct ring *consumer_ring(const struct consumer_partition *cp)
{
    return cp->reader.ring;
}

#endif
