/* SPDX-License-Identifier: Apache-2.0 */
/* The files of one directory and what their headers say; see journal.h. */
#include "tools/journal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define NOWHERE UINT64_MAX /* base of a file that neither its name nor its header places */

/* ---- names -------------------------------------------------------------------------------------- */

bool history_parse_topic_dir(const char *directory, char ret_name[NAME_BYTES], uint64_t *ret_id)
{
    const char *dot = strrchr(directory, '.');
    size_t length = dot ? (size_t)(dot - directory) : 0;
    char *end;

    if (length == 0 || length > NAME_MAX_BYTES || !isdigit((unsigned char)dot[1]))
        return false;
    errno = 0;
    *ret_id = strtoull(dot + 1, &end, 10);
    if (*end || errno)
        return false;
    memcpy(ret_name, directory, length);
    ret_name[length] = '\0';
    return name_is_valid(ret_name);
}

static bool ends_in(const char *name, const char *suffix)
{
    size_t length = strlen(name);
    size_t part = strlen(suffix);

    return length > part && strcmp(name + length - part, suffix) == 0;
}

/* The last component of *path, which is cut off: "/a/b" → "b", leaving "/a". */
static const char *cut_component(char *path)
{
    char *slash = strrchr(path, '/');

    if (!slash)
        return "";
    *slash = '\0';
    return slash + 1;
}

/* STATE/BUS/journal/NAME.ID/PARTITION, or STATE/BUS/meta: what the path gives away. */
static void place_directory(struct history *history, const char *real)
{
    char path[PATHS_DIR_BYTES];
    const char *last;
    char *end;
    unsigned long number;

    (void)snprintf(path, sizeof(path), "%s", real);
    last = cut_component(path);
    if (strcmp(last, "meta") == 0) {
        history->metadata = true;
        memcpy(history->state_dir, path, sizeof(path));
        (void)snprintf(history->label, sizeof(history->label), "metadata");
        return;
    }
    number = strtoul(last, &end, 10);
    if (!isdigit((unsigned char)*last) || *end || number >= PARTITIONS_MAX ||
        !history_parse_topic_dir(cut_component(path), history->topic_name, &history->topic))
        return;
    history->partition = (uint32_t)number;
    (void)snprintf(history->label, sizeof(history->label), "%s/%" PRIu32, history->topic_name,
                   history->partition);
    if (strcmp(cut_component(path), "journal") == 0)
        memcpy(history->state_dir, path, sizeof(path));
}

const char *history_label(const struct history *history)
{
    return *history->label ? history->label : history->path;
}

const char *history_file_path(const struct history *history, size_t index,
                              char ret_path[HISTORY_PATH_BYTES])
{
    if (history->alone)
        (void)snprintf(ret_path, HISTORY_PATH_BYTES, "%s", history->path);
    else
        (void)snprintf(ret_path, HISTORY_PATH_BYTES, "%s/%.255s", history->path,
                       history->files[index].name);
    return ret_path;
}

/* ---- headers ------------------------------------------------------------------------------------ */

int history_open_file(const struct history *history, size_t index, struct error_buffer *why)
{
    const char *name = history->files[index].name;
    /* Not blocking: somebody's fifo of that name must not hold us. */
    int fd = openat(history->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    return fd < 0 ? error_set_errno(why, errno, "%.200s: opening it", name) : fd;
}

struct journal_header history_header(const struct history_file *file)
{
    struct journal_header header = {
        .base = file->entry.base,
        .salt = file->entry.salt,
        .previous_end = file->entry.previous_end,
        .durable = file->entry.durable,
        .max_timestamp_ns = file->entry.max_timestamp_ns,
        .messages = file->entry.messages,
        .topic = file->topic,
        .partition = file->partition,
    };

    return header;
}

static void take_header(struct history_file *file, const struct journal_header *header)
{
    file->entry.base = header->base;
    file->entry.salt = header->salt;
    file->entry.previous_end = header->previous_end;
    file->entry.durable = header->durable;
    file->entry.messages = header->messages;
    file->entry.max_timestamp_ns = header->max_timestamp_ns;
    file->topic = header->topic;
    file->partition = header->partition;
}

/* Was it a bit in the version that flipped? Then it is damage, and no matter for another shmq. */
static bool is_version_flipped(struct journal_header header, size_t bytes)
{
    header.version = LAYOUT_VERSION;
    return journal_check_header(&header, bytes, header.base, &header, NULL) == 0;
}

static void judge_header(struct history_file *file, const struct journal_header *image, size_t got)
{
    struct journal_header header = *image;
    size_t bytes = got < sizeof(header) ? got : (size_t)file->entry.bytes;
    int rc = journal_check_header(image, bytes, image->base, &header, &file->why);

    take_header(file, &header);
    file->readable = rc == 0;
    if (rc == SHMQ_EVERSION && !is_version_flipped(*image, bytes))
        file->flaw = HISTORY_FOREIGN;
    else if (rc < 0)
        file->flaw = HISTORY_DAMAGED;
    file->entry.damaged = rc < 0;
    if (rc < 0) { /* nothing in it is to be relied on; the salt may be tried */
        file->entry.previous_end = file->entry.durable = 0;
        file->entry.messages = file->entry.max_timestamp_ns = 0;
        file->topic = 0;
        file->partition = 0;
    }
}

/* Compares the name with what the header says, and decides where the file stands. */
static void judge_name(const struct history *history, struct history_file *file)
{
    uint64_t named = NOWHERE;
    bool has_name = journal_parse_name(file->name, &named);

    if (file->entry.damaged) {
        file->entry.base = has_name ? named : NOWHERE;
        return;
    }
    if (history->topic &&
        (file->topic != history->topic || file->partition != history->partition)) {
        file->flaw = HISTORY_STRANGER;
        (void)error_set(&file->why, 0,
                        "belongs to partition %" PRIu32 " of the topic with id %" PRIu64
                        "; put it back there",
                        file->partition, file->topic);
        return;
    }
    if (named == file->entry.base)
        return;
    file->flaw = HISTORY_MISNAMED;
    (void)error_set(&file->why, 0,
                    "begins at offset %" PRIu64 ", which is not its name; run shmq journal repair",
                    file->entry.base);
}

static void load_file(struct history *history, size_t index)
{
    struct history_file *file = &history->files[index];
    CLEANUP_CLOSE int fd = history_open_file(history, index, &file->why);
    struct journal_header image;
    struct stat status = {.st_size = 0};
    ssize_t got = -1;

    memset(&image, 0, sizeof(image));
    if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        got = pread(fd, &image, sizeof(image), 0);
    file->entry.bytes = (uint64_t)status.st_size;
    if (got < 0) {
        file->flaw = HISTORY_UNREADABLE;
        file->entry.damaged = true;
        if (fd >= 0)
            (void)error_set_errno(&file->why, S_ISREG(status.st_mode) ? errno : EINVAL,
                                  "reading its header");
        return;
    }
    judge_header(file, &image, (size_t)got);
}

/* ---- the directory ------------------------------------------------------------------------------ */

static void add_file(struct history *history, const char *name)
{
    history->files = tool_realloc(history->files, (history->count + 1) * sizeof(history->files[0]));
    memset(&history->files[history->count], 0, sizeof(history->files[0]));
    history->files[history->count++].name = tool_strdup(name);
}

static void add_stray(struct history *history, const char *name)
{
    history->strays =
        tool_realloc(history->strays, (history->stray_count + 1) * sizeof(history->strays[0]));
    history->strays[history->stray_count++] = tool_strdup(name);
}

static int list_directory(struct history *history)
{
    int fd = openat(history->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir) {
        int error = errno;

        cleanup_close(&fd);
        return cli_fail(error == EACCES ? CLI_NOT_PERMITTED : CLI_FAILED, "%s: %s", history->path,
                        strerror(error));
    }
    while ((entry = readdir(dir)) != NULL) {
        if (ends_in(entry->d_name, ".log"))
            add_file(history, entry->d_name);
        else if (ends_in(entry->d_name, ".tmp"))
            add_stray(history, entry->d_name);
    }
    (void)closedir(dir);
    return CLI_OK;
}

static int compare_files(const void *a, const void *b)
{
    const struct history_file *first = a;
    const struct history_file *second = b;

    if (first->entry.base != second->entry.base)
        return first->entry.base < second->entry.base ? -1 : 1;
    return (int)first->flaw - (int)second->flaw; /* the one with the right name first */
}

static void sort_files(struct history *history)
{
    if (history->count)
        qsort(history->files, history->count, sizeof(history->files[0]), compare_files);
    for (size_t i = 1; i < history->count; i++) {
        struct history_file *file = &history->files[i];
        const struct history_file *before = file - 1;

        if (file->entry.base != before->entry.base || file->flaw == HISTORY_STRANGER ||
            before->flaw == HISTORY_STRANGER)
            continue;
        file->flaw = HISTORY_DOUBLE;
        (void)error_set(&file->why, 0,
                        "begins at offset %" PRIu64 ", as %.64s does; move one of them away",
                        file->entry.base, before->name);
    }
}

static int open_directory(struct history *history, const char *path)
{
    char *real = realpath(path, NULL);
    int error = errno;

    memset(history, 0, sizeof(*history));
    history->only = SIZE_MAX;
    history->fd = -1;
    (void)snprintf(history->path, sizeof(history->path), "%s", path);
    if (real && strlen(real) < PATHS_DIR_BYTES) {
        place_directory(history, real);
        history->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        error = errno;
    }
    free(real);
    if (history->fd < 0)
        return cli_fail(error == EACCES ? CLI_NOT_PERMITTED : CLI_FAILED, "%s: %s", path,
                        strerror(error));
    return CLI_OK;
}

/* Somebody's other.log: a name that is none of ours counts only on a file that is. */
static void drop_others(struct history *history)
{
    size_t count = 0;

    for (size_t i = 0; i < history->count; i++) {
        if (history->files[i].entry.base == NOWHERE)
            free(history->files[i].name);
        else
            history->files[count++] = history->files[i];
    }
    history->count = count;
}

int history_open(struct history *history, const char *path)
{
    int rc = open_directory(history, path);

    if (rc == CLI_OK)
        rc = list_directory(history);
    if (rc != CLI_OK)
        return rc;
    for (size_t i = 0; i < history->count; i++) {
        load_file(history, i);
        judge_name(history, &history->files[i]);
    }
    drop_others(history);
    sort_files(history);
    for (size_t i = 0; i < history->count; i++) {
        if (history->files[i].flaw == HISTORY_DAMAGED)
            history_salvage(history, i);
    }
    return CLI_OK;
}

int history_open_alone(struct history *history, const char *path)
{
    char directory[PATHS_DIR_BYTES];
    const char *name = strrchr(path, '/');
    char base_name[JOURNAL_NAME_BYTES] = "";
    struct history_file *file;
    int rc;

    (void)snprintf(directory, sizeof(directory), "%.*s", name ? (int)(name - path) : 1,
                   name ? path : ".");
    name = name ? name + 1 : path;
    rc = open_directory(history, *directory ? directory : "/");
    if (rc != CLI_OK)
        return rc;
    (void)snprintf(history->path, sizeof(history->path), "%s", path);
    history->alone = true;
    add_file(history, name);
    load_file(history, 0);
    file = &history->files[0];
    if (file->flaw != HISTORY_DAMAGED)
        return CLI_OK;
    file->entry.base = 0;
    /* What repair keeps of a file begins with its name. */
    (void)snprintf(base_name, sizeof(base_name), "%.20s.log", name);
    if (journal_parse_name(base_name, &file->entry.base))
        history_salvage(history, 0);
    return CLI_OK;
}

void history_close(struct history *history)
{
    for (size_t i = 0; i < history->count; i++)
        free(history->files[i].name);
    for (size_t i = 0; i < history->stray_count; i++)
        free(history->strays[i]);
    free(history->files);
    free(history->strays);
    cleanup_close(&history->fd);
    memset(history, 0, sizeof(*history));
    history->fd = -1;
}

static size_t next_from(const struct history *history, size_t index)
{
    for (; index < history->count; index++) {
        const struct history_file *file = &history->files[index];

        if (file->flaw != HISTORY_STRANGER && file->flaw != HISTORY_DOUBLE)
            break;
    }
    return index;
}

size_t history_first(const struct history *history)
{
    return next_from(history, 0);
}

size_t history_next(const struct history *history, size_t index)
{
    return next_from(history, index + 1);
}
