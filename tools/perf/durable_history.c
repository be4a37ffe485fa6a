/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A consumer that reads history from the earliest message on, beside a loop that reads the same files as cat does,
 * 128 KiB at a time; both from the page cache, in bytes of journal a second; see durable.h.
 *
 * The ring has moved on long ago: all but its last MiB comes from files. The consumer checks each message's number
 * and that none is missing; it does not look at bodies beyond that, and neither does cat.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>

#include "libshmq/journal_read.h"
#include "tools/outbuf.h"
#include "tools/perf/durable.h"

#define RING       (UINT64_C(1) << 20)
#define READ_BYTES ((size_t)128 << 10)
#define POLL_MAX   256u
#define FILES_MAX  4096u

static const uint32_t SIZES[] = {100, 1024, 16384};
#define SIZE_COUNT 3u

#define SERIES_SHMQ(size) (2 * (size))
#define SERIES_CAT(size)  (2 * (size) + 1)

struct history {
    struct durable_talk *talk;
    struct durable_client client;
    char topic[32];
    uint64_t messages;
    uint64_t first, end; /* offsets */
    char folder[3 * PERF_PATH_BYTES];
    uint64_t bases[FILES_MAX]; /* ascending */
    uint32_t file_count;
};

/* ---- as cat does ----------------------------------------------------------------------------- */

static int compare_bases(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int list_files(struct history *history)
{
    DIR *directory = opendir(history->folder);
    const struct dirent *entry;
    uint64_t base;

    history->file_count = 0;
    while (directory && (entry = readdir(directory)) != NULL) {
        if (history->file_count < FILES_MAX && journal_parse_name(entry->d_name, &base))
            history->bases[history->file_count++] = base;
    }
    if (directory)
        (void)closedir(directory);
    qsort(history->bases, history->file_count, sizeof(history->bases[0]), compare_bases);
    return history->file_count > 0
               ? 0
               : durable_fail(history->talk, "no journal files in %.200s", history->folder);
}

/* `bytes` at most: what lies behind the last record was never written. */
static int read_file(struct history *history, uint64_t base, uint64_t bytes, char *buffer,
                     uint64_t *ret_read)
{
    char path[4 * PERF_PATH_BYTES], name[JOURNAL_NAME_BYTES];
    uint64_t left = bytes;
    int fd;

    journal_format_name(base, name);
    (void)snprintf(path, sizeof(path), "%s/%s", history->folder, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return durable_fail(history->talk, "floor: %s: %s", name, strerror(errno));
    while (left > 0) {
        ssize_t n = read(fd, buffer, min_u64(READ_BYTES, left));

        if (n <= 0)
            break;
        left -= (uint64_t)n;
    }
    (void)close(fd);
    *ret_read += bytes - left;
    return 0;
}

static int read_as_cat(struct history *history, double *ret_bytes_per_s)
{
    char *buffer = perf_alloc_pages(READ_BYTES);
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t bytes = 0;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < history->file_count; i++) {
        uint64_t base = history->bases[i];
        uint64_t end = i + 1 < history->file_count ? history->bases[i + 1] : history->end;

        if (end > base)
            rc = read_file(history, base, JOURNAL_HEADER_BYTES + (end - base), buffer, &bytes);
    }
    *ret_bytes_per_s = (double)bytes * 1e9 / (double)(clock_monotonic_ns() - begin_ns);
    free(buffer);
    return rc;
}

/* ---- as a consumer --------------------------------------------------------------------------- */

static int take_all(struct history *history)
{
    struct durable_client *client = &history->client;
    struct shmq_message messages[POLL_MAX];
    uint64_t expected = 0;

    while (expected < history->messages) {
        int count = shmq_poll(client->consumer, messages, POLL_MAX, DURABLE_STEP_MS);

        if (count < 0)
            return durable_fail_library(client->talk, "poll");
        if (count == 0)
            return durable_fail(client->talk, "a consumer of history got no further than %llu",
                                (unsigned long long)expected);
        for (int i = 0; i < count; i++) {
            uint64_t number = perf_body_word(messages[i].body);

            if (number != expected || (messages[i].flags & SHMQ_MESSAGE_AFTER_LOSS))
                return durable_fail(client->talk, "message %llu of history came as %llu",
                                    (unsigned long long)expected, (unsigned long long)number);
            expected++;
        }
    }
    return 0;
}

static int read_as_consumer(struct history *history, uint32_t round, double *ret_bytes_per_s)
{
    char group[32];
    uint64_t begin_ns;
    int rc;

    (void)snprintf(group, sizeof(group), "round-%u", round);
    rc = durable_consume(&history->client, history->topic, group);
    begin_ns = clock_monotonic_ns();
    if (rc == 0)
        rc = take_all(history);
    *ret_bytes_per_s =
        (double)(history->end - history->first) * 1e9 / (double)(clock_monotonic_ns() - begin_ns);
    /* It holds nobody back any more. */
    shmq_consumer_close(history->client.consumer);
    history->client.consumer = NULL;
    (void)shmq_group_delete(history->client.connection, history->topic, group);
    return rc;
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static int make_history(struct history *history, uint32_t size)
{
    struct durable_talk *talk = history->talk;
    struct durable_client *client = &history->client;
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    struct shmq_topic_info info;
    struct durable_journal journal;
    int rc;

    options.durability = SHMQ_DURABLE_OS;
    options.ring_bytes = RING;
    options.producers = SHMQ_PRODUCERS_SINGLE;
    (void)snprintf(history->topic, sizeof(history->topic), "history-%u", size);
    history->messages = max_u64(talk->history_bytes / durable_record_bytes(size), 1);
    rc = durable_create(client, history->topic, &options);
    if (rc == 0)
        rc = durable_produce(client, history->topic, size);
    if (rc == 0)
        rc = durable_fill(client, history->messages);
    if (rc == 0)
        rc = durable_look(client, history->topic, &journal);
    if (rc == 0 && shmq_topic_describe(client->connection, history->topic, &info) < 0)
        rc = durable_fail_library(talk, "topic");
    if (rc)
        return rc;
    history->first = journal.first;
    history->end = journal.durable;
    (void)snprintf(history->folder, sizeof(history->folder), "%s/%s/journal/%s.%llu/0",
                   talk->state_dir, talk->bus, history->topic, (unsigned long long)info.id);
    return list_files(history);
}

/* Both once before it counts. */
static int measure_size(struct history *history, uint32_t index)
{
    struct durable_talk *talk = history->talk;
    double rate = NAN;
    int rc = make_history(history, SIZES[index]);

    if (rc == 0)
        rc = durable_settle(talk);
    if (rc == 0)
        rc = read_as_cat(history, &rate);
    if (rc == 0)
        rc = read_as_consumer(history, talk->rounds, &rate);
    for (uint32_t round = 0; rc == 0 && round < talk->rounds; round++) {
        for (uint32_t turn = 0; rc == 0 && turn < 2; turn++) {
            bool is_cat = durable_turn(round, turn, 2) == 1;

            rc = is_cat ? read_as_cat(history, &rate) : read_as_consumer(history, round, &rate);
            if (rc == 0)
                durable_value(talk, is_cat ? SERIES_CAT(index) : SERIES_SHMQ(index), round, rate);
        }
    }
    if (rc == 0 && shmq_topic_delete(history->client.connection, history->topic) < 0)
        rc = durable_fail_library(talk, "topic");
    return rc;
}

static int measure_catch_up(void *argument)
{
    struct durable_talk *talk = argument;
    struct history *history = tool_alloc(sizeof(*history));
    int rc = durable_pin(talk, 0);

    history->talk = history->client.talk = talk;
    if (rc == 0)
        rc = durable_connect(&history->client, talk);
    for (uint32_t i = 0; rc == 0 && i < SIZE_COUNT; i++)
        rc = measure_size(history, i);
    durable_close(&history->client);
    free(history);
    return rc;
}

static void report_catch_up(struct durable_run *run)
{
    char what[80], bytes[PERF_TEXT_BYTES];

    (void)snprintf(what, sizeof(what), "catch-up, %.16s of history in the page cache",
                   perf_text_size(run->talk->history_bytes, bytes));
    for (uint32_t i = 0; i < SIZE_COUNT; i++)
        (void)durable_report(run, &(struct durable_row){
                                      .what = what,
                                      .size = SIZES[i],
                                      .unit = PERF_BYTES_PER_S,
                                      .subject = SERIES_SHMQ(i),
                                      .subject_name = "shmq, a consumer",
                                      .baseline = SERIES_CAT(i),
                                      .baseline_name = "read() of 128 KiB, as cat",
                                      .target = 0.8,
                                  });
}

const struct durable_scenario durable_scenario_catch_up = {
    .name = "catch-up",
    .title = "a consumer that reads history",
    .measure = measure_catch_up,
    .report = report_catch_up,
};
