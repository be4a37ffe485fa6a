/* SPDX-License-Identifier: Apache-2.0 */
/* See pub_confirm.h. */
#include "tools/pub_confirm.h"

#include <string.h>

#include "libshmq/clock.h"
#include "tools/outbuf.h"

#define GENERATION 10000u /* messages */
#define SLICE_MS   200    /* ^C is heard after it */

void confirms_init(struct confirms *confirms, shmq_producer *producer, const atomic_bool *stop)
{
    *confirms = (struct confirms){.producer = producer, .stop = stop};
    confirms->turned_ns = clock_monotonic_ns();
}

void confirms_free(struct confirms *confirms)
{
    free(confirms->older);
    free(confirms->newer);
}

static void grow(struct confirms *confirms, uint32_t partitions)
{
    size_t old = confirms->partitions * sizeof(*confirms->newer);
    size_t bytes = partitions * sizeof(*confirms->newer);

    confirms->older = tool_realloc(confirms->older, bytes);
    confirms->newer = tool_realloc(confirms->newer, bytes);
    memset((char *)confirms->older + old, 0, bytes - old);
    memset((char *)confirms->newer + old, 0, bytes - old);
    confirms->partitions = partitions;
}

void confirms_note(struct confirms *confirms, const struct shmq_message *messages, uint32_t count)
{
    if (!confirms->producer)
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct confirm_mark *mark;

        if (messages[i].partition >= confirms->partitions)
            grow(confirms, messages[i].partition + 1);
        mark = &confirms->newer[messages[i].partition];
        mark->last = messages[i];
        mark->count++;
    }
    confirms->newer_count += count;
}

bool confirms_due(const struct confirms *confirms)
{
    return confirms->producer && confirms->newer_count > 0 &&
           (confirms->newer_count >= GENERATION ||
            clock_monotonic_ns() - confirms->turned_ns > NS_PER_S);
}

/* In slices. 0; SHMQ_ETIMEOUT, also when stopped; or another error. */
static int wait_for(const struct confirms *confirms, const struct shmq_message *message,
                    uint64_t deadline_ns)
{
    int rc;

    do {
        int left_ms = deadline_left_ms(deadline_ns);

        rc = shmq_confirm(confirms->producer, message, SHMQ_DURABLE,
                          left_ms < SLICE_MS ? left_ms : SLICE_MS);
    } while (rc == SHMQ_ETIMEOUT && !*confirms->stop && !deadline_passed(deadline_ns));
    return rc;
}

static int wait_generation(struct confirms *confirms, struct confirm_mark *marks, uint64_t *count,
                           uint64_t deadline_ns)
{
    for (uint32_t i = 0; i < confirms->partitions; i++) {
        int rc = marks[i].count == 0 ? 0 : wait_for(confirms, &marks[i].last, deadline_ns);

        if (rc < 0)
            return *confirms->stop && rc == SHMQ_ETIMEOUT ? 0 : rc;
        *count -= marks[i].count;
        marks[i].count = 0;
    }
    return 0;
}

int confirms_wait(struct confirms *confirms, uint64_t timeout_ns, bool all)
{
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ns;
    struct confirm_mark *empty;
    int rc;

    if (!confirms->producer)
        return 0;
    rc = wait_generation(confirms, confirms->older, &confirms->older_count, deadline_ns);
    if (rc == 0 && all)
        rc = wait_generation(confirms, confirms->newer, &confirms->newer_count, deadline_ns);
    if (rc < 0 || all || confirms->older_count > 0)
        return rc;
    empty = confirms->older;
    confirms->older = confirms->newer;
    confirms->newer = empty;
    confirms->older_count = confirms->newer_count;
    confirms->newer_count = 0;
    confirms->turned_ns = clock_monotonic_ns();
    return 0;
}

static void look(struct confirms *confirms, struct confirm_mark *marks, uint64_t *count)
{
    for (uint32_t i = 0; i < confirms->partitions; i++) {
        if (marks[i].count == 0 ||
            shmq_confirm(confirms->producer, &marks[i].last, SHMQ_DURABLE, 0) < 0)
            continue;
        *count -= marks[i].count;
        marks[i].count = 0;
    }
}

uint64_t confirms_count(struct confirms *confirms)
{
    if (!confirms->producer)
        return 0;
    look(confirms, confirms->older, &confirms->older_count);
    look(confirms, confirms->newer, &confirms->newer_count);
    return confirms->older_count + confirms->newer_count;
}
