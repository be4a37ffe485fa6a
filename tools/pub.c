/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq pub: publishes a text, a file, lines or generated load.
 *
 * When it exits with 0, every message was published, and with --confirm durable is in the journal as well:
 * published is what a library call said, not what was read. Killed at any point, what it had not published is never seen, and no message is seen in
 * part. Waiting for room is done in slices, so that ^C is heard.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "libshmq/clock.h"
#include "libshmq/units.h"
#include "tools/nouns.h"
#include "tools/outbuf.h"
#include "tools/progress.h"
#include "tools/pub_confirm.h"
#include "tools/pub_input.h"

#define SLICE_MS     200
#define SIZE_DEFAULT 100
#define HEADERS_MAX  65535u
#define DONE_BYTES   128

enum { CONFIRM_NONE, CONFIRM_PUBLISHED, CONFIRM_DURABLE };

static struct {
    const char *message, *file, *key, *key_separator;
    struct cli_list headers;
    uint64_t partition, confirm, rate, timeout, count, size;
    bool lines, nul;
} args = {
    .partition = CLI_UNSET,
    .confirm = CONFIRM_PUBLISHED,
    .rate = CLI_UNSET,
    .timeout = CLI_UNSET,
    .count = CLI_UNSET,
    .size = CLI_UNSET,
};

static const struct cli_option options[] = {
    {'m', "message", "TEXT", "publish TEXT", CLI_TEXT, &args.message, NULL, 0, 0},
    {'f', "file", "FILE", "publish the whole file as one message; - is stdin", CLI_TEXT, &args.file,
     NULL, 0, 0},
    {'l', "lines", NULL, "publish stdin, a message a line (default unless stdin is a terminal)",
     CLI_FLAG, &args.lines, NULL, 0, 0},
    {'0', "null", NULL, "as -l, but messages end with NUL: for bodies that hold newlines", CLI_FLAG,
     &args.nul, NULL, 0, 0},
    {'k', "key", "KEY", "key of the messages: one key, one partition, in order", CLI_TEXT,
     &args.key, NULL, 0, 0},
    {0, "key-separator", "C", "each line is KEY, then C, then the body; \\t is a tab", CLI_TEXT,
     &args.key_separator, NULL, 0, 0},
    {'H', "header", "NAME=VALUE", "adds a header; may be repeated", CLI_LIST, &args.headers, NULL,
     0, 0},
    {0, "partition", "N", "publish to this partition instead of choosing one", CLI_COUNT,
     &args.partition, NULL, 0, UINT32_MAX},
    {'n', "count", "COUNT", "publish COUNT messages: generated ones, or TEXT or FILE as often",
     CLI_COUNT, &args.count, NULL, 1, UINT64_MAX / 2},
    {0, "size", "BYTES", "size of generated messages (100)", CLI_SIZE, &args.size, NULL, 0, 0},
    {0, "confirm", "LEVEL",
     "published (default): every group will get the message; durable: it is kept as the topic's --durable "
     "promises; none",
     CLI_CHOICE, &args.confirm, "none|published|durable", 0, 0},
    {0, "rate", "N", "at most N messages a second", CLI_COUNT, &args.rate, NULL, 1, 1000000000},
    {0, "timeout", "DUR",
     "how long a message may wait for room in a full ring, and for its confirm (10s); 0: not at all",
     CLI_DURATION, &args.timeout, NULL, 0, 0},
    {0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0},
};

struct publisher {
    struct cli *cli;
    shmq_channel *channel;
    shmq_producer *producer;
    struct input input;
    struct progress progress;
    const atomic_bool *stop;
    uint64_t timeout_ns;
    uint64_t next_ns; /* --rate: when the next message is due */
    bool blocks;      /* the topic's policy: a full ring is worth waiting for */
    char *headers;
    size_t headers_length;
    struct shmq_message last; /* published */
    struct confirms confirms;
};

/* ---- Options ---------------------------------------------------------------------------------- */

/* \t, \n and \\ in a separator. */
static const char *unescape(const char *text)
{
    static char made[64];
    char *to = made;

    for (; *text && to < made + sizeof(made) - 1; text++) {
        if (*text == '\\' && (text[1] == 't' || text[1] == 'n' || text[1] == '\\'))
            *to++ = *++text == 't' ? '\t' : *text == 'n' ? '\n' : '\\';
        else
            *to++ = *text;
    }
    *to = '\0';
    return made;
}

/* Which source the options name. CLI_OK or CLI_USAGE. */
static int choose_input(const struct cli *cli, struct input *input)
{
    bool counted = args.count != CLI_UNSET;
    int sources = (args.message != NULL) + (args.file != NULL) + (args.lines || args.nul);

    if (sources > 1)
        return cli_usage(cli, "-m, -f and -l (or -0) exclude each other: one source of messages");
    if (args.size != CLI_UNSET && (!counted || sources > 0))
        return cli_usage(cli, "--size is for generated messages: -n COUNT --size BYTES, without "
                              "-m, -f, -l");
    if (counted && (args.lines || args.nul))
        return cli_usage(cli, "-n does not go with -l: lines are published until they end");
    if (args.key && args.key_separator)
        return cli_usage(cli, "-k and --key-separator exclude each other");
    input->count = counted ? args.count : 1;
    if (args.message) {
        input->kind = INPUT_TEXT;
        input->text = args.message;
    } else if (args.file) {
        input->kind = INPUT_FILE;
        input->text = args.file;
    } else if (counted) {
        input->kind = INPUT_GENERATED;
        input->size = args.size == CLI_UNSET ? SIZE_DEFAULT : args.size;
    } else {
        if (sources == 0 && isatty(0))
            return cli_usage(cli, "nothing to publish: give -m TEXT, -f FILE, or -l to type lines");
        input->kind = INPUT_LINES;
        input->separator = args.nul ? '\0' : '\n';
    }
    if (args.key_separator) {
        if (input->kind != INPUT_LINES || !*args.key_separator || strlen(args.key_separator) > 60)
            return cli_usage(cli, "--key-separator is for lines (-l), and has 1-60 characters");
        input->key_separator = unescape(args.key_separator);
    }
    return CLI_OK;
}

static int build_headers(struct publisher *p)
{
    if (args.headers.count == 0)
        return CLI_OK;
    p->headers = tool_alloc(HEADERS_MAX);
    for (unsigned i = 0; i < args.headers.count; i++) {
        const char *item = args.headers.items[i];
        const char *equals = strchr(item, '=');
        char name[256];
        int rc;

        if (!equals || equals == item || (size_t)(equals - item) >= sizeof(name))
            return cli_usage(p->cli, "-H '%.60s': a header is NAME=VALUE, the name 1-255 bytes",
                             item);
        (void)snprintf(name, sizeof(name), "%.*s", (int)(equals - item), item);
        rc = shmq_headers_add(p->headers, HEADERS_MAX, &p->headers_length, name, equals + 1,
                              strlen(equals + 1));
        if (rc < 0)
            return cli_usage(p->cli, "-H '%.60s': %s; headers have at most 64K in all", item,
                             shmq_strerror(rc));
    }
    return CLI_OK;
}

/* ---- Publishing ------------------------------------------------------------------------------- */

/* Waits until at least one message is due; how many of `want` are, at most a tenth of a second's. */
static uint32_t take_rate(struct publisher *p, uint32_t want)
{
    uint64_t gap_ns = NS_PER_S / args.rate;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t due;

    if (gap_ns == 0)
        return want; /* a message a nanosecond is no limit */
    if (p->next_ns == 0)
        p->next_ns = now_ns;
    while (now_ns < p->next_ns && !*p->stop) {
        struct timespec until = timespec_from_ns(p->next_ns);

        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        now_ns = clock_monotonic_ns();
    }
    if (*p->stop)
        return 0;
    /* Slow input does not save up for a burst later. */
    if (now_ns - p->next_ns > NS_PER_S / 10)
        p->next_ns = now_ns - NS_PER_S / 10;
    due = min_u64((now_ns - p->next_ns) / gap_ns + 1, want);
    p->next_ns += due * gap_ns;
    return (uint32_t)due;
}

/* "17 messages were published", and with --confirm durable "…, 3 of them are not confirmed". */
static const char *show_done(struct publisher *p, char text[DONE_BYTES])
{
    uint64_t open = confirms_count(&p->confirms);
    int length = snprintf(text, DONE_BYTES, "%" PRIu64 " %s published", p->progress.messages,
                          cli_plural(p->progress.messages, "message was", "messages were"));

    if (args.confirm == CONFIRM_DURABLE)
        (void)snprintf(text + length, (size_t)(DONE_BYTES - length),
                       ", %" PRIu64 " of them %s not confirmed", open,
                       cli_plural(open, "is", "are"));
    return text;
}

static int fail_publish(struct publisher *p, int error, bool waited)
{
    int code = error == SHMQ_EFULL && waited ? CLI_TIMED_OUT : cli_exit_code(error);
    char sentence[1024];
    char text[DONE_BYTES];

    /* First: counting asks the library, too. */
    (void)snprintf(sentence, sizeof(sentence), "%s", shmq_errmsg(p->cli->connection));
    progress_clear(&p->progress);
    return cli_fail(code, "%s (%s)", sentence, show_done(p, text));
}

/* All of a batch, waiting for room up to the timeout. CLI_OK, also when stopped halfway, or an exit
 * code after having said why. */
static int publish_batch(struct publisher *p, struct shmq_message *messages, uint32_t count)
{
    uint64_t deadline_ns = 0;

    while (count > 0 && !*p->stop) {
        uint32_t due = args.rate == CLI_UNSET ? count : take_rate(p, count);
        uint64_t bytes = 0;
        int done;

        if (due == 0)
            break;
        done = shmq_publish_batch(p->producer, messages, due);
        if (done < 0) {
            if (done != SHMQ_EFULL || !p->blocks)
                return fail_publish(p, done, false);
            if (deadline_ns == 0) /* the call has waited for a slice already */
                deadline_ns = clock_monotonic_ns() + p->timeout_ns -
                              min_u64(p->timeout_ns, SLICE_MS * NS_PER_MS);
            if (deadline_passed(deadline_ns))
                return fail_publish(p, done, true);
            progress_add(&p->progress, 0, 0);
            continue;
        }
        for (int i = 0; i < done; i++)
            bytes += messages[i].body_length;
        progress_add(&p->progress, (uint64_t)done, bytes);
        if (done > 0) {
            p->last = messages[done - 1];
            deadline_ns = 0;
            confirms_note(&p->confirms, messages, (uint32_t)done);
        }
        if (confirms_due(&p->confirms)) {
            int rc = confirms_wait(&p->confirms, p->timeout_ns, false);

            if (rc < 0)
                return fail_publish(p, rc, true);
        }
        messages += done;
        count -= (uint32_t)done;
    }
    return CLI_OK;
}

static int publish_all(struct publisher *p)
{
    struct shmq_message messages[INPUT_BATCH_MAX];
    char text[DONE_BYTES];
    int count;

    do {
        int rc;

        memset(messages, 0, sizeof(messages));
        count = input_next(&p->input, messages, INPUT_BATCH_MAX, p->stop);
        for (int i = 0; i < count; i++) {
            if (args.key) {
                messages[i].key = args.key;
                messages[i].key_length = (uint16_t)strlen(args.key);
            }
            messages[i].headers = p->headers;
            messages[i].headers_length = (uint16_t)p->headers_length;
            if (args.partition != CLI_UNSET) {
                messages[i].partition = (uint32_t)args.partition;
                messages[i].flags = SHMQ_MESSAGE_PARTITION;
            }
        }
        rc = count > 0 ? publish_batch(p, messages, (uint32_t)count) : CLI_OK;
        if (rc != CLI_OK)
            return rc;
    } while (count > 0 && !*p->stop);
    progress_clear(&p->progress);
    /* Also behind a mistake in the input: what came before it counts. */
    if (!*p->stop) {
        int rc = confirms_wait(&p->confirms, p->timeout_ns, true);

        if (rc < 0)
            return fail_publish(p, rc, true);
    }
    if (*p->stop)
        return cli_fail(CLI_FAILED, "pub: interrupted: %s", show_done(p, text));
    if (count < 0)
        return cli_fail(CLI_FAILED, "pub: stopped there: %s before", show_done(p, text));
    return CLI_OK;
}

/* ---- Opening ---------------------------------------------------------------------------------- */

static int open_publisher(struct publisher *p)
{
    struct shmq_producer_options producer_options = SHMQ_PRODUCER_OPTIONS_INIT;
    const char *topic = p->cli->operands[0];
    struct shmq_topic_info info;
    uint64_t slice_ms = min_u64(p->timeout_ns / NS_PER_MS, SLICE_MS);
    int rc = cli_connect(p->cli);

    if (rc != CLI_OK)
        return rc;
    rc = shmq_topic_describe(p->cli->connection, topic, &info);
    if (rc < 0)
        return cli_fail_library(p->cli, rc);
    if (args.confirm == CONFIRM_DURABLE && info.durability == SHMQ_DURABLE_NONE)
        return cli_fail(CLI_FAILED,
                        "--confirm durable: topic '%s' is not durable: its messages are never "
                        "written to disk; use --confirm published",
                        topic);
    if (args.partition != CLI_UNSET && args.partition >= info.partitions)
        return cli_fail(CLI_USAGE,
                        "--partition %" PRIu64 ": topic '%s' has partitions 0 to %" PRIu32
                        "; choose one of them",
                        args.partition, topic, info.partitions - 1);
    p->blocks = info.overflow == SHMQ_BLOCK;
    p->input.max_message = info.max_message;
    rc = input_open(&p->input, p->cli);
    if (rc != CLI_OK)
        return rc;
    producer_options.timeout_ms = slice_ms > 0 ? (int32_t)slice_ms : -1;
    rc = shmq_channel_open(p->cli->connection, &p->channel);
    if (rc >= 0)
        rc = shmq_producer_open(p->channel, topic, &producer_options, &p->producer);
    if (rc < 0)
        return cli_fail_library(p->cli, rc);
    p->stop = cli_catch_signals();
    confirms_init(&p->confirms, args.confirm == CONFIRM_DURABLE ? p->producer : NULL, p->stop);
    return CLI_OK;
}

static void print_summary(struct publisher *p)
{
    uint64_t took_ns = clock_monotonic_ns() - p->progress.started_ns;
    struct outbuf out = {0};
    struct json json;

    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_string(&json, "topic", p->cli->operands[0]);
    json_number(&json, "messages", p->progress.messages);
    if (args.confirm == CONFIRM_DURABLE)
        json_number(&json, "confirmed", p->progress.messages - confirms_count(&p->confirms));
    json_number(&json, "bytes", p->progress.bytes);
    json_number(&json, "duration_ms", took_ns / NS_PER_MS);
    if (p->progress.messages > 0) {
        json_number(&json, "last_partition", p->last.partition);
        json_number(&json, "last_offset", p->last.offset);
    }
    json_object_end(&json);
    tool_print(&out);
}

static int run_pub(struct cli *cli)
{
    struct publisher p = {.cli = cli, .timeout_ns = SHMQ_TIMEOUT_DEFAULT * NS_PER_MS};
    int rc = choose_input(cli, &p.input);

    if (args.timeout != CLI_UNSET)
        p.timeout_ns = min_u64(args.timeout, SHMQ_TIMEOUT_MAX * NS_PER_MS);
    if (rc == CLI_OK && args.key && strlen(args.key) > UINT16_MAX)
        rc = cli_usage(cli, "-k: a key has at most 65535 bytes");
    if (rc == CLI_OK)
        rc = build_headers(&p);
    if (rc == CLI_OK)
        rc = open_publisher(&p);
    if (rc == CLI_OK) {
        progress_init(&p.progress, cli, "published", p.input.kind != INPUT_LINES || !isatty(0));
        rc = publish_all(&p);
        if (cli->json)
            print_summary(&p);
    }
    confirms_free(&p.confirms);
    shmq_channel_close(p.channel);
    input_close(&p.input);
    free(p.headers);
    return rc;
}

const struct cli_command TOOL_PUB[] = {
    {"pub", NULL, "TOPIC", 1, 1, "Publishes a text, a file, lines of stdin, or generated load.",
     "Exits with 0 only when every message is confirmed as asked; else it says how many are. Confirms "
     "on disk do not slow it down: it publishes on, and waits for the last ones at the end. With the "
     "overflow policy 'block' a full ring makes it wait up to --timeout for each message (exit code "
     "3 then, and who holds the ring); with 'reject' it fails at once. Lines are published as they "
     "come, in batches when they come fast. ^C stops it cleanly.",
     "  shmq pub orders -m 'one message'\n"
     "  shmq pub orders -k customer-7 -H type=new -f order.json\n"
     "  journalctl -f | shmq pub log\n"
     "  shmq pub orders --key-separator : < keyed.txt\n"
     "  find /data -print0 | shmq pub files -0\n"
     "  shmq pub payments -f payment.json --confirm durable        exit 0: it survives the host\n"
     "  shmq pub load -n 1000000 --size 200 --rate 50000\n",
     options, run_pub},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
