/* SPDX-License-Identifier: Apache-2.0 */
/* test_hostile_memory.c: segments of every kind are scribbled on and cut off while they are in use.
 *
 * What the supervisor alone has to stand is in test_supervisor_hostile.c; here a producer and a consumer in other
 * processes publish and poll another topic all the time and may not notice. Those who use what is scribbled on are
 * processes of their own: they may die of it, but they may not hang.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test/support/fixture.h"
#include "test/support/wire.h"
#include "test/support/world.h"

/* Uses "t" until it is told to stop, whatever comes of it. */
static void use_topic(void *stop)
{
    struct fixture_client client = fixture_connect();
    shmq_producer *producer = fixture_producer(&client, "t", 200);
    shmq_consumer *consumer = fixture_consumer(&client, "t", "g");
    struct shmq_message messages[16];
    uint64_t number = 0;

    while (!atomic_load((_Atomic uint32_t *)stop)) {
        if (fixture_publish_number(producer, number++) < 0)
            test_sleep_ms(1);
        (void)shmq_poll(consumer, messages, 16, 1);
    }
    fixture_close(&client);
}

/* Random words: large, small, and such as were there already, elsewhere. */
static void scribble(int fd, size_t from, unsigned words, struct test_random *random)
{
    struct stat stat;

    REQUIRE(fstat(fd, &stat) == 0 && (size_t)stat.st_size > from + 8);
    for (unsigned i = 0; i < words; i++) {
        uint64_t value = test_random_next(random);
        off_t place =
            (off_t)((from + test_random_below(random, (uint64_t)stat.st_size - 7 - from)) &
                    ~UINT64_C(7));

        if (i % 3 == 0)
            value &= 0xfff;
        if (i % 3 == 1) {
            off_t other =
                (off_t)(test_random_below(random, (uint64_t)stat.st_size - 7) & ~UINT64_C(7));

            REQUIRE(pread(fd, &value, sizeof(value), other) == sizeof(value));
        }
        REQUIRE(pwrite(fd, &value, sizeof(value), place) == sizeof(value));
    }
}

static void cut(int fd, struct test_random *random)
{
    struct stat stat;

    REQUIRE(fstat(fd, &stat) == 0);
    CHECK_INT_EQ(ftruncate(fd, (off_t)test_random_below(random, (uint64_t)stat.st_size)), 0);
}

enum hurt { HURT_SCRIBBLE, HURT_BODY, HURT_CUT };

static void hurt(enum segment_kind kind, uint64_t topic, enum hurt how, struct test_random *random)
{
    int fd = world_open_segment(kind, topic);

    for (unsigned i = 0; i < 10; i++) {
        if (how == HURT_CUT)
            cut(fd, random);
        else
            scribble(fd, how == HURT_BODY && kind != SEGMENT_DATA ? LAYOUT_SPACING : 0, 30, random);
        test_sleep_ms(2);
        if (how == HURT_CUT)
            break;
    }
    close(fd);
}

static void end_user(pid_t pid, _Atomic uint32_t *stop)
{
    int status;

    atomic_store(stop, 1);
    status = test_wait_exit(pid, 8000);
    /* A sanitizer ends it in its own way. */
    if (!CHECK(status == 0 || status == -SIGBUS || status == -SIGSEGV ||
               (TEST_SANITIZED && status != TEST_TIMED_OUT)))
        FAIL("who used it ended with %d", status);
    if (status == TEST_TIMED_OUT)
        test_kill(pid, SIGKILL);
}

static bool is_gone(void *connection)
{
    struct shmq_topic_info info;

    return shmq_topic_describe(connection, "t", &info) == SHMQ_ENOTOPIC;
}

/* Returns 1 if the partition was quarantined. */
static unsigned hurt_one(struct world *world, enum segment_kind kind, enum hurt how,
                         struct test_random *random)
{
    _Atomic uint32_t *stop = test_shared(sizeof(*stop));
    struct shmq_topic_info info;
    pid_t users[2];

    test_context("%c, %s: ", (char)kind, how == HURT_CUT ? "cut" : "scribbled on");
    world_make_topic(world, "t", 2);
    for (int i = 0; i < 2; i++)
        users[i] = test_spawn(use_topic, (void *)stop);
    test_sleep_ms(30);
    REQUIRE_OK(shmq_topic_describe(world->client.connection, "t", &info));
    hurt(kind, info.id, how, random);
    test_kill(users[0], SIGKILL); /* with what it holds in there */
    test_sleep_ms(30);
    world_check(world);
    (void)shmq_topic_purge(world->client.connection, "t");
    end_user(users[1], stop);
    CHECK_OK(shmq_topic_describe(world->client.connection, "t", &info));
    CHECK(info.quarantined <= 1); /* that one and no other */
    CHECK_OK(shmq_topic_delete(world->client.connection, "t"));
    CHECK(test_eventually(is_gone, world->client.connection, WORLD_PROGRESS_MS));
    world_check(world);
    test_context(NULL);
    return info.quarantined;
}

static void hurt_all(enum hurt how, unsigned rounds, unsigned floor)
{
    static const enum segment_kind KINDS[] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT,
                                              SEGMENT_DATA, SEGMENT_GROUP};
    struct test_random random;
    struct world world;
    unsigned quarantined = 0;

    test_random_init(&random, test_seed());
    world_start(&world, "--ephemeral --set log.level=error");
    for (unsigned i = 0; i < 5 * rounds && test_failures() == 0; i++)
        quarantined += hurt_one(&world, KINDS[i % 5], how, &random);
    test_note("%u of %u partitions quarantined (floor %u)", quarantined, 5 * rounds, floor);
    CHECK(quarantined >= floor);
    world_end(&world);
}

TEST(scribbled_while_in_use)
{
    hurt_all(HURT_SCRIBBLE, 4, 3);
}

TEST(scribbled_behind_the_header)
{
    hurt_all(HURT_BODY, 4, 3);
}

TEST(cut_while_in_use)
{
    hurt_all(HURT_CUT, 3, 4);
}

/* B is read by all and written by shmqd alone; its owner can spoil it nevertheless. shmqd survives that, and the next
 * one has a bus that works, with the topics that there were. */
TEST(a_spoilt_bus_segment)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 12 && test_failures() == 0; i++) {
        pid_t daemon = daemon_run(NULL);
        struct fixture_client client = fixture_connect();
        struct wire wire;
        struct test_output output;
        int fd, status;

        test_context("round %u: ", i);
        fixture_topic(&client, "t", NULL);
        fixture_close(&client);
        REQUIRE(wire_open(&wire));
        fd = world_open_segment(SEGMENT_BUS, 0);
        if (i % 3 == 2)
            cut(fd, &random);
        else
            scribble(fd, i % 3 == 0 ? LAYOUT_SPACING : 0, 4000, &random);
        close(fd);
        CHECK_OK(wire_topic_describe(&wire, "t", NULL));
        wire_close(&wire);
        REQUIRE(wire_connect(&wire) == 0);
        CHECK_OK(wire_hello(&wire, 0));
        wire_close(&wire);
        if (i % 2)
            test_kill(daemon, SIGKILL);
        else
            daemon_stop(daemon);
        daemon = daemon_start(NULL);
        if (daemon_await(daemon, &status)) {
            client = fixture_connect();
            CHECK_ERR(shmq_topic_create(client.connection, "t", NULL), SHMQ_EEXIST);
            fixture_close(&client);
            daemon_stop(daemon);
        } else { /* the version was hit: it must not be touched */
            CHECK_INT_EQ(daemon_refused("", &output), 1);
            CHECK_CONTAINS(output.err, "layout");
            test_output_free(&output);
        }
        daemon_forget_bus();
    }
    test_context(NULL);
}

TEST_MAIN("hostile_memory", T_TIMEOUT(scribbled_while_in_use, 60),
          T_TIMEOUT(scribbled_behind_the_header, 60), T_TIMEOUT(cut_while_in_use, 60),
          T_TIMEOUT(a_spoilt_bus_segment, 60))
