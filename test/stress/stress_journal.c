/* SPDX-License-Identifier: Apache-2.0 */
/* stress_journal.c: for STRESS_SECONDS each (10 where nothing is said), seeded: shmqd is killed at random while durable
 * topics are under full load; producers and consumers die and are stopped as well.
 *
 * In rounds of some seconds, each with topics of its own, so that the disk does not fill: policy os and always, one that
 * spills, read by consumers that stand still for longer than its ring lasts, and a single partition with large messages.
 * Verified at the end of each by the oracle: nothing that was confirmed, or that somebody read as durable, is lost, for
 * the groups that were there all the time as for a reader who comes later.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/support/daemon_process.h"
#include "test/support/durable.h"

#define TOPICS      4u
#define PROGRESS_MS 10000
#define ROUND_NS    UINT64_C(6000000000)

static const struct durable_options OPTIONS[TOPICS] = {
    {.topic = "os", .durability = SHMQ_DURABLE_OS, .burst = 200, .ring_bytes = 1u << 20},
    {.topic = "always", .durability = SHMQ_DURABLE_ALWAYS, .burst = 200, .ring_bytes = 1u << 20},
    {.topic = "spill",
     .durability = SHMQ_DURABLE_INTERVAL,
     .overflow = SHMQ_SPILL,
     .burst = 60,
     .partitions = 3},
    {.topic = "large",
     .durability = SHMQ_DURABLE_ALWAYS,
     .overflow = SHMQ_REJECT,
     .partitions = 1,
     .largest = 50000,
     .burst = 4,
     .ring_bytes = 1u << 20},
};
static const uint32_t WINDOWS[3] = {1, 50, 500};

struct melee {
    struct test_random random;
    bool memory_is_lost;
    pid_t daemon;
    struct durable *topics[TOPICS];
    unsigned rounds, daemons, in_start, producers, consumers, pauses;
    uint64_t published, confirmed, unknown;
};

static uint64_t duration_ns(void)
{
    const char *seconds = getenv("STRESS_SECONDS");
    uint64_t value = seconds ? strtoull(seconds, NULL, 10) : 0;

    return (value > 0 ? value : 10) * UINT64_C(1000000000);
}

/* ---- strikes ----------------------------------------------------------------------------------------------------------- */

static struct durable *any_topic(struct melee *melee)
{
    return melee->topics[test_random_below(&melee->random, TOPICS)];
}

static unsigned kind_of_consumer(unsigned topic, unsigned lane)
{
    unsigned kind = lane == 1 ? DURABLE_READ_DURABLE : 0;

    return OPTIONS[topic].overflow == SHMQ_SPILL ? kind | DURABLE_SLOW : kind;
}

static void kill_producer(struct melee *melee)
{
    struct durable *topic = any_topic(melee);
    unsigned lane = (unsigned)test_random_below(&melee->random, 3);

    durable_kill_producer(topic, lane);
    durable_start_producer(topic, lane, WINDOWS[lane]);
    melee->producers++;
}

static void kill_consumer(struct melee *melee)
{
    unsigned topic = (unsigned)test_random_below(&melee->random, TOPICS);
    unsigned lane = (unsigned)test_random_below(&melee->random, 2);

    durable_kill_consumer(melee->topics[topic], lane);
    durable_start_consumer(melee->topics[topic], lane, kind_of_consumer(topic, lane));
    melee->consumers++;
}

static void pause_consumer(struct melee *melee)
{
    pid_t pid =
        durable_consumer_pid(any_topic(melee), (unsigned)test_random_below(&melee->random, 2));

    kill(pid, SIGSTOP);
    test_sleep_ms((unsigned)test_random_below(&melee->random, 300));
    kill(pid, SIGCONT);
    melee->pauses++;
}

static void kill_daemon(struct melee *melee)
{
    do {
        test_kill(melee->daemon, SIGKILL);
        melee->daemons++;
        if (melee->memory_is_lost)
            (void)test_remove_leftovers();
        melee->daemon = daemon_start(NULL);
        /* Now and then the successor, too, in its recovery. */
        if (test_random_below(&melee->random, 3) != 0)
            return;
        test_sleep_ms((unsigned)test_random_below(&melee->random, 15));
        melee->in_start++;
    } while (true);
}

static void strike(struct melee *melee)
{
    switch (test_random_below(&melee->random, 8)) {
    case 0:
        kill_producer(melee);
        break;
    case 1:
        kill_consumer(melee);
        break;
    case 2:
        pause_consumer(melee);
        break;
    default:
        kill_daemon(melee);
    }
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------ */

static void begin_round(struct melee *melee)
{
    melee->daemon = daemon_run(NULL);
    for (unsigned i = 0; i < TOPICS; i++) {
        struct durable_options options = OPTIONS[i];

        options.messages = UINT64_C(1) << 21;
        melee->topics[i] = durable_new(&options);
        for (unsigned lane = 0; lane < 2; lane++) {
            durable_start_consumer(melee->topics[i], lane, kind_of_consumer(i, lane));
            durable_await_consumer(melee->topics[i], lane);
        }
        for (unsigned lane = 0; lane < 3; lane++)
            durable_start_producer(melee->topics[i], lane, WINDOWS[lane]);
    }
}

static void check_progress(struct melee *melee)
{
    int status = 0;

    if (!daemon_await(melee->daemon, &status)) {
        FAIL("shmqd ended at its start with %d", status);
        test_abort();
    }
    for (unsigned i = 0; i < TOPICS; i++)
        CHECK(durable_progresses(melee->topics[i], 10, PROGRESS_MS));
}

static void end_round(struct melee *melee)
{
    enum oracle_demand demand = melee->memory_is_lost ? ORACLE_NO_LOSS : ORACLE_NO_LOSS_AT_ALL;

    check_progress(melee);
    for (unsigned i = 0; i < TOPICS; i++)
        durable_stop_producers(melee->topics[i], true);
    for (unsigned i = 0; i < TOPICS; i++) {
        struct durable_counts counts = durable_count(melee->topics[i]);

        durable_stop_consumers(melee->topics[i], demand);
        (void)durable_compare(melee->topics[i], demand, OPTIONS[i].topic, NULL);
        melee->published += counts.published;
        melee->confirmed += counts.confirmed;
        melee->unknown += counts.unknown;
        durable_free(melee->topics[i]);
    }
    daemon_stop(melee->daemon);
    daemon_forget_bus();
    melee->rounds++;
}

static void run(bool memory_is_lost)
{
    uint64_t end_ns = test_now_ns() + duration_ns();
    struct melee melee = {.memory_is_lost = memory_is_lost};
    unsigned strikes = 0;

    test_random_init(&melee.random, test_seed());
    while (test_now_ns() < end_ns && test_failures() == 0) {
        uint64_t round_end_ns = test_now_ns() + ROUND_NS;

        begin_round(&melee);
        while (test_now_ns() < round_end_ns && test_failures() == 0) {
            test_sleep_ms((unsigned)test_random_below(&melee.random, 150));
            strike(&melee);
            if (++strikes % 10 == 0)
                check_progress(&melee);
        }
        end_round(&melee);
    }
    test_note(
        "%u rounds: %llu messages published, %llu confirmed, %llu unknown; killed: %u supervisors (%u in "
        "their start), %u producers, %u consumers; %u paused",
        melee.rounds, (unsigned long long)melee.published, (unsigned long long)melee.confirmed,
        (unsigned long long)melee.unknown, melee.daemons, melee.in_start, melee.producers,
        melee.consumers, melee.pauses);
    CHECK(melee.daemons > 0 && melee.confirmed > 0);
}

TEST(killed_under_load)
{
    run(false);
}

TEST(killed_under_load_and_the_memory_is_lost)
{
    run(true);
}

TEST_MAIN("stress_journal", T_TIMEOUT(killed_under_load, 86400),
          T_TIMEOUT(killed_under_load_and_the_memory_is_lost, 86400))
