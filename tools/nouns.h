/* SPDX-License-Identifier: Apache-2.0 */
/* nouns.h: the tables of commands, one a noun, and what several nouns print alike. */
#ifndef SHMQ_TOOLS_NOUNS_H
#define SHMQ_TOOLS_NOUNS_H

#include "tools/cli.h"
#include "tools/json.h"

extern const struct cli_command TOOL_TOPIC[];
extern const struct cli_command TOOL_GROUP[];
extern const struct cli_command TOOL_CLIENT[];
extern const struct cli_command TOOL_PUB[];
extern const struct cli_command TOOL_SUB[];
extern const struct cli_command TOOL_STATUS[];
extern const struct cli_command TOOL_DOCTOR[];
extern const struct cli_command TOOL_JOURNAL[];

/* Lists as arrays, because no call may be made from inside a list's callback. The caller frees
 * *ret_items. Return a shmq error or the number of items. */
int tool_list_topics(shmq_connection *connection, struct shmq_topic_info **ret_items);
int tool_list_partitions(shmq_connection *connection, const char *topic,
                         struct shmq_partition_info **ret_items);
int tool_list_groups(shmq_connection *connection, const char *topic,
                     struct shmq_group_info **ret_items);
int tool_list_group_partitions(shmq_connection *connection, const char *topic, const char *group,
                               struct shmq_group_partition **ret_items);
int tool_list_clients(shmq_connection *connection, struct shmq_client_info **ret_items);

/* The words of enum shmq_overflow and its like, as options take them. */
const char *tool_overflow_word(uint32_t overflow);
const char *tool_producers_word(uint32_t producers);
const char *tool_timestamps_word(uint32_t timestamps);
const char *tool_durability_word(uint32_t durability);
const char *tool_partition_status_word(uint32_t status);
const char *tool_blocked_by_word(uint32_t blocked_by);
const char *tool_group_state_word(uint32_t state);

/* Prints what `out` holds to stdout and empties it. */
struct outbuf;
void tool_print(struct outbuf *out);

#endif
