/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare.c: `shmq-perf compare`: round trips and throughput over sizes, every transport side
 * by side; shmq beside the better bare ring and beside the best of the kernel's, of each distance.
 * `shmq-perf transports`: what there is.
 */
#include <string.h>

#include "tools/json.h"
#include "tools/perf/plan.h"
#include "tools/perf/transport.h"
#include "tools/perf/verbs.h"
#include "tools/table.h"

#define COMPARED "shmq,shmq-multi,ideal,ideal-lag,ideal-chase,pipe,unix,mqueue,zmq,nng"
#define NOBODY   UINT32_MAX

struct side {
    struct perf_collection *collection;
    const char *measure;
    uint32_t count;
    bool latency;
};

enum family { SHMQ, BARE, KERNEL, OTHER };

static enum family family_of(const struct perf_way *way)
{
    if (way->is_kernel)
        return KERNEL;
    if (strncmp(way->name, "shmq", 4) == 0)
        return SHMQ;
    return strncmp(way->name, "ideal", 5) == 0 ? BARE : OTHER;
}

static uint32_t best_of(const struct perf_session *session, const struct side *side,
                        enum family family, enum perf_class distance)
{
    uint32_t best = NOBODY;

    for (uint32_t i = 0; i < side->count; i++) {
        if (family_of(perf_session_contender(session, i)->way) != family ||
            perf_session_spread(session, i, distance, PERF_MAIN).count == 0)
            continue;
        best = best == NOBODY ? i : perf_session_better(session, best, i, distance, PERF_MAIN);
    }
    return best;
}

static void compare_with(const struct perf_session *session, const struct side *side,
                         uint32_t baseline, enum perf_class distance)
{
    for (uint32_t i = 0; baseline != NOBODY && i < side->count; i++) {
        if (family_of(perf_session_contender(session, i)->way) != SHMQ)
            continue;
        perf_collect_ratio_in(side->collection, session, i, baseline, distance, side->measure,
                              PERF_MAIN);
        if (side->latency)
            perf_collect_ratio_in(side->collection, session, i, baseline, distance, side->measure,
                                  PERF_P99);
    }
}

static void collect_side(struct perf_session *session, void *context)
{
    const struct side *side = context;

    for (uint32_t i = 0; i < side->count; i++)
        perf_collect_results(side->collection, session, i, side->measure);
    for (unsigned c = 0; c < PERF_CLASSES; c++) {
        enum perf_class distance = (enum perf_class)c;

        compare_with(session, side, best_of(session, side, BARE, distance), distance);
        compare_with(session, side, best_of(session, side, KERNEL, distance), distance);
        for (uint32_t i = 0; i < side->count; i++) {
            if (family_of(perf_session_contender(session, i)->way) == OTHER)
                compare_with(session, side, i, distance);
        }
    }
    perf_collect_tally(side->collection, session);
}

static int measure_side(const struct cli *cli, const struct perf_plan *plan, enum perf_kind kind,
                        uint32_t size, struct perf_collection *collection)
{
    struct perf_contender contenders[PERF_CONTENDERS_MAX];
    struct side side = {collection, kind == PERF_LATENCY ? "latency" : "throughput", 0,
                        kind == PERF_LATENCY};
    struct error_buffer why;

    for (uint32_t i = 0; i < plan->way_count; i++) {
        perf_plan_contender(plan, plan->ways[i], kind, size, &contenders[side.count]);
        if (perf_contender_check(&contenders[side.count], &why) == 0)
            side.count++;
        else
            cli_note(cli, "left out: %s", why.text);
    }
    if (side.count == 0)
        return CLI_OK;
    return perf_measure(plan, contenders, side.count, collect_side, &side);
}

int perf_run_compare(struct cli *cli)
{
    static const struct perf_defaults defaults = {
        .sizes = "64,1K", .transports = COMPARED, .wait = PERF_SPIN};
    struct perf_collection collection = {0};
    struct perf_plan plan;
    int rc = perf_plan_make(cli, &defaults, &plan);

    for (uint32_t s = 0; rc == CLI_OK && s < plan.size_count; s++) {
        rc = measure_side(cli, &plan, PERF_LATENCY, plan.sizes[s], &collection);
        if (rc == CLI_OK)
            rc = measure_side(cli, &plan, PERF_THROUGHPUT, plan.sizes[s], &collection);
    }
    if (rc == CLI_OK)
        rc = perf_collection_print(&collection, &plan,
                                   "shmq beside bare rings and what the kernel has");
    perf_collection_free(&collection);
    return rc;
}

static int print_transports_json(void)
{
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_array_begin(&json, NULL);
    for (const struct perf_way *const *way = PERF_WAYS; *way; way++) {
        json_object_begin(&json, NULL);
        json_string(&json, "transport", (*way)->name);
        json_string(&json, "what", (*way)->summary);
        json_boolean(&json, "here", (*way)->missing == NULL);
        json_object_end(&json);
    }
    json_array_end(&json);
    (void)fwrite(out.data, 1, out.length, stdout);
    outbuf_free(&out);
    return CLI_OK;
}

int perf_run_transports(struct cli *cli)
{
    static const char *const heads[] = {"TRANSPORT", "WHAT", "HERE", NULL};
    struct table table;

    if (cli->json)
        return print_transports_json();
    table_init(&table, heads);
    for (const struct perf_way *const *way = PERF_WAYS; *way; way++) {
        table_cell(&table, "%s", (*way)->name);
        table_cell(&table, "%s", (*way)->summary);
        table_cell(&table, "%s%s", (*way)->missing ? "no: make " : "yes",
                   (*way)->missing ? (*way)->missing : "");
    }
    table_print(&table, cli, 0);
    table_free(&table);
    return CLI_OK;
}
