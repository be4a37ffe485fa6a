/* shmqd, the program: options and exit codes, signals, standby, what a service manager sees,
 * idleness. */
#include "test/support/test.h"
#include "test/support/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NEEDS_SHMQD() \
    if (!test_can_exec() || system("command -v shmqd >/dev/null 2>&1") != 0) \
    SKIP("shmqd is not in PATH, or cannot be executed here")

static bool answers(void *context)
{
    struct wire *wire = context;

    return wire_connect(wire) == 0;
}

static pid_t start(const char *first, const char *second, struct wire *ret_wire)
{
    char *argv[] = {(char *)"shmqd", (char *)(uintptr_t)first, (char *)(uintptr_t)second, NULL};
    pid_t pid = test_start(argv);

    REQUIRE(test_eventually(answers, ret_wire, 10000));
    REQUIRE_OK(wire_hello(ret_wire, 0));
    return pid;
}

static int stop(pid_t pid)
{
    kill(pid, SIGTERM);
    return test_wait_exit(pid, 10000);
}

static int run(const char *first, const char *second, struct test_output *ret_output)
{
    char *argv[] = {(char *)"shmqd", (char *)(uintptr_t)first, (char *)(uintptr_t)second, NULL};

    return test_run(argv, ret_output, 10000);
}

TEST(options_and_exit_codes)
{
    struct test_output output;
    struct wire wire;
    pid_t pid;

    NEEDS_SHMQD();
    CHECK_INT_EQ(run("--version", NULL, &output), 0);
    CHECK_CONTAINS(output.out, "0.1.0");
    test_output_free(&output);
    CHECK_INT_EQ(run("--help", NULL, &output), 0);
    CHECK_CONTAINS(output.out, "--standby");
    test_output_free(&output);
    CHECK_INT_EQ(run("--no-such-option", NULL, &output), 2);
    CHECK_CONTAINS(output.err, "shmqd: ");
    test_output_free(&output);
    CHECK_INT_EQ(run("--bus", ".bad", &output), 2);
    test_output_free(&output);
    CHECK_INT_EQ(run("--standby", "--ephemeral", &output), 2);
    CHECK_CONTAINS(output.err, "--standby");
    test_output_free(&output);
    pid = start("--ephemeral", NULL, &wire);
    CHECK_INT_EQ(run("--ephemeral", NULL, &output), 1);
    CHECK_CONTAINS(output.err, "shmqd: ");
    CHECK_CONTAINS(output.err, "stop that one");
    test_output_free(&output);
    CHECK_INT_EQ(stop(pid), 0);
    wire_close(&wire);
}

TEST(an_interrupted_one_ends_cleanly)
{
    struct wire wire;
    struct stat stat_;
    pid_t pid;

    NEEDS_SHMQD();
    pid = start(NULL, NULL, &wire);
    kill(pid, SIGINT);
    CHECK_INT_EQ(test_wait_exit(pid, 10000), 0);
    wire_close(&wire);
    CHECK_INT_EQ(wire_connect(&wire), -ENOENT); /* the socket is gone, not just deaf */
    CHECK(stat(getenv("SHMQ_RUNTIME_DIR"), &stat_) == 0);
    CHECK(test_remove_leftovers() > 0); /* B stays */
}

TEST(sighup_reads_the_limits_again)
{
    struct wire wire, second;
    char path[300];
    struct topic_options options;
    pid_t pid;

    NEEDS_SHMQD();
    snprintf(path, sizeof(path), "%s/shmqd.conf", test_tmpdir());
    FILE *file = fopen(path, "w");

    fputs("[bus]\nephemeral = yes\n[limits]\ntopics = 1\n", file);
    fclose(file);
    pid = start("--config", path, &wire);
    topic_options_init(&options);
    options.ring_bytes = RING_MIN_BYTES;
    strcpy(options.name, "a");
    CHECK_OK(wire_topic_create(&wire, &options, 0, NULL));
    strcpy(options.name, "b");
    CHECK_ERR(wire_topic_create(&wire, &options, 0, NULL), SHMQ_ELIMIT);
    file = fopen(path, "w");
    fputs("[bus]\nephemeral = yes\n[limits]\ntopics = 2\n", file);
    fclose(file);
    kill(pid, SIGHUP);
    for (int i = 0; i < 200; i++) {
        if (wire_topic_create(&wire, &options, TOPIC_IF_NOT_EXISTS, NULL) == 0)
            break;
        test_sleep_ms(10);
    }
    CHECK_OK(wire_topic_describe(&wire, "b", NULL));
    file = fopen(path, "w");
    fputs("[limits]\ntopics = none\n", file);
    fclose(file);
    kill(pid, SIGHUP); /* refused; all stays */
    test_sleep_ms(100);
    CHECK(wire_open(&second));
    CHECK_INT_EQ(stop(pid), 0);
    wire_close(&wire);
    wire_close(&second);
}

TEST(a_standby_takes_over)
{
    struct wire wire;
    struct topic_options options;
    char *argv[] = {(char *)"shmqd", (char *)"--standby", NULL};
    pid_t first, second, third;

    NEEDS_SHMQD();
    first = start(NULL, NULL, &wire);
    topic_options_init(&options);
    options.ring_bytes = RING_MIN_BYTES;
    strcpy(options.name, "kept");
    CHECK_OK(wire_topic_create(&wire, &options, 0, NULL));
    second = test_start(argv);
    third = test_start(argv);
    test_sleep_ms(300);
    CHECK_INT_EQ(test_wait_exit(second, 0), TEST_TIMED_OUT);
    /* One that stands by is told to end: it does. */
    CHECK_INT_EQ(stop(third), 0);
    uint64_t before = test_now_ns();

    test_kill(first, SIGKILL);
    close(wire.fd);
    struct wire again;

    REQUIRE(test_eventually(answers, &again, 10000));
    CHECK(test_now_ns() - before < UINT64_C(2000000000));
    memcpy(again.boot_id, wire.boot_id, sizeof(again.boot_id));
    CHECK_OK(wire_hello(&again, wire.client));
    CHECK_EQ(again.incarnation, wire.incarnation + 1);
    CHECK_OK(wire_topic_describe(&again, "kept", NULL));
    close(wire.bus_fd);
    wire_close(&again);
    CHECK_INT_EQ(stop(second), 0);
    CHECK(test_remove_leftovers() > 0);
}

/* ---- service managers ------------------------------------------------------------------------ */

static bool hears(int fd, const char *word, int timeout_ms)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    char text[512];

    while (poll(&ready, 1, timeout_ms) == 1) {
        ssize_t length = recv(fd, text, sizeof(text) - 1, 0);

        text[length > 0 ? length : 0] = '\0';
        if (strstr(text, word))
            return true;
    }
    return false;
}

TEST(a_service_manager_is_told)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct wire wire;
    pid_t pid;
    int fd;

    NEEDS_SHMQD();
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", test_tmpdir());
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    pid = start("--ephemeral", NULL, &wire);
    CHECK(hears(fd, "READY=1", 5000));
    kill(pid, SIGHUP);
    CHECK(hears(fd, "RELOADING=1", 5000));
    CHECK(hears(fd, "READY=1", 5000));
    kill(pid, SIGTERM);
    CHECK(hears(fd, "STOPPING=1", 5000));
    CHECK_INT_EQ(test_wait_exit(pid, 10000), 0);
    unsetenv("NOTIFY_SOCKET");
    wire_close(&wire);
    close(fd);
    unlink(address.sun_path);
}

/* With the socket as descriptor 3, as systemd hands it down. */
static void exec_with_socket(void *context)
{
    int fd = *(int *)context;
    char pid[32];

    if (fd != 3) {
        dup2(fd, 3);
        close(fd);
    } else {
        fcntl(3, F_SETFD, 0);
    }
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    execlp("shmqd", "shmqd", "--ephemeral", (char *)NULL);
    _exit(126);
}

TEST(a_handed_down_socket_is_used_and_kept)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct wire wire;
    char directory[200];
    pid_t pid;
    int fd;

    NEEDS_SHMQD();
    mkdir(getenv("SHMQ_RUNTIME_DIR"), 0700);
    snprintf(directory, sizeof(directory), "%s/%s", getenv("SHMQ_RUNTIME_DIR"), getenv("SHMQ_BUS"));
    mkdir(directory, 0700);
    snprintf(address.sun_path, sizeof(address.sun_path), "%.90s/shmqd.sock", directory);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    REQUIRE(listen(fd, 8) == 0);
    for (int i = 0; i < 2; i++) {
        pid = test_spawn(exec_with_socket, &fd);
        REQUIRE(wire_connect(&wire) == 0); /* it waits in the backlog */
        CHECK_OK(wire_hello(&wire, 0));
        CHECK_INT_EQ(stop(pid), 0);
        CHECK(access(address.sun_path, F_OK) == 0); /* not ours to remove */
        wire_close(&wire);
    }
    close(fd);
    unlink(address.sun_path);
}

/* ---- idleness -------------------------------------------------------------------------------- */

static uint64_t read_status(pid_t pid, const char *field)
{
    char path[64], line[256];
    uint64_t value = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, field, strlen(field)) == 0)
            value = strtoull(line + strlen(field) + 1, NULL, 10);
    }
    if (file)
        fclose(file);
    return value;
}

TEST(idle_it_neither_wakes_nor_grows)
{
    struct wire wires[20];
    struct topic_options options;
    struct protocol_group_joined joined;
    pid_t pid;

    NEEDS_SHMQD();
    pid = start("--ephemeral", NULL, &wires[0]);
    topic_options_init(&options);
    options.ring_bytes = RING_MIN_BYTES;
    options.partitions = 4;
    strcpy(options.name, "t");
    CHECK_OK(wire_topic_create(&wires[0], &options, 0, NULL));
    for (int i = 1; i < 20; i++) {
        REQUIRE(wire_open(&wires[i]));
        CHECK_OK(wire_group_join(&wires[i], "t", i % 2 ? "g" : "h", FROM_LATEST, &joined));
    }
    test_sleep_ms(200);
    uint64_t before = read_status(pid, "voluntary_ctxt_switches:");

    test_sleep_ms(2500);
    CHECK(before > 0);
    CHECK_EQ(read_status(pid, "voluntary_ctxt_switches:"), before);
    if (!TEST_SANITIZED) {
        uint64_t kilobytes = read_status(pid, "RssAnon:") + read_status(pid, "RssShmem:");

        test_note("%llu KiB of its own, %llu KiB of shared memory, 20 clients",
                  (unsigned long long)read_status(pid, "RssAnon:"),
                  (unsigned long long)read_status(pid, "RssShmem:"));
        CHECK(kilobytes > 0 && kilobytes < 4096);
    }
    for (int i = 0; i < 20; i++)
        wire_close(&wires[i]);
    CHECK_INT_EQ(stop(pid), 0);
}

TEST_MAIN("shmqd", T(options_and_exit_codes), T(an_interrupted_one_ends_cleanly),
          T(sighup_reads_the_limits_again), T(a_standby_takes_over), T(a_service_manager_is_told),
          T(a_handed_down_socket_is_used_and_kept), T(idle_it_neither_wakes_nor_grows))
