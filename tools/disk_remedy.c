/* SPDX-License-Identifier: Apache-2.0 */
/* See disk_remedy.h. */
#include "tools/disk_remedy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *disk_error_text(uint32_t error_number)
{
    return strerror((int)error_number);
}

const char *disk_remedy(uint32_t error_number, const char *dir, const char *topic,
                        char ret_text[DISK_REMEDY_BYTES])
{
    const char *name = topic ? topic : "TOPIC";

    switch ((int)error_number) {
    case ENOSPC:
    case EDQUOT:
        (void)snprintf(
            ret_text, DISK_REMEDY_BYTES,
            "free some space in %.250s, or keep less: shmq topic alter %s --retain-bytes SIZE", dir,
            name);
        break;
    case EROFS:
        (void)snprintf(
            ret_text, DISK_REMEDY_BYTES,
            "see the system's log for why the file system of %.250s is read-only, and mount it "
            "writable",
            dir);
        break;
    case EIO:
        (void)snprintf(
            ret_text, DISK_REMEDY_BYTES,
            "see the system's log: the disk under %.250s fails; what is not safe stays in the ring",
            dir);
        break;
    case EACCES:
    case EPERM:
        (void)snprintf(ret_text, DISK_REMEDY_BYTES,
                       "give %.250s back to the supervisor's user, with mode 0700", dir);
        break;
    case ENOENT:
    case ENOTDIR:
    case ESTALE:
        (void)snprintf(ret_text, DISK_REMEDY_BYTES,
                       "see who has moved what is in %.250s; put it back, and restart shmqd", dir);
        break;
    case EMFILE:
    case ENFILE:
        (void)snprintf(ret_text, DISK_REMEDY_BYTES,
                       "raise the supervisor's limit of open files (LimitNOFILE of its unit)");
        break;
    default:
        (void)snprintf(ret_text, DISK_REMEDY_BYTES, "see the supervisor's log and the system's");
        break;
    }
    return ret_text;
}
