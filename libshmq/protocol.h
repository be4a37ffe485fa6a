/* protocol.h: the control messages between clients and shmqd: fixed layouts, bounds, encode and
 * decode. Pure.
 *
 * SOCK_SEQPACKET: one packet is one message; one request, one reply, at most one unread reply a
 * connection; shmqd never speaks first. Every message is a protocol_header and a fixed body, some
 * with an array behind it. A failed reply (status < 0) carries a sentence (protocol_failure)
 * instead of the body. Names are NUL-terminated and checked with protocol_name_ok(); what shmqd
 * receives is hostile until protocol_decode() has passed. Descriptors travel beside replies
 * (SCM_RIGHTS): their order is given at each message.
 */
#ifndef SHMQ_PROTOCOL_H
#define SHMQ_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libshmq/error.h"
#include "libshmq/layout.h"
#include "libshmq/topic_options.h"

#define PROTOCOL_MAGIC     0x51544c43u /* "CLTQ" */
#define PROTOCOL_VERSION   1u
#define PROTOCOL_BYTES_MAX 32768u /* of any message */
#define PROTOCOL_FDS_MAX   4u
#define PROTOCOL_FDS_LOST  UINT32_MAX /* instead of a number: they came, and could not be opened */

enum protocol_type {
    PROTOCOL_HELLO = 1,
    PROTOCOL_GOODBYE = 2,
    PROTOCOL_STATUS = 3,

    PROTOCOL_TOPIC_CREATE = 10,
    PROTOCOL_TOPIC_DESCRIBE = 11,
    PROTOCOL_TOPIC_LIST = 12,
    PROTOCOL_TOPIC_ALTER = 13,
    PROTOCOL_TOPIC_DELETE = 14,
    PROTOCOL_TOPIC_PURGE = 15,
    PROTOCOL_PARTITION_LIST = 16,

    PROTOCOL_PARTITION_OPEN = 20,
    PROTOCOL_SLOT_CLOSE = 21,
    PROTOCOL_RESOLVE = 22,
    PROTOCOL_JOURNAL_OPEN = 23,

    PROTOCOL_GROUP_JOIN = 30,
    PROTOCOL_GROUP_LEAVE = 31,
    PROTOCOL_GROUP_SEGMENT = 32,
    PROTOCOL_GROUP_LIST = 33,
    PROTOCOL_GROUP_DESCRIBE = 34,
    PROTOCOL_GROUP_DELETE = 35,

    PROTOCOL_CLIENT_LIST = 40,
};

struct protocol_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type; /* enum protocol_type, the same in request and reply */
    uint32_t
        id; /* chosen by the client, unique in its identity's life, repeated in the reply. A request that is
                        sent again after a reconnect (its reply was lost) keeps its id: GROUP_JOIN and PARTITION_OPEN
                        then find what the first one got */
    int32_t status;  /* 0 in requests; a shmq_error in replies */
    uint32_t length; /* of the whole message */
    uint32_t count;  /* elements of the array behind the body */
};
static_assert(sizeof(struct protocol_header) == 24, "protocol header");

struct protocol_failure {
    struct protocol_header header;
    char text[512]; /* `what: why; what to do` */
};

/* HELLO: the first message. A client that comes back after the supervisor's death resumes its
 * identity: same process (pid, start time) and boot; SHMQ_ECLOSED: start over. With the reply,
 * unless resumed: B (read-only, byte [client] locked on its description). */
#define HELLO_MEMBARRIER 1u /* this process is registered for GLOBAL_EXPEDITED */

struct protocol_hello {
    struct protocol_header header;
    uint64_t fingerprint;
    uint64_t resume_client; /* 0: a new one */
    unsigned char boot_id[16];
    uint32_t flags;
    uint32_t reserved;
};

struct protocol_welcome {
    struct protocol_header header;
    uint64_t client;
    uint64_t incarnation;
    unsigned char boot_id[16];
    uint32_t entry;     /* index in bus_segment.clients */
    uint32_t wait_mode; /* enum wait_mode */
    uint32_t resumed;
    uint32_t shmqd_pid;
    char server_version[32];
};

/* Requests that name nothing but a topic: DESCRIBE, DELETE, PURGE. `force`: also with clients
 * attached. */
struct protocol_topic_request {
    struct protocol_header header;
    char vhost[NAME_BYTES];
    char name[NAME_BYTES];
    uint32_t flags;
    uint32_t reserved;
};

/* CREATE: options as asked (topic_options_complete() runs in shmqd too). ALTER: only fields named
 * by `mask` count. */
#define TOPIC_IF_NOT_EXISTS 1u /* CREATE: an equal one is success */
#define ALTER_PARTITIONS    1u
#define ALTER_LINGER        2u
#define ALTER_MAX_MESSAGE   4u
#define ALTER_RETAIN_BYTES  8u
#define ALTER_RETAIN_TIME   16u
#define ALTER_SYNC_INTERVAL 32u
#define ALTER_ALL           63u

struct protocol_topic_put {
    struct protocol_header header;
    struct topic_options options;
    uint32_t flags;
    uint32_t mask;
};

struct protocol_topic_info {
    struct topic_options options;
    uint64_t id;
    uint64_t created_ns; /* CLOCK_REALTIME */
    uint64_t shm_bytes;  /* of all its segments */
    uint32_t owner_uid;
    uint32_t group_count;
    uint32_t producer_count; /* slots in use */
    uint32_t member_count;
    uint32_t quarantined; /* partitions */
    uint32_t reserved;
};

struct protocol_topic_reply { /* CREATE, DESCRIBE, ALTER */
    struct protocol_header header;
    struct protocol_topic_info info;
};

/* Lists are paged: `after` is the last name (or id) already seen; header.count elements follow
 * the body, ordered by it; `more` says that another page is worth asking for. */
struct
    protocol_list_request { /* TOPIC_LIST, GROUP_LIST (of topic `name`, all if empty), PARTITION_LIST (of `name`) */
    struct protocol_header header;
    char vhost[NAME_BYTES];
    char name[NAME_BYTES];
    char after[NAME_BYTES];
    uint64_t after_id;
};

struct protocol_list_reply {
    struct protocol_header header;
    uint32_t more;
    uint32_t reserved;
    unsigned char elements[]; /* header.count of the type that the request names */
};

struct protocol_partition_info { /* PARTITION_LIST; after_id = partition + 1 */
    uint32_t partition;
    uint32_t status; /* enum partition_status */
    uint64_t base;
    uint64_t first;
    uint64_t head;
    uint64_t tail;
    uint64_t records; /* published, by slots in use since they were given out, and before */
    uint64_t blocker_offset;
    uint64_t blocker_client;
    uint32_t blocker; /* enum room_holder; FREE: producers have room */
    uint32_t blocker_gate;
    uint32_t producer_count;
    uint32_t journal_error; /* errno for which the journal does not get on; 0: it does */
    uint64_t durable;       /* UINT64_MAX: no journal */
    uint64_t
        journal_first; /* oldest offset in the journal; where it has no file yet, the log's base */
    uint64_t journal_bytes; /* of its files, on disk */
    uint64_t journal_syncs;
    uint64_t journal_damaged; /* records that were not journaled because their checksum was wrong */
    uint32_t journal_files;
    uint32_t reserved;
};

/* PARTITION_OPEN. With the reply S (read-only), P, W (read-write), D: P and D read-write for
 * producers. P is an open file description of its own. Producers get a slot; EBUSY in single mode
 * names the owner. */
enum partition_role { ROLE_CONSUMER = 0, ROLE_PRODUCER = 1 };

struct protocol_partition_open {
    struct protocol_header header;
    uint64_t topic; /* id */
    uint32_t partition;
    uint32_t role;
};

struct protocol_partition_opened {
    struct protocol_header header;
    uint64_t salt;
    uint64_t capacity;
    uint32_t slot; /* producers */
    uint32_t reserved;
};

/* SLOT_CLOSE: no claim is outstanding. RESOLVE: asked by those who may not write P and D; the
 * reply's `result` is an enum resolve_result. */
struct protocol_slot_request {
    struct protocol_header header;
    uint64_t topic;
    uint64_t offset; /* RESOLVE */
    uint32_t partition;
    uint32_t slot; /* SLOT_CLOSE */
};

/* JOURNAL_OPEN: the file in which `offset` lies, or else the oldest that begins above it: with the reply
 * a read-only descriptor. The reply's `base` 0 and no descriptor: nothing at or above `offset` is in a file. */
struct protocol_journal_open {
    struct protocol_header header;
    uint64_t topic;
    uint64_t offset;
    uint64_t
        time_ns; /* JOURNAL_BY_TIME: the first file in which something of this time or later may be */
    uint32_t partition;
    uint32_t flags;
};
#define JOURNAL_BY_TIME 1u

struct protocol_journal_opened {
    struct protocol_header header;
    uint64_t base;
    uint64_t next_base;         /* the file is valid up to it; UINT64_MAX: it is the newest */
    uint64_t next_previous_end; /* where the log ended when the next file was begun; with it */
    uint64_t
        log_base; /* the log goes on in the ring from here on; what is journaled below, and ended below it,
                           was written before the memory was lost */
    uint32_t present; /* 1: a descriptor came */
    uint32_t reserved;
};

struct protocol_resolve_reply {
    struct protocol_header header;
    uint32_t result;
    uint32_t reserved;
};

/* GROUP_JOIN: creates the group if it is not there, attached at `from`; an existing one goes on
 * from its cursor. */
enum group_from { FROM_COMMITTED = 0, FROM_EARLIEST = 1, FROM_LATEST = 2, FROM_OFFSET = 3 };

struct protocol_group_join {
    struct protocol_header header;
    char vhost[NAME_BYTES];
    char topic[NAME_BYTES];
    char group[NAME_BYTES];
    uint64_t offset;
    uint32_t from; /* enum group_from: for a new group; FROM_COMMITTED = earliest there */
    uint32_t kind; /* enum group_kind */
};

struct protocol_group_joined {
    struct protocol_header header;
    struct protocol_topic_info topic;
    uint64_t group;
    uint32_t gate;   /* index in the gate table of every partition */
    uint32_t member; /* index in G.members of every partition */
    uint32_t created;
    uint32_t standby; /* 1: another member owns the partitions */
};

/* LEAVE; DELETE (with `flags` TOPIC_FORCE members are fenced off). SEGMENT: with the reply G,
 * read-write for members of the group, else read-only. */
#define GROUP_FORCE 1u

struct protocol_group_request {
    struct protocol_header header;
    uint64_t topic;
    uint64_t group;
    uint32_t partition; /* SEGMENT */
    uint32_t gate;      /* SEGMENT */
    uint32_t member;    /* LEAVE */
    uint32_t flags;
    char topic_name[NAME_BYTES]; /* DESCRIBE, DELETE: by name, ids 0 */
    char group_name[NAME_BYTES];
};

struct protocol_group_info { /* GROUP_LIST; ordered by id */
    uint64_t id;
    uint64_t topic;
    char topic_name[NAME_BYTES];
    char name[NAME_BYTES];
    uint64_t lag_bytes;      /* summed over partitions */
    uint64_t linger_left_ns; /* until it stops gating; UINT64_MAX: not counting down */
    uint32_t kind;
    uint32_t state; /* enum gate_state */
    uint32_t gate;
    uint32_t member_count;
    uint32_t partitions;
    uint32_t reserved;
};

struct protocol_group_partition { /* GROUP_DESCRIBE: header.count behind a protocol_group_reply */
    uint32_t partition;
    uint32_t generation;
    uint64_t cursor;
    uint64_t lag_bytes;
    uint64_t lost_bytes;
    uint64_t records; /* delivered to the present owner */
    uint64_t owner;   /* client id, CLIENT_NONE */
    uint32_t owner_pid;
    uint32_t reserved;
    char owner_command[16];
};

struct protocol_group_reply {
    struct protocol_header header;
    struct protocol_group_info info;
    struct protocol_group_partition
        partitions[]; /* paged by request.partition: the first one wanted */
};

struct protocol_client_info { /* CLIENT_LIST; ordered by id */
    uint64_t id;
    uint64_t connected_ns;
    uint32_t uid;
    uint32_t pid;
    char command[16];
    uint32_t slots;       /* producer slots it owns */
    uint32_t memberships; /* groups */
    uint32_t owned;       /* partitions that it consumes */
    uint32_t absent;      /* 1: known from B, has not come back to this supervisor */
    uint64_t holds_bytes; /* largest lag of a cursor or hold of its */
};

struct protocol_status_reply {
    struct protocol_header header;
    char version[32];
    char bus[NAME_BYTES];
    char runtime_dir[256];
    char state_dir[256];
    uint64_t started_ns;
    uint64_t incarnation;
    uint64_t shm_bytes;
    uint32_t pid;
    uint32_t uid;
    uint32_t wait_mode;
    uint32_t topics;
    uint32_t partitions;
    uint32_t groups;
    uint32_t clients;
    uint32_t quarantined;
    uint32_t max_clients;
    uint32_t ephemeral;
    uint64_t journal_bytes; /* on disk, of all partitions */
    uint32_t journals;      /* partitions that have one */
    uint32_t journals_failing;
};

/* Fills a header for a request of `length` bytes. */
void protocol_begin(struct protocol_header *header, enum protocol_type type, uint32_t length_bytes);

/* Checks magic, version, length against `bytes` received, and that `bytes` is what a request of
 * this type has. 0, SHMQ_EVERSION, SHMQ_EPROTO. */
int protocol_check_request(const void *message, size_t bytes, struct error_buffer *why);

/* Client side: a reply to `request`, at least `body_bytes` long, its array of `element_bytes`
 * each within the message. On status < 0 the failure's sentence is copied to `why` and the status
 * returned. */
int protocol_check_reply(const void *message, size_t bytes, const struct protocol_header *request,
                         size_t body_bytes, size_t element_bytes, struct error_buffer *why);

/* NUL-terminated within NAME_BYTES and a valid name (or empty, if allowed). */
bool protocol_name_ok(const char name[NAME_BYTES], bool may_be_empty);

const char *protocol_type_name(unsigned type);

/* sendmsg / recvmsg of one packet with descriptors; CLOEXEC; MSG_TRUNC and more descriptors than
 * a message has are SHMQ_EPROTO, all of them closed. Where this process may not open them, the
 * message counts, and their number is PROTOCOL_FDS_LOST. MSG_NOSIGNAL. Return bytes, 0 at the end,
 * negative error; SHMQ_EAGAIN when it would block. */
int protocol_send(int socket_fd, const void *message, size_t bytes, const int *fds,
                  unsigned fd_count);
int protocol_receive(int socket_fd, void *buffer, size_t room, int *ret_fds,
                     unsigned *ret_fd_count);

#endif
