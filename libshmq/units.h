/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and durations as people type and read them: `64K`, `1G`, `500ms`, `5m`. One parser and one
 * formatter for the command line, the config file and every table that a tool prints.
 *
 * Pure, any thread, nothing blocks. Errors quote the text and say what would have been right; the
 * caller puts the name of the option or key in front (error_prefix).
 */
#ifndef SHMQ_UNITS_H
#define SHMQ_UNITS_H

#include "libshmq/base.h"
#include "libshmq/error.h"

#define UNITS_FOREVER    UINT64_MAX /* what "forever" parses to, and prints as */
#define UNITS_TEXT_BYTES 32         /* enough for everything that is formatted here */

/* A decimal number, then nothing, K, M, G or T (either case; powers of 1024). 0 or SHMQ_EINVAL. */
int units_parse_size(const char *text, uint64_t *ret_bytes, struct error_buffer *why);

/* A decimal number and one of ms, s, m, h, d; a bare 0 as well. 0 or SHMQ_EINVAL. */
int units_parse_duration(const char *text, uint64_t *ret_ns, struct error_buffer *why);

/* The same, or the word `forever`: UNITS_FOREVER. */
int units_parse_linger(const char *text, uint64_t *ret_ns, struct error_buffer *why);

/* A decimal number from `min` to `max`, without a unit. 0 or SHMQ_EINVAL. */
int units_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *ret_count,
                      struct error_buffer *why);

/* Exact, in the largest unit that divides: 65536 is "64K", 65537 is "65537". Parses back to the same
 * number, save that durations below a millisecond, which nobody types, come out in us and ns. */
const char *units_format_size(uint64_t bytes, char buffer[UNITS_TEXT_BYTES]);
const char *units_format_duration(uint64_t ns, char buffer[UNITS_TEXT_BYTES]);

/* For eyes, three digits or so: "1.4G", "831", "2.5ms", "3d4h". Rounded down, so that "1.0G" is never
 * more than there is. */
const char *units_show_size(uint64_t bytes, char buffer[UNITS_TEXT_BYTES]);
const char *units_show_duration(uint64_t ns, char buffer[UNITS_TEXT_BYTES]);

#endif
