/* SPDX-License-Identifier: Apache-2.0 */
/* The log's lines, floods and sinks; and what a service manager is told. */
#include "daemon/log.h"
#include "daemon/notify.h"
#include "libshmq/clock.h"
#include "test/support/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char sunk[1 << 16]; /* "level text\n" of each line that came to the sink */
static unsigned sunk_lines;

static void sink_line(void *context, enum log_level level, const char *line)
{
    size_t length = strlen(sunk);

    CHECK(context == &sunk);
    sunk_lines++;
    (void)snprintf(sunk + length, sizeof(sunk) - length, "%s %s\n", log_level_name(level), line);
}

static void use_sink(void)
{
    sunk[0] = '\0';
    sunk_lines = 0;
    log_set_sink(sink_line, &sunk);
}

/* Runs `body` with stderr in a pipe and returns what came out. */
static const char *capture(void (*body)(void), bool journal)
{
    static char text[1 << 15];
    char stream[64];
    struct stat status;
    size_t length = 0;
    int ends[2];
    int saved = dup(STDERR_FILENO);

    REQUIRE(saved >= 0 && pipe2(ends, O_CLOEXEC) == 0 && fstat(ends[1], &status) == 0);
    (void)snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)status.st_dev,
                   (unsigned long long)status.st_ino + !journal);
    REQUIRE(setenv("JOURNAL_STREAM", stream, 1) == 0);
    REQUIRE(dup2(ends[1], STDERR_FILENO) >= 0);
    body();
    REQUIRE(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
    (void)close(ends[1]);
    for (;;) {
        ssize_t got = read(ends[0], text + length, sizeof(text) - 1 - length);

        if (got <= 0)
            break;
        length += (size_t)got;
    }
    (void)close(ends[0]);
    text[length] = '\0';
    return text;
}

static void say_two(void)
{
    log_warning("topic %s/%u: something", "orders", 3u);
    log_error("no %s", "more");
    log_debug("not at this level");
}

TEST(a_line_has_time_level_and_text)
{
    const char *text = capture(say_two, false);
    int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, milli = 0, end = 0;

    CHECK_INT_EQ(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ %n", &year, &month, &day, &hour,
                        &minute, &second, &milli, &end),
                 7);
    CHECK_INT_EQ(end, 25);
    CHECK(strncmp(text + end, "warning topic orders/3: something\n", 34) == 0);
    CHECK_CONTAINS(text, "Z error no more\n");
    CHECK(strstr(text, "not at this level") == NULL);
}

TEST(the_journal_gets_priorities_and_no_time)
{
    CHECK_STR_EQ(capture(say_two, true), "<4>topic orders/3: something\n<3>no more\n");
}

static void say_nasty(void)
{
    char long_text[3000];

    memset(long_text, 'x', sizeof(long_text));
    long_text[sizeof(long_text) - 1] = '\0';
    log_info("name '%s'", "a\nb\033[31m\x7f\xc3\xa9");
    log_info("%s", long_text);
}

TEST(one_event_is_one_line_whatever_is_in_it)
{
    const char *text = capture(say_nasty, true);
    const char *second = strchr(text, '\n');

    CHECK(strncmp(text, "<6>name 'a?b?[31m?\xc3\xa9'\n", 22) == 0);
    REQUIRE(second != NULL);
    CHECK_EQ(strlen(second + 1), 3 + LOG_LINE_BYTES - 1 + 1);
    CHECK_CONTAINS(second, "xxx...\n");
}

TEST(levels_filter)
{
    use_sink();
    for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
        enum log_level parsed;

        log_set_level((enum log_level)level);
        log_error("e");
        log_warning("w");
        log_info("i");
        log_debug("d");
        CHECK_EQ(sunk_lines, level + 1);
        sunk_lines = 0;
        REQUIRE(log_level_parse(log_level_name((enum log_level)level), &parsed) == 0);
        CHECK_EQ(parsed, level);
    }
    CHECK(log_level_parse("verbose", &(enum log_level){0}) < 0);
    CHECK_CONTAINS(sunk, "warning w\n");
}

static void flood(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        log_info("client %u is a pest", i);
}

TEST(a_flood_is_cut_off_and_counted)
{
    use_sink();
    flood(LOG_BURST + 1000);
    log_info("something else");
    /* A slow machine refills a token or two meanwhile. */
    CHECK(sunk_lines >= LOG_BURST + 1 && sunk_lines < LOG_BURST + 100);
    CHECK_CONTAINS(sunk, "something else");
    if (sunk_lines == LOG_BURST + 1) {
        log_flush();
        CHECK_CONTAINS(sunk, "warning log: 1000 similar suppressed: 'client %u is a pest'");
    }
    sunk[0] = '\0';
    flood(100);
    test_sleep_ms((unsigned)(3 * LOG_REFILL_NS / NS_PER_MS));
    sunk[0] = '\0';
    flood(1);
    CHECK_CONTAINS(sunk, "similar suppressed");
    CHECK_CONTAINS(sunk, "client 0 is a pest");
    sunk[0] = '\0';
    log_flush();
    CHECK_STR_EQ(sunk, ""); /* said once */
}

static void fill_the_pipe(void)
{
    char zeros[4096] = {0};

    REQUIRE(fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK) == 0);
    while (write(STDERR_FILENO, zeros, sizeof(zeros)) > 0)
        ;
    REQUIRE(fcntl(STDERR_FILENO, F_SETFL, 0) == 0);
    log_info("lost"); /* would block for ever: the test's timeout is the check */
    log_info("lost too");
}

TEST(a_reader_that_stopped_blocks_nobody)
{
    static char zeros[1 << 17];
    int ends[2];
    int saved = dup(STDERR_FILENO);
    char *text = zeros;
    ssize_t got;

    REQUIRE(saved >= 0 && pipe2(ends, O_CLOEXEC) == 0);
    REQUIRE(dup2(ends[1], STDERR_FILENO) >= 0);
    fill_the_pipe();
    REQUIRE(read(ends[0], zeros, sizeof(zeros)) > 0);
    log_info("again");
    REQUIRE(dup2(saved, STDERR_FILENO) >= 0);
    got = read(ends[0], zeros, sizeof(zeros) - 1);
    REQUIRE(got > 0);
    zeros[got] = '\0';
    CHECK_CONTAINS(text, "2 lines lost");
    CHECK_CONTAINS(text, "info again\n");
    CHECK(strstr(text, "lost too") == NULL);
    (void)close(saved);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void *log_some(void *context)
{
    (void)context;
    for (int i = 0; i < 40; i++)
        log_info("line of a thread, long enough to be torn apart by others if it could be");
    return NULL;
}

static void log_from_threads(void)
{
    pthread_t threads[4];

    for (size_t i = 0; i < COUNT_OF(threads); i++)
        REQUIRE(pthread_create(&threads[i], NULL, log_some, NULL) == 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        (void)pthread_join(threads[i], NULL);
}

TEST(lines_of_several_threads_stay_whole)
{
    const char *line =
        "<6>line of a thread, long enough to be torn apart by others if it could be\n";
    const char *text = capture(log_from_threads, true);
    unsigned lines = 0;

    for (; strncmp(text, line, strlen(line)) == 0; text += strlen(line))
        lines++;
    CHECK_STR_EQ(text, "");
    CHECK_EQ(lines, 160);
}

/* ---- notify ------------------------------------------------------------------------------------- */

static int bind_manager(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0 && strlen(path) < sizeof(address.sun_path));
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    REQUIRE(bind(fd, (struct sockaddr *)&address,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) == 0);
    REQUIRE(setenv("NOTIFY_SOCKET", path, 1) == 0);
    return fd;
}

static const char *receive(int fd)
{
    static char text[512];
    ssize_t got = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

    text[got > 0 ? got : 0] = '\0';
    return text;
}

TEST(the_manager_is_told)
{
    struct error_buffer why;
    char path[96];
    int fd;

    REQUIRE(unsetenv("NOTIFY_SOCKET") == 0);
    CHECK_INT_EQ(notify_ready(&why), 0);
    for (int abstract = 0; abstract < 2; abstract++) {
        (void)snprintf(path, sizeof(path), abstract ? "@shmq-test-%ld" : "/tmp/shmq-notify-%ld",
                       (long)getpid());
        fd = bind_manager(path);
        CHECK_INT_EQ(notify_ready(&why), 1);
        CHECK_STR_EQ(receive(fd), "READY=1\n");
        CHECK_INT_EQ(notify_stopping(&why), 1);
        CHECK_STR_EQ(receive(fd), "STOPPING=1\n");
        CHECK_INT_EQ(notify_status(&why, "%d topics\nand more", 5), 1);
        CHECK_STR_EQ(receive(fd), "STATUS=5 topics and more\n");
        CHECK_INT_EQ(notify_reloading(&why), 1);
        CHECK(strncmp(receive(fd), "RELOADING=1\nMONOTONIC_USEC=", 27) == 0);
        (void)close(fd);
        if (!abstract)
            REQUIRE(unlink(path) == 0);
    }
    CHECK_ERR(notify_ready(&why), SHMQ_ENOBUS); /* nobody listens there any more */
    REQUIRE(setenv("NOTIFY_SOCKET", "vsock:2:1", 1) == 0);
    CHECK_ERR(notify_ready(&why), SHMQ_ENOTSUP);
    CHECK_CONTAINS(why.text, "vsock:2:1");
}

/* A child with `fd` as descriptor 3, as a socket unit would start it. */
struct handed_over {
    int fd;
    const char *count;
    int expected;
    bool other_pid;
};

static void take_socket(void *arg)
{
    const struct handed_over *given = arg;
    struct error_buffer why = {""};
    char pid[24];
    int fd = -1;

    REQUIRE(dup2(given->fd, 3) == 3 && dup2(given->fd, 4) == 4);
    (void)snprintf(pid, sizeof(pid), "%ld", (long)getpid() + given->other_pid);
    REQUIRE(setenv("LISTEN_PID", pid, 1) == 0 && setenv("LISTEN_FDS", given->count, 1) == 0);
    CHECK_INT_EQ(notify_take_socket(&fd, &why), given->expected);
    CHECK_INT_EQ(fd, given->expected == 1 ? 3 : -1);
    if (given->expected == 1)
        CHECK_EQ(fcntl(3, F_GETFD), FD_CLOEXEC);
    CHECK(given->expected >= 0 || why.text[0]);
    CHECK(getenv("LISTEN_PID") == NULL && getenv("LISTEN_FDS") == NULL);
    CHECK_INT_EQ(notify_take_socket(&fd, &why), 0);
}

TEST(a_socket_unit_hands_over_one_listening_socket)
{
    struct sockaddr_un any = {.sun_family = AF_UNIX};
    int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int idle = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct handed_over cases[] = {
        {listening, "1", 1, false},           {listening, "1", 0, true},
        {listening, "0", 0, false},           {listening, "x", 0, false},
        {listening, "2", SHMQ_EINVAL, false}, {stream, "1", SHMQ_EINVAL, false},
        {idle, "1", SHMQ_EINVAL, false},
    };

    REQUIRE(bind(listening, (struct sockaddr *)&any, sizeof(sa_family_t)) == 0);
    REQUIRE(listen(listening, 1) == 0);
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        CHECK_INT_EQ(test_wait_exit(test_spawn(take_socket, &cases[i]), 5000), 0);
    (void)close(listening);
    (void)close(stream);
    (void)close(idle);
}

TEST_MAIN("log", T(a_line_has_time_level_and_text), T(the_journal_gets_priorities_and_no_time),
          T(one_event_is_one_line_whatever_is_in_it), T(levels_filter),
          T(a_flood_is_cut_off_and_counted), T(a_reader_that_stopped_blocks_nobody),
          T(lines_of_several_threads_stay_whole), T(the_manager_is_told),
          T(a_socket_unit_hands_over_one_listening_socket))
