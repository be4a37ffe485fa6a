/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admin.h: what the calls about topics (admin.c) and about groups and clients (admin_group.c) have
 * in common: asking once, and asking page by page.
 */
#ifndef SHMQ_ADMIN_H
#define SHMQ_ADMIN_H

#include "libshmq/control.h"
#include "libshmq/shmq.h"

/* 0 and where the sentence of this call goes, or SHMQ_EINVAL, SHMQ_EFORK. */
int admin_begin(const struct shmq_connection *connection, struct error_buffer **ret_why);

/* A name of the caller's; `what` it names. 0 or SHMQ_EINVAL. */
int admin_copy_name(char to[NAME_BYTES], const char *name, const char *what,
                    struct error_buffer *why);

/* One request, with the connection's timeout. */
int admin_ask(struct shmq_connection *connection, struct protocol_header *request, void *reply,
              size_t reply_bytes, struct error_buffer *why);

/* One page of PROTOCOL_BYTES_MAX: `reply_bytes`, and elements of `element_bytes` behind. */
int admin_ask_list(struct shmq_connection *connection, struct protocol_header *request, void *page,
                   size_t reply_bytes, size_t element_bytes, struct error_buffer *why);

/* A list that is paged by protocol_list_request. */
struct admin_list {
    struct protocol_list_request
        request; /* name filled in; `after` or `after_id` moved by element() */
    enum protocol_type type;
    size_t element_bytes;
    /* Shows one element to the caller's function, and notes it as seen. */
    int (*element)(const void *element, struct admin_list *list);
    union {
        shmq_topic_fn topic;
        shmq_partition_fn partition;
        shmq_group_fn group;
        shmq_client_fn client;
    } fn;
    void *context;
};

/* 0, an error, or what the caller's function returned to stop. */
int admin_list(struct shmq_connection *connection, struct admin_list *list,
               struct error_buffer *why);

#endif
