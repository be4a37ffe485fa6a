/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer.h: a consumer: a member of a group on all partitions of a topic.
 *
 *   consumer.c          poll: reading what is there (hot)
 *   consumer_copy.c     the same where producers may overwrite it: copies
 *   consumer_wait.c     poll: spinning, sleeping, claims that stay unstamped; the descriptor
 *   consumer_open.c     open, close, new partitions, opening anew in another session
 *   consumer_offsets.c  commit, seek, position, describe
 *   assignment.c        owning partitions: taking, keeping and losing them; holds and cursors
 *
 * In the order of a partition: committed ≤ first view ≤ position. The group's cursor stands at
 * `committed`; this member's hold at or below the first view that the program may look at; the
 * reader at `position`, behind the last view. A poll gives up the views of the poll before: it
 * moves the hold to position, commits (auto), and hands out what follows.
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
    _Atomic uint64_t watched; /* position, for the notifier's thread */
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
    int failed; /* the whole topic or group: SHMQ_ENOTOPIC, SHMQ_ENOGROUP */
    uint64_t spin_ns;
    struct consumer_partition *partitions;
    uint32_t partition_count;
    uint32_t member;
    uint32_t gate;
    uint64_t group_id;
    uint64_t topic;
    uint64_t look_ns;               /* when to look next at what no event may have announced */
    uint64_t lost_before;           /* lost in an earlier session */
    struct wait_word *words;        /* partition_count + 1 of them */
    struct wait_crew *crew;         /* NULL until more words are needed than one sleep takes */
    struct wait_notifier *notifier; /* NULL until shmq_consumer_fd() */
    struct session *session;
    struct shmq_connection *connection;
    struct shmq_channel *channel;
    struct shmq_consumer *next_in_channel;
    struct shmq_consumer **link;
    uint64_t from_offset;
    uint32_t from; /* enum group_from */
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

/* Makes the list of partitions that are read. */
void assignment_list_owned(struct shmq_consumer *consumer);

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

/* Auto commit of all that earlier polls returned, however little. */
void consumer_commit_all(struct shmq_consumer *consumer) COLD;

/* ---- consumer_copy.c ------------------------------------------------------------------------- */

/* Takes copies into the arena. *ret_full: the arena has no room for more; the next poll goes on here. */
uint32_t consumer_take_copies(struct shmq_consumer *consumer, struct consumer_partition *cp,
                              struct shmq_message *messages, uint32_t max, bool *ret_full);

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

static inline struct ring *consumer_ring(const struct consumer_partition *cp)
{
    return cp->reader.ring;
}

#endif
