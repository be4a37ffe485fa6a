/* SPDX-License-Identifier: Apache-2.0 */
/* Members that scribble on a partition's memory, or cut it away under the flusher: that partition stops, and nobody else
 * notices. */
#include "libshmq/clock.h"
#include "libshmq/record.h"
#include "test/support/flush_rig.h"

#include <unistd.h>

#define BASE       UINT64_C(4096)
#define SMALL_FILE (UINT64_C(4096) + 8192)

static struct rig rig;
static struct rig_file files[RIG_FILES_MAX];

static struct rig_options options_of(enum durable_mode durability)
{
    return (struct rig_options){.durability = durability,
                                .base = BASE,
                                .sync_interval_ns = 2 * NS_PER_MS,
                                .file_first = SMALL_FILE,
                                .file_most = SMALL_FILE};
}

static struct rig_log *add(enum durable_mode durability)
{
    struct rig_options options = options_of(durability);

    return rig_add(&rig, &options);
}

/* ---- scribblers ------------------------------------------------------------------------------ */

typedef void scribble_fn(struct rig_log *log);

static void pull_tail_back(struct rig_log *log)
{
    atomic_fetch_sub(&rig_producers(log)->tail, RECORD_UNIT);
}

static void push_tail_too_far(struct rig_log *log)
{
    atomic_fetch_add(&rig_producers(log)->tail, log->options.capacity + RECORD_UNIT);
}

static void push_tail_to_the_end_of_numbers(struct rig_log *log)
{
    atomic_store(&rig_producers(log)->tail, UINT64_MAX - RECORD_UNIT + 1);
}

static void bend_tail(struct rig_log *log)
{
    atomic_fetch_add(&rig_producers(log)->tail, 1);
}

/* A stamp for the place where the next record is expected, and a length. */
static void stamp(struct rig_log *log, uint32_t length, uint64_t state)
{
    uint64_t at = atomic_fetch_add(&rig_producers(log)->tail, RECORD_UNIT);
    struct record *record = ring_record(log->ring.data, log->ring.mask, at);

    record->length = length;
    ring_stamp_record(record, log->salt, at, state);
}

static void say_too_long(struct rig_log *log)
{
    stamp(log, UINT32_MAX, RECORD_COMMITTED);
}

static void say_longer_than_all_there_is(struct rig_log *log)
{
    stamp(log, RECORD_UNIT - RECORD_HEADER + 1, RECORD_COMMITTED);
}

static void say_padding_too_long(struct rig_log *log)
{
    stamp(log, UINT32_MAX - RECORD_HEADER + 1, RECORD_PADDING);
}

TEST(who_scribbles_harms_that_partition_alone)
{
    static scribble_fn *const SCRIBBLES[] = {
        pull_tail_back,      push_tail_too_far, push_tail_to_the_end_of_numbers,
        bend_tail,           say_too_long,      say_longer_than_all_there_is,
        say_padding_too_long};
    struct rig_log *good;

    rig_init(&rig);
    good = add(DURABLE_ALWAYS);
    for (size_t i = 0; i < COUNT_OF(SCRIBBLES); i++) {
        struct rig_log *bad = add(DURABLE_OS + (enum durable_mode)(i % 3));
        uint64_t durable;

        test_context("scribble %zu ", i);
        rig_publish(bad, 5, 100);
        CHECK(rig_wait_all(bad));
        durable = rig_durable(bad);
        CHECK(!flush_take_corrupt(bad->log));
        SCRIBBLES[i](bad);
        (void)wait_wake(bad->ring.wait, ATTENTION_DOORBELL | ATTENTION_NAP, bad->ring.fence_mode);
        CHECK(rig_wait_corrupt(bad));
        flush_suspend(bad->log); /* as the quarantine does */
        CHECK(!flush_take_corrupt(bad->log));
        CHECK_EQ(rig_durable(bad), durable);
        (void)rig_check(bad, NULL);
        rig_publish(good, 20, 100);
        CHECK(rig_wait_all(good));
    }
    rig_remove(rig.logs[1]);
    CHECK(rig_wait_gone(&rig));
    (void)rig_check(good, NULL);
    rig_deinit(&rig);
}

/* A message of the far future does not keep its file, and those before it, for ever. */
TEST(a_timestamp_may_be_anything)
{
    struct rig_log *log;

    rig_init(&rig);
    log = add(DURABLE_ALWAYS);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(rig_publish_as(log, 100, RIG_BIG_FUTURE), RING_OK);
        rig_publish(log, 20, 900);
    }
    CHECK(rig_wait_all(log));
    CHECK(rig_check(log, files) > 2);
    CHECK(files[1].header.max_timestamp_ns > 1000);
    CHECK(files[1].header.max_timestamp_ns < clock_realtime_ns() + 5 * NS_PER_S);
    rig_deinit(&rig);
}

/* ---- memory that goes ------------------------------------------------------------------------ */

/* What has to be under way for the flusher to look at that segment. */
static void cut_one(enum segment_kind kind, struct rig_log *bad)
{
    if (kind == SEGMENT_STATE) { /* written when a sync has returned */
        rig_hold(&rig, IO_SYNC, true);
        rig_publish(bad, 1, 100);
        REQUIRE(rig_wait_held(&rig, 1));
    } else if (kind == SEGMENT_DATA) {
        (void)rig_claim(bad, 100);
    }
    rig_cut(bad, kind);
    rig_release(&rig);
}

TEST(memory_that_is_cut_away_harms_that_partition_alone)
{
    static const enum segment_kind KINDS[] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT,
                                              SEGMENT_DATA};
    struct rig_log *good;

    rig_init(&rig);
    good = add(DURABLE_ALWAYS);
    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        struct rig_log *bad = add(DURABLE_INTERVAL);

        test_context("segment %c ", (char)KINDS[i]);
        rig_publish(bad, 20, 100);
        CHECK(rig_wait_all(bad));
        cut_one(KINDS[i], bad);
        rig_publish(good, 20, 100);
        CHECK(rig_wait_corrupt(bad));
        flush_suspend(bad->log);
        rig_publish(good, 20, 100);
        CHECK(rig_wait_all(good));
        CHECK_EQ(rig_status(bad).error, 0);
    }
    /* What is cut cannot be flushed on, and says so; what is whole can be at any time. */
    rig_remove(rig.logs[2]);
    CHECK(rig_wait_gone(&rig));
    rig_stop(&rig, true);
    CHECK_EQ(rig_durable(good), rig_tail(good));
    (void)rig_check(good, NULL);
    rig_deinit(&rig);
}

TEST(what_is_no_partition_is_refused)
{
    static const enum segment_kind KINDS[] = {SEGMENT_PRODUCERS, SEGMENT_WAIT, SEGMENT_DATA};

    rig_init(&rig);
    for (size_t i = 0; i <= COUNT_OF(KINDS); i++) {
        struct rig_options options = options_of(DURABLE_OS);
        struct rig_log *log = rig_make(&rig, &options);

        if (i < COUNT_OF(KINDS))
            rig_cut(log, KINDS[i]);
        else
            rig_producers(log)->header.salt ^= RECORD_UNIT; /* of another partition */
        CHECK_ERR(rig_flush(log), SHMQ_ECORRUPT);
    }
    rig_deinit(&rig);
}

TEST_MAIN("flush_hostile", T(who_scribbles_harms_that_partition_alone),
          T(a_timestamp_may_be_anything), T(memory_that_is_cut_away_harms_that_partition_alone),
          T(what_is_no_partition_is_refused))
