/* topic_options.h: what a topic is, as client, supervisor and metadata journal all say it; with
 * the checks.
 *
 * Plain values, no pointers: the same struct travels in control messages (protocol.h) and is
 * encoded field by field, tagged, in the metadata journal (daemon/store.h). Fields are only added
 * at the end.
 */
#ifndef SHMQ_TOPIC_OPTIONS_H
#define SHMQ_TOPIC_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "libshmq/error.h"

#define NAME_MAX_BYTES     200u  /* longest topic, group, vhost, bus name */
#define NAME_BYTES         208u  /* with its NUL, rounded up */
#define PARTITIONS_MAX     1024u /* a topic */
#define LINGER_FOREVER     UINT64_MAX
#define LINGER_DEFAULT_NS  UINT64_C(300000000000) /* 5 min */
#define RING_DEFAULT_BYTES (UINT64_C(1) << 20)
#define GROUP_DEFAULT      "default"
#define VHOST_DEFAULT      "default"

#define SYNC_INTERVAL_DEFAULT_NS UINT64_C(100000000)     /* 100 ms */
#define SYNC_INTERVAL_MIN_NS     UINT64_C(1000000)       /* 1 ms */
#define SYNC_INTERVAL_MAX_NS     UINT64_C(3600000000000) /* 1 h */
#define RETAIN_BYTES_MIN         (UINT64_C(1) << 20)     /* a journal's first file */

struct topic_options {
    char vhost[NAME_BYTES];
    char name[NAME_BYTES];
    uint64_t ring_bytes;       /* a power of two, RING_MIN_BYTES… */
    uint64_t linger_ns;        /* a group without members stops gating after it; LINGER_FOREVER */
    uint64_t sync_interval_ns; /* policy interval; SYNC_INTERVAL_DEFAULT_NS elsewhere */
    uint64_t retain_bytes;     /* of a partition's journal; 0: no bound */
    uint64_t retain_ns;        /* 0: no bound */
    uint32_t partitions;
    uint32_t max_message; /* bytes, key + headers + body */
    uint32_t policy;      /* enum overflow_policy */
    uint32_t producers;   /* enum producers_mode */
    uint32_t timestamps;  /* enum timestamp_mode */
    uint32_t durability;  /* enum durable_mode */
    uint32_t reserved[8];
};

/* 1–200 of A–Z a–z 0–9 . _ -, not starting with a dot. */
bool name_is_valid(const char *name);

/* Names that begin with "shmq." are the bus's own. */
bool name_is_reserved(const char *name);

/* Largest message that a ring of this capacity takes: one claim less a record header. */
uint32_t ring_max_message(uint64_t ring_bytes);

/* Defaults for every field but the names. */
void topic_options_init(struct topic_options *options);

/* Fills what was left 0 (ring from max_message, max_message from the ring) and checks everything.
 * 0, or SHMQ_EINVAL with a sentence in `why` that names the field and the remedy. A string that
 * is not terminated is refused. */
int topic_options_complete(struct topic_options *options, struct error_buffer *why);

/* Of that what concerns the journal: durability, policy spill, sync interval, retention. For a change of an
 * existing topic, too. */
int topic_options_check_journal(const struct topic_options *options, struct error_buffer *why);

#endif
