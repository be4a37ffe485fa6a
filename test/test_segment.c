/* SPDX-License-Identifier: Apache-2.0 */
/* Shared-memory segments: made, mapped, checked, and refused with the exact words. */
#include "libshmq/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "libshmq/fault.h"
#include "test/support/test.h"

#define RING_BYTES UINT64_C(65536)

static const struct segment_identity WAIT_OF_7_2 = {
    .kind = SEGMENT_WAIT, .topic = 7, .partition = 2, .salt = 0xabc0, .group = 0};

/* A name that the leak check of this test knows. */
static const char *own_name(char name[SEGMENT_NAME_BYTES], enum segment_kind kind)
{
    char prefix[100];

    (void)snprintf(prefix, sizeof(prefix), "shmq.%s.0123", test_bus_name());
    REQUIRE_OK(segment_name(name, prefix, kind, 7, 2, 5));
    return name;
}

static int create_own(enum segment_kind kind, uint64_t bytes)
{
    char name[SEGMENT_NAME_BYTES];
    struct error_buffer why = {""};
    int fd = -1;

    if (segment_create(own_name(name, kind), bytes, &fd, &why) < 0)
        FAIL("%s", why.text);
    REQUIRE(fd >= 0);
    REQUIRE_OK(segment_unlink(name)); /* the descriptor is enough, and nothing is left behind */
    return fd;
}

static void check_names(const char *prefix, enum segment_kind kind, const char *expected)
{
    char name[SEGMENT_NAME_BYTES];

    CHECK_OK(segment_name(name, prefix, kind, 42, 3, 9));
    CHECK_STR_EQ(name, expected);
}

TEST(names_tell_bus_topic_partition_and_kind)
{
    char prefix[260], name[SEGMENT_NAME_BYTES];

    check_names("shmq.default.1f", SEGMENT_BUS, "/shmq.default.1f.B");
    check_names("shmq.default.1f", SEGMENT_STATE, "/shmq.default.1f.t42p3.S");
    check_names("shmq.default.1f", SEGMENT_PRODUCERS, "/shmq.default.1f.t42p3.P");
    check_names("shmq.default.1f", SEGMENT_WAIT, "/shmq.default.1f.t42p3.W");
    check_names("shmq.default.1f", SEGMENT_DATA, "/shmq.default.1f.t42p3.D");
    check_names("shmq.default.1f", SEGMENT_GROUP, "/shmq.default.1f.t42p3.g9");
    memset(prefix, 'x', sizeof(prefix));
    prefix[252] = '\0'; /* and "/", ".B" makes 255 */
    CHECK_OK(segment_name(name, prefix, SEGMENT_BUS, 0, 0, 0));
    prefix[252] = 'x';
    prefix[253] = '\0';
    CHECK_ERR(segment_name(name, prefix, SEGMENT_BUS, 0, 0, 0), SHMQ_EINVAL);
    CHECK_STR_EQ(name, "");
}

TEST(created_segment_is_private_reserved_and_zero)
{
    char name[SEGMENT_NAME_BYTES];
    struct error_buffer why = {""};
    struct segment segment = {0};
    const unsigned char *bytes;
    struct stat status;
    int fd, other = -1;

    (void)umask(0777);
    REQUIRE_OK(segment_create(own_name(name, SEGMENT_DATA), 3 * RING_BYTES, &fd, &why));
    (void)umask(022);
    REQUIRE(fstat(fd, &status) == 0);
    CHECK_EQ(status.st_size, 3 * RING_BYTES);
    CHECK_EQ(status.st_mode & 07777, 0600);
    CHECK(status.st_blocks * 512 >= (blkcnt_t)(3 * RING_BYTES)); /* pages are there, not promised */
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK_ERR(segment_create(name, RING_BYTES, &other, &why), SHMQ_EEXIST);
    CHECK_CONTAINS(why.text, name);
    CHECK_INT_EQ(other, -1);

    REQUIRE_OK(segment_map(fd, true, 1, &segment, &why));
    CHECK_EQ(segment.bytes, 3 * RING_BYTES);
    bytes = segment.address;
    for (size_t i = 0; i < segment.bytes; i += 8)
        if (*(const uint64_t *)(const void *)(bytes + i) != 0 && !FAIL("byte %zu is not zero", i))
            break;
    segment_unmap(&segment);
    CHECK(segment.address == NULL && segment.bytes == 0);
    segment_unmap(&segment);

    CHECK_OK(segment_open(name, false, &other, &why));
    CHECK(fcntl(other, F_GETFD) & FD_CLOEXEC);
    CHECK_ERR(segment_map(other, true, 1, &segment, &why), SHMQ_EPERM);
    CHECK_OK(segment_map(other, false, 1, &segment, &why));
    segment_unmap(&segment);
    (void)close(other);
    (void)close(fd);
    CHECK_OK(segment_unlink(name));
    CHECK_OK(segment_unlink(name));
    CHECK_ERR(segment_open(name, true, &fd, &why), SHMQ_ENOTOPIC);
    CHECK_CONTAINS(why.text, "does not exist");
    CHECK_ERR(segment_create(name, 0, &fd, &why), SHMQ_EINVAL);
    CHECK_ERR(segment_create(name, UINT64_MAX, &fd, &why), SHMQ_EINVAL);
}

TEST(segments_of_others_are_not_opened)
{
    char name[SEGMENT_NAME_BYTES];
    struct error_buffer why = {""};
    int fd, other = -1;

    REQUIRE_OK(segment_create(own_name(name, SEGMENT_STATE), RING_BYTES, &fd, &why));
    REQUIRE(fchmod(fd, 0640) == 0);
    CHECK_ERR(segment_open(name, false, &other, &why), SHMQ_EPERM);
    CHECK_CONTAINS(why.text, "mode 640");
    REQUIRE(fchmod(fd, 0600) == 0);
    if (geteuid() == 0) { /* root opens a stranger's to look at it, never to trust it */
        REQUIRE(fchown(fd, 12345, (gid_t)-1) == 0);
        CHECK_ERR(segment_open(name, true, &other, &why), SHMQ_EPERM);
        CHECK_CONTAINS(why.text, "belongs to user 12345");
        CHECK_OK(segment_open(name, false, &other, &why));
        (void)close(other);
    }
    (void)close(fd);
    CHECK_OK(segment_unlink(name));
}

/* A /dev/shm of its own for this process: 1 MiB, as in a container, or a skip. */
static void mount_small_shm(void)
{
    struct statvfs shm;

    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1M,mode=1777") != 0)
        SKIP("mounting a small /dev/shm needs root");
    REQUIRE(statvfs("/dev/shm", &shm) == 0);
    REQUIRE(shm.f_blocks * shm.f_frsize == 1 << 20);
}

TEST(full_shared_memory_is_said_at_creation_and_leaves_nothing)
{
    char name[SEGMENT_NAME_BYTES], text[512];
    struct error_buffer why = {""};
    struct segment segment = {0};
    struct statvfs shm;
    int fd = -1, first;

    mount_small_shm();
    (void)own_name(name, SEGMENT_DATA);
    first = create_own(SEGMENT_STATE, 11 * RING_BYTES); /* 704 of 1024 KiB */
    CHECK_ERR(segment_create(name, 16 * RING_BYTES, &fd, &why), SHMQ_ENOSPC);
    CHECK_INT_EQ(fd, -1);
    (void)snprintf(
        text, sizeof(text),
        "shared memory: 1.0 MiB wanted for %s, 0.3 MiB free in /dev/shm; enlarge it (mount "
        "-o remount,size=4M /dev/shm), delete topics, or use smaller rings",
        name);
    CHECK_STR_EQ(why.text, text);
    CHECK_ERR(segment_open(name, false, &fd, &why), SHMQ_ENOTOPIC);
    REQUIRE(statvfs("/dev/shm", &shm) == 0);
    CHECK_EQ(shm.f_bfree * shm.f_frsize, 5 * RING_BYTES);
    /* What is left can be had, to the last page, and touched. */
    REQUIRE_OK(segment_create(name, 5 * RING_BYTES, &fd, &why));
    CHECK_OK(segment_unlink(name));
    REQUIRE_OK(segment_map(fd, true, 1, &segment, &why));
    memset(segment.address, 1, segment.bytes);
    segment_unmap(&segment);
    (void)close(fd);
    (void)close(first);
}

TEST(no_space_can_be_injected)
{
    char name[SEGMENT_NAME_BYTES];
    struct error_buffer why = {""};
    int fd = -1;

    REQUIRE_OK(fault_arm("segment.create.nospace", "error", NULL));
    CHECK_ERR(segment_create(own_name(name, SEGMENT_DATA), RING_BYTES, &fd, &why), SHMQ_ENOSPC);
    CHECK_CONTAINS(why.text, "0.1 MiB wanted");
    fault_disarm();
    CHECK_ERR(segment_open(name, false, &fd, &why), SHMQ_ENOTOPIC);
}

/* Stands in for the C library's: as a kernel whose call is always interrupted when it takes long,
 * and every third time otherwise. Newer kernels finish it in spite of signals. */
static bool interrupting;
static unsigned interruptions, reservations;

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
int posix_fallocate(int fd, off_t offset, off_t length)
{
    if (interrupting && (length > 4 << 20 || ++reservations % 3 == 0)) {
        interruptions++;
        return interruptions < 10000 ? EINTR : ENODEV;
    }
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

/* tmpfs gives all back that one call has reserved when a signal comes: a program with a profiling
 * timer must get its ring nevertheless. */
TEST(reserving_survives_a_storm_of_signals)
{
    struct stat status;
    int fd;

    interrupting = true;
    fd = create_own(SEGMENT_DATA, (UINT64_C(24) << 20) + 4096);
    interrupting = false;
    REQUIRE(fstat(fd, &status) == 0);
    CHECK_EQ(status.st_size, (24 << 20) + 4096);
    CHECK(status.st_blocks * 512 >= (24 << 20) + 4096);
    CHECK(interruptions > 0);
    (void)close(fd);
}

TEST(second_mapping_is_the_same_memory)
{
    int fd = create_own(SEGMENT_DATA, RING_BYTES);
    struct segment writable = {0}, readonly = {0};
    struct error_buffer why = {""};
    unsigned char *ring;
    const unsigned char *view;

    REQUIRE_OK(segment_map_twice(fd, true, RING_BYTES, &writable, &why));
    REQUIRE_OK(segment_map_twice(fd, false, RING_BYTES, &readonly, &why));
    CHECK_EQ(writable.bytes, 2 * RING_BYTES);
    ring = writable.address;
    view = readonly.address;
    CHECK(ring != view);
    /* One record across the end: written in one piece, found in both places. */
    for (uint64_t i = 0; i < 128; i++)
        ring[RING_BYTES - 64 + i] = (unsigned char)(i + 1);
    for (uint64_t i = 0; i < 64; i++) {
        CHECK_EQ(ring[i], i + 65);
        CHECK_EQ(view[i], i + 65);
        CHECK_EQ(view[RING_BYTES + i], i + 65);
        CHECK_EQ(view[2 * RING_BYTES - 64 + i], i + 1);
    }
    ring[10] = 200;
    CHECK_EQ(view[RING_BYTES + 10], 200);
    segment_unmap(&writable);
    segment_unmap(&readonly);
    CHECK_ERR(segment_map_twice(fd, true, 2 * RING_BYTES, &writable, &why), SHMQ_ECORRUPT);
    CHECK_CONTAINS(why.text, "has 65536 bytes, its capacity is 131072");
    CHECK_ERR(segment_map_twice(fd, true, RING_BYTES - 4096, &writable, &why), SHMQ_EINVAL);
    CHECK_ERR(segment_map_twice(fd, true, 0, &writable, &why), SHMQ_EINVAL);
    CHECK(writable.address == NULL);
    (void)close(fd);
}

TEST(an_object_too_short_or_no_memory_at_all_is_not_mapped)
{
    int fd = create_own(SEGMENT_WAIT, sizeof(struct wait_segment));
    struct segment segment = {0};
    struct error_buffer why = {""};
    int pipes[2];

    CHECK_ERR(segment_map(fd, true, 385, &segment, &why), SHMQ_ECORRUPT);
    CHECK_STR_EQ(why.text, "segment: truncated to 384 bytes of at least 385");
    REQUIRE(ftruncate(fd, 0) == 0);
    CHECK_ERR(segment_map(fd, true, 0, &segment, &why), SHMQ_ECORRUPT);
    REQUIRE(ftruncate(fd, (off_t)(SEGMENT_MAX_BYTES + 1)) == 0);
    CHECK_ERR(segment_map(fd, true, 0, &segment, &why), SHMQ_ECORRUPT);
    CHECK_CONTAINS(why.text, "more than any can have");
    (void)close(fd);
    REQUIRE(pipe(pipes) == 0);
    CHECK_ERR(segment_map(pipes[0], false, 0, &segment, &why), SHMQ_ECORRUPT);
    CHECK_CONTAINS(why.text, "not of shared memory");
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    CHECK_ERR(segment_map(-1, false, 0, &segment, &why), SHMQ_ESYS);
    CHECK(segment.address == NULL);
}

static void touch(void *argument)
{
    const struct rlimit no_core = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)signal(SIGSEGV, SIG_DFL); /* sanitizers have a handler of their own */
    /* volatile: the load is the test, its value is not. */
    (void)*(volatile unsigned char *)argument;
}

/* An emulator takes advice for a hint, even such as no kernel knows, and does not follow it. */
static void skip_where_advice_is_not_followed(const struct segment *segment)
{
    if (madvise(segment->address, segment->bytes, 12345) == 0)
        SKIP("madvise is not carried out here");
}

/* A forked child would be a second writer behind one slot: it has no ring at all. */
TEST(forked_child_does_not_inherit_mappings)
{
    int fd = create_own(SEGMENT_DATA, RING_BYTES);
    struct segment once = {0}, twice = {0};
    unsigned char *second;

    REQUIRE_OK(segment_map(fd, true, 1, &once, NULL));
    REQUIRE_OK(segment_map_twice(fd, true, RING_BYTES, &twice, NULL));
    skip_where_advice_is_not_followed(&once);
    second = (unsigned char *)twice.address + RING_BYTES;
    touch(once.address);
    CHECK_INT_EQ(test_wait_exit(test_spawn(touch, once.address), 5000), -SIGSEGV);
    CHECK_INT_EQ(test_wait_exit(test_spawn(touch, twice.address), 5000), -SIGSEGV);
    CHECK_INT_EQ(test_wait_exit(test_spawn(touch, second), 5000), -SIGSEGV);
    segment_unmap(&once);
    segment_unmap(&twice);
    (void)close(fd);
}

/* Flags of the mapping that begins at `address`, as /proc says them. */
static void read_flags(const void *address, char *ret_flags, size_t bytes)
{
    char line[512], begin[32];
    FILE *file = fopen("/proc/self/smaps", "r");
    bool inside = false;

    ret_flags[0] = '\0';
    REQUIRE(file != NULL);
    (void)snprintf(begin, sizeof(begin), "%" PRIxPTR "-", (uintptr_t)address);
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, begin, strlen(begin)) == 0)
            inside = true;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
            (void)snprintf(ret_flags, bytes, "%s", line + 8);
            break;
        }
    }
    (void)fclose(file);
}

TEST(mappings_stay_out_of_core_dumps)
{
    int fd = create_own(SEGMENT_DATA, RING_BYTES);
    struct segment twice = {0};
    char flags[512];

    REQUIRE_OK(segment_map_twice(fd, true, RING_BYTES, &twice, NULL));
    skip_where_advice_is_not_followed(&twice);
    read_flags(twice.address, flags, sizeof(flags));
    if (flags[0] == '\0')
        SKIP("no VmFlags in /proc/self/smaps");
    CHECK_CONTAINS(flags, " dd ");
    CHECK_CONTAINS(flags, " dc ");
    segment_unmap(&twice);
    (void)close(fd);
}

/* ---- headers --------------------------------------------------------------------------------- */

struct subject {
    struct segment segment;
    struct segment_header *header;
    struct error_buffer why;
    int fd;
};

static void subject_init(struct subject *subject)
{
    *subject = (struct subject){.fd = create_own(SEGMENT_WAIT, sizeof(struct wait_segment))};
    REQUIRE_OK(segment_map(subject->fd, true, sizeof(struct wait_segment), &subject->segment,
                           &subject->why));
    subject->header = subject->segment.address;
    segment_init_header(subject->header, &WAIT_OF_7_2, subject->segment.bytes);
    REQUIRE_OK(segment_check(&subject->segment, &WAIT_OF_7_2, &subject->why));
}

static void subject_deinit(struct subject *subject)
{
    segment_unmap(&subject->segment);
    (void)close(subject->fd);
}

static void refuses(struct subject *subject, int code, const char *text)
{
    subject->why.text[0] = '\0';
    CHECK_ERR(segment_check(&subject->segment, &WAIT_OF_7_2, &subject->why), code);
    CHECK_STR_EQ(subject->why.text, text);
    segment_init_header(subject->header, &WAIT_OF_7_2, subject->segment.bytes);
    REQUIRE_OK(segment_check(&subject->segment, &WAIT_OF_7_2, &subject->why));
}

TEST(foreign_layout_is_refused_by_both_names)
{
    struct subject subject;
    char text[300];

    subject_init(&subject);
    subject.header->version = 99;
    refuses(&subject, SHMQ_EVERSION,
            "segment: has layout version 99, this program knows version 1; bring library and "
            "supervisor to the same version");
    subject.header->version = 2;
    subject.header->ready = 0; /* a later version may keep it elsewhere */
    refuses(&subject, SHMQ_EVERSION,
            "segment: has layout version 2, this program knows version 1; bring library and "
            "supervisor to the same version");
    subject.header->fingerprint = 0x1234;
    (void)snprintf(text, sizeof(text),
                   "segment: has layout fingerprint 0000000000001234, this program %016" PRIx64
                   ", though both are version 1; use one build for library and supervisor",
                   LAYOUT_FINGERPRINT);
    refuses(&subject, SHMQ_EVERSION, text);
    subject_deinit(&subject);
}

TEST(damaged_header_is_refused)
{
    struct subject subject;

    subject_init(&subject);
    subject.header->magic = 0x1122334455667788;
    refuses(&subject, SHMQ_ECORRUPT,
            "segment: begins with 1122334455667788, which is not shmq's mark");
    subject.header->ready = 0;
    refuses(&subject, SHMQ_ECORRUPT, "segment: unfinished; whoever made it died on the way");
    memset(subject.segment.address, 0, subject.segment.bytes);
    refuses(&subject, SHMQ_ECORRUPT, "segment: unfinished; whoever made it died on the way");
    subject.header->bytes = 4096;
    refuses(&subject, SHMQ_ECORRUPT,
            "segment: says that it has 4096 bytes and has 384; it was truncated");
    subject_deinit(&subject);
}

TEST(truncated_segment_is_refused)
{
    const struct segment none = {0};
    struct subject subject;
    struct segment cut = {0};

    subject_init(&subject);
    REQUIRE(ftruncate(subject.fd, 256) == 0);
    REQUIRE_OK(segment_map(subject.fd, false, 1, &cut, NULL));
    CHECK_ERR(segment_check(&cut, &WAIT_OF_7_2, &subject.why), SHMQ_ECORRUPT);
    CHECK_STR_EQ(subject.why.text,
                 "segment: says that it has 384 bytes and has 256; it was truncated");
    segment_unmap(&cut);
    REQUIRE(ftruncate(subject.fd, 100) == 0);
    REQUIRE_OK(segment_map(subject.fd, false, 1, &cut, NULL));
    CHECK_ERR(segment_check(&cut, &WAIT_OF_7_2, &subject.why), SHMQ_ECORRUPT);
    CHECK_STR_EQ(subject.why.text, "segment: truncated to 100 bytes of at least 128");
    segment_unmap(&cut);
    CHECK_ERR(segment_check(&none, &WAIT_OF_7_2, NULL), SHMQ_ECORRUPT);
    subject_deinit(&subject);
}

TEST(segment_of_another_partition_is_refused)
{
    struct subject subject;

    subject_init(&subject);
    subject.header->kind = SEGMENT_STATE;
    refuses(&subject, SHMQ_ECORRUPT, "segment: is of kind 0x53, not 'W' (0x57)");
    subject.header->topic = 8;
    refuses(&subject, SHMQ_ECORRUPT,
            "segment: belongs to partition 2 of topic id 8, not to 2 of 7");
    subject.header->partition = 0;
    refuses(&subject, SHMQ_ECORRUPT,
            "segment: belongs to partition 0 of topic id 7, not to 2 of 7");
    subject.header->salt = 0xdef0;
    refuses(&subject, SHMQ_ECORRUPT,
            "segment: has salt 000000000000def0 of another incarnation, not 000000000000abc0");
    subject.header->group = 5; /* not compared: the identity says 0 */
    CHECK_OK(segment_check(&subject.segment, &WAIT_OF_7_2, NULL));
    subject_deinit(&subject);
}

TEST(group_and_partition_zero_are_compared)
{
    const struct segment_identity group = {SEGMENT_GROUP, 7, 0, 0, 31};
    struct segment_identity other = group;
    struct error_buffer why = {""};
    struct subject subject;

    subject_init(&subject);
    segment_init_header(subject.header, &group, subject.segment.bytes);
    CHECK_OK(segment_check(&subject.segment, &group, &why));
    other.group = 32;
    CHECK_ERR(segment_check(&subject.segment, &other, &why), SHMQ_ECORRUPT);
    CHECK_STR_EQ(why.text, "segment: belongs to group id 31, not to 32");
    subject.header->partition = 1;
    CHECK_ERR(segment_check(&subject.segment, &group, &why), SHMQ_ECORRUPT);
    CHECK_STR_EQ(why.text, "segment: belongs to partition 1 of topic id 7, not to 0 of 7");
    subject_deinit(&subject);
}

TEST(sizes_have_room_for_all_entries)
{
    CHECK_EQ(segment_bus_bytes(0), sizeof(struct bus_segment));
    CHECK_EQ(segment_bus_bytes(4096),
             sizeof(struct bus_segment) + 4096 * sizeof(struct bus_client));
    CHECK_EQ(segment_producers_bytes(64), offsetof(struct producers_segment, slots[64]));
    CHECK_EQ(segment_group_bytes(0), sizeof(struct group_segment));
    CHECK_EQ(segment_group_bytes(16384), offsetof(struct group_segment, entries[16384]));
}

TEST_MAIN("segment", T(names_tell_bus_topic_partition_and_kind),
          T(created_segment_is_private_reserved_and_zero), T(segments_of_others_are_not_opened),
          T(full_shared_memory_is_said_at_creation_and_leaves_nothing), T(no_space_can_be_injected),
          T(reserving_survives_a_storm_of_signals), T(second_mapping_is_the_same_memory),
          T(an_object_too_short_or_no_memory_at_all_is_not_mapped),
          T(forked_child_does_not_inherit_mappings), T(mappings_stay_out_of_core_dumps),
          T(foreign_layout_is_refused_by_both_names), T(damaged_header_is_refused),
          T(truncated_segment_is_refused), T(segment_of_another_partition_is_refused),
          T(group_and_partition_zero_are_compared), T(sizes_have_room_for_all_entries));
