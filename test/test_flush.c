/* SPDX-License-Identifier: Apache-2.0 */
/* Rings to journals: what each policy promises, and what is in the files. That no promise comes before its write or
 * sync is checked by the rig at every call; see test/support/flush_rig.h. */
#include "libshmq/clock.h"
#include "libshmq/record.h"
#include "test/support/flush_rig.h"

#include <stdio.h>
#include <string.h>

#define HOUR_NS (3600 * NS_PER_S)
/* Files with room for 8 KiB of records. */
#define SMALL_FILE (UINT64_C(4096) + 8192)

static struct rig rig;
static struct rig_file files[RIG_FILES_MAX];

static struct rig_log *begin(enum durable_mode durability, const struct rig_options *more)
{
    struct rig_options options = *more;

    options.durability = durability;
    options.base = options.base ? options.base : 4096;
    rig_init(&rig);
    return rig_add(&rig, &options);
}

/* All is durable, and stands in the files. */
static uint32_t finish(struct rig_log *log)
{
    uint32_t count;

    CHECK(rig_wait_all(log));
    CHECK_EQ(rig_durable(log), rig_tail(log));
    count = rig_check(log, files);
    rig_deinit(&rig);
    return count;
}

static const struct rig_options PLAIN = {.capacity = 0};

/* ---- policies -------------------------------------------------------------------------------- */

TEST(os_is_durable_after_the_write_and_waits_for_no_disk)
{
    struct rig_log *log = begin(DURABLE_OS, &PLAIN);

    rig_hold(&rig, IO_WRITE, true);
    rig_publish(log, 1, 100);
    REQUIRE(rig_wait_held(&rig, 1));
    test_sleep_ms(10);
    CHECK_EQ(rig_durable(log), 4096);
    rig_release(&rig);
    CHECK(rig_wait_all(log));
    rig_publish(log, 2000, 100);
    CHECK(rig_wait_all(log));
    CHECK_EQ(rig_data_syncs(log), 0);
    CHECK_EQ(rig_status(log).durable, rig_tail(log));
    CHECK_EQ(finish(log), 1);
}

TEST(always_is_durable_when_the_sync_has_returned)
{
    struct rig_log *log = begin(DURABLE_ALWAYS, &PLAIN);

    for (int i = 0; i < 3; i++) {
        uint64_t before = rig_tail(log);

        rig_hold(&rig, IO_SYNC, true);
        rig_publish(log, 1, 33);
        REQUIRE(rig_wait_held(&rig, 1));
        test_sleep_ms(10);
        CHECK_EQ(rig_durable(log), before);
        rig_release(&rig);
        CHECK(rig_wait_all(log));
        CHECK_EQ(rig_data_syncs(log), (unsigned)i + 1);
    }
    CHECK_EQ(rig_status(log).syncs, 3);
    (void)finish(log);
}

TEST(one_sync_is_for_all_that_gathered_during_the_last_one)
{
    struct rig_log *log = begin(DURABLE_ALWAYS, &PLAIN);

    rig_hold(&rig, IO_SYNC, true);
    rig_publish(log, 1, 100);
    REQUIRE(rig_wait_held(&rig, 1));
    rig_publish(log, 200, 100);
    rig_release(&rig);
    CHECK(rig_wait_all(log));
    CHECK(rig_data_syncs(log) <= 3);
    (void)finish(log);
}

TEST(a_sync_says_nothing_of_what_is_written_while_it_runs)
{
    struct rig_options options = {.sync_interval_ns = NS_PER_MS};
    struct rig_log *log = begin(DURABLE_INTERVAL, &options);
    uint64_t first;

    rig_hold(&rig, IO_SYNC, true);
    rig_publish(log, 1, 100);
    REQUIRE(rig_wait_held(&rig, 1));
    first = rig_tail(log);
    rig_publish(log, 10, 100);
    REQUIRE(rig_wait_written(log));
    rig_let_one_pass(&rig);
    REQUIRE(rig_wait_held(&rig, 1)); /* the next one */
    CHECK_EQ(rig_durable(log), first);
    CHECK_EQ(atomic_load(&rig_state(log)->journal_messages), 1);
    rig_release(&rig);
    (void)finish(log);
}

TEST(interval_waits_for_the_clock)
{
    const uint64_t interval_ns = 200 * NS_PER_MS;
    struct rig_options options = {.sync_interval_ns = interval_ns};
    struct rig_log *log = begin(DURABLE_INTERVAL, &options);

    for (int i = 0; i < 3; i++) {
        uint64_t begun_ns = test_now_ns();
        uint64_t took_ns;

        rig_publish(log, 3, 100);
        CHECK(rig_wait_all(log));
        took_ns = test_now_ns() - begun_ns;
        CHECK(took_ns >= interval_ns);
        CHECK(took_ns < interval_ns + (uint64_t)test_scaled_ms(1500) * NS_PER_MS);
        CHECK_EQ(rig_data_syncs(log), (unsigned)i + 1);
    }
    (void)finish(log);
}

TEST(half_a_ring_that_is_not_safe_does_not_wait_for_the_clock)
{
    struct rig_options options = {.sync_interval_ns = HOUR_NS};
    struct rig_log *log = begin(DURABLE_INTERVAL, &options);

    rig_publish(log, 31, 992); /* of 1 KiB each, in a ring of 64 */
    test_sleep_ms(50);
    CHECK_EQ(rig_durable(log), 4096);
    CHECK_EQ(rig_data_syncs(log), 0);
    rig_publish(log, 1, 992);
    CHECK(rig_wait_all(log));
    rig_publish(log, 1000, 992); /* nor does whoever publishes much */
    rig_stop(&rig, true);
    CHECK_EQ(rig_durable(log), rig_tail(log));
    (void)finish(log);
}

TEST(a_shorter_interval_counts_at_once)
{
    struct rig_options options = {.sync_interval_ns = HOUR_NS};
    struct flush_options shorter = {.sync_interval_ns = NS_PER_MS};
    struct rig_log *log = begin(DURABLE_INTERVAL, &options);

    rig_publish(log, 1, 100);
    test_sleep_ms(50);
    CHECK_EQ(rig_durable(log), 4096);
    flush_set_options(log->log, &shorter);
    (void)finish(log);
}

/* ---- files ----------------------------------------------------------------------------------- */

TEST(a_file_is_filled_to_its_last_byte_and_no_record_is_split)
{
    static const enum durable_mode MODES[] = {DURABLE_OS, DURABLE_INTERVAL, DURABLE_ALWAYS};
    struct rig_options options = {
        .file_first = SMALL_FILE, .file_most = SMALL_FILE, .sync_interval_ns = NS_PER_MS};

    for (size_t i = 0; i < COUNT_OF(MODES); i++) {
        struct rig_log *log = begin(MODES[i], &options);

        test_context("mode %zu ", i);
        rig_publish(log, 8, 1024 - 32);
        CHECK(rig_wait_all(log));
        CHECK_EQ(rig_check(log, files), 1);
        rig_publish(log, 1, 1024 - 32);
        CHECK(rig_wait_all(log));
        CHECK_EQ(rig_check(log, files), 2);
        CHECK_EQ(files[1].header.base, 4096 + 8192);
        CHECK_EQ(files[1].header.previous_end, files[1].header.base);
        CHECK_EQ(files[1].header.durable, files[1].header.base);
        CHECK_EQ(files[1].header.messages, 8);
        rig_publish(log, 2, 4096 - 32); /* of which one still fits */
        CHECK_EQ(finish(log), 3);
        CHECK_EQ(files[2].header.base, 4096 + 8192 + 1024 + 4096);
        CHECK_EQ(files[2].header.max_timestamp_ns, 1000);
    }
}

TEST(a_record_may_be_larger_than_the_buffer_and_than_a_file)
{
    struct rig_options options = {
        .capacity = UINT64_C(8) << 20, .file_first = 65536, .file_most = 131072};
    struct rig_log *log = begin(DURABLE_ALWAYS, &options);

    for (int i = 0; i < 6; i++) {
        rig_publish(log, 1, (1 << 20) - 32); /* the largest there is */
        rig_publish(log, 10, 500);
        rig_publish(log, 1, FLUSH_BUFFER_BYTES - 32); /* just the buffer */
        rig_publish(log, 1, FLUSH_BUFFER_BYTES - 31);
    }
    CHECK(finish(log) >= 6);
}

TEST(what_retention_lets_go_is_unlinked_in_the_background)
{
    struct rig_options options = {
        .file_first = SMALL_FILE, .file_most = SMALL_FILE, .retain_bytes = 5 * SMALL_FILE};
    struct rig_log *log = begin(DURABLE_OS, &options);
    uint64_t deadline_ns = deadline_after_ms(test_scaled_ms(RIG_WAIT_MS));
    size_t count;
    uint64_t bytes, first;

    rig_publish(log, 400, 992);
    CHECK(rig_wait_all(log));
    do {
        test_sleep_ms(1);
        journal_measure(flush_journal(log->log), &count, &bytes, &first);
    } while (bytes > options.retain_bytes && test_now_ns() < deadline_ns);
    CHECK(bytes <= options.retain_bytes);
    rig_stop(&rig, true); /* it is off the list before it is off the disk */
    CHECK_EQ(finish(log), count);
    CHECK_EQ(files[0].header.base, first);
}

/* Where memory was lost the log goes on behind a gap, of which only the first file's header knows. */
TEST(the_first_file_knows_the_end_before_it_even_if_it_is_begun_twice)
{
    struct rig_options options = {.base = 1 << 20, .previous_end = 4096};
    struct rig_log *log = begin(DURABLE_ALWAYS, &options);

    rig_fail(log, IO_SYNC, 2, 5, false); /* the first of data; the header's is before it */
    rig_publish(log, 1, 100);
    CHECK(rig_wait_all(log));
    CHECK(rig_struck(log));
    rig_publish(log, 100, 100);
    CHECK_EQ(finish(log), 1);
    CHECK_EQ(files[0].header.base, 1 << 20);
    CHECK_EQ(files[0].header.previous_end, 4096);
}

/* ---- records --------------------------------------------------------------------------------- */

TEST(a_record_that_is_not_what_was_sealed_becomes_padding)
{
    struct rig_log *log = begin(DURABLE_OS, &PLAIN);

    rig_publish(log, 3, 200);
    CHECK_EQ(rig_publish_as(log, 200, RIG_BAD_CRC), RING_OK);
    rig_publish(log, 3, 0 + 16);
    CHECK_EQ(rig_publish_as(log, 40, RIG_BAD_KEY), RING_OK);
    rig_publish(log, 3, 200);
    CHECK(rig_wait_all(log));
    CHECK_EQ(rig_status(log).damaged, 2);
    CHECK_EQ(rig_status(log).error, 0);
    CHECK_EQ(atomic_load(&rig_state(log)->journal_messages), 9);
    (void)finish(log);
}

TEST(the_padding_of_producers_is_journaled_as_zeros)
{
    struct rig_log *log = begin(DURABLE_ALWAYS, &PLAIN);

    for (int i = 0; i < 20; i++) {
        CHECK_EQ(rig_publish_as(log, 16 + 50 * (unsigned)i, RIG_ABORTED), RING_OK);
        rig_publish(log, 1, 100);
    }
    CHECK(rig_wait_all(log));
    CHECK_EQ(rig_status(log).damaged, 0);
    (void)finish(log);
}

TEST(a_claim_that_nobody_stamps_is_waited_for)
{
    struct rig_log *log = begin(DURABLE_OS, &PLAIN);
    uint64_t claimed;

    rig_publish(log, 5, 100);
    claimed = rig_claim(log, 300);
    rig_publish(log, 20, 100);
    CHECK(rig_wait_durable(log, claimed));
    test_sleep_ms(20);
    CHECK_EQ(rig_durable(log), claimed);
    rig_commit_claim(log);
    (void)finish(log);
}

TEST_MAIN("flush", T(os_is_durable_after_the_write_and_waits_for_no_disk),
          T(always_is_durable_when_the_sync_has_returned),
          T(one_sync_is_for_all_that_gathered_during_the_last_one),
          T(a_sync_says_nothing_of_what_is_written_while_it_runs), T(interval_waits_for_the_clock),
          T(half_a_ring_that_is_not_safe_does_not_wait_for_the_clock),
          T(a_shorter_interval_counts_at_once),
          T(a_file_is_filled_to_its_last_byte_and_no_record_is_split),
          T(a_record_may_be_larger_than_the_buffer_and_than_a_file),
          T(what_retention_lets_go_is_unlinked_in_the_background),
          T(the_first_file_knows_the_end_before_it_even_if_it_is_begun_twice),
          T(a_record_that_is_not_what_was_sealed_becomes_padding),
          T(the_padding_of_producers_is_journaled_as_zeros),
          T(a_claim_that_nobody_stamps_is_waited_for))
