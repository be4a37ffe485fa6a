/* SPDX-License-Identifier: Apache-2.0 */
/* What the suites of the metadata store have in common; see store_bench.h. */
#include "test/support/store_bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct model live;
struct model played;
struct test_random rng;
struct error_buffer why;

const char *store_dir(void)
{
    static char dir[300];

    (void)snprintf(dir, sizeof(dir), "%s/meta", test_tmpdir());
    (void)mkdir(dir, 0700);
    return dir;
}

struct store *open_store(struct model *model)
{
    struct store *store = NULL;

    memset(model, 0, sizeof(*model));
    if (!CHECK_OK(store_open(store_dir(), &MODEL_CALLBACKS, model, &store, &why)))
        FAIL("%s", why.text);
    REQUIRE(store != NULL);
    return store;
}

/* Opens, compares with `live`, and closes. */
void check_replay(void)
{
    store_close(open_store(&played));
    CHECK(model_equals(&played, &live));
}

void do_one(struct store *store, const struct model_operation *operation)
{
    if (!CHECK_OK(model_put(store, operation, &why)))
        FAIL("%s", why.text);
    model_apply(&live, operation);
}

void do_random(struct store *store, unsigned count, bool snapshots)
{
    struct model_operation operation;

    for (unsigned i = 0; i < count; i++) {
        do
            model_draw(&live, &rng, &operation);
        while (operation.kind == MODEL_SNAPSHOT && !snapshots);
        do_one(store, &operation);
    }
}

/* An operation that makes a difference, so that the states before and after can be told apart. */
void do_change(struct store *store)
{
    static struct model before;
    struct model_operation operation;

    before = live;
    do {
        live = before;
        model_draw(&live, &rng, &operation);
        model_apply(&live, &operation);
    } while (model_equals(&live, &before));
    live = before;
    do_one(store, &operation);
}

/* ---- Files of the directory ----------------------------------------------------------------------- */

unsigned count_files(const char *suffix, uint64_t *ret_newest)
{
    DIR *dir = opendir(store_dir());
    struct dirent *entry;
    unsigned count = 0;

    REQUIRE(dir != NULL);
    *ret_newest = 0;
    while ((entry = readdir(dir))) {
        const char *dot = strrchr(entry->d_name, '.');
        uint64_t base;

        if (!dot || strcmp(dot, suffix) != 0)
            continue;
        count++;
        if (journal_parse_name(entry->d_name, &base))
            *ret_newest = max_u64(*ret_newest, base);
    }
    (void)closedir(dir);
    return count;
}

const char *journal_path(uint64_t base)
{
    static char path[400];
    char name[JOURNAL_NAME_BYTES];

    journal_format_name(base, name);
    (void)snprintf(path, sizeof(path), "%s/%s", store_dir(), name);
    return path;
}

unsigned char *read_journal(uint64_t base, size_t *ret_bytes)
{
    int fd = open(journal_path(base), O_RDONLY | O_CLOEXEC);
    struct stat status;
    unsigned char *bytes;

    REQUIRE(fd >= 0 && fstat(fd, &status) == 0);
    *ret_bytes = (size_t)status.st_size;
    bytes = malloc(*ret_bytes);
    REQUIRE(bytes && pread(fd, bytes, *ret_bytes, 0) == status.st_size);
    (void)close(fd);
    return bytes;
}

void write_journal(uint64_t base, const unsigned char *bytes, size_t length)
{
    int fd = open(journal_path(base), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    REQUIRE(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    (void)close(fd);
}

void clear_dir(void)
{
    struct journal_place place = {.dir = store_dir(),
                                  .dir_fd = open(store_dir(), O_RDONLY | O_CLOEXEC)};

    REQUIRE(place.dir_fd >= 0);
    REQUIRE_OK(journal_remove_below(&place, UINT64_MAX, &why));
    (void)close(place.dir_fd);
}
