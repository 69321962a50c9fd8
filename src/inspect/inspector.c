/* One text, read as often as questions ask for it.
 *
 *     ids   | prompt                               | generated      |
 *     read[base]    keys and values of what was read without edits  ->|
 *     read[edited]  the same under the edits        ->|
 *     look          forks one of them in front of a block, and reads the block again under an observer
 *
 * All three share one engine: threads, kernels, pages. A look copies no keys, and when it has read the block that
 * follows what was read so far, that becomes part of the reading: a whole text that is looked at is read once.
 *
 * Blocks are 32 positions wherever a question begins, and prompts are read in multiples of them, so the products of a
 * row are made in the same way whoever asks, and numbers of two questions agree to the bit. Products of four rows and
 * fewer are made differently (ops/linear.c): a rest of that size joins the block before it.
 *
 * Under edits the observer of edits comes first at every point, then the one who looks; who wants to know what they
 * changed looks in front of them too. */
#include "inspect/inspector.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/distribution.h"
#include "ops/linear.h"
#include "ops/unpack.h"

#include <math.h>
#include <string.h>

enum { BLOCK = KH_INSPECT_BLOCK, REST = 4, FORKS = 4, READ_ROWS = 16 * BLOCK };

/* ---- lifetime ---- */

static kh_status check_model(const kh_model *m)
{
    if (m->family && m->d.structure != KH_DECODER)
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s models cannot be inspected yet: only decoders are",
                m->architecture);
    return KH_OK;
}

/* For products with the output head beside the passes. */
static kh_status open_products(kh_inspector *i)
{
    const kh_engine *e = i->root->engine;
    size_t step = 0, scratch = 0, threads = (size_t)e->pool.threads;
    kh_linear_need(&i->model->w.head, KH_DISTRIBUTION_ROWS, &step, &scratch);
    KH_TRY(kh_arena_init(&i->step, "readout", step + kh_arena_need(1)));
    KH_TRY(kh_new(&i->scratch, threads, sizeof *i->scratch, "worker scratch"));
    for (size_t t = 0; t < threads; t++)
        KH_TRY(kh_arena_init(&i->scratch[t], "readout worker", scratch + kh_arena_need(1)));
    i->run = (kh_run){.step = &i->step,
                      .pool = &e->pool,
                      .scratch = i->scratch,
                      .kern = e->kern,
                      .compute = e->compute};
    i->columns = (kh_columns){.pool = &e->pool, .kern = e->kern};
    return KH_OK;
}

static kh_status open_all(kh_inspector *i, const kh_session_options *options)
{
    kh_session_options own = options ? *options : (kh_session_options){0};
    KH_TRY(check_model(i->model));
    size_t context = own.context ? own.context : (size_t)i->model->d.context;
    own.forks += FORKS + kh_inspector_branch_forks(context);
    KH_TRY(kh_session_open(&i->root, i->model, &own));
    for (int r = 0; r < 2; r++) KH_TRY(kh_session_fork(&i->read[r], i->root));
    KH_TRY(kh_session_fork(&i->look, i->root));
    return open_products(i);
}

kh_status kh_inspector_open(kh_inspector **out, const kh_model *model,
                            const kh_session_options *options)
{
    kh_inspector *i = NULL;
    *out = NULL;
    KH_TRY(kh_new(&i, 1, sizeof *i, "an inspector"));
    i->model = model;
    atomic_init(&i->stop, 0);
    kh_status status = open_all(i, options);
    if (status != KH_OK) {
        kh_inspector_close(i);
        return status;
    }
    *out = i;
    return KH_OK;
}

void kh_inspector_close(kh_inspector *i)
{
    if (!i) return;
    int threads = i->root ? i->root->engine->pool.threads : 0;
    for (int t = 0; i->scratch && t < threads; t++) kh_arena_free(&i->scratch[t]);
    kh_free(i->scratch);
    kh_arena_free(&i->step);
    kh_edits_close(&i->edits);
    kh_session_close(i->look);
    for (int r = 0; r < 2; r++) kh_session_close(i->read[r]);
    for (int b = 0; b < KH_BRANCHES; b++) kh_session_close(i->branches[b]);
    kh_session_close(i->root);
    kh_columns_close(&i->columns);
    kh_free(i->norms);
    kh_free(i->ids);
    kh_free(i);
}

void kh_inspector_stop(kh_inspector *i)
{
    atomic_store(&i->stop, 1);
    for (int r = 0; r < 2; r++) kh_session_stop(i->read[r]);
    kh_session_stop(i->look);
}

kh_status kh_inspector_go_on(const kh_inspector *i)
{
    if (atomic_load(&i->stop)) KH_FAIL(KH_ERR_STOPPED, "stopped");
    return KH_OK;
}

const char *kh_inspector_attn(const kh_inspector *i)
{
    return kh_session_attn(i->root);
}

size_t kh_inspector_length(const kh_inspector *i)
{
    return i->count;
}

const int32_t *kh_inspector_tokens(const kh_inspector *i)
{
    return i->ids;
}

/* ---- the text ---- */

static kh_status check_text(const kh_inspector *i, const int32_t *ids, size_t count, size_t prompt)
{
    size_t context = kh_session_context(i->root);
    if (count == 0) KH_FAIL(KH_ERR_ARGUMENT, "the text has no tokens: at least one is expected");
    if (count > context)
        KH_FAIL(KH_ERR_CONTEXT, "%zu tokens do not fit: the context holds %zu", count, context);
    if (prompt > count)
        KH_FAIL(KH_ERR_ARGUMENT, "a prompt of %zu tokens in a text of %zu", prompt, count);
    for (size_t t = 0; t < count; t++) KH_TRY(kh_inspector_check_token(i, ids[t]));
    return KH_OK;
}

static size_t shared(const kh_session *s, const int32_t *ids, size_t count)
{
    size_t n = 0, most = kh_session_length(s) < count ? kh_session_length(s) : count;
    while (n < most && s->tokens[n] == ids[n]) n++;
    return n;
}

/* A reading keeps whole blocks of what stays the same: the rest of a block is read with its neighbours. */
static kh_status keep_shared(kh_session *s, const int32_t *ids, size_t count)
{
    size_t n = shared(s, ids, count);
    if (n == kh_session_length(s) && n == count) return KH_OK;
    n -= n % BLOCK;
    return kh_session_rewind(s, n);
}

static kh_status take_ids(kh_inspector *i, const int32_t *ids, size_t count)
{
    if (count > i->room) {
        int32_t *more = kh_realloc(i->ids, count * sizeof *more);
        if (!more) KH_FAIL(KH_ERR_MEMORY, "no memory for %zu tokens", count);
        i->ids = more;
        i->room = count;
    }
    memmove(i->ids, ids, count * sizeof *ids);
    i->count = count;
    return KH_OK;
}

/* Other edits, another prompt for steps to begin behind, or one whose means are others: nothing read under the old ones
 * holds. */
static kh_status take_edits(kh_inspector *i, const int32_t *ids, size_t count, size_t prompt,
                            const kh_edit *edits, size_t edit_count)
{
    kh_edits next;
    if (edit_count == 0) return KH_OK;
    int other_prompt = shared(i->read[KH_READING_BASE], ids, count) < prompt;
    if (kh_edits_equal(&i->edits, edits, edit_count) && prompt == i->edited_prompt &&
        !(other_prompt && kh_edits_measures(&i->edits)))
        return KH_OK;
    KH_TRY(kh_edits_open(&next, i->model, i->run.kern, i->root->engine->batch, edits, edit_count));
    kh_edits_close(&i->edits);
    i->edits = next;
    i->edited_prompt = prompt;
    return kh_session_rewind(i->read[KH_READING_EDITED], 0);
}

kh_status kh_inspector_set(kh_inspector *i, const int32_t *ids, size_t count, size_t prompt,
                           const kh_edit *edits, size_t edit_count)
{
    atomic_store(&i->stop, 0);
    if (prompt == 0) prompt = count;
    KH_TRY(check_text(i, ids, count, prompt));
    KH_TRY(take_edits(i, ids, count, prompt, edits, edit_count));
    KH_TRY(take_ids(i, ids, count));
    i->edited = edit_count > 0;
    i->prompt = prompt;
    for (int r = 0; r < 2; r++) KH_TRY(keep_shared(i->read[r], i->ids, count));
    return KH_OK;
}

kh_status kh_inspector_check_position(const kh_inspector *i, size_t position)
{
    if (i->count == 0) KH_FAIL(KH_ERR_STATE, "there is no text yet");
    if (position >= i->count)
        KH_FAIL(KH_ERR_ARGUMENT, "position %zu: the text has positions 0 to %zu", position,
                i->count - 1);
    return KH_OK;
}

kh_status kh_inspector_check_token(const kh_inspector *i, int32_t id)
{
    if (id < 0 || id >= i->model->d.V)
        KH_FAIL(KH_ERR_ARGUMENT, "token %d: ids are between 0 and %d", id, i->model->d.V - 1);
    return KH_OK;
}

void kh_inspector_block(const kh_inspector *i, size_t position, size_t *begin, size_t *end)
{
    size_t rest = i->count % BLOCK, blocks = i->count / BLOCK + (rest > REST || i->count < BLOCK);
    size_t b = position / BLOCK < blocks ? position / BLOCK : blocks - 1;
    *begin = b * BLOCK;
    *end = b + 1 < blocks ? *begin + BLOCK : i->count;
}

/* ---- reading under observers ---- */

static void chain_point(void *context, kh_point point, int layer, float *data, size_t rows,
                        size_t width)
{
    const kh_chain *c = context;
    kh_edit_place place = {c->inspector->model, c->inspector->run.kern, c->session->kv,
                           kh_session_length(c->session), c->inspector->prompt};
    if (c->before) kh_probe_at(c->before, point, layer, data, rows, width);
    if (c->edits) kh_edits_point(c->edits, &place, point, layer, data, rows, width);
    if (c->probe) kh_probe_at(c->probe, point, layer, data, rows, width);
}

static void chain_row(void *context, const kh_attn_row *row)
{
    const kh_chain *c = context;
    if (c->edits) kh_edits_row(c->edits, row);
    if (c->probe && kh_probe_wants(c->probe, KH_POINT_ATTN_ROWS) && c->probe->rows)
        c->probe->rows(c->probe->context, row);
}

static uint64_t points_of(const kh_probe *probe)
{
    return probe ? probe->points : 0;
}

kh_probe kh_inspector_chain(kh_chain *out, kh_inspector *i, const kh_session *s,
                            const kh_watch *watch)
{
    *out = (kh_chain){i, s, watch->reading == KH_READING_EDITED ? &i->edits : NULL, watch->before,
                      watch->probe};
    uint64_t points = (out->edits ? out->edits->points : 0) | points_of(watch->before) |
                      points_of(watch->probe);
    return (kh_probe){out, points, chain_point, chain_row};
}

static kh_status no_logits(void *context, size_t first, size_t rows, const float *logits)
{
    (void)context;
    (void)first;
    (void)rows;
    (void)logits;
    return KH_OK;
}

static kh_status read_under(kh_inspector *i, kh_session *s, size_t end, const kh_watch *watch)
{
    size_t from = kh_session_length(s);
    kh_chain c;
    kh_probe all = kh_inspector_chain(&c, i, s, watch);
    /* the points behind the blocks are those of rows whose logits are wanted */
    uint64_t late = UINT64_C(1) << KH_POINT_FINAL_NORM | UINT64_C(1) << KH_POINT_LOGITS;
    kh_read_options options = {.logits = points_of(watch->probe) & late ? no_logits : NULL};
    KH_TRY(kh_inspector_go_on(i));
    kh_session_observe(s, all.points ? &all : NULL);
    kh_status status = kh_session_read(s, i->ids + from, end - from, &options);
    kh_session_observe(s, NULL);
    return status;
}

/* s has read what `of` has of [0, length), and nothing else. */
static kh_status follow(kh_session *s, const kh_session *of, size_t length)
{
    kh_kv *kv = NULL;
    KH_TRY(kh_kv_fork(&kv, of->kv));
    kh_status status = kh_kv_rewind(kv, length);
    if (status != KH_OK) {
        kh_kv_close(kv);
        return status;
    }
    kh_kv_close(s->kv);
    s->kv = kv;
    s->has_logits = 0;
    memcpy(s->tokens, of->tokens, length * sizeof *s->tokens);
    return KH_OK;
}

static kh_status measure(kh_inspector *i);

/* The reading has [0, end), an end of blocks. */
static kh_status read_to(kh_inspector *i, enum kh_reading reading, size_t end)
{
    kh_session *s = i->read[reading];
    const kh_watch nobody = {.reading = reading};
    if (reading == KH_READING_EDITED && !i->edits.measured) KH_TRY(measure(i));
    for (size_t from; (from = kh_session_length(s)) < end;) {
        size_t to = from - from % READ_ROWS + READ_ROWS, begin, last;
        if (to > end) to = end;
        kh_inspector_block(i, to - 1, &begin, &last);
        KH_TRY(read_under(i, s, last, &nobody));
    }
    return KH_OK;
}

kh_status kh_inspector_ensure(kh_inspector *i, enum kh_reading reading, size_t position)
{
    size_t begin, end;
    KH_TRY(kh_inspector_check_position(i, position));
    kh_inspector_block(i, position, &begin, &end);
    return read_to(i, reading, end);
}

kh_status kh_inspector_read(kh_inspector *i, size_t position)
{
    return kh_inspector_ensure(i, kh_inspector_reading(i), position);
}

kh_status kh_inspector_look(kh_inspector *i, size_t first, size_t count, const kh_watch *watch)
{
    size_t begin, end;
    if (count == 0) return KH_OK;
    KH_TRY(kh_inspector_check_position(i, first + count - 1));
    kh_session *s = i->read[watch->reading];
    for (size_t at = first; at < first + count; at = end) {
        kh_inspector_block(i, at, &begin, &end);
        KH_TRY(read_to(i, watch->reading, begin));
        KH_TRY(follow(i->look, s, begin));
        if (watch->seen) watch->seen(watch->context, begin, end - begin);
        KH_TRY(read_under(i, i->look, end, watch));
        if (kh_session_length(s) == begin && !watch->changes) KH_TRY(follow(s, i->look, end));
    }
    return KH_OK;
}

kh_status kh_inspector_look_at(kh_inspector *i, size_t position, const kh_watch *watch)
{
    KH_TRY(kh_inspector_ensure(i, watch->reading, position));
    KH_TRY(follow(i->look, i->read[watch->reading], position));
    if (watch->seen) watch->seen(watch->context, position, 1);
    return read_under(i, i->look, position + 1, watch);
}

kh_status kh_inspector_replay_on(kh_inspector *i, size_t end, const kh_watch *watch)
{
    size_t piece = i->root->engine->batch < READ_ROWS ? i->root->engine->batch : READ_ROWS;
    for (size_t at; (at = kh_session_length(i->look)) < end;) {
        size_t n = end - at < piece ? end - at : piece;
        if (watch->seen) watch->seen(watch->context, at, n);
        KH_TRY(read_under(i, i->look, at + n, watch));
    }
    return KH_OK;
}

kh_status kh_inspector_follow(kh_inspector *i, kh_session *s, enum kh_reading reading,
                              size_t length)
{
    if (length > 0) KH_TRY(kh_inspector_ensure(i, reading, length - 1));
    if (reading == KH_READING_EDITED && !i->edits.measured) KH_TRY(measure(i));
    return follow(s, i->read[reading], length);
}

kh_status kh_inspector_replay(kh_inspector *i, size_t from, size_t end, const kh_watch *watch)
{
    KH_TRY(kh_inspector_follow(i, i->look, watch->reading, from));
    return kh_inspector_replay_on(i, end, watch);
}

const float *kh_inspector_replayed(const kh_inspector *i)
{
    return kh_session_logits(i->look);
}

kh_status kh_inspector_watch(kh_inspector *i, size_t first, size_t count, const kh_probe *probe,
                             void (*seen)(void *context, size_t position, size_t rows),
                             void *context)
{
    const kh_watch watch = {probe, seen, context, kh_inspector_reading(i), 1, NULL};
    atomic_store(&i->stop, 0);
    return kh_inspector_look(i, first, count, &watch);
}

kh_status kh_inspector_generate(kh_inspector *i, const kh_generate_options *options,
                                kh_generate_result *out)
{
    enum kh_reading reading = kh_inspector_reading(i);
    kh_session *s = i->read[reading];
    size_t begin, end;
    *out = (kh_generate_result){0};
    atomic_store(&i->stop, 0);
    KH_TRY(kh_inspector_check_position(i, 0));
    kh_inspector_block(i, i->count - 1, &begin, &end);
    if (kh_session_length(s) == end && !s->has_logits) KH_TRY(kh_session_rewind(s, begin));
    KH_TRY(read_to(i, reading, end));
    const kh_watch nobody = {.reading = reading};
    kh_chain c;
    kh_probe all = kh_inspector_chain(&c, i, s, &nobody);
    kh_session_observe(s, all.points ? &all : NULL);
    kh_status status = kh_generate(s, options, out);
    kh_session_observe(s, NULL);
    kh_status kept = take_ids(i, s->tokens, kh_session_length(s));
    return status == KH_OK ? kept : status;
}

/* ---- numbers that edits need of the unedited text ---- */

typedef struct measuring {
    kh_inspector *inspector;
    size_t position;
    double *sums; /* of the edit in flight [width] */
    kh_edit_work *work;
    const float *norms; /* [F] */
} measuring;

static void measure_block(void *context, size_t position, size_t rows)
{
    (void)rows;
    ((measuring *)context)->position = position;
}

static void measure_point(void *context, kh_point point, int layer, float *data, size_t rows,
                          size_t width)
{
    measuring *m = context;
    const kh_component *part = &m->work->edit.part;
    size_t from, n = kh_component_width(m->inspector->model, part, &from);
    (void)point;
    if (layer >= 0 && layer != part->layer) return;
    for (size_t r = 0; r < rows && m->position + r < m->inspector->prompt; r++) {
        const float *row = data + r * width;
        for (size_t i = 0; i < n && m->sums; i++) m->sums[i] += (double)row[from + i];
        if (m->sums || m->position + r + 1 != m->inspector->prompt) continue;
        float largest = 0;
        for (size_t i = 0; i < width; i++) {
            float score = fabsf(row[i]) * m->norms[i];
            if (score > largest) largest = score;
        }
        m->work->level = largest;
    }
}

static kh_status measure_mean(kh_inspector *i, measuring *m, const kh_watch *watch)
{
    size_t from, n = kh_component_width(i->model, &m->work->edit.part, &from);
    KH_TRY(kh_new(&m->sums, n, sizeof *m->sums, "a mean"));
    kh_status status = kh_inspector_look(i, 0, i->prompt, watch);
    for (size_t j = 0; j < n; j++) m->work->mean[j] = (float)(m->sums[j] / (double)i->prompt);
    kh_free(m->sums);
    m->sums = NULL;
    return status;
}

/* S + 0.01 as LM-Debugger writes it, or as a coefficient that makes it the neuron's score. */
static kh_status measure_level(kh_inspector *i, measuring *m, const kh_watch *watch)
{
    kh_edit_work *w = m->work;
    const kh_edit *e = &w->edit;
    KH_TRY(kh_inspector_norms(i, e->part.layer, &m->norms));
    KH_TRY(kh_inspector_look(i, i->prompt - 1, 1, watch));
    float asked = w->level + 0.01f, norm = m->norms[e->part.index];
    if (e->operation == KH_EDIT_COMPAT)
        w->level = e->value > 0 ? asked : 0;
    else
        w->level = norm > 0 ? copysignf(asked / norm, e->value) : 0;
    return KH_OK;
}

static kh_status measure(kh_inspector *i)
{
    for (size_t e = 0; e < i->edits.count; e++) {
        kh_edit_work *w = &i->edits.works[e];
        kh_edit_operation o = w->edit.operation;
        measuring m = {.inspector = i, .work = w};
        kh_probe probe = {&m, UINT64_C(1) << kh_component_point(w->edit.part.kind), measure_point,
                          NULL};
        const kh_watch watch = {&probe, measure_block, &m, KH_READING_BASE, 0, NULL};
        if (o == KH_EDIT_MEAN) KH_TRY(measure_mean(i, &m, &watch));
        if (o == KH_EDIT_COMPAT || o == KH_EDIT_EXACT) KH_TRY(measure_level(i, &m, &watch));
    }
    i->edits.measured = 1;
    return KH_OK;
}

/* ---- what answers look up ---- */

void kh_inspector_value(const kh_inspector *i, enum kh_reading reading, int layer, int g,
                        size_t position, float *out)
{
    const kh_kv *kv = i->read[reading]->kv;
    const void *row = kh_kv_value_row(kv, layer, g, position);
    kh_unpack unpack = kh_unpack_of(i->run.kern, kh_kv_shape_of(kv)->v_type);
    if (unpack.f32)
        unpack.f32(out, row, (size_t)i->model->d.E);
    else
        memcpy(out, row, (size_t)i->model->d.E * sizeof *out);
}

kh_status kh_inspector_norms(kh_inspector *i, int layer, const float **norms)
{
    const kh_description *d = &i->model->d;
    size_t F = (size_t)d->F;
    if (!i->norms)
        KH_TRY(kh_new(&i->norms, (size_t)d->N * F, sizeof *i->norms, "the value vectors' norms"));
    float *own = i->norms + (size_t)layer * F;
    *norms = own;
    if (own[0] > 0) return KH_OK;
    const kh_weight *down = &i->model->w.stack.blocks[layer].down;
    return kh_columns_norms(&i->columns, own, down);
}
