/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmqd, the program: command line, signals, systemd, exit codes; the supervisor itself is in
 * supervisor.c.
 *
 * The main thread is the control thread. SIGTERM and SIGINT stop cleanly, SIGHUP re-reads what can
 * change. Exit: 0 done; 1 failed, the reason on stderr in one line `shmqd: what: why; what to do`;
 * 2 wrong usage; 4 not permitted.
 */
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/supervisor.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_PERMISSION = 4 };

struct program {
    struct supervisor supervisor;
    struct config config;
    struct loop_signals signals;
    int argc;
    char **argv;
};

static int report(int code, const struct error_buffer *why, int exit_code)
{
    (void)fprintf(stderr, "shmqd: %s\n", why->text);
    return code == SHMQ_EPERM ? EXIT_PERMISSION : exit_code;
}

static void reload(struct program *program)
{
    struct realm *realm = &program->supervisor.realm;
    struct error_buffer why;
    char ignored[256];

    (void)notify_reloading(&why);
    if (config_reload(program->argc, program->argv, &realm->config, ignored, sizeof(ignored),
                      &why) < 0) {
        log_error("configuration: %s; all stays as it was", why.text);
    } else {
        log_set_level((enum log_level)realm->config.log_level);
        if (ignored[0] != '\0')
            log_warning("configuration: %s: cannot change while shmqd runs; restart it", ignored);
        log_info("configuration: read again");
    }
    log_flush();
    (void)notify_ready(&why);
}

static void on_signal(const struct signalfd_siginfo *info, void *context)
{
    struct program *program = context;

    if (info->ssi_signo == SIGHUP) {
        reload(program);
        return;
    }
    log_info("signal %u from pid %u: stopping", info->ssi_signo, info->ssi_pid);
    supervisor_stop(&program->supervisor);
}

static void on_early_signal(int number)
{
    (void)number; /* only to end a wait */
}

static void fill_signals(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGHUP);
}

/* Blocked from here on; a wait of the start lets them in, the loop reads them later. */
static void prepare_signals(sigset_t *ret_before)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction wake = {.sa_handler = on_early_signal};
    sigset_t set;

    fill_signals(&set);
    (void)sigaction(SIGPIPE, &ignore, NULL);
    (void)sigaction(SIGTERM, &wake, NULL);
    (void)sigaction(SIGINT, &wake, NULL);
    (void)sigaction(SIGHUP, &wake, NULL);
    (void)sigprocmask(SIG_BLOCK, &set, ret_before);
}

/* The hard limit is what the administrator set for us. */
static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* A standby waits here, with nothing but the lock. 0; 1: told to stop meanwhile; or a negative
 * error. */
static int wait_for_lock(const struct config *config, const sigset_t *before, int *ret_lock_fd,
                         struct error_buffer *why)
{
    struct paths paths;
    int rc;

    if (!config->standby)
        return 0;
    if (config->ephemeral)
        return error_set(
            why, SHMQ_EINVAL,
            "--standby: an ephemeral bus leaves nothing to take over; leave out one of "
            "--standby and --ephemeral");
    rc = supervisor_find_paths(config, &paths, why);
    if (rc == 0)
        rc = paths_create_state(&paths, why);
    if (rc < 0)
        return rc;
    log_info("bus %s: stands by until the state directory %s is free", paths.bus,
             paths.state_bus_dir);
    (void)notify_status(why, "standing by");
    (void)notify_ready(why); /* as ready as a standby gets */
    return store_lock_wait(paths.state_bus_dir, before, ret_lock_fd, why);
}

static int run(struct program *program, int lock_fd, int listen_fd, struct error_buffer *why)
{
    struct supervisor *supervisor = &program->supervisor;
    sigset_t set;
    int rc = supervisor_open(supervisor, &program->config, lock_fd, listen_fd, why);

    if (rc < 0)
        return rc;
    fill_signals(&set);
    rc =
        loop_signals_add(&supervisor->realm.loop, &program->signals, &set, on_signal, program, why);
    if (rc == 0) {
        struct error_buffer ignored;

        (void)notify_status(&ignored, "running");
        if (notify_ready(&ignored) < 0)
            log_warning("%s", ignored.text);
        rc = supervisor_run(supervisor, why);
        (void)notify_stopping(&ignored);
        loop_signals_remove(&program->signals);
    }
    supervisor_close(supervisor);
    return rc;
}

int main(int argc, char **argv)
{
    struct program *program = calloc(1, sizeof(*program));
    struct error_buffer why = {.text = "out of memory"};
    sigset_t before;
    int lock_fd = -1, listen_fd = -1;
    int rc;

    if (!program)
        return report(SHMQ_ENOMEM, &why, EXIT_FAILED);
    program->argc = argc;
    program->argv = argv;
    config_init(&program->config);
    rc = config_load(argc, argv, &program->config, &why);
    if (rc == CONFIG_HELP || rc == CONFIG_VERSION) {
        if (rc == CONFIG_HELP)
            config_print_help(stdout);
        else
            config_print_version(stdout);
        free(program);
        return fflush(stdout) == 0 ? 0 : EXIT_FAILED;
    }
    if (rc < 0) {
        free(program);
        return report(rc, &why, rc == SHMQ_EINVAL ? EXIT_USAGE : EXIT_FAILED);
    }
    log_set_level((enum log_level)program->config.log_level);
    raise_descriptors();
    prepare_signals(&before);
    rc = notify_take_socket(&listen_fd, &why);
    if (rc >= 0)
        rc = wait_for_lock(&program->config, &before, &lock_fd, &why);
    if (rc == 1) { /* told to stop while it stood by */
        cleanup_close(&listen_fd);
        free(program);
        return 0;
    }
    if (rc == 0)
        rc = run(program, lock_fd, listen_fd, &why);
    else
        cleanup_close(&listen_fd);
    free(program);
    return rc < 0 ? report(rc, &why, EXIT_FAILED) : 0;
}
