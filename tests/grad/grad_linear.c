/* Cases: products with weights. The large ones cross every border of ops/linear_back.c: slices and blocks of
 * rows, parts, pieces and ragged ends of weights. */
#include "base/fail.h"
#include "grad_cases.h"
#include "ops/linear.h"

#include <string.h>

enum { MANY = 1, FROZEN = 2, TIED = 4, LORA = 8, RANK = 3 };

typedef struct shape {
    size_t T, cols, rows[3];
} shape;

static const shape small = {21, 37, {29, 5, 18}}, one = {1, 40, {26, 3, 16}},
                   few = {3, 33, {7, 20, 2}}, large = {1600, 70, {1930, 40, 3}},
                   wide = {530, 300, {110, 33, 200}};

/* Two adapters of the first weight, none of the second, one of the third: p[7] to p[12]. */
static const kh_lora *adapters(const grad_space *s, size_t index)
{
    static kh_lora list[3];
    if (!(s->of->variant & LORA) || index == 1) return NULL;
    for (size_t i = 0; i < 3; i++)
        list[i] = (kh_lora){.next = i == 0 ? &list[1] : NULL,
                            .scale = 0.75f + (float)i,
                            .r = RANK,
                            .a = s->p[7 + 2 * i],
                            .b = s->p[8 + 2 * i]};
    return index == 0 ? &list[0] : &list[2];
}

static kh_weight weight(grad_space *s, size_t index, const shape *o)
{
    return (kh_weight){.lora = adapters(s, index),
                       .name = "weight",
                       .rows = o->rows[index],
                       .cols = o->cols,
                       .row_bytes = o->cols * sizeof(float),
                       .data = s->p[1 + index]};
}

static void make(grad_space *s, const shape *o)
{
    grad_kind kind = s->of->variant & FROZEN ? GRAD_FROZEN : GRAD_PARAMETER;
    s->own = o;
    grad_new(s, GRAD_BUFFER, "x", o->T * o->cols);
    for (size_t i = 0; i < 3; i++) grad_new(s, kind, "weight", o->rows[i] * o->cols);
    for (size_t i = 0; i < 3; i++) grad_new(s, GRAD_BUFFER, "y", o->T * o->rows[i]);
    for (size_t i = 0; s->of->variant & LORA && i < 3; i++) {
        grad_new(s, GRAD_PARAMETER, "adapter A", RANK * o->cols);
        grad_new(s, GRAD_PARAMETER, "adapter B", o->rows[i == 2 ? 2 : 0] * RANK);
    }
    if (s->of->variant & TIED) grad_new(s, GRAD_BUFFER, "y again", o->T * o->rows[0]);
}

static void make_small(grad_space *s)
{
    make(s, &small);
}
static void make_one(grad_space *s)
{
    make(s, &one);
}
static void make_few(grad_space *s)
{
    make(s, &few);
}
static void make_large(grad_space *s)
{
    make(s, &large);
}
static void make_wide(grad_space *s)
{
    make(s, &wide);
}

/* One weight after the other, or all at once; tied: the first one twice, and what it wrote first is lost. */
static kh_status pass(grad_space *s)
{
    const shape *o = s->own;
    int v = s->of->variant;
    const kh_weight w[] = {weight(s, 0, o), weight(s, 1, o), weight(s, 2, o)};
    const kh_weight *all[] = {&w[0], &w[1], &w[2]};
    size_t step = s->chunk ? s->chunk : o->T;
    for (size_t first = 0; first < o->T; first += step) {
        size_t T = o->T - first < step ? o->T - first : step;
        float *y[3];
        const float *x = s->p[0] + first * o->cols;
        for (size_t i = 0; i < 3; i++) y[i] = s->p[4 + i] + first * o->rows[i];
        if (v & TIED) KH_TRY(kh_op_linear(&s->run, y[0], x, T, &w[0]));
        if (v & TIED) KH_TRY(kh_op_linear(&s->run, s->p[7], x, T, &w[0]));
        if (v & MANY) KH_TRY(kh_op_linear_many(&s->run, 3, y, x, T, all));
        for (size_t i = 0; i < 3 && !(v & MANY); i++)
            KH_TRY(kh_op_linear(&s->run, y[i], x, T, all[i]));
        KH_TRY(grad_chunk_back(s));
    }
    return KH_OK;
}

/* Plain sums: what differences would take too long for. */
void grad_linear_truth(const grad_space *s, double *dx, double *dw, size_t index)
{
    const shape *o = s->own;
    size_t R = o->rows[index];
    const float *x = s->arrays[0].start, *w = s->p[1 + index], *d = s->arrays[4 + index].loss;
    memset(dw, 0, R * o->cols * sizeof *dw);
    for (size_t t = 0; t < o->T; t++)
        for (size_t r = 0; r < R; r++)
            for (size_t c = 0; c < o->cols; c++) {
                dx[t * o->cols + c] += (double)d[t * R + r] * (double)w[r * o->cols + c];
                dw[r * o->cols + c] += (double)d[t * R + r] * (double)x[t * o->cols + c];
            }
}

const grad_case grad_linear_cases[] = {
    {"linear", make_small, pass, 0, 0},
    {"linear, three at once", make_small, pass, MANY, 0},
    {"linear, frozen", make_small, pass, FROZEN | MANY, 0},
    {"linear, tied", make_small, pass, TIED | MANY, 0},
    {"linear with adapters", make_small, pass, MANY | LORA, 0},
    {"linear, frozen, with adapters", make_small, pass, FROZEN | LORA, 0},
    {"linear, one row", make_one, pass, MANY, 0},
    {"linear, three rows", make_few, pass, 0, 0},
    {0}};

const grad_case grad_large_cases[] = {{"linear, wide", make_wide, pass, 0, 0},
                                      {"linear, three at once, wide", make_wide, pass, MANY, 0},
                                      {"linear, large", make_large, pass, MANY, 0},
                                      {0}};
