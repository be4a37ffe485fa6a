/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consumers of a topic with policy spill that stop, while a producer publishes at half the rate that the disk takes:
 * does it notice? See durable.h.
 *
 * Two groups in a process of their own read everything; then that process gets SIGSTOP. The producer's rate is
 * taken every fifth of a second, before and after. When they go on, they have to find every message: from
 * the journal, then from the ring.
 */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <string.h>

#include "tools/perf/durable.h"

#define TOPIC        "spill"
#define SIZE         1024u
#define GROUPS       2u
#define POLL_MAX     256u
#define RING         (UINT64_C(4) << 20)
#define PIECE        (UINT64_C(64) << 10)
#define WINDOW_NS    (200 * NS_PER_MS) /* the producer's rate is that of such a time */
#define STEP_NS      NS_PER_MS         /* messages are due in such steps */
#define PROBE_NS     (UINT64_C(8) * NS_PER_S)
#define SYNC_NS      (100 * NS_PER_MS)
#define CATCH_UP_NS  (UINT64_C(30) * NS_PER_S)
#define RUNNING_PART 4 /* consumers run for such a part of the time for which they are stopped */

enum { STOPPED, RUNNING, BASELINE };

/* ---- consumers ------------------------------------------------------------------------------- */

struct reader {
    struct durable_client client;
    uint64_t expected;
};

static int take(struct reader *reader, struct shmq_message *messages)
{
    int count = shmq_poll(reader->client.consumer, messages, POLL_MAX, 1);

    if (count < 0)
        return durable_fail_library(reader->client.talk, "poll");
    for (int i = 0; i < count; i++) {
        uint64_t number = perf_body_word(messages[i].body);

        if (number != reader->expected)
            return durable_fail(reader->client.talk,
                                "a consumer that had stopped expected message %" PRIu64
                                " and got %" PRIu64,
                                reader->expected, number);
        reader->expected++;
    }
    return 0;
}

/* A process: both groups in turn, until all that was published has come. talk->counts: messages of each group,
 * and behind them how many there are. */
static int consume(void *argument)
{
    struct durable_talk *talk = argument;
    struct reader readers[GROUPS] = {{.expected = 0}};
    struct shmq_message messages[POLL_MAX];
    bool at_end = false;
    int rc = durable_pin(talk, 1);

    for (uint32_t i = 0; rc == 0 && i < GROUPS; i++) {
        rc = durable_connect(&readers[i].client, talk);
        if (rc == 0)
            rc = durable_consume(&readers[i].client, TOPIC, i == 0 ? "first" : "second");
    }
    atomic_fetch_add(&talk->ready, 1);
    while (rc == 0 && !at_end) {
        at_end = atomic_load(&talk->stop) != 0;
        for (uint32_t i = 0; rc == 0 && i < GROUPS; i++) {
            rc = take(&readers[i], messages);
            talk->counts[i] = readers[i].expected;
            at_end = at_end && readers[i].expected == talk->counts[GROUPS];
        }
    }
    for (uint32_t i = 0; i < GROUPS; i++)
        durable_close(&readers[i].client);
    return rc;
}

/* ---- the disk -------------------------------------------------------------------------------- */

/* Appends for so long, and ends with a sync. */
static int write_for(struct durable_talk *talk, struct durable_file *file, uint64_t for_ns,
                     double *ret_bytes_per_s)
{
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t now_ns = begin_ns, synced_ns = begin_ns;
    uint64_t most_bytes = durable_disk_free(talk->floor_dir) / 4;
    uint64_t bytes = 0;
    int rc = 0;

    while (rc == 0 && now_ns - begin_ns < for_ns && bytes < most_bytes) {
        rc = durable_file_append(talk, file, PIECE);
        bytes += PIECE;
        now_ns = clock_monotonic_ns();
        if (rc == 0 && now_ns - synced_ns >= SYNC_NS) {
            rc = durable_file_sync(talk, file);
            now_ns = synced_ns = clock_monotonic_ns();
        }
    }
    if (rc == 0)
        rc = durable_file_sync(talk, file);
    *ret_bytes_per_s = (double)bytes * 1e9 / (double)(clock_monotonic_ns() - begin_ns);
    return rc;
}

/* What it takes for longer than a moment: the second half counts. Many disks, and nearly all virtual ones, take
 * several times as much until a cache or a credit is used up. */
static int probe_disk(struct durable_talk *talk, double *ret_bytes_per_s)
{
    uint64_t half_ns = min_u64(PROBE_NS, talk->stop_ns) / 2;
    struct durable_file file;
    int rc = durable_file_open(talk, DURABLE_GROWING, 0, &file);

    if (rc == 0)
        rc = write_for(talk, &file, half_ns, ret_bytes_per_s);
    if (rc == 0)
        rc = write_for(talk, &file, half_ns, ret_bytes_per_s);
    durable_file_close(&file);
    return rc ? rc : durable_settle(talk);
}

/* ---- the producer ---------------------------------------------------------------------------- */

struct pace {
    double per_s; /* messages */
    uint64_t published;
};

/* Publishes for so long, and files the rates of its windows in a series. Who was held up does not hurry to make up for
 * it beyond its own rate: the rate that is lost shows. */
static int publish_paced(struct durable_client *client, struct pace *pace, uint64_t for_ns,
                         uint32_t series)
{
    struct shmq_message message = {.body = NULL};
    const struct timespec step = timespec_from_ns(STEP_NS / 4);
    uint32_t windows = (uint32_t)min_u64(for_ns / WINDOW_NS, PERF_DURABLE_ROUNDS_MAX);
    double owed = 0;

    for (uint32_t i = 0; i < max_u64(windows, 1); i++) {
        uint64_t begin_ns = clock_monotonic_ns();
        uint64_t last_ns = begin_ns, now_ns = begin_ns;
        uint64_t count = 0;

        while (now_ns - begin_ns < WINDOW_NS) {
            owed = fmin(owed + (double)(now_ns - last_ns) * pace->per_s / 1e9,
                        pace->per_s * (double)STEP_NS / 1e9 * 8);
            last_ns = now_ns;
            while (owed >= 1) {
                if (durable_publish(client, &message))
                    return 1;
                owed--;
                count++;
            }
            (void)nanosleep(&step, NULL);
            now_ns = clock_monotonic_ns();
        }
        pace->published += count;
        durable_value(client->talk, series, i, (double)count * 1e9 / (double)(now_ns - begin_ns));
    }
    return 0;
}

static int create_topic(struct durable_client *client)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    int rc;

    options.durability = SHMQ_DURABLE_OS;
    options.overflow = SHMQ_SPILL;
    options.ring_bytes = RING;
    options.producers = SHMQ_PRODUCERS_SINGLE;
    rc = durable_create(client, TOPIC, &options);
    return rc ? rc : durable_produce(client, TOPIC, SIZE);
}

static int wait_for_consumers(struct durable_talk *talk)
{
    uint64_t deadline_ns = deadline_after_ms(DURABLE_STEP_MS);

    while (atomic_load(&talk->ready) == 0) {
        if (deadline_passed(deadline_ns))
            return durable_fail(talk, "consumers did not come up");
        (void)usleep(1000);
    }
    return 0;
}

/* They go on, and find everything. */
static int finish(struct durable_talk *talk, struct perf_child *consumers, uint64_t published,
                  double per_s)
{
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t behind = published - min_u64(talk->counts[0], published);
    char bytes[PERF_TEXT_BYTES], rate[PERF_TEXT_BYTES];

    talk->counts[GROUPS] = published;
    atomic_store(&talk->stop, 1);
    (void)kill(consumers->pid, SIGCONT);
    if (!perf_child_succeeds(consumers, begin_ns + CATCH_UP_NS))
        return durable_fail(talk, "consumers that went on did not get everything in %d s",
                            (int)(CATCH_UP_NS / NS_PER_S));
    (void)snprintf(
        talk->note, sizeof(talk->note),
        "published at %s; each of %u groups then caught up %s in %.1f s, nothing lost",
        perf_text_value(per_s * (double)durable_record_bytes(SIZE), PERF_BYTES_PER_S, rate), GROUPS,
        perf_text_value((double)behind * (double)durable_record_bytes(SIZE), PERF_BYTES, bytes),
        (double)(clock_monotonic_ns() - begin_ns) / 1e9);
    return 0;
}

/* Half of what the disk takes, and no more than it has room for. */
static double choose_rate(const struct durable_talk *talk, double disk_bytes_per_s)
{
    double seconds = (double)talk->stop_ns * (1 + 1.0 / RUNNING_PART) / 1e9;
    double room = (double)durable_disk_free(talk->floor_dir) / 3;

    return fmin(disk_bytes_per_s / 2, room / seconds) / (double)durable_record_bytes(SIZE);
}

static int run_producer(struct durable_client *client, struct perf_child *consumers, double per_s)
{
    struct durable_talk *talk = client->talk;
    struct pace pace = {.per_s = per_s};
    int rc = publish_paced(client, &pace, talk->stop_ns / RUNNING_PART, RUNNING);
    double before = perf_spread_of(talk->values[RUNNING], PERF_DURABLE_ROUNDS_MAX).median;

    if (rc == 0 && kill(consumers->pid, SIGSTOP) < 0)
        rc = durable_fail(talk, "consumers ended early");
    if (rc == 0)
        rc = publish_paced(client, &pace, talk->stop_ns, STOPPED);
    for (uint32_t i = 0; i < PERF_DURABLE_ROUNDS_MAX; i++) {
        if (isfinite(talk->values[STOPPED][i]))
            durable_value(talk, BASELINE, i, before);
    }
    return rc ? rc : finish(talk, consumers, pace.published, per_s);
}

static int measure_spill(void *argument)
{
    struct durable_talk *talk = argument;
    struct durable_client client = {.talk = talk};
    struct perf_child consumers = {.pid = 0};
    double disk_bytes_per_s = NAN;
    int rc = durable_pin(talk, 0);

    atomic_store(&talk->ready, 0);
    atomic_store(&talk->stop, 0);
    if (rc == 0)
        rc = probe_disk(talk, &disk_bytes_per_s);
    if (rc == 0)
        rc = durable_connect(&client, talk);
    if (rc == 0)
        rc = create_topic(&client);
    if (rc == 0 && !perf_child_call(&consumers, consume, talk))
        rc = durable_fail(talk, "no process for consumers");
    if (rc == 0)
        rc = wait_for_consumers(talk);
    if (rc == 0)
        rc = run_producer(&client, &consumers, choose_rate(talk, disk_bytes_per_s));
    (void)perf_child_succeeds(&consumers, 0); /* also one that is stopped */
    durable_close(&client);
    return rc;
}

static void report_spill(struct durable_run *run)
{
    char what[80], seconds[PERF_TEXT_BYTES];

    (void)snprintf(what, sizeof(what), "spill: producer while consumers stop for %.16s",
                   perf_text_round((double)run->talk->stop_ns, PERF_NS, seconds));
    (void)durable_report(run, &(struct durable_row){
                                  .what = what,
                                  .size = SIZE,
                                  .unit = PERF_MESSAGES_PER_S,
                                  .subject = STOPPED,
                                  .subject_name = "shmq, they are stopped",
                                  .baseline = BASELINE,
                                  .baseline_name = "shmq, they read",
                                  .target = 0.9,
                              });
}

const struct durable_scenario durable_scenario_spill = {
    .name = "spill",
    .title = "consumers that stop",
    .measure = measure_spill,
    .report = report_spill,
};
