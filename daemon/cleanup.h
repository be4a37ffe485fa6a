/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a client: its memberships are taken back and handed on, its producer slots resolved and
 * freed, all who may have waited for it woken, its entry in B freed.
 *
 * What cannot be done at once (somebody holds a recovery byte, or another's claim stands before its
 * own) is tried again, after 20 ms first and up to every 10 s then, until it is done. Every step may be the last of
 * this process: what S and G say is what the next supervisor cleans up.
 *
 * Exclusion: the control thread alone. Nothing blocks.
 */
#ifndef SHMQ_DAEMON_CLEANUP_H
#define SHMQ_DAEMON_CLEANUP_H

struct client;

/* The client is dead, or has said good-bye. Closes its connection; frees it now or as soon as may
 * be. */
void cleanup_client(struct client *client, const char *reason);

#endif
