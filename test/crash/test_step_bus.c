/* test_step_bus.c: a client dies, or is stopped, at every step that others can see of what it does on a real bus: publishing
 * and polling through shmq.h, joining a group, leaving it, taking over from a dead owner.
 *
 * The supervisor is embedded in this process; the child is a client. One recording pass notes where the shared segments
 * changed and where system calls are; the child is then killed at each of these points. After each: within 2 s others
 * publish and receive, in order, nothing that was published is lost, nothing that was committed comes again.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libshmq/fault.h"
#include "test/support/fixture.h"
#include "test/support/step.h"

#define TOPIC    "t"
#define GROUP    "g"
#define RANGES   16
#define PROGRESS 2000 /* ms: how long others may take to go on */
#define BEFORE   3u   /* messages that wait for the group when the operation begins */

enum operation { API_PUBLISH, API_POLL, API_JOIN, API_LEAVE, API_TAKE_OVER };

struct bus {
    enum operation operation;
    shmq_supervisor *supervisor;
    struct fixture_client client; /* this process's */
    shmq_producer *producer;
    shmq_consumer *owner; /* API_TAKE_OVER: leaves when the child stands by */
    struct fixture_client owner_client;
    struct step_range ranges[RANGES];
    size_t range_count;
    uint64_t next;      /* number of the next message that this process publishes */
    uint64_t committed; /* below it the group has committed, for certain */
    struct fixture_client child;
    shmq_producer *child_producer;
    shmq_consumer *child_consumer;
    struct bus_shared *shared;
};

struct bus_shared {
    _Atomic int result;         /* 1 + what the operation returned */
    _Atomic uint32_t stands_by; /* the child has joined */
    _Atomic uint32_t owner_left;
    _Atomic uint64_t received;  /* by the child, before its commit */
    _Atomic uint64_t published; /* the number that the child publishes */
};

/* ---- the child -------------------------------------------------------------------------------------------------- */

static void child_setup(void *argument)
{
    struct bus *bus = argument;

    bus->child = fixture_connect();
    switch (bus->operation) {
    case API_PUBLISH:
        bus->child_producer = fixture_producer(&bus->child, TOPIC, 1000);
        break;
    case API_JOIN:
        break;
    case API_POLL:
    case API_LEAVE:
        bus->child_consumer = fixture_consumer(&bus->child, TOPIC, GROUP);
        break;
    case API_TAKE_OVER:
        bus->child_consumer = fixture_consumer(&bus->child, TOPIC, GROUP);
        atomic_store(&bus->shared->stands_by, 1);
        while (!atomic_load(&bus->shared->owner_left))
            test_sleep_ms(1);
        break;
    }
}

/* Polls all that waits and commits it. */
static int poll_and_commit(struct bus *bus, uint32_t wanted)
{
    struct shmq_message messages[BEFORE];
    uint32_t got = 0;

    while (got < wanted) {
        int n = shmq_poll(bus->child_consumer, messages, BEFORE, 1000);

        if (n <= 0)
            return n < 0 ? n : SHMQ_ETIMEOUT;
        got += (uint32_t)n;
        atomic_fetch_add(&bus->shared->received, (uint64_t)n);
    }
    return shmq_commit_offsets(bus->child_consumer);
}

static void child_operation(void *argument)
{
    struct bus *bus = argument;
    int rc = 0;

    switch (bus->operation) {
    case API_PUBLISH:
        rc = fixture_publish_number(bus->child_producer, atomic_load(&bus->shared->published));
        break;
    case API_POLL:
    case API_TAKE_OVER:
        rc = poll_and_commit(bus, BEFORE);
        break;
    case API_JOIN:
        bus->child_consumer = fixture_consumer(&bus->child, TOPIC, GROUP);
        break;
    case API_LEAVE:
        shmq_consumer_close(bus->child_consumer);
        bus->child_consumer = NULL;
        break;
    }
    atomic_store(&bus->shared->result, 1 + rc);
}

static void child_finish(void *argument)
{
    struct bus *bus = argument;

    fixture_close(&bus->child);
}

/* ---- the others --------------------------------------------------------------------------------------------------- */

static int count_client(const struct shmq_client_info *info, void *context)
{
    (void)info;
    ++*(int *)context;
    return 0;
}

static bool only_this_process(void *argument)
{
    struct bus *bus = argument;
    int clients = 0;

    return shmq_client_list(bus->client.connection, count_client, &clients) == 0 && clients == 1;
}

static void publish(struct bus *bus, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        CHECK_OK(fixture_publish_number(bus->producer, bus->next++));
}

/* Closes the owner once the child stands by: a hand-over begins. */
static void *leave_when_told(void *argument)
{
    struct bus *bus = argument;

    while (!atomic_load(&bus->shared->stands_by))
        test_sleep_ms(1);
    fixture_close(&bus->owner_client);
    atomic_store(&bus->shared->owner_left, 1);
    return NULL;
}

/* Whoever the last child was has been cleaned up, the group has nothing to read but what this round publishes. */
static void prepare(void *argument)
{
    struct bus *bus = argument;
    pthread_t leaver;

    REQUIRE(test_eventually(only_this_process, bus, PROGRESS));
    memset(bus->shared, 0, sizeof(*bus->shared));
    bus->committed = bus->next;
    if (bus->operation == API_TAKE_OVER) {
        bus->owner_client = fixture_connect();
        bus->owner = fixture_consumer(&bus->owner_client, TOPIC, GROUP);
        REQUIRE(pthread_create(&leaver, NULL, leave_when_told, bus) == 0);
        pthread_detach(leaver);
    }
    if (bus->operation == API_PUBLISH)
        bus->shared->published = bus->next++;
    else
        publish(bus, BEFORE);
}

/* What the group gets now: `from` or later, without a gap, up to the last one. */
static void check_group(struct bus *bus, uint64_t lowest, uint64_t highest_start)
{
    struct fixture_client client = fixture_connect();
    shmq_consumer *consumer = fixture_consumer(&client, TOPIC, GROUP);
    uint64_t number = fixture_poll_number(consumer, PROGRESS);

    CHECK(number >= lowest && number <= highest_start);
    while (number < bus->next - 1) {
        uint64_t next = fixture_poll_number(consumer, PROGRESS);

        if (!CHECK_EQ(next, number + 1))
            break;
        number = next;
    }
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX);
    CHECK_OK(shmq_commit_offsets(consumer));
    fixture_close(&client);
}

static void verify_publish(struct bus *bus, int result)
{
    struct fixture_client client = fixture_connect();
    shmq_consumer *consumer = fixture_consumer(&client, TOPIC, GROUP);
    uint64_t childs = bus->shared->published;
    uint64_t first = fixture_poll_number(consumer, PROGRESS);

    CHECK(first == childs || (result == 0 && first == childs + 1)); /* reported published: there */
    if (first == childs)
        CHECK_EQ(fixture_poll_number(consumer, PROGRESS), childs + 1);
    CHECK_EQ(fixture_poll_number(consumer, 0), UINT64_MAX);
    fixture_close(&client);
}

static void verify(struct bus *bus)
{
    int result = atomic_load(&bus->shared->result);

    publish(bus, 1); /* producers go on */
    if (bus->operation == API_PUBLISH) {
        verify_publish(bus, result);
        return;
    }
    /* All that waited, or, where the child may have committed that, what came after it. */
    uint64_t after = bus->committed + BEFORE;
    bool commits = bus->operation == API_POLL || bus->operation == API_TAKE_OVER;

    if (commits && result == 1)
        check_group(bus, after, after);
    else
        check_group(bus, bus->committed, commits ? after : bus->committed);
}

static void verify_killed(void *argument, struct step_child *child)
{
    (void)child;
    verify(argument);
}

static void verify_stopped(void *argument, struct step_child *child)
{
    struct bus *bus = argument;

    publish(bus, 1); /* nobody else stands still */
    CHECK_EQ(step_continue(child, 5000), 0);
    CHECK_EQ(atomic_load(&bus->shared->result), 1);
    if (bus->operation == API_PUBLISH) {
        CHECK(test_eventually(only_this_process, bus, PROGRESS));
        uint64_t lowest = bus->shared->published;
        struct fixture_client client = fixture_connect();
        shmq_consumer *consumer = fixture_consumer(&client, TOPIC, GROUP);
        uint64_t first = fixture_poll_number(consumer, PROGRESS);
        uint64_t second = fixture_poll_number(consumer, PROGRESS);

        CHECK_EQ(first + second, 2 * lowest + 1); /* both, in either order */
        fixture_close(&client);
        return;
    }
    verify(bus);
}

/* ---- the tests ----------------------------------------------------------------------------------------------------- */

static void map_range(struct bus *bus, const char *name)
{
    char path[512];
    struct stat stat;

    snprintf(path, sizeof(path), "/dev/shm/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    REQUIRE(fd >= 0 && fstat(fd, &stat) == 0 && bus->range_count < RANGES);
    void *base = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_SHARED, fd, 0);

    close(fd);
    REQUIRE(base != MAP_FAILED);
    bus->ranges[bus->range_count++] = (struct step_range){base, (size_t)stat.st_size};
}

/* All of the bus's segments but B, which has a timestamp for each connection. */
static void map_ranges(struct bus *bus)
{
    struct dirent **entries;
    int count = scandir("/dev/shm", &entries, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;

        if (strncmp(name, "shmq.", 5) == 0 && strstr(name, test_bus_name()) && strstr(name, ".t"))
            map_range(bus, name);
        free(entries[i]);
    }
    free(entries);
}

static void begin(struct bus *bus, enum operation operation)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;

    step_require();
    fault_disarm(); /* its first use reads the environment: the child must not be the first */
    memset(bus, 0, sizeof(*bus));
    bus->operation = operation;
    bus->shared = test_shared(sizeof(*bus->shared));
    bus->supervisor = fixture_start();
    bus->client = fixture_connect();
    options.ring_bytes = 65536;
    fixture_topic(&bus->client, TOPIC, &options);
    bus->producer = fixture_producer(&bus->client, TOPIC, PROGRESS);
    struct fixture_client first = fixture_connect();

    fixture_consumer(&first, TOPIC,
                     GROUP); /* makes the group: from here on everything is kept for it */
    fixture_close(&first);
    map_ranges(bus);
}

static void end(struct bus *bus)
{
    for (size_t i = 0; i < bus->range_count; i++)
        munmap((void *)(uintptr_t)bus->ranges[i].base, bus->ranges[i].length);
    fixture_close(&bus->client);
    fixture_stop(bus->supervisor);
}

/* STEP_ALL=1: each single instruction, whether others can tell it from the one before or not; with STRESS_SECONDS,
 * as many of them, chosen at random, as fit into some such time. */
static bool every_step(void)
{
    const char *all = getenv("STEP_ALL");

    return all && strcmp(all, "0") != 0;
}

static size_t choose_most(size_t most)
{
    const char *seconds = getenv("STRESS_SECONDS");

    if (!every_step())
        return most;
    return seconds ? 150 * (size_t)strtoull(seconds, NULL, 10) : SIZE_MAX;
}

static void walk(enum operation operation, const char *name, enum step_action action, size_t most,
                 uint64_t floor)
{
    struct bus bus;
    struct step_points points = {0};
    struct test_random random;

    begin(&bus, operation);
    struct step_plan plan = {.name = name,
                             .prepare = prepare,
                             .setup = child_setup,
                             .operation = child_operation,
                             .finish = child_finish,
                             .arg = &bus,
                             .ranges = bus.ranges,
                             .range_count = bus.range_count};

    most = choose_most(most);
    if ((every_step() ? step_list_all : step_record)(&plan, &points) == 0) {
        /* The recording's own round: what it left to read is read. */
        test_random_init(&random, test_seed());
        if (bus.operation != API_POLL && bus.operation != API_TAKE_OVER) {
            uint64_t first = bus.operation == API_PUBLISH ? bus.shared->published : bus.committed;

            check_group(&bus, first, first);
        }
        if (points.count > most)
            step_points_sample(&points, most, &random);
        step_walk(&plan, &points, action, action == STEP_KILL ? verify_killed : verify_stopped);
        step_report(&plan, &points, floor);
    }
    step_points_free(&points);
    end(&bus);
}

TEST(publish_killed)
{
    walk(API_PUBLISH, "shmq_publish, killed", STEP_KILL, 500, 8);
}

TEST(publish_stopped)
{
    walk(API_PUBLISH, "shmq_publish, stopped", STEP_STOP, 500, 8);
}

TEST(poll_and_commit_killed)
{
    walk(API_POLL, "shmq_poll and commit, killed", STEP_KILL, 500, 5);
}

TEST(poll_and_commit_stopped)
{
    walk(API_POLL, "shmq_poll and commit, stopped", STEP_STOP, 500, 5);
}

TEST(join_killed)
{
    walk(API_JOIN, "join, killed", STEP_KILL, 200, 30);
}

TEST(join_stopped)
{
    walk(API_JOIN, "join, stopped", STEP_STOP, 100, 30);
}

TEST(leave_killed)
{
    walk(API_LEAVE, "leave, killed", STEP_KILL, 200, 12);
}

TEST(leave_stopped)
{
    walk(API_LEAVE, "leave, stopped", STEP_STOP, 100, 12);
}

TEST(take_over_killed)
{
    walk(API_TAKE_OVER, "hand-over to a standby, killed", STEP_KILL, 200, 5);
}

TEST(take_over_stopped)
{
    walk(API_TAKE_OVER, "hand-over to a standby, stopped", STEP_STOP, 100, 5);
}

TEST_MAIN("step_bus", T_TIMEOUT(publish_killed, 3600), T_TIMEOUT(publish_stopped, 3600),
          T_TIMEOUT(poll_and_commit_killed, 3600), T_TIMEOUT(poll_and_commit_stopped, 3600),
          T_TIMEOUT(join_killed, 3600), T_TIMEOUT(join_stopped, 3600),
          T_TIMEOUT(leave_killed, 3600), T_TIMEOUT(leave_stopped, 3600),
          T_TIMEOUT(take_over_killed, 3600), T_TIMEOUT(take_over_stopped, 3600))
