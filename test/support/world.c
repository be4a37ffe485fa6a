/* SPDX-License-Identifier: Apache-2.0 */
/* world.c: see world.h. */
#include "test/support/world.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "test/support/fixture.h"

void world_make_topic(struct world *world, const char *name, uint32_t partitions)
{
    struct shmq_topic_options options = SHMQ_TOPIC_OPTIONS_INIT;

    options.partitions = partitions;
    options.ring_bytes = WORLD_RING_BYTES;
    fixture_topic(&world->client, name, &options);
}

void world_start(struct world *world, const char *words)
{
    struct traffic_options options = {.topic = "live", .messages = 1u << 17};

    world->daemon = daemon_run(&(struct daemon_options){.words = words});
    world->client = fixture_connect();
    world_make_topic(world, "live", 1);
    world->traffic = traffic_new(&options);
    traffic_start_consumer(world->traffic, 0, 0);
    traffic_start_producer(world->traffic, 0);
}

void world_check(struct world *world)
{
    struct shmq_bus_info info;

    CHECK(daemon_lives(world->daemon));
    CHECK_OK(shmq_bus_describe(world->client.connection, &info));
    CHECK_EQ(info.pid, world->daemon);
    CHECK(traffic_progresses(world->traffic, 20, WORLD_PROGRESS_MS));
    CHECK(traffic_check(world->traffic));
}

void world_end(struct world *world)
{
    world_check(world);
    traffic_finish(world->traffic);
    traffic_free(world->traffic);
    fixture_close(&world->client);
    daemon_stop(world->daemon);
    CHECK_EQ(daemon_count_segments(), 0);
}

int world_open_segment(enum segment_kind kind, uint64_t topic)
{
    DIR *directory = opendir("/dev/shm");
    const struct dirent *entry;
    char end[64], name[512] = "";
    int fd;

    if (kind == SEGMENT_BUS)
        snprintf(end, sizeof(end), ".B");
    else if (kind == SEGMENT_GROUP)
        snprintf(end, sizeof(end), ".t%llup0.g0", (unsigned long long)topic);
    else
        snprintf(end, sizeof(end), ".t%llup0.%c", (unsigned long long)topic, (char)kind);
    while (directory && (entry = readdir(directory)) != NULL) {
        const char *at = strstr(entry->d_name, test_bus_name());
        size_t length = strlen(entry->d_name);

        if (at && at[strlen(test_bus_name())] == '.' && length > strlen(end) &&
            strcmp(entry->d_name + length - strlen(end), end) == 0)
            snprintf(name, sizeof(name), "/dev/shm/%s", entry->d_name);
    }
    closedir(directory);
    fd = open(name, O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    return fd;
}
