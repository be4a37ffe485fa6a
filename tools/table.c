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

/* Places on a terminal: bytes but for the ones that continue a code point. */
static int width_of(const char *text)
{
    int width = 0;

    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static void write_cell(FILE *file, const char *cell, const struct table_style *style)
{
    const char *color = style->paint ? style->paint(cell) : "";

    fprintf(file, "%s%s%s", color, cell, *color ? style->plain : "");
}

static void write_row(const struct table *table, const int *widths, const char *const *cells,
                      FILE *file, const struct table_style *style)
{
    for (unsigned c = 0; c < table->columns; c++) {
        int blanks = widths[c] - width_of(cells[c]);

        fprintf(file, "%s%*s", c > 0 ? "  " : "", table->right[c] ? blanks : 0, "");
        write_cell(file, cells[c], style);
        if (!table->right[c] && c + 1 < table->columns)
            fprintf(file, "%*s", blanks, "");
    }
}

void table_write(const struct table *table, FILE *file, const struct table_style *style, int indent)
{
    const struct table_style plain = {.head = "", .plain = ""};
    int widths[TABLE_COLUMNS_MAX];

    if (table->count == 0)
        return;
    for (unsigned c = 0; c < table->columns; c++) {
        widths[c] = width_of(table->heads[c]);
        for (size_t i = c; i < table->count; i += table->columns) {
            int width = width_of(table->cells[i]);

            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
    fprintf(file, "%*s%s", indent, "", style->head);
    write_row(table, widths, table->heads, file, &plain);
    fprintf(file, "%s\n", style->plain);
    for (size_t i = 0; i + table->columns <= table->count; i += table->columns) {
        fprintf(file, "%*s", indent, "");
        write_row(table, widths, (const char *const *)(void *)(table->cells + i), file, style);
        fputc('\n', file);
    }
}

void table_print(const struct table *table, const struct cli *cli, int indent)
{
    struct table_style style = {.head = cli_bold(cli), .plain = cli_plain(cli)};

    table_write(table, stdout, &style, indent);
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct table){0};
}
