/* SPDX-License-Identifier: Apache-2.0 */
/* Journals that do not get on, from the bus's memory and from what the supervisor says. See doctor.h. */
#include <inttypes.h>

#include "libshmq/units.h"
#include "tools/disk_remedy.h"
#include "tools/doctor.h"

static const char *state_dir(const struct doctor *doctor)
{
    return doctor->connected ? doctor->info.state_dir : "the bus's state directory";
}

void doctor_report_journal(struct doctor *doctor, const char *topic, uint32_t partition,
                           uint32_t error)
{
    struct finding *f = doctor_add(doctor, "journal", "%s/%" PRIu32, topic, partition);
    char remedy[DISK_REMEDY_BYTES];

    doctor_say(f->what,
               "nothing more becomes durable, and once the ring is full nothing can be published");
    doctor_say(f->why, "its journal does not get on: %s", disk_error_text(error));
    doctor_say(f->remedy, "%.600s; it goes on by itself then",
               disk_remedy(error, state_dir(doctor), topic, remedy));
}

/* Full of what is not on disk, though the disk has refused nothing. */
static void report_full(struct doctor *doctor, const struct inspect_bus *bus,
                        const struct inspect_partition *p)
{
    struct finding *f = doctor_add(doctor, "full", "%s/%" PRIu32, p->name, p->partition);
    char command[PATHS_DIR_BYTES + 300];
    char text[UNITS_TEXT_BYTES];

    doctor_say(f->what, "the ring of %s is full, and nothing can be published",
               units_format_size(p->capacity, text));
    if (!bus->supervisor_alive) {
        doctor_say(f->why, "what is in it is not on disk yet, and no supervisor writes it there");
        doctor_say(f->remedy, "start one: %s", place_start_command(&doctor->place, command));
        return;
    }
    f->pid = bus->supervisor_pid;
    doctor_say(f->why,
               "what is in it is not on disk yet: the supervisor (pid %" PRIu32
               ") has written nothing from offset %" PRIu64 " on",
               bus->supervisor_pid, p->durable);
    doctor_say(f->remedy, "see whether the disk answers (iostat -x 1) and what its log says");
}

void doctor_check_journal(struct doctor *doctor, const struct inspect_bus *bus,
                          const struct inspect_partition *before, const struct inspect_partition *p)
{
    if (p->durable == UINT64_MAX)
        return;
    if (p->journal_error && before->journal_error)
        doctor_report_journal(doctor, p->name, p->partition, p->journal_error);
    else if (p->durable == before->durable && p->tail > p->durable && p->claim_count == 0 &&
             p->tail - p->durable >= p->capacity - p->capacity / 16)
        report_full(doctor, bus, p);
}
