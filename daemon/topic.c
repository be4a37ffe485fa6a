/* SPDX-License-Identifier: Apache-2.0 */
/* topic.c: create, alter, purge, delete, describe; see topic.h. */
#include "daemon/topic.h"

#include "daemon/client.h"
#include "daemon/group.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/units.h"

#include <inttypes.h>
#include <string.h>

#define ID_BLOCK 64u /* ids that one record in the metadata sets aside */

struct topic *topic_find(const struct realm *realm, const char *name)
{
    struct registry_entry *entry = registry_find_name(&realm->registry, name);

    return entry ? CONTAINER_OF(entry, struct topic, entry) : NULL;
}

struct topic *topic_find_id(const struct realm *realm, uint64_t id)
{
    struct registry_entry *entry = registry_find_id(&realm->registry, id);

    return entry ? CONTAINER_OF(entry, struct topic, entry) : NULL;
}

int topic_next_id(struct realm *realm, uint64_t *ret_id, struct error_buffer *why)
{
    int rc;

    if (realm->next_id == realm->ids_set_aside) {
        rc = store_put_counter(realm->store, realm->next_id + ID_BLOCK, why);
        if (rc < 0)
            return rc;
        realm->ids_set_aside = realm->next_id + ID_BLOCK;
    }
    *ret_id = realm->next_id++;
    return 0;
}

/* ---- limits ---------------------------------------------------------------------------------- */

void topic_count_bytes(struct topic *topic, int64_t bytes)
{
    topic->bytes += (uint64_t)bytes;
    topic->owner->bytes += (uint64_t)bytes;
    topic->realm->shm_bytes += (uint64_t)bytes;
}

int topic_check_quota(const struct realm *realm, const struct user *user, uint64_t bytes,
                      const char *what, struct error_buffer *why)
{
    uint64_t limit = realm->config.bytes_per_user;
    char wanted[UNITS_TEXT_BYTES], has[UNITS_TEXT_BYTES], most[UNITS_TEXT_BYTES];

    if (bytes <= limit && user->bytes <= limit - bytes)
        return 0;
    return error_set(why, SHMQ_ELIMIT,
                     "%s: needs %s of shared memory, user %" PRIu32
                     " has %s of at most %s; use smaller "
                     "rings, delete topics, or raise [limits] bytes_per_user",
                     what, units_show_size(bytes, wanted), user->uid,
                     units_show_size(user->bytes, has), units_show_size(limit, most));
}

uint64_t topic_partition_bytes(const struct topic_options *options)
{
    return partition_bytes(options->ring_bytes,
                           options->producers == PRODUCERS_SINGLE ? 1 : SLOTS_MAX);
}

int topic_check_partitions(const struct realm *realm, const char *name, uint32_t more,
                           uint32_t groups, struct error_buffer *why)
{
    if (realm->partition_count + more > realm->config.partitions)
        return error_set(why, SHMQ_ELIMIT,
                         "topic %s: %" PRIu32 " more partitions, and the bus has %" PRIu32
                         " of at most %" PRIu64 "; delete topics, or raise [limits] partitions",
                         name, more, realm->partition_count, realm->config.partitions);
    if (realm->mapping_count + more * (3 + groups) > REALM_MAPPINGS_MAX)
        return error_set(why, SHMQ_ELIMIT,
                         "topic %s: one shmqd looks after %u segments, and %" PRIu32
                         " are there; delete topics or groups",
                         name, REALM_MAPPINGS_MAX, realm->mapping_count);
    return 0;
}

static int check_limits(const struct realm *realm, const struct topic_options *options,
                        const struct user *user, struct error_buffer *why)
{
    int rc;

    if (realm->registry.count >= realm->config.topics)
        return error_set(why, SHMQ_ELIMIT,
                         "topic %s: the bus has %" PRIu32
                         " topics, its limit; delete some, or raise [limits] topics",
                         options->name, realm->registry.count);
    rc = topic_check_partitions(realm, options->name, options->partitions, 0, why);
    return rc < 0 ? rc
                  : topic_check_quota(realm, user,
                                      topic_partition_bytes(options) * options->partitions,
                                      options->name, why);
}

/* ---- creating -------------------------------------------------------------------------------- */

void topic_free(struct registry_entry *entry)
{
    struct topic *topic = CONTAINER_OF(entry, struct topic, entry);

    for (uint32_t i = 0; i < topic->partition_count; i++)
        partition_unmap(&topic->partitions[i]);
    free(topic->partitions);
    free(topic);
}

struct topic *topic_new(struct realm *realm, const struct store_topic *stored)
{
    struct user *user = user_get(realm, stored->owner_uid);
    struct topic *topic = user ? calloc(1, sizeof(*topic)) : NULL;

    if (topic)
        topic->partitions = calloc(stored->options.partitions, sizeof(topic->partitions[0]));
    if (!topic || !topic->partitions) {
        free(topic);
        return NULL;
    }
    topic->realm = realm;
    topic->options = stored->options;
    topic->id = stored->id;
    topic->base = stored->base;
    topic->created_ns = stored->created_ns;
    topic->owner = user;
    topic->partition_count = stored->options.partitions;
    topic->entry.name = topic->options.name;
    topic->entry.id = topic->id;
    topic->entry.free = topic_free;
    for (uint32_t i = 0; i < topic->partition_count; i++) {
        topic->partitions[i].topic = topic;
        topic->partitions[i].index = i;
        topic->partitions[i].mark = topic->base;
    }
    return topic;
}

void topic_to_store(const struct topic *topic, struct store_topic *ret_stored)
{
    memset(ret_stored, 0, sizeof(*ret_stored));
    ret_stored->options = topic->options;
    ret_stored->id = topic->id;
    ret_stored->base = topic->base;
    ret_stored->created_ns = topic->created_ns;
    ret_stored->owner_uid = topic->owner->uid;
}

int topic_save(const struct topic *topic, struct error_buffer *why)
{
    struct store_topic stored;

    topic_to_store(topic, &stored);
    return store_put_topic(topic->realm->store, &stored, why);
}

/* Makes partitions from `first` on; on failure takes back those that it made. */
int topic_create_partitions(struct topic *topic, uint32_t first, struct error_buffer *why)
{
    for (uint32_t i = first; i < topic->partition_count; i++) {
        int rc = partition_create(&topic->partitions[i], topic->base, why);
        uint32_t made = rc == 0 ? i + 1 : i;

        if (rc == 0)
            rc = partition_flush_new(&topic->partitions[i], why);
        if (rc < 0) {
            while (made-- > first) {
                partition_stop_flushing(&topic->partitions[made]);
                partition_unmap(&topic->partitions[made]);
                partition_unlink(&topic->partitions[made]);
                topic->realm->mapping_count -= 3;
            }
            return rc;
        }
        FAULT("topic.create.partition");
    }
    return 0;
}

void topic_unlink_partitions(struct topic *topic, uint32_t first)
{
    for (uint32_t i = first; i < topic->partition_count; i++) {
        partition_unlink(&topic->partitions[i]);
        FAULT("topic.unlink.partition");
    }
}

/* Everything that the rest of the realm knows of it. */
void topic_enter(struct topic *topic)
{
    (void)registry_add(&topic->realm->registry, &topic->entry); /* the name was looked up before */
    topic->realm->partition_count += topic->partition_count;
    topic_count_bytes(topic,
                      (int64_t)(topic_partition_bytes(&topic->options) * topic->partition_count));
}

int topic_create(struct realm *realm, const struct topic_options *options, uint32_t uid,
                 struct topic **ret_topic, struct error_buffer *why)
{
    struct store_topic stored = {.options = *options, .owner_uid = uid};
    struct user *user = user_get(realm, uid);
    struct topic *topic;
    int rc;

    if (!user)
        return error_set(why, SHMQ_ENOMEM, "topic %s: out of memory", options->name);
    rc = check_limits(realm, options, user, why);
    if (rc == 0)
        rc = topic_next_id(realm, &stored.id, why);
    if (rc < 0)
        return rc;
    stored.created_ns = clock_realtime_ns();
    topic = topic_new(realm, &stored);
    if (!topic)
        return error_set(why, SHMQ_ENOMEM, "topic %s: out of memory", options->name);
    rc = topic_create_partitions(topic, 0, why);
    if (rc < 0) {
        topic_remove_journals(topic);
        topic->partition_count = 0;
        topic_free(&topic->entry);
        return error_prefix(why, rc, "topic %s", options->name);
    }
    FAULT("topic.create.segments");
    rc = topic_save(topic, why);
    if (rc < 0) {
        topic_remove_journals(topic);
        topic_unlink_partitions(topic, 0);
        realm->mapping_count -= 3 * topic->partition_count;
        topic_free(&topic->entry);
        return rc;
    }
    FAULT("topic.create.saved");
    topic_enter(topic);
    log_info("topic %s: created by user %" PRIu32 ": %" PRIu32 " partitions of %" PRIu64 " bytes",
             options->name, uid, options->partitions, options->ring_bytes);
    *ret_topic = topic;
    return 0;
}
