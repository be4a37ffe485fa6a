/* SPDX-License-Identifier: Apache-2.0 */
/* flush_write.c: one log's way from the ring into the page cache; see flush.h. In the writer's thread. */
#include "daemon/flush_internal.h"

#include "daemon/log.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define RETRY_FIRST_NS (100 * NS_PER_MS)
#define RETRY_MOST_NS  NS_PER_S
#define COLLECT_ROUNDS 3

/* ---- copying --------------------------------------------------------------------------------- */

struct copy_work {
    const struct flush_log *log;
    unsigned char *to;
    size_t most;
    size_t bytes;    /* copied */
    uint64_t wanted; /* what the next record takes, where `most` was too little */
};

static uint64_t load_commit(const struct record *record)
{
    /* ORDER publish -> flush: acquire: header and payload are those of this stamp; pairs with
     * ring_stamp_record(). */
    return atomic_load_explicit(&record->commit, memory_order_acquire);
}

/* Copies whole records from the log's position on, as long as they are stamped. Guarded; every length is loaded once and
 * bounded before it is used, and the copy says what was checked. */
static int copy_run(void *context)
{
    struct copy_work *work = context;
    const struct flush_log *log = work->log;
    uint64_t at = log->position;
    uint64_t tail = atomic_load_explicit(&log->producers->tail, memory_order_acquire);

    if (tail % RECORD_UNIT || tail < at || tail - at > log->capacity)
        return SHMQ_ECORRUPT;
    while (at < tail) {
        const struct record *record =
            (const struct record *)(const void *)(log->data + (at & (log->capacity - 1)));
        uint64_t commit = load_commit(record);
        uint64_t state = record_state(commit, log->salt, at);
        uint32_t length = atomic_load_explicit(
            (const _Atomic uint32_t *)(const void *)&record->length, memory_order_relaxed);
        uint64_t size = record_size(length);
        unsigned char *to = work->to + work->bytes;

        if (state == 0)
            break;
        if (length > log->length_max || size > tail - at)
            return SHMQ_ECORRUPT;
        if (size > work->most - work->bytes) {
            work->wanted = size;
            break;
        }
        memcpy(to, record, RECORD_HEADER + (state == RECORD_COMMITTED ? length : 0));
        memcpy(to + offsetof(struct record, commit), &commit, sizeof(commit));
        memcpy(to + offsetof(struct record, length), &length, sizeof(length));
        work->bytes += size;
        at += size;
    }
    return 0;
}

/* ---- checking -------------------------------------------------------------------------------- */

static bool is_whole(const unsigned char *bytes, uint32_t length)
{
    const struct record *record = (const struct record *)(const void *)bytes;

    return (uint32_t)record->key_length + record->headers_length <= length &&
           journal_record_crc(bytes, RECORD_COMMITTED) == record->crc32c;
}

/* A record that readers step over: its stamp and length, its own checksum, zeros. */
static void make_padding(const struct flush_log *log, unsigned char *bytes, uint64_t offset,
                         uint32_t length)
{
    struct record *record = (struct record *)(void *)bytes;

    memset(bytes, 0, record_size(length));
    atomic_init(&record->commit, record_stamp(log->salt, offset, RECORD_PADDING));
    record->length = length;
    record->crc32c = journal_record_crc(bytes, RECORD_PADDING);
}

static void report_damage(struct flush_log *log, uint64_t offset, uint32_t length)
{
    (void)atomic_fetch_add_explicit(&log->damaged, 1, memory_order_relaxed);
    log_warning("%s: the message of %" PRIu32 " bytes at offset %" PRIu64
                " does not match its checksum: its producer wrote to it after publishing, or is no "
                "friend; padding is journaled in its place",
                log->label, length, offset);
}

/* Makes of what was copied what goes to the disk. It is all ours by now. */
static uint64_t check_run(struct flush_log *log, unsigned char *run, size_t bytes,
                          uint64_t *max_timestamp_ns)
{
    uint64_t now_ns = clock_realtime_coarse_ns() + NS_PER_S;
    uint64_t offset = log->position;
    uint64_t messages = 0;

    for (size_t at = 0; at < bytes;) {
        struct record *record = (struct record *)(void *)(run + at);
        uint64_t commit = atomic_load_explicit(&record->commit, memory_order_relaxed);
        uint32_t length = record->length;
        uint64_t size = record_size(length);

        if (record_state(commit, log->salt, offset) == RECORD_PADDING) {
            make_padding(log, run + at, offset, length);
        } else if (!is_whole(run + at, length)) {
            report_damage(log, offset, length);
            make_padding(log, run + at, offset, length);
        } else {
            memset(run + at + RECORD_HEADER + length, 0, size - RECORD_HEADER - length);
            /* One from the future would keep its file for ever. */
            *max_timestamp_ns = max_u64(*max_timestamp_ns, min_u64(record->timestamp_ns, now_ns));
            messages++;
        }
        at += size;
        offset += size;
    }
    return messages;
}

/* ---- failing --------------------------------------------------------------------------------- */

static int errno_of(int code)
{
    switch (code) {
    case 0:
        return 0;
    case SHMQ_ENOSPC:
        return ENOSPC;
    case SHMQ_EPERM:
        return EROFS;
    case SHMQ_ENOMEM:
        return ENOMEM;
    case SHMQ_ELIMIT:
        return EMFILE;
    default:
        return EIO;
    }
}

static int store_error(void *context)
{
    struct flush_log *log = context;
    int error = atomic_load_explicit(&log->error, memory_order_relaxed);

    /* Relaxed: a word for people; nothing is ordered by it. */
    atomic_store_explicit(&log->state->journal_error, (uint32_t)error, memory_order_relaxed);
    return 0;
}

static void set_error(struct flush_log *log, int error)
{
    atomic_store_explicit(&log->error, error, memory_order_relaxed);
    (void)flush_guard(log, store_error, log);
}

/* Says so once, and lets some time pass before the next attempt. */
static void set_failed(struct flush_log *log, int code, const struct error_buffer *why)
{
    int error = errno_of(code);

    log->retry_pause_ns =
        log->retry_pause_ns == 0 ? RETRY_FIRST_NS : min_u64(2 * log->retry_pause_ns, RETRY_MOST_NS);
    log->retry_ns = clock_monotonic_ns() + log->retry_pause_ns;
    log->failed_at = log->position;
    if (atomic_load_explicit(&log->error, memory_order_relaxed) == error)
        return;
    set_error(log, error);
    log_error("%s: its journal does not get on at offset %" PRIu64 ": %s; it is tried again",
              log->label, log->position, why->text);
}

/* It does get on again once more has become durable than what had been written then. */
static void look_whether_healed(struct flush_log *log)
{
    if (log->retry_pause_ns == 0 || flush_durable(log) <= log->failed_at)
        return;
    log->retry_pause_ns = 0;
    log->retry_ns = 0;
    set_error(log, 0);
    log_info("%s: its journal gets on again, at offset %" PRIu64, log->label, log->position);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Policy os, too far ahead of the disk: this file, and the names of all. With the lock held. */
static void sync_by_hand(struct flush_log *log)
{
    flush_sync_locked(log);
    (void)pthread_mutex_unlock(&log->shard->lock);
    (void)io_sync_dir(log->journal.place.dir_fd);
    (void)pthread_mutex_lock(&log->shard->lock);
}

/* What was written so far is safe, as far as the policy wants it to be, before another file is begun. False: it
 * is not, and a new one has to begin at `durable`. */
static bool leave_file(struct flush_log *log)
{
    struct flush_shard *shard = log->shard;
    bool left;

    (void)pthread_mutex_lock(&shard->lock);
    flush_settle_locked(log);
    if (log->durability == DURABLE_OS && log->journal.fd >= 0 && log->broken == 0) {
        int fd = fcntl(log->journal.fd, F_DUPFD_CLOEXEC, 0);

        if (log->unsynced_count == FLUSH_UNSYNCED_FILES || fd < 0)
            sync_by_hand(log);
        if (log->unsynced_count < FLUSH_UNSYNCED_FILES && fd >= 0)
            log->unsynced[log->unsynced_count++] = steal_fd(&fd);
        cleanup_close(&fd);
    } else if (log->broken == 0 && log->written > flush_durable(log)) {
        flush_sync_locked(log);
    }
    left = log->broken == 0;
    (void)pthread_mutex_unlock(&shard->lock);
    return left;
}

static bool begin_file(struct flush_log *log, uint64_t least)
{
    struct journal_start start = {
        .base = log->position,
        /* Also when it is the second attempt there: nothing else knows where the log ended. */
        .previous_end = log->position > log->from ? log->position : log->previous_end,
        .durable = flush_durable(log),
        .messages = log->messages,
        .max_timestamp_ns = log->max_timestamp_ns,
        /* The first one is, and with it what a supervisor before has left. */
        .unsynced = log->durability == DURABLE_OS && log->position > log->from,
    };
    struct error_buffer why;
    int rc;

    rc = journal_begin(&log->journal, &start, log->salt, least, &why);
    if (rc < 0) {
        set_failed(log, rc, &why);
        return false;
    }
    FAULT("flush.file.begun");
    log->asked_for_spare = false;
    (void)pthread_mutex_lock(&log->shard->lock);
    log->wants_retention = true;
    (void)pthread_mutex_unlock(&log->shard->lock);
    flush_want_work(log->shard->flusher);
    return true;
}

/* Where there is none, or it is full. */
static bool next_file(struct flush_log *log, uint64_t least)
{
    return leave_file(log) && begin_file(log, least); /* else the next round begins anew */
}

/* A write or sync has failed: back to what is safe, which still stands in the ring. */
static void go_back(struct flush_log *log)
{
    struct flush_shard *shard = log->shard;
    struct error_buffer why;
    int code;

    (void)pthread_mutex_lock(&shard->lock);
    flush_settle_locked(log);
    code = log->broken;
    why = log->broken_why;
    log->broken = 0;
    log->sync_due_ns = 0;
    log->position = flush_durable(log);
    log->messages = log->durable_messages;
    log->written = log->position;
    log->written_messages = log->messages;
    (void)pthread_mutex_unlock(&shard->lock);
    journal_abandon(&log->journal);
    set_failed(log, code, &why);
    FAULT("flush.back");
}

/* ---- one round ------------------------------------------------------------------------------- */

static bool grow_buffer(struct flush_log *log, uint64_t bytes)
{
    struct flush_shard *shard = log->shard;
    unsigned char *larger = realloc(shard->buffer, bytes);
    struct error_buffer why;

    if (larger) {
        shard->buffer = larger;
        shard->buffer_bytes = bytes;
        return true;
    }
    (void)error_set(&why, SHMQ_ENOMEM, "no memory for a record of %" PRIu64 " bytes", bytes);
    set_failed(log, SHMQ_ENOMEM, &why);
    return false;
}

/* Copies what is there, making a file or room for it where there is none. 0: nothing, or it does not get on. */
static size_t collect(struct flush_log *log)
{
    struct flush_shard *shard = log->shard;

    /* A file, a buffer, and once more: who makes a record longer while it is looked at waits for the next round. */
    for (int i = 0; i < COLLECT_ROUNDS; i++) {
        uint64_t room = journal_room(&log->journal);
        struct copy_work work = {
            .log = log,
            .to = shard->buffer,
            .most = min_size(shard->buffer_bytes, room),
        };

        if (flush_guard(log, copy_run, &work) < 0) {
            flush_set_corrupt(log, "its memory contradicts itself");
            return 0;
        }
        if (work.bytes > 0 || work.wanted == 0)
            return work.bytes;
        if (work.wanted > room ? !next_file(log, work.wanted) : !grow_buffer(log, work.wanted))
            return 0;
    }
    return 0;
}

static void note_written(struct flush_log *log, size_t bytes, uint64_t messages)
{
    struct flush_shard *shard = log->shard;

    log->position += bytes;
    log->messages += messages;
    (void)pthread_mutex_lock(&shard->lock);
    log->written = log->position;
    log->written_messages = log->messages;
    if (log->durability == DURABLE_OS)
        log->durable_messages = log->messages;
    if (!log->asked_for_spare && journal_room(&log->journal) < log->journal.bytes / 2) {
        log->asked_for_spare = true;
        log->wants_spare = true;
        flush_want_work(shard->flusher);
    }
    (void)pthread_mutex_unlock(&shard->lock);
    if (log->durability == DURABLE_OS)
        flush_raise(log, log->position, log->messages);
}

static bool is_broken(struct flush_log *log)
{
    bool broken;

    (void)pthread_mutex_lock(&log->shard->lock);
    broken = log->broken != 0;
    (void)pthread_mutex_unlock(&log->shard->lock);
    return broken;
}

size_t flush_write(struct flush_log *log)
{
    struct error_buffer why;
    uint64_t messages;
    uint64_t max_timestamp_ns = log->max_timestamp_ns;
    size_t bytes;
    int rc;

    if (flush_is_out(log) || (log->retry_ns != 0 && clock_monotonic_ns() < log->retry_ns))
        return 0;
    look_whether_healed(log);
    if (is_broken(log)) {
        go_back(log);
        return 0;
    }
    bytes = collect(log);
    if (bytes == 0)
        return 0;
    messages = check_run(log, log->shard->buffer, bytes, &max_timestamp_ns);
    rc = journal_write(&log->journal, log->shard->buffer, bytes, messages, max_timestamp_ns, &why);
    if (rc < 0) {
        if (rc == SHMQ_ENOSPC) /* room may come: the same again, at the same place */
            set_failed(log, rc, &why);
        else
            flush_break(log, rc, &why);
        return 0;
    }
    FAULT("flush.written");
    log->max_timestamp_ns = max_timestamp_ns;
    note_written(log, bytes, messages);
    return bytes;
}
