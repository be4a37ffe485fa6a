/* test_room.c: limits, cursors, holds and gates: a producer's refresh against whoever joins, commits or claims. */
#include "test/support/intrude.h"

/* ---- room ---------------------------------------------------------------------------------------------------- */

static struct ring_producer refresher; /* slot 3, through `ring` */
static int refreshed;

static void refresh(void)
{
    refreshed = ring_refresh_limit(&refresher, 64, UINT64_MAX);
}

static void setup_full_ring(void)
{
    partition_assign_slot(&w.partition, 3, 5);
    ring_producer_init(&refresher, &w.ring, 3);
    fill_until(BASE + 2 * CAPACITY);
}

static uint64_t cursor_of(uint32_t gate)
{
    struct group_segment *group = w.partition.groups[gate].address;

    return cursor_offset(atomic_load(&group->cursor), ring_tail(&w.ring));
}

static void join(void)
{
    partition_add_group(&w.partition, &w.other, 0, ring_oldest(&w.other), true);
}

static void check_not_lapped(void)
{
    CHECK(refreshed == RING_OK || refreshed == RING_NO_ROOM);
    CHECK(refresher.limit <= cursor_of(0) + CAPACITY);
}

static void setup_raised_head(void)
{
    setup_full_ring(); /* somebody else has raised head already: the second scan is due all the same */
    struct ring_producer again;

    ring_producer_init(&again, &w.other, 4);
    CHECK_EQ(ring_refresh_limit(&again, 64, UINT64_MAX), RING_OK);
}

TEST(group_that_joins_at_any_instruction_of_a_refresh_is_not_lapped)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_full_ring, refresh, join, check_not_lapped);
    at_every_step(setup_raised_head, refresh, join, check_not_lapped);
    world_end();
}

static struct group_segment *entered;
static uint64_t attached;

static void setup_entered(void)
{
    setup_full_ring();
    entered = partition_add_group(&w.partition, &w.other, 0, BASE, false);
}

static void attach(void)
{
    int error = 0;

    attached = cursor_attach(&w.other, entered, 0, ring_oldest(&w.other), true, &error);
    CHECK_OK(error);
}

TEST(refresh_at_any_instruction_of_an_attach_does_not_lap_it)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_entered, attach, refresh, check_not_lapped);
    world_end();
}

static void setup_member(void)
{
    partition_assign_slot(&w.partition, 3, 5);
    ring_producer_init(&refresher, &w.ring, 3);
    entered = partition_add_group(&w.partition, &w.other, 0, BASE, true);
    atomic_store(&entered->members[0].client, MEMBER);
    fill_until(BASE + CAPACITY);
}

static void hold_and_commit(void)
{
    uint64_t word = atomic_load(&entered->cursor);

    atomic_store(&entered->members[0].hold, BASE);
    CHECK_OK(cursor_commit(entered, &word, BASE + CAPACITY / 2));
}

static void check_hold(void)
{
    CHECK(refresher.limit <= BASE + CAPACITY);
}

TEST(hold_that_takes_over_from_the_cursor_is_never_missed)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    uint64_t before = stride;

    stride *= 7;
    at_every_step(setup_member, refresh, hold_and_commit, check_hold);
    stride = before;
    world_end();
}

static void claim_and_stall(void)
{
    REQUIRE(ring_claim(&w.winner, 192, &w.t) == RING_OK);
}

static void setup_ready_winner(void)
{
    setup_full_ring();
    REQUIRE(ring_refresh_limit(&w.winner, 192, UINT64_MAX) == RING_OK);
    REQUIRE(ring_refresh_limit(&w.publisher, CAPACITY / 16, UINT64_MAX) == RING_OK);
}

static void setup_stalled(void)
{
    setup_ready_winner();
    claim_and_stall();
    publish(32);
}

static void check_claim_not_lapped(void)
{
    CHECK(refresher.limit <= w.t + CAPACITY);
    CHECK(refresher.limit >= ring_tail(&w.ring) - CAPACITY / 2);
}

static void publish_some(void)
{
    publish(32);
    publish(32);
}

TEST(claim_is_never_lapped_by_a_limit_that_was_computed_beside_it)
{
    enum overflow_policy policies[] = {OVERFLOW_BLOCK, OVERFLOW_DROP_OLD};

    stepping_require();
    for (size_t i = 0; i < 2; i++) {
        world_begin(policies[i]);
        world_open();
        at_every_step(setup_ready_winner, refresh, claim_and_stall, check_claim_not_lapped);
        at_every_step(setup_stalled, refresh, publish_some, check_claim_not_lapped);
        world_end();
    }
}

TEST(limit_is_what_cursors_holds_claims_and_journal_leave)
{
    struct room_blocker blocker;
    uint64_t word;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_member();
    word = atomic_load(&entered->cursor);
    CHECK_OK(cursor_commit(entered, &word, BASE + 8192));
    refresh();
    CHECK_EQ(refreshed, RING_OK);
    CHECK_EQ(refresher.limit, BASE + 8192 + CAPACITY);

    atomic_store(&partition_state(&w.ring)->durable, BASE + 640);
    refresh();
    CHECK_EQ(refresher.limit, BASE + 640 + CAPACITY);
    ring_find_blocker(&w.ring, &blocker);
    CHECK_EQ(blocker.holder, ROOM_DURABLE);
    CHECK_EQ(blocker.offset, BASE + 640);
    atomic_store(&partition_state(&w.ring)->durable, UINT64_MAX);

    atomic_store(&entered->members[3].client, MEMBER + 1);
    atomic_store(&entered->members[3].hold, BASE + 4096);
    refresh();
    CHECK_EQ(refresher.limit, BASE + 4096 + CAPACITY);
    ring_find_blocker(&w.ring, &blocker);
    CHECK_EQ(blocker.holder, ROOM_HOLD);
    CHECK_EQ(blocker.member, 3);
    CHECK_EQ(blocker.client, MEMBER + 1);
    CHECK_EQ(blocker.offset, BASE + 4096);
    atomic_store(&entered->members[3].client, CLIENT_NONE); /* a free line holds nothing */
    refresh();
    CHECK_EQ(refresher.limit, BASE + 8192 + CAPACITY);

    uint64_t claimed = 0;

    REQUIRE(ring_refresh_limit(&w.winner, 64, UINT64_MAX) == RING_OK);
    REQUIRE(ring_claim(&w.winner, 64, &claimed) == RING_OK);
    word = atomic_load(&entered->cursor);
    CHECK_OK(cursor_commit(entered, &word, claimed + 64)); /* no honest group does that */
    refresh();
    CHECK(refresher.limit <= claimed + CAPACITY);
    ring_find_blocker(&w.ring, &blocker);
    CHECK_EQ(blocker.holder, ROOM_CLAIM);
    CHECK_EQ(blocker.offset, claimed);
    ring_abort(&w.winner, claimed);
    ring_find_blocker(&w.ring, &blocker);
    CHECK_EQ(blocker.holder, ROOM_FREE);
    world_end();
}

TEST(hold_below_the_ring_hides_no_other_members_hold)
{
    uint64_t word;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_member();
    atomic_store(&entered->members[0].hold, BASE); /* dies with it; no shmqd clears it */
    w.dead[MEMBER] = true;
    word = atomic_load(&entered->cursor);
    CHECK_OK(cursor_commit(entered, &word, BASE + CAPACITY / 2));
    fill_until(BASE + CAPACITY + CAPACITY / 4);
    /* Further than that, and than any limit that is still to come would have to look back. */
    for (uint64_t lap_end = BASE + 3 * CAPACITY / 2; lap_end < BASE + 4 * CAPACITY;
         lap_end += CAPACITY / 4) {
        word = atomic_load(&entered->cursor);
        CHECK_OK(cursor_commit(entered, &word, ring_tail(&w.ring)));
        fill_until(lap_end);
    }
    uint64_t tail = ring_tail(&w.ring);

    /* A second member of the group looks at a message that the cursor has passed. */
    atomic_store(&entered->members[1].client, MEMBER + 1);
    atomic_store(&entered->members[1].hold, tail - CAPACITY / 2);
    word = atomic_load(&entered->cursor);
    CHECK_OK(cursor_commit(entered, &word, tail));
    while (partition_publish(&w.publisher, 32, (struct message_tag){OTHER, 0}) == RING_OK &&
           ring_tail(&w.ring) < tail + CAPACITY)
        ;
    CHECK_EQ(ring_tail(&w.ring), tail + CAPACITY / 2);
    world_end();
}

TEST(hold_of_the_dead_below_the_ring_does_not_stop_producers)
{
    uint64_t word;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_member();
    atomic_store(&entered->members[0].hold, BASE);
    w.dead[MEMBER] = true;
    word = atomic_load(&entered->cursor);
    CHECK_OK(cursor_commit(entered, &word, BASE + CAPACITY / 2));
    fill_until(BASE + CAPACITY + CAPACITY / 4); /* the kernel said that it is dead */
    word = atomic_load(&entered->cursor);
    CHECK_OK(cursor_commit(entered, &word, BASE + CAPACITY));
    fill_until(BASE + CAPACITY + CAPACITY / 2);
    CHECK_EQ(ring_tail(&w.ring), BASE + CAPACITY + CAPACITY / 2);
    world_end();
}

TEST(head_rises_no_further_than_is_needed_and_never_falls)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_full_ring();
    uint64_t tail = ring_tail(&w.ring);

    refresh();
    CHECK_EQ(refreshed, RING_OK);
    CHECK(refresher.limit >= tail + 64);
    CHECK(refresher.limit <= tail + 64 + CAPACITY / 8 + CAPACITY / 8);
    CHECK(atomic_load(&w.ring.producers->head) >= refresher.limit - CAPACITY);
    atomic_store(&w.ring.producers->head, tail - 64);
    refresh();
    CHECK_EQ(atomic_load(&w.ring.producers->head), tail - 64);
    CHECK_EQ(refresher.limit, tail - 64 + CAPACITY); /* what is announced already costs nothing */
    world_end();
}

TEST(group_that_cannot_be_mapped_is_not_lapped)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_full_ring();
    join();
    w.map_result = SHMQ_ETIMEOUT;
    refresh();
    CHECK_INT_EQ(refreshed, SHMQ_ETIMEOUT);
    CHECK_EQ(refresher.limit, 0);
    w.map_result = SHMQ_ENOGROUP; /* says who answers; S says that it gates */
    refresh();
    CHECK(refreshed < 0 || refresher.limit <= cursor_of(0) + CAPACITY);
    w.map_result = 0;
    refresh();
    CHECK(refreshed >= 0 && refresher.limit <= cursor_of(0) + CAPACITY);
    /* Gone for good: then the answer fits what S says. */
    struct ring_producer fresh;

    atomic_store(&partition_state(&w.ring)->gates[0].state, GATE_DELETED);
    ring_producer_init(&fresh, &w.other, 4);
    w.map_result = SHMQ_ENOGROUP;
    CHECK_EQ(ring_refresh_limit(&fresh, 64, UINT64_MAX), RING_OK);
    world_end();
}

static void join_gate_one(void)
{
    partition_add_group(&w.partition, &w.other, 1, ring_oldest(&w.other), true);
}

TEST(group_that_joins_while_another_is_mapped_is_not_lapped)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_full_ring();
    partition_add_group(&w.partition, &w.other, 0, ring_tail(&w.other), true);
    w.on_map = join_gate_one;
    refresh();
    CHECK(refresher.limit <= cursor_of(1) + CAPACITY);
    world_end();
}

TEST(gate_that_is_used_again_is_another_group)
{
    struct gate *gate;
    uint64_t tail;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_full_ring();
    join();
    while (partition_publish(&w.publisher, 32, (struct message_tag){OTHER, 0}) == RING_OK)
        ;
    tail = ring_tail(&w.ring);
    refresh();
    CHECK_EQ(refreshed, RING_NO_ROOM);
    gate = &partition_state(&w.ring)->gates[0];
    atomic_store(&gate->state, GATE_IDLE); /* skipped at once, and back at once */
    refresh();
    CHECK_EQ(refreshed, RING_OK);
    atomic_store(&gate->state, GATE_OPEN);
    refresh();
    CHECK_EQ(refreshed, RING_NO_ROOM);

    /* Another group takes the gate, with memory of its own, and its epoch is not out yet: the old mapping is not asked. */
    struct segment before = w.partition.groups[0];
    int fd = w.partition.group_fds[0];

    atomic_store(&gate->state, GATE_DELETED);
    atomic_store(&gate->group, 77);
    atomic_store(&gate->state, GATE_OPEN);
    refresh();
    CHECK_EQ(refreshed, RING_OK);
    partition_add_group(&w.partition, &w.other, 0, tail - 1024,
                        true); /* id 1 again, by another memory */
    atomic_store(&gate->group, 78);
    atomic_fetch_add(&partition_state(&w.ring)->gate_epoch, 1);
    refresh();
    CHECK(refresher.limit <= cursor_of(0) + CAPACITY);
    CHECK(cursor_of(0) >= tail - 1024);
    CHECK_EQ(w.ring.gates[0].group, 78);
    segment_unmap(&before);
    close(fd);
    world_end();
}

TEST(cursor_keeps_its_bits_through_attach_and_fence)
{
    struct group_segment *group;
    int error = 0;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_full_ring();
    group = partition_add_group(&w.partition, &w.ring, 0, BASE, false);
    CHECK(atomic_load(&w.ring.producers->head) > BASE);
    CHECK(
        !cursor_gates(atomic_load(&group->cursor))); /* it gates nothing: it may stand below head */
    CHECK_EQ(cursor_of(0), BASE);
    refresh();
    CHECK_EQ(refreshed, RING_OK); /* ... and nobody waits for it */
    (void)cursor_attach(&w.ring, group, 1, BASE, true, &error);
    CHECK_INT_EQ(error, SHMQ_EFENCED); /* of another generation */
    uint64_t at = cursor_attach(&w.ring, group, 0, BASE, true, &error);

    CHECK_OK(error);
    CHECK_EQ(at, atomic_load(&w.ring.producers->head));
    CHECK_EQ(cursor_fence(group), 1);
    CHECK(cursor_gates(atomic_load(&group->cursor)));
    CHECK_EQ(cursor_of(0), at);
    world_end();
}

TEST(hold_that_no_ring_can_hold_stops_nobody)
{
    uint64_t word;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_member();
    fill_until(BASE + CAPACITY);
    word = atomic_load(&entered->cursor);
    CHECK_OK(cursor_commit(entered, &word, BASE + CAPACITY));
    fill_until(BASE + CAPACITY + CAPACITY / 2);
    atomic_store(&entered->members[0].hold, BASE); /* alive, and scribbled */
    refresh();
    CHECK_EQ(refreshed, RING_OK);
    world_end();
}

TEST_MAIN("room", T_TIMEOUT(group_that_joins_at_any_instruction_of_a_refresh_is_not_lapped, 60),
          T_TIMEOUT(refresh_at_any_instruction_of_an_attach_does_not_lap_it, 60),
          T_TIMEOUT(hold_that_takes_over_from_the_cursor_is_never_missed, 60),
          T_TIMEOUT(claim_is_never_lapped_by_a_limit_that_was_computed_beside_it, 60),
          T(limit_is_what_cursors_holds_claims_and_journal_leave),
          T(hold_below_the_ring_hides_no_other_members_hold),
          T(hold_of_the_dead_below_the_ring_does_not_stop_producers),
          T(head_rises_no_further_than_is_needed_and_never_falls),
          T(group_that_cannot_be_mapped_is_not_lapped),
          T(group_that_joins_while_another_is_mapped_is_not_lapped),
          T(gate_that_is_used_again_is_another_group),
          T(cursor_keeps_its_bits_through_attach_and_fence),
          T(hold_that_no_ring_can_hold_stops_nobody))
