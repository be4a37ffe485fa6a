/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and durations; see units.h. */
#include "libshmq/units.h"

#include "libshmq/clock.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_MINUTE (60 * NS_PER_S)
#define NS_PER_HOUR   (60 * NS_PER_MINUTE)
#define NS_PER_DAY    (24 * NS_PER_HOUR)

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: formatting takes the first that divides. */
static const struct unit SIZE_UNITS[] = {
    {"T", UINT64_C(1) << 40},
    {"G", UINT64_C(1) << 30},
    {"M", UINT64_C(1) << 20},
    {"K", UINT64_C(1) << 10},
};

static const struct unit TIME_UNITS[] = {
    {"d", NS_PER_DAY}, {"h", NS_PER_HOUR}, {"m", NS_PER_MINUTE}, {"s", NS_PER_S}, {"ms", NS_PER_MS},
    {"us", NS_PER_US}, {"ns", 1},
};

/* Digits only: strtoull would take signs, blanks and 0x, and wrap "-1" around. Returns what follows
 * the number, or NULL if there is none or it overflows. */
static const char *parse_digits(const char *text, uint64_t *ret_number)
{
    uint64_t number = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');

        if (number > (UINT64_MAX - digit) / 10)
            return NULL;
        number = number * 10 + digit;
    }
    if (at == text)
        return NULL;
    *ret_number = number;
    return at;
}

static bool multiply(uint64_t number, uint64_t factor, uint64_t *ret_product)
{
    return !__builtin_mul_overflow(number, factor, ret_product);
}

int units_parse_size(const char *text, uint64_t *ret_bytes, struct error_buffer *why)
{
    uint64_t number;
    uint64_t bytes;
    uint64_t factor = 0;
    const char *rest = parse_digits(text, &number);

    if (rest && !*rest)
        factor = 1;
    for (size_t i = 0; rest && i < COUNT_OF(SIZE_UNITS); i++) {
        /* Bit 5 is the case of an ASCII letter. */
        if ((rest[0] | 0x20) == (SIZE_UNITS[i].name[0] | 0x20) && !rest[1])
            factor = SIZE_UNITS[i].factor;
    }
    if (factor == 0)
        return error_set(why, SHMQ_EINVAL,
                         "'%.40s' is not a size; give a number, with K, M or G if you like (64K)",
                         text);
    if (!multiply(number, factor, &bytes) || bytes > INT64_MAX)
        return error_set(why, SHMQ_EINVAL, "'%.40s' is larger than any size here; give less", text);
    *ret_bytes = bytes;
    return 0;
}

int units_parse_duration(const char *text, uint64_t *ret_ns, struct error_buffer *why)
{
    uint64_t number;
    uint64_t ns;
    uint64_t factor = 0;
    const char *rest = parse_digits(text, &number);

    if (rest && !*rest && number == 0)
        factor = 1;
    for (size_t i = 0; rest && i < COUNT_OF(TIME_UNITS); i++) {
        if (TIME_UNITS[i].factor >= NS_PER_MS && strcmp(rest, TIME_UNITS[i].name) == 0)
            factor = TIME_UNITS[i].factor;
    }
    if (factor == 0)
        return error_set(why, SHMQ_EINVAL,
                         "'%.40s' is not a duration; give a number and one of ms, s, m, h, d "
                         "(500ms, 5m)",
                         text);
    if (!multiply(number, factor, &ns) || ns > INT64_MAX)
        return error_set(why, SHMQ_EINVAL, "'%.40s' is longer than 292 years; give less", text);
    *ret_ns = ns;
    return 0;
}

int units_parse_linger(const char *text, uint64_t *ret_ns, struct error_buffer *why)
{
    int rc;

    if (strcmp(text, "forever") == 0) {
        *ret_ns = UNITS_FOREVER;
        return 0;
    }
    rc = units_parse_duration(text, ret_ns, why);
    if (rc < 0)
        return error_set(why, rc,
                         "'%.40s' is not a duration; give a number and one of ms, s, m, h, d (5m), "
                         "or 'forever'",
                         text);
    return 0;
}

int units_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *ret_count,
                      struct error_buffer *why)
{
    uint64_t number;
    const char *rest = parse_digits(text, &number);

    if (!rest || *rest || number < min || number > max)
        return error_set(why, SHMQ_EINVAL,
                         "'%.40s' is not a number from %" PRIu64 " to %" PRIu64 "; give one", text,
                         min, max);
    *ret_count = number;
    return 0;
}

static const char *format_exact(uint64_t value, const struct unit *units, size_t unit_count,
                                const char *zero, char buffer[UNITS_TEXT_BYTES])
{
    for (size_t i = 0; i < unit_count; i++) {
        if (value != 0 && value % units[i].factor == 0) {
            (void)snprintf(buffer, UNITS_TEXT_BYTES, "%" PRIu64 "%s", value / units[i].factor,
                           units[i].name);
            return buffer;
        }
    }
    (void)snprintf(buffer, UNITS_TEXT_BYTES, "%" PRIu64 "%s", value, value ? "" : zero);
    return buffer;
}

const char *units_format_size(uint64_t bytes, char buffer[UNITS_TEXT_BYTES])
{
    return format_exact(bytes, SIZE_UNITS, COUNT_OF(SIZE_UNITS), "", buffer);
}

const char *units_format_duration(uint64_t ns, char buffer[UNITS_TEXT_BYTES])
{
    if (ns == UNITS_FOREVER) {
        (void)snprintf(buffer, UNITS_TEXT_BYTES, "forever");
        return buffer;
    }
    return format_exact(ns, TIME_UNITS, COUNT_OF(TIME_UNITS), "s", buffer);
}

/* "9.9K" but "10K": one decimal below ten, none above. */
static const char *show_scaled(uint64_t value, const struct unit *unit,
                               char buffer[UNITS_TEXT_BYTES])
{
    uint64_t whole = value / unit->factor;
    uint64_t rest = value % unit->factor;

    if (whole < 10 && unit->factor >= 10 && rest != 0)
        (void)snprintf(buffer, UNITS_TEXT_BYTES, "%" PRIu64 ".%" PRIu64 "%s", whole,
                       rest / (unit->factor / 10) > 9 ? UINT64_C(9) : rest / (unit->factor / 10),
                       unit->name);
    else
        (void)snprintf(buffer, UNITS_TEXT_BYTES, "%" PRIu64 "%s", whole, unit->name);
    return buffer;
}

const char *units_show_size(uint64_t bytes, char buffer[UNITS_TEXT_BYTES])
{
    for (size_t i = 0; i < COUNT_OF(SIZE_UNITS); i++) {
        if (bytes >= SIZE_UNITS[i].factor)
            return show_scaled(bytes, &SIZE_UNITS[i], buffer);
    }
    (void)snprintf(buffer, UNITS_TEXT_BYTES, "%" PRIu64, bytes);
    return buffer;
}

const char *units_show_duration(uint64_t ns, char buffer[UNITS_TEXT_BYTES])
{
    if (ns == UNITS_FOREVER || ns == 0)
        return units_format_duration(ns, buffer);
    for (size_t i = 0; i < COUNT_OF(TIME_UNITS); i++) {
        uint64_t factor = TIME_UNITS[i].factor;

        if (ns < factor)
            continue;
        /* From a minute up, fractions are read as the next smaller unit: 1h30m, not 1.5h. */
        if (factor >= NS_PER_MINUTE && ns % factor >= TIME_UNITS[i + 1].factor) {
            (void)snprintf(buffer, UNITS_TEXT_BYTES, "%" PRIu64 "%s%" PRIu64 "%s", ns / factor,
                           TIME_UNITS[i].name, ns % factor / TIME_UNITS[i + 1].factor,
                           TIME_UNITS[i + 1].name);
            return buffer;
        }
        if (factor >= NS_PER_MINUTE)
            ns -= ns % factor;
        return show_scaled(ns, &TIME_UNITS[i], buffer);
    }
    return buffer;
}
