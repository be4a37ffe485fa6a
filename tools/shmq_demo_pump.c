/* shmq_demo_pump.c: the producers and consumers of `make demo`, written as a user of shmq.h would
 * write them.
 *
 * A message's key is its file, so that its pieces keep their order; its header "n" is its number
 * in the file. A producer notes what it has sent after publishing it, a consumer what it has
 * received before committing it: whoever is killed in between does it again, and the number tells
 * the second one apart.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/shmq_demo.h"

const char *const demo_topic_names[DEMO_TOPICS] = {"demo.lines", "demo.blobs"};
const char *const demo_group_names[DEMO_GROUPS] = {"audit", "archive"};

uint64_t demo_checksum(uint64_t checksum, const void *bytes, size_t length)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < length; i++)
        checksum = (checksum ^ p[i]) * UINT64_C(0x100000001b3);
    return checksum;
}

void demo_account_read(const struct demo_account *account, uint64_t *ret_next, uint64_t *ret_bytes,
                       uint64_t *ret_checksum)
{
    uint32_t which = atomic_load_explicit(&account->which, memory_order_acquire) & 1;

    *ret_next = account->state[which].next;
    *ret_bytes = account->state[which].bytes;
    *ret_checksum = account->state[which].checksum;
}

void demo_account_write(struct demo_account *account, uint64_t next, uint64_t bytes,
                        uint64_t checksum)
{
    uint32_t which = (atomic_load_explicit(&account->which, memory_order_relaxed) & 1) ^ 1;

    account->state[which].next = next;
    account->state[which].bytes = bytes;
    account->state[which].checksum = checksum;
    atomic_store_explicit(&account->which, which, memory_order_release);
}

static uint32_t piece_length(const struct demo_file *file, uint64_t number, const unsigned char *at,
                             size_t left)
{
    if (file->topic == DEMO_LINES) {
        const unsigned char *newline =
            memchr(at, '\n', left < DEMO_CHUNK_MAX ? left : DEMO_CHUNK_MAX);
        size_t length = newline                 ? (size_t)(newline - at) + 1
                        : left < DEMO_CHUNK_MAX ? left
                                                : DEMO_CHUNK_MAX;

        return (uint32_t)length;
    }
    /* All sizes, from 1 byte to the largest, the same for the same file and number. */
    uint64_t mixed = (number + file->bytes) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t length = 1 + (uint32_t)((mixed >> 33) % DEMO_CHUNK_MAX) / (1 + (uint32_t)(mixed & 15));

    return length < left ? length : (uint32_t)left;
}

bool demo_split(const struct demo_file *file, demo_piece_fn fn, void *context)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    bool whole = false;

    if (fd < 0)
        return false;
    unsigned char *bytes = mmap(NULL, file->bytes, PROT_READ, MAP_PRIVATE, fd, 0);

    close(fd);
    if (bytes == MAP_FAILED)
        return false;
    uint64_t at = 0, number = 0;

    for (; at < file->bytes; number++) {
        uint32_t length = piece_length(file, number, bytes + at, file->bytes - at);

        if (!fn(context, number, bytes + at, length))
            break;
        at += length;
    }
    whole = at == file->bytes;
    munmap(bytes, file->bytes);
    return whole;
}

int demo_connect(const struct demo_shared *shared, shmq_connection **ret_connection)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;

    options.bus = shared->bus;
    options.runtime_dir = shared->runtime_dir;
    return shmq_connect(&options, ret_connection);
}

_Noreturn static void die(const char *what, shmq_connection *connection)
{
    fprintf(stderr, "demo: %s: %s\n", what, shmq_errmsg(connection));
    _exit(1);
}

static shmq_connection *connect_or_die(const struct demo_shared *shared, shmq_channel **ret_channel)
{
    shmq_connection *connection;

    if (demo_connect(shared, &connection) < 0)
        die("connect", NULL);
    if (shmq_channel_open(connection, ret_channel) < 0)
        die("channel", connection);
    return connection;
}

/* ---- producers ------------------------------------------------------------------------------- */

struct pump {
    struct demo_shared *shared;
    shmq_connection *connection;
    shmq_producer *producers[DEMO_TOPICS];
    const struct demo_file *file;
    struct demo_account *sent;
    uint64_t first; /* pieces before it were sent in an earlier life */
    char key[16];
};

static bool publish_piece(void *context, uint64_t number, const unsigned char *piece,
                          uint32_t length)
{
    struct pump *pump = context;
    unsigned char headers[32];
    size_t headers_length = 0;

    if (number < pump->first)
        return true;
    shmq_headers_add(headers, sizeof(headers), &headers_length, "n", &number, sizeof(number));
    struct shmq_message message = {
        .body = piece,
        .body_length = length,
        .key = pump->key,
        .key_length = (uint16_t)strlen(pump->key),
        .headers = headers,
        .headers_length = (uint16_t)headers_length,
    };

    if (shmq_publish(pump->producers[pump->file->topic], &message) < 0)
        die("publish", pump->connection);
    demo_account_write(pump->sent, number + 1, 0, 0);
    atomic_fetch_add_explicit(&pump->shared->sent_messages, 1, memory_order_relaxed);
    return true;
}

_Noreturn void demo_run_producer(struct demo_shared *shared, uint32_t producer)
{
    struct pump pump = {.shared = shared};
    struct shmq_producer_options options = SHMQ_PRODUCER_OPTIONS_INIT;
    shmq_channel *channel;

    options.timeout_ms = 60000;
    pump.connection = connect_or_die(shared, &channel);
    for (uint32_t t = 0; t < DEMO_TOPICS; t++) {
        if (shmq_producer_open(channel, demo_topic_names[t], &options, &pump.producers[t]) < 0)
            die(demo_topic_names[t], pump.connection);
    }
    for (uint32_t i = 0; i < shared->file_count; i++) {
        uint64_t bytes, checksum;

        pump.file = &shared->files[i];
        pump.sent = &shared->sent[i];
        demo_account_read(pump.sent, &pump.first, &bytes, &checksum);
        if (pump.file->producer != producer || pump.first == pump.file->messages)
            continue;
        snprintf(pump.key, sizeof(pump.key), "%u", i);
        if (!demo_split(pump.file, publish_piece, &pump)) {
            fprintf(stderr, "demo: %s: cannot be read any more\n", pump.file->path);
            _exit(1);
        }
    }
    shmq_close(pump.connection);
    _exit(0);
}

/* ---- consumers ------------------------------------------------------------------------------- */

static uint64_t message_number(const struct shmq_message *message)
{
    struct shmq_header header;
    size_t position = 0;
    uint64_t number = UINT64_MAX;

    while (shmq_headers_next(message, &position, &header) == 1) {
        if (header.name_length == 1 && header.name[0] == 'n' &&
            header.value_length == sizeof(number))
            memcpy(&number, header.value, sizeof(number));
    }
    return number;
}

static uint32_t message_file(const struct shmq_message *message, uint32_t file_count)
{
    char text[16] = {0};

    if (message->key_length == 0 || message->key_length >= sizeof(text))
        return file_count;
    memcpy(text, message->key, message->key_length);
    unsigned long file = strtoul(text, NULL, 10);

    return file < file_count ? (uint32_t)file : file_count;
}

static void receive(struct demo_shared *shared, uint32_t group, const struct shmq_message *message)
{
    uint32_t file = message_file(message, shared->file_count);
    uint64_t number = message_number(message), next, bytes, checksum;

    if (file == shared->file_count) {
        atomic_fetch_add(&shared->gaps, 1);
        return;
    }
    struct demo_account *account = &shared->received[group][file];
    uint32_t topic = shared->files[file].topic;

    demo_account_read(account, &next, &bytes, &checksum);
    if (number != next) {
        atomic_fetch_add(number < next ? &shared->duplicates[group][topic] : &shared->gaps, 1);
        return;
    }
    if (number == 0)
        checksum = DEMO_CHECKSUM_INIT;
    checksum = demo_checksum(checksum, message->body, message->body_length);
    demo_account_write(account, next + 1, bytes + message->body_length, checksum);
    atomic_fetch_add_explicit(&shared->received_messages[group][topic], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&shared->received_bytes[group][topic], message->body_length,
                              memory_order_relaxed);
}

_Noreturn void demo_run_consumer(struct demo_shared *shared, enum demo_topic topic, uint32_t group,
                                 bool standby)
{
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    struct shmq_message messages[64];
    shmq_channel *channel;
    shmq_consumer *consumer;
    shmq_connection *connection = connect_or_die(shared, &channel);

    options.group = demo_group_names[group];
    if (shmq_consumer_open(channel, demo_topic_names[topic], &options, &consumer) < 0)
        die(demo_topic_names[topic], connection);
    while (!atomic_load_explicit(&shared->stop, memory_order_acquire)) {
        int count = shmq_poll(consumer, messages, 64, 100);

        if (count < 0)
            die("poll", connection);
        if (count > 0 && standby)
            atomic_store(&shared->took_over, 1);
        for (int i = 0; i < count; i++)
            receive(shared, group, &messages[i]);
    }
    shmq_close(connection);
    _exit(0);
}
