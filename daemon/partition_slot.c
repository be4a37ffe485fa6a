/* SPDX-License-Identifier: Apache-2.0 */
/* partition_slot.c: descriptors and producer slots for clients; see partition.h. */
#include "daemon/partition.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/realm.h"
#include "daemon/topic.h"
#include "libshmq/fault.h"
#include "libshmq/liveness.h"

#include <inttypes.h>
#include <string.h>

static struct producers_segment *producers_of(const struct partition *partition)
{
    return partition->producers.address;
}

static uint32_t slot_count_of(const struct partition *partition)
{
    return partition->topic->options.producers == PRODUCERS_SINGLE ? 1 : SLOTS_MAX;
}

int partition_open_fds(struct partition *partition, bool producer, int ret_fds[4],
                       struct error_buffer *why)
{
    static const enum segment_kind KINDS[4] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT,
                                               SEGMENT_DATA};
    const bool writable[4] = {false, producer, true, producer};
    char name[SEGMENT_NAME_BYTES];
    int rc = 0;

    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        (void)segment_name(name, partition->topic->realm->prefix, KINDS[i], partition->topic->id,
                           partition->index, 0);
        rc = segment_open(name, writable[i], &ret_fds[i], why);
        if (rc == SHMQ_ENOTOPIC) /* the topic is there, its memory is not */
            rc = error_set(why, SHMQ_ECORRUPT,
                           "topic %s/%" PRIu32 ": somebody has removed its memory %s; delete the "
                           "topic and create it anew",
                           partition->topic->options.name, partition->index, name);
        if (rc < 0) {
            while (i-- > 0)
                (void)close(steal_fd(&ret_fds[i]));
            break;
        }
    }
    return rc;
}

/* ---- giving out ------------------------------------------------------------------------------ */

struct assign_work {
    struct partition *partition;
    uint64_t client;
    uint64_t token;
    uint32_t slot_count;
    uint32_t slot;  /* SLOTS_MAX: none */
    uint64_t owner; /* of slot 0, if none is free */
    bool again;     /* the same request got it before */
    bool dirty;     /* somebody wrote into a free slot */
};

static int find_slot(void *context)
{
    struct assign_work *work = context;
    struct state_segment *state = partition_state(work->partition);
    struct producers_segment *producers = producers_of(work->partition);

    work->slot = SLOTS_MAX;
    for (uint32_t i = 0; i < work->slot_count; i++) {
        uint64_t owner = atomic_load_explicit(&state->slot_client[i], memory_order_relaxed);
        uint64_t token = atomic_load_explicit(&producers->slots[i].token, memory_order_relaxed);

        if (owner == work->client && token == work->token) {
            work->slot = i;
            work->again = true;
            return 0;
        }
        if (owner == CLIENT_NONE && work->slot == SLOTS_MAX)
            work->slot = i;
        if (i == 0)
            work->owner = owner;
    }
    return 0;
}

static int give_slot(void *context)
{
    struct assign_work *work = context;
    struct producer_slot *slot = &producers_of(work->partition)->slots[work->slot];

    /* A free slot is empty: shmqd cleared it, or nobody ever had it. */
    work->dirty = atomic_load_explicit(&slot->at, memory_order_acquire) != 0;
    if (work->dirty)
        return 0;
    atomic_store_explicit(&slot->records, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->token, work->token, memory_order_relaxed);
    FAULT("slot.assign.token");
    /* ORDER clear -> claim: release: its new owner finds it cleared. */
    atomic_store_explicit(&partition_state(work->partition)->slot_client[work->slot], work->client,
                          memory_order_release);
    return 0;
}

static int explain_none(const struct partition *partition, uint64_t owner, struct error_buffer *why)
{
    const struct client *client = client_find(partition->topic->realm, owner);

    if (partition->topic->options.producers == PRODUCERS_SINGLE)
        return error_set(why, SHMQ_EBUSY,
                         "topic %s: it takes a single producer and has one: client %" PRIu64
                         ", pid %" PRIu32 " (%.15s); close that one first",
                         partition->topic->options.name, owner, client ? client->facts.pid : 0,
                         client ? client->facts.command : "?");
    return error_set(why, SHMQ_ELIMIT,
                     "topic %s/%" PRIu32
                     ": all %u producer slots are taken; close some producers, or "
                     "add partitions",
                     partition->topic->options.name, partition->index, SLOTS_MAX);
}

/* Under the recovery byte. */
static int assign_locked(struct assign_work *work, struct error_buffer *why)
{
    struct partition *partition = work->partition;
    char label[NAME_BYTES + 32];
    int rc = partition_run(partition, NULL, find_slot, work);

    if (rc == 0 && work->slot == SLOTS_MAX)
        return explain_none(partition, work->owner, why);
    if (rc == 0 && !work->again)
        rc = partition_run(partition, NULL, give_slot, work);
    if (rc == 0 && !work->again && work->dirty) {
        partition_quarantine(partition, "producer slot %" PRIu32 " is free and claims something",
                             work->slot);
        rc = SHMQ_ECORRUPT;
    }
    return rc < 0 ? error_set(why, rc, "%s: it is quarantined; run `shmq doctor`",
                              partition_label(partition, label))
                  : 0;
}

int partition_assign_slot(struct partition *partition, uint64_t client, uint64_t token,
                          int producers_fd, uint32_t *ret_slot, struct error_buffer *why)
{
    struct assign_work work = {
        .partition = partition,
        .client = client,
        .token = token,
        .slot_count = slot_count_of(partition),
    };
    struct client *owner = client_find(partition->topic->realm, client);
    int rc;

    /* Against resolvers: they judge claims by who owns the slots. */
    if (liveness_trylock_recovery(producers_fd) < 0)
        return error_set(why, SHMQ_EAGAIN,
                         "topic %s/%" PRIu32
                         ": a dead producer's claim is being resolved; try again",
                         partition->topic->options.name, partition->index);
    rc = assign_locked(&work, why);
    liveness_unlock_recovery(producers_fd);
    if (rc < 0)
        return rc;
    if (owner && !work.again) {
        owner->slots++;
        owner->user->slots++;
    }
    FAULT("slot.assigned");
    *ret_slot = work.slot;
    return 0;
}

/* ---- taking back ----------------------------------------------------------------------------- */

struct clear_work {
    struct partition *partition;
    struct partition_view *view;
    uint64_t client;
    uint32_t slot_count;
    uint32_t only_slot;
    uint64_t mask; /* of slots that are the client's */
    uint32_t slot;
    enum resolve_result result;
};

static int find_its_slots(void *context)
{
    struct clear_work *work = context;
    struct state_segment *state = partition_state(work->partition);

    work->mask = 0;
    for (uint32_t i = 0; i < work->slot_count; i++) {
        if (work->only_slot < SLOTS_MAX && i != work->only_slot)
            continue;
        if (atomic_load_explicit(&state->slot_client[i], memory_order_relaxed) == work->client)
            work->mask |= UINT64_C(1) << i;
    }
    return 0;
}

static int clear_slot(void *context)
{
    struct clear_work *work = context;

    work->result = ring_clear_slot(&work->view->ring, work->slot);
    return 0;
}

static int free_slot(void *context)
{
    struct clear_work *work = context;
    struct producer_slot *slot = &producers_of(work->partition)->slots[work->slot];

    work->partition->records_before += atomic_load_explicit(&slot->records, memory_order_relaxed);
    atomic_store_explicit(&slot->records, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->token, 0, memory_order_relaxed);
    /* Release: behind the cleared claim. */
    atomic_store_explicit(&partition_state(work->partition)->slot_client[work->slot], CLIENT_NONE,
                          memory_order_release);
    return 0;
}

static int clear_one(struct clear_work *work)
{
    int rc = partition_view_run(work->view, clear_slot, work);

    if (rc < 0)
        return rc;
    if (work->result == RESOLVE_WAIT)
        return SHMQ_EAGAIN;
    if (work->result == RESOLVE_CORRUPT) {
        partition_quarantine(work->partition,
                             "the claim of dead client %" PRIu64 " in slot %" PRIu32
                             " has no end that can be found",
                             work->client, work->slot);
        return SHMQ_ECORRUPT;
    }
    FAULT("cleanup.slot.cleared");
    return partition_view_run(work->view, free_slot, work);
}

int partition_clear_slots(struct partition *partition, uint64_t client, uint32_t only_slot,
                          uint32_t *ret_cleared)
{
    struct partition_view view;
    struct clear_work work = {
        .partition = partition,
        .view = &view,
        .client = client,
        .slot_count = slot_count_of(partition),
        .only_slot = only_slot,
    };
    int result = 0;
    int rc = partition_run(partition, NULL, find_its_slots, &work);

    *ret_cleared = 0;
    if (rc < 0 || work.mask == 0)
        return rc;
    rc = partition_view_open(partition, &view, NULL);
    if (rc < 0)
        return rc == SHMQ_ECORRUPT ? rc : SHMQ_EAGAIN; /* out of descriptors or memory: later */
    for (work.slot = 0; work.slot < work.slot_count; work.slot++) {
        if (!(work.mask & UINT64_C(1) << work.slot))
            continue;
        rc = clear_one(&work);
        if (rc == 0)
            (*ret_cleared)++;
        else
            result = rc;
        if (rc == SHMQ_ECORRUPT)
            break;
    }
    partition_view_close(&view);
    return result;
}

struct count_work {
    struct partition *partition;
    uint64_t client;
    uint32_t slot_count;
    uint32_t used;
    uint32_t its;
};

static int count_slots(void *context)
{
    struct count_work *work = context;
    struct state_segment *state = partition_state(work->partition);

    for (uint32_t i = 0; i < work->slot_count; i++) {
        uint64_t owner = atomic_load_explicit(&state->slot_client[i], memory_order_relaxed);

        work->used += owner != CLIENT_NONE;
        work->its += owner != CLIENT_NONE && owner == work->client;
    }
    return 0;
}

uint32_t partition_count_slots(struct partition *partition, uint64_t client, uint32_t *ret_its)
{
    struct count_work work = {
        .partition = partition,
        .client = client,
        .slot_count = slot_count_of(partition),
    };

    if (partition_run(partition, NULL, count_slots, &work) < 0) {
        work.used = 0;
        work.its = 0;
    }
    if (ret_its)
        *ret_its = work.its;
    return work.used;
}

/* ---- at a start and at the end --------------------------------------------------------------- */

struct owners_work {
    struct partition *partition;
    uint32_t slot_count;
    uint64_t owners[SLOTS_MAX];
};

static int copy_owners(void *context)
{
    struct owners_work *work = context;
    struct state_segment *state = partition_state(work->partition);

    for (uint32_t i = 0; i < work->slot_count; i++)
        work->owners[i] = atomic_load_explicit(&state->slot_client[i], memory_order_relaxed);
    return 0;
}

static int close_gates(void *context)
{
    struct partition *partition = context;
    struct state_segment *state = partition_state(partition);

    for (uint32_t i = 0; i < GATES_MAX; i++) {
        const struct group *group = partition->topic->groups[i];
        struct gate *gate = &state->gates[i];
        uint32_t now = atomic_load_explicit(&gate->state, memory_order_relaxed);

        if (now == GATE_FREE || now == GATE_DELETED ||
            (group && group->id == atomic_load_explicit(&gate->group, memory_order_relaxed)))
            continue;
        atomic_store_explicit(&gate->state, GATE_DELETED, memory_order_release);
        (void)atomic_fetch_add_explicit(&state->gate_epoch, 1, memory_order_release);
    }
    return 0;
}

void partition_close_gates(struct partition *partition)
{
    (void)partition_run(partition, NULL, close_gates, partition);
}

void partition_adopt_slots(struct partition *partition)
{
    struct owners_work work = {.partition = partition, .slot_count = slot_count_of(partition)};

    if (partition_run(partition, NULL, copy_owners, &work) < 0)
        return;
    for (uint32_t i = 0; i < work.slot_count; i++) {
        struct client *client = client_find(partition->topic->realm, work.owners[i]);
        uint32_t cleared;

        if (client) {
            client->slots++;
            client->user->slots++;
        } else if (work.owners[i] != CLIENT_NONE) {
            /* Its entry in B is freed last, so this is no client that we ever had. */
            (void)partition_clear_slots(partition, work.owners[i], i, &cleared);
        }
    }
}

void partition_forget_slots(struct partition *partition)
{
    struct owners_work work = {.partition = partition, .slot_count = slot_count_of(partition)};

    if (partition_run(partition, NULL, copy_owners, &work) < 0)
        return;
    for (uint32_t i = 0; i < work.slot_count; i++) {
        struct client *client = client_find(partition->topic->realm, work.owners[i]);

        if (client && client->slots > 0) {
            client->slots--;
            client->user->slots -= min_u32(client->user->slots, 1);
        }
    }
}
