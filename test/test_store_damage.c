/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata journals that were cut, flipped, lost in part, or written by somebody newer: nothing that was
 * confirmed is lost silently, and nothing is changed that could still be restored. */
#include "daemon/store.h"
#include "libshmq/fault.h"
#include "libshmq/layout.h"
#include "libshmq/record.h"
#include "test/support/store_bench.h"
#include "test/support/test.h"

#include <fcntl.h>
#include <string.h>

/* ---- Damage ---------------------------------------------------------------------------------------- */

#define HISTORY 12

static struct model prefixes[HISTORY + 1]; /* the state after so many operations */
static uint64_t ends[HISTORY + 1];         /* where the chain ended then */
static unsigned char *image;
static size_t image_bytes;
static uint64_t image_base;

/* A store whose newest file is a snapshot of something and then HISTORY operations. */
static void make_history(void)
{
    struct store *store = open_store(&live);

    test_random_init(&rng, test_seed());
    do_random(store, 30, false);
    REQUIRE_OK(store_snapshot(store, &why));
    (void)count_files(".log", &image_base);
    for (int i = 0; i <= HISTORY; i++) {
        struct journal_header header;
        struct journal_scan scan;

        if (i > 0)
            do_change(store);
        prefixes[i] = live;
        free(image);
        image = read_journal(image_base, &image_bytes);
        REQUIRE_OK(journal_check_header(image, image_bytes, image_base, &header, &why));
        REQUIRE_OK(
            journal_scan(image, image_bytes, &header, image_base, UINT64_MAX, NULL, NULL, &scan));
        ends[i] = scan.end;
    }
    store_close(store);
}

static int replay_image(const unsigned char *bytes, size_t length)
{
    memset(&played, 0, sizeof(played));
    return store_replay_image(bytes, length, image_base, &MODEL_CALLBACKS, &played, &why);
}

static size_t position_of(uint64_t offset)
{
    return JOURNAL_HEADER_BYTES + (size_t)(offset - image_base);
}

/* A cut file loses what was cut and nothing else; inside the snapshot it is refused. */
TEST(a_journal_cut_at_every_byte_is_a_prefix)
{
    make_history();
    for (size_t length = 0; length <= position_of(ends[HISTORY]) + 64; length++) {
        unsigned char *cut = malloc(length ? length : 1);
        int whole = 0;
        int rc;

        REQUIRE(cut != NULL);
        memcpy(cut, image, length);
        rc = replay_image(cut, length);
        free(cut);
        test_context("length %zu ", length);
        if (length >= JOURNAL_HEADER_BYTES && length < JOURNAL_HEADER_BYTES + RECORD_HEADER + 16) {
            CHECK(rc == 0 && played.topic_count == 0); /* not even the snapshot's beginning */
            continue;
        }
        if (length < position_of(ends[0]) - 63) {
            CHECK_ERR(rc, SHMQ_ECORRUPT);
            continue;
        }
        if (rc == SHMQ_ECORRUPT && length < position_of(ends[0]))
            continue; /* the end of the snapshot is the last record there, and not all of it padding */
        if (!CHECK_OK(rc))
            continue;
        /* A record holds once its bytes are there; up to 63 more fill its unit. */
        for (int i = 1; i <= HISTORY; i++)
            whole += position_of(ends[i]) <= length;
        if (!model_equals(&played, &prefixes[whole]))
            CHECK(whole < HISTORY && model_equals(&played, &prefixes[whole + 1]) &&
                  position_of(ends[whole + 1]) - length < RECORD_UNIT);
    }
    free(image);
}

/* A confirmed record that is damaged has witnesses behind it, but for the very last one. */
TEST(a_flipped_bit_is_never_silent)
{
    size_t first;
    size_t behind;

    make_history();
    first = position_of(ends[HISTORY - 2]);
    behind = position_of(ends[HISTORY]);
    for (size_t bit = first * 8; bit < behind * 8; bit++) {
        bool last = bit / 8 >= position_of(ends[HISTORY - 1]);
        int rc;

        image[bit / 8] ^= (unsigned char)(1u << bit % 8);
        rc = replay_image(image, image_bytes);
        image[bit / 8] ^= (unsigned char)(1u << bit % 8);
        test_context("bit %zu of byte %zu ", bit % 8, bit / 8 - first);
        if (rc == 0 && model_equals(&played, &live))
            CHECK(image[bit / 8] == 0); /* behind the payload: means nothing */
        else if (last)
            CHECK(rc == 0 && model_equals(&played, &prefixes[HISTORY - 1]) && played.warnings == 1);
        else
            CHECK_ERR(rc, SHMQ_ECORRUPT);
    }
    test_context(NULL);
    CHECK_OK(replay_image(image, image_bytes));
    CHECK(model_equals(&played, &live));
    CHECK_EQ(played.warnings, 0);
    free(image);
}

/* The snapshot's own records, through the whole of opening. */
TEST(damage_stops_the_start_and_changes_nothing)
{
    struct store *store = NULL;
    uint64_t newest;
    unsigned files;

    make_history();
    files = count_files(".log", &newest);
    test_random_init(&rng, test_seed());
    for (int i = 0; i < 60; i++) {
        size_t span = position_of(ends[HISTORY - 1]);
        size_t at = i == 0   ? position_of(image_base) + 8 /* the very first record */
                    : i == 1 ? 3
                             : (size_t)test_random_below(&rng, span);
        unsigned char flip = (unsigned char)(1u << test_random_below(&rng, 8));

        image[at] ^= flip;
        write_journal(image_base, image, image_bytes);
        memset(&played, 0, sizeof(played));
        if (store_open(store_dir(), &MODEL_CALLBACKS, &played, &store, &why) == 0) {
            test_context("byte %zu ", at);
            CHECK(model_equals(&played, &live)); /* a byte that means nothing */
            store_close(store);
            (void)count_files(".log", &newest);
            REQUIRE(unlink(journal_path(newest)) == 0);
        } else {
            CHECK_CONTAINS(why.text, store_dir());
        }
        CHECK_EQ(count_files(".log", &newest), files);
        image[at] ^= flip;
    }
    write_journal(image_base, image, image_bytes);
    check_replay();
    free(image);
}

TEST(a_missing_file_in_the_chain_is_noticed)
{
    struct store *store;
    uint64_t bases[3];

    test_random_init(&rng, test_seed());
    memset(&live, 0, sizeof(live));
    for (int i = 0; i < 3; i++) {
        store = NULL;
        REQUIRE_OK(store_open(store_dir(), &MODEL_CALLBACKS, &live, &store, &why));
        do_random(store, 5, false);
        (void)count_files(".log", &bases[i]);
        store_close(store);
    }
    check_replay(); /* adds a fourth */
    for (int i = 0; i < 3; i++) {
        size_t bytes;
        unsigned char *saved = read_journal(bases[i], &bytes);

        REQUIRE(unlink(journal_path(bases[i])) == 0);
        test_context("file %d ", i);
        CHECK_ERR(store_open(store_dir(), &MODEL_CALLBACKS, &played, &store, &why), SHMQ_ECORRUPT);
        CHECK_CONTAINS(why.text, i < 2 ? "is missing" : ".log");
        write_journal(bases[i], saved, bytes);
        free(saved);
    }
    test_context(NULL);
    check_replay();
}

/* Inside the chain, not at its end: the next file says where this one ended. */
TEST(damage_in_an_older_file_is_noticed)
{
    struct store *store = open_store(&live);
    uint64_t base;

    test_random_init(&rng, test_seed());
    do_random(store, 10, false);
    (void)count_files(".log", &base);
    store_close(store);
    check_replay();
    image = read_journal(base, &image_bytes);
    image[JOURNAL_HEADER_BYTES + 40] ^= 4;
    write_journal(base, image, image_bytes);
    CHECK_ERR(store_open(store_dir(), &MODEL_CALLBACKS, &played, &store, &why), SHMQ_ECORRUPT);
    CHECK_CONTAINS(why.text, "should go on to");
    free(image);
}

/* ---- A newer shmqd's records ------------------------------------------------------------------------ */

/* A journal of one record with this body, behind the beginning of a snapshot if so wanted. */
static void check_journal(const void *body, uint32_t length, uint8_t type, bool snapshot, int code,
                          const char *part)
{
    static const unsigned char BEGIN[16] = {1, 0, 1, 0};
    struct journal_place place = {.dir = store_dir(),
                                  .dir_fd = open(store_dir(), O_RDONLY | O_CLOEXEC)};
    struct journal_start start = {.base = 0};
    struct journal_writer writer;
    struct store *store;
    uint64_t newest;

    REQUIRE(place.dir_fd >= 0);
    REQUIRE_OK(journal_remove_below(&place, UINT64_MAX, &why));
    REQUIRE_OK(journal_writer_create(&writer, &place, &start, &why));
    if (snapshot)
        REQUIRE_OK(
            journal_writer_append(&writer, RECORD_TYPE_META, BEGIN, sizeof(BEGIN), 1, NULL, &why));
    REQUIRE_OK(journal_writer_append(&writer, type, body, length, 1, NULL, &why));
    REQUIRE_OK(journal_writer_publish(&writer, &why));
    journal_writer_close(&writer);
    (void)close(place.dir_fd);
    CHECK_ERR(store_open(store_dir(), &MODEL_CALLBACKS, &played, &store, &why), code);
    CHECK_CONTAINS(why.text, part);
    CHECK_EQ(count_files(".log", &newest), 1); /* as it was: the newer shmqd can go on */
}

static void check_foreign(const void *body, uint32_t length, uint8_t type, int code,
                          const char *part)
{
    check_journal(body, length, type, false, code, part);
}

struct foreign_body {
    uint16_t kind;
    uint16_t version;
    uint32_t zero;
    uint64_t confirmed;
    uint16_t tag;
    uint16_t length;
    uint8_t value[12];
} __attribute__((packed));

TEST(a_snapshot_must_be_whole)
{
    struct foreign_body end = {2, 1, 0, 0, 24, 8, {1}};
    struct foreign_body begin = {1, 1, 0, 0, 0, 0, {0}};

    check_journal(&end, 28, RECORD_TYPE_META, true, SHMQ_ECORRUPT,
                  "a snapshot of 1 records, but there are 0");
    check_journal(&end, 28, RECORD_TYPE_META, false, SHMQ_ECORRUPT, "a snapshot of 1 records");
    check_journal(&begin, 16, RECORD_TYPE_META, true, SHMQ_ECORRUPT, "a snapshot in the middle");
    check_journal(&begin, 16, RECORD_TYPE_META, false, SHMQ_ECORRUPT, "the snapshot has no end");
}

TEST(what_a_newer_shmqd_wrote_is_refused_and_kept)
{
    struct foreign_body body = {8, 1, 0, 0, 23, 8, {1}};
    const uint32_t length = 16 + 4 + 8;

    body.kind = 99;
    check_foreign(&body, length, RECORD_TYPE_META, SHMQ_EVERSION,
                  "kind 99 was written by a newer shmqd");
    body.kind = 8;
    body.version = 2;
    check_foreign(&body, length, RECORD_TYPE_META, SHMQ_EVERSION, "version 2");
    body.version = 1;
    body.tag = 1000;
    check_foreign(&body, length, RECORD_TYPE_META, SHMQ_EVERSION, "field 1000");
    body.tag = 23;
    body.length = 9;
    check_foreign(&body, length + 1, RECORD_TYPE_META, SHMQ_ECORRUPT, "damaged counter");
    body.length = 8;
    check_foreign(&body, length + 2, RECORD_TYPE_META, SHMQ_ECORRUPT, "damaged counter");
    check_foreign(&body, length - 1, RECORD_TYPE_META, SHMQ_ECORRUPT, "damaged counter");
    check_foreign(&body, 16, RECORD_TYPE_META, SHMQ_ECORRUPT, "damaged counter");
    check_foreign(&body, 15, RECORD_TYPE_META, SHMQ_ECORRUPT, "damaged record");
    check_foreign(&body, length, RECORD_TYPE_DATA, SHMQ_EVERSION, "type 0");
}

TEST(a_journal_of_another_layout_names_both_versions)
{
    struct store *store = open_store(&live);
    uint32_t version = 9;
    uint64_t base;

    store_close(store);
    (void)count_files(".log", &base);
    image = read_journal(base, &image_bytes);
    memcpy(image + offsetof(struct journal_header, version), &version, sizeof(version));
    write_journal(base, image, image_bytes);
    free(image);
    CHECK_ERR(store_open(store_dir(), &MODEL_CALLBACKS, &played, &store, &why), SHMQ_EVERSION);
    CHECK_CONTAINS(why.text, "version 9");
    CHECK_CONTAINS(why.text, "version 1");
    CHECK_CONTAINS(why.text, journal_path(base) + strlen(store_dir()) + 1);
}

static int refuse_topic(void *context, const struct store_topic *topic)
{
    (void)context;
    (void)topic;
    return 7;
}

TEST(what_a_callback_refuses_ends_the_start)
{
    struct store_callbacks callbacks = MODEL_CALLBACKS;
    struct store *store = open_store(&live);

    test_random_init(&rng, test_seed());
    while (live.topic_count == 0)
        do_random(store, 1, false);
    store_close(store);
    store = NULL;
    callbacks.put_topic = refuse_topic;
    CHECK_INT_EQ(store_open(store_dir(), &callbacks, &played, &store, &why), 7);
    CHECK(store == NULL);
    callbacks.put_topic = NULL; /* and those that are not there are not called */
    callbacks.put_counter = NULL;
    memset(&played, 0, sizeof(played));
    REQUIRE_OK(store_open(store_dir(), &callbacks, &played, &store, &why));
    store_close(store);
    CHECK_EQ(played.topic_count, 0);
}

TEST_MAIN("store_damage", T_TIMEOUT(a_journal_cut_at_every_byte_is_a_prefix, 60),
          T_TIMEOUT(a_flipped_bit_is_never_silent, 60),
          T(damage_stops_the_start_and_changes_nothing), T(a_missing_file_in_the_chain_is_noticed),
          T(damage_in_an_older_file_is_noticed), T(a_snapshot_must_be_whole),
          T(what_a_newer_shmqd_wrote_is_refused_and_kept),
          T(a_journal_of_another_layout_names_both_versions),
          T(what_a_callback_refuses_ends_the_start))
