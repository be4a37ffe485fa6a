/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pub_confirm.h: which of the messages that `shmq pub` has published are safe on disk.
 *
 * A confirm of a message is one of all before it in its partition, so the last of each partition is remembered, in two
 * generations: `older` is waited for while `newer` fills, and so nothing waits for the disk as long as that
 * keeps pace. One thread.
 */
#ifndef SHMQ_TOOLS_PUB_CONFIRM_H
#define SHMQ_TOOLS_PUB_CONFIRM_H

#include "tools/cli.h"

/* The last message of one partition, and how many there were since the generation before. */
struct confirm_mark {
    struct shmq_message last;
    uint64_t count;
};

struct confirms {
    shmq_producer *producer; /* NULL: nothing is to be confirmed */
    struct confirm_mark *older, *newer;
    uint32_t partitions;
    uint64_t older_count, newer_count;
    uint64_t turned_ns; /* monotonic: when `newer` was begun */
    const atomic_bool *stop;
};

void confirms_init(struct confirms *confirms, shmq_producer *producer, const atomic_bool *stop);
void confirms_free(struct confirms *confirms);

/* They were published. */
void confirms_note(struct confirms *confirms, const struct shmq_message *messages, uint32_t count);

/* Time to look at the disk: enough was published, or a second has passed. */
bool confirms_due(const struct confirms *confirms);

/* Waits for the older generation, which the newer one becomes; with `all` for both. Up to timeout_ns. 0, also
 * when stopped, or the error of shmq_confirm(). */
int confirms_wait(struct confirms *confirms, uint64_t timeout_ns, bool all);

/* How many are not known to be safe, after a last look. */
uint64_t confirms_count(struct confirms *confirms);

#endif
