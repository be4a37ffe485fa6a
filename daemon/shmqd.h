/* SPDX-License-Identifier: Apache-2.0 */
/**
 * shmqd.h: the supervisor inside a program of your own (embedded devices, tests). Link with
 * -lshmqd.
 *
 * libshmqd has its own copy of the internals: a program may link libshmq beside it and connect to
 * its own bus.
 *
 * Each client costs the program two descriptors. The soft limit of open files (RLIMIT_NOFILE) is
 * left as it is: who expects many clients raises it before the start.
 */
#ifndef SHMQD_H
#define SHMQD_H

#include <stdint.h>

#include "shmq_errors.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHMQD_API __attribute__((visibility("default")))
#else
#define SHMQD_API
#endif

typedef struct shmq_supervisor shmq_supervisor;

struct shmq_supervisor_options {
    uint32_t size;
    uint32_t
        persistent; /**< 0: ephemeral: all memory is unlinked at stop and nothing is kept on disk */
    const char *bus;         /**< NULL: $SHMQ_BUS, else "default" */
    const char *runtime_dir; /**< NULL: as shmqd */
    const char *state_dir;   /**< NULL: as shmqd; only with persistent */
    const char *config;      /**< a configuration file; NULL: none */
    /** Takes log lines (level 3 error, 4 warning, 6 info, 7 debug); NULL: stderr. Called from the
     * supervisor's threads; must not block or call shmq_supervisor_*. */
    void (*log)(int level, const char *line, void *context);
    void *log_context;
    uint64_t reserved[6];
};
#define SHMQ_SUPERVISOR_OPTIONS_INIT \
    { \
        sizeof(struct shmq_supervisor_options), 0, NULL, NULL, NULL, NULL, NULL, NULL, \
        { \
            0, 0, 0, 0, 0, 0 \
        } \
    }

/** Starts the supervisor's threads; when it returns 0, clients can connect. Any thread; one
 * supervisor a bus, several a process. Blocks for as long as recovery takes. Options are copied;
 * NULL for defaults.
 * @param ret_error  room for the sentence of a failure, `error_size` bytes; may be NULL.
 * @return 0; SHMQ_EBUSY (another supervisor lives on this bus or state directory; the sentence
 * names its pid); SHMQ_EPERM, SHMQ_ENOSPC, SHMQ_ECORRUPT (metadata damaged: the sentence has file
 * and offset), SHMQ_EVERSION, SHMQ_EINVAL, SHMQ_ENOMEM, SHMQ_ESYS. */
SHMQD_API int shmq_supervisor_start(const struct shmq_supervisor_options *options,
                                    shmq_supervisor **ret_supervisor, char *ret_error,
                                    uint32_t error_size);

/** Stops it: clients are told, threads end, and, if ephemeral, all memory is unlinked. NULL is
 * fine. */
SHMQD_API void shmq_supervisor_stop(shmq_supervisor *supervisor);

#ifdef __cplusplus
}
#endif
#endif
