/* SPDX-License-Identifier: Apache-2.0 */
/* Resolving where things are; see paths.h. Making and checking directories: paths_make.c. */
#include "libshmq/paths.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

_Static_assert(PATHS_SOCKET_BYTES == sizeof(((struct sockaddr_un *)NULL)->sun_path), "sun_path");

#define BUS_IN_PREFIX_MAX 160 /* of the bus name; the hash tells longer ones apart */

_Static_assert(sizeof("/shmq..") + BUS_IN_PREFIX_MAX + 16 <= PATHS_PREFIX_BYTES, "prefix");
_Static_assert(PATHS_PREFIX_BYTES + 63 <= NAME_MAX + 1, "room for \".t<id>p<idx>.g<n>\"");

static bool is_set(const char *text)
{
    return text && *text;
}

static const char *first_set(const char *a, const char *b)
{
    return is_set(a) ? a : is_set(b) ? b : NULL;
}

void paths_environment_load(struct paths_environment *ret_environment)
{
    struct paths_environment made = {
        .uid = geteuid(),
        .bus = secure_getenv("SHMQ_BUS"),
        .runtime_dir = secure_getenv("SHMQ_RUNTIME_DIR"),
        .state_dir = secure_getenv("SHMQ_STATE_DIR"),
        .xdg_runtime_dir = secure_getenv("XDG_RUNTIME_DIR"),
        .xdg_state_home = secure_getenv("XDG_STATE_HOME"),
        .home = secure_getenv("HOME"),
    };

    *ret_environment = made;
}

int paths_resolve_bus(const char *option, const struct paths_environment *environment,
                      char ret_bus[NAME_BYTES], struct error_buffer *why)
{
    const char *bus = first_set(option, environment->bus);

    if (!bus)
        bus = PATHS_BUS_DEFAULT;
    if (!name_is_valid(bus))
        return error_set(why, SHMQ_EINVAL,
                         "bus '%.64s': not a name; use 1-200 of A-Z a-z 0-9 . _ - and no dot in "
                         "front%s",
                         bus, is_set(option) ? "" : " in $SHMQ_BUS");
    memcpy(ret_bus, bus, strlen(bus) + 1);
    return 0;
}

static int format_path(char *ret_path, size_t path_bytes, struct error_buffer *why,
                       const char *format, ...) PRINTF_LIKE(4, 5);

static int format_path(char *ret_path, size_t path_bytes, struct error_buffer *why,
                       const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(ret_path, path_bytes, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= path_bytes)
        return error_set(why, SHMQ_EINVAL, "path '%.300s...': too long; choose a shorter directory",
                         ret_path);
    return 0;
}

/* connect() would say no more than EINVAL, or reach another socket whose name is a prefix. */
static int format_socket(const char *runtime_dir, const char *bus, char ret_socket[],
                         struct error_buffer *why)
{
    char path[PATHS_DIR_BYTES + NAME_BYTES + sizeof(PATHS_SOCKET_NAME) + 2];
    int rc = format_path(path, sizeof(path), why, "%s/%s/" PATHS_SOCKET_NAME, runtime_dir, bus);

    if (rc < 0)
        return rc;
    if (strlen(path) >= PATHS_SOCKET_BYTES)
        return error_set(why, SHMQ_EINVAL,
                         "socket '%.300s': %zu characters, but a socket's path has at most %d; "
                         "choose a shorter runtime directory or bus name",
                         path, strlen(path), PATHS_SOCKET_BYTES - 1);
    memcpy(ret_socket, path, strlen(path) + 1);
    return 0;
}

/* A directory on the command line means the one under the shell's working directory, whatever the
 * supervisor's becomes. */
static int make_absolute(const char *directory, char ret_directory[PATHS_DIR_BYTES],
                         struct error_buffer *why)
{
    char *working;
    int rc;

    if (directory[0] == '/')
        return format_path(ret_directory, PATHS_DIR_BYTES, why, "%s", directory);
    working = getcwd(NULL, 0);
    if (!working)
        return error_set_errno(why, errno, "directory '%.200s': the working directory", directory);
    rc = format_path(ret_directory, PATHS_DIR_BYTES, why, "%s/%s", working, directory);
    free(working);
    return rc;
}

/* The user's own runtime directory. */
static int resolve_runtime(const char *option, const struct paths_environment *environment,
                           char ret_directory[PATHS_DIR_BYTES], bool *ret_fallback,
                           struct error_buffer *why)
{
    const char *given = first_set(option, environment->runtime_dir);

    *ret_fallback = false;
    if (given)
        return make_absolute(given, ret_directory, why);
    if (environment->uid == 0)
        return format_path(ret_directory, PATHS_DIR_BYTES, why, "%s", PATHS_RUNTIME_SYSTEM);
    /* The XDG specification: a relative path is to be ignored. */
    if (is_set(environment->xdg_runtime_dir) && environment->xdg_runtime_dir[0] == '/')
        return format_path(ret_directory, PATHS_DIR_BYTES, why, "%s/shmq",
                           environment->xdg_runtime_dir);
    *ret_fallback = true;
    return format_path(ret_directory, PATHS_DIR_BYTES, why, "/tmp/shmq-%lu",
                       (unsigned long)environment->uid);
}

static int resolve_state(const char *option, const struct paths_environment *environment,
                         char ret_directory[PATHS_DIR_BYTES], struct error_buffer *why)
{
    const char *given = first_set(option, environment->state_dir);

    if (given)
        return make_absolute(given, ret_directory, why);
    if (environment->uid == 0)
        return format_path(ret_directory, PATHS_DIR_BYTES, why, "%s", PATHS_STATE_SYSTEM);
    if (is_set(environment->xdg_state_home) && environment->xdg_state_home[0] == '/')
        return format_path(ret_directory, PATHS_DIR_BYTES, why, "%s/shmq",
                           environment->xdg_state_home);
    if (is_set(environment->home) && environment->home[0] == '/')
        return format_path(ret_directory, PATHS_DIR_BYTES, why, "%s/.local/state/shmq",
                           environment->home);
    return error_set(why, SHMQ_EINVAL,
                     "state directory: neither $HOME nor $XDG_STATE_HOME is set; give --state-dir, "
                     "or --ephemeral to keep nothing");
}

static int fill_candidate(const char *bus, struct paths_candidate *candidate,
                          struct error_buffer *why)
{
    return format_socket(candidate->runtime_dir, bus, candidate->socket, why);
}

int paths_find_sockets(const struct paths_options *options,
                       const struct paths_environment *environment,
                       struct paths_candidates *ret_candidates, struct error_buffer *why)
{
    struct paths_candidates made = {.count = 1};
    int rc = paths_resolve_bus(options->bus, environment, made.bus, why);

    if (rc == 0)
        rc = resolve_runtime(options->runtime_dir, environment, made.list[0].runtime_dir,
                             &made.list[0].fallback, why);
    if (rc == 0)
        rc = fill_candidate(made.bus, &made.list[0], why);
    if (rc < 0)
        return rc;
    if (!first_set(options->runtime_dir, environment->runtime_dir) && environment->uid != 0) {
        memcpy(made.list[1].runtime_dir, PATHS_RUNTIME_SYSTEM, sizeof(PATHS_RUNTIME_SYSTEM));
        rc = fill_candidate(made.bus, &made.list[1], why);
        if (rc < 0)
            return rc;
        made.count = 2;
    }
    *ret_candidates = made;
    return 0;
}

int paths_resolve(const struct paths_options *options, const struct paths_environment *environment,
                  bool ephemeral, struct paths *ret_paths, struct error_buffer *why)
{
    struct paths made = {.fallback = false};
    int rc = paths_resolve_bus(options->bus, environment, made.bus, why);

    if (rc == 0)
        rc = resolve_runtime(options->runtime_dir, environment, made.runtime_dir, &made.fallback,
                             why);
    if (rc == 0)
        rc = format_socket(made.runtime_dir, made.bus, made.socket, why);
    if (rc == 0)
        rc = format_path(made.runtime_bus_dir, sizeof(made.runtime_bus_dir), why, "%s/%s",
                         made.runtime_dir, made.bus);
    if (rc == 0 && !ephemeral) {
        rc = resolve_state(options->state_dir, environment, made.state_dir, why);
        if (rc == 0)
            rc = format_path(made.state_bus_dir, sizeof(made.state_bus_dir), why, "%s/%s",
                             made.state_dir, made.bus);
        if (rc == 0)
            rc = format_path(made.meta_dir, sizeof(made.meta_dir), why, "%s/meta",
                             made.state_bus_dir);
    }
    if (rc < 0)
        return rc;
    *ret_paths = made;
    return 0;
}

/* FNV-1a, 64 bits. The NUL goes in as well: "ab" + "c" must differ from "a" + "bc". */
static uint64_t hash_bytes(uint64_t hash, const void *data, size_t length)
{
    const unsigned char *bytes = data;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

int paths_segment_prefix(uid_t uid, const char *runtime_dir, const char *bus,
                         char ret_prefix[PATHS_PREFIX_BYTES], struct error_buffer *why)
{
    char canonical[PATHS_DIR_BYTES];
    uint64_t user = uid;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    int rc;

    if (!name_is_valid(bus))
        return error_set(why, SHMQ_EINVAL, "bus '%.64s': not a name", bus);
    rc = paths_canonicalize(runtime_dir, canonical, why);
    if (rc < 0)
        return rc;
    hash = hash_bytes(hash, &user, sizeof(user));
    hash = hash_bytes(hash, canonical, strlen(canonical) + 1);
    hash = hash_bytes(hash, bus, strlen(bus) + 1);
    (void)snprintf(ret_prefix, PATHS_PREFIX_BYTES, "/shmq.%.*s.%016llx", BUS_IN_PREFIX_MAX, bus,
                   (unsigned long long)hash);
    return 0;
}
