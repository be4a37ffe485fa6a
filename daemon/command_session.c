/* SPDX-License-Identifier: Apache-2.0 */
/* command_session.c: hello, good-bye, status; see command.h. */
#include "daemon/command.h"

#include "daemon/cleanup.h"
#include "daemon/client.h"
#include "daemon/log.h"
#include "daemon/peer.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/liveness.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int check_hello(const struct command *command, const struct protocol_hello *request,
                       struct error_buffer *why)
{
    const struct realm *realm = command->realm;
    const struct peer *peer = command->peer;

    if (peer->client)
        return error_set(why, SHMQ_EPROTO, "hello: said already");
    if (request->fingerprint != LAYOUT_FINGERPRINT)
        return error_set(why, SHMQ_EVERSION,
                         "layout: the library's fingerprint is %016" PRIx64
                         ", shmqd %s's is %016" PRIx64 "; bring both to the same version",
                         request->fingerprint, SHMQ_VERSION_TEXT, LAYOUT_FINGERPRINT);
    if (realm->bus.wait_mode == WAIT_MODE_MEMBARRIER && !(request->flags & HELLO_MEMBARRIER))
        return error_set(
            why, SHMQ_ENOTSUP,
            "bus %s: it waits with membarrier, which this process may not use; set [bus] "
            "wait_mode = fence and restart the bus with all its clients",
            realm->paths.bus);
    return permission_check(realm, peer, PERMISSION_CONNECT, NULL, why);
}

/* The same process, and an identity of this boot that was not given up. */
static int resume(struct command *command, const struct protocol_hello *request,
                  uint64_t start_time, struct client **ret_client, struct error_buffer *why)
{
    struct realm *realm = command->realm;
    struct peer *peer = command->peer;
    struct client *client = client_find(realm, request->resume_client);

    if (memcmp(request->boot_id, realm->bus.boot_id, sizeof(request->boot_id)) != 0 || !client ||
        client->leaving || client->facts.pid != (uint32_t)peer->pid ||
        client->facts.uid != peer->uid ||
        (client->facts.start_time != 0 && client->facts.start_time != start_time))
        return error_set(why, SHMQ_ECLOSED,
                         "client %" PRIu64 ": this bus does not know it any more; connect anew",
                         request->resume_client);
    if (client_is_dead(client)) {
        cleanup_client(client, "it gave its lock back");
        return error_set(why, SHMQ_ECLOSED,
                         "client %" PRIu64 ": it gave its lock back; connect anew",
                         request->resume_client);
    }
    if (client->peer)
        peer_drop(client->peer); /* the connection that it has lost, before we noticed */
    *ret_client = client;
    return 0;
}

static int enter(struct command *command, uint64_t start_time, struct client **ret_client,
                 struct error_buffer *why)
{
    struct realm *realm = command->realm;
    struct peer *peer = command->peer;
    struct bus_client facts = {
        .start_time = start_time,
        .uid = peer->uid,
        .pid = (uint32_t)peer->pid,
        .connected_ns = clock_realtime_ns(),
    };
    struct client *client;
    int pidfd = -1;
    int rc;

    rc = liveness_peer_pidfd(peer->fd, &pidfd);
    if (rc < 0)
        return error_set(why, rc,
                         "process %ld: it cannot be watched (no pidfd); is it in another "
                         "pid namespace, or out of descriptors?",
                         (long)peer->pid);
    liveness_command(peer->pid, facts.command);
    rc = client_new(realm, &facts, pidfd, &client, why);
    if (rc == 0) {
        rc = bus_open_for_client(&realm->bus, client->facts.id, &command->fds[0], why);
        if (rc < 0) {
            client_free(client); /* and the pidfd */
            return rc;
        }
        command->fd_count = 1;
        *ret_client = client;
        return 0;
    }
    (void)close(pidfd);
    return rc;
}

int command_hello(struct command *command, struct error_buffer *why)
{
    const struct protocol_hello *request = command->request;
    const struct bus *bus = &command->realm->bus;
    struct protocol_welcome *reply;
    struct client *client = NULL;
    uint64_t start_time = 0;
    int rc = check_hello(command, request, why);

    if (rc < 0)
        return rc;
    /* 0 where /proc hides it: then the pid and the lock have to do. */
    (void)liveness_start_time(command->peer->pid, &start_time);
    if (request->resume_client != 0)
        rc = resume(command, request, start_time, &client, why);
    else
        rc = enter(command, start_time, &client, why);
    if (rc < 0 || !client)
        return rc;
    command->peer->client = client;
    client_set_peer(client, command->peer);
    FAULT("hello.accepted");
    log_debug("client %" PRIu64 " (pid %" PRIu32 ", %.15s): %s", client->facts.id,
              client->facts.pid, client->facts.command,
              request->resume_client ? "is back" : "connected");
    reply = command_begin(command, sizeof(*reply));
    reply->client = client->facts.id;
    reply->incarnation = bus->incarnation;
    memcpy(reply->boot_id, bus->boot_id, sizeof(reply->boot_id));
    reply->entry = client->entry;
    reply->wait_mode = bus->wait_mode;
    reply->resumed = request->resume_client != 0;
    reply->shmqd_pid = (uint32_t)getpid();
    (void)snprintf(reply->server_version, sizeof(reply->server_version), "%s", SHMQ_VERSION_TEXT);
    return 0;
}

int command_goodbye(struct command *command, struct error_buffer *why UNUSED)
{
    (void)command_begin(command, sizeof(struct protocol_header));
    command->goodbye = true; /* the rest when it has its reply */
    return 0;
}

int command_status(struct command *command, struct error_buffer *why UNUSED)
{
    const struct realm *realm = command->realm;
    struct protocol_status_reply *reply = command_begin(command, sizeof(*reply));

    (void)snprintf(reply->version, sizeof(reply->version), "%s", SHMQ_VERSION_TEXT);
    (void)snprintf(reply->bus, sizeof(reply->bus), "%s", realm->paths.bus);
    /* Longer ones are cut: for eyes. */
    (void)snprintf(reply->runtime_dir, sizeof(reply->runtime_dir), "%.255s",
                   realm->paths.runtime_dir);
    if (!realm->config.ephemeral)
        (void)snprintf(reply->state_dir, sizeof(reply->state_dir), "%.255s",
                       realm->paths.state_dir);
    reply->started_ns = realm->started_ns;
    reply->incarnation = realm->bus.incarnation;
    reply->shm_bytes = realm->shm_bytes + realm->bus.segment.bytes;
    reply->pid = (uint32_t)getpid();
    reply->uid = (uint32_t)geteuid();
    reply->wait_mode = realm->bus.wait_mode;
    reply->topics = realm->registry.count;
    reply->partitions = realm->partition_count;
    reply->groups = realm->group_count;
    reply->clients = realm->clients.count;
    reply->quarantined = realm->quarantined;
    reply->max_clients = (uint32_t)min_u64(realm->config.clients, realm->bus.client_count);
    reply->ephemeral = realm->config.ephemeral;
    command_fill_journals(realm, reply);
    return 0;
}
