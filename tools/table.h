/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h: rows in aligned columns. Cells are collected, then printed once, because widths are known
 * only at the end. Text is UTF-8; each code point takes one place. One thread.
 */
#ifndef SHMQ_TOOLS_TABLE_H
#define SHMQ_TOOLS_TABLE_H

#include "tools/cli.h"

#define TABLE_COLUMNS_MAX 12

struct table {
    unsigned columns;
    const char *heads[TABLE_COLUMNS_MAX];
    bool right[TABLE_COLUMNS_MAX];
    char **cells;
    size_t count;
};

/* Escape sequences, all "" where there are no colours. */
struct table_style {
    const char *head, *plain;
    const char *(*paint)(
        const char *cell); /* the sequence in front of a cell; NULL: none has any */
};

/* Headings, ended by NULL; one that begins with '>' is of a column of numbers. */
void table_init(struct table *table, const char *const *heads);
void table_cell(struct table *table, const char *format, ...) PRINTF_LIKE(2, 3);
/* To stdout, headings in bold, `indent` blanks in front; nothing if there are no rows. */
void table_print(const struct table *table, const struct cli *cli, int indent);
void table_write(const struct table *table, FILE *file, const struct table_style *style,
                 int indent);
void table_free(struct table *table);

#endif
