/* SPDX-License-Identifier: Apache-2.0 */
/* Reports of made-up figures; see perf.h. */
#include "test/support/perf.h"

#include <string.h>

#include "test/support/test.h"

void perf_made_init(struct perf_made *made, const char *title)
{
    *made = (struct perf_made){
        .report =
            {
                .machine =
                    {
                        .cpu = "Test CPU, family 1 model 2",
                        .hypervisor = "KVM",
                        .kernel = "Linux 6.1 x86_64",
                        .clock = "TSC, 2.000 GHz",
                        .caches = "L1d 48 KiB, L2 1 MiB",
                        .huge_pages = "never",
                        .compiler = "gcc 12.2.0",
                        .date = "2026-01-31T12:00:00Z",
                        .cpu_count = 4,
                        .cpus = {2, 3},
                    },
                .command = "shmq-perf made --up, with \"quotes\"",
                .trials_kept = 90,
                .trials_mixed = 8,
                .trials_preempted = 2,
            },
    };
    made->report.results = made->results;
    made->report.comparisons = made->comparisons;
    snprintf(made->report.title, sizeof(made->report.title), "%s", title);
}

void perf_made_free(struct perf_made *made)
{
    for (uint32_t i = 0; i < made->report.result_count; i++)
        perf_histogram_free((struct perf_histogram *)(uintptr_t)made->results[i].histogram);
    made->report.result_count = 0;
}

struct perf_spread perf_made_spread(double median)
{
    return (struct perf_spread){.median = median,
                                .low = median * 0.98,
                                .high = median * 1.02,
                                .min = median * 0.9,
                                .max = median * 1.1,
                                .count = 9};
}

struct perf_result *perf_made_result(struct perf_made *made, const char *measure,
                                     const char *transport, uint32_t size, enum perf_unit unit,
                                     double median)
{
    struct perf_result *result = &made->results[made->report.result_count];

    REQUIRE(made->report.result_count < PERF_MADE_MAX);
    made->report.result_count++;
    *result =
        (struct perf_result){.measure = measure, .distance = "near", .size = size, .unit = unit};
    snprintf(result->transport, sizeof(result->transport), "%s", transport);
    if (median > 0)
        result->value = perf_made_spread(median);
    return result;
}

struct perf_result *perf_made_latency(struct perf_made *made, const char *transport, uint32_t size,
                                      uint64_t from_ns, uint64_t to_ns)
{
    struct perf_result *result =
        perf_made_result(made, "latency", transport, size, PERF_NS, (double)(from_ns + to_ns) / 2);
    struct perf_histogram *histogram = perf_histogram_new();

    for (uint64_t i = 0; i < 1000; i++)
        perf_histogram_record(histogram, from_ns + (to_ns - from_ns) * i / 999);
    result->histogram = histogram;
    return result;
}

struct perf_comparison *perf_made_comparison(struct perf_made *made, const char *what,
                                             const char *baseline, double subject_value,
                                             double baseline_value, double target,
                                             enum perf_verdict verdict)
{
    struct perf_comparison *comparison = &made->comparisons[made->report.comparison_count];

    REQUIRE(made->report.comparison_count < PERF_MADE_MAX);
    made->report.comparison_count++;
    *comparison = (struct perf_comparison){
        .unit = *baseline ? PERF_MESSAGES_PER_S : PERF_COUNT,
        .has_target = target > 0,
        .target_is_most = !*baseline,
        .target = target,
        .verdict = verdict,
    };
    snprintf(comparison->what, sizeof(comparison->what), "%s", what);
    snprintf(comparison->subject, sizeof(comparison->subject), "shmq");
    snprintf(comparison->baseline, sizeof(comparison->baseline), "%s", baseline);
    if (verdict == PERF_NOT_OBSERVED)
        return comparison;
    comparison->subject_value = perf_made_spread(subject_value);
    if (*baseline) {
        comparison->baseline_value = perf_made_spread(baseline_value);
        comparison->ratio = perf_made_spread(subject_value / baseline_value);
    }
    return comparison;
}

char *perf_made_print(const struct perf_made *made, enum perf_format format)
{
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);

    REQUIRE(file != NULL);
    perf_report_print(&made->report, format, file);
    fclose(file);
    CHECK_EQ(strlen(text), length);
    return text;
}
