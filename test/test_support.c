/*
 * test_support.c: proves that the harness notices what it promises to notice.
 *
 * The binary holds two suites. "inner" (run as `test_support --inner [FILTER]`) misbehaves in every
 * way that a test can; the outer one runs it test by test and reads its verdicts. Blocks as long
 * as the inner runs take; what the inner suite leaves behind is the harness's to end.
 */
#include "test/support/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- The inner suite: what tests do wrong ---- */

TEST(passes)
{
    CHECK(getenv("SHMQ_BUS") != NULL && strcmp(getenv("SHMQ_BUS"), test_bus_name()) == 0);
    CHECK_EQ(1u + 1u, 2);
    CHECK(CHECK_OK(0) && CHECK_ERR(-5, -5));
    CHECK_STR_EQ("a", "a");
    test_note("shown always");
    printf("must not be shown\n");
}

TEST(fails_check)
{
    test_context("round %d: ", 7);
    CHECK(1 > 2);
    printf("said before failing\n");
}

TEST(fails_values)
{
    CHECK_EQ(16, 17);
    CHECK_INT_EQ(-1, 1);
    CHECK_OK(-3);
    CHECK_ERR(0, -3);
    CHECK_STR_EQ("left", "right");
    CHECK_CONTAINS("whole", "part");
}

TEST(fails_require)
{
    int fd = open("/dev/null", O_RDONLY);

    REQUIRE(fd < 0);
    FAIL("reached the line behind a failed REQUIRE");
}

TEST(declines)
{
    SKIP("no %s here", "hardware");
}

TEST(fails_then_skips)
{
    CHECK(false);
    SKIP("too late");
}

TEST(draws)
{
    struct test_random random;

    test_random_init(&random, test_seed());
    CHECK(test_random_below(&random, 10) < 10);
    test_note("drew %llu", (unsigned long long)test_random_next(&random));
}

TEST(checks_nothing)
{
}

TEST(exits_early)
{
    CHECK(true);
    exit(0);
}

TEST(crashes)
{
    CHECK(true);
    raise(SIGKILL);
}

static void fail_in_helper(void *arg)
{
    CHECK(arg != NULL);
}

TEST(fails_helper)
{
    /* Its status is not looked at: the failure has to count by itself. */
    test_wait_exit(test_spawn(fail_in_helper, NULL), 5000);
}

static void *fail_in_thread(void *arg)
{
    CHECK_EQ((uintptr_t)arg, 1);
    return NULL;
}

TEST(fails_in_thread)
{
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, fail_in_thread, NULL) == 0);
    pthread_join(thread, NULL);
}

TEST(leaks_descriptor)
{
    CHECK(open("/dev/zero", O_RDONLY) >= 0);
}

TEST(replaces_descriptor)
{
    int fd = open("/dev/zero", O_RDONLY);

    CHECK(dup2(fd, 0) == 0);
    close(fd);
}

TEST(leaks_memory)
{
    static char *_Atomic kept;

    /* Many: the address of the last ones may still lie in a register or on the stack. */
    for (int i = 0; i < 100; i++) {
        atomic_store(&kept, malloc(100));
        CHECK(atomic_load(&kept) != NULL);
    }
    atomic_store(&kept, NULL);
}

static unsigned raced;

static void *race(void *arg)
{
    raced++;
    return arg;
}

TEST(races)
{
    pthread_t threads[2];

    for (size_t i = 0; i < 2; i++)
        REQUIRE(pthread_create(&threads[i], NULL, race, NULL) == 0);
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CHECK(raced > 0);
}

static void make_segment(char *ret_name, size_t size)
{
    int fd;

    snprintf(ret_name, size, "/shmq.%s.0123abcd.leaked.D", test_bus_name());
    fd = shm_open(ret_name, O_CREAT | O_EXCL | O_RDWR, 0600);
    CHECK(fd >= 0);
    close(fd);
}

TEST(leaks_segment)
{
    char name[100];

    make_segment(name, sizeof name);
}

TEST(clears_segment)
{
    char name[100];
    char longer[120];
    int fd;

    make_segment(name, sizeof name);
    /* Another bus, whose number begins with ours: not ours to remove. */
    snprintf(longer, sizeof longer, "/shmq.%s9.0123abcd.0.D", test_bus_name());
    fd = shm_open(longer, O_CREAT | O_EXCL | O_RDWR, 0600);
    close(fd);
    CHECK_EQ(test_remove_leftovers(), 1);
    CHECK(shm_unlink(name) != 0 && errno == ENOENT);
    CHECK(shm_unlink(longer) == 0);
}

TEST(leaks_socket)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%.80s/run/socket", test_tmpdir());
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    close(fd);
}

static void sleep_long(void *arg)
{
    (void)arg;
    test_sleep_ms(200000);
}

TEST(leaks_helper)
{
    test_spawn(sleep_long, NULL);
    CHECK(true);
}

static void start_daemon(void *arg)
{
    if (fork() == 0) { /* not bound to anybody, and in a session of its own */
        setsid();
        sleep_long(arg);
        _exit(0);
    }
}

TEST(leaks_daemon)
{
    CHECK_INT_EQ(test_wait_exit(test_spawn(start_daemon, NULL), 5000), 0);
}

TEST(hangs)
{
    start_daemon(NULL);
    test_spawn(sleep_long, NULL);
    CHECK(true);
    sleep_long(NULL);
}

/* clang-format off */
static const struct test_case inner_cases[] = {
    T(passes), T(fails_check), T(fails_values), T(fails_require), T(declines), T(fails_then_skips),
    T(draws), T(checks_nothing), T(exits_early), T(crashes), T(fails_helper), T(fails_in_thread),
    T(leaks_descriptor), T(leaks_segment), T(clears_segment), T(leaks_socket),
    T(replaces_descriptor), T(leaks_helper), T(leaks_daemon), T_TIMEOUT(hangs, 1),
    T(leaks_memory), T(races),
};
/* clang-format on */

/* ---- The outer suite ---- */

static char self[4096];

/* Also gives the inner runs a directory of their own, in which nothing may be left. */
static void find_self(void)
{
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    REQUIRE(length > 0);
    self[length] = '\0';
    if (!test_can_exec())
        SKIP("programs of this build cannot be executed here");
    unsetenv("TEST_VERBOSE");
    REQUIRE(setenv("TMPDIR", test_tmpdir(), 1) == 0);
}

static void run_inner(const char *filter, struct test_output *ret_output)
{
    char mode[] = "--inner";
    char name[64];
    char *arguments[] = {self, mode, name, NULL};

    snprintf(name, sizeof name, "%s", filter);
    test_run(arguments, ret_output, 60000);
    CHECK_STR_EQ(ret_output->err, "");
    CHECK(strstr(ret_output->out, "must not be shown") == NULL);
    CHECK(strstr(ret_output->out, "behind a failed REQUIRE") == NULL);
}

/* Whatever the inner run called left or running: is it gone now? */
static unsigned check_ended(const char *report)
{
    static const char mark[] = "running: ";
    unsigned count = 0;

    for (const char *at = strstr(report, mark); at != NULL; at = strstr(at + 1, mark)) {
        pid_t pid = (pid_t)strtol(at + strlen(mark), NULL, 10);

        CHECK(pid > 1 && kill(pid, 0) != 0 && errno == ESRCH);
        count++;
    }
    return count;
}

static void require_subreaper(void)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        SKIP("orphans cannot be followed here");
    prctl(PR_SET_CHILD_SUBREAPER, 0); /* the inner runner has to do it by itself */
}

static bool has_entry(const char *path, const char *part)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    bool found = false;

    while (directory != NULL && (entry = readdir(directory)) != NULL)
        found = found || strstr(entry->d_name, part) != NULL;
    if (directory != NULL)
        closedir(directory);
    return found;
}

static bool has_inner_directory(void *unused)
{
    (void)unused;
    return has_entry(test_tmpdir(), "shmq-test-");
}

/* The inner test has to get this verdict, its report has to hold this text. */
static void expect(const char *test, const char *verdict, const char *text)
{
    int status = strcmp(verdict, "ok") == 0 ? 0 : strcmp(verdict, "skip") == 0 ? 77 : 1;
    struct test_output output;
    char line[128];

    test_context("%s: ", test);
    run_inner(test, &output);
    CHECK_INT_EQ(output.status, status);
    snprintf(line, sizeof line, "\n%s inner.%s", verdict, test);
    CHECK_CONTAINS(output.out, line);
    CHECK_CONTAINS(output.out, text);
    check_ended(output.out);
    CHECK(!has_inner_directory(NULL));
    test_output_free(&output);
    test_context(NULL);
}

TEST(passing_test_is_ok_and_silent)
{
    find_self();
    expect("passes", "ok", "# inner.passes: shown always\n");
    expect("passes", "ok", "# inner: 1 run, 1 passed, 0 failed, 0 skipped\n");
}

TEST(failed_checks_are_reported_with_their_values)
{
    find_self();
    expect("fails_check", "not ok", "round 7: CHECK(1 > 2) failed");
    expect("fails_check", "not ok", "#   | said before failing\n");
    expect("fails_values", "not ok", "16 == 17 failed: 16 (0x10) != 17 (0x11)");
    expect("fails_values", "not ok", "-1 == 1 failed: -1 != 1");
    expect("fails_values", "not ok", "-3 failed: -3");
    expect("fails_values", "not ok", "0 should return -3 (-3), not 0");
    expect("fails_values", "not ok", "\"left\" != \"right\"");
    expect("fails_values", "not ok", "does not contain \"part\"");
    expect("fails_values", "not ok", "#   6 failures, TEST_SEED=");
    expect("fails_require", "not ok", "REQUIRE(fd < 0) failed");
}

TEST(failures_of_helpers_and_threads_count)
{
    find_self();
    expect("fails_helper", "not ok", "CHECK(arg != NULL) failed");
    expect("fails_in_thread", "not ok", "failed: 0 (0x0) != 1 (0x1)");
}

TEST(skipping_is_told_apart_and_hides_no_failure)
{
    find_self();
    expect("declines", "skip", "\nskip inner.declines no hardware here\n");
    expect("fails_then_skips", "not ok", "CHECK(false) failed");
}

TEST(tests_that_do_not_end_properly_fail)
{
    find_self();
    expect("checks_nothing", "not ok", "made no check");
    expect("exits_early", "not ok", "exited before its end");
    expect("crashes", "not ok", "killed by signal 9");
}

TEST(leaks_are_found)
{
    find_self();
    expect("leaks_descriptor", "not ok", "-> /dev/zero");
    expect("replaces_descriptor", "not ok", "0 -> /dev/zero");
    expect("leaks_segment", "not ok", "segment left behind: /dev/shm/shmq.t");
    CHECK(!has_entry("/dev/shm", ".0123abcd.leaked.D"));
    expect("leaks_socket", "not ok", "/run/socket");
    expect("clears_segment", "ok", "1 passed");
}

TEST(findings_of_sanitizers_count)
{
    find_self();
    if (TEST_ADDRESS_SANITIZED)
        expect("leaks_memory", "not ok", "LeakSanitizer: detected memory leaks");
    else if (TEST_THREAD_SANITIZED)
        expect("races", "not ok", "ThreadSanitizer: data race");
    else
        SKIP("built without them");
}

TEST(left_processes_are_named_and_ended)
{
    struct test_output output;

    require_subreaper();
    find_self();
    expect("leaks_helper", "not ok", "process left running");
    run_inner("leaks_daemon", &output);
    CHECK_INT_EQ(output.status, 1);
    CHECK(check_ended(output.out) >= 1);
    test_output_free(&output);
}

TEST(hanging_tests_are_ended_with_all_their_processes)
{
    struct test_output output;

    require_subreaper();
    find_self();
    run_inner("hangs", &output);
    CHECK_INT_EQ(output.status, 1);
    CHECK_CONTAINS(output.out, "timed out after");
    CHECK_EQ(check_ended(output.out), 3); /* the test, its helper, its daemon */
    CHECK(!has_inner_directory(NULL));
    test_output_free(&output);
}

TEST(interrupted_runner_cleans_up)
{
    char mode[] = "--inner";
    char name[] = "hangs";
    char *arguments[] = {self, mode, name, NULL};
    pid_t pid;

    require_subreaper();
    find_self();
    setenv("TEST_TIMEOUT_FACTOR", "30", 1); /* the interrupt has to end it, not its timeout */
    pid = test_start(arguments);
    unsetenv("TEST_TIMEOUT_FACTOR");
    CHECK(test_eventually(has_inner_directory, NULL, 5000));
    test_kill(pid, SIGTERM);
    CHECK_INT_EQ(test_wait_exit(pid, 10000), 128 + SIGTERM);
    CHECK(!has_inner_directory(NULL));
}

/* What the inner run drew, or 0. */
static unsigned long long draw_with_seed(const char *seed)
{
    struct test_output output;
    const char *at;
    unsigned long long drawn;

    setenv("TEST_SEED", seed, 1);
    run_inner("draws", &output);
    at = strstr(output.out, "drew ");
    drawn = at == NULL ? 0 : strtoull(at + 5, NULL, 10);
    test_output_free(&output);
    return drawn;
}

TEST(seed_repeats_a_run)
{
    unsigned long long drawn;

    find_self();
    drawn = draw_with_seed("12345");
    CHECK(drawn != 0);
    CHECK_EQ(draw_with_seed("12345"), drawn);
    CHECK(draw_with_seed("12346") != drawn);
}

static const struct test_case outer_cases[] = {
    T(passing_test_is_ok_and_silent),
    T_TIMEOUT(failed_checks_are_reported_with_their_values, 40),
    T(failures_of_helpers_and_threads_count),
    T(skipping_is_told_apart_and_hides_no_failure),
    T(tests_that_do_not_end_properly_fail),
    T(leaks_are_found),
    T(findings_of_sanitizers_count),
    T(left_processes_are_named_and_ended),
    T(hanging_tests_are_ended_with_all_their_processes),
    T(interrupted_runner_cleans_up),
    T(seed_repeats_a_run),
};

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--inner") == 0)
        return test_main("inner", inner_cases, sizeof inner_cases / sizeof inner_cases[0], argc - 1,
                         argv + 1);
    return test_main("support", outer_cases, sizeof outer_cases / sizeof outer_cases[0], argc,
                     argv);
}
