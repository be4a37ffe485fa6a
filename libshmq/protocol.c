/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protocol.c: checks, sends and receives control messages; what they mean stands in protocol.h.
 *
 * Called by shmqd's control thread and by any thread of a client that holds the connection's
 * control lock. No state, no allocation; never blocks (MSG_DONTWAIT). A message that fails a check
 * leaves no descriptor behind. What arrives is hostile: every length is compared with the bytes
 * received before anything behind the header is looked at.
 */
#include "libshmq/protocol.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libshmq/base.h"

/* Exact size of each request; the check of its fields beyond the header. */
struct request_rule {
    const char *name;
    size_t bytes;
    bool (*fields_ok)(const void *message);
};

static bool terminated(const char name[NAME_BYTES])
{
    return memchr(name, 0, NAME_BYTES) != NULL;
}

static bool topic_request_ok(const void *message)
{
    const struct protocol_topic_request *request = message;

    return terminated(request->vhost) && terminated(request->name);
}

static bool topic_put_ok(const void *message)
{
    const struct protocol_topic_put *request = message;

    return terminated(request->options.vhost) && terminated(request->options.name);
}

static bool list_request_ok(const void *message)
{
    const struct protocol_list_request *request = message;

    return terminated(request->vhost) && terminated(request->name) && terminated(request->after);
}

static bool partition_open_ok(const void *message)
{
    const struct protocol_partition_open *request = message;

    return request->partition < PARTITIONS_MAX && request->role <= ROLE_PRODUCER;
}

static bool slot_request_ok(const void *message)
{
    const struct protocol_slot_request *request = message;

    return request->partition < PARTITIONS_MAX && request->slot < SLOTS_MAX;
}

static bool journal_open_ok(const void *message)
{
    const struct protocol_journal_open *request = message;

    return request->partition < PARTITIONS_MAX && (request->flags & ~JOURNAL_BY_TIME) == 0;
}

static bool group_join_ok(const void *message)
{
    const struct protocol_group_join *request = message;

    return terminated(request->vhost) && terminated(request->topic) && terminated(request->group) &&
           request->from <= FROM_OFFSET && request->kind <= GROUP_SHARED;
}

static bool group_request_ok(const void *message)
{
    const struct protocol_group_request *request = message;

    return request->partition < PARTITIONS_MAX && request->gate < GATES_MAX &&
           request->member < MEMBERS_MAX && terminated(request->topic_name) &&
           terminated(request->group_name);
}

/* NULL for a type that does not exist. */
static const struct request_rule *find_rule(unsigned type)
{
    static const struct request_rule rules[] = {
        [PROTOCOL_HELLO] = {"hello", sizeof(struct protocol_hello), NULL},
        [PROTOCOL_GOODBYE] = {"goodbye", sizeof(struct protocol_header), NULL},
        [PROTOCOL_STATUS] = {"status", sizeof(struct protocol_header), NULL},
        [PROTOCOL_TOPIC_CREATE] = {"topic create", sizeof(struct protocol_topic_put), topic_put_ok},
        [PROTOCOL_TOPIC_DESCRIBE] = {"topic describe", sizeof(struct protocol_topic_request),
                                     topic_request_ok},
        [PROTOCOL_TOPIC_LIST] = {"topic list", sizeof(struct protocol_list_request),
                                 list_request_ok},
        [PROTOCOL_TOPIC_ALTER] = {"topic alter", sizeof(struct protocol_topic_put), topic_put_ok},
        [PROTOCOL_TOPIC_DELETE] = {"topic delete", sizeof(struct protocol_topic_request),
                                   topic_request_ok},
        [PROTOCOL_TOPIC_PURGE] = {"topic purge", sizeof(struct protocol_topic_request),
                                  topic_request_ok},
        [PROTOCOL_PARTITION_LIST] = {"partition list", sizeof(struct protocol_list_request),
                                     list_request_ok},
        [PROTOCOL_PARTITION_OPEN] = {"partition open", sizeof(struct protocol_partition_open),
                                     partition_open_ok},
        [PROTOCOL_SLOT_CLOSE] = {"slot close", sizeof(struct protocol_slot_request),
                                 slot_request_ok},
        [PROTOCOL_RESOLVE] = {"resolve", sizeof(struct protocol_slot_request), slot_request_ok},
        [PROTOCOL_JOURNAL_OPEN] = {"journal open", sizeof(struct protocol_journal_open),
                                   journal_open_ok},
        [PROTOCOL_GROUP_JOIN] = {"group join", sizeof(struct protocol_group_join), group_join_ok},
        [PROTOCOL_GROUP_LEAVE] = {"group leave", sizeof(struct protocol_group_request),
                                  group_request_ok},
        [PROTOCOL_GROUP_SEGMENT] = {"group segment", sizeof(struct protocol_group_request),
                                    group_request_ok},
        [PROTOCOL_GROUP_LIST] = {"group list", sizeof(struct protocol_list_request),
                                 list_request_ok},
        [PROTOCOL_GROUP_DESCRIBE] = {"group describe", sizeof(struct protocol_group_request),
                                     group_request_ok},
        [PROTOCOL_GROUP_DELETE] = {"group delete", sizeof(struct protocol_group_request),
                                   group_request_ok},
        [PROTOCOL_CLIENT_LIST] = {"client list", sizeof(struct protocol_list_request),
                                  list_request_ok},
    };

    return type < COUNT_OF(rules) && rules[type].name ? &rules[type] : NULL;
}

const char *protocol_type_name(unsigned type)
{
    const struct request_rule *rule = find_rule(type);

    return rule ? rule->name : "unknown";
}

bool protocol_name_ok(const char name[NAME_BYTES], bool may_be_empty)
{
    return terminated(name) && (name[0] == '\0' ? may_be_empty : name_is_valid(name));
}

void protocol_begin(struct protocol_header *header, enum protocol_type type, uint32_t length_bytes)
{
    *header = (struct protocol_header){
        .magic = PROTOCOL_MAGIC,
        .version = PROTOCOL_VERSION,
        .type = (uint16_t)type,
        .length = length_bytes,
    };
}

/* What every message has to satisfy, whoever sent it. */
static int check_header(const struct protocol_header *header, size_t bytes,
                        struct error_buffer *why)
{
    if (bytes < sizeof(*header) || bytes > PROTOCOL_BYTES_MAX)
        return error_set(why, SHMQ_EPROTO, "control message: %zu bytes: no such message is so long",
                         bytes);
    if (header->magic != PROTOCOL_MAGIC)
        return error_set(why, SHMQ_EPROTO,
                         "control message: magic 0x%08x: the peer does not speak shmq",
                         header->magic);
    if (header->version != PROTOCOL_VERSION)
        return error_set(why, SHMQ_EVERSION,
                         "control protocol: the peer has version %u, this side version %u; bring "
                         "library and supervisor to the same version",
                         header->version, PROTOCOL_VERSION);
    if (header->length != bytes)
        return error_set(why, SHMQ_EPROTO, "%s: says %u bytes, but %zu arrived",
                         protocol_type_name(header->type), header->length, bytes);
    return 0;
}

int protocol_check_request(const void *message, size_t bytes, struct error_buffer *why)
{
    const struct protocol_header *header = message;
    const struct request_rule *rule;
    int rc = check_header(header, bytes, why);

    if (rc < 0)
        return rc;
    rule = find_rule(header->type);
    if (!rule)
        return error_set(why, SHMQ_EPROTO, "control message: unknown type %u", header->type);
    if (bytes != rule->bytes || header->count != 0 || header->status != 0)
        return error_set(why, SHMQ_EPROTO, "%s request: %zu bytes, count %u, status %d: malformed",
                         rule->name, bytes, header->count, header->status);
    if (rule->fields_ok && !rule->fields_ok(message))
        return error_set(why, SHMQ_EPROTO, "%s request: a field is out of its range", rule->name);
    return 0;
}

/* The sentence of a failed reply. It need not be as long as ours, nor terminated. */
static int copy_failure(const void *message, size_t bytes, struct error_buffer *why)
{
    const struct protocol_failure *failure = message;
    size_t room = bytes - sizeof(failure->header);
    int status = failure->header.status;
    size_t length = strnlen(failure->text, min_size(room, sizeof(failure->text)));

    if (length == 0)
        return error_set(why, status, "%s: %s; %s", protocol_type_name(failure->header.type),
                         error_text(status), error_remedy(status));
    return error_set(why, status, "%.*s", (int)length, failure->text);
}

int protocol_check_reply(const void *message, size_t bytes, const struct protocol_header *request,
                         size_t body_bytes, size_t element_bytes, struct error_buffer *why)
{
    const struct protocol_header *header = message;
    int rc = check_header(header, bytes, why);

    if (rc < 0)
        return rc;
    if (header->type != request->type || header->id != request->id)
        return error_set(why, SHMQ_EPROTO, "%s reply %u: answers %s %u",
                         protocol_type_name(request->type), request->id,
                         protocol_type_name(header->type), header->id);
    if (header->status < 0)
        return copy_failure(message, bytes, why);
    if (header->status > 0 || bytes < body_bytes)
        return error_set(why, SHMQ_EPROTO, "%s reply: %zu bytes, status %d: malformed",
                         protocol_type_name(header->type), bytes, header->status);
    /* A fixed body may have grown at its end; an array is exactly as long as it says. */
    if (element_bytes == 0 ? header->count != 0
                           : (uint64_t)header->count * element_bytes != bytes - body_bytes)
        return error_set(why, SHMQ_EPROTO, "%s reply: %u elements in %zu bytes: malformed",
                         protocol_type_name(header->type), header->count, bytes);
    return 0;
}

/* ---- packets with descriptors ---------------------------------------------------------------- */

/* Aligned as the kernel's macros want it. */
union descriptor_room {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * PROTOCOL_FDS_MAX)];
};

int protocol_send(int socket_fd, const void *message, size_t bytes, const int *fds,
                  unsigned fd_count)
{
    union descriptor_room room;
    struct iovec part = {.iov_base = (void *)(uintptr_t)message, .iov_len = bytes};
    struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t sent;

    if (bytes > PROTOCOL_BYTES_MAX || fd_count > PROTOCOL_FDS_MAX)
        return SHMQ_EINVAL;
    if (fd_count > 0) {
        struct cmsghdr *control;

        memset(&room, 0, sizeof(room));
        packet.msg_control = &room;
        packet.msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * fd_count);
        control = CMSG_FIRSTHDR(&packet);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(control), fds, sizeof(int) * fd_count);
    }
    do {
        sent = sendmsg(socket_fd, &packet, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return (int)sent; /* SEQPACKET: all or nothing */
    switch (errno) {
    case EAGAIN:
    case ENOBUFS:
        return SHMQ_EAGAIN;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return SHMQ_ECLOSED;
    default:
        return error_from_errno(errno);
    }
}

static void close_all(const int *fds, unsigned fd_count)
{
    for (unsigned i = 0; i < fd_count; i++)
        (void)close(fds[i]);
}

/* musl's macro converts signs on the way. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
static struct cmsghdr *next_control(struct msghdr *packet, struct cmsghdr *control)
{
    return CMSG_NXTHDR(packet, control);
}
#pragma GCC diagnostic pop

/* Collects the descriptors that arrived; -1 when there is something else, or more than fit. */
static int collect_fds(struct msghdr *packet, int fds[PROTOCOL_FDS_MAX], unsigned *ret_fd_count)
{
    unsigned count = 0;
    int result = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(packet); c; c = next_control(packet, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            result = -1;
            continue;
        }
        size_t arrived = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; i < arrived; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (count < PROTOCOL_FDS_MAX) {
                fds[count++] = fd;
            } else {
                (void)close(fd);
                result = -1;
            }
        }
    }
    *ret_fd_count = count;
    return result;
}

int protocol_receive(int socket_fd, void *buffer, size_t room, int *ret_fds, unsigned *ret_fd_count)
{
    union descriptor_room control;
    struct iovec part = {.iov_base = buffer, .iov_len = room};
    struct msghdr packet = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    int fds[PROTOCOL_FDS_MAX];
    unsigned fd_count;
    ssize_t got;

    do {
        got = recvmsg(socket_fd, &packet, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        if (errno == ECONNRESET || errno == ENOTCONN)
            got = 0;
        else
            return errno == EAGAIN ? SHMQ_EAGAIN : error_from_errno(errno);
        packet.msg_controllen = 0;
        packet.msg_flags = 0;
    }
    int bad = collect_fds(&packet, fds, &fd_count);

    bool cut = (packet.msg_flags & MSG_CTRUNC) != 0;
    /* There was room for more: this process may not open them. */
    bool lost = cut && fd_count < PROTOCOL_FDS_MAX && ret_fds;

    if (bad || (cut && !lost) || (packet.msg_flags & MSG_TRUNC) || (fd_count > 0 && !ret_fds)) {
        close_all(fds, fd_count);
        return SHMQ_EPROTO;
    }
    if (lost) {
        close_all(fds, fd_count);
        *ret_fd_count = PROTOCOL_FDS_LOST;
    } else if (ret_fds) {
        memcpy(ret_fds, fds, fd_count * sizeof(int));
        *ret_fd_count = fd_count;
    }
    return (int)got;
}
