/* partition.c: see partition.h. */
#include "test/support/partition.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libshmq/segment.h"
#include "libshmq/topic_options.h"
#include "test/support/test.h"

static const enum segment_kind kinds[4] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT,
                                           SEGMENT_DATA};

static int make_memory(uint64_t bytes)
{
    int fd = memfd_create("partition", MFD_CLOEXEC);

    REQUIRE(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    return fd;
}

static struct segment map_memory(int fd, size_t bytes)
{
    struct segment segment;
    struct error_buffer why;

    REQUIRE_OK(segment_map(fd, true, bytes, &segment, &why));
    return segment;
}

static bool client_is_dead(void *context, uint64_t client)
{
    const struct partition *partition = context;

    return client < PARTITION_CLIENTS &&
           atomic_load_explicit(&partition->dead[client], memory_order_acquire);
}

static int map_group(void *context, struct ring *ring, uint32_t index, uint64_t group,
                     uint64_t deadline_ns, struct segment *ret_segment)
{
    struct partition *partition = context;

    (void)ring, (void)group, (void)deadline_ns;
    if (partition->group_fds[index] < 0)
        return SHMQ_ENOGROUP;
    *ret_segment = map_memory(partition->group_fds[index], sizeof(struct group_segment));
    return 0;
}

/* Between threads: one mapping for all, so that ThreadSanitizer sees one address. */
static int share_group(void *context, struct ring *ring, uint32_t index, uint64_t group,
                       uint64_t deadline_ns, struct segment *ret_segment)
{
    struct partition *partition = context;

    (void)ring, (void)group, (void)deadline_ns;
    if (partition->group_fds[index] < 0)
        return SHMQ_ENOGROUP;
    *ret_segment = partition->groups[index];
    return 0;
}

static const struct ring_ops shared_ops = {.client_is_dead = client_is_dead,
                                           .map_group = share_group};
static const struct ring_ops ops = {.client_is_dead = client_is_dead, .map_group = map_group};

static void init_header(int fd, enum segment_kind kind, uint64_t salt, size_t bytes, uint64_t group)
{
    struct segment segment = map_memory(fd, bytes);
    struct segment_identity identity = {.kind = kind, .topic = 1, .salt = salt, .group = group};

    segment_init_header(segment.address, &identity, bytes);
    segment_unmap(&segment);
}

static void init_contents(struct partition *partition, uint64_t base)
{
    struct state_segment *state = partition->state.address;

    state->base = base;
    atomic_store(&state->first, base);
    atomic_store(&state->durable, UINT64_MAX);
    atomic_store(&state->max_message, ring_max_message(state->capacity));
    atomic_store(&state->partition_count, 1);
    struct segment p = map_memory(partition->fds[1], segment_producers_bytes(state->slot_count));
    struct producers_segment *producers = p.address;

    atomic_store(&producers->tail, base);
    atomic_store(&producers->head, base);
    segment_unmap(&p);
}

void partition_init(struct partition *partition, uint64_t capacity, enum overflow_policy policy,
                    enum producers_mode producers, uint64_t base)
{
    uint32_t slots = producers == PRODUCERS_SINGLE ? 1 : 8;
    uint64_t bytes[4] = {sizeof(struct state_segment), segment_producers_bytes(slots),
                         sizeof(struct wait_segment), capacity};

    memset(partition, 0, sizeof(*partition));
    partition->salt = UINT64_C(0x5bd1e995c0ffee40);
    partition->dead = test_shared(PARTITION_CLIENTS);
    for (uint32_t i = 0; i < GATES_MAX; i++)
        partition->group_fds[i] = -1;
    for (uint32_t i = 0; i < 4; i++) {
        partition->fds[i] = make_memory(bytes[i]);
        if (kinds[i] != SEGMENT_DATA)
            init_header(partition->fds[i], kinds[i], partition->salt, bytes[i], 0);
    }
    partition->state = map_memory(partition->fds[0], bytes[0]);
    struct state_segment *state = partition->state.address;

    state->capacity = capacity;
    state->policy = policy;
    state->producers = producers;
    state->slot_count = slots;
    state->wait_mode = WAIT_MODE_FENCE;
    strcpy(state->name, "test");
    init_contents(partition, base);
}

void partition_deinit(struct partition *partition)
{
    segment_unmap(&partition->state);
    for (uint32_t i = 0; i < GATES_MAX; i++) {
        segment_unmap(&partition->groups[i]);
        if (partition->group_fds[i] >= 0)
            close(partition->group_fds[i]);
    }
    for (uint32_t i = 0; i < 4; i++)
        close(partition->fds[i]);
}

void partition_reset(struct partition *partition, uint64_t base)
{
    struct state_segment *state = partition->state.address;

    for (uint32_t i = 0; i < GATES_MAX; i++) {
        segment_unmap(&partition->groups[i]);
        if (partition->group_fds[i] >= 0)
            close(partition->group_fds[i]);
        partition->group_fds[i] = -1;
    }
    memset(state->gates, 0, sizeof(state->gates));
    memset(state->slot_client, 0, sizeof(state->slot_client));
    atomic_store(&state->gate_count, 0);
    atomic_store(&state->gate_epoch, 0);
    atomic_store(&state->status, PARTITION_OPEN);
    for (uint32_t i = 1; i < 3; i++) {
        size_t bytes =
            i == 1 ? segment_producers_bytes(state->slot_count) : sizeof(struct wait_segment);
        struct segment segment = map_memory(partition->fds[i], bytes);

        memset((unsigned char *)segment.address + sizeof(struct segment_header), 0,
               bytes - sizeof(struct segment_header));
        segment_unmap(&segment);
    }
    struct segment data = map_memory(partition->fds[3], state->capacity);

    memset(data.address, 0, state->capacity);
    segment_unmap(&data);
    memset((void *)(uintptr_t)partition->dead, 0, PARTITION_CLIENTS);
    init_contents(partition, base);
}

void partition_open(struct partition *partition, struct ring *ret_ring)
{
    const struct state_segment *state = partition->state.address;
    struct segment segments[4];
    struct error_buffer why;
    char path[64];

    segments[0] = map_memory(partition->fds[0], sizeof(struct state_segment));
    segments[1] = map_memory(partition->fds[1], segment_producers_bytes(state->slot_count));
    segments[2] = map_memory(partition->fds[2], sizeof(struct wait_segment));
    REQUIRE_OK(segment_map_twice(partition->fds[3], true, state->capacity, &segments[3], &why));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", partition->fds[1]);
    int fd = open(
        path, O_RDWR | O_CLOEXEC); /* a description of its own: recovery bytes exclude each other */

    REQUIRE(fd >= 0);
    REQUIRE_OK(ring_init(ret_ring, segments, fd, &ops, partition, &why));
}

void partition_share(const struct ring *ring, struct ring *ret_ring)
{
    *ret_ring = *ring;
    memset(ret_ring->segments, 0, sizeof(ret_ring->segments));
    memset(ret_ring->gates, 0, sizeof(ret_ring->gates));
    ret_ring->gate_epoch = 0;
    ret_ring->producers_fd = -1;
    ret_ring->ops = &shared_ops;
}

void partition_unshare(struct ring *ring)
{
    memset(ring->gates, 0, sizeof(ring->gates)); /* nothing was mapped */
    ring_deinit(ring);
}

void partition_assign_slot(struct partition *partition, uint32_t slot, uint64_t client)
{
    struct state_segment *state = partition->state.address;

    atomic_store_explicit(&state->slot_client[slot], client, memory_order_release);
}

void partition_declare_dead(struct partition *partition, uint64_t client)
{
    atomic_store_explicit(&partition->dead[client], 1, memory_order_release);
}

struct state_segment *partition_state(const struct ring *ring)
{
    return ring->segments[0].address ? ring->segments[0].address
                                     : (struct state_segment *)(uintptr_t)ring->state;
}

struct group_segment *partition_add_group(struct partition *partition, struct ring *ring,
                                          uint32_t index, uint64_t x, bool gates)
{
    struct state_segment *state = partition_state(ring);
    size_t bytes = sizeof(struct group_segment);
    int error = 0;

    int fd = make_memory(bytes);

    init_header(fd, SEGMENT_GROUP, partition->salt, bytes, index + 1);
    partition->groups[index] = map_memory(fd, bytes);
    partition->group_fds[index] = fd; /* last: map_group() looks at it */
    struct group_segment *group = partition->groups[index].address;

    for (uint32_t m = 0; m < MEMBERS_MAX; m++)
        atomic_store(&group->members[m].hold, HOLD_NONE);
    atomic_store_explicit(&state->gates[index].group, index + 1, memory_order_release);
    atomic_store_explicit(&state->gates[index].state, GATE_OPEN, memory_order_release);
    if (atomic_load(&state->gate_count) <= index)
        atomic_store_explicit(&state->gate_count, index + 1, memory_order_release);
    atomic_fetch_add_explicit(&state->gate_epoch, 1, memory_order_acq_rel);
    cursor_attach(ring, group, 0, x, gates, &error);
    CHECK_OK(error);
    return group;
}

static unsigned char pattern(struct message_tag tag, uint32_t i)
{
    return (unsigned char)(tag.producer * 31 + tag.number * 7 + i * 13 + (i >> 8));
}

void message_fill(unsigned char *body, uint32_t bytes, struct message_tag tag)
{
    memcpy(body, &tag, sizeof(tag));
    memcpy(body + 8, &bytes, sizeof(bytes));
    for (uint32_t i = 12; i < bytes; i++)
        body[i] = pattern(tag, i);
}

bool message_check(const unsigned char *body, uint32_t bytes, struct message_tag *ret_tag)
{
    uint32_t said;

    if (bytes < MESSAGE_BODY_MIN)
        return false;
    memcpy(ret_tag, body, sizeof(*ret_tag));
    memcpy(&said, body + 8, sizeof(said));
    if (said != bytes)
        return false;
    for (uint32_t i = 12; i < bytes; i++) {
        if (body[i] != pattern(*ret_tag, i))
            return false;
    }
    return true;
}

int partition_publish(struct ring_producer *producer, uint32_t body_bytes, struct message_tag tag)
{
    uint64_t size = record_size(body_bytes);
    uint64_t offset;
    int rc = ring_claim(producer, size, &offset);

    if (rc == RING_NO_ROOM) {
        rc = ring_refresh_limit(producer, size, UINT64_MAX);
        if (rc == RING_OK)
            rc = ring_claim(producer, size, &offset);
    }
    if (rc != RING_OK)
        return rc;
    struct record *record =
        ring_begin_record(producer, offset, body_bytes, 0, 0, 0, RECORD_TYPE_DATA);

    message_fill(record->payload, body_bytes, tag);
    ring_commit(producer, offset, size);
    wait_wake(producer->ring->wait, ATTENTION_DATA, producer->ring->fence_mode);
    return RING_OK;
}

uint32_t partition_take(struct ring_reader *reader, struct message_tag *ret_tag)
{
    uint32_t length;
    const struct record *record = ring_peek(reader, &length);

    if (!record) {
        CHECK(length != UINT32_MAX);
        return 0;
    }
    CHECK(message_check(record->payload, length, ret_tag));
    reader->position += record_size(length);
    return length;
}
