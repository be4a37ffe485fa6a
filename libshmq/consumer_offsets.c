/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_offsets.c: where a consumer stands: commit, seek, position, describe. See consumer.h.
 *
 * Called by the channel's thread; nothing blocks and nothing asks the supervisor. If the process
 * dies here, the next owner begins at the cursor, which moves in one step.
 */
#include "libshmq/consumer.h"

#include <string.h>

static int refuse_fenced(const struct shmq_consumer *c, uint32_t partition,
                         struct error_buffer *why)
{
    return error_set(why, SHMQ_EFENCED,
                     "topic %s/%u: another member of group %s owns it; what was not committed is "
                     "delivered there",
                     c->name, partition, c->group);
}

/* 0 or the error of using a handle that is not this process's. */
static int check_handle(const struct shmq_consumer *c, const char *sentence)
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
    int result = check_handle(c, "commit: consumer is NULL");

    if (result < 0)
        return result;
    for (uint32_t i = 0; i < c->partition_count; i++) {
        struct consumer_partition *cp = &c->partitions[i];
        int rc = cp->owned && cp->attachment ? commit_partition(c, cp) : 0;

        if (rc < 0)
            result = refuse_fenced(c, cp->index, handles_error(c->connection->serial));
    }
    return result;
}

/* ---- seek ------------------------------------------------------------------------------------ */

/* With the cursor gating at `from` or above, everything from there on stays. */
static int seek_gated(struct consumer_partition *cp, uint64_t from, uint64_t *ret_position)
{
    uint32_t generation = cursor_generation(cp->cursor_word);
    const struct ring *ring = consumer_ring(cp);
    uint64_t place, found;
    int rc = 0;

    /* ORDER hold -> refresh: down before the cursor moves down; up only after it is known where to.
     */
    if (from < atomic_load_explicit(&cp->me->hold, memory_order_relaxed))
        assignment_hold(cp, from);
    place = cursor_attach(ring, cp->group, generation, from, cursor_gates(cp->cursor_word), &rc);
    if (rc < 0)
        return rc;
    cp->cursor_word = cursor_make(generation, cursor_gates(cp->cursor_word), place);
    cp->committed = place;
    found = ring_resynchronise(ring, place);
    if (found != place) {
        rc = cursor_commit(cp->group, &cp->cursor_word, found);
        if (rc == 0)
            cp->committed = found;
    }
    assignment_hold(cp, found);
    *ret_position = found;
    return rc;
}

static int seek_copying(struct consumer_partition *cp, uint64_t from, uint64_t *ret_position)
{
    uint32_t generation = cursor_generation(cp->cursor_word);
    const struct ring *ring = consumer_ring(cp);
    uint64_t found = ring_resynchronise(ring, from);
    int rc = 0;

    (void)cursor_attach(ring, cp->group, generation, found, false, &rc);
    if (rc < 0)
        return rc;
    cp->cursor_word = cursor_make(generation, false, found);
    cp->committed = found;
    *ret_position = found;
    return 0;
}

static int seek_partition(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t offset,
                          struct error_buffer *why)
{
    const struct ring *ring = consumer_ring(cp);
    uint64_t position = 0;
    uint64_t tail, from;
    int rc;

    if (!cp->owned)
        return refuse_fenced(c, cp->index, why);
    tail = ring_tail(ring);
    from = align_up_u64(min_u64(max_u64(offset, ring_oldest(ring)), tail), RECORD_UNIT);
    rc = cp->copies ? seek_copying(cp, from, &position) : seek_gated(cp, from, &position);
    if (rc == SHMQ_EFENCED && assignment_recheck(c, cp))
        rc = cp->copies ? seek_copying(cp, from, &position) : seek_gated(cp, from, &position);
    if (rc < 0)
        return refuse_fenced(c, cp->index, why);
    cp->reader.position = position;
    cp->after_loss = false;
    cp->stuck_ns = 0;
    (void)wait_wake(cp->wait, ATTENTION_ROOM, cp->fence_mode);
    return 0;
}

int shmq_seek(shmq_consumer *c, uint32_t partition, uint64_t offset)
{
    int result = check_handle(c, "seek: consumer is NULL");
    struct error_buffer *why;

    if (result < 0)
        return result;
    why = handles_error(c->connection->serial);
    if (partition != SHMQ_ALL_PARTITIONS && partition >= c->partition_count)
        return error_set(why, SHMQ_EINVAL, "topic %s: partition %u: there are %u, from 0 on",
                         c->name, partition, c->partition_count);
    if (offset == SHMQ_SEEK_EARLIEST)
        offset = 0;
    for (uint32_t i = 0; i < c->partition_count; i++) {
        int rc = 0;

        if (partition != SHMQ_ALL_PARTITIONS && partition != i)
            continue;
        rc = c->partitions[i].attachment
                 ? seek_partition(c, &c->partitions[i], offset, why)
                 : error_set(why, SHMQ_ECORRUPT, "topic %s/%u: is quarantined", c->name, i);
        if (rc < 0)
            result = rc;
    }
    return result;
}

/* ---- position and description ---------------------------------------------------------------- */

int shmq_consumer_position(shmq_consumer *c, uint32_t partition, struct shmq_position *ret_position)
{
    const struct consumer_partition *cp;
    uint64_t word, tail;
    int rc = check_handle(c, "position: consumer is NULL");

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
    int rc = check_handle(c, "describe: consumer is NULL");
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
