/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader's side of a journal: is this file what its name says, and which records hold?
 *
 * A journal is a directory of files `%020llu.log`, each named by the offset of its first record. A file
 * is one struct journal_header (4 KiB) and then records, the same bytes as in a ring, each at
 *
 *     file position = JOURNAL_HEADER_BYTES + (offset - base)
 *
 * so that records chain: the next one stands at offset + record_size(length). A record holds if its
 * stamp names its own offset under the file's salt, its length lies inside the file, and its crc is
 * right. Behind the last record a file is zeros (it is filled ahead of use), so a chain ends at the
 * first thing that is not a record. Whether that end is clean, a torn tail or damage, only who knows
 * the promises made can tell: the header's `durable`, the next file's `previous_end`, or what a record
 * further on says (daemon/store.c).
 *
 * Pure functions over an image in memory, which may be hostile in every byte, unaligned, and cut
 * anywhere (fuzzed: test/fuzz/fuzz_store.c). Any thread; nothing blocks. The image must not change
 * while it is read: copy what a client could write.
 */
#ifndef SHMQ_JOURNAL_READ_H
#define SHMQ_JOURNAL_READ_H

#include "libshmq/error.h"
#include "libshmq/layout.h"

#include <stdbool.h>

#define JOURNAL_NAME_BYTES 32 /* "%020llu.log" and its NUL, rounded up */

/* Offsets stay below this, so that sums with sizes of files cannot wrap. */
#define JOURNAL_OFFSET_MAX (UINT64_C(1) << 62)

/* Why a chain ended. */
enum journal_stop {
    JOURNAL_STOP_LIMIT,  /* at the limit that the caller gave: all is well */
    JOURNAL_STOP_END,    /* the file has no room for another header */
    JOURNAL_STOP_ZERO,   /* never written: 32 bytes of zeros */
    JOURNAL_STOP_STAMP,  /* something that is no record of this offset */
    JOURNAL_STOP_LENGTH, /* a stamp, but the record does not fit the file, or passes the limit */
    JOURNAL_STOP_CRC,    /* a stamp and a length, but the bytes are not those that were written */
};

/* One record that holds. `payload` points into the image and may be unaligned. */
struct journal_record {
    uint64_t offset;
    uint64_t timestamp_ns;
    const unsigned char *payload; /* key, headers, body */
    uint32_t length;              /* of all three */
    uint16_t producer;
    uint16_t key_length;
    uint16_t headers_length;
    uint8_t type;
    uint8_t flags;
    bool padding; /* skip it: its payload is not covered by the crc */
};

struct journal_scan {
    uint64_t end; /* offset behind the last record that holds; `from` if there is none */
    uint64_t records;
    uint64_t max_timestamp_ns;
    enum journal_stop stop;
};

/* Not 0 ends the scan, and is what it returns. */
typedef int journal_record_fn(void *context, const struct journal_record *record);

/* "00000000000000004096.log" */
void journal_format_name(uint64_t base, char ret_name[JOURNAL_NAME_BYTES]);

/* True for exactly such names. */
bool journal_parse_name(const char *name, uint64_t *ret_base);

/* Checks magic, version, crc, base, and that nothing in it can overflow later arithmetic. 0;
 * SHMQ_ECORRUPT; SHMQ_EVERSION for a file of another shmq, with both versions. `why` does not name the
 * file: the caller does. */
int journal_check_header(const void *image, size_t bytes, uint64_t base,
                         struct journal_header *ret_header, struct error_buffer *why);

/* Fills in magic, version, size and crc; the other fields are the caller's. */
void journal_seal_header(struct journal_header *header);

/* What its crc32c should be. */
uint32_t journal_header_crc(const struct journal_header *header);

/* Of a record in one piece (header, then `length` bytes); `state` is RECORD_COMMITTED or
 * RECORD_PADDING. Covers `length` and everything behind `crc32c`; of padding, the header alone. */
uint32_t journal_record_crc(const void *record, uint64_t state);

/* Looks at one place: at `position` in an image of a file, or of a part of one, where the record `offset` would
 * stand under this salt. JOURNAL_STOP_LIMIT here means that a record holds, and is in *ret_record; END and LENGTH
 * say that it does not fit into the image. */
enum journal_stop journal_look_at(const unsigned char *image, size_t bytes, uint64_t position,
                                  uint64_t salt, uint64_t offset,
                                  struct journal_record *ret_record);

/* Calls `callback` (NULL: nobody) for each record of the chain that starts at `from`, up to `limit`
 * (UINT64_MAX: as far as it goes). `image` is the whole file; `header` came from
 * journal_check_header(). 0 or what the callback returned; *ret_scan is filled in in both cases. */
int journal_scan(const void *image, size_t bytes, const struct journal_header *header,
                 uint64_t from, uint64_t limit, journal_record_fn *callback, void *context,
                 struct journal_scan *ret_scan);

/* The next record at or above `from` that holds, chained or not: where a reader goes on behind damage.
 * True if there is one. Reads the file once; crcs are computed only where a stamp stands. */
bool journal_find_record(const void *image, size_t bytes, const struct journal_header *header,
                         uint64_t from, struct journal_record *ret_record);

#endif
