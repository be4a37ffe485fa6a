/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a file whose header is damaged. Of all that a header says a reader needs the base, which is the file's name,
 * and the salt, which every stamp gives away: it is (offset ^ salt) | state. A salt counts when records hold under
 * it, checksum and all. See journal.h.
 */
#include <string.h>

#include "tools/journal.h"

#define CHUNK_BYTES ((size_t)1 << 20)

/* Does any record in the file hold under this salt? */
static bool holds_under(int fd, uint64_t base, uint64_t salt)
{
    struct journal_header header = {.base = base, .salt = salt};
    struct journal_file file;
    struct journal_record record;
    bool found;

    if (salt % RECORD_UNIT || journal_file_open_as(&file, fd, &header, UINT32_MAX, NULL) < 0)
        return false;
    found = journal_file_find(&file, base, UINT64_MAX, &record, NULL) == JOURNAL_LOOK_RECORD;
    journal_file_close(&file);
    return found;
}

/* A stamp is (offset ^ salt) | state, and salts end in zeros: it gives its salt away. */
static bool salt_of(uint64_t commit, uint64_t offset, uint64_t *ret_salt)
{
    uint64_t state = commit % RECORD_UNIT;

    *ret_salt = (commit ^ offset) & ~(uint64_t)(RECORD_UNIT - 1);
    return state == RECORD_COMMITTED || state == RECORD_PADDING;
}

/* Is the word at `position` a stamp, and the one where its record ends another one under the same salt? One alone
 * proves little: a million places with a checksum of 32 bits each. */
static bool chains(int fd, const unsigned char *at, uint64_t base, uint64_t position,
                   uint64_t *ret_salt)
{
    uint64_t offset = base + position - JOURNAL_HEADER_BYTES;
    uint64_t next;
    uint64_t commit;
    uint64_t next_salt;
    uint32_t length;

    memcpy(&commit, at, sizeof(commit));
    memcpy(&length, at + offsetof(struct record, length), sizeof(length));
    if (!salt_of(commit, offset, ret_salt))
        return false;
    next = record_size(length);
    if (pread(fd, &commit, sizeof(commit), (off_t)(position + next)) != (ssize_t)sizeof(commit))
        return false;
    return salt_of(commit, offset + next, &next_salt) && next_salt == *ret_salt;
}

/* Looks for a salt in the whole file. *ret_empty: there is nothing but zeros behind the header. */
static bool search_salt(int fd, uint64_t base, uint64_t *ret_salt, bool *ret_empty)
{
    CLEANUP_FREE unsigned char *chunk = tool_alloc(CHUNK_BYTES);
    uint64_t position = JOURNAL_HEADER_BYTES;

    *ret_empty = true;
    for (;;) {
        ssize_t got = pread(fd, chunk, CHUNK_BYTES, (off_t)position);

        if (got < (ssize_t)RECORD_UNIT) {
            *ret_empty = *ret_empty && got >= 0;
            return false;
        }
        for (size_t at = 0; at + RECORD_UNIT <= (size_t)got; at += RECORD_UNIT) {
            *ret_empty = *ret_empty && memcmp(chunk + at, chunk + at + 1, RECORD_UNIT - 1) == 0 &&
                         chunk[at] == 0;
            if (chains(fd, chunk + at, base, position + at, ret_salt) &&
                holds_under(fd, base, *ret_salt))
                return true;
        }
        position += (uint64_t)got / RECORD_UNIT * RECORD_UNIT;
    }
}

/* The stamp of the first record, which must then hold itself. */
static bool first_salt(int fd, uint64_t base, uint64_t *ret_salt)
{
    struct journal_header header = {.base = base};
    struct journal_file file;
    struct journal_record record;
    uint64_t commit = 0;
    bool holds;

    if (pread(fd, &commit, sizeof(commit), JOURNAL_HEADER_BYTES) != (ssize_t)sizeof(commit) ||
        !salt_of(commit, base, ret_salt))
        return false;
    header.salt = *ret_salt;
    if (journal_file_open_as(&file, fd, &header, UINT32_MAX, NULL) < 0)
        return false;
    holds = journal_file_look(&file, base, UINT64_MAX, 0, &record, NULL) == JOURNAL_LOOK_RECORD;
    journal_file_close(&file);
    return holds;
}

void history_salvage(struct history *history, size_t index)
{
    struct history_file *file = &history->files[index];
    uint64_t base = file->entry.base;
    uint64_t salts[3] = {file->entry.salt, 1,
                         1}; /* what the damaged header says, and its neighbours */
    bool empty;
    int fd;

    if (base % RECORD_UNIT || base >= JOURNAL_OFFSET_MAX)
        return;
    if (index > 0 && !history->files[index - 1].entry.damaged)
        salts[1] = history->files[index - 1].entry.salt;
    if (index + 1 < history->count && !history->files[index + 1].entry.damaged)
        salts[2] = history->files[index + 1].entry.salt;
    fd = history_open_file(history, index, NULL);
    if (fd < 0)
        return;
    for (size_t i = 0; i < COUNT_OF(salts) && !file->readable; i++) {
        file->entry.salt = salts[i];
        file->readable = holds_under(fd, base, salts[i]);
    }
    if (!file->readable)
        file->readable = first_salt(fd, base, &file->entry.salt) ||
                         search_salt(fd, base, &file->entry.salt, &empty);
    if (!file->readable && file->entry.bytes >= JOURNAL_HEADER_BYTES && empty) {
        file->entry.salt =
            salts[1] % RECORD_UNIT == 0 ? salts[1] : 0; /* there is nothing to misread */
        file->readable = true;
    }
    (void)close(fd);
}
