/* SPDX-License-Identifier: Apache-2.0 */
/* Options of shmq-perf, and the plan that they make; see plan.h. */
#include "tools/perf/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/perf/transport.h"

#define MESSAGES_NS (UINT64_C(300) * NS_PER_S) /* no longer, if all their trials are dropped */
#define ROUNDS      15
#define SIZE_MOST   (UINT64_C(1) << 30)
#define BODIES      16u /* of a row are in memory at once, about: sources, buffers, rings */
#define FEW_CPUS    4u

static struct {
    const char *sizes, *transports, *cpus, *classes, *plot, *hgrm;
    uint64_t producers, consumers, groups, partitions, duration, messages, rate, wait, format;
    uint64_t ring, batch, poll, rounds, timestamps;
    bool copy;
    struct perf_durable_plan durable;
} args = {.producers = CLI_UNSET,
          .consumers = CLI_UNSET,
          .groups = CLI_UNSET,
          .partitions = CLI_UNSET,
          .wait = CLI_UNSET,
          .format = CLI_UNSET,
          .rounds = CLI_UNSET};

#define OUTPUT_OPTIONS \
    {0,          "format",     "FORMAT",         "table (default), json or csv", \
     CLI_CHOICE, &args.format, "table|json|csv", 0, \
     0}, \
    { \
        0, "plot", "FILE.svg", "draw it, too", CLI_TEXT, &args.plot, NULL, 0, 0 \
    }

#define COMMON_OPTIONS \
    {0, \
     "duration", \
     "DUR", \
     "at most so long for each row: all contenders at one size (5s)", \
     CLI_DURATION, \
     &args.duration, \
     NULL, \
     0, \
     0}, \
        {0, \
         "rounds", \
         "N", \
         "end a row before that when each contender has so many trials in every distance class " \
         "that showed up (15)", \
         CLI_COUNT, \
         &args.rounds, \
         NULL, \
         1, \
         PERF_SAMPLES_MAX}, \
        {0, \
         "cpus", \
         "LIST", \
         "where processes are pinned: sender first, then its peer, as 2,3 or 0-3 (the first two " \
         "that there are)", \
         CLI_TEXT, \
         &args.cpus, \
         NULL, \
         0, \
         0}, \
        {0,          "classes", \
         "NEAR,FAR", "cores are near below NEAR ns one way, farther above FAR (90,250)", \
         CLI_TEXT,   &args.classes, \
         NULL,       0, \
         0}, \
        OUTPUT_OPTIONS

const struct cli_option PERF_OPTIONS[] = {
    {'s', "size", "N[,N...]", "bytes of body: 8 to 1G, as 64 or 64,1K,64K", CLI_TEXT, &args.sizes,
     NULL, 0, 0},
    {'t', "transport", "T[,T...]",
     "what is measured side by side; the first one is compared with the others. See "
     "'shmq-perf transports'",
     CLI_TEXT, &args.transports, NULL, 0, 0},
    {0, "wait", "HOW",
     "how who waits does it: spin (burns its core), hybrid (spins, then sleeps) or block (sleeps)",
     CLI_CHOICE, &args.wait, "spin|hybrid|block", 0, 0},
    {0, "producers", "N", "processes that send (1)", CLI_COUNT, &args.producers, NULL, 1,
     PERF_MEMBERS_MAX - 1},
    {0, "consumers", "N",
     "processes that receive, each in a group of its own (1); 0: nobody reads, the ring runs round "
     "under its producers",
     CLI_COUNT, &args.consumers, NULL, 0, PERF_GROUPS_MAX},
    {0, "groups", "N",
     "groups, each of which gets every message; more than consumers: a consumer "
     "has several, in turn",
     CLI_COUNT, &args.groups, NULL, 1, PERF_GROUPS_MAX},
    {0, "partitions", "N", "of the topic (1)", CLI_COUNT, &args.partitions, NULL, 1, 1024},
    COMMON_OPTIONS,
    {0, "messages", "N",
     "end a row when each contender has moved so many in trials that count, whatever the rounds, but "
     "after five minutes (or --duration)",
     CLI_COUNT, &args.messages, NULL, 1, UINT64_MAX / 2},
    {0, "rate", "N",
     "latency: N round trips a second, each timed from when it should have begun, so that a slow one "
     "counts for those it held up (coordinated omission)",
     CLI_COUNT, &args.rate, NULL, 1, 10000000},
    {0, "ring", "SIZE",
     "bytes of a partition's ring, and of the ideal rings' slots (1M; ideal 512K)", CLI_SIZE,
     &args.ring, NULL, 0, 0},
    {0, "batch", "N", "messages that shmq publishes at once (1)", CLI_COUNT, &args.batch, NULL, 1,
     256},
    {0, "poll", "N", "messages that shmq takes at once, at most (64)", CLI_COUNT, &args.poll, NULL,
     1, 1024},
    {0, "timestamps", "KIND", "of shmq's messages: coarse (default), none or precise", CLI_CHOICE,
     &args.timestamps, "coarse|none|precise", 0, 0},
    {0, "copy", NULL,
     "the receiver copies each body before it reads it; else it reads in place "
     "where the transport can",
     CLI_FLAG, &args.copy, NULL, 0, 0},
    {0, "hgrm", "FILE",
     "latency: all round trips in HdrHistogram's text format, one file a row, named after FILE",
     CLI_TEXT, &args.hgrm, NULL, 0, 0},
    {0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0},
};

const struct cli_option PERF_FLOOR_OPTIONS[] = {
    COMMON_OPTIONS,
    {0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0},
};

const struct cli_option PERF_DURABLE_OPTIONS[] = {
    {0, "only", "ROW[,ROW...]",
     "window, confirm, producers, os, interval, publish, catch-up, recovery, spill; else all",
     CLI_TEXT, &args.durable.only, NULL, 0, 0},
    {0, "state-dir", "DIR",
     "where files are written, in a folder that is removed again ($TMPDIR or /var/tmp, whichever is "
     "on a disk)",
     CLI_TEXT, &args.durable.state_dir, NULL, 0, 0},
    {0, "duration", "DUR", "of one trial, about (300ms); what is written grows with it",
     CLI_DURATION, &args.duration, NULL, 0, 0},
    {0, "rounds", "N", "trials of each, in turn (7)", CLI_COUNT, &args.rounds, NULL, 1,
     PERF_DURABLE_ROUNDS_MAX},
    {0, "quick", NULL, "see whether it works: five rounds of next to no time, little history",
     CLI_FLAG, &args.durable.quick, NULL, 0, 0},
    {0, "history", "SIZE",
     "recovery also behind a history of so many bytes, which are written first", CLI_SIZE,
     &args.durable.history_bytes, NULL, 0, 0},
    {0, "ring", "SIZE", "of topics that os and interval stream through (16M)", CLI_SIZE,
     &args.durable.ring_bytes, NULL, 0, 0},
    {0, "cpus", "LIST",
     "producers, readers and floors are pinned to the first one, further producers and consumers to "
     "those behind it; shmqd may use all of them (all that there are)",
     CLI_TEXT, &args.cpus, NULL, 0, 0},
    OUTPUT_OPTIONS,
    {0, "hgrm", "FILE",
     "confirm: all times in HdrHistogram's text format, one file for shmq and each floor, named "
     "after FILE",
     CLI_TEXT, &args.hgrm, NULL, 0, 0},
    {0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0},
};

/* ---- lists ----------------------------------------------------------------------------------- */

/* The next part of a list; false at its end. */
static bool next_part(const char **list, char part[64])
{
    size_t length = strcspn(*list, ",");

    if (!**list)
        return false;
    (void)snprintf(part, 64, "%.*s", (int)min_size(length, 63), *list);
    *list += length + ((*list)[length] == ',');
    return true;
}

static int parse_sizes(const struct cli *cli, const char *list, struct perf_plan *plan)
{
    struct error_buffer why;
    char part[64];
    uint64_t bytes;

    while (next_part(&list, part)) {
        if (units_parse_size(part, &bytes, &why) < 0)
            return cli_usage(cli, "--size: %s", why.text);
        if (bytes < PERF_SIZE_MIN || bytes > SIZE_MOST)
            return cli_usage(cli, "--size: '%s': a body is %u bytes to 1G", part, PERF_SIZE_MIN);
        if (plan->size_count == PERF_SIZES_MAX)
            return cli_usage(cli, "--size: %u at most", PERF_SIZES_MAX);
        plan->sizes[plan->size_count++] = (uint32_t)bytes;
    }
    return plan->size_count > 0 ? CLI_OK : cli_usage(cli, "--size: is empty");
}

static int fail_transport(const struct cli *cli, const char *name)
{
    const char *names[PERF_CONTENDERS_MAX + 1] = {NULL};
    char all[512] = "";
    const char *nearest;
    uint32_t count = 0;

    for (; count < PERF_CONTENDERS_MAX && PERF_WAYS[count]; count++) {
        size_t used = strlen(all);

        names[count] = PERF_WAYS[count]->name;
        (void)snprintf(all + used, sizeof(all) - used, "%s%s", used ? ", " : "", names[count]);
    }
    nearest = cli_nearest(name, names);
    if (nearest)
        return cli_usage(cli, "--transport: '%s' is unknown; did you mean '%s'?", name, nearest);
    return cli_usage(cli, "--transport: '%s' is unknown; there are %s", name, all);
}

static int parse_transports(const struct cli *cli, const char *list, bool are_defaults,
                            struct perf_plan *plan)
{
    char part[64];

    while (next_part(&list, part)) {
        const struct perf_way *way = perf_way_find(part);

        if (!way)
            return fail_transport(cli, part);
        if (way->missing && are_defaults)
            continue;
        if (way->missing)
            return cli_usage(cli, "--transport: %s is not in this build; build shmq with 'make %s'",
                             part, way->missing);
        if (plan->way_count == PERF_CONTENDERS_MAX / 2)
            return cli_usage(cli, "--transport: %u at most", PERF_CONTENDERS_MAX / 2);
        plan->ways[plan->way_count++] = way;
    }
    return plan->way_count > 0 ? CLI_OK : cli_usage(cli, "--transport: is empty");
}

/* "2", "0-3". */
static bool parse_range(const char *part, uint64_t *first, uint64_t *last)
{
    char begin[64];
    const char *dash = strchr(part, '-');

    if (!dash)
        return units_parse_count(part, 0, 4095, first, NULL) == 0 &&
               units_parse_count(part, 0, 4095, last, NULL) == 0;
    (void)snprintf(begin, sizeof(begin), "%.*s", (int)(dash - part), part);
    return units_parse_count(begin, 0, 4095, first, NULL) == 0 &&
           units_parse_count(dash + 1, 0, 4095, last, NULL) == 0 && *first <= *last;
}

static bool is_among(const int *cpus, uint32_t count, uint64_t cpu)
{
    for (uint32_t i = 0; i < count; i++) {
        if ((uint64_t)cpus[i] == cpu)
            return true;
    }
    return false;
}

static int parse_cpus(const struct cli *cli, struct perf_plan *plan)
{
    int available[PERF_CPUS_MAX];
    uint32_t available_count = perf_cpus_available(available, PERF_CPUS_MAX);
    const char *list = args.cpus;
    char part[64];

    plan->team.cpus = plan->cpus;
    if (!list) {
        memcpy(plan->cpus, available, sizeof(available));
        plan->team.cpu_count = available_count;
        return available_count > 0 ? CLI_OK : cli_fail(CLI_FAILED, "cpus: none can be used");
    }
    while (next_part(&list, part)) {
        uint64_t first, last;

        if (!parse_range(part, &first, &last))
            return cli_usage(cli, "--cpus: '%s' is no list of CPUs, such as 0,1 or 0-3", part);
        for (uint64_t cpu = first; cpu <= last; cpu++) {
            if (!is_among(available, available_count, cpu))
                return cli_fail(CLI_USAGE,
                                "cpus: CPU %llu is not there for this process (%u are); look at "
                                "'nproc --all', taskset and the cpuset of its cgroup",
                                (unsigned long long)cpu, available_count);
            if (plan->team.cpu_count < PERF_CPUS_MAX)
                plan->cpus[plan->team.cpu_count++] = (int)cpu;
        }
    }
    return plan->team.cpu_count > 0 ? CLI_OK : cli_usage(cli, "--cpus: is empty");
}

static int parse_classes(const struct cli *cli, struct perf_plan *plan)
{
    const char *list = args.classes;
    char near_text[64], far_text[64];
    uint64_t near_ns, far_ns;

    if (!list)
        return CLI_OK;
    if (!next_part(&list, near_text) || !next_part(&list, far_text) || *list ||
        units_parse_count(near_text, 1, 100000, &near_ns, NULL) < 0 ||
        units_parse_count(far_text, near_ns, 100000, &far_ns, NULL) < 0)
        return cli_usage(cli, "--classes: '%.40s' is no pair of nanoseconds, such as 90,250",
                         args.classes);
    plan->team.thresholds = (struct perf_thresholds){(double)near_ns, (double)far_ns};
    return CLI_OK;
}

/* ---- the plan -------------------------------------------------------------------------------- */

static uint32_t given(uint64_t value, uint32_t otherwise)
{
    return value == CLI_UNSET ? otherwise : (uint32_t)value;
}

static int check_meaning(const struct cli *cli, const struct perf_defaults *defaults)
{
    if (!defaults->several && (given(args.producers, 1) > 1 || given(args.consumers, 1) != 1 ||
                               given(args.groups, 1) > 1 || args.batch > 1))
        return cli_usage(cli, "one sends and one answers here: --producers, --consumers, --groups "
                              "and --batch are for throughput and fanout");
    if (!defaults->paced && args.rate > 0)
        return cli_usage(cli, "--rate is for latency and wake: throughput is what there is");
    if (defaults->several && args.hgrm)
        return cli_usage(cli, "--hgrm is for latency, wake and compare: nothing here has times");
    if (cli->vhost && !cli->bus && !cli->runtime_dir)
        return cli_usage(cli, "--vhost: a private bus has one only; name a bus with --bus");
    return CLI_OK;
}

/* What touches more memory than there is takes the machine with it. */
static int check_memory(const struct cli *cli, const struct perf_plan *plan)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    char text[PERF_TEXT_BYTES];

    (void)perf_text_size(memory, text);
    if (plan->setup.ring_bytes > memory / 4 / plan->setup.partitions)
        return cli_usage(cli, "--ring: this machine has %s of memory; take a smaller one", text);
    for (uint32_t i = 0; i < plan->size_count; i++) {
        if (plan->sizes[i] > memory / BODIES)
            return cli_usage(cli, "--size: this machine has %s of memory; take smaller bodies",
                             text);
    }
    return CLI_OK;
}

/* Before anything is measured, which takes minutes. */
static int check_file(const char *what, const char *path)
{
    char folder[PATH_MAX];
    const char *slash = path ? strrchr(path, '/') : NULL;
    int fd = path ? open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC) : -1;

    if (fd >= 0)
        (void)close(fd);
    if (fd >= 0 || !path)
        return CLI_OK;
    (void)snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) + 1 : 1,
                   slash ? path : ".");
    if (*path && errno == ENOENT && access(folder, W_OK) == 0)
        return CLI_OK;
    return cli_fail(CLI_FAILED, "%s: %s: %s; name a file that can be written", what, path,
                    strerror(errno));
}

static void fill_setup(const struct perf_defaults *defaults, struct perf_plan *plan)
{
    static const enum perf_wait waits[] = {PERF_SPIN, PERF_HYBRID, PERF_BLOCK};
    struct perf_setup *setup = &plan->setup;

    plan->wait_given = args.wait != CLI_UNSET;
    setup->wait = plan->wait_given ? waits[args.wait] : defaults->wait;
    setup->producers = given(args.producers, 1);
    setup->consumers = given(args.consumers, 1);
    setup->groups = given(args.groups, 0);
    if (setup->groups == 0)
        setup->groups =
            args.consumers == CLI_UNSET && defaults->groups ? defaults->groups : setup->consumers;
    setup->partitions = given(args.partitions, 1);
    setup->ring_bytes = args.ring;
    setup->batch = (uint32_t)args.batch;
    setup->poll_max = (uint32_t)args.poll;
    setup->timestamps = (uint32_t)args.timestamps;
    setup->rate = args.rate;
    setup->copy_out = args.copy;
}

int perf_plan_make(const struct cli *cli, const struct perf_defaults *defaults,
                   struct perf_plan *ret_plan)
{
    int rc;

    memset(ret_plan, 0, sizeof(*ret_plan));
    rc = check_meaning(cli, defaults);
    if (rc == CLI_OK)
        rc = parse_sizes(cli, args.sizes ? args.sizes : defaults->sizes, ret_plan);
    if (rc == CLI_OK && defaults->transports)
        rc = parse_transports(cli, args.transports ? args.transports : defaults->transports,
                              !args.transports, ret_plan);
    if (rc == CLI_OK)
        rc = parse_cpus(cli, ret_plan);
    if (rc == CLI_OK)
        rc = parse_classes(cli, ret_plan);
    if (rc != CLI_OK)
        return rc;
    fill_setup(defaults, ret_plan);
    rc = check_memory(cli, ret_plan);
    if (rc == CLI_OK)
        rc = check_file("plot", args.plot);
    if (rc == CLI_OK)
        rc = check_file("histogram", args.hgrm);
    if (rc == CLI_OK && defaults->two_cpus && ret_plan->team.cpu_count < 2)
        rc = cli_fail(CLI_FAILED,
                      "cpus: there is one only: %s takes two; give this process a second one "
                      "(taskset, cpuset), or see 'shmq-perf wake'",
                      defaults->two_cpus);
    if (rc != CLI_OK)
        return rc;
    ret_plan->budget.rounds = given(args.rounds, defaults->rounds ? defaults->rounds : ROUNDS);
    ret_plan->budget.duration_ns = args.duration || !args.messages ? args.duration : MESSAGES_NS;
    ret_plan->budget.messages = args.messages;
    ret_plan->format = args.format == CLI_UNSET ? cli->json ? PERF_JSON : PERF_TABLE
                                                : (enum perf_format)args.format;
    ret_plan->plot = args.plot;
    ret_plan->hgrm = args.hgrm;
    ret_plan->durable = args.durable;
    ret_plan->cli = cli;
    return CLI_OK;
}

void perf_plan_contender(const struct perf_plan *plan, const struct perf_way *way,
                         enum perf_kind kind, uint32_t size, struct perf_contender *ret_contender)
{
    const char *how = "";

    *ret_contender = (struct perf_contender){.way = way, .setup = plan->setup};
    ret_contender->setup.kind = kind;
    ret_contender->setup.size = size;
    /* Their callers would spin where their threads have to run. */
    if (way->has_threads && !plan->wait_given && plan->team.cpu_count < FEW_CPUS) {
        ret_contender->setup.wait = PERF_BLOCK;
        how = ", blocking";
    }
    (void)snprintf(ret_contender->name, sizeof(ret_contender->name), "%s%s", way->name, how);
}
