/* SPDX-License-Identifier: Apache-2.0 */
/*
 * svg.h: just enough SVG for shmq-perf's plots: text, lines, boxes, paths, and one style sheet
 * for light and dark pages. No scripts, no fonts of its own, nothing that is loaded.
 *
 * Coordinates are pixels, y downward; one that is not finite is drawn at 0, so that a broken figure
 * never makes a broken file. Text is any bytes: what XML cannot hold becomes '?'. One thread.
 */
#ifndef SHMQ_PERF_SVG_H
#define SHMQ_PERF_SVG_H

#include <stdio.h>

#include "tools/outbuf.h"

#define SVG_WIDTH      960.0
#define SVG_TEXT_BYTES 256
#define SVG_COLORS     8 /* classes l0 … l7 (lines) and f0 … f7 (text, boxes) */
#define SVG_DASHES     4 /* classes d0 (solid) … d3 */

struct svg {
    struct outbuf out;
};

enum svg_anchor { SVG_START, SVG_MIDDLE, SVG_END };

/* `style` is class names of the style sheet in svg.c, separated by blanks. */
void svg_text(struct svg *svg, double x, double y, enum svg_anchor anchor, const char *style,
              const char *format, ...) PRINTF_LIKE(6, 7);
void svg_line(struct svg *svg, double x1, double y1, double x2, double y2, const char *style);
void svg_rect(struct svg *svg, double x, double y, double width, double height, double radius,
              const char *style);
void svg_circle(struct svg *svg, double x, double y, double radius, const char *style);

void svg_path_begin(struct svg *svg);
void svg_path_to(struct svg *svg, double x, double y); /* the first one of a path moves there */
void svg_path_end(struct svg *svg, const char *style, double opacity);

/* What is drawn between has `title` as its tool tip. */
void svg_group_begin(struct svg *svg, const char *title);
void svg_group_end(struct svg *svg);

/* How wide text comes out, about; nobody knows the reader's fonts. */
double svg_text_width(const char *text, double font_px);
/* How many bytes of the text make a line: all, or up to a blank. What follows is for the next line. */
size_t svg_break(const char *text, double width, double font_px);
/* The text, or as much as fits with an ellipsis. */
const char *svg_fit(const char *text, double width, double font_px, char ret_text[SVG_TEXT_BYTES]);

/* Writes the whole document and frees what was drawn. */
void svg_finish(struct svg *svg, const char *title, double height, FILE *file);

#endif
