/* shmq_demo_measure.c: a quick look at speed: 64-byte messages between two processes, through
 * shmq and through a pipe.
 *
 * Only a taste: both ways in one run on whatever machine this is, so that the ratio means
 * something and the figures do not. The real instrument, with its floor and its spread, is
 * shmq-perf.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/shmq_demo.h"

#define BODY            64u
#define STREAM_MESSAGES 400000u
#define ROUND_TRIPS     20000u
#define TIMEOUT_MS      20000
#define TRIALS          3

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool write_all(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;

    while (length > 0) {
        ssize_t n = write(fd, at, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

static bool read_all(int fd, void *bytes, size_t length)
{
    char *at = bytes;

    while (length > 0) {
        ssize_t n = read(fd, at, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

/* The other process: takes all messages, then answers each further one. */
static void pipe_partner(int in, int out)
{
    char body[BODY];
    char done = 1;

    for (uint32_t i = 0; i < STREAM_MESSAGES; i++) {
        if (!read_all(in, body, BODY))
            _exit(1);
    }
    if (!write_all(out, &done, 1))
        _exit(1);
    for (uint32_t i = 0; i < ROUND_TRIPS; i++) {
        if (!read_all(in, body, BODY) || !write_all(out, body, BODY))
            _exit(1);
    }
    _exit(0);
}

struct result {
    double messages_per_second;
    double round_trip_us;
};

static bool measure_pipe(struct result *result)
{
    int there[2], back[2];
    char body[BODY] = {0};
    char done;

    if (pipe(there) < 0 || pipe(back) < 0)
        return false;
    pid_t pid = fork();

    if (pid == 0) {
        close(there[1]);
        close(back[0]);
        pipe_partner(there[0], back[1]);
    }
    close(there[0]);
    close(back[1]);
    bool good = pid > 0;
    double begin = seconds_now();

    for (uint32_t i = 0; good && i < STREAM_MESSAGES; i++)
        good = write_all(there[1], body, BODY);
    good = good && read_all(back[0], &done, 1);
    result->messages_per_second = STREAM_MESSAGES / (seconds_now() - begin);
    begin = seconds_now();
    for (uint32_t i = 0; good && i < ROUND_TRIPS; i++)
        good = write_all(there[1], body, BODY) && read_all(back[0], body, BODY);
    result->round_trip_us = (seconds_now() - begin) * 1e6 / ROUND_TRIPS;
    close(there[1]);
    close(back[0]);
    int status = 1;

    waitpid(pid, &status, 0);
    return good && status == 0;
}

struct ends {
    shmq_connection *connection;
    shmq_producer *producer;
    shmq_consumer *consumer;
};

static bool open_ends(const struct demo_shared *shared, const char *to, const char *from,
                      struct ends *ends)
{
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    shmq_channel *channel;

    options.wait = SHMQ_WAIT_SPIN;
    return demo_connect(shared, &ends->connection) == 0 &&
           shmq_channel_open(ends->connection, &channel) == 0 &&
           shmq_consumer_open(channel, from, &options, &ends->consumer) == 0 &&
           shmq_producer_open(channel, to, NULL, &ends->producer) == 0;
}

static bool send_one(struct ends *ends)
{
    char body[BODY] = {0};
    struct shmq_message message = {.body = body, .body_length = BODY};

    return shmq_publish(ends->producer, &message) == 0;
}

static bool take(struct ends *ends, uint32_t count, uint32_t at_once)
{
    struct shmq_message messages[64];

    while (count > 0) {
        int n = shmq_poll(ends->consumer, messages, at_once < count ? at_once : count, TIMEOUT_MS);

        if (n <= 0)
            return false;
        count -= (uint32_t)n;
    }
    return true;
}

static void shmq_partner(const struct demo_shared *shared)
{
    struct ends ends;

    if (!open_ends(shared, "demo.back", "demo.there", &ends) || !send_one(&ends)) /* "ready" */
        _exit(1);
    if (!take(&ends, STREAM_MESSAGES, 64) || !send_one(&ends)) /* "done" */
        _exit(1);
    for (uint32_t i = 0; i < ROUND_TRIPS; i++) {
        if (!take(&ends, 1, 1) || !send_one(&ends))
            _exit(1);
    }
    shmq_close(ends.connection);
    _exit(0);
}

static bool measure_shmq(const struct demo_shared *shared, struct result *result)
{
    struct ends ends = {NULL, NULL, NULL};
    pid_t pid = fork();

    if (pid == 0)
        shmq_partner(shared);
    bool good = pid > 0 && open_ends(shared, "demo.there", "demo.back", &ends) && take(&ends, 1, 1);
    double begin = seconds_now();

    for (uint32_t i = 0; good && i < STREAM_MESSAGES; i++)
        good = send_one(&ends);
    good = good && take(&ends, 1, 1);
    result->messages_per_second = STREAM_MESSAGES / (seconds_now() - begin);
    begin = seconds_now();
    for (uint32_t i = 0; good && i < ROUND_TRIPS; i++)
        good = send_one(&ends) && take(&ends, 1, 1);
    result->round_trip_us = (seconds_now() - begin) * 1e6 / ROUND_TRIPS;
    if (!good)
        fprintf(stderr, "demo: measurement: %s\n", shmq_errmsg(NULL));
    shmq_close(ends.connection);
    if (!good && pid > 0)
        kill(pid, SIGKILL);
    int status = 1;

    waitpid(pid, &status, 0);
    return good && status == 0;
}

static void keep_best(struct result *best, const struct result *once)
{
    if (once->messages_per_second > best->messages_per_second)
        best->messages_per_second = once->messages_per_second;
    if (once->round_trip_us < best->round_trip_us)
        best->round_trip_us = once->round_trip_us;
}

bool demo_measure(const struct demo_shared *shared)
{
    struct result shmq = {0, 1e9}, pipes = {0, 1e9};
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    shmq_connection *connection;
    bool good = demo_connect(shared, &connection) == 0;

    options.producers = SHMQ_PRODUCERS_SINGLE;
    good = good && shmq_topic_create(connection, "demo.there", &options) == 0 &&
           shmq_topic_create(connection, "demo.back", &options) == 0;
    for (int i = 0; good && i < TRIALS; i++) {
        struct result once;

        good = measure_shmq(shared, &once);
        keep_best(&shmq, &once);
        good = good && measure_pipe(&once);
        keep_best(&pipes, &once);
    }
    if (good) {
        printf("\nA quick measurement, 64-byte messages between two processes, best of %d:\n",
               TRIALS);
        printf("  %-10s %16s %20s\n", "", "messages/second", "round trip, mean");
        printf("  %-10s %16.0f %17.2f us\n", "shmq", shmq.messages_per_second, shmq.round_trip_us);
        printf("  %-10s %16.0f %17.2f us\n", "pipe", pipes.messages_per_second,
               pipes.round_trip_us);
        printf("  %-10s %15.1fx %18.1fx\n", "",
               shmq.messages_per_second / pipes.messages_per_second,
               pipes.round_trip_us / shmq.round_trip_us);
    }
    if (connection) {
        shmq_topic_delete(connection, "demo.there");
        shmq_topic_delete(connection, "demo.back");
    }
    shmq_close(connection);
    return good;
}
