/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floor.c: `shmq-perf floor`: the limits of this machine, which nothing that moves messages
 * can pass: how long a line takes from core to core, how many lines a second go over, how fast memory is
 * copied, what a wake-up costs, and the bare rings that are made of it.
 */
#include <string.h>

#include "tools/perf/plan.h"
#include "tools/perf/transport.h"
#include "tools/perf/verbs.h"

/* How a rate is shown. */
enum shown { AS_IT_IS, AS_BYTES, AS_NS };

struct limit {
    const char *way;
    const char *name; /* NULL: the way's */
    enum perf_kind kind;
    enum perf_wait wait;
    uint32_t size, producers;
    enum shown shown;
};

static const struct limit LIMITS[] = {
    {"ideal-chase", "ring, chasing", PERF_LATENCY, PERF_SPIN, 32, 1, AS_IT_IS},
    {"ideal-chase", "ring, chasing", PERF_LATENCY, PERF_SPIN, 64, 1, AS_IT_IS},
    {"ideal", "ring, cached indices", PERF_LATENCY, PERF_SPIN, 64, 1, AS_IT_IS},
    {"futex", "ring, futex", PERF_LATENCY, PERF_BLOCK, 64, 1, AS_IT_IS},
    {"ideal-chase", "ring, chasing", PERF_THROUGHPUT, PERF_SPIN, 32, 1, AS_IT_IS},
    {"ideal", "ring, cached indices", PERF_THROUGHPUT, PERF_SPIN, 64, 1, AS_IT_IS},
    {"ideal", "ring, cached indices", PERF_THROUGHPUT, PERF_SPIN, 1024, 1, AS_IT_IS},
    {"ideal", "ring, cached indices", PERF_THROUGHPUT, PERF_SPIN, 65536, 1, AS_IT_IS},
    {"ideal-lag", "ring, lagging", PERF_THROUGHPUT, PERF_SPIN, 64, 1, AS_IT_IS},
    {"ideal-lag", "ring, lagging", PERF_THROUGHPUT, PERF_SPIN, 1024, 1, AS_IT_IS},
    {"stream", "lines, one after the other", PERF_THROUGHPUT, PERF_SPIN, 64, 1, AS_IT_IS},
    {"cas", "compare-and-swap, alone", PERF_FREE, PERF_SPIN, 0, 1, AS_IT_IS},
    {"cas", "compare-and-swap, two processes", PERF_FREE, PERF_SPIN, 0, 2, AS_IT_IS},
    {"memcpy", NULL, PERF_FREE, PERF_SPIN, 64, 1, AS_BYTES},
    {"memcpy", NULL, PERF_FREE, PERF_SPIN, 1024, 1, AS_BYTES},
    {"memcpy", NULL, PERF_FREE, PERF_SPIN, 16384, 1, AS_BYTES},
    {"memcpy", NULL, PERF_FREE, PERF_SPIN, 262144, 1, AS_BYTES},
    {"memcpy", NULL, PERF_FREE, PERF_SPIN, 16777216, 1, AS_BYTES},
    {"clock, coarse", NULL, PERF_FREE, PERF_SPIN, 0, 1, AS_NS},
    {"clock, precise", NULL, PERF_FREE, PERF_SPIN, 0, 1, AS_NS},
    {"time stamp", NULL, PERF_FREE, PERF_SPIN, 0, 1, AS_NS},
    {"membarrier", NULL, PERF_FREE, PERF_SPIN, 0, 1, AS_NS},
};

struct floor_context {
    struct perf_collection *collection;
    const struct limit *limits[COUNT_OF(LIMITS)];
    uint32_t count;
};

static struct perf_spread invert(struct perf_spread rate)
{
    return (struct perf_spread){
        .median = 1e9 / rate.median,
        .low = 1e9 / rate.high,
        .high = 1e9 / rate.low,
        .min = 1e9 / rate.max,
        .max = 1e9 / rate.min,
        .count = rate.count,
    };
}

static struct perf_spread scale(struct perf_spread rate, double factor)
{
    return (struct perf_spread){
        .median = rate.median * factor,
        .low = rate.low * factor,
        .high = rate.high * factor,
        .min = rate.min * factor,
        .max = rate.max * factor,
        .count = rate.count,
    };
}

static void collect_canary(struct perf_collection *collection, const struct perf_session *session)
{
    for (unsigned i = 0; i < PERF_SAME_CPU; i++) {
        struct perf_result result = {.measure = "floor", .unit = PERF_NS, .size = 0};

        result.value = perf_session_canary(session, (enum perf_class)i);
        (void)snprintf(result.transport, sizeof(result.transport), "a cache line, one way");
        (void)snprintf(result.distance, sizeof(result.distance), "%s",
                       perf_class_name((enum perf_class)i));
        if (result.value.count > 0)
            perf_collect_value(collection, &result);
    }
}

/* What one process does alone has no distance. */
static void collect_alone(struct perf_collection *collection, const struct perf_session *session,
                          uint32_t contender, const struct limit *limit)
{
    struct perf_result result = {.measure = "floor", .size = limit->size};

    result.value = perf_session_spread(session, contender, PERF_ANY_CLASS, PERF_MAIN);
    if (result.value.count == 0)
        return;
    result.unit = limit->shown == AS_BYTES ? PERF_BYTES_PER_S
                  : limit->shown == AS_NS  ? PERF_NS
                                           : PERF_OPERATIONS_PER_S;
    if (limit->shown == AS_NS)
        result.value = invert(result.value);
    if (limit->shown == AS_BYTES)
        result.value = scale(result.value, limit->size);
    (void)snprintf(result.transport, sizeof(result.transport), "%s",
                   perf_session_contender(session, contender)->name);
    perf_collect_value(collection, &result);
}

static void collect_floor(struct perf_session *session, void *context)
{
    const struct floor_context *f = context;

    collect_canary(f->collection, session);
    for (uint32_t i = 0; i < f->count; i++) {
        const struct limit *limit = f->limits[i];

        if (limit->kind == PERF_FREE && limit->producers == 1)
            collect_alone(f->collection, session, i, limit);
        else
            perf_collect_results(f->collection, session, i,
                                 limit->kind == PERF_LATENCY      ? "floor, round trip"
                                 : limit->kind == PERF_THROUGHPUT ? "floor, throughput"
                                                                  : "floor");
    }
    perf_collect_tally(f->collection, session);
}

int perf_run_floor(struct cli *cli)
{
    static const struct perf_defaults defaults = {
        .sizes = "64", .wait = PERF_SPIN, .two_cpus = "most of it"};
    struct perf_contender contenders[COUNT_OF(LIMITS)];
    struct perf_collection collection = {0};
    struct floor_context context = {.collection = &collection};
    struct error_buffer why;
    struct perf_plan plan;
    int rc = perf_plan_make(cli, &defaults, &plan);

    if (rc != CLI_OK)
        return rc;
    for (uint32_t i = 0; i < COUNT_OF(LIMITS); i++) {
        const struct limit *limit = &LIMITS[i];
        struct perf_contender *c = &contenders[context.count];

        *c = (struct perf_contender){.way = perf_way_find(limit->way)};
        c->setup = (struct perf_setup){.kind = limit->kind,
                                       .wait = limit->wait,
                                       .size = limit->size,
                                       .producers = limit->producers};
        (void)snprintf(c->name, sizeof(c->name), "%s", limit->name ? limit->name : limit->way);
        if (perf_contender_check(c, &why) < 0) {
            cli_note(cli, "%s", why.text);
            continue;
        }
        context.limits[context.count++] = limit;
    }
    rc = perf_measure(&plan, contenders, context.count, collect_floor, &context);
    if (rc == CLI_OK)
        rc = perf_collection_print(&collection, &plan, "the limits of this machine");
    perf_collection_free(&collection);
    return rc;
}
