/* attn/attend.h: the work of one layer, cut into tasks and items; inside attn/ only. */
#ifndef KH_ATTN_ATTEND_H
#define KH_ATTN_ATTEND_H

#include "attn/decode.h"
#include "attn/scorer.h"

/* Tokens of one span, for heads of one group that share a setting. */
typedef struct kh_attn_task {
    const kh_kv *kv;
    const kh_attn_setting *setting; /* with k >= what every row sees: `full`, which is the same */
    int g, head, heads;
    size_t row, tokens, position, length;
    size_t chunk, chunks; /* first chunk of KH_CHUNK keys, and how many; 1: finished at once */
    size_t part;          /* of its first partial result, [R][chunks] of them */
    kh_row_scores scores; /* of a cut task whose method lists keys: attn/decode.h */
    kh_attn_stats stats;
} kh_attn_task;

typedef struct kh_attn_item {
    uint32_t task, chunk; /* or the row of a cut task, when its chunks are merged */
} kh_attn_item;

/* Results of one row over one chunk: ranges use m, u, w; tail and mass the rest. */
typedef struct kh_attn_parts {
    float *m, *u, *m_all, *u_all; /* [parts] */
    float *tail_shifts, *tails;   /* [parts] */
    float *w;                     /* [parts][E] */
} kh_attn_parts;

typedef struct kh_attn_work {
    kh_run *run;
    const kh_attn_layer *layer;
    const float *q; /* row t of head h at q + t * q_by.row + h * q_by.head: [E] */
    float *z;       /* the same with z_by */
    kh_attn_strides q_by, z_by;
    kh_attn_task *tasks;
    kh_attn_item *items;
    kh_attn_item *rows;   /* [row_count] of cut tasks */
    kh_attn_stats *stats; /* [row_count] */
    size_t task_count, item_count, part_count, row_count;
    size_t ld; /* entries of a row's list */
    size_t S;  /* the most keys that a row sees */
    kh_attn_parts parts;
} kh_attn_work;

/* The most tokens that a tile of some heads takes. */
size_t kh_attn_tile_tokens(int heads, size_t ld);
/* A tile over chunk `c` of a task (all keys when it has one), with memory from the worker's scratch,
 * queries loaded. */
void kh_attn_open_tile(const kh_attn_work *work, const kh_attn_task *task, size_t c, int worker,
                       kh_tile *tile);

/* Delivers every row of the batch to the probe, on the calling thread. */
kh_status kh_attn_deliver_rows(kh_attn_work *work);

#endif
