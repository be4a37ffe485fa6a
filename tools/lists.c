/* SPDX-License-Identifier: Apache-2.0 */
/* The library's lists as arrays, and the words for its numbers; see nouns.h. */
#include <string.h>

#include "tools/nouns.h"
#include "tools/outbuf.h"

struct items {
    unsigned char *data;
    size_t item_bytes;
    size_t count;
};

static int add_item(struct items *items, const void *item)
{
    if ((items->count & (items->count + 1)) == 0)
        items->data = tool_realloc(items->data, (items->count + 1) * 2 * items->item_bytes);
    memcpy(items->data + items->count++ * items->item_bytes, item, items->item_bytes);
    return 0;
}

/* The count; items->data is then the caller's, never NULL. */
static int finish_items(struct items *items, int rc)
{
    if (rc < 0) {
        free(items->data);
        return rc;
    }
    if (!items->data)
        items->data = tool_alloc(items->item_bytes);
    return (int)items->count;
}

static int add_topic(const struct shmq_topic_info *info, void *context)
{
    return add_item(context, info);
}

int tool_list_topics(shmq_connection *connection, struct shmq_topic_info **ret_items)
{
    struct items items = {.item_bytes = sizeof(**ret_items)};
    int rc = finish_items(&items, shmq_topic_list(connection, add_topic, &items));

    if (rc >= 0)
        *ret_items = (void *)items.data;
    return rc;
}

static int add_partition(const struct shmq_partition_info *info, void *context)
{
    return add_item(context, info);
}

int tool_list_partitions(shmq_connection *connection, const char *topic,
                         struct shmq_partition_info **ret_items)
{
    struct items items = {.item_bytes = sizeof(**ret_items)};
    int rc = finish_items(&items, shmq_partition_list(connection, topic, add_partition, &items));

    if (rc >= 0)
        *ret_items = (void *)items.data;
    return rc;
}

static int add_group(const struct shmq_group_info *info, void *context)
{
    return add_item(context, info);
}

int tool_list_groups(shmq_connection *connection, const char *topic,
                     struct shmq_group_info **ret_items)
{
    struct items items = {.item_bytes = sizeof(**ret_items)};
    int rc = finish_items(&items, shmq_group_list(connection, topic, add_group, &items));

    if (rc >= 0)
        *ret_items = (void *)items.data;
    return rc;
}

static int add_group_partition(const struct shmq_group_partition *info, void *context)
{
    return add_item(context, info);
}

int tool_list_group_partitions(shmq_connection *connection, const char *topic, const char *group,
                               struct shmq_group_partition **ret_items)
{
    struct items items = {.item_bytes = sizeof(**ret_items)};
    int rc = finish_items(
        &items, shmq_group_describe(connection, topic, group, add_group_partition, &items));

    if (rc >= 0)
        *ret_items = (void *)items.data;
    return rc;
}

static int add_client(const struct shmq_client_info *info, void *context)
{
    return add_item(context, info);
}

int tool_list_clients(shmq_connection *connection, struct shmq_client_info **ret_items)
{
    struct items items = {.item_bytes = sizeof(**ret_items)};
    int rc = finish_items(&items, shmq_client_list(connection, add_client, &items));

    if (rc >= 0)
        *ret_items = (void *)items.data;
    return rc;
}

static const char *pick_word(const char *const *words, size_t count, uint32_t index)
{
    return index < count ? words[index] : "?";
}

#define PICK(index, ...) \
    pick_word((const char *const[]){__VA_ARGS__}, \
              sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), index)

const char *tool_overflow_word(uint32_t overflow)
{
    return PICK(overflow, "block", "reject", "drop-old", "spill");
}

const char *tool_producers_word(uint32_t producers)
{
    return PICK(producers, "multi", "single");
}

const char *tool_timestamps_word(uint32_t timestamps)
{
    return PICK(timestamps, "coarse", "none", "precise");
}

const char *tool_durability_word(uint32_t durability)
{
    return PICK(durability, "none", "os", "interval", "always");
}

const char *tool_partition_status_word(uint32_t status)
{
    return PICK(status, "open", "sealed", "deleted", "quarantined");
}

const char *tool_blocked_by_word(uint32_t blocked_by)
{
    return PICK(blocked_by, "nothing", "group", "hold", "claim", "journal");
}

const char *tool_group_state_word(uint32_t state)
{
    return PICK(state, "free", "gating", "idle", "deleted");
}

void tool_print(struct outbuf *out)
{
    (void)fwrite(out->data, 1, out->length, stdout); /* cli_finish() looks at ferror() */
    outbuf_free(out);
}
