/* SPDX-License-Identifier: Apache-2.0 */
/* The plain model of a metadata store; see model_store.h. */
#include "test/support/model_store.h"

#include "libshmq/layout.h"

#include <stdio.h>
#include <string.h>

static size_t find_topic(const struct model *model, uint64_t id)
{
    size_t i = 0;

    while (i < model->topic_count && model->topics[i].id != id)
        i++;
    return i;
}

static size_t find_group(const struct model *model, uint64_t topic, uint64_t id)
{
    size_t i = 0;

    while (i < model->group_count && (model->groups[i].topic != topic || model->groups[i].id != id))
        i++;
    return i;
}

static size_t find_mark(const struct model *model, uint64_t topic, uint32_t partition)
{
    size_t i = 0;

    while (i < model->mark_count &&
           (model->marks[i].topic != topic || model->marks[i].partition != partition))
        i++;
    return i;
}

static size_t find_cursor(const struct model *model, const struct store_cursor *cursor)
{
    size_t i = 0;

    while (i < model->cursor_count &&
           (model->cursors[i].topic != cursor->topic || model->cursors[i].group != cursor->group ||
            model->cursors[i].partition != cursor->partition))
        i++;
    return i;
}

static int put_topic(void *context, const struct store_topic *topic)
{
    struct model *model = context;
    size_t at = find_topic(model, topic->id);

    REQUIRE(at < MODEL_MAX);
    model->topics[at] = *topic;
    model->topic_count += at == model->topic_count;
    return 0;
}

static int put_group(void *context, const struct store_group *group)
{
    struct model *model = context;
    size_t at = find_group(model, group->topic, group->id);

    REQUIRE(at < MODEL_MAX);
    model->groups[at] = *group;
    model->group_count += at == model->group_count;
    return 0;
}

static int put_mark(void *context, const struct store_mark *mark)
{
    struct model *model = context;
    size_t at = find_mark(model, mark->topic, mark->partition);

    REQUIRE(at < MODEL_MAX);
    model->marks[at] = *mark;
    model->mark_count += at == model->mark_count;
    return 0;
}

static int put_cursor(void *context, const struct store_cursor *cursor)
{
    struct model *model = context;
    size_t at = find_cursor(model, cursor);

    REQUIRE(at < MODEL_MAX);
    model->cursors[at] = *cursor;
    model->cursor_count += at == model->cursor_count;
    return 0;
}

static int put_counter(void *context, uint64_t next_id)
{
    struct model *model = context;

    model->counter = next_id;
    return 0;
}

static int delete_group(void *context, uint64_t topic, uint64_t group)
{
    struct model *model = context;
    size_t at = find_group(model, topic, group);

    if (at < model->group_count)
        model->groups[at] = model->groups[--model->group_count];
    for (size_t i = model->cursor_count; i-- > 0;) {
        if (model->cursors[i].topic == topic && model->cursors[i].group == group)
            model->cursors[i] = model->cursors[--model->cursor_count];
    }
    return 0;
}

static int delete_topic(void *context, uint64_t topic)
{
    struct model *model = context;
    size_t at = find_topic(model, topic);

    if (at < model->topic_count)
        model->topics[at] = model->topics[--model->topic_count];
    for (size_t i = model->group_count; i-- > 0;) {
        if (model->groups[i].topic == topic)
            model->groups[i] = model->groups[--model->group_count];
    }
    for (size_t i = model->mark_count; i-- > 0;) {
        if (model->marks[i].topic == topic)
            model->marks[i] = model->marks[--model->mark_count];
    }
    for (size_t i = model->cursor_count; i-- > 0;) {
        if (model->cursors[i].topic == topic)
            model->cursors[i] = model->cursors[--model->cursor_count];
    }
    return 0;
}

static void note_warning(void *context, const char *text)
{
    struct model *model = context;

    model->warnings++;
    (void)snprintf(model->warning, sizeof(model->warning), "%.255s", text);
}

static int put_everything(void *context, struct store *store, struct error_buffer *why)
{
    const struct model *model = context;
    int rc = store_put_counter(store, model->counter, why);

    for (size_t i = 0; rc == 0 && i < model->topic_count; i++)
        rc = store_put_topic(store, &model->topics[i], why);
    for (size_t i = 0; rc == 0 && i < model->group_count; i++)
        rc = store_put_group(store, &model->groups[i], why);
    for (size_t i = 0; rc == 0 && i < model->mark_count; i++)
        rc = store_put_mark(store, &model->marks[i], why);
    return rc == 0 ? store_put_cursors(store, model->cursors, model->cursor_count, why) : rc;
}

const struct store_callbacks MODEL_CALLBACKS = {
    .put_topic = put_topic,
    .delete_topic = delete_topic,
    .put_group = put_group,
    .delete_group = delete_group,
    .put_mark = put_mark,
    .put_cursor = put_cursor,
    .put_counter = put_counter,
    .warn = note_warning,
    .snapshot = put_everything,
};

static uint32_t below(struct test_random *random, uint32_t bound)
{
    return (uint32_t)test_random_below(random, bound);
}

/* Any length from 1 to the longest, any allowed byte. */
static void draw_name(struct test_random *random, char ret_name[NAME_BYTES])
{
    static const char ALLOWED[] = "ABCXYZabcxyz0189_-.";
    size_t length = 1 + below(random, below(random, 4) ? 20 : NAME_MAX_BYTES);

    memset(ret_name, 0, NAME_BYTES);
    for (size_t i = 0; i < length; i++)
        ret_name[i] = ALLOWED[below(random, sizeof(ALLOWED) - 1 - (i == 0))];
}

static uint64_t draw_u64(struct test_random *random)
{
    return below(random, 8) ? test_random_next(random) >> below(random, 64) : UINT64_MAX;
}

static void draw_topic(struct test_random *random, struct store_topic *topic)
{
    struct topic_options *o = &topic->options;

    memset(topic, 0, sizeof(*topic));
    draw_name(random, o->name);
    draw_name(random, o->vhost);
    topic->id = 1 + below(random, 40);
    topic->base = draw_u64(random) & ~UINT64_C(63);
    topic->created_ns = draw_u64(random);
    topic->owner_uid = (uint32_t)draw_u64(random);
    o->ring_bytes = (uint64_t)RING_MIN_BYTES << below(random, 19);
    o->linger_ns = draw_u64(random);
    o->sync_interval_ns = draw_u64(random);
    o->retain_bytes = draw_u64(random);
    o->retain_ns = draw_u64(random);
    o->partitions = 1 + below(random, PARTITIONS_MAX);
    o->max_message = 1 + below(random, UINT32_MAX - 1);
    o->policy = below(random, OVERFLOW_SPILL + 1);
    o->producers = below(random, PRODUCERS_SINGLE + 1);
    o->timestamps = below(random, TIMESTAMP_PRECISE + 1);
    o->durability = below(random, DURABLE_ALWAYS + 1);
}

static void draw_group(const struct model *model, struct test_random *random,
                       struct store_group *group)
{
    memset(group, 0, sizeof(*group));
    draw_name(random, group->name);
    group->topic = model->topics[below(random, (uint32_t)model->topic_count)].id;
    group->id = 1 + below(random, 30);
    group->linger_ns = draw_u64(random);
    group->kind = below(random, GROUP_SHARED + 1);
    group->gate = below(random, GATES_MAX);
}

/* Of a group that there is, or was, or of none (the partition's own). */
static void draw_cursor(const struct model *model, struct test_random *random,
                        struct store_cursor *cursor)
{
    cursor->topic = model->topics[below(random, (uint32_t)model->topic_count)].id;
    cursor->group = below(random, 30);
    cursor->partition = below(random, 4);
    cursor->offset = draw_u64(random) & ~UINT64_C(63);
}

void model_draw(const struct model *model, struct test_random *random,
                struct model_operation *ret_operation)
{
    static const enum model_kind KINDS[] = {
        MODEL_PUT_TOPIC,  MODEL_PUT_TOPIC,    MODEL_PUT_GROUP,    MODEL_PUT_GROUP,
        MODEL_PUT_GROUP,  MODEL_PUT_MARK,     MODEL_PUT_MARK,     MODEL_PUT_COUNTER,
        MODEL_SNAPSHOT,   MODEL_DELETE_TOPIC, MODEL_DELETE_GROUP, MODEL_DELETE_GROUP,
        MODEL_PUT_CURSOR, MODEL_PUT_CURSOR,
    };
    struct model_operation *op = ret_operation;

    memset(op, 0, sizeof(*op));
    op->kind = KINDS[below(random, COUNT_OF(KINDS))];
    if (model->topic_count == 0 && op->kind != MODEL_PUT_COUNTER && op->kind != MODEL_SNAPSHOT)
        op->kind = MODEL_PUT_TOPIC;
    draw_topic(random, &op->topic);
    op->counter = draw_u64(random);
    if (model->topic_count == 0)
        return;
    draw_group(model, random, &op->group);
    op->mark.topic = op->group.topic;
    op->mark.partition = below(random, 4);
    op->mark.offset = draw_u64(random) & ~UINT64_C(63);
    draw_cursor(model, random, &op->cursor);
}

void model_apply(struct model *model, const struct model_operation *op)
{
    switch (op->kind) {
    case MODEL_PUT_TOPIC:
        (void)put_topic(model, &op->topic);
        break;
    case MODEL_PUT_GROUP:
        (void)put_group(model, &op->group);
        break;
    case MODEL_PUT_MARK:
        (void)put_mark(model, &op->mark);
        break;
    case MODEL_PUT_CURSOR:
        (void)put_cursor(model, &op->cursor);
        break;
    case MODEL_PUT_COUNTER:
        (void)put_counter(model, op->counter);
        break;
    case MODEL_DELETE_TOPIC:
        (void)delete_topic(model, op->group.topic);
        break;
    case MODEL_DELETE_GROUP:
        (void)delete_group(model, op->group.topic, op->group.id);
        break;
    case MODEL_SNAPSHOT:
        break;
    }
}

int model_put(struct store *store, const struct model_operation *op, struct error_buffer *why)
{
    switch (op->kind) {
    case MODEL_PUT_TOPIC:
        return store_put_topic(store, &op->topic, why);
    case MODEL_PUT_GROUP:
        return store_put_group(store, &op->group, why);
    case MODEL_PUT_MARK:
        return store_put_mark(store, &op->mark, why);
    case MODEL_PUT_CURSOR:
        return store_put_cursors(store, &op->cursor, 1, why);
    case MODEL_PUT_COUNTER:
        return store_put_counter(store, op->counter, why);
    case MODEL_DELETE_TOPIC:
        return store_delete_topic(store, op->group.topic, why);
    case MODEL_DELETE_GROUP:
        return store_delete_group(store, op->group.topic, op->group.id, why);
    case MODEL_SNAPSHOT:
        return store_snapshot(store, why);
    }
    return 0;
}

/* Byte for byte, holes included: all that is in a model was zeroed first. */
bool model_equals(const struct model *a, const struct model *b)
{
    if (a->topic_count != b->topic_count || a->group_count != b->group_count ||
        a->mark_count != b->mark_count || a->cursor_count != b->cursor_count ||
        a->counter != b->counter)
        return false;
    for (size_t i = 0; i < a->topic_count; i++) {
        size_t at = find_topic(b, a->topics[i].id);

        if (at == b->topic_count ||
            memcmp(&a->topics[i], &b->topics[at], sizeof(b->topics[0])) != 0)
            return false;
    }
    for (size_t i = 0; i < a->group_count; i++) {
        size_t at = find_group(b, a->groups[i].topic, a->groups[i].id);

        if (at == b->group_count ||
            memcmp(&a->groups[i], &b->groups[at], sizeof(b->groups[0])) != 0)
            return false;
    }
    for (size_t i = 0; i < a->mark_count; i++) {
        size_t at = find_mark(b, a->marks[i].topic, a->marks[i].partition);

        if (at == b->mark_count || a->marks[i].offset != b->marks[at].offset)
            return false;
    }
    for (size_t i = 0; i < a->cursor_count; i++) {
        size_t at = find_cursor(b, &a->cursors[i]);

        if (at == b->cursor_count || a->cursors[i].offset != b->cursors[at].offset)
            return false;
    }
    return true;
}
