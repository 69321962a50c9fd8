/* Saving a row for the backward pass: 2 (or 4) bytes for each kept key and 12 for the row.
 *
 * Weights are not saved: the backward pass gathers the same keys anyway and gets them back from their
 * scores, m and u. (The paper keeps 12 bytes for each kept key.) */
#include "attn/save.h"

#include "attn/scorer.h"

static size_t row_of(const kh_attn_save *save, const kh_tile *t, size_t r)
{
    size_t heads = (size_t)t->heads, head = (size_t)t->head + r % heads;
    return head * save->rows + save->first + t->row + r / heads;
}

static void save_sums(const kh_attn_save *save, const kh_tile *t, size_t r, size_t at, size_t n)
{
    if (save->kept > 0) save->counts[at] = (uint32_t)n;
    save->m[at] = t->m[r];
    save->u[at] = t->u[r];
}

void kh_attn_save_indices(const kh_attn_save *save, const kh_tile *t, size_t r,
                          const uint32_t *indices, size_t n)
{
    size_t at = row_of(save, t, r);
    uint32_t *wide = (uint32_t *)save->indices + at * save->kept;
    uint16_t *narrow = (uint16_t *)save->indices + at * save->kept;
    if (save->wide)
        for (size_t i = 0; i < n; i++) wide[i] = indices[i];
    else
        for (size_t i = 0; i < n; i++) narrow[i] = (uint16_t)indices[i];
    save_sums(save, t, r, at, n);
}

void kh_attn_save_ranges(const kh_attn_save *save, const kh_tile *t, size_t r, int listed)
{
    size_t at = row_of(save, t, r), n = 0;
    for (size_t i = 0; listed && i < 2; i++) {
        kh_range range = t->keys.ranges[2 * r + i];
        for (uint32_t j = range.begin; j < range.end; j++, n++) {
            if (save->wide)
                ((uint32_t *)save->indices)[at * save->kept + n] = j;
            else
                ((uint16_t *)save->indices)[at * save->kept + n] = (uint16_t)j;
        }
    }
    save_sums(save, t, r, at, n);
}
