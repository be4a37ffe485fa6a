/*
 * test.c: checks, notes, randomness and clocks of the harness; runs inside the tests.
 *
 * Failures are counted in shared memory (struct test_state), so that a failed check of a helper
 * process fails the test whatever its exit status becomes. Each failure is one write(2) to
 * stderr, whole lines only, because several processes write to the same captured file. Nothing
 * here blocks. A process that dies inside test_fail() has counted the failure before it printed.
 */
#include "test/support/test_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct test_environment test_env = {.note_fd = -1};

static _Atomic uint64_t local_failures;
static _Thread_local char context[160];

/* The library's text for a code, where the suite links the library. */
__attribute__((weak)) const char *shmq_strerror(int error);

/* Helpers are forked by tests that may have threads by then; the runtime would refuse by default. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

static const char *describe_code(int64_t code)
{
    const char *text = NULL;

    if (code < 0 && code >= INT32_MIN && shmq_strerror != NULL)
        text = shmq_strerror((int)code);
    return text == NULL ? "" : text;
}

static void store_failure(const char *file, int line, const char *text)
{
    struct test_state *state = test_env.state;
    uint32_t index;

    /* Relaxed: the runner reads only after it has reaped every writer. */
    atomic_fetch_add_explicit(&state->failures, 1, memory_order_relaxed);
    index = atomic_fetch_add_explicit(&state->failures_stored, 1, memory_order_relaxed);
    if (index >= TEST_FAILURES_KEPT)
        return;
    snprintf(state->failure[index].file, sizeof state->failure[index].file, "%s", file);
    state->failure[index].line = line;
    snprintf(state->failure[index].text, sizeof state->failure[index].text, "%s", text);
}

static void write_whole(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, text, length);

        if (written <= 0)
            return;
        text += written;
        length -= (size_t)written;
    }
}

bool test_fail(const char *file, int line, const char *format, ...)
{
    char text[sizeof test_env.state->failure[0].text];
    char whole[sizeof text + 256];
    size_t used = strlen(context);
    va_list arguments;
    int length;

    memcpy(text, context, used);
    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - used, format, arguments);
    va_end(arguments);
    store_failure(file, line, text);
    atomic_fetch_add_explicit(&local_failures, 1, memory_order_relaxed);
    length = snprintf(whole, sizeof whole, "%s:%d: %s [pid %d]\n", file, line, text, (int)getpid());
    if (length > 0)
        write_whole(STDERR_FILENO, whole, strlen(whole));
    return false;
}

/* Counted so that a test without any check can be refused. */
static void count_check(void)
{
    atomic_fetch_add_explicit(&test_env.state->checks, 1, memory_order_relaxed);
}

bool test_check(bool ok, const char *text, const char *file, int line)
{
    count_check();
    return ok ? true : test_fail(file, line, "%s failed", text);
}

bool test_check_eq(uint64_t a, uint64_t b, const char *a_text, const char *b_text, const char *file,
                   int line)
{
    count_check();
    if (a == b)
        return true;
    return test_fail(file, line,
                     "%s == %s failed: %" PRIu64 " (0x%" PRIx64 ") != %" PRIu64 " (0x%" PRIx64 ")",
                     a_text, b_text, a, a, b, b);
}

bool test_check_int(int64_t a, int64_t b, const char *a_text, const char *b_text, const char *file,
                    int line)
{
    count_check();
    if (a == b)
        return true;
    return test_fail(file, line, "%s == %s failed: %" PRId64 " != %" PRId64, a_text, b_text, a, b);
}

bool test_check_ok(int64_t result, const char *text, const char *file, int line)
{
    count_check();
    if (result >= 0)
        return true;
    return test_fail(file, line, "%s failed: %" PRId64 " %s", text, result, describe_code(result));
}

bool test_check_err(int64_t result, int64_t code, const char *text, const char *code_text,
                    const char *file, int line)
{
    count_check();
    if (result == code)
        return true;
    return test_fail(file, line, "%s should return %s (%" PRId64 "), not %" PRId64 " %s", text,
                     code_text, code, result, describe_code(result));
}

bool test_check_str(const char *a, const char *b, const char *a_text, const char *b_text,
                    const char *file, int line)
{
    count_check();
    if (a != NULL && b != NULL && strcmp(a, b) == 0)
        return true;
    return test_fail(file, line, "%s equals %s failed: \"%.120s\" != \"%.120s\"", a_text, b_text,
                     a == NULL ? "(null)" : a, b == NULL ? "(null)" : b);
}

bool test_check_contains(const char *text, const char *part, const char *name, const char *file,
                         int line)
{
    count_check();
    if (text != NULL && part != NULL && strstr(text, part) != NULL)
        return true;
    return test_fail(file, line, "%s does not contain \"%.100s\": \"%.200s\"", name,
                     part == NULL ? "(null)" : part, text == NULL ? "(null)" : text);
}

_Noreturn void test_abort(void)
{
    /* Not exit(): other threads may still use what its handlers would take down. */
    fflush(stdout);
    _exit(1);
}

_Noreturn void test_skip(const char *format, ...)
{
    struct test_state *state = test_env.state;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(state->skip_reason, sizeof state->skip_reason, format, arguments);
    va_end(arguments);
    atomic_store_explicit(&state->finished, 1, memory_order_relaxed);
    fflush(stdout);
    _exit(TEST_EXIT_SKIP);
}

uint64_t test_failures(void)
{
    return atomic_load_explicit(&test_env.state->failures, memory_order_relaxed);
}

uint64_t test_local_failures(void)
{
    return atomic_load_explicit(&local_failures, memory_order_relaxed);
}

void test_forget_local_failures(void)
{
    atomic_store_explicit(&local_failures, 0, memory_order_relaxed);
}

void test_context(const char *format, ...)
{
    va_list arguments;

    context[0] = '\0';
    if (format == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);
}

void test_note(const char *format, ...)
{
    char text[600];
    int used = snprintf(text, sizeof text, "# %s: ", test_env.name);
    size_t length;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text + used, sizeof text - (size_t)used - 1, format, arguments);
    va_end(arguments);
    length = strlen(text);
    text[length++] = '\n';
    write_whole(test_env.note_fd < 0 ? STDOUT_FILENO : test_env.note_fd, text, length);
}

const char *test_name(void)
{
    return test_env.name;
}

const char *test_bus_name(void)
{
    return test_env.bus;
}

const char *test_tmpdir(void)
{
    return test_env.directory;
}

unsigned test_remove_leftovers(void)
{
    return test_segments_remove(test_env.bus, false) +
           test_sockets_remove(test_env.directory, false);
}

int test_scaled_ms(int timeout_ms)
{
    const char *text = getenv("TEST_TIMEOUT_FACTOR");
    long factor = text == NULL ? 1 : strtol(text, NULL, 10);

    if (factor < 1 || factor > 1000)
        factor = 1;
    if (TEST_SANITIZED)
        factor *= 4;
    return timeout_ms > INT32_MAX / factor ? INT32_MAX : timeout_ms * (int)factor;
}

uint64_t test_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void test_sleep_ms(unsigned duration_ms)
{
    struct timespec rest = {(time_t)(duration_ms / 1000), (long)(duration_ms % 1000) * 1000000};

    while (nanosleep(&rest, &rest) != 0)
        ;
}

uint64_t test_hash(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

uint64_t test_seed(void)
{
    return test_env.seed;
}

void test_random_init(struct test_random *random, uint64_t seed)
{
    random->state = seed == 0 ? 0x9e3779b97f4a7c15u : seed; /* xorshift never leaves zero */
    test_random_next(random);
}

uint64_t test_random_next(struct test_random *random)
{
    uint64_t x = random->state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random->state = x;
    return x * 0x2545f4914f6cdd1du;
}

uint64_t test_random_below(struct test_random *random, uint64_t bound)
{
    return bound == 0 ? 0 : test_random_next(random) % bound;
}

void test_random_fill(struct test_random *random, void *buffer, size_t length)
{
    unsigned char *bytes = buffer;

    for (size_t i = 0; i < length; i++)
        bytes[i] = (unsigned char)(test_random_next(random) >> 56);
}
