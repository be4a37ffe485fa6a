/* SPDX-License-Identifier: Apache-2.0 */
/* inspect_internal.h: what the parts of inspect share; users include inspect.h. */
#ifndef SHMQ_TOOLS_INSPECT_INTERNAL_H
#define SHMQ_TOOLS_INSPECT_INTERNAL_H

#include "tools/inspect.h"

#define INSPECT_DIR   "/dev/shm"
#define NAME_MAX_FILE 256 /* NAME_MAX and the NUL */

struct inspect_name {
    char prefix[PATHS_PREFIX_BYTES];
    char file[NAME_MAX_FILE];
    char kind; /* enum segment_kind */
    uint64_t topic;
    uint32_t partition;
    uint32_t gate;
};

/* Calls fn for every segment in /dev/shm with this prefix, or with any if it is NULL. */
typedef void (*inspect_name_fn)(const struct inspect_name *name, void *context);
void inspect_each(const char *prefix, inspect_name_fn fn, void *context);

int inspect_open_file(const char *file);
/* All of them, or false. */
bool inspect_read(int fd, void *to, size_t bytes, uint64_t offset);

/* Fills in everything but topic and partition, by which it is found. */
void inspect_read_partition(struct inspect_bus *bus, struct inspect_partition *p);

#endif
