/* Groups and topics as they change while everything runs: where cursors are placed, linger, purge,
 * growth, deletion. */
#include "daemon/shmqd.h"
#include "libshmq/cursor.h"
#include "test/support/test.h"
#include "test/support/wire.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define RECORDS_IN_RING (RING_MIN_BYTES / RECORD_UNIT)

struct stage {
    shmq_supervisor *supervisor;
    struct wire wire;
    uint64_t topic;
    struct ring ring; /* of partition 0, as a producer */
    uint32_t slot;
    struct ring_producer producer;
};

static void open_stage(struct stage *stage, uint32_t policy, uint64_t linger_ns)
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    struct topic_options topic;
    struct protocol_topic_info info;
    char error[512] = "";

    if (shmq_supervisor_start(&options, &stage->supervisor, error, sizeof(error)) < 0)
        FAIL("start: %s", error);
    REQUIRE(error[0] == '\0');
    REQUIRE(wire_open(&stage->wire));
    topic_options_init(&topic);
    strcpy(topic.name, "t");
    topic.ring_bytes = RING_MIN_BYTES;
    topic.policy = policy;
    topic.linger_ns = linger_ns;
    REQUIRE_OK(wire_topic_create(&stage->wire, &topic, 0, &info));
    stage->topic = info.id;
    REQUIRE_OK(
        wire_partition_open(&stage->wire, info.id, 0, ROLE_PRODUCER, &stage->ring, &stage->slot));
    ring_producer_init(&stage->producer, &stage->ring, stage->slot);
}

static void close_stage(struct stage *stage)
{
    ring_deinit(&stage->ring);
    wire_close(&stage->wire);
    shmq_supervisor_stop(stage->supervisor);
}

/* Ignores groups (the ring of a wire maps none) unless `gate` is mapped into it. Returns how many
 * fitted. */
static uint64_t publish(struct stage *stage, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = 0;

        if (ring_claim(&stage->producer, 64, &offset) != RING_OK &&
            (ring_refresh_limit(&stage->producer, 64, 0) != RING_OK ||
             ring_claim(&stage->producer, 64, &offset) != RING_OK))
            return i;
        ring_begin_record(&stage->producer, offset, 8, 0, 0, 0, RECORD_TYPE_DATA);
        ring_commit(&stage->producer, offset, 64);
    }
    return count;
}

static void map_gate(struct stage *stage, const struct protocol_group_joined *joined)
{
    struct ring_gate *gate = &stage->ring.gates[joined->gate];

    segment_unmap(&gate->segment);
    REQUIRE_OK(wire_group_segment(&stage->wire, joined, 0, &gate->segment));
    gate->group = joined->group;
}

static uint64_t cursor_word(const struct stage *stage, const struct protocol_group_joined *joined)
{
    return ((struct group_segment *)stage->ring.gates[joined->gate].segment.address)->cursor;
}

static uint64_t cursor_of(const struct stage *stage, const struct protocol_group_joined *joined)
{
    return cursor_offset(cursor_word(stage, joined), ring_tail(&stage->ring));
}

/* ---- where a cursor is placed ---------------------------------------------------------------- */

TEST(a_group_begins_where_it_asks)
{
    struct stage stage;
    struct protocol_group_joined joined;
    struct protocol_group_join at = {.from = FROM_OFFSET, .offset = 3 * 64};

    open_stage(&stage, OVERFLOW_BLOCK, 0);
    CHECK_EQ(publish(&stage, 10), 10);
    CHECK_OK(wire_group_join(&stage.wire, "t", "committed", FROM_COMMITTED, &joined));
    map_gate(&stage, &joined);
    CHECK_EQ(cursor_of(&stage, &joined), 0);
    CHECK_OK(wire_group_join(&stage.wire, "t", "earliest", FROM_EARLIEST, &joined));
    map_gate(&stage, &joined);
    CHECK_EQ(cursor_of(&stage, &joined), 0);
    CHECK_OK(wire_group_join(&stage.wire, "t", "latest", FROM_LATEST, &joined));
    map_gate(&stage, &joined);
    CHECK_EQ(cursor_of(&stage, &joined), 640);
    strcpy(at.topic, "t");
    strcpy(at.group, "offset");
    CHECK_OK(wire_call(&stage.wire, &at, PROTOCOL_GROUP_JOIN, sizeof(at)));
    joined = *(struct protocol_group_joined *)(void *)stage.wire.reply;
    map_gate(&stage, &joined);
    CHECK_EQ(cursor_of(&stage, &joined), 192);
    strcpy(at.group, "beyond");
    at.offset = 704;
    CHECK_ERR(wire_call(&stage.wire, &at, PROTOCOL_GROUP_JOIN, sizeof(at)), SHMQ_EINVAL);
    at.offset = 65;
    CHECK_ERR(wire_call(&stage.wire, &at, PROTOCOL_GROUP_JOIN, sizeof(at)), SHMQ_EINVAL);
    at.offset = 0;
    at.kind = GROUP_SHARED;
    CHECK_ERR(wire_call(&stage.wire, &at, PROTOCOL_GROUP_JOIN, sizeof(at)), SHMQ_ENOTSUP);
    close_stage(&stage);
}

TEST(earliest_in_a_ring_that_went_round)
{
    struct stage stage;
    struct protocol_group_joined joined;
    struct ring_reader reader;
    uint32_t length;

    open_stage(&stage, OVERFLOW_BLOCK, 0);
    CHECK_EQ(publish(&stage, 3 * RECORDS_IN_RING + 5), 3 * RECORDS_IN_RING + 5);
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    map_gate(&stage, &joined);
    uint64_t at = cursor_of(&stage, &joined);

    CHECK(at >= ring_tail(&stage.ring) - RING_MIN_BYTES);
    CHECK(at < ring_tail(&stage.ring));
    ring_reader_init(&reader, &stage.ring, at);
    CHECK(ring_peek(&reader, &length) != NULL); /* a record's beginning */
    /* And from now on nothing of it is overwritten. */
    CHECK(publish(&stage, 2 * RECORDS_IN_RING) < 2 * RECORDS_IN_RING);
    CHECK(ring_tail(&stage.ring) <= at + RING_MIN_BYTES);
    close_stage(&stage);
}

TEST(a_claim_that_is_outstanding_is_not_skipped)
{
    struct stage stage;
    struct protocol_group_joined joined;
    uint64_t claim = 0;
    struct ring_producer other;
    struct ring second;
    uint32_t slot;

    open_stage(&stage, OVERFLOW_BLOCK, 0);
    REQUIRE_OK(wire_partition_open(&stage.wire, stage.topic, 0, ROLE_PRODUCER, &second, &slot));
    ring_producer_init(&other, &second, slot);
    CHECK_EQ(publish(&stage, 2 * RECORDS_IN_RING), 2 * RECORDS_IN_RING);
    REQUIRE(ring_refresh_limit(&other, 64, 0) == RING_OK);
    REQUIRE(ring_claim(&other, 64, &claim) == RING_OK);
    (void)publish(&stage, RECORDS_IN_RING); /* up to a lap behind the claim */
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    map_gate(&stage, &joined);
    CHECK(cursor_of(&stage, &joined) <= claim);
    ring_begin_record(&other, claim, 8, 0, 0, 0, RECORD_TYPE_DATA);
    ring_commit(&other, claim, 64);
    ring_deinit(&second);
    close_stage(&stage);
}

/* What is claimed when a purge or a late group comes is committed after it, and delivered. */
TEST(a_claim_outlives_a_purge_and_a_late_join)
{
    struct stage stage;
    struct protocol_group_joined joined, late;
    struct ring_producer other;
    struct ring second;
    uint64_t claim = 0;
    uint32_t slot;

    open_stage(&stage, OVERFLOW_BLOCK, 0);
    REQUIRE_OK(wire_partition_open(&stage.wire, stage.topic, 0, ROLE_PRODUCER, &second, &slot));
    ring_producer_init(&other, &second, slot);
    REQUIRE(ring_refresh_limit(&other, 64, 0) == RING_OK);
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    map_gate(&stage, &joined);
    CHECK_EQ(publish(&stage, 10), 10);
    REQUIRE(ring_claim(&other, 64, &claim) == RING_OK);
    CHECK_EQ(claim, 640);
    CHECK_EQ(publish(&stage, 10), 10);
    CHECK_OK(wire_topic_simple(&stage.wire, PROTOCOL_TOPIC_PURGE, "t"));
    CHECK_EQ(stage.ring.state->first, claim);
    CHECK_EQ(cursor_of(&stage, &joined), claim);
    CHECK_OK(wire_group_join(&stage.wire, "t", "late", FROM_LATEST, &late));
    map_gate(&stage, &late);
    CHECK_EQ(cursor_of(&stage, &late), claim);
    ring_begin_record(&other, claim, 8, 0, 0, 0, RECORD_TYPE_DATA);
    ring_commit(&other, claim, 64);
    CHECK_OK(wire_topic_simple(&stage.wire, PROTOCOL_TOPIC_PURGE, "t"));
    CHECK_EQ(stage.ring.state->first, 21 * 64);
    CHECK_EQ(cursor_of(&stage, &joined), 21 * 64);
    ring_deinit(&second);
    close_stage(&stage);
}

/* ---- linger ---------------------------------------------------------------------------------- */

static bool is_idle(void *context)
{
    struct stage *stage = context;

    return stage->ring.state->gates[0].state == GATE_IDLE;
}

TEST(a_forgotten_group_stops_holding_producers_back)
{
    struct stage stage;
    struct protocol_group_joined joined, back;
    struct protocol_list_request list = {.after_id = 0};
    const struct protocol_group_info *info;

    open_stage(&stage, OVERFLOW_BLOCK, UINT64_C(300000000));
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    map_gate(&stage, &joined);
    CHECK_EQ(publish(&stage, 2 * RECORDS_IN_RING), RECORDS_IN_RING);
    test_sleep_ms(500);
    CHECK(!is_idle(&stage)); /* it has a member */
    uint32_t room_seq = stage.ring.wait->room_seq;

    CHECK_OK(wire_group_leave(&stage.wire, &joined));
    CHECK(!is_idle(&stage));
    CHECK_EQ(publish(&stage, 1), 0); /* lingers */
    CHECK_OK(wire_call(&stage.wire, &list, PROTOCOL_GROUP_LIST, sizeof(list)));
    info = (void *)((struct protocol_list_reply *)(void *)stage.wire.reply)->elements;
    CHECK(info->linger_left_ns <= UINT64_C(300000000));
    CHECK(test_eventually(is_idle, &stage, 5000));
    test_sleep_ms(20);
    CHECK(stage.ring.wait->room_seq != room_seq); /* who waited was woken */
    CHECK_EQ(publish(&stage, 2 * RECORDS_IN_RING), 2 * RECORDS_IN_RING);
    CHECK_OK(wire_call(&stage.wire, &list, PROTOCOL_GROUP_LIST, sizeof(list)));
    CHECK_EQ(info->state, GATE_IDLE);
    CHECK_EQ(info->lag_bytes, 3 * RING_MIN_BYTES);
    /* It comes back: told its loss, and holds producers back again. */
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_COMMITTED, &back));
    CHECK_EQ(back.created, 0);
    CHECK_EQ(back.group, joined.group);
    CHECK_EQ(stage.ring.state->gates[0].state, GATE_OPEN);
    uint64_t at = cursor_of(&stage, &back);
    const struct group_segment *group = stage.ring.gates[0].segment.address;

    CHECK(at >= ring_tail(&stage.ring) - RING_MIN_BYTES);
    CHECK_EQ(group->members[back.member].lost_bytes, at);
    (void)publish(&stage, 2 * RECORDS_IN_RING);
    CHECK(ring_tail(&stage.ring) <= at + RING_MIN_BYTES);
    close_stage(&stage);
}

TEST(a_linger_beyond_the_clock_is_for_ever)
{
    struct stage stage;
    struct protocol_group_joined joined;
    struct protocol_list_request list = {.after_id = 0};
    const struct protocol_group_info *info;

    open_stage(&stage, OVERFLOW_BLOCK, UINT64_MAX - 1);
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    CHECK_OK(wire_group_leave(&stage.wire, &joined));
    test_sleep_ms(50);
    CHECK(!is_idle(&stage));
    CHECK_OK(wire_call(&stage.wire, &list, PROTOCOL_GROUP_LIST, sizeof(list)));
    info = (void *)((struct protocol_list_reply *)(void *)stage.wire.reply)->elements;
    CHECK_EQ(info->linger_left_ns, UINT64_MAX);
    close_stage(&stage);
}

/* Out of descriptors halfway: nobody is a member, so nobody would be held back for. */
TEST(a_return_that_fails_holds_nobody_back)
{
    struct stage stage;
    struct protocol_group_joined joined;
    struct rlimit before, none;

    open_stage(&stage, OVERFLOW_BLOCK, UINT64_C(10000000));
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    CHECK_OK(wire_group_leave(&stage.wire, &joined));
    CHECK(test_eventually(is_idle, &stage, 5000));
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK(wire_group_join(&stage.wire, "t", "g", FROM_COMMITTED, &joined) < 0);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(is_idle(&stage));
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_COMMITTED, &joined));
    CHECK(!is_idle(&stage));
    close_stage(&stage);
}

/* ---- purge, growth, deletion ----------------------------------------------------------------- */

TEST(a_purge_fences_and_skips)
{
    struct stage stage;
    struct protocol_group_joined joined;

    open_stage(&stage, OVERFLOW_BLOCK, 0);
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    map_gate(&stage, &joined);
    CHECK_EQ(publish(&stage, 100), 100);
    uint64_t before = cursor_word(&stage, &joined);

    CHECK_OK(wire_topic_simple(&stage.wire, PROTOCOL_TOPIC_PURGE, "t"));
    CHECK_EQ(stage.ring.state->first, 6400);
    CHECK_EQ(cursor_of(&stage, &joined), 6400);
    uint64_t assign = stage.ring.state->gates[joined.gate].assign;

    CHECK_EQ(assign_member(assign), joined.member);
    CHECK_EQ(assign_generation(assign), cursor_generation(cursor_word(&stage, &joined)));
    CHECK_ERR(cursor_commit(stage.ring.gates[joined.gate].segment.address, &before, 640),
              SHMQ_EFENCED);
    CHECK_OK(wire_group_join(&stage.wire, "t", "h", FROM_EARLIEST, &joined));
    map_gate(&stage, &joined);
    CHECK_EQ(cursor_of(&stage, &joined), 6400);
    close_stage(&stage);
}

TEST(a_topic_grows_under_its_groups)
{
    struct stage stage;
    struct protocol_group_joined joined;
    struct protocol_topic_put alter = {.mask = ALTER_PARTITIONS};
    struct segment segment, bus;
    struct ring ring;

    open_stage(&stage, OVERFLOW_BLOCK, 0);
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    REQUIRE_OK(segment_map(stage.wire.bus_fd, false, sizeof(struct bus_segment), &bus, NULL));
    const _Atomic uint32_t *event =
        &((struct bus_segment *)bus.address)->clients[stage.wire.entry].event;
    uint32_t before = *event;

    strcpy(alter.options.name, "t");
    alter.options.partitions = 5;
    CHECK_OK(wire_call(&stage.wire, &alter, PROTOCOL_TOPIC_ALTER, sizeof(alter)));
    CHECK_EQ(stage.ring.state->partition_count, 5);
    CHECK(*event != before);
    for (uint32_t p = 1; p < 5; p++) {
        REQUIRE_OK(wire_partition_open(&stage.wire, stage.topic, p, ROLE_CONSUMER, &ring, NULL));
        REQUIRE_OK(wire_group_segment(&stage.wire, &joined, p, &segment));
        const struct gate *gate = &ring.state->gates[joined.gate];
        const struct group_segment *group = segment.address;

        CHECK_EQ(ring.state->partition_count, 5);
        CHECK_EQ(gate->state, GATE_OPEN);
        CHECK_EQ(assign_member(gate->assign), joined.member);
        CHECK_EQ(group->members[joined.member].client, stage.wire.client);
        CHECK(cursor_gates(group->cursor));
        segment_unmap(&segment);
        ring_deinit(&ring);
    }
    alter.options.partitions = 4;
    CHECK_ERR(wire_call(&stage.wire, &alter, PROTOCOL_TOPIC_ALTER, sizeof(alter)), SHMQ_EINVAL);
    alter.mask = ALTER_MAX_MESSAGE;
    alter.options.max_message = 100;
    CHECK_OK(wire_call(&stage.wire, &alter, PROTOCOL_TOPIC_ALTER, sizeof(alter)));
    CHECK_EQ(stage.ring.state->max_message, 100);
    alter.options.max_message = RING_MIN_BYTES;
    CHECK_ERR(wire_call(&stage.wire, &alter, PROTOCOL_TOPIC_ALTER, sizeof(alter)), SHMQ_EINVAL);
    segment_unmap(&bus);
    close_stage(&stage);
}

TEST(a_deleted_group_lets_producers_go)
{
    struct stage stage;
    struct protocol_group_joined joined, second;
    struct protocol_group_request request = {.partition = 0};

    open_stage(&stage, OVERFLOW_BLOCK, 0);
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    map_gate(&stage, &joined);
    CHECK_EQ(publish(&stage, 2 * RECORDS_IN_RING), RECORDS_IN_RING);
    strcpy(request.topic_name, "t");
    strcpy(request.group_name, "g");
    CHECK_ERR(wire_call(&stage.wire, &request, PROTOCOL_GROUP_DELETE, sizeof(request)), SHMQ_EBUSY);
    request.flags = GROUP_FORCE;
    CHECK_OK(wire_call(&stage.wire, &request, PROTOCOL_GROUP_DELETE, sizeof(request)));
    CHECK_EQ(stage.ring.state->gates[joined.gate].state, GATE_DELETED);
    CHECK_EQ(publish(&stage, 2 * RECORDS_IN_RING), 2 * RECORDS_IN_RING);
    CHECK_ERR(wire_group_leave(&stage.wire, &joined), SHMQ_ENOGROUP);
    /* Its gate is given to another group, which is not taken for it. */
    CHECK_OK(wire_group_join(&stage.wire, "t", "h", FROM_LATEST, &second));
    CHECK_EQ(second.gate, joined.gate);
    CHECK(second.group != joined.group);
    CHECK_EQ(stage.ring.state->gates[second.gate].group, second.group);
    request.topic = stage.topic;
    request.group = joined.group;
    CHECK_ERR(wire_call(&stage.wire, &request, PROTOCOL_GROUP_SEGMENT, sizeof(request)),
              SHMQ_ENOGROUP);
    close_stage(&stage);
}

TEST(only_members_may_write_their_group)
{
    struct stage stage;
    struct wire stranger;
    struct protocol_group_joined joined;
    struct protocol_group_request request = {.partition = 0};

    open_stage(&stage, OVERFLOW_BLOCK, 0);
    REQUIRE(wire_open(&stranger));
    CHECK_OK(wire_group_join(&stage.wire, "t", "g", FROM_EARLIEST, &joined));
    request.topic = stage.topic;
    request.group = joined.group;
    request.gate = joined.gate;
    CHECK_OK(wire_call(&stranger, &request, PROTOCOL_GROUP_SEGMENT, sizeof(request)));
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, stranger.fds[0], 0) == MAP_FAILED);
    request.member = joined.member;
    CHECK_ERR(wire_call(&stranger, &request, PROTOCOL_GROUP_LEAVE, sizeof(request)), SHMQ_EINVAL);
    wire_close(&stranger);
    close_stage(&stage);
}

TEST(the_first_to_join_owns_and_the_next_succeeds)
{
    struct stage stage;
    struct wire wires[3];
    struct protocol_group_joined joined[3];
    const struct gate *gate;

    open_stage(&stage, OVERFLOW_DROP_OLD, 0);
    for (int i = 0; i < 3; i++) {
        REQUIRE(wire_open(&wires[i]));
        CHECK_OK(wire_group_join(&wires[i], "t", "g", FROM_EARLIEST, &joined[i]));
        CHECK_EQ(joined[i].standby, i > 0);
    }
    gate = &stage.ring.state->gates[joined[0].gate];
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(assign_member(gate->assign), joined[i].member);
        CHECK_OK(wire_group_leave(&wires[i], &joined[i]));
    }
    CHECK_EQ(assign_member(gate->assign), ASSIGN_NOBODY);
    CHECK_EQ(assign_generation(gate->assign), 4);
    /* An index is used again, by the next order of joining. */
    CHECK_OK(wire_group_join(&wires[2], "t", "g", FROM_EARLIEST, &joined[2]));
    CHECK_OK(wire_group_join(&wires[1], "t", "g", FROM_EARLIEST, &joined[1]));
    CHECK_EQ(assign_member(gate->assign), joined[2].member);
    for (int i = 0; i < 3; i++)
        wire_close(&wires[i]);
    close_stage(&stage);
}

TEST_MAIN("supervisor_groups", T(a_group_begins_where_it_asks),
          T(earliest_in_a_ring_that_went_round), T(a_claim_that_is_outstanding_is_not_skipped),
          T(a_claim_outlives_a_purge_and_a_late_join), T(a_linger_beyond_the_clock_is_for_ever),
          T(a_return_that_fails_holds_nobody_back),
          T(a_forgotten_group_stops_holding_producers_back), T(a_purge_fences_and_skips),
          T(a_topic_grows_under_its_groups), T(a_deleted_group_lets_producers_go),
          T(only_members_may_write_their_group), T(the_first_to_join_owns_and_the_next_succeeds))
