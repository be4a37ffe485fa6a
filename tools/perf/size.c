/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What shmq costs when it does nothing; see size.h.
 *
 * What is counted. Resident: VmRSS of shmqd, libraries and all, right after READY=1, and once a client has
 * come and gone. Text: that of `size`, everything mapped that cannot be written, not .text alone. A partition:
 * the pages of its segments other than the ring (D), with one group, and how much private memory and page
 * tables (RssAnon, VmPTE) shmqd and a client grow by. Start to ready: from before the fork. Connect and open:
 * each time in a new process, which pays for its cold caches and page faults. All with state on a disk,
 * synced as always.
 */
#include "tools/perf/size.h"

#include <linux/magic.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "tools/perf/facts.h"
#include "tools/perf/place.h"
#include "tools/perf/size_internal.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)

#define STARTS     7
#define OPENS      15
#define CREATIONS  3
#define SLEEPERS   4
#define IDLE_TRIES 3
#define IDLE_NS    NS_PER_S
#define SETTLE_NS  (300 * NS_PER_MS)
#define NOTE_BYTES 300

enum row {
    ROW_RESIDENT,
    ROW_RESIDENT_AFTER,
    ROW_TEXT,
    ROW_PARTITION,
    ROW_SEGMENTS,
    ROW_SHMQD_PRIVATE,
    ROW_CLIENT_PRIVATE,
    ROW_READY,
    ROW_OPEN_PRODUCER,
    ROW_OPEN_CONSUMER,
    ROW_TOPICS,
    ROW_IDLE_CPU,
    ROW_IDLE_WAKES,
    ROW_COUNT
};
_Static_assert(ROW_COUNT <= PERF_SIZE_ROWS, "room for all rows");

/* `most` < 0: no target of its own. */
static const struct {
    const char *what, *subject;
    enum perf_unit unit;
    double most;
} ROWS[ROW_COUNT] = {
    [ROW_RESIDENT] = {"resident, idle, just started", "shmqd", PERF_BYTES, 4.0 * MIB},
    [ROW_RESIDENT_AFTER] = {"resident, idle, a client came and went", "shmqd", PERF_BYTES,
                            4.0 * MIB},
    [ROW_TEXT] = {"text, as `size` counts it", "libshmq.so", PERF_BYTES, 150.0 * KIB},
    [ROW_PARTITION] = {"a partition besides its ring, all of it", "shmq", PERF_BYTES, 64.0 * KIB},
    [ROW_SEGMENTS] = {"  of these, segments S, P, W and G of one group", "shared memory",
                      PERF_BYTES, -1},
    [ROW_SHMQD_PRIVATE] = {"  of these, private to the supervisor", "shmqd", PERF_BYTES, -1},
    [ROW_CLIENT_PRIVATE] = {"  of these, private to one producer and consumer", "libshmq",
                            PERF_BYTES, -1},
    [ROW_READY] = {"start to ready, fresh state", "shmqd", PERF_NS, 20e6},
    [ROW_OPEN_PRODUCER] = {"connect and open a producer, new process", "libshmq", PERF_NS, 1e6},
    [ROW_OPEN_CONSUMER] = {"connect and open a consumer, new group", "libshmq", PERF_NS, 1e6},
    [ROW_TOPICS] = {"1,000 topics with rings of 64 KiB created", "shmq", PERF_NS, 2e9},
    [ROW_IDLE_CPU] = {"processor time a second, 4 topics and sleepers", "shmqd", PERF_NS, 0},
    [ROW_IDLE_WAKES] = {"wake-ups a second, 4 topics and sleepers", "shmqd", PERF_COUNT, 0},
};

struct run {
    struct perf_comparison *rows; /* [ROW_COUNT] */
    const char *program;          /* shmqd; NULL: there is none */
    struct size_talk *talk;       /* shared with the clients */
    double samples[ROW_COUNT][OPENS];
    uint32_t sample_count[ROW_COUNT];
    char program_path[PERF_PATH_BYTES];
};

static char notes[ROW_COUNT][NOTE_BYTES];

static void add_sample(struct run *run, enum row row, double value)
{
    if (run->sample_count[row] < OPENS)
        run->samples[row][run->sample_count[row]++] = value;
}

static void explain(struct run *run, enum row first, enum row last, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void explain(struct run *run, enum row first, enum row last, const char *format, ...)
{
    for (uint32_t row = first; row <= (uint32_t)last; row++) {
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(notes[row], sizeof(notes[row]), format, arguments);
        va_end(arguments);
        run->rows[row].note = notes[row];
    }
}

/* ---- clients --------------------------------------------------------------------------------- */

static bool run_client(struct run *run, int (*body)(void *argument))
{
    struct perf_child child;

    return perf_child_call(&child, body, run->talk) &&
           perf_child_succeeds(&child, clock_monotonic_ns() + SIZE_STEP_NS);
}

/* Returns when the client says that it is there; it stays. */
static bool start_client(struct run *run, int (*body)(void *argument), struct perf_child *ret_child)
{
    return perf_child_call_ready(ret_child, body, run->talk, &run->talk->ready,
                                 clock_monotonic_ns() + SIZE_STEP_NS);
}

/* ---- measurements, each on a bus that is fresh ----------------------------------------------- */

typedef void measure_fn(struct run *run, const struct perf_daemon *daemon);

/* False: no shmqd; said in the rows. */
static bool with_daemon(struct run *run, enum row first, enum row last, measure_fn *measure)
{
    char why[NOTE_BYTES / 2];
    struct perf_place place;
    struct perf_daemon daemon;
    struct statfs disk;
    bool started;

    if (!run->program) {
        explain(run, first, last, "no shmqd beside this program or on PATH");
        return false;
    }
    if (!perf_place_take(&place, PERF_PLACE_DISK)) {
        explain(run, first, last, "no folder for a bus's state: set TMPDIR");
        return false;
    }
    (void)snprintf(run->talk->bus, sizeof(run->talk->bus), "%s", place.bus);
    (void)snprintf(run->talk->runtime_dir, sizeof(run->talk->runtime_dir), "%s",
                   perf_place_path(&place, "run"));
    if (statfs(place.dir, &disk) == 0 && disk.f_type == TMPFS_MAGIC)
        explain(run, first, last, "%s is in memory, where syncing is free: set TMPDIR", place.dir);
    started = perf_daemon_start(&daemon, &place, run->program, why, sizeof(why));
    if (started) {
        measure(run, &daemon);
        perf_daemon_stop(&daemon);
    } else {
        explain(run, first, last, "shmqd does not start: %s", why);
    }
    perf_place_leave(&place);
    return started;
}

static void measure_start(struct run *run, const struct perf_daemon *daemon)
{
    struct perf_process process;

    add_sample(run, ROW_READY, (double)daemon->ready_ns);
    if (perf_read_process(daemon->child.pid, &process))
        add_sample(run, ROW_RESIDENT, (double)process.resident_bytes);
    if (run_client(run, size_client_connects) && perf_read_process(daemon->child.pid, &process))
        add_sample(run, ROW_RESIDENT_AFTER, (double)process.resident_bytes);
}

static void measure_open(struct run *run, const struct perf_daemon *daemon UNUSED)
{
    bool goes_on = run_client(run, size_client_creates_one);

    for (run->talk->try = 0; goes_on && run->talk->try < 2 * OPENS; run->talk->try++) {
        goes_on = run_client(run, size_client_opens);
        if (goes_on)
            add_sample(run, run->talk->try % 2 ? ROW_OPEN_CONSUMER : ROW_OPEN_PRODUCER,
                       run->talk->value);
    }
}

static void measure_topics(struct run *run, const struct perf_daemon *daemon UNUSED)
{
    if (run_client(run, size_client_creates_topics))
        add_sample(run, ROW_TOPICS, run->talk->value);
}

static void measure_partitions(struct run *run, const struct perf_daemon *daemon)
{
    struct perf_process before, behind;
    struct perf_folder segments, whole_bus;
    struct perf_child client;
    char prefix[48];
    double shared, shmqd, own;

    (void)snprintf(prefix, sizeof(prefix), "shmq.%s.", run->talk->bus);
    if (!run_client(run, size_client_connects) || !perf_read_process(daemon->child.pid, &before) ||
        !perf_read_folder("/dev/shm", prefix, NULL, &whole_bus) ||
        !start_client(run, size_client_holds, &client))
        return;
    if (perf_read_process(daemon->child.pid, &behind) &&
        perf_read_folder("/dev/shm", prefix, ".D", &segments)) {
        shared = (double)(segments.allocated - whole_bus.allocated) / SIZE_PARTITIONS;
        shmqd = (double)(behind.private_bytes - before.private_bytes) / SIZE_PARTITIONS;
        own = run->talk->value / SIZE_PARTITIONS;
        add_sample(run, ROW_SEGMENTS, shared);
        add_sample(run, ROW_SHMQD_PRIVATE, shmqd);
        add_sample(run, ROW_CLIENT_PRIVATE, own);
        add_sample(run, ROW_PARTITION, shared + shmqd + own);
        explain(run, ROW_SEGMENTS, ROW_SEGMENTS, "%llu bytes in %llu files; they take whole pages",
                (unsigned long long)((segments.bytes - whole_bus.bytes) / SIZE_PARTITIONS),
                (unsigned long long)((segments.files - whole_bus.files) / SIZE_PARTITIONS));
    }
    perf_child_end(&client);
}

static void measure_idle(struct run *run, const struct perf_daemon *daemon)
{
    const struct timespec settle = timespec_from_ns(SETTLE_NS);
    const struct timespec window = timespec_from_ns(IDLE_NS);
    struct perf_child sleepers[SLEEPERS] = {{.pid = 0}};
    bool goes_on = true;

    for (run->talk->try = 0; goes_on && run->talk->try < SLEEPERS; run->talk->try++)
        goes_on = start_client(run, size_client_sleeps, &sleepers[run->talk->try]);
    (void)nanosleep(&settle, NULL);
    for (uint32_t i = 0; goes_on && i < IDLE_TRIES; i++) {
        struct perf_process before, behind;
        uint64_t start_ns = clock_monotonic_ns();
        double seconds;

        goes_on = perf_read_process(daemon->child.pid, &before) && nanosleep(&window, NULL) == 0 &&
                  perf_read_process(daemon->child.pid, &behind) && !perf_place_interrupted();
        if (!goes_on)
            break;
        seconds = (double)(clock_monotonic_ns() - start_ns) / (double)NS_PER_S;
        add_sample(run, ROW_IDLE_CPU, (double)(behind.cpu_ns - before.cpu_ns) / seconds);
        add_sample(run, ROW_IDLE_WAKES, (double)(behind.switches - before.switches) / seconds);
    }
    for (uint32_t i = 0; i < SLEEPERS; i++)
        perf_child_end(&sleepers[i]);
}

static void measure_text(struct run *run)
{
    static const char *const names[] = {"libshmq.so.0", "../lib/libshmq.so.0", "../lib/libshmq.so"};
    char path[PERF_PATH_BYTES + 32];
    uint64_t text;

    for (size_t i = 0; i < COUNT_OF(names); i++) {
        size_t bytes = 0;
        char *image;
        bool understood;

        (void)snprintf(path, sizeof(path), "%s/%s", perf_own_folder(), names[i]);
        image = perf_read_file(path, 16 * MIB, &bytes);
        if (!image)
            continue;
        understood = perf_elf_text(image, bytes, &text);
        free(image);
        if (understood)
            add_sample(run, ROW_TEXT, (double)text);
        else
            explain(run, ROW_TEXT, ROW_TEXT, "%s is no ELF object of this machine", path);
        return;
    }
    explain(run, ROW_TEXT, ROW_TEXT, "no libshmq.so beside this program or in ../lib");
}

/* 64 MiB of rings, and as much again for all the rest and for others. */
static bool has_room(void)
{
    struct statvfs status;

    return statvfs("/dev/shm", &status) == 0 &&
           (uint64_t)status.f_bavail * status.f_frsize >= 2 * SIZE_TOPICS * SIZE_RING_BYTES;
}

static void measure_all(struct run *run)
{
    bool goes_on = true;

    measure_text(run);
    for (uint32_t i = 0; goes_on && i < STARTS && !perf_place_interrupted(); i++)
        goes_on = with_daemon(run, ROW_READY, ROW_READY, measure_start);
    if (!goes_on)
        explain(run, ROW_RESIDENT, ROW_RESIDENT_AFTER, "%s", notes[ROW_READY]);
    goes_on = with_daemon(run, ROW_PARTITION, ROW_CLIENT_PRIVATE, measure_partitions) && goes_on;
    (void)with_daemon(run, ROW_OPEN_PRODUCER, ROW_OPEN_CONSUMER, measure_open);
    if (!has_room())
        explain(run, ROW_TOPICS, ROW_TOPICS, "/dev/shm has no room for 1,000 rings of 64 KiB");
    for (uint32_t i = 0; goes_on && has_room() && i < CREATIONS; i++)
        goes_on = with_daemon(run, ROW_TOPICS, ROW_TOPICS, measure_topics);
    (void)with_daemon(run, ROW_IDLE_CPU, ROW_IDLE_WAKES, measure_idle);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void begin_row(struct perf_comparison *row, enum row which)
{
    memset(row, 0, sizeof(*row));
    (void)snprintf(row->what, sizeof(row->what), "%s", ROWS[which].what);
    (void)snprintf(row->subject, sizeof(row->subject), "%s", ROWS[which].subject);
    row->unit = ROWS[which].unit;
    row->has_target = ROWS[which].most >= 0;
    row->target_is_most = true;
    row->target = row->has_target ? ROWS[which].most : 0;
}

static void end_row(struct run *run, enum row which)
{
    struct perf_comparison *row = &run->rows[which];

    row->subject_value = perf_spread_of(run->samples[which], run->sample_count[which]);
    if (run->sample_count[which] == 0) {
        row->verdict = PERF_NOT_OBSERVED;
        if (!row->note)
            row->note = "interrupted, or a client failed and said why";
    } else if (!row->has_target) {
        row->verdict = PERF_NO_TARGET;
    } else {
        row->verdict = row->subject_value.median <= row->target ? PERF_MET : PERF_MISSED;
    }
}

int perf_size_measure(struct perf_comparison *rows, uint32_t max)
{
    static struct perf_comparison all[ROW_COUNT];
    static struct run run;
    uint32_t count = max < ROW_COUNT ? max : ROW_COUNT;

    memset(&run, 0, sizeof(run));
    run.rows = all;
    run.talk =
        mmap(NULL, sizeof(*run.talk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run.talk == MAP_FAILED)
        return 0;
    for (uint32_t i = 0; i < ROW_COUNT; i++)
        begin_row(&all[i], (enum row)i);
    if (perf_find_program("shmqd", run.program_path))
        run.program = run.program_path;
    measure_all(&run);
    for (uint32_t i = 0; i < ROW_COUNT; i++)
        end_row(&run, (enum row)i);
    memcpy(rows, all, count * sizeof(rows[0]));
    (void)munmap(run.talk, sizeof(*run.talk));
    return (int)count;
}
