/* SPDX-License-Identifier: Apache-2.0 */
/*
 * member.c: a process of a session: pinned, with a seat in each contender, following orders.
 *
 * One thread (transports may start more). If it dies, its parent, the session's owner, gets SIGCHLD
 * and ends the others; if the owner dies, the kernel kills it. Nothing here waits without an end.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "tools/cli.h"
#include "tools/outbuf.h"
#include "tools/perf/team_internal.h"

/* A member without orders keeps its core awake so long: between two trials. */
#define BUSY_NS (UINT64_C(50) * NS_PER_MS)
/* And then looks so often whether it was forgotten. */
#define NAP_NS (UINT64_C(500) * NS_PER_MS)

/* ---- what trials and seats need -------------------------------------------------------------- */

bool perf_trial_fail(struct perf_trial *trial, const char *format, ...)
{
    va_list arguments;
    char text[400];

    if (trial->failed)
        return false;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    trial->failed = true;
    (void)error_set(trial->why, SHMQ_ESYS, "%s", text);
    return false;
}

bool perf_trial_look(struct perf_trial *trial)
{
    if (trial->failed)
        return false;
    /* Relaxed: nothing is read because of it. */
    if (trial->abort && atomic_load_explicit(trial->abort, memory_order_relaxed))
        return perf_trial_fail(trial, "another process of the trial failed");
    if (clock_monotonic_ns() > trial->deadline_ns)
        return perf_trial_fail(trial, "nothing came for too long; messages were lost, or the "
                                      "machine is too busy to measure on");
    if (trial->crowded)
        (void)sched_yield();
    return true;
}

bool perf_fail_order(struct perf_trial *trial, uint64_t word, uint64_t expected)
{
    return perf_trial_fail(trial,
                           "a body arrived wrong: number %llu where %llu was due; the transport "
                           "lost, repeated or damaged a message",
                           (unsigned long long)(word & PERF_SEQUENCE_MASK),
                           (unsigned long long)expected);
}

void *perf_alloc_pages(size_t bytes)
{
    size_t whole = align_up_u64(bytes, 4096);
    void *memory = aligned_alloc(4096, whole);

    if (!memory)
        exit(cli_fail(CLI_FAILED, "no memory: %zu bytes; take smaller bodies or rings", bytes));
    memset(memory, 0, whole);
    return memory;
}

void perf_source_init(struct perf_source *source, const struct perf_setup *setup, uint32_t producer)
{
    uint32_t size = setup->size;
    uint32_t batch = setup->batch;
    uint64_t count = 64;

    while (count > 2 && count * size > 16384)
        count /= 2;
    while (count < 4 * (uint64_t)batch && batch > 1)
        count *= 2;
    source->stride = align_up_u64(size, 64);
    source->mask = count - 1;
    source->ahead = count / 2;
    source->tag = (uint64_t)producer << PERF_TAG_SHIFT;
    source->next = 0;
    source->bodies = perf_alloc_pages(source->stride * count);
    for (uint64_t i = 0; i < source->stride * count; i++)
        source->bodies[i] = (char)(i * 31 + 7);
    for (uint64_t i = 0; i < source->ahead; i++) {
        uint64_t word = source->tag | i;

        memcpy(source->bodies + i * source->stride, &word, sizeof(word));
    }
}

void perf_source_deinit(struct perf_source *source)
{
    free(source->bodies);
    source->bodies = NULL;
}

int perf_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec timeout = timespec_from_ns(timeout_ns);

    return (int)syscall(SYS_futex, word, FUTEX_WAIT, value,
                        timeout_ns == UINT64_MAX ? NULL : &timeout, NULL, 0);
}

void perf_futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

struct perf_usage perf_usage_now(void)
{
    struct rusage thread = {0};
    struct rusage process = {0};

    (void)getrusage(RUSAGE_THREAD, &thread);
    (void)getrusage(RUSAGE_SELF, &process);
    return (struct perf_usage){(uint64_t)thread.ru_nivcsw, (uint64_t)process.ru_nvcsw};
}

void perf_control_fail(struct perf_control *control, int code, const char *text)
{
    /* ORDER is by failure_written; the counter only chooses who writes. */
    if (atomic_fetch_add_explicit(&control->failures, 1, memory_order_relaxed) == 0) {
        (void)snprintf(control->failure.text, sizeof(control->failure.text), "%s", text);
        control->failure_code = code;
        atomic_store_explicit(&control->failure_written, 1, memory_order_release);
    }
    atomic_store_explicit(&control->abort, 1, memory_order_release);
}

/* ---- roles ----------------------------------------------------------------------------------- */

uint32_t perf_members_needed(const struct perf_setup *setup)
{
    switch (setup->kind) {
    case PERF_THROUGHPUT:
        return setup->producers + setup->consumers;
    case PERF_FREE:
        return setup->producers;
    default:
        return 2;
    }
}

/* Member 0 produces, member 1 consumes, then the other producers, then the other consumers. */
enum perf_role perf_member_role(const struct perf_setup *setup, uint32_t member,
                                uint32_t *ret_index)
{
    *ret_index = 0;
    switch (setup->kind) {
    case PERF_LATENCY:
        return member == 0 ? PERF_PING : member == 1 ? PERF_PONG : PERF_ABSENT;
    case PERF_IDLE:
        return member == 0 ? PERF_PRODUCE : member == 1 ? PERF_CONSUME : PERF_ABSENT;
    case PERF_FREE:
        *ret_index = member;
        return member < setup->producers ? PERF_RUN_FREE : PERF_ABSENT;
    case PERF_THROUGHPUT:
        if (member == 0)
            return PERF_PRODUCE;
        if (member == 1)
            return PERF_CONSUME;
        if (member <= setup->producers) {
            *ret_index = member - 1;
            return PERF_PRODUCE;
        }
        *ret_index = member - setup->producers;
        return *ret_index < setup->consumers ? PERF_CONSUME : PERF_ABSENT;
    }
    return PERF_ABSENT;
}

/* ---- life ------------------------------------------------------------------------------------ */

static cpu_set_t allowed; /* before this process was pinned */

static int pin_to(int cpu, struct error_buffer *why)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        return error_set_errno(why, errno, "cpus: CPU %d", cpu);
    return 0;
}

int perf_member_init(struct perf_member *member, struct perf_session *session, uint32_t index,
                     struct perf_control *control)
{
    struct error_buffer why;
    int rc;

    (void)sched_getaffinity(0, sizeof(allowed), &allowed);
    rc = pin_to(session->cpus[index], &why);
    if (rc < 0)
        perf_control_fail(control, rc, why.text);
    member->session = session;
    member->index = index;
    member->seats = tool_alloc(sizeof(*member->seats) * session->lane_count);
    memset(member->seats, 0, sizeof(*member->seats) * session->lane_count);
    /* No timer of its own may make a sleeper's wake-up late by the usual 50 us. */
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
    return rc;
}

/* Mapped before the fork, but each process takes its own page faults: not during trials. */
static void touch_pages(const struct perf_lane *lane)
{
    volatile char *at = lane->shared;
    char byte;

    for (size_t i = 0; i < lane->shared_bytes; i += 4096) {
        byte = at[i];
        at[i] = byte; /* or it would be mapped to be read, and fault once more */
    }
}

int perf_member_open(struct perf_member *member, uint32_t lane_index, struct error_buffer *why)
{
    struct perf_lane *lane = &member->session->lanes[lane_index];
    struct perf_seat *seat = &member->seats[lane_index];
    const struct perf_way *way = lane->contender.way;
    int rc = 0;

    seat->lane = lane;
    seat->role = perf_member_role(&lane->setup, member->index, &seat->index);
    if (seat->role == PERF_ABSENT)
        return 0;
    if (lane->shared)
        touch_pages(lane);
    perf_source_init(&seat->source, &lane->setup, seat->index);
    seat->scratch = perf_alloc_pages((size_t)lane->setup.size + 64);
    if (way->has_threads)
        (void)sched_setaffinity(0, sizeof(allowed), &allowed); /* which they inherit */
    if (way->open)
        rc = way->open(seat, why);
    if (way->has_threads && rc == 0)
        rc = pin_to(member->session->cpus[member->index], why);
    return rc;
}

void perf_member_close(struct perf_member *member)
{
    for (uint32_t i = 0; i < member->session->lane_count; i++) {
        struct perf_seat *seat = &member->seats[i];

        if (!seat->lane || seat->role == PERF_ABSENT)
            continue;
        if (seat->lane->contender.way->close)
            seat->lane->contender.way->close(seat);
        perf_source_deinit(&seat->source);
        free(seat->scratch);
        seat->role = PERF_ABSENT;
    }
}

/* ---- orders ---------------------------------------------------------------------------------- */

static void wait_for_order(struct perf_session *session, uint32_t index, uint32_t seen)
{
    struct perf_order *order = &session->control->orders[index];
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t busy_ns = session->crowded ? 20 * NS_PER_US : BUSY_NS;
    uint32_t spins = 0;

    /* Acquire: what stands beside the serial was written before it. */
    while (atomic_load_explicit(&order->serial, memory_order_acquire) == seen) {
        cpu_relax();
        if (++spins % 1024 != 0 || clock_monotonic_ns() - begin_ns < busy_ns)
            continue;
        /* Sequentially consistent, as the driver's store and look: one of the two sees the other. */
        atomic_store(&order->sleeps, 1);
        if (atomic_load(&order->serial) == seen)
            (void)perf_futex_wait(&order->serial, seen, NAP_NS);
        atomic_store(&order->sleeps, 0);
    }
}

static void serve_canary(struct perf_control *control, const struct perf_order *order)
{
    uint32_t next = 1;
    uint64_t spins = 0;

    for (uint64_t i = 0; i < order->count; i++, next += 2) {
        while (atomic_load_explicit(&control->canary, memory_order_acquire) != next) {
            cpu_relax();
            if (++spins % 4096 == 0 &&
                (atomic_load_explicit(&control->abort, memory_order_relaxed) ||
                 clock_monotonic_ns() > order->deadline_ns))
                return;
        }
        atomic_store_explicit(&control->canary, next + 1, memory_order_release);
    }
}

static void serve_run(struct perf_member *member, const struct perf_order *order, uint32_t serial)
{
    struct perf_control *control = member->session->control;
    struct perf_answer *answer = &control->answers[member->index];
    struct perf_seat *seat = &member->seats[order->contender];
    struct error_buffer why = {.text = ""};
    struct perf_trial trial = {
        .count = order->count,
        .deadline_ns = order->deadline_ns,
        .abort = &control->abort,
        .stop = &control->stop,
        .crowded = member->session->crowded,
        .why = &why,
    };
    struct perf_usage before = perf_usage_now();
    struct perf_usage after;

    atomic_store_explicit(&answer->ready, serial, memory_order_release);
    /* Consumers look at the transport at once; further producers begin with the driver. */
    if (seat->role == PERF_PRODUCE || seat->role == PERF_RUN_FREE) {
        while (atomic_load_explicit(&control->go, memory_order_acquire) != serial) {
            if (!perf_wait_on(&trial))
                break;
        }
    }
    if (!trial.failed)
        seat->lane->contender.way->run(seat, &trial);
    after = perf_usage_now();
    answer->messages = trial.done;
    answer->preempted = after.preempted - before.preempted;
    answer->slept = after.slept - before.slept;
    answer->failed = trial.failed;
    if (trial.failed) {
        char text[512];

        (void)snprintf(text, sizeof(text), "%s: %.400s", seat->lane->contender.name, why.text);
        perf_control_fail(control, SHMQ_ESYS, text);
    }
}

static void serve_open(struct perf_member *member, const struct perf_order *order)
{
    struct error_buffer why = {.text = ""};
    int rc = perf_member_open(member, order->contender, &why);

    member->session->control->answers[member->index].failed = rc < 0;
    if (rc < 0)
        perf_control_fail(member->session->control, rc, why.text);
}

_Noreturn void perf_member_serve(struct perf_session *session, uint32_t index)
{
    struct perf_control *control = session->control;
    struct perf_order *order = &control->orders[index];
    struct perf_answer *answer = &control->answers[index];
    struct perf_member member;
    uint32_t serial = 0;

    (void)perf_member_init(&member, session, index, control);
    for (;;) {
        wait_for_order(session, index, serial);
        serial = atomic_load_explicit(&order->serial, memory_order_acquire);
        if (order->op == PERF_OP_CANARY)
            serve_canary(control, order);
        else if (order->op == PERF_OP_RUN)
            serve_run(&member, order, serial);
        else if (order->op == PERF_OP_OPEN)
            serve_open(&member, order);
        else if (order->op == PERF_OP_CLOSE)
            perf_member_close(&member);
        /* Release: the answer's fields come first. */
        atomic_store_explicit(&answer->done, serial, memory_order_release);
        if (order->op == PERF_OP_EXIT)
            _exit(0);
    }
}
