/* keyhole train report: the curves of one run, or of several over one another, as one page. */
#include "cli/training.h"

#include "base/fail.h"

static kh_status run(cli_args *args, const char **words, size_t count)
{
    if (count == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "no run was named: the folder that keyhole train -o wrote");
    if (!args->report) KH_FAIL(KH_ERR_ARGUMENT, "-o FILE.html names the page that is written");
    json_t *runs = json_array();
    kh_status status = runs ? KH_OK : kh_fail(KH_ERR_MEMORY, "no memory for the runs");
    for (size_t i = 0; i < count && status == KH_OK; i++)
        status = cli_train_report_add(runs, words[i]);
    if (status == KH_OK) status = cli_train_report_write(args->report, runs, args);
    json_decref(runs);
    return status;
}

static const kh_opt output[] = {
    CLI_TEXT(report, "-o --output --report", "FILE", "the page; - is standard output", NULL),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"), CLI_END};
static const kh_opt_group groups[] = {{"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_train_report = {
    .group = "Train",
    .command = {.name = "train report",
                .does = "draws the curves of training runs as a page",
                .words = "RUN...",
                .most_words = (size_t)-1,
                .about =
                    "Writes one HTML file with the curves of runs of keyhole train and tune: loss, "
                    "held-out loss and accuracy, learning rate, gradient norm, tokens a second and "
                    "memory. Several runs lie over one another, each named by what its "
                    "configuration has of its own. A run may be going on meanwhile. The file needs "
                    "no network and no server.\n\nkeyhole train and tune write the page of their "
                    "own run when it ends or is stopped.",
                .example = "keyhole train report runs/full runs/k32 -o compared.html",
                .groups = groups},
    .run = run,
};
