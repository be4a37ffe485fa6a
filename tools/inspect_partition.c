/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading S, P, G and single words of D of one partition; see inspect.h. P, D and G are written by
 * clients: nothing in them is believed, only shown.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libshmq/cursor.h"
#include "libshmq/liveness.h"
#include "libshmq/record.h"
#include "tools/inspect_internal.h"
#include "tools/outbuf.h"

struct partition_files {
    int state, producers, data;
};

static int open_segment(struct inspect_bus *bus, struct inspect_partition *p, char kind,
                        uint32_t gate)
{
    char file[NAME_MAX_FILE];
    struct stat status;
    int fd;

    if (kind == SEGMENT_GROUP)
        (void)snprintf(file, sizeof(file), "%s.t%" PRIu64 "p%" PRIu32 ".g%" PRIu32, bus->prefix,
                       p->topic, p->partition, gate);
    else
        (void)snprintf(file, sizeof(file), "%s.t%" PRIu64 "p%" PRIu32 ".%c", bus->prefix, p->topic,
                       p->partition, kind);
    fd = inspect_open_file(file);
    if (fd < 0) {
        bus->unreadable |= errno != ENOENT;
        return -1;
    }
    if (fstat(fd, &status) == 0) {
        p->bytes += (uint64_t)status.st_size;
        if (kind == SEGMENT_PRODUCERS)
            p->producers_inode = status.st_ino;
    }
    return fd;
}

static bool header_is_ours(const struct segment_header *header, char kind)
{
    return header->magic == LAYOUT_MAGIC && header->version == LAYOUT_VERSION &&
           header->kind == (uint32_t)kind && header->fingerprint == LAYOUT_FINGERPRINT;
}

static void copy_name(char to[NAME_BYTES], const char from[LAYOUT_NAME_BYTES])
{
    (void)snprintf(to, NAME_BYTES, "%.*s", (int)NAME_MAX_BYTES, from);
    text_make_printable(to);
}

/* Stamp of the record at `offset`; 0 also when it cannot be read. */
static uint64_t read_state(int data, const struct state_segment *s, uint64_t offset)
{
    uint64_t commit = 0;

    if (data < 0 || !inspect_read(data, &commit, sizeof(commit), offset & (s->capacity - 1)))
        return 0;
    return record_state(commit, s->header.salt, offset);
}

static void read_slots(struct inspect_partition *p, const struct state_segment *s,
                       const struct partition_files *files)
{
    uint32_t count = min_u32(s->slot_count, SLOTS_MAX);

    for (uint32_t i = 0; i < count; i++) {
        uint64_t client = atomic_load_explicit(&s->slot_client[i], memory_order_relaxed);
        struct producer_slot slot;
        uint64_t at;

        if (!inspect_read(files->producers, &slot, sizeof(slot),
                          offsetof(struct producers_segment, slots) + (uint64_t)i * sizeof(slot)))
            return;
        p->producer_count += client != CLIENT_NONE;
        p->records += atomic_load_explicit(&slot.records, memory_order_relaxed);
        at = atomic_load_explicit(&slot.at, memory_order_relaxed);
        if (at == 0 || (at & ~SLOT_BITS) >= p->tail || p->tail - (at & ~SLOT_BITS) > s->capacity)
            continue;
        if (read_state(files->data, s, at & ~SLOT_BITS) != 0)
            continue; /* committed: only the slot is not cleared yet */
        p->claims[p->claim_count++] = (struct inspect_claim){
            .slot = i,
            .client = client,
            .at = at & ~SLOT_BITS,
            .end = atomic_load_explicit(&slot.end, memory_order_relaxed),
        };
    }
}

static void read_group(struct inspect_bus *bus, struct inspect_partition *p,
                       struct inspect_gate *gate, uint32_t owner)
{
    static struct group_segment g; /* 9 KiB; one thread */
    int fd = open_segment(bus, p, SEGMENT_GROUP, gate->index);
    uint64_t word;

    gate->hold = HOLD_NONE;
    if (fd < 0)
        return;
    if (inspect_read(fd, &g, sizeof(g), 0) && header_is_ours(&g.header, SEGMENT_GROUP)) {
        gate->readable = true;
        copy_name(gate->name, g.name);
        word = atomic_load_explicit(&g.cursor, memory_order_relaxed);
        gate->gates = cursor_gates(word);
        gate->cursor = cursor_offset(word, p->tail);
        for (uint32_t m = 0; m < MEMBERS_MAX; m++) {
            uint64_t client = atomic_load_explicit(&g.members[m].client, memory_order_relaxed);
            uint64_t hold = atomic_load_explicit(&g.members[m].hold, memory_order_relaxed);

            if (client == CLIENT_NONE)
                continue;
            gate->members++;
            if (m == owner)
                gate->owner = client;
            if (hold < gate->hold) {
                gate->hold = hold;
                gate->hold_client = client;
            }
        }
    }
    (void)close(fd);
}

static void read_gates(struct inspect_bus *bus, struct inspect_partition *p,
                       const struct state_segment *s)
{
    uint32_t count = min_u32(atomic_load_explicit(&s->gate_count, memory_order_relaxed), GATES_MAX);

    for (uint32_t i = 0; i < count; i++) {
        struct inspect_gate *gate = &p->gates[p->gate_count];
        uint32_t state = atomic_load_explicit(&s->gates[i].state, memory_order_relaxed);

        if (state != GATE_OPEN && state != GATE_IDLE)
            continue;
        *gate = (struct inspect_gate){.index = i, .state = state};
        gate->group = atomic_load_explicit(&s->gates[i].group, memory_order_relaxed);
        read_group(bus, p, gate,
                   assign_member(atomic_load_explicit(&s->gates[i].assign, memory_order_relaxed)));
        p->gate_count++;
    }
}

static bool read_state_segment(int fd, struct state_segment *s)
{
    return fd >= 0 && inspect_read(fd, s, sizeof(*s), 0);
}

static void read_files(struct inspect_bus *bus, struct inspect_partition *p,
                       const struct partition_files *files)
{
    static struct state_segment s;
    uint64_t tail;

    if (!read_state_segment(files->state, &s)) {
        p->damage = files->state < 0 ? "its state segment is missing or not readable for this user"
                                     : "its state segment was truncated";
        return;
    }
    if (!header_is_ours(&s.header, SEGMENT_STATE)) {
        p->damage = "its state segment has a foreign layout: another version of shmq made it";
        return;
    }
    copy_name(p->name, s.name);
    p->status = atomic_load_explicit(&s.status, memory_order_relaxed);
    p->policy = s.policy;
    if (!is_power_of_two_u64(s.capacity) || s.capacity < RING_MIN_BYTES ||
        s.capacity > RING_MAX_BYTES) {
        p->damage = "its state segment contradicts itself";
        return;
    }
    if (files->producers < 0 || !inspect_read(files->producers, &tail, sizeof(tail),
                                              offsetof(struct producers_segment, tail))) {
        p->damage = "its producers segment is missing or was truncated";
        return;
    }
    p->capacity = s.capacity;
    p->base = s.base;
    p->first = atomic_load_explicit(&s.first, memory_order_relaxed);
    p->durable = atomic_load_explicit(&s.durable, memory_order_relaxed);
    p->journal_error = atomic_load_explicit(&s.journal_error, memory_order_relaxed);
    p->tail = tail;
    p->recovery_held =
        !liveness_is_dead(files->producers, (uint64_t)PRODUCERS_RECOVERY_BYTE); /* a byte's lock */
    read_slots(p, &s, files);
    read_gates(bus, p, &s);
}

void inspect_read_partition(struct inspect_bus *bus, struct inspect_partition *p)
{
    struct partition_files files = {
        .state = open_segment(bus, p, SEGMENT_STATE, 0),
        .producers = open_segment(bus, p, SEGMENT_PRODUCERS, 0),
        .data = open_segment(bus, p, SEGMENT_DATA, 0),
    };

    (void)snprintf(p->name, sizeof(p->name), "topic %" PRIu64, p->topic);
    read_files(bus, p, &files);
    if (files.state >= 0)
        (void)close(files.state);
    if (files.producers >= 0)
        (void)close(files.producers);
    if (files.data >= 0)
        (void)close(files.data);
}

uint64_t inspect_find_lowest(const struct inspect_bus *bus, const struct inspect_partition *p,
                             uint32_t *ret_gate, bool *ret_hold)
{
    uint64_t lowest = p->tail;

    *ret_gate = UINT32_MAX;
    *ret_hold = false;
    for (uint32_t i = 0; i < p->gate_count; i++) {
        const struct inspect_gate *gate = &p->gates[i];
        const struct inspect_client *holder = inspect_find_client(bus, gate->hold_client);

        if (gate->state != GATE_OPEN)
            continue;
        if (gate->gates && gate->cursor < lowest) {
            lowest = gate->cursor;
            *ret_gate = i;
            *ret_hold = false;
        }
        /* A hold below the ring is a scribble, or of long ago; a dead one's counts no more. */
        if (gate->hold < lowest && p->tail - gate->hold <= p->capacity && holder && holder->alive) {
            lowest = gate->hold;
            *ret_gate = i;
            *ret_hold = true;
        }
    }
    return lowest;
}

uint64_t inspect_unread_bytes(const struct inspect_bus *bus)
{
    uint64_t unread = 0;

    for (uint32_t i = 0; i < bus->partition_count; i++) {
        const struct inspect_partition *p = &bus->partitions[i];
        uint64_t lowest = p->tail;

        if (p->status != PARTITION_OPEN)
            continue;
        /* What is in a journal is read from there; the rest is to get there, read or not. */
        if (p->durable != UINT64_MAX)
            lowest = min_u64(lowest, p->durable);
        for (uint32_t g = 0; g < p->gate_count && p->durable == UINT64_MAX; g++) {
            if (p->gates[g].readable)
                lowest = min_u64(lowest, max_u64(p->gates[g].cursor, p->first));
        }
        unread += min_u64(p->tail - lowest, p->capacity);
    }
    return unread;
}
