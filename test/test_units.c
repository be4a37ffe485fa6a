/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and durations as people type and read them. */
#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "test/support/test.h"

#include <string.h>

static uint64_t size_of(const char *text)
{
    uint64_t bytes = 77;

    CHECK_OK(units_parse_size(text, &bytes, NULL));
    return bytes;
}

static uint64_t duration_of(const char *text)
{
    uint64_t ns = 77;

    CHECK_OK(units_parse_duration(text, &ns, NULL));
    return ns;
}

TEST(sizes_take_powers_of_1024)
{
    CHECK_EQ(size_of("0"), 0);
    CHECK_EQ(size_of("65537"), 65537);
    CHECK_EQ(size_of("64K"), 65536);
    CHECK_EQ(size_of("64k"), 65536);
    CHECK_EQ(size_of("3M"), 3u << 20);
    CHECK_EQ(size_of("2G"), UINT64_C(2) << 30);
    CHECK_EQ(size_of("1T"), UINT64_C(1) << 40);
    CHECK_EQ(size_of("9223372036854775807"), INT64_MAX);
}

TEST(bad_sizes_are_refused_and_leave_the_result_alone)
{
    static const char *const BAD[] = {"",
                                      " 1",
                                      "-1",
                                      "+1",
                                      "0x10",
                                      "1 K",
                                      "K",
                                      "1KB",
                                      "1.5M",
                                      "1K ",
                                      "12Q",
                                      "18446744073709551616",
                                      "1e3",
                                      "9007199254740992K",
                                      "9223372036854775808",
                                      "8388608T"};

    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        struct error_buffer why = {""};
        uint64_t bytes = 77;

        test_context("'%s' ", BAD[i]);
        CHECK_ERR(units_parse_size(BAD[i], &bytes, &why), SHMQ_EINVAL);
        CHECK_EQ(bytes, 77);
        CHECK_CONTAINS(why.text, BAD[i]);
        CHECK_CONTAINS(why.text, "; give");
    }
}

TEST(durations_need_a_unit)
{
    static const char *const BAD[] = {"",     "1",  "5 m", "-1s",     "1.5s",         "1us",
                                      "1ns",  "ms", "1M",  "forever", "18446744074s", "106752d",
                                      "1h30m"};

    CHECK_EQ(duration_of("0"), 0);
    CHECK_EQ(duration_of("0s"), 0);
    CHECK_EQ(duration_of("500ms"), 500 * NS_PER_MS);
    CHECK_EQ(duration_of("1s"), NS_PER_S);
    CHECK_EQ(duration_of("5m"), 300 * NS_PER_S);
    CHECK_EQ(duration_of("2h"), 7200 * NS_PER_S);
    CHECK_EQ(duration_of("7d"), 7 * 86400 * NS_PER_S);
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        struct error_buffer why = {""};
        uint64_t ns = 77;

        test_context("'%s' ", BAD[i]);
        CHECK_ERR(units_parse_duration(BAD[i], &ns, &why), SHMQ_EINVAL);
        CHECK_EQ(ns, 77);
        CHECK_CONTAINS(why.text, BAD[i]);
    }
}

TEST(linger_may_be_forever)
{
    struct error_buffer why;
    uint64_t ns;

    CHECK_OK(units_parse_linger("forever", &ns, &why));
    CHECK_EQ(ns, UNITS_FOREVER);
    CHECK_OK(units_parse_linger("5m", &ns, &why));
    CHECK_EQ(ns, 300 * NS_PER_S);
    CHECK_ERR(units_parse_linger("never", &ns, &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, "'forever'");
}

TEST(counts_are_bounded)
{
    struct error_buffer why;
    uint64_t count = 0;

    CHECK_OK(units_parse_count("64", 1, 64, &count, &why));
    CHECK_EQ(count, 64);
    CHECK_ERR(units_parse_count("0", 1, 64, &count, &why), SHMQ_EINVAL);
    CHECK_ERR(units_parse_count("65", 1, 64, &count, &why), SHMQ_EINVAL);
    CHECK_ERR(units_parse_count("64K", 1, 64, &count, &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, "from 1 to 64");
}

TEST(what_is_formatted_parses_back)
{
    struct test_random random;
    char text[UNITS_TEXT_BYTES];

    test_random_init(&random, test_seed());
    for (int i = 0; i < 20000; i++) {
        /* All magnitudes, and round numbers among them. */
        uint64_t value = test_random_next(&random) >> (1 + test_random_below(&random, 62));

        if (i % 2)
            value &= ~UINT64_C(0) << test_random_below(&random, 40);
        CHECK_EQ(size_of(units_format_size(value, text)), value);
        value = value / NS_PER_MS * NS_PER_MS;
        CHECK_EQ(duration_of(units_format_duration(value, text)), value);
    }
    CHECK_STR_EQ(units_format_size(65536, text), "64K");
    CHECK_STR_EQ(units_format_size(65537, text), "65537");
    CHECK_STR_EQ(units_format_duration(300 * NS_PER_S, text), "5m");
    CHECK_STR_EQ(units_format_duration(UNITS_FOREVER, text), "forever");
    CHECK_STR_EQ(units_format_duration(0, text), "0s");
}

TEST(what_is_shown_is_short_and_never_too_much)
{
    char text[UNITS_TEXT_BYTES];

    CHECK_STR_EQ(units_show_size(0, text), "0");
    CHECK_STR_EQ(units_show_size(1023, text), "1023");
    CHECK_STR_EQ(units_show_size(1024, text), "1K");
    CHECK_STR_EQ(units_show_size(1536, text), "1.5K");
    CHECK_STR_EQ(units_show_size(10239, text), "9.9K");
    CHECK_STR_EQ(units_show_size(10240 + 1023, text), "10K");
    CHECK_STR_EQ(units_show_size(UINT64_MAX, text), "16777215T");
    CHECK_STR_EQ(units_show_duration(0, text), "0s");
    CHECK_STR_EQ(units_show_duration(999, text), "999ns");
    CHECK_STR_EQ(units_show_duration(2500 * NS_PER_US, text), "2.5ms");
    CHECK_STR_EQ(units_show_duration(59 * NS_PER_S, text), "59s");
    CHECK_STR_EQ(units_show_duration(61 * NS_PER_S, text), "1m1s");
    CHECK_STR_EQ(units_show_duration(60 * NS_PER_S + 5, text), "1m");
    CHECK_STR_EQ(units_show_duration(27 * 3600 * NS_PER_S, text), "1d3h");
    CHECK_STR_EQ(units_show_duration(UNITS_FOREVER, text), "forever");
}

TEST_MAIN("units", T(sizes_take_powers_of_1024),
          T(bad_sizes_are_refused_and_leave_the_result_alone), T(durations_need_a_unit),
          T(linger_may_be_forever), T(counts_are_bounded), T(what_is_formatted_parses_back),
          T(what_is_shown_is_short_and_never_too_much))
