/* One token each for several sessions, in one forward pass: what makes a server's slots cheap.
 *
 *     session   a        b        c            rows of the batch   0   1   2
 *     length    17       803      4            positions          17 803   4
 *     cache     kv of a, b, c                  spans              one row each, of its own sequence
 *
 * A weight is read once for all rows. Each row attends to its own session's keys and gets its own logits, so an
 * answer is what it is alone, but for the last bits of products that are summed in another order for several rows.
 *
 * A probe belongs to a session. The pass has one, made here, which calls each session's with the one row that is its
 * session's; attention's rows are named row 0, as they are in a pass of one session.
 *
 * As with one session a batch becomes part of all sequences or of none: pages are prepared first, and lengths move
 * when the pass has succeeded. */
#include "base/fail.h"
#include "gen/engine.h"

#include <string.h>

typedef struct together {
    kh_session *const *sessions; /* [count] */
    size_t count;
    size_t logit_row; /* of the next chunk of logits */
} together;

static void on_point(void *context, kh_point point, int layer, float *data, size_t rows,
                     size_t width)
{
    together *t = context;
    size_t first = point == KH_POINT_LOGITS ? t->logit_row : 0;
    if (point == KH_POINT_LOGITS) t->logit_row += rows;
    for (size_t i = 0; i < rows && first + i < t->count; i++)
        kh_probe_at(t->sessions[first + i]->probe, point, layer, data + i * width, 1, width);
}

static void on_row(void *context, const kh_attn_row *row)
{
    const together *t = context;
    const kh_probe *probe = t->sessions[row->row]->probe;
    kh_attn_row own = *row;
    own.row = 0;
    if (kh_probe_wants(probe, KH_POINT_ATTN_ROWS) && probe->rows) probe->rows(probe->context, &own);
}

static kh_status take_logits(void *context, size_t first, size_t rows, float *logits)
{
    const together *t = context;
    for (size_t i = 0; i < rows; i++) {
        kh_session *s = t->sessions[first + i];
        size_t V = (size_t)s->engine->model->d.V;
        memcpy(s->logits, logits + i * V, V * sizeof *logits);
    }
    return KH_OK;
}

/* At most as many sessions as the engine has lanes. */
static kh_status step(together *t, const int32_t *ids)
{
    kh_engine *e = t->sessions[0]->engine;
    size_t n = t->count;
    uint64_t points = 0;
    for (size_t i = 0; i < n; i++) {
        kh_session *s = t->sessions[i];
        if (e->encoder && !s->cross)
            KH_FAIL(KH_ERR_STATE, "a %s model answers to a source text, and none was given",
                    e->model->architecture);
        KH_TRY(kh_kv_prepare(s->kv, 1));
        size_t length = kh_session_length(s);
        e->tokens[i] = ids[i];
        e->positions[i] = (int32_t)length;
        e->logit_rows[i] = (uint32_t)i;
        e->spans[i] = (kh_span){.seq = (int)i, .row = i, .rows = 1, .position = (int32_t)length};
        e->kvs[i] = s->kv;
        e->crosses[i] = s->cross;
        if (s->probe) points |= s->probe->points;
    }
    kh_batch batch = {.n = n,
                      .tokens = e->tokens,
                      .position = e->positions,
                      .spans = e->spans,
                      .span_count = n,
                      .logit_rows = e->logit_rows,
                      .logit_count = n};
    kh_probe probe = {.context = t, .points = points, .point = on_point, .rows = on_row};
    kh_run run = kh_engine_run(e, &batch, KH_PHASE_DECODE);
    run.kv_self = e->kvs;
    run.kv_cross = e->encoder ? e->crosses : NULL;
    run.probe = points ? &probe : NULL;
    kh_logit_sink sink = {.take = take_logits,
                          .context = t,
                          .buffer = (float *)(void *)e->logits.base,
                          .chunk_rows = e->chunk_rows};
    for (size_t i = 0; i < n; i++) t->sessions[i]->has_logits = 0;
    KH_TRY(kh_forward(e->model, &run, &sink));
    for (size_t i = 0; i < n; i++) {
        kh_session *s = t->sessions[i];
        s->tokens[kh_session_length(s)] = ids[i];
        s->has_logits = 1;
        kh_kv_advance(s->kv, 1);
    }
    return KH_OK;
}

kh_status kh_sessions_step(kh_session *const *sessions, const int32_t *ids, size_t count)
{
    if (count == 1)
        return kh_session_step(sessions[0], ids, 1, KH_PHASE_DECODE, KH_WANT_LAST, NULL);
    for (size_t i = 1; i < count; i++)
        if (sessions[i]->engine != sessions[0]->engine)
            KH_FAIL(KH_ERR_ARGUMENT, "answers that grow together need forks of one session");
    for (size_t done = 0, n; done < count; done += n) {
        n = count - done;
        if (n > sessions[0]->engine->lanes) n = sessions[0]->engine->lanes;
        together t = {.sessions = sessions + done, .count = n};
        KH_TRY(step(&t, ids + done));
    }
    return KH_OK;
}
