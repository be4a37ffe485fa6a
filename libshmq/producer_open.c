/* SPDX-License-Identifier: Apache-2.0 */
/*
 * producer_open.c: opening and closing producers, partitions that are added, and opening anew when
 * the bus has been made anew. See producer.h.
 *
 * Called by the channel's thread; blocks for control calls, until their deadline. If the process
 * dies here, shmqd takes the slots back.
 */
#include "libshmq/producer.h"

#include <string.h>

/* ---- partitions ------------------------------------------------------------------------------ */

static const struct attachment *find_living(const struct producer_partition *partitions,
                                            uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (partitions[i].attachment)
            return partitions[i].attachment;
    }
    return NULL;
}

const struct attachment *producer_any(const struct shmq_producer *p)
{
    return find_living(p->partitions, p->partition_count);
}

static void init_partition(struct producer_partition *pp, struct attachment *a)
{
    memset(pp, 0, sizeof(*pp));
    ring_producer_init(&pp->ring, &a->ring, a->slot);
    pp->attachment = a;
    pp->wait = a->ring.wait;
    pp->fence_mode = a->ring.fence_mode;
    if (pp->ring.overwrites)
        pp->path = PUBLISH_ANY;
    else if (pp->ring.durable)
        pp->path = pp->ring.multi ? PUBLISH_MULTI_DURABLE : PUBLISH_SINGLE_DURABLE;
    else
        pp->path = pp->ring.multi ? PUBLISH_MULTI : PUBLISH_SINGLE;
}

/* A quarantined partition, which shmqd opens for nobody: its place is kept, and its claims find no
 * room. */
static void init_dead_partition(struct producer_partition *pp, int code)
{
    static _Atomic uint64_t no_tail;

    memset(pp, 0, sizeof(*pp));
    pp->ring.tail = &no_tail;
    pp->ring.multi = true;
    pp->path = PUBLISH_MULTI;
    pp->dead = code;
}

/* Opens [first, count) behind what `partitions` has already; at least one of all must live. On
 * failure those that were opened are closed. */
static int open_partitions(struct shmq_connection *c, struct session *session, uint64_t topic,
                           struct producer_partition *partitions, uint32_t first, uint32_t count,
                           uint64_t deadline_ns, struct error_buffer *why)
{
    for (uint32_t i = first; i < count; i++) {
        struct attachment *a = NULL;
        int rc = attachment_open(c, session, topic, i, ROLE_PRODUCER, deadline_ns, &a, why);

        if (rc == SHMQ_ECORRUPT && (i + 1 < count || find_living(partitions, i))) {
            init_dead_partition(&partitions[i], rc);
            continue;
        }
        if (rc == 0) {
            init_partition(&partitions[i], a);
            continue;
        }
        deadline_ns = max_u64(deadline_ns, clock_monotonic_ns() + CLOSE_NS);
        while (i-- > first)
            attachment_close(partitions[i].attachment, deadline_ns);
        return rc;
    }
    return 0;
}

/* Puts opened partitions in the place of the present ones. */
static void use_partitions(struct shmq_producer *p, struct producer_partition *partitions,
                           uint32_t count)
{
    const struct state_segment *state = find_living(partitions, count)->ring.state;

    uint32_t turn = p->turn && p->turn->index < count ? p->turn->index : 0;

    for (uint32_t i = 0; i < count; i++) {
        partitions[i].index = i;
        partitions[i].following = &partitions[i + 1 == count ? 0 : i + 1];
    }
    free(p->partitions);
    p->partitions = partitions;
    p->partition_count = count;
    p->modulo = fastmod_init(count);
    p->turn = &partitions[turn];
    p->timestamps = state->timestamps;
    p->policy = state->policy;
    p->max_message = min_u32(atomic_load_explicit(&state->max_message, memory_order_acquire),
                             ring_max_message(state->capacity));
    producer_bound_lengths(p);
    p->layout++;
}

int producer_grow(struct shmq_producer *p, uint32_t count, uint64_t deadline_ns,
                  struct error_buffer *why)
{
    struct producer_partition *grown = handles_alloc(count, sizeof(*grown));
    int rc;

    if (!grown)
        return error_set(why, SHMQ_ENOMEM, "topic %s: no memory for %u partitions", p->name, count);
    memcpy(grown, p->partitions, p->partition_count * sizeof(*grown));
    rc = open_partitions(p->connection, p->session, p->topic, grown, p->partition_count, count,
                         deadline_ns, why);
    if (rc < 0) {
        free(grown);
        return rc;
    }
    use_partitions(p, grown, count);
    return 0;
}

static void close_partitions(struct shmq_producer *p, uint64_t deadline_ns)
{
    for (uint32_t i = 0; i < p->partition_count; i++)
        attachment_close(p->partitions[i].attachment, deadline_ns);
    free(p->partitions);
    p->partitions = NULL;
    p->turn = NULL;
    p->partition_count = 0;
}

/* ---- the topic by name ----------------------------------------------------------------------- */

static int find_topic(struct shmq_producer *p, const struct session *session, uint64_t deadline_ns,
                      struct protocol_topic_reply *ret_reply, struct error_buffer *why)
{
    struct protocol_topic_request request = {.flags = 0};
    struct control_call call = {
        .request = &request.header,
        .session = session,
        .reply = ret_reply,
        .reply_bytes = sizeof(*ret_reply),
        .deadline_ns = deadline_ns,
    };
    int rc;

    protocol_begin(&request.header, PROTOCOL_TOPIC_DESCRIBE, sizeof(request));
    memcpy(request.vhost, p->connection->vhost, sizeof(request.vhost));
    memcpy(request.name, p->name, sizeof(request.name));
    rc = control_run(p->connection, &call, why);
    if (rc < 0)
        return rc;
    control_drop_fds(&call);
    if (ret_reply->info.options.partitions == 0 ||
        ret_reply->info.options.partitions > PARTITIONS_MAX)
        return error_set(why, SHMQ_EPROTO, "topic %s: %u partitions cannot be", p->name,
                         ret_reply->info.options.partitions);
    return 0;
}

/* The memory is another one, and in the old one there was something that is in no journal: as whoever confirms a
 * message confirms all before it, that has to be told first. */
static bool is_doubtful(const struct producer_partition *old, const struct producer_partition *pp)
{
    const struct attachment *a = old->attachment;

    if (!a || !a->ring.durable || !pp->attachment)
        return old->doubtful;
    return old->doubtful || (pp->attachment->ring.state->base != a->ring.state->base &&
                             ring_tail(&a->ring) > attachment_durable(a));
}

/* Opens the topic in this session and uses it. The partitions that were stay allocated to the
 * caller. */
static int open_in_session(struct shmq_producer *p, struct session *session, uint64_t deadline_ns,
                           struct error_buffer *why)
{
    struct protocol_topic_reply reply = {.info = {.id = 0}};
    struct producer_partition *partitions;
    uint32_t count;
    int rc = find_topic(p, session, deadline_ns, &reply, why);

    if (rc < 0)
        return rc;
    count = reply.info.options.partitions;
    partitions = handles_alloc(count, sizeof(*partitions));
    if (!partitions)
        return error_set(why, SHMQ_ENOMEM, "topic %s: no memory for %u partitions", p->name, count);
    /* Before the partitions: what is added from here on is announced behind this value. */
    uint32_t event = atomic_load_explicit(session->event, memory_order_acquire);

    rc = open_partitions(p->connection, session, reply.info.id, partitions, 0, count, deadline_ns,
                         why);
    if (rc < 0) {
        free(partitions);
        return error_prefix(why, rc, "topic %s", p->name);
    }
    for (uint32_t i = 0; i < count && i < p->partition_count; i++)
        partitions[i].doubtful = is_doubtful(&p->partitions[i], &partitions[i]);
    close_partitions(p, 0); /* of an earlier session: it is over */
    session_release(p->session);
    p->session = session_reference(session);
    p->event = session->event;
    p->event_seen = event;
    p->topic = reply.info.id;
    p->failed = 0;
    use_partitions(p, partitions, count);
    producer_look_at_groups(p);
    return 0;
}

/* In whatever session the connection has by then; it may change under way. */
static int open_topic(struct shmq_producer *p, uint64_t deadline_ns, struct error_buffer *why)
{
    for (;;) {
        struct session *session = control_session(p->connection);
        int rc = open_in_session(p, session, deadline_ns, why);

        session_release(session);
        if (rc != SHMQ_ECLOSED || deadline_passed(deadline_ns))
            return rc;
    }
}

int producer_reopen(struct shmq_producer *p, uint64_t deadline_ns, struct error_buffer *why)
{
    unsigned flags = deadline_passed(deadline_ns) ? CONTROL_ONCE : 0;
    uint64_t grace_ns = clock_monotonic_ns() + CONTROL_GRACE_NS;
    int rc;

    deadline_ns = max_u64(deadline_ns, grace_ns);
    rc = control_connect(p->connection, deadline_ns, flags, why);
    if (rc == 0)
        rc = open_topic(p, deadline_ns, why);
    if (rc == SHMQ_ENOBUS || rc == SHMQ_ETIMEOUT)
        rc = error_prefix(why, SHMQ_ECLOSED, "topic %s: its bus was closed", p->name);
    return rc;
}

/* ---- open and close -------------------------------------------------------------------------- */

static int copy_options(const struct shmq_producer_options *given, struct shmq_producer_options *to)
{
    const struct shmq_producer_options defaults = SHMQ_PRODUCER_OPTIONS_INIT;

    *to = defaults;
    if (!given)
        return 0;
    if (given->size < offsetof(struct shmq_producer_options, reserved))
        return SHMQ_EINVAL;
    memcpy(to, given, min_size(given->size, sizeof(*to)));
    return to->timeout_ms < -1 || to->timeout_ms > SHMQ_TIMEOUT_MAX ? SHMQ_EINVAL : 0;
}

static void enlist(struct shmq_producer *p)
{
    struct shmq_channel *channel = p->channel;

    p->next_in_channel = channel->producers;
    p->link = &channel->producers;
    if (p->next_in_channel)
        p->next_in_channel->link = &p->next_in_channel;
    channel->producers = p;
}

int shmq_producer_open(shmq_channel *channel, const char *topic,
                       const struct shmq_producer_options *options, shmq_producer **ret_producer)
{
    struct shmq_producer_options copy;
    struct shmq_connection *c;
    struct shmq_producer *p;
    int rc;

    if (!channel || !topic || !ret_producer)
        return handles_usage_error(channel ? channel->connection->serial : 0,
                                   "producer: channel, topic or result is NULL");
    c = channel->connection;
    *ret_producer = NULL;
    if (handles_forked(channel->fork_count))
        return handles_fork_error(c->serial);
    if (copy_options(options, &copy) < 0)
        return handles_usage_error(c->serial, "producer: options.size is too small (start with "
                                              "SHMQ_PRODUCER_OPTIONS_INIT), or timeout_ms is not "
                                              "-1 to 24 hours");
    struct error_buffer *why = handles_error(c->serial);

    if (!name_is_valid(topic))
        return error_set(why, SHMQ_EINVAL,
                         "topic '%.64s': names are 1-200 of A-Z a-z 0-9 . _ - and do not start "
                         "with a dot",
                         topic);
    p = handles_alloc(1, sizeof(*p));
    if (!p)
        return error_set(why, SHMQ_ENOMEM, "topic %s: no memory for a producer", topic);
    p->fork_count = channel->fork_count;
    p->channel = channel;
    p->connection = c;
    p->timeout_ms = copy.timeout_ms == 0    ? SHMQ_TIMEOUT_DEFAULT
                    : copy.timeout_ms == -1 ? 0
                                            : copy.timeout_ms;
    memcpy(p->name, topic, strlen(topic) + 1);
    rc = open_topic(p, deadline_after_ms(c->timeout_ms), why);
    if (rc < 0) {
        session_release(p->session);
        free(p);
        return rc;
    }
    enlist(p);
    *ret_producer = p;
    return 0;
}

void producer_close(struct shmq_producer *p, uint64_t deadline_ns)
{
    if (p->claimed && !handles_forked(p->fork_count))
        (void)shmq_abort(&p->claim);
    close_partitions(p, deadline_ns);
    if (!handles_forked(p->fork_count))
        session_release(p->session);
    *p->link = p->next_in_channel;
    if (p->next_in_channel)
        p->next_in_channel->link = p->link;
    free(p);
}

void shmq_producer_close(shmq_producer *p)
{
    if (p)
        producer_close(p, clock_monotonic_ns() + CLOSE_NS);
}
