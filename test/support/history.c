/* SPDX-License-Identifier: Apache-2.0 */
/* history.c: see history.h. */
#include "test/support/history.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libshmq/journal_read.h"
#include "libshmq/producer.h"

struct history_bench history_begin(const struct shmq_topic_options *options)
{
    struct history_bench bench = {.daemon = fixture_spawn()};

    bench.client = fixture_connect();
    fixture_topic(&bench.client, "t", options);
    bench.producer = fixture_producer(&bench.client, "t", 5000);
    return bench;
}

void history_end(struct history_bench *bench)
{
    CHECK_OK(shmq_topic_delete(bench->client.connection, "t"));
    fixture_close(&bench->client);
    fixture_end(bench->daemon);
    (void)test_remove_leftovers();
}

struct shmq_topic_options history_topic(uint32_t overflow)
{
    struct shmq_topic_options options = fixture_small_topic(overflow, 1);

    options.durability = SHMQ_DURABLE_OS;
    return options;
}

struct shmq_position history_position(shmq_consumer *consumer)
{
    struct shmq_position position;

    CHECK_OK(shmq_consumer_position(consumer, 0, &position));
    return position;
}

uint64_t history_publish(shmq_producer *producer, uint64_t number, uint32_t bytes)
{
    static unsigned char body[1u << 21];
    struct shmq_message message = {.body = body, .body_length = bytes};

    memcpy(body, &number, sizeof(number));
    memset(body + 8, (int)(number & 0xff), bytes - 8);
    CHECK_OK(shmq_publish(producer, &message));
    return message.offset;
}

uint64_t history_poll(shmq_consumer *consumer, uint32_t *ret_flags)
{
    struct shmq_message message;
    uint64_t number;
    int n = shmq_poll(consumer, &message, 1, test_scaled_ms(3000));

    if (n <= 0) {
        if (n < 0)
            FAIL("poll: %d: %s", n, shmq_errmsg(NULL));
        return UINT64_MAX;
    }
    memcpy(&number, message.body, sizeof(number));
    for (uint32_t i = 8; i < message.body_length; i++) {
        if (!CHECK_EQ(((const unsigned char *)message.body)[i], number & 0xff))
            break;
    }
    if (ret_flags)
        *ret_flags = message.flags;
    return number;
}

static bool all_durable(void *context)
{
    const struct history_bench *bench = context;
    const struct ring *ring = bench->producer->partitions[0].ring.ring;

    return atomic_load(&ring->state->durable) == ring_tail(ring);
}

void history_await_durable(struct history_bench *bench)
{
    CHECK(test_eventually(all_durable, bench, 10000));
}

/* ---- the files ------------------------------------------------------------------------------- */

struct history_file history_file;

static int look_at_file(const char *path, const struct stat *facts, int type, struct FTW *walk)
{
    uint64_t base;

    (void)facts;
    if (type != FTW_F || !strstr(path, "/journal/") ||
        !journal_parse_name(path + walk->base, &base))
        return 0;
    history_file.count++;
    if (base <= history_file.offset &&
        (history_file.path[0] == '\0' || base >= history_file.base)) {
        history_file.base = base;
        snprintf(history_file.path, sizeof(history_file.path), "%s", path);
    }
    return 0;
}

void history_find_file(uint64_t offset)
{
    memset(&history_file, 0, sizeof(history_file));
    history_file.offset = offset;
    REQUIRE(nftw(getenv("SHMQ_STATE_DIR"), look_at_file, 16, FTW_PHYS) == 0);
}

void history_flip_byte(uint64_t offset, uint64_t ahead)
{
    unsigned char byte;
    off_t at;

    history_find_file(offset);
    REQUIRE(history_file.path[0] != '\0');
    at = (off_t)(JOURNAL_HEADER_BYTES + (offset - history_file.base) + ahead);
    int fd = open(history_file.path, O_RDWR | O_CLOEXEC);

    REQUIRE(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    REQUIRE(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}
