/* Several forks of one session read on in one forward pass: what makes a sweep over many small changes cheap.
 *
 *     session   a        b      c          rows of the batch   0 1 2 3   4 5   6
 *     length    6        8      9          positions           6 7 8 9   8 9   9
 *     reads     4 rows   2      1          spans               a         b     c
 *
 * As in gen/together.c a probe belongs to a session: the pass has one, made here, which calls each session's with the
 * rows of its span; rows of attention are numbered within it. Logits are those of each span's last row. The batch becomes
 * part of all sequences or of none. */
#include "base/fail.h"
#include "gen/engine.h"

#include <string.h>

typedef struct branches {
    kh_session *const *sessions; /* [count] */
    const kh_span *spans;
    size_t count;
    size_t late; /* of the next chunk of rows behind the blocks */
} branches;

/* Behind the blocks there is one row of a session. */
static void late_point(branches *b, kh_point point, int layer, float *data, size_t rows,
                       size_t width)
{
    size_t first = point == KH_POINT_LOGITS ? b->late : 0;
    if (point == KH_POINT_LOGITS) b->late += rows;
    for (size_t i = 0; i < rows && first + i < b->count; i++)
        kh_probe_at(b->sessions[first + i]->probe, point, layer, data + i * width, 1, width);
}

static void on_point(void *context, kh_point point, int layer, float *data, size_t rows,
                     size_t width)
{
    branches *b = context;
    if (point == KH_POINT_LOGITS || point == KH_POINT_FINAL_NORM) {
        late_point(b, point, layer, data, rows, width);
        return;
    }
    for (size_t i = 0; i < b->count; i++)
        kh_probe_at(b->sessions[i]->probe, point, layer, data + b->spans[i].row * width,
                    b->spans[i].rows, width);
}

static void on_row(void *context, const kh_attn_row *row)
{
    const branches *b = context;
    size_t i = 0;
    while (i + 1 < b->count && b->spans[i + 1].row <= row->row) i++;
    const kh_probe *probe = b->sessions[i]->probe;
    kh_attn_row own = *row;
    own.row -= b->spans[i].row;
    if (kh_probe_wants(probe, KH_POINT_ATTN_ROWS) && probe->rows) probe->rows(probe->context, &own);
}

static kh_status take_logits(void *context, size_t first, size_t rows, float *logits)
{
    const branches *b = context;
    for (size_t i = 0; i < rows; i++) {
        kh_session *s = b->sessions[first + i];
        size_t V = (size_t)s->engine->model->d.V;
        memcpy(s->logits, logits + i * V, V * sizeof *logits);
    }
    return KH_OK;
}

static kh_status pass(kh_engine *e, branches *b, const kh_batch *batch, kh_kv **kvs,
                      atomic_bool *stop)
{
    uint64_t points = 0;
    for (size_t i = 0; i < b->count; i++)
        if (b->sessions[i]->probe) points |= b->sessions[i]->probe->points;
    kh_probe probe = {.context = b, .points = points, .point = on_point, .rows = on_row};
    kh_run run = kh_engine_run(e, batch, KH_PHASE_PREFILL);
    run.kv_self = kvs;
    run.probe = points ? &probe : NULL;
    run.stop = stop;
    kh_logit_sink sink = {.take = take_logits,
                          .context = b,
                          .buffer = (float *)(void *)e->logits.base,
                          .chunk_rows = e->chunk_rows};
    return kh_forward(e->model, &run, &sink);
}

kh_status kh_sessions_read(kh_session *const *sessions, const int32_t *const *ids,
                           const size_t *counts, size_t count, atomic_bool *stop)
{
    kh_engine *e = sessions[0]->engine;
    kh_span spans[KH_BRANCHES];
    kh_kv *kvs[KH_BRANCHES];
    branches b = {.sessions = sessions, .spans = spans, .count = count};
    size_t n = 0;
    if (e->encoder)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s models are not read in branches", e->model->architecture);
    for (size_t i = 0; i < count; i++) {
        size_t length = kh_session_length(sessions[i]);
        KH_TRY(kh_kv_prepare(sessions[i]->kv, counts[i]));
        spans[i] =
            (kh_span){.seq = (int)i, .row = n, .rows = counts[i], .position = (int32_t)length};
        kvs[i] = sessions[i]->kv;
        for (size_t r = 0; r < counts[i]; r++, n++) {
            e->tokens[n] = ids[i][r];
            e->positions[n] = (int32_t)(length + r);
        }
        e->logit_rows[i] = (uint32_t)(n - 1);
        sessions[i]->has_logits = 0;
    }
    const kh_batch batch = {.n = n,
                            .tokens = e->tokens,
                            .position = e->positions,
                            .spans = spans,
                            .span_count = count,
                            .logit_rows = e->logit_rows,
                            .logit_count = count};
    KH_TRY(pass(e, &b, &batch, kvs, stop));
    for (size_t i = 0; i < count; i++) {
        kh_session *s = sessions[i];
        memcpy(s->tokens + kh_session_length(s), ids[i], counts[i] * sizeof *ids[i]);
        kh_kv_advance(s->kv, counts[i]);
        s->has_logits = 1;
    }
    return KH_OK;
}
