/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata store killed at every fault point, again and again on the same journal; and a host that
 * loses power in the middle of a write, with sectors of it on disk and others not. */
#include "libshmq/fault.h"
#include "test/support/store_bench.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define OPERATIONS   12 /* a life */
#define DISTINCT_MAX 64

/* In shared memory: what the child got done. */
struct life {
    char fault[96]; /* "NAME:NTH" to die at; "" for none */
    char log[300];  /* fault log; "" for none */
    uint64_t seed;
    _Atomic unsigned confirmed;
};

static void draw(const struct model *model, struct test_random *random, unsigned index,
                 struct model_operation *ret_operation)
{
    model_draw(model, random, ret_operation);
    if (index == OPERATIONS / 2)
        ret_operation->kind = MODEL_SNAPSHOT; /* at least one a life */
}

static void live_once(void *arg)
{
    struct life *life = arg;
    struct store *store = NULL;
    struct test_random random;

    REQUIRE_OK(
        fault_arm(life->fault[0] ? life->fault : NULL, "kill", life->log[0] ? life->log : NULL));
    store = open_store(&live);
    test_random_init(&random, life->seed);
    for (unsigned i = 0; i < OPERATIONS; i++) {
        struct model_operation operation;

        draw(&live, &random, i, &operation);
        REQUIRE_OK(model_put(store, &operation, &why));
        model_apply(&live, &operation);
        atomic_fetch_add(&life->confirmed, 1);
    }
    store_close(store);
}

/* Plays what the child did to `live`, the state before it; then `played` must be that, or that and the
 * one operation under way. */
static void check_life(const struct life *life)
{
    struct test_random random;
    struct model_operation operation;
    unsigned confirmed = atomic_load(&life->confirmed);

    store_close(open_store(&played));
    test_random_init(&random, life->seed);
    for (unsigned i = 0; i < confirmed; i++) {
        draw(&live, &random, i, &operation);
        model_apply(&live, &operation);
    }
    if (model_equals(&played, &live))
        return;
    CHECK(confirmed < OPERATIONS);
    draw(&live, &random, confirmed, &operation);
    model_apply(&live, &operation);
    CHECK(model_equals(&played, &live));
}

struct point {
    char name[64];
    unsigned passes;
};

static unsigned read_points(const char *log, struct point points[DISTINCT_MAX])
{
    FILE *file = fopen(log, "re");
    char line[64];
    unsigned count = 0;

    REQUIRE(file != NULL);
    while (fgets(line, sizeof(line), file)) {
        unsigned i = 0;

        line[strcspn(line, "\n")] = '\0';
        while (i < count && strcmp(points[i].name, line) != 0)
            i++;
        REQUIRE(i < DISTINCT_MAX);
        if (i == count) {
            count++;
            points[i].passes = 0;
            memcpy(points[i].name, line, sizeof(line));
        }
        points[i].passes++;
    }
    (void)fclose(file);
    return count;
}

TEST(killed_at_every_fault_point_it_loses_nothing_confirmed)
{
    static struct point points[DISTINCT_MAX];
    struct life *life = test_shared(sizeof(*life));
    struct test_random random;
    unsigned count;
    unsigned deaths = 0;

    test_random_init(&random, test_seed());
    (void)snprintf(life->log, sizeof(life->log), "%s/faults", test_tmpdir());
    life->seed = test_random_next(&random);
    CHECK_INT_EQ(test_wait_exit(test_spawn(live_once, life), 10000), 0);
    memset(&live, 0, sizeof(live));
    check_life(life);
    count = read_points(life->log, points);
    life->log[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        unsigned step = points[i].passes > 8 ? points[i].passes / 8 : 1;

        for (unsigned nth = 1; nth <= points[i].passes; nth += step) {
            int status;

            (void)snprintf(life->fault, sizeof(life->fault), "%.63s:%u", points[i].name, nth);
            test_context("%s ", life->fault);
            life->seed = test_random_next(&random);
            atomic_store(&life->confirmed, 0);
            status = test_wait_exit(test_spawn(live_once, life), 10000);
            CHECK(status == 0 || status == -SIGKILL);
            deaths += status == -SIGKILL;
            check_life(life);
        }
    }
    test_note("%u deaths at %u fault points", deaths, count);
    CHECK(count >= 15);
    CHECK(deaths >= 60);
}

/* ---- The host dies ------------------------------------------------------------------------------------ */

/* Of the operation that was not yet synced, any sectors may have reached the disk, in any order. */
TEST(sectors_of_a_torn_write_in_any_order_are_before_or_after)
{
    static const size_t SECTORS[] = {64, 512, 4096};
    static struct model before_state;
    struct store *store = open_store(&live);
    struct test_random random;
    size_t bytes;
    uint64_t base;
    unsigned char *before;
    unsigned outcomes[2] = {0, 0};

    test_random_init(&random, test_seed());
    (void)count_files(".log", &base);
    before = read_journal(base, &bytes);
    for (int i = 0; i < 60; i++) {
        struct model_operation operation;
        unsigned char *after;
        unsigned char *mixed = malloc(bytes);

        REQUIRE(mixed != NULL);
        before_state = live;
        do
            model_draw(&live, &random, &operation);
        while (operation.kind == MODEL_SNAPSHOT);
        REQUIRE_OK(model_put(store, &operation, &why));
        model_apply(&live, &operation);
        after = read_journal(base, &bytes);
        for (int mix = 0; mix < 30; mix++) {
            size_t sector = SECTORS[test_random_below(&random, COUNT_OF(SECTORS))];
            bool is_before;
            bool is_after;

            for (size_t at = 0; at < bytes; at += sector)
                memcpy(mixed + at, (test_random_below(&random, 2) ? before : after) + at,
                       min_size(sector, bytes - at));
            memset(&played, 0, sizeof(played));
            test_context("operation %d mix %d ", i, mix);
            CHECK_OK(store_replay_image(mixed, bytes, base, &MODEL_CALLBACKS, &played, &why));
            is_before = model_equals(&played, &before_state);
            is_after = model_equals(&played, &live);
            CHECK(is_before || is_after);
            outcomes[is_after]++;
        }
        free(before);
        free(mixed);
        before = after;
    }
    CHECK(outcomes[0] > 0 && outcomes[1] > 0);
    free(before);
    store_close(store);
}

TEST_MAIN("store_crash", T_TIMEOUT(killed_at_every_fault_point_it_loses_nothing_confirmed, 120),
          T_TIMEOUT(sectors_of_a_torn_write_in_any_order_are_before_or_after, 60))
