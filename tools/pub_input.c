/* SPDX-License-Identifier: Apache-2.0 */
/* Sources of messages; see pub_input.h. */
#include "tools/pub_input.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "tools/outbuf.h"

#define READ_BYTES      (256u * 1024)
#define GENERATED_BYTES (1024u * 1024) /* bodies of one batch of generated messages, at most */

/* ---- A file as one message -------------------------------------------------------------------- */

/* All of fd, but no more than one byte above what a message takes. */
static int read_whole(struct input *input, int fd)
{
    size_t limit = (size_t)input->max_message + 1;

    while (input->end < limit) {
        ssize_t part;

        if (input->end == input->capacity) {
            input->capacity = min_size(limit, input->capacity * 2 + READ_BYTES);
            input->data = tool_realloc(input->data, input->capacity);
        }
        part = read(fd, input->data + input->end, input->capacity - input->end);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return cli_fail(CLI_FAILED, "file '%s': %s; give one that can be read", input->text,
                            strerror(errno));
        if (part == 0)
            return CLI_OK;
        input->end += (size_t)part;
    }
    return cli_fail(CLI_FAILED,
                    "file '%s': longer than the %" PRIu32
                    " bytes that a message of this topic may have; split it (-l: a message a line) "
                    "or create the topic with a larger --max-message",
                    input->text, input->max_message);
}

static int open_file(struct input *input)
{
    bool is_stdin = strcmp(input->text, "-") == 0;
    int fd = is_stdin ? 0 : open(input->text, O_RDONLY | O_CLOEXEC);
    int rc;

    if (fd < 0)
        return cli_fail(CLI_FAILED, "file '%s': %s; give one that can be read", input->text,
                        strerror(errno));
    rc = read_whole(input, fd);
    if (!is_stdin)
        (void)close(fd);
    return rc;
}

int input_open(struct input *input, const struct cli *cli)
{
    switch (input->kind) {
    case INPUT_TEXT:
        input->data = tool_strdup(input->text);
        input->end = strlen(input->text);
        return CLI_OK;
    case INPUT_FILE:
        return open_file(input);
    case INPUT_LINES:
        input->capacity = READ_BYTES;
        break;
    case INPUT_GENERATED:
        if (input->size > input->max_message)
            return cli_fail(CLI_FAILED,
                            "--size %" PRIu64 ": topic '%s' takes at most %" PRIu32
                            " bytes; give less, or create it with a larger --max-message",
                            input->size, cli->operands[0], input->max_message);
        input->capacity = input->size < GENERATED_BYTES ? GENERATED_BYTES : (size_t)input->size;
        break;
    }
    input->data = tool_alloc(input->capacity);
    return CLI_OK;
}

void input_close(struct input *input)
{
    free(input->data);
    input->data = NULL;
}

/* ---- Lines ------------------------------------------------------------------------------------ */

/* Reads once more behind what is there; sets at_end or failed when there is no more. False when
 * stopped. */
static bool fill_lines(struct input *input, const atomic_bool *stop)
{
    ssize_t part;

    if (input->start > 0) {
        memmove(input->data, input->data + input->start, input->end - input->start);
        input->end -= input->start;
        input->start = 0;
    }
    if (input->end == input->capacity) {
        input->capacity *= 2;
        input->data = tool_realloc(input->data, input->capacity);
    }
    do {
        if (*stop)
            return false;
        part = read(0, input->data + input->end, input->capacity - input->end);
    } while (part < 0 && errno == EINTR);
    if (part < 0) {
        (void)cli_fail(CLI_FAILED, "stdin: %s; nothing more can be read", strerror(errno));
        input->failed = true;
        return true;
    }
    input->at_end = part == 0;
    input->end += (size_t)part;
    return true;
}

static const char *line_word(const struct input *input)
{
    return input->separator == '\n' ? "line" : "record";
}

/* Key and body out of one line. False: it is too long or has no key, which is said. */
static bool split_line(struct input *input, const char *line, size_t length,
                       struct shmq_message *message)
{
    const char *separator = input->key_separator;
    const char *found;

    if (length > input->max_message) {
        (void)cli_fail(CLI_FAILED,
                       "%s %" PRIu64 ": longer than the %" PRIu32
                       " bytes that a message of this topic may have; split it, or create the "
                       "topic with a larger --max-message",
                       line_word(input), input->number, input->max_message);
        return false;
    }
    message->body = line;
    message->body_length = (uint32_t)length;
    if (!separator)
        return true;
    found = memmem(line, length, separator, strlen(separator));
    if (!found || (size_t)(found - line) > UINT16_MAX) {
        (void)cli_fail(CLI_FAILED,
                       "%s %" PRIu64 ": %s before '%s'; mend the input or --key-separator",
                       line_word(input), input->number,
                       found ? "the key is longer than 65535 bytes" : "there is no key", separator);
        return false;
    }
    message->key = line;
    message->key_length = (uint16_t)(found - line);
    message->body = found + strlen(separator);
    message->body_length = (uint32_t)(length - (size_t)(found - line) - strlen(separator));
    return true;
}

/* The next whole line in the buffer, or what is left at the end, or more than a message takes; false
 * if there is none. */
static bool take_line(struct input *input, size_t *scanned, const char **ret_line,
                      size_t *ret_length)
{
    size_t left = input->end - input->start;
    const char *line = input->data + input->start;
    const char *end = NULL;

    if (left > *scanned)
        end = memchr(line + *scanned, input->separator, left - *scanned);
    if (!end && !(input->at_end && left > 0) && left <= input->max_message) {
        *scanned = left; /* not again: a long line arrives in many pieces */
        return false;
    }
    *scanned = 0;
    *ret_line = line;
    *ret_length = end ? (size_t)(end - line) : left;
    input->start += *ret_length + (end ? 1 : 0);
    input->number++;
    return true;
}

static int next_lines(struct input *input, struct shmq_message *messages, uint32_t max,
                      const atomic_bool *stop)
{
    uint32_t count = 0;
    size_t scanned = 0;
    size_t length;
    const char *line;

    while (!input->failed) {
        while (count < max && take_line(input, &scanned, &line, &length)) {
            if (!split_line(input, line, length, &messages[count])) {
                input->failed = true;
                break;
            }
            count++;
        }
        /* What is there goes out before we wait for more. */
        if (count > 0 || input->at_end)
            break;
        if (!input->failed && !fill_lines(input, stop))
            return 0;
    }
    if (count > 0)
        return (int)count;
    return input->failed ? -1 : 0;
}

/* ---- The others ------------------------------------------------------------------------------- */

/* "17 abcdefgh...": the number, so that order can be looked at, then letters. */
static void write_generated(char *body, size_t size, uint64_t number)
{
    char text[24];
    size_t length = (size_t)snprintf(text, sizeof(text), "%" PRIu64 " ", number);

    for (size_t i = 0; i < size; i++)
        body[i] = i < length ? text[i] : (char)('a' + i % 26);
}

static int next_repeated(struct input *input, struct shmq_message *messages, uint32_t max)
{
    bool generated = input->kind == INPUT_GENERATED;
    size_t size = generated ? (size_t)input->size : input->end;
    uint32_t count = 0;

    if (generated && size > 0)
        max = (uint32_t)min_u64(max, input->capacity / size);
    for (; count < max && input->number < input->count; count++) {
        char *body = input->data + (generated ? count * size : 0);

        input->number++;
        if (generated)
            write_generated(body, size, input->number);
        messages[count].body = body;
        messages[count].body_length = (uint32_t)size;
    }
    return (int)count;
}

int input_next(struct input *input, struct shmq_message *messages, uint32_t max,
               const atomic_bool *stop)
{
    if (*stop)
        return 0;
    if (input->kind == INPUT_LINES)
        return next_lines(input, messages, max, stop);
    return next_repeated(input, messages, max);
}
