/* SPDX-License-Identifier: Apache-2.0 */
/* flush.c: the flusher's threads and logs come and go; see flush.h. In the control thread. */
#include "daemon/flush_internal.h"

#include "daemon/log.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/ring.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- what all threads use -------------------------------------------------------------------- */

int flush_guard(struct flush_log *log, guard_fn *fn, void *context)
{
    return guard_run(log->ranges, COUNT_OF(log->ranges), fn, context, NULL);
}

void flush_set_corrupt(struct flush_log *log, const char *reason)
{
    if (atomic_exchange_explicit(&log->corrupt, true, memory_order_release))
        return;
    log_error("%s: its journal stops: %s", log->label, reason);
    loop_wake(log->shard->flusher->loop);
}

void flush_wake_writer(struct flush_shard *shard)
{
    /* ORDER flush-wake -> flush-look: wait_wake_word() bumps it seq_cst, behind what it announces. */
    wait_wake_word(&shard->event);
}

/* All signals blocked: they belong to the control thread, or to the program around. */
static int start_thread(pthread_t *ret_thread, void *(*run)(void *), void *context)
{
    sigset_t all, before;
    int error;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    error = FAULT("flush.thread") ? EAGAIN : pthread_create(ret_thread, NULL, run, context);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int flush_start_syncer_locked(struct flush_shard *shard)
{
    int error;

    if (shard->syncer_runs)
        return 0;
    error = start_thread(&shard->syncer, flush_syncer_main, shard);
    shard->syncer_runs = error == 0;
    return error;
}

/* ---- shards ---------------------------------------------------------------------------------- */

static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;

    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

static void free_shard(struct flush_shard *shard)
{
    (void)pthread_cond_destroy(&shard->sync_wanted);
    (void)pthread_cond_destroy(&shard->settled);
    (void)pthread_mutex_destroy(&shard->lock);
    free(shard->buffer);
    free(shard);
}

static int new_shard(struct flusher *flusher, struct flush_shard **ret_shard,
                     struct error_buffer *why)
{
    struct flush_shard *shard = calloc(1, sizeof(*shard));
    int error;

    if (shard)
        shard->buffer = aligned_alloc(RECORD_UNIT, FLUSH_BUFFER_BYTES);
    if (!shard || !shard->buffer) {
        free(shard);
        return error_set(why, SHMQ_ENOMEM, "flusher: out of memory");
    }
    shard->flusher = flusher;
    shard->buffer_bytes = FLUSH_BUFFER_BYTES;
    (void)pthread_mutex_init(&shard->lock, NULL);
    init_cond(&shard->sync_wanted);
    init_cond(&shard->settled);
    error = start_thread(&shard->writer, flush_writer_main, shard);
    if (error) {
        free_shard(shard);
        return error_set_errno(why, error, "flusher: no thread");
    }
    (void)pthread_mutex_lock(&flusher->lock);
    shard->next = flusher->shards;
    flusher->shards = shard;
    (void)pthread_mutex_unlock(&flusher->lock);
    *ret_shard = shard;
    return 0;
}

static int find_shard(struct flusher *flusher, struct flush_shard **ret_shard,
                      struct error_buffer *why)
{
    for (struct flush_shard *shard = flusher->shards; shard; shard = shard->next) {
        bool room;

        (void)pthread_mutex_lock(&shard->lock);
        room = shard->count < FLUSH_LOGS_MAX;
        (void)pthread_mutex_unlock(&shard->lock);
        if (room) {
            *ret_shard = shard;
            return 0;
        }
    }
    return new_shard(flusher, ret_shard, why);
}

/* ---- the flusher ----------------------------------------------------------------------------- */

int flusher_new(struct loop *loop, struct flusher **ret_flusher, struct error_buffer *why)
{
    struct flusher *flusher = calloc(1, sizeof(*flusher));

    if (!flusher)
        return error_set(why, SHMQ_ENOMEM, "flusher: out of memory");
    flusher->loop = loop;
    (void)pthread_mutex_init(&flusher->lock, NULL);
    init_cond(&flusher->work);
    *ret_flusher = flusher;
    return 0;
}

static int start_preparer(struct flusher *flusher, struct error_buffer *why)
{
    int error;

    if (flusher->preparer_runs)
        return 0;
    error = start_thread(&flusher->preparer, flush_preparer_main, flusher);
    flusher->preparer_runs = error == 0;
    return error ? error_set_errno(why, error, "flusher: no thread") : 0;
}

void flusher_stop(struct flusher *flusher, bool drain)
{
    if (!flusher || flusher->stopped)
        return;
    atomic_store_explicit(&flusher->draining, drain, memory_order_relaxed);
    atomic_store_explicit(&flusher->stopping, true, memory_order_relaxed);
    for (struct flush_shard *shard = flusher->shards; shard; shard = shard->next) {
        (void)pthread_mutex_lock(&shard->lock);
        (void)pthread_cond_broadcast(&shard->sync_wanted);
        (void)pthread_mutex_unlock(&shard->lock);
        flush_wake_writer(shard);
    }
    for (struct flush_shard *shard = flusher->shards; shard; shard = shard->next) {
        (void)pthread_join(shard->writer, NULL);
        if (shard->syncer_runs)
            (void)pthread_join(shard->syncer, NULL);
    }
    flush_want_work(flusher);
    if (flusher->preparer_runs)
        (void)pthread_join(flusher->preparer, NULL);
    flusher->stopped = true;
}

void flusher_free(struct flusher *flusher)
{
    if (!flusher)
        return;
    while (flusher->shards) {
        struct flush_shard *shard = flusher->shards;

        flusher->shards = shard->next;
        free_shard(shard);
    }
    while (flusher->removals) { /* the next start finds them */
        struct flush_removal *removal = flusher->removals;

        flusher->removals = removal->next;
        free(removal);
    }
    (void)pthread_cond_destroy(&flusher->work);
    (void)pthread_mutex_destroy(&flusher->lock);
    free(flusher);
}

/* ---- logs ------------------------------------------------------------------------------------ */

static int map_one(const struct flush_start *start, enum segment_kind kind, bool writable,
                   struct segment *ret_segment, struct error_buffer *why)
{
    char name[SEGMENT_NAME_BYTES];
    int fd;
    int rc;

    (void)segment_name(name, start->prefix, kind, start->topic, start->partition, 0);
    rc = segment_open(name, writable, &fd, why);
    if (rc < 0)
        return rc;
    if (kind == SEGMENT_DATA)
        rc = segment_map_twice(fd, false, start->capacity, ret_segment, why);
    else
        rc = segment_map(fd, writable,
                         kind == SEGMENT_STATE  ? sizeof(struct state_segment)
                         : kind == SEGMENT_WAIT ? sizeof(struct wait_segment)
                                                : sizeof(struct producers_segment),
                         ret_segment, why);
    (void)close(fd);
    return rc;
}

/* Mappings of its own, so that nobody's coming and going in the control thread concerns the flusher. */
static int map_segments(struct flush_log *log, const struct flush_start *start,
                        struct error_buffer *why)
{
    static const enum segment_kind KINDS[4] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT,
                                               SEGMENT_DATA};
    static const bool WRITABLE[4] = {true, false, true, false};

    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        struct segment_identity identity = {
            .kind = KINDS[i],
            .topic = start->topic,
            .partition = start->partition,
            .salt = start->salt,
        };
        int rc = map_one(start, KINDS[i], WRITABLE[i], &log->segments[i], why);

        if (rc == 0 && KINDS[i] != SEGMENT_DATA)
            rc = guard_check_segment(&log->segments[i], &identity, why);
        if (rc < 0)
            return rc;
        log->ranges[i] = (struct guard_range){log->segments[i].address, log->segments[i].bytes};
    }
    log->state = log->segments[0].address;
    log->producers = log->segments[1].address;
    log->wait = log->segments[2].address;
    log->data = log->segments[3].address;
    return 0;
}

void flush_free(struct flush_log *log)
{
    for (uint32_t i = 0; i < log->unsynced_count; i++)
        (void)close(log->unsynced[i]);
    for (size_t i = 0; i < COUNT_OF(log->segments); i++)
        segment_unmap(&log->segments[i]);
    journal_close(&log->journal);
    free(log);
}

static void init_log(struct flush_log *log, const struct flush_start *start)
{
    log->capacity = start->capacity;
    log->salt = start->salt;
    log->length_max = ring_max_message(start->capacity);
    log->durability = start->durability;
    log->from = start->from;
    log->position = start->from;
    log->written = start->from;
    log->messages = start->messages;
    log->written_messages = start->messages;
    log->durable_messages = start->messages;
    log->max_timestamp_ns = start->max_timestamp_ns;
    log->previous_end = start->previous_end;
    atomic_store_explicit(&log->durable, start->from, memory_order_relaxed);
    (void)snprintf(log->label, sizeof(log->label), "%s", start->label);
    flush_set_options(log, &start->options);
}

/* Guarded. The words may still say what a predecessor knew, or nothing. */
static int begin_state(void *context)
{
    struct flush_log *log = context;

    log->fence_mode = log->state->wait_mode == WAIT_MODE_FENCE;
    /* Relaxed: statistics. */
    atomic_store_explicit(&log->state->journal_messages, log->messages, memory_order_relaxed);
    atomic_store_explicit(&log->state->journal_error, 0, memory_order_relaxed);
    return 0;
}

static int open_log(struct flush_log *log, const struct flush_start *start,
                    struct error_buffer *why)
{
    int rc = map_segments(log, start, why);

    if (rc < 0)
        return rc;
    init_log(log, start);
    rc = flush_guard(log, begin_state, log);
    return rc < 0 ? error_set(why, rc, "a segment was truncated") : 0;
}

int flush_add(struct flusher *flusher, const struct flush_start *start, struct journal *journal,
              struct flush_log **ret_log, struct error_buffer *why)
{
    struct flush_log *log = calloc(1, sizeof(*log));
    struct flush_shard *shard = NULL;
    int rc;

    if (!log) {
        journal_close(journal);
        return error_set(why, SHMQ_ENOMEM, "%s: out of memory for its journal", start->label);
    }
    log->journal = *journal;
    (void)pthread_mutex_init(&log->journal.lock, NULL);
    rc = open_log(log, start, why);
    if (rc == 0)
        rc = start_preparer(flusher, why);
    if (rc == 0)
        rc = find_shard(flusher, &shard, why);
    if (rc < 0) {
        flush_free(log);
        return error_prefix(why, rc, "%s", start->label);
    }
    log->shard = shard;
    (void)pthread_mutex_lock(&shard->lock);
    shard->logs[shard->count++] = log;
    (void)pthread_mutex_unlock(&shard->lock);
    flush_wake_writer(shard);
    *ret_log = log;
    return 0;
}

/* The threads are gone: nobody else takes it out. */
static void remove_here(struct flush_log *log)
{
    struct flush_shard *shard = log->shard;

    for (uint32_t i = 0; i < shard->count; i++) {
        if (shard->logs[i] == log)
            shard->logs[i] = shard->logs[--shard->count];
    }
    flush_free(log);
}

void flush_remove(struct flush_log *log)
{
    struct flush_shard *shard = log ? log->shard : NULL;

    if (!log)
        return;
    if (shard->flusher->stopped) {
        remove_here(log);
        return;
    }
    flush_suspend(log);
    (void)atomic_fetch_add_explicit(&shard->flusher->leaving, 1, memory_order_relaxed);
    (void)pthread_mutex_lock(&shard->lock);
    log->leaving = true;
    (void)pthread_mutex_unlock(&shard->lock);
    flush_wake_writer(shard);
}

void flush_set_options(struct flush_log *log, const struct flush_options *options)
{
    atomic_store_explicit(&log->sync_interval_ns, options->sync_interval_ns, memory_order_relaxed);
    atomic_store_explicit(&log->retain_bytes, options->retain_bytes, memory_order_relaxed);
    atomic_store_explicit(&log->retain_ns, options->retain_ns, memory_order_relaxed);
    atomic_store_explicit(&log->first, options->first, memory_order_relaxed);
    if (!log->shard)
        return;
    (void)pthread_mutex_lock(&log->shard->lock);
    log->wants_retention = true;
    flush_hurry_locked(log, clock_monotonic_ns() + options->sync_interval_ns);
    (void)pthread_mutex_unlock(&log->shard->lock);
    flush_want_work(log->shard->flusher);
}

void flush_suspend(struct flush_log *log)
{
    if (log)
        atomic_store_explicit(&log->suspended, true, memory_order_relaxed);
}

void flush_describe(const struct flush_log *log, struct flush_status *ret_status)
{
    ret_status->durable = flush_durable(log);
    ret_status->syncs = atomic_load_explicit(&log->syncs, memory_order_relaxed);
    ret_status->damaged = atomic_load_explicit(&log->damaged, memory_order_relaxed);
    ret_status->error = atomic_load_explicit(&log->error, memory_order_relaxed);
}

struct journal *flush_journal(struct flush_log *log)
{
    return &log->journal;
}

bool flush_take_corrupt(struct flush_log *log)
{
    return !atomic_load_explicit(&log->suspended, memory_order_relaxed) &&
           atomic_load_explicit(&log->corrupt, memory_order_acquire);
}
