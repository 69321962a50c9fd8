/* The loader against a reference that packs row by row: contents of batches, every row of an epoch once,
 * spans that never cross documents, resuming at every step, sides, and what is refused. */
#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"
#include "train/data.h"
#include "train/data_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 400 };

/* Documents of a shape: row t of document d is the token 1000 d + t. */
typedef struct shape {
    uint64_t count;
    unsigned longest;
    int labels, pairs;
    unsigned prompt; /* of 4 documents that many begin with rows without a loss */
    int32_t tokens[MOST], targets[MOST]; /* of the last document */
} shape;

static size_t rows_in(const shape *s, uint64_t d)
{
    return kh_rng_bits((kh_rng_key){7, 1}, d) % (s->longest + 1);
}

static int32_t target_of(const shape *s, uint64_t d, size_t t)
{
    size_t n = rows_in(s, d), prompt = d % 4 < s->prompt ? n / 2 : 0;
    return t < prompt ? -1 : (int32_t)(1000 * d + t + 1);
}

static kh_status shape_get(void *context, uint64_t d, kh_train_example *out)
{
    shape *s = context;
    size_t n = rows_in(s, d);
    for (size_t t = 0; t < n; t++) {
        s->tokens[t] = (int32_t)(1000 * d + t);
        s->targets[t] = target_of(s, d, t);
    }
    *out = (kh_train_example){.tokens = s->tokens,
                              .targets = s->labels ? NULL : s->targets,
                              .n = n,
                              .label = s->labels ? (int)(d % 3) : -1,
                              .second = s->pairs && n > 1 ? n / 2 : 0};
    return KH_OK;
}

static kh_source *open_shape(shape *s)
{
    kh_source *source;
    kh_source_calls calls = {"shape", s, s->count, shape_get};
    assert_int_equal(kh_source_open_calls(&source, &calls), KH_OK);
    return source;
}

static kh_data *open_data(kh_source *source, const kh_data_options *options)
{
    kh_data *data;
    if (kh_data_open(&data, source, options) != KH_OK) fail_msg("%s", kh_last_error());
    return data;
}

static void next(kh_data *data, kh_data_batch *out)
{
    if (kh_data_next(data, out) != KH_OK) fail_msg("%s", kh_last_error());
}

/* ---- what holds for every batch ---- */

static void check_batch(const shape *s, const kh_data *data, const kh_data_batch *b, size_t longest)
{
    const kh_batch *rows = &b->batch;
    size_t row = 0, wanted = 0, span = 0;
    assert_true(rows->n <= kh_data_max_rows(data));
    assert_true(rows->span_count <= kh_data_max_spans(data));
    for (size_t i = 0; i < b->item_count; i++) {
        const kh_data_item *item = &b->items[i];
        assert_int_equal(item->row, row);
        for (size_t t = 0; t < item->rows; t++, row++) {
            int32_t token = (int32_t)(1000 * item->document + item->start + t);
            if (!item->second) assert_int_equal(rows->tokens[row], token);
            assert_int_equal(rows->tokens[row] / 1000, item->document);
            int32_t target = s->labels
                                 ? -1
                                 : target_of(s, item->document, (size_t)(rows->tokens[row] % 1000));
            assert_int_equal(b->targets[row], target);
            if (target >= 0) assert_int_equal(rows->logit_rows[wanted++], row);
        }
        for (; span < rows->span_count && rows->spans[span].row < row; span++) {
            const kh_span *at = &rows->spans[span];
            assert_int_equal(at->seq, span);
            assert_true(at->row >= item->row && at->row + at->rows <= row);
            assert_true(at->rows >= 1 && at->rows <= longest);
            assert_int_equal(at->position, 0);
            for (size_t t = 0; t < at->rows; t++) assert_int_equal(rows->position[at->row + t], t);
        }
        assert_int_equal(rows->spans[span - 1].row + rows->spans[span - 1].rows, row);
    }
    assert_int_equal(row, rows->n);
    assert_int_equal(wanted, rows->logit_count);
    assert_int_equal(span, rows->span_count);
}

/* ---- the reference: an epoch's documents, row by row ---- */

typedef struct cell {
    int32_t token, target, position;
    size_t batch;
} cell;

typedef struct reference {
    cell cells[400000];
    size_t count, batch, in_batch;
} reference;

static reference expected;

static int has_loss(const shape *s, uint64_t d, size_t from, size_t to, int all)
{
    size_t n = 0;
    for (size_t t = from; t < to; t++) n += target_of(s, d, t) >= 0;
    return all ? n == to - from : n > 0;
}

static void refer(const shape *s, const kh_data_options *o, uint64_t epochs)
{
    size_t room = o->rows ? o->rows : o->length * o->batch;
    expected.count = expected.batch = expected.in_batch = 0;
    for (uint64_t i = 0; i < epochs * s->count; i++) {
        uint64_t epoch = i / s->count, d = i % s->count;
        if (o->order == KH_ORDER_SHUFFLED) d = kh_data_permute(s->count, o->seed, epoch, d);
        if (kh_data_held_out(d, o->valid) != (o->side == KH_SIDE_VALID)) continue;
        size_t n = rows_in(s, d), start = 0, stop = 0;
        for (size_t t = 0; t < n; t++) {
            if (t == stop) {
                start = t;
                stop = t + o->length < n ? t + o->length : n;
                if (!has_loss(s, d, start, stop, 0)) {
                    t = stop - 1;
                    continue;
                }
                if (expected.in_batch == room ||
                    (expected.in_batch + stop - start > room && !has_loss(s, d, start, stop, 1))) {
                    expected.batch++;
                    expected.in_batch = 0;
                }
                if (expected.in_batch + stop - start > room)
                    stop = start + room - expected.in_batch;
            }
            expected.cells[expected.count++] = (cell){(int32_t)(1000 * d + t), target_of(s, d, t),
                                                      (int32_t)(t - start), expected.batch};
            expected.in_batch++;
        }
    }
}

static void test_contents(void **state)
{
    (void)state;
    static const struct {
        uint64_t count;
        unsigned longest, prompt;
        kh_data_options options;
    } cases[] = {
        {40, 20, 0, {.length = 8, .batch = 3, .seed = 1}},
        {40, 20, 0, {.length = 8, .batch = 3, .order = KH_ORDER_GIVEN}},
        {40, 200, 0, {.length = 16, .batch = 2, .seed = 2}},
        {40, 20, 2, {.length = 8, .batch = 3, .seed = 3}},
        {40, 60, 4, {.length = 16, .rows = 50, .seed = 4}},
        {64, 5, 1, {.length = 32, .batch = 4, .seed = 5, .valid = 0.3}},
        {64, 5, 1, {.length = 32, .batch = 4, .seed = 5, .valid = 0.3, .side = KH_SIDE_VALID}},
        {1, 300, 0, {.length = 1, .batch = 7}},
        {3, 300, 0, {.length = 1000, .rows = 100}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        shape s = {.count = cases[i].count, .longest = cases[i].longest, .prompt = cases[i].prompt};
        kh_data_options o = cases[i].options;
        kh_source *source = open_shape(&s);
        kh_data *data = open_data(source, &o);
        kh_data_batch b = {0};
        size_t length = o.length < kh_data_max_rows(data) ? o.length : kh_data_max_rows(data);
        o.length = length;
        refer(&s, &o, 40);
        size_t at = 0;
        assert_in_range(expected.count, 200, sizeof expected.cells / sizeof expected.cells[0]);
        assert_true(expected.batch > 2);
        for (size_t step = 0; step < expected.batch; step++) { /* the last one may go on */
            next(data, &b);
            check_batch(&s, data, &b, length);
            assert_int_equal(b.step, step);
            for (size_t row = 0; row < b.batch.n; row++, at++) {
                const cell *want = &expected.cells[at];
                assert_int_equal(want->batch, step);
                assert_int_equal(b.batch.tokens[row], want->token);
                assert_int_equal(b.targets[row], want->target);
                assert_int_equal(b.batch.position[row], want->position);
            }
            assert_int_equal(expected.cells[at].batch, step + 1);
        }
        kh_data_close(data);
        kh_source_close(source);
    }
}

static void test_every_row_once(void **state)
{
    (void)state;
    shape s = {.count = 50, .longest = 90};
    kh_source *source = open_shape(&s);
    for (int side = 0; side < 3; side++) {
        kh_data_options o = {.length = 32, .batch = 2, .epochs = 3, .seed = 9};
        if (side) o.valid = 0.25;
        if (side == 2) o.side = KH_SIDE_VALID;
        static uint8_t seen[50][MOST];
        memset(seen, 0, sizeof seen);
        kh_data *data = open_data(source, &o);
        kh_data_batch b;
        for (next(data, &b); b.batch.n; next(data, &b)) {
            check_batch(&s, data, &b, 32);
            for (size_t row = 0; row < b.batch.n; row++)
                seen[b.batch.tokens[row] / 1000][b.batch.tokens[row] % 1000]++;
        }
        next(data, &b);
        assert_int_equal(b.batch.n, 0);
        for (uint64_t d = 0; d < s.count; d++)
            for (size_t t = 0; t < rows_in(&s, d); t++)
                assert_int_equal(seen[d][t],
                                 side == 0 || kh_data_held_out(d, 0.25) == (side == 2) ? 3 : 0);
        kh_data_close(data);
    }
    kh_source_close(source);
}

/* ---- whole examples ---- */

static void test_whole_examples(void **state)
{
    (void)state;
    for (int pairs = 0; pairs < 3; pairs++)
        for (int pack = 0; pack < 2; pack++) {
            shape s = {.count = 30, .longest = 40, .labels = 1, .pairs = pairs > 0};
            kh_data_options o = {.length = 16, .batch = 4, .seed = 3, .epochs = 2};
            o.pairs = pairs == 2 ? KH_PAIRS_APART : KH_PAIRS_TOGETHER;
            o.pack = pack ? KH_PACK_NONE : KH_PACK_FULL;
            kh_source *source = open_shape(&s);
            kh_data *data = open_data(source, &o);
            kh_data_batch b;
            unsigned seen[30] = {0};
            for (next(data, &b); b.batch.n; next(data, &b)) {
                check_batch(&s, data, &b, 16);
                if (pack) assert_true(b.item_count <= 4);
                for (size_t i = 0; i < b.item_count; i++) {
                    const kh_data_item *item = &b.items[i];
                    size_t n = rows_in(&s, item->document), half = s.pairs && n > 1 ? n / 2 : 0;
                    seen[item->document]++;
                    assert_int_equal(item->start, 0);
                    assert_int_equal(item->label, item->document % 3);
                    size_t one = half < 16 ? half : 16, two = n - half < 16 ? n - half : 16;
                    if (pairs == 2 && half) {
                        assert_int_equal(item->rows, one + two);
                        assert_int_equal(item->second, item->row + one);
                        assert_int_equal(b.batch.tokens[item->second] % 1000, half);
                        assert_int_equal(b.batch.position[item->second], 0);
                        continue;
                    }
                    assert_int_equal(item->rows, n < 16 ? n : 16);
                    assert_int_equal(item->second,
                                     half && half < item->rows ? item->row + half : 0);
                    for (size_t t = 0; t < item->rows && b.batch.types; t++)
                        assert_int_equal(b.batch.types[item->row + t], half && t >= half);
                }
            }
            for (uint64_t d = 0; d < 30; d++) assert_int_equal(seen[d], rows_in(&s, d) ? 2 : 0);
            kh_data_close(data);
            kh_source_close(source);
        }
}

static void test_one_a_row(void **state)
{
    (void)state;
    shape s = {.count = 21, .longest = 50, .prompt = 2};
    kh_data_options o = {.length = 10, .batch = 4, .pack = KH_PACK_NONE, .order = KH_ORDER_GIVEN};
    kh_source *source = open_shape(&s);
    kh_data *data = open_data(source, &o);
    kh_data_batch b;
    uint64_t d = 0;
    for (int step = 0; step < 12; step++) {
        next(data, &b);
        assert_int_equal(b.item_count, 4);
        for (size_t i = 0; i < 4; i++, d++) {
            while (!rows_in(&s, d % 21) ||
                   !has_loss(&s, d % 21, 0, rows_in(&s, d % 21) < 10 ? rows_in(&s, d % 21) : 10, 0))
                d++;
            size_t n = rows_in(&s, d % 21);
            assert_int_equal(b.items[i].document, d % 21);
            assert_int_equal(b.items[i].rows, n < 10 ? n : 10);
        }
    }
    kh_data_counts counts;
    kh_data_get_counts(data, &counts);
    assert_true(counts.skipped > 0);
    kh_data_close(data);
    kh_source_close(source);
}

/* ---- resuming ---- */

static void same(const kh_data_batch *a, const kh_data_batch *b)
{
    const kh_batch *x = &a->batch, *y = &b->batch;
    assert_int_equal(x->n, y->n);
    assert_int_equal(x->span_count, y->span_count);
    assert_int_equal(x->logit_count, y->logit_count);
    assert_int_equal(a->item_count, b->item_count);
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->epoch, b->epoch);
    assert_memory_equal(x->tokens, y->tokens, x->n * sizeof *x->tokens);
    assert_memory_equal(x->position, y->position, x->n * sizeof *x->position);
    assert_memory_equal(a->targets, b->targets, x->n * sizeof *a->targets);
    assert_memory_equal(x->logit_rows, y->logit_rows, x->logit_count * sizeof *x->logit_rows);
    for (size_t i = 0; i < x->span_count; i++) {
        assert_int_equal(x->spans[i].row, y->spans[i].row);
        assert_int_equal(x->spans[i].rows, y->spans[i].rows);
    }
}

static void test_resume(void **state)
{
    (void)state;
    shape s = {.count = 17, .longest = 100, .prompt = 1};
    kh_source *source = open_shape(&s);
    for (int pack = 0; pack < 2; pack++) {
        kh_data_options o = {.length = 12, .batch = 2, .seed = 77, .epochs = 3, .valid = 0.2};
        o.pack = pack ? KH_PACK_NONE : KH_PACK_FULL;
        kh_data *data = open_data(source, &o), *other = open_data(source, &o);
        kh_data_batch a = {0}, b;
        uint8_t position[KH_DATA_POSITION], again[KH_DATA_POSITION];
        do {
            kh_data_save(data, position);
            kh_data *fresh = open_data(source, &o);
            assert_int_equal(kh_data_load(fresh, position, sizeof position), KH_OK);
            assert_int_equal(kh_data_load(other, position, sizeof position), KH_OK);
            kh_data_save(fresh, again);
            assert_memory_equal(position, again, sizeof position);
            next(data, &a);
            next(fresh, &b);
            same(&a, &b);
            next(other, &b); /* a loader that had gone on is put back */
            same(&a, &b);
            kh_data_save(data, position);
            kh_data_save(fresh, again);
            assert_memory_equal(position, again, sizeof position);
            kh_data_close(fresh);
            next(other, &b);
        } while (a.batch.n);
        kh_data_close(data);
        kh_data_close(other);
    }
    kh_source_close(source);
}

static void test_foreign_position(void **state)
{
    (void)state;
    shape s = {.count = 17, .longest = 100};
    kh_source *source = open_shape(&s);
    kh_data_options o = {.length = 12, .batch = 2, .seed = 77};
    kh_data *data = open_data(source, &o);
    uint8_t position[KH_DATA_POSITION], bad[KH_DATA_POSITION];
    kh_data_save(data, position);
    assert_int_equal(kh_data_load(data, position, sizeof position - 1), KH_ERR_FORMAT);
    kh_data_options others[] = {o, o, o, o, o};
    others[0].seed = 78;
    others[1].length = 13;
    others[2].pack = KH_PACK_NONE;
    others[3].order = KH_ORDER_GIVEN;
    others[4].valid = 0.5;
    for (int i = 0; i < 5; i++) {
        kh_data *other = open_data(source, &others[i]);
        assert_int_equal(kh_data_load(other, position, sizeof position), KH_ERR_STATE);
        assert_non_null(strstr(kh_last_error(), "other options"));
        kh_data_close(other);
    }
    for (size_t byte = 0; byte < sizeof position; byte++) { /* any bytes: a batch or a sentence */
        kh_data_batch b;
        memcpy(bad, position, sizeof bad);
        bad[byte] ^= 0x80;
        if (kh_data_load(data, bad, sizeof bad) == KH_OK && kh_data_next(data, &b) == KH_OK)
            check_batch(&s, data, &b, 12);
    }
    kh_data_close(data);
    kh_source_close(source);
}

/* ---- order ---- */

static void test_permutation(void **state)
{
    (void)state;
    static uint8_t seen[5000];
    for (uint64_t n = 1; n <= 5000; n = n < 70 ? n + 1 : n * 3)
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, sizeof seen);
            for (uint64_t i = 0; i < n; i++) {
                uint64_t at = kh_data_permute(n, 5, epoch, i);
                assert_true(at < n);
                assert_int_equal(seen[at]++, 0);
            }
        }
    /* every number in every place about equally often: chi squared of 10 x 10 cells, 81 degrees of
     * freedom, beyond 140 in one of 10^4 tables */
    for (uint64_t n = 10; n <= 10000; n *= 1000) {
        double table[10][10] = {{0}}, chi = 0;
        for (uint64_t epoch = 0; epoch < 4000; epoch++)
            for (uint64_t i = 0; i < 10; i++)
                table[i][kh_data_permute(n, 11, epoch, i * n / 10) * 10 / n]++;
        for (int i = 0; i < 10; i++)
            for (int k = 0; k < 10; k++) chi += (table[i][k] - 400) * (table[i][k] - 400) / 400;
        assert_true(chi < 140);
    }
    /* far positions of huge sets */
    for (uint64_t i = 0; i < 1000; i++)
        assert_true(kh_data_permute(1ull << 40, 3, 0, i << 30) < 1ull << 40);
    size_t held = 0;
    for (uint64_t d = 0; d < 100000; d++) held += (size_t)kh_data_held_out(d, 0.1);
    assert_in_range(held, 9700, 10300); /* 3 standard deviations */
}

static void test_endless(void **state)
{
    (void)state;
    shape s = {.count = UINT64_MAX, .longest = 30};
    kh_source *source = open_shape(&s);
    kh_data_options o = {.length = 8, .batch = 3, .seed = 1};
    kh_data *data = open_data(source, &o);
    kh_data_batch b;
    uint64_t before = 0;
    for (int step = 0; step < 200; step++) {
        next(data, &b);
        assert_int_equal(b.batch.n, 24);
        assert_int_equal(b.epoch, 0);
        check_batch(&s, data, &b, 8);
        for (size_t i = 0; i < b.item_count; i++) {
            assert_true(b.items[i].document >= before);
            before = b.items[i].document;
        }
    }
    kh_data_close(data);
    kh_source_close(source);
}

/* ---- refusals ---- */

static kh_status refuse(void *context, uint64_t d, kh_train_example *out)
{
    shape *s = context;
    if (d == 3) return KH_ERR_IO;
    KH_TRY(shape_get(s, d, out));
    if (d == 4) out->second = out->n; /* a second text of no rows */
    return KH_OK;
}

static void test_refused(void **state)
{
    (void)state;
    shape s = {.count = 6, .longest = 0};
    kh_source *source = open_shape(&s);
    kh_data *data;
    kh_data_options o = {.length = 8};
    kh_data_batch b;
    data = open_data(source, &o);
    assert_int_equal(kh_data_next(data, &b), KH_ERR_ARGUMENT); /* six documents without a row */
    assert_non_null(strstr(kh_last_error(), "no document has a token to predict"));
    assert_int_equal(b.batch.n, 0);
    kh_data_close(data);
    static const kh_data_options bad[] = {{.length = 0},
                                          {.length = 8, .valid = 1},
                                          {.length = 8, .valid = -0.1},
                                          {.length = (size_t)1 << 40},
                                          {.length = 1 << 20, .batch = 1 << 20},
                                          {.length = 8, .rows = 9, .pairs = KH_PAIRS_APART}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(kh_data_open(&data, source, &bad[i]), KH_ERR_ARGUMENT);
        assert_null(data);
    }
    kh_data_options none = {.length = 8, .valid = 1e-9, .side = KH_SIDE_VALID};
    assert_int_equal(kh_data_open(&data, source, &none), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "held out"));
    kh_source_close(source);

    s.longest = 20;
    kh_source_calls calls = {"broken", &s, 8, refuse};
    assert_int_equal(kh_source_open_calls(&source, &calls), KH_OK);
    o = (kh_data_options){.length = 8, .batch = 8, .order = KH_ORDER_GIVEN};
    data = open_data(source, &o);
    uint8_t before[KH_DATA_POSITION], after[KH_DATA_POSITION];
    for (kh_data_save(data, before); kh_data_next(data, &b) == KH_OK;) kh_data_save(data, before);
    kh_data_save(data, after);
    assert_memory_equal(before, after, sizeof before); /* a failure moves nothing */
    kh_train_example e;
    assert_int_equal(kh_source_get(source, 4, &e), KH_ERR_ARGUMENT);
    assert_non_null(strstr(kh_last_error(), "broken: document 4 has"));
    kh_data_close(data);
    kh_source_close(source);
    kh_data_close(NULL);
    kh_source_close(NULL);
}

static void test_memory_that_ends(void **state)
{
    (void)state;
    shape s = {.count = 6, .longest = 20};
    uint64_t live = kh_alloc_get_stats().live;
    for (uint64_t n = 1;; n++) {
        kh_source *source = NULL;
        kh_data *data = NULL;
        kh_source_calls calls = {"shape", &s, s.count, shape_get};
        kh_data_options o = {.length = 8, .batch = 2};
        kh_alloc_fail_at(n);
        kh_status status = kh_source_open_calls(&source, &calls);
        if (status == KH_OK) status = kh_data_open(&data, source, &o);
        kh_alloc_fail_at(0);
        kh_data_close(data);
        kh_source_close(source);
        assert_int_equal(kh_alloc_get_stats().live, live);
        if (status == KH_OK) break;
        assert_int_equal(status, KH_ERR_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contents),       cmocka_unit_test(test_every_row_once),
        cmocka_unit_test(test_whole_examples), cmocka_unit_test(test_one_a_row),
        cmocka_unit_test(test_resume),         cmocka_unit_test(test_foreign_position),
        cmocka_unit_test(test_permutation),    cmocka_unit_test(test_endless),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_memory_that_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
