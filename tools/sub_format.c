/* SPDX-License-Identifier: Apache-2.0 */
/* Messages as bytes on stdout; see sub_format.h. */
#include "tools/sub_format.h"

#include <inttypes.h>
#include <string.h>

#include "tools/json.h"

const char *format_check_template(const char *text)
{
    for (; *text; text++) {
        if (*text == '%') {
            if (!text[1] || !strchr("bkhpotT%", text[1]))
                return text;
            text++;
        } else if (*text == '\\') {
            if (!text[1] || !strchr("ntr0\\", text[1]))
                return text;
            text++;
        }
    }
    return NULL;
}

static void append_headers(struct outbuf *out, const struct shmq_message *message)
{
    struct shmq_header header;
    size_t position = 0;

    for (bool first = true; shmq_headers_next(message, &position, &header) == 1; first = false) {
        if (!first)
            outbuf_byte(out, ',');
        outbuf_append(out, header.name, header.name_length);
        outbuf_byte(out, '=');
        outbuf_append(out, header.value, header.value_length);
    }
}

static void append_field(struct outbuf *out, char field, const struct shmq_message *message)
{
    char time[32];

    switch (field) {
    case 'b':
        outbuf_append(out, message->body, message->body_length);
        break;
    case 'k':
        outbuf_append(out, message->key, message->key_length);
        break;
    case 'h':
        append_headers(out, message);
        break;
    case 'p':
        outbuf_printf(out, "%" PRIu32, message->partition);
        break;
    case 'o':
        outbuf_printf(out, "%" PRIu64, message->offset);
        break;
    case 't':
        outbuf_printf(out, "%" PRIu64, message->timestamp_ns);
        break;
    case 'T':
        if (message->timestamp_ns != 0)
            outbuf_text(out, text_iso_time(message->timestamp_ns, time));
        break;
    default:
        outbuf_byte(out, field);
        break;
    }
}

static char unescape(char letter)
{
    switch (letter) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case '0':
        return '\0';
    default:
        return letter;
    }
}

static void append_template(struct outbuf *out, const char *text,
                            const struct shmq_message *message)
{
    for (; *text; text++) {
        if (*text == '%' && text[1])
            append_field(out, *++text, message);
        else if (*text == '\\' && text[1])
            outbuf_byte(out, unescape(*++text));
        else
            outbuf_byte(out, *text);
    }
}

static void append_json(struct outbuf *out, const struct shmq_message *message)
{
    struct shmq_header header;
    size_t position = 0;
    struct json json;

    json_init(&json, out);
    json_object_begin(&json, NULL);
    json_number(&json, "partition", message->partition);
    json_number(&json, "offset", message->offset);
    json_time(&json, "timestamp", message->timestamp_ns);
    json_number(&json, "timestamp_ns", message->timestamp_ns);
    if (message->key_length > 0)
        json_bytes(&json, "key", message->key, message->key_length);
    if (message->headers_length > 0) {
        json_array_begin(&json, "headers");
        while (shmq_headers_next(message, &position, &header) == 1) {
            json_object_begin(&json, NULL);
            json_bytes(&json, "name", header.name, header.name_length);
            json_bytes(&json, "value", header.value, header.value_length);
            json_object_end(&json);
        }
        json_array_end(&json);
    }
    json_bytes(&json, "body", message->body, message->body_length);
    json_object_end(&json);
}

void format_message(struct outbuf *out, enum format_kind kind, const char *text,
                    const struct shmq_message *message)
{
    switch (kind) {
    case FORMAT_LINE:
    case FORMAT_NUL:
    case FORMAT_RAW:
        outbuf_append(out, message->body, message->body_length);
        if (kind != FORMAT_RAW)
            outbuf_byte(out, kind == FORMAT_NUL ? '\0' : '\n');
        break;
    case FORMAT_JSON:
        append_json(out, message);
        break;
    case FORMAT_TEMPLATE:
        append_template(out, text, message);
        break;
    }
}
