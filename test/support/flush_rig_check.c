/* SPDX-License-Identifier: Apache-2.0 */
/* flush_rig_check.c: what a rig's journal files hold, against what was published; see flush_rig.h. */
#include "libshmq/journal_read.h"
#include "libshmq/record.h"
#include "test/support/flush_rig.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct file {
    unsigned char *image;
    uint64_t base;
    struct rig_file *about;
};

static int compare_bases(const void *a, const void *b)
{
    uint64_t first = ((const struct file *)a)->base, second = ((const struct file *)b)->base;

    return first < second ? -1 : first > second;
}

static void read_file(const char *path, struct file *file)
{
    FILE *stream = fopen(path, "r");
    struct stat status;

    REQUIRE(stream && fstat(fileno(stream), &status) == 0);
    file->about->bytes = (uint64_t)status.st_size;
    file->image = malloc(file->about->bytes + 1);
    REQUIRE(file->image && fread(file->image, 1, file->about->bytes, stream) == file->about->bytes);
    (void)fclose(stream);
}

static uint32_t read_files(const struct rig_log *log, struct file files[RIG_FILES_MAX],
                           struct rig_file about[RIG_FILES_MAX])
{
    DIR *dir = opendir(log->dir);
    struct dirent *entry;
    uint32_t count = 0;

    REQUIRE(dir != NULL);
    while ((entry = readdir(dir))) {
        if (!journal_parse_name(entry->d_name, &files[count].base))
            continue;
        REQUIRE(++count < RIG_FILES_MAX);
    }
    (void)closedir(dir);
    qsort(files, count, sizeof(files[0]), compare_bases);
    for (uint32_t i = 0; i < count; i++) {
        char name[JOURNAL_NAME_BYTES], path[400];

        journal_format_name(files[i].base, name);
        (void)snprintf(path, sizeof(path), "%s/%s", log->dir, name);
        files[i].about = &about[i];
        read_file(path, &files[i]);
    }
    return count;
}

static bool is_message(const struct rig_entry *entry)
{
    return entry->what == RIG_GOOD || entry->what == RIG_BIG_FUTURE;
}

/* The bytes of one record, header to unit. */
static void check_record(const struct rig_log *log, const struct rig_entry *entry,
                         const unsigned char *bytes)
{
    uint64_t state = is_message(entry) ? RECORD_COMMITTED : RECORD_PADDING;
    size_t used = RECORD_HEADER + (is_message(entry) ? entry->length : 0);
    struct message_tag tag = {0};
    struct record header;

    memcpy(&header, bytes, sizeof(header));
    CHECK_EQ(atomic_load(&header.commit), record_stamp(log->salt, entry->offset, state));
    CHECK_EQ(header.length, entry->length);
    CHECK_EQ(header.crc32c, journal_record_crc(bytes, state));
    if (is_message(entry)) {
        CHECK(message_check(bytes + RECORD_HEADER, entry->length, &tag));
        CHECK_EQ(tag.producer, log->index);
        CHECK_EQ(tag.number, entry->number);
    } else {
        CHECK_EQ(header.timestamp_ns, 0);
        CHECK_EQ(header.key_length, 0);
    }
    for (size_t i = used; i < record_size(entry->length); i++) {
        if (bytes[i] != 0) {
            FAIL("offset %llu: byte %zu is not 0", (unsigned long long)entry->offset, i);
            break;
        }
    }
}

/* All that is published in [base, limit): the chain, then byte by byte. */
static void check_file(const struct rig_log *log, const struct file *file, uint64_t limit,
                       uint64_t *messages)
{
    const struct journal_header *header = &file->about->header;
    struct journal_scan scan;
    struct error_buffer why;

    REQUIRE_OK(journal_check_header(file->image, file->about->bytes, file->base,
                                    &file->about->header, &why));
    CHECK_EQ(header->salt, log->salt);
    CHECK_EQ(header->topic, log->index + 1);
    CHECK(header->durable <= header->base);
    CHECK(header->previous_end <= header->base);
    if (*messages != UINT64_MAX)
        CHECK_EQ(header->messages, *messages);
    *messages = header->messages;
    CHECK_OK(journal_scan(file->image, file->about->bytes, header, file->base, limit, NULL, NULL,
                          &scan));
    CHECK_EQ(scan.end, limit);
    for (size_t i = 0; i < log->entry_count; i++) {
        const struct rig_entry *entry = &log->entries[i];

        if (entry->offset < file->base || entry->offset >= limit)
            continue;
        REQUIRE(entry->offset - file->base + record_size(entry->length) <=
                file->about->bytes - JOURNAL_HEADER_BYTES);
        *messages += is_message(entry);
        check_record(log, entry, file->image + JOURNAL_HEADER_BYTES + (entry->offset - file->base));
    }
}

uint32_t rig_check(struct rig_log *log, struct rig_file about[RIG_FILES_MAX])
{
    static struct rig_file unwanted[RIG_FILES_MAX];
    struct file files[RIG_FILES_MAX] = {{.image = NULL}};
    uint32_t count = read_files(log, files, about ? about : unwanted);
    uint64_t durable = rig_durable(log);
    uint64_t messages = UINT64_MAX;

    test_context("log %u ", log->index);
    if (count == 0)
        CHECK_EQ(durable, log->options.base);
    else if (log->options.retain_bytes == 0)
        CHECK_EQ(files[0].base, log->options.base);
    for (uint32_t i = 0; i < count; i++) {
        check_file(log, &files[i], i + 1 < count ? files[i + 1].base : durable, &messages);
        free(files[i].image);
    }
    test_context(NULL);
    return count;
}
