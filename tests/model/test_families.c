/* Every causal family, from a folder as Hugging Face publishes them, against transformers: tiny random
 * models with unusual shapes (tests/golden/families), f32 products and an f32 cache. The stream after
 * each layer, the input of the head and the logits: of one pass over all rows, and of a pass that ends
 * token by token, which is another way through the code. Then the same from the GGUF file that the
 * folder becomes, which must give the same bits.
 *
 * The table is in tests/support/family_golden.c; every folder must be in it. */
#include "base/alloc.h"
#include "support/family_golden.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SINGLE = 9 }; /* rows at the end that are read one by one */

static kh_session *open_exact(const kh_model *model, family_golden *g)
{
    const family_array *context = family_find(g, "", "context");
    kh_session_options options = {.precision = KH_PRECISION_F32,
                                  .k_type = KH_CACHE_F32,
                                  .v_type = KH_CACHE_F32,
                                  .threads = 2};
    if (context) options.context = (size_t) * (const int32_t *)context->data;
    return open_session(model, &options);
}

/* All logits [T][V] of the golden's ids, on the heap. */
static float *one_pass(const kh_model *model, family_golden *g, const int32_t *ids, size_t T)
{
    family_stream stream;
    kh_session *session = open_exact(model, g);
    family_stream_open(&stream, g, "");
    kh_session_observe(session, &stream.probe);
    float *logits = all_logits(model, session, ids, T);
    family_stream_close(&stream, g, "");
    kh_session_close(session);
    return logits;
}

static void token_by_token(const kh_model *model, family_golden *g, const int32_t *ids, size_t T,
                           size_t V)
{
    kh_session *session = open_exact(model, g);
    GOOD(kh_session_read(session, ids, T - SINGLE, NULL));
    for (size_t t = T - SINGLE; t < T; t++) {
        GOOD(kh_session_read(session, ids + t, 1, NULL));
        family_check_logits(g, kh_session_logits(session), t, 1, V);
    }
    kh_session_close(session);
}

static void agrees_with_transformers(void **state)
{
    const family *f = *state;
    family_golden g;
    family_open(&g, f);
    kh_model *model = open_model(family_path(f));
    const family_array *text = family_find(&g, "", "ids");
    const int32_t *ids = text->data;
    size_t T = text->count, V = (size_t)kh_model_get_info(model)->vocabulary;
    float *logits = one_pass(model, &g, ids, T);
    family_check_logits(&g, logits, 0, T, V);
    token_by_token(model, &g, ids, T, V);
    kh_model *again = family_as_gguf(f);
    family_same_tokens(model, again);
    kh_model_close(model);
    float *same = one_pass(again, &g, ids, T);
    assert_memory_equal(same, logits, T * V * sizeof *logits);
    kh_model_close(again);
    kh_free(logits);
    kh_free(same);
    family_close(&g);
}

static void every_golden_is_in_the_table(void **state)
{
    (void)state;
    DIR *folder = opendir(golden_path("families"));
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        const char *end = strstr(entry->d_name, ".bin");
        size_t n = end ? (size_t)(end - entry->d_name) : strlen(entry->d_name), found = 0;
        if (entry->d_name[0] == '.') continue;
        for (size_t i = 0; i < family_count; i++)
            found |= strlen(families[i].name) == n &&
                     memcmp(families[i].name, entry->d_name, n) == 0;
        if (!found) fail_msg("no test mentions families/%s", entry->d_name);
    }
    closedir(folder);
}

/* Whatever the library supports: the files are whole, and their numbers belong together. */
static void every_golden_is_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < family_count; i++) {
        family_golden g;
        family_open(&g, &families[i]);
        for (size_t a = 0; a < g.count; a++) {
            const family_array *array = family_find(&g, "", g.arrays[a].name);
            const float *values = array->data;
            for (size_t e = 0; e < array->count && !array->ids; e++)
                assert_true(values[e] > -1e4f && values[e] < 1e4f);
        }
        family_close(&g);
    }
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[64] = {
        cmocka_unit_test(every_golden_is_in_the_table),
        cmocka_unit_test(every_golden_is_whole),
    };
    size_t n = 2;
    for (size_t i = 0; i < family_count; i++)
        if (families[i].task == FAMILY_CAUSAL)
            tests[n++] = (struct CMUnitTest){.name = families[i].name,
                                             .test_func = agrees_with_transformers,
                                             .initial_state = (void *)(uintptr_t)&families[i]};
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
