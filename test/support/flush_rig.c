/* SPDX-License-Identifier: Apache-2.0 */
/* flush_rig.c: partitions and a flusher; see flush_rig.h. Io is watched in flush_rig_watch.c,
 * files are read in flush_rig_check.c. */
#include "test/support/flush_rig.h"

#include "daemon/guard.h"
#include "libshmq/clock.h"
#include "libshmq/journal_read.h"
#include "libshmq/record.h"
#include "libshmq/segment.h"
#include "libshmq/topic_options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 8u

static const enum segment_kind KINDS[4] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT,
                                           SEGMENT_DATA};

/* ---- the flusher ----------------------------------------------------------------------------- */

void rig_init(struct rig *rig)
{
    struct error_buffer why;

    memset(rig, 0, sizeof(*rig));
    (void)pthread_mutex_init(&rig->lock, NULL);
    (void)pthread_cond_init(&rig->changed, NULL);
    (void)snprintf(rig->prefix, sizeof(rig->prefix), "shmq.%s.0123", test_bus_name());
    REQUIRE_OK(guard_install());
    REQUIRE_OK(loop_init(&rig->loop, &why));
    REQUIRE_OK(flusher_new(&rig->loop, &rig->flusher, &why));
    io_watch(rig_watch, rig);
}

void rig_stop(struct rig *rig, bool drain)
{
    struct error_buffer why;

    flusher_stop(rig->flusher, drain);
    for (uint32_t i = 0; i < rig->count; i++)
        rig_remove(rig->logs[i]);
    flusher_free(rig->flusher);
    REQUIRE_OK(flusher_new(&rig->loop, &rig->flusher, &why));
}

static void unlink_segments(const struct rig_log *log)
{
    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        char name[SEGMENT_NAME_BYTES];

        (void)segment_name(name, log->rig->prefix, KINDS[i], log->index + 1, 0, 0);
        (void)segment_unlink(name);
    }
}

void rig_deinit(struct rig *rig)
{
    rig_release(rig);
    rig_stop(rig, false);
    flusher_free(rig->flusher);
    io_watch(NULL, NULL);
    for (uint32_t i = 0; i < rig->count; i++) {
        unlink_segments(rig->logs[i]);
        ring_deinit(&rig->logs[i]->ring);
        free(rig->logs[i]->entries);
        free(rig->logs[i]);
    }
    loop_deinit(&rig->loop);
    guard_uninstall();
}

/* ---- logs ------------------------------------------------------------------------------------ */

static bool nobody_is_dead(void *context, uint64_t client)
{
    (void)context, (void)client;
    return false;
}

static const struct ring_ops OPS = {.client_is_dead = nobody_is_dead};

static void fill_segments(struct rig_log *log, struct segment segments[4])
{
    struct state_segment *state = segments[0].address;
    struct producers_segment *producers = segments[1].address;
    const struct rig_options *options = &log->options;

    state->capacity = options->capacity;
    state->base = options->base;
    state->policy = OVERFLOW_BLOCK;
    state->producers = PRODUCERS_MULTI;
    state->durability = (uint32_t)options->durability;
    state->slot_count = SLOTS;
    state->wait_mode = (uint32_t)options->wait_mode;
    strcpy(state->name, "rig");
    atomic_store(&state->durable, options->base);
    atomic_store(&state->first, options->base);
    atomic_store(&state->max_message, ring_max_message(options->capacity));
    atomic_store(&producers->tail, options->base);
    atomic_store(&producers->head, options->base);
}

static void make_segments(struct rig_log *log)
{
    uint64_t bytes[4] = {sizeof(struct state_segment), segment_producers_bytes(SLOTS),
                         sizeof(struct wait_segment), log->options.capacity};
    struct segment segments[4];
    struct error_buffer why;

    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        char name[SEGMENT_NAME_BYTES];
        int fd;

        REQUIRE_OK(segment_name(name, log->rig->prefix, KINDS[i], log->index + 1, 0, 0));
        REQUIRE_OK(segment_create(name, bytes[i], &fd, &why));
        if (KINDS[i] == SEGMENT_DATA)
            REQUIRE_OK(segment_map_twice(fd, true, bytes[i], &segments[i], &why));
        else
            REQUIRE_OK(segment_map(fd, true, bytes[i], &segments[i], &why));
        (void)close(fd);
    }
    fill_segments(log, segments);
    for (size_t i = 0; i < 3; i++) {
        struct segment_identity identity = {
            .kind = KINDS[i], .topic = log->index + 1, .salt = log->salt};

        segment_init_header(segments[i].address, &identity, bytes[i]);
    }
    REQUIRE_OK(ring_init(&log->ring, segments, -1, &OPS, NULL, &why));
    ring_producer_init(&log->producer, &log->ring, 0);
    ring_producer_init(&log->claimer, &log->ring, 1);
}

struct rig_log *rig_make(struct rig *rig, const struct rig_options *options)
{
    struct rig_log *log = calloc(1, sizeof(*log));

    REQUIRE(log && rig->count < RIG_LOGS_MAX);
    log->rig = rig;
    log->options = *options;
    log->options.capacity = options->capacity ? options->capacity : RING_MIN_BYTES;
    if (!options->previous_end)
        log->options.previous_end = options->base;
    if (options->wait_mode == 0)
        log->options.wait_mode = wait_register_process() ? WAIT_MODE_MEMBARRIER : WAIT_MODE_FENCE;
    log->index = rig->count;
    log->salt = UINT64_C(0x5bd1e995c0ff0000) + log->index * RECORD_UNIT;
    (void)snprintf(log->topic_dir, sizeof(log->topic_dir), "%s/t%u", test_tmpdir(), log->index);
    (void)snprintf(log->dir, sizeof(log->dir), "%s/0", log->topic_dir);
    make_segments(log);
    (void)pthread_mutex_lock(&rig->lock); /* other logs' threads look for theirs */
    rig->logs[rig->count++] = log;
    (void)pthread_mutex_unlock(&rig->lock);
    return log;
}

static uint64_t count_messages(const struct rig_log *log, uint64_t below)
{
    uint64_t messages = 0;

    (void)pthread_mutex_lock(&log->rig->lock);
    for (size_t i = 0; i < log->entry_count && log->entries[i].offset < below; i++)
        messages += log->entries[i].what == RIG_GOOD || log->entries[i].what == RIG_BIG_FUTURE;
    (void)pthread_mutex_unlock(&log->rig->lock);
    return messages;
}

int rig_flush(struct rig_log *log)
{
    uint64_t durable = rig_durable(log);
    struct flush_start start = {
        .prefix = log->rig->prefix,
        .label = log->dir,
        .topic = log->index + 1,
        .durability = (uint32_t)log->options.durability,
        .salt = log->salt,
        .capacity = log->options.capacity,
        .from = durable,
        .previous_end = durable == log->options.base ? log->options.previous_end : durable,
        .messages = count_messages(log, durable),
        .options = {.sync_interval_ns = log->options.sync_interval_ns,
                    .retain_bytes = log->options.retain_bytes},
    };
    struct rig_fault fault;
    struct journal journal;
    struct error_buffer why;

    /* Opening is somebody else's test. */
    (void)pthread_mutex_lock(&log->rig->lock);
    fault = log->fault;
    log->fault.nth = 0;
    (void)pthread_mutex_unlock(&log->rig->lock);
    REQUIRE_OK(journal_open(&journal, log->dir, log->index + 1, 0, &why));
    if (log->options.file_first)
        journal.file_first = log->options.file_first;
    if (log->options.file_most)
        journal.file_most = log->options.file_most;
    rig_fail(log, fault.kind, fault.nth, fault.error, fault.repeated);
    return flush_add(log->rig->flusher, &start, &journal, &log->log, &why);
}

struct rig_log *rig_add(struct rig *rig, const struct rig_options *options)
{
    struct rig_log *log = rig_make(rig, options);

    REQUIRE_OK(rig_flush(log));
    return log;
}

void rig_remove(struct rig_log *log)
{
    flush_remove(log->log);
    log->log = NULL;
}

bool rig_wait_gone(struct rig *rig)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(RIG_WAIT_MS) * NS_PER_MS;

    while (atomic_load(&rig->flusher->leaving) > 0) {
        if (test_now_ns() > deadline_ns)
            return false;
        test_sleep_ms(1);
    }
    return true;
}

void rig_cut(struct rig_log *log, enum segment_kind kind)
{
    char name[SEGMENT_NAME_BYTES];
    struct error_buffer why;
    int fd;

    (void)pthread_mutex_lock(&log->rig->lock);
    log->cut = true;
    (void)pthread_mutex_unlock(&log->rig->lock);
    REQUIRE_OK(segment_name(name, log->rig->prefix, kind, log->index + 1, 0, 0));
    REQUIRE_OK(segment_open(name, true, &fd, &why));
    REQUIRE(ftruncate(fd, 0) == 0);
    (void)close(fd);
}

/* ---- publishing ------------------------------------------------------------------------------ */

static void note_entry(struct rig_log *log, uint64_t offset, uint32_t length, enum rig_what what)
{
    (void)pthread_mutex_lock(&log->rig->lock);
    if (log->entry_count == log->entry_room) {
        log->entry_room = log->entry_room ? 2 * log->entry_room : 64;
        log->entries = realloc(log->entries, log->entry_room * sizeof(log->entries[0]));
        REQUIRE(log->entries != NULL);
    }
    log->entries[log->entry_count] = (struct rig_entry){
        .offset = offset, .length = length, .number = (uint32_t)log->entry_count, .what = what};
    log->entry_count++;
    (void)pthread_mutex_unlock(&log->rig->lock);
}

static void finish(struct rig_log *log, uint64_t offset, uint32_t length, enum rig_what what)
{
    struct ring_producer *producer = &log->producer;
    struct message_tag tag = {.producer = log->index, .number = (uint32_t)log->entry_count};
    struct record *record =
        ring_begin_record(producer, offset, length, what == RIG_BIG_FUTURE ? UINT64_MAX : 1000, 0,
                          0, RECORD_TYPE_DATA);

    message_fill(record->payload, length, tag);
    note_entry(log, offset,
               what == RIG_ABORTED ? (uint32_t)(record_size(length) - RECORD_HEADER) : length,
               what);
    if (what == RIG_ABORTED) {
        ring_abort(producer, offset);
    } else if (what == RIG_BAD_CRC || what == RIG_BAD_KEY) {
        if (what == RIG_BAD_KEY)
            record->key_length = (uint16_t)(length + 1);
        ring_seal_record(record);
        record->crc32c ^= what == RIG_BAD_CRC;
        ring_stamp(producer, offset, RECORD_COMMITTED);
        ring_release_claim(producer->slot, 1);
        producer->claimed = 0;
    } else {
        ring_commit(producer, offset, record_size(length));
    }
}

static int claim(struct ring_producer *producer, uint64_t size, uint64_t *ret_offset)
{
    int rc = ring_claim(producer, size, ret_offset);

    if (rc == RING_NO_ROOM) {
        rc = ring_refresh_limit(producer, size, UINT64_MAX);
        if (rc == RING_OK)
            rc = ring_claim(producer, size, ret_offset);
    }
    return rc;
}

int rig_publish_quietly(struct rig_log *log, uint32_t length)
{
    uint64_t offset;
    int rc = claim(&log->producer, record_size(length), &offset);

    if (rc == RING_OK)
        finish(log, offset, length, RIG_GOOD);
    return rc;
}

uint64_t rig_claim(struct rig_log *log, uint32_t length)
{
    struct message_tag tag = {.producer = log->index, .number = (uint32_t)log->entry_count};
    uint64_t offset;
    struct record *record;

    REQUIRE(claim(&log->claimer, record_size(length), &offset) == RING_OK);
    record = ring_begin_record(&log->claimer, offset, length, 1000, 0, 0, RECORD_TYPE_DATA);
    message_fill(record->payload, length, tag);
    note_entry(log, offset, length, RIG_GOOD);
    return offset;
}

void rig_commit_claim(struct rig_log *log)
{
    uint64_t offset = atomic_load(&log->claimer.slot->at) & ~SLOT_BITS;

    ring_commit(&log->claimer, offset, log->claimer.claimed);
    (void)wait_wake(log->ring.wait, ATTENTION_DATA | ATTENTION_DOORBELL, log->ring.fence_mode);
}

int rig_publish_as(struct rig_log *log, uint32_t length, enum rig_what what)
{
    uint64_t offset;
    int rc = claim(&log->producer, record_size(length), &offset);

    if (rc != RING_OK)
        return rc;
    finish(log, offset, length, what);
    (void)wait_wake(log->ring.wait, ATTENTION_DATA | ATTENTION_DOORBELL, log->ring.fence_mode);
    return RING_OK;
}

void rig_publish(struct rig_log *log, uint32_t count, uint32_t length)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(RIG_WAIT_MS) * NS_PER_MS;
    struct timespec step = {.tv_nsec = 100000};

    for (uint32_t i = 0; i < count;) {
        if (rig_publish_as(log, length, RIG_GOOD) == RING_OK) {
            i++;
            continue;
        }
        REQUIRE(test_now_ns() < deadline_ns);
        (void)wait_wake(log->ring.wait, ATTENTION_NAP, log->ring.fence_mode);
        (void)nanosleep(&step, NULL);
    }
}

/* ---- looking --------------------------------------------------------------------------------- */

struct state_segment *rig_state(const struct rig_log *log)
{
    return log->ring.segments[0].address;
}

struct producers_segment *rig_producers(const struct rig_log *log)
{
    return log->ring.segments[1].address;
}

uint64_t rig_durable(const struct rig_log *log)
{
    return atomic_load_explicit(&rig_state(log)->durable, memory_order_acquire);
}

uint64_t rig_tail(const struct rig_log *log)
{
    return ring_tail(&log->ring);
}

uint32_t rig_attention(const struct rig_log *log)
{
    return atomic_load(&log->ring.wait->attention);
}

struct flush_status rig_status(const struct rig_log *log)
{
    struct flush_status status;

    flush_describe(log->log, &status);
    return status;
}

struct wish {
    struct rig_log *log;
    uint64_t value;
    uint32_t of;
};

static bool wait_for(bool (*condition)(void *), struct wish wish)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(RIG_WAIT_MS) * NS_PER_MS;
    struct timespec step = {.tv_nsec = 100000};

    while (!condition(&wish)) {
        if (test_now_ns() > deadline_ns)
            return false;
        (void)nanosleep(&step, NULL);
    }
    return true;
}

static bool is_durable(void *context)
{
    const struct wish *wish = context;

    return rig_durable(wish->log) >= wish->value;
}

static bool has_attention(void *context)
{
    const struct wish *wish = context;

    return (rig_attention(wish->log) & wish->of) == wish->value;
}

static bool has_error(void *context)
{
    const struct wish *wish = context;

    return (uint64_t)rig_status(wish->log).error == wish->value;
}

bool rig_wait_durable(struct rig_log *log, uint64_t offset)
{
    return wait_for(is_durable, (struct wish){.log = log, .value = offset});
}

bool rig_wait_all(struct rig_log *log)
{
    return rig_wait_durable(log, rig_tail(log));
}

bool rig_wait_attention(struct rig_log *log, uint32_t bits, uint32_t of)
{
    return wait_for(has_attention, (struct wish){.log = log, .value = bits, .of = of});
}

bool rig_wait_error(struct rig_log *log, int error)
{
    return wait_for(has_error, (struct wish){.log = log, .value = (uint64_t)error});
}

static void note_wake(void *context)
{
    ((struct rig *)context)->woken = true;
}

bool rig_wait_corrupt(struct rig_log *log)
{
    struct rig *rig = log->rig;

    rig->woken = false;
    loop_on_wake(&rig->loop, note_wake, rig);
    (void)loop_run_once(&rig->loop, test_scaled_ms(RIG_WAIT_MS), NULL);
    return rig->woken && flush_take_corrupt(log->log);
}
