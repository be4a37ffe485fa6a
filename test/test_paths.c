/* SPDX-License-Identifier: Apache-2.0 */
/* Where things are: names from options and environment, traps in /tmp, segment names. */
#include "libshmq/paths.h"
#include "test/support/test.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const struct paths_environment USER = {
    .uid = 1000, .xdg_runtime_dir = "/run/user/1000", .home = "/home/ann"};
static const struct paths_environment ROOT = {.uid = 0, .home = "/root"};
static const struct paths_options NOTHING = {.bus = NULL};

static struct paths resolve(struct paths_options options, struct paths_environment environment)
{
    struct paths paths = {.bus = ""};

    CHECK_OK(paths_resolve(&options, &environment, false, &paths, NULL));
    return paths;
}

static const char *in_tmpdir(const char *name)
{
    static char path[4][PATHS_DIR_BYTES];
    static unsigned turn;

    turn = (turn + 1) % 4;
    (void)snprintf(path[turn], sizeof(path[turn]), "%s/%s", test_tmpdir(), name);
    return path[turn];
}

TEST(defaults_are_those_of_the_documentation)
{
    struct paths user = resolve(NOTHING, USER);
    struct paths root = resolve(NOTHING, ROOT);
    struct paths_environment bare = USER;
    struct paths paths;

    CHECK_STR_EQ(user.bus, "default");
    CHECK_STR_EQ(user.socket, "/run/user/1000/shmq/default/shmqd.sock");
    CHECK_STR_EQ(user.state_bus_dir, "/home/ann/.local/state/shmq/default");
    CHECK_STR_EQ(user.meta_dir, "/home/ann/.local/state/shmq/default/meta");
    CHECK(!user.fallback);
    CHECK_STR_EQ(root.socket, "/run/shmq/default/shmqd.sock");
    CHECK_STR_EQ(root.meta_dir, "/var/lib/shmq/default/meta");
    bare.xdg_runtime_dir = "";
    bare.xdg_state_home = "/state";
    paths = resolve(NOTHING, bare);
    CHECK_STR_EQ(paths.runtime_dir, "/tmp/shmq-1000");
    CHECK_STR_EQ(paths.state_dir, "/state/shmq");
    CHECK(paths.fallback);
    bare.xdg_runtime_dir = "relative"; /* the XDG specification: ignored */
    CHECK(resolve(NOTHING, bare).fallback);
}

TEST(options_win_over_the_environment)
{
    struct paths_environment environment = USER;
    struct paths_options options = {.bus = "b", .runtime_dir = "/r", .state_dir = "/s"};
    struct paths paths;

    environment.bus = "env-bus";
    environment.runtime_dir = "/env-r";
    environment.state_dir = "/env-s";
    paths = resolve(NOTHING, environment);
    CHECK_STR_EQ(paths.socket, "/env-r/env-bus/shmqd.sock");
    CHECK_STR_EQ(paths.meta_dir, "/env-s/env-bus/meta");
    paths = resolve(options, environment);
    CHECK_STR_EQ(paths.socket, "/r/b/shmqd.sock");
    CHECK_STR_EQ(paths.runtime_bus_dir, "/r/b");
    CHECK_STR_EQ(paths.meta_dir, "/s/b/meta");
}

TEST(relative_directories_become_absolute)
{
    struct paths_options options = {.runtime_dir = "r/x", .state_dir = "s"};
    char working[PATH_MAX];
    char expected[PATH_MAX + 64];
    struct paths paths = resolve(options, USER);

    REQUIRE(getcwd(working, sizeof(working)) != NULL);
    (void)snprintf(expected, sizeof(expected), "%s/r/x/default", working);
    CHECK_STR_EQ(paths.runtime_bus_dir, expected);
}

TEST(bad_bus_names_and_missing_homes_are_told)
{
    struct paths_environment environment = USER;
    struct paths_options options = {.bus = "a/b"};
    struct error_buffer why;
    struct paths paths;

    CHECK_ERR(paths_resolve(&options, &environment, false, &paths, &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, "bus 'a/b'");
    options.bus = "..";
    CHECK_ERR(paths_resolve(&options, &environment, false, &paths, &why), SHMQ_EINVAL);
    environment.bus = "bad name";
    CHECK_ERR(paths_resolve(&NOTHING, &environment, false, &paths, &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, "$SHMQ_BUS");
    environment.bus = NULL;
    environment.home = NULL;
    CHECK_ERR(paths_resolve(&NOTHING, &environment, false, &paths, &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, "--state-dir");
    CHECK_OK(paths_resolve(&NOTHING, &environment, true, &paths, &why));
    CHECK_STR_EQ(paths.meta_dir, "");
}

/* 107 characters fit a socket's address, 108 do not. */
TEST(a_socket_path_too_long_is_refused_by_name)
{
    char directory[200];
    struct paths_options options = {.runtime_dir = directory, .bus = "b"};
    size_t fits = PATHS_SOCKET_BYTES - 1 - strlen("/b/" PATHS_SOCKET_NAME);
    struct paths_candidates found;
    struct error_buffer why;
    struct paths paths;

    memset(directory, 'd', sizeof(directory));
    directory[0] = '/';
    directory[fits] = '\0';
    CHECK_OK(paths_resolve(&options, &USER, true, &paths, &why));
    CHECK_EQ(strlen(paths.socket), PATHS_SOCKET_BYTES - 1);
    directory[fits] = 'd';
    directory[fits + 1] = '\0';
    CHECK_ERR(paths_resolve(&options, &USER, true, &paths, &why), SHMQ_EINVAL);
    CHECK_CONTAINS(why.text, "ddd/b/shmqd.sock");
    CHECK_CONTAINS(why.text, "108");
    CHECK_ERR(paths_find_sockets(&options, &USER, &found, &why), SHMQ_EINVAL);
}

TEST(clients_try_their_own_bus_and_then_the_systems)
{
    struct paths_environment environment = USER;
    struct paths_options options = {.bus = "b"};
    struct paths_candidates found;

    REQUIRE_OK(paths_find_sockets(&options, &environment, &found, NULL));
    CHECK_EQ(found.count, 2);
    CHECK_STR_EQ(found.bus, "b");
    CHECK_STR_EQ(found.list[0].socket, "/run/user/1000/shmq/b/shmqd.sock");
    CHECK_STR_EQ(found.list[1].socket, "/run/shmq/b/shmqd.sock");
    CHECK(!found.list[1].fallback);
    environment.xdg_runtime_dir = NULL;
    REQUIRE_OK(paths_find_sockets(&options, &environment, &found, NULL));
    CHECK_STR_EQ(found.list[0].socket, "/tmp/shmq-1000/b/shmqd.sock");
    CHECK(found.list[0].fallback);
    environment.runtime_dir = "/only";
    REQUIRE_OK(paths_find_sockets(&options, &environment, &found, NULL));
    CHECK_EQ(found.count, 1);
    CHECK_STR_EQ(found.list[0].socket, "/only/b/shmqd.sock");
    REQUIRE_OK(paths_find_sockets(&NOTHING, &ROOT, &found, NULL));
    CHECK_EQ(found.count, 1);
    CHECK_STR_EQ(found.list[0].socket, "/run/shmq/default/shmqd.sock");
}

TEST(a_fallback_directory_may_be_a_trap)
{
    const char *directory = in_tmpdir("fallback");
    struct error_buffer why;

    CHECK_INT_EQ(paths_check_fallback(directory, getuid(), &why), 1);
    REQUIRE(symlink("/etc", directory) == 0);
    CHECK_ERR(paths_check_fallback(directory, getuid(), &why), SHMQ_EPERM);
    CHECK_CONTAINS(why.text, "symbolic link");
    CHECK_CONTAINS(why.text, directory);
    REQUIRE(unlink(directory) == 0);
    REQUIRE(mkdir(directory, 0700) == 0);
    CHECK_OK(paths_check_fallback(directory, getuid(), &why));
    CHECK_ERR(paths_check_fallback(directory, getuid() + 1, &why), SHMQ_EPERM);
    CHECK_CONTAINS(why.text, "another user");
    for (mode_t bit = 1; bit <= 040; bit <<= 1) {
        REQUIRE(chmod(directory, 0700 | bit) == 0);
        CHECK_ERR(paths_check_fallback(directory, getuid(), &why), SHMQ_EPERM);
    }
    REQUIRE(rmdir(directory) == 0);
    REQUIRE(mknod(directory, S_IFREG | 0600, 0) == 0);
    CHECK_ERR(paths_check_fallback(directory, getuid(), &why), SHMQ_EPERM);
    CHECK_CONTAINS(why.text, "not a directory");
}

static mode_t mode_of(const char *path)
{
    struct stat status = {.st_mode = 0};

    CHECK(lstat(path, &status) == 0);
    return status.st_mode & 07777;
}

TEST(directories_are_made_with_sane_modes_whatever_the_umask)
{
    struct paths_options options = {.runtime_dir = in_tmpdir("a/run"),
                                    .state_dir = in_tmpdir("a/state")};
    struct paths_environment environment = USER;
    struct error_buffer why;
    struct paths paths = resolve(options, environment);

    (void)umask(0);
    REQUIRE_OK(paths_create_state(&paths, &why));
    REQUIRE_OK(paths_create_state(&paths, &why)); /* again: they exist */
    CHECK_EQ(mode_of(paths.meta_dir), 0700);
    CHECK_EQ(mode_of(paths.state_bus_dir), 0700);
    (void)umask(0777);
    REQUIRE_OK(paths_create_runtime(&paths, true, &why));
    REQUIRE_OK(paths_create_runtime(&paths, true, &why));
    CHECK_EQ(mode_of(paths.runtime_dir), 0755);
    CHECK_EQ(mode_of(paths.runtime_bus_dir), 0755);
    paths.fallback = true;
    CHECK_ERR(paths_create_runtime(&paths, true, &why), SHMQ_EPERM);
    REQUIRE(chmod(paths.runtime_dir, 0700) == 0);
    CHECK_OK(paths_create_runtime(&paths, true, &why));
    REQUIRE(chmod(paths.runtime_bus_dir, 0722) == 0);
    CHECK_ERR(paths_create_runtime(&paths, true, &why), SHMQ_EPERM);
    CHECK_CONTAINS(why.text, "chmod go-w");
}

TEST(a_fallback_is_made_private_even_for_a_shared_socket)
{
    struct paths_options options = {.runtime_dir = in_tmpdir("fb")};
    struct paths_environment environment = USER;
    struct paths paths = resolve(options, environment);

    paths.fallback = true;
    REQUIRE_OK(paths_create_runtime(&paths, true, NULL));
    CHECK_EQ(mode_of(paths.runtime_dir), 0700);
    CHECK_EQ(mode_of(paths.runtime_bus_dir), 0700);
}

TEST(a_file_in_the_way_is_named)
{
    struct paths_options options = {.runtime_dir = in_tmpdir("file/run")};
    struct error_buffer why;
    struct paths paths = resolve(options, USER);

    REQUIRE(mknod(in_tmpdir("file"), S_IFREG | 0600, 0) == 0);
    CHECK(paths_create_runtime(&paths, true, &why) < 0);
    CHECK_CONTAINS(why.text, "file");
}

static void canonical(const char *directory, char ret_canonical[PATHS_DIR_BYTES])
{
    CHECK_OK(paths_canonicalize(directory, ret_canonical, NULL));
}

TEST(one_directory_has_one_name_also_after_it_is_gone)
{
    char real[PATHS_DIR_BYTES];
    char other[PATHS_DIR_BYTES];
    char prefix[PATHS_PREFIX_BYTES];
    char later[PATHS_PREFIX_BYTES];

    REQUIRE(mkdir(in_tmpdir("real"), 0700) == 0);
    REQUIRE(symlink("real", in_tmpdir("link")) == 0);
    canonical(in_tmpdir("real"), real);
    canonical(in_tmpdir("link"), other);
    CHECK_STR_EQ(other, real);
    canonical(in_tmpdir("./link//../real/."), other);
    CHECK_STR_EQ(other, real);
    REQUIRE_OK(paths_segment_prefix(1, in_tmpdir("link/deep/er"), "b", prefix, NULL));
    REQUIRE(mkdir(in_tmpdir("real/deep"), 0700) == 0);
    REQUIRE_OK(paths_segment_prefix(1, in_tmpdir("real/deep//er/."), "b", later, NULL));
    CHECK_STR_EQ(later, prefix);
    canonical("/", other);
    CHECK_STR_EQ(other, "/");
    canonical("/no-such-directory-here", other);
    CHECK_STR_EQ(other, "/no-such-directory-here");
    CHECK(paths_canonicalize("/no-such-directory-here/../etc", other, NULL) < 0);
}

static void prefix_of(uid_t uid, const char *directory, const char *bus,
                      char ret_prefix[PATHS_PREFIX_BYTES])
{
    REQUIRE_OK(paths_segment_prefix(uid, directory, bus, ret_prefix, NULL));
}

TEST(segment_prefixes_differ_by_user_directory_and_bus)
{
    char a[PATHS_PREFIX_BYTES];
    char b[PATHS_PREFIX_BYTES];
    char bus[NAME_MAX_BYTES + 1];

    prefix_of(1000, "/run/x", "default", a);
    CHECK_EQ(strlen(a), strlen("/shmq.default.") + 16);
    CHECK(strncmp(a, "/shmq.default.", 14) == 0);
    CHECK_EQ(strspn(a + 14, "0123456789abcdef"), 16);
    prefix_of(1000, "/run/x", "default", b);
    CHECK_STR_EQ(a, b);
    prefix_of(1001, "/run/x", "default", b);
    CHECK(strcmp(a, b) != 0);
    prefix_of(1000, "/run/y", "default", b);
    CHECK(strcmp(a, b) != 0);
    memset(bus, 'n', sizeof(bus));
    bus[NAME_MAX_BYTES] = '\0';
    prefix_of(1000, "/run/x", bus, a);
    /* The longest suffix: ".t<u64>p<u32>.g<u64>", and the name's NUL; without the slash. */
    CHECK(strlen(a) - 1 + strlen(".t18446744073709551615p4294967295.g18446744073709551615") <=
          NAME_MAX);
    bus[NAME_MAX_BYTES - 1] = 'm'; /* beyond where the name is cut */
    prefix_of(1000, "/run/x", bus, b);
    CHECK(strcmp(a, b) != 0);
}

TEST(the_environment_is_read_as_it_is)
{
    struct paths_environment environment;

    REQUIRE(setenv("SHMQ_BUS", "from-env", 1) == 0);
    REQUIRE(unsetenv("XDG_STATE_HOME") == 0);
    paths_environment_load(&environment);
    CHECK_EQ(environment.uid, geteuid());
    CHECK_STR_EQ(environment.bus, "from-env");
    CHECK(environment.xdg_state_home == NULL);
}

TEST_MAIN("paths", T(defaults_are_those_of_the_documentation), T(options_win_over_the_environment),
          T(relative_directories_become_absolute), T(bad_bus_names_and_missing_homes_are_told),
          T(a_socket_path_too_long_is_refused_by_name),
          T(clients_try_their_own_bus_and_then_the_systems), T(a_fallback_directory_may_be_a_trap),
          T(directories_are_made_with_sane_modes_whatever_the_umask),
          T(a_fallback_is_made_private_even_for_a_shared_socket), T(a_file_in_the_way_is_named),
          T(one_directory_has_one_name_also_after_it_is_gone),
          T(segment_prefixes_differ_by_user_directory_and_bus), T(the_environment_is_read_as_it_is))
