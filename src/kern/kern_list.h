/* kern/kern_list.h: THE list of kernels. The prototypes, the dispatch tables, the kernel check and the
 * kernel bench are expanded from it; nothing else names a kernel twice.
 *
 *   X(level, return type, name, (parameters))
 *
 * `level` says up to which instruction sets a body of its own exists; the rest falls back to the
 * nearest lower one:   R  ref                      A  ref, avx2
 *                      B  ref, avx2, avx512        C  ref, avx2, avx512, avx512vnni
 *
 * A kernel is a pure function: no allocation, threads, globals or failure. Its plain C twin
 * (`name_ref`) defines what is correct. Pointers do not alias unless said; nothing is assumed about
 * alignment unless said. Widths n that belong to quantised rows are multiples of 32.
 *
 * q8 rows: activations in 8 bits. For row t: q [n] int8, d [n/32] f32 scale, s [n/16] f32 sum of d*q
 * over 16 elements (what a weight's minimum is multiplied with). */
#ifndef KH_KERN_KERN_LIST_H
#define KH_KERN_KERN_LIST_H

/* types whose rows unpack to integers; L(level, name) */
#define KH_QUANT_TYPES(L)                                                                          \
    L(q4_0)                                                                                        \
    L(q4_1) L(q5_0) L(q5_1) L(q8_0) L(q2_k) L(q3_k) L(q4_k) L(q5_k) L(q6_k) L(iq4_nl) L(iq4_xs)

enum { KH_CHAINS = 192 };

struct kh_back;  /* kern/grad_kern.h */
struct kh_adamw; /* kern/step_kern.h */
struct kh_sgd;

#define KH_KERN_LIST(X)                                                                              \
    /* ---- unpacking: y[i] = the value of element i of a row of n elements; equal bits */           \
    X(B, void, unpack_f32_f16, (float *y, const void *x, size_t n))                                  \
    X(B, void, unpack_f32_bf16, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q4_0, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q4_1, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q5_0, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q5_1, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q8_0, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q2_k, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q3_k, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q4_k, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q5_k, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_q6_k, (float *y, const void *x, size_t n))                                 \
    X(B, void, unpack_f32_iq4_nl, (float *y, const void *x, size_t n))                               \
    X(B, void, unpack_f32_iq4_xs, (float *y, const void *x, size_t n))                               \
    /* ---- the integer form: value = d[i/16] * q[i] + m[i/16] */                                    \
    X(R, void, unpack_q8_q4_0, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q4_1, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q5_0, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q5_1, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q8_0, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q2_k, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q3_k, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q4_k, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q5_k, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_q6_k, (int8_t * q, float *d, float *m, const void *x, size_t n))            \
    X(R, void, unpack_q8_iq4_nl, (int8_t * q, float *d, float *m, const void *x, size_t n))          \
    X(R, void, unpack_q8_iq4_xs, (int8_t * q, float *d, float *m, const void *x, size_t n))          \
    /* ---- prompt. Rows [rows][n] become lanes: to [n][lanes], zeros beyond `rows` <= lanes */      \
    X(B, void, product_pack, (float *to, size_t lanes, const float *from, size_t rows, size_t n))    \
    /* y [T][rows], ldy apart: tiles of tokens times panels of rows. See kern/panel.h */             \
    X(B, void, product_gemm,                                                                         \
      (float *y, size_t ldy, const float *panels /* [(rows + 15) / 16][n][16] */, size_t rows,       \
       const float *tiles /* [(T + 11) / 12][n][12] */, size_t T, size_t n))                         \
    /* the same, added to y */                                                                       \
    X(B, void, product_gemm_add,                                                                     \
      (float *y, size_t ldy, const float *panels, size_t rows, const float *tiles, size_t T,         \
       size_t n))                                                                                    \
    /* ---- decode: y[r] = row r of w (row_bytes apart) times x [n], r in [0, rows); sums [n/16] */  \
    X(B, void, gemv_q4_0_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q4_1_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q5_0_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q8_0_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q4_k_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q6_k_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q5_1_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q2_k_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q3_k_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_q5_k_f32,                                                                        \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_iq4_nl_f32,                                                                      \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    X(B, void, gemv_iq4_xs_f32,                                                                      \
      (float *y, const void *w, size_t row_bytes, size_t rows, const float *x, const float *sums,    \
       size_t n))                                                                                    \
    /* sums[g] = x[16g] + ... + x[16g + 15]: what the minima of weights are multiplied with */       \
    X(B, void, sum_16, (float *sums, const float *x, size_t n))                                      \
    /* y[r] = row r of w times x, dense types */                                                     \
    X(B, void, gemv_f32,                                                                             \
      (float *y, const float *w, size_t ldw, size_t rows, const float *x, size_t n))                 \
    X(B, void, gemv_f16,                                                                             \
      (float *y, const uint16_t *w, size_t ldw, size_t rows, const float *x, size_t n))              \
    X(B, void, gemv_bf16,                                                                            \
      (float *y, const uint16_t *w, size_t ldw, size_t rows, const float *x, size_t n))              \
    /* ---- activations to 8 bits: one row */                                                        \
    X(B, void, quantize_q8, (int8_t * q, float *d, float *s, const float *x, size_t n))              \
    /* ---- prompt: a panel of 16 weight rows against T q8 rows. See kern/panel.h for the layout. */ \
    X(R, void, panel_pack,                                                                           \
      (void *panel, const int8_t *q, const float *d, const float *m, size_t n, int bits))            \
    X(C, void, panel_gemm,                                                                           \
      (float *y, size_t ldy, const void *panel, const int8_t *q, const float *d, const float *s,     \
       size_t T, size_t n, int bits))                                                                \
    /* ---- decode: y[r] = row r of w (row_bytes apart) times one q8 row, r in [0, rows) */          \
    X(C, void, gemv_q4_0,                                                                            \
      (float *y, const void *w, size_t row_bytes, size_t rows, const int8_t *q, const float *d,      \
       const float *s, size_t n))                                                                    \
    X(C, void, gemv_q4_1,                                                                            \
      (float *y, const void *w, size_t row_bytes, size_t rows, const int8_t *q, const float *d,      \
       const float *s, size_t n))                                                                    \
    X(C, void, gemv_q5_0,                                                                            \
      (float *y, const void *w, size_t row_bytes, size_t rows, const int8_t *q, const float *d,      \
       const float *s, size_t n))                                                                    \
    X(C, void, gemv_q8_0,                                                                            \
      (float *y, const void *w, size_t row_bytes, size_t rows, const int8_t *q, const float *d,      \
       const float *s, size_t n))                                                                    \
    X(C, void, gemv_q4_k,                                                                            \
      (float *y, const void *w, size_t row_bytes, size_t rows, const int8_t *q, const float *d,      \
       const float *s, size_t n))                                                                    \
    X(C, void, gemv_q6_k,                                                                            \
      (float *y, const void *w, size_t row_bytes, size_t rows, const int8_t *q, const float *d,      \
       const float *s, size_t n))                                                                    \
    /* one unpacked row (integer form) times one q8 row, for the types without a native kernel */    \
    X(C, float, dot_int_q8,                                                                          \
      (const int8_t *wq, const float *wd, const float *wm, const int8_t *q, const float *d,          \
       const float *s, size_t n))                                                                    \
    /* ---- elementwise, one row of n */                                                             \
    X(B, void, add, (float *y, const float *x, size_t n))       /* y += x */                         \
    X(B, void, scale, (float *y, float a, size_t n))            /* y *= a */                         \
    X(B, void, softcap, (float *y, float cap, size_t n))        /* y = cap tanh(y / cap) */          \
    X(B, void, silu_mul, (float *y, const float *up, size_t n)) /* y = silu(y) * up */               \
    X(B, void, gelu_mul, (float *y, const float *up, size_t n)) /* tanh form of gelu */              \
    X(B, void, gelu_erf_mul,                                                                         \
      (float *y, const float *up, size_t n)) /* y (1 + erf(y / sqrt 2)) / 2 */                       \
    X(B, void, relu_mul, (float *y, const float *up, size_t n))                                      \
    X(B, void, rmsnorm, (float *y, const float *x, const float *gain, float eps, size_t n))          \
    /* gain and bias may be NULL: 1 and 0; y may be x */                                             \
    X(B, void, layernorm,                                                                            \
      (float *y, const float *x, const float *gain, const float *bias, float eps, size_t n))         \
    /* rotates pairs (i, i + n/2) (`rope_half`) or (2i, 2i + 1) (`rope_pairs`) of the first n      \
     * elements in place by the angles whose cosines and sines are given, [n/2] each */ \
    X(B, void, rope_half, (float *x, const float *cosine, const float *sine, size_t n))              \
    X(B, void, rope_pairs, (float *x, const float *cosine, const float *sine, size_t n))             \
    /* ---- derivatives (kern/rows_back.c): d [n] by what a row became becomes d by what it was; */  \
    /* dgain, dbias, dup [n] are added to, NULL: not wanted; gain, up NULL: 1 */                     \
    X(B, void, rmsnorm_back,                                                                         \
      (float *d, float *dgain, const float *x, const float *gain, float eps, size_t n))              \
    X(B, void, layernorm_back,                                                                       \
      (float *d, float *dgain, float *dbias, const float *x, const float *gain, float eps,           \
       size_t n))                                                                                    \
    X(B, void, silu_back, (float *d, float *dup, const float *gate, const float *up, size_t n))      \
    X(B, void, gelu_back, (float *d, float *dup, const float *gate, const float *up, size_t n))      \
    X(B, void, gelu_erf_back,                                                                        \
      (float *d, float *dup, const float *gate, const float *up, size_t n))                          \
    X(B, void, relu_back, (float *d, float *dup, const float *gate, const float *up, size_t n))      \
    X(B, void, softcap_back, (float *d, const float *y, float cap, size_t n))                        \
    /* y[i] = y[i] * a + b in one fma, `rounds` times, i < KH_CHAINS: all that a core can do */      \
    X(B, void, fma_chain, (float *y, float a, float b, size_t rounds))                               \
    /* ---- attention: see kern/attn_kern.h for the contracts */                                     \
    X(B, void, kv_f16, (uint16_t * y, const float *x, size_t n))                                     \
    X(B, void, kv_key_f32, (float *panels, const void *page, int type, size_t E, size_t keys))       \
    X(B, void, kv_value_f32, (float *rows, const void *page, int type, size_t E, size_t keys))       \
    X(B, void, score_panel,                                                                          \
      (float *scores, size_t lds, const float *q, size_t ldq, size_t R, const float *panels,         \
       size_t panel_count, size_t E))                                                                \
    X(B, void, score_panel_f16,                                                                      \
      (float *scores, size_t lds, const float *q, size_t ldq, size_t R, const uint16_t *panels,      \
       size_t panel_count, size_t E))                                                                \
    X(B, void, score_ahead,                                                                          \
      (float *scores, size_t lds, const float *q, size_t ldq, size_t R, const void *page,            \
       int half, size_t E, const void *next))                                                        \
    X(B, void, score_listed,                                                                         \
      (float *scores, const float *q, const void *const *panels, const uint32_t *positions,          \
       size_t n, int half, size_t E))                                                                \
    X(B, void, filter_rows,                                                                          \
      (float *values, uint32_t *indices, size_t ldc, uint32_t *counts, const float *scores,          \
       size_t lds, const float *thresholds, size_t R, size_t n, uint32_t first_index))               \
    X(B, void, filter_back_rows,                                                                     \
      (float *values, uint32_t *indices, size_t ldc, uint32_t *counts, const float *scores,          \
       size_t lds, const float *thresholds, size_t R, size_t n, uint32_t first_index,                \
       size_t seen))                                                                                 \
    X(B, void, list_row,                                                                             \
      (float *values, uint32_t *indices, const float *scores, size_t n, float threshold,             \
       uint32_t first_index))                                                                        \
    X(B, size_t, count_at_least, (const float *values, size_t n, float threshold))                   \
    X(B, float, nth_between,                                                                         \
      (const float *values, size_t n, float low, float high, size_t nth, size_t *ties))              \
    X(B, size_t, keep_best,                                                                          \
      (float *values, uint32_t *indices, size_t n, float threshold, size_t ties))                    \
    X(B, float, row_max, (const float *x, size_t n))                                                 \
    X(B, void, row_moments, (float *moments /* [4] */, const float *x, size_t n))                    \
    X(B, float, exp_sum, (float *y, const float *x, size_t n, float scale, float shift))             \
    X(B, void, tail_rows,                                                                            \
      (float *sums, float *shifts, const float *scores, size_t lds, size_t R, size_t n,              \
       float scale))                                                                                 \
    X(B, void, softmax_rows,                                                                         \
      (float *scores, size_t lds, float *m, float *u, float *alpha, size_t R, size_t n,              \
       float scale))                                                                                 \
    X(B, void, mix_rows,                                                                             \
      (float *out, size_t ldo, const float *alpha, const float *weights, size_t ldw, size_t R,       \
       const float *values, size_t keys, size_t E))                                                  \
    X(B, void, mix_rows_f16,                                                                         \
      (float *out, size_t ldo, const float *alpha, const float *weights, size_t ldw, size_t R,       \
       const uint16_t *values, size_t keys, size_t E))                                               \
    X(B, void, gather_f32,                                                                           \
      (float *out, const float *weights, const void *const *rows, size_t K, size_t E))               \
    X(B, size_t, gather_listed_f32,                                                                  \
      (float *out, const float *weights, const uint32_t *indices, size_t n, uint32_t end,            \
       const char *const *pages, size_t E))                                                          \
    X(B, size_t, gather_listed_f16,                                                                  \
      (float *out, const float *weights, const uint32_t *indices, size_t n, uint32_t end,            \
       const char *const *pages, size_t E))                                                          \
    X(B, size_t, gather_listed_q8_0,                                                                 \
      (float *out, const float *weights, const uint32_t *indices, size_t n, uint32_t end,            \
       const char *const *pages, size_t E))                                                          \
    /* ---- the int8 shadow of keys: see kern/shadow_kern.h for the contracts */                     \
    X(R, void, shadow_pack, (void *shadow, float *panels, size_t E))                                 \
    X(C, void, shadow_score,                                                                         \
      (float *upper, size_t ldu, const int16_t *q, const float *steps, size_t R,                     \
       const void *shadow, size_t E, const void *next))                                              \
    /* ---- attention backward: see kern/grad_kern.h for the contracts */                            \
    X(B, void, softmax_back, (float *p, float *d, size_t n, float scale, float shift, float sum))    \
    X(B, void, softmax_back_rows,                                                                    \
      (float *p, float *d, size_t ld, size_t R, size_t n, float scale, const float *shifts,          \
       const float *sums))                                                                           \
    X(B, void, mix_cols,                                                                             \
      (float *out, size_t ldo, const float *weights, size_t ldw, size_t cols, const float *rows,     \
       size_t R, size_t E))                                                                          \
    X(B, void, back_triples,                                                                         \
      (float *dk, float *dv, float *ds, const float *k, const float *v, float *triples,              \
       const uint16_t *rows, const float *gains, const float *biases, size_t n,                      \
       const struct kh_back *back, size_t E))                                                        \
    /* ---- feed-forward layers that keep few neurons: see kern/ff_kern.h for the contracts */       \
    X(B, void, listed_mix,                                                                           \
      (float *out, const float *weights, const uint32_t *indices, const uint32_t *begin,             \
       const uint32_t *end, size_t R, const float *panel, uint32_t first))                           \
    X(B, void, listed_dot,                                                                           \
      (float *sums, const float *x, const uint32_t *indices, const uint32_t *begin,                  \
       const uint32_t *end, size_t R, const float *panel, uint32_t first))                           \
    /* ---- an optimiser's step: see kern/step_kern.h for the contracts */                           \
    X(B, double, squares_sum, (const float *x, size_t n))                                            \
    X(B, void, adamw_step,                                                                           \
      (float *w, float *m, float *v, const float *g, const struct kh_adamw *a, size_t n))            \
    X(B, void, sgd_step, /* m may be NULL */                                                         \
      (float *w, float *m, const float *g, const struct kh_sgd *s, size_t n))                        \
    X(B, void, bf16_dither, (uint16_t * y, const float *x, uint32_t seed, size_t n))

#endif
