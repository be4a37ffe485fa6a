/* SPDX-License-Identifier: Apache-2.0 */
/* The lock of a state directory: one owner, freed by death, and a wait that signals end. */
#include "daemon/store.h"
#include "test/support/test.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static struct error_buffer why;

struct lock_stage {
    struct test_barrier barrier;
    _Atomic int result;
};

static void hold_lock(void *arg)
{
    struct lock_stage *stage = arg;
    int fd = -1;

    REQUIRE_OK(store_lock(test_tmpdir(), &fd, &why));
    test_barrier_wait(&stage->barrier, 5000);
    for (;;)
        (void)pause();
}

static void wait_for_lock(void *arg)
{
    struct lock_stage *stage = arg;
    int fd = -1;

    test_barrier_wait(&stage->barrier, 5000);
    atomic_store(&stage->result, store_lock_wait(test_tmpdir(), NULL, &fd, &why) + 100);
    (void)close(fd);
}

TEST(two_owners_exclude_each_other_and_death_frees)
{
    struct lock_stage *stage = test_shared(sizeof(*stage));
    struct lock_stage *second = test_shared(sizeof(*second));
    char pid[32];
    pid_t holder;
    pid_t waiter;
    int fd = -1;

    test_barrier_init(&stage->barrier, 2);
    test_barrier_init(&second->barrier, 2);
    holder = test_spawn(hold_lock, stage);
    test_barrier_wait(&stage->barrier, 5000);
    CHECK_ERR(store_lock(test_tmpdir(), &fd, &why), SHMQ_EBUSY);
    (void)snprintf(pid, sizeof(pid), "pid %ld", (long)holder);
    CHECK_CONTAINS(why.text, pid);
    CHECK_CONTAINS(why.text, test_tmpdir());
    waiter = test_spawn(wait_for_lock, second);
    test_barrier_wait(&second->barrier, 5000);
    test_sleep_ms(50);
    CHECK_INT_EQ(atomic_load(&second->result), 0); /* still waiting */
    test_kill(holder, SIGKILL);
    CHECK_INT_EQ(test_wait_exit(waiter, 5000), 0);
    CHECK_INT_EQ(atomic_load(&second->result), 100);
    REQUIRE_OK(store_lock(test_tmpdir(), &fd, &why));
    (void)close(fd);
}

/* One process, two descriptions: OFD locks exclude them as well (two embedded supervisors). */
TEST(a_second_lock_in_the_same_process_is_refused)
{
    int first = -1;
    int second = -1;

    REQUIRE_OK(store_lock(test_tmpdir(), &first, &why));
    CHECK_ERR(store_lock(test_tmpdir(), &second, &why), SHMQ_EBUSY);
    CHECK_INT_EQ(second, -1);
    (void)close(first);
    REQUIRE_OK(store_lock(test_tmpdir(), &second, &why));
    (void)close(second);
    CHECK(store_lock("/nonexistent", &first, &why) < 0);
    CHECK_CONTAINS(why.text, "/nonexistent");
}

static void ignore_signal(int number)
{
    (void)number;
}

/* The signal is pending before the wait begins: only an atomic change of the mask sees it. */
TEST(a_signal_ends_the_wait_even_if_it_came_before)
{
    struct sigaction action = {.sa_handler = ignore_signal};
    sigset_t blocked;
    sigset_t open_mask;
    int holder = -1;
    int fd = -1;

    REQUIRE_OK(store_lock(test_tmpdir(), &holder, &why));
    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGUSR1);
    REQUIRE(sigprocmask(SIG_BLOCK, &blocked, &open_mask) == 0);
    REQUIRE(raise(SIGUSR1) == 0);
    CHECK_INT_EQ(store_lock_wait(test_tmpdir(), &open_mask, &fd, &why), 1);
    CHECK_INT_EQ(fd, -1);
    (void)close(holder);
    REQUIRE_OK(store_lock_wait(test_tmpdir(), &open_mask, &fd, &why));
    (void)close(fd);
}

TEST_MAIN("store_lock", T(two_owners_exclude_each_other_and_death_frees),
          T(a_second_lock_in_the_same_process_is_refused),
          T(a_signal_ends_the_wait_even_if_it_came_before))
