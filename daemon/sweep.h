/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leftovers: segments with this bus's prefix that its metadata does not know.
 *
 * Made by a supervisor that died before it had written them down, or belonging to a topic whose
 * deletion it did not finish, or to an ephemeral bus or a boot of the bus that has ended. Whoever
 * still has them mapped is told in them that they are gone. Control thread, at start and stop;
 * reads /dev/shm. Safe to die in: the next start does it again.
 */
#ifndef SHMQ_DAEMON_SWEEP_H
#define SHMQ_DAEMON_SWEEP_H

#include <stdbool.h>

struct realm;

/* Unlinks them, B excepted; with `all` those that the metadata knows as well. Returns how many
 * there were. */
unsigned sweep_segments(struct realm *realm, bool all);

#endif
