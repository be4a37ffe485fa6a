/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs.c: latency, throughput, fanout, wake: contenders side by side, one row a size, the
 * first of them compared with the others.
 */
#include "tools/perf/verbs.h"

#include <string.h>

#include "tools/perf/plan.h"
#include "tools/perf/transport.h"

#define LATENCY_WAYS    "shmq,ideal-chase,pipe,unix,mqueue"
#define THROUGHPUT_WAYS "shmq,ideal,ideal-lag,pipe,unix,mqueue"
#define FANOUT_WAYS     "shmq,pipe,unix,mqueue"
#define WAKE_WAYS       "shmq,futex,pipe,unix,mqueue"
#define SLEEP_NS        (UINT64_C(2) * NS_PER_S)

struct row {
    const struct cli *cli;
    struct perf_collection *collection;
    const char *measure;
    uint32_t count;
    uint32_t
        subjects[PERF_CONTENDERS_MAX]; /* of each the one that it is compared with; itself: none */
};

/* At a rate that is too high each trip is due before the one ahead of it is over. */
static void look_for_late(const struct cli *cli, const struct perf_session *session,
                          uint32_t contender)
{
    const struct perf_contender *c = perf_session_contender(session, contender);
    double median = perf_session_spread(session, contender, PERF_ANY_CLASS, PERF_MAIN).median;

    if (c->setup.rate > 0 && median > 1e9 / (double)c->setup.rate)
        cli_note(
            cli,
            "%s: cannot keep up with %llu a second: its times tell how far it fell behind in a "
            "trial, and no more",
            c->name, (unsigned long long)c->setup.rate);
}

static void collect_row(struct perf_session *session, void *context)
{
    const struct row *row = context;

    for (uint32_t i = 0; i < row->count; i++) {
        perf_collect_results(row->collection, session, i, row->measure);
        look_for_late(row->cli, session, i);
    }
    for (uint32_t i = 0; i < row->count; i++) {
        if (row->subjects[i] != i)
            perf_collect_ratio(row->collection, session, row->subjects[i], i, row->measure,
                               PERF_MAIN);
    }
    perf_collect_tally(row->collection, session);
}

/* The contenders of a row that can be had at this size; the others are named. CLI_OK when any is left. */
static int make_row(const struct cli *cli, const struct perf_plan *plan, enum perf_kind kind,
                    uint32_t size, struct perf_contender *contenders, uint32_t *ret_count)
{
    struct error_buffer why = {.text = ""};
    uint32_t count = 0;

    for (uint32_t i = 0; i < plan->way_count; i++) {
        perf_plan_contender(plan, plan->ways[i], kind, size, &contenders[count]);
        if (perf_contender_check(&contenders[count], &why) == 0)
            count++;
        else if (plan->way_count > 1)
            cli_note(cli, "left out: %s", why.text);
    }
    *ret_count = count;
    return count > 0 ? CLI_OK : cli_usage(cli, "%s", why.text);
}

static int measure_sizes(const struct cli *cli, const struct perf_plan *plan, enum perf_kind kind,
                         const char *measure, struct perf_collection *collection)
{
    struct perf_contender contenders[PERF_CONTENDERS_MAX];
    struct row row = {.cli = cli, .collection = collection, .measure = measure};
    int rc = CLI_OK;

    for (uint32_t s = 0; rc == CLI_OK && s < plan->size_count; s++) {
        rc = make_row(cli, plan, kind, plan->sizes[s], contenders, &row.count);
        if (rc == CLI_OK)
            rc = perf_measure(plan, contenders, row.count, collect_row, &row);
    }
    return rc;
}

static const char *wait_text(enum perf_wait wait)
{
    static const char *const names[] = {"hybrid", "spin", "block"};

    return names[wait];
}

static int finish(struct perf_collection *collection, const struct perf_plan *plan, int rc,
                  const char *what)
{
    char title[160];

    (void)snprintf(title, sizeof(title), "%s; wait: %s%s", what, wait_text(plan->setup.wait),
                   plan->setup.copy_out ? "; bodies copied out" : "");
    if (rc == CLI_OK)
        rc = perf_collection_print(collection, plan, title);
    perf_collection_free(collection);
    return rc;
}

int perf_run_latency(struct cli *cli)
{
    static const struct perf_defaults defaults = {
        .sizes = "64", .transports = LATENCY_WAYS, .wait = PERF_SPIN, .paced = true};
    struct perf_collection collection = {0};
    struct perf_plan plan;
    char what[80] = "round trips";
    int rc = perf_plan_make(cli, &defaults, &plan);

    if (rc != CLI_OK)
        return rc;
    if (plan.setup.rate > 0)
        (void)snprintf(what, sizeof(what), "round trips, %llu a second, from when they were due",
                       (unsigned long long)plan.setup.rate);
    rc = measure_sizes(cli, &plan, PERF_LATENCY, "latency", &collection);
    return finish(&collection, &plan, rc, what);
}

int perf_run_throughput(struct cli *cli)
{
    static const struct perf_defaults defaults = {
        .sizes = "64", .transports = THROUGHPUT_WAYS, .wait = PERF_SPIN, .several = true};
    struct perf_collection collection = {0};
    struct perf_plan plan;
    char what[120];
    int rc = perf_plan_make(cli, &defaults, &plan);

    if (rc != CLI_OK)
        return rc;
    (void)snprintf(what, sizeof(what), "throughput, %u process%s to %u, %u group%s",
                   plan.setup.producers, cli_plural(plan.setup.producers, "", "es"),
                   plan.setup.consumers, plan.setup.groups, cli_plural(plan.setup.groups, "", "s"));
    rc = measure_sizes(cli, &plan, plan.setup.consumers == 0 ? PERF_FREE : PERF_THROUGHPUT,
                       "throughput", &collection);
    return finish(&collection, &plan, rc, what);
}

/* ---- fanout ---------------------------------------------------------------------------------- */

/* One to one beside one to many, of each way. */
static int make_pairs(const struct cli *cli, const struct perf_plan *plan, uint32_t size,
                      struct perf_contender *contenders, struct row *row)
{
    struct perf_contender many[PERF_CONTENDERS_MAX];
    uint32_t count;
    int rc = make_row(cli, plan, PERF_THROUGHPUT, size, many, &count);

    if (rc != CLI_OK)
        return rc;
    for (uint32_t i = 0; i < count; i++) {
        struct perf_contender *one = &contenders[2 * i];

        row->subjects[2 * i] = row->subjects[2 * i + 1] = 2 * i + 1;
        *one = contenders[2 * i + 1] = many[i];
        one->setup.consumers = one->setup.groups = 1;
        (void)snprintf(one->name, sizeof(one->name), "%s to 1", many[i].way->name);
        (void)snprintf(contenders[2 * i + 1].name, sizeof(one->name), "%s to %u", many[i].way->name,
                       plan->setup.groups);
    }
    row->count = 2 * count;
    return CLI_OK;
}

int perf_run_fanout(struct cli *cli)
{
    static const struct perf_defaults defaults = {
        .sizes = "64", .transports = FANOUT_WAYS, .wait = PERF_SPIN, .groups = 3, .several = true};
    struct perf_contender contenders[PERF_CONTENDERS_MAX];
    struct perf_collection collection = {0};
    struct row row = {.cli = cli, .collection = &collection, .measure = "fanout"};
    struct perf_plan plan;
    char what[160];
    int rc = perf_plan_make(cli, &defaults, &plan);

    if (rc != CLI_OK)
        return rc;
    (void)snprintf(what, sizeof(what), "messages published, each for %u group%s in %u process%s",
                   plan.setup.groups, cli_plural(plan.setup.groups, "", "s"), plan.setup.consumers,
                   cli_plural(plan.setup.consumers, "", "es"));
    for (uint32_t s = 0; rc == CLI_OK && s < plan.size_count; s++) {
        rc = make_pairs(cli, &plan, plan.sizes[s], contenders, &row);
        if (rc == CLI_OK)
            rc = perf_measure(&plan, contenders, row.count, collect_row, &row);
    }
    return finish(&collection, &plan, rc, what);
}

/* ---- wake ------------------------------------------------------------------------------------ */

/* All ways that can wait like that; the first of them is compared with the others. */
static void add_wake_group(const struct cli *cli, const struct perf_plan *plan, enum perf_kind kind,
                           uint32_t size, enum perf_wait wait, struct perf_contender *contenders,
                           struct row *row)
{
    struct error_buffer why = {.text = ""};
    uint32_t first = row->count;

    for (uint32_t i = 0; i < plan->way_count; i++) {
        struct perf_contender *c = &contenders[row->count];

        perf_plan_contender(plan, plan->ways[i], kind, size, c);
        c->setup.wait = wait;
        (void)snprintf(c->name, sizeof(c->name), "%s %s", plan->ways[i]->name, wait_text(wait));
        /* Only those with a library of their own have anything to do when idle. */
        if (kind == PERF_IDLE && !(c->way->kinds & (1u << PERF_IDLE)))
            continue;
        row->subjects[row->count] = first;
        if (perf_contender_check(c, &why) == 0)
            row->count++;
        else
            cli_note(cli, "left out: %s", why.text);
    }
}

/* What hybrid waiting costs while there is traffic: the first way's beside its own spinning. */
static void add_spinning(const struct perf_plan *plan, uint32_t size, uint32_t hybrid,
                         struct perf_contender *contenders, struct row *row)
{
    struct perf_contender *c = &contenders[row->count];

    if (hybrid >= row->count || !(contenders[hybrid].way->waits & (1u << PERF_SPIN)))
        return;
    perf_plan_contender(plan, contenders[hybrid].way, PERF_LATENCY, size, c);
    c->setup.wait = PERF_SPIN;
    (void)snprintf(c->name, sizeof(c->name), "%s spin", c->way->name);
    row->subjects[row->count++] = hybrid;
}

/* Blocking, and where one can spin hybrid, too, unless one --wait was asked for. */
static int make_wake_row(const struct cli *cli, const struct perf_plan *plan, enum perf_kind kind,
                         uint32_t size, struct perf_contender *contenders, struct row *row)
{
    row->count = 0;
    if (plan->wait_given) {
        add_wake_group(cli, plan, kind, size, plan->setup.wait, contenders, row);
    } else {
        add_wake_group(cli, plan, kind, size, PERF_BLOCK, contenders, row);
        uint32_t hybrid = row->count;

        if (plan->team.cpu_count > 1)
            add_wake_group(cli, plan, kind, size, PERF_HYBRID, contenders, row);
        if (kind == PERF_LATENCY)
            add_spinning(plan, size, hybrid, contenders, row);
    }
    return row->count > 0 || kind == PERF_IDLE
               ? CLI_OK
               : cli_usage(cli, "none of these can sleep; choose others with --transport");
}

static void collect_idle(struct perf_session *session, void *context)
{
    const struct row *row = context;

    for (uint32_t i = 0; i < row->count; i++) {
        struct perf_result result = {.measure = "wake-ups a second, idle", .unit = PERF_COUNT};

        result.value = perf_session_spread(session, i, PERF_ANY_CLASS, PERF_MAIN);
        (void)snprintf(result.transport, sizeof(result.transport), "%s",
                       perf_session_contender(session, i)->name);
        if (result.value.count > 0)
            perf_collect_value(row->collection, &result);
    }
    perf_collect_tally(row->collection, session);
}

/* One trial of two seconds each. */
static int measure_idle(const struct cli *cli, const struct perf_plan *plan, struct row *row)
{
    struct perf_contender contenders[PERF_CONTENDERS_MAX];
    struct perf_plan idle = *plan;
    int rc = make_wake_row(cli, plan, PERF_IDLE, plan->sizes[0], contenders, row);

    if (rc != CLI_OK || row->count == 0)
        return rc;
    idle.budget = (struct perf_budget){.rounds = 1, .duration_ns = SLEEP_NS};
    return perf_measure(&idle, contenders, row->count, collect_idle, row);
}

int perf_run_wake(struct cli *cli)
{
    static const struct perf_defaults defaults = {
        .sizes = "64", .transports = WAKE_WAYS, .wait = PERF_BLOCK, .paced = true};
    struct perf_contender contenders[PERF_CONTENDERS_MAX];
    struct perf_collection collection = {0};
    struct row row = {.cli = cli, .collection = &collection, .measure = "wake"};
    struct perf_plan plan;
    int rc = perf_plan_make(cli, &defaults, &plan);

    for (uint32_t s = 0; rc == CLI_OK && s < plan.size_count; s++) {
        rc = make_wake_row(cli, &plan, PERF_LATENCY, plan.sizes[s], contenders, &row);
        if (rc == CLI_OK)
            rc = perf_measure(&plan, contenders, row.count, collect_row, &row);
    }
    if (rc == CLI_OK)
        rc = measure_idle(cli, &plan, &row);
    if (rc == CLI_OK)
        rc = perf_collection_print(&collection, &plan,
                                   "round trips of two who sleep while they wait");
    perf_collection_free(&collection);
    return rc;
}
