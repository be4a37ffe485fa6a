/* SPDX-License-Identifier: Apache-2.0 */
/* flush_rig_watch.c: a rig's eye on the io calls: promises checked, calls held and failed; see flush_rig.h. */
#include "libshmq/clock.h"
#include "libshmq/journal_read.h"
#include "test/support/flush_rig.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The log whose directory, or a file in it, the descriptor is of. *ret_named: the file has its name. */
static struct rig_log *find_log(struct rig *rig, int fd, bool *ret_named)
{
    char link[64], path[512];
    ssize_t length;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof(path) - 1);
    if (length < 0)
        return NULL;
    path[length] = '\0';
    *ret_named = strstr(path, ".log") != NULL;
    for (uint32_t i = 0; i < rig->count; i++) {
        size_t dir = strlen(rig->logs[i]->dir);

        if (strncmp(path, rig->logs[i]->dir, dir) == 0 && (path[dir] == '\0' || path[dir] == '/'))
            return rig->logs[i];
    }
    return NULL;
}

static void note_write(struct rig *rig, struct rig_log *log, const struct io_event *event)
{
    struct journal_header header;
    uint64_t *base = &rig->bases[event->fd];

    if (event->position == 0 && event->length >= sizeof(header)) {
        memcpy(&header, event->data, sizeof(header));
        *base = header.magic == JOURNAL_MAGIC ? header.base + 1 : 0; /* 0: zeros, of a spare */
    } else if (*base != 0 && event->position >= JOURNAL_HEADER_BYTES) {
        log->written = max_u64(log->written,
                               *base - 1 + event->position - JOURNAL_HEADER_BYTES + event->length);
    }
}

/* With the lock held. */
static void check_promise(struct rig_log *log)
{
    uint64_t most = log->options.durability == DURABLE_OS ? log->written : log->covered;
    uint64_t durable;

    if (log->cut)
        return;
    durable = rig_durable(log);
    if (durable > max_u64(most, log->options.base))
        FAIL("log %u: durable %llu, and only %llu is", log->index, (unsigned long long)durable,
             (unsigned long long)most);
    if (durable < log->durable_seen)
        FAIL("log %u: durable went back to %llu", log->index, (unsigned long long)durable);
    log->durable_seen = durable;
}

/* What a failed sync may leave on the disk of all that was not safe. */
static void spoil(struct rig *rig, const struct rig_log *log, int fd)
{
    unsigned char junk[4096];
    uint64_t base = rig->bases[fd] - 1;

    memset(junk, 0x5a, sizeof(junk));
    for (uint64_t at = max_u64(rig_durable(log), base); at < log->written; at += sizeof(junk))
        (void)!pwrite(fd, junk, min_u64(sizeof(junk), log->written - at),
                      (off_t)(JOURNAL_HEADER_BYTES + at - base));
}

/* With the lock held. */
static int strike(struct rig *rig, struct rig_log *log, const struct io_event *event, bool named)
{
    struct rig_fault *fault = &log->fault;

    log->calls[event->kind]++;
    log->data_syncs += event->kind == IO_SYNC && named;
    if (fault->nth == 0 || fault->kind != event->kind || --fault->nth > 0)
        return 0;
    if (fault->repeated)
        fault->nth = 1;
    log->struck = true;
    if (event->kind == IO_SYNC && named && log->options.durability != DURABLE_OS)
        spoil(rig, log, event->fd);
    return fault->error;
}

/* With the lock held, which it gives up while the test holds the call. */
static int meet(struct rig *rig, struct rig_log *log, const struct io_event *event, bool named)
{
    REQUIRE((size_t)event->fd < COUNT_OF(rig->bases));
    check_promise(log); /* of what was done until now */
    if (event->kind == IO_WRITE)
        note_write(rig, log, event);
    if (event->kind == IO_SYNC && named)
        log->covered = log->written;
    if (rig->holding && rig->held_kind == event->kind && (named || !rig->held_data_only)) {
        rig->held++;
        (void)pthread_cond_broadcast(&rig->changed);
        while (rig->holding && rig->passes == 0)
            (void)pthread_cond_wait(&rig->changed, &rig->lock);
        rig->passes -= rig->passes > 0;
    }
    return strike(rig, log, event, named);
}

int rig_watch(void *context, const struct io_event *event)
{
    struct rig *rig = context;
    bool named = false;
    struct rig_log *log;
    int told = 0;

    (void)pthread_mutex_lock(&rig->lock);
    log = event->fd >= 0 ? find_log(rig, event->fd, &named) : NULL;
    if (log)
        told = meet(rig, log, event, named);
    (void)pthread_mutex_unlock(&rig->lock);
    if (told == 0 && (event->kind == IO_SYNC || event->kind == IO_SYNC_DIR))
        return IO_DONE;
    return told;
}

void rig_hold(struct rig *rig, enum io_kind kind, bool data_only)
{
    (void)pthread_mutex_lock(&rig->lock);
    rig->holding = true;
    rig->held = 0;
    rig->held_kind = kind;
    rig->held_data_only = data_only;
    (void)pthread_mutex_unlock(&rig->lock);
}

bool rig_wait_held(struct rig *rig, uint32_t count)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(RIG_WAIT_MS) * NS_PER_MS;
    struct timespec step = {.tv_nsec = 200000};
    bool there = false;

    while (!there && test_now_ns() < deadline_ns) {
        (void)pthread_mutex_lock(&rig->lock);
        there = rig->held >= count;
        (void)pthread_mutex_unlock(&rig->lock);
        if (!there)
            (void)nanosleep(&step, NULL);
    }
    return there;
}

void rig_let_one_pass(struct rig *rig)
{
    (void)pthread_mutex_lock(&rig->lock);
    rig->passes++;
    rig->held = 0; /* who is held next is counted anew */
    (void)pthread_cond_signal(&rig->changed);
    (void)pthread_mutex_unlock(&rig->lock);
}

bool rig_wait_written(struct rig_log *log)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(RIG_WAIT_MS) * NS_PER_MS;
    bool there = false;

    while (!there && test_now_ns() < deadline_ns) {
        (void)pthread_mutex_lock(&log->rig->lock);
        there = log->written >= rig_tail(log);
        (void)pthread_mutex_unlock(&log->rig->lock);
        test_sleep_ms(1);
    }
    return there;
}

void rig_release(struct rig *rig)
{
    (void)pthread_mutex_lock(&rig->lock);
    rig->holding = false;
    rig->passes = 0;
    (void)pthread_cond_broadcast(&rig->changed);
    (void)pthread_mutex_unlock(&rig->lock);
}

void rig_fail(struct rig_log *log, enum io_kind kind, uint32_t nth, int error, bool repeated)
{
    (void)pthread_mutex_lock(&log->rig->lock);
    log->fault = (struct rig_fault){.kind = kind, .nth = nth, .error = error, .repeated = repeated};
    log->struck = false;
    (void)pthread_mutex_unlock(&log->rig->lock);
}

bool rig_struck(struct rig_log *log)
{
    bool struck;

    (void)pthread_mutex_lock(&log->rig->lock);
    struck = log->struck;
    (void)pthread_mutex_unlock(&log->rig->lock);
    return struck;
}

uint32_t rig_calls(struct rig_log *log, enum io_kind kind)
{
    uint32_t calls;

    (void)pthread_mutex_lock(&log->rig->lock);
    calls = log->calls[kind];
    (void)pthread_mutex_unlock(&log->rig->lock);
    return calls;
}

uint32_t rig_data_syncs(struct rig_log *log)
{
    uint32_t calls;

    (void)pthread_mutex_lock(&log->rig->lock);
    calls = log->data_syncs;
    (void)pthread_mutex_unlock(&log->rig->lock);
    return calls;
}
