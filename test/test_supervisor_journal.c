/* SPDX-License-Identifier: Apache-2.0 */
/* Durable topics through the supervisor's socket: who may create them, what can be altered, files handed out, what
 * descriptions say. Cursors that survive the host are in test_supervisor_cursors.c. */
#include "libshmq/journal_read.h"
#include "libshmq/shmq.h"
#include "test/support/durable_stage.h"
#include "test/support/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- creating and altering --------------------------------------------------------------------- */

static struct topic_options options_for(const char *name)
{
    struct topic_options options;

    topic_options_init(&options);
    snprintf(options.name, sizeof(options.name), "%s", name);
    options.ring_bytes = RING_MIN_BYTES;
    return options;
}

TEST(an_ephemeral_bus_refuses_durable_topics)
{
    struct topic_options options = options_for("t");
    shmq_supervisor *supervisor = fixture_start();
    struct wire wire;

    REQUIRE(wire_open(&wire));
    options.durability = DURABLE_OS;
    CHECK_ERR(wire_topic_create(&wire, &options, 0, NULL), SHMQ_ENOTSUP);
    CHECK_CONTAINS(wire.text, "ephemeral");
    CHECK_CONTAINS(wire.text, "--durable none");
    options.durability = DURABLE_NONE;
    CHECK_OK(wire_topic_create(&wire, &options, 0, NULL));
    options.durability = DURABLE_OS; /* an existing one is success, whatever its options */
    CHECK_OK(wire_topic_create(&wire, &options, TOPIC_IF_NOT_EXISTS, NULL));
    wire_close(&wire);
    fixture_stop(supervisor);
}

struct refusal {
    uint32_t policy, durability;
    uint64_t sync_interval_ns, retain_bytes, retain_ns;
    const char *text; /* NULL: it is fine */
};

TEST(options_that_contradict_each_other_are_refused)
{
    static const struct refusal REFUSALS[] = {
        {OVERFLOW_SPILL, DURABLE_NONE, 0, 0, 0,
         "--overflow spill needs --durable os, interval or always"},
        {OVERFLOW_SPILL, DURABLE_OS, 0, 0, 0, NULL},
        {OVERFLOW_BLOCK, DURABLE_INTERVAL, 999999, 0, 0, "from 1 ms to 1 h"},
        {OVERFLOW_BLOCK, DURABLE_INTERVAL, 1000000, 0, 0, NULL},
        {OVERFLOW_BLOCK, DURABLE_INTERVAL, UINT64_C(3600000000000), 0, 0, NULL},
        {OVERFLOW_BLOCK, DURABLE_INTERVAL, UINT64_C(3600000000001), 0, 0, "from 1 ms to 1 h"},
        {OVERFLOW_BLOCK, DURABLE_ALWAYS, 5000000, 0, 0, "--durable interval alone"},
        {OVERFLOW_BLOCK, DURABLE_ALWAYS, 0, 1 << 20, 0, NULL},
        {OVERFLOW_BLOCK, DURABLE_ALWAYS, 0, (1 << 20) - 1, 0, "1M or more"},
        {OVERFLOW_BLOCK, DURABLE_NONE, 0, 1 << 20, 0, "has none"},
        {OVERFLOW_BLOCK, DURABLE_NONE, 0, 0, 1000000000, "has none"},
        {OVERFLOW_BLOCK, DURABLE_ALWAYS + 1, 0, 0, 0, "unknown"},
    };
    struct error_buffer why;

    for (size_t i = 0; i < sizeof(REFUSALS) / sizeof(REFUSALS[0]); i++) {
        const struct refusal *r = &REFUSALS[i];
        struct topic_options options = options_for("t");

        test_context("case %zu: ", i);
        options.policy = r->policy;
        options.durability = r->durability;
        options.sync_interval_ns = r->sync_interval_ns;
        options.retain_bytes = r->retain_bytes;
        options.retain_ns = r->retain_ns;
        if (r->text) {
            CHECK_ERR(topic_options_complete(&options, &why), SHMQ_EINVAL);
            CHECK_CONTAINS(why.text, r->text);
        } else {
            CHECK_OK(topic_options_complete(&options, &why));
            CHECK_EQ(options.sync_interval_ns,
                     r->sync_interval_ns ? r->sync_interval_ns : SYNC_INTERVAL_DEFAULT_NS);
        }
    }
}

/* Through the library: both ways, and over a restart. */
TEST(retention_and_sync_interval_can_be_altered)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    struct shmq_topic_options change = SHMQ_TOPIC_OPTIONS_INIT;
    struct shmq_topic_info info;
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();

    options.ring_bytes = RING_MIN_BYTES;
    options.durability = SHMQ_DURABLE_INTERVAL;
    options.sync_interval_ms = 250;
    options.retain_bytes = 8 << 20;
    fixture_topic(&client, "t", &options);
    REQUIRE_OK(shmq_topic_describe(client.connection, "t", &info));
    CHECK_EQ(info.durability, SHMQ_DURABLE_INTERVAL);
    CHECK_EQ(info.sync_interval_ms, 250);
    CHECK_EQ(info.retain_bytes, 8 << 20);
    CHECK_EQ(info.retain_ms, 0);
    change.retain_bytes = SHMQ_RETAIN_UNBOUNDED;
    change.retain_ms = 60000;
    change.sync_interval_ms = 5;
    CHECK_OK(shmq_topic_alter(client.connection, "t", &change));
    fixture_close(&client);
    test_kill(supervisor, SIGKILL);
    supervisor = fixture_spawn();
    client = fixture_connect();
    REQUIRE_OK(shmq_topic_describe(client.connection, "t", &info));
    CHECK_EQ(info.sync_interval_ms, 5);
    CHECK_EQ(info.retain_bytes, 0);
    CHECK_EQ(info.retain_ms, 60000);
    /* What cannot be is refused, and changes nothing. */
    change = (struct shmq_topic_options)SHMQ_TOPIC_OPTIONS_INIT;
    change.retain_bytes = 4096;
    change.partitions = 3;
    CHECK_ERR(shmq_topic_alter(client.connection, "t", &change), SHMQ_EINVAL);
    CHECK_CONTAINS(shmq_errmsg(client.connection), "1M or more");
    REQUIRE_OK(shmq_topic_describe(client.connection, "t", &info));
    CHECK_EQ(info.partitions, 1);
    CHECK_EQ(info.retain_bytes, 0);
    options = (struct shmq_topic_options)SHMQ_TOPIC_OPTIONS_INIT;
    fixture_topic(&client, "memory", &options);
    change = (struct shmq_topic_options)SHMQ_TOPIC_OPTIONS_INIT;
    change.retain_ms = 1000;
    CHECK_ERR(shmq_topic_alter(client.connection, "memory", &change), SHMQ_EINVAL);
    fixture_close(&client);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

/* ---- JOURNAL_OPEN ------------------------------------------------------------------------------- */

static struct protocol_journal_opened open_file(struct durable_stage *stage, uint64_t offset,
                                                uint32_t flags, uint64_t time_ns)
{
    struct protocol_journal_open request = {
        .topic = stage->topic,
        .offset = offset,
        .flags = flags,
        .time_ns = time_ns,
    };

    REQUIRE_OK(wire_call(&stage->wire, &request, PROTOCOL_JOURNAL_OPEN, sizeof(request)));
    return *(const struct protocol_journal_opened *)(const void *)stage->wire.reply;
}

TEST(files_are_handed_out_to_be_read)
{
    struct protocol_journal_opened reply;
    struct journal_header header;
    struct journal_scan scan;
    struct error_buffer why;
    struct durable_stage stage;
    struct stat status;
    unsigned char *image;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    stage_publish(&stage, 3 * STAGE_RECORDS_IN_RING);
    stage_settle(&stage);
    reply = open_file(&stage, 640, 0, 0);
    REQUIRE(stage.wire.fd_count == 1 && reply.present == 1);
    CHECK_EQ(reply.base, 0);
    CHECK_EQ(reply.next_base, UINT64_MAX);
    CHECK_EQ(reply.log_base, 0);
    REQUIRE(fstat(stage.wire.fds[0], &status) == 0);
    CHECK_INT_EQ(write(stage.wire.fds[0], "x", 1), -1);
    CHECK_INT_EQ(errno, EBADF);
    CHECK_INT_EQ(fcntl(stage.wire.fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
    image = malloc((size_t)status.st_size);
    REQUIRE(image && pread(stage.wire.fds[0], image, (size_t)status.st_size, 0) == status.st_size);
    REQUIRE_OK(journal_check_header(image, (size_t)status.st_size, 0, &header, &why));
    CHECK_EQ(header.topic, stage.topic);
    CHECK_EQ(header.salt, stage.ring.salt);
    CHECK_OK(
        journal_scan(image, (size_t)status.st_size, &header, 0, UINT64_MAX, NULL, NULL, &scan));
    CHECK_EQ(scan.records, 3 * STAGE_RECORDS_IN_RING);
    CHECK_EQ(scan.end, ring_tail(&stage.ring));
    free(image);
    /* By time: 1000 ns was the first one's. */
    reply = open_file(&stage, 0, JOURNAL_BY_TIME, 1005);
    CHECK_EQ(reply.present, 1);
    CHECK_EQ(reply.base, 0);
    stage_close(&stage);
}

TEST(a_file_says_where_the_next_one_begins)
{
    struct protocol_journal_opened reply;
    struct durable_stage stage;
    uint64_t end, base;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    stage_publish(&stage, 100);
    stage_settle(&stage);
    end = ring_tail(&stage.ring);
    stage_restart(&stage, false); /* the log goes on, in a new file */
    stage_publish(&stage, 1);
    stage_settle(&stage);
    reply = open_file(&stage, 0, 0, 0);
    CHECK_EQ(reply.base, 0);
    CHECK_EQ(reply.next_base, end);
    CHECK_EQ(reply.next_previous_end, end);
    reply = open_file(&stage, end, 0, 0);
    CHECK_EQ(reply.base, end);
    CHECK_EQ(reply.next_base, UINT64_MAX);
    stage_restart(&stage, true); /* the log goes on behind a gap */
    stage_publish(&stage, 1);
    stage_settle(&stage);
    base = stage.ring.state->base;
    CHECK(base > end + 64);
    reply = open_file(&stage, end, 0, 0);
    CHECK_EQ(reply.base, end);
    CHECK_EQ(reply.next_base, base);
    CHECK_EQ(reply.next_previous_end, end + 64);
    CHECK_EQ(reply.log_base, base);
    reply = open_file(&stage, end + 64, 0, 0); /* in the gap: of the file before */
    CHECK_EQ(reply.base, end);
    reply = open_file(&stage, UINT64_MAX, 0, 0);
    CHECK_EQ(reply.base, base);
    stage_close(&stage);
}

TEST(without_a_journal_there_is_nothing_to_open)
{
    struct topic_options options = options_for("memory");
    struct protocol_journal_open request = {.offset = 0};
    struct protocol_topic_info info;
    struct durable_stage stage;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_OS);
    REQUIRE_OK(wire_topic_create(&stage.wire, &options, 0, &info));
    request.topic = info.id;
    CHECK_ERR(wire_call(&stage.wire, &request, PROTOCOL_JOURNAL_OPEN, sizeof(request)),
              SHMQ_ENOTSUP);
    CHECK_CONTAINS(stage.wire.text, "no journal");
    request.topic = stage.topic;
    request.partition = 1;
    CHECK_ERR(wire_call(&stage.wire, &request, PROTOCOL_JOURNAL_OPEN, sizeof(request)),
              SHMQ_EINVAL);
    request.topic = 999;
    CHECK_ERR(wire_call(&stage.wire, &request, PROTOCOL_JOURNAL_OPEN, sizeof(request)),
              SHMQ_ENOTOPIC);
    stage_close(&stage);
}

/* ---- descriptions ------------------------------------------------------------------------------- */

TEST(descriptions_tell_of_journals)
{
    struct topic_options options = options_for("memory");
    struct protocol_partition_info info;
    struct protocol_header status;
    const struct protocol_status_reply *reply;
    struct durable_stage stage;

    stage_open(&stage, OVERFLOW_BLOCK, DURABLE_ALWAYS);
    REQUIRE_OK(wire_topic_create(&stage.wire, &options, 0, NULL));
    stage_publish(&stage, 10);
    stage_settle(&stage);
    info = stage_describe(&stage);
    CHECK_EQ(info.durable, 640);
    CHECK_EQ(info.journal_first, 0);
    CHECK_EQ(info.journal_files, 1);
    CHECK(info.journal_bytes >= JOURNAL_HEADER_BYTES + 640);
    CHECK(info.journal_syncs >= 1);
    CHECK_EQ(info.journal_damaged, 0);
    CHECK_EQ(info.journal_error, 0);
    REQUIRE_OK(wire_call(&stage.wire, &status, PROTOCOL_STATUS, sizeof(status)));
    reply = (const void *)stage.wire.reply;
    CHECK_EQ(reply->journals, 1);
    CHECK_EQ(reply->journals_failing, 0);
    CHECK_EQ(reply->journal_bytes, info.journal_bytes);
    stage_close(&stage);
}

static int keep_partition(const struct shmq_partition_info *info, void *context)
{
    *(struct shmq_partition_info *)context = *info;
    return 0;
}

TEST(the_library_shows_them)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;
    struct shmq_partition_info durable, memory;
    struct shmq_bus_info bus;
    pid_t supervisor = fixture_spawn();
    struct fixture_client client = fixture_connect();

    options.durability = SHMQ_DURABLE_OS;
    fixture_topic(&client, "t", &options);
    fixture_topic(&client, "memory", NULL);
    REQUIRE_OK(shmq_partition_list(client.connection, "t", keep_partition, &durable));
    REQUIRE_OK(shmq_partition_list(client.connection, "memory", keep_partition, &memory));
    CHECK_EQ(durable.durable_offset, 0);
    CHECK_EQ(durable.journal_first, 0);
    CHECK_EQ(durable.journal_error, 0);
    CHECK_EQ(memory.durable_offset, UINT64_MAX);
    CHECK_EQ(memory.journal_files, 0);
    CHECK_EQ(memory.journal_bytes, 0);
    REQUIRE_OK(shmq_bus_describe(client.connection, &bus));
    CHECK_EQ(bus.journals, 1);
    CHECK_EQ(bus.journals_failing, 0);
    fixture_close(&client);
    fixture_end(supervisor);
    (void)test_remove_leftovers();
}

TEST_MAIN("supervisor_journal", T(an_ephemeral_bus_refuses_durable_topics),
          T(options_that_contradict_each_other_are_refused),
          T(retention_and_sync_interval_can_be_altered), T(files_are_handed_out_to_be_read),
          T(a_file_says_where_the_next_one_begins), T(without_a_journal_there_is_nothing_to_open),
          T(descriptions_tell_of_journals), T(the_library_shows_them))
