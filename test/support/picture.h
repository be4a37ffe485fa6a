/* SPDX-License-Identifier: Apache-2.0 */
/*
 * picture.h: a strict reader of SVG, for the suites of what draws it.
 *
 * It takes only what the plots are made of, and checks on the way: elements nest and end, attributes are
 * quoted, text is escaped and UTF-8, numbers are finite, everything lies on the page. One thread.
 */
#ifndef SHMQ_TEST_SUPPORT_PICTURE_H
#define SHMQ_TEST_SUPPORT_PICTURE_H

#include <stddef.h>

struct element {
    char name[16];
    char style[48];             /* class */
    double x, y, width, height; /* line: x1, y1 to x2, y2 */
    double end_x, end_y;        /* line; path: its last point */
    double path_min_y, path_max_y;
    double other;     /* radius, opacity */
    unsigned points;  /* path */
    const char *text; /* what stands behind the tag */
    size_t text_length;
};

struct picture {
    char *text;
    double width, height;
    struct element *elements; /* as they come; the first one is <svg> */
    unsigned count;
};

void picture_read(struct picture *picture, const char *path);
void picture_free(struct picture *picture);

/* The nth text with exactly these words; NULL if there is none. */
const struct element *picture_find_text(const struct picture *picture, const char *words,
                                        unsigned nth);
/* The nth element of this name and class; NULL if there is none. */
const struct element *picture_find(const struct picture *picture, const char *name,
                                   const char *style, unsigned nth);
unsigned picture_count(const struct picture *picture, const char *name, const char *style);

#endif
