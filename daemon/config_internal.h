/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of config say to each other: the table of settings and the parsed command line. */
#ifndef SHMQ_DAEMON_CONFIG_INTERNAL_H
#define SHMQ_DAEMON_CONFIG_INTERNAL_H

#include "daemon/config.h"

enum setting_type {
    SETTING_TEXT, /* bounds: at most `max` bytes with its NUL */
    SETTING_BUS,
    SETTING_FLAG,
    SETTING_COUNT,
    SETTING_SIZE,
    SETTING_RING, /* a size that is a power of two */
    SETTING_LINGER,
    SETTING_MODE,
    SETTING_WORD, /* one of `words`; stored as its number */
};

struct setting {
    const char *section;
    const char *key;
    enum setting_type type;
    bool changes; /* may change while shmqd runs */
    size_t offset;
    uint64_t min;
    uint64_t max;
    const char *words[6];
};

#define SETTINGS_MAX 32

extern const struct setting config_settings[];
extern const size_t config_setting_count;

/* NULL if there is none of that name; `section` need not be terminated. */
const struct setting *config_find_setting(const char *section, size_t section_length,
                                          const char *key);

/* Stores; 0 or SHMQ_EINVAL with `'value' ...` in `why`. */
int config_store_value(struct config *config, const struct setting *setting, const char *value,
                       struct error_buffer *why);

/* An unknown key, and the ones that would have been right. Returns SHMQ_EINVAL. */
int config_refuse_key(const char *section, const char *key, struct error_buffer *why);

/* What the command line says, not yet applied: the file comes first. Strings are argv's. */
struct command_line {
    const char *config_path; /* NULL: not given */
    struct command_setting {
        const struct setting *setting;
        const char *option; /* as typed, for errors */
        const char *value;
    } settings[2 * SETTINGS_MAX];
    size_t count;
};

/* enum config_outcome or SHMQ_EINVAL. */
int config_parse_command(int argc, char **argv, struct command_line *ret_command,
                         struct error_buffer *why);

#endif
