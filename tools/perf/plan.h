/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.h: what the options of a verb ask for, checked and with defaults filled in; and what
 * came out of it, collected for a report.
 *
 * One process, one command: options fill static variables (cli.h). One thread; perf_plan_make() reads
 * which CPUs there are, perf_collection_print() writes files.
 */
#ifndef SHMQ_TOOLS_PERF_PLAN_H
#define SHMQ_TOOLS_PERF_PLAN_H

#include "tools/cli.h"
#include "tools/perf/team.h"

#define PERF_SIZES_MAX          16u
#define PERF_CPUS_MAX           64u
#define PERF_DURABLE_ROUNDS_MAX 64u

struct perf_defaults {
    const char *sizes;      /* as --size takes them */
    const char *transports; /* as --transport; ways that this build lacks are left out, silently */
    enum perf_wait wait;
    uint32_t groups;
    bool several; /* --producers, --consumers, --groups, --partitions and --batch mean something */
    bool paced;   /* --rate does */
    uint32_t rounds;      /* without --rounds; 0: 15 */
    const char *two_cpus; /* what one CPU is not enough for; NULL: it may be */
};

/* What only `durable` is asked. */
struct perf_durable_plan {
    const char *only;       /* rows, as --only names them; NULL: all */
    const char *state_dir;  /* NULL: where there is a disk */
    uint64_t history_bytes; /* 0: no recovery behind a long history */
    uint64_t ring_bytes;    /* 0: each row's own */
    bool quick;
};

struct perf_plan {
    uint32_t sizes[PERF_SIZES_MAX];
    uint32_t size_count;
    const struct perf_way *ways[PERF_CONTENDERS_MAX];
    uint32_t way_count;
    struct perf_setup setup; /* without kind and size */
    bool wait_given; /* else ways with threads of their own block, where there are few CPUs */
    struct perf_budget budget;
    int cpus[PERF_CPUS_MAX];
    struct perf_team_options team; /* its cpus are those */
    enum perf_format format;
    const char *plot, *hgrm; /* files; NULL: none */
    struct perf_durable_plan durable;
    const struct cli *cli; /* for remarks */
};

/* All verbs of measuring take these. */
extern const struct cli_option PERF_OPTIONS[];
/* floor has no transports. */
extern const struct cli_option PERF_FLOOR_OPTIONS[];
/* durable has a disk. */
extern const struct cli_option PERF_DURABLE_OPTIONS[];

/* CLI_OK, or an exit code after having said why. */
int perf_plan_make(const struct cli *cli, const struct perf_defaults *defaults,
                   struct perf_plan *ret_plan);
/* The plan's setup for this kind and size, by this way, in `ret_contender`. */
void perf_plan_contender(const struct perf_plan *plan, const struct perf_way *way,
                         enum perf_kind kind, uint32_t size, struct perf_contender *ret_contender);

/* ---- what came out (collect.c) --------------------------------------------------------------- */

struct perf_collection {
    struct perf_result *results;
    struct perf_comparison *comparisons;
    uint32_t result_count, comparison_count;
    struct perf_tally tally;
    const char *disk, *threads; /* for the report's head; NULL: not said there */
};

/* One result of each class in which the contender was observed. */
void perf_collect_results(struct perf_collection *collection, const struct perf_session *session,
                          uint32_t contender, const char *measure);
/* One comparison of each class in which there are pairs. */
void perf_collect_ratio(struct perf_collection *collection, const struct perf_session *session,
                        uint32_t subject, uint32_t baseline, const char *measure,
                        enum perf_figure figure);
/* Of one class; nothing when there are no pairs. */
void perf_collect_ratio_in(struct perf_collection *collection, const struct perf_session *session,
                           uint32_t subject, uint32_t baseline, enum perf_class distance,
                           const char *measure, enum perf_figure figure);
void perf_collect_tally(struct perf_collection *collection, const struct perf_session *session);
void perf_collect_comparison(struct perf_collection *collection,
                             const struct perf_comparison *comparison);
/* Fills in a comparison's verdict, and a note where another run may say otherwise. `value`: what the target is
 * for; of fewer than `least` samples it is not observed. */
void perf_collect_verdict(struct perf_comparison *comparison, const struct perf_spread *value,
                          uint32_t least);
/* The words that this program was started with, for the report. */
void perf_collect_command(int argc, char **argv);
/* Takes a single figure in. */
void perf_collect_value(struct perf_collection *collection, const struct perf_result *result);
/* Table, JSON or CSV to stdout, plot and histograms to their files. An exit code. */
int perf_collection_print(const struct perf_collection *collection, const struct perf_plan *plan,
                          const char *title);
void perf_collection_free(struct perf_collection *collection);

/* Opens, runs, hands the session to `use`, closes. An exit code, after having said why. */
typedef void perf_use_fn(struct perf_session *session, void *context);
int perf_measure(const struct perf_plan *plan, const struct perf_contender *contenders,
                 uint32_t count, perf_use_fn *use, void *context);

#endif
