/* SPDX-License-Identifier: Apache-2.0 */
/* test_client.c: connections: errors in words, impostors, threads, headers. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libshmq/protocol.h"
#include "test/support/fixture.h"

/* ---- connecting ------------------------------------------------------------------------------ */

TEST(absent_bus_is_told_with_the_command)
{
    shmq_connection *connection = (shmq_connection *)(uintptr_t)1;
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    uint64_t before_ns = test_now_ns();

    CHECK_ERR(shmq_connect(NULL, &connection), SHMQ_ENOBUS);
    CHECK(connection == NULL);
    CHECK(test_now_ns() - before_ns < 2000000000); /* at once: it does not wait for one to start */
    CHECK_CONTAINS(shmq_errmsg(NULL), "start it with: shmqd --bus ");
    CHECK_CONTAINS(shmq_errmsg(NULL), test_bus_name());
    options.runtime_dir = test_tmpdir();
    CHECK_ERR(shmq_connect(&options, &connection), SHMQ_ENOBUS);
    CHECK_CONTAINS(shmq_errmsg(NULL), "--runtime-dir ");
    CHECK_CONTAINS(shmq_errmsg(NULL), test_tmpdir());
}

TEST(bad_options_are_refused)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    shmq_connection *connection = NULL;

    options.bus = "not/a/name";
    CHECK_ERR(shmq_connect(&options, &connection), SHMQ_EINVAL);
    CHECK_CONTAINS(shmq_errmsg(NULL), "not/a/name");
    options.bus = NULL;
    options.timeout_ms = -1;
    CHECK_ERR(shmq_connect(&options, &connection), SHMQ_EINVAL);
    options.timeout_ms = 0;
    options.size = 4;
    CHECK_ERR(shmq_connect(&options, &connection), SHMQ_EINVAL);
    CHECK_ERR(shmq_connect(NULL, NULL), SHMQ_EINVAL);
    shmq_close(NULL);
    shmq_channel_close(NULL);
    shmq_producer_close(NULL);
    shmq_consumer_close(NULL);
}

/* Listens where shmqd would; answers as the test says. */
struct impostor {
    int listen_fd;
    int peer_fd;
    void (*serve)(int fd);
    pthread_t thread;
};

static void *run_impostor(void *arg)
{
    struct impostor *impostor = arg;

    impostor->peer_fd = accept(impostor->listen_fd, NULL, NULL);
    if (impostor->peer_fd >= 0)
        impostor->serve(impostor->peer_fd);
    return NULL;
}

static void start_impostor(struct impostor *impostor, void (*serve)(int fd))
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char directory[90];

    (void)mkdir(getenv("SHMQ_RUNTIME_DIR"), 0700);
    (void)snprintf(directory, sizeof(directory), "%s/%s", getenv("SHMQ_RUNTIME_DIR"),
                   test_bus_name());
    REQUIRE(mkdir(directory, 0700) == 0);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/shmqd.sock", directory);
    impostor->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    impostor->peer_fd = -1;
    impostor->serve = serve;
    REQUIRE(bind(impostor->listen_fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    REQUIRE(listen(impostor->listen_fd, 5) == 0);
    REQUIRE(pthread_create(&impostor->thread, NULL, run_impostor, impostor) == 0);
}

static void stop_impostor(struct impostor *impostor)
{
    REQUIRE(pthread_join(impostor->thread, NULL) == 0);
    (void)close(impostor->peer_fd);
    (void)close(impostor->listen_fd);
    (void)test_remove_leftovers();
}

static void serve_silence(int fd)
{
    char buffer[4096];

    while (recv(fd, buffer, sizeof(buffer), 0) > 0)
        continue;
}

static void serve_garbage(int fd)
{
    char buffer[4096];

    (void)recv(fd, buffer, sizeof(buffer), 0);
    memset(buffer, 'g', sizeof(buffer));
    (void)send(fd, buffer, 500, MSG_NOSIGNAL);
    serve_silence(fd);
}

static void serve_foreign_version(int fd)
{
    char buffer[4096];
    struct protocol_header reply;

    (void)recv(fd, buffer, sizeof(buffer), 0);
    protocol_begin(&reply, PROTOCOL_HELLO, sizeof(reply));
    reply.version = PROTOCOL_VERSION + 6;
    (void)send(fd, &reply, sizeof(reply), MSG_NOSIGNAL);
    serve_silence(fd);
}

/* A welcome without the descriptor that it needs. */
static void serve_empty_welcome(int fd)
{
    char buffer[4096];
    struct protocol_welcome reply = {.client = 5};

    (void)recv(fd, buffer, sizeof(buffer), 0);
    protocol_begin(&reply.header, PROTOCOL_HELLO, sizeof(reply));
    reply.header.id = ((struct protocol_header *)(void *)buffer)->id;
    (void)send(fd, &reply, sizeof(reply), MSG_NOSIGNAL);
    serve_silence(fd);
}

static void check_impostor(void (*serve)(int fd), int expected, const char *words)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    shmq_connection *connection = NULL;
    struct impostor impostor;
    uint64_t before_ns = test_now_ns();

    options.timeout_ms = 300;
    start_impostor(&impostor, serve);
    CHECK_ERR(shmq_connect(&options, &connection), expected);
    CHECK_CONTAINS(shmq_errmsg(NULL), words);
    CHECK(test_now_ns() - before_ns < 5000000000);
    stop_impostor(&impostor);
}

TEST(silent_supervisor_is_given_up_in_time)
{
    check_impostor(serve_silence, SHMQ_ETIMEOUT, "does not answer in time");
}

TEST(garbage_from_a_supervisor_is_refused)
{
    check_impostor(serve_garbage, SHMQ_EPROTO, "does not speak shmq");
}

TEST(foreign_protocol_version_is_named)
{
    check_impostor(serve_foreign_version, SHMQ_EVERSION, "version 7");
}

TEST(welcome_that_contradicts_itself_is_refused)
{
    check_impostor(serve_empty_welcome, SHMQ_EPROTO, "contradicts itself");
}

TEST(stopped_supervisor_times_out_and_nothing_leaks)
{
    pid_t supervisor = fixture_spawn();
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;
    shmq_connection *connection = NULL;
    shmq_channel *channel = NULL;
    shmq_producer *producer = NULL;
    shmq_consumer *consumer = NULL;
    struct shmq_topic_info info;
    struct shmq_topic_options single = SHMQ_TOPIC_OPTIONS_INIT;

    single.producers = SHMQ_PRODUCERS_SINGLE;
    options.timeout_ms = 200;
    REQUIRE_OK(shmq_connect(&options, &connection));
    REQUIRE_OK(shmq_channel_open(connection, &channel));
    CHECK_OK(shmq_topic_create(connection, "t", &single));
    test_kill(supervisor, SIGSTOP);
    REQUIRE(test_wait_stopped(supervisor, 5000));
    uint64_t before_ns = test_now_ns();

    CHECK_ERR(shmq_topic_describe(connection, "t", &info), SHMQ_ETIMEOUT);
    CHECK_ERR(shmq_topic_describe(connection, "t", &info), SHMQ_ETIMEOUT);
    CHECK(test_now_ns() - before_ns < 5000000000);
    test_kill(supervisor, SIGCONT);
    CHECK_OK(shmq_topic_describe(connection, "t", &info));
    CHECK_EQ(info.producers, SHMQ_PRODUCERS_SINGLE);
    /* What is granted after nobody waits for it any more is given back: else a ghost of this
     * connection would own the partition for as long as it lives, and the consumer stand by. */
    test_kill(supervisor, SIGSTOP);
    REQUIRE(test_wait_stopped(supervisor, 5000));
    CHECK_ERR(shmq_consumer_open(channel, "t", NULL, &consumer), SHMQ_ETIMEOUT);
    CHECK_ERR(shmq_producer_open(channel, "t", NULL, &producer), SHMQ_ETIMEOUT);
    test_kill(supervisor, SIGCONT);
    REQUIRE_OK(shmq_producer_open(channel, "t", NULL, &producer));
    REQUIRE_OK(shmq_consumer_open(channel, "t", NULL, &consumer));
    CHECK_OK(fixture_publish_number(producer, 1));
    CHECK_EQ(fixture_poll_number(consumer, 1000), 1);
    shmq_close(connection);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

/* ---- messages of errors ---------------------------------------------------------------------- */

static void *fail_elsewhere(void *arg)
{
    shmq_connection *connection = arg;
    struct shmq_topic_info info;

    CHECK_STR_EQ(shmq_errmsg(connection), "");
    CHECK_ERR(shmq_topic_describe(connection, "from-thread", &info), SHMQ_ENOTOPIC);
    CHECK_CONTAINS(shmq_errmsg(connection), "from-thread");
    return NULL;
}

TEST(sentence_is_that_of_the_thread_and_connection)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client a = fixture_connect();
    struct fixture_client b = fixture_connect();
    struct shmq_topic_info info;
    pthread_t thread;

    CHECK_ERR(shmq_topic_describe(a.connection, "absent-topic", &info), SHMQ_ENOTOPIC);
    CHECK_CONTAINS(shmq_errmsg(a.connection), "absent-topic");
    CHECK_CONTAINS(shmq_errmsg(NULL), "absent-topic");
    CHECK_STR_EQ(shmq_errmsg(b.connection), "");
    REQUIRE(pthread_create(&thread, NULL, fail_elsewhere, a.connection) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_CONTAINS(shmq_errmsg(a.connection), "absent-topic");
    fixture_close(&b);
    fixture_close(&a);
    fixture_stop(supervisor);
}

TEST(usage_errors_are_told_by_connection_too)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct fixture_client other = fixture_connect();
    struct shmq_message message = {.body = NULL, .body_length = 1};
    shmq_consumer *none;
    struct shmq_claim claim;

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

#define CHECK_TOLD(call, words) \
    do { \
        CHECK_ERR(shmq_consumer_open(other.channel, NULL, NULL, &none), SHMQ_EINVAL); \
        CHECK_STR_EQ(shmq_errmsg(client.connection), ""); \
        CHECK_ERR(call, SHMQ_EINVAL); \
        CHECK_CONTAINS(shmq_errmsg(client.connection), words); \
    } while (0)
    CHECK_TOLD(shmq_poll(consumer, &message, 0, 0), "poll:");
    CHECK_TOLD(shmq_publish(producer, &message), "publish:");
    CHECK_TOLD(shmq_publish_batch(producer, &message, 0), "publish batch:");
    CHECK_TOLD(shmq_claim(producer, NULL, 1, 8, &claim), "claim:");
    CHECK_TOLD(shmq_topic_describe(client.connection, "t", NULL), "topic describe:");
    CHECK_TOLD(shmq_channel_open(client.connection, NULL), "channel:");
    CHECK_TOLD(shmq_producer_open(client.channel, NULL, NULL, &producer), "producer:");
#undef CHECK_TOLD
    fixture_close(&other);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- threads --------------------------------------------------------------------------------- */

struct worker {
    shmq_connection *connection;
    uint32_t index;
    pthread_t thread;
};

/* Its own channel, topic, producer and consumer; the connection is everybody's. */
static void *work(void *arg)
{
    const struct worker *worker = arg;
    struct fixture_client client = {.connection = worker->connection};
    struct shmq_topic_info info;
    char name[16];

    (void)snprintf(name, sizeof(name), "t%u", worker->index);
    CHECK_OK(shmq_channel_open(worker->connection, &client.channel));
    for (uint32_t round = 0; round < 10; round++) {
        fixture_topic(&client, name, NULL);
        shmq_producer *producer = fixture_producer(&client, name, 1000);
        shmq_consumer *consumer = fixture_consumer(&client, name, NULL);

        for (uint64_t i = 0; i < 50; i++) {
            CHECK_OK(fixture_publish_number(producer, i));
            CHECK_EQ(fixture_poll_number(consumer, 2000), i);
        }
        CHECK_OK(shmq_topic_describe(worker->connection, name, &info));
        CHECK_STR_EQ(info.name, name);
        shmq_producer_close(producer);
        shmq_consumer_close(consumer);
        CHECK_OK(shmq_topic_delete(worker->connection, name));
    }
    shmq_channel_close(client.channel);
    return NULL;
}

TEST(threads_share_a_connection)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct worker workers[4];

    for (uint32_t i = 0; i < 4; i++) {
        workers[i] = (struct worker){.connection = client.connection, .index = i};
        REQUIRE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (uint32_t i = 0; i < 4; i++)
        REQUIRE(pthread_join(workers[i].thread, NULL) == 0);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- headers --------------------------------------------------------------------------------- */

TEST(headers_are_written_and_walked)
{
    unsigned char buffer[256];
    struct shmq_message message = {.headers = buffer};
    struct shmq_header header;
    size_t length = 0, position = 0;

    CHECK_OK(shmq_headers_add(buffer, sizeof(buffer), &length, "content-type", "text", 4));
    CHECK_OK(shmq_headers_add(buffer, sizeof(buffer), &length, "empty", NULL, 0));
    CHECK_OK(shmq_headers_add(buffer, sizeof(buffer), &length, "n", "\0\1\2", 3));
    message.headers_length = (uint16_t)length;
    CHECK_INT_EQ(shmq_headers_next(&message, &position, &header), 1);
    CHECK(header.name_length == 12 && memcmp(header.name, "content-type", 12) == 0);
    CHECK(header.value_length == 4 && memcmp(header.value, "text", 4) == 0);
    CHECK_INT_EQ(shmq_headers_next(&message, &position, &header), 1);
    CHECK(header.value_length == 0 && header.name_length == 5);
    CHECK_INT_EQ(shmq_headers_next(&message, &position, &header), 1);
    CHECK(header.value_length == 3 && memcmp(header.value, "\0\1\2", 3) == 0);
    CHECK_INT_EQ(shmq_headers_next(&message, &position, &header), 0);
    CHECK_INT_EQ(shmq_headers_next(&message, &position, &header), 0);
    /* Too long, and nothing changed. */
    size_t before = length;

    CHECK_ERR(shmq_headers_add(buffer, length + 10, &length, "name", "value!!", 7), SHMQ_ETOOBIG);
    CHECK_EQ(length, before);
    CHECK_ERR(shmq_headers_add(buffer, sizeof(buffer), &length, "", "x", 1), SHMQ_EINVAL);
    /* Every cut is malformed or ends at a boundary. */
    for (uint16_t cut = 0; cut < before; cut++) {
        int n = 0, rc;

        message.headers_length = cut;
        position = 0;
        while ((rc = shmq_headers_next(&message, &position, &header)) == 1)
            n++;
        CHECK(n < 3 && (rc == 0 || rc == SHMQ_EINVAL));
    }
}

TEST_MAIN("client", T(absent_bus_is_told_with_the_command), T(bad_options_are_refused),
          T(silent_supervisor_is_given_up_in_time), T(garbage_from_a_supervisor_is_refused),
          T(foreign_protocol_version_is_named), T(welcome_that_contradicts_itself_is_refused),
          T(stopped_supervisor_times_out_and_nothing_leaks),
          T(sentence_is_that_of_the_thread_and_connection),
          T(usage_errors_are_told_by_connection_too), T(threads_share_a_connection),
          T(headers_are_written_and_walked))
