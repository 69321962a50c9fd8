/* Pseudo-perplexity: what perplexity is to a model that predicts masked tokens.
 *
 *     every token of a window is masked once, alone; its negative log likelihood there is its score
 *     (Salazar et al., "Masked Language Model Scoring", 2020)
 *
 * A window is [cls] tokens [sep], the next begins where it ends. Its variants, one a token, share passes of
 * the encoder like any texts; of each only the masked row reaches the head. Settings after the first are
 * compared with it row by row, from both rows at once, so nothing is stored. */
#include "bench/pseudo.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "bench/score.h"
#include "cpu/cpu.h"
#include "gen/encoder.h"
#include "gen/sampler.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { VARIANTS = 32 /* logits of as many rows exist at once */ };

typedef struct pseudo {
    const kh_model *model;
    const kh_ppl_options *options;
    const kh_kern *kern;
    const int32_t *ids; /* [count] content */
    size_t count, window, V;
    int32_t cls, sep, mask;
    int32_t *variants; /* [VARIANTS][window + edges] */
    kh_encoder_text texts[VARIANTS];
    size_t positions[VARIANTS];
    float *logits, *others; /* [VARIANTS][V]; of the first setting */
    float *scratch;         /* [V] */
    size_t done;
    /* sums of a setting */
    double nll, kl, seconds;
    size_t tokens, same;
    float *token_nll; /* NULL or [count], in the order of the content */
} pseudo;

static kh_status prepare(pseudo *p, const int32_t *ids, size_t count)
{
    const kh_special_ids *special = kh_tokenizer_special(p->model->tokenizer);
    p->cls = special->cls >= 0 ? special->cls : special->bos;
    p->sep = special->sep >= 0 ? special->sep : special->eos;
    p->mask = special->mask;
    if (p->mask < 0 || p->cls < 0 || p->sep < 0)
        KH_FAIL(KH_ERR_UNSUPPORTED, "the tokenizer has no mask token, or none for a text's edges");
    if (count > 0 && ids[0] == p->cls) ids++, count--;
    if (count > 0 && ids[count - 1] == p->sep) count--;
    size_t trained = (size_t)p->model->d.context;
    size_t most = p->options->context && p->options->context < trained ? p->options->context
                                                                       : trained;
    if (most < 3) KH_FAIL(KH_ERR_ARGUMENT, "a window of %zu tokens is too small", most);
    p->ids = ids;
    p->count = count;
    p->window = most - 2;
    p->V = (size_t)p->model->d.V;
    if (p->count == 0) KH_FAIL(KH_ERR_ARGUMENT, "the text has no tokens");
    if (p->options->max_windows && p->count > p->options->max_windows * p->window)
        p->count = p->options->max_windows * p->window;
    KH_TRY(kh_new(&p->variants, VARIANTS * (p->window + 2), sizeof *p->variants, "a window"));
    KH_TRY(kh_new(&p->logits, VARIANTS * p->V, sizeof *p->logits, "logits"));
    KH_TRY(kh_new(&p->scratch, p->V, sizeof *p->scratch, "scores"));
    return kh_new(&p->others, VARIANTS * p->V, sizeof *p->others, "logits");
}

/* Variants of window [start, start + n) with tokens [first, first + some) of it masked, one each. */
static void fill(pseudo *p, size_t start, size_t n, size_t first, size_t some)
{
    for (size_t i = 0; i < some; i++) {
        int32_t *to = p->variants + i * (p->window + 2);
        to[0] = p->cls;
        memcpy(to + 1, p->ids + start, n * sizeof *to);
        to[n + 1] = p->sep;
        p->positions[i] = first + i + 1;
        to[p->positions[i]] = p->mask;
        p->texts[i] = (kh_encoder_text){.ids = to, .count = n + 2};
    }
}

static void score(pseudo *p, size_t token, const float *x, const float *reference)
{
    double all = kh_log_sum_exp(p->kern, p->scratch, x, p->V), nll = all - (double)x[p->ids[token]];
    p->nll += nll;
    p->tokens++;
    if (p->token_nll) p->token_nll[token] = (float)nll;
    if (!reference) return;
    double other = kh_log_sum_exp(p->kern, p->scratch, reference, p->V);
    for (size_t i = 0; i < p->V; i++) {
        double q = (double)reference[i] - other;
        p->kl += exp(q) * (q - ((double)x[i] - all));
    }
    p->same += kh_score_largest(x, p->V) == kh_score_largest(reference, p->V);
}

static kh_status run_window(pseudo *p, kh_encoder *encoder, kh_encoder *reference, size_t start,
                            size_t n)
{
    for (size_t first = 0; first < n; first += VARIANTS) {
        size_t some = n - first < VARIANTS ? n - first : VARIANTS;
        fill(p, start, n, first, some);
        double begun = kh_cpu_seconds();
        KH_TRY(kh_encoder_masked_each(encoder, p->logits, p->texts, p->positions, some));
        p->seconds += kh_cpu_seconds() - begun;
        if (reference)
            KH_TRY(kh_encoder_masked_each(reference, p->others, p->texts, p->positions, some));
        for (size_t i = 0; i < some; i++)
            score(p, start + first + i, p->logits + i * p->V,
                  reference ? p->others + i * p->V : NULL);
        p->done += some;
        const kh_ppl_options *o = p->options;
        if (o->progress) o->progress(o->progress_context, "masked tokens", p->done, p->count);
    }
    return KH_OK;
}

static void sum_up(const pseudo *p, int compared, const char *attn, const char *ff,
                   kh_ppl_result *out)
{
    double mean = p->nll / (double)p->tokens;
    *out = (kh_ppl_result){.ctx = p->window + 2,
                           .tokens = p->tokens,
                           .nll = mean,
                           .ppl = exp(mean),
                           .ppl_second = (double)NAN,
                           .kl = compared ? p->kl / (double)p->tokens : 0,
                           .same_top1 = compared ? (double)p->same / (double)p->tokens : 1,
                           .seconds = p->seconds,
                           .keys_kept = (double)NAN,
                           .peak_bytes = kh_cpu_peak_rss()};
    snprintf(out->attn, sizeof out->attn, "%s", attn);
    snprintf(out->ff, sizeof out->ff, "%s", ff);
}

static kh_status open(kh_encoder **out, const pseudo *p, size_t setting, const char **attn,
                      const char **ff)
{
    const kh_ppl_options *o = p->options;
    *attn = o->attns[o->ff_count ? setting / o->ff_count : setting];
    *ff = o->ff_count ? o->ffs[setting % o->ff_count] : o->session.ff;
    kh_encoder_options options = {.longest = p->window + 2,
                                  .threads = o->session.threads,
                                  .attn = *attn,
                                  .ff = *ff,
                                  .precision = o->session.precision};
    return kh_encoder_open(out, p->model, &options);
}

static kh_status measure(pseudo *p, size_t setting, kh_encoder *reference, kh_ppl_result *out)
{
    const char *attn, *ff;
    kh_encoder *encoder = NULL;
    kh_status status = open(&encoder, p, setting, &attn, &ff);
    p->nll = p->kl = p->seconds = 0;
    p->tokens = p->same = p->done = 0;
    for (size_t start = 0; start < p->count && status == KH_OK; start += p->window) {
        size_t n = p->count - start < p->window ? p->count - start : p->window;
        status = run_window(p, encoder, reference, start, n);
    }
    kh_encoder_close(encoder);
    if (status == KH_OK) sum_up(p, reference != NULL, attn, ff ? ff : "dense", out);
    return status;
}

kh_status kh_ppl_pseudo(const kh_model *model, const int32_t *ids, size_t count,
                        const kh_ppl_options *options, kh_ppl_result *results)
{
    size_t settings = options->attn_count * (options->ff_count ? options->ff_count : 1);
    const char *attn, *ff;
    pseudo p = {.model = model, .options = options, .kern = kh_kern_get(kh_cpu_isa())};
    kh_encoder *reference = NULL;
    for (size_t i = 0; options->token_nll && i < settings * count; i++) options->token_nll[i] = NAN;
    kh_status status = prepare(&p, ids, count);
    if (status == KH_OK && settings > 1) status = open(&reference, &p, 0, &attn, &ff);
    for (size_t i = 0; i < settings && status == KH_OK; i++) {
        /* the content begins behind the first token's edge */
        if (options->token_nll) p.token_nll = options->token_nll + i * count + (p.ids - ids);
        status = measure(&p, i, i > 0 ? reference : NULL, &results[i]);
    }
    kh_encoder_close(reference);
    kh_free(p.scratch);
    kh_free(p.others);
    kh_free(p.logits);
    kh_free(p.variants);
    return status;
}
