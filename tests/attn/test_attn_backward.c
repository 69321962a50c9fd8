/* The backward pass of attention: every gradient against a dense emulation in double, which is checked
 * by finite differences itself; goldens of PyTorch; threads, chunks, strides; hard rows; mistakes. */
// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include "backward_dense.h"

#include "attn/dropout.h"
#include "base/alloc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

#define FREE   KH_ATTENTION_FREE
#define CAUSAL KH_ATTENTION_CAUSAL

static const problem problems[] = {
    {1, 1, 1, 16, 1, 1, CAUSAL, "topk:k=1", .rule = {.k = 1}},
    {2, 6, 3, 48, 70, 70, CAUSAL, "topk:k=8", .rule = {.k = 8}},
    {1, 4, 1, 64, 300, 300, CAUSAL, "topk:k=16,recent=4,sinks=2", .rule = {16, 4, 2, 0}},
    {1, 4, 2, 64, 90, 130, CAUSAL, "topk:k=20", .rule = {.k = 20}},
    {1, 2, 2, 40, 100, 30, FREE, "topk:k=7", .rule = {.k = 7}},
    {1, 2, 1, 64, 40, 200, FREE, "topk:k=1000", .rule = {.k = 1000}},
    {1, 3, 1, 80, 200, 200, CAUSAL, "topk:k=24", .rule = {.k = 24}, .window = 50},
    {1, 3, 1, 80, 150, 150, CAUSAL, "topk:k=60", .rule = {.k = 60}, .window = 50},
    {2, 2, 2, 32, 120, 120, CAUSAL, "topk:k=30,min-p=0.05", .rule = {30, 0, 0, 0.05f}},
    {1, 2, 1, 128, 3, 2500, CAUSAL, "topk:k=64", .rule = {.k = 64}},
    {1, 2, 2, 20, 150, 150, CAUSAL, "topk:k=1", .rule = {.k = 1}},
    {1, 1, 1, 64, 1300, 1300, CAUSAL, "topk:k=40", .rule = {.k = 40}, .rate = 0.2f},
    {2, 4, 2, 24, 100, 100, CAUSAL, "topk:k=12", .rule = {.k = 12}, .rate = 0.5f, .scale = 0.7f},
    {1, 2, 1, 64, 100, 100, CAUSAL, "topk:k=12", .rule = {.k = 12}, .softcap = 1.5f},
    {1, 2, 1, 64, 100, 100, FREE, "topk:k=12", .rule = {.k = 12}, .softcap = 1.5f, .rate = 0.3f},
    {1, 1, 1, 16, 1, 1, CAUSAL, "full", .rule = {0}},
    {2, 6, 3, 48, 70, 70, CAUSAL, "full", .rule = {0}},
    {1, 4, 2, 64, 90, 130, CAUSAL, NULL, .rule = {0}},
    {1, 2, 2, 40, 100, 30, FREE, "full", .rule = {0}},
    {1, 2, 1, 64, 3, 2500, CAUSAL, "full", .rule = {0}},
    {1, 1, 1, 64, 1300, 1300, CAUSAL, "full", .rule = {0}, .rate = 0.1f},
    {1, 5, 1, 20, 260, 700, CAUSAL, "full", .rule = {0}},
    {1, 3, 1, 80, 200, 200, CAUSAL, "full", .rule = {0}, .window = 50},
    {1, 2, 1, 100, 200, 200, CAUSAL, "window:recent=70,sinks=5", .rule = {0, 70, 5, 0}},
    {1, 2, 1, 64, 333, 333, CAUSAL, "window:recent=7,sinks=2", .rule = {0, 7, 2, 0}, .rate = 0.4f},
    {1, 2, 2, 64, 1200, 1200, CAUSAL, "window:recent=30", .rule = {0, 30, 0, 0}},
    {1, 2, 1, 64, 100, 100, CAUSAL, "full", .rule = {0}, .softcap = 1.5f},
    {1, 2, 1, 32, 100, 150, FREE, "full", .rule = {0}, .softcap = 2.0f, .rate = 0.3f,
     .scale = 0.5f},
    {1, 6, 1, 32, 80, 80, CAUSAL, "0.0=full;0.1-=topk:k=20", .rule = {.k = 20}, .mixed = 1},
    {2, 3, 1, 32, 80, 80, CAUSAL, "0.0=full;0.1-=window:recent=9", .rule = {0, 9, 0, 0},
     .mixed = 1},
    {2, 4, 2, 24, 90, 90, CAUSAL, "topk:k=12", .rule = {.k = 12}, .buckets = 8},
    {2, 4, 2, 24, 60, 90, FREE, "topk:k=12", .rule = {.k = 12}, .buckets = 8, .masked = 1},
    {1, 2, 1, 32, 150, 150, CAUSAL, "topk:k=30", .rule = {.k = 30}, .alibi = 1, .rate = 0.2f},
    {2, 4, 2, 24, 90, 90, CAUSAL, "full", .rule = {0}, .buckets = 8, .masked = 1},
    {1, 3, 1, 32, 60, 130, FREE, "full", .rule = {0}, .buckets = 16, .alibi = 1, .softcap = 2},
    {1, 1, 1, 64, 1300, 1300, CAUSAL, "full", .rule = {0}, .buckets = 32, .rate = 0.1f},
    {1, 4, 1, 32, 80, 80, CAUSAL, "0.0=full;0.1-=topk:k=20", .rule = {.k = 20}, .mixed = 1,
     .buckets = 4},
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

static void near(const char *what, const problem *p, const float *got, const double *want, size_t n,
                 double tolerance)
{
    double top = 1; /* inputs are of this size; what cancels to less keeps their rounding */
    for (size_t i = 0; i < n; i++) top = fmax(top, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= tolerance * (top + fabs(want[i]))))
            fail_msg("%s, %s, element %zu of %zu: %.9g, expected %.9g (largest %.3g)", what,
                     p->attn ? p->attn : "full", i, n, (double)got[i], want[i], top);
}

static void near_all(const call *c, const dense *d, double tolerance)
{
    near("out", c->p, c->args.out, d->out, c->qn, tolerance);
    near("dv", c->p, c->g.dv, d->dv, c->kn, tolerance);
    near("dq", c->p, c->g.dq, d->dq, c->qn, tolerance);
    near("dk", c->p, c->g.dk, d->dk, c->kn, tolerance);
    if (c->p->buckets) near("drelative", c->p, c->g.drelative, d->drelative, c->bn, tolerance);
}

static void compare(const call *c)
{
    dense d = backward_emulate(c, !c->p->masked);
    near_all(c, &d, 1e-5);
    backward_free(&d);
}

/* ---- tests */

static void equals_the_emulation(void **state)
{
    (void)state;
    for (int i = 0; i < PROBLEMS; i++) {
        if (SLOW && problems[i].T * problems[i].S > 100000) continue;
        call c = backward_make(&problems[i]);
        backward_run(&c);
        compare(&c);
        backward_unmake(&c);
    }
}

/* The sum of dout times out as the emulation computes it. */
static double loss(const call *c, const fixed *rows, double *const x[4])
{
    size_t E = (size_t)c->p->E;
    double z[64], sum = 0;
    for (size_t t = 0; t < c->p->T; t++) {
        backward_row(c->p, rows + t, x[0] + t * E, x[1], x[2], NULL, z, NULL, NULL);
        for (size_t e = 0; e < E; e++) sum += x[3][t * E + e] * z[e];
    }
    return sum;
}

/* The slope of the loss by every element of x[which]. */
static void slopes(const call *c, const fixed *rows, double *const x[4], int which,
                   const double *gradient, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double *y = x[which] + i, at = *y, step = 1e-5;
        *y = at + step;
        double above = loss(c, rows, x);
        *y = at - step;
        double below = loss(c, rows, x);
        *y = at;
        assert_true(fabs((above - below) / (2 * step) - gradient[i]) < 1e-8);
    }
}

static void finite_differences(void **state)
{
    (void)state;
    static const problem tiny[] = {
        {1, 1, 1, 6, 9, 9, CAUSAL, "topk:k=4", .rule = {.k = 4}},
        {1, 1, 1, 6, 9, 9, CAUSAL, "topk:k=4", .rule = {.k = 4}, .rate = 0.4f, .buckets = 4},
        {1, 1, 1, 6, 5, 9, FREE, "full", .rule = {0}, .softcap = 0.8f},
    };
    for (int i = 0; i < 3; i++) {
        call c = backward_make(&tiny[i]);
        backward_run(&c);
        dense d = backward_emulate(&c, 1);
        fixed rows[9];
        size_t kept;
        for (size_t t = 0; t < c.p->T; t++) rows[t] = backward_fix(&c, 0, t, &kept);
        double *x[4] = {backward_doubles(c.args.q, c.qn), backward_doubles(c.args.k, c.kn),
                        backward_doubles(c.args.v, c.kn), backward_doubles(c.g.dout, c.qn)};
        slopes(&c, rows, x, 0, d.dq, c.qn);
        slopes(&c, rows, x, 1, d.dk, c.kn);
        slopes(&c, rows, x, 2, d.dv, c.kn);
        compare(&c);
        for (size_t t = 0; t < c.p->T; t++) backward_unfix(&rows[t]);
        for (size_t k = 0; k < 4; k++) free(x[k]);
        backward_free(&d);
        backward_unmake(&c);
    }
}

static void same_bits(const call *a, const call *b)
{
    assert_memory_equal(a->args.out, b->args.out, a->qn * 4);
    assert_memory_equal(a->g.dq, b->g.dq, a->qn * 4);
    assert_memory_equal(a->g.dk, b->g.dk, a->kn * 4);
    assert_memory_equal(a->g.dv, b->g.dv, a->kn * 4);
    if (a->p->buckets) assert_memory_equal(a->g.drelative, b->g.drelative, a->bn * 4);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < PROBLEMS; i++) {
        if (SLOW && problems[i].T * problems[i].S > 100000) continue;
        call a = backward_make(&problems[i]), b = backward_make(&problems[i]);
        b.args.threads = 2 + i % 2;
        backward_run(&a);
        backward_run(&b);
        same_bits(&a, &b);
        if (a.saved.kept > 0)
            assert_memory_equal(a.saved.counts, b.saved.counts,
                                (size_t)a.p->B * (size_t)a.p->H * a.p->T * 4);
        backward_unmake(&a);
        backward_unmake(&b);
    }
}

/* Keys see the rows of one chunk after the other: rows that come alone must give the same sums as rows
 * that come together; over ranges dq to the bit, over lists but for the order of its terms. */
static void rows_alone(void **state)
{
    (void)state;
    enum { T = 2100, CUT = 1111, E = 64 };
    static const char *const attn[] = {"topk:k=16", "full"};
    for (int i = 0; i < 2; i++) {
        problem p = {1, 1, 1, E, T, 90, FREE, attn[i], .rule = {0}};
        call whole = backward_make(&p);
        backward_run(&whole);
        for (int part = 0; part < 2; part++) {
            problem half = p;
            half.T = part ? T - CUT : CUT;
            call c = backward_make(&half);
            size_t at = part ? CUT * E : 0;
            memcpy((void *)(uintptr_t)c.args.q, whole.args.q + at, c.qn * 4);
            memcpy((void *)(uintptr_t)c.g.dout, whole.g.dout + at, c.qn * 4);
            backward_run(&c);
            if (c.saved.kept == 0) assert_memory_equal(c.g.dq, whole.g.dq + at, c.qn * 4);
            for (size_t j = 0; j < c.qn; j++)
                assert_true(fabsf(c.g.dq[j] - whole.g.dq[at + j]) < 1e-5f);
            for (size_t j = 0; j < c.kn; j++) { /* what is left is the other part's */
                whole.g.dk[j] -= c.g.dk[j];
                whole.g.dv[j] -= c.g.dv[j];
            }
            backward_unmake(&c);
        }
        for (size_t j = 0; j < whole.kn; j++)
            assert_true(fabsf(whole.g.dk[j]) < 1e-4f && fabsf(whole.g.dv[j]) < 1e-4f);
        backward_unmake(&whole);
    }
}

static void some_gradients(void **state)
{
    (void)state;
    static const int which[] = {1, 20};
    for (int i = 0; i < 2; i++) {
        call all = backward_make(&problems[which[i]]);
        backward_run(&all);
        for (int wanted = 0; wanted < 8; wanted++) {
            call c = backward_make(&problems[which[i]]);
            kh_attention_gradients g = c.g;
            if (!(wanted & 1)) c.g.dq = NULL;
            if (!(wanted & 2)) c.g.dk = NULL;
            if (!(wanted & 4)) c.g.dv = NULL;
            backward_run(&c);
            if (wanted & 1) assert_memory_equal(g.dq, all.g.dq, c.qn * 4);
            if (wanted & 2) assert_memory_equal(g.dk, all.g.dk, c.kn * 4);
            if (wanted & 4) assert_memory_equal(g.dv, all.g.dv, c.kn * 4);
            c.g = g;
            backward_unmake(&c);
        }
        backward_unmake(&all);
    }
}

/* From [B][H][T][E] to [B][T][H][E], or back. */
static void turn(float *to, const float *from, size_t B, size_t H, size_t T, size_t E, int back)
{
    for (size_t i = 0; i < B * H * T; i++) {
        size_t other = (i / (H * T) * T + i % T) * H + i / T % H;
        memcpy(to + (back ? i : other) * E, from + (back ? other : i) * E, E * sizeof *to);
    }
}

static void strides_are_followed(void **state)
{
    (void)state;
    static const problem both[] = {
        {2, 6, 3, 48, 150, 150, CAUSAL, "topk:k=20,recent=4,sinks=2", .rule = {20, 4, 2, 0}},
        {2, 6, 3, 48, 150, 150, CAUSAL, "full", .rule = {0}}};
    for (int i = 0; i < 2; i++) {
        const problem *p = &both[i];
        size_t B = 2, H = 6, G = 3, E = 48, T = p->T;
        call a = backward_make(p), b = backward_make(p), c = backward_make(p);
        backward_run(&a);
        b.args.q_stride = b.args.out_stride = (kh_attention_stride){T * H * E, E, H * E};
        b.args.k_stride = b.args.v_stride = (kh_attention_stride){T * G * E, E, G * E};
        turn((float *)(uintptr_t)b.args.q, a.args.q, B, H, T, E, 0);
        turn((float *)(uintptr_t)b.g.dout, a.g.dout, B, H, T, E, 0);
        turn((float *)(uintptr_t)b.args.k, a.args.k, B, G, T, E, 0);
        turn((float *)(uintptr_t)b.args.v, a.args.v, B, G, T, E, 0);
        backward_run(&b);
        turn(c.args.out, b.args.out, B, H, T, E, 1);
        turn(c.g.dq, b.g.dq, B, H, T, E, 1);
        turn(c.g.dk, b.g.dk, B, G, T, E, 1);
        turn(c.g.dv, b.g.dv, B, G, T, E, 1);
        same_bits(&a, &c);
        backward_unmake(&a);
        backward_unmake(&b);
        backward_unmake(&c);
    }
}

static void dropout_drops_its_share(void **state)
{
    (void)state;
    enum { N = 4096, ROWS = 64 };
    static float w[ROWS][N], listed[N];
    static uint32_t positions[N];
    kh_attn_drop drop = kh_attn_drop_make(0.3f, 1, 2, 3), later = drop;
    size_t kept = 0, pairs = 0, columns[N] = {0};
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < N; i++) w[r][i] = 1;
        kh_attn_drop_range(&drop, r % 3, r, w[r], 0, N);
        for (size_t i = 0; i < N; i++) {
            assert_true(w[r][i] == 0 || fabsf(w[r][i] - 1 / 0.7f) < 1e-6f);
            kept += w[r][i] > 0;
            columns[i] += w[r][i] > 0;
            pairs += i > 0 && w[r][i] > 0 && w[r][i - 1] > 0;
        }
    }
    double n = (double)N * ROWS;
    assert_true(fabs((double)kept / n - 0.7) < 5 * sqrt(0.21 / n));
    assert_true(fabs((double)pairs / n - 0.49) < 5e-3);
    for (size_t i = 0; i < N; i++) assert_true(columns[i] > 20 && columns[i] < 64);
    for (size_t i = 0; i < N / 3; i++) {
        positions[i] = (uint32_t)(3 * i + 1);
        listed[i] = 1;
    }
    later.head = 2; /* the same cells, counted from elsewhere */
    later.row = 8;
    kh_attn_drop_listed(&later, 0, 3, listed, positions, N / 3);
    for (size_t i = 0; i < N / 3; i++) assert_true(listed[i] == w[11][3 * i + 1]);
    float again[N];
    size_t same = 0;
    drop = kh_attn_drop_make(0.3f, 1, 3, 3);
    for (size_t i = 0; i < N; i++) again[i] = 1;
    kh_attn_drop_range(&drop, 0, 0, again, 0, N);
    for (size_t i = 0; i < N; i++) same += again[i] == w[0][i];
    assert_true(same < N * 0.63); /* 0.58 of two independent masks agree */
}

static void hard_rows(void **state)
{
    (void)state;
    static const char *const attn[] = {"topk:k=10", "full", "topk:k=100"};
    static const rule rules[] = {{.k = 10}, {0}, {.k = 100}};
    for (int i = 0; i < 3; i++)
        for (int kind = 0; kind < 7; kind++) {
            problem p = {1, 2, 1, 32, 80, 80, CAUSAL, attn[i], .rule = rules[i]};
            call c = backward_make(&p);
            float *q = (float *)(uintptr_t)c.args.q, *k = (float *)(uintptr_t)c.args.k;
            for (size_t j = 0; j < c.qn; j++) {
                if (kind == 0) q[j] = 0;                    /* all equal */
                if (kind == 1) q[j] *= 60;                  /* nearly one key */
                if (kind == 2) q[j] = (float)(j % 32 == 0); /* ascending, below */
                if (kind == 4 && j / 32 == 30) q[j] = NAN;  /* a row without any key */
                if (kind == 5) q[j] = fabsf(q[j]);
            }
            for (size_t j = 0; j < c.kn; j++) {
                if (kind == 2 && j % 32 == 0) k[j] = (float)(j / 32) * 0.25f;
                if (kind == 3 && j / 32 % 5 == 0) k[j] = NAN;       /* keys that nobody sees */
                if (kind == 5 && j / 32 % 7 == 0) k[j] = -INFINITY; /* the same by score */
                if (kind == 6) k[j] = NAN;
            }
            backward_run(&c);
            for (size_t j = 30 * 32; kind == 4 && j < 31 * 32; j++) {
                assert_true(c.g.dq[j] == 0 && c.args.out[j] == 0);
                q[j] = ((float *)(uintptr_t)c.g.dout)[j] = 0; /* what the row must amount to */
            }
            dense d = backward_emulate(&c, 0);
            for (size_t j = 30 * 32; kind == 4 && j < 31 * 32; j++) d.out[j] = 0;
            near_all(&c, &d, kind == 1 ? 2e-4 : 1e-5);
            backward_free(&d);
            for (size_t j = 0; kind == 6 && j < c.kn; j++)
                assert_true(c.g.dk[j] == 0 && c.g.dv[j] == 0);
            backward_unmake(&c);
        }
}

/* 65,536 keys are the last that 16 bits can name. So many go through forward one key head at a time. */
static void wide_indices(void **state)
{
    (void)state;
    static const size_t sizes[] = {65536, 65537};
    for (int i = 0; i < 2; i++) {
        problem p = {1, 2, 2, 32, 3, sizes[i], FREE, "topk:k=9", .rule = {.k = 9}};
        call c = backward_make(&p);
        float *k = (float *)(uintptr_t)c.args.k;
        for (size_t e = 0; e < 32; e++)
            k[(p.S - 1) * 32 + e] = 5 * c.args.q[e]; /* row 0 keeps it */
        backward_run(&c);
        compare(&c);
        assert_int_equal(c.saved.kept, 9);
        if (i == 0)
            assert_int_equal(((uint16_t *)c.saved.indices)[8], 65535);
        else
            assert_int_equal(((uint32_t *)c.saved.indices)[8], 65536);
        backward_unmake(&c);
    }
}

static void what_is_kept(void **state)
{
    (void)state;
    static const int kept[] = {1, 8, 16, 20, 7, 200, 24, 50, 30, 64};
    for (int i = 0; i < 10; i++) {
        call c = backward_make(&problems[i]);
        const problem *p = c.p;
        assert_int_equal(c.saved.kept, kept[i]);
        backward_run(&c);
        for (size_t row = 0; row < (size_t)p->B * (size_t)p->H * p->T; row++) {
            size_t n = c.saved.counts[row], end = p->S - p->T + row % p->T + 1;
            if (p->mask == FREE) end = p->S;
            const uint16_t *list = (const uint16_t *)c.saved.indices + row * c.saved.kept;
            assert_true(n <= c.saved.kept && n >= 1 && list[n - 1] < end);
            for (size_t j = 1; j < n; j++) assert_true(list[j] > list[j - 1]);
            assert_true(c.saved.u[row] > 0.999f && c.saved.u[row] <= (float)n * 1.001f);
        }
        backward_unmake(&c);
    }
    call c = backward_make(&problems[16]);
    assert_int_equal(c.saved.kept, 0);
    backward_unmake(&c);
}

/* The output from what was saved: what forward wrote but for rounding, and gradients from it too. */
static void replay_equals_forward(void **state)
{
    (void)state;
    for (int i = 0; i < PROBLEMS; i++) {
        if (SLOW && problems[i].T * problems[i].S > 100000) continue;
        call c = backward_make(&problems[i]), other = backward_make(&problems[i]);
        backward_run(&c);
        backward_run(&other);
        for (size_t j = 0; j < c.qn; j++) c.args.out[j] = other.args.out[j] = -1e9f;
        other.args.threads = 3;
        assert_int_equal(kh_attention_replay(&c.args), KH_OK);
        assert_int_equal(kh_attention_replay(&other.args), KH_OK);
        assert_memory_equal(c.args.out, other.args.out, c.qn * 4);
        assert_int_equal(kh_attention_backward(&c.args, &c.g), KH_OK);
        compare(&c);
        backward_unmake(&c);
        backward_unmake(&other);
    }
}

static void replay_names_mistakes(void **state)
{
    (void)state;
    call c = backward_make(&problems[1]);
    backward_run(&c);
    uint16_t *indices = c.saved.indices, was = indices[10 * 8];
    indices[10 * 8] = 70;
    assert_int_equal(kh_attention_replay(&c.args), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "saved indices"));
    indices[10 * 8] = was;
    c.saved.counts[10] = 9;
    assert_int_equal(kh_attention_replay(&c.args), KH_ERR_ARGUMENT);
    c.saved.counts[10] = 8;
    c.args.attn = "topk:k=8,tail=mean";
    assert_int_equal(kh_attention_replay(&c.args), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "tail=mean"));
    c.args.attn = problems[1].attn;
    float *out = c.args.out;
    c.args.out = NULL;
    assert_int_equal(kh_attention_replay(&c.args), KH_ERR_ARGUMENT);
    c.args.out = out;
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = kh_attention_replay(&c.args);
        kh_alloc_fail_at(0);
        assert_true(kh_alloc_get_stats().live == live);
        if (!status) break;
        assert_int_equal(status, KH_ERR_MEMORY);
    }
    compare(&c);
    backward_unmake(&c);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    call c = backward_make(&problems[1]);
    backward_run(&c);
    kh_attention_args a;
    kh_attention_saved s;
    kh_attention_gradients g;
#define BAD(change, word)                                                                          \
    a = c.args, s = c.saved, g = c.g;                                                              \
    a.saved = &s;                                                                                  \
    change;                                                                                        \
    assert_int_equal(kh_attention_backward(&a, &g), KH_ERR_ARGUMENT);                              \
    assert_non_null(strstr(kh_last_error(), word))
    BAD(a.saved = NULL, "saved is NULL");
    BAD(s.kept = 7, "7 entries");
    BAD(s.m = NULL, "saved m");
    BAD(s.indices = NULL, "saved indices");
    BAD(g.dout = NULL, "dout");
    BAD(a.out = NULL, "out");
    BAD(a.attn = "topk:k=8,tail=mean", "tail=mean");
    BAD(g.drelative = g.dq, "drelative");
    BAD(a.dropout.rate = 1.0f, "dropout rate 1");
    BAD(a.dropout.rate = -0.1f, "dropout rate");
    BAD(((uint16_t *)s.indices)[10 * 8] = 70, "saved indices");
    ((uint16_t *)s.indices)[10 * 8] = 0;
    a = c.args;
    s = c.saved;
    s.kept = 3;
    a.saved = &s;
    assert_int_equal(kh_attention_forward(&a), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "3 entries"));
    backward_unmake(&c);
    for (int i = 1; i <= 16; i += 15) {
        c = backward_make(&problems[i]);
        backward_run(&c);
        uint64_t live = kh_alloc_get_stats().live;
        for (uint64_t n = 1;; n++) {
            kh_alloc_fail_at(n);
            kh_status status = kh_attention_backward(&c.args, &c.g);
            kh_alloc_fail_at(0);
            assert_true(kh_alloc_get_stats().live == live);
            if (!status) break;
            assert_int_equal(status, KH_ERR_MEMORY);
        }
        compare(&c);
        backward_unmake(&c);
    }
}

/* ---- goldens */

static void read_into(FILE *file, void *to, size_t bytes)
{
    if (fread(to, 1, bytes, file) != bytes) fail_msg("the golden file is too short");
}

static double *read_doubles(FILE *file, size_t n)
{
    float *x = malloc(n * sizeof *x);
    read_into(file, x, n * sizeof *x);
    double *y = backward_doubles(x, n);
    free(x);
    return y;
}

static void goldens(void **state)
{
    (void)state;
    char path[512], magic[8], attn[64];
    uint32_t count, shape[7];
    snprintf(path, sizeof path, "%s/attention/grad.bin", getenv("KH_TEST_DATA"));
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    read_into(file, magic, sizeof magic);
    assert_memory_equal(magic, "KHAGRAD1", 8);
    read_into(file, &count, sizeof count);
    assert_true(count >= 4);
    for (uint32_t i = 0; i < count; i++) {
        read_into(file, attn, sizeof attn);
        read_into(file, shape, sizeof shape);
        problem p = {.B = (int)shape[0],
                     .H = (int)shape[1],
                     .G = (int)shape[2],
                     .E = (int)shape[3],
                     .T = shape[4],
                     .S = shape[5],
                     .mask = shape[6] ? FREE : CAUSAL,
                     .attn = attn};
        call c = backward_make(&p);
        read_into(file, (void *)(uintptr_t)c.args.q, c.qn * 4);
        read_into(file, (void *)(uintptr_t)c.args.k, c.kn * 4);
        read_into(file, (void *)(uintptr_t)c.args.v, c.kn * 4);
        read_into(file, (void *)(uintptr_t)c.g.dout, c.qn * 4);
        dense d = {read_doubles(file, c.qn), read_doubles(file, c.qn), read_doubles(file, c.kn),
                   read_doubles(file, c.kn), NULL};
        backward_run(&c);
        near_all(&c, &d, 1e-5);
        backward_free(&d);
        backward_unmake(&c);
    }
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finite_differences),
        cmocka_unit_test(equals_the_emulation),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(rows_alone),
        cmocka_unit_test(some_gradients),
        cmocka_unit_test(strides_are_followed),
        cmocka_unit_test(dropout_drops_its_share),
        cmocka_unit_test(hard_rows),
        cmocka_unit_test(wide_indices),
        cmocka_unit_test(what_is_kept),
        cmocka_unit_test(replay_equals_forward),
        cmocka_unit_test(replay_names_mistakes),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(goldens),
    };
    return cmocka_run_group_tests_name("attn_backward", tests, NULL, NULL);
}
