/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq journal repair: what is to be done to a journal so that readers find all that holds. It is done in this order,
 * each step to all files of a partition, oldest first:
 *
 *     what was never finished is removed (NAME.tmp, next.tmp, begin.tmp)
 *     names become what the headers say
 *     damaged headers are made up from records and neighbours, in memory
 *     files with such a header, or with stretches in which nothing holds, are made anew
 *
 * Run again it finds less to do, and in the end nothing. The supervisor's lock is held meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/journal.h"
#include "tools/json.h"
#include "tools/nouns.h"

#define FILE_MOST (UINT64_C(64) << 20) /* docs/journal-format.md, "The jump" */

struct repairer {
    struct cli *cli;
    struct history *history;
    uint64_t done;
    uint64_t left; /* what was found and could not, or may not, be repaired */

    /* Of the file in hand. */
    size_t index;
    struct rewrite_stretch *stretches;
    enum journal_stop *stops;
    size_t count;
    size_t room;
};

/* One line: what was done, would be done, or is left. */
static void say(struct repairer *r, const char *action, const char *file, uint64_t offset,
                uint64_t length, const char *format, ...) PRINTF_LIKE(6, 7);

static void say(struct repairer *r, const char *action, const char *file, uint64_t offset,
                uint64_t length, const char *format, ...)
{
    char text[sizeof(struct error_buffer) + 256];
    bool left = strcmp(action, "left") == 0;
    struct outbuf out = {0};
    struct json json;
    va_list arguments;

    r->left += left;
    r->done += !left;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    text_make_printable(text);
    if (!r->cli->json) {
        printf("%s/%s: %s%s\n", r->history->path, file,
               left                        ? "left as it is: "
               : journal_arguments.dry_run ? "would be "
                                           : "",
               text);
        return;
    }
    json_init(&json, &out);
    json_object_begin(&json, NULL);
    json_string(&json, "action", action);
    json_boolean(&json, "done", !left && !journal_arguments.dry_run);
    json_string(&json, "path", r->history->path);
    json_string(&json, "file", file);
    if (length > 0) {
        json_number(&json, "offset", offset);
        json_number(&json, "length", length);
    }
    json_string(&json, "text", text);
    json_object_end(&json);
    tool_print(&out);
}

static bool is_meant(const struct history *history, size_t index)
{
    return history->only == SIZE_MAX || history->only == index;
}

/* ---- names -------------------------------------------------------------------------------------- */

static void remove_strays(struct repairer *r)
{
    const struct history *history = r->history;

    for (size_t i = 0; i < history->stray_count; i++) {
        const char *name = history->strays[i];
        char log_name[JOURNAL_NAME_BYTES] = "";
        struct error_buffer why;
        uint64_t base;

        /* The supervisor's, or a file's name: others are not ours. */
        if (strlen(name) < sizeof(log_name))
            (void)snprintf(log_name, sizeof(log_name), "%.*s.log", (int)strlen(name) - 4, name);
        if (strcmp(name, "next.tmp") != 0 && strcmp(name, "begin.tmp") != 0 &&
            !journal_parse_name(log_name, &base))
            continue;
        if (journal_arguments.dry_run || rewrite_remove(history, name, &why) == 0)
            say(r, "remove", name, 0, 0, "removed: it was never finished, and holds nothing");
        else
            say(r, "left", name, 0, 0, "%s", why.text);
    }
}

static void rename_file(struct repairer *r, size_t index)
{
    struct history_file *file = &r->history->files[index];
    char name[JOURNAL_NAME_BYTES];
    struct error_buffer why;
    int rc;

    journal_format_name(file->entry.base, name);
    rc = journal_arguments.dry_run ? rewrite_is_taken(r->history, file->name, name)
                                   : rewrite_rename(r->history, file->name, name, &why);
    if (rc == 0)
        say(r, "rename", file->name, 0, 0,
            "renamed to %s, which is where its header says it begins", name);
    else if (rc == 1)
        say(r, "left", file->name, 0, 0, "%s", file->why.text);
    else
        say(r, "left", file->name, 0, 0, "%s", why.text);
    if (rc != 0 || file->flaw == HISTORY_DOUBLE)
        return;
    file->flaw = HISTORY_SOUND;
    if (!journal_arguments.dry_run) { /* else it is still read by the old one */
        free(file->name);
        file->name = tool_strdup(name);
    }
}

/* ---- headers ------------------------------------------------------------------------------------ */

/* Did the log jump to `base`? It does so by whole rings from above the newest file, which counts FILE_MOST at least. Where a
 * file is missing instead, the next one begins where that one ended, hardly ever at such a place. */
static bool is_jump(const struct history_file *before, uint64_t base)
{
    uint64_t above =
        before->entry.base + align_up_u64(max_u64(before->entry.bytes, FILE_MOST), RECORD_UNIT);

    return base > above && (base - above) % RING_MIN_BYTES == 0;
}

static size_t find_before(const struct history *history, size_t index)
{
    size_t before = history->count;

    for (size_t i = history_first(history); i < index; i = history_next(history, i))
        before = i;
    return before;
}

/* What the header of files[index] must have said, as far as it can be known; where not, what makes readers and
 * retention keep more rather than less. */
static bool make_header(struct repairer *r, size_t index, struct error_buffer *why)
{
    struct history *history = r->history;
    struct history_file *file = &history->files[index];
    struct journal_entry *entry = &file->entry;
    size_t before = find_before(history, index);
    size_t next = history_next(history, index);
    struct history_sum sum;

    entry->previous_end = entry->durable = entry->base;
    entry->messages = entry->max_timestamp_ns = 0;
    file->topic = history->topic;
    file->partition = history->partition;
    if (before != history->count) {
        if (history_sum(history, before, &sum, why) < 0)
            return false;
        if (is_jump(&history->files[before], entry->base))
            entry->previous_end = sum.end;
        entry->messages = history->files[before].entry.messages + sum.messages;
        entry->max_timestamp_ns =
            max_u64(history->files[before].entry.max_timestamp_ns, sum.max_timestamp_ns);
    } else if (next != history->count && !history->files[next].entry.damaged) {
        if (history_sum(history, index, &sum, why) < 0)
            return false;
        entry->messages = max_u64(history->files[next].entry.messages, sum.messages) - sum.messages;
    }
    if (!file->topic && before != history->count) {
        file->topic = history->files[before].topic;
        file->partition = history->files[before].partition;
    } else if (!file->topic && next != history->count) {
        file->topic = history->files[next].topic;
        file->partition = history->files[next].partition;
    }
    entry->damaged = false;
    return true;
}

/* Makes up those that can be; true where files[index] is one. */
static bool *make_headers(struct repairer *r)
{
    struct history *history = r->history;
    bool *made = tool_alloc((history->count + 1) * sizeof(*made));

    for (size_t i = history_first(history); i < history->count; i = history_next(history, i)) {
        const struct history_file *file = &history->files[i];
        struct error_buffer why;

        if (file->flaw != HISTORY_DAMAGED || !file->readable)
            continue;
        made[i] = make_header(r, i, &why);
        if (!made[i] && is_meant(history, i))
            say(r, "left", file->name, 0, 0, "%s", why.text);
    }
    return made;
}

/* ---- stretches ---------------------------------------------------------------------------------- */

/* A history_event_fn. */
static int see_event(void *context, const struct history_event *event)
{
    struct repairer *r = context;

    if (event->kind == HISTORY_MISSING)
        say(r, "left", r->history->files[event->index].name, event->offset, event->length,
            "the log from offset %" PRIu64 " to %" PRIu64 " stands in no file", event->offset,
            event->offset + event->length);
    if (event->kind == HISTORY_UNCLEAR)
        say(r, "left", r->history->files[event->index].name, event->offset, event->length,
            "nothing holds from offset %" PRIu64
            " up to the next file, whose header would say whether it belongs to the log",
            event->offset);
    if (event->kind != HISTORY_LOST)
        return 0;
    if (r->count == r->room) {
        r->room = r->room ? 2 * r->room : 16;
        r->stretches = tool_realloc(r->stretches, r->room * sizeof(*r->stretches));
        r->stops = tool_realloc(r->stops, r->room * sizeof(*r->stops));
    }
    r->stops[r->count] = event->stop;
    r->stretches[r->count++] =
        (struct rewrite_stretch){.offset = event->offset, .length = event->length};
    return 0;
}

static void rewrite(struct repairer *r, bool made)
{
    const struct history_file *file = &r->history->files[r->index];
    struct journal_header header = history_header(file);
    char kept[REWRITE_NAME_BYTES] = "";
    struct error_buffer why;

    if (!journal_arguments.dry_run &&
        rewrite_file(r->history, r->index, &header, r->stretches, r->count, kept, &why) < 0) {
        say(r, "left", file->name, 0, 0, "%s", why.text);
        return;
    }
    if (made)
        say(r, "header", file->name, 0, 0,
            "given a new header: offset %" PRIu64 ", salt %016" PRIx64
            " as in its records, log before it up to %" PRIu64,
            header.base, header.salt, header.previous_end);
    for (size_t i = 0; i < r->count; i++)
        say(r, "padding", file->name, r->stretches[i].offset, r->stretches[i].length,
            "padded over at offset %" PRIu64 ", %" PRIu64 " bytes: %s", r->stretches[i].offset,
            r->stretches[i].length, history_stop_text(r->stops[i]));
    say(r, "rewrite", file->name, 0, 0, "made anew; the old one is kept as %s",
        *kept ? kept : "NAME.log.damaged");
}

static void repair_file(struct repairer *r, size_t index, bool made)
{
    const struct history_file *file = &r->history->files[index];
    struct error_buffer why;

    if (file->flaw != HISTORY_SOUND && !made) {
        say(r, "left", file->name, 0, 0, "%s", file->why.text);
        return;
    }
    r->index = index;
    r->count = 0;
    if (history_walk(r->history, index, 0, see_event, r, &why) < 0)
        say(r, "left", file->name, 0, 0, "%s", why.text);
    else if (made || r->count > 0)
        rewrite(r, made);
}

static void repair_history(struct repairer *r, struct history *history)
{
    bool *made;

    r->history = history;
    if (history->only == SIZE_MAX)
        remove_strays(r);
    for (size_t i = 0; i < history->count; i++) {
        enum history_flaw flaw = history->files[i].flaw;

        if (is_meant(history, i) && (flaw == HISTORY_MISNAMED || flaw == HISTORY_DOUBLE))
            rename_file(r, i);
    }
    made = make_headers(r);
    for (size_t i = 0; i < history->count; i++) {
        enum history_flaw flaw = history->files[i].flaw;

        if (is_meant(history, i) && flaw != HISTORY_MISNAMED && flaw != HISTORY_DOUBLE)
            repair_file(r, i, made[i]);
    }
    free(made);
}

/* ---- the lock ----------------------------------------------------------------------------------- */

static int fail_locked(const struct cli *cli, const char *dir, int fd)
{
    char text[32] = "";
    ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
    long pid = length > 0 ? strtol(text, NULL, 10) : 0;

    if (journal_arguments.dry_run) {
        cli_note(cli,
                 "%s: the supervisor with pid %ld works on it, and has to be stopped for a repair",
                 dir, pid);
        return CLI_OK;
    }
    return cli_fail(
        CLI_FAILED,
        "%s: the supervisor with pid %ld works on it; stop it for the repair, or repair a "
        "copy elsewhere",
        dir, pid);
}

/* For a supervisor that is started meanwhile to say. Nobody depends on it. */
static void write_holder(int fd)
{
    char text[32];
    int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) < 0)
        return;
}

/* Of one directory: has it the lock of a bus's state? Then it is ours, or somebody's. */
static int lock_directory(const struct cli *cli, const char *dir, int *ret_fd)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[PATHS_DIR_BYTES + 8];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/meta", dir);
    if (access(path, F_OK) != 0)
        return CLI_OK;
    (void)snprintf(path, sizeof(path), "%s/lock", dir);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return CLI_OK;
    if (fd < 0)
        return cli_fail(errno == EACCES ? CLI_NOT_PERMITTED : CLI_FAILED, "%s: %s", path,
                        strerror(errno));
    if (fcntl(fd, journal_arguments.dry_run ? F_OFD_GETLK : F_OFD_SETLK, &whole) < 0 ||
        (journal_arguments.dry_run && whole.l_type != F_UNLCK)) {
        int rc = fail_locked(cli, dir, fd);

        (void)close(fd);
        return rc;
    }
    if (!journal_arguments.dry_run)
        write_holder(fd);
    *ret_fd = fd;
    return CLI_OK;
}

/* Of whatever state directory the history lies in, however deep. *ret_fd -1: in none. */
static int lock_state(const struct cli *cli, const struct history *history, int *ret_fd)
{
    char *path = realpath(history->path, NULL);
    int rc = CLI_OK;

    for (char *slash;
         path && rc == CLI_OK && *ret_fd < 0 && (slash = strrchr(path, '/')) != NULL;) {
        *slash = '\0';
        rc = lock_directory(cli, path, ret_fd);
    }
    free(path);
    return rc;
}

/* ---- all of it ---------------------------------------------------------------------------------- */

static void print_summary(const struct repairer *r)
{
    struct outbuf out = {0};
    struct json json;

    if (r->cli->json) {
        json_init(&json, &out);
        json_object_begin(&json, NULL);
        json_object_begin(&json, "summary");
        json_boolean(&json, "dry_run", journal_arguments.dry_run);
        json_number(&json, "done", journal_arguments.dry_run ? 0 : r->done);
        json_number(&json, "to_do", journal_arguments.dry_run ? r->done : 0);
        json_number(&json, "left", r->left);
        json_object_end(&json);
        json_object_end(&json);
        tool_print(&out);
        return;
    }
    if (r->cli->quiet)
        return;
    if (r->done + r->left == 0)
        printf("nothing to repair\n");
    else
        printf("%s%" PRIu64 " %s, %" PRIu64 " left\n", journal_arguments.dry_run ? "dry run: " : "",
               r->done, journal_arguments.dry_run ? "to do" : "done", r->left);
}

static int check_kind(const struct history *history)
{
    if (history->metadata)
        return cli_fail(
            CLI_FAILED,
            "%s: metadata: an operation that is damaged cannot be left out; restore the "
            "state directory from a backup",
            history->path);
    if (history->alone)
        return cli_fail(
            CLI_FAILED,
            "%s: not a file of a journal; give it its name, the offset at which it begins "
            "in 20 digits and .log",
            history->path);
    return CLI_OK;
}

int journal_repair(struct cli *cli)
{
    struct repairer r = {.cli = cli};
    struct history_list list;
    CLEANUP_CLOSE int lock_fd = -1;
    int rc = history_find(cli, cli->operands[0], journal_arguments.state_dir, &list);

    for (size_t i = 0; i < list.count && rc == CLI_OK; i++)
        rc = check_kind(&list.items[i]);
    if (rc == CLI_OK && list.count > 0)
        rc = lock_state(cli, &list.items[0], &lock_fd);
    if (rc == CLI_OK && list.count > 0) {
        /* What was read before the lock was taken may be out of date by now. */
        history_list_free(&list);
        rc = history_find(cli, cli->operands[0], journal_arguments.state_dir, &list);
    }
    for (size_t i = 0; i < list.count && rc == CLI_OK; i++)
        repair_history(&r, &list.items[i]);
    if (rc == CLI_OK) {
        print_summary(&r);
        rc = r.left ? CLI_FAILED : CLI_OK;
    }
    free(r.stretches);
    free(r.stops);
    history_list_free(&list);
    return rc;
}
