/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trial.c: the driver's hands: orders to the peers, the canary, one trial.
 *
 * Called by the driver's process alone (driver.c). Waits for peers by spinning, never beyond a
 * deadline; whatever goes wrong raises the abort flag, which ends everybody's loops.
 */
#include <errno.h>
#include <sched.h>

#include "tools/perf/team_internal.h"

#define CANARY_CHUNKS 8u
#define CANARY_TRIPS  25u
#define CANARY_WARM   16u
#define CANARY_NS     (UINT64_C(5) * NS_PER_S) /* others may have both cores for a while */

/* ---- orders ---------------------------------------------------------------------------------- */

static void be_late_after(struct perf_driver *d, uint64_t time_ns)
{
    atomic_store_explicit(&d->control->late_ns, clock_monotonic_ns() + time_ns,
                          memory_order_relaxed);
}

static void give_order(struct perf_driver *d, uint32_t member, enum perf_op op, uint32_t contender,
                       uint64_t count, uint64_t deadline_ns)
{
    struct perf_order *order = &d->control->orders[member];

    order->op = op;
    order->contender = contender;
    order->count = count;
    order->deadline_ns = deadline_ns;
    /* Sequentially consistent with the member's `sleeps`: one of the two sees the other. */
    atomic_store(&order->serial, d->serial);
    if (atomic_load(&order->sleeps))
        perf_futex_wake(&order->serial);
}

/* Until the word is the present serial. False: the session has failed. */
static bool await(struct perf_driver *d, const _Atomic uint32_t *word, uint64_t deadline_ns)
{
    uint64_t spins = 0;

    while (atomic_load_explicit(word, memory_order_acquire) != d->serial) {
        cpu_relax();
        if (++spins % 1024 != 0)
            continue;
        if (atomic_load_explicit(&d->control->abort, memory_order_relaxed))
            return false;
        if (clock_monotonic_ns() > deadline_ns) {
            perf_control_fail(d->control, SHMQ_ETIMEOUT,
                              "a process of the measurement did not answer in time; the machine "
                              "may be too busy to measure on");
            return false;
        }
        if (d->session->crowded)
            (void)sched_yield();
    }
    return true;
}

bool perf_await_all(struct perf_driver *d, uint32_t members, uint64_t deadline_ns)
{
    bool good = true;

    for (uint32_t m = 1; good && m < members; m++)
        good = await(d, &d->control->answers[m].done, deadline_ns);
    return good && !atomic_load_explicit(&d->control->abort, memory_order_acquire);
}

/* To all peers, the driver itself being done with its part. */
void perf_order_all(struct perf_driver *d, enum perf_op op, uint32_t contender)
{
    d->serial++;
    be_late_after(d, 2 * PERF_STEP_NS);
    for (uint32_t m = 1; m < d->session->member_count; m++)
        give_order(d, m, op, contender, 0, clock_monotonic_ns() + PERF_STEP_NS);
}

/* ---- the canary ------------------------------------------------------------------------------ */

static bool trip_canary(struct perf_control *control, uint32_t *next, uint32_t trips,
                        uint64_t deadline_ns)
{
    uint64_t spins = 0;

    for (uint32_t i = 0; i < trips; i++, *next += 2) {
        atomic_store_explicit(&control->canary, *next, memory_order_release);
        while (atomic_load_explicit(&control->canary, memory_order_acquire) != *next + 1) {
            cpu_relax(); /* as in ideal.c: else the line takes longer */
            if (++spins % 4096 == 0 && clock_monotonic_ns() > deadline_ns)
                return false;
        }
    }
    return true;
}

/* One way, ns: the median of some short runs, so that an interrupt in one of them does not matter. */
static bool look_at_canary(struct perf_driver *d, double *ret_one_way_ns)
{
    struct perf_control *control = d->control;
    uint64_t deadline_ns = clock_monotonic_ns() + CANARY_NS;
    uint32_t chunk_ticks[CANARY_CHUNKS];
    uint32_t next = 1;
    bool good;

    d->serial++;
    atomic_store_explicit(&control->canary, 0, memory_order_relaxed);
    give_order(d, 1, PERF_OP_CANARY, 0, CANARY_WARM + CANARY_CHUNKS * CANARY_TRIPS, deadline_ns);
    good = trip_canary(control, &next, CANARY_WARM, deadline_ns);
    for (uint32_t i = 0; good && i < CANARY_CHUNKS; i++) {
        uint64_t begin = perf_ticks();

        good = trip_canary(control, &next, CANARY_TRIPS, deadline_ns);
        chunk_ticks[i] = (uint32_t)min_u64(perf_ticks() - begin, UINT32_MAX);
    }
    if (!good || !await(d, &control->answers[1].done, deadline_ns + NS_PER_S)) {
        perf_control_fail(control, SHMQ_ETIMEOUT,
                          "the two cores were not both there for five seconds; the machine is too "
                          "busy to measure on");
        return false;
    }
    *ret_one_way_ns = perf_ns_of_ticks(perf_select(chunk_ticks, CANARY_CHUNKS, CANARY_CHUNKS / 2)) /
                      (2.0 * CANARY_TRIPS);
    return true;
}

bool perf_distance_look(struct perf_driver *d, double *ret_one_way_ns, enum perf_class *ret_class)
{
    *ret_one_way_ns = 0;
    *ret_class = PERF_SAME_CPU;
    if (d->session->one_cpu)
        return true;
    be_late_after(d, CANARY_NS + PERF_STEP_NS);
    if (!look_at_canary(d, ret_one_way_ns))
        return false;
    *ret_class = perf_class_of(*ret_one_way_ns, d->session->options.thresholds);
    return true;
}

/* ---- one trial ------------------------------------------------------------------------------- */

static void sleep_ns(uint64_t ns)
{
    struct timespec pause = timespec_from_ns(ns);

    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, &pause) == EINTR)
        ;
}

/* What each member sends, takes from each of its groups, or answers. */
static uint64_t share_of(const struct perf_setup *setup, enum perf_role role, uint64_t count)
{
    if (setup->kind == PERF_IDLE)
        return 1;
    if (role == PERF_PRODUCE)
        return count / setup->producers;
    return role == PERF_CONSUME ? count - count % setup->producers : count;
}

static bool order_trial(struct perf_driver *d, uint32_t contender, uint64_t count,
                        uint64_t deadline_ns)
{
    const struct perf_setup *setup = &d->session->lanes[contender].setup;
    uint32_t members = perf_members_needed(setup);
    uint32_t index;

    d->serial++;
    atomic_store_explicit(&d->control->stop, 0, memory_order_relaxed);
    for (uint32_t m = 1; m < members; m++)
        give_order(d, m, PERF_OP_RUN, contender,
                   share_of(setup, perf_member_role(setup, m, &index), count), deadline_ns);
    for (uint32_t m = 1; m < members; m++) {
        if (!await(d, &d->control->answers[m].ready, deadline_ns))
            return false;
    }
    return true;
}

static void gather(struct perf_driver *d, const struct perf_lane *lane,
                   const struct perf_trial *own, uint64_t own_preempted,
                   struct perf_outcome *outcome)
{
    const struct perf_setup *setup = &lane->setup;
    uint32_t members = perf_members_needed(setup);

    outcome->messages = own->done;
    outcome->preempted = own_preempted > 0;
    outcome->slept = 0;
    for (uint32_t m = 1; m < members; m++) {
        const struct perf_answer *answer = &d->control->answers[m];

        outcome->preempted |= answer->preempted > 0;
        if (setup->kind == PERF_FREE)
            outcome->messages += answer->messages;
        if (m == 1)
            outcome->slept = answer->slept;
    }
    if (setup->kind == PERF_THROUGHPUT)
        outcome->messages = own->count * setup->producers;
    /* Who sleeps, and who shares a core, comes and goes by nature. And who asks for a rate wants to know
     * what happens to those that come then, also when something else has the core. */
    if (setup->wait == PERF_BLOCK || setup->rate > 0 || d->session->crowded ||
        lane->contender.way->has_threads)
        outcome->preempted = false;
}

bool perf_trial_run(struct perf_driver *d, uint32_t contender, uint64_t count, uint64_t rate,
                    struct perf_outcome *ret_outcome)
{
    struct perf_lane *lane = &d->session->lanes[contender];
    struct perf_seat *seat = &d->self.seats[contender];
    const struct perf_setup *setup = &lane->setup;
    uint64_t time_ns = PERF_STEP_NS + (setup->kind == PERF_IDLE ? count * NS_PER_MS : 0);
    struct error_buffer why = {.text = ""};
    struct perf_trial trial = {
        .count = share_of(setup, seat->role, count),
        .samples_ticks = d->samples_ticks,
        .deadline_ns = clock_monotonic_ns() + time_ns,
        .abort = &d->control->abort,
        .stop = &d->control->stop,
        .crowded = d->session->crowded,
        .why = &why,
    };
    struct perf_usage before, after;
    uint64_t begin, end;

    if (rate > 0)
        trial.interval_ticks = (uint64_t)(1e9 / (double)rate / perf_clock.ns_per_tick);
    be_late_after(d, time_ns + PERF_STEP_NS);
    if (!order_trial(d, contender, count, trial.deadline_ns))
        return false;
    if (setup->kind == PERF_IDLE)
        sleep_ns(count * NS_PER_MS);
    before = perf_usage_now();
    atomic_store_explicit(&d->control->go, d->serial, memory_order_release);
    begin = perf_ticks_fenced();
    lane->contender.way->run(seat, &trial);
    atomic_store_explicit(&d->control->stop, 1, memory_order_relaxed);
    if (trial.failed) {
        (void)error_prefix(&why, SHMQ_ESYS, "%s", lane->contender.name);
        perf_control_fail(d->control, SHMQ_ESYS, why.text);
        return false;
    }
    if (!perf_await_all(d, perf_members_needed(setup), trial.deadline_ns))
        return false;
    end = perf_ticks_fenced();
    after = perf_usage_now();
    ret_outcome->elapsed_ns = perf_ns_of_ticks(end - begin);
    ret_outcome->samples = setup->kind == PERF_LATENCY ? (uint32_t)trial.count : 0;
    gather(d, lane, &trial, after.preempted - before.preempted, ret_outcome);
    return true;
}
