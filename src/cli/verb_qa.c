/* keyhole qa: an answer to a question about a text, without a chat.
 *
 * An encoder with a head for answers (BERT fine-tuned on SQuAD) points at stretches of the text; a model with
 * an encoder and a decoder (UnifiedQA) writes its answer to "question \n text" in small letters, the form it
 * was trained on. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <ctype.h>
#include <string.h>

static json_t *answer_json(const kh_span_answer *a, const char *text)
{
    return json_pack("{s:o, s:I, s:I, s:o, s:o}", "text", wire_text(text + a->start, a->size),
                     "start", (json_int_t)a->start, "end", (json_int_t)(a->start + a->size),
                     "score", wire_real(a->score), "probability", wire_real(a->probability));
}

static kh_status print_spans(const cli_args *args, const kh_span_answer *found, size_t count,
                             double none, const char *text)
{
    int empty = args->impossible && count > 0 && none > found[0].score;
    if (args->json) {
        json_t *list = json_array();
        for (size_t i = 0; i < count; i++) KH_TRY(cli_json_add(list, answer_json(&found[i], text)));
        return cli_json_print(json_pack(
            "{s:o, s:o, s:o}", "answer",
            empty || count == 0 ? json_null() : wire_text(text + found[0].start, found[0].size),
            "answers", list, "no_answer", wire_real(none)));
    }
    if (empty) cli_out("no answer\n");
    for (size_t i = 0; i < count && !empty; i++)
        if (args->top_k > 1)
            cli_out("%7.4f  %.*s\n", found[i].probability, (int)found[i].size,
                    text + found[i].start);
        else
            cli_out("%.*s\n", (int)found[i].size, text + found[i].start);
    return KH_OK;
}

static kh_status point(const kh_model *model, const cli_args *args, const char *question,
                       const kh_buf *text)
{
    kh_encoder_options options = cli_encoder_options(args);
    size_t most = (size_t)args->top_k, count = 0;
    kh_encoder *encoder = NULL;
    kh_span_answer *found = NULL;
    double none = 0;
    kh_status status = kh_encoder_open(&encoder, model, &options);
    if (status == KH_OK) status = kh_new(&found, most, sizeof *found, "the answers");
    if (status == KH_OK)
        status = kh_encoder_answers(encoder, found, most, &count, &none, question, text->data,
                                    text->size);
    if (status == KH_OK) status = print_spans(args, found, count, none, text->data);
    kh_free(found);
    kh_encoder_close(encoder);
    return status;
}

static kh_status source_ids(const kh_model *model, const char *question, const kh_buf *text,
                            int32_t **ids, size_t *count)
{
    kh_buf source = {0};
    kh_status status = kh_buf_format(&source, "%s \\n %s", question, text->data);
    for (size_t i = 0; status == KH_OK && i < source.size; i++)
        source.data[i] = (char)tolower((unsigned char)source.data[i]);
    if (status == KH_OK)
        status = kh_model_tokenize(model, source.data, source.size, KH_TEXT_EDGES, ids, count);
    kh_buf_free(&source);
    return status;
}

static kh_status write_answer(const kh_model *model, cli_args *args, const char *question,
                              const kh_buf *text)
{
    int32_t *ids = NULL;
    size_t count = 0;
    kh_session *session = NULL;
    cli_answer answer = {0};
    if (args->beams == 0) args->beams = 1; /* greedy */
    if (args->predict < 0) args->predict = 100;
    kh_status status = source_ids(model, question, text, &ids, &count);
    if (status == KH_OK) status = cli_session_open(&session, model, args, args->attn);
    if (status == KH_OK) status = cli_answer_open(&answer, args, model, session);
    if (status == KH_OK) status = cli_answer_source(&answer, ids, count);
    if (status == KH_OK) status = cli_answer_generate(&answer);
    if (status == KH_OK && args->json)
        status = cli_json_print(
            json_pack("{s:o}", "answer", wire_text(answer.text.data, answer.text.size)));
    cli_answer_close(&answer);
    cli_session_close(session);
    kh_free_ids(ids);
    return status;
}

static kh_status answer(const kh_model *model, cli_args *args, const char **words, size_t count)
{
    const char *question = args->prompt ? args->prompt : count ? words[0] : NULL;
    kh_buf text = {0};
    if (!question || !args->file)
        KH_FAIL(KH_ERR_ARGUMENT, "a question (-p TEXT) and a text (-f FILE, - for standard input) "
                                 "are expected");
    kh_status status = cli_read_file(&text, args->file);
    if (status == KH_OK && text.size == 0)
        status = kh_fail(KH_ERR_ARGUMENT, "%s: the text is empty", args->file);
    if (status == KH_OK)
        status = kh_model_get_kind(model) == KH_MODEL_ENCODER_DECODER
                     ? write_answer(model, args, question, &text)
                     : point(model, args, question, &text);
    kh_buf_free(&text);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    kh_model *model = NULL;
    KH_TRY(cli_model_open(&model, args, 0));
    kh_status status = answer(model, args, words, count);
    kh_model_close(model);
    return status;
}

static const kh_opt input[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the question, instead of the last word", NULL),
    CLI_TEXT(file, "-f --file", "FILE", "the text, or standard input (-)", NULL),
    CLI_INT(top_k, "-k --top-k", "N", "how many answers to show, of a model that points", "1", 1,
            1000, NULL),
    CLI_FLAG(impossible, "--impossible",
             "says \"no answer\" where the model scores that above every answer"),
    CLI_INT(beams, "--beams", "N", "of a model that writes: the most probable answer of N beams",
            "0", 0, 64, NULL),
    CLI_REAL(length_penalty, "--length-penalty", "X",
             "answers of a beam search are compared by log-probability / length ^ X", "1", -10, 10),
    CLI_INT(predict, "-n --predict", "N", "most tokens of an answer that is written", "100", 1,
            CLI_MOST_CONTEXT, NULL),
    CLI_END};
static const kh_opt output[] = {
    CLI_FLAG(json, "--json",
             "prints {answer, answers: [{text, start, end, score, probability}], no_answer}"),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"), CLI_END};
static const kh_opt_group groups[] = {
    {"Model", cli_options_model},     {"Input", input},   {"Attention", cli_options_encoder},
    {"Feed-forward", cli_options_ff}, {"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_qa = {
    .group = "Use",
    .command = {.name = "qa",
                .does = "answers a question from a text, by pointing or writing",
                .words = "[MODEL] [QUESTION]",
                .most_words = 2,
                .about = "An encoder with a head for answers (BERT tuned on SQuAD) prints the part "
                         "of the text that answers the question; T5 and its relatives (UnifiedQA) "
                         "write an answer. keyhole ask does this with a chat model.",
                .example = "keyhole qa -m bert-squad -f notes.txt \"When did it open?\"\n"
                           "keyhole qa -m unifiedqa-t5-base -f notes.txt -p \"Who founded it?\"",
                .groups = groups},
    .run = run,
};
