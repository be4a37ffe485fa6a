/* SPDX-License-Identifier: Apache-2.0 */
/*
 * team.h: several ways of moving messages, measured side by side in the same processes.
 *
 *     caller ── socket ── driver (member 0, pinned to cpus[0])
 *       │                   │  control page: orders, replies, the canary's line
 *       │                 peers (member 1 to cpus[1], …; round again when there are fewer CPUs)
 *       └─ sleeps, and watches: a member that dies or is late ends the session
 *
 * All contenders of a session are open in all of its processes at once. A round gives each of them one
 * trial of some milliseconds, in an order that rotates; a trial stands between two canaries, ping-pongs
 * of one cache line between driver and first peer. Canaries of different classes: the trial is dropped
 * as mixed. A member of a spinning contender that was preempted: dropped as preempted. The rest is
 * filed under its class (filing.h). So the figures of two contenders in one class and round
 * are of the same machine, and their ratio means something.
 *
 * One thread, one process calls these; a session's processes live from open to close, die with their
 * caller, and never outlast a deadline. SIGINT, SIGTERM and SIGCHLD are blocked in the caller from the
 * first open on and looked at in between (perf_interrupted()), so that whoever presses ^C leaves
 * nothing behind.
 */
#ifndef SHMQ_TOOLS_PERF_TEAM_H
#define SHMQ_TOOLS_PERF_TEAM_H

#include "libshmq/error.h"
#include "tools/perf/filing.h"

#define PERF_CONTENDERS_MAX 32u
#define PERF_MEMBERS_MAX    32u
#define PERF_GROUPS_MAX     16u
#define PERF_SIZE_MIN       8u

enum perf_kind {
    PERF_LATENCY,    /* the driver sends, the first peer answers */
    PERF_THROUGHPUT, /* producers to consumers, each group gets all */
    PERF_FREE,       /* producers only: how fast they are when nobody holds them back */
    PERF_IDLE,       /* the first peer sleeps: how often is it woken for nothing? */
};

enum perf_wait { PERF_HYBRID, PERF_SPIN, PERF_BLOCK };

/* Zero is each way's default. */
struct perf_setup {
    enum perf_kind kind;
    enum perf_wait wait;
    uint32_t size; /* bytes of body, PERF_SIZE_MIN at least */
    uint32_t producers, consumers;
    uint32_t groups; /* as many as consumers, or more: then a consumer has several, in turn */
    uint32_t partitions;
    uint64_t ring_bytes;
    uint32_t batch;      /* messages that are published at once */
    uint32_t poll_max;   /* messages that are taken at once */
    uint32_t timestamps; /* enum shmq_timestamps */
    uint64_t rate;       /* latency: round trips a second, timed from when they should have begun */
    bool copy_out;       /* the consumer copies a body before it looks at it */
    bool multi;          /* shmq: a topic for several producers, whether or not there are several */
};

struct perf_way; /* transport.h */

struct perf_contender {
    const struct perf_way *way;
    struct perf_setup setup;
    char name[PERF_NAME_BYTES]; /* in reports; empty: the way's own */
};

struct perf_team_options {
    const int *cpus; /* driver first; one alone is enough only for ways that block */
    uint32_t cpu_count;
    struct perf_thresholds thresholds; /* 0: PERF_NEAR_BELOW_NS, PERF_FARTHER_ABOVE_NS */
    double trial_ns;                   /* 0: 7 ms */
};

/* A run ends when every class that showed up has enough, or when time is up. */
struct perf_budget {
    uint32_t
        rounds; /* trials a contender and class, those of earlier runs included; 0: as many as there is
                        time for */
    uint64_t duration_ns; /* 0: 5 s */
    uint64_t messages; /* not 0: ends when each contender has moved so many, whatever the rounds */
};

struct perf_session;

/* The way of that name ("shmq", "ideal-chase"); NULL if there is none. */
const struct perf_way *perf_way_find(const char *name);
/* All of them, NULL at the end; those that this build lacks are there and say so when opened. */
extern const struct perf_way *const PERF_WAYS[];

/* Can it be done here? 0, or negative with the reason. Touches nothing. */
int perf_contender_check(const struct perf_contender *contender, struct error_buffer *why);

/* Starts the processes, opens all contenders, finds the length of their trials; some 100 ms.
 * 0; SHMQ_EINVAL (what was asked cannot be), SHMQ_ENOTSUP (not here), or another error with its
 * sentence. Contenders and options are copied. */
int perf_session_open(const struct perf_contender *contenders, uint32_t count,
                      const struct perf_team_options *options, struct perf_session **ret_session,
                      struct error_buffer *why);

/* Measures; what came before is kept, so it may be called again, for a class that did not show up.
 * 0, or an error: then the session can only be closed. */
int perf_session_run(struct perf_session *session, const struct perf_budget *budget,
                     struct error_buffer *why);

/* Ends the processes and removes what the contenders had made. NULL is fine. */
void perf_session_close(struct perf_session *session);

/* ---- what was found; valid until close ---- */

const struct perf_ledger *perf_session_ledger(const struct perf_session *session,
                                              uint32_t contender);
const struct perf_contender *perf_session_contender(const struct perf_session *session,
                                                    uint32_t contender);
/* Of a latency contender's kept trials, all round trips; else NULL. */
const struct perf_histogram *perf_session_histogram(const struct perf_session *session,
                                                    uint32_t contender, enum perf_class distance);
struct perf_spread perf_session_spread(const struct perf_session *session, uint32_t contender,
                                       enum perf_class distance, enum perf_figure figure);
/* subject ÷ baseline in pairs of one round and class; .count is the number of pairs. */
struct perf_spread perf_session_ratio(const struct perf_session *session, uint32_t subject,
                                      uint32_t baseline, enum perf_class distance,
                                      enum perf_figure figure);
/* Of two contenders the one with the better median; a when neither was observed. */
uint32_t perf_session_better(const struct perf_session *session, uint32_t a, uint32_t b,
                             enum perf_class distance, enum perf_figure figure);
/* One way, ns, of the canaries beside trials. */
struct perf_spread perf_session_canary(const struct perf_session *session,
                                       enum perf_class distance);

struct perf_tally {
    uint32_t kept, mixed, preempted;
};
struct perf_tally perf_session_tally(const struct perf_session *session);
/* More processes than CPUs: preempted trials were kept, there would be none else. */
bool perf_session_crowded(const struct perf_session *session);

/* For messages/s and round trips alike: which of two values is the better one. */
bool perf_kind_more_is_better(enum perf_kind kind);
enum perf_unit perf_kind_unit(enum perf_kind kind);

/* ---- surroundings ---- */

/* CPUs that this process may use: fills `cpus`, returns how many there are. */
uint32_t perf_cpus_available(int *cpus, uint32_t max);

/* Blocks SIGINT, SIGTERM and SIGCHLD, so that they are only looked at. Called by what needs it. */
void perf_hold_signals(void);
/* The signal that asked to stop, or 0. It is forgotten by asking; the caller ends. */
int perf_interrupted(void);
/* Undoes it; what came and was not looked at takes its course. */
void perf_release_signals(void);
/* In a new process: undoes it, ignores what the terminal sends to all (the caller decides), and dies
 * with its parent. */
void perf_begin_child(int parent_pid, int death_signal);

/* The bus that shmq contenders use. Private: a supervisor in a process of its own, started by the
 * first who asks, stopped by perf_bus_stop(), or when this process dies. Or one that runs already. */
struct perf_bus {
    const char *name;        /* NULL: the library's default */
    const char *runtime_dir; /* NULL: the library's default */
    const char *vhost;
};
void perf_bus_use(const struct perf_bus *running); /* strings stay the caller's */
int perf_bus_get(struct perf_bus *ret_bus, struct error_buffer *why);
void perf_bus_stop(void);

#endif
