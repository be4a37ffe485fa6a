/* The supervisor through its socket: sessions, topics, partitions, groups, and what a death leaves.
 * */
#include "daemon/shmqd.h"
#include "libshmq/cursor.h"
#include "libshmq/liveness.h"
#include "test/support/test.h"
#include "test/support/wire.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static shmq_supervisor *start(void)
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor = NULL;
    char error[512] = "";
    int rc = shmq_supervisor_start(&options, &supervisor, error, sizeof(error));

    if (rc < 0)
        FAIL("start: %s", error);
    REQUIRE(rc == 0);
    return supervisor;
}

static struct topic_options options_for(const char *name)
{
    struct topic_options options;

    topic_options_init(&options);
    snprintf(options.name, sizeof(options.name), "%s", name);
    options.ring_bytes = RING_MIN_BYTES;
    return options;
}

static uint64_t create(struct wire *wire, const char *name)
{
    struct topic_options options = options_for(name);
    struct protocol_topic_info info;

    REQUIRE_OK(wire_topic_create(wire, &options, 0, &info));
    return info.id;
}

static void publish(struct ring *ring, uint32_t slot, uint64_t count)
{
    struct ring_producer producer;

    ring_producer_init(&producer, ring, slot);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = 0;

        if (!CHECK_INT_EQ(ring_refresh_limit(&producer, 64, 0), 0) ||
            !CHECK_INT_EQ(ring_claim(&producer, 64, &offset), RING_OK))
            return;
        memcpy(ring_begin_record(&producer, offset, 8, 0, 0, 0, RECORD_TYPE_DATA)->payload, &i, 8);
        ring_commit(&producer, offset, 64);
    }
}

/* ---- sessions -------------------------------------------------------------------------------- */

TEST(start_and_stop_leave_nothing)
{
    struct wire wire;
    shmq_supervisor *supervisor = start();

    CHECK(wire_open(&wire));
    CHECK_EQ(wire.client, 2);
    CHECK(wire.bus_fd >= 0);
    CHECK(!liveness_is_dead(wire.bus_fd, CLIENT_SHMQD));
    shmq_supervisor_stop(supervisor);
    CHECK(liveness_is_dead(wire.bus_fd, CLIENT_SHMQD));
    wire_close(&wire);
    /* What is left the harness finds: segments, sockets, descriptors, threads. */
}

TEST(hello_gives_identity_and_lock)
{
    struct wire first, second;
    struct segment segment;
    struct error_buffer why;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&first));
    REQUIRE(wire_open(&second));
    CHECK(first.client != second.client);
    CHECK(!liveness_is_dead(second.bus_fd, first.client));
    CHECK(liveness_is_dead(second.bus_fd, first.client + 1000));
    REQUIRE_OK(segment_map(first.bus_fd, false, sizeof(struct bus_segment), &segment, &why));
    CHECK_OK(segment_check(&segment, &(struct segment_identity){.kind = SEGMENT_BUS}, &why));
    const struct bus_segment *bus = segment.address;
    const struct bus_client *entry = &bus->clients[first.entry];

    CHECK_EQ(entry->id, first.client);
    CHECK_EQ(entry->pid, getpid());
    CHECK_EQ(entry->uid, getuid());
    CHECK_EQ(bus->shmqd_pid, getpid());
    CHECK_EQ(bus->incarnation, 1);
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, first.bus_fd, 0) == MAP_FAILED);
    segment_unmap(&segment);
    wire_close(&first);
    wire_close(&second);
    shmq_supervisor_stop(supervisor);
}

TEST(goodbye_frees_the_entry)
{
    struct wire wire, other;
    struct protocol_header bye;
    struct segment segment;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    REQUIRE(wire_open(&other));
    REQUIRE_OK(segment_map(other.bus_fd, false, sizeof(struct bus_segment), &segment, NULL));
    const struct bus_segment *bus = segment.address;

    CHECK_EQ(bus->clients[wire.entry].id, wire.client);
    CHECK_OK(wire_call(&wire, &bye, PROTOCOL_GOODBYE, sizeof(bye)));
    close(wire.bus_fd);
    wire.bus_fd = -1;
    for (int i = 0; i < 200 && bus->clients[wire.entry].id != CLIENT_NONE; i++)
        test_sleep_ms(10);
    CHECK_EQ(bus->clients[wire.entry].id, CLIENT_NONE);
    segment_unmap(&segment);
    wire_close(&wire);
    wire_close(&other);
    shmq_supervisor_stop(supervisor);
}

TEST(a_connection_resumes_its_identity)
{
    struct wire wire, again, thief;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    close(wire.fd);
    wire.fd = -1;
    REQUIRE(wire_connect(&again) == 0);
    memcpy(again.boot_id, wire.boot_id, sizeof(again.boot_id));
    CHECK_OK(wire_hello(&again, wire.client));
    CHECK_EQ(again.client, wire.client);
    CHECK_INT_EQ(again.bus_fd, -1); /* it has B already */
    /* Of another boot, or a client that never was. */
    REQUIRE(wire_connect(&thief) == 0);
    CHECK_ERR(wire_hello(&thief, wire.client), SHMQ_ECLOSED);
    wire_close(&thief);
    REQUIRE(wire_connect(&thief) == 0);
    memcpy(thief.boot_id, wire.boot_id, sizeof(thief.boot_id));
    CHECK_ERR(wire_hello(&thief, wire.client + 77), SHMQ_ECLOSED);
    wire_close(&thief);
    wire_close(&again);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

static void steal_identity(void *arg)
{
    const struct wire *victim = arg;
    struct wire thief;

    REQUIRE(wire_connect(&thief) == 0);
    memcpy(thief.boot_id, victim->boot_id, sizeof(thief.boot_id));
    CHECK_ERR(wire_hello(&thief, victim->client), SHMQ_ECLOSED);
    wire_close(&thief);
}

TEST(another_process_cannot_resume_an_identity)
{
    struct wire wire;
    struct protocol_header status;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    CHECK_INT_EQ(test_wait_exit(test_spawn(steal_identity, &wire), 10000), 0);
    CHECK_OK(wire_call(&wire, &status, PROTOCOL_STATUS, sizeof(status)));
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

/* ---- topics ---------------------------------------------------------------------------------- */

TEST(a_topic_is_created_once)
{
    struct topic_options options = options_for("orders");
    struct protocol_topic_info info, again;
    struct wire wire;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    options.partitions = 3;
    CHECK_OK(wire_topic_create(&wire, &options, 0, &info));
    CHECK_EQ(info.options.partitions, 3);
    CHECK_EQ(info.options.ring_bytes, RING_MIN_BYTES);
    CHECK_EQ(info.owner_uid, getuid());
    CHECK(info.shm_bytes >= 3 * RING_MIN_BYTES);
    CHECK_ERR(wire_topic_create(&wire, &options, 0, NULL), SHMQ_EEXIST);
    CHECK_CONTAINS(wire.text, "orders");
    CHECK_OK(wire_topic_create(&wire, &options, TOPIC_IF_NOT_EXISTS, &again));
    CHECK_EQ(again.id, info.id);
    CHECK_OK(wire_topic_describe(&wire, "orders", &again));
    CHECK_EQ(again.id, info.id);
    CHECK_ERR(wire_topic_describe(&wire, "odrers", NULL), SHMQ_ENOTOPIC);
    CHECK_CONTAINS(wire.text, "shmq topic create odrers");
    CHECK_ERR(wire_topic_describe(&wire, ".dot", NULL), SHMQ_EINVAL);
    options.ring_bytes = 65537;
    CHECK_ERR(wire_topic_create(&wire, &options, 0, NULL), SHMQ_EINVAL);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

TEST(a_record_goes_from_producer_to_group)
{
    struct wire wire, reader;
    struct ring out, in;
    struct ring_reader peek;
    struct protocol_group_joined joined;
    struct segment group;
    const struct record *record;
    uint32_t slot, length;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    REQUIRE(wire_open(&reader));
    uint64_t topic = create(&wire, "t");

    REQUIRE_OK(wire_partition_open(&wire, topic, 0, ROLE_PRODUCER, &out, &slot));
    publish(&out, slot, 5);
    REQUIRE_OK(wire_group_join(&reader, "t", "g", FROM_EARLIEST, &joined));
    CHECK_EQ(joined.created, 1);
    CHECK_EQ(joined.standby, 0);
    REQUIRE_OK(wire_partition_open(&reader, topic, 0, ROLE_CONSUMER, &in, NULL));
    REQUIRE_OK(wire_group_segment(&reader, &joined, 0, &group));
    const struct gate *gate = &in.state->gates[joined.gate];
    uint64_t word = ((struct group_segment *)group.address)->cursor;

    CHECK_EQ(gate->group, joined.group);
    CHECK_EQ(gate->state, GATE_OPEN);
    CHECK_EQ(assign_member(gate->assign), joined.member);
    CHECK_EQ(assign_generation(gate->assign), cursor_generation(word));
    CHECK(cursor_gates(word));
    ring_reader_init(&peek, &in, cursor_offset(word, ring_tail(&in)));
    for (uint64_t i = 0; i < 5; i++) {
        record = ring_peek(&peek, &length);
        if (!CHECK(record != NULL))
            break;
        CHECK_EQ(length, 8);
        CHECK(memcmp(record->payload, &i, 8) == 0);
        peek.position += record_size(length);
    }
    segment_unmap(&group);
    ring_deinit(&in);
    ring_deinit(&out);
    wire_close(&wire);
    wire_close(&reader);
    shmq_supervisor_stop(supervisor);
}

TEST(a_deleted_topic_says_so)
{
    struct wire wire;
    struct ring ring;
    struct protocol_group_joined joined;
    uint32_t slot;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    uint64_t topic = create(&wire, "t");

    REQUIRE_OK(wire_partition_open(&wire, topic, 0, ROLE_PRODUCER, &ring, &slot));
    REQUIRE_OK(wire_group_join(&wire, "t", "g", FROM_LATEST, &joined));
    CHECK_OK(wire_topic_simple(&wire, PROTOCOL_TOPIC_DELETE, "t"));
    CHECK_EQ(ring.state->status, PARTITION_DELETED);
    CHECK(ring.wait->attention & ATTENTION_CLOSED);
    CHECK_ERR(wire_topic_describe(&wire, "t", NULL), SHMQ_ENOTOPIC);
    CHECK_ERR(wire_group_leave(&wire, &joined), SHMQ_ENOTOPIC);
    CHECK(create(&wire, "t") != topic);
    ring_deinit(&ring);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

TEST(a_single_producer_topic_names_its_producer)
{
    struct topic_options options = options_for("t");
    struct protocol_topic_info info;
    struct wire first, second;
    struct ring ring, other;
    uint32_t slot;
    char pid[32];
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&first));
    REQUIRE(wire_open(&second));
    options.producers = PRODUCERS_SINGLE;
    REQUIRE_OK(wire_topic_create(&first, &options, 0, &info));
    REQUIRE_OK(wire_partition_open(&first, info.id, 0, ROLE_PRODUCER, &ring, &slot));
    CHECK_ERR(wire_partition_open(&second, info.id, 0, ROLE_PRODUCER, &other, &slot), SHMQ_EBUSY);
    snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
    CHECK_CONTAINS(second.text, pid);
    struct protocol_slot_request close_slot = {.topic = info.id};

    CHECK_OK(wire_call(&first, &close_slot, PROTOCOL_SLOT_CLOSE, sizeof(close_slot)));
    CHECK_OK(wire_partition_open(&second, info.id, 0, ROLE_PRODUCER, &other, &slot));
    ring_deinit(&other);
    ring_deinit(&ring);
    wire_close(&first);
    wire_close(&second);
    shmq_supervisor_stop(supervisor);
}

TEST(a_repeated_request_finds_what_the_first_one_got)
{
    struct wire wire;
    struct protocol_group_join join = {.from = FROM_LATEST};
    struct protocol_partition_open open = {.role = ROLE_PRODUCER};
    struct protocol_topic_info info;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    open.topic = create(&wire, "t");
    strcpy(join.vhost, "default");
    strcpy(join.topic, "t");
    CHECK_OK(wire_repeat(&wire, &join, PROTOCOL_GROUP_JOIN, sizeof(join), 70));
    uint32_t member = ((struct protocol_group_joined *)(void *)wire.reply)->member;

    CHECK_OK(wire_repeat(&wire, &join, PROTOCOL_GROUP_JOIN, sizeof(join), 70));
    CHECK_EQ(((struct protocol_group_joined *)(void *)wire.reply)->member, member);
    CHECK_OK(wire_repeat(&wire, &join, PROTOCOL_GROUP_JOIN, sizeof(join), 71));
    CHECK(((struct protocol_group_joined *)(void *)wire.reply)->member != member);
    CHECK_EQ(((struct protocol_group_joined *)(void *)wire.reply)->standby, 1);
    CHECK_OK(wire_repeat(&wire, &open, PROTOCOL_PARTITION_OPEN, sizeof(open), 80));
    uint32_t slot = ((struct protocol_partition_opened *)(void *)wire.reply)->slot;

    CHECK_OK(wire_repeat(&wire, &open, PROTOCOL_PARTITION_OPEN, sizeof(open), 80));
    CHECK_EQ(((struct protocol_partition_opened *)(void *)wire.reply)->slot, slot);
    CHECK_OK(wire_topic_describe(&wire, "t", &info));
    CHECK_EQ(info.producer_count, 1);
    CHECK_EQ(info.member_count, 2);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

/* ---- deaths ---------------------------------------------------------------------------------- */

struct dying {
    uint64_t topic;
    struct test_barrier ready;
    _Atomic uint64_t client;
    _Atomic uint64_t claimed;
    bool claim; /* leaves a claim behind */
    bool join;
};

static void live_until_killed(void *arg)
{
    struct dying *dying = arg;
    struct wire wire;
    struct ring ring;
    struct ring_producer producer;
    struct protocol_group_joined joined;
    uint64_t offset = 0;
    uint32_t slot;

    REQUIRE(wire_open(&wire));
    dying->client = wire.client;
    if (dying->join)
        REQUIRE_OK(wire_group_join(&wire, "t", "g", FROM_EARLIEST, &joined));
    if (dying->claim) {
        REQUIRE_OK(wire_partition_open(&wire, dying->topic, 0, ROLE_PRODUCER, &ring, &slot));
        ring_producer_init(&producer, &ring, slot);
        REQUIRE(ring_refresh_limit(&producer, 128, 0) == RING_OK);
        REQUIRE(ring_claim(&producer, 128, &offset) == RING_OK);
        dying->claimed = offset;
    }
    test_barrier_wait(&dying->ready, 10000);
    test_sleep_ms(60000);
}

TEST(a_dead_producers_claim_is_padded_and_its_slot_freed)
{
    struct dying *dying = test_shared(sizeof(*dying));
    struct wire wire;
    struct ring ring;
    struct ring_reader peek;
    struct protocol_topic_info info = {.producer_count = 9};
    uint32_t slot, length;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    dying->topic = create(&wire, "t");
    dying->claim = true;
    test_barrier_init(&dying->ready, 2);
    pid_t pid = test_spawn(live_until_killed, dying);

    REQUIRE(test_barrier_wait(&dying->ready, 10000));
    REQUIRE_OK(wire_partition_open(&wire, dying->topic, 0, ROLE_PRODUCER, &ring, &slot));
    publish(&ring, slot, 1);
    ring_reader_init(&peek, &ring, 0);
    CHECK(ring_peek(&peek, &length) == NULL); /* behind the claim */
    test_kill(pid, SIGKILL);
    for (int i = 0; i < 200 && !ring_peek(&peek, &length); i++)
        test_sleep_ms(10);
    CHECK(ring_peek(&peek, &length) != NULL);
    CHECK_EQ(peek.position, dying->claimed + 128);
    for (int i = 0; i < 200 && info.producer_count != 1; i++) {
        CHECK_OK(wire_topic_describe(&wire, "t", &info));
        test_sleep_ms(10);
    }
    CHECK_EQ(info.producer_count, 1);
    ring_deinit(&ring);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

/* Good-bye is an end: nobody waits for a claim whose owner has left, though its process lives. */
TEST(the_claim_of_one_who_said_goodbye_is_padded)
{
    struct wire wire, leaver;
    struct ring ring, its;
    struct ring_producer producer;
    struct ring_reader peek;
    struct protocol_header bye;
    struct protocol_topic_info info = {.producer_count = 9};
    uint64_t claim = 0;
    uint32_t slot, its_slot, length;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    REQUIRE(wire_open(&leaver));
    uint64_t topic = create(&wire, "t");

    REQUIRE_OK(wire_partition_open(&leaver, topic, 0, ROLE_PRODUCER, &its, &its_slot));
    REQUIRE_OK(wire_partition_open(&wire, topic, 0, ROLE_PRODUCER, &ring, &slot));
    ring_producer_init(&producer, &its, its_slot);
    REQUIRE(ring_refresh_limit(&producer, 128, 0) == RING_OK);
    REQUIRE(ring_claim(&producer, 128, &claim) == RING_OK);
    publish(&ring, slot, 1);
    CHECK_OK(wire_call(&leaver, &bye, PROTOCOL_GOODBYE, sizeof(bye)));
    CHECK_OK(wire_topic_describe(&wire, "t", &info));
    CHECK_EQ(info.producer_count, 1);
    ring_reader_init(&peek, &ring, 0);
    CHECK(ring_peek(&peek, &length) != NULL);
    CHECK_EQ(peek.position, claim + 128);
    ring_deinit(&its);
    ring_deinit(&ring);
    wire_close(&leaver);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

TEST(a_standby_takes_over_from_the_dead)
{
    struct dying *dying = test_shared(sizeof(*dying));
    struct wire wire;
    struct ring ring;
    struct segment bus;
    struct protocol_group_joined joined;
    shmq_supervisor *supervisor = start();

    REQUIRE(wire_open(&wire));
    dying->topic = create(&wire, "t");
    dying->join = true;
    test_barrier_init(&dying->ready, 2);
    pid_t pid = test_spawn(live_until_killed, dying);

    REQUIRE(test_barrier_wait(&dying->ready, 10000));
    REQUIRE_OK(wire_group_join(&wire, "t", "g", FROM_EARLIEST, &joined));
    CHECK_EQ(joined.created, 0);
    CHECK_EQ(joined.standby, 1);
    REQUIRE_OK(wire_partition_open(&wire, dying->topic, 0, ROLE_CONSUMER, &ring, NULL));
    REQUIRE_OK(segment_map(wire.bus_fd, false, sizeof(struct bus_segment), &bus, NULL));
    const struct gate *gate = &ring.state->gates[joined.gate];
    const _Atomic uint32_t *event = &((struct bus_segment *)bus.address)->clients[wire.entry].event;
    uint32_t before = *event;

    CHECK(assign_member(gate->assign) != joined.member);
    uint32_t generation = assign_generation(gate->assign);

    test_kill(pid, SIGKILL);
    for (int i = 0; i < 200 && assign_member(gate->assign) != joined.member; i++)
        test_sleep_ms(10);
    CHECK_EQ(assign_member(gate->assign), joined.member);
    CHECK_EQ(assign_generation(gate->assign), generation + 1);
    for (int i = 0; i < 200 && *event == before; i++)
        test_sleep_ms(10);
    CHECK(*event != before);
    segment_unmap(&bus);
    ring_deinit(&ring);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
}

TEST_MAIN("supervisor", T(start_and_stop_leave_nothing), T(hello_gives_identity_and_lock),
          T(goodbye_frees_the_entry), T(a_connection_resumes_its_identity),
          T(another_process_cannot_resume_an_identity), T(a_topic_is_created_once),
          T(a_record_goes_from_producer_to_group), T(a_deleted_topic_says_so),
          T(a_single_producer_topic_names_its_producer),
          T(a_repeated_request_finds_what_the_first_one_got),
          T(a_dead_producers_claim_is_padded_and_its_slot_freed),
          T(the_claim_of_one_who_said_goodbye_is_padded), T(a_standby_takes_over_from_the_dead))
