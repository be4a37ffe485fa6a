/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shmq-perf: how fast this machine moves messages between processes: through shmq, through what the
 * kernel has, and through bare memory. main(), the verbs and their help; perf.h says what is where.
 *
 * This process measures nothing: it starts those that do (team.h), waits, and reports. ^C ends
 * them, and nothing is left in /dev/shm or /tmp.
 */
#include <signal.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/perf/instructions.h"
#include "tools/perf/plan.h"
#include "tools/perf/verbs.h"

#define END \
    { \
        NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL \
    }

#define HOW_IT_MEASURES \
    "Two processes, pinned to two CPUs, have all transports open at once. A round gives each transport " \
    "one trial of about 7 ms; before and after it, a cache line is bounced between the two CPUs. The " \
    "time that takes is the distance: near, far or farther. On virtual machines it changes within a " \
    "second, and moves every figure. So trials are filed under their distance, those in which it " \
    "changed are dropped, and ratios are of trials of one round and distance. Dropped are also those in " \
    "which somebody else had one of the CPUs while a process was spinning on it, but not at a --rate.\n" \
    "Every receiver checks each message's number and reads its whole body."

static const struct cli_command LATENCY[] = {
    {"latency", NULL, "", 0, 0, "round trips: how long until an answer is there",
     "One process sends a message, the other answers it, and so on. The table has the percentiles of "
     "all round trips; 'p50 of trials' are the quartiles of the medians of single trials. Ratios "
     "below 1: the first transport is faster.\n"
     "\n" HOW_IT_MEASURES,
     "  shmq-perf latency\n"
     "  shmq-perf latency --size 32,64,1K --transport shmq,shmq-multi,ideal-chase\n"
     "  shmq-perf latency --wait hybrid --rate 10000 --hgrm latency.hgrm --plot latency.svg\n",
     PERF_OPTIONS, perf_run_latency},
    END,
};

static const struct cli_command THROUGHPUT[] = {
    {"throughput", NULL, "", 0, 0, "how many messages a second",
     "Producers send as fast as they can, until all of a trial's messages have arrived. Ratios above "
     "1: the first transport is faster.\n"
     "\n" HOW_IT_MEASURES,
     "  shmq-perf throughput --size 16,64,256,1K,4K,64K --plot throughput.svg\n"
     "  shmq-perf throughput --transport shmq,ideal --ring 64M --batch 32\n"
     "  shmq-perf throughput --producers 2 --transport shmq,pipe --cpus 0-2\n",
     PERF_OPTIONS, perf_run_throughput},
    END,
};

static const struct cli_command FANOUT[] = {
    {"fanout", NULL, "", 0, 0, "how many messages a second when several groups get each of them",
     "One process publishes, each group gets everything. Beside it, one to one of the same transport. "
     "By default one process reads three groups in turn, as two CPUs are what there always is; "
     "--consumers N has a process for each group. Pipes, sockets and queues are written to once a "
     "group.\n"
     "\n" HOW_IT_MEASURES,
     "  shmq-perf fanout --groups 3\n"
     "  shmq-perf fanout --consumers 4 --cpus 0-4 --size 64,1K\n",
     PERF_OPTIONS, perf_run_fanout},
    END,
};

static const struct cli_command WAKE[] = {
    {"wake", NULL, "", 0, 0,
     "round trips of two who sleep, and wake-ups of one who has nothing to do",
     "Both sides sleep while they wait (block), or spin for a moment first (hybrid). The floor is a bare "
     "ring with a futex. At the end one process sleeps for two seconds: how often was it woken?\n"
     "\n" HOW_IT_MEASURES,
     "  shmq-perf wake\n"
     "  shmq-perf wake --wait block --transport shmq,futex,pipe --duration 10s\n",
     PERF_OPTIONS, perf_run_wake},
    END,
};

static const struct cli_command COMPARE[] = {
    {"compare", NULL, "", 0, 0, "latency and throughput of everything, over sizes",
     "Each shmq transport is compared with the better bare ring, with the best of the kernel's "
     "transports, and with ZeroMQ and nng where they were built in. Transports that cannot carry a "
     "size are left out of it, and named.\n"
     "\n" HOW_IT_MEASURES,
     "  shmq-perf compare\n"
     "  shmq-perf compare --size 16,64,256,1K,4K,64K --duration 10s --plot compare.svg\n"
     "  shmq-perf compare --format json >compare.json\n",
     PERF_OPTIONS, perf_run_compare},
    END,
};

static const struct cli_command FLOOR[] = {
    {"floor", NULL, "", 0, 0, "the limits of this machine",
     "What nothing that moves messages can pass: a cache line from core to core, whole lines one after "
     "the other, the bare rings, a futex that wakes, compare-and-swap, memcpy, clocks, a membarrier.\n"
     "\n" HOW_IT_MEASURES,
     "  shmq-perf floor\n"
     "  shmq-perf floor --cpus 2,3 --duration 20s\n",
     PERF_FLOOR_OPTIONS, perf_run_floor},
    END,
};

static const struct cli_command BENCH[] = {
    {"bench", NULL, "", 0, 0, "what shmq is built to reach: ratios, targets, met or missed",
     "All that docs/performance.md promises, beside the bare rings and the kernel's ways, in one table, then "
     "instructions an operation (valgrind counts them, if it is installed), memory and start-up. A minute or two. "
     "A distance that did not show up in seven pairs of trials is 'not observed'. Ends with 0 whether "
     "or not all targets were met.\n"
     "\n" HOW_IT_MEASURES,
     "  shmq-perf bench\n"
     "  shmq-perf bench --duration 20s --plot bench.svg\n",
     PERF_FLOOR_OPTIONS, perf_run_bench},
    END,
};

static const struct cli_command DURABLE[] = {
    {"durable", NULL, "", 0, 0, "what it costs to keep messages on disk, beside the disk itself",
     "Starts a shmqd of its own whose state is on a disk, and does in the same folder what a disk has to do "
     "without it: appends and syncs batches as large as those of shmq's flusher, or 4 KiB alone; streams 64 KiB at a "
     "time; reads the same files as cat does. Trials alternate, and ratios are of two trials of one round, over "
     "five rounds or more. Then consumers that stop, and a start behind a crash.\n"
     "\n"
     "Takes a minute and a half. Some GB are on the disk at a time, and none when it ends; how it ended "
     "does not matter, but for SIGKILL. Ends with 0 whether or not all targets were met.",
     "  shmq-perf durable\n"
     "  shmq-perf durable --only confirm,window --state-dir /data --hgrm confirm.hgrm\n"
     "  shmq-perf durable --only recovery --history 10G\n",
     PERF_DURABLE_OPTIONS, perf_run_durable},
    END,
};

static const struct cli_command TRANSPORTS[] = {
    {"transports", NULL, "", 0, 0, "what --transport takes", NULL, NULL, NULL, perf_run_transports},
    END,
};

static const struct cli_command *const NOUNS[] = {
    LATENCY, THROUGHPUT, FANOUT, WAKE, COMPARE, FLOOR, DURABLE, BENCH, TRANSPORTS, NULL,
};

static const struct cli_wording WORDING[] = {
    {"bus", "measure on this bus, which runs already; else on a private one"},
    {"vhost", "with -b: namespace of the topics, which are made for it and deleted again"},
    {"runtime-dir", "with -b: where the bus has its socket"},
    {"json", "the same as --format json"},
    {"quiet", "no remarks"},
    {NULL, NULL},
};

static const struct cli_program PROGRAM = {
    .name = "shmq-perf",
    .summary = "how fast this machine moves messages between processes",
    .usage = "COMMAND [options]",
    .epilogue = "shmq-perf floor\n"
                "  shmq-perf latency\n"
                "  shmq-perf throughput --size 64,1K\n"
                "\nMore: shmq-perf COMMAND --help, shmq-perf(1)\n",
    .wording = WORDING,
};

static int print_version(const struct cli *cli)
{
    if (cli->json)
        printf("{\"version\":\"%s\"}\n", shmq_version());
    else
        printf("shmq-perf %s\n", shmq_version());
    return CLI_OK;
}

static int run(struct cli *cli)
{
    struct perf_bus bus = {cli->bus, cli->runtime_dir, cli->vhost};
    int rc;

    if (cli->bus || cli->runtime_dir)
        perf_bus_use(&bus);
    rc = cli->command->run(cli);
    perf_bus_stop();
    return rc;
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    int signal_number;
    int rc;

    cli_program = &PROGRAM;
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "instructions") == 0)
        return perf_instructions_main(argc - 1, argv + 1);
    perf_collect_command(argc, argv);
    rc = cli_parse(&cli, NOUNS, argc, argv);
    if (rc != CLI_OK)
        return rc;
    if (cli.help)
        cli_print_help(&cli, NOUNS);
    else if (cli.version)
        rc = print_version(&cli);
    else
        rc = run(&cli);
    rc = cli_finish(&cli, rc);
    signal_number = perf_interrupted();
    perf_release_signals();
    if (signal_number) {
        (void)signal(signal_number, SIG_DFL); /* as if it had come now, that all is tidy */
        (void)raise(signal_number);
    }
    return rc;
}
