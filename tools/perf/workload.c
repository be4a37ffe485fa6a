/* SPDX-License-Identifier: Apache-2.0 */
/* The operations whose instructions are counted; see workload.h. */
#include "tools/perf/workload.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <ucontext.h>

#include "libshmq/base.h"
#include "libshmq/shmq.h"

#define BODY_BYTES  32
#define BATCH       64u
#define BATCH_SHORT 32u
#define RING_BYTES  (1u << 20)
#define WARM_ROUNDS (2 * RING_BYTES / 64 / BATCH) /* two laps: a record of 32 bytes takes 64 */
#define TIMEOUT_MS  1000

/* All that is counted has this shape; a function that takes less does not look at the rest. */
typedef int counted_fn(void *handle, void *messages, uint32_t count, int timeout_ms);

/* Instructions of one call. */
struct trapped {
    uint64_t all, clock;
};

struct workload {
    bool stepped;
    uint32_t messages;        /* of each operation */
    struct perf_steps *steps; /* stepped: [PERF_OPERATIONS] */
    shmq_connection *connection;
    shmq_channel *channel;
    shmq_producer *producer;
    shmq_consumer *consumer;
    struct shmq_message outgoing[BATCH], incoming[BATCH];
    unsigned char body[BODY_BYTES];
    struct trapped calls[PERF_WORKLOAD_STEPPED];
    uint32_t call_count;
};

/* A function of its own, or callgrind would not see it. */
__attribute__((noinline)) void perf_workload_mark(void)
{
    __asm__ __volatile__("" ::: "memory");
}

/* ---- one call, stepped ----------------------------------------------------------------------- */

#if defined(__x86_64__)

#define TRAP_FLAG  0x100
#define VDSO_BYTES 0x4000u /* at most: nothing of this program lies right behind it */

/*
 * int perf_step_call(handle, messages, count, timeout_ms, fn): calls fn with the trap flag set. The processor
 * traps after each instruction that follows popfq: after the call itself, which is not fn's, after each of
 * fn's, and lastly after its ret, with the address of perf_step_end, where the handler ends it.
 */
__asm__(".text\n"
        ".globl perf_step_call, perf_step_end, perf_step_nothing\n"
        ".hidden perf_step_call, perf_step_end, perf_step_nothing\n"
        ".type perf_step_call, @function\n"
        "perf_step_call:\n"
        "    pushq %rbx\n" /* aligns the stack for the call */
        "    pushfq\n"
        "    orq $0x100, (%rsp)\n"
        "    popfq\n"
        "    call *%r8\n"
        "perf_step_end:\n"
        "    popq %rbx\n"
        "    ret\n"
        ".size perf_step_call, . - perf_step_call\n"
        ".type perf_step_nothing, @function\n"
        "perf_step_nothing:\n"
        "    ret\n"
        ".size perf_step_nothing, . - perf_step_nothing\n");

int perf_step_call(void *handle, void *messages, uint32_t count, int timeout_ms, counted_fn *fn)
    __attribute__((visibility("hidden")));
int perf_step_nothing(void *handle, void *messages, uint32_t count, int timeout_ms)
    __attribute__((visibility("hidden")));
extern const char perf_step_end[] __attribute__((visibility("hidden")));

static volatile struct trapped traps;
static uintptr_t vdso; /* 0: none */

static void on_trap(int number UNUSED, siginfo_t *info UNUSED, void *context)
{
    ucontext_t *interrupted = context;
    uintptr_t next = (uintptr_t)interrupted->uc_mcontext.gregs[REG_RIP];

    traps.all++;
    traps.clock += vdso && next - vdso < VDSO_BYTES;
    if (next == (uintptr_t)perf_step_end)
        interrupted->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

static int call_stepped(counted_fn *fn, void *handle, void *messages, uint32_t count,
                        struct trapped *ret_trapped)
{
    int result;

    traps.all = traps.clock = 0;
    result = perf_step_call(handle, messages, count, 0, fn);
    ret_trapped->all = traps.all > 0 ? traps.all - 1 : 0; /* without the call */
    ret_trapped->clock = traps.clock;
    return result;
}

static bool can_step(void)
{
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    struct trapped trapped;

    if (sigaction(SIGTRAP, &action, NULL) != 0)
        return false;
    vdso = getauxval(AT_SYSINFO_EHDR);
    (void)call_stepped(perf_step_nothing, NULL, NULL, 0, &trapped);
    return trapped.all == 1;
}

#else

static int call_stepped(counted_fn *fn, void *handle, void *messages, uint32_t count,
                        struct trapped *ret_trapped)
{
    ret_trapped->all = ret_trapped->clock = 0;
    return fn(handle, messages, count, 0);
}

static bool can_step(void)
{
    return false;
}

#endif

/* ---- operations ------------------------------------------------------------------------------ */

/* For call_stepped(), which passes four arguments in registers to functions that take two to four. */
#define COUNTED(function) ((counted_fn *)(void (*)(void))(function))

static bool fail(const char *what)
{
    (void)fprintf(stderr, "shmq-perf: instructions: %s: %s\n", what, shmq_errmsg(NULL));
    return false;
}

/* Messages that it moved, or an error. */
static int call_once(struct workload *w, enum perf_operation operation, struct trapped *ret_trapped)
{
    uint32_t most = operation == PERF_POLL_ONE ? 1 : BATCH;
    int rc;

    switch (operation) {
    case PERF_BATCH:
        return w->stepped ? call_stepped(COUNTED(shmq_publish_batch), w->producer, w->outgoing,
                                         BATCH_SHORT, ret_trapped)
                          : shmq_publish_batch(w->producer, w->outgoing, BATCH_SHORT);
    case PERF_POLL:
    case PERF_POLL_ONE:
        return w->stepped
                   ? call_stepped(COUNTED(shmq_poll), w->consumer, w->incoming, most, ret_trapped)
                   : shmq_poll(w->consumer, w->incoming, most, 0);
    case PERF_PUBLISH_SINGLE:
    case PERF_PUBLISH_MULTI:
    default:
        rc = w->stepped
                 ? call_stepped(COUNTED(shmq_publish), w->producer, w->outgoing, 1, ret_trapped)
                 : shmq_publish(w->producer, w->outgoing);
        return rc < 0 ? rc : 1;
    }
}

static int compare_calls(const void *a, const void *b)
{
    const struct trapped *left = a, *right = b;

    return (left->all > right->all) - (left->all < right->all);
}

static bool run_operation(struct workload *w, enum perf_operation operation)
{
    uint32_t messages = w->messages, moved = 0, per_call = 1;
    const struct trapped *median;

    /* Enough calls for a median: stepping takes so long that a tick of the clock often falls into its reading,
     * which begins again then. What is not polled later is of no account. */
    if (w->stepped && operation == PERF_BATCH)
        messages *= 4;
    w->call_count = 0;
    while (moved < messages) {
        struct trapped trapped;
        int rc = call_once(w, operation, &trapped);

        if (rc <= 0)
            return fail("a call");
        per_call = (uint32_t)rc;
        moved += per_call;
        if (w->stepped)
            w->calls[w->call_count++] = trapped;
    }
    perf_workload_mark();
    if (!w->stepped)
        return true;
    qsort(w->calls, w->call_count, sizeof(w->calls[0]), compare_calls);
    median = &w->calls[w->call_count / 2];
    w->steps[operation].all = (double)median->all / per_call;
    w->steps[operation].clock = (double)median->clock / per_call;
    return true;
}

/* ---- the bus --------------------------------------------------------------------------------- */

static bool drain(struct workload *w)
{
    for (uint32_t left = BATCH; left > 0;) {
        int rc = shmq_poll(w->consumer, w->incoming, left, TIMEOUT_MS);

        if (rc <= 0)
            return fail("poll");
        left -= (uint32_t)rc;
    }
    return true;
}

static bool warm_up(struct workload *w)
{
    for (uint32_t round = 0; round < WARM_ROUNDS; round++) {
        for (uint32_t i = 0; i < BATCH; i++) {
            if (shmq_publish(w->producer, w->outgoing) < 0)
                return fail("publish");
        }
        if (!drain(w))
            return false;
    }
    return true;
}

/* A topic, warm; the operations on it; and away with it. */
static bool run_topic(struct workload *w, const char *name, enum shmq_producers producers,
                      enum perf_operation first, enum perf_operation last)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    bool done;

    options.producers = producers;
    options.ring_bytes = RING_BYTES;
    if (shmq_topic_create(w->connection, name, &options) < 0 ||
        shmq_producer_open(w->channel, name, NULL, &w->producer) < 0 ||
        shmq_consumer_open(w->channel, name, NULL, &w->consumer) < 0)
        return fail(name);
    done = warm_up(w);
    if (done)
        perf_workload_mark();
    for (uint32_t operation = first; done && operation <= (uint32_t)last; operation++)
        done = run_operation(w, (enum perf_operation)operation);
    shmq_consumer_close(w->consumer);
    shmq_producer_close(w->producer);
    return shmq_topic_delete(w->connection, name) == 0 && done;
}

static bool run_all(struct workload *w, const char *bus, const char *runtime_dir)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    bool done;

    options.bus = bus;
    options.runtime_dir = runtime_dir;
    for (uint32_t i = 0; i < BATCH; i++)
        w->outgoing[i] = (struct shmq_message){.body = w->body, .body_length = sizeof(w->body)};
    if (shmq_connect(&options, &w->connection) < 0)
        return fail("connect");
    done = shmq_channel_open(w->connection, &w->channel) == 0 &&
           run_topic(w, "single", SHMQ_PRODUCERS_SINGLE, PERF_PUBLISH_SINGLE, PERF_POLL_ONE) &&
           run_topic(w, "multi", SHMQ_PRODUCERS_MULTI, PERF_PUBLISH_MULTI, PERF_PUBLISH_MULTI);
    shmq_close(w->connection);
    return done;
}

bool perf_workload_profile(const char *bus, const char *runtime_dir)
{
    static struct workload w;

    w = (struct workload){.messages = PERF_WORKLOAD_MESSAGES};
    return run_all(&w, bus, runtime_dir);
}

bool perf_workload_step(const char *bus, const char *runtime_dir,
                        struct perf_steps ret_steps[static PERF_OPERATIONS])
{
    static struct workload w;

    memset(ret_steps, 0, PERF_OPERATIONS * sizeof(ret_steps[0]));
    w = (struct workload){.stepped = true, .messages = PERF_WORKLOAD_STEPPED, .steps = ret_steps};
    return !can_step() || run_all(&w, bus, runtime_dir);
}
