/* Feed-forward top-k inside the forward pass.
 *
 * The products with gate and up are those of every model (quantised weights, ops/linear.c); between them
 * and the product with down, all but the k best neurons of a row become 0:
 *
 *     rule g    gate -> keep -> act(gate) * up -> down      act(0) = 0, so a dropped gate is a dropped neuron
 *     rule m    act(gate) * up -> keep by |.| -> down
 *     rule n    the same by |.| times the norm of the neuron's value vector, its column of down
 *
 * Layers differ in what they keep: the setting's text becomes a table of a setting for each layer (run/rules.h),
 * and norms are computed of those layers that rank by them: once, or before every pass where weights move.
 *
 * Backwards, the derivative of what was dropped is 0; a bit for each neuron is kept.
 *
 * A row is ranked block by block into a bounded list (ff/pick.h), whose values are put back into a row of
 * zeros. Rows know nothing of each other, so a prefix gives the same rows and threads change nothing. The
 * product with down stays dense: quantised weights are stored a row for each output, not for each neuron. */
#include "ff/keep.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "ff/pick.h"
#include "ops/columns.h"
#include "run/rules.h"
#include "run/tape.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ELEMENTS = 4096 }; /* of an item */

typedef struct kept_layer {
    kh_ff_setting setting;
    float *norms;          /* [F] of the value vectors, for rule n; else NULL */
    const kh_weight *down; /* whose columns they are */
} kept_layer;

struct kh_ff_plan {
    char *text;
    size_t layers;
    kept_layer *at; /* [layers] */
    float *wide;    /* [F] a row of a down projection; NULL: no layer has norms */
};

/* ---- the setting ---- */

static kh_status parse_part(kh_ff_setting *out, const char *part, size_t n, const char *piece)
{
    static const char rules[] = "gmn"; /* as kh_ff_rule */
    const char *found = n == 6 ? strchr(rules, part[5]) : NULL;
    if (n >= 2 && memcmp(part, "k=", 2) == 0) {
        char *end;
        errno = 0;
        long long k = strtoll(part + 2, &end, 10);
        if (errno || end != part + n || part[2] < '0' || part[2] > '9' || k < 1 || k > INT32_MAX)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "feed-forward '%s': '%.*s': k is a number of neurons from 1 on", piece, (int)n,
                    part);
        out->k = (size_t)k;
        return KH_OK;
    }
    if (n >= 5 && (memcmp(part, "rule=", 5) == 0 || memcmp(part, "rank=", 5) == 0)) {
        if (!found || !*found)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "feed-forward '%s': '%.*s': a rule is g (by the gate), m (by |act(gate) * up|) "
                    "or n (that times the norm of the value vector)",
                    piece, (int)n, part);
        out->rule = (kh_ff_rule)(found - rules);
        return KH_OK;
    }
    KH_FAIL(KH_ERR_ARGUMENT, "feed-forward '%s': '%.*s' is neither k=K nor rule=g|m|n", piece,
            (int)n, part);
}

static kh_status parse_setting(kh_ff_setting *out, const char *text, const char *piece)
{
    static const char method[] = "topk:";
    *out = (kh_ff_setting){.rule = KH_FF_MAGNITUDE};
    if (strcmp(text, "dense") == 0) return KH_OK;
    if (strncmp(text, method, sizeof method - 1) != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward '%s': dense or topk:k=K[,rule=g|m|n]", piece);
    for (const char *part = text + sizeof method - 1;;) {
        size_t n = strcspn(part, ",");
        KH_TRY(parse_part(out, part, n, piece));
        if (!part[n]) break;
        part += n + 1;
    }
    if (out->k == 0)
        KH_FAIL(KH_ERR_ARGUMENT, "feed-forward '%s': k=K is missing, the neurons that stay", piece);
    return KH_OK;
}

/* Settings in the order of the text; number 0 is that of layers without a rule. */
typedef struct settings {
    kh_ff_setting *items;
    size_t count, room;
} settings;

static kh_status take_setting(void *context, uint16_t *index, char *text, const char *piece)
{
    settings *all = context;
    kh_ff_setting s;
    KH_TRY(parse_setting(&s, text, piece));
    KH_TRY(kh_grow(&all->items, all->count, &all->room, sizeof s, "the feed-forward settings"));
    all->items[all->count++] = s;
    *index = (uint16_t)all->count;
    return KH_OK;
}

static kh_status parse(kh_ff_plan *plan, const kh_rules *rules, settings *all)
{
    uint16_t *at = NULL;
    if (!plan->text) KH_FAIL(KH_ERR_MEMORY, "no memory for the feed-forward plan");
    KH_TRY(kh_new(&plan->at, plan->layers, sizeof *plan->at, "the feed-forward plan"));
    KH_TRY(kh_new(&at, plan->layers, sizeof *at, "the feed-forward plan"));
    kh_status status = kh_rules_parse(at, rules, plan->text);
    for (size_t l = 0; status == KH_OK && l < plan->layers; l++)
        if (at[l] > 0) plan->at[l].setting = all->items[at[l] - 1];
    kh_free(at);
    return status;
}

kh_status kh_ff_plan_parse(kh_ff_plan **out, const char *text, int encoder, int layers)
{
    settings all = {0};
    kh_rules rules = {.what = "feed-forward",
                      .setting = "dense, topk:k=512",
                      .rules = "0-1=dense;2-=topk:k=512",
                      .stacks = encoder > 0 ? 2 : 1,
                      .layers = {encoder > 0 ? encoder : layers, layers},
                      .phases = 1,
                      .parse = take_setting,
                      .context = &all};
    *out = NULL;
    if (layers < 1) KH_FAIL(KH_ERR_ARGUMENT, "feed-forward for %d layers", layers);
    kh_ff_plan *plan = NULL;
    KH_TRY(kh_new(&plan, 1, sizeof *plan, "the feed-forward plan"));
    plan->layers = kh_rules_size(&rules);
    plan->text = kh_strdup(text ? text : "dense");
    kh_status status = parse(plan, &rules, &all);
    kh_free(all.items);
    if (status != KH_OK) {
        kh_ff_plan_close(plan);
        return status;
    }
    *out = plan;
    return KH_OK;
}

static void find_norms(float *sums, const kh_weight *w, const kh_kern *kern, float *wide /* [F] */)
{
    memset(sums, 0, w->cols * sizeof *sums);
    for (size_t r = 0; r < w->rows; r++) {
        kh_weight_row(wide, w, r, kern);
        for (size_t i = 0; i < w->cols; i++) sums[i] += wide[i] * wide[i];
    }
    for (size_t i = 0; i < w->cols; i++) sums[i] = sqrtf(sums[i]);
}

void kh_ff_plan_update(kh_ff_plan *plan, const kh_kern *kern)
{
    for (size_t l = 0; l < plan->layers; l++)
        if (plan->at[l].norms) find_norms(plan->at[l].norms, plan->at[l].down, kern, plan->wide);
}

kh_status kh_ff_plan_bind(kh_ff_plan *plan, const kh_kern *kern, const kh_weight *const *down)
{
    size_t most = 0;
    for (size_t l = 0; l < plan->layers; l++) {
        const kh_ff_setting *s = &plan->at[l].setting;
        if (s->k == 0 || s->rule != KH_FF_NORM) continue;
        if (!down[l]->name)
            KH_FAIL(KH_ERR_UNSUPPORTED,
                    "feed-forward '%s': rule n is not supported for a mixture of experts",
                    plan->text);
        plan->at[l].down = down[l];
        if (down[l]->cols > most) most = down[l]->cols;
        KH_TRY(kh_new(&plan->at[l].norms, down[l]->cols, sizeof *plan->at[l].norms,
                      "the value vectors' norms"));
    }
    if (most > 0) KH_TRY(kh_new(&plan->wide, most, sizeof *plan->wide, "a row of weights"));
    kh_ff_plan_update(plan, kern);
    return KH_OK;
}

void kh_ff_plan_close(kh_ff_plan *plan)
{
    if (!plan) return;
    for (size_t l = 0; plan->at && l < plan->layers; l++) kh_free(plan->at[l].norms);
    kh_free(plan->at);
    kh_free(plan->wide);
    kh_free(plan->text);
    kh_free(plan);
}

const char *kh_ff_plan_text(const kh_ff_plan *plan)
{
    return plan->text;
}

kh_ff_setting kh_ff_plan_at(const kh_ff_plan *plan, int layer)
{
    return plan->at[layer].setting;
}

int kh_ff_plan_is_dense(const kh_ff_plan *plan)
{
    for (size_t l = 0; l < plan->layers; l++)
        if (plan->at[l].setting.k > 0) return 0;
    return 1;
}

/* ---- the op ---- */

typedef struct keep_job {
    const kh_run *run;
    kh_ff_setting setting;
    float *y;           /* [T][F] */
    const float *norms; /* [F] or NULL */
    uint32_t *kept;     /* [T][words(F)] a bit for each neuron; NULL: nobody asks */
    size_t T, F, block;
} keep_job;

static size_t words(size_t F)
{
    return (F + 31) / 32;
}

size_t kh_ff_keep_scratch(size_t F)
{
    return kh_arena_need(KH_PICK_BLOCK * sizeof(float)) +
           2 * kh_arena_need(kh_pick_room(F, F) * sizeof(float)) + 2 * kh_arena_need(sizeof(float));
}

static void rank_block(const keep_job *j, float *rank, const float *y, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rank[i] = j->setting.rule == KH_FF_GATE ? y[first + i] : fabsf(y[first + i]);
    for (size_t i = 0; j->norms && i < n; i++) rank[i] *= j->norms[first + i];
}

static void keep_row(const keep_job *j, size_t t, kh_arena *scratch)
{
    size_t F = j->F;
    float *y = j->y + t * F;
    kh_pick pick = {.kern = j->run->kern, .k = j->setting.k, .rows = 1};
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
    if (!j->kept) return;
    uint32_t *bits = j->kept + t * words(F);
    memset(bits, 0, words(F) * sizeof *bits);
    for (size_t i = 0; i < kept; i++)
        bits[pick.indices[i] / 32] |= (uint32_t)1 << pick.indices[i] % 32;
}

static void keep_item(void *context, size_t item, int worker)
{
    const keep_job *j = context;
    kh_arena *scratch = &j->run->scratch[worker];
    for (size_t t = item * j->block; t < (item + 1) * j->block && t < j->T; t++) {
        kh_arena_mark mark = kh_arena_save(scratch);
        keep_row(j, t, scratch);
        kh_arena_rewind(scratch, mark);
    }
}

/* ---- and back: what was dropped passes nothing on ---- */

typedef struct keep_record {
    kh_tape_record record;
    const float *y; /* [T][F] */
    uint32_t *kept; /* [T][words(F)] */
    size_t T, F;
} keep_record;

typedef struct back_job {
    const keep_record *o;
    float *d;
} back_job;

static void back_item(void *context, size_t t, int worker)
{
    const back_job *j = context;
    const uint32_t *bits = j->o->kept + t * words(j->o->F);
    float *d = j->d + t * j->o->F;
    (void)worker;
    for (size_t i = 0; i < j->o->F; i++)
        if (!(bits[i / 32] >> i % 32 & 1)) d[i] = 0;
}

static kh_status keep_back(kh_run *run, kh_tape_record *record)
{
    const keep_record *o = (const keep_record *)record;
    back_job j = {.o = o, .d = kh_tape_twin_of(run, o->y)};
    if (j.d) kh_parallel_for(run->pool, o->T, back_item, &j);
    return KH_OK;
}

static uint32_t *record_kept(kh_run *run, const float *y, size_t T, size_t F)
{
    keep_record *o = kh_tape_push(run, keep_back, sizeof *o);
    if (!o) return NULL;
    o->y = y;
    o->T = T;
    o->F = F;
    return o->kept = kh_tape_take(run, T * words(F) * sizeof *o->kept);
}

/* ---- the call ---- */

void kh_op_ff_keep(kh_run *run, enum kh_ff_stage stage, float *y, size_t T, size_t F, int layer)
{
    if (!run->ff || T == 0) return;
    const kept_layer *at = &run->ff->at[layer];
    enum kh_ff_stage ranked = at->setting.rule == KH_FF_GATE ? KH_FF_STAGE_GATE
                                                             : KH_FF_STAGE_PRODUCT;
    if (at->setting.k == 0 || at->setting.k >= F || stage != ranked) return;
    keep_job j = {.run = run, .setting = at->setting, .y = y, .norms = at->norms, .T = T, .F = F};
    j.block = F < BLOCK_ELEMENTS ? BLOCK_ELEMENTS / F : 1;
    if (kh_tape_wants(run)) j.kept = record_kept(run, y, T, F);
    kh_parallel_for(run->pool, (T + j.block - 1) / j.block, keep_item, &j);
}
