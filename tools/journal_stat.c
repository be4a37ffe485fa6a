/* SPDX-License-Identifier: Apache-2.0 */
/* shmq journal stat: the files of a journal, what is in them, and why each is kept. */
#include <inttypes.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/journal.h"
#include "tools/json.h"
#include "tools/nouns.h"
#include "tools/table.h"

#define HOPS_MAX 1000u /* over padding */

/* One file as it is shown. */
struct stat_line {
    const struct history_file *file;
    const char *kept; /* a word */
    uint64_t end;
    uint64_t messages;
    uint64_t first_ns, last_ns; /* 0: none, or not known */
    bool known;                 /* end and messages are */
    bool newest;
};

struct totals {
    uint64_t files, bytes, messages, used;
};

static const char *kept_word(enum journal_kept kept)
{
    switch (kept) {
    case JOURNAL_GONE:
        return "gone";
    case JOURNAL_KEPT_NEWEST:
        return "newest";
    case JOURNAL_KEPT_UNSAFE:
        return "unsafe";
    case JOURNAL_KEPT_NEEDED:
        return "needed";
    case JOURNAL_KEPT_BYTES:
        return "bytes";
    case JOURNAL_KEPT_TIME:
        return "time";
    case JOURNAL_KEPT_UNBOUNDED:
        return "unbounded";
    case JOURNAL_KEPT_DAMAGED:
        return "damaged";
    }
    return "unknown";
}

/* The same in a sentence, with the bounds. */
static void explain_kept(const char *word, const struct topic_facts *facts, char ret_text[96])
{
    char text[UNITS_TEXT_BYTES];

    if (strcmp(word, "bytes") == 0)
        (void)snprintf(ret_text, 96, "within retain-bytes %s",
                       units_format_size(facts->retain_bytes, text));
    else if (strcmp(word, "time") == 0)
        (void)snprintf(ret_text, 96, "within retain-time %s",
                       units_format_duration(facts->retain_ns, text));
    else
        (void)snprintf(ret_text, 96, "%s",
                       strcmp(word, "gone") == 0        ? "no longer: retention lets it go"
                       : strcmp(word, "newest") == 0    ? "newest: it is written"
                       : strcmp(word, "unsafe") == 0    ? "reaches above what is durable"
                       : strcmp(word, "needed") == 0    ? "a queue or router needs it"
                       : strcmp(word, "damaged") == 0   ? "cannot be judged: a header is damaged"
                       : strcmp(word, "unbounded") == 0 ? "no retention is set"
                                                        : "the topic's retention is not known");
}

/* ---- looking ------------------------------------------------------------------------------------ */

/* Of the first message, by the stamps in front of it: reading and checking whole records would take longer than all
 * the rest. 0: none is found. */
static uint64_t find_first_time(const struct history *history, size_t index, uint64_t end)
{
    const struct journal_entry *entry = &history->files[index].entry;
    CLEANUP_CLOSE int fd = history_open_file(history, index, NULL);
    uint64_t at = entry->base;

    for (unsigned i = 0; fd >= 0 && i < HOPS_MAX && at < end; i++) {
        unsigned char header[RECORD_HEADER];
        uint64_t commit;
        uint64_t timestamp_ns;
        uint32_t length;

        if (pread(fd, header, sizeof(header), (off_t)(JOURNAL_HEADER_BYTES + (at - entry->base))) !=
            (ssize_t)sizeof(header))
            break;
        memcpy(&commit, header, sizeof(commit));
        memcpy(&length, header + offsetof(struct record, length), sizeof(length));
        memcpy(&timestamp_ns, header + offsetof(struct record, timestamp_ns), sizeof(timestamp_ns));
        if (record_state(commit, entry->salt, at) == RECORD_COMMITTED)
            return timestamp_ns;
        if (record_state(commit, entry->salt, at) != RECORD_PADDING)
            break;
        at += record_size(length);
    }
    return 0;
}

/* From the next file's header where there is one, else from the records. */
static void measure_file(const struct history *history, size_t index, struct stat_line *line)
{
    const struct history_file *file = &history->files[index];
    size_t next = history_next(history, index);
    struct history_sum sum;

    line->newest = next == history->count;
    if (!file->readable || file->flaw == HISTORY_STRANGER || file->flaw == HISTORY_DOUBLE)
        return;
    if (line->newest || history->files[next].entry.damaged || file->entry.damaged ||
        history->files[next].entry.messages < file->entry.messages) {
        line->known = history_sum(history, index, &sum, NULL) == 0;
        line->end = sum.end;
        line->messages = sum.messages;
        line->first_ns = sum.first_timestamp_ns;
        line->last_ns = sum.max_timestamp_ns;
        return;
    }
    line->known = true;
    line->end = max_u64(file->entry.base, history->files[next].entry.previous_end);
    line->messages = history->files[next].entry.messages - file->entry.messages;
    line->last_ns = history->files[next].entry.max_timestamp_ns;
    line->first_ns = find_first_time(history, index, line->end);
}

/* The judgement of the supervisor's preparer, on what stands on the disk. */
static void judge_files(const struct history *history, const struct topic_facts *facts,
                        struct stat_line *lines)
{
    struct journal_entry *entries = tool_alloc((history->count + 1) * sizeof(*entries));
    size_t *places = tool_alloc((history->count + 1) * sizeof(*places));
    struct journal_retention retention = {
        .retain_bytes = facts->retain_bytes,
        .retain_ns = facts->retain_ns,
        .now_ns = clock_realtime_ns(),
        .durable = facts->durable,
        .needed = UINT64_MAX,
    };
    size_t count = 0;

    for (size_t i = 0; i < history->count; i++)
        lines[i].kept = "stranger";
    for (size_t i = history_first(history); i < history->count; i = history_next(history, i)) {
        entries[count] = history->files[i].entry;
        places[count++] = i;
    }
    /* Nobody says what is durable: as much as when the newest file was begun is for certain. */
    if (facts->durable == UINT64_MAX && count > 0 && !entries[count - 1].damaged)
        retention.durable = entries[count - 1].durable;
    for (size_t i = 0; i < count; i++) {
        enum journal_kept kept = journal_judge(entries, count, i, &retention);

        lines[places[i]].kept =
            kept == JOURNAL_KEPT_UNBOUNDED && !facts->known ? "unknown" : kept_word(kept);
    }
    free(entries);
    free(places);
}

/* ---- showing ------------------------------------------------------------------------------------ */

static void write_json(struct json *json, const struct history *history,
                       const struct topic_facts *facts, const struct stat_line *lines, size_t count)
{
    json_object_begin(json, NULL);
    json_string(json, "journal", history_label(history));
    json_string(json, "path", history->path);
    if (*history->topic_name) {
        json_string(json, "topic", history->topic_name);
        json_number(json, "topic_id", history->topic);
        json_number(json, "partition", history->partition);
    }
    if (facts->known) {
        json_number(json, "retain_bytes", facts->retain_bytes);
        json_number(json, "retain_ms", facts->retain_ns / NS_PER_MS);
    }
    if (facts->durable != UINT64_MAX)
        json_number(json, "durable", facts->durable);
    json_array_begin(json, "files");
    for (size_t i = 0; i < count; i++) {
        const struct stat_line *line = &lines[i];
        const struct journal_entry *entry = &line->file->entry;

        json_object_begin(json, NULL);
        json_string(json, "file", line->file->name);
        json_number(json, "base", entry->base);
        json_number(json, "bytes", entry->bytes);
        json_boolean(json, "sound", line->file->flaw == HISTORY_SOUND);
        if (line->known) {
            json_number(json, "end", line->end);
            json_number(json, "messages", line->messages);
            json_time(json, "first", line->first_ns);
            json_time(json, "last", line->last_ns);
        }
        if (!entry->damaged) {
            char salt[24];

            (void)snprintf(salt, sizeof(salt), "%016" PRIx64, entry->salt);
            json_string(json, "salt", salt);
            json_number(json, "previous_end", entry->previous_end);
            json_number(json, "durable", entry->durable);
        }
        json_string(json, "kept", line->kept);
        json_object_end(json);
    }
    json_array_end(json);
    json_object_end(json);
}

static void add_row(struct table *table, const struct topic_facts *facts,
                    const struct stat_line *line)
{
    const struct journal_entry *entry = &line->file->entry;
    char text[96];

    table_cell(table, "%.20s", line->file->name);
    if (line->known) {
        table_cell(table, "%" PRIu64, line->end);
        table_cell(table, "%" PRIu64, line->messages);
    } else {
        table_cell(table, "?");
        table_cell(table, "?");
    }
    table_cell(table, "%s", units_show_size(entry->bytes, text));
    table_cell(table, "%s", line->first_ns ? text_iso_time(line->first_ns, text) : "-");
    table_cell(table, "%s", line->last_ns ? text_iso_time(line->last_ns, text) : "-");
    if (line->file->flaw != HISTORY_SOUND) {
        table_cell(table, "%s: see shmq journal verify",
                   line->file->flaw == HISTORY_STRANGER || line->file->flaw == HISTORY_DOUBLE
                       ? "not of this journal"
                       : "damaged");
        return;
    }
    explain_kept(line->kept, facts, text);
    table_cell(table, "%s", text);
}

static void print_text(const struct cli *cli, const struct history *history,
                       const struct topic_facts *facts, const struct stat_line *lines, size_t count)
{
    static const char *const heads[] = {"FILE",  ">END", ">MESSAGES", ">SIZE",
                                        "FIRST", "LAST", "KEPT",      NULL};
    struct table table;

    if (cli->quiet) {
        for (size_t i = 0; i < count; i++)
            printf("%s/%s\n", history->path, lines[i].file->name);
        return;
    }
    printf("%s%s%s in %s\n", cli_bold(cli), history_label(history), cli_plain(cli), history->path);
    table_init(&table, heads);
    for (size_t i = 0; i < count; i++)
        add_row(&table, facts, &lines[i]);
    table_print(&table, cli, 2);
    table_free(&table);
}

static void add_totals(struct totals *totals, const struct stat_line *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        totals->files++;
        totals->bytes += lines[i].file->entry.bytes;
        totals->messages += lines[i].messages;
        if (lines[i].known)
            totals->used += lines[i].end - lines[i].file->entry.base;
    }
}

static void show_history(struct cli *cli, const struct history *history, struct json *json,
                         struct totals *totals)
{
    struct stat_line *lines = tool_alloc((history->count + 1) * sizeof(*lines));
    struct topic_facts facts;
    size_t first = history->only == SIZE_MAX ? 0 : history->only;
    size_t count = history->only == SIZE_MAX ? history->count : 1;

    journal_facts(cli, history, &facts);
    for (size_t i = 0; i < history->count; i++) {
        lines[i].file = &history->files[i];
        if (history->only == SIZE_MAX || history->only == i)
            measure_file(history, i, &lines[i]);
    }
    judge_files(history, &facts, lines);
    add_totals(totals, lines + first, count);
    if (cli->json)
        write_json(json, history, &facts, lines + first, count);
    else
        print_text(cli, history, &facts, lines + first, count);
    free(lines);
}

int journal_stat(struct cli *cli)
{
    struct totals totals = {0};
    struct outbuf out = {0};
    struct history_list list;
    struct json json;
    char bytes[UNITS_TEXT_BYTES];
    char used[UNITS_TEXT_BYTES];
    int rc = history_find(cli, cli->operands[0], journal_arguments.state_dir, &list);

    json_init(&json, &out);
    if (rc == CLI_OK)
        json_array_begin(&json, NULL);
    for (size_t i = 0; i < list.count && rc == CLI_OK; i++)
        show_history(cli, &list.items[i], &json, &totals);
    if (rc == CLI_OK)
        json_array_end(&json);
    if (rc == CLI_OK && cli->json)
        tool_print(&out);
    else if (rc == CLI_OK && !cli->quiet)
        printf("%" PRIu64 " %s in %" PRIu64 " %s of %zu %s: %s on disk, %s of them records\n",
               totals.messages, cli_plural(totals.messages, "message", "messages"), totals.files,
               cli_plural(totals.files, "file", "files"), list.count,
               cli_plural(list.count, "partition", "partitions"),
               units_show_size(totals.bytes, bytes), units_show_size(totals.used, used));
    outbuf_free(&out);
    history_list_free(&list);
    return rc;
}
