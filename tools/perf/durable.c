/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verb `durable`: its scenarios one after the other, each with a shmqd of its own, and the report; see durable.h.
 *
 * SIGINT, SIGTERM and SIGHUP are held back as long as there is something to clean up (place.h); between two steps it
 * is asked whether one came.
 */
#include "tools/perf/durable.h"

#include <math.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tools/outbuf.h"
#include "tools/perf/verbs.h"

#define TRIAL_NS          (300 * NS_PER_MS)
#define ROUNDS            7u
#define HISTORY_BYTES     (UINT64_C(256) << 20)
#define RECOVERY_MESSAGES UINT64_C(1000000)
#define STOP_NS           (UINT64_C(10) * NS_PER_S)

#define QUICK_TRIAL_NS (20 * NS_PER_MS)
#define QUICK_HISTORY  (UINT64_C(8) << 20)
#define QUICK_MESSAGES UINT64_C(20000)
#define QUICK_STOP_NS  NS_PER_S

#define STREAM_BYTES_PER_S (UINT64_C(4) << 30) /* at most, of a trial's time */
#define STREAM_LEAST       (UINT64_C(16) << 20)
#define ROWS_MAX           48u
#define LOOK_NS            (20 * NS_PER_MS) /* rarely: the measurers have the CPUs */
#define BUDGET_NS          (UINT64_C(120) * NS_PER_S)
#define TRIALS_MAX         16u                  /* of a round */
#define WRITES_PER_S       (UINT64_C(20) << 20) /* a disk that is slower than this one is given up */

static const struct durable_scenario *const SCENARIOS[] = {
    &durable_scenario_window,   &durable_scenario_confirm,  &durable_scenario_producers,
    &durable_scenario_os,       &durable_scenario_interval, &durable_scenario_publish,
    &durable_scenario_catch_up, &durable_scenario_recovery, &durable_scenario_spill,
};
#define SCENARIO_COUNT ((uint32_t)COUNT_OF(SCENARIOS))

/* ---- which ----------------------------------------------------------------------------------- */

static int fail_unknown(const char *name, struct error_buffer *why)
{
    const char *names[SCENARIO_COUNT + 1] = {NULL};
    char all[256] = "";
    const char *nearest;

    for (uint32_t i = 0; i < SCENARIO_COUNT; i++) {
        size_t used = strlen(all);

        names[i] = SCENARIOS[i]->name;
        (void)snprintf(all + used, sizeof(all) - used, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    nearest = cli_nearest(name, names);
    if (nearest)
        return error_set(why, SHMQ_EINVAL, "--only: '%s' is unknown; did you mean '%s'?", name,
                         nearest);
    return error_set(why, SHMQ_EINVAL, "--only: '%s' is unknown; there are %s", name, all);
}

static bool is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',') {
        if (strcspn(at, ",") == length && strncmp(at, name, length) == 0)
            return true;
    }
    return false;
}

static int check_list(const char *list, struct error_buffer *why)
{
    char part[64];

    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',') {
        bool known = false;

        (void)snprintf(part, sizeof(part), "%.*s", (int)min_size(strcspn(at, ","), 63), at);
        for (uint32_t i = 0; i < SCENARIO_COUNT; i++)
            known = known || strcmp(part, SCENARIOS[i]->name) == 0;
        if (!known)
            return fail_unknown(part, why);
    }
    return *list ? 0 : error_set(why, SHMQ_EINVAL, "--only: is empty");
}

int durable_choose(const char *list, const struct durable_scenario **ret_chosen, uint32_t max,
                   struct error_buffer *why)
{
    int count = 0;

    if (list && check_list(list, why) < 0)
        return -1;
    for (uint32_t i = 0; i < SCENARIO_COUNT && (uint32_t)count < max; i++) {
        if (!list || is_listed(list, SCENARIOS[i]->name))
            ret_chosen[count++] = SCENARIOS[i];
    }
    return count;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Notes of rows outlive what they were made of. */
static const char *keep_note(const char *text)
{
    static char notes[ROWS_MAX][DURABLE_NOTE_BYTES];
    static uint32_t count;

    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(notes[i], text) == 0)
            return notes[i];
    }
    if (!*text || count == ROWS_MAX)
        return NULL;
    (void)snprintf(notes[count], sizeof(notes[count]), "%s", text);
    return notes[count++];
}

static void add_note(const struct durable_talk *talk, bool observed,
                     struct perf_comparison *comparison)
{
    char both[DURABLE_NOTE_BYTES];

    if (!observed && *talk->failure) {
        comparison->note = keep_note(talk->failure);
    } else if (*talk->note) {
        (void)snprintf(both, sizeof(both), "%.*s%s%s", (int)(sizeof(both) - 96), talk->note,
                       comparison->note ? "; " : "", comparison->note ? comparison->note : "");
        comparison->note = keep_note(both);
    }
}

struct perf_comparison *durable_report(struct durable_run *run, const struct durable_row *row)
{
    const struct durable_talk *talk = run->talk;
    const double *subject = talk->values[row->subject];
    const double *baseline = talk->values[row->baseline];
    struct perf_comparison comparison = {
        .size = row->size,
        .unit = row->unit,
        .has_target = row->target > 0,
        .target_is_most = row->at_most,
        .target = row->target,
    };
    uint32_t least = row->least ? row->least : DURABLE_ROUNDS_LEAST;
    double ratios[PERF_DURABLE_ROUNDS_MAX];

    (void)snprintf(comparison.what, sizeof(comparison.what), "%s", row->what);
    (void)snprintf(comparison.subject, sizeof(comparison.subject), "%s", row->subject_name);
    comparison.subject_value = perf_spread_of(subject, PERF_DURABLE_ROUNDS_MAX);
    if (row->baseline_name) {
        for (uint32_t i = 0; i < PERF_DURABLE_ROUNDS_MAX; i++)
            ratios[i] = baseline[i] > 0 ? subject[i] / baseline[i] : NAN;
        comparison.ratio = perf_spread_of(ratios, PERF_DURABLE_ROUNDS_MAX);
        comparison.baseline_value = perf_spread_of(baseline, PERF_DURABLE_ROUNDS_MAX);
        (void)snprintf(comparison.baseline, sizeof(comparison.baseline), "%s", row->baseline_name);
    }
    perf_collect_verdict(&comparison,
                         row->baseline_name ? &comparison.ratio : &comparison.subject_value, least);
    add_note(talk, comparison.subject_value.count >= least, &comparison);
    perf_collect_comparison(&run->collection, &comparison);
    return &run->collection.comparisons[run->collection.comparison_count - 1];
}

void durable_report_value(struct durable_run *run, const char *measure, const char *name,
                          uint32_t series, enum perf_unit unit)
{
    struct perf_result result = {.measure = measure, .unit = unit};

    result.value = perf_spread_of(run->talk->values[series], PERF_DURABLE_ROUNDS_MAX);
    (void)snprintf(result.transport, sizeof(result.transport), "%s", name);
    if (result.value.count > 0)
        perf_collect_value(&run->collection, &result);
}

void durable_report_times(struct durable_run *run, const char *name, uint32_t series,
                          uint32_t times)
{
    uint32_t count = run->collection.result_count;
    struct perf_histogram *copy;

    durable_report_value(run, "until it is on disk, one outstanding", name, series, PERF_NS);
    if (run->collection.result_count == count)
        return;
    copy = perf_histogram_new();
    perf_histogram_add(copy, &run->talk->times[times]);
    run->collection.results[count].histogram = copy;
}

void durable_clear(struct durable_talk *talk)
{
    for (uint32_t i = 0; i < DURABLE_SERIES_MAX; i++) {
        for (uint32_t k = 0; k < PERF_DURABLE_ROUNDS_MAX; k++)
            talk->values[i][k] = NAN;
    }
    memset(talk->times, 0, sizeof(talk->times));
    memset(talk->counts, 0, sizeof(talk->counts));
    talk->note[0] = talk->failure[0] = '\0';
}

/* ---- shmqd and measurers --------------------------------------------------------------------- */

bool durable_restart_shmqd(struct durable_run *run, struct perf_daemon *ret_daemon)
{
    char why[DURABLE_NOTE_BYTES / 2];

    if (perf_place_interrupted())
        return durable_set_failure(run->talk, "interrupted");
    (void)unlink(perf_place_path(&run->place, "shmqd.log")); /* of an earlier start */
    if (perf_daemon_start(ret_daemon, &run->place, run->program, why, sizeof(why)))
        return true;
    return durable_set_failure(run->talk, "shmqd does not start: %s", why);
}

bool durable_start_shmqd(struct durable_run *run, const char *name, struct perf_daemon *ret_daemon)
{
    (void)snprintf(run->place.state, sizeof(run->place.state), "%.*s/%.40s",
                   (int)(PERF_PATH_BYTES - 48), run->disk, name);
    (void)snprintf(run->talk->state_dir, sizeof(run->talk->state_dir), "%s", run->place.state);
    return durable_restart_shmqd(run, ret_daemon);
}

void durable_stop_shmqd(struct durable_run *run, struct perf_daemon *daemon)
{
    perf_daemon_stop(daemon);
    perf_place_clear(run->place.state, run->place.bus);
}

static uint64_t budget_ns(const struct durable_talk *talk)
{
    uint64_t written = talk->long_bytes + talk->history_bytes * 4;

    return BUDGET_NS + talk->rounds * TRIALS_MAX * (2 * talk->trial_ns + NS_PER_S) +
           written / WRITES_PER_S * NS_PER_S + 4 * talk->stop_ns;
}

bool durable_measure(struct durable_run *run, int (*body)(void *talk))
{
    const struct timespec look = timespec_from_ns(LOOK_NS);
    struct durable_talk *talk = run->talk;
    uint64_t deadline_ns = clock_monotonic_ns() + budget_ns(talk);
    struct perf_child child;

    if (!perf_child_call(&child, body, talk))
        return durable_set_failure(talk, "no process to measure in");
    while (!perf_child_wait(&child, 0)) {
        if (deadline_passed(deadline_ns) || perf_place_interrupted()) {
            perf_child_end(&child);
            return durable_set_failure(talk, perf_place_interrupted() ? "interrupted"
                                                                      : "it took too long");
        }
        (void)nanosleep(&look, NULL);
    }
    if (WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0)
        return true;
    return WIFSIGNALED(child.status)
               ? durable_set_failure(talk, "the measuring process died of signal %d",
                                     WTERMSIG(child.status))
               : durable_set_failure(talk, "the measuring process failed");
}

static void run_scenario(struct durable_run *run, const struct durable_scenario *scenario)
{
    struct perf_daemon daemon;

    durable_clear(run->talk);
    if (scenario->run) {
        (void)scenario->run(run);
    } else if (durable_start_shmqd(run, scenario->name, &daemon)) {
        (void)durable_measure(run, scenario->measure);
        durable_stop_shmqd(run, &daemon);
    }
    scenario->report(run);
    if (*run->talk->failure && !perf_place_interrupted())
        cli_note(run->plan->cli, "%s: %s", scenario->name, run->talk->failure);
}

/* ---- the run --------------------------------------------------------------------------------- */

static void fill_talk(const struct perf_plan *plan, struct durable_talk *talk)
{
    const struct perf_durable_plan *asked = &plan->durable;

    talk->cpu_count = plan->team.cpu_count;
    memcpy(talk->cpus, plan->cpus, sizeof(talk->cpus));
    talk->rounds = min_u32(plan->budget.rounds, PERF_DURABLE_ROUNDS_MAX);
    if (asked->quick)
        talk->rounds = min_u32(talk->rounds, DURABLE_ROUNDS_LEAST);
    talk->trial_ns = plan->budget.duration_ns ? plan->budget.duration_ns
                     : asked->quick           ? QUICK_TRIAL_NS
                                              : TRIAL_NS;
    talk->stream_bytes =
        max_u64(talk->trial_ns / NS_PER_MS * (STREAM_BYTES_PER_S / 1000), STREAM_LEAST);
    talk->history_bytes = asked->quick ? QUICK_HISTORY : HISTORY_BYTES;
    talk->recovery_messages = asked->quick ? QUICK_MESSAGES : RECOVERY_MESSAGES;
    talk->stop_ns = asked->quick ? QUICK_STOP_NS : STOP_NS;
    talk->ring_bytes = asked->ring_bytes;
}

/* What this process may use, and so those that it starts. */
static int keep_to_cpus(const struct perf_plan *plan)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    for (uint32_t i = 0; i < plan->team.cpu_count; i++)
        CPU_SET((size_t)plan->cpus[i], &set);
    return sched_setaffinity(0, sizeof(set), &set) < 0
               ? cli_fail(CLI_FAILED, "cpus: they cannot be used; see --cpus")
               : CLI_OK;
}

static const char *describe_threads(const struct perf_plan *plan)
{
    static char text[256];
    char list[128] = "";

    for (uint32_t i = 0; i < plan->team.cpu_count; i++) {
        size_t used = strlen(list);

        (void)snprintf(list + used, sizeof(list) - used, "%s%d", i > 0 ? ", " : "", plan->cpus[i]);
    }
    (void)snprintf(
        text, sizeof(text),
        "producer, reader and floor pinned to CPU %d; shmqd, with one thread that writes, "
        "one that syncs and one that prepares files, on any of CPUs %s",
        plan->cpus[0], list);
    return text;
}

/* The folders: a short one for sockets, one on a disk for all that is written. */
static int make_folders(struct durable_run *run)
{
    struct error_buffer why = {.text = ""};

    if (!perf_place_take(&run->place, PERF_PLACE_ANY))
        return cli_fail(CLI_FAILED, "no folder for sockets; set TMPDIR to one that can be written, "
                                    "with a short name");
    if (durable_disk_folder(run->plan->durable.state_dir, run->disk, &why) < 0) {
        perf_place_leave(&run->place);
        return cli_fail(CLI_FAILED, "%s", why.text);
    }
    (void)snprintf(run->talk->floor_dir, sizeof(run->talk->floor_dir), "%s", run->disk);
    (void)snprintf(run->talk->bus, sizeof(run->talk->bus), "%s", run->place.bus);
    (void)snprintf(run->talk->runtime_dir, sizeof(run->talk->runtime_dir), "%s",
                   perf_place_path(&run->place, "run"));
    return CLI_OK;
}

static int run_all(struct durable_run *run, const struct durable_scenario *const *chosen, int count)
{
    const struct perf_plan *plan = run->plan;
    char disk[PERF_PATH_BYTES * 2];
    int rc = make_folders(run);

    if (rc != CLI_OK)
        return rc;
    durable_disk_describe(run->disk, disk, sizeof(disk));
    if (durable_is_memory(run->disk))
        cli_note(plan->cli,
                 "%s is in memory, where syncing is free: name a folder on a disk with "
                 "--state-dir",
                 run->disk);
    for (int i = 0; i < count && !perf_place_interrupted(); i++) {
        cli_note(plan->cli, "%d of %d: %s", i + 1, count, chosen[i]->title);
        run_scenario(run, chosen[i]);
    }
    (void)durable_remove(run->disk);
    if (!perf_place_interrupted()) {
        run->collection.disk = disk;
        run->collection.threads = describe_threads(plan);
        rc = perf_collection_print(&run->collection, plan,
                                   "what it costs to keep messages on disk, beside the disk");
    }
    perf_place_leave(&run->place); /* a signal that was held back ends this process here */
    return rc;
}

int perf_run_durable(struct cli *cli)
{
    static const struct perf_defaults defaults = {
        .sizes = "100", .wait = PERF_HYBRID, .rounds = ROUNDS};
    const struct durable_scenario *chosen[SCENARIO_COUNT];
    struct error_buffer why = {.text = ""};
    struct durable_run run = {.plan = NULL};
    struct perf_plan plan;
    int count;
    int rc = perf_plan_make(cli, &defaults, &plan);

    if (rc != CLI_OK)
        return rc;
    if (cli->bus || cli->runtime_dir)
        return cli_usage(cli,
                         "it kills and starts shmqd, so the bus is always one of its own: leave "
                         "--bus and --runtime-dir out");
    count = durable_choose(plan.durable.only, chosen, SCENARIO_COUNT, &why);
    if (count < 0)
        return cli_usage(cli, "%s", why.text);
    if (!perf_find_program("shmqd", run.program))
        return cli_fail(CLI_FAILED,
                        "shmqd: it is neither beside this program nor on PATH; install it");
    rc = keep_to_cpus(&plan);
    if (rc != CLI_OK)
        return rc;
    run.plan = &plan;
    run.talk =
        mmap(NULL, sizeof(*run.talk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run.talk == MAP_FAILED)
        return cli_fail(CLI_FAILED, "no memory to share with those that measure");
    perf_clock_init();
    fill_talk(&plan, run.talk);
    rc = run_all(&run, chosen, count);
    perf_collection_free(&run.collection);
    (void)munmap(run.talk, sizeof(*run.talk));
    return rc;
}
