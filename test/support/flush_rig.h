/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flush_rig.h: a flusher with partitions in this process, for tests of daemon/flush.h: no supervisor, no
 * clients, but true segments, true rings and true files. The rig watches all io (syncs do nothing, which is
 * quick), lets a test hold or fail calls, and sees to it at each call that nobody has promised too much:
 *
 *     `durable` never falls, and never lies above what had been written when the last sync began
 *     (policy os: above what has been written)
 *
 * Producers and checks belong to the test's thread, but for rig_publish(), which one other may call for a log.
 */
#ifndef SHMQ_TEST_SUPPORT_FLUSH_RIG_H
#define SHMQ_TEST_SUPPORT_FLUSH_RIG_H

#include "daemon/flush_internal.h"
#include "daemon/io.h"
#include "libshmq/ring.h"
#include "test/support/partition.h"
#include "test/support/test.h"

#include <pthread.h>

#define RIG_LOGS_MAX  140
#define RIG_FILES_MAX 256
#define RIG_WAIT_MS   8000 /* for what comes at once if it comes */

enum rig_what {
    RIG_GOOD,
    RIG_BAD_CRC,    /* scribbled on after it was sealed */
    RIG_BAD_KEY,    /* sealed, and its key is longer than itself */
    RIG_ABORTED,    /* padding with bytes in it */
    RIG_BIG_FUTURE, /* good, and of the far future */
};

struct rig_options {
    enum durable_mode durability;
    uint64_t capacity; /* 0: RING_MIN_BYTES */
    uint64_t base;
    uint64_t previous_end; /* 0: base */
    uint64_t sync_interval_ns;
    uint64_t retain_bytes;
    uint64_t file_first; /* 0: as in production */
    uint64_t file_most;
    enum wait_mode wait_mode; /* 0: membarrier if there is one */
};

/* What one log's calls meet. */
struct rig_fault {
    enum io_kind kind;
    uint32_t nth; /* from 1 on, counted from when it was set; 0: none */
    int error;    /* an errno, or IO_SHORT */
    bool repeated;
};

struct rig_entry {
    uint64_t offset;
    uint32_t length;
    uint32_t number;
    enum rig_what what;
};

struct rig_log {
    struct rig *rig;
    struct rig_options options;
    uint32_t index; /* its topic is index + 1 */
    uint64_t salt;
    char topic_dir[240];
    char dir[256];
    struct ring ring;
    struct ring_producer producer;
    struct ring_producer claimer;
    struct flush_log *log; /* NULL: it is not flushed */
    bool cut;              /* a test has cut its memory: nobody looks at it any more */

    struct rig_entry *entries; /* what was published */
    size_t entry_count;
    size_t entry_room;

    /* Under the rig's lock. */
    struct rig_fault fault;
    bool struck;
    uint32_t calls[IO_KINDS];
    uint32_t data_syncs; /* of files that have their name */
    uint64_t written;    /* end of the last write that was begun */
    uint64_t covered;    /* ... before the last sync that was begun */
    uint64_t durable_seen;
};

struct rig {
    struct loop loop;
    struct flusher *flusher;
    uint32_t count;
    struct rig_log *logs[RIG_LOGS_MAX];
    char prefix[128];
    bool woken; /* the loop's callback was called */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool holding; /* calls of this kind stop before they happen */
    enum io_kind held_kind;
    bool held_data_only;  /* only on files that have their name: not when they are begun */
    uint32_t held;        /* so many have come there since */
    uint32_t passes;      /* so many of them may go on */
    uint64_t bases[1024]; /* by descriptor: base + 1 of the file whose header was written there */
};

void rig_init(struct rig *rig);
/* Ends what is left; nothing is drained. */
void rig_deinit(struct rig *rig);

/* Memory for one more partition, and its journal is flushed. */
struct rig_log *rig_add(struct rig *rig, const struct rig_options *options);
/* The same without flushing it, which rig_flush() then begins, or begins again: at `durable`. */
struct rig_log *rig_make(struct rig *rig, const struct rig_options *options);
int rig_flush(struct rig_log *log);
void rig_remove(struct rig_log *log);
/* Until the flusher is done with all that were removed. */
bool rig_wait_gone(struct rig *rig);
/* flusher_stop(), the logs leave, and there is a new flusher without logs. */
void rig_stop(struct rig *rig, bool drain);

/* RING_OK or RING_NO_ROOM. Wakes as clients do. */
int rig_publish_as(struct rig_log *log, uint32_t length, enum rig_what what);
/* The same without waking anybody. */
int rig_publish_quietly(struct rig_log *log, uint32_t length);
/* Claims a place, which rig_commit_claim() makes a message; one at a time. */
uint64_t rig_claim(struct rig_log *log, uint32_t length);
void rig_commit_claim(struct rig_log *log);
/* Waits for room. */
void rig_publish(struct rig_log *log, uint32_t count, uint32_t length);

/* Cuts the segment to nothing under the flusher; the rig does not touch this log any more. */
void rig_cut(struct rig_log *log, enum segment_kind kind);

struct state_segment *rig_state(const struct rig_log *log);
struct producers_segment *rig_producers(const struct rig_log *log);
uint64_t rig_durable(const struct rig_log *log);
uint64_t rig_tail(const struct rig_log *log);
uint32_t rig_attention(const struct rig_log *log);
struct flush_status rig_status(const struct rig_log *log);

bool rig_wait_durable(struct rig_log *log, uint64_t offset);
bool rig_wait_all(struct rig_log *log); /* up to its tail */
/* The last write of what there is has begun, at least. */
bool rig_wait_written(struct rig_log *log);
bool rig_wait_attention(struct rig_log *log, uint32_t bits, uint32_t of);
bool rig_wait_error(struct rig_log *log, int error);
/* The callback of the loop is called for it. */
bool rig_wait_corrupt(struct rig_log *log);

/* What io_watch() is given; for the rig itself. */
int rig_watch(void *context, const struct io_event *event);

void rig_hold(struct rig *rig, enum io_kind kind, bool data_only);
bool rig_wait_held(struct rig *rig, uint32_t count);
void rig_let_one_pass(struct rig *rig); /* of one that is held */
void rig_release(struct rig *rig);

void rig_fail(struct rig_log *log, enum io_kind kind, uint32_t nth, int error, bool repeated);
bool rig_struck(struct rig_log *log);
uint32_t rig_calls(struct rig_log *log, enum io_kind kind);
uint32_t rig_data_syncs(struct rig_log *log);

struct rig_file {
    uint64_t bytes;
    struct journal_header header;
};

/* Reads the files, oldest first, and compares each published record from the first base up to `durable`. */
uint32_t rig_check(struct rig_log *log, struct rig_file files[RIG_FILES_MAX]);

#endif
