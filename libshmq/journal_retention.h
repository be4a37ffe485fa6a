/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of a journal are kept, and why: one judgement for the supervisor, which unlinks by it, and for
 * `shmq journal stat`, which shows it.
 *
 * Files go from the oldest on, without gaps: one that is kept keeps all behind it. Pure; any thread.
 */
#ifndef SHMQ_JOURNAL_RETENTION_H
#define SHMQ_JOURNAL_RETENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the header of a file says, and its size. */
struct journal_entry {
    uint64_t base;
    uint64_t previous_end;
    uint64_t durable;
    uint64_t salt;
    uint64_t messages;         /* in the files before */
    uint64_t max_timestamp_ns; /* of the files before */
    uint64_t bytes;            /* of the file */
    bool
        damaged; /* its header: nothing in it can be read before it is repaired; base is its name */
};

/* Why a file is kept, or not. */
enum journal_kept {
    JOURNAL_GONE = 0,       /* retention lets it go */
    JOURNAL_KEPT_NEWEST,    /* it is written */
    JOURNAL_KEPT_UNSAFE,    /* reaches above `durable` */
    JOURNAL_KEPT_NEEDED,    /* reaches above `needed`: a queue's base, a router's cursor */
    JOURNAL_KEPT_BYTES,     /* within retain_bytes */
    JOURNAL_KEPT_TIME,      /* within retain_ns, or of no known age */
    JOURNAL_KEPT_UNBOUNDED, /* no retention is set */
    JOURNAL_KEPT_DAMAGED,   /* it, or one before it, cannot be judged */
};

struct journal_retention {
    uint64_t retain_bytes; /* 0: no bound; of the whole journal, headers included */
    uint64_t retain_ns;    /* 0: no bound */
    uint64_t now_ns;       /* CLOCK_REALTIME */
    uint64_t durable;
    uint64_t needed; /* UINT64_MAX: nobody holds it */
    uint64_t first;  /* purged below: files that end at or below it go */
};

/* The judgement on entries[index]; they ascend by base, the last is the newest. What may not go, because it
 * is written, not safe, needed or damaged, is kept whatever the bounds say; of the rest the first bound that is
 * exceeded lets it go. Age is that of the youngest message in the file or before it. */
enum journal_kept journal_judge(const struct journal_entry *entries, size_t count, size_t index,
                                const struct journal_retention *retention);

#endif
