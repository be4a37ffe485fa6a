/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plot.h: what the panels of a plot have in common. A plot is one column of panels below a
 * heading; each panel draws itself from `plot->y` down and leaves `y` where the next one begins.
 */
#ifndef SHMQ_PERF_PLOT_H
#define SHMQ_PERF_PLOT_H

#include "tools/perf/axis.h"
#include "tools/perf/perf.h"
#include "tools/perf/svg.h"

#define PLOT_MARGIN 28.0
#define PLOT_RIGHT  (SVG_WIDTH - PLOT_MARGIN)

struct plot {
    const struct perf_report *report;
    struct svg svg;
    double y;
};

/* Results of one measure in one unit. What all of them share is said once, in the panel's heading. */
struct plot_group {
    const struct perf_result **results;
    uint32_t count;
    bool same_transport, same_size, same_distance;
};

/* ---- plot.c ---- */

/* A transport has one colour in all panels, as long as there are enough. */
unsigned plot_color(const struct plot *plot, const char *transport);
/* "line l0 d1": the classes of a curve, its dashes by distance. */
const char *plot_line_style(const struct plot *plot, const struct perf_result *result,
                            char ret_style[32]);

/* "shmq, 64 B, near", without what the group shares. */
const char *plot_label(const struct plot_group *group, const struct perf_result *result,
                       char ret_label[SVG_TEXT_BYTES]);
/* "latency, 64 B, near", and in grey what the axis has: the unit, with this behind it. */
void plot_head(struct plot *plot, const struct plot_group *group, const char *explanation);
const char *plot_unit_name(enum perf_unit unit); /* "messages a second" */

/* Labels beside the ends of curves: each at its curve's height, or as near as the others let it. */
struct plot_label {
    double wanted, y; /* y: where it came to stand */
    uint32_t index;   /* the caller's */
};
void plot_spread_labels(struct plot_label *labels, uint32_t count, double top, double bottom,
                        double distance);

/* ---- the panels, one file each ---- */

void plot_percentiles(struct plot *plot, const struct plot_group *group); /* plot_latency.c */
void plot_rates(struct plot *plot, const struct plot_group *group);       /* plot_rate.c */
void plot_bars(struct plot *plot, const struct plot_group *group);        /* plot_bars.c */
void plot_comparisons(struct plot *plot);                                 /* plot_ratio.c */

#endif
