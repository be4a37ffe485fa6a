/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What PATH or TOPIC means; see journal.h. A word with a slash is a path; any other is a topic, looked for
 * below the state directory of the bus, and a path only if there is no such topic.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/journal.h"

#define CONNECT_MS 1000 /* to ask where the state is; then it is looked for where it usually is */

struct names {
    char **items;
    size_t count;
};

static void add_name(struct names *names, const char *name)
{
    names->items = tool_realloc(names->items, (names->count + 1) * sizeof(names->items[0]));
    names->items[names->count++] = tool_strdup(name);
}

static void free_names(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
    *names = (struct names){0};
}

/* "2" before "10". */
static int compare_names(const void *a, const void *b)
{
    const char *first = *(char *const *)a;
    const char *second = *(char *const *)b;
    size_t length = strlen(first);
    size_t other = strlen(second);

    return length != other ? (length < other ? -1 : 1) : strcmp(first, second);
}

typedef bool name_filter(const char *name, const void *context);

/* Names in a directory that pass; none if it is not there. */
static void list_names(const char *directory, name_filter *filter, const void *context,
                       struct names *ret_names)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;

    *ret_names = (struct names){0};
    while (dir && (entry = readdir(dir)) != NULL) {
        if (filter(entry->d_name, context))
            add_name(ret_names, entry->d_name);
    }
    if (dir)
        (void)closedir(dir);
    if (ret_names->count)
        qsort(ret_names->items, ret_names->count, sizeof(ret_names->items[0]), compare_names);
}

static bool is_number(const char *name, const void *unused)
{
    (void)unused;
    return *name && strspn(name, "0123456789") == strlen(name);
}

static bool is_log(const char *name, const void *unused)
{
    uint64_t base;

    (void)unused;
    return journal_parse_name(name, &base);
}

/* "orders.17" for "orders", or exactly what was typed. */
static bool is_topic_dir(const char *name, const void *topic)
{
    char parsed[NAME_BYTES];
    uint64_t id;

    return history_parse_topic_dir(name, parsed, &id) && strcmp(parsed, topic) == 0;
}

static bool is_same(const char *name, const void *other)
{
    return strcmp(name, other) == 0;
}

/* ---- paths -------------------------------------------------------------------------------------- */

static int add_directory(struct history_list *list, const char *path)
{
    list->items = tool_realloc(list->items, (list->count + 1) * sizeof(list->items[0]));
    return history_open(&list->items[list->count++], path);
}

/* All partitions of a topic's directory, or the directory itself. */
static int find_directory(struct history_list *list, const char *path, bool *ret_found)
{
    struct names names;
    int rc = CLI_OK;

    *ret_found = true;
    list_names(path, is_log, NULL, &names);
    if (names.count > 0) {
        free_names(&names);
        return add_directory(list, path);
    }
    list_names(path, is_number, NULL, &names);
    for (size_t i = 0; i < names.count && rc == CLI_OK; i++) {
        char partition[PATHS_DIR_BYTES];
        int length = snprintf(partition, sizeof(partition), "%s/%s", path, names.items[i]);

        rc = length < (int)sizeof(partition)
                 ? add_directory(list, partition)
                 : cli_fail(CLI_FAILED, "%.200s…: too long a path; go there and use a shorter one",
                            path);
    }
    if (names.count == 0) {
        /* A partition without files is one too, if it looks like one. */
        rc = add_directory(list, path);
        *ret_found = rc != CLI_OK || *list->items[0].label != '\0';
    }
    free_names(&names);
    return rc;
}

static int find_file(struct history_list *list, const char *path)
{
    char directory[PATHS_DIR_BYTES];
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    struct history *history;
    int rc;

    list->items = tool_alloc(sizeof(list->items[0]));
    list->count = 1;
    history = &list->items[0];
    if (!is_log(name, NULL))
        return history_open_alone(history, path);
    (void)snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path) : 1,
                   slash ? path : ".");
    rc = history_open(history, *directory ? directory : "/");
    for (size_t i = 0; i < history->count && rc == CLI_OK; i++) {
        if (strcmp(history->files[i].name, name) == 0)
            history->only = i;
    }
    if (rc == CLI_OK && history->only == SIZE_MAX)
        rc = cli_fail(CLI_FAILED, "%s: it is gone", path);
    return rc;
}

static int find_path(struct history_list *list, const char *path)
{
    struct stat status;
    bool found = true;
    int rc;

    if (strlen(path) >= PATHS_DIR_BYTES - JOURNAL_NAME_BYTES)
        return cli_fail(CLI_FAILED, "%.200s…: too long a path; go there and use a shorter one",
                        path);
    if (stat(path, &status) < 0)
        return cli_fail(errno == EACCES ? CLI_NOT_PERMITTED : CLI_FAILED, "%s: %s", path,
                        strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return find_file(list, path);
    rc = find_directory(list, path, &found);
    if (rc == CLI_OK && !found)
        rc = cli_fail(
            CLI_FAILED,
            "%s: no journal: neither files NAME.log nor partitions 0, 1, ... are in it; name a "
            "topic, its directory STATE/BUS/journal/TOPIC.ID, or a partition's below",
            path);
    return rc;
}

/* ---- topics ------------------------------------------------------------------------------------- */

/* The state directory of the bus: as given; as a supervisor says that answers; as usual. */
static int resolve_state(struct cli *cli, const char *state_dir, char ret_path[PATHS_DIR_BYTES])
{
    struct paths_environment environment;
    struct paths_options options = {
        .bus = cli->bus, .runtime_dir = cli->runtime_dir, .state_dir = state_dir};
    struct shmq_bus_info info;
    struct paths paths;
    struct error_buffer why;

    paths_environment_load(&environment);
    if (!state_dir && !environment.state_dir && cli_try_connect(cli, CONNECT_MS) == 0 &&
        shmq_bus_describe(cli->connection, &info) == 0 && *info.state_dir &&
        strlen(info.state_dir) + 1 < sizeof(info.state_dir)) {
        (void)snprintf(ret_path, PATHS_DIR_BYTES, "%s/%s", info.state_dir, info.bus);
        return CLI_OK;
    }
    if (paths_resolve(&options, &environment, false, &paths, &why) < 0)
        return cli_fail(CLI_USAGE, "%s", why.text);
    memcpy(ret_path, paths.state_bus_dir, sizeof(paths.state_bus_dir));
    return CLI_OK;
}

static int fail_ambiguous(const char *journals, const char *topic, const struct names *names)
{
    char all[512] = "";

    for (size_t i = 0; i < names->count; i++) {
        size_t used = strlen(all);

        (void)snprintf(all + used, sizeof(all) - used, "%s%s", i > 0 ? ", " : "", names->items[i]);
    }
    return cli_fail(CLI_FAILED, "%s: in %s are %s; name one of them, with its number", topic,
                    journals, all);
}

static int fail_absent(const char *journals, const char *topic)
{
    struct stat status;

    if (stat(journals, &status) < 0 && errno == EACCES)
        return cli_fail(CLI_NOT_PERMITTED, "%s: no permission to look into %s", topic, journals);
    return cli_fail(
        CLI_FAILED,
        "%s: no journal: looked for %s/%s.ID, and for a file or directory of this name; "
        "only durable topics have one; see -b and --state-dir",
        topic, journals, topic);
}

/* "orders", "orders.17", or either with "/PARTITION". *ret_path: what is found; "" for nothing. */
static int find_topic(struct cli *cli, const char *operand, const char *state_dir,
                      char ret_path[PATHS_DIR_BYTES], char ret_journals[PATHS_DIR_BYTES])
{
    char topic[NAME_BYTES + 24] = "";
    const char *slash = strchr(operand, '/');
    size_t length = slash ? (size_t)(slash - operand) : strlen(operand);
    struct names names = {0};
    int rc = resolve_state(cli, state_dir, ret_path);

    if (rc != CLI_OK)
        return rc;
    (void)snprintf(ret_journals, PATHS_DIR_BYTES, "%.*s/journal", PATHS_DIR_BYTES - 16, ret_path);
    *ret_path = '\0';
    if (length == 0 || length >= sizeof(topic) || (slash && !is_number(slash + 1, NULL)))
        return CLI_OK;
    (void)snprintf(topic, sizeof(topic), "%.*s", (int)length, operand);
    list_names(ret_journals, is_topic_dir, topic, &names);
    if (names.count == 0)
        list_names(ret_journals, is_same, topic, &names);
    if (names.count > 1)
        rc = fail_ambiguous(ret_journals, topic, &names);
    else if (names.count == 1 &&
             snprintf(ret_path, PATHS_DIR_BYTES, "%s/%s%s", ret_journals, names.items[0],
                      slash ? slash : "") >= PATHS_DIR_BYTES - JOURNAL_NAME_BYTES)
        rc = cli_fail(CLI_FAILED, "%.200s…: too long a path; go there and use a shorter one",
                      ret_path);
    free_names(&names);
    return rc;
}

int history_find(struct cli *cli, const char *operand, const char *state_dir,
                 struct history_list *ret_list)
{
    char journals[PATHS_DIR_BYTES];
    char path[PATHS_DIR_BYTES] = "";
    struct stat status;
    bool is_path = *operand == '.' || *operand == '/' || strchr(operand, '/');
    bool exists = stat(operand, &status) == 0;
    int rc = CLI_OK;

    *ret_list = (struct history_list){0};
    if (is_path && (exists || *operand == '.' || *operand == '/'))
        return find_path(ret_list, operand);
    rc = find_topic(cli, operand, state_dir, path, journals);
    if (rc != CLI_OK)
        return rc;
    if (*path && exists)
        return cli_fail(CLI_FAILED,
                        "%s: is a topic, with its journal in %s, and a name in this directory too; "
                        "write that path for the topic, or ./%s",
                        operand, path, operand);
    if (!*path && !exists)
        return fail_absent(journals, operand);
    return find_path(ret_list, *path ? path : operand);
}

void history_list_free(struct history_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        history_close(&list->items[i]);
    free(list->items);
    *list = (struct history_list){0};
}
