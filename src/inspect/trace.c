/* Chosen points of one reading, in a folder that describes itself.
 *
 *     trace.json          schema, model, tokens, setting, edits, what was captured and in which arrays
 *     trace.safetensors   resid_post.12  F32 [rows][D]       q.3, z.3  F32 [rows][H][E]      k.3, value.3  F32 [rows][G][E]
 *                         attn_rows.3.start  I64 [rows * H + 1]      row r of head h: entries start[r H + h] ...
 *                         attn_rows.3.idx    U32 [entries]           positions of the keys, ascending
 *                         attn_rows.3.w      F32 [entries]           their weights after the softmax
 *                         attn_rows.3.mass   F32 [rows][H]           kept share of the softmax; NaN unless it is measured
 *
 * What that needs is known before anything is read, up to the number of keys that a sparse row keeps, which is bounded by
 * its setting; beyond the limit nothing is computed. Arrays are filled in memory, since a block has all points of 32
 * positions and a file wants one point of all positions, written once, and freed: nothing outlives the call. */
#include "attn/method.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "inspect/inspector.h"
#include "model/hf.h"
#include "model/network.h"

#include <errno.h>
#include <keyhole/keyhole.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { NAME = 64, PER_POINT = 4, PER_TOKEN = 96 };
#define LIMIT ((uint64_t)1 << 30)

/* The arrays of one point; sparse rows have four. */
typedef struct captured {
    kh_trace_point at;
    size_t width, filled; /* rows so far */
    float *rows;          /* [rows][width] */
    int64_t *start;       /* [rows * H + 1] */
    uint32_t *idx;
    float *w, *mass; /* mass [rows][H] */
    size_t entries, room;
} captured;

typedef struct tracing {
    kh_inspector *inspector;
    size_t first, rows;
    captured *points; /* [count] */
    size_t count;
    size_t position;  /* of the block in flight */
    size_t late[2];   /* rows of final_norm and of logits that came from it */
    kh_status status; /* of memory for sparse rows */
} tracing;

/* ---- what it needs ---- */

static size_t width_of(const kh_model *m, kh_point point)
{
    const kh_description *d = &m->d;
    size_t E = (size_t)d->E;
    switch (point) {
    case KH_POINT_Q:
    case KH_POINT_Z: return (size_t)d->H * E;
    case KH_POINT_K:
    case KH_POINT_VALUE: return (size_t)d->G * E;
    case KH_POINT_MLP_PRE:
    case KH_POINT_MLP_PRE_LINEAR:
    case KH_POINT_MLP_ACT: return (size_t)d->F;
    case KH_POINT_LOGITS: return (size_t)d->V;
    default: return (size_t)d->D;
    }
}

/* 0: the point has none. */
static size_t heads_of(const kh_model *m, kh_point point)
{
    switch (point) {
    case KH_POINT_Q:
    case KH_POINT_Z:
    case KH_POINT_ATTN_ROWS: return (size_t)m->d.H;
    case KH_POINT_K:
    case KH_POINT_VALUE: return (size_t)m->d.G;
    default: return 0;
    }
}

/* Most keys that the rows of a layer hold. */
static double keys_of(const kh_inspector *i, int layer, size_t first, size_t rows)
{
    const kh_description *d = &i->model->d;
    double sum = 0;
    for (int h = 0; h < d->H; h++) {
        const kh_attn_setting *s = kh_attn_plan_at(i->root->engine->plan, KH_PHASE_PREFILL, layer,
                                                   h);
        size_t most = (size_t)s->k;
        if (!most && strcmp(s->method->name, "window") == 0) most = (size_t)(s->recent + s->sinks);
        if (d->local[layer] && (!most || (size_t)d->window < most)) most = (size_t)d->window;
        for (size_t r = first; r < first + rows; r++)
            sum += (double)(most && most < r + 1 ? most : r + 1);
    }
    return sum;
}

static kh_status check(const kh_inspector *i, const kh_trace_options *o, size_t *rows)
{
    KH_TRY(kh_inspector_check_position(i, o->first));
    *rows = o->rows ? o->rows : i->count - o->first;
    KH_TRY(kh_inspector_check_position(i, o->first + *rows - 1));
    if (o->count == 0) KH_FAIL(KH_ERR_ARGUMENT, "no point was named");
    for (size_t p = 0; p < o->count; p++) {
        kh_point point = o->points[p].point;
        if (point == KH_POINT_RESID_MID && i->model->d.form == KH_BLOCK_PARALLEL)
            KH_FAIL(KH_ERR_UNSUPPORTED, "resid_mid: attention and feed-forward of this model read "
                                        "the same stream: there is none in between");
        if (o->points[p].layer >= i->model->d.N)
            KH_FAIL(KH_ERR_ARGUMENT, "%s.%d: the model has layers 0 to %d", kh_point_name(point),
                    o->points[p].layer, i->model->d.N - 1);
    }
    return KH_OK;
}

kh_status kh_trace_cost(const kh_inspector *i, const kh_trace_options *o, kh_trace_need *out)
{
    const kh_description *d = &i->model->d;
    size_t rows = 0, begin, end, from;
    int late = 0;
    *out = (kh_trace_need){0};
    KH_TRY(check(i, o, &rows));
    kh_inspector_block(i, o->first, &from, &end);
    kh_inspector_block(i, o->first + rows - 1, &begin, &end);
    out->rows = end - from;
    out->points = o->count;
    double bytes = (double)i->count * PER_TOKEN;
    for (size_t p = 0; p < o->count; p++) {
        kh_point point = o->points[p].point;
        late |= point == KH_POINT_LOGITS;
        if (point == KH_POINT_ATTN_ROWS)
            bytes += 8.0 * keys_of(i, o->points[p].layer, o->first, rows) +
                     12.0 * (double)rows * d->H;
        else
            bytes += 4.0 * (double)rows * (double)width_of(i->model, point);
    }
    double head = 2.0 * d->D * d->V,
           rest = 2.0 * ((double)i->model->w.parameters - (double)d->D * d->V);
    out->bytes = (uint64_t)bytes;
    out->operations = (double)end * rest + (late ? (double)out->rows * head : 0);
    return KH_OK;
}

static kh_status enforce(const kh_trace_need *need, const kh_trace_options *o)
{
    uint64_t limit = o->limit ? o->limit : LIMIT;
    if (need->bytes <= limit) return KH_OK;
    KH_FAIL(KH_ERR_MEMORY,
            "the trace needs up to %llu bytes, the limit is %llu: ask for fewer points or "
            "positions, or raise the limit",
            (unsigned long long)need->bytes, (unsigned long long)limit);
}

/* ---- capturing ---- */

static void begin_block(void *context, size_t position, size_t rows)
{
    tracing *t = context;
    (void)rows;
    t->position = position;
    t->late[0] = t->late[1] = 0;
}

static captured *find(const tracing *t, kh_point point, int layer)
{
    for (size_t p = 0; p < t->count; p++)
        if (t->points[p].at.point == point && t->points[p].at.layer == layer) return &t->points[p];
    return NULL;
}

static int wanted(const tracing *t, size_t position)
{
    return position >= t->first && position < t->first + t->rows;
}

/* Queries and keys in everybody's order, whichever the file has. */
static void copy_row(const kh_model *m, kh_point point, float *to, const float *from, size_t width)
{
    size_t E = (size_t)m->d.E;
    if ((point == KH_POINT_Q || point == KH_POINT_K) && m->info.paired)
        kh_hf_halve_rows(to, from, width / E, E / 2, sizeof *to);
    else
        memcpy(to, from, width * sizeof *to);
}

static void take_point(void *context, kh_point point, int layer, float *data, size_t rows,
                       size_t width)
{
    tracing *t = context;
    captured *c = find(t, point, layer);
    size_t position = t->position;
    /* behind the blocks rows may come in several pieces */
    if (point == KH_POINT_FINAL_NORM || point == KH_POINT_LOGITS) {
        size_t *late = &t->late[point == KH_POINT_LOGITS];
        position += *late;
        *late += rows;
    }
    if (!c || width != c->width) return;
    for (size_t r = 0; r < rows; r++) {
        if (!wanted(t, position + r)) continue;
        copy_row(t->inspector->model, point, c->rows + (position + r - t->first) * width,
                 data + r * width, width);
        c->filled++;
    }
}

static kh_status grow(captured *c, size_t more)
{
    size_t room = c->room ? c->room : 1024;
    while (room < c->entries + more) room *= 2;
    if (room == c->room) return KH_OK;
    uint32_t *idx = kh_realloc(c->idx, room * sizeof *idx);
    if (idx) c->idx = idx;
    float *w = kh_realloc(c->w, room * sizeof *w);
    if (w) c->w = w;
    if (!idx || !w) KH_FAIL(KH_ERR_MEMORY, "no memory for rows of attention");
    c->room = room;
    return KH_OK;
}

/* Rows ascend, in a row heads. */
static void take_row(void *context, const kh_attn_row *row)
{
    tracing *t = context;
    captured *c = find(t, KH_POINT_ATTN_ROWS, row->layer);
    size_t position = t->position + row->row, H = (size_t)t->inspector->model->d.H;
    if (!c || !wanted(t, position) || t->status != KH_OK) return;
    t->status = grow(c, row->count);
    if (t->status != KH_OK) return;
    memcpy(c->idx + c->entries, row->keys, row->count * sizeof *row->keys);
    memcpy(c->w + c->entries, row->weights, row->count * sizeof *row->weights);
    size_t at = (position - t->first) * H + (size_t)row->head;
    c->entries += row->count;
    c->start[at + 1] = (int64_t)c->entries;
    c->mass[at] = row->kept;
    c->filled++;
}

static kh_status open_point(const tracing *t, captured *c, kh_trace_point at)
{
    size_t H = (size_t)t->inspector->model->d.H;
    c->at = at;
    c->width = width_of(t->inspector->model, at.point);
    if (at.point != KH_POINT_ATTN_ROWS)
        return kh_new(&c->rows, t->rows * c->width, sizeof *c->rows, "rows of a point");
    KH_TRY(kh_new(&c->start, t->rows * H + 1, sizeof *c->start, "rows of attention"));
    KH_TRY(kh_new(&c->mass, t->rows * H, sizeof *c->mass, "rows of attention"));
    return grow(c, 1);
}

static kh_status capture(tracing *t, const kh_trace_options *o)
{
    kh_probe probe = {t, 0, take_point, take_row};
    const kh_watch watch = {&probe, begin_block, t, kh_inspector_reading(t->inspector), 0, NULL};
    size_t H = (size_t)t->inspector->model->d.H;
    KH_TRY(kh_new(&t->points, o->count, sizeof *t->points, "points"));
    t->count = o->count;
    for (size_t p = 0; p < o->count; p++) {
        KH_TRY(open_point(t, &t->points[p], o->points[p]));
        probe.points |= UINT64_C(1) << o->points[p].point;
    }
    KH_TRY(kh_inspector_look(t->inspector, t->first, t->rows, &watch));
    KH_TRY(t->status);
    for (size_t p = 0; p < t->count; p++) {
        const captured *c = &t->points[p];
        if (c->filled == t->rows * (c->start ? H : 1)) continue;
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s: a %s model has no such point in layer %d",
                kh_point_name(c->at.point), t->inspector->model->architecture, c->at.layer);
    }
    return KH_OK;
}

/* ---- the arrays ---- */

typedef struct arrays {
    kh_st_tensor *list; /* [count] */
    char (*names)[NAME];
    size_t count;
} arrays;

static const char *point_text(const captured *c, char *text)
{
    if (c->at.layer < 0)
        snprintf(text, NAME, "%s", kh_point_name(c->at.point));
    else
        snprintf(text, NAME, "%s.%d", kh_point_name(c->at.point), c->at.layer);
    return text;
}

static void add_array(arrays *a, const char *name, const char *part, kh_st_type type,
                      const void *data, size_t n_dims, const size_t *dims)
{
    kh_st_tensor *t = &a->list[a->count];
    snprintf(a->names[a->count], NAME, "%.48s%s", name, part);
    *t = (kh_st_tensor){
        .name = a->names[a->count], .type = type, .n_dims = (int)n_dims, .data = data};
    for (size_t i = 0; i < n_dims; i++) t->dims[i] = dims[i];
    a->count++;
}

static void add_arrays(arrays *a, const tracing *t, const captured *c)
{
    const kh_description *d = &t->inspector->model->d;
    size_t H = (size_t)d->H, E = (size_t)d->E, heads = heads_of(t->inspector->model, c->at.point);
    char name[NAME];
    point_text(c, name);
    if (!c->start) {
        size_t flat[] = {t->rows, c->width}, wide[] = {t->rows, heads, E};
        add_array(a, name, "", KH_ST_F32, c->rows, heads ? 3 : 2, heads ? wide : flat);
        return;
    }
    size_t starts[] = {t->rows * H + 1}, entries[] = {c->entries}, mass[] = {t->rows, H};
    add_array(a, name, ".start", KH_ST_I64, c->start, 1, starts);
    add_array(a, name, ".idx", KH_ST_U32, c->idx, 1, entries);
    add_array(a, name, ".w", KH_ST_F32, c->w, 1, entries);
    add_array(a, name, ".mass", KH_ST_F32, c->mass, 2, mass);
}

static kh_status write_arrays(const arrays *a, const char *path)
{
    kh_st_writer *writer = NULL;
    KH_TRY(kh_st_writer_open(&writer, path, a->list, a->count));
    for (size_t i = 0; i < a->count; i++) {
        kh_status status = kh_st_writer_put(writer, a->list[i].data, a->list[i].size);
        if (status == KH_OK) continue;
        kh_st_writer_abandon(writer);
        return status;
    }
    return kh_st_writer_commit(writer);
}

/* ---- the description ---- */

static json_t *tokens_json(const kh_inspector *i)
{
    json_t *list = json_array();
    for (size_t t = 0; t < i->count; t++) {
        char bytes[512];
        size_t n = kh_model_piece(i->model, i->ids[t], bytes, sizeof bytes);
        if (n > sizeof bytes) n = sizeof bytes;
        json_t *numbers = json_array(), *text = json_stringn(bytes, n);
        for (size_t b = 0; b < n; b++)
            json_array_append_new(numbers, json_integer((unsigned char)bytes[b]));
        json_array_append_new(list, json_pack("{s:i, s:o, s:o}", "id", (int)i->ids[t], "text",
                                              text ? text : json_null(), "bytes", numbers));
    }
    return list;
}

static json_t *edits_json(const kh_inspector *i)
{
    json_t *list = json_array();
    for (size_t e = 0; i->edited && e < i->edits.count; e++) {
        char *text = NULL;
        if (kh_edit_text(&i->edits.works[e].edit, i->model, &text) != KH_OK)
            json_array_append_new(list, json_null()); /* a vector of the caller's */
        else
            json_array_append_new(list, json_string(text));
        kh_free_text(text);
    }
    return list;
}

static json_t *model_json(const kh_model *model)
{
    const kh_model_info *m = kh_model_get_info(model);
    const char *name = strrchr(m->path, '/') ? strrchr(m->path, '/') + 1 : m->path;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i}",
                     "file", name, "name", m->name, "identity", m->identity, "architecture",
                     m->architecture, "quantisation", m->quantisation, "tokenizer", m->tokenizer,
                     "pre", m->pre, "layers", m->layers, "width", m->width, "heads", m->heads,
                     "key_heads", m->key_heads, "head_width", m->head_width, "ff_width",
                     m->ff_width, "vocabulary", m->vocabulary);
}

static json_t *arrays_json(const arrays *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < a->count; i++) {
        const kh_st_tensor *t = &a->list[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++)
            json_array_append_new(shape, json_integer((json_int_t)t->dims[d]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", t->name, "type",
                                              kh_st_type_name(t->type), "shape", shape));
    }
    return list;
}

static json_t *points_json(const tracing *t)
{
    json_t *list = json_array();
    char text[NAME];
    for (size_t p = 0; p < t->count; p++)
        json_array_append_new(list, json_string(point_text(&t->points[p], text)));
    return list;
}

static kh_status describe(const tracing *t, const arrays *a, const char *path)
{
    const kh_inspector *i = t->inspector;
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:o, s:o, s:I, s:n, s:n, s:s, s:s, s:o, s:o, s:{s:I, s:I}, s:s, s:o}",
        "schema", "keyhole-trace-1", "keyhole", kh_version(), "commit", kh_commit(), "model",
        model_json(i->model), "tokens", tokens_json(i), "prompt_tokens", (json_int_t)i->prompt,
        "template", "sampler", "attn", kh_inspector_attn(i), "ff", kh_session_ff(i->root), "edits",
        edits_json(i), "points", points_json(t), "positions", "first", (json_int_t)t->first,
        "count", (json_int_t)t->rows, "data", "trace.safetensors", "arrays", arrays_json(a));
    char *text = document ? json_dumps(document, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(document);
    if (!text) KH_FAIL(KH_ERR_MEMORY, "no memory for the description of a trace");
    kh_outfile *file = NULL;
    kh_status status = kh_outfile_open(&file, path);
    if (status == KH_OK) status = kh_outfile_write(file, text, strlen(text));
    json_free_t release = NULL;
    json_get_alloc_funcs(NULL, &release);
    release(text);
    if (status == KH_OK) return kh_outfile_commit(file);
    kh_outfile_abandon(file);
    return status;
}

static kh_status write_all(const tracing *t, const char *folder)
{
    arrays a = {0};
    kh_buf path = {0};
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        KH_FAIL(KH_ERR_IO, "%s: %s", folder, strerror(errno));
    kh_status status = kh_new(&a.list, t->count * PER_POINT, sizeof *a.list, "arrays");
    if (status == KH_OK) status = kh_new(&a.names, t->count * PER_POINT, sizeof *a.names, "names");
    for (size_t p = 0; p < t->count && status == KH_OK; p++) add_arrays(&a, t, &t->points[p]);
    if (status == KH_OK) status = kh_buf_format(&path, "%s/trace.safetensors", folder);
    if (status == KH_OK) status = write_arrays(&a, path.data);
    kh_buf_clear(&path);
    if (status == KH_OK) status = kh_buf_format(&path, "%s/trace.json", folder);
    if (status == KH_OK) status = describe(t, &a, path.data);
    kh_buf_free(&path);
    kh_free(a.list);
    kh_free(a.names);
    return status;
}

/* Into *t, which is to be let go on failure too. */
static kh_status run(tracing *t, kh_inspector *inspector, const kh_trace_options *o,
                     kh_trace_need *out)
{
    kh_trace_need need;
    *t = (tracing){.inspector = inspector, .first = o->first};
    atomic_store(&inspector->stop, 0);
    KH_TRY(check(inspector, o, &t->rows));
    KH_TRY(kh_trace_cost(inspector, o, &need));
    if (out) *out = need;
    KH_TRY(enforce(&need, o));
    return capture(t, o);
}

static void let_go(tracing *t)
{
    for (size_t p = 0; t->points && p < t->count; p++) {
        kh_free(t->points[p].rows);
        kh_free(t->points[p].start);
        kh_free(t->points[p].idx);
        kh_free(t->points[p].w);
        kh_free(t->points[p].mass);
    }
    kh_free(t->points);
}

kh_status kh_trace_write(kh_inspector *inspector, const kh_trace_options *o, const char *folder,
                         kh_trace_need *out)
{
    tracing t;
    kh_status status = run(&t, inspector, o, out);
    if (status == KH_OK) status = write_all(&t, folder);
    let_go(&t);
    return status;
}

kh_status kh_trace_read(kh_inspector *inspector, const kh_trace_options *o, kh_take_rows take,
                        void *context, kh_trace_need *out)
{
    tracing t;
    kh_status status = run(&t, inspector, o, out);
    for (size_t p = 0; p < t.count && status == KH_OK; p++) {
        const captured *c = &t.points[p];
        const kh_trace_rows rows = {.at = c->at,
                                    .first = t.first,
                                    .rows = t.rows,
                                    .width = c->start ? 0 : c->width,
                                    .heads = heads_of(inspector->model, c->at.point),
                                    .values = c->rows,
                                    .start = c->start,
                                    .idx = c->idx,
                                    .weights = c->w,
                                    .mass = c->mass};
        status = take(context, &rows);
    }
    let_go(&t);
    return status;
}
