/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line; see progress.h. */
#include "tools/progress.h"

#include <inttypes.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"

#define INTERVAL_NS (200 * NS_PER_MS)
#define QUIET_NS    (700 * NS_PER_MS) /* what is over sooner needs no progress */

void progress_init(struct progress *progress, const struct cli *cli, const char *verb, bool wanted)
{
    uint64_t now_ns = clock_monotonic_ns();

    *progress = (struct progress){
        .started_ns = now_ns,
        .shown_ns = now_ns,
        .verb = verb,
        .enabled = wanted && !cli->quiet && isatty(2),
    };
}

static void show_line(struct progress *progress, uint64_t now_ns)
{
    char bytes[UNITS_TEXT_BYTES];
    char rate[UNITS_TEXT_BYTES];
    double seconds = (double)(now_ns - progress->shown_ns) / (double)NS_PER_S;
    double messages = (double)(progress->messages - progress->shown_messages) / seconds;
    double per_second = (double)(progress->bytes - progress->shown_bytes) / seconds;

    (void)fprintf(stderr, "\r\033[K%" PRIu64 " %s %s, %s, %.0f messages/s, %s/s",
                  progress->messages, cli_plural(progress->messages, "message", "messages"),
                  progress->verb, units_show_size(progress->bytes, bytes), messages,
                  units_show_size((uint64_t)per_second, rate));
    (void)fflush(stderr);
    progress->visible = true;
}

void progress_add(struct progress *progress, uint64_t messages, uint64_t bytes)
{
    uint64_t now_ns;

    progress->messages += messages;
    progress->bytes += bytes;
    if (!progress->enabled)
        return;
    now_ns = clock_monotonic_ns();
    if (now_ns - progress->shown_ns < INTERVAL_NS)
        return;
    if (now_ns - progress->started_ns >= QUIET_NS)
        show_line(progress, now_ns);
    progress->shown_ns = now_ns;
    progress->shown_messages = progress->messages;
    progress->shown_bytes = progress->bytes;
}

void progress_clear(struct progress *progress)
{
    if (progress->visible)
        (void)fputs("\r\033[K", stderr);
    progress->visible = false;
}
