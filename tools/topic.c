/* SPDX-License-Identifier: Apache-2.0 */
/* shmq topic: create, list, describe, alter, delete, purge. */
#include <inttypes.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/nouns.h"
#include "tools/outbuf.h"
#include "tools/table.h"

static struct {
    uint64_t partitions, ring, max_message, producers, durable, overflow, timestamps, linger;
    bool if_not_exists, if_exists;
} args = {CLI_UNSET, CLI_UNSET, CLI_UNSET, 0, 0, 0, 0, CLI_UNSET, false, false};

#define OPTION_PARTITIONS(text) \
    { \
        'p', "partitions", "N", text, CLI_COUNT, &args.partitions, NULL, 1, 1024 \
    }
#define OPTION_LINGER(text) \
    { \
        0, "group-linger", "DUR", text, CLI_LINGER, &args.linger, NULL, 0, 0 \
    }
#define OPTION_MAX_MESSAGE(text) \
    { \
        0, "max-message", "SIZE", text, CLI_SIZE, &args.max_message, NULL, 0, 0 \
    }
#define OPTIONS_END \
    { \
        0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0 \
    }

static const struct cli_option create_options[] = {
    OPTION_PARTITIONS("partitions, 1-1024 (1): each keeps its own order and has its own ring"),
    {0, "ring", "SIZE",
     "bytes of each partition's ring, a power of two from 64K (1M, or 8 x --max-message)", CLI_SIZE,
     &args.ring, NULL, 0, 0},
    OPTION_MAX_MESSAGE("largest message, key and headers included (an eighth of the ring less 32)"),
    {0, "producers", "KIND", "multi (default), or single: one producer at a time, a little faster",
     CLI_CHOICE, &args.producers, "multi|single", 0, 0},
    {0, "overflow", "POLICY",
     "when the ring is full: block the producer (default), reject the message, or drop-old "
     "messages, read or not",
     CLI_CHOICE, &args.overflow, "block|reject|drop-old|spill", 0, 0},
    {0, "durable", "MODE", "none: messages live in memory until read or overwritten (default)",
     CLI_CHOICE, &args.durable, "none|os|interval|always", 0, 0},
    OPTION_LINGER("how long a group without members still holds producers back (5m), or forever"),
    {0, "timestamps", "KIND", "coarse: as of the kernel's last tick (default); precise; or none",
     CLI_CHOICE, &args.timestamps, "coarse|none|precise", 0, 0},
    {0, "if-not-exists", NULL, "success if there is a topic of this name already", CLI_FLAG,
     &args.if_not_exists, NULL, 0, 0},
    OPTIONS_END,
};

static const struct cli_option alter_options[] = {
    OPTION_PARTITIONS("more partitions; a key's order is kept only from then on: keys move"),
    OPTION_LINGER("how long a group without members still holds producers back, or forever"),
    OPTION_MAX_MESSAGE("largest message, up to what the ring takes"),
    OPTIONS_END,
};

static const struct cli_option delete_options[] = {
    {0, "if-exists", NULL, "success if there is no such topic", CLI_FLAG, &args.if_exists, NULL, 0,
     0},
    OPTIONS_END,
};

/* ---- Printing --------------------------------------------------------------------------------- */

static void json_topic(struct json *json, const struct shmq_topic_info *t)
{
    json_string(json, "name", t->name);
    json_number(json, "id", t->id);
    json_number(json, "partitions", t->partitions);
    json_number(json, "ring_bytes", t->ring_bytes);
    json_number(json, "max_message_bytes", t->max_message);
    json_string(json, "overflow", tool_overflow_word(t->overflow));
    json_string(json, "producers", tool_producers_word(t->producers));
    json_string(json, "durable", tool_durability_word(t->durability));
    json_string(json, "timestamps", tool_timestamps_word(t->timestamps));
    if (t->group_linger_ms == SHMQ_LINGER_FOREVER)
        json_null(json, "group_linger_ms");
    else
        json_number(json, "group_linger_ms", t->group_linger_ms);
    json_time(json, "created", t->created_ns);
    json_number(json, "owner_uid", t->owner_uid);
    json_number(json, "shm_bytes", t->shm_bytes);
    json_number(json, "group_count", t->group_count);
    json_number(json, "producer_count", t->producer_count);
    json_number(json, "consumer_count", t->consumer_count);
    json_number(json, "quarantined", t->quarantined);
}

static int print_topic_json(struct cli *cli, const char *name)
{
    struct shmq_topic_info info;
    struct outbuf out = {0};
    struct json json;
    int rc = shmq_topic_describe(cli->connection, name, &info);

    if (rc < 0)
        return cli_fail_library(cli, rc);
    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_topic(&json, &info);
    json_object_end(&json);
    tool_print(&out);
    return CLI_OK;
}

static void print_done_json(const char *what, const char *name)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_string(&json, what, name);
    json_object_end(&json);
    tool_print(&out);
}

static const char *show_linger(uint64_t linger_ms, char text[UNITS_TEXT_BYTES])
{
    return units_format_duration(
        linger_ms == SHMQ_LINGER_FOREVER ? UNITS_FOREVER : linger_ms * NS_PER_MS, text);
}

static void json_partition(struct json *json, const struct shmq_partition_info *p)
{
    json_object_begin(json, NULL);
    json_number(json, "partition", p->partition);
    json_string(json, "status", tool_partition_status_word(p->status));
    json_number(json, "messages", p->messages);
    json_number(json, "first_offset", p->first_offset);
    json_number(json, "tail_offset", p->tail_offset);
    json_number(json, "producers", p->producer_count);
    if (p->blocked_by == SHMQ_BLOCKED_BY_NOTHING) {
        json_null(json, "blocked_by");
    } else {
        json_string(json, "blocked_by", tool_blocked_by_word(p->blocked_by));
        json_number(json, "blocked_offset", p->blocked_offset);
        json_number(json, "blocked_client", p->blocked_client);
    }
    json_object_end(json);
}

static void json_groups(struct json *json, const struct shmq_group_info *groups, int count)
{
    json_array_begin(json, "groups");
    for (int i = 0; i < count; i++) {
        json_object_begin(json, NULL);
        json_string(json, "name", groups[i].name);
        json_string(json, "state", tool_group_state_word(groups[i].state));
        json_number(json, "members", groups[i].member_count);
        json_number(json, "lag_bytes", groups[i].lag_bytes);
        json_object_end(json);
    }
    json_array_end(json);
}

static void print_topic_head(const struct cli *cli, const struct shmq_topic_info *t)
{
    char a[UNITS_TEXT_BYTES];
    char b[UNITS_TEXT_BYTES];
    char time[32];

    printf("%s%s%s\n", cli_bold(cli), t->name, cli_plain(cli));
    printf("  partitions    %" PRIu32 "\n", t->partitions);
    printf("  ring          %s each, %s of shared memory in all\n",
           units_format_size(t->ring_bytes, a), units_show_size(t->shm_bytes, b));
    printf("  max message   %" PRIu32 " bytes\n", t->max_message);
    printf("  overflow      %s\n", tool_overflow_word(t->overflow));
    printf("  producers     %s, %" PRIu32 " now\n", tool_producers_word(t->producers),
           t->producer_count);
    printf("  durable       %s\n", tool_durability_word(t->durability));
    printf("  timestamps    %s\n", tool_timestamps_word(t->timestamps));
    printf("  group linger  %s\n", show_linger(t->group_linger_ms, a));
    printf("  created       %s by uid %" PRIu32 "\n", text_iso_time(t->created_ns, time),
           t->owner_uid);
    if (t->quarantined > 0)
        printf("  %squarantined   %" PRIu32 " %s; see shmq doctor%s\n", cli_red(cli),
               t->quarantined, cli_plural(t->quarantined, "partition", "partitions"),
               cli_plain(cli));
}

static void print_partitions(const struct cli *cli, const struct shmq_partition_info *partitions,
                             int count)
{
    static const char *const heads[] = {">PARTITION", "STATUS",     ">MESSAGES",  ">FIRST",
                                        ">TAIL",      ">PRODUCERS", "BLOCKED BY", NULL};
    struct table table;

    table_init(&table, heads);
    for (int i = 0; i < count; i++) {
        const struct shmq_partition_info *p = &partitions[i];

        table_cell(&table, "%" PRIu32, p->partition);
        table_cell(&table, "%s", tool_partition_status_word(p->status));
        table_cell(&table, "%" PRIu64, p->messages);
        table_cell(&table, "%" PRIu64, p->first_offset);
        table_cell(&table, "%" PRIu64, p->tail_offset);
        table_cell(&table, "%" PRIu32, p->producer_count);
        if (p->blocked_by == SHMQ_BLOCKED_BY_NOTHING)
            table_cell(&table, "-");
        else if (p->blocked_client != 0)
            table_cell(&table, "%s at %" PRIu64 ", client %" PRIu64,
                       tool_blocked_by_word(p->blocked_by), p->blocked_offset, p->blocked_client);
        else
            table_cell(&table, "%s at %" PRIu64, tool_blocked_by_word(p->blocked_by),
                       p->blocked_offset);
    }
    putchar('\n');
    table_print(&table, cli, 0);
    table_free(&table);
}

static void print_groups(const struct cli *cli, const struct shmq_group_info *groups, int count)
{
    static const char *const heads[] = {"GROUP", "STATE", ">MEMBERS", ">LAG", NULL};
    char text[UNITS_TEXT_BYTES];
    struct table table;

    if (count == 0)
        return;
    table_init(&table, heads);
    for (int i = 0; i < count; i++) {
        table_cell(&table, "%s", groups[i].name);
        table_cell(&table, "%s", tool_group_state_word(groups[i].state));
        table_cell(&table, "%" PRIu32, groups[i].member_count);
        table_cell(&table, "%s", units_show_size(groups[i].lag_bytes, text));
    }
    putchar('\n');
    table_print(&table, cli, 0);
    table_free(&table);
}

/* ---- Commands --------------------------------------------------------------------------------- */

/* What was given, into the library's options. CLI_OK or CLI_USAGE. */
static int fill_options(const struct cli *cli, struct shmq_topic_options *options)
{
    if (args.partitions != CLI_UNSET)
        options->partitions = (uint32_t)args.partitions;
    if (args.ring == 0)
        return cli_usage(cli, "--ring: 0 is no size for a ring; give 64K or more");
    if (args.ring != CLI_UNSET)
        options->ring_bytes = args.ring;
    if (args.max_message == 0 || (args.max_message > UINT32_MAX && args.max_message != CLI_UNSET))
        return cli_usage(cli, "--max-message: from 1 byte up to 2G less 32");
    if (args.max_message != CLI_UNSET)
        options->max_message = (uint32_t)args.max_message;
    if (args.linger < NS_PER_MS)
        return cli_usage(cli, "--group-linger: 1ms is the shortest; or 'forever'");
    if (args.linger == UNITS_FOREVER)
        options->group_linger_ms = SHMQ_LINGER_FOREVER;
    else if (args.linger != CLI_UNSET)
        options->group_linger_ms = args.linger / NS_PER_MS;
    options->overflow = (uint32_t)args.overflow;
    options->producers = (uint32_t)args.producers;
    options->timestamps = (uint32_t)args.timestamps;
    options->durability = (uint32_t)args.durable;
    options->if_not_exists = args.if_not_exists;
    return CLI_OK;
}

static int create_topic(struct cli *cli)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    const char *name = cli->operands[0];
    int rc = fill_options(cli, &options);

    if (rc == CLI_OK)
        rc = cli_connect(cli);
    if (rc != CLI_OK)
        return rc;
    rc = shmq_topic_create(cli->connection, name, &options);
    if (rc < 0)
        return cli_fail_library(cli, rc);
    if (cli->json)
        return print_topic_json(cli, name);
    if (!cli->quiet)
        printf("topic %s: %s\n", name, args.if_not_exists ? "is there" : "created");
    return CLI_OK;
}

static int alter_topic(struct cli *cli)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    const char *name = cli->operands[0];
    int rc = fill_options(cli, &options);

    if (rc != CLI_OK)
        return rc;
    if (!options.partitions && !options.group_linger_ms && !options.max_message)
        return cli_usage(cli, "nothing to change: give --partitions, --group-linger or "
                              "--max-message");
    rc = cli_connect(cli);
    if (rc != CLI_OK)
        return rc;
    rc = shmq_topic_alter(cli->connection, name, &options);
    if (rc < 0)
        return cli_fail_library(cli, rc);
    if (cli->json)
        return print_topic_json(cli, name);
    if (!cli->quiet)
        printf("topic %s: altered\n", name);
    return CLI_OK;
}

static int list_topics(struct cli *cli)
{
    static const char *const heads[] = {"TOPIC",      ">PARTITIONS", ">RING",      "OVERFLOW",
                                        ">PRODUCERS", ">GROUPS",     ">CONSUMERS", ">MEMORY",
                                        "STATUS",     NULL};
    struct shmq_topic_info *topics = NULL;
    struct outbuf out = {0};
    struct table table;
    struct json json;
    char text[UNITS_TEXT_BYTES];
    int rc = cli_connect(cli);
    int count;

    if (rc != CLI_OK)
        return rc;
    count = tool_list_topics(cli->connection, &topics);
    if (count < 0)
        return cli_fail_library(cli, count);
    json_init(&json, &out);
    json_array_begin(&json, NULL);
    table_init(&table, heads);
    for (int i = 0; i < count; i++) {
        const struct shmq_topic_info *t = &topics[i];

        json_object_begin(&json, NULL);
        json_topic(&json, t);
        json_object_end(&json);
        if (cli->quiet && !cli->json)
            printf("%s\n", t->name);
        table_cell(&table, "%s", t->name);
        table_cell(&table, "%" PRIu32, t->partitions);
        table_cell(&table, "%s", units_format_size(t->ring_bytes, text));
        table_cell(&table, "%s", tool_overflow_word(t->overflow));
        table_cell(&table, "%" PRIu32, t->producer_count);
        table_cell(&table, "%" PRIu32, t->group_count);
        table_cell(&table, "%" PRIu32, t->consumer_count);
        table_cell(&table, "%s", units_show_size(t->shm_bytes, text));
        table_cell(&table, "%s", t->quarantined ? "quarantined" : "ok");
    }
    json_array_end(&json);
    if (cli->json)
        tool_print(&out);
    else if (!cli->quiet)
        table_print(&table, cli, 0);
    if (count == 0 && !cli->json)
        cli_note(cli, "topics: there are none yet; create one with: shmq topic create NAME");
    outbuf_free(&out);
    table_free(&table);
    free(topics);
    return CLI_OK;
}

static void print_topic_whole_json(const struct shmq_topic_info *info,
                                   const struct shmq_partition_info *partitions,
                                   int partition_count, const struct shmq_group_info *groups,
                                   int group_count)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_topic(&json, info);
    json_array_begin(&json, "partition_list");
    for (int i = 0; i < partition_count; i++)
        json_partition(&json, &partitions[i]);
    json_array_end(&json);
    json_groups(&json, groups, group_count);
    json_object_end(&json);
    tool_print(&out);
}

static int describe_topic(struct cli *cli)
{
    const char *name = cli->operands[0];
    struct shmq_topic_info info;
    struct shmq_partition_info *partitions = NULL;
    struct shmq_group_info *groups = NULL;
    int partition_count = 0;
    int group_count = 0;
    int rc = cli_connect(cli);

    if (rc != CLI_OK)
        return rc;
    rc = shmq_topic_describe(cli->connection, name, &info);
    if (rc >= 0)
        rc = partition_count = tool_list_partitions(cli->connection, name, &partitions);
    if (rc >= 0)
        rc = group_count = tool_list_groups(cli->connection, name, &groups);
    if (rc < 0) {
        rc = cli_fail_library(cli, rc);
    } else if (cli->json) {
        print_topic_whole_json(&info, partitions, partition_count, groups, group_count);
        rc = CLI_OK;
    } else {
        print_topic_head(cli, &info);
        print_partitions(cli, partitions, partition_count);
        print_groups(cli, groups, group_count);
        rc = CLI_OK;
    }
    free(partitions);
    free(groups);
    return rc;
}

static int finish_change(struct cli *cli, int rc, const char *done)
{
    if (rc < 0)
        return cli_fail_library(cli, rc);
    if (cli->json)
        print_done_json(done, cli->operands[0]);
    else if (!cli->quiet)
        printf("topic %s: %s\n", cli->operands[0], done);
    return CLI_OK;
}

static int delete_topic(struct cli *cli)
{
    int rc = cli_connect(cli);

    if (rc != CLI_OK)
        return rc;
    rc = shmq_topic_delete(cli->connection, cli->operands[0]);
    if (rc == SHMQ_ENOTOPIC && args.if_exists)
        return finish_change(cli, 0, "absent");
    return finish_change(cli, rc, "deleted");
}

static int purge_topic(struct cli *cli)
{
    int rc = cli_connect(cli);

    if (rc != CLI_OK)
        return rc;
    return finish_change(cli, shmq_topic_purge(cli->connection, cli->operands[0]), "purged");
}

const struct cli_command TOOL_TOPIC[] = {
    {"topic", "create", "NAME", 1, 1, "Creates a topic and reserves its memory.",
     "A message goes to one partition of its topic: by its key, if it has one, so that messages of "
     "one key keep their order; else to each in turn. The memory of all rings is reserved at once: "
     "PARTITIONS x RING bytes of /dev/shm.",
     "  shmq topic create orders\n"
     "  shmq topic create orders -p 4 --ring 16M --overflow reject\n"
     "  shmq topic create sensors --overflow drop-old --ring 64K   the latest data, always\n"
     "  shmq topic create files --max-message 4M                   takes a ring of 64M\n",
     create_options, create_topic},
    {"topic", "list", "", 0, 0, "Lists the topics.", NULL,
     "  shmq topic list\n"
     "  shmq -q topic list                                         names only\n"
     "  shmq --json topic list | jq -r '.[] | select(.quarantined > 0).name'\n",
     NULL, list_topics},
    {"topic", "describe", "NAME", 1, 1, "Shows a topic, its partitions and its groups.",
     "BLOCKED BY names what holds a full ring back: a group that has not committed further, a "
     "hold (a member still looks at a message), or a claim (a producer that has begun a message "
     "and not ended it), with its offset and client.",
     "  shmq topic describe orders\n", NULL, describe_topic},
    {"topic", "alter", "NAME", 1, 1, "Changes a topic while everything runs.",
     "Partitions can be added, not taken away. Afterwards a key may belong to another partition: "
     "its order is kept only among messages published from then on.",
     "  shmq topic alter orders -p 8\n"
     "  shmq topic alter orders --group-linger forever\n",
     alter_options, alter_topic},
    {"topic", "delete", "NAME", 1, 1, "Deletes a topic and all that is in it.",
     "Its producers and consumers are told. It does not ask.",
     "  shmq topic delete orders\n"
     "  shmq topic delete orders --if-exists\n",
     delete_options, delete_topic},
    {"topic", "purge", "NAME", 1, 1, "Makes every group skip what is in the topic now.",
     "Messages that are being processed are not recalled.", "  shmq topic purge orders\n", NULL,
     purge_topic},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
