/* Pre-activations of a block of neurons for a tile of rows, with the packed product of the model's
 * prompts (kern/product_body.h).
 *
 *     tiles  [rows / 12][D][12]      packed once an item
 *     panels [64 / 16][D][16]        packed once a block: 0.2 ns a weight, shared by all rows of the item
 *     scores [48][64]                12 KiB: written and used in the first-level cache
 *
 * The order of rounding is the product's (a chain over D, in parts of 2,048), so a score does not depend
 * on chunks, tiles or threads. */
#include "ff/ff.h"
#include "kern/panel.h"

enum { MOST = 64 }; /* neurons of a block, and the distance of score rows */
#define PANEL_BYTES ((size_t)256 << 10)

static size_t neurons_of(const kh_ff_args *a)
{
    return MOST * a->width * sizeof(float) <= PANEL_BYTES ? MOST : MOST / 2;
}

static size_t tiles_of(size_t rows)
{
    return (rows + KH_PRODUCT_TILE - 1) / KH_PRODUCT_TILE * KH_PRODUCT_TILE;
}

size_t kh_ff_scorer_need(const kh_ff_args *a, size_t rows)
{
    return kh_arena_need(tiles_of(rows) * a->width * sizeof(float)) +
           2 * kh_arena_need(neurons_of(a) * a->width * sizeof(float)) +
           2 * kh_arena_need(KH_FF_GROUP * MOST * sizeof(float));
}

void kh_ff_scorer_open(kh_ff_scorer *s, const kh_ff_args *a, const kh_kern *kern, kh_arena *scratch,
                       const float *x, size_t rows)
{
    size_t D = a->width;
    *s = (kh_ff_scorer){.args = a, .kern = kern, .neurons = neurons_of(a)};
    s->tiles = kh_arena_take(scratch, tiles_of(rows) * D * sizeof(float));
    s->panels = kh_arena_take(scratch, s->neurons * D * sizeof(float));
    s->up_panels = kh_arena_take(scratch, s->neurons * D * sizeof(float));
    s->scores = kh_arena_take(scratch, KH_FF_GROUP * MOST * sizeof(float));
    s->up_scores = kh_arena_take(scratch, KH_FF_GROUP * MOST * sizeof(float));
    for (size_t t = 0; t < rows; t += KH_PRODUCT_TILE)
        kern->product_pack(s->tiles + t * D, KH_PRODUCT_TILE, x + t * D,
                           rows - t < KH_PRODUCT_TILE ? rows - t : KH_PRODUCT_TILE, D);
}

static void pack(const kh_ff_scorer *s, float *panels, const float *w, size_t n)
{
    size_t D = s->args->width;
    for (size_t r = 0; r < n; r += KH_PANEL_ROWS)
        s->kern->product_pack(panels + r * D, KH_PANEL_ROWS, w + r * D,
                              n - r < KH_PANEL_ROWS ? n - r : KH_PANEL_ROWS, D);
}

void kh_ff_scorer_block(kh_ff_scorer *s, size_t first, size_t n, int want_up)
{
    const kh_ff_args *a = s->args;
    pack(s, s->panels, a->in + first * a->width, n);
    if (want_up) pack(s, s->up_panels, a->up + first * a->width, n);
}

void kh_ff_scorer_group(kh_ff_scorer *s, size_t row, size_t rows, size_t first, size_t n,
                        int want_up)
{
    const kh_ff_args *a = s->args;
    const float *x = s->tiles + row * a->width;
    s->kern->product_gemm(s->scores, MOST, s->panels, n, x, rows, a->width);
    if (want_up) s->kern->product_gemm(s->up_scores, MOST, s->up_panels, n, x, rows, a->width);
    for (size_t r = 0; a->in_bias && r < rows; r++)
        s->kern->add(s->scores + r * MOST, a->in_bias + first, n);
}
