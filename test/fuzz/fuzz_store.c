/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replay of a metadata journal from hostile bytes, in three ways, by the first byte:
 *   0  the input is the image, as it is
 *   1  the input lies behind a header that is right, so that records are reached
 *   2  the input is a list of bodies, each put into a record that is right: u8 length / 4, body
 * A replay may fail, but must neither read outside nor hand on values that could not be put back.
 */
#include "daemon/store_internal.h"
#include "libshmq/record.h"

#include <stdlib.h>
#include <string.h>

#define BASE       UINT64_C(0x10000)
#define SALT       UINT64_C(0x123456789abcde40)
#define IMAGE_ROOM (JOURNAL_HEADER_BYTES + (1u << 17))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What replay hands on must be encodable: the same checks stand at both ends. */
static void require_encodable(enum store_kind kind, const void *value)
{
    unsigned char body[STORE_BODY_BYTES];
    uint32_t length;

    if (store_encode(kind, value, 0, body, &length, NULL) < 0 || length > sizeof(body))
        abort();
}

static int on_topic(void *context, const struct store_topic *topic)
{
    (void)context;
    require_encodable(STORE_PUT_TOPIC, topic);
    return 0;
}

static int on_group(void *context, const struct store_group *group)
{
    (void)context;
    require_encodable(STORE_PUT_GROUP, group);
    return 0;
}

static int on_mark(void *context, const struct store_mark *mark)
{
    (void)context;
    require_encodable(STORE_PUT_MARK, mark);
    return 0;
}

static int on_cursor(void *context, const struct store_cursor *cursor)
{
    (void)context;
    require_encodable(STORE_PUT_CURSOR, cursor);
    return 0;
}

static int on_delete_topic(void *context, uint64_t topic)
{
    (void)context;
    if (topic == 0)
        abort();
    return 0;
}

static int on_delete_group(void *context, uint64_t topic, uint64_t group)
{
    (void)context;
    if (topic == 0 || group == 0)
        abort();
    return 0;
}

static int on_counter(void *context, uint64_t next_id)
{
    (void)context;
    return next_id == UINT64_MAX ? 1 : 0; /* a callback that refuses */
}

static void on_warning(void *context, const char *text)
{
    (void)context;
    if (strlen(text) == 0)
        abort();
}

static size_t write_header(unsigned char *image)
{
    struct journal_header header;

    memset(&header, 0, sizeof(header));
    header.base = BASE;
    header.salt = SALT;
    journal_seal_header(&header);
    memcpy(image, &header, sizeof(header));
    return sizeof(header);
}

static size_t write_record(unsigned char *image, size_t at, const uint8_t *body, size_t length)
{
    uint64_t stamp = record_stamp(SALT, BASE + (at - JOURNAL_HEADER_BYTES), RECORD_COMMITTED);
    uint32_t length_32 = (uint32_t)length;
    uint32_t crc;

    memset(image + at, 0, record_size(length));
    memcpy(image + at, &stamp, sizeof(stamp));
    memcpy(image + at + offsetof(struct record, length), &length_32, sizeof(length_32));
    image[at + offsetof(struct record, type)] = RECORD_TYPE_META;
    memcpy(image + at + RECORD_HEADER, body, length);
    crc = journal_record_crc(image + at, RECORD_COMMITTED);
    memcpy(image + at + offsetof(struct record, crc32c), &crc, sizeof(crc));
    return at + record_size(length);
}

static size_t build_image(unsigned char *image, const uint8_t *data, size_t size)
{
    size_t at = write_header(image);

    if (data[0] % 3 == 1) {
        size_t length = min_size(size - 1, IMAGE_ROOM - at);

        memcpy(image + at, data + 1, length);
        return at + length;
    }
    for (size_t i = 1; i < size;) {
        size_t length = min_size((size_t)data[i] * 4, size - i - 1);

        if (at + record_size(length) > IMAGE_ROOM)
            break;
        at = write_record(image, at, data + i + 1, length);
        i += 1 + length;
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct store_callbacks CALLBACKS = {
        .put_topic = on_topic,
        .delete_topic = on_delete_topic,
        .put_group = on_group,
        .delete_group = on_delete_group,
        .put_mark = on_mark,
        .put_cursor = on_cursor,
        .put_counter = on_counter,
        .warn = on_warning,
    };
    static unsigned char room[IMAGE_ROOM];
    struct error_buffer why = {""};
    unsigned char *image;
    size_t length;
    int rc;

    if (size < 1)
        return 0;
    if (data[0] % 3 == 0) {
        length = size - 1;
        memcpy(room, data + 1, min_size(length, IMAGE_ROOM));
        length = min_size(length, IMAGE_ROOM);
    } else {
        length = build_image(room, data, size);
    }
    image =
        malloc(length ? length : 1); /* of exactly this size: AddressSanitizer stands behind it */
    if (!image)
        return 0;
    memcpy(image, room, length);
    rc = store_replay_image(image, length, BASE, &CALLBACKS, NULL, &why);
    if (rc < 0 && !why.text[0])
        abort(); /* every refusal has its sentence */
    free(image);
    return 0;
}
