/* SPDX-License-Identifier: Apache-2.0 */
/* The SIGBUS guard: segments are cut while somebody works on them; all else goes to who it is
 * for. */
#include "daemon/guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "libshmq/segment.h"
#include "test/support/test.h"

#define RING_BYTES UINT64_C(65536)

static struct segment new_segment(int *ret_fd)
{
    char name[SEGMENT_NAME_BYTES], prefix[100];
    struct segment segment = {0};

    (void)snprintf(prefix, sizeof(prefix), "shmq.%s.0123", test_bus_name());
    REQUIRE_OK(segment_name(name, prefix, SEGMENT_DATA, 1, 0, 0));
    REQUIRE_OK(segment_create(name, RING_BYTES, ret_fd, NULL));
    CHECK_OK(segment_unlink(name));
    REQUIRE_OK(segment_map(*ret_fd, true, RING_BYTES, &segment, NULL));
    return segment;
}

static struct guard_range range_of(const struct segment *segment)
{
    return (struct guard_range){segment->address, segment->bytes};
}

/* What a guarded function works with. */
struct work {
    unsigned char *at;
    int fd;
    int result;
    _Atomic int reached;
};

/* volatile: the access is what is tested. */
static int load(void *context)
{
    struct work *work = context;

    (void)*(volatile unsigned char *)work->at;
    work->reached = 1;
    return work->result;
}

static int store(void *context)
{
    struct work *work = context;

    *(volatile unsigned char *)work->at = 1;
    work->reached = 1;
    return work->result;
}

static int cut_then_load(void *context)
{
    struct work *work = context;

    if (load(work) < 0)
        return 0; /* would hide a fault that came too early */
    work->reached = 0;
    if (ftruncate(work->fd, 0) != 0)
        return 0;
    return load(work);
}

TEST(guarded_function_returns_what_it_returns)
{
    int fd;
    struct segment segment = new_segment(&fd);
    struct guard_range range = range_of(&segment);
    struct work work = {.at = segment.address, .fd = fd, .result = 17};
    uint32_t hit = 99;

    REQUIRE_OK(guard_install());
    CHECK_INT_EQ(guard_run(&range, 1, store, &work, &hit), 17);
    work.result = SHMQ_EBUSY;
    CHECK_INT_EQ(guard_run(&range, 1, load, &work, &hit), SHMQ_EBUSY);
    CHECK_EQ(work.reached, 1);
    CHECK_EQ(hit, 99);
    guard_uninstall();
    segment_unmap(&segment);
    (void)close(fd);
}

TEST(truncation_under_the_reader_is_an_error_and_no_death)
{
    int fds[2];
    struct segment segments[2] = {new_segment(&fds[0]), new_segment(&fds[1])};
    struct guard_range ranges[2] = {range_of(&segments[0]), range_of(&segments[1])};

    REQUIRE_OK(guard_install());
    for (uint32_t i = 0; i < 2; i++) {
        unsigned char *last = (unsigned char *)segments[i].address + RING_BYTES - 1;
        struct work work = {.at = last, .fd = fds[i]};
        uint32_t hit = 99;

        CHECK_ERR(guard_run(ranges, 2, cut_then_load, &work, &hit), SHMQ_ECORRUPT);
        CHECK_EQ(work.reached, 0);
        CHECK_EQ(hit, i);
        /* And again, for it stays so: the handler is not spent. */
        for (int round = 0; round < 100; round++)
            CHECK_ERR(guard_run(&ranges[i], 1, store, &work, NULL), SHMQ_ECORRUPT);
        /* Grown again, it is a segment of zeros, not a fault. */
        REQUIRE(ftruncate(fds[i], (off_t)RING_BYTES) == 0);
        CHECK_OK(guard_run(&ranges[i], 1, load, &work, NULL));
    }
    guard_uninstall();
    for (int i = 0; i < 2; i++) {
        segment_unmap(&segments[i]);
        (void)close(fds[i]);
    }
}

/* ---- nesting --------------------------------------------------------------------------------- */

struct nest {
    struct guard_range inner;
    struct work work;
    int inner_result;
    int after_result;
    struct work after;
};

static int run_nested(void *context)
{
    struct nest *nest = context;

    nest->inner_result = 1;
    nest->inner_result = guard_run(&nest->inner, 1, load, &nest->work, NULL);
    nest->after_result = 1;
    return load(&nest->after);
}

TEST(a_cut_segment_is_checked_and_no_death)
{
    struct segment_identity identity = {.kind = SEGMENT_WAIT, .topic = 7, .partition = 1};
    struct error_buffer why;
    int fd;
    struct segment segment = new_segment(&fd);

    REQUIRE_OK(guard_install());
    segment_init_header(segment.address, &identity, segment.bytes);
    CHECK_OK(guard_check_segment(&segment, &identity, &why));
    identity.topic = 8;
    CHECK_ERR(guard_check_segment(&segment, &identity, &why), SHMQ_ECORRUPT);
    REQUIRE(ftruncate(fd, 0) == 0);
    CHECK_ERR(guard_check_segment(&segment, &identity, &why), SHMQ_ECORRUPT);
    CHECK_CONTAINS(why.text, "truncated");
    guard_uninstall();
    segment_unmap(&segment);
    (void)close(fd);
}

TEST(the_innermost_guard_that_knows_the_address_ends)
{
    int fds[2];
    struct segment outer = new_segment(&fds[0]), inner = new_segment(&fds[1]);
    struct guard_range outer_range = range_of(&outer);
    struct nest nest = {.inner = range_of(&inner)};
    uint32_t hit = 99;

    REQUIRE_OK(guard_install());
    REQUIRE(ftruncate(fds[1], 0) == 0);
    /* A fault of the inner one: the outer function goes on, and is still guarded. */
    nest.work.at = inner.address;
    nest.after.at = outer.address;
    CHECK_OK(guard_run(&outer_range, 1, run_nested, &nest, &hit));
    CHECK_INT_EQ(nest.inner_result, SHMQ_ECORRUPT);
    CHECK_EQ(nest.after.reached, 1);
    CHECK_EQ(hit, 99);
    REQUIRE(ftruncate(fds[0], 0) == 0);
    nest.after.reached = 0;
    CHECK_ERR(guard_run(&outer_range, 1, run_nested, &nest, &hit), SHMQ_ECORRUPT);
    CHECK_INT_EQ(nest.inner_result, SHMQ_ECORRUPT);
    CHECK_EQ(nest.after.reached, 0);
    CHECK_EQ(hit, 0);
    /* A fault of the outer's range in the inner one: both end. */
    nest.work.at = outer.address;
    CHECK_ERR(guard_run(&outer_range, 1, run_nested, &nest, NULL), SHMQ_ECORRUPT);
    CHECK_INT_EQ(nest.inner_result, 1);
    guard_uninstall();
    segment_unmap(&outer);
    segment_unmap(&inner);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *guard_in_thread(void *argument)
{
    struct segment *segment = argument;
    struct guard_range range = range_of(segment);
    struct work work = {.at = segment->address};
    int faults = 0;

    for (int i = 0; i < 200; i++)
        faults += guard_run(&range, 1, load, &work, NULL) == SHMQ_ECORRUPT;
    CHECK_INT_EQ(faults, 200);
    return NULL;
}

/* Threads of a daemon block all signals, and a blocked SIGBUS kills. */
TEST(each_thread_has_its_own_guards_even_with_signals_blocked)
{
    int fds[3];
    struct segment segments[3];
    pthread_t threads[3];
    sigset_t all, before;

    REQUIRE_OK(guard_install());
    (void)sigfillset(&all);
    REQUIRE(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    for (int i = 0; i < 3; i++) {
        segments[i] = new_segment(&fds[i]);
        REQUIRE(ftruncate(fds[i], 0) == 0);
        REQUIRE(pthread_create(&threads[i], NULL, guard_in_thread, &segments[i]) == 0);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        segment_unmap(&segments[i]);
        (void)close(fds[i]);
    }
    REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    guard_uninstall();
}

TEST(a_fault_leaves_the_signal_mask_as_it_was)
{
    int fd;
    struct segment segment = new_segment(&fd);
    struct guard_range range = range_of(&segment);
    struct work work = {.at = segment.address};
    sigset_t before, after;

    REQUIRE_OK(guard_install());
    REQUIRE(ftruncate(fd, 0) == 0);
    CHECK_ERR(guard_run(&range, 1, load, &work, NULL), SHMQ_ECORRUPT);
    REQUIRE(pthread_sigmask(SIG_SETMASK, NULL, &before) == 0);
    CHECK_ERR(guard_run(&range, 1, load, &work, NULL), SHMQ_ECORRUPT);
    REQUIRE(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
    CHECK(!sigismember(&after, SIGBUS));
    for (int number = 1; number < 32; number++)
        CHECK_INT_EQ(sigismember(&after, number), sigismember(&before, number));
    guard_uninstall();
    segment_unmap(&segment);
    (void)close(fd);
}

/* ---- chaining -------------------------------------------------------------------------------- */

static sigjmp_buf host_back;
static _Atomic uintptr_t host_address;
static _Atomic int host_calls;
static _Atomic int host_had_sigusr1_blocked;

static void host_handler(int number, siginfo_t *info, void *machine)
{
    sigset_t mask;

    (void)machine;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mask);
    host_had_sigusr1_blocked = sigismember(&mask, SIGUSR1) && sigismember(&mask, number);
    host_address = (uintptr_t)info->si_addr;
    host_calls++;
    if (info->si_code > 0)
        siglongjmp(host_back, 1);
}

static void install_host(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO};

    action.sa_sigaction = host_handler;
    (void)sigaddset(&action.sa_mask, SIGUSR1);
    REQUIRE(sigaction(SIGBUS, &action, NULL) == 0);
}

static bool handler_is_hosts(void)
{
    struct sigaction action;

    REQUIRE(sigaction(SIGBUS, NULL, &action) == 0);
    return action.sa_sigaction == host_handler;
}

/* Faults outside of every guard, and inside of one that does not know the address. */
TEST(a_fault_elsewhere_reaches_the_hosts_handler)
{
    int fds[2];
    struct segment ours = new_segment(&fds[0]), theirs = new_segment(&fds[1]);
    struct guard_range range = range_of(&ours);
    struct work work = {.at = theirs.address};

    install_host();
    REQUIRE_OK(guard_install());
    CHECK(!handler_is_hosts());
    REQUIRE(ftruncate(fds[1], 0) == 0);
    if (sigsetjmp(host_back, 1) == 0) {
        (void)load(&work);
        FAIL("no fault came");
    }
    CHECK_EQ(host_address, (uintptr_t)theirs.address);
    CHECK_EQ(host_calls, 1);
    CHECK_EQ(host_had_sigusr1_blocked, 1);
    /* And a fault in what was guarded, and failed there, but is not guarded any more. */
    REQUIRE(ftruncate(fds[0], 0) == 0);
    work.at = ours.address;
    CHECK_ERR(guard_run(&range, 1, load, &work, NULL), SHMQ_ECORRUPT);
    CHECK_EQ(host_calls, 1);
    if (sigsetjmp(host_back, 1) == 0) {
        (void)load(&work);
        FAIL("no fault came");
    }
    CHECK_EQ(host_calls, 2);
    /* Last: the host's jump leaves the guard's frame behind. */
    work.at = theirs.address;
    if (sigsetjmp(host_back, 1) == 0) {
        (void)guard_run(&range, 1, load, &work, NULL);
        FAIL("no fault came");
    }
    CHECK_EQ(host_calls, 3);
    /* A signal that somebody sent names no address, even while a guard runs. */
    REQUIRE(raise(SIGBUS) == 0);
    CHECK_EQ(host_calls, 4);
    guard_uninstall();
    CHECK(handler_is_hosts());
    segment_unmap(&ours);
    segment_unmap(&theirs);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void fault_unguarded(void *argument)
{
    struct work *work = argument;
    const struct rlimit no_core = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)load(work);
}

static void raise_bus(void *argument)
{
    const struct rlimit no_core = {0, 0};

    (void)argument;
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)raise(SIGBUS);
}

TEST(without_a_host_handler_a_fault_elsewhere_kills_as_ever)
{
    int fd;
    struct segment segment = new_segment(&fd);
    struct work work = {.at = segment.address};

    REQUIRE(signal(SIGBUS, SIG_DFL) != SIG_ERR); /* sanitizers have one of their own */
    REQUIRE_OK(guard_install());
    REQUIRE(madvise(segment.address, segment.bytes, MADV_DOFORK) == 0);
    REQUIRE(ftruncate(fd, 0) == 0);
    CHECK_INT_EQ(test_wait_exit(test_spawn(fault_unguarded, &work), 5000), -SIGBUS);
    CHECK_INT_EQ(test_wait_exit(test_spawn(raise_bus, NULL), 5000), -SIGBUS);
    guard_uninstall();
    REQUIRE(signal(SIGBUS, SIG_IGN) != SIG_ERR);
    REQUIRE_OK(guard_install());
    CHECK_INT_EQ(test_wait_exit(test_spawn(fault_unguarded, &work), 5000), -SIGBUS);
    CHECK_INT_EQ(test_wait_exit(test_spawn(raise_bus, NULL), 5000), 0);
    guard_uninstall();
    segment_unmap(&segment);
    (void)close(fd);
}

TEST(installs_count_and_restore_only_what_is_still_ours)
{
    struct sigaction ours, present;
    int fd;
    struct segment segment = new_segment(&fd);
    struct guard_range range = range_of(&segment);
    struct work work = {.at = segment.address};

    REQUIRE(signal(SIGBUS, SIG_DFL) != SIG_ERR);
    REQUIRE_OK(guard_install());
    REQUIRE_OK(guard_install());
    REQUIRE(sigaction(SIGBUS, NULL, &ours) == 0);
    guard_uninstall();
    REQUIRE(sigaction(SIGBUS, NULL, &present) == 0);
    CHECK(present.sa_sigaction == ours.sa_sigaction); /* the second supervisor needs it */
    install_host();                                   /* the host puts its own above it */
    guard_uninstall();
    CHECK(handler_is_hosts());
    REQUIRE_OK(guard_install()); /* never in a circle */
    CHECK(handler_is_hosts());
    guard_uninstall();
    CHECK(handler_is_hosts());
    /* The host has taken its handler away for good: ours goes in as at first. */
    REQUIRE(signal(SIGBUS, SIG_DFL) != SIG_ERR);
    REQUIRE_OK(guard_install());
    REQUIRE(ftruncate(fd, 0) == 0);
    CHECK_ERR(guard_run(&range, 1, load, &work, NULL), SHMQ_ECORRUPT);
    guard_uninstall();
    REQUIRE(sigaction(SIGBUS, NULL, &present) == 0);
    CHECK(present.sa_handler == SIG_DFL);
    segment_unmap(&segment);
    (void)close(fd);
}

/* A program with alternate signal stacks (other languages' runtimes) keeps them. */
TEST(faults_on_an_alternate_stack_come_back_to_the_first)
{
    int fd;
    struct segment segment = new_segment(&fd);
    struct guard_range range = range_of(&segment);
    struct work work = {.at = segment.address};
    stack_t alternate = {.ss_size = 65536}, none = {.ss_flags = SS_DISABLE};

    alternate.ss_sp = malloc(alternate.ss_size);
    REQUIRE(alternate.ss_sp != NULL);
    REQUIRE(sigaltstack(&alternate, NULL) == 0);
    REQUIRE_OK(guard_install());
    REQUIRE(ftruncate(fd, 0) == 0);
    for (int i = 0; i < 10; i++)
        CHECK_ERR(guard_run(&range, 1, store, &work, NULL), SHMQ_ECORRUPT);
    guard_uninstall();
    REQUIRE(sigaltstack(&none, NULL) == 0);
    free(alternate.ss_sp);
    segment_unmap(&segment);
    (void)close(fd);
}

TEST_MAIN("guard", T(guarded_function_returns_what_it_returns),
          T(truncation_under_the_reader_is_an_error_and_no_death),
          T(a_cut_segment_is_checked_and_no_death),
          T(the_innermost_guard_that_knows_the_address_ends),
          T(each_thread_has_its_own_guards_even_with_signals_blocked),
          T(a_fault_leaves_the_signal_mask_as_it_was),
          T(a_fault_elsewhere_reaches_the_hosts_handler),
          T(without_a_host_handler_a_fault_elsewhere_kills_as_ever),
          T(installs_count_and_restore_only_what_is_still_ours),
          T(faults_on_an_alternate_stack_come_back_to_the_first));
