/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata store against a model: replay, snapshots, full and broken disks. Damage is in
 * test_store_damage.c, deaths at every fault point in test_store_crash.c, the lock in test_store_lock.c. */
#include "daemon/store.h"
#include "libshmq/fault.h"
#include "libshmq/layout.h"
#include "libshmq/record.h"
#include "test/support/store_bench.h"
#include "test/support/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- Playing back --------------------------------------------------------------------------------- */

TEST(an_empty_directory_is_an_empty_store)
{
    uint64_t newest;

    check_replay();
    CHECK_EQ(count_files(".log", &newest), 1);
    check_replay();
    CHECK_EQ(count_files(".log", &newest), 2); /* every start begins a new file */
    CHECK(newest >= JOURNAL_FILL_BYTES);
}

TEST(what_was_put_is_played_back)
{
    struct store *store = open_store(&live);

    test_random_init(&rng, test_seed());
    do_random(store, 200, false);
    store_close(store);
    check_replay();
    check_replay();
    CHECK_EQ(played.warnings, 0);
}

/* Random operations, snapshots and restarts; a death is a close here, since every put is synced. */
TEST(random_histories_match_the_model)
{
    test_random_init(&rng, test_seed());
    for (int life = 0; life < 25; life++) {
        struct store *store = open_store(&played);

        test_context("life %d ", life);
        CHECK(model_equals(&played, &live));
        CHECK_EQ(played.warnings, 0);
        live.warnings = 0;
        store_close(store);
        /* The writer's context is the model itself: its replay must give what is in there already. */
        store = NULL;
        REQUIRE_OK(store_open(store_dir(), &MODEL_CALLBACKS, &live, &store, &why));
        CHECK(model_equals(&played, &live));
        do_random(store, (unsigned)test_random_below(&rng, 40), true);
        store_close(store);
    }
    check_replay();
}

TEST(a_snapshot_says_the_same_and_drops_the_past)
{
    struct store *store = open_store(&live);
    uint64_t newest;

    test_random_init(&rng, test_seed());
    do_random(store, 300, false);
    CHECK(!store_wants_snapshot(store));
    REQUIRE_OK(store_snapshot(store, &why));
    CHECK_EQ(count_files(".log", &newest), 1);
    CHECK_EQ(count_files(".tmp", &newest), 0);
    do_random(store, 20, false);
    store_close(store);
    check_replay();
    CHECK_EQ(count_files(".log", &newest), 2);
}

/* The hint, and that following it keeps the directory small. */
TEST(a_long_history_asks_for_a_snapshot)
{
    struct store *store = open_store(&live);
    struct model_operation operation = {.kind = MODEL_PUT_TOPIC};
    struct stat status;
    uint64_t newest;
    unsigned puts = 0;

    test_random_init(&rng, test_seed());
    while (operation.kind != MODEL_PUT_TOPIC || operation.topic.id == 0)
        model_draw(&live, &rng, &operation);
    memset(operation.topic.options.name, 'n', NAME_MAX_BYTES);
    memset(operation.topic.options.vhost, 'v', NAME_MAX_BYTES);
    while (!store_wants_snapshot(store) && puts < 5000) {
        do_one(store, &operation);
        puts++;
    }
    CHECK(puts > STORE_GROWTH_BYTES / 1024 && puts < STORE_GROWTH_BYTES / 512);
    REQUIRE_OK(store_snapshot(store, &why));
    CHECK(!store_wants_snapshot(store));
    CHECK_EQ(count_files(".log", &newest), 1);
    REQUIRE(stat(journal_path(newest), &status) == 0);
    CHECK_EQ(status.st_size, JOURNAL_HEADER_BYTES + JOURNAL_FILL_BYTES);
    store_close(store);
    check_replay();
}

TEST(values_that_could_not_be_read_back_are_refused)
{
    struct store *store = open_store(&live);
    struct model_operation good = {.kind = MODEL_SNAPSHOT};
    struct store_topic topic;
    struct store_group group = {.topic = 1, .id = 1, .name = "g"};
    struct store_mark mark = {.topic = 1, .partition = PARTITIONS_MAX};
    struct store_cursor cursor = {.topic = 1, .group = 1, .offset = 65};

    test_random_init(&rng, test_seed());
    while (good.kind != MODEL_PUT_TOPIC)
        model_draw(&live, &rng, &good);
    topic = good.topic;
    topic.options.name[0] = '/';
    CHECK_ERR(store_put_topic(store, &topic, &why), SHMQ_EINVAL);
    topic = good.topic;
    topic.options.ring_bytes = 65537;
    CHECK_ERR(store_put_topic(store, &topic, &why), SHMQ_EINVAL);
    topic = good.topic;
    topic.base = 1;
    CHECK_ERR(store_put_topic(store, &topic, &why), SHMQ_EINVAL);
    group.gate = GATES_MAX;
    CHECK_ERR(store_put_group(store, &group, &why), SHMQ_EINVAL);
    CHECK_ERR(store_put_mark(store, &mark, &why), SHMQ_EINVAL);
    CHECK_ERR(store_put_cursors(store, &cursor, 1, &why), SHMQ_EINVAL);
    cursor = (struct store_cursor){.topic = 1, .partition = PARTITIONS_MAX};
    CHECK_ERR(store_put_cursors(store, &cursor, 1, &why), SHMQ_EINVAL);
    CHECK_OK(store_put_cursors(store, &cursor, 0, &why)); /* none is nothing to do */
    CHECK_ERR(store_delete_topic(store, 0, &why), SHMQ_EINVAL);
    store_close(store);
    check_replay();
}

TEST(an_ephemeral_store_keeps_nothing_and_never_fails)
{
    struct store *store = NULL;
    struct store_topic nonsense = {.id = 0};

    REQUIRE_OK(store_open(NULL, &MODEL_CALLBACKS, &played, &store, &why));
    CHECK_OK(store_put_topic(store, &nonsense, &why));
    CHECK_OK(store_snapshot(store, &why));
    CHECK(!store_wants_snapshot(store));
    store_close(store);
    store_close(NULL);
}

/* ---- Full and broken disks --------------------------------------------------------------------------- */

/* Every FAULT that can fail, once and for good; what was refused is not there, the rest is. */
static void check_failures(const char *fault, bool for_good)
{
    char spec[96];
    struct store *store = open_store(&live);
    struct model_operation operation;
    unsigned failures = 0;

    test_context("%s%s ", fault, for_good ? "+" : "");
    do_random(store, 5, true);
    (void)snprintf(spec, sizeof(spec), "%s%s", fault, for_good ? "+" : "");
    REQUIRE_OK(fault_arm(spec, "error", NULL));
    /* Enough for the next fill-ahead, and for snapshots. */
    for (int i = 0; i < 250; i++) {
        model_draw(&live, &rng, &operation);
        why.text[0] = '\0';
        if (model_put(store, &operation, &why) == 0) {
            model_apply(&live, &operation);
        } else {
            failures++;
            CHECK_CONTAINS(why.text, store_dir());
        }
    }
    CHECK(failures > 0 || !for_good);
    fault_disarm();
    do_random(store, 10, true); /* heals without a restart */
    store_close(store);
    check_replay();
    CHECK_EQ(played.warnings, 0);
}

TEST(failures_of_the_disk_are_told_and_heal)
{
    static const char *const FAULTS[] = {
        "journal.fill.nospace",   "journal.create.nospace", "journal.append.failed",
        "journal.append.torn",    "journal.sync.failed",    "journal.syncdir.failed",
        "journal.publish.failed",
    };

    test_random_init(&rng, test_seed());
    for (size_t i = 0; i < COUNT_OF(FAULTS); i++) {
        check_failures(FAULTS[i], false);
        clear_dir();
        check_failures(FAULTS[i], true);
        clear_dir();
    }
}

TEST(a_full_disk_says_so_and_what_was_confirmed_stays)
{
    struct store *store = open_store(&live);
    struct model_operation operation;
    uint64_t newest;
    int rc = 0;

    test_random_init(&rng, test_seed());
    REQUIRE_OK(fault_arm("journal.fill.nospace+", "error", NULL));
    for (int i = 0; i < 1000 && rc == 0; i++) {
        do
            model_draw(&live, &rng, &operation);
        while (operation.kind == MODEL_SNAPSHOT);
        rc = model_put(store, &operation, &why);
        if (rc == 0)
            model_apply(&live, &operation);
    }
    CHECK_INT_EQ(rc, SHMQ_ENOSPC);
    CHECK_CONTAINS(why.text, "free some space");
    CHECK_ERR(store_snapshot(store, &why), SHMQ_ENOSPC);
    CHECK_EQ(count_files(".tmp", &newest), 0); /* nothing left of the attempt */
    fault_disarm();
    CHECK_EQ(live.warnings, 0); /* no new file was needed */
    do_one(store, &operation);
    store_close(store);
    check_replay();
}

TEST(it_opens_on_a_full_disk_and_heals)
{
    struct store *store = open_store(&live);
    struct model_operation operation;

    test_random_init(&rng, test_seed());
    do_random(store, 50, false);
    store_close(store);
    REQUIRE_OK(fault_arm("journal.create.nospace+", "error", NULL));
    memset(&played, 0, sizeof(played));
    store = open_store(&played);
    CHECK(model_equals(&live, &played));
    CHECK_EQ(played.warnings, 1);
    do
        model_draw(&live, &rng, &operation);
    while (operation.kind == MODEL_SNAPSHOT);
    CHECK_ERR(model_put(store, &operation, &why), SHMQ_ENOSPC);
    CHECK_ERR(store_snapshot(store, &why), SHMQ_ENOSPC);
    fault_disarm();
    CHECK_OK(model_put(store, &operation, &why));
    model_apply(&live, &operation);
    model_apply(&played, &operation);
    store_close(store);
    check_replay();
}

/* A failed write or sync is not repeated on the same file: the operation is done in a new one. */
TEST(a_failed_sync_moves_to_a_new_file)
{
    static const char *const FAULTS[] = {"journal.sync.failed", "journal.append.failed",
                                         "journal.append.torn"};
    struct store *store = open_store(&live);
    uint64_t before;
    uint64_t after;

    test_random_init(&rng, test_seed());
    for (unsigned i = 0; i < COUNT_OF(FAULTS); i++) {
        do_random(store, 5, false);
        (void)count_files(".log", &before);
        REQUIRE_OK(fault_arm(FAULTS[i], "error", NULL));
        do_random(store, 1, false);
        fault_disarm();
        CHECK_EQ(count_files(".log", &after), 1);
        CHECK(after > before);
        CHECK_EQ(live.warnings, i + 1);
        CHECK_CONTAINS(live.warning, "new file");
    }
    store_close(store);
    check_replay();
}

TEST(rolling_keeps_the_chain)
{
    struct journal_place place = {.dir = store_dir(),
                                  .dir_fd = open(store_dir(), O_RDONLY | O_CLOEXEC)};
    struct journal_start start = {.base = 0};
    struct journal_writer writer;
    struct journal_header header;
    struct journal_scan scan;
    uint64_t first_end;
    uint64_t offset;
    unsigned char *image;
    size_t image_bytes;

    REQUIRE_OK(journal_writer_create(&writer, &place, &start, &why));
    REQUIRE_OK(journal_writer_publish(&writer, &why));
    REQUIRE_OK(journal_writer_append(&writer, RECORD_TYPE_META, "one", 3, 77, &offset, &why));
    CHECK_EQ(offset, 0);
    CHECK_EQ(writer.durable, 0);
    REQUIRE_OK(journal_writer_sync(&writer, &why));
    first_end = writer.durable;
    CHECK_EQ(first_end, 64);
    REQUIRE_OK(journal_writer_roll(&writer, &why));
    REQUIRE_OK(journal_writer_append(&writer, RECORD_TYPE_META, "two", 3, 5, &offset, &why));
    CHECK(offset > first_end && offset == writer.base);
    image = read_journal(writer.base, &image_bytes);
    REQUIRE_OK(journal_check_header(image, image_bytes, writer.base, &header, &why));
    CHECK_EQ(header.previous_end, first_end);
    CHECK_EQ(header.durable, first_end);
    CHECK_EQ(header.messages, 1);
    CHECK_EQ(header.max_timestamp_ns, 77);
    REQUIRE_OK(
        journal_scan(image, image_bytes, &header, writer.base, UINT64_MAX, NULL, NULL, &scan));
    CHECK_EQ(scan.records, 1);
    CHECK_EQ(image_bytes, JOURNAL_HEADER_BYTES + JOURNAL_FILL_BYTES);
    free(image);
    CHECK_ERR(journal_writer_append(&writer, RECORD_TYPE_META, "x", JOURNAL_APPEND_MAX + 1, 0, NULL,
                                    &why),
              SHMQ_ETOOBIG);
    REQUIRE_OK(journal_remove_below(&place, writer.base, &why));
    CHECK_EQ(count_files(".log", &offset), 1);
    journal_writer_close(&writer);
    journal_writer_close(&writer); /* again: nothing happens */
    (void)close(place.dir_fd);
}

TEST_MAIN("store", T(an_empty_directory_is_an_empty_store), T(what_was_put_is_played_back),
          T_TIMEOUT(random_histories_match_the_model, 60),
          T(a_snapshot_says_the_same_and_drops_the_past),
          T_TIMEOUT(a_long_history_asks_for_a_snapshot, 60),
          T(values_that_could_not_be_read_back_are_refused),
          T(an_ephemeral_store_keeps_nothing_and_never_fails),
          T_TIMEOUT(failures_of_the_disk_are_told_and_heal, 120),
          T(a_full_disk_says_so_and_what_was_confirmed_stays), T(it_opens_on_a_full_disk_and_heals),
          T(a_failed_sync_moves_to_a_new_file), T(rolling_keeps_the_chain))
