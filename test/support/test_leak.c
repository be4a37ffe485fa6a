/*
 * test_leak.c: what a test may not leave behind: descriptors, processes, segments, sockets.
 *
 * Descriptors and direct children are checked at the end of the test's own child; orphans,
 * segments and sockets by the runner after that child is gone. The runner is a child subreaper,
 * so every orphan below it becomes its child, whatever session or group it moved to: when
 * waitpid(-1) says ECHILD nothing is left. Blocks for at most GRACE_MS (processes that are
 * already on their way out are no leak) and until what was killed has been reaped.
 */
#include "test/support/test_internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE_MS        500
#define SHM_DIRECTORY   "/dev/shm"
#define DESCRIPTORS_MAX 4096
#define TARGET_SIZE     120

/* ---- Descriptors ---- */

struct test_descriptors {
    size_t count;
    struct {
        int fd;
        char target[TARGET_SIZE];
    } entry[];
};

static void read_target(int fd, char target[TARGET_SIZE])
{
    char path[64];
    ssize_t length;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    length = readlink(path, target, TARGET_SIZE - 1);
    target[length > 0 ? length : 0] = '\0';
}

struct test_descriptors *test_descriptors_new(void)
{
    struct test_descriptors *list;
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;

    list = calloc(1, sizeof *list + DESCRIPTORS_MAX * sizeof list->entry[0]);
    if (list == NULL || directory == NULL) {
        FAIL("cannot list descriptors: %s", strerror(errno));
        test_abort();
    }
    while ((entry = readdir(directory)) != NULL && list->count < DESCRIPTORS_MAX) {
        int fd = (int)strtol(entry->d_name, NULL, 10);

        if (!isdigit((unsigned char)entry->d_name[0]) || fd == dirfd(directory))
            continue;
        list->entry[list->count].fd = fd;
        read_target(fd, list->entry[list->count].target);
        list->count++;
    }
    closedir(directory);
    return list;
}

static bool was_open(const struct test_descriptors *before, int fd, const char *target)
{
    for (size_t i = 0; i < before->count; i++)
        if (before->entry[i].fd == fd)
            return strcmp(before->entry[i].target, target) == 0;
    return false;
}

void test_descriptors_check(struct test_descriptors *before)
{
    struct test_descriptors *now = test_descriptors_new();

    for (size_t i = 0; i < now->count; i++)
        if (!was_open(before, now->entry[i].fd, now->entry[i].target))
            FAIL("descriptor left open: %d -> %s", now->entry[i].fd, now->entry[i].target);
    free(now);
    free(before);
}

/* ---- Processes ---- */

struct process {
    pid_t pid;
    pid_t parent;
    char state;
    bool below; /* a descendant of the process that asks */
    char name[40];
};

static bool read_process(const char *pid_text, struct process *ret_process)
{
    char path[300];
    char line[512];
    const char *open_mark;
    const char *close_mark;
    FILE *file;
    bool good;

    snprintf(path, sizeof path, "/proc/%s/stat", pid_text);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    good = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    /* The name may hold spaces and parentheses: its end is the last one of them. */
    open_mark = good ? strchr(line, '(') : NULL;
    close_mark = good ? strrchr(line, ')') : NULL;
    if (open_mark == NULL || close_mark == NULL)
        return false;
    snprintf(ret_process->name, sizeof ret_process->name, "%.*s", (int)(close_mark - open_mark - 1),
             open_mark + 1);
    ret_process->pid = (pid_t)strtol(pid_text, NULL, 10);
    ret_process->below = false;
    return sscanf(close_mark + 1, " %c %d", &ret_process->state, &ret_process->parent) == 2;
}

static struct process *list_processes(size_t *ret_count)
{
    size_t capacity = 256;
    size_t count = 0;
    struct process *list = calloc(capacity, sizeof *list);
    DIR *directory = opendir("/proc");
    struct dirent *entry;

    while (list != NULL && directory != NULL && (entry = readdir(directory)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        if (count == capacity) {
            struct process *larger = realloc(list, 2 * capacity * sizeof *list);

            if (larger == NULL)
                break;
            list = larger;
            capacity *= 2;
        }
        if (read_process(entry->d_name, &list[count]))
            count++;
    }
    if (directory != NULL)
        closedir(directory);
    *ret_count = list == NULL ? 0 : count;
    return list;
}

static void mark_descendants(struct process *list, size_t count, pid_t root)
{
    bool grown = true;

    while (grown) {
        grown = false;
        for (size_t i = 0; i < count; i++) {
            bool below = list[i].parent == root;

            for (size_t j = 0; j < count && !below; j++)
                below = list[j].below && list[j].pid == list[i].parent;
            if (below && !list[i].below) {
                list[i].below = true;
                grown = true;
            }
        }
    }
}

static size_t visit_descendants(void (*visit)(const struct process *))
{
    size_t count;
    size_t found = 0;
    struct process *list = list_processes(&count);

    mark_descendants(list, count, getpid());
    for (size_t i = 0; i < count; i++) {
        if (!list[i].below || list[i].state == 'Z' || list[i].state == 'X')
            continue;
        visit(&list[i]);
        found++;
    }
    free(list);
    return found;
}

static void report_process(const struct process *process)
{
    FAIL("process left running: %d (%s), state %c, parent %d", (int)process->pid, process->name,
         process->state, (int)process->parent);
}

static void print_process(const struct process *process)
{
    printf("#   running: %d (%s), state %c, parent %d\n", (int)process->pid, process->name,
           process->state, (int)process->parent);
}

static void kill_process(const struct process *process)
{
    kill(process->pid, SIGKILL);
}

void test_descendants_print(void)
{
    visit_descendants(print_process);
}

/* Any child not yet dead? Zombies are reaped on the way. */
static bool have_children(void)
{
    int status;
    pid_t pid;

    do
        pid = waitpid(-1, &status, WNOHANG);
    while (pid > 0 || (pid < 0 && errno == EINTR));
    return pid == 0;
}

static bool children_gone(void *unused)
{
    (void)unused;
    return !have_children();
}

void test_children_check(void)
{
    if (!test_eventually(children_gone, NULL, GRACE_MS))
        visit_descendants(report_process);
}

void test_descendants_end(bool quiet)
{
    if (!quiet && !test_eventually(children_gone, NULL, GRACE_MS))
        visit_descendants(report_process);
    /* Again and again: who is being killed may have forked since the list was read. */
    for (unsigned round = 0; have_children(); round++) {
        visit_descendants(kill_process);
        test_sleep_ms(round < 20 ? 1 : 20);
    }
}

/* ---- Segments and sockets ---- */

/* The name itself, not the beginning of another's number: "t12x3" does not own "t12x34". */
static bool names_bus(const char *file, const char *bus)
{
    const char *at = file;

    while ((at = strstr(at, bus)) != NULL) {
        if ((at == file || !isalnum((unsigned char)at[-1])) &&
            !isdigit((unsigned char)at[strlen(bus)]))
            return true;
        at++;
    }
    return false;
}

unsigned test_segments_remove(const char *bus, bool report)
{
    DIR *directory = opendir(SHM_DIRECTORY);
    struct dirent *entry;
    unsigned count = 0;

    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, "shmq.", 5) != 0 || !names_bus(entry->d_name, bus))
            continue;
        if (report)
            FAIL("segment left behind: " SHM_DIRECTORY "/%s", entry->d_name);
        if (unlinkat(dirfd(directory), entry->d_name, 0) == 0)
            count++;
    }
    if (directory != NULL)
        closedir(directory);
    return count;
}

static struct {
    unsigned count;
    bool report;
} socket_walk; /* nftw() hands its callback no argument */

static int visit_for_sockets(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)where;
    if (kind == FTW_F && S_ISSOCK(info->st_mode)) {
        if (socket_walk.report)
            FAIL("socket left behind: %s", path);
        unlink(path);
        socket_walk.count++;
    }
    return 0;
}

unsigned test_sockets_remove(const char *directory, bool report)
{
    socket_walk.count = 0;
    socket_walk.report = report;
    nftw(directory, visit_for_sockets, 16, FTW_PHYS);
    return socket_walk.count;
}

/* ---- The test's own directory ---- */

bool test_directory_create(char *ret_path, size_t size)
{
    const char *base = getenv("TMPDIR");
    char path[200];

    /* A socket's address holds 108 bytes; the bus's folder and file have to fit behind this. */
    if (base == NULL || base[0] != '/' || strlen(base) > 40)
        base = "/tmp";
    snprintf(ret_path, size, "%s/shmq-test-XXXXXX", base);
    if (mkdtemp(ret_path) == NULL)
        return false;
    snprintf(path, sizeof path, "%s/run", ret_path);
    if (mkdir(path, 0700) != 0)
        return false;
    snprintf(path, sizeof path, "%s/state", ret_path);
    return mkdir(path, 0700) == 0;
}

static int visit_to_unlock(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)where;
    if (kind == FTW_D || kind == FTW_DNR)
        chmod(path, 0700); /* a test may have taken its own permission away */
    return 0;
}

static int visit_to_remove(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)where;
    if (kind == FTW_DP || kind == FTW_DNR)
        rmdir(path);
    else
        unlink(path);
    return 0;
}

void test_directory_remove(const char *path)
{
    if (path[0] != '/')
        return;
    nftw(path, visit_to_unlock, 16, FTW_PHYS);
    nftw(path, visit_to_remove, 16, FTW_DEPTH | FTW_PHYS);
}
