/* SPDX-License-Identifier: Apache-2.0 */
/* shmq client: list, describe. */
#include <inttypes.h>
#include <pwd.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/nouns.h"
#include "tools/outbuf.h"
#include "tools/table.h"

static const char *client_role(const struct shmq_client_info *c)
{
    if (c->producers > 0 && c->groups > 0)
        return "both";
    if (c->producers > 0)
        return "producer";
    return c->groups > 0 ? "consumer" : "control";
}

static const char *client_user(uint32_t uid, char text[40])
{
    const struct passwd *user = getpwuid((uid_t)uid);

    if (user)
        (void)snprintf(text, 40, "%s", user->pw_name);
    else
        (void)snprintf(text, 40, "%" PRIu32, uid);
    return text;
}

static const char *client_age(const struct shmq_client_info *c, char text[UNITS_TEXT_BYTES])
{
    uint64_t now_ns = clock_realtime_ns();

    return units_show_duration(now_ns > c->connected_ns ? now_ns - c->connected_ns : 0, text);
}

static void json_client(struct json *json, const struct shmq_client_info *c)
{
    char user[40];

    json_number(json, "id", c->id);
    json_number(json, "pid", c->pid);
    json_number(json, "uid", c->uid);
    json_string(json, "user", client_user(c->uid, user));
    json_string(json, "command", c->command);
    json_string(json, "role", client_role(c));
    json_number(json, "producers", c->producers);
    json_number(json, "groups", c->groups);
    json_number(json, "owned_partitions", c->owned);
    json_number(json, "lag_bytes", c->lag_bytes);
    json_boolean(json, "absent", c->absent != 0);
    json_time(json, "connected", c->connected_ns);
}

static int list_clients(struct cli *cli)
{
    static const char *const heads[] = {">ID",   ">PID", "USER",   "COMMAND", "ROLE",
                                        ">OWNS", ">LAG", ">SINCE", "STATE",   NULL};
    struct shmq_client_info *clients = NULL;
    struct outbuf out = {0};
    struct table table;
    struct json json;
    char text[UNITS_TEXT_BYTES];
    char user[40];
    int rc = cli_connect(cli);
    int count;

    if (rc != CLI_OK)
        return rc;
    count = tool_list_clients(cli->connection, &clients);
    if (count < 0)
        return cli_fail_library(cli, count);
    json_init(&json, &out);
    json_array_begin(&json, NULL);
    table_init(&table, heads);
    for (int i = 0; i < count; i++) {
        const struct shmq_client_info *c = &clients[i];

        json_object_begin(&json, NULL);
        json_client(&json, c);
        json_object_end(&json);
        if (cli->quiet && !cli->json)
            printf("%" PRIu64 "\n", c->id);
        table_cell(&table, "%" PRIu64, c->id);
        table_cell(&table, "%" PRIu32, c->pid);
        table_cell(&table, "%s", client_user(c->uid, user));
        table_cell(&table, "%.16s", c->command);
        table_cell(&table, "%s", client_role(c));
        table_cell(&table, "%" PRIu32, c->owned);
        table_cell(&table, "%s", units_show_size(c->lag_bytes, text));
        table_cell(&table, "%s", client_age(c, text));
        table_cell(&table, "%s", c->absent ? "absent" : "connected");
    }
    json_array_end(&json);
    if (cli->json)
        tool_print(&out);
    else if (!cli->quiet)
        table_print(&table, cli, 0);
    outbuf_free(&out);
    table_free(&table);
    free(clients);
    return CLI_OK;
}

/* ---- describe --------------------------------------------------------------------------------- */

/* One thing that a client has: a partition that it reads, or one that it holds up. */
struct client_thing {
    const char *kind; /* "reads", "blocks" */
    char topic[SHMQ_NAME_SIZE];
    char group[SHMQ_NAME_SIZE];
    uint32_t partition;
    uint64_t offset;
    uint64_t lag_bytes;
    const char *why;
};

struct client_things {
    struct client_thing *items;
    int count;
};

static struct client_thing *add_thing(struct client_things *things, const char *kind,
                                      const char *topic)
{
    struct client_thing *made;

    things->items =
        tool_realloc(things->items, ((size_t)things->count + 1) * sizeof(*things->items));
    made = &things->items[things->count++];
    *made = (struct client_thing){.kind = kind, .why = ""};
    (void)snprintf(made->topic, sizeof(made->topic), "%s", topic);
    return made;
}

/* A topic or group may vanish between two calls: that is no error here. */
static int ignore_vanished(int rc)
{
    return rc == SHMQ_ENOTOPIC || rc == SHMQ_ENOGROUP ? 0 : rc;
}

static int find_owned(struct cli *cli, uint64_t id, struct client_things *things)
{
    struct shmq_group_info *groups = NULL;
    int count = tool_list_groups(cli->connection, NULL, &groups);
    int rc = count;

    for (int i = 0; i < count && rc >= 0; i++) {
        struct shmq_group_partition *partitions = NULL;
        int partition_count = tool_list_group_partitions(cli->connection, groups[i].topic,
                                                         groups[i].name, &partitions);

        for (int k = 0; k < partition_count; k++) {
            struct client_thing *thing;

            if (partitions[k].owner != id)
                continue;
            thing = add_thing(things, "reads", groups[i].topic);
            (void)snprintf(thing->group, sizeof(thing->group), "%s", groups[i].name);
            thing->partition = partitions[k].partition;
            thing->offset = partitions[k].committed_offset;
            thing->lag_bytes = partitions[k].lag_bytes;
        }
        free(partitions);
        rc = ignore_vanished(partition_count);
    }
    free(groups);
    return rc < 0 ? rc : 0;
}

static int find_blocked(struct cli *cli, uint64_t id, struct client_things *things)
{
    struct shmq_topic_info *topics = NULL;
    int count = tool_list_topics(cli->connection, &topics);
    int rc = count;

    for (int i = 0; i < count && rc >= 0; i++) {
        struct shmq_partition_info *partitions = NULL;
        int partition_count = tool_list_partitions(cli->connection, topics[i].name, &partitions);

        for (int k = 0; k < partition_count; k++) {
            struct client_thing *thing;

            if (partitions[k].blocked_client != id ||
                partitions[k].blocked_by == SHMQ_BLOCKED_BY_NOTHING)
                continue;
            thing = add_thing(things, "blocks", topics[i].name);
            thing->partition = partitions[k].partition;
            thing->offset = partitions[k].blocked_offset;
            thing->why = tool_blocked_by_word(partitions[k].blocked_by);
        }
        free(partitions);
        rc = ignore_vanished(partition_count);
    }
    free(topics);
    return rc < 0 ? rc : 0;
}

static void print_client_json(const struct shmq_client_info *c, const struct client_things *things)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_client(&json, c);
    json_array_begin(&json, "holds");
    for (int i = 0; i < things->count; i++) {
        const struct client_thing *t = &things->items[i];

        json_object_begin(&json, NULL);
        json_string(&json, "kind", t->kind);
        json_string(&json, "topic", t->topic);
        json_number(&json, "partition", t->partition);
        json_number(&json, "offset", t->offset);
        if (*t->group) {
            json_string(&json, "group", t->group);
            json_number(&json, "lag_bytes", t->lag_bytes);
        }
        if (*t->why)
            json_string(&json, "why", t->why);
        json_object_end(&json);
    }
    json_array_end(&json);
    json_object_end(&json);
    tool_print(&out);
}

static void print_client(const struct cli *cli, const struct shmq_client_info *c,
                         const struct client_things *things)
{
    char text[UNITS_TEXT_BYTES];
    char user[40];
    char time[32];

    printf("%sclient %" PRIu64 "%s\n", cli_bold(cli), c->id, cli_plain(cli));
    printf("  process    pid %" PRIu32 ", %.16s, user %s\n", c->pid, c->command,
           client_user(c->uid, user));
    printf("  connected  %s, %s ago%s\n", text_iso_time(c->connected_ns, time), client_age(c, text),
           c->absent ? "; has not come back to this supervisor yet" : "");
    printf("  publishes  to %" PRIu32 " %s\n", c->producers,
           cli_plural(c->producers, "partition", "partitions"));
    printf("  consumes   %" PRIu32 " %s as a member of %" PRIu32 " %s\n", c->owned,
           cli_plural(c->owned, "partition", "partitions"), c->groups,
           cli_plural(c->groups, "group", "groups"));
    for (int i = 0; i < things->count; i++) {
        const struct client_thing *t = &things->items[i];

        if (*t->why)
            printf("  %sblocks     %s/%" PRIu32 " at offset %" PRIu64 ": its %s%s\n", cli_red(cli),
                   t->topic, t->partition, t->offset, t->why, cli_plain(cli));
        else
            printf("  reads      %s/%" PRIu32 " for group %s, committed up to %" PRIu64
                   ", %s behind\n",
                   t->topic, t->partition, t->group, t->offset,
                   units_show_size(t->lag_bytes, text));
    }
}

static int describe_client(struct cli *cli)
{
    struct shmq_client_info *clients = NULL;
    const struct shmq_client_info *found = NULL;
    struct client_things things = {0};
    struct error_buffer why;
    uint64_t id;
    int error;
    int count;
    int rc;

    if (units_parse_count(cli->operands[0], 1, UINT64_MAX, &id, &why) < 0)
        return cli_usage(cli, "'%.40s' is no client's number; see shmq client list",
                         cli->operands[0]);
    rc = cli_connect(cli);
    if (rc != CLI_OK)
        return rc;
    count = tool_list_clients(cli->connection, &clients);
    for (int i = 0; i < count; i++) {
        if (clients[i].id == id)
            found = &clients[i];
    }
    error = count;
    if (error >= 0 && found)
        error = find_owned(cli, id, &things);
    if (error >= 0 && found)
        error = find_blocked(cli, id, &things);
    if (error < 0)
        rc = cli_fail_library(cli, error);
    else if (!found)
        rc = cli_fail(CLI_FAILED,
                      "client %" PRIu64 ": not connected; see who is with: shmq client list", id);
    else if (cli->json)
        print_client_json(found, &things);
    else
        print_client(cli, found, &things);
    free(things.items);
    free(clients);
    return rc;
}

const struct cli_command TOOL_CLIENT[] = {
    {"client", "list", "", 0, 0, "Lists who is connected: process, user, role, lag.",
     "OWNS is the number of partitions that the client consumes; LAG the largest among them. "
     "An absent client lives, but has not come back to a restarted supervisor yet.",
     "  shmq client list\n"
     "  shmq --json client list | jq '.[] | select(.lag_bytes > 1000000)'\n",
     NULL, list_clients},
    {"client", "describe", "ID", 1, 1, "Shows one client, what it reads and what it holds up.",
     NULL, "  shmq client describe 7\n", NULL, describe_client},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
