/* SPDX-License-Identifier: Apache-2.0 */
/* Who is dead: locks that live and die with descriptors, and what the kernel says of processes. */
#include "libshmq/liveness.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "libshmq/segment.h"
#include "test/support/test.h"

#define CLIENT UINT64_C(4711)

/* The bus of a test: made by "shmqd", with a name until the test ends. */
struct bus {
    char name[SEGMENT_NAME_BYTES];
    int fd;     /* shmqd's own description */
    int tester; /* another one: somebody who asks */
};

static int open_bus(const struct bus *bus, bool writable)
{
    int fd = -1;

    REQUIRE_OK(segment_open(bus->name, writable, &fd, NULL));
    return fd;
}

static void bus_init(struct bus *bus)
{
    char prefix[100];

    (void)snprintf(prefix, sizeof(prefix), "shmq.%s.0123", test_bus_name());
    REQUIRE_OK(segment_name(bus->name, prefix, SEGMENT_BUS, 0, 0, 0));
    REQUIRE_OK(segment_create(bus->name, 4096, &bus->fd, NULL));
    bus->tester = open_bus(bus, false);
}

static void bus_deinit(struct bus *bus)
{
    CHECK_OK(segment_unlink(bus->name));
    (void)close(bus->fd);
    (void)close(bus->tester);
}

static bool is_dead(const struct bus *bus, uint64_t client)
{
    return liveness_is_dead(bus->tester, client);
}

/* What shmqd does for a client: a description of its own with the lock on its id. */
static int locked_description(const struct bus *bus, uint64_t client)
{
    int fd = open_bus(bus, false);

    REQUIRE_OK(liveness_lock(fd, client));
    return fd;
}

/* ---- ids ------------------------------------------------------------------------------------- */

TEST(an_id_is_alive_while_its_description_is_open)
{
    struct bus bus;
    int first, second, copy;

    bus_init(&bus);
    CHECK(is_dead(&bus, CLIENT));
    CHECK(is_dead(&bus, CLIENT_NONE));
    first = locked_description(&bus, CLIENT);
    second = locked_description(&bus, CLIENT + 1);
    CHECK(!is_dead(&bus, CLIENT));
    CHECK(!is_dead(&bus, CLIENT + 1));
    CHECK(is_dead(&bus, CLIENT - 1));
    CHECK(is_dead(&bus, CLIENT + 2));
    CHECK(!liveness_is_dead(first, CLIENT + 1));
    /* The trap that callers avoid by comparing first: one's own description does not see itself. */
    CHECK(liveness_is_dead(first, CLIENT));
    copy = dup(first);
    (void)close(first);
    CHECK(!is_dead(&bus, CLIENT));
    (void)close(copy);
    CHECK(is_dead(&bus, CLIENT));
    CHECK(!is_dead(&bus, CLIENT + 1));
    (void)close(second);
    bus_deinit(&bus);
}

/* POSIX locks go when any descriptor of the file is closed; these must not. */
TEST(closing_other_descriptors_of_the_bus_loses_nothing)
{
    struct bus bus;
    int held;

    bus_init(&bus);
    held = locked_description(&bus, CLIENT);
    (void)close(open_bus(&bus, false));
    (void)close(open_bus(&bus, true));
    CHECK(!is_dead(&bus, CLIENT));
    (void)close(held);
    bus_deinit(&bus);
}

TEST(impossible_ids_and_bad_descriptors_count_as_alive)
{
    struct bus bus;

    bus_init(&bus);
    CHECK(!liveness_is_dead(-1, CLIENT));
    CHECK(!liveness_is_dead(bus.tester, UINT64_MAX));
    CHECK_ERR(liveness_lock(bus.tester, CLIENT_NONE), SHMQ_EINVAL);
    CHECK_ERR(liveness_lock(bus.tester, UINT64_MAX), SHMQ_EINVAL);
    CHECK_ERR(liveness_lock(-1, CLIENT), SHMQ_ESYS);
    CHECK_OK(liveness_lock(bus.fd, INT64_MAX - 1));
    CHECK(!is_dead(&bus, INT64_MAX - 1));
    bus_deinit(&bus);
}

TEST(one_supervisor_at_a_time)
{
    struct bus bus;
    int standby;

    bus_init(&bus);
    standby = open_bus(&bus, true);
    CHECK_OK(liveness_lock_exclusive(bus.fd, CLIENT_SHMQD));
    CHECK_OK(liveness_lock_exclusive(bus.fd, CLIENT_SHMQD)); /* one's own is no conflict */
    CHECK_ERR(liveness_lock_exclusive(standby, CLIENT_SHMQD), SHMQ_EBUSY);
    CHECK_ERR(liveness_lock(standby, CLIENT_SHMQD), SHMQ_EBUSY);
    CHECK(!is_dead(&bus, CLIENT_SHMQD));
    (void)close(bus.fd);
    CHECK(is_dead(&bus, CLIENT_SHMQD));
    CHECK_OK(liveness_lock_exclusive(standby, CLIENT_SHMQD));
    /* Exclusive needs a writable description: clients cannot pose as the supervisor. */
    CHECK_ERR(liveness_lock_exclusive(bus.tester, CLIENT_SHMQD), SHMQ_ESYS);
    bus.fd = standby;
    bus_deinit(&bus);
}

/* ---- processes ------------------------------------------------------------------------------- */

/* Meets with a helper process, twice: when it is ready, and when it may go on. */
struct meeting {
    struct test_barrier ready, go;
    struct bus bus;
    int held;
};

static struct meeting *meeting_new(void)
{
    struct meeting *meeting = test_shared(sizeof(*meeting));

    test_barrier_init(&meeting->ready, 2);
    test_barrier_init(&meeting->go, 2);
    bus_init(&meeting->bus);
    return meeting;
}

static void hold_lock(void *argument)
{
    struct meeting *meeting = argument;

    (void)locked_description(&meeting->bus, CLIENT);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    for (;;)
        pause();
}

TEST(kill_releases_and_a_stop_does_not)
{
    struct meeting *meeting = meeting_new();
    pid_t pid = test_spawn(hold_lock, meeting);

    CHECK(test_barrier_wait(&meeting->ready, 10000));
    CHECK(!is_dead(&meeting->bus, CLIENT));
    test_kill(pid, SIGSTOP);
    CHECK(test_wait_stopped(pid, 5000));
    CHECK(!is_dead(&meeting->bus, CLIENT));
    test_kill(pid, SIGKILL);
    CHECK(is_dead(&meeting->bus, CLIENT));
    bus_deinit(&meeting->bus);
}

static void *spin_for_ever(void *argument)
{
    _Atomic uint64_t *turns = argument;

    while (atomic_fetch_add_explicit(turns, 1, memory_order_relaxed) != UINT64_MAX)
        continue;
    return NULL;
}

static void hold_with_threads(void *argument)
{
    static _Atomic uint64_t turns;
    struct meeting *meeting = argument;
    pthread_t thread;

    for (int i = 0; i < 6; i++)
        CHECK(pthread_create(&thread, NULL, spin_for_ever, &turns) == 0);
    hold_lock(meeting);
}

TEST(killing_a_busy_program_of_many_threads_releases)
{
    for (int round = 0; round < 5; round++) {
        struct meeting *meeting = meeting_new();
        pid_t pid = test_spawn(hold_with_threads, meeting);

        CHECK(test_barrier_wait(&meeting->ready, 10000));
        CHECK(!is_dead(&meeting->bus, CLIENT));
        test_kill(pid, SIGKILL);
        CHECK(is_dead(&meeting->bus, CLIENT));
        bus_deinit(&meeting->bus);
    }
}

/* A child shares the description: it has to close it, or run a program, for the parent to be
 * dead. */
static void fork_and_die(void *argument)
{
    struct meeting *meeting = argument;
    int held = locked_description(&meeting->bus, CLIENT);

    if (fork() == 0) {
        CHECK(test_barrier_wait(&meeting->ready, 10000)); /* the parent may be gone by now */
        CHECK(test_barrier_wait(&meeting->go, 10000));
        (void)close(held); /* as the library's atfork handler does at once */
        CHECK(test_barrier_wait(&meeting->ready, 10000));
        CHECK(test_barrier_wait(&meeting->go, 10000));
        _exit(0);
    }
    (void)raise(SIGKILL);
}

TEST(forked_child_keeps_the_lock_until_it_closes_it)
{
    struct meeting *meeting;
    pid_t pid;

    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        SKIP("orphans cannot be followed here");
    meeting = meeting_new();
    pid = test_spawn(fork_and_die, meeting);
    CHECK_INT_EQ(test_wait_exit(pid, 5000), -SIGKILL);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    CHECK(!is_dead(&meeting->bus, CLIENT));
    CHECK(test_barrier_wait(&meeting->go, 10000));
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    CHECK(is_dead(&meeting->bus, CLIENT));
    CHECK(test_barrier_wait(&meeting->go, 10000));
    CHECK_INT_EQ(test_wait_exit(-1, 5000), 0);
    bus_deinit(&meeting->bus);
}

static void execute_another(void *argument)
{
    struct meeting *meeting = argument;

    (void)locked_description(&meeting->bus, CLIENT);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    CHECK(test_barrier_wait(&meeting->go, 10000));
    (void)execlp("sleep", "sleep", "30", (char *)NULL);
    CHECK(false);
}

static bool is_dead_now(void *argument)
{
    return is_dead(argument, CLIENT);
}

TEST(executing_a_program_releases)
{
    struct meeting *meeting = meeting_new();
    pid_t pid;

    if (!test_can_exec())
        SKIP("no program can be executed here");
    pid = test_spawn(execute_another, meeting);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    CHECK(!is_dead(&meeting->bus, CLIENT));
    CHECK(test_barrier_wait(&meeting->go, 10000));
    CHECK(test_eventually(is_dead_now, &meeting->bus, 5000));
    CHECK_INT_EQ(test_wait_exit(pid, 50), TEST_TIMED_OUT); /* it lives, as another program */
    test_kill(pid, SIGKILL);
    bus_deinit(&meeting->bus);
}

/* ---- passing descriptors --------------------------------------------------------------------- */

static void send_fd(int socket_fd, int fd)
{
    char byte = 'x', control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    struct cmsghdr *header;

    memset(control, 0, sizeof(control));
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    REQUIRE(sendmsg(socket_fd, &message, 0) == 1);
}

static int receive_fd(int socket_fd)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    struct cmsghdr *header;
    int fd = -1;

    memset(control, 0, sizeof(control));
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    REQUIRE(recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC) == 1);
    header = CMSG_FIRSTHDR(&message);
    if (header)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd; /* -1: it was not sent */
}

static int receiver_end; /* set before the fork */

static void receive_and_wait(void *argument)
{
    struct meeting *meeting = argument;

    CHECK(test_barrier_wait(&meeting->ready, 10000));
    CHECK(test_barrier_wait(&meeting->go, 10000));
    CHECK(receive_fd(receiver_end) >= 0);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    for (;;)
        pause();
}

TEST(lock_travels_with_the_descriptor)
{
    struct meeting *meeting = meeting_new();
    int sockets[2], held;
    pid_t pid;

    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
    receiver_end = sockets[1];
    pid = test_spawn(receive_and_wait, meeting);
    (void)close(sockets[1]);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    held = locked_description(&meeting->bus, CLIENT);
    send_fd(sockets[0], held);
    (void)close(held);
    CHECK(!is_dead(&meeting->bus, CLIENT)); /* in flight: nobody has a descriptor of it */
    CHECK(test_barrier_wait(&meeting->go, 10000));
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    CHECK(!is_dead(&meeting->bus, CLIENT)); /* received */
    (void)close(sockets[0]);
    CHECK(!is_dead(&meeting->bus, CLIENT)); /* the sender has gone */
    test_kill(pid, SIGKILL);
    CHECK(is_dead(&meeting->bus, CLIENT));
    bus_deinit(&meeting->bus);
}

TEST(receiver_that_dies_before_receiving_is_dead)
{
    struct meeting *meeting = meeting_new();
    int sockets[2], held;
    pid_t pid;

    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0);
    receiver_end = sockets[1];
    pid = test_spawn(receive_and_wait, meeting);
    (void)close(sockets[1]);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    held = locked_description(&meeting->bus, CLIENT);
    send_fd(sockets[0], held);
    (void)close(held);
    CHECK(!is_dead(&meeting->bus, CLIENT));
    test_kill(pid, SIGKILL);
    CHECK(is_dead(&meeting->bus, CLIENT));
    (void)close(sockets[0]);
    bus_deinit(&meeting->bus);
}

/* ---- the recovery byte ----------------------------------------------------------------------- */

TEST(recovery_byte_excludes_descriptions_of_one_process)
{
    struct bus bus;
    int other, copy;

    bus_init(&bus);
    other = open_bus(&bus, true);
    CHECK_OK(liveness_trylock_recovery(bus.fd));
    CHECK_ERR(liveness_trylock_recovery(other), SHMQ_EBUSY);
    /* One description excludes nobody from itself, be it copied or not: hence the trylock
     * inside. */
    CHECK_OK(liveness_trylock_recovery(bus.fd));
    copy = dup(bus.fd);
    CHECK_OK(liveness_trylock_recovery(copy));
    (void)close(copy);
    CHECK_ERR(liveness_trylock_recovery(other), SHMQ_EBUSY);
    liveness_unlock_recovery(bus.fd);
    CHECK_OK(liveness_trylock_recovery(other));
    CHECK_ERR(liveness_trylock_recovery(bus.fd), SHMQ_EBUSY);
    /* It is a byte of its own: ids are neither locked nor released with it. */
    CHECK(is_dead(&bus, CLIENT));
    (void)close(other);
    CHECK_OK(liveness_trylock_recovery(bus.fd));
    bus_deinit(&bus);
}

static void take_recovery(void *argument)
{
    struct meeting *meeting = argument;
    int fd = open_bus(&meeting->bus, true);

    CHECK_OK(liveness_trylock_recovery(fd));
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    for (;;)
        pause();
}

TEST(recovery_byte_excludes_processes_and_dies_with_its_owner)
{
    struct meeting *meeting = meeting_new();
    pid_t pid = test_spawn(take_recovery, meeting);

    CHECK(test_barrier_wait(&meeting->ready, 10000));
    for (int i = 0; i < 3; i++)
        CHECK_ERR(liveness_trylock_recovery(meeting->bus.fd),
                  SHMQ_EBUSY); /* at once, never waits */
    test_kill(pid, SIGKILL);
    CHECK_OK(liveness_trylock_recovery(meeting->bus.fd));
    liveness_unlock_recovery(meeting->bus.fd);
    bus_deinit(&meeting->bus);
}

#define CONTENDERS       4
#define CONTENDER_ROUNDS 500

struct contest {
    struct bus bus;
    _Atomic uint64_t inside;
    _Atomic uint64_t clashes;
    _Atomic uint64_t entered;
};

static void contend(void *argument)
{
    struct contest *contest = argument;
    int fd = open_bus(&contest->bus, true);

    for (int i = 0; i < CONTENDER_ROUNDS;) {
        if (liveness_trylock_recovery(fd) < 0) {
            (void)sched_yield(); /* its holder may need this core */
            continue;
        }
        i++;
        if (atomic_fetch_add(&contest->inside, 1) != 0)
            (void)atomic_fetch_add(&contest->clashes, 1);
        (void)atomic_fetch_add(&contest->entered, 1);
        (void)atomic_fetch_sub(&contest->inside, 1);
        liveness_unlock_recovery(fd);
    }
    (void)close(fd);
}

TEST(recovery_byte_lets_one_in_at_a_time)
{
    struct contest *contest = test_shared(sizeof(*contest));
    pid_t pids[CONTENDERS];

    bus_init(&contest->bus);
    for (int i = 0; i < CONTENDERS; i++)
        pids[i] = test_spawn(contend, contest);
    for (int i = 0; i < CONTENDERS; i++)
        CHECK_INT_EQ(test_wait_exit(pids[i], test_scaled_ms(15000)), 0);
    CHECK_EQ(contest->clashes, 0);
    CHECK_EQ(contest->entered, CONTENDERS * CONTENDER_ROUNDS);
    bus_deinit(&contest->bus);
}

/* ---- pidfds and /proc ------------------------------------------------------------------------ */

static void connect_and_wait(void *argument)
{
    struct meeting *meeting = argument;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", test_tmpdir());
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    for (;;)
        pause();
}

static int listen_here(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", test_tmpdir());
    REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    REQUIRE(listen(fd, 4) == 0);
    return fd;
}

TEST(peer_is_known_by_its_pidfd)
{
    struct meeting *meeting = meeting_new();
    int listener = listen_here(), peer, pidfd = -1, late = -1, result;
    pid_t pid = test_spawn(connect_and_wait, meeting);
    char path[100];

    peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    REQUIRE(peer >= 0);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    REQUIRE_OK(liveness_peer_pidfd(peer, &pidfd));
    CHECK(fcntl(pidfd, F_GETFD) & FD_CLOEXEC);
    CHECK(!liveness_process_is_gone(pidfd, pid));
    CHECK(!liveness_process_is_gone(pidfd, 0));
    CHECK(!liveness_process_is_gone(-1, 0));
    test_kill(pid, SIGKILL);
    CHECK(liveness_process_is_gone(pidfd, pid));
    CHECK(liveness_process_is_gone(pidfd, 0));
    /* Asked too late: "gone", or a descriptor that says so. */
    result = liveness_peer_pidfd(peer, &late);
    if (result == 0) {
        CHECK(liveness_process_is_gone(late, 0));
        (void)close(late);
    } else {
        CHECK_ERR(result, SHMQ_ECLOSED);
    }
    CHECK_ERR(liveness_open_pidfd(pid, &late), SHMQ_ECLOSED);
    CHECK_ERR(liveness_open_pidfd(0, &late), SHMQ_ECLOSED);
    (void)close(pidfd);
    (void)close(peer);
    (void)close(listener);
    (void)snprintf(path, sizeof(path), "%s/s", test_tmpdir());
    (void)unlink(path);
    bus_deinit(&meeting->bus);
}

static void exit_at_once(void *argument)
{
    (void)argument;
}

TEST(process_that_ended_is_gone_before_it_is_reaped)
{
    struct pollfd ask = {.events = POLLIN};
    pid_t pid = test_spawn(exit_at_once, NULL);

    REQUIRE_OK(liveness_open_pidfd(pid, &ask.fd));
    CHECK(poll(&ask, 1, test_scaled_ms(5000)) == 1);
    CHECK(liveness_process_is_gone(ask.fd, pid));
    CHECK_INT_EQ(test_wait_exit(pid, 5000), 0);
    CHECK(liveness_process_is_gone(ask.fd, pid));
    (void)close(ask.fd);
}

#define CORE_BYTES ((size_t)192 << 20)

/* Dies of SIGQUIT with much to write into its core file. */
static void dump_core(void *argument)
{
    struct meeting *meeting = argument;
    struct rlimit limit;
    unsigned char *memory =
        mmap(NULL, CORE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    _Atomic uint64_t turns = 0;
    pthread_t thread;

    if (memory == MAP_FAILED || getrlimit(RLIMIT_CORE, &limit) != 0)
        _exit(0);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_CORE, &limit);
    memset(memory, 1, CORE_BYTES);
    (void)locked_description(&meeting->bus, CLIENT);
    (void)pthread_create(&thread, NULL, spin_for_ever, &turns);
    CHECK(chdir(test_tmpdir()) == 0);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    (void)raise(SIGQUIT);
}

/* The same fact by another way than the one that is tested. */
static bool says_core_dumping(pid_t pid)
{
    char path[64], line[256];
    bool found = false;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof(line), file))
        found = strcmp(line, "CoreDumping:\t1\n") == 0;
    if (file)
        (void)fclose(file);
    return found;
}

/* While a core is written, which may take minutes, the pidfd says "alive" and so does the lock. */
TEST(process_that_dumps_core_is_gone_for_the_supervisor)
{
    struct meeting *meeting;
    struct pollfd ask = {.events = POLLIN};
    unsigned gone_early = 0, dumping = 0;
    pid_t pid;

    if (TEST_SANITIZED)
        SKIP("sanitizers switch core dumps off");
    meeting = meeting_new();
    pid = test_spawn(dump_core, meeting);
    REQUIRE_OK(liveness_open_pidfd(pid, &ask.fd));
    CHECK(!liveness_process_is_gone(ask.fd, pid));
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    for (;;) {
        bool seen = says_core_dumping(pid);
        bool gone = liveness_process_is_gone(ask.fd, pid);

        if (poll(&ask, 1, 0) == 1)
            break;
        dumping += seen;
        /* Neither is true between the end of the dump and that of the process. */
        gone_early += gone;
    }
    CHECK_INT_EQ(test_wait_exit(pid, 20000), -SIGQUIT);
    CHECK(dumping < 3 || gone_early > 0); /* the last look may come too late */
    CHECK(is_dead(&meeting->bus, CLIENT));
    (void)close(ask.fd);
    bus_deinit(&meeting->bus);
    if (dumping == 0)
        SKIP("no core dump was seen here (its limit, or /proc/sys/kernel/core_pattern)");
}

/* ---- names of processes ---------------------------------------------------------------------- */

static void rename_and_wait(void *argument)
{
    struct meeting *meeting = argument;

    CHECK(prctl(PR_SET_NAME, "a) R 1 2 (\nb\x01") == 0);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    CHECK(test_barrier_wait(&meeting->go, 10000));
}

TEST(start_time_and_command_withstand_odd_names)
{
    struct meeting *meeting = meeting_new();
    uint64_t mine = 0, again = 0, childs = 0;
    char command[16];
    pid_t pid;

    REQUIRE_OK(liveness_start_time(getpid(), &mine));
    REQUIRE_OK(liveness_start_time(getpid(), &again));
    CHECK_EQ(mine, again);
    CHECK(mine > 0);
    test_sleep_ms(30); /* ticks of 10 ms */
    pid = test_spawn(rename_and_wait, meeting);
    CHECK(test_barrier_wait(&meeting->ready, 10000));
    REQUIRE_OK(liveness_start_time(pid, &childs));
    CHECK(childs > mine);
    CHECK(childs < mine + 6000); /* a minute: it is the right field */
    liveness_command(pid, command);
    CHECK(strncmp(command, "a) R 1 2 (", 10) == 0);
    for (size_t i = 0; i < sizeof(command); i++)
        CHECK((unsigned char)command[i] >= 0x20 || command[i] == '\0');
    CHECK(test_barrier_wait(&meeting->go, 10000));
    CHECK_INT_EQ(test_wait_exit(pid, 5000), 0);
    CHECK_ERR(liveness_start_time(pid, &childs), SHMQ_ECLOSED);
    CHECK_ERR(liveness_start_time(0, &childs), SHMQ_ECLOSED);
    liveness_command(pid, command);
    CHECK_STR_EQ(command, "?");
    bus_deinit(&meeting->bus);
}

TEST_MAIN("liveness", T(an_id_is_alive_while_its_description_is_open),
          T(closing_other_descriptors_of_the_bus_loses_nothing),
          T(impossible_ids_and_bad_descriptors_count_as_alive), T(one_supervisor_at_a_time),
          T(kill_releases_and_a_stop_does_not), T(killing_a_busy_program_of_many_threads_releases),
          T(forked_child_keeps_the_lock_until_it_closes_it), T(executing_a_program_releases),
          T(lock_travels_with_the_descriptor), T(receiver_that_dies_before_receiving_is_dead),
          T(recovery_byte_excludes_descriptions_of_one_process),
          T(recovery_byte_excludes_processes_and_dies_with_its_owner),
          T(recovery_byte_lets_one_in_at_a_time), T(peer_is_known_by_its_pidfd),
          T(process_that_ended_is_gone_before_it_is_reaped),
          T_TIMEOUT(process_that_dumps_core_is_gone_for_the_supervisor, 60),
          T(start_time_and_command_withstand_odd_names));
