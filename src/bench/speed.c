/* Prompt and generation speed, in llama-bench's terms.
 *
 *     pp n @ d   n tokens are read behind d tokens that are in the cache already
 *     tg n @ d   n tokens are decoded one by one behind d
 *
 * Ids are drawn at random (seeded), as llama-bench does: speed does not depend on what is said, except
 * that top-k attention must select among real scores, and those of random text are the harder case. The
 * depth is read once and rewound to; one untimed repetition warms caches and threads. Mean, standard
 * deviation and best of the repetitions are reported, and the share of the best one's time that
 * attention took. */
#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"
#include "bench/isolate.h"
#include "gen/engine.h"

#include <keyhole/bench.h>
#include <math.h>
#include <stdio.h>

typedef struct speed_run {
    const kh_model *model;
    const kh_bench_options *options;
    const char *attn, *ff;
    size_t n, depth;
    int decode;
} speed_run;

typedef struct spent {
    double seconds, attention; /* attention: a part of seconds */
} spent;

static kh_status once(const speed_run *r, kh_session *session, const int32_t *ids, spent *out)
{
    KH_TRY(kh_session_rewind(session, r->depth));
    double start = kh_cpu_seconds(), before = session->engine->attention_seconds;
    if (r->decode)
        for (size_t i = 0; i < r->n; i++)
            KH_TRY(kh_session_step(session, ids + r->depth + i, 1, KH_PHASE_DECODE, KH_WANT_LAST,
                                   NULL));
    else
        KH_TRY(kh_session_read(session, ids + r->depth, r->n, NULL));
    *out = (spent){kh_cpu_seconds() - start, session->engine->attention_seconds - before};
    return KH_OK;
}

static kh_status repeat(const speed_run *r, kh_session *session, const int32_t *ids,
                        kh_bench_result *out)
{
    int times = r->options->repeat ? r->options->repeat : 3;
    double sum = 0, squares = 0;
    spent time;
    KH_TRY(kh_session_read(session, ids, r->depth, NULL));
    /* a long prompt warms itself up: repeating it would double the time for nothing */
    if (r->decode || r->n <= 1024) KH_TRY(once(r, session, ids, &time));
    for (int i = 0; i < times; i++) {
        KH_TRY(once(r, session, ids, &time));
        double rate = (double)r->n / time.seconds;
        sum += rate;
        squares += rate * rate;
        if (rate <= out->best) continue;
        out->best = rate;
        out->attention_share = time.attention / time.seconds;
    }
    double mean = sum / times, variance = squares / times - mean * mean;
    out->tokens_per_second = mean;
    out->deviation = variance > 0 && times > 1 ? sqrt(variance * times / (times - 1)) : 0;
    return KH_OK;
}

static kh_status measure(void *context, void *result)
{
    const speed_run *r = context;
    kh_bench_result *out = result;
    *out = (kh_bench_result){.test = r->decode ? "tg" : "pp", .n = r->n, .depth = r->depth};
    kh_session_options so = r->options->session;
    so.attn = r->attn;
    so.ff = r->ff;
    so.context = r->depth + r->n;
    kh_session *session = NULL;
    int32_t *ids = NULL;
    KH_TRY(kh_new(&ids, so.context, sizeof *ids, "ids"));
    kh_rng_key key = {.seed = 1, .stream = 0x62656e6368ull /* "bench" */};
    uint64_t V = (uint64_t)kh_model_get_info(r->model)->vocabulary;
    for (size_t i = 0; i < so.context; i++) ids[i] = (int32_t)(kh_rng_bits(key, i) % V);
    kh_status status = kh_session_open(&session, r->model, &so);
    if (status == KH_OK) {
        kh_pool_warm(&session->engine->pool);
        snprintf(out->attn, sizeof out->attn, "%s", kh_session_attn(session));
        snprintf(out->ff, sizeof out->ff, "%s", kh_session_ff(session));
        status = repeat(r, session, ids, out);
    }
    out->peak_bytes = kh_cpu_peak_rss();
    kh_session_close(session);
    kh_free(ids);
    return status;
}

typedef struct row_target {
    kh_status (*row)(void *context, const kh_bench_result *result);
    void *context;
} row_target;

static kh_status one_row(speed_run *r, size_t n, int decode, const row_target *target)
{
    if (n == 0) return KH_OK;
    kh_bench_result result;
    r->n = n;
    r->decode = decode;
    KH_TRY(kh_isolate(r->options->isolate, measure, r, &result, sizeof result));
    return target->row(target->context, &result);
}

kh_status kh_bench_speed(const kh_model *model, const kh_bench_options *o,
                         kh_status (*row)(void *context, const kh_bench_result *result),
                         void *context)
{
    static const size_t no_depth[] = {0};
    const size_t *depths = o->depth_count ? o->depths : no_depth;
    size_t depth_count = o->depth_count ? o->depth_count : 1;
    row_target target = {row, context};
    speed_run r = {.model = model, .options = o};
    size_t ff_count = o->ff_count ? o->ff_count : 1;
    for (size_t a = 0; a < o->attn_count * ff_count; a++)
        for (size_t d = 0; d < depth_count; d++) {
            r.attn = o->attns[a / ff_count];
            r.ff = o->ff_count ? o->ffs[a % ff_count] : o->session.ff;
            r.depth = depths[d];
            for (size_t i = 0; i < o->prompt_count; i++)
                KH_TRY(one_row(&r, o->prompts[i], 0, &target));
            for (size_t i = 0; i < o->generate_count; i++)
                KH_TRY(one_row(&r, o->generate[i], 1, &target));
        }
    return KH_OK;
}
