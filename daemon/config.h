/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that an administrator may say to shmqd. In order of weight: the command line, the
 * environment (SHMQ_BUS, SHMQ_RUNTIME_DIR, SHMQ_STATE_DIR), the config file, the defaults.
 *
 * One table (config.c) knows each setting's section, key, type, bounds and whether it may change
 * while shmqd runs; file, command line and reload all go by it. The sample with every key and its
 * default is daemon/shmqd.conf, and a test keeps it true.
 *
 * Plain values, no pointers: copy at will. Load and reload: main thread only (getopt). Errors are
 * complete but for the program's name: `FILE:LINE: key: why; what to do`.
 */
#ifndef SHMQ_DAEMON_CONFIG_H
#define SHMQ_DAEMON_CONFIG_H

#include "daemon/log.h"
#include "libshmq/error.h"
#include "libshmq/paths.h"
#include "libshmq/topic_options.h"

#include <stdbool.h>
#include <stdio.h>

#define CONFIG_FILE_DEFAULT "/etc/shmq/shmqd.conf" /* read by root, if it exists */

enum config_wait_mode { CONFIG_WAIT_AUTO, CONFIG_WAIT_MEMBARRIER, CONFIG_WAIT_FENCE };

/* Numbers are all 64 bits so that the table can treat them alike; their bounds are in config.c. */
struct config {
    /* Fixed while shmqd runs. "" means: not given, paths_resolve() decides. */
    char bus[NAME_BYTES];
    char runtime_dir[PATHS_DIR_BYTES];
    char state_dir[PATHS_DIR_BYTES];
    bool standby;
    bool ephemeral;
    uint64_t socket_mode;  /* permission bits */
    char socket_group[64]; /* name or number; "": the process's own */
    uint64_t wait_mode;    /* enum config_wait_mode; for a bus that is made anew */

    /* Limits for the whole bus; may change at SIGHUP. What exceeds a lowered one stays. */
    uint64_t clients;
    uint64_t topics;
    uint64_t partitions; /* of all topics together */
    uint64_t groups_per_topic;

    /* Limits for each user (uid); may change at SIGHUP. */
    uint64_t connections_per_user;
    uint64_t bytes_per_user; /* shared memory of the topics that this uid created */
    uint64_t slots_per_user; /* producer slots */

    /* What a topic gets that was created without saying; may change at SIGHUP. */
    uint64_t ring_bytes;
    uint64_t group_linger_ns; /* or LINGER_FOREVER */

    uint64_t log_level; /* enum log_level; may change at SIGHUP */
};

/* Positive results of config_load(). */
enum config_outcome { CONFIG_RUN = 0, CONFIG_HELP = 1, CONFIG_VERSION = 2 };

void config_init(struct config *ret_config);

/* The command line, the file that it names (else the default one, for root) and the environment.
 * enum config_outcome, SHMQ_EINVAL with a sentence, or the error of reading the file. */
int config_load(int argc, char **argv, struct config *ret_config, struct error_buffer *why);

/* Loads all again and takes over into `config` what may change. Names of the settings that differ but
 * may not go into `ret_ignored`, separated by ", " ("" if none). 0, or an error: `config` stays. */
int config_reload(int argc, char **argv, struct config *config, char *ret_ignored,
                  size_t ignored_bytes, struct error_buffer *why);

/* Sets one setting by name, "section.key", as `--set` does. 0 or SHMQ_EINVAL. */
int config_set(struct config *config, const char *name, const char *value,
               struct error_buffer *why);

/* Contradictions between settings. 0 or SHMQ_EINVAL. */
int config_check(const struct config *config, struct error_buffer *why);

/* Reads an INI file on top of what is in `config`. 0, SHMQ_EINVAL or the error of reading; then
 * `config` may hold a part of the file. */
int config_read_file(struct config *config, const char *path, struct error_buffer *why);

void config_print_help(FILE *out);
void config_print_version(FILE *out);

/* For paths_resolve(); borrows the strings. */
struct paths_options config_paths_options(const struct config *config);

#endif
