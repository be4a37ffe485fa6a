/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions an operation; see instructions.h. */
#include "tools/perf/instructions.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "daemon/shmqd.h"
#include "libshmq/clock.h"
#include "tools/perf/facts.h"
#include "tools/perf/place.h"
#include "tools/perf/workload.h"

#define STEP_NS       (60 * NS_PER_S)
#define CALLGRIND_NS  (120 * NS_PER_S)
#define PROFILE_BYTES (16u << 20)
#define NOTE_BYTES    300

static const struct {
    const char *name; /* in the guard's table */
    const char *what;
    double most; /* < 0: no target of its own */
} OPERATIONS[PERF_OPERATIONS] = {
    [PERF_PUBLISH_SINGLE] = {"publish", "instructions: publish of 32 B, one producer", 60},
    [PERF_PUBLISH_MULTI] = {"publish_multi", "instructions: publish of 32 B, several producers",
                            80},
    [PERF_BATCH] = {"publish_batch", "instructions a message: a batch of 32, each 32 B", 35},
    [PERF_POLL] = {"poll", "instructions a message: poll of 64 and release", 35},
    [PERF_POLL_ONE] = {"poll_one", "instructions: poll of one and release", -1},
};

struct counts {
    struct perf_steps stepped[PERF_OPERATIONS];
    double profiled[PERF_OPERATIONS]; /* 0: not to be had */
    char why[NOTE_BYTES / 2];         /* why `profiled` is not */
    bool failed;                      /* rather than not to be had on this machine */
};

static void ignore_line(int level UNUSED, const char *line UNUSED, void *context UNUSED)
{
}

/* ---- callgrind ------------------------------------------------------------------------------- */

static void read_profiles(const struct perf_place *place, struct counts *counts)
{
    for (uint32_t i = 0; i < PERF_OPERATIONS; i++) {
        char name[32];
        size_t bytes;
        char *text;
        uint64_t instructions;

        (void)snprintf(name, sizeof(name), "profile.%u",
                       perf_workload_part((enum perf_operation)i));
        text = perf_read_file(perf_place_path(place, name), PROFILE_BYTES, &bytes);
        if (text && perf_callgrind_total(text, &instructions))
            counts->profiled[i] = (double)instructions / PERF_WORKLOAD_MESSAGES;
        free(text);
    }
    if (counts->profiled[0] <= 0)
        (void)snprintf(counts->why, sizeof(counts->why),
                       "callgrind saw no such function: this program is stripped");
}

/* Only what is inside the exported functions counts. */
static void profile(const struct perf_place *place, struct counts *counts)
{
    char valgrind[PERF_PATH_BYTES], output[PERF_PATH_BYTES + 32], log[PERF_PATH_BYTES];
    const char *own = perf_own_path();
    const char *const arguments[] = {
        valgrind,
        "--tool=callgrind",
        "--collect-atstart=no",
        "--toggle-collect=shmq_publish",
        "--toggle-collect=shmq_publish_batch",
        "--toggle-collect=shmq_poll",
        "--dump-before=perf_workload_mark",
        output,
        own,
        "instructions",
        "--workload",
        place->bus,
        place->dir,
        NULL,
    };
    struct perf_child child;

    if (!perf_find_program("valgrind", valgrind)) {
        (void)snprintf(counts->why, sizeof(counts->why), "valgrind is not installed");
        return;
    }
    (void)snprintf(output, sizeof(output), "--callgrind-out-file=%s",
                   perf_place_path(place, "profile"));
    (void)snprintf(log, sizeof(log), "%s", perf_place_path(place, "valgrind.log"));
    if (perf_child_execute(&child, arguments, NULL, log) &&
        perf_child_succeeds(&child, clock_monotonic_ns() + CALLGRIND_NS)) {
        read_profiles(place, counts);
    } else {
        char line[NOTE_BYTES / 3];

        counts->failed = true;
        perf_read_last_line(log, line, sizeof(line));
        (void)snprintf(counts->why, sizeof(counts->why), "callgrind failed: %s", line);
    }
}

/* ---- both ------------------------------------------------------------------------------------ */

/* In memory shared with the process that is the supervisor, and steps. */
struct talk {
    struct perf_place place;
    struct counts counts;
    bool ready;
};

/* A process of its own: the supervisor's threads, and the handler of SIGTRAP, end with it. It stays, for
 * the client under callgrind. */
static int supervise_and_step(void *argument)
{
    struct talk *talk = argument;
    const struct timespec long_time = {.tv_sec = (STEP_NS + CALLGRIND_NS) / NS_PER_S};
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor;
    char why[NOTE_BYTES];

    options.bus = talk->place.bus;
    options.runtime_dir = talk->place.dir;
    options.log = ignore_line;
    if (shmq_supervisor_start(&options, &supervisor, why, sizeof(why)) < 0) {
        (void)fprintf(stderr, "shmq-perf: instructions: %s\n", why);
        return 1;
    }
    if (!perf_workload_step(talk->place.bus, talk->place.dir, talk->counts.stepped))
        return 1;
    __atomic_store_n(&talk->ready, true, __ATOMIC_RELEASE);
    (void)nanosleep(&long_time, NULL);
    return 0;
}

static void count(struct counts *ret_counts)
{
    struct talk *talk =
        mmap(NULL, sizeof(*talk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct perf_child host;

    memset(ret_counts, 0, sizeof(*ret_counts));
    ret_counts->failed = true;
    (void)snprintf(ret_counts->why, sizeof(ret_counts->why), "no folder for a bus: set TMPDIR");
    if (talk == MAP_FAILED)
        return;
    if (perf_place_take(&talk->place, PERF_PLACE_ANY)) {
        talk->counts.failed = true;
        (void)snprintf(talk->counts.why, sizeof(talk->counts.why),
                       "interrupted, or a call or the supervisor failed and said why");
        if (perf_child_call_ready(&host, supervise_and_step, talk, &talk->ready,
                                  clock_monotonic_ns() + STEP_NS)) {
            talk->counts.failed = false;
            talk->counts.why[0] = '\0';
            profile(&talk->place, &talk->counts);
            perf_child_end(&host);
        }
        *ret_counts = talk->counts;
        perf_place_leave(&talk->place);
    }
    (void)munmap(talk, sizeof(*talk));
}

static void fill_row(struct perf_comparison *row, uint32_t operation, const struct counts *counts)
{
    static char notes[PERF_OPERATIONS][NOTE_BYTES];
    double stepped = counts->stepped[operation].all, profiled = counts->profiled[operation];
    double clock = counts->stepped[operation].clock;
    double value = profiled > 0 && profiled + clock > stepped ? profiled + clock : stepped;
    char *note = notes[operation];

    memset(row, 0, sizeof(*row));
    (void)snprintf(row->what, sizeof(row->what), "%s", OPERATIONS[operation].what);
    (void)snprintf(row->subject, sizeof(row->subject), "shmq");
    row->unit = PERF_COUNT;
    row->subject_value = perf_spread_of(&value, value > 0 ? 1 : 0);
    row->has_target = OPERATIONS[operation].most >= 0;
    row->target_is_most = true;
    row->target = row->has_target ? OPERATIONS[operation].most : 0;
    if (value <= 0)
        row->verdict = PERF_NOT_OBSERVED;
    else if (!row->has_target)
        row->verdict = PERF_NO_TARGET;
    else
        row->verdict = value <= row->target ? PERF_MET : PERF_MISSED;
    if (stepped > 0 && profiled > 0)
        (void)snprintf(note, NOTE_BYTES,
                       "stepped through a call: %.1f, of these %.1f in the kernel's vDSO (the "
                       "clock); callgrind, which does not see it: %.1f a message",
                       stepped, clock, profiled);
    else if (stepped > 0)
        (void)snprintf(note, NOTE_BYTES, "stepped through; %s", counts->why);
    else if (profiled > 0)
        (void)snprintf(
            note, NOTE_BYTES,
            "callgrind alone, which does not see the clock in the vDSO: no stepping here");
    else
        (void)snprintf(note, NOTE_BYTES, "no stepping here; %s", counts->why);
    row->note = note;
}

int perf_instructions_measure(struct perf_comparison *rows, uint32_t max)
{
    uint32_t row_count = max < PERF_OPERATIONS ? max : PERF_OPERATIONS;
    struct counts counts;

    count(&counts);
    for (uint32_t i = 0; i < row_count; i++)
        fill_row(&rows[i], i, &counts);
    return (int)row_count;
}

/* ---- the verb -------------------------------------------------------------------------------- */

static void print_count(bool found, double instructions)
{
    if (found)
        (void)printf(" %.2f", instructions);
    else
        (void)printf(" -");
}

int perf_instructions_main(int argc, char **argv)
{
    struct counts counts;
    bool found = false;

    if (argc == 4 && strcmp(argv[1], "--workload") == 0)
        return perf_workload_profile(argv[2], argv[3]) ? 0 : 1;
    if (argc != 1) {
        (void)fprintf(stderr, "usage: shmq-perf instructions\n");
        return 2;
    }
    count(&counts);
    for (uint32_t i = 0; i < PERF_OPERATIONS; i++) {
        (void)printf("%s", OPERATIONS[i].name);
        print_count(counts.stepped[i].all > 0, counts.stepped[i].all);
        print_count(counts.stepped[i].all > 0, counts.stepped[i].clock);
        print_count(counts.profiled[i] > 0, counts.profiled[i]);
        (void)printf("\n");
        found = found || counts.stepped[i].all > 0 || counts.profiled[i] > 0;
    }
    if (counts.why[0])
        (void)fprintf(stderr, "shmq-perf: instructions: %s\n", counts.why);
    return found && !counts.failed && fflush(stdout) == 0 ? 0 : 1;
}
