/* SPDX-License-Identifier: Apache-2.0 */
/* bus.c: making, finding and writing B; the rules stand in bus.h. */
#include "daemon/bus.h"

#include "daemon/config.h"
#include "daemon/guard.h"
#include "daemon/listener.h"
#include "daemon/log.h"
#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/liveness.h"
#include "libshmq/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each id names a byte that can be locked. Larger ones, and entries with such, were never given out:
 * somebody with this user's rights has scribbled. */
#define CLIENT_LAST (UINT64_C(1) << 62)

#define OPEN_ATTEMPTS 16 /* races with a supervisor that starts or stops at the same moment */

static struct bus_segment *shared_of(const struct bus *bus)
{
    return bus->segment.address;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct bus_write {
    struct bus *bus;
    uint32_t entry;
};

static int write_entry(void *context)
{
    struct bus_write *write = context;
    const struct bus_client *from = &write->bus->copy[write->entry];
    struct bus_client *to = &shared_of(write->bus)->clients[write->entry];

    atomic_store_explicit(&to->id, CLIENT_NONE, memory_order_relaxed);
    /* Release, between the clear and the facts; the id is stored last, with release: nobody pairs an
     * old id with new facts, nor a new id with old ones (acquire loads in control_connect.c). */
    atomic_thread_fence(memory_order_release);
    to->start_time = from->start_time;
    to->uid = from->uid;
    to->pid = from->pid;
    to->connected_ns = from->connected_ns;
    memcpy(to->command, from->command, sizeof(to->command));
    atomic_store_explicit(&to->id, from->id, memory_order_release);
    return 0;
}

static int write_words(void *context)
{
    struct bus_write *write = context;
    struct bus_segment *to = shared_of(write->bus);

    /* Release, though nothing hangs on it: they are read by pollers. */
    atomic_store_explicit(&to->next_client, write->bus->next_client, memory_order_release);
    atomic_store_explicit(&to->incarnation, write->bus->incarnation, memory_order_release);
    to->shmqd_pid = (uint32_t)getpid();
    return 0;
}

static int write_all(void *context)
{
    struct bus_write write = *(struct bus_write *)context;
    struct bus_segment *to = shared_of(write.bus);

    memcpy(to->boot_id, write.bus->boot_id, sizeof(to->boot_id));
    to->wait_mode = write.bus->wait_mode;
    to->client_count = write.bus->client_count;
    to->created_ns = write.bus->created_ns;
    (void)write_words(context);
    for (write.entry = 0; write.entry < write.bus->client_count; write.entry++) {
        if (write.bus->copy[write.entry].id != CLIENT_NONE)
            (void)write_entry(&write);
    }
    segment_init_header(&to->header, &(struct segment_identity){.kind = SEGMENT_BUS},
                        write.bus->segment.bytes);
    return 0;
}

/* Somebody has cut B. It is ours to grow again, and all of it stands in `copy`. */
static int guarded(struct bus *bus, guard_fn *fn, struct bus_write *write)
{
    struct guard_range range = {bus->segment.address, bus->segment.bytes};
    int rc = guard_run(&range, 1, fn, write, NULL);

    if (rc != SHMQ_ECORRUPT)
        return rc;
    log_error("bus segment %s was truncated by somebody with this user's rights; written anew",
              bus->name);
    if (ftruncate(bus->fd, (off_t)bus->segment.bytes) != 0 ||
        guard_run(&range, 1, write_all, write, NULL) < 0)
        log_error("bus segment %s cannot be restored: %m; restart shmqd", bus->name);
    return guard_run(&range, 1, fn, write, NULL);
}

/* ---- making and finding ---------------------------------------------------------------------- */

static int decide_wait_mode(uint64_t setting, uint32_t *ret_mode, struct error_buffer *why)
{
    if (setting == CONFIG_WAIT_FENCE) {
        *ret_mode = WAIT_MODE_FENCE;
        return 0;
    }
    if (wait_register_process()) {
        *ret_mode = WAIT_MODE_MEMBARRIER;
        return 0;
    }
    if (setting == CONFIG_WAIT_MEMBARRIER)
        return error_set(why, SHMQ_ENOTSUP,
                         "wait mode membarrier: this kernel or sandbox has no "
                         "membarrier(GLOBAL_EXPEDITED); set [bus] wait_mode = fence");
    *ret_mode = WAIT_MODE_FENCE;
    return 0;
}

static int make_boot_id(unsigned char boot_id[16], struct error_buffer *why)
{
    if (getrandom(boot_id, 16, 0) != 16)
        return error_set_errno(why, errno, "bus: no random numbers for its boot id");
    return 0;
}

static int check_wait_mode(const struct bus *bus, struct error_buffer *why)
{
    if (bus->wait_mode != WAIT_MODE_MEMBARRIER || wait_register_process())
        return 0;
    return error_set(why, SHMQ_ENOTSUP,
                     "bus %s: it runs with membarrier, which this process may not use; start shmqd "
                     "where it may, or end all its clients and set [bus] wait_mode = fence",
                     bus->name);
}

static uint32_t pid_of_other(int fd)
{
    struct bus_segment head;

    if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
        return 0;
    return head.shmqd_pid;
}

static int explain_busy(const struct bus *bus, int fd, struct error_buffer *why)
{
    return error_set(why, SHMQ_EBUSY,
                     "bus %s: shmqd with pid %" PRIu32
                     " supervises it already; stop that one, start "
                     "this one with --standby, or choose another --bus",
                     bus->name + 1, pid_of_other(fd));
}

/* Between open and lock another supervisor may have unlinked it: then we hold a ghost. */
static bool is_still_named(const struct bus *bus, int fd)
{
    struct stat ours, named;
    int probe;
    bool same;

    if (segment_open(bus->name, false, &probe, NULL) < 0)
        return false;
    same = fstat(fd, &ours) == 0 && fstat(probe, &named) == 0 && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
    (void)close(probe);
    return same;
}

static int fill_new(struct bus *bus, uint64_t wait_mode, struct error_buffer *why)
{
    int rc = decide_wait_mode(wait_mode, &bus->wait_mode, why);

    if (rc == 0)
        rc = make_boot_id(bus->boot_id, why);
    if (rc < 0)
        return rc;
    bus->created_ns = clock_realtime_ns();
    bus->next_client = CLIENT_SHMQD + 1;
    bus->incarnation = 0;
    FAULT("bus.create.unready");
    return guarded(bus, write_all, &(struct bus_write){.bus = bus});
}

/* 0, or SHMQ_ECORRUPT: closed for good, or not what a supervisor writes. */
static int copy_constants(void *context)
{
    struct bus *bus = context;
    const struct bus_segment *from = shared_of(bus);

    memcpy(bus->boot_id, from->boot_id, sizeof(bus->boot_id));
    bus->wait_mode = from->wait_mode;
    bus->client_count = from->client_count;
    bus->created_ns = from->created_ns;
    bus->incarnation = atomic_load_explicit(&from->incarnation, memory_order_acquire);
    bus->next_client = atomic_load_explicit(&from->next_client, memory_order_acquire);
    if (atomic_load_explicit(&from->closed, memory_order_acquire) != 0 || bus->client_count == 0 ||
        bus->next_client > CLIENT_LAST ||
        segment_bus_bytes(bus->client_count) > bus->segment.bytes ||
        (bus->wait_mode != WAIT_MODE_MEMBARRIER && bus->wait_mode != WAIT_MODE_FENCE))
        return SHMQ_ECORRUPT;
    bus->next_client = max_u64(bus->next_client, CLIENT_SHMQD + 1);
    return 0;
}

static int copy_entries(void *context)
{
    struct bus *bus = context;

    memcpy(bus->copy, shared_of(bus)->clients, bus->client_count * sizeof(bus->copy[0]));
    return 0;
}

/* 0, 1 = no B of a living boot: unlink it and make one, or a negative error. */
static int take_over(struct bus *bus, struct error_buffer *why)
{
    struct guard_range range = {bus->segment.address, bus->segment.bytes};
    int rc =
        guard_check_segment(&bus->segment, &(struct segment_identity){.kind = SEGMENT_BUS}, why);

    if (rc == SHMQ_EVERSION)
        return error_prefix(why, rc, "bus %s", bus->name + 1);
    if (rc < 0 || guard_run(&range, 1, copy_constants, bus, NULL) < 0)
        return 1;
    return check_wait_mode(bus, why);
}

static int allocate_copy(struct bus *bus, struct error_buffer *why)
{
    bus->copy = calloc(bus->client_count, sizeof(bus->copy[0]));
    return bus->copy
               ? 0
               : error_set(why, SHMQ_ENOMEM, "bus: no memory for %u clients", bus->client_count);
}

/* Clients have B read-only: their locks are shared ones, and an exclusive one is a supervisor's. */
static bool is_supervised(int fd)
{
    struct flock lock = {
        .l_type = F_RDLCK,
        .l_whence = SEEK_SET,
        .l_start = CLIENT_SHMQD,
        .l_len = 1,
    };

    return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

/* Exclusively; or beside a client that has put its own lock there, which must not keep a supervisor
 * from starting. One that started like that is known by its socket. */
static int lock_bus(struct bus *bus, const struct paths *paths, struct error_buffer *why)
{
    int rc = liveness_lock_exclusive(bus->fd, CLIENT_SHMQD);

    if (rc == SHMQ_EBUSY && !is_supervised(bus->fd) && !(paths && listener_is_answered(paths))) {
        rc = liveness_lock(bus->fd, CLIENT_SHMQD);
        if (rc == 0)
            log_warning("bus %s: a client holds the supervisor's lock; going on without it",
                        bus->name + 1);
    }
    return rc == SHMQ_EBUSY ? explain_busy(bus, bus->fd, why) : rc;
}

/* 0, 1 = try again, or a negative error; on anything but 0 nothing is held. */
static int try_open(struct bus *bus, const struct paths *paths, uint32_t client_count,
                    uint64_t wait_mode, struct error_buffer *why)
{
    int rc = segment_open(bus->name, true, &bus->fd, why);
    bool made = rc == SHMQ_ENOTOPIC;

    if (made) {
        rc = segment_create(bus->name, segment_bus_bytes(client_count), &bus->fd, why);
        if (rc == SHMQ_EEXIST)
            return 1;
    }
    if (rc < 0)
        return rc;
    rc = lock_bus(bus, paths, why);
    if (rc == 0 && !is_still_named(bus, bus->fd))
        rc = 1;
    if (rc == 0)
        rc = segment_map(bus->fd, true, sizeof(struct bus_segment), &bus->segment, why);
    if (rc == SHMQ_ECORRUPT && !made) /* shorter than its header: its maker died */
        rc = segment_unlink(bus->name) < 0 ? SHMQ_ECORRUPT : 1;
    if (rc == 0 && made) {
        bus->client_count = client_count;
        bus->created = true;
        rc = allocate_copy(bus, why);
        if (rc == 0)
            rc = fill_new(bus, wait_mode, why);
        if (rc < 0)
            (void)segment_unlink(bus->name);
    } else if (rc == 0) {
        rc = take_over(bus, why);
        if (rc == 1) {
            log_warning("bus segment %s is damaged or was closed; the bus begins anew", bus->name);
            rc = segment_unlink(bus->name) < 0 ? SHMQ_ECORRUPT : 1;
        } else if (rc == 0) {
            rc = allocate_copy(bus, why);
        }
    }
    if (rc != 0)
        bus_close(bus, false);
    return rc;
}

int bus_open(struct bus *bus, const char *prefix, const struct paths *paths, uint32_t client_count,
             uint64_t wait_mode, struct error_buffer *why)
{
    int rc = 1;

    memset(bus, 0, sizeof(*bus));
    bus->fd = -1;
    if (segment_name(bus->name, prefix, SEGMENT_BUS, 0, 0, 0) < 0)
        return error_set(why, SHMQ_EINVAL, "bus: its name is too long for a shared-memory object");
    for (int attempt = 0; rc == 1 && attempt < OPEN_ATTEMPTS; attempt++)
        rc = try_open(bus, paths, client_count, wait_mode, why);
    if (rc == 1)
        rc = error_set(why, SHMQ_EBUSY,
                       "bus %s: other supervisors start and stop on it without end; stop them",
                       bus->name + 1);
    return rc;
}

static void wake_everyone(struct bus *bus)
{
    for (uint32_t i = 0; i < bus->client_count; i++) {
        if (bus->copy[i].id != CLIENT_NONE)
            bus_wake_client(bus, i);
    }
}

void bus_begin(struct bus *bus)
{
    struct guard_range range = {bus->segment.address, bus->segment.bytes};

    bus->incarnation++;
    if (!bus->created && guard_run(&range, 1, copy_entries, bus, NULL) < 0)
        log_error("bus segment %s was truncated; who its clients are is lost", bus->name);
    for (uint32_t i = 0; i < bus->client_count; i++) {
        uint64_t id = bus->copy[i].id;

        if (id > CLIENT_LAST)
            memset(&bus->copy[i], 0, sizeof(bus->copy[i]));
        if (id == CLIENT_NONE || id > CLIENT_LAST)
            continue;
        bus->used++;
        bus->copy[i].command[sizeof(bus->copy[i].command) - 1] = '\0';
        bus->next_client = max_u64(bus->next_client, id + 1);
    }
    (void)guarded(bus, write_words, &(struct bus_write){.bus = bus});
    FAULT("bus.begin.incarnation");
    wake_everyone(bus);
}

static int write_closed(void *context)
{
    struct bus_write *write = context;

    /* Release: the partitions' own words are stored before; read by acquire in the client. */
    atomic_store_explicit(&shared_of(write->bus)->closed, 1, memory_order_release);
    return 0;
}

void bus_close(struct bus *bus, bool unlink)
{
    if (bus->fd < 0)
        return;
    if (unlink) {
        (void)guarded(bus, write_closed, &(struct bus_write){.bus = bus});
        wake_everyone(bus);
        (void)segment_unlink(bus->name);
    }
    segment_unmap(&bus->segment);
    free(bus->copy);
    bus->copy = NULL;
    (void)close(steal_fd(&bus->fd));
}

/* ---- clients --------------------------------------------------------------------------------- */

int bus_add_client(struct bus *bus, struct bus_client *client, uint32_t *ret_entry,
                   struct error_buffer *why)
{
    struct bus_write write = {.bus = bus};
    uint32_t entry = bus->hint;

    if (bus->used == bus->client_count)
        return error_set(
            why, SHMQ_ELIMIT,
            "bus %s: all %u places for clients are taken; close some, or raise [limits] "
            "clients and restart shmqd",
            bus->name + 1, bus->client_count);
    while (bus->copy[entry].id != CLIENT_NONE)
        entry = (entry + 1) % bus->client_count;
    bus->hint = (entry + 1) % bus->client_count;
    client->id = bus->next_client++;
    /* First: an id that was given out and forgotten by a crash must not be given out again. */
    (void)guarded(bus, write_words, &write);
    FAULT("bus.client.numbered");
    bus->copy[entry] = *client;
    bus->used++;
    write.entry = entry;
    (void)guarded(bus, write_entry, &write);
    *ret_entry = entry;
    return 0;
}

void bus_remove_client(struct bus *bus, uint32_t entry)
{
    memset(&bus->copy[entry], 0, sizeof(bus->copy[entry]));
    bus->used--;
    (void)guarded(bus, write_entry, &(struct bus_write){.bus = bus, .entry = entry});
}

static int wake_entry(void *context)
{
    struct bus_write *write = context;

    wait_wake_word(&shared_of(write->bus)->clients[write->entry].event);
    return 0;
}

void bus_wake_client(struct bus *bus, uint32_t entry)
{
    (void)guarded(bus, wake_entry, &(struct bus_write){.bus = bus, .entry = entry});
}

int bus_open_for_client(struct bus *bus, uint64_t id, int *ret_fd, struct error_buffer *why)
{
    char path[64];
    int fd, rc;

    /* Through our own descriptor, not by name: the object may have been unlinked (RemoveIPC). */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", bus->fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) /* no /proc here */
        rc = segment_open(bus->name, false, &fd, why);
    else
        rc = 0;
    if (rc < 0)
        return rc;
    rc = liveness_lock(fd, id);
    if (rc < 0) {
        (void)close(fd);
        return error_set(why, rc, "bus %s: the lock of client %" PRIu64 " was refused",
                         bus->name + 1, id);
    }
    *ret_fd = fd;
    return 0;
}
