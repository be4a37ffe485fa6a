/* SPDX-License-Identifier: Apache-2.0 */
/* shmq journal: the noun; and what is known of a topic besides its files. See journal.h. */
#include "tools/journal.h"

#include <string.h>

#include "libshmq/clock.h"
#include "tools/nouns.h"

#define CONNECT_MS 1000

struct journal_arguments journal_arguments = {.count = CLI_UNSET};

/* ---- what a supervisor knows -------------------------------------------------------------------- */

/* Is it the supervisor of the state directory in which the history lies? */
static bool is_its_supervisor(struct cli *cli, const struct history *history)
{
    static bool silent; /* once is enough: a topic may have a thousand partitions */
    struct shmq_bus_info info;
    char path[PATHS_DIR_BYTES];
    char *real;
    bool same;

    if (!*history->state_dir || silent)
        return false;
    silent = (!cli->connection && cli_try_connect(cli, CONNECT_MS) < 0) ||
             shmq_bus_describe(cli->connection, &info) < 0;
    if (silent)
        return false;
    (void)snprintf(path, sizeof(path), "%s/%s", info.state_dir, info.bus);
    real = realpath(path, NULL);
    same = real && strcmp(real, history->state_dir) == 0;
    free(real);
    return same;
}

static bool ask_supervisor(struct cli *cli, const struct history *history,
                           struct topic_facts *facts)
{
    struct shmq_partition_info *partitions = NULL;
    struct shmq_topic_info info;
    int count;

    if (!is_its_supervisor(cli, history) ||
        shmq_topic_describe(cli->connection, history->topic_name, &info) < 0 ||
        info.id != history->topic)
        return false;
    facts->known = true;
    facts->retain_bytes = info.retain_bytes;
    facts->retain_ns = info.retain_ms * NS_PER_MS;
    count = tool_list_partitions(cli->connection, history->topic_name, &partitions);
    for (int i = 0; i < count; i++) {
        if (partitions[i].partition == history->partition)
            facts->durable = partitions[i].durable_offset;
    }
    free(partitions);
    return true;
}

void journal_facts(struct cli *cli, const struct history *history, struct topic_facts *ret_facts)
{
    *ret_facts = (struct topic_facts){.durable = UINT64_MAX};
    if (history->topic && !ask_supervisor(cli, history, ret_facts) && *history->state_dir)
        (void)topics_find(history->state_dir, history->topic, ret_facts);
}

/* ---- the noun ----------------------------------------------------------------------------------- */

#define STATE_DIR_OPTION \
    { \
        0, "state-dir", "DIR", \
            "where the bus has its state ($SHMQ_STATE_DIR, else as its supervisor says, else the usual)", \
            CLI_TEXT, &journal_arguments.state_dir, NULL, 0, 0 \
    }
#define END_OF_OPTIONS \
    { \
        0, NULL, NULL, NULL, CLI_FLAG, NULL, NULL, 0, 0 \
    }

static const struct cli_option look_options[] = {STATE_DIR_OPTION, END_OF_OPTIONS};

static const struct cli_option dump_options[] = {
    {0, "from", "OFFSET", "begin at the first record at or above it (earliest)", CLI_TEXT,
     &journal_arguments.from, NULL, 0, 0},
    {'n', "count", "COUNT", "end after so many records", CLI_COUNT, &journal_arguments.count, NULL,
     1, UINT64_MAX / 2},
    {0, "raw", NULL, "bodies as they are, with nothing between them", CLI_FLAG,
     &journal_arguments.raw, NULL, 0, 0},
    {0, "all", NULL, "padding too: records that readers step over", CLI_FLAG,
     &journal_arguments.all, NULL, 0, 0},
    STATE_DIR_OPTION,
    END_OF_OPTIONS,
};

static const struct cli_option repair_options[] = {
    {0, "dry-run", NULL, "say what would be done, and do nothing", CLI_FLAG,
     &journal_arguments.dry_run, NULL, 0, 0},
    STATE_DIR_OPTION,
    END_OF_OPTIONS,
};

const struct cli_command TOOL_JOURNAL[] = {
    {"journal", "verify", "PATH|TOPIC", 1, 1, "Checks every header and record of a journal.",
     "PATH is a file NAME.log, the directory of a partition, or that of a topic. Each finding is said "
     "with file, offset, length and what it means; what is normal after a crash is said to be so. It "
     "needs no supervisor, and may run beside one.\n\n"
     "Exit codes: 0 all is sound, 1 something is damaged or missing.",
     "  shmq journal verify orders\n"
     "  shmq -q journal verify orders                              only what is not sound\n"
     "  shmq --json journal verify /var/lib/shmq/default/journal/orders.3/0\n",
     look_options, journal_verify},
    {"journal", "dump", "PATH|TOPIC", 1, 1, "Writes the records of a journal to stdout.",
     "One a line, with tabs between offset, timestamp, partition, key, length of the body, and body; in "
     "key and body, what does not print is escaped. Behind damage it goes on at the next record that "
     "holds and says so on stderr; the exit code is 1 then.",
     "  shmq journal dump orders | head\n"
     "  shmq journal dump orders --from 73400320 -n 10\n"
     "  shmq --json journal dump orders | jq .body\n",
     dump_options, journal_dump},
    {"journal", "stat", "PATH|TOPIC", 1, 1, "Shows the files of a journal, and why each is kept.",
     "Only the newest file is read; of the others the headers tell.",
     "  shmq journal stat orders\n"
     "  shmq --json journal stat orders | jq '.[].files[].kept'\n",
     look_options, journal_stat},
    {"journal", "repair", "PATH|TOPIC", 1, 1, "Makes damaged files readable again.",
     "It gives files back their names, rebuilds damaged headers from the records, puts padding over "
     "stretches in which nothing holds, and removes files that were never finished. Nothing that holds "
     "is dropped; a file that is rewritten stays beside the new one as NAME.log.damaged. Each step is "
     "said. It may be killed at any point and run again. No supervisor may run meanwhile.\n\n"
     "Exit codes: 0 all is sound now, 1 something could not be repaired, or may not be.",
     "  shmq journal repair --dry-run orders\n"
     "  shmq journal repair orders\n",
     repair_options, journal_repair},
    {NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL},
};
