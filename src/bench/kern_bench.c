/* What one call of every kernel costs, expanded from the list.
 *
 * A kernel's line below says how it is called and how many bytes and operations that is; a kernel
 * without a line does not compile. Calls have the shapes of the demo model (rows of 576 and 1,536,
 * heads of 64, pages of 64 keys). Weights and the rows of gathers are walked through 64 MiB, so they
 * come from memory as they do when a model decodes; everything else stays in the nearest cache.
 *
 * Time is the best of five runs of at least 2 ms each: the least disturbed one. Activations that are
 * overwritten in place are copied anew before each call, which is part of the time. */
#include <keyhole/bench.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "kern/attn_kern.h"
#include "kern/grad_kern.h"
#include "kern/kern.h"
#include "kern/panel.h"
#include "kern/shadow_kern.h"
#include "kern/step_kern.h"
#include "tensor/types.h"

#include <string.h>

enum {
    N = 576,        /* width of a row */
    WIDE = 1536,    /* a long row: elementwise, sorting out */
    ROWS = 32,      /* rows of a decode item */
    T = 128,        /* rows of a prompt */
    E = 64,         /* width of a head */
    KEYS = KH_PAGE, /* keys of a page */
    QUERIES = 16,   /* rows of scores */
    GATHER = 128,   /* kept keys */
    SCORES = 512    /* keys of a row of scores */
};
#define STREAM ((size_t)64 << 20)

typedef struct space {
    char *stream; /* [STREAM], random blocks with tame scales */
    size_t at;
    float x[T * N], y[T * WIDE], z[T * WIDE], angle[E];
    int8_t q[T * N];
    float d[T * N / 32], s[T * N / 16];
    _Alignas(64) char panel[3][N / 32 * 768]; /* 4, 6, 8 bits */
    int8_t wq[16 * N];
    float wd[16 * N / 16], wm[16 * N / 16];
    _Alignas(64) float page[KEYS * E];
    float scores[QUERIES * SCORES];
    float values[QUERIES * (SCORES + 16)], m[QUERIES], u[QUERIES], alpha[QUERIES];
    uint32_t indices[QUERIES * (SCORES + 16)], counts[QUERIES];
    float thresholds[QUERIES];
    const void *rows[GATHER];
    const char *pages[GATHER];
    uint32_t listed[8 * QUERIES], begin[QUERIES + 1]; /* of `page`'s rows */
    volatile float sink;
    size_t ties;
} space;

/* The next `bytes` of the stream. */
static char *next(space *p, size_t bytes)
{
    if (p->at + bytes > STREAM) p->at = 0;
    char *from = p->stream + p->at;
    p->at += (bytes + 63) / 64 * 64;
    return from;
}

static void spread_rows(space *p, size_t bytes)
{
    for (size_t i = 0; i < GATHER; i++) p->rows[i] = next(p, 17 * bytes);
}

/* The first row of as many pages. */
static void spread_pages(space *p, size_t bytes)
{
    for (size_t i = 0; i < GATHER; i++) {
        p->pages[i] = next(p, 17 * bytes);
        p->indices[i] = (uint32_t)(i * KH_PAGE);
    }
}

/* BENCH(name, bytes, operations, call): `k` is the table, `p` the space. */
#define BENCH(name, size, work, ...)                                                               \
    static void call_##name(const kh_kern *k, space *p)                                            \
    {                                                                                              \
        __VA_ARGS__;                                                                               \
    }                                                                                              \
    static const double size_##name = (double)(size), work_##name = (double)(work);

/* ---- unpacking ---- */
#define UNPACK_F32(name, block, bytes)                                                             \
    BENCH(unpack_f32_##name, 768.0 / block * bytes + 768 * 4, 0,                                   \
          k->unpack_f32_##name(p->y, next(p, 768 / block * bytes), 768))
#define UNPACK(name, block, bytes)                                                                 \
    UNPACK_F32(name, block, bytes)                                                                 \
    BENCH(unpack_q8_##name, 768.0 / block * bytes + 768 + 768 / 2, 0,                              \
          k->unpack_q8_##name(p->wq, p->wd, p->wm, next(p, 768 / block * bytes), 768))
UNPACK_F32(f16, 1, 2)
UNPACK_F32(bf16, 1, 2)
UNPACK(q4_0, 32, 18)
UNPACK(q4_1, 32, 20)
UNPACK(q5_0, 32, 22)
UNPACK(q5_1, 32, 24)
UNPACK(q8_0, 32, 34)
UNPACK(q2_k, 256, 84)
UNPACK(q3_k, 256, 110)
UNPACK(q4_k, 256, 144)
UNPACK(q5_k, 256, 176)
UNPACK(q6_k, 256, 210)
UNPACK(iq4_nl, 32, 18)
UNPACK(iq4_xs, 256, 136)

/* ---- products ---- */
BENCH(product_pack, 16 * 256 * 8, 0, k->product_pack(p->y, 16, p->x, 16, 256))
BENCH(product_gemm, 0, 2.0 * 120 * 64 * N,
      k->product_gemm(p->y, 64, p->z, 64, p->x, 120, N)) /* ten tiles of 12 tokens */
BENCH(product_gemm_add, 0, 2.0 * 120 * 64 * 256,
      k->product_gemm_add(p->y, 64, p->z, 64, p->x, 120, 256)) /* a slice of a gradient */
BENCH(quantize_q8, N * 5, 0, k->quantize_q8(p->q, p->d, p->s, p->x, N))
BENCH(panel_pack, 16 * N * 3, 0, k->panel_pack(p->panel[2], p->wq, p->wd, p->wm, N, 8))
BENCH(panel_gemm, 0, 2.0 * T * N * 16,
      k->panel_gemm(p->y, 16, p->panel[0], p->q, p->d, p->s, T, N, 4))
#define GEMV(name, width, block, bytes)                                                            \
    BENCH(gemv_##name, ROWS *(width / block * bytes), 2.0 * ROWS * width,                          \
          k->gemv_##name(p->y, next(p, ROWS * (width / block * bytes)), width / block * bytes,     \
                         ROWS, p->q, p->d, p->s, width))
GEMV(q4_0, N, 32, 18)
GEMV(q4_1, N, 32, 20)
GEMV(q5_0, N, 32, 22)
GEMV(q8_0, N, 32, 34)
GEMV(q4_k, 1024, 256, 144)
GEMV(q6_k, 1024, 256, 210)
#define GEMV_F32(name, width, block, bytes)                                                        \
    BENCH(gemv_##name##_f32, ROWS *(width / block * bytes), 2.0 * ROWS * width,                    \
          k->gemv_##name##_f32(p->y, next(p, ROWS * (width / block * bytes)),                      \
                               width / block * bytes, ROWS, p->x, p->wd, width))
GEMV_F32(q4_0, N, 32, 18)
GEMV_F32(q4_1, N, 32, 20)
GEMV_F32(q5_0, N, 32, 22)
GEMV_F32(q8_0, N, 32, 34)
GEMV_F32(q4_k, 1024, 256, 144)
GEMV_F32(q6_k, 1024, 256, 210)
GEMV_F32(q5_1, N, 32, 24)
GEMV_F32(q2_k, 1024, 256, 84)
GEMV_F32(q3_k, 1024, 256, 110)
GEMV_F32(q5_k, 1024, 256, 176)
GEMV_F32(iq4_nl, N, 32, 18)
GEMV_F32(iq4_xs, 1024, 256, 136)
BENCH(sum_16, N * 4, 0, k->sum_16(p->y, p->x, N))
BENCH(dot_int_q8, N, 2.0 * N, p->sink = k->dot_int_q8(p->wq, p->wd, p->wm, p->q, p->d, p->s, N))
BENCH(gemv_f32, ROWS *N * 4, 2.0 * ROWS * N,
      k->gemv_f32(p->y, (const float *)(void *)next(p, ROWS *N * 4), N, ROWS, p->x, N))
BENCH(gemv_f16, ROWS *N * 2, 2.0 * ROWS * N,
      k->gemv_f16(p->y, (const uint16_t *)(void *)next(p, ROWS *N * 2), N, ROWS, p->x, N))
BENCH(gemv_bf16, ROWS *N * 2, 2.0 * ROWS * N,
      k->gemv_bf16(p->y, (const uint16_t *)(void *)next(p, ROWS *N * 2), N, ROWS, p->x, N))

/* ---- rows ---- */
#define FRESH memcpy(p->y, p->x, WIDE * sizeof(float))
BENCH(add, WIDE * 12, WIDE, k->add(p->y, p->x, WIDE))
BENCH(scale, WIDE * 8, WIDE, k->scale(p->y, 1.0f, WIDE))
BENCH(softcap, WIDE * 8, 0, FRESH; k->softcap(p->y, 30.0f, WIDE))
BENCH(silu_mul, WIDE * 12, 0, FRESH; k->silu_mul(p->y, p->x, WIDE))
BENCH(gelu_mul, WIDE * 12, 0, FRESH; k->gelu_mul(p->y, p->x, WIDE))
BENCH(gelu_erf_mul, WIDE * 12, 0, FRESH; k->gelu_erf_mul(p->y, p->x, WIDE))
BENCH(relu_mul, WIDE * 12, 0, FRESH; k->relu_mul(p->y, p->x, WIDE))
BENCH(layernorm, N * 20, 0, k->layernorm(p->y, p->x, p->z, p->z, 1e-5f, N))
BENCH(rmsnorm, N * 16, 0, k->rmsnorm(p->y, p->x, p->z, 1e-5f, N))
BENCH(rope_half, E * 12, 0, k->rope_half(p->z, p->angle, p->angle + E / 2, E))
BENCH(rope_pairs, E * 12, 0, k->rope_pairs(p->z, p->angle, p->angle + E / 2, E))
BENCH(rmsnorm_back, N * 20, 0, FRESH; k->rmsnorm_back(p->y, p->y + N, p->x, p->z, 1e-5f, N))
BENCH(layernorm_back, N * 24, 0, FRESH;
      k->layernorm_back(p->y, p->y + N, p->y + 2 * N, p->x, p->z, 1e-5f, N))
BENCH(silu_back, N * 24, 0, FRESH; k->silu_back(p->y, p->y + N, p->x, p->z, N))
BENCH(gelu_back, N * 24, 0, FRESH; k->gelu_back(p->y, p->y + N, p->x, p->z, N))
BENCH(gelu_erf_back, N * 24, 0, FRESH; k->gelu_erf_back(p->y, p->y + N, p->x, p->z, N))
BENCH(relu_back, N * 24, 0, FRESH; k->relu_back(p->y, p->y + N, p->x, p->z, N))
BENCH(softcap_back, N * 12, 0, FRESH; k->softcap_back(p->y, p->x, 30.0f, N))
BENCH(fma_chain, 0, 2.0 * KH_CHAINS * 64, k->fma_chain(p->y, 0.5f, 0.25f, 64))

/* ---- attention ---- */
BENCH(kv_f16, N * 6, 0, k->kv_f16((uint16_t *)(void *)p->y, p->x, N))
BENCH(kv_key_f32, KEYS *E * 6, 0, k->kv_key_f32(p->y, p->page, KH_TYPE_F16, E, KEYS))
BENCH(kv_value_f32, KEYS *E * 6, 0, k->kv_value_f32(p->y, p->page, KH_TYPE_F16, E, KEYS))
BENCH(score_panel, 0, 2.0 * QUERIES * KEYS * E,
      k->score_panel(p->scores, SCORES, p->x, E, QUERIES, p->page, KH_PANELS, E))
BENCH(score_panel_f16, KEYS *E * 2, 2.0 * QUERIES * KEYS * E,
      k->score_panel_f16(p->scores, SCORES, p->x, E, QUERIES,
                         (const uint16_t *)(void *)next(p, KEYS *E * 2), KH_PANELS, E))
BENCH(score_ahead, KEYS *E * 2, 2.0 * 3 * KEYS * E, /* three heads a group */
      char *from = next(p, KEYS *E * 2);
      k->score_ahead(p->scores, SCORES, p->x, E, 3, from, 1, E, from + KEYS * E * 2))
BENCH(score_listed, GATHER *KH_PANEL *E * 2, 2.0 * GATHER * E,
      spread_rows(p, KH_PANEL *E * 2 / 17 / 64 * 64);
      k->score_listed(p->scores, p->x, p->rows, p->indices, GATHER, 1, E))
BENCH(filter_rows, QUERIES *SCORES * 4, 0, memset(p->counts, 0, sizeof p->counts);
      k->filter_rows(p->values, p->indices, SCORES + 16, p->counts, p->scores, SCORES,
                     p->thresholds, QUERIES, SCORES, 0))
BENCH(filter_back_rows, QUERIES *SCORES * 4, 0, memset(p->counts, 0, sizeof p->counts);
      k->filter_back_rows(p->values + SCORES + 16, p->indices + SCORES + 16, SCORES + 16, p->counts,
                          p->scores, SCORES, p->thresholds, QUERIES, SCORES, 0, SCORES))
BENCH(list_row, SCORES * 4, 0,
      k->list_row(p->values, p->indices, p->scores, SCORES, p->thresholds[0], 0))
BENCH(count_at_least, SCORES * 4, 0, p->sink = (float)k->count_at_least(p->scores, SCORES, 0.5f))
BENCH(nth_between, 160 * 4, 0, p->sink = k->nth_between(p->scores, 160, 0.5f, 0.55f, 1, &p->ties))
BENCH(keep_best, SCORES * 8, 0, memcpy(p->values, p->scores, SCORES * 4);
      p->sink = (float)k->keep_best(p->values, p->indices, SCORES, 0.5f, 1))
BENCH(row_max, SCORES * 4, 0, p->sink = k->row_max(p->scores, SCORES))
BENCH(row_moments, SCORES * 4, 0, k->row_moments(p->m, p->scores, SCORES))
BENCH(exp_sum, SCORES * 8, 0, p->sink = k->exp_sum(p->y, p->scores, SCORES, 1.0f, 1.0f))
BENCH(tail_rows, QUERIES *KEYS * 4, 0, k->tail_rows(p->z, p->m, p->x, KEYS, QUERIES, KEYS, 0.1f))
BENCH(softmax_rows, QUERIES *KEYS * 8, 0, memcpy(p->y, p->x, QUERIES *KEYS * 4);
      k->softmax_rows(p->y, KEYS, p->m, p->u, p->alpha, QUERIES, KEYS, 0.1f))
BENCH(mix_rows, 0, 2.0 * QUERIES * KEYS * E,
      k->mix_rows(p->y, E, p->alpha, p->x, KEYS, QUERIES, p->page, KEYS, E))
BENCH(mix_rows_f16, KEYS *E * 2, 2.0 * QUERIES * KEYS * E,
      k->mix_rows_f16(p->y, E, p->alpha, p->x, KEYS, QUERIES,
                      (const uint16_t *)(void *)next(p, KEYS *E * 2), KEYS, E))
BENCH(gather_f32, GATHER *E * 4, 2.0 * GATHER * E, spread_rows(p, E * 4);
      k->gather_f32(p->y, p->x, p->rows, GATHER, E))
BENCH(gather_listed_f32, GATHER *E * 4, 2.0 * GATHER * E, spread_pages(p, E * 4);
      k->gather_listed_f32(p->y, p->x, p->indices, GATHER, UINT32_MAX, p->pages, E))
BENCH(gather_listed_f16, GATHER *E * 2, 2.0 * GATHER * E, spread_pages(p, E * 2);
      k->gather_listed_f16(p->y, p->x, p->indices, GATHER, UINT32_MAX, p->pages, E))
BENCH(gather_listed_q8_0, GATHER *E / 32 * 34, 2.0 * GATHER * E, spread_pages(p, E / 32 * 34);
      k->gather_listed_q8_0(p->y, p->x, p->indices, GATHER, UINT32_MAX, p->pages, E))

/* ---- the shadow of keys */
BENCH(shadow_pack, KEYS *E * 5, 0, memcpy(p->y, p->page, KEYS *E * 4);
      k->shadow_pack(p->z, p->y, E))
BENCH(shadow_score, KEYS *E + KEYS * 8 + 2 * E, 2.0 * 3 * KEYS * E, /* three heads a group */
      char *shadow = next(p, kh_shadow_bytes(E));
      k->shadow_score(p->scores, SCORES, (const int16_t *)(const void *)p->q, p->x, 3, shadow, E,
                      shadow + kh_shadow_bytes(E)))

/* ---- attention backward */
BENCH(softmax_back, SCORES * 16, 0, memcpy(p->y, p->scores, SCORES * 4);
      k->softmax_back(p->y, p->z, SCORES, 0.125f, 0.5f, 0.25f))
BENCH(softmax_back_rows, SCORES *QUERIES * 16, 0, memcpy(p->y, p->scores, SCORES *QUERIES * 4);
      k->softmax_back_rows(p->y, p->z, SCORES, QUERIES, SCORES, 0.125f, p->m, p->m))
BENCH(mix_cols, 0, 2.0 * QUERIES * KEYS * E,
      k->mix_cols(p->y, E, p->x, KEYS, KEYS, p->page, QUERIES, E))
BENCH(back_triples, 3 * QUERIES * E * 4, 10.0 * QUERIES * E,
      kh_back back = {.shifts = p->scores, .sums = p->scores, .scale = 0.125f};
      uint16_t listed[32]; for (size_t i = 0; i < 32; i++) listed[i] = (uint16_t)(i % QUERIES);
      k->back_triples(p->y, p->y + E, p->values, p->x, p->x + E, p->z, listed, NULL, NULL, QUERIES,
                      &back, E))

/* ---- feed-forward: 16 lists of 8 entries */
BENCH(listed_mix, 8 * QUERIES * E * 4, 2.0 * 8 * QUERIES * E,
      k->listed_mix(p->y, p->x, p->listed, p->begin, p->begin + 1, QUERIES, p->page, 0))
BENCH(listed_dot, 8 * QUERIES * E * 4, 2.0 * 8 * QUERIES * E,
      k->listed_dot(p->y, p->x, p->listed, p->begin, p->begin + 1, QUERIES, p->page, 0))

/* ---- an optimiser's step */
static const struct kh_adamw adamw = {1, 0.9999f, 1e-3f, 0.1f, 0.999f, 1e-3f, 1, 1e-8f};
static const struct kh_sgd sgd = {1, 1e-3f, 1e-4f, 0.9f};
BENCH(squares_sum, WIDE * 4, 2.0 * WIDE, p->sink = (float)k->squares_sum(p->x, WIDE))
BENCH(adamw_step, WIDE * 28, 0, k->adamw_step(p->y, p->z, p->scores, p->x, &adamw, WIDE))
BENCH(sgd_step, WIDE * 20, 0, k->sgd_step(p->y, p->z, p->x, &sgd, WIDE))
BENCH(bf16_dither, WIDE * 6, 0, k->bf16_dither((uint16_t *)(void *)p->y, p->x, 1, WIDE))

typedef struct line {
    const char *name;
    void (*call)(const kh_kern *k, space *p);
    const double *size, *work;
    size_t slot; /* of the kernel in kh_kern */
} line;

static const line lines[] = {
#define LINE(level, ret, name, args)                                                               \
    {#name, call_##name, &size_##name, &work_##name, offsetof(kh_kern, name)},
    KH_KERN_LIST(LINE)
#undef LINE
};

/* Random bytes; as f16 they are numbers of ordinary size (exponent bits cut), so that no scale is
 * infinite and no time goes to subnormals. */
static void fill(space *p, const kh_kern *ref)
{
    uint64_t *stream = (uint64_t *)(void *)p->stream, state = 88172645463325252u;
    for (size_t i = 0; i < STREAM / 8; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        stream[i] = (state & 0xb7ffb7ffb7ffb7ffu) | 0x2000200020002000u;
    }
    for (size_t i = 0; i < T * N; i++) p->x[i] = (float)(i * 7919 % 1000) / 500.0f - 1.0f;
    for (size_t i = 0; i < T * WIDE; i++) p->z[i] = (float)(i % 17) / 16.0f;
    for (size_t i = 0; i < E; i++) p->angle[i] = i < E / 2 ? 0.8f : 0.6f;
    for (size_t i = 0; i < KEYS * E; i++) p->page[i] = (float)(i % 101) / 100.0f;
    for (size_t i = 0; i < QUERIES * SCORES; i++) p->scores[i] = (float)(i * 7919 % 1000) / 1000.0f;
    for (size_t i = 0; i < QUERIES; i++) p->thresholds[i] = 0.9f;
    for (size_t i = 0; i < 8 * QUERIES; i++) p->listed[i] = (uint32_t)(i * 29 % KEYS);
    for (size_t i = 0; i <= QUERIES; i++) p->begin[i] = (uint32_t)(8 * i);
    for (size_t t = 0; t < T; t++)
        ref->quantize_q8(p->q + t * N, p->d + t * (N / 32), p->s + t * (N / 16), p->x + t * N, N);
    for (size_t i = 0; i < 16 * N; i++) p->wq[i] = (int8_t)(i % 16);
    for (size_t i = 0; i < N; i++) p->wd[i] = p->wm[i] = 0.01f;
    ref->panel_pack(p->panel[0], p->wq, p->wd, p->wm, N, 4);
}

static double seconds_of(const line *l, const kh_kern *k, space *p, size_t calls)
{
    double start = kh_cpu_seconds();
    for (size_t i = 0; i < calls; i++) l->call(k, p);
    return kh_cpu_seconds() - start;
}

static double best_of(const line *l, const kh_kern *k, space *p)
{
    size_t calls = 1;
    while (seconds_of(l, k, p, calls) < 2e-3 && calls < (size_t)1 << 24) calls *= 2;
    double best = 1e30;
    for (int i = 0; i < 5; i++) {
        double one = seconds_of(l, k, p, calls) / (double)calls;
        best = one < best ? one : best;
    }
    return best;
}

static kh_status measure(space *p, const char *only,
                         kh_status (*row)(void *context, const kh_bench_kernel *result),
                         void *context)
{
    fill(p, kh_kern_get(KH_ISA_REF));
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const line *l = &lines[i];
        if (only && !strstr(l->name, only)) continue;
        const kh_kern *below = NULL;
        for (int isa = 0; isa <= (int)kh_cpu_isa(); isa++) {
            const kh_kern *k = kh_kern_get((kh_isa)isa);
            const char *a = (const char *)k, *b = (const char *)below;
            below = k;
            if (b && memcmp(a + l->slot, b + l->slot, sizeof(void (*)(void))) == 0) continue;
            double seconds = best_of(l, k, p);
            kh_bench_kernel result = {.name = l->name,
                                      .isa = kh_isa_name((kh_isa)isa),
                                      .nanoseconds = seconds * 1e9,
                                      .gigabytes = *l->size / seconds * 1e-9,
                                      .gigaops = *l->work / seconds * 1e-9};
            KH_TRY(row(context, &result));
        }
    }
    return KH_OK;
}

kh_status kh_bench_kernels(const char *only,
                           kh_status (*row)(void *context, const kh_bench_kernel *result),
                           void *context)
{
    space *p = kh_calloc(1, sizeof *p);
    void *stream = kh_alloc(STREAM);
    kh_status status = KH_OK;
    if (p && stream) {
        p->stream = stream;
        status = measure(p, only, row, context);
    } else {
        status = kh_fail(KH_ERR_MEMORY, "kernel bench: %zu bytes of memory are missing",
                         STREAM + sizeof *p);
    }
    kh_free(stream);
    kh_free(p);
    return status;
}
