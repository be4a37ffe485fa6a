/* SPDX-License-Identifier: Apache-2.0 */
/* command_list.c: lists, paged so that each fits a reply; see command.h. */
#include "daemon/command.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/peer.h"
#include "daemon/topic.h"
#include "libshmq/clock.h"

#include <inttypes.h>
#include <string.h>

#define ROOM_BEHIND(type) (PROTOCOL_BYTES_MAX - sizeof(type))

static struct protocol_list_reply *begin_list(struct command *command)
{
    return command_begin(command, sizeof(struct protocol_list_reply));
}

/* Adds an element. False: the page is full. */
static bool add_element(struct command *command, const void *element, size_t bytes)
{
    if (command->reply_bytes + bytes > PROTOCOL_BYTES_MAX)
        return false;
    memcpy((unsigned char *)command->reply + command->reply_bytes, element, bytes);
    command->reply_bytes += (uint32_t)bytes;
    command->reply_count++;
    return true;
}

static int collect(const struct command *command, struct registry_entry ***ret_entries,
                   uint32_t *ret_count, struct error_buffer *why)
{
    *ret_entries = registry_collect(&command->realm->registry, ret_count);
    return *ret_entries ? 0 : error_set(why, SHMQ_ENOMEM, "shmqd: out of memory for a list");
}

static struct topic *topic_of(struct registry_entry *entry)
{
    return CONTAINER_OF(entry, struct topic, entry);
}

/* ---- topics, partitions ---------------------------------------------------------------------- */

int command_topic_list(struct command *command, struct error_buffer *why)
{
    const struct protocol_list_request *request = command->request;
    struct protocol_list_reply *reply = begin_list(command);
    struct registry_entry **entries;
    uint32_t count;
    int rc = collect(command, &entries, &count, why);

    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        struct protocol_topic_info info;

        if (strcmp(entries[i]->name, request->after) <= 0)
            continue;
        topic_fill_info(topic_of(entries[i]), &info);
        if (!add_element(command, &info, sizeof(info))) {
            reply->more = 1;
            break;
        }
    }
    free(entries);
    return rc;
}

int command_partition_list(struct command *command, struct error_buffer *why)
{
    const struct protocol_list_request *request = command->request;
    struct protocol_list_reply *reply = begin_list(command);
    struct topic *topic;
    int rc = command_find_topic(command, request->vhost, request->name, &topic, why);

    for (uint64_t i = request->after_id; rc == 0 && i < topic->partition_count; i++) {
        struct protocol_partition_info info;

        rc = partition_describe(&topic->partitions[i], &info, why);
        if (rc == 0 && !add_element(command, &info, sizeof(info))) {
            reply->more = 1;
            break;
        }
    }
    return rc;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static void fill_group_info(struct group *group, struct protocol_group_info *info)
{
    struct topic *topic = group->topic;

    *info = (struct protocol_group_info){
        .id = group->id,
        .topic = topic->id,
        .linger_left_ns = UINT64_MAX,
        .kind = group->kind,
        .state = group->state,
        .gate = group->gate,
        .member_count = group->member_count,
        .partitions = group->segment_count,
    };
    memcpy(info->topic_name, topic->options.name, sizeof(info->topic_name));
    memcpy(info->name, group->name, sizeof(info->name));
    if (loop_timer_is_set(&group->linger))
        info->linger_left_ns = deadline_left_ns(group->linger.deadline_ns);
    for (uint32_t i = 0; i < group->segment_count; i++) {
        struct protocol_group_partition part;

        if (group_describe_partition(group, &topic->partitions[i], &part) == 0)
            info->lag_bytes += part.lag_bytes;
    }
}

static int compare_groups(const void *a, const void *b)
{
    const struct group *const *left = a, *const *right = b;

    return (*left)->id < (*right)->id ? -1 : (*left)->id > (*right)->id;
}

/* Groups with an id above `after`, of one topic or of all, by id. */
static struct group **collect_groups(const struct command *command, const struct topic *only,
                                     uint64_t after, uint32_t *ret_count)
{
    struct group **groups = calloc(command->realm->group_count + 1u, sizeof(void *));
    struct registry_entry **entries = NULL;
    uint32_t topics = 0, count = 0;

    if (groups)
        entries = registry_collect(&command->realm->registry, &topics);
    if (!entries) {
        free(groups);
        return NULL;
    }
    for (uint32_t i = 0; i < topics; i++) {
        const struct topic *topic = topic_of(entries[i]);

        for (uint32_t gate = 0; gate < GATES_MAX && (!only || topic == only); gate++) {
            if (topic->groups[gate] && topic->groups[gate]->id > after)
                groups[count++] = topic->groups[gate];
        }
    }
    free(entries);
    qsort(groups, count, sizeof(void *), compare_groups);
    *ret_count = count;
    return groups;
}

int command_group_list(struct command *command, struct error_buffer *why)
{
    const struct protocol_list_request *request = command->request;
    struct protocol_list_reply *reply = begin_list(command);
    struct topic *only = NULL;
    struct group **groups;
    uint32_t count;
    int rc = request->name[0] == '\0'
                 ? 0
                 : command_find_topic(command, request->vhost, request->name, &only, why);

    if (rc < 0)
        return rc;
    groups = collect_groups(command, only, request->after_id, &count);
    if (!groups)
        return error_set(why, SHMQ_ENOMEM, "shmqd: out of memory for a list");
    for (uint32_t i = 0; i < count; i++) {
        struct protocol_group_info info;

        /* Asked first: its lag is read from all partitions. */
        if (command->reply_bytes + sizeof(info) > PROTOCOL_BYTES_MAX) {
            reply->more = 1;
            break;
        }
        fill_group_info(groups[i], &info);
        (void)add_element(command, &info, sizeof(info));
    }
    free(groups);
    return 0;
}

int command_group_describe(struct command *command, struct error_buffer *why)
{
    const struct protocol_group_request *request = command->request;
    struct protocol_group_reply *reply;
    struct topic *topic;
    struct group *group;
    int rc = request->topic != 0
                 ? command_find_topic_id(command, request->topic, &topic, why)
                 : command_find_topic(command, "", request->topic_name, &topic, why);

    if (rc < 0)
        return rc;
    group = request->group != 0 ? group_find_id(topic, request->group)
                                : group_find(topic, request->group_name);
    if (!group)
        return error_set(why, SHMQ_ENOGROUP, "group %s of topic %s: there is none",
                         request->group_name, topic->options.name);
    reply = command_begin(command, sizeof(*reply));
    fill_group_info(group, &reply->info);
    for (uint32_t i = request->partition; i < group->segment_count; i++) {
        struct protocol_group_partition part = {.partition = i};

        (void)group_describe_partition(group, &topic->partitions[i], &part);
        if (!add_element(command, &part, sizeof(part)))
            break;
    }
    return 0;
}

/* ---- clients --------------------------------------------------------------------------------- */

static int compare_clients(const void *a, const void *b)
{
    const struct protocol_client_info *left = a, *right = b;

    return left->id < right->id ? -1 : left->id > right->id;
}

static struct protocol_client_info *collect_clients(const struct command *command, uint64_t after,
                                                    uint32_t *ret_count)
{
    const struct clients *clients = &command->realm->clients;
    struct protocol_client_info *infos = calloc(clients->count + 1u, sizeof(infos[0]));
    uint32_t count = 0;

    for (const struct client *client = clients->first; infos && client; client = client->next) {
        struct protocol_client_info info = {
            .id = client->facts.id,
            .connected_ns = client->facts.connected_ns,
            .uid = client->facts.uid,
            .pid = client->facts.pid,
            .slots = client->slots,
            .memberships = client->memberships,
            .absent = client->peer == NULL,
        };

        if (info.id <= after)
            continue;
        memcpy(info.command, client->facts.command, sizeof(info.command));
        infos[count++] = info;
    }
    if (infos)
        qsort(infos, count, sizeof(infos[0]), compare_clients);
    *ret_count = count;
    return infos;
}

/* What the clients of one page own, and how far they are behind. */
static void count_owned(struct group *group, struct protocol_client_info *infos, uint32_t count)
{
    for (uint32_t i = 0; i < group->segment_count && group->member_count > 0; i++) {
        struct protocol_client_info *info;
        struct protocol_client_info key = {.id = CLIENT_NONE};
        struct protocol_group_partition part;

        if (group_describe_partition(group, &group->topic->partitions[i], &part) < 0 ||
            part.owner == CLIENT_NONE)
            continue;
        key.id = part.owner;
        info = bsearch(&key, infos, count, sizeof(infos[0]), compare_clients);
        if (!info)
            continue;
        info->owned++;
        info->holds_bytes = max_u64(info->holds_bytes, part.lag_bytes);
    }
}

int command_client_list(struct command *command, struct error_buffer *why)
{
    const struct protocol_list_request *request = command->request;
    struct protocol_list_reply *reply = begin_list(command);
    struct protocol_client_info *infos;
    struct group **groups;
    uint32_t count, group_count, fits;

    infos = collect_clients(command, request->after_id, &count);
    groups = infos ? collect_groups(command, NULL, 0, &group_count) : NULL;
    if (!groups) {
        free(infos);
        return error_set(why, SHMQ_ENOMEM, "shmqd: out of memory for a list");
    }
    fits = (uint32_t)(ROOM_BEHIND(struct protocol_list_reply) / sizeof(infos[0]));
    reply->more = count > fits;
    count = min_u32(count, fits);
    for (uint32_t i = 0; i < group_count && count > 0; i++)
        count_owned(groups[i], infos, count);
    for (uint32_t i = 0; i < count; i++)
        (void)add_element(command, &infos[i], sizeof(infos[i]));
    free(groups);
    free(infos);
    return 0;
}
