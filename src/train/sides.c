/* Two texts of each example, apart.
 *
 *     two texts           read      x x x x          written   y y y          rows of the batch, as they are
 *     prompt, completion  rows      p p p c c        targets   - - c c e      a text for decoders alone
 *                         read      p p p [end]      written   start c c      with targets c c e
 *
 * A prompt's rows have no target but the last, which predicts the completion's first token: so the first row with
 * a target is where the prompt ends. An example takes two rows more than it has in the batch, one on each side. */
#include "train/sides.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <string.h>

size_t kh_sides_rows(size_t rows, size_t examples)
{
    return rows + examples;
}

static kh_status open_side(kh_side *s, size_t rows, size_t examples)
{
    KH_TRY(kh_new(&s->tokens, rows, sizeof *s->tokens, "a batch"));
    KH_TRY(kh_new(&s->position, rows, sizeof *s->position, "a batch"));
    KH_TRY(kh_new(&s->logit_rows, rows, sizeof *s->logit_rows, "a batch"));
    return kh_new(&s->spans, examples, sizeof *s->spans, "a batch");
}

static void close_side(kh_side *s)
{
    kh_free(s->tokens);
    kh_free(s->position);
    kh_free(s->logit_rows);
    kh_free(s->spans);
}

kh_status kh_sides_open(kh_sides *out, size_t rows, size_t examples, int32_t start, int32_t end)
{
    size_t most = kh_sides_rows(rows, examples);
    *out = (kh_sides){.rows = rows, .examples = examples, .start = start, .end = end};
    KH_TRY(open_side(&out->from, most, examples));
    KH_TRY(open_side(&out->to, most, examples));
    return kh_new(&out->targets, most, sizeof *out->targets, "a batch");
}

void kh_sides_close(kh_sides *s)
{
    close_side(&s->from);
    close_side(&s->to);
    kh_free(s->targets);
}

/* ---- dividing */

static void begin(kh_side *s)
{
    s->batch = (kh_batch){.tokens = s->tokens,
                          .position = s->position,
                          .spans = s->spans,
                          .logit_rows = s->logit_rows};
}

static void begin_text(kh_side *s)
{
    kh_batch *b = &s->batch;
    s->spans[b->span_count] = (kh_span){.seq = (int)b->span_count, .row = b->n};
    b->span_count++;
}

/* A row of the text that was begun last. */
static void add_row(kh_side *s, int32_t token)
{
    kh_batch *b = &s->batch;
    kh_span *span = &s->spans[b->span_count - 1];
    s->tokens[b->n] = token;
    s->position[b->n++] = (int32_t)span->rows++;
}

static void add_target(kh_sides *s, int32_t target)
{
    kh_batch *b = &s->to.batch;
    if (target < 0) return;
    s->targets[b->logit_count] = target;
    s->to.logit_rows[b->logit_count++] = (uint32_t)b->n - 1;
}

static void split_pair(kh_sides *s, const kh_data_batch *batch, const kh_data_item *item)
{
    size_t end = item->row + item->rows;
    for (size_t t = item->row; t < item->second; t++) add_row(&s->from, batch->batch.tokens[t]);
    for (size_t t = item->second; t < end; t++) {
        add_row(&s->to, batch->batch.tokens[t]);
        add_target(s, batch->targets ? batch->targets[t] : -1);
    }
}

static void split_completion(kh_sides *s, const kh_data_batch *batch, size_t row, size_t first,
                             size_t end)
{
    for (size_t t = row; t <= first; t++) add_row(&s->from, batch->batch.tokens[t]);
    if (s->end >= 0) add_row(&s->from, s->end);
    for (size_t t = first; t < end; t++) {
        add_row(&s->to, t == first ? s->start : batch->batch.tokens[t]);
        add_target(s, batch->targets[t]);
    }
}

kh_status kh_sides_split(kh_sides *s, const kh_data_batch *batch)
{
    size_t rows = 0;
    begin(&s->from);
    begin(&s->to);
    for (size_t i = 0; i < batch->item_count; i++) {
        const kh_data_item *item = &batch->items[i];
        size_t end = item->row + item->rows, first = item->row;
        rows += item->rows;
        if (i >= s->examples || rows > s->rows || end > batch->batch.n || item->second >= end)
            KH_FAIL(KH_ERR_ARGUMENT, "training: item %zu is not inside the batch", i);
        begin_text(&s->from);
        begin_text(&s->to);
        if (item->second > item->row) {
            split_pair(s, batch, item);
            continue;
        }
        while (first < end && (!batch->targets || batch->targets[first] < 0)) first++;
        if (first == item->row || first == end)
            KH_FAIL(KH_ERR_ARGUMENT,
                    "training: document %llu is one text, and a model with encoder and decoder "
                    "needs two: what is read, and what is written",
                    (unsigned long long)item->document);
        split_completion(s, batch, item->row, first, end);
    }
    return KH_OK;
}
