/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of one supervisor share: a process may run several, so there are no globals.
 *
 * All of it belongs to the control thread; other threads may only look things up in `registry`,
 * under liburcu's rules. Built and taken down by supervisor.c, in the order in which the members
 * stand here.
 */
#ifndef SHMQ_DAEMON_REALM_H
#define SHMQ_DAEMON_REALM_H

#include "daemon/bus.h"
#include "daemon/client.h"
#include "daemon/config.h"
#include "daemon/loop.h"
#include "daemon/registry.h"
#include "daemon/store.h"
#include "libshmq/paths.h"

#include <stdbool.h>

/* Mappings that one supervisor makes for good: below vm.max_map_count's default of 65,530, with
 * room for the program around it. */
#define REALM_MAPPINGS_MAX 48000u

struct flusher;

struct realm {
    struct config config;
    struct paths paths;
    char prefix[PATHS_PREFIX_BYTES]; /* of segment names */
    struct loop loop;
    struct store *store;
    struct replay *replay;      /* metadata.c's */
    struct loop_defer snapshot; /* waiting to be made */
    struct loop_timer marks;    /* next look at how far the logs have come */
    struct loop_timer cursors;  /* next look at how far groups of durable topics have read */
    bool cursors_failed;        /* they could not be saved, and it was said */
    struct bus bus;
    struct registry registry;
    struct clients clients;
    struct flusher *flusher; /* of durable topics' rings */

    uint64_t started_ns;    /* CLOCK_REALTIME */
    uint64_t next_id;       /* of topics and groups; never reused */
    uint64_t ids_set_aside; /* in the metadata: ids below it may be given out */
    uint64_t shm_bytes;     /* of everything but B */
    uint32_t partition_count;
    uint32_t group_count;
    uint32_t mapping_count;
    uint32_t quarantined; /* partitions */
};

#endif
