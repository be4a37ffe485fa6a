/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages from hostile bytes, in two ways, by the first byte:
 *   even  a request, as shmqd receives it: what is let through must have its names terminated and its
 *         indices in range
 *   odd   a reply, as a client receives it: the second byte says to which request, the third how long
 *         its elements are; what is let through must lie within the bytes that arrived
 * With bit 1 of the first byte the header is put right first, so that what stands behind it is reached.
 */
#include "libshmq/protocol.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void require_name(const char name[NAME_BYTES])
{
    require(strnlen(name, NAME_BYTES) < NAME_BYTES);
    (void)protocol_name_ok(name, true);
}

/* Everything that shmqd uses without a further check. */
static void check_request_fields(const unsigned char *message)
{
    const struct protocol_header *header = (const void *)message;

    switch (header->type) {
    case PROTOCOL_TOPIC_CREATE:
    case PROTOCOL_TOPIC_ALTER: {
        const struct protocol_topic_put *put = (const void *)message;
        struct topic_options options = put->options;
        struct error_buffer why;

        require_name(put->options.vhost);
        require_name(put->options.name);
        if (topic_options_complete(&options, &why) == 0)
            require(options.partitions <= PARTITIONS_MAX && options.ring_bytes >= RING_MIN_BYTES);
        break;
    }
    case PROTOCOL_TOPIC_DESCRIBE:
    case PROTOCOL_TOPIC_DELETE:
    case PROTOCOL_TOPIC_PURGE: {
        const struct protocol_topic_request *request = (const void *)message;

        require_name(request->vhost);
        require_name(request->name);
        break;
    }
    case PROTOCOL_TOPIC_LIST:
    case PROTOCOL_PARTITION_LIST:
    case PROTOCOL_GROUP_LIST:
    case PROTOCOL_CLIENT_LIST: {
        const struct protocol_list_request *request = (const void *)message;

        require_name(request->vhost);
        require_name(request->name);
        require_name(request->after);
        break;
    }
    case PROTOCOL_PARTITION_OPEN: {
        const struct protocol_partition_open *request = (const void *)message;

        require(request->partition < PARTITIONS_MAX && request->role <= ROLE_PRODUCER);
        break;
    }
    case PROTOCOL_SLOT_CLOSE:
    case PROTOCOL_RESOLVE: {
        const struct protocol_slot_request *request = (const void *)message;

        require(request->partition < PARTITIONS_MAX && request->slot < SLOTS_MAX);
        break;
    }
    case PROTOCOL_JOURNAL_OPEN: {
        const struct protocol_journal_open *request = (const void *)message;

        require(request->partition < PARTITIONS_MAX && request->flags <= JOURNAL_BY_TIME);
        break;
    }
    case PROTOCOL_GROUP_JOIN: {
        const struct protocol_group_join *request = (const void *)message;

        require_name(request->vhost);
        require_name(request->topic);
        require_name(request->group);
        require(request->from <= FROM_OFFSET && request->kind <= GROUP_SHARED);
        break;
    }
    case PROTOCOL_GROUP_LEAVE:
    case PROTOCOL_GROUP_SEGMENT:
    case PROTOCOL_GROUP_DESCRIBE:
    case PROTOCOL_GROUP_DELETE: {
        const struct protocol_group_request *request = (const void *)message;

        require_name(request->topic_name);
        require_name(request->group_name);
        require(request->gate < GATES_MAX && request->member < MEMBERS_MAX &&
                request->partition < PARTITIONS_MAX);
        break;
    }
    default:
        break;
    }
}

static void fuzz_request(const unsigned char *message, size_t size)
{
    struct error_buffer why = {.text = ""};
    int rc = protocol_check_request(message, size, &why);

    if (rc == 0)
        check_request_fields(message);
    else
        require((rc == SHMQ_EPROTO || rc == SHMQ_EVERSION) && why.text[0] != '\0');
}

static void fuzz_reply(const unsigned char *message, size_t size, uint8_t type, uint8_t element)
{
    struct protocol_header request = {.type = type % 44, .id = 7};
    size_t body_bytes = sizeof(struct protocol_list_reply);
    size_t element_bytes = element;
    struct error_buffer why = {.text = ""};
    int rc = protocol_check_reply(message, size, &request, body_bytes, element_bytes, &why);
    const struct protocol_header *header = (const void *)message;

    if (rc < 0) {
        require(strnlen(why.text, sizeof(why.text)) < sizeof(why.text) && why.text[0] != '\0');
        return;
    }
    require(size >= body_bytes && header->id == 7);
    if (element_bytes > 0)
        require(body_bytes + (uint64_t)header->count * element_bytes == size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *message;
    size_t bytes;

    if (size < 4)
        return 0;
    bytes = size - 4;
    /* Exactly as long as it says, so that AddressSanitizer sees each byte too far. */
    message = malloc(bytes ? bytes : 1);
    if (!message)
        return 0;
    memcpy(message, data + 4, bytes);
    if ((data[0] & 2) && bytes >= sizeof(struct protocol_header)) {
        struct protocol_header *header = (struct protocol_header *)(void *)message;

        header->magic = PROTOCOL_MAGIC;
        header->version = PROTOCOL_VERSION;
        header->length = (uint32_t)bytes;
        if (data[0] & 1) {
            header->type = data[1] % 44;
            header->id = 7;
        } else {
            header->count = 0;
            header->status = 0;
        }
    }
    if (data[0] & 1)
        fuzz_reply(message, bytes, data[1], data[2]);
    else
        fuzz_request(message, bytes);
    free(message);
    return 0;
}
