/* The backward pass of attention over kept indices: O(K) a row, whatever the length.
 *
 * For a row with query q, upstream gradient o and kept keys j (Gupta et al. 2021; the choice is a
 * constant):
 *
 *     p_j = exp(scale q . k_j - m) / u      a_j = o . v_j, dropped as the weight was     D = o . out
 *     ds_j = scale p_j (a_j - D)            dq = sum ds_j k_j
 *     dk_j += ds_j q                        dv_j += p~_j o           (p~: after dropout)
 *
 * Rows are taken in chunks that stay in the second-level cache, as triples [rows][3][E] of q, o and dq; a
 * row is (token, head), heads fastest. Keys are taken in ranges. Rows wait in a queue at each key that
 * they kept, one cache line a key:
 *
 *     | row | row | ... 31 rows | count |      when it is full, and at the end of the range: back_triples
 *
 * reads k_j, v_j, dk_j and dv_j once for all that wait and goes through their triples twice while they are
 * near: products and weights, then dk, dv and dq. Nothing is gathered from memory and no list of weights
 * exists.
 *
 * All query rows that reach the keys of one key head of one batch entry are a job. Where jobs are few,
 * the keys of a chunk are cut into PARTS, each with its own triples, and their dq are added in order.
 * Cuts follow from the shapes alone and a key sees its rows in order, so threads do not change a bit, no
 * copies of dk and dv exist, and one head keeps all threads busy.
 *
 * Keys without weight (their score is NaN or minus infinity) give and get nothing.
 *
 * Measured (Xeon 2.5 GHz, AVX-512, 12 heads of 64, k = 128, one thread, a query and head): 3.3 us at 2k, 3.7
 * at 8k, of which back_triples takes 70 %, the queues 19 %; queues of 16 and a last pass that gathered keys
 * for dq took 4.5 and 5. Chunks of 512 to 1,024 rows and queues of 23 and 31 are equal; a pair costs 26
 * cycles where its row is in the first level and 35 where it is in the second.
 *
 * Rejected: to gather keys and values by row, and keys again for dq (half again as much traffic, most of
 * it from the third level); dq by a second pass that gathers keys by row; a counting sort in the place of
 * the queues (two more passes over the lists); to ask for the next rows while these are worked on (a fifth
 * slower: the loads that ask compete with those that read). */
#include "attn/backward.h"

#include "attn/bias.h"
#include "base/alloc.h"
#include "base/arena.h"
#include "base/fail.h"
#include "kern/attn_kern.h"
#include "kern/grad_kern.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    PARTS = 4,              /* of a chunk's keys where there are fewer than JOBS jobs */
    JOBS = 8,               /* from here on jobs alone keep threads busy */
    RANGE = 2048,           /* keys that have queues at a time: 128 KiB */
    WAITING = 31,           /* rows that a queue holds */
    ASK = 27,               /* waiting rows at which the key itself is asked for */
    CHUNK_FLOATS = 3 << 15, /* of triples: 384 KiB */
    LEAST_ROWS = 32,
    MOST_HEADS = 1024 /* of a run: rows of a chunk are numbered in 16 bits */
};

/* The rows that wait at a key. The kernel looks at 32 numbers and takes `count` for one of a row, too. */
typedef struct queue {
    uint16_t rows[WAITING], count;
} queue;

/* A chunk of rows of one run of heads, and the keys that are taken to it: what one item works with. */
typedef struct chunk {
    kh_attn_heads run;
    size_t first, tokens, n; /* rows: n = tokens * heads */
    float *triples;          /* [room][3][E] q, o, dq */
    float *shifts, *sums;    /* [room] m + ln u, D */
    uint64_t *bits;          /* [room] of dropout */
    size_t *biases;          /* [room] kh_attn_bias_at */
    const void **lists;      /* [room] the rows' indices */
    uint32_t *counts, *at;   /* [room] and how many, and how many of them are done */
    queue *queues;           /* [RANGE] empty between ranges */
    float *spare;            /* [2][E] in the place of a gradient that nobody wants */
    double *relative;        /* [group][buckets] of the item; NULL: not wanted */
} chunk;

typedef struct work {
    const kh_attn_back *back;
    size_t K, E, room;
    size_t jobs, parts, group; /* group: query heads of a key head */
    size_t sums;               /* [group][buckets] of the biases' gradient; 0: not wanted */
    kh_attn_heads *starts;     /* [jobs] the first run of each */
    float *copies;             /* [parts][room][E] of dq, where there are parts */
    double *relative;          /* [jobs or parts][sums] */
    kh_arena shared, *scratch;
    kh_attn_heads run; /* with parts: the chunk that all work on */
    size_t first, tokens;
    atomic_int broken; /* an index is none of the keys */
} work;

int kh_attn_next_heads(const kh_attn_back *back, enum kh_keys_kind kind, kh_attn_heads *run)
{
    size_t H = (size_t)back->layer->H, group = H / (size_t)back->layer->G;
    size_t at = run->b * H + run->head + run->heads, end = (size_t)back->args->batch * H;
    for (; at < end; at += run->heads) {
        run->b = at / H;
        run->head = at % H;
        run->g = run->head / group;
        run->heads = 1;
        run->setting = kh_attn_plan_at(back->plan, KH_PHASE_PREFILL, back->layer->layer,
                                       (int)run->head);
        size_t last = (run->g + 1) * group;
        while (run->head + run->heads < last && run->heads < MOST_HEADS &&
               kh_attn_plan_at(back->plan, KH_PHASE_PREFILL, back->layer->layer,
                               (int)(run->head + run->heads)) == run->setting)
            run->heads++;
        if (run->setting->method->kind == kind) return 1;
    }
    return 0;
}

void kh_attn_uncap(float *d, const float *scores, size_t n, float cap, float scale)
{
    for (size_t i = 0; i < n; i++) {
        float t = scores[i] / cap;
        if (d[i] != 0) d[i] *= scale * (1.0f - t * t);
    }
}

size_t kh_attn_bias_at(const kh_attn_back *back, size_t head, size_t token)
{
    const kh_attn_bias *bias = back->layer->bias;
    size_t before = back->args->keys - back->args->queries;
    size_t position = back->layer->order == KH_ATTN_ALL_KEYS ? token : before + token;
    return head * bias->span + bias->origin - position;
}

static int is_wide(const work *w)
{
    return w->back->wide;
}

static inline uint32_t entry(const void *list, size_t i, int wide)
{
    return wide ? ((const uint32_t *)list)[i] : ((const uint16_t *)list)[i];
}

/* Keys that a token sees: none at or beyond. */
static size_t end_of(const work *w, size_t token)
{
    const kh_attention_args *a = w->back->args;
    return w->back->layer->order == KH_ATTN_ALL_KEYS ? a->keys : a->keys - a->queries + token + 1;
}

/* ---- rows */

/* The first entry that is at least `begin`; no branch depends on the data. */
static inline uint32_t first_from(const void *list, uint32_t n, uint32_t begin, int wide)
{
    uint32_t low = 0;
    for (uint32_t half; n > 1; n -= half) {
        half = n / 2;
        low += half * (entry(list, low + half - 1, wide) < begin);
    }
    return low + (n > 0 && entry(list, low, wide) < begin);
}

/* The entries of a list of at most `end` keys as forward wrote it; 0 where the row has no weights. */
static inline __attribute__((always_inline)) uint32_t check_list(work *w, const void *list,
                                                                 size_t at, size_t end, int wide)
{
    const kh_attention_saved *saved = w->back->args->saved;
    size_t n = saved->u[at] > 0 ? saved->counts[at] : 0, falls = 0;
    if (n > w->K) falls = n = 1;
    for (size_t i = 1; i < n; i++) falls += entry(list, i, wide) <= entry(list, i - 1, wide);
    if (falls == 0 && (n == 0 || entry(list, n - 1, wide) < end)) return (uint32_t)n;
    atomic_store(&w->broken, 1);
    return 0;
}

static void load_row(work *w, chunk *c, size_t r)
{
    const kh_attn_back *b = w->back;
    size_t E = w->E, t = c->first + r / c->run.heads, h = c->run.head + r % c->run.heads;
    size_t head = c->run.b * (size_t)b->layer->H + h, at = kh_attn_saved_at(b, c->run.b, h, t);
    size_t row = c->run.b * b->out.batch + h * b->out.head + t * b->out.row;
    float *q = c->triples + r * 3 * E, *o = q + E;
    int wide = is_wide(w);
    memcpy(q, b->args->q + c->run.b * b->q.batch + h * b->q.head + t * b->q.row, E * sizeof *q);
    memcpy(o, b->gradients->dout + row, E * sizeof *o);
    memset(o + E, 0, E * sizeof *o);
    b->kern->gemv_f32(c->sums + r, o, E, 1, b->args->out + row, E);
    c->shifts[r] = b->args->saved->m[at] + logf(b->args->saved->u[at]);
    c->lists[r] = (const char *)b->args->saved->indices + at * w->K * (wide ? 4 : 2);
    c->counts[r] = wide ? check_list(w, c->lists[r], at, end_of(w, t), 1)
                        : check_list(w, c->lists[r], at, end_of(w, t), 0);
    if (b->layer->bias) c->biases[r] = kh_attn_bias_at(b, h, t);
    if (b->drop) c->bits[r] = kh_attn_drop_bits(b->drop, head, t);
}

/* ---- keys */

/* What was added to the raw score of row r and key j. */
static float bias_of(const work *w, const chunk *c, size_t r, size_t j)
{
    const kh_attn_back *b = w->back;
    const uint8_t *mask = b->args->bias->key_mask;
    const float *distances = b->layer->bias->distances;
    if (mask && !mask[c->run.b * b->args->keys + j]) return -INFINITY;
    return distances ? distances[c->biases[r] + j] : 0.0f;
}

/* The rows' derivatives by their scores of key j, by bucket of the distance. */
static void sum_buckets(const work *w, const chunk *c, const queue *q, const float *ds, size_t j)
{
    const kh_attn_back *b = w->back;
    size_t heads = c->run.heads, buckets = (size_t)b->args->bias->buckets;
    size_t head = c->run.head - c->run.g * w->group;
    for (size_t i = 0; i < q->count; i++) {
        size_t r = q->rows[i], t = c->first + r / heads;
        uint16_t bucket = b->buckets[kh_attn_bias_at(b, 0, t) + j];
        c->relative[(head + r % heads) * buckets + bucket] += (double)ds[i];
    }
}

/* A key's part of the arrays. */
typedef struct vectors {
    const float *k, *v;
    float *dk, *dv; /* NULL: not wanted */
} vectors;

static inline vectors vectors_of(const work *w, const chunk *c, size_t j)
{
    const kh_attn_back *b = w->back;
    size_t k = c->run.b * b->k.batch + c->run.g * b->k.head + j * b->k.row;
    size_t v = c->run.b * b->v.batch + c->run.g * b->v.head + j * b->v.row;
    return (vectors){b->args->k + k, b->args->v + v, b->gradients->dk ? b->gradients->dk + k : NULL,
                     b->gradients->dv ? b->gradients->dv + v : NULL};
}

/* Key j and the rows that wait at it. */
static void empty_queue(const work *w, const chunk *c, queue *q, size_t j)
{
    const kh_attn_back *b = w->back;
    kh_back how = {c->shifts, c->sums, b->layer->scale, b->layer->softcap};
    const kh_attn_bias *bias = b->layer->bias;
    float ds[WAITING + 1], gains[WAITING + 1], biases[WAITING + 1];
    vectors x = vectors_of(w, c, j);
    if (b->drop) {
        uint32_t rows[WAITING + 1];
        for (size_t i = 0; i < q->count; i++) {
            rows[i] = q->rows[i];
            gains[i] = 1.0f;
        }
        kh_attn_drop_column(b->drop, c->bits, rows, gains, j, q->count);
    }
    for (size_t i = 0; bias && i < q->count; i++) biases[i] = bias_of(w, c, q->rows[i], j);
    b->kern->back_triples(x.dk ? x.dk : c->spare, x.dv ? x.dv : c->spare + w->E, ds, x.k, x.v,
                          c->triples, q->rows, b->drop ? gains : NULL, bias ? biases : NULL,
                          q->count, &how, w->E);
    if (c->relative) sum_buckets(w, c, q, ds, j);
    q->count = 0;
}

/* What empty_queue will need of key j. */
static inline void ask_for(const work *w, const chunk *c, size_t j)
{
    vectors x = vectors_of(w, c, j);
    for (size_t e = 0; e < w->E; e += KH_PANEL) {
        __builtin_prefetch(x.k + e);
        __builtin_prefetch(x.v + e);
        if (x.dk) __builtin_prefetch(x.dk + e, 1);
        if (x.dv) __builtin_prefetch(x.dv + e, 1);
    }
}

/* Keys [begin, begin + keys), which is where the rows' lists are. */
static inline __attribute__((always_inline)) void do_range(const work *w, const chunk *c,
                                                           uint32_t begin, uint32_t keys, int wide)
{
    queue *queues = c->queues;
    for (uint32_t r = 0; r < c->n; r++) {
        const void *list = c->lists[r];
        uint32_t i = c->at[r], n = c->counts[r];
        for (; i < n; i++) {
            uint32_t in = entry(list, i, wide) - begin;
            if (in >= keys) break;
            queue *q = queues + in;
            uint32_t full = q->count++;
            q->rows[full] = (uint16_t)r;
            if (full == ASK) ask_for(w, c, begin + in);
            if (full == WAITING - 1) empty_queue(w, c, q, begin + in);
        }
        c->at[r] = i;
    }
    for (uint32_t in = 0; in < keys; in++)
        if (queues[in].count > 0) empty_queue(w, c, queues + in, begin + in);
}

/* ---- items */

static size_t place_chunk(const work *w, chunk *c, char *base)
{
    size_t n = w->room, at = kh_arena_place(&c->queues, base, 0, RANGE * sizeof *c->queues);
    at = kh_arena_place(&c->triples, base, at, n * 3 * w->E * sizeof *c->triples);
    at = kh_arena_place(&c->shifts, base, at, n * sizeof *c->shifts);
    at = kh_arena_place(&c->sums, base, at, n * sizeof *c->sums);
    at = kh_arena_place(&c->bits, base, at, n * sizeof *c->bits);
    at = kh_arena_place(&c->biases, base, at, n * sizeof *c->biases);
    at = kh_arena_place(&c->lists, base, at, n * sizeof *c->lists);
    at = kh_arena_place(&c->counts, base, at, n * sizeof *c->counts);
    at = kh_arena_place(&c->at, base, at, n * sizeof *c->at);
    return kh_arena_place(&c->spare, base, at, 2 * w->E * sizeof *c->spare);
}

static void open_chunk(const work *w, chunk *c, int worker, size_t item)
{
    kh_arena *scratch = &w->scratch[worker];
    place_chunk(w, c, kh_arena_take(scratch, place_chunk(w, c, NULL)));
    memset(c->queues, 0, RANGE * sizeof *c->queues);
    memset(c->spare, 0, 2 * w->E * sizeof *c->spare);
    c->relative = w->sums > 0 ? w->relative + item * w->sums : NULL;
    for (size_t i = 0; i < w->sums; i++) c->relative[i] = 0;
}

/* The rows of tokens [first, first + tokens) and one part of the keys that they see. */
static void do_chunk(work *w, chunk *c, size_t first, size_t tokens, size_t part)
{
    size_t end = end_of(w, first + tokens - 1), begin = end * part / w->parts;
    int wide = is_wide(w);
    c->first = first;
    c->tokens = tokens;
    c->n = tokens * c->run.heads;
    end = end * (part + 1) / w->parts;
    for (size_t r = 0; r < c->n; r++) {
        load_row(w, c, r);
        c->at[r] = first_from(c->lists[r], c->counts[r], (uint32_t)begin, wide);
    }
    for (size_t keys; begin < end; begin += keys) {
        keys = end - begin < RANGE ? end - begin : RANGE;
        if (wide)
            do_range(w, c, (uint32_t)begin, (uint32_t)keys, 1);
        else
            do_range(w, c, (uint32_t)begin, (uint32_t)keys, 0);
    }
}

/* dq of row r of a chunk. */
static float *dq_of(const work *w, const kh_attn_heads *run, size_t first, size_t r)
{
    const kh_attn_back *b = w->back;
    return b->gradients->dq + run->b * b->q.batch + (run->head + r % run->heads) * b->q.head +
           (first + r / run->heads) * b->q.row;
}

static size_t tokens_from(const work *w, const kh_attn_heads *run, size_t first)
{
    size_t tokens = w->room / run->heads, left = w->back->args->queries - first;
    return left < tokens ? left : tokens;
}

/* All runs of one key head, chunk by chunk. */
static void job_item(void *context, size_t item, int worker)
{
    work *w = context;
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    chunk c = {.run = w->starts[item]};
    open_chunk(w, &c, worker, item);
    size_t at = c.run.b, g = c.run.g, E = w->E;
    do {
        for (size_t first = 0; first < w->back->args->queries; first += c.tokens) {
            do_chunk(w, &c, first, tokens_from(w, &c.run, first), 0);
            for (size_t r = 0; w->back->gradients->dq && r < c.n; r++)
                memcpy(dq_of(w, &c.run, first, r), c.triples + (3 * r + 2) * E, E * sizeof(float));
        }
    } while (kh_attn_next_heads(w->back, KH_KEYS_INDICES, &c.run) && c.run.b == at && c.run.g == g);
    kh_arena_rewind(&w->scratch[worker], mark);
}

/* One part of the chunk that all work on. */
static void part_item(void *context, size_t part, int worker)
{
    work *w = context;
    kh_arena_mark mark = kh_arena_save(&w->scratch[worker]);
    chunk c = {.run = w->run};
    open_chunk(w, &c, worker, part);
    do_chunk(w, &c, w->first, w->tokens, part);
    for (size_t r = 0; r < c.n; r++)
        memcpy(w->copies + (part * w->room + r) * w->E, c.triples + (3 * r + 2) * w->E,
               w->E * sizeof(float));
    kh_arena_rewind(&w->scratch[worker], mark);
}

/* dq of one token. */
static void sum_item(void *context, size_t token, int worker)
{
    (void)worker;
    work *w = context;
    for (size_t i = 0; i < w->run.heads; i++) {
        size_t r = token * w->run.heads + i;
        float *dq = dq_of(w, &w->run, w->first, r);
        memcpy(dq, w->copies + r * w->E, w->E * sizeof *dq);
        for (size_t part = 1; part < w->parts; part++)
            w->back->kern->add(dq, w->copies + (part * w->room + r) * w->E, w->E);
    }
}

/* Items' sums, in their order; item i is of key head g, or of its own job's. */
static void add_relative(const work *w, size_t items)
{
    size_t buckets = (size_t)w->back->args->bias->buckets;
    for (size_t i = 0; i < items; i++) {
        size_t g = w->parts > 1 ? w->run.g : w->starts[i].g;
        double *sums = w->back->drelative + g * w->group * buckets;
        for (size_t n = 0; n < w->sums; n++) sums[n] += w->relative[i * w->sums + n];
    }
}

/* ---- the pass */

static size_t place_shared(work *w, char *base)
{
    size_t items = w->parts > 1 ? w->parts : w->jobs;
    size_t copies = w->parts > 1 ? w->parts * w->room * w->E : 0;
    size_t at = kh_arena_place(&w->starts, base, 0, w->jobs * sizeof *w->starts);
    at = kh_arena_place(&w->copies, base, at, copies * sizeof *w->copies);
    return kh_arena_place(&w->relative, base, at, items * w->sums * sizeof *w->relative);
}

/* Jobs and the rows of a chunk. */
static void size_work(work *w)
{
    const kh_attn_back *b = w->back;
    kh_attn_heads run = {0}, last = {.b = SIZE_MAX};
    size_t rows = CHUNK_FLOATS / (3 * w->E), most = 1;
    for (; kh_attn_next_heads(b, KH_KEYS_INDICES, &run); last = run) {
        w->jobs += last.b != run.b || last.g != run.g;
        if (run.heads > most) most = run.heads;
    }
    if (rows > most * b->args->queries) rows = most * b->args->queries;
    if (rows < LEAST_ROWS) rows = LEAST_ROWS;
    w->room = rows > most ? rows : most;
    w->parts = w->jobs < JOBS ? PARTS : 1;
    w->group = (size_t)b->layer->H / (size_t)b->layer->G;
    w->sums = b->drelative ? w->group * (size_t)b->args->bias->buckets : 0;
}

static kh_status open_work(work *w)
{
    size_t threads = (size_t)w->back->pool->threads, shared, jobs = 0;
    chunk c;
    shared = place_shared(w, NULL);
    KH_TRY(kh_arena_init(&w->shared, "attention backward", shared));
    place_shared(w, kh_arena_take(&w->shared, shared));
    KH_TRY(kh_new(&w->scratch, threads, sizeof *w->scratch, "the threads of attention backward"));
    for (size_t i = 0; i < threads; i++)
        KH_TRY(
            kh_arena_init(&w->scratch[i], "attention backward scratch", place_chunk(w, &c, NULL)));
    kh_attn_heads run = {0}, last = {.b = SIZE_MAX};
    for (; kh_attn_next_heads(w->back, KH_KEYS_INDICES, &run); last = run)
        if (last.b != run.b || last.g != run.g) w->starts[jobs++] = run;
    return KH_OK;
}

static void close_work(work *w)
{
    for (int i = 0; w->scratch && i < w->back->pool->threads; i++) kh_arena_free(&w->scratch[i]);
    kh_free(w->scratch);
    kh_arena_free(&w->shared);
}

static void run_parts(work *w)
{
    const kh_attn_back *b = w->back;
    while (kh_attn_next_heads(b, KH_KEYS_INDICES, &w->run))
        for (w->first = 0; w->first < b->args->queries; w->first += w->tokens) {
            w->tokens = tokens_from(w, &w->run, w->first);
            kh_parallel_for(b->pool, w->parts, part_item, w);
            if (b->gradients->dq) kh_parallel_for(b->pool, w->tokens, sum_item, w);
            if (w->sums > 0) add_relative(w, w->parts);
        }
}

kh_status kh_attn_backward_indices(const kh_attn_back *back)
{
    work w = {.back = back, .K = back->args->saved->kept, .E = (size_t)back->layer->E};
    size_work(&w);
    if (w.jobs == 0) return KH_OK;
    kh_status status = open_work(&w);
    if (!status && w.parts > 1) {
        run_parts(&w);
    } else if (!status) {
        kh_parallel_for(back->pool, w.jobs, job_item, &w);
        if (w.sums > 0) add_relative(&w, w.jobs);
    }
    close_work(&w);
    if (!status && atomic_load(&w.broken))
        KH_FAIL(KH_ERR_ARGUMENT,
                "attention backward: saved indices are not the ascending positions that forward "
                "wrote for these %zu keys",
                back->args->keys);
    return status;
}
