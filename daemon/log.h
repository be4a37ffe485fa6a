/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supervisor's log: one line an event, to stderr or to the embedding program.
 *
 *     log_warning("topic %s/%u: quarantined: %s; run `shmq doctor --repair`", ...);
 *
 * A line is `2031-05-07T09:15:02.123Z warning text`; where stderr is the journal ($JOURNAL_STREAM)
 * it is `<4>text`, since the journal stamps lines itself. Control bytes in the text (names come from
 * strangers) become '?', and a line ends at LOG_LINE_BYTES.
 *
 * Threads: any, at once; a line is one write(2). Nothing here waits: if stderr is a pipe that nobody
 * reads, lines are dropped and counted. Each call site has a token bucket (LOG_BURST lines, then one
 * every LOG_REFILL_NS), so that a flood cannot fill a disk: the next line that passes says how many
 * were suppressed, and log_flush() says it for floods that ended. The level, the sink and the state
 * of the buckets belong to the process.
 */
#ifndef SHMQ_DAEMON_LOG_H
#define SHMQ_DAEMON_LOG_H

#include "libshmq/base.h"

#include <stdarg.h>
#include <stdatomic.h>

#define LOG_LINE_BYTES 1024
#define LOG_BURST      200                 /* lines at once from one call site */
#define LOG_REFILL_NS  UINT64_C(100000000) /* ... and then ten a second */

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `line` has no newline, timestamp or level. Called under the log's lock: it must not log. */
typedef void log_sink_fn(void *context, enum log_level level, const char *line);

/* One a call site, static. */
struct log_site {
    struct log_site *next; /* all sites that ever suppressed a line */
    const char *format;
    uint64_t refilled_ns;
    uint32_t used; /* tokens */
    uint32_t suppressed;
    uint32_t listed;
};

#define log_error(...)   LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) LOG_AT(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)

#define LOG_AT(level, ...) \
    do { \
        static struct log_site log_site_here; \
\
        if (log_is_enabled(level)) \
            log_write(&log_site_here, level, __VA_ARGS__); \
    } while (0)

void log_set_level(enum log_level level);
int log_is_enabled(enum log_level level);

/* Lines go to `sink` instead of stderr; NULL: to stderr again. On return the old sink is no longer
 * running in any thread. */
void log_set_sink(log_sink_fn *sink, void *context);

/* "error", "warning", "info", "debug". From a name: 0, or -1 if there is no such level. */
const char *log_level_name(enum log_level level);
int log_level_parse(const char *name, enum log_level *ret_level);

/* Says how many lines were suppressed at sites where no line has passed since. For stop and SIGHUP. */
void log_flush(void);

/* What the macros above call. */
void log_write(struct log_site *site, enum log_level level, const char *format, ...)
    PRINTF_LIKE(3, 4) COLD;

#endif
