/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor.c: start and stop order; see supervisor.h. */
#include "daemon/supervisor.h"

#include "daemon/flush.h"
#include "daemon/group.h"
#include "daemon/guard.h"
#include "daemon/log.h"
#include "daemon/metadata.h"
#include "daemon/sweep.h"
#include "daemon/topic.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/liveness.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* A supervisor that was killed gives its locks back one after the other. */
#define DYING_NS   (2 * NS_PER_S)
#define DYING_STEP (10 * NS_PER_MS)

int supervisor_find_paths(const struct config *config, struct paths *ret_paths,
                          struct error_buffer *why)
{
    struct paths_options options = config_paths_options(config);
    struct paths_environment environment;

    paths_environment_load(&environment);
    return paths_resolve(&options, &environment, config->ephemeral, ret_paths, why);
}

static int find_places(struct realm *realm, struct error_buffer *why)
{
    char prefix[PATHS_PREFIX_BYTES];
    int rc = supervisor_find_paths(&realm->config, &realm->paths, why);

    if (rc == 0)
        rc = paths_create_runtime(&realm->paths, (realm->config.socket_mode & 0066) != 0, why);
    if (rc == 0)
        rc = paths_create_state(&realm->paths, why);
    if (rc == 0)
        rc = paths_segment_prefix(geteuid(), realm->paths.runtime_dir, realm->paths.bus, prefix,
                                  why);
    if (rc == 0)
        memcpy(realm->prefix, prefix + (prefix[0] == '/'), sizeof(prefix) - 1);
    return rc;
}

/* Whoever has the state directory's lock may wait for the other lock of a supervisor that is dying.
 * */
static int open_bus(struct supervisor *supervisor, bool inherited, struct error_buffer *why)
{
    struct realm *realm = &supervisor->realm;
    const struct timespec step = timespec_from_ns(DYING_STEP);
    uint64_t deadline_ns = clock_monotonic_ns() + DYING_NS;
    uint32_t clients = (uint32_t)realm->config.clients;
    int rc;

    for (;;) {
        /* On a socket that was handed down somebody listens in any case. */
        rc = bus_open(&realm->bus, realm->prefix, inherited ? NULL : &realm->paths, clients,
                      realm->config.wait_mode, why);
        if (rc != SHMQ_EBUSY || supervisor->lock_fd < 0 || deadline_passed(deadline_ns))
            return rc;
        (void)nanosleep(&step, NULL);
    }
}

static int start_topics(struct realm *realm, struct error_buffer *why)
{
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);
    int rc = entries ? 0 : error_set(why, SHMQ_ENOMEM, "shmqd: out of memory for the topics");

    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = topic_start(CONTAINER_OF(entries[i], struct topic, entry), why);
    free(entries);
    return rc;
}

/* A flusher has found memory that contradicts itself. */
static void on_wake(void *context)
{
    struct realm *realm = context;
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);

    for (uint32_t i = 0; entries && i < count; i++) {
        struct topic *topic = CONTAINER_OF(entries[i], struct topic, entry);

        for (uint32_t p = 0; p < topic->partition_count; p++) {
            struct partition *partition = &topic->partitions[p];

            if (partition->log && flush_take_corrupt(partition->log))
                partition_quarantine(partition, "the flusher found that it contradicts itself");
        }
    }
    free(entries);
}

/* B, metadata, and everything that they lead to. */
static int open_realm(struct supervisor *supervisor, bool inherited, struct error_buffer *why)
{
    struct realm *realm = &supervisor->realm;
    int rc = open_bus(supervisor, inherited, why);

    FAULT("start.bus");
    if (rc == 0)
        rc = metadata_open(realm, why);
    FAULT("start.metadata");
    if (rc < 0)
        return rc;
    if (realm->bus
            .created) /* the rest is of another boot: client ids in there mean nobody any more */
        (void)sweep_segments(realm, true);
    bus_begin(&realm->bus);
    clients_adopt(realm);
    FAULT("start.clients");
    loop_on_wake(&realm->loop, on_wake, realm);
    rc = flusher_new(&realm->loop, &realm->flusher, why);
    if (rc == 0)
        rc = start_topics(realm, why);
    if (rc < 0)
        return rc;
    FAULT("start.topics");
    journals_sweep(realm);
    (void)sweep_segments(realm, false);
    FAULT("start.swept");
    rc = metadata_snapshot(realm, why);
    /* All that it would say is in the history, but where logs went on that have lost their memory: who forgot that might use
     * an offset twice. */
    if (rc == SHMQ_ENOSPC && !realm->bus.created) {
        log_warning("metadata: no snapshot: %s; the bus runs, and goes on with its history",
                    why->text);
        rc = 0;
    }
    return rc;
}

int supervisor_open(struct supervisor *supervisor, const struct config *config, int lock_fd,
                    int listen_fd, struct error_buffer *why)
{
    struct realm *realm = &supervisor->realm;
    int rc;

    memset(realm, 0, sizeof(*realm));
    realm->bus.fd = -1;
    realm->config = *config;
    realm->started_ns = clock_realtime_ns();
    supervisor->peers.listen_fd = -1;
    supervisor->lock_fd = lock_fd;
    supervisor->failed = false;
    supervisor->guarded = false;
    supervisor->registered = false;
    rc = loop_init(&realm->loop, why);
    if (rc < 0) {
        cleanup_close(&lock_fd);
        cleanup_close(&listen_fd);
        return rc;
    }
    rc = find_places(realm, why);
    if (rc == 0 && !config->ephemeral && supervisor->lock_fd < 0)
        rc = store_lock(realm->paths.state_bus_dir, &supervisor->lock_fd, why);
    FAULT("start.locked");
    if (rc == 0 && guard_install() < 0)
        rc = error_set(why, SHMQ_ESYS, "shmqd: no handler for SIGBUS");
    supervisor->guarded = rc == 0;
    if (rc == 0) {
        rcu_register_thread();
        supervisor->registered = true;
        rc = registry_init(&realm->registry, why);
    }
    if (rc == 0)
        rc = open_realm(supervisor, listen_fd >= 0, why);
    if (rc == 0) {
        rc = peers_open(&supervisor->peers, realm, listen_fd, why);
        listen_fd = -1;
    }
    cleanup_close(&listen_fd);
    if (rc < 0) {
        supervisor->failed = true;
        supervisor_close(supervisor);
        return rc;
    }
    metadata_watch_marks(realm);
    FAULT("start.listening");
    log_info("bus %s: shmqd %s runs (pid %ld): %" PRIu32 " topics, %" PRIu32
             " clients, socket %s%s",
             realm->paths.bus, SHMQ_VERSION_TEXT, (long)getpid(), realm->registry.count,
             realm->clients.count, realm->paths.socket, config->ephemeral ? ", ephemeral" : "");
    return 0;
}

int supervisor_run(struct supervisor *supervisor, struct error_buffer *why)
{
    return loop_run(&supervisor->realm.loop, why);
}

void supervisor_stop(struct supervisor *supervisor)
{
    loop_stop(&supervisor->realm.loop);
}

/* ---- stopping -------------------------------------------------------------------------------- */

/* Ephemeral: the last supervisor turns out the light. */
static void unlink_all(struct realm *realm)
{
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);

    for (uint32_t i = 0; entries && i < count; i++) {
        struct topic *topic = CONTAINER_OF(entries[i], struct topic, entry);

        for (uint32_t p = 0; p < topic->partition_count; p++)
            partition_close(&topic->partitions[p], PARTITION_DELETED);
        for (uint32_t gate = 0; gate < GATES_MAX; gate++) {
            if (topic->groups[gate])
                group_unlink(topic->groups[gate]);
        }
        topic_unlink_partitions(topic, 0);
        FAULT("stop.topic.unlinked");
    }
    free(entries);
}

static void unload_all(struct realm *realm)
{
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);

    for (uint32_t i = 0; entries && i < count; i++)
        topic_unload(CONTAINER_OF(entries[i], struct topic, entry));
    free(entries);
}

void supervisor_close(struct supervisor *supervisor)
{
    struct realm *realm = &supervisor->realm;
    bool unlink = realm->config.ephemeral && !supervisor->failed;
    /* No topic and no client that could come back: there is nothing to keep either. */
    bool empty = !supervisor->failed && realm->registry.names && realm->registry.count == 0 &&
                 realm->clients.count == 0;

    peers_close(&supervisor->peers);
    FAULT("stop.socket");
    flusher_stop(realm->flusher, !supervisor->failed && !unlink);
    FAULT("stop.flushed");
    if (realm->registry.names && realm->store && !supervisor->failed) {
        if (unlink)
            unlink_all(realm);
        else
            metadata_save_marks(realm);
    }
    if (realm->bus.fd >= 0 && !supervisor->failed)
        log_info("bus %s: shmqd stops%s", realm->paths.bus,
                 unlink  ? ", and all of it goes"
                 : empty ? "; it was empty"
                         : "; its memory and its clients stay");
    loop_defer_stop(&realm->snapshot);
    loop_timer_stop(&realm->marks);
    loop_timer_stop(&realm->cursors);
    clients_deinit(realm);
    if (realm->registry.names) {
        unload_all(realm);
        registry_deinit(&realm->registry);
    }
    flusher_free(realm->flusher);
    users_free(realm);
    bus_close(&realm->bus, unlink || empty || (supervisor->failed && realm->bus.created));
    store_close(realm->store);
    free(realm->replay);
    if (supervisor->registered)
        rcu_unregister_thread();
    if (supervisor->guarded)
        guard_uninstall();
    loop_deinit(&realm->loop);
    cleanup_close(&supervisor->lock_fd);
    supervisor->lock_fd = -1;
    log_flush();
}

void supervisor_disown(struct supervisor *supervisor)
{
    cleanup_close(&supervisor->realm.bus.fd);
    cleanup_close(&supervisor->lock_fd);
    cleanup_close(&supervisor->peers.listen_fd);
    for (const struct peer *peer = supervisor->peers.first; peer; peer = peer->next)
        cleanup_close(&peer->fd);
}
