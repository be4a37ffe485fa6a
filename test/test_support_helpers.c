/*
 * test_support_helpers.c: proves the harness's helpers: programs, processes, meeting points.
 *
 * Blocks for a few seconds at most; leaves nothing.
 */
#include "test/support/test.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

TEST(programs_are_run_with_input_and_limits)
{
    char cat[] = "cat", sleep[] = "sleep", long_time[] = "100", missing[] = "./no-such-program";
    char *echo_input[] = {cat, NULL}, *sleep_long_time[] = {sleep, long_time, NULL};
    char *start_missing[] = {missing, NULL};
    struct test_output output;

    unsetenv("TEST_EXEC_WRAPPER"); /* these are the machine's own programs */
    CHECK_INT_EQ(test_run_input(echo_input, "a\0b", 3, &output, 5000), 0);
    CHECK(output.out_length == 3 && memcmp(output.out, "a\0b", 3) == 0);
    test_output_free(&output);
    CHECK_INT_EQ(test_run(sleep_long_time, &output, 50), TEST_TIMED_OUT);
    test_output_free(&output);
    CHECK_INT_EQ(test_run(start_missing, &output, 5000), 127);
    CHECK_CONTAINS(output.err, "No such file");
    test_output_free(&output);
}

static void sleep_long(void *unused)
{
    (void)unused;
    test_sleep_ms(600000);
}

TEST(helpers_are_stopped_and_killed)
{
    pid_t pid = test_spawn(sleep_long, NULL);

    CHECK(!test_wait_stopped(pid, 1));
    test_kill(pid, SIGSTOP);
    CHECK(test_wait_stopped(pid, 5000));
    CHECK_INT_EQ(test_wait_exit(pid, 1), TEST_TIMED_OUT);
    test_kill(pid, SIGKILL);
    CHECK(kill(pid, 0) != 0 && errno == ESRCH);
}

struct meeting {
    struct test_barrier barrier;
    _Atomic unsigned rounds[3];
};

static void meet(void *arg)
{
    struct meeting *meeting = arg;

    for (unsigned round = 0; round < 100; round++) {
        unsigned sum = 0;

        atomic_fetch_add(&meeting->rounds[round % 3], 1);
        test_barrier_wait(&meeting->barrier, 5000);
        sum = atomic_load(&meeting->rounds[round % 3]);
        CHECK_EQ(sum, 3 * (round / 3 + 1)); /* all three came, nobody is a lap ahead */
    }
}

TEST(barrier_keeps_processes_in_step)
{
    struct meeting *meeting = test_shared(sizeof *meeting);
    pid_t helpers[2];

    test_barrier_init(&meeting->barrier, 3);
    for (size_t i = 0; i < 2; i++)
        helpers[i] = test_spawn(meet, meeting);
    meet(meeting);
    for (size_t i = 0; i < 2; i++)
        CHECK_INT_EQ(test_wait_exit(helpers[i], 5000), 0);
}

TEST_MAIN("support_helpers", T(programs_are_run_with_input_and_limits),
          T(helpers_are_stopped_and_killed), T(barrier_keeps_processes_in_step))
