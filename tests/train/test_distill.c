/* Distillation against what sessions show of both models (logits, queries, keys, values, kept keys), its gradients
 * against differences of the loss, and what must be nothing: a teacher that is the student, with every key kept. */
#include "base/alloc.h"
#include "support/family_golden.h"
#include "support/train_case.h"
#include "train/distill.h"
#include "train/pass.h"

#include <keyhole/train.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The same model with other weights. */
static kh_params *teacher_of(const char *name)
{
    kh_params *params = params_named(name);
    for (size_t i = 0; i < params->tensor_count; i++) {
        const kh_tensor_spec *t = &params->tensors[i];
        for (size_t j = 0; j < t->count && !params->frozen[i]; j++)
            params->weights[t->offset + j] *= 1.0f + 0.3f * sinf((float)(7 * j + i));
    }
    return params;
}

typedef struct way {
    const char *distill, *attn;
    kh_params *teacher; /* NULL: the student */
    kh_recompute recompute;
    int threads;
} way;

static kh_pass *open_pass(kh_params *params, const way *how)
{
    kh_pass *pass = NULL;
    kh_distill_options distill;
    GOOD(kh_distill_parse(&distill, how->distill));
    kh_pass_options options = {.rows = SAMPLE_ROWS,
                               .spans = 2,
                               .threads = how->threads ? how->threads : 2,
                               .attn = how->attn,
                               .recompute = how->recompute,
                               .distill = &distill,
                               .teacher = how->teacher ? how->teacher->model : NULL};
    GOOD(kh_pass_open(&pass, params, &options));
    return pass;
}

static double loss_of(kh_pass *pass, const sample *s)
{
    kh_loss loss = {0};
    GOOD(kh_pass_gradient(pass, &s->data, 0, 0, &loss));
    return loss.distill;
}

static float *gradients(kh_params *params, const sample *s, const way *how, double *distill)
{
    kh_loss loss = {0};
    kh_pass *pass = open_pass(params, how);
    kh_params_clear(params);
    GOOD(kh_pass_gradient(pass, &s->data, 1, 0, &loss));
    kh_pass_close(pass);
    float *copy = kh_alloc(params->count * sizeof *copy);
    memcpy(copy, params->gradients, params->count * sizeof *copy);
    if (distill) *distill = loss.distill;
    return copy;
}

static double norm_of(const float *g, size_t n)
{
    double sum = 0;
    for (size_t j = 0; j < n; j++) sum += (double)g[j] * (double)g[j];
    return sqrt(sum);
}

/* ---- gradients ---- */

static void check_tensor(kh_params *params, kh_pass *pass, const sample *s, size_t index,
                         double whole, const char *what)
{
    const kh_tensor_spec *t = &params->tensors[index];
    float *w = params->weights + t->offset, *g = params->gradients + t->offset;
    double norm = norm_of(g, t->count), size = norm_of(w, t->count), at[4];
    if (norm < 2e-3 * whole) return;
    double step = 2e-4 * (size > 0.1 ? size : 0.1);
    static const double places[] = {1, -1, 2, -2};
    float *before = kh_alloc(t->count * sizeof *before),
          *along = kh_alloc(t->count * sizeof *along);
    memcpy(before, w, t->count * sizeof *w);
    memcpy(along, g, t->count * sizeof *g);
    for (int i = 0; i < 4; i++) {
        double a = places[i] * step / norm;
        for (size_t j = 0; j < t->count; j++)
            w[j] = (float)((double)before[j] + a * (double)along[j]);
        at[i] = loss_of(pass, s);
    }
    memcpy(w, before, t->count * sizeof *w);
    kh_free(before);
    kh_free(along);
    double found = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * step);
    if (fabs(found - norm) > 1e-2 * norm + 1e-4 * whole)
        fail_msg("%s of %s: %s: the loss rises by %g along a gradient of norm %g", what,
                 params->model->architecture, t->name, found, norm);
}

static void check_losses(const char *student, const char *like, const char *distill,
                         kh_recompute recompute)
{
    kh_params *params = params_named(student), *teacher = teacher_of(like);
    sample s;
    kh_loss loss = {0};
    make_sample(&s, params->model->d.V, 1);
    way how = {distill, "topk:k=64", teacher, recompute, 1};
    kh_pass *pass = open_pass(params, &how);
    GOOD(kh_pass_gradient(pass, &s.data, 1, 0, &loss));
    assert_true(loss.distill > 1e-3);
    assert_true(fabs(loss_of(pass, &s) / loss.distill - 1) < 1e-6);
    double whole = norm_of(params->gradients, params->count);
    assert_true(whole > 0);
    for (size_t t = 0; t < params->tensor_count; t++)
        if (!params->frozen[t]) check_tensor(params, pass, &s, t, whole, distill);
    kh_pass_close(pass);
    kh_params_close(params);
    kh_params_close(teacher);
}

/* With every key kept, so that no step of a difference changes a choice. */
static void gradients_are_those_of_the_losses(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt2", "llama", "qwen3", "gemma2"};
    static const char *const losses[] = {"ce=0,kl=1", "ce=0,kl=1,temperature=3",
                                         "ce=0,kl=0,relation=1,rows=20", "ce=0,kl=0,map=1,rows=20",
                                         "ce=0,kl=0.5,relation=2,map=3"};
    for (size_t n = 0; n < 4; n++)
        for (size_t i = 0; i < 5; i++)
            check_losses(names[n], names[n], losses[i],
                         i % 2 ? KH_RECOMPUTE_BLOCK : KH_RECOMPUTE_NONE);
}

/* Other widths, another depth, other heads of keys. */
static void teachers_may_have_another_shape(void **state)
{
    (void)state;
    check_losses("llama", "phi3", "ce=0,kl=0,relation=1,map=1", KH_RECOMPUTE_BLOCK);
    check_losses("phi3", "llama", "ce=0,kl=0,relation=1,map=1", KH_RECOMPUTE_BLOCK);
    check_losses("llama", "gpt2", "ce=0,kl=1,map=1", KH_RECOMPUTE_BLOCK);
}

static void an_equal_teacher_has_nothing_to_say(void **state)
{
    (void)state;
    static const char *const losses[] = {"ce=0,kl=1,temperature=2", "ce=0,kl=0,relation=1",
                                         "ce=0,kl=0,map=1"};
    kh_params *params = params_named("llama");
    sample s;
    make_sample(&s, params->model->d.V, 1);
    for (size_t i = 0; i < 3; i++) {
        double none, some;
        way all = {.distill = losses[i], .attn = "topk:k=64"}, few = all;
        few.attn = "topk:k=2";
        float *zero = gradients(params, &s, &all, &none);
        float *other = gradients(params, &s, &few, &some);
        assert_true(fabs(none) < 1e-6 && some > 1e-4);
        assert_true(norm_of(zero, params->count) < 1e-3 * norm_of(other, params->count));
        kh_free(zero);
        kh_free(other);
    }
    kh_params_close(params);
}

/* Nothing flows through a teacher that is the student: a copy of it gives the same bits. */
static void the_teacher_is_a_constant_and_no_bit_depends_on_threads(void **state)
{
    (void)state;
    kh_params *params = params_named("llama"), *copy = params_named("llama");
    sample s;
    make_sample(&s, params->model->d.V, 1);
    way own = {.distill = "kl=1,temperature=2,map=1,relation=1", .attn = "topk:k=3"}, apart = own;
    way alone = own, again = own;
    apart.teacher = copy;
    alone.threads = 1;
    again.recompute = KH_RECOMPUTE_NONE;
    double losses[4];
    float *one = gradients(params, &s, &own, &losses[0]);
    float *two = gradients(params, &s, &apart, &losses[1]);
    float *three = gradients(params, &s, &alone, &losses[2]);
    float *four = gradients(params, &s, &again, &losses[3]);
    assert_memory_equal(one, two, params->count * sizeof *one);
    assert_memory_equal(one, three, params->count * sizeof *one);
    assert_true(losses[0] == losses[1] && losses[0] == losses[2]);
    assert_true(fabs(losses[0] - losses[3]) < 1e-5 * losses[0]);
    for (size_t j = 0; j < params->count; j++)
        assert_true(fabsf(one[j] - four[j]) <= 2e-5f + 2e-4f * fabsf(one[j]));
    kh_free(one);
    kh_free(two);
    kh_free(three);
    kh_free(four);
    kh_params_close(params);
    kh_params_close(copy);
}

/* ---- values ---- */

enum { MOST = 4 * SAMPLE_FIRST * 64, LAYERS = 8 }; /* numbers of a point of a layer */

typedef struct shown {
    float q[LAYERS][MOST], k[LAYERS][MOST], v[LAYERS][MOST];
    size_t width[3]; /* of a row */
    const struct shown *teacher;
    double map; /* sum over rows and heads */
    size_t E;
} shown;

static void see_point(void *context, kh_point point, int layer, float *data, size_t rows,
                      size_t width)
{
    shown *s = context;
    int kind = point == KH_POINT_Q ? 0 : point == KH_POINT_K ? 1 : 2;
    assert_true(layer < LAYERS && rows * width <= MOST);
    memcpy(kind == 0   ? s->q[layer]
           : kind == 1 ? s->k[layer]
                       : s->v[layer],
           data, rows * width * sizeof *data);
    s->width[kind] = width;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void normalise(double *x, size_t n)
{
    double most = x[0], sum = 0;
    for (size_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    for (size_t i = 0; i < n; i++) sum += x[i] = exp(x[i] - most);
    for (size_t i = 0; i < n; i++) x[i] /= sum;
}

static double divergence(const double *p, const double *w, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        if (p[i] > 0) sum += p[i] * log(p[i] / w[i]);
    return sum;
}

/* gpt2: no rotation, as many key heads as heads, so that the points are what attention reads. */
static void see_row(void *context, const kh_attn_row *row)
{
    shown *s = context;
    const shown *t = s->teacher;
    double p[SAMPLE_FIRST], w[SAMPLE_FIRST];
    size_t at = (size_t)row->head * s->E;
    const float *q = t->q[row->layer] + row->row * t->width[0] + at;
    for (size_t j = 0; j < row->count; j++) {
        p[j] = dot(q, t->k[row->layer] + row->keys[j] * t->width[1] + at, s->E) /
               sqrt((double)s->E);
        w[j] = (double)row->weights[j];
    }
    normalise(p, row->count);
    s->map += divergence(p, w, row->count);
}

/* Of layer `at` of the student and `beside` of the teacher. */
static double relation_of(const shown *s, int at_layer, const shown *t, int beside, size_t n)
{
    const float *const a[] = {s->q[at_layer], s->k[at_layer], s->v[at_layer]};
    const float *const b[] = {t->q[beside], t->k[beside], t->v[beside]};
    double sum = 0, p[SAMPLE_FIRST], w[SAMPLE_FIRST];
    for (int kind = 0; kind < 3; kind++)
        for (size_t h = 0; h < s->width[kind] / s->E; h++)
            for (size_t i = 0; i < n; i++) {
                size_t width = s->width[kind], at = h * s->E;
                for (size_t j = 0; j < n; j++) {
                    double by = 1 / sqrt((double)s->E);
                    w[j] = by * dot(a[kind] + i * width + at, a[kind] + j * width + at, s->E);
                    p[j] = by * dot(b[kind] + i * width + at, b[kind] + j * width + at, s->E);
                }
                normalise(p, n);
                normalise(w, n);
                sum += divergence(p, w, n);
            }
    return sum;
}

typedef struct truth {
    double kl, map, relation;
    double shallow; /* relations to a teacher of two layers: 0, 0 and 1 */
} truth;

static double kl_of(const float *t, const float *s, size_t V, double temperature)
{
    double *p = kh_alloc(V * sizeof *p), *w = kh_alloc(V * sizeof *w);
    for (size_t i = 0; i < V; i++) {
        p[i] = (double)t[i] / temperature;
        w[i] = (double)s[i] / temperature;
    }
    normalise(p, V);
    normalise(w, V);
    double loss = temperature * temperature * divergence(p, w, V);
    kh_free(p);
    kh_free(w);
    return loss;
}

static void add_truth(truth *out, const kh_model *model, const sample *s, int span,
                      const char *attn)
{
    static shown full, kept;
    const kh_span *rows = &s->spans[span];
    size_t V = (size_t)model->d.V, n = rows->rows;
    kh_session_options options = {.k_type = KH_CACHE_F32, .v_type = KH_CACHE_F32};
    uint64_t points = 1ull << KH_POINT_Q | 1ull << KH_POINT_K | 1ull << KH_POINT_VALUE;
    full = kept = (shown){.E = (size_t)model->d.E, .teacher = &full};
    kh_probe of_full = {.context = &full, .points = points, .point = see_point};
    kh_probe of_kept = {&kept, points | 1ull << KH_POINT_ATTN_ROWS, see_point, see_row};
    kh_session *one = open_session(model, &options);
    options.attn = attn;
    kh_session *two = open_session(model, &options);
    kh_session_observe(one, &of_full);
    kh_session_observe(two, &of_kept);
    float *teacher = all_logits(model, one, s->tokens + rows->row, n);
    float *student = all_logits(model, two, s->tokens + rows->row, n);
    for (size_t t = 0; t < n; t++)
        if (s->targets[rows->row + t] >= 0)
            out->kl += kl_of(teacher + t * V, student + t * V, V, 2);
    assert_int_equal(model->d.N, 3);
    for (int l = 0; l < 3; l++) {
        out->relation += relation_of(&kept, l, &full, l, n);
        out->shallow += relation_of(&kept, l, &full, l == 2, n);
    }
    out->map += kept.map;
    kh_session_close(one);
    kh_session_close(two);
    kh_free(teacher);
    kh_free(student);
}

static void losses_are_what_sessions_show(void **state)
{
    (void)state;
    static const char attn[] = "topk:k=4";
    kh_model *model = open_model(family_path(family_named("gpt2")));
    kh_params *params = params_named("gpt2");
    sample s;
    truth sum = {0};
    make_sample(&s, params->model->d.V, 1);
    add_truth(&sum, model, &s, 0, attn);
    add_truth(&sum, model, &s, 1, attn);
    double layers = params->model->d.N, heads = params->model->d.H;
    double wanted = (double)s.data.batch.logit_count,
           rows = wanted / (layers * heads * SAMPLE_ROWS);
    const double truths[] = {sum.kl, rows * sum.map, rows / 3 * sum.relation,
                             rows / 3 * sum.shallow};
    static const char *const texts[] = {"kl=1,temperature=2", "kl=0,map=1,rows=100",
                                        "kl=0,relation=1,rows=37", "kl=0,relation=1,rows=37"};
    kh_params *shallow = params_named("gpt2");
    shallow->model->d.N = shallow->model->w.stack.N = 2;
    for (int i = 0; i < 4; i++) {
        way how = {.distill = texts[i], .attn = attn, .teacher = i == 3 ? shallow : NULL};
        kh_pass *pass = open_pass(params, &how);
        double found = loss_of(pass, &s);
        assert_true(truths[i] > 1e-3);
        if (fabs(found - truths[i]) > 1e-3 * truths[i])
            fail_msg("%s: a loss of %.9g, sessions show %.9g", texts[i], found, truths[i]);
        kh_pass_close(pass);
    }
    kh_params_close(shallow);
    kh_params_close(params);
    kh_model_close(model);
}

/* ---- runs ---- */

static void a_student_comes_nearer(void **state)
{
    (void)state;
    kh_model *model = open_model(family_path(family_named("llama")));
    kh_trainer *trainer = NULL;
    char text[512];
    snprintf(text, sizeof text, "%s", golden_path("README.md"));
    const char *const paths[] = {text};
    kh_train_options options = {.model = model,
                                .paths = paths,
                                .path_count = 1,
                                .length = 48,
                                .batch = 4,
                                .steps = 40,
                                .rate = 3e-3,
                                .attn = "topk:k=2",
                                .distill = "ce=0,kl=1"};
    GOOD(kh_trainer_open(&trainer, &options));
    double first = 0, last = 0;
    for (int i = 0; i < 40; i++) {
        kh_train_report step;
        GOOD(kh_trainer_step(trainer, &step));
        if (i < 5) first += step.distill;
        if (i >= 35) last += step.distill;
    }
    if (!(last < 0.8 * first)) fail_msg("from %g to %g", first, last);
    kh_trainer_close(trainer);
    kh_model_close(model);
}

static void refused(kh_params *params, const kh_pass_options *given, const char *distill,
                    const char *words)
{
    kh_distill_options options;
    kh_pass *pass = NULL;
    kh_pass_options pass_options = *given;
    GOOD(kh_distill_parse(&options, distill));
    pass_options.distill = &options;
    pass_options.rows = SAMPLE_ROWS;
    pass_options.spans = 2;
    assert_int_not_equal(kh_pass_open(&pass, params, &pass_options), KH_OK);
    assert_null(pass);
    if (!strstr(kh_last_error(), words)) fail_msg("'%s' is not in: %s", words, kh_last_error());
}

static void mistakes_are_sentences(void **state)
{
    (void)state;
    kh_distill_options o;
    GOOD(kh_distill_parse(&o, "temperature=2"));
    assert_true(o.ce == 1 && o.kl == 1 && o.temperature == 2 && o.map == 0 && o.rows == 64);
    assert_int_equal(kh_distill_parse(&o, "kl=0"), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "nothing is left to learn"));
    assert_int_equal(kh_distill_parse(&o, "heat=2"), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "heat"));
    assert_int_equal(kh_distill_parse(&o, "temperature=0"), KH_ERR_ARGUMENT);
    kh_params *gpt2 = params_named("gpt2"), *llama = params_named("llama"),
              *bert = params_named("bert");
    refused(llama, &(kh_pass_options){.layer_causal = 1}, "kl=1", "layer-causal");
    refused(llama, &(kh_pass_options){.attn = "full"}, "map=1", "lists of keys");
    refused(bert, &(kh_pass_options){.attn = "full"}, "kl=1", "decoders");
    refused(llama, &(kh_pass_options){.teacher = bert->model}, "kl=1", "decoders");
    refused(llama, &(kh_pass_options){.attn = "topk:k=4", .teacher = gpt2->model}, "relation=1",
            "head by head");
    sample s;
    kh_loss loss = {0};
    make_sample(&s, llama->model->d.V, 1);
    way how = {.distill = "kl=1", .teacher = gpt2};
    kh_pass *pass = open_pass(llama, &how);
    gpt2->model->w.positions.rows = SAMPLE_FIRST - 1;
    assert_int_equal(kh_pass_gradient(pass, &s.data, 1, 0, &loss), KH_ERR_CONTEXT);
    kh_pass_close(pass);
    kh_trainer *trainer = NULL;
    kh_train_options options = {
        .arch = "gpt2:layers=1,width=32,heads=1", .task = "mqar:L=32,pairs=2", .teacher = "x"};
    assert_int_equal(kh_trainer_open(&trainer, &options), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "without a loss"));
    kh_params_close(gpt2);
    kh_params_close(llama);
    kh_params_close(bert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_sentences),
        cmocka_unit_test(losses_are_what_sessions_show),
        cmocka_unit_test(gradients_are_those_of_the_losses),
        cmocka_unit_test(teachers_may_have_another_shape),
        cmocka_unit_test(an_equal_teacher_has_nothing_to_say),
        cmocka_unit_test(the_teacher_is_a_constant_and_no_bit_depends_on_threads),
        cmocka_unit_test(a_student_comes_nearer),
    };
    return cmocka_run_group_tests_name("distill", tests, NULL, NULL);
}
