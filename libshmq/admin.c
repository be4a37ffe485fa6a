/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.c: the public calls about the bus and its topics: one request each, and lists page by page.
 *
 * Thread-safe: each call takes its turn on the connection (control.h) and blocks up to the
 * connection's timeout. No state. If the process dies here, shmqd has done what was asked, or not.
 */
#include <string.h>

#include "libshmq/admin.h"
#include "libshmq/clock.h"
#include "libshmq/shmq.h"

/* ---- what all calls need --------------------------------------------------------------------- */

int admin_begin(const struct shmq_connection *c, struct error_buffer **ret_why)
{
    if (!c) {
        (void)handles_usage_error(0, "connection is NULL");
        return SHMQ_EINVAL;
    }
    if (handles_forked(c->fork_count)) {
        (void)handles_fork_error(c->serial);
        return SHMQ_EFORK;
    }
    *ret_why = handles_error(c->serial);
    return 0;
}

int admin_copy_name(char to[NAME_BYTES], const char *name, const char *what,
                    struct error_buffer *why)
{
    if (!name || !name_is_valid(name))
        return error_set(why, SHMQ_EINVAL,
                         "%s '%.64s': names are 1-200 of A-Z a-z 0-9 . _ - and do not start with a "
                         "dot",
                         what, name ? name : "(null)");
    memcpy(to, name, strlen(name) + 1);
    return 0;
}

int admin_ask(struct shmq_connection *c, struct protocol_header *request, void *reply,
              size_t reply_bytes, struct error_buffer *why)
{
    struct control_call call = {
        .request = request,
        .reply = reply,
        .reply_bytes = reply_bytes,
        .deadline_ns = deadline_after_ms(c->timeout_ms),
    };
    int rc = control_run(c, &call, why);

    if (rc == 0)
        control_drop_fds(&call);
    return rc;
}

int admin_ask_list(struct shmq_connection *c, struct protocol_header *request, void *page,
                   size_t reply_bytes, size_t element_bytes, struct error_buffer *why)
{
    struct control_call call = {
        .request = request,
        .reply = page,
        .reply_bytes = reply_bytes,
        .room_bytes = PROTOCOL_BYTES_MAX,
        .element_bytes = element_bytes,
        .deadline_ns = deadline_after_ms(c->timeout_ms),
    };
    int rc = control_run(c, &call, why);

    if (rc == 0)
        control_drop_fds(&call);
    return rc;
}

int admin_list(struct shmq_connection *c, struct admin_list *list, struct error_buffer *why)
{
    unsigned char *page = malloc(PROTOCOL_BYTES_MAX);
    struct protocol_list_reply *reply = (struct protocol_list_reply *)(void *)page;
    uint32_t more = 1;
    int rc = 0;

    if (!page)
        return error_set(why, SHMQ_ENOMEM, "list: no memory for a page");
    protocol_begin(&list->request.header, list->type, sizeof(list->request));
    memcpy(list->request.vhost, c->vhost, sizeof(list->request.vhost));
    while (rc == 0 && more) {
        rc = admin_ask_list(c, &list->request.header, page, sizeof(*reply), list->element_bytes,
                            why);
        if (rc < 0)
            break;
        more = reply->more && reply->header.count > 0; /* an empty page does not go on */
        for (uint32_t i = 0; rc == 0 && i < reply->header.count; i++)
            rc = list->element(reply->elements + i * list->element_bytes, list);
    }
    free(page);
    return rc;
}

/* ---- the bus --------------------------------------------------------------------------------- */

/* A string of shmqd's, which need not be terminated. */
static void copy_text(char *to, size_t to_bytes, const char *from, size_t from_bytes)
{
    size_t length = strnlen(from, min_size(from_bytes, to_bytes - 1));

    memcpy(to, from, length);
    memset(to + length, 0, to_bytes - length);
}

int shmq_bus_describe(shmq_connection *c, struct shmq_bus_info *ret_info)
{
    struct protocol_header request;
    struct protocol_status_reply reply;
    struct shmq_bus_info info = {.bus = ""};
    struct error_buffer *why;
    int rc = admin_begin(c, &why);

    if (rc < 0)
        return rc;
    if (!ret_info)
        return error_set(why, SHMQ_EINVAL, "bus describe: the result is NULL");
    protocol_begin(&request, PROTOCOL_STATUS, sizeof(request));
    rc = admin_ask(c, &request, &reply, sizeof(reply), why);
    if (rc < 0)
        return rc;
    copy_text(info.version, sizeof(info.version), reply.version, sizeof(reply.version));
    copy_text(info.bus, sizeof(info.bus), reply.bus, sizeof(reply.bus));
    copy_text(info.runtime_dir, sizeof(info.runtime_dir), reply.runtime_dir,
              sizeof(reply.runtime_dir));
    copy_text(info.state_dir, sizeof(info.state_dir), reply.state_dir, sizeof(reply.state_dir));
    info.started_ns = reply.started_ns;
    info.incarnation = reply.incarnation;
    info.shm_bytes = reply.shm_bytes;
    info.pid = reply.pid;
    info.uid = reply.uid;
    info.topics = reply.topics;
    info.partitions = reply.partitions;
    info.groups = reply.groups;
    info.clients = reply.clients;
    info.max_clients = reply.max_clients;
    info.quarantined = reply.quarantined;
    info.ephemeral = reply.ephemeral;
    info.wait_mode = reply.wait_mode;
    info.journal_bytes = reply.journal_bytes;
    info.journals = reply.journals;
    info.journals_failing = reply.journals_failing;
    *ret_info = info;
    return 0;
}

/* ---- topics ---------------------------------------------------------------------------------- */

static int copy_topic_options(const struct shmq_topic_options *given, struct shmq_topic_options *to,
                              struct error_buffer *why)
{
    const struct shmq_topic_options defaults = SHMQ_TOPIC_OPTIONS_INIT;

    *to = defaults;
    if (!given)
        return 0;
    if (given->size < offsetof(struct shmq_topic_options, reserved))
        return error_set(why, SHMQ_EINVAL,
                         "topic: options.size is too small; start with SHMQ_TOPIC_OPTIONS_INIT");
    memcpy(to, given, min_size(given->size, sizeof(*to)));
    return 0;
}

static uint64_t linger_from_ms(uint64_t linger_ms)
{
    if (linger_ms == SHMQ_LINGER_FOREVER || linger_ms > LINGER_FOREVER / NS_PER_MS)
        return LINGER_FOREVER;
    return linger_ms * NS_PER_MS;
}

static uint64_t linger_to_ms(uint64_t linger_ns)
{
    return linger_ns == LINGER_FOREVER ? SHMQ_LINGER_FOREVER : linger_ns / NS_PER_MS;
}

static uint64_t ns_from_ms(uint64_t ms)
{
    return ms > UINT64_MAX / NS_PER_MS ? UINT64_MAX : ms * NS_PER_MS;
}

/* 0: no bound. */
static void fill_journal(const struct shmq_topic_options *options, struct topic_options *to)
{
    to->sync_interval_ns = ns_from_ms(options->sync_interval_ms);
    to->retain_bytes = options->retain_bytes == SHMQ_RETAIN_UNBOUNDED ? 0 : options->retain_bytes;
    to->retain_ns =
        options->retain_ms == SHMQ_RETAIN_UNBOUNDED ? 0 : ns_from_ms(options->retain_ms);
}

/* Checked here as well as in shmqd: a mistake is told without a round trip, and without a bus. */
static int fill_create(const struct shmq_connection *c, const char *topic,
                       const struct shmq_topic_options *options, struct protocol_topic_put *put,
                       struct error_buffer *why)
{
    struct topic_options *to = &put->options;
    struct topic_options completed;
    int rc;

    topic_options_init(to);
    memcpy(to->vhost, c->vhost, sizeof(to->vhost));
    rc = admin_copy_name(to->name, topic, "topic", why);
    if (rc < 0)
        return rc;
    if (options->partitions)
        to->partitions = options->partitions;
    to->linger_ns = linger_from_ms(options->group_linger_ms);
    to->ring_bytes = options->ring_bytes;
    to->max_message = options->max_message;
    to->policy = options->overflow;
    to->producers = options->producers;
    to->timestamps = options->timestamps;
    to->durability = options->durability;
    fill_journal(options, to);
    put->flags = options->if_not_exists ? TOPIC_IF_NOT_EXISTS : 0;
    completed = *to; /* what is left 0 is for shmqd to fill in, from its configuration */
    return topic_options_complete(&completed, why);
}

int shmq_topic_create(shmq_connection *c, const char *topic,
                      const struct shmq_topic_options *options)
{
    struct protocol_topic_put put = {.mask = 0};
    struct protocol_topic_reply reply;
    struct shmq_topic_options copy;
    struct error_buffer *why;
    int rc = admin_begin(c, &why);

    if (rc == 0)
        rc = copy_topic_options(options, &copy, why);
    if (rc == 0)
        rc = fill_create(c, topic, &copy, &put, why);
    if (rc < 0)
        return rc;
    protocol_begin(&put.header, PROTOCOL_TOPIC_CREATE, sizeof(put));
    return admin_ask(c, &put.header, &reply, sizeof(reply), why);
}

/* Which fields were given. */
static uint32_t alter_mask(const struct shmq_topic_options *options)
{
    return (options->partitions ? ALTER_PARTITIONS : 0) |
           (options->group_linger_ms ? ALTER_LINGER : 0) |
           (options->max_message ? ALTER_MAX_MESSAGE : 0) |
           (options->retain_bytes ? ALTER_RETAIN_BYTES : 0) |
           (options->retain_ms ? ALTER_RETAIN_TIME : 0) |
           (options->sync_interval_ms ? ALTER_SYNC_INTERVAL : 0);
}

int shmq_topic_alter(shmq_connection *c, const char *topic,
                     const struct shmq_topic_options *options)
{
    struct protocol_topic_put put = {.mask = 0};
    struct protocol_topic_reply reply;
    struct shmq_topic_options copy;
    struct error_buffer *why;
    int rc = admin_begin(c, &why);

    if (rc == 0)
        rc = copy_topic_options(options, &copy, why);
    if (rc == 0)
        rc = admin_copy_name(put.options.name, topic, "topic", why);
    if (rc < 0)
        return rc;
    if (copy.ring_bytes || copy.overflow || copy.producers || copy.timestamps || copy.durability)
        return error_set(why, SHMQ_EINVAL,
                         "topic %s: ring size, overflow, producers, timestamps and durability "
                         "cannot be changed; create another topic",
                         topic);
    memcpy(put.options.vhost, c->vhost, sizeof(put.options.vhost));
    put.options.partitions = copy.partitions;
    put.options.max_message = copy.max_message;
    put.options.linger_ns = linger_from_ms(copy.group_linger_ms);
    fill_journal(&copy, &put.options);
    put.mask = alter_mask(&copy);
    if (put.mask == 0)
        return error_set(why, SHMQ_EINVAL,
                         "topic %s: nothing to change was given; partitions, group linger, max "
                         "message, sync interval and retention can be changed",
                         topic);
    protocol_begin(&put.header, PROTOCOL_TOPIC_ALTER, sizeof(put));
    return admin_ask(c, &put.header, &reply, sizeof(reply), why);
}

/* DESCRIBE, DELETE, PURGE. */
static int ask_about_topic(struct shmq_connection *c, enum protocol_type type, const char *topic,
                           void *reply, size_t reply_bytes)
{
    struct protocol_topic_request request = {.flags = 0};
    struct error_buffer *why;
    int rc = admin_begin(c, &why);

    if (rc == 0)
        rc = admin_copy_name(request.name, topic, "topic", why);
    if (rc < 0)
        return rc;
    memcpy(request.vhost, c->vhost, sizeof(request.vhost));
    protocol_begin(&request.header, type, sizeof(request));
    return admin_ask(c, &request.header, reply, reply_bytes, why);
}

int shmq_topic_delete(shmq_connection *c, const char *topic)
{
    struct protocol_header reply;

    return ask_about_topic(c, PROTOCOL_TOPIC_DELETE, topic, &reply, sizeof(reply));
}

int shmq_topic_purge(shmq_connection *c, const char *topic)
{
    struct protocol_header reply;

    return ask_about_topic(c, PROTOCOL_TOPIC_PURGE, topic, &reply, sizeof(reply));
}

static struct shmq_topic_info show_topic(const struct protocol_topic_info *from)
{
    struct shmq_topic_info info = {
        .id = from->id,
        .ring_bytes = from->options.ring_bytes,
        .group_linger_ms = linger_to_ms(from->options.linger_ns),
        .created_ns = from->created_ns,
        .shm_bytes = from->shm_bytes,
        .partitions = from->options.partitions,
        .max_message = from->options.max_message,
        .overflow = from->options.policy,
        .producers = from->options.producers,
        .timestamps = from->options.timestamps,
        .durability = from->options.durability,
        .owner_uid = from->owner_uid,
        .group_count = from->group_count,
        .producer_count = from->producer_count,
        .consumer_count = from->member_count,
        .quarantined = from->quarantined,
        .sync_interval_ms = from->options.sync_interval_ns / NS_PER_MS,
        .retain_bytes = from->options.retain_bytes,
        .retain_ms = from->options.retain_ns / NS_PER_MS,
    };

    copy_text(info.name, sizeof(info.name), from->options.name, sizeof(from->options.name));
    return info;
}

int shmq_topic_describe(shmq_connection *c, const char *topic, struct shmq_topic_info *ret_info)
{
    struct protocol_topic_reply reply;
    int rc;

    if (!ret_info)
        return handles_usage_error(c ? c->serial : 0, "topic describe: the result is NULL");
    rc = ask_about_topic(c, PROTOCOL_TOPIC_DESCRIBE, topic, &reply, sizeof(reply));
    if (rc == 0)
        *ret_info = show_topic(&reply.info);
    return rc;
}

static int show_listed_topic(const void *element, struct admin_list *list)
{
    struct protocol_topic_info from;
    struct shmq_topic_info info;

    memcpy(&from, element, sizeof(from)); /* elements need not be aligned */
    info = show_topic(&from);
    memcpy(list->request.after, info.name, sizeof(list->request.after));
    return list->fn.topic(&info, list->context);
}

int shmq_topic_list(shmq_connection *c, shmq_topic_fn fn, void *context)
{
    struct admin_list list = {
        .type = PROTOCOL_TOPIC_LIST,
        .element_bytes = sizeof(struct protocol_topic_info),
        .element = show_listed_topic,
        .fn.topic = fn,
        .context = context,
    };
    struct error_buffer *why;
    int rc = admin_begin(c, &why);

    if (rc == 0 && !fn)
        rc = error_set(why, SHMQ_EINVAL, "topic list: fn is NULL");
    return rc < 0 ? rc : admin_list(c, &list, why);
}

/* A journal goes back before the memory that there is now. */
static uint64_t oldest_offset(const struct protocol_partition_info *from)
{
    uint64_t kept = from->base;

    if (from->journal_files > 0)
        kept = min_u64(kept, from->journal_first);
    return max_u64(from->first, kept);
}

static int show_listed_partition(const void *element, struct admin_list *list)
{
    struct protocol_partition_info from;
    struct shmq_partition_info info;

    memcpy(&from, element, sizeof(from));
    info = (struct shmq_partition_info){
        .partition = from.partition,
        .status = from.status,
        .first_offset = oldest_offset(&from),
        .tail_offset = from.tail,
        .messages = from.records,
        .blocked_offset = from.blocker_offset,
        .blocked_client = from.blocker_client,
        .blocked_by = from.blocker, /* the same numbers: checked in admin_group.c */
        .producer_count = from.producer_count,
        .durable_offset = from.durable,
        .journal_first = from.journal_first,
        .journal_bytes = from.journal_bytes,
        .journal_files = from.journal_files,
        .journal_error = from.journal_error,
    };
    list->request.after_id = (uint64_t)from.partition + 1;
    return list->fn.partition(&info, list->context);
}

int shmq_partition_list(shmq_connection *c, const char *topic, shmq_partition_fn fn, void *context)
{
    struct admin_list list = {
        .type = PROTOCOL_PARTITION_LIST,
        .element_bytes = sizeof(struct protocol_partition_info),
        .element = show_listed_partition,
        .fn.partition = fn,
        .context = context,
    };
    struct error_buffer *why;
    int rc = admin_begin(c, &why);

    if (rc == 0)
        rc = admin_copy_name(list.request.name, topic, "topic", why);
    if (rc == 0 && !fn)
        rc = error_set(why, SHMQ_EINVAL, "partition list: fn is NULL");
    return rc < 0 ? rc : admin_list(c, &list, why);
}
