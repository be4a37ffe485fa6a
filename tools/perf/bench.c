/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.c: `shmq-perf bench`, which is `make bench`: what shmq is built to reach, beside the
 * floor and the kernel's ways, in one table: ratio, target, met or missed.
 *
 * The table below is the plan: each session has its contenders and its goals. A goal is of one
 * distance class, because an average over classes says more about the hypervisor than about shmq; a
 * class that did not show up in enough pairs is "not observed", never "missed".
 */
#include <string.h>

#include "tools/perf/instructions.h"
#include "tools/perf/plan.h"
#include "tools/perf/size.h"
#include "tools/perf/transport.h"
#include "tools/perf/verbs.h"

#define PAIRS_LEAST 7u /* fewer say nothing */

#define LARGE_RING (UINT64_C(4) << 20) /* what docs/performance.md recommends for throughput */

#define CONTENDERS 8
#define GOALS      12

enum how { SPINS, BLOCKS, HYBRID };

/* Setup that differs from the way's own. */
struct contender {
    const char *way, *name;
    enum how waits;
    uint64_t ring_bytes;
    uint32_t producers, groups, batch;
    bool copy_out;
};

#define BARE 100 /* as a baseline: the better of the ideal rings */

struct goal {
    const char *what;
    uint8_t subject, baseline; /* index of contenders, or BARE */
    enum perf_figure figure;
    enum perf_class distance;
    bool at_most;
    double target; /* 0: shown without one */
};

struct plan {
    enum perf_kind kind;
    uint32_t size;
    bool one_cpu; /* both processes on it */
    struct contender contenders[CONTENDERS];
    struct goal goals[GOALS];
};

#define LATENCY_CONTENDERS \
    {.way = "shmq"}, {.way = "shmq-multi"}, {.way = "ideal-chase"}, \
    { \
        .way = "ideal" \
    }

#define LATENCY_GOALS \
    {"round trip", 0, BARE, PERF_MAIN, PERF_NEAR, true, 1.10}, \
        {"round trip", 0, BARE, PERF_MAIN, PERF_FAR, true, 1.10}, \
        {"round trip, p99", 0, BARE, PERF_P99, PERF_NEAR, true, 1.5}, \
        {"round trip, p99", 0, BARE, PERF_P99, PERF_FAR, true, 1.5}, \
        {"round trip, several-producer mode", 1, BARE, PERF_MAIN, PERF_NEAR, true, 1.25}, \
    { \
        "round trip, several-producer mode", 1, BARE, PERF_MAIN, PERF_FAR, true, 1.25 \
    }

#define RINGS \
    {.way = "shmq", .name = "shmq, 4 MiB ring", .ring_bytes = LARGE_RING}, \
        {.way = "shmq", .name = "shmq, 1 MiB ring"}, {.way = "ideal", .name = "ideal, 512 KiB"}, \
        {.way = "shmq", .name = "shmq, batches of 32", .ring_bytes = LARGE_RING, .batch = 32}, \
    { \
        .way = "ideal-lag", .name = "ideal-lag, 4 MiB", .ring_bytes = LARGE_RING \
    }

#define IN_PLACE "throughput, read in place"

/* The large ring against the small bare one, as the targets are; and without a target against the best
 * that is known for a ring of its own size; the default ring; batches. */
#define RING_GOALS(near, far) \
    {IN_PLACE, 0, 2, PERF_MAIN, PERF_NEAR, false, near}, \
        {IN_PLACE, 0, 2, PERF_MAIN, PERF_FAR, false, far}, \
        {IN_PLACE, 0, 4, PERF_MAIN, PERF_NEAR, false, 0}, \
        {IN_PLACE, 0, 4, PERF_MAIN, PERF_FAR, false, 0}, \
        {IN_PLACE, 1, 2, PERF_MAIN, PERF_NEAR, false, 0}, \
        {IN_PLACE, 1, 2, PERF_MAIN, PERF_FAR, false, 0}, \
        {IN_PLACE, 3, 2, PERF_MAIN, PERF_NEAR, false, 0}, \
    { \
        IN_PLACE, 3, 2, PERF_MAIN, PERF_FAR, false, 0 \
    }

#define KERNEL_GOALS(what, first) \
    {what, 0, first, PERF_MAIN, PERF_ANY_CLASS, false, 0}, \
        {what, 0, first + 1, PERF_MAIN, PERF_ANY_CLASS, false, 0}, \
    { \
        what, 0, first + 2, PERF_MAIN, PERF_ANY_CLASS, false, 0 \
    }

#define COPIED(bytes) \
    { \
        .kind = PERF_THROUGHPUT, .size = (bytes), \
        .contenders = {{.way = "shmq", \
                        .name = "shmq, 4 MiB ring", \
                        .ring_bytes = LARGE_RING, \
                        .copy_out = true}, \
                       {.way = "ideal", .name = "ideal, 512 KiB", .copy_out = true}}, \
        .goals = { \
            {"throughput, copied out", 0, 1, PERF_MAIN, PERF_NEAR, false, 1.0}, \
            {"throughput, copied out", 0, 1, PERF_MAIN, PERF_FAR, false, 1.0}, \
        }, \
    }

static const struct plan PLANS[] = {
    {
        .kind = PERF_LATENCY,
        .size = 32,
        .contenders = {LATENCY_CONTENDERS},
        .goals = {LATENCY_GOALS},
    },
    {
        .kind = PERF_LATENCY,
        .size = 64,
        .contenders = {LATENCY_CONTENDERS, {.way = "pipe"}, {.way = "unix"}, {.way = "mqueue"}},
        .goals = {LATENCY_GOALS,
                  {"round trip", 0, 4, PERF_MAIN, PERF_ANY_CLASS, true, 0.2},
                  {"round trip", 0, 5, PERF_MAIN, PERF_ANY_CLASS, true, 0},
                  {"round trip", 0, 6, PERF_MAIN, PERF_ANY_CLASS, true, 0}},
    },
    {
        .kind = PERF_THROUGHPUT,
        .size = 16,
        .contenders = {RINGS},
        .goals = {RING_GOALS(1.5, 1.4)},
    },
    {
        .kind = PERF_THROUGHPUT,
        .size = 64,
        .contenders = {RINGS, {.way = "pipe"}, {.way = "unix"}, {.way = "mqueue"}},
        .goals = {RING_GOALS(2.2, 7), KERNEL_GOALS(IN_PLACE, 5)},
    },
    {
        .kind = PERF_THROUGHPUT,
        .size = 256,
        .contenders = {RINGS},
        .goals = {RING_GOALS(1.5, 0)},
    },
    {
        .kind = PERF_THROUGHPUT,
        .size = 1024,
        .contenders = {RINGS, {.way = "pipe"}, {.way = "unix"}, {.way = "mqueue"}},
        .goals = {RING_GOALS(1.3, 2.5), KERNEL_GOALS(IN_PLACE, 5)},
    },
    {
        .kind = PERF_THROUGHPUT,
        .size = 4096,
        .contenders = {RINGS},
        .goals = {RING_GOALS(1.2, 0)},
    },
    {
        .kind = PERF_THROUGHPUT,
        .size = 65536,
        .contenders = {{.way = "shmq", .name = "shmq, 4 MiB ring", .ring_bytes = LARGE_RING},
                       {.way = "shmq", .name = "shmq, 1 MiB ring"},
                       {.way = "ideal", .name = "ideal, 512 KiB"}},
        .goals = {{IN_PLACE, 0, 2, PERF_MAIN, PERF_NEAR, false, 1.2},
                  {IN_PLACE, 0, 2, PERF_MAIN, PERF_FAR, false, 0},
                  {IN_PLACE, 1, 2, PERF_MAIN, PERF_NEAR, false, 0}},
    },
    COPIED(1024),
    COPIED(4096),
    COPIED(65536),
    {
        .kind = PERF_THROUGHPUT,
        .size = 64,
        .contenders = {{.way = "shmq-multi",
                        .name = "shmq-multi, 4 MiB ring",
                        .ring_bytes = LARGE_RING},
                       {.way = "shmq", .name = "shmq, 4 MiB ring", .ring_bytes = LARGE_RING},
                       {.way = "shmq", .name = "shmq to 3 groups", .groups = 3},
                       {.way = "shmq", .name = "shmq to 1 group"}},
        .goals = {{"several-producer mode, 1 producer", 0, 1, PERF_MAIN, PERF_NEAR, false, 0.8},
                  {"several-producer mode, 1 producer", 0, 1, PERF_MAIN, PERF_FAR, false, 0.8},
                  {"fan-out, published", 2, 3, PERF_MAIN, PERF_NEAR, false, 0.5},
                  {"fan-out, published", 2, 3, PERF_MAIN, PERF_FAR, false, 0.5}},
    },
    {
        .kind = PERF_FREE,
        .size = 64,
        .contenders = {{.way = "shmq-multi", .producers = 2},
                       {.way = "cas", .name = "compare-and-swap", .producers = 2},
                       {.way = "shmq-multi"},
                       {.way = "shmq"}},
        .goals = {{"2 producers, nobody reads", 0, 1, PERF_MAIN, PERF_NEAR, false, 0.4},
                  {"2 producers, nobody reads", 0, 1, PERF_MAIN, PERF_FAR, false, 0.4},
                  {"1 producer, nobody reads", 2, 3, PERF_MAIN, PERF_ANY_CLASS, false, 0.8}},
    },
    {
        .kind = PERF_LATENCY,
        .size = 64,
        .contenders = {{.way = "shmq", .name = "shmq, blocking", .waits = BLOCKS},
                       {.way = "futex", .name = "futex ring", .waits = BLOCKS},
                       {.way = "pipe", .name = "pipe, blocking", .waits = BLOCKS},
                       {.way = "shmq", .name = "shmq, hybrid", .waits = HYBRID},
                       {.way = "shmq", .name = "shmq, spinning"}},
        .goals = {{"round trip, asleep", 0, 1, PERF_MAIN, PERF_ANY_CLASS, true, 1.1},
                  {"round trip, asleep", 0, 2, PERF_MAIN, PERF_ANY_CLASS, true, 0},
                  {"round trip, hybrid", 3, 4, PERF_MAIN, PERF_NEAR, true, 1.2},
                  {"round trip, hybrid", 3, 4, PERF_MAIN, PERF_FAR, true, 1.2}},
    },
    /* From one CPU to the other a wake-up is an interrupt, which hides all else under a hypervisor. */
    {
        .kind = PERF_LATENCY,
        .size = 64,
        .one_cpu = true,
        .contenders = {{.way = "shmq", .name = "shmq, blocking", .waits = BLOCKS},
                       {.way = "futex", .name = "futex ring", .waits = BLOCKS},
                       {.way = "pipe", .name = "pipe, blocking", .waits = BLOCKS}},
        .goals = {{"round trip, asleep", 0, 1, PERF_MAIN, PERF_SAME_CPU, true, 0},
                  {"round trip, asleep", 0, 2, PERF_MAIN, PERF_SAME_CPU, true, 0}},
    },
};

/* ---- goals ----------------------------------------------------------------------------------- */

static void collect_goal(struct perf_collection *collection, const struct perf_session *session,
                         const struct plan *plan, const struct goal *goal)
{
    struct perf_comparison row = {.size = plan->size, .unit = perf_kind_unit(plan->kind)};
    uint32_t baseline = goal->baseline;

    if (baseline == BARE) /* contenders 2 and 3 of the latency plans */
        baseline = perf_session_better(session, 2, 3, goal->distance, goal->figure);
    row.ratio = perf_session_ratio(session, goal->subject, baseline, goal->distance, goal->figure);
    if (row.ratio.count == 0 && goal->target == 0)
        return;
    row.subject_value = perf_session_spread(session, goal->subject, goal->distance, goal->figure);
    row.baseline_value = perf_session_spread(session, baseline, goal->distance, goal->figure);
    row.has_target = goal->target != 0;
    row.target = goal->target;
    row.target_is_most = goal->at_most;
    (void)snprintf(row.what, sizeof(row.what), "%s", goal->what);
    (void)snprintf(row.subject, sizeof(row.subject), "%s",
                   perf_session_contender(session, goal->subject)->name);
    (void)snprintf(row.baseline, sizeof(row.baseline), "%s",
                   perf_session_contender(session, baseline)->name);
    (void)snprintf(row.distance, sizeof(row.distance), "%s",
                   goal->distance == PERF_ANY_CLASS ? "" : perf_class_name(goal->distance));
    perf_collect_verdict(&row, &row.ratio, PAIRS_LEAST);
    perf_collect_comparison(collection, &row);
}

/* ---- sessions -------------------------------------------------------------------------------- */

struct context {
    struct perf_collection *collection;
    const struct plan *plan;
};

static void collect_plan(struct perf_session *session, void *argument)
{
    const struct context *context = argument;

    for (uint32_t i = 0; i < GOALS && context->plan->goals[i].what; i++)
        collect_goal(context->collection, session, context->plan, &context->plan->goals[i]);
    perf_collect_tally(context->collection, session);
}

/* All of a plan's contenders, or none: goals name them by their place. */
static int measure_plan(const struct perf_plan *options, const struct plan *plan,
                        struct perf_collection *collection)
{
    static const enum perf_wait waits[] = {PERF_SPIN, PERF_BLOCK, PERF_HYBRID};
    struct perf_contender contenders[CONTENDERS];
    struct context context = {collection, plan};
    struct perf_plan placed = *options;
    uint32_t count = 0;

    if (plan->one_cpu)
        placed.team.cpu_count = 1;
    for (; count < CONTENDERS && plan->contenders[count].way; count++) {
        const struct contender *given = &plan->contenders[count];
        struct perf_contender *c = &contenders[count];

        *c = (struct perf_contender){.way = perf_way_find(given->way)};
        c->setup = (struct perf_setup){
            .kind = plan->kind,
            .wait = waits[given->waits],
            .size = plan->size,
            .producers = given->producers ? given->producers : 1,
            .consumers = plan->kind == PERF_FREE ? 0 : 1,
            .groups = given->groups ? given->groups : 1,
            .ring_bytes = given->ring_bytes,
            .batch = given->batch,
            .copy_out = given->copy_out,
        };
        (void)snprintf(c->name, sizeof(c->name), "%s", given->name ? given->name : given->way);
    }
    return perf_measure(&placed, contenders, count, collect_plan, &context);
}

/* ---- single figures -------------------------------------------------------------------------- */

static void collect_idle(struct perf_session *session, void *context)
{
    struct perf_comparison row = {
        .unit = PERF_COUNT, .has_target = true, .target_is_most = true, .target = 1};

    row.subject_value = perf_session_spread(session, 0, PERF_ANY_CLASS, PERF_MAIN);
    (void)snprintf(row.what, sizeof(row.what), "wake-ups a second of an idle sleeper");
    (void)snprintf(row.subject, sizeof(row.subject), "%s",
                   perf_session_contender(session, 0)->name);
    perf_collect_verdict(&row, &row.subject_value, 1);
    perf_collect_comparison(context, &row);
}

static int measure_idle(const struct perf_plan *options, struct perf_collection *collection)
{
    struct perf_contender contender = {.way = perf_way_find("shmq"), .name = "shmq, blocking"};
    struct perf_plan idle = *options;

    contender.setup = (struct perf_setup){.kind = PERF_IDLE,
                                          .wait = PERF_BLOCK,
                                          .size = 64,
                                          .producers = 1,
                                          .consumers = 1,
                                          .groups = 1};
    idle.budget = (struct perf_budget){.rounds = 1, .duration_ns = 3 * NS_PER_S};
    return perf_measure(&idle, &contender, 1, collect_idle, collection);
}

static void measure_alone(struct perf_collection *collection)
{
    struct perf_comparison rows[PERF_SIZE_ROWS + PERF_INSTRUCTIONS_ROWS];
    int count = perf_instructions_measure(rows, PERF_INSTRUCTIONS_ROWS);

    count += perf_size_measure(rows + count, PERF_SIZE_ROWS);
    for (int i = 0; i < count; i++)
        perf_collect_comparison(collection, &rows[i]);
}

/* ---- the verb -------------------------------------------------------------------------------- */

int perf_run_bench(struct cli *cli)
{
    static const struct perf_defaults defaults = {
        .sizes = "64", .wait = PERF_SPIN, .two_cpus = "most of the table"};
    struct perf_collection collection = {0};
    struct perf_plan options;
    int rc = perf_plan_make(cli, &defaults, &options);

    for (uint32_t i = 0; rc == CLI_OK && i < COUNT_OF(PLANS); i++) {
        cli_note(cli, "%u of %zu", i + 1, COUNT_OF(PLANS) + 2);
        rc = measure_plan(&options, &PLANS[i], &collection);
    }
    if (rc == CLI_OK) {
        cli_note(cli, "%zu of %zu", COUNT_OF(PLANS) + 1, COUNT_OF(PLANS) + 2);
        rc = measure_idle(&options, &collection);
    }
    if (rc == CLI_OK) {
        cli_note(cli, "%zu of %zu", COUNT_OF(PLANS) + 2, COUNT_OF(PLANS) + 2);
        measure_alone(&collection);
        rc = perf_collection_print(&collection, &options,
                                   "what shmq is built to reach, beside the floor");
    }
    perf_collection_free(&collection);
    return rc;
}
