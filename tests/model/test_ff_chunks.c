/* Feed-forward layers take the rows of a large pass chunk by chunk: nothing that can be seen tells. A text that is
 * read in one pass of several chunks is compared, bit by bit, with the same in passes of one chunk each: its logits,
 * and what an observer gets at the points of the layer, which are all rows of a pass at once. */
#include "base/alloc.h"
#include "gen/plans.h"
#include "support/family_golden.h"

#include <keyhole/encode.h>
#include <keyhole/points.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum {
    T = 1056 + 48 + 5, /* a tile of a product more than a chunk, and some */
    PASS = 370,
    POINTS = 4
};

static const kh_point points[POINTS] = {KH_POINT_MLP_PRE, KH_POINT_MLP_PRE_LINEAR, KH_POINT_MLP_ACT,
                                        KH_POINT_MLP_OUT};

/* What is seen of the last layer. */
typedef struct watch {
    size_t batch, done[POINTS]; /* rows of a pass; rows seen */
    float *seen[POINTS];        /* [T][width] */
    size_t width[POINTS];
    int layer;
    kh_probe probe;
} watch;

static void at_point(void *context, kh_point point, int layer, float *data, size_t rows,
                     size_t width)
{
    watch *w = context;
    size_t p = 0;
    while (points[p] != point) p++;
    if (layer != w->layer) return;
    size_t left = T - w->done[p];
    assert_int_equal(rows, left < w->batch ? left : w->batch);
    if (!w->seen[p]) w->seen[p] = kh_alloc(T * width * sizeof *data);
    w->width[p] = width;
    memcpy(w->seen[p] + w->done[p] * width, data, rows * width * sizeof *data);
    w->done[p] += rows;
}

static float *run(const kh_model *model, kh_session_options so, const int32_t *ids, size_t batch,
                  watch *w)
{
    so.batch = batch;
    so.context = T;
    so.longer = 1;
    kh_session *session = open_session(model, &so);
    if (w) {
        *w = (watch){.batch = batch, .layer = kh_model_get_info(model)->layers - 1};
        w->probe = (kh_probe){.context = w, .point = at_point};
        for (size_t p = 0; p < POINTS; p++) w->probe.points |= (uint64_t)1 << points[p];
        kh_session_observe(session, &w->probe);
    }
    float *logits = all_logits(model, session, ids, T);
    kh_session_close(session);
    return logits;
}

static void same_seen(watch *one, watch *many)
{
    for (size_t p = 0; p < POINTS; p++) {
        assert_int_equal(one->done[p], many->done[p]);
        if (!one->done[p]) continue;
        assert_int_equal(one->done[p], T);
        assert_memory_equal(one->seen[p], many->seen[p], T * one->width[p] * sizeof(float));
        kh_free(one->seen[p]);
        kh_free(many->seen[p]);
    }
    assert_int_equal(one->done[2], T);
    assert_int_equal(one->done[3], T);
}

static void compare(const char *name, kh_session_options so)
{
    int32_t ids[T];
    kh_model *model = open_tiny(name, ids, T, 99);
    size_t bytes = T * (size_t)kh_model_get_info(model)->vocabulary * sizeof(float);
    watch one, many;
    float *want = run(model, so, ids, PASS, NULL), *got = run(model, so, ids, T, NULL);
    assert_memory_equal(got, want, bytes);
    kh_free(got);
    got = run(model, so, ids, T, &one);
    assert_memory_equal(got, want, bytes);
    kh_free(got);
    got = run(model, so, ids, PASS, &many);
    assert_memory_equal(got, want, bytes);
    same_seen(&one, &many);
    kh_free(got);
    kh_free(want);
    kh_model_close(model);
}

static void chunks_change_nothing(void **state)
{
    (void)state;
    compare("llama", (kh_session_options){.threads = 2, .k_type = KH_CACHE_F32});
    compare("gemma3-q8", (kh_session_options){.threads = 1, .ff = "topk:k=13,rule=g"});
    compare("qwen3-q4",
            (kh_session_options){.threads = 2, .precision = KH_PRECISION_Q8, .ff = "topk:k=13"});
}

enum { TEXTS = 30, LENGTH = 40 }; /* more rows than a chunk */

static const family *find(const char *name)
{
    for (size_t i = 0; i < family_count; i++)
        if (strcmp(families[i].name, name) == 0) return &families[i];
    fail_msg("no family %s", name);
    return NULL;
}

/* Layers with biases, in passes of many texts. */
static void texts_do_not_meet_in_chunks(void **state)
{
    (void)state;
    kh_model *model = open_model(family_path(find("bert-embed")));
    const kh_model_info *info = kh_model_get_info(model);
    size_t D = (size_t)info->width, batches[2] = {TEXTS * LENGTH, LENGTH};
    int32_t ids[TEXTS * LENGTH];
    kh_encoder_text texts[TEXTS];
    float *rows[2];
    for (int i = 0; i < TEXTS * LENGTH; i++) ids[i] = (i * 37 + i / LENGTH) % info->vocabulary;
    for (int i = 0; i < TEXTS; i++)
        texts[i] = (kh_encoder_text){.ids = ids + i * LENGTH, .count = LENGTH};
    for (int i = 0; i < 2; i++) {
        kh_encoder *encoder = NULL;
        kh_encoder_options eo = {.longest = LENGTH, .batch = batches[i], .threads = 2};
        GOOD(kh_encoder_open(&encoder, model, &eo));
        rows[i] = kh_alloc(TEXTS * D * sizeof *rows[i]);
        GOOD(kh_encoder_embed(encoder, rows[i], texts, TEXTS, KH_POOLING_MEAN, 0));
        kh_encoder_close(encoder);
    }
    assert_memory_equal(rows[0], rows[1], TEXTS * D * sizeof *rows[0]);
    kh_free(rows[0]);
    kh_free(rows[1]);
    kh_model_close(model);
}

/* Bytes of a pass of T rows. */
static size_t step_of(const kh_model *m, const kh_attn_plan *plan, size_t rows)
{
    size_t step = 0, scratch = 0;
    kh_kv_shape shape = {.layers = 1,
                         .groups = m->d.G,
                         .k_width = m->d.E,
                         .v_width = m->d.E,
                         .k_type = KH_TYPE_F32,
                         .v_type = KH_TYPE_F32};
    kh_forward_encoder_need(m, plan, &shape, rows, rows, &step, &scratch);
    return step;
}

/* The larger F is, the less could it be hidden: 64 times what the file has. */
static void memory_of_a_long_text_is_that_of_its_rows(void **state)
{
    (void)state;
    kh_model *model = open_model(family_path(find("nomic-bert")));
    kh_attn_plan *plan = NULL;
    GOOD(kh_plans_attn(&plan, model, NULL));
    size_t grown[2], F = (size_t)model->d.F;
    for (int i = 0; i < 2; i++) {
        model->d.F = (int)F * (i ? 64 : 1);
        for (int l = 0; l < model->d.N; l++)
            model->w.stack.blocks[l].down.cols = (size_t)model->d.F;
        grown[i] = step_of(model, plan, 1 << 16) - step_of(model, plan, 1 << 15);
    }
    assert_int_equal(grown[0], grown[1]);
    assert_true(grown[0] > 0);
    kh_attn_plan_free(plan);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_do_not_meet_in_chunks),
        cmocka_unit_test(memory_of_a_long_text_is_that_of_its_rows),
        cmocka_unit_test(chunks_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
