/* kern/product_body.h: the prompt product in f32 over a vector header that was included before. The
 * including file says how large a tile its registers hold: TILE_PANELS panels of 16 weight rows
 * against TILE_T tokens (a divisor of KH_PRODUCT_TILE); and it has pack_four, which turns four inputs of
 * all lanes: quarters of registers are loaded from rows four apart, so that what is left to do is
 * a transposition four by four within each quarter.
 *
 *     acc[t][p] += x[k][t] (in every lane) * panel[p][k][0 .. 15]        k ascending, one fma each
 *
 * A lane is a weight row, so nothing is added across lanes, and every set gives the same bits. Both
 * operands are read from end to end; x in rows a power of two apart would fall into few sets of the
 * nearest cache (measured: 88 instead of 104 GFLOP/s at 2,048 inputs). What is asked for early: the
 * panel, which comes from the second cache, and the lines of y, of which every token has others.
 *
 * Measured on one Skylake server core, 512 tokens, 64 rows: AVX-512 126 to 144 GFLOP/s of 153, 576 to
 * 2,048 inputs (best of a quiet moment: 151); AVX2 65 to 79. oneDNN 2.6 on the same rows reaches 87 to
 * 105. Packing by quarters instead of four by four: prompts of 32 tokens 13 % faster, of 512 3 %.
 * Rejected: sums in parts of 256 inputs, whose additions to y cost 10 %; of such sums panels in the nearest cache, tiles
 * going by (2 % of a training step lost); four inputs a turn (8 % lost); asking early for the next tile of
 * x, or for this one's next lines: within 1 %. */
#include "kern/kern.h"
#include "kern/panel.h"

#define INLINE static inline __attribute__((always_inline))

/* The first part stores unless the whole call adds, the others add. `lanes`: how many rows the last panel
 * has. */
INLINE void tile(float *y, size_t ldy, const float *panel, size_t lanes, const float *x, size_t n,
                 size_t first, size_t end, const int add, const int P, const int R)
{
    v16 acc[TILE_T][TILE_PANELS];
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) {
            acc[r][p] = v16_zero();
            _mm_prefetch((const char *)(y + (size_t)r * ldy + 16 * p), _MM_HINT_T0);
        }
    for (size_t k = first; k < end; k++) {
        v16 w[TILE_PANELS];
        for (int p = 0; p < P; p++) {
            const float *at = panel + ((size_t)p * n + k) * 16;
            w[p] = v16_load(at);
            _mm_prefetch((const char *)(at + 16 * 16), _MM_HINT_T0);
        }
        for (int r = 0; r < R; r++) {
            v16 xk = v16_set1(x[k * KH_PRODUCT_TILE + (size_t)r]);
            for (int p = 0; p < P; p++) acc[r][p] = v16_fma(xk, w[p], acc[r][p]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) {
            float *to = y + (size_t)r * ldy + 16 * p;
            size_t here = p == P - 1 ? lanes : 16;
            if (add || first > 0) acc[r][p] = v16_add(v16_load_n(to, here), acc[r][p]);
            v16_store_n(to, acc[r][p], here);
        }
}

/* Heights become constants, so that the sums stay in registers. */
INLINE void tokens(float *y, size_t ldy, const float *panel, size_t lanes, const float *x, size_t n,
                   size_t first, size_t end, size_t T, const int add, const int P)
{
#define CASE(R)                                                                                    \
    case R: tile(y, ldy, panel, lanes, x, n, first, end, add, P, R); break;
    switch (T) {
        TILE_CASES
    }
#undef CASE
}

INLINE void product(float *y, size_t ldy, const float *panels, size_t rows, const float *tiles,
                    size_t T, size_t n, const int add)
{
    size_t depth = kh_product_depth(n);
    for (size_t first = 0; first < n; first += depth) {
        size_t end = n - first < depth ? n : first + depth;
        for (size_t t = 0; t < T; t += TILE_T) {
            size_t high = T - t < TILE_T ? T - t : TILE_T, in = t % KH_PRODUCT_TILE, r = 0;
            const float *x = tiles + (t - in) * n + in;
            float *to = y + t * ldy;
            for (; TILE_PANELS == 2 && r + 16 < rows; r += 32)
                tokens(to + r, ldy, panels + r * n, rows - r < 32 ? rows - r - 16 : 16, x, n, first,
                       end, high, add, TILE_PANELS);
            for (; r < rows; r += 16)
                tokens(to + r, ldy, panels + r * n, rows - r < 16 ? rows - r : 16, x, n, first, end,
                       high, add, 1);
        }
    }
}

void KH_NAME(product_gemm)(float *y, size_t ldy, const float *panels, size_t rows,
                           const float *tiles, size_t T, size_t n)
{
    product(y, ldy, panels, rows, tiles, T, n, 0);
}

void KH_NAME(product_gemm_add)(float *y, size_t ldy, const float *panels, size_t rows,
                               const float *tiles, size_t T, size_t n)
{
    product(y, ldy, panels, rows, tiles, T, n, 1);
}

/* All lanes by pack_four; some, four by four; what is left, one by one. */
void KH_NAME(product_pack)(float *to, size_t lanes, const float *from, size_t rows, size_t n)
{
    size_t whole = rows / 4 * 4, k = 0;
    for (; k + 4 <= n && rows == lanes; k += 4) pack_four(to + lanes * k, lanes, from + k, n);
    for (; k + 4 <= n; k += 4) {
        const float *at = from + k;
        float *out = to + lanes * k;
        for (size_t r = 0; r < whole; r += 4, at += 4 * n, out += 4) {
            __m128 a = _mm_loadu_ps(at), b = _mm_loadu_ps(at + n);
            __m128 c = _mm_loadu_ps(at + 2 * n), d = _mm_loadu_ps(at + 3 * n);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            _mm_storeu_ps(out, a);
            _mm_storeu_ps(out + lanes, b);
            _mm_storeu_ps(out + 2 * lanes, c);
            _mm_storeu_ps(out + 3 * lanes, d);
        }
    }
    for (size_t i = 0; i < n; i++)
        for (size_t r = i < k ? whole : 0; r < lanes; r++)
            to[i * lanes + r] = r < rows ? from[r * n + i] : 0.0f;
}
