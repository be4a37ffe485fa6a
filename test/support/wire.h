/*
 * wire.h: a client that speaks the control protocol by hand, for tests of the supervisor alone.
 *
 * Calls return 0 or the negative status of the reply; the sentence of a failure is in wire->text.
 * Each call is one request and one reply, with up to 10 s for it. A struct wire belongs to one
 * thread of one process.
 */
#ifndef SHMQ_TEST_SUPPORT_WIRE_H
#define SHMQ_TEST_SUPPORT_WIRE_H

#include "libshmq/protocol.h"
#include "libshmq/ring.h"

struct wire {
    int fd;     /* -1: not connected */
    int bus_fd; /* B, with our byte locked; -1: none */
    uint64_t client;
    uint32_t entry;
    unsigned char boot_id[16];
    uint64_t incarnation;
    uint32_t next_id;
    int fds[PROTOCOL_FDS_MAX]; /* of the last reply */
    unsigned fd_count;
    char text[512];
    _Alignas(8) unsigned char reply[PROTOCOL_BYTES_MAX];
};

/* The socket of the test's bus (SHMQ_RUNTIME_DIR, SHMQ_BUS), connected; no hello yet. 0 or -errno.
 * */
int wire_connect(struct wire *wire);
int wire_hello(struct wire *wire, uint64_t resume_client);
/* connect and hello; a failure is a failed check. */
bool wire_open(struct wire *wire);
/* Closes everything, as a death would: without a word. */
void wire_close(struct wire *wire);

/* Sends `request` (its header filled in here, with a new id), receives the reply into wire->reply.
 * Descriptors of the reply before are closed. */
int wire_call(struct wire *wire, void *request, enum protocol_type type, size_t bytes);
/* The same with the id of an earlier request. */
int wire_repeat(struct wire *wire, void *request, enum protocol_type type, size_t bytes,
                uint32_t id);
void wire_close_fds(struct wire *wire);

int wire_topic_create(struct wire *wire, const struct topic_options *options, uint32_t flags,
                      struct protocol_topic_info *ret_info);
int wire_topic_describe(struct wire *wire, const char *name, struct protocol_topic_info *ret_info);
int wire_topic_simple(struct wire *wire, enum protocol_type type, const char *name);
int wire_group_join(struct wire *wire, const char *topic, const char *group, uint32_t from,
                    struct protocol_group_joined *ret_joined);
int wire_group_leave(struct wire *wire, const struct protocol_group_joined *joined);

/* Opens a partition and maps it; *ret_slot for producers. The ring asks nobody: all clients live,
 * groups are not mapped. */
int wire_partition_open(struct wire *wire, uint64_t topic, uint32_t partition, uint32_t role,
                        struct ring *ret_ring, uint32_t *ret_slot);
/* G of a partition. */
int wire_group_segment(struct wire *wire, const struct protocol_group_joined *joined,
                       uint32_t partition, struct segment *ret_segment);

#endif
