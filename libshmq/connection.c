/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connection.c: the public calls on connections: open, close, errors, version.
 *
 * Called by the program from any thread; close() while no other thread uses the connection.
 * Connecting blocks up to its timeout, closing up to a second. If the process dies here, shmqd sees
 * it.
 */
#include <stdio.h>
#include <string.h>

#include "libshmq/channel.h"
#include "libshmq/clock.h"
#include "libshmq/shmq.h"

#ifndef SHMQ_VERSION_TEXT
#define SHMQ_VERSION_TEXT SHMQ_VERSION
#endif

const char *shmq_version(void)
{
    return SHMQ_VERSION_TEXT;
}

const char *shmq_strerror(int code)
{
    return error_text(code);
}

const char *shmq_errmsg(const shmq_connection *c)
{
    return handles_error_text(c ? c->serial : 0);
}

uint64_t shmq_connection_id(const shmq_connection *c)
{
    struct session *session;
    uint64_t id;

    if (!c || handles_forked(c->fork_count))
        return CLIENT_NONE;
    session = control_session((shmq_connection *)(uintptr_t)c); /* its lock changes, nothing else */
    id = session ? session->client : CLIENT_NONE;
    session_release(session);
    return id;
}

/* Options grow at their end: an older program's are shorter, a newer one's longer. */
static int copy_options(const struct shmq_connect_options *given, struct shmq_connect_options *to)
{
    const struct shmq_connect_options defaults = SHMQ_CONNECT_OPTIONS_INIT;

    *to = defaults;
    if (given && given->size < offsetof(struct shmq_connect_options, reserved))
        return handles_usage_error(0, "connect: options.size is too small; start with "
                                      "SHMQ_CONNECT_OPTIONS_INIT");
    if (given)
        memcpy(to, given, min_size(given->size, sizeof(*to)));
    if (to->timeout_ms < 0 || to->timeout_ms > SHMQ_TIMEOUT_MAX)
        return handles_usage_error(0, "connect: timeout_ms is negative or longer than 24 hours");
    if (to->timeout_ms == 0)
        to->timeout_ms = SHMQ_TIMEOUT_DEFAULT;
    return 0;
}

static int find_bus(struct shmq_connection *c, const struct shmq_connect_options *options,
                    struct error_buffer *why)
{
    struct paths_options paths = {.bus = options->bus, .runtime_dir = options->runtime_dir};
    const char *vhost = options->vhost ? options->vhost : VHOST_DEFAULT;
    struct paths_environment environment;
    const char *directory;
    int rc;

    if (!name_is_valid(vhost))
        return error_set(why, SHMQ_EINVAL,
                         "vhost '%.64s': names are 1-200 of A-Z a-z 0-9 . _ - and do not start "
                         "with a dot",
                         vhost);
    memcpy(c->vhost, vhost, strlen(vhost) + 1);
    paths_environment_load(&environment);
    rc = paths_find_sockets(&paths, &environment, &c->candidates, why);
    if (rc < 0)
        return rc;
    directory = c->candidates.list[0].runtime_dir;
    /* What the environment says, the command reads from there as well. */
    if (options->runtime_dir && options->runtime_dir[0])
        (void)snprintf(c->remedy, sizeof(c->remedy), "shmqd --bus %s --runtime-dir %s",
                       c->candidates.bus, directory);
    else
        (void)snprintf(c->remedy, sizeof(c->remedy), "shmqd --bus %s", c->candidates.bus);
    return 0;
}

static int init_locks(struct shmq_connection *c)
{
    pthread_condattr_t attributes;
    bool ok = pthread_condattr_init(&attributes) == 0;

    ok = ok && pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0;
    ok = ok && pthread_cond_init(&c->idle, &attributes) == 0;
    (void)pthread_condattr_destroy(&attributes);
    return ok && pthread_mutex_init(&c->lock, NULL) == 0 &&
                   pthread_mutex_init(&c->channels_lock, NULL) == 0
               ? 0
               : SHMQ_ENOMEM;
}

static void free_connection(struct shmq_connection *c)
{
    control_free_debts(c);
    free(c->buffer);
    free(c);
}

static int make_connection(const struct shmq_connect_options *options, struct shmq_connection *c,
                           struct error_buffer *why)
{
    int rc;

    c->fork_count = handles_fork_now();
    c->timeout_ms = options->timeout_ms;
    c->socket.fd = -1;
    c->buffer = malloc(PROTOCOL_BYTES_MAX);
    if (!c->buffer || handles_init() < 0 || init_locks(c) < 0)
        return error_set(why, SHMQ_ENOMEM, "connect: no memory");
    rc = find_bus(c, options, why);
    if (rc == 0)
        rc = control_connect(c, deadline_after_ms(c->timeout_ms), CONTROL_ONCE, why);
    return rc;
}

int shmq_connect(const struct shmq_connect_options *options, shmq_connection **ret_connection)
{
    uint64_t serial = handles_next_serial();
    struct shmq_connect_options copy;
    struct shmq_connection *c;
    int rc;

    if (!ret_connection)
        return handles_usage_error(0, "connect: result is NULL");
    *ret_connection = NULL;
    rc = copy_options(options, &copy);
    if (rc < 0)
        return rc;
    c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(handles_error(0), SHMQ_ENOMEM, "connect: no memory");
    c->serial = serial;
    rc = make_connection(&copy, c, handles_error(serial));
    if (rc < 0) {
        handles_close_fd(&c->socket);
        session_release(c->session);
        free_connection(c);
        return rc;
    }
    *ret_connection = c;
    return 0;
}

void shmq_close(shmq_connection *c)
{
    if (!c)
        return;
    bool forked = handles_forked(c->fork_count);

    /* Claims and commits are settled in shared memory; the rest goes with the session. */
    while (c->channels)
        channel_close(c->channels, 0);
    if (!forked) {
        control_disconnect(c, clock_monotonic_ns() + CLOSE_NS);
        session_release(c->session);
        (void)pthread_mutex_destroy(&c->lock);
        (void)pthread_mutex_destroy(&c->channels_lock);
        (void)pthread_cond_destroy(&c->idle);
    } else {
        free(c->session); /* the mapping is not there, the descriptors are closed */
    }
    free_connection(c);
}
