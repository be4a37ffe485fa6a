/* SPDX-License-Identifier: Apache-2.0 */
/*
 * durable_stage.h: a bus with one durable topic "t" of one partition, spoken to by hand (wire.h), whose supervisor
 * runs in a child process and can be killed, with or without the memory of the bus.
 *
 * Losing the memory is what a crash of the host looks like to the next supervisor, as far as files are concerned
 * that were synced. What cannot be done ends the test. The thread of the test only.
 */
#ifndef SHMQ_TEST_SUPPORT_DURABLE_STAGE_H
#define SHMQ_TEST_SUPPORT_DURABLE_STAGE_H

#include "libshmq/cursor.h"
#include "test/support/test.h"
#include "test/support/wire.h"

#define STAGE_RECORDS_IN_RING (RING_MIN_BYTES / RECORD_UNIT)

struct durable_stage {
    pid_t supervisor;
    struct wire wire;
    uint64_t topic;
    struct ring ring; /* of partition 0, as a producer */
    struct ring_producer producer;
    uint32_t slot;
};

/* The smallest ring; everything else as topic_options_init() says, but for what the caller gives. */
void stage_open(struct durable_stage *stage, uint32_t policy, uint32_t durability);

/* Ends the supervisor well; the bus goes with the test. */
void stage_close(struct durable_stage *stage);

/* Kills the supervisor and starts another; with `memory_lost` everything in /dev/shm is gone in between. The
 * connection and the ring are new ones. */
void stage_restart(struct durable_stage *stage, bool memory_lost);

/* The same, but the supervisor is asked to stop. */
void stage_stop_and_lose_memory(struct durable_stage *stage);

/* Records of 64 bytes, each a number in its payload, waiting for room. */
void stage_publish(struct durable_stage *stage, uint64_t count);

/* Waits until all that is published is durable. */
void stage_settle(struct durable_stage *stage);

/* Joins the group; its segment is the gate's in stage->ring. */
struct protocol_group_joined stage_join(struct durable_stage *stage, const char *group,
                                        uint32_t from, uint64_t offset);
void stage_leave(struct durable_stage *stage, const struct protocol_group_joined *joined);

/* With or without members. */
int stage_delete_group(struct durable_stage *stage, const char *group);

/* The cursor as it stands, and moved as its owner does it. */
uint64_t stage_cursor_word(const struct durable_stage *stage,
                           const struct protocol_group_joined *joined);
uint64_t stage_cursor(const struct durable_stage *stage,
                      const struct protocol_group_joined *joined);
void stage_commit(struct durable_stage *stage, const struct protocol_group_joined *joined,
                  uint64_t offset);

struct protocol_partition_info stage_describe(struct durable_stage *stage);
struct protocol_group_partition stage_describe_group(struct durable_stage *stage,
                                                     const char *group);

#endif
