/* Aligned tables of text: rows are collected, then every column gets the width of its widest cell.
 * The first column stands to the left and holds names, the others to the right and hold numbers.
 * Width is counted in code points, which is right for what the tables hold. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static size_t points(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

void cli_table_row(cli_table *table, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0) {
        table->failed = 1;
        return;
    }
    size_t cells = 1;
    for (char *c = line; *c; c++)
        if (*c == '\t') {
            *c = 0;
            cells++;
            if (table->columns && cells > table->columns) break;
        }
    if (table->rows == 0) table->columns = cells;
    size_t size = (size_t)n < sizeof line ? (size_t)n + 1 : sizeof line;
    if (kh_buf_add(&table->cells, line, size) != KH_OK) table->failed = 1;
    for (; cells < table->columns; cells++)
        if (kh_buf_add(&table->cells, "", 1) != KH_OK) table->failed = 1;
    table->rows++;
}

kh_status cli_table_print(cli_table *table)
{
    size_t widths[32] = {0}, columns = table->columns < 32 ? table->columns : 32;
    const char *cell = table->cells.data;
    if (!table->failed && cell) {
        for (size_t i = 0; i < table->rows * columns; i++, cell += strlen(cell) + 1)
            if (points(cell) > widths[i % columns]) widths[i % columns] = points(cell);
        cell = table->cells.data;
        for (size_t i = 0; i < table->rows * columns; i++, cell += strlen(cell) + 1) {
            size_t column = i % columns, pad = widths[column] - points(cell);
            int last = column + 1 == columns;
            if (column == 0)
                cli_out("%s%*s", cell, columns > 1 ? (int)pad : 0, "");
            else if (last && table->ends_in_text)
                cli_out("  %s", cell);
            else
                cli_out("  %*s%s", (int)pad, "", cell);
            if (last) cli_out("\n");
        }
    }
    int failed = table->failed;
    kh_buf_free(&table->cells);
    *table = (cli_table){0};
    if (failed) KH_FAIL(KH_ERR_MEMORY, "no memory for the table");
    return KH_OK;
}
