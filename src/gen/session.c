/* A sequence of tokens that a model has read.
 *
 * Reading cuts the ids into batches and gives each to the one forward pass. A batch either becomes part
 * of the sequence whole or not at all: pages are prepared first (which may fail), the pass runs, and
 * only then the length moves. So an error, a full context or Ctrl-C leaves a session that can go on.
 *
 * Forks share the engine (threads, arenas, pages) and the pages read so far; each has its own page
 * table, tokens and logits. They take turns: the engine runs one batch at a time. */
#include "base/alloc.h"
#include "base/fail.h"
#include "gen/engine.h"

#include <math.h>
#include <string.h>

static kh_status new_session(kh_session **out, kh_engine *engine)
{
    *out = NULL;
    kh_session *s = NULL;
    KH_TRY(kh_new(&s, 1, sizeof *s, "a session"));
    s->engine = engine;
    engine->refs++;
    atomic_init(&s->stop, 0);
    /* a reservation: a file may claim a context of a billion positions */
    void *tokens = NULL;
    kh_status status = kh_reserve(&tokens, engine->context * sizeof *s->tokens, "tokens");
    s->tokens = tokens;
    if (status == KH_OK)
        status = kh_new(&s->logits, (size_t)engine->model->d.V, sizeof *s->logits, "logits");
    if (status != KH_OK) {
        kh_session_close(s);
        return status;
    }
    *out = s;
    return KH_OK;
}

kh_status kh_session_open(kh_session **out, const kh_model *model,
                          const kh_session_options *options)
{
    static const kh_session_options defaults;
    *out = NULL;
    kh_engine *engine = NULL;
    KH_TRY(kh_engine_open(&engine, model, options ? options : &defaults));
    kh_session *s = NULL;
    kh_status status = new_session(&s, engine);
    if (status == KH_OK) status = kh_kv_open(&s->kv, engine->pages, engine->context);
    kh_engine_close(engine); /* the session holds its own reference */
    if (status != KH_OK) {
        kh_session_close(s);
        return status;
    }
    *out = s;
    return KH_OK;
}

kh_status kh_session_fork(kh_session **out, kh_session *session)
{
    kh_session *s = NULL;
    *out = NULL;
    KH_TRY(new_session(&s, session->engine));
    kh_status status = kh_kv_fork(&s->kv, session->kv);
    if (status == KH_OK && session->cross) status = kh_kv_fork(&s->cross, session->cross);
    if (status != KH_OK) {
        kh_session_close(s);
        return status;
    }
    memcpy(s->tokens, session->tokens, kh_session_length(session) * sizeof *s->tokens);
    memcpy(s->logits, session->logits, (size_t)s->engine->model->d.V * sizeof *s->logits);
    s->has_logits = session->has_logits;
    *out = s;
    return KH_OK;
}

void kh_session_close(kh_session *s)
{
    if (!s) return;
    kh_kv_close(s->kv);
    kh_kv_close(s->cross);
    kh_free(s->logits);
    kh_reserve_free(s->tokens, s->engine->context * sizeof *s->tokens);
    kh_engine_close(s->engine);
    kh_free(s);
}

static kh_status keep_last(void *context, size_t first, size_t rows, float *logits)
{
    (void)first;
    (void)rows;
    (void)logits;
    ((kh_session *)context)->has_logits = 1;
    return KH_OK;
}

kh_status kh_session_step(kh_session *s, const int32_t *ids, size_t n, enum kh_phase phase,
                          enum kh_want want, const kh_logit_sink *sink)
{
    kh_engine *e = s->engine;
    size_t length = kh_session_length(s);
    if (e->encoder && !s->cross)
        KH_FAIL(KH_ERR_STATE, "a %s model answers to a source text, and none was given",
                e->model->architecture);
    KH_TRY(kh_kv_prepare(s->kv, n));
    for (size_t i = 0; i < n; i++) {
        e->tokens[i] = ids[i];
        e->positions[i] = (int32_t)(length + i);
        e->logit_rows[i] = (uint32_t)(want == KH_WANT_ALL ? i : n - 1);
    }
    kh_span span = {.seq = 0, .row = 0, .rows = n, .position = (int32_t)length};
    kh_batch batch = {.n = n,
                      .tokens = e->tokens,
                      .position = e->positions,
                      .spans = &span,
                      .span_count = 1,
                      .logit_rows = e->logit_rows,
                      .logit_count = want == KH_WANT_ALL    ? n
                                     : want == KH_WANT_LAST ? 1
                                                            : 0};
    kh_run run = kh_engine_run(e, &batch, phase);
    run.kv_self = &s->kv;
    run.kv_cross = s->cross ? &s->cross : NULL;
    run.probe = s->probe;
    run.stop = &s->stop;
    kh_logit_sink last = {.take = keep_last, .context = s, .buffer = s->logits, .chunk_rows = 1};
    s->has_logits = 0;
    KH_TRY(kh_forward(e->model, &run, want == KH_WANT_ALL ? sink : &last));
    memmove(s->tokens + length, ids, n * sizeof *ids); /* a shift reads from there */
    kh_kv_advance(s->kv, n);
    return KH_OK;
}

static kh_status check_ids(const kh_session *s, const int32_t *ids, size_t count)
{
    int V = s->engine->model->d.V;
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= V)
            KH_FAIL(KH_ERR_ARGUMENT, "token %zu: id %d is not between 0 and %d", i, ids[i], V - 1);
    size_t length = kh_session_length(s), context = s->engine->context;
    if (count > context - length)
        KH_FAIL(KH_ERR_CONTEXT,
                "%zu tokens do not fit: the context holds %zu, %zu are read, and the model was "
                "trained for %d (a longer context is asked for with -c %zu)",
                count, context, length, s->engine->model->d.context, length + count + 256);
    return KH_OK;
}

typedef struct all_rows {
    kh_session *session;
    const kh_read_options *options;
    size_t first; /* index of the batch's first row in the ids */
    size_t n;
} all_rows;

static kh_status pass_rows(void *context, size_t first, size_t rows, float *logits)
{
    all_rows *a = context;
    size_t V = (size_t)a->session->engine->model->d.V;
    if (first + rows == a->n) {
        memcpy(a->session->logits, logits + (rows - 1) * V, V * sizeof *logits);
        a->session->has_logits = 1;
    }
    return a->options->logits(a->options->logits_context, a->first + first, rows, logits);
}

kh_status kh_session_read(kh_session *s, const int32_t *ids, size_t count,
                          const kh_read_options *options)
{
    static const kh_read_options none;
    if (!options) options = &none;
    kh_engine *e = s->engine;
    atomic_store(&s->stop, 0);
    KH_TRY(check_ids(s, ids, count));
    all_rows rows = {.session = s, .options = options};
    kh_logit_sink sink = {.take = pass_rows,
                          .context = &rows,
                          .buffer = (float *)(void *)e->logits.base,
                          .chunk_rows = e->chunk_rows};
    for (size_t done = 0; done < count;) {
        size_t n = count - done < e->batch ? count - done : e->batch;
        enum kh_want want = options->logits     ? KH_WANT_ALL
                            : done + n == count ? KH_WANT_LAST
                                                : KH_WANT_NOTHING;
        rows.first = done;
        rows.n = n;
        KH_TRY(kh_session_step(s, ids + done, n, KH_PHASE_PREFILL, want, &sink));
        done += n;
        if (options->progress) options->progress(options->progress_context, done, count);
    }
    return KH_OK;
}

kh_status kh_session_source(kh_session *s, const int32_t *ids, size_t count)
{
    kh_engine *e = s->engine;
    kh_kv *cross = NULL;
    if (!e->encoder)
        KH_FAIL(KH_ERR_UNSUPPORTED, "a %s model has no encoder that could read a source",
                e->model->architecture);
    size_t most = kh_encoder_longest(e->encoder);
    if (most > e->context) most = e->context;
    if (count == 0 || count > most)
        KH_FAIL(KH_ERR_CONTEXT, "a source of %zu tokens: 1 to %zu are expected", count, most);
    KH_TRY(kh_session_rewind(s, 0));
    kh_kv_close(s->cross);
    s->cross = NULL;
    KH_TRY(kh_kv_open(&cross, e->sources, e->context));
    kh_status status = kh_encoder_source(e->encoder, cross, ids, count, s->probe);
    if (status != KH_OK)
        kh_kv_close(cross);
    else
        s->cross = cross;
    return status;
}

const float *kh_session_logits(const kh_session *s)
{
    return s->has_logits ? s->logits : NULL;
}

size_t kh_session_length(const kh_session *s)
{
    return kh_kv_length(s->kv);
}

size_t kh_session_context(const kh_session *s)
{
    return s->engine->context;
}

const int32_t *kh_session_tokens(const kh_session *s)
{
    return s->tokens;
}

kh_status kh_session_rewind(kh_session *s, size_t length)
{
    if (length == kh_session_length(s)) return KH_OK;
    KH_TRY(kh_kv_rewind(s->kv, length));
    s->has_logits = 0;
    return KH_OK;
}

kh_status kh_session_drop(kh_session *s, size_t keep, size_t count)
{
    size_t length = kh_session_length(s);
    if (keep > length || count > length - keep)
        KH_FAIL(KH_ERR_ARGUMENT, "a shift of %zu behind %zu exceeds the %zu tokens read", count,
                keep, length);
    size_t rest = length - keep - count;
    memmove(s->tokens + keep, s->tokens + keep + count, rest * sizeof *s->tokens);
    KH_TRY(kh_session_rewind(s, keep));
    for (size_t done = 0; done < rest;) {
        size_t n = rest - done < s->engine->batch ? rest - done : s->engine->batch;
        KH_TRY(kh_session_step(s, s->tokens + keep + done, n, KH_PHASE_PREFILL,
                               done + n == rest ? KH_WANT_LAST : KH_WANT_NOTHING, NULL));
        done += n;
    }
    return KH_OK;
}

kh_status kh_session_shift(kh_session *s, size_t keep, size_t count)
{
    atomic_store(&s->stop, 0);
    return kh_session_drop(s, keep, count);
}

const char *kh_session_attn(const kh_session *s)
{
    return kh_attn_plan_text(s->engine->plan);
}

const char *kh_session_ff(const kh_session *s)
{
    return kh_ff_plan_text(s->engine->ff);
}

int kh_session_threads(const kh_session *s)
{
    return s->engine->pool.threads;
}

void kh_session_stop(kh_session *s)
{
    atomic_store(&s->stop, 1);
}

void kh_session_observe(kh_session *s, const kh_probe *probe)
{
    s->probe = probe;
}

void kh_session_get_report(const kh_session *s, kh_session_report *out)
{
    const kh_engine *e = s->engine;
    const kh_attn_stats *a = &e->stats;
    size_t page = kh_kv_page_bytes(kh_kv_pool_shape(e->pages));
    *out = (kh_session_report){.file = kh_gguf_size(e->model->file),
                               .cache = kh_kv_pool_used(e->pages) * page,
                               .cache_peak = kh_kv_pool_peak(e->pages) * page,
                               .compute = e->step.peak + e->logits.peak,
                               .rows = a->rows,
                               .keys_kept = a->keys_kept,
                               .keys_seen = a->keys_seen,
                               .kept_mass = a->want_mass && a->rows > 0 ? a->kept_mass / a->rows
                                                                        : (double)NAN};
    for (int i = 0; i < e->pool.threads; i++) out->compute += e->scratch[i].peak;
}

void kh_session_reset_report(kh_session *s)
{
    s->engine->stats = (kh_attn_stats){.want_mass = s->engine->stats.want_mass};
}
