/* partition.h: a partition without a supervisor, for tests of ring, cursor and recovery, alone
 * and in several processes.
 *
 * Its segments are memfds: nothing to leak. A forked child maps them itself (partition_open()):
 * mappings of shmq do not survive fork. Who is dead is said by the test: partition_declare_dead().
 */
#ifndef SHMQ_TEST_SUPPORT_PARTITION_H
#define SHMQ_TEST_SUPPORT_PARTITION_H

#include "libshmq/cursor.h"
#include "libshmq/ring.h"

#define PARTITION_CLIENTS 64

struct partition {
    int fds[4]; /* S P W D */
    _Atomic int group_fds[GATES_MAX];
    struct segment state;             /* S, writable: the test is its supervisor */
    struct segment groups[GATES_MAX]; /* G, writable */
    _Atomic uint8_t *dead;            /* by client id, in shared memory */
    uint64_t salt;
};

/* Capacity ≥ RING_MIN_BYTES; the log begins at `base`. */
void partition_init(struct partition *partition, uint64_t capacity, enum overflow_policy policy,
                    enum producers_mode producers, uint64_t base);
void partition_deinit(struct partition *partition);

/* Its segments as zeroed and initialised anew, for the next round of a test. Nobody else may use
 * it meanwhile. */
void partition_reset(struct partition *partition, uint64_t base);

/* Maps it in this process; all writable, with a description of P of its own. */
void partition_open(struct partition *partition, struct ring *ret_ring);

/* The same mappings for another thread of this process, so that ThreadSanitizer sees both at one
 * address; with gates of its own. Closed by partition_unshare(), before the mapping itself. */
void partition_share(const struct ring *ring, struct ring *ret_ring);
void partition_unshare(struct ring *ring);

/* As shmqd does it: slot_client. */
void partition_assign_slot(struct partition *partition, uint32_t slot, uint64_t client);
void partition_declare_dead(struct partition *partition, uint64_t client);

/* S through a ring's own mapping, writable here. */
struct state_segment *partition_state(const struct ring *ring);

/* Enters a group in gate `index` (id index + 1), raises the epoch, attaches its cursor at x.
 * Member 0 is client. */
struct group_segment *partition_add_group(struct partition *partition, struct ring *ring,
                                          uint32_t index, uint64_t x, bool gates);

/* The test's ways to make and check messages: the body says who made it, its number and its
 * length, and the rest follows from these, so that a torn or foreign byte shows. */
struct message_tag {
    uint32_t producer;
    uint32_t number;
};
#define MESSAGE_BODY_MIN 16u
void message_fill(unsigned char *body, uint32_t bytes, struct message_tag tag);
bool message_check(const unsigned char *body, uint32_t bytes, struct message_tag *ret_tag);

/* Claim, fill, commit; waits for nothing. RING_OK, RING_NO_ROOM. */
int partition_publish(struct ring_producer *producer, uint32_t body_bytes, struct message_tag tag);

/* Reads the next record in place: its body's length, 0 if none. Fails the test when the content
 * is torn. */
uint32_t partition_take(struct ring_reader *reader, struct message_tag *ret_tag);

#endif
