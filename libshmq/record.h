/* record.h: sizes and stamps of records. Pure arithmetic; used by ring, recovery, journal and
 * tests alike.
 *
 * The stamp is what makes a record visible (invariant I1): the word `commit`, stored last with
 * release. It names the record's own offset, mixed with the partition's random salt, so that a
 * word left over from an earlier lap, payload included, reads as "committed here" with
 * probability 2^-58.
 */
#ifndef SHMQ_RECORD_H
#define SHMQ_RECORD_H

#include "libshmq/base.h"
#include "libshmq/layout.h"

/* Bytes that a record with `length` bytes behind its header takes in ring and journal. */
static inline uint64_t record_size(uint64_t length_bytes)
{
    return (length_bytes + RECORD_HEADER + RECORD_UNIT - 1) & ~(uint64_t)(RECORD_UNIT - 1);
}

/* salt's and offset's low six bits are 0, so that the state fits below them. */
static inline uint64_t record_stamp(uint64_t salt, uint64_t offset, uint64_t state)
{
    return (offset ^ salt) | state;
}

/* RECORD_COMMITTED or RECORD_PADDING if `commit` is a stamp for `offset`, else 0. */
static inline uint64_t record_state(uint64_t commit, uint64_t salt, uint64_t offset)
{
    uint64_t state = commit ^ salt ^ offset;

    return state == RECORD_COMMITTED || state == RECORD_PADDING ? state : 0;
}

#endif
