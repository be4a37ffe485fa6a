/* SPDX-License-Identifier: Apache-2.0 */
/* A log with a journal, and the oracle; see journal_bench.h. */
#include "test/support/journal_bench.h"

#include "daemon/io.h"
#include "libshmq/record.h"

#include <stdio.h>
#include <string.h>

/* ---- Messages ------------------------------------------------------------------------------------- */

void bench_build(const struct bench *bench, size_t index, unsigned char *ret_bytes)
{
    const struct bench_message *message = &bench->messages[index];
    uint64_t state = message->padding ? RECORD_PADDING : RECORD_COMMITTED;
    struct record *record = (struct record *)(void *)ret_bytes;

    memset(ret_bytes, 0, record_size(message->length));
    record->length = message->length;
    record->timestamp_ns = message->padding ? 0 : message->offset + 1;
    for (uint32_t i = 0; !message->padding && i < message->length; i++)
        record->payload[i] = (unsigned char)(message->offset / RECORD_UNIT * 31 + i * 7 + 1);
    record->crc32c = journal_record_crc(ret_bytes, state);
    atomic_init(&record->commit, record_stamp(bench->salt, message->offset, state));
}

void bench_publish_one(struct bench *bench, uint32_t length, bool padding)
{
    struct bench_message message = {.offset = bench->tail, .length = length, .padding = padding};

    if (bench->count == bench->room) {
        bench->room = bench->room ? bench->room * 2 : 256;
        bench->messages = realloc(bench->messages, bench->room * sizeof(message));
        REQUIRE(bench->messages != NULL);
    }
    bench->messages[bench->count++] = message;
    bench->tail += record_size(length);
}

void bench_publish(struct bench *bench, unsigned messages)
{
    for (unsigned i = 0; i < messages; i++) {
        bool padding = test_random_below(&bench->random, 16) == 0;

        bench_publish_one(bench, (uint32_t)test_random_below(&bench->random, bench->length_max),
                          padding);
    }
}

/* The first message at or above `offset`. */
static size_t find_message(const struct bench *bench, uint64_t offset)
{
    size_t below = 0;
    size_t above = bench->count;

    while (below < above) {
        size_t middle = below + (above - below) / 2;

        if (bench->messages[middle].offset < offset)
            below = middle + 1;
        else
            above = middle;
    }
    return below;
}

static uint64_t end_of(const struct bench_message *message)
{
    return message->offset + record_size(message->length);
}

/* ---- A life --------------------------------------------------------------------------------------- */

static uint64_t draw_salt(struct bench *bench)
{
    return test_random_next(&bench->random) & ~(uint64_t)(RECORD_UNIT - 1);
}

void bench_init(struct bench *bench, const char *name)
{
    memset(bench, 0, sizeof(*bench));
    (void)snprintf(bench->dir, sizeof(bench->dir), "%s/%s", test_tmpdir(), name);
    bench_make_dir(bench->dir);
    test_random_init(&bench->random, test_seed());
    bench->salt = draw_salt(bench);
    bench->length_max = 500;
    bench->base = bench->ended = bench->tail = 0x10000;
    bench->position = bench->durable = bench->first = bench->written = bench->tail;
}

void bench_free(struct bench *bench)
{
    bench_close(bench);
    free(bench->messages);
    memset(bench, 0, sizeof(*bench));
}

static int open_journal(struct bench *bench)
{
    struct error_buffer why;
    int rc = journal_open(&bench->journal, bench->dir, BENCH_TOPIC, BENCH_PARTITION, &why);

    if (rc == 0) {
        bench->journal.file_first = BENCH_FILE;
        bench->journal.file_most = BENCH_FILE * 4;
    }
    bench->needs_begin = true;
    bench->position = bench->durable;
    return rc;
}

void bench_open(struct bench *bench)
{
    bench_close(bench);
    REQUIRE_OK(open_journal(bench));
}

void bench_close(struct bench *bench)
{
    journal_close(&bench->journal);
}

static struct bench_reading read_dir(struct bench *bench, const char *dir, bool settle);

void bench_clone(const struct bench *bench, struct bench *ret_clone)
{
    *ret_clone = *bench;
    memset(&ret_clone->journal, 0, sizeof(ret_clone->journal));
    ret_clone->messages = malloc(bench->room * sizeof(bench->messages[0]) + 1);
    REQUIRE(ret_clone->messages != NULL);
    if (bench->count)
        memcpy(ret_clone->messages, bench->messages, bench->count * sizeof(bench->messages[0]));
}

/* What the host's death left, against what recovery says of it. */
static void check_history(const struct bench *bench, const struct journal_history *history,
                          const struct bench_reading *reading)
{
    uint64_t messages = bench->messages_below;

    CHECK_EQ(history->empty, bench->journal.count == 0);
    CHECK(history->end >= reading->end);
    CHECK(history->empty || history->next_base >= bench->written);
    CHECK(history->next_base >= history->end);
    for (size_t i = 0; i < bench->journal.count; i++)
        CHECK(!bench->journal.entries[i].damaged); /* who has a name has a header */
    if (bench->lazy)
        return; /* nothing else was promised */
    CHECK_EQ(reading->missing, 0);
    CHECK(history->damaged_bytes == 0 || history->damaged_at >= bench->synced);
    for (size_t i = find_message(bench, bench->base); i < bench->count; i++)
        messages += !bench->messages[i].padding &&
                    (!bench->messages[i].gone || bench->messages[i].offset < bench->first);
    CHECK(history->empty || history->messages == messages);
}

int bench_recover(struct bench *bench, const char *dir)
{
    struct journal_history history = {.end = 0};
    struct bench_reading reading;
    struct error_buffer why;
    int rc;

    bench_close(bench);
    (void)snprintf(bench->dir, sizeof(bench->dir), "%s", dir);
    rc = open_journal(bench);
    if (rc == 0)
        rc = journal_recover(&bench->journal, bench->lazy, &history, &why);
    if (rc < 0) {
        bench_close(bench);
        return rc;
    }
    reading = read_dir(bench, dir, true); /* what was not read is nowhere any more */
    check_history(bench, &history, &reading);
    /* The ring here knows no bounds, and a topic's base is known without a journal. */
    bench->base = max_u64(bench->tail, history.next_base) + BENCH_CAPACITY;
    bench->ended = history.end;
    bench->messages_below = history.messages;
    bench->tail = bench->position = bench->durable = bench->base;
    bench->salt = draw_salt(bench);
    bench->begun = false;
    return 0;
}

/* ---- The flusher ----------------------------------------------------------------------------------- */

/* A write or sync failed: the file is not to be relied on. */
static int go_back(struct bench *bench, int rc)
{
    journal_abandon(&bench->journal);
    bench->position = bench->durable;
    bench->needs_begin = true;
    return rc;
}

int bench_sync(struct bench *bench)
{
    int error;

    if (bench->journal.fd < 0 || bench->durable == bench->position)
        return 0;
    error = bench->lazy ? 0 : io_sync(bench->journal.fd);
    if (error)
        return go_back(bench, -error);
    bench->durable = bench->synced = bench->position;
    return 0;
}

/* Below `position`, as a file's header counts them. */
static uint64_t count_below(const struct bench *bench, uint64_t position)
{
    uint64_t messages = bench->messages_below;

    for (size_t i = find_message(bench, bench->base); i < find_message(bench, position); i++)
        messages += !bench->messages[i].padding;
    return messages;
}

static int begin_file(struct bench *bench, uint64_t least)
{
    struct journal_start start = {
        .base = bench->position,
        .previous_end = bench->begun ? bench->position : bench->ended,
        .durable = bench->durable,
        .messages = count_below(bench, bench->position),
        .max_timestamp_ns = bench->position, /* a bound is enough here */
    };
    struct error_buffer why;
    int rc = journal_begin(&bench->journal, &start, bench->salt, least, &why);

    if (rc < 0) {
        CHECK_INT_EQ(bench->journal.fd, -1);
        CHECK_CONTAINS(why.text, bench->dir);
        return rc;
    }
    CHECK(journal_room(&bench->journal) >= least);
    bench->begun = true;
    bench->needs_begin = false;
    return 0;
}

/* As many messages from `first` on as fit; at least one does. */
static size_t build_run(const struct bench *bench, size_t first, size_t messages,
                        unsigned char **ret_run, size_t *ret_bytes)
{
    size_t room = journal_room(&bench->journal);
    size_t bytes = 0;
    size_t count = 0;

    while (count < messages && first + count < bench->count) {
        size_t more = record_size(bench->messages[first + count].length);

        if (bytes + more > room)
            break;
        bytes += more;
        count++;
    }
    *ret_run = aligned_alloc(RECORD_UNIT, bytes);
    REQUIRE(*ret_run != NULL);
    for (size_t i = 0; i < count; i++)
        bench_build(bench, first + i,
                    *ret_run + (bench->messages[first + i].offset - bench->messages[first].offset));
    *ret_bytes = bytes;
    return count;
}

int bench_write(struct bench *bench, size_t messages)
{
    size_t first = find_message(bench, bench->position);
    uint64_t visible = 0;
    struct error_buffer why;
    unsigned char *run;
    size_t bytes;
    size_t count;
    int rc = 0;

    if (first == bench->count)
        return 0;
    if (bench->needs_begin ||
        journal_room(&bench->journal) < record_size(bench->messages[first].length)) {
        rc = bench_sync(bench); /* the old file, before the new one's first confirm */
        if (rc == 0)
            rc = begin_file(bench, record_size(bench->messages[first].length));
        if (rc < 0) {
            bench->needs_begin = true;
            return rc;
        }
    }
    count = build_run(bench, first, messages, &run, &bytes);
    for (size_t i = 0; i < count; i++)
        visible += !bench->messages[first + i].padding;
    bench->written = max_u64(bench->written, bench->position + bytes);
    rc = journal_write(&bench->journal, run, bytes, visible, bench->position + bytes, &why);
    free(run);
    if (rc == SHMQ_ENOSPC)
        return rc;
    if (rc < 0)
        return go_back(bench, rc);
    bench->position += bytes;
    return 0;
}

int bench_flush(struct bench *bench)
{
    while (bench->durable < bench->tail) {
        int rc = bench_write(bench, 1 + test_random_below(&bench->random, 12));

        if (rc == 0)
            rc = bench_sync(bench);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int bench_retain(struct bench *bench, uint64_t retain_bytes)
{
    struct journal_retention retention = {
        .retain_bytes = retain_bytes, .durable = bench->durable, .needed = UINT64_MAX};
    struct error_buffer why;
    size_t gone = 0;

    while (gone < bench->journal.count &&
           journal_judge(bench->journal.entries, bench->journal.count, gone, &retention) ==
               JOURNAL_GONE)
        gone++;
    if (gone > 0)
        bench->first = max_u64(bench->first, bench->journal.entries[gone].base);
    return journal_retain(&bench->journal, &retention, &why);
}

/* ---- The oracle ------------------------------------------------------------------------------------ */

struct reader {
    struct bench *bench;
    struct bench_reading reading;
    unsigned char *seen; /* per message */
    uint64_t limit;
    uint64_t last; /* end of the last message */
};

static bool is_published(struct reader *reader, const struct journal_record *record)
{
    const struct bench *bench = reader->bench;
    size_t index = find_message(bench, record->offset);

    if (index == bench->count || bench->messages[index].offset != record->offset ||
        bench->messages[index].length != record->length || bench->messages[index].padding ||
        bench->messages[index].gone)
        return false;
    for (uint32_t i = 0; i < record->length; i++) {
        if (record->payload[i] != (unsigned char)(record->offset / RECORD_UNIT * 31 + i * 7 + 1))
            return false;
    }
    reader->seen[index] = 1;
    return record->timestamp_ns == record->offset + 1;
}

/* A journal_record_fn. */
static int see_record(void *context, const struct journal_record *record)
{
    struct reader *reader = context;

    if (record->offset + record_size(record->length) > reader->limit)
        return 0;
    reader->reading.messages++;
    if (!is_published(reader, record) || record->offset < reader->last)
        reader->reading.foreign++;
    reader->last = record->offset + record_size(record->length);
    return 0;
}

static void read_file(struct reader *reader, const struct bench_file *file)
{
    struct journal_header header;
    struct journal_scan scan = {.end = file->base};
    struct journal_record found;

    if (journal_check_header(file->bytes, file->length, file->base, &header, NULL) < 0 ||
        header.topic != BENCH_TOPIC || header.partition != BENCH_PARTITION)
        return;
    do {
        (void)journal_scan(file->bytes, file->length, &header, scan.end, reader->limit, see_record,
                           reader, &scan);
        reader->reading.end = max_u64(reader->reading.end, scan.end);
        if (scan.stop == JOURNAL_STOP_LIMIT ||
            !journal_find_record(file->bytes, file->length, &header, scan.end + RECORD_UNIT,
                                 &found))
            return;
        scan.end = found.offset;
    } while (scan.end < reader->limit);
}

static void count_missing(struct reader *reader)
{
    struct bench *bench = reader->bench;

    for (size_t i = find_message(bench, bench->first); i < bench->count; i++) {
        struct bench_message *message = &bench->messages[i];

        if (message->padding || message->gone || reader->seen[i] ||
            end_of(message) > bench->durable)
            continue;
        if (reader->reading.missing++ == 0)
            reader->reading.first_missing = message->offset;
    }
}

/* `settle`: what is not there is gone. */
static struct bench_reading read_dir(struct bench *bench, const char *dir, bool settle)
{
    struct reader reader = {.bench = bench, .seen = calloc(bench->count + 1, 1)};
    struct bench_files files;

    REQUIRE(reader.seen != NULL);
    bench_load(dir, &files);
    for (size_t i = 0; i < files.count; i++) {
        reader.limit = i + 1 < files.count ? files.files[i + 1].base : UINT64_MAX;
        read_file(&reader, &files.files[i]);
    }
    bench_unload(&files);
    count_missing(&reader);
    for (size_t i = 0; settle && i < bench->count; i++)
        bench->messages[i].gone |= !reader.seen[i];
    free(reader.seen);
    CHECK_EQ(reader.reading.foreign, 0);
    return reader.reading;
}

struct bench_reading bench_read(struct bench *bench, const char *dir)
{
    return read_dir(bench, dir, false);
}

void bench_check(struct bench *bench, const char *dir)
{
    struct bench_reading reading = bench_read(bench, dir);

    if (!CHECK_EQ(reading.missing, 0))
        FAIL("first lost: offset %llu; durable %llu", (unsigned long long)reading.first_missing,
             (unsigned long long)bench->durable);
}
