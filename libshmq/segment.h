/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.h: making, opening, mapping and checking the shared-memory objects of layout.h.
 *
 * Only the supervisor makes, opens by name and unlinks; clients get descriptors and map them.
 * Whatever is mapped is hostile until segment_check() has passed, and its size can be taken away
 * even then: shmqd touches it under daemon/guard.h, a client dies of it (design §1, Trust). All
 * mappings are MADV_DONTFORK and MADV_DONTDUMP, shared, at any address.
 *
 * Threads: functions are reentrant. Nothing blocks but segment_create() (the kernel clears
 * memory, in pieces). If the process dies in segment_create(), a named object without a ready
 * header is left: the supervisor unlinks what its metadata does not know when it starts.
 */
#ifndef SHMQ_SEGMENT_H
#define SHMQ_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libshmq/error.h"
#include "libshmq/layout.h"

#define SEGMENT_NAME_BYTES 256
#define SEGMENT_MAX_BYTES  (UINT64_C(1) << 40)

struct segment {
    void *address; /* NULL: not mapped */
    size_t bytes;  /* as mapped; twice the object's size for D */
};

/* What a header must say. `kind` always; the others unless they are 0; `partition` (where 0 is a
 * value) whenever `topic` is compared. */
struct segment_identity {
    enum segment_kind kind;
    uint64_t topic;
    uint32_t partition;
    uint64_t salt;
    uint64_t group;
};

/* "/PREFIX.t<topic>p<partition>.<K>" (K = S P W D), "….g<gate index>" for G, "/PREFIX.B" for the
 * bus. 0, or SHMQ_EINVAL for a name longer than the system takes: then name is "", which opens
 * nothing. */
int segment_name(char name[SEGMENT_NAME_BYTES], const char *prefix, enum segment_kind kind,
                 uint64_t topic, uint32_t partition, uint32_t gate);

/* Creates `name` exclusively (mode 0600 whatever the umask), reserves all its bytes, and returns a
 * descriptor (CLOEXEC, read-write). SHMQ_EEXIST, SHMQ_ENOSPC (a full /dev/shm: `why` says how
 * much is wanted, how much is free, what to do), SHMQ_ENOMEM, SHMQ_EPERM, SHMQ_EINVAL,
 * SHMQ_ELIMIT, SHMQ_ESYS. Nothing is left behind on failure. Bytes are zero. */
int segment_create(const char *name, uint64_t bytes, int *ret_fd, struct error_buffer *why);

/* Opens an existing object; `writable` or read-only. SHMQ_ENOTOPIC if there is none; SHMQ_EPERM if
 * it is not private to this user (anybody may put any name into /dev/shm; root may read all). Each
 * open makes a new open file description: OFD locks of two of them exclude each other. */
int segment_open(const char *name, bool writable, int *ret_fd, struct error_buffer *why);

int segment_unlink(const char *name); /* absent is fine */

/* Maps all of the object (its size is taken by fstat, must be ≥ min_bytes, and ≤ 2^40: else
 * SHMQ_ECORRUPT). Does not close fd. SHMQ_EPERM, SHMQ_ENOMEM, SHMQ_ESYS. */
int segment_map(int fd, bool writable, size_t min_bytes, struct segment *ret_segment,
                struct error_buffer *why);

/* Maps `capacity` bytes twice, back to back. The object's size must be exactly `capacity`, a
 * power of two (SHMQ_EINVAL) of whole pages. */
int segment_map_twice(int fd, bool writable, uint64_t capacity, struct segment *ret_segment,
                      struct error_buffer *why);

void segment_unmap(struct segment *segment); /* clears it; an empty one is fine */

/* Fills the header of a fresh segment, `ready` last with release. */
void segment_init_header(struct segment_header *header, const struct segment_identity *identity,
                         uint64_t bytes);

/* Magic, version, fingerprint, ready, size, identity, of a copy. SHMQ_EVERSION names both
 * versions or both fingerprints; SHMQ_ECORRUPT the rest. */
int segment_check(const struct segment *segment, const struct segment_identity *identity,
                  struct error_buffer *why);

/* Sizes. */
size_t segment_bus_bytes(uint32_t client_count);
size_t segment_producers_bytes(uint32_t slot_count);
size_t segment_group_bytes(uint32_t entry_count);

#endif
