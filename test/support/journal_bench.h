/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A topic's log with a journal, without shared memory: what the suites of journals write, and the oracle that
 * says what must be read back. One thread.
 *
 * `bench` publishes into a ring that is an array, writes from there as the flusher does (journal_write, a sync,
 * then `durable`; after any failure a new file at `durable`), and knows every message that was ever published.
 * bench_check() reads a directory, by the format's description and not by the code under test, and compares:
 * confirmed and lost: none; read back and never published: none; order kept.
 */
#ifndef SHMQ_TEST_SUPPORT_JOURNAL_BENCH_H
#define SHMQ_TEST_SUPPORT_JOURNAL_BENCH_H

#include "daemon/journal.h"
#include "test/support/test.h"

#define BENCH_TOPIC     UINT64_C(7)
#define BENCH_PARTITION 3u
#define BENCH_CAPACITY  UINT64_C(65536) /* of the ring that is not there */
#define BENCH_FILE      UINT64_C(16384) /* size of the first file; the largest is four times that */

struct bench_message {
    uint64_t offset;
    uint32_t length;
    bool padding;
    bool gone; /* it was not confirmed when the host died, or fell to retention */
};

struct bench {
    char dir[300];
    struct journal journal;
    uint64_t salt;
    struct test_random random;
    struct bench_message *messages; /* ascending by offset */
    size_t count;
    size_t room;
    uint64_t base; /* of the ring that is now; the log ended below it, at `ended` */
    uint64_t ended;
    uint64_t tail;           /* published */
    uint64_t position;       /* written */
    uint64_t durable;        /* confirmed */
    uint64_t synced;         /* the same at the last sync */
    uint64_t written;        /* above all that was ever written to a file */
    uint64_t first;          /* retention may have unlinked below */
    uint64_t messages_below; /* what recovery counted */
    uint32_t length_max;
    bool begun;
    bool needs_begin; /* a write or sync failed */
    bool lazy; /* policy os: confirmed is what was written, and the host had better not die */
};

/* An empty log in DIR/NAME of this test's directory. */
void bench_init(struct bench *bench, const char *name);
void bench_free(struct bench *bench);

/* Opens the journal; the process was new, the host was not: goes on at `durable`. */
void bench_open(struct bench *bench);
/* The host was new: `dir` is what its disk holds. Recovers, checks, and goes on behind the jump. 0, or the error
 * of opening or recovering, and then it is closed. */
int bench_recover(struct bench *bench, const char *dir);
/* The same log, for another end of the story; its journal is closed. */
void bench_clone(const struct bench *bench, struct bench *ret_clone);
void bench_close(struct bench *bench);

void bench_publish(struct bench *bench, unsigned messages);
void bench_publish_one(struct bench *bench, uint32_t length, bool padding);

/* What the flusher does, once: begins a file where need be, writes some messages, syncs. 0 or the first
 * error, which it has borne. bench_flush() goes on until all that was published is durable. */
int bench_write(struct bench *bench, size_t messages);
int bench_sync(struct bench *bench);
int bench_flush(struct bench *bench);
int bench_retain(struct bench *bench, uint64_t retain_bytes);

/* The bytes of message i as they stand in ring and journal; the caller has room for record_size(length). */
void bench_build(const struct bench *bench, size_t index, unsigned char *ret_bytes);

struct bench_reading {
    uint64_t messages; /* that were read back; no padding */
    uint64_t missing;  /* below `durable`, not gone, and not there */
    uint64_t first_missing;
    uint64_t foreign; /* read, but never published so: 0, always */
    uint64_t end;     /* behind the last one */
};

/* Reads what is in `dir` as a reader has to: file by file, each up to the next one's base. Checks order and
 * that nothing is foreign. */
struct bench_reading bench_read(struct bench *bench, const char *dir);

/* ... and that nothing confirmed is missing. */
void bench_check(struct bench *bench, const char *dir);

/* ---- Files ---------------------------------------------------------------------------------------- */

struct bench_file {
    uint64_t base;
    char name[JOURNAL_NAME_BYTES];
    unsigned char *bytes;
    size_t length;
};

struct bench_files {
    struct bench_file *files; /* ascending by base */
    size_t count;
};

/* All whose names are of journal files, with what is in them. */
void bench_load(const char *dir, struct bench_files *ret_files);
void bench_unload(struct bench_files *files);
/* Writes them; what else is there of a journal goes. Zeros become holes. */
void bench_store(const char *dir, const struct bench_files *files);
void bench_store_file(const char *dir, const struct bench_file *file);
void bench_make_dir(const char *dir);
void bench_clear_dir(const char *dir);
unsigned bench_count_names(const char *dir, const char *suffix);

#endif
