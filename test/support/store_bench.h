/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the suites of the metadata store have in common: a store in this test's directory, the state that
 * was confirmed (`live`), the state that a replay gave (`played`), and the journal's files. One thread.
 */
#ifndef SHMQ_TEST_SUPPORT_STORE_BENCH_H
#define SHMQ_TEST_SUPPORT_STORE_BENCH_H

#include "daemon/journal_write.h"
#include "test/support/model_store.h"

extern struct model live;   /* what has been confirmed; the context of the store that writes */
extern struct model played; /* what a replay says */
extern struct test_random rng;
extern struct error_buffer why;

const char *store_dir(void);

/* A store whose context is `model`, emptied before. */
struct store *open_store(struct model *model);

/* Opens, compares with `live`, and closes. */
void check_replay(void);

void do_one(struct store *store, const struct model_operation *operation);
void do_random(struct store *store, unsigned count, bool snapshots);

/* An operation that makes a difference, so that the states before and after can be told apart. */
void do_change(struct store *store);

/* Files with that suffix, and the newest journal file's base. */
unsigned count_files(const char *suffix, uint64_t *ret_newest);
const char *journal_path(uint64_t base);
unsigned char *read_journal(uint64_t base, size_t *ret_bytes); /* the caller frees it */
void write_journal(uint64_t base, const unsigned char *bytes, size_t length);
void clear_dir(void);

#endif
