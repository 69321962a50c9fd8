/* Cases: pooling and pairs. */
#include "grad_cases.h"
#include "ops/pooling.h"

enum { T = 17, D = 70, COUNT = 4 };

static void make_pool(grad_space *s)
{
    grad_new(s, GRAD_BUFFER, "x", T * D);
    grad_new(s, GRAD_BUFFER, "pooled", COUNT * D);
    grad_new(s, GRAD_BUFFER, "pairs", COUNT / 2 * 4 * D);
}

static kh_status pass_pool(grad_space *s)
{
    static const kh_row_range ranges[COUNT] = {{0, 5}, {5, 1}, {7, 3}, {10, 7}};
    kh_op_pool(&s->run, s->p[1], s->p[0], ranges, COUNT, D, (kh_pooled)(s->of->variant % 4));
    if (s->of->variant >= 4)
        kh_op_pair(&s->run, s->p[2], s->p[1], COUNT / 2, D, s->of->variant >= 8 ? 4 : 2);
    return KH_OK;
}

const grad_case grad_pool_cases[] = {
    {"pool, mean", make_pool, pass_pool, KH_POOLED_MEAN, 0},
    {"pool, first", make_pool, pass_pool, KH_POOLED_FIRST, 0},
    {"pool, last", make_pool, pass_pool, KH_POOLED_LAST, 0},
    {"pool, pairs of two", make_pool, pass_pool, 4 + KH_POOLED_MEAN, 0},
    {"pool, pairs of four", make_pool, pass_pool, 8 + KH_POOLED_MEAN, 0},
    {0}};
