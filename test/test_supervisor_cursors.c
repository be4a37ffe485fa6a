/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of durable topics: where they are placed in the history, and where they go on when the memory of the bus is
 * gone, purged messages included. */
#include "test/support/durable_stage.h"
#include "test/support/fixture.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOURNAL_FIRST_FILE (UINT64_C(1) << 20)

#define LONG_AGO (3 * STAGE_RECORDS_IN_RING) /* records: the ring went round three times */

/* ---- placing a new group in the history ---------------------------------------------------------- */

TEST(earliest_is_the_journals_and_holds_nobody_back)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;
    struct protocol_group_partition described;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    stage_publish(&stage, LONG_AGO);
    stage_settle(&stage);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    CHECK_EQ(stage_cursor(&stage, &joined), 0);
    CHECK(!cursor_gates(stage_cursor_word(&stage, &joined)));
    described = stage_describe_group(&stage, "g");
    CHECK_EQ(described.cursor, 0);
    CHECK_EQ(described.lag_bytes, LONG_AGO * RECORD_UNIT);
    stage_publish(&stage, LONG_AGO); /* with the group mapped: it would wait for ever otherwise */
    stage_close(&stage);
}

/* In a ring that still has everything a group gates, as ever. */
TEST(earliest_in_the_ring_gates)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    stage_publish(&stage, 10);
    stage_settle(&stage);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    CHECK_EQ(stage_cursor(&stage, &joined), 0);
    CHECK(cursor_gates(stage_cursor_word(&stage, &joined)));
    joined = stage_join(&stage, "latest", FROM_LATEST, 0);
    CHECK_EQ(stage_cursor(&stage, &joined), 640);
    CHECK(cursor_gates(stage_cursor_word(&stage, &joined)));
    stage_close(&stage);
}

TEST(an_offset_in_the_history_is_kept)
{
    struct durable_stage stage;
    struct protocol_group_join wrong = {.from = FROM_OFFSET};
    struct protocol_group_joined joined;
    uint64_t tail;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    stage_publish(&stage, LONG_AGO);
    stage_settle(&stage);
    tail = ring_tail(&stage.ring);
    joined = stage_join(&stage, "old", FROM_OFFSET, 640);
    CHECK_EQ(stage_cursor(&stage, &joined), 640);
    CHECK(!cursor_gates(stage_cursor_word(&stage, &joined)));
    joined = stage_join(&stage, "young", FROM_OFFSET, tail - 640);
    CHECK_EQ(stage_cursor(&stage, &joined), tail - 640);
    CHECK(cursor_gates(stage_cursor_word(&stage, &joined)));
    joined = stage_join(&stage, "end", FROM_OFFSET, tail);
    CHECK_EQ(stage_cursor(&stage, &joined), tail);
    strcpy(wrong.topic, "t");
    strcpy(wrong.group, "beyond");
    wrong.offset = tail + 64;
    CHECK_ERR(wire_call(&stage.wire, &wrong, PROTOCOL_GROUP_JOIN, sizeof(wrong)), SHMQ_EINVAL);
    stage_close(&stage);
}

/* Retention has taken what stands in the ring: nothing that somebody can still read is skipped, and a group that
 * begins is told no loss. */
static bool has_dropped_a_file(void *context)
{
    return stage_describe(context).journal_first > 0;
}

TEST(earliest_where_the_ring_goes_back_further_than_the_journal)
{
    struct protocol_topic_put alter = {.mask = ALTER_RETAIN_BYTES};
    uint64_t in_file = (JOURNAL_FIRST_FILE - JOURNAL_HEADER_BYTES) / RECORD_UNIT;
    struct protocol_group_joined joined;
    struct durable_stage stage;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    strcpy(alter.options.name, "t");
    alter.options.retain_bytes = RETAIN_BYTES_MIN;
    REQUIRE_OK(wire_call(&stage.wire, &alter, PROTOCOL_TOPIC_ALTER, sizeof(alter)));
    stage_publish(&stage, in_file + 10);
    stage_settle(&stage);
    REQUIRE(test_eventually(has_dropped_a_file, &stage, 10000));
    for (uint64_t more = 10; more < STAGE_RECORDS_IN_RING + 200; more += 89) {
        uint64_t first = stage_describe(&stage).journal_first;
        uint64_t at, oldest;
        bool gates;
        char name[32];

        snprintf(name, sizeof(name), "g%llu", (unsigned long long)more);
        test_context("%s: ", name);
        joined = stage_join(&stage, name, FROM_EARLIEST, 0);
        at = stage_cursor(&stage, &joined);
        gates = cursor_gates(stage_cursor_word(&stage, &joined));
        oldest = ring_oldest(&stage.ring);
        CHECK(at <=
              max_u64(first, oldest + RING_MIN_BYTES / 4)); /* not far from where it could be */
        CHECK(gates ? at >= oldest : at == first);
        CHECK(ring_is_stamped(&stage.ring, at) || at < oldest);
        stage_leave(&stage, &joined);
        REQUIRE_OK(stage_delete_group(&stage, name));
        stage_publish(&stage, 89);
        stage_settle(&stage);
    }
    stage_close(&stage);
}

/* spill: a group never holds anybody back, wherever it stands. */
TEST(groups_of_spilling_topics_do_not_gate)
{
    struct durable_stage stage;
    struct protocol_group_joined old, young;

    stage_open(&stage, OVERFLOW_SPILL, DURABLE_OS);
    stage_publish(&stage, LONG_AGO);
    stage_settle(&stage);
    old = stage_join(&stage, "old", FROM_EARLIEST, 0);
    young = stage_join(&stage, "young", FROM_LATEST, 0);
    CHECK_EQ(stage_cursor(&stage, &old), 0);
    CHECK_EQ(stage_cursor(&stage, &young), LONG_AGO * RECORD_UNIT);
    CHECK(!cursor_gates(stage_cursor_word(&stage, &old)));
    CHECK(!cursor_gates(stage_cursor_word(&stage, &young)));
    stage_publish(&stage, LONG_AGO);
    stage_close(&stage);
}

/* A group that lingered out comes back: what the ring has lost meanwhile the journal has. */
TEST(a_group_that_comes_back_loses_nothing)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;
    struct protocol_topic_put alter = {.mask = ALTER_LINGER};

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    strcpy(alter.options.name, "t");
    alter.options.linger_ns = 1000000;
    REQUIRE_OK(wire_call(&stage.wire, &alter, PROTOCOL_TOPIC_ALTER, sizeof(alter)));
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    stage_publish(&stage, 10);
    stage_settle(&stage);
    stage_commit(&stage, &joined, 320);
    stage_leave(&stage, &joined);
    stage_publish(&stage, LONG_AGO); /* waits for the linger */
    stage_settle(&stage);
    joined = stage_join(&stage, "g", FROM_COMMITTED, 0);
    CHECK_EQ(joined.created, 0);
    CHECK_EQ(stage_cursor(&stage, &joined), 320);
    CHECK(!cursor_gates(stage_cursor_word(&stage, &joined)));
    CHECK_EQ(stage_describe_group(&stage, "g").lost_bytes, 0);
    stage_close(&stage);
}

/* ---- the memory is gone -------------------------------------------------------------------------- */

/* A second and a bit: the supervisor looks once a second. */
static void wait_for_a_look(void)
{
    test_sleep_ms((unsigned)test_scaled_ms(1500));
}

TEST(a_group_goes_on_where_it_had_committed)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;
    struct protocol_group_partition described;
    uint64_t base;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    stage_publish(&stage, 100);
    stage_settle(&stage);
    stage_commit(&stage, &joined, 60 * RECORD_UNIT);
    wait_for_a_look();
    stage_restart(&stage, true);
    base = stage.ring.state->base;
    CHECK(base > 100 * RECORD_UNIT);
    described = stage_describe_group(&stage, "g");
    CHECK_EQ(described.cursor, 60 * RECORD_UNIT);
    CHECK_EQ(described.lag_bytes, 40 * RECORD_UNIT); /* the gap is no lag */
    joined = stage_join(&stage, "g", FROM_LATEST, 0);
    CHECK_EQ(joined.created, 0);
    CHECK(!cursor_gates(stage_cursor_word(&stage, &joined)));
    stage_publish(&stage, 10);
    stage_settle(&stage);
    CHECK_EQ(stage_describe_group(&stage, "g").lag_bytes, 50 * RECORD_UNIT);
    /* Once more without having read on. */
    stage_restart(&stage, true);
    described = stage_describe_group(&stage, "g");
    CHECK_EQ(described.cursor, 60 * RECORD_UNIT);
    CHECK_EQ(described.lag_bytes, 50 * RECORD_UNIT);
    CHECK_EQ(stage_describe(&stage).status, PARTITION_OPEN);
    stage_close(&stage);
}

TEST(the_last_commit_is_saved_when_members_leave)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    stage_publish(&stage, 100);
    stage_settle(&stage);
    stage_commit(&stage, &joined, 99 * RECORD_UNIT);
    stage_leave(&stage, &joined);
    test_sleep_ms((unsigned)test_scaled_ms(500)); /* not the second that a look takes */
    stage_restart(&stage, true);
    CHECK_EQ(stage_describe_group(&stage, "g").cursor, 99 * RECORD_UNIT);
    stage_close(&stage);
}

TEST(a_clean_stop_saves_the_last_commit)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    stage_publish(&stage, 100);
    stage_settle(&stage);
    stage_commit(&stage, &joined, 77 * RECORD_UNIT);
    stage_stop_and_lose_memory(&stage);
    CHECK_EQ(stage_describe_group(&stage, "g").cursor, 77 * RECORD_UNIT);
    stage_close(&stage);
}

/* Of the group's memory alone: the log goes on where it was, and the group in the ring. */
TEST(a_group_whose_memory_alone_is_gone_goes_on)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;
    char pattern[300];
    glob_t found;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    stage_publish(&stage, 100);
    stage_settle(&stage);
    stage_commit(&stage, &joined, 60 * RECORD_UNIT);
    wait_for_a_look();
    snprintf(pattern, sizeof(pattern), "/dev/shm/shmq.%s.*.g0", test_bus_name());
    REQUIRE(glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc == 1);
    CHECK_INT_EQ(unlink(found.gl_pathv[0]), 0);
    globfree(&found);
    stage_restart(&stage, false);
    CHECK_EQ(stage.ring.state->base, 0);
    CHECK_EQ(stage_describe_group(&stage, "g").cursor, 60 * RECORD_UNIT);
    joined = stage_join(&stage, "g", FROM_COMMITTED, 0);
    CHECK(cursor_gates(stage_cursor_word(&stage, &joined)));
    stage_close(&stage);
}

/* A member that goes on while shmqd is replaced is looked at by the next one. */
TEST(a_commit_after_a_restart_is_saved)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;
    struct segment group;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    stage_publish(&stage, 100);
    stage_settle(&stage);
    group = stage.ring.gates[joined.gate].segment;
    stage.ring.gates[joined.gate] = (struct ring_gate){.group = CLIENT_NONE};
    stage_restart(&stage, false);
    joined = stage_join(&stage, "g", FROM_COMMITTED, 0);
    stage_commit(&stage, &joined, 50 * RECORD_UNIT);
    wait_for_a_look();
    stage_restart(&stage, true);
    CHECK_EQ(stage_describe_group(&stage, "g").cursor, 50 * RECORD_UNIT);
    segment_unmap(&group);
    stage_close(&stage);
}

/* Where it was placed is saved at once: a group that wants what comes must not get all there is. */
TEST(a_new_group_stays_where_it_was_placed)
{
    struct durable_stage stage;
    uint64_t base;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    stage_publish(&stage, 100);
    stage_settle(&stage);
    (void)stage_join(&stage, "latest", FROM_LATEST, 0);
    (void)stage_join(&stage, "some", FROM_OFFSET, 640);
    stage_restart(&stage, true);
    base = stage.ring.state->base;
    CHECK_EQ(stage_describe_group(&stage, "latest").cursor, 100 * RECORD_UNIT);
    CHECK_EQ(stage_describe_group(&stage, "latest").lag_bytes, 0);
    CHECK_EQ(stage_describe_group(&stage, "some").cursor, 640);
    /* One whose cursor would lie in the gap stands at its end. */
    (void)stage_join(&stage, "gap", FROM_OFFSET, 101 * RECORD_UNIT);
    CHECK_EQ(stage_describe_group(&stage, "gap").cursor, base);
    stage_close(&stage);
}

/* The journal's only file, as a crash of the host may leave it: without what was written last. */
static void lose_records(const struct durable_stage *stage, uint64_t from)
{
    static const unsigned char zeros[4096];
    char path[600];
    int fd;

    snprintf(path, sizeof(path), "%s/%s/journal/t.%llu/0/%020d.log", getenv("SHMQ_STATE_DIR"),
             getenv("SHMQ_BUS"), (unsigned long long)stage->topic, 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(pwrite(fd, zeros, sizeof(zeros), (off_t)(JOURNAL_HEADER_BYTES + from)) ==
            (ssize_t)sizeof(zeros));
    (void)close(fd);
}

/* What was read and committed, but was not safe yet, is gone with the host: there is nothing left to read for the
 * group, and what comes next it gets. */
TEST(a_cursor_beyond_what_was_kept_moves_to_the_end)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;
    struct protocol_group_partition described;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    stage_publish(&stage, 20);
    stage_settle(&stage);
    stage_commit(&stage, &joined, 18 * RECORD_UNIT);
    stage_leave(&stage, &joined);
    fixture_end(stage.supervisor); /* saves it */
    lose_records(&stage, 10 * RECORD_UNIT);
    (void)test_remove_leftovers();
    stage.supervisor = fixture_spawn();
    stage_restart(&stage, true);
    described = stage_describe_group(&stage, "g");
    CHECK_EQ(described.cursor, stage.ring.state->base);
    CHECK_EQ(described.lag_bytes, 0);
    CHECK(described.cursor > 20 * RECORD_UNIT);
    stage_close(&stage);
}

/* ---- purging --------------------------------------------------------------------------------------- */

TEST(purged_messages_do_not_come_back)
{
    struct durable_stage stage;
    struct protocol_group_joined joined;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    joined = stage_join(&stage, "g", FROM_EARLIEST, 0);
    stage_publish(&stage, 100);
    stage_settle(&stage);
    REQUIRE_OK(wire_topic_simple(&stage.wire, PROTOCOL_TOPIC_PURGE, "t"));
    CHECK_EQ(stage.ring.state->first, 100 * RECORD_UNIT);
    CHECK_EQ(stage_cursor(&stage, &joined), 100 * RECORD_UNIT);
    stage_publish(&stage, 5);
    stage_settle(&stage);
    stage_restart(&stage, true); /* the group's own cursor need not have been saved */
    CHECK_EQ(stage.ring.state->first, 100 * RECORD_UNIT);
    CHECK_EQ(stage_describe_group(&stage, "g").cursor, 100 * RECORD_UNIT);
    CHECK_EQ(stage_describe_group(&stage, "g").lag_bytes, 5 * RECORD_UNIT);
    joined = stage_join(&stage, "new", FROM_EARLIEST, 0);
    CHECK_EQ(stage_cursor(&stage, &joined), 100 * RECORD_UNIT);
    joined = stage_join(&stage, "below", FROM_OFFSET, 640);
    CHECK_EQ(stage_cursor(&stage, &joined), 100 * RECORD_UNIT);
    stage_close(&stage);
}

TEST_MAIN("supervisor_cursors", T(earliest_is_the_journals_and_holds_nobody_back),
          T(earliest_in_the_ring_gates), T(an_offset_in_the_history_is_kept),
          T(earliest_where_the_ring_goes_back_further_than_the_journal),
          T(groups_of_spilling_topics_do_not_gate), T(a_group_that_comes_back_loses_nothing),
          T(a_group_goes_on_where_it_had_committed), T(the_last_commit_is_saved_when_members_leave),
          T(a_clean_stop_saves_the_last_commit), T(a_group_whose_memory_alone_is_gone_goes_on),
          T(a_commit_after_a_restart_is_saved), T(a_new_group_stays_where_it_was_placed),
          T(a_cursor_beyond_what_was_kept_moves_to_the_end), T(purged_messages_do_not_come_back))
