/* SPDX-License-Identifier: Apache-2.0 */
/* See moment.h. */
#include "tools/moment.h"

#include <string.h>
#include <time.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"

/* Exactly `count` digits at *at, which goes on behind them. */
static bool take_digits(const char **at, int count, int *ret_number)
{
    int number = 0;

    for (int i = 0; i < count; i++) {
        char c = (*at)[i];

        if (c < '0' || c > '9')
            return false;
        number = number * 10 + (c - '0');
    }
    *at += count;
    *ret_number = number;
    return true;
}

static bool take(const char **at, char wanted)
{
    if (**at != wanted)
        return false;
    (*at)++;
    return true;
}

/* ".5" and nothing finer than a nanosecond; nothing at all is 0. */
static bool take_fraction(const char **at, uint64_t *ret_ns)
{
    uint64_t scale = NS_PER_S;
    uint64_t ns = 0;
    int digit;

    *ret_ns = 0;
    if (!take(at, '.'))
        return true;
    if (!take_digits(at, 1, &digit))
        return false;
    do {
        scale /= 10;
        ns += (uint64_t)digit * scale;
    } while (take_digits(at, 1, &digit));
    *ret_ns = ns;
    return true;
}

/* True only of days that there are, which timegm() would make others of. */
static bool take_date(const char **at, struct tm *ret_date)
{
    struct tm date = {.tm_isdst = -1};
    struct tm normal;

    if (!take_digits(at, 4, &date.tm_year) || !take(at, '-') || !take_digits(at, 2, &date.tm_mon) ||
        !take(at, '-') || !take_digits(at, 2, &date.tm_mday))
        return false;
    date.tm_year -= 1900;
    date.tm_mon--;
    normal = date;
    (void)timegm(&normal);
    if (normal.tm_mon != date.tm_mon || normal.tm_mday != date.tm_mday)
        return false;
    *ret_date = date;
    return true;
}

static bool take_time(const char **at, struct tm *date, uint64_t *ret_fraction_ns)
{
    *ret_fraction_ns = 0;
    if (!take_digits(at, 2, &date->tm_hour) || !take(at, ':') || !take_digits(at, 2, &date->tm_min))
        return false;
    if (take(at, ':') &&
        (!take_digits(at, 2, &date->tm_sec) || !take_fraction(at, ret_fraction_ns)))
        return false;
    return date->tm_hour < 24 && date->tm_min < 60 && date->tm_sec < 61;
}

/* Z, +01:00, -0530 or nothing; *ret_local: nothing. */
static bool take_zone(const char **at, int *ret_seconds_east, bool *ret_local)
{
    int hours, minutes = 0;
    bool west;

    *ret_seconds_east = 0;
    *ret_local = **at == '\0';
    if (*ret_local || take(at, 'Z') || take(at, 'z'))
        return true;
    west = **at == '-';
    if ((!take(at, '+') && !take(at, '-')) || !take_digits(at, 2, &hours))
        return false;
    if ((take(at, ':') || **at != '\0') && !take_digits(at, 2, &minutes))
        return false;
    *ret_seconds_east = (hours * 60 + minutes) * (west ? -60 : 60);
    return hours < 24 && minutes < 60;
}

static bool parse_iso(const char *text, uint64_t *ret_ns)
{
    uint64_t fraction_ns = 0;
    int seconds_east = 0;
    bool local = true;
    struct tm date;
    time_t seconds;

    if (!take_date(&text, &date))
        return false;
    if ((take(&text, 'T') || take(&text, 't') || take(&text, ' ')) &&
        (!take_time(&text, &date, &fraction_ns) || !take_zone(&text, &seconds_east, &local)))
        return false;
    if (*text != '\0')
        return false;
    seconds = local ? mktime(&date) : timegm(&date) - seconds_east;
    if (seconds < 0 || (uint64_t)seconds > UINT64_MAX / NS_PER_S - 1)
        return false;
    *ret_ns = (uint64_t)seconds * NS_PER_S + fraction_ns;
    return true;
}

static bool parse_age(const char *text, uint64_t now_ns, uint64_t *ret_ns)
{
    struct error_buffer why;
    uint64_t age_ns;

    if (units_parse_duration(text, &age_ns, &why) < 0)
        return false;
    *ret_ns = now_ns > age_ns ? now_ns - age_ns : 0;
    return true;
}

static bool parse_seconds(const char *text, uint64_t *ret_ns)
{
    char whole[24];
    size_t length = strcspn(text, ".");
    const char *rest = text + length;
    struct error_buffer why;
    uint64_t seconds, fraction_ns;

    if (length >= sizeof(whole))
        return false;
    memcpy(whole, text, length);
    whole[length] = '\0';
    if (units_parse_count(whole, 0, UINT64_MAX / NS_PER_S - 1, &seconds, &why) < 0 ||
        !take_fraction(&rest, &fraction_ns) || *rest != '\0')
        return false;
    *ret_ns = seconds * NS_PER_S + fraction_ns;
    return true;
}

bool moment_parse(const char *text, uint64_t now_ns, uint64_t *ret_ns)
{
    if (text[0] == '-')
        return parse_age(text + 1, now_ns, ret_ns);
    if (text[0] == '@')
        return parse_seconds(text + 1, ret_ns);
    return parse_iso(text, ret_ns);
}
