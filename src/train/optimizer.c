/* AdamW and SGD in one pass over memory.
 *
 *     w, g    [parameters]   the caller's; tensors are ranges of them, gaps and frozen tensors are never touched
 *     m, v    [kept]         the moments of tensors that are not frozen, one behind the other
 *     chunks                 at most CHUNK elements of one tensor each; what is handed to threads
 *
 * A step reads the gradient twice. The first pass sums squares, a double for each chunk, and the sums are added in
 * the order of chunks: the norm, and with it clipping, has the same bits for any number of threads. A sum of
 * squares is finite exactly when all elements are, so the same pass finds NaN and infinity before anything is
 * changed. The second pass is one kernel that reads w, g, m, v and writes w, m, v: 28 bytes an element, which is all
 * that a step costs (docs/kernels.md has the rates).
 *
 * Moments in bf16 go through a block of f32 in the nearest cache on their way, so that one kernel serves both.
 * Their rounding is stochastic: a chunk draws 64 bits from the counter-based generator for (step, chunk), 32 seed
 * the hash that dithers m, 32 that of v; another draw serves the weights. No state is carried, so a run that is
 * resumed rounds as one that was not.
 *
 * Formulas are those of PyTorch (torch.optim.AdamW, SGD, clip_grad_norm_), compared in tests/train; the
 * learning rate and its corrections are computed in double and rounded once.
 *
 * Rejected: one kernel for each formula (clip, m, v, update: 80 bytes an element instead of 28); chunks that run
 * across tensors (their rates and decays differ). */
#include "train/optimizer.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/named.h"
#include "kern/step_kern.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK = 16384, BLOCK = 1024 };

typedef struct chunk {
    size_t tensor;
    size_t at;     /* of its first element in w and g */
    size_t moment; /* the same in m and v */
    size_t n;
    double sum; /* of squares of the gradient */
} chunk;

struct kh_optimizer {
    kh_optimizer_options options;
    const kh_pool *pool;
    const kh_kern *kern;
    kh_tensor_spec *tensors;     /* [n] */
    kh_tensor_setting *settings; /* [n] */
    size_t n, kept;
    chunk *chunks; /* [chunk_count] */
    size_t chunk_count;
    char *m, *v; /* [kept] of options.moments; NULL where the kind keeps none */
    size_t bytes;
    kh_tensor_view *views; /* [view_count] */
    size_t view_count;
    char *names;
};

/* What follows the options while a text is read. */
typedef struct reading {
    kh_optimizer_options options;
    double moments, weights; /* indices of `types` */
} reading;

static const char *const type_words[] = {"f32", "bf16", NULL};
static const kh_type types[] = {KH_TYPE_F32, KH_TYPE_BF16};

static const kh_named_value adamw_values[] = {
    {"beta1", KH_NAMED_REAL, offsetof(kh_optimizer_options, beta1), 0.9, 0, 0.9999999, NULL},
    {"beta2", KH_NAMED_REAL, offsetof(kh_optimizer_options, beta2), 0.999, 0, 0.9999999, NULL},
    {"eps", KH_NAMED_REAL, offsetof(kh_optimizer_options, eps), 1e-8, 1e-30, 1, NULL},
    {"decay", KH_NAMED_REAL, offsetof(kh_optimizer_options, decay), 0.01, 0, HUGE_VAL, NULL},
    {"clip", KH_NAMED_REAL, offsetof(kh_optimizer_options, clip), 0, 0, HUGE_VAL, NULL},
    {"moments", KH_NAMED_WORD, offsetof(reading, moments), 0, 0, 0, type_words},
    {"weights", KH_NAMED_WORD, offsetof(reading, weights), 0, 0, 0, type_words},
    {.name = NULL}};
static const kh_named_value sgd_values[] = {
    {"momentum", KH_NAMED_REAL, offsetof(kh_optimizer_options, momentum), 0, 0, 0.9999999, NULL},
    {"decay", KH_NAMED_REAL, offsetof(kh_optimizer_options, decay), 0, 0, HUGE_VAL, NULL},
    {"clip", KH_NAMED_REAL, offsetof(kh_optimizer_options, clip), 0, 0, HUGE_VAL, NULL},
    {"moments", KH_NAMED_WORD, offsetof(reading, moments), 0, 0, 0, type_words},
    {"weights", KH_NAMED_WORD, offsetof(reading, weights), 0, 0, 0, type_words},
    {.name = NULL}};
static const kh_named_form forms[] = {[KH_OPTIMIZER_ADAMW] = {"adamw", adamw_values},
                                      [KH_OPTIMIZER_SGD] = {"sgd", sgd_values},
                                      {.name = NULL}};

kh_status kh_optimizer_parse(kh_optimizer_options *out, const char *text)
{
    int form = 0;
    reading r = {0};
    KH_TRY(kh_named_parse(&form, &r, text, "optimizer", forms));
    *out = r.options;
    out->moments = types[(int)r.moments];
    out->weights = types[(int)r.weights];
    out->kind = (enum kh_optimizer_kind)form;
    return KH_OK;
}

/* ---- opening ---- */

static kh_status check(const kh_optimizer_options *options, const kh_tensor_spec *tensors,
                       const kh_tensor_setting *settings, size_t n, size_t parameters)
{
    size_t end = 0;
    const kh_type stored[] = {options->moments, options->weights};
    for (int i = 0; i < 2; i++)
        if (stored[i] != KH_TYPE_F32 && stored[i] != KH_TYPE_BF16)
            KH_FAIL(KH_ERR_ARGUMENT, "optimizer: %s in %s are not possible (F32, BF16)",
                    i ? "weights" : "moments", kh_type_name(stored[i]));
    for (size_t i = 0; i < n; i++) {
        const kh_tensor_spec *t = &tensors[i];
        if (t->offset < end || t->offset > parameters || t->count > parameters - t->offset)
            KH_FAIL(
                KH_ERR_ARGUMENT,
                "optimizer: tensor '%s' of %zu elements at %zu does not lie between %zu and %zu",
                t->name, t->count, t->offset, end, parameters);
        if (t->rows < 1 || t->cols < 1 || (size_t)t->rows * (size_t)t->cols != t->count)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "optimizer: tensor '%s' is %d x %d, which are not %zu elements", t->name,
                    t->rows, t->cols, t->count);
        if (!(settings[i].rate >= 0 && settings[i].decay >= 0))
            KH_FAIL(KH_ERR_ARGUMENT, "optimizer: tensor '%s' has the rate %g and the decay %g",
                    t->name, settings[i].rate, settings[i].decay);
        end = t->offset + t->count;
    }
    return KH_OK;
}

static kh_status make_chunks(kh_optimizer *o)
{
    size_t room = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->settings[i].rate > 0) room += (o->tensors[i].count + CHUNK - 1) / CHUNK;
    KH_TRY(kh_new(&o->chunks, room ? room : 1, sizeof *o->chunks, "an optimiser"));
    for (size_t i = 0; i < o->n; i++) {
        const kh_tensor_spec *t = &o->tensors[i];
        if (!(o->settings[i].rate > 0)) continue;
        for (size_t at = 0; at < t->count; at += CHUNK) {
            size_t n = t->count - at < CHUNK ? t->count - at : CHUNK;
            o->chunks[o->chunk_count++] =
                (chunk){.tensor = i, .at = t->offset + at, .moment = o->kept + at, .n = n};
        }
        o->kept += t->count;
    }
    return KH_OK;
}

/* The moments of the tensors that have some, m before v, with names of their own. */
static kh_status make_views(kh_optimizer *o)
{
    char *const arrays[] = {o->m, o->v};
    size_t text = 0, element = kh_type_bytes(o->options.moments);
    for (size_t i = 0; i < o->n; i++) text += strlen(o->tensors[i].name) + 3;
    KH_TRY(kh_new(&o->names, 2 * text + 1, 1, "an optimiser"));
    KH_TRY(kh_new(&o->views, 2 * o->n + 1, sizeof *o->views, "an optimiser"));
    char *name = o->names;
    for (int which = 0; which < 2; which++) {
        char *at = arrays[which];
        for (size_t i = 0; at && i < o->n; i++) {
            const kh_tensor_spec *t = &o->tensors[i];
            if (!(o->settings[i].rate > 0)) continue;
            size_t length = strlen(t->name) + 3;
            snprintf(name, length, "%c.%s", "mv"[which], t -> name);
            o->views[o->view_count++] = (kh_tensor_view){name, o->options.moments, t->rows, t->cols,
                                                         at};
            name += length;
            at += t->count * element;
        }
    }
    return KH_OK;
}

static kh_status fill(kh_optimizer *o, const kh_tensor_spec *tensors,
                      const kh_tensor_setting *settings)
{
    size_t n = o->n ? o->n : 1, element = kh_type_bytes(o->options.moments);
    KH_TRY(kh_new(&o->tensors, n, sizeof *tensors, "an optimiser"));
    KH_TRY(kh_new(&o->settings, n, sizeof *settings, "an optimiser"));
    if (o->n) {
        memcpy(o->tensors, tensors, o->n * sizeof *tensors);
        memcpy(o->settings, settings, o->n * sizeof *settings);
    }
    KH_TRY(make_chunks(o));
    int adamw = o->options.kind == KH_OPTIMIZER_ADAMW;
    if (o->kept && (adamw || o->options.momentum > 0)) {
        KH_TRY(kh_new(&o->m, o->kept, element, "the first moments"));
        if (adamw) KH_TRY(kh_new(&o->v, o->kept, element, "the second moments"));
        o->bytes = o->kept * element * (adamw ? 2 : 1);
    }
    return make_views(o);
}

kh_status kh_optimizer_open(kh_optimizer **out, const kh_optimizer_options *options,
                            const kh_tensor_spec *tensors, const kh_tensor_setting *settings,
                            size_t n, size_t parameters, const kh_pool *pool, const kh_kern *kern)
{
    kh_optimizer *o;
    *out = NULL;
    KH_TRY(check(options, tensors, settings, n, parameters));
    KH_TRY(kh_new(&o, 1, sizeof *o, "an optimiser"));
    o->options = *options;
    o->pool = pool;
    o->kern = kern;
    o->n = n;
    kh_status status = fill(o, tensors, settings);
    if (status == KH_OK)
        *out = o;
    else
        kh_optimizer_close(o);
    return status;
}

void kh_optimizer_close(kh_optimizer *o)
{
    if (!o) return;
    kh_free(o->tensors);
    kh_free(o->settings);
    kh_free(o->chunks);
    kh_free(o->m);
    kh_free(o->v);
    kh_free(o->views);
    kh_free(o->names);
    kh_free(o);
}

const kh_tensor_view *kh_optimizer_views(const kh_optimizer *o, size_t *count)
{
    *count = o->view_count;
    return o->views;
}

size_t kh_optimizer_bytes(const kh_optimizer *o)
{
    return o->bytes;
}

/* ---- a step ---- */

typedef struct job {
    kh_optimizer *o;
    float *w;
    const float *g;
    uint64_t step;
    float scale;
    double rate, correct1; /* learning rate; 1 - beta1^step */
    float root;            /* 1 / sqrt(1 - beta2^step) */
} job;

static void sum_chunk(void *context, size_t item, int worker)
{
    const job *j = context;
    chunk *c = &j->o->chunks[item];
    (void)worker;
    c->sum = j->o->kern->squares_sum(j->g + c->at, c->n);
}

/* n elements of chunk `c` from `first` on, whose moments are in f32. */
static void move_block(const job *j, const chunk *c, size_t first, size_t n, float *m, float *v)
{
    const kh_optimizer_options *o = &j->o->options;
    const kh_tensor_setting *set = &j->o->settings[c->tensor];
    double rate = j->rate * set->rate;
    float *w = j->w + c->at + first;
    const float *g = j->g + c->at + first;
    if (o->kind == KH_OPTIMIZER_ADAMW) {
        struct kh_adamw a = {.scale = j->scale,
                             .decay = (float)(1 - rate * set->decay),
                             .rate = (float)(rate / j->correct1),
                             .keep1 = (float)(1 - o->beta1),
                             .beta2 = (float)o->beta2,
                             .keep2 = (float)(1 - o->beta2),
                             .root = j->root,
                             .eps = (float)o->eps};
        j->o->kern->adamw_step(w, m, v, g, &a, n);
    } else if (m || rate > 0) { /* else nothing changes, the sign of a zero included */
        struct kh_sgd s = {j->scale, (float)rate, (float)set->decay, (float)o->momentum};
        j->o->kern->sgd_step(w, m, g, &s, n);
    }
}

static uint64_t draw(const job *j, size_t item, unsigned which)
{
    return kh_rng_bits(j->o->options.key, j->step << 32 | (uint64_t)item << 1 | which);
}

static void move_narrow(const job *j, size_t item)
{
    const chunk *c = &j->o->chunks[item];
    const kh_kern *k = j->o->kern;
    uint16_t *stored[2] = {(uint16_t *)(void *)j->o->m, (uint16_t *)(void *)j->o->v};
    uint64_t bits = draw(j, item, 0);
    uint32_t seed[2] = {(uint32_t)bits, (uint32_t)(bits >> 32)};
    float wide[2][BLOCK];
    for (size_t first = 0; first < c->n; first += BLOCK) {
        size_t n = c->n - first < BLOCK ? c->n - first : BLOCK, at = c->moment + first;
        for (int i = 0; i < 2; i++)
            if (stored[i]) k->unpack_f32_bf16(wide[i], stored[i] + at, n);
        move_block(j, c, first, n, wide[0], wide[1]);
        for (int i = 0; i < 2; i++)
            if (stored[i]) k->bf16_dither(stored[i] + at, wide[i], seed[i] + (uint32_t)first, n);
    }
}

static void round_weights(const job *j, size_t item)
{
    const chunk *c = &j->o->chunks[item];
    const kh_kern *k = j->o->kern;
    uint32_t seed = (uint32_t)draw(j, item, 1);
    uint16_t narrow[BLOCK];
    for (size_t first = 0; first < c->n; first += BLOCK) {
        size_t n = c->n - first < BLOCK ? c->n - first : BLOCK;
        float *w = j->w + c->at + first;
        k->bf16_dither(narrow, w, seed + (uint32_t)first, n);
        k->unpack_f32_bf16(w, narrow, n);
    }
}

static void move_chunk(void *context, size_t item, int worker)
{
    const job *j = context;
    const kh_optimizer *o = j->o;
    const chunk *c = &o->chunks[item];
    (void)worker;
    if (o->options.moments == KH_TYPE_BF16 && o->m)
        move_narrow(j, item);
    else
        move_block(j, c, 0, c->n, o->m ? (float *)(void *)o->m + c->moment : NULL,
                   o->v ? (float *)(void *)o->v + c->moment : NULL);
    if (o->options.weights == KH_TYPE_BF16) round_weights(j, item);
}

/* The sum over all chunks in their order, or the sentence about the first that is not finite. */
static kh_status sum_all(const job *j, double *sum, kh_step_report *report)
{
    const kh_optimizer *o = j->o;
    *sum = 0;
    for (size_t i = 0; i < o->chunk_count; i++) {
        const chunk *c = &o->chunks[i];
        *sum += c->sum;
        if (isfinite(c->sum)) continue;
        const kh_tensor_spec *t = &o->tensors[c->tensor];
        size_t e = c->at;
        while (isfinite(j->g[e])) e++;
        report->bad = t->name;
        report->norm = (double)j->g[e];
        KH_FAIL(KH_ERR_CHECK, "step %llu: the gradient of '%s' is not finite (element %zu is %g)",
                (unsigned long long)j->step, t->name, e - t->offset, (double)j->g[e]);
    }
    return KH_OK;
}

kh_status kh_optimizer_step(kh_optimizer *o, float *w, const float *g, const kh_step *step,
                            kh_step_report *report)
{
    double scale = step->scale != 0 ? step->scale : 1, sum;
    *report = (kh_step_report){.factor = 1};
    if (step->step < 1 || step->step > INT32_MAX)
        KH_FAIL(KH_ERR_ARGUMENT, "optimizer: steps count from 1 to %d, found %llu", INT32_MAX,
                (unsigned long long)step->step);
    if (!(isfinite(step->rate) && step->rate >= 0 && isfinite(scale)))
        KH_FAIL(KH_ERR_ARGUMENT, "optimizer: the learning rate %g and the scale %g at step %llu",
                step->rate, scale, (unsigned long long)step->step);
    job j = {.o = o, .w = w, .g = g, .step = step->step, .rate = step->rate};
    kh_parallel_for(o->pool, o->chunk_count, sum_chunk, &j);
    KH_TRY(sum_all(&j, &sum, report));
    report->norm = sqrt(sum) * fabs(scale);
    if (o->options.clip > 0 && report->norm > o->options.clip)
        report->factor = o->options.clip / (report->norm + 1e-6);
    j.scale = (float)(scale * report->factor);
    if (o->options.kind == KH_OPTIMIZER_ADAMW) {
        j.correct1 = 1 - pow(o->options.beta1, (double)step->step);
        j.root = (float)(1 / sqrt(1 - pow(o->options.beta2, (double)step->step)));
    }
    kh_parallel_for(o->pool, o->chunk_count, move_chunk, &j);
    return KH_OK;
}
