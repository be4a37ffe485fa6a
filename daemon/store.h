/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor must not forget: topics, groups, the id counter, where logs ended, how far the groups
 * of durable topics have read. A journal
 * (design §4) in STATE/BUS/meta of one record an operation, each synced before the call returns, so that
 * whoever replies after it promises nothing that a power cut can take back.
 *
 * The store holds no table: the registry is the state, the journal its history. On open the history is
 * played to the callbacks; a snapshot asks the `snapshot` callback to put the whole state again, into
 * a new file, and drops the files before it. Puts are idempotent by id: the later one wins, and what
 * is deleted may be deleted again.
 *
 * Body of a record:  u16 kind | u16 version | u32 zero | u64 confirmed | fields
 *     field:         u16 tag | u16 length | value           numbers little-endian, strings without NUL
 * `confirmed` is how far the journal was synced when the record was written. A chain that breaks off
 * below what a record further on says was confirmed is damage, and the store refuses to open; one that
 * breaks off at its end is a torn tail: the last operation was never confirmed. (The very last record
 * has no witness: a flipped bit in it looks like a tail that was torn.) Kinds, tags and versions that
 * this build does not know are refused: rewriting without them would lose them.
 *
 * Opening needs no room: on a full disk the first put will ask for it.
 *
 * A failed sync or write ends the file: the store makes a snapshot in a new one and repeats the
 * operation there. While that fails as well, operations fail and each tries again.
 *
 * Threads: one, the control thread. Every put blocks on the disk. If the process dies in a put, the
 * next start finds the operation or not, never half of it.
 */
#ifndef SHMQ_DAEMON_STORE_H
#define SHMQ_DAEMON_STORE_H

#include "libshmq/error.h"
#include "libshmq/topic_options.h"

#include <signal.h>
#include <stdbool.h>

#define STORE_GROWTH_BYTES (UINT64_C(1) << 20) /* of history, before a snapshot is wanted */

struct store;

struct store_topic {
    struct topic_options options;
    uint64_t id;
    uint64_t base;       /* first offset of its partitions */
    uint64_t created_ns; /* since the epoch */
    uint32_t owner_uid;
};

struct store_group {
    char name[NAME_BYTES];
    uint64_t topic;
    uint64_t id;
    uint64_t linger_ns; /* or LINGER_FOREVER */
    uint32_t kind;      /* enum group_kind */
    uint32_t gate;      /* index in the gate table */
};

/* Where a partition's log ended: no offset below is used again, whatever becomes of its segments. */
struct store_mark {
    uint64_t topic;
    uint64_t offset;
    uint32_t partition;
};

/* How far a group of a durable topic has read a partition; group 0: how far the partition was purged. The later
 * one wins: groups seek back, too. */
struct store_cursor {
    uint64_t topic;
    uint64_t group;
    uint64_t offset;
    uint32_t partition;
};

/* Replay: what they return other than 0 ends store_open(), which returns it. A callback that is NULL is
 * not called. */
struct store_callbacks {
    int (*put_topic)(void *context, const struct store_topic *topic);
    int (*delete_topic)(void *context,
                        uint64_t topic); /* its groups, marks and cursors go with it */
    int (*put_group)(void *context, const struct store_group *group);
    int (*delete_group)(void *context, uint64_t topic, uint64_t group); /* and its cursors */
    int (*put_mark)(void *context, const struct store_mark *mark);
    int (*put_cursor)(void *context, const struct store_cursor *cursor);
    int (*put_counter)(void *context, uint64_t next_id);

    /* Something that the administrator should know and that costs nothing confirmed. */
    void (*warn)(void *context, const char *text);

    /* Calls store_put_*() for all that there is. 0, or the error of a put, unchanged. NULL: there are
     * no snapshots, and a failed sync is final. */
    int (*snapshot)(void *context, struct store *store, struct error_buffer *why);
};

/* Replays the journal in the directory `dir` (which exists, and whose lock the caller holds) and begins
 * a new file. `dir` NULL: an ephemeral bus; everything below succeeds and does nothing. The caller
 * makes a snapshot once it is done with start-up. 0; SHMQ_ECORRUPT; SHMQ_EVERSION; or what the
 * system or a callback said. */
int store_open(const char *dir, const struct store_callbacks *callbacks, void *context,
               struct store **ret_store, struct error_buffer *why);

/* Syncs nothing: what was put is synced. NULL is legal. */
void store_close(struct store *store);

/* Each is on disk when it returns 0. SHMQ_EINVAL for values that could not be read back; SHMQ_ENOSPC,
 * SHMQ_EIO: not done (though after SHMQ_EIO a crash before the next success may bring it back). Inside
 * the snapshot callback they only append. */
int store_put_topic(struct store *store, const struct store_topic *topic, struct error_buffer *why);
int store_delete_topic(struct store *store, uint64_t topic, struct error_buffer *why);
int store_put_group(struct store *store, const struct store_group *group, struct error_buffer *why);
int store_delete_group(struct store *store, uint64_t topic, uint64_t group,
                       struct error_buffer *why);
int store_put_mark(struct store *store, const struct store_mark *mark, struct error_buffer *why);
int store_put_counter(struct store *store, uint64_t next_id, struct error_buffer *why);

/* All of them with one sync. On failure any of them may be on disk: each counts by itself, and none goes back
 * behind what was there before. */
int store_put_cursors(struct store *store, const struct store_cursor *cursors, size_t count,
                      struct error_buffer *why);

/* 0, or a negative error, and then the history before it goes on. Not from inside a callback. */
int store_snapshot(struct store *store, struct error_buffer *why);

/* The history has outgrown the state: time for a snapshot, at leisure. */
bool store_wants_snapshot(const struct store *store);

/* Replays one file's image as if it were the newest of a journal. For the fuzzer and the tools. */
int store_replay_image(const void *image, size_t bytes, uint64_t base,
                       const struct store_callbacks *callbacks, void *context,
                       struct error_buffer *why);

/* ---- The lock of a state directory (store_lock.c) ---------------------------------------------- */

/* Takes STATE/BUS/lock (an OFD lock, so that it ends with the process, however that ends) and writes the
 * pid into it. 0, with *ret_fd to keep open; SHMQ_EBUSY with the holder's pid; or an error of the
 * system. */
int store_lock(const char *dir, int *ret_fd, struct error_buffer *why);

/* The same for --standby: waits until the holder is gone, which its pidfd tells at once; looks once a
 * second besides. While it sleeps the signal mask is `mask` (NULL: as it is), so that a caller who has
 * the signals blocked otherwise misses none. 1: a signal handler ran. */
int store_lock_wait(const char *dir, const sigset_t *mask, int *ret_fd, struct error_buffer *why);

#endif
