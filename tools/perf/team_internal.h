/* SPDX-License-Identifier: Apache-2.0 */
/*
 * team_internal.h: the memory that the processes of a session share, and how the driver
 * gives its peers orders.
 *
 * An order is written into a member's line, then its serial is stored with release; the member answers
 * with the serial on lines of its own, `ready` before it begins and `done` behind. Idle members spin on
 * their line, for a while; then they sleep on it, for the driver to wake. Only the driver gives orders
 * and only to members that have answered the last one.
 */
#ifndef SHMQ_TOOLS_PERF_TEAM_INTERNAL_H
#define SHMQ_TOOLS_PERF_TEAM_INTERNAL_H

#include "tools/perf/transport.h"

/* How long a member may take for one order, without the trial's own time. */
#define PERF_STEP_NS (UINT64_C(10) * NS_PER_S)

enum perf_op { PERF_OP_OPEN, PERF_OP_RUN, PERF_OP_CANARY, PERF_OP_CLOSE, PERF_OP_EXIT };

struct perf_order {
    _Alignas(PERF_LINE_BYTES) _Atomic uint32_t serial;
    _Atomic uint32_t sleeps; /* the member waits for a futex wake of `serial` */
    uint32_t op;
    uint32_t contender;
    uint64_t count;
    uint64_t deadline_ns;
};

struct perf_answer {
    _Alignas(PERF_LINE_BYTES) _Atomic uint32_t ready;
    _Alignas(PERF_LINE_BYTES) _Atomic uint32_t done;
    uint32_t failed;
    uint64_t messages;
    uint64_t preempted; /* involuntary switches during the trial */
    uint64_t slept;     /* voluntary ones, of all threads */
};

struct perf_control {
    _Alignas(PERF_LINE_BYTES) _Atomic uint32_t abort;
    _Alignas(PERF_LINE_BYTES) _Atomic uint32_t go;   /* serial of the trial that has begun */
    _Alignas(PERF_LINE_BYTES) _Atomic uint32_t stop; /* the driver has done its share */
    _Alignas(PERF_LINE_BYTES) _Atomic uint32_t canary;
    _Alignas(
        PERF_LINE_BYTES) _Atomic uint64_t late_ns; /* from then on the driver counts as stuck */
    _Atomic uint32_t failures;                     /* the first one writes the text */
    _Atomic uint32_t failure_written;
    struct error_buffer failure;
    int32_t failure_code;
    struct perf_order orders[PERF_MEMBERS_MAX];
    struct perf_answer answers[PERF_MEMBERS_MAX];
};

/* What the driver finds out. */
struct perf_book {
    struct perf_ledger canary; /* figures[0]: one way, ns */
    struct perf_ledger ledgers[PERF_CONTENDERS_MAX];
};

struct perf_session {
    struct perf_control *control;
    struct perf_book *book;
    struct perf_lane *lanes;
    uint32_t lane_count;
    uint32_t member_count;
    struct perf_team_options options;
    int cpus[PERF_MEMBERS_MAX]; /* of each member */
    bool one_cpu, crowded;
    char *histogram_memory; /* lane × class; perf_histogram_bytes() each */
    size_t histogram_stride;
    int pids[PERF_MEMBERS_MAX];
    int socket; /* to the driver */
    bool broken;
};

/* What the caller says to the driver, and hears back. */
struct perf_request {
    bool close;
    struct perf_budget budget;
};
struct perf_reply {
    int32_t rc;
};

/* ---- member.c ---- */

/* What the member has to do in this lane, and as which producer or consumer. */
enum perf_role perf_member_role(const struct perf_setup *setup, uint32_t member,
                                uint32_t *ret_index);
uint32_t perf_members_needed(const struct perf_setup *setup);

struct perf_member {
    struct perf_session *session;
    uint32_t index;
    struct perf_seat *seats; /* one a lane */
};

/* In the new process: pins it. */
int perf_member_init(struct perf_member *member, struct perf_session *session, uint32_t index,
                     struct perf_control *control);
int perf_member_open(struct perf_member *member, uint32_t lane, struct error_buffer *why);
void perf_member_close(struct perf_member *member);
/* Follows orders until PERF_OP_EXIT. */
_Noreturn void perf_member_serve(struct perf_session *session, uint32_t index);

/* The first failure of the session; raises `abort`. */
void perf_control_fail(struct perf_control *control, int code, const char *text);

struct perf_usage {
    uint64_t preempted, slept;
};
struct perf_usage perf_usage_now(void);
int perf_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
void perf_futex_wake(_Atomic uint32_t *word);

/* ---- trial.c ---- */

struct perf_driver {
    struct perf_member self;
    struct perf_session *session;
    struct perf_control *control;
    uint32_t serial; /* of the last order to anyone */
    uint32_t round;
    uint64_t counts[PERF_CONTENDERS_MAX][PERF_CLASSES]; /* messages of the next trial */
    uint32_t
        *samples_ticks; /* PERF_ROUND_TRIPS_MOST; what is longer than it can say is UINT32_MAX */
};

#define PERF_ROUND_TRIPS_MOST (1u << 18) /* of one trial */

struct perf_outcome {
    double elapsed_ns;
    uint64_t messages;
    uint32_t samples; /* in samples_ticks */
    bool preempted;
    uint64_t slept; /* voluntary switches of the first peer */
};

/* All of these: false when the session has failed, which the control page says. */
bool perf_trial_run(struct perf_driver *d, uint32_t contender, uint64_t count, uint64_t rate,
                    struct perf_outcome *ret_outcome); /* `rate` 0: as fast as it goes */
bool perf_distance_look(struct perf_driver *d, double *ret_one_way_ns, enum perf_class *ret_class);
/* To all peers; await_all waits until they have done it. */
void perf_order_all(struct perf_driver *d, enum perf_op op, uint32_t contender);
bool perf_await_all(struct perf_driver *d, uint32_t members, uint64_t deadline_ns);

/* ---- driver.c ---- */

_Noreturn void perf_driver_serve(struct perf_session *session, int socket);

/* ---- session.c ---- */

struct perf_histogram *perf_session_histogram_at(const struct perf_session *session, uint32_t lane,
                                                 enum perf_class distance);

/* ---- process.c ---- */

int perf_signal_fd(void);       /* readable when a signal came; -1 before perf_hold_signals() */
bool perf_is_interrupted(void); /* not forgotten by asking */

#endif
