/* One text read twice: without edits, and under them.
 *
 * At each position both readings predict the next token of the same text, so their distance is of the edits alone:
 * KL(edited || base), both distributions from the stream behind the last layer. Without edits both are one reading,
 * and every distance is 0. */
#include "base/alloc.h"
#include "base/fail.h"
#include "inspect/distribution.h"
#include "model/network.h"

#include <math.h>
#include <string.h>

typedef struct comparing {
    kh_inspector *inspector;
    kh_distribution readout; /* x and logits of one reading behind those of the other */
    size_t position, rows;
    float *streams; /* [2][ROOM][D] */
    int reading;
    kh_compared *out; /* of a product */
} comparing;

enum { ROOM = 2 * KH_INSPECT_BLOCK };

static void begin_block(void *context, size_t position, size_t rows)
{
    comparing *c = context;
    c->position = position;
    c->rows = rows;
}

static void keep(void *context, kh_point point, int layer, float *data, size_t rows, size_t width)
{
    comparing *c = context;
    (void)point;
    if (layer == c->inspector->model->d.N - 1)
        memcpy(c->streams + (size_t)c->reading * ROOM * width, data, rows * width * sizeof *data);
}

typedef struct pairs {
    comparing *c;
    size_t first, n;
} pairs;

static float next_of(const float *logits, double log_z, const kh_inspector *i, size_t position)
{
    if (position + 1 >= i->count) return NAN;
    return (float)exp((double)logits[i->ids[position + 1]] - log_z);
}

static void pair_item(void *context, size_t item, int worker)
{
    const pairs *p = context;
    const kh_inspector *i = p->c->inspector;
    const kh_kern *kern = i->run.kern;
    size_t V = (size_t)i->model->d.V;
    const float *base = p->c->readout.logits + item * V;
    const float *edited = p->c->readout.logits + (p->n + item) * V;
    float *spare = p->c->readout.spare + (size_t)worker * V;
    kh_row_measures b = kh_row_measure(kern, spare, base, V);
    kh_row_measures e = kh_row_measure(kern, spare, edited, V);
    kh_compared *out = &p->c->out[item];
    *out = (kh_compared){.position = p->first + item,
                         .base_entropy = b.entropy,
                         .edited_entropy = e.entropy,
                         .base_next = next_of(base, b.log_z, i, p->first + item),
                         .edited_next = next_of(edited, e.log_z, i, p->first + item)};
    kh_row_top(&out->base_top, 1, base, b.log_z, V);
    kh_row_top(&out->edited_top, 1, edited, e.log_z, V);
    out->kl = kh_row_kl(kern, spare, edited, e.log_z, base, b.log_z, V);
}

static kh_status say(comparing *c, size_t first, size_t n,
                     kh_status (*row)(void *context, const kh_compared *row), void *context)
{
    size_t D = (size_t)c->inspector->model->d.D, from = (first - c->position) * D;
    for (size_t r = 0; r < 2; r++)
        memcpy(c->readout.x + r * n * D, c->streams + r * ROOM * D + from, n * D * sizeof(float));
    KH_TRY(kh_distribution_run(&c->readout, 2 * n, 1));
    pairs p = {c, first, n};
    kh_parallel_for(c->inspector->run.pool, n, pair_item, &p);
    for (size_t i = 0; i < n; i++) KH_TRY(row(context, &c->out[i]));
    return KH_OK;
}

static kh_status look_twice(comparing *c, size_t at)
{
    kh_inspector *i = c->inspector;
    kh_probe probe = {c, UINT64_C(1) << KH_POINT_RESID_POST, keep, NULL};
    for (c->reading = 0; c->reading < 2; c->reading++) {
        enum kh_reading reading = i->edited ? (enum kh_reading)c->reading : KH_READING_BASE;
        const kh_watch watch = {&probe, begin_block, c, reading, 0, NULL};
        KH_TRY(kh_inspector_look(i, at, 1, &watch));
    }
    return KH_OK;
}

static kh_status compare(comparing *c, size_t first,
                         kh_status (*row)(void *context, const kh_compared *row), void *context)
{
    size_t per = c->readout.rows / 2, n;
    for (size_t at = first; at < c->inspector->count;) {
        KH_TRY(look_twice(c, at));
        for (size_t end = c->position + c->rows; at < end; at += n) {
            n = end - at < per ? end - at : per;
            KH_TRY(say(c, at, n, row, context));
        }
    }
    return KH_OK;
}

kh_status kh_compare(kh_inspector *i, size_t first,
                     kh_status (*row)(void *context, const kh_compared *row), void *context)
{
    comparing c = {.inspector = i};
    atomic_store(&i->stop, 0);
    KH_TRY(kh_inspector_check_position(i, first));
    KH_TRY(kh_distribution_open(&c.readout, i, 2 * (size_t)ROOM, 2));
    kh_status status = kh_new(&c.streams, 2 * ROOM * (size_t)i->model->d.D, sizeof *c.streams,
                              "the streams of two readings");
    if (status == KH_OK) status = kh_new(&c.out, ROOM, sizeof *c.out, "rows");
    if (status == KH_OK) status = compare(&c, first, row, context);
    kh_free(c.out);
    kh_free(c.streams);
    kh_distribution_close(&c.readout);
    return status;
}
