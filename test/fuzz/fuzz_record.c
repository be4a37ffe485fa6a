/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring written by a hostile producer, read by a consumer. The input is a program of steps:
 *   0 unit16 length32 key16 headers16 state8   a header with an honest stamp at that unit
 *   1 unit16 count8 bytes…                      raw bytes at that unit
 *   2 units32                                   the tail, from where it stands
 *   3 max8                                      the consumer takes up to so many messages
 * The first byte says whether it takes views (block) or copies (drop-old). Whatever it is handed must lie inside the
 * ring or its arena, and so must every header of it; nothing may crash or go on for ever.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libshmq/consumer.h"

#define CAPACITY RING_MIN_BYTES
#define BASE     UINT64_C(0x40000)
#define SALT     UINT64_C(0x123456789abcde40)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Alignas(128) struct state_segment state;
static _Alignas(128) unsigned char producers_room[sizeof(struct producers_segment) +
                                                  sizeof(struct producer_slot)];
static _Alignas(128) struct wait_segment wait_words;
static _Alignas(128) unsigned char group_room[sizeof(struct group_segment)];
static struct segment ring_mapping;
static volatile unsigned char sink;

static void require(bool condition)
{
    if (!condition)
        abort();
}

static bool client_lives(void *context, uint64_t client)
{
    (void)context;
    (void)client;
    return false;
}

static int no_group(void *context, struct ring *ring, uint32_t index, uint64_t group,
                    uint64_t deadline_ns, struct segment *ret_segment)
{
    (void)context;
    (void)ring;
    (void)index;
    (void)group;
    (void)deadline_ns;
    (void)ret_segment;
    return SHMQ_ENOGROUP;
}

static const struct ring_ops ops = {.client_is_dead = client_lives, .map_group = no_group};

static void map_ring(void)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    require(fd >= 0 && ftruncate(fd, CAPACITY) == 0);
    require(segment_map_twice(fd, true, CAPACITY, &ring_mapping, NULL) == 0);
    (void)close(fd);
}

struct fixture {
    struct ring ring;
    struct shmq_consumer consumer;
    struct consumer_partition partition;
    struct consumer_partition *owned[1];
};

static void set_up(struct fixture *f, bool copies)
{
    struct segment segments[4] = {
        {&state, sizeof(state)},
        {producers_room, sizeof(producers_room)},
        {&wait_words, sizeof(wait_words)},
        ring_mapping,
    };
    struct consumer_partition *cp = &f->partition;

    memset(f, 0, sizeof(*f));
    memset(&state, 0, sizeof(state));
    memset(producers_room, 0, sizeof(producers_room));
    memset(&wait_words, 0, sizeof(wait_words));
    memset(group_room, 0, sizeof(group_room));
    memset(ring_mapping.address, 0, CAPACITY);
    state.header.salt = SALT;
    state.capacity = CAPACITY;
    state.base = BASE;
    state.policy = copies ? OVERFLOW_DROP_OLD : OVERFLOW_BLOCK;
    state.slot_count = 1;
    state.wait_mode = WAIT_MODE_FENCE;
    require(ring_init(&f->ring, segments, -1, &ops, NULL, NULL) == 0);
    atomic_store(&f->ring.producers->tail, BASE);
    ring_reader_init(&cp->reader, &f->ring, BASE);
    cp->group = (struct group_segment *)(void *)group_room;
    cp->me = &cp->group->members[0];
    cp->wait = &wait_words;
    cp->batch = CAPACITY / 16;
    cp->owned = true;
    cp->copies = copies;
    cp->fence_mode = true;
    f->owned[0] = cp;
    f->consumer.owned = f->owned;
    f->consumer.owned_count = 1;
    f->consumer.partitions = cp;
    f->consumer.partition_count = 1;
    f->consumer.prefetch = UINT32_MAX;
    f->consumer.arena_bytes = 4096; /* small: it has to grow */
    f->consumer.arena = malloc(f->consumer.arena_bytes);
    require(f->consumer.arena != NULL);
}

static bool lies_within(const void *part, size_t bytes, const void *whole, size_t whole_bytes)
{
    uintptr_t at = (uintptr_t)part, from = (uintptr_t)whole;

    return at >= from && at - from <= whole_bytes && bytes <= whole_bytes - (at - from);
}

static void touch(const void *part, size_t bytes)
{
    const unsigned char *byte = part;

    for (size_t i = 0; i < bytes; i++)
        sink ^= byte[i];
}

static void check_message(const struct fixture *f, const struct shmq_message *message)
{
    const void *whole = f->partition.copies ? f->consumer.arena : ring_mapping.address;
    size_t bytes = f->partition.copies ? f->consumer.arena_bytes : ring_mapping.bytes;
    struct shmq_header header;
    size_t position = 0;

    require(lies_within(message->body, message->body_length, whole, bytes));
    require(lies_within(message->key, message->key_length, whole, bytes));
    require(lies_within(message->headers, message->headers_length, whole, bytes));
    touch(message->body, message->body_length);
    touch(message->key, message->key_length);
    while (shmq_headers_next(message, &position, &header) == 1) {
        require(lies_within(header.name, header.name_length, message->headers,
                            message->headers_length));
        require(lies_within(header.value, header.value_length, message->headers,
                            message->headers_length));
        touch(header.name, header.name_length);
        touch(header.value, header.value_length);
    }
}

struct input {
    const uint8_t *data;
    size_t left;
};

static uint32_t next_number(struct input *input, size_t bytes)
{
    uint32_t number = 0;

    for (size_t i = 0; i < bytes && input->left > 0; i++, input->data++, input->left--)
        number |= (uint32_t)*input->data << (8 * i);
    return number;
}

static void write_header(struct fixture *f, struct input *input)
{
    uint64_t offset = BASE + (uint64_t)next_number(input, 2) * RECORD_UNIT;
    struct record *record = ring_record(f->ring.data, f->ring.mask, offset);

    record->length = next_number(input, 4);
    record->key_length = (uint16_t)next_number(input, 2);
    record->headers_length = (uint16_t)next_number(input, 2);
    atomic_store(&record->commit, record_stamp(SALT, offset, next_number(input, 1) & 3));
}

static void write_raw(struct fixture *f, struct input *input)
{
    uint64_t offset = (uint64_t)next_number(input, 2) * RECORD_UNIT;
    size_t bytes = min_size(next_number(input, 1), input->left);

    memcpy(f->ring.data + (offset & f->ring.mask), input->data, bytes);
    input->data += bytes;
    input->left -= bytes;
}

static void take(struct fixture *f, struct input *input)
{
    struct shmq_message messages[64];
    uint32_t taken;

    if (f->partition.dead)
        return;
    f->consumer.stopped = false;
    taken = consumer_take(&f->consumer, messages, 1 + next_number(input, 1) % 64);
    require(taken <= 64);
    for (uint32_t i = 0; i < taken; i++)
        check_message(f, &messages[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct fixture f;

    if (!ring_mapping.address)
        map_ring();
    set_up(&f, next_number(&input, 1) & 1);
    while (input.left > 0) {
        switch (next_number(&input, 1) % 4) {
        case 0:
            write_header(&f, &input);
            break;
        case 1:
            write_raw(&f, &input);
            break;
        case 2:
            (void)atomic_fetch_add(&f.ring.producers->tail,
                                   (uint64_t)(next_number(&input, 4) & 0xffff) * RECORD_UNIT);
            break;
        default:
            take(&f, &input);
            break;
        }
    }
    free(f.consumer.arena);
    return 0;
}
