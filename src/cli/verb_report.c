/* keyhole bench report: recorded results, ours and peers', as one page of curves. */
#include "cli/cli.h"
#include "cli/report.h"

#include "base/fail.h"

static kh_status run(cli_args *args, const char **words, size_t count)
{
    if (count == 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "no results were named: what keyhole bench attention --json prints");
    if (!args->report) KH_FAIL(KH_ERR_ARGUMENT, "-o FILE.html names the page that is written");
    json_t *runs = json_array();
    kh_status status = runs ? KH_OK : kh_fail(KH_ERR_MEMORY, "no memory for the results");
    for (size_t i = 0; i < count && status == KH_OK; i++) status = cli_report_read(runs, words[i]);
    if (status == KH_OK) status = cli_report_write(args->report, runs, args);
    json_decref(runs);
    return status;
}

static const kh_opt output[] = {
    CLI_TEXT(report, "-o --output --report", "FILE", "the page; - is standard output", NULL),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"), CLI_END};
static const kh_opt_group groups[] = {{"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_report = {
    .group = "Measure",
    .command = {.name = "bench report",
                .does = "draws recorded results, ours and peers', as a page of curves",
                .words = "RESULTS.json...",
                .most_words = (size_t)-1,
                .about =
                    "Writes one HTML file with time and memory against length, every number in a "
                    "table, the machine and the commands. It needs no network and no server. The "
                    "files are what keyhole bench attention --json and bench/peers/attention "
                    "--json print (- is standard input); rows of several files for the same work "
                    "on the same processor are drawn together.\n\nkeyhole bench attention "
                    "--report FILE.html writes the page of its own run.",
                .example = "keyhole bench report keyhole.json torch.json -o attention.html",
                .groups = groups},
    .run = run,
};
