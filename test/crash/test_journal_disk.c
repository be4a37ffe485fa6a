/* SPDX-License-Identifier: Apache-2.0 */
/* test_journal_disk.c: the disk is in trouble: calls fail for once and for a while, it is full, read-only, or stands still.
 *
 * Producers wait or are refused, as their policy and timeout say, and no call takes longer than it was given; the
 * partition says what is the matter (journal_error); nothing that was confirmed is lost; and when the trouble is over it
 * goes on by itself. Calls are failed below the C library's callers (SHMQ_IO_FAULT, daemon/io.h); the file systems are
 * real ones (test/support/loop_disk.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "test/support/daemon_process.h"
#include "test/support/durable.h"
#include "test/support/loop_disk.h"

#define TOPICS      3u
#define PROGRESS_MS 8000

static const struct durable_options OPTIONS[TOPICS] = {
    {.topic = "os", .durability = SHMQ_DURABLE_OS, .largest = 6000},
    {.topic = "interval",
     .durability = SHMQ_DURABLE_INTERVAL,
     .largest = 6000,
     .sync_interval = 4,
     .overflow = SHMQ_REJECT},
    {.topic = "always", .durability = SHMQ_DURABLE_ALWAYS, .largest = 6000},
};

struct world {
    struct loop_disk disk;
    pid_t daemon;
    bool forgets; /* the page cache, which is all that policy os promises */
    struct durable *topics[TOPICS];
};

static void start_clients(struct world *world)
{
    for (unsigned i = 0; i < TOPICS; i++) {
        durable_start_consumer(world->topics[i], 0, i % 2 ? 0 : DURABLE_READ_DURABLE);
        durable_await_consumer(world->topics[i], 0);
        durable_start_producer(world->topics[i], 0, 1);
        durable_start_producer(world->topics[i], 1, 500); /* more than the ring takes */
    }
}

static void begin(struct world *world)
{
    world->daemon = daemon_run(NULL);
    for (unsigned i = 0; i < TOPICS; i++)
        world->topics[i] = durable_new(&OPTIONS[i]);
    start_clients(world);
}

static void begin_there(struct world *world)
{
    char state[220];

    snprintf(state, sizeof(state), "%s/state", world->disk.mount);
    setenv("SHMQ_STATE_DIR", state, 1);
    begin(world);
}

static void begin_on(struct world *world, const char *type, uint64_t bytes)
{
    memset(world, 0, sizeof(*world));
    loop_disk_make(&world->disk, type, bytes);
    begin_there(world);
}

static void check_progress(struct world *world)
{
    for (unsigned i = 0; i < TOPICS; i++)
        CHECK(durable_progresses(world->topics[i], 5, PROGRESS_MS));
}

static bool is_healed(void *argument)
{
    struct world *world = argument;

    for (unsigned i = 0; i < TOPICS; i++) {
        if (durable_journal_error(world->topics[i]) != 0)
            return false;
    }
    return true;
}

static uint64_t count_refused(const struct world *world)
{
    uint64_t refused = 0;

    for (unsigned i = 0; i < TOPICS; i++)
        refused += durable_count(world->topics[i]).refused;
    return refused;
}

static uint32_t count_failing(void)
{
    struct fixture_client client = fixture_connect();
    struct shmq_bus_info info = {.journals_failing = 0};

    CHECK_OK(shmq_bus_describe(client.connection, &info));
    fixture_close(&client);
    return info.journals_failing;
}

static void finish(struct world *world, enum oracle_demand demand)
{
    CHECK(test_eventually(is_healed, world, PROGRESS_MS));
    CHECK_EQ(count_failing(), 0);
    for (unsigned i = 0; i < TOPICS; i++)
        durable_stop_producers(world->topics[i], true);
    for (unsigned i = 0; i < TOPICS; i++) {
        bool forgets = OPTIONS[i].durability == SHMQ_DURABLE_OS && world->forgets;
        enum oracle_demand of_topic = forgets ? ORACLE_LOSS : demand;

        durable_stop_consumers(world->topics[i], of_topic);
        (void)durable_compare(world->topics[i], of_topic, OPTIONS[i].topic, NULL);
        durable_free(world->topics[i]);
    }
    daemon_stop(world->daemon);
    daemon_forget_bus();
    if (world->disk.mounted)
        loop_disk_unmount(&world->disk);
}

/* ---- calls fail ---------------------------------------------------------------------------------------------------------- */

struct plan {
    const char *fault;
    int error; /* that is shown for a while; 0: what fails here need not hold anything up */
};

/* Far enough on that the start is over, of which other suites see to every call. */
static const struct plan PLANS[] = {
    {"write:200:EIO", EIO},    {"write:200:EIO+3", EIO},     {"write:200:ENOSPC+5", ENOSPC},
    {"write:200:EDQUOT+5", 0}, {"write:200:SHORT+200", 0},   {"sync:60:EIO", EIO},
    {"sync:60:EIO+3", EIO},    {"sync:60:ENOSPC+3", ENOSPC}, {"allocate:1:ENOSPC+8", ENOSPC},
    {"allocate:1:EIO+2", EIO}, {"allocate:3:EDQUOT+4", 0},   {"rename:3:EIO+4", 0},
    {"rename:3:EROFS+4", 0},   {"sync_dir:12:EIO+4", 0},     {"open:30:EMFILE+4", 0},
    {"open:30:EIO+4", 0},      {"unlink:9:EIO+4", 0},
};

struct watch {
    struct world *world;
    struct fixture_client client; /* its own: what is watched is short */
    int error;                    /* to be seen */
    bool seen;
    uint64_t goal[TOPICS];
};

static int note_error(const struct shmq_partition_info *info, void *context)
{
    struct watch *watch = context;

    watch->seen = watch->seen || (int)info->journal_error == watch->error;
    return 0;
}

/* Everybody confirms again, and the error has been there. */
static bool is_over(void *argument)
{
    struct watch *watch = argument;
    bool over = true;

    for (unsigned i = 0; i < TOPICS; i++) {
        if (!watch->seen)
            (void)shmq_partition_list(watch->client.connection, OPTIONS[i].topic, note_error,
                                      watch);
        over = over && durable_count(watch->world->topics[i]).confirmed >= watch->goal[i];
    }
    return over && (watch->seen || watch->error == 0);
}

static void suffer(struct world *world, const struct plan *plan)
{
    struct watch watch = {.world = world, .error = plan->error};
    int status = 0;

    test_kill(world->daemon, SIGKILL);
    for (unsigned i = 0; i < TOPICS; i++)
        watch.goal[i] = durable_count(world->topics[i]).confirmed + 400;
    world->daemon = daemon_start(&(struct daemon_options){.io_fault = plan->fault});
    if (!daemon_await(world->daemon, &status)) {
        /* It struck the start, which is refused: nothing else is promised there. */
        CHECK(plan->error == 0 && (status == 1 || status == 4));
        world->daemon = daemon_run(NULL);
    }
    watch.client = durable_connect();
    if (!CHECK(test_eventually(is_over, &watch, PROGRESS_MS)))
        FAIL("journal_error %d was %sseen", plan->error, watch.seen ? "" : "not ");
    fixture_close(&watch.client);
    CHECK(daemon_lives(world->daemon));
    check_progress(world);
    CHECK(test_eventually(is_healed, world, PROGRESS_MS));
}

TEST(calls_fail)
{
    struct world world = {.daemon = 0};
    unsigned i;

    begin(&world);
    for (i = 0; i < sizeof(PLANS) / sizeof(PLANS[0]) && test_failures() == 0; i++) {
        test_context("%s: ", PLANS[i].fault);
        suffer(&world, &PLANS[i]);
    }
    test_context(NULL);
    test_note("%u troubles", i);
    finish(&world, ORACLE_NO_LOSS_AT_ALL);
}

static bool fail_from(struct world *world, unsigned first)
{
    for (unsigned i = first; i < TOPICS; i++) {
        if (durable_journal_error(world->topics[i]) == 0)
            return false;
    }
    return true;
}

static bool all_fail(void *world)
{
    return fail_from(world, 0);
}

static bool synced_fail(void *world)
{
    return fail_from(world, 1); /* os is the first */
}

/* For ever, which is no longer than this supervisor lives: nothing may be confirmed meanwhile by who needs that call. */
static void check_standstill(struct world *world, const char *fault, bool os_as_well)
{
    uint64_t before[TOPICS];

    test_kill(world->daemon, SIGKILL);
    world->daemon = daemon_run(&(struct daemon_options){.io_fault = fault});
    CHECK(test_eventually(os_as_well ? all_fail : synced_fail, world, PROGRESS_MS));
    test_sleep_ms(100); /* a call that had begun ends */
    for (unsigned i = 0; i < TOPICS; i++)
        before[i] = durable_journal_end(world->topics[i]);
    test_sleep_ms(400);
    for (unsigned i = os_as_well ? 0 : 1; i < TOPICS; i++)
        CHECK_EQ(durable_journal_end(world->topics[i]), before[i]);
    CHECK(daemon_lives(world->daemon));
    test_kill(world->daemon, SIGKILL);
    world->daemon = daemon_run(NULL);
    check_progress(world);
}

TEST(nothing_is_confirmed_while_calls_fail)
{
    struct world world = {.daemon = 0};

    begin(&world);
    check_standstill(&world, "sync:60:EIO+", false);
    check_standstill(&world, "sync:60:ENOSPC+", false);
    check_standstill(&world, "write:200:EIO+", true);
    check_standstill(&world, "write:200:ENOSPC+", true);
    finish(&world, ORACLE_NO_LOSS_AT_ALL);
}

/* ---- it is full ---------------------------------------------------------------------------------------------------------- */

static bool has_error(void *argument)
{
    struct world *world = argument;

    for (unsigned i = 0; i < TOPICS; i++) {
        if (durable_journal_error(world->topics[i]) != ENOSPC)
            return false;
    }
    return true;
}

static bool is_refused(void *world)
{
    return count_refused(world) > 0;
}

static void fill(struct world *world, uint64_t left)
{
    check_progress(world);
    loop_disk_fill(&world->disk, left);
    CHECK(test_eventually(has_error, world, 20000));
    CHECK(test_eventually(is_refused, world, 5000));
    CHECK(daemon_lives(world->daemon));
    CHECK(count_failing() >= TOPICS);
}

static void make_room(struct world *world)
{
    loop_disk_make_room(&world->disk);
    check_progress(world);
    CHECK(test_eventually(is_healed, world, PROGRESS_MS));
}

static void fill_and_heal(const char *type, uint64_t bytes)
{
    struct world world;

    begin_on(&world, type, bytes);
    fill(&world, UINT64_C(4) << 20);
    make_room(&world);
    test_note("%s: %llu publishes were refused while it was full", type,
              (unsigned long long)count_refused(&world));
    finish(&world, ORACLE_NO_LOSS_AT_ALL);
}

TEST(a_full_tmpfs)
{
    fill_and_heal("tmpfs", UINT64_C(256) << 20);
}

TEST(a_full_ext4)
{
    fill_and_heal("ext4", UINT64_C(1) << 30);
}

static void make_large_topic(void)
{
    struct shmq_topic_options topic = SHMQ_TOPIC_OPTIONS_INIT;
    struct fixture_client client = fixture_connect();
    struct shmq_message message = {.body_length = 100000};
    shmq_producer *producer;
    char *body = calloc(1, message.body_length);

    REQUIRE(body != NULL);
    message.body = body;
    topic.durability = SHMQ_DURABLE_OS;
    topic.ring_bytes = 1u << 20;
    fixture_topic(&client, "ballast", &topic);
    producer = fixture_producer(&client, "ballast", 5000);
    for (int i = 0; i < 1000; i++)
        CHECK_OK(shmq_publish(producer, &message));
    CHECK_OK(shmq_confirm(producer, &message, SHMQ_DURABLE, test_scaled_ms(5000)));
    free(body);
    fixture_close(&client);
}

/* Room is made with the bus's own means, which must not need room themselves. */
TEST(a_full_disk_is_freed_by_deleting_a_topic)
{
    struct fixture_client client;
    struct world world;

    begin_on(&world, "ext4", UINT64_C(1) << 30);
    make_large_topic();
    fill(&world, UINT64_C(4) << 20);
    client = fixture_connect();
    CHECK_OK(shmq_topic_delete(client.connection, "ballast"));
    fixture_close(&client);
    check_progress(&world);
    CHECK(test_eventually(is_healed, &world, PROGRESS_MS));
    finish(&world, ORACLE_NO_LOSS_AT_ALL);
}

/* A supervisor that has no room for its metadata says so and ends; one that has takes over. */
static bool start_without_room(struct world *world)
{
    int status = 0;

    world->daemon = daemon_start(NULL);
    if (!daemon_await(world->daemon, &status)) {
        struct test_output output;

        CHECK_INT_EQ(status, 1);
        CHECK_INT_EQ(daemon_refused("", &output), 1);
        CHECK_CONTAINS(output.err, "No space left");
        test_output_free(&output);
        return false;
    }
    test_sleep_ms(100);
    return true;
}

/* The host crashes when the disk is full: what was confirmed is there, and it goes on when there is room. */
TEST(a_full_disk_and_the_memory_is_lost)
{
    struct world world;
    bool runs = true;

    begin_on(&world, "ext4", UINT64_C(1) << 30);
    fill(&world, UINT64_C(4) << 20);
    for (unsigned i = 0; i < 2 && runs; i++) {
        test_kill(world.daemon, SIGKILL);
        (void)test_remove_leftovers();
        runs = start_without_room(&world);
    }
    loop_disk_make_room(&world.disk);
    if (!runs)
        world.daemon = daemon_run(NULL);
    check_progress(&world);
    finish(&world, ORACLE_NO_LOSS);
}

/* ---- it gives errors ------------------------------------------------------------------------------------------------------ */

/* Blocks that cannot be written: fdatasync says so once, and the kernel forgets the pages. What they held still stands in the
 * ring, and has to be written again, elsewhere. Policy os has promised the page cache, and that has failed. */
TEST(a_disk_that_forgets)
{
    struct world world;

    memset(&world, 0, sizeof(world));
    world.forgets = true;
    loop_disk_make_thin(&world.disk, UINT64_C(512) << 20, UINT64_C(192) << 20);
    begin_there(&world);
    for (unsigned i = 0; i < 2; i++) {
        check_progress(&world);
        loop_disk_fill(&world.disk, UINT64_C(1) << 20);
        CHECK(test_eventually(synced_fail, &world, 20000));
        CHECK(test_eventually(is_refused, &world, 5000));
        CHECK(daemon_lives(world.daemon));
        test_sleep_ms(300);
        loop_disk_make_room(&world.disk);
        loop_disk_drop_cache(getenv("SHMQ_STATE_DIR")); /* as the kernel does when it likes to */
        for (unsigned topic = 1; topic < TOPICS; topic++)
            CHECK(durable_progresses(world.topics[topic], 5, PROGRESS_MS));
    }
    finish(&world, ORACLE_NO_LOSS_AT_ALL);
}

/* ---- it is read-only ------------------------------------------------------------------------------------------------------ */

/* What has been synced is there; what was in the page cache is gone, as no file system brings it back. */
static void compare_after_error(struct world *world)
{
    for (unsigned i = 0; i < TOPICS; i++)
        (void)durable_compare_and_settle(world->topics[i],
                                         OPTIONS[i].durability == SHMQ_DURABLE_OS ? ORACLE_LOSS
                                                                                  : ORACLE_NO_LOSS,
                                         OPTIONS[i].topic);
}

/* As after an error of the disk; the host is started again, with the file system read-only at first, and a supervisor
 * says so. */
TEST(a_read_only_file_system)
{
    struct test_output output;
    struct world world;
    int status;

    memset(&world, 0, sizeof(world));
    loop_disk_make(&world.disk, "ext4", UINT64_C(256) << 20);
    loop_disk_need_forbid(&world.disk);
    begin_there(&world);
    check_progress(&world);
    for (unsigned i = 0; i < TOPICS; i++)
        oracle_distrust(durable_oracle(world.topics[i])); /* see test_power_loss.c */
    loop_disk_forbid(&world.disk);
    CHECK(test_eventually(all_fail, &world, PROGRESS_MS));
    CHECK(test_eventually(is_refused, &world, 5000));
    CHECK(daemon_lives(world.daemon));
    for (unsigned i = 0; i < TOPICS; i++)
        durable_kill_all(world.topics[i]);
    test_kill(world.daemon, SIGKILL);
    (void)test_remove_leftovers();
    loop_disk_unmount(&world.disk);
    loop_disk_mount(&world.disk, true);
    status = daemon_refused("", &output);
    CHECK(status == 1 || status == 4);
    CHECK_CONTAINS(output.err, "ead-only");
    test_output_free(&output);
    loop_disk_unmount(&world.disk);
    loop_disk_mount(&world.disk, false);
    world.daemon = daemon_run(NULL);
    compare_after_error(&world);
    start_clients(&world);
    check_progress(&world);
    finish(&world, ORACLE_NO_LOSS);
}

/* ---- it stands still ------------------------------------------------------------------------------------------------------ */

/* A process of its own: whatever becomes of the test, the file system thaws. */
static void freeze_for_a_while(void *argument)
{
    const struct world *world = argument;
    int fd = open(world->disk.mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    REQUIRE(fd >= 0 && ioctl(fd, FIFREEZE, 0) == 0);
    (void)signal(SIGTERM, SIG_IGN);
    test_sleep_ms(1500);
    CHECK(ioctl(fd, FITHAW, 0) == 0);
    close(fd);
}

/* Writes neither fail nor end. Producers are refused when their time is over (durable.h checks that each call keeps to
 * it); then all goes on. */
TEST(a_disk_that_stands_still)
{
    struct world world;
    pid_t freezer;

    begin_on(&world, "ext4", UINT64_C(256) << 20);
    check_progress(&world);
    freezer = test_spawn(freeze_for_a_while, &world);
    CHECK(test_eventually(is_refused, &world, 4000));
    CHECK_INT_EQ(test_wait_exit(freezer, 10000), 0);
    check_progress(&world);
    finish(&world, ORACLE_NO_LOSS_AT_ALL);
}

TEST_MAIN("journal_disk", T_TIMEOUT(calls_fail, 90),
          T_TIMEOUT(nothing_is_confirmed_while_calls_fail, 60), T_TIMEOUT(a_full_tmpfs, 60),
          T_TIMEOUT(a_full_ext4, 60), T_TIMEOUT(a_full_disk_is_freed_by_deleting_a_topic, 60),
          T_TIMEOUT(a_full_disk_and_the_memory_is_lost, 60), T_TIMEOUT(a_disk_that_forgets, 90),
          T_TIMEOUT(a_read_only_file_system, 60), T_TIMEOUT(a_disk_that_stands_still, 60))
