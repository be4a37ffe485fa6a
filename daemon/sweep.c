/* SPDX-License-Identifier: Apache-2.0 */
/* sweep.c: see sweep.h. */
#include "daemon/sweep.h"

#include "daemon/group.h"
#include "daemon/guard.h"
#include "daemon/log.h"
#include "daemon/realm.h"
#include "daemon/topic.h"
#include "libshmq/fault.h"
#include "libshmq/wait.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SHM_DIR "/dev/shm"

/* "t<topic>p<partition>.<kind>[<gate>]": what segment_name() writes behind "PREFIX.". */
static bool is_known(const struct realm *realm, const char *rest)
{
    uint64_t topic_id;
    uint32_t index, gate;
    char kind;
    int used = 0;
    const struct topic *topic;

    if (sscanf(rest, "t%" SCNu64 "p%" SCNu32 ".%c%n", &topic_id, &index, &kind, &used) != 3)
        return false;
    topic = topic_find_id(realm, topic_id);
    if (!topic || index >= topic->partition_count)
        return false;
    if (kind == 'g')
        return sscanf(rest + used, "%" SCNu32, &gate) == 1 && gate < GATES_MAX &&
               topic->groups[gate] != NULL;
    return rest[used] == '\0' && strchr("SPWD", kind) != NULL;
}

static int say_deleted(void *context)
{
    struct state_segment *state = context;

    atomic_store_explicit(&state->status, PARTITION_DELETED, memory_order_release);
    return 0;
}

static int say_closed(void *context)
{
    struct wait_segment *wait = context;

    (void)atomic_fetch_or_explicit(&wait->attention, ATTENTION_CLOSED, memory_order_seq_cst);
    wait_wake_everyone(wait);
    return 0;
}

static void tell(const char *name, size_t bytes, guard_fn *fn)
{
    struct segment segment = {NULL, 0};
    struct guard_range range;
    int fd;

    if (segment_open(name, true, &fd, NULL) < 0)
        return;
    if (segment_map(fd, true, bytes, &segment, NULL) == 0) {
        range = (struct guard_range){segment.address, segment.bytes};
        (void)guard_run(&range, 1, fn, segment.address, NULL);
        segment_unmap(&segment);
    }
    (void)close(fd);
}

/* In two passes: what S says stands there before W wakes anybody. */
static void sweep_one(const char *name, int pass)
{
    size_t length = strlen(name);

    if (pass == 0 && length > 2 && strcmp(name + length - 2, ".S") == 0)
        tell(name, sizeof(struct state_segment), say_deleted);
    if (pass == 1 && length > 2 && strcmp(name + length - 2, ".W") == 0)
        tell(name, sizeof(struct wait_segment), say_closed);
    if (pass == 1)
        (void)segment_unlink(name);
    FAULT("sweep.segment");
}

unsigned sweep_segments(struct realm *realm, bool all)
{
    size_t length = strlen(realm->prefix);
    unsigned count = 0;

    for (int pass = 0; pass < 2; pass++) {
        DIR *directory = opendir(SHM_DIR);
        const struct dirent *entry;

        while (directory && (entry = readdir(directory)) != NULL) {
            char name[SEGMENT_NAME_BYTES + 1];

            if (strncmp(entry->d_name, realm->prefix, length) != 0 ||
                entry->d_name[length] != '.' || strcmp(entry->d_name + length + 1, "B") == 0 ||
                (!all && is_known(realm, entry->d_name + length + 1)))
                continue;
            (void)snprintf(name, sizeof(name), "/%s", entry->d_name);
            sweep_one(name, pass);
            count += (unsigned)pass;
        }
        if (directory)
            (void)closedir(directory);
    }
    if (count > 0)
        log_info("%u segments that belong to nothing were removed from " SHM_DIR, count);
    return count;
}
