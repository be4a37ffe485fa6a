/* SPDX-License-Identifier: Apache-2.0 */
/* Checks and scans of journal images; see journal_read.h. Every length is compared with what is left
 * of the image before it is used, and nothing is cast: headers are copied out. */
#include "libshmq/journal_read.h"

#include "libshmq/crc32c.h"
#include "libshmq/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void journal_format_name(uint64_t base, char ret_name[JOURNAL_NAME_BYTES])
{
    (void)snprintf(ret_name, JOURNAL_NAME_BYTES, "%020" PRIu64 ".log", base);
}

bool journal_parse_name(const char *name, uint64_t *ret_base)
{
    uint64_t base = 0;

    for (int i = 0; i < 20; i++) {
        if (name[i] < '0' || name[i] > '9')
            return false;
        if (__builtin_mul_overflow(base, UINT64_C(10), &base) ||
            __builtin_add_overflow(base, (uint64_t)(name[i] - '0'), &base))
            return false;
    }
    if (strcmp(name + 20, ".log") != 0)
        return false;
    *ret_base = base;
    return true;
}

uint32_t journal_header_crc(const struct journal_header *header)
{
    const uint32_t zero = 0;
    const char *bytes = (const char *)header;
    size_t behind = offsetof(struct journal_header, crc32c) + sizeof(zero);
    uint32_t crc = crc32c(0, bytes, offsetof(struct journal_header, crc32c));

    crc = crc32c(crc, &zero, sizeof(zero));
    return crc32c(crc, bytes + behind, sizeof(*header) - behind);
}

void journal_seal_header(struct journal_header *header)
{
    header->magic = JOURNAL_MAGIC;
    header->version = LAYOUT_VERSION;
    header->header_bytes = JOURNAL_HEADER_BYTES;
    header->crc32c = journal_header_crc(header);
}

int journal_check_header(const void *image, size_t bytes, uint64_t base,
                         struct journal_header *ret_header, struct error_buffer *why)
{
    struct journal_header header;

    if (bytes < sizeof(header))
        return error_set(why, SHMQ_ECORRUPT,
                         "damaged: %zu bytes, less than a header; restore it from a backup", bytes);
    memcpy(&header, image, sizeof(header));
    if (header.magic != JOURNAL_MAGIC)
        return error_set(why, SHMQ_ECORRUPT,
                         "damaged: does not begin like a journal; restore it from a backup");
    /* Version before crc: another version may have its crc elsewhere. A flipped bit here is told as a
     * foreign version, which refuses the file just the same. */
    if (header.version != LAYOUT_VERSION)
        return error_set(
            why, SHMQ_EVERSION,
            "journal version %u, but this shmq reads version %u; use the shmq that wrote "
            "it",
            header.version, LAYOUT_VERSION);
    if (header.crc32c != journal_header_crc(&header) || header.header_bytes != JOURNAL_HEADER_BYTES)
        return error_set(why, SHMQ_ECORRUPT,
                         "damaged: the header's checksum is wrong; restore it from a backup");
    if (header.base != base)
        return error_set(why, SHMQ_ECORRUPT,
                         "damaged: begins at %" PRIu64 " and is named %" PRIu64
                         "; give it its old name",
                         header.base, base);
    if (base % RECORD_UNIT || header.salt % RECORD_UNIT || base >= JOURNAL_OFFSET_MAX ||
        bytes >= JOURNAL_OFFSET_MAX || header.previous_end > base)
        return error_set(why, SHMQ_ECORRUPT,
                         "damaged: the header contradicts itself; restore it from a backup");
    *ret_header = header;
    return 0;
}

uint32_t journal_record_crc(const void *record, uint64_t state)
{
    const char *bytes = record;
    const size_t behind = offsetof(struct record, timestamp_ns);
    uint32_t length;

    memcpy(&length, bytes + offsetof(struct record, length), sizeof(length));
    return crc32c_word(length, bytes + behind,
                       RECORD_HEADER - behind + (state == RECORD_COMMITTED ? length : 0));
}

static bool is_zero(const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i])
            return false;
    }
    return true;
}

enum journal_stop journal_look_at(const unsigned char *image, size_t bytes, uint64_t position,
                                  uint64_t salt, uint64_t offset, struct journal_record *ret_record)
{
    struct record copy;
    uint64_t commit;
    uint64_t state;

    if (position > bytes || bytes - position < RECORD_HEADER)
        return JOURNAL_STOP_END;
    memcpy(&commit, image + position, sizeof(commit));
    state = record_state(commit, salt, offset);
    if (state == 0)
        return is_zero(image + position, RECORD_HEADER) ? JOURNAL_STOP_ZERO : JOURNAL_STOP_STAMP;
    memcpy(&copy, image + position, sizeof(copy));
    if (copy.length > bytes - position - RECORD_HEADER ||
        (state == RECORD_COMMITTED &&
         (uint32_t)copy.key_length + copy.headers_length > copy.length))
        return JOURNAL_STOP_LENGTH;
    if (journal_record_crc(image + position, state) != copy.crc32c)
        return JOURNAL_STOP_CRC;
    ret_record->offset = offset;
    ret_record->timestamp_ns = copy.timestamp_ns;
    ret_record->payload = image + position + RECORD_HEADER;
    ret_record->length = copy.length;
    ret_record->producer = copy.producer;
    ret_record->key_length = copy.key_length;
    ret_record->headers_length = copy.headers_length;
    ret_record->type = copy.type;
    ret_record->flags = copy.flags;
    ret_record->padding = state == RECORD_PADDING;
    return JOURNAL_STOP_LIMIT;
}

static enum journal_stop read_record(const unsigned char *image, size_t bytes,
                                     const struct journal_header *header, uint64_t offset,
                                     struct journal_record *ret_record)
{
    return journal_look_at(image, bytes, JOURNAL_HEADER_BYTES + (offset - header->base),
                           header->salt, offset, ret_record);
}

static bool is_place(const struct journal_header *header, size_t bytes, uint64_t offset)
{
    return offset >= header->base && offset - header->base <= bytes && offset % RECORD_UNIT == 0;
}

int journal_scan(const void *image, size_t bytes, const struct journal_header *header,
                 uint64_t from, uint64_t limit, journal_record_fn *callback, void *context,
                 struct journal_scan *ret_scan)
{
    struct journal_scan scan = {.end = from, .stop = JOURNAL_STOP_LIMIT};
    int rc = 0;

    if (!is_place(header, bytes, from))
        scan.stop = JOURNAL_STOP_END;
    while (scan.stop == JOURNAL_STOP_LIMIT && scan.end < limit && rc == 0) {
        struct journal_record record;

        scan.stop = read_record(image, bytes, header, scan.end, &record);
        if (scan.stop != JOURNAL_STOP_LIMIT)
            break;
        if (record_size(record.length) > limit - scan.end) {
            scan.stop = JOURNAL_STOP_LENGTH;
            break;
        }
        if (callback && !record.padding)
            rc = callback(context, &record);
        if (rc == 0) {
            scan.end += record_size(record.length);
            scan.records += !record.padding;
            if (record.timestamp_ns > scan.max_timestamp_ns)
                scan.max_timestamp_ns = record.timestamp_ns;
        }
    }
    *ret_scan = scan;
    return rc;
}

bool journal_find_record(const void *image, size_t bytes, const struct journal_header *header,
                         uint64_t from, struct journal_record *ret_record)
{
    if (!is_place(header, bytes, from))
        return false;
    for (uint64_t offset = from;; offset += RECORD_UNIT) {
        struct journal_record record;
        enum journal_stop stop = read_record(image, bytes, header, offset, &record);

        if (stop == JOURNAL_STOP_END)
            return false;
        if (stop == JOURNAL_STOP_LIMIT) {
            *ret_record = record;
            return true;
        }
    }
}
