/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes on their way out; see outbuf.h. */
#include "tools/outbuf.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "libshmq/clock.h"

#define GIVE_UP_AFTER_MS 1000

static _Noreturn void die_without_memory(void)
{
    (void)fputs("shmq: memory: there is none left; free some and try again\n", stderr);
    exit(1);
}

void *tool_realloc(void *old, size_t bytes)
{
    void *made = realloc(old, bytes ? bytes : 1);

    if (!made)
        die_without_memory();
    return made;
}

void *tool_alloc(size_t bytes)
{
    return memset(tool_realloc(NULL, bytes), 0, bytes);
}

char *tool_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;

    return memcpy(tool_realloc(NULL, bytes), text, bytes);
}

static char *make_room(struct outbuf *buffer, size_t bytes)
{
    if (bytes > SIZE_MAX / 4 - buffer->length)
        die_without_memory();
    if (buffer->capacity - buffer->length < bytes) {
        buffer->capacity = (buffer->length + bytes) * 2;
        buffer->data = tool_realloc(buffer->data, buffer->capacity);
    }
    return buffer->data + buffer->length;
}

void outbuf_append(struct outbuf *buffer, const void *data, size_t length)
{
    if (length == 0)
        return;
    memcpy(make_room(buffer, length), data, length);
    buffer->length += length;
}

void outbuf_text(struct outbuf *buffer, const char *text)
{
    outbuf_append(buffer, text, strlen(text));
}

void outbuf_byte(struct outbuf *buffer, char byte)
{
    *make_room(buffer, 1) = byte;
    buffer->length++;
}

void outbuf_printf(struct outbuf *buffer, const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    va_start(arguments, format);
    (void)vsnprintf(make_room(buffer, (size_t)length + 1), (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->length += (size_t)length;
}

void outbuf_free(struct outbuf *buffer)
{
    free(buffer->data);
    *buffer = (struct outbuf){0};
}

/* Waits until fd takes bytes or the deadline has passed; false: give up. */
static bool may_write(int fd, uint64_t give_up_ns)
{
    struct pollfd ready = {.fd = fd, .events = POLLOUT};

    return poll(&ready, 1, deadline_left_ms(give_up_ns)) > 0;
}

int outbuf_write(struct outbuf *buffer, int fd, const atomic_bool *stop)
{
    size_t done = 0;
    uint64_t give_up_ns = DEADLINE_NEVER;

    while (done < buffer->length) {
        size_t left = buffer->length - done;
        ssize_t part;

        /* Whoever stops us waits for the end of this line, but not for a reader that has stopped. */
        if (stop && *stop) {
            if (give_up_ns == DEADLINE_NEVER)
                give_up_ns = deadline_after_ms(GIVE_UP_AFTER_MS);
            if (!may_write(fd, give_up_ns))
                return EINTR;
            left = min_size(left, 512); /* a pipe that polls writable takes this much at once */
        }
        part = write(fd, buffer->data + done, left);
        if (part < 0 && errno == EAGAIN) { /* somebody made our stdout non-blocking */
            struct pollfd ready = {.fd = fd, .events = POLLOUT};

            (void)poll(&ready, 1, 100);
            continue;
        }
        if (part < 0 && errno != EINTR)
            return errno;
        if (part > 0)
            done += (size_t)part;
    }
    buffer->length = 0;
    return 0;
}

/* Length of the well-formed sequence at `at`, 0 if there is none. */
static size_t measure_utf8(const unsigned char *at, size_t left)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length;
    uint32_t point;

    if (at[0] < 0x80)
        return 1;
    if (at[0] >= 0xc2 && at[0] < 0xe0) {
        length = 2;
        point = at[0] & 0x1fu;
    } else if (at[0] >= 0xe0 && at[0] < 0xf0) {
        length = 3;
        point = at[0] & 0x0fu;
    } else if (at[0] >= 0xf0 && at[0] < 0xf5) {
        length = 4;
        point = at[0] & 0x07u;
    } else {
        return 0;
    }
    if (length > left)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (at[i] & 0x3fu);
    }
    if (point < smallest[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return 0;
    return length;
}

bool text_is_utf8(const void *data, size_t length)
{
    const unsigned char *at = data;

    while (length > 0) {
        size_t step = measure_utf8(at, length);

        if (step == 0)
            return false;
        at += step;
        length -= step;
    }
    return true;
}

void text_append_base64(struct outbuf *buffer, const void *data, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *at = data;
    char *to = make_room(buffer, (length + 2) / 3 * 4);

    for (; length > 0; at += 3) {
        uint32_t bits = (uint32_t)at[0] << 16;
        size_t taken = min_size(length, 3);

        if (taken > 1)
            bits |= (uint32_t)at[1] << 8;
        if (taken > 2)
            bits |= at[2];
        *to++ = digits[bits >> 18];
        *to++ = digits[(bits >> 12) & 63];
        *to++ = taken > 1 ? digits[(bits >> 6) & 63] : '=';
        *to++ = taken > 2 ? digits[bits & 63] : '=';
        length -= taken;
    }
    buffer->length = (size_t)(to - buffer->data);
}

const char *text_iso_time(uint64_t realtime_ns, char ret_text[32])
{
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    struct tm when;
    char date[24] = "?";

    if (gmtime_r(&seconds, &when))
        (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &when);
    (void)snprintf(ret_text, 32, "%s.%03uZ", date, (unsigned)(realtime_ns % NS_PER_S / NS_PER_MS));
    return ret_text;
}

void text_make_printable(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
    }
}
