/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin_group.c: the public calls about groups and clients; see admin.c.
 */
#include <string.h>

#include "libshmq/admin.h"
#include "libshmq/clock.h"
#include "libshmq/cursor.h"

_Static_assert((int)ROOM_FREE == (int)SHMQ_BLOCKED_BY_NOTHING &&
                   (int)ROOM_CURSOR == (int)SHMQ_BLOCKED_BY_GROUP &&
                   (int)ROOM_HOLD == (int)SHMQ_BLOCKED_BY_HOLD &&
                   (int)ROOM_CLAIM == (int)SHMQ_BLOCKED_BY_CLAIM &&
                   (int)ROOM_DURABLE == (int)SHMQ_BLOCKED_BY_JOURNAL,
               "enum room_holder is public under other names");

/* ---- groups ---------------------------------------------------------------------------------- */

static int show_listed_group(const void *element, struct admin_list *list)
{
    struct protocol_group_info from;
    struct shmq_group_info info = {.id = 0};

    memcpy(&from, element, sizeof(from));
    from.topic_name[NAME_BYTES - 1] = '\0';
    from.name[NAME_BYTES - 1] = '\0';
    memcpy(info.topic, from.topic_name, sizeof(info.topic));
    memcpy(info.name, from.name, sizeof(info.name));
    info.id = from.id;
    info.lag_bytes = from.lag_bytes;
    info.linger_left_ms =
        from.linger_left_ns == UINT64_MAX ? UINT64_MAX : from.linger_left_ns / NS_PER_MS;
    info.state = from.state;
    info.member_count = from.member_count;
    info.partitions = from.partitions;
    list->request.after_id = from.id;
    return list->fn.group(&info, list->context);
}

int shmq_group_list(shmq_connection *c, const char *topic, shmq_group_fn fn, void *context)
{
    struct admin_list list = {
        .type = PROTOCOL_GROUP_LIST,
        .element_bytes = sizeof(struct protocol_group_info),
        .element = show_listed_group,
        .fn.group = fn,
        .context = context,
    };
    struct error_buffer *why;
    int rc = admin_begin(c, &why);

    if (rc == 0 && topic)
        rc = admin_copy_name(list.request.name, topic, "topic", why);
    if (rc == 0 && !fn)
        rc = error_set(why, SHMQ_EINVAL, "group list: fn is NULL");
    return rc < 0 ? rc : admin_list(c, &list, why);
}

static struct shmq_group_partition show_partition(const void *element)
{
    struct protocol_group_partition from;
    struct shmq_group_partition info;

    memcpy(&from, element, sizeof(from));
    info = (struct shmq_group_partition){
        .partition = from.partition,
        .generation = from.generation,
        .committed_offset = from.cursor,
        .lag_bytes = from.lag_bytes,
        .lost_bytes = from.lost_bytes,
        .messages = from.records,
        .owner = from.owner,
        .owner_pid = from.owner_pid,
    };
    memcpy(info.owner_command, from.owner_command, sizeof(info.owner_command));
    info.owner_command[sizeof(info.owner_command) - 1] = '\0';
    return info;
}

static int begin_group_request(struct shmq_connection *c, enum protocol_type type,
                               const char *topic, const char *group,
                               struct protocol_group_request *request,
                               struct error_buffer **ret_why)
{
    int rc = admin_begin(c, ret_why);

    protocol_begin(&request->header, type, sizeof(*request));
    if (rc == 0)
        rc = admin_copy_name(request->topic_name, topic, "topic", *ret_why);
    if (rc == 0)
        rc = admin_copy_name(request->group_name, group, "group", *ret_why);
    return rc;
}

int shmq_group_describe(shmq_connection *c, const char *topic, const char *group,
                        shmq_group_partition_fn fn, void *context)
{
    struct protocol_group_request request = {.partition = 0};
    struct protocol_group_reply *page = NULL;
    struct error_buffer *why;
    int rc = begin_group_request(c, PROTOCOL_GROUP_DESCRIBE, topic, group, &request, &why);
    uint32_t partitions = 1;

    if (rc == 0 && !fn)
        rc = error_set(why, SHMQ_EINVAL, "group describe: fn is NULL");
    if (rc < 0)
        return rc;
    page = malloc(PROTOCOL_BYTES_MAX);
    if (!page)
        return error_set(why, SHMQ_ENOMEM, "group describe: no memory for a page");
    while (rc == 0 && request.partition < partitions) {
        rc = admin_ask_list(c, &request.header, page, sizeof(*page),
                            sizeof(struct protocol_group_partition), why);
        if (rc < 0 || page->header.count == 0)
            break;
        partitions = min_u32(page->info.partitions, PARTITIONS_MAX);
        for (uint32_t i = 0; rc == 0 && i < page->header.count; i++) {
            struct shmq_group_partition info = show_partition(&page->partitions[i]);

            rc = fn(&info, context);
        }
        /* By count, not by what an element says: this ends. */
        request.partition += page->header.count;
    }
    free(page);
    return rc;
}

int shmq_group_delete(shmq_connection *c, const char *topic, const char *group)
{
    struct protocol_group_request request = {.partition = 0};
    struct protocol_header reply;
    struct error_buffer *why;
    int rc = begin_group_request(c, PROTOCOL_GROUP_DELETE, topic, group, &request, &why);

    return rc < 0 ? rc : admin_ask(c, &request.header, &reply, sizeof(reply), why);
}

/* ---- clients --------------------------------------------------------------------------------- */

static int show_listed_client(const void *element, struct admin_list *list)
{
    struct protocol_client_info from;
    struct shmq_client_info info;

    memcpy(&from, element, sizeof(from));
    info = (struct shmq_client_info){
        .id = from.id,
        .connected_ns = from.connected_ns,
        .uid = from.uid,
        .pid = from.pid,
        .producers = from.slots,
        .groups = from.memberships,
        .owned = from.owned,
        .absent = from.absent,
        .lag_bytes = from.holds_bytes,
    };
    memcpy(info.command, from.command, sizeof(info.command));
    info.command[sizeof(info.command) - 1] = '\0';
    list->request.after_id = from.id;
    return list->fn.client(&info, list->context);
}

int shmq_client_list(shmq_connection *c, shmq_client_fn fn, void *context)
{
    struct admin_list list = {
        .type = PROTOCOL_CLIENT_LIST,
        .element_bytes = sizeof(struct protocol_client_info),
        .element = show_listed_client,
        .fn.client = fn,
        .context = context,
    };
    struct error_buffer *why;
    int rc = admin_begin(c, &why);

    if (rc == 0 && !fn)
        rc = error_set(why, SHMQ_EINVAL, "client list: fn is NULL");
    return rc < 0 ? rc : admin_list(c, &list, why);
}
