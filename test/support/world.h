/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h: a bus in use, for tests that do something terrible to it: shmqd, a client of this process, and traffic on the
 * topic "live" that may not notice. The thread of the test only; what cannot be done ends the test.
 */
#ifndef SHMQ_TEST_SUPPORT_WORLD_H
#define SHMQ_TEST_SUPPORT_WORLD_H

#include "libshmq/layout.h"
#include "test/support/daemon_process.h"
#include "test/support/fixture.h"
#include "test/support/traffic.h"

#define WORLD_RING_BYTES  65536
#define WORLD_PROGRESS_MS 2000 /* how long anything may take to go on */

struct world {
    pid_t daemon;
    struct fixture_client client;
    struct traffic *traffic;
};

/* `words`: shmqd's arguments; world_end() wants --ephemeral among them. */
void world_start(struct world *world, const char *words);
void world_make_topic(struct world *world, const char *name, uint32_t partitions);
/* The same shmqd answers, and whoever has nothing to do with it goes on. */
void world_check(struct world *world);
/* Checks, ends all, and nothing is left. */
void world_end(struct world *world);

/* A segment of this test's bus, by its name in /dev/shm: of B, or of a topic's partition 0 (and gate 0). */
int world_open_segment(enum segment_kind kind, uint64_t topic);

#endif
