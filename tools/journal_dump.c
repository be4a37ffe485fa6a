/* SPDX-License-Identifier: Apache-2.0 */
/* shmq journal dump: the records of a journal on stdout. Behind damage it goes on, and says so. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "libshmq/units.h"
#include "tools/journal.h"
#include "tools/json.h"
#include "tools/sub_format.h"

#define BUFFER_BYTES ((size_t)1 << 16)
#define DUMP_ENOUGH  1 /* ends the walk */

struct dumper {
    struct cli *cli;
    const struct history *history;
    struct outbuf out;
    uint64_t from;
    uint64_t left; /* records */
    bool damaged;
    int error; /* of stdout */
};

static int flush(struct dumper *d)
{
    if (d->error == 0)
        d->error = outbuf_write(&d->out, 1, NULL);
    return d->error ? DUMP_ENOUGH : 0;
}

/* What comes before goes out before. */
static void complain(struct dumper *d, size_t index, uint64_t offset, uint64_t length,
                     const char *what)
{
    char path[HISTORY_PATH_BYTES];

    (void)flush(d);
    d->damaged = true;
    (void)cli_fail(CLI_FAILED, "%s: offset %" PRIu64 ": %s; %" PRIu64 " bytes are left out",
                   history_file_path(d->history, index, path), offset, what, length);
}

/* ---- one record --------------------------------------------------------------------------------- */

/* Text that stays on its line and between its tabs: what is UTF-8 as it is, but for control bytes and the backslash. */
static void append_escaped(struct outbuf *out, const unsigned char *data, size_t length)
{
    bool utf8 = text_is_utf8(data, length);
    size_t start = 0;

    for (size_t i = 0; i < length; i++) {
        unsigned char byte = data[i];

        if (byte >= 0x20 && byte != 0x7f && byte != '\\' && (byte < 0x80 || utf8))
            continue;
        outbuf_append(out, data + start, i - start);
        start = i + 1;
        if (byte == '\\')
            outbuf_text(out, "\\\\");
        else if (byte == '\n')
            outbuf_text(out, "\\n");
        else if (byte == '\t')
            outbuf_text(out, "\\t");
        else if (byte == '\r')
            outbuf_text(out, "\\r");
        else
            outbuf_printf(out, "\\x%02x", byte);
    }
    outbuf_append(out, data + start, length - start);
}

static void append_line(struct outbuf *out, const struct shmq_message *message)
{
    char time[32];

    outbuf_printf(out, "%" PRIu64 "\t%s\t%" PRIu32 "\t", message->offset,
                  message->timestamp_ns ? text_iso_time(message->timestamp_ns, time) : "-",
                  message->partition);
    if (message->key_length == 0)
        outbuf_byte(out, '-');
    else if (message->key_length == 1 && *(const char *)message->key == '-')
        outbuf_text(out, "\\x2d");
    else
        append_escaped(out, message->key, message->key_length);
    outbuf_printf(out, "\t%zu\t", (size_t)message->body_length);
    append_escaped(out, message->body, message->body_length);
    outbuf_byte(out, '\n');
}

static void append_padding(struct dumper *d, const struct shmq_message *message, uint64_t bytes)
{
    struct json json;

    if (!d->cli->json) {
        outbuf_printf(&d->out, "%" PRIu64 "\t-\t%" PRIu32 "\t-\t%" PRIu64 "\t(padding)\n",
                      message->offset, message->partition, bytes);
        return;
    }
    json_init(&json, &d->out);
    json_object_begin(&json, NULL);
    json_number(&json, "partition", message->partition);
    json_number(&json, "offset", message->offset);
    json_boolean(&json, "padding", true);
    json_number(&json, "length", bytes);
    json_object_end(&json);
}

static struct shmq_message message_of(const struct dumper *d, const struct history_event *event)
{
    const struct journal_record *record = event->record;
    const struct history_file *file = &d->history->files[event->index];
    size_t before = record->padding ? 0 : (size_t)record->key_length + record->headers_length;
    struct shmq_message message;

    memset(&message, 0, sizeof(message));
    message.partition = file->entry.damaged ? d->history->partition : file->partition;
    message.offset = record->offset;
    message.timestamp_ns = record->timestamp_ns;
    message.key = record->payload;
    message.key_length = record->key_length;
    message.headers = record->payload + record->key_length;
    message.headers_length = record->headers_length;
    message.body = record->payload + before;
    message.body_length = record->length - (uint32_t)before;
    return message;
}

static int dump_record(struct dumper *d, const struct history_event *event)
{
    struct shmq_message message = message_of(d, event);

    if (event->record->padding && !journal_arguments.all)
        return 0;
    if (event->record->padding)
        append_padding(d, &message, event->length);
    else if (d->cli->json || journal_arguments.raw)
        format_message(&d->out, d->cli->json ? FORMAT_JSON : FORMAT_RAW, NULL, &message);
    else
        append_line(&d->out, &message);
    d->left--;
    if (d->out.length >= BUFFER_BYTES && flush(d) != 0)
        return DUMP_ENOUGH;
    return d->left == 0 ? DUMP_ENOUGH : 0;
}

/* A history_event_fn. */
static int see_event(void *context, const struct history_event *event)
{
    struct dumper *d = context;

    switch (event->kind) {
    case HISTORY_RECORD:
        return dump_record(d, event);
    case HISTORY_LOST:
        complain(d, event->index, event->offset, event->length, history_stop_text(event->stop));
        break;
    case HISTORY_MISSING:
        complain(d, event->index, event->offset, event->length,
                 "a file is missing, or this one was cut short");
        break;
    case HISTORY_UNCLEAR:
        complain(d, event->index, event->offset, event->length,
                 "nothing holds up to the next file, whose header is damaged");
        break;
    case HISTORY_TORN: /* was never confirmed */
    case HISTORY_OVERLAP:
    case HISTORY_JUMP:
    case HISTORY_GONE:
        break;
    }
    return d->error ? DUMP_ENOUGH : 0;
}

/* ---- files -------------------------------------------------------------------------------------- */

static bool is_wanted(const struct dumper *d, size_t index)
{
    const struct history *history = d->history;
    const struct history_file *file = &history->files[index];
    size_t next = history_next(history, index);

    if (history->only != SIZE_MAX)
        return history->only == index;
    return file->flaw != HISTORY_STRANGER && file->flaw != HISTORY_DOUBLE &&
           (next == history->count || history->files[next].entry.base > d->from);
}

static int dump_file(struct dumper *d, size_t index)
{
    const struct history_file *file = &d->history->files[index];
    struct error_buffer why;
    int rc;

    if (!file->readable) {
        complain(d, index, file->entry.base, file->entry.bytes, file->why.text);
        return 0;
    }
    if (file->flaw == HISTORY_DAMAGED)
        cli_note(d->cli, "%s: its header is damaged; it is read by what its records give away",
                 file->name);
    rc = history_walk(d->history, index, d->from, see_event, d, &why);
    if (rc >= 0)
        return rc;
    complain(d, index, file->entry.base, file->entry.bytes, why.text);
    return 0;
}

static int dump_history(struct dumper *d, const struct history *history)
{
    int rc = 0;

    d->history = history;
    for (size_t i = 0; i < history->count && rc == 0; i++) {
        if (is_wanted(d, i))
            rc = dump_file(d, i);
    }
    return rc;
}

static int parse_from(const struct cli *cli, uint64_t *ret_from)
{
    const char *from = journal_arguments.from;

    *ret_from = 0;
    if (!from || strcmp(from, "earliest") == 0 ||
        units_parse_count(from, 0, JOURNAL_OFFSET_MAX, ret_from, NULL) == 0)
        return CLI_OK;
    return cli_usage(cli, "--from: '%.40s' is neither an offset nor earliest", from);
}

static int conclude(struct dumper *d)
{
    (void)flush(d);
    if (d->error && d->error != EPIPE)
        return cli_fail(CLI_FAILED, "output: %s; see where stdout goes", strerror(d->error));
    return d->error || d->damaged ? CLI_FAILED : CLI_OK;
}

int journal_dump(struct cli *cli)
{
    struct dumper d = {.cli = cli,
                       .left = journal_arguments.count == CLI_UNSET ? UINT64_MAX
                                                                    : journal_arguments.count};
    struct history_list list = {0};
    int ended = 0;
    int rc = parse_from(cli, &d.from);

    if (rc == CLI_OK && cli->json && journal_arguments.raw)
        rc = cli_usage(cli, "--json and --raw exclude each other");
    if (rc == CLI_OK && journal_arguments.raw && journal_arguments.all)
        rc = cli_usage(cli, "--raw and --all exclude each other: padding has no body");
    if (rc == CLI_OK)
        rc = history_find(cli, cli->operands[0], journal_arguments.state_dir, &list);
    for (size_t i = 0; i < list.count && rc == CLI_OK && ended == 0; i++)
        ended = dump_history(&d, &list.items[i]);
    if (rc == CLI_OK)
        rc = conclude(&d);
    outbuf_free(&d.out);
    history_list_free(&list);
    return rc;
}
