/* Every encoder, and every encoder-decoder, from a folder as Hugging Face publishes them, against
 * transformers (tests/golden/families): the stream after each layer and what comes of it: logits of
 * masked tokens, ends of an answer, one vector for a text; the decoder's stream and logits for given
 * ids, and the answers of greedy and of beam search. Then the same from the GGUF file that the folder
 * becomes, which must give the same bits. */
#include "base/alloc.h"
#include "support/family_golden.h"

#include <keyhole/encode.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SINGLE = 9 }; /* rows at a decoder's end that are read again, one by one */

static const kh_encoder_options exact = {.precision = KH_PRECISION_F32, .threads = 2};

static kh_status keep_rows(void *context, size_t text, const float *rows)
{
    (void)text, (void)rows;
    ++*(int *)context;
    return KH_OK;
}

/* The encoder's stream; PREFIXids are what it reads. */
static kh_encoder_text check_stream(kh_encoder *encoder, family_golden *g, const char *prefix)
{
    const family_array *ids = family_find(g, prefix, "ids"),
                       *types = family_find(g, prefix, "types");
    kh_encoder_text text = {ids->data, types ? types->data : NULL, ids->count};
    family_stream stream;
    int calls = 0;
    family_stream_open(&stream, g, prefix);
    kh_encoder_observe(encoder, &stream.probe);
    GOOD(kh_encoder_run(encoder, &text, 1, keep_rows, &calls));
    kh_encoder_observe(encoder, NULL);
    assert_int_equal(calls, 1);
    family_stream_close(&stream, g, prefix);
    return text;
}

/* Each checker gives what must come out of the GGUF file with the same bits, n floats on the heap. */
static float *masked(kh_encoder *encoder, family_golden *g, const kh_encoder_text *text, size_t V,
                     size_t *n)
{
    size_t *all = kh_alloc(text->count * sizeof *all);
    float *logits = kh_alloc(text->count * V * sizeof *logits), two[2 * 512];
    assert_true(all && logits && V <= 512);
    for (size_t t = 0; t < text->count; t++) all[t] = t;
    GOOD(kh_encoder_masked(encoder, logits, text, all, text->count));
    family_check_logits(g, logits, 0, text->count, V);
    GOOD(kh_encoder_masked(encoder, two, text, (const size_t[]){3, 17}, 2));
    family_near(g, "chosen rows", relative_distance(two, logits + 3 * V, V), 1e-6);
    family_near(g, "chosen rows", relative_distance(two + V, logits + 17 * V, V), 1e-6);
    kh_free(all);
    *n = text->count * V;
    return logits;
}

static float *spans(kh_encoder *encoder, family_golden *g, const kh_encoder_text *text, size_t *n)
{
    size_t T = text->count;
    float *ends = kh_alloc(2 * T * sizeof *ends);
    assert_non_null(ends);
    GOOD(kh_encoder_spans(encoder, ends, ends + T, text));
    family_near(g, "starts", relative_distance(ends, family_floats(g, "", "start", T), T), 1e-4);
    family_near(g, "ends", relative_distance(ends + T, family_floats(g, "", "end", T), T), 1e-4);
    *n = 2 * T;
    return ends;
}

static float *embedding(kh_encoder *encoder, family_golden *g, const kh_encoder_text *text,
                        size_t D, size_t *n)
{
    const family_array *cls = family_find(g, "", "cls");
    /* a shorter text in the same pass changes nothing */
    kh_encoder_text both[2] = {*text, {text->ids, text->types, 13}};
    float *out = kh_alloc(2 * D * sizeof *out);
    assert_non_null(out);
    GOOD(kh_encoder_embed(encoder, out, text, 1, KH_POOLING_MEAN, 0));
    family_near(g, "mean", relative_distance(out, family_floats(g, "", "mean", D), D), 1e-4);
    if (cls) {
        GOOD(kh_encoder_embed(encoder, out, text, 1, KH_POOLING_CLS, 0));
        family_near(g, "first row", relative_distance(out, cls->data, D), 1e-4);
    }
    GOOD(kh_encoder_embed(encoder, out, both, 2, KH_POOLING_MODEL, 1));
    family_near(g, "embedding", relative_distance(out, family_floats(g, "", "embedding", D), D),
                1e-4);
    *n = 2 * D;
    return out;
}

static float *check_encoder(const family *f, family_golden *g, const kh_model *model, size_t *n)
{
    const kh_model_info *info = kh_model_get_info(model);
    size_t V = (size_t)info->vocabulary, D = (size_t)info->width;
    kh_encoder *encoder = NULL;
    GOOD(kh_encoder_open(&encoder, model, &exact));
    kh_encoder_text text = check_stream(encoder, g, "");
    float *out = f->task == FAMILY_MASKED  ? masked(encoder, g, &text, V, n)
                 : f->task == FAMILY_SPANS ? spans(encoder, g, &text, n)
                                           : embedding(encoder, g, &text, D, n);
    kh_encoder_close(encoder);
    return out;
}

/* ---- encoder-decoders ---- */

static size_t best_of(const float *logits, size_t V)
{
    size_t best = 0;
    for (size_t v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = v;
    return best;
}

static void check_answers(kh_session *session, family_golden *g, const kh_model *model, size_t V)
{
    const family_array *greedy = family_find(g, "", "greedy"), *beam = family_find(g, "", "beam");
    const int32_t *want = greedy->data, start = kh_model_start(model);
    const float *scores = family_floats(g, "beam.", "scores", beam->dims[0]);
    size_t most = greedy->count;
    GOOD(kh_session_rewind(session, 0));
    GOOD(kh_session_read(session, &start, 1, NULL));
    kh_beam_options options = {.beams = beam->dims[0], .max_tokens = most, .length_penalty = 1};
    int32_t *ids = NULL;
    size_t count = 0;
    double score = 0;
    GOOD(kh_generate_beam(session, &options, &ids, &count, &score));
    const int32_t *expected = beam->data;
    for (size_t i = 0; i < most; i++) {
        if (expected[i] < 0) assert_int_equal(count, i);
        if (expected[i] < 0) break;
        assert_true(i < count);
        assert_int_equal(ids[i], expected[i]);
    }
    family_near(g, "scores of the best beam", score - (double)scores[0], 1e-4);
    family_near(g, "scores of the best beam", (double)scores[0] - score, 1e-4);
    kh_free_ids(ids);
    for (size_t i = 0; i < most && want[i] >= 0; i++) {
        int32_t id = (int32_t)best_of(kh_session_logits(session), V);
        assert_int_equal(id, want[i]);
        GOOD(kh_session_read(session, &id, 1, NULL));
    }
}

static float *check_t5(const family *f, family_golden *g, const kh_model *model, size_t *n)
{
    const family_array *ids = family_find(g, "", "ids");
    const int32_t *given = ids->data;
    size_t V = (size_t)kh_model_get_info(model)->vocabulary, T = ids->count;
    kh_encoder *encoder = NULL;
    GOOD(kh_encoder_open(&encoder, model, &exact));
    kh_encoder_text text = check_stream(encoder, g, "encoder.");
    kh_encoder_close(encoder);
    kh_session_options options = {.precision = KH_PRECISION_F32,
                                  .k_type = KH_CACHE_F32,
                                  .v_type = KH_CACHE_F32,
                                  .threads = 2,
                                  .forks = 8};
    kh_session *session = open_session(model, &options);
    GOOD(kh_session_source(session, text.ids, text.count));
    assert_int_equal(given[0], kh_model_start(model));
    family_stream stream;
    family_stream_open(&stream, g, "");
    stream.first = (int)family_find(g, "encoder.", "norms")->dims[0] - 1; /* behind the encoder's */
    kh_session_observe(session, &stream.probe);
    float *logits = all_logits(model, session, given, T);
    kh_session_observe(session, NULL);
    family_stream_close(&stream, g, "");
    family_check_logits(g, logits, 0, T, V);
    GOOD(kh_session_rewind(session, T - SINGLE));
    for (size_t t = T - SINGLE; t < T; t++) {
        GOOD(kh_session_read(session, given + t, 1, NULL));
        family_check_logits(g, kh_session_logits(session), t, 1, V);
    }
    check_answers(session, g, model, V);
    kh_session_close(session);
    (void)f;
    *n = T * V;
    return logits;
}

/* ---- all ---- */

static void agrees_with_transformers(void **state)
{
    const family *f = *state;
    family_golden g;
    kh_model *model = NULL;
    size_t n, again_n;
    family_open(&g, f);
    model = open_model(family_path(f));
    float *(*checker)(const family *, family_golden *, const kh_model *,
                      size_t *) = f->task == FAMILY_T5 ? check_t5 : check_encoder;
    float *out = checker(f, &g, model, &n);
    kh_model *written = family_as_gguf(f);
    family_same_tokens(model, written);
    kh_model_close(model);
    float *again = checker(f, &g, written, &again_n);
    assert_int_equal(again_n, n);
    assert_memory_equal(again, out, n * sizeof *out);
    kh_model_close(written);
    kh_free(out);
    kh_free(again);
    family_close(&g);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[64];
    size_t n = 0;
    for (size_t i = 0; i < family_count; i++)
        if (families[i].task != FAMILY_CAUSAL)
            tests[n++] = (struct CMUnitTest){.name = families[i].name,
                                             .test_func = agrees_with_transformers,
                                             .initial_state = (void *)(uintptr_t)&families[i]};
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
