/* The derivative of a difference of logits by everything that a text's pass holds at its points: one forward pass with a
 * tape, and back. The tape, the ways back of the ops and the one forward pass are those of training; no weight is trained
 * here, so no weight has a gradient, quantised ones are unpacked where they are used, and a way back costs what a way
 * there does.
 *
 *     step     |logits of the last row, twin|walk's buffers, each with its twin|what ops take|
 *     tape     |input of every block, kept keys|records of one block, which runs again|
 *     cache    one layer of pages, which all layers write in turn
 *
 * The twin of a buffer at a point is read when all that came behind the point was taken back (model/walk.c).
 *
 * What it needs is said before (kh_inspector_gradient_bytes) and is all that it gets: the tape and the arenas have these
 * sizes, so a pass that wants more ends with KH_ERR_MEMORY. Of what is said, SmolLM2-135M (Q4_1, two threads) touches 2 of
 * 19 MB in a text of 5 tokens and 60 of 125 MB in one of 380; half of the latter is the tape.
 *
 * The whole text is one batch, since a layer's keys must be there when it is taken back. Rejected: going back through the rows
 * behind the first difference alone, with keys and values of the others from the session's cache: these are F16 and
 * rotated, and the ways back read arrays of a whole sequence; a prompt of a sweep is short. */
#include "attn/method.h"
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/inspector.h"
#include "kern/attn_kern.h"
#include "run/tape.h"

enum {
    PARTS = 2 * 1920,      /* rows of a weight whose derivative lies twice beside a row's */
    RECORDS = 1 << 14,     /* bytes of a block's records without their copies */
    WAVE = 16,             /* of the way back of attention: items, ... */
    WAVE_ROWS = 1024,      /* ... and the most rows of each */
    SPARE = 1 << 20,       /* of the step: what does not grow with the text */
    WORKER_SPARE = 4 << 20 /* of a worker: rows of a weight, unpacked */
};

typedef struct sizes {
    size_t step, scratch, tape, pages;
    uint64_t all;
} sizes;

typedef struct gradient {
    kh_inspector *inspector;
    int32_t a, b;
    kh_arena step, *scratch; /* [threads] */
    kh_tape tape;
    kh_kv_pool *pages;
    kh_kv *kv;
    int32_t *positions; /* [T] */
    kh_run run;
} gradient;

/* ---- memory ---- */

static kh_kv_shape shape_of(const kh_description *d)
{
    return (kh_kv_shape){.layers = 1,
                         .groups = d->G,
                         .k_width = d->E,
                         .v_width = d->E,
                         .k_type = KH_TYPE_F32,
                         .v_type = KH_TYPE_F32};
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* What a layer's attention leaves for the replay: sums of every row, and its keys where these are lists. */
static size_t kept_bytes(const kh_attn_plan *plan, int layer, size_t H, size_t T)
{
    size_t most = 0;
    for (size_t h = 0; h < H; h++) {
        const kh_attn_setting *s = kh_attn_plan_at(plan, KH_PHASE_PREFILL, layer, (int)h);
        size_t k = (size_t)s->k < T ? (size_t)s->k : T;
        if (s->method->kind == KH_KEYS_INDICES) most = larger(most, k);
    }
    return H * T * (12 + 4 * most);
}

/* Copies of a block's records: rows of the stream before norms and sums, of q, k, v and z, and of gates. */
static size_t block_bytes(const kh_description *d, size_t T)
{
    size_t F = larger((size_t)d->F, (size_t)d->experts.F + (size_t)d->experts.shared_F);
    size_t HE = (size_t)d->H * (size_t)d->E, GE = (size_t)d->G * (size_t)d->E;
    size_t used = larger(1, (size_t)d->experts.used);
    return T * (8 * (size_t)d->D * used + 4 * (HE + GE) + 3 * F * used) * sizeof(float);
}

static size_t tape_bytes(const kh_inspector *i)
{
    const kh_description *d = &i->model->d;
    size_t T = i->count, state = kh_arena_need(T * (size_t)d->D * sizeof(float)), bytes;
    bytes = block_bytes(d, T) + 2 * RECORDS;
    for (int l = 0; l < d->N; l++)
        bytes += state + RECORDS + kept_bytes(i->root->engine->plan, l, (size_t)d->H, T);
    return bytes;
}

/* What the way back of a layer's attention takes for itself, and a worker of it (attn/backward_ranges.c): a wave of heads,
 * each of which sums derivatives of its queries over several blocks of keys. */
static size_t wave_bytes(const kh_description *d, size_t T)
{
    size_t rows = larger(1, (size_t)d->H / (size_t)d->G) * T;
    if (rows > WAVE_ROWS) rows = WAVE_ROWS;
    return rows * ((size_t)d->E + 4) * 3 * WAVE * sizeof(float) + SPARE;
}

static sizes measure(const kh_inspector *i)
{
    const kh_engine *e = i->root->engine;
    const kh_description *d = &i->model->d;
    kh_kv_shape shape = shape_of(d);
    sizes s = {.pages = i->count / KH_PAGE + 1, .tape = tape_bytes(i)};
    size_t T = i->count, HE = (size_t)d->H * (size_t)d->E,
           widest = larger(HE, larger((size_t)d->D, (size_t)d->F));
    kh_forward_need(i->model, e->plan, &shape, T, T, &s.step, &s.scratch);
    s.step = 3 * s.step + (T + KH_PAGE) * (widest + PARTS) * sizeof(float) + SPARE +
             2 * kh_arena_need((size_t)d->V * sizeof(float));
    s.scratch = 2 * s.scratch + WORKER_SPARE;
    s.all = (uint64_t)s.step + s.tape + s.pages * kh_kv_page_bytes(&shape) +
            (uint64_t)e->pool.threads * (s.scratch + SPARE) + wave_bytes(d, T);
    return s;
}

uint64_t kh_inspector_gradient_bytes(const kh_inspector *i)
{
    return measure(i).all;
}

static kh_status open_memory(gradient *g, const sizes *s)
{
    kh_inspector *i = g->inspector;
    const kh_engine *e = i->root->engine;
    kh_kv_shape shape = shape_of(&i->model->d);
    KH_TRY(kh_arena_init(&g->step, "backward pass", s->step));
    KH_TRY(kh_new(&g->scratch, (size_t)e->pool.threads, sizeof *g->scratch, "worker scratch"));
    for (int t = 0; t < e->pool.threads; t++)
        KH_TRY(kh_arena_init(&g->scratch[t], "backward worker", s->scratch));
    KH_TRY(kh_tape_open(&g->tape, s->tape));
    g->tape.recompute = 1;
    KH_TRY(kh_kv_pool_open(&g->pages, &shape, s->pages));
    KH_TRY(kh_kv_open(&g->kv, g->pages, i->count));
    KH_TRY(kh_new(&g->positions, i->count, sizeof *g->positions, "positions"));
    for (size_t t = 0; t < i->count; t++) g->positions[t] = (int32_t)t;
    return kh_kv_prepare(g->kv, i->count);
}

static void close_memory(gradient *g)
{
    kh_kv_close(g->kv);
    kh_kv_pool_close(g->pages);
    kh_tape_close(&g->tape);
    for (int t = 0; g->scratch && t < g->inspector->root->engine->pool.threads; t++)
        kh_arena_free(&g->scratch[t]);
    kh_free(g->scratch);
    kh_arena_free(&g->step);
    kh_free(g->positions);
}

/* ---- there and back ---- */

/* Where the derivative begins. */
static kh_status take_logits(void *context, size_t first, size_t rows, float *logits)
{
    gradient *g = context;
    float *twin = kh_tape_twin_of(&g->run, logits);
    (void)first;
    (void)rows;
    twin[g->a] += 1;
    if (g->b >= 0) twin[g->b] -= 1;
    return KH_OK;
}

static kh_status there_and_back(gradient *g, const kh_probe *probe)
{
    const kh_inspector *i = g->inspector;
    kh_engine *e = i->root->engine;
    uint32_t last = (uint32_t)i->count - 1;
    kh_span span = {.rows = i->count};
    kh_batch batch = {.n = i->count,
                      .tokens = i->ids,
                      .position = g->positions,
                      .spans = &span,
                      .span_count = 1,
                      .logit_rows = &last,
                      .logit_count = 1};
    kh_logit_sink sink = {.take = take_logits, .context = g, .chunk_rows = 1};
    size_t V = (size_t)i->model->d.V;
    g->run = kh_engine_run(e, &batch, KH_PHASE_PREFILL);
    g->run.step = &g->step;
    g->run.scratch = g->scratch;
    g->run.kv_self = &g->kv;
    g->run.one_layer = 1;
    g->run.tape = &g->tape;
    g->run.gradients = probe;
    g->run.stop = (atomic_bool *)&g->inspector->stop;
    KH_TRY(kh_arena_new(&g->step, &sink.buffer, V, sizeof *sink.buffer));
    KH_TRY(kh_tape_buffer(&g->tape, &g->step, sink.buffer, V));
    KH_TRY(kh_forward(i->model, &g->run, &sink));
    return kh_tape_backward(&g->run, NULL);
}

static kh_status check_gradient(const kh_inspector *i)
{
    const kh_description *d = &i->model->d;
    if (i->edited && i->edits.count > 0)
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "a backward pass goes through the model as it is: %zu edits are "
                "given, none is expected",
                i->edits.count);
    for (int l = 0; l < d->N; l++)
        for (int h = 0; h < d->H; h++)
            if (kh_attn_plan_at(i->root->engine->plan, KH_PHASE_PREFILL, l, h)->tail_mean)
                KH_FAIL(KH_ERR_UNSUPPORTED,
                        "attention '%s' has no backward pass in layer %d: tail=mean estimates what "
                        "was dropped",
                        kh_inspector_attn(i), l);
    return KH_OK;
}

kh_status kh_inspector_gradient(kh_inspector *i, int32_t a, int32_t b, const kh_probe *probe)
{
    gradient g = {.inspector = i, .a = a, .b = b};
    KH_TRY(kh_inspector_check_position(i, 0));
    KH_TRY(check_gradient(i));
    sizes s = measure(i);
    kh_status status = open_memory(&g, &s);
    if (status == KH_OK) status = there_and_back(&g, probe);
    close_memory(&g);
    return status;
}
