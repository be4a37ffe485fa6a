/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy always, each message confirmed on disk: how many a second with a window of a thousand, how long one takes,
 * and whether several producers share a sync; see durable.h.
 *
 * The window's floors write batches of the size that the flusher made in the same round: what became durable, by the
 * number of its syncs. One appends to a file that grows. The other's file is full of zeros that were synced before, as
 * journals are, so a sync is one write of the disk's and no metadata; but nobody fills a next file meanwhile, as shmqd
 * does. One outstanding is held against 4 KiB, the page that a small message dirties.
 */
#include <math.h>
#include <string.h>

#include "tools/perf/durable.h"

#define WINDOW      1000u
#define FLOOR_BYTES (UINT64_C(64) << 20) /* of a floor's file, which is written round and round */
#define APPEND      UINT64_C(4096)
#define PRODUCERS   4u
#define SMALL       100u
#define LOOK_EVERY  64u /* messages between two looks at the clock */

static const struct shmq_topic_options *always_options(uint32_t producers)
{
    static struct shmq_topic_options options;

    options = (struct shmq_topic_options)SHMQ_TOPIC_OPTIONS_INIT;
    options.durability = SHMQ_DURABLE_ALWAYS;
    options.ring_bytes = DURABLE_RING;
    options.producers = producers;
    return &options;
}

/* ---- a window -------------------------------------------------------------------------------- */

static const uint32_t WINDOW_SIZES[] = {SMALL, 1024};
#define WINDOW_SIZE_COUNT 2u

/* Series: of each size shmq and floor, and behind those the batches. */
#define WINDOW_FLOORS             2u
#define WINDOW_SHMQ(size)         (3 * (size))
#define WINDOW_FLOOR(size, floor) (3 * (size) + 1 + (floor))
#define WINDOW_BATCH(size)        (3 * WINDOW_SIZE_COUNT + (size))

static const char *const WINDOW_FLOOR_NAMES[WINDOW_FLOORS] = {"growing file", "zero-filled file"};

static const char *window_topic(uint32_t index)
{
    static const char *const names[WINDOW_SIZE_COUNT] = {"window-0", "window-1"};

    return names[index];
}

/* At most WINDOW messages are not confirmed; each is confirmed by itself. */
static int run_window(struct durable_client *client, uint64_t trial_ns, double *ret_rate)
{
    static struct shmq_message sent[WINDOW];
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t published = 0, confirmed = 0;

    for (;;) {
        if (published - confirmed == WINDOW && durable_confirm(client, &sent[confirmed++ % WINDOW]))
            return 1;
        if (published % LOOK_EVERY == 0 && clock_monotonic_ns() - begin_ns >= trial_ns)
            break;
        sent[published % WINDOW] = (struct shmq_message){.body = NULL};
        if (durable_publish(client, &sent[published % WINDOW]))
            return 1;
        published++;
    }
    if (published > 0 && durable_confirm(client, &sent[(published - 1) % WINDOW]))
        return 1;
    *ret_rate = (double)published * 1e9 / (double)(clock_monotonic_ns() - begin_ns);
    return 0;
}

static int floor_batches(struct durable_talk *talk, struct durable_file *file, uint64_t batch_bytes,
                         double *ret_bytes_per_s)
{
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t bytes = 0, now_ns;
    int rc = 0;

    do {
        rc = durable_file_append(talk, file, batch_bytes);
        if (rc == 0)
            rc = durable_file_sync(talk, file);
        bytes += batch_bytes;
        now_ns = clock_monotonic_ns();
    } while (rc == 0 && now_ns - begin_ns < talk->trial_ns);
    *ret_bytes_per_s = (double)bytes * 1e9 / (double)(now_ns - begin_ns);
    return rc;
}

/* Whole records of what a sync took on average. */
static uint64_t batch_of(const struct durable_journal *before, const struct durable_journal *behind,
                         uint64_t record_bytes)
{
    uint64_t syncs = behind->syncs - before->syncs;
    uint64_t bytes = behind->durable - before->durable;
    uint64_t records = syncs > 0 ? bytes / syncs / record_bytes : 1;

    return max_u64(records, 1) * record_bytes;
}

static int measure_window_at(struct durable_client *client, struct durable_file *files,
                             uint32_t index, uint32_t round)
{
    struct durable_talk *talk = client->talk;
    uint64_t record_bytes = durable_record_bytes(WINDOW_SIZES[index]);
    struct durable_journal before, behind;
    uint64_t batch_bytes;
    double rate = NAN;
    int rc = durable_produce(client, window_topic(index), WINDOW_SIZES[index]);

    if (rc == 0)
        rc = durable_look(client, window_topic(index), &before);
    if (rc == 0)
        rc = run_window(client, talk->trial_ns, &rate);
    if (rc == 0)
        rc = durable_look(client, window_topic(index), &behind);
    if (rc)
        return rc;
    durable_value(talk, WINDOW_SHMQ(index), round, rate);
    batch_bytes = batch_of(&before, &behind, record_bytes);
    durable_value(talk, WINDOW_BATCH(index), round, (double)batch_bytes);
    for (uint32_t floor = 0; rc == 0 && floor < WINDOW_FLOORS; floor++) {
        rc = durable_settle(talk);
        if (rc == 0)
            rc = floor_batches(talk, &files[floor], batch_bytes, &rate);
        durable_value(talk, WINDOW_FLOOR(index, floor), round, rate / (double)record_bytes);
    }
    return rc;
}

static int prepare_window(struct durable_client *client, struct durable_talk *talk,
                          struct durable_file *ret_files)
{
    int rc = durable_pin(talk, 0);

    if (rc == 0)
        rc = durable_connect(client, talk);
    for (uint32_t i = 0; rc == 0 && i < WINDOW_SIZE_COUNT; i++) {
        double ignored;

        rc = durable_create(client, window_topic(i), always_options(SHMQ_PRODUCERS_SINGLE));
        if (rc == 0)
            rc = durable_produce(client, window_topic(i), WINDOW_SIZES[i]);
        if (rc == 0) /* files grow up to their full size first */
            rc = run_window(client, talk->trial_ns, &ignored);
    }
    if (rc == 0)
        rc = durable_file_open(talk, DURABLE_GROWING, 0, &ret_files[0]);
    return rc ? rc : durable_file_open(talk, DURABLE_ZEROED, FLOOR_BYTES, &ret_files[1]);
}

static int measure_window(void *argument)
{
    struct durable_talk *talk = argument;
    struct durable_client client = {.talk = talk};
    struct durable_file files[WINDOW_FLOORS] = {{.fd = -1}, {.fd = -1}};
    int rc = prepare_window(&client, talk, files);

    for (uint32_t round = 0; rc == 0 && round < talk->rounds; round++) {
        for (uint32_t turn = 0; rc == 0 && turn < WINDOW_SIZE_COUNT; turn++)
            rc = measure_window_at(&client, files, durable_turn(round, turn, WINDOW_SIZE_COUNT),
                                   round);
    }
    for (uint32_t floor = 0; floor < WINDOW_FLOORS; floor++)
        durable_file_close(&files[floor]);
    durable_close(&client);
    return rc;
}

static void report_window(struct durable_run *run)
{
    for (uint32_t i = 0; i < WINDOW_SIZE_COUNT; i++) {
        struct perf_spread batch =
            perf_spread_of(run->talk->values[WINDOW_BATCH(i)], PERF_DURABLE_ROUNDS_MAX);
        char name[PERF_NAME_BYTES], bytes[PERF_TEXT_BYTES];

        for (uint32_t floor = 0; floor < WINDOW_FLOORS; floor++) {
            (void)snprintf(name, sizeof(name), "%.16s + fdatasync, %s",
                           batch.count > 0 ? perf_text_value(batch.median, PERF_BYTES, bytes)
                                           : "append",
                           WINDOW_FLOOR_NAMES[floor]);
            (void)durable_report(run, &(struct durable_row){
                                          .what = "always, window 1,000",
                                          .size = WINDOW_SIZES[i],
                                          .unit = PERF_MESSAGES_PER_S,
                                          .subject = WINDOW_SHMQ(i),
                                          .subject_name = "shmq",
                                          .baseline = WINDOW_FLOOR(i, floor),
                                          .baseline_name = name,
                                          .target = 0.85,
                                      });
        }
    }
}

const struct durable_scenario durable_scenario_window = {
    .name = "window",
    .title = "policy always, a thousand outstanding",
    .measure = measure_window,
    .report = report_window,
};

/* ---- one outstanding ------------------------------------------------------------------------- */

/* Of each contender two series: p50 and p99. */
enum { CONFIRMED, APPENDED_GROWING, APPENDED_ZEROED, CONTENDERS };
_Static_assert((int)CONTENDERS <= (int)DURABLE_TIMES_MAX, "a histogram each");

struct one_by_one {
    struct durable_client client;
    struct durable_file files[CONTENDERS]; /* the first is none */
    struct perf_histogram *times;          /* of the trial */
};

static int confirm_one(struct one_by_one *state, uint32_t contender)
{
    struct durable_talk *talk = state->client.talk;
    struct durable_file *file = &state->files[contender];
    struct shmq_message message = {.body = NULL};
    int rc;

    if (contender == CONFIRMED) {
        rc = durable_publish(&state->client, &message);
        return rc ? rc : durable_confirm(&state->client, &message);
    }
    rc = durable_file_append(talk, file, APPEND);
    return rc ? rc : durable_file_sync(talk, file);
}

static int time_one_by_one(struct one_by_one *state, uint32_t contender, uint32_t round)
{
    static const double percentiles[] = {50, 99};
    struct durable_talk *talk = state->client.talk;
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t before_ns = begin_ns;
    uint64_t values[COUNT_OF(percentiles)];
    int rc = 0;

    (void)perf_histogram_init(state->times);
    while (rc == 0 && before_ns - begin_ns < 2 * talk->trial_ns) {
        uint64_t now_ns;

        rc = confirm_one(state, contender);
        now_ns = clock_monotonic_ns();
        perf_histogram_record(state->times, now_ns - before_ns);
        before_ns = now_ns;
    }
    if (rc)
        return rc;
    perf_histogram_at_each(state->times, percentiles, COUNT_OF(percentiles), values);
    perf_histogram_add(&talk->times[contender], state->times);
    durable_value(talk, 2 * contender, round, (double)values[0]);
    durable_value(talk, 2 * contender + 1, round, (double)values[1]);
    return durable_settle(talk);
}

static int prepare_confirm(struct one_by_one *state, struct durable_talk *talk)
{
    int rc = durable_pin(talk, 0);

    if (rc == 0)
        rc = durable_connect(&state->client, talk);
    if (rc == 0)
        rc = durable_create(&state->client, "confirm", always_options(SHMQ_PRODUCERS_SINGLE));
    if (rc == 0)
        rc = durable_produce(&state->client, "confirm", SMALL);
    if (rc == 0)
        rc = durable_file_open(talk, DURABLE_GROWING, 0, &state->files[APPENDED_GROWING]);
    if (rc == 0)
        rc = durable_file_open(talk, DURABLE_ZEROED, FLOOR_BYTES, &state->files[APPENDED_ZEROED]);
    for (uint32_t i = 0; rc == 0 && i < CONTENDERS; i++)
        rc = confirm_one(state, i);
    return rc;
}

static int measure_confirm(void *argument)
{
    struct durable_talk *talk = argument;
    struct one_by_one state = {.client.talk = talk, .times = perf_histogram_new()};
    int rc;

    for (uint32_t i = 0; i < CONTENDERS; i++)
        state.files[i].fd = -1;
    rc = prepare_confirm(&state, talk);
    for (uint32_t round = 0; rc == 0 && round < talk->rounds; round++) {
        for (uint32_t turn = 0; rc == 0 && turn < CONTENDERS; turn++)
            rc = time_one_by_one(&state, durable_turn(round, turn, CONTENDERS), round);
    }
    for (uint32_t i = 0; i < CONTENDERS; i++)
        durable_file_close(&state.files[i]);
    durable_close(&state.client);
    perf_histogram_free(state.times);
    return rc;
}

/* Both floors have the target: the growing file is what it speaks of, the other one is what a journal can have. */
static void report_confirm(struct durable_run *run)
{
    static const char *const floors[] = {[APPENDED_GROWING] = "4 KiB append, growing file",
                                         [APPENDED_ZEROED] = "4 KiB append, zero-filled file"};

    for (uint32_t floor = APPENDED_GROWING; floor < CONTENDERS; floor++) {
        for (uint32_t is_p99 = 0; is_p99 < 2; is_p99++)
            (void)durable_report(run, &(struct durable_row){
                                          .what = is_p99 ? "always, one outstanding, p99"
                                                         : "always, one outstanding, p50",
                                          .size = SMALL,
                                          .unit = PERF_NS,
                                          .subject = 2 * CONFIRMED + is_p99,
                                          .subject_name = "shmq",
                                          .baseline = 2 * floor + is_p99,
                                          .baseline_name = floors[floor],
                                          .at_most = true,
                                          .target = is_p99 ? 1.5 : 1.25,
                                      });
    }
    durable_report_times(run, "shmq", 2 * CONFIRMED, CONFIRMED);
    for (uint32_t floor = APPENDED_GROWING; floor < CONTENDERS; floor++)
        durable_report_times(run, floors[floor], 2 * floor, floor);
}

const struct durable_scenario durable_scenario_confirm = {
    .name = "confirm",
    .title = "policy always, one outstanding",
    .measure = measure_confirm,
    .report = report_confirm,
};

/* ---- several producers ----------------------------------------------------------------------- */

enum { SEVERAL, ALONE };

struct producer {
    struct durable_talk *talk;
    uint32_t index;
};

/* A process: one outstanding, for a trial's time from when all are told to begin. */
static int produce_in_turn(void *argument)
{
    const struct producer *self = argument;
    struct durable_talk *talk = self->talk;
    struct shmq_message message = {.body = NULL};
    struct durable_client client = {.talk = talk};
    uint64_t deadline_ns = clock_monotonic_ns() + 2 * DURABLE_STEP_MS * NS_PER_MS;
    uint64_t begin_ns, now_ns, count = 0;
    int rc = durable_pin(talk, self->index);

    if (rc == 0)
        rc = durable_connect(&client, talk);
    if (rc == 0)
        rc = durable_produce(&client, "producers", SMALL);
    atomic_fetch_add(&talk->ready, 1);
    while (rc == 0 && atomic_load(&talk->start_ns) == 0) {
        if (deadline_passed(deadline_ns))
            rc = durable_fail(talk, "producers were not told to begin");
        (void)usleep(100);
    }
    begin_ns = now_ns = clock_monotonic_ns();
    while (rc == 0 && now_ns - begin_ns < talk->trial_ns) {
        rc = durable_publish(&client, &message);
        if (rc == 0)
            rc = durable_confirm(&client, &message);
        count++;
        now_ns = clock_monotonic_ns();
    }
    if (rc == 0)
        talk->rates[self->index] = (double)count * 1e9 / (double)(now_ns - begin_ns);
    durable_close(&client);
    return rc;
}

static int wait_for_team(struct durable_talk *talk, uint32_t count)
{
    uint64_t deadline_ns = clock_monotonic_ns() + 2 * DURABLE_STEP_MS * NS_PER_MS;

    while (atomic_load(&talk->ready) < count) {
        if (deadline_passed(deadline_ns))
            return durable_fail(talk, "producers did not come up");
        (void)usleep(1000);
    }
    return 0;
}

static int run_producers(struct durable_talk *talk, uint32_t count, double *ret_rate)
{
    struct perf_child children[PRODUCERS] = {{.pid = 0}};
    struct producer producers[PRODUCERS];
    uint64_t deadline_ns = clock_monotonic_ns() + talk->trial_ns + 4 * DURABLE_STEP_MS * NS_PER_MS;
    int rc = 0;

    atomic_store(&talk->ready, 0);
    atomic_store(&talk->start_ns, 0);
    memset(talk->rates, 0, sizeof(talk->rates));
    for (uint32_t i = 0; i < count; i++) {
        producers[i] = (struct producer){talk, i};
        if (!perf_child_call(&children[i], produce_in_turn, &producers[i]))
            rc = durable_fail(talk, "no process for a producer");
    }
    if (rc == 0)
        rc = wait_for_team(talk, count);
    atomic_store(&talk->start_ns, clock_monotonic_ns());
    *ret_rate = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!perf_child_succeeds(&children[i], rc == 0 ? deadline_ns : 0) && rc == 0)
            rc = durable_fail(talk, "a producer ended early");
        *ret_rate += talk->rates[i];
    }
    return rc;
}

static int measure_producers(void *argument)
{
    static const uint32_t counts[] = {[SEVERAL] = PRODUCERS, [ALONE] = 1};
    struct durable_talk *talk = argument;
    struct durable_client client = {.talk = talk};
    int rc = durable_connect(&client, talk);

    if (rc == 0)
        rc = durable_create(&client, "producers", always_options(SHMQ_PRODUCERS_MULTI));
    for (uint32_t round = 0; rc == 0 && round < talk->rounds; round++) {
        for (uint32_t turn = 0; rc == 0 && turn < COUNT_OF(counts); turn++) {
            uint32_t series = durable_turn(round, turn, COUNT_OF(counts));
            double rate = NAN;

            rc = run_producers(talk, counts[series], &rate);
            if (rc == 0)
                durable_value(talk, series, round, rate);
        }
    }
    durable_close(&client);
    return rc;
}

static void report_producers(struct durable_run *run)
{
    (void)durable_report(run, &(struct durable_row){
                                  .what = "always, 4 producers, one outstanding each",
                                  .size = SMALL,
                                  .unit = PERF_MESSAGES_PER_S,
                                  .subject = SEVERAL,
                                  .subject_name = "shmq, 4 producers",
                                  .baseline = ALONE,
                                  .baseline_name = "shmq, 1 producer",
                                  .target = 2,
                              });
}

const struct durable_scenario durable_scenario_producers = {
    .name = "producers",
    .title = "policy always, four producers",
    .measure = measure_producers,
    .report = report_producers,
};
