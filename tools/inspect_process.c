/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says of a process; see inspect.h. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/inspect.h"
#include "tools/outbuf.h"

static ssize_t read_file(const char *path, char *text, size_t bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0)
        return -1;
    length = read(fd, text, bytes - 1);
    (void)close(fd);
    text[length > 0 ? length : 0] = '\0';
    return length;
}

void inspect_process(uint32_t pid, uint64_t start_time, struct inspect_process *ret_process)
{
    char path[64];
    char text[1024];
    const char *at;
    const char *open_bracket;
    struct inspect_process made = {.pid = pid, .state = '?', .command = "?"};

    *ret_process = made;
    (void)snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", pid);
    if (pid == 0 || read_file(path, text, sizeof(text)) <= 0)
        return;
    /* "pid (comm) state ...": comm may hold anything, so the last bracket counts. */
    open_bracket = strchr(text, '(');
    at = strrchr(text, ')');
    if (!open_bracket || !at || !at[1])
        return;
    (void)snprintf(made.command, sizeof(made.command), "%.*s", (int)(at - open_bracket - 1),
                   open_bracket + 1);
    text_make_printable(made.command);
    made.state = at[2];
    at += 2;
    for (int field = 3; field < 22 && at; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    made.exists = at && (start_time == 0 || strtoull(at, NULL, 10) == start_time);
    *ret_process = made;
}

/* "lock:\t1: OFDLCK  ADVISORY  WRITE -1 00:1a:4711 1099511627776 1099511627776" */
static bool line_holds_lock(const char *line, ino_t inode, uint64_t byte)
{
    const char *at = strstr(line, "OFDLCK");
    unsigned long long number = 0;
    unsigned long long first = 0;
    char type[16];

    if (!at || sscanf(at, "OFDLCK %*s %15s %*d %*x:%*x:%llu %llu", type, &number, &first) != 3)
        return false;
    return number == (unsigned long long)inode && first == byte;
}

static bool file_holds_lock(const char *path, ino_t inode, uint64_t byte)
{
    char text[4096];
    char *rest = NULL;

    if (read_file(path, text, sizeof(text)) <= 0)
        return false;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "lock:", 5) == 0 && line_holds_lock(line, inode, byte))
            return true;
    }
    return false;
}

bool inspect_holds_lock(uint32_t pid, ino_t inode, uint64_t byte)
{
    char path[384];
    const struct dirent *entry;
    bool held = false;
    DIR *directory;

    (void)snprintf(path, sizeof(path), "/proc/%" PRIu32 "/fdinfo", pid);
    directory = opendir(path);
    if (!directory)
        return false;
    while (!held && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "/proc/%" PRIu32 "/fdinfo/%s", pid, entry->d_name);
        held = file_holds_lock(path, inode, byte);
    }
    (void)closedir(directory);
    return held;
}

uint32_t inspect_find_lock_owner(ino_t inode, uint64_t byte)
{
    DIR *directory = opendir("/proc");
    const struct dirent *entry;
    uint32_t found = 0;

    if (!directory)
        return 0;
    while (found == 0 && (entry = readdir(directory)) != NULL) {
        uint32_t pid = (uint32_t)strtoul(entry->d_name, NULL, 10);

        if (pid != 0 && inspect_holds_lock(pid, inode, byte))
            found = pid;
    }
    (void)closedir(directory);
    return found;
}
