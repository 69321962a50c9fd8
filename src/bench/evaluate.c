/* Question answering and multiple choice over a list of examples, under several settings: the zero-shot tables of
 * "Memory-efficient Transformers via Top-k Attention" (section 3.2) for whoever has the data.
 *
 *     answer   decoder           greedy behind "CONTEXT\n\nQuestion: Q\nAnswer:", up to a line's end
 *              encoder-decoder   greedy, source "q \n context" in small letters, UnifiedQA's form
 *              encoder           its head for answers points at a stretch of the context
 *     choice   the sum of log P(" CHOICE" | prompt), and the same divided by the choice's bytes
 *
 * A decoder keeps what consecutive prompts have in common: examples about one context cost their questions. The
 * tokens of a choice are those that prompt and choice have together behind what the prompt alone has, so that
 * a tokenizer that joins the last word of one and the first of the other is scored as it would write.
 *
 * Errors are standard errors of means over examples. Means over thousands of examples under two settings are to be
 * compared example by example: `predicted` gives them. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "gen/encoder.h"
#include "gen/sampler.h"

#include <ctype.h>
#include <keyhole/eval.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct mean {
    double sum, squares;
    size_t n;
} mean;

typedef struct evaluation {
    const kh_model *model;
    const kh_evaluate_options *options;
    kh_model_kind kind;
    const kh_kern *kern;
    size_t V;
    float *scratch;      /* [V] */
    kh_session *session; /* decoders, with an encoder or without */
    kh_encoder *encoder; /* encoders */
    mean exact, f1, right, right_norm;
} evaluation;

static void add(mean *m, double x)
{
    m->sum += x;
    m->squares += x * x;
    m->n++;
}

static double value(const mean *m)
{
    return m->n ? m->sum / (double)m->n : (double)NAN;
}

static double error(const mean *m)
{
    double n = (double)m->n, v = value(m);
    return m->n > 1 ? sqrt(fmax(m->squares / n - v * v, 0) / (n - 1)) : (double)NAN;
}

/* ---- reading */

static kh_status tokenize(const evaluation *e, const kh_buf *text, unsigned flags, int32_t **ids,
                          size_t *count)
{
    return kh_model_tokenize(e->model, text->data ? text->data : "", text->size, flags, ids, count);
}

/* What a question or a choice stands behind. */
static kh_status prompt_of(const evaluation *e, const kh_example *x, kh_buf *out)
{
    int answers = x->answer_count > 0;
    const char *context = x->context ? x->context : "";
    if (e->kind == KH_MODEL_ENCODER_DECODER) {
        KH_TRY(kh_buf_format(out, "%s%s%s", x->question, *context ? " \\n " : "", context));
        for (size_t i = 0; i < out->size; i++)
            out->data[i] = (char)tolower((unsigned char)out->data[i]);
        return KH_OK;
    }
    if (!answers) return kh_buf_format(out, "%s%s%s", context, *context ? "\n" : "", x->question);
    return kh_buf_format(out, "%s%sQuestion: %s\nAnswer:", context, *context ? "\n\n" : "",
                         x->question);
}

/* Rewinds the session to what it has of ids [count]; *kept receives how many. */
static kh_status keep_common(evaluation *e, const int32_t *ids, size_t count, size_t *kept)
{
    size_t n = 0, length = kh_session_length(e->session);
    const int32_t *known = kh_session_tokens(e->session);
    while (n < length && n < count && known[n] == ids[n]) n++;
    *kept = n;
    return kh_session_rewind(e->session, n);
}

/* The prompt becomes the source, or is read; a decoder behind an encoder has then read its start. */
static kh_status open_prompt(evaluation *e, const int32_t *ids, size_t count)
{
    size_t kept = 0;
    if (e->kind !=
        KH_MODEL_ENCODER_DECODER) { /* the last one is read again, so that logits follow */
        KH_TRY(keep_common(e, ids, count > 0 ? count - 1 : 0, &kept));
        return kh_session_read(e->session, ids + kept, count - kept, NULL);
    }
    int32_t start = kh_model_start(e->model);
    KH_TRY(kh_session_source(e->session, ids, count));
    return kh_session_read(e->session, &start, 1, NULL);
}

/* ---- answers */

static kh_status keep_text(void *context, const char *text, size_t size, const kh_choice *chosen,
                           const kh_choice *alternatives, size_t count)
{
    (void)chosen;
    (void)alternatives;
    (void)count;
    return kh_buf_add(context, text, size);
}

static kh_status write_answer(evaluation *e, const kh_example *x, kh_buf *out)
{
    static const char *const stop[] = {"\n"};
    kh_buf prompt = {0};
    int32_t *ids = NULL;
    size_t count = 0;
    kh_generate_options options = {.max_tokens = e->options->max_tokens ? e->options->max_tokens
                                                                        : 32,
                                   .stop = stop,
                                   .stop_count = 1,
                                   .token = keep_text,
                                   .context = out};
    kh_generate_result done;
    kh_status status = prompt_of(e, x, &prompt);
    if (status == KH_OK) status = tokenize(e, &prompt, KH_TEXT_EDGES, &ids, &count);
    if (status == KH_OK) status = open_prompt(e, ids, count);
    if (status == KH_OK) status = kh_generate(e->session, &options, &done);
    kh_free_ids(ids);
    kh_buf_free(&prompt);
    return status;
}

static kh_status point_at(evaluation *e, const kh_example *x, kh_buf *out)
{
    kh_span_answer best;
    size_t count = 0;
    if (!x->context)
        KH_FAIL(KH_ERR_ARGUMENT, "an encoder points at an answer: a context is expected");
    KH_TRY(kh_encoder_answers(e->encoder, &best, 1, &count, NULL, x->question, x->context,
                              strlen(x->context)));
    return count ? kh_buf_add(out, x->context + best.start, best.size) : KH_OK;
}

static kh_status answer(evaluation *e, const kh_example *x, kh_prediction *found, kh_buf *text)
{
    KH_TRY(e->encoder ? point_at(e, x, text) : write_answer(e, x, text));
    KH_TRY(kh_buf_reserve(text, 1));
    const char *said = text->data + strspn(text->data, " \t");
    kh_score_answer(said, x->answers, x->answer_count, &found->exact, &found->f1);
    found->text = said;
    add(&e->exact, found->exact);
    add(&e->f1, found->f1);
    return KH_OK;
}

/* ---- choices */

typedef struct likelihood {
    const evaluation *e;
    const int32_t *ids; /* those that were passed to the read */
    size_t count, from;
    double sum;
} likelihood;

/* Row r predicts the token behind it. */
static kh_status add_rows(void *context, size_t first, size_t rows, const float *logits)
{
    likelihood *l = context;
    for (size_t r = first; r < first + rows; r++, logits += l->e->V)
        if (r + 1 < l->count && r + 1 >= l->from)
            l->sum += (double)logits[l->ids[r + 1]] -
                      kh_log_sum_exp(l->e->kern, l->e->scratch, logits, l->e->V);
    return KH_OK;
}

/* ids [count], of which those from `from` on are scored; from >= 1. What lies before is kept where it was read. */
static kh_status score_ids(evaluation *e, const int32_t *ids, size_t count, size_t from,
                           double *out)
{
    size_t kept = 0;
    KH_TRY(keep_common(e, ids, from - 1, &kept));
    likelihood l = {.e = e, .ids = ids + kept, .count = count - kept, .from = from - kept};
    kh_read_options options = {.logits = add_rows, .logits_context = &l};
    KH_TRY(kh_session_read(e->session, l.ids, l.count, &options));
    *out = l.sum;
    return KH_OK;
}

/* A decoder's choice: prompt and choice are tokenised together. */
static kh_status score_behind(evaluation *e, const kh_buf *prompt, const int32_t *ids, size_t count,
                              const char *choice, double *out)
{
    kh_buf both = {0};
    int32_t *all = NULL;
    size_t n = 0, from = 0;
    kh_status status = kh_buf_add(&both, prompt->data, prompt->size);
    if (status == KH_OK) status = kh_buf_format(&both, " %s", choice);
    if (status == KH_OK) status = tokenize(e, &both, KH_TEXT_EDGES, &all, &n);
    while (status == KH_OK && from < n && from < count && all[from] == ids[from]) from++;
    if (status == KH_OK && from == 0) from = 1; /* the first token follows nothing */
    if (status == KH_OK && from >= n)
        status = kh_fail(KH_ERR_ARGUMENT, "the choice '%s' has no tokens", choice);
    if (status == KH_OK) status = score_ids(e, all, n, from, out);
    kh_free_ids(all);
    kh_buf_free(&both);
    return status;
}

/* A choice of a decoder behind an encoder: all that it says, its end included. */
static kh_status score_said(evaluation *e, const char *choice, double *out)
{
    kh_buf text = {0};
    int32_t *ids = NULL, *all = NULL;
    size_t n = 0;
    kh_status status = kh_buf_text(&text, choice);
    if (status == KH_OK) status = tokenize(e, &text, KH_TEXT_EDGES, &ids, &n);
    if (status == KH_OK) status = kh_new(&all, n + 1, sizeof *all, "a choice");
    if (status == KH_OK) {
        all[0] = kh_model_start(e->model);
        memcpy(all + 1, ids, n * sizeof *ids);
        status = score_ids(e, all, n + 1, 1, out);
    }
    kh_free(all);
    kh_free_ids(ids);
    kh_buf_free(&text);
    return status;
}

static kh_status compare(evaluation *e, const kh_example *x, const kh_buf *prompt,
                         const int32_t *ids, size_t count, kh_prediction *found)
{
    size_t best = 0, best_norm = 0;
    double most = 0, most_norm = 0;
    for (size_t c = 0; c < x->choice_count; c++) {
        double sum = 0, bytes = (double)strlen(x->choices[c]);
        KH_TRY(e->kind == KH_MODEL_ENCODER_DECODER
                   ? score_said(e, x->choices[c], &sum)
                   : score_behind(e, prompt, ids, count, x->choices[c], &sum));
        if (c == 0 || sum > most) {
            most = sum;
            best = c;
        }
        if (c == 0 || sum / bytes > most_norm) {
            most_norm = sum / bytes;
            best_norm = c;
        }
    }
    found->right = best == x->correct;
    found->right_norm = best_norm == x->correct;
    found->text = x->choices[best];
    return KH_OK;
}

static kh_status choose(evaluation *e, const kh_example *x, kh_prediction *found)
{
    kh_buf prompt = {0};
    int32_t *ids = NULL;
    size_t count = 0;
    if (e->encoder) KH_FAIL(KH_ERR_UNSUPPORTED, "an encoder has no likelihood of a choice");
    if (x->choice_count < 2 || x->correct >= x->choice_count)
        KH_FAIL(KH_ERR_ARGUMENT, "a choice among %zu, the right one being number %zu",
                x->choice_count, x->correct);
    kh_status status = prompt_of(e, x, &prompt);
    if (status == KH_OK) status = tokenize(e, &prompt, KH_TEXT_EDGES, &ids, &count);
    if (status == KH_OK && e->kind == KH_MODEL_ENCODER_DECODER)
        status = kh_session_source(e->session, ids, count);
    if (status == KH_OK) status = compare(e, x, &prompt, ids, count, found);
    kh_free_ids(ids);
    kh_buf_free(&prompt);
    if (status != KH_OK) return status;
    add(&e->right, found->right);
    add(&e->right_norm, found->right_norm);
    return KH_OK;
}

/* ---- all examples under one setting */

static kh_status open_setting(evaluation *e, const char *attn, const char *ff)
{
    kh_session_options so = e->options->session;
    so.attn = attn;
    if (ff) so.ff = ff;
    if (e->kind != KH_MODEL_ENCODER) return kh_session_open(&e->session, e->model, &so);
    kh_encoder_options eo = {.longest = so.context,
                             .longer = so.longer,
                             .threads = so.threads,
                             .attn = attn,
                             .ff = so.ff,
                             .precision = so.precision};
    return kh_encoder_open(&e->encoder, e->model, &eo);
}

static kh_status run_setting(evaluation *e, const kh_example *examples, size_t count,
                             size_t setting)
{
    const kh_evaluate_options *o = e->options;
    for (size_t i = 0; i < count; i++) {
        kh_prediction found = {.text = ""};
        kh_buf text = {0};
        kh_status status = examples[i].answer_count > 0 ? answer(e, &examples[i], &found, &text)
                                                        : choose(e, &examples[i], &found);
        if (status == KH_OK && o->predicted) o->predicted(o->predicted_context, setting, i, &found);
        kh_buf_free(&text);
        if (status != KH_OK) return kh_fail_context(status, "example %zu", i + 1);
        if (o->progress) o->progress(o->progress_context, "examples", i + 1, count);
    }
    return KH_OK;
}

kh_status kh_evaluate(const kh_model *model, const kh_example *examples, size_t count,
                      const kh_evaluate_options *options, kh_evaluate_result *results)
{
    size_t ffs = options->ff_count ? options->ff_count : 1;
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "there are no examples");
    if (options->attn_count == 0) KH_FAIL(KH_ERR_ARGUMENT, "no attention setting to measure");
    for (size_t s = 0; s < options->attn_count * ffs; s++) {
        const char *attn = options->attns[s / ffs];
        const char *ff = options->ff_count ? options->ffs[s % ffs] : options->session.ff;
        evaluation e = {.model = model,
                        .options = options,
                        .kind = kh_model_get_kind(model),
                        .kern = kh_kern_get(kh_cpu_isa()),
                        .V = (size_t)model->d.V};
        KH_TRY(open_setting(&e, attn, ff));
        double start = kh_cpu_seconds();
        kh_status status = kh_new(&e.scratch, e.V, sizeof *e.scratch, "scores");
        if (status == KH_OK) status = run_setting(&e, examples, count, s);
        kh_free(e.scratch);
        kh_session_close(e.session);
        kh_encoder_close(e.encoder);
        KH_TRY(status);
        results[s] = (kh_evaluate_result){.questions = e.exact.n,
                                          .choices = e.right.n,
                                          .exact = value(&e.exact),
                                          .f1 = value(&e.f1),
                                          .exact_error = error(&e.exact),
                                          .f1_error = error(&e.f1),
                                          .accuracy = value(&e.right),
                                          .accuracy_norm = value(&e.right_norm),
                                          .accuracy_error = error(&e.right),
                                          .accuracy_norm_error = error(&e.right_norm),
                                          .seconds = kh_cpu_seconds() - start,
                                          .peak_bytes = kh_cpu_peak_rss()};
        snprintf(results[s].attn, sizeof results[s].attn, "%s", attn);
        snprintf(results[s].ff, sizeof results[s].ff, "%s", ff ? ff : "dense");
    }
    return KH_OK;
}
