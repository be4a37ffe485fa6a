/* Who may start a supervisor, and beside whom: one for a bus, several in a process, none on a foreign layout. */
#include "daemon/shmqd.h"
#include "libshmq/paths.h"
#include "test/support/test.h"
#include "test/support/wire.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static int try_start(bool persistent, shmq_supervisor **ret_supervisor, char error[512])
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;

    options.persistent = persistent;
    error[0] = '\0';
    return shmq_supervisor_start(&options, ret_supervisor, error, 512);
}

static shmq_supervisor *start(bool persistent)
{
    shmq_supervisor *supervisor = NULL;
    char error[512];

    if (try_start(persistent, &supervisor, error) < 0)
        FAIL("start: %s", error);
    REQUIRE(supervisor != NULL);
    return supervisor;
}

static void run_until_killed(void *context)
{
    struct test_barrier *ready = context;

    (void)start(true);
    test_barrier_wait(ready, 10000);
    pause();
}

static pid_t spawn_supervisor(void)
{
    struct test_barrier *ready = test_shared(sizeof(*ready));
    pid_t pid;

    test_barrier_init(ready, 2);
    pid = test_spawn(run_until_killed, ready);
    REQUIRE(test_barrier_wait(ready, 10000));
    return pid;
}

static void resume(struct wire *wire)
{
    struct wire old = *wire;

    close(old.fd);
    REQUIRE(wire_connect(wire) == 0);
    wire->bus_fd = old.bus_fd;
    memcpy(wire->boot_id, old.boot_id, sizeof(old.boot_id));
    REQUIRE_OK(wire_hello(wire, old.client));
    CHECK_EQ(wire->client, old.client);
}

static void segment_prefix(char prefix[PATHS_PREFIX_BYTES])
{
    struct error_buffer why;

    REQUIRE_OK(paths_segment_prefix(geteuid(), getenv("SHMQ_RUNTIME_DIR"), getenv("SHMQ_BUS"),
                                    prefix, &why));
}

static void name_of(char name[SEGMENT_NAME_BYTES], enum segment_kind kind, uint64_t topic)
{
    char prefix[PATHS_PREFIX_BYTES];

    segment_prefix(prefix);
    segment_name(name, prefix, kind, topic, 0, 0);
}

/* ---- who may not start ----------------------------------------------------------------------- */

TEST(a_second_supervisor_is_refused_by_name)
{
    shmq_supervisor *first, *second;
    char error[512], pid[32];

    snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
    for (int persistent = 0; persistent < 2; persistent++) {
        first = start(persistent != 0);
        CHECK_ERR(try_start(persistent != 0, &second, error), SHMQ_EBUSY);
        CHECK_CONTAINS(error, pid);
        CHECK_CONTAINS(error, "stop that one");
        shmq_supervisor_stop(first);
    }
    /* And the first one was not hurt. */
    first = start(true);
    CHECK_ERR(try_start(true, &second, error), SHMQ_EBUSY);
    struct wire wire;

    CHECK(wire_open(&wire));
    wire_close(&wire);
    shmq_supervisor_stop(first);
    (void)test_remove_leftovers();
}

TEST(several_supervisors_share_a_process)
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *first = start(false), *second = NULL;
    char bus[64], error[512];

    snprintf(bus, sizeof(bus), "%s-b", test_bus_name());
    options.bus = bus;
    CHECK_OK(shmq_supervisor_start(&options, &second, error, sizeof(error)));
    shmq_supervisor_stop(first);
    first = start(false);
    shmq_supervisor_stop(second);
    struct wire wire;

    CHECK(wire_open(&wire));
    wire_close(&wire);
    shmq_supervisor_stop(first);
}

struct family {
    struct test_barrier ready;
    _Atomic pid_t child;
    _Atomic bool forked; /* the child is past its fork handlers */
};

static void run_with_a_child(void *context)
{
    struct family *family = context;
    pid_t child;

    (void)start(true);
    child = fork();
    if (child == 0) {
        family->forked = true;
        for (;;)
            pause();
    }
    while (!family->forked)
        test_sleep_ms(1);
    family->child = child;
    test_barrier_wait(&family->ready, 10000);
    pause();
}

/* The child has copies of all descriptors of its parent: locks, sockets. They must not speak for the dead. */
TEST(a_forked_child_does_not_hold_the_bus)
{
    struct family *family = test_shared(sizeof(*family));
    struct wire wire;
    pid_t pid;

    test_barrier_init(&family->ready, 2);
    pid = test_spawn(run_with_a_child, family);
    REQUIRE(test_barrier_wait(&family->ready, 10000));
    REQUIRE(wire_open(&wire));
    test_kill(pid, SIGKILL);
    CHECK_INT_EQ(kill(family->child, 0), 0); /* it lives */
    shmq_supervisor *supervisor = start(true);

    resume(&wire);
    wire_close(&wire);
    kill(family->child, SIGKILL);
    shmq_supervisor_stop(supervisor);
    (void)test_remove_leftovers();
}

static void lock_byte(int fd, uint64_t byte)
{
    struct flock lock = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};

    REQUIRE(fcntl(fd, F_OFD_SETLK, &lock) == 0);
}

/* Clients can lock all bytes of B, the supervisor's and those of the dead. */
TEST(a_clients_locks_do_not_keep_a_supervisor_from_starting)
{
    struct wire wire;
    char error[512];
    shmq_supervisor *second;
    pid_t pid = spawn_supervisor();

    REQUIRE(wire_open(&wire));
    test_kill(pid, SIGKILL);
    lock_byte(wire.bus_fd, CLIENT_SHMQD);
    shmq_supervisor *supervisor = start(true);

    resume(&wire);
    /* And it is the only one still: by the state directory, and by its socket. */
    CHECK_ERR(try_start(true, &second, error), SHMQ_EBUSY);
    CHECK_ERR(try_start(false, &second, error), SHMQ_EBUSY);
    CHECK_CONTAINS(error, "supervises it already"); /* before it touched anything */
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    (void)test_remove_leftovers();
}

TEST(options_of_a_later_version)
{
    struct {
        struct shmq_supervisor_options known;
        uint64_t later[2];
    } options = {.known = SHMQ_SUPERVISOR_OPTIONS_INIT};
    struct rlimit before, after;
    shmq_supervisor *supervisor = NULL;
    char error[512];

    options.known.size = sizeof(options);
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    before.rlim_cur = before.rlim_max / 2;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK_OK(shmq_supervisor_start(&options.known, &supervisor, error, sizeof(error)));
    REQUIRE(getrlimit(RLIMIT_NOFILE, &after) == 0);
    CHECK_EQ(after.rlim_cur, before.rlim_cur); /* the program's own affair */
    shmq_supervisor_stop(supervisor);
    options.later[1] = 1;
    CHECK_ERR(shmq_supervisor_start(&options.known, &supervisor, error, sizeof(error)),
              SHMQ_EINVAL);
}

TEST(a_bus_of_another_layout_is_refused)
{
    struct bus_segment *bus;
    shmq_supervisor *supervisor;
    char name[SEGMENT_NAME_BYTES], error[512], ours[16];
    pid_t pid = spawn_supervisor();
    int fd;

    name_of(name, SEGMENT_BUS, 0);
    test_kill(pid, SIGKILL);
    fd = shm_open(name, O_RDWR, 0);
    bus = mmap(NULL, sizeof(*bus), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    REQUIRE(bus != MAP_FAILED);
    bus->header.version = 77;
    CHECK_ERR(try_start(true, &supervisor, error), SHMQ_EVERSION);
    CHECK_CONTAINS(error, "77");
    snprintf(ours, sizeof(ours), "%u", LAYOUT_VERSION);
    CHECK_CONTAINS(error, ours);
    CHECK_EQ(bus->header.version, 77); /* untouched */
    munmap(bus, sizeof(*bus));
    CHECK(test_remove_leftovers() > 0);
}

TEST_MAIN("supervisor_start", T(a_second_supervisor_is_refused_by_name),
          T(several_supervisors_share_a_process), T(a_forked_child_does_not_hold_the_bus),
          T(a_clients_locks_do_not_keep_a_supervisor_from_starting), T(options_of_a_later_version),
          T(a_bus_of_another_layout_is_refused))
