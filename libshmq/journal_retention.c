/* SPDX-License-Identifier: Apache-2.0 */
/* What retention keeps; see journal_retention.h. */
#include "libshmq/journal_retention.h"

/* Where the log ended in entries[index], as its successor says. */
static uint64_t end_of(const struct journal_entry *entries, size_t index)
{
    const struct journal_entry *next = &entries[index + 1];

    return next->damaged ? next->base : next->previous_end;
}

/* The youngest timestamp in entries[0..index]; an upper bound where the successor's header is unreadable,
 * 0 where nobody knows, or messages carry none. */
static uint64_t youngest_of(const struct journal_entry *entries, size_t count, size_t index)
{
    for (size_t i = index + 1; i < count; i++) {
        if (!entries[i].damaged)
            return entries[i].max_timestamp_ns;
    }
    return 0;
}

/* The entry by itself, as if all before it had gone. Not of the newest. `bytes`: of it and all behind it. */
static enum journal_kept judge_alone(const struct journal_entry *entries, size_t count,
                                     size_t index, uint64_t bytes,
                                     const struct journal_retention *retention)
{
    uint64_t end = end_of(entries, index);
    uint64_t youngest_ns = youngest_of(entries, count, index);

    if (end > retention->durable)
        return JOURNAL_KEPT_UNSAFE;
    if (end > retention->needed)
        return JOURNAL_KEPT_NEEDED;
    if (end <= retention->first)
        return JOURNAL_GONE;
    if (retention->retain_bytes && bytes > retention->retain_bytes)
        return JOURNAL_GONE;
    /* Not `now - retain_ns`, which may be negative; a message from the future is young. */
    if (retention->retain_ns && youngest_ns && youngest_ns < retention->now_ns &&
        retention->now_ns - youngest_ns > retention->retain_ns)
        return JOURNAL_GONE;
    /* One whose header is damaged is bounded like any other, or a forgotten one would fill the disk. */
    if (entries[index].damaged)
        return JOURNAL_KEPT_DAMAGED;
    if (retention->retain_bytes)
        return JOURNAL_KEPT_BYTES;
    return retention->retain_ns ? JOURNAL_KEPT_TIME : JOURNAL_KEPT_UNBOUNDED;
}

enum journal_kept journal_judge(const struct journal_entry *entries, size_t count, size_t index,
                                const struct journal_retention *retention)
{
    enum journal_kept kept = JOURNAL_GONE;
    uint64_t bytes = 0;

    if (index + 1 >= count)
        return JOURNAL_KEPT_NEWEST;
    for (size_t i = 0; i < count; i++)
        bytes += entries[i].bytes;
    for (size_t i = 0; i <= index; i++) {
        enum journal_kept alone = judge_alone(entries, count, i, bytes, retention);

        /* Its own reason, if it has one; else that of the one before, behind which it stays. */
        if (alone != JOURNAL_GONE)
            kept = alone;
        bytes -= entries[i].bytes;
    }
    return kept;
}
