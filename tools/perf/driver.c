/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.c: the process that measures: member 0 of its session. It gives orders to the peers,
 * takes part in each trial, times it, looks at the canaries around it and files what it found.
 *
 * One thread. Waits for its owner on a socket, for peers by spinning with a deadline. If it dies, the
 * owner reads the end of the socket and ends the session; what was filed by then is lost with it.
 */
#include <math.h>
#include <sys/socket.h>

#include "tools/outbuf.h"
#include "tools/perf/team_internal.h"

#define MESSAGES_MOST  (UINT64_C(1) << 40)
#define COUNT_FIRST    16u
#define PACED_TRIPS    20.0 /* in a trial at a rate, if they come within this: */
#define PACED_MOST_NS  2e9
#define CALIBRATE_MOST 40u                      /* trials */
#define WARM_NS        (UINT64_C(2) * NS_PER_S) /* no longer, for rings that are large */
#define ATTEMPTS       3u                       /* a round, at a trial that was dropped */

/* ---- how long -------------------------------------------------------------------------------- */

static uint64_t count_most(const struct perf_setup *setup)
{
    return setup->kind == PERF_LATENCY ? PERF_ROUND_TRIPS_MOST : MESSAGES_MOST;
}

/* At a low rate few would come in the usual time. */
static double target_ns(const struct perf_driver *d, const struct perf_setup *setup)
{
    double paced = setup->rate > 0 ? PACED_TRIPS * 1e9 / (double)setup->rate : 0;

    return fmax(d->session->options.trial_ns, fmin(paced, PACED_MOST_NS));
}

static void adapt(struct perf_driver *d, uint32_t contender, enum perf_class distance,
                  uint64_t count, double elapsed_ns)
{
    const struct perf_setup *setup = &d->session->lanes[contender].setup;
    double target = target_ns(d, setup);

    if (setup->kind == PERF_IDLE || (elapsed_ns > target * 0.7 && elapsed_ns < target * 1.4))
        return;
    d->counts[contender][distance] =
        perf_next_count(count, elapsed_ns, target, setup->producers, count_most(setup));
}

/* Finds the number of messages, and fills what is to be measured: each byte of a ring has been written
 * and read by both sides before the first trial that counts. So it goes at full speed, at a rate as well. */
static bool calibrate(struct perf_driver *d, uint32_t contender)
{
    const struct perf_setup *setup = &d->session->lanes[contender].setup;
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t count = COUNT_FIRST * setup->producers;
    uint64_t bytes = 0;

    if (setup->kind == PERF_IDLE) {
        for (unsigned c = 0; c < PERF_CLASSES; c++)
            d->counts[contender][c] = 2000; /* ms */
        return true;
    }
    for (uint32_t i = 0; i < CALIBRATE_MOST || bytes < 2 * setup->ring_bytes; i++) {
        struct perf_outcome outcome;
        uint64_t now_ns;

        if (!perf_trial_run(d, contender, count, 0, &outcome))
            return false;
        bytes += outcome.messages * setup->size;
        now_ns = clock_monotonic_ns();
        if ((outcome.elapsed_ns > target_ns(d, setup) * 0.6 || count == count_most(setup)) &&
            (bytes >= 2 * setup->ring_bytes || now_ns - begin_ns > WARM_NS))
            break;
        if (outcome.elapsed_ns < target_ns(d, setup) * 0.6)
            count = perf_next_count(count, outcome.elapsed_ns, target_ns(d, setup),
                                    setup->producers, count_most(setup));
    }
    if (setup->rate > 0)
        count = max_u64((uint64_t)(target_ns(d, setup) * 1e-9 * (double)setup->rate), 1);
    for (unsigned c = 0; c < PERF_CLASSES; c++)
        d->counts[contender][c] = count;
    return true;
}

/* ---- filing ---------------------------------------------------------------------------------- */

static void file_latency(struct perf_driver *d, uint32_t contender, enum perf_class distance,
                         const struct perf_outcome *outcome, struct perf_sample *sample)
{
    struct perf_histogram *histogram = perf_session_histogram_at(d->session, contender, distance);
    uint32_t n = outcome->samples;
    double sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        sum += d->samples_ticks[i];
        histogram->clamped += d->samples_ticks[i] == UINT32_MAX;
        perf_histogram_record(histogram, (uint64_t)(perf_ns_of_ticks(d->samples_ticks[i]) + 0.5));
    }
    sample->figures[PERF_MEAN] = sum / n * perf_clock.ns_per_tick;
    sample->figures[PERF_P99] =
        perf_quantile(d->samples_ticks, n, 0.99, perf_clock.quantum) * perf_clock.ns_per_tick;
    sample->figures[PERF_MAIN] =
        perf_quantile(d->samples_ticks, n, 0.5, perf_clock.quantum) * perf_clock.ns_per_tick;
}

static bool file(struct perf_driver *d, uint32_t contender, enum perf_class distance,
                 const struct perf_outcome *outcome)
{
    struct perf_ledger *ledger = &d->session->book->ledgers[contender];
    const struct perf_setup *setup = &d->session->lanes[contender].setup;
    struct perf_sample sample = {.round = d->round, .distance = distance};
    double seconds = outcome->elapsed_ns * 1e-9;

    if (setup->kind == PERF_LATENCY)
        file_latency(d, contender, distance, outcome, &sample);
    else if (setup->kind == PERF_IDLE) /* less the wake-up that ends it */
        sample.figures[PERF_MAIN] = ((double)outcome->slept - (outcome->slept > 0)) /
                                    ((double)d->counts[contender][distance] * 1e-3);
    else
        sample.figures[PERF_MAIN] = (double)outcome->messages / seconds;
    ledger->messages += outcome->messages;
    return perf_ledger_add(ledger, &sample);
}

/* Who sleeps for seconds has no distance, and is interrupted. */
static bool try_idle(struct perf_driver *d, uint32_t contender, bool *full)
{
    struct perf_outcome outcome;

    if (!perf_trial_run(d, contender, d->counts[contender][PERF_SAME_CPU], 0, &outcome))
        return false;
    *full |= !file(d, contender, PERF_SAME_CPU, &outcome);
    return true;
}

/* A trial between two canaries. False: the session failed. *ret_kept: it was not dropped. */
static bool try_once(struct perf_driver *d, uint32_t contender, bool *full, bool *ret_kept)
{
    struct perf_ledger *ledger = &d->session->book->ledgers[contender];
    enum perf_class before, after;
    struct perf_sample canary = {.round = d->round};
    double before_ns, after_ns;
    struct perf_outcome outcome;
    uint64_t count;

    *ret_kept = false;
    if (!perf_distance_look(d, &before_ns, &before))
        return false;
    count = d->counts[contender][before];
    if (!perf_trial_run(d, contender, count, d->session->lanes[contender].setup.rate, &outcome) ||
        !perf_distance_look(d, &after_ns, &after))
        return false;
    if (before != after) {
        ledger->mixed++;
        return true;
    }
    adapt(d, contender, before, count, outcome.elapsed_ns);
    if (outcome.preempted) {
        ledger->preempted++;
        return true;
    }
    canary.distance = before;
    canary.figures[PERF_MAIN] = (before_ns + after_ns) / 2;
    (void)perf_ledger_add(&d->session->book->canary, &canary); /* full: there are thousands */
    *full |= !file(d, contender, before, &outcome);
    *ret_kept = true;
    return true;
}

static bool try_round(struct perf_driver *d, uint32_t contender, bool *full)
{
    bool kept = false;

    if (d->session->lanes[contender].setup.kind == PERF_IDLE)
        return try_idle(d, contender, full);
    for (uint32_t i = 0; i < ATTEMPTS && !kept; i++) {
        if (!try_once(d, contender, full, &kept))
            return false;
    }
    return true;
}

static bool is_enough(const struct perf_driver *d, const struct perf_budget *budget,
                      uint64_t end_ns)
{
    const struct perf_ledger *ledgers = d->session->book->ledgers;
    uint64_t least = UINT64_MAX;

    if (clock_monotonic_ns() >= end_ns)
        return true;
    if (budget->messages > 0) {
        for (uint32_t i = 0; i < d->session->lane_count; i++)
            least = min_u64(least, ledgers[i].messages);
        return least >= budget->messages;
    }
    return budget->rounds > 0 &&
           perf_ledger_enough(ledgers, d->session->lane_count, budget->rounds);
}

static int measure(struct perf_driver *d, const struct perf_budget *budget)
{
    uint64_t end_ns = clock_monotonic_ns() + budget->duration_ns;
    uint32_t n = d->session->lane_count;
    bool full = false;

    do {
        for (uint32_t i = 0; i < n && !full; i++) {
            if (!try_round(d, (d->round + i) % n, &full))
                return -1;
        }
        d->round++;
    } while (!full && !is_enough(d, budget, end_ns));
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool open_all(struct perf_driver *d)
{
    struct error_buffer why = {.text = ""};

    for (uint32_t i = 0; i < d->session->lane_count; i++) {
        perf_order_all(d, PERF_OP_OPEN, i);
        int rc = perf_member_open(&d->self, i, &why);

        if (rc < 0) {
            perf_control_fail(d->control, rc, why.text);
            return false;
        }
        if (!perf_await_all(d, d->session->member_count, clock_monotonic_ns() + PERF_STEP_NS))
            return false;
    }
    for (uint32_t i = 0; i < d->session->lane_count; i++) {
        if (!calibrate(d, i))
            return false;
    }
    return true;
}

static void close_all(struct perf_driver *d)
{
    perf_order_all(d, PERF_OP_CLOSE, 0);
    perf_member_close(&d->self);
    if (perf_await_all(d, d->session->member_count, clock_monotonic_ns() + PERF_STEP_NS))
        perf_order_all(d, PERF_OP_EXIT, 0);
}

static void answer(int socket, int rc)
{
    struct perf_reply reply = {.rc = rc};

    (void)send(socket, &reply, sizeof(reply), MSG_NOSIGNAL);
}

_Noreturn void perf_driver_serve(struct perf_session *session, int socket)
{
    struct perf_driver d = {.session = session, .control = session->control};
    struct perf_request request;
    int rc = perf_member_init(&d.self, session, 0, session->control);

    d.samples_ticks = tool_alloc(sizeof(uint32_t) * PERF_ROUND_TRIPS_MOST);
    memset(d.samples_ticks, 0, sizeof(uint32_t) * PERF_ROUND_TRIPS_MOST);
    rc = rc == 0 && open_all(&d) ? 0 : -1;
    for (;;) {
        atomic_store_explicit(&d.control->late_ns, UINT64_MAX, memory_order_relaxed);
        answer(socket, rc);
        if (rc < 0 || recv(socket, &request, sizeof(request), 0) != (ssize_t)sizeof(request))
            _exit(1);
        if (request.close)
            break;
        rc = measure(&d, &request.budget);
    }
    close_all(&d);
    answer(socket, 0);
    _exit(0);
}
