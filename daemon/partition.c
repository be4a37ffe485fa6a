/* SPDX-License-Identifier: Apache-2.0 */
/* partition.c: making, opening, closing and checking a partition; see partition.h. */
#include "daemon/partition.h"

#include "daemon/flush.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "daemon/topic.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const enum segment_kind KINDS[4] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT,
                                           SEGMENT_DATA};

const char *partition_label(const struct partition *partition, char buffer[NAME_BYTES + 32])
{
    (void)snprintf(buffer, NAME_BYTES + 32, "topic %s/%" PRIu32, partition->topic->options.name,
                   partition->index);
    return buffer;
}

static uint32_t slot_count_of(const struct topic_options *options)
{
    return options->producers == PRODUCERS_SINGLE ? 1 : SLOTS_MAX;
}

uint64_t partition_bytes(uint64_t ring_bytes, uint32_t slot_count)
{
    return ring_bytes + sizeof(struct state_segment) + segment_producers_bytes(slot_count) +
           sizeof(struct wait_segment);
}

static void name_segment(const struct partition *partition, enum segment_kind kind,
                         char name[SEGMENT_NAME_BYTES])
{
    (void)segment_name(name, partition->topic->realm->prefix, kind, partition->topic->id,
                       partition->index, 0);
}

/* ---- making ---------------------------------------------------------------------------------- */

static void fill_state(struct partition *partition)
{
    const struct topic_options *options = &partition->topic->options;
    struct state_segment *state = partition_state(partition);

    state->capacity = options->ring_bytes;
    state->base = partition->base;
    state->policy = options->policy;
    state->producers = options->producers;
    state->timestamps = options->timestamps;
    state->durability = options->durability;
    state->slot_count = slot_count_of(options);
    state->wait_mode = partition->topic->realm->bus.wait_mode;
    memcpy(state->name, options->name, sizeof(options->name));
    /* Relaxed: nobody sees them before `ready`. */
    atomic_store_explicit(&state->durable,
                          topic_is_durable(partition->topic) ? partition->base : UINT64_MAX,
                          memory_order_relaxed);
    /* A journal goes back before this memory: all of it but what was purged. */
    atomic_store_explicit(&state->first,
                          topic_is_durable(partition->topic) ? partition->saved_first
                                                             : partition->base,
                          memory_order_relaxed);
    atomic_store_explicit(&state->max_message, options->max_message, memory_order_relaxed);
    atomic_store_explicit(&state->partition_count, options->partitions, memory_order_relaxed);
}

static void fill_producers(struct partition *partition)
{
    struct producers_segment *producers = partition->producers.address;

    atomic_store_explicit(&producers->tail, partition->base, memory_order_relaxed);
    atomic_store_explicit(&producers->head, partition->base, memory_order_relaxed);
}

static int create_segment(struct partition *partition, enum segment_kind kind, uint64_t bytes,
                          int *ret_fd, struct error_buffer *why)
{
    char name[SEGMENT_NAME_BYTES];
    int rc;

    name_segment(partition, kind, name);
    rc = segment_create(name, bytes, ret_fd, why);
    if (rc == SHMQ_EEXIST) {
        /* Ids are never reused: a leftover that appeared since our start, and not ours. */
        (void)segment_unlink(name);
        rc = segment_create(name, bytes, ret_fd, why);
    }
    return rc;
}

static int create_mapped(struct partition *partition, enum segment_kind kind, uint64_t bytes,
                         struct segment *ret_segment, struct error_buffer *why)
{
    struct segment_identity identity = {
        .kind = kind,
        .topic = partition->topic->id,
        .partition = partition->index,
        .salt = partition->salt,
    };
    int fd;
    int rc = create_segment(partition, kind, bytes, &fd, why);

    if (rc < 0)
        return rc;
    rc = segment_map(fd, true, bytes, ret_segment, why);
    (void)close(fd);
    if (rc < 0)
        return rc;
    if (kind == SEGMENT_STATE)
        fill_state(partition);
    else if (kind == SEGMENT_PRODUCERS)
        fill_producers(partition);
    FAULT("partition.create.unready");
    segment_init_header(ret_segment->address, &identity, bytes);
    return 0;
}

static int create_all(struct partition *partition, struct error_buffer *why)
{
    const struct topic_options *options = &partition->topic->options;
    int fd;
    int rc;

    /* D first: it is the one that runs out of memory. */
    rc = create_segment(partition, SEGMENT_DATA, options->ring_bytes, &fd, why);
    if (rc < 0)
        return rc;
    (void)close(fd);
    FAULT("partition.create.data");
    rc = create_mapped(partition, SEGMENT_STATE, sizeof(struct state_segment), &partition->state,
                       why);
    if (rc == 0)
        rc = create_mapped(partition, SEGMENT_PRODUCERS,
                           segment_producers_bytes(slot_count_of(options)), &partition->producers,
                           why);
    if (rc == 0)
        rc = create_mapped(partition, SEGMENT_WAIT, sizeof(struct wait_segment), &partition->wait,
                           why);
    return rc;
}

int partition_create(struct partition *partition, uint64_t base, struct error_buffer *why)
{
    struct realm *realm = partition->topic->realm;
    int rc;

    if (getrandom(&partition->salt, sizeof(partition->salt), 0) != (ssize_t)sizeof(partition->salt))
        return error_set_errno(why, errno, "topic %s: no random numbers for its salt",
                               partition->topic->options.name);
    partition->salt &= ~(uint64_t)(RECORD_UNIT - 1);
    partition->base = base;
    partition->tail_seen = base;
    partition->quarantined = false;
    rc = create_all(partition, why);
    if (rc < 0) {
        partition_unmap(partition);
        partition_unlink(partition);
        return rc;
    }
    realm->mapping_count += 3;
    return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int open_mapped(struct partition *partition, enum segment_kind kind, size_t bytes,
                       struct segment *ret_segment, struct error_buffer *why)
{
    struct segment_identity identity = {
        .kind = kind,
        .topic = partition->topic->id,
        .partition = partition->index,
        .salt = partition->salt,
    };
    char name[SEGMENT_NAME_BYTES];
    int fd;
    int rc;

    name_segment(partition, kind, name);
    rc = segment_open(name, true, &fd, why);
    if (rc < 0)
        return rc;
    rc = segment_map(fd, true, bytes, ret_segment, why);
    (void)close(fd);
    return rc < 0 ? rc : guard_check_segment(ret_segment, &identity, why);
}

static int check_data(struct partition *partition, struct error_buffer *why)
{
    struct segment data;
    char name[SEGMENT_NAME_BYTES];
    int fd;
    int rc;

    name_segment(partition, SEGMENT_DATA, name);
    rc = segment_open(name, false, &fd, why);
    if (rc < 0)
        return rc;
    rc = segment_map_twice(fd, false, partition->topic->options.ring_bytes, &data, why);
    (void)close(fd);
    if (rc == 0)
        segment_unmap(&data);
    return rc;
}

struct state_take {
    struct partition *partition;
    uint32_t status;
};

static int take_state(void *context)
{
    struct state_take *take = context;
    struct partition *partition = take->partition;
    const struct topic_options *options = &partition->topic->options;
    struct state_segment *state = partition_state(partition);

    partition->salt = state->header.salt;
    partition->base = state->base;
    take->status = atomic_load_explicit(&state->status, memory_order_relaxed);
    if (state->capacity != options->ring_bytes || state->policy != options->policy ||
        state->durability != options->durability || state->producers != options->producers ||
        state->slot_count != slot_count_of(options) ||
        state->wait_mode != partition->topic->realm->bus.wait_mode ||
        partition->base % RECORD_UNIT || partition->salt % RECORD_UNIT ||
        (take->status != PARTITION_OPEN && take->status != PARTITION_QUARANTINED))
        return SHMQ_ECORRUPT;
    /* What alter changes, in case its supervisor died between the metadata and here. */
    atomic_store_explicit(&state->max_message, options->max_message, memory_order_relaxed);
    atomic_store_explicit(&state->partition_count, options->partitions, memory_order_release);
    return 0;
}

static int attach_all(struct partition *partition, struct error_buffer *why)
{
    struct state_take take = {.partition = partition};
    struct guard_range range;
    int rc;

    partition->salt = 0;
    rc =
        open_mapped(partition, SEGMENT_STATE, sizeof(struct state_segment), &partition->state, why);
    if (rc < 0)
        return rc;
    range = (struct guard_range){partition->state.address, partition->state.bytes};
    if (guard_run(&range, 1, take_state, &take, NULL) < 0)
        return error_set(why, SHMQ_ECORRUPT, "its state segment does not fit the metadata");
    rc = open_mapped(partition, SEGMENT_PRODUCERS,
                     segment_producers_bytes(slot_count_of(&partition->topic->options)),
                     &partition->producers, why);
    if (rc == 0)
        rc = open_mapped(partition, SEGMENT_WAIT, sizeof(struct wait_segment), &partition->wait,
                         why);
    /* Clients write these two: a version that is not S's is a scribble, and no other program's. */
    if (rc == SHMQ_EVERSION)
        rc = SHMQ_ECORRUPT;
    if (rc == 0)
        rc = check_data(partition, why);
    if (rc == 0 && take.status == PARTITION_QUARANTINED) {
        partition->quarantined = true;
        partition->topic->realm->quarantined++;
    }
    return rc;
}

int partition_attach(struct partition *partition, struct error_buffer *why)
{
    int rc = attach_all(partition, why);

    if (rc < 0 && rc != SHMQ_ECORRUPT && rc != SHMQ_ENOTOPIC) {
        /* Of another version, or the system refuses something today: nothing that is to be thrown
         * away for it. */
        partition_unmap(partition);
        return error_prefix(why, rc, "topic %s/%" PRIu32, partition->topic->options.name,
                            partition->index);
    }
    if (rc < 0) {
        /* Whoever still has the old memory must not go on in it. */
        if (partition->state.address && partition->wait.address)
            partition_close(partition, PARTITION_QUARANTINED);
        partition_unmap(partition);
        return 1;
    }
    partition->tail_seen = partition->base;
    partition->topic->realm->mapping_count += 3;
    return 0;
}

void partition_unmap(struct partition *partition)
{
    segment_unmap(&partition->state);
    segment_unmap(&partition->producers);
    segment_unmap(&partition->wait);
}

void partition_unlink(struct partition *partition)
{
    char name[SEGMENT_NAME_BYTES];

    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        name_segment(partition, KINDS[i], name);
        (void)segment_unlink(name);
    }
}

/* ---- guarded work ---------------------------------------------------------------------------- */

static int run_guarded(struct partition *partition, const struct segment *group, guard_fn *fn,
                       void *context)
{
    struct guard_range ranges[4] = {
        {partition->state.address, partition->state.bytes},
        {partition->producers.address, partition->producers.bytes},
        {partition->wait.address, partition->wait.bytes},
    };
    uint32_t count = 3;

    if (group)
        ranges[count++] = (struct guard_range){group->address, group->bytes};
    return guard_run(ranges, count, fn, context, NULL);
}

int partition_run(struct partition *partition, const struct segment *group, guard_fn *fn,
                  void *context)
{
    int rc;

    if (partition->quarantined)
        return SHMQ_ECORRUPT;
    rc = run_guarded(partition, group, fn, context);
    if (rc == SHMQ_ECORRUPT)
        partition_quarantine(partition, "a segment was truncated or contradicts itself");
    return rc;
}

static int wake_words(void *context)
{
    wait_wake_everyone(context);
    return 0;
}

void partition_wake(struct partition *partition)
{
    if (run_guarded(partition, NULL, wake_words, partition_wait(partition)) < 0)
        partition_quarantine(partition, "a segment was truncated");
}

struct close_work {
    struct partition *partition;
    uint32_t status;
};

static int store_status(void *context)
{
    struct close_work *work = context;

    /* ORDER close -> notice: release: whoever sees CLOSED or is woken finds the reason here. */
    atomic_store_explicit(&partition_state(work->partition)->status, work->status,
                          memory_order_release);
    return 0;
}

static int raise_closed(void *context)
{
    struct close_work *work = context;
    struct wait_segment *wait = partition_wait(work->partition);

    (void)atomic_fetch_or_explicit(&wait->attention, ATTENTION_CLOSED, memory_order_seq_cst);
    wait_wake_everyone(wait);
    return 0;
}

void partition_close(struct partition *partition, enum partition_status status)
{
    struct close_work work = {.partition = partition, .status = (uint32_t)status};

    /* Two guarded calls: where S is cut, W is still told, and the other way round. */
    (void)run_guarded(partition, NULL, store_status, &work);
    FAULT("partition.close.status");
    (void)run_guarded(partition, NULL, raise_closed, &work);
}

void partition_quarantine(struct partition *partition, const char *format, ...)
{
    char label[NAME_BYTES + 32];
    char reason[256];
    va_list arguments;

    if (partition->quarantined)
        return;
    partition->quarantined = true;
    partition->topic->realm->quarantined++;
    va_start(arguments, format);
    (void)vsnprintf(reason, sizeof(reason), format, arguments);
    va_end(arguments);
    flush_suspend(partition->log);
    log_error("%s: quarantined: %s; its members get an error, all else goes on; run `shmq doctor`",
              partition_label(partition, label), reason);
    partition_close(partition, PARTITION_QUARANTINED);
    clients_wake_active(partition->topic->realm);
}

/* ---- sanity ---------------------------------------------------------------------------------- */

struct tail_look {
    const struct partition *partition;
    uint64_t capacity;
    uint32_t slot_count;
    uint64_t tail;
    const char *reason;
};

/* A slot as read between two equal reads of `at`; one that moves is being used by the living. */
static bool slot_is_sane(const struct producer_slot *slot, uint64_t capacity,
                         const _Atomic uint64_t *tail_word)
{
    uint64_t at = atomic_load_explicit(&slot->at, memory_order_acquire);
    uint64_t end = atomic_load_explicit(&slot->end, memory_order_acquire);
    uint64_t again = atomic_load_explicit(&slot->at, memory_order_acquire);
    uint64_t start = at & ~SLOT_BITS;
    uint64_t tail;

    if (at == 0 || at != again)
        return true;
    /* Behind the slot: a claim is made at the tail of its moment, and tail only grows. */
    tail = atomic_load_explicit(tail_word, memory_order_acquire);
    return (at & SLOT_BITS & ~(SLOT_CLAIMING | SLOT_OWNER)) == 0 && (at & SLOT_CLAIMING) &&
           start <= tail && end > start && end - start <= capacity >> RING_CLAIM_SHIFT &&
           end % RECORD_UNIT == 0;
}

static int look_at_tail(void *context)
{
    struct tail_look *look = context;
    const struct producers_segment *producers = look->partition->producers.address;
    uint64_t head = atomic_load_explicit(&producers->head, memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&producers->tail, memory_order_acquire);

    look->tail = tail;
    if (tail % RECORD_UNIT || tail < look->partition->tail_seen)
        look->reason = "its tail is not one";
    else if (head % RECORD_UNIT || head > tail || head < look->partition->base)
        look->reason = "its head is not one";
    for (uint32_t i = 0; i < look->slot_count && !look->reason; i++) {
        if (!slot_is_sane(&producers->slots[i], look->capacity, &producers->tail))
            look->reason = "a producer slot claims what cannot be";
    }
    return look->reason ? SHMQ_ECORRUPT : 0;
}

int partition_read_tail(struct partition *partition, uint64_t *ret_tail)
{
    struct tail_look look = {
        .partition = partition,
        .capacity = partition->topic->options.ring_bytes,
        .slot_count = slot_count_of(&partition->topic->options),
    };
    int rc;

    if (partition->quarantined)
        return SHMQ_ECORRUPT;
    rc = run_guarded(partition, NULL, look_at_tail, &look);
    if (rc < 0) {
        partition_quarantine(partition, "%s",
                             look.reason ? look.reason : "a segment was truncated");
        return SHMQ_ECORRUPT;
    }
    partition->tail_seen = look.tail;
    *ret_tail = look.tail;
    return 0;
}
