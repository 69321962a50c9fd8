/* Cases: ops on rows. Sizes are odd on purpose: blocks of rows end early, rows are no multiple of 16. */
#include "grad_cases.h"

#include "base/fail.h"
#include "ops/rope.h"
#include "ops/rowwise.h"

enum { ROWS = 75, N = 19 };
enum { PLAIN, IN_PLACE = 1, NO_GAIN = 2, NO_BIAS = 4 };

/* A case that divides its rows calls its op for one chunk after another. */
#define EACH_CHUNK(first, rows)                                                                    \
    for (size_t first = 0, rows;                                                                   \
         rows = s->chunk && ROWS - first > s->chunk ? s->chunk : ROWS - first, first < ROWS;       \
         first += rows)

static void make_norm(grad_space *s)
{
    grad_new(s, GRAD_BUFFER, "x", ROWS * N);
    grad_new(s, GRAD_BUFFER, "y", ROWS * N);
    grad_new(s, GRAD_PARAMETER, "gain", N);
    grad_new(s, GRAD_PARAMETER, "bias", N);
}

static kh_status pass_rmsnorm(grad_space *s)
{
    int v = s->of->variant;
    float *y = v & IN_PLACE ? s->p[0] : s->p[1];
    EACH_CHUNK(first, rows)
    {
        kh_op_rmsnorm(&s->run, y + first * N, s->p[0] + first * N, v & NO_GAIN ? NULL : s->p[2],
                      1e-3f, rows, N);
        KH_TRY(grad_chunk_back(s));
    }
    return KH_OK;
}

static kh_status pass_layernorm(grad_space *s)
{
    int v = s->of->variant;
    float *y = v & IN_PLACE ? s->p[0] : s->p[1];
    EACH_CHUNK(first, rows)
    {
        kh_op_layernorm(&s->run, y + first * N, s->p[0] + first * N, v & NO_GAIN ? NULL : s->p[2],
                        v & NO_BIAS ? NULL : s->p[3], 1e-3f, rows, N);
        KH_TRY(grad_chunk_back(s));
    }
    return KH_OK;
}

/* The residual stream of a block: what was copied away is added again. */
static kh_status pass_add(grad_space *s)
{
    EACH_CHUNK(first, rows)
    {
        float *x = s->p[0] + first * N, *y = s->p[1] + first * N;
        kh_op_copy(&s->run, y, x, rows, N);
        kh_op_bias(&s->run, y, s->p[3], rows, N);
        kh_op_rmsnorm(&s->run, y, y, s->p[2], 1e-3f, rows, N);
        kh_op_add(&s->run, x, y, rows, N);
        kh_op_scale(&s->run, x, 1.75f, rows, N);
        kh_op_softcap(&s->run, x, 1.5f, rows, N);
        KH_TRY(grad_chunk_back(s));
    }
    return KH_OK;
}

static void make_gate(grad_space *s)
{
    grad_new(s, GRAD_BUFFER, "gate", ROWS * N);
    grad_new(s, GRAD_BUFFER, "up", ROWS * N);
}

static kh_status pass_glu(grad_space *s)
{
    EACH_CHUNK(first, rows)
    {
        float *gate = s->p[0] + first * N, *up = s->p[1] + first * N;
        if (s->of->variant < 4) kh_op_scale(&s->run, gate, 4.0f, rows, N);
        kh_op_glu(&s->run, gate, s->of->variant < 4 ? up : NULL, rows, N,
                  (kh_act)(s->of->variant % 4));
        KH_TRY(grad_chunk_back(s));
    }
    return KH_OK;
}

/* ---- rows that are looked up */

enum { WORDS = 11 };
static const int32_t tokens[ROWS] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4};

static void make_lookup(grad_space *s)
{
    grad_new(s, GRAD_PARAMETER, "embedding", WORDS * N);
    grad_new(s, GRAD_BUFFER, "x", ROWS * N);
    grad_new(s, GRAD_BUFFER, "y", 4 * N);
}

static kh_status pass_lookup(grad_space *s)
{
    static const uint32_t rows[] = {2, 7, 7, 70};
    kh_weight w = {.name = "embedding",
                   .rows = WORDS,
                   .cols = N,
                   .row_bytes = N * sizeof(float),
                   .data = s->p[0]};
    kh_op_embed(&s->run, s->p[1], &w, tokens, ROWS, s->of->variant ? 2.5f : 1.0f);
    kh_op_gather(&s->run, s->p[2], s->p[1], rows, 4, N);
    return KH_OK;
}

/* ---- rotary positions */

enum { HEADS = 3, E = 14, ROTATED = 10, T = 21 };

static void make_rope(grad_space *s)
{
    int32_t *position = grad_memory(s, T * sizeof *position);
    for (int t = 0; t < T; t++) position[t] = t % 7;
    s->batch = (kh_batch){.n = T, .position = position};
    grad_new(s, GRAD_BUFFER, "x", T * HEADS * E);
    grad_new(s, GRAD_FROZEN, "cosine", T * ROTATED / 2);
    grad_new(s, GRAD_FROZEN, "sine", T * ROTATED / 2);
}

static kh_status pass_rope(grad_space *s)
{
    kh_rope rope;
    kh_rope_spec spec = {
        .style = (kh_rope_style)s->of->variant, .n_rot = ROTATED, .base = 100, .attn_factor = 1.25};
    KH_TRY(kh_rope_init(&rope, &spec));
    kh_rope_angles(&s->run, &rope, s->p[1], s->p[2]);
    kh_op_rope(&s->run, &rope, s->p[0], HEADS, E, s->p[1], s->p[2]);
    return KH_OK;
}

const grad_case grad_row_cases[] = {
    {"rmsnorm", make_norm, pass_rmsnorm, PLAIN, 0},
    {"rmsnorm in place", make_norm, pass_rmsnorm, IN_PLACE, 0},
    {"rmsnorm without gain", make_norm, pass_rmsnorm, NO_GAIN, 0},
    {"rmsnorm in place without gain", make_norm, pass_rmsnorm, IN_PLACE | NO_GAIN, 0},
    {"layernorm", make_norm, pass_layernorm, PLAIN, 0},
    {"layernorm in place", make_norm, pass_layernorm, IN_PLACE, 0},
    {"layernorm without gain", make_norm, pass_layernorm, NO_GAIN, 0},
    {"layernorm without bias", make_norm, pass_layernorm, NO_BIAS, 0},
    {"layernorm in place without both", make_norm, pass_layernorm, IN_PLACE | NO_GAIN | NO_BIAS, 0},
    {"copy, bias, norm, add, scale, softcap", make_norm, pass_add, PLAIN, 0},
    {"silu with up", make_gate, pass_glu, KH_ACT_SILU, 0},
    {"gelu (tanh) with up", make_gate, pass_glu, KH_ACT_GELU_TANH, 0},
    {"gelu (erf) with up", make_gate, pass_glu, KH_ACT_GELU_ERF, 0},
    {"relu with up", make_gate, pass_glu, KH_ACT_RELU, 1},
    {"silu", make_gate, pass_glu, 4 + KH_ACT_SILU, 0},
    {"gelu (tanh)", make_gate, pass_glu, 4 + KH_ACT_GELU_TANH, 0},
    {"gelu (erf)", make_gate, pass_glu, 4 + KH_ACT_GELU_ERF, 0},
    {"relu", make_gate, pass_glu, 4 + KH_ACT_RELU, 1},
    {"embed, gather", make_lookup, pass_lookup, 0, 0},
    {"embed with a scale, gather", make_lookup, pass_lookup, 1, 0},
    {"rope, pairs", make_rope, pass_rope, KH_ROPE_PAIRS, 0},
    {"rope, halves", make_rope, pass_rope, KH_ROPE_HALF, 0},
    {0}};
