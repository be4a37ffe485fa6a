/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of journals, and in test builds who watches them; see io.h. */
#include "daemon/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef SHMQ_FAULTS

#include "libshmq/base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* What the environment wants to fail. Set up once, read-only afterwards but for the count. */
struct io_plan {
    bool strikes;
    enum io_kind kind;
    uint64_t nth;  /* from this call of the kind on */
    uint64_t last; /* to this one */
    int error;     /* or IO_SHORT */
};

static struct io_plan plan;
static _Atomic uint64_t passes; /* of plan.kind; relaxed: a count that orders nothing */
static pthread_once_t plan_once = PTHREAD_ONCE_INIT;
static io_watch_fn *watcher;
static void *watcher_context;

static const char *const KIND_NAMES[IO_KINDS] = {
    [IO_OPEN] = "open",         [IO_WRITE] = "write",       [IO_SYNC] = "sync",
    [IO_SYNC_DIR] = "sync_dir", [IO_ALLOCATE] = "allocate", [IO_RENAME] = "rename",
    [IO_UNLINK] = "unlink",     [IO_MAKE_DIR] = "make_dir", [IO_READ] = "read",
};

static const struct {
    const char *name;
    int error;
} ERRORS[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
    {"EACCES", EACCES}, {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM}, {"SHORT", IO_SHORT},
};

const char *io_kind_name(enum io_kind kind)
{
    return kind < IO_KINDS ? KIND_NAMES[kind] : "?";
}

static bool parse_error(const char *text, int *ret_error)
{
    char *end;
    long number = strtol(text, &end, 10);

    for (size_t i = 0; i < COUNT_OF(ERRORS); i++) {
        if (strcmp(text, ERRORS[i].name) == 0) {
            *ret_error = ERRORS[i].error;
            return true;
        }
    }
    *ret_error = (int)number;
    return end != text && *end == '\0' && number > 0 && number < 4096;
}

/* +[MORE]: the calls behind the nth that fail as well. Cuts it off. */
static bool parse_more(char *text, uint64_t nth, uint64_t *ret_last)
{
    char *more = strchr(text, '+');
    char *end;

    *ret_last = nth;
    if (!more)
        return true;
    *more++ = '\0';
    *ret_last = *more ? nth + strtoull(more, &end, 10) : UINT64_MAX;
    return *more == '\0' || *end == '\0';
}

/* KIND:NTH:ERROR[+[MORE]] */
static bool parse_plan(const char *spec, struct io_plan *ret_plan)
{
    char text[64];
    char *nth;
    char *error;
    char *end;
    size_t length = strlen(spec);

    if (length == 0 || length >= sizeof(text))
        return false;
    memcpy(text, spec, length + 1);
    nth = strchr(text, ':');
    error = nth ? strchr(nth + 1, ':') : NULL;
    if (!error)
        return false;
    *nth++ = *error++ = '\0';
    ret_plan->kind = 0;
    while (ret_plan->kind < IO_KINDS && strcmp(KIND_NAMES[ret_plan->kind], text) != 0)
        ret_plan->kind++;
    ret_plan->nth = strtoull(nth, &end, 10);
    ret_plan->strikes = true;
    return ret_plan->kind < IO_KINDS && end != nth && *end == '\0' && ret_plan->nth > 0 &&
           parse_more(error, ret_plan->nth, &ret_plan->last) &&
           parse_error(error, &ret_plan->error);
}

/* A test whose fault never strikes would pass for the wrong reason: a bad plan ends the process. */
static void read_environment(void)
{
    const char *spec = getenv("SHMQ_IO_FAULT");
    struct io_plan made = {.strikes = false};

    if (!spec || !*spec)
        return;
    if (!parse_plan(spec, &made)) {
        (void)fprintf(stderr,
                      "shmq: SHMQ_IO_FAULT: not KIND:NTH:ERROR[+[MORE]]; mend the environment\n");
        abort();
    }
    plan = made;
}

void io_watch(io_watch_fn *watch, void *context)
{
    watcher = watch;
    watcher_context = context;
}

static int tell(const struct io_event *event)
{
    uint64_t pass;

    if (watcher)
        return watcher(watcher_context, event);
    (void)pthread_once(&plan_once, read_environment);
    if (!plan.strikes || plan.kind != event->kind)
        return 0;
    pass = atomic_fetch_add_explicit(&passes, 1, memory_order_relaxed) + 1;
    return pass >= plan.nth && pass <= plan.last ? plan.error : 0;
}

/* Returns from the function if the call is to fail. */
#define TELL(...) \
    do { \
        int told_error = tell(&(const struct io_event){__VA_ARGS__}); \
\
        if (told_error > 0 || told_error == IO_DONE) \
            return told_error > 0 ? told_error : 0; \
    } while (0)

/* Says how much of a write may happen at once, and whether it fails. */
static int tell_write(int fd, const void *data, size_t length, uint64_t position,
                      size_t *ret_length)
{
    int told = tell(&(const struct io_event){
        .kind = IO_WRITE, .fd = fd, .data = data, .length = length, .position = position});

    *ret_length = told == IO_SHORT && length > 1 ? length / 2 : length;
    return told == IO_SHORT ? 0 : told;
}

#else

#define TELL(...) ((void)0)

static inline int tell_write(int fd, const void *data, size_t length, uint64_t position,
                             size_t *ret_length)
{
    (void)fd;
    (void)data;
    (void)position;
    *ret_length = length;
    return 0;
}

#endif

int io_open(int dir_fd, const char *name, int flags, int *ret_fd)
{
    int fd;

    TELL(.kind = IO_OPEN, .fd = dir_fd, .name = name, .flags = flags);
    do
        fd = openat(dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return errno;
    *ret_fd = fd;
    return 0;
}

int io_write(int fd, const void *data, size_t length, uint64_t position)
{
    const char *bytes = data;

    while (length > 0) {
        size_t part;
        int error = tell_write(fd, bytes, length, position, &part);
        ssize_t written;

        if (error)
            return error;
        written = pwrite(fd, bytes, part, (off_t)position);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return errno;
        if (written == 0)
            return ENOSPC;
        bytes += written;
        position += (uint64_t)written;
        length -= (size_t)written;
    }
    return 0;
}

int io_read(int fd, void *data, size_t length, uint64_t position, size_t *ret_read)
{
    char *bytes = data;
    size_t done = 0;

    TELL(.kind = IO_READ, .fd = fd, .length = length, .position = position);
    while (done < length) {
        ssize_t got = pread(fd, bytes + done, length - done, (off_t)(position + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_read = done;
    return 0;
}

int io_sync(int fd)
{
    TELL(.kind = IO_SYNC, .fd = fd);
    while (fdatasync(fd) < 0) {
        if (errno != EINTR)
            return errno;
    }
    return 0;
}

int io_sync_dir(int dir_fd)
{
    TELL(.kind = IO_SYNC_DIR, .fd = dir_fd);
    while (fsync(dir_fd) < 0) {
        if (errno != EINTR)
            return errno;
    }
    return 0;
}

int io_allocate(int fd, uint64_t bytes)
{
    TELL(.kind = IO_ALLOCATE, .fd = fd, .length = bytes);
    /* Not posix_fallocate(), which writes zeros by itself where the file system cannot. */
    while (fallocate(fd, 0, 0, (off_t)bytes) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EOPNOTSUPP && errno != ENOSYS)
            return errno;
        return ftruncate(fd, (off_t)bytes) < 0 ? errno : 0;
    }
    return 0;
}

void io_write_back(int fd, uint64_t position, uint64_t length)
{
    (void)sync_file_range(fd, (off_t)position, (off_t)length, SYNC_FILE_RANGE_WRITE);
}

int io_rename(int dir_fd, const char *from, const char *to)
{
    TELL(.kind = IO_RENAME, .fd = dir_fd, .name = from, .to = to);
    return renameat(dir_fd, from, dir_fd, to) < 0 ? errno : 0;
}

int io_unlink(int dir_fd, const char *name)
{
    TELL(.kind = IO_UNLINK, .fd = dir_fd, .name = name);
    return unlinkat(dir_fd, name, 0) < 0 ? errno : 0;
}

int io_make_dir(int dir_fd, const char *name)
{
    TELL(.kind = IO_MAKE_DIR, .fd = dir_fd, .name = name);
    return mkdirat(dir_fd, name, 0700) < 0 ? errno : 0;
}
