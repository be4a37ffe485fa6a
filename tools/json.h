/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h: writes JSON (RFC 8259) into an outbuf: commas, escapes and nesting are its own affair.
 *
 * Values take a key inside an object and NULL inside an array or at the top. Strings are expected to
 * be UTF-8; json_bytes() takes anything: what is not UTF-8 goes out in base64, under KEY_base64.
 * Pure but for memory; one thread. Elements of the outermost array stand on lines of their own.
 */
#ifndef SHMQ_TOOLS_JSON_H
#define SHMQ_TOOLS_JSON_H

#include "tools/outbuf.h"

#define JSON_DEPTH_MAX 12

struct json {
    struct outbuf *out;
    unsigned depth;
    bool filled[JSON_DEPTH_MAX];
    bool is_array[JSON_DEPTH_MAX];
};

void json_init(struct json *json, struct outbuf *out);
void json_object_begin(struct json *json, const char *key);
void json_object_end(struct json *json);
void json_array_begin(struct json *json, const char *key);
void json_array_end(struct json *json);
void json_string(struct json *json, const char *key, const char *text);
void json_bytes(struct json *json, const char *key, const void *data, size_t length);
void json_number(struct json *json, const char *key, uint64_t number);
/* As few digits as make the same number again; null for what JSON has no number for (NaN, infinite). */
void json_real(struct json *json, const char *key, double number);
void json_boolean(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);
/* The time in ISO form, null for 0. */
void json_time(struct json *json, const char *key, uint64_t realtime_ns);

#endif
