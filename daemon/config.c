/* SPDX-License-Identifier: Apache-2.0 */
/* The table of settings, and how its sources come together; see config.h. */
#include "daemon/config.h"

#include "daemon/config_internal.h"
#include "libshmq/layout.h"
#include "libshmq/units.h"

#include <string.h>

#define AT(member)      offsetof(struct config, member)
#define ROOM_OF(member) sizeof(((struct config *)NULL)->member)

/* clang-format off */
const struct setting config_settings[] = {
    {"bus", "name",         SETTING_BUS,  false, AT(bus),          0, ROOM_OF(bus), {NULL}},
    {"bus", "runtime_dir",  SETTING_TEXT, false, AT(runtime_dir),  0, ROOM_OF(runtime_dir), {NULL}},
    {"bus", "state_dir",    SETTING_TEXT, false, AT(state_dir),    0, ROOM_OF(state_dir), {NULL}},
    {"bus", "standby",      SETTING_FLAG, false, AT(standby),      0, 0, {NULL}},
    {"bus", "ephemeral",    SETTING_FLAG, false, AT(ephemeral),    0, 0, {NULL}},
    {"bus", "socket_mode",  SETTING_MODE, false, AT(socket_mode),  0, 0777, {NULL}},
    {"bus", "socket_group", SETTING_TEXT, false, AT(socket_group), 0, ROOM_OF(socket_group), {NULL}},
    {"bus", "wait_mode",    SETTING_WORD, false, AT(wait_mode),    0, 0, {"auto", "membarrier", "fence"}},

    {"limits", "clients",              SETTING_COUNT, true, AT(clients),              1, 1000000, {NULL}},
    {"limits", "topics",               SETTING_COUNT, true, AT(topics),               1, 1000000, {NULL}},
    {"limits", "partitions",           SETTING_COUNT, true, AT(partitions),           1, 1000000, {NULL}},
    {"limits", "groups_per_topic",     SETTING_COUNT, true, AT(groups_per_topic),     1, GATES_MAX, {NULL}},
    {"limits", "connections_per_user", SETTING_COUNT, true, AT(connections_per_user), 1, 1000000, {NULL}},
    {"limits", "bytes_per_user",       SETTING_SIZE,  true, AT(bytes_per_user),       0, INT64_MAX, {NULL}},
    {"limits", "slots_per_user",       SETTING_COUNT, true, AT(slots_per_user),       1, 1000000, {NULL}},

    {"defaults", "ring",         SETTING_RING,   true, AT(ring_bytes),      RING_MIN_BYTES, RING_MAX_BYTES, {NULL}},
    {"defaults", "group_linger", SETTING_LINGER, true, AT(group_linger_ns), 0, 0, {NULL}},

    {"log", "level", SETTING_WORD, true, AT(log_level), 0, 0, {"error", "warning", "info", "debug"}},
};
/* clang-format on */

const size_t config_setting_count = COUNT_OF(config_settings);
_Static_assert(COUNT_OF(config_settings) <= SETTINGS_MAX, "settings");

void config_init(struct config *ret_config)
{
    struct config made = {
        .socket_mode = 0600,
        .wait_mode = CONFIG_WAIT_AUTO,
        .clients = 4096,
        .topics = 4096,
        .partitions = 8192,
        .groups_per_topic = GATES_MAX,
        .connections_per_user = 1024,
        .bytes_per_user = UINT64_C(8) << 30,
        .slots_per_user = 4096,
        .ring_bytes = RING_DEFAULT_BYTES,
        .group_linger_ns = LINGER_DEFAULT_NS,
        .log_level = LOG_LEVEL_INFO,
    };

    *ret_config = made;
}

const struct setting *config_find_setting(const char *section, size_t section_length,
                                          const char *key)
{
    for (size_t i = 0; i < config_setting_count; i++) {
        const struct setting *setting = &config_settings[i];

        if (strlen(setting->section) == section_length &&
            memcmp(setting->section, section, section_length) == 0 &&
            strcmp(setting->key, key) == 0)
            return setting;
    }
    return NULL;
}

static int store_text(void *place, const struct setting *setting, const char *value,
                      struct error_buffer *why)
{
    if (strlen(value) >= setting->max)
        return error_set(why, SHMQ_EINVAL,
                         "'%.40s...': longer than %llu bytes; choose a shorter one", value,
                         (unsigned long long)setting->max - 1);
    memset(place, 0, setting->max); /* so that reload may compare bytes */
    memcpy(place, value, strlen(value));
    return 0;
}

static int store_bus(void *place, const struct setting *setting, const char *value,
                     struct error_buffer *why)
{
    if (!name_is_valid(value))
        return error_set(
            why, SHMQ_EINVAL,
            "'%.64s' is not a name; use 1-200 of A-Z a-z 0-9 . _ - and no dot in front", value);
    return store_text(place, setting, value, why);
}

static int store_flag(bool *place, const char *value, struct error_buffer *why)
{
    static const char *const WORDS[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

    for (size_t i = 0; i < COUNT_OF(WORDS); i++) {
        if (strcmp(value, WORDS[i]) == 0) {
            *place = i % 2 == 1;
            return 0;
        }
    }
    return error_set(why, SHMQ_EINVAL, "'%.40s' is neither yes nor no; give one of them", value);
}

static int store_mode(uint64_t *place, const char *value, struct error_buffer *why)
{
    uint64_t mode = 0;
    const char *at = value;

    while (*at >= '0' && *at <= '7' && mode <= 0777)
        mode = mode * 8 + (uint64_t)(*at++ - '0');
    if (at == value || *at || mode > 0777 || (mode & 0600) != 0600)
        return error_set(
            why, SHMQ_EINVAL,
            "'%.40s' is not a mode; give octal digits that let the owner in (0600, 0660, "
            "0666)",
            value);
    *place = mode;
    return 0;
}

static int store_word(uint64_t *place, const struct setting *setting, const char *value,
                      struct error_buffer *why)
{
    char words[128] = "";

    for (size_t i = 0; i < COUNT_OF(setting->words) && setting->words[i]; i++) {
        if (strcmp(value, setting->words[i]) == 0) {
            *place = i;
            return 0;
        }
        (void)snprintf(words + strlen(words), sizeof(words) - strlen(words), "%s%s", i ? ", " : "",
                       setting->words[i]);
    }
    return error_set(why, SHMQ_EINVAL, "'%.40s' is unknown; give one of %s", value, words);
}

static int store_size(uint64_t *place, const struct setting *setting, const char *value,
                      struct error_buffer *why)
{
    char min[UNITS_TEXT_BYTES];
    char max[UNITS_TEXT_BYTES];
    uint64_t bytes;
    int rc = units_parse_size(value, &bytes, why);

    if (rc < 0)
        return rc;
    if (bytes < setting->min || bytes > setting->max ||
        (setting->type == SETTING_RING && !is_power_of_two_u64(bytes)))
        return error_set(why, SHMQ_EINVAL, "'%.40s' is out of bounds; give %s from %s to %s", value,
                         setting->type == SETTING_RING ? "a power of two" : "a size",
                         units_format_size(setting->min, min),
                         units_format_size(setting->max, max));
    *place = bytes;
    return 0;
}

int config_store_value(struct config *config, const struct setting *setting, const char *value,
                       struct error_buffer *why)
{
    void *place = (char *)config + setting->offset;

    switch (setting->type) {
    case SETTING_TEXT:
        return store_text(place, setting, value, why);
    case SETTING_BUS:
        return store_bus(place, setting, value, why);
    case SETTING_FLAG:
        return store_flag(place, value, why);
    case SETTING_COUNT:
        return units_parse_count(value, setting->min, setting->max, place, why);
    case SETTING_SIZE:
    case SETTING_RING:
        return store_size(place, setting, value, why);
    case SETTING_LINGER:
        return units_parse_linger(value, place, why);
    case SETTING_MODE:
        return store_mode(place, value, why);
    case SETTING_WORD:
        return store_word(place, setting, value, why);
    }
    return SHMQ_EINVAL;
}

int config_refuse_key(const char *section, const char *key, struct error_buffer *why)
{
    char keys[256] = "";

    for (size_t i = 0; i < config_setting_count; i++) {
        if (strcmp(config_settings[i].section, section) == 0)
            (void)snprintf(keys + strlen(keys), sizeof(keys) - strlen(keys), "%s%s",
                           *keys ? ", " : "", config_settings[i].key);
    }
    if (!*section)
        return error_set(why, SHMQ_EINVAL,
                         "%.50s: stands in no section; put it under [bus], [limits], [defaults] or "
                         "[log]",
                         key);
    if (!*keys)
        return error_set(why, SHMQ_EINVAL,
                         "%.50s.%.50s: unknown section; there are [bus], [limits], [defaults] and "
                         "[log]",
                         section, key);
    return error_set(why, SHMQ_EINVAL, "%.50s.%.50s: unknown key; [%.50s] has %s", section, key,
                     section, keys);
}

int config_set(struct config *config, const char *name, const char *value, struct error_buffer *why)
{
    const char *dot = strchr(name, '.');
    size_t section_length = dot ? (size_t)(dot - name) : 0;
    const struct setting *setting = dot ? config_find_setting(name, section_length, dot + 1) : NULL;
    char section[64];
    int rc;

    if (!setting) {
        (void)snprintf(section, sizeof(section), "%.*s", (int)min_size(section_length, 50), name);
        return config_refuse_key(section, dot ? dot + 1 : name, why);
    }
    rc = config_store_value(config, setting, value, why);
    return rc < 0 ? error_prefix(why, rc, "%s", name) : 0;
}

int config_check(const struct config *config, struct error_buffer *why)
{
    if (config->standby && config->ephemeral)
        return error_set(why, SHMQ_EINVAL,
                         "--standby and --ephemeral: an ephemeral bus leaves nothing to take over; "
                         "drop one of them");
    return 0;
}

/* Only fills what the command line does not say, and comes after the file. */
static int apply_environment(struct config *config, struct error_buffer *why)
{
    static const struct {
        const char *variable;
        const char *name;
    } VARIABLES[] = {
        {"SHMQ_BUS", "bus.name"},
        {"SHMQ_RUNTIME_DIR", "bus.runtime_dir"},
        {"SHMQ_STATE_DIR", "bus.state_dir"},
    };

    for (size_t i = 0; i < COUNT_OF(VARIABLES); i++) {
        const char *value = secure_getenv(VARIABLES[i].variable);
        int rc = value && *value ? config_set(config, VARIABLES[i].name, value, why) : 0;

        if (rc < 0)
            return error_prefix(why, rc, "$%s", VARIABLES[i].variable);
    }
    return 0;
}

static int apply_command(struct config *config, const struct command_line *command,
                         struct error_buffer *why)
{
    for (size_t i = 0; i < command->count; i++) {
        const struct command_setting *given = &command->settings[i];
        int rc = config_store_value(config, given->setting, given->value, why);

        if (rc < 0)
            return error_prefix(why, rc, "%s", given->option);
    }
    return 0;
}

int config_load(int argc, char **argv, struct config *ret_config, struct error_buffer *why)
{
    struct command_line command;
    struct config made;
    int rc = config_parse_command(argc, argv, &command, why);

    if (rc != CONFIG_RUN)
        return rc;
    config_init(&made);
    made.socket_mode = 0; /* not given; the default depends on socket_group */
    if (command.config_path)
        rc = config_read_file(&made, command.config_path, why);
    else if (geteuid() == 0 && access(CONFIG_FILE_DEFAULT, F_OK) == 0)
        rc = config_read_file(&made, CONFIG_FILE_DEFAULT, why);
    if (rc == 0)
        rc = apply_environment(&made, why);
    if (rc == 0)
        rc = apply_command(&made, &command, why);
    if (rc == 0)
        rc = config_check(&made, why);
    if (rc < 0)
        return rc;
    if (made.socket_mode == 0)
        made.socket_mode = made.socket_group[0] ? 0660 : 0600;
    *ret_config = made;
    return CONFIG_RUN;
}

static size_t setting_size(const struct setting *setting)
{
    switch (setting->type) {
    case SETTING_TEXT:
    case SETTING_BUS:
        return (size_t)setting->max;
    case SETTING_FLAG:
        return sizeof(bool);
    default:
        return sizeof(uint64_t);
    }
}

int config_reload(int argc, char **argv, struct config *config, char *ret_ignored,
                  size_t ignored_bytes, struct error_buffer *why)
{
    struct config loaded;
    size_t length = 0;
    int rc = config_load(argc, argv, &loaded, why);

    if (rc != CONFIG_RUN)
        return rc < 0 ? rc : SHMQ_EINVAL;
    if (ignored_bytes)
        ret_ignored[0] = '\0';
    for (size_t i = 0; i < config_setting_count; i++) {
        const struct setting *setting = &config_settings[i];
        char *old = (char *)config + setting->offset;
        const char *new = (const char *)&loaded + setting->offset;

        if (memcmp(old, new, setting_size(setting)) == 0)
            continue;
        if (setting->changes)
            memcpy(old, new, setting_size(setting));
        else if (length < ignored_bytes)
            length += (size_t)snprintf(ret_ignored + length, ignored_bytes - length, "%s%s.%s",
                                       length ? ", " : "", setting->section, setting->key);
    }
    return 0;
}

struct paths_options config_paths_options(const struct config *config)
{
    struct paths_options options = {
        .bus = config->bus,
        .runtime_dir = config->runtime_dir,
        .state_dir = config->state_dir,
    };

    return options;
}
