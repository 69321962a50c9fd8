/* From logits to one id.
 *
 * Order, as in llama.cpp: logit bias, repetition penalty, top-k, top-p, min-p, temperature, draw.
 * Greedy (temperature 0) takes the largest after bias and penalty, the lower id among equals. top-p and
 * min-p work on the softmax of what top-k left, before the temperature.
 *
 * The draw is a pure function of (seed, number of draws so far): the same seed gives the same text on
 * any number of threads. NaN logits are treated as minus infinity, so a damaged model still answers with
 * an id that exists.
 *
 * top-k uses a heap of k over the vocabulary (a full sort only when k is off): V compares, and
 * log k moves for the few that enter. Nothing is allocated after kh_sampler_open. */
#include "gen/sampler.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

kh_sampler_options kh_sampler_defaults(void)
{
    return (kh_sampler_options){.temperature = 0.8f,
                                .top_k = 40,
                                .top_p = 0.95f,
                                .min_p = 0.05f,
                                .repeat_penalty = 1.0f,
                                .repeat_last = 64};
}

uint64_t kh_random_seed(void)
{
    return kh_rng_entropy() & 0xffffffffu; /* short enough to be typed again */
}

static kh_status check(const kh_sampler_options *o, size_t V)
{
    if (!(o->temperature >= 0 && o->temperature < 1e4f))
        KH_FAIL(KH_ERR_ARGUMENT, "temperature: %g is not between 0 and 10000",
                (double)o->temperature);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        KH_FAIL(KH_ERR_ARGUMENT, "top-p: %g is not between 0 and 1", (double)o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        KH_FAIL(KH_ERR_ARGUMENT, "min-p: %g is not between 0 and 1", (double)o->min_p);
    if (o->top_k < 0) KH_FAIL(KH_ERR_ARGUMENT, "top-k: %d is negative", o->top_k);
    if (!(o->repeat_penalty >= 0 && o->repeat_penalty < 1e3f))
        KH_FAIL(KH_ERR_ARGUMENT, "repeat-penalty: %g is not between 0 and 1000",
                (double)o->repeat_penalty);
    for (size_t i = 0; i < o->bias_count; i++)
        if (o->bias[i].id < 0 || (size_t)o->bias[i].id >= V)
            KH_FAIL(KH_ERR_ARGUMENT, "logit-bias: id %d is not between 0 and %zu", o->bias[i].id,
                    V - 1);
    return KH_OK;
}

kh_status kh_sampler_open(kh_sampler *s, const kh_sampler_options *options, const kh_kern *kern,
                          size_t V)
{
    *s = (kh_sampler){.options = *options, .kern = kern, .V = V};
    KH_TRY(check(options, V));
    if (s->options.repeat_last == 0) s->options.repeat_last = 64;
    KH_TRY(kh_new(&s->scratch, V, sizeof *s->scratch, "the sampler"));
    kh_status status = kh_new(&s->candidates, V, sizeof *s->candidates, "the sampler");
    if (status != KH_OK) kh_sampler_close(s);
    return status;
}

void kh_sampler_close(kh_sampler *s)
{
    kh_free(s->candidates);
    kh_free(s->scratch);
    *s = (kh_sampler){0};
}

static int better(kh_candidate a, kh_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static int descending(const void *a, const void *b)
{
    const kh_candidate *x = a, *y = b;
    return better(*x, *y) ? -1 : better(*y, *x) ? 1 : 0;
}

/* Lets the worst of the heap sink from the root; the root is the worst candidate kept. */
static void sink(kh_candidate *heap, size_t n, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && better(heap[child], heap[child + 1])) child++;
        if (better(heap[child], heap[at])) return;
        kh_candidate t = heap[at];
        heap[at] = heap[child];
        heap[child] = t;
        at = child;
    }
}

static kh_candidate candidate(const float *logits, size_t i)
{
    return (kh_candidate){logits[i] == logits[i] ? logits[i] : -INFINITY, (int32_t)i};
}

void kh_largest(kh_candidate *out, size_t n, const float *logits, size_t V)
{
    for (size_t i = 0; i < n; i++) out[i] = candidate(logits, i);
    if (n < V)
        for (size_t i = n; i-- > 0;) sink(out, n, i);
    for (size_t i = n; i < V; i++) {
        kh_candidate c = candidate(logits, i);
        if (!better(c, out[0])) continue;
        out[0] = c;
        sink(out, n, 0);
    }
    qsort(out, n, sizeof *out, descending);
}

double kh_log_sum_exp(const kh_kern *kern, float *scratch, const float *logits, size_t n)
{
    float top = kern->row_max(logits, n);
    double sum = 0;
    enum { PIECE = 4096 }; /* f32 sums stay short, their sum is in double */
    for (size_t i = 0; i < n; i += PIECE)
        sum += (double)kern->exp_sum(scratch, logits + i, n - i < PIECE ? n - i : PIECE, 1.0f, top);
    return (double)top + log(sum);
}

static void penalise(kh_sampler *s, float *logits, const int32_t *recent, size_t count)
{
    float penalty = s->options.repeat_penalty;
    size_t last = (size_t)(s->options.repeat_last < 0 ? (int)count : s->options.repeat_last);
    size_t from = count > last ? count - last : 0;
    /* a token is penalised once, however often it occurred: candidates mark who is waiting for it */
    for (size_t i = from; i < count; i++)
        if ((size_t)recent[i] < s->V) s->candidates[recent[i]].id = -1;
    for (size_t i = from; i < count; i++) {
        if ((size_t)recent[i] >= s->V || s->candidates[recent[i]].id == 0) continue;
        float *x = &logits[recent[i]];
        *x = *x <= 0 ? *x * penalty : *x / penalty;
        s->candidates[recent[i]].id = 0;
    }
}

/* Probabilities of candidates [n] (descending) into scratch; returns their number after top-p and
 * min-p. */
static size_t truncate(kh_sampler *s, size_t n)
{
    const kh_sampler_options *o = &s->options;
    kh_candidate *c = s->candidates;
    double sum = 0, mass = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)c[i].logit - (double)c[0].logit);
    size_t keep = n;
    if (o->top_p > 0 && o->top_p < 1) {
        for (keep = 0; keep < n && mass < (double)o->top_p; keep++)
            mass += exp((double)c[keep].logit - (double)c[0].logit) / sum;
        if (keep == 0) keep = 1;
    }
    if (o->min_p > 0) {
        double least = (double)c[0].logit + log((double)o->min_p);
        while (keep > 1 && (double)c[keep - 1].logit < least) keep--;
    }
    return keep;
}

int32_t kh_sampler_draw(kh_sampler *s, const float *logits, const int32_t *recent, size_t count)
{
    const kh_sampler_options *o = &s->options;
    memcpy(s->scratch, logits, s->V * sizeof *logits);
    s->kept = 1;
    s->mass = 1;
    for (size_t i = 0; i < o->bias_count; i++) s->scratch[o->bias[i].id] += o->bias[i].bias;
    if (o->repeat_penalty > 0 && o->repeat_penalty != 1.0f) penalise(s, s->scratch, recent, count);
    if (o->temperature == 0) {
        kh_largest(s->candidates, 1, s->scratch, s->V);
        return s->candidates[0].id;
    }
    size_t n = o->top_k > 0 && (size_t)o->top_k < s->V ? (size_t)o->top_k : s->V;
    kh_largest(s->candidates, n, s->scratch, s->V);
    if (!isfinite(s->candidates[0].logit)) return s->candidates[0].id;
    n = truncate(s, n);
    double sum = 0, t = (double)o->temperature, top = (double)s->candidates[0].logit;
    for (size_t i = 0; i < n; i++) sum += exp(((double)s->candidates[i].logit - top) / t);
    s->kept = n;
    s->mass = sum;
    kh_rng_key key = {.seed = o->seed, .stream = 0x73616d706c65ull /* "sample" */};
    double left = kh_rng_uniform(key, s->drawn++) * sum;
    for (size_t i = 0; i < n; i++) {
        left -= exp(((double)s->candidates[i].logit - top) / t);
        if (left < 0) return s->candidates[i].id;
    }
    return s->candidates[n - 1].id;
}

double kh_sampler_share(const kh_sampler *s, int32_t id)
{
    const kh_candidate *c = s->candidates;
    size_t i = 0;
    while (i < s->kept && c[i].id != id) i++;
    if (i == s->kept) return 0;
    if (s->kept == 1) return 1;
    return exp(((double)c[i].logit - (double)c[0].logit) / (double)s->options.temperature) /
           s->mass;
}
