/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bus's memory says about what is stuck. Two looks, some time apart: a claim, a cursor or a
 * lock that stands where it stood is stuck, one that has moved is work.
 */
#include <inttypes.h>
#include <string.h>

#include "libshmq/units.h"
#include "tools/doctor.h"

/* ---- Who -------------------------------------------------------------------------------------- */

/* Fills in who, says how it is in `ret_state`, and what to do about it in finding->remedy. */
static void name_client(struct finding *f, const struct inspect_bus *bus, uint64_t id,
                        char ret_state[200])
{
    const struct inspect_client *client = inspect_find_client(bus, id);
    struct inspect_process process;

    f->client = id;
    if (!client || !client->alive) {
        (void)snprintf(ret_state, 200, "client %" PRIu64 "%s is dead", id,
                       client ? "" : ", which is not connected any more,");
        if (client) {
            f->pid = client->pid;
            memcpy(f->command, client->command, sizeof(f->command));
            (void)snprintf(ret_state, 200, "client %" PRIu64 " (pid %" PRIu32 ", %s) is dead", id,
                           client->pid, client->command);
        }
        doctor_say(f->remedy, "%s",
                   bus->supervisor_alive ? "the supervisor clears it away in a moment"
                                         : "start a supervisor: it clears it away");
        return;
    }
    inspect_process(client->pid, client->start_time, &process);
    f->pid = client->pid;
    memcpy(f->command, client->command, sizeof(f->command));
    if (process.state == 'T') {
        doctor_say(f->remedy, "continue it: kill -CONT %" PRIu32 ", or end it: kill -KILL %" PRIu32,
                   client->pid, client->pid);
        (void)snprintf(ret_state, 200,
                       "client %" PRIu64 " (pid %" PRIu32 ", %s) is stopped (state T)", id,
                       client->pid, client->command);
        return;
    }
    if (process.state == 't')
        doctor_say(f->remedy, "let its debugger continue it, or end it: kill -KILL %" PRIu32,
                   client->pid);
    else
        doctor_say(f->remedy, "see what it does; if it hangs, end it: kill %" PRIu32, client->pid);
    (void)snprintf(ret_state, 200, "client %" PRIu64 " (pid %" PRIu32 ", %s) lives (state %c)", id,
                   client->pid, client->command, process.state);
}

/* ---- One partition ---------------------------------------------------------------------------- */

static bool had_claim(const struct inspect_partition *before, const struct inspect_claim *claim)
{
    for (uint32_t i = 0; i < before->claim_count; i++) {
        if (before->claims[i].slot == claim->slot && before->claims[i].at == claim->at)
            return true;
    }
    return false;
}

static void check_claims(struct doctor *doctor, const struct inspect_bus *bus,
                         const struct inspect_partition *before, const struct inspect_partition *p)
{
    for (uint32_t i = 0; i < p->claim_count; i++) {
        const struct inspect_claim *claim = &p->claims[i];
        char state[200];
        struct finding *f;

        if (!had_claim(before, claim))
            continue;
        f = doctor_add(doctor, "claim", "%s/%" PRIu32, p->name, p->partition);
        doctor_say(f->what, "nothing from offset %" PRIu64 " on is delivered", claim->at);
        name_client(f, bus, claim->client, state);
        doctor_say(f->why, "%s between claim and commit of a message (slot %" PRIu32 ")", state,
                   claim->slot);
    }
}

/* Why a group holds its partition back, and what to do. */
static void explain_group(struct finding *f, const struct inspect_bus *bus,
                          const struct inspect_partition *p, const struct inspect_gate *gate,
                          uint64_t lowest, bool hold)
{
    char state[200];

    if (hold) {
        name_client(f, bus, gate->hold_client, state);
        doctor_say(f->why, "group %s still looks at offset %" PRIu64 ": %s", gate->name, lowest,
                   state);
    } else if (gate->owner != CLIENT_NONE) {
        name_client(f, bus, gate->owner, state);
        doctor_say(f->why, "group %s has not committed beyond offset %" PRIu64 ": its reader, %s",
                   gate->name, lowest, state);
    } else {
        doctor_say(f->why, "group %s has not committed beyond offset %" PRIu64 " and has no reader",
                   gate->name, lowest);
        doctor_say(f->remedy, "start its consumer, or give it up: shmq group delete %s %s", p->name,
                   gate->name);
    }
}

/* Returns the index of the gate that was named, UINT32_MAX for none. */
static uint32_t check_room(struct doctor *doctor, const struct inspect_bus *old_bus,
                           const struct inspect_bus *bus, const struct inspect_partition *before,
                           const struct inspect_partition *p)
{
    char text[UNITS_TEXT_BYTES];
    struct finding *f;
    uint32_t gate;
    uint32_t old_gate;
    bool hold;
    uint64_t lowest = inspect_find_lowest(bus, p, &gate, &hold);

    if (p->policy != OVERFLOW_BLOCK && p->policy != OVERFLOW_REJECT)
        return UINT32_MAX;
    if (gate == UINT32_MAX || p->tail - lowest < p->capacity - p->capacity / 16 ||
        p->tail - lowest > p->capacity)
        return UINT32_MAX;
    if (inspect_find_lowest(old_bus, before, &old_gate, &hold) != lowest || old_gate != gate)
        return UINT32_MAX; /* it moves: full, but at work */
    f = doctor_add(doctor, "full", "%s/%" PRIu32, p->name, p->partition);
    doctor_say(f->what, "the ring of %s is full and producers %s",
               units_format_size(p->capacity, text),
               p->policy == OVERFLOW_BLOCK ? "wait" : "are refused");
    explain_group(f, bus, p, &p->gates[gate], lowest, hold);
    return gate;
}

/* A group without members that has something to read. */
static void check_groups(struct doctor *doctor, const struct inspect_partition *p, uint32_t told)
{
    char text[UNITS_TEXT_BYTES];

    for (uint32_t i = 0; i < p->gate_count; i++) {
        const struct inspect_gate *gate = &p->gates[i];
        struct finding *f;

        if (i == told || gate->state != GATE_OPEN || !gate->readable || gate->members > 0 ||
            gate->cursor >= p->tail || p->tail - gate->cursor > p->capacity ||
            p->policy > OVERFLOW_REJECT)
            continue;
        f = doctor_add(doctor, "group", "%s/%" PRIu32, p->name, p->partition);
        doctor_say(f->what, "%s is kept for group %s, and nobody reads it",
                   units_show_size(p->tail - gate->cursor, text), gate->name);
        doctor_say(f->why, "the group has no members; when its linger time is over it stops "
                           "holding producers back and may lose messages");
        doctor_say(f->remedy, "start its consumer, or give it up: shmq group delete %s %s", p->name,
                   gate->name);
    }
}

static void check_recovery(struct doctor *doctor, const struct inspect_bus *bus,
                           const struct inspect_partition *before,
                           const struct inspect_partition *p)
{
    struct finding *f;
    char state[200];

    if (!p->recovery_held || !before->recovery_held)
        return;
    f = doctor_add(doctor, "recovery", "%s/%" PRIu32, p->name, p->partition);
    doctor_say(f->what, "nobody can clear away a dead producer's message");
    for (uint32_t i = 0; i < bus->client_count; i++) {
        if (!inspect_holds_lock(bus->clients[i].pid, p->producers_inode,
                                (uint64_t)PRODUCERS_RECOVERY_BYTE))
            continue;
        name_client(f, bus, bus->clients[i].id, state);
        doctor_say(f->why, "%s and has the partition's recovery lock", state);
        return;
    }
    if (bus->supervisor_alive && inspect_holds_lock(bus->supervisor_pid, p->producers_inode,
                                                    (uint64_t)PRODUCERS_RECOVERY_BYTE)) {
        f->pid = bus->supervisor_pid;
        doctor_say(f->why, "the supervisor (pid %" PRIu32 ") has the partition's recovery lock",
                   bus->supervisor_pid);
        doctor_say(f->remedy, "if it is stopped, continue it: kill -CONT %" PRIu32,
                   bus->supervisor_pid);
        return;
    }
    f->pid = inspect_find_lock_owner(p->producers_inode, (uint64_t)PRODUCERS_RECOVERY_BYTE);
    if (f->pid != 0) {
        struct inspect_process process;

        inspect_process(f->pid, 0, &process);
        memcpy(f->command, process.command, sizeof(f->command));
        doctor_say(f->why,
                   "pid %" PRIu32 " (%s, state %c), which is no client, has the recovery lock",
                   f->pid, f->command, process.state);
        doctor_say(f->remedy, "see what it does; end it: kill %" PRIu32, f->pid);
        return;
    }
    doctor_say(f->why, "somebody whose descriptors this user may not see has the recovery lock");
    doctor_say(f->remedy, "run shmq doctor as root");
}

static void check_partition(struct doctor *doctor, const struct inspect_bus *old_bus,
                            const struct inspect_bus *bus, const struct inspect_partition *before,
                            const struct inspect_partition *p)
{
    struct finding *f;

    if (p->damage || p->status == PARTITION_QUARANTINED) {
        f = doctor_add(doctor, "quarantined", "%s/%" PRIu32, p->name, p->partition);
        doctor_say(f->what, "%s",
                   p->damage ? "its memory is damaged"
                             : "it is quarantined: nobody reads or writes it");
        doctor_say(f->why, "%s",
                   p->damage ? p->damage
                             : "somebody who may write it scribbled on it or "
                               "truncated it; the supervisor's log says when");
        doctor_say(f->remedy, "save what you need, then: shmq topic delete %s, and create it anew",
                   p->name);
        return;
    }
    if (p->status != PARTITION_OPEN)
        return;
    check_claims(doctor, bus, before, p);
    check_groups(doctor, p, check_room(doctor, old_bus, bus, before, p));
    check_recovery(doctor, bus, before, p);
    doctor_check_journal(doctor, bus, before, p);
}

/* ---- All -------------------------------------------------------------------------------------- */

static void check_stopped(struct doctor *doctor, const struct inspect_bus *bus)
{
    for (uint32_t i = 0; i < bus->client_count; i++) {
        const struct inspect_client *client = &bus->clients[i];
        struct inspect_process process;
        struct finding *f;
        char state[200];

        if (!client->alive)
            continue;
        inspect_process(client->pid, client->start_time, &process);
        if (!process.exists || (process.state != 'T' && process.state != 't'))
            continue;
        f = doctor_add(doctor, "stopped", "client %" PRIu64, client->id);
        name_client(f, bus, client->id, state);
        doctor_say(f->what, "partitions that it reads are not read, and what it holds stays");
        doctor_say(f->why, "%s", state);
    }
}

void doctor_check_memory(struct doctor *doctor, const struct inspect_bus *before,
                         const struct inspect_bus *now)
{
    for (uint32_t i = 0; i < now->partition_count; i++) {
        const struct inspect_partition *p = &now->partitions[i];

        for (uint32_t k = 0; k < before->partition_count; k++) {
            if (before->partitions[k].topic == p->topic &&
                before->partitions[k].partition == p->partition)
                check_partition(doctor, before, now, &before->partitions[k], p);
        }
    }
    check_stopped(doctor, now);
}
