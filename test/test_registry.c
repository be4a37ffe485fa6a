/* The registry: lookups by name and id, order of lists, and readers beside a writer. */
#include "daemon/registry.h"
#include "test/support/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct thing {
    struct registry_entry entry;
    char name[32];
    _Atomic uint64_t alive; /* MARK until it is freed */
};

#define MARK UINT64_C(0x416c697665)

static _Atomic uint32_t freed;

static void free_thing(struct registry_entry *entry)
{
    struct thing *thing = CONTAINER_OF(entry, struct thing, entry);

    thing->alive = 0;
    free(thing);
    freed++;
}

static struct thing *thing_new(const char *name, uint64_t id)
{
    struct thing *thing = calloc(1, sizeof(*thing));

    REQUIRE(thing != NULL);
    snprintf(thing->name, sizeof(thing->name), "%s", name);
    thing->entry.name = thing->name;
    thing->entry.id = id;
    thing->entry.free = free_thing;
    thing->alive = MARK;
    return thing;
}

static void open_registry(struct registry *registry)
{
    struct error_buffer why;

    rcu_register_thread();
    REQUIRE_OK(registry_init(registry, &why));
}

static void close_registry(struct registry *registry)
{
    registry_deinit(registry);
    rcu_unregister_thread();
}

TEST(finds_by_name_and_by_id)
{
    struct registry registry;
    struct thing *a, *b;

    open_registry(&registry);
    a = thing_new("a", 7);
    b = thing_new("b", 8);
    CHECK_OK(registry_add(&registry, &a->entry));
    CHECK_OK(registry_add(&registry, &b->entry));
    CHECK(registry_find_name(&registry, "a") == &a->entry);
    CHECK(registry_find_id(&registry, 8) == &b->entry);
    CHECK(registry_find_name(&registry, "c") == NULL);
    CHECK(registry_find_id(&registry, 9) == NULL);
    registry_remove(&registry, &a->entry);
    CHECK(registry_find_name(&registry, "a") == NULL);
    CHECK(registry_find_id(&registry, 7) == NULL);
    CHECK(registry_find_name(&registry, "b") == &b->entry);
    CHECK_EQ(registry.count, 1);
    CHECK_EQ(freed, 0);
    registry_reap(&registry);
    CHECK_EQ(freed, 1);
    close_registry(&registry);
    CHECK_EQ(freed, 2);
}

TEST(refuses_a_second_of_one_name_or_id)
{
    struct registry registry;
    struct thing *a, *same_name, *same_id;

    open_registry(&registry);
    a = thing_new("a", 7);
    same_name = thing_new("a", 8);
    same_id = thing_new("b", 7);
    CHECK_OK(registry_add(&registry, &a->entry));
    CHECK_ERR(registry_add(&registry, &same_name->entry), SHMQ_EEXIST);
    CHECK_ERR(registry_add(&registry, &same_id->entry), SHMQ_EEXIST);
    /* And nothing of them is left inside. */
    CHECK(registry_find_id(&registry, 8) == NULL);
    CHECK(registry_find_name(&registry, "b") == NULL);
    CHECK_EQ(registry.count, 1);
    free(same_name);
    free(same_id);
    close_registry(&registry);
}

TEST(lists_in_the_order_of_names)
{
    struct registry registry;
    struct registry_entry **entries;
    uint32_t count = 0;

    open_registry(&registry);
    for (uint32_t i = 0; i < 1000; i++) { /* grows several times */
        char name[16];

        snprintf(name, sizeof(name), "t%u", (i * 7919) % 1000);
        CHECK_OK(registry_add(&registry, &thing_new(name, i + 1)->entry));
    }
    entries = registry_collect(&registry, &count);
    REQUIRE(entries != NULL);
    CHECK_EQ(count, 1000);
    for (uint32_t i = 1; i < count; i++)
        CHECK(strcmp(entries[i - 1]->name, entries[i]->name) < 0);
    free(entries);
    for (uint32_t i = 0; i < 1000; i++)
        CHECK(registry_find_id(&registry, i + 1) != NULL);
    close_registry(&registry);
    CHECK_EQ(freed, 1000);
}

/* ---- readers beside the writer --------------------------------------------------------------- */

struct race {
    struct registry registry;
    _Atomic bool stop;
    _Atomic uint64_t found;
    _Atomic uint64_t dead; /* found, and freed already */
};

static void *read_all_the_time(void *context)
{
    struct race *race = context;

    rcu_register_thread();
    while (!race->stop) {
        for (uint64_t id = 1; id <= 64; id++) {
            struct registry_entry *entry;
            char name[16];

            snprintf(name, sizeof(name), "t%u", (unsigned)id);
            rcu_read_lock();
            entry = id % 2 ? registry_find_id(&race->registry, id)
                           : registry_find_name(&race->registry, name);
            if (entry) {
                race->found++;
                if (CONTAINER_OF(entry, struct thing, entry)->alive != MARK ||
                    strcmp(entry->name, name) != 0)
                    race->dead++;
            }
            rcu_read_unlock();
        }
    }
    rcu_unregister_thread();
    return NULL;
}

TEST(what_a_reader_found_lives_until_it_lets_go)
{
    static struct race race;
    struct thing *things[65] = {NULL};
    struct test_random random;
    pthread_t readers[2];

    test_random_init(&random, test_seed());
    open_registry(&race.registry);
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&readers[i], NULL, read_all_the_time, &race) == 0);
    for (int i = 0; i < 20000 || race.found < 1000; i++) {
        uint64_t id = 1 + test_random_below(&random, 64);
        char name[16];

        if (things[id]) {
            registry_remove(&race.registry, &things[id]->entry);
            things[id] = NULL;
            if (i % 4 == 0)
                registry_reap(&race.registry);
            continue;
        }
        snprintf(name, sizeof(name), "t%u", (unsigned)id);
        things[id] = thing_new(name, id);
        if (registry_add(&race.registry, &things[id]->entry) < 0)
            FAIL("t%u is in already", (unsigned)id);
    }
    race.stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(readers[i], NULL);
    CHECK(race.found > 0);
    CHECK_EQ(race.dead, 0);
    close_registry(&race.registry);
}

TEST_MAIN("registry", T(finds_by_name_and_by_id), T(refuses_a_second_of_one_name_or_id),
          T(lists_in_the_order_of_names), T_TIMEOUT(what_a_reader_found_lives_until_it_lets_go, 60))
