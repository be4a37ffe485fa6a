/* SPDX-License-Identifier: Apache-2.0 */
/* traffic.c: starting, killing and judging the processes of traffic_lane.c; see traffic.h. */
#include "test/support/traffic.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "test/support/traffic_internal.h"

#define START_MS 20000
#define END_MS   30000

struct traffic *traffic_new(const struct traffic_options *options)
{
    struct traffic *traffic = test_shared(sizeof(*traffic));

    traffic->options = *options;
    snprintf(traffic->topic, sizeof(traffic->topic), "%s", options->topic);
    if (traffic->options.messages == 0)
        traffic->options.messages = 1u << 18;
    if (traffic->options.largest == 0)
        traffic->options.largest = 400;
    if (traffic->options.burst == 0)
        traffic->options.burst = 8;
    for (unsigned lane = 0; lane < TRAFFIC_PRODUCERS; lane++) {
        traffic->state[lane] = test_shared(traffic->options.messages);
        for (unsigned group = 0; group < TRAFFIC_GROUPS; group++)
            traffic->seen[group][lane] = test_shared(traffic->options.messages);
    }
    return traffic;
}

void traffic_free(struct traffic *traffic)
{
    for (unsigned lane = 0; lane < TRAFFIC_PRODUCERS; lane++) {
        munmap((void *)traffic->state[lane], traffic->options.messages);
        for (unsigned group = 0; group < TRAFFIC_GROUPS; group++)
            munmap((void *)traffic->seen[group][lane], traffic->options.messages);
    }
    munmap(traffic, sizeof(*traffic));
}

/* ---- processes ------------------------------------------------------------------------------------------------- */

static void launch(struct traffic *traffic, struct traffic_lane *lane, unsigned number,
                   void (*run)(void *))
{
    struct traffic_start start = {.traffic = traffic, .lane = number};

    if (lane->pid != 0)
        FAIL("traffic: lane %u runs already", number);
    atomic_store(&lane->ready, 0);
    atomic_store(&lane->leave, 0);
    lane->pid = test_spawn(run, &start);
}

static bool is_ready(void *lane)
{
    return atomic_load(&((struct traffic_lane *)lane)->ready) != 0;
}

static void await(struct traffic_lane *lane)
{
    if (!CHECK(test_eventually(is_ready, lane, START_MS)))
        test_abort();
}

void traffic_launch_producer(struct traffic *traffic, unsigned lane)
{
    launch(traffic, &traffic->producers[lane], lane, traffic_run_producer);
}

void traffic_launch_consumer(struct traffic *traffic, unsigned lane, unsigned group)
{
    traffic->consumers[lane].group = group;
    traffic->group_used[group] = true;
    launch(traffic, &traffic->consumers[lane], lane, traffic_run_consumer);
}

void traffic_start_producer(struct traffic *traffic, unsigned lane)
{
    traffic_launch_producer(traffic, lane);
    await(&traffic->producers[lane]);
}

void traffic_start_consumer(struct traffic *traffic, unsigned lane, unsigned group)
{
    traffic_launch_consumer(traffic, lane, group);
    await(&traffic->consumers[lane]);
}

static bool kill_lane(struct traffic_lane *lane)
{
    if (lane->pid == 0)
        return false;
    test_kill(lane->pid, SIGKILL);
    lane->pid = 0;
    return true;
}

bool traffic_kill_producer(struct traffic *traffic, unsigned lane)
{
    return kill_lane(&traffic->producers[lane]);
}

bool traffic_kill_consumer(struct traffic *traffic, unsigned lane)
{
    traffic->consumer_killed = true;
    return kill_lane(&traffic->consumers[lane]);
}

static void await_end(struct traffic_lane *lane, const char *what, unsigned number)
{
    if (lane->pid == 0)
        return;
    int status = test_wait_exit(lane->pid, END_MS);

    if (status != 0)
        FAIL("%s %u ended with %d", what, number, status);
    if (status == TEST_TIMED_OUT)
        test_kill(lane->pid, SIGKILL);
    lane->pid = 0;
}

void traffic_leave_consumer(struct traffic *traffic, unsigned lane)
{
    atomic_store(&traffic->consumers[lane].leave, 1);
    await_end(&traffic->consumers[lane], "consumer", lane);
}

pid_t traffic_producer_pid(const struct traffic *traffic, unsigned lane)
{
    return traffic->producers[lane].pid;
}

pid_t traffic_consumer_pid(const struct traffic *traffic, unsigned lane)
{
    return traffic->consumers[lane].pid;
}

/* ---- judging --------------------------------------------------------------------------------------------------- */

struct progress {
    struct traffic *traffic;
    uint64_t count;
    uint64_t producers[TRAFFIC_PRODUCERS];
    uint64_t groups[TRAFFIC_GROUPS];
};

static bool group_runs(const struct traffic *traffic, unsigned group)
{
    for (unsigned i = 0; i < TRAFFIC_CONSUMERS; i++) {
        if (traffic->consumers[i].pid != 0 && traffic->consumers[i].group == group)
            return true;
    }
    return false;
}

static bool producer_progressed(const struct progress *progress, unsigned lane)
{
    const struct traffic_lane *producer = &progress->traffic->producers[lane];

    return producer->pid == 0 ||
           atomic_load(&producer->count) >= progress->producers[lane] + progress->count;
}

static bool group_progressed(const struct progress *progress, unsigned group)
{
    return !group_runs(progress->traffic, group) ||
           atomic_load(&progress->traffic->group_count[group]) >=
               progress->groups[group] + progress->count;
}

static bool all_progressed(void *argument)
{
    const struct progress *progress = argument;
    bool all = true;

    for (unsigned i = 0; i < TRAFFIC_PRODUCERS; i++)
        all = all && producer_progressed(progress, i);
    for (unsigned i = 0; i < TRAFFIC_GROUPS; i++)
        all = all && group_progressed(progress, i);
    return all;
}

bool traffic_progresses(struct traffic *traffic, uint64_t count, int timeout_ms)
{
    struct progress progress = {.traffic = traffic, .count = count};

    for (unsigned i = 0; i < TRAFFIC_PRODUCERS; i++)
        progress.producers[i] = atomic_load(&traffic->producers[i].count);
    for (unsigned i = 0; i < TRAFFIC_GROUPS; i++)
        progress.groups[i] = atomic_load(&traffic->group_count[i]);
    if (CHECK(test_eventually(all_progressed, &progress, timeout_ms)))
        return true;
    for (unsigned i = 0; i < TRAFFIC_PRODUCERS; i++) {
        if (!producer_progressed(&progress, i))
            FAIL("producer %u stands still at %llu", i,
                 (unsigned long long)atomic_load(&traffic->producers[i].count));
    }
    for (unsigned i = 0; i < TRAFFIC_GROUPS; i++) {
        if (!group_progressed(&progress, i))
            FAIL("group g%u stands still at %llu", i,
                 (unsigned long long)atomic_load(&traffic->group_count[i]));
    }
    (void)traffic_check(traffic);
    return false;
}

static bool check_lane(struct traffic_lane *lane, const char *what, unsigned number)
{
    int error = atomic_load(&lane->error);

    if (error == 0)
        return true;
    if (!lane->told)
        FAIL("%s %u: %s", what, number, lane->why);
    lane->told = true;
    return false;
}

bool traffic_check(struct traffic *traffic)
{
    bool good = true;

    for (unsigned i = 0; i < TRAFFIC_PRODUCERS; i++)
        good = check_lane(&traffic->producers[i], "producer", i) && good;
    for (unsigned i = 0; i < TRAFFIC_CONSUMERS; i++)
        good = check_lane(&traffic->consumers[i], "consumer", i) && good;
    return CHECK(good);
}

static void judge(const struct traffic *traffic, unsigned group, unsigned lane)
{
    uint64_t lost = 0, twice = 0, first = 0;
    uint64_t end = atomic_load(&traffic->next[lane]);

    for (uint64_t number = 0; number < end; number++) {
        uint8_t seen = atomic_load(&traffic->seen[group][lane][number]);

        if (seen == 0 && atomic_load(&traffic->state[lane][number]) == MESSAGE_CONFIRMED &&
            lost++ == 0)
            first = number;
        twice += seen > 1;
    }
    if (lost > 0)
        FAIL("group g%u: %llu of %llu of producer %u are lost, the first is %llu", group,
             (unsigned long long)lost, (unsigned long long)end, lane, (unsigned long long)first);
    if (twice > 0 && !traffic->consumer_killed)
        FAIL("group g%u: %llu of producer %u came twice, and no consumer was killed", group,
             (unsigned long long)twice, lane);
}

void traffic_finish(struct traffic *traffic)
{
    atomic_store(&traffic->stop, 1);
    for (unsigned i = 0; i < TRAFFIC_PRODUCERS; i++)
        await_end(&traffic->producers[i], "producer", i);
    atomic_store(&traffic->stop, 2);
    for (unsigned i = 0; i < TRAFFIC_CONSUMERS; i++)
        await_end(&traffic->consumers[i], "consumer", i);
    (void)traffic_check(traffic);
    for (unsigned group = 0; group < TRAFFIC_GROUPS; group++) {
        for (unsigned lane = 0; traffic->group_used[group] && lane < TRAFFIC_PRODUCERS; lane++)
            judge(traffic, group, lane);
    }
}

struct traffic_counts traffic_count(const struct traffic *traffic)
{
    struct traffic_counts counts = {0, 0, 0, 0};

    for (unsigned lane = 0; lane < TRAFFIC_PRODUCERS; lane++) {
        uint64_t end = atomic_load(&traffic->next[lane]);

        for (uint64_t number = 0; number < end; number++) {
            bool confirmed = atomic_load(&traffic->state[lane][number]) == MESSAGE_CONFIRMED;

            counts.confirmed += confirmed;
            counts.unconfirmed += !confirmed;
            for (unsigned group = 0; group < TRAFFIC_GROUPS; group++) {
                uint8_t seen = atomic_load(&traffic->seen[group][lane][number]);

                counts.received += seen;
                counts.duplicates += seen > 1 ? seen - 1u : 0;
            }
        }
    }
    return counts;
}
