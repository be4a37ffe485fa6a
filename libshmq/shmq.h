/* SPDX-License-Identifier: Apache-2.0 */
/**
 * shmq: a message bus in shared memory, for the processes of one Linux host.
 *
 * A message is written once, by its producer, into a ring in shared memory and read there by
 * every consumer: no system call, no copy through a broker, no lock. A small supervisor, shmqd,
 * creates topics, hands out the memory and looks after the dead.
 *
 *     connection   a session with the bus; thread-safe
 *     channel      one thread's producers and consumers; not thread-safe
 *     topic        N partitions; order is kept per partition
 *     group        consumers that share the work; every group gets every message
 *
 * Conventions. Results are 0 or a positive count; errors are negative (enum shmq_error in
 * shmq_errors.h, which says for each what to do next); shmq_errmsg() has the whole sentence.
 * Option structs are initialised with their SHMQ_…_INIT, which sets `size`; they grow only at the
 * end. Timeouts are milliseconds, 0 returns at once; none waits for ever: SHMQ_TIMEOUT_MAX (24
 * hours) is the longest. Calls without a timeout parameter use `timeout_ms` of their options, 10
 * s by default.
 *
 * Fork: a child must connect by itself; with handles of its parent every call returns SHMQ_EFORK,
 * and closing them only frees memory. Signals: no call is async-signal-safe. Cancellation is not
 * supported inside calls.
 *
 * Death: whoever dies, at any instruction, is noticed; what it had not published is never seen,
 * what it had not committed is delivered again to the next member of its group.
 *
 * This header compiles alone, as C and as C++. Link with -lshmq (pkg-config shmq).
 */
#ifndef SHMQ_H
#define SHMQ_H

#include <stddef.h>
#include <stdint.h>

#include "shmq_errors.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SHMQ_VERSION_MAJOR 0
#define SHMQ_VERSION_MINOR 1
#define SHMQ_VERSION_PATCH 0
#define SHMQ_VERSION       "0.1.0"

#define SHMQ_TIMEOUT_DEFAULT 10000
#define SHMQ_TIMEOUT_MAX     86400000

/** Size of a name with its NUL: names are 1–200 of A–Z a–z 0–9 . _ -, not starting with a dot. */
#define SHMQ_NAME_SIZE 208

#if defined(__GNUC__)
#define SHMQ_API __attribute__((visibility("default")))
#else
#define SHMQ_API
#endif

typedef struct shmq_connection shmq_connection;
typedef struct shmq_channel shmq_channel;
typedef struct shmq_producer shmq_producer;
typedef struct shmq_consumer shmq_consumer;

/** "0.1.0": of the library that is linked, which may be newer than SHMQ_VERSION. Static; any
 * thread. */
SHMQ_API const char *shmq_version(void);

/** The kind of error `code` in a few words. Static; any thread; never NULL. */
SHMQ_API const char *shmq_strerror(int code);

/* ---- connection ------------------------------------------------------------------------------ */

struct shmq_connect_options {
    uint32_t size;
    int32_t timeout_ms; /**< for connecting and for every control call; 0: SHMQ_TIMEOUT_DEFAULT */
    const char *bus;    /**< NULL: $SHMQ_BUS, else "default" */
    const char *
        runtime_dir; /**< NULL: $SHMQ_RUNTIME_DIR, else the user's own bus, then the system's (/run/shmq) */
    const char *vhost; /**< NULL: "default" */
    uint64_t reserved[4];
};
#define SHMQ_CONNECT_OPTIONS_INIT \
    { \
        sizeof(struct shmq_connect_options), 0, NULL, NULL, NULL, \
        { \
            0, 0, 0, 0 \
        } \
    }

/** Connects to a bus.
 *
 * @param options         NULL for all defaults; copied.
 * @param ret_connection  the new connection; the caller closes it with shmq_close(). Set to NULL on failure.
 * Blocks up to timeout_ms. Any thread.
 * @return 0; SHMQ_ENOBUS (nobody answers: start shmqd; the message has the command), SHMQ_EPERM,
 * SHMQ_EVERSION (library and supervisor differ in layout), SHMQ_ELIMIT (too many connections),
 * SHMQ_ENOTSUP (this process cannot follow the bus's wait mode; the message names the setting),
 * SHMQ_ETIMEOUT, SHMQ_EINVAL (a bad name), SHMQ_ENOMEM. After a failure shmq_errmsg(NULL) has the
 * sentence.
 *
 * If the supervisor dies, open producers and consumers go on without it; the next control call
 * connects to its successor by itself. */
SHMQ_API int shmq_connect(const struct shmq_connect_options *options,
                          shmq_connection **ret_connection);

/** Closes the connection and everything that was opened on it: outstanding claims are aborted,
 * memberships left. No other thread may be using it or its channels. NULL is fine. Blocks up to a
 * second when the supervisor does not answer. */
SHMQ_API void shmq_close(shmq_connection *connection);

/** The sentence for the last error of a call on this connection, or on its channels, producers and
 * consumers, made by this thread: `what: why; what to do`. With NULL: the last failed call of
 * this thread. Valid until this thread's next call; never NULL. */
SHMQ_API const char *shmq_errmsg(const shmq_connection *connection);

/** Number by which `shmq client list` and the supervisor's log know this connection. */
SHMQ_API uint64_t shmq_connection_id(const shmq_connection *connection);

struct shmq_bus_info {
    char version[32];
    char bus[SHMQ_NAME_SIZE];
    char runtime_dir[256];
    char state_dir[256];  /**< empty: ephemeral */
    uint64_t started_ns;  /**< CLOCK_REALTIME */
    uint64_t incarnation; /**< supervisors since the bus's memory was made */
    uint64_t shm_bytes;   /**< reserved in shared memory */
    uint32_t pid, uid;    /**< the supervisor's */
    uint32_t topics, partitions, groups, clients;
    uint32_t max_clients;
    uint32_t quarantined;      /**< partitions */
    uint32_t ephemeral;        /**< 1: everything goes when the supervisor stops */
    uint32_t wait_mode;        /**< 1 membarrier, 2 fences */
    uint64_t journal_bytes;    /**< on disk, of all durable topics */
    uint32_t journals;         /**< partitions with a journal */
    uint32_t journals_failing; /**< that do not get on: see shmq_partition_info.journal_error */
    uint64_t reserved[2];
};

/** Asks the supervisor about itself. Blocks up to the connection's timeout. Thread-safe. */
SHMQ_API int shmq_bus_describe(shmq_connection *connection, struct shmq_bus_info *ret_info);

/* ---- topics ---------------------------------------------------------------------------------- */

enum shmq_overflow { SHMQ_BLOCK = 0, SHMQ_REJECT = 1, SHMQ_DROP_OLD = 2, SHMQ_SPILL = 3 };
enum shmq_producers { SHMQ_PRODUCERS_MULTI = 0, SHMQ_PRODUCERS_SINGLE = 1 };
enum shmq_timestamps {
    SHMQ_TIMESTAMPS_COARSE = 0,
    SHMQ_TIMESTAMPS_NONE = 1,
    SHMQ_TIMESTAMPS_PRECISE = 2
};
enum shmq_durability {
    SHMQ_DURABLE_NONE = 0,
    SHMQ_DURABLE_OS = 1,
    SHMQ_DURABLE_INTERVAL = 2,
    SHMQ_DURABLE_ALWAYS = 3
};

#define SHMQ_LINGER_DEFAULT 0u /**< 5 minutes */
#define SHMQ_LINGER_FOREVER UINT64_MAX

struct shmq_topic_options {
    uint32_t size;
    uint32_t partitions; /**< 1–1024; 0: 1 */
    uint64_t
        ring_bytes; /**< of each partition: a power of two, 64 KiB–16 GiB; 0: 1 MiB, or 8 × max_message */
    uint32_t max_message; /**< bytes of key, headers and body; 0: an eighth of the ring less 32 */
    uint32_t overflow;    /**< enum shmq_overflow: what a full ring means */
    uint32_t producers; /**< enum shmq_producers; single: one producer, one compare-and-swap less */
    uint32_t timestamps;    /**< enum shmq_timestamps */
    uint32_t durability;    /**< enum shmq_durability */
    uint32_t if_not_exists; /**< 1: an existing topic with this name is success */
    uint64_t
        group_linger_ms; /**< a group without members stops holding producers back after it; 0: 5 min */
    uint64_t
        sync_interval_ms; /**< durability interval: at most so long until fdatasync, 1 ms–1 h; 0: 100 ms */
    uint64_t
        retain_bytes; /**< of each partition's journal: older files go; 1 MiB or more; 0: no bound */
    uint64_t retain_ms; /**< files whose youngest message is older go; 0: no bound */
    uint64_t reserved[3];
};
#define SHMQ_TOPIC_OPTIONS_INIT \
    { \
        sizeof(struct shmq_topic_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
        { \
            0, 0, 0 \
        } \
    }

/** retain_bytes, retain_ms of shmq_topic_alter(): takes the bound away, where 0 leaves it as it is. */
#define SHMQ_RETAIN_UNBOUNDED UINT64_MAX

/** Creates a topic; its memory is reserved now, so that no later call runs out of it. Options
 * NULL: defaults. Thread-safe; blocks up to the connection's timeout, as all calls of this
 * section.
 * @return 0; SHMQ_EEXIST; SHMQ_EINVAL (names the field); SHMQ_ENOSPC (/dev/shm is full; nothing
 * was created); SHMQ_ELIMIT (the user's quota); SHMQ_ENOTSUP (a durable topic on an ephemeral bus, which
 * keeps nothing on disk); SHMQ_ENOBUS, SHMQ_ETIMEOUT (whether
 * it was created is not known: call again with if_not_exists, or describe it). */
SHMQ_API int shmq_topic_create(shmq_connection *connection, const char *topic,
                               const struct shmq_topic_options *options);

/** Changes what can be changed while everything runs: more partitions (the order of a key is kept
 * only from then on: keys move), group_linger_ms, max_message up to what the ring takes; of durable topics
 * sync_interval_ms, retain_bytes and retain_ms (SHMQ_RETAIN_UNBOUNDED: no bound any more). Fields that are 0
 * stay as they are.
 * @return 0; SHMQ_ENOTOPIC; SHMQ_EINVAL (names what cannot be changed); SHMQ_ETIMEOUT, SHMQ_ENOBUS
 * (whether it was done is not known: shmq_topic_describe() tells, calling again does no harm). */
SHMQ_API int shmq_topic_alter(shmq_connection *connection, const char *topic,
                              const struct shmq_topic_options *options);

/** Deletes a topic and all that is in it. Its producers and consumers get SHMQ_ENOTOPIC from then
 * on.
 * @return 0; SHMQ_ENOTOPIC; SHMQ_ETIMEOUT, SHMQ_ENOBUS (whether it was done is not known: call
 * again, SHMQ_ENOTOPIC says that it was). */
SHMQ_API int shmq_topic_delete(shmq_connection *connection, const char *topic);

/** Every group skips what is in the topic now. Messages being processed are not recalled.
 * @return 0; SHMQ_ENOTOPIC; SHMQ_ETIMEOUT, SHMQ_ENOBUS (whether it was done, or in some partitions
 * only, is not known: call again, which skips what has come since as well). */
SHMQ_API int shmq_topic_purge(shmq_connection *connection, const char *topic);

struct shmq_topic_info {
    char name[SHMQ_NAME_SIZE];
    uint64_t id;
    uint64_t ring_bytes;
    uint64_t group_linger_ms; /**< SHMQ_LINGER_FOREVER */
    uint64_t created_ns;      /**< CLOCK_REALTIME */
    uint64_t shm_bytes;       /**< of all its segments */
    uint32_t partitions, max_message, overflow, producers, timestamps, durability;
    uint32_t owner_uid;
    uint32_t group_count, producer_count, consumer_count;
    uint32_t quarantined; /**< partitions */
    uint32_t reserved0;
    uint64_t sync_interval_ms, retain_bytes, retain_ms; /**< as in shmq_topic_options */
    uint64_t reserved[1];
};
SHMQ_API int shmq_topic_describe(shmq_connection *connection, const char *topic,
                                 struct shmq_topic_info *ret_info);

enum shmq_blocked_by {
    SHMQ_BLOCKED_BY_NOTHING = 0,
    SHMQ_BLOCKED_BY_GROUP = 1,   /**< a group's cursor: it has not committed further */
    SHMQ_BLOCKED_BY_HOLD = 2,    /**< a member still looks at a message */
    SHMQ_BLOCKED_BY_CLAIM = 3,   /**< a producer between claim and commit */
    SHMQ_BLOCKED_BY_JOURNAL = 4, /**< the disk */
};

struct shmq_partition_info {
    uint32_t partition;
    uint32_t status;         /**< 0 open, 1 sealed, 2 deleted, 3 quarantined */
    uint64_t first_offset;   /**< nothing is read before it */
    uint64_t tail_offset;    /**< end of the log */
    uint64_t messages;       /**< published since the partition was made */
    uint64_t blocked_offset; /**< when the ring is full: what holds it back stands here */
    uint64_t blocked_client; /**< and who, 0 if unknown */
    uint32_t blocked_by;     /**< enum shmq_blocked_by */
    uint32_t producer_count;
    uint64_t
        durable_offset; /**< everything below is kept as the topic's durability promises; UINT64_MAX: no journal */
    uint64_t journal_first; /**< oldest offset that is still in the journal */
    uint64_t journal_bytes; /**< on disk */
    uint32_t journal_files;
    uint32_t
        journal_error; /**< errno for which the journal does not get on (ENOSPC, EIO …); 0: it does */
};

/** Callbacks of lists: return 0 to go on, anything else to stop; the list call returns it. The
 * info is the library's, valid during the callback; no call on the same connection may be made
 * from inside. */
typedef int (*shmq_topic_fn)(const struct shmq_topic_info *info, void *context);
typedef int (*shmq_partition_fn)(const struct shmq_partition_info *info, void *context);
SHMQ_API int shmq_topic_list(shmq_connection *connection, shmq_topic_fn fn, void *context);
SHMQ_API int shmq_partition_list(shmq_connection *connection, const char *topic,
                                 shmq_partition_fn fn, void *context);

/* ---- groups and clients ---------------------------------------------------------------------- */

struct shmq_group_info {
    char topic[SHMQ_NAME_SIZE];
    char name[SHMQ_NAME_SIZE];
    uint64_t id;
    uint64_t
        lag_bytes; /**< committed up to the log's end, all partitions, record headers included */
    uint64_t
        linger_left_ms; /**< until it stops holding producers back; UINT64_MAX: not counting down */
    uint32_t state;     /**< 1 gating, 2 idle (lingered: does not hold producers back) */
    uint32_t member_count;
    uint32_t partitions;
    uint32_t reserved0;
    uint64_t reserved[4];
};

struct shmq_group_partition {
    uint32_t partition;
    uint32_t generation; /**< +1 at every hand-over */
    uint64_t committed_offset;
    uint64_t lag_bytes;
    uint64_t lost_bytes; /**< overwritten before the present owner read them */
    uint64_t messages;   /**< delivered to the present owner */
    uint64_t owner;      /**< connection id; 0: nobody */
    uint32_t owner_pid;
    uint32_t reserved0;
    char owner_command[16];
    uint64_t reserved[2];
};

struct shmq_client_info {
    uint64_t id;
    uint64_t connected_ns; /**< CLOCK_REALTIME */
    uint32_t uid, pid;
    char command[16];
    uint32_t producers; /**< slots: one a partition that it publishes to */
    uint32_t groups;    /**< memberships */
    uint32_t owned;     /**< partitions that it consumes */
    uint32_t absent;    /**< 1: alive, but has not come back to this supervisor yet */
    uint64_t lag_bytes; /**< the largest among its partitions */
    uint64_t reserved[4];
};

typedef int (*shmq_group_fn)(const struct shmq_group_info *info, void *context);
typedef int (*shmq_group_partition_fn)(const struct shmq_group_partition *info, void *context);
typedef int (*shmq_client_fn)(const struct shmq_client_info *info, void *context);

/** Groups of one topic, or of all with topic NULL. */
SHMQ_API int shmq_group_list(shmq_connection *connection, const char *topic, shmq_group_fn fn,
                             void *context);
SHMQ_API int shmq_group_describe(shmq_connection *connection, const char *topic, const char *group,
                                 shmq_group_partition_fn fn, void *context);
/** SHMQ_EBUSY while it has members. Producers that waited for it go on at once. After SHMQ_ETIMEOUT
 * or SHMQ_ENOBUS it is not known whether it was done: call again, SHMQ_ENOGROUP says that it was. */
SHMQ_API int shmq_group_delete(shmq_connection *connection, const char *topic, const char *group);
SHMQ_API int shmq_client_list(shmq_connection *connection, shmq_client_fn fn, void *context);

/* ---- channels -------------------------------------------------------------------------------- */

/** A channel: one thread's producers and consumers. Cheap; no system call. Close closes what was
 * opened on it. */
SHMQ_API int shmq_channel_open(shmq_connection *connection, shmq_channel **ret_channel);
SHMQ_API void shmq_channel_close(shmq_channel *channel);

/* ---- messages -------------------------------------------------------------------------------- */

/** For publishing: publish to message.partition instead of choosing one. */
#define SHMQ_MESSAGE_PARTITION 1u
/** On a polled message: bytes between the message before and this one are lost to this consumer:
 * overwritten (policy drop-old), retained no longer, or damaged on disk. */
#define SHMQ_MESSAGE_AFTER_LOSS 2u

struct shmq_message {
    const void *body;
    const void *key;     /**< messages with the same key go to the same partition, in order */
    const void *headers; /**< as written by shmq_headers_add() */
    uint32_t body_length;
    uint16_t key_length;
    uint16_t headers_length;
    uint64_t offset;       /**< out: byte position in the partition's log */
    uint64_t timestamp_ns; /**< out: since the epoch; 0 with timestamps none */
    uint32_t partition;    /**< out; in with SHMQ_MESSAGE_PARTITION */
    uint32_t flags;
    uint64_t reserved[2];
};

/** Appends one header to `buffer` (of `capacity` bytes, `*length` used). Name 1–255 bytes, value
 * 0–65,000.
 * @return 0; SHMQ_ETOOBIG (does not fit; at most 65,535 in all; nothing changed); SHMQ_EINVAL.
 * Any thread. */
SHMQ_API int shmq_headers_add(void *buffer, size_t capacity, size_t *length, const char *name,
                              const void *value, size_t value_length);
struct shmq_header {
    const char *name; /**< not NUL-terminated */
    const void *value;
    uint32_t name_length;
    uint32_t value_length;
};
/** Walks a message's headers: *position starts at 0. @return 1 with the next one, 0 at the end,
 * SHMQ_EINVAL when they are malformed. */
SHMQ_API int shmq_headers_next(const struct shmq_message *message, size_t *position,
                               struct shmq_header *ret_header);

/* ---- producing ------------------------------------------------------------------------------- */

struct shmq_producer_options {
    uint32_t size;
    int32_t
        timeout_ms; /**< how long publish waits for room (policy block); 0: SHMQ_TIMEOUT_DEFAULT; -1: not at all */
    uint64_t reserved[6];
};
#define SHMQ_PRODUCER_OPTIONS_INIT \
    { \
        sizeof(struct shmq_producer_options), 0, \
        { \
            0, 0, 0, 0, 0, 0 \
        } \
    }

/** Opens a producer on all partitions of a topic.
 * Blocks up to the connection's timeout, and a second more to give back what it had when that was
 * not enough.
 * @return 0; SHMQ_ENOTOPIC; SHMQ_EBUSY (a single-producer topic that has one: the message names
 * it); SHMQ_ELIMIT (slots; or this process may open no more descriptors: ulimit -n, one a
 * partition); SHMQ_EPERM; SHMQ_ENOBUS; SHMQ_ETIMEOUT; SHMQ_ENOMEM. */
SHMQ_API int shmq_producer_open(shmq_channel *channel, const char *topic,
                                const struct shmq_producer_options *options,
                                shmq_producer **ret_producer);
/** Aborts an outstanding claim. NULL is fine. */
SHMQ_API void shmq_producer_close(shmq_producer *producer);

/** Publishes a copy of key, headers and body: when it returns 0, every group will get the message.
 * Fills in offset, timestamp and partition. Partition: as given with SHMQ_MESSAGE_PARTITION; else
 * murmur2(key) as Kafka's clients; else round robin. Does not block while there is room, no
 * system call; but for rare maintenance (partitions that were added, another supervisor), for
 * which it may ask the supervisor and take up to 100 ms, whatever its timeout.
 * @return 0; SHMQ_EFULL (policy reject: at once; block: after timeout_ms; the message names who
 * holds the ring); SHMQ_ETOOBIG; SHMQ_EBUSY (a claim is outstanding); SHMQ_ENOTOPIC (deleted);
 * SHMQ_ECORRUPT (quarantined); SHMQ_ECLOSED; SHMQ_EFORK; SHMQ_EINVAL. Nothing was published
 * unless it returns 0, with one exception: where the topic was deleted or the partition
 * quarantined just while it was being published, some reader may have seen it. */
SHMQ_API int shmq_publish(shmq_producer *producer, struct shmq_message *message);

/** Publishes many: one claim for each run of messages that go to the same partition; each such
 * claim appears at once. Messages without key and partition stay together: round robin moves on
 * with each claim.
 * @return how many were published, from the first on (possibly fewer than `count`: the error that
 * stopped it is in shmq_errmsg()); an error if none was. */
SHMQ_API int shmq_publish_batch(shmq_producer *producer, struct shmq_message *messages,
                                uint32_t count);

/** Room in the ring to write a body in place. One at a time per producer. */
struct shmq_claim {
    void *body;
    uint32_t body_size; /**< may be made smaller before shmq_commit() */
    uint32_t partition;
    uint64_t offset;
    shmq_producer *producer;
    uint64_t reserved[4];
};
/** @return 0 and the claim; else as shmq_publish(). Between claim and commit readers of this
 * partition wait: be quick. */
SHMQ_API int shmq_claim(shmq_producer *producer, const void *key, uint16_t key_length,
                        uint32_t body_size, struct shmq_claim *ret_claim);
/** Publishes it. @return 0; SHMQ_EINVAL (no such claim, or body_size has grown); SHMQ_EFORK; and
 * SHMQ_ENOTOPIC, SHMQ_ECORRUPT, SHMQ_ECLOSED as shmq_publish(): it was not published. */
SHMQ_API int shmq_commit(struct shmq_claim *claim);
/** Gives it up; readers skip it. */
SHMQ_API int shmq_abort(struct shmq_claim *claim);

/** How safe a message is. */
enum shmq_confirm_level {
    SHMQ_PUBLISHED =
        0, /**< it survives any process: true of every message whose publish returned 0 */
    SHMQ_DURABLE = 1, /**< it is in the journal as the topic's durability promises: with `os` in the
                           page cache (survives every process), with `interval` and `always` on disk
                           (survives the host as well) */
};

/** Waits until a message is as safe as `level` says. Asynchronous and pipelined: publish any number of
 * messages, confirm the last one of each partition; that confirms all before it there. With timeout 0 it
 * only looks.
 *
 * @param message  as shmq_publish() filled it in: partition, offset and the lengths count.
 * Blocks up to timeout_ms (0 to SHMQ_TIMEOUT_MAX), and 100 ms more, rarely, when it has to ask the supervisor.
 * @return 0; SHMQ_ETIMEOUT (not yet; the sentence says what the journal waits for: ask again, it is never
 * published twice by that); SHMQ_ENOTSUP (level durable on a topic that is not); SHMQ_ENOTOPIC; SHMQ_ECORRUPT;
 * SHMQ_ECLOSED (the bus has lost its memory since the message, or one before it in its partition, was published:
 * which of those that were not confirmed were kept is not known, publish them again; told once); SHMQ_EFORK;
 * SHMQ_EINVAL. */
SHMQ_API int shmq_confirm(shmq_producer *producer, const struct shmq_message *message,
                          enum shmq_confirm_level level, int timeout_ms);

/** Number of partitions that this producer publishes to now. */
SHMQ_API uint32_t shmq_producer_partitions(const shmq_producer *producer);

/* ---- consuming ------------------------------------------------------------------------------- */

enum shmq_wait {
    SHMQ_WAIT_HYBRID = 0, /**< spins for some microseconds, then sleeps */
    SHMQ_WAIT_SPIN = 1,   /**< burns the core; lowest latency */
    SHMQ_WAIT_BLOCK = 2,  /**< sleeps at once */
};
enum shmq_from {
    SHMQ_FROM_COMMITTED = 0, /**< where the group left off; a new group: earliest */
    SHMQ_FROM_EARLIEST = 1,  /**< the oldest message still there (a new group only) */
    SHMQ_FROM_LATEST = 2,    /**< what is published from now on (a new group only) */
    SHMQ_FROM_OFFSET = 3,    /**< from_offset, in every partition (a new group only) */
    SHMQ_FROM_TIME = 4,      /**< the first message of from_time_ns or later (a new group only) */
};
enum shmq_read {
    SHMQ_READ_ANY = 0, /**< what is published */
    SHMQ_READ_DURABLE =
        1, /**< only what no crash that the topic's durability covers can take back */
};
enum shmq_mode { SHMQ_MODE_STREAM = 0, SHMQ_MODE_SHARED = 1 };
enum shmq_commit_mode {
    SHMQ_COMMIT_AUTO = 0,   /**< each poll commits what the poll before returned */
    SHMQ_COMMIT_MANUAL = 1, /**< only shmq_commit_offsets() commits */
};

struct shmq_consumer_options {
    uint32_t size;
    uint32_t mode;     /**< enum shmq_mode */
    const char *group; /**< NULL: "default" */
    uint32_t from;     /**< enum shmq_from */
    uint32_t wait;     /**< enum shmq_wait */
    uint64_t from_offset;
    uint32_t commit;       /**< enum shmq_commit_mode */
    uint32_t prefetch;     /**< at most so many messages per partition and poll; 0: no bound */
    uint32_t spin_us;      /**< hybrid: how long to spin; 0: 20 */
    uint32_t read;         /**< enum shmq_read; without a journal everything is durable enough */
    uint64_t from_time_ns; /**< CLOCK_REALTIME */
    uint64_t reserved[5];
};
#define SHMQ_CONSUMER_OPTIONS_INIT \
    { \
        sizeof(struct shmq_consumer_options), 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, \
        { \
            0, 0, 0, 0, 0 \
        } \
    }

/** Joins a group on a topic. The group is made if it is not there, and from now on everything
 * published is kept for it (policies block and reject). One member owns the partitions; further
 * ones stand by and take over at its death or close: until then their polls return 0 (see
 * shmq_consumer_describe()).
 * @return 0; SHMQ_ENOTOPIC; SHMQ_ELIMIT (64 groups a topic, 64 members a group); SHMQ_ENOTSUP
 * (mode shared); SHMQ_EINVAL; SHMQ_EPERM; SHMQ_ENOBUS; SHMQ_ETIMEOUT; SHMQ_ENOMEM. */
SHMQ_API int shmq_consumer_open(shmq_channel *channel, const char *topic,
                                const struct shmq_consumer_options *options,
                                shmq_consumer **ret_consumer);
/** Leaves the group. With commit auto, what the last poll returned is committed: it was processed.
 */
SHMQ_API void shmq_consumer_close(shmq_consumer *consumer);

/** Takes up to `max` messages, in order per partition, fair over partitions. Waits up to
 * timeout_ms for the first one; a poll that had to wait may return with that one alone, the next poll
 * with what came behind it. Bodies, keys and headers are views, valid until the next poll, seek or close
 * of this consumer (policies block and reject: straight into the ring; drop-old: a
 * validated copy). With timeout 0 it may still take up to 100 ms, rarely, when it has to ask the
 * supervisor for something: added partitions, another supervisor.
 * @return number of messages; 0 when the timeout passed or a signal handler ran; SHMQ_ENOTOPIC
 * (deleted); SHMQ_ENOGROUP (the group was deleted); SHMQ_ECORRUPT (a partition is quarantined:
 * told once, the others go on; each time when there are no others); SHMQ_ECLOSED (the bus is gone
 * and no other answers); SHMQ_EFORK; SHMQ_EINVAL. */
SHMQ_API int shmq_poll(shmq_consumer *consumer, struct shmq_message *messages, uint32_t max,
                       int timeout_ms);

/** Commits everything that polls have returned so far: it will not be delivered to this group
 * again.
 * @return 0; SHMQ_EFENCED (another member has taken over a partition: what was not committed is
 * delivered there). */
SHMQ_API int shmq_commit_offsets(shmq_consumer *consumer);

struct shmq_position {
    uint64_t position; /**< the next message to be returned stands here or behind */
    uint64_t committed;
    uint64_t tail; /**< the log's end as of now */
    uint64_t
        lost_bytes; /**< overwritten before this consumer read them (record headers included) */
    uint32_t owned; /**< 1: this consumer reads the partition */
    uint32_t partition;
};
/** Where the consumer stands in one of the topic's partitions. SHMQ_EINVAL: no such partition. */
SHMQ_API int shmq_consumer_position(shmq_consumer *consumer, uint32_t partition,
                                    struct shmq_position *ret_position);

/** Moves on to another place: an offset, or SHMQ_SEEK_EARLIEST, SHMQ_SEEK_LATEST; all partitions
 * with SHMQ_ALL_PARTITIONS. Views of the last poll become invalid. An offset that was overwritten
 * already: the oldest there is; beyond the end: the end. @return 0; SHMQ_EINVAL; SHMQ_EFENCED
 * (not the owner). */
#define SHMQ_ALL_PARTITIONS UINT32_MAX
#define SHMQ_SEEK_EARLIEST  (UINT64_MAX - 1)
#define SHMQ_SEEK_LATEST    UINT64_MAX
SHMQ_API int shmq_seek(shmq_consumer *consumer, uint32_t partition, uint64_t offset);

/** The same to the first message of `time_ns` (CLOCK_REALTIME) or later, in the journal or the ring; to
 * the end if there is none. May read a journal file (64 MiB at most) and ask the supervisor for it.
 * @return 0; SHMQ_EINVAL; SHMQ_EFENCED; SHMQ_EIO (the journal cannot be read); SHMQ_ENOBUS, SHMQ_ETIMEOUT
 * (the supervisor does not answer: nothing was moved). */
SHMQ_API int shmq_seek_time(shmq_consumer *consumer, uint32_t partition, uint64_t time_ns);

struct shmq_consumer_info {
    uint32_t partitions; /**< of the topic */
    uint32_t owned;      /**< that this consumer reads; 0: it stands by */
    uint64_t owner;      /**< connection id of whoever owns partition 0 in the group; 0: nobody */
    uint32_t owner_pid;
    uint32_t member; /**< index in the group */
    char owner_command[16];
    uint64_t lost_bytes; /**< all partitions */
    uint64_t reserved[4];
};
SHMQ_API int shmq_consumer_describe(shmq_consumer *consumer, struct shmq_consumer_info *ret_info);

/** A descriptor for poll/epoll, readable when shmq_poll() may have something to return. Call
 * shmq_poll(…, 0) until it returns 0, then wait on the descriptor again; do not read it. Owned by
 * the consumer. Starts one thread. */
SHMQ_API int shmq_consumer_fd(shmq_consumer *consumer);

#ifdef __cplusplus
}
#endif
#endif
