/* SPDX-License-Identifier: Apache-2.0 */
/* The store's handle, its puts and its snapshots; see store.h. */
#include "daemon/store.h"

#include "daemon/store_internal.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct store {
    struct store_callbacks callbacks;
    void *context;
    bool ephemeral;
    bool in_snapshot; /* inside the callback: puts go to `next`, unsynced */

    char *dir;
    int dir_fd;

    /* The newest file. Once it has failed to write, sync or publish, what it holds may be on disk or not,
     * and nothing more is confirmed in it: the next put begins with a snapshot in a new file. */
    struct journal_writer writer;
    struct journal_writer next; /* a snapshot in the making */
    uint64_t next_records;
    uint64_t next_base;    /* beyond every offset used, also by files that came to nothing */
    uint64_t growth_bytes; /* history since the last snapshot */
};

static void warn(const struct store *store, const char *text)
{
    if (store->callbacks.warn)
        store->callbacks.warn(store->context, text);
}

static struct journal_place place_of(const struct store *store)
{
    struct journal_place place = {.dir = store->dir, .dir_fd = store->dir_fd};

    return place;
}

/* A full disk does not keep a bus from running: it is as if the file had failed, so the next put tries a new one. */
static void begin_without_file(struct store *store, const struct store_history *history,
                               const struct error_buffer *why)
{
    char text[sizeof(why->text) + 64];

    store->writer = (struct journal_writer){
        .fd = -1,
        .failed = true,
        .base = history->next_base,
        .end = history->end,
        .durable = history->end,
        .messages = history->messages,
        .max_timestamp_ns = history->max_timestamp_ns,
    };
    store->next_base = history->next_base;
    (void)snprintf(text, sizeof(text), "%s; nothing can be created or deleted until there is room",
                   why->text);
    warn(store, text);
}

/* The first file of this process's life. It is synced before anything is put. */
static int begin_file(struct store *store, const struct store_history *history,
                      struct error_buffer *why)
{
    struct journal_place place = place_of(store);
    struct journal_start start = {
        .base = history->next_base,
        .previous_end = history->end,
        .durable = history->end,
        .messages = history->messages,
        .max_timestamp_ns = history->max_timestamp_ns,
    };
    int rc = journal_writer_create(&store->writer, &place, &start, why);

    if (rc == 0)
        rc = journal_writer_publish(&store->writer, why);
    if (rc == 0)
        store->next_base = journal_writer_next_base(&store->writer);
    if (rc == SHMQ_ENOSPC && store->callbacks.snapshot) {
        journal_writer_close(&store->writer);
        begin_without_file(store, history, why);
        return 0;
    }
    return rc;
}

static int open_journal(struct store *store, struct error_buffer *why)
{
    struct journal_place place;
    struct store_history history;
    int rc;

    store->dir_fd = open(store->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->dir_fd < 0)
        return error_set_errno(why, errno, "metadata %.200s", store->dir);
    place = place_of(store);
    rc = journal_remove_below(&place, 0, why); /* tmp files only: nothing is below 0 */
    if (rc == 0)
        rc = store_replay(&place, &store->callbacks, store->context, &history, why);
    if (rc != 0)
        return rc;
    store->growth_bytes = history.bytes;
    return begin_file(store, &history, why);
}

int store_open(const char *dir, const struct store_callbacks *callbacks, void *context,
               struct store **ret_store, struct error_buffer *why)
{
    struct store *store = calloc(1, sizeof(*store));
    int rc = 0;

    if (!store)
        return error_set(why, SHMQ_ENOMEM, "metadata: out of memory; free some");
    store->callbacks = *callbacks;
    store->context = context;
    store->dir_fd = -1;
    store->writer.fd = -1;
    store->next.fd = -1;
    store->ephemeral = !dir;
    if (dir) {
        store->dir = strdup(dir);
        rc = store->dir ? open_journal(store, why)
                        : error_set(why, SHMQ_ENOMEM, "metadata: out of memory; free some");
    }
    if (rc != 0) {
        store_close(store);
        return rc;
    }
    *ret_store = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    journal_writer_close(&store->next);
    journal_writer_close(&store->writer);
    cleanup_close(&store->dir_fd);
    free(store->dir);
    free(store);
}

/* ---- Snapshots ---------------------------------------------------------------------------------- */

static int append(struct journal_writer *writer, enum store_kind kind, const void *value,
                  struct error_buffer *why)
{
    unsigned char body[STORE_BODY_BYTES];
    uint32_t length;
    int rc = store_encode(kind, value, writer->durable, body, &length, why);

    if (rc < 0)
        return rc;
    return journal_writer_append(writer, RECORD_TYPE_META, body, length, clock_realtime_ns(), NULL,
                                 why);
}

static int fill_snapshot(struct store *store, struct error_buffer *why)
{
    struct store_ids end = {.count = 0};
    int rc = append(&store->next, STORE_SNAPSHOT_BEGIN, NULL, why);

    if (rc < 0)
        return rc;
    store->next_records = 0;
    store->in_snapshot = true;
    rc = store->callbacks.snapshot(store->context, store, why);
    store->in_snapshot = false;
    if (rc != 0)
        return rc;
    end.count = store->next_records;
    return append(&store->next, STORE_SNAPSHOT_END, &end, why);
}

/* The new file counts: it takes the place of all before it. */
static void adopt_next(struct store *store)
{
    journal_writer_close(&store->writer);
    store->writer = store->next;
    memset(&store->next, 0, sizeof(store->next));
    store->next.fd = -1;
}

static void remove_old_files(struct store *store)
{
    struct journal_place place = place_of(store);
    struct error_buffer reason;

    /* They are superseded whether they are there or not; the next snapshot tries again. */
    if (journal_remove_below(&place, store->writer.base, &reason) < 0)
        warn(store, reason.text);
}

static int write_snapshot(struct store *store, struct error_buffer *why)
{
    struct journal_place place = place_of(store);
    struct journal_start start = {
        .base = store->next_base,
        .previous_end = store->writer.end,
        .durable = store->writer.durable,
        .messages = store->writer.messages,
        .max_timestamp_ns = store->writer.max_timestamp_ns,
    };
    int rc = journal_writer_create(&store->next, &place, &start, why);

    if (rc < 0)
        return rc;
    FAULT("store.snapshot.created");
    rc = fill_snapshot(store, why);
    /* Whatever comes of this file, its offsets are used. */
    store->next_base = journal_writer_next_base(&store->next);
    FAULT("store.snapshot.filled");
    if (rc == 0)
        rc = journal_writer_publish(&store->next, why);
    if (rc != 0 && !store->next.published) {
        journal_writer_close(&store->next);
        return rc;
    }
    adopt_next(store);
    if (rc != 0)
        return rc; /* it may count after a crash: the old file is no longer the newest */
    store->growth_bytes = 0;
    FAULT("store.snapshot.published");
    remove_old_files(store);
    return 0;
}

int store_snapshot(struct store *store, struct error_buffer *why)
{
    if (store->ephemeral)
        return 0;
    if (!store->callbacks.snapshot || store->in_snapshot)
        return error_set(why, SHMQ_EINVAL, "metadata: no snapshot is possible here");
    return write_snapshot(store, why);
}

bool store_wants_snapshot(const struct store *store)
{
    return store->growth_bytes > STORE_GROWTH_BYTES;
}

/* ---- Puts --------------------------------------------------------------------------------------- */

/* `count` values of one kind, `bytes` each, in a row. */
struct batch {
    const void *values;
    size_t count;
    size_t bytes;
    enum store_kind kind;
};

static int append_batch(struct journal_writer *writer, const struct batch *batch,
                        struct error_buffer *why)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < batch->count; i++)
        rc = append(writer, batch->kind, (const char *)batch->values + i * batch->bytes, why);
    return rc;
}

static int put_synced(struct store *store, const struct batch *batch, struct error_buffer *why)
{
    uint64_t before = store->writer.end;
    int rc = append_batch(&store->writer, batch, why);

    if (rc == 0)
        rc = journal_writer_sync(&store->writer, why);
    store->next_base = max_u64(store->next_base, journal_writer_next_base(&store->writer));
    store->growth_bytes += store->writer.end - before;
    return rc;
}

/* The file is spent: the live state into a new one, and the operation behind it. */
static int put_in_new_file(struct store *store, const struct batch *batch, struct error_buffer *why)
{
    struct error_buffer reason;
    char text[sizeof(reason.text) + 64];
    int rc;

    if (!store->callbacks.snapshot)
        return error_set(why, SHMQ_EIO, "metadata %.200s: an earlier write failed; restart shmqd",
                         store->dir);
    rc = write_snapshot(store, &reason);
    if (rc != 0) {
        if (why)
            *why = reason;
        return rc;
    }
    (void)snprintf(text, sizeof(text), "metadata %.200s: a write failed; goes on in a new file",
                   store->dir);
    warn(store, text);
    return put_synced(store, batch, why);
}

static int put_batch(struct store *store, const struct batch *batch, struct error_buffer *why)
{
    int rc;

    if (store->ephemeral || batch->count == 0)
        return 0;
    if (store->in_snapshot) {
        rc = append_batch(&store->next, batch, why);
        store->next_records += rc == 0 ? batch->count : 0;
        return rc;
    }
    FAULT("store.put.start");
    if (!store->writer.failed) {
        rc = put_synced(store, batch, why);
        if (!store->writer.failed || !store->callbacks.snapshot)
            return rc;
    }
    rc = put_in_new_file(store, batch, why);
    FAULT("store.put.done");
    return rc;
}

static int put(struct store *store, enum store_kind kind, const void *value,
               struct error_buffer *why)
{
    struct batch batch = {.kind = kind, .values = value, .count = 1};

    return put_batch(store, &batch, why);
}

int store_put_topic(struct store *store, const struct store_topic *topic, struct error_buffer *why)
{
    return put(store, STORE_PUT_TOPIC, topic, why);
}

int store_delete_topic(struct store *store, uint64_t topic, struct error_buffer *why)
{
    struct store_ids ids = {.topic = topic};

    return put(store, STORE_DELETE_TOPIC, &ids, why);
}

int store_put_group(struct store *store, const struct store_group *group, struct error_buffer *why)
{
    return put(store, STORE_PUT_GROUP, group, why);
}

int store_delete_group(struct store *store, uint64_t topic, uint64_t group,
                       struct error_buffer *why)
{
    struct store_ids ids = {.topic = topic, .group = group};

    return put(store, STORE_DELETE_GROUP, &ids, why);
}

int store_put_mark(struct store *store, const struct store_mark *mark, struct error_buffer *why)
{
    return put(store, STORE_PUT_MARK, mark, why);
}

int store_put_counter(struct store *store, uint64_t next_id, struct error_buffer *why)
{
    struct store_ids ids = {.count = next_id};

    return put(store, STORE_PUT_COUNTER, &ids, why);
}

int store_put_cursors(struct store *store, const struct store_cursor *cursors, size_t count,
                      struct error_buffer *why)
{
    struct batch batch = {
        .kind = STORE_PUT_CURSOR,
        .values = cursors,
        .count = count,
        .bytes = sizeof(cursors[0]),
    };

    return put_batch(store, &batch, why);
}
