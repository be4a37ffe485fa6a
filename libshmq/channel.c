/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.c: opening and closing channels; see channel.h.
 *
 * Closing blocks for the replies about what it gives back, a second at most. If the process dies
 * here, shmqd closes the rest.
 */
#include "libshmq/channel.h"

#include "libshmq/clock.h"
#include "libshmq/shmq.h"

int shmq_channel_open(shmq_connection *c, shmq_channel **ret_channel)
{
    shmq_channel *channel;

    if (!c || !ret_channel)
        return handles_usage_error(c ? c->serial : 0, "channel: connection or result is NULL");
    *ret_channel = NULL;
    if (handles_forked(c->fork_count))
        return handles_fork_error(c->serial);
    channel = calloc(1, sizeof(*channel));
    if (!channel)
        return error_set(handles_error(c->serial), SHMQ_ENOMEM, "channel: no memory");
    channel->fork_count = c->fork_count;
    channel->connection = c;
    (void)pthread_mutex_lock(&c->channels_lock);
    channel->next = c->channels;
    channel->link = &c->channels;
    if (channel->next)
        channel->next->link = &channel->next;
    c->channels = channel;
    (void)pthread_mutex_unlock(&c->channels_lock);
    *ret_channel = channel;
    return 0;
}

void channel_close(struct shmq_channel *channel, uint64_t deadline_ns)
{
    struct shmq_connection *c = channel->connection;
    bool forked = handles_forked(channel->fork_count);

    while (channel->producers)
        producer_close(channel->producers, deadline_ns);
    while (channel->consumers)
        consumer_close(channel->consumers, deadline_ns);
    if (!forked)
        (void)pthread_mutex_lock(&c->channels_lock); /* in a child it may be locked for ever */
    *channel->link = channel->next;
    if (channel->next)
        channel->next->link = channel->link;
    if (!forked)
        (void)pthread_mutex_unlock(&c->channels_lock);
    free(channel);
}

void shmq_channel_close(shmq_channel *channel)
{
    if (channel)
        channel_close(channel, clock_monotonic_ns() + CLOSE_NS);
}
