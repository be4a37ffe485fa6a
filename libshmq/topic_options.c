/* SPDX-License-Identifier: Apache-2.0 */
/* topic_options.c: see topic_options.h. Pure; any thread, any process. */
#include "libshmq/topic_options.h"

#include <string.h>

#include "libshmq/layout.h"
#include "libshmq/record.h"

bool name_is_valid(const char *name)
{
    size_t length = strnlen(name, NAME_MAX_BYTES + 1);

    if (length == 0 || length > NAME_MAX_BYTES || name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        bool good = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '_' || c == '-';

        if (!good)
            return false;
    }
    return true;
}

bool name_is_reserved(const char *name)
{
    return strncmp(name, "shmq.", 5) == 0;
}

uint32_t ring_max_message(uint64_t ring_bytes)
{
    return (uint32_t)((ring_bytes >> RING_CLAIM_SHIFT) - RECORD_HEADER);
}

void topic_options_init(struct topic_options *options)
{
    memset(options, 0, sizeof(*options));
    strcpy(options->vhost, VHOST_DEFAULT);
    options->linger_ns = LINGER_DEFAULT_NS;
    options->partitions = 1;
    options->sync_interval_ns = SYNC_INTERVAL_DEFAULT_NS;
}

/* The smallest ring that takes messages of `max_message` bytes. */
static uint64_t ring_for_message(uint32_t max_message)
{
    uint64_t ring_bytes = RING_DEFAULT_BYTES;

    while (ring_max_message(ring_bytes) < max_message && ring_bytes < RING_MAX_BYTES)
        ring_bytes <<= 1;
    return ring_bytes;
}

static int check_sizes(struct topic_options *o, struct error_buffer *why)
{
    if (o->ring_bytes == 0)
        o->ring_bytes = ring_for_message(o->max_message);
    if (o->ring_bytes < RING_MIN_BYTES || o->ring_bytes > RING_MAX_BYTES ||
        (o->ring_bytes & (o->ring_bytes - 1)))
        return error_set(why, SHMQ_EINVAL,
                         "topic %s: ring of %llu bytes: must be a power of two from 64K to 16G",
                         o->name, (unsigned long long)o->ring_bytes);
    if (o->max_message == 0)
        o->max_message = ring_max_message(o->ring_bytes);
    if (o->max_message > ring_max_message(o->ring_bytes))
        return error_set(
            why, SHMQ_EINVAL,
            "topic %s: max message of %u bytes does not fit a ring of %llu; a ring takes messages of an "
            "eighth of its size less %u bytes; give a larger --ring or none",
            o->name, o->max_message, (unsigned long long)o->ring_bytes, RECORD_HEADER);
    return 0;
}

static int check_choices(const struct topic_options *o, struct error_buffer *why)
{
    if (o->policy > OVERFLOW_SPILL || o->producers > PRODUCERS_SINGLE ||
        o->timestamps > TIMESTAMP_PRECISE || o->durability > DURABLE_ALWAYS)
        return error_set(why, SHMQ_EINVAL,
                         "topic %s: unknown policy, producers mode, timestamps or durability",
                         o->name);
    return 0;
}

int topic_options_check_journal(const struct topic_options *o, struct error_buffer *why)
{
    if (o->policy == OVERFLOW_SPILL && o->durability == DURABLE_NONE)
        return error_set(
            why, SHMQ_EINVAL,
            "topic %s: there is no journal to spill to; --overflow spill needs --durable os, interval or always",
            o->name);
    if (o->sync_interval_ns < SYNC_INTERVAL_MIN_NS || o->sync_interval_ns > SYNC_INTERVAL_MAX_NS)
        return error_set(why, SHMQ_EINVAL,
                         "topic %s: sync interval of %llu ms: must be from 1 ms to 1 h", o->name,
                         (unsigned long long)(o->sync_interval_ns / 1000000));
    if (o->sync_interval_ns != SYNC_INTERVAL_DEFAULT_NS && o->durability != DURABLE_INTERVAL)
        return error_set(
            why, SHMQ_EINVAL,
            "topic %s: a sync interval goes with --durable interval alone: none and os never sync for a message, "
            "always does so at once; leave it out",
            o->name);
    if ((o->retain_bytes || o->retain_ns) && o->durability == DURABLE_NONE)
        return error_set(
            why, SHMQ_EINVAL,
            "topic %s: retention is of a journal, and this topic has none; give --durable os, interval or always "
            "as well, or leave it out",
            o->name);
    if (o->retain_bytes && o->retain_bytes < RETAIN_BYTES_MIN)
        return error_set(
            why, SHMQ_EINVAL,
            "topic %s: retention of %llu bytes: must be 1M or more, as a journal's files are, or 0 "
            "for no bound",
            o->name, (unsigned long long)o->retain_bytes);
    return 0;
}

int topic_options_complete(struct topic_options *o, struct error_buffer *why)
{
    if (!memchr(o->vhost, 0, sizeof(o->vhost)) || !memchr(o->name, 0, sizeof(o->name)))
        return error_set(why, SHMQ_EINVAL, "topic name: not terminated");
    if (!name_is_valid(o->name) || !name_is_valid(o->vhost))
        return error_set(
            why, SHMQ_EINVAL,
            "topic name '%.64s': names are 1-200 of A-Z a-z 0-9 . _ - and do not start with a dot",
            o->name);
    if (name_is_reserved(o->name))
        return error_set(why, SHMQ_EINVAL,
                         "topic %s: names that begin with 'shmq.' are the bus's own", o->name);
    if (strcmp(o->vhost, VHOST_DEFAULT) != 0)
        return error_set(why, SHMQ_EINVAL, "vhost %s: does not exist; only '%s' does", o->vhost,
                         VHOST_DEFAULT);
    if (o->partitions == 0 || o->partitions > PARTITIONS_MAX)
        return error_set(why, SHMQ_EINVAL, "topic %s: %u partitions: must be 1 to %u", o->name,
                         o->partitions, PARTITIONS_MAX);
    if (o->sync_interval_ns == 0)
        o->sync_interval_ns = SYNC_INTERVAL_DEFAULT_NS;
    int rc = check_sizes(o, why);

    if (rc == 0)
        rc = check_choices(o, why);
    return rc ? rc : topic_options_check_journal(o, why);
}
