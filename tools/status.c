/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq status: the bus at a glance. With a supervisor it is asked; without one its memory is read,
 * which its owner and root may.
 */
#include <inttypes.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/disk_remedy.h"
#include "tools/inspect.h"
#include "tools/nouns.h"
#include "tools/outbuf.h"
#include "tools/place.h"
#include "tools/table.h"

#define CONNECT_MS 3000 /* then its memory is read */

/* One topic, from either source. */
struct topic_line {
    char name[SHMQ_NAME_SIZE];
    uint32_t partitions, groups, members, quarantined;
    uint64_t messages, bytes;
    uint64_t lag_bytes; /* of the slowest group */
    uint32_t journals, journal_files;
    uint64_t journal_bytes;
};

/* A journal that does not get on. */
struct failing {
    char where[SHMQ_NAME_SIZE + 16];
    char topic[SHMQ_NAME_SIZE];
    uint32_t error;
};

struct overview {
    struct place place;
    struct place_memory memory;
    struct shmq_bus_info info; /* with a supervisor */
    bool supervised;
    bool silent;       /* it lives, but does not answer */
    uint32_t last_pid; /* of the one that is silent, or that ran last */
    uint32_t clients;
    uint64_t shm_bytes;
    struct topic_line *topics;
    uint32_t topic_count;
    struct failing *failing;
    uint32_t failing_count;
};

static struct topic_line *add_topic(struct overview *o, const char *name)
{
    struct topic_line *line;

    o->topics = tool_realloc(o->topics, (o->topic_count + 1) * sizeof(*o->topics));
    line = &o->topics[o->topic_count++];
    *line = (struct topic_line){0};
    (void)snprintf(line->name, sizeof(line->name), "%s", name);
    return line;
}

static void add_failing(struct overview *o, const char *topic, uint32_t partition, uint32_t error)
{
    struct failing *f;

    o->failing = tool_realloc(o->failing, (o->failing_count + 1) * sizeof(*o->failing));
    f = &o->failing[o->failing_count++];
    (void)snprintf(f->where, sizeof(f->where), "%.*s/%" PRIu32, SHMQ_NAME_SIZE - 1, topic,
                   partition);
    (void)snprintf(f->topic, sizeof(f->topic), "%s", topic);
    f->error = error;
}

/* ---- With a supervisor -------------------------------------------------------------------------- */

static int ask_partitions(struct cli *cli, struct overview *o, struct topic_line *line)
{
    struct shmq_partition_info *partitions = NULL;
    int count = tool_list_partitions(cli->connection, line->name, &partitions);

    for (int i = 0; i < count; i++) {
        const struct shmq_partition_info *p = &partitions[i];

        line->messages += p->messages;
        line->journals += p->durable_offset != UINT64_MAX;
        line->journal_files += p->journal_files;
        line->journal_bytes += p->journal_bytes;
        if (p->journal_error)
            add_failing(o, line->name, p->partition, p->journal_error);
    }
    free(partitions);
    return count == SHMQ_ENOTOPIC ? 0 : count; /* deleted just now */
}

static int ask_topics(struct cli *cli, struct overview *o)
{
    struct shmq_topic_info *topics = NULL;
    struct shmq_group_info *groups = NULL;
    int topic_count = tool_list_topics(cli->connection, &topics);
    int group_count =
        topic_count < 0 ? topic_count : tool_list_groups(cli->connection, NULL, &groups);
    int rc = group_count;

    for (int i = 0; i < topic_count && rc >= 0; i++) {
        struct topic_line *line = add_topic(o, topics[i].name);

        line->partitions = topics[i].partitions;
        line->groups = topics[i].group_count;
        line->members = topics[i].consumer_count;
        line->quarantined = topics[i].quarantined;
        line->bytes = topics[i].shm_bytes;
        for (int k = 0; k < group_count; k++) {
            if (strcmp(groups[k].topic, line->name) == 0)
                line->lag_bytes = max_u64(line->lag_bytes, groups[k].lag_bytes);
        }
        rc = ask_partitions(cli, o, line);
    }
    free(topics);
    free(groups);
    return rc < 0 ? rc : 0;
}

static int ask_supervisor(struct cli *cli, struct overview *o)
{
    int rc = shmq_bus_describe(cli->connection, &o->info);

    if (rc >= 0)
        rc = ask_topics(cli, o);
    if (rc < 0)
        return cli_fail_library(cli, rc);
    o->supervised = true;
    o->clients = o->info.clients;
    o->shm_bytes = o->info.shm_bytes;
    (void)snprintf(o->place.runtime_dir, sizeof(o->place.runtime_dir), "%s", o->info.runtime_dir);
    (void)snprintf(o->place.bus, sizeof(o->place.bus), "%s", o->info.bus);
    return CLI_OK;
}

/* ---- Without -------------------------------------------------------------------------------------- */

static void add_partition(struct overview *o, const struct inspect_partition *p,
                          uint64_t *last_topic)
{
    struct topic_line *line = o->topic_count > 0 ? &o->topics[o->topic_count - 1] : NULL;
    uint32_t members = 0;

    if (!line || *last_topic != p->topic)
        line = add_topic(o, p->name);
    *last_topic = p->topic;
    line->partitions++;
    line->quarantined += p->damage != NULL || p->status == PARTITION_QUARANTINED;
    line->bytes += p->bytes;
    line->messages += p->records;
    line->groups = p->gate_count > line->groups ? p->gate_count : line->groups;
    for (uint32_t i = 0; i < p->gate_count; i++) {
        members += p->gates[i].members;
        /* Of what is in memory; how much of the journal is not read the supervisor knows. */
        if (p->gates[i].readable && p->tail > p->gates[i].cursor)
            line->lag_bytes =
                max_u64(line->lag_bytes, p->tail - max_u64(p->gates[i].cursor, p->base));
    }
    line->journals += !p->damage && p->durable != UINT64_MAX;
    if (p->journal_error)
        add_failing(o, p->name, p->partition, p->journal_error);
    line->members = members > line->members ? members : line->members;
}

/* False: there is nothing to read. */
static bool read_memory(struct overview *o)
{
    struct inspect_bus bus;
    uint64_t last_topic = 0;

    if (!o->place.has_memory || !inspect_open(o->place.prefix, &bus))
        return false;
    if (bus.unreadable && bus.partition_count == 0 && !bus.has_bus) {
        inspect_free(&bus);
        return false;
    }
    o->last_pid = bus.supervisor_pid;
    o->silent = bus.supervisor_alive;
    o->clients = bus.live_clients;
    o->shm_bytes = bus.bytes;
    for (uint32_t i = 0; i < bus.partition_count; i++)
        add_partition(o, &bus.partitions[i], &last_topic);
    inspect_free(&bus);
    return true;
}

/* ---- Printing ------------------------------------------------------------------------------------- */

static const char *remedy_for(const struct overview *o, const struct failing *f,
                              char text[DISK_REMEDY_BYTES])
{
    return disk_remedy(f->error, o->supervised ? o->info.state_dir : "the bus's state directory",
                       f->topic, text);
}

static struct topic_line sum_journals(const struct overview *o)
{
    struct topic_line sum = {.journals = 0};

    for (uint32_t i = 0; i < o->topic_count; i++) {
        sum.journals += o->topics[i].journals;
        sum.journal_files += o->topics[i].journal_files;
        sum.journal_bytes += o->topics[i].journal_bytes;
    }
    return sum;
}

static void json_journals(struct json *json, const struct overview *o)
{
    struct topic_line sum = sum_journals(o);
    char remedy[DISK_REMEDY_BYTES];

    json_object_begin(json, "journals");
    json_number(json, "partitions", sum.journals);
    if (o->supervised) {
        json_number(json, "files", sum.journal_files);
        json_number(json, "bytes", sum.journal_bytes);
    } else {
        json_null(json, "files");
        json_null(json, "bytes");
    }
    json_array_begin(json, "failing");
    for (uint32_t i = 0; i < o->failing_count; i++) {
        json_object_begin(json, NULL);
        json_string(json, "partition", o->failing[i].where);
        json_string(json, "error", disk_error_text(o->failing[i].error));
        json_string(json, "remedy", remedy_for(o, &o->failing[i], remedy));
        json_object_end(json);
    }
    json_array_end(json);
    json_object_end(json);
}

static void print_json(const struct overview *o)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_string(&json, "bus", o->place.bus);
    json_string(&json, "runtime_dir", o->place.runtime_dir);
    if (o->supervised) {
        json_object_begin(&json, "supervisor");
        json_string(&json, "version", o->info.version);
        json_number(&json, "pid", o->info.pid);
        json_number(&json, "uid", o->info.uid);
        json_time(&json, "started", o->info.started_ns);
        json_number(&json, "incarnation", o->info.incarnation);
        json_boolean(&json, "ephemeral", o->info.ephemeral != 0);
        if (*o->info.state_dir)
            json_string(&json, "state_dir", o->info.state_dir);
        else
            json_null(&json, "state_dir");
        json_string(&json, "wait_mode", o->info.wait_mode == 2 ? "fence" : "membarrier");
        json_number(&json, "max_clients", o->info.max_clients);
        json_object_end(&json);
    } else {
        json_null(&json, "supervisor");
    }
    json_boolean(&json, "answers", o->supervised);
    json_number(&json, "clients", o->clients);
    json_number(&json, "shm_bytes", o->shm_bytes);
    json_number(&json, "dev_shm_total_bytes", o->memory.total_bytes);
    json_number(&json, "dev_shm_free_bytes", o->memory.free_bytes);
    json_journals(&json, o);
    json_array_begin(&json, "topics");
    for (uint32_t i = 0; i < o->topic_count; i++) {
        const struct topic_line *t = &o->topics[i];

        json_object_begin(&json, NULL);
        json_string(&json, "name", t->name);
        json_number(&json, "partitions", t->partitions);
        json_number(&json, "quarantined", t->quarantined);
        json_number(&json, "messages", t->messages);
        json_number(&json, "groups", t->groups);
        json_number(&json, "consumers", t->members);
        json_number(&json, "lag_bytes", t->lag_bytes);
        json_number(&json, "shm_bytes", t->bytes);
        if (o->supervised && t->journals > 0)
            json_number(&json, "journal_bytes", t->journal_bytes);
        else
            json_null(&json, "journal_bytes");
        json_object_end(&json);
    }
    json_array_end(&json);
    json_object_end(&json);
    tool_print(&out);
}

static void print_supervisor(const struct cli *cli, const struct overview *o)
{
    char command[PATHS_DIR_BYTES + 300];
    char text[UNITS_TEXT_BYTES];
    uint64_t now_ns = clock_realtime_ns();

    if (o->silent) {
        printf("supervisor  pid %" PRIu32 " %sdoes not answer%s; see shmq doctor\n", o->last_pid,
               cli_red(cli), cli_plain(cli));
        return;
    }
    if (!o->supervised) {
        printf("supervisor  %snone runs%s (the last was pid %" PRIu32
               "); clients go on without it; start it: %s\n",
               cli_red(cli), cli_plain(cli), o->last_pid, place_start_command(&o->place, command));
        return;
    }
    printf("supervisor  shmqd %s, pid %" PRIu32 ", up %s, incarnation %" PRIu64 "\n",
           o->info.version, o->info.pid,
           units_show_duration(now_ns > o->info.started_ns ? now_ns - o->info.started_ns : 0, text),
           o->info.incarnation);
    if (o->info.ephemeral)
        printf("state       none: ephemeral, all goes when the supervisor stops\n");
    else
        printf("state       %s\n", o->info.state_dir);
}

/* Nothing where no topic is durable. */
static void print_journals(const struct cli *cli, const struct overview *o)
{
    struct topic_line sum = sum_journals(o);
    char text[UNITS_TEXT_BYTES];
    char remedy[DISK_REMEDY_BYTES];

    if (sum.journals == 0)
        return;
    printf("journals    %" PRIu32 " %s", sum.journals,
           cli_plural(sum.journals, "partition", "partitions"));
    if (o->supervised)
        printf(", %" PRIu32 " %s, %s on disk", sum.journal_files,
               cli_plural(sum.journal_files, "file", "files"),
               units_show_size(sum.journal_bytes, text));
    else
        printf("; nothing becomes durable without a supervisor");
    putchar('\n');
    for (uint32_t i = 0; i < o->failing_count; i++)
        printf("            %s%s: %s%s: %s; it goes on by itself then\n", cli_red(cli),
               o->failing[i].where, disk_error_text(o->failing[i].error), cli_plain(cli),
               remedy_for(o, &o->failing[i], remedy));
}

static const char *topic_status(const struct overview *o, const struct topic_line *t)
{
    if (t->quarantined)
        return "quarantined";
    for (uint32_t i = 0; i < o->failing_count; i++) {
        if (strcmp(o->failing[i].topic, t->name) == 0)
            return "journal fails";
    }
    return "ok";
}

static void print_text(const struct cli *cli, const struct overview *o)
{
    static const char *const heads[] = {"TOPIC",      ">PARTITIONS", ">MESSAGES", ">GROUPS",
                                        ">CONSUMERS", ">LAG",        ">MEMORY",   ">JOURNAL",
                                        "STATUS",     NULL};
    char a[UNITS_TEXT_BYTES];
    char b[UNITS_TEXT_BYTES];
    char c[UNITS_TEXT_BYTES];
    struct table table;

    printf("bus         %s%s%s in %s\n", cli_bold(cli), o->place.bus, cli_plain(cli),
           o->place.runtime_dir);
    print_supervisor(cli, o);
    printf("clients     %" PRIu32, o->clients);
    if (o->supervised)
        printf(" of at most %" PRIu32, o->info.max_clients);
    printf("\nmemory      %s; /dev/shm has %s free of %s\n", units_show_size(o->shm_bytes, a),
           units_show_size(o->memory.free_bytes, b), units_show_size(o->memory.total_bytes, c));
    table_init(&table, heads);
    for (uint32_t i = 0; i < o->topic_count; i++) {
        const struct topic_line *t = &o->topics[i];

        table_cell(&table, "%s", t->name);
        table_cell(&table, "%" PRIu32, t->partitions);
        table_cell(&table, "%" PRIu64, t->messages);
        table_cell(&table, "%" PRIu32, t->groups);
        table_cell(&table, "%" PRIu32, t->members);
        table_cell(&table, "%s", units_show_size(t->lag_bytes, a));
        table_cell(&table, "%s", units_show_size(t->bytes, b));
        table_cell(&table, "%s",
                   t->journals > 0 && o->supervised ? units_show_size(t->journal_bytes, a) : "-");
        table_cell(&table, "%s", topic_status(o, t));
    }
    print_journals(cli, o);
    printf("topics      %" PRIu32 "%s", o->topic_count, o->topic_count ? "\n\n" : "\n");
    table_print(&table, cli, 0);
    table_free(&table);
}

static int run_status(struct cli *cli)
{
    struct overview o = {0};
    int rc = place_find(cli, &o.place);
    int error;

    if (rc != CLI_OK)
        return rc;
    (void)place_memory(&o.memory);
    error = cli_try_connect(cli, CONNECT_MS);
    if (error == 0)
        rc = ask_supervisor(cli, &o);
    else if ((error != SHMQ_ENOBUS && error != SHMQ_ETIMEOUT) || !read_memory(&o))
        rc = cli_fail_library(cli, error);
    if (rc == CLI_OK && cli->json)
        print_json(&o);
    else if (rc == CLI_OK && !cli->quiet)
        print_text(cli, &o);
    free(o.topics);
    free(o.failing);
    return rc;
}

const struct cli_command TOOL_STATUS[] = {
    {"status", NULL, "", 0, 0, "Shows the bus at a glance.",
     "Without a running supervisor the bus's memory is read by name, which its owner and root may; "
     "that no supervisor runs is said then, and the exit code is still 0. LAG is that of the "
     "slowest group, JOURNAL what a durable topic has on disk. A journal that does not get on is named "
     "with the reason and what to do. With neither, the exit code is 5. What does not move and why: "
     "shmq doctor.",
     "  shmq status\n"
     "  shmq -b other --json status | jq .supervisor.pid\n",
     NULL, run_status},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
