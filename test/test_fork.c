/* SPDX-License-Identifier: Apache-2.0 */
/* test_fork.c: a forked child cannot use its parent's handles, and does not keep its parent alive.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test/support/fixture.h"

struct handles {
    struct fixture_client client;
    shmq_producer *producer;
    shmq_consumer *consumer;
    struct shmq_claim claim;
};

static void check_child(void *arg)
{
    struct handles *h = arg;
    struct shmq_message got;
    struct shmq_position position;
    struct shmq_topic_info info;
    shmq_channel *channel;

    CHECK_ERR(fixture_publish_number(h->producer, 1), SHMQ_EFORK);
    CHECK_CONTAINS(shmq_errmsg(NULL), "connect again in the child");
    CHECK_ERR(shmq_publish_batch(h->producer, &got, 1), SHMQ_EFORK);
    CHECK_ERR(shmq_claim(h->producer, NULL, 0, 1, &h->claim), SHMQ_EFORK);
    CHECK_ERR(shmq_poll(h->consumer, &got, 1, 1000), SHMQ_EFORK);
    CHECK_ERR(shmq_commit_offsets(h->consumer), SHMQ_EFORK);
    CHECK_ERR(shmq_seek(h->consumer, 0, 0), SHMQ_EFORK);
    CHECK_ERR(shmq_consumer_position(h->consumer, 0, &position), SHMQ_EFORK);
    CHECK_ERR(shmq_consumer_fd(h->consumer), SHMQ_EFORK);
    CHECK_ERR(shmq_channel_open(h->client.connection, &channel), SHMQ_EFORK);
    CHECK_ERR(shmq_topic_describe(h->client.connection, "t", &info), SHMQ_EFORK);
    CHECK_EQ(shmq_connection_id(h->client.connection), 0);
    CHECK_EQ(shmq_producer_partitions(h->producer), 0);
    /* It connects by itself, before and after it throws the old handles away. */
    struct fixture_client own = fixture_connect();
    shmq_producer *producer = fixture_producer(&own, "t", 1000);

    CHECK_OK(fixture_publish_number(producer, 2));
    shmq_consumer_close(h->consumer);
    shmq_close(h->client.connection);
    CHECK_OK(fixture_publish_number(producer, 3));
    fixture_close(&own);
}

TEST(child_gets_efork_and_the_parent_goes_on)
{
    shmq_supervisor *supervisor = fixture_start();
    struct handles h = {.client = fixture_connect()};

    fixture_topic(&h.client, "t", NULL);
    h.producer = fixture_producer(&h.client, "t", 1000);
    h.consumer = fixture_consumer(&h.client, "t", NULL);
    CHECK(shmq_consumer_fd(h.consumer) >= 0); /* with its thread */
    CHECK_OK(fixture_publish_number(h.producer, 0));
    CHECK_EQ(fixture_poll_number(h.consumer, 1000), 0);
    pid_t pid = test_spawn(check_child, &h);

    CHECK_INT_EQ(test_wait_exit(pid, 10000), 0);
    CHECK_EQ(fixture_poll_number(h.consumer, 1000), 2);
    CHECK_EQ(fixture_poll_number(h.consumer, 1000), 3);
    CHECK_OK(fixture_publish_number(h.producer, 4));
    CHECK_EQ(fixture_poll_number(h.consumer, 1000), 4);
    fixture_close(&h.client);
    fixture_stop(supervisor);
}

static void commit_in_child(void *arg)
{
    struct handles *h = arg;

    CHECK_ERR(shmq_commit(&h->claim), SHMQ_EFORK);
    CHECK_ERR(shmq_abort(&h->claim), SHMQ_EFORK);
    shmq_close(h->client.connection);
}

TEST(outstanding_claim_stays_the_parents)
{
    shmq_supervisor *supervisor = fixture_start();
    struct handles h = {.client = fixture_connect()};

    fixture_topic(&h.client, "t", NULL);
    h.producer = fixture_producer(&h.client, "t", 1000);
    h.consumer = fixture_consumer(&h.client, "t", NULL);
    CHECK_OK(shmq_claim(h.producer, NULL, 0, 8, &h.claim));
    pid_t pid = test_spawn(commit_in_child, &h);

    CHECK_INT_EQ(test_wait_exit(pid, 10000), 0);
    CHECK_EQ(fixture_poll_number(h.consumer, 0), UINT64_MAX);
    *(uint64_t *)h.claim.body = 99;
    CHECK_OK(shmq_commit(&h.claim));
    CHECK_EQ(fixture_poll_number(h.consumer, 1000), 99);
    fixture_close(&h.client);
    fixture_stop(supervisor);
}

/* ---- the parent's death ---------------------------------------------------------------------- */

struct family {
    struct test_barrier barrier;
    _Atomic pid_t grandchild;
};

/* Claims, forks a child that lives on, and is killed. */
static void claim_and_fork(void *arg)
{
    struct family *family = arg;
    struct fixture_client client = fixture_connect();
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    struct shmq_claim claim;

    CHECK_OK(shmq_claim(producer, NULL, 0, 100, &claim));
    pid_t pid = fork();

    if (pid == 0) {
        for (;;)
            (void)pause();
    }
    family->grandchild = pid;
    (void)test_barrier_wait(&family->barrier, 5000);
    for (;;)
        (void)pause();
}

static void check_parents_death(bool with_supervisor)
{
    struct family *family = test_shared(sizeof(*family));
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    int rc = 0;

    options.ring_bytes = 65536;
    options.overflow = SHMQ_DROP_OLD; /* only the claim can hold it back */
    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", 2000);

    test_barrier_init(&family->barrier, 2);
    pid_t pid = test_spawn(claim_and_fork, family);

    REQUIRE(test_barrier_wait(&family->barrier, 5000));
    if (!with_supervisor)
        test_kill(supervisor, SIGKILL);
    test_kill(pid, SIGKILL);
    /* The grandchild must not count as the dead client: its claim is resolved, and the ring laps
     * it. */
    for (uint64_t i = 0; rc == 0 && i < 3000; i++)
        rc = fixture_publish_number(producer, i);
    CHECK_INT_EQ(rc, 0);
    (void)kill(family->grandchild, SIGKILL);
    fixture_close(&client);
    if (with_supervisor)
        fixture_end(supervisor);
    (void)test_remove_leftovers();
}

TEST(childs_life_does_not_hide_the_parents_death_from_shmqd)
{
    check_parents_death(true);
}

TEST(childs_life_does_not_hide_the_parents_death_from_producers)
{
    check_parents_death(false);
}

/* ---- threads --------------------------------------------------------------------------------- */

struct churn {
    _Atomic bool stop;
    _Atomic uint32_t rounds;
};

/* Descriptors come and go all the time while another thread forks. */
static void *connect_and_close(void *arg)
{
    struct churn *churn = arg;

    while (!churn->stop) {
        struct fixture_client client = fixture_connect();
        shmq_producer *producer = fixture_producer(&client, "t", 1000);

        CHECK_OK(fixture_publish_number(producer, 1));
        fixture_close(&client);
        churn->rounds++;
    }
    return NULL;
}

static void connect_once(void *arg)
{
    struct fixture_client client = fixture_connect();

    (void)arg;
    fixture_close(&client);
}

TEST(fork_beside_busy_threads)
{
    if (TEST_SANITIZED && !TEST_THREAD_SANITIZED)
        SKIP("the sanitizer's allocator may be locked by another thread at the fork, for ever");
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    struct churn churn = {.stop = false};
    pthread_t threads[2];

    options.overflow = SHMQ_DROP_OLD;
    fixture_topic(&client, "t", &options);
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&threads[i], NULL, connect_and_close, &churn) == 0);
    for (int i = 0; i < 30; i++) {
        pid_t pid = test_spawn(connect_once, NULL);

        if (!CHECK_INT_EQ(test_wait_exit(pid, 10000), 0))
            break;
    }
    churn.stop = true;
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    CHECK(churn.rounds > 0);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST_MAIN("fork", T(child_gets_efork_and_the_parent_goes_on),
          T(outstanding_claim_stays_the_parents),
          T(childs_life_does_not_hide_the_parents_death_from_shmqd),
          T(childs_life_does_not_hide_the_parents_death_from_producers),
          T(fork_beside_busy_threads))
