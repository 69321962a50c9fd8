/* cli/inspecting.h: what the verbs of inspection share: options that become a question, and its answer. */
#ifndef KH_CLI_INSPECTING_H
#define KH_CLI_INSPECTING_H

#include "cli/cli.h"
#include "wire/questions.h"

extern const kh_opt cli_options_subject[], cli_options_question[], cli_options_inspect_output[];
/* The last groups of a verb that reads a text: how, and what becomes of the answer. */
#define CLI_READING_GROUPS                                                                         \
    {"Attention", cli_options_attn}, {"Feed-forward", cli_options_ff},                             \
        {"Steering", cli_options_steering}, {"Context", cli_options_context},                      \
        {"Computation", cli_options_compute}, {"Output", cli_options_inspect_output}, CLI_NO_GROUP

/* One verb: the question, and how its answer looks on a terminal. */
typedef struct cli_inspection {
    kh_status (*ask)(const wire_ask *ask);
    /* Members of the request beside the subject, from options and words. */
    kh_status (*request)(const cli_args *args, const kh_model *model, const char **words,
                         size_t count, json_t *body);
    /* One value of the answer, as it comes, without --json. */
    kh_status (*show)(void *context, const cli_args *args, const kh_model *model,
                      const json_t *value);
    void *context;
    int no_text;        /* 1: the question may be about no text */
    const char *labels; /* NULL, or the file of labels */
    /* The number of an answer that a file of prompts is summed up by, or NaN; `name` says what it is. */
    double (*figure)(const json_t *value);
    const char *name;
} cli_inspection;

kh_status cli_inspect(cli_args *args, const char **words, size_t count,
                      const cli_inspection *inspection);

/* A token as a table shows it: "·Paris", "↵", cut to `most` characters. Valid for some calls. */
const char *cli_token(const json_t *token, size_t most);
/* What a word of the command line means: an id, or a token's text. */
json_t *cli_token_json(const char *text);
double cli_number(const json_t *object, const char *name);

#endif
