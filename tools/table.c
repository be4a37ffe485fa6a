/* SPDX-License-Identifier: Apache-2.0 */
/* Aligned columns; see table.h. */
#include "tools/table.h"

#include <stdarg.h>
#include <string.h>

#include "tools/outbuf.h"

void table_init(struct table *table, const char *const *heads)
{
    *table = (struct table){0};
    for (; *heads && table->columns < TABLE_COLUMNS_MAX; heads++) {
        table->right[table->columns] = **heads == '>';
        table->heads[table->columns] = *heads + (**heads == '>');
        table->columns++;
    }
}

void table_cell(struct table *table, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    text_make_printable(text);
    /* Grows by doubling: a bus may have thousands of topics. */
    if ((table->count & (table->count + 1)) == 0)
        table->cells = tool_realloc(table->cells, (table->count + 1) * 2 * sizeof(*table->cells));
    table->cells[table->count++] = tool_strdup(text);
}

static void print_row(const struct table *table, const int *widths, const char *const *cells,
                      int indent)
{
    printf("%*s", indent, "");
    for (unsigned c = 0; c < table->columns; c++) {
        const char *gap = c > 0 ? "  " : "";

        if (table->right[c])
            printf("%s%*s", gap, widths[c], cells[c]);
        else if (c + 1 < table->columns)
            printf("%s%-*s", gap, widths[c], cells[c]);
        else
            printf("%s%s", gap, cells[c]);
    }
}

void table_print(const struct table *table, const struct cli *cli, int indent)
{
    int widths[TABLE_COLUMNS_MAX];

    for (unsigned c = 0; c < table->columns; c++) {
        widths[c] = (int)strlen(table->heads[c]);
        for (size_t i = c; i < table->count; i += table->columns) {
            int width = (int)strlen(table->cells[i]);

            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
    if (table->count > 0) {
        printf("%s", cli_bold(cli));
        print_row(table, widths, table->heads, indent);
        printf("%s\n", cli_plain(cli));
    }
    for (size_t i = 0; i + table->columns <= table->count; i += table->columns) {
        print_row(table, widths, (const char *const *)(void *)(table->cells + i), indent);
        putchar('\n');
    }
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct table){0};
}
