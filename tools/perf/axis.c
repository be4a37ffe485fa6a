/* SPDX-License-Identifier: Apache-2.0 */
/* Axes; see axis.h. */
#include "tools/perf/axis.h"

#include <math.h>

#include "libshmq/base.h"

/* No figure is beyond these; what is, stands at them, and arithmetic stays far from its limits. */
#define SMALLEST 1e-15
#define LARGEST  1e18

/* ---- Ranges ---------------------------------------------------------------------------------- */

void axis_begin_log(struct axis *axis)
{
    *axis = (struct axis){.low = INFINITY, .high = 0, .is_log = true};
}

void axis_include(struct axis *axis, double value)
{
    if (!isfinite(value) || value <= 0)
        return;
    value = fmin(fmax(value, SMALLEST), LARGEST);
    axis->low = fmin(axis->low, value);
    axis->high = fmax(axis->high, value);
}

void axis_end(struct axis *axis, double least_span)
{
    double missing;

    if (axis->high <= 0) { /* nothing was included */
        axis->low = 1;
        axis->high = 1;
    }
    missing = least_span / (axis->high / axis->low);
    if (missing > 1) {
        axis->low /= sqrt(missing);
        axis->high *= sqrt(missing);
    }
    /* So that nothing lies on the frame. */
    missing = pow(axis->high / axis->low, 0.04);
    axis->low /= missing;
    axis->high *= missing;
}

/* The largest of 1, 2, 5 times a power of ten that is not above `value`. */
static double round_down(double value)
{
    double power = pow(10, floor(log10(value)));
    double digits = value / power * (1 + 1e-9);

    return power * (digits >= 5 ? 5 : digits >= 2 ? 2 : 1);
}

void axis_make_linear(struct axis *axis, double high)
{
    double step;

    *axis = (struct axis){.low = 0, .high = 1};
    if (!isfinite(high) || high <= 0)
        return;
    high = fmin(fmax(high, SMALLEST), LARGEST);
    step = round_down(high / 4);
    axis->high = step * ceil(high / step * (1 - 1e-9));
}

double axis_place(const struct axis *axis, double value)
{
    double share;

    if (!(value > axis->low)) /* NaN as well */
        return axis->from_px;
    if (value >= axis->high)
        return axis->to_px;
    share = axis->is_log ? log(value / axis->low) / log(axis->high / axis->low)
                         : (value - axis->low) / (axis->high - axis->low);
    return axis->from_px + share * (axis->to_px - axis->from_px);
}

/* ---- Ticks ----------------------------------------------------------------------------------- */

static uint32_t add_linear(const struct axis *axis, double step, double ret_ticks[AXIS_TICKS_MAX])
{
    double first = ceil(axis->low / step * (1 - 1e-9));
    uint32_t count = 0;

    while (count < AXIS_TICKS_MAX && (first + count) * step <= axis->high * (1 + 1e-9)) {
        ret_ticks[count] = (first + count) * step;
        count++;
    }
    return count;
}

static uint32_t make_linear(const struct axis *axis, uint32_t most,
                            double ret_ticks[AXIS_TICKS_MAX])
{
    static const double STEPS[] = {1, 2, 5, 10, 20, 50};
    double unit = pow(10, floor(log10((axis->high - axis->low) / most)));

    for (size_t i = 0; i < COUNT_OF(STEPS); i++) {
        if ((axis->high - axis->low) / (unit * STEPS[i]) + 1 <= most)
            return add_linear(axis, unit * STEPS[i], ret_ticks);
    }
    return add_linear(axis, unit * 100, ret_ticks);
}

/* A tick at each of `digits` in every `every`-th decade; more than AXIS_TICKS_MAX: that many are counted. */
static uint32_t add_decades(const struct axis *axis, const double *digits, int every,
                            double ret_ticks[AXIS_TICKS_MAX])
{
    int first = (int)floor(log10(axis->low));
    int last = (int)floor(log10(axis->high));
    uint32_t count = 0;

    for (int decade = first; decade <= last; decade++) {
        if (((decade % every) + every) % every != 0)
            continue;
        for (const double *digit = digits; *digit > 0; digit++) {
            double tick = *digit * pow(10, decade);

            if (tick < axis->low * (1 - 1e-9) || tick > axis->high * (1 + 1e-9))
                continue;
            if (count == AXIS_TICKS_MAX)
                return count;
            ret_ticks[count++] = tick;
        }
    }
    return count;
}

uint32_t axis_ticks(const struct axis *axis, uint32_t most, double ret_ticks[AXIS_TICKS_MAX])
{
    static const double FINE[] = {1, 1.5, 2, 3, 4, 5, 6, 8, 0};
    static const double USUAL[] = {1, 2, 5, 0};
    static const double WIDE[] = {1, 3, 0};
    static const double TENS[] = {1, 0};
    static const double *const SETS[] = {FINE, USUAL, WIDE, TENS};

    most = min_u32(most, AXIS_TICKS_MAX - 1);
    if (!axis->is_log || axis->high / axis->low < 4)
        return make_linear(axis, most, ret_ticks);
    for (size_t i = 0; i < COUNT_OF(SETS); i++) {
        uint32_t count = add_decades(axis, SETS[i], 1, ret_ticks);

        if (count <= most)
            return count;
    }
    for (int every = 2; every < 600; every++) {
        uint32_t count = add_decades(axis, TENS, every, ret_ticks);

        if (count <= most)
            return count;
    }
    return 0;
}
