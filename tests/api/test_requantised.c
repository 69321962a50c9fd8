/* The demo model, as F16, in every usual type: its distance to that base is at most 5 % larger than that
 * of the file that llama.cpp's own llama-quantize makes from the same base, and the file is no larger.
 * Their numbers were measured by bench/peers/requantise with this program's forward pass. */
// label: long
#include "base/alloc.h"
#include "base/file.h"
#include "support/golden_run.h"
#include "support/models.h"

#include <keyhole/convert.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { T = 512 };

static const struct {
    const char *type;
    double kl, megabytes; /* of llama-quantize's file */
} theirs[] = {
#include "../golden/requantised.inc"
};

static char folder[64], base[96], file[96];
static int32_t *ids;
static float *reference; /* [T][V] */
static size_t V;

static float *logits_of(const char *path)
{
    kh_model *model;
    GOOD(kh_model_open(&model, path));
    V = (size_t)kh_model_get_info(model)->vocabulary;
    kh_session_options options = {.context = T};
    kh_session *session = open_session(model, &options);
    float *logits = all_logits(model, session, ids, T);
    kh_session_close(session);
    kh_model_close(model);
    return logits;
}

static int open_base(void **state)
{
    (void)state;
    const char *path = kh_test_model("smollm2");
    if (!path) return 0;
    snprintf(folder, sizeof folder, "/tmp/test_requantised_XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(base, sizeof base, "%s/base.gguf", folder);
    snprintf(file, sizeof file, "%s/file.gguf", folder);
    GOOD(kh_convert(path, base, NULL, NULL));
    kh_model *model;
    char *text;
    size_t size, count;
    GOOD(kh_model_open(&model, base));
    GOOD(kh_file_read(&text, &size, "examples/persuasion.txt", 1 << 24));
    GOOD(kh_model_tokenize(model, text, size, 0, &ids, &count));
    assert_true(count >= T);
    kh_free(text);
    kh_model_close(model);
    reference = logits_of(base);
    return 0;
}

static int close_base(void **state)
{
    (void)state;
    kh_free(reference);
    kh_free_ids(ids);
    unlink(base);
    unlink(file);
    return *folder ? rmdir(folder) : 0;
}

static double divergence(const float *p, const float *q)
{
    double p_sum = log_sum_exp(p, V), q_sum = log_sum_exp(q, V), sum = 0;
    for (size_t v = 0; v < V; v++) {
        double a = (double)p[v] - p_sum, b = (double)q[v] - q_sum;
        sum += exp(a) * (a - b);
    }
    return sum;
}

static void no_farther_than_llama_cpp(void **state)
{
    (void)state;
    kh_test_need_model("smollm2");
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++) {
        kh_convert_options options = {.type = theirs[i].type, .overwrite = 1};
        kh_convert_result result;
        double kl = 0;
        GOOD(kh_convert(base, file, &options, &result));
        float *logits = logits_of(file);
        for (size_t t = 0; t < T; t++) kl += divergence(reference + t * V, logits + t * V) / T;
        kh_free(logits);
        print_message("%-7s KL %.4e, llama-quantize %.4e: %.3f\n", theirs[i].type, kl, theirs[i].kl,
                      kl / theirs[i].kl);
        assert_true(kl <= 1.05 * theirs[i].kl);
        kh_map map;
        GOOD(kh_map_open(&map, file));
        assert_true((double)map.size <= 1e6 * theirs[i].megabytes + 1e5);
        kh_map_close(&map);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_farther_than_llama_cpp)};
    return cmocka_run_group_tests(tests, open_base, close_base);
}
