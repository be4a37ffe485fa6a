/* SPDX-License-Identifier: Apache-2.0 */
/* shmq topic: create, list, describe, alter, delete, purge. */
#include <inttypes.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/nouns.h"
#include "tools/outbuf.h"
#include "tools/table.h"
#include "tools/topic_show.h"

static struct {
    uint64_t partitions, ring, max_message, producers, durable, overflow, timestamps, linger;
    uint64_t sync_interval, retain_bytes, retain_time;
    bool if_not_exists, if_exists;
} args = {
    .partitions = CLI_UNSET,
    .ring = CLI_UNSET,
    .max_message = CLI_UNSET,
    .linger = CLI_UNSET,
    .sync_interval = CLI_UNSET,
    .retain_bytes = CLI_UNSET,
    .retain_time = CLI_UNSET,
};

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
#define OPTION_SYNC_INTERVAL(text) \
    { \
        0, "sync-interval", "DUR", text, CLI_DURATION, &args.sync_interval, NULL, 0, 0 \
    }
#define OPTION_RETAIN_BYTES(text) \
    { \
        0, "retain-bytes", "SIZE", text, CLI_SIZE, &args.retain_bytes, NULL, 0, 0 \
    }
#define OPTION_RETAIN_TIME(text) \
    { \
        0, "retain-time", "DUR", text, CLI_LINGER, &args.retain_time, NULL, 0, 0 \
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
     "when the ring is full: block the producer (default), reject the message, drop-old messages, "
     "read or not; or spill: durable topics alone, slow groups catch up from the journal",
     CLI_CHOICE, &args.overflow, "block|reject|drop-old|spill", 0, 0},
    {0, "durable", "MODE",
     "keep a journal on disk: none (default): messages live in memory until read or overwritten; os: they "
     "survive all processes; interval: also the host, but for the last --sync-interval; always: the host, "
     "from their confirm on",
     CLI_CHOICE, &args.durable, "none|os|interval|always", 0, 0},
    OPTION_SYNC_INTERVAL(
        "with --durable interval: at most so long until messages are on disk (100ms)"),
    OPTION_RETAIN_BYTES("keep at most so much of each partition's journal, 1M or more (no bound)"),
    OPTION_RETAIN_TIME(
        "keep messages in the journal at least so long, then drop their file (no bound)"),
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
    OPTION_SYNC_INTERVAL("of --durable interval: at most so long until messages are on disk"),
    OPTION_RETAIN_BYTES("keep at most so much of each partition's journal; 0: no bound any more"),
    OPTION_RETAIN_TIME("keep messages in the journal at least so long; 0: no bound any more"),
    OPTIONS_END,
};

static const struct cli_option delete_options[] = {
    {0, "if-exists", NULL, "success if there is no such topic", CLI_FLAG, &args.if_exists, NULL, 0,
     0},
    OPTIONS_END,
};

/* ---- Commands --------------------------------------------------------------------------------- */

/* 0 is no bound, which the library takes for "not given". */
static void fill_journal(struct shmq_topic_options *options)
{
    if (args.sync_interval != CLI_UNSET)
        options->sync_interval_ms = args.sync_interval / NS_PER_MS;
    if (args.retain_bytes != CLI_UNSET)
        options->retain_bytes = args.retain_bytes ? args.retain_bytes : SHMQ_RETAIN_UNBOUNDED;
    if (args.retain_time == 0 || args.retain_time == UNITS_FOREVER)
        options->retain_ms = SHMQ_RETAIN_UNBOUNDED;
    else if (args.retain_time != CLI_UNSET)
        options->retain_ms = args.retain_time / NS_PER_MS;
}

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
    if (args.sync_interval < NS_PER_MS)
        return cli_usage(cli, "--sync-interval: from 1ms to 1h");
    if (args.retain_time > 0 && args.retain_time < NS_PER_MS)
        return cli_usage(cli, "--retain-time: 1ms is the shortest; 0 for no bound");
    if (args.linger == UNITS_FOREVER)
        options->group_linger_ms = SHMQ_LINGER_FOREVER;
    else if (args.linger != CLI_UNSET)
        options->group_linger_ms = args.linger / NS_PER_MS;
    fill_journal(options);
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
        return topic_print_json(cli, name);
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
    if (!options.partitions && !options.group_linger_ms && !options.max_message &&
        !options.sync_interval_ms && !options.retain_bytes && !options.retain_ms)
        return cli_usage(cli, "nothing to change: give --partitions, --group-linger, "
                              "--max-message, --sync-interval, --retain-bytes or --retain-time");
    rc = cli_connect(cli);
    if (rc != CLI_OK)
        return rc;
    rc = shmq_topic_alter(cli->connection, name, &options);
    if (rc < 0)
        return cli_fail_library(cli, rc);
    if (cli->json)
        return topic_print_json(cli, name);
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
        topic_json(&json, t);
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

/* The rest of it; 0 or a shmq error. */
static int ask_whole(struct cli *cli, const char *name, struct topic_whole *whole)
{
    struct shmq_bus_info bus = {.pid = 0};
    int rc = shmq_topic_describe(cli->connection, name, &whole->info);

    if (rc >= 0)
        rc = whole->partition_count =
            tool_list_partitions(cli->connection, name, &whole->partitions);
    if (rc >= 0)
        rc = whole->group_count = tool_list_groups(cli->connection, name, &whole->groups);
    if (rc >= 0)
        rc = shmq_bus_describe(cli->connection, &bus);
    memcpy(whole->state_dir, bus.state_dir, sizeof(whole->state_dir));
    return rc;
}

static int describe_topic(struct cli *cli)
{
    struct topic_whole whole = {.partition_count = 0};
    int rc = cli_connect(cli);

    if (rc != CLI_OK)
        return rc;
    rc = ask_whole(cli, cli->operands[0], &whole);
    if (rc < 0) {
        rc = cli_fail_library(cli, rc);
    } else {
        rc = CLI_OK;
        if (cli->json)
            topic_print_whole_json(&whole);
        else
            topic_print_whole(cli, &whole);
    }
    free(whole.partitions);
    free(whole.groups);
    return rc;
}

static int finish_change(struct cli *cli, int rc, const char *done)
{
    if (rc < 0)
        return cli_fail_library(cli, rc);
    if (cli->json)
        topic_print_done_json(done, cli->operands[0]);
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
     "  shmq topic create files --max-message 4M                   takes a ring of 64M\n"
     "  shmq topic create payments --durable always --retain-time 30d\n"
     "  shmq topic create events --durable interval --overflow spill --retain-bytes 10G\n",
     create_options, create_topic},
    {"topic", "list", "", 0, 0, "Lists the topics.", NULL,
     "  shmq topic list\n"
     "  shmq -q topic list                                         names only\n"
     "  shmq --json topic list | jq -r '.[] | select(.quarantined > 0).name'\n",
     NULL, list_topics},
    {"topic", "describe", "NAME", 1, 1, "Shows a topic, its partitions and its groups.",
     "BLOCKED BY names what holds a full ring back: a group that has not committed further, a "
     "hold (a member still looks at a message), a claim (a producer that has begun a message "
     "and not ended it), with its offset and client, or the journal: what is not safe on disk "
     "stays in the ring.\n\n"
     "Of a durable topic the second table says up to which offset messages are safe, how much is not "
     "yet, what is on disk, and why it does not get on.",
     "  shmq topic describe orders\n", NULL, describe_topic},
    {"topic", "alter", "NAME", 1, 1, "Changes a topic while everything runs.",
     "Partitions can be added, not taken away. Afterwards a key may belong to another partition: "
     "its order is kept only among messages published from then on. Retention goes by whole "
     "files, the oldest first; whether the topic is durable cannot be changed.",
     "  shmq topic alter orders -p 8\n"
     "  shmq topic alter orders --group-linger forever\n"
     "  shmq topic alter events --retain-bytes 20G --retain-time 0\n",
     alter_options, alter_topic},
    {"topic", "delete", "NAME", 1, 1, "Deletes a topic and all that is in it.",
     "Its producers and consumers are told. It does not ask.",
     "  shmq topic delete orders\n"
     "  shmq topic delete orders --if-exists\n",
     delete_options, delete_topic},
    {"topic", "purge", "NAME", 1, 1, "Makes every group skip what is in the topic now.",
     "Messages that are being processed are not recalled. What a durable topic has on disk goes, "
     "too, but for the file that is being written.",
     "  shmq topic purge orders\n", NULL, purge_topic},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
