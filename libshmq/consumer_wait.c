/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_wait.c: a poll that found nothing: looking around, spinning, sleeping; and the
 * descriptor that does it for epoll loops. See consumer.h.
 *
 * Sleeps on the data words of all owned partitions (the words for `durable` of those of which only that is
 * read) and on the event word of this client, never longer than a second, and 20 ms while some partition's
 * log goes on behind a record that is not stamped: its producer may be dead, and shmqd is asked to look.
 * Called by the channel's thread; check_watched() by the notifier's. If the process dies here, an attention
 * bit stays set, which costs the next publisher a needless wake.
 */
#include "libshmq/consumer.h"

#define SPIN_ROUND         32 /* looks between two looks at the clock */
#define LOOK_NS            NS_PER_S
#define ASK_NS             (UINT64_C(20) * NS_PER_MS) /* how long shmqd may take to answer */
#define ASK_PAUSE_FIRST_NS WAIT_BLOCKED_NS
#define ASK_PAUSE_MOST_NS  (UINT64_C(8) * WAIT_BLOCKED_NS)

/* ---- what has changed ------------------------------------------------------------------------ */

static int look_at_status(struct shmq_consumer *c, struct consumer_partition *cp,
                          struct error_buffer *why)
{
    int rc;

    if (!cp->attachment || !attachment_is_over(cp->attachment))
        return 0;
    rc = attachment_check_status(cp->attachment, why);
    if (rc == SHMQ_ENOTOPIC)
        c->failed = rc;
    else if (rc < 0)
        cp->dead = rc;
    return rc == SHMQ_ENOTOPIC ? rc : 0;
}

/* 0, or the error of a partition that has not been told yet. When nothing but dead partitions is
 * left, it is told each time: nobody waits there for ever. */
static int tell_dead(struct shmq_consumer *c, struct error_buffer *why)
{
    struct consumer_partition *dead = NULL;

    for (uint32_t i = 0; i < c->partition_count; i++) {
        struct consumer_partition *cp = &c->partitions[i];

        if (!cp->dead || !cp->owned)
            continue;
        if (cp->attachment && !cp->copies &&
            atomic_load_explicit(&cp->me->hold, memory_order_relaxed) != HOLD_NONE)
            assignment_hold(cp, HOLD_NONE); /* nobody reads there any more */
        if (!dead || (dead->told && !cp->told))
            dead = cp;
    }
    if (!dead || (dead->told && c->owned_count > 0))
        return 0;
    dead->told = true;
    c->stopped = true;
    return error_set(why, dead->dead,
                     "topic %s/%u: was scribbled on; its other partitions go on; run shmq doctor",
                     c->name, dead->index);
}

static void greet_new_supervisor(struct shmq_consumer *c)
{
    struct error_buffer ignored;

    if (session_has_new_supervisor(c->session) || control_is_needed(c->connection))
        (void)control_connect(c->connection, clock_monotonic_ns() + CONTROL_GRACE_NS, CONTROL_ONCE,
                              &ignored);
}

static void open_added(struct shmq_consumer *c, uint64_t deadline_ns)
{
    const struct state_segment *state = consumer_any(c)->attachment->ring.state;
    uint32_t count = min_u32(atomic_load_explicit(&state->partition_count, memory_order_acquire),
                             PARTITIONS_MAX);
    struct error_buffer ignored;

    /* Without them it goes on as it is, and tries again within a second. */
    if (count > c->partition_count)
        (void)consumer_grow(c, count, max_u64(deadline_ns, clock_monotonic_ns() + CONTROL_GRACE_NS),
                            &ignored);
}

/* Where a group that was made for it begins by time. */
static int seek_pending(struct shmq_consumer *c, struct error_buffer *why)
{
    int rc = consumer_seek_pending(c, clock_monotonic_ns() + CONTROL_GRACE_NS, why);

    if (rc == 0)
        return 0;
    c->look_ns = clock_monotonic_ns() + WAIT_BLOCKED_NS;
    return rc == SHMQ_ENOBUS || rc == SHMQ_ETIMEOUT || rc == SHMQ_ECLOSED ? 0 : rc;
}

int consumer_attend(struct shmq_consumer *c, uint64_t deadline_ns, struct error_buffer *why)
{
    int rc = 0;

    if (!session_is_over(c->session, c->connection)) {
        /* ORDER announce -> attend: acquire, and before all that it announces is read; pairs with
         * shmqd's bump after its stores. */
        c->event_seen = atomic_load_explicit(c->event, memory_order_acquire);
        greet_new_supervisor(c);
    }
    c->look_ns = clock_monotonic_ns() + LOOK_NS;
    if (session_is_over(c->session, c->connection))
        return consumer_reopen(c, deadline_ns, why);
    c->stopped = false;
    assignment_release_views(c);
    if (!c->failed)
        open_added(c, deadline_ns);
    for (uint32_t i = 0; rc == 0 && i < c->partition_count; i++)
        rc = look_at_status(c, &c->partitions[i], why);
    if (rc == 0)
        rc = assignment_refresh(c, why);
    assignment_release_views(c);
    if (rc == 0)
        rc = seek_pending(c, why);
    if (rc == 0)
        rc = tell_dead(c, why);
    if (c->failed)
        c->stopped = true; /* each further poll says so */
    return rc;
}

/* ---- records that stay unstamped ------------------------------------------------------------- */

/* A live but stalled producer is asked about less and less often. */
static void ask_about(struct consumer_partition *cp, uint64_t now_ns)
{
    (void)attachment_ask_resolve(cp->attachment, cp->reader.position, now_ns + ASK_NS);
    cp->ask_pause_ns = min_u64(cp->ask_pause_ns * 2, ASK_PAUSE_MOST_NS);
    cp->ask_ns = clock_monotonic_ns() + cp->ask_pause_ns;
}

static bool is_stuck(struct consumer_partition *cp, uint64_t now_ns)
{
    uint64_t position = cp->reader.position;

    if (ring_tail(consumer_ring(cp)) == position) {
        cp->stuck_ns = 0;
        return false;
    }
    if (cp->stuck_ns == 0 || cp->stuck_position != position) {
        cp->stuck_ns = now_ns;
        cp->stuck_position = position;
        cp->ask_pause_ns = ASK_PAUSE_FIRST_NS;
        cp->ask_ns = now_ns + cp->ask_pause_ns;
    } else if (now_ns >= cp->ask_ns) {
        ask_about(cp, now_ns);
    }
    return true;
}

/* After a look that found nothing: is there a partition whose log goes on behind the reader? */
static bool find_stuck(struct shmq_consumer *c, uint64_t now_ns)
{
    bool stuck = false;

    for (uint32_t i = 0; i < c->owned_count; i++)
        stuck |= c->owned[i]->wait_bit == ATTENTION_DATA && is_stuck(c->owned[i], now_ns);
    return stuck;
}

/* ---- what is not durable yet ----------------------------------------------------------------- */

/* Who reads only what is durable has no claim resolved: shmqd cannot journal what is behind it either, and sees to it
 * itself. But its flusher may be napping. */
static void ring_flushers(const struct shmq_consumer *c)
{
    for (uint32_t i = 0; i < c->owned_count; i++) {
        const struct consumer_partition *cp = c->owned[i];

        if (cp->wait_bit == ATTENTION_DURABLE &&
            ring_tail(cp->reader.ring) > attachment_durable(cp->attachment))
            attachment_ring_flusher(cp->attachment);
    }
}

/* How long to sleep at most, for the sake of partitions that are read from the journal: nobody wakes us when it
 * can be read again. */
static uint64_t bound_by_journals(const struct shmq_consumer *c, uint64_t now_ns,
                                  uint64_t timeout_ns)
{
    for (uint32_t i = 0; i < c->owned_count; i++) {
        uint64_t retry_ns = consumer_history_retry_ns(c->owned[i]);

        if (retry_ns != 0)
            timeout_ns = min_u64(timeout_ns, retry_ns > now_ns ? retry_ns - now_ns : 0);
        else if (c->owned[i]->behind)
            timeout_ns = min_u64(timeout_ns, WAIT_BLOCKED_NS);
    }
    return timeout_ns;
}

/* ---- the notifier ---------------------------------------------------------------------------- */

/* In the notifier's thread. */
static enum wait_notifier_state check_watched(void *context)
{
    const struct shmq_consumer *c = context;
    bool blocked = false;

    for (uint32_t i = 0; i < c->owned_count; i++) {
        const struct consumer_partition *cp = c->owned[i];
        const struct ring *ring = cp->reader.ring;
        /* Relaxed: an older one makes at most a needless notification. */
        uint64_t position = atomic_load_explicit(&cp->watched, memory_order_relaxed);
        uint64_t tail = ring_tail(ring);

        if (cp->wait_bit == ATTENTION_DURABLE) {
            if (attachment_durable(cp->attachment) <= position)
                continue;
            if (!atomic_load_explicit(&cp->watched_pauses, memory_order_relaxed))
                return WAIT_NOTIFIER_READY;
            blocked = true;
            continue;
        }
        if (tail == position)
            continue;
        if (ring_is_stamped(ring, position) || tail - position > ring->capacity)
            return WAIT_NOTIFIER_READY;
        blocked = true;
    }
    return blocked ? WAIT_NOTIFIER_BLOCKED : WAIT_NOTIFIER_NOTHING;
}

void consumer_pause_watch(struct shmq_consumer *c)
{
    if (c->notifier)
        wait_notifier_pause(c->notifier);
}

void consumer_resume_watch(struct shmq_consumer *c)
{
    struct wait_point *points;

    if (!c->notifier)
        return;
    points = calloc((size_t)c->owned_count + 1, sizeof(*points));
    for (uint32_t i = 0; points && i < c->owned_count; i++)
        points[i] = (struct wait_point){c->owned[i]->wait, c->owned[i]->wait_bit};
    /* Without memory nothing is watched but the event: readable late, with the next event. */
    if (wait_notifier_watch(c->notifier, points, points ? c->owned_count : 0, c->event) < 0)
        c->stopped = true; /* and the next poll tries again */
    free(points);
}

static void rearm(struct shmq_consumer *c)
{
    if (!c->notifier)
        return;
    for (uint32_t i = 0; i < c->owned_count; i++) {
        struct consumer_partition *cp = c->owned[i];

        atomic_store_explicit(&cp->watched, cp->reader.position, memory_order_relaxed);
        atomic_store_explicit(&cp->watched_pauses, consumer_history_retry_ns(cp) != 0,
                              memory_order_relaxed);
    }
    ring_flushers(c);
    wait_notifier_rearm(c->notifier, c->event_seen);
}

int shmq_consumer_fd(shmq_consumer *c)
{
    struct error_buffer *why;
    int rc;

    if (!c)
        return handles_usage_error(0, "consumer fd: consumer is NULL");
    if (handles_forked(c->fork_count))
        return handles_fork_error(c->connection->serial);
    if (c->notifier)
        return wait_notifier_fd(c->notifier);
    why = handles_error(c->connection->serial);
    rc = wait_notifier_open(check_watched, c, c->session->fence_mode, &c->notifier, why);
    if (rc < 0)
        return rc;
    consumer_resume_watch(c);
    /* Armed at once: who waits before the first poll is woken as well. */
    rearm(c);
    return wait_notifier_fd(c->notifier);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static uint32_t prepare_words(struct shmq_consumer *c)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < c->owned_count; i++) {
        const struct consumer_partition *cp = c->owned[i];

        /* While its journal cannot be read, `durable` moves in vain. */
        if (consumer_history_retry_ns(cp) == 0)
            c->words[count++] = wait_prepare(cp->wait, cp->wait_bit);
    }
    c->words[count++] = (struct wait_word){c->event, c->event_seen};
    return count;
}

/* False only if nothing came and the time was not over: a signal handler ran. */
static bool sleep_on(struct shmq_consumer *c, uint32_t begun, uint32_t count, uint64_t timeout_ns)
{
    uint64_t before_ns = clock_monotonic_ns();
    bool many = count > wait_words_per_sleep();
    bool woken = c->crew && many ? wait_crew_sleep(c->crew, begun, c->words, count, timeout_ns)
                                 : wait_sleep(c->words, count, timeout_ns);

    if (many) /* may have slept shorter than it was told */
        timeout_ns = min_u64(timeout_ns, WAIT_BLOCKED_NS);
    return woken || clock_monotonic_ns() - before_ns >= timeout_ns;
}

static uint32_t begin_crew(struct shmq_consumer *c)
{
    /* Without memory for a crew wait_sleep() watches the first words and sleeps shorter. */
    if (!c->crew && c->owned_count + 1 > wait_words_per_sleep())
        (void)wait_crew_new(&c->crew);
    return c->crew ? wait_crew_begin(c->crew) : 0;
}

static bool is_due(const struct shmq_consumer *c, uint64_t now_ns)
{
    return consumer_is_called(c) || c->stopped || now_ns >= c->look_ns;
}

/* One sleep. Positive: messages; 0: look again, or *ret_over. */
static int sleep_once(struct shmq_consumer *c, struct shmq_message *messages, uint32_t max,
                      uint64_t deadline_ns, bool *ret_over)
{
    uint32_t begun = begin_crew(c);
    uint32_t count = prepare_words(c);
    uint32_t paths = c->paths;
    uint64_t now_ns, timeout_ns;
    uint32_t taken;

    wait_barrier(c->session->fence_mode);
    ring_flushers(c);
    taken = consumer_take(c, messages, max);
    if (taken > 0)
        return (int)taken;
    now_ns = clock_monotonic_ns();
    if (is_due(c, now_ns) || c->paths != paths) /* other words are to be slept on by now */
        return 0;
    timeout_ns = min_u64(deadline_ns > now_ns ? deadline_ns - now_ns : 0, c->look_ns - now_ns);
    if (find_stuck(c, now_ns))
        timeout_ns = min_u64(timeout_ns, WAIT_BLOCKED_NS);
    timeout_ns = bound_by_journals(c, now_ns, timeout_ns);
    *ret_over = !sleep_on(c, begun, count, timeout_ns) || deadline_passed(deadline_ns);
    /* Before the next sleep is prepared, whose barrier takes longer than all else here. */
    return is_due(c, now_ns) ? 0 : (int)consumer_take(c, messages, max);
}

/* Until `until_ns`. Positive: messages; 0: not yet; negative: a journal cannot be read. */
static int spin(struct shmq_consumer *c, struct shmq_message *messages, uint32_t max,
                uint64_t until_ns)
{
    uint64_t now_ns = clock_monotonic_ns();

    while (now_ns < until_ns && !is_due(c, now_ns)) {
        int rc = consumer_tell_history(c);

        if (rc < 0)
            return rc;
        for (int i = 0; i < SPIN_ROUND; i++) {
            uint32_t taken = consumer_take(c, messages, max);

            if (taken > 0)
                return (int)taken;
            cpu_relax();
        }
        now_ns = clock_monotonic_ns();
        (void)find_stuck(c, now_ns);
        ring_flushers(c);
    }
    return 0;
}

static uint64_t spin_deadline(const struct shmq_consumer *c, uint64_t deadline_ns)
{
    uint64_t now_ns = clock_monotonic_ns();

    if (c->wait == SHMQ_WAIT_SPIN)
        return deadline_ns;
    return c->wait == SHMQ_WAIT_HYBRID ? min_u64(deadline_ns, now_ns + c->spin_ns) : now_ns;
}

/* That this member lives and polls; a statistic. */
static void note_poll(struct shmq_consumer *c)
{
    uint64_t now_ns = clock_monotonic_ns();

    for (uint32_t i = 0; i < c->owned_count; i++)
        atomic_store_explicit(&c->owned[i]->me->poll_ns, now_ns, memory_order_relaxed);
}

int consumer_wait(struct shmq_consumer *c, struct shmq_message *messages, uint32_t max,
                  uint64_t deadline_ns)
{
    uint64_t spin_until_ns = spin_deadline(c, deadline_ns);
    bool over = false;

    note_poll(c);
    if (c->auto_commit)
        consumer_commit_all(c);
    for (;;) {
        uint64_t now_ns = clock_monotonic_ns();
        int rc = 0;

        if (is_due(c, now_ns)) {
            rc = consumer_attend(c, deadline_ns, handles_error(c->connection->serial));
            if (rc == 0)
                rc = (int)consumer_take(c, messages, max);
        }
        if (rc == 0 && now_ns < spin_until_ns)
            rc = spin(c, messages, max, spin_until_ns);
        else if (rc == 0 && now_ns < deadline_ns)
            rc = sleep_once(c, messages, max, deadline_ns, &over);
        if (rc != 0)
            return rc;
        if (over || now_ns >= deadline_ns) {
            (void)find_stuck(c, now_ns); /* who polls without waiting still asks in the end */
            rearm(c);
            rc = (int)consumer_take(c, messages, max);
            return rc != 0 ? rc : consumer_tell_history(c);
        }
        rc = consumer_tell_history(c);
        if (rc < 0)
            return rc;
    }
}
