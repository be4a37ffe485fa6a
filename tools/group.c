/* SPDX-License-Identifier: Apache-2.0 */
/* shmq group: list, describe, delete. */
#include <inttypes.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/nouns.h"
#include "tools/outbuf.h"
#include "tools/table.h"

static void json_group(struct json *json, const struct shmq_group_info *g)
{
    json_string(json, "topic", g->topic);
    json_string(json, "name", g->name);
    json_number(json, "id", g->id);
    json_string(json, "state", tool_group_state_word(g->state));
    json_number(json, "members", g->member_count);
    json_number(json, "partitions", g->partitions);
    json_number(json, "lag_bytes", g->lag_bytes);
    if (g->linger_left_ms == UINT64_MAX)
        json_null(json, "linger_left_ms");
    else
        json_number(json, "linger_left_ms", g->linger_left_ms);
}

static const char *show_linger_left(const struct shmq_group_info *g, char text[UNITS_TEXT_BYTES])
{
    if (g->linger_left_ms == UINT64_MAX)
        return "-";
    return units_show_duration(g->linger_left_ms * NS_PER_MS, text);
}

static int list_groups(struct cli *cli)
{
    static const char *const heads[] = {"TOPIC", "GROUP",        "STATE", ">MEMBERS",
                                        ">LAG",  ">LINGER LEFT", NULL};
    struct shmq_group_info *groups = NULL;
    struct outbuf out = {0};
    struct table table;
    struct json json;
    char text[UNITS_TEXT_BYTES];
    int rc = cli_connect(cli);
    int count;

    if (rc != CLI_OK)
        return rc;
    count = tool_list_groups(cli->connection, cli->operands[0], &groups);
    if (count < 0)
        return cli_fail_library(cli, count);
    json_init(&json, &out);
    json_array_begin(&json, NULL);
    table_init(&table, heads);
    for (int i = 0; i < count; i++) {
        json_object_begin(&json, NULL);
        json_group(&json, &groups[i]);
        json_object_end(&json);
        /* Alone the group's name; of several topics both. */
        if (cli->quiet && !cli->json)
            printf("%s%s%s\n", cli->operands[0] ? "" : groups[i].topic, cli->operands[0] ? "" : " ",
                   groups[i].name);
        table_cell(&table, "%s", groups[i].topic);
        table_cell(&table, "%s", groups[i].name);
        table_cell(&table, "%s", tool_group_state_word(groups[i].state));
        table_cell(&table, "%" PRIu32, groups[i].member_count);
        table_cell(&table, "%s", units_show_size(groups[i].lag_bytes, text));
        table_cell(&table, "%s", show_linger_left(&groups[i], text));
    }
    json_array_end(&json);
    if (cli->json)
        tool_print(&out);
    else if (!cli->quiet)
        table_print(&table, cli, 0);
    if (count == 0 && !cli->json)
        cli_note(cli, "groups: there are none; the first consumer makes one: shmq sub %s -g NAME",
                 cli->operands[0] ? cli->operands[0] : "TOPIC");
    outbuf_free(&out);
    table_free(&table);
    free(groups);
    return CLI_OK;
}

static void print_group_json(const struct shmq_group_info *info,
                             const struct shmq_group_partition *partitions, int count)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_group(&json, info);
    json_array_begin(&json, "partition_list");
    for (int i = 0; i < count; i++) {
        const struct shmq_group_partition *p = &partitions[i];

        json_object_begin(&json, NULL);
        json_number(&json, "partition", p->partition);
        json_number(&json, "committed_offset", p->committed_offset);
        json_number(&json, "lag_bytes", p->lag_bytes);
        json_number(&json, "lost_bytes", p->lost_bytes);
        json_number(&json, "messages", p->messages);
        json_number(&json, "generation", p->generation);
        if (p->owner == 0) {
            json_null(&json, "owner");
        } else {
            json_number(&json, "owner", p->owner);
            json_number(&json, "owner_pid", p->owner_pid);
            json_string(&json, "owner_command", p->owner_command);
        }
        json_object_end(&json);
    }
    json_array_end(&json);
    json_object_end(&json);
    tool_print(&out);
}

static void print_group(const struct cli *cli, const struct shmq_group_info *info,
                        const struct shmq_group_partition *partitions, int count)
{
    static const char *const heads[] = {">PARTITION", ">COMMITTED", ">LAG", ">LOST",
                                        ">MESSAGES",  "OWNER",      NULL};
    char text[UNITS_TEXT_BYTES];
    struct table table;

    printf("%s%s%s of topic %s: %s, %" PRIu32 " %s", cli_bold(cli), info->name, cli_plain(cli),
           info->topic, tool_group_state_word(info->state), info->member_count,
           cli_plural(info->member_count, "member", "members"));
    if (info->linger_left_ms != UINT64_MAX)
        printf(", holds producers back for %s more", show_linger_left(info, text));
    printf("\n\n");
    table_init(&table, heads);
    for (int i = 0; i < count; i++) {
        const struct shmq_group_partition *p = &partitions[i];

        table_cell(&table, "%" PRIu32, p->partition);
        table_cell(&table, "%" PRIu64, p->committed_offset);
        table_cell(&table, "%s", units_show_size(p->lag_bytes, text));
        table_cell(&table, "%s", units_show_size(p->lost_bytes, text));
        table_cell(&table, "%" PRIu64, p->messages);
        if (p->owner == 0)
            table_cell(&table, "nobody");
        else
            table_cell(&table, "client %" PRIu64 " (pid %" PRIu32 ", %.16s)", p->owner,
                       p->owner_pid, p->owner_command);
    }
    table_print(&table, cli, 0);
    table_free(&table);
}

static const struct shmq_group_info *find_group(const struct shmq_group_info *groups, int count,
                                                const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(groups[i].name, name) == 0)
            return &groups[i];
    }
    return NULL;
}

static int describe_group(struct cli *cli)
{
    const char *topic = cli->operands[0];
    const char *name = cli->operands[1];
    struct shmq_group_partition *partitions = NULL;
    struct shmq_group_info *groups = NULL;
    const struct shmq_group_info *info;
    int partition_count;
    int group_count;
    int rc = cli_connect(cli);

    if (rc != CLI_OK)
        return rc;
    partition_count = tool_list_group_partitions(cli->connection, topic, name, &partitions);
    if (partition_count < 0)
        return cli_fail_library(cli, partition_count);
    group_count = tool_list_groups(cli->connection, topic, &groups);
    info = group_count < 0 ? NULL : find_group(groups, group_count, name);
    if (group_count < 0)
        rc = cli_fail_library(cli, group_count);
    else if (!info)
        rc = cli_fail(CLI_FAILED, "group '%s' of '%s': it was deleted just now; nothing to show",
                      name, topic);
    else if (cli->json)
        print_group_json(info, partitions, partition_count);
    else
        print_group(cli, info, partitions, partition_count);
    free(partitions);
    free(groups);
    return rc;
}

static int delete_group(struct cli *cli)
{
    int rc = cli_connect(cli);
    struct outbuf out = {0};
    struct json json;

    if (rc != CLI_OK)
        return rc;
    rc = shmq_group_delete(cli->connection, cli->operands[0], cli->operands[1]);
    if (rc < 0)
        return cli_fail_library(cli, rc);
    if (cli->json) {
        json_init(&json, &out);
        json_object_begin(&json, NULL);
        json_string(&json, "topic", cli->operands[0]);
        json_string(&json, "deleted", cli->operands[1]);
        json_object_end(&json);
        tool_print(&out);
    } else if (!cli->quiet) {
        printf("group %s of topic %s: deleted\n", cli->operands[1], cli->operands[0]);
    }
    return CLI_OK;
}

const struct cli_command TOOL_GROUP[] = {
    {"group", "list", "[TOPIC]", 0, 1, "Lists the consumer groups of a topic, or of all.",
     "LAG is what the group has not committed, in bytes with record headers. A group without "
     "members holds producers back until its linger time is over; then it is idle and may lose "
     "messages when the ring comes round.",
     "  shmq group list\n"
     "  shmq group list orders\n",
     NULL, list_groups},
    {"group", "describe", "TOPIC GROUP", 2, 2,
     "Shows where a group stands in each partition, and who reads it.", NULL,
     "  shmq group describe orders billing\n", NULL, describe_group},
    {"group", "delete", "TOPIC GROUP", 2, 2, "Deletes a group that has no members.",
     "What it had not read is not kept for it any more; producers that waited for it go on at "
     "once.",
     "  shmq group delete orders billing\n", NULL, delete_group},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
