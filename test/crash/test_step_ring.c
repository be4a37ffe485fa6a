/* test_step_ring.c: a producer or consumer dies, or is stopped, at every instruction of every
 * ring operation.
 *
 * A child single-steps through the operation and is killed (or stopped) after k instructions, for
 * every k. The test is shmqd and the others: a second producer must be able to go on, the reader
 * must see every message whole, in order, once, and the child's if its operation had returned.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "libshmq/clock.h"
#include "libshmq/fault.h"
#include "libshmq/topic_options.h"
#include "test/support/partition.h"
#include "test/support/step.h"

#define CAPACITY     UINT64_C(65536)
#define CHILD_CLIENT 2
#define OTHER_CLIENT 3
#define DEAD_CLIENT  4
#define DEAD_SLOT    5
#define BATCH        3

enum operation {
    PUBLISH,
    PUBLISH_BATCH,
    PUBLISH_SHORT,
    ABORT_CLAIM,
    POLL_AND_COMMIT,
    PUBLISH_FULL,
    RESOLVE,
};

struct fixture {
    struct partition partition;
    enum operation operation;
    enum overflow_policy policy;
    enum producers_mode mode;
    uint32_t body_bytes;
    struct ring ring; /* the child's, in the child */
    struct ring_producer producer;
    struct ring_reader reader;
    struct group_segment *group;
    uint32_t before;     /* messages published before the operation */
    _Atomic int *result; /* shared: 1 + what the operation returned */
    uint64_t base;
    uint64_t dead_claim; /* RESOLVE: a batch that somebody left half-stamped */
};

static bool gated(const struct fixture *f)
{
    return f->policy == OVERFLOW_BLOCK || f->policy == OVERFLOW_REJECT;
}

/* ---- the child ------------------------------------------------------------------------------- */

static void child_setup(void *argument)
{
    struct fixture *f = argument;
    struct error_buffer why;
    struct segment group;

    partition_open(&f->partition, &f->ring);
    ring_producer_init(&f->producer, &f->ring, 0);
    ring_reader_init(&f->reader, &f->ring, f->base);
    REQUIRE_OK(
        segment_map(f->partition.group_fds[0], true, sizeof(struct group_segment), &group, &why));
    f->group = group.address;
    if (f->operation != PUBLISH_FULL) /* the steady state: the limit is cached */
        REQUIRE(ring_refresh_limit(&f->producer, 1024, UINT64_MAX) == RING_OK);
}

static int publish_batch(struct fixture *f)
{
    uint64_t size = record_size(f->body_bytes), t;
    int rc = ring_claim(&f->producer, BATCH * size, &t);

    if (rc != RING_OK)
        return rc;
    for (uint32_t i = BATCH; i-- > 0;) { /* the first record's stamp last */
        struct record *record =
            ring_begin_record(&f->producer, t + i * size, f->body_bytes, 0, 0, 0, RECORD_TYPE_DATA);

        message_fill(record->payload, f->body_bytes, (struct message_tag){CHILD_CLIENT, i});
        ring_stamp(&f->producer, t + i * size, RECORD_COMMITTED);
    }
    ring_release_claim(f->producer.slot, BATCH);
    return RING_OK;
}

static int publish_short(struct fixture *f)
{
    uint64_t t;
    int rc = ring_claim(&f->producer, 1024, &t);

    if (rc != RING_OK)
        return rc;
    struct record *record =
        ring_begin_record(&f->producer, t, f->body_bytes, 0, 0, 0, RECORD_TYPE_DATA);

    message_fill(record->payload, f->body_bytes, (struct message_tag){CHILD_CLIENT, 0});
    ring_commit(&f->producer, t, record_size(f->body_bytes));
    return RING_OK;
}

static int abort_claim(struct fixture *f)
{
    uint64_t t;
    int rc = ring_claim(&f->producer, 512, &t);

    if (rc == RING_OK)
        ring_abort(&f->producer, t);
    return rc;
}

static int poll_and_commit(struct fixture *f)
{
    struct group_member *me = &f->group->members[0];
    uint64_t word = atomic_load_explicit(&f->group->cursor, memory_order_relaxed);
    struct message_tag tag;

    atomic_store_explicit(&me->hold, f->reader.position, memory_order_release);
    if (partition_take(&f->reader, &tag) == 0)
        return SHMQ_ETIMEOUT;
    atomic_store_explicit(&me->hold, f->reader.position, memory_order_release);
    return cursor_commit(f->group, &word, f->reader.position);
}

static void child_operation(void *argument)
{
    struct fixture *f = argument;
    int rc = 0;

    switch (f->operation) {
    case PUBLISH:
    case PUBLISH_FULL:
        rc = partition_publish(&f->producer, f->body_bytes, (struct message_tag){CHILD_CLIENT, 0});
        break;
    case PUBLISH_BATCH:
        rc = publish_batch(f);
        break;
    case PUBLISH_SHORT:
        rc = publish_short(f);
        break;
    case ABORT_CLAIM:
        rc = abort_claim(f);
        break;
    case POLL_AND_COMMIT:
        rc = poll_and_commit(f);
        break;
    case RESOLVE:
        rc = ring_resolve(&f->ring, f->dead_claim) == RESOLVE_PADDED ? 0 : SHMQ_ECORRUPT;
        break;
    }
    atomic_store_explicit(f->result, 1 + rc, memory_order_release);
}

/* ---- the others ------------------------------------------------------------------------------ */

static void leave_half_a_batch(struct fixture *f, struct ring *ring)
{
    struct ring_producer dead;

    partition_assign_slot(&f->partition, DEAD_SLOT, DEAD_CLIENT);
    ring_producer_init(&dead, ring, DEAD_SLOT);
    REQUIRE(ring_refresh_limit(&dead, 192, UINT64_MAX) == RING_OK);
    REQUIRE(ring_claim(&dead, 192, &f->dead_claim) == RING_OK);
    ring_begin_record(&dead, f->dead_claim + 128, 16, 0, 0, 0, RECORD_TYPE_DATA);
    ring_stamp(&dead, f->dead_claim + 128, RECORD_COMMITTED);
    partition_declare_dead(&f->partition, DEAD_CLIENT);
}

static void prepare(void *argument)
{
    struct fixture *f = argument;
    struct ring ring;
    struct ring_producer producer;

    partition_reset(&f->partition, f->base);
    atomic_store(f->result, 0);
    partition_open(&f->partition, &ring);
    partition_assign_slot(&f->partition, 0, CHILD_CLIENT);
    partition_add_group(&f->partition, &ring, 0, f->base, gated(f));
    struct group_segment *group = f->partition.groups[0].address;

    atomic_store(&group->members[0].client, CHILD_CLIENT);
    ring_producer_init(&producer, &ring, 0); /* the child's predecessor in its slot */
    f->before = 0;
    uint32_t wanted = f->operation == PUBLISH_FULL ? UINT32_MAX : 2;

    while (f->before < wanted &&
           partition_publish(&producer, 64, (struct message_tag){1, f->before}) == RING_OK) {
        f->before++;
        if (f->operation == PUBLISH_FULL && !gated(f) && f->before == CAPACITY / record_size(64))
            break;
    }
    if (f->operation == PUBLISH_FULL &&
        gated(f)) { /* room for one more, to be found by a refresh */
        uint64_t word = atomic_load(&group->cursor);

        REQUIRE_OK(cursor_commit(group, &word, f->base + 1024));
    }
    if (f->operation == RESOLVE)
        leave_half_a_batch(f, &ring);
    ring_deinit(&ring);
}

/* What is in the log, in order. */
struct seen {
    uint32_t before, child, other;
    bool wrong;
};

static void read_all(struct fixture *f, struct ring *ring, struct seen *seen)
{
    struct ring_reader reader;
    struct message_tag tag;
    struct group_segment *group = f->partition.groups[0].address;
    uint64_t from = f->base;

    if (gated(f))
        from = cursor_offset(atomic_load(&group->cursor), f->base);
    else if (f->operation == PUBLISH_FULL)
        from = ring_resynchronise(ring, ring_oldest(ring));
    ring_reader_init(&reader, ring, from);
    *seen = (struct seen){.before = (uint32_t)((from - f->base) / record_size(64))};
    while (partition_take(&reader, &tag)) {
        uint32_t *next = tag.producer == 1              ? &seen->before
                         : tag.producer == CHILD_CLIENT ? &seen->child
                                                        : &seen->other;

        seen->wrong |= !CHECK_EQ(tag.number, *next);
        (*next)++;
    }
    CHECK_EQ(reader.position, ring_tail(ring)); /* nobody is stuck */
}

static uint32_t messages_of(const struct fixture *f)
{
    switch (f->operation) {
    case PUBLISH:
    case PUBLISH_SHORT:
    case PUBLISH_FULL:
        return 1;
    case PUBLISH_BATCH:
        return BATCH;
    default:
        return 0;
    }
}

static void publish_other(struct fixture *f, struct ring_producer *producer, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQ(partition_publish(producer, 40, (struct message_tag){OTHER_CLIENT, i}), RING_OK);
    (void)f;
}

static void check_log(struct fixture *f, struct ring *ring, uint32_t other)
{
    struct seen seen;
    int result = atomic_load(f->result);

    read_all(f, ring, &seen);
    CHECK_EQ(seen.before, f->before);
    CHECK_EQ(seen.other, other);
    CHECK(seen.child == 0 || seen.child == messages_of(f)); /* whole or not at all */
    if (result == 1)
        CHECK_EQ(seen.child, messages_of(f)); /* what was reported published is there */
}

static void verify_killed(void *argument, struct step_child *child)
{
    struct fixture *f = argument;
    struct ring ring;
    struct ring_producer other;
    uint32_t slot = f->mode == PRODUCERS_SINGLE ? 0 : 1;

    (void)child;
    partition_open(&f->partition, &ring);
    if (f->mode == PRODUCERS_MULTI) { /* others publish before the death is noticed */
        partition_assign_slot(&f->partition, 1, OTHER_CLIENT);
        ring_producer_init(&other, &ring, 1);
        if (f->operation != PUBLISH_FULL)
            publish_other(f, &other, 2);
    }
    partition_declare_dead(&f->partition, CHILD_CLIENT);
    CHECK_EQ(ring_clear_slot(&ring, 0), RESOLVE_DONE);
    CHECK_EQ(atomic_load(&ring.producers->slots[0].at), 0);
    if (f->operation == RESOLVE) { /* the next one finishes what the dead resolver began */
        enum resolve_result again = ring_resolve(&ring, f->dead_claim);

        CHECK(again == (atomic_load(f->result) == 1 ? RESOLVE_DONE : again) &&
              (again == RESOLVE_PADDED || again == RESOLVE_DONE));
        CHECK_EQ(ring_clear_slot(&ring, DEAD_SLOT), RESOLVE_DONE);
        CHECK_EQ(ring_resynchronise(&ring, f->dead_claim + 64), f->dead_claim + 192);
    }
    struct group_segment *group = f->partition.groups[0].address;

    atomic_store(&group->members[0].hold, HOLD_NONE); /* shmqd, for the dead */
    if (slot == 0 || f->operation == PUBLISH_FULL) {
        partition_assign_slot(&f->partition, slot, OTHER_CLIENT);
        ring_producer_init(&other, &ring, slot);
        publish_other(f, &other, 2);
    }
    check_log(f, &ring, 2);
    ring_deinit(&ring);
}

static void verify_stopped(void *argument, struct step_child *child)
{
    struct fixture *f = argument;
    struct ring ring;
    struct ring_producer other;
    uint32_t others = 0;

    partition_open(&f->partition, &ring);
    if (f->mode == PRODUCERS_MULTI) {
        partition_assign_slot(&f->partition, 1, OTHER_CLIENT);
        ring_producer_init(&other, &ring, 1);
        if (f->operation != PUBLISH_FULL)
            publish_other(f, &other,
                          others = 2); /* who is stopped does not keep others from publishing */
    }
    uint64_t lowest = ring_lowest_unstamped(&ring, 0, ring_tail(&ring));

    if (lowest != UINT64_MAX && f->operation != RESOLVE)
        CHECK_EQ(ring_resolve(&ring, lowest), RESOLVE_WAIT); /* nobody pads the living */
    CHECK_EQ(step_continue(child, 2000), 0);
    CHECK_EQ(atomic_load(f->result), 1);
    check_log(f, &ring, others);
    ring_deinit(&ring);
}

/* ---- the tests ------------------------------------------------------------------------------- */

static const char *const policy_names[] = {"block", "reject", "drop-old", "spill"};

static uint64_t walk(struct fixture *f, const char *name, enum step_action action, uint64_t floor)
{
    char title[96];
    struct step_points points = {0};

    snprintf(title, sizeof(title), "%s, %s, %s, %s", name,
             f->mode == PRODUCERS_SINGLE ? "single" : "multi", policy_names[f->policy],
             action == STEP_KILL ? "killed" : "stopped");
    struct step_plan plan = {.name = title,
                             .prepare = prepare,
                             .setup = child_setup,
                             .operation = child_operation,
                             .arg = f};

    step_require();
    fault_disarm(); /* its first use reads the environment: the child must not be the first */
    partition_init(&f->partition, CAPACITY, f->policy, f->mode, f->base);
    if (step_list_all(&plan, &points) == 0) {
        step_walk(&plan, &points, action, action == STEP_KILL ? verify_killed : verify_stopped);
        step_report(&plan, &points, floor);
    }
    uint64_t walked = points.walked;

    step_points_free(&points);
    partition_deinit(&f->partition);
    return walked;
}

static void walk_resolve(enum step_action action)
{
    struct fixture f = {.operation = RESOLVE,
                        .policy = OVERFLOW_BLOCK,
                        .mode = PRODUCERS_MULTI,
                        .base = UINT64_C(1) << 40};

    f.result = test_shared(sizeof(*f.result));
    walk(&f, "resolve", action, 600);
}

static void walk_all(const char *name, enum operation operation, uint32_t body_bytes,
                     enum step_action action, uint64_t floor)
{
    for (enum producers_mode mode = PRODUCERS_MULTI; mode <= PRODUCERS_SINGLE; mode++) {
        for (enum overflow_policy policy = OVERFLOW_BLOCK; policy <= OVERFLOW_DROP_OLD; policy++) {
            struct fixture f = {.operation = operation,
                                .policy = policy,
                                .mode = mode,
                                .body_bytes = body_bytes,
                                .base = UINT64_C(1) << 40};

            f.result = test_shared(sizeof(*f.result));
            walk(&f, name, action, floor);
        }
    }
}

TEST(publish_killed)
{
    walk_all("publish", PUBLISH, 32, STEP_KILL, 150);
}

TEST(publish_stopped)
{
    walk_all("publish", PUBLISH, 32, STEP_STOP, 150);
}

TEST(publish_with_refresh_killed)
{
    walk_all("publish out of room", PUBLISH_FULL, 32, STEP_KILL, 300);
}

TEST(publish_with_refresh_stopped)
{
    walk_all("publish out of room", PUBLISH_FULL, 32, STEP_STOP, 300);
}

TEST(batch_of_three_killed)
{
    walk_all("batch of three", PUBLISH_BATCH, 20, STEP_KILL, 200);
}

TEST(batch_of_three_stopped)
{
    walk_all("batch of three", PUBLISH_BATCH, 20, STEP_STOP, 200);
}

TEST(short_commit_killed)
{
    walk_all("short commit", PUBLISH_SHORT, 20, STEP_KILL, 100);
}

TEST(short_commit_stopped)
{
    walk_all("short commit", PUBLISH_SHORT, 20, STEP_STOP, 100);
}

TEST(abort_killed)
{
    walk_all("abort", ABORT_CLAIM, 20, STEP_KILL, 40);
}

TEST(abort_stopped)
{
    walk_all("abort", ABORT_CLAIM, 20, STEP_STOP, 40);
}

TEST(poll_and_commit_killed)
{
    walk_all("poll and commit", POLL_AND_COMMIT, 20, STEP_KILL, 200);
}

TEST(poll_and_commit_stopped)
{
    walk_all("poll and commit", POLL_AND_COMMIT, 20, STEP_STOP, 200);
}

TEST(resolve_killed)
{
    walk_resolve(STEP_KILL);
}

TEST(resolve_stopped)
{
    walk_resolve(STEP_STOP);
}

TEST_MAIN("step_ring", T_TIMEOUT(resolve_killed, 120), T_TIMEOUT(resolve_stopped, 120),
          T_TIMEOUT(publish_killed, 120), T_TIMEOUT(publish_stopped, 120),
          T_TIMEOUT(publish_with_refresh_killed, 120), T_TIMEOUT(publish_with_refresh_stopped, 120),
          T_TIMEOUT(batch_of_three_killed, 120), T_TIMEOUT(batch_of_three_stopped, 120),
          T_TIMEOUT(short_commit_killed, 120), T_TIMEOUT(short_commit_stopped, 120),
          T_TIMEOUT(abort_killed, 120), T_TIMEOUT(abort_stopped, 120),
          T_TIMEOUT(poll_and_commit_killed, 120), T_TIMEOUT(poll_and_commit_stopped, 120))
