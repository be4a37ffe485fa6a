/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The config file, by inih; see config.h. Lines are fed to the parser one by one from here, because
 * the parser as distributions build it tells handlers no line numbers, cuts long lines silently and
 * takes an indented line for more of the value above.
 */
#include "daemon/config_internal.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <string.h>

struct config_reading {
    struct config *config;
    const char *path;
    FILE *file;
    char *line; /* getline()'s */
    size_t line_bytes;
    int line_number;
    int seen_in_line[SETTINGS_MAX]; /* 0: not yet */
    int error_line;                 /* of the first error; 0: none yet */
    int code;
    struct error_buffer *why;
};

static int refuse_line(struct config_reading *reading, int code)
{
    reading->error_line = reading->line_number;
    reading->code =
        error_prefix(reading->why, code, "%.200s:%d", reading->path, reading->line_number);
    return 0; /* what a handler returns for "bad" */
}

/* The parser's fgets(). After an error it sees the end of the file: the first error is the one told. */
static char *read_line(char *ret_line, int line_bytes, void *stream)
{
    struct config_reading *reading = stream;
    const char *start;
    ssize_t length;

    if (reading->error_line)
        return NULL;
    length = getline(&reading->line, &reading->line_bytes, reading->file);
    if (length < 0)
        return NULL;
    reading->line_number++;
    for (start = reading->line; *start == ' ' || *start == '\t'; start++)
        length--;
    if (strlen(start) != (size_t)length) {
        (void)refuse_line(
            reading, error_set(reading->why, SHMQ_EINVAL, "a NUL byte; the file must be text"));
        return NULL;
    }
    if (length >= line_bytes) {
        (void)refuse_line(reading, error_set(reading->why, SHMQ_EINVAL,
                                             "longer than %d bytes; shorten it, or give the value "
                                             "on the command line",
                                             line_bytes - 1));
        return NULL;
    }
    memcpy(ret_line, start, (size_t)length + 1);
    return ret_line;
}

static int handle_value(void *user, const char *section, const char *key, const char *value)
{
    struct config_reading *reading = user;
    const struct setting *setting = config_find_setting(section, strlen(section), key);
    int *seen;
    int rc;

    if (reading->error_line)
        return 0;
    if (!setting)
        return refuse_line(reading, config_refuse_key(section, key, reading->why));
    seen = &reading->seen_in_line[setting - config_settings];
    if (*seen)
        return refuse_line(reading, error_set(reading->why, SHMQ_EINVAL,
                                              "%s.%s: stands in line %d already; keep one of them",
                                              section, key, *seen));
    *seen = reading->line_number;
    rc = config_store_value(reading->config, setting, value ? value : "", reading->why);
    if (rc < 0)
        return refuse_line(reading, error_prefix(reading->why, rc, "%s.%s", section, key));
    return 1;
}

int config_read_file(struct config *config, const char *path, struct error_buffer *why)
{
    struct config_reading reading = {.config = config, .path = path, .why = why};
    int bad_line;
    int rc = 0;

    reading.file = fopen(path, "re");
    if (!reading.file)
        return error_set_errno(why, errno, "config file %.200s", path);
    bad_line = ini_parse_stream(read_line, &reading, handle_value, &reading);
    if (ferror(reading.file))
        rc = error_set_errno(why, errno, "config file %.200s", path);
    else if (bad_line < 0)
        rc = error_set(why, SHMQ_ENOMEM, "config file %.200s: out of memory; free some", path);
    else if (bad_line > 0 && (!reading.error_line || bad_line < reading.error_line))
        rc = error_set(
            why, SHMQ_EINVAL,
            "%.200s:%d: neither `key = value` nor `[section]` nor a comment; mend the line", path,
            bad_line);
    else
        rc = reading.code;
    free(reading.line);
    (void)fclose(reading.file);
    return rc;
}
