/* SPDX-License-Identifier: Apache-2.0 */
/* command.c: the table of requests and the frame around their replies; see command.h. */
#include "daemon/command.h"

#include "daemon/client.h"
#include "daemon/log.h"
#include "daemon/peer.h"
#include "daemon/topic.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static command_fn *const HANDLERS[] = {
    [PROTOCOL_HELLO] = command_hello,
    [PROTOCOL_GOODBYE] = command_goodbye,
    [PROTOCOL_STATUS] = command_status,
    [PROTOCOL_TOPIC_CREATE] = command_topic_create,
    [PROTOCOL_TOPIC_DESCRIBE] = command_topic_describe,
    [PROTOCOL_TOPIC_LIST] = command_topic_list,
    [PROTOCOL_TOPIC_ALTER] = command_topic_alter,
    [PROTOCOL_TOPIC_DELETE] = command_topic_delete,
    [PROTOCOL_TOPIC_PURGE] = command_topic_purge,
    [PROTOCOL_PARTITION_LIST] = command_partition_list,
    [PROTOCOL_PARTITION_OPEN] = command_partition_open,
    [PROTOCOL_SLOT_CLOSE] = command_slot_close,
    [PROTOCOL_RESOLVE] = command_resolve,
    [PROTOCOL_JOURNAL_OPEN] = command_journal_open,
    [PROTOCOL_GROUP_JOIN] = command_group_join,
    [PROTOCOL_GROUP_LEAVE] = command_group_leave,
    [PROTOCOL_GROUP_SEGMENT] = command_group_segment,
    [PROTOCOL_GROUP_LIST] = command_group_list,
    [PROTOCOL_GROUP_DESCRIBE] = command_group_describe,
    [PROTOCOL_GROUP_DELETE] = command_group_delete,
    [PROTOCOL_CLIENT_LIST] = command_client_list,
};

static const struct protocol_header *request_header(const struct command *command)
{
    return command->request;
}

void *command_begin(struct command *command, size_t bytes)
{
    memset(command->reply, 0, bytes);
    command->reply_bytes = (uint32_t)bytes;
    return command->reply;
}

static void frame(struct command *command, int status)
{
    struct protocol_header *header = command->reply;

    protocol_begin(header, (enum protocol_type)request_header(command)->type, command->reply_bytes);
    header->id = request_header(command)->id;
    header->status = status;
    header->count = command->reply_count;
}

static void frame_failure(struct command *command, int status, const struct error_buffer *why)
{
    struct protocol_failure *failure;

    for (unsigned i = 0; i < command->fd_count; i++)
        (void)close(command->fds[i]);
    command->fd_count = 0;
    command->reply_count = 0;
    command->goodbye = false;
    failure = command_begin(command, sizeof(*failure));
    memcpy(failure->text, why->text, sizeof(failure->text));
    failure->text[sizeof(failure->text) - 1] = '\0';
    frame(command, status);
}

int command_run(struct command *command)
{
    uint32_t type = request_header(command)->type;
    struct error_buffer why = {.text = ""};
    int rc;

    if (type >= COUNT_OF(HANDLERS) || !HANDLERS[type])
        rc = error_set(&why, SHMQ_EPROTO, "request %" PRIu32 ": unknown; is this shmqd too old?",
                       type);
    else if (!command->peer->client && type != PROTOCOL_HELLO)
        rc = error_set(&why, SHMQ_EPROTO, "%s: the first request must be hello",
                       protocol_type_name(type));
    else if (command->peer->client && command->peer->client->leaving)
        rc = error_set(&why, SHMQ_ECLOSED, "%s: this connection said good-bye",
                       protocol_type_name(type));
    else
        rc = HANDLERS[type](command, &why);
    if (rc < 0) {
        log_debug("client of pid %ld: %s: %s", (long)command->peer->pid, protocol_type_name(type),
                  why.text);
        frame_failure(command, rc, &why);
        return rc;
    }
    frame(command, 0);
    return 0;
}

int permission_check(const struct realm *realm, const struct peer *peer, enum permission_verb verb,
                     const struct topic *topic, struct error_buffer *why)
{
    (void)verb;
    (void)topic;
    /* The file system let it connect; beyond owner and root only what socket_mode has opened. */
    if (peer->uid == 0 || peer->uid == (uint32_t)geteuid() ||
        (realm->config.socket_mode & 0066) != 0)
        return 0;
    return error_set(why, SHMQ_EPERM,
                     "bus %s: user %" PRIu32
                     " is neither its owner nor root; use another user, or open "
                     "it with [bus] socket_mode and socket_group",
                     realm->paths.bus, peer->uid);
}

int command_find_topic(const struct command *command, const char *vhost, const char *name,
                       struct topic **ret_topic, struct error_buffer *why)
{
    struct topic *topic;

    if (vhost[0] != '\0' && strcmp(vhost, VHOST_DEFAULT) != 0)
        return error_set(why, SHMQ_EINVAL, "vhost %s: there is only '%s'", vhost, VHOST_DEFAULT);
    if (!name_is_valid(name))
        return error_set(
            why, SHMQ_EINVAL,
            "topic '%.64s': not a name: 1-200 of A-Z a-z 0-9 . _ - and no dot in front", name);
    topic = topic_find(command->realm, name);
    if (!topic)
        return error_set(why, SHMQ_ENOTOPIC,
                         "topic %s: there is none; create it with `shmq topic create %s`", name,
                         name);
    *ret_topic = topic;
    return 0;
}

int command_find_topic_id(const struct command *command, uint64_t id, struct topic **ret_topic,
                          struct error_buffer *why)
{
    struct topic *topic = topic_find_id(command->realm, id);

    if (!topic)
        return error_set(why, SHMQ_ENOTOPIC, "topic with id %" PRIu64 ": deleted; open it anew",
                         id);
    *ret_topic = topic;
    return 0;
}
