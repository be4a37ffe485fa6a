/*
 * test_process.c: helper processes, programs, shared memory and meeting points for tests.
 *
 * Called by the thread that runs a test, and by the runner (test_wait_child). Every process that
 * is started here dies with the thread that started it (PR_SET_PDEATHSIG), so that a test that is
 * killed leaves nothing; what escapes that (a daemon in a session of its own) is the runner's to
 * find. Waits block for at most their timeout. Polling instead of SIGCHLD: tests own all signals.
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
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENTS_MAX 256
/* From the kernel's interface; its headers are missing beside musl. */
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1

/* ---- Waiting ---- */

static void nap(uint64_t *length_ns)
{
    struct timespec pause = {0, (long)*length_ns};

    nanosleep(&pause, NULL);
    if (*length_ns < 2000000)
        *length_ns *= 2;
}

static uint64_t deadline_in(int timeout_ms)
{
    return test_now_ns() + (uint64_t)timeout_ms * 1000000u;
}

bool test_wait_child(pid_t pid, int timeout_ms, int *ret_status)
{
    uint64_t deadline_ns = deadline_in(timeout_ms);
    uint64_t nap_ns = 20000;

    for (;;) {
        pid_t result = waitpid(pid, ret_status, WNOHANG);

        if (result == pid)
            return true;
        if (result < 0 && errno != EINTR) {
            *ret_status = 255 << 8; /* not our child, or reaped before: never a success */
            return true;
        }
        if (test_now_ns() >= deadline_ns)
            return false;
        nap(&nap_ns);
    }
}

static int decode_status(int status)
{
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int test_wait_exit(pid_t pid, int timeout_ms)
{
    int status = 0;

    if (!test_wait_child(pid, test_scaled_ms(timeout_ms), &status))
        return TEST_TIMED_OUT;
    return decode_status(status);
}

void test_kill(pid_t pid, int sig)
{
    int status = 0;

    if (pid <= 0) {
        FAIL("test_kill(%d): not a process", (int)pid);
        return;
    }
    kill(pid, sig);
    if (sig == SIGKILL && !test_wait_child(pid, test_scaled_ms(10000), &status))
        FAIL("process %d outlives SIGKILL", (int)pid);
}

bool test_wait_stopped(pid_t pid, int timeout_ms)
{
    uint64_t deadline_ns = deadline_in(test_scaled_ms(timeout_ms));
    uint64_t nap_ns = 20000;
    siginfo_t info;

    for (;;) {
        info.si_pid = 0;
        /* WNOWAIT: the caller may ask again, and an exit stays for test_wait_exit(). */
        if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WNOHANG | WNOWAIT) != 0)
            return false;
        if (info.si_pid == pid)
            return true;
        if (test_now_ns() >= deadline_ns)
            return false;
        nap(&nap_ns);
    }
}

bool test_eventually(bool (*condition)(void *), void *arg, int timeout_ms)
{
    uint64_t deadline_ns = deadline_in(test_scaled_ms(timeout_ms));
    uint64_t nap_ns = 20000;

    while (!condition(arg)) {
        if (test_now_ns() >= deadline_ns)
            return condition(arg);
        nap(&nap_ns);
    }
    return true;
}

/* ---- Helpers ---- */

pid_t test_fork_bound(void)
{
    pid_t parent = getpid();
    pid_t pid;

    fflush(NULL); /* else both would write what is buffered now */
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1); /* the parent died before the line above */
        test_forget_local_failures();
    }
    return pid;
}

/* Coverage counters are written by exit handlers, which a helper must not run: they are the test's. */
__attribute__((weak)) void __gcov_dump(void);

void test_exit_helper(void)
{
    fflush(NULL);
    if (__gcov_dump != NULL)
        __gcov_dump();
    _exit(test_local_failures() > 0 ? 1 : 0);
}

pid_t test_spawn(void (*fn)(void *), void *arg)
{
    pid_t pid = test_fork_bound();

    if (pid == 0) {
        fn(arg);
        test_exit_helper();
    }
    if (pid < 0) {
        FAIL("fork: %s", strerror(errno));
        test_abort();
    }
    return pid;
}

/* ---- Programs ---- */

/* TEST_EXEC_WRAPPER's words, then argv; the words point into `words`. */
static void build_arguments(char *const argv[], char *words, size_t size, char **ret_arguments)
{
    const char *wrapper = getenv("TEST_EXEC_WRAPPER");
    size_t count = 0;
    char *rest = NULL;

    snprintf(words, size, "%s", wrapper == NULL ? "" : wrapper);
    for (char *word = strtok_r(words, " ", &rest); word != NULL && count < 16;
         word = strtok_r(NULL, " ", &rest))
        ret_arguments[count++] = word;
    for (size_t i = 0; argv[i] != NULL && count < ARGUMENTS_MAX - 1; i++)
        ret_arguments[count++] = argv[i];
    ret_arguments[count] = NULL;
}

static pid_t start_program(char *const argv[], int in, int out, int err, bool own_group)
{
    char *arguments[ARGUMENTS_MAX];
    char words[1024];
    pid_t pid;

    build_arguments(argv, words, sizeof words, arguments);
    pid = test_fork_bound();
    if (pid != 0)
        return pid;
    if (own_group)
        setpgid(0, 0);
    if ((in >= 0 && dup2(in, 0) < 0) || (out >= 0 && dup2(out, 1) < 0) ||
        (err >= 0 && dup2(err, 2) < 0))
        _exit(126);
    execvp(arguments[0], arguments);
    dprintf(2, "%s: %s\n", arguments[0], strerror(errno));
    _exit(127);
}

static char *read_back(int fd, size_t *ret_length)
{
    off_t end = lseek(fd, 0, SEEK_END);
    size_t length = end > 0 ? (size_t)end : 0;
    size_t done = 0;
    char *text = calloc(1, length + 1);

    while (text != NULL && done < length) {
        ssize_t part = pread(fd, text + done, length - done, (off_t)done);

        if (part <= 0)
            break;
        done += (size_t)part;
    }
    *ret_length = done;
    return text;
}

int test_run_input(char *const argv[], const void *input, size_t input_length,
                   struct test_output *ret_output, int timeout_ms)
{
    int in = memfd_create("stdin", MFD_CLOEXEC);
    int out = memfd_create("stdout", MFD_CLOEXEC);
    int err = memfd_create("stderr", MFD_CLOEXEC);
    int status = TEST_TIMED_OUT;
    pid_t pid;

    REQUIRE(in >= 0 && out >= 0 && err >= 0);
    REQUIRE(input_length == 0 || write(in, input, input_length) == (ssize_t)input_length);
    lseek(in, 0, SEEK_SET);
    pid = start_program(argv, in, out, err, true);
    REQUIRE(pid > 0);
    status = test_wait_exit(pid, timeout_ms);
    if (status == TEST_TIMED_OUT) {
        kill(-pid, SIGKILL);
        test_kill(pid, SIGKILL);
    }
    ret_output->status = status;
    ret_output->out = read_back(out, &ret_output->out_length);
    ret_output->err = read_back(err, &ret_output->err_length);
    close(in);
    close(out);
    close(err);
    REQUIRE(ret_output->out != NULL && ret_output->err != NULL);
    return status;
}

int test_run(char *const argv[], struct test_output *ret_output, int timeout_ms)
{
    return test_run_input(argv, NULL, 0, ret_output, timeout_ms);
}

void test_output_free(struct test_output *output)
{
    free(output->out);
    free(output->err);
    memset(output, 0, sizeof *output);
}

pid_t test_start(char *const argv[])
{
    pid_t pid = start_program(argv, -1, -1, -1, false);

    REQUIRE(pid > 0);
    return pid;
}

bool test_can_exec(void)
{
    char path[4096];
    char list[] = "--list";
    char *arguments[] = {path, list, NULL};
    struct test_output output = {0};
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    bool able;

    if (length <= 0)
        return false;
    path[length] = '\0';
    able = test_run(arguments, &output, 10000) == 0;
    test_output_free(&output);
    return able;
}

/* ---- Shared memory and meeting points ---- */

void *test_shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    REQUIRE(memory != MAP_FAILED);
    return memory;
}

void test_barrier_init(struct test_barrier *barrier, uint32_t parties)
{
    atomic_init(&barrier->generation, 0);
    atomic_init(&barrier->arrived, 0);
    barrier->parties = parties;
}

bool test_barrier_wait(struct test_barrier *barrier, int timeout_ms)
{
    uint64_t deadline_ns = deadline_in(test_scaled_ms(timeout_ms));
    struct timespec slice = {0, 20000000};
    /* Acquire: the arrival below must not be seen to precede the round that it is counted for. */
    uint32_t generation = atomic_load_explicit(&barrier->generation, memory_order_acquire);

    /* acq_rel: what each party wrote before it came is seen by all after they leave. */
    if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) + 1 ==
        barrier->parties) {
        /* Relaxed is enough: nobody arrives before the release store of the generation below. */
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&barrier->generation, generation + 1, memory_order_release);
        syscall(SYS_futex, &barrier->generation, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
        return true;
    }
    while (atomic_load_explicit(&barrier->generation, memory_order_acquire) == generation) {
        if (test_now_ns() >= deadline_ns)
            return FAIL("barrier: only %u of %u arrived",
                        atomic_load_explicit(&barrier->arrived, memory_order_relaxed),
                        barrier->parties);
        syscall(SYS_futex, &barrier->generation, FUTEX_WAIT, generation, &slice, NULL, 0);
    }
    return true;
}
