/* SPDX-License-Identifier: Apache-2.0 */
/* topic_start.c: topics at the supervisor's start, and what they look like; see topic.h. */
#include "daemon/topic.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "libshmq/fault.h"

#include <inttypes.h>
#include <string.h>

int topic_load(struct realm *realm, const struct store_topic *stored, struct error_buffer *why)
{
    struct topic *topic = topic_find_id(realm, stored->id);

    if (topic) { /* altered: the later record wins */
        if (stored->options.partitions > topic->partition_count &&
            topic_resize(topic, stored->options.partitions, why) < 0)
            return SHMQ_ENOMEM;
        topic->options = stored->options;
        return 0;
    }
    topic = topic_new(realm, stored);
    if (!topic)
        return error_set(why, SHMQ_ENOMEM, "shmqd: out of memory for the topics");
    topic_enter(topic);
    realm->next_id = max_u64(realm->next_id, stored->id + 1);
    return 0;
}

void topic_unload(struct topic *topic)
{
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        if (topic->groups[gate])
            group_free(topic->groups[gate]);
    }
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        partition_stop_flushing(&topic->partitions[i]);
        topic->realm->mapping_count -= topic->partitions[i].state.address ? 3 : 0;
    }
    topic->realm->partition_count -= topic->partition_count;
    topic_count_bytes(topic, -(int64_t)topic->bytes);
    registry_remove(&topic->realm->registry, &topic->entry);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* The log goes on far behind all offsets that were ever given out. Written down first: a base that
 * was used and forgotten would be used again. */
static int begin_anew(struct partition *partition, const char *reason, struct error_buffer *why)
{
    struct topic *topic = partition->topic;
    struct store_mark mark = {
        .topic = topic->id,
        .partition = partition->index,
        .offset = max_u64(partition->mark, topic->base) + PARTITION_JUMP_BYTES,
    };
    int rc = store_put_mark(topic->realm->store, &mark, why);

    if (rc < 0)
        return rc;
    FAULT("start.partition.marked");
    partition->mark = mark.offset;
    partition_unlink(partition);
    rc = partition_create(partition, mark.offset, why);
    if (rc < 0)
        return error_prefix(why, rc, "topic %s/%" PRIu32, topic->options.name, partition->index);
    log_warning("topic %s/%" PRIu32 ": begins anew, empty, at offset %" PRIu64
                "; what was in it is lost: %s",
                topic->options.name, partition->index, mark.offset, reason);
    return 0;
}

/* A group that a supervisor died while making: its first consumer was told nothing, and asks again.
 * */
static int drop_group(struct group *group, struct error_buffer *why)
{
    log_info("group %s of topic %s: was not finished; removed", group->name,
             group->topic->options.name);
    return group_delete(group, why);
}

static int reenter(struct group *group, struct partition *partition, struct error_buffer *why)
{
    struct group_place place = {.from = FROM_COMMITTED};
    int rc = group_enter_gate(group, partition);

    if (rc == 0)
        rc = group_attach_cursor(group, partition, &place, why);
    return rc == SHMQ_ECORRUPT ? 0 : rc;
}

/* What the gates hold in all partitions. Closed in one and open in another: died in between, and
 * open is the safe one; there the cursor attaches again. */
static int settle_group(struct group *group, const int *found, struct error_buffer *why)
{
    struct topic *topic = group->topic;
    int rc = 0;

    group->state = GATE_IDLE;
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        if (found[i] == GROUP_FOUND_OPEN || found[i] == GROUP_FOUND_LOST)
            group->state = GATE_OPEN;
    }
    for (uint32_t i = 0; rc == 0 && i < topic->partition_count; i++) {
        if (found[i] == GROUP_FOUND_UNBORN ||
            (found[i] == GROUP_FOUND_IDLE && group->state == GATE_OPEN))
            rc = reenter(group, &topic->partitions[i], why);
        else
            group_set_gate_state(group, &topic->partitions[i], group->state);
    }
    return rc;
}

static int start_group(struct group *group, const bool *fresh, struct error_buffer *why)
{
    struct topic *topic = group->topic;
    int *found = calloc(topic->partition_count, sizeof(found[0]));
    bool *lost = calloc(topic->partition_count, sizeof(lost[0]));
    bool born = false;
    int rc = found && lost ? 0 : error_set(why, SHMQ_ENOMEM, "shmqd: out of memory");

    for (uint32_t i = 0; rc == 0 && i < topic->partition_count; i++) {
        found[i] = group_reattach(group, &topic->partitions[i], fresh[i], why);
        rc = found[i] < 0 ? found[i] : 0;
        lost[i] = found[i] == GROUP_FOUND_LOST;
        born = born || found[i] != GROUP_FOUND_UNBORN;
    }
    if (rc == 0)
        rc = born ? settle_group(group, found, why) : drop_group(group, why);
    if (rc == 0 && born) {
        group_restore_members(group, lost);
        group_assign(group);
        group_set_linger(group);
    }
    free(found);
    free(lost);
    return rc;
}

int topic_start(struct topic *topic, struct error_buffer *why)
{
    bool *fresh = calloc(topic->partition_count, sizeof(fresh[0]));
    int rc = fresh ? 0 : error_set(why, SHMQ_ENOMEM, "shmqd: out of memory");

    for (uint32_t i = 0; rc >= 0 && i < topic->partition_count; i++) {
        rc = partition_attach(&topic->partitions[i], why);
        fresh[i] = rc == 1;
        if (rc == 0) {
            rc = partition_flush_on(&topic->partitions[i], why);
        } else if (rc == 1 && topic_is_durable(topic)) {
            rc = partition_recover(&topic->partitions[i], why);
        } else if (rc == 1) {
            struct error_buffer reason = *why;

            rc = begin_anew(&topic->partitions[i], reason.text, why);
        }
    }
    for (uint32_t gate = 0; rc >= 0 && gate < GATES_MAX; gate++) {
        if (topic->groups[gate])
            rc = start_group(topic->groups[gate], fresh, why);
    }
    free(fresh);
    for (uint32_t i = 0; rc >= 0 && i < topic->partition_count; i++) {
        partition_close_gates(&topic->partitions[i]);
        partition_adopt_slots(&topic->partitions[i]);
        partition_wake(&topic->partitions[i]);
        FAULT("start.partition.woken");
    }
    return rc < 0 ? rc : 0;
}

/* ---- describing ------------------------------------------------------------------------------ */

void topic_fill_info(struct topic *topic, struct protocol_topic_info *ret_info)
{
    struct protocol_topic_info info = {
        .options = topic->options,
        .id = topic->id,
        .created_ns = topic->created_ns,
        .shm_bytes = topic->bytes,
        .owner_uid = topic->owner->uid,
        .group_count = topic->group_count,
    };

    for (uint32_t i = 0; i < topic->partition_count; i++) {
        info.quarantined += topic->partitions[i].quarantined;
        info.producer_count += partition_count_slots(&topic->partitions[i], CLIENT_NONE, NULL);
    }
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        if (topic->groups[gate])
            info.member_count += topic->groups[gate]->member_count;
    }
    *ret_info = info;
}
