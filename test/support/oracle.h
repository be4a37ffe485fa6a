/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oracle.h: what durable topics promise, against what they keep. A ledger of every publish and every confirm, and
 * what a reader found afterwards:
 *
 *     confirmed and lost = 0        read back but never published = 0        order per producer kept
 *     nothing doubled               nothing moved: it stands where publish said, and no offset is used twice
 *
 * Messages describe themselves: ledger, producer (*lane*), a number of their own, length, checksum, and bytes that follow
 * from these. Each call of publish has a number of its own: one that is made again because the outcome of
 * the first was not known is another message, and both may come. So a number that comes twice is always a mistake,
 * except for a group that reads on after its memory was lost, or another member's death: at least once, at
 * the same offset.
 *
 * The ledger lies in anonymous shared memory: outside the file system under test, and alive when a producer is killed
 * anywhere: it enters a number as attempted before it publishes it, and as confirmed after the confirm. A number
 * is written by its producer alone, a view by its reader alone, until they have ended; then the test judges. A crash
 * of the host ends an age: oracle_settle() decides what was not known, and from then on what was read must always be
 * there, and what was not must never come.
 *
 * Judging counts and changes nothing, so that made-up readings can be judged as well (test_support_oracle.c).
 */
#ifndef SHMQ_TEST_SUPPORT_ORACLE_H
#define SHMQ_TEST_SUPPORT_ORACLE_H

#include "libshmq/shmq.h"
#include "test/support/test.h"

#define ORACLE_LANES      8u
#define ORACLE_PARTITIONS 8u
#define ORACLE_BODY_LEAST 48u
#define ORACLE_WHY        240

struct oracle;      /* the ledger */
struct oracle_view; /* what one reader, or one group's readers one after the other, got */

struct oracle_options {
    uint64_t messages; /* of each lane, at most; 0: 2^18 */
    uint32_t largest;  /* bytes of a body, ORACLE_BODY_LEAST at least; 0: 900 */
    uint64_t
        seed; /* of lengths and contents; ledgers with other seeds know each other's messages as strange */
};

struct oracle *oracle_new(const struct oracle_options *options);
void oracle_free(struct oracle *oracle);

/* ---- producers ------------------------------------------------------------------------------- */

/* The next number of the lane, now attempted; UINT64_MAX: the ledger is full. */
uint64_t oracle_attempt(struct oracle *oracle, unsigned lane);
/* Its body, in `buffer` of `largest` bytes. Returns the length. A key, if there is one, has to be its beginning. */
uint32_t oracle_fill(const struct oracle *oracle, unsigned lane, uint64_t number, void *buffer);
uint32_t oracle_largest(const struct oracle *oracle);

/* How the attempt ended; nothing of these: it is not known. `message` as publish filled it in. */
void oracle_note_published(struct oracle *oracle, unsigned lane, uint64_t number,
                           const struct shmq_message *message);
void oracle_note_refused(struct oracle *oracle, unsigned lane, uint64_t number);
void oracle_note_confirmed(struct oracle *oracle, unsigned lane, uint64_t number);

uint64_t oracle_confirmed(const struct oracle *oracle, unsigned lane); /* how many */
uint64_t oracle_attempts(const struct oracle *oracle, unsigned lane);

/* ---- readers --------------------------------------------------------------------------------- */

#define ORACLE_REPEATS 1u /* at least once: a place may come again, with the same message */
#define ORACLE_WITNESS \
    2u /* it reads only what is durable: what it has seen may not be lost either */

struct oracle_view *oracle_view_new(struct oracle *oracle, unsigned flags);
void oracle_view_free(struct oracle_view *view);

/* Enters a polled message. False: there is something wrong with it. */
bool oracle_take(struct oracle_view *view, const struct shmq_message *message);
/* The same reader begins again, at an earlier place or as another process. */
void oracle_view_rewind(struct oracle_view *view);
uint64_t oracle_view_count(const struct oracle_view *view);
/* Everything that is confirmed by now has been seen. */
bool oracle_view_is_complete(const struct oracle_view *view);

/* ---- judging --------------------------------------------------------------------------------- */

enum oracle_demand {
    ORACLE_NO_LOSS = 0,        /* nothing that was confirmed is missing */
    ORACLE_NO_LOSS_AT_ALL = 1, /* nor anything that was published: no memory was lost */
    ORACLE_LOSS =
        2, /* policy os, and the power was cut: what has come since the last settling may be missing */
    ORACLE_RETAINED =
        3, /* as NO_LOSS, from the first message of each partition on that was read: older files went */
};

struct oracle_verdict {
    uint64_t attempted, confirmed;
    uint64_t read;        /* different numbers */
    uint64_t lost;        /* that the demand does not allow */
    uint64_t missing;     /* published and not read, allowed */
    uint64_t invented;    /* never published, refused, or given up for lost before */
    uint64_t torn;        /* not whole */
    uint64_t disordered;  /* behind a later one of its producer, or an offset that went back */
    uint64_t doubled;     /* twice, and that is not allowed; or at two places */
    uint64_t moved;       /* not where publish said */
    uint64_t reused;      /* offsets that publish gave out twice */
    char why[ORACLE_WHY]; /* the first that was found; empty: none */
};

/* Producers and the view's reader stand still. */
void oracle_judge(const struct oracle_view *view, enum oracle_demand demand,
                  struct oracle_verdict *ret_verdict);
bool oracle_is_clean(const struct oracle_verdict *verdict);
/* Judges and fails the test with what is wrong. `what` names the reader. */
bool oracle_check(const struct oracle_view *view, enum oracle_demand demand, const char *what,
                  struct oracle_verdict *ret_verdict);

/* What is confirmed, or read as durable, from now on does not count, until the age is settled. */
void oracle_distrust(struct oracle *oracle);

/* An age is over. What the view saw is kept from now on, what it did not see is gone. */
void oracle_settle(struct oracle_view *view);

#endif
