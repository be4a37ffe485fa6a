/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outbuf.h: bytes on their way out of the tool: a growing buffer, the words that fill it, and the
 * one function that writes it to a descriptor.
 *
 * Owned by one thread. Memory that cannot be had ends the program with exit code 1: a tool has
 * nothing better to do. Only outbuf_write() blocks.
 */
#ifndef SHMQ_TOOLS_OUTBUF_H
#define SHMQ_TOOLS_OUTBUF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libshmq/base.h"

struct outbuf {
    char *data;
    size_t length;
    size_t capacity;
};

void outbuf_append(struct outbuf *buffer, const void *data, size_t length);
void outbuf_text(struct outbuf *buffer, const char *text);
void outbuf_byte(struct outbuf *buffer, char byte);
void outbuf_printf(struct outbuf *buffer, const char *format, ...) PRINTF_LIKE(2, 3);
void outbuf_free(struct outbuf *buffer);

/* Writes everything and empties the buffer; a signal handler's interruption goes on unless
 * *stop is set: then what the descriptor does not take within a second is given up. 0, or a positive
 * errno (EINTR: given up). */
int outbuf_write(struct outbuf *buffer, int fd, const atomic_bool *stop);

/* malloc and strdup that end the program instead of failing. */
void *tool_alloc(size_t bytes);
void *tool_realloc(void *old, size_t bytes);
char *tool_strdup(const char *text);

/* True for well-formed UTF-8 (NUL included): no overlong forms, no surrogates, nothing above U+10FFFF. */
bool text_is_utf8(const void *data, size_t length);

void text_append_base64(struct outbuf *buffer, const void *data, size_t length);

/* "2026-01-31T12:00:00.123Z"; room for 32 bytes. */
const char *text_iso_time(uint64_t realtime_ns, char ret_text[32]);

/* A name from a stranger (a command, a header) without control bytes, in place. */
void text_make_printable(char *text);

#endif
