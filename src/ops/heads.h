/* ops/heads.h: projections between rows of a model's width and the arrays of heads, in f32, and their
 * gradients. All four projections of attention are the same three sums over a head's weight w [E][D]:
 *
 *     split   rows = x w^T         q, k, v of the input; dz of the output's gradient
 *     join    x = sum rows w       the output of z; the input's gradient of dq, dk, dv
 *     grad    dw += rows^T x       all four
 *
 * so the weight of the output projection is stored like the others, a row of D for each element of a head:
 * the transpose of what files hold. */
#ifndef KH_OPS_HEADS_H
#define KH_OPS_HEADS_H

#include "base/arena.h"
#include "cpu/pool.h"
#include "kern/kern.h"

#include <keyhole/status.h>

typedef struct kh_head {
    const float *w; /* [E][D] */
    float *dw;      /* [E][D]; kh_heads_grad alone needs it */
    float *rows;    /* [T][E] of the chunk in hand */
} kh_head;

/* Memory for chunks of at most `rows` rows and lists of at most `most` heads. */
typedef struct kh_heads {
    const kh_pool *pool;
    const kh_kern *kern;
    size_t D, E, rows, most;
    float *panels; /* weights, or rows of x */
    float *turned; /* [most][E][rows] */
    kh_arena shared, *scratch;
} kh_heads;

/* Close it in any case. KH_ERR_MEMORY. */
kh_status kh_heads_open(kh_heads *work, const kh_pool *pool, const kh_kern *kern, size_t D,
                        size_t E, size_t rows, size_t most);
void kh_heads_close(kh_heads *work);

/* Nothing can fail. The same bits for any number of threads and any chunk. */
void kh_heads_split(kh_heads *work, const kh_head *heads /* [count] */, size_t count,
                    const float *x /* [T][D] */, size_t T);
void kh_heads_join(kh_heads *work, float *x /* [T][D] */, const kh_head *heads /* [count] */,
                   size_t count, size_t T);
void kh_heads_grad(kh_heads *work, const kh_head *heads /* [count] */, size_t count,
                   const float *x /* [T][D] */, size_t T);

#endif
