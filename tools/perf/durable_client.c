/* SPDX-License-Identifier: Apache-2.0 */
/* A measurer's ends of shmq; see durable.h. Through shmq.h, but for one figure that only the control protocol
 * has: how often the flusher has synced. */
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>

#include "libshmq/admin.h"
#include "libshmq/protocol.h"
#include "libshmq/record.h"
#include "tools/perf/durable.h"

/* ---- failing --------------------------------------------------------------------------------- */

static void PRINTF_LIKE(2, 0)
    keep_failure(struct durable_talk *talk, const char *format, va_list arguments)
{
    if (*talk->failure)
        return;
    (void)vsnprintf(talk->failure, sizeof(talk->failure), format, arguments);
}

bool durable_set_failure(struct durable_talk *talk, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    keep_failure(talk, format, arguments);
    va_end(arguments);
    return false;
}

int durable_fail(struct durable_talk *talk, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    keep_failure(talk, format, arguments);
    va_end(arguments);
    return 1;
}

int durable_fail_library(struct durable_talk *talk, const char *call)
{
    return durable_fail(talk, "%s: %s", call, shmq_errmsg(NULL));
}

void durable_value(struct durable_talk *talk, uint32_t series, uint32_t round, double value)
{
    if (series < DURABLE_SERIES_MAX && round < PERF_DURABLE_ROUNDS_MAX)
        talk->values[series][round] = value;
}

/* ---- ends ------------------------------------------------------------------------------------ */

int durable_pin(struct durable_talk *talk, uint32_t index)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)talk->cpus[index % talk->cpu_count], &set);
    return sched_setaffinity(0, sizeof(set), &set) < 0
               ? durable_fail(talk, "CPU %d cannot be used", talk->cpus[index % talk->cpu_count])
               : 0;
}

int durable_connect(struct durable_client *client, struct durable_talk *talk)
{
    struct shmq_connect_options options = SHMQ_CONNECT_OPTIONS_INIT;

    *client = (struct durable_client){.talk = talk};
    options.bus = talk->bus;
    options.runtime_dir = talk->runtime_dir;
    options.timeout_ms = DURABLE_STEP_MS;
    if (shmq_connect(&options, &client->connection) < 0 ||
        shmq_channel_open(client->connection, &client->channel) < 0)
        return durable_fail_library(talk, "connect");
    return 0;
}

void durable_close(struct durable_client *client)
{
    shmq_close(client->connection);
    perf_source_deinit(&client->source);
    *client = (struct durable_client){.talk = client->talk};
}

int durable_create(struct durable_client *client, const char *topic,
                   const struct shmq_topic_options *options)
{
    return shmq_topic_create(client->connection, topic, options) < 0
               ? durable_fail_library(client->talk, "topic")
               : 0;
}

int durable_produce(struct durable_client *client, const char *topic, uint32_t size)
{
    struct shmq_producer_options options = SHMQ_PRODUCER_OPTIONS_INIT;
    const struct perf_setup setup = {.size = size};

    options.timeout_ms = DURABLE_STEP_MS;
    shmq_producer_close(client->producer);
    client->producer = NULL;
    perf_source_deinit(&client->source);
    perf_source_init(&client->source, &setup, 0);
    client->size = size;
    return shmq_producer_open(client->channel, topic, &options, &client->producer) < 0
               ? durable_fail_library(client->talk, "producer")
               : 0;
}

int durable_consume(struct durable_client *client, const char *topic, const char *group)
{
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;

    options.group = group;
    options.from = SHMQ_FROM_EARLIEST;
    shmq_consumer_close(client->consumer);
    client->consumer = NULL;
    return shmq_consumer_open(client->channel, topic, &options, &client->consumer) < 0
               ? durable_fail_library(client->talk, "consumer")
               : 0;
}

int durable_fill(struct durable_client *client, uint64_t messages)
{
    struct shmq_message message = {.body = NULL};
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < messages; i++)
        rc = durable_publish(client, &message);
    return rc || messages == 0 ? rc : durable_confirm(client, &message);
}

/* ---- what the flusher has done --------------------------------------------------------------- */

static int take_partition(const void *element, struct admin_list *list)
{
    struct protocol_partition_info info;
    struct durable_journal *journal = list->context;

    memcpy(&info, element, sizeof(info)); /* elements need not be aligned */
    if (info.partition == 0)
        *journal = (struct durable_journal){
            .first = info.journal_first,
            .durable = info.durable,
            .tail = info.tail,
            .syncs = info.journal_syncs,
            .bytes = info.journal_bytes,
        };
    list->request.after_id = (uint64_t)info.partition + 1;
    return 0;
}

int durable_look(struct durable_client *client, const char *topic,
                 struct durable_journal *ret_journal)
{
    struct admin_list list = {
        .type = PROTOCOL_PARTITION_LIST,
        .element_bytes = sizeof(struct protocol_partition_info),
        .element = take_partition,
        .context = ret_journal,
    };
    struct error_buffer why = {.text = ""};

    *ret_journal = (struct durable_journal){.durable = UINT64_MAX};
    if (admin_copy_name(list.request.name, topic, "topic", &why) < 0 ||
        admin_list(client->connection, &list, &why) < 0)
        return durable_fail(client->talk, "status: %s", why.text);
    if (ret_journal->durable == UINT64_MAX)
        return durable_fail(client->talk, "status: topic %s has no journal", topic);
    return 0;
}

uint64_t durable_record_bytes(uint32_t size)
{
    return record_size(size);
}
