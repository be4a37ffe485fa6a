/* SPDX-License-Identifier: Apache-2.0 */
/* What shmq-perf starts beside itself ends with it, and its rows about size and instructions are filled in. Whether
 * a target is met is no question here: it would be a measurement. */
#include "test/support/test.h"
#include "tools/perf/place.h"
#include "tools/perf/size.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 5000

static uint64_t soon(int ms)
{
    return test_now_ns() + (uint64_t)test_scaled_ms(ms) * 1000000;
}

static void take(struct perf_place *place)
{
    REQUIRE(perf_place_take(place, PERF_PLACE_ANY));
}

static bool exists(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

static int end_with(void *argument)
{
    return *(int *)argument;
}

static int sleep_long(void *argument)
{
    bool *ready = argument;

    (void)signal(SIGTERM, SIG_IGN);
    __atomic_store_n(ready, true, __ATOMIC_RELEASE);
    (void)sleep(1000);
    return 0;
}

/* ---- places and children --------------------------------------------------------------------- */

TEST(a_place_goes_with_all_that_is_in_it)
{
    struct perf_place place;
    char segment[128], other[128];
    int fd;

    take(&place);
    CHECK(mkdir(perf_place_path(&place, "folder"), 0700) == 0);
    fd = open(perf_place_path(&place, "folder/file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    (void)close(fd);
    (void)snprintf(segment, sizeof(segment), "/dev/shm/shmq.%s.x.B", place.bus);
    (void)snprintf(other, sizeof(other), "/dev/shm/shmq.%s0.x.B", place.bus);
    fd = open(segment, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    (void)close(fd);
    fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    (void)close(fd);
    perf_place_leave(&place);
    CHECK(!exists(place.dir));
    CHECK(!exists(segment));
    CHECK(exists(other)); /* of a bus whose name only begins like ours */
    (void)unlink(other);
}

TEST(a_child_is_waited_for_and_one_that_stays_is_killed)
{
    struct perf_place place;
    struct perf_child child;
    bool *ready = test_shared(sizeof(*ready));
    int zero = 0, three = 3;

    take(&place);
    CHECK(perf_child_call(&child, end_with, &zero));
    CHECK(perf_child_succeeds(&child, soon(WAIT_MS)));
    CHECK(perf_child_call(&child, end_with, &three));
    CHECK(!perf_child_succeeds(&child, soon(WAIT_MS)));
    CHECK(!perf_child_call_ready(&child, end_with, &zero, ready, soon(WAIT_MS)));
    CHECK(perf_child_call_ready(&child, sleep_long, ready, ready, soon(WAIT_MS)));
    CHECK(!perf_child_wait(&child, test_now_ns() + 1000000));
    CHECK(!perf_child_succeeds(&child, test_now_ns() + 1000000));
    CHECK_EQ(child.pid, 0); /* gone and reaped, although it ignores SIGTERM */
    perf_place_leave(&place);
}

TEST(a_program_gets_its_variable_and_writes_to_its_file)
{
    static const char *const ARGUMENTS[] = {"/bin/sh", "-c", "echo one; echo $SHMQ_SPECIAL >&2",
                                            NULL};
    static const char *const NOTHING[] = {"/nowhere", NULL};
    struct perf_place place;
    struct perf_child child;
    char log[PERF_PATH_BYTES], line[64];

    take(&place);
    (void)snprintf(log, sizeof(log), "%s", perf_place_path(&place, "log"));
    perf_read_last_line(log, line, sizeof(line));
    CHECK_STR_EQ(line, "it said nothing");
    CHECK(perf_child_execute(&child, ARGUMENTS, "SHMQ_SPECIAL=two", log));
    CHECK(perf_child_succeeds(&child, soon(WAIT_MS)));
    perf_read_last_line(log, line, sizeof(line));
    CHECK_STR_EQ(line, "two");
    CHECK(perf_child_execute(&child, NOTHING, NULL, log));
    CHECK(!perf_child_succeeds(&child, soon(WAIT_MS)));
    perf_place_leave(&place);
}

/* Shares the place's name with the test, which looks for it afterwards. */
static void take_and_be_told_to_end(void *argument)
{
    struct perf_place *place = argument;
    struct perf_child child;
    bool ready = false;

    (void)signal(SIGTERM, SIG_DFL);
    take(place);
    CHECK(!perf_place_interrupted());
    (void)raise(SIGTERM);
    CHECK(perf_place_interrupted());
    /* Its child would be ready never: the signal ends the wait, long before the deadline. */
    CHECK(!perf_child_call_ready(&child, sleep_long, &(bool){false}, &ready, soon(600000)));
    perf_place_leave(place);
    FAIL("a signal that was held back did not come");
}

TEST(a_signal_waits_until_all_is_cleaned_up)
{
    struct perf_place *place = test_shared(sizeof(*place));
    pid_t pid = test_spawn(take_and_be_told_to_end, place);

    CHECK_INT_EQ(test_wait_exit(pid, 15000), -SIGTERM);
    CHECK(place->dir[0] == '/');
    CHECK(!exists(place->dir));
}

/* ---- a supervisor ---------------------------------------------------------------------------- */

TEST(a_supervisor_starts_and_ends)
{
    struct perf_place place;
    struct perf_daemon daemon;
    char program[PERF_PATH_BYTES], why[128];
    pid_t pid;

    if (!perf_find_program("shmqd", program))
        SKIP("no shmqd on PATH");
    take(&place);
    REQUIRE(perf_daemon_start(&daemon, &place, program, why, sizeof(why)));
    pid = daemon.child.pid;
    CHECK(daemon.ready_ns > 0);
    CHECK(kill(pid, 0) == 0);
    perf_daemon_stop(&daemon);
    CHECK(kill(pid, 0) < 0);
    perf_place_leave(&place);
}

TEST(a_supervisor_that_does_not_start_says_why)
{
    struct perf_place place;
    struct perf_daemon daemon;
    char why[128] = "";

    take(&place);
    CHECK(!perf_daemon_start(&daemon, &place, "/nowhere/shmqd", why, sizeof(why)));
    CHECK_STR_EQ(why, "it said nothing");
    CHECK(!perf_daemon_start(&daemon, &place, "/bin/sh", why, sizeof(why)));
    CHECK(why[0] != '\0' && strcmp(why, "it said nothing") != 0); /* a shell that knows no --bus */
    CHECK_EQ(daemon.child.pid, 0);
    perf_place_leave(&place);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void check_rows(const struct perf_comparison *rows, int count)
{
    for (int i = 0; i < count; i++) {
        test_context("%s: ", rows[i].what);
        CHECK(rows[i].what[0] != '\0' && rows[i].subject[0] != '\0');
        CHECK(!rows[i].has_target || rows[i].target_is_most);
        CHECK((rows[i].verdict == PERF_NOT_OBSERVED) == (rows[i].subject_value.count == 0));
        CHECK((rows[i].verdict == PERF_NO_TARGET) ==
              (!rows[i].has_target && rows[i].subject_value.count > 0));
        if (rows[i].verdict == PERF_NOT_OBSERVED)
            CHECK(rows[i].note != NULL && rows[i].note[0] != '\0');
    }
    test_context(NULL);
}

TEST(all_that_is_small_is_measured)
{
    struct perf_comparison rows[PERF_SIZE_ROWS];
    char program[PERF_PATH_BYTES];
    int count, observed = 0;

    if (!perf_find_program("shmqd", program))
        SKIP("no shmqd on PATH");
    count = perf_size_measure(rows, PERF_SIZE_ROWS);
    CHECK(count > 10);
    check_rows(rows, count);
    for (int i = 0; i < count; i++)
        observed += rows[i].verdict != PERF_NOT_OBSERVED;
    /* libshmq.so is not beside a test, and /dev/shm may be too small for 1,000 topics. */
    CHECK(observed >= count - 2);
}

TEST(without_a_supervisor_nothing_is_observed_and_it_says_so)
{
    struct perf_comparison rows[PERF_SIZE_ROWS];
    int count;

    REQUIRE(setenv("PATH", "/nowhere", 1) == 0);
    count = perf_size_measure(rows, PERF_SIZE_ROWS);
    check_rows(rows, count);
    for (int i = 0; i < count; i++)
        CHECK_EQ(rows[i].verdict, PERF_NOT_OBSERVED);
    CHECK_EQ(perf_size_measure(rows, 3), 3);
}

TEST_MAIN("perf_size", T(a_place_goes_with_all_that_is_in_it),
          T(a_child_is_waited_for_and_one_that_stays_is_killed),
          T(a_program_gets_its_variable_and_writes_to_its_file),
          T(a_signal_waits_until_all_is_cleaned_up), T(a_supervisor_starts_and_ends),
          T(a_supervisor_that_does_not_start_says_why),
          T_TIMEOUT(all_that_is_small_is_measured, 100),
          T(without_a_supervisor_nothing_is_observed_and_it_says_so));
