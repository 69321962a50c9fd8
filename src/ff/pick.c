/* The k largest of a row of scores that is never in memory as a whole.
 *
 * Scores above a row's threshold are appended to its list, 4 k long. A full list is tightened to k to
 * 1.25 k entries by counting; the threshold becomes the least of what stayed. A later score equal to it
 * loses every tie, so nothing of the result is lost: the argument is that of attn/topk.c, with neurons in
 * the place of keys and without pinned ones.
 *
 * Lists of many rows do not fit into the near caches: what a row will append to is asked for before its
 * scores are computed (26 -> 10 us a token at 16,384 neurons).
 *
 *     row    | candidates ............ <= 4k + 64 | 16 that a full store may overwrite */
#include "ff/pick.h"

#include "ops/narrow.h"

enum { LIST_FACTOR = 4, SPARE = 16 };

/* Entries after which a list is tightened. */
static size_t limit_of(size_t k, size_t n)
{
    return (LIST_FACTOR * k < n ? LIST_FACTOR * k : n) + KH_PICK_BLOCK;
}

size_t kh_pick_room(size_t k, size_t n)
{
    return limit_of(k, n) + SPARE;
}

void kh_pick_start(kh_pick *p, float least)
{
    for (size_t r = 0; r < p->rows; r++) {
        p->counts[r] = 0;
        p->thresholds[r] = least;
    }
}

void kh_pick_expect(const kh_pick *p, size_t row, size_t rows)
{
    for (size_t r = row; r < row + rows; r++) {
        size_t at = r * p->ld + p->counts[r];
        __builtin_prefetch(p->values + at, 1, 3);
        __builtin_prefetch(p->values + at + 16, 1, 3);
        __builtin_prefetch(p->indices + at, 1, 3);
        __builtin_prefetch(p->indices + at + 16, 1, 3);
    }
}

void kh_pick_offer(kh_pick *p, size_t row, size_t rows, const float *scores, size_t lds, size_t n,
                   uint32_t first)
{
    size_t limit = p->ld - SPARE;
    p->kern->filter_rows(p->values + row * p->ld, p->indices + row * p->ld, p->ld, p->counts + row,
                         scores, lds, p->thresholds + row, rows, n, first);
    for (size_t r = row; r < row + rows; r++)
        if (p->counts[r] + KH_PICK_BLOCK > limit)
            p->counts[r] = (uint32_t)kh_narrow(p->kern, p->values + r * p->ld,
                                               p->indices + r * p->ld, p->counts[r], p->k,
                                               p->k + p->k / 4, p->thresholds + r);
}

size_t kh_pick_finish(kh_pick *p, size_t row)
{
    size_t at = row * p->ld;
    p->counts[row] = (uint32_t)kh_narrow(p->kern, p->values + at, p->indices + at, p->counts[row],
                                         p->k, p->k, p->thresholds + row);
    return p->counts[row];
}
