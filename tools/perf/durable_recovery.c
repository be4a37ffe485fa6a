/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A start after a crash of the host: shmqd is killed, its segments are gone, and its files no longer in the page cache;
 * how long from its start until it is ready, and how much did it read? See durable.h.
 *
 * The files are synced before they are dropped from the cache: what a real crash would leave of them is
 * smaller, never larger. Where a long history is asked for, one more start behind it shows that the time does not grow
 * with it.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libshmq/journal_read.h"
#include "tools/perf/durable.h"
#include "tools/perf/facts.h"

#define SMALL      100u
#define LARGE      1024u
#define LONG_RING  (UINT64_C(16) << 20)
#define SPARE_DISK (UINT64_C(2) << 30) /* that stays free behind a long history */
#define LOG_MOST   ((size_t)1 << 20)
#define READ_BYTES ((size_t)128 << 10)
#define TOPIC      "recovery"

enum { READY, SCANNED, NEWEST, READING, SERIES };
#define LONG (uint32_t) SERIES /* where those behind a long history begin */

/* ---- what is lost and what stays ------------------------------------------------------------- */

/* A measurer: all of it on disk. */
static int write_history(void *argument)
{
    struct durable_talk *talk = argument;
    struct durable_client client = {.talk = talk};
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    uint32_t size = talk->long_bytes > 0 ? LARGE : SMALL;
    uint64_t messages = talk->long_bytes > 0 ? talk->long_bytes / durable_record_bytes(size)
                                             : talk->recovery_messages;
    int rc = durable_pin(talk, 0);

    options.durability = SHMQ_DURABLE_ALWAYS;
    options.ring_bytes = talk->long_bytes > 0 ? LONG_RING : DURABLE_RING;
    options.producers = SHMQ_PRODUCERS_SINGLE;
    if (rc == 0)
        rc = durable_connect(&client, talk);
    if (rc == 0)
        rc = durable_create(&client, TOPIC, &options);
    if (rc == 0)
        rc = durable_produce(&client, TOPIC, size);
    if (rc == 0)
        rc = durable_fill(&client, messages);
    talk->counts[0] = messages;
    durable_close(&client);
    return rc;
}

struct newest {
    uint64_t base, bytes;
    char path[3 * PERF_PATH_BYTES];
};

static void look_at_file(const char *path, const char *name, void *context)
{
    struct newest *newest = context;
    struct stat status;
    uint64_t base;

    if (!journal_parse_name(name, &base) || base < newest->base || stat(path, &status) < 0)
        return;
    newest->base = base;
    newest->bytes = (uint64_t)status.st_size;
    (void)snprintf(newest->path, sizeof(newest->path), "%s", path);
}

/* The journal's newest file, below STATE/BUS/journal/TOPIC.ID/0. */
static void find_newest(const struct durable_talk *talk, struct newest *ret_newest)
{
    char folder[2 * PERF_PATH_BYTES];

    *ret_newest = (struct newest){0, 0, ""};
    (void)snprintf(folder, sizeof(folder), "%s/%s/journal", talk->state_dir, talk->bus);
    durable_walk(folder, look_at_file, ret_newest);
}

/* NAN: it cannot be read. */
static double time_reading(const char *path)
{
    char *buffer = perf_alloc_pages(READ_BYTES);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t begin_ns = clock_monotonic_ns();
    ssize_t n = -1;

    do {
        n = fd >= 0 ? read(fd, buffer, READ_BYTES) : -1;
    } while (n > 0);
    if (fd >= 0)
        (void)close(fd);
    free(buffer);
    return n == 0 ? (double)(clock_monotonic_ns() - begin_ns) : NAN;
}

/* ---- what shmqd says ------------------------------------------------------------------------- */

bool durable_parse_recovery(const char *log, uint64_t *ret_messages, uint64_t *ret_scanned)
{
    static const char words[] = "recovered from its journal: ";
    const char *line = NULL;
    const char *end;

    for (const char *at = strstr(log, words); at; at = strstr(at + 1, words))
        line = at + strlen(words); /* the last one is of the last start */
    end = line ? strchr(line, '(') : NULL;
    return end && sscanf(line, "%" SCNu64 " messages", ret_messages) == 1 &&
           sscanf(end, "(%" SCNu64 " bytes scanned", ret_scanned) == 1;
}

static bool read_log(struct durable_run *run, uint64_t *ret_scanned)
{
    struct durable_talk *talk = run->talk;
    uint64_t messages = 0;
    size_t bytes;
    char *log = perf_read_file(perf_place_path(&run->place, "shmqd.log"), LOG_MOST, &bytes);
    bool found = log && durable_parse_recovery(log, &messages, ret_scanned);

    free(log);
    if (!found)
        return durable_set_failure(talk, "shmqd does not say that it recovered anything");
    if (messages != talk->counts[0])
        return durable_set_failure(
            talk, "%" PRIu64 " messages were confirmed, %" PRIu64 " were recovered",
            talk->counts[0], messages);
    return true;
}

/* ---- one crash ------------------------------------------------------------------------------- */

static bool crash_and_start(struct durable_run *run, struct perf_daemon *daemon, uint32_t round,
                            uint32_t series)
{
    struct durable_talk *talk = run->talk;
    struct newest newest;
    uint64_t scanned = 0;

    perf_daemon_crash(daemon);
    find_newest(talk, &newest);
    durable_evict(talk->state_dir);
    if (!durable_restart_shmqd(run, daemon) || !read_log(run, &scanned))
        return false;
    durable_value(talk, series + READY, round, (double)daemon->ready_ns);
    durable_value(talk, series + SCANNED, round, (double)scanned);
    durable_value(talk, series + NEWEST, round, (double)newest.bytes);
    durable_evict(talk->state_dir);
    durable_value(talk, series + READING, round, time_reading(newest.path));
    return true;
}

static bool run_once(struct durable_run *run, uint32_t round, uint32_t series)
{
    struct perf_daemon daemon;
    bool done;

    if (!durable_start_shmqd(run, TOPIC, &daemon))
        return false;
    done = durable_measure(run, write_history) && crash_and_start(run, &daemon, round, series);
    durable_stop_shmqd(run, &daemon);
    return done;
}

static bool run_recovery(struct durable_run *run)
{
    struct durable_talk *talk = run->talk;
    uint64_t history_bytes = run->plan->durable.history_bytes;

    talk->long_bytes = 0;
    for (uint32_t round = 0; round < talk->rounds; round++) {
        if (!run_once(run, round, READY))
            return false;
    }
    if (history_bytes == 0)
        return true;
    if (durable_disk_free(run->disk) < history_bytes + SPARE_DISK)
        return durable_set_failure(talk, "the disk has no room for so long a history");
    talk->long_bytes = history_bytes;
    return run_once(run, 0, LONG);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void report_start(struct durable_run *run, const char *what, uint32_t series, uint32_t least)
{
    char scanned[80], beside[80];

    (void)durable_report(run, &(struct durable_row){
                                  .what = what,
                                  .unit = PERF_NS,
                                  .subject = series + READY,
                                  .subject_name = "shmqd, start to ready",
                                  .at_most = true,
                                  .target = 200e6,
                                  .least = least,
                              });
    (void)snprintf(beside, sizeof(beside), "%.60s, beside reading", what);
    (void)durable_report(run, &(struct durable_row){
                                  .what = beside,
                                  .unit = PERF_NS,
                                  .subject = series + READY,
                                  .subject_name = "shmqd, start to ready",
                                  .baseline = series + READING,
                                  .baseline_name = "read() of the newest file",
                                  .at_most = true,
                                  .least = least,
                              });
    (void)snprintf(scanned, sizeof(scanned), "%.60s, scanned", what);
    (void)durable_report(run, &(struct durable_row){
                                  .what = scanned,
                                  .unit = PERF_BYTES,
                                  .subject = series + SCANNED,
                                  .subject_name = "shmqd",
                                  .baseline = series + NEWEST,
                                  .baseline_name = "the newest file",
                                  .at_most = true,
                                  .target = 1,
                                  .least = least,
                              });
}

static void report_recovery(struct durable_run *run)
{
    uint64_t history_bytes = run->plan->durable.history_bytes;
    char what[80], count[PERF_TEXT_BYTES];

    (void)snprintf(what, sizeof(what), "recovery: %.16s messages of 100 B, cold",
                   perf_text_value((double)run->talk->recovery_messages, PERF_COUNT, count));
    report_start(run, what, READY, 0);
    if (history_bytes == 0)
        return;
    (void)snprintf(what, sizeof(what), "recovery: %.16s of history, cold",
                   perf_text_size(history_bytes, count));
    report_start(run, what, LONG, 1);
}

const struct durable_scenario durable_scenario_recovery = {
    .name = "recovery",
    .title = "shmqd starts after its memory was lost",
    .run = run_recovery,
    .report = report_recovery,
};
