/* Recall of planted facts: what a method still sees at length.
 *
 * One-sentence facts are planted at even depths of a long text (at the next end of a sentence). For each
 * setting the text is read once, and its logits give perplexity and the distance to the first setting.
 * Then, for each fact, the session is forked, the beginning of the fact is read again, and the rest is
 * completed greedily: recalled is an answer that begins with the planted word. The row "none" asks
 * without a document: what the model would say anyway.
 *
 * Which head read the fact: while the cue's last token is read (the answer's first token is predicted
 * there) every head's attention is observed, and the head that put most weight on the planted sentence is
 * named, with the words around the one key that it weighted most. */
#include "base/alloc.h"
#include "base/fail.h"
#include "bench/isolate.h"
#include "bench/plant.h"
#include "bench/score.h"
#include "gen/engine.h"

#include <ctype.h>
#include <keyhole/eval.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct recall_run {
    const kh_model *model;
    const kh_recall_options *options;
    const kh_fact *facts;
    size_t fact_count;
    const kh_planted *planted;
    const kh_reference *reference;
    size_t setting;
} recall_run;

/* ---- who read the fact ---- */

enum { SINKS = 4 }; /* the first keys are where idle heads look: never what a head read */

typedef struct reader {
    const kh_planted *planted;
    size_t fact;
    int32_t position; /* of the cue's last token */
    float best;       /* weight of a head on the fact's sentence */
    kh_recall_fact *out;
    size_t top_key;
} reader;

static void watch(void *context, const kh_attn_row *row)
{
    reader *r = context;
    if (row->position != r->position) return;
    const kh_planted_fact *f = &r->planted->facts[r->fact];
    float on_fact = 0, most = -1;
    size_t top = 0;
    for (size_t i = 0; i < row->count; i++) {
        if (row->keys[i] >= f->first && row->keys[i] < f->end) on_fact += row->weights[i];
        if (row->keys[i] >= SINKS && row->weights[i] > most) {
            most = row->weights[i];
            top = row->keys[i];
        }
    }
    if (on_fact <= r->best) return;
    r->best = on_fact;
    r->out->layer = row->layer;
    r->out->head = row->head;
    r->out->weight = on_fact;
    r->top_key = top;
}

/* The sentence of the document around a token, shortened to the room there is. */
static void quote(const kh_planted *p, size_t token, char *out, size_t room)
{
    out[0] = 0;
    if (token >= p->count) return;
    size_t at = p->offsets[token], from = at, to = at;
    while (from > 0 && !strchr(".!?\n", p->text[from - 1])) from--;
    while (to < p->size && !strchr(".!?", p->text[to])) to++;
    if (to < p->size) to++;
    while (from < to && isspace((unsigned char)p->text[from])) from++;
    size_t n = 0;
    for (size_t i = from; i < to && n + 1 < room; i++)
        out[n++] = isspace((unsigned char)p->text[i]) ? ' ' : p->text[i];
    out[n] = 0;
}

/* ---- one fact ---- */

typedef struct said {
    char *text;
    size_t size, room;
} said;

static kh_status keep_text(void *context, const char *text, size_t size, const kh_choice *chosen,
                           const kh_choice *alternatives, size_t count)
{
    (void)chosen;
    (void)alternatives;
    (void)count;
    said *s = context;
    size_t n = size < s->room - 1 - s->size ? size : s->room - 1 - s->size;
    for (size_t i = 0; i < n; i++) s->text[s->size + i] = text[i] == '\n' ? ' ' : text[i];
    s->size += n;
    s->text[s->size] = 0;
    return KH_OK;
}

static int begins_with(const char *text, const char *word)
{
    while (isspace((unsigned char)*text)) text++;
    return strncasecmp(text, word, strlen(word)) == 0;
}

static kh_status complete(const recall_run *r, kh_session *session, size_t fact,
                          kh_recall_fact *out, kh_generate_result *made)
{
    const kh_fact *f = &r->facts[fact];
    int has_document = kh_session_length(session) > 1;
    char cue[512];
    snprintf(cue, sizeof cue, "%s%s", has_document ? "\n\n" : "", f->cue);
    int32_t *ids = NULL;
    size_t n = 0;
    KH_TRY(kh_model_tokenize(r->model, cue, strlen(cue), 0, &ids, &n));
    reader look = {.planted = r->planted,
                   .fact = fact,
                   .position = (int32_t)(kh_session_length(session) + n) - 1,
                   .out = out};
    kh_probe probe = {.context = &look, .points = UINT64_C(1) << KH_POINT_ATTN_ROWS, .rows = watch};
    if (has_document) kh_session_observe(session, &probe);
    kh_status status = kh_session_read(session, ids, n, NULL);
    kh_session_observe(session, NULL);
    kh_free_ids(ids);
    KH_TRY(status);
    said s = {.text = out->said, .room = sizeof out->said};
    kh_generate_options g = {
        .max_tokens = r->options->answer_tokens, .token = keep_text, .context = &s};
    KH_TRY(kh_generate(session, &g, made));
    out->recalled = begins_with(out->said, f->answer);
    out->depth = r->planted->facts[fact].depth;
    if (has_document) quote(r->planted, look.top_key, out->read, sizeof out->read);
    return KH_OK;
}

/* ---- one setting ---- */

static kh_status read_document(const recall_run *r, kh_session *session, kh_recall_result *out)
{
    kh_score score;
    size_t V = (size_t)kh_model_get_info(r->model)->vocabulary;
    KH_TRY(kh_score_open(&score, V, r->reference, r->setting == 0));
    double start = kh_cpu_seconds();
    kh_status status = kh_score_window(&score, session, r->planted->ids, r->planted->count, 0,
                                       NULL);
    out->read_seconds = kh_cpu_seconds() - start - score.seconds;
    out->ppl = exp(score.nll / (double)score.tokens);
    out->kl = score.compared ? score.kl / (double)score.compared : (double)NAN;
    out->same_top1 = score.compared ? (double)score.same / (double)score.compared : (double)NAN;
    kh_session_report report;
    kh_session_get_report(session, &report);
    out->keys_kept = report.keys_kept / report.rows;
    out->tokens = r->planted->count;
    kh_score_close(&score);
    return status;
}

static kh_status answer_all(const recall_run *r, kh_session *session, kh_recall_result *out)
{
    size_t tokens = 0;
    double seconds = 0;
    for (size_t i = 0; i < r->fact_count; i++) {
        kh_session *fork = NULL;
        kh_generate_result made = {0};
        KH_TRY(kh_session_fork(&fork, session));
        kh_status status = complete(r, fork, i, &out->fact[i], &made);
        kh_session_close(fork);
        KH_TRY(status);
        tokens += made.tokens;
        seconds += made.seconds;
        out->recalled += out->fact[i].recalled;
        if (r->options->progress)
            r->options->progress(r->options->progress_context, out->attn, i + 1, r->fact_count);
    }
    out->answer_tokens_per_second = (double)tokens / seconds;
    return KH_OK;
}

static kh_status measure(void *context, void *result)
{
    const recall_run *r = context;
    kh_recall_result *out = result;
    const char *attn = r->options->attns[r->setting];
    int none = strcmp(attn, "none") == 0;
    *out = (kh_recall_result){.facts = (int)r->fact_count};
    snprintf(out->attn, sizeof out->attn, "%s", attn);
    kh_session_options so = r->options->session;
    so.attn = none ? "full" : attn;
    so.context = r->planted->count + 128;
    so.longer = 1;
    so.forks = 1;
    kh_session *session = NULL;
    KH_TRY(kh_session_open(&session, r->model, &so));
    kh_status status = KH_OK;
    int32_t bos = kh_model_bos(r->model);
    if (!none)
        status = read_document(r, session, out);
    else if (kh_model_get_info(r->model)->add_bos && bos >= 0)
        status = kh_session_read(session, &bos, 1, NULL);
    if (none) out->ppl = out->kl = out->same_top1 = out->keys_kept = (double)NAN;
    if (status == KH_OK && !none)
        snprintf(out->attn, sizeof out->attn, "%s", kh_session_attn(session));
    if (status == KH_OK) status = answer_all(r, session, out);
    out->peak_bytes = kh_cpu_peak_rss();
    kh_session_close(session);
    return status;
}

kh_status kh_recall(const kh_model *model, const char *text, size_t size,
                    const kh_recall_options *options, kh_recall_result *results)
{
    kh_recall_options o = *options;
    if (o.tokens == 0) o.tokens = 6000;
    if (o.answer_tokens == 0) o.answer_tokens = 8;
    recall_run r = {.model = model, .options = &o, .facts = o.facts, .fact_count = o.fact_count};
    if (!o.facts) {
        r.facts = kh_fact_at(0);
        r.fact_count = kh_fact_count();
    }
    if (r.fact_count > sizeof results->fact / sizeof results->fact[0])
        KH_FAIL(KH_ERR_ARGUMENT, "%zu facts are too many (16 at most)", r.fact_count);
    kh_planted planted;
    KH_TRY(kh_plant(&planted, model, text, size, r.facts, r.fact_count, o.tokens));
    r.planted = &planted;
    kh_reference reference;
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    kh_status status = kh_reference_open(&reference, planted.count, V);
    r.reference = &reference;
    for (size_t i = 0; status == KH_OK && i < o.attn_count; i++) {
        r.setting = i;
        if (o.progress) o.progress(o.progress_context, o.attns[i], 0, r.fact_count);
        status = kh_isolate(o.isolate, measure, &r, &results[i], sizeof results[i]);
    }
    kh_reference_close(&reference);
    kh_planted_free(&planted);
    return status;
}
