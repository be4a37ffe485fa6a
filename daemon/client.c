/* SPDX-License-Identifier: Apache-2.0 */
/* client.c: see client.h. */
#include "daemon/client.h"

#include "daemon/cleanup.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/liveness.h"

#include <inttypes.h>
#include <string.h>

/* Tests of absent clients: soon after one lost its connection, then more and more seldom. */
#define ABSENT_FIRST_NS (20 * NS_PER_MS)
#define ABSENT_LAST_NS  (10 * NS_PER_S)

struct user *user_get(struct realm *realm, uint32_t uid)
{
    struct user *user;

    for (user = realm->clients.users; user; user = user->next) {
        if (user->uid == uid)
            return user;
    }
    user = calloc(1, sizeof(*user));
    if (user) {
        user->uid = uid;
        user->next = realm->clients.users;
        realm->clients.users = user;
    }
    return user;
}

struct client *client_find(const struct realm *realm, uint64_t id)
{
    struct client *client = realm->clients.buckets[id % CLIENT_BUCKETS];

    while (client && client->facts.id != id)
        client = client->hash_next;
    return client;
}

/* ---- liveness -------------------------------------------------------------------------------- */

bool client_is_dead(struct client *client)
{
    if (!client->gone && client->pidfd >= 0 &&
        liveness_process_is_gone(client->pidfd, (pid_t)client->facts.pid))
        client->gone = true;
    if (!client->gone && liveness_is_dead(client->realm->bus.fd, client->facts.id))
        client->gone = true;
    return client->gone;
}

bool client_id_is_dead(const struct realm *realm, uint64_t id)
{
    struct client *client;

    if (id == CLIENT_SHMQD)
        return false;
    client = client_find(realm, id);
    return client ? client_is_dead(client) : liveness_is_dead(realm->bus.fd, id);
}

static void on_pidfd(struct loop_source *source, uint32_t events UNUSED, void *context)
{
    struct client *client = context;

    loop_remove(source); /* it stays readable for ever */
    if (client_is_dead(client))
        cleanup_client(client, "its process ended");
}

static void watch_pidfd(struct client *client)
{
    struct error_buffer why;

    if (client->pidfd < 0)
        return;
    if (loop_add(&client->realm->loop, &client->pidfd_source, client->pidfd, EPOLLIN, on_pidfd,
                 client, &why) < 0)
        log_warning("client %" PRIu64 ": its pidfd cannot be watched: %s", client->facts.id,
                    why.text);
}

static void forget_the_dead(struct realm *realm)
{
    struct client *next;

    for (struct client *client = realm->clients.first; client; client = next) {
        next = client->next;
        if (!client->peer && !client->leaving && client_is_dead(client))
            cleanup_client(client, "it ended while it was not connected");
    }
}

static void on_absent_timer(struct loop_timer *timer, void *context);

static void test_absent_in(struct realm *realm, uint64_t wait_ns)
{
    struct clients *clients = &realm->clients;

    clients->absent_wait_ns = wait_ns;
    clients->absent_due_ns = clock_monotonic_ns() + wait_ns;
    loop_timer_set(&realm->loop, &clients->absent_timer, clients->absent_due_ns, on_absent_timer,
                   realm);
}

static void on_absent_timer(struct loop_timer *timer UNUSED, void *context)
{
    struct realm *realm = context;
    struct clients *clients = &realm->clients;

    clients->absent_due_ns = 0;
    forget_the_dead(realm);
    if (clients->absent > 0 && clients->absent_due_ns == 0)
        test_absent_in(realm, min_u64(clients->absent_wait_ns * 2, ABSENT_LAST_NS));
}

/* A test that is due already is not put off: whoever drops connections all the time would keep the
 * dead in for ever. */
static void test_absent_soon(struct realm *realm)
{
    uint64_t due_ns = realm->clients.absent_due_ns;

    if (due_ns == 0 || due_ns > clock_monotonic_ns() + ABSENT_FIRST_NS)
        test_absent_in(realm, ABSENT_FIRST_NS);
}

static void stop_absent_tests(struct clients *clients)
{
    clients->absent_due_ns = 0;
    loop_timer_stop(&clients->absent_timer);
}

void client_set_peer(struct client *client, struct peer *peer)
{
    struct clients *clients = &client->realm->clients;

    if (!client->peer && peer) {
        if (--clients->absent == 0)
            stop_absent_tests(clients);
    } else if (client->peer && !peer) {
        clients->absent++;
        if (!client->leaving)
            test_absent_soon(client->realm);
    }
    client->peer = peer;
}

/* ---- coming and going ------------------------------------------------------------------------ */

static struct client *enter(struct realm *realm, const struct bus_client *facts, uint32_t entry,
                            struct user *user, int pidfd)
{
    struct clients *clients = &realm->clients;
    struct client *client = calloc(1, sizeof(*client));
    struct client **bucket;

    if (!client)
        return NULL;
    client->realm = realm;
    client->facts = *facts;
    client->entry = entry;
    client->user = user;
    client->pidfd = pidfd;
    bucket = &clients->buckets[facts->id % CLIENT_BUCKETS];
    client->hash_next = *bucket;
    *bucket = client;
    client->next = clients->first;
    if (clients->first)
        clients->first->previous = client;
    clients->first = client;
    clients->count++;
    clients->absent++;
    user->clients++;
    watch_pidfd(client);
    return client;
}

int client_new(struct realm *realm, const struct bus_client *facts, int pidfd,
               struct client **ret_client, struct error_buffer *why)
{
    struct bus_client entered = *facts;
    struct user *user = user_get(realm, facts->uid);
    struct client *client;
    uint32_t entry;
    int rc;

    if (!user)
        return error_set(why, SHMQ_ENOMEM, "shmqd: out of memory for another client");
    if (user->clients >= realm->config.connections_per_user ||
        realm->clients.count >= realm->config.clients)
        forget_the_dead(realm); /* those that went without a word make room */
    if (user->clients >= realm->config.connections_per_user)
        return error_set(
            why, SHMQ_ELIMIT,
            "bus %s: user %" PRIu32 " has %" PRIu32
            " connections, the limit; close some, or raise [limits] connections_per_user",
            realm->paths.bus, user->uid, user->clients);
    if (realm->clients.count >= realm->config.clients)
        return error_set(
            why, SHMQ_ELIMIT,
            "bus %s: %u clients are connected, its limit; close some, or raise [limits] "
            "clients",
            realm->paths.bus, realm->clients.count);
    rc = bus_add_client(&realm->bus, &entered, &entry, why);
    if (rc < 0)
        return rc;
    FAULT("hello.entered");
    client = enter(realm, &entered, entry, user, pidfd);
    if (!client) {
        bus_remove_client(&realm->bus, entry);
        return error_set(why, SHMQ_ENOMEM, "shmqd: out of memory for another client");
    }
    *ret_client = client;
    return 0;
}

static void adopt(struct realm *realm, uint32_t entry)
{
    const struct bus_client *facts = &realm->bus.copy[entry];
    struct user *user = user_get(realm, facts->uid);
    struct client *client;
    uint64_t start_time;
    int pidfd = -1;
    bool gone;
    int rc;

    /* A process that is not the one of then cannot be it, whoever holds its lock by now; one that
     * cannot be looked at may be. Pid 0: of a namespace that we do not see. */
    rc = liveness_open_pidfd((pid_t)facts->pid, &pidfd);
    gone = rc == SHMQ_ECLOSED && facts->pid != 0;
    if (rc == 0 && liveness_start_time((pid_t)facts->pid, &start_time) == 0 &&
        facts->start_time != 0 && start_time != facts->start_time) {
        (void)close(steal_fd(&pidfd));
        gone = true;
    }
    client = user ? enter(realm, facts, entry, user, pidfd) : NULL;
    if (!client) {
        cleanup_close(&pidfd);
        log_error("client %" PRIu64 ": out of memory to look after it", facts->id);
        return;
    }
    client->gone = gone;
}

void clients_adopt(struct realm *realm)
{
    for (uint32_t i = 0; i < realm->bus.client_count; i++) {
        if (realm->bus.copy[i].id != CLIENT_NONE)
            adopt(realm, i);
    }
    if (realm->clients.count > 0) {
        log_info("%u clients of the supervisor before are waited for", realm->clients.count);
        test_absent_soon(realm);
    }
}

static void leave(struct client *client)
{
    struct clients *clients = &client->realm->clients;
    struct client **bucket = &clients->buckets[client->facts.id % CLIENT_BUCKETS];

    while (*bucket != client)
        bucket = &(*bucket)->hash_next;
    *bucket = client->hash_next;
    if (client->next)
        client->next->previous = client->previous;
    if (client->previous)
        client->previous->next = client->next;
    else
        clients->first = client->next;
    clients->count--;
    client->user->clients--;
    if (!client->peer)
        clients->absent--;
    if (clients->absent == 0)
        stop_absent_tests(clients);
    loop_remove(&client->pidfd_source);
    cleanup_close(&client->pidfd);
    free(client);
}

void client_free(struct client *client)
{
    bus_remove_client(&client->realm->bus, client->entry);
    leave(client);
}

void clients_deinit(struct realm *realm)
{
    struct client *next;

    stop_absent_tests(&realm->clients);
    loop_timer_stop(&realm->clients.retry_timer);
    for (struct client *client = realm->clients.first; client; client = next) {
        next = client->next;
        leave(client);
    }
}

void users_free(struct realm *realm)
{
    struct user *user;

    while ((user = realm->clients.users) != NULL) {
        realm->clients.users = user->next;
        free(user);
    }
}

void client_wake(struct realm *realm, uint64_t id)
{
    struct client *client = client_find(realm, id);

    if (client)
        bus_wake_client(&realm->bus, client->entry);
}

void clients_wake_active(struct realm *realm)
{
    for (struct client *client = realm->clients.first; client; client = client->next) {
        if (client->slots > 0 || client->memberships > 0)
            bus_wake_client(&realm->bus, client->entry);
    }
}
