/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A topic's retention, read from the metadata journal without the supervisor: the few fields that `stat` shows.
 *
 * docs/journal-format.md has the records ("Metadata"). What is not known here is stepped over, as whoever only
 * looks may; the supervisor, which rewrites, refuses it. The metadata may be written on meanwhile: then this is how
 * it was a moment ago.
 */
#include <string.h>

#include "tools/journal.h"

#define HEAD_BYTES       16u /* kind, version, zero, confirmed */
#define KIND_PUT_TOPIC   3u
#define KIND_DROP_TOPIC  4u
#define TAG_TOPIC        1u
#define TAG_RETAIN_BYTES 7u
#define TAG_RETAIN_NS    8u

struct search {
    uint64_t topic;
    struct topic_facts facts;
};

static uint16_t load_u16(const unsigned char *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

/* The number with this tag; false: there is none. */
static bool find_field(const unsigned char *body, size_t length, uint16_t tag, uint64_t *ret_value)
{
    size_t at = HEAD_BYTES;

    while (length >= at + 4) {
        uint16_t size = load_u16(body + at + 2);

        if (size > length - at - 4)
            return false;
        if (load_u16(body + at) == tag && size == sizeof(*ret_value)) {
            memcpy(ret_value, body + at + 4, sizeof(*ret_value));
            return true;
        }
        at += 4u + size;
    }
    return false;
}

static int see_event(void *context, const struct history_event *event)
{
    struct search *search = context;
    const struct journal_record *record = event->record;
    uint64_t topic;

    if (event->kind != HISTORY_RECORD || record->padding || record->type != RECORD_TYPE_META ||
        record->length < HEAD_BYTES ||
        !find_field(record->payload, record->length, TAG_TOPIC, &topic) || topic != search->topic)
        return 0;
    if (load_u16(record->payload) == KIND_DROP_TOPIC)
        search->facts.known = false;
    if (load_u16(record->payload) == KIND_PUT_TOPIC)
        search->facts.known =
            find_field(record->payload, record->length, TAG_RETAIN_BYTES,
                       &search->facts.retain_bytes) &&
            find_field(record->payload, record->length, TAG_RETAIN_NS, &search->facts.retain_ns);
    return 0;
}

bool topics_find(const char *state_dir, uint64_t topic, struct topic_facts *ret_facts)
{
    struct search search = {.topic = topic};
    struct history history;
    char path[PATHS_DIR_BYTES];

    if (snprintf(path, sizeof(path), "%s/meta", state_dir) >= (int)sizeof(path) ||
        access(path, R_OK | X_OK) != 0 || history_open(&history, path) != CLI_OK)
        return false;
    for (size_t i = 0; i < history.count; i++)
        (void)history_walk(&history, i, 0, see_event, &search, NULL);
    history_close(&history);
    search.facts.durable = UINT64_MAX;
    if (search.facts.known)
        *ret_facts = search.facts;
    return search.facts.known;
}
