/* The option tables that several verbs share, and what their values mean to the library.
 *
 * Spellings and defaults are those that users of llama.cpp know by heart; --attn is ours, because
 * --top-k belongs to the sampler. Options that only make sense elsewhere (a GPU, another cache
 * kernel) are accepted and named in one note, so that a command line can be carried over. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const cache_types[] = {"f16", "f32", "q8_0", NULL};  /* as kh_cache_type */
static const char *const precisions[] = {"default", "f32", "q8", NULL}; /* as kh_precision */
static const char *const shadows[] = {"off", "on", NULL};
static const char *const switches[] = {"on", "off", "auto", "0", "1", NULL};

const kh_opt cli_options_model[] = {
    CLI_TEXT(model, "-m --model", "MODEL", "the model, a GGUF file (of a split one, any part)",
             "LLAMA_ARG_MODEL"),
    CLI_TEXT(hf, "-hf -hfr --hf-repo", "NAME",
             "a model of the hub instead of a file: OWNER/MODEL[:QUANT], as keyhole pull takes it; "
             "it is fetched once and then used from the cache",
             "LLAMA_ARG_HF_REPO"),
    CLI_TEXT(hf_file, "-hff --hf-file", "NAME", "the file of that model to use, instead of :QUANT",
             "LLAMA_ARG_HF_FILE"),
    CLI_FLAG(offline, "--offline", "-hf asks no hub: the cache or nothing"),
    CLI_TEXTS(loras, "--lora --lora-scaled", "FILE",
              "adds a low-rank adapter, a PEFT folder or llama.cpp's GGUF file; FILE:SCALE "
              "multiplies its strength; may be given again, or as a list with commas"),
    CLI_END};

const kh_opt cli_options_context[] = {
    CLI_INT(context, "-c --ctx-size", "N", "context in tokens; 0 is the trained length", "0", 0,
            CLI_MOST_CONTEXT, "LLAMA_ARG_CTX_SIZE"),
    CLI_FLAG(longer, "--longer", "allows a context beyond the model's trained length"), CLI_END};

const kh_opt cli_options_output_rows[] = {
    CLI_FLAG(json, "--json", "prints {machine: {...}, results: [...]}"),
    CLI_FLAG(csv, "--csv", "prints comma-separated values behind a line about the machine"),
    CLI_TEXT(report, "--report", "FILE", "also writes FILE.html, a page of curves", NULL),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"), CLI_END};

const kh_opt cli_options_compute[] = {
    CLI_INT(threads, "-t --threads", "N", "threads; 0 is all processors", "0", 0, 1024,
            "LLAMA_ARG_THREADS"),
    CLI_INT(batch, "-b --batch-size", "N", "tokens of a prompt that are read at once", "512", 1,
            65536, "LLAMA_ARG_BATCH"),
    CLI_CHOICE(k_type, "-ctk --cache-type-k", "TYPE", "type of the cached keys", "f16", cache_types,
               "LLAMA_ARG_CACHE_TYPE_K"),
    CLI_CHOICE(v_type, "-ctv --cache-type-v", "TYPE", "type of the cached values", "f16",
               cache_types, "LLAMA_ARG_CACHE_TYPE_V"),
    CLI_CHOICE(key_shadow, "--key-shadow", "on|off",
               "an int8 copy of the keys beside them: decoding with topk finds the same keys from "
               "fewer bytes of memory",
               "off", shadows, NULL),
    CLI_CHOICE(precision, "--compute", "HOW",
               "products: default (f32 activations on the file's blocks), f32 (every weight "
               "unpacked first), q8 (8-bit activations: coarser, faster on some machines)",
               "default", precisions, NULL),
    CLI_END};

const kh_opt cli_options_attn[] = {
    CLI_TEXT(attn, "--attn", "SPEC",
             "attention: full (the default), auto, topk:k=64, with recent=W, sinks=S, min-p=T, "
             "tail=mean behind commas; per layer: 0-1=full;2-=topk:k=64; per phase: "
             "prefill=full;decode=topk:k=64",
             NULL),
    CLI_FLAG(stats, "--stats", "measures the kept share of the softmax, which costs time"),
    CLI_END};

const kh_opt cli_options_encoder[] = {
    CLI_TEXT(attn, "--attn", "SPEC",
             "attention: full (the default), topk:k=64, with min-p=T behind a comma; per layer: "
             "0-1=full;2-=topk:k=64",
             NULL),
    CLI_INT(context, "-c --ctx-size", "N", "most tokens of a text; 0 is the trained length", "0", 0,
            CLI_MOST_CONTEXT, NULL),
    CLI_FLAG(longer, "--longer", "allows texts beyond the model's trained length"),
    CLI_INT(threads, "-t --threads", "N", "threads; 0 is all processors", "0", 0, 1024,
            "LLAMA_ARG_THREADS"),
    CLI_CHOICE(precision, "--compute", "HOW", "products: default, f32, q8 (8-bit activations)",
               "default", precisions, NULL),
    CLI_END};

const kh_opt cli_options_attns[] = {
    CLI_TEXTS(attns, "--attn", "SPEC",
              "attention setting, as keyhole run takes it (default: full)"),
    CLI_END};

const kh_opt cli_options_ff[] = {
    CLI_TEXT(
        ff, "--ff", "SPEC",
        "feed-forward layers: dense (the default), topk:k=512 keeps the k best neurons of each "
        "row, ranked by rule=g (the gate), m (its product with up; the default) or n (that "
        "times the norm of the value vector); per layer: 0-1=dense;2-=topk:k=512",
        NULL),
    CLI_END};

const kh_opt cli_options_ffs[] = {
    CLI_TEXTS(ffs, "--ff", "SPEC",
              "feed-forward setting, as keyhole run takes it; each is combined with each --attn "
              "(default: dense)"),
    CLI_END};

const kh_opt cli_options_prompt[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the prompt", NULL),
    CLI_TEXT(file, "-f --file", "FILE",
             "reads the prompt from a file, or from standard input (-); -p follows behind an empty "
             "line",
             NULL),
    CLI_TEXT(prompt_cache, "--prompt-cache", "FILE",
             "keeps the prompt as read in a file, and begins from it the next time", NULL),
    CLI_END};

const kh_opt cli_options_template[] = {
    CLI_TEXT(system, "-sys --system-prompt", "TEXT", "the system message", NULL),
    CLI_TEXT(chat_template, "--chat-template", "NAME",
             "a known chat format, instead of the file's own template: chatml, gemma, llama2, "
             "llama3, mistral, qwen ...",
             "LLAMA_ARG_CHAT_TEMPLATE"),
    CLI_TEXT(chat_template_file, "--chat-template-file", "FILE",
             "a Jinja template, instead of the file's own", "LLAMA_ARG_CHAT_TEMPLATE_FILE"),
    CLI_TEXT(chat_template_kwargs, "--chat-template-kwargs", "JSON",
             "variables of the template, as an object: {\"enable_thinking\": false}",
             "LLAMA_CHAT_TEMPLATE_KWARGS"),
    CLI_END};

const kh_opt cli_options_answer[] = {
    CLI_INT(predict, "-n --predict --n-predict", "N",
            "most tokens to generate; -1 is until the answer ends or the context is full", "-1", -2,
            CLI_MOST_CONTEXT, "LLAMA_ARG_N_PREDICT"),
    CLI_TEXTS(stop, "-r --reverse-prompt --stop", "TEXT",
              "a text that ends the answer and is not part of it"),
    CLI_INT(beams, "--beams", "N",
            "searches for the most probable answer with N beams, instead of sampling; 0 is off",
            "0", 0, 64, NULL),
    CLI_REAL(length_penalty, "--length-penalty", "X",
             "answers of a beam search are compared by log-probability / length ^ X", "1", -10, 10),
    CLI_FLAG(ignore_eos, "--ignore-eos", "goes on after the model has ended its answer"),
    CLI_FLAG(ctx_shift, "--ctx-shift --context-shift",
             "forgets the oldest half when the context is full, and goes on"),
    CLI_INT(keep, "--keep", "N", "tokens at the start that a shift keeps", "0", 0, CLI_MOST_CONTEXT,
            NULL),
    CLI_END};

const kh_opt cli_options_sampling[] = {
    CLI_INT(seed, "-s --seed", "N", "seed of the sampler; -1 draws one, and the summary names it",
            "-1", -1, 4294967295.0, NULL),
    CLI_REAL(temp, "--temp --temperature", "T", "temperature; 0 takes the likeliest token", "0.8",
             0, HUGE_VAL),
    CLI_INT(top_k, "--top-k", "N", "samples among the N likeliest tokens; 0 is all of them", "40",
            0, 1 << 30, NULL),
    CLI_REAL(top_p, "--top-p", "P", "samples among the likeliest tokens that hold the share P",
             "0.95", 0, 1),
    CLI_REAL(min_p, "--min-p", "P", "drops tokens below P times the likeliest one", "0.05", 0, 1),
    CLI_REAL(repeat_penalty, "--repeat-penalty", "X", "divides the odds of recent tokens; 1 is off",
             "1", 0, HUGE_VAL),
    CLI_INT(repeat_last, "--repeat-last-n", "N", "how many tokens count as recent", "64", 0,
            CLI_MOST_CONTEXT, NULL),
    CLI_TEXTS(bias, "-l --logit-bias", "ID(+/-)X", "adds to the logit of a token: 15043+1, 42-inf"),
    CLI_END};

const kh_opt cli_options_output[] = {
    CLI_FLAG(json, "--json", "prints one JSON object"),
    CLI_FLAG(quiet, "-q --quiet", "no notes, progress or summary on standard error"), CLI_END};

const kh_opt cli_options_output_answer[] = {
    CLI_FLAG(json, "--json", "prints one JSON object at the end"),
    CLI_FLAG(quiet, "-q --quiet", "no notes, progress or summary on standard error"),
    CLI_FLAG(verbose, "-v --verbose", "says more about the model, the setting and the memory"),
    CLI_END};

static const char *const edges[] = {"default", "add", "omit", NULL};

const kh_opt cli_options_documents[] = {
    CLI_TEXT(separator, "--separator", "LINE",
             "the line between two documents of a text file; without it a file is one", NULL),
    CLI_CHOICE(bos_edge, "--bos", "HOW",
               "a bos in front of every document; by default where the tokenizer puts one",
               "default", edges, NULL),
    CLI_CHOICE(eos_edge, "--eos", "HOW",
               "an eos behind every document; by default where the tokenizer puts one, and behind "
               "completions",
               "default", edges, NULL),
    CLI_FLAG(markers, "--markers", "markers such as <|im_end|> inside texts are tokens, not text"),
    CLI_TEXT(chat_template, "--chat-template", "NAME",
             "conversations in this format, instead of the model's own template", NULL),
    CLI_FLAG(last_answer, "--last-answer", "of a conversation only the last answer is learned"),
    CLI_END};

const kh_opt cli_options_steering[] = {
    CLI_TEXTS(
        vectors, "--control-vector --control-vector-scaled", "FILE",
        "adds a control vector (keyhole steer makes them, and llama.cpp) to the stream behind "
        "its layers; FILE:SCALE multiplies it; may be given again, or as a list with commas"),
    {KH_OPT_INTS, "--control-vector-layer-range", "A B",
     "only behind layers A to B, both included; layer 0 is never steered", CLI_AT(vector_layers),
     NULL, 0, 511, NULL, NULL},
    CLI_END};

const kh_opt cli_options_known[] = {
    CLI_IGNORED("-ngl --gpu-layers --n-gpu-layers", "N", NULL),
    CLI_IGNORED("-fa --flash-attn", "on|off", switches),
    CLI_IGNORED("-ub --ubatch-size", "N", NULL),
    CLI_IGNORED("--mlock", NULL, NULL),
    CLI_IGNORED("--no-mmap", NULL, NULL),
    CLI_IGNORED("-cnv --conversation", NULL, NULL),
    {KH_OPT_IGNORED, "-no-cnv --no-conversation", NULL,
     "accepted, without effect here; keyhole run --raw completes plain text", 0, NULL, 0, 0, NULL,
     NULL},
    CLI_END};

void cli_take_model(cli_args *args, const char ***words, size_t *count)
{
    if (args->hf) args->model = args->hf;
    if (args->model || *count == 0) return;
    args->model = (*words)[0];
    ++*words;
    --*count;
}

kh_session_options cli_session_options(const cli_args *args)
{
    return (kh_session_options){.context = (size_t)args->context,
                                .longer = args->longer,
                                .threads = (int)args->threads,
                                .batch = (size_t)args->batch,
                                .ff = args->ff,
                                .k_type = (kh_cache_type)args->k_type,
                                .v_type = (kh_cache_type)args->v_type,
                                .precision = (kh_precision)args->precision,
                                .key_shadow = args->key_shadow,
                                .forks = (size_t)args->beams * 2,
                                .stats = args->stats};
}

kh_document_options cli_documents(const cli_args *args)
{
    return (kh_document_options){.separator = args->separator,
                                 .chat_format = args->chat_template,
                                 .bos = (kh_edge)args->bos_edge,
                                 .eos = (kh_edge)args->eos_edge,
                                 .markers = args->markers,
                                 .last_answer = args->last_answer};
}

kh_encoder_options cli_encoder_options(const cli_args *args)
{
    return (kh_encoder_options){.longest = (size_t)args->context,
                                .longer = args->longer,
                                .threads = (int)args->threads,
                                .attn = args->attn,
                                .ff = args->ff,
                                .precision = (kh_precision)args->precision};
}

kh_opt_texts cli_attns(const cli_args *args, const char *const *fallback, size_t count)
{
    /* The list is only read; the cast restores what kh_opt_texts cannot say. */
    return args->attns.count ? args->attns : (kh_opt_texts){(const char **)fallback, count};
}

/* "15043+1", "15043-1", "15043=1", "15043-inf" */
static kh_status parse_bias(kh_logit_bias *out, const char *text, int vocabulary)
{
    char *end;
    errno = 0;
    long id = strtol(text, &end, 10);
    int sign = *end == '-' ? -1 : *end == '+' || *end == '=' ? 1 : 0;
    if (end == text || errno || sign == 0 || !end[1])
        KH_FAIL(KH_ERR_ARGUMENT, "--logit-bias: '%s' is not TOKEN+X or TOKEN-X, such as 15043-1.5",
                text);
    char *behind;
    float bias = strtof(end + 1, &behind);
    if (*behind || isnan(bias))
        KH_FAIL(KH_ERR_ARGUMENT, "--logit-bias: '%s': '%s' is not a number", text, end + 1);
    if (id < 0 || id >= vocabulary)
        KH_FAIL(KH_ERR_ARGUMENT, "--logit-bias: %ld is not a token of this model (0 to %d)", id,
                vocabulary - 1);
    *out = (kh_logit_bias){(int32_t)id, (float)sign * bias};
    return KH_OK;
}

kh_status cli_sampler(const cli_args *args, const kh_model *model, kh_sampler_options *out,
                      kh_logit_bias **bias)
{
    *bias = NULL;
    *out = (kh_sampler_options){.temperature = (float)args->temp,
                                .top_k = (int)args->top_k,
                                .top_p = (float)args->top_p,
                                .min_p = (float)args->min_p,
                                .repeat_penalty = (float)args->repeat_penalty,
                                .repeat_last = (int)args->repeat_last};
    /* 32 bits, so that a seed that was printed can be given back with -s. */
    out->seed = args->seed < 0 ? kh_random_seed() & 0xffffffffu : (uint64_t)args->seed;
    /* To the library 0 means "the default"; a penalty over no tokens is no penalty. */
    if (args->repeat_last == 0) out->repeat_penalty = 1;
    if (args->bias.count == 0) return KH_OK;
    KH_TRY(kh_new(bias, args->bias.count, sizeof **bias, "the logit biases"));
    int vocabulary = kh_model_get_info(model)->vocabulary;
    for (size_t i = 0; i < args->bias.count; i++) {
        kh_status status = parse_bias(*bias + i, args->bias.items[i], vocabulary);
        if (status != KH_OK) {
            kh_free(*bias);
            *bias = NULL;
            return status;
        }
    }
    out->bias = *bias;
    out->bias_count = args->bias.count;
    return KH_OK;
}
