/* The n-th allocation fails, for every n: opening a tiny model, reading, and generating two tokens answers
 * with an error and a sentence, leaks nothing and does not crash. After the last n the run is good. */
#include "base/alloc.h"
#include "support/golden_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static kh_status whole_run(const char *path)
{
    kh_model *model = NULL;
    kh_session *session = NULL, *fork = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    kh_session_options so = {
        .attn = "0=full;1-=topk:k=4", .context = 64, .longer = 1, .forks = 1, .threads = 2};
    kh_generate_options g = {
        .sampler = kh_sampler_defaults(), .max_tokens = 2, .ignore_end = 1, .top_logprobs = 3};
    kh_generate_result made;
    kh_status status = kh_model_open(&model, path);
    if (status == KH_OK) status = kh_session_open(&session, model, &so);
    if (status == KH_OK)
        status = kh_model_tokenize(model, "A keyhole, 42 words!", 20, KH_TEXT_EDGES, &ids, &n);
    if (status == KH_OK) status = kh_session_read(session, ids, n, NULL);
    if (status == KH_OK) status = kh_session_fork(&fork, session);
    if (status == KH_OK) status = kh_generate(fork, &g, &made);
    kh_free_ids(ids);
    kh_session_close(fork);
    kh_session_close(session);
    kh_model_close(model);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny/llama.gguf", "tiny/gemma3-q8.gguf"};
    for (size_t m = 0; m < 2; m++) {
        char path[512];
        snprintf(path, sizeof path, "%s", golden_path(names[m]));
        GOOD(whole_run(path)); /* what libraries keep for good is taken now */
        uint64_t live = kh_alloc_get_stats().live;
        size_t failures = 0;
        for (uint64_t n = 1;; n++) {
            kh_alloc_fail_at(n);
            kh_status status = whole_run(path);
            kh_alloc_fail_at(0);
            if (kh_alloc_get_stats().live != live)
                fail_msg("%s: allocation %llu failed and %lld blocks leaked", names[m],
                         (unsigned long long)n, (long long)(kh_alloc_get_stats().live - live));
            if (status == KH_OK) break;
            assert_int_equal(status, KH_ERR_MEMORY);
            assert_true(strlen(kh_last_error()) > 0);
            failures++;
        }
        print_message("%s: %zu allocations, each failed once\n", names[m], failures);
        assert_true(failures > 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
