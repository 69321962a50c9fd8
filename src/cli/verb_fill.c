/* keyhole fill: what stands where a text has a mask.
 *
 * The text is tokenised with the model's own mask marker ([MASK], <mask>) read as its token; "___" is read as
 * that marker, so that nobody needs to know it. Every mask is predicted from the same pass: masks do not see
 * what the others were filled with. */
#include "cli/cli.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <math.h>
#include <string.h>

typedef struct filling {
    const kh_model *model;
    const cli_args *args;
    kh_encoder *encoder;
    int32_t *ids;
    size_t count;      /* tokens */
    size_t *positions; /* [n] of the masks */
    size_t n;
    float *logits; /* [n][V] */
} filling;

/* "___" becomes the marker. */
static kh_status with_markers(kh_buf *out, const char *text, const char *marker, size_t size)
{
    for (const char *next; (next = strstr(text, "___")); text = next + 3) {
        KH_TRY(kh_buf_add(out, text, (size_t)(next - text)));
        KH_TRY(kh_buf_add(out, marker, size));
    }
    return kh_buf_text(out, text);
}

static kh_status tokenize(filling *f, const char *text)
{
    char marker[64];
    int32_t mask = kh_model_mask(f->model);
    if (mask < 0)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: the tokenizer has no mask token", f->args->model);
    size_t size = kh_model_marker(f->model, mask, marker, sizeof marker);
    kh_buf marked = {0};
    kh_status status = with_markers(&marked, text, marker, size < sizeof marker ? size : 0);
    if (status == KH_OK)
        status = kh_model_tokenize(f->model, marked.data, marked.size,
                                   KH_TEXT_EDGES | KH_TEXT_SPECIAL, &f->ids, &f->count);
    kh_buf_free(&marked);
    if (status == KH_OK)
        status = kh_new(&f->positions, f->count + 1, sizeof *f->positions, "the masks");
    for (size_t i = 0; status == KH_OK && i < f->count; i++)
        if (f->ids[i] == mask) f->positions[f->n++] = i;
    if (status == KH_OK && f->n == 0)
        status = kh_fail(KH_ERR_ARGUMENT, "the text has no mask: write %.*s, or ___, where one is",
                         (int)size, marker);
    return status;
}

static kh_status predict(filling *f)
{
    size_t V = (size_t)kh_model_get_info(f->model)->vocabulary;
    kh_encoder_options options = cli_encoder_options(f->args);
    kh_encoder_text text = {.ids = f->ids, .count = f->count};
    KH_TRY(kh_encoder_open(&f->encoder, f->model, &options));
    KH_TRY(kh_new(&f->logits, f->n * V, sizeof *f->logits, "the logits"));
    return kh_encoder_masked(f->encoder, f->logits, &text, f->positions, f->n);
}

/* Natural log of the softmax's denominator. */
static double log_sum(const float *x, size_t n)
{
    double most = (double)-INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        if ((double)x[i] > most) most = (double)x[i];
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
    return most + log(sum);
}

/* The likeliest token that is not among the first `rank` found before; ties to the lower id. */
static size_t next_best(const float *x, size_t V, const size_t *before, size_t rank)
{
    size_t best = V;
    for (size_t i = 0; i < V; i++) {
        int taken = 0;
        for (size_t b = 0; b < rank && !taken; b++) taken = before[b] == i;
        if (!taken && (best == V || x[i] > x[best])) best = i;
    }
    return best;
}

static kh_status print_mask(const filling *f, size_t m, json_t *list, size_t *best, size_t most)
{
    size_t V = (size_t)kh_model_get_info(f->model)->vocabulary;
    const float *x = f->logits + m * V;
    double all = log_sum(x, V);
    json_t *choices = list ? json_array() : NULL;
    if (!list && f->n > 1) cli_out("%smask %zu\n", m ? "\n" : "", m + 1);
    for (size_t r = 0; r < most && r < V; r++) {
        char piece[256];
        best[r] = next_best(x, V, best, r);
        size_t size = kh_model_piece(f->model, (int32_t)best[r], piece, sizeof piece);
        if (size > sizeof piece) size = sizeof piece;
        double p = exp((double)x[best[r]] - all);
        if (!list) {
            cli_out("%7.4f  %.*s\n", p, (int)size, piece);
            continue;
        }
        KH_TRY(
            cli_json_add(choices, json_pack("{s:I, s:o, s:o}", "id", (json_int_t)best[r], "token",
                                            wire_text(piece, size), "probability", wire_real(p))));
    }
    return list ? cli_json_add(list, json_pack("{s:I, s:o}", "position",
                                               (json_int_t)f->positions[m], "choices", choices))
                : KH_OK;
}

static kh_status print(const filling *f)
{
    size_t most = (size_t)f->args->top_k, *best = NULL;
    json_t *list = f->args->json ? json_array() : NULL;
    KH_TRY(kh_new(&best, most, sizeof *best, "the best tokens"));
    kh_status status = KH_OK;
    for (size_t m = 0; m < f->n && status == KH_OK; m++)
        status = print_mask(f, m, list, best, most);
    kh_free(best);
    if (status == KH_OK && list) return cli_json_print(json_pack("{s:o}", "masks", list));
    json_decref(list);
    return status;
}

static kh_status run(cli_args *args, const char **words, size_t count)
{
    cli_take_model(args, &words, &count);
    if (count > 1)
        KH_FAIL(KH_ERR_ARGUMENT, "'%s': one argument too many; put the text in quotes", words[1]);
    filling f = {.args = args};
    kh_model *model = NULL;
    kh_buf text = {0};
    KH_TRY(cli_model_open(&model, args, 0));
    f.model = model;
    kh_status status = cli_read_text(&text, args, count ? words[0] : NULL);
    if (status == KH_OK) status = tokenize(&f, text.data);
    if (status == KH_OK) status = predict(&f);
    if (status == KH_OK) status = print(&f);
    kh_free(f.logits);
    kh_free(f.positions);
    kh_free_ids(f.ids);
    kh_encoder_close(f.encoder);
    kh_buf_free(&text);
    kh_model_close(model);
    return status;
}

static const kh_opt input[] = {
    CLI_TEXT(prompt, "-p --prompt", "TEXT", "the text, instead of the last word", NULL),
    CLI_TEXT(file, "-f --file", "FILE", "reads the text from a file, or standard input (-)", NULL),
    CLI_INT(top_k, "-k --top-k", "N", "how many tokens to show for each mask", "5", 1, 1000, NULL),
    CLI_END};
static const kh_opt output[] = {
    CLI_FLAG(json, "--json", "prints {masks: [{position, choices: [{id, token, probability}]}]}"),
    CLI_FLAG(quiet, "-q --quiet", "nothing on standard error"), CLI_END};
static const kh_opt_group groups[] = {
    {"Model", cli_options_model},     {"Input", input},   {"Attention", cli_options_encoder},
    {"Feed-forward", cli_options_ff}, {"Output", output}, CLI_NO_GROUP};

const cli_verb cli_verb_fill = {
    .group = "Use",
    .command = {.name = "fill",
                .does = "the tokens that a masked model expects",
                .words = "[MODEL] [TEXT]",
                .most_words = 2,
                .about = "Prints what a masked language model (BERT, RoBERTa) expects where the "
                         "text has its mask token, or ___.",
                .example = "keyhole fill -m bert-base-uncased \"The capital of France is ___.\"",
                .groups = groups},
    .run = run,
};
