/* SPDX-License-Identifier: Apache-2.0 */
/* What loop.c and loop_timer.c say to each other. */
#ifndef SHMQ_DAEMON_LOOP_INTERNAL_H
#define SHMQ_DAEMON_LOOP_INTERNAL_H

#include "daemon/loop.h"

/* Sets the timer descriptor to the earliest deadline, if that has changed. 0 or a negative error. */
int loop_timers_arm(struct loop *loop, struct error_buffer *why);

/* Calls the timers that were due when the round began. */
void loop_timers_run(struct loop *loop);

#endif
