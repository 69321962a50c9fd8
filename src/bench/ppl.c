/* Perplexity of a text under one or several settings of attention and feed-forward layers.
 *
 * Windows (n ids, context c, stride s):
 *
 *     default      [0, c) [c, 2c) ...           every token but the first of a window is scored
 *     stride       [0, c) [s, s + c) ...        only the last s tokens of later windows are scored
 *     like llama   [0, c) [c, 2c) ...           the second half of each window is scored, the first
 *                                               token is replaced by bos where the file asks for one
 *                                               (the protocol of llama-perplexity)
 *
 * Without a context the whole text is one window, at most the trained length. A last window that is
 * shorter than the others is scored too, except under llama's protocol. Each setting runs in a process
 * of its own when asked (memory of that method alone); the first setting is what the others are compared
 * with, row by row. */
#include "base/alloc.h"
#include "base/fail.h"
#include "bench/isolate.h"
#include "bench/pseudo.h"
#include "bench/score.h"
#include "gen/engine.h"

#include <keyhole/eval.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct ppl_run {
    const kh_model *model;
    const kh_ppl_options *options;
    const int32_t *ids;
    size_t count, context, windows;
    const kh_reference *reference;
    size_t setting;
    int32_t *window;  /* [context]: with bos in front */
    float *token_nll; /* NULL or [count], shared with a child */
} ppl_run;

typedef struct window {
    size_t start, n, from;
} window;

static window window_at(const ppl_run *r, size_t index)
{
    const kh_ppl_options *o = r->options;
    size_t step = o->stride && !o->like_llama ? o->stride : r->context;
    window w = {.start = index * step};
    w.n = r->count - w.start < r->context ? r->count - w.start : r->context;
    if (o->like_llama)
        w.from = r->context / 2;
    else if (index > 0 && step < r->context)
        w.from = r->context - step - 1;
    return w;
}

static size_t count_windows(const ppl_run *r)
{
    const kh_ppl_options *o = r->options;
    size_t n = 0, c = r->context;
    size_t step = o->stride && !o->like_llama ? o->stride : c;
    if (o->like_llama)
        n = r->count / c;
    else if (r->count <= c)
        n = 1;
    else
        n = 1 + (r->count - c + step - 1) / step;
    /* a last window with nothing to score */
    while (n > 1 && !o->like_llama && window_at(r, n - 1).n < window_at(r, n - 1).from + 2) n--;
    return o->max_windows && n > o->max_windows ? o->max_windows : n;
}

static size_t settings_of(const kh_ppl_options *o)
{
    return o->attn_count * (o->ff_count ? o->ff_count : 1);
}

/* The settings of the index-th row of results. */
static void choose(const kh_ppl_options *o, size_t index, kh_session_options *so)
{
    so->attn = o->attns[o->ff_count ? index / o->ff_count : index];
    if (o->ff_count) so->ff = o->ffs[index % o->ff_count];
}

static kh_status run_windows(ppl_run *r, kh_session *session, kh_score *score)
{
    const kh_ppl_options *o = r->options;
    int32_t bos = kh_model_bos(r->model);
    for (size_t i = 0; i < r->windows; i++) {
        window w = window_at(r, i);
        memcpy(r->window, r->ids + w.start, w.n * sizeof *r->window);
        if (o->like_llama && kh_model_get_info(r->model)->add_bos && bos >= 0) r->window[0] = bos;
        KH_TRY(kh_score_window(score, session, r->window, w.n, w.from,
                               r->token_nll ? r->token_nll + w.start : NULL));
        kh_session_options so = {0};
        choose(o, r->setting, &so);
        if (o->progress)
            o->progress(o->progress_context, o->ff_count > 1 ? so.ff : so.attn, i + 1, r->windows);
    }
    return KH_OK;
}

static kh_status measure(void *context, void *result)
{
    ppl_run *r = context;
    kh_ppl_result *out = result;
    kh_session_options so = r->options->session;
    choose(r->options, r->setting, &so);
    so.context = r->context;
    so.longer = 1;
    kh_session *session = NULL;
    kh_score score = {0};
    size_t V = (size_t)kh_model_get_info(r->model)->vocabulary;
    kh_status status = kh_session_open(&session, r->model, &so);
    if (status == KH_OK) status = kh_score_open(&score, V, r->reference, r->setting == 0);
    double start = kh_cpu_seconds();
    if (status == KH_OK) status = run_windows(r, session, &score);
    if (status == KH_OK) {
        kh_session_report report;
        kh_session_get_report(session, &report);
        double mean = score.nll / (double)score.tokens;
        *out = (kh_ppl_result){
            .ctx = r->context,
            .tokens = score.tokens,
            .nll = mean,
            .ppl = exp(mean),
            .ppl_second = exp(score.nll_second / (double)score.tokens_second),
            .kl = score.compared ? score.kl / (double)score.compared : (double)NAN,
            .same_top1 = score.compared ? (double)score.same / (double)score.compared : (double)NAN,
            .seconds = kh_cpu_seconds() - start - score.seconds,
            .keys_kept = report.keys_kept / report.rows,
            .peak_bytes = kh_cpu_peak_rss()};
        snprintf(out->attn, sizeof out->attn, "%s", kh_session_attn(session));
        snprintf(out->ff, sizeof out->ff, "%s", kh_session_ff(session));
    }
    kh_score_close(&score);
    kh_session_close(session);
    return status;
}

static kh_status prepare(ppl_run *r)
{
    const kh_ppl_options *o = r->options;
    size_t trained = (size_t)kh_model_get_info(r->model)->context;
    r->context = o->context ? o->context : r->count < trained ? r->count : trained;
    if (r->context > r->count) r->context = r->count;
    if (o->attn_count == 0) KH_FAIL(KH_ERR_ARGUMENT, "no attention setting to measure");
    if (o->stride > r->context)
        KH_FAIL(KH_ERR_ARGUMENT, "a stride of %zu exceeds the window of %zu tokens", o->stride,
                r->context);
    if (r->count < 2 || r->context < 2)
        KH_FAIL(KH_ERR_ARGUMENT, "perplexity needs at least 2 tokens, the text has %zu", r->count);
    if (o->context > trained && !o->session.longer)
        KH_FAIL(KH_ERR_CONTEXT, "a window of %zu tokens exceeds the trained length of %zu",
                o->context, trained);
    r->windows = count_windows(r);
    return kh_new(&r->window, r->context, sizeof *r->window, "a window");
}

kh_status kh_ppl(const kh_model *model, const int32_t *ids, size_t count,
                 const kh_ppl_options *options, kh_ppl_result *results)
{
    ppl_run r = {.model = model, .options = options, .ids = ids, .count = count};
    kh_reference reference = {.fd = -1};
    if (options->attn_count > 0 && kh_model_get_kind(model) == KH_MODEL_ENCODER)
        return kh_ppl_pseudo(model, ids, count, options, results);
    KH_TRY(prepare(&r));
    kh_status status = KH_OK;
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    size_t settings = settings_of(options);
    if (settings > 1) {
        status = kh_reference_open(&reference, r.windows * r.context, V);
        r.reference = &reference;
    }
    for (size_t i = 0; status == KH_OK && i < settings; i++) {
        r.setting = i;
        r.token_nll = options->token_nll ? options->token_nll + i * count : NULL;
        for (size_t t = 0; r.token_nll && t < count; t++) r.token_nll[t] = NAN;
        /* values per token live in the caller's memory, which a child would not reach */
        status = kh_isolate(options->isolate && !r.token_nll, measure, &r, &results[i],
                            sizeof results[i]);
        if (status == KH_OK && settings == 1) {
            results[i].kl = 0;
            results[i].same_top1 = 1;
        }
    }
    kh_reference_close(&reference);
    kh_free(r.window);
    return status;
}
