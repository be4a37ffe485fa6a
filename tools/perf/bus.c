/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus.c: the bus that is measured on: one that runs, when its name was given; else a private
 * one, in a process of its own, so that its threads are on no pinned core and its death is nobody's.
 *
 * The process ends when it is told to, and when its parent dies (SIGTERM from the kernel): it stops the
 * supervisor, which unlinks all memory, and removes its directory. Killed hard, it leaves both to the
 * caller, which removes them. Only if both are killed hard something stays, for `shmq doctor --clean`.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "daemon/shmqd.h"
#include "libshmq/clock.h"
#include "tools/outbuf.h"
#include "tools/perf/place.h"
#include "tools/perf/team.h"

#define LOG_ERROR 3
#define START_MS  20000
#define STOP_NS   (UINT64_C(10) * NS_PER_S)

static struct {
    struct perf_bus given; /* when `is_given` */
    bool is_given;
    int pid; /* of the private one; 0: not started */
    char name[32];
    char directory[PERF_FOLDER_BYTES];
} bus;

void perf_bus_use(const struct perf_bus *running)
{
    bus.given = *running;
    bus.is_given = true;
}

/* ---- the supervisor's process ---------------------------------------------------------------- */

static void log_line(int level, const char *line, void *context)
{
    (void)context;
    if (level <= LOG_ERROR)
        (void)fprintf(stderr, "shmq-perf: private bus: %s\n", line);
}

/* A sentence, or nothing when all is well, and the end of the pipe. */
static void say(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        _exit(1);
    (void)close(fd);
}

static _Noreturn void serve(int parent_pid, int fd)
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor = NULL;
    char text[512] = "";
    sigset_t set;
    int signal_number = 0;

    /* Blocked before the threads are made, so that it is this one that takes it. */
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    perf_begin_child(parent_pid, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    options.bus = bus.name;
    options.runtime_dir = bus.directory;
    options.log = log_line;
    if (shmq_supervisor_start(&options, &supervisor, text, sizeof(text)) < 0) {
        perf_place_clear(bus.directory, bus.name);
        say(fd, *text ? text : "the supervisor did not start");
        _exit(1);
    }
    say(fd, "");
    while (sigwait(&set, &signal_number) != 0)
        ;
    shmq_supervisor_stop(supervisor);
    perf_place_clear(bus.directory, bus.name);
    _exit(0);
}

/* ---- the caller's part ----------------------------------------------------------------------- */

static int await_start(int fd, struct error_buffer *why)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    char text[512];
    size_t used = 0;
    ssize_t n;

    while (used < sizeof(text) - 1) {
        if (poll(&polled, 1, START_MS) == 0)
            return error_set(why, SHMQ_ETIMEOUT,
                             "private bus: it did not start in %d s; the "
                             "machine may be too busy",
                             START_MS / 1000);
        n = read(fd, text + used, sizeof(text) - 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    text[used] = '\0';
    return used == 0 ? 0 : error_set(why, SHMQ_ESYS, "private bus: %s", text);
}

/* The bus is named after $SHMQ_BUS, so that who looks at /dev/shm knows whose it is, and after this
 * process: several may measure at once. */
static int choose_place(struct error_buffer *why)
{
    const char *like = getenv("SHMQ_BUS");

    (void)snprintf(bus.name, sizeof(bus.name), "%.20s.%d", like && *like ? like : "perf",
                   (int)getpid());
    if (!perf_place_folder(PERF_PLACE_ANY, bus.directory))
        return error_set(why, SHMQ_ESYS,
                         "private bus: no folder for its socket; set TMPDIR to one that can be "
                         "written, with a short name");
    return 0;
}

static int start_private(struct error_buffer *why)
{
    int parent_pid = (int)getpid();
    int fds[2];
    int rc = choose_place(why);

    if (rc < 0)
        return rc;
    if (pipe(fds) < 0) {
        rc = error_set_errno(why, errno, "a pipe to the private bus");
        perf_place_clear(bus.directory, bus.name);
        return rc;
    }
    perf_hold_signals();
    (void)fflush(NULL);
    bus.pid = fork();
    if (bus.pid == 0) {
        (void)close(fds[0]);
        serve(parent_pid, fds[1]);
    }
    (void)close(fds[1]);
    if (bus.pid < 0) {
        bus.pid = 0;
        rc = error_set_errno(why, errno, "a process for the private bus");
        perf_place_clear(bus.directory, bus.name);
    } else {
        rc = await_start(fds[0], why);
    }
    (void)close(fds[0]);
    if (rc < 0)
        perf_bus_stop();
    return rc;
}

int perf_bus_get(struct perf_bus *ret_bus, struct error_buffer *why)
{
    int rc = 0;

    if (bus.is_given) {
        *ret_bus = bus.given;
        return 0;
    }
    if (bus.pid == 0)
        rc = start_private(why);
    *ret_bus = (struct perf_bus){.name = bus.name, .runtime_dir = bus.directory, .vhost = NULL};
    return rc;
}

void perf_bus_stop(void)
{
    uint64_t deadline_ns = clock_monotonic_ns() + STOP_NS;
    struct timespec pause = timespec_from_ns(NS_PER_MS);

    if (bus.pid <= 0)
        return;
    (void)kill(bus.pid, SIGTERM);
    while (waitpid(bus.pid, NULL, WNOHANG) == 0) {
        if (deadline_passed(deadline_ns)) {
            (void)kill(bus.pid, SIGKILL);
            (void)waitpid(bus.pid, NULL, 0);
            break;
        }
        (void)nanosleep(&pause, NULL);
    }
    bus.pid = 0;
    perf_place_clear(bus.directory, bus.name);
}
