/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq.c: shmq itself, through shmq.h alone, as a program would use it.
 *
 * Topics are made by the session's owner before the fork, named perf.PID.SERIAL.there and .back, and
 * deleted at its end; on a private bus they go with the bus in any case. Each member connects by
 * itself. Whatever a call says no to fails the trial with the library's sentence.
 */
#include <stdio.h>

#include "libshmq/shmq.h"
#include "tools/outbuf.h"
#include "tools/perf/transport.h"

#define RING_BYTES (UINT64_C(1) << 20) /* the library's default, which the warm-up must know */
#define SLEEP_MS   5000                /* a poll that waits so long was forgotten */
#define BATCH_MOST 256u
#define POLL_MOST  1024u

/* One group's consumer and what its last poll returned. */
struct group_end {
    shmq_consumer *consumer;
    struct shmq_message *messages;
    uint32_t count, at;
};

struct shmq_end {
    shmq_connection *connection;
    shmq_channel *channel;
    shmq_producer *producer;
    struct shmq_message *batch; /* filled up to batch_count */
    uint32_t batch_count;
    struct group_end groups[PERF_GROUPS_MAX];
};

struct made {
    char there[64], back[64];
};

static int fail(struct error_buffer *why, shmq_connection *connection, int rc)
{
    return error_set(why, rc, "shmq: %s", shmq_errmsg(connection));
}

static int check(const struct perf_setup *setup, struct error_buffer *why)
{
    /* Without a ring of its own choice it takes one that is large enough. */
    if (setup->ring_bytes > 0 && (uint64_t)setup->size + 32 > setup->ring_bytes / 8)
        return error_set(why, SHMQ_EINVAL,
                         "shmq: %u bytes: a ring of %llu takes messages of an eighth of it, header "
                         "included; make --ring larger",
                         setup->size, (unsigned long long)setup->ring_bytes);
    if (setup->partitions > 1 && setup->groups > setup->consumers)
        return error_set(why, SHMQ_EINVAL,
                         "shmq: several groups in turn are read from one partition here; take "
                         "--partitions 1, or as many --consumers as --groups");
    if (setup->batch > BATCH_MOST || setup->poll_max > POLL_MOST)
        return error_set(why, SHMQ_EINVAL, "shmq: batches of %u and polls of %u at most",
                         BATCH_MOST, POLL_MOST);
    return 0;
}

static int connect_bus(shmq_connection **ret_connection, struct error_buffer *why)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    struct perf_bus bus;
    int rc = perf_bus_get(&bus, why);

    if (rc < 0)
        return rc;
    options.bus = bus.name;
    options.runtime_dir = bus.runtime_dir;
    options.vhost = bus.vhost;
    rc = shmq_connect(&options, ret_connection);
    return rc < 0 ? fail(why, NULL, rc) : 0;
}

/* ---- the owner's part ------------------------------------------------------------------------ */

static int create_topic(shmq_connection *connection, const char *name, struct perf_lane *lane,
                        struct error_buffer *why)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    const struct perf_setup *setup = &lane->setup;
    struct shmq_topic_info info = {.ring_bytes = 0};
    int rc;

    options.partitions = setup->partitions;
    options.ring_bytes = setup->ring_bytes;
    if (setup->ring_bytes == 0)
        options.max_message = (uint64_t)setup->size + 32 > RING_BYTES / 8 ? setup->size : 0;
    options.timestamps = setup->timestamps;
    options.producers =
        setup->multi || setup->producers > 1 ? SHMQ_PRODUCERS_MULTI : SHMQ_PRODUCERS_SINGLE;
    rc = shmq_topic_create(connection, name, &options);
    if (rc == 0)
        rc = shmq_topic_describe(connection, name, &info);
    if (rc < 0)
        return fail(why, connection, rc);
    lane->setup.ring_bytes = info.ring_bytes * setup->partitions;
    return 0;
}

static int prepare(struct perf_lane *lane, struct error_buffer *why)
{
    struct made *made = tool_alloc(sizeof(*made));
    shmq_connection *connection = NULL;
    uint64_t ring_bytes = lane->setup.ring_bytes;
    int rc;

    (void)snprintf(made->there, sizeof(made->there), "perf.%d.%u.there", (int)getpid(),
                   lane->serial);
    (void)snprintf(made->back, sizeof(made->back), "perf.%d.%u.back", (int)getpid(), lane->serial);
    lane->made = made;
    rc = connect_bus(&connection, why);
    if (rc == 0)
        rc = create_topic(connection, made->there, lane, why);
    if (rc == 0 && lane->setup.kind == PERF_LATENCY) {
        lane->setup.ring_bytes = ring_bytes;
        rc = create_topic(connection, made->back, lane, why);
    }
    shmq_close(connection);
    return rc;
}

static void remove_topics(struct perf_lane *lane)
{
    struct made *made = lane->made;
    shmq_connection *connection;
    struct error_buffer ignored;

    if (!made)
        return;
    /* One that is not there any more, bus or topic, need not be removed. */
    if (connect_bus(&connection, &ignored) == 0) {
        (void)shmq_topic_delete(connection, made->there);
        if (lane->setup.kind == PERF_LATENCY)
            (void)shmq_topic_delete(connection, made->back);
        shmq_close(connection);
    }
    free(made);
    lane->made = NULL;
}

/* ---- a member's part ------------------------------------------------------------------------- */

static int open_group(struct perf_seat *seat, struct shmq_end *end, const char *topic,
                      uint32_t group, struct error_buffer *why)
{
    static const uint32_t waits[] = {
        [PERF_HYBRID] = SHMQ_WAIT_HYBRID,
        [PERF_SPIN] = SHMQ_WAIT_SPIN,
        [PERF_BLOCK] = SHMQ_WAIT_BLOCK,
    };
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    struct group_end *g = &end->groups[group];
    char name[16];
    int rc;

    (void)snprintf(name, sizeof(name), "g%u", group);
    options.group = name;
    options.wait = waits[seat->lane->setup.wait];
    g->messages = tool_alloc(sizeof(*g->messages) * seat->lane->setup.poll_max);
    rc = shmq_consumer_open(end->channel, topic, &options, &g->consumer);
    return rc < 0 ? fail(why, end->connection, rc) : 0;
}

static int open_groups(struct perf_seat *seat, struct shmq_end *end, struct error_buffer *why)
{
    const struct perf_setup *setup = &seat->lane->setup;
    const struct made *made = seat->lane->made;
    int rc = 0;

    if (setup->kind == PERF_LATENCY)
        return open_group(seat, end, seat->role == PERF_PING ? made->back : made->there, 0, why);
    for (uint32_t g = 0; rc == 0 && seat->role == PERF_CONSUME && g < setup->groups; g++) {
        if (perf_seat_has_group(seat, g))
            rc = open_group(seat, end, made->there, g, why);
    }
    return rc;
}

static int open_end(struct perf_seat *seat, struct error_buffer *why)
{
    struct shmq_producer_options options = SHMQ_PRODUCER_OPTIONS_INIT;
    const struct made *made = seat->lane->made;
    struct shmq_end *end = perf_alloc_pages(sizeof(*end));
    int rc;

    seat->end = end;
    rc = connect_bus(&end->connection, why);
    if (rc < 0)
        return rc;
    rc = shmq_channel_open(end->connection, &end->channel);
    if (rc < 0)
        return fail(why, end->connection, rc);
    rc = open_groups(seat, end, why);
    if (rc < 0 || seat->role == PERF_CONSUME)
        return rc;
    end->batch = tool_alloc(sizeof(*end->batch) * seat->lane->setup.batch);
    memset(end->batch, 0, sizeof(*end->batch) * seat->lane->setup.batch);
    for (uint32_t i = 0; i < seat->lane->setup.batch; i++)
        end->batch[i].body_length = seat->lane->setup.size;
    options.timeout_ms = SLEEP_MS;
    rc = shmq_producer_open(end->channel, seat->role == PERF_PONG ? made->back : made->there,
                            &options, &end->producer);
    return rc < 0 ? fail(why, end->connection, rc) : 0;
}

static void close_end(struct perf_seat *seat)
{
    struct shmq_end *end = seat->end;

    if (!end)
        return;
    shmq_close(end->connection);
    for (uint32_t g = 0; g < PERF_GROUPS_MAX; g++)
        free(end->groups[g].messages);
    free(end->batch);
    free(end);
    seat->end = NULL;
}

/* ---- messages -------------------------------------------------------------------------------- */

static bool fail_call(struct perf_trial *trial, const char *call, const struct shmq_end *end) COLD;

static bool fail_call(struct perf_trial *trial, const char *call, const struct shmq_end *end)
{
    return perf_trial_fail(trial, "%s: %s", call, shmq_errmsg(end->connection));
}

static ALWAYS_INLINE bool send_one(struct perf_seat *seat, struct perf_trial *trial,
                                   const void *body, uint32_t size)
{
    struct shmq_end *end = seat->end;
    struct shmq_message message = {.body = body, .body_length = size};

    if (UNLIKELY(shmq_publish(end->producer, &message) < 0))
        return fail_call(trial, "publish", end);
    return true;
}

static bool flush_batch(struct perf_seat *seat, struct perf_trial *trial)
{
    struct shmq_end *end = seat->end;
    uint32_t done = 0;

    while (done < end->batch_count) {
        int rc = shmq_publish_batch(end->producer, end->batch + done, end->batch_count - done);

        if (UNLIKELY(rc <= 0))
            return fail_call(trial, "publish batch", end);
        done += (uint32_t)rc;
    }
    end->batch_count = 0;
    return true;
}

static ALWAYS_INLINE bool send_in_batches(struct perf_seat *seat, struct perf_trial *trial,
                                          const void *body, uint32_t size)
{
    struct shmq_end *end = seat->end;

    (void)size; /* stands in each message from the beginning */
    end->batch[end->batch_count++].body = body;
    return end->batch_count < seat->lane->setup.batch || flush_batch(seat, trial);
}

static bool poll_group(struct perf_seat *seat, struct perf_trial *trial, uint32_t group,
                       int timeout_ms)
{
    struct shmq_end *end = seat->end;
    struct group_end *g = &end->groups[group];
    int n;

    do {
        n = shmq_poll(g->consumer, g->messages, seat->lane->setup.poll_max, timeout_ms);
    } while (n == 0 && timeout_ms > 0 && perf_trial_look(trial));
    g->at = 0;
    g->count = n > 0 ? (uint32_t)n : 0;
    if (UNLIKELY(n < 0))
        return fail_call(trial, "poll", end);
    return n > 0;
}

static ALWAYS_INLINE const void *receive(struct perf_seat *seat, struct perf_trial *trial,
                                         uint32_t group, uint32_t size, bool wait)
{
    struct group_end *g = &((struct shmq_end *)seat->end)->groups[group];

    if (g->at == g->count && !poll_group(seat, trial, group, wait ? SLEEP_MS : 0))
        return NULL;
    if (UNLIKELY(g->messages[g->at].body_length != size)) {
        (void)perf_trial_fail(trial, "a body of %u bytes came, of %u was sent",
                              g->messages[g->at].body_length, size);
        return NULL;
    }
    return g->messages[g->at].body;
}

static ALWAYS_INLINE void release(struct perf_seat *seat, uint32_t group)
{
    ((struct shmq_end *)seat->end)->groups[group].at++;
}

/* ---- loops of its own ------------------------------------------------------------------------ */

/* Over several partitions there is order within each of them only: numbers of one producer ascend in
 * each, and at the end of a trial there were as many as were sent. */
static void consume_partitions(struct perf_seat *seat, struct perf_trial *trial)
{
    struct shmq_end *end = seat->end;
    const struct perf_setup *setup = &seat->lane->setup;
    uint64_t(*last)[PERF_MEMBERS_MAX] = tool_alloc(sizeof(*last) * setup->partitions);
    struct group_end *g = &end->groups[seat->index];

    memset(last, 0, sizeof(*last) * setup->partitions);
    for (uint64_t i = 0; i < trial->count; i++) {
        const void *body = receive(seat, trial, seat->index, setup->size, true);

        if (!body)
            break;
        uint64_t word = perf_body_word(body);
        uint64_t *before = &last[g->messages[g->at].partition % setup->partitions]
                                [(word >> PERF_TAG_SHIFT) % PERF_MEMBERS_MAX];

        if ((word & PERF_SEQUENCE_MASK) < *before) {
            (void)perf_fail_order(trial, word, *before);
            break;
        }
        *before = (word & PERF_SEQUENCE_MASK) + 1;
        seat->sum += perf_look_at(seat, body, setup->size, setup->copy_out);
        release(seat, seat->index);
        trial->done++;
    }
    free(last);
}

/* Nobody reads: the ring runs round as fast as producers claim. */
static ALWAYS_INLINE void run_free(struct perf_seat *seat, struct perf_trial *trial,
                                   perf_send_fn *send)
{
    uint64_t most = seat->index == 0 ? trial->count : UINT64_MAX;

    for (uint64_t i = 0; i < most; i++) {
        /* Relaxed: it says when, and hands over nothing. */
        if (i % 64 == 0 && seat->index > 0 &&
            atomic_load_explicit(trial->stop, memory_order_relaxed)) {
            trial->done = i;
            return;
        }
        if (!send(seat, trial, perf_source_next(&seat->source), seat->lane->setup.size))
            return;
    }
    trial->done = most;
}

static void run(struct perf_seat *seat, struct perf_trial *trial)
{
    const struct perf_setup *setup = &seat->lane->setup;

    if (seat->role == PERF_RUN_FREE && setup->batch == 1)
        run_free(seat, trial, send_one);
    else if (seat->role == PERF_RUN_FREE)
        run_free(seat, trial, send_in_batches);
    else if (seat->role == PERF_CONSUME && setup->partitions > 1)
        consume_partitions(seat, trial);
    else if (setup->batch == 1)
        perf_run_role(seat, trial, send_one, NULL, receive, release);
    else
        perf_run_role(seat, trial, send_in_batches, flush_batch, receive, release);
}

#define SHMQ_WAY \
    .kinds = 1u << PERF_LATENCY | 1u << PERF_THROUGHPUT | 1u << PERF_FREE | 1u << PERF_IDLE, \
    .waits = 1u << PERF_SPIN | 1u << PERF_HYBRID | 1u << PERF_BLOCK, \
    .producers_max = PERF_MEMBERS_MAX - 1, .groups_max = PERF_GROUPS_MAX, .check = check, \
    .prepare = prepare, .open = open_end, .run = run, .close = close_end, .remove = remove_topics

const struct perf_way perf_way_shmq = {
    .name = "shmq",
    .summary = "a topic for one producer (for several, when there are several)",
    SHMQ_WAY,
};

const struct perf_way perf_way_shmq_multi = {
    .name = "shmq-multi",
    .summary = "a topic for several producers",
    .multi = true,
    SHMQ_WAY,
};
