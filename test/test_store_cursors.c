/* SPDX-License-Identifier: Apache-2.0 */
/* Cursors in the metadata store, which are put many at once: one sync for all, and each by itself when
 * the disk or the host fails in between. Single ones are among the operations of test_store.c. */
#include "libshmq/fault.h"
#include "libshmq/layout.h"
#include "test/support/store_bench.h"

#include <stdio.h>
#include <string.h>

#define MANY 500

static struct store_cursor cursors[MANY];

/* Of one topic with one group, spread over partitions, at offset `lap` * 64 and more. */
static void fill_cursors(uint64_t lap)
{
    for (uint32_t i = 0; i < MANY; i++)
        cursors[i] = (struct store_cursor){
            .topic = 7,
            .group = i % 2 ? 9 : 0,
            .partition = i / 2,
            .offset = (lap + i) * RECORD_UNIT,
        };
}

static void apply_cursors(struct model *model, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct model_operation operation = {.kind = MODEL_PUT_CURSOR, .cursor = cursors[i]};

        model_apply(model, &operation);
    }
}

static void put_all(struct store *store)
{
    if (!CHECK_OK(store_put_cursors(store, cursors, MANY, &why)))
        FAIL("%s", why.text);
    apply_cursors(&live, MANY);
}

static unsigned count_lines(const char *path, const char *wanted)
{
    FILE *file = fopen(path, "re");
    char line[128];
    unsigned count = 0;

    REQUIRE(file != NULL);
    while (fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        count += strcmp(line, wanted) == 0;
    }
    (void)fclose(file);
    return count;
}

TEST(many_cursors_cost_one_sync)
{
    struct store *store = open_store(&live);
    char log[300];

    fill_cursors(100);
    (void)snprintf(log, sizeof(log), "%s/faults", test_tmpdir());
    REQUIRE_OK(fault_arm(NULL, "kill", log));
    put_all(store);
    fault_disarm();
    CHECK_EQ(count_lines(log, "journal.sync.done"), 1);
    fill_cursors(0); /* groups seek back, too: the later one wins */
    put_all(store);
    store_close(store);
    check_replay();
    CHECK_EQ(played.cursor_count, MANY);
}

TEST(cursors_are_part_of_snapshots_and_go_with_their_group_and_topic)
{
    struct store *store = open_store(&live);
    struct model_operation delete_group = {.kind = MODEL_DELETE_GROUP,
                                           .group = {.topic = 7, .id = 9}};
    struct model_operation delete_topic = {.kind = MODEL_DELETE_TOPIC, .group = {.topic = 7}};

    fill_cursors(3);
    put_all(store);
    REQUIRE_OK(store_snapshot(store, &why));
    store_close(store);
    check_replay();
    CHECK_EQ(played.cursor_count, MANY);
    /* As a supervisor starts: what is played back is the state. */
    REQUIRE_OK(store_open(store_dir(), &MODEL_CALLBACKS, &live, &store, &why));
    do_one(store, &delete_group);
    CHECK_EQ(live.cursor_count, MANY / 2); /* the partitions' own stay */
    store_close(store);
    check_replay();
    REQUIRE_OK(store_open(store_dir(), &MODEL_CALLBACKS, &live, &store, &why));
    do_one(store, &delete_topic);
    CHECK_EQ(live.cursor_count, 0);
    store_close(store);
    check_replay();
}

/* The write that failed is not repeated in its file: all of them stand in the new one. */
TEST(a_batch_that_fails_goes_to_a_new_file_whole)
{
    static const char *const FAULTS[] = {"journal.sync.failed", "journal.append.failed:250",
                                         "journal.append.torn:499"};

    for (unsigned i = 0; i < COUNT_OF(FAULTS); i++) {
        struct store *store = open_store(&live);

        test_context("%s ", FAULTS[i]);
        fill_cursors(i);
        REQUIRE_OK(fault_arm(FAULTS[i], "error", NULL));
        put_all(store);
        fault_disarm();
        CHECK_EQ(live.warnings, 1);
        store_close(store);
        check_replay();
        clear_dir();
    }
}

TEST(a_full_disk_refuses_the_batch_and_takes_it_later)
{
    struct store *store = open_store(&live);
    int rc = 0;

    REQUIRE_OK(fault_arm("journal.fill.nospace+", "error", NULL));
    for (uint64_t lap = 0; rc == 0 && lap < 100; lap++) {
        fill_cursors(lap);
        rc = store_put_cursors(store, cursors, MANY, &why);
    }
    CHECK_INT_EQ(rc, SHMQ_ENOSPC);
    fault_disarm();
    put_all(store);
    store_close(store);
    check_replay();
}

/* The host dies while a batch is written: any sectors of it may be on disk. Each cursor is then what it was, or
 * what it was to be, and those that moved are the first of the batch. */
TEST(a_torn_batch_is_a_prefix)
{
    static const size_t SECTORS[] = {64, 512, 4096};
    static struct model expected;
    struct store *store = open_store(&live);
    size_t bytes, after_bytes;
    uint64_t base;
    unsigned char *before, *after, *mixed;
    size_t longest = 0;

    test_random_init(&rng, test_seed());
    fill_cursors(0);
    put_all(store);
    (void)count_files(".log", &base);
    before = read_journal(base, &bytes);
    fill_cursors(1000);
    CHECK_OK(store_put_cursors(store, cursors, MANY, &why));
    after = read_journal(base, &after_bytes);
    store_close(store);
    mixed = calloc(1, after_bytes);
    REQUIRE(mixed != NULL && after_bytes >= bytes);
    for (int mix = 0; mix < 200; mix++) {
        size_t sector = SECTORS[test_random_below(&rng, COUNT_OF(SECTORS))];
        uint64_t lost = 2 + test_random_below(&rng, 400); /* one in so many sectors */
        size_t count = 0;

        memcpy(mixed, after, after_bytes);
        for (size_t at = 0; at < bytes; at += sector) {
            if (test_random_below(&rng, lost) == 0)
                memcpy(mixed + at, before + at, min_size(sector, bytes - at));
        }
        memset(&played, 0, sizeof(played));
        test_context("mix %d ", mix);
        CHECK_OK(store_replay_image(mixed, after_bytes, base, &MODEL_CALLBACKS, &played, &why));
        expected = live;
        while (count < MANY && !model_equals(&played, &expected)) {
            struct model_operation operation = {.kind = MODEL_PUT_CURSOR,
                                                .cursor = cursors[count++]};

            model_apply(&expected, &operation);
        }
        CHECK(model_equals(&played, &expected));
        longest = count > longest ? count : longest;
    }
    CHECK(longest > 10);
    free(before);
    free(after);
    free(mixed);
}

TEST_MAIN("store_cursors", T(many_cursors_cost_one_sync),
          T(cursors_are_part_of_snapshots_and_go_with_their_group_and_topic),
          T(a_batch_that_fails_goes_to_a_new_file_whole),
          T(a_full_disk_refuses_the_batch_and_takes_it_later),
          T_TIMEOUT(a_torn_batch_is_a_prefix, 60))
