/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as sentences. A failing function fills the caller's error_buffer with one line,
 * `what: why; what to do`, and returns the negative SHMQ_E* code, which travels up unchanged.
 *
 * No state of its own: the buffer belongs to the handle whose call failed, and is as thread-safe as
 * that handle. Nothing here blocks or allocates. It formats, so keep it out of hot paths: those
 * return the bare code and let the cold caller find the words.
 */
#ifndef SHMQ_ERROR_H
#define SHMQ_ERROR_H

#include "libshmq/base.h"
#include "libshmq/shmq_errors.h"

struct error_buffer {
    char text[512];
};

/* The kind of error in a few words, for shmq_strerror(). Never NULL, also for unknown codes. */
const char *error_text(int code);

/* The name of the enumerator ("SHMQ_EFULL"), for logs and --json. Never NULL. */
const char *error_name(int code);

/* What to do next, as an imperative without a full stop; "" where only the caller can know. */
const char *error_remedy(int code);

/* Writes the line and returns `code`. `buffer` may be NULL. Control bytes (names come from strangers)
 * become '?', and a line that does not fit ends in "...". */
int error_set(struct error_buffer *buffer, int code, const char *format, ...)
    PRINTF_LIKE(3, 4) COLD;

/* The same for a failed system call: `<format>: <words of errno>; <remedy>`; returns the code of
 * error_from_errno(). */
int error_set_errno(struct error_buffer *buffer, int error_number, const char *format, ...)
    PRINTF_LIKE(3, 4) COLD;

/* Adds the name of the thing one layer up: "<prefix>: <old text>". Returns `code`. */
int error_prefix(struct error_buffer *buffer, int code, const char *format, ...)
    PRINTF_LIKE(3, 4) COLD;

/* A positive errno to the code that says the same; SHMQ_ESYS if none does. */
int error_from_errno(int error_number);

/* The system's words for an errno, written to `buffer` where need be. Safe in any thread. */
const char *error_errno_text(int error_number, char *buffer, size_t buffer_bytes);

#ifdef __clang_analyzer__
/* It does not look into error.c, and would follow paths on which a failure is none. */
#define error_set(buffer, code, ...)       ((error_set)(buffer, code, __VA_ARGS__), (code))
#define error_prefix(buffer, code, ...)    ((error_prefix)(buffer, code, __VA_ARGS__), (code))
#define error_set_errno(buffer, code, ...) ((error_set_errno)(buffer, code, __VA_ARGS__), SHMQ_ESYS)
#endif

#endif
