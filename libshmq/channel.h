/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.h: a channel: what one thread opened on a connection, so that it can be closed together.
 *
 * It belongs to one thread at a time; only its link in connection->channels is shared, under
 * connection->channels_lock. Opening one makes no system call.
 */
#ifndef SHMQ_CHANNEL_H
#define SHMQ_CHANNEL_H

#include "libshmq/control.h"

struct shmq_channel {
    uint32_t fork_count;
    struct shmq_connection *connection;
    struct shmq_channel *next;
    struct shmq_channel **link;
    struct shmq_producer *producers;
    struct shmq_consumer *consumers;
};

/* As the public calls; `deadline_ns` 0: the end of the session gives back what shmqd had granted.
 */
void channel_close(struct shmq_channel *channel, uint64_t deadline_ns);

/* Closing a handle waits no longer for a supervisor that does not answer. */
#define CLOSE_NS UINT64_C(1000000000)

/* producer_open.c, consumer_open.c */
void producer_close(struct shmq_producer *producer, uint64_t deadline_ns);
void consumer_close(struct shmq_consumer *consumer, uint64_t deadline_ns);

#endif
