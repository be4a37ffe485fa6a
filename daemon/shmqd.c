/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmqd.c: the embedded supervisor (shmqd.h): a supervisor on a thread of its own.
 *
 * The thread has all signals blocked but SIGBUS, which the guard needs; it opens, runs and closes
 * the supervisor, so that all of it belongs to one thread. Start waits for the outcome of the
 * opening. No globals but those of the log and the guard, which count their users, and the list of
 * the supervisors of this process: a forked child closes their descriptors at once. Its copies of
 * the locks would outlive the parent, and its copy of the socket would pretend that somebody
 * listens.
 */
#include "daemon/shmqd.h"

#include "daemon/log.h"
#include "daemon/supervisor.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

struct shmq_supervisor {
    struct shmq_supervisor *next; /* in `running` */
    struct supervisor supervisor;
    struct config config;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    bool outcome_known;
    bool ended; /* the loop has run; under `mutex` */
    int outcome;
    struct error_buffer why;
    void (*log)(int level, const char *line, void *context);
    void *log_context;
};

static pthread_mutex_t running_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct shmq_supervisor *running;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
    (void)pthread_mutex_lock(&running_mutex);
}

static void after_fork(void)
{
    (void)pthread_mutex_unlock(&running_mutex);
}

/* Only close(2): the control thread may have been anywhere. */
static void in_child(void)
{
    for (struct shmq_supervisor *embedded = running; embedded; embedded = embedded->next)
        supervisor_disown(&embedded->supervisor);
    running = NULL;
    (void)pthread_mutex_unlock(&running_mutex);
}

static void register_fork(void)
{
    (void)pthread_atfork(before_fork, after_fork, in_child);
}

static void enlist(struct shmq_supervisor *embedded)
{
    (void)pthread_once(&fork_once, register_fork);
    (void)pthread_mutex_lock(&running_mutex);
    embedded->next = running;
    running = embedded;
    (void)pthread_mutex_unlock(&running_mutex);
}

static void delist(struct shmq_supervisor *embedded)
{
    struct shmq_supervisor **at = &running;

    (void)pthread_mutex_lock(&running_mutex);
    while (*at && *at != embedded)
        at = &(*at)->next;
    if (*at)
        *at = embedded->next;
    (void)pthread_mutex_unlock(&running_mutex);
}

static void pass_line(void *context, enum log_level level, const char *line)
{
    static const int SYSLOG[] = {[LOG_LEVEL_ERROR] = 3,
                                 [LOG_LEVEL_WARNING] = 4,
                                 [LOG_LEVEL_INFO] = 6,
                                 [LOG_LEVEL_DEBUG] = 7};
    const struct shmq_supervisor *embedded = context;

    embedded->log(SYSLOG[level], line, embedded->log_context);
}

static void tell_outcome(struct shmq_supervisor *embedded, int outcome)
{
    (void)pthread_mutex_lock(&embedded->mutex);
    embedded->outcome = outcome;
    embedded->outcome_known = true;
    (void)pthread_cond_signal(&embedded->opened);
    (void)pthread_mutex_unlock(&embedded->mutex);
}

static void *control_thread(void *context)
{
    struct shmq_supervisor *embedded = context;
    struct error_buffer why;
    int rc;

    (void)pthread_setname_np(pthread_self(), "shmqd");
    rc = supervisor_open(&embedded->supervisor, &embedded->config, -1, -1, &embedded->why);
    tell_outcome(embedded, rc);
    if (rc < 0)
        return NULL;
    if (supervisor_run(&embedded->supervisor, &why) < 0)
        log_error("bus %s: %s; the supervisor stops", embedded->supervisor.realm.paths.bus,
                  why.text);
    /* Who stops it may still be about to write to its eventfd, which is closed next. */
    (void)pthread_mutex_lock(&embedded->mutex);
    embedded->ended = true;
    (void)pthread_mutex_unlock(&embedded->mutex);
    supervisor_close(&embedded->supervisor);
    return NULL;
}

static int set_text(struct config *config, const char *name, const char *value,
                    struct error_buffer *why)
{
    return value ? config_set(config, name, value, why) : 0;
}

/* Options that an older program does not know, or that we do not know, are as if zero. */
static int take_options(struct shmq_supervisor *embedded,
                        const struct shmq_supervisor_options *given, struct error_buffer *why)
{
    struct shmq_supervisor_options options = SHMQ_SUPERVISOR_OPTIONS_INIT;
    struct config *config = &embedded->config;
    int rc = 0;

    if (given && given->size < offsetof(struct shmq_supervisor_options, bus))
        return error_set(why, SHMQ_EINVAL,
                         "shmq_supervisor_start: options.size is %u; start from "
                         "SHMQ_SUPERVISOR_OPTIONS_INIT",
                         given->size);
    for (size_t i = sizeof(options); given && i < given->size; i++) {
        if (((const unsigned char *)given)[i] != 0)
            return error_set(why, SHMQ_EINVAL,
                             "shmq_supervisor_start: an option is set that shmqd %s does not know; "
                             "bring the program and libshmqd to the same version",
                             SHMQ_VERSION_TEXT);
    }
    if (given)
        memcpy(&options, given, min_size(given->size, sizeof(options)));
    config_init(config);
    if (options.config)
        rc = config_read_file(config, options.config, why);
    if (rc == 0)
        rc = set_text(config, "bus.name", options.bus, why);
    if (rc == 0)
        rc = set_text(config, "bus.runtime_dir", options.runtime_dir, why);
    if (rc == 0)
        rc = set_text(config, "bus.state_dir", options.state_dir, why);
    config->ephemeral = !options.persistent;
    config->standby = false;
    embedded->log = options.log;
    embedded->log_context = options.log_context;
    return rc < 0 ? rc : config_check(config, why);
}

static int start_thread(struct shmq_supervisor *embedded)
{
    sigset_t all, before;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&embedded->thread, NULL, control_thread, embedded);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return error_set_errno(&embedded->why, rc, "shmq_supervisor_start: no thread");
    (void)pthread_mutex_lock(&embedded->mutex);
    while (!embedded->outcome_known)
        (void)pthread_cond_wait(&embedded->opened, &embedded->mutex);
    (void)pthread_mutex_unlock(&embedded->mutex);
    if (embedded->outcome < 0)
        (void)pthread_join(embedded->thread, NULL);
    return embedded->outcome;
}

static void free_embedded(struct shmq_supervisor *embedded)
{
    if (embedded->log)
        log_set_sink(NULL, NULL);
    (void)pthread_cond_destroy(&embedded->opened);
    (void)pthread_mutex_destroy(&embedded->mutex);
    free(embedded);
}

static void copy_error(const struct error_buffer *why, char *ret_error, uint32_t error_size)
{
    if (ret_error && error_size > 0)
        (void)snprintf(ret_error, error_size, "%s", why->text);
}

SHMQD_API int shmq_supervisor_start(const struct shmq_supervisor_options *options,
                                    shmq_supervisor **ret_supervisor, char *ret_error,
                                    uint32_t error_size)
{
    struct shmq_supervisor *embedded;
    struct error_buffer why = {.text = ""};
    int rc;

    if (!ret_supervisor) {
        rc = error_set(&why, SHMQ_EINVAL, "shmq_supervisor_start: ret_supervisor is NULL");
        copy_error(&why, ret_error, error_size);
        return rc;
    }
    *ret_supervisor = NULL;
    embedded = calloc(1, sizeof(*embedded));
    if (!embedded) {
        rc = error_set(&why, SHMQ_ENOMEM, "shmq_supervisor_start: out of memory");
        copy_error(&why, ret_error, error_size);
        return rc;
    }
    (void)pthread_mutex_init(&embedded->mutex, NULL);
    (void)pthread_cond_init(&embedded->opened, NULL);
    rc = take_options(embedded, options, &embedded->why);
    if (rc == 0) {
        log_set_level((enum log_level)embedded->config.log_level);
        if (embedded->log)
            log_set_sink(pass_line, embedded);
        rc = start_thread(embedded);
    }
    if (rc < 0) {
        copy_error(&embedded->why, ret_error, error_size);
        free_embedded(embedded);
        return rc;
    }
    enlist(embedded);
    *ret_supervisor = embedded;
    return 0;
}

SHMQD_API void shmq_supervisor_stop(shmq_supervisor *supervisor)
{
    if (!supervisor)
        return;
    delist(supervisor);
    (void)pthread_mutex_lock(&supervisor->mutex);
    if (!supervisor->ended)
        supervisor_stop(&supervisor->supervisor);
    (void)pthread_mutex_unlock(&supervisor->mutex);
    (void)pthread_join(supervisor->thread, NULL);
    free_embedded(supervisor);
}
