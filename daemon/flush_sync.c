/* SPDX-License-Identifier: Apache-2.0 */
/* flush_sync.c: from the page cache to the disk, and saying so; see flush.h. The syncer's thread, and the writer's for a batch
 * that comes alone. */
#include "daemon/flush_internal.h"

#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <inttypes.h>

/* ---- raising `durable` ----------------------------------------------------------------------- */

struct raise_work {
    struct flush_log *log;
    uint64_t durable;
    uint64_t messages;
};

static int raise_durable(void *context)
{
    const struct raise_work *work = context;
    struct flush_log *log = work->log;

    /* Relaxed: a statistic. */
    atomic_store_explicit(&log->state->journal_messages, work->messages, memory_order_relaxed);
    /* ORDER durable -> confirm: release: the write and the sync before it; pairs with the acquire loads of who confirms,
     * of who reads only what is durable, and of producers that compute their room. */
    atomic_store_explicit(&log->state->durable, work->durable, memory_order_release);
    (void)wait_wake(log->wait, ATTENTION_ROOM | ATTENTION_DURABLE, log->fence_mode);
    return 0;
}

void flush_raise(struct flush_log *log, uint64_t durable, uint64_t messages)
{
    struct raise_work work = {.log = log, .durable = durable, .messages = messages};

    atomic_store_explicit(&log->durable, durable, memory_order_relaxed);
    FAULT("flush.raise");
    if (!flush_is_out(log) && flush_guard(log, raise_durable, &work) < 0)
        flush_set_corrupt(log, "a segment was truncated");
}

/* ---- syncing --------------------------------------------------------------------------------- */

void flush_break_locked(struct flush_log *log, int code, const struct error_buffer *why)
{
    if (log->broken != 0)
        return;
    log->broken = code;
    log->broken_why = *why;
}

void flush_break(struct flush_log *log, int code, const struct error_buffer *why)
{
    (void)pthread_mutex_lock(&log->shard->lock);
    flush_break_locked(log, code, why);
    (void)pthread_mutex_unlock(&log->shard->lock);
}

void flush_settle_locked(struct flush_log *log)
{
    while (log->syncing)
        (void)pthread_cond_wait(&log->shard->settled, &log->shard->lock);
}

void flush_sync_locked(struct flush_log *log)
{
    struct flush_shard *shard = log->shard;
    uint64_t target = log->written;
    uint64_t messages = log->written_messages;
    int fd = log->journal.fd; /* stays open: who begins another file settles first */
    int error;

    log->sync_due_ns = 0;
    log->syncing = true;
    (void)pthread_mutex_unlock(&shard->lock);
    error = io_sync(fd);
    FAULT("flush.synced");
    if (error == 0 && target > flush_durable(log))
        flush_raise(log, target, messages);
    (void)pthread_mutex_lock(&shard->lock);
    log->syncing = false;
    if (error == 0) {
        log->durable_messages = messages;
        (void)atomic_fetch_add_explicit(&log->syncs, 1, memory_order_relaxed);
    } else {
        struct error_buffer why;
        int code = error_set_errno(&why, error, "journal %.200s: syncing at offset %" PRIu64,
                                   log->journal.place.dir, target);

        flush_break_locked(log, code, &why);
        flush_wake_writer(shard);
    }
    if (log->leaving)
        flush_wake_writer(shard);
    (void)pthread_cond_broadcast(&shard->settled);
}

bool flush_wants_sync(const struct flush_log *log)
{
    return log->durability != DURABLE_OS && log->broken == 0 && !log->syncing &&
           log->sync_due_ns == 0 && log->written > flush_durable(log);
}

void flush_schedule_locked(struct flush_log *log, uint64_t now_ns)
{
    struct flush_shard *shard = log->shard;
    uint64_t interval_ns = atomic_load_explicit(&log->sync_interval_ns, memory_order_relaxed);
    /* Producers must not wait for a timer because what is not safe fills the ring. */
    bool pressing = log->written - flush_durable(log) >= log->capacity / 2;

    log->sync_due_ns =
        log->durability == DURABLE_INTERVAL && !pressing ? now_ns + interval_ns : now_ns;
    (void)pthread_cond_signal(&shard->sync_wanted);
}

void flush_hurry_locked(struct flush_log *log, uint64_t due_ns)
{
    if (log->sync_due_ns > due_ns) {
        log->sync_due_ns = due_ns;
        (void)pthread_cond_signal(&log->shard->sync_wanted);
    }
}

void flush_press_locked(struct flush_log *log, uint64_t now_ns)
{
    if (log->written - flush_durable(log) >= log->capacity / 2)
        flush_hurry_locked(log, now_ns);
}

/* ---- the syncer ------------------------------------------------------------------------------ */

static struct flush_log *find_due(struct flush_shard *shard)
{
    struct flush_log *due = NULL;

    for (uint32_t i = 0; i < shard->count; i++) {
        struct flush_log *log = shard->logs[i];

        if (log->sync_due_ns != 0 && !log->syncing && log->broken == 0 &&
            (!due || log->sync_due_ns < due->sync_due_ns))
            due = log;
    }
    return due;
}

void *flush_syncer_main(void *context)
{
    struct flush_shard *shard = context;

    (void)pthread_setname_np(pthread_self(), "shmqd-sync");
    (void)pthread_mutex_lock(&shard->lock);
    while (!flush_is_stopping(shard->flusher)) {
        struct flush_log *log = find_due(shard);
        uint64_t now_ns = clock_monotonic_ns();

        if (!log) {
            (void)pthread_cond_wait(&shard->sync_wanted, &shard->lock);
        } else if (log->sync_due_ns > now_ns) {
            struct timespec until = timespec_from_ns(log->sync_due_ns);

            (void)pthread_cond_timedwait(&shard->sync_wanted, &shard->lock, &until);
        } else {
            flush_sync_locked(log);
            /* What was written meanwhile makes the next batch. */
            if (flush_wants_sync(log))
                flush_schedule_locked(log, clock_monotonic_ns());
        }
    }
    (void)pthread_mutex_unlock(&shard->lock);
    return NULL;
}
