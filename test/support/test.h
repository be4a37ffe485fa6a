/*
 * test.h: what a test suite writes against.
 *
 * A suite is one binary: TEST(name) { ... } bodies and one TEST_MAIN("suite", T(name), ...). The
 * runner (test_runner.c) forks a child per test, so a test may crash, hang or leak without harm to
 * the next one, and every test has a bus name, a runtime and a state directory of its own (in the
 * environment as SHMQ_BUS, SHMQ_RUNTIME_DIR, SHMQ_STATE_DIR). A test fails by a failed CHECK in
 * any of its processes, by dying, by its timeout, by making no check at all, and by leaving
 * descriptors, processes, sockets or shared-memory segments behind.
 *
 * Exit status of a suite: 0 passed, 1 failed, 2 wrong usage, 77 every test was skipped.
 * argv[1] selects the tests whose names contain it; "--list" prints the names.
 * Environment: TEST_SEED=N repeats a random run; TEST_VERBOSE=1 does not capture output;
 * TEST_TIMEOUT_FACTOR=N multiplies all timeouts; TEST_EXEC_WRAPPER="qemu-aarch64 -L DIR" is put
 * before every program that test_run() and test_start() execute.
 *
 * Threads: checks may be made from any thread and from any forked process; the rest belongs to the
 * thread that runs the test.
 */
#ifndef SHMQ_TEST_SUPPORT_TEST_H
#define SHMQ_TEST_SUPPORT_TEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__SANITIZE_THREAD__)
#define TEST_THREAD_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_THREAD_SANITIZED 1
#endif
#endif
#ifndef TEST_THREAD_SANITIZED
#define TEST_THREAD_SANITIZED 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define TEST_ADDRESS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_ADDRESS_SANITIZED 1
#endif
#endif
#ifndef TEST_ADDRESS_SANITIZED
#define TEST_ADDRESS_SANITIZED 0
#endif
#define TEST_SANITIZED (TEST_THREAD_SANITIZED || TEST_ADDRESS_SANITIZED)

struct test_case {
    const char *name;
    void (*run)(void);
    unsigned timeout_s; /* 0: the default, 20 s; scaled like every timeout here */
};

#define TEST(name) static void test_case_##name(void)
/* clang-format off */
#define T(name) { #name, test_case_##name, 0 }
#define T_TIMEOUT(name, seconds) { #name, test_case_##name, (seconds) }
/* clang-format on */
#define TEST_MAIN(suite, ...) \
    int main(int argc, char **argv) \
    { \
        static const struct test_case cases[] = {__VA_ARGS__}; \
        return test_main(suite, cases, sizeof cases / sizeof cases[0], argc, argv); \
    }

int test_main(const char *suite, const struct test_case *cases, size_t case_count, int argc,
              char **argv);

/* ---- Checks: expressions of type bool, so that a test can stop following a broken thread. ---- */

#define CHECK(cond) test_check((cond), "CHECK(" #cond ")", __FILE__, __LINE__)
/* Compares as unsigned 64 bits; prints both, in decimal and in hexadecimal. */
#define CHECK_EQ(a, b)     test_check_eq((uint64_t)(a), (uint64_t)(b), #a, #b, __FILE__, __LINE__)
#define CHECK_INT_EQ(a, b) test_check_int((int64_t)(a), (int64_t)(b), #a, #b, __FILE__, __LINE__)
/* 0 or positive: the library's meaning of success. */
#define CHECK_OK(expr) test_check_ok((int64_t)(expr), #expr, __FILE__, __LINE__)
#define CHECK_ERR(expr, code) \
    test_check_err((int64_t)(expr), (code), #expr, #code, __FILE__, __LINE__)
#define CHECK_STR_EQ(a, b)         test_check_str((a), (b), #a, #b, __FILE__, __LINE__)
#define CHECK_CONTAINS(text, part) test_check_contains((text), (part), #text, __FILE__, __LINE__)
/* A check without which going on makes no sense: ends this process, and with it the test. */
#define REQUIRE(cond) \
    do { \
        if (!test_check((cond), "REQUIRE(" #cond ")", __FILE__, __LINE__)) \
            test_abort(); \
    } while (0)
#define REQUIRE_OK(expr) \
    do { \
        if (!test_check_ok((int64_t)(expr), #expr, __FILE__, __LINE__)) \
            test_abort(); \
    } while (0)
#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(...) test_skip(__VA_ARGS__)

bool test_check(bool ok, const char *text, const char *file, int line);
bool test_check_eq(uint64_t a, uint64_t b, const char *a_text, const char *b_text, const char *file,
                   int line);
bool test_check_int(int64_t a, int64_t b, const char *a_text, const char *b_text, const char *file,
                    int line);
bool test_check_ok(int64_t result, const char *text, const char *file, int line);
bool test_check_err(int64_t result, int64_t code, const char *text, const char *code_text,
                    const char *file, int line);
bool test_check_str(const char *a, const char *b, const char *a_text, const char *b_text,
                    const char *file, int line);
bool test_check_contains(const char *text, const char *part, const char *name, const char *file,
                         int line);
bool test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void test_abort(void);
_Noreturn void test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Failures counted so far, in all processes of this test. */
uint64_t test_failures(void);
/* Put before the text of each later failure of this process ("k=17 "); NULL or "" takes it away. */
void test_context(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line on the runner's stdout even if the test passes: "# suite.test: ...". */
void test_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- Surroundings of a test. ---- */

const char *test_name(void);     /* "suite.test" */
const char *test_bus_name(void); /* a test that needs more buses appends a suffix such as "-b" */
const char *test_tmpdir(void);   /* removed with all that is in it */
/*
 * For a test that leaves segments or sockets behind on purpose (it killed the supervisor): removes
 * those of this test's buses and returns how many there were.
 */
unsigned test_remove_leftovers(void);

/* Deadlines are upper bounds: they grow under sanitizers, by 4, and by TEST_TIMEOUT_FACTOR. */
int test_scaled_ms(int timeout_ms);
uint64_t test_now_ns(void);
void test_sleep_ms(unsigned duration_ms);

/* ---- Randomness (xorshift64*), the same for the same seed and the same test. ---- */

struct test_random {
    uint64_t state;
};
uint64_t test_seed(void);
void test_random_init(struct test_random *random, uint64_t seed);
uint64_t test_random_next(struct test_random *random);
uint64_t test_random_below(struct test_random *random, uint64_t bound); /* 0 <= result < bound */
void test_random_fill(struct test_random *random, void *buffer, size_t length);

/* ---- Processes (test_process.c). Results of a wait: exit code, or one of these. ---- */

#define TEST_TIMED_OUT (-1000) /* still running; a signal's death is the negative signal number */

/*
 * Forks a helper: it runs fn(arg) and exits, 1 if a check of its own failed and else 0. It dies
 * with the thread that spawned it. Its checks count for the test. A helper that is still running
 * when the test returns is reported as leaked.
 */
pid_t test_spawn(void (*fn)(void *), void *arg);
int test_wait_exit(pid_t pid, int timeout_ms);
/* SIGKILL is waited for (the process is gone and reaped on return), other signals are only sent. */
void test_kill(pid_t pid, int sig);
/* Blocks until the process is stopped by a signal (after test_kill(pid, SIGSTOP)). */
bool test_wait_stopped(pid_t pid, int timeout_ms);

struct test_output {
    int status; /* as test_wait_exit() */
    char *out;  /* NUL-terminated */
    char *err;
    size_t out_length;
    size_t err_length;
};
/* argv[0] is looked up in PATH. On a timeout its process group is killed. Returns the status. */
int test_run(char *const argv[], struct test_output *ret_output, int timeout_ms);
int test_run_input(char *const argv[], const void *input, size_t input_length,
                   struct test_output *ret_output, int timeout_ms);
void test_output_free(struct test_output *output);
/* Starts a program in the background; it writes where the test writes, and dies with the test. */
pid_t test_start(char *const argv[]);
/* True where a program of this build can be executed at all (not: emulation without a wrapper). */
bool test_can_exec(void);

/* Zeroed MAP_SHARED memory, the same address in all forked helpers; lives as long as the test. */
void *test_shared(size_t size);

/* Lives in test_shared() memory. `parties` processes or threads meet, any number of times. */
struct test_barrier {
    _Atomic uint32_t generation;
    _Atomic uint32_t arrived;
    uint32_t parties;
};
void test_barrier_init(struct test_barrier *barrier, uint32_t parties);
bool test_barrier_wait(struct test_barrier *barrier,
                       int timeout_ms); /* false: timed out, a failure */

/* Asks until the answer is true or the time has passed; returns the last answer, checks nothing. */
bool test_eventually(bool (*condition)(void *), void *arg, int timeout_ms);

#endif
