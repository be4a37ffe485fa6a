/* The supervisor against those who send garbage, flood, stall and ask for too much: each pays for it
 * alone. */
#include "daemon/shmqd.h"
#include "libshmq/cursor.h"
#include "libshmq/paths.h"
#include "test/support/test.h"
#include "test/support/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static shmq_supervisor *start_with(const char *config)
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor = NULL;
    char error[512] = "", path[300];
    int rc;

    if (config) {
        snprintf(path, sizeof(path), "%s/shmqd.conf", test_tmpdir());
        FILE *file = fopen(path, "w");

        REQUIRE(file != NULL);
        fputs(config, file);
        fclose(file);
        options.config = path;
    }
    rc = shmq_supervisor_start(&options, &supervisor, error, sizeof(error));
    if (rc < 0)
        FAIL("start: %s", error);
    REQUIRE(rc == 0);
    return supervisor;
}

static uint64_t create(struct wire *wire, const char *name, uint32_t partitions)
{
    struct topic_options options;
    struct protocol_topic_info info;

    topic_options_init(&options);
    snprintf(options.name, sizeof(options.name), "%s", name);
    options.ring_bytes = RING_MIN_BYTES;
    options.partitions = partitions;
    REQUIRE_OK(wire_topic_create(wire, &options, 0, &info));
    return info.id;
}

static bool is_ended(struct wire *wire, int timeout_ms)
{
    struct pollfd ready = {.fd = wire->fd, .events = POLLIN};
    char byte;

    return poll(&ready, 1, timeout_ms) == 1 && recv(wire->fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

static void still_serves(struct wire *wire)
{
    struct protocol_header status;

    CHECK_OK(wire_call(wire, &status, PROTOCOL_STATUS, sizeof(status)));
}

/* ---- the socket ------------------------------------------------------------------------------ */

TEST(garbage_is_answered_once_and_dropped)
{
    struct test_random random;
    struct wire good, bad;
    shmq_supervisor *supervisor = start_with("[log]\nlevel = error\n");

    test_random_init(&random, test_seed());
    REQUIRE(wire_open(&good));
    for (int i = 0; i < 300; i++) {
        unsigned char bytes[2048];
        size_t length = 1 + (size_t)test_random_below(&random, sizeof(bytes));
        struct protocol_failure *failure = (void *)bad.reply;

        REQUIRE(wire_connect(&bad) == 0);
        if (i % 2)
            CHECK_OK(wire_hello(&bad, 0));
        wire_close_fds(&bad);
        test_random_fill(&random, bytes, length);
        if (i % 3 == 0) /* looks like ours, is not */
            protocol_begin((void *)bytes, (enum protocol_type)(1 + i % 45), (uint32_t)length);
        CHECK(send(bad.fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
        struct pollfd ready = {.fd = bad.fd, .events = POLLIN};

        CHECK_INT_EQ(poll(&ready, 1, 5000), 1);
        if (CHECK(recv(bad.fd, bad.reply, sizeof(bad.reply), MSG_DONTWAIT) ==
                  (ssize_t)sizeof(*failure))) {
            CHECK(failure->header.status < 0);
            CHECK(failure->text[0] != '\0');
        }
        CHECK(is_ended(&bad, 5000));
        wire_close(&bad);
    }
    still_serves(&good);
    wire_close(&good);
    shmq_supervisor_stop(supervisor);
}

/* Every request type with every field random but its header: none may hurt. */
TEST(well_formed_nonsense_is_refused)
{
    struct test_random random;
    struct wire wire, good;
    unsigned refused = 0;
    shmq_supervisor *supervisor = start_with("[log]\nlevel = error\n");
    static const size_t SIZES[] = {
        [PROTOCOL_TOPIC_CREATE] = sizeof(struct protocol_topic_put),
        [PROTOCOL_TOPIC_DESCRIBE] = sizeof(struct protocol_topic_request),
        [PROTOCOL_TOPIC_LIST] = sizeof(struct protocol_list_request),
        [PROTOCOL_TOPIC_ALTER] = sizeof(struct protocol_topic_put),
        [PROTOCOL_TOPIC_PURGE] = sizeof(struct protocol_topic_request),
        [PROTOCOL_PARTITION_LIST] = sizeof(struct protocol_list_request),
        [PROTOCOL_PARTITION_OPEN] = sizeof(struct protocol_partition_open),
        [PROTOCOL_SLOT_CLOSE] = sizeof(struct protocol_slot_request),
        [PROTOCOL_RESOLVE] = sizeof(struct protocol_slot_request),
        [PROTOCOL_GROUP_JOIN] = sizeof(struct protocol_group_join),
        [PROTOCOL_GROUP_LEAVE] = sizeof(struct protocol_group_request),
        [PROTOCOL_GROUP_SEGMENT] = sizeof(struct protocol_group_request),
        [PROTOCOL_GROUP_LIST] = sizeof(struct protocol_list_request),
        [PROTOCOL_GROUP_DESCRIBE] = sizeof(struct protocol_group_request),
        [PROTOCOL_GROUP_DELETE] = sizeof(struct protocol_group_request),
        [PROTOCOL_CLIENT_LIST] = sizeof(struct protocol_list_request),
    };

    test_random_init(&random, test_seed());
    REQUIRE(wire_open(&good));
    REQUIRE(wire_open(&wire));
    uint64_t topic = create(&good, "t", 2);

    for (int i = 0; i < 3000; i++) {
        uint32_t type = (uint32_t)test_random_below(&random, sizeof(SIZES) / sizeof(SIZES[0]));
        _Alignas(8) unsigned char request[4096];
        int rc;

        if (SIZES[type] == 0)
            continue;
        test_random_fill(&random, request, SIZES[type]);
        if (i % 2) { /* small numbers and the topic's own name get deeper */
            for (size_t at = sizeof(struct protocol_header); at < SIZES[type]; at += 4)
                memset(request + at + 1, 0, 3), request[at] &= 3;
            if (type == PROTOCOL_PARTITION_OPEN || type == PROTOCOL_SLOT_CLOSE ||
                type == PROTOCOL_RESOLVE || type >= PROTOCOL_GROUP_LEAVE)
                memcpy(request + sizeof(struct protocol_header), &topic, sizeof(topic));
        }
        memset(request, 0, sizeof(struct protocol_header));
        rc = wire_call(&wire, request, (enum protocol_type)type, SIZES[type]);
        refused += rc < 0;
        if (rc == SHMQ_ECLOSED || rc == SHMQ_EPROTO) {
            wire_close(&wire);
            REQUIRE(wire_open(&wire));
        }
    }
    CHECK(refused > 500);
    still_serves(&good);
    CHECK_OK(wire_topic_describe(&good, "t", NULL));
    wire_close(&wire);
    wire_close(&good);
    shmq_supervisor_stop(supervisor);
}

TEST(silence_instead_of_hello_is_dropped)
{
    struct wire silent, good;
    uint64_t before;
    shmq_supervisor *supervisor = start_with(NULL);

    REQUIRE(wire_open(&good));
    REQUIRE(wire_connect(&silent) == 0);
    before = test_now_ns();
    CHECK(is_ended(&silent, 15000));
    CHECK(test_now_ns() - before >= UINT64_C(4000000000));
    test_sleep_ms(200);
    still_serves(&good); /* who said hello may be silent */
    wire_close(&silent);
    wire_close(&good);
    shmq_supervisor_stop(supervisor);
}

TEST(the_first_request_must_be_hello)
{
    struct wire wire;
    struct protocol_header status;
    struct protocol_hello hello = {.fingerprint = 1, .flags = HELLO_MEMBARRIER};
    shmq_supervisor *supervisor = start_with(NULL);

    REQUIRE(wire_connect(&wire) == 0);
    CHECK_ERR(wire_call(&wire, &status, PROTOCOL_STATUS, sizeof(status)), SHMQ_EPROTO);
    CHECK(is_ended(&wire, 5000));
    wire_close(&wire);
    REQUIRE(wire_connect(&wire) == 0);
    CHECK_ERR(wire_call(&wire, &hello, PROTOCOL_HELLO, sizeof(hello)), SHMQ_EVERSION);
    CHECK_CONTAINS(wire.text, "0000000000000001");
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

TEST(who_does_not_read_is_dropped)
{
    struct wire flood, good;
    struct protocol_list_request list = {.after_id = 0};
    bool ended = false;
    shmq_supervisor *supervisor = start_with("[log]\nlevel = error\n");

    REQUIRE(wire_open(&good));
    for (int i = 0; i < 40; i++) {
        char name[16];

        snprintf(name, sizeof(name), "t%d", i);
        (void)create(&good, name, 1);
    }
    REQUIRE(wire_open(&flood));
    protocol_begin(&list.header, PROTOCOL_TOPIC_LIST, sizeof(list));
    for (int i = 0; i < 2000 && !ended; i++) {
        ssize_t sent = send(flood.fd, &list, sizeof(list), MSG_NOSIGNAL | MSG_DONTWAIT);

        ended = sent < 0 && errno == EPIPE;
        if (sent < 0 && errno == EAGAIN)
            test_sleep_ms(5);
    }
    CHECK(ended);
    still_serves(&good);
    wire_close(&flood);
    wire_close(&good);
    shmq_supervisor_stop(supervisor);
}

TEST(a_thousand_connections)
{
    static struct wire wires[1500];
    struct rlimit limit = {.rlim_cur = 8192, .rlim_max = 8192};
    shmq_supervisor *supervisor;
    struct protocol_status_reply *status;
    struct protocol_header request;
    struct protocol_list_request list = {.after_id = 0};
    uint64_t last = 0;
    uint32_t seen = 0;
    int pages = 0;

    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        SKIP("descriptors: %s", strerror(errno));
    supervisor = start_with("[limits]\nconnections_per_user = 2000\n");
    for (int i = 0; i < 1500; i++)
        REQUIRE(wire_open(&wires[i]));
    CHECK_OK(wire_call(&wires[7], &request, PROTOCOL_STATUS, sizeof(request)));
    status = (void *)wires[7].reply;
    CHECK_EQ(status->clients, 1500);
    for (bool more = true; more && pages < 20; pages++) {
        struct protocol_list_reply *reply = (void *)wires[7].reply;
        const struct protocol_client_info *infos = (const void *)reply->elements;

        list.after_id = last;
        if (!CHECK_OK(wire_call(&wires[7], &list, PROTOCOL_CLIENT_LIST, sizeof(list))))
            break;
        for (uint32_t i = 0; i < reply->header.count; i++) {
            CHECK(infos[i].id > last);
            last = infos[i].id;
        }
        seen += reply->header.count;
        more = reply->more;
    }
    CHECK_EQ(seen, 1500);
    CHECK(pages > 1);
    for (int i = 0; i < 1500; i++) {
        if (i != 7)
            wire_close(&wires[i]);
    }
    for (int i = 0; i < 500; i++) {
        CHECK_OK(wire_call(&wires[7], &request, PROTOCOL_STATUS, sizeof(request)));
        if (status->clients == 1)
            break;
        test_sleep_ms(10);
    }
    CHECK_EQ(status->clients, 1);
    wire_close(&wires[7]);
    shmq_supervisor_stop(supervisor);
}

/* One reply may be unread; who asks for the next one before has broken the protocol. */
TEST(who_asks_again_before_reading_is_dropped)
{
    struct wire wire;
    struct protocol_header status;
    shmq_supervisor *supervisor = start_with("[log]\nlevel = error\n");

    REQUIRE(wire_open(&wire));
    struct pollfd ready = {.fd = wire.fd, .events = POLLIN};

    protocol_begin(&status, PROTOCOL_STATUS, sizeof(status));
    CHECK(send(wire.fd, &status, sizeof(status), MSG_NOSIGNAL) == (ssize_t)sizeof(status));
    CHECK_INT_EQ(poll(&ready, 1, 5000), 1);
    CHECK(send(wire.fd, &status, sizeof(status), MSG_NOSIGNAL) == (ssize_t)sizeof(status));
    test_sleep_ms(50);
    CHECK(recv(wire.fd, wire.reply, sizeof(wire.reply), MSG_DONTWAIT) ==
          (ssize_t)sizeof(struct protocol_status_reply));
    CHECK(is_ended(&wire, 5000));
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

/* The kernel refuses them where it can; else they are closed, and the sender with them. */
TEST(descriptors_are_not_taken)
{
    struct wire wire, good;
    struct protocol_header status;
    int ends[2];
    char byte;
    shmq_supervisor *supervisor = start_with("[log]\nlevel = error\n");

    REQUIRE(wire_open(&good));
    REQUIRE(wire_open(&wire));
    REQUIRE(pipe(ends) == 0);
    protocol_begin(&status, PROTOCOL_STATUS, sizeof(status));
    int rc = protocol_send(wire.fd, &status, sizeof(status), &ends[1], 1);

    close(ends[1]);
    if (rc == SHMQ_EPERM) {
        still_serves(&wire);
    } else {
        CHECK(recv(wire.fd, wire.reply, sizeof(wire.reply), 0) > 0);
        CHECK_ERR(((struct protocol_header *)(void *)wire.reply)->status, SHMQ_EPROTO);
        CHECK(is_ended(&wire, 5000));
    }
    CHECK(read(ends[0], &byte, 1) == 0); /* nobody has the other end */
    close(ends[0]);
    still_serves(&good);
    wire_close(&wire);
    wire_close(&good);
    shmq_supervisor_stop(supervisor);
}

/* ---- limits ---------------------------------------------------------------------------------- */

TEST(limits_are_kept_and_named)
{
    struct wire wires[3], extra;
    struct topic_options options;
    struct ring ring, second;
    uint32_t slot;
    shmq_supervisor *supervisor =
        start_with("[limits]\nconnections_per_user = 3\nbytes_per_user = 1M\ntopics = 3\n"
                   "partitions = 6\nslots_per_user = 1\ngroups_per_topic = 2\n");
    struct protocol_group_joined joined;

    for (int i = 0; i < 3; i++)
        REQUIRE(wire_open(&wires[i]));
    REQUIRE(wire_connect(&extra) == 0);
    CHECK_ERR(wire_hello(&extra, 0), SHMQ_ELIMIT);
    CHECK_CONTAINS(extra.text, "connections_per_user");
    wire_close(&extra);
    topic_options_init(&options);
    strcpy(options.name, "big");
    options.ring_bytes = 1 << 20;
    CHECK_ERR(wire_topic_create(&wires[0], &options, 0, NULL), SHMQ_ELIMIT);
    CHECK_CONTAINS(wires[0].text, "bytes_per_user");
    uint64_t topic = create(&wires[0], "a", 2);

    (void)create(&wires[0], "b", 1);
    options.ring_bytes = RING_MIN_BYTES;
    options.partitions = 4;
    CHECK_ERR(wire_topic_create(&wires[0], &options, 0, NULL), SHMQ_ELIMIT);
    CHECK_CONTAINS(wires[0].text, "partitions");
    (void)create(&wires[0], "c", 1);
    options.partitions = 1;
    CHECK_ERR(wire_topic_create(&wires[0], &options, 0, NULL), SHMQ_ELIMIT);
    CHECK_CONTAINS(wires[0].text, "topics");
    REQUIRE_OK(wire_partition_open(&wires[0], topic, 0, ROLE_PRODUCER, &ring, &slot));
    CHECK_ERR(wire_partition_open(&wires[1], topic, 1, ROLE_PRODUCER, &second, &slot), SHMQ_ELIMIT);
    CHECK_CONTAINS(wires[1].text, "slots_per_user");
    CHECK_OK(wire_group_join(&wires[0], "a", "g1", FROM_LATEST, &joined));
    CHECK_OK(wire_group_join(&wires[0], "a", "g2", FROM_LATEST, &joined));
    CHECK_ERR(wire_group_join(&wires[0], "a", "g3", FROM_LATEST, &joined), SHMQ_ELIMIT);
    ring_deinit(&ring);
    for (int i = 0; i < 3; i++)
        wire_close(&wires[i]);
    shmq_supervisor_stop(supervisor);
}

/* Before hello too; a few more may come to be told why. */
TEST(silent_connections_are_limited)
{
    struct wire wires[2 + 16], extra;
    shmq_supervisor *supervisor =
        start_with("[limits]\nconnections_per_user = 2\n[log]\nlevel = error\n");

    for (int i = 0; i < 2 + 16; i++)
        REQUIRE(wire_connect(&wires[i]) == 0);
    REQUIRE(wire_connect(&extra) == 0);
    CHECK(is_ended(&extra, 2000)); /* long before the 5 s that hello may take */
    CHECK_OK(wire_hello(&wires[0], 0));
    for (int i = 0; i < 2 + 16; i++)
        wire_close(&wires[i]);
    wire_close(&extra);
    shmq_supervisor_stop(supervisor);
}

static bool is_welcome(void *context)
{
    struct wire *wire = context;
    bool welcome = wire_connect(wire) == 0 && wire_hello(wire, 0) == 0;

    if (!welcome)
        wire_close(wire);
    return welcome;
}

/* Whoever closes sockets and keeps the locks is as many clients as before. */
TEST(identities_without_connections_are_counted)
{
    struct wire wires[3], extra;
    shmq_supervisor *supervisor =
        start_with("[limits]\nconnections_per_user = 3\n[log]\nlevel = error\n");

    for (int i = 0; i < 3; i++) {
        REQUIRE(wire_open(&wires[i]));
        close(wires[i].fd);
        wires[i].fd = -1;
    }
    test_sleep_ms(50);
    REQUIRE(wire_connect(&extra) == 0);
    CHECK_ERR(wire_hello(&extra, 0), SHMQ_ELIMIT);
    CHECK_CONTAINS(extra.text, "connections_per_user");
    wire_close(&extra);
    wire_close(&wires[0]); /* with its lock */
    CHECK(test_eventually(is_welcome, &extra, 15000));
    wire_close(&extra);
    for (int i = 1; i < 3; i++)
        wire_close(&wires[i]);
    shmq_supervisor_stop(supervisor);
}

TEST_MAIN("supervisor_hostile", T(garbage_is_answered_once_and_dropped),
          T(well_formed_nonsense_is_refused), T_TIMEOUT(silence_instead_of_hello_is_dropped, 30),
          T(the_first_request_must_be_hello), T(who_does_not_read_is_dropped),
          T_TIMEOUT(a_thousand_connections, 60), T(limits_are_kept_and_named),
          T(who_asks_again_before_reading_is_dropped), T(descriptors_are_not_taken),
          T(silent_connections_are_limited),
          T_TIMEOUT(identities_without_connections_are_counted, 30))
