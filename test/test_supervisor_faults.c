/* The supervisor killed at each of its fault points, in a run through everything it does. A new one
 * takes over; the client comes back as who it was, repeats the request whose reply it did not get,
 * and finds all as if nothing had been. */
#include "daemon/shmqd.h"
#include "libshmq/cursor.h"
#include "libshmq/fault.h"
#include "test/support/test.h"
#include "test/support/wire.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POINTS_MAX 200

struct daemon_arguments {
    const char *spec; /* NULL: no fault */
    const char *log;
    struct test_barrier *ready;
};

static void run_daemon(void *context)
{
    const struct daemon_arguments *arguments = context;
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor;
    char error[512];
    sigset_t term;
    int number;

    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    options.persistent = 1;
    if (arguments->spec || arguments->log)
        REQUIRE(fault_arm(arguments->spec ? arguments->spec : "none.such", NULL, arguments->log) ==
                0);
    if (!CHECK_OK(shmq_supervisor_start(&options, &supervisor, error, sizeof(error)))) {
        FAIL("%s", error);
        return;
    }
    (void)sigwait(&term, &number);
    shmq_supervisor_stop(supervisor);
}

struct scene {
    pid_t daemon; /* 0: none */
    unsigned deaths;
    struct wire wire;
    const char *spec;         /* for the next daemon */
    const char *restart_spec; /* halfway the daemon is killed, and its successor gets this one */
    const char *log;
};

static void start_daemon(struct scene *scene)
{
    struct daemon_arguments arguments = {.spec = scene->spec, .log = scene->log};

    scene->daemon = test_spawn(run_daemon, &arguments);
}

/* Connects, starting daemons for as long as they die at their start. */
static bool reach(struct scene *scene, struct wire *wire)
{
    for (int i = 0; i < 2000; i++) {
        if (scene->daemon == 0)
            start_daemon(scene);
        if (wire_connect(wire) == 0)
            return true;
        int status = test_wait_exit(scene->daemon, 5);

        if (status != TEST_TIMED_OUT) {
            if (!CHECK_INT_EQ(status, -SIGKILL))
                return false;
            scene->daemon = 0;
            scene->deaths++;
            scene->spec = NULL;
        }
    }
    return FAIL("no supervisor answers");
}

static void bury(struct scene *scene)
{
    CHECK_INT_EQ(test_wait_exit(scene->daemon, 10000), -SIGKILL);
    scene->daemon = 0;
    scene->deaths++;
    scene->spec = NULL;
}

/* As who we were; or as somebody new, if hello itself died. */
static bool come_back(struct scene *scene, struct wire *wire)
{
    struct wire old = *wire;

    for (int i = 0; i < 4; i++) {
        if (old.fd >= 0)
            close(old.fd);
        old.fd = -1;
        if (!reach(scene, wire))
            return false;
        wire->next_id = old.next_id;
        wire->bus_fd = old.bus_fd;
        memcpy(wire->boot_id, old.boot_id, sizeof(old.boot_id));
        int rc = wire_hello(wire, old.client);

        if (rc == 0)
            return CHECK(old.client == 0 || wire->client == old.client);
        if (!CHECK_INT_EQ(rc, SHMQ_ECLOSED) || old.client != 0)
            CHECK(rc == SHMQ_ECLOSED && wire->text[0] == '\0');
        bury(scene);
        old.fd = wire->fd;
    }
    return FAIL("hello never succeeds");
}

/* One call; `again` is what a repeated one may say where the first one had done its work. */
static int call(struct scene *scene, struct wire *wire, void *request, enum protocol_type type,
                size_t bytes, int again)
{
    uint32_t id = ++wire->next_id;
    bool repeated = false;

    for (int i = 0; i < 4; i++) {
        int rc = wire_repeat(wire, request, type, bytes, id);

        if (rc == SHMQ_ECLOSED && wire->text[0] == '\0') {
            bury(scene);
            if (!come_back(scene, wire))
                return SHMQ_ECLOSED;
            repeated = true;
            continue;
        }
        if (rc < 0 && repeated && rc == again)
            rc = 0;
        if (rc < 0)
            FAIL("%s: %s", protocol_type_name(type), wire->text);
        return rc;
    }
    return FAIL("%s: its supervisors die without end", protocol_type_name(type)) ? 0 : SHMQ_ECLOSED;
}

/* ---- the run --------------------------------------------------------------------------------- */

static uint64_t put_topic(struct scene *scene, const char *name, uint32_t partitions,
                          enum protocol_type type)
{
    struct protocol_topic_put put = {.flags = TOPIC_IF_NOT_EXISTS, .mask = ALTER_PARTITIONS};

    topic_options_init(&put.options);
    snprintf(put.options.name, sizeof(put.options.name), "%s", name);
    put.options.ring_bytes = RING_MIN_BYTES;
    put.options.partitions = partitions;
    if (type == PROTOCOL_TOPIC_ALTER)
        put.flags = 0;
    else
        put.mask = 0;
    if (call(scene, &scene->wire, &put, type, sizeof(put), 0) < 0)
        return 0;
    return ((struct protocol_topic_reply *)(void *)scene->wire.reply)->info.id;
}

static void simple(struct scene *scene, enum protocol_type type, const char *name, int again)
{
    struct protocol_topic_request request = {.flags = 0};

    snprintf(request.name, sizeof(request.name), "%s", name);
    (void)call(scene, &scene->wire, &request, type, sizeof(request), again);
}

static struct protocol_group_joined join(struct scene *scene, struct wire *wire, const char *topic,
                                         const char *group)
{
    struct protocol_group_join request = {.from = FROM_EARLIEST};
    struct protocol_group_joined joined = {.group = 0};

    snprintf(request.topic, sizeof(request.topic), "%s", topic);
    snprintf(request.group, sizeof(request.group), "%s", group);
    if (call(scene, wire, &request, PROTOCOL_GROUP_JOIN, sizeof(request), 0) == 0)
        joined = *(struct protocol_group_joined *)(void *)wire->reply;
    return joined;
}

static uint32_t open_slot(struct scene *scene, struct wire *wire, uint64_t topic,
                          uint32_t partition)
{
    struct protocol_partition_open request = {
        .topic = topic, .partition = partition, .role = ROLE_PRODUCER};

    if (call(scene, wire, &request, PROTOCOL_PARTITION_OPEN, sizeof(request), 0) < 0)
        return UINT32_MAX;
    return ((struct protocol_partition_opened *)(void *)wire->reply)->slot;
}

static struct protocol_topic_info describe(struct scene *scene, const char *name)
{
    struct protocol_topic_info info = {.id = 0};
    struct protocol_topic_request request = {.flags = 0};

    snprintf(request.name, sizeof(request.name), "%s", name);
    if (call(scene, &scene->wire, &request, PROTOCOL_TOPIC_DESCRIBE, sizeof(request), 0) == 0)
        info = ((struct protocol_topic_reply *)(void *)scene->wire.reply)->info;
    return info;
}

/* Every partition has the owner that it ought to have, and cursor and assignment agree. */
static void check_owner(struct scene *scene, const char *topic, const char *group, uint64_t owner,
                        uint32_t partitions)
{
    struct protocol_group_request request = {.partition = 0};

    snprintf(request.topic_name, sizeof(request.topic_name), "%s", topic);
    snprintf(request.group_name, sizeof(request.group_name), "%s", group);
    for (int i = 0; i < 400; i++) {
        const struct protocol_group_reply *reply = (const void *)scene->wire.reply;
        bool good;

        if (call(scene, &scene->wire, &request, PROTOCOL_GROUP_DESCRIBE, sizeof(request), 0) < 0)
            return;
        good = reply->header.count == partitions;
        for (uint32_t p = 0; good && p < partitions; p++)
            good = reply->partitions[p].owner == owner;
        if (good)
            return;
        test_sleep_ms(10);
    }
    FAIL("group %s of %s: partitions do not belong to client %llu", group, topic,
         (unsigned long long)owner);
}

/* Nobody is held back by a group that is gone. */
static void check_gates_closed(struct scene *scene, uint64_t topic)
{
    for (uint32_t partition = 0; partition < 4; partition++) {
        struct ring ring;

        if (!CHECK_OK(
                wire_partition_open(&scene->wire, topic, partition, ROLE_CONSUMER, &ring, NULL)))
            return;
        for (uint32_t i = 0; i < GATES_MAX; i++)
            CHECK(ring.state->gates[i].state == GATE_FREE ||
                  ring.state->gates[i].state == GATE_DELETED);
        ring_deinit(&ring);
    }
}

/* A second client that holds a claim and is the group's first member; then it is killed. */
struct victim {
    struct test_barrier ready;
    uint64_t topic;
};

static void be_victim(void *context)
{
    struct victim *victim = context;
    struct wire wire;
    struct ring ring;
    struct ring_producer producer;
    struct protocol_group_joined joined;
    uint64_t offset;
    uint32_t slot;

    /* Only started where no supervisor dies meanwhile: hello and join have their points hit by the
     * others. */
    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_partition_open(&wire, victim->topic, 1, ROLE_PRODUCER, &ring, &slot));
    ring_producer_init(&producer, &ring, slot);
    REQUIRE(ring_refresh_limit(&producer, 192, 0) == RING_OK);
    REQUIRE(ring_claim(&producer, 192, &offset) == RING_OK);
    REQUIRE_OK(wire_group_join(&wire, "a", "g", FROM_EARLIEST, &joined));
    test_barrier_wait(&victim->ready, 10000);
    test_sleep_ms(60000);
}

static bool all_clean(struct scene *scene)
{
    struct protocol_topic_info info = describe(scene, "a");

    return info.producer_count == 1 && info.member_count == 1 && info.quarantined == 0;
}

static void run_scene(struct scene *scene, struct victim *victim, bool with_victim)
{
    struct protocol_slot_request close_slot = {.partition = 0};
    struct protocol_group_joined joined;
    struct protocol_group_request leave = {.member = 0}, delete = {.member = 0};
    struct protocol_header bye;
    pid_t pid = 0;

    memset(&scene->wire, 0, sizeof(scene->wire));
    scene->wire.fd = -1;
    scene->wire.bus_fd = -1;
    if (!come_back(scene, &scene->wire))
        return;
    uint64_t id = put_topic(scene, "a", 2, PROTOCOL_TOPIC_CREATE);

    if (with_victim) {
        victim->topic = id;
        test_barrier_init(&victim->ready, 2);
        pid = test_spawn(be_victim, victim);
        test_barrier_wait(&victim->ready, 10000);
    }
    joined = join(scene, &scene->wire, "a", "g");
    CHECK_EQ(joined.standby, with_victim);
    CHECK_EQ(open_slot(scene, &scene->wire, id, 0), 0);
    if (with_victim) {
        test_kill(pid, SIGKILL);
        for (int i = 0; i < 500 && !all_clean(scene); i++)
            test_sleep_ms(10);
    }
    CHECK(all_clean(scene));
    check_owner(scene, "a", "g", scene->wire.client, 2);
    if (scene->restart_spec) {
        test_kill(scene->daemon, SIGKILL);
        scene->daemon = 0;
        scene->spec = scene->restart_spec;
        (void)come_back(scene, &scene->wire);
    }
    CHECK_EQ(put_topic(scene, "a", 4, PROTOCOL_TOPIC_ALTER), id);
    CHECK_EQ(describe(scene, "a").options.partitions, 4);
    check_owner(scene, "a", "g", scene->wire.client, 4);
    simple(scene, PROTOCOL_TOPIC_PURGE, "a", 0);
    check_owner(scene, "a", "g", scene->wire.client, 4);
    close_slot.topic = id;
    (void)call(scene, &scene->wire, &close_slot, PROTOCOL_SLOT_CLOSE, sizeof(close_slot), 0);
    CHECK_EQ(describe(scene, "a").producer_count, 0);
    leave.topic = id;
    leave.group = joined.group;
    leave.member = joined.member;
    (void)call(scene, &scene->wire, &leave, PROTOCOL_GROUP_LEAVE, sizeof(leave), SHMQ_EINVAL);
    check_owner(scene, "a", "g", CLIENT_NONE, 4);
    strcpy(delete.topic_name, "a");
    strcpy(delete.group_name, "g");
    (void)call(scene, &scene->wire, &delete, PROTOCOL_GROUP_DELETE, sizeof(delete), SHMQ_ENOGROUP);
    CHECK_EQ(describe(scene, "a").group_count, 0);
    check_gates_closed(scene, id);
    (void)join(scene, &scene->wire, "a", "h");
    simple(scene, PROTOCOL_TOPIC_DELETE, "a", SHMQ_ENOTOPIC);
    CHECK(put_topic(scene, "b", 1, PROTOCOL_TOPIC_CREATE) != id);
    (void)wire_call(&scene->wire, &bye, PROTOCOL_GOODBYE, sizeof(bye));
    wire_close(&scene->wire);
    /* An orderly end; at a point of stopping it is a disorderly one. */
    if (scene->daemon != 0) {
        kill(scene->daemon, SIGTERM);
        int status = test_wait_exit(scene->daemon, 10000);

        CHECK(status == 0 || status == -SIGKILL);
        scene->deaths += status == -SIGKILL;
        scene->daemon = 0;
    }
}

static void remove_state(void)
{
    char command[512];

    (void)test_remove_leftovers();
    snprintf(command, sizeof(command), "rm -rf '%s' '%s'", getenv("SHMQ_STATE_DIR"),
             getenv("SHMQ_RUNTIME_DIR"));
    CHECK_INT_EQ(system(command), 0);
}

/* Names of the points that a run passes, each once. */
static unsigned collect_points(const char *path, char (*points)[80])
{
    FILE *file = fopen(path, "r");
    unsigned count = 0;
    char line[80];

    while (file && fgets(line, sizeof(line), file) && count < POINTS_MAX) {
        bool seen = false;

        line[strcspn(line, "\n")] = '\0';
        for (unsigned i = 0; i < count; i++)
            seen = seen || strcmp(points[i], line) == 0;
        if (!seen)
            strcpy(points[count++], line);
    }
    if (file)
        fclose(file);
    return count;
}

enum walk_mode { WALK_ALL, WALK_VICTIM, WALK_RESTART };

/* Kills at each point that the run passes, the `nth` time, if its name begins with one of
 * `prefixes`. */
static void walk(enum walk_mode mode, const char *nth, const char *const *prefixes,
                 unsigned floor_count)
{
    static char points[POINTS_MAX][80];
    struct scene *scene = calloc(1, sizeof(*scene));
    struct victim *victim = test_shared(sizeof(*victim));
    char log[256], spec[96];
    unsigned count, walked = 0, struck = 0;

    REQUIRE(scene != NULL);
    snprintf(log, sizeof(log), "%s/points", test_tmpdir());
    scene->log = log;
    scene->restart_spec = mode == WALK_RESTART ? "none.such" : NULL;
    run_scene(scene, victim, mode == WALK_VICTIM);
    remove_state();
    count = collect_points(log, points);
    for (unsigned i = 0; i < count && test_failures() == 0; i++) {
        bool wanted = prefixes == NULL;

        for (unsigned k = 0; prefixes && prefixes[k]; k++)
            wanted = wanted || strncmp(points[i], prefixes[k], strlen(prefixes[k])) == 0;
        if (!wanted)
            continue;
        walked++;
        memset(scene, 0, sizeof(*scene));
        snprintf(spec, sizeof(spec), "%.79s%s", points[i], nth);
        test_context("%s ", spec);
        if (mode == WALK_RESTART)
            scene->restart_spec = spec;
        else
            scene->spec = spec;
        run_scene(scene, victim, mode == WALK_VICTIM);
        struck += scene->deaths;
        remove_state();
    }
    test_context(NULL);
    test_note("%u points, %u deaths of the supervisor", walked, struck);
    CHECK(walked >= floor_count);
    CHECK(struck >= walked / 2);
    free(scene);
}

TEST(killed_at_each_point)
{
    walk(WALK_ALL, "", NULL, 70);
}

TEST(killed_at_each_point_the_second_time)
{
    walk(WALK_ALL, ":2", NULL, 70);
}

TEST(killed_while_it_cleans_up_after_the_dead)
{
    static const char *const PREFIXES[] = {"cleanup.",    "resolve.",   "slot.before",
                                           "group.leave", "group.left", NULL};

    walk(WALK_VICTIM, "", PREFIXES, 7);
}

TEST(killed_while_it_takes_over)
{
    static const char *const PREFIXES[] = {"start.",   "bus.",   "snapshot.", "store.",
                                           "journal.", "sweep.", "hello.",    NULL};

    walk(WALK_RESTART, "", PREFIXES, 15);
}

TEST_MAIN("supervisor_faults", T_TIMEOUT(killed_at_each_point, 120),
          T_TIMEOUT(killed_at_each_point_the_second_time, 120),
          T_TIMEOUT(killed_while_it_cleans_up_after_the_dead, 60),
          T_TIMEOUT(killed_while_it_takes_over, 60))
