/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the store and the registry: replay at a start, snapshots, marks, cursors.
 *
 * Cursors of groups live in shared memory, where a commit costs nothing; those of durable topics are written down
 * here about once a second, if they moved. A group whose memory is gone goes on there, so a crash of the
 * host delivers a second or so again (at least once). While no durable topic has a member there is no timer.
 *
 * Exclusion: the control thread alone. Everything here may block on the disk, snapshots for as long
 * as the whole state takes to write. If the process dies here: see store.h.
 */
#ifndef SHMQ_DAEMON_METADATA_H
#define SHMQ_DAEMON_METADATA_H

#include "libshmq/error.h"

#include <stdbool.h>
#include <stdint.h>

struct realm;
struct group;

/* Opens the store and fills the registry from it, segments untouched. */
int metadata_open(struct realm *realm, struct error_buffer *why);

/* Writes the whole state into a new file. */
int metadata_snapshot(struct realm *realm, struct error_buffer *why);

/* The same at the end of this round of the loop, if the history has outgrown the state. */
void metadata_snapshot_later(struct realm *realm);

/* Writes down where the logs end, and cursors. */
void metadata_save_marks(struct realm *realm);

/* From now on that is done whenever a log has come a good part of PARTITION_JUMP_BYTES further:
 * looked at once an hour. */
void metadata_watch_marks(struct realm *realm);

/* A member of a durable topic has come: from now on its group's cursors are looked at. Or has gone, with `soon`:
 * in a moment, so that many who go together cost one sync. */
void metadata_watch_cursors(struct realm *realm, bool soon);

/* Those that have moved, of one group or (NULL) of all durable topics. 0 or the error of the store: they are
 * tried again with the next ones. *ret_saved: how many. */
int metadata_save_cursors(struct realm *realm, struct group *group, uint32_t *ret_saved,
                          struct error_buffer *why);

#endif
