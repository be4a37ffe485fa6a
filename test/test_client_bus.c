/* SPDX-License-Identifier: Apache-2.0 */
/* test_client_bus.c: supervisors that die and come back; topics, groups and clients in lists. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "test/support/fixture.h"

/* ---- supervisors that die -------------------------------------------------------------------- */

TEST(killed_supervisor_is_not_noticed_by_traffic)
{
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();
    struct shmq_bus_info info;
    uint64_t id = shmq_connection_id(client.connection);

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    for (uint64_t i = 0; i < 300; i++) {
        if (i == 100)
            test_kill(supervisor, SIGKILL);
        if (i == 200)
            supervisor = fixture_spawn();
        if (!CHECK_OK(fixture_publish_number(producer, i)) ||
            !CHECK_EQ(fixture_poll_number(consumer, 1000), i))
            break;
    }
    /* A control call finds the successor, under the old identity. */
    CHECK_OK(shmq_bus_describe(client.connection, &info));
    CHECK_EQ(info.incarnation, 2);
    CHECK_EQ(shmq_connection_id(client.connection), id);
    /* What was opened before still is, in the successor's eyes too. */
    shmq_consumer_close(consumer);
    consumer = fixture_consumer(&client, "t", NULL);
    CHECK_OK(fixture_publish_number(producer, 300));
    CHECK_EQ(fixture_poll_number(consumer, 1000), 300);
    fixture_close(&client);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

static void *start_supervisor_late(void *arg)
{
    (void)arg;
    test_sleep_ms(300);
    return fixture_start();
}

TEST(control_call_waits_for_the_successor)
{
    pid_t supervisor = fixture_spawn();
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    shmq_connection *connection = NULL;
    struct shmq_topic_options topic = SHMQ_TOPIC_OPTIONS_INIT;
    void *successor = NULL;
    pthread_t thread;

    options.timeout_ms = test_scaled_ms(5000);
    REQUIRE_OK(shmq_connect(&options, &connection));
    test_kill(supervisor, SIGKILL);
    REQUIRE(pthread_create(&thread, NULL, start_supervisor_late, NULL) == 0);
    topic.partitions = 2;
    CHECK_OK(shmq_topic_create(connection, "later", &topic));
    REQUIRE(pthread_join(thread, &successor) == 0);
    shmq_close(connection);
    fixture_stop(successor);
    (void)test_remove_leftovers();
}

TEST(control_call_without_successor_ends_in_time)
{
    pid_t supervisor = fixture_spawn();
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    shmq_connection *connection = NULL;
    struct shmq_bus_info info;

    options.timeout_ms = 300;
    REQUIRE_OK(shmq_connect(&options, &connection));
    test_kill(supervisor, SIGKILL);
    uint64_t before_ns = test_now_ns();

    CHECK_ERR(shmq_bus_describe(connection, &info), SHMQ_ENOBUS);
    uint64_t waited_ns = test_now_ns() - before_ns;

    CHECK(waited_ns >= 250000000 && waited_ns < 5000000000);
    CHECK_CONTAINS(shmq_errmsg(connection), "shmqd --bus");
    before_ns = test_now_ns();
    shmq_close(connection);
    CHECK(test_now_ns() - before_ns < 5000000000);
    (void)test_remove_leftovers();
}

TEST(bus_that_is_made_anew_is_opened_anew)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_message got;

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 200);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_OK(fixture_publish_number(producer, 1));
    CHECK_EQ(fixture_poll_number(consumer, 1000), 1);
    fixture_stop(supervisor); /* ephemeral: its memory is gone */
    CHECK_ERR(fixture_publish_number(producer, 2), SHMQ_ECLOSED);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "shmqd --bus");
    CHECK_ERR(shmq_poll(consumer, &got, 1, 100), SHMQ_ECLOSED);
    supervisor = fixture_start();
    CHECK_ERR(fixture_publish_number(producer, 3), SHMQ_ENOTOPIC);
    CHECK_ERR(shmq_poll(consumer, &got, 1, 100), SHMQ_ENOTOPIC);
    fixture_topic(&client, "t", NULL);
    CHECK_OK(fixture_publish_number(producer, 4));
    CHECK_EQ(fixture_poll_number(consumer, 1000), 4);
    for (uint64_t i = 5; i < 50; i++) {
        CHECK_OK(fixture_publish_number(producer, i));
        CHECK_EQ(fixture_poll_number(consumer, 1000), i);
    }
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* An offset was one of the old bus; what came before the consumer did is not to be missed. */
TEST(bus_that_is_made_anew_is_read_from_its_beginning)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    shmq_consumer *consumers[2];

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    fixture_publish_range(producer, 0, 20);
    options.group = "offset";
    options.from = SHMQ_FROM_OFFSET;
    options.from_offset = 640;
    consumers[0] = fixture_consumer_with(&client, "t", &options);
    CHECK_EQ(fixture_poll_number(consumers[0], 1000), 10);
    options.group = "latest";
    options.from = SHMQ_FROM_LATEST;
    consumers[1] = fixture_consumer_with(&client, "t", &options);
    fixture_stop(supervisor);
    supervisor = fixture_start();
    struct fixture_client other = fixture_connect();

    fixture_topic(&other, "t", NULL);
    producer = fixture_producer(&other, "t", 1000);
    fixture_publish_range(producer, 100, 103);
    for (int i = 0; i < 2; i++)
        fixture_expect_range(consumers[i], 100, 103);
    fixture_close(&other);
    fixture_close(&client);
    fixture_stop(supervisor);
}

struct seen_number {
    shmq_producer *producer;
    shmq_consumer *consumer;
    uint64_t number;
};

static bool number_goes_through(void *arg)
{
    struct seen_number *seen = arg;
    struct shmq_message got;

    seen->number++;
    for (int i = 0; i < 2000; i++) /* two laps: room is computed on the way */
        (void)fixture_publish_number(seen->producer, seen->number);
    int n = shmq_poll(seen->consumer, &got, 1, 100);

    return n == 1 && fixture_number(&got) == seen->number;
}

TEST(orphaned_memory_is_left)
{
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();
    struct fixture_client other;
    struct shmq_topic_options options = fixture_small_topic(SHMQ_DROP_OLD, 1);
    struct seen_number seen = {.number = 0};

    fixture_topic(&client, "t", &options);
    seen.producer = fixture_producer(&client, "t", 200);
    CHECK_OK(fixture_publish_number(seen.producer, 1));
    /* Its supervisor is killed and somebody clears /dev/shm: nothing in the old memory says so. */
    test_kill(supervisor, SIGKILL);
    (void)test_remove_leftovers();
    supervisor = fixture_spawn();
    other = fixture_connect();
    options.if_not_exists = 1;
    CHECK_OK(shmq_topic_create(other.connection, "t", &options));
    seen.consumer = fixture_consumer(&other, "t", NULL);
    CHECK(test_eventually(number_goes_through, &seen, 10000));
    fixture_close(&other);
    fixture_close(&client);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

/* ---- topics, groups, clients in lists -------------------------------------------------------- */

struct tally {
    uint32_t count;
    uint32_t stop_at;
    char last[SHMQ_NAME_SIZE];
    bool ordered;
    uint64_t messages;
    uint64_t lag_bytes;
    uint64_t found;
};

static int count_topic(const struct shmq_topic_info *info, void *context)
{
    struct tally *tally = context;

    tally->ordered = tally->ordered && strcmp(tally->last, info->name) < 0;
    strcpy(tally->last, info->name);
    tally->count++;
    return tally->count == tally->stop_at ? 42 : 0;
}

static int count_partition(const struct shmq_partition_info *info, void *context)
{
    struct tally *tally = context;

    tally->ordered = tally->ordered && info->partition == tally->count;
    tally->count++;
    tally->messages += info->messages;
    return 0;
}

static int count_group(const struct shmq_group_info *info, void *context)
{
    struct tally *tally = context;

    tally->count++;
    tally->lag_bytes += info->lag_bytes;
    tally->found += strcmp(info->topic, "many") == 0 && info->member_count == 1;
    return 0;
}

static int count_group_partition(const struct shmq_group_partition *info, void *context)
{
    struct tally *tally = context;

    tally->ordered = tally->ordered && info->partition == tally->count;
    tally->count++;
    tally->lag_bytes += info->lag_bytes;
    tally->found += info->owner_pid == (uint32_t)getpid();
    return 0;
}

static int count_client(const struct shmq_client_info *info, void *context)
{
    struct tally *tally = context;

    tally->count++;
    tally->found += info->pid == (uint32_t)getpid() && info->producers == 300;
    return 0;
}

TEST(topics_are_described_altered_and_listed)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    struct shmq_topic_options change = SHMQ_TOPIC_OPTIONS_INIT;
    struct shmq_topic_info info;
    struct tally tally = {.ordered = true};

    options.ring_bytes = 65536;
    options.partitions = 2;
    options.overflow = SHMQ_REJECT;
    options.group_linger_ms = 1234;
    CHECK_OK(shmq_topic_create(client.connection, "t", &options));
    CHECK_ERR(shmq_topic_create(client.connection, "t", &options), SHMQ_EEXIST);
    options.if_not_exists = 1;
    CHECK_OK(shmq_topic_create(client.connection, "t", &options));
    CHECK_OK(shmq_topic_describe(client.connection, "t", &info));
    CHECK_STR_EQ(info.name, "t");
    CHECK_EQ(info.partitions, 2);
    CHECK_EQ(info.ring_bytes, 65536);
    CHECK_EQ(info.max_message, 65536 / 8 - 32);
    CHECK_EQ(info.overflow, SHMQ_REJECT);
    CHECK_EQ(info.group_linger_ms, 1234);
    change.partitions = 3;
    change.group_linger_ms = SHMQ_LINGER_FOREVER;
    change.max_message = 1000;
    CHECK_OK(shmq_topic_alter(client.connection, "t", &change));
    CHECK_OK(shmq_topic_describe(client.connection, "t", &info));
    CHECK_EQ(info.partitions, 3);
    CHECK_EQ(info.group_linger_ms, SHMQ_LINGER_FOREVER);
    CHECK_EQ(info.max_message, 1000);
    change.ring_bytes = 131072;
    CHECK_ERR(shmq_topic_alter(client.connection, "t", &change), SHMQ_EINVAL);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "cannot be changed");
    CHECK_ERR(shmq_topic_alter(client.connection, "t", NULL), SHMQ_EINVAL);
    CHECK_ERR(shmq_topic_create(client.connection, "bad name", NULL), SHMQ_EINVAL);
    CHECK_ERR(shmq_topic_create(client.connection, "shmq.mine", NULL), SHMQ_EINVAL);
    CHECK_ERR(shmq_topic_delete(client.connection, "absent"), SHMQ_ENOTOPIC);
    /* More than a page of 32 KiB takes. */
    for (int i = 0; i < 150; i++) {
        char name[SHMQ_NAME_SIZE];

        (void)snprintf(name, sizeof(name), "list-%03d", i);
        options.partitions = 1;
        CHECK_OK(shmq_topic_create(client.connection, name, &options));
    }
    CHECK_OK(shmq_topic_list(client.connection, count_topic, &tally));
    CHECK_EQ(tally.count, 151);
    CHECK(tally.ordered);
    tally = (struct tally){.stop_at = 100};
    CHECK_INT_EQ(shmq_topic_list(client.connection, count_topic, &tally), 42);
    CHECK_EQ(tally.count, 100);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST(partitions_groups_and_clients_are_listed)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct fixture_client idle = fixture_connect();
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    struct tally tally = {.ordered = true};
    struct shmq_bus_info info;

    options.ring_bytes = 65536;
    options.partitions = 300; /* more than a page of anything */
    fixture_topic(&client, "many", &options);
    shmq_producer *producer = fixture_producer(&client, "many", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "many", "readers");

    for (uint64_t i = 0; i < 600; i++)
        CHECK_OK(fixture_publish_number(producer, i));
    CHECK_OK(shmq_partition_list(client.connection, "many", count_partition, &tally));
    CHECK_EQ(tally.count, 300);
    CHECK_EQ(tally.messages, 600);
    CHECK(tally.ordered);
    tally = (struct tally){.count = 0};
    CHECK_OK(shmq_group_list(client.connection, NULL, count_group, &tally));
    CHECK_EQ(tally.count, 1);
    CHECK_EQ(tally.found, 1);
    CHECK_EQ(tally.lag_bytes, 600 * 64);
    tally = (struct tally){.ordered = true};
    CHECK_OK(
        shmq_group_describe(client.connection, "many", "readers", count_group_partition, &tally));
    CHECK_EQ(tally.count, 300);
    CHECK_EQ(tally.found, 300);
    CHECK_EQ(tally.lag_bytes, 600 * 64);
    CHECK(tally.ordered);
    tally = (struct tally){.count = 0};
    CHECK_OK(shmq_client_list(client.connection, count_client, &tally));
    CHECK_EQ(tally.count, 2);
    CHECK_EQ(tally.found, 1);
    CHECK_ERR(shmq_group_delete(client.connection, "many", "readers"), SHMQ_EBUSY);
    CHECK_ERR(shmq_group_delete(client.connection, "many", "absent"), SHMQ_ENOGROUP);
    shmq_consumer_close(consumer);
    CHECK_OK(shmq_group_delete(client.connection, "many", "readers"));
    CHECK_ERR(
        shmq_group_describe(client.connection, "many", "readers", count_group_partition, &tally),
        SHMQ_ENOGROUP);
    CHECK_OK(shmq_bus_describe(client.connection, &info));
    CHECK_EQ(info.topics, 1);
    CHECK_EQ(info.partitions, 300);
    CHECK_EQ(info.clients, 2);
    CHECK_EQ(info.pid, getpid());
    CHECK_STR_EQ(info.bus, test_bus_name());
    fixture_close(&idle);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST_MAIN("client_bus", T(killed_supervisor_is_not_noticed_by_traffic),
          T(control_call_waits_for_the_successor), T(control_call_without_successor_ends_in_time),
          T(bus_that_is_made_anew_is_opened_anew),
          T(bus_that_is_made_anew_is_read_from_its_beginning), T(orphaned_memory_is_left),
          T(topics_are_described_altered_and_listed), T(partitions_groups_and_clients_are_listed))
