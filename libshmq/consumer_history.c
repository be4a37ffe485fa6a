/* SPDX-License-Identifier: Apache-2.0 */
/*
 * consumer_history.c: reading a durable topic where the ring does not have it any more: catch-up from the journal
 * (design §4). See consumer.h.
 *
 *     JOURNAL_OPEN(position) ─▶ file [base, next_base): records up to min(durable, where the log ended)
 *         at its end: position = next_base, ask for the next one
 *         a record that does not hold: lost up to the next that does
 *     close enough to the log's end (catch_up): on in the ring, at the same position
 *
 * One file is open at a time, read through a window of this partition (journal_file.h); views of the last poll point
 * into the window, which moves at the next poll at the earliest. Nothing above `durable` is read: what is
 * above still stands in the ring, which `durable` gates. So whoever has read all that is durable finds the next
 * record in the ring, and whoever finds that producers may be at it finds that `durable` has moved on.
 *
 * What was never written is no loss: between the end of the log before its memory was lost (previous_end) and where
 * it went on (base, and in the end the ring's own base); below what was purged. What was, and is not there any
 * more (retained no longer, damaged), is counted to the byte, and marked on the next message.
 *
 * Called by the channel's thread within a poll or a seek. Blocks on the disk, and for at most 100 ms on the supervisor
 * when it needs another file; with no supervisor to ask it waits for the next one. If the process dies here: nothing is held,
 * and the next owner begins at the cursor.
 */
#include "libshmq/consumer_take.h"

#include "libshmq/fault.h"
#include "libshmq/journal_file.h"

#define RETRY_FIRST_NS (UINT64_C(20) * NS_PER_MS)
#define RETRY_MOST_NS  (UINT64_C(640) * NS_PER_MS)
/* An error is told when it was met so often: for some 150 ms. */
#define TELL_AFTER 4u
/* Files opened and gaps passed in one look: then the poll comes to its end, and the next goes on. */
#define STEPS_MAX 64u

struct consumer_history {
    struct journal_file file;
    struct tracked_fd fd;    /* -1: no file is open */
    uint64_t end;            /* the file's records count up to here */
    uint64_t next_base;      /* and go on there, in another; UINT64_MAX: it was the newest */
    uint64_t log_base;       /* where the ring's own log begins */
    uint64_t asked_position; /* for which the file was asked for */

    /* Since it failed last; error 0: it did not. */
    int error;
    uint32_t failures;
    uint64_t retry_ns;
    uint64_t pause_ns;
    struct error_buffer why;
};

/* ---- memory ---------------------------------------------------------------------------------- */

static bool has_file(const struct consumer_history *h)
{
    return h->fd.fd >= 0;
}

static void close_file(struct consumer_history *h)
{
    journal_file_close(&h->file);
    handles_close_fd(&h->fd);
}

void consumer_free_history(struct consumer_partition *cp, bool forked)
{
    struct consumer_history *h = steal_pointer(&cp->history);

    if (!h)
        return;
    if (forked)
        journal_file_close(&h->file);
    else
        close_file(h);
    free(h);
}

static bool make_history(struct consumer_partition *cp)
{
    if (cp->history)
        return true;
    cp->history = calloc(1, sizeof(*cp->history));
    if (!cp->history)
        return false; /* the next poll tries again */
    cp->history->fd.fd = -1;
    return true;
}

/* ---- failing --------------------------------------------------------------------------------- */

/* Nobody answers: that is waited for. The rest is the disk's or this process's, and told when it stays. */
static bool is_told(int error)
{
    return error != 0 && error != SHMQ_ENOBUS && error != SHMQ_ETIMEOUT && error != SHMQ_ECLOSED &&
           error != SHMQ_EAGAIN && error != SHMQ_ENOTOPIC;
}

static void note_failure(struct consumer_history *h, int error)
{
    h->error = error;
    h->failures++;
    h->pause_ns = h->pause_ns == 0 ? RETRY_FIRST_NS : min_u64(h->pause_ns * 2, RETRY_MOST_NS);
    h->retry_ns = clock_monotonic_ns() + h->pause_ns;
}

static void note_success(struct consumer_history *h)
{
    h->error = 0;
    h->failures = 0;
    h->pause_ns = 0;
    h->retry_ns = 0;
}

uint64_t consumer_history_retry_ns(const struct consumer_partition *cp)
{
    return cp->behind && cp->history ? cp->history->retry_ns : 0;
}

int consumer_tell_history(struct shmq_consumer *c)
{
    for (uint32_t i = 0; i < c->owned_count; i++) {
        struct consumer_partition *cp = c->owned[i];
        struct consumer_history *h = cp->behind ? cp->history : NULL;
        struct error_buffer *why;

        if (!h || !is_told(h->error) || h->failures < TELL_AFTER)
            continue;
        why = handles_error(c->connection->serial);
        *why = h->why;
        h->failures = TELL_AFTER - 1; /* and again when it is met again */
        return error_prefix(why, h->error, "topic %s/%u: what the ring does not have any more",
                            c->name, cp->index);
    }
    return 0;
}

/* ---- moving on ------------------------------------------------------------------------------- */

/* To a place where a record begins; what is in between was lost, or never was. */
static void move_to(struct consumer_partition *cp, uint64_t position, uint64_t lost)
{
    if (lost > 0 && !cp->sought)
        consumer_note_loss(cp, lost);
    cp->reader.position = position;
    cp->exact = true;
}

static uint64_t distance(uint64_t from, uint64_t to)
{
    return to > from ? to - from : 0;
}

static void enter_ring(struct shmq_consumer *c, struct consumer_partition *cp)
{
    cp->behind = false;
    cp->fresh = true;
    cp->sought = false;
    consumer_free_history(cp, false);
    if (cp->skip_before_ns != 0)
        consumer_skip_older(cp);
    assignment_list_owned(c);
}

/* Close to the log's end, or through with all that is durable: reads on in the ring. Half a ring: a group that holds
 * producers back leaves them room, and one that does not has some before it is lapped again. */
static bool catch_up(struct shmq_consumer *c, struct consumer_partition *cp)
{
    const struct ring *ring = consumer_ring(cp);
    uint64_t position = cp->reader.position;
    bool through = position >= attachment_durable(cp->attachment);

    if (position < ring->state->base)
        return false;
    if (!through && (ring_tail(ring) - position >= ring->capacity / 2 || !cp->exact))
        return false;
    if (!cp->copies && !assignment_join_ring(cp, position))
        return false;
    if (!cp->exact)
        cp->reader.position = ring_resynchronise(ring, position);
    enter_ring(c, cp);
    return true;
}

/* It cannot be read in the journal, but the ring may still have it. */
static bool find_in_ring(struct shmq_consumer *c, struct consumer_partition *cp)
{
    const struct ring *ring = consumer_ring(cp);
    uint64_t position = cp->reader.position;

    if (!cp->exact || position < ring->state->base || ring_tail(ring) - position > ring->capacity ||
        (!cp->copies && !assignment_join_ring(cp, position)))
        return false;
    enter_ring(c, cp);
    return true;
}

/* Nothing can be read up to where the ring begins: goes on there. */
static bool skip_to_ring(struct shmq_consumer *c, struct consumer_partition *cp)
{
    const struct ring *ring = consumer_ring(cp);
    uint64_t from = cp->reader.position;
    uint64_t at = max_u64(from, ring_oldest(ring));
    uint64_t found;

    if (!cp->copies) {
        at = max_u64(at, atomic_load_explicit(&ring->producers->head, memory_order_acquire));
        if (!assignment_join_ring(cp, at))
            return false; /* head has moved on: again */
    }
    found = at == from && cp->exact ? from : ring_resynchronise(ring, at);
    move_to(cp, found, distance(from, found));
    enter_ring(c, cp);
    return true;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Goes on behind the file. */
static void change_over(struct consumer_partition *cp)
{
    struct consumer_history *h = cp->history;
    uint64_t next = h->next_base;

    move_to(cp, max_u64(cp->reader.position, next), distance(cp->reader.position, h->end));
    close_file(h);
}

/* Behind the last record of the newest file. */
static bool end_history(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t lost)
{
    struct consumer_history *h = cp->history;

    if (h->log_base <= cp->reader.position)
        return skip_to_ring(c, cp);
    move_to(cp, h->log_base, lost);
    close_file(h);
    return true;
}

/* Takes over what the supervisor said. Its file may still be unreadable. */
static int use_file(struct shmq_consumer *c, struct consumer_partition *cp,
                    const struct protocol_journal_opened *opened)
{
    struct consumer_history *h = cp->history;
    uint64_t position = cp->reader.position;
    bool newest = opened->next_base == UINT64_MAX;
    int rc;

    h->asked_position = position;
    h->log_base = opened->log_base;
    h->next_base = opened->next_base;
    h->end = newest ? UINT64_MAX : min_u64(opened->next_base, opened->next_previous_end);
    /* Nothing of it is kept: not even what was there before the memory was lost. */
    if (!opened->present)
        return end_history(c, cp, distance(position, h->log_base)) ? 0 : SHMQ_EAGAIN;
    rc = journal_file_open(&h->file, h->fd.fd, opened->base, cp->reader.length_max, &h->why);
    if (rc == SHMQ_ECORRUPT || rc == SHMQ_EVERSION) {
        if (!newest)
            change_over(cp);
        else if (!end_history(c, cp, distance(position, h->log_base)))
            rc = SHMQ_EAGAIN;
        return rc == SHMQ_EAGAIN ? rc : 0;
    }
    if (rc == 0 && opened->base > position) /* what was before is retained no longer */
        move_to(cp, opened->base, distance(position, h->file.header.previous_end));
    return rc;
}

static void open_file(struct shmq_consumer *c, struct consumer_partition *cp)
{
    struct consumer_history *h = cp->history;
    struct protocol_journal_opened opened;
    uint64_t now_ns = clock_monotonic_ns();
    int rc;

    if (now_ns < h->retry_ns)
        return;
    if (now_ns < c->silent_ns) { /* another partition has just waited for it */
        h->error = error_set(&h->why, SHMQ_ETIMEOUT, "the supervisor does not answer");
        h->retry_ns = c->silent_ns;
        return;
    }
    rc = attachment_open_journal(cp->attachment, cp->reader.position, 0, now_ns + CONTROL_GRACE_NS,
                                 CONTROL_ONCE, &opened, &h->fd, &h->why);
    if (rc == SHMQ_ETIMEOUT) /* one wait for all partitions, and at most a third of the time */
        c->silent_ns = clock_monotonic_ns() + 2 * CONTROL_GRACE_NS;
    if (rc == 0)
        rc = use_file(c, cp, &opened);
    if (!cp->history) /* it is in the ring */
        return;
    if (rc == 0) {
        note_success(h);
        return;
    }
    close_file(h);
    note_failure(h, rc);
}

/* ---- records that do not hold ---------------------------------------------------------------- */

/* A position that was not come to by reading: where does the record end in whose middle it stands? In *ret_end; at
 * or below the position: in none's. Reads the file from its beginning. 0 or an error. */
static int find_boundary(struct consumer_history *h, uint64_t position, uint64_t limit,
                         uint64_t *ret_end)
{
    uint64_t at = h->file.header.base;
    struct journal_record record;

    while (at < position) {
        int rc = journal_file_find(&h->file, at, limit, &record, &h->why);

        if (rc < 0)
            return rc;
        if (rc != JOURNAL_LOOK_RECORD || record.offset >= position)
            break;
        at = journal_record_end(&record);
    }
    *ret_end = at;
    return 0;
}

/* Damage, the end of a file, or of the whole log as it was before its memory was lost. 0: look again. */
static int pass_gap(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t limit)
{
    struct consumer_history *h = cp->history;
    uint64_t position = cp->reader.position;
    bool newest = h->next_base == UINT64_MAX;
    struct journal_record record;
    uint64_t end = 0;
    int rc = 0;

    if (newest && h->asked_position != position) { /* is there another by now? */
        close_file(h);
        return 0;
    }
    if (find_in_ring(c, cp))
        return 0;
    if (!cp->exact && !cp->sought)
        rc = find_boundary(h, position, limit, &end);
    if (rc == 0 && end > position) {
        move_to(cp, end, 0);
        return 0;
    }
    if (rc == 0)
        rc = journal_file_find(&h->file, position + RECORD_UNIT, limit, &record, &h->why);
    if (rc < 0)
        return rc;
    if (rc == JOURNAL_LOOK_RECORD)
        move_to(cp, record.offset, record.offset - position);
    else if (!newest)
        change_over(cp);
    else
        return end_history(c, cp, 0) ? 0 : SHMQ_EAGAIN;
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_wanted(struct consumer_partition *cp, const struct journal_record *record)
{
    if (record->padding || record->timestamp_ns < cp->skip_before_ns)
        return false;
    cp->skip_before_ns = 0;
    return true;
}

/* A look at the position that found no message. False: nothing more can be done now. */
static bool go_on(struct shmq_consumer *c, struct consumer_partition *cp, uint64_t limit,
                  int looked)
{
    struct consumer_history *h = cp->history;
    int rc = looked == JOURNAL_LOOK_NONE ? pass_gap(c, cp, limit) : looked;

    if (rc < 0)
        note_failure(h, rc);
    return rc >= 0;
}

/* Brings the reader to the next message below `*ret_limit`: true, and it is in *ret_record. False: it is in the ring
 * (not `behind` any more), or there is none now. */
static bool advance(struct shmq_consumer *c, struct consumer_partition *cp,
                    struct journal_record *ret_record, uint64_t *ret_limit)
{
    uint64_t until_ns = 0;

    for (uint32_t steps = 0; steps < STEPS_MAX; steps++) {
        struct consumer_history *h = cp->history;
        uint64_t first = consumer_first(cp);
        int looked = JOURNAL_LOOK_RECORD;

        if (cp->reader.position < first)
            move_to(cp, first, 0);
        if (catch_up(c, cp))
            return false;
        if (cp->reader.position < h->file.header.base) /* sought back */
            close_file(h);
        if (!has_file(h)) {
            if (until_ns == 0)
                until_ns = clock_monotonic_ns() + CONTROL_GRACE_NS;
            open_file(c, cp);
            if (!cp->behind || h->error != 0 || deadline_passed(until_ns))
                return false;
            continue;
        }
        if (cp->reader.position >= h->end) {
            change_over(cp);
            continue;
        }
        *ret_limit = min_u64(attachment_durable(cp->attachment), h->end);
        while (cp->reader.position < *ret_limit) {
            looked = journal_file_look(&h->file, cp->reader.position, *ret_limit, 0, ret_record,
                                       &h->why);
            if (looked != JOURNAL_LOOK_RECORD)
                break;
            cp->exact = true;
            if (is_wanted(cp, ret_record)) {
                note_success(h);
                cp->sought = false;
                return true;
            }
            cp->reader.position = journal_record_end(ret_record);
        }
        if (looked != JOURNAL_LOOK_RECORD && !go_on(c, cp, *ret_limit, looked))
            return false;
        if (!cp->behind)
            return false;
    }
    return false;
}

/* The next one, without giving up what was taken. */
static bool look_further(struct consumer_partition *cp, uint64_t limit,
                         struct journal_record *ret_record)
{
    struct consumer_history *h = cp->history;

    while (cp->reader.position < limit &&
           journal_file_look(&h->file, cp->reader.position, limit, JOURNAL_LOOK_STAY, ret_record,
                             NULL) == JOURNAL_LOOK_RECORD) {
        if (!ret_record->padding)
            return true;
        cp->reader.position = journal_record_end(ret_record);
    }
    return false;
}

uint32_t consumer_take_history(struct shmq_consumer *c, struct consumer_partition *cp,
                               struct shmq_message *messages, uint32_t max)
{
    struct journal_record record;
    uint32_t taken = 0;
    uint64_t limit;

    if (!make_history(cp) || clock_monotonic_ns() < cp->history->retry_ns ||
        !advance(c, cp, &record, &limit))
        return 0;
    do {
        /* Lengths were checked with the record. */
        (void)fill_message(&messages[taken], record.payload, record.length,
                           (uint32_t)record.headers_length << 16 | record.key_length);
        place_message(&messages[taken], record.offset, record.timestamp_ns, cp->index);
        cp->reader.position = journal_record_end(&record);
        taken++;
    } while (taken < max && look_further(cp, limit, &record));
    mark_loss(cp, &messages[0]);
    count_messages(cp, taken);
    return taken;
}

int consumer_settle(struct shmq_consumer *c, struct consumer_partition *cp,
                    struct error_buffer *why)
{
    struct journal_record record;
    uint64_t limit;

    if (!make_history(cp))
        return error_set(why, SHMQ_ENOMEM, "topic %s/%u: no memory to read its journal", c->name,
                         cp->index);
    note_success(cp->history); /* asked for anew: at once */
    if (advance(c, cp, &record, &limit) || !cp->behind || cp->history->error == 0)
        return 0;
    *why = cp->history->why;
    return error_prefix(why, cp->history->error, "topic %s/%u", c->name, cp->index);
}
