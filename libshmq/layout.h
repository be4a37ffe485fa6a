/* layout.h: every byte that processes share, in memory and on disk.
 *
 * The one definition of shared bytes: nothing else may describe them. Segments are split by
 * writer, so that permissions are mmap flags; words with different writers stand at least
 * LAYOUT_SPACING apart. There are offsets here, never pointers, and no pthread objects. All words
 * that change while others look are C11 atomics, lock-free and address-free, and are always
 * reached through the *first* mapping of their segment.
 *
 *   B  bus          one a bus               written by shmqd            read by all
 *   S  state        one a partition         written by shmqd            read by all
 *   P  producers    one a partition         written by producers        read by all
 *   W  wait         one a partition         written by every member
 *   D  data         one a partition         written by producers        read by all      (bare ring bytes, no header)
 *   G  group        one a (group,partition) written by its members      read by producers
 *
 * A foreign version or fingerprint is refused by whoever opens a segment (segment.c); a change
 * here changes both.
 */
#ifndef SHMQ_LAYOUT_H
#define SHMQ_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_MAGIC   UINT64_C(0x31304d4853514d48) /* "HMQSHM01" in memory */
#define LAYOUT_VERSION 1u

#define LAYOUT_SPACING \
    128 /* between words of different writers: two lines, for the adjacent-line prefetcher */
#define RECORD_UNIT       64u    /* offsets and record sizes are multiples of it */
#define RECORD_HEADER     32u    /* bytes before a record's key */
#define RING_MIN_BYTES    65536u /* smallest capacity of a ring; always a power of two */
#define RING_MAX_BYTES    (UINT64_C(1) << 34)
#define RING_CLAIM_SHIFT  3   /* the largest claim is capacity / 8 */
#define GATES_MAX         64u /* groups a partition */
#define SLOTS_MAX         64u /* producers a partition */
#define MEMBERS_MAX       64u /* members a group */
#define LAYOUT_NAME_BYTES 256 /* a name of at most 200 bytes and its NUL, on lines of its own */
#define CLIENT_NONE       UINT64_C(0)
#define CLIENT_SHMQD \
    UINT64_C(1) /* the supervisor's own id: byte 1 of B is locked while one lives */

enum segment_kind {
    SEGMENT_BUS = 'B',
    SEGMENT_STATE = 'S',
    SEGMENT_PRODUCERS = 'P',
    SEGMENT_WAIT = 'W',
    SEGMENT_DATA = 'D',
    SEGMENT_GROUP = 'G',
};

/* Stands at the start of every segment but D. `ready` is stored last, with release, by whoever
 * creates the segment. */
struct segment_header {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;
    uint64_t fingerprint; /* of the layout that the creator was built with */
    uint64_t bytes;       /* the whole segment's size */
    uint64_t topic;       /* topic id; 0 in B */
    uint32_t partition;   /* index in the topic */
    uint32_t reserved0;
    uint64_t salt;  /* the partition's: pairs the segments of one partition and incarnation */
    uint64_t group; /* group id in G, else 0 */
    uint64_t reserved[7];
    _Atomic uint64_t ready; /* LAYOUT_MAGIC once all of the above is valid */
};
static_assert(sizeof(struct segment_header) == LAYOUT_SPACING, "segment header");

/* ---- B: the bus ------------------------------------------------------------------------------ */

enum wait_mode {
    WAIT_MODE_MEMBARRIER = 1, /* sleepers issue membarrier, wakers a compiler fence */
    WAIT_MODE_FENCE = 2,      /* both issue a seq_cst fence */
};

/* One connection of one process. Ids are never reused within a boot; entries are. */
struct bus_client {
    _Atomic uint64_t id; /* CLIENT_NONE: entry is free. Stored last, cleared first */
    uint64_t
        start_time; /* field 22 of /proc/PID/stat: (pid, start_time) names a process of this boot */
    uint32_t uid;
    uint32_t pid;
    uint64_t connected_ns; /* CLOCK_REALTIME */
    _Atomic uint32_t
        event; /* futex word: bumped when this client's assignments or partitions change */
    uint32_t reserved0;
    char command[16]; /* /proc/PID/comm at connect */
    uint64_t reserved;
};
static_assert(sizeof(struct bus_client) == 64, "bus client");

struct bus_segment {
    struct segment_header header;

    unsigned char boot_id[16]; /* random, new whenever B is created anew */
    uint32_t wait_mode;        /* enum wait_mode, for the whole bus, fixed at its creation */
    uint32_t client_count;     /* entries in clients[] */
    uint64_t created_ns;
    unsigned char reserved0[96];

    _Atomic uint64_t incarnation; /* +1 at every start of a supervisor on this B */
    _Atomic uint64_t next_client; /* next id to hand out */
    _Atomic uint32_t closed;      /* 1: this bus is gone for good; connect again */
    uint32_t shmqd_pid;
    unsigned char reserved1[104];

    struct bus_client clients[];
};
static_assert(offsetof(struct bus_segment, boot_id) == 128, "bus constants");
static_assert(offsetof(struct bus_segment, incarnation) == 256, "bus words");
static_assert(sizeof(struct bus_segment) == 384, "bus segment");

/* ---- S: what the supervisor says about a partition ------------------------------------------- */

enum overflow_policy {
    OVERFLOW_BLOCK = 0,
    OVERFLOW_REJECT = 1,
    OVERFLOW_DROP_OLD = 2,
    OVERFLOW_SPILL = 3, /* needs a journal */
};

enum producers_mode { PRODUCERS_MULTI = 0, PRODUCERS_SINGLE = 1 };
enum timestamp_mode { TIMESTAMP_COARSE = 0, TIMESTAMP_NONE = 1, TIMESTAMP_PRECISE = 2 };
enum durable_mode { DURABLE_NONE = 0, DURABLE_OS = 1, DURABLE_INTERVAL = 2, DURABLE_ALWAYS = 3 };
enum group_kind { GROUP_STREAM = 0, GROUP_SHARED = 1 };

enum partition_status {
    PARTITION_OPEN = 0,
    PARTITION_SEALED = 1, /* rotated: ask shmqd for the new segments */
    PARTITION_DELETED = 2,
    PARTITION_QUARANTINED = 3, /* scribbled: nobody reads or writes it any more */
};

enum gate_state {
    GATE_FREE = 0,
    GATE_OPEN = 1,    /* its cursor and holds count, once the cursor says "gates" */
    GATE_IDLE = 2,    /* lingered without members: does not hold producers back */
    GATE_DELETED = 3, /* skipped at once; the entry may be reused for another group */
};

/* One consumer group's entry in the gate table; its index here is also the suffix of its G
 * segment's name. */
struct gate {
    _Atomic uint64_t group;  /* id, unique on the bus and never reused; CLIENT_NONE while free */
    _Atomic uint32_t state;  /* enum gate_state */
    uint32_t kind;           /* enum group_kind */
    _Atomic uint64_t assign; /* generation << 32 | member + 1; member 0 = nobody. See cursor.h */
    _Atomic uint64_t revoke; /* generation that is asked to let go; 0 none */
    uint64_t reserved[4];
};
static_assert(sizeof(struct gate) == 64, "gate");

struct state_segment {
    struct segment_header header;

    uint64_t capacity;   /* bytes of the ring */
    uint64_t base;       /* first offset ever of this incarnation; multiple of RECORD_UNIT */
    uint32_t policy;     /* enum overflow_policy */
    uint32_t producers;  /* enum producers_mode */
    uint32_t timestamps; /* enum timestamp_mode */
    uint32_t durability; /* enum durable_mode */
    uint32_t slot_count; /* 1 in single-producer mode */
    uint32_t wait_mode;  /* enum wait_mode, copied from B */
    unsigned char reserved0[88];

    char name
        [LAYOUT_NAME_BYTES]; /* the topic's, NUL-terminated: for tools that work without a supervisor */

    _Atomic uint64_t
        durable; /* everything below is on disk as promised; UINT64_MAX without a journal */
    _Atomic uint64_t journal_messages; /* in the journal below `durable`; a statistic */
    _Atomic uint32_t journal_error;    /* errno for which the journal does not get on; 0: it does */
    unsigned char reserved1[108];

    _Atomic uint64_t gate_epoch;      /* +1 whenever a gate was entered or opened */
    _Atomic uint32_t gate_count;      /* gates[0..gate_count) were ever used */
    _Atomic uint32_t status;          /* enum partition_status */
    _Atomic uint64_t sealed;          /* end of the log when status is SEALED */
    _Atomic uint64_t first;           /* purged below: nobody starts to read before it */
    _Atomic uint32_t max_message;     /* largest key + headers + body, bytes */
    _Atomic uint32_t partition_count; /* of the topic, as of now: it may grow */
    unsigned char reserved2[88];

    struct gate gates[GATES_MAX];
    _Atomic uint64_t slot_client[SLOTS_MAX]; /* who owns producer slot i; CLIENT_NONE = free */
};
static_assert(offsetof(struct state_segment, capacity) == 128, "state constants");
static_assert(offsetof(struct state_segment, name) == 256, "state name");
static_assert(offsetof(struct state_segment, durable) == 512, "state durable");
static_assert(offsetof(struct state_segment, gate_epoch) == 640, "state words");
static_assert(offsetof(struct state_segment, gates) == 768, "state gates");
static_assert(offsetof(struct state_segment, slot_client) == 4864, "state slots");
static_assert(sizeof(struct state_segment) == 5376, "state segment");

/* ---- P: what producers say ------------------------------------------------------------------- */

#define SLOT_CLAIMING UINT64_C(1) /* `at` names an offset that I try to claim, or have claimed */
#define SLOT_OWNER    UINT64_C(2) /* ... and I won it: [at, end) is mine */
#define SLOT_BITS     UINT64_C(63)

/* Written by its producer alone; assigned, cleared and reused by shmqd under the recovery byte. */
struct producer_slot {
    _Atomic uint64_t at;      /* claimed offset | SLOT_ bits; 0 = none */
    _Atomic uint64_t end;     /* end of the claim that `at` names */
    _Atomic uint64_t records; /* a statistic of this slot's life, relaxed */
    uint64_t reserved0;
    _Atomic uint64_t
        doing; /* the router's: ingress offset that is being copied, and that is copied */
    _Atomic uint64_t done;
    _Atomic uint64_t
        token; /* shmqd's: id of the request that got this slot, + 1; finds it again when repeated */
    uint64_t reserved[9];
};
static_assert(sizeof(struct producer_slot) == LAYOUT_SPACING, "producer slot");

struct producers_segment {
    struct segment_header header;
    _Atomic uint64_t tail; /* end of the last claim: only grows */
    unsigned char reserved0[120];
    _Atomic uint64_t head; /* announcement: producers may overwrite below it; only grows */
    unsigned char reserved1[120];
    struct producer_slot slots[]; /* slot_count of them */
};
static_assert(offsetof(struct producers_segment, tail) == 128, "tail");
static_assert(offsetof(struct producers_segment, head) == 256, "head");
static_assert(offsetof(struct producers_segment, slots) == 384, "slots");

/* OFD lock bytes of P: far above its size, so that they name nothing but themselves. */
#define PRODUCERS_RECOVERY_BYTE (INT64_C(1) << 40)

/* ---- W: who sleeps --------------------------------------------------------------------------- */

#define ATTENTION_DATA     1u  /* somebody sleeps until there is a record */
#define ATTENTION_ROOM     2u  /* somebody sleeps until there is room */
#define ATTENTION_DOORBELL 4u  /* the flusher sleeps: who publishes rings */
#define ATTENTION_CLOSED   8u  /* a hint: the truth is state_segment.status */
#define ATTENTION_DURABLE  16u /* somebody sleeps until `durable` moves */
#define ATTENTION_NAP      32u /* the flusher naps: who waits for `durable` or for room rings */

struct wait_segment {
    struct segment_header header;
    _Atomic uint32_t attention; /* on a line that nobody writes in steady state */
    unsigned char reserved0[124];
    _Atomic uint32_t data_seq; /* futex words, bumped before every wake */
    _Atomic uint32_t room_seq;
    _Atomic uint32_t bell_seq; /* DOORBELL and NAP */
    _Atomic uint32_t durable_seq;
    unsigned char reserved1[112];
};
static_assert(offsetof(struct wait_segment, attention) == 128, "attention");
static_assert(offsetof(struct wait_segment, data_seq) == 256, "sequence words");
static_assert(sizeof(struct wait_segment) == 384, "wait segment");

/* ---- G: what a consumer group says about a partition ----------------------------------------- */

#define HOLD_NONE UINT64_MAX

/* A member's line. `client` is written by shmqd when the index is given out, the rest by the
 * member. */
struct group_member {
    _Atomic uint64_t hold;   /* lowest offset that this member may still be looking at; HOLD_NONE */
    _Atomic uint64_t client; /* CLIENT_NONE: index is free */
    _Atomic uint64_t released; /* generation that this member has let go */
    _Atomic uint64_t records;  /* statistics, relaxed */
    uint64_t reserved0;
    _Atomic uint64_t lost_bytes;
    _Atomic uint64_t position; /* where it reads, for lag; a statistic, gates nothing */
    _Atomic uint64_t poll_ns;  /* CLOCK_MONOTONIC of its last slow poll; a statistic */
    _Atomic uint64_t token;    /* shmqd's, with `client`: id of the request that joined, + 1 */
    uint64_t reserved[7];
};
static_assert(sizeof(struct group_member) == LAYOUT_SPACING, "group member");

/* Shared groups only (design §6): one unacknowledged message. */
struct delivery_entry {
    _Atomic uint64_t offset;
    _Atomic uint64_t word; /* lap 12 | state 3 | member 12 | attempts 5 | deadline 32 */
};
static_assert(sizeof(struct delivery_entry) == 16, "delivery entry");

struct group_segment {
    struct segment_header header;
    _Atomic uint64_t cursor; /* generation 15 | gates 1 | offset/64 mod 2^48; see cursor.h */
    unsigned char reserved0[120];
    _Atomic uint64_t next; /* shared groups: front of the delivery table */
    unsigned char reserved1[120];
    uint32_t kind;         /* enum group_kind */
    uint32_t member_count; /* MEMBERS_MAX */
    uint32_t entry_count;  /* delivery entries behind members[]; 0 in stream groups */
    unsigned char reserved2[116];
    char name[LAYOUT_NAME_BYTES]; /* the group's; for tools, not trusted */
    struct group_member members[MEMBERS_MAX];
    struct delivery_entry entries[];
};
static_assert(offsetof(struct group_segment, cursor) == 128, "cursor");
static_assert(offsetof(struct group_segment, next) == 256, "next");
static_assert(offsetof(struct group_segment, kind) == 384, "group constants");
static_assert(offsetof(struct group_segment, members) == 768, "members");
static_assert(sizeof(struct group_segment) == 8960, "group segment");

/* ---- the record: the same bytes in ring and journal ------------------------------------------ */

#define RECORD_COMMITTED UINT64_C(1)
#define RECORD_PADDING   UINT64_C(2)

/* Aligned to RECORD_UNIT; key, headers and body follow the header without gaps. */
struct record {
    _Atomic uint64_t commit; /* (offset ^ salt) | RECORD_COMMITTED or RECORD_PADDING; stored last */
    uint32_t length;         /* bytes after this header */
    uint32_t crc32c;         /* of the rest of the header and the payload; durable topics only */
    uint64_t timestamp_ns;   /* since the epoch */
    uint16_t producer;       /* slot */
    uint16_t key_length;
    uint16_t headers_length;
    uint8_t type; /* enum record_type */
    uint8_t flags;
    unsigned char payload[];
};
static_assert(sizeof(struct record) == RECORD_HEADER, "record");
static_assert(offsetof(struct record, timestamp_ns) == 16, "record");
static_assert(offsetof(struct record, payload) == 32, "record");

enum record_type {
    RECORD_TYPE_DATA = 0,
    RECORD_TYPE_META = 1, /* metadata journal: see daemon/store.h for the body */
};

/* ---- journal file header (design §4); 4 KiB, then records ------------------------------------ */

#define JOURNAL_MAGIC        UINT64_C(0x31304c4e4a514d48) /* "HMQJNL01" */
#define JOURNAL_HEADER_BYTES 4096u

struct journal_header {
    uint64_t magic;
    uint32_t version;      /* LAYOUT_VERSION */
    uint32_t crc32c;       /* of this header with crc32c = 0, header_bytes long */
    uint64_t base;         /* offset of the first record */
    uint64_t salt;         /* of the stamps in this file */
    uint64_t previous_end; /* where the log ended when this file was begun */
    uint64_t durable;      /* last durable offset at that time */
    uint64_t max_timestamp_ns;
    uint64_t messages; /* before this file */
    uint64_t topic;
    uint32_t partition;
    uint32_t header_bytes; /* JOURNAL_HEADER_BYTES */
    unsigned char reserved[JOURNAL_HEADER_BYTES - 80];
};
static_assert(sizeof(struct journal_header) == JOURNAL_HEADER_BYTES, "journal header");

static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
              "shared atomics must be lock-free");
static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4,
              "shared atomics have no lock inside");

/* One number for the sizes and limits above: builds that differ refuse each other. Offsets are
 * pinned by the assertions; who moves one raises LAYOUT_VERSION. A sum of
 * products, so that it is a constant expression; collisions matter little beside the version. */
#define LAYOUT_MIX(h, x) ((h)*UINT64_C(0x100000001b3) + (uint64_t)(x))
#define LAYOUT_FINGERPRINT \
    LAYOUT_MIX( \
        LAYOUT_MIX( \
            LAYOUT_MIX( \
                LAYOUT_MIX( \
                    LAYOUT_MIX(LAYOUT_MIX(LAYOUT_MIX(LAYOUT_MIX(UINT64_C(0xcbf29ce484222325), \
                                                                LAYOUT_VERSION), \
                                                     sizeof(struct bus_segment)), \
                                          sizeof(struct bus_client)), \
                               sizeof(struct state_segment)), \
                    sizeof(struct producers_segment)), \
                sizeof(struct wait_segment)), \
            sizeof(struct group_segment)), \
        sizeof(struct record) + RECORD_UNIT * 1000 + SLOTS_MAX * 100000 + GATES_MAX * 10000000)

#endif
