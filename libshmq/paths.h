/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things are: the bus name, the runtime directory with the socket, the state directory with
 * metadata and journals, and the names of shared-memory segments.
 *
 *     RUNTIME/BUS/shmqd.sock       the control socket
 *     STATE/BUS/lock               who owns the journals below (daemon/store.h)
 *     STATE/BUS/meta/              the metadata journal
 *     /dev/shm/shmq.BUS.HASH...    segments; HASH tells buses of one name and several users apart
 *
 * Resolving is pure: it works on struct paths_environment, which the program fills once from its
 * environment, and touches no file. What does touch the file system says so. Any thread; nothing
 * blocks but the file system. Used by shmqd, by clients (which try several buses) and by the tools.
 */
#ifndef SHMQ_PATHS_H
#define SHMQ_PATHS_H

#include "libshmq/error.h"
#include "libshmq/topic_options.h"

#include <stdbool.h>
#include <sys/types.h>

#define PATHS_DIR_BYTES      1024 /* longest directory, its NUL included */
#define PATHS_SOCKET_BYTES   108  /* sizeof(sockaddr_un.sun_path), checked in paths.c */
#define PATHS_PREFIX_BYTES   192  /* leaves 64 of NAME_MAX for the suffix of a segment's name */
#define PATHS_BUS_DEFAULT    "default"
#define PATHS_RUNTIME_SYSTEM "/run/shmq"
#define PATHS_STATE_SYSTEM   "/var/lib/shmq"
#define PATHS_SOCKET_NAME    "shmqd.sock"

/* Strings are borrowed; NULL or "" means not set. */
struct paths_environment {
    uid_t uid;
    const char *bus;             /* $SHMQ_BUS */
    const char *runtime_dir;     /* $SHMQ_RUNTIME_DIR */
    const char *state_dir;       /* $SHMQ_STATE_DIR */
    const char *xdg_runtime_dir; /* $XDG_RUNTIME_DIR */
    const char *xdg_state_home;  /* $XDG_STATE_HOME */
    const char *home;            /* $HOME */
};

/* What a user gave; NULL or "" means nothing. Wins over the environment. */
struct paths_options {
    const char *bus;
    const char *runtime_dir;
    const char *state_dir;
};

/* From the process's environment (none of it in a set-uid program) and effective user. */
void paths_environment_load(struct paths_environment *ret_environment);

/* The bus name by option, $SHMQ_BUS, "default". 0, or SHMQ_EINVAL for a bad name. */
int paths_resolve_bus(const char *option, const struct paths_environment *environment,
                      char ret_bus[NAME_BYTES], struct error_buffer *why);

/* ---- Clients: where to look for a bus --------------------------------------------------------- */

struct paths_candidate {
    char runtime_dir[PATHS_DIR_BYTES];
    char socket[PATHS_SOCKET_BYTES];
    bool fallback; /* lies in /tmp: paths_check_fallback() before it is trusted */
};

struct paths_candidates {
    char bus[NAME_BYTES];
    struct paths_candidate list[2];
    unsigned count;
};

/* The sockets to try, in order: the user's own bus, then the system's; only one if the runtime
 * directory was given, by option or environment. options->state_dir is ignored. 0, or SHMQ_EINVAL
 * for a bad bus name or a path too long for a socket. */
int paths_find_sockets(const struct paths_options *options,
                       const struct paths_environment *environment,
                       struct paths_candidates *ret_candidates, struct error_buffer *why);

/* Reads the file system. A directory in the world-writable /tmp may be somebody's trap: it must be
 * a real directory, of this user, closed to others. 0; 1 if it does not exist; SHMQ_EPERM if it is
 * hostile, with the reason. */
int paths_check_fallback(const char *directory, uid_t uid, struct error_buffer *why);

/* ---- Supervisor: what it creates -------------------------------------------------------------- */

struct paths {
    char bus[NAME_BYTES];
    char runtime_dir[PATHS_DIR_BYTES];     /* absolute */
    char runtime_bus_dir[PATHS_DIR_BYTES]; /* RUNTIME/BUS */
    char socket[PATHS_SOCKET_BYTES];
    char state_dir[PATHS_DIR_BYTES];     /* "" if ephemeral, and so are the next two */
    char state_bus_dir[PATHS_DIR_BYTES]; /* STATE/BUS: holds the lock */
    char meta_dir[PATHS_DIR_BYTES];      /* STATE/BUS/meta */
    bool fallback;                       /* runtime_dir lies in /tmp */
};

/* Relative directories are taken from the working directory (the one thing that is looked up). 0, or
 * SHMQ_EINVAL: bad bus name, path too long, neither $HOME nor $XDG_STATE_HOME for the state. */
int paths_resolve(const struct paths_options *options, const struct paths_environment *environment,
                  bool ephemeral, struct paths *ret_paths, struct error_buffer *why);

/* Creates the runtime folders if they are missing: the fallback 0700 and checked as above; others
 * 0755 for root or where `shared` (the socket's mode lets others connect), else 0700. Folders that
 * exist keep their mode, but RUNTIME/BUS must be a directory of this user's that others cannot
 * write. Parents are made as needed. 0, SHMQ_EPERM, or the error of mkdir. */
int paths_create_runtime(const struct paths *paths, bool shared, struct error_buffer *why);

/* Creates STATE/BUS and STATE/BUS/meta, 0700: what is in them are messages. Nothing if ephemeral. */
int paths_create_state(const struct paths *paths, struct error_buffer *why);

/* The directory with links, dots and double slashes resolved, as far as it exists; the rest as text.
 * So one directory has one name also after it was removed. 0 or a negative error. */
int paths_canonicalize(const char *directory, char ret_directory[PATHS_DIR_BYTES],
                       struct error_buffer *why);

/* "/shmq.BUS.HASH" for shm_open(): HASH is 16 hex digits of uid, canonical runtime directory and bus.
 * A long bus name is cut (HASH covers it all). Reads the file system to canonicalize. */
int paths_segment_prefix(uid_t uid, const char *runtime_dir, const char *bus,
                         char ret_prefix[PATHS_PREFIX_BYTES], struct error_buffer *why);

#endif
