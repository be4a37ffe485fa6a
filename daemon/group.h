/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consumer groups of a topic: their segments G, their entries in the gate tables, members and who
 * of them owns which partition.
 *
 * A new group: G in every partition, metadata synced, entered in S (state, id), gate_epoch + 1,
 * *then* its cursors attach (I5), then its first member is assigned. An assignment is two steps,
 * each safe to die after: fence the cursor (generation + 1: commits of before fail, I9), then store
 * assign. A start that finds the two apart finishes it. Taking an assignment does not take memory:
 * the hold of a member counts until it is dead or has left.
 *
 * Durable topics: a cursor below what the ring still has does not gate, and its group reads the journal until it has
 * caught up. Where cursors stood is written down now and then (metadata.c), and a group whose memory is gone
 * goes on there.
 *
 * What stands in G is its members' (I7): the truth about members is here, in `members`; G is only
 * read back at a start, and checked. Exclusion: the control thread alone. Blocks on the making of
 * segments and on the metadata.
 */
#ifndef SHMQ_DAEMON_GROUP_H
#define SHMQ_DAEMON_GROUP_H

#include "daemon/loop.h"
#include "daemon/store.h"
#include "daemon/topic.h"

#define CURSOR_UNSAVED UINT64_MAX

struct member {
    uint64_t client; /* CLIENT_NONE: the index is free */
    uint64_t joined; /* order of joining */
    uint64_t token;  /* of the request that joined */
};

struct group {
    struct topic *topic;
    uint64_t id;
    char name[NAME_BYTES];
    uint32_t gate;  /* index in the gate tables */
    uint32_t kind;  /* enum group_kind */
    uint32_t state; /* enum gate_state */
    uint32_t member_count;
    uint64_t joins;
    struct loop_timer linger; /* runs while there are no members */
    struct segment *segments; /* G of each partition */
    uint64_t *saved; /* of each: where the metadata says that its cursor stands; CURSOR_UNSAVED */
    uint32_t segment_count;
    struct member members[MEMBERS_MAX];
};

struct group_join {
    const char *name;
    uint64_t client;
    uint64_t token;
    uint64_t offset; /* FROM_OFFSET */
    uint32_t from;   /* enum group_from */
    uint32_t kind;
};

/* ---- group.c: coming into being, ending ------------------------------------------------------ */

struct group *group_find(const struct topic *topic, const char *name);
struct group *group_find_id(const struct topic *topic, uint64_t id);

/* Makes it with its cursors placed by `join`; no members yet. On failure nothing is left. */
int group_create(struct topic *topic, const struct group_join *join, struct group **ret_group,
                 struct error_buffer *why);

/* Metadata, then DELETED, then unlink. Members that are left are fenced off and woken. */
int group_delete(struct group *group, struct error_buffer *why);

/* Its members are told, and no longer counted as such. */
void group_forget_members(struct group *group);

/* Unmaps and frees; says nothing to anybody. */
void group_free(struct group *group);
void group_unlink(struct group *group);

/* Room in `segments` and `saved` for so many partitions. 0 or SHMQ_ENOMEM; segment_count stays. */
int group_resize(struct group *group, uint32_t count);

void group_to_store(const struct group *group, struct store_group *ret_stored);
int group_load(struct topic *topic, const struct store_group *stored, struct error_buffer *why);

/* Begins or ends the countdown to GATE_IDLE, as members and the topic's linger say. */
void group_set_linger(struct group *group);

/* ---- group_partition.c: one group in one partition ------------------------------------------- */

/* Makes G, enters the group in S. */
int group_make_segment(struct group *group, struct partition *partition, struct error_buffer *why);
int group_enter_gate(struct group *group, struct partition *partition);
void group_set_gate_state(struct group *group, struct partition *partition, uint32_t state);

/* Where a cursor is placed. */
struct group_place {
    uint32_t from; /* enum group_from; FROM_COMMITTED: where it stands */
    bool exact;    /* a record begins at `offset`, which is kept even if the record is not */
    uint64_t offset;
    uint64_t ret_lost; /* bytes that were overwritten between the place wanted and the one it got */
};
int group_attach_cursor(struct group *group, struct partition *partition, struct group_place *place,
                        struct error_buffer *why);

/* Hands the partition to `member` (ASSIGN_NOBODY: to nobody) and tells the one before and the new
 * one. Its cursor goes on to `purge_to`, if that is not NULL. */
int group_hand_over(struct group *group, struct partition *partition, uint32_t member,
                    const uint64_t *purge_to);

/* Opens G at a start and sees to it that S and G agree; negative errors are the system's. */
enum group_found {
    GROUP_FOUND_OPEN = 0,
    GROUP_FOUND_IDLE = 1,   /* it had lingered out here */
    GROUP_FOUND_UNBORN = 2, /* it never came to life here: nobody was told */
    GROUP_FOUND_LOST = 3,   /* partition or G are new: it begins at the oldest message, or where the
                               metadata says that it stood */
};
int group_reattach(struct group *group, struct partition *partition, bool fresh,
                   struct error_buffer *why);

/* ---- group_describe.c ------------------------------------------------------------------------- */

int group_describe_partition(struct group *group, struct partition *partition,
                             struct protocol_group_partition *ret_info);

/* Where the cursor stands, to be written down. False: nothing that could be (quarantined, or outside the log). */
bool group_read_cursor(struct group *group, struct partition *partition, uint64_t *ret_offset);

/* ---- group_member.c -------------------------------------------------------------------------- */

/* Enters the client as a member of an existing group; one that lingered out holds producers back
 * again. */
int group_add_member(struct group *group, const struct group_join *join, uint32_t *ret_member,
                     struct error_buffer *why);

/* Enters the members that there are into the G of a partition that was added. */
void group_enter_members(struct group *group, uint32_t partition);

/* Clears its hold, gives what it owned to the next. */
void group_remove_member(struct group *group, uint32_t member);

/* The one function that says who owns what: run after every change of members or partitions. */
void group_assign(struct group *group);

bool group_owns(const struct group *group, uint32_t member);

/* Takes the members over from G at a start: those that live and stand in every partition but those
 * of `lost`, into which they are entered. */
void group_restore_members(struct group *group, const bool *lost);

#endif
