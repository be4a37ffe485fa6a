/* test_ring_steps.c: claim, commit and copy, looked at after each of their instructions. */
#include "test/support/intrude.h"

/* ---- claims and commits at every instruction ------------------------------------------------------------------ */

static struct ring_producer claimer; /* slot 3, through `ring` */
static uint64_t claimed_at;
static int claim_result;

static void setup_claimer(void)
{
    partition_assign_slot(&w.partition, 3, 5);
    publish(32);
    ring_producer_init(&claimer, &w.ring, 3);
    REQUIRE(ring_refresh_limit(&claimer, 1024, UINT64_MAX) == RING_OK);
    w.t = ring_tail(&w.ring);
}

static void setup_last_place(void)
{
    setup_claimer();
    claimer.limit = w.t + 320;
}

static void claim(void)
{
    claim_result = ring_claim(&claimer, 320, &claimed_at);
}

static void check_claim(void)
{
    CHECK_EQ(claim_result, RING_OK);
    CHECK(claimed_at == w.t || claimed_at == w.t + 64);
    CHECK_EQ(atomic_load(&slot_of(3)->at), claimed_at | SLOT_CLAIMING | SLOT_OWNER);
    CHECK_EQ(atomic_load(&slot_of(3)->end), claimed_at + 320);
    ring_abort(&claimer, claimed_at);
    check_log(BASE);
}

static void check_claim_or_none(void)
{
    if (claim_result == RING_OK) {
        CHECK_EQ(claimed_at, w.t);
        CHECK_EQ(atomic_load(&slot_of(3)->at), claimed_at | SLOT_CLAIMING | SLOT_OWNER);
    } else {
        CHECK_EQ(claim_result, RING_NO_ROOM);
        CHECK_EQ(atomic_load(&slot_of(3)->at), 0); /* who waits names nothing */
    }
}

static void publish_one(void)
{
    publish(32);
}

TEST(claim_beside_a_claim_takes_another_place_or_none)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_claimer, claim, publish_one, check_claim);
    at_every_step(setup_last_place, claim, publish_one, check_claim_or_none);
    world_end();
}

/* What must hold at every instruction of a claim and its commit (I1, I3). */
static void look_at_claim(void)
{
    uint64_t tail = ring_tail(&w.other);
    uint64_t at = atomic_load(&slot_of(3)->at);
    uint64_t end = atomic_load(&slot_of(3)->end);
    struct ring_reader reader;
    struct message_tag tag;
    uint32_t bytes;

    CHECK(tail == w.t || tail == w.t + 1024);
    if (at != 0) {
        CHECK_EQ(at & ~SLOT_BITS, w.t);
        CHECK_EQ(end, w.t + 1024);
    }
    if ((at & SLOT_OWNER) && claimer.multi)
        CHECK_EQ(tail, w.t + 1024);
    if (tail > w.t && at == 0)
        CHECK(state_at(w.t) != 0);
    ring_reader_init(&reader, &w.other, w.t);
    bytes = partition_take(&reader, &tag); /* checks its content */
    if (bytes != 0) {
        CHECK_EQ(bytes, 100);
        CHECK_EQ(reader.position, w.t + 192);
        CHECK_EQ(state_at(w.t + 192), RECORD_PADDING);
        CHECK_EQ(partition_take(&reader, &tag), 0);
        CHECK_EQ(reader.position, w.t + 1024);
    }
}

static void publish_short(void)
{
    claim_result = ring_claim(&claimer, 1024, &claimed_at);
    struct record *record = ring_begin_record(&claimer, claimed_at, 100, 0, 0, 0, RECORD_TYPE_DATA);

    message_fill(record->payload, 100, (struct message_tag){3, 1});
    ring_commit(&claimer, claimed_at, record_size(100));
}

static void check_published(void)
{
    CHECK_EQ(claim_result, RING_OK);
    CHECK_EQ(state_at(w.t), RECORD_COMMITTED);
    CHECK_EQ(atomic_load(&slot_of(3)->at), 0);
}

static void setup_single(void)
{
    setup_claimer();
    claimer.multi = false; /* the store instead of the compare-and-swap */
}

TEST(claim_can_be_found_and_is_whole_or_nothing_at_every_instruction)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_claimer, publish_short, look_at_claim, check_published);
    at_every_step(setup_single, publish_short, look_at_claim, check_published);
    world_end();
}

/* ---- copies ------------------------------------------------------------------------------------------------- */

static struct ring_reader copier;
static unsigned char copy[RECORD_HEADER + 4096];
static uint32_t copied;
static bool valid;

static void setup_copier(void)
{
    fill_until(BASE + CAPACITY - 512);
    w.t = BASE + CAPACITY / 8;
    atomic_store(commit_at(w.t), 0); /* one long record, or padding, in the place of more */
    struct record *record = ring_record(w.ring.data, w.ring.mask, w.t);

    record->length = 2 * 64 - RECORD_HEADER;
    message_fill(record->payload, record->length, (struct message_tag){7, 7});
    atomic_store(commit_at(w.t), record_stamp(w.ring.salt, w.t, RECORD_COMMITTED));
    ring_reader_init(&copier, &w.ring, w.t);
}

static void setup_padding(void)
{
    setup_copier();
    atomic_store(commit_at(w.t), record_stamp(w.ring.salt, w.t, RECORD_PADDING));
}

static void copy_one(void)
{
    copied = ring_copy(&copier, copy, sizeof(copy));
    valid = ring_copy_valid(&copier, copier.position);
}

static void lap_with_short_ones(void)
{
    fill_until(w.t + CAPACITY - 256);
    publish_until(w.t + CAPACITY + 256);
}

static void lap_with_a_long_one(void)
{
    lap(w.t);
}

static void check_copy(void)
{
    struct message_tag tag;

    if (!valid)
        return;
    CHECK(copier.position == w.t || copier.position == w.t + 128);
    if (copied == 0 || copier.position != w.t)
        return;
    CHECK(copied != RING_TOO_LONG);
    CHECK(message_check(copy + RECORD_HEADER, copied - RECORD_HEADER, &tag));
    CHECK_EQ(copier.position, w.t);
    CHECK_EQ(tag.number, 7);
}

TEST(copy_that_is_valid_is_whole_whoever_laps_it_when)
{
    stepping_require();
    world_begin(OVERFLOW_DROP_OLD);
    world_open();
    at_every_step(setup_copier, copy_one, lap_with_short_ones, check_copy);
    at_every_step(setup_copier, copy_one, lap_with_a_long_one, check_copy);
    at_every_step(setup_padding, copy_one, lap_with_short_ones, check_copy);
    at_every_step(setup_padding, copy_one, lap_with_a_long_one, check_copy);
    world_end();
}

static void abort_claim(void)
{
    claim();
    ring_abort(&claimer, claimed_at);
}

static void look_at_padding(void)
{
    if (state_at(w.t) == RECORD_PADDING)
        CHECK_EQ(ring_record(w.other.data, w.other.mask, w.t)->length, 320 - RECORD_HEADER);
}

static void setup_dirty(void)
{
    setup_claimer();
    memset((unsigned char *)ring_record(w.ring.data, w.ring.mask, w.t) + 8, 0xff, 24);
}

TEST(padding_has_its_length_as_soon_as_it_is_seen)
{
    stepping_require();
    world_begin(OVERFLOW_BLOCK);
    world_open();
    at_every_step(setup_dirty, abort_claim, look_at_padding, look_at_padding);
    world_end();
}

TEST_MAIN("ring_steps", T_TIMEOUT(claim_beside_a_claim_takes_another_place_or_none, 60),
          T_TIMEOUT(claim_can_be_found_and_is_whole_or_nothing_at_every_instruction, 60),
          T_TIMEOUT(copy_that_is_valid_is_whole_whoever_laps_it_when, 60),
          T_TIMEOUT(padding_has_its_length_as_soon_as_it_is_seen, 60))
