/* SPDX-License-Identifier: Apache-2.0 */
/* What files say about size; see facts.h. */
#include "tools/perf/facts.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libshmq/clock.h"

#define TEXT_BYTES 8192u /* of a file in /proc */

/* ---- ELF ------------------------------------------------------------------------------------- */

/* Little is asked of the file: each number in it is checked before it is used. */
bool perf_elf_text(const void *image, size_t bytes, uint64_t *ret_text)
{
    const unsigned char *at = image;
    const unsigned char order =
        __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
    uint64_t text = 0;
    Elf64_Ehdr head;

    if (bytes < sizeof(head))
        return false;
    memcpy(&head, at, sizeof(head));
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 ||
        head.e_ident[EI_DATA] != order || head.e_shentsize != sizeof(Elf64_Shdr) ||
        head.e_shnum == 0 || head.e_shoff > bytes ||
        (bytes - head.e_shoff) / sizeof(Elf64_Shdr) < head.e_shnum)
        return false;
    for (uint32_t i = 0; i < head.e_shnum; i++) {
        Elf64_Shdr section;

        memcpy(&section, at + head.e_shoff + i * sizeof(section), sizeof(section));
        if (!(section.sh_flags & SHF_ALLOC))
            continue;
        if ((section.sh_flags & SHF_WRITE) && !(section.sh_flags & SHF_EXECINSTR))
            continue;
        if (section.sh_type != SHT_NOBITS &&
            (section.sh_offset > bytes || section.sh_size > bytes - section.sh_offset))
            return false;
        if (section.sh_size > UINT64_MAX - text)
            return false;
        text += section.sh_size;
    }
    *ret_text = text;
    return true;
}

/* ---- text ------------------------------------------------------------------------------------ */

static bool read_number(const char *at, uint64_t *ret_number)
{
    char *end;
    uint64_t number;

    at += strspn(at, " \t");
    if (*at < '0' || *at > '9') /* no sign either */
        return false;
    number = strtoull(at, &end, 10);
    if (*end && !strchr(" \t\n", *end))
        return false;
    *ret_number = number;
    return true;
}

bool perf_status_number(const char *text, const char *name, uint64_t *ret_number)
{
    size_t length = strlen(name);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            return read_number(line + length + 1, ret_number);
    }
    return false;
}

bool perf_stat_ticks(const char *text, uint64_t *ret_ticks)
{
    const char *at = strrchr(text, ')');
    uint64_t user, system;

    /* "pid (command) state ppid …": the 14th and the 15th. */
    for (int field = 2; at && field < 14; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    if (!at || !read_number(at, &user))
        return false;
    at = strchr(at, ' ');
    if (!at || !read_number(at, &system))
        return false;
    *ret_ticks = user + system;
    return true;
}

bool perf_callgrind_total(const char *text, uint64_t *ret_instructions)
{
    return perf_status_number(text, "totals", ret_instructions) ||
           perf_status_number(text, "summary", ret_instructions);
}

/* ---- files ----------------------------------------------------------------------------------- */

char *perf_read_file(const char *path, size_t most, size_t *ret_bytes)
{
    FILE *file = fopen(path, "re");
    char *text = file ? malloc(most + 1) : NULL;
    size_t bytes = text ? fread(text, 1, most, file) : 0;

    /* Files in /proc have no length: whether there is more is only known by asking. */
    if (text && (ferror(file) || (bytes == most && fgetc(file) != EOF))) {
        free(text);
        text = NULL;
    }
    if (file)
        (void)fclose(file);
    if (text) {
        text[bytes] = '\0';
        *ret_bytes = bytes;
    }
    return text;
}

static char *read_thread_file(pid_t pid, unsigned long task, const char *name)
{
    char path[96];
    size_t bytes;

    (void)snprintf(path, sizeof(path), "/proc/%ld/task/%lu/%s", (long)pid, task, name);
    return perf_read_file(path, TEXT_BYTES, &bytes);
}

/* One thread's share: "time-on-cpu-ns …" of schedstat, or ticks. */
static bool add_thread(pid_t pid, unsigned long task, struct perf_process *process)
{
    char *status = read_thread_file(pid, task, "status");
    char *precise = read_thread_file(pid, task, "schedstat");
    char *stat = read_thread_file(pid, task, "stat");
    uint64_t switches = 0, ns = 0;
    bool found = status && perf_status_number(status, "voluntary_ctxt_switches", &switches);

    if (found && !(precise && read_number(precise, &ns))) {
        found = stat && perf_stat_ticks(stat, &ns);
        ns = ns * NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
    }
    process->switches += switches;
    process->cpu_ns += ns;
    free(status);
    free(precise);
    free(stat);
    return found;
}

static bool add_threads(pid_t pid, struct perf_process *process)
{
    char path[64];
    const struct dirent *entry;
    bool found = false;
    DIR *directory;

    (void)snprintf(path, sizeof(path), "/proc/%ld/task", (long)pid);
    directory = opendir(path);
    while (directory && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.')
            found |= add_thread(pid, strtoul(entry->d_name, NULL, 10), process);
    }
    if (directory)
        (void)closedir(directory);
    return found;
}

bool perf_read_process(pid_t pid, struct perf_process *ret_process)
{
    char *status = read_thread_file(pid, (unsigned long)pid, "status");
    struct perf_process process = {0};
    uint64_t resident, anonymous, tables;
    bool found = status && perf_status_number(status, "VmRSS", &resident) &&
                 perf_status_number(status, "RssAnon", &anonymous) &&
                 perf_status_number(status, "VmPTE", &tables) && add_threads(pid, &process);

    if (found) {
        process.resident_bytes = resident * 1024;
        process.private_bytes = (anonymous + tables) * 1024;
        *ret_process = process;
    }
    free(status);
    return found;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);

    return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

bool perf_read_folder(const char *path, const char *prefix, const char *but_suffix,
                      struct perf_folder *ret_folder)
{
    DIR *directory = opendir(path);
    struct perf_folder folder = {0};
    const struct dirent *entry;

    if (!directory)
        return false;
    while ((entry = readdir(directory)) != NULL) {
        struct stat status;

        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0 ||
            (but_suffix && ends_with(entry->d_name, but_suffix)) ||
            fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        folder.files++;
        folder.bytes += (uint64_t)status.st_size;
        folder.allocated += (uint64_t)status.st_blocks * 512;
    }
    (void)closedir(directory);
    *ret_folder = folder;
    return true;
}
