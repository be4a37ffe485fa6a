/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moment.h: points in time as people type them, for `--from` and its like:
 *
 *     2026-11-25T10:00:00Z   ISO 8601: Z or an offset (+01:00), else local time; a blank instead of the T,
 *                            no seconds, fractions of them, or no time at all (midnight) are fine
 *     -5m                    so long ago
 *     @1764064800            seconds since 1970, with or without a fraction
 *
 * Reads the time zone (TZ); otherwise pure. One thread, because of that.
 */
#ifndef SHMQ_TOOLS_MOMENT_H
#define SHMQ_TOOLS_MOMENT_H

#include <stdbool.h>
#include <stdint.h>

#define MOMENT_HELP "a time (2026-11-25T10:00:00Z, -5m, @1764064800)"

/* Nanoseconds since 1970; `now_ns` is what ages count from. False: it is no such text, or before 1970. */
bool moment_parse(const char *text, uint64_t now_ns, uint64_t *ret_ns);

#endif
