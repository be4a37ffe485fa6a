/* SPDX-License-Identifier: Apache-2.0 */
/* command_group.c: joining, leaving, mapping and deleting groups; see command.h. */
#include "daemon/command.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/peer.h"
#include "daemon/topic.h"

#include <inttypes.h>
#include <string.h>

static int check_group_name(const char *name, struct error_buffer *why)
{
    if (!name_is_valid(name) || name_is_reserved(name))
        return error_set(
            why, SHMQ_EINVAL,
            "group '%.64s': not a name: 1-200 of A-Z a-z 0-9 . _ - , no dot and no 'shmq.' "
            "in front",
            name);
    return 0;
}

int command_group_join(struct command *command, struct error_buffer *why)
{
    const struct protocol_group_join *request = command->request;
    struct group_join join = {
        .name = request->group[0] ? request->group : GROUP_DEFAULT,
        .client = command->peer->client->facts.id,
        .token = (uint64_t)request->header.id + 1,
        .offset = request->offset,
        .from = request->from,
        .kind = request->kind,
    };
    struct protocol_group_joined *reply;
    struct topic *topic;
    struct group *group;
    bool created = false;
    uint32_t member = 0;
    int rc = command_find_topic(command, request->vhost, request->topic, &topic, why);

    if (rc == 0)
        rc = check_group_name(join.name, why);
    if (rc == 0)
        rc = permission_check(command->realm, command->peer, PERMISSION_READ, topic, why);
    if (rc < 0)
        return rc;
    group = group_find(topic, join.name);
    if (group && group->kind != join.kind)
        return error_set(
            why, SHMQ_EINVAL,
            "group %s of topic %s: it is a %s group; join it as one, or choose another name",
            group->name, topic->options.name, group->kind == GROUP_STREAM ? "stream" : "shared");
    if (!group) {
        rc = group_create(topic, &join, &group, why);
        created = rc == 0;
    }
    if (rc == 0)
        rc = group_add_member(group, &join, &member, why);
    if (rc < 0)
        return rc;
    reply = command_begin(command, sizeof(*reply));
    topic_fill_info(topic, &reply->topic);
    reply->group = group->id;
    reply->gate = group->gate;
    reply->member = member;
    reply->created = created;
    reply->standby = !group_owns(group, member);
    return 0;
}

/* By ids, or by names where the ids are 0. */
static int find_group(struct command *command, struct group **ret_group, struct error_buffer *why)
{
    const struct protocol_group_request *request = command->request;
    struct topic *topic;
    struct group *group;
    int rc = request->topic != 0
                 ? command_find_topic_id(command, request->topic, &topic, why)
                 : command_find_topic(command, "", request->topic_name, &topic, why);

    if (rc < 0)
        return rc;
    if (request->group != 0) {
        group = group_find_id(topic, request->group);
        if (!group)
            return error_set(why, SHMQ_ENOGROUP,
                             "group with id %" PRIu64 " of topic %s: deleted; join it anew",
                             request->group, topic->options.name);
    } else {
        group = group_find(topic, request->group_name);
        if (!group)
            return error_set(
                why, SHMQ_ENOGROUP,
                "group %s of topic %s: there is none; a consumer makes it, or mend the name",
                request->group_name, topic->options.name);
    }
    *ret_group = group;
    return 0;
}

int command_group_leave(struct command *command, struct error_buffer *why)
{
    const struct protocol_group_request *request = command->request;
    struct group *group;
    int rc = find_group(command, &group, why);

    if (rc < 0)
        return rc;
    if (group->members[request->member].client != command->peer->client->facts.id)
        return error_set(why, SHMQ_EINVAL,
                         "group %s of topic %s: member %" PRIu32 " is not of this connection",
                         group->name, group->topic->options.name, request->member);
    group_remove_member(group, request->member);
    (void)command_begin(command, sizeof(struct protocol_header));
    return 0;
}

static bool is_member(const struct group *group, uint64_t client)
{
    for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
        if (group->members[m].client == client)
            return true;
    }
    return false;
}

int command_group_segment(struct command *command, struct error_buffer *why)
{
    const struct protocol_group_request *request = command->request;
    char name[SEGMENT_NAME_BYTES];
    struct group *group;
    bool member;
    int rc = find_group(command, &group, why);

    if (rc < 0)
        return rc;
    if (request->gate != group->gate || request->partition >= group->segment_count)
        return error_set(why, SHMQ_EINVAL,
                         "group %s of topic %s: it has no gate %" PRIu32 " in partition %" PRIu32,
                         group->name, group->topic->options.name, request->gate,
                         request->partition);
    if (group->topic->partitions[request->partition].quarantined)
        return error_set(why, SHMQ_ECORRUPT,
                         "topic %s/%" PRIu32 ": it is quarantined; run `shmq doctor`",
                         group->topic->options.name, request->partition);
    member = is_member(group, command->peer->client->facts.id);
    (void)segment_name(name, command->realm->prefix, SEGMENT_GROUP, group->topic->id,
                       request->partition, group->gate);
    rc = segment_open(name, member, &command->fds[0], why);
    if (rc == SHMQ_ENOTOPIC) /* the group is there, its memory is not */
        rc = error_set(why, SHMQ_ECORRUPT,
                       "group %s of topic %s: somebody has removed its memory %s; delete the group",
                       group->name, group->topic->options.name, name);
    if (rc < 0)
        return rc;
    command->fd_count = 1;
    (void)command_begin(command, sizeof(struct protocol_header));
    return 0;
}

int command_group_delete(struct command *command, struct error_buffer *why)
{
    const struct protocol_group_request *request = command->request;
    struct group *group;
    int rc = find_group(command, &group, why);

    if (rc == 0)
        rc = permission_check(command->realm, command->peer, PERMISSION_CONFIGURE, group->topic,
                              why);
    if (rc < 0)
        return rc;
    if (group->member_count > 0 && !(request->flags & GROUP_FORCE))
        return error_set(why, SHMQ_EBUSY,
                         "group %s of topic %s: it has %" PRIu32 " members; close them first",
                         group->name, group->topic->options.name, group->member_count);
    rc = group_delete(group, why);
    if (rc == 0)
        (void)command_begin(command, sizeof(struct protocol_header));
    return rc;
}
