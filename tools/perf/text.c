/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.c: figures as people read them, in tables and plots: three digits and the unit that
 * fits. Files for programs (JSON, CSV) have the plain numbers instead.
 *
 * Times and rates go in powers of 1,000, memory in those of 1,024. Pure; any thread.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tools/perf/perf.h"

/* Ascending; a value takes the last one that it reaches. */
struct scale {
    double factor;
    const char *suffix;
};

static const struct scale TIME[] = {{1, " ns"}, {1e3, " µs"}, {1e6, " ms"}, {1e9, " s"}};
static const struct scale RATE[] = {{1, "/s"}, {1e3, " k/s"}, {1e6, " M/s"}, {1e9, " G/s"}};
static const struct scale BANDWIDTH[] = {
    {1, " B/s"}, {1e3, " kB/s"}, {1e6, " MB/s"}, {1e9, " GB/s"}, {1e12, " TB/s"}};
static const struct scale COUNT[] = {{1, ""}, {1e3, " k"}, {1e6, " M"}, {1e9, " G"}};
static const struct scale MEMORY[] = {
    {1, " B"}, {0x1p10, " KiB"}, {0x1p20, " MiB"}, {0x1p30, " GiB"}, {0x1p40, " TiB"}};

/* 999.6 ns must not come out as "1000 ns". */
static const struct scale *pick(const struct scale *scales, size_t count, double value)
{
    const struct scale *picked = scales;

    for (size_t i = 1; i < count; i++) {
        if (value >= scales[i].factor * 0.9995)
            picked = &scales[i];
    }
    return picked;
}

static const struct scale *scale_of(double value, enum perf_unit unit)
{
    switch (unit) {
    case PERF_NS:
        return pick(TIME, COUNT_OF(TIME), value);
    case PERF_MESSAGES_PER_S:
    case PERF_OPERATIONS_PER_S:
        return pick(RATE, COUNT_OF(RATE), value);
    case PERF_BYTES_PER_S:
        return pick(BANDWIDTH, COUNT_OF(BANDWIDTH), value);
    case PERF_BYTES:
        return pick(MEMORY, COUNT_OF(MEMORY), value);
    case PERF_COUNT:
        break;
    }
    return pick(COUNT, COUNT_OF(COUNT), value);
}

/* Places behind the point for three digits in all. Bytes and counts that are whole have none. */
static int places_of(double scaled, double factor, enum perf_unit unit)
{
    bool whole =
        (unit == PERF_COUNT || unit == PERF_BYTES) && factor <= 1 && scaled == rint(scaled);

    if (whole || scaled == 0 || scaled >= 99.95)
        return 0;
    return scaled >= 9.995 ? 1 : 2;
}

static bool is_sayable(double value)
{
    return isfinite(value) && value >= 0;
}

static const char *say_nothing(char text[PERF_TEXT_BYTES])
{
    (void)snprintf(text, PERF_TEXT_BYTES, "-");
    return text;
}

const char *perf_text_value(double value, enum perf_unit unit, char text[PERF_TEXT_BYTES])
{
    const struct scale *scale = scale_of(value, unit);
    double scaled = value / scale->factor;

    if (!is_sayable(value))
        return say_nothing(text);
    if (scaled >= 99999.5)
        (void)snprintf(text, PERF_TEXT_BYTES, "%.2e%s", scaled, scale->suffix);
    else
        (void)snprintf(text, PERF_TEXT_BYTES, "%.*f%s", places_of(scaled, scale->factor, unit),
                       scaled, scale->suffix);
    return text;
}

const char *perf_text_round(double value, enum perf_unit unit, char text[PERF_TEXT_BYTES])
{
    const struct scale *scale = scale_of(value, unit);

    if (!is_sayable(value))
        return say_nothing(text);
    (void)snprintf(text, PERF_TEXT_BYTES, "%.4g%s", value / scale->factor, scale->suffix);
    return text;
}

const char *perf_text_range(double low, double high, enum perf_unit unit,
                            char text[PERF_TEXT_BYTES])
{
    const struct scale *scale = scale_of(high, unit);
    char low_text[PERF_TEXT_BYTES];
    char high_text[PERF_TEXT_BYTES];
    int places;

    if (!is_sayable(low) || !is_sayable(high))
        return say_nothing(text);
    if (scale_of(low, unit) != scale || high / scale->factor >= 99999.5) {
        (void)snprintf(text, PERF_TEXT_BYTES, "%.20s–%.20s", perf_text_value(low, unit, low_text),
                       perf_text_value(high, unit, high_text));
        return text;
    }
    places = places_of(high / scale->factor, scale->factor, unit);
    (void)snprintf(text, PERF_TEXT_BYTES, "%.*f–%.*f%s", places, low / scale->factor, places,
                   high / scale->factor, scale->suffix);
    return text;
}

const char *perf_text_ratio(double ratio, char text[PERF_TEXT_BYTES])
{
    int places = ratio < 0.0995 ? 3 : ratio < 9.995 ? 2 : ratio < 99.95 ? 1 : 0;

    if (!is_sayable(ratio))
        return say_nothing(text);
    if (ratio >= 99999.5 || (ratio > 0 && ratio < 0.00995))
        (void)snprintf(text, PERF_TEXT_BYTES, "%.2g", ratio);
    else
        (void)snprintf(text, PERF_TEXT_BYTES, "%.*f", ratio == 0 ? 0 : places, ratio);
    return text;
}

const char *perf_text_size(uint64_t bytes, char text[PERF_TEXT_BYTES])
{
    const struct scale *scale = pick(MEMORY, COUNT_OF(MEMORY), (double)bytes);

    text[0] = '\0';
    if (bytes == 0)
        return text;
    /* %g: sizes are what somebody asked for, so "4 KiB", not "4.00 KiB". */
    if ((double)bytes / scale->factor < 1) /* a few bytes short of the next unit */
        (void)snprintf(text, PERF_TEXT_BYTES, "%" PRIu64 " B", bytes);
    else
        (void)snprintf(text, PERF_TEXT_BYTES, "%.4g%s", (double)bytes / scale->factor,
                       scale->suffix);
    return text;
}

const char *perf_text_percentile(double percentile, char text[PERF_TEXT_BYTES])
{
    (void)snprintf(text, PERF_TEXT_BYTES, "%.7g", percentile);
    return text;
}

static void append_unless_said(char text[PERF_WHAT_BYTES], const char *what, const char *part)
{
    size_t length = strlen(text);

    if (*part && !strstr(what, part))
        (void)snprintf(text + length, PERF_WHAT_BYTES - length, ", %s", part);
}

const char *perf_text_comparison(const struct perf_comparison *comparison,
                                 char text[PERF_WHAT_BYTES])
{
    char size[PERF_TEXT_BYTES];

    (void)snprintf(text, PERF_WHAT_BYTES, "%s", comparison->what);
    append_unless_said(text, comparison->what, perf_text_size(comparison->size, size));
    append_unless_said(text, comparison->what, comparison->distance);
    return text;
}
