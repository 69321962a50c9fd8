/* Can this file be trusted, and can we be trusted with it?
 *
 *   shapes      every tensor was bound to a slot of its family when the model opened
 *   data        every weight is unpacked once: no NaN, no infinity; a checksum of all tensor bytes
 *   tokenizer   hard strings survive tokenising and back
 *   residual    resid_post of each layer is resid_pre plus what attention and feed-forward added
 *   prefix      the logits of a position do not depend on what follows it
 *   decode      token by token gives the logits of the parallel pass
 *   top-k       a budget as large as the context gives the logits of full attention
 *
 *   sums ...    what inspection stands on (inspect/check.c)
 *
 * All from prefix on compare two ways through our own code, so they run in f32 products, where the only difference left
 * is the order of sums. */
#include "base/alloc.h"
#include "base/fail.h"
#include "gen/engine.h"
#include "ops/unpack.h"

#include <keyhole/eval.h>
#include <keyhole/inspect.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PROBE_TOKENS = 96, TAIL_TOKENS = 8, FEWEST_TOKENS = 2 * TAIL_TOKENS };

typedef struct checks {
    const kh_model *model;
    const kh_verify_options *options;
    int failed;
    int32_t *ids; /* [count]: a text to run */
    size_t count;
    float *rows; /* [PROBE_TOKENS][V]: logits of the parallel pass */
} checks;

static void report(checks *c, const char *name, int passed, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void report(checks *c, const char *name, int passed, const char *format, ...)
{
    char detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    if (passed == 0) c->failed = 1;
    if (c->options->check) c->options->check(c->options->context, name, passed, detail);
}

static void check_shapes(checks *c)
{
    const kh_model_info *i = kh_model_get_info(c->model);
    report(c, "shapes", 1, "%zu tensors, %llu parameters, %d layers of %s",
           kh_model_tensor_count(c->model), (unsigned long long)i->parameters, i->layers,
           i->architecture);
}

static uint64_t checksum(uint64_t hash, const uint8_t *data, size_t size)
{
    for (; size >= 8; size -= 8, data += 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 29;
    }
    for (; size > 0; size--, data++) hash = (hash ^ *data) * 0x100000001B3ull;
    return hash;
}

/* First element of a row that is not finite, or n. */
static size_t first_bad(const float *x, size_t n)
{
    size_t i = 0;
    while (i < n && isfinite(x[i])) i++;
    return i;
}

/* 0 when a value of the tensor is not finite (reported); `row` has room for one row. */
static int tensor_is_finite(checks *c, const kh_tensor *t, float *row)
{
    kh_unpack unpack = kh_unpack_of(kh_kern_get(kh_cpu_isa()), t->type);
    size_t cols = t->dims[0], bytes = kh_type_row_bytes(t->type, cols);
    const uint8_t *data = t->data;
    for (size_t r = 0; r * bytes < t->size; r++, data += bytes) {
        if (unpack.f32)
            unpack.f32(row, data, cols);
        else
            memcpy(row, data, bytes);
        size_t bad = first_bad(row, cols);
        if (bad == cols) continue;
        report(c, "data", 0, "%s: row %zu, element %zu is %g", t->name, r, bad, (double)row[bad]);
        return 0;
    }
    return 1;
}

static kh_status check_data(checks *c)
{
    size_t n = kh_gguf_tensor_count(c->model->file), widest = 1;
    for (size_t t = 0; t < n; t++) {
        size_t cols = kh_gguf_tensor_at(c->model->file, t)->dims[0];
        if (cols > widest) widest = cols;
    }
    float *row = NULL;
    KH_TRY(kh_new(&row, widest, sizeof *row, "a row"));
    uint64_t hash = 0;
    int good = 1;
    for (size_t t = 0; t < n && good; t++) {
        const kh_tensor *tensor = kh_gguf_tensor_at(c->model->file, t);
        hash = checksum(hash, tensor->data, tensor->size);
        good = tensor_is_finite(c, tensor, row);
    }
    kh_free(row);
    if (good)
        report(c, "data", 1, "all weights are finite; checksum %016llx", (unsigned long long)hash);
    return KH_OK;
}

static const char *const hard[] = {
    "Hello, world! It's 3.14159 o'clock.",
    "  leading and trailing  ",
    "tabs\tand\r\nline\n\n\nbreaks",
    "for (int i = 0; i < 10; i++) { x[i] += 0xff; }",
    "\xC3\xA9t\xC3\xA9 na\xC3\xAFve \xE2\x82\xAC\xE2\x80\x94\xE2\x80\xA6",
    "\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C \xED\x95\x9C\xEA\xB5\xAD\xEC\x96\xB4",
    "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 \xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D",
    ("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 "
     "\xF0\x9F\x87\xA9\xF0\x9F\x87\xAA"),
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

static kh_status check_tokenizer(checks *c)
{
    size_t n = sizeof hard / sizeof *hard, bad = n;
    for (size_t i = 0; i < n && bad == n; i++) {
        int32_t *ids = NULL;
        size_t count = 0, size = 0;
        char *text = NULL;
        KH_TRY(kh_model_tokenize(c->model, hard[i], strlen(hard[i]), 0, &ids, &count));
        kh_status status = kh_model_detokenize(c->model, ids, count, 0, &text, &size);
        if (status != KH_OK || size != strlen(hard[i]) || memcmp(text, hard[i], size) != 0) bad = i;
        kh_free_ids(ids);
        kh_free_text(text);
    }
    if (bad < n)
        report(c, "tokenizer", 0, "\"%s\" does not come back", hard[bad]);
    else
        report(c, "tokenizer", 1, "%zu hard strings come back unchanged", n);
    return KH_OK;
}

/* ---- running the model ---- */

/* NaN is worse than any number, and stays. */
static int worse(double gap, double worst)
{
    return worst == worst && !(gap <= worst);
}

typedef struct residual {
    float *pre, *sum; /* [rows][D] */
    double worst;
    int layer;
} residual;

static void add_up(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    residual *r = context;
    size_t n = rows * width;
    if (point == KH_POINT_RESID_PRE) memcpy(r->sum, data, n * sizeof *data);
    if (point == KH_POINT_ATTN_OUT_POST || point == KH_POINT_MLP_OUT_POST)
        for (size_t i = 0; i < n; i++) r->sum[i] += data[i];
    if (point != KH_POINT_RESID_POST) return;
    for (size_t i = 0; i < n; i++) {
        double size = fabs((double)data[i]), gap = fabs((double)data[i] - (double)r->sum[i]);
        if (!worse(gap / (1 + size), r->worst)) continue;
        r->worst = gap / (1 + size);
        r->layer = layer;
    }
}

static kh_status open_session(const checks *c, kh_session **out, const char *attn)
{
    kh_session_options so = c->options->session;
    so.context = c->count;
    so.precision = KH_PRECISION_F32;
    so.attn = attn;
    so.k_type = so.v_type = KH_CACHE_F32;
    return kh_session_open(out, c->model, &so);
}

static kh_status keep_rows(void *context, size_t first, size_t rows, const float *logits)
{
    checks *c = context;
    size_t V = (size_t)c->model->d.V;
    memcpy(c->rows + first * V, logits, rows * V * sizeof *logits);
    return KH_OK;
}

static kh_status check_residual(checks *c, kh_session *session)
{
    residual r = {0};
    size_t n = c->count * (size_t)c->model->d.D;
    KH_TRY(kh_new(&r.sum, n, sizeof *r.sum, "residuals"));
    kh_probe probe = {.context = &r, .point = add_up};
    probe.points = UINT64_C(1) << KH_POINT_RESID_PRE | UINT64_C(1) << KH_POINT_ATTN_OUT_POST |
                   UINT64_C(1) << KH_POINT_MLP_OUT_POST | UINT64_C(1) << KH_POINT_RESID_POST;
    kh_session_observe(session, &probe);
    kh_read_options read = {.logits = keep_rows, .logits_context = c};
    kh_status status = kh_session_read(session, c->ids, c->count, &read);
    kh_session_observe(session, NULL);
    kh_free(r.sum);
    KH_TRY(status);
    report(c, "residual", r.worst < 1e-5, "largest difference %.2g (layer %d)", r.worst, r.layer);
    return KH_OK;
}

/* Largest difference of logits [V] to row `row` of the parallel pass, relative to its spread. */
static double distance(const checks *c, const float *logits, size_t row)
{
    size_t V = (size_t)c->model->d.V;
    const float *want = c->rows + row * V;
    double worst = 0, most = 1e-30;
    for (size_t i = 0; i < V; i++) {
        double gap = fabs((double)logits[i] - (double)want[i]);
        if (worse(gap, worst)) worst = gap;
        if (fabs((double)want[i]) > most) most = fabs((double)want[i]);
    }
    return worst / most;
}

static kh_status check_prefix(checks *c, kh_session *session)
{
    size_t half = c->count / 2;
    KH_TRY(kh_session_rewind(session, 0));
    KH_TRY(kh_session_read(session, c->ids, half, NULL));
    double gap = distance(c, kh_session_logits(session), half - 1);
    report(c, "prefix", gap < 1e-4, "position %zu with and without what follows: %.2g", half - 1,
           gap);
    return KH_OK;
}

static kh_status check_decode(checks *c, kh_session *session)
{
    size_t from = c->count - TAIL_TOKENS;
    double worst = 0;
    KH_TRY(kh_session_rewind(session, 0));
    KH_TRY(kh_session_read(session, c->ids, from, NULL));
    for (size_t i = from; i < c->count; i++) {
        KH_TRY(kh_session_step(session, c->ids + i, 1, KH_PHASE_DECODE, KH_WANT_LAST, NULL));
        double gap = distance(c, kh_session_logits(session), i);
        if (worse(gap, worst)) worst = gap;
    }
    report(c, "decode", worst < 1e-4, "token by token against the parallel pass: %.2g", worst);
    return KH_OK;
}

static kh_status check_topk(checks *c)
{
    char attn[64];
    kh_session *session = NULL;
    snprintf(attn, sizeof attn, "topk:k=%zu", c->count);
    KH_TRY(open_session(c, &session, attn));
    kh_status status = kh_session_read(session, c->ids, c->count, NULL);
    if (status == KH_OK) {
        double gap = distance(c, kh_session_logits(session), c->count - 1);
        report(c, "top-k", gap < 1e-4, "%s against full attention: %.2g", attn, gap);
    }
    kh_session_close(session);
    return status;
}

static kh_status run_model(checks *c)
{
    kh_buf text = {0};
    kh_status status = KH_OK;
    for (size_t i = 0; i < sizeof hard / sizeof *hard && status == KH_OK; i++)
        status = kh_buf_text(&text, hard[i]);
    if (status == KH_OK)
        status = kh_model_tokenize(c->model, text.data, text.size, KH_TEXT_EDGES, &c->ids,
                                   &c->count);
    kh_buf_free(&text);
    KH_TRY(status);
    size_t trained = (size_t)c->model->d.context;
    if (c->count > PROBE_TOKENS) c->count = PROBE_TOKENS;
    if (c->count > trained) c->count = trained;
    if (c->count < FEWEST_TOKENS) {
        report(c, "run", -1, "the probe has %zu tokens, %d are needed to compare passes", c->count,
               FEWEST_TOKENS);
        return KH_OK;
    }
    KH_TRY(kh_new(&c->rows, c->count * (size_t)c->model->d.V, sizeof *c->rows, "logits"));
    kh_session *session = NULL;
    KH_TRY(open_session(c, &session, "full"));
    status = check_residual(c, session);
    if (status == KH_OK) status = check_prefix(c, session);
    if (status == KH_OK) status = check_decode(c, session);
    kh_session_close(session);
    return status == KH_OK ? check_topk(c) : status;
}

static void report_inspection(void *context, const char *name, int passed, const char *detail)
{
    report(context, name, passed, "%s", detail);
}

/* What the debugger stands on, in the same precision as the checks above. */
static kh_status check_inspection(checks *c)
{
    kh_session_options so = c->options->session;
    kh_inspector *inspector = NULL;
    so.precision = KH_PRECISION_F32;
    so.k_type = so.v_type = KH_CACHE_F32;
    so.context = (size_t)c->model->d.context < PROBE_TOKENS ? (size_t)c->model->d.context
                                                            : PROBE_TOKENS;
    KH_TRY(kh_inspector_open(&inspector, c->model, &so));
    kh_status status = kh_inspector_check(inspector, report_inspection, c);
    kh_inspector_close(inspector);
    return status == KH_ERR_CHECK ? KH_OK : status;
}

kh_status kh_verify(const kh_model *model, const kh_verify_options *options)
{
    checks c = {.model = model, .options = options};
    check_shapes(&c);
    kh_status status = check_data(&c);
    if (status == KH_OK) status = check_tokenizer(&c);
    if (status == KH_OK) status = run_model(&c);
    if (status == KH_OK && model->d.structure == KH_DECODER) status = check_inspection(&c);
    kh_free_ids(c.ids);
    kh_free(c.rows);
    KH_TRY(status);
    if (c.failed) KH_FAIL(KH_ERR_CHECK, "%s: a check failed", kh_model_get_info(model)->path);
    return KH_OK;
}
