/* SPDX-License-Identifier: Apache-2.0 */
/* segment.c: shared-memory objects by name, descriptor and mapping; the rules stand in
 * segment.h. */
#include "libshmq/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "libshmq/fault.h"

#define MIB (1024.0 * 1024.0)

/* tmpfs gives back what one fallocate call has reserved when a signal interrupts it. In pieces, a
 * program with a busy timer gets on nevertheless. */
#define RESERVE_PIECE_BYTES (UINT64_C(1) << 20)

int segment_name(char name[SEGMENT_NAME_BYTES], const char *prefix, enum segment_kind kind,
                 uint64_t topic, uint32_t partition, uint32_t gate)
{
    int length;

    switch (kind) {
    case SEGMENT_BUS:
        length = snprintf(name, SEGMENT_NAME_BYTES, "/%s.B", prefix);
        break;
    case SEGMENT_GROUP:
        length = snprintf(name, SEGMENT_NAME_BYTES, "/%s.t%" PRIu64 "p%" PRIu32 ".g%" PRIu32,
                          prefix, topic, partition, gate);
        break;
    default:
        length = snprintf(name, SEGMENT_NAME_BYTES, "/%s.t%" PRIu64 "p%" PRIu32 ".%c", prefix,
                          topic, partition, (char)kind);
        break;
    }
    /* A cut name could be another segment's. 255 bytes without the slash are allowed. */
    if (length < 0 || length >= SEGMENT_NAME_BYTES) {
        name[0] = '\0';
        return SHMQ_EINVAL;
    }
    return 0;
}

/* ---- create, open, unlink -------------------------------------------------------------------- */

/* Returns 0 or an errno. */
static int reserve(int fd, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes;) {
        uint64_t piece = bytes - at < RESERVE_PIECE_BYTES ? bytes - at : RESERVE_PIECE_BYTES;
        int result = posix_fallocate(fd, (off_t)at, (off_t)piece);

        if (result == EINTR)
            continue;
        if (result != 0)
            return result;
        at += piece;
    }
    return 0;
}

static int explain_full(int fd, const char *name, uint64_t bytes, struct error_buffer *why)
{
    struct statvfs shm = {0};
    double wanted = (double)bytes / MIB;
    double unit, total, available;

    /* What this very try has taken is free again for the next one: not part of the sum. */
    if (ftruncate(fd, 0) != 0 || fstatvfs(fd, &shm) != 0 || shm.f_blocks == 0)
        return error_set(why, SHMQ_ENOSPC,
                         "shared memory: %.1f MiB wanted for %s, and /dev/shm is full; enlarge it, "
                         "delete topics, or use smaller rings",
                         wanted, name);
    unit = (double)shm.f_frsize / MIB;
    total = (double)shm.f_blocks * unit;
    available = (double)shm.f_bavail * unit;
    return error_set(why, SHMQ_ENOSPC,
                     "shared memory: %.1f MiB wanted for %s, %.1f MiB free in /dev/shm; enlarge it "
                     "(mount -o remount,size=%.0fM /dev/shm), delete topics, or use smaller rings",
                     wanted, name, available, 2 * (total + wanted - available) + 1);
}

int segment_create(const char *name, uint64_t bytes, int *ret_fd, struct error_buffer *why)
{
    int result = 0;
    int fd;

    if (bytes == 0 || bytes > SEGMENT_MAX_BYTES)
        return error_set(why, SHMQ_EINVAL, "shared memory %s: %" PRIu64 " bytes; give 1 to 2^40",
                         name, bytes);
    fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(why, errno, "shared memory %s: cannot be created", name);
    (void)FAULT("segment.create.opened");
    /* A umask may have taken bits away from 0600. */
    if (fchmod(fd, 0600) != 0)
        result = errno;
    if (result == 0)
        result = FAULT("segment.create.nospace") ? ENOSPC : reserve(fd, bytes);
    if (result == 0) {
        *ret_fd = fd;
        return 0;
    }
    if (result == ENOSPC || result == EDQUOT)
        result = explain_full(fd, name, bytes, why);
    else
        result = error_set_errno(why, result, "shared memory %s: %.1f MiB cannot be reserved", name,
                                 (double)bytes / MIB);
    (void)close(fd);
    (void)shm_unlink(name);
    return result;
}

/* /dev/shm is everybody's: a stranger may have made an object of this name before us. */
static int check_owner(int fd, const char *name, bool writable, struct error_buffer *why)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return error_set_errno(why, errno, "shared memory %s: fstat", name);
    if (!S_ISREG(status.st_mode) || (status.st_mode & 077) != 0 ||
        (status.st_uid != geteuid() && (writable || geteuid() != 0)))
        return error_set(why, SHMQ_EPERM,
                         "shared memory %s: belongs to user %u, mode %03o, not to user %u alone; "
                         "remove it from /dev/shm if it is not shmq's",
                         name, (unsigned)status.st_uid, (unsigned)status.st_mode & 0777,
                         (unsigned)geteuid());
    return 0;
}

int segment_open(const char *name, bool writable, int *ret_fd, struct error_buffer *why)
{
    int fd = shm_open(name, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
    int result;

    if (fd < 0 && errno == ENOENT)
        return error_set(why, SHMQ_ENOTOPIC, "shared memory %s: does not exist", name);
    if (fd < 0)
        return error_set_errno(why, errno, "shared memory %s: cannot be opened", name);
    result = check_owner(fd, name, writable, why);
    if (result < 0) {
        (void)close(fd);
        return result;
    }
    *ret_fd = fd;
    return 0;
}

int segment_unlink(const char *name)
{
    if (shm_unlink(name) == 0 || errno == ENOENT)
        return 0;
    return error_from_errno(errno);
}

/* ---- map ------------------------------------------------------------------------------------- */

static int object_bytes(int fd, uint64_t *ret_bytes, struct error_buffer *why)
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return error_set_errno(why, errno, "segment: fstat");
    if (!S_ISREG(status.st_mode) || status.st_size < 0)
        return error_set(why, SHMQ_ECORRUPT, "segment: the descriptor is not of shared memory");
    *ret_bytes = (uint64_t)status.st_size;
    return 0;
}

/* Not in a forked child, which would be a second writer behind one slot, nor in a core dump. */
static int advise(void *address, size_t bytes)
{
    return madvise(address, bytes, MADV_DONTFORK) != 0 ||
                   madvise(address, bytes, MADV_DONTDUMP) != 0
               ? errno
               : 0;
}

static int protection(bool writable)
{
    return writable ? PROT_READ | PROT_WRITE : PROT_READ;
}

int segment_map(int fd, bool writable, size_t min_bytes, struct segment *ret_segment,
                struct error_buffer *why)
{
    uint64_t bytes = 0;
    void *address;
    int result = object_bytes(fd, &bytes, why);

    if (result < 0)
        return result;
    if (bytes == 0 || bytes < min_bytes)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: truncated to %" PRIu64 " bytes of at least %zu", bytes,
                         min_bytes);
    if (bytes > SEGMENT_MAX_BYTES)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: %" PRIu64 " bytes are more than any can have", bytes);
    address = mmap(NULL, bytes, protection(writable), MAP_SHARED, fd, 0);
    if (address == MAP_FAILED)
        return error_set_errno(why, errno, "segment: mapping %" PRIu64 " bytes", bytes);
    result = advise(address, bytes);
    if (result != 0) {
        (void)munmap(address, bytes);
        return error_set_errno(why, result, "segment: madvise");
    }
    *ret_segment = (struct segment){.address = address, .bytes = bytes};
    return 0;
}

int segment_map_twice(int fd, bool writable, uint64_t capacity, struct segment *ret_segment,
                      struct error_buffer *why)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t bytes = 0;
    unsigned char *first;
    int result = object_bytes(fd, &bytes, why);

    if (result < 0)
        return result;
    if (capacity < page || capacity > SEGMENT_MAX_BYTES || (capacity & (capacity - 1)) != 0)
        return error_set(why, SHMQ_EINVAL,
                         "ring: capacity of %" PRIu64 " bytes; give a power of two of whole pages",
                         capacity);
    if (bytes != capacity)
        return error_set(why, SHMQ_ECORRUPT,
                         "ring: the object has %" PRIu64 " bytes, its capacity is %" PRIu64, bytes,
                         capacity);
    /* Both places are reserved at once, so that nothing else can get in between. */
    first = mmap(NULL, 2 * capacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (first == MAP_FAILED)
        return error_set_errno(why, errno, "ring: address space for two times %" PRIu64 " bytes",
                               capacity);
    for (int i = 0; i < 2 && result == 0; i++) {
        if (mmap(first + (uint64_t)i * capacity, capacity, protection(writable),
                 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            result = errno;
    }
    if (result == 0)
        result = advise(first, 2 * capacity);
    if (result != 0) {
        (void)munmap(first, 2 * capacity);
        return error_set_errno(why, result, "ring: mapping %" PRIu64 " bytes twice", capacity);
    }
    *ret_segment = (struct segment){.address = first, .bytes = 2 * capacity};
    return 0;
}

void segment_unmap(struct segment *segment)
{
    if (segment->address)
        (void)munmap(segment->address, segment->bytes);
    *segment = (struct segment){0};
}

/* ---- headers --------------------------------------------------------------------------------- */

void segment_init_header(struct segment_header *header, const struct segment_identity *identity,
                         uint64_t bytes)
{
    header->magic = LAYOUT_MAGIC;
    header->version = LAYOUT_VERSION;
    header->kind = (uint32_t)identity->kind;
    header->fingerprint = LAYOUT_FINGERPRINT;
    header->bytes = bytes;
    header->topic = identity->topic;
    header->partition = identity->partition;
    header->salt = identity->salt;
    header->group = identity->group;
    /* ORDER segment_init -> segment_check: all that the creator wrote before, in the header and
     * behind it, is visible to whoever sees the word. */
    atomic_store_explicit(&header->ready, LAYOUT_MAGIC, memory_order_release);
}

static int check_origin(const struct segment_header *header, uint64_t ready,
                        struct error_buffer *why)
{
    if (header->magic == 0 && ready == 0)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: unfinished; whoever made it died on the way");
    if (header->magic != LAYOUT_MAGIC)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: begins with %016" PRIx64 ", which is not shmq's mark",
                         header->magic);
    if (header->version != LAYOUT_VERSION)
        return error_set(why, SHMQ_EVERSION,
                         "segment: has layout version %" PRIu32 ", this program knows version %u; "
                         "bring library and supervisor to the same version",
                         header->version, LAYOUT_VERSION);
    if (header->fingerprint != LAYOUT_FINGERPRINT)
        return error_set(why, SHMQ_EVERSION,
                         "segment: has layout fingerprint %016" PRIx64 ", this program %016" PRIx64
                         ", though both are version %u; use one build for library and supervisor",
                         header->fingerprint, LAYOUT_FINGERPRINT, LAYOUT_VERSION);
    if (ready != LAYOUT_MAGIC)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: unfinished; whoever made it died on the way");
    return 0;
}

static int check_identity(const struct segment_header *header,
                          const struct segment_identity *identity, struct error_buffer *why)
{
    if (header->kind != (uint32_t)identity->kind)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: is of kind 0x%02" PRIx32 ", not '%c' (0x%02x)", header->kind,
                         (int)identity->kind, (unsigned)identity->kind);
    if (identity->topic != 0 &&
        (header->topic != identity->topic || header->partition != identity->partition))
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: belongs to partition %" PRIu32 " of topic id %" PRIu64
                         ", not to %" PRIu32 " of %" PRIu64,
                         header->partition, header->topic, identity->partition, identity->topic);
    if (identity->salt != 0 && header->salt != identity->salt)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: has salt %016" PRIx64 " of another incarnation, not %016" PRIx64,
                         header->salt, identity->salt);
    if (identity->group != 0 && header->group != identity->group)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: belongs to group id %" PRIu64 ", not to %" PRIu64, header->group,
                         identity->group);
    return 0;
}

int segment_check(const struct segment *segment, const struct segment_identity *identity,
                  struct error_buffer *why)
{
    const struct segment_header *shared = segment->address;
    struct segment_header header;
    uint64_t ready;
    int result;

    if (!shared || segment->bytes < sizeof(header))
        return error_set(why, SHMQ_ECORRUPT, "segment: truncated to %zu bytes of at least %zu",
                         segment->bytes, sizeof(header));
    /* ORDER segment_init -> segment_check: acquire; what stood before the word is read after it. */
    ready = atomic_load_explicit(&shared->ready, memory_order_acquire);
    /* Checked and reported from one copy: its owner may go on writing. */
    memcpy(&header, shared, sizeof(header));
    result = check_origin(&header, ready, why);
    if (result < 0)
        return result;
    if (header.bytes != segment->bytes)
        return error_set(why, SHMQ_ECORRUPT,
                         "segment: says that it has %" PRIu64
                         " bytes and has %zu; it was truncated",
                         header.bytes, segment->bytes);
    return check_identity(&header, identity, why);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

size_t segment_bus_bytes(uint32_t client_count)
{
    return sizeof(struct bus_segment) + client_count * sizeof(struct bus_client);
}

size_t segment_producers_bytes(uint32_t slot_count)
{
    return sizeof(struct producers_segment) + slot_count * sizeof(struct producer_slot);
}

size_t segment_group_bytes(uint32_t entry_count)
{
    return sizeof(struct group_segment) + entry_count * sizeof(struct delivery_entry);
}
