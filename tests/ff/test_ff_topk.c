/* Feed-forward layers that keep k neurons a row, against brute force: all scores of a row in the order
 * of rounding that the kernels promise, a full sort, and double precision from there on. Gradients are
 * compared with formulas in double, and those with finite differences of the double layer. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "base/alloc.h"
#include "cpu/cpu.h"
#include "kern/kern.h"

#include <keyhole/attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct layer {
    kh_ff_args a;
    kh_ff_gradients g;
    float *x, *in, *up, *out, *in_bias, *out_bias, *dy;
} layer;

static uint64_t state = 7;

static double uniform(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53 * 2 - 1;
}

/* Whole numbers make sums exact and ties frequent. */
static float *numbers(size_t n, double size, int whole)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(whole ? floor(uniform() * size + 0.5) : uniform() * size);
    return x;
}

typedef struct shape {
    size_t T, D, F, k;
} shape;

enum { GATED = 1, BIASES = 2, WHOLE = 4 };

static layer make(shape s, kh_ff_act act, kh_ff_rule rule, int flags)
{
    layer l = {.a = {.rows = s.T, .width = s.D, .hidden = s.F, .k = s.k, .act = act, .rule = rule}};
    int whole = flags & WHOLE;
    double size = whole ? 2 : 1.5 / sqrt((double)s.D);
    l.a.x = l.x = numbers(s.T * s.D, whole ? 2 : 1, whole);
    l.a.in = l.in = numbers(s.F * s.D, size, whole);
    l.a.out = l.out = numbers(s.F * s.D, 1, 0);
    if (flags & GATED) l.a.up = l.up = numbers(s.F * s.D, size, whole);
    if (flags & BIASES) {
        if (!(flags & GATED)) l.a.in_bias = l.in_bias = numbers(s.F, 1, whole);
        l.a.out_bias = l.out_bias = numbers(s.D, 1, 0);
    }
    l.a.y = malloc((s.T * s.D + 1) * sizeof(float));
    l.a.indices = malloc((s.T * s.k + 1) * sizeof(uint32_t));
    l.a.counts = malloc((s.T + 1) * sizeof(uint32_t));
    l.g.dy = l.dy = numbers(s.T * s.D, 1, 0);
    l.g.dx = malloc((s.T * s.D + 1) * sizeof(float));
    l.g.din = malloc(s.F * s.D * sizeof(float));
    l.g.dout = malloc(s.F * s.D * sizeof(float));
    if (flags & GATED) l.g.dup = malloc(s.F * s.D * sizeof(float));
    if (!(flags & GATED)) l.g.din_bias = malloc(s.F * sizeof(float));
    l.g.dout_bias = malloc(s.D * sizeof(float));
    return l;
}

static void unmake(layer *l)
{
    void *all[] = {l->x,          l->in,          l->up,        l->out,     l->in_bias, l->out_bias,
                   l->dy,         l->a.y,         l->g.dx,      l->g.din,   l->g.dup,   l->g.dout,
                   l->g.din_bias, l->g.dout_bias, l->a.indices, l->a.counts};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* ---- brute force ---- */

static float chain(const float *x, const float *w, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++) sum = fmaf(x[i], w[i], sum);
    return sum;
}

typedef struct ranked {
    float rank;
    uint32_t index;
} ranked;

static int by_rank(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->rank != y->rank) return x->rank > y->rank ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int by_index(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void rank_row(const layer *l, size_t t, float *rank)
{
    const kh_ff_args *a = &l->a;
    const kh_kern *kern = kh_kern_get(kh_cpu_isa());
    float *up = malloc(a->hidden * sizeof *up);
    for (size_t j = 0; j < a->hidden; j++) {
        rank[j] = chain(a->x + t * a->width, a->in + j * a->width, a->width);
        if (a->in_bias) rank[j] += a->in_bias[j];
        if (a->up) up[j] = chain(a->x + t * a->width, a->up + j * a->width, a->width);
    }
    if (a->up && a->rule != KH_FF_GATE) {
        if (a->act == KH_FF_SILU) kern->silu_mul(rank, up, a->hidden);
        if (a->act == KH_FF_GELU) kern->gelu_mul(rank, up, a->hidden);
        for (size_t j = 0; j < a->hidden; j++) {
            if (a->act == KH_FF_RELU) rank[j] = (rank[j] > 0 ? rank[j] : 0) * up[j];
            rank[j] = fabsf(rank[j]);
            double norm = 0;
            for (size_t i = 0; i < a->width; i++)
                norm += (double)a->out[j * a->width + i] * (double)a->out[j * a->width + i];
            if (a->rule == KH_FF_NORM) rank[j] *= (float)sqrt(norm);
        }
    }
    free(up);
}

/* The neurons that belong to row t, ascending; returns how many. */
static size_t truth_list(const layer *l, size_t t, uint32_t *list)
{
    const kh_ff_args *a = &l->a;
    size_t F = a->hidden, n = 0, kept = 0;
    if (a->k == 0 || a->k >= F) {
        for (size_t j = 0; j < F; j++) list[j] = (uint32_t)j;
        return F;
    }
    float *rank = malloc(F * sizeof *rank);
    ranked *all = malloc(F * sizeof *all);
    int positive = a->act == KH_FF_RELU && (!a->up || a->rule == KH_FF_GATE);
    rank_row(l, t, rank);
    for (size_t j = 0; j < F; j++)
        if (rank[j] > (positive ? 0 : -INFINITY)) all[n++] = (ranked){rank[j], (uint32_t)j};
    qsort(all, n, sizeof *all, by_rank);
    for (; kept < n && kept < a->k; kept++) list[kept] = all[kept].index;
    qsort(list, kept, sizeof *list, by_index);
    free(rank);
    free(all);
    return kept;
}

/* ---- the layer in double ---- */

static double act_of(kh_ff_act act, double x)
{
    if (act == KH_FF_RELU) return x > 0 ? x : 0;
    if (act == KH_FF_SILU) return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static double slope_of(kh_ff_act act, double x)
{
    double h = 1e-5; /* relu: no whole number and no random one lies within h of 0 but 0 itself */
    if (act == KH_FF_RELU) return x > 0;
    return (act_of(act, x + h) - act_of(act, x - h)) / (2 * h);
}

static double dot(const float *x, const float *w, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)w[i];
    return sum;
}

typedef struct grads {
    double *y, *dx, *din, *dup, *dout, *din_bias, *dout_bias;
} grads;

static void truth_row(const layer *l, size_t t, const uint32_t *list, size_t n, const grads *g)
{
    const kh_ff_args *a = &l->a;
    size_t D = a->width;
    const float *x = a->x + t * D, *dy = l->dy + t * D;
    for (size_t i = 0; i < D; i++) {
        g->y[t * D + i] = a->out_bias ? (double)a->out_bias[i] : 0;
        g->dout_bias[i] += (double)dy[i];
    }
    for (size_t e = 0; e < n; e++) {
        size_t j = list[e], at = j * D;
        double s = dot(x, a->in + at, D) + (a->in_bias ? (double)a->in_bias[j] : 0);
        double u = a->up ? dot(x, a->up + at, D) : 1, da = dot(dy, a->out + at, D);
        double act = act_of(a->act, s), ds = da * u * slope_of(a->act, s), du = da * act;
        g->din_bias[j] += ds;
        for (size_t i = 0; i < D; i++) {
            g->y[t * D + i] += act * u * (double)a->out[at + i];
            g->dout[at + i] += act * u * (double)dy[i];
            g->din[at + i] += ds * (double)x[i];
            g->dx[t * D + i] += ds * (double)a->in[at + i];
            if (a->up) {
                g->dup[at + i] += du * (double)x[i];
                g->dx[t * D + i] += du * (double)a->up[at + i];
            }
        }
    }
}

static grads truth(const layer *l)
{
    const kh_ff_args *a = &l->a;
    size_t TD = a->rows * a->width, FD = a->hidden * a->width;
    grads g = {calloc(TD + 1, 8), calloc(TD + 1, 8),    calloc(FD, 8),      calloc(FD, 8),
               calloc(FD, 8),     calloc(a->hidden, 8), calloc(a->width, 8)};
    uint32_t *list = malloc(a->hidden * sizeof *list);
    for (size_t t = 0; t < a->rows; t++) truth_row(l, t, list, truth_list(l, t, list), &g);
    free(list);
    return g;
}

static void free_truth(grads *g)
{
    double *all[] = {g->y, g->dx, g->din, g->dup, g->dout, g->din_bias, g->dout_bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* The largest difference over the largest number. */
static double distance(const float *a, const double *b, size_t n)
{
    double worst = 0, size = 1e-6;
    for (size_t i = 0; a && i < n; i++) {
        if (!(fabs((double)a[i] - b[i]) <= worst)) worst = fabs((double)a[i] - b[i]);
        if (fabs(b[i]) > size) size = fabs(b[i]);
    }
    return worst / size;
}

static void check_lists(const layer *l)
{
    const kh_ff_args *a = &l->a;
    uint32_t *list = malloc(a->hidden * sizeof *list);
    for (size_t t = 0; t < a->rows && a->k > 0 && a->k < a->hidden; t++) {
        size_t n = truth_list(l, t, list);
        assert_int_equal(a->counts[t], n);
        assert_memory_equal(a->indices + t * a->k, list, n * sizeof *list);
    }
    free(list);
}

static void check_numbers(const layer *l, double tolerance)
{
    const kh_ff_args *a = &l->a;
    size_t TD = a->rows * a->width, FD = a->hidden * a->width;
    grads g = truth(l);
    const double got[] = {distance(a->y, g.y, TD),
                          distance(l->g.dx, g.dx, TD),
                          distance(l->g.din, g.din, FD),
                          distance(l->g.dup, g.dup, FD),
                          distance(l->g.dout, g.dout, FD),
                          distance(l->g.din_bias, g.din_bias, a->hidden),
                          distance(l->g.dout_bias, g.dout_bias, a->width)};
    for (size_t i = 0; i < sizeof got / sizeof *got; i++)
        if (!(got[i] <= tolerance))
            fail_msg("%zu x %zu x %zu, k %zu, act %d, rule %d: array %zu is off by %.3g", a->rows,
                     a->width, a->hidden, a->k, (int)a->act, (int)a->rule, i, got[i]);
    free_truth(&g);
}

static void run(layer *l)
{
    if (kh_ff_topk_forward(&l->a) != KH_OK || kh_ff_topk_backward(&l->a, &l->g) != KH_OK)
        fail_msg("%s", kh_last_error());
}

/* ---- tests ---- */

static const shape shapes[] = {
    {1, 1, 1, 1},      {1, 8, 5, 2},      {3, 16, 40, 1},     {13, 24, 130, 7},
    {50, 70, 300, 64}, {7, 64, 2100, 33}, {101, 33, 1100, 5}, {5, 130, 1030, 600},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static const struct {
    kh_ff_act act;
    kh_ff_rule rule;
    int flags;
} kinds[] = {
    {KH_FF_RELU, KH_FF_GATE, 0},
    {KH_FF_RELU, KH_FF_GATE, BIASES},
    {KH_FF_GELU, KH_FF_GATE, BIASES},
    {KH_FF_SILU, KH_FF_GATE, 0},
    {KH_FF_SILU, KH_FF_GATE, GATED},
    {KH_FF_SILU, KH_FF_MAGNITUDE, GATED},
    {KH_FF_SILU, KH_FF_NORM, GATED | BIASES},
    {KH_FF_GELU, KH_FF_GATE, GATED},
    {KH_FF_GELU, KH_FF_MAGNITUDE, GATED | BIASES},
    {KH_FF_RELU, KH_FF_GATE, GATED},
    {KH_FF_RELU, KH_FF_NORM, GATED},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void test_sets_and_values(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < SHAPES; i++)
        for (size_t j = 0; j < KINDS; j++) {
            layer l = make(shapes[i], kinds[j].act, kinds[j].rule, kinds[j].flags);
            run(&l);
            check_lists(&l);
            check_numbers(&l, 1e-5);
            unmake(&l);
        }
}

static void test_ties(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < SHAPES; i++)
        for (size_t j = 0; j < KINDS; j++) {
            layer l = make(shapes[i], kinds[j].act, kinds[j].rule, kinds[j].flags | WHOLE);
            run(&l);
            check_lists(&l);
            check_numbers(&l, 1e-5);
            unmake(&l);
        }
}

static void test_dense(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < SHAPES; i++)
        for (size_t j = 0; j < KINDS; j++) {
            shape s = shapes[i];
            s.k = j % 3 == 0 ? 0 : j % 3 == 1 ? s.F : s.F + 5;
            layer l = make(s, kinds[j].act, kinds[j].rule, kinds[j].flags);
            run(&l);
            check_numbers(&l, 1e-5);
            unmake(&l);
        }
}

static void test_relu_is_exact(void **unused)
{
    (void)unused;
    shape s = {40, 48, 700, 699};
    layer l = make(s, KH_FF_RELU, KH_FF_GATE, BIASES);
    for (size_t j = 0; j < s.F; j++) l.in_bias[j] -= 1.2f; /* few are positive */
    size_t most = 0;
    float *dense = malloc(s.T * s.D * sizeof *dense), *kept = l.a.y;
    run(&l);
    for (size_t t = 0; t < s.T; t++) most = l.a.counts[t] > most ? l.a.counts[t] : most;
    assert_true(most > 20 && most < 300);
    l.a.k = most;
    run(&l);
    l.a.k = 0;
    l.a.y = dense;
    assert_int_equal(kh_ff_topk_forward(&l.a), KH_OK);
    for (size_t i = 0; i < s.T * s.D; i++) assert_true(fabsf(dense[i] - kept[i]) <= 1e-5f);
    l.a.y = kept;
    l.a.k = most;
    grads dense_truth;
    l.a.k = 0;
    dense_truth = truth(&l);
    assert_true(distance(l.g.din, dense_truth.din, s.F * s.D) < 1e-5);
    assert_true(distance(l.g.dx, dense_truth.dx, s.T * s.D) < 1e-5);
    free_truth(&dense_truth);
    free(dense);
    unmake(&l);
}

/* The loss sum(dy * y) in double, with the lists that forward chose. */
static double loss(const layer *l)
{
    const kh_ff_args *a = &l->a;
    size_t D = a->width;
    double sum = 0;
    for (size_t t = 0; t < a->rows; t++)
        for (size_t e = 0; e < a->counts[t]; e++) {
            size_t at = a->indices[t * a->k + e] * D;
            double s = dot(a->x + t * D, a->in + at, D);
            if (a->in_bias) s += (double)a->in_bias[at / D];
            double u = a->up ? dot(a->x + t * D, a->up + at, D) : 1;
            sum += act_of(a->act, s) * u * dot(l->dy + t * D, a->out + at, D);
        }
    return sum;
}

static void check_slope(const layer *l, float *at, float gradient)
{
    float old = *at, h = 0.01f;
    *at = old + h;
    double right = loss(l), to = (double)*at;
    *at = old - h;
    double left = loss(l), slope = (right - left) / (to - (double)*at);
    *at = old;
    if (!(fabs(slope - (double)gradient) <= 2e-3 * (1 + fabs(slope))))
        fail_msg("finite difference %.6g, gradient %.6g", slope, (double)gradient);
}

static void test_finite_differences(void **unused)
{
    (void)unused;
    static const kh_ff_act acts[] = {KH_FF_GELU, KH_FF_SILU};
    for (int round = 0; round < 4; round++) {
        shape s = {9, 20, 90, 12};
        int gated = round % 2;
        layer l = make(s, acts[round / 2], KH_FF_MAGNITUDE, gated ? GATED : BIASES);
        run(&l);
        for (size_t i = 0; i < s.T * s.D; i += 7) check_slope(&l, l.x + i, l.g.dx[i]);
        for (size_t i = 0; i < s.F * s.D; i += 61) {
            check_slope(&l, l.in + i, l.g.din[i]);
            check_slope(&l, l.out + i, l.g.dout[i]);
            if (gated) check_slope(&l, l.up + i, l.g.dup[i]);
        }
        for (size_t i = 0; !gated && i < s.F; i += 5)
            check_slope(&l, l.in_bias + i, l.g.din_bias[i]);
        unmake(&l);
    }
}

static uint64_t mix(uint64_t h, const void *data, size_t bytes)
{
    for (size_t i = 0; data && i < bytes; i++)
        h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return h;
}

static uint64_t bits_of(const layer *l)
{
    const kh_ff_args *a = &l->a;
    size_t TD = a->rows * a->width * 4, FD = a->hidden * a->width * 4;
    uint64_t h = mix(14695981039346656037u, a->y, TD);
    h = mix(h, l->g.dx, TD);
    h = mix(h, l->g.din, FD);
    h = mix(h, l->g.dup, FD);
    h = mix(h, l->g.dout, FD);
    h = mix(h, l->g.din_bias, a->hidden * 4);
    return mix(h, l->g.dout_bias, a->width * 4);
}

static void test_threads_and_chunks(void **unused)
{
    (void)unused;
    static const size_t chunks[] = {0, 1, 7, 48, 100, 1000};
    static const shape some[] = {{61, 70, 2500, 40}, {97, 20, 200, 90}, {60, 40, 700, 0}};
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < KINDS; j += 2) {
            layer l = make(some[i], kinds[j].act, kinds[j].rule, kinds[j].flags);
            uint64_t first = 0;
            for (int threads = 1; threads <= 3; threads++)
                for (size_t c = 0; c < 6; c++) {
                    if (threads == 2 && c % 2) continue;
                    l.a.threads = threads;
                    l.a.chunk = chunks[c];
                    run(&l);
                    uint64_t bits = bits_of(&l);
                    if (first == 0) first = bits;
                    assert_true(bits == first);
                }
            unmake(&l);
        }
}

/* Rows of which nothing is known to be easy: a list that is always full, ties everywhere, NaN. */
/* Rows [from, from + n) in a call of their own, whose gradients of weights are added. */
static void run_part(const layer *l, size_t from, size_t n, int add)
{
    layer part = *l;
    size_t at = from * l->a.width;
    part.a.rows = n;
    part.a.x += at;
    part.a.y += at;
    if (l->a.k > 0) {
        part.a.indices += from * l->a.k;
        part.a.counts += from;
    }
    part.g.dy += at;
    part.g.dx += at;
    part.g.add = add;
    run(&part);
}

static void test_calls_add_up(void **unused)
{
    (void)unused;
    static const shape some[] = {{61, 70, 2500, 40}, {97, 20, 200, 90}, {60, 40, 700, 0}};
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < KINDS; j++) {
            layer l = make(some[i], kinds[j].act, kinds[j].rule, kinds[j].flags);
            run(&l);
            uint64_t bits = bits_of(&l);
            run_part(&l, 0, 25, 0);
            run_part(&l, 25, 1, 1);
            run_part(&l, 26, 0, 1);
            run_part(&l, 26, some[i].T - 26, 1);
            assert_true(bits_of(&l) == bits);
            unmake(&l);
        }
}

static void test_the_choice_alone(void **unused)
{
    (void)unused;
    for (size_t j = 0; j < KINDS; j++) {
        layer l = make((shape){61, 70, 2500, 40}, kinds[j].act, kinds[j].rule, kinds[j].flags);
        run(&l);
        uint64_t bits = bits_of(&l);
        float *y = l.a.y;
        l.a.y = NULL;
        memset(l.a.indices, 1, 61 * 40 * sizeof(uint32_t));
        memset(l.a.counts, 1, 61 * sizeof(uint32_t));
        assert_int_equal(kh_ff_topk_forward(&l.a), KH_OK);
        l.a.y = y;
        assert_true(bits_of(&l) == bits);
        unmake(&l);
    }
}

static void test_adversarial_rows(void **unused)
{
    (void)unused;
    for (size_t k = 1; k < 200; k = 3 * k + 1)
        for (int kind = 0; kind < 5; kind++) {
            shape s = {3, 16, 1500, k};
            layer l = make(s, KH_FF_GELU, KH_FF_GATE, BIASES);
            memset(l.x, 0, s.T * s.D * sizeof *l.x);
            for (size_t j = 0; j < s.F; j++)
                l.in_bias[j] = kind == 0   ? (float)j
                               : kind == 1 ? -(float)j
                               : kind == 2 ? 1.0f
                               : kind == 3 ? (float)(j / 100)
                               : j % 3     ? (float)(j % 50)
                                           : NAN;
            l.x[0] = NAN;
            run(&l);
            check_lists(&l);
            assert_int_equal(l.a.counts[0], 0);
            for (size_t i = 0; i < s.D; i++) assert_true(l.a.y[i] == l.out_bias[i]);
            assert_int_equal(l.a.counts[1], k);
            if (kind == 0) assert_int_equal(l.a.indices[s.k], s.F - k);
            if (kind == 2) assert_int_equal(l.a.indices[s.k + k - 1], k - 1);
            unmake(&l);
        }
}

static void test_without_optional_arrays(void **unused)
{
    (void)unused;
    shape s = {60, 30, 400, 20};
    layer l = make(s, KH_FF_SILU, KH_FF_NORM, GATED);
    run(&l);
    kh_ff_args bare = l.a;
    bare.indices = bare.counts = NULL;
    bare.y = malloc(s.T * s.D * sizeof(float));
    assert_int_equal(kh_ff_topk_forward(&bare), KH_OK);
    assert_memory_equal(bare.y, l.a.y, s.T * s.D * sizeof(float));
    free(bare.y);
    float *dx = malloc(s.T * s.D * sizeof *dx);
    kh_ff_gradients only = {.dy = l.dy, .dx = dx};
    assert_int_equal(kh_ff_topk_backward(&l.a, &only), KH_OK);
    assert_memory_equal(dx, l.g.dx, s.T * s.D * sizeof *dx);
    free(dx);
    float *dup = malloc(s.F * s.D * sizeof *dup);
    only = (kh_ff_gradients){.dy = l.dy, .dup = dup};
    assert_int_equal(kh_ff_topk_backward(&l.a, &only), KH_OK);
    assert_memory_equal(dup, l.g.dup, s.F * s.D * sizeof *dup);
    free(dup);
    kh_ff_args all = l.a;
    l.a.rows = 0;
    l.a.x = l.a.y = NULL;
    run(&l);
    l.a = all;
    for (size_t i = 0; i < s.F * s.D; i++) assert_true(l.g.dup[i] == 0 && l.g.dout[i] == 0);
    unmake(&l);
}

static void expect(const kh_ff_args *a, const kh_ff_gradients *g, const char *sentence)
{
    assert_int_equal(g ? kh_ff_topk_backward(a, g) : kh_ff_topk_forward(a), KH_ERR_ARGUMENT);
    if (!strstr(kh_last_error(), sentence))
        fail_msg("'%s' does not say '%s'", kh_last_error(), sentence);
}

static void test_mistakes(void **unused)
{
    (void)unused;
    layer l = make((shape){4, 8, 50, 5}, KH_FF_SILU, KH_FF_GATE, GATED), p;
    p = make((shape){4, 8, 50, 5}, KH_FF_RELU, KH_FF_GATE, BIASES);
    kh_ff_args a = l.a;
    run(&l);
    a.width = 0;
    expect(&a, NULL, "width 0");
    a = l.a;
    a.act = (kh_ff_act)9;
    expect(&a, NULL, "activation 9");
    a = l.a;
    a.rule = (kh_ff_rule)9;
    expect(&a, NULL, "rule 9");
    a = l.a;
    a.in_bias = p.in_bias;
    expect(&a, NULL, "no in_bias");
    a = l.a;
    a.counts = NULL;
    expect(&a, NULL, "counts is NULL");
    a = l.a;
    a.out = NULL;
    expect(&a, NULL, "out is NULL");
    a = l.a;
    a.y = NULL;
    a.indices = a.counts = NULL;
    expect(&a, NULL, "y is NULL");
    a = l.a;
    a.threads = -1;
    expect(&a, NULL, "-1 threads");
    a = l.a;
    a.indices = a.counts = NULL;
    expect(&a, &l.g, "needs the indices");
    l.a.indices[5] = 50;
    expect(&l.a, &l.g, "row 1 of the indices");
    l.a.indices[5] = l.a.indices[6];
    expect(&l.a, &l.g, "row 1 of the indices");
    l.a.counts[1] = 6;
    expect(&l.a, &l.g, "row 1 of the indices");
    expect(&p.a, &l.g, "dup needs a gated layer");
    expect(&l.a, &p.g, "no din_bias");
    unmake(&l);
    unmake(&p);
}

static void test_memory_may_fail(void **unused)
{
    (void)unused;
    for (int round = 0; round < 2; round++) {
        layer l = make((shape){30, 20, 300, round ? 9 : 0}, KH_FF_SILU, KH_FF_NORM, GATED);
        run(&l);
        uint64_t bits = bits_of(&l);
        kh_alloc_stats before = kh_alloc_get_stats();
        for (uint64_t n = 1; n < 40; n++) {
            kh_alloc_fail_at(n);
            kh_status status = kh_ff_topk_forward(&l.a);
            if (status == KH_OK) status = kh_ff_topk_backward(&l.a, &l.g);
            kh_alloc_fail_at(0);
            assert_true(status == KH_OK || status == KH_ERR_MEMORY);
            assert_true(status == KH_ERR_MEMORY || n > 3);
            assert_true(kh_alloc_get_stats().live == before.live);
        }
        run(&l);
        assert_true(bits_of(&l) == bits);
        unmake(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets_and_values),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_relu_is_exact),
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_threads_and_chunks),
        cmocka_unit_test(test_calls_add_up),
        cmocka_unit_test(test_the_choice_alone),
        cmocka_unit_test(test_adversarial_rows),
        cmocka_unit_test(test_without_optional_arrays),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_memory_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
