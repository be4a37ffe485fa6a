/* One supervisor after another on the same bus: what stays, what begins anew, who may not start. */
#include "daemon/shmqd.h"
#include "libshmq/cursor.h"
#include "libshmq/liveness.h"
#include "libshmq/paths.h"
#include "test/support/test.h"
#include "test/support/wire.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define JUMP (UINT64_C(1) << 50)

static int try_start(bool persistent, shmq_supervisor **ret_supervisor, char error[512])
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;

    options.persistent = persistent;
    error[0] = '\0';
    return shmq_supervisor_start(&options, ret_supervisor, error, 512);
}

static shmq_supervisor *start(bool persistent)
{
    shmq_supervisor *supervisor = NULL;
    char error[512];

    if (try_start(persistent, &supervisor, error) < 0)
        FAIL("start: %s", error);
    REQUIRE(supervisor != NULL);
    return supervisor;
}

static void run_until_killed(void *context)
{
    struct test_barrier *ready = context;

    (void)start(true);
    test_barrier_wait(ready, 10000);
    pause();
}

/* In a process of its own, to be killed. */
static pid_t spawn_supervisor(void)
{
    struct test_barrier *ready = test_shared(sizeof(*ready));
    pid_t pid;

    test_barrier_init(ready, 2);
    pid = test_spawn(run_until_killed, ready);
    REQUIRE(test_barrier_wait(ready, 10000));
    return pid;
}

static struct topic_options options_for(const char *name)
{
    struct topic_options options;

    topic_options_init(&options);
    snprintf(options.name, sizeof(options.name), "%s", name);
    options.ring_bytes = RING_MIN_BYTES;
    return options;
}

static void resume(struct wire *wire)
{
    struct wire old = *wire;

    close(old.fd);
    REQUIRE(wire_connect(wire) == 0);
    wire->bus_fd = old.bus_fd;
    memcpy(wire->boot_id, old.boot_id, sizeof(old.boot_id));
    REQUIRE_OK(wire_hello(wire, old.client));
    CHECK_EQ(wire->client, old.client);
}

static void segment_prefix(char prefix[PATHS_PREFIX_BYTES])
{
    struct error_buffer why;

    REQUIRE_OK(paths_segment_prefix(geteuid(), getenv("SHMQ_RUNTIME_DIR"), getenv("SHMQ_BUS"),
                                    prefix, &why));
}

static void name_of(char name[SEGMENT_NAME_BYTES], enum segment_kind kind, uint64_t topic)
{
    char prefix[PATHS_PREFIX_BYTES];

    segment_prefix(prefix);
    segment_name(name, prefix, kind, topic, 0, 0);
}

/* Claims one record and commits it: needs nobody. */
static uint64_t publish_one(struct ring *ring, uint32_t slot)
{
    struct ring_producer producer;
    uint64_t offset = 0;

    ring_producer_init(&producer, ring, slot);
    REQUIRE(ring_refresh_limit(&producer, 64, 0) == RING_OK);
    REQUIRE(ring_claim(&producer, 64, &offset) == RING_OK);
    ring_begin_record(&producer, offset, 8, 0, 0, 0, RECORD_TYPE_DATA);
    ring_commit(&producer, offset, 64);
    return offset;
}

/* ---- what stays ------------------------------------------------------------------------------ */

static void keeps_everything(bool kill_it)
{
    struct topic_options options = options_for("t");
    struct protocol_topic_info info, after;
    struct protocol_group_joined joined;
    struct wire wire;
    struct ring ring;
    struct segment bus, group;
    uint32_t slot;
    shmq_supervisor *supervisor = kill_it ? NULL : start(true);
    pid_t pid = kill_it ? spawn_supervisor() : 0;

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_topic_create(&wire, &options, 0, &info));
    REQUIRE_OK(wire_partition_open(&wire, info.id, 0, ROLE_PRODUCER, &ring, &slot));
    REQUIRE_OK(wire_group_join(&wire, "t", "g", FROM_EARLIEST, &joined));
    REQUIRE_OK(wire_group_segment(&wire, &joined, 0, &group));
    ring.gates[joined.gate] = (struct ring_gate){.group = joined.group, .segment = group};
    REQUIRE_OK(segment_map(wire.bus_fd, false, sizeof(struct bus_segment), &bus, NULL));
    struct bus_segment *shared = bus.address;
    uint32_t event = shared->clients[wire.entry].event;
    uint32_t data_seq = ring.wait->data_seq;
    uint64_t assign = ring.state->gates[joined.gate].assign;
    uint64_t cursor = ((struct group_segment *)group.address)->cursor;

    CHECK_EQ(publish_one(&ring, slot), 0);
    if (kill_it)
        test_kill(pid, SIGKILL);
    else
        shmq_supervisor_stop(supervisor);
    CHECK_EQ(publish_one(&ring, slot), 64);
    supervisor = start(true);
    CHECK_EQ(shared->incarnation, 2);
    CHECK(shared->clients[wire.entry].event != event);
    CHECK(ring.wait->data_seq != data_seq);
    CHECK_EQ(ring.state->status, PARTITION_OPEN);
    CHECK_EQ(ring.state->slot_client[slot], wire.client);
    CHECK_EQ(ring.state->gates[joined.gate].assign, assign);
    CHECK_EQ(((struct group_segment *)group.address)->cursor, cursor);
    CHECK_EQ(publish_one(&ring, slot), 128);
    resume(&wire);
    CHECK_EQ(wire.incarnation, 2);
    CHECK_OK(wire_topic_describe(&wire, "t", &after));
    CHECK_EQ(after.id, info.id);
    CHECK_EQ(after.created_ns, info.created_ns);
    CHECK_EQ(after.producer_count, 1);
    CHECK_EQ(after.member_count, 1);
    CHECK_OK(wire_group_leave(&wire, &joined));
    options = options_for("u");
    CHECK_OK(wire_topic_create(&wire, &options, 0, &after));
    CHECK(after.id > joined.group); /* no id twice */
    segment_unmap(&bus);
    ring_deinit(&ring); /* and the group */
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    CHECK(test_remove_leftovers() > 0);
}

TEST(a_kill_keeps_topics_members_and_slots)
{
    keeps_everything(true);
}

TEST(a_clean_stop_keeps_topics_members_and_slots)
{
    keeps_everything(false);
}

TEST(without_its_runtime_directory_it_restarts)
{
    struct topic_options options = options_for("t");
    struct wire wire;
    char command[512];
    pid_t pid = spawn_supervisor();

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_topic_create(&wire, &options, 0, NULL));
    test_kill(pid, SIGKILL);
    snprintf(command, sizeof(command), "rm -rf '%s'", getenv("SHMQ_RUNTIME_DIR"));
    CHECK_INT_EQ(system(command), 0);
    shmq_supervisor *supervisor = start(true);

    resume(&wire);
    CHECK_OK(wire_topic_describe(&wire, "t", NULL));
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    CHECK(test_remove_leftovers() > 0);
}

/* ---- who died meanwhile ---------------------------------------------------------------------- */

struct visitor {
    struct test_barrier ready;
    uint64_t topic;
    uint64_t client;
};

static void visit(void *context)
{
    struct visitor *visitor = context;
    struct wire wire;
    struct ring ring;
    struct protocol_group_joined joined;
    uint32_t slot;

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_partition_open(&wire, visitor->topic, 0, ROLE_PRODUCER, &ring, &slot));
    REQUIRE_OK(wire_group_join(&wire, "t", "g", FROM_EARLIEST, &joined));
    visitor->client = wire.client;
    test_barrier_wait(&visitor->ready, 10000);
    test_sleep_ms(60000);
}

static bool is_alone(struct wire *wire)
{
    struct protocol_topic_info info;

    return wire_topic_describe(wire, "t", &info) == 0 && info.producer_count == 0 &&
           info.member_count == 0;
}

static void death_between_supervisors(bool before_the_second, bool locked)
{
    struct topic_options options = options_for("t");
    struct visitor *visitor = test_shared(sizeof(*visitor));
    struct protocol_topic_info info;
    struct wire wire;
    pid_t pid = spawn_supervisor();

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_topic_create(&wire, &options, 0, &info));
    visitor->topic = info.id;
    test_barrier_init(&visitor->ready, 2);
    pid_t guest = test_spawn(visit, visitor);

    REQUIRE(test_barrier_wait(&visitor->ready, 10000));
    test_kill(pid, SIGKILL);
    if (before_the_second)
        test_kill(guest, SIGKILL);
    if (locked) /* somebody would have it look alive */
        REQUIRE_OK(liveness_lock(wire.bus_fd, visitor->client));
    shmq_supervisor *supervisor = start(true);

    resume(&wire);
    if (!before_the_second) {
        CHECK(!is_alone(&wire)); /* absent, not dead */
        test_kill(guest, SIGKILL);
    }
    for (int i = 0; i < 200 && !is_alone(&wire); i++)
        test_sleep_ms(10);
    CHECK(is_alone(&wire));
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    CHECK(test_remove_leftovers() > 0);
}

TEST(a_dead_client_whose_lock_is_kept_is_cleaned_up)
{
    death_between_supervisors(true, true);
}

TEST(a_client_that_died_without_a_supervisor_is_cleaned_up)
{
    death_between_supervisors(true, false);
}

TEST(a_client_that_never_came_back_is_cleaned_up_when_it_dies)
{
    death_between_supervisors(false, false);
}

/* ---- what begins anew ------------------------------------------------------------------------ */

static uint64_t base_after_loss(struct wire *wire, uint64_t topic)
{
    struct protocol_list_request list = {.after_id = 0};

    (void)topic;
    strcpy(list.name, "t");
    REQUIRE_OK(wire_call(wire, &list, PROTOCOL_PARTITION_LIST, sizeof(list)));
    return ((struct protocol_partition_info *)(void *)((struct protocol_list_reply *)(void *)
                                                           wire->reply)
                ->elements)
        ->base;
}

TEST(after_a_reboot_topics_begin_empty_far_behind)
{
    struct topic_options options = options_for("t");
    struct protocol_topic_info info;
    struct protocol_group_joined joined, again;
    struct protocol_group_request describe = {.partition = 0};
    struct wire wire;
    shmq_supervisor *supervisor = start(true);

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_topic_create(&wire, &options, 0, &info));
    REQUIRE_OK(wire_group_join(&wire, "t", "g", FROM_EARLIEST, &joined));
    for (uint64_t boot = 1; boot <= 3; boot++) {
        wire_close(&wire);
        shmq_supervisor_stop(supervisor);
        CHECK(test_remove_leftovers() > 0);
        supervisor = start(true);
        REQUIRE(wire_open(&wire));
        CHECK_EQ(base_after_loss(&wire, info.id), boot * JUMP);
        strcpy(describe.topic_name, "t");
        strcpy(describe.group_name, "g");
        REQUIRE_OK(wire_call(&wire, &describe, PROTOCOL_GROUP_DESCRIBE, sizeof(describe)));
        CHECK_EQ(((struct protocol_group_reply *)(void *)wire.reply)->partitions[0].cursor,
                 boot * JUMP);
        CHECK_EQ(((struct protocol_group_reply *)(void *)wire.reply)->info.id, joined.group);
    }
    CHECK_OK(wire_group_join(&wire, "t", "g", FROM_LATEST, &again));
    CHECK_EQ(again.created, 0);
    CHECK_EQ(again.standby, 0);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    CHECK(test_remove_leftovers() > 0);
}

static void lost_segment(enum segment_kind kind, off_t truncate_to)
{
    struct topic_options options = options_for("t");
    struct protocol_topic_info info;
    struct wire wire;
    struct ring ring;
    char name[SEGMENT_NAME_BYTES];
    uint32_t slot;
    pid_t pid = spawn_supervisor();

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_topic_create(&wire, &options, 0, &info));
    REQUIRE_OK(wire_partition_open(&wire, info.id, 0, ROLE_CONSUMER, &ring, NULL));
    test_kill(pid, SIGKILL);
    name_of(name, kind, info.id);
    if (truncate_to < 0) {
        CHECK_INT_EQ(shm_unlink(name), 0);
    } else {
        int fd = shm_open(name, O_RDWR, 0);

        CHECK_INT_EQ(ftruncate(fd, truncate_to), 0);
        close(fd);
    }
    shmq_supervisor *supervisor = start(true);

    resume(&wire);
    CHECK_EQ(base_after_loss(&wire, info.id), JUMP);
    CHECK_EQ(ring.state->status, PARTITION_QUARANTINED); /* who has the old memory learns it */
    ring_deinit(&ring);
    REQUIRE_OK(wire_partition_open(&wire, info.id, 0, ROLE_PRODUCER, &ring, &slot));
    CHECK_EQ(publish_one(&ring, slot), JUMP);
    ring_deinit(&ring);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    CHECK(test_remove_leftovers() > 0);
}

TEST(a_partition_without_its_data_begins_anew)
{
    lost_segment(SEGMENT_DATA, -1);
}

TEST(a_partition_with_cut_data_begins_anew)
{
    lost_segment(SEGMENT_DATA, 4096);
}

TEST(leftovers_are_swept_and_their_users_told)
{
    struct topic_options options = options_for("t");
    struct protocol_topic_info info;
    struct protocol_header bye;
    struct wire wire;
    struct ring ring;
    char prefix[PATHS_PREFIX_BYTES], stray[300], other[300], state_dir[300], command[800];
    pid_t pid = spawn_supervisor();

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_topic_create(&wire, &options, 0, &info));
    REQUIRE_OK(wire_partition_open(&wire, info.id, 0, ROLE_CONSUMER, &ring, NULL));
    test_kill(pid, SIGKILL);
    /* The metadata is lost; and somebody left a file that looks like ours; and one that does not.
     * */
    snprintf(state_dir, sizeof(state_dir), "%s/%s", getenv("SHMQ_STATE_DIR"), getenv("SHMQ_BUS"));
    snprintf(command, sizeof(command), "rm -rf '%s'", state_dir);
    CHECK_INT_EQ(system(command), 0);
    segment_prefix(prefix);
    snprintf(stray, sizeof(stray), "%.180s.t99p0.D", prefix);
    snprintf(other, sizeof(other), "%.180sx.t99p0.D", prefix);
    close(shm_open(stray, O_RDWR | O_CREAT, 0600));
    close(shm_open(other, O_RDWR | O_CREAT, 0600));
    shmq_supervisor *supervisor = start(true);

    CHECK_EQ(ring.state->status, PARTITION_DELETED);
    CHECK(ring.wait->attention & ATTENTION_CLOSED);
    CHECK_INT_EQ(shm_unlink(stray), -1);
    CHECK_INT_EQ(shm_unlink(other), 0);
    resume(&wire);
    CHECK_ERR(wire_topic_describe(&wire, "t", NULL), SHMQ_ENOTOPIC);
    CHECK_OK(wire_call(&wire, &bye, PROTOCOL_GOODBYE, sizeof(bye)));
    ring_deinit(&ring);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    (void)test_remove_leftovers();
}

/* Out of descriptors at any point, a start fails, and costs nothing: progress, members and messages
 * are there when one succeeds. */
TEST(a_start_that_lacks_descriptors_loses_nothing)
{
    struct topic_options options = options_for("t");
    struct shmq_supervisor_options start_options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor = start(true);
    struct protocol_topic_info info;
    struct protocol_group_joined joined;
    struct rlimit before, few;
    struct wire wire;
    struct ring ring;
    struct segment group;
    uint32_t slot;
    char error[512];
    int failures = 0;

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_topic_create(&wire, &options, 0, &info));
    REQUIRE_OK(wire_partition_open(&wire, info.id, 0, ROLE_PRODUCER, &ring, &slot));
    (void)publish_one(&ring, slot);
    REQUIRE_OK(wire_group_join(&wire, "t", "g", FROM_LATEST, &joined));
    REQUIRE_OK(wire_group_segment(&wire, &joined, 0, &group));
    uint64_t cursor = ((struct group_segment *)group.address)->cursor;

    shmq_supervisor_stop(supervisor);
    start_options.persistent = 1;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    few = before;
    for (supervisor = NULL, few.rlim_cur = 3; !supervisor && few.rlim_cur < 64; few.rlim_cur++) {
        REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
        failures += shmq_supervisor_start(&start_options, &supervisor, error, sizeof(error)) < 0;
    }
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    REQUIRE(supervisor != NULL);
    CHECK(failures > 5);
    CHECK_EQ(ring.state->status, PARTITION_OPEN);
    CHECK_EQ(((struct group_segment *)group.address)->cursor, cursor);
    resume(&wire);
    struct segment again;

    REQUIRE_OK(wire_group_segment(&wire, &joined, 0, &again));
    CHECK_EQ(((struct group_segment *)again.address)->cursor, cursor);
    CHECK_OK(wire_topic_describe(&wire, "t", &info));
    CHECK_EQ(info.member_count, 1);
    CHECK_EQ(info.producer_count, 1);
    segment_unmap(&again);
    segment_unmap(&group);
    ring_deinit(&ring);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    CHECK(test_remove_leftovers() > 0);
}

/* What cannot be opened today is not lost. */
TEST(a_start_that_cannot_open_a_group_fails)
{
    struct topic_options options = options_for("t");
    struct shmq_supervisor_options start_options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    shmq_supervisor *supervisor = start(true);
    char name[SEGMENT_NAME_BYTES], path[300], aside[320], error[512] = "";
    struct protocol_group_joined joined;
    struct protocol_topic_info info;
    struct segment group;
    struct wire wire;

    REQUIRE(wire_open(&wire));
    REQUIRE_OK(wire_topic_create(&wire, &options, 0, &info));
    REQUIRE_OK(wire_group_join(&wire, "t", "g", FROM_EARLIEST, &joined));
    REQUIRE_OK(wire_group_segment(&wire, &joined, 0, &group));
    shmq_supervisor_stop(supervisor);
    name_of(name, SEGMENT_GROUP, info.id);
    snprintf(path, sizeof(path), "/dev/shm/%s", name + (name[0] == '/'));
    snprintf(aside, sizeof(aside), "%s.aside", path);
    REQUIRE(rename(path, aside) == 0 && mkdir(path, 0700) == 0);
    start_options.persistent = 1;
    int rc = shmq_supervisor_start(&start_options, &supervisor, error, sizeof(error));

    CHECK(rc < 0);
    CHECK_CONTAINS(error, "topic t/0, group g");
    REQUIRE(rmdir(path) == 0 && rename(aside, path) == 0);
    supervisor = start(true);
    resume(&wire);
    struct segment again;

    /* The very same memory: what one writes the other reads. */
    REQUIRE_OK(wire_group_segment(&wire, &joined, 0, &again));
    ((struct group_segment *)group.address)->members[9].records = 77;
    CHECK_EQ(((struct group_segment *)again.address)->members[9].records, 77);
    segment_unmap(&again);
    segment_unmap(&group);
    wire_close(&wire);
    shmq_supervisor_stop(supervisor);
    CHECK(test_remove_leftovers() > 0);
}

TEST_MAIN("supervisor_restart", T(a_kill_keeps_topics_members_and_slots),
          T(a_clean_stop_keeps_topics_members_and_slots),
          T(without_its_runtime_directory_it_restarts),
          T(a_client_that_died_without_a_supervisor_is_cleaned_up),
          T(a_dead_client_whose_lock_is_kept_is_cleaned_up),
          T(a_start_that_lacks_descriptors_loses_nothing),
          T(a_start_that_cannot_open_a_group_fails),
          T(a_client_that_never_came_back_is_cleaned_up_when_it_dies),
          T(after_a_reboot_topics_begin_empty_far_behind),
          T(a_partition_without_its_data_begins_anew), T(a_partition_with_cut_data_begins_anew),
          T(leftovers_are_swept_and_their_users_told))
