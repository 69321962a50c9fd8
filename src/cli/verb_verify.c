/* keyhole verify: proves that a model file can be trusted, check by check. */
#include "cli/cli.h"

#include "base/fail.h"

#include <string.h>

typedef struct sink {
    json_t *checks; /* NULL without --json */
    int failed, passed, skipped;
    int no_memory;
} sink;

static void on_check(void *context, const char *name, int passed, const char *detail)
{
    sink *s = context;
    s->passed += passed > 0;
    s->failed += passed == 0;
    s->skipped += passed < 0;
    cli_progress_end();
    if (!detail) detail = "";
    if (s->checks) {
        json_t *state = passed < 0 ? json_null() : json_boolean(passed);
        json_t *one = json_pack("{s:s, s:o, s:o}", "check", name, "passed", state, "detail",
                                wire_text(detail, strlen(detail)));
        s->no_memory |= json_array_append_new(s->checks, one) != 0;
        return;
    }
    cli_out("%-8s %s%s%s\n",
            passed > 0    ? "ok"
            : passed == 0 ? "FAILED"
                          : "not run",
            name, *detail ? ": " : "", detail);
    if (cli_out_flush() != KH_OK) s->no_memory = 1;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    if (count) KH_FAIL(KH_ERR_ARGUMENT, "'%s': verify takes a model and nothing else", words[0]);
    kh_model *model = NULL;
    sink s = {0};
    KH_TRY(cli_model_open(&model, args, 0));
    kh_status status = KH_OK;
    if (args->json && !(s.checks = json_array()))
        status = kh_fail(KH_ERR_MEMORY, "no memory for the results");
    kh_verify_options options = {
        .session = cli_session_options(args), .check = on_check, .context = &s};
    if (status == KH_OK) status = kh_verify(model, &options);
    if (s.checks && (status == KH_OK || status == KH_ERR_CHECK)) {
        kh_status printed = s.no_memory
                                ? kh_fail(KH_ERR_MEMORY, "no memory for the results")
                                : cli_json_print(json_pack("{s:b, s:O}", "passed", status == KH_OK,
                                                           "checks", s.checks));
        if (status == KH_OK) status = printed;
    }
    json_decref(s.checks);
    if (!cli_quiet && (status == KH_OK || status == KH_ERR_CHECK))
        cli_say("%d checks passed, %d failed, %d could not be run", s.passed, s.failed, s.skipped);
    kh_model_close(model);
    return status;
}

static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Computation", cli_options_compute},
                                      {"Output", cli_options_output},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_verify = {
    .group = "Files",
    .command = {.name = "verify",
                .does = "proves a model file: data, tokenizer, and one pass against another",
                .words = "[MODEL]",
                .most_words = 1,
                .about = "Checks tensor shapes and data, the tokenizer's round trip over hard "
                         "strings, that no value is NaN, that residual sums add up, that a prefix "
                         "gives the same rows, that decoding equals the parallel pass, and that "
                         "top-k with enough keys equals full attention. Prints each check; ends "
                         "with 1 if one fails.",
                .example = "keyhole verify model.gguf",
                .groups = groups},
    .run = run,
};
