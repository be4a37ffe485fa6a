/* SPDX-License-Identifier: Apache-2.0 */
/* The clock of trials, chosen and calibrated; see clock.h. */
#include "tools/perf/clock.h"

#include <stdio.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define CALIBRATION_NS (UINT64_C(20) * NS_PER_MS)

struct perf_clock perf_clock = {.ns_per_tick = 1.0, .quantum = 1.0, .counter = false};

#if defined(__x86_64__)
/* CPUID's word that it counts at one rate whatever the core does. Hypervisors pass it on only where
 * they keep that promise over migrations as well. */
static bool has_counter(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & (1u << 8));
}
#elif defined(__aarch64__)
static bool has_counter(void)
{
    return true;
}
#else
static bool has_counter(void)
{
    return false;
}
#endif

#if defined(__x86_64__) || defined(__aarch64__)
struct moment {
    uint64_t ticks, ns;
};

/* Of several readings the one whose two clocks were read closest together: none in between was
 * interrupted. */
static struct moment read_both(void)
{
    struct moment best = {0, 0};
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 32; i++) {
        uint64_t before = perf_ticks_fenced();
        uint64_t ns = clock_monotonic_ns();
        uint64_t after = perf_ticks_fenced();

        if (after - before < least) {
            least = after - before;
            best = (struct moment){before + (after - before) / 2, ns};
        }
    }
    return best;
}

static int compare_ticks(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Some counters run at their nominal rate, yet in steps of many ticks. The step is what most pairs of
 * readings, taken as fast as can be, differ by, when they differ. */
static void find_quantum(void)
{
    uint64_t steps[1024];
    size_t count = 0;
    uint64_t before = perf_ticks();

    for (int i = 0; i < 1024; i++) {
        uint64_t now = perf_ticks();

        if (now != before)
            steps[count++] = now - before;
        before = now;
    }
    if (count == 0)
        return;
    qsort(steps, count, sizeof(steps[0]), compare_ticks);
    count /= 4; /* readings that were held up make long steps, none makes a short one */
    perf_clock.quantum = (double)steps[count];
}

static void calibrate(void)
{
    struct timespec pause = timespec_from_ns(CALIBRATION_NS);
    struct moment begin, end;

    perf_clock.counter = true;
    begin = read_both();
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    end = read_both();
    if (end.ticks <= begin.ticks || end.ns <= begin.ns) {
        perf_clock.counter = false;
        return;
    }
    perf_clock.ns_per_tick = (double)(end.ns - begin.ns) / (double)(end.ticks - begin.ticks);
    find_quantum();
}
#else
static void calibrate(void)
{
}
#endif

void perf_clock_init(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    if (has_counter())
        calibrate();
}

void perf_clock_describe(char *ret_text, size_t text_bytes)
{
    perf_clock_init();
    if (!perf_clock.counter) {
        (void)snprintf(ret_text, text_bytes, "CLOCK_MONOTONIC");
        return;
    }
#if defined(__x86_64__)
    (void)snprintf(ret_text, text_bytes, "TSC, %.3f GHz, invariant, steps of %.0f ns",
                   1.0 / perf_clock.ns_per_tick, perf_clock.quantum * perf_clock.ns_per_tick);
#else
    (void)snprintf(ret_text, text_bytes, "virtual counter, %.1f MHz, steps of %.0f ns",
                   1000.0 / perf_clock.ns_per_tick, perf_clock.quantum * perf_clock.ns_per_tick);
#endif
}
