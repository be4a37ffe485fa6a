/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C (Castagnoli), the checksum of records and journal headers.
 *
 * crc32c(0, data, length) is the usual value (0xE3069283 for "123456789"); pass the result on to go
 * on with more bytes: crc32c(crc32c(0, a, n), b, m) is that of a and b in a row. Pure, any thread.
 */
#ifndef SHMQ_CRC32C_H
#define SHMQ_CRC32C_H

#include "libshmq/base.h"

/* With the processor's instruction where there is one, else as crc32c_portable(). */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);

/* Of the four bytes of `word` as they stand in memory, then of `data`: crc32c() of both in a row, in one call. */
uint32_t crc32c_word(uint32_t word, const void *data, size_t length);

/* Of `word`, then of the two words of `head`, then of `data`: a record whose header is still in registers. */
uint32_t crc32c_record(uint32_t word, const uint64_t head[2], const void *data, size_t length);

/* By tables alone; what every machine can do, and what the instruction is tested against. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t length);

#ifdef SHMQ_FAULTS
/* As on a machine that has the instruction, but not the wide registers. */
uint32_t crc32c_by_instruction(uint32_t crc, const void *data, size_t length);
#endif

/* 1 where crc32c() uses the instruction. */
int crc32c_is_accelerated(void);

#endif
