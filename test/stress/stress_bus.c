/* SPDX-License-Identifier: Apache-2.0 */
/* stress_bus.c: for STRESS_SECONDS each (10 where nothing is said), seeded deaths of everybody on a bus in use: producers,
 * consumers, standbys, the supervisor and the one that waits for it; and of two producers at once, each at a random
 * instruction of its publish.
 *
 * Verified at the end: what publish returned 0 for is there, in order per partition, whole; duplicates only where a
 * consumer was killed; nobody ever got an error.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libshmq/fault.h"
#include "test/support/daemon_process.h"
#include "test/support/fixture.h"
#include "test/support/step.h"
#include "test/support/traffic.h"

#define PROGRESS_MS 2000
#define RING        65536

static uint64_t duration_ns(void)
{
    const char *seconds = getenv("STRESS_SECONDS");
    uint64_t value = seconds ? strtoull(seconds, NULL, 10) : 0;

    return (value > 0 ? value : 10) * UINT64_C(1000000000);
}

static void make_topic(const char *name, uint32_t partitions)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    struct fixture_client client = fixture_connect();

    options.partitions = partitions;
    options.ring_bytes = RING;
    fixture_topic(&client, name, &options);
    fixture_close(&client);
}

/* ---- everybody dies -------------------------------------------------------------------------------------------------- */

#define PRODUCERS 3
#define CONSUMERS 4 /* two of each group: one stands by */

struct melee {
    struct test_random random;
    struct traffic *traffic;
    pid_t daemon, standby;
    unsigned producers, consumers, leaves, daemons, standbys, pauses;
};

static void kill_producer(struct melee *melee)
{
    unsigned lane = (unsigned)test_random_below(&melee->random, PRODUCERS);

    melee->producers += traffic_kill_producer(melee->traffic, lane);
    traffic_launch_producer(melee->traffic, lane);
}

static void kill_consumer(struct melee *melee)
{
    unsigned lane = (unsigned)test_random_below(&melee->random, CONSUMERS);

    melee->consumers += traffic_kill_consumer(melee->traffic, lane);
    traffic_launch_consumer(melee->traffic, lane, lane % 2);
}

static void leave_group(struct melee *melee)
{
    unsigned lane = (unsigned)test_random_below(&melee->random, CONSUMERS);

    traffic_leave_consumer(melee->traffic, lane);
    traffic_launch_consumer(melee->traffic, lane, lane % 2);
    melee->leaves++;
}

static void start_standby(struct melee *melee)
{
    melee->standby = daemon_start(&(struct daemon_options){.words = "--standby"});
}

static void kill_daemon(struct melee *melee)
{
    int status = 0;

    /* Now and then the successor, too, before or while it takes over. */
    if (test_random_below(&melee->random, 4) == 0) {
        test_kill(melee->standby, SIGKILL);
        melee->standbys++;
        start_standby(melee);
    }
    test_kill(melee->daemon, SIGKILL);
    melee->daemons++;
    melee->daemon = melee->standby;
    start_standby(melee);
    if (test_random_below(&melee->random, 3) == 0)
        return;
    if (!daemon_await(melee->daemon, &status))
        FAIL("the standby ended with %d instead of taking over", status);
}

static void pause_somebody(struct melee *melee)
{
    pid_t pid = test_random_below(&melee->random, 2)
                    ? traffic_producer_pid(melee->traffic,
                                           (unsigned)test_random_below(&melee->random, PRODUCERS))
                    : traffic_consumer_pid(melee->traffic,
                                           (unsigned)test_random_below(&melee->random, CONSUMERS));

    kill(pid, SIGSTOP);
    test_sleep_ms((unsigned)test_random_below(&melee->random, 100));
    kill(pid, SIGCONT);
    melee->pauses++;
}

static void strike_somebody(struct melee *melee)
{
    switch (test_random_below(&melee->random, 10)) {
    case 0:
    case 1:
    case 2:
        kill_producer(melee);
        break;
    case 3:
    case 4:
    case 5:
        kill_consumer(melee);
        break;
    case 6:
        leave_group(melee);
        break;
    case 7:
        pause_somebody(melee);
        break;
    default:
        kill_daemon(melee);
    }
}

static void begin_melee(struct melee *melee)
{
    struct traffic_options options = {.topic = "t", .largest = 4000, .batch = 1};

    memset(melee, 0, sizeof(*melee));
    test_random_init(&melee->random, test_seed());
    options.messages = (1u << 17) + duration_ns() / 1000000 * 10;
    melee->daemon = daemon_run(NULL);
    start_standby(melee);
    make_topic("t", 2);
    melee->traffic = traffic_new(&options);
    for (unsigned i = 0; i < CONSUMERS; i++)
        traffic_start_consumer(melee->traffic, i, i % 2);
    for (unsigned i = 0; i < PRODUCERS; i++)
        traffic_start_producer(melee->traffic, i);
}

static void end_melee(struct melee *melee)
{
    traffic_finish(melee->traffic);
    struct traffic_counts counts = traffic_count(melee->traffic);

    test_note(
        "%llu messages confirmed, %llu not, %llu received, %llu of them again; killed: %u producers, %u "
        "consumers, %u supervisors, %u standbys; %u left, %u paused",
        (unsigned long long)counts.confirmed, (unsigned long long)counts.unconfirmed,
        (unsigned long long)counts.received, (unsigned long long)counts.duplicates,
        melee->producers, melee->consumers, melee->daemons, melee->standbys, melee->leaves,
        melee->pauses);
    traffic_free(melee->traffic);
    test_kill(melee->standby, SIGKILL);
    daemon_stop(melee->daemon);
    daemon_forget_bus();
}

TEST(everybody_dies)
{
    uint64_t end_ns = test_now_ns() + duration_ns();
    struct melee melee;
    unsigned strikes = 0;

    begin_melee(&melee);
    while (test_now_ns() < end_ns && test_failures() == 0) {
        strike_somebody(&melee);
        test_sleep_ms((unsigned)test_random_below(&melee.random, 60));
        CHECK(traffic_check(melee.traffic));
        if (++strikes % 25 == 0)
            CHECK(traffic_progresses(melee.traffic, 20, 2 * PROGRESS_MS));
    }
    CHECK(melee.producers > 0 && melee.consumers > 0 && melee.daemons > 0);
    end_melee(&melee);
}

/* ---- two producers in the same window ----------------------------------------------------------------------------------- */

enum manner { BY_PUBLISH, BY_BATCH, BY_CLAIM, MANNERS };

#define BATCH 3u

struct pair_shared {
    _Atomic int result[2]; /* 1 + what the call returned */
};

struct pair {
    struct fixture_client client; /* this process's */
    shmq_producer *producer;
    shmq_consumer *consumer;
    uint64_t next;
    struct pair_shared *shared;
    /* of the round */
    enum manner manner[2];
    uint64_t first[2]; /* numbers that each is to publish */
    struct fixture_client child;
    shmq_producer *child_producer;
};

struct side {
    struct pair *pair;
    unsigned index;
};

static void open_child(void *argument)
{
    struct side *side = argument;

    side->pair->child = fixture_connect();
    side->pair->child_producer = fixture_producer(&side->pair->child, "t", 1000);
}

static int publish_batch(shmq_producer *producer, uint64_t first)
{
    uint64_t numbers[BATCH];
    struct shmq_message messages[BATCH];

    memset(messages, 0, sizeof(messages));
    for (uint32_t i = 0; i < BATCH; i++) {
        numbers[i] = first + i;
        messages[i].body = &numbers[i];
        messages[i].body_length = sizeof(numbers[i]);
    }
    int rc = shmq_publish_batch(producer, messages, BATCH);

    return rc == (int)BATCH ? 0 : SHMQ_EFULL;
}

static int publish_claim(shmq_producer *producer, uint64_t number)
{
    struct shmq_claim claim;
    int rc = shmq_claim(producer, NULL, 0, 300, &claim);

    if (rc < 0)
        return rc;
    memcpy(claim.body, &number, sizeof(number));
    claim.body_size = sizeof(number); /* the rest becomes padding */
    return shmq_commit(&claim);
}

static void publish_child(void *argument)
{
    struct side *side = argument;
    struct pair *pair = side->pair;
    uint64_t first = pair->first[side->index];
    int rc;

    if (pair->manner[side->index] == BY_PUBLISH)
        rc = fixture_publish_number(pair->child_producer, first);
    else if (pair->manner[side->index] == BY_BATCH)
        rc = publish_batch(pair->child_producer, first);
    else
        rc = publish_claim(pair->child_producer, first);
    atomic_store(&pair->shared->result[side->index], 1 + rc);
}

static void close_child(void *argument)
{
    fixture_close(&((struct side *)argument)->pair->child);
}

static int count_client(const struct shmq_client_info *info, void *context)
{
    (void)info;
    ++*(int *)context;
    return 0;
}

static bool only_this_process(void *connection)
{
    int clients = 0;

    return shmq_client_list(connection, count_client, &clients) == 0 && clients == 1;
}

static uint32_t count_of(const struct pair *pair, unsigned side)
{
    return pair->manner[side] == BY_BATCH ? BATCH : 1;
}

/* What came: each side's messages wholly or not at all, in order; ours last of all. */
static void judge_pair(struct pair *pair)
{
    uint32_t got[2] = {0, 0};

    CHECK_OK(fixture_publish_number(pair->producer, pair->next));
    for (;;) {
        uint64_t number = fixture_poll_number(pair->consumer, PROGRESS_MS);

        if (number == pair->next)
            break;
        unsigned side = number >= pair->first[1];

        if (!CHECK_EQ(number, pair->first[side] + got[side]))
            return; /* or nothing came: the ring stands still */
        got[side]++;
    }
    pair->next++;
    CHECK_EQ(fixture_poll_number(pair->consumer, 0), UINT64_MAX);
    for (unsigned side = 0; side < 2; side++) {
        CHECK(got[side] == 0 || got[side] == count_of(pair, side));
        CHECK(atomic_load(&pair->shared->result[side]) != 1 || got[side] > 0);
    }
}

static void run_pair(struct pair *pair, struct test_random *random, const int64_t totals[MANNERS])
{
    struct side sides[2] = {{pair, 0}, {pair, 1}};
    struct step_child children[2];
    uint64_t k[2];

    memset(pair->shared, 0, sizeof(*pair->shared));
    for (unsigned i = 0; i < 2; i++) {
        pair->manner[i] = (enum manner)test_random_below(random, MANNERS);
        pair->first[i] = pair->next;
        pair->next += count_of(pair, i);
        k[i] = test_random_below(random, (uint64_t)totals[pair->manner[i]] + 1);
    }
    test_context("manners %d and %d, k %llu and %llu: ", (int)pair->manner[0], (int)pair->manner[1],
                 (unsigned long long)k[0], (unsigned long long)k[1]);
    for (unsigned i = 0; i < 2; i++) {
        struct step_plan plan = {.name = "pair",
                                 .setup = open_child,
                                 .operation = publish_child,
                                 .finish = close_child,
                                 .arg = &sides[i]};

        if (step_run_until(&plan, k[i], STEP_STOP, &children[i]) == STEP_BROKEN)
            test_abort();
    }
    unsigned first = (unsigned)test_random_below(random, 2);

    step_kill(&children[first]);
    if (test_random_below(random, 4) == 0)
        test_sleep_ms((unsigned)test_random_below(random, 30));
    step_kill(&children[1 - first]);
    judge_pair(pair);
    CHECK(test_eventually(only_this_process, pair->client.connection, PROGRESS_MS));
}

static void count_steps(struct pair *pair, int64_t totals[MANNERS])
{
    struct side side = {pair, 0};

    for (int manner = 0; manner < MANNERS; manner++) {
        struct step_plan plan = {.name = "pair",
                                 .setup = open_child,
                                 .operation = publish_child,
                                 .finish = close_child,
                                 .arg = &side};

        pair->manner[0] = (enum manner)manner;
        pair->first[0] = pair->next;
        pair->next += count_of(pair, 0);
        totals[manner] = step_count(&plan);
        REQUIRE(totals[manner] > 0);
        for (uint32_t i = 0; i < count_of(pair, 0); i++)
            CHECK_EQ(fixture_poll_number(pair->consumer, PROGRESS_MS), pair->first[0] + i);
    }
    test_note("publish has %lld steps, a batch %lld, claim and commit %lld",
              (long long)totals[BY_PUBLISH], (long long)totals[BY_BATCH],
              (long long)totals[BY_CLAIM]);
}

TEST(two_producers_die_in_one_window)
{
    uint64_t end_ns = test_now_ns() + duration_ns();
    struct test_random random;
    struct pair pair = {.next = 1};
    int64_t totals[MANNERS];
    unsigned rounds = 0;

    step_require();
    fault_disarm(); /* its first use reads the environment: a child must not be the first */
    test_random_init(&random, test_seed());
    shmq_supervisor *supervisor = fixture_start();

    pair.shared = test_shared(sizeof(*pair.shared));
    make_topic("t", 1);
    pair.client = fixture_connect();
    pair.consumer = fixture_consumer(&pair.client, "t", NULL);
    pair.producer = fixture_producer(&pair.client, "t", PROGRESS_MS);
    count_steps(&pair, totals);
    for (; test_now_ns() < end_ns && test_failures() == 0; rounds++)
        run_pair(&pair, &random, totals);
    test_context(NULL);
    test_note("%u pairs (floor %llu)", rounds, (unsigned long long)(duration_ns() / 1000000000));
    CHECK(rounds >= duration_ns() / 1000000000);
    fixture_close(&pair.client);
    fixture_stop(supervisor);
}

TEST_MAIN("stress_bus", T_TIMEOUT(everybody_dies, 86400),
          T_TIMEOUT(two_producers_die_in_one_window, 86400))
