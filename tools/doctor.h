/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.h: findings, and the checks that make them. One thread; see doctor.c. */
#ifndef SHMQ_TOOLS_DOCTOR_H
#define SHMQ_TOOLS_DOCTOR_H

#include "tools/cli.h"
#include "tools/inspect.h"
#include "tools/place.h"

/* "<where>: <what>: <why>; <remedy>" */
struct finding {
    const char *kind; /* fixed words, for scripts: see shmq(1) */
    char where[NAME_BYTES + 16];
    char what[256];
    char why[512];
    char remedy[PATHS_DIR_BYTES + 700];
    uint64_t client; /* who; 0: nobody, or not known */
    uint32_t pid;
    char command[16];
};

struct doctor {
    struct cli *cli;
    struct place place;
    struct place_memory memory;
    bool has_memory;
    bool connected;
    int connect_error;
    struct shmq_bus_info info; /* when connected */
    struct finding *findings;
    unsigned count;
};

/* A new finding with an empty who; valid until the next one. */
struct finding *doctor_add(struct doctor *doctor, const char *kind, const char *where_format, ...)
    PRINTF_LIKE(3, 4);
#define doctor_say(field, ...) ((void)snprintf((field), sizeof(field), __VA_ARGS__))

/* ---- doctor_memory.c: from the bus's memory, looked at twice ---- */
void doctor_check_memory(struct doctor *doctor, const struct inspect_bus *before,
                         const struct inspect_bus *now);

/* ---- doctor_journal.c ---- */
void doctor_check_journal(struct doctor *doctor, const struct inspect_bus *bus,
                          const struct inspect_partition *before,
                          const struct inspect_partition *p);
/* It does not get on for this errno. */
void doctor_report_journal(struct doctor *doctor, const char *topic, uint32_t partition,
                           uint32_t error);

/* ---- doctor_service.c: from what the supervisor says, or does not say ---- */
void doctor_check_supervisor(struct doctor *doctor, const struct inspect_bus *bus);
/* Partitions and groups, for users who may not read the memory. Waits between two looks. */
void doctor_check_service(struct doctor *doctor);
void doctor_check_clients(struct doctor *doctor);
void doctor_check_space(struct doctor *doctor);

/* The time between two looks: what has not moved meanwhile is stuck. */
#define DOCTOR_PAUSE_NS (300 * UINT64_C(1000000))

#endif
