/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer; see json.h. */
#include "tools/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void json_init(struct json *json, struct outbuf *out)
{
    *json = (struct json){.out = out};
}

static void write_quoted(struct outbuf *out, const char *text, size_t length)
{
    size_t start = 0;

    outbuf_byte(out, '"');
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];

        if (byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7f)
            continue;
        outbuf_append(out, text + start, i - start);
        start = i + 1;
        if (byte == '"' || byte == '\\') {
            outbuf_byte(out, '\\');
            outbuf_byte(out, (char)byte);
        } else if (byte == '\n') {
            outbuf_text(out, "\\n");
        } else if (byte == '\t') {
            outbuf_text(out, "\\t");
        } else if (byte == '\r') {
            outbuf_text(out, "\\r");
        } else {
            outbuf_printf(out, "\\u%04x", byte);
        }
    }
    outbuf_append(out, text + start, length - start);
    outbuf_byte(out, '"');
}

/* The comma before, and the key: everything that stands in front of a value. */
static void begin_value(struct json *json, const char *key, const char *key_suffix)
{
    bool *filled = &json->filled[json->depth];

    if (*filled)
        outbuf_byte(json->out, ',');
    if (json->depth == 1 && json->is_array[1])
        outbuf_byte(json->out, '\n');
    *filled = true;
    if (!key)
        return;
    outbuf_printf(json->out, "\"%s%s\":", key, key_suffix);
}

static void open_level(struct json *json, const char *key, char bracket)
{
    begin_value(json, key, "");
    outbuf_byte(json->out, bracket);
    if (json->depth + 1 < JSON_DEPTH_MAX) /* the programs' own nesting: never deeper */
        json->depth++;
    json->filled[json->depth] = false;
    json->is_array[json->depth] = bracket == '[';
}

static void close_level(struct json *json, char bracket)
{
    if (json->depth == 1 && json->is_array[1] && json->filled[1])
        outbuf_byte(json->out, '\n');
    outbuf_byte(json->out, bracket);
    if (json->depth > 0)
        json->depth--;
    if (json->depth == 0) {
        outbuf_byte(json->out, '\n');
        json->filled[0] = false; /* the next one is a document of its own */
    }
}

void json_object_begin(struct json *json, const char *key)
{
    open_level(json, key, '{');
}

void json_object_end(struct json *json)
{
    close_level(json, '}');
}

void json_array_begin(struct json *json, const char *key)
{
    open_level(json, key, '[');
}

void json_array_end(struct json *json)
{
    close_level(json, ']');
}

void json_bytes(struct json *json, const char *key, const void *data, size_t length)
{
    if (text_is_utf8(data, length)) {
        begin_value(json, key, "");
        write_quoted(json->out, data, length);
        return;
    }
    begin_value(json, key, "_base64");
    outbuf_byte(json->out, '"');
    text_append_base64(json->out, data, length);
    outbuf_byte(json->out, '"');
}

void json_string(struct json *json, const char *key, const char *text)
{
    size_t length = strlen(text);

    begin_value(json, key, "");
    if (text_is_utf8(text, length)) {
        write_quoted(json->out, text, length);
        return;
    }
    /* A command or path in some other encoding: readers of JSON must get valid text all the same. */
    outbuf_byte(json->out, '"');
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];

        if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\')
            outbuf_byte(json->out, (char)byte);
        else
            outbuf_printf(json->out, "\\u%04x", byte < 0x80 ? byte : 0xfffd);
    }
    outbuf_byte(json->out, '"');
}

void json_number(struct json *json, const char *key, uint64_t number)
{
    begin_value(json, key, "");
    outbuf_printf(json->out, "%" PRIu64, number);
}

void json_real(struct json *json, const char *key, double number)
{
    char text[40];

    if (!isfinite(number)) {
        json_null(json, key);
        return;
    }
    /* 15 digits always survive a text, 17 make any double again: 0.1 is "0.1", not 0.10000000000000001. */
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    begin_value(json, key, "");
    outbuf_text(json->out, text);
}

void json_boolean(struct json *json, const char *key, bool value)
{
    begin_value(json, key, "");
    outbuf_text(json->out, value ? "true" : "false");
}

void json_null(struct json *json, const char *key)
{
    begin_value(json, key, "");
    outbuf_text(json->out, "null");
}

void json_time(struct json *json, const char *key, uint64_t realtime_ns)
{
    char text[32];

    if (realtime_ns == 0)
        json_null(json, key);
    else
        json_string(json, key, text_iso_time(realtime_ns, text));
}
