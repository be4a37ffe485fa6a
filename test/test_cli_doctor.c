/* SPDX-License-Identifier: Apache-2.0 */
/* `shmq status` and `shmq doctor`: of a healthy bus, of one in trouble, and of what a dead one left. */
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libshmq/liveness.h"
#include "libshmq/shmq.h"
#include "test/support/cli.h"

/* ---- status and doctor ------------------------------------------------------------------------------- */

TEST(status_and_doctor_of_a_healthy_bus)
{
    pid_t bus = cli_start_bus();
    struct test_output out;

    cli_run_expect(0, "topic create orders -p 2");
    CHECK_INT_EQ(cli_run(&out, "status"), 0);
    CHECK_CONTAINS(out.out, "supervisor  shmqd");
    CHECK_CONTAINS(out.out, "orders");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "doctor"), 0);
    CHECK_CONTAINS(out.out, "is healthy");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "doctor --clean"), 0); /* a living bus is not touched */
    test_output_free(&out);
    cli_run_expect(0, "pub orders -m still-there");
    cli_stop_bus(bus);
}

/* A client that begins a message and stops. */
static void claim_and_stop(void *unused)
{
    shmq_connection *connection = NULL;
    shmq_channel *channel = NULL;
    shmq_producer *producer = NULL;
    struct shmq_claim claim;

    (void)unused;
    REQUIRE_OK(shmq_connect(NULL, &connection));
    REQUIRE_OK(shmq_channel_open(connection, &channel));
    REQUIRE_OK(shmq_producer_open(channel, "orders", NULL, &producer));
    REQUIRE_OK(shmq_claim(producer, NULL, 0, 100, &claim));
    raise(SIGSTOP);
    REQUIRE_OK(shmq_commit(&claim));
    shmq_close(connection);
}

TEST(doctor_names_a_stopped_producer)
{
    pid_t bus = cli_start_bus();
    struct test_output out;
    char expected[64];
    pid_t child;

    cli_run_expect(0, "topic create orders");
    child = test_spawn(claim_and_stop, NULL);
    CHECK(test_wait_stopped(child, CLI_WAIT_MS));
    cli_run_expect(0, "pub orders -m behind-it");
    CHECK_INT_EQ(cli_run(&out, "doctor"), 1);
    CHECK_CONTAINS(out.out, "orders/0: nothing from offset ");
    CHECK_CONTAINS(out.out, "is stopped (state T) between claim and commit");
    snprintf(expected, sizeof(expected), "kill -CONT %d", (int)child);
    CHECK_CONTAINS(out.out, expected);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json doctor"), 1);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out, "\"kind\":\"claim\"");
    snprintf(expected, sizeof(expected), "\"pid\":%d", (int)child);
    CHECK_CONTAINS(out.out, expected);
    test_output_free(&out);
    test_kill(child, SIGCONT);
    CHECK_INT_EQ(test_wait_exit(child, CLI_WAIT_MS), 0);
    cli_run_expect(0, "sub orders -n 2 -t 20s");
    cli_run_expect(0, "doctor");
    cli_stop_bus(bus);
}

TEST(doctor_names_who_holds_a_full_ring)
{
    pid_t bus = cli_start_bus();
    struct test_output out;

    cli_run_expect(0, "topic create orders --ring 64K --overflow reject");
    cli_run_expect(3, "-q sub orders -g billing -t 0");
    cli_run_expect(1, "pub orders -n 1000 --size 1000");
    CHECK_INT_EQ(cli_run(&out, "doctor"), 1);
    CHECK_CONTAINS(out.out, "the ring of 64K is full");
    CHECK_CONTAINS(out.out, "group billing");
    CHECK_CONTAINS(out.out, "shmq group delete orders billing");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "topic describe orders"), 0);
    CHECK_CONTAINS(out.out, "group at ");
    test_output_free(&out);
    cli_run_expect(0, "group delete orders billing");
    cli_run_expect(0, "doctor");
    cli_run_expect(0, "pub orders -m again");
    cli_stop_bus(bus);
}

/* The P segment of the only partition of this test's bus. */
static void find_producers_segment(char path[512])
{
    char pattern[512];
    glob_t found;

    snprintf(pattern, sizeof(pattern), "/dev/shm/shmq.%s.*.P", test_bus_name());
    REQUIRE(glob(pattern, 0, NULL, &found) == 0);
    CHECK_EQ(found.gl_pathc, 1);
    snprintf(path, 512, "%s", found.gl_pathv[0]);
    globfree(&found);
}

TEST(doctor_and_status_of_a_stopped_supervisor)
{
    pid_t bus = cli_start_bus();
    struct test_output out;
    char expected[64];

    cli_run_expect(0, "topic create orders");
    test_kill(bus, SIGSTOP);
    CHECK(test_wait_stopped(bus, CLI_WAIT_MS));
    CHECK_INT_EQ(cli_run(&out, "doctor"), 1);
    CHECK_CONTAINS(out.out, "the supervisor does not answer");
    snprintf(expected, sizeof(expected), "kill -CONT %d", (int)bus);
    CHECK_CONTAINS(out.out, expected);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "status"), 0);
    CHECK_CONTAINS(out.out, "does not answer");
    CHECK_CONTAINS(out.out, "orders");
    test_output_free(&out);
    test_kill(bus, SIGCONT);
    cli_run_expect(0, "doctor");
    cli_stop_bus(bus);
}

TEST(doctor_finds_a_truncated_partition)
{
    pid_t bus = cli_start_bus();
    struct test_output out;
    char path[512];

    cli_run_expect(0, "topic create orders");
    find_producers_segment(path);
    CHECK_INT_EQ(truncate(path, 100), 0);
    CHECK_INT_EQ(cli_run(&out, "doctor"), 1);
    CHECK_CONTAINS(out.out, "orders/0: its memory is damaged");
    test_output_free(&out);
    cli_run_expect(0, "topic delete orders");
    cli_run_expect(0, "doctor");
    cli_stop_bus(bus);
}

static void lock_and_sleep(void *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    REQUIRE(fd >= 0);
    CHECK_OK(liveness_trylock_recovery(fd));
    raise(SIGSTOP);
    close(fd);
}

TEST(doctor_names_who_has_the_recovery_lock)
{
    pid_t bus = cli_start_bus();
    struct test_output out;
    char expected[64];
    char path[512];
    pid_t child;

    cli_run_expect(0, "topic create orders");
    find_producers_segment(path);
    child = test_spawn(lock_and_sleep, path);
    CHECK(test_wait_stopped(child, CLI_WAIT_MS));
    CHECK_INT_EQ(cli_run(&out, "doctor"), 1);
    CHECK_CONTAINS(out.out, "has the recovery lock");
    snprintf(expected, sizeof(expected), "pid %d (", (int)child);
    CHECK_CONTAINS(out.out, expected);
    test_output_free(&out);
    test_kill(child, SIGCONT);
    CHECK_INT_EQ(test_wait_exit(child, CLI_WAIT_MS), 0);
    cli_run_expect(0, "doctor");
    cli_stop_bus(bus);
}

TEST(doctor_cleans_up_after_a_dead_bus_and_touches_no_other)
{
    pid_t bus = cli_start_bus();
    struct test_output out;

    cli_run_expect(0, "topic create orders");
    cli_run_expect(3, "-q sub orders -t 0");
    cli_run_expect(0, "pub orders -m unread");
    test_kill(bus, SIGKILL);
    CHECK_INT_EQ(cli_run(&out, "status"), 0);
    CHECK_CONTAINS(out.out, "none runs");
    CHECK_CONTAINS(out.out, "orders");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "--json status"), 0);
    CHECK(cli_is_json(out.out, 1));
    CHECK_CONTAINS(out.out, "\"supervisor\":null");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "doctor"), 1);
    CHECK_CONTAINS(out.out, "no supervisor runs");
    CHECK_CONTAINS(out.out, "left over");
    test_output_free(&out);
    /* What a group has not read stays, unless it is said twice. */
    CHECK_INT_EQ(cli_run(&out, "doctor --clean"), 1);
    CHECK_CONTAINS(out.out, "--force");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "status"), 0);
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "doctor --clean --force"), 1); /* still no supervisor */
    CHECK_CONTAINS(out.out, "removed ");
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "status"), 5);
    test_output_free(&out);
    CHECK_EQ(test_remove_leftovers(), 0);
}

TEST(doctor_leaves_a_bus_with_living_clients_alone)
{
    pid_t bus = cli_start_bus();
    struct test_output out;
    pid_t sub;
    bool there = false;

    cli_run_expect(0, "topic create orders");
    sub = cli_start_shell("exec \"$SHMQ\" -q sub orders >/dev/null");
    for (unsigned i = 0; i < 500 && !there; i++) {
        CHECK_INT_EQ(cli_run(&out, "--json group list orders"), 0);
        there = strstr(out.out, "\"members\":1") != NULL;
        test_output_free(&out);
        test_sleep_ms(10);
    }
    CHECK(there);
    test_kill(bus, SIGKILL);
    CHECK_INT_EQ(cli_run(&out, "doctor --clean --force"), 1);
    CHECK(strstr(out.out, "segments") == NULL); /* the stale socket alone went */
    test_output_free(&out);
    CHECK_INT_EQ(cli_run(&out, "status"), 0);
    CHECK_CONTAINS(out.out, "orders");
    test_output_free(&out);
    test_kill(sub, SIGTERM);
    CHECK_INT_EQ(test_wait_exit(sub, CLI_WAIT_MS), 0);
    CHECK_INT_EQ(cli_run(&out, "doctor --clean --force"), 1);
    CHECK_CONTAINS(out.out, "removed ");
    test_output_free(&out);
    CHECK_EQ(test_remove_leftovers(), 0);
}

TEST_MAIN("cli_doctor", T(status_and_doctor_of_a_healthy_bus), T(doctor_names_a_stopped_producer),
          T(doctor_names_who_holds_a_full_ring), T(doctor_and_status_of_a_stopped_supervisor),
          T(doctor_finds_a_truncated_partition), T(doctor_names_who_has_the_recovery_lock),
          T(doctor_cleans_up_after_a_dead_bus_and_touches_no_other),
          T(doctor_leaves_a_bus_with_living_clients_alone))
