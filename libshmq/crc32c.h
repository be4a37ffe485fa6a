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

/* By tables alone; what every machine can do, and what the instruction is tested against. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t length);

/* 1 where crc32c() uses the instruction. */
int crc32c_is_accelerated(void);

#endif
