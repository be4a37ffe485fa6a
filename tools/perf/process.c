/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.c: signals and CPUs of shmq-perf's processes; see team.h.
 *
 * The caller holds SIGINT, SIGTERM and SIGCHLD back and reads them from a descriptor, so that nothing is
 * interrupted half way. Its children have them as usual, but for those that reach the whole terminal
 * (^C, ^\, its end): they end with the caller. One thread; nothing blocks.
 */
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>

#include "tools/perf/team_internal.h"

#define FD_NONE (-1)

static int signal_fd = FD_NONE;

static void held_signals(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGCHLD);
}

void perf_hold_signals(void)
{
    sigset_t set;

    if (signal_fd != FD_NONE)
        return;
    held_signals(&set);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void perf_release_signals(void)
{
    sigset_t set;

    if (signal_fd == FD_NONE)
        return;
    (void)close(signal_fd);
    signal_fd = FD_NONE;
    held_signals(&set);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int perf_signal_fd(void)
{
    return signal_fd;
}

static int interrupted_by;

static void read_signals(void)
{
    struct signalfd_siginfo info;

    while (signal_fd != FD_NONE && read(signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo != SIGCHLD)
            interrupted_by = (int)info.ssi_signo;
    }
}

bool perf_is_interrupted(void)
{
    read_signals();
    return interrupted_by != 0;
}

int perf_interrupted(void)
{
    int signal_number;

    read_signals();
    signal_number = interrupted_by;
    interrupted_by = 0;
    return signal_number;
}

void perf_begin_child(int parent_pid, int death_signal)
{
    sigset_t set;

    (void)prctl(PR_SET_PDEATHSIG, (unsigned long)death_signal, 0, 0, 0);
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGQUIT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    held_signals(&set);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    if (signal_fd != FD_NONE)
        (void)close(signal_fd);
    signal_fd = FD_NONE;
    if (getppid() != parent_pid) /* it died before the kernel knew */
        _exit(1);
}

uint32_t perf_cpus_available(int *cpus, uint32_t max)
{
    cpu_set_t set;
    uint32_t count = 0;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && count < max; cpu++) {
        if (CPU_ISSET((size_t)cpu, &set))
            cpus[count++] = cpu;
    }
    return count;
}
