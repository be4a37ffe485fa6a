/* SPDX-License-Identifier: Apache-2.0 */
/* A folder, programs in it, a shmqd on a bus of its own; see place.h. */
#include "tools/perf/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libshmq/clock.h"

#define LOOK_NS    NS_PER_MS
#define TERM_NS    (2 * NS_PER_S)
#define READY_NS   (10 * NS_PER_S)
#define LINE_BYTES 256

/* ---- the folder ------------------------------------------------------------------------------ */

static void fill_signals(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGHUP);
}

bool perf_place_folder(enum perf_place_kind kind, char ret_folder[static PERF_FOLDER_BYTES])
{
    static const char name[] = "/shmq-perf.XXXXXX";
    const char *candidates[] = {getenv("TMPDIR"), kind == PERF_PLACE_DISK ? "/var/tmp" : "/tmp",
                                "/tmp", "."};
    bool made = false;

    for (size_t i = 0; !made && i < COUNT_OF(candidates); i++) {
        if (!candidates[i] || strlen(candidates[i]) > PERF_FOLDER_BYTES - sizeof(name))
            continue;
        (void)snprintf(ret_folder, PERF_FOLDER_BYTES, "%s%s", candidates[i], name);
        made = mkdtemp(ret_folder) != NULL;
    }
    return made;
}

bool perf_place_take(struct perf_place *place, enum perf_place_kind kind)
{
    static unsigned count;
    sigset_t set;

    if (!perf_place_folder(kind, place->dir))
        return false;
    (void)snprintf(place->bus, sizeof(place->bus), "perf-%ld-%u", (long)getpid(), count++);
    (void)snprintf(place->state, sizeof(place->state), "%s/state", place->dir);
    fill_signals(&set);
    (void)sigprocmask(SIG_BLOCK, &set, &place->signals);
    return true;
}

static int remove_one(const char *path, const struct stat *status UNUSED, int type UNUSED,
                      struct FTW *walk UNUSED)
{
    (void)remove(path);
    return 0;
}

/* What a shmqd that was killed, or that keeps its topics, leaves in shared memory. */
static void remove_segments(const char *bus)
{
    char prefix[80], path[NAME_MAX + sizeof("/dev/shm/")];
    DIR *directory = opendir("/dev/shm");
    const struct dirent *entry;
    int length = snprintf(prefix, sizeof(prefix), "shmq.%s.", bus);

    while (directory && (entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, prefix, (size_t)length) != 0)
            continue;
        (void)snprintf(path, sizeof(path), "/dev/shm/%s", entry->d_name);
        (void)unlink(path);
    }
    if (directory)
        (void)closedir(directory);
}

void perf_place_clear(const char *folder, const char *bus)
{
    remove_segments(bus);
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void perf_place_leave(struct perf_place *place)
{
    perf_place_clear(place->dir, place->bus);
    /* One that was held back ends this process here. */
    (void)sigprocmask(SIG_SETMASK, &place->signals, NULL);
}

bool perf_place_interrupted(void)
{
    sigset_t pending;

    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1 ||
            sigismember(&pending, SIGHUP) == 1);
}

const char *perf_place_path(const struct perf_place *place, const char *name)
{
    static char paths[4][PERF_PATH_BYTES];
    static unsigned next;
    char *path = paths[next++ % 4];

    (void)snprintf(path, PERF_PATH_BYTES, "%s/%s", place->dir, name);
    return path;
}

const char *perf_own_path(void)
{
    static char path[PERF_PATH_BYTES];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

    path[length > 0 ? length : 0] = '\0';
    return path;
}

const char *perf_own_folder(void)
{
    static char folder[PERF_PATH_BYTES];
    char *slash;

    (void)snprintf(folder, sizeof(folder), "%s", perf_own_path());
    slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    return folder;
}

void perf_read_last_line(const char *path, char *ret_line, size_t bytes)
{
    FILE *file = fopen(path, "re");
    char line[LINE_BYTES];

    (void)snprintf(ret_line, bytes, "it said nothing");
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        (void)snprintf(ret_line, bytes, "%s", line);
    }
    if (file)
        (void)fclose(file);
}

/* False: too long, or no program. */
static bool try_program(const char *folder, size_t length, const char *name,
                        char ret_path[static PERF_PATH_BYTES])
{
    int whole = snprintf(ret_path, PERF_PATH_BYTES, "%.*s/%s", (int)length, folder, name);

    return length > 0 && whole > 0 && whole < PERF_PATH_BYTES && access(ret_path, X_OK) == 0;
}

bool perf_find_program(const char *name, char ret_path[static PERF_PATH_BYTES])
{
    const char *own = perf_own_folder();
    const char *at = getenv("PATH");
    bool found = try_program(own, strlen(own), name, ret_path);

    while (!found && at && *at) {
        size_t length = strcspn(at, ":");

        found = try_program(at, length, name, ret_path);
        at += length + (at[length] == ':');
    }
    return found;
}

/* ---- processes ------------------------------------------------------------------------------- */

/* In the child: signals as a program expects them, and no life without its parent. */
static void settle_child(pid_t parent)
{
    sigset_t none;

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

bool perf_child_execute(struct perf_child *child, const char *const *arguments,
                        const char *variable, const char *output)
{
    pid_t parent = getpid();
    size_t count = 0;
    const char **variables;

    while (environ[count])
        count++;
    variables = calloc(count + 2, sizeof(*variables));
    if (!variables)
        return false;
    /* In front: who looks a name up takes the first. */
    variables[0] = variable;
    memcpy(variables + (variable != NULL), environ, count * sizeof(*variables));
    child->pid = fork();
    if (child->pid == 0) {
        int fd = open(output, O_WRONLY | O_CREAT | O_APPEND, 0600);
        int null = open("/dev/null", O_RDONLY);

        settle_child(parent);
        if (fd < 0 || null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
            _exit(127);
        /* execve() writes to neither; its type is older than const. */
        (void)execve(arguments[0], (char *const *)(uintptr_t)arguments,
                     (char *const *)(uintptr_t)variables);
        _exit(127);
    }
    free(variables);
    if (child->pid < 0)
        child->pid = 0;
    return child->pid > 0;
}

bool perf_child_call(struct perf_child *child, int (*body)(void *argument), void *argument)
{
    pid_t parent = getpid();

    (void)fflush(NULL); /* not twice */
    child->pid = fork();
    if (child->pid == 0) {
        settle_child(parent);
        _exit(body(argument));
    }
    if (child->pid < 0)
        child->pid = 0;
    return child->pid > 0;
}

bool perf_child_wait(struct perf_child *child, uint64_t deadline_ns)
{
    const struct timespec look = timespec_from_ns(LOOK_NS);

    while (child->pid > 0) {
        pid_t ended = waitpid(child->pid, &child->status, WNOHANG);

        if (ended == child->pid || (ended < 0 && errno != EINTR))
            child->pid = 0;
        else if (deadline_passed(deadline_ns) || perf_place_interrupted())
            return false;
        else
            (void)nanosleep(&look, NULL);
    }
    return true;
}

static void kill_child(struct perf_child *child)
{
    if (child->pid <= 0)
        return;
    (void)kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &child->status, 0) < 0 && errno == EINTR)
        ;
    child->pid = 0;
}

bool perf_child_succeeds(struct perf_child *child, uint64_t deadline_ns)
{
    bool ended = perf_child_wait(child, deadline_ns);

    kill_child(child);
    return ended && WIFEXITED(child->status) && WEXITSTATUS(child->status) == 0;
}

bool perf_child_call_ready(struct perf_child *child, int (*body)(void *argument), void *argument,
                           bool *ready, uint64_t deadline_ns)
{
    *ready = false;
    if (!perf_child_call(child, body, argument))
        return false;
    while (!__atomic_load_n(ready, __ATOMIC_ACQUIRE)) {
        if (perf_child_wait(child, clock_monotonic_ns() + LOOK_NS) ||
            deadline_passed(deadline_ns) || perf_place_interrupted()) {
            perf_child_end(child);
            return false;
        }
    }
    return true;
}

void perf_child_end(struct perf_child *child)
{
    const struct timespec look = timespec_from_ns(LOOK_NS);
    uint64_t deadline_ns = clock_monotonic_ns() + TERM_NS;

    if (child->pid > 0)
        (void)kill(child->pid, SIGTERM);
    while (child->pid > 0 && !deadline_passed(deadline_ns)) {
        if (waitpid(child->pid, &child->status, WNOHANG) == child->pid)
            child->pid = 0;
        else
            (void)nanosleep(&look, NULL);
    }
    kill_child(child);
}

/* ---- a supervisor ---------------------------------------------------------------------------- */

static int open_notify_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

/* True when "READY=1" came; false at the deadline, or when the child has ended. */
static bool wait_ready(struct perf_child *child, int fd, uint64_t deadline_ns)
{
    char message[LINE_BYTES];

    while (!deadline_passed(deadline_ns) && !perf_place_interrupted()) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};

        if (poll(&readable, 1, 10) == 1) {
            ssize_t length = recv(fd, message, sizeof(message) - 1, 0);

            message[length > 0 ? length : 0] = '\0';
            if (strstr(message, "READY=1"))
                return true;
        } else if (perf_child_wait(child, 0)) {
            return false;
        }
    }
    return false;
}

bool perf_daemon_start(struct perf_daemon *daemon, const struct perf_place *place,
                       const char *program, char *ret_why, size_t why_bytes)
{
    char run[PERF_PATH_BYTES], log[PERF_PATH_BYTES];
    char variable[PERF_PATH_BYTES + 16];
    const char *const arguments[] = {program,     "--bus",       place->bus,   "--runtime-dir",
                                     run,         "--state-dir", place->state, "--config",
                                     "/dev/null", NULL};
    uint64_t start_ns;
    bool ready;
    int fd = open_notify_socket(perf_place_path(place, "notify"));

    memset(daemon, 0, sizeof(*daemon));
    daemon->place = place;
    (void)snprintf(ret_why, why_bytes, "%s: no socket", perf_place_path(place, "notify"));
    if (fd < 0)
        return false;
    (void)snprintf(run, sizeof(run), "%s", perf_place_path(place, "run"));
    (void)snprintf(log, sizeof(log), "%s", perf_place_path(place, "shmqd.log"));
    (void)snprintf(variable, sizeof(variable), "NOTIFY_SOCKET=%s",
                   perf_place_path(place, "notify"));
    start_ns = clock_monotonic_ns();
    ready = perf_child_execute(&daemon->child, arguments, variable, log) &&
            wait_ready(&daemon->child, fd, start_ns + READY_NS);
    daemon->ready_ns = clock_monotonic_ns() - start_ns;
    (void)close(fd);
    (void)unlink(perf_place_path(place, "notify"));
    if (!ready) {
        perf_read_last_line(log, ret_why, why_bytes);
        perf_child_end(&daemon->child);
    }
    return ready;
}

void perf_daemon_stop(struct perf_daemon *daemon)
{
    perf_child_end(&daemon->child);
}

void perf_daemon_crash(struct perf_daemon *daemon)
{
    kill_child(&daemon->child);
    remove_segments(daemon->place->bus);
}
