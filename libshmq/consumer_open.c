/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_open.c: joining and leaving a group, partitions that are added, joining anew when the
 * bus has been made anew. See consumer.h.
 *
 * Called by the channel's thread; blocks for control calls, until their deadline. If the process
 * dies here, shmqd notices, clears its holds and gives its partitions to the next member.
 */
#include "libshmq/consumer.h"

#include <string.h>

#define SPIN_DEFAULT_US  20u
#define ARENA_FIRST_SIZE ((size_t)256 * 1024)

/* ---- partitions ------------------------------------------------------------------------------ */

/* What joining said; partitions are opened with it. */
struct joining {
    struct session *session;
    uint64_t topic;
    uint64_t group;
    uint32_t gate;
    uint32_t member;
    uint32_t count;
    bool durable_only;
    uint64_t deadline_ns;
};

static void close_partition(struct consumer_partition *cp)
{
    bool forked = cp->attachment && handles_forked(cp->attachment->connection->fork_count);

    consumer_free_history(cp, forked);
    if (cp->attachment && !forked)
        segment_unmap(&cp->group_mapping);
    attachment_close(cp->attachment, 0);
}

static int open_partition(struct shmq_connection *c, const struct joining *joining, uint32_t index,
                          struct consumer_partition *cp, struct error_buffer *why)
{
    struct attachment *a = NULL;
    int rc = attachment_open(c, joining->session, joining->topic, index, ROLE_CONSUMER,
                             joining->deadline_ns, &a, why);

    if (rc < 0)
        return rc;
    memset(cp, 0, sizeof(*cp));
    cp->attachment = a;
    rc = attachment_map_group(a, joining->gate, joining->group, true, joining->deadline_ns, 0,
                              &cp->group_mapping, why);
    if (rc < 0) {
        attachment_close(a, 0);
        return rc;
    }
    ring_reader_init(&cp->reader, &a->ring, a->ring.state->base);
    cp->group = cp->group_mapping.address;
    cp->me = &cp->group->members[joining->member];
    /* A group that had lingered out is told what it lost meanwhile. */
    cp->lost_bytes = atomic_load_explicit(&cp->me->lost_bytes, memory_order_relaxed);
    cp->after_loss = cp->lost_bytes > 0;
    cp->gate = &a->ring.state->gates[joining->gate];
    cp->wait = a->ring.wait;
    cp->copies = !a->ring.gated;
    cp->durable_only = joining->durable_only && a->ring.durable;
    cp->fence_mode = a->ring.fence_mode;
    cp->batch = a->ring.capacity / 16;
    cp->index = index;
    return 0;
}

static const struct consumer_partition *find_living(const struct consumer_partition *partitions,
                                                    uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (partitions[i].attachment)
            return &partitions[i];
    }
    return NULL;
}

const struct consumer_partition *consumer_any(const struct shmq_consumer *c)
{
    return find_living(c->partitions, c->partition_count);
}

/* A quarantined partition, which shmqd opens for nobody, is told once and passed over; but one must
 * live. */
static int open_partitions(struct shmq_connection *c, const struct joining *joining, uint32_t first,
                           struct consumer_partition *partitions, struct error_buffer *why)
{
    for (uint32_t i = first; i < joining->count; i++) {
        int rc = open_partition(c, joining, i, &partitions[i], why);

        if (rc == SHMQ_ECORRUPT && (i + 1 < joining->count || find_living(partitions, i))) {
            memset(&partitions[i], 0, sizeof(partitions[i]));
            partitions[i].index = i;
            partitions[i].dead = rc;
            partitions[i].owned = true; /* in that it is to be told */
            continue;
        }
        if (rc < 0) {
            while (i-- > first)
                close_partition(&partitions[i]);
            return rc;
        }
    }
    return 0;
}

/* Arrays for `count` partitions; NULL: no memory. */
struct arrays {
    struct consumer_partition *partitions;
    struct consumer_partition **owned;
    struct wait_word *words;
};

static bool make_arrays(uint32_t count, struct arrays *arrays)
{
    arrays->partitions = handles_alloc(count, sizeof(*arrays->partitions));
    arrays->owned = calloc(count, sizeof(struct consumer_partition *));
    arrays->words = calloc((size_t)count + 1, sizeof(*arrays->words));
    return arrays->partitions && arrays->owned && arrays->words;
}

static void free_arrays(struct arrays *arrays)
{
    free(arrays->partitions);
    free(arrays->owned);
    free(arrays->words);
}

/* In the place of the present ones, which are freed; nothing is in the list of owned ones until the
 * next refresh. */
static void use_arrays(struct shmq_consumer *c, const struct arrays *arrays, uint32_t count)
{
    struct arrays old = {c->partitions, c->owned, c->words};

    consumer_pause_watch(c);
    c->partitions = arrays->partitions;
    c->owned = arrays->owned;
    c->words = arrays->words;
    c->partition_count = count;
    c->owned_count = 0;
    c->sole = NULL;
    c->next = 0;
    free_arrays(&old);
}

int consumer_grow(struct shmq_consumer *c, uint32_t count, uint64_t deadline_ns,
                  struct error_buffer *why)
{
    struct joining joining = {
        .session = c->session,
        .topic = c->topic,
        .group = c->group_id,
        .gate = c->gate,
        .member = c->member,
        .count = count,
        .durable_only = c->durable_only,
        .deadline_ns = deadline_ns,
    };
    struct arrays arrays;
    int rc;

    if (!make_arrays(count, &arrays)) {
        free_arrays(&arrays);
        return error_set(why, SHMQ_ENOMEM, "topic %s: no memory for %u partitions", c->name, count);
    }
    rc = open_partitions(c->connection, &joining, c->partition_count, arrays.partitions, why);
    if (rc < 0) {
        free_arrays(&arrays);
        return rc;
    }
    /* The notifier's thread may be looking at the old ones: it stops before they move. */
    consumer_pause_watch(c);
    memcpy(arrays.partitions, c->partitions, c->partition_count * sizeof(*arrays.partitions));
    use_arrays(c, &arrays, count);
    return 0;
}

/* ---- joining --------------------------------------------------------------------------------- */

static int join(struct shmq_consumer *c, const struct session *session, uint64_t deadline_ns,
                struct protocol_group_joined *ret_joined, struct error_buffer *why)
{
    struct protocol_group_join request = {
        .offset = c->from_offset,
        .from = c->from,
        .kind = GROUP_STREAM,
    };
    struct control_call call = {
        .request = &request.header,
        .session = session,
        .reply = ret_joined,
        .reply_bytes = sizeof(*ret_joined),
        .deadline_ns = deadline_ns,
    };
    int rc;

    protocol_begin(&request.header, PROTOCOL_GROUP_JOIN, sizeof(request));
    memcpy(request.vhost, c->connection->vhost, sizeof(request.vhost));
    memcpy(request.topic, c->name, sizeof(request.topic));
    memcpy(request.group, c->group, sizeof(request.group));
    rc = control_run(c->connection, &call, why);
    if (rc < 0)
        return rc;
    control_drop_fds(&call);
    if (ret_joined->gate >= GATES_MAX || ret_joined->member >= MEMBERS_MAX ||
        ret_joined->topic.options.partitions == 0 ||
        ret_joined->topic.options.partitions > PARTITIONS_MAX)
        return error_set(why, SHMQ_EPROTO, "topic %s: the supervisor's answer contradicts itself",
                         c->name);
    return 0;
}

static void leave(struct shmq_connection *c, const struct joining *joining, uint64_t deadline_ns)
{
    struct protocol_group_request request = {
        .topic = joining->topic,
        .group = joining->group,
        .gate = joining->gate,
        .member = joining->member,
    };
    struct protocol_header reply;
    struct control_call call = {
        .request = &request.header,
        .session = joining->session,
        .reply = &reply,
        .reply_bytes = sizeof(reply),
        .deadline_ns = deadline_ns,
        /* A supervisor that is being restarted is waited for: others want what is given up. */
        .flags = CONTROL_OWED,
    };
    struct error_buffer ignored;

    protocol_begin(&request.header, PROTOCOL_GROUP_LEAVE, sizeof(request));
    (void)control_run(c, &call, &ignored); /* else the session's end says it */
    control_drop_fds(&call);
}

/* Unmaps everything. The crew and the notifier's thread sleep on words that go away: they go first.
 */
static void close_partitions(struct shmq_consumer *c)
{
    c->crew = wait_crew_free(c->crew);
    for (uint32_t i = 0; i < c->partition_count; i++)
        close_partition(&c->partitions[i]);
    c->partition_count = 0;
    c->owned_count = 0;
    c->sole = NULL;
}

/* The topic and group in this session, in the place of what was open in an earlier one. */
static void use_joining(struct shmq_consumer *c, const struct joining *joining,
                        const struct arrays *arrays, uint32_t event)
{
    consumer_pause_watch(c);
    for (uint32_t i = 0; i < c->partition_count; i++)
        c->lost_before += c->partitions[i].lost_bytes;
    close_partitions(c);
    use_arrays(c, arrays, joining->count);
    session_release(c->session);
    c->session = session_reference(joining->session);
    c->event = joining->session->event;
    c->event_seen = event;
    c->topic = joining->topic;
    c->group_id = joining->group;
    c->gate = joining->gate;
    c->member = joining->member;
    c->failed = 0;
    c->stopped = true; /* the first poll looks at all, and tells what is quarantined */
    c->look_ns = clock_monotonic_ns() + NS_PER_S;
}

static int open_in_session(struct shmq_consumer *c, struct session *session, uint64_t deadline_ns,
                           struct error_buffer *why)
{
    /* Before joining: whatever is assigned or added from here on is announced behind this value. */
    uint32_t event = atomic_load_explicit(session->event, memory_order_acquire);
    struct protocol_group_joined joined = {.member = 0};
    struct joining joining;
    struct arrays arrays;
    int rc = join(c, session, deadline_ns, &joined, why);

    if (rc < 0)
        return rc;
    joining = (struct joining){
        .session = session,
        .topic = joined.topic.id,
        .group = joined.group,
        .gate = joined.gate,
        .member = joined.member,
        .count = joined.topic.options.partitions,
        .durable_only = c->durable_only,
        .deadline_ns = deadline_ns,
    };
    rc = make_arrays(joining.count, &arrays)
             ? open_partitions(c->connection, &joining, 0, arrays.partitions, why)
             : error_set(why, SHMQ_ENOMEM, "topic %s: no memory for its partitions", c->name);
    if (rc < 0) {
        free_arrays(&arrays);
        leave(c->connection, &joining, max_u64(deadline_ns, clock_monotonic_ns() + CLOSE_NS));
        return error_prefix(why, rc, "topic %s", c->name);
    }
    for (uint32_t i = 0; i < joining.count; i++)
        arrays.partitions[i].pending_time = joined.created && c->from_time;
    use_joining(c, &joining, &arrays, event);
    rc = assignment_refresh(c, why);
    consumer_resume_watch(c);
    return rc;
}

/* In whatever session the connection has by then; it may change under way. */
static int open_group(struct shmq_consumer *c, uint64_t deadline_ns, struct error_buffer *why)
{
    for (;;) {
        struct session *session = control_session(c->connection);
        int rc = open_in_session(c, session, deadline_ns, why);

        session_release(session);
        if (rc != SHMQ_ECLOSED || deadline_passed(deadline_ns))
            return rc;
    }
}

int consumer_reopen(struct shmq_consumer *c, uint64_t deadline_ns, struct error_buffer *why)
{
    unsigned flags = deadline_passed(deadline_ns) ? CONTROL_ONCE : 0;
    uint64_t grace_ns = clock_monotonic_ns() + CONTROL_GRACE_NS;
    int rc;

    deadline_ns = max_u64(deadline_ns, grace_ns);
    rc = control_connect(c->connection, deadline_ns, flags, why);
    /* On a bus made anew, what this group has not seen begins at the beginning: an offset was of
     * the old one, and what came before we did is not to be missed. */
    c->from = FROM_EARLIEST;
    c->from_time = false;
    if (rc == 0)
        rc = open_group(c, deadline_ns, why);
    if (rc == SHMQ_ENOBUS || rc == SHMQ_ETIMEOUT)
        rc = error_prefix(why, SHMQ_ECLOSED, "topic %s: its bus was closed", c->name);
    return rc;
}

/* ---- open and close -------------------------------------------------------------------------- */

static int copy_options(const struct shmq_consumer_options *given, struct shmq_consumer_options *to,
                        struct error_buffer *why)
{
    const struct shmq_consumer_options defaults = SHMQ_CONSUMER_OPTIONS_INIT;

    *to = defaults;
    if (given) {
        if (given->size < offsetof(struct shmq_consumer_options, reserved))
            return error_set(why, SHMQ_EINVAL,
                             "consumer: options.size is too small; start with "
                             "SHMQ_CONSUMER_OPTIONS_INIT");
        memcpy(to, given, min_size(given->size, sizeof(*to)));
    }
    if (!to->group)
        to->group = GROUP_DEFAULT;
    if (to->mode == SHMQ_MODE_SHARED)
        return error_set(why, SHMQ_ENOTSUP,
                         "consumer: mode shared: this build has stream groups only; open it with "
                         "mode stream");
    if (to->mode > SHMQ_MODE_SHARED || to->from > SHMQ_FROM_TIME || to->wait > SHMQ_WAIT_BLOCK ||
        to->commit > SHMQ_COMMIT_MANUAL || to->read > SHMQ_READ_DURABLE)
        return error_set(why, SHMQ_EINVAL, "consumer: unknown mode, from, wait, commit or read");
    return 0;
}

static int check_names(const char *topic, const char *group, struct error_buffer *why)
{
    const char *bad = !name_is_valid(topic) ? topic : !name_is_valid(group) ? group : NULL;

    if (!bad)
        return 0;
    return error_set(why, SHMQ_EINVAL,
                     "%s '%.64s': names are 1-200 of A-Z a-z 0-9 . _ - and do not start with a dot",
                     bad == topic ? "topic" : "group", bad);
}

static struct shmq_consumer *make_consumer(shmq_channel *channel, const char *topic,
                                           const struct shmq_consumer_options *options)
{
    struct shmq_consumer *c = handles_alloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->arena_bytes = ARENA_FIRST_SIZE;
    c->arena = malloc(c->arena_bytes); /* not touched, and so not there, but for drop-old */
    if (!c->arena) {
        free(c);
        return NULL;
    }
    c->fork_count = channel->fork_count;
    c->channel = channel;
    c->connection = channel->connection;
    c->prefetch = options->prefetch ? options->prefetch : UINT32_MAX;
    c->auto_commit = options->commit == SHMQ_COMMIT_AUTO;
    c->wait = options->wait;
    c->spin_ns = (options->spin_us ? options->spin_us : SPIN_DEFAULT_US) * NS_PER_US;
    c->from_time = options->from == SHMQ_FROM_TIME;
    c->from = c->from_time ? FROM_EARLIEST : options->from;
    c->from_time_ns = options->from_time_ns;
    c->from_offset = options->from_offset;
    c->durable_only = options->read == SHMQ_READ_DURABLE;
    memcpy(c->name, topic, strlen(topic) + 1);
    memcpy(c->group, options->group, strlen(options->group) + 1);
    return c;
}

static void enlist(struct shmq_consumer *c)
{
    struct shmq_channel *channel = c->channel;

    c->next_in_channel = channel->consumers;
    c->link = &channel->consumers;
    if (c->next_in_channel)
        c->next_in_channel->link = &c->next_in_channel;
    channel->consumers = c;
}

static void free_consumer(struct shmq_consumer *c)
{
    struct arrays arrays = {c->partitions, c->owned, c->words};

    free_arrays(&arrays);
    free(c->arena);
    free(c);
}

int shmq_consumer_open(shmq_channel *channel, const char *topic,
                       const struct shmq_consumer_options *options, shmq_consumer **ret_consumer)
{
    struct shmq_consumer_options copy;
    struct shmq_consumer *c;
    int rc;

    if (!channel || !topic || !ret_consumer)
        return handles_usage_error(channel ? channel->connection->serial : 0,
                                   "consumer: channel, topic or result is NULL");
    *ret_consumer = NULL;
    if (handles_forked(channel->fork_count))
        return handles_fork_error(channel->connection->serial);
    struct error_buffer *why = handles_error(channel->connection->serial);

    rc = copy_options(options, &copy, why);
    if (rc == 0)
        rc = check_names(topic, copy.group, why);
    if (rc < 0)
        return rc;
    c = make_consumer(channel, topic, &copy);
    if (!c)
        return error_set(why, SHMQ_ENOMEM, "topic %s: no memory for a consumer", topic);
    rc = open_group(c, deadline_after_ms(channel->connection->timeout_ms), why);
    if (rc < 0) {
        close_partitions(c);
        session_release(c->session);
        free_consumer(c);
        return rc;
    }
    enlist(c);
    *ret_consumer = c;
    return 0;
}

void consumer_close(struct shmq_consumer *c, uint64_t deadline_ns)
{
    bool forked = handles_forked(c->fork_count);
    struct joining joining = {
        .session = c->session,
        .topic = c->topic,
        .group = c->group_id,
        .gate = c->gate,
        .member = c->member,
    };

    if (!forked && !session_is_over(c->session, c->connection)) {
        if (c->auto_commit)
            consumer_commit_all(c);
        assignment_drop_all(c);
        if (deadline_ns != 0)
            leave(c->connection, &joining, deadline_ns);
    }
    c->notifier = wait_notifier_close(c->notifier);
    close_partitions(c);
    if (!forked)
        session_release(c->session);
    *c->link = c->next_in_channel;
    if (c->next_in_channel)
        c->next_in_channel->link = c->link;
    free_consumer(c);
}

void shmq_consumer_close(shmq_consumer *c)
{
    if (c)
        consumer_close(c, clock_monotonic_ns() + CLOSE_NS);
}
