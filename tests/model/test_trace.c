/* Traces: what is in the files is what an observer of a whole run sees; costs are kept; a thousand of them leave nothing
 * behind. */
#include "base/alloc.h"
#include "format/json.h"
#include "format/safetensors.h"
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

enum { TEXT = 40, FIRST = 3, ROWS = 35 };

typedef struct seen {
    kh_point point;
    int layer;
    size_t width, rows, entries;
    float *data; /* [TEXT][width] */
    uint32_t idx[TEXT * TEXT * 64];
    float w[TEXT * TEXT * 64];
    int64_t start[TEXT * 64];
} seen;

static void see(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    seen *s = context;
    if (point != s->point || layer != s->layer) return;
    s->data = kh_realloc(s->data, (s->rows + rows) * width * sizeof *data);
    memcpy(s->data + s->rows * width, data, rows * width * sizeof *data);
    s->rows += rows;
    s->width = width;
}

static void see_row(void *context, const kh_attn_row *row)
{
    seen *s = context;
    if (row->layer != s->layer || row->position < FIRST || row->position >= FIRST + ROWS) return;
    s->start[s->rows++] = (int64_t)s->entries;
    memcpy(s->idx + s->entries, row->keys, row->count * 4);
    memcpy(s->w + s->entries, row->weights, row->count * 4);
    s->entries += row->count;
    s->start[s->rows] = (int64_t)s->entries;
}

static kh_status no_rows(void *context, size_t first, size_t rows, const float *logits)
{
    (void)context, (void)first, (void)rows, (void)logits;
    return KH_OK;
}

static void whole_run(kh_model *model, const int32_t *ids, const char *attn, seen *s)
{
    kh_session_options options = {.precision = KH_PRECISION_F32,
                                  .k_type = KH_CACHE_F32,
                                  .v_type = KH_CACHE_F32,
                                  .threads = 2,
                                  .attn = attn};
    kh_session *session = open_session(model, &options);
    kh_probe probe = {s, UINT64_C(1) << s->point, see, see_row};
    const kh_read_options read = {.logits = no_rows};
    kh_session_observe(session, &probe);
    GOOD(kh_session_read(session, ids, TEXT, &read));
    kh_session_close(session);
}

static kh_inspector *look(kh_model *model, int32_t *ids, const char *attn)
{
    kh_session_options options = {.precision = KH_PRECISION_F32,
                                  .k_type = KH_CACHE_F32,
                                  .v_type = KH_CACHE_F32,
                                  .threads = 2,
                                  .attn = attn};
    kh_inspector *inspector = NULL;
    uint32_t state = 7;
    for (size_t i = 0; i < TEXT; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (int32_t)((state >> 8) % (uint32_t)kh_model_get_info(model)->vocabulary);
    }
    GOOD(kh_inspector_open(&inspector, model, &options));
    GOOD(kh_inspector_set(inspector, ids, TEXT, 0, NULL, 0));
    return inspector;
}

static kh_status trace(kh_inspector *inspector, kh_model *model, const char *names,
                       const char *folder, uint64_t limit, kh_trace_need *need)
{
    kh_trace_point *points = NULL;
    size_t count = 0;
    kh_status status = kh_trace_points_parse(&points, &count, model, names);
    const kh_trace_options o = {
        .points = points, .count = count, .first = FIRST, .rows = ROWS, .limit = limit};
    if (status == KH_OK) status = kh_trace_write(inspector, &o, folder, need);
    kh_trace_points_free(points);
    return status;
}

static void clear_folder(const char *folder)
{
    char path[128];
    snprintf(path, sizeof path, "%s/trace.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/trace.safetensors", folder);
    unlink(path);
    rmdir(folder);
}

/* What the pass has as neighbours (2i, 2i + 1) stands half a head apart in a trace. */
static void put_apart(seen *s, const kh_model_info *info)
{
    size_t E = (size_t)info->head_width, half = E / 2;
    float *head = kh_calloc(E, sizeof *head);
    for (size_t at = 0; at < s->rows * s->width; at += E) {
        memcpy(head, s->data + at, E * sizeof *head);
        for (size_t e = 0; e < E; e++) s->data[at + e % 2 * half + e / 2] = head[e];
    }
    kh_free(head);
}

static void check_point(kh_safetensors *file, kh_model *model, const int32_t *ids, kh_point point,
                        int layer, const char *name)
{
    static seen s;
    s = (seen){.point = point, .layer = layer};
    whole_run(model, ids, NULL, &s);
    if (point == KH_POINT_K && kh_model_get_info(model)->paired)
        put_apart(&s, kh_model_get_info(model));
    const kh_st_tensor *t = kh_safetensors_find(file, name);
    if (!t) fail_msg("%s is missing", name);
    assert_int_equal(t->dims[0], ROWS);
    assert_int_equal(t->size, ROWS * s.width * 4);
    float *got = kh_calloc(ROWS * s.width, 4);
    memcpy(got, t->data, t->size);
    double gap = relative_distance(got, s.data + FIRST * s.width, ROWS * s.width);
    if (!(gap < 1e-5)) fail_msg("%s: %g", name, gap);
    kh_free(got);
    kh_free(s.data);
}

static void traces_are_what_runs_show(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        char folder[] = "trace-XXXXXX", path[64];
        int32_t ids[TEXT];
        kh_trace_need need;
        kh_safetensors *file = NULL;
        json_t *about = NULL;
        if (families[f].task != FAMILY_CAUSAL) continue;
        kh_model *model = open_model(family_path(&families[f]));
        kh_inspector *inspector = look(model, ids, NULL);
        assert_non_null(mkdtemp(folder));
        GOOD(trace(inspector, model,
                   "embeddings, resid_post.1,z,k.0,attn_out_post.0-1,final_norm,logits", folder, 0,
                   &need));
        snprintf(path, sizeof path, "%s/trace.safetensors", folder);
        GOOD(kh_safetensors_open(&file, path));
        check_point(file, model, ids, KH_POINT_EMBEDDINGS, -1, "embeddings");
        check_point(file, model, ids, KH_POINT_RESID_POST, 1, "resid_post.1");
        check_point(file, model, ids, KH_POINT_Z, 0, "z.0");
        check_point(file, model, ids, KH_POINT_Z, 1, "z.1");
        check_point(file, model, ids, KH_POINT_K, 0, "k.0");
        check_point(file, model, ids, KH_POINT_ATTN_OUT_POST, 1, "attn_out_post.1");
        check_point(file, model, ids, KH_POINT_FINAL_NORM, -1, "final_norm");
        check_point(file, model, ids, KH_POINT_LOGITS, -1, "logits");
        assert_true(kh_safetensors_size(file) < need.bytes + 4096);
        kh_safetensors_close(file);
        snprintf(path, sizeof path, "%s/trace.json", folder);
        GOOD(kh_json_read(&about, path, 1 << 20));
        assert_string_equal(json_string_value(json_object_get(about, "schema")), "keyhole-trace-1");
        assert_int_equal(json_array_size(json_object_get(about, "tokens")), TEXT);
        assert_string_equal(
            json_string_value(json_object_get(json_object_get(about, "model"), "identity")),
            kh_model_get_info(model)->identity);
        json_decref(about);
        clear_folder(folder);
        kh_inspector_close(inspector);
        kh_model_close(model);
    }
}

static void sparse_rows(void **state)
{
    (void)state;
    static const char *const settings[] = {NULL, "topk:k=4", "window:recent=6"};
    for (int i = 0; i < 3; i++) {
        static seen s;
        char folder[] = "trace-XXXXXX", path[64];
        int32_t ids[TEXT];
        kh_trace_need need;
        kh_safetensors *file = NULL;
        kh_model *model = open_model(family_path(family_named("llama")));
        kh_inspector *inspector = look(model, ids, settings[i]);
        s = (seen){.point = KH_POINT_ATTN_ROWS, .layer = 1};
        whole_run(model, ids, settings[i], &s);
        assert_non_null(mkdtemp(folder));
        GOOD(trace(inspector, model, "attn_rows.1", folder, 0, &need));
        snprintf(path, sizeof path, "%s/trace.safetensors", folder);
        GOOD(kh_safetensors_open(&file, path));
        const kh_st_tensor *start = kh_safetensors_find(file, "attn_rows.1.start"),
                           *idx = kh_safetensors_find(file, "attn_rows.1.idx"),
                           *w = kh_safetensors_find(file, "attn_rows.1.w");
        assert_int_equal(start->dims[0], s.rows + 1);
        assert_memory_equal(start->data, s.start, start->size);
        assert_int_equal(idx->dims[0], s.entries);
        assert_memory_equal(idx->data, s.idx, idx->size);
        for (size_t e = 0; e < s.entries; e++) {
            float x;
            memcpy(&x, (const char *)w->data + 4 * e, 4);
            assert_true(fabsf(x - s.w[e]) < 1e-5f);
        }
        assert_true(8 * s.entries <= need.bytes);
        if (i) assert_true(need.bytes < 20000); /* the setting bounds it */
        kh_safetensors_close(file);
        clear_folder(folder);
        kh_inspector_close(inspector);
        kh_model_close(model);
    }
}

static void refusals(void **state)
{
    (void)state;
    static const char *const bad[] = {"resid_post.99",
                                      "resid_post.x",
                                      "resid",
                                      "logits.1",
                                      "ln2.hook",
                                      "blocks.0.ln2.hook_normalized",
                                      "kqv_out-0",
                                      "blocks.99.hook_resid_pre",
                                      "",
                                      "z.-1"};
    static const char *const good[] = {"blocks.1.attn.hook_z", "l_out-1", "q.0-", "mlp_act"};
    int32_t ids[TEXT];
    kh_model *model = open_model(family_path(family_named("llama")));
    kh_inspector *inspector = look(model, ids, NULL);
    kh_trace_point *points = NULL;
    size_t count = 0;
    kh_trace_need need;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (kh_trace_points_parse(&points, &count, model, bad[i]) != KH_ERR_ARGUMENT)
            fail_msg("'%s' was read", bad[i]);
        assert_null(points);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        GOOD(kh_trace_points_parse(&points, &count, model, good[i]));
        kh_trace_points_free(points);
    }
    assert_int_equal(trace(inspector, model, "resid_post", "no-such-folder", 1000, &need),
                     KH_ERR_MEMORY);
    assert_true(need.bytes > 1000);
    assert_true(access("no-such-folder", F_OK) != 0);
    assert_int_equal(trace(inspector, model, "cross_z", "no-such-folder", 0, &need),
                     KH_ERR_UNSUPPORTED);
    kh_inspector_close(inspector);
    kh_model_close(model);
}

static long resident(void)
{
    long pages = 0, rest = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (fscanf(file, "%ld %ld", &rest, &pages) != 2) pages = 0;
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static void a_thousand_traces(void **state)
{
    (void)state;
    char folder[] = "trace-XXXXXX";
    int32_t ids[TEXT];
    kh_trace_need need;
    kh_model *model = open_model(family_path(family_named("llama")));
    kh_inspector *inspector = look(model, ids, "topk:k=4");
    assert_non_null(mkdtemp(folder));
    long before = 0;
    for (int i = 0; i < 1000; i++) {
        ids[i % TEXT] = (ids[i % TEXT] + 1) % kh_model_get_info(model)->vocabulary;
        GOOD(kh_inspector_set(inspector, ids, TEXT, 0, NULL, 0));
        GOOD(trace(inspector, model, "resid_post,attn_rows,logits", folder, 0, &need));
        if (i == 99) before = resident();
    }
    /* a sanitizer keeps what was freed for a while; it tells what is lost by itself */
#ifndef __SANITIZE_ADDRESS__
    if (!(resident() < before + before / 50 + (256 << 10)))
        fail_msg("resident memory went from %ld to %ld", before, resident());
#else
    assert_true(before > 0);
#endif
    clear_folder(folder);
    kh_inspector_close(inspector);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(traces_are_what_runs_show),
                                       cmocka_unit_test(sparse_rows), cmocka_unit_test(refusals),
                                       cmocka_unit_test(a_thousand_traces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
