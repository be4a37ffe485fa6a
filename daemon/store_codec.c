/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata records as bytes: see store.h for the format. One table says which fields a kind has, where
 * they stand in its struct and under which tag on disk; encoding, decoding and the refusal of strange
 * tags all go by it. Pure; any thread.
 *
 * To add a field: a tag that was never used and a line in the table; STORE_VERSION goes up, and
 * decode_fields() lets the field be missing from records of earlier versions. To add a kind: a number that was
 * never used; the version stays, since who does not know the kind refuses it by its number.
 */
#include "daemon/store_internal.h"
#include "libshmq/layout.h"

#include <string.h>

enum field_type { FIELD_U32 = 4, FIELD_U64 = 8, FIELD_NAME = 255 };

struct field {
    uint16_t tag;
    uint8_t type;
    uint16_t offset;
};

struct kind_fields {
    enum store_kind kind;
    const char *name;
    const struct field *fields;
    size_t count;
};

#define TOPIC(member)  offsetof(struct store_topic, member)
#define GROUP(member)  offsetof(struct store_group, member)
#define MARK(member)   offsetof(struct store_mark, member)
#define CURSOR(member) offsetof(struct store_cursor, member)
#define IDS(member)    offsetof(struct store_ids, member)

/* Tags are of the whole store, not of a kind. */
static const struct field TOPIC_FIELDS[] = {
    {1, FIELD_U64, TOPIC(id)},
    {2, FIELD_NAME, TOPIC(options.name)},
    {3, FIELD_NAME, TOPIC(options.vhost)},
    {4, FIELD_U64, TOPIC(options.ring_bytes)},
    {5, FIELD_U64, TOPIC(options.linger_ns)},
    {6, FIELD_U64, TOPIC(options.sync_interval_ns)},
    {7, FIELD_U64, TOPIC(options.retain_bytes)},
    {8, FIELD_U64, TOPIC(options.retain_ns)},
    {9, FIELD_U32, TOPIC(options.partitions)},
    {10, FIELD_U32, TOPIC(options.max_message)},
    {11, FIELD_U32, TOPIC(options.policy)},
    {12, FIELD_U32, TOPIC(options.producers)},
    {13, FIELD_U32, TOPIC(options.timestamps)},
    {14, FIELD_U32, TOPIC(options.durability)},
    {15, FIELD_U64, TOPIC(base)},
    {16, FIELD_U64, TOPIC(created_ns)},
    {17, FIELD_U32, TOPIC(owner_uid)},
};
static const struct field GROUP_FIELDS[] = {
    {1, FIELD_U64, GROUP(topic)}, {18, FIELD_U64, GROUP(id)},   {2, FIELD_NAME, GROUP(name)},
    {19, FIELD_U32, GROUP(kind)}, {20, FIELD_U32, GROUP(gate)}, {5, FIELD_U64, GROUP(linger_ns)},
};
static const struct field MARK_FIELDS[] = {
    {1, FIELD_U64, MARK(topic)},
    {21, FIELD_U32, MARK(partition)},
    {22, FIELD_U64, MARK(offset)},
};
static const struct field CURSOR_FIELDS[] = {
    {1, FIELD_U64, CURSOR(topic)},
    {18, FIELD_U64, CURSOR(group)},
    {21, FIELD_U32, CURSOR(partition)},
    {22, FIELD_U64, CURSOR(offset)},
};
static const struct field TOPIC_ID_FIELDS[] = {{1, FIELD_U64, IDS(topic)}};
static const struct field GROUP_ID_FIELDS[] = {
    {1, FIELD_U64, IDS(topic)},
    {18, FIELD_U64, IDS(group)},
};
static const struct field COUNTER_FIELDS[] = {{23, FIELD_U64, IDS(count)}};
static const struct field END_FIELDS[] = {{24, FIELD_U64, IDS(count)}};

#define FIELDS(fields) fields, COUNT_OF(fields)

static const struct kind_fields KINDS[] = {
    {STORE_SNAPSHOT_BEGIN, "snapshot", NULL, 0},
    {STORE_SNAPSHOT_END, "end of snapshot", FIELDS(END_FIELDS)},
    {STORE_PUT_TOPIC, "topic", FIELDS(TOPIC_FIELDS)},
    {STORE_DELETE_TOPIC, "deleted topic", FIELDS(TOPIC_ID_FIELDS)},
    {STORE_PUT_GROUP, "group", FIELDS(GROUP_FIELDS)},
    {STORE_DELETE_GROUP, "deleted group", FIELDS(GROUP_ID_FIELDS)},
    {STORE_PUT_MARK, "mark", FIELDS(MARK_FIELDS)},
    {STORE_PUT_COUNTER, "counter", FIELDS(COUNTER_FIELDS)},
    {STORE_PUT_CURSOR, "cursor", FIELDS(CURSOR_FIELDS)},
};

_Static_assert(STORE_HEAD_BYTES + COUNT_OF(TOPIC_FIELDS) * 12 + 2 * NAME_BYTES < STORE_BODY_BYTES,
               "the longest record");

static const struct kind_fields *find_kind(unsigned kind)
{
    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        if ((unsigned)KINDS[i].kind == kind)
            return &KINDS[i];
    }
    return NULL;
}

static bool check_topic(const struct store_topic *topic)
{
    const struct topic_options *o = &topic->options;

    return topic->id != 0 && name_is_valid(o->name) && name_is_valid(o->vhost) &&
           o->ring_bytes >= RING_MIN_BYTES && o->ring_bytes <= RING_MAX_BYTES &&
           is_power_of_two_u64(o->ring_bytes) && o->partitions >= 1 &&
           o->partitions <= PARTITIONS_MAX && o->max_message >= 1 && o->policy <= OVERFLOW_SPILL &&
           o->producers <= PRODUCERS_SINGLE && o->timestamps <= TIMESTAMP_PRECISE &&
           o->durability <= DURABLE_ALWAYS && topic->base % RECORD_UNIT == 0;
}

static bool check_group(const struct store_group *group)
{
    return group->topic != 0 && group->id != 0 && name_is_valid(group->name) &&
           group->kind <= GROUP_SHARED && group->gate < GATES_MAX;
}

/* The same for what comes in and what goes out: nothing is written that would not be read back. */
static bool check_value(enum store_kind kind, const void *value)
{
    const struct store_mark *mark = value;
    const struct store_cursor *cursor = value;
    const struct store_ids *ids = value;

    switch (kind) {
    case STORE_PUT_TOPIC:
        return check_topic(value);
    case STORE_PUT_GROUP:
        return check_group(value);
    case STORE_PUT_MARK:
        return mark->topic != 0 && mark->partition < PARTITIONS_MAX &&
               mark->offset % RECORD_UNIT == 0;
    case STORE_PUT_CURSOR:
        return cursor->topic != 0 && cursor->partition < PARTITIONS_MAX &&
               cursor->offset % RECORD_UNIT == 0;
    case STORE_DELETE_TOPIC:
        return ids->topic != 0;
    case STORE_DELETE_GROUP:
        return ids->topic != 0 && ids->group != 0;
    case STORE_SNAPSHOT_BEGIN:
    case STORE_SNAPSHOT_END:
    case STORE_PUT_COUNTER:
        return true;
    }
    return false;
}

static unsigned char *put_bytes(unsigned char *at, const void *bytes, size_t length)
{
    memcpy(at, bytes, length);
    return at + length;
}

static unsigned char *put_u16(unsigned char *at, uint16_t value)
{
    return put_bytes(at, &value, sizeof(value)); /* little-endian machines only: base.h */
}

static unsigned char *put_field(unsigned char *at, const struct field *field, const void *value)
{
    const char *member = (const char *)value + field->offset;
    uint16_t length = field->type == FIELD_NAME ? (uint16_t)strlen(member) : field->type;

    at = put_u16(at, field->tag);
    at = put_u16(at, length);
    return put_bytes(at, member, length);
}

int store_encode(enum store_kind kind, const void *value, uint64_t confirmed,
                 unsigned char ret_body[STORE_BODY_BYTES], uint32_t *ret_length,
                 struct error_buffer *why)
{
    const struct kind_fields *fields = find_kind((unsigned)kind);
    const uint32_t zero = 0;
    unsigned char *at = ret_body;

    if (!fields || !check_value(kind, value))
        return error_set(why, SHMQ_EINVAL, "metadata: a %s that could not be read back; refused",
                         fields ? fields->name : "record");
    at = put_u16(at, (uint16_t)kind);
    at = put_u16(at, STORE_VERSION);
    at = put_bytes(at, &zero, sizeof(zero));
    at = put_bytes(at, &confirmed, sizeof(confirmed));
    for (size_t i = 0; i < fields->count; i++)
        at = put_field(at, &fields->fields[i], value);
    *ret_length = (uint32_t)(at - ret_body);
    return 0;
}

static int refuse_damaged(const char *what, struct error_buffer *why)
{
    return error_set(why, SHMQ_ECORRUPT, "a damaged %s; restore the state directory from a backup",
                     what);
}

static int refuse_newer(const char *what, unsigned number, struct error_buffer *why)
{
    return error_set(why, SHMQ_EVERSION, "%s %u was written by a newer shmqd; use that one", what,
                     number);
}

static bool take_field(const struct field *field, const unsigned char *data, uint16_t length,
                       void *value)
{
    char *member = (char *)value + field->offset;

    if (field->type == FIELD_NAME) {
        if (length > NAME_MAX_BYTES || memchr(data, 0, length))
            return false;
        memset(member, 0, NAME_BYTES);
    } else if (length != field->type) {
        return false;
    }
    memcpy(member, data, length);
    return true;
}

/* Each field once and none missing: fewer is damage that the crc missed, or a bug. */
static int decode_fields(const struct kind_fields *kind, const unsigned char *at, size_t left,
                         void *value, struct error_buffer *why)
{
    uint32_t missing = (UINT32_C(1) << kind->count) - 1;

    while (left > 0) {
        uint16_t head[2]; /* tag, length */
        size_t i = 0;

        if (left < sizeof(head))
            return refuse_damaged(kind->name, why);
        memcpy(head, at, sizeof(head));
        at += sizeof(head);
        left -= sizeof(head);
        while (i < kind->count && kind->fields[i].tag != head[0])
            i++;
        if (i == kind->count)
            return refuse_newer("a field", head[0], why);
        if (head[1] > left || !(missing & UINT32_C(1) << i) ||
            !take_field(&kind->fields[i], at, head[1], value))
            return refuse_damaged(kind->name, why);
        missing &= ~(UINT32_C(1) << i);
        at += head[1];
        left -= head[1];
    }
    return missing ? refuse_damaged(kind->name, why) : 0;
}

int store_decode(const unsigned char *body, size_t length, struct store_record *ret_record,
                 struct error_buffer *why)
{
    struct store_record record;
    const struct kind_fields *kind;
    uint16_t head[2]; /* kind, version */
    int rc;

    memset(&record, 0, sizeof(record));
    if (length < STORE_HEAD_BYTES)
        return refuse_damaged("record", why);
    memcpy(head, body, sizeof(head));
    memcpy(&record.confirmed, body + 8, sizeof(record.confirmed));
    if (head[1] == 0 || head[1] > STORE_VERSION)
        return refuse_newer("a record of version", head[1], why);
    kind = find_kind(head[0]);
    if (!kind)
        return refuse_newer("a record of kind", head[0], why);
    record.kind = kind->kind;
    rc =
        decode_fields(kind, body + STORE_HEAD_BYTES, length - STORE_HEAD_BYTES, &record.value, why);
    if (rc < 0)
        return rc;
    if (!check_value(record.kind, &record.value))
        return refuse_damaged(kind->name, why);
    *ret_record = record;
    return 0;
}
