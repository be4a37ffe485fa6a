/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h: everything that a client may ask of the supervisor, in one scripted run through shmq.h, in a process of
 * its own, while the supervisor dies under it.
 *
 * A patient session gives each call ten seconds: the library finds the successor by itself, and every call succeeds.
 * An impatient one gives it a moment; what was under way when the supervisor died is then not known: it must be there
 * wholly or not at all, and doing it again must lead to where it ought to be.
 */
#ifndef SHMQ_TEST_SUPPORT_SESSION_H
#define SHMQ_TEST_SUPPORT_SESSION_H

#include <stdatomic.h>
#include <stdint.h>

struct session_shared { /* in test_shared() memory */
    uint32_t impatient;
    _Atomic uint32_t given_up; /* calls that ended without an answer */
    _Atomic uint32_t done;     /* the script is through */
};

/* For test_spawn(). Makes the topics "a" and "b" and deletes them; leaves nothing. */
void session_run(void *shared);

#endif
