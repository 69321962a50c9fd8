/* ops/columns.h: what inspection asks of a weight's columns and rows: y = W^T u, norms, single vectors. */
#ifndef KH_OPS_COLUMNS_H
#define KH_OPS_COLUMNS_H

#include "kern/kern.h"
#include "ops/weight.h"
#include "run/run.h"

/* out [w->cols] = row r of w and its adapters. */
void kh_weight_row(float *out, const kh_weight *w, size_t r, const kh_kern *kern);
/* out [w->rows] = column c. `wide` [w->cols] is scratch. */
void kh_weight_column(float *out, const kh_weight *w, size_t c, const kh_kern *kern, float *wide);
/* out [count][w->rows] = columns first to first + count - 1: far less work than one by one. `wide` as above. */
void kh_weight_columns(float *out, const kh_weight *w, size_t first, size_t count,
                       const kh_kern *kern, float *wide);

/* Memory for the two below: grows to the largest weight that was asked about. */
typedef struct kh_columns {
    const kh_pool *pool;
    const kh_kern *kern;
    float *memory;
    size_t room;
} kh_columns;

void kh_columns_close(kh_columns *columns);
/* y [w->cols] = W^T u, u [w->rows]. */
kh_status kh_columns_product(kh_columns *columns, float *y, const kh_weight *w, const float *u);
/* norms [w->cols] = length of each column. */
kh_status kh_columns_norms(kh_columns *columns, float *norms, const kh_weight *w);

#endif
