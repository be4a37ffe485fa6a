/* SPDX-License-Identifier: Apache-2.0 */
/*
 * team.c: a session as its owner sees it: starts the processes, watches them, asks the
 * driver to measure, reads what it filed; see team.h.
 *
 * One thread. It sleeps in poll(2) while others measure, so that it does not take a core from them.
 * If it dies, members are killed by the kernel (PR_SET_PDEATHSIG) and a private bus ends itself.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tools/outbuf.h"
#include "tools/perf/team_internal.h"

#define WATCH_MS    1000 /* between two looks at a driver that says nothing */
#define TRIAL_NS    7e6
#define DURATION_NS (UINT64_C(5) * NS_PER_S)
#define GRACE_NS    (UINT64_C(2) * NS_PER_S)
#define POLL_MAX    64u
#define FD_NONE     (-1)

/* ---- lanes ----------------------------------------------------------------------------------- */

static void fill_defaults(struct perf_setup *setup)
{
    setup->producers += setup->producers == 0;
    if (setup->consumers == 0)
        setup->consumers = 1;
    if (setup->groups < setup->consumers)
        setup->groups = setup->consumers;
    setup->partitions += setup->partitions == 0;
    setup->batch += setup->batch == 0;
    if (setup->poll_max == 0)
        setup->poll_max = POLL_MAX;
    if (setup->size < PERF_SIZE_MIN)
        setup->size = PERF_SIZE_MIN;
}

static const char *kind_text(enum perf_kind kind)
{
    static const char *const names[] = {"round trips", "throughput", "producers alone", "idling"};

    return names[kind];
}

int perf_contender_check(const struct perf_contender *contender, struct error_buffer *why)
{
    const struct perf_way *way = contender->way;
    struct perf_setup setup = contender->setup;

    if (way->missing)
        return error_set(why, SHMQ_EINVAL, "%s: this shmq-perf was built without it; build with %s",
                         way->name, way->missing);
    if (setup.size > 0 && setup.size < PERF_SIZE_MIN)
        return error_set(why, SHMQ_EINVAL,
                         "%s: %u bytes: a body has its number in the first %u; take more",
                         way->name, setup.size, PERF_SIZE_MIN);
    fill_defaults(&setup);
    if (!(way->kinds & (1u << setup.kind)))
        return error_set(why, SHMQ_EINVAL, "%s: cannot do %s; leave it out", way->name,
                         kind_text(setup.kind));
    if (!(way->waits & (1u << setup.wait)))
        return error_set(why, SHMQ_EINVAL, "%s: cannot wait that way; choose another --wait",
                         way->name);
    if (setup.producers > way->producers_max)
        return error_set(why, SHMQ_EINVAL, "%s: takes %u producer%s at most; leave it out",
                         way->name, way->producers_max, way->producers_max == 1 ? "" : "s");
    if (setup.groups > way->groups_max)
        return error_set(why, SHMQ_EINVAL,
                         "%s: takes %u group%s or consumer%s at most; leave it "
                         "out",
                         way->name, way->groups_max, way->groups_max == 1 ? "" : "s",
                         way->groups_max == 1 ? "" : "s");
    return way->check ? way->check(&setup, why) : 0;
}

static void *map_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static int prepare_lane(struct perf_session *session, const struct perf_contender *contender,
                        struct error_buffer *why)
{
    static uint32_t serial;
    struct perf_lane *lane = &session->lanes[session->lane_count];
    const struct perf_way *way = contender->way;
    int rc = perf_contender_check(contender, why);

    if (rc < 0)
        return rc;
    lane->contender = *contender;
    if (!*lane->contender.name)
        (void)snprintf(lane->contender.name, sizeof(lane->contender.name), "%s", way->name);
    lane->setup = contender->setup;
    fill_defaults(&lane->setup);
    lane->setup.multi |= way->multi;
    lane->serial = ++serial;
    for (uint32_t i = 0; i < PERF_FDS_MAX; i++)
        lane->fds[i] = FD_NONE;
    session->lane_count++; /* from now on it is removed again */
    if (way->shared_bytes) {
        lane->shared_bytes = way->shared_bytes(&lane->setup);
        lane->shared = map_shared(lane->shared_bytes);
        if (!lane->shared)
            return error_set_errno(why, errno, "%s: %zu bytes of shared memory", way->name,
                                   lane->shared_bytes);
    }
    return way->prepare ? way->prepare(lane, why) : 0;
}

static void remove_lane(struct perf_lane *lane)
{
    if (lane->contender.way->remove)
        lane->contender.way->remove(lane);
    for (uint32_t i = 0; i < PERF_FDS_MAX; i++) {
        if (lane->fds[i] != FD_NONE)
            (void)close(lane->fds[i]);
    }
    if (lane->shared)
        (void)munmap(lane->shared, lane->shared_bytes);
}

/* ---- processes ------------------------------------------------------------------------------- */

static void kill_members(struct perf_session *session)
{
    for (uint32_t m = 0; m < session->member_count; m++) {
        if (session->pids[m] > 0)
            (void)kill(session->pids[m], SIGKILL);
    }
    for (uint32_t m = 0; m < session->member_count; m++) {
        if (session->pids[m] > 0)
            (void)waitpid(session->pids[m], NULL, 0);
        session->pids[m] = 0;
    }
    session->broken = true;
}

/* The sentence of the member that failed first; else `otherwise`. */
static int tell_failure(const struct perf_session *session, const char *otherwise,
                        struct error_buffer *why)
{
    const struct perf_control *control = session->control;

    if (atomic_load_explicit(&control->failure_written, memory_order_acquire))
        return error_set(why, control->failure_code, "%s", control->failure.text);
    return error_set(why, SHMQ_ESYS, "%s", otherwise);
}

/* 0, or the sentence about a member that has ended though nobody told it to. */
static int look_for_dead(struct perf_session *session, struct error_buffer *why)
{
    char text[128];

    for (uint32_t m = 0; m < session->member_count; m++) {
        int status;

        if (session->pids[m] <= 0 || waitpid(session->pids[m], &status, WNOHANG) <= 0)
            continue;
        session->pids[m] = 0;
        if (WIFSIGNALED(status))
            (void)snprintf(text, sizeof(text),
                           "a process of the measurement died of signal %d; its figures are lost",
                           WTERMSIG(status));
        else
            (void)snprintf(text, sizeof(text), "a process of the measurement ended with status %d",
                           WEXITSTATUS(status));
        return tell_failure(session, text, why);
    }
    return 0;
}

/* Until the driver has answered. */
static int await_driver(struct perf_session *session, bool closing, struct error_buffer *why)
{
    struct pollfd polled[2] = {{.fd = session->socket, .events = POLLIN},
                               {.fd = perf_signal_fd(), .events = POLLIN}};
    struct perf_reply reply;
    bool failed = false;
    int rc = 0;

    for (;;) {
        (void)poll(polled, 2, WATCH_MS);
        if (polled[0].revents) {
            if (recv(session->socket, &reply, sizeof(reply), MSG_DONTWAIT) !=
                (ssize_t)sizeof(reply))
                return tell_failure(session, "the measuring process died; its figures are lost",
                                    why);
            return reply.rc == 0 ? 0 : tell_failure(session, "the measurement failed", why);
        }
        if (perf_is_interrupted())
            return error_set(why, SHMQ_ESYS, "interrupted");
        if (!closing)
            rc = look_for_dead(session, why);
        if (rc < 0)
            return rc;
        /* A driver that has not noticed within a second sleeps in a call of its transport. */
        if (failed)
            return tell_failure(session, "the measurement failed", why);
        failed = atomic_load_explicit(&session->control->failure_written, memory_order_acquire);
        /* Relaxed: a late reading makes it look once more. */
        uint64_t late_ns = atomic_load_explicit(&session->control->late_ns, memory_order_relaxed);

        if (late_ns != UINT64_MAX && clock_monotonic_ns() > late_ns)
            return tell_failure(session, "nothing moves any more; the trial was given up", why);
    }
}

static int start_member(struct perf_session *session, uint32_t member, int sockets[2],
                        struct error_buffer *why)
{
    int parent = (int)getpid();
    int pid;

    (void)fflush(NULL); /* or the child would have the text as well */
    pid = fork();
    if (pid < 0)
        return error_set_errno(why, errno, "a process for the measurement");
    if (pid > 0) {
        session->pids[member] = pid;
        return 0;
    }
    perf_begin_child(parent, SIGKILL);
    (void)close(sockets[0]);
    if (member == 0)
        perf_driver_serve(session, sockets[1]);
    if (sockets[1] != FD_NONE)
        (void)close(sockets[1]);
    perf_member_serve(session, member);
}

static int start_members(struct perf_session *session, struct error_buffer *why)
{
    int sockets[2];
    int rc;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        return error_set_errno(why, errno, "a socket to the measuring process");
    session->socket = sockets[0];
    rc = start_member(session, 0, sockets, why);
    (void)close(sockets[1]); /* the driver's alone, so that its end is noticed */
    sockets[1] = FD_NONE;
    for (uint32_t m = 1; rc == 0 && m < session->member_count; m++)
        rc = start_member(session, m, sockets, why);
    return rc < 0 ? rc : await_driver(session, false, why);
}

/* ---- sessions -------------------------------------------------------------------------------- */

static int choose_cpus(struct perf_session *session, struct error_buffer *why)
{
    const struct perf_team_options *options = &session->options;
    bool sleepers = true;

    for (uint32_t i = 0; i < session->lane_count; i++)
        sleepers &= session->lanes[i].setup.wait == PERF_BLOCK;
    session->one_cpu = session->member_count > 1;
    for (uint32_t m = 0; m < session->member_count; m++) {
        session->cpus[m] = options->cpus[m % options->cpu_count];
        session->one_cpu &= session->cpus[m] == session->cpus[0];
    }
    for (uint32_t m = 0; m < session->member_count; m++) {
        for (uint32_t other = 0; other < m; other++)
            session->crowded |= session->cpus[m] == session->cpus[other];
    }
    if (session->one_cpu && !sleepers)
        return error_set(why, SHMQ_ENOTSUP,
                         "cpus: there is one only, %d: processes that spin would wait for each "
                         "other's time slice; give two with --cpus, or use --wait block",
                         session->cpus[0]);
    return 0;
}

static int allocate(struct perf_session *session, struct error_buffer *why)
{
    session->histogram_stride = align_up_u64(perf_histogram_bytes(), 4096);
    session->control = map_shared(sizeof(*session->control));
    session->book = map_shared(sizeof(*session->book));
    session->histogram_memory =
        map_shared(session->histogram_stride * PERF_CLASSES * PERF_CONTENDERS_MAX);
    if (!session->control || !session->book || !session->histogram_memory)
        return error_set_errno(why, errno, "memory for the figures");
    atomic_store(&session->control->late_ns, UINT64_MAX);
    return 0;
}

static int open_session(struct perf_session *session, const struct perf_contender *contenders,
                        uint32_t count, struct error_buffer *why)
{
    int rc = allocate(session, why);

    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = prepare_lane(session, &contenders[i], why);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t needed = perf_members_needed(&session->lanes[i].setup);

        session->member_count = needed > session->member_count ? needed : session->member_count;
        for (unsigned c = 0; c < PERF_CLASSES && session->lanes[i].setup.kind == PERF_LATENCY; c++)
            (void)perf_histogram_init(session->histogram_memory +
                                      (i * PERF_CLASSES + c) * session->histogram_stride);
    }
    if (session->member_count < 2) /* the canary takes two, whoever runs alone */
        session->member_count = 2;
    if (session->member_count > PERF_MEMBERS_MAX)
        return error_set(why, SHMQ_EINVAL,
                         "%u processes: %u at most; take fewer producers or "
                         "consumers",
                         session->member_count, PERF_MEMBERS_MAX);
    rc = choose_cpus(session, why);
    return rc < 0 ? rc : start_members(session, why);
}

int perf_session_open(const struct perf_contender *contenders, uint32_t count,
                      const struct perf_team_options *options, struct perf_session **ret_session,
                      struct error_buffer *why)
{
    struct perf_session *session = tool_alloc(sizeof(*session));
    int rc;

    if (count == 0 || count > PERF_CONTENDERS_MAX || options->cpu_count == 0) {
        free(session);
        return error_set(why, SHMQ_EINVAL, "a session takes 1 to %u contenders and a CPU",
                         PERF_CONTENDERS_MAX);
    }
    perf_clock_init();
    perf_hold_signals();
    *session = (struct perf_session){.options = *options, .socket = FD_NONE};
    if (session->options.trial_ns <= 0)
        session->options.trial_ns = TRIAL_NS;
    if (session->options.thresholds.near_below_ns <= 0)
        session->options.thresholds.near_below_ns = PERF_NEAR_BELOW_NS;
    if (session->options.thresholds.farther_above_ns <= 0)
        session->options.thresholds.farther_above_ns = PERF_FARTHER_ABOVE_NS;
    session->lanes = tool_alloc(sizeof(*session->lanes) * count);
    memset(session->lanes, 0, sizeof(*session->lanes) * count);
    rc = open_session(session, contenders, count, why);
    if (rc < 0) {
        kill_members(session);
        perf_session_close(session);
        return rc;
    }
    *ret_session = session;
    return 0;
}

int perf_session_run(struct perf_session *session, const struct perf_budget *budget,
                     struct error_buffer *why)
{
    struct perf_request request = {.close = false, .budget = *budget};
    int rc;

    if (session->broken)
        return error_set(why, SHMQ_ESYS, "the session has failed before; open another");
    if (request.budget.duration_ns == 0)
        request.budget.duration_ns = DURATION_NS;
    if (send(session->socket, &request, sizeof(request), MSG_NOSIGNAL) < 0)
        rc = tell_failure(session, "the measuring process is gone", why);
    else
        rc = await_driver(session, false, why);
    if (rc < 0)
        kill_members(session);
    return rc;
}

static void end_members(struct perf_session *session)
{
    struct perf_request request = {.close = true, .budget = {0, 0, 0}};
    struct error_buffer ignored;
    uint64_t deadline_ns = clock_monotonic_ns() + GRACE_NS;

    if (send(session->socket, &request, sizeof(request), MSG_NOSIGNAL) < 0 ||
        await_driver(session, true, &ignored) < 0)
        return;
    for (uint32_t m = 0; m < session->member_count; m++) {
        while (waitpid(session->pids[m], NULL, WNOHANG) == 0) {
            struct timespec pause = timespec_from_ns(200 * NS_PER_US);

            if (deadline_passed(deadline_ns))
                return;
            (void)nanosleep(&pause, NULL);
        }
        session->pids[m] = 0;
    }
}

void perf_session_close(struct perf_session *session)
{
    if (!session)
        return;
    if (!session->broken)
        end_members(session);
    kill_members(session);
    if (session->socket != FD_NONE)
        (void)close(session->socket);
    for (uint32_t i = 0; i < session->lane_count; i++)
        remove_lane(&session->lanes[i]);
    if (session->control)
        (void)munmap(session->control, sizeof(*session->control));
    if (session->book)
        (void)munmap(session->book, sizeof(*session->book));
    if (session->histogram_memory)
        (void)munmap(session->histogram_memory,
                     session->histogram_stride * PERF_CLASSES * PERF_CONTENDERS_MAX);
    free(session->lanes);
    free(session);
}
