/* SPDX-License-Identifier: Apache-2.0 */
/* session.c: the script; see session.h. */
#include "test/support/session.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "test/support/fixture.h"

#define PATIENT_MS   10000
#define IMPATIENT_MS 120
#define TRIES        6
#define RING         65536

struct session {
    struct session_shared *shared;
    struct fixture_client client;
    shmq_producer *producer;
    shmq_consumer *consumer;  /* of group g */
    shmq_consumer *successor; /* of group h: stands by behind the victim */
    uint64_t next;            /* number of the next message */
};

typedef int call_fn(struct session *session);
typedef void check_fn(struct session *session);

static struct fixture_client connect_for(int timeout_ms)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    struct fixture_client client = {NULL, NULL};
    int rc = SHMQ_ENOBUS;

    options.timeout_ms = timeout_ms;
    /* Connecting, unlike all later calls, is not told to wait for a successor. */
    for (int i = 0; i < 500 && rc != 0; i++) {
        rc = shmq_connect(&options, &client.connection);
        if (rc != 0 && rc != SHMQ_ENOBUS && rc != SHMQ_ETIMEOUT)
            break;
        if (rc != 0)
            test_sleep_ms(10);
    }
    if (rc != 0) {
        FAIL("connect: %d: %s", rc, shmq_errmsg(NULL));
        test_abort();
    }
    REQUIRE_OK(shmq_channel_open(client.connection, &client.channel));
    return client;
}

static const char *why(const struct session *session)
{
    return shmq_errmsg(session->client.connection);
}

/* ---- calls whose answer may be lost ------------------------------------------------------------------------------ */

static bool bus_answers(void *argument)
{
    struct session *session = argument;
    struct shmq_bus_info info;

    return shmq_bus_describe(session->client.connection, &info) == 0;
}

/* Until it has succeeded. `again` is what a repeated call may say where the first had done its work. */
static void call(struct session *session, const char *what, call_fn *run, int again,
                 check_fn *check)
{
    for (int i = 0; i < TRIES; i++) {
        int rc = run(session);

        if (rc >= 0 || (i > 0 && rc == again)) {
            CHECK(true);
            return;
        }
        if (!session->shared->impatient || (rc != SHMQ_ETIMEOUT && rc != SHMQ_ENOBUS)) {
            FAIL("%s: %d: %s", what, rc, why(session));
            test_abort();
        }
        atomic_fetch_add(&session->shared->given_up, 1);
        REQUIRE(test_eventually(bus_answers, session, PATIENT_MS));
        if (check)
            check(session);
    }
    FAIL("%s: never succeeds", what);
    test_abort();
}

/* ---- what the metadata says ---------------------------------------------------------------------------------------- */

static int count_good_partition(const struct shmq_partition_info *info, void *context)
{
    *(uint32_t *)context += info->status == 0;
    return 0;
}

/* 0: there is no such topic. Else the number of its partitions, all of which are there. Asked of a supervisor that
 * nothing happens to any more, or again until it answers. */
static uint32_t whole_topic(struct session *session, const char *topic)
{
    struct shmq_topic_info info = {.id = 0};
    uint32_t good = 0;
    int rc = SHMQ_ENOBUS;

    for (int i = 0; i < TRIES && (rc == SHMQ_ENOBUS || rc == SHMQ_ETIMEOUT); i++) {
        good = 0;
        rc = shmq_topic_describe(session->client.connection, topic, &info);
        if (rc == 0)
            rc =
                shmq_partition_list(session->client.connection, topic, count_good_partition, &good);
    }
    if (rc == SHMQ_ENOTOPIC)
        return 0;
    CHECK_OK(rc);
    CHECK_EQ(good, info.partitions);
    CHECK_EQ(info.ring_bytes, RING);
    CHECK_EQ(info.quarantined, 0);
    return info.partitions;
}

static void check_create_a(struct session *session)
{
    uint32_t partitions = whole_topic(session, "a");

    CHECK(partitions == 0 || partitions == 2);
}

static void check_alter_a(struct session *session)
{
    uint32_t partitions = whole_topic(session, "a");

    CHECK(partitions == 2 || partitions == 3);
}

static void check_delete_a(struct session *session)
{
    uint32_t partitions = whole_topic(session, "a");

    CHECK(partitions == 0 || partitions == 3);
}

static void check_b(struct session *session)
{
    CHECK(whole_topic(session, "b") <= 1);
}

struct census {
    uint32_t producers, consumers, groups;
};

static bool take_census(struct session *session, struct census *ret_census)
{
    struct shmq_topic_info info;
    int rc = shmq_topic_describe(session->client.connection, "a", &info);

    if (rc != 0)
        return false;
    *ret_census = (struct census){info.producer_count, info.consumer_count, info.group_count};
    return true;
}

/* Nobody more and nobody less holds something of the topic; the dead are gone after a moment. */
static void expect_census(struct session *session, struct census expected)
{
    struct census census = {0, 0, 0};
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(PATIENT_MS) * 1000000;

    while (!take_census(session, &census) || memcmp(&census, &expected, sizeof(census)) != 0) {
        if (test_now_ns() > deadline_ns)
            break;
        test_sleep_ms(5);
    }
    CHECK_EQ(census.producers, expected.producers);
    CHECK_EQ(census.consumers, expected.consumers);
    CHECK_EQ(census.groups, expected.groups);
}

/* ---- the calls ------------------------------------------------------------------------------------------------------ */

static int create(struct session *session, const char *topic, uint32_t partitions)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;

    options.partitions = partitions;
    options.ring_bytes = RING;
    return shmq_topic_create(session->client.connection, topic, &options);
}

static int create_a(struct session *session)
{
    return create(session, "a", 2);
}

static int create_b(struct session *session)
{
    return create(session, "b", 1);
}

static int alter_a(struct session *session)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;

    options.partitions = 3;
    return shmq_topic_alter(session->client.connection, "a", &options);
}

static int purge_a(struct session *session)
{
    return shmq_topic_purge(session->client.connection, "a");
}

static int delete_a(struct session *session)
{
    return shmq_topic_delete(session->client.connection, "a");
}

static int delete_b(struct session *session)
{
    return shmq_topic_delete(session->client.connection, "b");
}

static int open_producer(struct session *session)
{
    return shmq_producer_open(session->client.channel, "a", NULL, &session->producer);
}

static int open_member(struct session *session, const char *group, shmq_consumer **ret_consumer)
{
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;

    options.group = group;
    return shmq_consumer_open(session->client.channel, "a", &options, ret_consumer);
}

static int open_consumer(struct session *session)
{
    return open_member(session, "g", &session->consumer);
}

static int open_successor(struct session *session)
{
    return open_member(session, "h", &session->successor);
}

static int delete_group(struct session *session)
{
    return shmq_group_delete(session->client.connection, "a", "h");
}

/* ---- messages --------------------------------------------------------------------------------------------------------- */

static void publish(struct session *session, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        CHECK_OK(fixture_publish_number(session->producer, session->next++));
}

/* Exactly the last `count` that were published, in whatever order of partitions. */
static void expect(struct session *session, shmq_consumer *consumer, uint32_t count)
{
    uint64_t first = session->next - count;
    uint64_t missing = (UINT64_C(1) << count) - 1;

    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = fixture_poll_number(consumer, PATIENT_MS);

        if (!CHECK(number >= first && number < session->next))
            return;
        missing &= ~(UINT64_C(1) << (number - first));
    }
    CHECK_EQ(missing, 0);
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX);
}

/* ---- somebody who is killed with all that a client can hold -------------------------------------------------------------- */

static void be_victim(void *ready)
{
    struct session victim = {.client = connect_for(PATIENT_MS)};
    struct shmq_claim claim;

    REQUIRE_OK(open_successor(&victim));
    REQUIRE_OK(open_producer(&victim));
    REQUIRE_OK(shmq_claim(victim.producer, NULL, 0, 100, &claim));
    REQUIRE(test_barrier_wait(ready, 2 * PATIENT_MS));
    test_sleep_ms(600000);
}

static void lose_a_client(struct session *session)
{
    struct test_barrier *ready = test_shared(sizeof(*ready));

    test_barrier_init(ready, 2);
    pid_t victim = test_spawn(be_victim, ready);

    if (!test_barrier_wait(ready, 2 * PATIENT_MS))
        test_abort();
    call(session, "standing by", open_successor, 0, NULL);
    expect_census(session, (struct census){4, 3, 2});
    publish(session, 4);
    test_kill(victim, SIGKILL);
    expect(session, session->successor, 10); /* a new group: from the first message on */
    expect(session, session->consumer, 4);
    expect_census(session, (struct census){2, 2, 2});
}

/* ---- the script ------------------------------------------------------------------------------------------------------------ */

static void grow_and_purge(struct session *session)
{
    call(session, "alter a", alter_a, 0, check_alter_a);
    CHECK_EQ(whole_topic(session, "a"), 3);
    publish(session, 6);
    expect(session, session->consumer, 6);
    publish(session, 4);
    call(session, "purge a", purge_a, 0, NULL);
    publish(session, 2);
    expect(session, session->consumer, 2);
}

static void leave(struct session *session)
{
    shmq_consumer_close(session->successor);
    session->successor = NULL;
    call(session, "delete group", delete_group, SHMQ_ENOGROUP, NULL);
    shmq_producer_close(session->producer);
    session->producer = NULL;
    expect_census(session, (struct census){0, 1, 1});
}

void session_run(void *argument)
{
    struct session session = {.shared = argument};
    struct shmq_message message;

    session.client = connect_for(session.shared->impatient ? IMPATIENT_MS : PATIENT_MS);
    call(&session, "create a", create_a, SHMQ_EEXIST, check_create_a);
    call(&session, "open producer", open_producer, 0, NULL);
    call(&session, "open consumer", open_consumer, 0, NULL);
    publish(&session, 6);
    expect(&session, session.consumer, 6);
    lose_a_client(&session);
    grow_and_purge(&session);
    leave(&session);
    call(&session, "create b", create_b, SHMQ_EEXIST, check_b);
    call(&session, "delete a", delete_a, SHMQ_ENOTOPIC, check_delete_a);
    CHECK_ERR(shmq_poll(session.consumer, &message, 1, PATIENT_MS), SHMQ_ENOTOPIC);
    shmq_consumer_close(session.consumer);
    call(&session, "delete b", delete_b, SHMQ_ENOTOPIC, check_b);
    CHECK_EQ(whole_topic(&session, "a"), 0);
    CHECK_EQ(whole_topic(&session, "b"), 0);
    fixture_close(&session.client);
    atomic_store(&session.shared->done, 1);
}
