/* SPDX-License-Identifier: Apache-2.0 */
/* test_consumer_loss.c: readers that are lapped, and readers that seek. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "test/support/fixture.h"

/* ---- drop-old -------------------------------------------------------------------------------- */

TEST(losses_are_counted_to_the_byte)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_DROP_OLD, 1);
    static struct shmq_message got[2048];
    struct shmq_position position;
    uint64_t next = 0;
    uint64_t lost = 0;

    fixture_topic(&client, "t", &options);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);
    shmq_producer *producer = fixture_producer(&client, "t", 1000);

    for (uint64_t round = 1; round <= 20; round++) {
        uint64_t sent = round * 400; /* in the end several laps ahead; never blocked */

        fixture_publish_range(producer, (round - 1) * round / 2 * 400,
                              (round - 1) * round / 2 * 400 + sent);
        for (;;) {
            int n = shmq_poll(consumer, got, 2048, 0);

            if (n <= 0) {
                CHECK_INT_EQ(n, 0);
                break;
            }
            for (int i = 0; i < n; i++) {
                uint64_t number = fixture_number(&got[i]);

                CHECK(number >= next);
                if (number != next)
                    CHECK(got[i].flags & SHMQ_MESSAGE_AFTER_LOSS);
                else
                    CHECK(!(got[i].flags & SHMQ_MESSAGE_AFTER_LOSS));
                lost += (number - next) * 64;
                next = number + 1;
            }
        }
        CHECK_EQ(next, (round - 1) * round / 2 * 400 + sent);
    }
    CHECK(lost > 0);
    CHECK_OK(shmq_consumer_position(consumer, 0, &position));
    CHECK_EQ(position.lost_bytes, lost);
    CHECK_EQ(position.position, position.tail);
    fixture_close(&client);
    fixture_stop(supervisor);
}

struct flood {
    const char *topic;
    _Atomic bool stop;
    _Atomic bool failed;
};

/* Bodies of varying length in which every byte says which message it belongs to. */
static void *flood_topic(void *arg)
{
    struct flood *flood = arg;
    struct fixture_client client = fixture_connect();
    shmq_producer *producer = fixture_producer(&client, flood->topic, 5000);
    unsigned char body[1000];

    for (uint32_t i = 0; !flood->stop; i++) {
        struct shmq_message message = {.body = body, .body_length = 4 + i % 990};

        memset(body, (int)(i & 0xff), sizeof(body));
        memcpy(body, &i, 4);
        if (shmq_publish(producer, &message) != 0)
            flood->failed = true;
    }
    fixture_close(&client);
    return NULL;
}

TEST(lapped_reader_never_sees_a_torn_message)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_DROP_OLD, 1);
    struct flood flood = {.topic = "t"};
    struct shmq_message got[64];
    struct shmq_position position;
    pthread_t threads[2];
    uint64_t count = 0, torn = 0, bytes = 0, begin;

    fixture_topic(&client, "t", &options);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    CHECK_OK(shmq_consumer_position(consumer, 0, &position));
    begin = position.position;
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&threads[i], NULL, flood_topic, &flood) == 0);
    uint64_t until_ns = test_now_ns() + 1000000000;

    while (test_now_ns() < until_ns) {
        int n = shmq_poll(consumer, got, 64, 1000);

        if (!CHECK(n >= 0))
            break;
        for (int i = 0; i < n; i++) {
            const unsigned char *body = got[i].body;
            uint32_t number;

            memcpy(&number, body, 4);
            torn += got[i].body_length != 4 + number % 990;
            for (uint32_t k = 4; k < got[i].body_length; k++)
                torn += body[k] != (number & 0xff);
            bytes += (32 + (uint64_t)got[i].body_length + 63) & ~(uint64_t)63;
        }
        count += (uint64_t)n;
        if (count % 16 == 0)
            test_sleep_ms(1); /* be lapped */
    }
    flood.stop = true;
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    CHECK_EQ(torn, 0);
    CHECK(count > 100);
    CHECK(!flood.failed);
    CHECK_OK(shmq_consumer_position(consumer, 0, &position));
    CHECK_EQ(bytes + position.lost_bytes, position.position - begin);
    CHECK(position.lost_bytes > 0);
    fixture_close(&client);
    fixture_stop(supervisor);
}

/* ---- seeking --------------------------------------------------------------------------------- */

static void check_seeking(uint32_t overflow)
{
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(overflow, 1);
    const char *name = overflow == SHMQ_BLOCK ? "block" : "drop";
    uint64_t offsets[500];

    fixture_topic(&client, name, &options);
    shmq_producer *producer = fixture_producer(&client, name, 1000);
    shmq_consumer *consumer = fixture_consumer(&client, name, NULL);

    for (uint64_t i = 0; i < 500; i++) {
        struct shmq_message message = {.body = &i, .body_length = 8};

        CHECK_OK(shmq_publish(producer, &message));
        offsets[i] = message.offset;
    }
    fixture_expect_range(consumer, 0, 300);
    CHECK_OK(shmq_seek(consumer, 0, offsets[100]));
    fixture_expect_range(consumer, 100, 120);
    CHECK_OK(shmq_seek(consumer, SHMQ_ALL_PARTITIONS, SHMQ_SEEK_EARLIEST));
    uint64_t first = fixture_poll_number(consumer, 1000);

    CHECK(first < 100); /* the oldest there is: producers have not announced to overwrite more */
    fixture_expect_range(consumer, first + 1, 10);
    CHECK_OK(shmq_seek(consumer, 0, offsets[400] - 1));
    fixture_expect_range(consumer, 400, 410);
    CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_LATEST));
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX);
    fixture_publish_range(producer, 500, 510);
    fixture_expect_range(consumer, 500, 510);
    CHECK_OK(shmq_seek(consumer, 0, UINT64_MAX - 1000)); /* beyond the end: the end */
    fixture_publish_range(producer, 510, 511);
    fixture_expect_range(consumer, 510, 511);
    CHECK_ERR(shmq_seek(consumer, 7, 0), SHMQ_EINVAL);
    shmq_consumer *standby = fixture_consumer(&client, name, NULL);

    CHECK_ERR(shmq_seek(standby, 0, 0), SHMQ_EFENCED);
    fixture_close(&client);
}

TEST(seek_finds_offsets_in_a_block_topic)
{
    shmq_supervisor *supervisor = fixture_start();

    check_seeking(SHMQ_BLOCK);
    fixture_stop(supervisor);
}

TEST(seek_finds_offsets_in_a_drop_old_topic)
{
    shmq_supervisor *supervisor = fixture_start();

    check_seeking(SHMQ_DROP_OLD);
    fixture_stop(supervisor);
}

TEST(seek_back_holds_producers)
{
    shmq_supervisor *supervisor = fixture_start();
    struct fixture_client client = fixture_connect();
    struct shmq_topic_options options = fixture_small_topic(SHMQ_REJECT, 1);
    uint64_t sent = 0;

    fixture_topic(&client, "t", &options);
    shmq_producer *producer = fixture_producer(&client, "t", -1);
    shmq_consumer *consumer = fixture_consumer(&client, "t", NULL);

    fixture_publish_range(producer, 0, 1000);
    fixture_expect_range(consumer, 0, 1000);
    CHECK_OK(shmq_seek(consumer, 0, SHMQ_SEEK_EARLIEST));
    while (fixture_publish_number(producer, 1000 + sent) == 0)
        sent++;
    CHECK(sent <= 24);
    fixture_expect_range(consumer, 0, 1000 + sent);
    fixture_close(&client);
    fixture_stop(supervisor);
}

TEST_MAIN("consumer_loss", T(losses_are_counted_to_the_byte),
          T(lapped_reader_never_sees_a_torn_message), T(seek_finds_offsets_in_a_block_topic),
          T(seek_finds_offsets_in_a_drop_old_topic), T(seek_back_holds_producers))
