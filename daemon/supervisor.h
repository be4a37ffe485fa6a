/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor as a whole: the order in which its parts start and stop.
 *
 * Start: runtime directory, lock of the state directory, B, metadata, the clients of before, topics
 * (re-attached, or begun anew), leftovers swept, a snapshot, the socket. Everything that one step
 * needs of the steps before is there, and whatever it made is taken back if a later one fails.
 * Stop: the socket first; then, if ephemeral, everything is closed, told and unlinked; else marks
 * and a snapshot are written and all memory is kept, so that a restart looks like a crash to the
 * clients.
 *
 * Threads: open, run and close belong to one thread, the control thread: the main thread of shmqd,
 * or the one that shmqd.c makes for an embedded supervisor. supervisor_stop(): any thread, any
 * signal handler. Open blocks for as long as recovery takes.
 */
#ifndef SHMQ_DAEMON_SUPERVISOR_H
#define SHMQ_DAEMON_SUPERVISOR_H

#include "daemon/peer.h"
#include "daemon/realm.h"

struct supervisor {
    struct realm realm;
    struct peers peers;
    int lock_fd; /* of the state directory; -1: not held */
    bool failed; /* while starting: leave what was there as it was */
    bool guarded;
    bool registered; /* with liburcu */
};

/* `config` is copied. `lock_fd`: the state directory's lock if the caller has waited for it, else
 * -1; `listen_fd`: a socket that was handed down, or -1. Both are taken over in any case. */
int supervisor_open(struct supervisor *supervisor, const struct config *config, int lock_fd,
                    int listen_fd, struct error_buffer *why);

/* Until supervisor_stop(). */
int supervisor_run(struct supervisor *supervisor, struct error_buffer *why);
void supervisor_stop(struct supervisor *supervisor);

void supervisor_close(struct supervisor *supervisor);

/* In a forked child of the process that runs it: closes what would keep the supervisor's locks and
 * connections alive. Async-signal-safe; the supervisor itself is not here. */
void supervisor_disown(struct supervisor *supervisor);

/* paths and segment prefix as `config` and the environment say. For those who need them before the
 * start. */
int supervisor_find_paths(const struct config *config, struct paths *ret_paths,
                          struct error_buffer *why);

#endif
