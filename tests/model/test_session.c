/* Sessions: reading in pieces, forks, rewinding, saving, sampling, stopping, and what they may cost. The
 * truth is another way to the same logits: the parallel pass, or the same run with other threads. */
#include "base/alloc.h"
#include "base/file.h"
#include "support/golden_run.h"

#include <keyhole/keyhole.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { T = 40 };

static int32_t ids[T];

static kh_model *tiny(const char *name)
{
    return open_tiny(name, ids, T, 12345);
}

static kh_session_options plain(void)
{
    return (kh_session_options){.precision = KH_PRECISION_F32,
                                .k_type = KH_CACHE_F32,
                                .v_type = KH_CACHE_F32,
                                .threads = 1,
                                .context = 128,
                                .longer = 1,
                                .forks = 2};
}

static kh_status ignore_rows(void *context, size_t first, size_t rows, const float *logits)
{
    (void)first;
    (void)logits;
    *(size_t *)context += rows;
    return KH_OK;
}

static void pieces_equal_the_parallel_pass(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen3", "gemma3"};
    static const char *const attns[] = {"full", "topk:k=5", "topk:k=9,recent=3,sinks=1,min-p=0.02",
                                        "0=full;1-=topk:k=4,tail=mean", "window:recent=6,sinks=2"};
    for (size_t m = 0; m < 3; m++)
        for (size_t a = 0; a < sizeof attns / sizeof *attns; a++) {
            kh_model *model = tiny(names[m]);
            size_t V = (size_t)kh_model_get_info(model)->vocabulary;
            kh_session_options so = plain();
            so.attn = attns[a];
            kh_session *whole = open_session(model, &so), *pieces = open_session(model, &so);
            float *rows = all_logits(model, whole, ids, T);
            size_t at = 0, steps[] = {7, 1, 1, 13, 1, 17};
            for (size_t i = 0; i < sizeof steps / sizeof *steps; at += steps[i++]) {
                GOOD(kh_session_read(pieces, ids + at, steps[i], NULL));
                double gap = relative_distance(kh_session_logits(pieces),
                                               rows + (at + steps[i] - 1) * V, V);
                if (!(gap <= 1e-5)) fail_msg("%s, %s: %g after %zu", names[m], attns[a], gap, at);
            }
            assert_int_equal(at, T);
            kh_free(rows);
            kh_session_close(pieces);
            kh_session_close(whole);
            kh_model_close(model);
        }
}

static void threads_give_the_same_bits(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen2-q8", "qwen3-q4", "gemma3-q8"};
    for (size_t m = 0; m < 4; m++) {
        kh_model *model = tiny(names[m]);
        size_t V = (size_t)kh_model_get_info(model)->vocabulary;
        kh_session_options so = {.threads = 1, .attn = "topk:k=6,tail=mean"};
        kh_session *one = open_session(model, &so);
        so.threads = 2;
        kh_session *two = open_session(model, &so);
        float *a = all_logits(model, one, ids, T), *b = all_logits(model, two, ids, T);
        assert_memory_equal(a, b, T * V * sizeof *a);
        for (int i = 0; i < 4; i++) {
            GOOD(kh_session_read(one, ids + i, 1, NULL));
            GOOD(kh_session_read(two, ids + i, 1, NULL));
            assert_memory_equal(kh_session_logits(one), kh_session_logits(two), V * sizeof *a);
        }
        kh_free(a);
        kh_free(b);
        kh_session_close(one);
        kh_session_close(two);
        kh_model_close(model);
    }
}

static void forks_and_rewinds_do_not_disturb_each_other(void **state)
{
    (void)state;
    kh_model *model = tiny("llama");
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    kh_session_options so = plain();
    kh_session *parent = open_session(model, &so), *fresh = open_session(model, &so);
    kh_session *a = NULL, *b = NULL;
    GOOD(kh_session_read(parent, ids, 20, NULL));
    GOOD(kh_session_fork(&a, parent));
    GOOD(kh_session_fork(&b, parent));
    assert_memory_equal(kh_session_logits(a), kh_session_logits(parent), V * sizeof(float));
    GOOD(kh_session_read(a, ids + 30, 10, NULL));
    GOOD(kh_session_read(b, ids + 20, 20, NULL));
    GOOD(kh_session_read(fresh, ids, T, NULL));
    assert_true(relative_distance(kh_session_logits(b), kh_session_logits(fresh), V) < 1e-5);
    /* a went another way and comes back */
    GOOD(kh_session_rewind(a, 20));
    assert_null(kh_session_logits(a));
    GOOD(kh_session_read(a, ids + 20, 20, NULL));
    assert_memory_equal(kh_session_logits(a), kh_session_logits(b), V * sizeof(float));
    assert_int_equal(kh_session_rewind(a, T + 1), KH_ERR_ARGUMENT);
    GOOD(kh_session_read(parent, ids + 20, 20, NULL));
    assert_memory_equal(kh_session_logits(a), kh_session_logits(parent), V * sizeof(float));
    kh_session_close(b);
    kh_session_close(a);
    kh_session_close(fresh);
    kh_session_close(parent);
    kh_model_close(model);
}

static void a_shift_equals_reading_what_is_left(void **state)
{
    (void)state;
    kh_model *model = tiny("qwen3");
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    kh_session_options so = plain();
    kh_session *s = open_session(model, &so), *fresh = open_session(model, &so);
    GOOD(kh_session_read(s, ids, 30, NULL));
    GOOD(kh_session_shift(s, 4, 10));
    int32_t left[20];
    memcpy(left, ids, 4 * sizeof *ids);
    memcpy(left + 4, ids + 14, 16 * sizeof *ids);
    assert_int_equal(kh_session_length(s), 20);
    assert_memory_equal(kh_session_tokens(s), left, sizeof left);
    GOOD(kh_session_read(fresh, left, 20, NULL));
    assert_true(relative_distance(kh_session_logits(s), kh_session_logits(fresh), V) < 1e-5);
    kh_session_close(s);
    kh_session_close(fresh);
    kh_model_close(model);
}

/* Decoding through the shadow of the keys: the same tokens, the same logits, more bytes, all of them named. */
static void a_shadow_of_the_keys_changes_nothing(void **state)
{
    (void)state;
    enum { READ = 1250, WRITE = 80 };
    kh_model *model = tiny("llama");
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    float *logits = malloc(V * sizeof *logits);
    int32_t tokens[READ + WRITE + 30];
    uint64_t cache = 0;
    for (int shadow = 0; shadow < 2; shadow++) {
        kh_session_options so = plain();
        so.context = READ + WRITE + 30;
        so.attn = "prefill=full;decode=topk:k=20,sinks=2";
        so.k_type = KH_CACHE_F16;
        so.key_shadow = shadow;
        kh_session *s = open_session(model, &so);
        for (size_t i = 0; i < READ; i += 30)
            assert_int_equal(kh_session_read(s, ids + i % 9, 30, NULL), KH_OK);
        kh_generate_options g = {.max_tokens = WRITE, .ignore_end = 1};
        kh_generate_result r;
        assert_int_equal(kh_generate(s, &g, &r), KH_OK);
        size_t n = kh_session_length(s);
        assert_true(n >= READ && n < sizeof tokens / sizeof *tokens);
        kh_session_report report;
        kh_session_get_report(s, &report);
        if (shadow) {
            assert_memory_equal(kh_session_tokens(s), tokens, n * sizeof *tokens);
            assert_memory_equal(kh_session_logits(s), logits, V * sizeof *logits);
            assert_true(report.cache > cache);
        }
        cache = report.cache;
        memcpy(tokens, kh_session_tokens(s), n * sizeof *tokens);
        memcpy(logits, kh_session_logits(s), V * sizeof *logits);
        kh_session_close(s);
    }
    free(logits);
    kh_model_close(model);
}

static void a_full_context_says_so_and_loses_nothing(void **state)
{
    (void)state;
    kh_model *model = tiny("llama");
    kh_session_options so = plain();
    so.context = 24;
    kh_session *s = open_session(model, &so);
    assert_int_equal(kh_session_read(s, ids, 25, NULL), KH_ERR_CONTEXT);
    assert_non_null(strstr(kh_last_error(), "25 tokens"));
    assert_non_null(strstr(kh_last_error(), "-c"));
    assert_int_equal(kh_session_length(s), 0);
    GOOD(kh_session_read(s, ids, 24, NULL));
    assert_int_equal(kh_session_read(s, ids, 1, NULL), KH_ERR_CONTEXT);
    int32_t bad[] = {1, -1};
    GOOD(kh_session_rewind(s, 4));
    assert_int_equal(kh_session_read(s, bad, 2, NULL), KH_ERR_ARGUMENT);
    bad[1] = kh_model_get_info(model)->vocabulary;
    assert_int_equal(kh_session_read(s, bad, 2, NULL), KH_ERR_ARGUMENT);
    assert_int_equal(kh_session_length(s), 4);
    so.context = (size_t)kh_model_get_info(model)->context + 1;
    so.longer = 0;
    kh_session *none = (kh_session *)(void *)&so;
    assert_int_equal(kh_session_open(&none, model, &so), KH_ERR_CONTEXT);
    assert_null(none);
    kh_session_close(s);
    kh_model_close(model);
}

typedef struct out {
    char text[4096];
    size_t size, calls;
    int32_t chosen[64];
    kh_session *stop_at_third;
} out;

static kh_status keep(void *context, const char *text, size_t size, const kh_choice *chosen,
                      const kh_choice *alternatives, size_t count)
{
    out *o = context;
    memcpy(o->text + o->size, text, size);
    o->size += size;
    o->text[o->size] = 0;
    if (!chosen) return KH_OK;
    for (size_t i = 0; i + 1 < count; i++)
        assert_true(alternatives[i].logprob >= alternatives[i + 1].logprob);
    assert_true(chosen->logprob <= 0);
    o->chosen[o->calls++ % 64] = chosen->id;
    if (o->stop_at_third && o->calls == 3) kh_session_stop(o->stop_at_third);
    return KH_OK;
}

static void the_same_seed_says_the_same(void **state)
{
    (void)state;
    kh_model *model = tiny("llama");
    kh_session_options so = plain();
    kh_session *s = open_session(model, &so);
    out first = {0}, second = {0}, other = {0};
    kh_generate_options g = {.sampler = kh_sampler_defaults(),
                             .max_tokens = 12,
                             .ignore_end = 1,
                             .top_logprobs = 5,
                             .token = keep};
    kh_generate_result made;
    out *outs[] = {&first, &second, &other};
    for (int i = 0; i < 3; i++) {
        g.sampler.seed = i == 2 ? 8 : 7;
        g.context = outs[i];
        so.threads = 1 + i % 2;
        GOOD(kh_session_rewind(s, 0));
        GOOD(kh_session_read(s, ids, 20, NULL));
        GOOD(kh_generate(s, &g, &made));
        assert_int_equal(made.tokens, 12);
        assert_int_equal(made.finish, KH_FINISH_LENGTH);
        assert_int_equal(kh_session_length(s), 32);
    }
    assert_memory_equal(first.chosen, second.chosen, sizeof first.chosen);
    assert_memory_not_equal(first.chosen, other.chosen, sizeof first.chosen);
    /* greedy is the largest logit */
    g.sampler = (kh_sampler_options){0};
    out greedy = {0};
    g.context = &greedy;
    GOOD(kh_session_rewind(s, 0));
    GOOD(kh_session_read(s, ids, 20, NULL));
    const float *logits = kh_session_logits(s);
    int32_t best = 0;
    for (int32_t v = 1; v < kh_model_get_info(model)->vocabulary; v++)
        if (logits[v] > logits[best]) best = v;
    GOOD(kh_generate(s, &g, &made));
    assert_int_equal(greedy.chosen[0], best);
    /* a bias decides it */
    kh_logit_bias bias = {77, 1e6f};
    g.sampler.bias = &bias;
    g.sampler.bias_count = 1;
    greedy.calls = 0;
    GOOD(kh_generate(s, &g, &made));
    assert_int_equal(greedy.chosen[0], 77);
    kh_session_close(s);
    kh_model_close(model);
}

static void generation_ends_when_it_should(void **state)
{
    (void)state;
    kh_model *model = tiny("llama");
    kh_session_options so = plain();
    so.context = 32;
    kh_session *s = open_session(model, &so);
    out o = {0};
    kh_generate_result made;
    kh_generate_options g = {.ignore_end = 1, .token = keep, .context = &o};
    assert_int_equal(kh_generate(s, &g, &made), KH_ERR_STATE);
    GOOD(kh_session_read(s, ids, 20, NULL));
    GOOD(kh_generate(s, &g, &made));
    assert_int_equal(made.finish, KH_FINISH_CONTEXT);
    assert_int_equal(kh_session_length(s), 32);
    /* the same text, now with its middle as a stop string */
    assert_true(o.size > 6);
    char stop[4] = {o.text[3], o.text[4], o.text[5], 0};
    const char *stops[] = {"never said", stop};
    size_t where = (size_t)(strstr(o.text, stop) - o.text);
    out cut = {0};
    g.context = &cut;
    g.stop = stops;
    g.stop_count = 2;
    GOOD(kh_session_rewind(s, 0));
    GOOD(kh_session_read(s, ids, 20, NULL));
    GOOD(kh_generate(s, &g, &made));
    assert_int_equal(made.finish, KH_FINISH_STOP);
    assert_int_equal(cut.size, where);
    assert_memory_equal(cut.text, o.text, where);
    /* on request, after the third token */
    out stopped = {.stop_at_third = s};
    g.context = &stopped;
    g.stop_count = 0;
    GOOD(kh_session_rewind(s, 0));
    GOOD(kh_session_read(s, ids, 20, NULL));
    GOOD(kh_generate(s, &g, &made));
    assert_int_equal(made.finish, KH_FINISH_STOPPED);
    assert_int_equal(made.tokens, 3);
    /* a shift goes on past the end */
    g.context_shift = 1;
    g.max_tokens = 40;
    g.context = &(out){0};
    GOOD(kh_session_rewind(s, 0));
    GOOD(kh_session_read(s, ids, 20, NULL));
    GOOD(kh_generate(s, &g, &made));
    assert_int_equal(made.finish, KH_FINISH_LENGTH);
    assert_int_equal(made.tokens, 40);
    kh_session_close(s);
    kh_model_close(model);
}

static void decoding_allocates_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "qwen3-q4", "gemma3-q8"};
    for (size_t m = 0; m < 3; m++) {
        kh_model *model = tiny(names[m]);
        kh_session_options so = {
            .threads = 2, .attn = "0=full;1-=topk:k=8,tail=mean", .context = 200, .longer = 1};
        kh_session *s = open_session(model, &so);
        GOOD(kh_session_read(s, ids, 20, NULL));
        GOOD(kh_session_read(s, ids, 1, NULL));
        uint64_t before = kh_alloc_get_stats().calls;
        for (int i = 0; i < 150; i++) GOOD(kh_session_read(s, ids + i % T, 1, NULL));
        assert_int_equal(kh_alloc_get_stats().calls, before);
        kh_session_close(s);
        kh_model_close(model);
    }
}

static void a_saved_prompt_comes_back(void **state)
{
    (void)state;
    kh_model *model = tiny("llama-linear"), *foreign = tiny("llama");
    size_t V = (size_t)kh_model_get_info(model)->vocabulary;
    kh_session_options so = {.context = 128, .longer = 1, .k_type = KH_CACHE_F16};
    char path[] = "/tmp/keyhole-test-XXXXXX";
    close(mkstemp(path));
    kh_session *a = open_session(model, &so), *b = open_session(model, &so);
    GOOD(kh_session_read(a, ids, 30, NULL));
    GOOD(kh_session_save(a, path));
    GOOD(kh_session_load(b, path));
    assert_int_equal(kh_session_length(b), 30);
    assert_memory_equal(kh_session_tokens(b), ids, 30 * sizeof *ids);
    GOOD(kh_session_read(a, ids + 30, 4, NULL));
    GOOD(kh_session_read(b, ids + 30, 4, NULL));
    assert_memory_equal(kh_session_logits(a), kh_session_logits(b), V * sizeof(float));
    /* of another model, another setting: refused, nothing changed */
    so.attn = "topk:k=4";
    kh_session *other = open_session(model, &so), *wrong = open_session(foreign, &so);
    assert_int_equal(kh_session_load(other, path), KH_ERR_FORMAT);
    assert_int_equal(kh_session_load(wrong, path), KH_ERR_FORMAT);
    assert_int_equal(kh_session_load(b, "/nonexistent/prompt"), KH_ERR_NOT_FOUND);
    assert_int_equal(kh_session_length(b), 34);
    /* cut at every 97th byte, or a byte changed in its head: an error, never a crash */
    char *data = NULL;
    size_t size = 0;
    GOOD(kh_file_read(&data, &size, path, 1 << 28));
    for (size_t cut = 0; cut < size; cut += 97) {
        kh_outfile *file = NULL;
        GOOD(kh_outfile_open(&file, path));
        GOOD(kh_outfile_write(file, data, cut));
        GOOD(kh_outfile_commit(file));
        assert_int_equal(kh_session_load(b, path), KH_ERR_FORMAT);
    }
    kh_free(data);
    unlink(path);
    kh_session_close(wrong);
    kh_session_close(other);
    kh_session_close(b);
    kh_session_close(a);
    kh_model_close(foreign);
    kh_model_close(model);
}

static void a_batch_size_does_not_matter(void **state)
{
    (void)state;
    kh_model *model = tiny("gemma3");
    size_t V = (size_t)kh_model_get_info(model)->vocabulary, rows = 0;
    kh_session_options so = plain();
    so.attn = "topk:k=7,min-p=0.01,tail=mean";
    kh_session *whole = open_session(model, &so);
    GOOD(kh_session_read(whole, ids, T, NULL));
    so.batch = 9;
    kh_session *small = open_session(model, &so);
    kh_read_options read = {.logits = ignore_rows, .logits_context = &rows};
    GOOD(kh_session_read(small, ids, T, &read));
    assert_int_equal(rows, T);
    assert_true(relative_distance(kh_session_logits(small), kh_session_logits(whole), V) < 1e-5);
    kh_session_close(small);
    kh_session_close(whole);
    kh_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_equal_the_parallel_pass),
        cmocka_unit_test(threads_give_the_same_bits),
        cmocka_unit_test(forks_and_rewinds_do_not_disturb_each_other),
        cmocka_unit_test(a_shift_equals_reading_what_is_left),
        cmocka_unit_test(a_shadow_of_the_keys_changes_nothing),
        cmocka_unit_test(a_full_context_says_so_and_loses_nothing),
        cmocka_unit_test(the_same_seed_says_the_same),
        cmocka_unit_test(generation_ends_when_it_should),
        cmocka_unit_test(decoding_allocates_nothing),
        cmocka_unit_test(a_saved_prompt_comes_back),
        cmocka_unit_test(a_batch_size_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
