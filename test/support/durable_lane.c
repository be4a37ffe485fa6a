/* SPDX-License-Identifier: Apache-2.0 */
/* durable_lane.c: what a producer and a consumer of durable.h do in their processes. */
#include "test/support/durable_internal.h"
#include "test/support/fixture.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define POLL_MOST  128
#define SETTLE_MS  10000
#define BATCH_MOST DURABLE_BATCH_MOST
/* Beyond its time a call may need this long to be scheduled, on a machine that does much else. */
#define SLACK_NS (UINT64_C(1500) * 1000000)

/* ---- both ------------------------------------------------------------------------------------ */

__attribute__((format(printf, 3, 4))) static void note_error(struct durable_lane *lane, int error,
                                                             const char *format, ...)
{
    va_list arguments;

    if (atomic_load(&lane->error) != 0)
        return;
    va_start(arguments, format);
    vsnprintf(lane->why, sizeof(lane->why), format, arguments);
    va_end(arguments);
    atomic_store(&lane->error, error);
}

struct fixture_client durable_connect(void)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(10000) * 1000000;
    struct fixture_client client = {NULL, NULL};
    int rc;

    do {
        rc = shmq_connect(NULL, &client.connection);
        if (rc == SHMQ_ENOBUS)
            test_sleep_ms(5);
    } while ((rc == SHMQ_ENOBUS || rc == SHMQ_ETIMEOUT) && test_now_ns() < deadline_ns);
    if (rc != 0) {
        FAIL("connect: %d: %s", rc, shmq_errmsg(NULL));
        test_abort();
    }
    REQUIRE_OK(shmq_channel_open(client.connection, &client.channel));
    return client;
}

/* ---- a producer ------------------------------------------------------------------------------ */

/* What was published to one partition and is not confirmed. */
struct outstanding {
    uint32_t count;
    uint64_t number[DURABLE_WINDOW_MOST];
    struct shmq_message last;
};

struct sender {
    struct durable *durable;
    struct durable_lane *lane;
    unsigned index;
    shmq_producer *producer;
    uint32_t sent; /* since the last confirms */
    struct outstanding outstanding[ORACLE_PARTITIONS];
    unsigned char body[65536]; /* of a message, or of a batch's */
};

/* The call began then and was given so long. */
static void note_time(struct sender *sender, const char *what, uint64_t begun_ns, int timeout_ms)
{
    uint64_t took_ns = test_now_ns() - begun_ns;
    uint64_t given_ns = (uint64_t)timeout_ms * 1000000;
    uint64_t beyond_ns = took_ns > given_ns ? took_ns - given_ns : 0;

    if (beyond_ns > atomic_load(&sender->lane->longest_ns))
        atomic_store(&sender->lane->longest_ns, beyond_ns);
    if (beyond_ns > (uint64_t)test_scaled_ms(1) * SLACK_NS)
        note_error(sender->lane, SHMQ_ETIMEOUT, "%s was given %d ms and took %llu", what,
                   timeout_ms, (unsigned long long)took_ns / 1000000);
}

/* False: it is an error that ends the producer. */
static bool may_fail(struct sender *sender, int rc)
{
    /* Closed: as for consumers, below. */
    if (rc >= 0 || rc == SHMQ_EFULL || rc == SHMQ_ECLOSED)
        return true;
    note_error(sender->lane, rc, "publish: %d: %s", rc, shmq_errmsg(NULL));
    return false;
}

static void note_refused(struct sender *sender, uint64_t number)
{
    oracle_note_refused(sender->durable->oracle, sender->index, number);
    atomic_fetch_add(&sender->lane->refused, 1);
}

static void note_sent(struct sender *sender, uint64_t number, const struct shmq_message *message)
{
    struct outstanding *o = &sender->outstanding[message->partition];

    oracle_note_published(sender->durable->oracle, sender->index, number, message);
    o->number[o->count++] = number;
    o->last = *message;
    sender->sent++;
}

/* UINT64_MAX: the ledger is full. */
static uint64_t make_message(struct sender *sender, void *body, struct shmq_message *message)
{
    const struct oracle *oracle = sender->durable->oracle;
    uint64_t number = oracle_attempt(sender->durable->oracle, sender->index);

    *message = (struct shmq_message){.body = body};
    if (number == UINT64_MAX)
        return number;
    message->body_length = oracle_fill(oracle, sender->index, number, body);
    if (number % 3 == 0) { /* a key that the oracle can check */
        message->key = body;
        message->key_length = (uint16_t)(1 + number % 19);
    }
    return number;
}

static bool send_one(struct sender *sender)
{
    struct shmq_message message;
    uint64_t number = make_message(sender, sender->body, &message);
    uint64_t begun_ns = test_now_ns();
    int rc;

    if (number == UINT64_MAX) {
        test_sleep_ms(1);
        return true;
    }
    rc = shmq_publish(sender->producer, &message);
    note_time(sender, "publish", begun_ns, sender->durable->options.timeout_ms);
    if (rc == 0)
        note_sent(sender, number, &message);
    else
        note_refused(sender, number);
    return may_fail(sender, rc);
}

/* So many that a batch is some claims, now and then. */
static bool send_batch(struct sender *sender)
{
    struct shmq_message messages[BATCH_MOST];
    uint64_t numbers[BATCH_MOST];
    uint64_t begun_ns = test_now_ns();
    uint32_t largest = oracle_largest(sender->durable->oracle);
    uint32_t count = (uint32_t)sizeof(sender->body) / largest;
    int rc;

    count = count < BATCH_MOST ? count : BATCH_MOST;
    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = make_message(sender, sender->body + i * largest, &messages[i]);
        if (numbers[i] == UINT64_MAX)
            count = i;
    }
    if (count == 0)
        return true;
    rc = shmq_publish_batch(sender->producer, messages, count);
    note_time(sender, "publish_batch", begun_ns, sender->durable->options.timeout_ms);
    for (uint32_t i = 0; i < count; i++) {
        if (rc > 0 && i < (uint32_t)rc)
            note_sent(sender, numbers[i], &messages[i]);
        else
            note_refused(sender, numbers[i]);
    }
    return may_fail(sender, rc);
}

/* Claims more than it needs, so that the rest becomes padding; or gives the claim up. */
static bool send_claim(struct sender *sender, bool give_up)
{
    struct shmq_message message;
    uint64_t number = make_message(sender, sender->body, &message);
    uint64_t begun_ns = test_now_ns();
    struct shmq_claim claim;
    int rc;

    if (number == UINT64_MAX)
        return true;
    rc = shmq_claim(sender->producer, NULL, 0, message.body_length + 130, &claim);
    note_time(sender, "claim", begun_ns, sender->durable->options.timeout_ms);
    if (rc == 0) {
        memcpy(claim.body, sender->body, message.body_length);
        claim.body_size = message.body_length;
        message.offset = claim.offset;
        message.partition = claim.partition;
        message.key_length = 0;
        rc = give_up ? shmq_abort(&claim) : shmq_commit(&claim);
    }
    if (rc == 0 && !give_up)
        note_sent(sender, number, &message);
    else
        note_refused(sender, number);
    return may_fail(sender, rc);
}

static bool send_next(struct sender *sender, uint32_t turn)
{
    uint64_t refused = atomic_load(&sender->lane->refused);
    bool good;

    if (turn % 11 == 5)
        good = send_batch(sender);
    else if (turn % 7 == 2)
        good = send_claim(sender, turn % 4 == 0);
    else
        good = send_one(sender);
    if (atomic_load(&sender->lane->refused) != refused)
        test_sleep_ms(1);
    return good;
}

static void forget(struct outstanding *o)
{
    o->count = 0;
}

/* Asks for what stands in one partition. True: it is settled, one way or the other. */
static bool confirm_partition(struct sender *sender, struct outstanding *o, int timeout_ms)
{
    uint64_t begun_ns = test_now_ns();
    int rc = shmq_confirm(sender->producer, &o->last, SHMQ_DURABLE, timeout_ms);

    note_time(sender, "confirm", begun_ns, timeout_ms);
    switch (rc) {
    case 0:
        for (uint32_t i = 0; i < o->count; i++)
            oracle_note_confirmed(sender->durable->oracle, sender->index, o->number[i]);
        forget(o);
        return true;
    case SHMQ_ETIMEOUT:
        atomic_fetch_add(&sender->lane->timeouts, timeout_ms > 0);
        return false;
    case SHMQ_ECLOSED: /* the memory was lost */
        atomic_fetch_add(&sender->lane->unknown, o->count);
        forget(o);
        return true;
    default:
        note_error(sender->lane, rc, "confirm: %d: %s", rc, shmq_errmsg(NULL));
        forget(o);
        return true;
    }
}

/* True: nothing is outstanding any more. */
static bool confirm_all(struct sender *sender, int timeout_ms)
{
    bool all = true;

    for (unsigned i = 0; i < ORACLE_PARTITIONS; i++) {
        if (sender->outstanding[i].count > 0)
            all = confirm_partition(sender, &sender->outstanding[i], timeout_ms) && all;
    }
    if (all)
        sender->sent = 0;
    return all;
}

/* Looks at one of them in passing, as who pipelines does. */
static void peek(struct sender *sender)
{
    struct outstanding *o = &sender->outstanding[sender->sent % ORACLE_PARTITIONS];

    if (o->count > 0)
        (void)confirm_partition(sender, o, 0);
}

static void settle(struct sender *sender)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(SETTLE_MS) * 1000000;

    while (!confirm_all(sender, DURABLE_CONFIRM_MS) && atomic_load(&sender->lane->error) == 0) {
        if (test_now_ns() > deadline_ns)
            note_error(sender->lane, SHMQ_ETIMEOUT, "what was published is not confirmed: %s",
                       shmq_errmsg(NULL));
    }
}

static bool may_go_on(const struct sender *sender)
{
    return atomic_load(&sender->durable->stop) == 0 && atomic_load(&sender->lane->error) == 0;
}

void durable_run_producer(void *argument)
{
    static struct sender sender; /* too large for a stack */
    const struct durable_start *start = argument;
    struct durable *durable = start->durable;
    struct fixture_client client = durable_connect();
    uint32_t sent = 0;

    sender = (struct sender){
        .durable = durable, .lane = &durable->producers[start->lane], .index = start->lane};
    sender.producer = fixture_producer(&client, durable->topic, durable->options.timeout_ms);
    atomic_store(&sender.lane->ready, 1);
    while (may_go_on(&sender) && send_next(&sender, sent)) {
        if (sender.sent % 7 == 3)
            peek(&sender);
        while (sender.sent >= sender.lane->window && may_go_on(&sender) &&
               !confirm_all(&sender, DURABLE_CONFIRM_MS))
            ;
        if (++sent % durable->options.burst == 0)
            test_sleep_ms(1);
    }
    if (atomic_load(&durable->stop) == 2)
        settle(&sender);
    fixture_close(&client);
}

/* ---- a consumer ------------------------------------------------------------------------------ */

bool durable_is_at_end(shmq_consumer *consumer, uint32_t partitions)
{
    for (uint32_t i = 0; i < partitions; i++) {
        struct shmq_position position;

        if (shmq_consumer_position(consumer, i, &position) != 0 || !position.owned ||
            position.position < position.tail)
            return false;
    }
    return true;
}

static int receive(struct durable_lane *lane, shmq_consumer *consumer)
{
    struct shmq_message messages[POLL_MOST];
    int n = shmq_poll(consumer, messages, POLL_MOST, 20);

    if (n == SHMQ_ECLOSED)
        return 0; /* the memory is gone, and there is no supervisor to make it anew yet */
    if (n < 0)
        note_error(lane, n, "poll: %d: %s", n, shmq_errmsg(NULL));
    for (int i = 0; i < n; i++) {
        if (!oracle_take(lane->view, &messages[i])) {
            note_error(lane, 1, "what came is wrong: see its verdict");
            return -1;
        }
    }
    return n;
}

static shmq_consumer *open_consumer(struct fixture_client *client, const struct durable *durable,
                                    unsigned lane)
{
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    char group[16];

    snprintf(group, sizeof(group), "g%u", lane);
    options.group = group;
    if (durable->consumers[lane].kind & DURABLE_READ_DURABLE)
        options.read = SHMQ_READ_DURABLE;
    return fixture_consumer_with(client, durable->topic, &options);
}

void durable_run_consumer(void *argument)
{
    const struct durable_start *start = argument;
    struct durable *durable = start->durable;
    struct durable_lane *lane = &durable->consumers[start->lane];
    struct fixture_client client = durable_connect();
    shmq_consumer *consumer = open_consumer(&client, durable, start->lane);
    uint64_t deadline_ns = UINT64_MAX;
    unsigned polls = 0;
    int n = 0;

    atomic_store(&lane->ready, 1);
    while (n >= 0) {
        bool finish = atomic_load(&durable->finish) != 0;

        n = receive(lane, consumer);
        if (!finish && (lane->kind & DURABLE_SLOW) && ++polls % 16 == 0)
            test_sleep_ms(150);
        if (!finish || n > 0)
            continue;
        if (deadline_ns == UINT64_MAX)
            deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(SETTLE_MS) * 1000000;
        /* The end of the log alone says nothing: it may be that of memory that is lost. What is missing when the time is
         * over is lost: the judge will say so. */
        if ((durable_is_at_end(consumer, durable->options.partitions) &&
             oracle_view_is_complete(lane->view)) ||
            test_now_ns() > deadline_ns)
            break;
    }
    fixture_close(&client);
}
