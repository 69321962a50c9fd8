/* Control vectors: files that come back, directions that are what they say, and one steering in two ways, beside a session
 * and as edits, that moves logits as adding the rows by hand does. */
#include "base/alloc.h"
#include "format/gguf.h"
#include "model/network.h"
#include "support/family_golden.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT = 40, PAIRS = 3 };

static kh_session_options plain(void)
{
    return (kh_session_options){.precision = KH_PRECISION_F32,
                                .k_type = KH_CACHE_F32,
                                .v_type = KH_CACHE_F32,
                                .threads = 2};
}

static void fill(int32_t *ids, size_t n, const kh_model *model, uint32_t state)
{
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (int32_t)((state >> 8) % V);
    }
}

typedef struct last_rows {
    float *rows; /* [N][D] of the last row read */
} last_rows;

static void take_last(void *context, kh_point point, int layer, float *data, size_t rows,
                      size_t width)
{
    const last_rows *l = context;
    (void)point;
    memcpy(l->rows + (size_t)layer * width, data + (rows - 1) * width, width * sizeof *data);
}

static kh_control *learn(kh_model *model, kh_ids *with, kh_ids *without, kh_learn how)
{
    kh_session_options options = plain();
    kh_inspector *inspector = NULL;
    kh_control *control = NULL;
    GOOD(kh_inspector_open(&inspector, model, &options));
    GOOD(kh_control_learn(&control, inspector, with, without, PAIRS, how));
    kh_inspector_close(inspector);
    return control;
}

static void learned_directions(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        if (families[f].task != FAMILY_CAUSAL) continue;
        int32_t ids[2][PAIRS][TEXT];
        kh_ids texts[2][PAIRS];
        kh_model *model = open_model(family_path(&families[f]));
        size_t N = (size_t)model->d.N, D = (size_t)model->d.D;
        kh_session_options options = plain();
        kh_session *session = open_session(model, &options);
        float *rows = kh_calloc(N * D, 4), *mean = kh_calloc(N * D, 4),
              *all = kh_calloc(PAIRS * N * D, 4);
        last_rows keep = {rows};
        kh_probe probe = {&keep, UINT64_C(1) << KH_POINT_RESID_POST, take_last, NULL};
        kh_session_observe(session, &probe);
        for (size_t p = 0; p < PAIRS; p++)
            for (int side = 0; side < 2; side++) {
                size_t n = 5 + 2 * p + (size_t)side;
                fill(ids[side][p], n, model, (uint32_t)(17 * p + (size_t)side));
                texts[side][p] = (kh_ids){ids[side][p], n};
                GOOD(kh_session_rewind(session, 0));
                GOOD(kh_session_read(session, ids[side][p], n, NULL));
                float sign = side ? -1.0f : 1.0f;
                for (size_t i = 0; i < N * D; i++) {
                    mean[i] += sign * rows[i] / PAIRS;
                    all[p * N * D + i] += sign * rows[i];
                }
            }
        kh_control *by_mean = learn(model, texts[0], texts[1], KH_LEARN_MEAN),
                   *by_pca = learn(model, texts[0], texts[1], KH_LEARN_PCA);
        assert_null(kh_control_direction(by_mean, 0));
        assert_null(kh_control_direction(by_mean, (int)N));
        for (size_t l = 1; l < N; l++) {
            const float *m = kh_control_direction(by_mean, (int)l),
                        *v = kh_control_direction(by_pca, (int)l);
            assert_true(relative_distance(m, mean + l * D, D) < 1e-4);
            /* an eigenvector: applying the second moment gives it back */
            double norm = 0, along = 0, gap = 0, square = 0;
            double *next = kh_calloc(D, sizeof *next);
            for (size_t p = 0; p < PAIRS; p++) {
                double dot = 0;
                for (size_t i = 0; i < D; i++)
                    dot += (double)all[(p * N + l) * D + i] * (double)v[i];
                for (size_t i = 0; i < D; i++) next[i] += dot * (double)all[(p * N + l) * D + i];
            }
            for (size_t i = 0; i < D; i++) {
                norm += (double)v[i] * (double)v[i];
                along += (double)v[i] * (double)mean[l * D + i];
                square += next[i] * next[i];
            }
            for (size_t i = 0; i < D; i++) gap += fabs(next[i] / sqrt(square) - (double)v[i]);
            assert_true(fabs(norm - 1) < 1e-4);
            assert_true(along > 0);
            assert_true(gap < 1e-2);
            kh_free(next);
        }
        kh_control_close(by_mean);
        kh_control_close(by_pca);
        kh_free(rows);
        kh_free(mean);
        kh_free(all);
        kh_session_close(session);
        kh_model_close(model);
    }
}

/* ---- at work ---- */

typedef struct by_hand {
    const kh_control *control;
    float scale;
    int first, last;
} by_hand;

static void add_by_hand(void *context, kh_point point, int layer, float *data, size_t rows,
                        size_t width)
{
    const by_hand *h = context;
    const float *d = kh_control_direction(h->control, layer);
    (void)point;
    if (!d || layer < h->first || layer > h->last) return;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < width; i++) data[r * width + i] += h->scale * d[i];
}

static kh_status keep_tops(void *context, const kh_lens_cell *cell)
{
    kh_lens_token *to = context;
    memcpy(to + cell->position, cell->top, sizeof *to);
    return KH_OK;
}

static void check_steering(kh_model *model, const kh_control *control, int first, int last)
{
    kh_session_options options = plain();
    int32_t ids[TEXT];
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    kh_session *session = open_session(model, &options);
    kh_steering *steering = NULL;
    kh_inspector *inspector = NULL;
    kh_edit edits[64];
    fill(ids, TEXT, model, 99);
    by_hand hand = {control, 1.5f, first ? first : 1, last ? last : 1000};
    kh_probe probe = {&hand, UINT64_C(1) << KH_POINT_RESID_POST, add_by_hand, NULL};
    float *base = all_logits(model, session, ids, TEXT);
    GOOD(kh_session_rewind(session, 0));
    kh_session_observe(session, &probe);
    float *truth = all_logits(model, session, ids, TEXT);
    GOOD(kh_steering_open(&steering, model));
    GOOD(kh_steering_add(steering, control, 1.0f, first, last));
    GOOD(kh_steering_add(steering, control, 0.5f, first, last));
    GOOD(kh_session_rewind(session, 0));
    kh_session_observe(session, kh_steering_probe(steering));
    float *steered = all_logits(model, session, ids, TEXT);
    assert_true(relative_distance(steered, truth, TEXT * V) < 1e-5);
    assert_true(relative_distance(base, truth, TEXT * V) > 1e-3);
    /* the same as edits */
    kh_lens_token tops[TEXT];
    GOOD(kh_inspector_open(&inspector, model, &options));
    size_t n = kh_steering_edits(steering, edits);
    GOOD(kh_inspector_set(inspector, ids, TEXT, 0, edits, n));
    kh_lens_options o = {
        .top = 1, .first_layer = model->d.N - 1, .layers = 1, .cell = keep_tops, .context = tops};
    GOOD(kh_lens(inspector, &o));
    for (size_t t = 0; t < TEXT; t++)
        assert_true(fabs((double)tops[t].logit - (double)truth[t * V + (size_t)tops[t].id]) < 1e-3);
    /* changed while it is in force: the same edits in the same memory are not the same any more */
    kh_steering_clear(steering);
    GOOD(kh_steering_add(steering, control, -1.0f, first, last));
    hand.scale = -1;
    GOOD(kh_session_rewind(session, 0));
    kh_session_observe(session, &probe);
    kh_free(truth);
    truth = all_logits(model, session, ids, TEXT);
    n = kh_steering_edits(steering, edits);
    GOOD(kh_inspector_set(inspector, ids, TEXT, 0, edits, n));
    GOOD(kh_lens(inspector, &o));
    for (size_t t = 0; t < TEXT; t++)
        assert_true(fabs((double)tops[t].logit - (double)truth[t * V + (size_t)tops[t].id]) < 1e-3);
    kh_inspector_close(inspector);
    kh_steering_close(steering);
    kh_free(base);
    kh_free(truth);
    kh_free(steered);
    kh_session_close(session);
}

static void steering_adds_what_it_says(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        if (families[f].task != FAMILY_CAUSAL) continue;
        kh_model *model = open_model(family_path(&families[f]));
        kh_control *control = NULL;
        const kh_direction token = {.kind = KH_DIRECTION_TOKEN, .token = 5},
                           other = {.kind = KH_DIRECTION_TOKEN, .token = 9};
        GOOD(kh_control_point(&control, model, &token, &other));
        check_steering(model, control, 0, 0);
        check_steering(model, control, 1, 1);
        kh_control_close(control);
        kh_model_close(model);
    }
}

/* ---- files ---- */

static void write_gguf(const char *path, const char *kind, const char *tensor, kh_type type,
                       uint64_t width)
{
    static const float zeros[4096];
    kh_gguf *file = NULL;
    GOOD(kh_gguf_new(&file, path));
    GOOD(kh_gguf_set_string(file, "general.architecture", (kh_slice){kind, strlen(kind)}));
    GOOD(kh_gguf_add_tensor(file, tensor, type, 1, &width, zeros));
    GOOD(kh_gguf_write(file, path));
    kh_gguf_close(file);
}

static void refuse(kh_model *model, const char *path, const char *sentence)
{
    kh_control *control = NULL;
    assert_int_equal(kh_control_open(&control, model, path), KH_ERR_FORMAT);
    assert_null(control);
    if (!strstr(kh_last_error(), sentence)) fail_msg("'%s'", kh_last_error());
}

static void files(void **state)
{
    (void)state;
    char path[] = "control-XXXXXX";
    kh_model *model = open_model(family_path(family_named("llama")));
    kh_control *control = NULL, *back = NULL;
    size_t D = (size_t)model->d.D;
    uint64_t count = 0;
    kh_slice text = {"", 0};
    const kh_direction neuron = {.kind = KH_DIRECTION_NEURON, .layer = 1, .neuron = 3};
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    GOOD(kh_control_point(&control, model, &neuron, NULL));
    GOOD(kh_control_save(control, path));
    GOOD(kh_control_open(&back, model, path));
    for (int l = 1; l < model->d.N; l++)
        assert_memory_equal(kh_control_direction(control, l), kh_control_direction(back, l), D * 4);
    assert_null(kh_control_direction(back, 0));
    /* what llama.cpp looks at */
    kh_gguf *raw = NULL;
    GOOD(kh_gguf_open(&raw, path));
    GOOD(kh_gguf_opt_string(raw, "controlvector.model_hint", &text));
    assert_memory_equal(text.data, "llama", 5);
    GOOD(kh_gguf_u64(raw, "controlvector.layer_count", &count, 1000));
    assert_int_equal(count, model->d.N - 1);
    assert_null(kh_gguf_tensor(raw, "direction.0"));
    assert_non_null(kh_gguf_tensor(raw, "direction.1"));
    kh_gguf_close(raw);
    refuse(model, golden_path("families/llama/config.json"), "");
    write_gguf(path, "controlvector", "direction.0", KH_TYPE_F32, D);
    refuse(model, path, "direction.1");
    write_gguf(path, "controlvector", "direction.1", KH_TYPE_F16, D);
    refuse(model, path, "F32");
    write_gguf(path, "controlvector", "direction.1", KH_TYPE_F32, D + 32);
    refuse(model, path, "expected");
    write_gguf(path, "llama", "direction.1", KH_TYPE_F32, D);
    refuse(model, path, "no control vector");
    unlink(path);
    kh_control_close(control);
    kh_control_close(back);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(learned_directions),
                                       cmocka_unit_test(steering_adds_what_it_says),
                                       cmocka_unit_test(files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
