/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault points; see fault.h. Only in test builds: a release has nothing of this file.
 *
 * One plan per process, set up once from the environment (or by fault_arm before threads start) and
 * read-only afterwards, apart from the count of passes. fork() copies it, count included.
 */
#include "libshmq/fault.h"

#ifdef SHMQ_FAULTS

#include "libshmq/base.h"
#include "libshmq/shmq_errors.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum fault_action { FAULT_KILL, FAULT_STOP, FAULT_ERROR };

struct fault_plan {
    char name[128]; /* "" strikes nothing */
    char log_path[256];
    uint64_t nth;
    bool repeated;
    enum fault_action action;
};

static struct fault_plan plan;
static _Atomic uint64_t passes; /* of plan.name; relaxed: a count that orders nothing */
static pthread_once_t plan_once = PTHREAD_ONCE_INIT;

static int parse_action(const char *text, enum fault_action *ret_action)
{
    if (!text || !*text || strcmp(text, "kill") == 0)
        *ret_action = FAULT_KILL;
    else if (strcmp(text, "stop") == 0)
        *ret_action = FAULT_STOP;
    else if (strcmp(text, "error") == 0)
        *ret_action = FAULT_ERROR;
    else
        return SHMQ_EINVAL;
    return 0;
}

/* NAME[:NTH][+] */
static int parse_spec(const char *spec, struct fault_plan *ret_plan)
{
    const char *colon = strchr(spec, ':');
    size_t spec_length = strlen(spec);
    size_t name_length;

    ret_plan->repeated = spec_length > 0 && spec[spec_length - 1] == '+';
    ret_plan->nth = 1;
    name_length = colon ? (size_t)(colon - spec) : spec_length - ret_plan->repeated;
    if (colon) {
        char *end;

        ret_plan->nth = strtoull(colon + 1, &end, 10);
        if (end == colon + 1 || ret_plan->nth == 0 ||
            strcmp(end, ret_plan->repeated ? "+" : "") != 0)
            return SHMQ_EINVAL;
    }
    if (name_length >= sizeof(ret_plan->name))
        return SHMQ_EINVAL;
    memcpy(ret_plan->name, spec, name_length);
    ret_plan->name[name_length] = '\0';
    return 0;
}

static int make_plan(const char *spec, const char *action, const char *log_path)
{
    struct fault_plan made = {.nth = 1};
    int rc = parse_action(action, &made.action);

    if (rc == 0 && spec)
        rc = parse_spec(spec, &made);
    if (rc == 0 && log_path && strlen(log_path) >= sizeof(made.log_path))
        rc = SHMQ_EINVAL;
    if (rc < 0)
        return rc;
    if (log_path)
        memcpy(made.log_path, log_path, strlen(log_path) + 1);
    plan = made;
    atomic_store_explicit(&passes, 0, memory_order_relaxed);
    return 0;
}

/* A test whose fault never strikes would pass for the wrong reason: a bad plan ends the process. */
static void read_environment(void)
{
    if (make_plan(getenv("SHMQ_FAULT"), getenv("SHMQ_FAULT_ACTION"), getenv("SHMQ_FAULT_LOG")) <
        0) {
        (void)fprintf(stderr,
                      "shmq: SHMQ_FAULT: not NAME[:NTH][+] with action kill, stop or error; "
                      "mend the environment\n");
        abort();
    }
}

static void nothing_to_read(void)
{
}

int fault_arm(const char *spec, const char *action, const char *log_path)
{
    (void)pthread_once(&plan_once, nothing_to_read);
    return make_plan(spec, action, log_path);
}

void fault_disarm(void)
{
    (void)fault_arm(NULL, NULL, NULL);
}

/* Opened for each line, so that no descriptor stays behind for a leak check to find, and written at
 * once, so that lines of several processes do not mix. */
static void log_pass(const char *name)
{
    char line[sizeof(plan.name) + 2];
    int length = snprintf(line, sizeof(line), "%.*s\n", (int)sizeof(plan.name), name);
    int fd = open(plan.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (fd < 0)
        return;
    if (write(fd, line, (size_t)length) != length)
        (void)fprintf(stderr, "shmq: %s: a line of the fault log was lost\n", plan.log_path);
    (void)close(fd);
}

static int strike(void)
{
    if (plan.action == FAULT_ERROR)
        return 1;
    (void)kill(getpid(), plan.action == FAULT_KILL ? SIGKILL : SIGSTOP);
    return 0;
}

int fault_pass(const char *name)
{
    uint64_t pass;

    (void)pthread_once(&plan_once, read_environment);
    if (plan.log_path[0])
        log_pass(name);
    if (!plan.name[0] || strcmp(plan.name, name) != 0)
        return 0;
    pass = atomic_fetch_add_explicit(&passes, 1, memory_order_relaxed) + 1;
    if (pass == plan.nth || (plan.repeated && pass > plan.nth))
        return strike();
    return 0;
}

#endif
