/* What keyhole convert makes of every family: of a causal one, the folder as a GGUF file of F32 agrees with
 * transformers as the folder does, and a file of half floats is as near as these are. */
#include "base/alloc.h"
#include "support/family_golden.h"

#include <keyhole/convert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], path[128];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_convert_families_XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* The file's tokenizer gives the folder's ids. */
static void same_tokens(const kh_model *made, const family *f)
{
    static const char text[] = "A keyhole, 42 w\xc3\xb6rds;\n\tit's  n\xc3\xa4mlich \xe4\xb8\x89!";
    kh_model *source;
    int32_t *want, *got;
    size_t wanted, gotten;
    GOOD(kh_model_open(&source, family_path(f)));
    GOOD(kh_model_tokenize(source, text, sizeof text - 1, KH_TEXT_EDGES, &want, &wanted));
    GOOD(kh_model_tokenize(made, text, sizeof text - 1, KH_TEXT_EDGES, &got, &gotten));
    assert_int_equal(wanted, gotten);
    assert_memory_equal(want, got, wanted * sizeof *want);
    kh_free_ids(want);
    kh_free_ids(got);
    kh_model_close(source);
}

static float *logits_of(const char *type, const family *f, family_golden *g, size_t *T, size_t *V)
{
    kh_convert_options options = {.type = type, .overwrite = 1, .threads = 2};
    kh_convert_result result;
    kh_model *model;
    GOOD(kh_convert(family_path(f), path, &options, &result));
    GOOD(kh_model_open(&model, path));
    same_tokens(model, f);
    const family_array *text = family_find(g, "", "ids"), *context = family_find(g, "", "context");
    kh_session_options exact = {.precision = KH_PRECISION_F32,
                                .k_type = KH_CACHE_F32,
                                .v_type = KH_CACHE_F32,
                                .threads = 2};
    if (context) exact.context = (size_t) * (const int32_t *)context->data;
    kh_session *session = open_session(model, &exact);
    *T = text->count;
    *V = (size_t)kh_model_get_info(model)->vocabulary;
    float *logits = all_logits(model, session, text->data, *T);
    kh_session_close(session);
    kh_model_close(model);
    return logits;
}

static void converted(void **state)
{
    const family *f = *state;
    family_golden g;
    size_t T, V;
    family_open(&g, f);
    float *full = logits_of("F32", f, &g, &T, &V);
    family_check_logits(&g, full, 0, T, V);
    float *half = logits_of("F16", f, &g, &T, &V);
    double distance = relative_distance(half, full, T * V);
    if (!(distance < 0.02)) fail_msg("%s: F16 is %g away from F32", f->name, distance);
    kh_free(full);
    kh_free(half);
    golden_close(&g.file);
}

/* Encoders and encoder-decoders: the file opens and has the folder's tokens; that it has the folder's
 * numbers is the writer's test. */
static void opens(void **state)
{
    const family *f = *state;
    kh_convert_options options = {.type = "Q8_0", .overwrite = 1, .threads = 2};
    kh_model *model;
    GOOD(kh_convert(family_path(f), path, &options, NULL));
    GOOD(kh_model_open(&model, path));
    same_tokens(model, f);
    kh_model_close(model);
}

int main(void)
{
    static struct CMUnitTest tests[64];
    size_t n = 0;
    for (size_t i = 0; i < family_count; i++)
        tests[n++] = (struct CMUnitTest){.name = families[i].name,
                                         .test_func = families[i].task == FAMILY_CAUSAL ? converted
                                                                                        : opens,
                                         .initial_state = (void *)(uintptr_t)&families[i]};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
