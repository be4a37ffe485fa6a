/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus segment B: which boot of the bus this is, who its clients are, and how they sleep
 * (layout.h).
 *
 * The supervisor that holds the exclusive lock on byte [CLIENT_SHMQD] of B is the one; the kernel
 * drops it at its death, and a successor that finds B of this boot goes on with it: same client
 * ids, same wait mode, incarnation + 1. Client ids are handed out once and never again; entries are
 * reused.
 *
 * `copy` is the truth, B what others see of it: B is never read back while it is ours, and a B that
 * somebody cut is grown and written anew. Exclusion: the control thread alone. Nothing blocks. If
 * the process dies here: an entry whose id is stored is whole, and the next supervisor finds it;
 * next_client is raised before an id is given out.
 */
#ifndef SHMQ_DAEMON_BUS_H
#define SHMQ_DAEMON_BUS_H

#include "libshmq/error.h"
#include "libshmq/layout.h"
#include "libshmq/paths.h"
#include "libshmq/segment.h"

#include <stdbool.h>

struct bus {
    int fd;                        /* read-write; holds the lock. -1: not open */
    char name[SEGMENT_NAME_BYTES]; /* "/PREFIX.B" */
    struct segment segment;
    unsigned char boot_id[16]; /* this and the next two as they must stand in B */
    uint32_t wait_mode;        /* enum wait_mode */
    uint64_t created_ns;
    struct bus_client *copy; /* of clients[] */
    uint32_t client_count;   /* entries */
    uint32_t used;           /* entries in use */
    uint32_t hint;           /* where to look for a free one */
    uint64_t next_client;
    uint64_t incarnation;
    bool created; /* anew, by this supervisor: whatever else bears the prefix is of another boot */
};

/* Finds the B of this boot or makes one with `client_count` entries; `wait_mode` is an enum
 * config_wait_mode, for a bus that is made. 0; SHMQ_EBUSY with the pid of the supervisor that has
 * it; SHMQ_EVERSION with both versions; SHMQ_ENOTSUP (wait mode), SHMQ_ENOSPC, … `paths`: whose
 * socket a living supervisor answers, should a client sit on the lock; NULL: the socket says nothing.
 * */
int bus_open(struct bus *bus, const char *prefix, const struct paths *paths, uint32_t client_count,
             uint64_t wait_mode, struct error_buffer *why);

/* Takes over clients[], incarnation + 1. Separate from bus_open(): only when the metadata is read.
 * */
void bus_begin(struct bus *bus);

/* `unlink`: the bus is gone for good; clients learn it from `closed`. A bus that is not open is
 * fine. */
void bus_close(struct bus *bus, bool unlink);

/* Enters a client: id and entry are filled in `client`. SHMQ_ELIMIT when the table is full. */
int bus_add_client(struct bus *bus, struct bus_client *client, uint32_t *ret_entry,
                   struct error_buffer *why);
void bus_remove_client(struct bus *bus, uint32_t entry);

/* Bumps the client's event word and wakes it. */
void bus_wake_client(struct bus *bus, uint32_t entry);

/* B read-only, an open file description of its own with byte [id] locked: to be sent and closed. */
int bus_open_for_client(struct bus *bus, uint64_t id, int *ret_fd, struct error_buffer *why);

#endif
