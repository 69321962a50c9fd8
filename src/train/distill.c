/* Distillation: a teacher beside the student, batch by batch.
 *
 *     teach     the teacher's forward pass, full attention, no tape -> its rows behind the final norm [rows][D]
 *     logits    beside each chunk of the student's: t = W_teacher hidden, [chunk][V], and the loss of each row
 *     layers    distill_layers.c
 *
 * With p = softmax(t / T), q = softmax(s / T) of a row:
 *
 *     loss = T^2 KL(p || q) = T^2 sum p (ln p - ln q)        d loss / d s = T (q - p)
 *
 * (Hinton, Vinyals and Dean, arXiv 1503.02531: T^2 keeps the gradient's size when T changes). A difference of logits
 * is what is summed, so that equal logits have a loss of exactly 0:
 *
 *     KL = sum p (t - s) / T - (max t - max s) / T - ln Z_t + ln Z_s,   Z = sum of exp((x - max) / T)
 *
 * The teacher's rows wait instead of its logits: T x V numbers never exist, at the price of no second pass. Where the
 * teacher is the student the gradient does not go through it: it is a constant. Its weights are those of this step, so
 * the only difference between both is what the student's attention left out.
 *
 * Rejected: the teacher's pass of a chunk at a time (attention would have to be done again for every chunk), its
 * most likely ids alone (a bias that needs a correction). */
#include "train/distill.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/named.h"
#include "gen/plans.h"
#include "kern/attn_kern.h"
#include "train/distill_impl.h"

#include <math.h>
#include <string.h>

/* ---- options */

static const kh_named_value values[] = {
    {"ce", KH_NAMED_REAL, offsetof(kh_distill_options, ce), 1, 0, 1e6, NULL},
    {"kl", KH_NAMED_REAL, offsetof(kh_distill_options, kl), 1, 0, 1e6, NULL},
    {"temperature", KH_NAMED_REAL, offsetof(kh_distill_options, temperature), 1, 1e-2, 1e3, NULL},
    {"map", KH_NAMED_REAL, offsetof(kh_distill_options, map), 0, 0, 1e6, NULL},
    {"relation", KH_NAMED_REAL, offsetof(kh_distill_options, relation), 0, 0, 1e6, NULL},
    {"rows", KH_NAMED_WHOLE, offsetof(kh_distill_options, rows), 64, 2, 1024, NULL},
    {.name = NULL}};

kh_status kh_distill_parse(kh_distill_options *out, const char *text)
{
    static const kh_named_form form = {"distill", values};
    *out = (kh_distill_options){0};
    KH_TRY(kh_named_values(out, *text ? text : NULL, &form, text, "distillation"));
    if (out->kl == 0 && out->map == 0 && out->relation == 0)
        KH_FAIL(KH_ERR_ARGUMENT,
                "distillation '%s': kl, map and relation are 0: nothing is left to learn from the "
                "teacher",
                text);
    return KH_OK;
}

/* ---- opening */

static kh_status check(const kh_distill *d)
{
    const kh_description *s = &d->student->d, *t = &d->teacher->d;
    if (t->structure != KH_DECODER || s->structure != KH_DECODER)
        KH_FAIL(KH_ERR_UNSUPPORTED, "distillation: teacher (%s) and student (%s) are decoders",
                d->teacher->architecture, d->student->architecture);
    if (t->V != s->V)
        KH_FAIL(KH_ERR_ARGUMENT,
                "distillation: the teacher has a vocabulary of %d, the student one of %d", t->V,
                s->V);
    return KH_OK;
}

static kh_kv_shape shape_of(const kh_model *m)
{
    return (kh_kv_shape){.layers = 1,
                         .groups = m->d.G,
                         .k_width = m->d.E,
                         .v_width = m->d.E,
                         .k_type = KH_TYPE_F32,
                         .v_type = KH_TYPE_F32};
}

static kh_status open_distill(kh_distill *d)
{
    size_t rows = d->sizes.rows, D = (size_t)d->teacher->d.D, V = (size_t)d->teacher->d.V;
    size_t items = 3 * (size_t)d->student->d.H;
    kh_kv_shape shape = shape_of(d->teacher);
    KH_TRY(check(d));
    KH_TRY(kh_plans_attn(&d->plan, d->teacher, NULL));
    KH_TRY(kh_kv_pool_open(&d->pages, &shape, rows / KH_PAGE + d->sizes.spans));
    KH_TRY(kh_new(&d->kv, d->sizes.spans, sizeof *d->kv, "a teacher"));
    for (size_t i = 0; i < d->sizes.spans; i++) KH_TRY(kh_kv_open(&d->kv[i], d->pages, rows));
    KH_TRY(kh_new(&d->hidden, rows * D, sizeof *d->hidden, "a teacher's rows"));
    if (d->options.kl > 0)
        KH_TRY(kh_new(&d->logits, d->sizes.chunk * V, sizeof *d->logits, "a teacher's logits"));
    KH_TRY(kh_new(&d->each, d->sizes.chunk > items ? d->sizes.chunk : items, sizeof *d->each,
                  "a chunk of losses"));
    if (d->options.map == 0 && d->options.relation == 0) return KH_OK;
    KH_TRY(kh_distill_check_layers(d));
    return kh_distill_open_layers(d);
}

kh_status kh_distill_open(kh_distill **out, const kh_distill_options *options,
                          const kh_model *student, const kh_model *teacher,
                          const kh_distill_sizes *sizes)
{
    *out = NULL;
    kh_distill *d = NULL;
    KH_TRY(kh_new(&d, 1, sizeof *d, "a teacher"));
    d->options = *options;
    d->student = student;
    d->teacher = teacher;
    d->sizes = *sizes;
    kh_status status = open_distill(d);
    if (status == KH_OK)
        *out = d;
    else
        kh_distill_close(d);
    return status;
}

void kh_distill_close(kh_distill *d)
{
    if (!d) return;
    for (size_t i = 0; d->kv && i < d->sizes.spans; i++) kh_kv_close(d->kv[i]);
    kh_free(d->kv);
    kh_kv_pool_close(d->pages);
    kh_attn_plan_free(d->plan);
    kh_distill_close_layers(d);
    kh_free(d->hidden);
    kh_free(d->logits);
    kh_free(d->each);
    kh_free(d);
}

void kh_distill_need(const kh_distill *d, size_t *step, size_t *scratch)
{
    kh_kv_shape shape = shape_of(d->teacher);
    size_t own = 0, worker = 0, T = d->sizes.rows;
    kh_forward_need(d->teacher, d->plan, &shape, T, T, &own, &worker);
    if (own > *step) *step = own;
    if (worker > *scratch) *scratch = worker;
}

/* ---- a batch */

static kh_status check_positions(const kh_distill *d, const kh_batch *batch)
{
    size_t most = d->teacher->w.positions.rows;
    for (size_t t = 0; d->teacher->w.positions.name && t < batch->n; t++)
        if ((size_t)batch->position[t] >= most)
            KH_FAIL(KH_ERR_CONTEXT,
                    "distillation: row %zu has position %d: the teacher knows %zu positions", t,
                    (int)batch->position[t], most);
    return KH_OK;
}

kh_status kh_distill_teach(kh_distill *d, const kh_run *like, const kh_distill_batch *batch)
{
    const kh_batch *rows = like->batch;
    kh_arena_mark mark = kh_arena_save(like->step);
    kh_run run = *like;
    KH_TRY(check_positions(d, rows));
    d->batch = *batch;
    d->pool = like->pool;
    d->kern = like->kern;
    d->tokens = rows;
    for (size_t i = 0; i < rows->span_count; i++) {
        KH_TRY(kh_kv_rewind(d->kv[i], 0));
        KH_TRY(kh_kv_prepare(d->kv[i], rows->spans[i].rows));
    }
    if (d->drawn) kh_distill_draw(d);
    run.kv_self = d->kv;
    run.attn = d->plan;
    run.ff = NULL;
    run.tape = NULL;
    run.attn_dropout = 0;
    run.watch = d->drawn ? &d->see : NULL;
    kh_logit_sink sink = {.hidden = d->hidden};
    kh_status status = kh_forward(d->teacher, &run, &sink);
    kh_arena_rewind(like->step, mark);
    for (size_t i = 0; i < rows->span_count; i++) KH_TRY(kh_kv_rewind(d->kv[i], 0));
    kh_kv_pool_drop(d->pages);
    return status;
}

typedef struct job {
    const kh_kern *kern;
    float *gradient, *teacher;
    const float *student;
    double *each;
    float cold, factor; /* 1 / T; of q - p */
    size_t V;
} job;

enum { PIECE = 256 };

/* The teacher's logits become exp((t - max) / T). */
static void row_item(void *context, size_t r, int worker)
{
    const job *j = context;
    const float *s = j->student + r * j->V;
    float *t = j->teacher + r * j->V, *d = j->gradient ? j->gradient + r * j->V : NULL;
    float most_t = j->kern->row_max(t, j->V), most_s = j->kern->row_max(s, j->V);
    float shift_t = most_t * j->cold, shift_s = most_s * j->cold, e[PIECE];
    double sum_t = 0, sum_s = 0, gap = 0;
    (void)worker;
    for (size_t i = 0, n; i < j->V; i += n) {
        n = j->V - i < PIECE ? j->V - i : PIECE;
        sum_s += (double)j->kern->exp_sum(e, s + i, n, j->cold, shift_s);
        sum_t += (double)j->kern->exp_sum(e, t + i, n, j->cold, shift_t);
        for (size_t a = 0; a < n; a++)
            if (e[a] > 0) gap += (double)e[a] * ((double)t[i + a] - (double)s[i + a]);
        memcpy(t + i, e, n * sizeof *e);
    }
    j->each[r] = (double)j->cold * gap / sum_t - (double)shift_t + (double)shift_s +
                 log(sum_s / sum_t);
    if (!d) return;
    float of_s = (float)((double)j->factor / sum_s), of_t = (float)((double)j->factor / sum_t);
    for (size_t i = 0, n; i < j->V; i += n) {
        n = j->V - i < PIECE ? j->V - i : PIECE;
        (void)j->kern->exp_sum(e, s + i, n, j->cold, shift_s);
        for (size_t a = 0; a < n; a++) d[i + a] += of_s * e[a] - of_t * t[i + a];
    }
}

kh_status kh_distill_logits(kh_distill *d, kh_run *like, float *gradient, const float *logits,
                            size_t first, size_t rows)
{
    if (d->options.kl == 0) return KH_OK;
    kh_run run = *like;
    size_t D = (size_t)d->teacher->d.D, V = (size_t)d->teacher->d.V;
    double T = d->options.temperature, scale = d->options.kl * T * T;
    run.tape = NULL;
    KH_TRY(kh_forward_logits(d->teacher, &run, d->logits, d->hidden + first * D, rows));
    job j = {.kern = run.kern,
             .gradient = gradient,
             .teacher = d->logits,
             .student = logits,
             .each = d->each,
             .cold = (float)(1 / T),
             .factor = (float)((double)d->batch.weight * d->options.kl * T),
             .V = V};
    kh_parallel_for(run.pool, rows, row_item, &j);
    for (size_t r = 0; r < rows; r++) d->batch.loss->distill += scale * d->each[r];
    return KH_OK;
}

const kh_attn_watch *kh_distill_watch(const kh_distill *d)
{
    return d->drawn ? &d->watch : NULL;
}
