/* SPDX-License-Identifier: Apache-2.0 */
/* partition_flush.c: a durable partition's journal is opened, recovered, and flushed to; see partition.h and flush.h. */
#include "daemon/partition.h"

#include "daemon/flush.h"
#include "daemon/io.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "daemon/topic.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define DELETED_SUFFIX ".deleted"

/* ---- directories ----------------------------------------------------------------------------- */

static int journals_dir(const struct realm *realm, char dir[PATH_MAX], struct error_buffer *why)
{
    int length = snprintf(dir, PATH_MAX, "%s/journal", realm->paths.state_bus_dir);

    return length < PATH_MAX ? 0 : error_set(why, SHMQ_EINVAL, "%.200s: too long a path", dir);
}

/* STATE/BUS/journal/NAME.ID, and what `suffix` adds. */
static int topic_dir(const struct topic *topic, const char *suffix, char dir[PATH_MAX],
                     struct error_buffer *why)
{
    int length =
        snprintf(dir, PATH_MAX, "%s/journal/%s.%" PRIu64 "%s", topic->realm->paths.state_bus_dir,
                 topic->options.name, topic->id, suffix);

    return length < PATH_MAX ? 0 : error_set(why, SHMQ_EINVAL, "%.200s: too long a path", dir);
}

/* One that was condemned, of a topic that is still there: the supervisor died before the metadata said that it goes. */
static void pardon_journals(const struct topic *topic)
{
    char dir[PATH_MAX];
    char deleted[PATH_MAX];

    if (topic_dir(topic, "", dir, NULL) == 0 &&
        topic_dir(topic, DELETED_SUFFIX, deleted, NULL) == 0 && access(dir, F_OK) < 0)
        (void)rename(deleted, dir);
}

static int open_journal(const struct partition *partition, struct journal *journal,
                        struct error_buffer *why)
{
    char dir[PATH_MAX];
    char number[16];
    int rc;

    pardon_journals(partition->topic);
    (void)snprintf(number, sizeof(number), "/%" PRIu32, partition->index);
    rc = topic_dir(partition->topic, number, dir, why);
    return rc < 0 ? rc : journal_open(journal, dir, partition->topic->id, partition->index, why);
}

/* Does what can be done: where it fails, a directory may be left that belongs to nobody, and a start warns of it. */
void topic_condemn_journals(struct topic *topic)
{
    CLEANUP_CLOSE int parent = -1;
    char dir[PATH_MAX];
    char deleted[PATH_MAX];

    if (!topic_is_durable(topic) || topic_dir(topic, "", dir, NULL) < 0 ||
        topic_dir(topic, DELETED_SUFFIX, deleted, NULL) < 0 || rename(dir, deleted) < 0)
        return;
    if (journals_dir(topic->realm, dir, NULL) == 0)
        parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent >= 0)
        (void)io_sync_dir(parent);
    FAULT("topic.delete.condemned");
}

void topic_pardon_journals(struct topic *topic)
{
    if (topic_is_durable(topic))
        pardon_journals(topic);
}

void topic_remove_journals(struct topic *topic)
{
    char dir[PATH_MAX];
    char deleted[PATH_MAX];

    if (!topic_is_durable(topic) || topic_dir(topic, "", dir, NULL) < 0 ||
        topic_dir(topic, DELETED_SUFFIX, deleted, NULL) < 0)
        return;
    for (uint32_t i = 0; i < topic->partition_count; i++)
        partition_stop_flushing(&topic->partitions[i]);
    if (rename(dir, deleted) == 0 || access(deleted, F_OK) == 0)
        flusher_remove_directory(topic->realm->flusher, deleted);
    else if (errno != ENOENT)
        log_warning("topic %s: its journal %s cannot be removed: %s; remove it by hand",
                    topic->options.name, dir, strerror(errno));
    FAULT("topic.delete.journals");
}

static bool is_journal_of(const struct realm *realm, const char *name)
{
    const char *dot = strrchr(name, '.');
    char *end = NULL;
    uint64_t id = dot ? strtoull(dot + 1, &end, 10) : 0;
    const struct topic *topic = end && *end == '\0' ? topic_find_id(realm, id) : NULL;

    return topic && strlen(topic->options.name) == (size_t)(dot - name) &&
           strncmp(topic->options.name, name, (size_t)(dot - name)) == 0;
}

/* Of a topic that never came to be there is a directory, and nothing in it. */
static bool remove_empty(const char *path)
{
    char partition[PATH_MAX + NAME_MAX + 16];

    for (uint32_t i = 0; i < PARTITIONS_MAX; i++) {
        (void)snprintf(partition, sizeof(partition), "%s/%" PRIu32, path, i);
        if (rmdir(partition) < 0 && errno != ENOENT)
            return false;
    }
    return rmdir(path) == 0;
}

static void sweep_directory(struct realm *realm, const char *dir, const char *name)
{
    char path[PATH_MAX + NAME_MAX + 2];
    char stem[NAME_MAX + 1];
    size_t length = strlen(name);
    size_t suffix = strlen(DELETED_SUFFIX);

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (length > suffix && strcmp(name + length - suffix, DELETED_SUFFIX) == 0) {
        (void)snprintf(stem, sizeof(stem), "%.*s", (int)(length - suffix), name);
        if (!is_journal_of(realm, stem)) /* quarantined, or it would have been opened by now */
            flusher_remove_directory(realm->flusher, path);
    } else if (!is_journal_of(realm, name) && !remove_empty(path)) {
        log_warning(
            "journal %s belongs to no topic of this bus; `shmq journal dump` reads it; remove "
            "it if nobody wants it",
            path);
    }
}

void journals_sweep(struct realm *realm)
{
    char dir_name[PATH_MAX];
    struct dirent *entry;
    DIR *dir;

    if (realm->config.ephemeral || journals_dir(realm, dir_name, NULL) < 0)
        return;
    dir = opendir(dir_name);
    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] != '.')
            sweep_directory(realm, dir_name, entry->d_name);
    }
    if (dir)
        (void)closedir(dir);
}

/* ---- flushing -------------------------------------------------------------------------------- */

static void fill_options(const struct partition *partition, struct flush_options *options)
{
    const struct topic_options *of_topic = &partition->topic->options;

    *options = (struct flush_options){
        .sync_interval_ns = of_topic->sync_interval_ns,
        .retain_bytes = of_topic->retain_bytes,
        .retain_ns = of_topic->retain_ns,
        .first = partition->saved_first,
    };
}

void partition_set_flush_options(struct partition *partition)
{
    struct flush_options options;

    if (!partition->log)
        return;
    fill_options(partition, &options);
    flush_set_options(partition->log, &options);
}

/* Takes the journal over. */
static int begin_flushing(struct partition *partition, struct journal *journal, uint64_t from,
                          uint64_t messages, uint64_t max_timestamp_ns, struct error_buffer *why)
{
    const struct topic_options *options = &partition->topic->options;
    struct realm *realm = partition->topic->realm;
    char label[NAME_BYTES + 32];
    struct flush_start start = {
        .prefix = realm->prefix,
        .label = partition_label(partition, label),
        .topic = partition->topic->id,
        .partition = partition->index,
        .durability = options->durability,
        .salt = partition->salt,
        .capacity = options->ring_bytes,
        .from = from,
        .previous_end = from == partition->base ? partition->history_end : from,
        .messages = messages,
        .max_timestamp_ns = max_timestamp_ns,
    };
    int rc;

    fill_options(partition, &start.options);
    rc = flush_add(realm->flusher, &start, journal, &partition->log, why);
    if (rc == 0)
        realm->mapping_count += PARTITION_FLUSH_MAPPINGS;
    return rc;
}

void partition_stop_flushing(struct partition *partition)
{
    if (!partition->log)
        return;
    flush_remove(partition->log);
    partition->log = NULL;
    partition->topic->realm->mapping_count -= PARTITION_FLUSH_MAPPINGS;
}

int partition_flush_new(struct partition *partition, struct error_buffer *why)
{
    struct journal journal;
    int rc;

    if (!topic_is_durable(partition->topic))
        return 0;
    partition->history_end = partition->base;
    rc = open_journal(partition, &journal, why);
    return rc < 0 ? rc : begin_flushing(partition, &journal, partition->base, 0, 0, why);
}

/* ---- at a start: the memory is there --------------------------------------------------------- */

struct durable_look {
    const struct state_segment *state;
    uint64_t durable;
    uint64_t messages;
};

static int look_at_durable(void *context)
{
    struct durable_look *look = context;

    look->durable = atomic_load_explicit(&look->state->durable, memory_order_acquire);
    look->messages = atomic_load_explicit(&look->state->journal_messages, memory_order_relaxed);
    return 0;
}

/* Where the log ended before its memory was lost: a file that was begun since says so, else only a scan does. */
static int find_history_end(struct partition *partition, struct journal *journal,
                            struct error_buffer *why)
{
    struct journal_history history;
    struct journal_entry entry, next;
    int rc;

    partition->history_end = partition->base;
    if (journal->count == 0 || journal->entries[0].base >= partition->base)
        return 0;
    if (journal_find(journal, partition->base, &entry, &next) && entry.base >= partition->base) {
        if (!entry.damaged)
            partition->history_end = min_u64(entry.previous_end, partition->base);
        return 0;
    }
    rc = journal_recover(journal, false, &history, why);
    if (rc == 0)
        partition->history_end = min_u64(history.end, partition->base);
    return rc;
}

static int resume(struct partition *partition, struct journal *journal, struct error_buffer *why)
{
    struct durable_look look = {.state = partition_state(partition)};
    uint64_t tail = 0;
    int rc = find_history_end(partition, journal, why);

    if (rc == 0)
        rc = partition_read_tail(partition, &tail);
    if (rc == 0)
        rc = partition_run(partition, NULL, look_at_durable, &look);
    if (rc == 0 &&
        (look.durable < partition->base || look.durable > tail || look.durable % RECORD_UNIT ||
         tail - look.durable > partition->topic->options.ring_bytes)) {
        partition_quarantine(partition, "its state says that %" PRIu64 " is durable", look.durable);
        rc = SHMQ_ECORRUPT;
    }
    if (rc == 0 && journal->count > 0 && journal->entries[journal->count - 1].base > look.durable) {
        partition_quarantine(partition,
                             "its journal goes on at %" PRIu64 ", its memory says %" PRIu64
                             ": they are not of the same log",
                             journal->entries[journal->count - 1].base, look.durable);
        rc = SHMQ_ECORRUPT;
    }
    if (rc < 0) {
        journal_close(journal);
        return partition->quarantined ? 0 : rc; /* said elsewhere */
    }
    /* What the newest file holds is at most as young as now. */
    rc = begin_flushing(partition, journal, look.durable, look.messages, clock_realtime_ns(), why);
    if (rc != SHMQ_ECORRUPT)
        return rc;
    partition_quarantine(partition, "it was changed while the flusher opened it");
    return 0;
}

int partition_flush_on(struct partition *partition, struct error_buffer *why)
{
    struct journal journal;
    int rc;

    if (!topic_is_durable(partition->topic) || partition->quarantined)
        return 0;
    rc = open_journal(partition, &journal, why);
    return rc < 0 ? rc : resume(partition, &journal, why);
}

/* ---- at a start: the memory is gone ---------------------------------------------------------- */

static void report_recovery(const struct partition *partition,
                            const struct journal_history *history, uint64_t base, uint64_t took_ns)
{
    char label[NAME_BYTES + 32];

    (void)partition_label(partition, label);
    if (history->damaged_bytes > 0)
        log_error("%s: its journal is damaged: %" PRIu64 " bytes from offset %" PRIu64
                  " on cannot be read; run `shmq journal verify %s`",
                  label, history->damaged_bytes, history->damaged_at,
                  partition->topic->options.name);
    if (history->torn_at != UINT64_MAX)
        log_info("%s: a torn record at offset %" PRIu64 " was dropped: it had not been confirmed",
                 label, history->torn_at);
    log_info("%s: recovered from its journal: %" PRIu64 " messages up to offset %" PRIu64
             " (%" PRIu64 " bytes scanned in %" PRIu64 " ms); goes on at offset %" PRIu64,
             label, history->messages, history->end, history->scanned_bytes, took_ns / NS_PER_MS,
             base);
}

int partition_recover(struct partition *partition, struct error_buffer *why)
{
    struct topic *topic = partition->topic;
    uint64_t begun_ns = clock_monotonic_ns();
    struct journal_history history;
    struct journal journal;
    uint64_t base = max_u64(partition->mark, topic->base);
    int rc = open_journal(partition, &journal, why);

    if (rc < 0)
        return rc;
    rc = journal_recover(&journal, topic->options.durability == DURABLE_OS, &history, why);
    if (rc < 0) {
        journal_close(&journal);
        return rc;
    }
    /* Beyond all offsets ever used: a log's end is at most a ring beyond what is durable, and that lies in a file, or at the base
     * that the metadata knows. */
    if (!history.empty)
        base = max_u64(base, history.next_base);
    base = align_up_u64(base, RECORD_UNIT) + topic->options.ring_bytes;
    if (topic->options.durability ==
        DURABLE_OS) /* a file is of JOURNAL_FILE_MOST, or holds one record */
        base += FLUSH_UNKNOWN_FILES * (JOURNAL_FILE_MOST + topic->options.ring_bytes);
    partition->history_end = history.empty ? base : min_u64(history.end, base);
    FAULT("start.partition.recovered");
    partition_unlink(partition);
    rc = partition_create(partition, base, why);
    if (rc < 0) {
        journal_close(&journal);
        return error_prefix(why, rc, "topic %s/%" PRIu32, topic->options.name, partition->index);
    }
    partition->mark = base;
    report_recovery(partition, &history, base, clock_monotonic_ns() - begun_ns);
    return begin_flushing(partition, &journal, base, history.messages, history.max_timestamp_ns,
                          why);
}
