/* SPDX-License-Identifier: Apache-2.0 */
/* command_journal.c: handing out journal files, and what a status says of them; see command.h.
 *
 * A client that reads history gets read-only descriptors, one file at a time, and needs the supervisor again only
 * at the end of a file. Retention may unlink a file at any moment: what was handed out stays readable. */
#include "daemon/command.h"

#include "daemon/flush.h"
#include "daemon/topic.h"
#include "libshmq/fault.h"

#include <inttypes.h>

#define TRIES 8 /* files that vanish between looking them up and opening them */

struct found {
    struct journal_entry entry;
    struct journal_entry next;
};

/* Where the header of a file is damaged nothing in it can be read: on to the next. False: there is none. */
static bool skip_damaged(struct journal *journal, struct found *found)
{
    while (found->entry.damaged) {
        if (found->next.base == UINT64_MAX ||
            !journal_find(journal, found->next.base, &found->entry, &found->next))
            return false;
    }
    return true;
}

static bool find_file(struct journal *journal, const struct protocol_journal_open *request,
                      struct found *ret_found)
{
    bool found =
        request->flags & JOURNAL_BY_TIME
            ? journal_find_time(journal, request->time_ns, &ret_found->entry, &ret_found->next)
            : journal_find(journal, request->offset, &ret_found->entry, &ret_found->next);

    return found && skip_damaged(journal, ret_found);
}

/* 1: there is none. */
static int open_file(struct journal *journal, const struct protocol_journal_open *request,
                     struct found *ret_found, int *ret_fd, struct error_buffer *why)
{
    int rc = 0;

    for (int i = 0; i < TRIES; i++) {
        if (!find_file(journal, request, ret_found))
            return 1;
        FAULT("journal.open.found");
        rc = journal_open_file(journal, ret_found->entry.base, ret_fd, why);
        if (rc == 0)
            return 0;
    }
    return rc;
}

int command_journal_open(struct command *command, struct error_buffer *why)
{
    const struct protocol_journal_open *request = command->request;
    struct protocol_journal_opened *reply;
    struct partition *partition;
    struct journal *journal;
    struct found found;
    int rc = command_find_partition(command, request->topic, request->partition, &partition, why);

    if (rc == 0)
        rc =
            permission_check(command->realm, command->peer, PERMISSION_READ, partition->topic, why);
    if (rc < 0)
        return rc;
    journal = partition_journal(partition);
    if (!journal)
        return error_set(why, SHMQ_ENOTSUP,
                         "topic %s/%" PRIu32
                         ": it has no journal; read what is in its ring, or create it with "
                         "--durable os, interval or always",
                         partition->topic->options.name, partition->index);
    rc = open_file(journal, request, &found, &command->fds[0], why);
    if (rc < 0)
        return rc;
    command->fd_count = rc == 0;
    reply = command_begin(command, sizeof(*reply));
    reply->next_base = UINT64_MAX;
    reply->log_base = partition->base;
    if (rc != 0)
        return 0;
    reply->present = 1;
    reply->base = found.entry.base;
    reply->next_base = found.next.base;
    if (found.next.base != UINT64_MAX) /* a damaged one does not know: nothing is left out, then */
        reply->next_previous_end = found.next.damaged ? found.next.base : found.next.previous_end;
    return 0;
}

void command_fill_journals(const struct realm *realm, struct protocol_status_reply *reply)
{
    uint32_t count;
    struct registry_entry **entries = registry_collect(&realm->registry, &count);

    for (uint32_t i = 0; entries && i < count; i++) {
        const struct topic *topic = CONTAINER_OF(entries[i], struct topic, entry);

        for (uint32_t p = 0; topic_is_durable(topic) && p < topic->partition_count; p++) {
            struct protocol_partition_info info = {.journal_error = 0};

            partition_describe_journal(&topic->partitions[p], &info);
            reply->journal_bytes += info.journal_bytes;
            reply->journals++;
            reply->journals_failing += info.journal_error != 0;
        }
    }
    free(entries);
}
