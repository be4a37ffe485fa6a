/* SPDX-License-Identifier: Apache-2.0 */
/* test_hostile.c: shmqd and a topic that is in use, while others flood the socket, fill /dev/shm, take directories away
 * and bring memory of another version.
 *
 * What the supervisor alone has to stand is in test_supervisor_hostile.c, on the wire; here a producer and a consumer in
 * other processes publish and poll "live" all the time and may not notice.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "test/support/fixture.h"
#include "test/support/wire.h"
#include "test/support/world.h"

/* ---- the socket --------------------------------------------------------------------------------------------------------- */

static unsigned count_descriptors(pid_t pid)
{
    char path[64];
    unsigned count = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);

    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count;
}

static void send_with_descriptors(int socket, const void *bytes, size_t length, unsigned count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int[200]))] = {0};
    struct iovec part = {(void *)(uintptr_t)bytes, length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (count > 0) {
        struct cmsghdr *header = (struct cmsghdr *)(void *)control;
        int fds[200];

        for (unsigned i = 0; i < count; i++)
            fds[i] = STDIN_FILENO;
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    (void)sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Anything but what is said to shmqd: short, huge, of another version, with descriptors. */
static void send_garbage(struct wire *wire, struct test_random *random)
{
    static unsigned char bytes[70000];
    struct protocol_header *header = (struct protocol_header *)(void *)bytes;
    size_t length = (size_t)test_random_below(random, 300);

    test_random_fill(random, bytes, 300);
    switch (test_random_below(random, 5)) {
    case 0:
        break;
    case 1: /* right but for its type, or its body */
        protocol_begin(header, (enum protocol_type)test_random_below(random, 64), (uint32_t)length);
        break;
    case 2: /* another version */
        protocol_begin(header, PROTOCOL_STATUS, sizeof(*header));
        header->version = (uint16_t)(header->version + 1 + test_random_below(random, 9));
        length = sizeof(*header);
        break;
    case 3: /* more than any message has */
        protocol_begin(header, PROTOCOL_STATUS, sizeof(bytes));
        length = sizeof(bytes);
        break;
    default: /* its length is a lie */
        protocol_begin(header, PROTOCOL_STATUS, (uint32_t)length + 64);
    }
    send_with_descriptors(wire->fd, bytes, length,
                          test_random_below(random, 3) ? 0
                                                       : (unsigned)test_random_below(random, 200));
}

struct descriptors {
    pid_t pid;
    unsigned most;
};

static bool are_back(void *argument)
{
    const struct descriptors *descriptors = argument;

    return count_descriptors(descriptors->pid) <= descriptors->most;
}

TEST(garbage_and_descriptors)
{
    struct test_random random;
    struct world world;
    struct descriptors before;

    test_random_init(&random, test_seed());
    world_start(&world, "--ephemeral --set log.level=error");
    before = (struct descriptors){.pid = world.daemon, .most = count_descriptors(world.daemon)};
    for (unsigned i = 0; i < 1500 && test_failures() == 0; i++) {
        struct wire wire;

        REQUIRE(wire_connect(&wire) == 0);
        if (i % 2)
            CHECK_OK(wire_hello(&wire, 0));
        for (unsigned k = 0; k < 3; k++)
            send_garbage(&wire, &random);
        wire_close(&wire);
    }
    CHECK(test_eventually(are_back, &before, 10000));
    world_end(&world);
}

/* A request of each kind, its body random or nearly right, on a topic that others use too. */
static void ask_nonsense(struct wire *wire, struct test_random *random)
{
    static const uint8_t TYPES[] = {
        PROTOCOL_STATUS,         PROTOCOL_TOPIC_CREATE,   PROTOCOL_TOPIC_DESCRIBE,
        PROTOCOL_TOPIC_LIST,     PROTOCOL_TOPIC_ALTER,    PROTOCOL_TOPIC_PURGE,
        PROTOCOL_PARTITION_LIST, PROTOCOL_PARTITION_OPEN, PROTOCOL_SLOT_CLOSE,
        PROTOCOL_RESOLVE,        PROTOCOL_GROUP_JOIN,     PROTOCOL_GROUP_LEAVE,
        PROTOCOL_GROUP_LIST,     PROTOCOL_GROUP_SEGMENT,  PROTOCOL_GROUP_DESCRIBE,
        PROTOCOL_GROUP_DELETE,   PROTOCOL_CLIENT_LIST,    PROTOCOL_HELLO,
        PROTOCOL_TOPIC_DELETE};
    static const size_t SIZES[] = {
        sizeof(struct protocol_header),        sizeof(struct protocol_slot_request),
        sizeof(struct protocol_group_request), sizeof(struct protocol_partition_open),
        sizeof(struct protocol_topic_request), sizeof(struct protocol_topic_put),
        sizeof(struct protocol_group_join),    sizeof(struct protocol_list_request),
        sizeof(struct protocol_hello)};
    _Alignas(8) unsigned char request[4096] = {0};
    size_t size = SIZES[test_random_below(random, sizeof(SIZES) / sizeof(SIZES[0]))];
    uint8_t type = TYPES[test_random_below(random, sizeof(TYPES))];

    if (test_random_below(random, 2)) {
        test_random_fill(random, request, size);
    } else {
        for (unsigned i = 0; i < 40; i++)
            request[test_random_below(random, size)] = (unsigned char)test_random_below(random, 3);
    }
    memset(request, 0, sizeof(struct protocol_header));
    int rc = wire_call(wire, request, (enum protocol_type)type, size);

    if (rc == SHMQ_ECLOSED || rc == SHMQ_EPROTO || rc == SHMQ_EVERSION) {
        wire_close(wire);
        REQUIRE(wire_open(wire));
    }
    CHECK(rc != SHMQ_ETIMEOUT);
}

TEST(nonsense_in_every_request)
{
    struct test_random random;
    struct world world;
    struct wire wire;

    test_random_init(&random, test_seed());
    world_start(&world, "--ephemeral --set log.level=error");
    REQUIRE(wire_open(&wire));
    for (unsigned i = 0; i < 8000 && test_failures() == 0; i++)
        ask_nonsense(&wire, &random);
    wire_close(&wire);
    world_end(&world);
}

/* Sends requests as fast as it can, and reads no reply. */
static void flood(void *unused)
{
    struct protocol_list_request list = {.after_id = 0};

    (void)unused;
    for (;;) {
        struct wire wire;

        if (wire_connect(&wire) != 0 || wire_hello(&wire, 0) < 0) {
            wire_close(&wire);
            test_sleep_ms(1);
            continue;
        }
        protocol_begin(&list.header, PROTOCOL_CLIENT_LIST, sizeof(list));
        while (send(wire.fd, &list, sizeof(list), MSG_NOSIGNAL | MSG_DONTWAIT) > 0 ||
               errno == EAGAIN)
            sched_yield();
        wire_close(&wire);
    }
}

TEST(floods_and_silence)
{
    struct world world;
    pid_t floods[3];
    struct wire silent[64];
    uint64_t longest_ns = 0;

    world_start(&world, "--ephemeral --set log.level=error");
    for (int i = 0; i < 64; i++)
        REQUIRE(wire_connect(&silent[i]) == 0);
    for (int i = 0; i < 3; i++)
        floods[i] = test_spawn(flood, NULL);
    for (int i = 0; i < 20; i++) {
        uint64_t before_ns = test_now_ns();
        struct shmq_bus_info info;

        CHECK_OK(shmq_bus_describe(world.client.connection, &info));
        longest_ns =
            test_now_ns() - before_ns > longest_ns ? test_now_ns() - before_ns : longest_ns;
        test_sleep_ms(20);
    }
    CHECK(longest_ns < (uint64_t)test_scaled_ms(WORLD_PROGRESS_MS) * 1000000);
    CHECK(traffic_progresses(world.traffic, 20, WORLD_PROGRESS_MS));
    for (int i = 0; i < 3; i++)
        test_kill(floods[i], SIGKILL);
    for (int i = 0; i < 64; i++)
        wire_close(&silent[i]);
    world_end(&world);
}

/* Up to the limit they are served, above it they are told which one it is. */
static void crowd(const char *words, unsigned expected)
{
    static struct wire wires[2000];
    struct world world;
    unsigned served = 0;

    world_start(&world, words);
    for (unsigned i = 0; i < 2000; i++) {
        int rc;

        REQUIRE(wire_connect(&wires[i]) == 0);
        rc = wire_hello(&wires[i], 0);
        served += rc == 0;
        if (rc == 0)
            continue;
        CHECK_INT_EQ(rc, SHMQ_ELIMIT);
        CHECK_CONTAINS(wires[i].text, "connections_per_user");
        wire_close(&wires[i]);
    }
    CHECK_EQ(served, expected);
    world_check(&world);
    for (unsigned i = 0; i < 2000; i++)
        wire_close(&wires[i]);
    world_end(&world);
}

TEST(two_thousand_connections)
{
    struct rlimit limit = {.rlim_cur = 8192, .rlim_max = 8192};

    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        SKIP("descriptors: %s", strerror(errno));
    crowd("--ephemeral --set limits.connections_per_user=3000", 2000);
    crowd("--ephemeral", 1024 - 3); /* the traffic's two, and ours */
}

/* ---- /dev/shm is full ------------------------------------------------------------------------------------------------------ */

static void private_shm(const char *options)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0)
        SKIP("a /dev/shm of one's own needs root: %s", strerror(errno));
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options) != 0)
        SKIP("mount: %s", strerror(errno));
}

static uint64_t used_bytes(void)
{
    struct statvfs shm;

    REQUIRE(statvfs("/dev/shm", &shm) == 0);
    return (shm.f_blocks - shm.f_bfree) * shm.f_frsize;
}

static void check_full(struct world *world, int rc)
{
    const char *why = shmq_errmsg(world->client.connection);

    CHECK_INT_EQ(rc, SHMQ_ENOSPC);
    CHECK_CONTAINS(why, "MiB wanted");
    CHECK_CONTAINS(why, "MiB free in /dev/shm");
    CHECK_CONTAINS(why, "mount -o remount,size=");
}

static int fill_shm(struct world *world, const char *prefix, struct shmq_topic_options *options)
{
    char name[16];

    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "%s%d", prefix, i);
        int rc = shmq_topic_create(world->client.connection, name, options);

        if (rc != 0) {
            check_full(world, rc);
            return i;
        }
    }
    return 100;
}

TEST(full_shared_memory)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    struct shmq_consumer_options member = SHMQ_CONSUMER_OPTIONS_INIT;
    struct shmq_topic_info info;
    struct world world;
    shmq_consumer *consumer;
    uint64_t used;
    unsigned segments;

    private_shm("size=64M,mode=1777");
    world_start(&world, "--ephemeral");
    options.ring_bytes = 16 << 20;
    CHECK_EQ(fill_shm(&world, "f", &options), 3); /* the fourth does not fit beside B and "live" */
    options.ring_bytes = 1 << 20;
    CHECK(fill_shm(&world, "g", &options) > 0);
    used = used_bytes();
    segments = daemon_count_segments();
    options.ring_bytes = 16 << 20;
    options.partitions = 4;
    check_full(&world, shmq_topic_create(world.client.connection, "more", &options));
    options = (struct shmq_topic_options)SHMQ_TOPIC_OPTIONS_INIT;
    options.partitions = 3;
    check_full(&world, shmq_topic_alter(world.client.connection, "f0", &options));
    CHECK_OK(shmq_topic_describe(world.client.connection, "f0", &info));
    CHECK_EQ(info.partitions, 1);
    CHECK_ERR(shmq_topic_describe(world.client.connection, "more", &info), SHMQ_ENOTOPIC);
    CHECK_EQ(used_bytes(), used);
    CHECK_EQ(daemon_count_segments(), segments);
    world_check(&world);
    /* To the last page: not even a group has room. */
    int fd = open("/dev/shm/filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    static const char page[4096];

    while (write(fd, page, sizeof(page)) > 0)
        continue;
    close(fd);
    member.group = "new";
    check_full(&world, shmq_consumer_open(world.client.channel, "f0", &member, &consumer));
    CHECK_OK(shmq_topic_describe(world.client.connection, "f0", &info));
    CHECK_EQ(info.group_count, 0);
    CHECK_EQ(daemon_count_segments(), segments);
    unlink("/dev/shm/filler");
    /* There is room again, and all is well. */
    CHECK_OK(shmq_topic_delete(world.client.connection, "f1"));
    options.ring_bytes = 4 << 20;
    CHECK_OK(shmq_topic_create(world.client.connection, "more", &options));
    CHECK_OK(shmq_consumer_open(world.client.channel, "f0", &member, &consumer));
    world_end(&world);
}

TEST(no_shared_memory_to_start_with)
{
    struct test_output output;

    private_shm("size=64K,mode=1777");
    CHECK_INT_EQ(daemon_refused("--ephemeral", &output), 1);
    CHECK_CONTAINS(output.err, "MiB free in /dev/shm");
    test_output_free(&output);
    CHECK_EQ(daemon_count_segments(), 0);
}

/* ---- what is taken away, and what is foreign --------------------------------------------------------------------------------- */

/* As systemd does at a restart without RuntimeDirectoryPreserve. */
TEST(the_runtime_directory_is_removed)
{
    struct world world;
    char command[400];

    world_start(&world, NULL);
    snprintf(command, sizeof(command), "rm -rf '%s'", getenv("SHMQ_RUNTIME_DIR"));
    for (int i = 0; i < 4; i++) {
        struct shmq_topic_info info;

        if (i % 2)
            test_kill(world.daemon, SIGKILL);
        else
            daemon_stop(world.daemon);
        CHECK_INT_EQ(system(command), 0);
        CHECK(traffic_progresses(world.traffic, 20, WORLD_PROGRESS_MS));
        world.daemon = daemon_run(NULL);
        CHECK_OK(shmq_topic_describe(world.client.connection, "live", &info));
        world_check(&world);
        CHECK_EQ(info.producer_count, 1);
    }
    world_check(&world);
    CHECK_OK(shmq_topic_purge(world.client.connection, "live"));
    traffic_finish(world.traffic);
    traffic_free(world.traffic);
    fixture_close(&world.client);
    daemon_stop(world.daemon);
    daemon_forget_bus();
}

static uint32_t set_version(enum segment_kind kind, uint64_t topic, uint32_t version)
{
    int fd = world_open_segment(kind, topic);
    uint32_t before = 0;

    CHECK_INT_EQ(pread(fd, &before, sizeof(before), offsetof(struct segment_header, version)),
                 sizeof(before));
    CHECK_INT_EQ(pwrite(fd, &version, sizeof(version), offsetof(struct segment_header, version)),
                 sizeof(version));
    close(fd);
    return before;
}

static void check_versions(const char *text)
{
    char ours[40];

    snprintf(ours, sizeof(ours), "version %u", LAYOUT_VERSION);
    CHECK_CONTAINS(text, "version 77");
    CHECK_CONTAINS(text, ours);
}

/* Refused with both versions; with the right one again, all is there, the message that waits as well. */
static void foreign(enum segment_kind kind)
{
    pid_t daemon = daemon_run(NULL);
    struct fixture_client client = fixture_connect();
    struct test_output output;
    struct shmq_topic_info info;
    uint32_t version;

    fixture_topic(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_OK(fixture_publish_number(producer, 7));
    CHECK_OK(shmq_topic_describe(client.connection, "t", &info));
    test_kill(daemon, SIGKILL);
    version = set_version(kind, info.id, 77);
    unsigned segments = daemon_count_segments();

    for (int i = 0; i < 2; i++) {
        CHECK_INT_EQ(daemon_refused("", &output), 1);
        check_versions(output.err);
        test_output_free(&output);
        CHECK_EQ(daemon_count_segments(), segments);
    }
    CHECK_EQ(set_version(kind, info.id, version), 77);
    CHECK_OK(fixture_publish_number(producer, 8));
    daemon = daemon_run(NULL);
    CHECK_EQ(fixture_poll_number(consumer, 1000), 7);
    CHECK_EQ(fixture_poll_number(consumer, 1000), 8);
    fixture_close(&client);
    daemon_stop(daemon);
    daemon_forget_bus();
}

TEST(a_foreign_bus_segment)
{
    foreign(SEGMENT_BUS);
}

TEST(a_foreign_state_segment)
{
    foreign(SEGMENT_STATE);
}

/* The client's side: a supervisor of another version hands out memory that this library does not know. */
TEST(a_client_refuses_a_foreign_layout)
{
    pid_t daemon = daemon_run(NULL);
    struct fixture_client client = fixture_connect();
    struct shmq_topic_info info;
    shmq_connection *second;
    shmq_producer *producer;

    fixture_topic(&client, "t", NULL);
    CHECK_OK(shmq_topic_describe(client.connection, "t", &info));
    (void)set_version(SEGMENT_STATE, info.id, 77);
    CHECK_ERR(shmq_producer_open(client.channel, "t", NULL, &producer), SHMQ_EVERSION);
    check_versions(shmq_errmsg(client.connection));
    (void)set_version(SEGMENT_STATE, info.id, LAYOUT_VERSION);
    CHECK_OK(shmq_producer_open(client.channel, "t", NULL, &producer));
    (void)set_version(SEGMENT_BUS, 0, 77);
    CHECK_ERR(shmq_connect(NULL, &second), SHMQ_EVERSION);
    check_versions(shmq_errmsg(NULL));
    (void)set_version(SEGMENT_BUS, 0, LAYOUT_VERSION);
    CHECK_OK(fixture_publish_number(producer, 1));
    fixture_close(&client);
    daemon_stop(daemon);
    daemon_forget_bus();
}

TEST_MAIN("hostile", T_TIMEOUT(garbage_and_descriptors, 60),
          T_TIMEOUT(nonsense_in_every_request, 60), T_TIMEOUT(floods_and_silence, 60),
          T_TIMEOUT(two_thousand_connections, 60), T(full_shared_memory),
          T(no_shared_memory_to_start_with), T_TIMEOUT(the_runtime_directory_is_removed, 40),
          T(a_foreign_bus_segment), T(a_foreign_state_segment),
          T(a_client_refuses_a_foreign_layout))
