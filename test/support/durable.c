/* SPDX-License-Identifier: Apache-2.0 */
/* durable.c: starting, killing and judging the processes of durable_lane.c; see durable.h. */
#include "test/support/durable_internal.h"
#include "test/support/fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define START_MS 20000
#define END_MS   20000
#define READ_MS  15000

static void set_defaults(struct durable_options *options)
{
    options->partitions = options->partitions ? options->partitions : 2;
    options->ring_bytes = options->ring_bytes ? options->ring_bytes : 65536;
    options->sync_interval = options->sync_interval ? options->sync_interval : 20;
    options->burst = options->burst ? options->burst : 8;
    options->timeout_ms = options->timeout_ms ? options->timeout_ms : 300;
}

static void make_topic(const struct durable *durable)
{
    struct shmq_topic_options topic = SHMQ_TOPIC_OPTIONS_INIT;
    struct fixture_client client = durable_connect();

    topic.partitions = durable->options.partitions;
    topic.ring_bytes = durable->options.ring_bytes;
    topic.overflow = durable->options.overflow;
    topic.durability = durable->options.durability;
    topic.retain_bytes = durable->options.retain_bytes;
    if (topic.durability == SHMQ_DURABLE_INTERVAL)
        topic.sync_interval_ms = durable->options.sync_interval;
    fixture_topic(&client, durable->topic, &topic);
    fixture_close(&client);
}

struct durable *durable_new(const struct durable_options *options)
{
    static uint64_t ledgers;
    struct durable *durable = test_shared(sizeof(*durable));

    durable->options = *options;
    set_defaults(&durable->options);
    snprintf(durable->topic, sizeof(durable->topic), "%s", options->topic);
    durable->oracle = oracle_new(&(struct oracle_options){.messages = options->messages,
                                                          .largest = options->largest,
                                                          .seed = test_seed() + ledgers++});
    make_topic(durable);
    return durable;
}

void durable_free(struct durable *durable)
{
    for (unsigned i = 0; i < DURABLE_CONSUMERS; i++)
        oracle_view_free(durable->consumers[i].view);
    oracle_free(durable->oracle);
    munmap(durable, sizeof(*durable));
}

struct oracle *durable_oracle(const struct durable *durable)
{
    return durable->oracle;
}

/* ---- processes ------------------------------------------------------------------------------- */

static void launch(struct durable *durable, struct durable_lane *lane, unsigned index,
                   void (*run)(void *))
{
    struct durable_start start = {.durable = durable, .lane = index};

    if (lane->pid != 0)
        FAIL("%s: lane %u runs already", durable->topic, index);
    atomic_store(&lane->ready, 0);
    lane->pid = test_spawn(run, &start);
}

void durable_start_producer(struct durable *durable, unsigned lane, uint32_t window)
{
    REQUIRE(window > 0 && window + DURABLE_BATCH_MOST <= DURABLE_WINDOW_MOST);
    atomic_store(&durable->stop, 0);
    durable->producers[lane].window = window;
    launch(durable, &durable->producers[lane], lane, durable_run_producer);
}

void durable_start_consumer(struct durable *durable, unsigned lane, unsigned kind)
{
    struct durable_lane *consumer = &durable->consumers[lane];

    atomic_store(&durable->finish, 0);
    consumer->kind = kind;
    if (!consumer->view)
        consumer->view = oracle_view_new(
            durable->oracle, ORACLE_REPEATS | ((kind & DURABLE_READ_DURABLE) ? ORACLE_WITNESS : 0));
    oracle_view_rewind(consumer->view);
    launch(durable, consumer, lane, durable_run_consumer);
}

static bool is_ready(void *lane)
{
    return atomic_load(&((struct durable_lane *)lane)->ready) != 0;
}

void durable_await_consumer(struct durable *durable, unsigned lane)
{
    if (!CHECK(test_eventually(is_ready, &durable->consumers[lane], START_MS)))
        test_abort();
}

static void kill_lane(struct durable_lane *lane)
{
    if (lane->pid == 0)
        return;
    test_kill(lane->pid, SIGKILL);
    lane->pid = 0;
}

void durable_kill_producer(struct durable *durable, unsigned lane)
{
    kill_lane(&durable->producers[lane]);
}

void durable_kill_consumer(struct durable *durable, unsigned lane)
{
    kill_lane(&durable->consumers[lane]);
}

pid_t durable_consumer_pid(const struct durable *durable, unsigned lane)
{
    return durable->consumers[lane].pid;
}

void durable_kill_all(struct durable *durable)
{
    for (unsigned i = 0; i < ORACLE_LANES; i++)
        kill_lane(&durable->producers[i]);
    for (unsigned i = 0; i < DURABLE_CONSUMERS; i++)
        kill_lane(&durable->consumers[i]);
}

static void await_end(const struct durable *durable, struct durable_lane *lane, const char *what,
                      unsigned index)
{
    if (lane->pid == 0)
        return;
    int status = test_wait_exit(lane->pid, END_MS);

    if (status != 0)
        FAIL("%s: %s %u ended with %d", durable->topic, what, index, status);
    if (status == TEST_TIMED_OUT)
        test_kill(lane->pid, SIGKILL);
    lane->pid = 0;
}

void durable_stop_producers(struct durable *durable, bool settle)
{
    atomic_store(&durable->stop, settle ? 2 : 1);
    for (unsigned i = 0; i < ORACLE_LANES; i++)
        await_end(durable, &durable->producers[i], "producer", i);
    (void)durable_check(durable);
}

void durable_stop_consumers(struct durable *durable, enum oracle_demand demand)
{
    char what[96];

    atomic_store(&durable->finish, 1);
    for (unsigned i = 0; i < DURABLE_CONSUMERS; i++) {
        if (durable->consumers[i].pid == 0)
            continue;
        await_end(durable, &durable->consumers[i], "consumer", i);
        snprintf(what, sizeof(what), "%s, consumer %u", durable->topic, i);
        (void)oracle_check(durable->consumers[i].view, demand, what, NULL);
    }
    (void)durable_check(durable);
}

/* ---- judging --------------------------------------------------------------------------------- */

struct progress {
    const struct durable *durable;
    uint64_t goal[ORACLE_LANES];
};

static bool has_progressed(const struct progress *progress, unsigned lane)
{
    return progress->durable->producers[lane].pid == 0 ||
           oracle_confirmed(progress->durable->oracle, lane) >= progress->goal[lane];
}

static bool all_progressed(void *argument)
{
    const struct progress *progress = argument;

    for (unsigned i = 0; i < ORACLE_LANES; i++) {
        if (!has_progressed(progress, i))
            return false;
    }
    return true;
}

bool durable_progresses(struct durable *durable, uint64_t count, int timeout_ms)
{
    struct progress progress = {.durable = durable};

    for (unsigned i = 0; i < ORACLE_LANES; i++)
        progress.goal[i] = oracle_confirmed(durable->oracle, i) + count;
    if (CHECK(test_eventually(all_progressed, &progress, timeout_ms)))
        return true;
    for (unsigned i = 0; i < ORACLE_LANES; i++) {
        if (!has_progressed(&progress, i))
            FAIL("%s: producer %u confirms nothing any more, at %llu; %llu attempts, %llu refused",
                 durable->topic, i, (unsigned long long)oracle_confirmed(durable->oracle, i),
                 (unsigned long long)oracle_attempts(durable->oracle, i),
                 (unsigned long long)atomic_load(&durable->producers[i].refused));
    }
    (void)durable_check(durable);
    return false;
}

static bool check_lane(const struct durable *durable, struct durable_lane *lane, const char *what,
                       unsigned index)
{
    if (atomic_load(&lane->error) == 0)
        return true;
    if (!lane->told)
        FAIL("%s: %s %u: %s", durable->topic, what, index, lane->why);
    lane->told = true;
    return false;
}

bool durable_check(struct durable *durable)
{
    bool good = true;

    for (unsigned i = 0; i < ORACLE_LANES; i++)
        good = check_lane(durable, &durable->producers[i], "producer", i) && good;
    for (unsigned i = 0; i < DURABLE_CONSUMERS; i++)
        good = check_lane(durable, &durable->consumers[i], "consumer", i) && good;
    return CHECK(good);
}

struct durable_counts durable_count(const struct durable *durable)
{
    struct durable_counts counts = {0, 0, 0, 0, 0, 0};

    for (unsigned i = 0; i < ORACLE_LANES; i++) {
        const struct durable_lane *lane = &durable->producers[i];
        uint64_t refused = atomic_load(&lane->refused);
        uint64_t longest_ns = atomic_load(&lane->longest_ns);

        counts.published += oracle_attempts(durable->oracle, i) - refused;
        counts.confirmed += oracle_confirmed(durable->oracle, i);
        counts.refused += refused;
        counts.unknown += atomic_load(&lane->unknown);
        counts.timeouts += atomic_load(&lane->timeouts);
        if (longest_ns > counts.longest_ns)
            counts.longest_ns = longest_ns;
    }
    return counts;
}

/* ---- comparing ------------------------------------------------------------------------------- */

static void explain_standstill(const struct durable *durable, shmq_consumer *consumer)
{
    for (uint32_t i = 0; i < durable->options.partitions; i++) {
        struct shmq_position position = {0, 0, 0, 0, 0, 0};

        (void)shmq_consumer_position(consumer, i, &position);
        FAIL("%s/%u: the reader stands at %llu, the log ends at %llu%s", durable->topic, i,
             (unsigned long long)position.position, (unsigned long long)position.tail,
             position.owned ? "" : "; it does not own it");
    }
}

static void read_to_end(const struct durable *durable, shmq_consumer *consumer,
                        struct oracle_view *view)
{
    uint64_t deadline_ns = test_now_ns() + (uint64_t)test_scaled_ms(READ_MS) * 1000000;
    struct shmq_message messages[128];

    for (;;) {
        int n = shmq_poll(consumer, messages, 128, 20);

        if (n < 0) {
            FAIL("%s: poll: %d: %s", durable->topic, n, shmq_errmsg(NULL));
            return;
        }
        for (int i = 0; i < n; i++)
            (void)oracle_take(view, &messages[i]);
        if (n == 0 && durable_is_at_end(consumer, durable->options.partitions))
            return;
        if (test_now_ns() > deadline_ns) {
            explain_standstill(durable, consumer);
            return;
        }
    }
}

void durable_read(struct durable *durable, struct oracle_view *view)
{
    struct shmq_consumer_options options = SHMQ_CONSUMER_OPTIONS_INIT;
    struct fixture_client client = durable_connect();
    shmq_consumer *consumer;

    options.group = "oracle";
    options.from = SHMQ_FROM_EARLIEST;
    consumer = fixture_consumer_with(&client, durable->topic, &options);
    read_to_end(durable, consumer, view);
    shmq_consumer_close(consumer);
    CHECK_OK(shmq_group_delete(client.connection, durable->topic, "oracle"));
    fixture_close(&client);
}

static struct oracle_view *read_all(struct durable *durable)
{
    struct oracle_view *view = oracle_view_new(durable->oracle, 0);

    durable_read(durable, view);
    return view;
}

bool durable_compare(struct durable *durable, enum oracle_demand demand, const char *what,
                     struct oracle_verdict *ret_verdict)
{
    struct oracle_view *view = read_all(durable);
    bool good = oracle_check(view, demand, what, ret_verdict);

    oracle_view_free(view);
    return good;
}

bool durable_compare_and_settle(struct durable *durable, enum oracle_demand demand,
                                const char *what)
{
    struct oracle_view *view = read_all(durable);
    bool good = oracle_check(view, demand, what, NULL);

    oracle_settle(view);
    oracle_view_free(view);
    return good;
}

static int note_error_of(const struct shmq_partition_info *info, void *context)
{
    int *error = context;

    if (*error == 0)
        *error = (int)info->journal_error;
    return 0;
}

int durable_journal_error(struct durable *durable)
{
    struct fixture_client client = durable_connect();
    int error = 0;

    CHECK_OK(shmq_partition_list(client.connection, durable->topic, note_error_of, &error));
    fixture_close(&client);
    return error;
}

static int add_durable_of(const struct shmq_partition_info *info, void *context)
{
    *(uint64_t *)context += info->durable_offset;
    return 0;
}

uint64_t durable_journal_end(struct durable *durable)
{
    struct fixture_client client = durable_connect();
    uint64_t end = 0;

    CHECK_OK(shmq_partition_list(client.connection, durable->topic, add_durable_of, &end));
    fixture_close(&client);
    return end;
}
