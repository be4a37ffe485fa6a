/* SPDX-License-Identifier: Apache-2.0 */
/* partition_journal.c: what a partition's journal has to say about it; see partition.h. The journal itself is
 * flushed by threads of its own (flush.h); everything here only looks. */
#include "daemon/partition.h"

#include "daemon/flush.h"
#include "daemon/topic.h"

struct journal *partition_journal(const struct partition *partition)
{
    return partition->log ? flush_journal(partition->log) : NULL;
}

uint64_t partition_journal_first(const struct partition *partition)
{
    struct journal *journal = partition_journal(partition);
    uint64_t bytes, first;
    size_t files = 0;

    if (journal)
        journal_measure(journal, &files, &bytes, &first);
    return files > 0 ? first : UINT64_MAX;
}

uint64_t partition_history_end(const struct partition *partition)
{
    struct journal *journal = partition_journal(partition);
    struct journal_entry entry, next;

    /* The file that was begun there knows it across restarts of the supervisor. */
    if (journal && journal_find(journal, partition->base, &entry, &next) &&
        entry.base == partition->base && !entry.damaged)
        return min_u64(entry.previous_end, partition->base);
    return min_u64(partition->history_end, partition->base);
}

/* Offsets that were left out when the log went on at `base`, as far as they lie above `from`. */
static uint64_t gap_before(uint64_t base, uint64_t previous_end, uint64_t from)
{
    uint64_t begin = max_u64(previous_end, from);

    return begin < base ? base - begin : 0;
}

uint64_t partition_jumped(const struct partition *partition, uint64_t from)
{
    struct journal *journal = partition_journal(partition);
    struct journal_entry entry, next;
    uint64_t jumped = 0;
    uint64_t at = from;

    if (from >= partition->base)
        return 0;
    /* Files of memory that was lost before: from one to the next. The last loss is the partition's. */
    while (journal && journal_find(journal, at, &entry, &next) && entry.base < partition->base) {
        if (entry.base > at && !entry.damaged) /* the files before it are gone */
            jumped += gap_before(entry.base, entry.previous_end, at);
        at = max_u64(at, entry.base);
        if (next.base >= partition->base)
            break;
        if (!next.damaged)
            jumped += gap_before(next.base, next.previous_end, at);
        at = next.base;
    }
    return jumped + gap_before(partition->base, partition_history_end(partition), at);
}

void partition_describe_journal(const struct partition *partition,
                                struct protocol_partition_info *info)
{
    struct flush_status status;
    uint64_t first;
    size_t files;

    info->journal_first = partition->base;
    if (!topic_is_durable(partition->topic))
        info->durable = UINT64_MAX;
    if (!partition->log)
        return;
    flush_describe(partition->log, &status);
    journal_measure(flush_journal(partition->log), &files, &info->journal_bytes, &first);
    info->durable = status.durable;
    info->journal_syncs = status.syncs;
    info->journal_damaged = status.damaged;
    info->journal_error = (uint32_t)status.error;
    info->journal_files = (uint32_t)files;
    if (files > 0)
        info->journal_first = first;
}
