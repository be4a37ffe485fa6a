/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket in the runtime directory: bound, closed to whom it is closed, listening.
 *
 * Nobody can connect between bind and listen: in between mode and group are set, without touching
 * the process's umask, which is not ours. If the process dies here a socket is left that nobody
 * answers on: the next one finds out by connecting, and removes it. Any thread; nothing waits.
 */
#ifndef SHMQ_DAEMON_LISTENER_H
#define SHMQ_DAEMON_LISTENER_H

#include "daemon/config.h"
#include "libshmq/error.h"
#include "libshmq/paths.h"

/* 0; SHMQ_EBUSY: a supervisor answers there; SHMQ_EINVAL: no such group; SHMQ_EPERM, … */
int listener_open(const struct paths *paths, const struct config *config, int *ret_fd,
                  struct error_buffer *why);

/* Whether somebody listens on that socket. A full backlog is somebody. */
bool listener_is_answered(const struct paths *paths);

/* Removes the socket's name, if it is still that of `fd`. */
void listener_unlink(const struct paths *paths, int fd);

#endif
