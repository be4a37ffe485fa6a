/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h: one line on the terminal about a long pub or sub, rewritten five times a second:
 * messages, bytes, rate. Only where stderr is a terminal and nothing else is written there; cleared
 * at the end. One thread.
 */
#ifndef SHMQ_TOOLS_PROGRESS_H
#define SHMQ_TOOLS_PROGRESS_H

#include "tools/cli.h"

struct progress {
    uint64_t messages;
    uint64_t bytes;
    uint64_t started_ns;
    uint64_t shown_ns; /* last rewritten, or looked at */
    uint64_t shown_messages;
    uint64_t shown_bytes;
    const char *verb; /* "published" */
    bool enabled;
    bool visible;
};

void progress_init(struct progress *progress, const struct cli *cli, const char *verb, bool wanted);
/* Counts, and shows when it is time to. */
void progress_add(struct progress *progress, uint64_t messages, uint64_t bytes);
/* Takes the line away: before anything else is written to stderr. */
void progress_clear(struct progress *progress);

#endif
