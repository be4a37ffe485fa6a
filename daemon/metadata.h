/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the store and the registry: replay at a start, snapshots, marks.
 *
 * Exclusion: the control thread alone. Everything here may block on the disk, snapshots for as long
 * as the whole state takes to write. If the process dies here: see store.h.
 */
#ifndef SHMQ_DAEMON_METADATA_H
#define SHMQ_DAEMON_METADATA_H

#include "libshmq/error.h"

struct realm;

/* Opens the store and fills the registry from it, segments untouched. */
int metadata_open(struct realm *realm, struct error_buffer *why);

/* Writes the whole state into a new file. */
int metadata_snapshot(struct realm *realm, struct error_buffer *why);

/* The same at the end of this round of the loop, if the history has outgrown the state. */
void metadata_snapshot_later(struct realm *realm);

/* Writes down where the logs end. */
void metadata_save_marks(struct realm *realm);

/* From now on that is done whenever a log has come a good part of PARTITION_JUMP_BYTES further:
 * looked at once an hour. */
void metadata_watch_marks(struct realm *realm);

#endif
