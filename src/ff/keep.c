/* Feed-forward top-k inside the forward pass.
 *
 * The products with gate and up are those of every model (quantised weights, ops/linear.c); between them
 * and the product with down, all but the k best neurons of a row become 0:
 *
 *     rule g    gate -> keep -> act(gate) * up -> down      act(0) = 0, so a dropped gate is a dropped neuron
 *     rule m    act(gate) * up -> keep by |.| -> down
 *     rule n    the same by |.| times the norm of the neuron's value vector, its column of down
 *
 * A row is ranked block by block into a bounded list (ff/pick.h), whose values are put back into a row of
 * zeros. Rows know nothing of each other, so a prefix gives the same rows and threads change nothing. The
 * product with down stays dense: quantised weights are stored a row for each output, not for each neuron. */
#include "ff/keep.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "ff/pick.h"
#include "ops/unpack.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ELEMENTS = 4096 }; /* of an item */

/* ---- the setting ---- */

static kh_status parse_part(kh_ff_plan *out, const char *part, size_t n)
{
    static const char rules[] = "gmn"; /* as kh_ff_rule */
    const char *found = n == 6 ? strchr(rules, part[5]) : NULL;
    if (n >= 2 && memcmp(part, "k=", 2) == 0) {
        char *end;
        errno = 0;
        long long k = strtoll(part + 2, &end, 10);
        if (errno || end != part + n || part[2] < '0' || part[2] > '9' || k < 1 || k > INT32_MAX)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "feed-forward '%s': '%.*s': k is a number of neurons from 1 on", out->text,
                    (int)n, part);
        out->k = (size_t)k;
        return KH_OK;
    }
    if (n >= 5 && (memcmp(part, "rule=", 5) == 0 || memcmp(part, "rank=", 5) == 0)) {
        if (!found || !*found)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "feed-forward '%s': '%.*s': a rule is g (by the gate), m (by |act(gate) * up|) "
                    "or n (that times the norm of the value vector)",
                    out->text, (int)n, part);
        out->rule = (kh_ff_rule)(found - rules);
        return KH_OK;
    }
    KH_FAIL(KH_ERR_ARGUMENT, "feed-forward '%s': '%.*s' is neither k=K nor rule=g|m|n", out->text,
            (int)n, part);
}

kh_status kh_ff_plan_parse(kh_ff_plan *out, const char *text)
{
    static const char method[] = "topk:";
    *out = (kh_ff_plan){.rule = KH_FF_MAGNITUDE};
    if (!text) text = "dense";
    int size = snprintf(out->text, sizeof out->text, "%s", text);
    if (size < 0 || (size_t)size >= sizeof out->text)
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward '%.40s...': dense or topk:k=K[,rule=g|m|n]", text);
    if (strcmp(text, "dense") == 0) return KH_OK;
    if (strncmp(text, method, sizeof method - 1) != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward '%s': dense or topk:k=K[,rule=g|m|n]", text);
    for (const char *part = text + sizeof method - 1;;) {
        size_t n = strcspn(part, ",");
        KH_TRY(parse_part(out, part, n));
        if (!part[n]) break;
        part += n + 1;
    }
    if (out->k == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward '%s': k=K is missing, the neurons that stay", text);
    return KH_OK;
}

typedef struct norms_job {
    const kh_ff_plan *plan;
    const kh_weight *const *down;
    const kh_kern *kern;
    float *wide; /* [F] */
} norms_job;

static void add_norms(const norms_job *j, size_t layer)
{
    const kh_weight *w = j->down[layer];
    kh_unpack unpack = kh_unpack_of(j->kern, w->type);
    float *sums = j->plan->norms + layer * j->plan->F;
    for (size_t r = 0; r < w->rows; r++) {
        const char *at = (const char *)w->data + r * w->row_bytes;
        if (unpack.f32)
            unpack.f32(j->wide, at, w->cols);
        else
            memcpy(j->wide, at, w->cols * sizeof *j->wide);
        for (size_t i = 0; i < w->cols; i++) sums[i] += j->wide[i] * j->wide[i];
    }
    for (size_t i = 0; i < w->cols; i++) sums[i] = sqrtf(sums[i]);
}

kh_status kh_ff_plan_bind(kh_ff_plan *plan, const kh_kern *kern, const kh_weight *const *down,
                          size_t layers)
{
    if (plan->k == 0 || plan->rule != KH_FF_NORM || layers == 0) return KH_OK;
    norms_job j = {.plan = plan, .down = down, .kern = kern};
    plan->F = down[0]->cols;
    KH_TRY(kh_new(&plan->norms, layers * plan->F, sizeof *plan->norms, "the value vectors' norms"));
    KH_TRY(kh_new(&j.wide, plan->F, sizeof *j.wide, "a row of the down projection"));
    for (size_t layer = 0; layer < layers; layer++) add_norms(&j, layer);
    kh_free(j.wide);
    return KH_OK;
}

void kh_ff_plan_close(kh_ff_plan *plan)
{
    kh_free(plan->norms);
    plan->norms = NULL;
}

/* ---- the op ---- */

typedef struct keep_job {
    const kh_run *run;
    const kh_ff_plan *plan;
    float *y;           /* [T][F] */
    const float *norms; /* [F] or NULL */
    size_t T, F, block;
} keep_job;

size_t kh_ff_keep_scratch(size_t F)
{
    return kh_arena_need(KH_PICK_BLOCK * sizeof(float)) +
           2 * kh_arena_need(kh_pick_room(F, F) * sizeof(float)) + 2 * kh_arena_need(sizeof(float));
}

static void rank_block(const keep_job *j, float *rank, const float *y, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rank[i] = j->plan->rule == KH_FF_GATE ? y[first + i] : fabsf(y[first + i]);
    for (size_t i = 0; j->norms && i < n; i++) rank[i] *= j->norms[first + i];
}

static void keep_row(const keep_job *j, float *y, kh_arena *scratch)
{
    size_t F = j->F;
    kh_pick pick = {.kern = j->run->kern, .k = j->plan->k, .rows = 1};
    pick.ld = kh_pick_room(pick.k, F);
    float *rank = kh_arena_take(scratch, KH_PICK_BLOCK * sizeof *rank);
    pick.values = kh_arena_take(scratch, pick.ld * sizeof *pick.values);
    pick.indices = kh_arena_take(scratch, pick.ld * sizeof *pick.indices);
    pick.counts = kh_arena_take(scratch, sizeof *pick.counts);
    pick.thresholds = kh_arena_take(scratch, sizeof *pick.thresholds);
    kh_pick_start(&pick, -INFINITY);
    for (size_t first = 0; first < F; first += KH_PICK_BLOCK) {
        size_t n = F - first < KH_PICK_BLOCK ? F - first : KH_PICK_BLOCK;
        rank_block(j, rank, y, first, n);
        kh_pick_offer(&pick, 0, 1, rank, KH_PICK_BLOCK, n, (uint32_t)first);
    }
    size_t kept = kh_pick_finish(&pick, 0);
    for (size_t i = 0; i < kept; i++) pick.values[i] = y[pick.indices[i]];
    memset(y, 0, F * sizeof *y);
    for (size_t i = 0; i < kept; i++) y[pick.indices[i]] = pick.values[i];
}

static void keep_item(void *context, size_t item, int worker)
{
    const keep_job *j = context;
    kh_arena *scratch = &j->run->scratch[worker];
    for (size_t t = item * j->block; t < (item + 1) * j->block && t < j->T; t++) {
        kh_arena_mark mark = kh_arena_save(scratch);
        keep_row(j, j->y + t * j->F, scratch);
        kh_arena_rewind(scratch, mark);
    }
}

void kh_op_ff_keep(kh_run *run, const kh_ff_plan *plan, float *y, size_t T, size_t F, int layer)
{
    if (plan->k == 0 || plan->k >= F || T == 0) return;
    keep_job j = {.run = run, .plan = plan, .y = y, .T = T, .F = F};
    j.norms = plan->norms ? plan->norms + (size_t)layer * F : NULL;
    j.block = F < BLOCK_ELEMENTS ? BLOCK_ELEMENTS / F : 1;
    kh_parallel_for(run->pool, (T + j.block - 1) / j.block, keep_item, &j);
}
