/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One producer as fast as it can, policies os and interval, beside a loop that writes 64 KiB at a time to a file; and
 * what a publish takes that nobody waits for; see durable.h.
 *
 * A stream's rate is that of what becomes durable, in bytes of journal (headers and padding included), between two
 * looks at the flusher while it runs; before the first one it has written so much that files have their full size.
 * The floor without a sync is that of policy os, with one every 100 ms that of policy interval; into a file that grows,
 * as one that a program appends to, and into one that was allocated before, which is harder to reach. All of them write into a
 * page cache that is clean. Beside them, for policy interval, what a file takes that was written before: no log of new files can
 * have that for nothing, one that uses its files again could.
 */
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/perf/durable.h"

#define PIECE       (UINT64_C(64) << 10)
#define WARM_BYTES  (UINT64_C(64) << 20) /* a journal's files grow up to that size */
#define RING        (UINT64_C(16) << 20)
#define INTERVAL_MS 100
#define LOOK_BYTES  (UINT64_C(1) << 20)   /* between two looks at the clock */
#define AGAIN_BYTES (UINT64_C(512) << 20) /* of a file that is written round and round */
#define MEMORY_PART 16                    /* of the machine's memory, that a trial fills at most */

static const uint32_t SIZES[] = {100, 1024, 16384, 65536};
#define SIZE_COUNT 4u

/* Series: shmq at each size, then these. */
enum { GROWING = SIZE_COUNT, ALLOCATED, AGAIN, MESSAGES };
#define FLOOR_COUNT 3u /* from GROWING on */

struct stream {
    struct durable_talk *talk;
    struct durable_client client;
    uint32_t durability;       /* enum shmq_durability */
    uint64_t bytes;            /* at most, of a trial */
    struct durable_file again; /* for all rounds */
};

static uint64_t ring_bytes(const struct durable_talk *talk)
{
    return talk->ring_bytes ? talk->ring_bytes : RING;
}

/* ---- shmq ------------------------------------------------------------------------------------ */

static const char *topic_name(uint32_t size)
{
    static char name[32];

    (void)snprintf(name, sizeof(name), "stream-%u", size);
    return name;
}

static int create_topic(struct stream *stream, uint32_t size)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    int rc;

    options.durability = stream->durability;
    options.sync_interval_ms = INTERVAL_MS;
    options.ring_bytes = ring_bytes(stream->talk);
    options.producers = SHMQ_PRODUCERS_SINGLE;
    rc = durable_create(&stream->client, topic_name(size), &options);
    return rc ? rc : durable_produce(&stream->client, topic_name(size), size);
}

/* Until so much was published, or the time has come. */
static int publish_until(struct stream *stream, uint64_t bytes, uint64_t deadline_ns)
{
    struct shmq_message message = {.body = NULL};
    uint64_t record_bytes = durable_record_bytes(stream->client.size);
    uint64_t looked = 0;

    for (uint64_t done = 0; done < bytes; done += record_bytes) {
        if (durable_publish(&stream->client, &message))
            return 1;
        looked += record_bytes;
        if (looked >= LOOK_BYTES) {
            looked = 0;
            if (deadline_passed(deadline_ns))
                return 0;
        }
    }
    return 0;
}

static int measure_publishing(struct stream *stream, uint32_t size, double *ret_bytes_per_s)
{
    struct durable_talk *talk = stream->talk;
    struct durable_journal before, behind;
    uint64_t begin_ns, end_ns;
    int rc = publish_until(stream, WARM_BYTES + ring_bytes(talk), DEADLINE_NEVER);

    if (rc == 0)
        rc = durable_look(&stream->client, topic_name(size), &before);
    begin_ns = clock_monotonic_ns();
    if (rc == 0)
        rc = publish_until(stream, stream->bytes, begin_ns + talk->trial_ns);
    if (rc == 0)
        rc = durable_look(&stream->client, topic_name(size), &behind);
    end_ns = clock_monotonic_ns();
    if (rc == 0)
        *ret_bytes_per_s =
            (double)(behind.durable - before.durable) * 1e9 / (double)(end_ns - begin_ns);
    return rc;
}

/* Topics that are deleted go in the background. */
static int wait_until_removed(struct durable_talk *talk)
{
    uint64_t deadline_ns = deadline_after_ms(DURABLE_STEP_MS);
    char path[2 * PERF_PATH_BYTES];
    uint32_t left;

    (void)snprintf(path, sizeof(path), "%s/%s/journal", talk->state_dir, talk->bus);
    do {
        DIR *directory = opendir(path);
        const struct dirent *entry;

        left = 0;
        while (directory && (entry = readdir(directory)) != NULL)
            left += entry->d_name[0] != '.';
        if (directory)
            (void)closedir(directory);
        if (left > 0)
            (void)usleep(1000);
    } while (left > 0 && !deadline_passed(deadline_ns));
    return left == 0 ? 0 : durable_fail(talk, "the journal of a deleted topic stays");
}

static int stream_through_shmq(struct stream *stream, uint32_t index, uint32_t round)
{
    struct durable_talk *talk = stream->talk;
    double rate = NAN;
    int rc = create_topic(stream, SIZES[index]);

    if (rc == 0)
        rc = measure_publishing(stream, SIZES[index], &rate);
    if (rc)
        return rc;
    durable_value(talk, index, round, rate);
    if (index == 0)
        durable_value(talk, MESSAGES, round, rate / (double)durable_record_bytes(SIZES[index]));
    if (shmq_topic_delete(stream->client.connection, topic_name(SIZES[index])) < 0)
        return durable_fail_library(talk, "topic");
    return wait_until_removed(talk);
}

/* ---- the floor ------------------------------------------------------------------------------- */

/* With policy interval it ends with a sync, and what it takes counts. */
static int write_stream(struct stream *stream, struct durable_file *file, uint64_t bytes,
                        uint64_t trial_ns, double *ret_bytes_per_s)
{
    struct durable_talk *talk = stream->talk;
    bool syncs = stream->durability == SHMQ_DURABLE_INTERVAL;
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t now_ns = begin_ns, synced_ns = begin_ns;
    uint64_t done = 0;
    int rc = 0;

    while (rc == 0 && done < bytes && now_ns - begin_ns < trial_ns) {
        for (uint64_t i = 0; rc == 0 && i < LOOK_BYTES; i += PIECE)
            rc = durable_file_append(talk, file, PIECE);
        done += LOOK_BYTES;
        now_ns = clock_monotonic_ns();
        if (rc == 0 && syncs && now_ns - synced_ns >= INTERVAL_MS * NS_PER_MS) {
            rc = durable_file_sync(talk, file);
            now_ns = synced_ns = clock_monotonic_ns();
        }
    }
    if (rc == 0 && syncs)
        rc = durable_file_sync(talk, file);
    now_ns = clock_monotonic_ns();
    *ret_bytes_per_s = (double)done * 1e9 / (double)(now_ns - begin_ns);
    return rc;
}

/* 1 with the reason; -1: this file system cannot. */
static int choose_file(struct stream *stream, uint32_t series, struct durable_file *own,
                       struct durable_file **ret_file)
{
    *ret_file = own;
    if (series == GROWING)
        return durable_file_open(stream->talk, DURABLE_GROWING, 0, own);
    if (series == ALLOCATED) /* as long as the trial: no page is written twice */
        return durable_file_open(stream->talk, DURABLE_ALLOCATED, stream->bytes + LOOK_BYTES, own);
    *ret_file = &stream->again;
    return stream->again.fd >= 0
               ? 0
               : durable_file_open(stream->talk, DURABLE_ZEROED,
                                   min_u64(AGAIN_BYTES, stream->bytes), &stream->again);
}

static int stream_into_file(struct stream *stream, uint32_t series, uint32_t round)
{
    struct durable_talk *talk = stream->talk;
    struct durable_file own = {.fd = -1};
    struct durable_file *file;
    double rate = NAN;
    int rc = choose_file(stream, series, &own, &file);

    if (rc < 0)
        return 0; /* of the two there is one only */
    if (rc == 0)
        rc = write_stream(stream, file, stream->bytes, talk->trial_ns, &rate);
    if (rc == 0)
        durable_value(talk, series, round, rate);
    durable_file_close(&own);
    return rc;
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static int run_trial(struct stream *stream, uint32_t series, uint32_t round)
{
    int rc = series < SIZE_COUNT ? stream_through_shmq(stream, series, round)
                                 : stream_into_file(stream, series, round);

    return rc ? rc : durable_settle(stream->talk);
}

static int measure_stream(struct durable_talk *talk, uint32_t durability)
{
    struct stream stream = {
        .talk = talk, .client.talk = talk, .durability = durability, .again.fd = -1};
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint32_t turns = durability == SHMQ_DURABLE_INTERVAL ? AGAIN + 1 : AGAIN;
    int rc = durable_pin(talk, 0);

    stream.bytes = min_u64(talk->stream_bytes,
                           min_u64(durable_disk_free(talk->floor_dir) / 4, memory / MEMORY_PART));
    if (rc == 0)
        rc = durable_connect(&stream.client, talk);
    for (uint32_t round = 0; rc == 0 && round < talk->rounds; round++) {
        for (uint32_t turn = 0; rc == 0 && turn < turns; turn++)
            rc = run_trial(&stream, durable_turn(round, turn, turns), round);
    }
    durable_file_close(&stream.again);
    durable_close(&stream.client);
    return rc;
}

static int measure_os(void *talk)
{
    return measure_stream(talk, SHMQ_DURABLE_OS);
}

static int measure_interval(void *talk)
{
    return measure_stream(talk, SHMQ_DURABLE_INTERVAL);
}

static const char *const FLOORS[][FLOOR_COUNT] = {
    {"write, growing file", "write, allocated file", ""},
    {"write + sync, growing file", "write + sync, allocated file",
     "write + sync, file written before"},
};

#define STREAM_FLOORS 2u /* with a target: GROWING, ALLOCATED */

/* One of the two is asked for at this size: so much of a floor, or so many messages. */
static void report_messages(struct durable_run *run, const char *what, const char *shmq)
{
    static const char why[] = "one of the two is asked for: the ratio, or the rate";
    struct perf_comparison *rate = durable_report(run, &(struct durable_row){
                                                           .what = what,
                                                           .size = SIZES[0],
                                                           .unit = PERF_MESSAGES_PER_S,
                                                           .subject = MESSAGES,
                                                           .subject_name = shmq,
                                                           .target = 2e6,
                                                       });
    struct perf_comparison *ratios = rate - STREAM_FLOORS;
    bool met = rate->verdict == PERF_MET;

    for (uint32_t i = 0; i < STREAM_FLOORS; i++)
        met = met || ratios[i].verdict == PERF_MET;
    for (uint32_t i = 0; met && i <= STREAM_FLOORS; i++) {
        if (ratios[i].verdict != PERF_MISSED)
            continue;
        ratios[i].verdict = PERF_MET;
        ratios[i].note = why;
    }
}

static void report_stream(struct durable_run *run, const char *what, bool syncs)
{
    char shmq[PERF_NAME_BYTES], ring[PERF_TEXT_BYTES];

    (void)snprintf(shmq, sizeof(shmq), "shmq, %.16s ring",
                   perf_text_size(ring_bytes(run->talk), ring));
    for (uint32_t i = 0; i < SIZE_COUNT; i++) {
        for (uint32_t floor = GROWING; floor < GROWING + STREAM_FLOORS; floor++)
            (void)durable_report(run, &(struct durable_row){
                                          .what = what,
                                          .size = SIZES[i],
                                          .unit = PERF_BYTES_PER_S,
                                          .subject = i,
                                          .subject_name = shmq,
                                          .baseline = floor,
                                          .baseline_name = FLOORS[syncs][floor - GROWING],
                                          .target = SIZES[i] < 1024 ? 0.7 : 0.8,
                                      });
        if (SIZES[i] < 1024)
            report_messages(run, what, shmq);
    }
    for (uint32_t i = 0; i < FLOOR_COUNT; i++)
        durable_report_value(run, "floors: 64 KiB at a time", FLOORS[syncs][i], GROWING + i,
                             PERF_BYTES_PER_S);
}

static void report_os(struct durable_run *run)
{
    report_stream(run, "os, streaming", false);
}

static void report_interval(struct durable_run *run)
{
    report_stream(run, "interval 100 ms, streaming", true);
}

const struct durable_scenario durable_scenario_os = {
    .name = "os",
    .title = "policy os, streaming",
    .measure = measure_os,
    .report = report_os,
};

const struct durable_scenario durable_scenario_interval = {
    .name = "interval",
    .title = "policy interval, streaming",
    .measure = measure_interval,
    .report = report_interval,
};

/* ---- what a publish takes -------------------------------------------------------------------- */

#define BURST       32u
#define PACE        (UINT64_C(120) * 1000 * 1000) /* bytes a second, which any flusher keeps up with */
#define BURSTS_MOST (UINT32_C(1) << 16)

static const uint32_t PUBLISH_SIZES[] = {100, 1024};
#define PUBLISH_SIZE_COUNT 2u

/* Series: of each size durable and not. */
#define PUBLISH_KEPT(size)  (2 * (size))
#define PUBLISH_PLAIN(size) (2 * (size) + 1)
#define PUBLISH_SERIES      (2 * PUBLISH_SIZE_COUNT)

static int compare_samples(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* A single publish is shorter than a few steps of most clocks. */
static int time_bursts(struct durable_client *client, uint64_t trial_ns, uint32_t *samples,
                       double *ret_median_ns)
{
    struct shmq_message message = {.body = NULL};
    double ticks_per_ns = 1.0 / perf_clock.ns_per_tick;
    uint64_t pause_ns = BURST * durable_record_bytes(client->size) * NS_PER_S / PACE;
    uint64_t pause = (uint64_t)((double)pause_ns * ticks_per_ns);
    uint64_t begin = perf_ticks_fenced();
    uint64_t end = begin + (uint64_t)((double)trial_ns * ticks_per_ns);
    uint64_t next = begin;
    uint32_t count = 0;

    for (; count < BURSTS_MOST && next < end; next += pause) {
        uint64_t before;

        do {
            cpu_relax();
            before = perf_ticks();
        } while (before < next);
        before = perf_ticks_fenced();
        for (uint32_t i = 0; i < BURST; i++) {
            if (durable_publish(client, &message))
                return 1;
        }
        samples[count++] = (uint32_t)min_u64(perf_ticks_fenced() - before, UINT32_MAX);
    }
    qsort(samples, count, sizeof(samples[0]), compare_samples);
    *ret_median_ns = count > 0 ? perf_ns_of_ticks(samples[count / 2]) / BURST : NAN;
    return 0;
}

static int open_publish(struct durable_talk *talk, struct durable_client *client, uint32_t series)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    char topic[32];
    int rc = durable_connect(client, talk);

    (void)snprintf(topic, sizeof(topic), "publish-%u", series);
    options.durability = series % 2 == 0 ? SHMQ_DURABLE_OS : SHMQ_DURABLE_NONE;
    options.ring_bytes = DURABLE_RING;
    options.producers = SHMQ_PRODUCERS_SINGLE;
    if (rc == 0)
        rc = durable_create(client, topic, &options);
    return rc ? rc : durable_produce(client, topic, PUBLISH_SIZES[series / 2]);
}

static int measure_publish(void *argument)
{
    struct durable_talk *talk = argument;
    struct durable_client clients[PUBLISH_SERIES] = {{.talk = NULL}};
    uint32_t *samples = perf_alloc_pages(BURSTS_MOST * sizeof(*samples));
    double ns = NAN;
    int rc = durable_pin(talk, 0);

    for (uint32_t i = 0; rc == 0 && i < PUBLISH_SERIES; i++) {
        rc = open_publish(talk, &clients[i], i);
        if (rc == 0) /* pages are mapped in the first lap */
            rc = time_bursts(&clients[i], talk->trial_ns, samples, &ns);
    }
    for (uint32_t round = 0; rc == 0 && round < talk->rounds; round++) {
        for (uint32_t turn = 0; rc == 0 && turn < PUBLISH_SERIES; turn++) {
            uint32_t series = durable_turn(round, turn, PUBLISH_SERIES);

            rc = time_bursts(&clients[series], talk->trial_ns / 2, samples, &ns);
            if (rc == 0)
                durable_value(talk, series, round, ns);
        }
    }
    for (uint32_t i = 0; i < PUBLISH_SERIES; i++)
        durable_close(&clients[i]);
    free(samples);
    return rc;
}

static void report_publish(struct durable_run *run)
{
    for (uint32_t i = 0; i < PUBLISH_SIZE_COUNT; i++)
        (void)durable_report(run, &(struct durable_row){
                                      .what = "publish: p50 of a durable topic, no confirm",
                                      .size = PUBLISH_SIZES[i],
                                      .unit = PERF_NS,
                                      .subject = PUBLISH_KEPT(i),
                                      .subject_name = "shmq, os",
                                      .baseline = PUBLISH_PLAIN(i),
                                      .baseline_name = "shmq, not durable",
                                      .at_most = true,
                                      .target = i == 0 ? 1.3 : 0,
                                  });
}

const struct durable_scenario durable_scenario_publish = {
    .name = "publish",
    .title = "publishing to a durable topic and to one that is not",
    .measure = measure_publish,
    .report = report_publish,
};
