/* Inspection by its own identities and by brute force, on tiny models of every decoder family: a lens' last cell is
 * the model's own distribution, an account adds up to the logit, an edit that changes nothing changes no bit, one that
 * does is what an observer written by hand does, and no answer depends on how much was asked at once. */
#include "base/alloc.h"
#include "model/network.h"
#include "ops/columns.h"
#include "support/family_golden.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TEXT = 70 };

typedef struct subject {
    const char *name;
    kh_model *model;
    kh_inspector *inspector;
    int32_t ids[TEXT];
    size_t count, V;
} subject;

static kh_session_options plain(void)
{
    return (kh_session_options){.precision = KH_PRECISION_F32,
                                .k_type = KH_CACHE_F32,
                                .v_type = KH_CACHE_F32,
                                .threads = 2};
}

static void open_with(subject *s, const family *f, const char *attn)
{
    kh_session_options options = plain();
    options.attn = attn;
    *s = (subject){.name = f->name, .model = open_model(family_path(f))};
    const kh_model_info *info = kh_model_get_info(s->model);
    s->V = (size_t)info->vocabulary;
    s->count = info->context < TEXT ? (size_t)info->context : TEXT;
    uint32_t state = 12345;
    for (size_t i = 0; i < s->count; i++) {
        state = state * 1664525u + 1013904223u;
        s->ids[i] = (int32_t)((state >> 8) % s->V);
    }
    GOOD(kh_inspector_open(&s->inspector, s->model, &options));
    GOOD(kh_inspector_set(s->inspector, s->ids, s->count, 0, NULL, 0));
}

static void close_subject(subject *s)
{
    kh_inspector_close(s->inspector);
    kh_model_close(s->model);
}

static int is_decoder(const family *f)
{
    return f->task == FAMILY_CAUSAL;
}

static void set_edits(subject *s, const char *const *texts, size_t count)
{
    kh_edit edits[8];
    for (size_t i = 0; i < count; i++) GOOD(kh_edit_parse(&edits[i], s->model, texts[i]));
    GOOD(kh_inspector_set(s->inspector, s->ids, s->count, 0, edits, count));
}

/* ---- lens ---- */

typedef struct cells {
    size_t n;
    kh_lens_cell cell[TEXT * 8 * 3];
    kh_lens_token top[TEXT * 8 * 3][4], tracked[TEXT * 8 * 3];
} cells;

static kh_status take_cell(void *context, const kh_lens_cell *cell)
{
    cells *c = context;
    assert_true(c->n < sizeof c->cell / sizeof *c->cell);
    c->cell[c->n] = *cell;
    for (size_t i = 0; i < cell->top_count && i < 4; i++) c->top[c->n][i] = cell->top[i];
    if (cell->tracked_count) c->tracked[c->n] = cell->tracked[0];
    c->n++;
    return KH_OK;
}

static kh_status sum_cell(void *context, const kh_lens_cell *cell)
{
    double sum = 0, *worst = context;
    for (size_t i = 0; i < cell->top_count; i++) sum += (double)cell->top[i].probability;
    if (fabs(sum - 1) > *worst) *worst = fabs(sum - 1);
    for (size_t i = 1; i < cell->top_count; i++)
        assert_true(cell->top[i].logit <= cell->top[i - 1].logit);
    return KH_OK;
}

static void check_lens(subject *s)
{
    static cells all;
    int N = kh_model_get_info(s->model)->layers;
    int32_t tracked = (int32_t)(s->V / 2);
    kh_session_options options = plain();
    kh_session *session = open_session(s->model, &options);
    float *logits = all_logits(s->model, session, s->ids, s->count);
    double worst = 0;
    kh_lens_options o = {
        .top = 4, .tracked = &tracked, .tracked_count = 1, .cell = take_cell, .context = &all};
    all.n = 0;
    GOOD(kh_lens(s->inspector, &o));
    assert_int_equal(all.n, s->count * (size_t)N);
    for (size_t i = 0; i < all.n; i++) {
        const kh_lens_cell *c = &all.cell[i];
        assert_int_equal(c->position, i / (size_t)N);
        assert_int_equal(c->layer, i % (size_t)N);
        if (c->layer != N - 1) continue;
        const float *own = logits + c->position * s->V;
        double z = log_sum_exp(own, s->V);
        for (size_t t = 0; t < 4; t++)
            assert_true(fabs(exp((double)own[all.top[i][t].id] - z) -
                             (double)all.top[i][t].probability) < 1e-5);
        assert_true(fabs(exp((double)own[tracked] - z) - (double)all.tracked[i].probability) <
                    1e-5);
        size_t rank = 0;
        for (size_t v = 0; v < s->V; v++) rank += own[v] > own[tracked];
        assert_true(abs((int)rank - (int)all.tracked[i].rank) <= 1);
        assert_true(c->kl < 1e-6);
    }
    /* all probabilities */
    kh_lens_options whole = {
        .top = (int)(s->V < 1000 ? s->V : 1000), .cell = sum_cell, .context = &worst};
    GOOD(kh_lens(s->inspector, &whole));
    if (s->V <= 1000) assert_true(worst < 1e-5);
    kh_free(logits);
    kh_session_close(session);
}

static void lens_ends_in_the_models_distribution(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        if (!is_decoder(&families[f])) continue;
        open_with(&s, &families[f], NULL);
        check_lens(&s);
        close_subject(&s);
    }
}

/* A cell, a stretch and the whole grid, asked in this order and the other way round, have the same bits. */
static void answers_do_not_depend_on_the_question(void **state)
{
    (void)state;
    static cells all, one;
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        if (!is_decoder(&families[f])) continue;
        open_with(&s, &families[f], NULL);
        kh_inspector_close(s.inspector);
        GOOD(kh_inspector_open(&s.inspector, s.model, NULL));
        size_t at = s.count - 3, N = (size_t)kh_model_get_info(s.model)->layers;
        kh_lens_options part = {.top = 4,
                                .first = at,
                                .count = 1,
                                .first_layer = (int)N / 2,
                                .layers = 1,
                                .cell = take_cell,
                                .context = &one};
        kh_lens_options whole = {.top = 4, .cell = take_cell, .context = &all};
        for (int round = 0; round < 2; round++) {
            GOOD(kh_inspector_set(s.inspector, s.ids, s.count, 0, NULL, 0));
            all.n = one.n = 0;
            if (round) GOOD(kh_lens(s.inspector, &whole));
            GOOD(kh_lens(s.inspector, &part));
            if (!round) GOOD(kh_lens(s.inspector, &whole));
            size_t same = at * N + N / 2;
            assert_int_equal(one.n, 1);
            assert_memory_equal(one.top[0], all.top[same], sizeof one.top[0]);
            assert_true(one.cell[0].entropy == all.cell[same].entropy);
            assert_true(one.cell[0].kl == all.cell[same].kl);
            kh_inspector_close(s.inspector);
            GOOD(kh_inspector_open(&s.inspector, s.model, NULL));
        }
        close_subject(&s);
    }
}

/* ---- why ---- */

static void open_account(kh_why *why, subject *s, size_t position, int32_t a, int32_t b)
{
    const kh_why_options o = {position, a, b, 5};
    GOOD(kh_why_open(why, s->inspector, &o));
    if (!(fabs(why->leftover) < 1e-3 * (1 + fabs(why->total))))
        fail_msg("%s: logit %g, parts %g, leftover %g", s->name, why->total, why->sum,
                 why->leftover);
}

static void check_account(subject *s, size_t position, int32_t a, int32_t b)
{
    kh_why why;
    open_account(&why, s, position, a, b);
    assert_true(fabs(why.embed.value) + fabs(why.heads) + fabs(why.neurons) + fabs(why.mlps) > 0);
    double layers = 0;
    for (int l = 0; l < why.layers; l++) layers += why.attention[l].value + why.mlp[l].value;
    assert_true(fabs(layers - why.heads - why.neurons - why.mlps) < 1e-4 * (1 + fabs(layers)));
    for (size_t h = 0; h < why.head_count; h++) {
        const kh_share *share = &why.strong_heads[h];
        kh_head head;
        const kh_head_options ho = {position, share->part.layer, share->part.index, a, b};
        GOOD(kh_head_open(&head, s->inspector, &ho));
        double weights = 0;
        float best = 0;
        for (size_t k = 0; k < head.count; k++) {
            weights += (double)head.keys[k].weight;
            if (fabs(head.keys[k].value) > (double)fabsf(best)) best = (float)head.keys[k].value;
        }
        assert_true(fabs(weights - 1) < 1e-5);
        assert_true(head.kept > 0 && head.kept <= 1);
        /* what its keys gave is what the head gave */
        assert_true(fabs(head.value - share->value) < 2e-4 * (1 + fabs(share->value)));
        assert_true(fabs((double)best - share->source_value) <
                    1e-5 * (1 + fabs(share->source_value)));
        kh_head_free(&head);
    }
    kh_why_free(&why);
}

/* What edits wrote is a share of its own, wherever they write: the account adds up as it does without them. */
static const char *const account_edits[] = {
    "L1H1:scale=-2",       "L0N3:set=4",       "1_attn_out:scale=0.5", "0_mlp_out:zero",
    "0_post:add=3*L0N5",   "1_pre:project=#9", "1_mid:add=-2*#7",      "1_mlp_out:add=2*#11",
    "1_post:swap=#3,L0N7", "0_attn_out:mean",  "0_mlp_out:scale=1.5",  "embed:scale=1.1",
};

static void accounts_add_up_under_edits(void **state)
{
    (void)state;
    enum { EDITS = sizeof account_edits / sizeof *account_edits };
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        if (!is_decoder(&families[f])) continue;
        open_with(&s, &families[f], NULL);
        int experts = kh_model_get_info(s.model)->experts > 0;
        for (size_t e = 0; e <= EDITS; e++) {
            kh_edit edits[EDITS];
            size_t n = 0;
            for (size_t i = 0; i < EDITS; i++) {
                if ((e < EDITS && i != e) || (experts && strchr(account_edits[i], 'N'))) continue;
                if (kh_edit_parse(&edits[n], s.model, account_edits[i]) == KH_OK) n++;
            }
            GOOD(kh_inspector_set(s.inspector, s.ids, s.count, 0, edits, n));
            for (size_t position = 5; position < s.count; position += s.count - 6) {
                kh_why why;
                open_account(&why, &s, position, 3, 17);
                if (e < EDITS && n == 1)
                    assert_true((why.edits != 0) == (strchr(account_edits[e], '_') != NULL));
                kh_why_free(&why);
            }
        }
        close_subject(&s);
    }
}

static void accounts_add_up(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        if (!is_decoder(&families[f])) continue;
        open_with(&s, &families[f], NULL);
        check_account(&s, s.count - 1, 3, 17);
        check_account(&s, 5, 20, -1);
        close_subject(&s);
        open_with(&s, &families[f], "topk:k=4");
        check_account(&s, s.count - 1, 3, 17);
        close_subject(&s);
    }
}

/* ---- edits ---- */

typedef struct by_hand {
    kh_point point;
    int layer;
    size_t from, n;
    float factor;
} by_hand;

static void scale_by_hand(void *context, kh_point point, int layer, float *data, size_t rows,
                          size_t width)
{
    const by_hand *h = context;
    if (point != h->point || layer != h->layer) return;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < h->n; i++) data[r * width + h->from + i] *= h->factor;
}

/* Largest difference of the last layer's top token between the inspector and logits [count][V]. */
static double gap_to(subject *s, const float *logits)
{
    static cells got;
    int N = kh_model_get_info(s->model)->layers;
    double worst = 0;
    kh_lens_options o = {
        .top = 4, .first_layer = N - 1, .layers = 1, .cell = take_cell, .context = &got};
    got.n = 0;
    GOOD(kh_lens(s->inspector, &o));
    for (size_t i = 0; i < got.n; i++) {
        const float *own = logits + i * s->V;
        double z = log_sum_exp(own, s->V);
        for (size_t t = 0; t < 4; t++) {
            double gap =
                fabs(exp((double)own[got.top[i][t].id] - z) - (double)got.top[i][t].probability);
            if (gap > worst) worst = gap;
        }
    }
    return worst;
}

static void check_by_hand(subject *s, const char *edit, by_hand hand)
{
    kh_session_options options = plain();
    kh_session *session = open_session(s->model, &options);
    kh_probe probe = {&hand, UINT64_C(1) << hand.point, scale_by_hand, NULL};
    float *base = all_logits(s->model, session, s->ids, s->count);
    GOOD(kh_session_rewind(session, 0));
    kh_session_observe(session, &probe);
    float *logits = all_logits(s->model, session, s->ids, s->count);
    set_edits(s, &edit, 1);
    if (!(gap_to(s, logits) < 1e-5)) fail_msg("%s: %s is not what it says", s->name, edit);
    assert_true(gap_to(s, base) > 1e-5); /* and it does something */
    kh_free(base);
    kh_free(logits);
    kh_session_close(session);
}

static void edits_do_what_they_say(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        if (!is_decoder(&families[f])) continue;
        open_with(&s, &families[f], NULL);
        const kh_description *d = &s.model->d;
        size_t E = (size_t)d->E, D = (size_t)d->D;
        check_by_hand(&s, "L1H1:zero", (by_hand){KH_POINT_Z, 1, E, E, 0});
        check_by_hand(&s, "0_attn_out:zero", (by_hand){KH_POINT_ATTN_OUT_POST, 0, 0, D, 0});
        check_by_hand(&s, "1_mlp_out:scale=0.5", (by_hand){KH_POINT_MLP_OUT_POST, 1, 0, D, 0.5f});
        if (!d->experts.count)
            check_by_hand(&s, "L0N3:scale=-40", (by_hand){KH_POINT_MLP_ACT, 0, 3, 1, -40});
        close_subject(&s);
    }
}

static kh_status count_differences(void *context, const kh_compared *row)
{
    double *worst = context;
    if (row->kl > *worst) *worst = row->kl;
    return KH_OK;
}

static kh_status no_text(void *context, const char *text, size_t size, const kh_choice *chosen,
                         const kh_choice *alternatives, size_t count)
{
    (void)context, (void)text, (void)size, (void)chosen, (void)alternatives, (void)count;
    return KH_OK;
}

/* An edit that multiplies by one, and none at all, are the base run to the bit. */
static void edits_that_change_nothing(void **state)
{
    (void)state;
    subject s;
    const char *const one[] = {"L1H1:scale=1", "L0N3:scale=1", "0_mlp_out:scale=1"};
    static cells base, again;
    open_with(&s, family_named("llama"), NULL);
    kh_generate_options g = {.max_tokens = 12, .ignore_end = 1, .token = no_text};
    kh_generate_result result;
    kh_session_options options = plain();
    kh_session *session = open_session(s.model, &options);
    GOOD(kh_session_read(session, s.ids, 40, NULL));
    GOOD(kh_generate(session, &g, &result));
    GOOD(kh_inspector_set(s.inspector, s.ids, 40, 0, NULL, 0));
    GOOD(kh_inspector_generate(s.inspector, &g, &result));
    assert_int_equal(kh_inspector_length(s.inspector), 52);
    assert_memory_equal(kh_inspector_tokens(s.inspector), kh_session_tokens(session),
                        52 * sizeof(int32_t));
    kh_session_close(session);
    GOOD(kh_inspector_set(s.inspector, s.ids, s.count, 0, NULL, 0));
    kh_lens_options o = {.top = 4, .cell = take_cell, .context = &base};
    base.n = again.n = 0;
    GOOD(kh_lens(s.inspector, &o));
    set_edits(&s, one, 3);
    o.context = &again;
    GOOD(kh_lens(s.inspector, &o));
    assert_memory_equal(base.top, again.top, base.n * sizeof *base.top);
    double worst = 0;
    GOOD(kh_compare(s.inspector, 0, count_differences, &worst));
    assert_true(worst < 1e-9);
    GOOD(kh_inspector_set(s.inspector, s.ids, s.count, 0, NULL, 0));
    worst = 0;
    GOOD(kh_compare(s.inspector, 0, count_differences, &worst));
    assert_true(worst == 0);
    close_subject(&s);
}

/* ---- a state that one edit makes, seen by the neuron's card ---- */

static void levels_of_lm_debugger(void **state)
{
    (void)state;
    subject s;
    kh_neuron_state at;
    open_with(&s, family_named("gpt2"), NULL);
    size_t F = (size_t)s.model->d.F, last = s.count - 1, count = 0;
    kh_neuron_here *best = NULL;
    const kh_neurons_options o = {.position = last, .layer = 1, .a = -1, .b = -1, .most = 1};
    GOOD(kh_neurons(s.inspector, &o, &best, &count));
    assert_int_equal(count, 1);
    double S = best->score;
    float *norms = kh_calloc(F, sizeof *norms);
    kh_pool pool = {1};
    kh_columns columns = {&pool, kh_kern_get(kh_cpu_isa()), NULL, 0};
    GOOD(kh_columns_norms(&columns, norms, &s.model->w.stack.blocks[1].down));
    const char *texts[] = {"L1N5:compat=1", "L1N5:compat=0", "L1N5:exact=-1"};
    for (int i = 0; i < 3; i++) {
        set_edits(&s, &texts[i], 1);
        GOOD(kh_neuron_at(s.inspector, 3, 1, 5, -1, -1, &at));
        if (i < 2) /* the pre-activation, at every position */
            assert_true(fabs((double)at.gate - (i == 0 ? S + 0.01 : 0)) < 1e-4 * (S + 1));
        else
            assert_true(at.coefficient < 0 &&
                        fabs((double)fabsf(at.coefficient) * (double)norms[5] - S - 0.01) <
                            1e-4 * (S + 1));
    }
    kh_columns_close(&columns);
    kh_free(norms);
    kh_neurons_free(best);
    close_subject(&s);
}

/* ---- neurons by brute force ---- */

static void neurons_by_brute_force(void **state)
{
    (void)state;
    subject s;
    kh_neuron card;
    open_with(&s, family_named("llama"), NULL);
    const kh_description *d = &s.model->d;
    const kh_kern *kern = kh_kern_get(kh_cpu_isa());
    const kh_neuron_options o = {
        .layer = 1, .neuron = 7, .tokens = 5, .neighbours = 3, .vectors = 1};
    size_t D = (size_t)d->D, F = (size_t)d->F;
    float *row = kh_calloc(F > D ? F : D, 4), *v = kh_calloc((size_t)d->N * F * D, 4);
    for (size_t l = 0; l < (size_t)d->N; l++)
        for (size_t r = 0; r < D; r++) {
            kh_weight_row(row, &s.model->w.stack.blocks[l].down, r, kern);
            for (size_t f = 0; f < F; f++) v[(l * F + f) * D + r] = row[f];
        }
    GOOD(kh_neuron_open(&card, s.inspector, &o));
    const float *own = v + (F + 7) * D;
    double best = -1e30, norm = 0, nearest = -2;
    int best_id = -1;
    for (int32_t id = 0; id < d->V; id++) {
        double sum = 0;
        kh_weight_row(row, &s.model->w.head, (size_t)id, kern);
        for (size_t c = 0; c < D; c++) sum += (double)row[c] * (double)own[c];
        if (sum > best) best = sum, best_id = id;
    }
    for (size_t c = 0; c < D; c++) norm += (double)own[c] * (double)own[c];
    for (size_t n = 0; n < (size_t)d->N * F; n++) {
        double sum = 0, other = 0;
        for (size_t c = 0; c < D; c++) {
            sum += (double)v[n * D + c] * (double)own[c];
            other += (double)v[n * D + c] * (double)v[n * D + c];
        }
        if (n != F + 7 && sum / sqrt(other * norm) > nearest) nearest = sum / sqrt(other * norm);
    }
    assert_int_equal(card.value_top.tokens[0].id, best_id);
    assert_true(fabs((double)card.value_top.tokens[0].logit - best) < 1e-4 * (1 + fabs(best)));
    assert_true(fabs(card.value_norm - sqrt(norm)) < 1e-5 * sqrt(norm));
    assert_true(fabs(card.neighbours[0].cosine - nearest) < 1e-5);
    assert_true(card.gate_top.count == 5 && card.up_bottom.count == 5);
    kh_neuron_free(&card);
    kh_free(row);
    kh_free(v);
    close_subject(&s);
}

/* ---- search and finder ---- */

static void searches_by_brute_force(void **state)
{
    (void)state;
    subject s;
    open_with(&s, family_named("llama"), NULL);
    const kh_description *d = &s.model->d;
    const kh_kern *kern = kh_kern_get(kh_cpu_isa());
    size_t D = (size_t)d->D, F = (size_t)d->F, V = (size_t)d->V, count = 0;
    const int32_t words[] = {11, 30};
    float *row = kh_calloc(F > D ? F : D, 4), *e = kh_calloc(D, 4), *heads = kh_calloc(V * D, 4);
    float *value = kh_calloc(D, 4), *wide = kh_calloc(F, 4);
    for (size_t v = 0; v < V; v++) kh_weight_row(heads + v * D, &s.model->w.head, v, kern);
    for (size_t c = 0; c < D; c++) e[c] = (heads[11 * D + c] + heads[30 * D + c]) / 2;
    for (int order = 0; order < 3; order++) {
        kh_search_hit *hits = NULL;
        const kh_search_options o = {words, 2, (kh_search_order)order, 3, 6};
        GOOD(kh_search(s.inspector, &o, &hits, &count));
        assert_int_equal(count, 12);
        double best = -1e30, worst = 1e30;
        for (int l = 0; l < d->N; l++)
            for (size_t f = 0; f < F; f++) {
                double dot = 0, vv = 0, ee = 0;
                kh_weight_column(value, &s.model->w.stack.blocks[l].down, f, kern, wide);
                for (size_t c = 0; c < D; c++) {
                    dot += (double)e[c] * (double)value[c];
                    vv += (double)value[c] * (double)value[c];
                    ee += (double)e[c] * (double)e[c];
                }
                double key = order == KH_SEARCH_COSINE ? dot / sqrt(vv * ee) : dot;
                if (key > best) best = key;
                if (key < worst) worst = key;
            }
        for (size_t h = 0; h < count; h++) {
            double logits[2] = {0, 0};
            kh_weight_column(value, &s.model->w.stack.blocks[hits[h].part.layer].down,
                             (size_t)hits[h].part.index, kern, wide);
            for (int t = 0; t < 2; t++)
                for (size_t c = 0; c < D; c++)
                    logits[t] += (double)heads[(size_t)words[t] * D + c] * (double)value[c];
            assert_true(fabs((logits[0] + logits[1]) / 2 - hits[h].logit) < 1e-5);
            size_t ranks[2] = {0, 0};
            for (size_t v = 0; v < V; v++) {
                double other = 0;
                for (size_t c = 0; c < D; c++) other += (double)heads[v * D + c] * (double)value[c];
                for (int t = 0; t < 2; t++)
                    ranks[t] += h < 6 ? other > logits[t] + 1e-7 : other < logits[t] - 1e-7;
            }
            size_t rank = ranks[0] < ranks[1] ? ranks[0] : ranks[1];
            assert_true(labs((long)rank - (long)hits[h].rank) <= 1);
            if (order == KH_SEARCH_RANK && h % 6) assert_true(hits[h].rank >= hits[h - 1].rank);
        }
        double first = order == KH_SEARCH_COSINE ? hits[0].cosine : hits[0].logit;
        double last = order == KH_SEARCH_COSINE ? hits[6].cosine : hits[6].logit;
        if (order != KH_SEARCH_RANK) assert_true(fabs(first - best) < 1e-5);
        if (order != KH_SEARCH_RANK) assert_true(fabs(last - worst) < 1e-5);
        kh_search_free(hits);
    }
    kh_free(row), kh_free(e), kh_free(heads), kh_free(value), kh_free(wide);
    close_subject(&s);
}

typedef struct by_row {
    const subject *s;
    int layer, head;
    double previous, sink, induction, retrieval;
    size_t again;
} by_row;

static void sum_row(void *context, const kh_attn_row *row)
{
    by_row *b = context;
    const int32_t *ids = b->s->ids;
    size_t t = (size_t)row->position;
    if (row->layer != b->layer || row->head != b->head) return;
    int before = 0;
    for (size_t j = 0; j < t; j++) before |= ids[j] == ids[t];
    b->again += (size_t)before;
    for (size_t k = 0; k < row->count; k++) {
        double w = (double)row->weights[k];
        uint32_t j = row->keys[k];
        if (t > 0 && j + 1 == t) b->previous += w;
        if (t > 0 && j == 0) b->sink += w;
        if (j > 0 && ids[j - 1] == ids[t]) b->induction += w;
        if (t == b->s->count - 1 && (j == 4 || j == 5)) b->retrieval += w;
    }
}

/* Held against the rows of one reading of the whole text at once. */
static void finder_by_brute_force(void **state)
{
    (void)state;
    static const char *const attns[] = {"full", "topk:k=4"};
    for (int a = 0; a < 2; a++) {
        subject s;
        open_with(&s, family_named("qwen2"), attns[a]);
        for (size_t i = s.count / 2; i < s.count; i++) s.ids[i] = s.ids[i - s.count / 2];
        GOOD(kh_inspector_set(s.inspector, s.ids, s.count, 0, NULL, 0));
        const kh_model_info *info = kh_model_get_info(s.model);
        kh_head_scores *all = kh_calloc((size_t)(info->layers * info->heads), sizeof *all);
        const kh_find_options o = {s.count - 1, 4, 2};
        GOOD(kh_find_heads(s.inspector, &o, all));
        kh_session_options options = plain();
        options.attn = attns[a];
        kh_session *session = open_session(s.model, &options);
        by_row b = {.s = &s, .layer = 1, .head = 2};
        kh_probe probe = {&b, UINT64_C(1) << KH_POINT_ATTN_ROWS, NULL, sum_row};
        kh_session_observe(session, &probe);
        GOOD(kh_session_read(session, s.ids, s.count, NULL));
        const kh_head_scores *h = &all[info->heads + 2];
        double rows = (double)(s.count - 1);
        assert_true(b.again > 0);
        assert_true(fabs(h->previous - b.previous / rows) < 1e-5);
        assert_true(fabs(h->sink - b.sink / rows) < 1e-5);
        assert_true(fabs(h->induction - b.induction / (double)b.again) < 1e-5);
        assert_true(fabs(h->retrieval - b.retrieval) < 1e-5);
        kh_session_close(session);
        kh_free(all);
        close_subject(&s);
    }
}

/* ---- what a user can have proved ---- */

static void good_check(void *context, const char *name, int passed, const char *detail)
{
    int *seen = context;
    if (passed == 0) fail_msg("%s: %s", name, detail);
    ++*seen;
}

static void identities_hold(void **state)
{
    (void)state;
    for (size_t f = 0; f < family_count; f++) {
        subject s;
        int seen = 0;
        if (!is_decoder(&families[f])) continue;
        open_with(&s, &families[f], "topk:k=8");
        GOOD(kh_inspector_check(s.inspector, good_check, &seen));
        assert_int_equal(seen, 5);
        close_subject(&s);
    }
}

/* ---- texts ---- */

static void texts_of_edits(void **state)
{
    (void)state;
    static const char *const good[][2] = {{"l1.h2:ZERO", NULL},
                                          {"L1H2:zero", "L1H2:zero"},
                                          {"L0D3:set=2.5/1-", "L0N3:set=2.5/1-"},
                                          {"l0.n3:clamp=-1..1@0-5", "L0N3:clamp=-1..1@0-5"},
                                          {"1_MLP_OUT:scale=0.5@last", "1_mlp_out:scale=0.5@last"},
                                          {"L1H0K3:scale=0", "L1H0K3:scale=0"},
                                          {"L1H0:swap=L1H1", "L1H0:swap=L1H1"},
                                          {"1_post:add=4*#7", NULL},
                                          {"1_post:project=L0N2", "1_post:project=L0N2"},
                                          {"embed:mean/0", "embed:mean/0"},
                                          {"L0N3:compat=1", "L0N3:compat=1"},
                                          {"L99H0:zero", NULL},
                                          {"L0H99:zero", NULL},
                                          {"L0N3:zero@5-2", NULL},
                                          {"L1H0:swap=L0H1", NULL},
                                          {"L1H0:add=2", NULL},
                                          {"L0N3", NULL},
                                          {"L0N3:zero!", NULL},
                                          {"L0N3:scale", NULL},
                                          {"L0N3:scale=nan", NULL},
                                          {"1_post:add=2", NULL},
                                          {"1_post:add=2*\"x", NULL},
                                          {"7_other:zero", NULL}};
    subject s;
    open_with(&s, family_named("llama"), NULL);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        kh_edit edit, back;
        kh_status status = kh_edit_parse(&edit, s.model, good[i][0]);
        char *text = NULL;
        if (strstr(good[i][0], "#7")) {
            GOOD(status);
            GOOD(kh_edit_text(&edit, s.model, &text));
            GOOD(kh_edit_parse(&back, s.model, text));
            assert_int_equal(back.direction.token, 7);
            kh_free_text(text);
            continue;
        }
        if (!good[i][1]) {
            if (status == KH_OK) fail_msg("'%s' was read", good[i][0]);
            assert_non_null(strstr(kh_last_error(), "'"));
            continue;
        }
        GOOD(status);
        GOOD(kh_edit_text(&edit, s.model, &text));
        assert_string_equal(text, good[i][1]);
        kh_free_text(text);
    }
    close_subject(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lens_ends_in_the_models_distribution),
                                       cmocka_unit_test(answers_do_not_depend_on_the_question),
                                       cmocka_unit_test(accounts_add_up),
                                       cmocka_unit_test(accounts_add_up_under_edits),
                                       cmocka_unit_test(edits_do_what_they_say),
                                       cmocka_unit_test(edits_that_change_nothing),
                                       cmocka_unit_test(levels_of_lm_debugger),
                                       cmocka_unit_test(neurons_by_brute_force),
                                       cmocka_unit_test(searches_by_brute_force),
                                       cmocka_unit_test(finder_by_brute_force),
                                       cmocka_unit_test(identities_hold),
                                       cmocka_unit_test(texts_of_edits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
