/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq sub: writes the messages of a topic to stdout.
 *
 * Order of things, for each batch: poll, write to stdout, commit. So whoever kills it, at any
 * instruction, loses nothing: what was not committed is delivered again to the next member of the
 * group; what was written but not yet committed comes twice. stdout carries messages only; standing
 * by, losses and progress are said on stderr.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/moment.h"
#include "tools/nouns.h"
#include "tools/progress.h"
#include "tools/sub_format.h"

#define BATCH_MAX    256u
#define BUFFER_BYTES (1024u * 1024) /* written out in between when a batch is larger */
#define WAIT_MS      500            /* longest poll: standby and losses are looked at after it */

static struct {
    const char *group, *from, *format;
    uint64_t count, timeout, read;
    bool raw, nul;
} args = {.count = CLI_UNSET, .timeout = CLI_UNSET};

static const struct cli_option options[] = {
    {'g', "group", "GROUP", "consumer group (default): remembers what was read", CLI_TEXT,
     &args.group, NULL, 0, 0},
    {0, "from", "WHERE",
     "where a new group begins: earliest (default), latest, an offset, or " MOMENT_HELP
     "; a group that exists goes on from where it left off",
     CLI_TEXT, &args.from, NULL, 0, 0},
    {0, "read", "WHAT",
     "any (default): what is published; durable: only what is kept as the topic's --durable promises",
     CLI_CHOICE, &args.read, "any|durable", 0, 0},
    {'n', "count", "COUNT", "end after COUNT messages", CLI_COUNT, &args.count, NULL, 1,
     UINT64_MAX / 2},
    {'t', "timeout", "DUR", "end after this time, with exit code 3", CLI_DURATION, &args.timeout,
     NULL, 0, 0},
    {0, "format", "TEMPLATE", FORMAT_HELP ". Nothing is added to it", CLI_TEXT, &args.format, NULL,
     0, 0},
    {0, "raw", NULL, "bodies as they are, nothing between them", CLI_FLAG, &args.raw, NULL, 0, 0},
    {'0', "null", NULL, "NUL after each body instead of a newline", CLI_FLAG, &args.nul, NULL, 0,
     0},
    {0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0},
};

struct subscriber {
    struct cli *cli;
    const char *topic, *group;
    shmq_channel *channel;
    shmq_consumer *consumer;
    enum format_kind kind;
    struct outbuf out;
    struct progress progress;
    const atomic_bool *stop;
    uint64_t deadline_ns;
    uint64_t standby_owner; /* who was named last; 0: not standing by */
    uint64_t *lost;         /* bytes a partition, as last said */
    uint32_t lost_count;
    uint64_t lost_said_ns;
    bool loss_seen;
    bool damaged; /* a partition is quarantined */
};

/* ---- Options ---------------------------------------------------------------------------------- */

static int parse_from(const struct cli *cli, struct shmq_consumer_options *consumer_options)
{
    struct error_buffer why;
    uint64_t offset;

    consumer_options->from = SHMQ_FROM_COMMITTED;
    if (!args.from)
        return CLI_OK;
    if (strcmp(args.from, "earliest") == 0) {
        consumer_options->from = SHMQ_FROM_EARLIEST;
    } else if (strcmp(args.from, "latest") == 0) {
        consumer_options->from = SHMQ_FROM_LATEST;
    } else if (units_parse_count(args.from, 0, UINT64_MAX / 2, &offset, &why) == 0) {
        consumer_options->from = SHMQ_FROM_OFFSET;
        consumer_options->from_offset = offset;
    } else if (moment_parse(args.from, clock_realtime_ns(), &consumer_options->from_time_ns)) {
        consumer_options->from = SHMQ_FROM_TIME;
    } else {
        return cli_usage(cli,
                         "--from: '%.40s' is none of earliest, latest, an offset, or " MOMENT_HELP,
                         args.from);
    }
    return CLI_OK;
}

static int parse_format(const struct cli *cli, enum format_kind *ret_kind)
{
    const char *mistake;

    if ((args.format != NULL) + cli->json + args.raw + args.nul > 1)
        return cli_usage(cli, "--format, --json, --raw and -0 exclude each other");
    *ret_kind = cli->json  ? FORMAT_JSON
                : args.raw ? FORMAT_RAW
                : args.nul ? FORMAT_NUL
                           : FORMAT_LINE;
    if (!args.format)
        return CLI_OK;
    mistake = format_check_template(args.format);
    if (mistake)
        return cli_usage(cli, "--format: '%.2s' is unknown; there are " FORMAT_WORDS, mistake);
    *ret_kind = FORMAT_TEMPLATE;
    return CLI_OK;
}

/* ---- Remarks on stderr ------------------------------------------------------------------------- */

static void say_standby(struct subscriber *s)
{
    struct shmq_consumer_info info;

    if (shmq_consumer_describe(s->consumer, &info) < 0)
        return;
    if (info.owned > 0 || info.owner == 0) {
        if (s->standby_owner != 0 && info.owned > 0) {
            cli_note(s->cli, "took over: group %s of %s is served here now", s->group, s->topic);
            s->standby_owner = 0;
        }
        return;
    }
    if (info.owner == s->standby_owner)
        return;
    cli_note(s->cli,
             "standing by: group %s of %s is served by client %" PRIu64 " (pid %" PRIu32 ", %.16s)",
             s->group, s->topic, info.owner, info.owner_pid, info.owner_command);
    s->standby_owner = info.owner;
}

/* Why messages are lost, and what to do. */
static const char *loss_words(const struct subscriber *s)
{
    struct shmq_topic_info info = {.durability = SHMQ_DURABLE_NONE};

    if (shmq_topic_describe(s->cli->connection, s->topic, &info) < 0 ||
        info.durability == SHMQ_DURABLE_NONE)
        return "bytes were overwritten before they were read (overflow drop-old); read faster, or create the "
               "topic with a larger --ring";
    if (info.overflow == SHMQ_DROP_OLD)
        return "bytes are lost: overwritten before they were read (overflow drop-old), no longer retained, or "
               "damaged on disk; read faster, or see shmq journal verify";
    return "bytes are lost: no longer retained, or damaged on disk; read faster or retain more (shmq topic "
           "alter), or see shmq journal verify";
}

/* At most once a second, and at the end: a lapped reader is lapped often. */
static void say_losses(struct subscriber *s, bool now)
{
    struct shmq_position position;
    struct shmq_consumer_info info;

    if (!s->loss_seen || (!now && clock_monotonic_ns() - s->lost_said_ns < NS_PER_S) ||
        shmq_consumer_describe(s->consumer, &info) < 0)
        return;
    if (info.partitions > s->lost_count) {
        s->lost = tool_realloc(s->lost, info.partitions * sizeof(*s->lost));
        memset(s->lost + s->lost_count, 0, (info.partitions - s->lost_count) * sizeof(*s->lost));
        s->lost_count = info.partitions;
    }
    for (uint32_t i = 0; i < info.partitions; i++) {
        if (shmq_consumer_position(s->consumer, i, &position) < 0 ||
            position.lost_bytes == s->lost[i])
            continue;
        progress_clear(&s->progress);
        (void)cli_fail(CLI_OK, "%s/%" PRIu32 ": %" PRIu64 " %s", s->topic, i,
                       position.lost_bytes - s->lost[i], loss_words(s));
        s->lost[i] = position.lost_bytes;
    }
    s->lost_said_ns = clock_monotonic_ns();
    s->loss_seen = false;
}

/* --from says nothing to a group that exists; its user should know. */
static void say_group_exists(struct subscriber *s)
{
    struct shmq_group_info *groups = NULL;
    int count;

    if (!args.from || s->cli->quiet)
        return;
    count = tool_list_groups(s->cli->connection, s->topic, &groups);
    for (int i = 0; i < count; i++) {
        if (strcmp(groups[i].name, s->group) == 0)
            cli_note(s->cli,
                     "group %s of %s exists: it goes on from where it left off, not from '%s'; "
                     "choose another name with -g for a new one",
                     s->group, s->topic, args.from);
    }
    free(groups);
}

/* ---- The loop --------------------------------------------------------------------------------- */

static int fail_output(struct subscriber *s, int error)
{
    progress_clear(&s->progress);
    if (error == EINTR)
        return CLI_OK; /* stopped: said at the end */
    if (error == EPIPE)
        return cli_fail(CLI_FAILED,
                        "output: its reader has gone; what it did not take stays with group %s",
                        s->group);
    return cli_fail(CLI_FAILED, "output: %s; what was not written stays with group %s",
                    strerror(error), s->group);
}

/* Writes, then commits. CLI_OK; *ret_done false: not all was written, nothing was committed. */
static int deliver(struct subscriber *s, const struct shmq_message *messages, int count,
                   bool *ret_done)
{
    uint64_t bytes = 0;
    int error = 0;
    int rc;

    *ret_done = false;
    for (int i = 0; i < count && error == 0; i++) {
        format_message(&s->out, s->kind, args.format, &messages[i]);
        bytes += messages[i].body_length;
        s->loss_seen |= (messages[i].flags & SHMQ_MESSAGE_AFTER_LOSS) != 0;
        if (s->out.length >= BUFFER_BYTES)
            error = outbuf_write(&s->out, 1, s->stop);
    }
    if (error == 0)
        error = outbuf_write(&s->out, 1, s->stop);
    if (error != 0)
        return fail_output(s, error);
    *ret_done = true;
    rc = shmq_commit_offsets(s->consumer);
    if (rc == SHMQ_EFENCED)
        cli_note(s->cli, "%s", shmq_errmsg(s->cli->connection));
    else if (rc < 0)
        return cli_fail_library(s->cli, rc);
    progress_add(&s->progress, (uint64_t)count, bytes);
    return CLI_OK;
}

static uint64_t count_left(const struct subscriber *s)
{
    return args.count == CLI_UNSET ? UINT64_MAX : args.count - s->progress.messages;
}

static int read_messages(struct subscriber *s)
{
    static struct shmq_message messages[BATCH_MAX];

    while (!*s->stop && count_left(s) > 0 && !deadline_passed(s->deadline_ns)) {
        int wait_ms = deadline_left_ms(s->deadline_ns);
        int count = shmq_poll(s->consumer, messages, (uint32_t)min_u64(BATCH_MAX, count_left(s)),
                              wait_ms < WAIT_MS ? wait_ms : WAIT_MS);
        bool done = true;
        int rc = CLI_OK;

        if (count == SHMQ_ECORRUPT && !s->damaged) {
            s->damaged = true; /* the other partitions go on */
            (void)cli_fail_library(s->cli, count);
        } else if (count < 0) {
            progress_clear(&s->progress);
            return cli_fail_library(s->cli, count);
        } else if (count > 0) {
            rc = deliver(s, messages, count, &done);
        }
        if (rc != CLI_OK || !done)
            return rc;
        if (count == 0) {
            say_standby(s);
            progress_add(&s->progress, 0, 0);
        }
        say_losses(s, false);
    }
    return CLI_OK;
}

/* Why the loop ended, as exit code and sentence. */
static int conclude(struct subscriber *s)
{
    const char *words = cli_plural(s->progress.messages, "message", "messages");
    char text[UNITS_TEXT_BYTES];

    progress_clear(&s->progress);
    say_losses(s, true);
    if (count_left(s) == 0)
        return s->damaged ? CLI_FAILED : CLI_OK;
    if (*s->stop) {
        cli_note(s->cli, "sub: interrupted: %" PRIu64 " %s received", s->progress.messages, words);
        return args.count == CLI_UNSET && !s->damaged ? CLI_OK : CLI_FAILED;
    }
    cli_note(s->cli, "sub: timed out after %s: %" PRIu64 " %s received",
             units_format_duration(args.timeout, text), s->progress.messages, words);
    return CLI_TIMED_OUT;
}

static int run_sub(struct cli *cli)
{
    struct shmq_consumer_options consumer_options = SHMQ_CONSUMER_OPTIONS_INIT;
    struct subscriber s = {.cli = cli,
                           .topic = cli->operands[0],
                           .group = args.group ? args.group : "default",
                           .deadline_ns = DEADLINE_NEVER};
    int rc = parse_from(cli, &consumer_options);

    if (rc == CLI_OK)
        rc = parse_format(cli, &s.kind);
    if (rc == CLI_OK)
        rc = cli_connect(cli);
    if (rc != CLI_OK)
        return rc;
    say_group_exists(&s);
    s.stop = cli_catch_signals();
    if (args.timeout != CLI_UNSET)
        s.deadline_ns = clock_monotonic_ns() + args.timeout;
    consumer_options.group = args.group;
    consumer_options.commit = SHMQ_COMMIT_MANUAL;
    consumer_options.read = args.read ? SHMQ_READ_DURABLE : SHMQ_READ_ANY;
    rc = shmq_channel_open(cli->connection, &s.channel);
    if (rc >= 0)
        rc = shmq_consumer_open(s.channel, s.topic, &consumer_options, &s.consumer);
    if (rc < 0)
        return cli_fail_library(cli, rc);
    progress_init(&s.progress, cli, "received", !isatty(1));
    rc = read_messages(&s);
    if (rc == CLI_OK)
        rc = conclude(&s);
    shmq_channel_close(s.channel); /* leaves the group; commits nothing more */
    outbuf_free(&s.out);
    free(s.lost);
    return rc;
}

const struct cli_command TOOL_SUB[] = {
    {"sub", NULL, "TOPIC", 1, 1, "Writes the messages of a topic to stdout, a body a line.",
     "Every group gets every message; among the members of one group each partition has one "
     "reader, further ones stand by and take over when it ends. A message is committed when it has "
     "been written to stdout: killed at any point, sub loses nothing, but the last messages may "
     "come again.\n\n"
     "Exit codes: 0 when COUNT messages were received, or without -n at ^C; 3 when the timeout "
     "passed first.",
     "  shmq sub orders\n"
     "  shmq sub orders -g billing -n 10 -t 5s\n"
     "  shmq sub orders -g audit --from latest --json | jq .body\n"
     "  shmq sub orders -g again --from 2026-11-25T08:00 -n 100    of a durable topic: from disk\n"
     "  shmq sub orders -g recent --from -10m --read durable\n"
     "  shmq sub orders --format '%T %p:%o %k %b\\n'\n"
     "  shmq sub files -0 | xargs -0 ls -l\n"
     "  shmq sub images -n 1 --raw > image.png\n",
     options, run_sub},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
