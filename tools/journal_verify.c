/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq journal verify: every header, chain and checksum. A finding is damage, or it is normal: what a crash, a
 * restart or a full disk leaves behind without harm.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "libshmq/units.h"
#include "tools/journal.h"
#include "tools/json.h"
#include "tools/nouns.h"

#define NO_FILE SIZE_MAX

struct verifier {
    struct cli *cli;
    const struct history *history;
    struct topic_facts facts;
    uint64_t end; /* behind the last record that was seen */
    uint64_t partitions, files, bytes, messages, padding;
    uint64_t damaged, normal; /* findings */
    uint64_t lost_bytes;
};

/* One finding. `index` NO_FILE: of the directory. */
static void say(struct verifier *v, const char *kind, bool normal, size_t index, uint64_t offset,
                uint64_t length, const char *format, ...) PRINTF_LIKE(7, 8);

static void print_finding_json(const struct verifier *v, const char *kind, bool normal,
                               size_t index, uint64_t offset, uint64_t length, const char *meaning)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_string(&json, "finding", kind);
    json_boolean(&json, "normal", normal);
    json_string(&json, "journal", history_label(v->history));
    json_string(&json, "path", v->history->path);
    if (index != NO_FILE) {
        json_string(&json, "file", v->history->files[index].name);
        json_number(&json, "offset", offset);
        json_number(&json, "length", length);
    }
    json_string(&json, "meaning", meaning);
    json_object_end(&json);
    tool_print(&out);
}

static void print_finding(const struct verifier *v, const char *kind, bool normal, size_t index,
                          uint64_t offset, uint64_t length, const char *meaning)
{
    char path[HISTORY_PATH_BYTES];
    const char *color = normal ? "" : cli_red(v->cli);

    if (index == NO_FILE) {
        printf("%s: %s: %s\n", v->history->path, kind, meaning);
        return;
    }
    printf("%s: offset %" PRIu64, history_file_path(v->history, index, path), offset);
    if (length > 0)
        printf(", %" PRIu64 " bytes", length);
    printf(": %s%s%s: %s\n", color, kind, *color ? cli_plain(v->cli) : "", meaning);
}

static void say(struct verifier *v, const char *kind, bool normal, size_t index, uint64_t offset,
                uint64_t length, const char *format, ...)
{
    char meaning[sizeof(struct error_buffer) + 256];
    va_list arguments;

    v->normal += normal;
    v->damaged += !normal;
    if (normal && v->cli->quiet)
        return;
    va_start(arguments, format);
    (void)vsnprintf(meaning, sizeof(meaning), format, arguments);
    va_end(arguments);
    text_make_printable(meaning);
    if (v->cli->json)
        print_finding_json(v, kind, normal, index, offset, length, meaning);
    else
        print_finding(v, kind, normal, index, offset, length, meaning);
}

/* ---- records ------------------------------------------------------------------------------------ */

/* Was it the newest file when the host crashed, or may it be? Then what looks damaged may never have been confirmed: the
 * disk had later pages before earlier ones. */
static bool may_be_unconfirmed(const struct verifier *v, const struct history_event *event)
{
    const struct history *history = v->history;
    size_t next = history_next(history, event->index);

    if (next == history->count)
        return v->facts.durable == UINT64_MAX || event->offset >= v->facts.durable;
    return history->files[next].entry.previous_end < history->files[next].entry.base;
}

static void say_lost(struct verifier *v, const struct history_event *event)
{
    uint64_t behind = event->offset + event->length;

    v->lost_bytes += event->length;
    say(v, "damage", false, event->index, event->offset, event->length,
        "%s; readers lose these bytes%s and go on at %" PRIu64 "; run shmq journal repair",
        history_stop_text(event->stop),
        may_be_unconfirmed(v, event) ? ", perhaps never confirmed before the host crashed," : "",
        behind);
}

static void say_missing(struct verifier *v, const struct history_event *event)
{
    uint64_t behind = event->offset + event->length;

    v->lost_bytes += event->length;
    say(v, "missing", false, event->index, event->offset, event->length,
        "the log went on to %" PRIu64
        ", says the next file: one in between is gone, or this one was cut short; readers lose "
        "these bytes; put back what was taken away",
        behind);
}

static void say_unclear(struct verifier *v, const struct history_event *event)
{
    if (!v->history->files[event->index].readable) {
        v->lost_bytes += event->length; /* said with its header */
        return;
    }
    say(v, "unclear", false, event->index, event->offset, event->length,
        "nothing holds from here up to the next file, whose header, which is damaged, would say "
        "whether the log ended here; run shmq journal repair");
}

/* Up to where the supervisor says that the newest file holds what it has confirmed; 0: it says nothing. In a file that
 * does not reach so far, the memory was lost since, and nothing was written after that. */
static uint64_t confirmed_end(const struct verifier *v, size_t index)
{
    const struct history_file *file = &v->history->files[index];
    uint64_t durable = v->facts.durable;

    if (v->history->alone || history_next(v->history, index) != v->history->count ||
        durable < file->entry.base || file->entry.bytes < JOURNAL_HEADER_BYTES ||
        durable - file->entry.base > file->entry.bytes - JOURNAL_HEADER_BYTES)
        return 0;
    return durable;
}

/* A history_event_fn. */
static int see_event(void *context, const struct history_event *event)
{
    struct verifier *v = context;

    switch (event->kind) {
    case HISTORY_RECORD:
        v->padding += event->record->padding;
        v->messages += !event->record->padding;
        v->end = event->offset + event->length;
        break;
    case HISTORY_LOST:
        say_lost(v, event);
        break;
    case HISTORY_MISSING:
        say_missing(v, event);
        break;
    case HISTORY_UNCLEAR:
        say_unclear(v, event);
        break;
    case HISTORY_TORN:
        if (event->offset >= confirmed_end(v, event->index)) /* else said by check_durable() */
            say(v, "torn", true, event->index, event->offset, event->length,
                "no record behind the end of the log: what was being written, and not confirmed");
        break;
    case HISTORY_OVERLAP:
        say(v, "overlap", true, event->index, event->offset, event->length,
            "written again in the next file, after a restart or an error of the disk: does not count");
        break;
    case HISTORY_JUMP:
        if (!v->history->metadata)
            say(v, "jump", true, event->index, event->offset, event->length,
                "offsets that were never used: the memory was lost here, by a crash of the host or else, "
                "and the log went on above all that could have been used");
        break;
    case HISTORY_GONE:
        say(v, "gone", true, event->index, v->history->files[event->index].entry.base, 0,
            "removed while this ran: retention");
        break;
    }
    return 0;
}

/* ---- files -------------------------------------------------------------------------------------- */

static void check_header(struct verifier *v, size_t index)
{
    const struct history_file *file = &v->history->files[index];
    uint64_t base = file->entry.base;
    uint64_t length = file->entry.bytes;

    switch (file->flaw) {
    case HISTORY_SOUND:
        break;
    case HISTORY_MISNAMED:
        say(v, "name", false, index, base, length, "%s; readers do not find it", file->why.text);
        break;
    case HISTORY_DAMAGED:
        say(v, "header", false, index, base, length, "%.*s; readers do not find what is in it; %s",
            (int)strcspn(file->why.text, ";"), file->why.text,
            file->readable ? "its records hold: run shmq journal repair"
                           : "no record in it holds: restore it from a backup");
        break;
    case HISTORY_FOREIGN:
        say(v, "version", false, index, base, length, "%s", file->why.text);
        break;
    case HISTORY_STRANGER:
        say(v, "stranger", false, index, base, length, "%s", file->why.text);
        break;
    case HISTORY_DOUBLE:
        say(v, "double", false, index, base, length, "%s", file->why.text);
        break;
    case HISTORY_UNREADABLE:
        say(v, "unreadable", false, index, base, length, "%s", file->why.text);
        break;
    }
}

/* Or was another file begun since the directory was read? */
static bool is_still_newest(const struct verifier *v, size_t index)
{
    struct history now;
    uint64_t newest = 0;

    if (history_open(&now, v->history->path) == CLI_OK) {
        for (size_t i = history_first(&now); i < now.count; i = history_next(&now, i))
            newest = now.files[i].entry.base;
    }
    history_close(&now);
    return newest == v->history->files[index].entry.base;
}

static void check_durable(struct verifier *v, size_t index)
{
    uint64_t durable = confirmed_end(v, index);

    if (!v->history->files[index].readable || v->end >= durable || !is_still_newest(v, index))
        return;
    v->lost_bytes += durable - v->end;
    say(v, "damage", false, index, v->end, durable - v->end,
        "the log is confirmed up to %" PRIu64 ", but nothing holds from here on", durable);
}

static void verify_file(struct verifier *v, size_t index)
{
    const struct history_file *file = &v->history->files[index];
    struct error_buffer why;

    v->files++;
    v->bytes += file->entry.bytes;
    check_header(v, index);
    if (file->flaw == HISTORY_STRANGER || file->flaw == HISTORY_DOUBLE)
        return;
    v->end = file->entry.base;
    if (history_walk(v->history, index, 0, see_event, v, &why) < 0)
        say(v, "unreadable", false, index, v->end, 0, "%s", why.text);
    else
        check_durable(v, index);
}

static void verify_history(struct verifier *v, const struct history *history)
{
    v->history = history;
    v->partitions++;
    journal_facts(v->cli, history, &v->facts);
    for (size_t i = 0; i < history->count; i++) {
        if (history->only == SIZE_MAX || history->only == i)
            verify_file(v, i);
    }
    for (size_t i = 0; i < history->stray_count && history->only == SIZE_MAX; i++)
        say(v, "unfinished", true, NO_FILE, 0, 0,
            "%.200s was prepared ahead of use, or its maker was killed: holds nothing",
            history->strays[i]);
}

static void print_summary(const struct verifier *v)
{
    char bytes[UNITS_TEXT_BYTES];
    char lost[UNITS_TEXT_BYTES];
    struct outbuf out = {0};
    struct json json;

    if (v->cli->json) {
        json_init(&json, &out);
        json_object_begin(&json, NULL);
        json_object_begin(&json, "summary");
        json_boolean(&json, "sound", v->damaged == 0);
        json_number(&json, "partitions", v->partitions);
        json_number(&json, "files", v->files);
        json_number(&json, "bytes", v->bytes);
        json_number(&json, "messages", v->messages);
        json_number(&json, "padding", v->padding);
        json_number(&json, "damaged", v->damaged);
        json_number(&json, "normal", v->normal);
        json_number(&json, "lost_bytes", v->lost_bytes);
        json_object_end(&json);
        json_object_end(&json);
        tool_print(&out);
        return;
    }
    if (v->cli->quiet)
        return;
    printf("%s%s%s: %" PRIu64 " %s in %" PRIu64 " %s of %" PRIu64 " %s, %s",
           v->damaged ? cli_red(v->cli) : cli_green(v->cli), v->damaged ? "damaged" : "sound",
           cli_plain(v->cli), v->messages, cli_plural(v->messages, "message", "messages"), v->files,
           cli_plural(v->files, "file", "files"), v->partitions,
           cli_plural(v->partitions, "partition", "partitions"), units_show_size(v->bytes, bytes));
    if (v->damaged)
        printf("; %" PRIu64 " %s, %s lost", v->damaged,
               cli_plural(v->damaged, "finding", "findings"), units_show_size(v->lost_bytes, lost));
    printf("\n");
}

int journal_verify(struct cli *cli)
{
    struct verifier v = {.cli = cli};
    struct history_list list;
    int rc = history_find(cli, cli->operands[0], journal_arguments.state_dir, &list);

    for (size_t i = 0; i < list.count && rc == CLI_OK; i++)
        verify_history(&v, &list.items[i]);
    if (rc == CLI_OK) {
        print_summary(&v);
        rc = v.damaged ? CLI_FAILED : CLI_OK;
    }
    history_list_free(&list);
    return rc;
}
