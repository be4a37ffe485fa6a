/* SPDX-License-Identifier: Apache-2.0 */
/* topic_show.h: a topic, its partitions, journals and groups, as text and as JSON; for topic.c. One thread. */
#ifndef SHMQ_TOOLS_TOPIC_SHOW_H
#define SHMQ_TOOLS_TOPIC_SHOW_H

#include "tools/cli.h"
#include "tools/json.h"

struct topic_whole {
    struct shmq_topic_info info;
    struct shmq_partition_info *partitions;
    struct shmq_group_info *groups;
    int partition_count, group_count;
    char state_dir[256]; /* of the bus; for remedies */
};

/* Its members, into an object that is open. */
void topic_json(struct json *json, const struct shmq_topic_info *info);

/* Asks for the topic and prints it. */
int topic_print_json(struct cli *cli, const char *name);

/* {"deleted": "orders"} */
void topic_print_done_json(const char *what, const char *name);

void topic_print_whole(const struct cli *cli, const struct topic_whole *whole);
void topic_print_whole_json(const struct topic_whole *whole);

#endif
