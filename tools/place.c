/* SPDX-License-Identifier: Apache-2.0 */
/* Where a bus is; see place.h. */
#include "tools/place.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>

#include "tools/inspect.h"

/* Segments are named after the uid of their supervisor: who owns its folder, or we ourselves. */
static bool try_prefix(struct place *place, uid_t uid)
{
    char prefix[PATHS_PREFIX_BYTES];
    struct inspect_bus *buses = NULL;
    uint32_t count;
    bool found = false;

    if (paths_segment_prefix(uid, place->runtime_dir, place->bus, prefix, NULL) < 0)
        return false;
    (void)snprintf(place->prefix, sizeof(place->prefix), "%s",
                   prefix[0] == '/' ? prefix + 1 : prefix);
    count = inspect_list(&buses);
    for (uint32_t i = 0; i < count; i++)
        found |= strcmp(buses[i].prefix, place->prefix) == 0;
    free(buses);
    return found;
}

static void look(struct place *place)
{
    char directory[PATHS_DIR_BYTES + NAME_BYTES + 1];
    struct stat status;

    place->has_socket = stat(place->socket, &status) == 0 && S_ISSOCK(status.st_mode);
    (void)snprintf(directory, sizeof(directory), "%s/%s", place->runtime_dir, place->bus);
    if (stat(directory, &status) == 0 || stat(place->runtime_dir, &status) == 0)
        place->has_memory = try_prefix(place, status.st_uid);
    else if (strcmp(place->runtime_dir, PATHS_RUNTIME_SYSTEM) == 0)
        place->has_memory = try_prefix(place, 0);
    if (!place->has_memory)
        place->has_memory = try_prefix(place, geteuid());
}

int place_find(const struct cli *cli, struct place *ret_place)
{
    struct paths_options options = {.bus = cli->bus, .runtime_dir = cli->runtime_dir};
    struct paths_environment environment;
    struct paths_candidates candidates;
    struct error_buffer why;

    paths_environment_load(&environment);
    if (paths_find_sockets(&options, &environment, &candidates, &why) < 0)
        return cli_fail(CLI_USAGE, "%s", why.text);
    for (unsigned i = 0; i < candidates.count; i++) {
        struct place place = {.has_socket = false};

        memcpy(place.bus, candidates.bus, sizeof(place.bus));
        memcpy(place.runtime_dir, candidates.list[i].runtime_dir, sizeof(place.runtime_dir));
        memcpy(place.socket, candidates.list[i].socket, sizeof(place.socket));
        look(&place);
        if (i == 0 || place.has_socket || place.has_memory)
            *ret_place = place;
        if (place.has_socket || place.has_memory)
            break;
    }
    return CLI_OK;
}

const char *place_start_command(const struct place *place, char ret_text[PATHS_DIR_BYTES + 300])
{
    struct paths_environment environment;
    struct paths_candidates usual;
    struct paths_options none = {.bus = place->bus};
    bool is_usual;

    paths_environment_load(&environment);
    is_usual = paths_find_sockets(&none, &environment, &usual, NULL) == 0 &&
               strcmp(usual.list[0].runtime_dir, place->runtime_dir) == 0;
    (void)snprintf(ret_text, PATHS_DIR_BYTES + 300, "shmqd%s%s%s%s",
                   strcmp(place->bus, PATHS_BUS_DEFAULT) ? " --bus " : "",
                   strcmp(place->bus, PATHS_BUS_DEFAULT) ? place->bus : "",
                   is_usual ? "" : " --runtime-dir ", is_usual ? "" : place->runtime_dir);
    return ret_text;
}

bool place_answers(const struct place *place)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool answers;

    if (fd < 0)
        return true; /* not known: nothing is concluded from it */
    memcpy(address.sun_path, place->socket, sizeof(address.sun_path));
    answers = connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ||
              (errno != ECONNREFUSED && errno != ENOENT);
    (void)close(fd);
    return answers;
}

bool place_memory(struct place_memory *ret_memory)
{
    struct statvfs status;

    if (statvfs("/dev/shm", &status) < 0)
        return false;
    ret_memory->total_bytes = (uint64_t)status.f_blocks * status.f_frsize;
    ret_memory->free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    return true;
}
