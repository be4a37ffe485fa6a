/* SPDX-License-Identifier: Apache-2.0 */
/*
 * instructions.h: instructions an operation, as counts that repeat: for `make bench` and for the
 * guard in `make check` (test/test_instructions.sh).
 *
 * Starts a supervisor inside this process on a bus of its own, steps through the operations in
 * this process, and runs this program once more under callgrind (where valgrind is installed), as a
 * client of the same bus: so the bus is in the wait mode of real ones. One thread; some seconds.
 */
#ifndef SHMQ_PERF_INSTRUCTIONS_H
#define SHMQ_PERF_INSTRUCTIONS_H

#include "tools/perf/perf.h"

#define PERF_INSTRUCTIONS_ROWS 5

/* Fills in up to `max` rows and returns their number. The value is all that a program executes for a message:
 * callgrind's mean and the clock that it does not see, or the call that was stepped through, whichever is more.
 * The note has the parts. Texts of the rows are static. */
int perf_instructions_measure(struct perf_comparison *rows, uint32_t max);

/* The verb `instructions`, argv[0], with its arguments. Without any: one line an operation, `NAME STEPPED VDSO
 * CALLGRIND`: all instructions of a call, those of them in the vDSO, and what callgrind sees, each a message;
 * `-` for what is not to be had. `--workload BUS RUNTIME_DIR`: what it starts under callgrind. Returns an exit
 * status: 1 also when only a part failed, 0 when valgrind or stepping is not to be had. */
int perf_instructions_main(int argc, char **argv);

#endif
