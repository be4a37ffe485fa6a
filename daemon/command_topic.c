/* SPDX-License-Identifier: Apache-2.0 */
/* command_topic.c: topics and partitions; see command.h. */
#include "daemon/command.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/peer.h"
#include "daemon/topic.h"

#include <inttypes.h>
#include <string.h>

static int reply_info(struct command *command, struct topic *topic)
{
    struct protocol_topic_reply *reply = command_begin(command, sizeof(*reply));

    topic_fill_info(topic, &reply->info);
    return 0;
}

/* What nobody said is as this bus's administrator wants it. */
static void fill_defaults(const struct realm *realm, struct topic_options *options)
{
    if (options->vhost[0] == '\0')
        strcpy(options->vhost, VHOST_DEFAULT);
    if (options->partitions == 0)
        options->partitions = 1;
    if (options->ring_bytes == 0 &&
        options->max_message <= ring_max_message(realm->config.ring_bytes))
        options->ring_bytes = realm->config.ring_bytes;
    if (options->linger_ns == 0)
        options->linger_ns = realm->config.group_linger_ns;
}

static int check_disk(const struct realm *realm, const struct topic_options *options,
                      struct error_buffer *why)
{
    if (options->durability == DURABLE_NONE || !realm->config.ephemeral)
        return 0;
    return error_set(
        why, SHMQ_ENOTSUP,
        "topic %s: bus %s is ephemeral and keeps nothing on disk, so no topic in it can be durable; "
        "start its shmqd without --ephemeral (embedded: with `persistent`), or create the topic with "
        "--durable none",
        options->name, realm->paths.bus);
}

int command_topic_create(struct command *command, struct error_buffer *why)
{
    const struct protocol_topic_put *request = command->request;
    struct topic_options options = request->options;
    struct topic *topic;
    int rc;

    fill_defaults(command->realm, &options);
    rc = topic_options_complete(&options, why);
    if (rc == 0)
        rc = permission_check(command->realm, command->peer, PERMISSION_CONFIGURE, NULL, why);
    if (rc < 0)
        return rc;
    topic = topic_find(command->realm, options.name);
    if (topic && (request->flags & TOPIC_IF_NOT_EXISTS))
        return reply_info(command, topic);
    if (topic)
        return error_set(why, SHMQ_EEXIST,
                         "topic %s: exists already; use it, or choose another name", options.name);
    rc = check_disk(command->realm, &options, why);
    if (rc < 0)
        return rc;
    rc = topic_create(command->realm, &options, command->peer->uid, &topic, why);
    return rc < 0 ? rc : reply_info(command, topic);
}

int command_topic_describe(struct command *command, struct error_buffer *why)
{
    const struct protocol_topic_request *request = command->request;
    struct topic *topic;
    int rc = command_find_topic(command, request->vhost, request->name, &topic, why);

    return rc < 0 ? rc : reply_info(command, topic);
}

static int find_to_change(struct command *command, const char *vhost, const char *name,
                          struct topic **ret_topic, struct error_buffer *why)
{
    int rc = command_find_topic(command, vhost, name, ret_topic, why);

    return rc < 0 ? rc
                  : permission_check(command->realm, command->peer, PERMISSION_CONFIGURE,
                                     *ret_topic, why);
}

int command_topic_alter(struct command *command, struct error_buffer *why)
{
    const struct protocol_topic_put *request = command->request;
    const struct topic_options *options = &request->options;
    struct topic *topic;
    int rc = find_to_change(command, options->vhost, options->name, &topic, why);

    if (rc == 0 && (request->mask & ~ALTER_ALL))
        rc = error_set(why, SHMQ_EINVAL,
                       "topic %s: only partitions, group linger, max message, sync interval and "
                       "retention can be changed",
                       options->name);
    if (rc == 0)
        rc = topic_alter(topic, options, request->mask, why);
    return rc < 0 ? rc : reply_info(command, topic);
}

int command_topic_delete(struct command *command, struct error_buffer *why)
{
    const struct protocol_topic_request *request = command->request;
    struct topic *topic;
    int rc = find_to_change(command, request->vhost, request->name, &topic, why);

    if (rc == 0)
        rc = topic_delete(topic, why);
    if (rc == 0)
        (void)command_begin(command, sizeof(struct protocol_header));
    return rc;
}

int command_topic_purge(struct command *command, struct error_buffer *why)
{
    const struct protocol_topic_request *request = command->request;
    struct topic *topic;
    int rc = find_to_change(command, request->vhost, request->name, &topic, why);

    if (rc == 0)
        rc = topic_purge(topic, why);
    if (rc == 0)
        (void)command_begin(command, sizeof(struct protocol_header));
    return rc;
}

/* ---- partitions ------------------------------------------------------------------------------ */

int command_find_partition(const struct command *command, uint64_t topic_id, uint32_t index,
                           struct partition **ret_partition, struct error_buffer *why)
{
    struct topic *topic;
    int rc = command_find_topic_id(command, topic_id, &topic, why);

    if (rc < 0)
        return rc;
    if (index >= topic->partition_count)
        return error_set(why, SHMQ_EINVAL, "topic %s: it has %" PRIu32 " partitions, not %" PRIu32,
                         topic->options.name, topic->partition_count, index + 1);
    if (topic->partitions[index].quarantined)
        return error_set(why, SHMQ_ECORRUPT,
                         "topic %s/%" PRIu32 ": it is quarantined; run `shmq doctor`",
                         topic->options.name, index);
    *ret_partition = &topic->partitions[index];
    return 0;
}

static int assign_slot(struct command *command, struct partition *partition, uint32_t *ret_slot,
                       struct error_buffer *why)
{
    const struct protocol_header *header = command->request;
    struct client *client = command->peer->client;

    if (client->user->slots >= command->realm->config.slots_per_user)
        return error_set(
            why, SHMQ_ELIMIT,
            "topic %s: user %" PRIu32 " has %" PRIu32
            " producer slots, the limit; close producers, or raise [limits] slots_per_user",
            partition->topic->options.name, client->user->uid, client->user->slots);
    /* + 1: no token is 0. fds[1] is P. */
    return partition_assign_slot(partition, client->facts.id, (uint64_t)header->id + 1,
                                 command->fds[1], ret_slot, why);
}

int command_partition_open(struct command *command, struct error_buffer *why)
{
    const struct protocol_partition_open *request = command->request;
    bool producer = request->role == ROLE_PRODUCER;
    struct protocol_partition_opened *reply;
    struct partition *partition;
    uint64_t tail;
    uint32_t slot = 0;
    int rc = command_find_partition(command, request->topic, request->partition, &partition, why);

    if (rc == 0)
        rc = permission_check(command->realm, command->peer,
                              producer ? PERMISSION_WRITE : PERMISSION_READ, partition->topic, why);
    if (rc < 0)
        return rc;
    if (partition_read_tail(partition, &tail) < 0)
        return error_set(why, SHMQ_ECORRUPT,
                         "topic %s/%" PRIu32 ": it is quarantined; run `shmq doctor`",
                         partition->topic->options.name, partition->index);
    rc = partition_open_fds(partition, producer, command->fds, why);
    if (rc < 0)
        return rc;
    command->fd_count = 4;
    if (producer)
        rc = assign_slot(command, partition, &slot, why);
    if (rc < 0)
        return rc;
    reply = command_begin(command, sizeof(*reply));
    reply->salt = partition->salt;
    reply->capacity = partition->topic->options.ring_bytes;
    reply->slot = slot;
    return 0;
}

int command_slot_close(struct command *command, struct error_buffer *why)
{
    const struct protocol_slot_request *request = command->request;
    struct client *client = command->peer->client;
    struct partition *partition;
    uint32_t cleared;
    int rc = command_find_partition(command, request->topic, request->partition, &partition, why);

    if (rc < 0)
        return rc;
    rc = partition_clear_slots(partition, client->facts.id, request->slot, &cleared);
    client->slots -= min_u32(client->slots, cleared);
    client->user->slots -= min_u32(client->user->slots, cleared);
    if (rc == SHMQ_EAGAIN)
        return error_set(why, rc,
                         "topic %s/%" PRIu32 ": slot %" PRIu32
                         " is busy: commit or abort its claim, and try again",
                         partition->topic->options.name, partition->index, request->slot);
    if (rc < 0)
        return error_set(why, rc, "topic %s/%" PRIu32 ": it is quarantined; run `shmq doctor`",
                         partition->topic->options.name, partition->index);
    (void)command_begin(command, sizeof(struct protocol_header));
    return 0;
}

int command_resolve(struct command *command, struct error_buffer *why)
{
    const struct protocol_slot_request *request = command->request;
    struct protocol_resolve_reply *reply;
    struct partition *partition;
    enum resolve_result result;
    int rc = command_find_partition(command, request->topic, request->partition, &partition, why);

    if (rc == 0)
        rc = partition_resolve(partition, request->offset, &result, why);
    if (rc < 0)
        return rc;
    reply = command_begin(command, sizeof(*reply));
    reply->result = (uint32_t)result;
    return 0;
}
