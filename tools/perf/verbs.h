/* SPDX-License-Identifier: Apache-2.0 */
/* verbs.h: the verbs of shmq-perf, each a function that main()'s tables name. One thread. */
#ifndef SHMQ_TOOLS_PERF_VERBS_H
#define SHMQ_TOOLS_PERF_VERBS_H

#include "tools/cli.h"

/* Each returns an enum cli_exit, after having said why it failed. */
int perf_run_latency(struct cli *cli);
int perf_run_throughput(struct cli *cli);
int perf_run_fanout(struct cli *cli);
int perf_run_wake(struct cli *cli);
int perf_run_compare(struct cli *cli);
int perf_run_floor(struct cli *cli);
int perf_run_bench(struct cli *cli);
int perf_run_durable(struct cli *cli);
int perf_run_transports(struct cli *cli);

#endif
