/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata store below its own fault points: the host dies before any call to the disk, and the nth call of each
 * kind fails, for every n. What was confirmed is there, what was not is there whole or not at all. */
#include "test/support/disk.h"
#include "test/support/store_bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OPERATIONS 10 /* a life */

static struct model_operation pending; /* under way, or refused: a crash may bring it back */
static bool is_pending;
static struct model with_pending;
static unsigned cuts;

static const char *cut_dir(void)
{
    static char dir[300];

    (void)snprintf(dir, sizeof(dir), "%s/cut", test_tmpdir());
    return dir;
}

/* A start on what the disk would hold. */
static void check_cut(struct disk *disk, const struct disk_cut *cut)
{
    struct store *store = NULL;

    disk_after_cut(disk, cut, cut_dir());
    disk_pause(disk);
    disk_quiet();
    memset(&played, 0, sizeof(played));
    if (!CHECK_OK(store_open(cut_dir(), &MODEL_CALLBACKS, &played, &store, &why)))
        FAIL("%s", why.text);
    store_close(store);
    if (!model_equals(&played, &live)) {
        with_pending = live;
        if (CHECK(is_pending))
            model_apply(&with_pending, &pending);
        CHECK(model_equals(&played, &with_pending));
    }
    disk_resume(disk);
}

static void cut_here(void *context, struct disk *disk, const struct io_event *event)
{
    static const struct disk_cut CUTS[] = {{.pages = DISK_NONE, .names = DISK_NONE},
                                           {.pages = DISK_ALL, .names = DISK_ALL},
                                           {.pages = DISK_NONE, .names = DISK_ALL},
                                           {.pages = DISK_ALL, .names = DISK_NONE},
                                           {.pages = DISK_ANY, .names = DISK_PREFIX},
                                           {.pages = DISK_ANY, .names = DISK_PREFIX, .unit = 512}};

    (void)context;
    for (size_t i = 0; i < COUNT_OF(CUTS); i++) {
        test_context("before call %u (%s), cut %zu ", cuts, io_kind_name(event->kind), i);
        check_cut(disk, &CUTS[i]);
    }
    test_context(NULL);
    cuts++;
}

/* Puts, and a snapshot in the middle. */
static unsigned live_once(struct store *store)
{
    unsigned failures = 0;

    for (unsigned i = 0; i < OPERATIONS; i++) {
        model_draw(&live, &rng, &pending);
        if (i == OPERATIONS / 2)
            pending.kind = MODEL_SNAPSHOT;
        is_pending = true;
        if (model_put(store, &pending, &why) == 0) {
            model_apply(&live, &pending);
            is_pending = false;
        } else {
            failures++;
            CHECK_CONTAINS(why.text, store_dir());
        }
    }
    return failures;
}

TEST(a_power_cut_before_any_call_is_before_or_after_an_operation)
{
    struct store *store;
    struct disk *disk;

    test_random_init(&rng, test_seed());
    disk = disk_new(store_dir(), test_seed());
    disk_write_back(disk, 32);
    store = open_store(&live);
    disk_before(disk, cut_here, NULL);
    CHECK_EQ(live_once(store), 0);
    store_close(store);
    CHECK(cuts > 20);
    test_note("%u calls", cuts);
    disk_free(disk);
}

/* After an error the operation may be in the file, and another one behind it: only once it is confirmed is the state
 * certain again. */
static bool live_with(const struct disk_fault *fault)
{
    static const struct disk_fault NONE = {.kind = IO_KINDS};
    const struct disk_cut cut = {.pages = DISK_NONE, .names = DISK_NONE};
    struct store *store;
    struct disk *disk;
    unsigned failures;
    bool struck;

    clear_dir();
    test_random_init(&rng, test_seed());
    disk = disk_new(store_dir(), test_seed());
    store = open_store(&live);
    do_random(store, 3, false);
    disk_fail(disk, fault);
    failures = live_once(store);
    struck = disk_failed(disk);
    CHECK(failures <= 1 || fault->repeated);
    disk_fail(disk, &NONE);
    do_random(store, 3, true); /* heals without a restart */
    is_pending = false;
    check_cut(disk, &cut);
    store_close(store);
    disk_pause(disk);
    disk_quiet();
    check_replay();
    disk_free(disk);
    return struck;
}

static void fail_each(enum io_kind kind, int error, bool repeated)
{
    struct disk_fault fault = {.kind = kind, .error = error, .repeated = repeated};

    do {
        fault.nth++;
        test_context("%s %llu: %d%s ", io_kind_name(kind), (unsigned long long)fault.nth, error,
                     repeated ? "+" : "");
    } while (live_with(&fault));
    test_context(NULL);
    CHECK(fault.nth > 1);
}

TEST(the_nth_call_of_each_kind_fails)
{
    fail_each(IO_WRITE, EIO, false);
    fail_each(IO_WRITE, ENOSPC, false);
    fail_each(IO_WRITE, IO_SHORT, true);
    fail_each(IO_WRITE, ENOSPC, true);
    fail_each(IO_SYNC, EIO, false);
    fail_each(IO_SYNC, EIO, true);
    fail_each(IO_SYNC_DIR, EIO, false);
    fail_each(IO_SYNC_DIR, EIO, true);
    fail_each(IO_OPEN, EMFILE, false);
    fail_each(IO_RENAME, EIO, false);
    fail_each(IO_RENAME, EROFS, true);
    fail_each(IO_UNLINK, EIO, false);
    fail_each(IO_UNLINK, EROFS, true);
}

TEST_MAIN("store_io", T_TIMEOUT(a_power_cut_before_any_call_is_before_or_after_an_operation, 60),
          T_TIMEOUT(the_nth_call_of_each_kind_fails, 60))
