/* Two readings against each other: a file against itself, against one with a known part changed, two settings of attention,
 * two prompts; distances and KL by brute force from whole runs. */
#include "base/alloc.h"
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

enum { TEXT = 45 };

typedef struct rows {
    size_t n, parted[TEXT + 1];
    kh_diff_row row[TEXT];
} rows;

static kh_status take_row(void *context, const kh_diff_row *row)
{
    rows *r = context;
    assert_int_equal(row->position, r->n);
    r->row[r->n++] = *row;
    return KH_OK;
}

static kh_inspector *look(kh_model *model, const int32_t *ids, size_t n, const char *attn)
{
    kh_session_options options = {.precision = KH_PRECISION_F32,
                                  .k_type = KH_CACHE_F32,
                                  .v_type = KH_CACHE_F32,
                                  .threads = 2,
                                  .attn = attn};
    kh_inspector *inspector = NULL;
    GOOD(kh_inspector_open(&inspector, model, &options));
    GOOD(kh_inspector_set(inspector, ids, n, 0, NULL, 0));
    return inspector;
}

static size_t fill(int32_t *ids, const kh_model *model)
{
    const kh_model_info *info = kh_model_get_info(model);
    size_t n = info->context < TEXT ? (size_t)info->context : TEXT;
    uint32_t state = 31;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (int32_t)((state >> 8) % (uint32_t)info->vocabulary);
    }
    return n;
}

static kh_diff compare(kh_inspector *a, kh_inspector *b, rows *out)
{
    kh_diff diff;
    const kh_diff_options o = {.threshold = 1e-3, .row = take_row, .context = out};
    out->n = 0;
    GOOD(kh_diff_open(&diff, a, b, &o));
    return diff;
}

static void the_same_file(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        static rows r;
        int32_t ids[TEXT];
        if (families[f].task != FAMILY_CAUSAL) continue;
        kh_model *model = open_model(family_path(&families[f]));
        size_t n = fill(ids, model);
        kh_inspector *a = look(model, ids, n, NULL), *b = look(model, ids, n, NULL);
        kh_diff diff = compare(a, b, &r);
        assert_false(diff.parted);
        assert_true(diff.most_kl == 0);
        for (size_t p = 0; p < diff.count; p++)
            assert_true(diff.parts[p].apart == 0 && diff.parts[p].own < 1e-5);
        kh_diff_free(&diff);
        kh_diff_options o = {.threshold = 0};
        assert_int_equal(kh_diff_open(&diff, a, a, &o), KH_ERR_ARGUMENT);
        GOOD(kh_inspector_set(b, ids, n - 1, 0, NULL, 0));
        assert_int_equal(kh_diff_open(&diff, a, b, &o), KH_ERR_ARGUMENT);
        kh_inspector_close(a);
        kh_inspector_close(b);
        kh_model_close(model);
    }
}

/* A file in which one feed-forward layer was halved: it parts the readings, and it alone is off by itself. */
static void a_part_that_was_changed(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "gpt2", "gemma2", "gptneox"};
    for (size_t f = 0; f < family_count; f++) {
        static rows r;
        char path[] = "diff-XXXXXX";
        int32_t ids[TEXT];
        kh_edit edit;
        size_t known = 0, touched = 0;
        while (known < 4 && strcmp(names[known], families[f].name) != 0) known++;
        if (known == 4 || families[f].task != FAMILY_CAUSAL) continue;
        kh_model *model = family_as_gguf(&families[f]), *other = NULL;
        int file = mkstemp(path);
        assert_true(file >= 0);
        close(file);
        size_t n = fill(ids, model);
        GOOD(kh_edit_parse(&edit, model, "1_mlp_out:scale=0.5"));
        GOOD(kh_edits_save(model, &edit, 1, path, &touched));
        GOOD(kh_model_open(&other, path));
        kh_inspector *a = look(model, ids, n, NULL), *b = look(other, ids, n, NULL);
        kh_diff diff = compare(a, b, &r);
        assert_true(diff.parted);
        assert_int_equal(diff.first.position, 0);
        assert_int_equal(diff.first.part.kind, KH_COMPONENT_MLP);
        assert_int_equal(diff.first.part.layer, 1);
        for (size_t p = 0; p < diff.count; p++) {
            int guilty = diff.parts[p].part.kind == KH_COMPONENT_MLP &&
                         diff.parts[p].part.layer == 1;
            assert_true(guilty ? diff.parts[p].own > 1e-2 : diff.parts[p].own < 1e-3);
        }
        /* KL by whole runs */
        kh_session_options options = {
            .precision = KH_PRECISION_F32, .k_type = KH_CACHE_F32, .v_type = KH_CACHE_F32};
        kh_session *s = open_session(model, &options), *t = open_session(other, &options);
        float *x = all_logits(model, s, ids, n), *y = all_logits(other, t, ids, n);
        size_t V = (size_t)kh_model_get_info(model)->vocabulary;
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            double xz = log_sum_exp(x + i * V, V), yz = log_sum_exp(y + i * V, V), kl = 0;
            for (size_t v = 0; v < V; v++)
                kl += exp((double)x[i * V + v] - xz) *
                      ((double)x[i * V + v] - xz - (double)y[i * V + v] + yz);
            assert_true(fabs(kl - r.row[i].kl) < 1e-4);
            sum += kl / (double)n;
        }
        assert_true(fabs(sum - diff.mean_kl) < 1e-4);
        kh_diff_free(&diff);
        kh_free(x);
        kh_free(y);
        kh_session_close(s);
        kh_session_close(t);
        kh_inspector_close(a);
        kh_inspector_close(b);
        kh_model_close(model);
        kh_model_close(other);
        unlink(path);
    }
}

static void settings_and_prompts(void **state)
{
    (void)state;
    static rows r;
    int32_t ids[TEXT], others[TEXT];
    kh_model *model = open_model(family_path(family_named("llama")));
    size_t n = fill(ids, model);
    kh_inspector *a = look(model, ids, n, NULL), *b = look(model, ids, n, "topk:k=4");
    kh_diff diff = compare(a, b, &r);
    assert_true(diff.parted);
    assert_int_equal(diff.first.part.kind, KH_COMPONENT_ATTENTION);
    assert_int_equal(diff.first.part.layer, 0);
    assert_true(diff.first.position >= 4); /* four keys are all that the rows before have */
    for (size_t p = 0; p < diff.count; p++)
        if (diff.parts[p].part.kind != KH_COMPONENT_ATTENTION)
            assert_true(diff.parts[p].own < 1e-5);
    kh_diff_free(&diff);
    memcpy(others, ids, sizeof ids);
    others[9] = (others[9] + 1) % kh_model_get_info(model)->vocabulary;
    kh_inspector *c = look(model, others, n, NULL);
    diff = compare(a, c, &r);
    assert_int_equal(diff.first.position, 9);
    assert_int_equal(diff.first.part.kind, KH_COMPONENT_EMBED);
    for (size_t i = 0; i < 9; i++) assert_true(!r.row[i].parted && r.row[i].kl < 1e-9);
    kh_diff_free(&diff);
    kh_inspector_close(a);
    kh_inspector_close(b);
    kh_inspector_close(c);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_same_file),
                                       cmocka_unit_test(a_part_that_was_changed),
                                       cmocka_unit_test(settings_and_prompts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
