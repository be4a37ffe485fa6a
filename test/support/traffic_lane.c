/* SPDX-License-Identifier: Apache-2.0 */
/*
 * traffic_lane.c: what a producer and a consumer of traffic.h do in their processes.
 *
 * A body says who sent it, which one it is and how long it is; the rest follows from these, so that a torn one is
 * found. Each process may be killed anywhere: a number is entered as attempted before it is published, as confirmed
 * after, and is never tried twice.
 */
#include "test/support/traffic_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "test/support/fixture.h"

#define POLL_MOST  64
#define BATCH_MOST 4
#define LANE_MAGIC 0x54726166u

struct body {
    uint32_t magic;
    uint32_t length;
    uint32_t lane;
    uint32_t reserved;
    uint64_t number;
    unsigned char filler[];
};

/* ---- bodies --------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
    return x ^ (x >> 29);
}

static uint32_t length_of(const struct traffic *traffic, unsigned lane, uint64_t number)
{
    uint64_t random = mix(number * TRAFFIC_PRODUCERS + lane + 1);
    uint32_t most = traffic->options.largest - (uint32_t)sizeof(struct body);

    /* Mostly small ones, with all lengths among them. */
    if (random % 4 != 0)
        most = most < 64 ? most : 64;
    return (uint32_t)(sizeof(struct body) + (random >> 8) % (most + 1));
}

static void fill_body(void *at, const struct traffic *traffic, unsigned lane, uint64_t number)
{
    struct body body = {.magic = LANE_MAGIC,
                        .length = length_of(traffic, lane, number),
                        .lane = lane,
                        .number = number};

    memcpy(at, &body, sizeof(body));
    memset((char *)at + sizeof(body), (int)(mix(number + lane) & 0xff), body.length - sizeof(body));
}

static bool is_whole(const struct traffic *traffic, const struct shmq_message *message,
                     struct body *ret_body)
{
    const unsigned char *filler = message->body;
    unsigned char expected;

    if (message->body_length < sizeof(*ret_body))
        return false;
    memcpy(ret_body, message->body, sizeof(*ret_body));
    if (ret_body->magic != LANE_MAGIC || ret_body->lane >= TRAFFIC_PRODUCERS ||
        ret_body->number >= traffic->options.messages || ret_body->length != message->body_length ||
        ret_body->length != length_of(traffic, ret_body->lane, ret_body->number))
        return false;
    expected = (unsigned char)mix(ret_body->number + ret_body->lane);
    for (uint32_t i = sizeof(*ret_body); i < ret_body->length; i++) {
        if (filler[i] != expected)
            return false;
    }
    return true;
}

/* ---- both ------------------------------------------------------------------------------------------------------ */

__attribute__((format(printf, 3, 4))) static void note_error(struct traffic_lane *lane, int error,
                                                             const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(lane->why, sizeof(lane->why), format, arguments);
    va_end(arguments);
    atomic_store(&lane->error, error);
}

/* A lane may begin while there is no supervisor; connecting, unlike all later calls, does not wait for one. */
static struct fixture_client connect_to_any(void)
{
    struct fixture_client client = {NULL, NULL};
    int rc = SHMQ_ENOBUS;

    for (int i = 0; i < 1000 && (rc == SHMQ_ENOBUS || rc == SHMQ_ETIMEOUT); i++) {
        rc = shmq_connect(NULL, &client.connection);
        if (rc == SHMQ_ENOBUS)
            test_sleep_ms(10);
    }
    if (rc != 0) {
        FAIL("connect: %d: %s", rc, shmq_errmsg(NULL));
        test_abort();
    }
    REQUIRE_OK(shmq_channel_open(client.connection, &client.channel));
    return client;
}

/* ---- a producer ------------------------------------------------------------------------------------------------ */

struct sender {
    struct traffic *traffic;
    struct traffic_lane *lane;
    unsigned number; /* of the lane */
    shmq_producer *producer;
};

static void mark(struct sender *sender, uint64_t number, uint8_t state)
{
    atomic_store(&sender->traffic->state[sender->number][number], state);
    if (state == MESSAGE_CONFIRMED)
        atomic_fetch_add(&sender->lane->count, 1);
}

static int send_one(struct sender *sender, uint64_t number)
{
    unsigned char bytes[65536];
    struct shmq_message message = {.body = bytes};
    int rc;

    fill_body(bytes, sender->traffic, sender->number, number);
    message.body_length = length_of(sender->traffic, sender->number, number);
    rc = shmq_publish(sender->producer, &message);
    if (rc == 0)
        mark(sender, number, MESSAGE_CONFIRMED);
    return rc;
}

static int send_claim(struct sender *sender, uint64_t number)
{
    uint32_t length = length_of(sender->traffic, sender->number, number);
    struct shmq_claim claim;
    int rc = shmq_claim(sender->producer, NULL, 0, length + 64, &claim);

    if (rc < 0)
        return rc;
    fill_body(claim.body, sender->traffic, sender->number, number);
    claim.body_size = length;
    rc = shmq_commit(&claim);
    if (rc == 0)
        mark(sender, number, MESSAGE_CONFIRMED);
    return rc;
}

static int send_batch(struct sender *sender, uint64_t first, uint32_t count)
{
    unsigned char bytes[BATCH_MOST][4096];
    struct shmq_message messages[BATCH_MOST];
    int rc;

    memset(messages, 0, sizeof(messages));
    for (uint32_t i = 0; i < count; i++) {
        fill_body(bytes[i], sender->traffic, sender->number, first + i);
        messages[i].body = bytes[i];
        messages[i].body_length = length_of(sender->traffic, sender->number, first + i);
        messages[i].partition = 0;
        messages[i].flags = SHMQ_MESSAGE_PARTITION;
    }
    rc = shmq_publish_batch(sender->producer, messages, count);
    for (int i = 0; i < rc; i++)
        mark(sender, first + (uint64_t)i, MESSAGE_CONFIRMED);
    if (rc >= 0 && rc < (int)count)
        return SHMQ_EFULL;
    return rc;
}

static int send_next(struct sender *sender)
{
    struct traffic *traffic = sender->traffic;
    uint64_t first = atomic_load(&traffic->next[sender->number]);
    uint32_t count = traffic->options.batch && first % 7 == 0 ? BATCH_MOST : 1;
    int rc;

    if (first + count > traffic->options.messages) {
        test_sleep_ms(1);
        return 0;
    }
    atomic_store(&traffic->next[sender->number], first + count);
    for (uint32_t i = 0; i < count; i++)
        mark(sender, first + i, MESSAGE_ATTEMPTED);
    if (count > 1)
        rc = send_batch(sender, first, count);
    else if (traffic->options.batch && first % 5 == 0)
        rc = send_claim(sender, first);
    else
        rc = send_one(sender, first);
    if (rc < 0)
        note_error(sender->lane, rc, "publish: %d: %s", rc, shmq_errmsg(NULL));
    return rc < 0 ? rc : 0;
}

void traffic_run_producer(void *argument)
{
    const struct traffic_start *start = argument;
    struct traffic *traffic = start->traffic;
    struct fixture_client client = connect_to_any();
    struct sender sender = {.traffic = traffic,
                            .lane = &traffic->producers[start->lane],
                            .number = start->lane,
                            .producer = fixture_producer(&client, traffic->topic, 0)};
    uint32_t sent = 0;

    atomic_store(&sender.lane->ready, 1);
    while (!atomic_load(&traffic->stop) && !atomic_load(&sender.lane->leave)) {
        if (send_next(&sender) < 0)
            break;
        if (++sent % traffic->options.burst == 0)
            test_sleep_ms(1);
    }
    fixture_close(&client);
}

/* ---- a consumer ------------------------------------------------------------------------------------------------ */

struct receiver {
    struct traffic *traffic;
    struct traffic_lane *lane;
    uint64_t offset[TRAFFIC_PARTITIONS];                    /* of the last one, + 1; 0: none */
    uint64_t number[TRAFFIC_PARTITIONS][TRAFFIC_PRODUCERS]; /* the same */
};

/* This consumer sees each partition from its commit on, once and in order. */
static bool is_next(struct receiver *receiver, const struct shmq_message *message,
                    const struct body *body)
{
    uint64_t *offset = &receiver->offset[message->partition];
    uint64_t *number = &receiver->number[message->partition][body->lane];

    if (message->offset + 1 <= *offset || body->number + 1 <= *number) {
        note_error(receiver->lane, 1,
                   "order: number %llu of producer %u at %u/%llu after number %llu, offset %llu",
                   (unsigned long long)body->number, body->lane, message->partition,
                   (unsigned long long)message->offset, (unsigned long long)*number - 1,
                   (unsigned long long)*offset - 1);
        return false;
    }
    *offset = message->offset + 1;
    *number = body->number + 1;
    return true;
}

static bool take_message(struct receiver *receiver, const struct shmq_message *message)
{
    struct traffic *traffic = receiver->traffic;
    struct body body;
    _Atomic uint8_t *seen;

    if (message->partition >= TRAFFIC_PARTITIONS || !is_whole(traffic, message, &body)) {
        note_error(receiver->lane, 1, "torn: %u bytes at %u/%llu", message->body_length,
                   message->partition, (unsigned long long)message->offset);
        return false;
    }
    if (atomic_load(&traffic->state[body.lane][body.number]) == MESSAGE_NONE) {
        note_error(receiver->lane, 1, "number %llu of producer %u, which nobody sent",
                   (unsigned long long)body.number, body.lane);
        return false;
    }
    if (!is_next(receiver, message, &body))
        return false;
    seen = &traffic->seen[receiver->lane->group][body.lane][body.number];
    if (atomic_load(seen) < 255)
        atomic_fetch_add(seen, 1);
    atomic_fetch_add(&receiver->lane->count, 1);
    atomic_fetch_add(&traffic->group_count[receiver->lane->group], 1);
    return true;
}

/* Everything confirmed has been seen by the group; `low` moves on to where that is not so. */
static bool is_complete(struct receiver *receiver, uint64_t low[TRAFFIC_PRODUCERS])
{
    struct traffic *traffic = receiver->traffic;

    for (unsigned lane = 0; lane < TRAFFIC_PRODUCERS; lane++) {
        uint64_t end = atomic_load(&traffic->next[lane]);

        for (; low[lane] < end; low[lane]++) {
            if (atomic_load(&traffic->state[lane][low[lane]]) == MESSAGE_CONFIRMED &&
                atomic_load(&traffic->seen[receiver->lane->group][lane][low[lane]]) == 0)
                return false;
        }
    }
    return true;
}

static int receive_next(struct receiver *receiver, shmq_consumer *consumer)
{
    struct shmq_message messages[POLL_MOST];
    int n = shmq_poll(consumer, messages, POLL_MOST, 20);

    if (n < 0)
        note_error(receiver->lane, n, "poll: %d: %s", n, shmq_errmsg(NULL));
    for (int i = 0; i < n; i++) {
        if (!take_message(receiver, &messages[i]))
            return -1;
    }
    return n;
}

void traffic_run_consumer(void *argument)
{
    const struct traffic_start *start = argument;
    struct traffic *traffic = start->traffic;
    struct receiver receiver = {.traffic = traffic, .lane = &traffic->consumers[start->lane]};
    struct fixture_client client = connect_to_any();
    uint64_t low[TRAFFIC_PRODUCERS] = {0}, deadline_ns = UINT64_MAX;
    char group[16];
    int n = 0;

    snprintf(group, sizeof(group), "g%u", receiver.lane->group);
    shmq_consumer *consumer = fixture_consumer(&client, traffic->topic, group);

    atomic_store(&receiver.lane->ready, 1);
    while (n >= 0 && !atomic_load(&receiver.lane->leave)) {
        bool stopping = atomic_load(&traffic->stop) == 2;

        n = receive_next(&receiver, consumer);
        if (!stopping || n > 0)
            continue;
        if (deadline_ns == UINT64_MAX)
            deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(10000) * 1000000;
        /* What is missing at the deadline is lost: the judge will say so. */
        if (is_complete(&receiver, low) || test_now_ns() > deadline_ns)
            break;
    }
    fixture_close(&client);
}
