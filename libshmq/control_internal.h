/* SPDX-License-Identifier: Apache-2.0 */
/* control_internal.h: what control.c and control_connect.c share. All of it runs in one's turn. */
#ifndef SHMQ_CONTROL_INTERNAL_H
#define SHMQ_CONTROL_INTERNAL_H

#include "libshmq/control.h"

/* Outcome beside 0 and byte counts: the supervisor at the other end is gone. */
enum { CONTROL_LOST = PROTOCOL_BYTES_MAX + 1 };

union control_refund {
    struct protocol_header header;
    struct protocol_slot_request slot;
    struct protocol_group_request group;
    unsigned char bytes[sizeof(struct protocol_group_request)];
};

/* A request that gives something back and was not answered. Of a session: with another one it is void. */
struct control_debt {
    struct control_debt *next;
    uint32_t generation;
    union control_refund refund;
};

/* Makes a socket and a session. 0, CONTROL_LOST, or an error; without a socket unless 0. */
int control_hello(struct shmq_connection *connection, uint64_t deadline_ns,
                  struct error_buffer *why);

/* 0 or CONTROL_LOST or an error. */
int control_send(struct shmq_connection *connection, const struct protocol_header *message,
                 uint64_t deadline_ns, struct error_buffer *why);

/* Bytes in connection->buffer, descriptors in call->fds; CONTROL_LOST, or an error. */
int control_receive(struct shmq_connection *connection, struct control_call *call,
                    struct error_buffer *why);

/* SHMQ_ELIMIT: the descriptors of a reply are lost. */
int control_refuse_lost_fds(const struct shmq_connection *connection, struct error_buffer *why);

/* SHMQ_ENOBUS with the command that starts the supervisor. */
int control_nobody_answers(const struct shmq_connection *connection, struct error_buffer *why);

#endif
