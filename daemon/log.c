/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log; see log.h. One lock for everything but the level: events are rare, and lines of several
 * threads keep their order. Nothing under the lock can wait, so nobody waits for it long; a process
 * that forks while a thread logs must not log in the child before exec.
 */
#include "daemon/log.h"

#include "libshmq/clock.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Relaxed everywhere: a filter, it orders nothing. */
static _Atomic int log_level = LOG_LEVEL_INFO;

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static log_sink_fn *log_sink; /* these three under the lock */
static void *log_sink_context;
static struct log_site *log_sites;
static uint64_t log_dropped; /* lines that stderr did not take; under the lock */

static const char *const LEVEL_NAMES[] = {"error", "warning", "info", "debug"};
static const char LEVEL_PRIORITIES[] = {'3', '4', '6', '7'}; /* of syslog(3) */

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

int log_is_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

const char *log_level_name(enum log_level level)
{
    return LEVEL_NAMES[level];
}

int log_level_parse(const char *name, enum log_level *ret_level)
{
    for (size_t i = 0; i < COUNT_OF(LEVEL_NAMES); i++) {
        if (strcmp(name, LEVEL_NAMES[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

void log_set_sink(log_sink_fn *sink, void *context)
{
    (void)pthread_mutex_lock(&log_lock);
    log_sink = sink;
    log_sink_context = context;
    (void)pthread_mutex_unlock(&log_lock);
}

/* $JOURNAL_STREAM names device and inode of the stream; it is inherited by children whose stderr has
 * been redirected, and then does not apply. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device;
    unsigned long long inode;
    struct stat status;
    char rest;

    return stream && sscanf(stream, "%llu:%llu%c", &device, &inode, &rest) == 2 &&
           fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

/* `line` ends in a newline. A pipe or socket without room would block the control thread, and with
 * it the whole bus: the line is dropped instead. */
static void write_stderr(const char *line, size_t length)
{
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
    ssize_t written;

    if (poll(&ready, 1, 0) == 0) {
        log_dropped++;
        return;
    }
    do
        written = write(STDERR_FILENO, line, length);
    while (written < 0 && errno == EINTR);
    if (written < 0)
        log_dropped++;
}

static size_t format_prefix(char *line, size_t line_bytes, enum log_level level)
{
    uint64_t now_ns;
    time_t seconds;
    struct tm utc;
    size_t length;

    if (stderr_is_journal())
        return (size_t)snprintf(line, line_bytes, "<%c>", LEVEL_PRIORITIES[level]);
    now_ns = clock_realtime_ns();
    seconds = (time_t)(now_ns / NS_PER_S);
    (void)gmtime_r(&seconds, &utc);
    length = strftime(line, line_bytes, "%Y-%m-%dT%H:%M:%S", &utc);
    return length + (size_t)snprintf(line + length, line_bytes - length, ".%03uZ %s ",
                                     (unsigned)(now_ns % NS_PER_S / NS_PER_MS), LEVEL_NAMES[level]);
}

/* Under the lock. */
static void emit(enum log_level level, const char *text)
{
    char line[LOG_LINE_BYTES + 64];
    size_t prefix;
    size_t length;

    if (log_sink) {
        log_sink(log_sink_context, level, text);
        return;
    }
    prefix = format_prefix(line, sizeof(line), level);
    length = min_size(strlen(text), sizeof(line) - prefix - 1);
    memcpy(line + prefix, text, length);
    line[prefix + length] = '\n';
    write_stderr(line, prefix + length + 1);
}

/* Under the lock. Once stderr takes lines again, it is told of those it missed. */
static void report_dropped(void)
{
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
    uint64_t dropped = log_dropped;
    char text[96];

    if (dropped == 0 || log_sink || poll(&ready, 1, 0) <= 0 || !(ready.revents & POLLOUT))
        return;
    log_dropped = 0;
    (void)snprintf(text, sizeof(text), "log: %llu lines lost: stderr was not read",
                   (unsigned long long)dropped);
    emit(LOG_LEVEL_WARNING, text);
}

/* The part of a format that names the event, for "N similar suppressed". */
static void report_suppressed(struct log_site *site, enum log_level level)
{
    uint32_t suppressed = site->suppressed;
    char text[160];

    if (suppressed == 0)
        return;
    site->suppressed = 0;
    (void)snprintf(text, sizeof(text), "log: %u similar suppressed: '%.100s'", suppressed,
                   site->format);
    emit(level, text);
}

/* Under the lock. */
static bool take_token(struct log_site *site, const char *format)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t refill = (now_ns - site->refilled_ns) / LOG_REFILL_NS;

    if (refill >= site->used) {
        site->used = 0;
        site->refilled_ns = now_ns;
    } else {
        site->used -= (uint32_t)refill;
        site->refilled_ns += refill * LOG_REFILL_NS;
    }
    if (site->used < LOG_BURST) {
        site->used++;
        return true;
    }
    site->suppressed++;
    site->format = format;
    if (!site->listed) {
        site->listed = 1;
        site->next = log_sites;
        log_sites = site;
    }
    return false;
}

static void make_printable(char *text)
{
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte < 0x20 || byte == 0x7f)
            *text = '?';
    }
}

void log_write(struct log_site *site, enum log_level level, const char *format, ...)
{
    char text[LOG_LINE_BYTES];
    va_list arguments;
    int length;
    int saved_errno = errno;

    (void)pthread_mutex_lock(&log_lock);
    if (take_token(site, format)) {
        va_start(arguments, format);
        length = vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        if (length >= (int)sizeof(text))
            memcpy(text + sizeof(text) - 4, "...", 4);
        else if (length < 0)
            (void)snprintf(text, sizeof(text), "%s", format);
        make_printable(text);
        report_dropped();
        report_suppressed(site, level);
        emit(level, text);
    }
    (void)pthread_mutex_unlock(&log_lock);
    errno = saved_errno;
}

void log_flush(void)
{
    (void)pthread_mutex_lock(&log_lock);
    report_dropped();
    for (struct log_site *site = log_sites; site; site = site->next)
        report_suppressed(site, LOG_LEVEL_WARNING);
    (void)pthread_mutex_unlock(&log_lock);
}
