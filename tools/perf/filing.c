/* SPDX-License-Identifier: Apache-2.0 */
/* Ledgers, classes, pairs; see filing.h. */
#include "tools/perf/filing.h"

#include "tools/outbuf.h"

const char *perf_class_name(enum perf_class distance)
{
    static const char *const names[PERF_CLASSES] = {"near", "far", "farther", "same CPU"};

    return distance < PERF_CLASSES ? names[distance] : "";
}

enum perf_class perf_class_of(double one_way_ns, struct perf_thresholds thresholds)
{
    if (one_way_ns < thresholds.near_below_ns)
        return PERF_NEAR;
    return one_way_ns <= thresholds.farther_above_ns ? PERF_FAR : PERF_FARTHER;
}

bool perf_ledger_add(struct perf_ledger *ledger, const struct perf_sample *sample)
{
    if (ledger->count >= PERF_SAMPLES_MAX)
        return false;
    ledger->samples[ledger->count++] = *sample;
    ledger->kept++;
    return true;
}

static bool is_of(const struct perf_sample *sample, enum perf_class distance)
{
    return distance == PERF_ANY_CLASS || sample->distance == distance;
}

uint32_t perf_ledger_count(const struct perf_ledger *ledger, enum perf_class distance)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < ledger->count; i++)
        count += is_of(&ledger->samples[i], distance);
    return count;
}

struct perf_spread perf_ledger_spread(const struct perf_ledger *ledger, enum perf_class distance,
                                      enum perf_figure figure)
{
    double *values = tool_alloc(sizeof(double) * (ledger->count + 1));
    struct perf_spread spread;
    uint32_t count = 0;

    for (uint32_t i = 0; i < ledger->count; i++) {
        if (is_of(&ledger->samples[i], distance))
            values[count++] = ledger->samples[i].figures[figure];
    }
    spread = perf_spread_of(values, count);
    free(values);
    return spread;
}

struct perf_spread perf_ledger_ratio(const struct perf_ledger *subject,
                                     const struct perf_ledger *baseline, enum perf_class distance,
                                     enum perf_figure figure)
{
    double *ratios = tool_alloc(sizeof(double) * (subject->count + 1));
    struct perf_spread spread;
    uint32_t count = 0;
    uint32_t b = 0;

    /* Both are in order of rounds, and a contender has one trial a round. */
    for (uint32_t s = 0; s < subject->count; s++) {
        const struct perf_sample *mine = &subject->samples[s];

        while (b < baseline->count && baseline->samples[b].round < mine->round)
            b++;
        if (b == baseline->count)
            break;
        if (baseline->samples[b].round == mine->round &&
            baseline->samples[b].distance == mine->distance && is_of(mine, distance) &&
            baseline->samples[b].figures[figure] > 0)
            ratios[count++] = mine->figures[figure] / baseline->samples[b].figures[figure];
    }
    spread = perf_spread_of(ratios, count);
    free(ratios);
    return spread;
}

bool perf_ledger_enough(const struct perf_ledger *ledgers, uint32_t count, uint32_t rounds)
{
    bool any = false;

    for (unsigned distance = 0; distance < PERF_CLASSES; distance++) {
        uint32_t least = UINT32_MAX;
        uint32_t most = 0;

        for (uint32_t i = 0; i < count; i++) {
            uint32_t n = perf_ledger_count(&ledgers[i], (enum perf_class)distance);

            least = n < least ? n : least;
            most = n > most ? n : most;
        }
        if (most > 0 && least < rounds)
            return false;
        any |= most > 0;
    }
    return any;
}

uint64_t perf_next_count(uint64_t count, double elapsed_ns, double target_ns, uint64_t least,
                         uint64_t most)
{
    double factor = elapsed_ns > 0 ? target_ns / elapsed_ns : 8.0;
    double wanted = (double)count * (factor < 8.0 ? factor : 8.0);

    if (wanted >= (double)most)
        return most;
    return max_u64((uint64_t)wanted, least);
}

uint32_t perf_select(uint32_t *values, uint32_t count, uint32_t rank)
{
    uint32_t low = 0;
    uint32_t high = count - 1;

    while (low < high) {
        uint32_t pivot = values[low + (high - low) / 2];
        uint32_t i = low;
        uint32_t j = high;

        for (;;) { /* Hoare: equal values, of which there are many, are spread over both sides */
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i >= j)
                break;
            uint32_t swapped = values[i];

            values[i++] = values[j];
            values[j--] = swapped;
        }
        if (rank <= j)
            high = j;
        else
            low = j + 1;
    }
    return values[low];
}

double perf_quantile(uint32_t *values, uint32_t count, double fraction, double quantum)
{
    uint32_t rank = (uint32_t)((double)count * fraction);
    uint32_t below = 0;
    uint32_t within = 0;
    double low;

    if (rank >= count)
        rank = count - 1;
    low = (double)perf_select(values, count, rank) - quantum / 2;
    for (uint32_t i = 0; i < count; i++) {
        below += values[i] < low;
        within += values[i] >= low && values[i] < low + quantum;
    }
    return low + quantum * ((double)(rank - below) + 0.5) / (double)within;
}
