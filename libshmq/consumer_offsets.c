/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_offsets.c: where a consumer stands: commit, position, describe. See consumer.h.
 *
 * Called by the channel's thread; nothing blocks and nothing asks the supervisor. If the process
 * dies here, the next owner begins at the cursor, which moves in one step.
 */
#include "libshmq/consumer.h"

#include <string.h>

int consumer_refuse_fenced(const struct shmq_consumer *c, uint32_t partition,
                           struct error_buffer *why)
{
    return error_set(why, SHMQ_EFENCED,
                     "topic %s/%u: another member of group %s owns it; what was not committed is "
                     "delivered there",
                     c->name, partition, c->group);
}

int consumer_check_handle(const struct shmq_consumer *c, const char *sentence)
{
    if (!c)
        return handles_usage_error(0, sentence);
    return handles_forked(c->fork_count) ? handles_fork_error(c->connection->serial) : 0;
}

/* ---- commit ---------------------------------------------------------------------------------- */

static int commit_partition(struct shmq_consumer *c, struct consumer_partition *cp)
{
    int rc;

    if (cp->reader.position == cp->committed)
        return 0;
    rc = assignment_commit(c, cp);
    /* A purge moved it: still mine, and what was returned is behind the purge or counts. */
    if (rc == SHMQ_EFENCED && assignment_recheck(c, cp))
        rc = cp->reader.position == cp->committed ? 0 : assignment_commit(c, cp);
    return rc;
}

int shmq_commit_offsets(shmq_consumer *c)
{
    int result = consumer_check_handle(c, "commit: consumer is NULL");

    if (result < 0)
        return result;
    for (uint32_t i = 0; i < c->partition_count; i++) {
        struct consumer_partition *cp = &c->partitions[i];
        int rc = cp->owned && cp->attachment ? commit_partition(c, cp) : 0;

        if (rc < 0)
            result = consumer_refuse_fenced(c, cp->index, handles_error(c->connection->serial));
    }
    return result;
}

/* ---- position and description ---------------------------------------------------------------- */

int shmq_consumer_position(shmq_consumer *c, uint32_t partition, struct shmq_position *ret_position)
{
    const struct consumer_partition *cp;
    uint64_t word, tail;
    int rc = consumer_check_handle(c, "position: consumer is NULL");

    if (rc < 0)
        return rc;
    if (!ret_position || partition >= c->partition_count)
        return handles_usage_error(c->connection->serial,
                                   "position: the result is NULL, or there is no such partition");
    cp = &c->partitions[partition];
    if (!cp->attachment)
        return error_set(handles_error(c->connection->serial), SHMQ_ECORRUPT,
                         "topic %s/%u: is quarantined", c->name, partition);
    tail = ring_tail(consumer_ring(cp));
    word = atomic_load_explicit(&cp->group->cursor, memory_order_acquire);
    *ret_position = (struct shmq_position){
        .committed = cursor_offset(word, tail),
        .tail = tail,
        .lost_bytes = cp->lost_bytes,
        .owned = cp->owned,
        .partition = partition,
    };
    ret_position->position = cp->owned ? cp->reader.position : ret_position->committed;
    return 0;
}

int shmq_consumer_describe(shmq_consumer *c, struct shmq_consumer_info *ret_info)
{
    struct shmq_consumer_info info = {.owner = CLIENT_NONE};
    int rc = consumer_check_handle(c, "describe: consumer is NULL");
    const struct consumer_partition *any;
    uint64_t assign;
    uint32_t owner;

    if (rc < 0)
        return rc;
    if (!ret_info)
        return handles_usage_error(c->connection->serial, "describe: the result is NULL");
    info.partitions = c->partition_count;
    info.member = c->member;
    info.lost_bytes = c->lost_before;
    for (uint32_t i = 0; i < c->partition_count; i++) {
        info.owned += c->partitions[i].owned && !c->partitions[i].dead;
        info.lost_bytes += c->partitions[i].lost_bytes;
    }
    any = consumer_any(c);
    assign = atomic_load_explicit(&any->gate->assign, memory_order_acquire);
    owner = assign_member(assign);
    if (assign != 0 && owner < MEMBERS_MAX)
        info.owner = atomic_load_explicit(&any->group->members[owner].client, memory_order_relaxed);
    if (!session_find_client(c->session, info.owner, &info.owner_pid, info.owner_command))
        info.owner_pid = 0;
    *ret_info = info;
    return 0;
}
