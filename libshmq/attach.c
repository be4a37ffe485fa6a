/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach.c: opening and closing partitions; see attach.h.
 */
#include "libshmq/attach.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "libshmq/clock.h"
#include "libshmq/cursor.h"
#include "libshmq/liveness.h"

#define RETRY_NS (UINT64_C(5) * NS_PER_MS)

/* ---- what the ring asks ---------------------------------------------------------------------- */

static bool client_is_dead(void *context, uint64_t client)
{
    const struct attachment *a = context;

    /* One's own lock does not exclude one's own test: the kernel would say "nobody". */
    return client != a->session->client && liveness_is_dead(a->session->bus_fd.fd, client);
}

int attachment_map_group(struct attachment *a, uint32_t gate, uint64_t group, bool writable,
                         uint64_t deadline_ns, unsigned flags, struct segment *ret_segment,
                         struct error_buffer *why)
{
    struct protocol_group_request request = {
        .topic = a->topic,
        .group = group,
        .partition = a->partition,
        .gate = gate,
    };
    struct protocol_header reply;
    struct control_call call = {
        .request = &request.header,
        .session = a->session,
        .reply = &reply,
        .reply_bytes = sizeof(reply),
        .deadline_ns = deadline_ns,
        .flags = flags,
    };
    struct segment_identity identity = {
        .kind = SEGMENT_GROUP,
        .topic = a->topic,
        .partition = a->partition,
        .salt = a->ring.salt,
        .group = group,
    };
    struct segment segment = {NULL, 0};
    int rc;

    protocol_begin(&request.header, PROTOCOL_GROUP_SEGMENT, sizeof(request));
    rc = control_run(a->connection, &call, why);
    if (rc < 0)
        return rc;
    if (call.fd_count != 1) {
        control_drop_fds(&call);
        return error_set(why, SHMQ_EPROTO, "group segment: %u descriptors came instead of one",
                         call.fd_count);
    }
    rc = segment_map(call.fds[0].fd, writable, sizeof(struct group_segment), &segment, why);
    control_drop_fds(&call);
    if (rc == 0)
        rc = segment_check(&segment, &identity, why);
    if (rc < 0) {
        segment_unmap(&segment);
        return rc;
    }
    *ret_segment = segment;
    return 0;
}

static int map_group(void *context, struct ring *ring, uint32_t index, uint64_t group,
                     uint64_t deadline_ns, struct segment *ret_segment)
{
    struct attachment *a = context;
    unsigned flags = 0;

    (void)ring;
    /* A publish that may not wait still cannot go on without it; but it waits for no successor. */
    if (deadline_left_ns(deadline_ns) < CONTROL_GRACE_NS) {
        deadline_ns = clock_monotonic_ns() + CONTROL_GRACE_NS;
        flags = CONTROL_ONCE;
    }
    return attachment_map_group(a, index, group, false, deadline_ns, flags, ret_segment,
                                handles_error(a->connection->serial));
}

static const struct ring_ops client_ops = {
    .client_is_dead = client_is_dead,
    .map_group = map_group,
};

/* ---- opening --------------------------------------------------------------------------------- */

static int map_segments(const struct attachment *a, const struct control_call *call,
                        const struct protocol_partition_opened *opened, struct segment segments[4],
                        struct error_buffer *why)
{
    static const enum segment_kind kinds[3] = {SEGMENT_STATE, SEGMENT_PRODUCERS, SEGMENT_WAIT};
    const size_t least[3] = {sizeof(struct state_segment), sizeof(struct producers_segment),
                             sizeof(struct wait_segment)};
    bool producer = a->role == ROLE_PRODUCER;
    const bool writable[3] = {false, producer, true};
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < 3; i++) {
        struct segment_identity identity = {
            .kind = kinds[i],
            .topic = a->topic,
            .partition = a->partition,
            .salt = opened->salt,
        };

        rc = segment_map(call->fds[i].fd, writable[i], least[i], &segments[i], why);
        if (rc == 0)
            rc = segment_check(&segments[i], &identity, why);
    }
    if (rc == 0)
        rc = segment_map_twice(call->fds[3].fd, producer, opened->capacity, &segments[3], why);
    return rc;
}

/* Maps what came with the reply. Descriptors that are not needed any more are dropped. */
static int take_partition(struct attachment *a, struct control_call *call,
                          const struct protocol_partition_opened *opened, struct error_buffer *why)
{
    struct segment segments[4] = {{NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}};
    int rc;

    if (call->fd_count != 4 || (opened->capacity & (RECORD_UNIT - 1)) != 0 ||
        opened->capacity > RING_MAX_BYTES)
        rc = error_set(why, SHMQ_EPROTO, "partition %u: the supervisor's reply is malformed",
                       a->partition);
    else
        rc = map_segments(a, call, opened, segments, why);
    /* Only who resolves claims needs P's descriptor: of a thousand partitions it is a thousand. */
    if (rc == 0 && a->role != ROLE_PRODUCER)
        handles_close_fd(&call->fds[1]);
    if (rc == 0)
        rc = ring_init(&a->ring, segments, call->fds[1].fd, &client_ops, a, why);
    if (rc < 0) {
        for (unsigned i = 0; i < 4; i++)
            segment_unmap(&segments[i]);
    } else {
        handles_move_fd(&a->producers_fd, &call->fds[1]);
        if (a->role == ROLE_PRODUCER && opened->slot >= a->ring.slot_count)
            rc = error_set(why, SHMQ_EPROTO, "partition %u: slot %u of %u was given out",
                           a->partition, opened->slot, a->ring.slot_count);
        a->slot = opened->slot;
    }
    control_drop_fds(call);
    return rc;
}

static void take_apart(struct attachment *a)
{
    handles_close_fd(&a->producers_fd);
    a->ring.producers_fd = -1;
    ring_deinit(&a->ring);
    session_release(a->session);
    free(a);
}

static void close_slot(struct attachment *a, uint32_t slot, uint64_t deadline_ns)
{
    struct protocol_slot_request request = {
        .topic = a->topic,
        .partition = a->partition,
        .slot = slot,
    };
    struct protocol_header reply;
    struct control_call call = {
        .request = &request.header,
        .session = a->session,
        .reply = &reply,
        .reply_bytes = sizeof(reply),
        .deadline_ns = deadline_ns,
        /* A supervisor that is being restarted is waited for: others want what is given up. */
        .flags = CONTROL_OWED,
    };
    struct error_buffer ignored;

    protocol_begin(&request.header, PROTOCOL_SLOT_CLOSE, sizeof(request));
    (void)control_run(a->connection, &call, &ignored); /* else the session's end gives it back */
    control_drop_fds(&call);
}

static int open_once(struct attachment *a, uint64_t deadline_ns, struct error_buffer *why)
{
    struct protocol_partition_open request = {
        .topic = a->topic,
        .partition = a->partition,
        .role = a->role,
    };
    struct protocol_partition_opened opened;
    struct control_call call = {
        .request = &request.header,
        .session = a->session,
        .reply = &opened,
        .reply_bytes = sizeof(opened),
        .deadline_ns = deadline_ns,
    };
    int rc;

    protocol_begin(&request.header, PROTOCOL_PARTITION_OPEN, sizeof(request));
    rc = control_run(a->connection, &call, why);
    if (rc < 0)
        return rc;
    rc = take_partition(a, &call, &opened, why);
    if (rc < 0 && a->role == ROLE_PRODUCER)
        close_slot(a, opened.slot, deadline_ns);
    return rc;
}

int attachment_open(struct shmq_connection *c, struct session *session, uint64_t topic,
                    uint32_t partition, enum partition_role role, uint64_t deadline_ns,
                    struct attachment **ret_attachment, struct error_buffer *why)
{
    struct attachment *a = calloc(1, sizeof(*a));
    const struct timespec pause = {.tv_nsec = (long)RETRY_NS};
    int rc;

    if (!a)
        return error_set(why, SHMQ_ENOMEM, "partition %u: no memory to open it", partition);
    a->connection = c;
    a->session = session_reference(session);
    a->topic = topic;
    a->partition = partition;
    a->role = role;
    a->producers_fd.fd = -1;
    a->ring.producers_fd = -1;
    for (;;) {
        rc = open_once(a, deadline_ns, why);
        if (rc != SHMQ_EAGAIN || deadline_passed(deadline_ns))
            break;
        /* A slot is being freed from its dead owner. */
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    if (rc < 0) {
        take_apart(a);
        return rc == SHMQ_EAGAIN ? SHMQ_ETIMEOUT : rc;
    }
    *ret_attachment = a;
    return 0;
}

void attachment_close(struct attachment *a, uint64_t deadline_ns)
{
    if (!a)
        return;
    if (handles_forked(a->connection->fork_count)) {
        free(a); /* mappings and descriptors are not this process's */
        return;
    }
    if (a->role == ROLE_PRODUCER && deadline_ns != 0 && !session_is_over(a->session, a->connection))
        close_slot(a, a->slot, deadline_ns);
    take_apart(a);
}

/* ---- the journal ----------------------------------------------------------------------------- */

static int check_opened(const struct attachment *a, const struct control_call *call,
                        const struct protocol_journal_opened *opened, struct error_buffer *why)
{
    bool sane = opened->present ? call->fd_count == 1 && opened->base % RECORD_UNIT == 0 &&
                                      opened->next_base > opened->base &&
                                      (opened->next_base == UINT64_MAX ||
                                       (opened->next_base % RECORD_UNIT == 0 &&
                                        opened->next_previous_end % RECORD_UNIT == 0 &&
                                        opened->next_previous_end <= opened->next_base))
                                : call->fd_count == 0;

    if (sane && opened->log_base % RECORD_UNIT == 0)
        return 0;
    return error_set(
        why, SHMQ_EPROTO,
        "topic %.200s/%u: the supervisor's answer about its journal contradicts itself",
        a->ring.state->name, a->partition);
}

int attachment_open_journal(struct attachment *a, uint64_t offset, uint64_t time_ns,
                            uint64_t deadline_ns, unsigned flags,
                            struct protocol_journal_opened *ret_opened, struct tracked_fd *ret_fd,
                            struct error_buffer *why)
{
    struct protocol_journal_open request = {
        .topic = a->topic,
        .offset = offset,
        .time_ns = time_ns,
        .partition = a->partition,
        .flags = time_ns != 0 ? JOURNAL_BY_TIME : 0,
    };
    struct protocol_journal_opened opened = {.present = 0};
    struct control_call call = {
        .request = &request.header,
        .session = a->session,
        .reply = &opened,
        .reply_bytes = sizeof(opened),
        .deadline_ns = deadline_ns,
        .flags = flags,
    };
    int rc;

    protocol_begin(&request.header, PROTOCOL_JOURNAL_OPEN, sizeof(request));
    rc = control_run(a->connection, &call, why);
    if (rc < 0)
        return rc;
    rc = check_opened(a, &call, &opened, why);
    if (rc == 0) {
        *ret_opened = opened;
        if (opened.present)
            handles_move_fd(ret_fd, &call.fds[0]);
    }
    control_drop_fds(&call);
    return rc;
}

/* ---- questions ------------------------------------------------------------------------------- */

int attachment_check_status(const struct attachment *a, struct error_buffer *why)
{
    const char *name = a->ring.state->name;

    switch (attachment_status(a)) {
    case PARTITION_DELETED:
        return error_set(why, SHMQ_ENOTOPIC, "topic %.200s: was deleted; close this handle", name);
    case PARTITION_QUARANTINED:
        return error_set(why, SHMQ_ECORRUPT,
                         "topic %.200s/%u: was scribbled on and is quarantined; run shmq doctor",
                         name, a->partition);
    default:
        return 0;
    }
}

int attachment_ask_resolve(struct attachment *a, uint64_t offset, uint64_t deadline_ns)
{
    struct protocol_slot_request request = {
        .topic = a->topic,
        .partition = a->partition,
        .offset = offset,
    };
    struct protocol_resolve_reply reply = {.result = RESOLVE_DONE};
    struct control_call call = {
        .request = &request.header,
        .session = a->session,
        .reply = &reply,
        .reply_bytes = sizeof(reply),
        .deadline_ns = deadline_ns,
        .flags = CONTROL_ONCE,
    };
    struct error_buffer ignored;
    int rc;

    protocol_begin(&request.header, PROTOCOL_RESOLVE, sizeof(request));
    rc = control_run(a->connection, &call, &ignored);
    control_drop_fds(&call);
    return rc < 0 ? rc : (int)min_u32(reply.result, RESOLVE_CORRUPT);
}

/* " (pid 7, cat)", or nothing. */
static void describe_client(const struct attachment *a, uint64_t client, char text[64])
{
    char command[16];
    uint32_t pid;

    if (session_find_client(a->session, client, &pid, command))
        (void)snprintf(text, 64, " (pid %u, %s)", pid, command);
    else
        text[0] = '\0';
}

static uint64_t owner_of_gate(const struct attachment *a, uint32_t gate)
{
    const struct group_segment *group = a->ring.gates[gate].segment.address;
    uint64_t assign =
        atomic_load_explicit(&a->ring.state->gates[gate].assign, memory_order_acquire);
    uint32_t member = assign_member(assign);

    if (!group || member >= MEMBERS_MAX)
        return CLIENT_NONE;
    return atomic_load_explicit(&group->members[member].client, memory_order_relaxed);
}

static uint64_t owner_of_claim(const struct ring *ring, uint64_t offset)
{
    for (uint32_t i = 0; i < ring->slot_count; i++) {
        uint64_t at = atomic_load_explicit(&ring->producers->slots[i].at, memory_order_acquire);

        if (at != 0 && (at & ~SLOT_BITS) == offset)
            return atomic_load_explicit(&ring->state->slot_client[i], memory_order_relaxed);
    }
    return CLIENT_NONE;
}

void attachment_describe_journal(const struct attachment *a, char *text, size_t text_bytes)
{
    const struct state_segment *state = a->ring.state;
    /* Relaxed: what to say, no more. Durable before tail: it never passes it. */
    uint64_t durable = attachment_durable(a);
    uint64_t behind = ring_tail(&a->ring) - durable;
    int error = (int)atomic_load_explicit(&state->journal_error, memory_order_relaxed);
    const char *reason = "it is being written";
    const char *remedy = "try again";
    char buffer[128];

    if (error != 0) {
        reason = error_errno_text(error, buffer, sizeof(buffer));
        remedy = error == ENOSPC || error == EDQUOT ? "free some room on its disk"
                                                    : "look at shmqd's log and at the disk";
    } else if (client_is_dead((void *)(uintptr_t)a, CLIENT_SHMQD)) {
        reason = "no supervisor is running";
        remedy = "start shmqd";
    }
    (void)snprintf(text, text_bytes, "the journal is %" PRIu64 " bytes behind: %s; %s", behind,
                   reason, remedy);
}

void attachment_describe_blocker(const struct attachment *a, char *text, size_t text_bytes)
{
    const struct group_segment *group;
    struct room_blocker blocker;
    uint64_t behind;
    char who[64];

    ring_find_blocker(&a->ring, &blocker);
    behind = ring_tail(&a->ring) - blocker.offset;
    group = blocker.gate < GATES_MAX ? a->ring.gates[blocker.gate].segment.address : NULL;
    switch (blocker.holder) {
    case ROOM_CURSOR: {
        uint64_t owner = owner_of_gate(a, blocker.gate);

        describe_client(a, owner, who);
        (void)snprintf(text, text_bytes,
                       "group '%.*s'%s has not committed the oldest %" PRIu64
                       " bytes; let it catch up, or delete the group",
                       (int)NAME_MAX_BYTES, group ? group->name : "?",
                       owner == CLIENT_NONE ? ", which has no member," : who, behind);
        break;
    }
    case ROOM_HOLD:
        describe_client(a, blocker.client, who);
        (void)snprintf(text, text_bytes,
                       "a consumer of group '%.*s'%s still looks at a message %" PRIu64
                       " bytes back; let it poll again",
                       (int)NAME_MAX_BYTES, group ? group->name : "?", who, behind);
        break;
    case ROOM_CLAIM:
        describe_client(a, owner_of_claim(&a->ring, blocker.offset), who);
        (void)snprintf(text, text_bytes,
                       "a producer%s has claimed offset %" PRIu64
                       " and not committed it; let it go on, or end it",
                       who, blocker.offset);
        break;
    case ROOM_DURABLE:
        attachment_describe_journal(a, text, text_bytes);
        break;
    case ROOM_FREE:
    default:
        (void)snprintf(text, text_bytes, "there was room again a moment later; publish again");
        break;
    }
}
