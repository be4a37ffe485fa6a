/* test_recover_hostile.c: scribbled P and D keep nobody, shmqd least; and where readers start while claims are unfinished. */
#include <pthread.h>

#include "test/support/intrude.h"

/* ---- hostile shared memory: no operation of shmqd's goes on for ever ---------------------------------------------- */

static void change_end_when_asked(uint64_t client)
{
    (void)client;
    atomic_fetch_add(&slot_of(1)->end, 64);
}

TEST(words_that_change_for_ever_do_not_keep_a_resolver)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_batch();
    w.dead[WINNER] = true;
    w.on_asked = change_end_when_asked;
    resolve_t();
    CHECK_EQ(result, RESOLVE_WAIT);
    CHECK(w.asked <= 4 * SLOTS_MAX);
    w.on_asked = NULL;
    atomic_store(&slot_of(1)->end, w.t + 192);
    CHECK_EQ(padded_bytes(), 192);
    world_end();
}

static _Atomic bool stop_raising;

static void *raise_for_ever(void *argument)
{
    struct producers_segment *producers = argument;

    while (!atomic_load_explicit(&stop_raising, memory_order_relaxed)) {
        atomic_fetch_add(&producers->tail, 64);
        atomic_fetch_add(&producers->head, 64);
    }
    return NULL;
}

TEST(garbage_in_head_does_not_keep_who_attaches)
{
    uint64_t heads[] = {UINT64_MAX, UINT64_MAX - 63, UINT64_MAX - 64, BASE + CAPACITY * 9 + 1};
    struct group_segment *group;
    pthread_t thread;
    int error = 0;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    group = partition_add_group(&w.partition, &w.ring, 0, BASE, false);
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        atomic_store(&w.ring.producers->head, heads[i]);
        error = 0;
        (void)cursor_attach(&w.ring, group, 0, BASE, true, &error);
        CHECK(error == SHMQ_ECORRUPT || error == 0);
        atomic_store(&w.ring.producers->tail, UINT64_MAX);
        (void)cursor_attach(&w.ring, group, 0, BASE, true, &error);
        atomic_store(&w.ring.producers->tail, BASE);
    }
    atomic_store(&w.ring.producers->head, BASE);
    REQUIRE(pthread_create(&thread, NULL, raise_for_ever, w.ring.producers) == 0);
    for (int i = 0; i < 100; i++)
        (void)cursor_attach(&w.ring, group, 0, BASE, true, &error);
    atomic_store(&stop_raising, true);
    pthread_join(thread, NULL);
    world_end();
}

TEST(garbage_in_tail_does_not_keep_who_looks_for_a_start)
{
    uint64_t tails[] = {UINT64_MAX, UINT64_MAX - 63, UINT64_MAX - CAPACITY, 0, 1};
    uint64_t froms[] = {0, BASE, UINT64_MAX, UINT64_MAX - 63, UINT64_MAX - CAPACITY / 2 - 1};
    struct room_blocker blocker;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        for (size_t j = 0; j < sizeof(froms) / sizeof(froms[0]); j++) {
            atomic_store(&w.ring.producers->tail, tails[i]);
            uint64_t y = ring_resynchronise(&w.ring, froms[j]);

            CHECK(y <= tails[i] || y % RECORD_UNIT == 0);
            ring_find_blocker(&w.ring, &blocker);
            for (uint32_t s = 0; s < w.ring.slot_count; s++)
                announce(s, tails[i] & ~SLOT_BITS, tails[j], SLOT_CLAIMING | SLOT_OWNER);
            w.dead[OTHER] = w.dead[WINNER] = w.dead[LOSER] = true;
            (void)ring_resolve(&w.ring, froms[j]);
            (void)ring_resolve(&w.ring, tails[i] & ~SLOT_BITS);
            (void)ring_clear_slot(&w.ring, 1);
            (void)ring_resynchronise(&w.ring, froms[j]);
        }
    }
    world_end();
}

TEST(padding_without_end_does_not_keep_a_reader)
{
    struct ring_reader reader;
    unsigned char copy[256];
    uint32_t length;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    /* One header serves every offset of a hostile writer that re-stamps as the reader goes: a ring whose mask folds all
     * positions onto one record shows the same without a race. */
    ring_reader_init(&reader, &w.ring, BASE);
    for (uint64_t y = BASE; y < BASE + CAPACITY; y += 64) {
        ring_record(w.ring.data, w.ring.mask, y)->length = 32;
        atomic_store(commit_at(y), record_stamp(w.ring.salt, y, RECORD_PADDING));
    }
    atomic_store(&w.ring.producers->tail, BASE + CAPACITY);
    CHECK(ring_peek(&reader, &length) == NULL);
    CHECK_EQ(length, 0);
    CHECK(reader.position <= BASE + CAPACITY);
    ring_reader_init(&reader, &w.ring, BASE);
    CHECK_EQ(ring_copy(&reader, copy, sizeof(copy)), 0);
    CHECK(reader.position <= BASE + CAPACITY);
    world_end();
}

/* ---- where to start ------------------------------------------------------------------------------------------ */

static uint64_t from, found;

static void resynchronise(void)
{
    found = ring_resynchronise(&w.ring, from);
}

static void setup_dead_batch(void)
{
    setup_batch();
    from = w.t;
    w.dead[WINNER] = true;
}

static void setup_dead_batch_inside(void)
{
    setup_dead_batch();
    from = w.t + 64;
}

static void resolve_and_clear(void)
{
    CHECK_EQ(ring_resolve(&w.other, w.t), RESOLVE_PADDED);
    CHECK_EQ(ring_clear_slot(&w.other, 1), RESOLVE_DONE);
}

static void check_start_outside_batch(void)
{
    CHECK(found == w.t || found == w.t + 192);
}

static void setup_live_batch(void)
{
    setup_batch();
    from = w.t;
}

static void check_start_loses_nothing(void)
{
    CHECK_EQ(found, w.t);
}

TEST(no_start_inside_a_batch_that_is_being_wiped)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_dead_batch, resynchronise, resolve_and_clear, check_start_outside_batch);
    at_every_step(setup_dead_batch_inside, resynchronise, resolve_and_clear,
                  check_start_outside_batch);
    world_end();
}

TEST(start_is_never_behind_a_claim_that_is_still_to_be_published)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_live_batch, resynchronise, finish, check_start_loses_nothing);
    world_end();
}

TEST(late_joiner_gets_the_message_that_a_stalled_producer_publishes_afterwards)
{
    struct ring_reader reader;
    struct message_tag tag;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    publish(32);
    claim_batch();
    while (partition_publish(&w.publisher, 32, (struct message_tag){OTHER, 0}) == RING_OK)
        ; /* until the stalled claim is the ring's lowest byte */
    CHECK_EQ(atomic_load(&w.ring.producers->head), w.t);
    struct group_segment *group = partition_add_group(&w.partition, &w.ring, 0, BASE, true);
    uint64_t at = cursor_offset(atomic_load(&group->cursor), ring_tail(&w.ring));

    CHECK_EQ(at, w.t);
    ring_reader_init(&reader, &w.ring, ring_resynchronise(&w.ring, at));
    finish();
    CHECK_EQ(partition_take(&reader, &tag), 32);
    CHECK_EQ(tag.producer, WINNER);
    CHECK_EQ(tag.number, 0);
    world_end();
}

TEST(late_joiner_of_a_gated_partition_gets_all_that_its_cursor_keeps)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    publish_until(BASE + 2 * CAPACITY);
    from = ring_tail(&w.ring) - CAPACITY;
    CHECK_EQ(ring_resynchronise(&w.ring, from), from);
    CHECK_EQ(ring_resynchronise(&w.ring, from - 640), from);
    CHECK_EQ(ring_resynchronise(&w.ring, from + 1), from + 64);
    world_end();

    world_begin(OVERFLOW_DROP_OLD); /* where nothing is kept, the start keeps some distance */
    world_open();
    publish_until(BASE + 2 * CAPACITY);
    CHECK_EQ(ring_resynchronise(&w.ring, BASE), BASE + CAPACITY + CAPACITY / 8);
    world_end();
}

TEST(losers_and_lapped_slots_hide_no_published_record)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    publish(32);
    claim_batch();
    publish_until(w.t + 1024);
    announce(2, w.t, w.t + 8192, SLOT_CLAIMING); /* lost t, does not know it */
    CHECK_EQ(ring_resynchronise(&w.ring, BASE), BASE);
    CHECK_EQ(ring_resynchronise(&w.ring, BASE + 1), w.t);

    world_again(); /* a dead loser of the lap before, whose wish reaches into what the ring still holds */
    publish(32);
    announce(2, BASE, BASE + 8192, SLOT_CLAIMING);
    publish_until(BASE + CAPACITY + 128);
    CHECK_EQ(ring_resynchronise(&w.ring, BASE), BASE + 128);
    world_end();
}

static unsigned char copied_bytes[CAPACITY];

TEST(readers_believe_no_length_and_start_in_the_log)
{
    struct ring_reader reader;
    unsigned char small[RECORD_HEADER + 64];
    uint32_t length;

    world_begin(OVERFLOW_DROP_OLD);
    world_open();
    publish(100);
    struct record *record = ring_record(w.ring.data, w.ring.mask, BASE);

    ring_reader_init(&reader, &w.ring, BASE);
    CHECK_EQ(ring_copy(&reader, small, sizeof(small)), RING_TOO_LONG); /* no room for it */
    record->length = reader.length_max + 1;
    CHECK(ring_peek(&reader, &length) == NULL);
    CHECK_EQ(length, UINT32_MAX);
    CHECK_EQ(ring_copy(&reader, copied_bytes, sizeof(copied_bytes)), RING_TOO_LONG);
    record->length = reader.length_max;
    CHECK(ring_peek(&reader, &length) == record);

    atomic_store(&w.ring.producers->tail, BASE + CAPACITY);
    CHECK(ring_copy_valid(&reader, BASE));
    atomic_store(&w.ring.producers->tail, BASE + CAPACITY + 64);
    CHECK(!ring_copy_valid(&reader, BASE));
    CHECK(ring_copy_valid(&reader, BASE + 64));
    CHECK_EQ(ring_oldest(&w.ring), BASE + 64);
    atomic_store(&partition_state(&w.ring)->first, BASE + 640); /* purged */
    CHECK_EQ(ring_oldest(&w.ring), BASE + 640);
    world_end();
}

TEST(successor_of_a_single_producer_begins_at_tail)
{
    struct ring_producer first, second;
    uint64_t at = 0;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    partition_state(&w.ring)->producers = PRODUCERS_SINGLE;
    ring_producer_init(&first, &w.other, 0);
    CHECK_EQ(partition_publish(&first, 32, (struct message_tag){OTHER, 0}), RING_OK);
    REQUIRE(ring_claim(&first, 192, &at) == RING_OK); /* and dies */
    w.dead[OTHER] = true;
    CHECK_EQ(ring_clear_slot(&w.ring, 0), RESOLVE_DONE);
    ring_producer_init(&second, &w.ring, 0);
    CHECK_EQ(partition_publish(&second, 32, (struct message_tag){OTHER, 1}), RING_OK);
    CHECK(ring_is_stamped(&w.ring, at + 192));
    check_log(BASE);
    world_end();
}

/* A winner died before it could say that it won; at any moment somebody claims what follows, and stalls. */
static void setup_silent_winner(void)
{
    publish(32);
    w.t = ring_tail(&w.ring);
    announce(1, w.t, w.t + 64, SLOT_CLAIMING);
    atomic_store(&w.ring.producers->tail, w.t + 64);
    w.dead[WINNER] = true;
}

static void claim_behind(void)
{
    uint64_t at = 0;

    CHECK_EQ(ring_claim(&w.publisher, 640, &at), RING_OK);
    CHECK_EQ(at, w.t + 64);
}

static void check_short_padding(void)
{
    CHECK_EQ(result, RESOLVE_PADDED);
    CHECK_EQ(ring_record(w.ring.data, w.ring.mask, w.t)->length, 32);
}

TEST(claim_behind_a_dead_one_is_a_boundary_at_any_instruction)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_silent_winner, resolve_t, claim_behind, check_short_padding);
    world_end();
}

TEST_MAIN("recover_hostile", T(words_that_change_for_ever_do_not_keep_a_resolver),
          T_TIMEOUT(garbage_in_head_does_not_keep_who_attaches, 10),
          T_TIMEOUT(garbage_in_tail_does_not_keep_who_looks_for_a_start, 10),
          T(padding_without_end_does_not_keep_a_reader),
          T_TIMEOUT(no_start_inside_a_batch_that_is_being_wiped, 60),
          T_TIMEOUT(start_is_never_behind_a_claim_that_is_still_to_be_published, 60),
          T(late_joiner_gets_the_message_that_a_stalled_producer_publishes_afterwards),
          T(late_joiner_of_a_gated_partition_gets_all_that_its_cursor_keeps),
          T(losers_and_lapped_slots_hide_no_published_record),
          T(readers_believe_no_length_and_start_in_the_log),
          T(successor_of_a_single_producer_begins_at_tail),
          T_TIMEOUT(claim_behind_a_dead_one_is_a_boundary_at_any_instruction, 60))
