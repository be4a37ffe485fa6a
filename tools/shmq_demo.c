/* shmq_demo.c: `make demo`: real files of this machine through a bus, while its processes are
 * killed.
 *
 * This process starts the supervisor, three producers and six consumers as children, kills one of
 * each on the way, and compares what came out with what went in, file by file. Everything lives
 * in a temporary directory and a bus of its own, and nothing is left of either.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/shmqd.h"
#include "tools/shmq_demo.h"

#define WANTED_BYTES   (UINT64_C(48) << 20) /* of each topic */
#define FILE_BYTES_MAX (UINT64_C(8) << 20)
#define DEADLINE_S     120

enum child {
    SUPERVISOR,
    PRODUCER0,
    CONSUMER0 = PRODUCER0 + DEMO_PRODUCERS,
    STANDBY = CONSUMER0 + DEMO_TOPICS * DEMO_GROUPS,
    CHILDREN
};

/* How much of each kind is moved, at most. */
static const uint64_t wanted_bytes[DEMO_TOPICS] = {UINT64_C(24) << 20, UINT64_C(64) << 20};
static const uint32_t wanted_files[DEMO_TOPICS] = {1500, 1500};

static struct demo_shared *shared;
static pid_t children[CHILDREN];
static char directory[96];
static double started;

double demo_now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void demo_say(const char *format, ...)
{
    va_list arguments;

    printf("%7.3f s  ", demo_now_s() - started);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

#define say demo_say

void demo_sleep_us(long us)
{
    struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    nanosleep(&pause, NULL);
}

/* ---- the files ------------------------------------------------------------------------------- */

static bool looks_like_text(const unsigned char *bytes, size_t length)
{
    return memchr(bytes, 0, length < 4096 ? length : 4096) == NULL;
}

static bool count_piece(void *context, uint64_t number, const unsigned char *piece, uint32_t length)
{
    struct demo_file *file = context;

    file->messages = number + 1;
    file->checksum = demo_checksum(file->checksum, piece, length);
    return true;
}

struct taken {
    uint64_t bytes[DEMO_TOPICS];
    uint64_t messages[DEMO_TOPICS];
    uint32_t files[DEMO_TOPICS];
};

static void take_file(const char *path, uint64_t bytes, struct taken *taken)
{
    unsigned char head[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t length = fd < 0 ? -1 : read(fd, head, sizeof(head));

    if (fd >= 0)
        close(fd);
    if (length <= 0 || strlen(path) >= sizeof(shared->files[0].path))
        return;
    uint32_t topic = looks_like_text(head, (size_t)length) ? DEMO_LINES : DEMO_BLOBS;

    if (taken->bytes[topic] + bytes > wanted_bytes[topic] ||
        taken->files[topic] == wanted_files[topic] || shared->file_count == DEMO_FILES_MAX)
        return;
    struct demo_file *file = &shared->files[shared->file_count];

    snprintf(file->path, sizeof(file->path), "%s", path);
    file->bytes = bytes;
    file->topic = topic;
    file->producer = shared->file_count % DEMO_PRODUCERS;
    file->messages = 0;
    file->checksum = DEMO_CHECKSUM_INIT;
    if (!demo_split(file, count_piece, file))
        return;
    taken->bytes[topic] += bytes;
    taken->messages[topic] += file->messages;
    taken->files[topic]++;
    shared->file_count++;
}

static bool is_enough(const struct taken *taken)
{
    for (uint32_t t = 0; t < DEMO_TOPICS; t++) {
        /* The last file that would fit exactly is not worth looking for. */
        if (taken->files[t] < wanted_files[t] && taken->bytes[t] < wanted_bytes[t] * 9 / 10)
            return false;
    }
    return true;
}

static void take_directory(const char *path, int depth, struct taken *taken)
{
    struct dirent **entries;
    int count = is_enough(taken) ? -1 : scandir(path, &entries, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        char child[512];
        struct stat stat;
        const char *name = entries[i]->d_name;

        if (name[0] != '.' &&
            snprintf(child, sizeof(child), "%s/%s", path, name) < (int)sizeof(child) &&
            lstat(child, &stat) == 0) {
            if (S_ISDIR(stat.st_mode) && depth > 0)
                take_directory(child, depth - 1, taken);
            else if (S_ISREG(stat.st_mode) && stat.st_size > 0 &&
                     (uint64_t)stat.st_size <= FILE_BYTES_MAX)
                take_file(child, (uint64_t)stat.st_size, taken);
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static bool choose_files(void)
{
    static const char *const places[] = {"/usr/share/common-licenses",
                                         "/usr/include",
                                         "/usr/share/perl",
                                         "/usr/bin",
                                         "/usr/lib",
                                         "/usr/share"};
    struct taken taken = {{0}, {0}, {0}};

    say("choosing files of this machine");
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        take_directory(places[i], 3, &taken);
    say("%u text files (%.1f MB, %llu lines), %u binary files (%.1f MB, %llu pieces of 1 to %u bytes)",
        taken.files[DEMO_LINES], (double)taken.bytes[DEMO_LINES] / 1e6,
        (unsigned long long)taken.messages[DEMO_LINES], taken.files[DEMO_BLOBS],
        (double)taken.bytes[DEMO_BLOBS] / 1e6, (unsigned long long)taken.messages[DEMO_BLOBS],
        DEMO_CHUNK_MAX);
    return shared->file_count > 0;
}

/* ---- the processes --------------------------------------------------------------------------- */

_Noreturn static void run_supervisor(int ready_fd)
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor;
    char error[512], log_path[160];
    sigset_t stop;
    int signal_number;

    snprintf(log_path, sizeof(log_path), "%s/shmqd.log", directory);
    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (log >= 0)
        dup2(log, STDERR_FILENO);
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    options.bus = shared->bus;
    options.runtime_dir = shared->runtime_dir;
    options.state_dir = shared->state_dir;
    options.persistent = 1; /* its segments and metadata outlive it: it will be killed */
    if (shmq_supervisor_start(&options, &supervisor, error, sizeof(error)) < 0) {
        printf("demo: supervisor: %s\n", error);
        fflush(stdout);
        _exit(1);
    }
    if (write(ready_fd, "r", 1) != 1)
        _exit(1);
    close(ready_fd);
    sigwait(&stop, &signal_number);
    shmq_supervisor_stop(supervisor);
    _exit(0);
}

bool demo_start_supervisor(void)
{
    int ready[2];
    char byte;

    if (pipe2(ready, O_CLOEXEC) < 0)
        return false;
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ready[0]);
        run_supervisor(ready[1]);
    }
    close(ready[1]);
    bool good = pid > 0 && read(ready[0], &byte, 1) == 1;

    close(ready[0]);
    children[SUPERVISOR] = pid;
    return good;
}

static void start(enum child child)
{
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (child >= PRODUCER0 && child < CONSUMER0)
            demo_run_producer(shared, child - PRODUCER0);
        uint32_t index = child == STANDBY ? 0 : child - CONSUMER0;

        demo_run_consumer(shared, index / DEMO_GROUPS, index % DEMO_GROUPS, child == STANDBY);
    }
    children[child] = pid;
}

static void kill_child(enum child child)
{
    if (children[child] <= 0)
        return;
    kill(children[child], SIGKILL);
    waitpid(children[child], NULL, 0);
    children[child] = 0;
}

void demo_kill_supervisor(bool wait)
{
    if (wait)
        kill_child(SUPERVISOR);
    else if (children[SUPERVISOR] > 0)
        kill(children[SUPERVISOR], SIGKILL);
}

static bool create_topics(void)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    shmq_connection *connection;
    bool good = demo_connect(shared, &connection) == 0;

    options.partitions = 4;
    good = good && shmq_topic_create(connection, demo_topic_names[DEMO_LINES], &options) == 0;
    options.partitions = 3;
    options.max_message = DEMO_CHUNK_MAX + 4096;
    good = good && shmq_topic_create(connection, demo_topic_names[DEMO_BLOBS], &options) == 0;
    if (!good)
        fprintf(stderr, "demo: topics: %s\n", shmq_errmsg(connection));
    shmq_close(connection);
    return good;
}

static void delete_topics(void)
{
    shmq_connection *connection;

    if (demo_connect(shared, &connection) == 0) {
        for (uint32_t t = 0; t < DEMO_TOPICS; t++)
            shmq_topic_delete(connection, demo_topic_names[t]);
    }
    shmq_close(connection);
}

/* ---- the run --------------------------------------------------------------------------------- */

static uint64_t total_messages(void)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < shared->file_count; i++)
        total += shared->files[i].messages;
    return total;
}

static uint64_t total_received(void)
{
    uint64_t total = 0;

    for (uint32_t g = 0; g < DEMO_GROUPS; g++) {
        for (uint32_t t = 0; t < DEMO_TOPICS; t++)
            total += atomic_load_explicit(&shared->received_messages[g][t], memory_order_relaxed);
    }
    return total;
}

/* A child that ends by itself before its time, other than a producer that is done, ends the demo.
 */
static bool children_are_well(void)
{
    for (uint32_t i = 0; i < CHILDREN; i++) {
        int status;

        if (children[i] <= 0 || waitpid(children[i], &status, WNOHANG) != children[i])
            continue;
        children[i] = 0;
        if (i >= PRODUCER0 && i < CONSUMER0 && status == 0)
            continue;
        fprintf(stderr, "demo: process %u ended before its time (status %d)\n", i, status);
        return false;
    }
    return true;
}

static bool wait_until_received(uint64_t wanted)
{
    double deadline = demo_now_s() + DEADLINE_S;

    while (total_received() < wanted) {
        if (!children_are_well())
            return false;
        if (demo_now_s() > deadline) {
            fprintf(stderr, "demo: %llu of %llu messages received when time ran out\n",
                    (unsigned long long)total_received(), (unsigned long long)wanted);
            return false;
        }
        demo_sleep_us(200);
    }
    return true;
}

static bool kill_a_producer(void)
{
    uint32_t victim = PRODUCER0 + 1;

    say("kill -9 producer %d, in the middle of a file", (int)children[victim]);
    kill_child(victim);
    start(victim);
    say("a new one goes on where its notes end");
    return true;
}

static bool kill_a_consumer(void)
{
    double begin = demo_now_s();

    say("kill -9 consumer %d of group %s on %s", (int)children[CONSUMER0], demo_group_names[0],
        demo_topic_names[0]);
    kill_child(CONSUMER0);
    while (!atomic_load(&shared->took_over)) {
        if (demo_now_s() - begin > 10 || !children_are_well())
            return false;
        demo_sleep_us(50);
    }
    say("its standby %d had its first messages after %.2f ms", (int)children[STANDBY],
        (demo_now_s() - begin) * 1e3);
    return true;
}

static bool kill_the_supervisor(void)
{
    uint64_t before = total_received();

    say("kill -9 supervisor %d", (int)children[SUPERVISOR]);
    kill_child(SUPERVISOR);
    demo_sleep_us(100000);
    say("%llu messages were received in 100 ms without a supervisor",
        (unsigned long long)(total_received() - before));
    if (!demo_start_supervisor())
        return false;
    say("supervisor %d has re-attached; nobody else was restarted", (int)children[SUPERVISOR]);
    return true;
}

static bool compare(void)
{
    bool good = atomic_load(&shared->gaps) == 0;

    printf("\n  %-12s %-9s %7s %12s %10s %12s   %s\n", "topic", "group", "files", "messages", "MB",
           "redelivered", "checksums");
    for (uint32_t t = 0; t < DEMO_TOPICS; t++) {
        for (uint32_t g = 0; g < DEMO_GROUPS; g++) {
            uint32_t files = 0, equal = 0;

            for (uint32_t i = 0; i < shared->file_count; i++) {
                const struct demo_file *file = &shared->files[i];
                uint64_t next, bytes, checksum;

                demo_account_read(&shared->received[g][i], &next, &bytes, &checksum);
                if (file->topic != t)
                    continue;
                files++;
                equal +=
                    next == file->messages && bytes == file->bytes && checksum == file->checksum;
            }
            printf("  %-12s %-9s %7u %12llu %10.1f %12llu   %u of %u equal\n", demo_topic_names[t],
                   demo_group_names[g], files,
                   (unsigned long long)atomic_load(&shared->received_messages[g][t]),
                   (double)atomic_load(&shared->received_bytes[g][t]) / 1e6,
                   (unsigned long long)atomic_load(&shared->duplicates[g][t]), equal, files);
            good = good && equal == files;
        }
    }
    return good;
}

static bool run(void)
{
    uint64_t wanted = total_messages() * DEMO_GROUPS;

    if (!demo_start_supervisor())
        return false;
    say("supervisor %d serves bus %s", (int)children[SUPERVISOR], shared->bus);
    if (!create_topics())
        return false;
    for (uint32_t i = 0; i < DEMO_TOPICS * DEMO_GROUPS; i++)
        start(CONSUMER0 + i);
    demo_sleep_us(200000); /* so that the standby really is one */
    start(STANDBY);
    demo_sleep_us(100000);
    say("topics %s (4 partitions) and %s (3), groups %s and %s on each, one standby",
        demo_topic_names[0], demo_topic_names[1], demo_group_names[0], demo_group_names[1]);
    double begin = demo_now_s();

    for (uint32_t i = 0; i < DEMO_PRODUCERS; i++)
        start(PRODUCER0 + i);
    say("%d producers pump", DEMO_PRODUCERS);
    if (!wait_until_received(wanted / 5) || !kill_a_producer() ||
        !wait_until_received(wanted * 2 / 5) || !kill_a_consumer() ||
        !wait_until_received(wanted * 3 / 5) || !kill_the_supervisor() ||
        !wait_until_received(wanted))
        return false;
    say("all received, in %.2f s", demo_now_s() - begin);
    return compare();
}

static void stop_all(void)
{
    atomic_store(&shared->stop, 1);
    for (uint32_t i = PRODUCER0; i < CHILDREN; i++) {
        pid_t pid = children[i];

        if (pid > 0 && i < CONSUMER0)
            kill(pid, SIGKILL);
        if (pid > 0)
            waitpid(pid, NULL, 0);
        children[i] = 0;
    }
}

static void show_log(void)
{
    char path[160], line[1024];

    snprintf(path, sizeof(path), "%s/shmqd.log", directory);
    FILE *log = fopen(path, "re");

    while (log && fgets(line, sizeof(line), log))
        fprintf(stderr, "shmqd: %s", line);
    if (log)
        fclose(log);
}

static void remove_tree(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, NULL);

    for (int i = 0; i < count; i++) {
        char child[512];
        const char *name = entries[i]->d_name;

        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
            snprintf(child, sizeof(child), "%s/%s", path, name) < (int)sizeof(child) &&
            unlink(child) < 0)
            remove_tree(child);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    rmdir(path);
}

static bool nothing_is_left(void)
{
    struct dirent **entries;
    int count = scandir("/dev/shm", &entries, NULL, NULL);
    bool clean = true;

    for (int i = 0; i < count; i++) {
        if (strncmp(entries[i]->d_name, "shmq.", 5) == 0 &&
            strstr(entries[i]->d_name, shared->bus)) {
            fprintf(stderr, "demo: left behind: /dev/shm/%s\n", entries[i]->d_name);
            clean = false;
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return clean;
}

static bool set_up(void)
{
    const char *tmp = getenv("TMPDIR");

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return false;
    snprintf(directory, sizeof(directory), "%s/shmq-demo-XXXXXX",
             tmp && strlen(tmp) < 64 ? tmp : "/tmp");
    if (!mkdtemp(directory))
        return false;
    snprintf(shared->bus, sizeof(shared->bus), "demo-%d", (int)getpid());
    snprintf(shared->runtime_dir, sizeof(shared->runtime_dir), "%s/run", directory);
    snprintf(shared->state_dir, sizeof(shared->state_dir), "%s/state", directory);
    return true;
}

int main(void)
{
    started = demo_now_s();
    signal(SIGPIPE, SIG_IGN);
    if (!set_up()) {
        fprintf(stderr, "demo: cannot be set up: %s\n", strerror(errno));
        return 1;
    }
    bool good = choose_files() && run();

    stop_all();
    good = good && demo_durable(shared);
    if (!good)
        show_log();
    if (children[SUPERVISOR] > 0) {
        delete_topics();
        kill(children[SUPERVISOR], SIGTERM);
        waitpid(children[SUPERVISOR], NULL, 0);
    }
    remove_tree(directory);
    good = nothing_is_left() && good;
    printf(
        good
            ? "\nWhat came out is what went in, although a producer, a consumer and the supervisor were killed;\n"
              "and what was confirmed as durable is there, in order, after all of them were killed at once.\n"
              "Nothing is left behind.\n"
            : "\nThe demo FAILED.\n");
    return good ? 0 : 1;
}
