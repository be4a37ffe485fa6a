/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transport.h: what a way of moving messages is to the engine, and the loops that all ways
 * have in common.
 *
 * A way gives send, receive and release as inline functions; the loops below are inlined around them
 * with the functions as constants, so that a message costs no indirect call. What a loop does beside
 * is the same for all: the producer copies the body from a private buffer that has the sequence number
 * in its first eight bytes, the consumer compares that number and reads the whole body.
 *
 * Waiting never hangs: each few thousand looks a loop looks at the time (perf_wait_on). Those that
 * sleep in the kernel are killed by the session's owner when the trial is late.
 */
#ifndef SHMQ_TOOLS_PERF_TRANSPORT_H
#define SHMQ_TOOLS_PERF_TRANSPORT_H

#include <stdatomic.h>
#include <string.h>

#include "tools/perf/clock.h"
#include "tools/perf/team.h"

#define PERF_LINE_BYTES 128 /* cores fetch lines in pairs */
#define PERF_FDS_MAX    (PERF_GROUPS_MAX * 2)

/* ---- what a process does in a trial ---------------------------------------------------------- */

enum perf_role { PERF_ABSENT, PERF_PING, PERF_PONG, PERF_PRODUCE, PERF_CONSUME, PERF_RUN_FREE };

struct perf_trial {
    uint64_t count;          /* messages to send, or of each group to take; free: until stop */
    uint32_t *samples_ticks; /* ping: room for `count` */
    uint64_t interval_ticks; /* ping: not 0: when each should begin */
    uint64_t deadline_ns;
    const _Atomic uint32_t *abort; /* not 0: somebody failed */
    const _Atomic uint32_t *stop;  /* free: the driver has done its share */
    uint64_t done;                 /* out: messages */
    uint64_t spins;
    bool crowded; /* more processes than CPUs: give way now and then */
    bool failed;
    struct error_buffer *why; /* of the failure */
};

/* The first failure counts; returns false. */
bool perf_trial_fail(struct perf_trial *trial, const char *format, ...) PRINTF_LIKE(2, 3) COLD;
/* Time for a look at clock and abort flag: false when the trial is over. */
bool perf_trial_look(struct perf_trial *trial) COLD;

/* After each look that found nothing. */
static ALWAYS_INLINE bool perf_wait_on(struct perf_trial *trial)
{
    return LIKELY(++trial->spins & 2047) || perf_trial_look(trial);
}

/* Zeroed whole pages, all of them there; ends the process when there is no memory. */
void *perf_alloc_pages(size_t bytes);

/* Bodies to send from. A number is written into a body long before it is sent: a store that is still on
 * its way holds up the wider loads of the copy behind it, for 10 ns and more, whatever the transport. */
struct perf_source {
    char *bodies;
    uint64_t stride, mask, ahead;
    uint64_t next;
    uint64_t tag; /* the producer, in the top byte */
};

#define PERF_TAG_SHIFT     56
#define PERF_SEQUENCE_MASK ((UINT64_C(1) << PERF_TAG_SHIFT) - 1)

void perf_source_init(struct perf_source *source, const struct perf_setup *setup,
                      uint32_t producer);
void perf_source_deinit(struct perf_source *source);

static ALWAYS_INLINE const void *perf_source_next(struct perf_source *source)
{
    uint64_t sequence = source->next++;
    uint64_t later = sequence + source->ahead;
    uint64_t word = source->tag | later;

    memcpy(source->bodies + (later & source->mask) * source->stride, &word, sizeof(word));
    return source->bodies + (sequence & source->mask) * source->stride;
}

static ALWAYS_INLINE uint64_t perf_body_word(const void *body)
{
    uint64_t word;

    memcpy(&word, body, sizeof(word));
    return word;
}

/* Reads a body as whoever uses it would: every word of it. */
static ALWAYS_INLINE uint64_t perf_touch(const void *body, uint32_t size)
{
    const char *at = body;
    uint64_t a = 0, b = 0, c = 0, d = 0;

    for (; size >= 32; size -= 32, at += 32) {
        a += perf_body_word(at);
        b += perf_body_word(at + 8);
        c += perf_body_word(at + 16);
        d += perf_body_word(at + 24);
    }
    for (; size >= 8; size -= 8, at += 8)
        a += perf_body_word(at);
    for (; size > 0; size--)
        b += (unsigned char)*at++;
    return a + b + c + d;
}

/* ---- contenders as processes see them -------------------------------------------------------- */

/* One contender. Made by the caller before the fork, so each process has a copy of its own; what is
 * common lies in `shared`. */
struct perf_lane {
    struct perf_contender contender;
    struct perf_setup setup; /* with defaults filled in */
    void *shared;            /* way->shared_bytes() of zeroes */
    size_t shared_bytes;
    void *made; /* way->prepare()'s own */
    int fds[PERF_FDS_MAX];
    uint32_t serial; /* unique in this process, for names */
};

/* One process's place in a lane. */
struct perf_seat {
    struct perf_lane *lane;
    enum perf_role role;
    uint32_t index; /* among producers, or among consumers */
    struct perf_source source;
    uint64_t expected[PERF_GROUPS_MAX][PERF_MEMBERS_MAX]; /* by group and producer: next number */
    char *scratch; /* room for one body, to receive into or to copy out to */
    uint64_t sum;  /* of all that was touched */
    void *end;     /* way->open()'s own */
};

struct perf_way {
    const char *name;
    const char *summary;
    const char *missing; /* how to get it when this build lacks it; else NULL */
    uint32_t kinds;      /* bits, 1 << enum perf_kind */
    uint32_t waits;      /* bits, 1 << enum perf_wait */
    uint32_t producers_max, groups_max;
    bool is_kernel;   /* a peer of the kernel's */
    bool has_threads; /* of its own: on any CPU, and in the way of its callers if there are few */
    bool multi;       /* sets setup.multi */
    /* Each may be NULL. */
    int (*check)(const struct perf_setup *setup, struct error_buffer *why);
    size_t (*shared_bytes)(const struct perf_setup *setup);
    int (*prepare)(struct perf_lane *lane,
                   struct error_buffer *why);                      /* in the caller, before fork */
    int (*open)(struct perf_seat *seat, struct error_buffer *why); /* in each member */
    void (*run)(struct perf_seat *seat, struct perf_trial *trial); /* in each member */
    void (*close)(struct perf_seat *seat);                         /* in each member */
    void (*remove)(struct perf_lane *lane);                        /* in the caller, at the end */
};

/* Consumer `index` reads group, group + consumers, … */
static inline bool perf_seat_has_group(const struct perf_seat *seat, uint32_t group)
{
    return group % seat->lane->setup.consumers == seat->index;
}

/* ---- loops ----------------------------------------------------------------------------------- */

/* In: the body. Waits for room. False: given up, with the trial's failure set. */
typedef bool perf_send_fn(struct perf_seat *seat, struct perf_trial *trial, const void *body,
                          uint32_t size);
/* Sends what a way holds back to send it at once. */
typedef bool perf_flush_fn(struct perf_seat *seat, struct perf_trial *trial);
/* The next body of a group, valid until its release. With `wait` it waits; NULL: nothing there, or, if
 * it waited, given up. */
typedef const void *perf_receive_fn(struct perf_seat *seat, struct perf_trial *trial,
                                    uint32_t group, uint32_t size, bool wait);
typedef void perf_release_fn(struct perf_seat *seat, uint32_t group);

bool perf_fail_order(struct perf_trial *trial, uint64_t word, uint64_t expected) COLD;

/* Of one producer: the very next number. */
static ALWAYS_INLINE bool perf_check(struct perf_seat *seat, struct perf_trial *trial,
                                     uint32_t group, uint64_t word, bool several)
{
    uint64_t producer = several ? (word >> PERF_TAG_SHIFT) % PERF_MEMBERS_MAX : 0;
    uint64_t expected = seat->expected[group][producer];

    if (UNLIKELY(several ? (word & PERF_SEQUENCE_MASK) != expected : word != expected))
        return perf_fail_order(trial, word, expected);
    seat->expected[group][producer] = expected + 1;
    return true;
}

static ALWAYS_INLINE uint64_t perf_look_at(struct perf_seat *seat, const void *body, uint32_t size,
                                           bool copy)
{
    if (!copy || body == seat->scratch) /* it was copied out to come here */
        return perf_touch(body, size);
    memcpy(seat->scratch, body, size);
    return perf_touch(seat->scratch, size);
}

static ALWAYS_INLINE bool perf_take(struct perf_seat *seat, struct perf_trial *trial,
                                    perf_receive_fn *receive, perf_release_fn *release,
                                    uint32_t size, bool copy)
{
    const void *body = receive(seat, trial, 0, size, true);

    if (UNLIKELY(!body) || !perf_check(seat, trial, 0, perf_body_word(body), false))
        return false;
    seat->sum += perf_look_at(seat, body, size, copy);
    release(seat, 0);
    return true;
}

static ALWAYS_INLINE void perf_ping_closed(struct perf_seat *seat, struct perf_trial *trial,
                                           perf_send_fn *send, perf_receive_fn *receive,
                                           perf_release_fn *release, bool copy)
{
    uint32_t size = seat->lane->setup.size;
    uint64_t before = perf_ticks();

    for (uint64_t i = 0; i < trial->count; i++) {
        if (!send(seat, trial, perf_source_next(&seat->source), size) ||
            !perf_take(seat, trial, receive, release, size, copy))
            return;
        uint64_t now = perf_ticks();

        trial->samples_ticks[i] = (uint32_t)min_u64(now - before, UINT32_MAX);
        before = now;
    }
    trial->done = trial->count;
}

/* At a rate: a trip's time counts from when it should have begun, also if the one before was still on
 * its way then, or else the slow ones would hide how many were late because of them. */
static ALWAYS_INLINE void perf_ping_paced(struct perf_seat *seat, struct perf_trial *trial,
                                          perf_send_fn *send, perf_receive_fn *receive,
                                          perf_release_fn *release, bool copy)
{
    uint32_t size = seat->lane->setup.size;
    uint64_t begin = perf_ticks();

    for (uint64_t i = 0; i < trial->count; i++) {
        while (perf_ticks() < begin) {
            cpu_relax();
            if (!perf_wait_on(trial))
                return;
        }
        if (!send(seat, trial, perf_source_next(&seat->source), size) ||
            !perf_take(seat, trial, receive, release, size, copy))
            return;
        trial->samples_ticks[i] = (uint32_t)min_u64(perf_ticks() - begin, UINT32_MAX);
        begin += trial->interval_ticks;
    }
    trial->done = trial->count;
}

static ALWAYS_INLINE void perf_pong(struct perf_seat *seat, struct perf_trial *trial,
                                    perf_send_fn *send, perf_receive_fn *receive,
                                    perf_release_fn *release, bool copy)
{
    uint32_t size = seat->lane->setup.size;

    for (uint64_t i = 0; i < trial->count; i++) {
        if (!perf_take(seat, trial, receive, release, size, copy) ||
            !send(seat, trial, perf_source_next(&seat->source), size))
            return;
    }
    trial->done = trial->count;
}

static ALWAYS_INLINE void perf_produce(struct perf_seat *seat, struct perf_trial *trial,
                                       perf_send_fn *send, perf_flush_fn *flush)
{
    uint32_t size = seat->lane->setup.size;

    for (uint64_t i = 0; i < trial->count; i++) {
        if (UNLIKELY(!send(seat, trial, perf_source_next(&seat->source), size)))
            return;
    }
    if (flush && !flush(seat, trial))
        return;
    trial->done = trial->count;
}

static ALWAYS_INLINE void perf_consume_one(struct perf_seat *seat, struct perf_trial *trial,
                                           perf_receive_fn *receive, perf_release_fn *release,
                                           uint32_t group, bool several, bool copy)
{
    uint32_t size = seat->lane->setup.size;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < trial->count; i++) {
        const void *body = receive(seat, trial, group, size, true);

        if (UNLIKELY(!body) || !perf_check(seat, trial, group, perf_body_word(body), several))
            return;
        sum += perf_look_at(seat, body, size, copy);
        release(seat, group);
    }
    seat->sum += sum;
    trial->done = trial->count;
}

/* Several groups by one process: up to poll_max messages of each, in turn. It only spins. */
static ALWAYS_INLINE void perf_consume_in_turn(struct perf_seat *seat, struct perf_trial *trial,
                                               perf_receive_fn *receive, perf_release_fn *release,
                                               bool copy)
{
    const struct perf_setup *setup = &seat->lane->setup;
    uint64_t left[PERF_GROUPS_MAX];
    uint64_t left_all = 0;
    uint64_t sum = 0;

    for (uint32_t g = seat->index; g < setup->groups; g += setup->consumers)
        left_all += left[g] = trial->count;
    while (left_all > 0) {
        uint64_t left_before = left_all;

        for (uint32_t g = seat->index; g < setup->groups; g += setup->consumers) {
            uint64_t most = min_u64(left[g], setup->poll_max);
            uint64_t taken = 0;

            for (; taken < most; taken++) {
                const void *body = receive(seat, trial, g, setup->size, false);

                if (!body)
                    break;
                if (!perf_check(seat, trial, g, perf_body_word(body), true))
                    return;
                sum += perf_look_at(seat, body, setup->size, copy);
                release(seat, g);
            }
            left[g] -= taken;
            left_all -= taken;
        }
        if (UNLIKELY(trial->failed) || (left_all == left_before && !perf_wait_on(trial)))
            return;
    }
    seat->sum += sum;
    trial->done = trial->count;
}

/* Which loop, decided once a trial. */
static ALWAYS_INLINE void perf_consume(struct perf_seat *seat, struct perf_trial *trial,
                                       perf_receive_fn *receive, perf_release_fn *release)
{
    const struct perf_setup *setup = &seat->lane->setup;
    bool copy = setup->copy_out;

    if (setup->groups > setup->consumers) {
        if (copy)
            perf_consume_in_turn(seat, trial, receive, release, true);
        else
            perf_consume_in_turn(seat, trial, receive, release, false);
    } else if (setup->producers > 1) {
        perf_consume_one(seat, trial, receive, release, seat->index, true, copy);
    } else if (copy) {
        perf_consume_one(seat, trial, receive, release, seat->index, false, true);
    } else {
        perf_consume_one(seat, trial, receive, release, seat->index, false, false);
    }
}

static ALWAYS_INLINE void perf_run_role(struct perf_seat *seat, struct perf_trial *trial,
                                        perf_send_fn *send, perf_flush_fn *flush,
                                        perf_receive_fn *receive, perf_release_fn *release)
{
    bool copy = seat->lane->setup.copy_out;

    switch (seat->role) {
    case PERF_PING:
        if (trial->interval_ticks)
            perf_ping_paced(seat, trial, send, receive, release, copy);
        else if (copy)
            perf_ping_closed(seat, trial, send, receive, release, true);
        else
            perf_ping_closed(seat, trial, send, receive, release, false);
        break;
    case PERF_PONG:
        if (copy)
            perf_pong(seat, trial, send, receive, release, true);
        else
            perf_pong(seat, trial, send, receive, release, false);
        break;
    case PERF_PRODUCE:
        perf_produce(seat, trial, send, flush);
        break;
    case PERF_CONSUME:
        perf_consume(seat, trial, receive, release);
        break;
    default: /* ways with a loop of their own do not come here */
        break;
    }
}

#endif
