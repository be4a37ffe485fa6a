/* The supervisor when segments are cut or scribbled on under it: the partition concerned is quarantined, all else goes on. */
#include "daemon/shmqd.h"
#include "libshmq/paths.h"
#include "test/support/test.h"
#include "test/support/wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
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

/* ---- shared memory --------------------------------------------------------------------------- */

static int open_segment(enum segment_kind kind, uint64_t topic, uint32_t partition, uint32_t gate)
{
    char prefix[PATHS_PREFIX_BYTES], name[SEGMENT_NAME_BYTES];
    struct error_buffer why;
    int fd;

    REQUIRE_OK(paths_segment_prefix(geteuid(), getenv("SHMQ_RUNTIME_DIR"), getenv("SHMQ_BUS"),
                                    prefix, &why));
    segment_name(name, prefix, kind, topic, partition, gate);
    fd = shm_open(name, O_RDWR, 0);
    REQUIRE(fd >= 0);
    return fd;
}

/* All that a client may ask about a topic; the results do not matter here. */
static void ask_everything(struct wire *wire, uint64_t topic)
{
    struct protocol_list_request list = {.after_id = 0};
    struct protocol_group_request group = {.partition = 0};
    struct protocol_slot_request resolve = {.topic = topic};
    struct protocol_partition_open open = {.topic = topic, .role = ROLE_PRODUCER};
    struct protocol_group_joined joined;

    strcpy(list.name, "t");
    (void)wire_call(wire, &list, PROTOCOL_PARTITION_LIST, sizeof(list));
    (void)wire_call(wire, &list, PROTOCOL_GROUP_LIST, sizeof(list));
    strcpy(group.topic_name, "t");
    strcpy(group.group_name, "g");
    (void)wire_call(wire, &group, PROTOCOL_GROUP_DESCRIBE, sizeof(group));
    (void)wire_call(wire, &list, PROTOCOL_CLIENT_LIST, sizeof(list));
    (void)wire_call(wire, &resolve, PROTOCOL_RESOLVE, sizeof(resolve));
    (void)wire_call(wire, &open, PROTOCOL_PARTITION_OPEN, sizeof(open));
    (void)wire_topic_simple(wire, PROTOCOL_TOPIC_PURGE, "t");
    if (wire_group_join(wire, "t", "g", FROM_EARLIEST, &joined) == 0)
        (void)wire_group_leave(wire, &joined);
    if (wire_group_join(wire, "t", "new", FROM_EARLIEST, &joined) == 0)
        (void)wire_group_leave(wire, &joined);
}

static void truncated(enum segment_kind kind)
{
    struct wire wire, owner;
    struct protocol_group_joined joined;
    struct protocol_topic_info info;
    shmq_supervisor *supervisor = start_with("[log]\nlevel = error\n");

    REQUIRE(wire_open(&wire));
    REQUIRE(wire_open(&owner));
    uint64_t topic = create(&wire, "t", 2);
    uint64_t other = create(&wire, "other", 1);

    REQUIRE_OK(wire_group_join(&owner, "t", "g", FROM_EARLIEST, &joined));
    struct protocol_partition_open open = {.topic = topic, .role = ROLE_PRODUCER};

    REQUIRE_OK(wire_call(&owner, &open, PROTOCOL_PARTITION_OPEN, sizeof(open)));
    int fd = open_segment(kind, topic, 0, joined.gate);

    CHECK_INT_EQ(ftruncate(fd, 0), 0);
    close(fd);
    ask_everything(&wire, topic);
    wire_close(&owner); /* dies: its slot and membership lie in the ruins */
    test_sleep_ms(100);
    ask_everything(&wire, topic);
    CHECK_OK(wire_topic_describe(&wire, "t", &info));
    CHECK_EQ(info.quarantined, 1); /* that one and no other */
    open.topic = other;
    CHECK_OK(wire_call(&wire, &open, PROTOCOL_PARTITION_OPEN, sizeof(open)));
    open.topic = topic;
    CHECK_ERR(wire_call(&wire, &open, PROTOCOL_PARTITION_OPEN, sizeof(open)), SHMQ_ECORRUPT);
    CHECK_CONTAINS(wire.text, "t/0");
    open.partition = 1;
    CHECK_OK(wire_call(&wire, &open, PROTOCOL_PARTITION_OPEN, sizeof(open)));
    CHECK_OK(wire_topic_simple(&wire, PROTOCOL_TOPIC_DELETE, "t"));
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

TEST(a_cut_state_segment)
{
    truncated(SEGMENT_STATE);
}

TEST(a_cut_producers_segment)
{
    truncated(SEGMENT_PRODUCERS);
}

TEST(a_cut_wait_segment)
{
    truncated(SEGMENT_WAIT);
}

TEST(a_cut_data_segment)
{
    truncated(SEGMENT_DATA);
}

TEST(a_cut_group_segment)
{
    truncated(SEGMENT_GROUP);
}

TEST(a_cut_bus_segment_is_written_anew)
{
    struct wire wire, other;
    struct segment segment;
    shmq_supervisor *supervisor = start_with("[log]\nlevel = error\n");

    REQUIRE(wire_open(&wire));
    int fd = open_segment(SEGMENT_BUS, 0, 0, 0);

    CHECK_INT_EQ(ftruncate(fd, 0), 0);
    close(fd);
    REQUIRE(wire_open(&other));
    REQUIRE_OK(segment_map(other.bus_fd, false, sizeof(struct bus_segment), &segment, NULL));
    CHECK_OK(segment_check(&segment, &(struct segment_identity){.kind = SEGMENT_BUS}, NULL));
    CHECK_EQ(((struct bus_segment *)segment.address)->clients[wire.entry].id, wire.client);
    CHECK_EQ(((struct bus_segment *)segment.address)->clients[other.entry].id, other.client);
    segment_unmap(&segment);
    wire_close(&wire);
    wire_close(&other);
    shmq_supervisor_stop(supervisor);
}

static void scribble(int fd, size_t bytes, struct test_random *random, size_t keep)
{
    unsigned char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    REQUIRE(at != MAP_FAILED);
    for (int i = 0; i < 200; i++) {
        size_t place = (size_t)test_random_below(random, bytes - 8) & ~(size_t)7;
        uint64_t value = test_random_next(random);

        if (i % 3 == 0)
            value &= 0xfff;
        if (place >= keep)
            memcpy(at + place, &value, sizeof(value));
    }
    munmap(at, bytes);
}

/* Random words in every segment that a client may write, and in those that none may. */
TEST(scribbled_segments_hurt_their_partition_alone)
{
    static const enum segment_kind KINDS[] = {SEGMENT_PRODUCERS, SEGMENT_WAIT, SEGMENT_DATA,
                                              SEGMENT_GROUP, SEGMENT_STATE};
    struct test_random random;
    struct wire wire, owner;
    struct protocol_partition_open open = {.role = ROLE_PRODUCER};
    struct protocol_group_joined joined;
    unsigned quarantined = 0;
    shmq_supervisor *supervisor = start_with("[log]\nlevel = error\n");

    test_random_init(&random, test_seed());
    REQUIRE(wire_open(&wire));
    uint64_t other = create(&wire, "other", 1);

    for (unsigned round = 0; round < 40; round++) {
        enum segment_kind kind = KINDS[round % 5];
        struct protocol_topic_info info;
        struct stat stat;

        test_context("round %u, %c: ", round, (char)kind);
        uint64_t topic = create(&wire, "t", 1);

        REQUIRE(wire_open(&owner));
        open.topic = topic;
        REQUIRE_OK(wire_group_join(&owner, "t", "g", FROM_EARLIEST, &joined));
        REQUIRE_OK(wire_call(&owner, &open, PROTOCOL_PARTITION_OPEN, sizeof(open)));
        int fd = open_segment(kind, topic, 0, joined.gate);

        REQUIRE(fstat(fd, &stat) == 0);
        scribble(fd, (size_t)stat.st_size, &random, 0);
        ask_everything(&wire, topic);
        scribble(fd, (size_t)stat.st_size, &random, 128);
        close(fd);
        wire_close(&owner);
        test_sleep_ms(30);
        ask_everything(&wire, topic);
        CHECK_OK(wire_topic_describe(&wire, "t", &info));
        quarantined += info.quarantined;
        open.topic = other;
        CHECK_OK(wire_call(&wire, &open, PROTOCOL_PARTITION_OPEN, sizeof(open)));
        CHECK_OK(wire_topic_simple(&wire, PROTOCOL_TOPIC_DELETE, "t"));
    }
    test_context(NULL);
    CHECK(quarantined >= 8); /* P and G rounds at least can hardly go unnoticed */
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

TEST_MAIN("supervisor_memory", T(a_cut_state_segment), T(a_cut_producers_segment),
          T(a_cut_wait_segment), T(a_cut_data_segment), T(a_cut_group_segment),
          T(a_cut_bus_segment_is_written_anew),
          T_TIMEOUT(scribbled_segments_hurt_their_partition_alone, 60))
