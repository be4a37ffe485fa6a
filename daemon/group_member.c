/* SPDX-License-Identifier: Apache-2.0 */
/* group_member.c: who is in a group, and who of them owns what; see group.h. */
#include "daemon/group.h"

#include "daemon/client.h"
#include "daemon/log.h"
#include "daemon/metadata.h"
#include "daemon/realm.h"
#include "libshmq/cursor.h"
#include "libshmq/fault.h"

#include <inttypes.h>
#include <string.h>

struct member_work {
    struct group_segment *shared;
    const struct gate *gate;
    uint32_t member;
    uint64_t client;
    uint64_t token;
    uint64_t lost;
    uint64_t assign;
    uint64_t word;
    struct member seen[MEMBERS_MAX];
};

static int run_member(struct group *group, uint32_t partition, guard_fn *fn,
                      struct member_work *work)
{
    struct partition *in = &group->topic->partitions[partition];

    /* A partition that could not be opened has no mappings: it is quarantined. */
    if (in->quarantined || !group->segments[partition].address)
        return SHMQ_ECORRUPT;
    work->shared = group->segments[partition].address;
    work->gate = &partition_state(in)->gates[group->gate];
    return partition_run(in, &group->segments[partition], fn, work);
}

/* ---- assignment ------------------------------------------------------------------------------ */

static int read_assign(void *context)
{
    struct member_work *work = context;

    work->assign = atomic_load_explicit(&work->gate->assign, memory_order_acquire);
    work->word = atomic_load_explicit(&work->shared->cursor, memory_order_acquire);
    return 0;
}

/* Who ought to own a partition: whoever joined first. */
static uint32_t choose_owner(const struct group *group, uint32_t partition UNUSED)
{
    uint32_t chosen = ASSIGN_NOBODY;

    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        if (group->members[m].client == CLIENT_NONE)
            continue;
        if (chosen == ASSIGN_NOBODY || group->members[m].joined < group->members[chosen].joined)
            chosen = m;
    }
    return chosen;
}

void group_assign(struct group *group)
{
    struct member_work work;

    for (uint32_t i = 0; i < group->segment_count; i++) {
        uint32_t owner = choose_owner(group, i);

        if (run_member(group, i, read_assign, &work) < 0)
            continue;
        /* Apart: a hand-over that a supervisor did not live to finish. Never assigned: generation
         * 0. */
        if (work.assign != 0 && assign_member(work.assign) == owner &&
            assign_generation(work.assign) == cursor_generation(work.word))
            continue;
        (void)group_hand_over(group, &group->topic->partitions[i], owner, NULL);
    }
}

bool group_owns(const struct group *group, uint32_t member)
{
    return group->segment_count > 0 && choose_owner(group, 0) == member;
}

/* ---- joining --------------------------------------------------------------------------------- */

static int enter_member(void *context)
{
    struct member_work *work = context;
    struct group_member *member = &work->shared->members[work->member];

    atomic_store_explicit(&member->hold, HOLD_NONE, memory_order_relaxed);
    atomic_store_explicit(&member->released, 0, memory_order_relaxed);
    atomic_store_explicit(&member->records, 0, memory_order_relaxed);
    atomic_store_explicit(&member->lost_bytes, work->lost, memory_order_relaxed);
    atomic_store_explicit(&member->position, 0, memory_order_relaxed);
    atomic_store_explicit(&member->poll_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&member->token, work->token, memory_order_relaxed);
    /* Release: a line that is given out is clean. */
    atomic_store_explicit(&member->client, work->client, memory_order_release);
    return 0;
}

void group_enter_members(struct group *group, uint32_t partition)
{
    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        struct member_work work = {
            .member = m, .client = group->members[m].client, .token = group->members[m].token};

        if (work.client != CLIENT_NONE)
            (void)run_member(group, partition, enter_member, &work);
    }
}

/* A group that lingered out holds producers back again, from where its cursor stands or from what
 * is left. */
static int reopen(struct group *group, struct partition *partition, uint64_t *ret_lost,
                  struct error_buffer *why)
{
    struct group_place place = {.from = FROM_COMMITTED};
    char label[NAME_BYTES + 32];
    int rc;

    group_set_gate_state(group, partition, GATE_OPEN);
    FAULT("group.reopen.state");
    rc = group_attach_cursor(group, partition, &place, why);
    if (rc < 0 && rc != SHMQ_ECORRUPT)
        return rc;
    *ret_lost = place.ret_lost;
    if (rc == 0 && place.ret_lost > 0)
        log_warning("%s: group %s comes back after its linger: %" PRIu64 " bytes were overwritten",
                    partition_label(partition, label), group->name, place.ret_lost);
    return 0;
}

/* In all partitions: their producers were let go on, and are again. */
static void close_again(struct group *group)
{
    for (uint32_t i = 0; i < group->segment_count; i++) {
        if (group->topic->partitions[i].quarantined)
            continue;
        group_set_gate_state(group, &group->topic->partitions[i], GATE_IDLE);
        partition_wake(&group->topic->partitions[i]);
    }
}

static uint32_t find_index(const struct group *group, const struct group_join *join)
{
    uint32_t free_index = MEMBERS_MAX;

    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        const struct member *member = &group->members[m];

        if (member->client == join->client && member->token == join->token)
            return m; /* the same request once more: its reply was lost */
        if (member->client == CLIENT_NONE && free_index == MEMBERS_MAX)
            free_index = m;
    }
    return free_index;
}

int group_add_member(struct group *group, const struct group_join *join, uint32_t *ret_member,
                     struct error_buffer *why)
{
    struct client *client = client_find(group->topic->realm, join->client);
    struct member_work work = {.client = join->client, .token = join->token};
    int rc;

    work.member = find_index(group, join);
    if (work.member == MEMBERS_MAX)
        return error_set(why, SHMQ_ELIMIT,
                         "group %s of topic %s: it has %u members, its limit; close some consumers",
                         group->name, group->topic->options.name, MEMBERS_MAX);
    *ret_member = work.member;
    if (group->members[work.member].client != CLIENT_NONE)
        return 0;
    for (uint32_t i = 0; i < group->segment_count; i++) {
        work.lost = 0;
        if (group->state == GATE_IDLE && !group->topic->partitions[i].quarantined) {
            rc = reopen(group, &group->topic->partitions[i], &work.lost, why);
            if (rc < 0) {
                close_again(group); /* nobody would: it has no member and no linger */
                return rc;
            }
        }
        (void)run_member(group, i, enter_member, &work);
        FAULT("group.join.member");
    }
    group->state = GATE_OPEN;
    group->members[work.member] =
        (struct member){.client = join->client, .joined = ++group->joins, .token = join->token};
    group->member_count++;
    if (client)
        client->memberships++;
    group_set_linger(group);
    group_assign(group);
    if (topic_is_durable(group->topic))
        metadata_watch_cursors(group->topic->realm, false);
    FAULT("group.joined");
    return 0;
}

/* ---- leaving --------------------------------------------------------------------------------- */

static int clear_member(void *context)
{
    struct member_work *work = context;
    struct group_member *member = &work->shared->members[work->member];

    atomic_store_explicit(&member->hold, HOLD_NONE, memory_order_release);
    atomic_store_explicit(&member->token, 0, memory_order_relaxed);
    atomic_store_explicit(&member->client, CLIENT_NONE, memory_order_release);
    return 0;
}

void group_remove_member(struct group *group, uint32_t member)
{
    struct client *client = client_find(group->topic->realm, group->members[member].client);
    struct member_work work = {.member = member};

    for (uint32_t i = 0; i < group->segment_count; i++) {
        (void)run_member(group, i, clear_member, &work);
        FAULT("group.leave.member");
    }
    group->members[member] = (struct member){.client = CLIENT_NONE};
    group->member_count--;
    if (client && client->memberships > 0)
        client->memberships--;
    group_assign(group);
    group_set_linger(group);
    if (topic_is_durable(group->topic))
        metadata_watch_cursors(group->topic->realm, true);
    FAULT("group.left");
    for (uint32_t i = 0; i < group->segment_count; i++) {
        if (!group->topic->partitions[i].quarantined) /* its hold was somebody's wait for room */
            partition_wake(&group->topic->partitions[i]);
    }
}

/* ---- at a start ------------------------------------------------------------------------------ */

static int read_members(void *context)
{
    struct member_work *work = context;

    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        work->seen[m].client =
            atomic_load_explicit(&work->shared->members[m].client, memory_order_acquire);
        work->seen[m].token =
            atomic_load_explicit(&work->shared->members[m].token, memory_order_relaxed);
    }
    work->assign = atomic_load_explicit(&work->gate->assign, memory_order_acquire);
    return 0;
}

/* The owner of before first, so that it stays the owner; then as they connected. */
static void restore_order(struct group *group, uint32_t owner)
{
    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        struct member *member = &group->members[m];

        if (member->client == CLIENT_NONE)
            continue;
        member->joined = m == owner ? 0 : member->client;
        group->joins = max_u64(group->joins, member->client);
    }
}

/* Strangers, the dead, and those who died while they joined or left. */
static void forget_unknown(struct group *group, struct member_work *work)
{
    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        struct member *member = &group->members[m];
        struct client *client = client_find(group->topic->realm, member->client);

        if (client) {
            client->memberships++;
            group->member_count++;
            continue;
        }
        *member = (struct member){.client = CLIENT_NONE};
        work->member = m;
        for (uint32_t i = 0; i < group->segment_count; i++)
            (void)run_member(group, i, clear_member, work);
    }
}

void group_restore_members(struct group *group, const bool *lost)
{
    struct member_work *work = calloc(1, sizeof(*work)); /* 1.5 KiB, and only at a start */
    uint32_t owner = ASSIGN_NOBODY;
    bool first = true;

    for (uint32_t i = 0; work && i < group->segment_count; i++) {
        if (lost[i] || run_member(group, i, read_members, work) < 0)
            continue;
        for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
            struct member *member = &group->members[m];

            if (first)
                *member = work->seen[m];
            else if (member->client != work->seen[m].client)
                member->client = CLIENT_NONE;
        }
        if (first)
            owner = assign_member(work->assign);
        first = false;
    }
    if (work)
        forget_unknown(group, work);
    free(work);
    restore_order(group, owner);
    if (topic_is_durable(group->topic) && group->member_count > 0)
        metadata_watch_cursors(group->topic->realm, false);
    for (uint32_t i = 0; i < group->segment_count; i++) {
        if (lost[i])
            group_enter_members(group, i);
    }
}
