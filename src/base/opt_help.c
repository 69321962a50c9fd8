/* Option tables: the help page and the manual page.
 *
 * Both walk the same groups in the same order and say the same sentences; only the frame differs.
 * What a reader must not find out by trying is generated, not written by hand: the choices, the
 * range, the default and the environment variable of an option come from the fields that the parser
 * obeys. Text is wrapped by bytes: help is written in ASCII.
 *
 * The manual page uses the five macros that every man(7) has (.TH .SH .SS .TP .PP) and no others.
 * A hyphen becomes \- so that options can be copied from the page, and a line never begins with a
 * dot or an apostrophe, which roff would read as a request. */
#include "base/opt.h"

#include "base/fail.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { LABEL = 30 }; /* column where the help sentences begin */

static kh_status spaces(kh_buf *out, size_t n)
{
    while (n-- > 0) KH_TRY(kh_buf_add(out, " ", 1));
    return KH_OK;
}

kh_status kh_opt_wrap(kh_buf *out, const char *text, size_t column, size_t indent, size_t width)
{
    int first = 1;
    while (*text) {
        if (*text == '\n') {
            KH_TRY(kh_buf_text(out, text[1] == '\n' ? "\n\n" : "\n"));
            text += text[1] == '\n' ? 2 : 1;
            KH_TRY(spaces(out, indent));
            column = indent;
            first = 1;
            continue;
        }
        size_t n = strcspn(text, " \n");
        if (!first && column + 1 + n > width) {
            KH_TRY(kh_buf_text(out, "\n"));
            KH_TRY(spaces(out, indent));
            column = indent;
        } else if (!first) {
            KH_TRY(kh_buf_text(out, " "));
            column++;
        }
        KH_TRY(kh_buf_add(out, text, n));
        column += n;
        first = 0;
        text += n + (text[n] == ' ');
    }
    return KH_OK;
}

/* "-c, --ctx-size N" */
static kh_status label(kh_buf *out, const kh_opt *option)
{
    const char *at = option->names, *name;
    int first = 1;
    for (size_t n; (n = kh_opt_spelling(&at, &name)) > 0; first = 0)
        KH_TRY(kh_buf_format(out, "%s%.*s", first ? "" : ", ", (int)n, name));
    return option->argument ? kh_buf_format(out, " %s", option->argument) : KH_OK;
}

/* The help sentence with everything that the parser knows about the value. */
static kh_status sentence(kh_buf *out, const kh_opt *option)
{
    KH_TRY(kh_buf_text(out, option->help));
    if (option->choices && option->kind == KH_OPT_CHOICE) {
        KH_TRY(kh_buf_text(out, ": "));
        for (int i = 0; option->choices[i]; i++)
            KH_TRY(kh_buf_format(out, "%s%s", i ? ", " : "", option->choices[i]));
    }
    if (option->kind == KH_OPT_REAL && option->most > option->least && !isinf(option->most))
        KH_TRY(kh_buf_format(out, ", %g to %g", option->least, option->most));
    if (option->kind == KH_OPT_TEXTS) KH_TRY(kh_buf_text(out, "; may be repeated"));
    if (option->initial) KH_TRY(kh_buf_format(out, " (default: %s)", option->initial));
    if (option->environment) KH_TRY(kh_buf_format(out, " [%s]", option->environment));
    return KH_OK;
}

static kh_status help_line(kh_buf *out, const char *head, const char *text, size_t width)
{
    KH_TRY(kh_buf_format(out, "  %s", head));
    size_t column = 2 + strlen(head);
    if (column + 2 > LABEL) {
        KH_TRY(kh_buf_text(out, "\n"));
        column = 0;
    }
    KH_TRY(spaces(out, LABEL - column));
    KH_TRY(kh_opt_wrap(out, text, LABEL, LABEL, width));
    return kh_buf_text(out, "\n");
}

static kh_status help_option(kh_buf *out, const kh_opt *option, size_t width)
{
    kh_buf head = {0}, text = {0};
    kh_status status = label(&head, option);
    if (status == KH_OK) status = sentence(&text, option);
    if (status == KH_OK) status = help_line(out, head.data, text.data, width);
    kh_buf_free(&head);
    kh_buf_free(&text);
    return status;
}

kh_status kh_opt_usage(kh_buf *out, const char *program, const kh_opt_command *command)
{
    KH_TRY(kh_buf_format(out, "%s %s [options]", program, command->name));
    return command->words ? kh_buf_format(out, " %s", command->words) : KH_OK;
}

kh_status kh_opt_help(kh_buf *out, const char *program, const kh_opt_command *command, size_t width)
{
    if (width < LABEL + 20) width = LABEL + 20;
    KH_TRY(kh_buf_text(out, "Usage: "));
    KH_TRY(kh_opt_usage(out, program, command));
    KH_TRY(kh_buf_text(out, "\n\n"));
    KH_TRY(kh_opt_wrap(out, command->about, 0, 0, width));
    KH_TRY(kh_buf_text(out, "\n"));
    for (const kh_opt_group *group = command->groups; group->title; group++) {
        KH_TRY(kh_buf_format(out, "\n%s\n", group->title));
        for (const kh_opt *option = group->options; option->names; option++)
            KH_TRY(help_option(out, option, width));
    }
    KH_TRY(kh_buf_text(out, "\nHelp\n"));
    KH_TRY(help_line(out, "-h, --help", "this page", width));
    if (!command->example) return KH_OK;
    KH_TRY(kh_buf_text(out, "\nExamples\n"));
    for (const char *line = command->example; *line;) {
        size_t n = strcspn(line, "\n");
        KH_TRY(kh_buf_format(out, "  %.*s\n", (int)n, line));
        line += n + (line[n] == '\n');
    }
    return KH_OK;
}

/* ---- the manual page ---- */

static kh_status roff(kh_buf *out, const char *text)
{
    for (; *text; text++) {
        int line_start = out->size == 0 || out->data[out->size - 1] == '\n';
        if (line_start && (*text == '.' || *text == '\'')) KH_TRY(kh_buf_text(out, "\\&"));
        if (*text == '\\')
            KH_TRY(kh_buf_text(out, "\\e"));
        else if (*text == '-')
            KH_TRY(kh_buf_text(out, "\\-"));
        else if (*text == '\n')
            KH_TRY(kh_buf_text(out, text[1] == '\n' ? "\n.PP\n" : "\n.br\n"));
        else
            KH_TRY(kh_buf_add(out, text, 1));
        if (*text == '\n' && text[1] == '\n') text++;
    }
    return KH_OK;
}

static kh_status man_option(kh_buf *out, const kh_opt *option)
{
    kh_buf head = {0}, text = {0};
    kh_status status = label(&head, option);
    if (status == KH_OK) status = sentence(&text, option);
    if (status == KH_OK) status = kh_buf_text(out, ".TP\n.B ");
    if (status == KH_OK) status = roff(out, head.data);
    if (status == KH_OK) status = kh_buf_text(out, "\n");
    if (status == KH_OK && text.size) text.data[0] = (char)toupper((unsigned char)text.data[0]);
    if (status == KH_OK) status = roff(out, text.data);
    if (status == KH_OK) status = kh_buf_text(out, ".\n");
    kh_buf_free(&head);
    kh_buf_free(&text);
    return status;
}

static kh_status man_head(kh_buf *out, const char *program, const kh_opt_command *command,
                          const char *version)
{
    KH_TRY(kh_buf_text(out, ".TH "));
    for (const char *c = program; *c; c++)
        KH_TRY(kh_buf_format(out, "%c", toupper((unsigned char)*c)));
    KH_TRY(kh_buf_text(out, "\\-"));
    for (const char *c = command->name; *c; c++)
        KH_TRY(*c == ' ' ? kh_buf_text(out, "\\-")
                         : kh_buf_format(out, "%c", toupper((unsigned char)*c)));
    KH_TRY(kh_buf_format(out, " 1 \"\" \"%s %s\" \"User commands\"\n.SH NAME\n", program, version));
    KH_TRY(kh_buf_format(out, "%s\\-", program));
    for (const char *c = command->name; *c; c++)
        KH_TRY(*c == ' ' ? kh_buf_text(out, "\\-") : kh_buf_add(out, c, 1));
    KH_TRY(kh_buf_text(out, " \\- "));
    KH_TRY(roff(out, command->does));
    return kh_buf_text(out, "\n.SH SYNOPSIS\n");
}

kh_status kh_opt_man(kh_buf *out, const char *program, const kh_opt_command *command,
                     const char *version)
{
    KH_TRY(man_head(out, program, command, version));
    kh_buf usage = {0};
    kh_status status = kh_opt_usage(&usage, program, command);
    if (status == KH_OK) status = roff(out, usage.data);
    kh_buf_free(&usage);
    KH_TRY(status);
    KH_TRY(kh_buf_text(out, "\n.SH DESCRIPTION\n"));
    KH_TRY(roff(out, command->about));
    KH_TRY(kh_buf_text(out, "\n.SH OPTIONS\n"));
    for (const kh_opt_group *group = command->groups; group->title; group++) {
        KH_TRY(kh_buf_text(out, ".SS "));
        KH_TRY(roff(out, group->title));
        KH_TRY(kh_buf_text(out, "\n"));
        for (const kh_opt *option = group->options; option->names; option++)
            KH_TRY(man_option(out, option));
    }
    if (command->example) {
        KH_TRY(kh_buf_text(out, ".SH EXAMPLES\n"));
        KH_TRY(roff(out, command->example));
        KH_TRY(kh_buf_text(out, "\n"));
    }
    KH_TRY(kh_buf_text(out, ".SH SEE ALSO\n"));
    return kh_buf_format(out, ".BR %s (1)\n", program);
}
