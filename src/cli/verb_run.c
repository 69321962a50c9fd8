/* keyhole run: one answer to a prompt.
 *
 * A file with a chat template gets the prompt as one user message, in the template; --raw gives the
 * bare text with the marks at its edges that the file asks for. --prompt-cache holds the session
 * after the prompt: the next run keeps the longest common prefix, so the same file serves prompts
 * that share a long beginning. A file that is not a cache of this model and setting is never
 * overwritten: it may be the user's.
 *
 * For a model with an encoder (T5) the prompt is the source text: it is encoded once, and the answer is the
 * decoder's, greedy with --temp 0, or the best of a beam search (--beams). */
#include "cli/cli.h"
#include "cli/steering.h"

#include "base/fail.h"

#include <string.h>

static kh_status prompt_ids(const kh_model *model, const cli_args *args, const kh_buf *text,
                            int32_t **ids, size_t *count)
{
    int source = kh_model_get_kind(model) == KH_MODEL_ENCODER_DECODER;
    if (source || args->raw || !*cli_chat_format(args, model)) {
        if (args->system)
            cli_note("-sys has no effect without a chat format (--chat-template NAME)");
        return kh_model_tokenize(model, text->data, text->size, KH_TEXT_EDGES, ids, count);
    }
    kh_chat_message messages[2];
    size_t n = 0;
    if (args->system) messages[n++] = (kh_chat_message){"system", args->system};
    messages[n++] = (kh_chat_message){"user", text->data};
    return cli_chat_ids(args, model, messages, n, ids, count);
}

static kh_status read_prompt(cli_answer *answer, const int32_t *ids, size_t count)
{
    const char *path = answer->args->prompt_cache;
    size_t loaded = 0;
    if (path) {
        kh_status status = cli_cache_load(answer->session, path, ids, count, &loaded);
        if (status == KH_ERR_FORMAT) return kh_fail_context(status, "--prompt-cache %s", path);
        if (status != KH_OK) return status;
    }
    KH_TRY(cli_answer_read(answer, ids, count));
    if (!path || loaded == count) return KH_OK;
    return kh_session_save(answer->session, path);
}

/* A prompt is what the model continues; behind an encoder it is the source, and the decoder begins anew. */
static kh_status read_all(cli_answer *answer, const int32_t *ids, size_t count)
{
    if (kh_model_get_kind(answer->model) != KH_MODEL_ENCODER_DECODER)
        return read_prompt(answer, ids, count);
    if (answer->args->prompt_cache)
        KH_FAIL(KH_ERR_UNSUPPORTED, "--prompt-cache: a %s model's source cannot be kept in a file",
                kh_model_get_info(answer->model)->architecture);
    return cli_answer_source(answer, ids, count);
}

static kh_status run_session(const kh_model *model, cli_args *args, const int32_t *ids,
                             size_t count)
{
    kh_session *session = NULL;
    cli_answer answer = {0};
    kh_steering *steering = NULL;
    kh_status status = cli_session_open(&session, model, args, args->attn);
    if (status == KH_OK) status = cli_steering_attach(&steering, session, model, args);
    if (status == KH_OK) status = cli_answer_open(&answer, args, model, session);
    if (status == KH_OK) status = read_all(&answer, ids, count);
    if (status == KH_OK) {
        status = cli_answer_generate(&answer);
        if (status == KH_OK || status == KH_ERR_STOPPED) {
            kh_status printed = args->json ? cli_json_print(cli_answer_json(&answer)) : KH_OK;
            cli_answer_explain(&answer);
            cli_answer_summary(&answer);
            if (status == KH_OK) status = printed;
        }
    }
    cli_answer_close(&answer);
    cli_session_close(session);
    kh_steering_close(steering);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    kh_buf text = {0};
    kh_model *model = NULL;
    int32_t *ids = NULL;
    size_t id_count = 0;
    kh_status status = KH_OK;
    if (count && args->prompt)
        status = kh_fail(KH_ERR_ARGUMENT, "'%s': the prompt is given twice, here and with -p",
                         words[0]);
    else if (!args->model)
        status = cli_model_open(&model, args, 0);
    if (status == KH_OK) status = cli_read_text(&text, args, count ? words[0] : NULL);
    if (status == KH_OK) status = cli_model_open(&model, args, 0);
    if (status == KH_OK) status = prompt_ids(model, args, &text, &ids, &id_count);
    if (status == KH_OK) status = run_session(model, args, ids, id_count);
    kh_free_ids(ids);
    kh_model_close(model);
    kh_buf_free(&text);
    return status;
}

static const kh_opt input[] = {
    CLI_FLAG(raw, "--raw", "plain completion: no chat format around the prompt"), CLI_END};

static const kh_opt_group groups[] = {{"Model", cli_options_model},
                                      {"Input", cli_options_prompt},
                                      {"Chat format", cli_options_template},
                                      {"Plain text", input},
                                      {"Answer", cli_options_answer},
                                      {"Attention", cli_options_attn},
                                      {"Feed-forward", cli_options_ff},
                                      {"Steering", cli_options_steering},
                                      {"Context", cli_options_context},
                                      {"Computation", cli_options_compute},
                                      {"Sampling", cli_options_sampling},
                                      {"Output", cli_options_output_answer},
                                      {"Known from llama.cpp", cli_options_known},
                                      CLI_NO_GROUP};

const cli_verb cli_verb_run = {
    .group = "Use",
    .command = {.name = "run",
                .does = "one answer to a prompt",
                .words = "[MODEL] [PROMPT]",
                .most_words = 2,
                .about =
                    "Reads a prompt (-p, -f, both, or standard input) and prints the model's "
                    "answer as it comes. If the file has a chat template, the prompt becomes a "
                    "user's message in it; --raw completes the plain text.\n\nWith --json the "
                    "answer is one object: attn, ff, text, tokens (the ids of the answer), "
                    "prompt_tokens, prompt_seconds, generated_tokens, generate_seconds, "
                    "peak_bytes, kept_mass (null without --stats), seed, finish, cached_tokens.",
                .example = "keyhole run -m model.gguf -p \"Name three rivers.\"\n"
                           "keyhole run model.gguf -f notes.txt -p \"Summarise this.\" --attn "
                           "topk:k=128\n"
                           "echo \"Once upon a time\" | keyhole run -m model.gguf --raw -n 64",
                .groups = groups},
    .run = run,
};
