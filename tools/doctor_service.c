/* SPDX-License-Identifier: Apache-2.0 */
/* What the supervisor's answers, or its silence, say; and /dev/shm. See doctor.h. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/doctor.h"
#include "tools/nouns.h"

#define CONTAINER_BYTES (UINT64_C(64) << 20) /* what containers get unless told otherwise */
#define LOW_BYTES       (UINT64_C(4) << 20)
#define SETTLE_NS       (10 * NS_PER_S)

static void check_silent(struct doctor *doctor, const struct inspect_bus *bus)
{
    struct inspect_process process;
    struct finding *f = doctor_add(doctor, "supervisor", "bus %s", doctor->place.bus);

    inspect_process(bus->supervisor_pid, 0, &process);
    f->pid = bus->supervisor_pid;
    memcpy(f->command, process.command, sizeof(f->command));
    doctor_say(f->what, "the supervisor does not answer; clients go on, control calls time out");
    if (process.state == 'T' || process.state == 't') {
        doctor_say(f->why, "pid %" PRIu32 " (%s) is stopped (state %c)", f->pid, f->command,
                   process.state);
        doctor_say(f->remedy, "continue it: kill -CONT %" PRIu32, f->pid);
        return;
    }
    doctor_say(f->why, "pid %" PRIu32 " (%s, state %c) has the lock: %.300s", f->pid, f->command,
               process.state, shmq_errmsg(NULL));
    doctor_say(f->remedy, "see its log; if it hangs, restart it: clients stay");
}

void doctor_check_supervisor(struct doctor *doctor, const struct inspect_bus *bus)
{
    struct finding *f;
    char command[PATHS_DIR_BYTES + 300];

    if (doctor->connected)
        return;
    if (bus && bus->supervisor_alive) {
        check_silent(doctor, bus);
        return;
    }
    if (doctor->connect_error != SHMQ_ENOBUS) {
        f = doctor_add(doctor, "supervisor", "bus %s", doctor->place.bus);
        doctor_say(f->what, "no connection");
        doctor_say(f->why, "%s", shmq_errmsg(NULL));
        doctor_say(f->remedy, "mend that first");
        return;
    }
    f = doctor_add(doctor, "supervisor", "bus %s", doctor->place.bus);
    doctor_say(f->what, "no supervisor runs");
    doctor_say(f->remedy, "start it: %s", place_start_command(&doctor->place, command));
    if (!bus) {
        doctor_say(f->why,
                   "there is no memory of this bus either: it was never started in %.300s, "
                   "or stopped and cleaned up",
                   doctor->place.runtime_dir);
        return;
    }
    f->pid = bus->supervisor_pid;
    if (bus->live_clients == 0)
        doctor_say(f->why, "the last one, pid %" PRIu32 ", has ended, and so have all clients",
                   bus->supervisor_pid);
    else
        doctor_say(f->why,
                   "the last one, pid %" PRIu32 ", has ended; %" PRIu32
                   " living %s on without it, but nothing can be created and the dead are not "
                   "cleaned up",
                   bus->supervisor_pid, bus->live_clients,
                   cli_plural(bus->live_clients, "client goes", "clients go"));
}

void doctor_check_clients(struct doctor *doctor)
{
    struct shmq_client_info *clients = NULL;
    uint64_t up_ns = clock_realtime_ns() - doctor->info.started_ns;
    int count = tool_list_clients(doctor->cli->connection, &clients);

    /* Just after a start all are absent. */
    for (int i = 0; i < count && up_ns > SETTLE_NS; i++) {
        struct inspect_process process;
        struct finding *f;

        /* Whoever consumes looks around once a second; an idle producer may come back whenever it
         * likes. */
        if (!clients[i].absent || clients[i].groups == 0)
            continue;
        inspect_process(clients[i].pid, 0, &process);
        f = doctor_add(doctor, "absent", "client %" PRIu64, clients[i].id);
        f->client = clients[i].id;
        f->pid = clients[i].pid;
        memcpy(f->command, clients[i].command, sizeof(f->command));
        f->command[sizeof(f->command) - 1] = '\0';
        doctor_say(f->what, "it has not come back to the restarted supervisor");
        doctor_say(f->why,
                   "pid %" PRIu32 " (%s) lives (state %c), but has not polled since: it takes no "
                   "part in hand-overs",
                   f->pid, f->command, process.state);
        doctor_say(f->remedy, "see what it does; if it hangs, end it: kill %" PRIu32, f->pid);
    }
    free(clients);
}

/* ---- Partitions and groups, by asking ------------------------------------------------------------ */

static void check_blocked(struct doctor *doctor, const char *topic,
                          const struct shmq_partition_info *before,
                          const struct shmq_partition_info *now)
{
    struct finding *f;

    if (now->status == 3) {
        f = doctor_add(doctor, "quarantined", "%s/%" PRIu32, topic, now->partition);
        doctor_say(f->what, "it is quarantined: nobody reads or writes it");
        doctor_say(f->why, "somebody who may write it scribbled on it or truncated it");
        doctor_say(f->remedy, "save what you need, then: shmq topic delete %s, and create it anew",
                   topic);
        return;
    }
    if (now->journal_error && before->journal_error) {
        doctor_report_journal(doctor, topic, now->partition, now->journal_error);
        return;
    }
    if (now->blocked_by == SHMQ_BLOCKED_BY_NOTHING || before->blocked_by != now->blocked_by ||
        before->blocked_offset != now->blocked_offset)
        return;
    f = doctor_add(doctor, now->blocked_by == SHMQ_BLOCKED_BY_CLAIM ? "claim" : "full",
                   "%s/%" PRIu32, topic, now->partition);
    f->client = now->blocked_client;
    doctor_say(f->what, "the ring is held back at offset %" PRIu64, now->blocked_offset);
    if (now->blocked_by == SHMQ_BLOCKED_BY_JOURNAL) {
        doctor_say(f->why, "what is from there on is not on disk yet");
        doctor_say(f->remedy,
                   "see whether the disk answers (iostat -x 1) and what the supervisor's log says");
        return;
    }
    if (now->blocked_client != 0) {
        doctor_say(f->why, "by a %s of client %" PRIu64, tool_blocked_by_word(now->blocked_by),
                   now->blocked_client);
        doctor_say(f->remedy, "see who that is: shmq client describe %" PRIu64,
                   now->blocked_client);
    } else {
        doctor_say(f->why, "by a %s", tool_blocked_by_word(now->blocked_by));
        doctor_say(f->remedy, "see which group is behind: shmq group list %s", topic);
    }
}

static void check_idle_groups(struct doctor *doctor)
{
    struct shmq_group_info *groups = NULL;
    int count = tool_list_groups(doctor->cli->connection, NULL, &groups);
    char text[UNITS_TEXT_BYTES];

    for (int i = 0; i < count; i++) {
        struct finding *f;

        if (groups[i].state != 1 || groups[i].member_count > 0 || groups[i].lag_bytes == 0)
            continue;
        f = doctor_add(doctor, "group", "%s", groups[i].topic);
        doctor_say(f->what, "%s is kept for group %s, and nobody reads it",
                   units_show_size(groups[i].lag_bytes, text), groups[i].name);
        doctor_say(f->why, "the group has no members");
        doctor_say(f->remedy, "start its consumer, or give it up: shmq group delete %s %s",
                   groups[i].topic, groups[i].name);
    }
    free(groups);
}

static int list_all(struct doctor *doctor, const struct shmq_topic_info *topics, int topic_count,
                    struct shmq_partition_info **ret_lists, int *ret_counts)
{
    for (int i = 0; i < topic_count; i++) {
        ret_lists[i] = NULL;
        ret_counts[i] =
            tool_list_partitions(doctor->cli->connection, topics[i].name, &ret_lists[i]);
    }
    return 0;
}

void doctor_check_service(struct doctor *doctor)
{
    const struct timespec pause = timespec_from_ns(DOCTOR_PAUSE_NS);
    struct shmq_topic_info *topics = NULL;
    int count = tool_list_topics(doctor->cli->connection, &topics);
    size_t room = count > 0 ? (size_t)count : 1;
    struct shmq_partition_info **before = calloc(room, sizeof(*before));
    struct shmq_partition_info **now = calloc(room, sizeof(*now));
    int *before_count = calloc(room, sizeof(*before_count));
    int *now_count = calloc(room, sizeof(*now_count));

    if (before && now && before_count && now_count) {
        (void)list_all(doctor, topics, count, before, before_count);
        (void)nanosleep(&pause, NULL);
        (void)list_all(doctor, topics, count, now, now_count);
        for (int i = 0; i < count; i++) {
            for (int k = 0; k < now_count[i] && k < before_count[i]; k++)
                check_blocked(doctor, topics[i].name, &before[i][k], &now[i][k]);
            free(before[i]);
            free(now[i]);
        }
    }
    check_idle_groups(doctor);
    free(before);
    free(now);
    free(before_count);
    free(now_count);
    free(topics);
}

void doctor_check_space(struct doctor *doctor)
{
    char free_text[UNITS_TEXT_BYTES];
    char total_text[UNITS_TEXT_BYTES];
    struct finding *f;
    const struct place_memory *memory = &doctor->memory;

    if (!doctor->has_memory) {
        f = doctor_add(doctor, "space", "/dev/shm");
        doctor_say(f->what, "there is no shared memory");
        doctor_say(f->why, "/dev/shm is not mounted");
        doctor_say(f->remedy, "mount a tmpfs there");
        return;
    }
    if (memory->free_bytes >= max_u64(LOW_BYTES, memory->total_bytes / 20))
        return;
    f = doctor_add(doctor, "space", "/dev/shm");
    doctor_say(f->what,
               "topics with large rings cannot be created; those that exist are not affected");
    doctor_say(f->why, "%s is free of %s", units_show_size(memory->free_bytes, free_text),
               units_show_size(memory->total_bytes, total_text));
    if (memory->total_bytes <= CONTAINER_BYTES)
        doctor_say(f->remedy, "give the container more (docker run --shm-size 1g; Kubernetes: an "
                              "emptyDir of medium Memory on /dev/shm), or delete topics");
    else
        doctor_say(f->remedy, "see what is there: ls -lS /dev/shm; or enlarge it: mount -o "
                              "remount,size=SIZE /dev/shm");
}
