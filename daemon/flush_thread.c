/* SPDX-License-Identifier: Apache-2.0 */
/* flush_thread.c: the writer's thread: passes over its logs, rests, ends; see flush.h. */
#include "daemon/flush_internal.h"

#include "daemon/log.h"
#include "libshmq/clock.h"

#include <inttypes.h>

/* After work: looks for more at once, then by the clock, then sleeps until somebody publishes. */
#define SPIN_NS   (10 * NS_PER_US)
#define NAP_NS    NS_PER_MS
#define ACTIVE_NS (100 * NS_PER_MS)
/* A batch of less, alone, is synced by the writer: what hands it over costs more than what is gained by it. */
#define INLINE_BYTES ((size_t)32 * 1024)
#define DRAIN_NS     (10 * NS_PER_S)

/* ---- who is looked after --------------------------------------------------------------------- */

/* One that others are busy with is taken when they have done (they wake the writer), so that the shard's other logs do not
 * wait; at the end it is waited for. */
static struct flush_log *take_leaver(struct flush_shard *shard, bool last)
{
    for (uint32_t i = 0; i < shard->count; i++) {
        struct flush_log *log = shard->logs[i];

        if (!log->leaving)
            continue;
        while (last && (log->syncing || log->preparing))
            (void)pthread_cond_wait(&shard->settled, &shard->lock);
        if (log->syncing || log->preparing)
            continue;
        /* Others may have been added while it was waited for; the place is the same. */
        shard->logs[i] = shard->logs[--shard->count];
        return log;
    }
    return NULL;
}

static void list_logs(struct flush_shard *shard, bool last)
{
    struct flush_log *leaver;

    (void)pthread_mutex_lock(&shard->lock);
    while ((leaver = take_leaver(shard, last))) {
        (void)pthread_mutex_unlock(&shard->lock);
        flush_free(leaver);
        /* Release: its files are closed; pairs with the acquire of who unlinks them. */
        (void)atomic_fetch_sub_explicit(&shard->flusher->leaving, 1, memory_order_release);
        flush_want_work(shard->flusher);
        (void)pthread_mutex_lock(&shard->lock);
    }
    shard->passing_count = shard->count;
    for (uint32_t i = 0; i < shard->count; i++)
        shard->passing[i] = shard->logs[i];
    (void)pthread_mutex_unlock(&shard->lock);
}

/* ---- a pass ---------------------------------------------------------------------------------- */

static size_t pass(struct flush_shard *shard)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < shard->passing_count; i++)
        bytes += flush_write(shard->passing[i]);
    return bytes;
}

/* Logs of policy `always` that have something to sync. */
static uint32_t count_urgent(struct flush_shard *shard)
{
    uint32_t urgent = 0;

    for (uint32_t i = 0; i < shard->passing_count; i++)
        urgent +=
            shard->passing[i]->durability == DURABLE_ALWAYS && flush_wants_sync(shard->passing[i]);
    return urgent;
}

/* Sees to it that what was written is synced as the policies say. `bytes`: of the last pass. */
static void sync_or_schedule(struct flush_shard *shard, size_t bytes)
{
    uint64_t now_ns = clock_monotonic_ns();
    bool alone;

    (void)pthread_mutex_lock(&shard->lock);
    alone = bytes < INLINE_BYTES && count_urgent(shard) == 1;
    for (uint32_t i = 0; i < shard->passing_count; i++) {
        struct flush_log *log = shard->passing[i];

        if (!flush_wants_sync(log))
            flush_press_locked(log, now_ns);
        else if ((alone && log->durability == DURABLE_ALWAYS) ||
                 flush_start_syncer_locked(shard) != 0)
            flush_sync_locked(log);
        else
            flush_schedule_locked(log, now_ns);
    }
    (void)pthread_mutex_unlock(&shard->lock);
}

/* ---- resting --------------------------------------------------------------------------------- */

struct bell_work {
    struct flush_log *log;
    bool asleep; /* for longer: publishers ring as well */
    struct wait_word word;
};

static int hang_bell(void *context)
{
    struct bell_work *work = context;
    struct wait_segment *wait = work->log->wait;
    uint32_t bits = ATTENTION_NAP;

    /* Who sleeps until something is durable has rung before it was published. Relaxed: a late look costs a nap. */
    if (work->asleep ||
        (atomic_load_explicit(&wait->attention, memory_order_relaxed) & ATTENTION_DURABLE))
        bits |= ATTENTION_DOORBELL;
    work->word = wait_prepare(wait, bits);
    return 0;
}

static int take_bell_down(void *context)
{
    struct bell_work *work = context;
    struct wait_segment *wait = work->log->wait;
    const uint32_t bits = ATTENTION_NAP | ATTENTION_DOORBELL;

    /* Relaxed: one that is left hanging costs a needless ring. */
    if (atomic_load_explicit(&wait->attention, memory_order_relaxed) & bits)
        (void)atomic_fetch_and_explicit(&wait->attention, ~bits, memory_order_relaxed);
    return 0;
}

static uint32_t hang_bells(struct flush_shard *shard, bool asleep,
                           struct wait_word words[FLUSH_LOGS_MAX + 1])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < shard->passing_count; i++) {
        struct bell_work work = {.log = shard->passing[i], .asleep = asleep};

        if (flush_is_out(work.log))
            continue;
        if (flush_guard(work.log, hang_bell, &work) == 0)
            words[count++] = work.word;
        else
            flush_set_corrupt(work.log, "a segment was truncated");
    }
    return count;
}

static void take_bells_down(struct flush_shard *shard)
{
    for (uint32_t i = 0; i < shard->passing_count; i++) {
        struct bell_work work = {.log = shard->passing[i]};

        if (!flush_is_out(work.log))
            (void)flush_guard(work.log, take_bell_down, &work);
    }
}

static uint64_t next_retry_ns(const struct flush_shard *shard, uint64_t now_ns)
{
    uint64_t left_ns = NS_PER_S;

    for (uint32_t i = 0; i < shard->passing_count; i++) {
        uint64_t retry_ns = shard->passing[i]->retry_ns;

        if (retry_ns > now_ns)
            left_ns = min_u64(left_ns, retry_ns - now_ns);
    }
    return left_ns;
}

/* Until something may be there. Returns what the last look found. */
static size_t sleep_once(struct flush_shard *shard, uint32_t event, bool asleep)
{
    struct wait_word words[FLUSH_LOGS_MAX + 1];
    uint32_t count = hang_bells(shard, asleep, words);
    uint64_t now_ns = clock_monotonic_ns();
    size_t bytes;

    words[count++] = (struct wait_word){&shard->event, event};
    wait_barrier(shard->passing_count > 0 && shard->passing[0]->fence_mode);
    bytes = pass(shard);
    if (bytes == 0)
        (void)wait_sleep(words, count, asleep ? next_retry_ns(shard, now_ns) : NAP_NS);
    take_bells_down(shard);
    return bytes;
}

static size_t rest(struct flush_shard *shard, uint32_t event, uint64_t active_ns)
{
    uint64_t now_ns = clock_monotonic_ns();
    size_t bytes = 0;

    while (now_ns - active_ns < SPIN_NS && bytes == 0) {
        for (int i = 0; i < 16; i++)
            cpu_relax();
        bytes = pass(shard);
        now_ns = clock_monotonic_ns();
    }
    return bytes > 0 ? bytes : sleep_once(shard, event, now_ns - active_ns >= ACTIVE_NS);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void sync_last(struct flush_log *log)
{
    struct flush_shard *shard = log->shard;

    (void)pthread_mutex_lock(&shard->lock);
    flush_settle_locked(log);
    if (log->journal.fd >= 0 && log->broken == 0 &&
        (log->durability == DURABLE_OS || log->written > flush_durable(log)))
        flush_sync_locked(log);
    for (uint32_t i = 0; i < log->unsynced_count; i++) {
        (void)io_sync(log->unsynced[i]);
        (void)close(log->unsynced[i]);
    }
    log->unsynced_count = 0;
    (void)pthread_mutex_unlock(&shard->lock);
    if (log->durability == DURABLE_OS)
        (void)io_sync_dir(log->journal.place.dir_fd);
}

static int note_end(void *context)
{
    struct flush_log *log = context;

    log->drain_to = atomic_load_explicit(&log->producers->tail, memory_order_acquire);
    return 0;
}

/* What was published until now: producers go on, and could keep us here for ever. */
static bool has_drained(const struct flush_shard *shard)
{
    for (uint32_t i = 0; i < shard->passing_count; i++) {
        const struct flush_log *log = shard->passing[i];

        if (!flush_is_out(log) && log->position < log->drain_to)
            return false;
    }
    return true;
}

static void drain(struct flush_shard *shard)
{
    uint64_t deadline_ns = clock_monotonic_ns() + DRAIN_NS;

    for (uint32_t i = 0; i < shard->passing_count; i++) {
        if (!flush_is_out(shard->passing[i]) &&
            flush_guard(shard->passing[i], note_end, shard->passing[i]) < 0)
            flush_set_corrupt(shard->passing[i], "a segment was truncated");
    }
    while (!has_drained(shard) && pass(shard) > 0 && !deadline_passed(deadline_ns))
        ;
    for (uint32_t i = 0; i < shard->passing_count; i++) {
        struct flush_log *log = shard->passing[i];

        if (flush_is_out(log))
            continue;
        if (!deadline_passed(deadline_ns)) /* what is not synced stands in the ring */
            sync_last(log);
        if (atomic_load_explicit(&log->error, memory_order_relaxed) != 0 || log->broken != 0 ||
            flush_durable(log) < log->position)
            log_warning("%s: what stands behind offset %" PRIu64
                        " is in memory only: its journal did not get on",
                        log->label, flush_durable(log));
    }
}

void *flush_writer_main(void *context)
{
    struct flush_shard *shard = context;
    uint64_t active_ns = clock_monotonic_ns();

    (void)pthread_setname_np(pthread_self(), "shmqd-flush");
    while (!flush_is_stopping(shard->flusher)) {
        /* ORDER flush-wake -> flush-look: acquire, and before the look at what it announces; pairs with
         * flush_wake_writer(). */
        uint32_t event = atomic_load_explicit(&shard->event, memory_order_acquire);
        size_t bytes;

        list_logs(shard, false);
        bytes = pass(shard);
        if (bytes == 0)
            bytes = rest(shard, event, active_ns);
        if (bytes > 0)
            active_ns = clock_monotonic_ns();
        sync_or_schedule(shard, bytes);
    }
    list_logs(shard, true);
    if (atomic_load_explicit(&shard->flusher->draining, memory_order_relaxed))
        drain(shard);
    return NULL;
}
