/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of journals: whole writes, what they refuse, and the watching that other suites build on. */
#include "daemon/io.h"
#include "libshmq/base.h"
#include "test/support/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define SEEN_MAX 32

static struct io_event seen[SEEN_MAX];
static unsigned seen_count;
static int answer; /* to the next call alone */

static int note(void *context, const struct io_event *event)
{
    int now = answer;

    CHECK(context == seen);
    REQUIRE(seen_count < SEEN_MAX);
    seen[seen_count++] = *event;
    answer = 0;
    return now;
}

static int dir_fd(void)
{
    int fd = open(test_tmpdir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    REQUIRE(fd >= 0);
    return fd;
}

static int make(int dir, const char *name)
{
    int fd = -1;

    REQUIRE(io_open(dir, name, O_RDWR | O_CREAT | O_EXCL, &fd) == 0);
    return fd;
}

TEST(files_are_private_and_links_are_not_followed)
{
    int dir = dir_fd();
    int fd = make(dir, "a");
    int other = -1;
    struct stat status;

    REQUIRE(fstat(fd, &status) == 0);
    CHECK_EQ(status.st_mode & 0777, 0600);
    CHECK_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_INT_EQ(io_open(dir, "a", O_RDWR | O_CREAT | O_EXCL, &other), EEXIST);
    CHECK_INT_EQ(io_open(dir, "b", O_RDONLY, &other), ENOENT);
    REQUIRE(symlinkat("a", dir, "c") == 0);
    CHECK_INT_EQ(io_open(dir, "c", O_RDONLY, &other), ELOOP);
    CHECK_INT_EQ(other, -1);
    (void)close(fd);
    (void)close(dir);
}

TEST(names_come_change_and_go)
{
    int dir = dir_fd();
    struct stat status;

    (void)close(make(dir, "a"));
    CHECK_INT_EQ(io_rename(dir, "a", "b"), 0);
    CHECK_INT_EQ(io_rename(dir, "a", "b"), ENOENT);
    CHECK_INT_EQ(io_unlink(dir, "b"), 0);
    CHECK_INT_EQ(io_unlink(dir, "b"), ENOENT);
    CHECK_INT_EQ(io_make_dir(dir, "d"), 0);
    CHECK_INT_EQ(io_make_dir(dir, "d"), EEXIST);
    REQUIRE(fstatat(dir, "d", &status, 0) == 0);
    CHECK_EQ(status.st_mode & 07777, 0700);
    CHECK_INT_EQ(io_unlink(dir, "d"), EISDIR);
    CHECK_INT_EQ(io_sync_dir(dir), 0);
    (void)close(dir);
}

TEST(what_is_written_is_read_at_its_place)
{
    char text[16] = "";
    size_t got = 99;
    int dir = dir_fd();
    int fd = make(dir, "a");

    CHECK_INT_EQ(io_write(fd, "hello", 5, 3), 0);
    CHECK_INT_EQ(io_write(fd, "", 0, 100), 0);
    CHECK_INT_EQ(io_sync(fd), 0);
    CHECK_INT_EQ(io_read(fd, text, sizeof(text), 3, &got), 0);
    CHECK_EQ(got, 5);
    CHECK_STR_EQ(text, "hello");
    CHECK_INT_EQ(io_read(fd, text, sizeof(text), 8, &got), 0);
    CHECK_EQ(got, 0);
    io_write_back(fd, 0, 8);
    (void)close(fd);
    CHECK_INT_EQ(io_write(fd, "x", 1, 0), EBADF);
    CHECK_INT_EQ(io_read(fd, text, 1, 0, &got), EBADF);
    CHECK_INT_EQ(io_sync(fd), EBADF);
    CHECK_INT_EQ(io_sync_dir(fd), EBADF);
    CHECK_INT_EQ(io_allocate(fd, 1), EBADF);
    (void)close(dir);
}

TEST(allocation_takes_blocks_and_keeps_what_is_there)
{
    char text[3] = "";
    size_t got;
    int dir = dir_fd();
    int fd = make(dir, "a");
    struct stat status;

    CHECK_INT_EQ(io_write(fd, "ab", 2, 0), 0);
    CHECK_INT_EQ(io_allocate(fd, 1 << 20), 0);
    REQUIRE(fstat(fd, &status) == 0);
    CHECK_EQ(status.st_size, 1 << 20);
    CHECK(status.st_blocks >= (1 << 20) / 512);
    CHECK_INT_EQ(io_read(fd, text, 2, 0, &got), 0);
    CHECK_STR_EQ(text, "ab");
    (void)close(fd);
    (void)close(dir);
}

/* The limit on sizes is a disk that takes half and then nothing. */
TEST(a_write_is_whole_or_an_error)
{
    const struct rlimit limit = {.rlim_cur = 1000, .rlim_max = RLIM_INFINITY};
    struct rlimit before;
    char bytes[2000];
    int dir = dir_fd();
    int fd = make(dir, "a");

    memset(bytes, 'x', sizeof(bytes));
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    REQUIRE(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK_INT_EQ(io_write(fd, bytes, sizeof(bytes), 0), EFBIG);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK_INT_EQ(io_write(fd, bytes, sizeof(bytes), 0), 0);
    (void)close(fd);
    (void)close(dir);
}

TEST(a_watcher_sees_each_call_before_it_is_made)
{
    static const enum io_kind KINDS[] = {IO_OPEN,     IO_ALLOCATE, IO_WRITE,    IO_READ,  IO_SYNC,
                                         IO_MAKE_DIR, IO_RENAME,   IO_SYNC_DIR, IO_UNLINK};
    int dir = dir_fd();
    char byte;
    size_t got;
    int fd;

    io_watch(note, seen);
    fd = make(dir, "a");
    CHECK_INT_EQ(io_allocate(fd, 4096), 0);
    CHECK_INT_EQ(io_write(fd, "abc", 3, 7), 0);
    CHECK_INT_EQ(io_read(fd, &byte, 1, 7, &got), 0);
    CHECK_INT_EQ(io_sync(fd), 0);
    CHECK_INT_EQ(io_make_dir(dir, "d"), 0);
    CHECK_INT_EQ(io_rename(dir, "a", "b"), 0);
    CHECK_INT_EQ(io_sync_dir(dir), 0);
    CHECK_INT_EQ(io_unlink(dir, "b"), 0);
    io_watch(NULL, NULL);
    CHECK_INT_EQ(io_unlink(dir, "b"), ENOENT); /* nobody sees this */
    CHECK_EQ(seen_count, COUNT_OF(KINDS));
    for (unsigned i = 0; i < COUNT_OF(KINDS); i++) {
        CHECK_EQ(seen[i].kind, KINDS[i]);
        CHECK_INT_EQ(seen[i].fd, i >= 1 && i <= 4 ? fd : dir);
    }
    CHECK_STR_EQ(seen[0].name, "a");
    CHECK_EQ(seen[0].flags & O_CREAT, O_CREAT);
    CHECK_EQ(seen[1].length, 4096);
    CHECK(seen[2].length == 3 && seen[2].position == 7 && memcmp(seen[2].data, "abc", 3) == 0);
    CHECK(seen[3].length == 1 && seen[3].position == 7);
    CHECK_STR_EQ(seen[5].name, "d");
    CHECK_STR_EQ(seen[6].name, "a");
    CHECK_STR_EQ(seen[6].to, "b");
    CHECK_STR_EQ(seen[8].name, "b");
    (void)close(fd);
    (void)close(dir);
}

/* Nothing is done of a call that fails. */
TEST(a_watcher_fails_calls_and_makes_them_short)
{
    char text[8] = "";
    size_t got;
    int dir = dir_fd();
    int fd = make(dir, "a");
    int other = -1;
    struct stat status;

    io_watch(note, seen);
    answer = EIO;
    CHECK_INT_EQ(io_open(dir, "b", O_RDWR | O_CREAT, &other), EIO);
    CHECK(fstatat(dir, "b", &status, 0) < 0);
    answer = ENOSPC;
    CHECK_INT_EQ(io_write(fd, "abc", 3, 0), ENOSPC);
    answer = ENOSPC;
    CHECK_INT_EQ(io_allocate(fd, 100), ENOSPC);
    REQUIRE(fstat(fd, &status) == 0);
    CHECK_EQ(status.st_size, 0);
    answer = EROFS;
    CHECK_INT_EQ(io_unlink(dir, "a"), EROFS);
    answer = EROFS;
    CHECK_INT_EQ(io_rename(dir, "a", "c"), EROFS);
    answer = EROFS;
    CHECK_INT_EQ(io_make_dir(dir, "c"), EROFS);
    CHECK_INT_EQ(fstatat(dir, "a", &status, 0), 0);
    answer = EIO;
    CHECK_INT_EQ(io_sync(fd), EIO);
    answer = EIO;
    CHECK_INT_EQ(io_sync_dir(dir), EIO);
    answer = EIO;
    CHECK_INT_EQ(io_read(fd, text, 1, 0, &got), EIO);
    answer = IO_DONE;
    CHECK_INT_EQ(io_sync(fd), 0);

    seen_count = 0;
    answer = IO_SHORT;
    CHECK_INT_EQ(io_write(fd, "abcdef", 6, 2), 0);
    CHECK_EQ(seen_count, 2);
    CHECK(seen[1].length == 3 && seen[1].position == 5);
    answer = IO_SHORT;
    CHECK_INT_EQ(io_write(fd, "X", 1, 2), 0); /* half of one byte is one */
    io_watch(NULL, NULL);
    CHECK_INT_EQ(io_read(fd, text, 6, 2, &got), 0);
    CHECK_STR_EQ(text, "Xbcdef");
    (void)close(fd);
    (void)close(dir);
}

/* ---- The environment ---------------------------------------------------------------------------------- */

/* In shared memory: what a helper with this environment saw. */
struct plan_run {
    const char *spec;
    int results[6]; /* of so many writes */
    int sync;
};

static void run_plan(void *arg)
{
    struct plan_run *run = arg;
    int dir = dir_fd();
    int fd = open(test_tmpdir(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

    REQUIRE(setenv("SHMQ_IO_FAULT", run->spec, 1) == 0);
    for (unsigned i = 0; i < COUNT_OF(run->results); i++)
        run->results[i] = io_write(fd, "abcd", 4, 0);
    run->sync = io_sync_dir(dir);
    (void)close(fd);
    (void)close(dir);
}

static const struct plan_run *with_plan(const char *spec, int status)
{
    struct plan_run *run = test_shared(sizeof(*run));

    run->spec = spec;
    test_context("%s ", spec);
    CHECK_INT_EQ(test_wait_exit(test_spawn(run_plan, run), 10000), status);
    return run;
}

TEST(the_environment_fails_calls_of_programs)
{
    static const char *const BAD[] = {"write",      "write:1",       "write:0:EIO", "write:x:EIO",
                                      "write:1:",   "write:1:EI",    "wri:1:EIO",   ":1:EIO",
                                      "write:1:-5", "write:1:EIO+x", "write:1:5000"};
    const struct plan_run *run = with_plan("write:2:EIO", 0);

    CHECK(run->results[0] == 0 && run->results[1] == EIO && run->results[2] == 0);
    run = with_plan("write:3:ENOSPC+", 0);
    CHECK(run->results[1] == 0 && run->results[2] == ENOSPC && run->results[5] == ENOSPC);
    run = with_plan("write:1:122", 0);
    CHECK_INT_EQ(run->results[0], 122);
    run = with_plan("write:1:SHORT+", 0);
    CHECK(run->results[0] == 0 && run->results[5] == 0);
    run = with_plan("sync_dir:1:EROFS", 0);
    CHECK(run->results[0] == 0 && run->sync == EROFS);
    run = with_plan("", 0);
    CHECK(run->results[0] == 0 && run->sync == 0);
    for (size_t i = 0; i < COUNT_OF(BAD); i++)
        (void)with_plan(BAD[i], -SIGABRT);
}

TEST_MAIN("io", T(files_are_private_and_links_are_not_followed), T(names_come_change_and_go),
          T(what_is_written_is_read_at_its_place),
          T(allocation_takes_blocks_and_keeps_what_is_there), T(a_write_is_whole_or_an_error),
          T(a_watcher_sees_each_call_before_it_is_made),
          T(a_watcher_fails_calls_and_makes_them_short), T(the_environment_fails_calls_of_programs))
