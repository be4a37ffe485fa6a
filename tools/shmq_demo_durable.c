/* SPDX-License-Identifier: Apache-2.0 */
/* shmq_demo_durable.c: the second act of `make demo`: what was confirmed survives everybody.
 *
 * Writers send the lines of the demo's files through a durable topic and note how far they were confirmed. In
 * full flight the supervisor and all writers are killed, and the shared memory is unlinked, which is what a crash of the
 * host does to it. A new supervisor recovers the topic from its journal, and a reader compares line by line.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/shmq_demo.h"

#define LEDGER   "demo.ledger"
#define WINDOW   256u   /* messages that a writer has published and not seen confirmed */
#define ENOUGH   60000u /* lines confirmed before the axe falls */
#define PATIENCE 60.0   /* s */
#define TIMEOUT  10000  /* ms */
#define BATCH    64u

/* ---- the lines of one writer, one after the other -------------------------------------------- */

struct line_source {
    const struct demo_shared *shared;
    uint32_t writer;
    uint32_t file; /* index of the next one to open */
    unsigned char *bytes;
    size_t length, at;
};

static void close_file(struct line_source *source)
{
    if (source->bytes)
        munmap(source->bytes, source->length);
    source->bytes = NULL;
}

static bool open_next_file(struct line_source *source)
{
    const struct demo_shared *shared = source->shared;

    close_file(source);
    while (source->file < shared->file_count) {
        const struct demo_file *file = &shared->files[source->file++];
        int fd;

        if (file->topic != DEMO_LINES || file->producer != source->writer || file->bytes == 0)
            continue;
        fd = open(file->path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        source->bytes = mmap(NULL, file->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        close(fd);
        if (source->bytes == MAP_FAILED) {
            source->bytes = NULL;
            continue;
        }
        source->length = file->bytes;
        source->at = 0;
        return true;
    }
    return false;
}

/* False: there are no more. */
static bool next_line(struct line_source *source, const unsigned char **ret_line,
                      uint32_t *ret_length)
{
    const unsigned char *line, *newline;
    size_t left;

    while (!source->bytes || source->at == source->length) {
        if (!open_next_file(source))
            return false;
    }
    line = source->bytes + source->at;
    left = source->length - source->at;
    left = left < DEMO_CHUNK_MAX ? left : DEMO_CHUNK_MAX;
    newline = memchr(line, '\n', left);
    *ret_line = line;
    *ret_length = (uint32_t)(newline ? (size_t)(newline - line) + 1 : left);
    source->at += *ret_length;
    return true;
}

/* ---- writers --------------------------------------------------------------------------------- */

_Noreturn static void die(const char *what, shmq_connection *connection)
{
    fprintf(stderr, "demo: %s: %s\n", what, shmq_errmsg(connection));
    _exit(1);
}

_Noreturn static void run_writer(struct demo_shared *shared, uint32_t writer)
{
    struct line_source source = {.shared = shared, .writer = writer};
    struct shmq_message window[WINDOW];
    shmq_connection *connection;
    shmq_channel *channel;
    shmq_producer *producer;
    uint64_t sent = 0;
    const unsigned char *line;
    uint32_t length;
    char key = (char)('a' + writer);

    if (demo_connect(shared, &connection) < 0)
        die("connect", NULL);
    if (shmq_channel_open(connection, &channel) < 0 ||
        shmq_producer_open(channel, LEDGER, NULL, &producer) < 0)
        die("producer", connection);
    for (; next_line(&source, &line, &length); sent++) {
        struct shmq_message *message = &window[sent % WINDOW];

        if (sent >= WINDOW) {
            if (shmq_confirm(producer, message, SHMQ_DURABLE, TIMEOUT) < 0)
                die("confirm", connection);
            /* Noted after it was confirmed, never before. */
            atomic_store(&shared->confirmed[writer], sent - WINDOW + 1);
        }
        *message = (struct shmq_message){
            .body = line, .body_length = length, .key = &key, .key_length = 1};
        if (shmq_publish(producer, message) < 0)
            die("publish", connection);
    }
    for (uint64_t i = sent > WINDOW ? sent - WINDOW : 0; i < sent; i++) {
        if (shmq_confirm(producer, &window[i % WINDOW], SHMQ_DURABLE, TIMEOUT) < 0)
            die("confirm", connection);
        atomic_store(&shared->confirmed[writer], i + 1);
    }
    shmq_close(connection);
    _exit(0);
}

static pid_t start_writer(struct demo_shared *shared, uint32_t writer)
{
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_writer(shared, writer);
    }
    return pid;
}

static uint64_t total_confirmed(struct demo_shared *shared)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < DEMO_PRODUCERS; i++)
        total += atomic_load(&shared->confirmed[i]);
    return total;
}

/* ---- the crash ------------------------------------------------------------------------------- */

static uint32_t unlink_memory(const struct demo_shared *shared)
{
    struct dirent **entries;
    int count = scandir("/dev/shm", &entries, NULL, NULL);
    char prefix[64];
    uint32_t unlinked = 0;

    snprintf(prefix, sizeof(prefix), "shmq.%s.", shared->bus);
    for (int i = 0; i < count; i++) {
        char path[320];

        if (strncmp(entries[i]->d_name, prefix, strlen(prefix)) == 0 &&
            snprintf(path, sizeof(path), "/dev/shm/%s", entries[i]->d_name) < (int)sizeof(path) &&
            unlink(path) == 0)
            unlinked++;
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return unlinked;
}

static bool create_ledger(const struct demo_shared *shared)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    shmq_connection *connection;
    bool good = demo_connect(shared, &connection) == 0;

    options.durability = SHMQ_DURABLE_ALWAYS;
    good = good && shmq_topic_create(connection, LEDGER, &options) == 0;
    if (!good)
        fprintf(stderr, "demo: topic %s: %s\n", LEDGER, shmq_errmsg(connection));
    shmq_close(connection);
    return good;
}

static bool write_and_crash(struct demo_shared *shared)
{
    pid_t writers[DEMO_PRODUCERS];
    double begin = demo_now_s();
    uint64_t confirmed;

    for (uint32_t i = 0; i < DEMO_PRODUCERS; i++)
        writers[i] = start_writer(shared, i);
    while (total_confirmed(shared) < ENOUGH && demo_now_s() - begin < PATIENCE)
        demo_sleep_us(200);
    confirmed = total_confirmed(shared);
    demo_kill_supervisor(false);
    for (uint32_t i = 0; i < DEMO_PRODUCERS; i++)
        kill(writers[i], SIGKILL);
    for (uint32_t i = 0; i < DEMO_PRODUCERS; i++)
        waitpid(writers[i], NULL, 0);
    demo_kill_supervisor(true);
    demo_say("%llu lines confirmed on disk in %.2f s, %u writers and group commit",
             (unsigned long long)confirmed, demo_now_s() - begin, DEMO_PRODUCERS);
    demo_say("kill -9 supervisor and all writers, in full flight; its %u segments of shared memory "
             "go too, as they do when the host crashes",
             unlink_memory(shared));
    return confirmed >= ENOUGH;
}

/* ---- afterwards ------------------------------------------------------------------------------ */

struct audit {
    struct line_source sources[DEMO_PRODUCERS];
    uint64_t read[DEMO_PRODUCERS];
    bool wrong;
};

static void audit_line(struct audit *audit, const struct shmq_message *message)
{
    uint32_t writer =
        message->key_length == 1 ? (uint32_t)(*(const char *)message->key - 'a') : DEMO_PRODUCERS;
    const unsigned char *line;
    uint32_t length;

    if (writer >= DEMO_PRODUCERS || !next_line(&audit->sources[writer], &line, &length) ||
        length != message->body_length || memcmp(line, message->body, length) != 0 ||
        (message->flags & SHMQ_MESSAGE_AFTER_LOSS)) {
        audit->wrong = true;
        return;
    }
    audit->read[writer]++;
}

static bool read_all(struct audit *audit, shmq_consumer *consumer)
{
    struct shmq_message messages[BATCH];
    struct shmq_position position;
    double begin = demo_now_s();

    while (demo_now_s() - begin < PATIENCE) {
        int count = shmq_poll(consumer, messages, BATCH, 100);

        if (count < 0)
            return false;
        for (int i = 0; i < count; i++)
            audit_line(audit, &messages[i]);
        if (count == 0 && shmq_consumer_position(consumer, 0, &position) == 0 &&
            position.position == position.tail)
            return true;
    }
    return false;
}

static bool audit_ledger(struct demo_shared *shared)
{
    struct audit audit = {.wrong = false};
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    shmq_connection *connection;
    shmq_channel *channel;
    shmq_consumer *consumer;
    bool good = demo_connect(shared, &connection) == 0;

    for (uint32_t i = 0; i < DEMO_PRODUCERS; i++)
        audit.sources[i] = (struct line_source){.shared = shared, .writer = i};
    options.group = "audit";
    options.from = SHMQ_FROM_EARLIEST;
    good = good && shmq_channel_open(connection, &channel) == 0 &&
           shmq_consumer_open(channel, LEDGER, &options, &consumer) == 0 &&
           read_all(&audit, consumer);
    if (!good)
        fprintf(stderr, "demo: audit: %s\n", shmq_errmsg(connection));
    printf("\n  %-12s %-9s %16s %12s   %s\n", "topic", "writer", "lines confirmed", "lines there",
           "equal, in order");
    for (uint32_t i = 0; i < DEMO_PRODUCERS; i++) {
        uint64_t confirmed = atomic_load(&shared->confirmed[i]);
        bool kept = audit.read[i] >= confirmed && !audit.wrong;

        printf("  %-12s %-9c %16llu %12llu   %s\n", LEDGER, (char)('a' + i),
               (unsigned long long)confirmed, (unsigned long long)audit.read[i],
               kept ? "yes" : "NO");
        good = good && kept;
        close_file(&audit.sources[i]);
    }
    if (connection)
        shmq_topic_delete(connection, LEDGER);
    shmq_close(connection);
    return good;
}

bool demo_durable(struct demo_shared *shared)
{
    double begin;

    putchar('\n');
    if (!create_ledger(shared))
        return false;
    demo_say("topic %s: durable, every confirm is on disk (fdatasync)", LEDGER);
    if (!write_and_crash(shared))
        return false;
    begin = demo_now_s();
    if (!demo_start_supervisor())
        return false;
    demo_say("a new supervisor has recovered it from the journal in %.0f ms",
             (demo_now_s() - begin) * 1e3);
    return audit_ledger(shared);
}
