/* SPDX-License-Identifier: Apache-2.0 */
/* test_support_oracle.c: the oracle finds what it is there to find, in readings that were made up. */
#include <string.h>

#include "test/support/oracle.h"

#define MANY 40u

/* What a perfect bus would hand out, to be spoiled. */
struct reading {
    struct oracle *oracle;
    uint32_t count;
    struct {
        struct shmq_message message;
        unsigned lane;
        uint64_t number;
        unsigned char body[1024];
    } at[MANY + 1];
};

/* Two producers take turns in two partitions; one in four is published and not confirmed, and the last one's outcome
 * is not known. */
static struct reading *make_reading(void)
{
    struct reading *r = test_shared(sizeof(*r));
    uint64_t offset[2] = {0, 1u << 20};

    r->oracle = oracle_new(&(struct oracle_options){.messages = 1000, .seed = test_seed()});
    for (uint32_t i = 0; i < MANY; i++) {
        struct shmq_message *message = &r->at[i].message;
        uint32_t partition = i / 2 % 2;

        r->at[i].lane = i % 2;
        r->at[i].number = oracle_attempt(r->oracle, i % 2);
        message->body = r->at[i].body;
        message->body_length = oracle_fill(r->oracle, i % 2, r->at[i].number, r->at[i].body);
        message->partition = partition;
        message->offset = offset[partition];
        offset[partition] += 1024;
        if (i == MANY - 1)
            break;
        oracle_note_published(r->oracle, i % 2, r->at[i].number, message);
        if (i % 4 != 3)
            oracle_note_confirmed(r->oracle, i % 2, r->at[i].number);
    }
    r->count = MANY;
    return r;
}

static void drop(struct reading *r, uint32_t index)
{
    r->count--;
    for (uint32_t i = index; i < r->count; i++)
        r->at[i] = r->at[i + 1];
    for (uint32_t i = index; i < r->count; i++)
        r->at[i].message.body = r->at[i].body;
}

static void swap(struct reading *r, uint32_t a, uint32_t b)
{
    r->at[MANY] = r->at[a];
    r->at[a] = r->at[b];
    r->at[b] = r->at[MANY];
    r->at[a].message.body = r->at[a].body;
    r->at[b].message.body = r->at[b].body;
}

static struct oracle_verdict judge(const struct reading *r, unsigned flags,
                                   enum oracle_demand demand)
{
    struct oracle_view *view = oracle_view_new(r->oracle, flags);
    struct oracle_verdict verdict;

    for (uint32_t i = 0; i < r->count; i++)
        (void)oracle_take(view, &r->at[i].message);
    oracle_judge(view, demand, &verdict);
    oracle_view_free(view);
    return verdict;
}

/* Exactly that, and nothing else. */
static void check_only(const struct oracle_verdict *verdict, uint64_t *which, uint64_t count,
                       const char *word)
{
    CHECK_EQ(*which, count);
    CHECK_CONTAINS(verdict->why, word);
    CHECK(!oracle_is_clean(verdict));
    *which = 0;
    CHECK(oracle_is_clean(verdict));
}

#define CHECK_ONLY(verdict, kind, count, word) check_only(&(verdict), &(verdict).kind, count, word)

static void free_reading(struct reading *r)
{
    oracle_free(r->oracle);
}

TEST(a_perfect_reading_is_clean)
{
    struct reading *r = make_reading();
    struct oracle_verdict v = judge(r, 0, ORACLE_NO_LOSS_AT_ALL);

    CHECK(oracle_is_clean(&v));
    CHECK_STR_EQ(v.why, "");
    CHECK_EQ(v.attempted, MANY);
    CHECK_EQ(v.confirmed, MANY * 3 / 4);
    CHECK_EQ(v.read, MANY);
    r->count--; /* the one whose outcome is not known may be missing */
    v = judge(r, 0, ORACLE_NO_LOSS_AT_ALL);
    CHECK(oracle_is_clean(&v));
    free_reading(r);
}

TEST(a_lost_one_is_found)
{
    struct reading *r = make_reading();
    struct oracle_verdict v;

    drop(r, 7); /* 7 % 4 == 3: published only */
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK(oracle_is_clean(&v));
    CHECK_EQ(v.missing, 1);
    v = judge(r, 0, ORACLE_NO_LOSS_AT_ALL);
    CHECK_ONLY(v, lost, 1, "number 3 of producer 1, published");
    drop(r, 4);
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, lost, 1, "number 2 of producer 0, confirmed at 0/2048, is lost");
    v = judge(r, 0, ORACLE_LOSS);
    CHECK(oracle_is_clean(&v));
    CHECK_EQ(v.missing, 2);
    r->count = 0;
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, lost, MANY * 3 / 4, "is lost");
    free_reading(r);
}

TEST(what_went_by_retention_is_not_lost)
{
    struct reading *r = make_reading();
    struct oracle_verdict v;

    drop(r, 5);
    drop(r, 4); /* the lowest that are confirmed in partition 0 are now those of 8 */
    drop(r, 1);
    drop(r, 0);
    v = judge(r, 0, ORACLE_RETAINED);
    CHECK(oracle_is_clean(&v));
    drop(r, 5); /* what was 9, behind the first that was read */
    v = judge(r, 0, ORACLE_RETAINED);
    CHECK_ONLY(v, lost, 1, "number 4 of producer 1");
    free_reading(r);
}

TEST(an_invented_one_is_found)
{
    struct reading *r = make_reading();
    struct shmq_message *message = &r->at[MANY - 1].message;
    struct oracle *other = oracle_new(&(struct oracle_options){.seed = test_seed() + 1});
    struct oracle_verdict v;

    /* A number that nobody took. */
    message->body_length = oracle_fill(r->oracle, 1, 500, r->at[MANY - 1].body);
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, invented, 1, "nobody published it");
    /* One of another topic. */
    message->body_length = oracle_fill(other, 1, 0, r->at[MANY - 1].body);
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, torn, 1, "of another ledger");
    /* One whose publish said that it failed. */
    message->body_length = oracle_fill(r->oracle, 1, MANY / 2 - 1, r->at[MANY - 1].body);
    oracle_note_refused(r->oracle, 1, MANY / 2 - 1);
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, invented, 1, "its publish failed");
    oracle_free(other);
    free_reading(r);
}

TEST(every_changed_byte_is_found)
{
    struct reading *r = make_reading();
    uint32_t length = r->at[0].message.body_length;

    for (uint32_t i = 0; i < length; i++) {
        struct oracle_verdict v;

        r->at[0].body[i] ^= 0x10;
        v = judge(r, 0, ORACLE_LOSS);
        CHECK_EQ(v.torn, 1);
        r->at[0].body[i] ^= 0x10;
    }
    r->at[0].message.body_length--;
    CHECK_EQ(judge(r, 0, ORACLE_LOSS).torn, 1);
    free_reading(r);
}

TEST(a_swapped_pair_is_found)
{
    struct reading *r = make_reading();
    struct oracle_verdict v;
    uint64_t offset;

    swap(r, 4, 9); /* of two producers, in one partition: the offsets say so */
    v = judge(r, 0, ORACLE_LOSS);
    CHECK(v.disordered > 0 && !oracle_is_clean(&v));
    swap(r, 4, 9);
    swap(r, 4, 8); /* of one producer, and the offsets are in order */
    offset = r->at[4].message.offset;
    r->at[4].message.offset = r->at[8].message.offset;
    r->at[8].message.offset = offset;
    v = judge(r, 0, ORACLE_LOSS);
    CHECK_EQ(v.disordered, 1);
    CHECK_CONTAINS(v.why, "came after its number 4");
    CHECK(v.moved > 0);
    free_reading(r);
}

TEST(a_double_is_found)
{
    struct reading *r = make_reading();
    struct oracle_verdict v;

    r->at[MANY] = r->at[MANY - 1]; /* at the same place, once more */
    r->at[MANY].message.body = r->at[MANY].body;
    r->count++;
    CHECK(judge(r, 0, ORACLE_NO_LOSS).disordered == 1);
    v = judge(r, ORACLE_REPEATS, ORACLE_NO_LOSS);
    CHECK(oracle_is_clean(&v));
    r->at[MANY].message.partition = 0; /* at another place */
    v = judge(r, ORACLE_REPEATS, ORACLE_NO_LOSS);
    CHECK_ONLY(v, doubled, 1, "and before at 1/");
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_EQ(v.doubled, 1);
    free_reading(r);
}

TEST(a_moved_one_and_a_place_given_twice_are_found)
{
    struct reading *r = make_reading();
    struct oracle_verdict v;

    r->at[9].message.offset += 64;
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, moved, 1, "number 4 of producer 1 was published at 0/");
    r->at[9].message.offset -= 64;
    oracle_note_published(r->oracle, 1, MANY / 2 - 1, &r->at[0].message);
    r->count--;
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, reused, 1, "0/0 was given to two messages");
    free_reading(r);
}

TEST(what_was_read_as_durable_may_not_be_lost)
{
    struct reading *r = make_reading();
    struct oracle_verdict v = judge(r, ORACLE_WITNESS, ORACLE_NO_LOSS);

    CHECK(oracle_is_clean(&v));
    drop(r, 7); /* published only, but somebody has seen it */
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, lost, 1, "read as durable");
    free_reading(r);
}

/* A crash of the host decides: what was read stays, what was not never comes. */
TEST(a_settled_age_stays_settled)
{
    struct reading *r = make_reading(), *kept = make_reading();
    struct oracle_view *view;
    struct oracle_verdict v;

    drop(r, 7);
    drop(r, 4);
    view = oracle_view_new(r->oracle, 0);
    for (uint32_t i = 0; i < r->count; i++)
        CHECK(oracle_take(view, &r->at[i].message));
    oracle_settle(view);
    oracle_view_free(view);
    v = judge(r, 0, ORACLE_NO_LOSS_AT_ALL);
    CHECK(oracle_is_clean(&v));
    drop(r, 0); /* kept, and then lost all the same */
    v = judge(r, 0, ORACLE_LOSS);
    CHECK_ONLY(v, lost, 1, "read after an earlier crash");
    /* What was given up comes back. */
    v = judge(&(struct reading){.oracle = r->oracle, .count = 0}, 0, ORACLE_LOSS);
    CHECK_EQ(v.lost, MANY - 2);
    view = oracle_view_new(r->oracle, 0);
    CHECK(oracle_take(view, &kept->at[0].message));
    CHECK(!oracle_take(view, &kept->at[4].message));
    oracle_judge(view, ORACLE_LOSS, &v);
    CHECK_EQ(v.invented, 1);
    oracle_view_free(view);
    free_reading(r);
    free_reading(kept);
}

/* A confirm that came when nobody could know any more promises nothing. */
TEST(a_distrusted_confirm_does_not_count)
{
    struct reading *r = make_reading();
    struct oracle_verdict v;

    oracle_distrust(r->oracle);
    oracle_note_confirmed(r->oracle, r->at[7].lane, r->at[7].number);
    v = judge(r, ORACLE_WITNESS, ORACLE_NO_LOSS);
    CHECK_EQ(v.confirmed, MANY * 3 / 4);
    drop(r, 7);
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK(oracle_is_clean(&v));
    drop(r, 5);
    v = judge(r, 0, ORACLE_NO_LOSS);
    CHECK_ONLY(v, lost, 1, "confirmed");
    free_reading(r);
}

TEST_MAIN("support_oracle", T(a_perfect_reading_is_clean), T(a_lost_one_is_found),
          T(what_went_by_retention_is_not_lost), T(an_invented_one_is_found),
          T(every_changed_byte_is_found), T(a_swapped_pair_is_found), T(a_double_is_found),
          T(a_moved_one_and_a_place_given_twice_are_found),
          T(what_was_read_as_durable_may_not_be_lost), T(a_settled_age_stays_settled),
          T(a_distrusted_confirm_does_not_count))
