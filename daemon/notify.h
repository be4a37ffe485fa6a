/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What systemd and its like are told, and the sockets they hand over: the sd_notify and LISTEN_FDS
 * protocols (sd_notify(3), sd_listen_fds(3)), which are a datagram and three environment variables
 * and not worth a library.
 *
 * For the program, not for an embedded supervisor: these variables are the process's. One thread, at
 * start and stop. Nothing waits: a manager that does not read is not told. If the process dies the
 * manager learns it as the parent.
 */
#ifndef SHMQ_DAEMON_NOTIFY_H
#define SHMQ_DAEMON_NOTIFY_H

#include "libshmq/error.h"

/* Sends "KEY=VALUE\n..." to $NOTIFY_SOCKET. 1 sent, 0 nobody asked to be told, or a negative error,
 * which is worth a log line and nothing more. */
int notify_send(const char *state, struct error_buffer *why);

int notify_ready(struct error_buffer *why);
int notify_stopping(struct error_buffer *why);

/* Before a configuration is read again, and notify_ready() behind it (Type=notify-reload). */
int notify_reloading(struct error_buffer *why);

/* One line for `systemctl status`; newlines become blanks. */
int notify_status(struct error_buffer *why, const char *format, ...) PRINTF_LIKE(2, 3);

/* The listening control socket of a socket unit. 1: there is one, *ret_fd, close-on-exec, now the
 * caller's. 0: none. SHMQ_EINVAL: not exactly one AF_UNIX SOCK_SEQPACKET socket that listens. In any
 * case the variables are gone from the environment afterwards, so that no child takes them for its
 * own. */
int notify_take_socket(int *ret_fd, struct error_buffer *why);

#endif
