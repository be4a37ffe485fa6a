/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect.h: a bus's shared memory as it lies in /dev/shm, looked at by its owner or root, with or
 * without a supervisor.
 *
 * Everything is read with pread() into private copies, never mapped: whoever truncates or scribbles on
 * a segment meanwhile costs us a sensible value, not the process. All numbers read are bounded before
 * they are used. The copies of one partition are not of one instant; who concludes that something is
 * stuck looks twice. Nothing blocks, nothing is written but by inspect_remove(). One thread.
 */
#ifndef SHMQ_TOOLS_INSPECT_H
#define SHMQ_TOOLS_INSPECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "libshmq/layout.h"
#include "libshmq/paths.h"

/* One process, as the kernel knows it. */
struct inspect_process {
    uint32_t pid;
    bool exists; /* and is the one that was meant: the start time agrees */
    char state;  /* of /proc/PID/stat: R S D T t Z */
    char command[16];
};

struct inspect_client {
    uint64_t id;
    uint64_t start_time;
    uint64_t connected_ns;
    uint32_t uid, pid;
    char command[16];
    bool alive; /* holds its byte of B */
};

struct inspect_gate {
    uint32_t index;
    uint64_t group;
    uint32_t state; /* enum gate_state */
    char name[NAME_BYTES];
    bool readable; /* its G was there; else the following are 0 */
    bool gates;
    uint32_t members;
    uint64_t cursor;
    uint64_t hold; /* lowest of a member, HOLD_NONE */
    uint64_t hold_client;
    uint64_t owner; /* client that reads the partition for the group; CLIENT_NONE: nobody */
};

struct inspect_claim {
    uint32_t slot;
    uint64_t client;
    uint64_t at, end;
};

struct inspect_partition {
    uint64_t topic;
    uint32_t partition;
    char name[NAME_BYTES]; /* the topic's; "topic N" if S cannot be read */
    const char *damage;    /* what is wrong with its segments; NULL: nothing. The rest is then 0 */
    uint32_t status;       /* enum partition_status */
    uint32_t policy;       /* enum overflow_policy */
    uint64_t capacity, base, first, tail;
    uint64_t durable;       /* UINT64_MAX: no journal */
    uint32_t journal_error; /* errno for which it does not get on */
    uint64_t records;
    uint64_t bytes; /* of its segments */
    bool recovery_held;
    ino_t producers_inode;
    uint32_t producer_count, gate_count, claim_count;
    struct inspect_gate gates[GATES_MAX];
    struct inspect_claim claims[SLOTS_MAX]; /* unstamped, below tail: in slot order */
};

struct inspect_bus {
    char prefix[PATHS_PREFIX_BYTES]; /* as file name, without the slash */
    uid_t uid;
    uint32_t file_count;
    uint64_t bytes;
    uint64_t newest_ns;    /* CLOCK_REALTIME of the last change of a name */
    bool has_bus;          /* B is there and readable: the next ones are valid */
    bool supervisor_alive; /* byte 1 of B is locked */
    uint32_t supervisor_pid;
    uint64_t incarnation;
    uint64_t created_ns;
    struct inspect_client *clients;
    uint32_t client_count;
    uint32_t live_clients;
    struct inspect_partition *partitions; /* by topic and index */
    uint32_t partition_count;
    bool unreadable; /* some file could not be opened: another user's */
};

/* All prefixes in /dev/shm, names only filled in (prefix, uid, file_count, bytes, newest_ns). The
 * caller frees *ret_buses. Their number. */
uint32_t inspect_list(struct inspect_bus **ret_buses);

/* Everything of one prefix. False: there is no file with it. The caller calls inspect_free(). */
bool inspect_open(const char *prefix, struct inspect_bus *ret_bus);
void inspect_free(struct inspect_bus *bus);

/* True for memory that nobody uses any more: no supervisor, no living client; or parts of a bus without
 * its B, unless they were made just now. What cannot be read counts as used. */
bool inspect_is_dead(const struct inspect_bus *bus);

/* Unlinks all files of a dead bus, if it is still dead: it takes the supervisor's lock meanwhile, so
 * that none starts on what is being removed. How many files are gone, or -1: it came to life, or (with
 * errno set) they could not be removed. */
int inspect_remove(const struct inspect_bus *bus);

/* Bytes that only this memory has and somebody may want, over all partitions: that groups have not read, or, of
 * durable topics, that are not in the journal yet. */
uint64_t inspect_unread_bytes(const struct inspect_bus *bus);

/* Lowest offset that must stay in the ring, and who needs it: *ret_gate is an index in gates[], or
 * UINT32_MAX for none; *ret_hold: the hold, not the cursor. Without gates: tail. */
uint64_t inspect_find_lowest(const struct inspect_bus *bus, const struct inspect_partition *p,
                             uint32_t *ret_gate, bool *ret_hold);

const struct inspect_client *inspect_find_client(const struct inspect_bus *bus, uint64_t id);

/* ---- inspect_process.c ---- */

/* start_time 0: whoever has the pid now. */
void inspect_process(uint32_t pid, uint64_t start_time, struct inspect_process *ret_process);

/* Does the process hold an OFD lock on byte `byte` of the file with this inode? (/proc/PID/fdinfo) */
bool inspect_holds_lock(uint32_t pid, ino_t inode, uint64_t byte);
/* Among all processes that this user may look into; 0 if none is found. */
uint32_t inspect_find_lock_owner(ino_t inode, uint64_t byte);

#endif
