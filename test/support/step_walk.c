/*
 * step_walk.c: visits the points of an operation one after the other and reports how it went.
 *
 * Called by the thread of a test; owns nothing between calls. Blocks as long as the stepping and
 * the test's verify() take.
 */
#include "test/support/step_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAILED_POINTS_MAX 3
#define FINISH_TIMEOUT_MS 10000

/* Set by the linker; an address between them is told as an offset for addr2line. */
extern const char __executable_start[] __attribute__((weak));
extern const char etext[] __attribute__((weak));

static void describe_point(const struct step_plan *plan, uint64_t k, uintptr_t pc)
{
    uintptr_t base = (uintptr_t)__executable_start;

    if (pc >= base && pc < (uintptr_t)etext)
        test_context("%s k=%llu pc=binary+0x%llx: ", plan->name, (unsigned long long)k,
                     (unsigned long long)(pc - base));
    else
        test_context("%s k=%llu pc=0x%llx: ", plan->name, (unsigned long long)k,
                     (unsigned long long)pc);
}

bool step_walk(const struct step_plan *plan, struct step_points *points, enum step_action action,
               void (*verify)(void *arg, struct step_child *child))
{
    unsigned failed_points = 0;

    points->walked = points->strayed = 0;
    for (size_t i = 0; i < points->count && failed_points < FAILED_POINTS_MAX; i++) {
        const struct step_point *point = &points->at[i];
        uint64_t failures = test_failures();
        struct step_child child = {0};
        enum step_outcome outcome;

        describe_point(plan, point->k, 0);
        outcome = step_run_to_point(plan, point, action, &child);
        if (outcome != STEP_BROKEN) {
            points->steps += child.stops;
            points->strayed += child.pc != point->pc;
            points->stepping_ns += child.stepping_ns;
            describe_point(plan, point->k, child.pc);
            verify(plan->arg, &child);
            if (child.alive)
                CHECK_INT_EQ(step_continue(&child, FINISH_TIMEOUT_MS), 0);
        }
        if (test_failures() != failures)
            failed_points++;
        else
            points->walked += outcome == STEP_REACHED;
    }
    test_context(NULL);
    return failed_points == 0;
}

bool step_report(const struct step_plan *plan, const struct step_points *points, uint64_t floor)
{
    uint64_t steps = points->steps == 0 ? 1 : points->steps;

    test_note("%s: %llu points (floor %llu) of %llu steps, %llu syscalls, %llu changes, %llu "
              "strayed; %llu stops, %.1f us each",
              plan->name, (unsigned long long)points->walked, (unsigned long long)floor,
              (unsigned long long)points->total, (unsigned long long)points->syscalls,
              (unsigned long long)points->changes, (unsigned long long)points->strayed,
              (unsigned long long)points->steps,
              (double)points->stepping_ns / 1000.0 / (double)steps);
    if (points->walked >= floor)
        return CHECK(true);
    return FAIL("%s: %llu points walked, expected at least %llu", plan->name,
                (unsigned long long)points->walked, (unsigned long long)floor);
}
