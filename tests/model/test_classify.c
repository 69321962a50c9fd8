/* Heads that tell classes apart: against the formula written out, on models from nothing: every pooling, one text
 * and pairs, with and without layers before the last; texts in one pass or many; a decoder's rows; files that
 * are refused. */
#include "base/alloc.h"
#include "model/network.h"
#include "support/golden_run.h"
#include "train/scratch.h"

#include <keyhole/encode.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { D = 24, V = 40, TEXTS = 150, MOST = 19, C = 5 };

typedef struct kind {
    const char *name;
    kh_scratch_options o;
} kind;

#define SMALL                                                                                      \
    .layers = 2, .width = D, .heads = 2, .ff = 32, .vocabulary = V, .context = 64, .classes = C
static const kind kinds[] = {
    {"mean", {.architecture = "lra", SMALL}},
    {"first, tanh",
     {.architecture = "bert", SMALL, .class_dense = 11, .pooling = KH_SCRATCH_POOL_FIRST}},
    {"last, relu",
     {.architecture = "nomic-bert",
      SMALL,
      .class_dense = 9,
      .class_act = "relu",
      .pooling = KH_SCRATCH_POOL_LAST}},
    {"pairs [a, b]",
     {.architecture = "lra",
      SMALL,
      .towers = 2,
      .class_dense = 16,
      .class_inner = 8,
      .class_act = "relu"}},
    {"pairs [a, b, a b, a - b]", {.architecture = "t5encoder", SMALL, .towers = 4}},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* A model of random weights, biases too. */
static kh_model *model_of(const kh_scratch_options *options)
{
    char path[] = "/tmp/keyhole-classes-XXXXXX";
    kh_gguf *file = NULL;
    kh_scratch_options o = *options;
    o.init.name = "lra";
    GOOD(kh_scratch_open(&file, &o));
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i);
        if (!strstr(t->name, ".bias")) continue;
        float *bias = (float *)(uintptr_t)t->data;
        for (size_t j = 0; j < t->dims[0]; j++) bias[j] = 0.1f * (float)((j * 7 + i) % 5) - 0.2f;
    }
    int handle = mkstemp(path);
    assert_true(handle >= 0);
    close(handle);
    GOOD(kh_gguf_write(file, path));
    kh_gguf_close(file);
    kh_model *m = open_model(path);
    unlink(path);
    return m;
}

typedef struct truth {
    const kh_model *model;
    const kh_encoder_text *texts;
    double pooled[TEXTS][D];
} truth;

static kh_status pool(void *context, size_t text, const float *rows)
{
    truth *t = context;
    size_t n = t->texts[text].count;
    for (size_t c = 0; c < D; c++) {
        double sum = 0;
        for (size_t r = 0; r < n; r++) sum += (double)rows[r * D + c];
        t->pooled[text][c] = t->model->d.pooling == KH_POOLED_MEAN ? sum / (double)n
                             : t->model->d.pooling == KH_POOLED_FIRST
                                 ? (double)rows[c]
                                 : (double)rows[(n - 1) * D + c];
    }
    return KH_OK;
}

/* x [n] -> W x + b, through `act` unless it is the last. */
static size_t layer(const kh_model *m, double *x, size_t n, const char *name, int last)
{
    char key[64];
    double y[4 * D];
    snprintf(key, sizeof key, "%s.weight", name);
    const kh_tensor *w = kh_gguf_tensor(m->file, key);
    snprintf(key, sizeof key, "%s.bias", name);
    const kh_tensor *b = kh_gguf_tensor(m->file, key);
    if (!w) return n;
    assert_non_null(b);
    assert_int_equal(w->dims[0], n);
    for (size_t r = 0; r < w->dims[1]; r++) {
        y[r] = (double)((const float *)b->data)[r];
        for (size_t c = 0; c < n; c++) y[r] += (double)((const float *)w->data)[r * n + c] * x[c];
        if (!last) y[r] = m->d.class_act == KH_CLASS_TANH ? tanh(y[r]) : fmax(y[r], 0);
    }
    memcpy(x, y, w->dims[1] * sizeof *x);
    return (size_t)w->dims[1];
}

static void check_example(const truth *t, size_t example, const kh_scratch_options *o,
                          const float *got)
{
    size_t towers = o->towers > 1 ? 2 : 1, n = D;
    const double *a = t->pooled[example * towers], *b = t->pooled[example * towers + towers - 1];
    double x[4 * D];
    memcpy(x, a, sizeof t->pooled[0]);
    if (towers == 2) {
        memcpy(x + D, b, sizeof t->pooled[0]);
        for (size_t c = 0; c < D; c++) x[2 * D + c] = a[c] * b[c];
        for (size_t c = 0; c < D; c++) x[3 * D + c] = a[c] - b[c];
        n = (size_t)o->towers * D;
    }
    n = layer(t->model, x, n, "cls", 0);
    n = layer(t->model, x, n, "cls.inner", 0);
    assert_int_equal(layer(t->model, x, n, "cls.output", 1), C);
    for (size_t c = 0; c < C; c++)
        if (!(fabs(x[c] - (double)got[c]) < 2e-5))
            fail_msg("example %zu, class %zu: %g instead of %g", example, c, (double)got[c], x[c]);
}

static void follows_the_formula(void **state)
{
    const kind *k = *state;
    static int32_t ids[TEXTS][MOST];
    static kh_encoder_text texts[TEXTS];
    static truth t;
    float logits[TEXTS * C], again[TEXTS * C];
    kh_encoder *encoder = NULL, *other = NULL;
    kh_model *m = model_of(&k->o);
    assert_int_equal(kh_model_get_info(m)->classes, C);
    assert_int_equal(kh_model_get_info(m)->towers, k->o.towers > 1 ? 2 : 1);
    for (size_t i = 0; i < TEXTS; i++) {
        texts[i] = (kh_encoder_text){ids[i], NULL, 1 + i * 5 % MOST};
        for (size_t j = 0; j < MOST; j++) ids[i][j] = (int32_t)((i * 31 + j * 17 + 3) % V);
    }
    t.model = m;
    t.texts = texts;
    kh_encoder_options exact = {.precision = KH_PRECISION_F32, .threads = 1};
    GOOD(kh_encoder_open(&encoder, m, &exact));
    GOOD(kh_encoder_run(encoder, texts, TEXTS, pool, &t));
    GOOD(kh_encoder_classify(encoder, logits, texts, TEXTS));
    size_t examples = TEXTS / (k->o.towers > 1 ? 2 : 1);
    for (size_t i = 0; i < examples; i++) check_example(&t, i, &k->o, logits + i * C);
    exact.threads = 2;
    GOOD(kh_encoder_open(&other, m, &exact));
    GOOD(kh_encoder_classify(other, again, texts, TEXTS));
    assert_memory_equal(again, logits, examples * C * sizeof *logits);
    kh_encoder_close(other);
    exact.batch = 64; /* products of few rows round otherwise */
    exact.longest = 32;
    GOOD(kh_encoder_open(&other, m, &exact));
    GOOD(kh_encoder_classify(other, again, texts, TEXTS));
    assert_true(relative_distance(again, logits, examples * C) < 1e-5);
    if (k->o.towers > 1)
        assert_int_equal(kh_encoder_classify(other, again, texts, 3), KH_ERR_ARGUMENT);
    kh_encoder_close(other);
    kh_encoder_close(encoder);
    kh_model_close(m);
}

static void absent_heads(void **state)
{
    (void)state;
    kh_scratch_options o = {.architecture = "lra", SMALL};
    o.classes = 0;
    kh_model *m = model_of(&o);
    kh_encoder *encoder = NULL;
    int32_t id = 1;
    float logit[C];
    assert_int_equal(kh_model_get_info(m)->classes, 0);
    GOOD(kh_encoder_open(&encoder, m, NULL));
    assert_int_equal(kh_encoder_classify(encoder, logit, &(kh_encoder_text){&id, NULL, 1}, 1),
                     KH_ERR_UNSUPPORTED);
    kh_encoder_close(encoder);
    kh_model_close(m);
}

/* Files whose heads do not fit: without the last layer, without the first, of another width. */
static void heads_that_do_not_fit(void **state)
{
    (void)state;
    static const struct {
        const char *left_out, *says;
        int width; /* of cls.weight's input */
    } all[] = {{"cls.output.weight", "no cls.output.weight", 2 * D},
               {"cls.weight", "no cls.weight", 2 * D},
               {"", "inputs are expected", 3 * D}};
    kh_scratch_options o = {
        .architecture = "lra", SMALL, .towers = 2, .class_dense = 16, .class_inner = 8};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char path[] = "/tmp/keyhole-classes-XXXXXX";
        static const float zeros[3 * D * 16];
        kh_gguf *file = NULL, *other = NULL;
        kh_model *m = NULL;
        GOOD(kh_scratch_open(&file, &o));
        GOOD(kh_gguf_new(&other, "other"));
        for (size_t v = 0; v < kh_gguf_value_count(file); v++)
            GOOD(kh_gguf_set_value(other, kh_gguf_value_at(file, v)));
        for (size_t t = 0; t < kh_gguf_tensor_count(file); t++) {
            const kh_tensor *x = kh_gguf_tensor_at(file, t);
            uint64_t dims[2] = {strcmp(x->name, "cls.weight") == 0 ? (uint64_t)all[i].width
                                                                   : x->dims[0],
                                x->dims[1]};
            const void *data = dims[0] == x->dims[0] ? x->data : zeros;
            if (strcmp(x->name, all[i].left_out) != 0)
                GOOD(kh_gguf_add_tensor(other, x->name, KH_TYPE_F32, x->n_dims, dims, data));
        }
        int handle = mkstemp(path);
        assert_true(handle >= 0);
        close(handle);
        GOOD(kh_gguf_write(other, path));
        assert_int_equal(kh_model_open(&m, path), KH_ERR_FORMAT);
        if (!strstr(kh_last_error(), all[i].says)) fail_msg("%s", kh_last_error());
        unlink(path);
        kh_gguf_close(other);
        kh_gguf_close(file);
    }
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[KINDS + 8] = {{0}};
    size_t n = 0;
    for (size_t i = 0; i < KINDS; i++)
        tests[n++] = (struct CMUnitTest){.name = kinds[i].name,
                                         .test_func = follows_the_formula,
                                         .initial_state = (void *)(uintptr_t)&kinds[i]};
    const struct CMUnitTest others[] = {cmocka_unit_test(absent_heads),
                                        cmocka_unit_test(heads_that_do_not_fit)};
    memcpy(tests + n, others, sizeof others);
    n += sizeof others / sizeof *others;
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("classify", tests, n, NULL, NULL);
}
