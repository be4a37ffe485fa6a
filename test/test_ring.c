/* test_ring.c: the ring alone: claims, stamps, padding, room, laps, resolving; in one process and
 * with real threads. */
#include <pthread.h>
#include <stdlib.h>

#include "libshmq/clock.h"
#include "libshmq/liveness.h"
#include "libshmq/topic_options.h"
#include "test/support/partition.h"
#include "test/support/test.h"

#define CAPACITY UINT64_C(65536)

struct fixture {
    struct partition partition;
    struct ring ring;
    struct ring_producer producer;
    struct ring_reader reader;
};

static void fixture_init(struct fixture *f, enum overflow_policy policy, enum producers_mode mode,
                         uint64_t base)
{
    partition_init(&f->partition, CAPACITY, policy, mode, base);
    partition_open(&f->partition, &f->ring);
    partition_assign_slot(&f->partition, 0, 2);
    ring_producer_init(&f->producer, &f->ring, 0);
    ring_reader_init(&f->reader, &f->ring, base);
}

static void fixture_deinit(struct fixture *f)
{
    ring_deinit(&f->ring);
    partition_deinit(&f->partition);
}

TEST(record_sizes_are_whole_units)
{
    CHECK_EQ(record_size(0), 64);
    CHECK_EQ(record_size(32), 64);
    CHECK_EQ(record_size(33), 128);
    CHECK_EQ(record_size(ring_max_message(CAPACITY)), CAPACITY / 8);
}

TEST(stamp_names_one_offset_only)
{
    uint64_t salt = UINT64_C(0x123456789abcdec0);

    CHECK_EQ(record_state(record_stamp(salt, 640, RECORD_COMMITTED), salt, 640), RECORD_COMMITTED);
    CHECK_EQ(record_state(record_stamp(salt, 640, RECORD_PADDING), salt, 640), RECORD_PADDING);
    CHECK_EQ(record_state(record_stamp(salt, 640, RECORD_COMMITTED), salt, 640 + CAPACITY), 0);
    CHECK_EQ(record_state(record_stamp(salt, 640, 3), salt, 640), 0);
    CHECK_EQ(record_state(0, salt, 640), 0);
}

static void roundtrip(enum producers_mode mode, enum overflow_policy policy)
{
    struct fixture f;
    struct message_tag tag;
    struct test_random random;
    uint64_t base = UINT64_C(1) << 50;

    fixture_init(&f, policy, mode, base);
    struct group_segment *group =
        partition_add_group(&f.partition, &f.ring, 0, base, policy == OVERFLOW_BLOCK);
    uint64_t word = atomic_load(&group->cursor);

    test_random_init(&random, test_seed());
    for (uint32_t n = 0; n < 5000; n++) {
        uint32_t bytes =
            MESSAGE_BODY_MIN +
            (uint32_t)test_random_below(&random, ring_max_message(CAPACITY) - MESSAGE_BODY_MIN + 1);

        if (n % 3)
            bytes = MESSAGE_BODY_MIN + bytes % 64;
        CHECK_EQ(partition_publish(&f.producer, bytes, (struct message_tag){7, n}), RING_OK);
        if (!CHECK_EQ(partition_take(&f.reader, &tag), bytes) || !CHECK_EQ(tag.number, n))
            break;
        CHECK_OK(cursor_commit(group, &word, f.reader.position));
    }
    CHECK_EQ(partition_take(&f.reader, &tag), 0);
    CHECK_EQ(f.reader.position, ring_tail(&f.ring));
    fixture_deinit(&f);
}

TEST(messages_of_all_sizes_come_out_as_they_went_in)
{
    roundtrip(PRODUCERS_MULTI, OVERFLOW_BLOCK);
    roundtrip(PRODUCERS_SINGLE, OVERFLOW_BLOCK);
    roundtrip(PRODUCERS_MULTI, OVERFLOW_DROP_OLD);
    roundtrip(PRODUCERS_SINGLE, OVERFLOW_DROP_OLD);
}

TEST(claim_reports_no_room_when_the_reader_stopped)
{
    struct fixture f;
    struct room_blocker blocker;
    uint32_t n = 0;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    struct group_segment *group = partition_add_group(&f.partition, &f.ring, 3, 0, true);
    uint64_t word = atomic_load(&group->cursor);

    while (partition_publish(&f.producer, 32, (struct message_tag){0, n}) == RING_OK && n < 5000)
        n++;
    CHECK_EQ(n, CAPACITY / 64);
    CHECK_EQ(atomic_load(&f.producer.slot->at), 0);
    ring_find_blocker(&f.ring, &blocker);
    CHECK_EQ(blocker.holder, ROOM_CURSOR);
    CHECK_EQ(blocker.gate, 3);
    CHECK_EQ(blocker.offset, 0);
    CHECK_OK(cursor_commit(group, &word, 64));
    CHECK_EQ(partition_publish(&f.producer, 32, (struct message_tag){0, n}), RING_OK);
    CHECK_EQ(partition_publish(&f.producer, 32, (struct message_tag){0, n}), RING_NO_ROOM);
    fixture_deinit(&f);
}

TEST(hold_of_a_live_member_gates_and_of_a_dead_one_does_not)
{
    struct fixture f;
    struct room_blocker blocker;
    uint32_t n = 0;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    struct group_segment *group = partition_add_group(&f.partition, &f.ring, 0, 0, true);
    uint64_t word = atomic_load(&group->cursor);

    atomic_store(&group->members[5].client, 9);
    atomic_store(&group->members[5].hold, 0);
    while (partition_publish(&f.producer, 32, (struct message_tag){0, n}) == RING_OK)
        n++;
    CHECK_OK(cursor_commit(group, &word, CAPACITY));
    CHECK_EQ(partition_publish(&f.producer, 32, (struct message_tag){0, n}), RING_NO_ROOM);
    ring_find_blocker(&f.ring, &blocker);
    CHECK_EQ(blocker.holder, ROOM_HOLD);
    CHECK_EQ(blocker.member, 5);
    CHECK_EQ(blocker.client, 9);
    partition_declare_dead(&f.partition, 9);
    CHECK_EQ(partition_publish(&f.producer, 32, (struct message_tag){0, n}), RING_OK);
    fixture_deinit(&f);
}

TEST(group_that_joins_late_is_not_lapped)
{
    struct fixture f;
    uint32_t n = 0;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    for (; n < 3000; n++) /* free running: nobody gates yet */
        CHECK_EQ(partition_publish(&f.producer, 32, (struct message_tag){0, n}), RING_OK);
    uint64_t from = ring_oldest(&f.ring);
    struct group_segment *group = partition_add_group(&f.partition, &f.ring, 1, from, true);
    uint64_t at =
        ring_resynchronise(&f.ring, cursor_offset(atomic_load(&group->cursor), ring_tail(&f.ring)));

    CHECK(at >= from && at < ring_tail(&f.ring));
    while (partition_publish(&f.producer, 32, (struct message_tag){0, n}) == RING_OK && n < 10000)
        n++;
    CHECK(ring_tail(&f.ring) - cursor_offset(atomic_load(&group->cursor), at) <= CAPACITY);
    struct message_tag tag;
    uint32_t expected = (uint32_t)(at / 64);

    f.reader.position = at;
    while (partition_take(&f.reader, &tag))
        CHECK_EQ(tag.number, expected++);
    CHECK_EQ(expected, n);
    fixture_deinit(&f);
}

TEST(group_that_joins_above_an_unfinished_claim_does_not_let_it_be_lapped)
{
    struct fixture f;
    struct ring_producer stalled;
    uint64_t offset = 0;
    uint32_t n = 0;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    partition_assign_slot(&f.partition, 1, 3);
    ring_producer_init(&stalled, &f.ring, 1);
    CHECK_EQ(ring_refresh_limit(&stalled, 64, UINT64_MAX), RING_OK);
    CHECK_EQ(ring_claim(&stalled, 64, &offset), RING_OK);
    struct group_segment *group =
        partition_add_group(&f.partition, &f.ring, 0, ring_tail(&f.ring), true);
    uint64_t word = atomic_load(&group->cursor);

    while (partition_publish(&f.producer, 32, (struct message_tag){0, n}) == RING_OK && n < 5000) {
        n++;
        CHECK_OK(cursor_commit(group, &word, ring_tail(&f.ring)));
    }
    CHECK_EQ(ring_tail(&f.ring), CAPACITY); /* not one byte into the stalled claim */
    ring_abort(&stalled, offset);
    CHECK_EQ(partition_publish(&f.producer, 32, (struct message_tag){0, n}), RING_OK);
    fixture_deinit(&f);
}

TEST(short_commit_and_abort_leave_padding_that_readers_skip)
{
    struct fixture f;
    struct message_tag tag;
    uint64_t offset = 0;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    CHECK_EQ(ring_refresh_limit(&f.producer, 1024, UINT64_MAX), RING_OK);
    CHECK_EQ(ring_claim(&f.producer, 1024, &offset), RING_OK);
    struct record *record = ring_begin_record(&f.producer, offset, 20, 0, 0, 0, RECORD_TYPE_DATA);

    message_fill(record->payload, 20, (struct message_tag){1, 1});
    CHECK_EQ(partition_take(&f.reader, &tag), 0);
    ring_commit(&f.producer, offset, record_size(20));
    CHECK_EQ(ring_claim(&f.producer, 512, &offset), RING_OK);
    ring_abort(&f.producer, offset);
    CHECK_EQ(partition_publish(&f.producer, 40, (struct message_tag){1, 2}), RING_OK);
    CHECK_EQ(partition_take(&f.reader, &tag), 20);
    CHECK_EQ(partition_take(&f.reader, &tag), 40);
    CHECK_EQ(tag.number, 2);
    CHECK_EQ(f.reader.position, 1024 + 512 + 128);
    fixture_deinit(&f);
}

/* What a producer leaves behind that dies at each point of a claim of `size`. */
enum death { ANNOUNCED, CLAIMED, OWNED, STAMPED };

static void die_at(struct fixture *f, enum death death, uint64_t size)
{
    struct producer_slot *slot = &f->ring.producers->slots[1];
    uint64_t t = ring_tail(&f->ring);

    atomic_store(&slot->end, t + size);
    atomic_store(&slot->at, t | SLOT_CLAIMING | (death >= OWNED ? SLOT_OWNER : 0));
    if (death >= CLAIMED)
        atomic_store(&f->ring.producers->tail, t + size);
    if (death == STAMPED) {
        struct ring_producer p;

        ring_producer_init(&p, &f->ring, 1);
        struct record *record = ring_begin_record(&p, t, 16, 0, 0, 0, RECORD_TYPE_DATA);

        message_fill(record->payload, 16, (struct message_tag){3, 3});
        record->length = 16;
        ring_stamp(&p, t, RECORD_COMMITTED);
    }
}

TEST(claim_of_a_dead_producer_is_padded_and_the_slot_reused)
{
    for (enum death death = ANNOUNCED; death <= STAMPED; death++) {
        struct fixture f;
        struct message_tag tag;

        fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
        partition_assign_slot(&f.partition, 1, 3);
        CHECK_EQ(partition_publish(&f.producer, 16, (struct message_tag){0, 0}), RING_OK);
        die_at(&f, death, death == STAMPED ? 64 : 320);
        CHECK_EQ(partition_publish(&f.producer, 16, (struct message_tag){0, 1}), RING_OK);
        if (death == CLAIMED || death == OWNED)
            CHECK_EQ(ring_resolve(&f.ring, 64), RESOLVE_WAIT); /* it lives */
        partition_declare_dead(&f.partition, 3);
        CHECK_EQ(ring_clear_slot(&f.ring, 1), RESOLVE_DONE);
        CHECK_EQ(atomic_load(&f.ring.producers->slots[1].at), 0);
        CHECK_EQ(partition_take(&f.reader, &tag), 16);
        if (death == STAMPED) {
            CHECK_EQ(partition_take(&f.reader, &tag), 16);
            CHECK_EQ(tag.producer, 3);
        }
        CHECK_EQ(partition_take(&f.reader, &tag), 16);
        CHECK_EQ(tag.number, 1);
        fixture_deinit(&f);
    }
}

TEST(half_stamped_batch_of_a_dead_producer_vanishes_whole)
{
    struct fixture f;
    struct ring_producer dead;
    struct message_tag tag;
    uint64_t offset = 0;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    partition_assign_slot(&f.partition, 1, 3);
    ring_producer_init(&dead, &f.ring, 1);
    CHECK_EQ(ring_refresh_limit(&dead, 192, UINT64_MAX), RING_OK);
    CHECK_EQ(ring_claim(&dead, 192, &offset), RING_OK);
    for (uint64_t y = offset + 64; y < offset + 192; y += 64) {
        ring_begin_record(&dead, y, 16, 0, 0, 0, RECORD_TYPE_DATA);
        ring_stamp(&dead, y, RECORD_COMMITTED);
    }
    CHECK_EQ(partition_publish(&f.producer, 16, (struct message_tag){0, 0}), RING_OK);
    CHECK_EQ(ring_resynchronise(&f.ring, 64), 192); /* never into an unfinished batch */
    partition_declare_dead(&f.partition, 3);
    CHECK_EQ(ring_resolve(&f.ring, offset), RESOLVE_PADDED);
    CHECK_EQ(ring_resolve(&f.ring, offset), RESOLVE_DONE);
    CHECK_EQ(ring_resynchronise(&f.ring, 64), 192); /* nor into what is left of it */
    CHECK_EQ(partition_take(&f.reader, &tag), 16);
    CHECK_EQ(f.reader.position, 256);
    fixture_deinit(&f);
}

TEST(nonsense_is_no_reason_to_condemn_a_partition)
{
    struct fixture f;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    CHECK_EQ(partition_publish(&f.producer, 2000, (struct message_tag){0, 0}), RING_OK);
    for (uint64_t t = 0; t < 3000; t += 32) /* offsets that a hostile member may name */
        CHECK_EQ(ring_resolve(&f.ring, t), RESOLVE_DONE);
    CHECK_EQ(ring_resolve(&f.ring, UINT64_MAX & ~UINT64_C(63)), RESOLVE_DONE);
    /* A record that nobody claims, but the log says that it must be there: scribbled. */
    atomic_fetch_add(&f.ring.producers->tail, 64);
    CHECK_EQ(ring_resolve(&f.ring, record_size(2000)), RESOLVE_CORRUPT);
    fixture_deinit(&f);
}

TEST(recovery_byte_is_tried_and_never_waited_for)
{
    struct fixture f;
    struct ring other;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    partition_open(&f.partition, &other);
    partition_assign_slot(&f.partition, 1, 3);
    die_at(&f, OWNED, 128);
    partition_declare_dead(&f.partition, 3);
    CHECK_OK(liveness_trylock_recovery(other.producers_fd));
    CHECK_EQ(ring_resolve(&f.ring, 0), RESOLVE_WAIT);
    liveness_unlock_recovery(other.producers_fd);
    CHECK_EQ(ring_resolve(&f.ring, 0), RESOLVE_PADDED);
    ring_deinit(&other);
    fixture_deinit(&f);
}

TEST(cursor_word_expands_to_the_nearest_offset)
{
    uint64_t near[] = {0,
                       64,
                       UINT64_C(1) << 53,
                       (UINT64_C(1) << 54) - 64,
                       (UINT64_C(1) << 54) + 128,
                       UINT64_C(1) << 63};

    for (size_t i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
        for (int64_t d = -(INT64_C(1) << 40); d <= INT64_C(1) << 40; d += INT64_C(1) << 34) {
            uint64_t offset = near[i] + (uint64_t)d;
            uint64_t word = cursor_make(0x7fff, true, offset);

            if (d < 0 && near[i] < (uint64_t)-d)
                continue;
            if (!CHECK_EQ(cursor_offset(word, near[i]), offset))
                return;
            CHECK_EQ(cursor_generation(word), 0x7fff);
            CHECK(cursor_gates(word));
        }
    }
}

TEST(commit_of_an_earlier_generation_fails)
{
    struct fixture f;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    struct group_segment *group = partition_add_group(&f.partition, &f.ring, 0, 0, true);
    uint64_t word = atomic_load(&group->cursor);

    CHECK_EQ(cursor_fence(group), 1);
    CHECK_ERR(cursor_commit(group, &word, 64), SHMQ_EFENCED);
    word = atomic_load(&group->cursor);
    CHECK_EQ(cursor_offset(word, 0), 0);
    CHECK_OK(cursor_commit(group, &word, 64));
    for (uint32_t g = 2; g <= 0x7fff; g++)
        CHECK_EQ(cursor_fence(group), g);
    /* 0 means never assigned: a supervisor that found it would take the group for unfinished. */
    CHECK_EQ(cursor_fence(group), 1);
    CHECK_EQ(cursor_offset(atomic_load(&group->cursor), 0), 64);
    fixture_deinit(&f);
}

TEST(lapped_reader_learns_what_it_lost_to_the_byte)
{
    struct fixture f;
    unsigned char copy[RECORD_HEADER + 4096];
    uint64_t lost = 0, got = 0;
    struct test_random random;

    fixture_init(&f, OVERFLOW_DROP_OLD, PRODUCERS_MULTI, 0);
    test_random_init(&random, test_seed());
    for (uint32_t n = 0; n < 20000; n++) {
        CHECK_EQ(partition_publish(&f.producer, 16 + n % 200, (struct message_tag){0, n}), RING_OK);
        if (test_random_below(&random, 700))
            continue;
        for (;;) { /* a reader that comes by rarely */
            uint32_t bytes = ring_copy(&f.reader, copy, sizeof(copy));
            struct message_tag tag;

            if (bytes == 0 || bytes == RING_TOO_LONG ||
                !ring_copy_valid(&f.reader, f.reader.position)) {
                if (ring_copy_valid(&f.reader, f.reader.position))
                    break;
                uint64_t to = ring_resynchronise(&f.ring, f.reader.position);

                lost += to - f.reader.position;
                f.reader.position = to;
                continue;
            }
            if (!CHECK(message_check(copy + RECORD_HEADER, bytes - RECORD_HEADER, &tag)))
                return;
            got += record_size(bytes - RECORD_HEADER);
            f.reader.position += record_size(bytes - RECORD_HEADER);
        }
    }
    CHECK(lost > 0 && got > 0);
    CHECK_EQ(lost + got, f.reader.position);
    fixture_deinit(&f);
}

/* ---- real threads (also the ThreadSanitizer's) ----------------------------------------------- */

#define THREADS 3
#define ROUNDS  20000u

struct worker {
    struct fixture *fixture;
    uint32_t slot;
    pthread_t thread;
    uint32_t refused;
};

static void *publish_many(void *argument)
{
    struct worker *worker = argument;
    struct ring ring;
    struct ring_producer producer;

    partition_share(&worker->fixture->ring, &ring);
    ring_producer_init(&producer, &ring, worker->slot);
    for (uint32_t n = 0; n < ROUNDS;) {
        int rc = partition_publish(&producer, 16 + (n * 13 + worker->slot) % 300,
                                   (struct message_tag){worker->slot, n});

        if (rc == RING_OK)
            n++;
        else {
            worker->refused++;
            sched_yield();
        }
    }
    partition_unshare(&ring);
    return NULL;
}

static void many_producers_one_reader(uint32_t count, enum producers_mode mode)
{
    struct fixture f;
    struct worker workers[THREADS];
    uint32_t next[THREADS] = {0};
    uint64_t deadline = clock_monotonic_ns() + UINT64_C(15000000000);
    struct message_tag tag;

    fixture_init(&f, OVERFLOW_BLOCK, mode, 0);
    struct group_segment *group = partition_add_group(&f.partition, &f.ring, 0, 0, true);
    uint64_t word = atomic_load(&group->cursor);

    for (uint32_t i = 0; i < count; i++) {
        partition_assign_slot(&f.partition, i, 2 + i);
        workers[i] = (struct worker){.fixture = &f, .slot = i};
        REQUIRE(pthread_create(&workers[i].thread, NULL, publish_many, &workers[i]) == 0);
    }
    for (uint32_t total = 0; total < count * ROUNDS && clock_monotonic_ns() < deadline;) {
        if (partition_take(&f.reader, &tag) == 0) {
            CHECK_OK(cursor_commit(group, &word, f.reader.position));
            sched_yield();
            continue;
        }
        if (!CHECK(tag.producer < count) || !CHECK_EQ(tag.number, next[tag.producer]))
            break;
        next[tag.producer]++;
        total++;
        if (total % 16 == 0)
            CHECK_OK(cursor_commit(group, &word, f.reader.position));
    }
    for (uint32_t i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        CHECK_EQ(next[i], ROUNDS);
    }
    fixture_deinit(&f);
}

TEST(several_threads_publish_in_order_and_nothing_is_torn)
{
    many_producers_one_reader(THREADS, PRODUCERS_MULTI);
}

TEST(one_thread_publishes_in_single_mode)
{
    many_producers_one_reader(1, PRODUCERS_SINGLE);
}

static void *join_groups(void *argument)
{
    struct fixture *f = argument;
    struct partition *partition = &f->partition;
    struct ring ring;

    partition_share(&f->ring, &ring);
    for (uint32_t i = 1; i < 40; i++) { /* joins while two producers raise head */
        struct ring_reader reader;
        struct message_tag tag;
        uint32_t next[2] = {UINT32_MAX, UINT32_MAX};
        struct group_segment *group =
            partition_add_group(partition, &ring, i, ring_oldest(&ring), true);
        uint64_t at = cursor_offset(atomic_load(&group->cursor), ring_tail(&ring));

        ring_reader_init(&reader, &ring, ring_resynchronise(&ring, at));
        for (uint32_t n = 0; n < 500; n++) {
            if (partition_take(&reader, &tag) == 0)
                continue;
            if (!CHECK(tag.producer < 2))
                break;
            if (next[tag.producer] != UINT32_MAX && !CHECK_EQ(tag.number, next[tag.producer]))
                break;
            next[tag.producer] = tag.number + 1;
        }
        atomic_store(&partition_state(&ring)->gates[i].state, GATE_DELETED);
    }
    partition_unshare(&ring);
    return NULL;
}

TEST(groups_join_while_two_producers_raise_head)
{
    struct fixture f;
    struct worker workers[2];
    pthread_t joiner;

    fixture_init(&f, OVERFLOW_BLOCK, PRODUCERS_MULTI, 0);
    for (uint32_t i = 0; i < 2; i++) {
        partition_assign_slot(&f.partition, i, 2 + i);
        workers[i] = (struct worker){.fixture = &f, .slot = i};
        REQUIRE(pthread_create(&workers[i].thread, NULL, publish_many, &workers[i]) == 0);
    }
    REQUIRE(pthread_create(&joiner, NULL, join_groups, &f) == 0);
    pthread_join(joiner, NULL);
    for (uint32_t i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    fixture_deinit(&f);
}

static void *read_lapped(void *argument)
{
    struct fixture *f = argument;
    struct ring ring;
    struct ring_reader reader;
    unsigned char copy[RECORD_HEADER + 4096];
    uint64_t got = 0, lost = 0, position;

    /* A mapping of its own: a seqlock's reader races with plain stores by design and throws away
     * what was torn. */
    partition_open(&f->partition, &ring);
    ring_reader_init(&reader, &ring, 0);
    for (uint64_t deadline = clock_monotonic_ns() + UINT64_C(10000000000);
         clock_monotonic_ns() < deadline;) {
        struct message_tag tag;

        position = reader.position;
        uint32_t bytes = ring_copy(&reader, copy, sizeof(copy));

        got += reader.position - position; /* padding */
        if (!ring_copy_valid(&reader, reader.position)) {
            uint64_t to = ring_resynchronise(&ring, reader.position);

            lost += to - reader.position;
            reader.position = to;
            continue;
        }
        if (bytes == 0) {
            if (reader.position >= 2 * UINT64_C(8000000) || atomic_load(&f->partition.dead[63]))
                break;
            sched_yield();
            continue;
        }
        if (!CHECK(bytes != RING_TOO_LONG) ||
            !CHECK(message_check(copy + RECORD_HEADER, bytes - RECORD_HEADER, &tag)))
            break;
        got += record_size(bytes - RECORD_HEADER);
        reader.position += record_size(bytes - RECORD_HEADER);
    }
    CHECK_EQ(got + lost, reader.position);
    CHECK_EQ(reader.position, ring_tail(&ring));
    ring_deinit(&ring);
    return NULL;
}

TEST(lapping_under_load_never_tears_a_message)
{
    struct fixture f;
    struct worker workers[2];
    pthread_t reader;

    fixture_init(&f, OVERFLOW_DROP_OLD, PRODUCERS_MULTI, 0);
    REQUIRE(pthread_create(&reader, NULL, read_lapped, &f) == 0);
    for (uint32_t i = 0; i < 2; i++) {
        partition_assign_slot(&f.partition, i, 2 + i);
        workers[i] = (struct worker){.fixture = &f, .slot = i};
        REQUIRE(pthread_create(&workers[i].thread, NULL, publish_many, &workers[i]) == 0);
    }
    for (uint32_t i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    partition_declare_dead(&f.partition, 63); /* the end */
    pthread_join(reader, NULL);
    fixture_deinit(&f);
}

TEST_MAIN("ring", T(record_sizes_are_whole_units), T(stamp_names_one_offset_only),
          T(messages_of_all_sizes_come_out_as_they_went_in),
          T(claim_reports_no_room_when_the_reader_stopped),
          T(hold_of_a_live_member_gates_and_of_a_dead_one_does_not),
          T(group_that_joins_late_is_not_lapped),
          T(group_that_joins_above_an_unfinished_claim_does_not_let_it_be_lapped),
          T(short_commit_and_abort_leave_padding_that_readers_skip),
          T(claim_of_a_dead_producer_is_padded_and_the_slot_reused),
          T(half_stamped_batch_of_a_dead_producer_vanishes_whole),
          T(nonsense_is_no_reason_to_condemn_a_partition),
          T(recovery_byte_is_tried_and_never_waited_for),
          T(cursor_word_expands_to_the_nearest_offset), T(commit_of_an_earlier_generation_fails),
          T(lapped_reader_learns_what_it_lost_to_the_byte),
          T_TIMEOUT(several_threads_publish_in_order_and_nothing_is_torn, 40),
          T_TIMEOUT(one_thread_publishes_in_single_mode, 40),
          T_TIMEOUT(groups_join_while_two_producers_raise_head, 40),
          T_TIMEOUT(lapping_under_load_never_tears_a_message, 40))
