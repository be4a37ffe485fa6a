/* SPDX-License-Identifier: Apache-2.0 */
/* test_power_loss.c: the power is cut, on a real file system, again and again, while producers publish and confirm.
 *
 * The file system lies in a loop file. In full flight it is shut down without flushing its own log, which leaves on the
 * disk what a power cut leaves there: what was synced, and of the rest whatever had gone there by itself. In some
 * rounds the supervisor has been stopped just before, so that it has no say any more; in others it runs into the errors,
 * and what is confirmed from there on does not count: ext4 returns 0 for an fdatasync that was under way when its log was
 * aborted, with nothing on disk of what lies in extents that had not been written before (Linux 6.18).
 *
 * Then everybody is killed, the memory of the bus goes, the file system is mounted again, and the next supervisor
 * finds out. Now and then the power goes once more while it does. The oracle compares each round, and settles: what
 * was read after a crash must be there after all later ones.
 *
 * `always` and `interval` lose nothing that was confirmed. `os` has promised the page cache: it may lose, but
 * invents nothing, doubles nothing, and keeps the order. In some rounds the supervisor was told to stop, and had: then
 * nothing at all is lost, whatever the policy. A disk that lies about flushes is not seen here.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test/support/daemon_process.h"
#include "test/support/durable.h"
#include "test/support/loop_disk.h"

#define TOPICS       5u
#define ALONE        4u /* the last one */
#define PROGRESS_MS  4000
#define ROUNDS_MOST  12u
#define ROUNDS_LEAST 3u
#define ROUNDS_NS    UINT64_C(6000000000)

static const struct durable_options OPTIONS[TOPICS] = {
    {.topic = "always", .durability = SHMQ_DURABLE_ALWAYS, .burst = 12, .largest = 3000},
    {.topic = "interval",
     .durability = SHMQ_DURABLE_INTERVAL,
     .burst = 12,
     .largest = 3000,
     .sync_interval = 5},
    {.topic = "os", .durability = SHMQ_DURABLE_OS, .burst = 12, .largest = 3000},
    /* Much, so that files are full and go: the next ones were made ahead, and take their names. */
    {.topic = "short",
     .durability = SHMQ_DURABLE_ALWAYS,
     .partitions = 1,
     .ring_bytes = 1u << 20,
     .burst = 30,
     .largest = 30000,
     .retain_bytes = 4u << 20},
    /* Nobody else's writes bring its files and their names to the disk. */
    {.topic = "alone",
     .durability = SHMQ_DURABLE_ALWAYS,
     .partitions = 1,
     .ring_bytes = 1u << 20,
     .burst = 30,
     .largest = 30000},
};

static enum oracle_demand demand_of(unsigned topic)
{
    if (OPTIONS[topic].retain_bytes)
        return ORACLE_RETAINED;
    return OPTIONS[topic].durability == SHMQ_DURABLE_OS ? ORACLE_LOSS : ORACLE_NO_LOSS;
}

struct world {
    struct loop_disk disk;
    char state[220];
    struct test_random random;
    pid_t daemon;
    unsigned first, end; /* of the topics in use */
    struct durable *topics[TOPICS];
    bool was_stopped_well; /* before the power went */
    unsigned rounds, stopped, ended, again;
    uint64_t published, confirmed;
};

static void start_clients(struct world *world)
{
    for (unsigned i = world->first; i < world->end; i++) {
        if (!OPTIONS[i].retain_bytes)
            durable_start_consumer(world->topics[i], 0, i % 2 == 0 ? DURABLE_READ_DURABLE : 0);
        durable_start_producer(world->topics[i], 0, 1);
        durable_start_producer(world->topics[i], 1, 60);
    }
}

static void begin(struct world *world, const char *type, bool alone)
{
    memset(world, 0, sizeof(*world));
    world->first = alone ? ALONE : 0;
    world->end = alone ? TOPICS : ALONE;
    test_random_init(&world->random, test_seed());
    loop_disk_make(&world->disk, type, UINT64_C(1) << 30);
    snprintf(world->state, sizeof(world->state), "%s/state", world->disk.mount);
    setenv("SHMQ_STATE_DIR", world->state, 1);
    world->daemon = daemon_run(NULL);
    for (unsigned i = world->first; i < world->end; i++)
        world->topics[i] = durable_new(&OPTIONS[i]);
    start_clients(world);
}

/* What the next supervisor finds is what was on the disk. */
static void lose_memory(struct world *world)
{
    (void)test_remove_leftovers();
    loop_disk_unmount(&world->disk);
    loop_disk_mount(&world->disk, false);
}

static void kill_clients(struct world *world)
{
    for (unsigned i = world->first; i < world->end; i++)
        durable_kill_all(world->topics[i]);
}

static void kill_everybody(struct world *world)
{
    kill_clients(world);
    test_kill(world->daemon, SIGKILL);
}

/* The host is shut down in good order, but for what the file system would have written in the end. */
static void stop_well(struct world *world)
{
    kill_clients(world);
    daemon_stop(world->daemon);
    loop_disk_cut(&world->disk);
    world->was_stopped_well = true;
    world->ended++;
}

static void stop_still(struct world *world)
{
    test_kill(world->daemon, SIGSTOP);
    CHECK(test_wait_stopped(world->daemon, 2000));
    /* What it had under way in the kernel may still go on. */
    if (test_random_below(&world->random, 2))
        loop_disk_write_back(world->state, &world->random);
    loop_disk_cut(&world->disk);
    kill_everybody(world);
    world->stopped++;
}

static void run_on(struct world *world)
{
    for (unsigned i = world->first; i < world->end; i++)
        oracle_distrust(durable_oracle(world->topics[i]));
    loop_disk_cut(&world->disk);
    test_sleep_ms((unsigned)test_random_below(&world->random, 60));
    kill_everybody(world);
}

static void cut_power(struct world *world)
{
    static void (*const WAYS[])(struct world *) = {stop_still, run_on, stop_still, run_on,
                                                   stop_well};

    world->was_stopped_well = false;
    test_sleep_ms(20 + (unsigned)test_random_below(&world->random, 400));
    if (test_random_below(&world->random, 3) != 0)
        loop_disk_write_back(world->state, &world->random);
    WAYS[world->rounds % 5](world);
    lose_memory(world);
}

/* The power goes again before or after the next supervisor is through. */
static void cut_again(struct world *world)
{
    world->daemon = daemon_start(NULL);
    test_sleep_ms((unsigned)test_random_below(&world->random, 25));
    loop_disk_cut(&world->disk);
    test_kill(world->daemon, SIGKILL);
    lose_memory(world);
    world->again++;
}

static void add_up(struct world *world, unsigned topic)
{
    struct durable_counts counts = durable_count(world->topics[topic]);

    world->published += counts.published;
    world->confirmed += counts.confirmed;
}

/* The topic is made anew, since the files of one that has had much are large, and seldom full. */
static void renew(struct world *world)
{
    struct fixture_client client = durable_connect();

    CHECK_OK(shmq_topic_delete(client.connection, OPTIONS[ALONE].topic));
    fixture_close(&client);
    add_up(world, ALONE);
    durable_free(world->topics[ALONE]);
    world->topics[ALONE] = durable_new(&OPTIONS[ALONE]);
}

static void recover(struct world *world)
{
    char what[64];

    while (test_random_below(&world->random, 3) == 0)
        cut_again(world);
    world->daemon = daemon_run(NULL);
    for (unsigned i = world->first; i < world->end; i++) {
        enum oracle_demand demand = demand_of(i);

        if (world->was_stopped_well && demand != ORACLE_RETAINED)
            demand = ORACLE_NO_LOSS_AT_ALL;
        snprintf(what, sizeof(what), "round %u%s, %s", world->rounds,
                 world->was_stopped_well ? " after a stop" : "", OPTIONS[i].topic);
        (void)durable_compare_and_settle(world->topics[i], demand, what);
    }
    if (world->first == ALONE)
        renew(world);
    start_clients(world);
    for (unsigned i = world->first; i < world->end; i++)
        CHECK(durable_progresses(world->topics[i], 3, PROGRESS_MS));
}

static void finish(struct world *world)
{
    for (unsigned i = world->first; i < world->end; i++) {
        durable_stop_producers(world->topics[i], true);
        add_up(world, i);
        durable_stop_consumers(world->topics[i], demand_of(i));
        (void)durable_compare(world->topics[i], demand_of(i), OPTIONS[i].topic, NULL);
        durable_free(world->topics[i]);
    }
    daemon_stop(world->daemon);
    (void)test_remove_leftovers();
    loop_disk_unmount(&world->disk);
    test_note("%s: the power was cut %u times (%u with the supervisor standing still, %u after its "
              "end), and %u times again during recovery; %llu published, %llu confirmed",
              world->disk.type, world->rounds, world->stopped, world->ended, world->again,
              (unsigned long long)world->published, (unsigned long long)world->confirmed);
}

static void run_rounds(const char *type, bool alone)
{
    uint64_t end_ns;
    struct world world;

    begin(&world, type, alone);
    end_ns = test_now_ns() + ROUNDS_NS;
    while (world.rounds < ROUNDS_MOST && test_failures() == 0 &&
           (world.rounds < ROUNDS_LEAST || test_now_ns() < end_ns)) {
        cut_power(&world);
        world.rounds++;
        recover(&world);
    }
    CHECK(world.rounds >= ROUNDS_LEAST);
    finish(&world);
}

TEST(on_ext4)
{
    run_rounds("ext4", false);
}

TEST(on_xfs)
{
    run_rounds("xfs", false);
}

TEST(alone_on_ext4)
{
    run_rounds("ext4", true);
}

TEST(alone_on_xfs)
{
    run_rounds("xfs", true);
}

TEST_MAIN("power_loss", T_TIMEOUT(on_ext4, 60), T_TIMEOUT(on_xfs, 60), T_TIMEOUT(alone_on_ext4, 60),
          T_TIMEOUT(alone_on_xfs, 60))
