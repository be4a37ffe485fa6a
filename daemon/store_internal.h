/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of store say to each other. */
#ifndef SHMQ_DAEMON_STORE_INTERNAL_H
#define SHMQ_DAEMON_STORE_INTERNAL_H

#include "daemon/journal_write.h"
#include "daemon/store.h"

#define STORE_VERSION    1u
#define STORE_HEAD_BYTES 16u
#define STORE_BODY_BYTES 2048u /* the longest record: a topic with two names of 200 bytes */

enum store_kind {
    STORE_SNAPSHOT_BEGIN = 1, /* the first record of its file, if it is there */
    STORE_SNAPSHOT_END = 2,
    STORE_PUT_TOPIC = 3,
    STORE_DELETE_TOPIC = 4,
    STORE_PUT_GROUP = 5,
    STORE_DELETE_GROUP = 6,
    STORE_PUT_MARK = 7,
    STORE_PUT_COUNTER = 8,
    STORE_PUT_CURSOR = 9,
};

/* Deletes, the counter and the end of a snapshot. */
struct store_ids {
    uint64_t topic;
    uint64_t group;
    uint64_t count; /* next id, or records of a snapshot */
};

union store_value {
    struct store_topic topic;
    struct store_group group;
    struct store_mark mark;
    struct store_cursor cursor;
    struct store_ids ids;
};

struct store_record {
    enum store_kind kind;
    uint64_t confirmed;
    union store_value value;
};

/* `value` is the struct of that kind (NULL for the beginning of a snapshot). 0, or SHMQ_EINVAL if it
 * could not be read back. */
int store_encode(enum store_kind kind, const void *value, uint64_t confirmed,
                 unsigned char ret_body[STORE_BODY_BYTES], uint32_t *ret_length,
                 struct error_buffer *why);

/* The body may hold anything. 0, SHMQ_ECORRUPT, or SHMQ_EVERSION for what a newer shmqd wrote. */
int store_decode(const unsigned char *body, size_t length, struct store_record *ret_record,
                 struct error_buffer *why);

/* What replay learns of a journal. `next_base` lies beyond every offset used. */
struct store_history {
    uint64_t end;
    uint64_t next_base;
    uint64_t messages;
    uint64_t max_timestamp_ns;
    uint64_t bytes; /* replayed */
};

int store_replay(const struct journal_place *place, const struct store_callbacks *callbacks,
                 void *context, struct store_history *ret_history, struct error_buffer *why);

#endif
