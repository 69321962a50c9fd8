/* Pages about the program as a whole: the list of verbs, `keyhole --help`, keyhole(1). All come from
 * the verb table, as the pages of the verbs come from their option tables. */
#include "cli/docs.h"
#include "cli/cli.h"

#include "base/fail.h"

#include <ctype.h>
#include <string.h>

enum { COLUMN = 18 };

static const char about[] =
    "keyhole runs, measures and inspects GGUF language models through exact top-k attention. "
    "--attn "
    "chooses the attention (full, topk:k=64, auto ...); the other flags are those of llama.cpp.";

kh_status cli_verb_list(kh_buf *out, size_t width)
{
    const char *group = "";
    for (size_t i = 0; cli_verbs[i]; i++) {
        const cli_verb *verb = cli_verbs[i];
        if (strcmp(group, verb->group) != 0)
            KH_TRY(kh_buf_format(out, "%s%s\n", *group ? "\n" : "", verb->group));
        group = verb->group;
        KH_TRY(kh_buf_format(out, "  %-*s", COLUMN - 2, verb->command.name));
        KH_TRY(kh_opt_wrap(out, verb->command.does, COLUMN, COLUMN, width));
        KH_TRY(kh_buf_text(out, "\n"));
    }
    return KH_OK;
}

kh_status cli_overview(kh_buf *out, size_t width)
{
    KH_TRY(kh_buf_text(out, "Usage: keyhole VERB [options]\n\n"));
    KH_TRY(kh_opt_wrap(out, about, 0, 0, width));
    KH_TRY(kh_buf_text(out, "\n\n"));
    KH_TRY(cli_verb_list(out, width));
    return kh_buf_text(out,
                       "\nHelp\n"
                       "  help VERB       the options of a verb (so does keyhole VERB --help)\n"
                       "  --version       version, commit, instruction set, libraries\n"
                       "\nExamples\n"
                       "  keyhole run -m model.gguf -p \"Name three rivers.\"\n"
                       "  keyhole chat model.gguf --attn topk:k=128\n"
                       "  keyhole ask -m model.gguf -f report.txt \"Who signed it?\" --sources\n");
}

/* "bench recall" -> keyhole\-bench\-recall */
static kh_status page_name(kh_buf *out, const char *name)
{
    KH_TRY(kh_buf_text(out, "keyhole\\-"));
    for (; *name; name++) KH_TRY(*name == ' ' ? kh_buf_text(out, "\\-") : kh_buf_add(out, name, 1));
    return KH_OK;
}

kh_status cli_man(kh_buf *out, const char *version)
{
    KH_TRY(kh_buf_format(out, ".TH KEYHOLE 1 \"\" \"keyhole %s\" \"User commands\"\n", version));
    KH_TRY(kh_buf_text(out, ".SH NAME\nkeyhole \\- language models through top\\-k attention\n"
                            ".SH SYNOPSIS\n.B keyhole\n.I VERB\n[options]\n.SH DESCRIPTION\n"));
    for (const char *c = about; *c; c++)
        KH_TRY(*c == '-' ? kh_buf_text(out, "\\-") : kh_buf_add(out, c, 1));
    KH_TRY(kh_buf_text(out, "\n.SH VERBS\n"));
    for (size_t i = 0; cli_verbs[i]; i++)
        KH_TRY(kh_buf_format(out, ".TP\n.B %s\n%c%s.\n", cli_verbs[i]->command.name,
                             toupper((unsigned char)cli_verbs[i]->command.does[0]),
                             cli_verbs[i]->command.does + 1));
    KH_TRY(kh_buf_text(
        out, ".SH FILES\n.TP\n.I DOCUMENT.keyhole\\-cache\nA document as keyhole ask has read it; "
             "may be deleted at any time.\n"
             ".SH ENVIRONMENT\n.TP\n.B LLAMA_ARG_MODEL, LLAMA_ARG_CTX_SIZE ...\nRead before the "
             "command line; the page of a verb names them.\n"
             ".SH EXIT STATUS\n0 done; 1 it could not be done; 2 bad usage; 130 stopped by "
             "Ctrl\\-C.\n.SH SEE ALSO\n"));
    for (size_t i = 0; cli_verbs[i]; i++) {
        KH_TRY(kh_buf_text(out, ".BR "));
        KH_TRY(page_name(out, cli_verbs[i]->command.name));
        KH_TRY(kh_buf_text(out, cli_verbs[i + 1] ? " (1),\n" : " (1)\n"));
    }
    return KH_OK;
}
