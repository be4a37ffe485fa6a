/* SPDX-License-Identifier: Apache-2.0 */
/* A bus with a durable topic; see durable_stage.h. */
#include "test/support/durable_stage.h"

#include "test/support/fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE_MS 10000

static void open_partition(struct durable_stage *stage)
{
    REQUIRE_OK(wire_partition_open(&stage->wire, stage->topic, 0, ROLE_PRODUCER, &stage->ring,
                                   &stage->slot));
    ring_producer_init(&stage->producer, &stage->ring, stage->slot);
}

void stage_open(struct durable_stage *stage, uint32_t policy, uint32_t durability)
{
    struct topic_options topic;
    struct protocol_topic_info info;

    memset(stage, 0, sizeof(*stage));
    stage->supervisor = fixture_spawn();
    REQUIRE(wire_open(&stage->wire));
    topic_options_init(&topic);
    strcpy(topic.name, "t");
    topic.ring_bytes = RING_MIN_BYTES;
    topic.policy = policy;
    topic.durability = durability;
    REQUIRE_OK(wire_topic_create(&stage->wire, &topic, 0, &info));
    stage->topic = info.id;
    open_partition(stage);
}

static void close_client(struct durable_stage *stage)
{
    ring_deinit(&stage->ring); /* and the groups */
    wire_close(&stage->wire);
}

static void open_client(struct durable_stage *stage)
{
    REQUIRE(wire_open(&stage->wire));
    open_partition(stage);
}

void stage_close(struct durable_stage *stage)
{
    close_client(stage);
    fixture_end(stage->supervisor);
    (void)test_remove_leftovers();
}

void stage_restart(struct durable_stage *stage, bool memory_lost)
{
    test_kill(stage->supervisor, SIGKILL);
    close_client(stage);
    if (memory_lost)
        CHECK(test_remove_leftovers() > 0);
    stage->supervisor = fixture_spawn();
    open_client(stage);
}

void stage_stop_and_lose_memory(struct durable_stage *stage)
{
    fixture_end(stage->supervisor);
    close_client(stage);
    CHECK(test_remove_leftovers() > 0);
    stage->supervisor = fixture_spawn();
    open_client(stage);
}

/* ---- messages -------------------------------------------------------------------------------- */

static bool has_room(void *context)
{
    struct durable_stage *stage = context;

    wait_wake_everyone(stage->ring.wait); /* the flusher may nap */
    return ring_refresh_limit(&stage->producer, RECORD_UNIT, 0) == RING_OK;
}

void stage_publish(struct durable_stage *stage, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = 0;
        struct record *record;

        if (ring_claim(&stage->producer, RECORD_UNIT, &offset) != RING_OK) {
            REQUIRE(test_eventually(has_room, stage, PATIENCE_MS));
            REQUIRE(ring_claim(&stage->producer, RECORD_UNIT, &offset) == RING_OK);
        }
        record = ring_begin_record(&stage->producer, offset, sizeof(i), 1000 + i, 0, 0,
                                   RECORD_TYPE_DATA);
        memcpy(record->payload, &i, sizeof(i));
        ring_commit(&stage->producer, offset, RECORD_UNIT);
    }
    wait_wake_everyone(stage->ring.wait);
}

static bool is_settled(void *context)
{
    struct durable_stage *stage = context;

    wait_wake_everyone(stage->ring.wait);
    return atomic_load(&stage->ring.state->durable) == ring_tail(&stage->ring);
}

void stage_settle(struct durable_stage *stage)
{
    REQUIRE(test_eventually(is_settled, stage, PATIENCE_MS));
}

/* ---- groups ---------------------------------------------------------------------------------- */

struct protocol_group_joined stage_join(struct durable_stage *stage, const char *group,
                                        uint32_t from, uint64_t offset)
{
    struct protocol_group_join join = {.from = from, .offset = offset};
    struct protocol_group_joined joined;
    struct ring_gate *gate;

    strcpy(join.topic, "t");
    (void)snprintf(join.group, sizeof(join.group), "%s", group);
    REQUIRE_OK(wire_call(&stage->wire, &join, PROTOCOL_GROUP_JOIN, sizeof(join)));
    joined = *(const struct protocol_group_joined *)(const void *)stage->wire.reply;
    gate = &stage->ring.gates[joined.gate];
    segment_unmap(&gate->segment);
    REQUIRE_OK(wire_group_segment(&stage->wire, &joined, 0, &gate->segment));
    gate->group = joined.group;
    return joined;
}

void stage_leave(struct durable_stage *stage, const struct protocol_group_joined *joined)
{
    REQUIRE_OK(wire_group_leave(&stage->wire, joined));
}

int stage_delete_group(struct durable_stage *stage, const char *group)
{
    struct protocol_group_request request = {.flags = GROUP_FORCE};

    strcpy(request.topic_name, "t");
    (void)snprintf(request.group_name, sizeof(request.group_name), "%s", group);
    return wire_call(&stage->wire, &request, PROTOCOL_GROUP_DELETE, sizeof(request));
}

static struct group_segment *segment_of(const struct durable_stage *stage,
                                        const struct protocol_group_joined *joined)
{
    return stage->ring.gates[joined->gate].segment.address;
}

uint64_t stage_cursor_word(const struct durable_stage *stage,
                           const struct protocol_group_joined *joined)
{
    return atomic_load(&segment_of(stage, joined)->cursor);
}

uint64_t stage_cursor(const struct durable_stage *stage, const struct protocol_group_joined *joined)
{
    return cursor_offset(stage_cursor_word(stage, joined), ring_tail(&stage->ring));
}

void stage_commit(struct durable_stage *stage, const struct protocol_group_joined *joined,
                  uint64_t offset)
{
    uint64_t word = stage_cursor_word(stage, joined);

    REQUIRE_OK(cursor_commit(segment_of(stage, joined), &word, offset));
}

/* ---- what the supervisor says ---------------------------------------------------------------- */

struct protocol_partition_info stage_describe(struct durable_stage *stage)
{
    struct protocol_list_request list = {.after_id = 0};
    struct protocol_partition_info info;

    strcpy(list.name, "t");
    REQUIRE_OK(wire_call(&stage->wire, &list, PROTOCOL_PARTITION_LIST, sizeof(list)));
    memcpy(&info, ((struct protocol_list_reply *)(void *)stage->wire.reply)->elements,
           sizeof(info));
    return info;
}

struct protocol_group_partition stage_describe_group(struct durable_stage *stage, const char *group)
{
    struct protocol_group_request request = {.partition = 0};

    strcpy(request.topic_name, "t");
    (void)snprintf(request.group_name, sizeof(request.group_name), "%s", group);
    REQUIRE_OK(wire_call(&stage->wire, &request, PROTOCOL_GROUP_DESCRIBE, sizeof(request)));
    return ((struct protocol_group_reply *)(void *)stage->wire.reply)->partitions[0];
}
