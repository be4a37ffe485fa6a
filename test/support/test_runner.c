/*
 * test_runner.c: runs the tests of a suite, each in a child process, and says how they went.
 *
 * The runner is one thread. Per test: fresh directory, fork, wait with a deadline, end every
 * process that is left (it is a child subreaper), look for leaks, print one line
 *     ok SUITE.NAME | not ok SUITE.NAME | skip SUITE.NAME REASON
 * and, after a failure, what the test wrote. CUnit drives the list and prints the summary; with
 * -DTEST_NO_CUNIT (cross builds, where it is not packaged) a plain loop does. Blocks until the
 * test's deadline at most. If the runner is killed, the test's child dies with it
 * (PR_SET_PDEATHSIG); on SIGINT, SIGTERM and SIGHUP it ends the test and cleans up first. A pass
 * under emulation says less: orphans escape where there are no subreapers.
 */
#include "test/support/test_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TEST_NO_CUNIT
#include <CUnit/Basic.h>
#endif

#define DEFAULT_TIMEOUT_S  20
#define EXIT_SLICE_MS      100 /* how soon an interrupt is noticed */
#define OUTPUT_SHOWN_BYTES 65536

static struct {
    const char *suite;
    const struct test_case *cases;
    size_t case_count;
    const char *filter;
    uint64_t seed;
    bool verbose;
    unsigned ran, passed, failed, skipped;
} runner;

static _Atomic int interrupted;

static void note_interrupt(int sig)
{
    atomic_store_explicit(&interrupted, sig, memory_order_relaxed);
}

/* ---- In the test's child ---- */

_Noreturn static void run_child(const struct test_case *test, int output_fd)
{
    struct test_descriptors *before;
    char path[160];
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    setpgid(0, 0);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    if (null_fd < 0 || dup2(null_fd, 0) < 0)
        _exit(1);
    if (output_fd >= 0 && (dup2(output_fd, 1) < 0 || dup2(output_fd, 2) < 0))
        _exit(1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setenv("SHMQ_BUS", test_env.bus, 1);
    snprintf(path, sizeof path, "%s/run", test_env.directory);
    setenv("SHMQ_RUNTIME_DIR", path, 1);
    snprintf(path, sizeof path, "%s/state", test_env.directory);
    setenv("SHMQ_STATE_DIR", path, 1);
    before = test_descriptors_new();

    test->run();

    test_context(NULL);
    test_children_check();
    test_descriptors_check(before);
    atomic_store_explicit(&test_env.state->finished, 1, memory_order_relaxed);
    exit(test_local_failures() > 0 ? 1 : 0); /* exit handlers: leak sanitizer, coverage */
}

/* ---- One test, in the runner ---- */

static bool prepare_environment(const struct test_case *test)
{
    static unsigned number;

    memset(test_env.state, 0, sizeof *test_env.state);
    snprintf(test_env.name, sizeof test_env.name, "%s.%s", runner.suite, test->name);
    snprintf(test_env.bus, sizeof test_env.bus, "t%dx%u", (int)getpid(), number++);
    test_env.seed = runner.seed ^ test_hash(test_env.name);
    test_segments_remove(test_env.bus, false); /* of an earlier process with our number */
    return test_directory_create(test_env.directory, sizeof test_env.directory);
}

/* Returns false if the child had to be ended because it ran too long or we were interrupted. */
static bool wait_for_child(pid_t pid, const struct test_case *test, int *ret_status)
{
    unsigned timeout_s = test->timeout_s == 0 ? DEFAULT_TIMEOUT_S : test->timeout_s;
    int timeout_ms = test_scaled_ms((int)timeout_s * 1000);
    uint64_t deadline_ns = test_now_ns() + (uint64_t)timeout_ms * 1000000u;

    while (!test_wait_child(pid, EXIT_SLICE_MS, ret_status)) {
        if (atomic_load_explicit(&interrupted, memory_order_relaxed) != 0) {
            FAIL("interrupted");
        } else if (test_now_ns() >= deadline_ns) {
            FAIL("timed out after %d ms", timeout_ms);
            test_descendants_print();
        } else {
            continue;
        }
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
        return false;
    }
    return true;
}

static void judge_exit(int status)
{
    struct test_state *state = test_env.state;

    if (WIFSIGNALED(status)) {
        FAIL("killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
        return;
    }
    if (test_failures() > 0)
        return;
    if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != TEST_EXIT_SKIP)
        FAIL("exit status %d without a failed check", WEXITSTATUS(status));
    else if (atomic_load_explicit(&state->finished, memory_order_relaxed) == 0)
        FAIL("exited before its end");
    else if (WEXITSTATUS(status) == 0 &&
             atomic_load_explicit(&state->checks, memory_order_relaxed) == 0)
        FAIL("made no check: it could not have failed");
}

static void show_output(int fd)
{
    static char text[OUTPUT_SHOWN_BYTES + 1];
    off_t end = lseek(fd, 0, SEEK_END);
    off_t from = end > OUTPUT_SHOWN_BYTES ? end - OUTPUT_SHOWN_BYTES : 0;
    ssize_t length = pread(fd, text, OUTPUT_SHOWN_BYTES, from);
    char *rest = NULL;

    text[length > 0 ? length : 0] = '\0';
    if (from > 0)
        printf("#   | ... (%lld bytes not shown)\n", (long long)from);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        printf("#   | %s\n", line);
}

static uint32_t failures_kept(void)
{
    uint32_t stored = atomic_load_explicit(&test_env.state->failures_stored, memory_order_relaxed);

    return stored < TEST_FAILURES_KEPT ? stored : TEST_FAILURES_KEPT;
}

static void announce(bool skipped)
{
    struct test_state *state = test_env.state;

    if (runner.failed > 0)
        putchar('\n'); /* CUnit does not end the line of the failure before */
    runner.ran++;
    if (test_failures() > 0) {
        runner.failed++;
        printf("not ok %s\n", test_env.name);
        for (uint32_t i = 0; i < failures_kept(); i++)
            printf("#   %s:%d: %s\n", state->failure[i].file, state->failure[i].line,
                   state->failure[i].text);
        printf("#   %llu failures, TEST_SEED=%llu\n", (unsigned long long)test_failures(),
               (unsigned long long)runner.seed);
    } else if (skipped) {
        runner.skipped++;
        printf("skip %s %s\n", test_env.name, state->skip_reason);
    } else {
        runner.passed++;
        printf("ok %s\n", test_env.name);
    }
}

static void run_test(const struct test_case *test)
{
    int output_fd = runner.verbose ? -1 : memfd_create("test-output", MFD_CLOEXEC);
    int saved_stderr = dup(STDERR_FILENO);
    int status = 0;
    bool ended;
    pid_t pid;

    if (!prepare_environment(test)) {
        FAIL("no directory for the test in %s: %s", test_env.directory, strerror(errno));
        announce(false);
        return;
    }
    pid = test_fork_bound();
    if (pid == 0) {
        close(saved_stderr);
        run_child(test, output_fd);
    }
    /* What the runner itself finds goes to the captured output, in its place. */
    if (output_fd >= 0)
        dup2(output_fd, STDERR_FILENO);
    ended = pid > 0 ? wait_for_child(pid, test, &status) : FAIL("fork: %s", strerror(errno));
    if (ended)
        judge_exit(status);
    test_descendants_end(!ended);
    test_segments_remove(test_env.bus, ended);
    test_sockets_remove(test_env.directory, ended);
    test_directory_remove(test_env.directory);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);

    announce(ended && WIFEXITED(status) && WEXITSTATUS(status) == TEST_EXIT_SKIP);
    if (output_fd >= 0 && test_failures() > 0)
        show_output(output_fd);
    if (output_fd >= 0)
        close(output_fd);
    fflush(stdout);
}

/* ---- The list of tests ---- */

static bool is_selected(const struct test_case *test)
{
    return runner.filter == NULL || strstr(test->name, runner.filter) != NULL;
}

#ifndef TEST_NO_CUNIT
/* CUnit's test functions take no argument: the test is found by the name of the running one. */
static void run_current(void)
{
    const char *name = CU_get_current_test()->pName;
    const struct test_state *state = test_env.state;

    if (atomic_load_explicit(&interrupted, memory_order_relaxed) != 0)
        return;
    for (size_t i = 0; i < runner.case_count; i++)
        if (strcmp(runner.cases[i].name, name) == 0)
            run_test(&runner.cases[i]);
    for (uint32_t i = 0; i < failures_kept(); i++)
        CU_assertImplementation(CU_FALSE, (unsigned)state->failure[i].line, state->failure[i].text,
                                state->failure[i].file, "", CU_FALSE);
    if (test_failures() == 0)
        CU_PASS("no failure");
}

static bool run_selected(void)
{
    CU_pSuite suite;
    bool good = CU_initialize_registry() == CUE_SUCCESS;

    suite = good ? CU_add_suite(runner.suite, NULL, NULL) : NULL;
    good = suite != NULL;
    for (size_t i = 0; good && i < runner.case_count; i++)
        if (is_selected(&runner.cases[i]))
            good = CU_add_test(suite, runner.cases[i].name, run_current) != NULL;
    CU_basic_set_mode(CU_BRM_NORMAL);
    good = good && CU_basic_run_tests() == CUE_SUCCESS;
    if (!good)
        fprintf(stderr, "%s: CUnit: %s\n", runner.suite, CU_get_error_msg());
    /* What CUnit counted must be what we counted: neither may lose a failure. */
    if (good && CU_get_number_of_tests_failed() != runner.failed) {
        fprintf(stderr, "%s: CUnit counts %u failed tests, the runner %u\n", runner.suite,
                CU_get_number_of_tests_failed(), runner.failed);
        good = false;
    }
    CU_cleanup_registry();
    return good;
}
#else
static bool run_selected(void)
{
    for (size_t i = 0; i < runner.case_count; i++)
        if (is_selected(&runner.cases[i]) &&
            atomic_load_explicit(&interrupted, memory_order_relaxed) == 0)
            run_test(&runner.cases[i]);
    return true;
}
#endif

static void choose_seed(void)
{
    const char *text = getenv("TEST_SEED");

    if (text != NULL && text[0] != '\0')
        runner.seed = strtoull(text, NULL, 0);
    else if (getrandom(&runner.seed, sizeof runner.seed, 0) != sizeof runner.seed)
        runner.seed = test_now_ns();
}

static bool start_runner(void)
{
    struct sigaction action = {.sa_handler = note_interrupt};
    const char *verbose = getenv("TEST_VERBOSE");

    choose_seed();
    runner.verbose = verbose != NULL && verbose[0] != '\0' && strcmp(verbose, "0") != 0;
    test_env.state = mmap(NULL, sizeof *test_env.state, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    test_env.note_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 100);
    if (test_env.state == MAP_FAILED || test_env.note_fd < 0) {
        fprintf(stderr, "%s: cannot start the runner: %s\n", runner.suite, strerror(errno));
        return false;
    }
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) /* qemu-user does not pass it on */
        printf("# %s: orphans cannot be followed here: %s\n", runner.suite, strerror(errno));
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    return true;
}

int test_main(const char *suite, const struct test_case *cases, size_t case_count, int argc,
              char **argv)
{
    size_t selected = 0;
    bool good;
    int sig;

    runner.suite = suite;
    runner.cases = cases;
    runner.case_count = case_count;
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < case_count; i++)
            printf("%s.%s\n", suite, cases[i].name);
        return 0;
    }
    runner.filter = argc > 1 ? argv[1] : NULL;
    for (size_t i = 0; i < case_count; i++)
        selected += is_selected(&cases[i]);
    if (argc > 2 || selected == 0) {
        fprintf(stderr, "usage: %s [--list | PART OF A TEST'S NAME]; no test of %s was selected\n",
                argv[0], suite);
        return 2;
    }
    if (!start_runner())
        return 1;
    printf("# %s: TEST_SEED=%llu\n", suite, (unsigned long long)runner.seed);
    good = run_selected();
    printf("# %s: %u run, %u passed, %u failed, %u skipped\n", suite, runner.ran, runner.passed,
           runner.failed, runner.skipped);
    fflush(stdout);
    close(test_env.note_fd);
    sig = atomic_load_explicit(&interrupted, memory_order_relaxed);
    if (sig != 0)
        return 128 + sig;
    if (!good || runner.failed > 0)
        return 1;
    return runner.passed == 0 ? TEST_EXIT_SKIP : 0;
}
