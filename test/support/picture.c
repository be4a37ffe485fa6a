/* SPDX-License-Identifier: Apache-2.0 */
/* Reading SVG; see picture.h. */
#include "test/support/picture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/support/cli.h"
#include "test/support/test.h"
#include "tools/outbuf.h"

#define ELEMENTS_MAX 8192

/* A finite number, and nothing but it up to `end`. */
static double take_number(const char **at)
{
    char *rest;
    double number;

    /* strtod() would take these for numbers. */
    REQUIRE(strspn(*at, "-0123456789.") > 0);
    number = strtod(*at, &rest);
    CHECK(isfinite(number));
    *at = rest;
    return number;
}

static void take_path(struct element *element, const char *at)
{
    element->path_min_y = INFINITY;
    element->path_max_y = -INFINITY;
    for (; *at == 'M' || *at == 'L'; element->points++) {
        CHECK((*at == 'M') == (element->points == 0));
        at++;
        element->end_x = take_number(&at);
        REQUIRE(*at++ == ' ');
        element->end_y = take_number(&at);
        element->path_min_y = fmin(element->path_min_y, element->end_y);
        element->path_max_y = fmax(element->path_max_y, element->end_y);
    }
    CHECK(*at == '"');
    CHECK(element->points > 0);
}

static void take_attribute(struct element *element, const char *name, size_t length,
                           const char *value)
{
    static const struct {
        const char *name;
        size_t offset;
    } NUMBERS[] = {
        {"x", offsetof(struct element, x)},           {"y", offsetof(struct element, y)},
        {"x1", offsetof(struct element, x)},          {"y1", offsetof(struct element, y)},
        {"x2", offsetof(struct element, end_x)},      {"y2", offsetof(struct element, end_y)},
        {"cx", offsetof(struct element, x)},          {"cy", offsetof(struct element, y)},
        {"width", offsetof(struct element, width)},   {"height", offsetof(struct element, height)},
        {"r", offsetof(struct element, other)},       {"rx", offsetof(struct element, other)},
        {"opacity", offsetof(struct element, other)},
    };

    if (length == 5 && strncmp(name, "class", 5) == 0)
        snprintf(element->style, sizeof(element->style), "%.*s", (int)strcspn(value, "\""), value);
    if (length == 1 && *name == 'd')
        take_path(element, value);
    for (size_t i = 0; i < COUNT_OF(NUMBERS); i++) {
        if (strlen(NUMBERS[i].name) == length && strncmp(name, NUMBERS[i].name, length) == 0 &&
            strncmp(value, "100%\"", 5) != 0) {
            *(double *)(void *)((char *)element + NUMBERS[i].offset) = take_number(&value);
            CHECK(*value == '"');
        }
    }
}

/* Text and values: no markup, and '&' only for the four entities. */
static const char *skip_text(const char *at, char end)
{
    for (; *at && *at != end; at++) {
        unsigned char byte = (unsigned char)*at;

        CHECK(byte >= 0x20 || byte == '\n');
        CHECK(*at != '<');
        if (*at == '&')
            CHECK(strncmp(at, "&lt;", 4) == 0 || strncmp(at, "&gt;", 4) == 0 ||
                  strncmp(at, "&amp;", 5) == 0 || strncmp(at, "&quot;", 6) == 0);
    }
    REQUIRE(*at == end);
    return at;
}

/* From behind the name to behind the '>'; true if the element is closed by "/>". */
static bool take_attributes(struct element *element, const char **at)
{
    while (**at == ' ') {
        const char *name = *at + strspn(*at, " ");
        size_t length = strcspn(name, "=\" <>/");

        REQUIRE(length > 0 && strncmp(name + length, "=\"", 2) == 0);
        take_attribute(element, name, length, name + length + 2);
        *at = skip_text(name + length + 2, '"') + 1;
    }
    if (strncmp(*at, "/>", 2) == 0) {
        *at += 2;
        return true;
    }
    REQUIRE(**at == '>');
    (*at)++;
    return false;
}

static void take_elements(struct picture *picture, const char *at)
{
    const char *open[16];
    size_t lengths[16];
    unsigned depth = 0;

    do {
        struct element *element = &picture->elements[picture->count];
        size_t length;

        at = skip_text(at, '<') + 1;
        if (*at == '/') {
            REQUIRE(depth > 0);
            depth--;
            CHECK(strncmp(at + 1, open[depth], lengths[depth]) == 0 &&
                  at[1 + lengths[depth]] == '>');
            at = strchr(at, '>') + 1;
            continue;
        }
        REQUIRE(picture->count < ELEMENTS_MAX && depth < COUNT_OF(open));
        picture->count++;
        *element = (struct element){.text = NULL};
        length = strcspn(at, " />");
        snprintf(element->name, sizeof(element->name), "%.*s", (int)length, at);
        open[depth] = at;
        lengths[depth] = length;
        at += length;
        depth += !take_attributes(element, &at);
        element->text = at;
        element->text_length = strcspn(at, "<");
    } while (depth > 0);
    CHECK_STR_EQ(at, "\n");
}

/* Everything lies on the page; text may have a little overhang, as nobody knows its width. */
static void check_places(const struct picture *picture)
{
    for (unsigned i = 1; i < picture->count; i++) {
        const struct element *e = &picture->elements[i];

        test_context("element %u, %s %s: ", i, e->name, e->style);
        CHECK(e->x >= 0 && e->x <= picture->width);
        CHECK(e->y >= 0 && e->y <= picture->height);
        CHECK(e->width >= 0 && e->x + e->width <= picture->width + 0.1);
        CHECK(e->height >= 0 && e->y + e->height <= picture->height);
        CHECK(e->end_x >= 0 && e->end_x <= picture->width);
        CHECK(e->end_y >= 0 && e->end_y <= picture->height);
    }
    test_context(NULL);
}

void picture_read(struct picture *picture, const char *path)
{
    static const char HEAD[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                               "<svg xmlns=\"http://www.w3.org/2000/svg\"";
    size_t length;

    *picture = (struct picture){.text = cli_read_whole(path, &length)};
    picture->elements = calloc(ELEMENTS_MAX, sizeof(*picture->elements));
    REQUIRE(picture->elements != NULL);
    CHECK_EQ(strlen(picture->text), length);
    CHECK(text_is_utf8(picture->text, length));
    REQUIRE(strncmp(picture->text, HEAD, strlen(HEAD)) == 0);
    take_elements(picture, strchr(picture->text, '\n') + 1);
    picture->width = picture->elements[0].width;
    picture->height = picture->elements[0].height;
    CHECK(picture->width > 0 && picture->height > 0);
    check_places(picture);
}

void picture_free(struct picture *picture)
{
    free(picture->elements);
    free(picture->text);
    *picture = (struct picture){.text = NULL};
}

const struct element *picture_find_text(const struct picture *picture, const char *words,
                                        unsigned nth)
{
    for (unsigned i = 0; i < picture->count; i++) {
        const struct element *e = &picture->elements[i];

        if (strcmp(e->name, "text") == 0 && e->text_length == strlen(words) &&
            strncmp(e->text, words, e->text_length) == 0 && nth-- == 0)
            return e;
    }
    return NULL;
}

const struct element *picture_find(const struct picture *picture, const char *name,
                                   const char *style, unsigned nth)
{
    for (unsigned i = 0; i < picture->count; i++) {
        const struct element *e = &picture->elements[i];

        if (strcmp(e->name, name) == 0 && strcmp(e->style, style) == 0 && nth-- == 0)
            return e;
    }
    return NULL;
}

unsigned picture_count(const struct picture *picture, const char *name, const char *style)
{
    unsigned count = 0;

    while (picture_find(picture, name, style, count))
        count++;
    return count;
}
