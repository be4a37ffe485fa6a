/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal.h: what the verbs of `shmq journal` share: a partition's *history*, which is the files of its journal in
 * the order of the log, and the walk over it.
 *
 *   journal.c          the noun: options, help, facts that a supervisor knows
 *   journal_place.c    PATH or TOPIC → histories
 *   journal_history.c  the files of one directory and their headers
 *   journal_salvage.c  reading a file whose header is damaged
 *   journal_walk.c     what stands in a file: records, and everything else
 *   journal_topics.c   a topic's retention, from the metadata
 *   journal_verify.c, journal_dump.c, journal_stat.c
 *   journal_repair.c   what is to be done; journal_rewrite.c does it on the disk
 *
 * Files are read with pread into buffers, never mapped, and nothing is written but by repair. Beside a running
 * supervisor a file may grow, come and go between any two looks: what is newest is looked at twice before it
 * is called damaged, and a file that is gone was let go by retention. One thread.
 */
#ifndef SHMQ_TOOLS_JOURNAL_H
#define SHMQ_TOOLS_JOURNAL_H

#include "libshmq/journal_file.h"
#include "libshmq/journal_retention.h"
#include "libshmq/paths.h"
#include "tools/cli.h"
#include "tools/outbuf.h"

/* ---- histories ---------------------------------------------------------------------------------- */

enum history_flaw {
    HISTORY_SOUND = 0,
    HISTORY_MISNAMED,   /* the header holds, but the name is not its base */
    HISTORY_DAMAGED,    /* the header does not hold */
    HISTORY_FOREIGN,    /* written by another version of shmq */
    HISTORY_STRANGER,   /* belongs to another topic or partition */
    HISTORY_DOUBLE,     /* begins where another one does, which has the right name */
    HISTORY_UNREADABLE, /* the system does not let us */
};

struct history_file {
    char *name;
    enum history_flaw flaw;
    struct error_buffer why; /* with a flaw */
    struct journal_entry
        entry;      /* base: where it stands in the log. damaged: the header does not hold */
    uint64_t topic; /* as the header says */
    uint32_t partition;
    bool readable; /* records can be read, be it with a salt that they gave away themselves */
};

struct history {
    char path[PATHS_DIR_BYTES];  /* of its directory */
    char label[NAME_BYTES + 16]; /* "orders/0"; "" where the directory is not named like that */
    char topic_name[NAME_BYTES];
    uint64_t topic; /* 0: not known, or metadata */
    uint32_t partition;
    bool metadata;
    char state_dir[PATHS_DIR_BYTES]; /* STATE/BUS; "" where it does not lie in one */
    int fd;
    struct history_file *files; /* ascending by entry.base */
    size_t count;
    size_t only;   /* the one file that is meant; SIZE_MAX: all */
    bool alone;    /* `path` is that of the only file */
    char **strays; /* names that end in .tmp */
    size_t stray_count;
};

struct history_list {
    struct history *items;
    size_t count;
};

/* Loads the directory: names, headers. CLI_OK or an exit code, said. */
int history_open(struct history *history, const char *path);
void history_close(struct history *history);

/* "orders/0", or the path. */
const char *history_label(const struct history *history);

/* "/path/of/it/NAME.log". */
#define HISTORY_PATH_BYTES (PATHS_DIR_BYTES + 257)
const char *history_file_path(const struct history *history, size_t index,
                              char ret_path[HISTORY_PATH_BYTES]);

/* The same with one file, by its own header alone: one whose name is none of a journal's. */
int history_open_alone(struct history *history, const char *path);

/* As struct journal_header, for journal_file_open_as(). */
struct journal_header history_header(const struct history_file *file);

/* A descriptor, or a negative error. */
int history_open_file(const struct history *history, size_t index, struct error_buffer *why);

/* True for "orders.17": the name and the id. Not for one that is being deleted. */
bool history_parse_topic_dir(const char *directory, char ret_name[NAME_BYTES], uint64_t *ret_id);

/* The files that make up the log, in its order: neither strangers nor doubles. `count`: none. */
size_t history_first(const struct history *history);
size_t history_next(const struct history *history, size_t index);

/* journal_salvage.c: puts a salt under which records hold into the entry of a file with a damaged header, and makes
 * it readable; or leaves it as it is. */
void history_salvage(struct history *history, size_t index);

/* ---- journal_place.c ---- */

/* What the operand means. CLI_OK, or an exit code after having said what was looked for. history_list_free() in
 * any case. */
int history_find(struct cli *cli, const char *operand, const char *state_dir,
                 struct history_list *ret_list);
void history_list_free(struct history_list *list);

/* ---- journal_walk.c ---- */

enum history_event_kind {
    HISTORY_RECORD,  /* one that holds; padding too */
    HISTORY_LOST,    /* [offset, offset + length): nothing in it holds, and it belongs to the log */
    HISTORY_MISSING, /* the same, and the file that held it is not there */
    HISTORY_UNCLEAR, /* the same, and the header that would say whether it belongs to the log is damaged */
    HISTORY_TORN,    /* behind the log's end stands something that is no record */
    HISTORY_OVERLAP, /* superseded: the next file begins below it */
    HISTORY_JUMP,    /* the log goes on above it: offsets that were never used */
    HISTORY_GONE,    /* the file was removed meanwhile */
};

struct history_event {
    enum history_event_kind kind;
    size_t index; /* of the file */
    uint64_t offset;
    uint64_t length;
    enum journal_stop stop;              /* LOST, UNCLEAR, TORN: what stands at `offset` */
    const struct journal_record *record; /* RECORD: valid during the call */
};

/* Not 0 ends the walk, and is what it returns. */
typedef int history_event_fn(void *context, const struct history_event *event);

/* What stands in files[index] from `from` on (0: from its base). 0, what the callback returned, or a negative
 * error of the system. A file that is not readable is one event UNCLEAR over all that it held. */
int history_walk(const struct history *history, size_t index, uint64_t from, history_event_fn *fn,
                 void *context, struct error_buffer *why);

/* Words for a stop: "the checksum is wrong". */
const char *history_stop_text(enum journal_stop stop);

/* A file by its records. */
struct history_sum {
    uint64_t end; /* behind the last record that holds and counts; its base if there is none */
    uint64_t messages;
    uint64_t padding;
    uint64_t first_timestamp_ns; /* of a message; 0: there is none */
    uint64_t max_timestamp_ns;
    uint64_t lost_bytes;
};
int history_sum(const struct history *history, size_t index, struct history_sum *ret_sum,
                struct error_buffer *why);

/* ---- facts from elsewhere ---- */

struct topic_facts {
    uint64_t retain_bytes;
    uint64_t retain_ns;
    uint64_t durable; /* UINT64_MAX: nobody says */
    bool known;       /* retain_bytes and retain_ns are */
};

/* journal_topics.c: from the metadata below `state_dir`. False: it is not there, or does not know the topic. */
bool topics_find(const char *state_dir, uint64_t topic, struct topic_facts *ret_facts);

/* journal.c: also `durable`. From the supervisor, if one answers that owns this history; else from the metadata. */
void journal_facts(struct cli *cli, const struct history *history, struct topic_facts *ret_facts);

/* ---- the verbs ---- */

struct journal_arguments {
    const char *state_dir;
    bool all, raw, dry_run;
    uint64_t count;
    const char *from;
};
extern struct journal_arguments journal_arguments;

int journal_verify(struct cli *cli);
int journal_dump(struct cli *cli);
int journal_stat(struct cli *cli);
int journal_repair(struct cli *cli);

/* ---- journal_rewrite.c ---- */

#define REWRITE_NAME_BYTES (JOURNAL_NAME_BYTES + 16)

struct rewrite_stretch {
    uint64_t offset, length;
};

/* Makes the file anew, with this header and padding over the stretches, all else as it is, beside the old one and then
 * in its place; the old one stays as NAME.damaged. The header's salt is that of the records. 0, or a negative
 * error, and then the old one stands where it stood. */
int rewrite_file(const struct history *history, size_t index, const struct journal_header *header,
                 const struct rewrite_stretch *stretches, size_t count,
                 char ret_kept[REWRITE_NAME_BYTES], struct error_buffer *why);

/* Is there another file that has this name? A second name of the same one is none. */
bool rewrite_is_taken(const struct history *history, const char *from, const char *to);

/* Without ever replacing a file that has the name. 0; 1: it is taken; or a negative error. */
int rewrite_rename(const struct history *history, const char *from, const char *to,
                   struct error_buffer *why);
int rewrite_remove(const struct history *history, const char *name, struct error_buffer *why);

#endif
