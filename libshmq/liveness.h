/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liveness.h: who is dead. A kernel fact, never a timeout (design §2.4).
 *
 * shmqd opens B read-only once per client, takes F_OFD F_RDLCK on byte [client id] of that
 * description, sends it and closes its copy: the kernel drops the lock when the client's last
 * descriptor of it goes, and not before; while the message is in flight the lock is held by it. A
 * tester asks F_OFD_GETLK through its own description of B. Ids are never reused within a boot.
 *
 * Three consequences for callers:
 *  - A description does not conflict with itself. One's own id, asked through one's own
 * description, would look dead: compare first, one's own id counts as alive.
 *  - A forked child shares the description: the id lives on in it after its parent's death until
 * it closes its copy (the atfork handler does) or executes a program (CLOEXEC).
 *  - Recovery bytes exclude descriptions, not threads or processes: P is opened anew for each
 *    client, never sent twice, and threads that share one description need a trylock of their own.
 *
 * For shmqd itself: a pidfd per peer says it at once. Any thread. Nothing here blocks, but that
 * liveness_process_is_gone() takes some milliseconds when it finds a core dump.
 */
#ifndef SHMQ_LIVENESS_H
#define SHMQ_LIVENESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Takes the lock on byte [client] of fd's open file description (F_RDLCK works on a read-only
 * descriptor). 0, SHMQ_EBUSY (another description holds a conflicting lock: it has the same id
 * exclusively), SHMQ_EINVAL (no such id), SHMQ_ESYS. */
int liveness_lock(int bus_fd, uint64_t client);

/* The supervisor's: an exclusive lock on byte [CLIENT_SHMQD]; bus_fd is read-write. SHMQ_EBUSY if
 * one lives. */
int liveness_lock_exclusive(int bus_fd, uint64_t client);

/* True only if the kernel says that no other description holds byte [client]; so for CLIENT_NONE.
 * Errors count as alive. System call, never blocks. */
bool liveness_is_dead(int bus_fd, uint64_t client);

/* The recovery byte of a partition (PRODUCERS_RECOVERY_BYTE of P, read-write): try, never wait.
 * SHMQ_EBUSY if another description has it; one that has it already gets it again. Released by
 * liveness_unlock_recovery() or with the description. */
int liveness_trylock_recovery(int producers_fd);
void liveness_unlock_recovery(int producers_fd);

/* The pid of who holds a recovery byte is not known for OFD locks; doctor scans /proc/locks. */

/* pidfd of a socket's peer (SO_PEERPIDFD, else pidfd_open of SO_PEERCRED's pid). CLOEXEC.
 * SHMQ_ECLOSED if the peer has gone already, SHMQ_ELIMIT, SHMQ_ESYS. */
int liveness_peer_pidfd(int socket_fd, int *ret_pidfd);
int liveness_open_pidfd(pid_t pid, int *ret_pidfd);

/* True when the process of this pidfd has ended (readable), or /proc says that it is dumping core:
 * it runs no more instruction of its own. Then it stays true, though not every later call says
 * so: none of the two facts holds while the kernel frees its memory. `pid` is that process's; 0
 * if unknown. A process whose last thread has not ended is not gone. Errors count as alive. */
bool liveness_process_is_gone(int pidfd, pid_t pid);

/* (pid, start time) names a process of this boot. SHMQ_ECLOSED if there is none (or /proc hides
 * it). */
int liveness_start_time(pid_t pid, uint64_t *ret_start_time);

/* /proc/PID/comm, control bytes as '?'; "?" if unknown. NUL-terminated. */
void liveness_command(pid_t pid, char ret_command[16]);

#endif
