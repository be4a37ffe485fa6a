/* SPDX-License-Identifier: Apache-2.0 */
/* Files of journals, loaded, changed and stored; see journal_bench.h. */
#include "test/support/journal_bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int compare_files(const void *a, const void *b)
{
    const struct bench_file *first = a;
    const struct bench_file *second = b;

    return first->base < second->base ? -1 : first->base > second->base;
}

static void load_file(int dir_fd, struct bench_file *file)
{
    int fd = openat(dir_fd, file->name, O_RDONLY | O_CLOEXEC);
    struct stat status;

    REQUIRE(fd >= 0 && fstat(fd, &status) == 0);
    file->length = (size_t)status.st_size;
    file->bytes = malloc(file->length + 1);
    REQUIRE(file->bytes && pread(fd, file->bytes, file->length, 0) == status.st_size);
    (void)close(fd);
}

void bench_load(const char *dir, struct bench_files *ret_files)
{
    DIR *listing = opendir(dir);
    struct bench_files files = {.count = 0};
    struct dirent *entry;

    REQUIRE(listing != NULL);
    while ((entry = readdir(listing))) {
        struct bench_file file = {.length = 0};

        if (!journal_parse_name(entry->d_name, &file.base))
            continue;
        memcpy(file.name, entry->d_name, strlen(entry->d_name) + 1);
        load_file(dirfd(listing), &file);
        files.files = realloc(files.files, (files.count + 1) * sizeof(file));
        REQUIRE(files.files != NULL);
        files.files[files.count++] = file;
    }
    (void)closedir(listing);
    if (files.count)
        qsort(files.files, files.count, sizeof(files.files[0]), compare_files);
    *ret_files = files;
}

void bench_unload(struct bench_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->files[i].bytes);
    free(files->files);
    memset(files, 0, sizeof(*files));
}

void bench_make_dir(const char *dir)
{
    (void)mkdir(dir, 0700);
}

void bench_clear_dir(const char *dir)
{
    DIR *listing = opendir(dir);
    struct dirent *entry;

    if (!listing)
        return;
    while ((entry = readdir(listing))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlinkat(dirfd(listing), entry->d_name, 0) < 0)
            (void)unlinkat(dirfd(listing), entry->d_name, AT_REMOVEDIR);
    }
    (void)closedir(listing);
}

static bool is_zero(const unsigned char *bytes, size_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

void bench_store_file(const char *dir, const struct bench_file *file)
{
    char path[400];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, file->name);
    (void)unlink(
        path); /* not truncated, which ext4 takes for a reason to write it to the disk at once */
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0 && ftruncate(fd, (off_t)file->length) == 0);
    for (size_t at = 0; at < file->length; at += 4096) {
        size_t length = min_size(4096, file->length - at);

        if (!is_zero(file->bytes + at, length))
            REQUIRE(pwrite(fd, file->bytes + at, length, (off_t)at) == (ssize_t)length);
    }
    (void)close(fd);
}

void bench_store(const char *dir, const struct bench_files *files)
{
    bench_make_dir(dir);
    bench_clear_dir(dir);
    for (size_t i = 0; i < files->count; i++)
        bench_store_file(dir, &files->files[i]);
}

unsigned bench_count_names(const char *dir, const char *suffix)
{
    DIR *listing = opendir(dir);
    struct dirent *entry;
    unsigned count = 0;

    if (!listing)
        return 0;
    while ((entry = readdir(listing))) {
        const char *dot = strrchr(entry->d_name, '.');

        count += dot && strcmp(dot, suffix) == 0;
    }
    (void)closedir(listing);
    return count;
}
