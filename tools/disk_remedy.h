/* SPDX-License-Identifier: Apache-2.0 */
/* disk_remedy.h: what to do about an error of the disk under a journal. Journals go on by themselves once it is
 * done. One thread. */
#ifndef SHMQ_TOOLS_DISK_REMEDY_H
#define SHMQ_TOOLS_DISK_REMEDY_H

#include <stdint.h>

#define DISK_REMEDY_BYTES 640

/* `dir`: where the bus keeps its state; `topic` may be NULL. Returns ret_text. */
const char *disk_remedy(uint32_t error_number, const char *dir, const char *topic,
                        char ret_text[DISK_REMEDY_BYTES]);

/* "No space left on device" */
const char *disk_error_text(uint32_t error_number);

#endif
