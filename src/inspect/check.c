/* The identities that inspection stands on, proved on the file and under the settings that somebody is using.
 *
 *     sums       probabilities of every cell at the last position sum to 1
 *     lens       the last cell is the distribution that a session gives for the same text
 *     account    every part's share of logit(best) - logit(second) sums to it
 *     edits      under edits that multiply by 1 the last stream is the same to the bit
 *     generated  a text that was generated has the cells that it has when it is read as a whole
 *
 * The first four hold for any setting. The last compares a token decoded with the same token read among others: sums
 * in another order, so a small distance is left; settings that differ for prompts and for decoding make it larger, and
 * then the number is what the difference of those settings does. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/account.h"
#include "inspect/distribution.h"
#include "model/network.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The prompt ends inside a block and the answer in the next: what is looked at last stands on decoded keys. */
enum { NEW = 10, PROMPT = 2 * KH_INSPECT_BLOCK - 4 };
static const char text[] =
    "The old clock on the wall said ten past four, and nobody in the room believed it.";

typedef struct checks {
    kh_inspector *inspector;
    void (*check)(void *context, const char *name, int passed, const char *detail);
    void *context;
    int failed;
    int32_t *ids;
    size_t count;
    kh_distribution d;
    float *streams, *again; /* [N][D] at the last position */
} checks;

static void report(checks *c, const char *name, int passed, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void report(checks *c, const char *name, int passed, const char *format, ...)
{
    char detail[256];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    c->failed |= passed == 0;
    c->check(c->context, name, passed, detail);
}

typedef struct taking {
    float *to; /* [N][D] */
    size_t row;
} taking;

static void last_row(void *context, kh_point point, int layer, float *data, size_t rows,
                     size_t width)
{
    const taking *t = context;
    (void)point;
    memcpy(t->to + (size_t)layer * width, data + (rows - 1) * width, width * sizeof *data);
}

/* The stream behind each layer at the text's last position. */
static kh_status take_streams(checks *c, float *to)
{
    kh_inspector *i = c->inspector;
    taking t = {to, 0};
    kh_probe probe = {&t, UINT64_C(1) << KH_POINT_RESID_POST, last_row, NULL};
    const kh_watch watch = {&probe, NULL, NULL, kh_inspector_reading(i), 0, NULL};
    return kh_inspector_look(i, i->count - 1, 1, &watch);
}

/* Logits of each layer's stream, a product for as many as have room. Calls use() for each. */
static kh_status each_layer(checks *c, const float *streams,
                            void (*use)(checks *c, int layer, const float *logits, double *worst),
                            double *worst)
{
    size_t N = (size_t)c->inspector->model->d.N, D = (size_t)c->inspector->model->d.D;
    size_t V = (size_t)c->inspector->model->d.V;
    for (size_t l = 0, n; l < N; l += n) {
        n = N - l < c->d.rows ? N - l : c->d.rows;
        memcpy(c->d.x, streams + l * D, n * D * sizeof *streams);
        KH_TRY(kh_distribution_run(&c->d, n, 1));
        for (size_t r = 0; r < n; r++) use(c, (int)(l + r), c->d.logits + r * V, worst);
    }
    return KH_OK;
}

static void find_sum(checks *c, int layer, const float *logits, double *worst)
{
    size_t V = (size_t)c->inspector->model->d.V;
    double sum = 0;
    kh_row_measures m = kh_row_measure(c->inspector->run.kern, c->d.spare, logits, V);
    (void)layer;
    for (size_t v = 0; v < V; v++) sum += exp((double)logits[v] - m.log_z);
    if (!(fabs(sum - 1) <= *worst)) *worst = fabs(sum - 1);
}

static kh_status check_sums(checks *c)
{
    double worst = 0;
    KH_TRY(take_streams(c, c->streams));
    KH_TRY(each_layer(c, c->streams, find_sum, &worst));
    report(c, "sums", worst < 1e-5, "probabilities of %d layers sum to 1 within %.1g",
           c->inspector->model->d.N, worst);
    return KH_OK;
}

/* What the model says without anybody looking. */
static kh_status check_lens(checks *c)
{
    kh_inspector *i = c->inspector;
    size_t V = (size_t)i->model->d.V, D = (size_t)i->model->d.D, N = (size_t)i->model->d.N;
    double worst = 0;
    KH_TRY(kh_session_rewind(i->look, 0));
    KH_TRY(kh_session_read(i->look, i->ids, i->count, NULL));
    const float *own = kh_session_logits(i->look);
    memcpy(c->d.x, c->streams + (N - 1) * D, D * sizeof *c->d.x);
    KH_TRY(kh_distribution_run(&c->d, 1, 1));
    kh_row_measures a = kh_row_measure(i->run.kern, c->d.spare, own, V);
    kh_row_measures b = kh_row_measure(i->run.kern, c->d.spare, c->d.logits, V);
    for (size_t v = 0; v < V; v++) {
        double gap = fabs(exp((double)own[v] - a.log_z) - exp((double)c->d.logits[v] - b.log_z));
        if (!(gap <= worst)) worst = gap;
    }
    report(c, "lens", worst < 1e-5, "the last cell is the model's own distribution within %.1g",
           worst);
    return KH_OK;
}

static kh_status check_account(checks *c)
{
    kh_lens_token best[2];
    kh_why why;
    size_t V = (size_t)c->inspector->model->d.V;
    kh_row_top(best, 2, c->d.logits, 0, V); /* of the last stream, as check_lens left it */
    const kh_why_options o = {c->inspector->count - 1, best[0].id, best[1].id, 1};
    KH_TRY(kh_why_open(&why, c->inspector, &o));
    double relative = fabs(why.leftover) / (1 + fabs(why.total));
    report(c, "account", relative < 1e-3,
           "a difference of logits of %.4g, of which %.1g is left over", why.total, why.leftover);
    kh_why_free(&why);
    return KH_OK;
}

static kh_status check_edits(checks *c)
{
    kh_inspector *i = c->inspector;
    size_t bytes = (size_t)i->model->d.N * (size_t)i->model->d.D * sizeof(float);
    kh_edit same[2] = {{.part = {KH_COMPONENT_HEAD, 0, 0, 0},
                        .operation = KH_EDIT_SCALE,
                        .value = 1,
                        .last = KH_EDIT_EVERYWHERE,
                        .last_step = KH_EDIT_EVERYWHERE}};
    same[1] = same[0];
    same[1].part.kind = KH_COMPONENT_MLP;
    KH_TRY(kh_inspector_set(i, c->ids, c->count, 0, same, 2));
    KH_TRY(take_streams(c, c->again));
    KH_TRY(kh_inspector_set(i, c->ids, c->count, 0, NULL, 0));
    int equal = memcmp(c->streams, c->again, bytes) == 0;
    report(c, "edits", equal,
           equal ? "edits that change nothing change no bit"
                 : "an edit that multiplies by 1 changed the last stream");
    return KH_OK;
}

/* The cells of a text's last position, once as generated, once read from the beginning. */
static kh_status check_generated(checks *c)
{
    kh_inspector *i = c->inspector;
    const kh_generate_options options = {.max_tokens = NEW, .ignore_end = 1};
    kh_generate_result result;
    size_t N = (size_t)i->model->d.N, D = (size_t)i->model->d.D;
    double worst = 0, size = 0;
    if (c->count < PROMPT) {
        report(c, "generated", -1, "a context of %zu tokens is too short to tell",
               kh_session_context(i->root));
        return KH_OK;
    }
    KH_TRY(kh_inspector_generate(i, &options, &result));
    KH_TRY(take_streams(c, c->streams));
    KH_TRY(kh_session_rewind(i->read[KH_READING_BASE], 0));
    KH_TRY(take_streams(c, c->again));
    for (size_t n = 0; n < N * D; n++) {
        double gap = fabs((double)c->streams[n] - (double)c->again[n]);
        if (!(gap <= worst)) worst = gap;
        if (fabs((double)c->again[n]) > size) size = fabs((double)c->again[n]);
    }
    report(
        c, "generated", worst <= 1e-3 * size,
        "%zu generated tokens look as they do when they are read, within %.1g of the stream's size",
        result.tokens, size > 0 ? worst / size : worst);
    return KH_OK;
}

/* The sentence, as often as it takes. */
static kh_status make_text(checks *c)
{
    const kh_inspector *i = c->inspector;
    size_t context = kh_session_context(i->root), n = 0;
    size_t want = context >= PROMPT + NEW ? PROMPT : context / 2;
    int32_t *ids = NULL;
    KH_TRY(kh_model_tokenize(i->model, text, sizeof text - 1, KH_TEXT_EDGES, &ids, &n));
    kh_status status = n ? kh_new(&c->ids, want, sizeof *c->ids, "a text")
                         : kh_fail(KH_ERR_FORMAT, "the tokenizer makes nothing of a sentence");
    for (size_t t = 0; status == KH_OK && t < want; t++) c->ids[t] = ids[t % n];
    kh_free_ids(ids);
    c->count = want;
    return status;
}

static kh_status run_all(checks *c)
{
    kh_inspector *i = c->inspector;
    size_t N = (size_t)i->model->d.N, D = (size_t)i->model->d.D;
    KH_TRY(make_text(c));
    KH_TRY(kh_inspector_set(i, c->ids, c->count, 0, NULL, 0));
    KH_TRY(kh_distribution_open(&c->d, i, N, 1));
    KH_TRY(kh_new(&c->streams, N * D, sizeof *c->streams, "streams"));
    KH_TRY(kh_new(&c->again, N * D, sizeof *c->again, "streams"));
    KH_TRY(check_sums(c));
    KH_TRY(check_lens(c));
    KH_TRY(check_account(c));
    KH_TRY(check_edits(c));
    return check_generated(c);
}

kh_status kh_inspector_check(kh_inspector *inspector,
                             void (*check)(void *context, const char *name, int passed,
                                           const char *detail),
                             void *context)
{
    checks c = {.inspector = inspector, .check = check, .context = context};
    atomic_store(&inspector->stop, 0);
    kh_status status = run_all(&c);
    kh_distribution_close(&c.d);
    kh_free(c.streams);
    kh_free(c.again);
    kh_free(c.ids);
    if (status == KH_OK && c.failed) KH_FAIL(KH_ERR_CHECK, "a check of inspection failed");
    return status;
}
