/* SPDX-License-Identifier: Apache-2.0 */
/* Finding buses in /dev/shm, and reading B; partitions: inspect_partition.c. See inspect.h. */
#include "tools/inspect.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libshmq/clock.h"
#include "libshmq/liveness.h"
#include "tools/inspect_internal.h"
#include "tools/outbuf.h"

#define CLIENTS_READ_MAX 65536u

/* ---- Names ------------------------------------------------------------------------------------ */

/* Length of the number at `at`, 0 if there is none. */
static size_t skip_number(const char *at)
{
    size_t length = 0;

    while (isdigit((unsigned char)at[length]))
        length++;
    return length;
}

/* "shmq.BUS.HASH.B", "….t7p0.S", "….t7p0.g3": the parts behind PREFIX, from the end because BUS may
 * hold dots. False: not a segment of ours. */
static bool parse_name(const char *file, struct inspect_name *ret_name)
{
    struct inspect_name made = {.kind = '\0'};
    const char *last = strrchr(file, '.');
    const char *middle;
    char *end;

    if (strncmp(file, "shmq.", 5) != 0 || !last)
        return false;
    if (strcmp(last, ".B") == 0) {
        made.kind = 'B';
        middle = last;
    } else {
        for (middle = last - 1; middle > file && *middle != '.'; middle--)
            ;
        if (middle[1] != 't' || skip_number(middle + 2) == 0)
            return false;
        made.topic = strtoull(middle + 2, &end, 10);
        if (*end != 'p' || skip_number(end + 1) == 0)
            return false;
        made.partition = (uint32_t)strtoul(end + 1, &end, 10);
        if (end != last)
            return false;
        if (last[1] == 'g' && skip_number(last + 2) > 0) {
            made.kind = 'G';
            made.gate = (uint32_t)strtoul(last + 2, &end, 10);
            if (*end || made.gate >= GATES_MAX)
                return false;
        } else if (last[1] && strchr("SPWD", last[1]) && !last[2]) {
            made.kind = last[1];
        } else {
            return false;
        }
    }
    if ((size_t)(middle - file) >= sizeof(made.prefix))
        return false;
    memcpy(made.prefix, file, (size_t)(middle - file));
    *ret_name = made;
    return true;
}

void inspect_each(const char *prefix, inspect_name_fn fn, void *context)
{
    DIR *directory = opendir(INSPECT_DIR);
    const struct dirent *entry;
    struct inspect_name name;

    if (!directory)
        return;
    while ((entry = readdir(directory)) != NULL) {
        if (!parse_name(entry->d_name, &name) || (prefix && strcmp(name.prefix, prefix) != 0))
            continue;
        (void)snprintf(name.file, sizeof(name.file), "%s", entry->d_name);
        fn(&name, context);
    }
    (void)closedir(directory);
}

int inspect_open_file(const char *file)
{
    char path[sizeof(INSPECT_DIR) + 1 + NAME_MAX_FILE];

    (void)snprintf(path, sizeof(path), INSPECT_DIR "/%s", file);
    return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

bool inspect_read(int fd, void *to, size_t bytes, uint64_t offset)
{
    return offset <= INT64_MAX && pread(fd, to, bytes, (off_t)offset) == (ssize_t)bytes;
}

static void count_file(const struct inspect_name *name, struct inspect_bus *bus)
{
    char path[sizeof(INSPECT_DIR) + 1 + NAME_MAX_FILE];
    struct stat status;
    uint64_t changed_ns;

    (void)snprintf(path, sizeof(path), INSPECT_DIR "/%s", name->file);
    if (lstat(path, &status) < 0 || !S_ISREG(status.st_mode))
        return;
    if (bus->file_count == 0)
        bus->uid = status.st_uid;
    bus->file_count++;
    bus->bytes += (uint64_t)status.st_size;
    changed_ns = (uint64_t)status.st_ctim.tv_sec * NS_PER_S + (uint64_t)status.st_ctim.tv_nsec;
    bus->newest_ns = max_u64(bus->newest_ns, changed_ns);
}

/* ---- The list --------------------------------------------------------------------------------- */

struct bus_list {
    struct inspect_bus *items;
    uint32_t count;
};

static void add_to_list(const struct inspect_name *name, void *context)
{
    struct bus_list *list = context;
    struct inspect_bus *bus;

    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].prefix, name->prefix) == 0) {
            count_file(name, &list->items[i]);
            return;
        }
    }
    list->items = tool_realloc(list->items, (list->count + 1) * sizeof(*list->items));
    bus = &list->items[list->count++];
    *bus = (struct inspect_bus){0};
    memcpy(bus->prefix, name->prefix, sizeof(bus->prefix));
    count_file(name, bus);
}

uint32_t inspect_list(struct inspect_bus **ret_buses)
{
    struct bus_list list = {0};

    inspect_each(NULL, add_to_list, &list);
    *ret_buses = list.items;
    return list.count;
}

/* ---- B ---------------------------------------------------------------------------------------- */

static void read_clients(struct inspect_bus *bus, int fd, uint32_t entries)
{
    for (uint32_t i = 0; i < entries; i++) {
        struct bus_client entry;
        struct inspect_client *client;

        if (!inspect_read(fd, &entry, sizeof(entry),
                          sizeof(struct bus_segment) + (uint64_t)i * sizeof(entry)))
            return;
        if (atomic_load_explicit(&entry.id, memory_order_relaxed) == CLIENT_NONE)
            continue;
        bus->clients = tool_realloc(bus->clients, (bus->client_count + 1) * sizeof(*bus->clients));
        client = &bus->clients[bus->client_count++];
        *client = (struct inspect_client){
            .id = atomic_load_explicit(&entry.id, memory_order_relaxed),
            .start_time = entry.start_time,
            .connected_ns = entry.connected_ns,
            .uid = entry.uid,
            .pid = entry.pid,
        };
        memcpy(client->command, entry.command, sizeof(client->command));
        client->command[sizeof(client->command) - 1] = '\0';
        text_make_printable(client->command);
        client->alive = !liveness_is_dead(fd, client->id);
        bus->live_clients += client->alive;
    }
}

static void read_bus(struct inspect_bus *bus)
{
    char file[NAME_MAX_FILE];
    struct bus_segment b;
    struct stat status;
    int fd;

    (void)snprintf(file, sizeof(file), "%s.B", bus->prefix);
    fd = inspect_open_file(file);
    if (fd < 0) {
        bus->unreadable |= errno != ENOENT;
        return;
    }
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        /* The lock tells, whatever the bytes say. */
        bus->has_bus = true;
        bus->supervisor_alive = !liveness_is_dead(fd, CLIENT_SHMQD);
        if (inspect_read(fd, &b, sizeof(b), 0) && b.header.magic == LAYOUT_MAGIC &&
            b.header.version == LAYOUT_VERSION) {
            bus->supervisor_pid = b.shmqd_pid;
            bus->incarnation = atomic_load_explicit(&b.incarnation, memory_order_relaxed);
            bus->created_ns = b.created_ns;
            read_clients(bus, fd, min_u32(b.client_count, CLIENTS_READ_MAX));
        }
    }
    (void)close(fd);
}

static void take_name(const struct inspect_name *name, void *context)
{
    struct inspect_bus *bus = context;

    count_file(name, bus);
    if (name->kind == 'B')
        return;
    for (uint32_t i = 0; i < bus->partition_count; i++) {
        if (bus->partitions[i].topic == name->topic &&
            bus->partitions[i].partition == name->partition)
            return;
    }
    bus->partitions =
        tool_realloc(bus->partitions, (bus->partition_count + 1) * sizeof(*bus->partitions));
    bus->partitions[bus->partition_count++] =
        (struct inspect_partition){.topic = name->topic, .partition = name->partition};
}

static int compare_partitions(const void *a, const void *b)
{
    const struct inspect_partition *x = a;
    const struct inspect_partition *y = b;

    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    return x->partition < y->partition ? -1 : x->partition > y->partition;
}

bool inspect_open(const char *prefix, struct inspect_bus *ret_bus)
{
    struct inspect_bus made = {0};

    (void)snprintf(made.prefix, sizeof(made.prefix), "%s", prefix);
    inspect_each(prefix, take_name, &made);
    if (made.file_count == 0) {
        free(made.partitions);
        return false;
    }
    read_bus(&made);
    if (made.partition_count > 0)
        qsort(made.partitions, made.partition_count, sizeof(*made.partitions), compare_partitions);
    for (uint32_t i = 0; i < made.partition_count; i++)
        inspect_read_partition(&made, &made.partitions[i]);
    *ret_bus = made;
    return true;
}

void inspect_free(struct inspect_bus *bus)
{
    free(bus->clients);
    free(bus->partitions);
    *bus = (struct inspect_bus){0};
}

const struct inspect_client *inspect_find_client(const struct inspect_bus *bus, uint64_t id)
{
    for (uint32_t i = 0; i < bus->client_count; i++) {
        if (bus->clients[i].id == id)
            return &bus->clients[i];
    }
    return NULL;
}

/* ---- Removing --------------------------------------------------------------------------------- */

#define SETTLED_AFTER_NS (10 * NS_PER_S) /* a supervisor that starts makes B first */

bool inspect_is_dead(const struct inspect_bus *bus)
{
    if (bus->has_bus)
        return !bus->supervisor_alive && bus->live_clients == 0;
    return !bus->unreadable && clock_realtime_ns() > bus->newest_ns + SETTLED_AFTER_NS;
}

struct removal {
    bool bus_too;
    int removed;
    int error;
};

static void remove_file(const struct inspect_name *name, void *context)
{
    char path[sizeof(INSPECT_DIR) + 1 + NAME_MAX_FILE];
    struct removal *removal = context;

    if ((name->kind == SEGMENT_BUS) != removal->bus_too)
        return;
    (void)snprintf(path, sizeof(path), INSPECT_DIR "/%s", name->file);
    if (unlink(path) == 0)
        removal->removed++;
    else if (errno != ENOENT)
        removal->error = errno;
}

/* B of a dead bus with the supervisor's lock on it; -1 if somebody lives by now. */
static int lock_bus(const struct inspect_bus *bus)
{
    char path[sizeof(INSPECT_DIR) + 1 + NAME_MAX_FILE];
    struct stat status;
    int fd;

    (void)snprintf(path, sizeof(path), INSPECT_DIR "/%s.B", bus->prefix);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    if (liveness_lock_exclusive(fd, CLIENT_SHMQD) < 0 || fstat(fd, &status) < 0 ||
        status.st_nlink == 0) {
        (void)close(fd);
        errno = 0;
        return -1;
    }
    return fd;
}

int inspect_remove(const struct inspect_bus *bus)
{
    struct removal removal = {.bus_too = false};
    struct inspect_bus again;
    int fd = -1;
    bool dead;

    if (bus->has_bus && (fd = lock_bus(bus)) < 0)
        return -1;
    errno = 0;
    if (!inspect_open(bus->prefix, &again)) {
        if (fd >= 0)
            (void)close(fd);
        return 0;
    }
    /* The lock on byte 1 is ours now: what counts are the clients, and that B has not come back. */
    dead = again.has_bus == bus->has_bus && again.live_clients == 0;
    inspect_free(&again);
    if (dead) {
        inspect_each(bus->prefix, remove_file, &removal);
        removal.bus_too = true;
        inspect_each(bus->prefix, remove_file, &removal);
    }
    if (fd >= 0)
        (void)close(fd);
    errno = removal.error;
    return dead && removal.error == 0 ? removal.removed : -1;
}
