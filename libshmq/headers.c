/* SPDX-License-Identifier: Apache-2.0 */
/*
 * headers.c: the headers of a message: a run of { u8 name length | u16 value length | name | value
 * }, lengths little-endian and unaligned. Pure; any thread. What is walked may come from a hostile
 * producer: every length is checked against what is left.
 */
#include <string.h>

#include "libshmq/handles.h"
#include "libshmq/shmq.h"

#define HEADER_PREFIX_BYTES 3u
#define NAME_BYTES_MAX      255u
#define VALUE_BYTES_MAX     65000u
#define HEADERS_BYTES_MAX   UINT16_MAX

int shmq_headers_add(void *buffer, size_t capacity, size_t *length, const char *name,
                     const void *value, size_t value_length)
{
    unsigned char *to = buffer;
    size_t name_length;

    if (!buffer || !length || !name || (!value && value_length > 0))
        return handles_usage_error(0, "header: a pointer is NULL");
    name_length = strnlen(name, NAME_BYTES_MAX + 1);
    if (name_length == 0 || name_length > NAME_BYTES_MAX)
        return handles_usage_error(0, "header: a name has 1 to 255 bytes");
    if (value_length > VALUE_BYTES_MAX)
        return handles_usage_error(0, "header: a value has at most 65,000 bytes");
    size_t bytes = HEADER_PREFIX_BYTES + name_length + value_length;
    size_t limit = min_size(capacity, HEADERS_BYTES_MAX);

    if (*length > limit || bytes > limit - *length)
        return error_set(handles_error(0), SHMQ_ETOOBIG,
                         "header '%.64s': %zu bytes do not fit into the %zu that are left", name,
                         bytes, *length > limit ? 0 : limit - *length);
    to += *length;
    to[0] = (unsigned char)name_length;
    to[1] = (unsigned char)(value_length & 0xff);
    to[2] = (unsigned char)(value_length >> 8);
    memcpy(to + HEADER_PREFIX_BYTES, name, name_length);
    if (value_length > 0)
        memcpy(to + HEADER_PREFIX_BYTES + name_length, value, value_length);
    *length += bytes;
    return 0;
}

int shmq_headers_next(const struct shmq_message *message, size_t *position,
                      struct shmq_header *ret_header)
{
    const unsigned char *from;
    size_t left, name_length, value_length;

    if (!message || !position || !ret_header || (!message->headers && message->headers_length > 0))
        return handles_usage_error(0, "header: a pointer is NULL");
    if (*position >= message->headers_length)
        return *position == message->headers_length
                   ? 0
                   : handles_usage_error(0, "header: the position lies behind the end");
    from = (const unsigned char *)message->headers + *position;
    left = message->headers_length - *position;
    if (left < HEADER_PREFIX_BYTES)
        return handles_usage_error(0, "header: malformed");
    name_length = from[0];
    value_length = (size_t)from[1] | (size_t)from[2] << 8;
    if (name_length == 0 || value_length > VALUE_BYTES_MAX ||
        name_length + value_length > left - HEADER_PREFIX_BYTES)
        return handles_usage_error(0, "header: malformed");
    ret_header->name = (const char *)from + HEADER_PREFIX_BYTES;
    ret_header->name_length = (uint32_t)name_length;
    ret_header->value = from + HEADER_PREFIX_BYTES + name_length;
    ret_header->value_length = (uint32_t)value_length;
    *position += HEADER_PREFIX_BYTES + name_length + value_length;
    return 1;
}
