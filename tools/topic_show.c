/* SPDX-License-Identifier: Apache-2.0 */
/* See topic_show.h. */
#include "tools/topic_show.h"

#include <inttypes.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/disk_remedy.h"
#include "tools/nouns.h"
#include "tools/outbuf.h"
#include "tools/table.h"

/* null: no bound. */
static void json_bound(struct json *json, const char *key, uint64_t bound)
{
    if (bound == 0)
        json_null(json, key);
    else
        json_number(json, key, bound);
}

void topic_json(struct json *json, const struct shmq_topic_info *info)
{
    json_string(json, "name", info->name);
    json_number(json, "id", info->id);
    json_number(json, "partitions", info->partitions);
    json_number(json, "ring_bytes", info->ring_bytes);
    json_number(json, "max_message_bytes", info->max_message);
    json_string(json, "overflow", tool_overflow_word(info->overflow));
    json_string(json, "producers", tool_producers_word(info->producers));
    json_string(json, "durable", tool_durability_word(info->durability));
    json_string(json, "timestamps", tool_timestamps_word(info->timestamps));
    if (info->group_linger_ms == SHMQ_LINGER_FOREVER)
        json_null(json, "group_linger_ms");
    else
        json_number(json, "group_linger_ms", info->group_linger_ms);
    if (info->durability == SHMQ_DURABLE_INTERVAL)
        json_number(json, "sync_interval_ms", info->sync_interval_ms);
    else
        json_null(json, "sync_interval_ms");
    json_bound(json, "retain_bytes", info->retain_bytes);
    json_bound(json, "retain_ms", info->retain_ms);
    json_time(json, "created", info->created_ns);
    json_number(json, "owner_uid", info->owner_uid);
    json_number(json, "shm_bytes", info->shm_bytes);
    json_number(json, "group_count", info->group_count);
    json_number(json, "producer_count", info->producer_count);
    json_number(json, "consumer_count", info->consumer_count);
    json_number(json, "quarantined", info->quarantined);
}

int topic_print_json(struct cli *cli, const char *name)
{
    struct shmq_topic_info info;
    struct outbuf out = {0};
    struct json json;
    int rc = shmq_topic_describe(cli->connection, name, &info);

    if (rc < 0)
        return cli_fail_library(cli, rc);
    json_init(&json, &out);
    json_object_begin(&json, NULL);
    topic_json(&json, &info);
    json_object_end(&json);
    tool_print(&out);
    return CLI_OK;
}

void topic_print_done_json(const char *what, const char *name)
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

static bool has_journal(const struct shmq_partition_info *p)
{
    return p->durable_offset != UINT64_MAX;
}

static void json_journal(struct json *json, const struct shmq_partition_info *p)
{
    if (!has_journal(p)) {
        json_null(json, "journal");
        return;
    }
    json_object_begin(json, "journal");
    json_number(json, "durable_offset", p->durable_offset);
    json_number(json, "first_offset", p->journal_first);
    json_number(json, "files", p->journal_files);
    json_number(json, "bytes", p->journal_bytes);
    if (p->journal_error == 0)
        json_null(json, "error");
    else
        json_string(json, "error", disk_error_text(p->journal_error));
    json_object_end(json);
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
    json_journal(json, p);
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

static void print_durability(const struct shmq_topic_info *t)
{
    char size[UNITS_TEXT_BYTES];
    char time[UNITS_TEXT_BYTES];

    printf("  durable       %s", tool_durability_word(t->durability));
    if (t->durability == SHMQ_DURABLE_INTERVAL)
        printf(", synced every %s", units_format_duration(t->sync_interval_ms * NS_PER_MS, time));
    putchar('\n');
    if (t->durability == SHMQ_DURABLE_NONE)
        return;
    printf("  retention     ");
    if (t->retain_bytes == 0 && t->retain_ms == 0)
        printf("none: journals grow until the topic is purged or deleted");
    if (t->retain_bytes > 0)
        printf("%s each", units_format_size(t->retain_bytes, size));
    if (t->retain_ms > 0)
        printf("%s%s", t->retain_bytes > 0 ? ", and " : "",
               units_format_duration(t->retain_ms * NS_PER_MS, time));
    putchar('\n');
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
    print_durability(t);
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

/* How far each partition is safe, and what lies on disk. */
static void print_journals(const struct cli *cli, const struct topic_whole *whole)
{
    static const char *const heads[] = {">JOURNAL", ">DURABLE", ">NOT YET", ">OLDEST",
                                        ">FILES",   ">BYTES",   "STATUS",   NULL};
    char text[UNITS_TEXT_BYTES];
    char remedy[DISK_REMEDY_BYTES];
    struct table table;
    uint32_t error = 0;

    table_init(&table, heads);
    for (int i = 0; i < whole->partition_count; i++) {
        const struct shmq_partition_info *p = &whole->partitions[i];
        uint64_t unsafe = p->tail_offset - min_u64(p->durable_offset, p->tail_offset);

        table_cell(&table, "%" PRIu32, p->partition);
        table_cell(&table, "%" PRIu64, p->durable_offset);
        table_cell(&table, "%s", units_show_size(unsafe, text));
        table_cell(&table, "%" PRIu64, p->journal_first);
        table_cell(&table, "%" PRIu32, p->journal_files);
        table_cell(&table, "%s", units_show_size(p->journal_bytes, text));
        table_cell(&table, "%s", p->journal_error ? disk_error_text(p->journal_error) : "ok");
        error = p->journal_error ? p->journal_error : error;
    }
    putchar('\n');
    table_print(&table, cli, 0);
    table_free(&table);
    if (error)
        printf(
            "\n%sNothing more becomes durable%s; once the ring is full nothing can be published. To do: %s; "
            "the journal goes on by itself then.\n",
            cli_red(cli), cli_plain(cli),
            disk_remedy(error, whole->state_dir, whole->info.name, remedy));
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

void topic_print_whole(const struct cli *cli, const struct topic_whole *whole)
{
    print_topic_head(cli, &whole->info);
    print_partitions(cli, whole->partitions, whole->partition_count);
    if (whole->info.durability != SHMQ_DURABLE_NONE)
        print_journals(cli, whole);
    print_groups(cli, whole->groups, whole->group_count);
}

void topic_print_whole_json(const struct topic_whole *whole)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    topic_json(&json, &whole->info);
    json_array_begin(&json, "partition_list");
    for (int i = 0; i < whole->partition_count; i++)
        json_partition(&json, &whole->partitions[i]);
    json_array_end(&json);
    json_groups(&json, whole->groups, whole->group_count);
    json_object_end(&json);
    tool_print(&out);
}
