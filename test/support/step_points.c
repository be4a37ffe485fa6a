/*
 * step_points.c: the lists of points at which an operation is to be interrupted.
 *
 * One run of the operation, stepped to its end, makes a list: every step, or those that others can
 * tell apart. It also finds, for each point, how a later run gets there with the fewest stops. Called by the thread of a test.
 */
#include "test/support/step_internal.h"

#include <stdlib.h>
#include <string.h>

/* One stop of the recording run; the k-th is the k-th of the list. */
struct visit {
    uint64_t k;
    uintptr_t pc;
    uint64_t number; /* which visit of its instruction; 0: an iteration of the one before */
};

struct recording {
    const struct step_plan *plan;
    struct step_points points;
    bool only_changes;
    bool after_syscall;
    struct visit *visits;
    size_t visit_count;
    size_t visit_capacity;
    unsigned char *copy; /* the ranges as they were at the last stop, one after the other */
};

/* Makes room for one more element. */
static bool grow(void **list, size_t count, size_t *capacity, size_t element_size)
{
    size_t larger = *capacity == 0 ? 256 : 2 * *capacity;
    void *moved;

    if (count < *capacity)
        return true;
    moved = realloc(*list, larger * element_size);
    if (moved == NULL)
        return false;
    *list = moved;
    *capacity = larger;
    return true;
}

static bool add_visit(struct recording *recording, uint64_t k, uintptr_t pc)
{
    void *list = recording->visits;
    bool good =
        grow(&list, recording->visit_count, &recording->visit_capacity, sizeof *recording->visits);

    recording->visits = list;
    if (good)
        recording->visits[recording->visit_count++] = (struct visit){.k = k, .pc = pc};
    return good;
}

static bool add_point(struct step_points *points, uint64_t k, uintptr_t pc)
{
    void *list = points->at;
    bool good = grow(&list, points->count, &points->capacity, sizeof *points->at);

    points->at = list;
    if (good)
        points->at[points->count++] = (struct step_point){.k = k, .pc = pc};
    return good;
}

static bool copy_ranges(struct recording *recording)
{
    const struct step_plan *plan = recording->plan;
    size_t length = 0;

    for (size_t i = 0; i < plan->range_count; i++)
        length += plan->ranges[i].length;
    recording->copy = malloc(length + 1);
    if (recording->copy == NULL)
        return false;
    length = 0;
    for (size_t i = 0; i < plan->range_count; i++) {
        memcpy(recording->copy + length, plan->ranges[i].base, plan->ranges[i].length);
        length += plan->ranges[i].length;
    }
    return true;
}

/*
 * Compared with a copy instead of hashed: exact, and memcmp() is the fastest pass over 64 KiB that
 * every C library offers (2 us, beside 20 for the step).
 */
static bool ranges_changed(struct recording *recording)
{
    const struct step_plan *plan = recording->plan;
    unsigned char *copy = recording->copy;
    bool changed = false;

    for (size_t i = 0; i < plan->range_count; i++) {
        const struct step_range *range = &plan->ranges[i];

        if (memcmp(copy, range->base, range->length) != 0) {
            memcpy(copy, range->base, range->length);
            changed = true;
        }
        copy += range->length;
    }
    return changed;
}

static bool look(void *arg, pid_t pid, uint64_t k, uintptr_t pc)
{
    struct recording *recording = arg;
    struct step_points *points = &recording->points;
    bool syscall_next = step_at_syscall(pid, pc);
    bool at_edge = k == 0 || pc == (uintptr_t)step_mark_end;
    bool changed = false;

    if (recording->only_changes) {
        if (k == 0 && !copy_ranges(recording))
            return false;
        changed = ranges_changed(recording);
    }
    points->changes += changed;
    points->syscalls += syscall_next;
    if (!add_visit(recording, k, pc))
        return false;
    if (!recording->only_changes || at_edge || changed || syscall_next || recording->after_syscall)
        if (!add_point(points, k, pc))
            return false;
    recording->after_syscall = syscall_next;
    return true;
}

static int order_by_k(const void *a, const void *b)
{
    const struct visit *left = a;
    const struct visit *right = b;

    return left->k < right->k ? -1 : left->k > right->k;
}

static int order_by_pc(const void *a, const void *b)
{
    const struct visit *left = a;
    const struct visit *right = b;

    if (left->pc != right->pc)
        return left->pc < right->pc ? -1 : 1;
    return order_by_k(a, b);
}

static void number_visits(struct visit *visits, size_t count)
{
    uint64_t number = 0;

    qsort(visits, count, sizeof *visits, order_by_pc);
    for (size_t i = 0; i < count; i++) {
        bool same = i > 0 && visits[i].pc == visits[i - 1].pc;

        if (!same)
            number = 0;
        /* A repeated string instruction stops at itself; a breakpoint sees it only once. */
        if (same && visits[i].k == visits[i - 1].k + 1)
            visits[i].number = 0;
        else
            visits[i].number = ++number;
    }
    qsort(visits, count, sizeof *visits, order_by_k);
}

/* To each k: either from k - 1 by one step, or there directly with a stop at each earlier visit. */
static void choose_jumps(struct recording *recording)
{
    const struct visit *visits = recording->visits;
    struct step_points *points = &recording->points;
    struct step_point best = {0};
    uint64_t cost = 0;
    size_t at = 0;

    number_visits(recording->visits, recording->visit_count);
    for (size_t k = 0; k < recording->visit_count; k++) {
        cost += k > 0;
        if (k > 0 && visits[k].number > 0 && visits[k].number <= cost) {
            cost = visits[k].number;
            best = (struct step_point){
                .jump_k = k, .jump_pc = visits[k].pc, .jump_visit = visits[k].number};
        }
        if (at < points->count && points->at[at].k == k) {
            points->at[at].jump_k = best.jump_k;
            points->at[at].jump_pc = best.jump_pc;
            points->at[at++].jump_visit = best.jump_visit;
        }
    }
}

static int make_list(const struct step_plan *plan, bool only_changes,
                     struct step_points *ret_points)
{
    struct recording recording = {.plan = plan, .only_changes = only_changes};
    struct step_points *points = &recording.points;
    int64_t total = step_run_through(plan, look, &recording, &points->stepping_ns);

    free(recording.copy);
    if (total >= 0)
        choose_jumps(&recording);
    free(recording.visits);
    if (total < 0) {
        step_points_free(points);
        return -1;
    }
    points->total = points->steps = (uint64_t)total;
    *ret_points = *points;
    return 0;
}

int step_list_all(const struct step_plan *plan, struct step_points *ret_points)
{
    return make_list(plan, false, ret_points);
}

int step_record(const struct step_plan *plan, struct step_points *ret_points)
{
    return make_list(plan, true, ret_points);
}

void step_points_sample(struct step_points *points, size_t count, struct test_random *random)
{
    size_t kept = 0;

    if (count >= points->count)
        return;
    if (count < 2)
        count = 2;
    /* Selection sampling: each of the inner points with the same probability, order kept. */
    for (size_t i = 0; i < points->count; i++) {
        size_t left = points->count - 1 - i; /* the last one is not drawn but kept */
        bool edge = i == 0 || left == 0;

        if (edge || test_random_below(random, left) < count - 1 - kept)
            points->at[kept++] = points->at[i];
    }
    points->count = kept;
}

void step_points_free(struct step_points *points)
{
    free(points->at);
    memset(points, 0, sizeof *points);
}
