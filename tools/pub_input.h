/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pub_input.h: where the messages of `shmq pub` come from: a text, a file, lines, generated ones.
 *
 * Each source hands out batches of messages whose bodies stay valid until the next call. Lines are
 * handed out as soon as they are there: as many as one read() brought, so that fast input goes in
 * batches and a line that is typed goes at once. Reading blocks; a signal ends it.
 */
#ifndef SHMQ_TOOLS_PUB_INPUT_H
#define SHMQ_TOOLS_PUB_INPUT_H

#include "tools/cli.h"

#define INPUT_BATCH_MAX 256u

enum input_kind { INPUT_TEXT, INPUT_FILE, INPUT_LINES, INPUT_GENERATED };

struct input {
    enum input_kind kind;
    const char *text;          /* INPUT_TEXT; the file's name in INPUT_FILE */
    char separator;            /* INPUT_LINES: newline or NUL */
    const char *key_separator; /* INPUT_LINES: NULL for none */
    uint64_t count;            /* messages to hand out; UINT64_MAX in INPUT_LINES */
    uint64_t size;             /* INPUT_GENERATED: bytes of a body */
    uint32_t max_message;      /* the topic's */

    /* Its own. */
    char *data;
    size_t capacity, start, end;
    uint64_t number; /* of the last message handed out, from 1 */
    bool at_end;
    bool failed; /* said already; input_next() returns -1 from now on */
};

/* Opens files and reserves memory. CLI_OK, or an exit code after having said why. */
int input_open(struct input *input, const struct cli *cli);

/* Fills in body (and key) of up to `max` messages; other fields stay. Their number; 0 at the end or
 * when *stop was set; -1 after having said why (too long, no key, unreadable), in which case what was
 * handed out before was fine. */
int input_next(struct input *input, struct shmq_message *messages, uint32_t max,
               const atomic_bool *stop);

void input_close(struct input *input);

#endif
