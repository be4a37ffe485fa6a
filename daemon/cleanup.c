/* SPDX-License-Identifier: Apache-2.0 */
/* cleanup.c: see cleanup.h. */
#include "daemon/cleanup.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/log.h"
#include "daemon/peer.h"
#include "daemon/realm.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <inttypes.h>

/* What somebody makes impossible is tried more and more seldom: each try looks at all topics. */
#define RETRY_FIRST_NS (20 * NS_PER_MS)
#define RETRY_LAST_NS  (10 * NS_PER_S)

static void leave_groups(struct topic *topic, uint64_t client)
{
    for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
        struct group *group = topic->groups[gate];

        for (uint32_t m = 0; group && group->member_count > 0 && m < MEMBERS_MAX; m++) {
            if (group->members[m].client == client)
                group_remove_member(group, m);
        }
    }
}

/* Whether all of them are free. */
static bool clear_slots(struct client *client, struct topic *topic)
{
    bool done = true;

    for (uint32_t i = 0; i < topic->partition_count; i++) {
        struct partition *partition = &topic->partitions[i];
        uint32_t cleared;
        int rc;

        if (partition->quarantined)
            continue;
        rc = partition_clear_slots(partition, client->facts.id, SLOTS_MAX, &cleared);
        if (rc == SHMQ_EAGAIN)
            done = false;
        client->slots -= min_u32(client->slots, cleared);
        client->user->slots -= min_u32(client->user->slots, cleared);
        if (cleared > 0)
            partition_wake(partition);
    }
    return done;
}

/* Whether nothing of it is left. */
static bool clean_up(struct client *client)
{
    struct realm *realm = client->realm;
    struct registry_entry **entries;
    uint32_t count;
    bool done = true;

    if (client->memberships == 0 && client->slots == 0)
        return true;
    entries = registry_collect(&realm->registry, &count);
    if (!entries)
        return false;
    for (uint32_t i = 0; i < count && client->memberships > 0; i++)
        leave_groups(CONTAINER_OF(entries[i], struct topic, entry), client->facts.id);
    FAULT("cleanup.groups.left");
    for (uint32_t i = 0; i < count && client->slots > 0; i++) {
        if (!clear_slots(client, CONTAINER_OF(entries[i], struct topic, entry)))
            done = false;
    }
    free(entries);
    return done;
}

/* Frees it, or says when to try again. */
static void attempt(struct client *client)
{
    if (!clean_up(client)) {
        client->retry_at_ns = clock_monotonic_ns() + client->retry_wait_ns;
        client->retry_wait_ns = min_u64(client->retry_wait_ns * 2, RETRY_LAST_NS);
        return;
    }
    /* What a quarantined partition holds of it is nobody's any more. */
    client->user->slots -= min_u32(client->user->slots, client->slots);
    FAULT("cleanup.done");
    client_free(client);
}

static void on_retry(struct loop_timer *timer UNUSED, void *context);

static void set_retry_timer(struct realm *realm)
{
    uint64_t at_ns = UINT64_MAX;

    for (const struct client *client = realm->clients.first; client; client = client->next) {
        if (client->leaving)
            at_ns = min_u64(at_ns, client->retry_at_ns);
    }
    if (at_ns < UINT64_MAX)
        loop_timer_set(&realm->loop, &realm->clients.retry_timer, at_ns, on_retry, realm);
}

static void on_retry(struct loop_timer *timer UNUSED, void *context)
{
    struct realm *realm = context;
    uint64_t now_ns = clock_monotonic_ns();
    struct client *next;

    for (struct client *client = realm->clients.first; client; client = next) {
        next = client->next;
        if (client->leaving && client->retry_at_ns <= now_ns)
            attempt(client);
    }
    set_retry_timer(realm);
}

void cleanup_client(struct client *client, const char *reason)
{
    struct realm *realm = client->realm;

    if (client->leaving)
        return;
    client->leaving = true;
    log_debug("client %" PRIu64 " (pid %" PRIu32 ", %.15s): gone: %s", client->facts.id,
              client->facts.pid, client->facts.command, reason);
    if (client->peer)
        peer_drop(client->peer);
    loop_remove(&client->pidfd_source);
    client->retry_wait_ns = RETRY_FIRST_NS;
    FAULT("cleanup.begin");
    attempt(client);
    set_retry_timer(realm);
}
