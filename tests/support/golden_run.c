/* Golden files and small runs: what the tests of the model share. A golden is read strictly in order,
 * and running past its end fails the test, so a changed format cannot pass unnoticed. */
#include "support/golden_run.h"

#include "base/alloc.h"
#include "base/file.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *golden_path(const char *name)
{
    static char path[512];
    const char *root = getenv("KH_TEST_DATA");
    snprintf(path, sizeof path, "%s/%s", root ? root : "tests/golden", name);
    return path;
}

void golden_open(golden *g, const char *name, const char *magic)
{
    *g = (golden){0};
    GOOD(kh_file_read(&g->data, &g->size, golden_path(name), 1 << 28));
    assert_memory_equal(golden_take(g, 8, 1), magic, 8);
}

void golden_close(golden *g)
{
    assert_int_equal(g->at, g->size);
    kh_free(g->data);
    *g = (golden){0};
}

const void *golden_take(golden *g, size_t n, size_t size)
{
    assert_true(g->at + n * size <= g->size);
    const void *here = g->data + g->at;
    g->at += n * size;
    return here;
}

uint32_t golden_u32(golden *g)
{
    uint32_t value;
    memcpy(&value, golden_take(g, 1, 4), 4);
    return value;
}

kh_model *open_model(const char *path)
{
    kh_model *model = NULL;
    GOOD(kh_model_open(&model, path));
    return model;
}

kh_model *open_tiny(const char *name, int32_t *ids, size_t n, uint32_t seed)
{
    char file[64];
    snprintf(file, sizeof file, "tiny/%s.gguf", name);
    kh_model *model = open_model(golden_path(file));
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        ids[i] = (int32_t)((seed >> 8) % (uint32_t)kh_model_get_info(model)->vocabulary);
    }
    return model;
}

kh_session *open_session(const kh_model *model, const kh_session_options *options)
{
    kh_session *session = NULL;
    GOOD(kh_session_open(&session, model, options));
    return session;
}

typedef struct keeper {
    float *rows;
    size_t V;
} keeper;

static kh_status keep(void *context, size_t first, size_t rows, const float *logits)
{
    keeper *k = context;
    memcpy(k->rows + first * k->V, logits, rows * k->V * sizeof *logits);
    return KH_OK;
}

float *all_logits(const kh_model *model, kh_session *session, const int32_t *ids, size_t n)
{
    keeper k = {.V = (size_t)kh_model_get_info(model)->vocabulary};
    k.rows = kh_alloc(n * k.V * sizeof *k.rows);
    assert_non_null(k.rows);
    kh_read_options read = {.logits = keep, .logits_context = &k};
    GOOD(kh_session_read(session, ids, n, &read));
    return k.rows;
}

double relative_distance(const float *got, const float *want, size_t n)
{
    double gap = 0, size = 1e-30;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (isnan(d)) return d;
        if (d > gap) gap = d;
        if (fabs((double)want[i]) > size) size = fabs((double)want[i]);
    }
    return gap / size;
}

double log_sum_exp(const float *x, size_t n)
{
    double top = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < n; i++) top = fmax(top, (double)x[i]);
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - top);
    return top + log(sum);
}
