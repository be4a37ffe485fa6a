/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.h: shmqd survives segments that are truncated under it (design §2.1, invariant I7).
 *
 * Whoever may write a segment can also cut it, or punch a hole while /dev/shm is full; the next
 * touch of such a page is a SIGBUS in whoever touches it. A guarded call names the mappings that it
 * touches: a fault inside one of them ends the call, and it returns SHMQ_ECORRUPT, upon which the
 * caller quarantines the partition. Any other SIGBUS goes to the handler that was there before (the
 * host program's, if the supervisor is embedded), or kills as it always did.
 *
 *     struct guard_range ranges[] = {{p.address, p.bytes}, {d.address, d.bytes}};
 *     result = guard_run(ranges, 2, copy_run, &work, &hit);
 *
 * The guarded function may be left at any load or store of its ranges: it takes no lock, allocates
 * nothing and changes private state only so that half of it does no harm; results go to `context`.
 * It is left by a jump, so nothing is unwound. System calls on a cut page need no guard: they say
 * EFAULT.
 *
 * Threads: guards belong to their thread and nest; a fault is caught by the innermost one whose
 * ranges hold the address. guard_run() costs no system call, but for the first in a thread, which
 * unblocks SIGBUS there (a blocked one kills). guard_install() and _uninstall() count: each
 * supervisor of a process calls both, any thread. The handler is async-signal-safe, allocates
 * nothing, and stays in place if somebody has put theirs above it, for then they may call it.
 */
#ifndef SHMQ_DAEMON_GUARD_H
#define SHMQ_DAEMON_GUARD_H

#include "libshmq/error.h"
#include "libshmq/segment.h"

#include <stddef.h>
#include <stdint.h>

struct guard_range {
    const void *address;
    size_t bytes;
};

/* What runs guarded: 0, or an error of its own. */
typedef int guard_fn(void *context);

/* Before the first guard_run(). 0 or SHMQ_ESYS. */
int guard_install(void);

/* After the last guarded call of this supervisor. */
void guard_uninstall(void);

/* Runs fn(context). Returns its result; or SHMQ_ECORRUPT when a page of ranges[hit] was gone
 * (`ret_hit` may be NULL, and is untouched otherwise). At most UINT32_MAX ranges, which stay as
 * they are until it returns. */
int guard_run(const struct guard_range *ranges, uint32_t count, guard_fn *fn, void *context,
              uint32_t *ret_hit);

/* segment_check() of a segment that others can cut meanwhile: SHMQ_ECORRUPT then. */
int guard_check_segment(const struct segment *segment, const struct segment_identity *identity,
                        struct error_buffer *why);

#endif
