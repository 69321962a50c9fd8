/* all-MiniLM-L6-v2, a real encoder, from its folder: 200 texts (English, other scripts, longer than the
 * model reads, nearly nothing) become the same tokens as in Hugging Face's tokenizers and the same
 * vectors as in transformers (tests/golden/embed). The vectors are kept in 16 bits, which costs 3e-8 of
 * the cosine; 1e-4 is allowed, 1e-5 is what f32 products give. */
// not under: address|thread
#include "base/alloc.h"
#include "support/golden_run.h"
#include "support/models.h"
#include "tensor/half.h"

#include <jansson.h>
#include <keyhole/encode.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct minilm {
    golden file;
    size_t n, D, longest;
    int32_t *ids;           /* all texts, one after the other */
    kh_encoder_text *texts; /* [n] */
    const uint16_t *rows;   /* [n][D], f16 */
    kh_model *model;
} minilm;

static void open_all(minilm *m)
{
    memset(m, 0, sizeof *m);
    m->model = open_model(kh_test_need_model("minilm"));
    golden_open(&m->file, "embed/minilm.bin", "KHEMBED1");
    golden_take(&m->file, 32, 1);
    m->n = golden_u32(&m->file);
    m->D = golden_u32(&m->file);
    size_t total = golden_u32(&m->file);
    m->longest = golden_u32(&m->file);
    const uint32_t *lengths = golden_take(&m->file, m->n, 4);
    const uint16_t *ids = golden_take(&m->file, total, 2);
    m->rows = golden_take(&m->file, m->n * m->D, 2);
    m->ids = kh_alloc(total * sizeof *m->ids);
    m->texts = kh_calloc(m->n, sizeof *m->texts);
    assert_true(m->ids && m->texts);
    for (size_t i = 0; i < total; i++) m->ids[i] = ids[i];
    for (size_t i = 0, at = 0; i < m->n; at += lengths[i++]) {
        assert_true(at + lengths[i] <= total);
        m->texts[i] = (kh_encoder_text){.ids = m->ids + at, .count = lengths[i]};
    }
    assert_int_equal(kh_model_get_info(m->model)->width, m->D);
}

static void close_all(minilm *m)
{
    golden_close(&m->file);
    kh_free(m->ids);
    kh_free(m->texts);
    kh_model_close(m->model);
}

/* A text that is too long keeps its beginning and the mark at its end. */
static void same_tokens(const minilm *m, size_t at, const char *text, size_t size)
{
    const kh_encoder_text *want = &m->texts[at];
    int32_t *ids = NULL;
    size_t n = 0, same = 0;
    GOOD(kh_model_tokenize(m->model, text, size, KH_TEXT_EDGES, &ids, &n));
    if (n > m->longest) {
        ids[m->longest - 1] = ids[n - 1];
        n = m->longest;
    }
    while (same < n && same < want->count && ids[same] == want->ids[same]) same++;
    kh_free_ids(ids);
    if (same < n || same < want->count)
        fail_msg("text %zu: token %zu of %zu differs (%zu expected)", at, same, n, want->count);
}

static void texts_become_the_same_tokens(void **state)
{
    minilm m;
    (void)state;
    open_all(&m);
    FILE *file = fopen(golden_path("embed/minilm.jsonl"), "r");
    assert_non_null(file);
    for (size_t i = 0; i < m.n; i++) {
        json_error_t error;
        json_t *line = json_loadf(file, JSON_DISABLE_EOF_CHECK, &error);
        if (!line) fail_msg("minilm.jsonl, text %zu: %s", i, error.text);
        const json_t *text = json_object_get(line, "text");
        same_tokens(&m, i, json_string_value(text), json_string_length(text));
        json_decref(line);
    }
    fclose(file);
    close_all(&m);
}

static double distance(const float *got, const uint16_t *want, size_t D)
{
    double dot = 0, a = 0, b = 0;
    for (size_t i = 0; i < D; i++) {
        double x = (double)got[i], y = (double)kh_f16_to_f32(want[i]);
        dot += x * y;
        a += x * x;
        b += y * y;
    }
    assert_true(fabs(a - 1) < 1e-5);
    return 1 - dot / sqrt(a * b);
}

static double worst(const minilm *m, const kh_encoder_options *options, size_t at_once)
{
    kh_encoder *encoder = NULL;
    float *out = kh_alloc(m->n * m->D * sizeof *out);
    double most = 0;
    assert_non_null(out);
    GOOD(kh_encoder_open(&encoder, m->model, options));
    for (size_t i = 0; i < m->n; i += at_once)
        GOOD(kh_encoder_embed(encoder, out + i * m->D, m->texts + i,
                              at_once < m->n - i ? at_once : m->n - i, KH_POOLING_MODEL, 1));
    for (size_t i = 0; i < m->n; i++) {
        double d = distance(out + i * m->D, m->rows + i * m->D, m->D);
        if (!(d <= most)) most = d;
    }
    kh_encoder_close(encoder);
    kh_free(out);
    return most;
}

static void tokens_become_the_same_vectors(void **state)
{
    minilm m;
    (void)state;
    open_all(&m);
    double exact = worst(&m, &(kh_encoder_options){.precision = KH_PRECISION_F32}, m.n);
    double usual = worst(&m, NULL, 7);
    close_all(&m);
    print_message("largest distance of the cosine: %.1e in f32, %.1e as usual\n", exact, usual);
    assert_true(exact < 1e-5);
    assert_true(usual < 1e-4);
}

int main(void)
{
    json_set_alloc_funcs(kh_alloc, kh_free);
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts_become_the_same_tokens),
                                       cmocka_unit_test(tokens_become_the_same_vectors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
