/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.h: where the bus that the options mean would be, whether or not anybody runs it; and the
 * shared memory that all buses have in common. Reads the file system; one thread.
 */
#ifndef SHMQ_TOOLS_PLACE_H
#define SHMQ_TOOLS_PLACE_H

#include "libshmq/paths.h"
#include "tools/cli.h"

struct place {
    char bus[NAME_BYTES];
    char runtime_dir[PATHS_DIR_BYTES];
    char socket[PATHS_SOCKET_BYTES];
    char prefix[PATHS_PREFIX_BYTES]; /* of its segments' file names, without the slash */
    bool has_socket;
    bool has_memory; /* there are segments with the prefix */
};

/* Of the places where a client would look, the first that shows a trace of a bus; else the first.
 * CLI_OK or CLI_USAGE, said. */
int place_find(const struct cli *cli, struct place *ret_place);

/* The command that starts a supervisor there, for remedies. */
const char *place_start_command(const struct place *place, char ret_text[PATHS_DIR_BYTES + 300]);

/* Does anybody accept connections on the socket? Does not wait. */
bool place_answers(const struct place *place);

struct place_memory {
    uint64_t total_bytes;
    uint64_t free_bytes;
};

/* Of /dev/shm; false if it is not there. */
bool place_memory(struct place_memory *ret_memory);

#endif
