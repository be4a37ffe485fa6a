/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c: what a session has found, read from the memory that its driver filed it in; see
 * team.h. Called by the session's owner between two runs, when nobody writes there.
 */
#include "tools/perf/team_internal.h"

bool perf_kind_more_is_better(enum perf_kind kind)
{
    return kind == PERF_THROUGHPUT || kind == PERF_FREE;
}

enum perf_unit perf_kind_unit(enum perf_kind kind)
{
    switch (kind) {
    case PERF_LATENCY:
        return PERF_NS;
    case PERF_THROUGHPUT:
        return PERF_MESSAGES_PER_S;
    case PERF_FREE:
        return PERF_OPERATIONS_PER_S;
    case PERF_IDLE:
        break;
    }
    return PERF_COUNT;
}

struct perf_histogram *perf_session_histogram_at(const struct perf_session *session, uint32_t lane,
                                                 enum perf_class distance)
{
    return (struct perf_histogram *)(void *)(session->histogram_memory +
                                             (lane * PERF_CLASSES + distance) *
                                                 session->histogram_stride);
}

const struct perf_ledger *perf_session_ledger(const struct perf_session *session,
                                              uint32_t contender)
{
    return &session->book->ledgers[contender];
}

const struct perf_contender *perf_session_contender(const struct perf_session *session,
                                                    uint32_t contender)
{
    return &session->lanes[contender].contender;
}

const struct perf_histogram *perf_session_histogram(const struct perf_session *session,
                                                    uint32_t contender, enum perf_class distance)
{
    if (session->lanes[contender].setup.kind != PERF_LATENCY)
        return NULL;
    return perf_session_histogram_at(session, contender, distance);
}

struct perf_spread perf_session_spread(const struct perf_session *session, uint32_t contender,
                                       enum perf_class distance, enum perf_figure figure)
{
    return perf_ledger_spread(&session->book->ledgers[contender], distance, figure);
}

struct perf_spread perf_session_ratio(const struct perf_session *session, uint32_t subject,
                                      uint32_t baseline, enum perf_class distance,
                                      enum perf_figure figure)
{
    return perf_ledger_ratio(&session->book->ledgers[subject], &session->book->ledgers[baseline],
                             distance, figure);
}

uint32_t perf_session_better(const struct perf_session *session, uint32_t a, uint32_t b,
                             enum perf_class distance, enum perf_figure figure)
{
    struct perf_spread of_a = perf_session_spread(session, a, distance, figure);
    struct perf_spread of_b = perf_session_spread(session, b, distance, figure);
    bool more = perf_kind_more_is_better(session->lanes[a].setup.kind);

    if (of_b.count == 0)
        return a;
    if (of_a.count == 0)
        return b;
    return (more ? of_b.median > of_a.median : of_b.median < of_a.median) ? b : a;
}

struct perf_spread perf_session_canary(const struct perf_session *session, enum perf_class distance)
{
    return perf_ledger_spread(&session->book->canary, distance, PERF_MAIN);
}

struct perf_tally perf_session_tally(const struct perf_session *session)
{
    struct perf_tally tally = {0, 0, 0};

    for (uint32_t i = 0; i < session->lane_count; i++) {
        const struct perf_ledger *ledger = &session->book->ledgers[i];

        tally.kept += ledger->kept;
        tally.mixed += ledger->mixed;
        tally.preempted += ledger->preempted;
    }
    return tally;
}

bool perf_session_crowded(const struct perf_session *session)
{
    return session->crowded;
}
