/* attn/save.h: what a forward pass keeps for the backward pass: per row the chosen keys and the two
 * numbers of the softmax. The arrays belong to the caller (kh_attention_saved, or a tape). */
#ifndef KH_ATTN_SAVE_H
#define KH_ATTN_SAVE_H

#include <stddef.h>
#include <stdint.h>

struct kh_tile;

typedef struct kh_attn_save {
    size_t kept;      /* K; 0: no indices are wanted */
    int wide;         /* indices are uint32_t, not uint16_t */
    size_t rows;      /* T: rows of a head */
    size_t first;     /* of them, the run's row 0 */
    void *indices;    /* [H][T][K], ascending */
    uint32_t *counts; /* [H][T] */
    float *m, *u;     /* [H][T] */
} kh_attn_save;

/* Row r of a tile whose m and u are known. The first for a list; the second for ranges: `listed` says
 * that they stand for a choice that took every key, which is then listed like any other. */
void kh_attn_save_indices(const kh_attn_save *save, const struct kh_tile *tile, size_t r,
                          const uint32_t *indices /* [n] */, size_t n);
void kh_attn_save_ranges(const kh_attn_save *save, const struct kh_tile *tile, size_t r,
                         int listed);

#endif
