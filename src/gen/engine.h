/* gen/engine.h: what a session and its forks share: threads, kernels, arenas, pages, the plan. */
#ifndef KH_GEN_ENGINE_H
#define KH_GEN_ENGINE_H

#include "attn/attn.h"
#include "gen/encoder.h"
#include "gen/plans.h"
#include "kv/kv.h"
#include "model/network.h"
#include "run/run.h"

#include <keyhole/session.h>

typedef struct kh_engine {
    const kh_model *model;
    int refs;
    size_t context, batch; /* positions, rows of a forward pass */
    enum kh_compute compute;
    kh_pool pool;
    const kh_kern *kern;
    kh_arena step, *scratch; /* [threads] */
    kh_attn_plan *plan;
    kh_ff_plan *ff;
    kh_kv_pool *pages;
    kh_encoder *encoder; /* before a decoder; else NULL */
    kh_kv_pool *sources; /* what decoders attend to */
    kh_attn_stats stats;
    double attention_seconds; /* of all passes so far */
    /* of the batch in flight */
    int32_t *tokens, *positions; /* [batch] */
    uint32_t *logit_rows;        /* [batch] */
    /* of sessions that step together */
    size_t lanes;           /* most of them in a pass */
    kh_span *spans;         /* [lanes] */
    kh_kv **kvs, **crosses; /* [lanes] */
    kh_arena logits;        /* chunk of logits when all rows are asked for */
    size_t chunk_rows;
} kh_engine;

struct kh_session {
    kh_engine *engine;
    kh_kv *kv;
    kh_kv
        *cross; /* keys and values of the source; NULL without an encoder, or before one is given */
    int32_t *tokens; /* [context], the first kh_kv_length(kv) are read */
    float *logits;   /* [V] after the last token, if has_logits */
    int has_logits;
    atomic_bool stop;
    const kh_probe *probe;
};

kh_status kh_engine_open(kh_engine **out, const kh_model *model, const kh_session_options *options);
/* Drops one reference. */
void kh_engine_close(kh_engine *engine);

/* 1: keys rotate by the frequencies of contexts beyond the original one. */
static inline int kh_engine_beyond(const kh_engine *e)
{
    return e->model->far.n_rot > 0 && (double)e->context > e->model->d.rope[0].original;
}

/* What every run of the engine has in common. */
kh_run kh_engine_run(kh_engine *engine, const kh_batch *batch, enum kh_phase phase);

/* One forward pass over ids [n] at the end of the session, n <= engine->batch. `sink` NULL: the logits
 * of the last row go to session->logits when `last` is set; otherwise all rows go to the sink. */
enum kh_want { KH_WANT_NOTHING, KH_WANT_LAST, KH_WANT_ALL };
kh_status kh_session_step(kh_session *session, const int32_t *ids, size_t n, enum kh_phase phase,
                          enum kh_want want, const kh_logit_sink *sink);

/* One token each for `count` different sessions of one engine, as decoding does, in as few passes as they fit in;
 * every session gets its logits. A session's probe sees the rows of its session alone. A request to stop one is
 * not looked at while others wait with it. */
kh_status kh_sessions_step(kh_session *const *sessions, const int32_t *ids, size_t count);

/* Reads on with several forks of one session in one pass, as prompts are read: ids[i] [counts[i]] behind session i, at
 * most engine->batch in all and KH_BRANCHES sessions. Each gets the logits of its last row; a probe sees the rows of its
 * session alone. `stop` is looked at. */
enum { KH_BRANCHES = 32 };
kh_status kh_sessions_read(kh_session *const *sessions, const int32_t *const *ids,
                           const size_t *counts, size_t count, atomic_bool *stop);

/* kh_session_shift for a caller that is inside a call already: a request to stop stays. */
kh_status kh_session_drop(kh_session *session, size_t keep, size_t count);

#endif
