/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a metadata store should hold, in a form so plain that it is right: arrays that are searched. The
 * suites play operations to a model and to a store, and compare. One thread; nothing blocks.
 */
#ifndef SHMQ_TEST_SUPPORT_MODEL_STORE_H
#define SHMQ_TEST_SUPPORT_MODEL_STORE_H

#include "daemon/store.h"
#include "test/support/test.h"

#define MODEL_MAX 2048

struct model {
    struct store_topic topics[MODEL_MAX];
    struct store_group groups[MODEL_MAX];
    struct store_mark marks[MODEL_MAX];
    struct store_cursor cursors[MODEL_MAX];
    size_t topic_count;
    size_t group_count;
    size_t mark_count;
    size_t cursor_count;
    uint64_t counter;
    unsigned warnings; /* of the store; not compared */
    char warning[256];
};

enum model_kind {
    MODEL_PUT_TOPIC,
    MODEL_PUT_GROUP,
    MODEL_PUT_MARK,
    MODEL_PUT_CURSOR,
    MODEL_PUT_COUNTER,
    MODEL_DELETE_TOPIC,
    MODEL_DELETE_GROUP,
    MODEL_SNAPSHOT,
};

struct model_operation {
    enum model_kind kind;
    struct store_topic topic;
    struct store_group group; /* its ids say what to delete, too */
    struct store_mark mark;
    struct store_cursor cursor;
    uint64_t counter;
};

/* Callbacks whose context is a struct model: replay fills it, snapshots put what is in it. */
extern const struct store_callbacks MODEL_CALLBACKS;

/* A valid operation that makes sense in `model`, with every field drawn. */
void model_draw(const struct model *model, struct test_random *random,
                struct model_operation *ret_operation);

void model_apply(struct model *model, const struct model_operation *operation);

/* The same to a store. */
int model_put(struct store *store, const struct model_operation *operation,
              struct error_buffer *why);

/* The same things, in whatever order. */
bool model_equals(const struct model *a, const struct model *b);

#endif
