/* test_recover.c: resolving dead claims and clearing slots, against whoever acts in the middle (see intrude.h). */
#include "libshmq/liveness.h"
#include "test/support/intrude.h"

/* ---- resolving while its owner still acts ------------------------------------------------------------------- */

static void stamp_and_die(void)
{
    ring_stamp(&w.winner, w.t, RECORD_COMMITTED);
    w.dead[WINNER] = true;
}

static void finish_and_die(void)
{
    ring_stamp(&w.winner, w.t, RECORD_COMMITTED);
    ring_release_claim(w.winner.slot, 1);
    w.dead[WINNER] = true;
}

static void finish_claim_next_and_die(void)
{
    uint64_t next;

    ring_stamp(&w.winner, w.t, RECORD_COMMITTED);
    ring_release_claim(w.winner.slot, 1);
    REQUIRE(ring_refresh_limit(&w.winner, 1024, UINT64_MAX) == RING_OK);
    REQUIRE(ring_claim(&w.winner, 1024, &next) == RING_OK);
    w.dead[WINNER] = true;
}

static void stamp_and_be_lapped(void)
{
    ring_stamp(&w.winner, w.t, RECORD_COMMITTED);
    lap(w.t);
    w.dead[WINNER] = true;
}

static void finish_and_be_lapped(void)
{
    ring_stamp(&w.winner, w.t, RECORD_COMMITTED);
    ring_release_claim(w.winner.slot, 1);
    lap(w.t);
    w.dead[WINNER] = true;
}

static void check_batch_is_whole(void)
{
    CHECK(result == RESOLVE_DONE || result == RESOLVE_WAIT);
    for (uint64_t y = w.t; y < w.t + 192; y += 64)
        CHECK_EQ(state_at(y), RECORD_COMMITTED);
    if (state_at(w.t) == RECORD_COMMITTED && (atomic_load(&slot_of(1)->at) & ~SLOT_BITS) <= w.t)
        check_log(BASE);
}

static void check_next_lap_is_whole(void)
{
    CHECK(result == RESOLVE_DONE || result == RESOLVE_WAIT);
    CHECK_EQ(state_at(w.t + CAPACITY - 64), RECORD_COMMITTED);
    check_log(w.t + CAPACITY - 64);
}

TEST(resolver_never_touches_what_was_stamped_while_it_looked)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_batch, resolve_t, stamp_and_die, check_batch_is_whole);
    at_every_step(setup_batch, resolve_t, finish_and_die, check_batch_is_whole);
    at_every_step(setup_batch, resolve_t, finish_claim_next_and_die, check_batch_is_whole);
    world_end();
}

TEST(resolver_never_touches_the_next_lap)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_batch, resolve_t, stamp_and_be_lapped, check_next_lap_is_whole);
    at_every_step(setup_batch, resolve_t, finish_and_be_lapped, check_next_lap_is_whole);
    world_end();
}

/* The same without stepping: everything happens in the one moment when the kernel is asked who is dead. */
static void finish_when_asked(uint64_t client)
{
    if (client == WINNER)
        w.on_asked = NULL, finish_and_die();
}

static void stamp_when_asked(uint64_t client)
{
    if (client == WINNER)
        w.on_asked = NULL, stamp_and_die();
}

static void lap_when_asked(uint64_t client)
{
    if (client == WINNER)
        w.on_asked = NULL, stamp_and_be_lapped();
}

TEST(owner_that_acts_while_the_kernel_is_asked_for_it_loses_nothing)
{
    void (*const acts[])(uint64_t) = {finish_when_asked, stamp_when_asked, lap_when_asked};

    world_begin(OVERFLOW_BLOCK);
    world_open();
    for (size_t i = 0; i < 3; i++) {
        world_again();
        setup_batch();
        w.on_asked = acts[i];
        resolve_t();
        CHECK_EQ(result, RESOLVE_DONE);
        if (i < 2)
            check_batch_is_whole();
        else
            check_next_lap_is_whole();
    }
    world_end();
}

/* A loser that named t with a longer end goes on, wins another claim, and dies. Its owner bit is not t's. */
static void loser_moves_on(void)
{
    uint64_t tail = ring_tail(&w.ring);

    atomic_store(&slot_of(2)->at, 0);
    announce(2, tail, tail + 512, SLOT_CLAIMING);
    atomic_store(&w.ring.producers->tail, tail + 512);
    atomic_store(&slot_of(2)->at, tail | SLOT_CLAIMING | SLOT_OWNER);
    w.dead[LOSER] = true;
}

static void setup_loser(void)
{
    publish(32);
    w.t = ring_tail(&w.ring);
    announce(2, w.t, w.t + 320, SLOT_CLAIMING); /* lost, and does not know it yet */
    announce(1, w.t, w.t + 64, SLOT_CLAIMING);  /* won, and died before it could say so */
    atomic_store(&w.ring.producers->tail, w.t + 64);
    w.dead[WINNER] = true;
    publish_until(w.t + 320); /* a boundary for the loser's end as well */
}

static void check_extent_is_the_winners(void)
{
    CHECK(result == RESOLVE_WAIT || result == RESOLVE_PADDED);
    if (result == RESOLVE_WAIT)
        resolve_t();
    CHECK_EQ(result, RESOLVE_PADDED);
    CHECK_EQ(state_at(w.t), RECORD_PADDING);
    CHECK_EQ(ring_record(w.ring.data, w.ring.mask, w.t)->length, 32);
    for (uint64_t y = w.t + 64; y < w.t + 320; y += 64)
        CHECK_EQ(state_at(y), RECORD_COMMITTED);
}

static void loser_moves_on_when_asked(uint64_t client)
{
    if (client == LOSER && !w.dead[LOSER])
        loser_moves_on();
}

TEST(stale_losers_longer_end_is_not_taken)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    setup_loser();
    w.on_asked = loser_moves_on_when_asked;
    resolve_t();
    CHECK_EQ(result, RESOLVE_PADDED);
    check_extent_is_the_winners();
    stepping_require();
    at_every_step(setup_loser, resolve_t, loser_moves_on, check_extent_is_the_winners);
    world_end();
}

/* ---- extents ------------------------------------------------------------------------------------------------ */

static void dead_world(void)
{
    world_again();
    publish(32);
    w.t = ring_tail(&w.ring);
    w.dead[WINNER] = w.dead[LOSER] = true;
}

TEST(extent_of_a_dead_claim_is_the_winners)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();

    dead_world(); /* nobody came after: tail is the boundary */
    announce(1, w.t, w.t + 192, SLOT_CLAIMING);
    announce(2, w.t, w.t + 64, SLOT_CLAIMING);
    atomic_store(&w.ring.producers->tail, w.t + 192);
    CHECK_EQ(padded_bytes(), 192);

    dead_world(); /* somebody stands behind it, unfinished */
    announce(1, w.t, w.t + 192, SLOT_CLAIMING);
    announce(2, w.t, w.t + 320, SLOT_CLAIMING);
    announce(3, w.t + 192, w.t + 256, SLOT_CLAIMING | SLOT_OWNER);
    atomic_store(&w.ring.producers->tail, w.t + 256);
    CHECK_EQ(padded_bytes(), 192);

    dead_world(); /* somebody stood there, and is done; a loser's longer end is a boundary too */
    announce(2, w.t, w.t + 320, SLOT_CLAIMING);
    announce(1, w.t, w.t + 192, SLOT_CLAIMING);
    atomic_store(&w.ring.producers->tail, w.t + 192);
    publish_until(w.t + 320);
    CHECK_EQ(padded_bytes(), 192);

    dead_world(); /* the owner's word stands above boundaries: an interior stamp of its batch is one */
    w.dead[WINNER] = false;
    claim_batch();
    w.dead[WINNER] = true;
    announce(2, w.t, w.t + 64, SLOT_CLAIMING);
    publish(32);
    CHECK_EQ(padded_bytes(), 192);
    check_log(BASE);

    dead_world(); /* the same with the slots the other way round */
    w.dead[WINNER] = false;
    claim_batch();
    w.dead[WINNER] = true;
    announce(0, w.t, w.t + 64, SLOT_CLAIMING);
    w.dead[OTHER] = true;
    CHECK_EQ(padded_bytes(), 192);
    world_end();
}

TEST(insane_extents_are_not_padded)
{
    struct {
        uint64_t end;
        uint64_t bits;
    } bad[] = {{128 + 64, SLOT_OWNER}, /* beyond tail */
               {0, SLOT_OWNER},
               {32, SLOT_OWNER}, /* no multiple of a unit */
               {CAPACITY / 8 + 64, SLOT_OWNER},
               {(uint64_t)-64, SLOT_OWNER}};

    world_begin(OVERFLOW_BLOCK);
    world_open();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        dead_world();
        announce(1, w.t, w.t + bad[i].end, SLOT_CLAIMING | bad[i].bits);
        atomic_store(&w.ring.producers->tail,
                     w.t + (bad[i].end > CAPACITY / 8 && i == 3 ? CAPACITY / 4 : 128));
        resolve_t();
        CHECK_EQ(result, RESOLVE_CORRUPT);
        CHECK_EQ(state_at(w.t), 0);
        /* A sane loser beside it gives the end, if that is a boundary. */
        announce(2, w.t, ring_tail(&w.ring), SLOT_CLAIMING);
        if (ring_tail(&w.ring) - w.t <= CAPACITY / 8)
            CHECK_EQ(padded_bytes(), 128);
    }
    world_end();
}

TEST(padding_says_whose_it_is_not_and_wakes_all)
{
    struct wait_segment *wait;

    world_begin(OVERFLOW_BLOCK);
    world_open();
    wait = w.ring.wait;
    dead_world();
    wait = w.ring.wait;
    claim_batch();
    memset((unsigned char *)ring_record(w.ring.data, w.ring.mask, w.t) + 8, 0xff, 24);
    atomic_store(&wait->attention,
                 ATTENTION_DATA | ATTENTION_ROOM | ATTENTION_DOORBELL | ATTENTION_CLOSED);
    uint32_t bell = atomic_load(&wait->bell_seq);
    uint32_t data = atomic_load(&wait->data_seq), room = atomic_load(&wait->room_seq);

    CHECK_EQ(padded_bytes(), 192);
    const struct record *record = ring_record(w.ring.data, w.ring.mask, w.t);

    CHECK_EQ(record->producer, UINT16_MAX);
    CHECK_EQ(record->crc32c, 0);
    CHECK_EQ(record->timestamp_ns, 0);
    CHECK_EQ(record->key_length, 0);
    CHECK_EQ(record->headers_length, 0);
    CHECK_EQ(record->type, RECORD_TYPE_DATA);
    CHECK_EQ(record->flags, 0);
    /* Readers, producers, and the flusher, which journals padding as well. */
    CHECK_EQ(atomic_load(&wait->attention), ATTENTION_CLOSED);
    CHECK_EQ(atomic_load(&wait->bell_seq), bell + 1);
    CHECK_EQ(atomic_load(&wait->data_seq), data + 1);
    CHECK_EQ(atomic_load(&wait->room_seq), room + 1);
    for (uint64_t y = w.t + 64; y < w.t + 192; y += 64)
        CHECK_EQ(atomic_load(commit_at(y)), 0);
    world_end();
}

TEST(live_candidates_are_waited_for_whoever_they_are)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    dead_world(); /* a dead winner and a live loser that has not noticed yet */
    announce(1, w.t, w.t + 64, SLOT_CLAIMING | SLOT_OWNER);
    announce(2, w.t, w.t + 64, SLOT_CLAIMING);
    atomic_store(&w.ring.producers->tail, w.t + 64);
    w.dead[LOSER] = false;
    resolve_t();
    CHECK_EQ(result, RESOLVE_WAIT);
    w.dead[LOSER] = true;
    w.dead[WINNER] = false;
    resolve_t();
    CHECK_EQ(result, RESOLVE_WAIT);
    CHECK_EQ(state_at(w.t), 0);
    partition_assign_slot(&w.partition, 1, CLIENT_NONE); /* a slot of nobody is not alive */
    CHECK_EQ(padded_bytes(), 64);

    dead_world(); /* t is not below tail: nobody has claimed it */
    w.dead[WINNER] = true;
    announce(1, w.t, w.t + 64, SLOT_CLAIMING);
    resolve_t();
    CHECK_EQ(result, RESOLVE_DONE);
    CHECK_EQ(state_at(w.t), 0);
    /* Below the log, and between units. */
    announce(1, BASE - 64, BASE, SLOT_CLAIMING | SLOT_OWNER);
    CHECK_EQ(ring_resolve(&w.ring, BASE - 64), RESOLVE_DONE);
    CHECK_EQ(state_at(BASE - 64), 0);
    world_end();
}

TEST(only_a_records_start_condemns_a_partition)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    publish(32);
    w.t = ring_tail(&w.ring);
    claim_batch(); /* [t, t + 192), alive */
    /* The second of three is stamped, and the third is not yet: no reason to condemn anything. */
    atomic_store(commit_at(w.t + 128), 0);
    for (uint64_t t = w.t + 64; t < w.t + 192; t += 64) { /* inside somebody's claim */
        CHECK_EQ(ring_resolve(&w.ring, t), RESOLVE_DONE);
    }
    world_again(); /* the log's very first record has nothing in front of it */
    atomic_store(&w.ring.producers->tail, BASE + 64);
    CHECK_EQ(ring_resolve(&w.ring, BASE), RESOLVE_CORRUPT);
    world_again(); /* behind a record that ends there; not behind one that ends elsewhere */
    publish(2000);
    uint64_t end = ring_tail(&w.ring);

    atomic_store(&w.ring.producers->tail, end + 128);
    CHECK_EQ(ring_resolve(&w.ring, end + 64), RESOLVE_DONE);
    CHECK_EQ(ring_resolve(&w.ring, end), RESOLVE_CORRUPT);
    world_end();
}

/* ---- slots ------------------------------------------------------------------------------------------------- */

TEST(slot_is_cleared_only_when_nothing_is_owed)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    publish(32);
    claim_batch();
    CHECK_EQ(ring_clear_slot(&w.ring, 1), RESOLVE_WAIT); /* alive in its claim */
    CHECK_EQ(atomic_load(&slot_of(1)->at), w.t | SLOT_CLAIMING | SLOT_OWNER);
    CHECK_EQ(atomic_load(&slot_of(1)->end), w.t + 192);
    w.dead[WINNER] = true;
    CHECK_EQ(ring_clear_slot(&w.ring, 1), RESOLVE_DONE);
    CHECK_EQ(state_at(w.t), RECORD_PADDING);
    CHECK_EQ(atomic_load(&slot_of(1)->at), 0);
    CHECK_EQ(atomic_load(&slot_of(1)->end), 0);

    world_again(); /* announced, never claimed: the place is somebody else's to claim */
    w.t = ring_tail(&w.ring);
    w.dead[WINNER] = true;
    announce(1, w.t, w.t + 64, SLOT_CLAIMING);
    CHECK_EQ(ring_clear_slot(&w.ring, 1), RESOLVE_DONE);
    CHECK_EQ(state_at(w.t), 0);
    CHECK_EQ(atomic_load(&slot_of(1)->at), 0);

    world_again(); /* a dead loser, long lapped: nothing is touched */
    announce(1, BASE, BASE + 320, SLOT_CLAIMING);
    publish_until(BASE + CAPACITY + 64);
    w.dead[WINNER] = true;
    CHECK_EQ(ring_clear_slot(&w.ring, 1), RESOLVE_DONE);
    CHECK_EQ(state_at(BASE + CAPACITY), RECORD_COMMITTED);
    CHECK_EQ(atomic_load(&slot_of(1)->at), 0);

    world_again(); /* it names something that cannot be: the partition is scribbled */
    publish(2000);
    announce(1, BASE + 64, BASE + 3 * 4096, SLOT_CLAIMING);
    w.dead[WINNER] = true;
    CHECK_EQ(ring_clear_slot(&w.ring, 1), RESOLVE_CORRUPT);
    world_end();
}

static void clear_losers_slot(void)
{
    result = ring_clear_slot(&w.ring, 2);
}

static void setup_dead_loser(void)
{
    publish(32);
    claim_batch();
    publish_until(w.t + 1024);
    announce(2, w.t, w.t + 320, SLOT_CLAIMING);
    w.dead[LOSER] = true;
}

/* The winner is done by the time that slots are looked at, its stamp came after the first look at the record. */
static void stamp_late(uint64_t client)
{
    if (client == LOSER && ring_tail(&w.ring) <= w.t + CAPACITY)
        ring_stamp(&w.winner, w.t, RECORD_COMMITTED);
}

static void setup_finished_winner(void)
{
    setup_dead_loser();
    finish();
    atomic_store(commit_at(w.t), 0);
    w.on_asked = stamp_late;
}

static void be_lapped(void)
{
    stamp_late(LOSER);
    lap(w.t);
}

static void check_not_condemned(void)
{
    CHECK_EQ(result, RESOLVE_DONE);
    CHECK_EQ(atomic_load(&slot_of(2)->at), 0);
    check_log(w.t + CAPACITY - 64);
}

/* ... and then the ring goes round, before the last look. */
TEST(clearing_a_losers_slot_never_condemns_a_healthy_partition)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_finished_winner, clear_losers_slot, be_lapped, check_not_condemned);
    world_end();
}

TEST(slots_are_cleared_under_the_recovery_byte)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    w.dead[WINNER] = true;
    announce(1, BASE, BASE + 64, SLOT_CLAIMING);
    CHECK_OK(liveness_trylock_recovery(w.other.producers_fd));
    CHECK_EQ(ring_clear_slot(&w.ring, 1), RESOLVE_WAIT);
    CHECK_EQ(atomic_load(&slot_of(1)->at), BASE | SLOT_CLAIMING);
    liveness_unlock_recovery(w.other.producers_fd);
    CHECK_EQ(ring_clear_slot(&w.ring, 1), RESOLVE_DONE);
    CHECK_OK(liveness_trylock_recovery(w.other.producers_fd)); /* given back */
    liveness_unlock_recovery(w.other.producers_fd);
    CHECK_EQ(ring_resolve(&w.ring, BASE), RESOLVE_DONE);
    CHECK_OK(liveness_trylock_recovery(w.other.producers_fd));
    liveness_unlock_recovery(w.other.producers_fd);
    world_end();
}

TEST(lowest_unstamped_is_a_claim_that_can_still_be_lapped)
{
    world_begin(OVERFLOW_BLOCK);
    world_open();
    publish(32);
    uint64_t tail = ring_tail(&w.ring);

    CHECK_EQ(ring_lowest_unstamped(&w.ring, 0, tail), UINT64_MAX);
    announce(2, tail, tail + 64, SLOT_CLAIMING); /* wanted, not claimed */
    CHECK_EQ(ring_lowest_unstamped(&w.ring, 0, tail), UINT64_MAX);
    atomic_store(&w.ring.producers->tail, tail + 64);
    announce(1, tail + 64, tail + 128, SLOT_CLAIMING);
    announce(3, tail + 128, tail + 192, SLOT_CLAIMING);
    atomic_store(&w.ring.producers->tail, tail + 192);
    CHECK_EQ(ring_lowest_unstamped(&w.ring, 0, tail + 192), tail);
    CHECK_EQ(ring_lowest_unstamped(&w.ring, 0, tail + CAPACITY), tail);
    CHECK_EQ(ring_lowest_unstamped(&w.ring, 0, tail + CAPACITY + 64), tail + 64);
    announce(2, BASE, BASE + 64, SLOT_CLAIMING); /* stamped: its owner has not cleared it yet */
    CHECK_EQ(ring_lowest_unstamped(&w.ring, 0, tail + 192), tail + 64);
    world_end();
}

TEST_MAIN("recover", T_TIMEOUT(resolver_never_touches_what_was_stamped_while_it_looked, 60),
          T_TIMEOUT(resolver_never_touches_the_next_lap, 60),
          T(owner_that_acts_while_the_kernel_is_asked_for_it_loses_nothing),
          T_TIMEOUT(stale_losers_longer_end_is_not_taken, 60),
          T(extent_of_a_dead_claim_is_the_winners), T(insane_extents_are_not_padded),
          T(padding_says_whose_it_is_not_and_wakes_all),
          T(live_candidates_are_waited_for_whoever_they_are),
          T(only_a_records_start_condemns_a_partition),
          T(slot_is_cleared_only_when_nothing_is_owed),
          T_TIMEOUT(clearing_a_losers_slot_never_condemns_a_healthy_partition, 120),
          T(slots_are_cleared_under_the_recovery_byte),
          T(lowest_unstamped_is_a_claim_that_can_still_be_lapped))
