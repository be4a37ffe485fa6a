/* SPDX-License-Identifier: Apache-2.0 */
/*
 * facts.h: what files say about size: the text of an ELF object, the memory, processor time and
 * switches of a process, the instructions of a callgrind profile, what a folder's files hold.
 *
 * The first half is pure, over bytes that may be anything; the second reads files. Any thread; nothing blocks.
 */
#ifndef SHMQ_PERF_FACTS_H
#define SHMQ_PERF_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- pure ------------------------------------------------------------------------------------ */

/* What `size` calls text: all allocated sections that are code or cannot be written, tables and
 * constants included. False: no 64-bit ELF object of this byte order, or its section table contradicts itself. */
bool perf_elf_text(const void *image, size_t bytes, uint64_t *ret_text);

/* The number behind "NAME:" at the start of a line of /proc/PID/status. */
bool perf_status_number(const char *text, const char *name, uint64_t *ret_number);
/* utime + stime of /proc/PID/stat, in clock ticks; the command in it may hold anything. */
bool perf_stat_ticks(const char *text, uint64_t *ret_ticks);
/* The instructions in a callgrind output file: its last "totals:" or "summary:" line. */
bool perf_callgrind_total(const char *text, uint64_t *ret_instructions);

/* ---- files ----------------------------------------------------------------------------------- */

/* The whole file with a NUL behind it; NULL: not readable, or more than `most` bytes. To be freed. */
char *perf_read_file(const char *path, size_t most, size_t *ret_bytes);

struct perf_process {
    uint64_t resident_bytes; /* VmRSS */
    uint64_t private_bytes;  /* RssAnon, and page tables (VmPTE) */
    uint64_t cpu_ns;   /* all threads; to the nanosecond where the kernel keeps it, else ticks */
    uint64_t switches; /* voluntary ones of all threads: each is a sleep, and so a wake-up */
};
bool perf_read_process(pid_t pid, struct perf_process *ret_process);

struct perf_folder {
    uint64_t files;
    uint64_t bytes;     /* their lengths */
    uint64_t allocated; /* whole pages */
};
/* Files in `path` whose names begin with `prefix` and, if `suffix` is given, do not end with it. */
bool perf_read_folder(const char *path, const char *prefix, const char *but_suffix,
                      struct perf_folder *ret_folder);

#endif
