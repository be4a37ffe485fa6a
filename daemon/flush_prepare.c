/* SPDX-License-Identifier: Apache-2.0 */
/* flush_prepare.c: what the writers need not wait for: files ahead of use, the disk behind policy os, retention, removal;
 * see flush.h. One thread a flusher. */
#include "daemon/flush_internal.h"

#include "daemon/log.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* How often age is looked at, where it bounds a journal. */
#define RETAIN_EVERY_NS (10 * NS_PER_S)

void flush_want_work(struct flusher *flusher)
{
    (void)pthread_mutex_lock(&flusher->lock);
    flusher->work_waits = true;
    (void)pthread_cond_signal(&flusher->work);
    (void)pthread_mutex_unlock(&flusher->lock);
}

void flusher_remove_directory(struct flusher *flusher, const char *dir)
{
    size_t length = strlen(dir) + 1;
    struct flush_removal *removal = malloc(sizeof(*removal) + length);

    if (!removal)
        return; /* the next start finds it */
    memcpy(removal->dir, dir, length);
    (void)pthread_mutex_lock(&flusher->lock);
    removal->next = flusher->removals;
    flusher->removals = removal;
    (void)pthread_mutex_unlock(&flusher->lock);
    flush_want_work(flusher);
}

/* ---- one log --------------------------------------------------------------------------------- */

struct log_work {
    bool spare;
    bool retention;
    uint32_t unsynced_count;
    int unsynced[FLUSH_UNSYNCED_FILES];
};

static bool take_work_locked(struct flush_log *log, struct log_work *work)
{
    if (log->leaving || log->preparing)
        return false;
    *work = (struct log_work){
        .spare = log->wants_spare,
        .retention = log->wants_retention,
        .unsynced_count = log->unsynced_count,
    };
    if (!work->spare && !work->retention && work->unsynced_count == 0)
        return false;
    memcpy(work->unsynced, log->unsynced, sizeof(work->unsynced));
    log->unsynced_count = 0;
    log->wants_spare = false;
    log->wants_retention = false;
    log->preparing = true;
    return true;
}

static void sync_earlier_files(const struct flush_log *log, struct log_work *work)
{
    char text[128];
    int error = 0;

    if (work->unsynced_count == 0)
        return;
    for (uint32_t i = 0; i < work->unsynced_count; i++) {
        int failed = io_sync(work->unsynced[i]);

        error = error ? error : failed;
        (void)close(work->unsynced[i]);
    }
    if (error == 0)
        error = io_sync_dir(log->journal.place.dir_fd); /* their names */
    /* Policy os promises the page cache, which has it, and the writer goes on. What the disk did not take readers find by
     * checksums when the page cache has forgotten it. */
    if (error)
        log_error("%s: an earlier file of its journal did not reach the disk: %s", log->label,
                  error_errno_text(error, text, sizeof(text)));
}

static void do_work(struct flush_log *log, struct log_work *work)
{
    struct journal_retention retention = {
        .retain_bytes = atomic_load_explicit(&log->retain_bytes, memory_order_relaxed),
        .retain_ns = atomic_load_explicit(&log->retain_ns, memory_order_relaxed),
        .now_ns = clock_realtime_ns(),
        .durable = flush_durable(log),
        .needed = UINT64_MAX,
        .first = atomic_load_explicit(&log->first, memory_order_relaxed),
    };
    struct error_buffer why;

    /* A spare that cannot be made is no failure: the writer makes its file on the spot, or says why not. */
    if (work->spare && journal_prepare(&log->journal, log->durability != DURABLE_OS, &why) < 0)
        log_debug("%s: no file ahead of use: %s", log->label, why.text);
    FAULT("flush.prepared");
    sync_earlier_files(log, work);
    if (work->retention && journal_retain(&log->journal, &retention, &why) < 0)
        log_warning("%s: retention: %s", log->label, why.text);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static bool work_on_shard(struct flush_shard *shard)
{
    struct log_work work;
    struct flush_log *log = NULL;

    (void)pthread_mutex_lock(&shard->lock);
    for (uint32_t i = 0; i < shard->count && !log; i++) {
        if (take_work_locked(shard->logs[i], &work))
            log = shard->logs[i];
    }
    (void)pthread_mutex_unlock(&shard->lock);
    if (!log)
        return false;
    do_work(log, &work);
    (void)pthread_mutex_lock(&shard->lock);
    log->preparing = false;
    if (log->leaving)
        flush_wake_writer(shard);
    (void)pthread_cond_broadcast(&shard->settled);
    (void)pthread_mutex_unlock(&shard->lock);
    return true;
}

/* Marks the journals whose files grow old. True if there is one. */
static bool look_at_ages(struct flush_shard *shard, bool due)
{
    bool any = false;

    (void)pthread_mutex_lock(&shard->lock);
    for (uint32_t i = 0; i < shard->count; i++) {
        struct flush_log *log = shard->logs[i];

        if (atomic_load_explicit(&log->retain_ns, memory_order_relaxed) == 0)
            continue;
        any = true;
        log->wants_retention = log->wants_retention || due;
    }
    (void)pthread_mutex_unlock(&shard->lock);
    return any;
}

static struct flush_removal *take_removal(struct flusher *flusher)
{
    struct flush_removal *removal;

    (void)pthread_mutex_lock(&flusher->lock);
    removal = flusher->removals;
    if (removal)
        flusher->removals = removal->next;
    (void)pthread_mutex_unlock(&flusher->lock);
    return removal;
}

/* One directory a partition, named by its number. */
static int remove_topic(const char *dir, struct error_buffer *why)
{
    for (uint32_t i = 0; i < PARTITIONS_MAX; i++) {
        char partition[PATH_MAX];
        int rc;

        if (snprintf(partition, sizeof(partition), "%s/%u", dir, i) >= (int)sizeof(partition))
            return error_set(why, SHMQ_EINVAL, "journal %.200s: its name is too long", dir);
        if (access(partition, F_OK) < 0)
            continue;
        rc = journal_remove_directory(partition, why);
        if (rc < 0)
            return rc;
    }
    if (rmdir(dir) < 0 && errno != ENOENT)
        return error_set_errno(why, errno, "journal %.200s: removing it", dir);
    return 0;
}

static void remove_directories(struct flusher *flusher)
{
    struct flush_removal *removal;
    struct error_buffer why;

    /* A log that leaves may be making a file there; the writer calls when it is gone. */
    if (atomic_load_explicit(&flusher->leaving, memory_order_acquire) > 0)
        return;
    while ((removal = take_removal(flusher))) {
        if (remove_topic(removal->dir, &why) < 0)
            log_warning("%s", why.text);
        FAULT("flush.removed");
        free(removal);
    }
}

static struct flush_shard *first_shard(struct flusher *flusher)
{
    struct flush_shard *shard;

    (void)pthread_mutex_lock(&flusher->lock);
    shard = flusher->shards; /* they stay until the threads are gone */
    (void)pthread_mutex_unlock(&flusher->lock);
    return shard;
}

/* True: the time has come to look at ages. */
static bool wait_for_work(struct flusher *flusher, bool ages)
{
    struct timespec until = timespec_from_ns(clock_monotonic_ns() + RETAIN_EVERY_NS);
    bool due = false;

    (void)pthread_mutex_lock(&flusher->lock);
    while (!flusher->work_waits && !due && !flush_is_stopping(flusher)) {
        if (!ages)
            (void)pthread_cond_wait(&flusher->work, &flusher->lock);
        else
            due = pthread_cond_timedwait(&flusher->work, &flusher->lock, &until) != 0;
    }
    flusher->work_waits = false;
    (void)pthread_mutex_unlock(&flusher->lock);
    return due;
}

void *flush_preparer_main(void *context)
{
    struct flusher *flusher = context;
    bool due = false;

    (void)pthread_setname_np(pthread_self(), "shmqd-files");
    while (!flush_is_stopping(flusher)) {
        bool ages = false;

        for (struct flush_shard *shard = first_shard(flusher); shard; shard = shard->next) {
            ages |= look_at_ages(shard, due);
            while (!flush_is_stopping(flusher) && work_on_shard(shard))
                ;
        }
        remove_directories(flusher);
        due = wait_for_work(flusher, ages);
    }
    return NULL;
}
