/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of journal.h say to each other.
 *
 *   journal.c          opening, looking things up
 *   journal_begin.c    files: made ahead, begun, written
 *   journal_recover.c  the scan after a host crash
 *   journal_retain.c   files go: retention, removal
 */
#ifndef SHMQ_DAEMON_JOURNAL_INTERNAL_H
#define SHMQ_DAEMON_JOURNAL_INTERNAL_H

#include "daemon/journal.h"

#define JOURNAL_SPARE_NAME "next.tmp"  /* the preparer's, until journal_begin() renames it */
#define JOURNAL_BEGIN_NAME "begin.tmp" /* the writer's, made on the spot */

/* No file is larger, for no record is: what is, is not of a journal. */
#define JOURNAL_FILE_BYTES_MAX (UINT64_C(1) << 33)

/* Removes entries[from..] of the list, which are no files any more. With the lock held. */
void journal_cut_list(struct journal *journal, size_t from);

/* Room for one more entry. False: no memory. With the lock held. */
bool journal_reserve_entry(struct journal *journal);

#endif
