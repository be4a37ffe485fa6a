/* wire.c: see wire.h. */
#include "test/support/wire.h"

#include "libshmq/cursor.h"
#include "libshmq/liveness.h"
#include "libshmq/paths.h"
#include "test/support/test.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int wire_connect(struct wire *wire)
{
    struct paths_options options = {NULL, NULL, NULL};
    struct paths_environment environment;
    struct paths_candidates candidates;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct error_buffer why;

    memset(wire, 0, offsetof(struct wire, reply));
    wire->bus_fd = -1;
    wire->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    paths_environment_load(&environment);
    if (paths_find_sockets(&options, &environment, &candidates, &why) < 0)
        return -EINVAL;
    memcpy(address.sun_path, candidates.list[0].socket, sizeof(address.sun_path));
    if (connect(wire->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return 0;
    int error = errno;

    close(wire->fd);
    wire->fd = -1;
    return -error;
}

void wire_close_fds(struct wire *wire)
{
    for (unsigned i = 0; i < wire->fd_count; i++)
        close(wire->fds[i]);
    wire->fd_count = 0;
}

void wire_close(struct wire *wire)
{
    wire_close_fds(wire);
    if (wire->fd >= 0)
        close(wire->fd);
    if (wire->bus_fd >= 0)
        close(wire->bus_fd);
    wire->fd = -1;
    wire->bus_fd = -1;
}

int wire_repeat(struct wire *wire, void *request, enum protocol_type type, size_t bytes,
                uint32_t id)
{
    struct pollfd ready = {.fd = wire->fd, .events = POLLIN};
    struct protocol_header *header = request;
    int got;

    wire_close_fds(wire);
    wire->text[0] = '\0';
    protocol_begin(header, type, (uint32_t)bytes);
    header->id = id;
    if (protocol_send(wire->fd, request, bytes, NULL, 0) < 0)
        return SHMQ_ECLOSED;
    if (poll(&ready, 1, test_scaled_ms(10000)) <= 0)
        return SHMQ_ETIMEOUT;
    got = protocol_receive(wire->fd, wire->reply, sizeof(wire->reply), wire->fds, &wire->fd_count);
    if (got <= 0)
        return SHMQ_ECLOSED;
    struct protocol_header *reply = (struct protocol_header *)(void *)wire->reply;

    if (reply->magic != PROTOCOL_MAGIC || reply->type != type || reply->id != id ||
        reply->length != (uint32_t)got)
        return SHMQ_EPROTO;
    if (reply->status < 0)
        snprintf(wire->text, sizeof(wire->text), "%s",
                 ((struct protocol_failure *)(void *)wire->reply)->text);
    return reply->status;
}

int wire_call(struct wire *wire, void *request, enum protocol_type type, size_t bytes)
{
    return wire_repeat(wire, request, type, bytes, ++wire->next_id);
}

int wire_hello(struct wire *wire, uint64_t resume_client)
{
    struct protocol_hello hello = {
        .fingerprint = LAYOUT_FINGERPRINT,
        .resume_client = resume_client,
        .flags = HELLO_MEMBARRIER,
    };
    int rc;

    memcpy(hello.boot_id, wire->boot_id, sizeof(hello.boot_id));
    rc = wire_call(wire, &hello, PROTOCOL_HELLO, sizeof(hello));
    if (rc < 0)
        return rc;
    const struct protocol_welcome *welcome = (const struct protocol_welcome *)(void *)wire->reply;

    wire->client = welcome->client;
    wire->entry = welcome->entry;
    wire->incarnation = welcome->incarnation;
    memcpy(wire->boot_id, welcome->boot_id, sizeof(wire->boot_id));
    if (wire->fd_count == 1) {
        wire->bus_fd = wire->fds[0];
        wire->fd_count = 0;
    }
    return 0;
}

bool wire_open(struct wire *wire)
{
    return CHECK_INT_EQ(wire_connect(wire), 0) && CHECK_OK(wire_hello(wire, 0));
}

static int take_info(struct wire *wire, int rc, struct protocol_topic_info *ret_info)
{
    if (rc == 0 && ret_info)
        *ret_info = ((struct protocol_topic_reply *)(void *)wire->reply)->info;
    return rc;
}

int wire_topic_create(struct wire *wire, const struct topic_options *options, uint32_t flags,
                      struct protocol_topic_info *ret_info)
{
    struct protocol_topic_put put = {.options = *options, .flags = flags};

    return take_info(wire, wire_call(wire, &put, PROTOCOL_TOPIC_CREATE, sizeof(put)), ret_info);
}

static void fill_name(char name[NAME_BYTES], const char *value)
{
    snprintf(name, NAME_BYTES, "%s", value);
}

int wire_topic_describe(struct wire *wire, const char *name, struct protocol_topic_info *ret_info)
{
    struct protocol_topic_request request = {.flags = 0};

    fill_name(request.vhost, VHOST_DEFAULT);
    fill_name(request.name, name);
    return take_info(wire, wire_call(wire, &request, PROTOCOL_TOPIC_DESCRIBE, sizeof(request)),
                     ret_info);
}

int wire_topic_simple(struct wire *wire, enum protocol_type type, const char *name)
{
    struct protocol_topic_request request = {.flags = 0};

    fill_name(request.vhost, VHOST_DEFAULT);
    fill_name(request.name, name);
    return wire_call(wire, &request, type, sizeof(request));
}

int wire_group_join(struct wire *wire, const char *topic, const char *group, uint32_t from,
                    struct protocol_group_joined *ret_joined)
{
    struct protocol_group_join join = {.from = from};
    int rc;

    fill_name(join.vhost, VHOST_DEFAULT);
    fill_name(join.topic, topic);
    fill_name(join.group, group);
    rc = wire_call(wire, &join, PROTOCOL_GROUP_JOIN, sizeof(join));
    if (rc == 0)
        *ret_joined = *(struct protocol_group_joined *)(void *)wire->reply;
    return rc;
}

int wire_group_leave(struct wire *wire, const struct protocol_group_joined *joined)
{
    struct protocol_group_request request = {
        .topic = joined->topic.id,
        .group = joined->group,
        .gate = joined->gate,
        .member = joined->member,
    };

    return wire_call(wire, &request, PROTOCOL_GROUP_LEAVE, sizeof(request));
}

/* ---- mapping --------------------------------------------------------------------------------- */

static bool nobody_is_dead(void *context, uint64_t client)
{
    (void)context;
    (void)client;
    return false;
}

static int no_group(void *context, struct ring *ring, uint32_t index, uint64_t group,
                    uint64_t deadline_ns, struct segment *ret_segment)
{
    (void)context;
    (void)ring;
    (void)index;
    (void)group;
    (void)deadline_ns;
    (void)ret_segment;
    return SHMQ_ENOGROUP;
}

static const struct ring_ops OPS = {.client_is_dead = nobody_is_dead, .map_group = no_group};

int wire_partition_open(struct wire *wire, uint64_t topic, uint32_t partition, uint32_t role,
                        struct ring *ret_ring, uint32_t *ret_slot)
{
    static const enum segment_kind KINDS[3] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT};
    struct protocol_partition_open open = {.topic = topic, .partition = partition, .role = role};
    bool producer = role == ROLE_PRODUCER;
    bool writable[4] = {false, producer, true, producer};
    struct segment segments[4] = {{NULL, 0}};
    struct error_buffer why;
    int rc = wire_call(wire, &open, PROTOCOL_PARTITION_OPEN, sizeof(open));

    if (rc < 0)
        return rc;
    struct protocol_partition_opened opened =
        *(struct protocol_partition_opened *)(void *)wire->reply;

    if (!CHECK_EQ(wire->fd_count, 4))
        return SHMQ_EPROTO;
    for (unsigned i = 0; rc == 0 && i < 3; i++) {
        struct segment_identity identity = {
            .kind = KINDS[i], .topic = topic, .partition = partition, .salt = opened.salt};

        rc = segment_map(wire->fds[i], writable[i], 1, &segments[i], &why);
        if (rc == 0)
            rc = segment_check(&segments[i], &identity, &why);
    }
    if (rc == 0)
        rc = segment_map_twice(wire->fds[3], writable[3], opened.capacity, &segments[3], &why);
    if (rc == 0)
        rc = ring_init(ret_ring, segments, wire->fds[1], &OPS, NULL, &why);
    if (rc < 0) {
        test_fail(__FILE__, __LINE__, "partition %u: %s", partition, why.text);
        return rc;
    }
    wire->fds[1] = wire->fds[3]; /* the ring has P now */
    wire->fd_count = 3;
    wire_close_fds(wire);
    if (ret_slot)
        *ret_slot = opened.slot;
    return 0;
}

int wire_group_segment(struct wire *wire, const struct protocol_group_joined *joined,
                       uint32_t partition, struct segment *ret_segment)
{
    struct protocol_group_request request = {
        .topic = joined->topic.id,
        .group = joined->group,
        .gate = joined->gate,
        .partition = partition,
    };
    struct error_buffer why;
    int rc = wire_call(wire, &request, PROTOCOL_GROUP_SEGMENT, sizeof(request));

    if (rc == 0 && CHECK_EQ(wire->fd_count, 1))
        rc = segment_map(wire->fds[0], true, sizeof(struct group_segment), ret_segment, &why);
    wire_close_fds(wire);
    return rc;
}
