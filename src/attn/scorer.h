/* attn/scorer.h: tiles of query rows, and what is done with the keys that a method chose.
 *
 * Row r of a tile is token r / heads and head r % heads: all heads of a group that share a setting are
 * packed together, so a page of keys is unpacked and scored once for all of them. */
#ifndef KH_ATTN_SCORER_H
#define KH_ATTN_SCORER_H

#include "attn/dropout.h"
#include "attn/method.h"
#include "kern/attn_kern.h"

enum {
    KH_TILE_ROWS =
        96, /* at most: scores of a page take 24 KiB; 48 rows unpack every page twice as often */
    KH_HALF_ROWS = 6, /* up to here an f16 page is converted where it is used, not unpacked first */
    KH_BLOCK_PAGES = 16, /* whose scores a method may keep whole, KH_BLOCK_ROWS rows at a time */
    KH_BLOCK_ROWS = 12,
    KH_BLOCK_LD = KH_BLOCK_PAGES * KH_PAGE + 16, /* not a power of two: rows share no cache set */
    KH_CHUNK = 1024,    /* keys that one work item sees where there are few query rows */
    KH_CHUNK_TOKENS = 4 /* what "few" is */
};

/* One (tile, chunk) and its memory. */
typedef struct kh_tile {
    const kh_kern *kern;
    const kh_kv *kv;
    const kh_attn_layer *layer;
    const kh_attn_setting *setting;
    const kh_attn_drop *drop; /* NULL: no weight is dropped */
    int g;                    /* key head */
    int head, heads;          /* query heads [head, head + heads) */
    size_t row, tokens;       /* rows [row, row + tokens) of the batch */
    size_t position;          /* of the first token */
    size_t length;            /* keys that exist, for KH_ATTN_ALL_KEYS */
    size_t R;                 /* tokens * heads, at most KH_TILE_ROWS */
    kh_range chunk;           /* keys that this item may look at */
    int want_all;             /* m_all and u_all are wanted */
    float *q;                 /* [R][E] */
    float *scores;            /* [R][64] */
    float *spare;             /* [64] */
    float *capped;            /* [R][64] */
    float *panels;            /* [KH_BLOCK_PAGES][4][E][16] */
    float *block;             /* [KH_BLOCK_ROWS][KH_BLOCK_LD] scores */
    const void *page;         /* the open page: f32 panels, or f16 ones */
    size_t page_first;        /* its first position */
    size_t page_keys;         /* of its keys in use */
    int page_half;
    float *values;        /* [64][E] */
    float *out;           /* [R][E] unnormalised sum of weights times values */
    float *m, *u;         /* [R] largest scaled score and sum of exp(score - m), kept keys */
    float *m_all, *u_all; /* [R] the same of all visible keys */
    float *tail_sums;     /* [R][16] estimated mass of all visible keys, tail_rows of attn_kern.h */
    float *tail_shifts;   /* [R] */
    float *dropped;       /* [R] the share of it that the row's kept keys do not have */
    float *alpha, *thresholds; /* [R] */
    uint32_t *pinned;          /* [R] recent keys at the end of a row's list */
    uint32_t *gathered;        /* [R] how many of a row's listed keys */
    const void **rows;         /* [ld] value rows of one query row */
    const char **value_pages;  /* [pages] filled by kh_tile_load where values are gathered */
    size_t pages;              /* that the tile's rows see, from the first of the sequence */
    float *mean;               /* [tokens][E] mean of all visible values */
    kh_keys keys;
} kh_tile;

/* Lays a tile's memory out from `base` (NULL: measures): R rows of width E that see at most S keys,
 * lists of ld entries. */
size_t kh_tile_place(kh_tile *tile, char *base, size_t R, size_t E, size_t ld, size_t S);
/* Copies the tile's rows of the batch's q. */
void kh_tile_load(kh_tile *tile, const float *q, kh_attn_strides by);

/* Keys that row r sees, whole and inside the tile's chunk; and the union of the latter over all rows. */
kh_range kh_tile_visible(const kh_tile *tile, size_t r);
kh_range kh_tile_seen(const kh_tile *tile, size_t r);
kh_range kh_tile_span(const kh_tile *tile);
/* Where the pinned keys at the end of row r begin (`recent`); the end of what it sees without any. */
uint32_t kh_tile_recent(const kh_tile *tile, size_t r);
static inline size_t kh_tile_position(const kh_tile *tile, size_t r)
{
    return tile->position + r / (size_t)tile->heads;
}

/* Row r's list: scores, later weights, and positions. */
static inline float *kh_tile_listed(const kh_tile *tile, size_t r)
{
    return tile->keys.values + r * tile->keys.ld + tile->keys.starts[r];
}
static inline uint32_t *kh_tile_indices(const kh_tile *tile, size_t r)
{
    return tile->keys.indices + r * tile->keys.ld + tile->keys.starts[r];
}

/* Readies page p for scoring: its first n keys, those below `end`; returns n. `slot`: which of the
 * tile's unpacked pages it may take the place of. */
size_t kh_tile_open_page(kh_tile *tile, size_t slot, size_t p, size_t end);
/* scores[i * lds + 0 .. n) = q.k of the open page, for rows [first, first + rows) of the tile. */
void kh_tile_score_rows(const kh_tile *tile, float *scores, size_t lds, size_t first, size_t rows);
/* Both, for all rows, into the tile's scores. */
size_t kh_tile_score(kh_tile *tile, size_t p, size_t end);
/* Starts m_all, u_all and the tail's sums; adds the scores of the open page for rows [first, first +
 * rows), as kh_tile_score_rows left them, to those that are wanted. */
void kh_tile_start_all(const kh_tile *tile);
void kh_tile_add_all(const kh_tile *tile, const float *scores, size_t lds, size_t first,
                     size_t rows);
/* The sum of a row's lanes, in a fixed order. */
float kh_tile_tail(const kh_tile *tile, size_t r);

/* RANGES: m, u and out from the pages. */
void kh_scorer_ranges(kh_tile *tile);
/* INDICES: the weights of one row's kept keys (replacing their scores), the row's m and u; keys below
 * min-p leave the list. Returns how many stay. */
size_t kh_scorer_weights(kh_tile *tile, size_t r, float *values, uint32_t *indices, size_t n);
/* z [E] = weighted sum of the value rows, plus the dropped mass times the mean with tail=mean. */
void kh_scorer_gather(kh_tile *tile, size_t r, const float *weights, const uint32_t *indices,
                      size_t n, float *z);
/* The same for every row of the tile, from the weights in its lists to its `out`. */
void kh_scorer_gather_all(kh_tile *tile);
/* mean [tokens][E] of the visible values, where the setting wants it. */
void kh_tile_means(kh_tile *tile);

/* Two estimates of disjoint sets of keys become one, in the first. */
void kh_merge_tails(float *shift, float *sum, float shift2, float sum2);
/* The share of the row's softmax that the kept keys hold; 1 where all visible keys were kept. */
float kh_tile_kept_mass(const kh_tile *tile, size_t r);

/* (m, u, w) of two disjoint sets of keys become that of their union, in the first. w may be NULL. */
void kh_merge_partials(float *m, float *u, float *w /* [E] */, float m2, float u2,
                       const float *w2 /* [E] */, size_t E);

#endif
