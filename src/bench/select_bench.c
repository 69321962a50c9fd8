/* Selection alone: what finding the k largest scores of a row costs, without computing them.
 *
 * ROWS rows in turn, as attention meets them: each a little different, warm in the second-level cache or
 * near it. A timed run selects from all of them often enough to last some milliseconds. The adversarial
 * rows are those that defeat a running threshold (ascending scores), a strict comparison (all equal) and
 * a bisection (few different values). */
#include <keyhole/bench.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "bench/arrays.h"
#include "bench/isolate.h"
#include "bench/repeat.h"
#include "cpu/cpu.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS = 16, SCORES_A_RUN = 1 << 22 };

typedef struct rows {
    const kh_bench_select_options *o;
    kh_bench_scores kind;
    size_t n, k, turns;
    float *scores;     /* [ROWS][n] */
    uint32_t *indices; /* [k] */
    float *values;     /* [k] */
} rows;

const char *kh_bench_scores_name(kh_bench_scores scores)
{
    static const char *const names[] = {"gaussian", "heavy", "ascending", "equal", "ties"};
    return (unsigned)scores < KH_BENCH_SCORES_COUNT ? names[scores] : "?";
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void fill(rows *r)
{
    kh_fill_normal(r->scores, ROWS * r->n, r->o->seed, 1, 1);
    for (size_t i = 0; i < ROWS * r->n; i++)
        if (r->kind == KH_BENCH_EQUAL)
            r->scores[i] = 0.5f;
        else if (r->kind == KH_BENCH_HEAVY)
            r->scores[i] = expf(2 * r->scores[i]);
        else if (r->kind == KH_BENCH_TIES)
            r->scores[i] = floorf(4 * fminf(fmaxf(r->scores[i], -2), 1.99f)) / 4;
    for (size_t i = 0; i < ROWS && r->kind == KH_BENCH_ASCENDING; i++)
        qsort(r->scores + i * r->n, r->n, sizeof *r->scores, by_value);
}

static kh_status once(void *context)
{
    rows *r = context;
    size_t count;
    for (size_t turn = 0; turn < r->turns; turn++)
        for (size_t i = 0; i < ROWS; i++)
            KH_TRY(kh_select_topk(r->scores + i * r->n, r->n, r->k, r->indices, r->values, &count));
    return KH_OK;
}

static kh_status open_rows(rows *r)
{
    size_t room = r->k ? r->k : 1;
    KH_TRY(kh_new(&r->scores, ROWS * r->n, sizeof *r->scores, "rows of scores"));
    KH_TRY(kh_new(&r->indices, room, sizeof *r->indices, "the chosen positions"));
    KH_TRY(kh_new(&r->values, room, sizeof *r->values, "the chosen scores"));
    fill(r);
    return KH_OK;
}

static kh_status measure(void *context, void *result)
{
    rows r = *(const rows *)context;
    kh_bench_select_result *out = result;
    *out = (kh_bench_select_result){.scores = r.kind, .length = r.n, .k = r.k};
    r.turns = SCORES_A_RUN / (ROWS * r.n) + 1;
    kh_status status = open_rows(&r);
    uint64_t before = kh_cpu_rss();
    if (status == KH_OK)
        status = kh_repeat(r.o->repeat ? r.o->repeat : 5, once, &r, &out->seconds_min,
                           &out->seconds_median);
    uint64_t peak = kh_cpu_peak_rss();
    out->peak_bytes = peak > before ? peak - before : 0;
    out->seconds_min /= (double)(r.turns * ROWS);
    out->seconds_median /= (double)(r.turns * ROWS);
    out->nanoseconds = out->seconds_min / (double)r.n * 1e9;
    kh_free(r.scores);
    kh_free(r.indices);
    kh_free(r.values);
    return status;
}

kh_status kh_bench_select(const kh_bench_select_options *o,
                          kh_status (*row)(void *context, const kh_bench_select_result *result),
                          void *context)
{
    size_t kinds = o->score_count ? o->score_count : KH_BENCH_SCORES_COUNT;
    for (size_t s = 0; s < kinds; s++)
        for (size_t i = 0; i < o->length_count; i++)
            for (size_t j = 0; j < o->keep_count; j++) {
                kh_bench_select_result result;
                rows r = {.o = o, .n = o->lengths[i], .k = o->keeps[j]};
                r.kind = o->score_count ? o->scores[s] : (kh_bench_scores)s;
                if (r.n < 1) KH_FAIL(KH_ERR_ARGUMENT, "bench select: a row without scores");
                KH_TRY(kh_isolate(o->isolate, measure, &r, &result, sizeof result));
                KH_TRY(row(context, &result));
            }
    return KH_OK;
}
