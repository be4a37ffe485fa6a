/* SPDX-License-Identifier: Apache-2.0 */
/* From sessions to reports; see plan.h. Owns copies of what it took: sessions may close. */
#include <string.h>

#include "tools/outbuf.h"
#include "tools/perf/clock.h"
#include "tools/perf/plan.h"
#include "tools/perf/transport.h"

static void set_distance(char text[16], enum perf_class distance)
{
    (void)snprintf(text, 16, "%s", perf_class_name(distance));
}

void perf_collect_value(struct perf_collection *collection, const struct perf_result *result)
{
    collection->results = tool_realloc(collection->results, sizeof(*collection->results) *
                                                                (collection->result_count + 1));
    collection->results[collection->result_count++] = *result;
}

static const struct perf_histogram *copy_histogram(const struct perf_histogram *histogram)
{
    struct perf_histogram *copy;

    if (!histogram)
        return NULL;
    copy = perf_histogram_new();
    perf_histogram_add(copy, histogram);
    return copy;
}

void perf_collect_results(struct perf_collection *collection, const struct perf_session *session,
                          uint32_t contender, const char *measure)
{
    const struct perf_contender *c = perf_session_contender(session, contender);

    for (unsigned i = 0; i < PERF_CLASSES; i++) {
        enum perf_class distance = (enum perf_class)i;
        struct perf_result result = {.measure = measure, .size = c->setup.size};

        result.value = perf_session_spread(session, contender, distance, PERF_MAIN);
        if (result.value.count == 0)
            continue;
        result.unit = perf_kind_unit(c->setup.kind);
        result.histogram = copy_histogram(perf_session_histogram(session, contender, distance));
        (void)snprintf(result.transport, sizeof(result.transport), "%s", c->name);
        set_distance(result.distance, distance);
        perf_collect_value(collection, &result);
    }
}

void perf_collect_comparison(struct perf_collection *collection,
                             const struct perf_comparison *comparison)
{
    collection->comparisons =
        tool_realloc(collection->comparisons,
                     sizeof(*collection->comparisons) * (collection->comparison_count + 1));
    collection->comparisons[collection->comparison_count++] = *comparison;
}

/* Between the quartiles: a median that may well be on the other side the next time. */
static bool is_close(const struct perf_comparison *comparison, const struct perf_spread *value)
{
    return comparison->target > value->low && comparison->target < value->high;
}

void perf_collect_verdict(struct perf_comparison *comparison, const struct perf_spread *value,
                          uint32_t least)
{
    enum perf_verdict *verdict = &comparison->verdict;

    if (!comparison->has_target)
        *verdict = PERF_NO_TARGET;
    else if (value->count < least)
        *verdict = PERF_NOT_OBSERVED;
    else if (comparison->target_is_most ? value->median <= comparison->target
                                        : value->median >= comparison->target)
        *verdict = PERF_MET;
    else
        *verdict = PERF_MISSED;
    if ((*verdict == PERF_MET || *verdict == PERF_MISSED) && is_close(comparison, value))
        comparison->note = "the target lies between the quartiles: another run may say otherwise";
}

void perf_collect_ratio_in(struct perf_collection *collection, const struct perf_session *session,
                           uint32_t subject, uint32_t baseline, enum perf_class distance,
                           const char *measure, enum perf_figure figure)
{
    const struct perf_contender *s = perf_session_contender(session, subject);
    const struct perf_contender *b = perf_session_contender(session, baseline);
    struct perf_comparison c = {.size = s->setup.size, .unit = perf_kind_unit(s->setup.kind)};

    c.ratio = perf_session_ratio(session, subject, baseline, distance, figure);
    if (c.ratio.count == 0)
        return;
    c.subject_value = perf_session_spread(session, subject, distance, figure);
    c.baseline_value = perf_session_spread(session, baseline, distance, figure);
    (void)snprintf(c.what, sizeof(c.what), "%s%s", measure,
                   figure == PERF_P99    ? ", p99"
                   : figure == PERF_MEAN ? ", mean"
                                         : "");
    (void)snprintf(c.subject, sizeof(c.subject), "%s", s->name);
    (void)snprintf(c.baseline, sizeof(c.baseline), "%s", b->name);
    set_distance(c.distance, distance);
    if (s->setup.wait == PERF_SPIN && b->setup.wait == PERF_BLOCK)
        c.note = "one spins while it waits, the other sleeps; --wait block compares like with like";
    perf_collect_comparison(collection, &c);
}

void perf_collect_ratio(struct perf_collection *collection, const struct perf_session *session,
                        uint32_t subject, uint32_t baseline, const char *measure,
                        enum perf_figure figure)
{
    for (unsigned i = 0; i < PERF_CLASSES; i++)
        perf_collect_ratio_in(collection, session, subject, baseline, (enum perf_class)i, measure,
                              figure);
}

void perf_collect_tally(struct perf_collection *collection, const struct perf_session *session)
{
    struct perf_tally tally = perf_session_tally(session);

    collection->tally.kept += tally.kept;
    collection->tally.mixed += tally.mixed;
    collection->tally.preempted += tally.preempted;
}

static void fill_machine(const struct perf_plan *plan, bool threads, struct perf_machine *machine)
{
    perf_machine_read(machine);
    perf_clock_describe(machine->clock, sizeof(machine->clock));
    machine->cpus[0] = plan->cpus[0];
    machine->cpus[1] = plan->team.cpu_count > 1 ? plan->cpus[1] : plan->cpus[0];
    if (threads) /* which says what is pinned where */
        machine->cpus[0] = machine->cpus[1] = -1;
}

static char command[256];

void perf_collect_command(int argc, char **argv)
{
    size_t length = (size_t)snprintf(command, sizeof(command), "%s", cli_program->name);

    for (int i = 1; i < argc && length < sizeof(command); i++)
        length += (size_t)snprintf(command + length, sizeof(command) - length, " %s", argv[i]);
    text_make_printable(command);
}

int perf_collection_print(const struct perf_collection *collection, const struct perf_plan *plan,
                          const char *title)
{
    struct perf_report report = {
        .command = command,
        .disk = collection->disk,
        .threads = collection->threads,
        .results = collection->results,
        .result_count = collection->result_count,
        .comparisons = collection->comparisons,
        .comparison_count = collection->comparison_count,
        .trials_kept = collection->tally.kept,
        .trials_mixed = collection->tally.mixed,
        .trials_preempted = collection->tally.preempted,
    };

    fill_machine(plan, collection->threads != NULL, &report.machine);
    (void)snprintf(report.title, sizeof(report.title), "%s", title);
    perf_report_print(&report, plan->format, stdout);
    if (plan->plot && perf_plot_write(&report, plan->plot) < 0)
        return CLI_FAILED;
    if (plan->hgrm && perf_hgrm_write(&report, plan->hgrm) < 0)
        return CLI_FAILED;
    if (collection->result_count + collection->comparison_count == 0)
        return cli_fail(CLI_FAILED,
                        "no trial counted: %u mixed, %u preempted; the machine is too "
                        "busy, give it more --duration",
                        collection->tally.mixed, collection->tally.preempted);
    return CLI_OK;
}

void perf_collection_free(struct perf_collection *collection)
{
    for (uint32_t i = 0; i < collection->result_count; i++)
        perf_histogram_free((struct perf_histogram *)(uintptr_t)collection->results[i].histogram);
    free(collection->results);
    free(collection->comparisons);
    memset(collection, 0, sizeof(*collection));
}

/* Which row this is: it takes some seconds, and there is nothing to see before the end. */
static void show_progress(const struct perf_plan *plan, const struct perf_contender *contender,
                          bool over)
{
    static const char *const kinds[] = {"round trips", "throughput", "producers alone", "idling"};
    char size[PERF_TEXT_BYTES];

    if (plan->cli->quiet || !isatty(STDERR_FILENO))
        return;
    if (over)
        (void)fprintf(stderr, "\r\033[K");
    else
        (void)fprintf(stderr, "\r\033[Kmeasuring: %s %s ...", kinds[contender->setup.kind],
                      perf_text_size(contender->setup.size, size));
}

int perf_measure(const struct perf_plan *plan, const struct perf_contender *contenders,
                 uint32_t count, perf_use_fn *use, void *context)
{
    struct perf_session *session = NULL;
    struct error_buffer why = {.text = ""};
    int rc;

    show_progress(plan, &contenders[0], false);
    rc = perf_session_open(contenders, count, &plan->team, &session, &why);

    if (rc == 0)
        rc = perf_session_run(session, &plan->budget, &why);
    show_progress(plan, &contenders[0], true);
    if (rc == 0) {
        if (perf_session_crowded(session))
            cli_note(plan->cli, "more processes than CPUs: the scheduler is measured, too");
        use(session, context);
    }
    perf_session_close(session);
    return rc == 0 ? CLI_OK : cli_fail(cli_exit_code(rc), "%s", why.text);
}
